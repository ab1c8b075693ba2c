"""Which axis is up, how the pelvis stands and where the floor is, for people of every posture."""

import json
import re
import sys
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import people
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion import retarget, skeletons
from bm_envs.motion.bvh import FREE_JOINT_FRAMES, read_bvh
from bm_envs.motion.skeletons import body_motion, find_mapping

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import retarget as tool  # noqa: E402

LAFAN1 = people.SPELLINGS["LAFAN1"]


def about(axis, degrees):
    return Rotation.from_euler(axis, degrees, degrees=True)


# Postures, y up and z ahead: the pelvis's turn, its height in cm, and turns of other joints.
STANDING = {"root": Rotation.identity(), "height": 94.0}
POSTURES = {
    "standing": STANDING,
    "on the back": {"root": about("x", -90), "height": 12.0},
    "face down": {"root": about("x", 90), "height": 11.0},
    "on the left side": {"root": about("z", 90), "height": 18.0},
    "on the right side, turned": {"root": about("y", 60) * about("z", -90), "height": 18.0},
    "crawling": {"root": about("x", 80), "height": 48.0, "turns": {
        **{f"{side}_hip": (-80, 0, 0) for side in skeletons.SIDES},
        **{f"{side}_knee": (90, 0, 0) for side in skeletons.SIDES},
        **{f"{side}_ankle": (50, 0, 0) for side in skeletons.SIDES},
        "left_shoulder": (0, -85, 0), "right_shoulder": (0, 85, 0)}},
    "handstand": {"root": about("x", 180), "height": 103.0, "turns": {
        "left_shoulder": (0, 0, 80), "right_shoulder": (0, 0, -80)}},
    "hanging upside down": {"root": about("z", 180), "height": 190.0},
}  # fmt: skip
# From y up to the file's axes. The truth of each: the axis that was up is now this one.
FILE_AXES = {
    "y": Rotation.identity(), "z": about("x", 90), "x": about("z", -90), "-y": about("x", 180),
    "-z": about("x", -90), "-x": about("z", 90),
}  # fmt: skip


def read(tmp_path, text):
    path = tmp_path / "made.bvh"
    path.write_text(text)
    return read_bvh(path)


@pytest.mark.parametrize("axis", FILE_AXES)
@pytest.mark.parametrize("posture", POSTURES)
def test_up_is_never_guessed(tmp_path, posture, axis):
    """Whoever stands is stood; whoever does not is asked about, and laid down when told."""
    assert FILE_AXES[axis].apply([0, 1, 0]) @ axis_vector(axis) == pytest.approx(1.0)
    given = POSTURES[posture]
    person = read(tmp_path, people.posed(LAFAN1, axes=FILE_AXES[axis], **given))
    mapping = find_mapping(person)
    assert mapping.name == "LAFAN1"
    if posture == "standing":
        body = body_motion(person, mapping)
        assert body.found.up_by == "the rest pose and the motion"
    else:
        with pytest.raises(MotionError) as caught:
            body_motion(person, mapping)
        said = str(caught.value)
        assert (
            f"up is {axis} by the rest pose and " in said and f"--up={axis} if the person" in said
        )
        assert said.count("\n") == 0 and said.endswith(".")
        body = body_motion(person, mapping, axis)
        assert body.found.up_by == "as told"
    assert body.found.up == axis
    # By hand: where the pelvis's own up and ahead are in the world, y up and z ahead there.
    world = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # z ahead to x, y up to z
    turned = people.rotation(body.pelvis_quat)
    for own, robots in (((0, 1, 0), (0, 0, 1)), ((0, 0, 1), (1, 0, 0))):
        truth = world.apply(given["root"].apply(own))
        found = turned.apply(robots)
        # The file's horizontal axes may be turned about up; heights are the same in all.
        np.testing.assert_allclose(found[:, 2], truth[2], atol=0.05)  # sways by 2 degrees: 0.035
    # The floor: heights of the pelvis over it, within what a body's thickness is guessed to be.
    # Who hangs has none; there it is under the neck (not the head, of which nothing is known).
    height = 52.0 + 8.4 if posture.startswith("hanging") else given["height"]
    assert body.pos["pelvis"][:, 2] == pytest.approx(height, abs=10.0)


def axis_vector(axis):
    return np.eye(3)["xyz".index(axis[-1])] * (-1.0 if axis[0] == "-" else 1.0)


def test_a_rest_pose_that_stands_otherwise_is_a_question(tmp_path):
    """z-up motion over a y-up rest pose, as converters of SMPL write: not told from lying down."""
    turned = people.posed(LAFAN1, axes=FILE_AXES["z"], rest=Rotation.identity(), **STANDING)
    person = read(tmp_path, turned)
    with pytest.raises(MotionError, match="up is y by the rest pose and z by the motion"):
        body_motion(person, find_mapping(person))
    body = body_motion(person, find_mapping(person), "z")
    upright = people.rotation(body.pelvis_quat).apply([0, 0, 1.0])
    assert upright[:, 2].min() > 0.99 and body.pos["pelvis"][:, 2].min() > 90


def test_the_motion_need_not_have_an_axis(tmp_path):
    """Who rolls about stands along none in the mean: then the rest pose says it alone."""
    person = read(tmp_path, people.posed(LAFAN1, root=Rotation.identity(), height=60.0, frames=61))
    turn = Rotation.from_euler("x", np.linspace(0, 720, 61)[:, None], degrees=True)
    quat = person.local_quat.copy()
    quat[:, 0] = people.wxyz(turn * people.rotation(quat[:, 0]))
    body = body_motion(replace(person, local_quat=quat), find_mapping(person))
    assert (body.found.up, body.found.up_by) == (
        "y", "the rest pose (the motion stands along no axis)"
    )  # fmt: skip


@pytest.fixture
def bones_along_x(tmp_path):
    """A skeleton as LAFAN1's: every bone along its frame's x at rest, and the motion the same.

    Each joint's frame is turned so that its child is ahead on x; the turns go into the motion.
    """

    def make(**given):
        person = read(tmp_path, people.posed(LAFAN1, **given))
        frames = []
        for joint in range(len(person.names)):
            children = [k for k, p in enumerate(person.parents) if p == joint]
            ends = [offset for parent, offset in person.ends.values() if parent == joint]
            # The pelvis's child is the spine, the chest's the neck: the first of each.
            way = person.offsets[children[0]] if children else ends[0]
            frames.append(Rotation.align_vectors([way], [[1.0, 0, 0]])[0])
        offsets, pos, quat = (np.array(value) for value in
                              (person.offsets, person.local_pos, person.local_quat))  # fmt: skip
        for joint, parent in enumerate(person.parents):
            before = frames[parent].inv() if parent >= 0 else Rotation.identity()
            if parent >= 0:
                offsets[joint] = before.apply(offsets[joint])
                pos[:, joint] = before.apply(pos[:, joint])
            quat[:, joint] = people.wxyz(before * people.rotation(quat[:, joint]) * frames[joint])
        other = replace(person, offsets=offsets, local_pos=pos, local_quat=quat, ends={})
        np.testing.assert_allclose(other.world()[0], person.world()[0], atol=1e-9)
        return person, other

    return make


def test_lafan1_with_a_rest_pose_of_its_own_and_with_a_standing_one(bones_along_x):
    """The same motion with both rest poses is the same body: the rest pose is measured."""
    standing, folded = bones_along_x(**STANDING)
    one, two = (body_motion(person, find_mapping(person)) for person in (standing, folded))
    assert one.found.rest == "the rest pose stands, and the pelvis with it"
    assert two.found.rest == (
        "the rest pose does not stand, and LAFAN1 says 1 0 0 is up in the pelvis"
    )
    assert two.found.up_by == "the skeleton LAFAN1 and the motion"
    for part in skeletons.PARTS:
        np.testing.assert_allclose(one.pos[part], two.pos[part], atol=1e-6)
    # At rest the pelvis's up is from feet to neck in one and the spine's first bone in the other.
    gap = people.rotation(one.pelvis_quat).inv() * people.rotation(two.pelvis_quat)
    assert np.degrees(gap.magnitude()).max() < 1.0


def test_who_stands_lies_on_no_floor_by_accident(bones_along_x):
    """Standing with the rest pose of LAFAN1's bones and a mapping file: a warning, no question."""
    for x, z in ((40.0, -30.0), (0.0, 0.0), (300.0, 250.0)):
        _, folded = bones_along_x(**STANDING)
        pos = folded.local_pos.copy()
        pos[:, 0, [0, 2]] = x, z
        mine = replace(find_mapping(folded), name="mine", known=False, up=None)
        with pytest.warns(MotionWarning, match="y is taken for up by the motion alone"):
            body = body_motion(replace(folded, local_pos=pos), mine)
        assert body.found.up == "y"


def test_without_a_standing_rest_pose_who_lies_is_a_question_too(bones_along_x, tmp_path):
    _, folded = bones_along_x(**POSTURES["on the back"])
    with pytest.raises(MotionError, match="up is y by the skeleton LAFAN1 and -z by the motion"):
        body_motion(folded, find_mapping(folded))
    mine = replace(find_mapping(folded), name="mine", known=False, up=None)
    with pytest.raises(MotionError) as caught:
        body_motion(folded, mine)
    assert str(caught.value).endswith(
        "made.bvh: the person stands along -z or lies on the floor along y, and the rest pose"
        " stands along no axis, expected --up=-z or --up=y."
    )
    # A lying person's file that is the same but for its floor at -1 m: nothing tells.
    high = folded.local_pos.copy()
    high[:, 0, 1] += 100.0
    with pytest.warns(MotionWarning, match="-z is taken for up by the motion alone .100% of the"):
        assert body_motion(replace(folded, local_pos=high), mine).found.up_by == "the motion alone"
    with pytest.raises(MotionError, match="up is y by the mapping and -z by the motion"):
        body_motion(folded, replace(mine, up="y"))
    told = body_motion(folded, mine, "y")
    assert told.pos["pelvis"][:, 2].max() < 22.0


@pytest.mark.parametrize("spelling", people.SPELLINGS)
def test_known_spellings(tmp_path, spelling):
    names = people.SPELLINGS[spelling]
    person = read(tmp_path, people.posed(names, **STANDING))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mapping = find_mapping(person)
        body = body_motion(person, mapping)
    assert mapping.name == spelling.partition(" ")[0]
    truth = dict(mapping.joints)
    assert truth == {part: names[part] for part in skeletons.PARTS}
    upright = people.rotation(body.pelvis_quat).apply([0, 0, 1.0])[:, 2]
    assert upright.min() > np.cos(np.radians(2.1)), "it stands, and sways by 2 degrees"
    # Legs of 42 + 42 cm, standing on toes 6 cm under the ankles.
    assert body.leg_length == pytest.approx(84.0, abs=1e-3)
    assert body.pos["left_ankle"][:, 2] == pytest.approx(8.0, abs=2.0)


def test_any_name_may_stand_before_the_joints(tmp_path):
    for before in ("mixamorig1:", "Bob_", "mixamorig", "a:b:"):
        names = {part: f"{before}{name.removeprefix('mixamorig:')}"
                 for part, name in people.SPELLINGS["Mixamo"].items()}  # fmt: skip
        mapping = find_mapping(read(tmp_path, people.posed(names, **STANDING)))
        assert mapping.name == "Mixamo" and mapping.joints["neck"] == f"{before}Neck"
    names["left_knee"] = "Other:LeftLeg"  # not the same before each
    with pytest.raises(MotionError, match="are those of no known skeleton"):
        find_mapping(read(tmp_path, people.posed(names, **STANDING)))


def test_end_sites_are_a_way_in(tmp_path):
    """Feet that end at the toe, hands at the fingers: their end sites serve as joints."""
    person = read(tmp_path, people.posed(LAFAN1, **STANDING))
    assert set(person.ends) == {"Head_end", *(f"{side}{part}_end" for side in ("Left", "Right")
                                              for part in ("Hand", "Toe"))}  # fmt: skip
    mapping = find_mapping(person)
    joints = mapping.joints | {
        f"{side}_{part}": f"{side.capitalize()}{name}_end" for side in skeletons.SIDES
        for part, name in (("toe", "Toe"), ("wrist", "Hand"))
    }  # fmt: skip
    one, two = body_motion(person, mapping), body_motion(person, replace(mapping, joints=joints))
    # The toe's tip is 6 cm ahead of the toe, level; the hand's 16 cm on along the arm.
    for part, length in (("toe", 6.0), ("wrist", 16.0)):
        gap = np.linalg.norm(one.pos[f"left_{part}"] - two.pos[f"left_{part}"], axis=-1)
        np.testing.assert_allclose(gap, length, atol=1e-6)
    with pytest.raises(MotionError, match="lacks the joint 'LeftToe_edn' .* it has LeftToe_end,"):
        body_motion(person, replace(mapping, joints=joints | {"left_toe": "LeftToe_edn"}))


# --- people that a wrong mapping or another file makes -------------------------------------------


def test_a_pelvis_up_that_does_not_fit(bones_along_x, tmp_path):
    standing, folded = bones_along_x(**STANDING)
    mapping = replace(find_mapping(standing), name="mine", known=False)
    with pytest.raises(MotionError) as caught:
        body_motion(standing, mapping)
    assert str(caught.value).endswith(
        "made.bvh: pelvis_up is 1 0 0 in the mapping and 0 1 0 by the rest pose, which stands;"
        " expected the same, or no pelvis_up."
    )
    with pytest.raises(MotionError, match="the pelvis is tilted by 90 degrees .median. from the l"):
        body_motion(folded, replace(mapping, pelvis_up=(0.0, 1.0, 1.0), up="y"))


def test_left_and_right_swapped_or_a_mirror_image(tmp_path):
    person = read(tmp_path, people.posed(LAFAN1, **STANDING))
    mapping = find_mapping(person)
    other = {"left": "right", "right": "left"}
    swapped = {}
    for part, joint in mapping.joints.items():
        side, _, limb = part.partition("_")
        swapped[f"{other[side]}_{limb}" if side in other else part] = joint
    with pytest.raises(MotionError, match="the toes point behind the body in its rest pose, exp"):
        body_motion(person, replace(mapping, joints=swapped))
    mirror = np.array([-1.0, 1, 1])
    # A mirror at x: positions change their sign there, rotation vectors in the other two.
    flipped = replace(
        person, offsets=person.offsets * mirror, local_pos=person.local_pos * mirror,
        local_quat=person.local_quat * np.r_[1.0, -mirror] * np.array([1.0, 1, 1, 1]),
    )  # fmt: skip
    with pytest.raises(MotionError, match="or the file is a mirror image"):
        body_motion(flipped, mapping)


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(1000.0, "positions have another unit than the skeleton"), (0.001, None), (1.0, None)],
)
def test_positions_in_another_unit_than_the_skeleton(tmp_path, factor, sentence):
    """A walk of 1 m/s whose root is in mm where its bones are in m (or 1000 times as large)."""
    person = read(tmp_path, people.posed(LAFAN1, **STANDING))
    pos = person.local_pos.copy()
    pos[:, 0, 2] += np.arange(len(pos)) * 100.0 / person.fps
    pos[:, 0] *= factor
    moved = replace(person, local_pos=pos)
    if sentence is None:
        body_motion(moved, find_mapping(person))
    else:
        with pytest.raises(MotionError, match=sentence):
            body_motion(moved, find_mapping(person))


def test_a_jump_of_one_frame(tmp_path):
    """A first frame elsewhere, as a T-pose at the origin is: 3 m are doubtful, 900 km are none."""
    person = read(tmp_path, people.posed(LAFAN1, frames=61, **STANDING))
    for metres, how in ((3.0, "warned"), (900_000.0, "refused"), (0.3, "read")):
        pos = person.local_pos.copy()
        pos[0, 0, 0] += 100.0 * metres
        moved, mapping = replace(person, local_pos=pos), find_mapping(person)
        if how == "warned":
            # By hand: 300 cm in legs of 84.
            with pytest.warns(
                MotionWarning, match="its pelvis jumps by 3.571 leg lengths at 0.000"
            ):
                body_motion(moved, mapping)
        elif how == "refused":
            with pytest.raises(MotionError, match="leg lengths at 0.000 s, expected a motion with"):
                body_motion(moved, mapping)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                body_motion(moved, mapping)


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(FILE_AXES)))
@settings(max_examples=40, deadline=None)
def test_no_posture_makes_another_axis_of_the_one_the_rest_pose_has(tmp_path_factory, seed, axis):
    """However the body lies in space: the rest pose's axis, or a question that offers it."""
    root = Rotation.random(random_state=seed)
    text = people.posed(LAFAN1, root=root, height=80.0, frames=5, axes=FILE_AXES[axis])
    person = read(tmp_path_factory.mktemp("posture"), text)
    try:
        body = body_motion(person, find_mapping(person))
    except MotionError as error:
        assert f"up is {axis} by the rest pose and " in str(error) and f"--up={axis} if" in str(
            error
        )
    else:
        assert body.found.up == axis
        truth = root.apply([0.0, 1.0, 0.0])[1]  # how high the pelvis's up points
        found = people.rotation(body.pelvis_quat).apply([0.0, 0.0, 1.0])[:, 2]
        np.testing.assert_allclose(found, truth, atol=0.04)  # sways by 2 degrees


def test_bodies_of_no_length_or_of_no_proportion(tmp_path):
    person = read(tmp_path, people.posed(LAFAN1, **STANDING))
    mapping, index = find_mapping(person), person.names.index

    def scaled(factor, *names):
        offsets, pos = person.offsets.copy(), person.local_pos.copy()
        for name in names:
            offsets[index(name)] *= factor
            pos[:, index(name)] *= factor
        return replace(person, offsets=offsets, local_pos=pos)

    both = [f"{side}{part}" for side in ("Left", "Right") for part in ("Leg", "Foot")]
    arms = [f"{side}{part}" for side in ("Left", "Right") for part in ("ForeArm", "Hand")]
    for other, sentence in (
        (scaled(0.0, *both), "left_hip and left_knee are in one place"),
        (scaled(0.01, *both), "from hips to neck are 56 and the legs have 0.84, expected 0.6"),
        (scaled(100.0, *both), "from hips to neck are 56 and the legs have 8400, expected 0.6"),
        (scaled(0.0, *arms), "left_shoulder and left_elbow are in one place"),
        (scaled(0.0, "LeftUpLeg", "RightUpLeg"), "left_hip and right_hip are in one place"),
    ):
        with pytest.raises(MotionError, match=sentence):
            body_motion(other, mapping)
    # No forearm at rest, though there is one in the motion: the hand would point nowhere.
    offsets = person.offsets.copy()
    offsets[index("LeftHand")] = 0.0
    with pytest.raises(MotionError, match="left_elbow and left_wrist are in one place"):
        body_motion(replace(person, offsets=offsets), mapping)


@pytest.mark.slow
def test_no_file_of_a_megabyte_takes_a_gigabyte(tmp_path):
    """A person of 21 joints in as many frames as the bounds allow, at the rate that makes most."""
    text = people.posed(LAFAN1, frames=3, **STANDING).partition("MOTION")[0]
    text = re.sub("CHANNELS.*", "CHANNELS 0", text)
    text = text.replace("CHANNELS 0", "CHANNELS 1 Xposition", 1)
    frames = FREE_JOINT_FRAMES // 21
    path = tmp_path / "made.bvh"
    rows = "0\n" * frames
    path.write_text(f"{text}MOTION\nFrames: {frames}\nFrame Time: {1.01 / 20:.6f}\n{rows}")
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        person = read_bvh(path).at_rate(50.0)
        body = body_motion(person, find_mapping(person))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body.pelvis_quat) > 2.4 * frames, "premise: many frames are made between"
    assert peak < 2**29, "half a gigabyte, and as much again is left to Python and its packages"


# --- the whole way -------------------------------------------------------------------------------


def link_up(clip):
    return people.rotation(clip.body_quat_w[:, 0]).apply([0.0, 0.0, 1.0])[:, 2]


@pytest.mark.parametrize(
    ("posture", "low", "high", "tilt"),
    [
        # m at the robot's size, whose legs are 0.62 m and the person's 0.84: 12 cm are 9 there.
        ("on the back", 0.04, 0.20, 0.0), ("face down", 0.04, 0.20, 0.0),
        ("on the left side", 0.04, 0.25, 0.0), ("crawling", 0.25, 0.45, 0.17),
        ("handstand", 0.60, 0.90, -1.0),
    ],
)  # fmt: skip
def test_who_lies_lies(tmp_path, posture, low, high, tilt):
    pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
    person = read(tmp_path, people.posed(LAFAN1, **POSTURES[posture]))
    clip, _ = retarget.retarget(person, find_mapping(person), up="y", name="a", source="test",
                                licence="CC0")  # fmt: skip
    height = clip.body_pos_w[:, 0, 2]
    assert low < np.median(height) < high
    np.testing.assert_allclose(link_up(clip), tilt, atol=0.1)
    # Nothing deep in the floor. A hand may be: only the feet are kept out of it, and the robot's
    # arms are longer for its legs than a person's.
    assert clip.body_pos_w[..., 2].min() > -0.12


def test_a_skeleton_by_lafan1s_names_with_a_t_pose_stands(tmp_path, capsys):
    """As the command prints it: which skeleton, which axis by what, which scale, which floor."""
    pytest.importorskip("mink", reason="retargeting needs the extra 'retarget'")
    path = tmp_path / "made.bvh"
    path.write_text(people.posed(LAFAN1, **STANDING))
    tool.main(tool.Config(path, tmp_path / "o.npz"))
    printed = " ".join(capsys.readouterr().out.split())
    scale = retarget.robot_lengths().leg_length / 84.0
    for text in ("skeleton LAFAN1, 21 joints; the rest pose stands, and the pelvis with it",
                 "frames 31 at 30 fps -> 50 fps", "up axis y, by the rest pose and the motion",
                 f"scale {scale:.4g}: legs of 84 in the file's unit,",
                 "along the up axis, under the lower foot"):  # fmt: skip
        assert text in printed, printed
    arrays = np.load(tmp_path / "o.npz")
    upright = people.rotation(arrays["body_quat_w"][:, 0]).apply([0, 0, 1.0])[:, 2]
    assert upright.min() > np.cos(np.radians(5.0))
    (tmp_path / "o.npz").unlink()
    path.write_text(people.posed(LAFAN1, **POSTURES["on the back"]))
    with pytest.raises(MotionError, match="expected one: --up=y if the person lies"):
        tool.main(tool.Config(path, tmp_path / "o.npz"))
    assert [p.name for p in tmp_path.iterdir()] == ["made.bvh"], "nothing half-written"


def test_a_mapping_file_may_say_the_axis(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"joints": find_joints(), "up": "-y"}))
    assert skeletons.read_mapping(path).up == "-y"
    for up in ("up", 3, ["y"], {"y": 1}, True):
        path.write_text(json.dumps({"joints": find_joints(), "up": up}))
        with pytest.raises(MotionError, match="mine.json: up is .*, expected x, y, z, -x, -y, -z"):
            skeletons.read_mapping(path)


def find_joints():
    return {part: LAFAN1[part] for part in skeletons.PARTS}
