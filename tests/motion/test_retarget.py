"""Retargeting: the robot's own motions come back, and what people do stays within what it can."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
import warm_python
from scipy.spatial.transform import Rotation

from bm_envs.errors import ConfigError, MotionError, MotionWarning
from bm_envs.motion import fidelity, footing, retarget, skeletons
from bm_envs.motion.bvh import read_bvh
from bm_envs.motion.clip import clip_from_states, load_npz
from bm_envs.motion.feasibility import examine
from bm_envs.motion.library import load_motion
from bm_envs.results import check_result
from bm_envs.robots import g1

pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import retarget as tool  # noqa: E402

BODY = {name: i for i, name in enumerate(g1.BODY_NAMES)}
JOINT = {name: i for i, name in enumerate(g1.JOINT_NAMES)}


def carry(person, mapping=None, **options):
    return retarget.retarget(
        person, mapping or skeletons.find_mapping(person), name="made", source="test",
        licence="CC0", **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def walker():
    """Three seconds of the built-in walk with a start from standing, as a person."""
    clip = load_motion("walk[1:4]")
    return clip, people.robot_as_person(clip)


@pytest.fixture(scope="module")
def walked(walker):
    return carry(walker[1])


# --- the whole way -------------------------------------------------------------------------------


def test_the_robots_own_walk_comes_back(walker, walked):
    """Of a person with the robot's limbs nothing but the robot's motion is the answer.

    The joints are off by what the stages add on purpose: knees are kept from stretching (`REACH`,
    9 mm of height, 0.08 rad of knee), and a forearm is taken to be the line from elbow to wrist,
    which in the robot is 3 degrees (0.05 rad) off its axis.
    """
    clip, _ = walker
    result, _ = walked
    frames = result.num_frames
    assert clip.num_frames - 1 == frames and result.fps == 50.0
    gap = np.abs(result.joint_pos - clip.joint_pos[:frames])
    assert gap.mean() < 0.02 and gap.max() < 0.12
    height = result.body_pos_w[:, 0, 2] - clip.body_pos_w[:frames, 0, 2]
    assert np.abs(height).max() < 0.012
    way, wanted = (c.body_pos_w[frames - 1, 0, :2] - c.body_pos_w[0, 0, :2] for c in (result, clip))
    assert np.linalg.norm(wanted) > 0.6, "premise: it walks"
    np.testing.assert_allclose(way, wanted, atol=0.02)
    # Contacts begin and end within three frames of the planned ones: four changes a second here.
    assert (result.foot_contact == clip.foot_contact[:frames]).mean() > 0.88


def test_the_walk_is_as_good_as_it_says(walked):
    result, wanted = walked
    found = fidelity.measure(result, wanted)
    assert found.limit_excess_rad == 0.0 and found.warnings() == []
    assert found.foot_slide_m_s < 0.01 and found.penetration_m < 0.002
    assert found.arm_direction_deg < 1.0 and found.leg_direction_deg < 3.0
    assert examine(result).flags == {}


@pytest.mark.parametrize("what", ["larger", "z down", "elsewhere", "60 Hz"])
def test_units_axes_place_and_rate_of_the_file_do_not_matter(walker, walked, what, tmp_path):
    person, up = walker[1], "auto"
    if what == "larger":  # centimetres
        person = replace(person, offsets=100 * person.offsets, local_pos=100 * person.local_pos)
    elif what == "z down":
        person = turned(person, Rotation.from_euler("x", -90, degrees=True))
        up = "-z"  # the rest pose keeps its own axes, z up: that is a question
        with pytest.raises(MotionError, match="up is z by the rest pose and -z by the motion"):
            carry(person)
    elif what == "elsewhere":
        person = turned(person, Rotation.from_euler("z", 130, degrees=True), (3.0, -2.0, 0.7))
    else:
        person = replace(person.at_rate(60.0))
    path = tmp_path / "a.bvh"
    path.write_text(people.bvh_text(person))
    result, _ = carry(read_bvh(path), up=up)
    frames = min(result.num_frames, walked[0].num_frames)
    assert abs(result.num_frames - walked[0].num_frames) <= 1
    gap = np.abs(result.joint_pos[:frames] - walked[0].joint_pos[:frames]).max()
    # Text has 9 digits and the iteration ends at steps of 1e-4; at 60 Hz the motion itself is
    # another spline through other points, and a contact may begin a frame earlier.
    assert gap < (0.05 if what == "60 Hz" else 5e-3)


def turned(person, turn, shift=(0.0, 0.0, 0.0)):
    """The same motion in turned axes: the rest pose keeps its own, as a BVH's does."""
    pos = turn.apply(person.local_pos.reshape(-1, 3)).reshape(person.local_pos.shape) + shift
    quat = people.wxyz(turn * people.rotation(person.local_quat.reshape(-1, 4)))
    pos[:, 0] = 0.0  # the root stays: all others hang on it by their own positions
    return replace(person, local_pos=pos, local_quat=quat.reshape(person.local_quat.shape))


def test_whoever_does_what_the_robot_cannot(walker):
    """Arms whirling through all directions and hips a hand's breadth off the floor."""
    clip, person = walker
    pos, frames = person.local_pos.copy(), person.num_frames
    index = {name: i for i, name in enumerate(person.names)}
    t = np.arange(frames) / 50.0
    for side, sign in (("left", 1), ("right", -1)):
        shoulder, elbow, wrist = (pos[:, index[f"{side}_{p}"]] for p in
                                  ("shoulder", "elbow", "wrist"))  # fmt: skip
        way = np.stack([np.sin(7 * t), sign * np.cos(11 * t), np.sin(5 * t + 1)], axis=1)
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        elbow[:] = shoulder + 0.2 * way
        wrist[:] = elbow + 0.2 * way[::-1]
    upper = [i for name, i in index.items() if not name.endswith(("knee", "ankle", "foot"))]
    pos[:, upper[1:], 2] -= np.linspace(0.0, 0.6, frames)[:, None]
    result, wanted = carry(replace(person, local_pos=pos))
    low, high = g1.JOINT_RANGE.T
    excess = np.maximum(low - result.joint_pos, result.joint_pos - high)
    assert excess.max() <= 1e-6, "float32 rounds a joint on its limit by less"
    assert (np.abs(excess) < 1e-3).any(axis=0).sum() >= 3, "premise: it was pushed to limits"
    speed = np.abs(np.diff(result.joint_pos, axis=0)) * 50 / g1.VELOCITY_LIMIT
    assert speed.max() <= 1.0
    found = fidelity.measure(result, wanted)
    assert found.limit_excess_rad == 0.0
    assert any("Arms are" in text or "Legs are" in text for text in found.warnings())


# --- feet ----------------------------------------------------------------------------------------


def feet(frames=150, fps=50.0, drag=None):
    """A left foot that stands, is carried 0.3 m ahead in half a second, and stands; a right one
    that stands all the time. Ankles 0.035 m over the floor when they stand, toes 0.12 m ahead."""
    ankle = np.zeros((frames, 2, 3))
    ankle[:, :, 1] = (0.1, -0.1)
    ankle[..., 2] = 0.035
    s = np.clip((np.arange(frames) / fps - 1.0) / 0.5, 0.0, 1.0)
    ankle[:, 0, 0] = 0.3 * (s - np.sin(2 * np.pi * s) / (2 * np.pi))
    ankle[:, 0, 2] += 0.08 * np.sin(np.pi * s) ** 2
    rng = np.random.default_rng(0)
    ankle = ankle + rng.uniform(-5e-4, 5e-4, ankle.shape)  # what a camera adds
    if drag is not None:
        ankle[:, 1, 0] += drag * np.arange(frames) / fps
    toe = ankle + (0.12, 0.0, -0.025)
    quat = np.tile([1.0, 0.0, 0.0, 0.0], (frames, 2, 1))
    return ankle, quat, toe, ankle[..., 2] - 0.035, toe[..., 2] - 0.01


def test_a_foot_that_stands_keeps_its_place():
    ankle, quat, toe, ankle_clear, toe_clear = feet()
    found = footing.plant(50.0, ankle, quat, toe, ankle_clear, toe_clear)
    assert found.contact[:, 1].all()
    stands = np.flatnonzero(~found.contact[:, 0])
    # It leaves at 1 s and is down at 1.5 s; slower than 0.25 m/s or lower than 3 cm some frames
    # longer: the path is 3 cm high at 0.11 s of the half second.
    assert 50 <= stands[0] <= 56 and 69 <= stands[-1] <= 76
    for side, keep in (
        (1, slice(None)),
        (0, slice(0, stands[0])),
        (0, slice(stands[-1] + 1, None)),
    ):
        place = found.pos[keep, side]
        np.testing.assert_allclose(np.ptp(place, axis=0), 0.0, atol=1e-9)
        np.testing.assert_allclose(place[0], ankle[keep, side].mean(axis=0), atol=2e-3)
        np.testing.assert_allclose(place[:, 2], -g1.SOLE_HEIGHT, atol=1e-9)
    # In between it follows: at most what the two ends were shifted.
    assert np.abs(found.pos - ankle).max() < 0.02


def test_a_foot_that_is_dragged_follows():
    given = feet(drag=0.15)
    found = footing.plant(50.0, *given)
    assert not found.contact[:, 1].any(), "22 cm in 1.5 s are no stance"
    np.testing.assert_allclose(found.pos[:, 1, 0], given[0][:, 1, 0], atol=1e-9)
    assert found.contact[:40, 0].all()


@pytest.mark.parametrize("turn", [("x", 90), ("x", -90), ("y", 90), ("y", -90), ("x", 180)])
def test_a_foot_on_its_side_heel_or_instep_does_not_stand(turn):
    """Who lies has feet near the floor that move as little as standing ones."""
    ankle, quat, toe, ankle_clear, toe_clear = feet()
    still = np.broadcast_to(ankle[:1], ankle.shape) + (0.0, 0.0, 0.1)
    lain = people.wxyz(Rotation.from_euler(*turn, degrees=True))
    quat = np.broadcast_to(lain, quat.shape)
    clear = np.zeros_like(ankle_clear)
    found = footing.plant(50.0, still, quat, toe, clear, clear)
    assert not found.contact.any()
    np.testing.assert_array_equal(found.pos, still)
    np.testing.assert_array_equal(found.quat, quat)
    upright = np.zeros_like(quat) + (1.0, 0, 0, 0)
    assert footing.plant(50.0, still, upright, still, clear, clear).contact.all(), "premise"


def test_the_way_to_the_side_of_who_lies():
    """A pelvis that looks straight up has no yaw: its own left serves, whatever the noise."""
    rng = np.random.default_rng(0)
    up = Rotation.from_euler("y", -90, degrees=True)  # x ahead to z up
    noisy = Rotation.from_rotvec(rng.normal(0, 1e-6, (50, 3))) * up
    left = retarget._sideways(people.wxyz(noisy))
    np.testing.assert_allclose(left, np.tile([0.0, 1, 0], (50, 1)), atol=1e-4)
    yaw = Rotation.from_euler("ZYX", np.column_stack([np.linspace(-3, 3, 50), [0.6] * 50,
                                                      [0.2] * 50]))  # fmt: skip
    level = retarget._sideways(people.wxyz(yaw))
    truth = Rotation.from_euler("z", np.linspace(-3, 3, 50)[:, None]).apply([0, 1.0, 0])
    np.testing.assert_allclose(level, truth, atol=1e-9)


def test_a_heel_that_rises_turns_the_foot_about_its_toe():
    frames = 60
    ankle, quat, toe, *_ = feet(frames)
    pitch = np.clip(np.linspace(-0.3, 0.6, frames), 0.0, None)[:, None]
    turn = Rotation.from_euler("y", np.repeat(pitch, 2)[:, None])
    quat = people.wxyz(turn).reshape(frames, 2, 4)
    toe = np.broadcast_to(toe[:1], toe.shape).copy()
    arm = turn.apply(np.tile([0.12, 0.0, -0.025], (2 * frames, 1))).reshape(frames, 2, 3)
    ankle = toe - arm
    found = footing.plant(50.0, ankle, quat, toe, ankle[..., 2] - 0.035, toe[..., 2] - 0.01)
    assert found.contact.all()
    # The front spheres of the sole, from the robot's table: they touch the floor and stay.
    front = np.array([s.start for s in g1.FOOT_SPHERES if s.start[0] > 0.1][:1])[0] * (1, 0, 1)
    place = found.pos + people.rotation(found.quat.reshape(-1, 4)).apply(
        np.tile(front, (2 * frames, 1))
    ).reshape(frames, 2, 3)
    np.testing.assert_allclose(np.ptp(place, axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(place[..., 2], g1.FOOT_SPHERES[0].radius, atol=1e-9)
    lifted = people.rotation(found.quat[-1]).apply([1.0, 0.0, 0.0])
    assert (lifted[:, 2] < -0.5).all(), "the heel is up at the end"


def test_runs():
    assert footing.runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert footing.runs(np.zeros(3, bool)) == [] and footing.runs(np.ones(2, bool)) == [(0, 2)]


# --- figures -------------------------------------------------------------------------------------


def standing(frames=51):
    stand = load_motion("stand")
    pos = np.tile(stand.body_pos_w[0, 0].astype(float), (frames, 1))
    quat = np.tile([1.0, 0.0, 0.0, 0.0], (frames, 1))
    return pos, quat, np.tile(stand.joint_pos[0].astype(float), (frames, 1))


def test_slide_and_depth_of_a_sliding_robot():
    """It stands and is moved at 0.2 m/s, 4 cm too low: that is what is found."""
    pos, quat, joints = standing()
    contact = np.ones((len(pos), 2), bool)
    still = clip_from_states("s", 50.0, pos, quat, joints, source="", licence="",
                             foot_contact=contact)  # fmt: skip
    pos[:, 0] += 0.2 * np.arange(len(pos)) / 50.0
    pos[:, 2] -= 0.04
    slid = clip_from_states("s", 50.0, pos, quat, joints, source="", licence="",
                            foot_contact=contact)  # fmt: skip
    # Positions are float32: 6e-8 m a frame, 3e-6 m/s.
    np.testing.assert_allclose(fidelity.foot_slide(still), 0.0, atol=1e-5)
    np.testing.assert_allclose(fidelity.foot_slide(slid), 0.2, atol=1e-4)
    wanted = directions(slid)
    found = fidelity.measure(slid, wanted)
    assert found.penetration_m == pytest.approx(0.04, abs=0.005)
    assert found.arm_direction_deg < 1e-3 and found.leg_direction_deg < 1e-3
    assert [text.split()[0] for text in found.warnings()] == ["Standing", "A"]
    bent = replace(wanted, leg=np.tile([1.0, 0.0, 0.0], (len(pos), 2, 1)))
    found = fidelity.measure(slid, bent)
    assert found.leg_direction_deg > 80 and "Legs are" in found.warnings()[-1]
    joints[:, JOINT["left_knee_joint"]] = g1.JOINT_RANGE[JOINT["left_knee_joint"], 1] + 0.1
    beyond = clip_from_states("s", 50.0, pos, quat, joints, source="", licence="")
    found = fidelity.measure(beyond, wanted)
    assert found.limit_excess_rad == pytest.approx(0.1, abs=1e-5)
    assert found.warnings()[0] == "A joint is 0.100 rad beyond its range."


def directions(clip):
    """Targets that say of each limb what the clip does."""

    def way(a, b):
        v = np.stack([clip.body_pos_w[:, BODY[f"{s}_{b}_link"]] -
                      clip.body_pos_w[:, BODY[f"{s}_{a}_link"]] for s in skeletons.SIDES],
                     axis=1).astype(float)  # fmt: skip
        return v / np.linalg.norm(v, axis=-1, keepdims=True)

    none = np.zeros((clip.num_frames, 2, 3))
    return retarget.Targets(
        50.0, none[:, 0], none[:, 0], none[:, 0], none, none, clip.foot_contact,
        way("shoulder_roll", "elbow"), way("elbow", "wrist_yaw"), none,
        way("hip_roll", "ankle_roll"),
    )  # fmt: skip


def test_difference_of_joints():
    pos, quat, joints = standing()
    one = clip_from_states("a", 50.0, pos, quat, joints, source="", licence="")
    joints[:, 3] += 0.25
    two = clip_from_states("b", 50.0, pos[:30], quat[:30], joints[:30], source="", licence="")
    found = fidelity.joint_difference(one, two)
    assert list(found) == list(g1.JOINT_NAMES)
    assert found.pop("left_knee_joint") == pytest.approx(0.25, abs=1e-6)
    assert max(found.values()) == 0.0


# --- skeletons -----------------------------------------------------------------------------------


def test_skeletons_are_told_by_their_joints(data_dir):
    found = {
        path.stem.partition("_")[0]: skeletons.find_mapping(read_bvh(path)).name
        for path in (data_dir / "bvh").glob("*.bvh")
    }
    assert found == {"cmu": "CMU", "fair": "FAIR", "lafan1": "LAFAN1"}


def test_every_skeleton_has_every_part():
    for mapping in skeletons.SKELETONS:
        assert tuple(sorted(mapping.joints)) == tuple(sorted(skeletons.PARTS))
        assert len(set(mapping.joints.values())) == len(skeletons.PARTS)


@pytest.fixture
def mapping_file(tmp_path):
    def write(**changes):
        joints = {part: part.replace("toe", "foot") for part in skeletons.PARTS}
        joints["chest"] = "spine3"
        value = {"joints": joints} | changes
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))
        return path

    return write


def test_a_mapping_file_serves_as_a_known_skeleton_does(walker, walked, mapping_file):
    person = walker[1]
    names = tuple(name.replace("_", " ") for name in person.names)
    other = replace(person, names=names)
    with pytest.raises(MotionError, match="are those of no known skeleton .*expected a mapping"):
        skeletons.find_mapping(other)
    joints = {k: v.replace("_", " ") for k, v in skeletons.SKELETONS[-1].joints.items()}
    mapping = skeletons.read_mapping(mapping_file(joints=joints, pelvis_up=[0, 0, 2.5]))
    result, _ = carry(other, mapping)
    np.testing.assert_array_equal(result.joint_pos, walked[0].joint_pos)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"joints": ...}, "has no keys, expected 'joints' and maybe 'pelvis_up' and 'up'."),
        ({"scale": 2}, "has 'joints', 'scale', expected 'joints' and maybe 'pelvis_up' and 'up'."),
        ({"joints": {"pelvis": "Hips"}}, "lacks 'chest', expected pelvis, chest,"),
        (
            {"joints": dict.fromkeys((*skeletons.PARTS, "tail"), "x")},
            "has the unknown part 'tail',",
        ),
        ({"joints": dict.fromkeys(skeletons.PARTS, 3)}, "pelvis is 3, expected a joint's name."),
        ({"pelvis_up": [0, 1]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [0, 0, 0]}, "pelvis_up is zero, expected a direction."),
        ({"pelvis_up": ["a", "b", "c"]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": ["0", "0", "1"]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [True, False, True]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [float("nan"), 0, 1]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [float("inf"), 0, 1]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [10**400, 0, 1]}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [1e300, 0, 1]}, "pelvis_up is too long, expected a direction."),
        ({"pelvis_up": {"x": 1}}, "pelvis_up is no array of 3 finite numbers."),
        ({"pelvis_up": [[[]]]}, "pelvis_up is no array of 3 finite numbers."),
        (
            {"joints": {part: "hips" for part in skeletons.PARTS}},
            "pelvis and neck are both 'hips', expected a joint for each.",
        ),
        ({"joints": [["pelvis", "Hips"]]}, "has 'joints', expected 'joints' and maybe"),
        ({"joints": dict.fromkeys(skeletons.PARTS, "")}, "pelvis is '', expected a joint's name."),
        (
            {"joints": dict.fromkeys(skeletons.PARTS, ["x"] * 9)},
            "pelvis is a list of 9, expected a joint's name.",
        ),
        (
            {"joints": dict.fromkeys((*skeletons.PARTS, "\x00\x1b[31m"), "x")},
            r"has the unknown part '\x00\x1b[31m', expected pelvis,",
        ),
    ],
)
def test_a_mapping_file_that_is_wrong(mapping_file, changes, sentence):
    path = mapping_file(**changes)
    with pytest.raises(MotionError) as caught:
        skeletons.read_mapping(path)
    assert str(caught.value).startswith(f"{path}: {sentence}")


def test_a_mapping_file_that_is_no_json(tmp_path):
    with pytest.raises(MotionError, match="none.json: does not exist, expected a .json file."):
        skeletons.read_mapping(tmp_path / "none.json")
    for text, sentence in (
        ("{", "is no readable JSON file"), ("[1]", "holds a list, expected an object"),
        ("[" * 100_000, "is no readable JSON file"), ("1" * 2_000_000, "has more than"),
        ('{"joints": ' * 90_000, "is no readable JSON file"), ("1" * 5000, "is no readable JSON"),
        ('{"up": "x", "up": "y"}', "has the key 'up' twice, expected it once"),
    ):  # fmt: skip
        path = tmp_path / "a.json"
        path.write_text(text)
        with pytest.raises(MotionError, match=f"a.json: {sentence}"):
            skeletons.read_mapping(path)


def test_people_who_make_no_sense(walker):
    person = walker[1]
    mapping = skeletons.find_mapping(person)
    with pytest.raises(MotionError, match="lacks the joint 'tail' that the mapping 'SMPL' names"):
        skeletons.body_motion(person, replace(mapping, joints=mapping.joints | {"neck": "tail"}))
    flat = person.local_pos.copy()
    index = person.names.index
    flat[:, index("left_knee")] = flat[:, index("left_hip")]
    with pytest.raises(MotionError, match="left_hip and left_knee are in one place"):
        skeletons.body_motion(replace(person, local_pos=flat), mapping)
    folded = person.offsets.copy()
    for part in ("knee", "ankle", "foot"):
        for side in skeletons.SIDES:
            folded[index(f"{side}_{part}"), 2] *= -1.0
    with pytest.raises(MotionError, match="its rest pose does not stand, expected 'pelvis_up'"):
        skeletons.body_motion(replace(person, offsets=folded), mapping)
    kneeling = replace(person, offsets=folded)
    with pytest.warns(MotionWarning, match="z is taken for up by the motion alone"):
        skeletons.body_motion(kneeling, replace(mapping, pelvis_up=(0, 0, 1.0)))
    turn = Rotation.from_euler("x", np.linspace(0, 720, person.num_frames)[:, None], degrees=True)
    rolling = kneeling.local_quat.copy()  # nobody up anywhere
    rolling[:, 0] = people.wxyz(turn * people.rotation(rolling[:, 0]))
    with pytest.raises(MotionError, match="so which is up must be told .--up x, y or z."):
        skeletons.body_motion(
            replace(kneeling, local_quat=rolling), replace(mapping, pelvis_up=(0, 0, 1.0))
        )


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cmu_jumping_jacks", "fair_jumping", "fair_zombie"])
def test_the_public_files_within_the_bounds(data_dir, tmp_path, name, capsys):
    out = tmp_path / "o.npz"
    tool.main(tool.Config(data_dir / "bvh" / f"{name}.bvh", out, json=tmp_path / "o.json"))
    printed = capsys.readouterr().out
    assert "joints within limits  in every frame" in printed and "warning" not in printed
    clip = load_npz(out)
    low, high = g1.JOINT_RANGE.T
    assert ((clip.joint_pos >= low - 1e-6) & (clip.joint_pos <= high + 1e-6)).all()
    assert examine(clip).flags == {}
    (row,) = json.loads((tmp_path / "o.json").read_text())["rows"]
    # A third of the bounds that warn, so that it would be seen if it got worse.
    assert row["foot_slide_m_s"] < fidelity.SLIDE / 3
    assert row["penetration_m"] < fidelity.PENETRATION / 3
    assert row["arm_direction_deg"] < fidelity.DIRECTION / 3
    assert row["leg_direction_deg"] < fidelity.DIRECTION / 3
    upright = Rotation.from_quat(clip.body_quat_w[0, 0][[1, 2, 3, 0]]).apply([0, 0, 1.0])
    assert upright[2] > 0.95, "it starts standing"
    np.testing.assert_allclose(clip.body_pos_w[0, 0, :2], 0.0, atol=0.05)


def test_the_published_csv_of_the_same_motion(data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BM_DATA_DIR", str(data_dir))
    source = data_dir / "bvh" / "lafan1_dance1_subject2_first10.bvh"
    tool.main(tool.Config(source, tmp_path / "o.npz", compare="dance1_subject2",
                          json=tmp_path / "o.json"))  # fmt: skip
    assert "difference from dance1_subject2, rad:" in capsys.readouterr().out
    value = json.loads((tmp_path / "o.json").read_text())
    gaps = value["rows"][0]["joint_difference_rad"]
    # Two retargeters agree on where the limbs point and not on how they twist: shoulders and
    # wrists of almost stretched arms may turn by some tenths of a radian.
    legs = {name: gap for name, gap in gaps.items() if "shoulder" not in name
            and "wrist" not in name and "elbow" not in name}  # fmt: skip
    assert len(legs) == 15 and max(legs.values()) < 0.12
    assert value["rows"][0]["mean_difference_rad"] < 0.2
    value["commit"], value["command"] = "0" * 40, "python tools/retarget.py a.bvh b.npz"
    check_result(value, "o.json")


def test_the_command_refuses(tmp_path, walker):
    good = tmp_path / "a.bvh"
    good.write_text(people.bvh_text(replace(walker[1], local_pos=walker[1].local_pos[:5],
                                            local_quat=walker[1].local_quat[:5])))  # fmt: skip
    with pytest.raises(ConfigError, match="o.csv: a motion is written to a name that ends in .npz"):
        tool.Config(good, tmp_path / "o.csv")
    with pytest.raises(ConfigError, match="fps is 0, expected 5 to 1000"):
        tool.Config(good, tmp_path / "o.npz", fps=0)
    with pytest.raises(ConfigError, match="input_fps is nan, expected 1 to 10000"):
        tool.Config(good, tmp_path / "o.npz", input_fps=float("nan"))
    with pytest.raises(ConfigError, match="licence has more than 1000 characters"):
        tool.Config(good, tmp_path / "o.npz", licence="x" * 1001)
    person = tmp_path / "p.npz"
    person.touch()
    with pytest.raises(ConfigError, match="p.npz is the motion that is read, expected another"):
        tool.Config(person, tmp_path / "." / "p.npz")
    person.unlink()
    for source, changes, sentence in (
        ("a.bvh", {"input_fps": 30.0}, "--input-fps is for SMPL-family motions; a BVH file has"),
        ("a.fbx", {}, "ends in '.fbx', expected a .bvh or .npz file"),
        ("none.bvh", {}, "does not exist, expected a .bvh file"),
        ("a.bvh", {"mapping": tmp_path / "none.json"}, "none.json: does not exist"),
        ("a.bvh", {"skeleton": tmp_path / "none.json"}, "--skeleton is for SMPL-family motions"),
        ("a.bvh", {"compare": "wlak"}, "Unknown motion 'wlak'; did you mean 'walk'?"),
        ("a.bvh", {"json": tmp_path}, "is a folder, expected the name of a file for --json"),
    ):
        with pytest.raises((MotionError, ConfigError)) as caught:
            tool.main(tool.Config(tmp_path / source, tmp_path / "o.npz", **changes))
        assert sentence in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bvh"], "nothing half-written"


def test_the_command_says_what_to_install(tmp_path, walker, monkeypatch):
    monkeypatch.setitem(sys.modules, "mink", None)
    with pytest.raises(MotionError) as caught:
        carry(walker[1])
    assert str(caught.value) == (
        "Retargeting needs the package mink: pip install 'bm-envs[retarget]'."
    )


def test_the_command_in_a_process(tmp_path):
    done = warm_python.run(
        [sys.executable, str(ROOT / "tools" / "retarget.py"), "none.bvh", "out.npz"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "error: none.bvh: does not exist, expected a .bvh file.\n"
    )  # fmt: skip
