"""Repaired references: what is changed, how far, and that nothing else is."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mirrored_rollouts import mirrored_state

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion import checks, feasibility, library, projection, repair, suites
from bm_envs.motion.clip import ARRAY_SHAPES, clip_from_states, load_npz, save_npz
from bm_envs.robots import g1, kinematics

FPS, FRAMES = 50.0, 120
JOINT = {name.removesuffix("_joint"): i for i, name in enumerate(g1.JOINT_NAMES)}
STAND = library.load_motion("stand")
ARRAYS = (*ARRAY_SHAPES, "foot_contact")


def make(pos, quat, joints, name="hand-made"):
    return clip_from_states(name, FPS, pos, quat, joints, source="a test", licence="Apache-2.0")


def standing(frames=FRAMES):
    """Root positions, root quaternions and joints of a robot that stands still."""
    return tuple(
        np.tile(values[0].astype(np.float64), (frames, 1))
        for values in (STAND.body_pos_w[:, 0], STAND.body_quat_w[:, 0], STAND.joint_pos)
    )


def bump(start, rise, hold, frames=FRAMES):
    """`[frames]`: 0, then smoothly up to 1 for a while, then 0. All in frames."""
    time = np.arange(frames) - start
    share = np.clip(np.minimum(time, 2 * rise + hold - time) / rise, 0.0, 1.0)
    return share * share * (3 - 2 * share)


def lying(height, frames=FRAMES):
    """A robot on its back, straight, its pelvis so high."""
    pos, quat, _ = standing(frames)
    pos[:, 2] = height
    quat[:] = rot.quat_from_axis_angle(np.array([0.0, -np.pi / 2, 0.0]))
    return pos, quat, np.zeros((frames, g1.NUM_JOINTS))


def depth(clip):
    """`[T]`, m: how deep the robot's shapes are in the floor; negative over it."""
    return -kinematics.shape_heights(clip.body_pos_w, clip.body_quat_w).min(axis=1)


def excess(clip):
    return feasibility.joint_excess(clip).max(axis=1)


def run_of(clip):
    """The frames that are to be repaired, found anew."""
    off = (depth(clip) > 0.01) | (excess(clip) > 1e-6)
    off |= (clip.body_pos_w[..., 2] < 0.005).any(axis=1)
    beyond = (depth(clip) > 0.03) | (excess(clip) > 0.05)
    beyond |= (clip.body_pos_w[..., 2] < 0).any(axis=1)
    found, frame = np.zeros(len(off), bool), 0
    while frame < len(off):
        end = frame
        while end < len(off) and off[end]:
            end += 1
        found[frame:end] = beyond[frame:end].any()
        frame = end + 1
    return found


def mirrored(clip):
    qpos, _ = mirrored_state(clip.qpos(), np.zeros((clip.num_frames, 35)))
    return make(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], clip.name)


def check(clip, repaired):
    """What holds of every repaired motion."""
    assert (repaired.num_frames, repaired.fps) == (clip.num_frames, clip.fps)
    run = run_of(clip)
    assert not run_of(repaired).any()
    assert depth(repaired).max() <= 0.03 and depth(repaired)[run].max(initial=0) <= 0.01
    assert excess(repaired).max() <= 0.05 and excess(repaired)[run].max(initial=0) <= 1e-6
    assert repair.repair(repaired) is repaired

    # Further than the ramp, the lift's and a knot's width, nothing is touched.
    reach = round((repair.RAMP_S + 3 * projection.KNOT_S) * clip.fps)
    near = np.convolve(run, np.ones(2 * reach + 1), "same") > 0.5
    for key in ARRAYS:
        assert getattr(repaired, key)[~near].tobytes() == getattr(clip, key)[~near].tobytes()

    # The change is smooth, as a cubic spline over knots `h` apart is. Its coefficients are at most
    # three times its largest value at a knot, (c[i - 1] + 4 c[i] + c[i + 1]) / 6. Its slope is at
    # most twice the largest coefficient over h, its second derivative four times that over h^2.
    change = repaired.qpos() - clip.qpos()
    size = np.abs(change).max(axis=0)
    step = np.abs(np.diff(change, axis=0)).max(axis=0) * clip.fps
    jolt = np.abs(np.diff(change, 2, axis=0)).max(axis=0) * clip.fps**2
    assert (step <= 6 * size / projection.KNOT_S + 1e-3).all()
    assert (jolt <= 12 * size / projection.KNOT_S**2 + 1.0).all()

    # Links and velocities belong to the new frames.
    q = repaired.qpos()
    links = kinematics.link_poses(q[:, :3], q[:, 3:7], q[:, 7:])
    np.testing.assert_allclose(repaired.body_pos_w, links.pos, atol=1e-5)
    anew = make(q[:, :3], q[:, 3:7], q[:, 7:])
    for key, unit in (("joint_vel", 1e-3), ("body_lin_vel_w", 1e-3), ("body_ang_vel_w", 2e-3)):
        np.testing.assert_allclose(getattr(repaired, key), getattr(anew, key), atol=unit)
    assert np.array_equal(repaired.foot_contact, anew.foot_contact) or not near.all()


ANGLES = st.floats(-0.6, 0.6)


@st.composite
def flawed(draw):
    """A robot that stands, leans or lies, and for a while is in the floor or beyond its range."""
    if draw(st.booleans()):
        pos, quat, joints = standing()
    else:
        pos, quat, joints = lying(draw(st.floats(0.05, 0.2)))
    turn = np.array([draw(st.floats(-0.3, 0.3)) for _ in range(3)])
    share = bump(draw(st.integers(-20, 90)), draw(st.integers(8, 25)), draw(st.integers(0, 40)))
    quat = rot.quat_mul(rot.quat_from_axis_angle(share[:, None] * turn), quat)
    pos[:, 2] -= draw(st.floats(0.0, 0.12)) * share
    for name in draw(st.lists(st.sampled_from(sorted(JOINT)), max_size=6, unique=True)):
        joints[:, JOINT[name]] += draw(ANGLES) * share
    low, high = g1.JOINT_RANGE.T
    name = draw(st.sampled_from(sorted(JOINT)))
    beyond = draw(st.floats(0.0, 0.3))
    joints = np.clip(joints, low, high)
    column = joints[:, JOINT[name]]
    joints[:, JOINT[name]] += share * (high[JOINT[name]] + beyond - column)
    return make(pos, quat, joints)


@pytest.mark.slow
@settings(max_examples=15)
@given(flawed())
def test_any_flaw_is_repaired_smoothly_and_nothing_else_is_touched(clip):
    check(clip, repair.repair(clip))


@pytest.mark.slow
@settings(max_examples=6)
@given(flawed())
def test_the_mirror_of_a_repaired_motion_is_the_repaired_mirror(clip):
    """The robot's two sides differ by hundredths of a millimetre."""
    one, other = mirrored(repair.repair(clip)), repair.repair(mirrored(clip))
    np.testing.assert_allclose(one.body_pos_w, other.body_pos_w, atol=2e-3)
    np.testing.assert_allclose(one.joint_pos, other.joint_pos, atol=0.02)


@pytest.mark.parametrize("name", sorted(suites.motions("builtin")))
def test_a_sound_motion_stays_as_it_is(name):
    clip = library.load_motion(name)
    repaired = repair.repair(clip)
    assert repaired.sha256() == clip.sha256()
    assert repaired.name == f"{name}~repaired" and clip.sha256() in repaired.source
    assert repair.changes(clip, repaired) == []


def test_who_lies_in_the_floor_is_lifted_as_a_whole():
    pos, quat, joints = lying(1.0 + depth(make(*lying(1.0)))[0])  # its lowest shape at 0
    pos[:, 2] -= 0.08 * bump(30, 15, 30)
    clip = make(pos, quat, joints)
    assert depth(clip).max() == pytest.approx(0.08, abs=1e-3)
    repaired = repair.repair(clip)
    check(clip, repaired)
    lifted = repaired.body_pos_w[60, 0] - clip.body_pos_w[60, 0]
    assert lifted[2] == pytest.approx(0.07 + projection.MARGIN, abs=0.02)
    assert np.abs(lifted[:2]).max() < 0.01
    (change,) = repair.changes(clip, repaired)
    assert change.depth_m == pytest.approx(0.08, abs=1e-3) and change.excess_rad == 0.0
    assert change.start_s < 30 / FPS < 90 / FPS < change.end_s


def test_one_sole_in_the_floor_is_lifted_by_its_leg():
    pos, quat, joints = standing()
    share = bump(40, 10, 20)
    for name, turn in (("hip_pitch", 0.26), ("knee", -0.54), ("ankle_pitch", 0.26)):
        joints[:, JOINT[f"left_{name}"]] += turn * share  # stretched under a hip that stays
    clip = make(pos, quat, joints)
    deepest = depth(clip)
    assert 0.03 < deepest.max() < 0.08
    repaired = repair.repair(clip)
    check(clip, repaired)
    frame = int(deepest.argmax())
    moved = np.linalg.norm(repaired.body_pos_w[frame] - clip.body_pos_w[frame], axis=-1)
    by_name = dict(zip(g1.BODY_NAMES, moved, strict=True))
    assert by_name["left_ankle_roll_link"] > 0.6 * (deepest.max() - 0.01)
    assert by_name["right_ankle_roll_link"] < 0.2 * by_name["left_ankle_roll_link"]
    assert by_name["torso_link"] < by_name["left_ankle_roll_link"]
    (change,) = repair.changes(clip, repaired)
    assert change.depth_link == "left_ankle_roll_link" and change.shift_link.startswith("left_")


def test_what_is_forgiven_stays():
    """A sole 2 cm deep, an angle 0.04 rad beyond: no bound of the check is exceeded."""
    pos, quat, joints = standing()
    pos[:, 2] -= 0.02 * bump(30, 10, 30)
    joints[:, JOINT["left_wrist_yaw"]] = 1.65 * bump(60, 10, 10)
    clip = make(pos, quat, joints)
    assert 0.015 < depth(clip).max() < 0.03 and 0.0 < excess(clip).max() < 0.05
    assert repair.repair(clip).sha256() == clip.sha256()


def test_the_first_and_the_last_frame_can_be_repaired():
    pos, quat, joints = standing()
    pos[:, 2] -= 0.06 * (bump(-40, 20, 30) + bump(100, 15, 60))
    clip = make(pos, quat, joints)
    assert run_of(clip)[[0, -1]].all()
    repaired = repair.repair(clip)
    check(clip, repaired)
    first, last = repair.changes(clip, repaired)
    assert first.start_s == 0.0 and last.end_s == pytest.approx(clip.duration_s)


def test_a_repaired_motion_passes_the_gate_that_doubted_it():
    pos, quat, joints = lying(0.06)
    joints[:, JOINT["left_elbow"]] = g1.JOINT_RANGE[JOINT["left_elbow"], 1] + 0.2
    clip = make(pos, quat, joints)
    assert len(checks.doubtful(clip)) == 2
    assert {"joint limits"} < set(feasibility.examine(clip).flags)
    repaired = repair.repair(clip)
    check(clip, repaired)
    assert checks.refusal(repaired) is None and checks.doubtful(repaired) == []
    assert feasibility.examine(repaired).flags == {}


def test_velocities_and_contacts_of_the_file_stay_outside():
    """They need not be what the converter would make of the poses."""
    pos, quat, joints = standing(300)
    pos[:, 2] -= 0.06 * bump(120, 10, 20, 300)
    clip = make(pos, quat, joints)
    own = dataclasses.replace(
        clip, joint_vel=clip.joint_vel + 0.3, foot_contact=~clip.foot_contact,
        body_quat_w=-clip.body_quat_w,
    )  # fmt: skip
    repaired = repair.repair(own)
    assert np.array_equal(repaired.joint_vel[:80], own.joint_vel[:80])
    assert np.array_equal(repaired.foot_contact[200:], own.foot_contact[200:])
    between = (repaired.joint_pos[131] - repaired.joint_pos[129]) * FPS / 2
    np.testing.assert_allclose(repaired.joint_vel[130], between, atol=1e-4)
    # One of a rotation's two signs throughout.
    assert ((repaired.body_quat_w[1:] * repaired.body_quat_w[:-1]).sum(axis=-1) > 0.9).all()


def test_a_motion_that_lies_too_low_all_along_is_not_repaired(monkeypatch):
    monkeypatch.setattr(repair, "MAX_STRETCH_S", 2.0)
    pos, quat, joints = standing(200)
    pos[:, 2] -= 0.06
    with pytest.raises(MotionError, match=r"hand-made: is in the floor .* from 0.0 to 4.0 s, exp"):
        repair.repair(make(pos, quat, joints))


# --- names ---


@pytest.mark.parametrize(
    ("motion", "repaired", "original"),
    [
        ("walk3_subject3", "walk3_subject3~repaired", "walk3_subject3"),
        ("walk3_subject3[10:20]", "walk3_subject3~repaired[10:20]", "walk3_subject3"),
        ("some/file.npz[:5]", "some/file.npz~repaired[:5]", "some/file.npz"),
        ("many.pkl#kick", "many.pkl#kick~repaired", "many.pkl#kick"),
    ],
)
def test_names(motion, repaired, original):
    assert repair.repaired_name(motion) == repaired
    assert repair.original_name(repaired) == repair.original_name(motion) == original
    assert repair.is_repaired(repaired) and not repair.is_repaired(motion)


@pytest.fixture
def dive(tmp_path):
    """A file with half a second in the floor."""
    pos, quat, joints = standing()
    pos[:, 2] -= 0.06 * bump(40, 10, 20)
    path = tmp_path / "dive.npz"
    save_npz(make(pos, quat, joints, "dive"), path)
    return path


def test_doubts_are_of_the_motion_that_is_loaded(dive):
    with warnings.catch_warnings(record=True) as of_repaired:
        warnings.simplefilter("always")
        library.load_motion(f"{dive}~repaired")
    assert of_repaired == []
    # Converted without a word, and still doubtful.
    with pytest.warns(MotionWarning, match="dive.npz: feet or other parts are 0.060 m"):
        library.load_motion(dive)
    # What no repair mends is said of the repaired one.
    fast = library.load_motion("walk[10:12]")
    joints = fast.joint_pos.astype(np.float64)
    joints[50:, JOINT["left_elbow"]] += 1.0
    path = dive.with_name("fast.npz")
    save_npz(make(fast.body_pos_w[:, 0], fast.body_quat_w[:, 0], joints, "fast"), path)
    with pytest.warns(MotionWarning, match="fast.npz~repaired: 'left_elbow_joint' moves at"):
        library.load_motion(f"{path}~repaired")


@pytest.mark.filterwarnings("ignore::bm_envs.errors.MotionWarning")
def test_any_motion_is_found_repaired_by_its_name(dive, monkeypatch):
    original, repaired = library.load_motion(dive), library.load_motion(f"{dive}~repaired")
    assert (repaired.name, repaired.licence) == ("dive~repaired", "Apache-2.0")
    expected = f"a test; repaired by bm-envs from dive, {original.sha256()}"
    assert repaired.source == expected
    check(original, repaired)
    cut = library.load_motion(f"{dive}~repaired[0.5:1.5]")
    assert cut.name == "dive~repaired[0.5:1.5]"
    assert np.array_equal(cut.joint_pos, repaired.joint_pos[25:76])
    with pytest.raises(MotionError, match=r"expected the cut at the end, '.*~repaired\[1:2\]'"):
        library.load_motion(f"{dive}[1:2]~repaired")
    with pytest.raises(MotionError, match="Unknown motion 'wlak'; did you mean 'walk'"):
        library.load_motion("wlak~repaired")

    # It comes from the cache the next time, and is the same without one.
    with monkeypatch.context() as patch:
        patch.setattr(repair, "repair", lambda clip: pytest.fail("repaired again"))
        assert library.load_motion(f"{dive}~repaired").sha256() == repaired.sha256()
    assert repaired.is_stored
    monkeypatch.setenv("BM_CACHE_DIR", "0")
    anew = library.load_motion(f"{dive}~repaired")
    assert anew.sha256() == repaired.sha256() and not anew.is_stored


def test_a_file_of_a_repaired_motion_says_so(dive, tmp_path):
    repaired = library.load_motion(f"{dive}~repaired")
    save_npz(repaired, tmp_path / "saved.npz")
    saved = load_npz(tmp_path / "saved.npz")
    assert (saved.name, saved.source) == (repaired.name, repaired.source)
    again = library.load_motion(f"{tmp_path / 'saved.npz'}~repaired")
    assert again.sha256() == repaired.sha256() and again.name == "dive~repaired"


# --- LAFAN1 ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("dance2_subject4", 55, 63),  # an elbow
        ("fight1_subject3", 198, 220),  # knees, and then a sole
        ("walk2_subject3", 182, 192),  # who kneels
        ("walk3_subject1", 180, 197),  # hands
        ("fallAndGetUp1_subject4", 115, 128),  # who falls
    ],
)
def test_clips_of_lafan1(data_dir, name, start, end):
    cut = library.load_motion(f"{name}[{start}:{end}]")
    q = cut.qpos()
    # Its ends' velocities are those of a motion that begins and ends there.
    clip = dataclasses.replace(make(q[:, :3], q[:, 3:7], q[:, 7:], cut.name), licence=cut.licence)
    repaired = repair.repair(clip)
    check(clip, repaired)
    before, after = feasibility.examine(clip), feasibility.examine(repaired)
    in_the_floor = {"feet under the floor", "link under the floor"}
    assert before.shape_depth_m > 0.06
    assert set(after.flags) == set(before.flags) - in_the_floor
    assert after.joint_speed_ratio <= max(1.0, before.joint_speed_ratio)
    assert len(checks.doubtful(repaired)) <= len(checks.doubtful(clip))
    assert repaired.licence == "CC BY-NC-ND 4.0"
    assert suites.suite_of(repaired.name) == "lafan1-repaired"


@pytest.mark.slow
def test_clips_of_lafan1_without_a_flaw_stay(data_dir):
    for name in ("walk1_subject1", "walk4_subject1"):
        assert (
            library.load_motion(f"{name}~repaired").sha256() == library.load_motion(name).sha256()
        )
