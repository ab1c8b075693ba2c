"""The gate: motions that are not what they say, the flags that mend them, true ones that pass."""

import math
import pickle
import re
import sys
import warnings
from pathlib import Path

import motion_samples
import numpy as np
import pytest
import warm_python
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_files import make_mlp

from bm_envs import cli, envs
from bm_envs import rotations as rot
from bm_envs.errors import BMWarning, MotionError, MotionWarning
from bm_envs.motion import checks, consistency, feasibility, formats, rates
from bm_envs.motion.clip import ARRAY_SHAPES, clip_from_states, load_npz, save_npz
from bm_envs.motion.library import load_motion, load_motions
from bm_envs.policy import PolicySpec, load_policy, write_onnx
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import check_reference  # noqa: E402
import csv_to_npz  # noqa: E402

NAMES = ("walk", "walk_back", "turn_left", "side_right", "walk_to_stand")
ISAAC = g1.order_map(g1.JOINT_NAMES, g1.joint_names("isaac"))
MIRROR, SIGN = g1.mirror_map()
UNITREE_23 = (
    *g1.JOINT_NAMES[:12], "waist_yaw_joint",
    *(f"{side}_{part}_joint" for side in ("left", "right")
      for part in ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll")),
)  # fmt: skip


def states(name="walk", step=1):
    """Root position, root quaternion (w x y z) and joints of a clip of the package; its rate."""
    clip = load_motion(name)
    arrays = (clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], clip.joint_pos)
    return *(a[::step].astype(np.float64) for a in arrays), clip.fps / step


def resampled(name="walk", fps=30.0):
    """The same at another rate, by linear interpolation."""
    pos, quat, joints, rate = states(name)
    at = np.arange(0, len(pos) - 1, rate / fps)
    old = np.arange(len(pos))

    def between(values):
        return np.stack([np.interp(at, old, column) for column in values.T], axis=1)

    return between(pos), rot.quat_normalize(between(quat)), between(joints)


def write_csv(path, pos, quat, joints, quat_order="xyzw"):
    quat = quat if quat_order == "wxyz" else quat[:, [1, 2, 3, 0]]
    np.savetxt(path, np.hstack([pos, quat, joints]), fmt="%.6f", delimiter=",")
    return str(path)


def yawed(pos, quat, angle, shift=(0.0, 0.0, 0.0)):
    turn = np.tile([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)], (len(pos), 1))
    return rot.quat_rotate(turn, pos) + shift, rot.quat_mul(turn, quat)


def y_up(pos, quat):
    turn = np.tile([math.sqrt(0.5), -math.sqrt(0.5), 0.0, 0.0], (len(pos), 1))
    return rot.quat_rotate(turn, pos), rot.quat_mul(turn, quat)


def convert(tmp_path, source, *flags):
    """The converter's output as a clip."""
    out = tmp_path / "out.npz"
    csv_to_npz.main(cli.parse(csv_to_npz.Config, arguments=[source, str(out), *flags]))
    return load_motion(str(out))


def silent(function, *arguments, **keywords):
    """What the function returns, which must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", BMWarning)
        return function(*arguments, **keywords)


@pytest.fixture
def arrays(tmp_path):
    """Those of whole_body_tracking's file of the package's walk, without names."""
    save_npz(load_motion("walk[4:12]"), tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as file:
        return {"fps": np.array([50]), **{key: file[key] for key in ARRAY_SHAPES}}


# --- lies, their causes, and the flags that mend them ---------------------------------------------

LIES = {
    "wxyz": ("root quaternions look like w x y z", ("--quat", "wxyz")),
    "degrees": ("look like degrees", ("--angles", "deg")),
    "mm": ("look like mm", ("--units", "mm")),
    "cm": ("look like cm", ("--units", "cm")),
    "isaac": ("joints look like Isaac Lab's (breadth-first) order", ("--input-order", "isaac")),
    "both": ("Isaac Lab's", ("--quat", "wxyz", "--input-order", "isaac")),
    "y_up": ("as if y pointed up", ("--up", "y")),
    "reversed": (
        "joints look like the reverse order",
        ("--joints", ",".join(g1.JOINT_NAMES[::-1])),
    ),
    "root0": ("under the floor", ("--ground", "auto")),
    "sunk": ("under the floor", ("--ground", "0.5")),
}


def lie(kind, path, pos, quat, joints):
    order = "wxyz" if kind in ("wxyz", "both") else "xyzw"
    if kind == "degrees":
        joints = np.degrees(joints)
    if kind in ("mm", "cm"):
        pos = pos * {"mm": 1000, "cm": 100}[kind]
    if kind in ("isaac", "both"):
        joints = joints[:, ISAAC]
    if kind == "y_up":
        pos, quat = y_up(pos, quat)
    if kind == "reversed":
        joints = joints[:, ::-1]
    if kind == "root0":
        pos = pos * [1, 1, 0]
    if kind == "sunk":
        pos = pos - [0, 0, 0.5]
    return write_csv(path, pos, quat, joints, order)


@pytest.mark.parametrize("kind", LIES)
@pytest.mark.parametrize("name", ["walk", "turn_left"])
def test_a_lie_is_refused_with_its_cause_and_one_flag_mends_it(tmp_path, kind, name):
    if (kind, name) == ("reversed", "turn_left"):
        pytest.skip("turning on the spot, the legs look the same from either end")
    truth = resampled(name)
    path = lie(kind, tmp_path / "a.csv", *truth)
    says, flags = LIES[kind]
    with pytest.raises(MotionError, match=re.escape(says)) as caught:
        load_motion(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and flags[0] in text, text
    assert "--joints" in flags or kind == "sunk" or " ".join(flags) in text
    clip = silent(convert, tmp_path, path, *flags)
    honest = convert(tmp_path, write_csv(tmp_path / "b.csv", *truth))
    # Six decimals of a millimetre, a centimetre or a degree are more than those of a metre.
    # A height of 0 is made a constant one, which a walk's is within 5 cm or so.
    atol = 0.1 if kind == "root0" else 1e-4
    np.testing.assert_allclose(clip.body_pos_w, honest.body_pos_w, atol=atol)
    np.testing.assert_allclose(clip.joint_pos, honest.joint_pos, atol=1e-4)


def test_the_wrong_flag_is_refused_too(tmp_path):
    path = write_csv(tmp_path / "a.csv", *resampled())
    with pytest.raises(MotionError, match="look like x y z w"):
        convert(tmp_path, path, "--quat", "wxyz")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("flags", [
    ("--angles", "deg"), ("--units", "cm"), ("--units", "cm", "--ground", "auto"),
    ("--up", "y", "--ground", "auto"),
])  # fmt: skip
def test_a_flag_that_a_true_file_does_not_need_is_refused_by_its_name(tmp_path, flags):
    path = write_csv(tmp_path / "a.csv", *resampled())
    with pytest.raises(MotionError, match=f"with {flags[0]} {flags[1]} and is one with .*; leave"):
        convert(tmp_path, str(path), *flags)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("kind", ["wxyz", "degrees", "mm", "isaac", "root0"])
def test_every_way_in_passes_the_gate(tmp_path, kind, monkeypatch):
    path = lie(kind, tmp_path / "a.csv", *resampled())
    monkeypatch.setenv("BM_DATA_DIR", str(tmp_path))
    for way in (
        lambda: load_motion(path), lambda: load_motions([path]),
        lambda: load_motion(f"{path}[1:3]"), lambda: load_motion("a"),
        lambda: load_motion(path, input_fps=30.0),
        lambda: convert(tmp_path, path), lambda: envs.TrackEnv(motion=path),
        lambda: envs.TrackVectorEnv(2, motion=[path]),
    ):  # fmt: skip
        with pytest.raises(MotionError, match="a.csv: "):
            way()


def test_an_npz_in_a_lying_format_is_refused(tmp_path):
    """Whose arrays agree with each other, so that only the floor tells."""
    pos, quat, joints, fps = states()
    clip = clip_from_states("a", fps, pos, quat[:, [1, 2, 3, 0]], joints, source="", licence="")
    save_npz(clip, tmp_path / "a.npz")
    with pytest.raises(MotionError, match="look like x y z w, and were read as w x y z"):
        load_motion(tmp_path / "a.npz")
    mended = convert(tmp_path, str(tmp_path / "a.npz"), "--quat", "xyzw")
    np.testing.assert_allclose(mended.body_pos_w[:, 0], pos[:-1], atol=1e-5)


# --- true motions ---------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES), start=st.floats(0, 1), length=st.floats(1.5, 8),
    angle=st.floats(-math.pi, math.pi), mirrored=st.booleans(),
    x=st.floats(-100, 100), quat=st.sampled_from(["xyzw", "wxyz"]), flip=st.booleans(),
)  # fmt: skip
def test_pieces_of_true_motions_pass_in_silence(
    name, start, length, angle, mirrored, x, quat, flip
):  # fmt: skip
    pos, turn, joints, fps = states(name)
    size = min(len(pos), int(length * fps))
    first = int(start * (len(pos) - size))
    part = slice(first, first + size)
    pos, turn, joints = pos[part], turn[part], joints[part]
    if mirrored:
        pos, turn = pos * [1, -1, 1], turn * [1, -1, 1, -1]
        joints = joints[:, MIRROR] * SIGN
    pos, turn = yawed(pos, turn, angle, (x, -x, 0))
    clip = clip_from_states(
        "a", fps, pos, -turn if flip else turn, joints, source="", licence=""
    )  # fmt: skip
    assert checks.refusal(clip, quat) is None
    assert checks.doubtful(clip) == []
    assert rates.rate_that_fits(pos, rot.quat_normalize(turn), joints, fps)[0] is None


def test_public_motions_pass(data_dir):
    """Whole, in pieces, turned and mirrored: none is refused, and all of LAFAN1 are unwarned."""
    rng = np.random.default_rng(0)
    for path in sorted((data_dir / "lafan1_g1").glob("*.csv"))[::6]:
        clip = silent(load_motion, str(path))
        for _ in range(4):
            first = rng.uniform(0, clip.duration_s - 5)
            part = clip.cut(first, first + rng.uniform(2, 5))
            angle = rng.uniform(-3, 3)
            pos, quat = yawed(
                part.body_pos_w[:, 0].astype(float), part.body_quat_w[:, 0].astype(float), angle
            )
            turned = clip_from_states(
                "a", 50.0, pos, quat, part.joint_pos, source="", licence=""
            )  # fmt: skip
            for order in ("xyzw", "wxyz"):
                assert checks.refusal(turned, order) is None, (path.name, first)


def lying(frames=120):
    """On its back and then rolled onto its side, close to the floor."""
    pos, quat, joints, fps = (a[:frames] if np.ndim(a) else a for a in states("stand"))
    half = -math.pi / 4
    quat[:] = [math.cos(half), 0.0, math.sin(half), 0.0]
    pos[:, 2] = 0.09
    joints[:, g1.JOINT_NAMES.index("left_knee_joint")] += np.linspace(0, 0.8, frames)
    return pos, quat, joints, fps


def test_a_robot_that_lies_or_that_only_looks_strange_passes():
    pos, quat, joints, fps = lying()
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    assert checks.refusal(clip, "xyzw") is None
    for seed in range(10):  # random poses that sway: no reading makes them a motion
        strange = motion_samples.clip(seed=seed)
        assert checks.refusal(strange, "xyzw") is None and checks.doubtful(strange)


def test_a_still_robot_in_another_order_shows_by_its_joints_ranges():
    """No slip tells the order of a robot that hardly moves; a knee's angle on a hip does."""
    pos, quat, joints, fps = states("stand")
    joints = joints.copy()
    joints[:, g1.JOINT_NAMES.index("left_knee_joint")] = 1.6  # within 0 to 2.9 rad
    joints[:, g1.JOINT_NAMES.index("left_elbow_joint")] = 1.9  # within -1.0 to 2.1
    clip = clip_from_states("a", fps, pos, quat, joints, source="made", licence="CC0")
    assert checks.refusal(clip) is None  # the premise: in its own order it passes
    backwards = slice(None, None, -1)
    for order, says in ((ISAAC, "Isaac Lab's (breadth-first) order"), (backwards, "reverse order")):
        other = clip_from_states(
            "a", fps, pos, quat, joints[:, order], source="made", licence="CC0"
        )
        assert says in str(checks.refusal(other))


# --- what is doubtful -----------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.06, 0.096, 0.1, 0.4, -0.06, -0.16, -0.19])
def test_feet_off_the_floor_are_warned_of_and_ground_mends_it(tmp_path, shift):
    pos, quat, joints = resampled()
    path = write_csv(tmp_path / "a.csv", pos + [0, 0, shift], quat, joints)
    side = "over" if shift > 0 else "under"
    with pytest.warns(MotionWarning, match=rf"{abs(shift):.3f} m or more {side} the floor") as said:
        load_motion(path)
    assert len(said) == 1 and "--ground auto" in str(said[0].message)
    for ground in ("auto", f"{-shift}"):
        clip = silent(convert, tmp_path, path, "--ground", ground)
        assert abs(checks.contact(clip).low) < 1e-3
    flags = feasibility.examine(load_motion_quietly(path)).flags
    assert ("over the floor" in flags) == (shift > 0)


def load_motion_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BMWarning)
        return load_motion(path)


def test_deeper_than_all_public_motions_is_refused(tmp_path):
    pos, quat, joints = resampled()
    path = write_csv(tmp_path / "a.csv", pos - [0, 0, 0.21], quat, joints)
    with pytest.raises(MotionError, match="0.21 m under the floor .* expected less than 0.2; conv"):
        load_motion(path)


def test_a_clip_that_stands_on_an_obstacle_is_not_over_the_floor():
    pos, quat, joints, fps = states()
    pos[len(pos) // 3 :, 2] += 0.2  # from then on
    pos[: len(pos) // 3, 2] += 0.0
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    assert not any("floor" in says for says in checks.doubtful(clip))


def test_first_rows_that_jump(tmp_path):
    pos, quat, joints, fps = states("stand")
    pos[0, 0] -= 0.11
    joints[0, 3] += 0.54  # 27 rad/s
    write_csv(tmp_path / "a.csv", pos, quat, joints)
    with pytest.warns(MotionWarning, match=r"its first rows jump: the pelvis at 5.5 m/s and a joi"):
        load_motion(str(tmp_path / "a.csv"), input_fps=50.0)
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    assert "jump at the start" in feasibility.examine(clip).flags
    assert "jump at the start" not in feasibility.examine(clip.cut(0.2)).flags
    pos, quat, joints, fps = states("walk_to_stand")  # which starts in a step
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    assert feasibility.describe_start(clip) == ""


@pytest.mark.parametrize("size", [0.9e6, 3.0, 1.0])
def test_a_pelvis_that_jumps_is_refused(tmp_path, size):
    pos, quat, joints = resampled()
    pos[40, 1] += size
    path = write_csv(tmp_path / "a.csv", pos, quat, joints)
    with pytest.raises(MotionError, match=r"the pelvis jumps by \S+ m at 1.3\d s, which is"):
        load_motion(path)
    silent(convert, tmp_path, path, "--frame-range", "42", "200")


@pytest.mark.parametrize(("change", "says"), [
    ("pelvis", r"the pelvis moves at 7.\d m/s at 0.98 s"),
    ("joint", r"'right_elbow_joint' moves at 1[12]\d% of its limit at 0.98 s"),
    ("range", r"'left_knee_joint' is 0.2\d rad beyond its range at 10.00 s"),
])  # fmt: skip
def test_what_no_public_motion_does_is_warned_of(tmp_path, change, says):
    pos, quat, joints, fps = states("stand")
    if change == "pelvis":
        pos[50:, 0] += 7.2 / fps
    if change == "joint":
        elbow = g1.JOINT_NAMES.index("right_elbow_joint")
        joints[50:, elbow] += 1.2 * g1.VELOCITY_LIMIT[elbow] / fps
    if change == "range":
        knee = g1.JOINT_NAMES.index("left_knee_joint")
        joints[50:, knee] = g1.JOINT_RANGE[knee, 1] - np.linspace(2.0, -0.2, len(pos) - 50)
        pos[:, 2] += 0.02
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    save_npz(clip, tmp_path / "a.npz")
    with pytest.warns(MotionWarning, match=says):
        load_motion(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(("keys", "says"), [
    ({"framerate": 50}, None), ({"mocap_framerate": np.float32(50)}, None), ({"dt": [0.02]}, None),
    ({"fps": 50, "dt": np.float32(0.02)}, None), ({}, "lacks fps"), ({"fps": 0}, "fps is 0, expec"),
    ({"fps": 50, "mocap_frame_rate": 30}, "contradict"), ({"dt": 50}, "dt is 50, expected"),
    ({"fps": "50"}, "fps has type"),
])  # fmt: skip
def test_rates_of_an_npz(tmp_path, arrays, keys, says):
    bare = {key: value for key, value in arrays.items() if key != "fps"}
    np.savez(tmp_path / "a.npz", **bare | {key: np.array(value) for key, value in keys.items()})
    if says is None:
        assert silent(load_motion, str(tmp_path / "a.npz")).num_frames == 401
    else:
        with pytest.raises(MotionError, match=says):
            load_motion(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(("angle", "says"), [(3.0, "refused"), (0.6, "warned"), (0.3, "passes")])
def test_a_pelvis_that_turns_at_once(tmp_path, angle, says):
    pos, quat, joints, fps = states("stand")
    _, quat[60:] = yawed(pos[60:], quat[60:], angle)
    quat[100:] *= -1  # the same rotations
    clip = clip_from_states("a", fps, pos, quat, joints, source="", licence="")
    found, doubts = checks.refusal(clip), checks.doubtful(clip)
    if says == "refused":
        assert found is not None and found.startswith("the pelvis turns by 3 rad at 1.18 s")
    else:
        assert found is None
        assert [d[:25] for d in doubts] == (
            ["the pelvis turns at 30.0 "] if says == "warned" else []
        )


def test_what_is_refused_is_still_looked_at(tmp_path, capsys):
    path = lie("wxyz", tmp_path / "a.csv", *resampled())
    check_reference.main(check_reference.Config(motion=(path,)))
    printed = capsys.readouterr().out
    assert "1 of 1 flagged" in printed and f"refused: {path}: root quaternions look" in printed


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stem", "rate"), [
    ("walk_60hz", 60), ("walk60Hz", 60), ("fps120_walk", 120), ("a-120fps-b", 120),
    ("x_59.94fps", 59.94),
    ("walk_30hz", 30), ("walk", None), ("walk60", None), ("m_2023_hzx", None), ("7hzs", None),
    ("fps", None), ("hz60", None), ("0hz", None),
])  # fmt: skip
def test_the_rate_in_a_name(stem, rate):
    assert rates.rate_in_name(stem) == rate


def test_a_name_that_says_another_rate_is_refused_until_told(tmp_path):
    path = write_csv(tmp_path / "walk_60hz.csv", *resampled(fps=60))
    with pytest.raises(MotionError, match="its name says 60 frames a second .*--input-fps 60"):
        load_motion(path)
    clip = silent(load_motion, path, input_fps=60.0)
    assert clip.duration_s == pytest.approx(load_motion("walk").duration_s, abs=0.1)
    assert silent(convert, tmp_path, path, "--input-fps", "60").num_frames == clip.num_frames
    assert silent(load_motion, write_csv(tmp_path / "walk_30hz.csv", *resampled()))


@pytest.mark.parametrize(("name", "fps"), [
    *[(name, 60) for name in ("walk_back", "turn_left", "side_left")],
    *[(name, fps) for name in ("walk", "walk_back", "side_right") for fps in (100, 120, 240)],
])  # fmt: skip
def test_a_robot_that_leans_too_far_for_its_speed_is_refused(tmp_path, name, fps):
    path = write_csv(tmp_path / "a.csv", *resampled(name, fps))
    with pytest.raises(MotionError, match=r"leans as if it moved \S+ times as fast.*--input-fps"):
        load_motion(path)
    assert silent(load_motion, path, input_fps=float(fps))


@pytest.mark.parametrize("how", ["off a chair", "up the stairs"])
def test_who_leaves_the_floors_height_was_not_filed_with_y_up(how):
    count, fps = 150, 30.0
    t = np.arange(count) / fps
    pos, quat, joints, _ = states("stand")
    pos, quat, joints = (np.tile(value[:1], (count, 1)) for value in (pos, quat, joints))
    if how == "off a chair":
        pos[:, 2] += np.where(t < 2.5, 0.45, np.maximum(0.0, 0.45 - 4.9 * (t - 2.5) ** 2))
    else:
        pos[:, 2] += 0.17 * np.floor(t)
        pos[:, 0] += 0.3 * t
    told = {"source": "", "licence": ""}
    assert checks.refusal(clip_from_states("x", fps, pos, quat, joints, **told)) is None


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_50_hz_do_not_show(tmp_path, name):
    """They are within the bound, and so is every true motion that is a little slow."""
    assert silent(load_motion, write_csv(tmp_path / "a.csv", *states(name)[:3])).num_frames > 50


def test_a_robot_that_is_faster_than_its_motors_is_refused(tmp_path):
    """A walk of 4 frames a second, played at 30."""
    path = write_csv(tmp_path / "a.csv", *resampled(fps=4))
    with pytest.raises(MotionError, match=r"a joint is faster than its motor in \d+% of steps"):
        load_motion(path)


def test_balance_of_an_inverted_pendulum():
    """s is exact where the acceleration is: the package's walk, made by that law, is at 1."""
    for name in ("turn_left", "walk_back"):
        pos, quat, joints, fps = states(name)
        slowed, correlation, frames = rates.balance(pos, quat, joints, fps)
        assert slowed == pytest.approx(1.0, abs=0.1) and correlation > 0.85 and frames > 60
        half, _, _ = rates.balance(pos, quat, joints, fps / 2)
        assert half == pytest.approx(2 * slowed, rel=0.1)


def gmr(**changes):
    pos, quat, joints = resampled()
    value = {"root_pos": pos, "root_rot": quat[:, [1, 2, 3, 0]], "dof_pos": joints, "fps": 30}
    value |= changes
    return {key: v for key, v in value.items() if v is not ...}


@pytest.mark.parametrize(("keys", "frames_a_second"), [
    ({"fps": 30.0}, 30), ({"fps": np.array(60)}, 60), ({"fps": np.array([60.0])}, 60),
    ({"fps": ..., "framerate": 60}, 60), ({"fps": ..., "mocap_framerate": 120}, 120),
    ({"fps": ..., "mocap_frame_rate": np.float32(120)}, 120), ({"fps": ..., "dt": 0.02}, 50),
    ({"fps": 50, "dt": 0.02, "mocap_framerate": 50.0}, 50),
])  # fmt: skip
def test_rates_that_are_read(tmp_path, keys, frames_a_second):
    value = gmr(**keys)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    clip = load_motion_quietly(str(path))
    duration = (len(value["root_pos"]) - 1) / frames_a_second
    assert clip.duration_s == pytest.approx(duration, abs=0.021)


@pytest.mark.parametrize(("keys", "says"), [
    ({"fps": ...}, "tells no rate"), ({"fps": "x"}, "fps is no"), ({"fps": "30"}, "fps is no"),
    ({"fps": 10**400}, "fps is no number"), ({"fps": None}, "fps is no number"),
    ({"fps": b"30"}, "fps is no number"), ({"fps": True}, "fps is no number"),
    ({"fps": [30, 30]}, "fps is no number"), ({"fps": {}}, "fps is no number"),
    ({"fps": np.nan}, "fps is nan, expected a positive"), ({"fps": -30}, "fps is -30, expected a"),
    ({"fps": 0}, "fps is 0, expected"), ({"fps": 1e300}, r"fps is 1e\+300, expected"),
    ({"fps": ..., "dt": 0}, "dt is 0, expected a positive number \\(seconds a frame"),
    ({"fps": ..., "dt": -0.02}, "dt is -0.02"), ({"fps": ..., "dt": 30}, "dt is 30, expected"),
    ({"fps": 30, "dt": 0.02}, r"rates contradict each other \(fps 30, dt 50\)"),
    ({"fps": 30, "framerate": 60}, r"rates contradict each other \(fps 30, framerate 60\)"),
    ({"fps": 30, "mocap_framerate": "x"}, "mocap_framerate is no number"),
])  # fmt: skip
def test_rates_that_are_refused(tmp_path, keys, says):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(gmr(**keys)))
    with pytest.raises(
        MotionError, match=f"clip 'a': .*{says}.*pass --input-fps to bm-envs motion"
    ):
        load_motion(str(path))
    clip = silent(convert, tmp_path, str(path), "--input-fps", "30")
    assert clip.duration_s == pytest.approx(load_motion("walk").duration_s, abs=0.1)


# --- joints ---------------------------------------------------------------------------------------


def columns(names):
    return [g1.JOINT_NAMES.index(name) for name in names]


@pytest.mark.parametrize(("joints", "names"), [
    ("unitree_23", UNITREE_23), ("no_wrists", formats.WITHOUT_WRISTS),
    (",".join(UNITREE_23[::-1]), UNITREE_23[::-1]),
    (",".join(n.removesuffix("_joint") for n in g1.JOINT_NAMES[:22]), g1.JOINT_NAMES[:22]),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".pkl"])
def test_joints_that_are_told(tmp_path, joints, names, suffix):
    pos, quat, angles = resampled()
    path = str(tmp_path / f"a{suffix}")
    if suffix == ".csv":
        write_csv(path, pos, quat, angles[:, columns(names)])
    else:
        Path(path).write_bytes(pickle.dumps(gmr(dof_pos=angles[:, columns(names)])))
    wanted = "23" if len(names) == 23 else "22"
    with pytest.raises(MotionError, match=wanted if suffix == ".pkl" else "columns, expected 36"):
        load_motion(path)
    clip = convert(tmp_path, path, "--joints", joints)
    truth = np.tile(g1.DEFAULT_JOINT_POS, (len(pos), 1))
    truth[:, columns(names)] = angles[:, columns(names)]
    # the first frame is not interpolated
    np.testing.assert_allclose(clip.joint_pos[0], truth[0], atol=1e-5)


def test_unitrees_23_joints_are_those_of_its_robot_file():
    """Typed from g1_23dof.urdf: one joint in the waist, five in each arm."""
    assert formats.UNITREE_23 == UNITREE_23 and len(UNITREE_23) == 23


def test_23_joints_without_names_are_a_question(tmp_path):
    pos, quat, angles = resampled()
    value = gmr(dof_pos=angles[:, columns(UNITREE_23)])
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(MotionError, match="--joints no_wrists or --joints unitree_23"):
        load_motion(str(path))
    path.write_bytes(pickle.dumps(value | {"dof_names": list(UNITREE_23)}))
    named = silent(load_motion, str(path))
    path.write_bytes(pickle.dumps(value | {"joint_names": np.array(UNITREE_23)}))
    assert np.array_equal(silent(load_motion, str(path)).joint_pos, named.joint_pos)
    axes = np.array([g1.JOINTS[i].axis for i in columns(UNITREE_23)])
    pose = np.zeros((len(pos), 24, 3))
    pose[:, 1:] = angles[:, columns(UNITREE_23), None] * axes
    told = {"root_trans_offset": pos, "root_rot": value["root_rot"], "dof": value["dof_pos"],
            "fps": 30, "pose_aa": pose}  # fmt: skip
    path.write_bytes(pickle.dumps({"a": told}))
    assert np.array_equal(silent(load_motion, str(path)).joint_pos, named.joint_pos)


# --- what a file says twice -----------------------------------------------------------------------


def wrong(arrays, key):
    value = arrays[key].copy()
    links = value.shape[1]
    order = np.roll(np.arange(links), 1)
    return {
        "zeros": np.zeros_like(value), "negative": -value, "order": value[:, order],
        "half": value * 0.5, "double": 2 * value, "late": np.roll(value, 25, axis=0),
        "one": np.concatenate([value[:, :5], 0 * value[:, 5:6], value[:, 6:]], axis=1),
    }  # fmt: skip


@pytest.mark.parametrize("how", ["zeros", "negative", "order", "half", "double", "late"])
@pytest.mark.parametrize("key", ["joint_vel", "body_lin_vel_w", "body_ang_vel_w"])
def test_velocities_that_contradict_positions_are_refused(tmp_path, arrays, key, how):
    np.savez(tmp_path / "a.npz", **arrays | {key: wrong(arrays, key)[how]})
    with pytest.raises(MotionError, match=f"{key}.*computes links and velocities anew") as caught:
        load_motion(str(tmp_path / "a.npz"))
    assert "\n" not in str(caught.value)
    clip = silent(convert, tmp_path, str(tmp_path / "a.npz"))
    np.testing.assert_allclose(clip.body_pos_w, arrays["body_pos_w"][:-1], atol=1e-5)


def test_one_joint_that_says_zero_is_found(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays | {"joint_vel": wrong(arrays, "joint_vel")["one"]})
    with pytest.raises(MotionError, match=f"joint_vel .*for '{g1.JOINT_NAMES[5]}'"):
        load_motion(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("how", ["conjugate", "shuffled", "identity", "xyzw"])
def test_link_rotations_that_contradict_the_joints_are_refused(tmp_path, arrays, how):
    quat = arrays["body_quat_w"].copy()
    other = {
        "conjugate": quat * [1, -1, -1, -1], "shuffled": quat[:, np.roll(np.arange(30), 3)],
        "identity": np.broadcast_to([1.0, 0, 0, 0], quat.shape), "xyzw": quat[..., [1, 2, 3, 0]],
    }[how]  # fmt: skip
    quat[:, 1:] = other[:, 1:]
    np.savez(tmp_path / "a.npz", **arrays | {"body_quat_w": quat})
    with pytest.raises(MotionError, match=r"body_quat_w of '\w+' at frame \d+ is \S+ rad from for"):
        load_motion(str(tmp_path / "a.npz"))


def test_an_npz_whose_quaternions_are_x_y_z_w_says_so(tmp_path, arrays):
    quat = arrays["body_quat_w"][..., [1, 2, 3, 0]]
    np.savez(tmp_path / "a.npz", **arrays | {"body_quat_w": quat})
    with pytest.raises(MotionError, match="body_quat_w looks like x y z w.*--quat xyzw"):
        load_motion(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    "way", ["forward", "backward", "of the centre", "noise", "slow and noisy", "isaac", "flip"]
)
def test_velocities_made_in_other_ways_pass(tmp_path, arrays, way):
    joints, rng = arrays["joint_pos"].astype(float), np.random.default_rng(0)
    change = {}
    if way in ("forward", "backward"):
        steps = np.diff(joints, axis=0) * 50
        edge = steps[-1:] if way == "forward" else steps[:1]
        parts = [steps, edge] if way == "forward" else [edge, steps]
        change = {"joint_vel": np.concatenate(parts)}
    if way == "of the centre":  # Isaac Lab's
        center = np.array([body.inertial_pos for body in g1.BODIES])
        arm = rot.quat_rotate(
            arrays["body_quat_w"].astype(float), np.broadcast_to(center, (401, 30, 3))
        )
        spin = rot.cross(arrays["body_ang_vel_w"].astype(float), arm)
        change = {"body_lin_vel_w": arrays["body_lin_vel_w"] + spin}
        change["body_lin_vel_w"][:, 0] = arrays["body_lin_vel_w"][:, 0]
    if way == "noise":  # as a simulator measures
        change = {
            key: arrays[key] + rng.normal(0, 0.05, arrays[key].shape)
            for key in ("joint_vel", "body_lin_vel_w", "body_ang_vel_w")
        }
    if way == "slow and noisy":  # of a joint that hardly moves, too
        change = {"joint_vel": arrays["joint_vel"] + rng.normal(0, 0.25, joints.shape)}
    if way == "isaac":
        bodies = g1.order_map(g1.BODY_NAMES, g1.body_names("isaac"))
        change = {
            key: value[:, ISAAC if key.startswith("joint") else bodies]
            for key, value in arrays.items() if key != "fps"
        }  # fmt: skip
    if way == "flip":
        signs = rng.choice([-1.0, 1.0], (401, 30, 1))
        change = {"body_quat_w": arrays["body_quat_w"] * signs}
    np.savez(tmp_path / "a.npz", **arrays | change)
    assert silent(load_motion, str(tmp_path / "a.npz")).num_frames == 401


@pytest.mark.parametrize("fps", [25, 30, 60, 100, 120])
def test_an_npz_at_another_rate_is_resampled(tmp_path, fps):
    pos, quat, joints = resampled(fps=fps)
    clip = clip_from_states("a", fps, pos, quat, joints, source="s", licence="l")
    save_npz(clip, tmp_path / "a.npz")
    found = silent(load_motion, str(tmp_path / "a.npz"))
    assert (found.fps, found.source, found.licence) == (50.0, "s", "l")
    truth = load_motion("walk")
    frames = found.num_frames
    # Linear interpolation of an acceleration a over a time dt is off by a dt^2 / 8, here twice.
    most = np.abs(np.diff(truth.joint_pos, 2, axis=0)).max() * 50**2
    atol = most / 8 * (1 / fps**2 + 1 / 50**2)
    np.testing.assert_allclose(found.joint_pos, truth.joint_pos[:frames], atol=atol)
    nearest = np.minimum(np.rint(np.arange(frames) * fps / 50).astype(int), clip.num_frames - 1)
    assert np.array_equal(found.foot_contact, clip.foot_contact[nearest])
    assert load_npz(tmp_path / "a.npz").fps == fps


def test_an_npz_with_velocities_of_another_rate_is_taken_at_its_rate_and_said_so(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays | {"fps": np.array([30])})
    with pytest.warns(
        MotionWarning, match="says 30 frames a second and its joint_vel are those of 50"
    ):
        clip = load_motion(str(tmp_path / "a.npz"))
    assert clip.duration_s == pytest.approx(400 / 30, abs=0.02)


def holosoma(arrays, fps=50):
    """The same motion as holosoma's converter lays it out: 36 and 35 columns, 51 links."""
    extra = np.repeat(arrays["body_pos_w"][:, :1], 21, axis=1)
    root = np.hstack([arrays["body_pos_w"][:, 0], arrays["body_quat_w"][:, 0]])
    spin = np.hstack([arrays["body_lin_vel_w"][:, 0], arrays["body_ang_vel_w"][:, 0]])
    return {
        "fps": np.array([fps]), "joint_pos": np.hstack([root, arrays["joint_pos"]]),
        "joint_vel": np.hstack([spin, arrays["joint_vel"]]),
        "joint_names": np.array(g1.JOINT_NAMES),
        "body_names": np.array([*g1.BODY_NAMES, *(f"extra_{i}" for i in range(21))]),
        "body_pos_w": np.concatenate([arrays["body_pos_w"], extra], axis=1),
        "body_quat_w": np.repeat(arrays["body_quat_w"][:, :1], 51, axis=1),
        "body_lin_vel_w": np.zeros((len(root), 51, 3)),
        "body_ang_vel_w": np.zeros((len(root), 51, 3)),
    }  # fmt: skip


def test_holosomas_motions_are_read_and_checked(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **holosoma(arrays))
    clip = silent(load_motion, str(tmp_path / "a.npz"))
    np.testing.assert_allclose(clip.joint_pos, arrays["joint_pos"][:-1], atol=1e-6)
    np.testing.assert_allclose(clip.body_pos_w, arrays["body_pos_w"][:-1], atol=1e-5)
    good = holosoma(arrays)
    for key, value, says in (
        ("body_pos_w", good["body_pos_w"] + 0.1, "body_pos_w of '\\w+' at frame"),
        ("joint_vel", np.zeros_like(good["joint_vel"]), "joint_vel contradicts joint_pos"),
        ("joint_names", np.array(g1.JOINT_NAMES[::-1]), "from forward kinematics"),
        ("joint_names", np.array(["tail"] * 29), "joint names are not the 29"),
        ("fps", np.array([0]), "fps is 0, expected"),
        ("body_names", good["body_names"][:50], "differ in frames or links"),
    ):
        np.savez(tmp_path / "a.npz", **good | {key: value})
        with pytest.raises(MotionError, match=says):
            load_motion(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", qpos=np.zeros((9, 36)), fps=30)
    with pytest.raises(MotionError, match="holds qpos as holosoma's retargeter writes it"):
        load_motion(str(tmp_path / "a.npz"))


# --- CSV ------------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_line_ends_are_skipped(tmp_path):
    path = write_csv(tmp_path / "a.csv", *resampled())
    truth = load_motion(path)
    content = Path(path).read_bytes()
    for changed in (b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n")):
        (tmp_path / "b.csv").write_bytes(changed)
        assert np.array_equal(
            silent(load_motion, str(tmp_path / "b.csv")).joint_pos, truth.joint_pos
        )


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.replace(",", ";"), "semicolons are in the place of commas"),
    (lambda t: t.replace(",", "\t"), "tabs are in the place of commas"),
    (lambda t: t.replace(",", " "), "spaces are in the place of commas"),
    (lambda t: ",".join(f"c{i}" for i in range(36)) + "\n" + t, "looks like a header line: delete"),
    (lambda t: "".join(f"{i},{line}\n" for i, line in enumerate(t.splitlines())),
     "if the first column counts frames or seconds, delete it"),
    (lambda t: t.replace("0.0", "1_0.0", 1), "expected a finite number"),
])  # fmt: skip
def test_what_may_have_happened_to_a_csv_is_said(tmp_path, change, says):
    path = Path(write_csv(tmp_path / "a.csv", *resampled()))
    path.write_text(change(path.read_text()))
    with pytest.raises(MotionError, match=says):
        load_motion(str(path))


# --- commands -------------------------------------------------------------------------------------


def run(*arguments):
    return warm_python.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_commands_refuse_in_one_line_and_warn_in_one(tmp_path):
    bad = lie("wxyz", tmp_path / "bad.csv", *resampled("turn_left"))
    done = run("benchmarks/track.py", "--policy", "walk", "--motion", bad, "--protocol", "clip")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: {bad}: root quaternions look like w x y z")
    pos, quat, joints = resampled("turn_left")
    high = write_csv(tmp_path / "high.csv", pos + [0, 0, 0.1], quat, joints)
    done = run("tools/csv_to_npz.py", high, str(tmp_path / "o.npz"))
    assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(
        f"warning: {high}: the feet and all else are 0.100 m or more over"
    )


def test_warnings_are_lines_and_each_is_told_once(capsys):
    with cli.warnings_as_lines():
        for _ in range(2):
            warnings.warn("one\nline", MotionWarning, stacklevel=1)
        for i in range(40):
            warnings.warn(f"clip {i}", MotionWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: one line" and len(lines) == cli.WARNING_LINES + 1
    assert lines[-1] == "warning: 21 more like these."


def test_a_policys_own_motion_passes_the_gate(tmp_path):
    spec, pose = PolicySpec.for_g1(), make_mlp()
    pos, quat, joints, fps = states("turn_left")
    for shift in (0.0, 0.098, -0.3):
        clip = clip_from_states(
            "turn", fps, pos + [0, 0, shift], quat, joints, source="", licence="CC0"
        )  # fmt: skip
        write_onnx(tmp_path / "p.onnx", pose, spec, clip)
        policy = load_policy(tmp_path / "p.onnx")
        if shift == 0.0:
            silent(policy.embedded_clip)
        elif shift > 0:
            says = r"p.onnx: the motion inside: the feet and all else are 0.098 m or more"
            with pytest.warns(MotionWarning, match=says):
                policy.embedded_clip()
        else:
            with pytest.raises(MotionError, match=r"p.onnx: the motion inside: .* under the floor"):
                policy.embedded_clip()


# --- the documentation ----------------------------------------------------------------------------


def test_every_rule_has_a_test_here_and_every_reader_a_row():
    source = Path(__file__).read_text()
    for rule in checks.RULES:
        for flag in filter(None, rule.flag.split(", ")):
            assert flag in source or flag.removeprefix("--").replace("-", "_") in source, flag
    assert {reader.suffix for reader in formats.READERS} == set(formats.SUFFIXES)
    assert consistency.SLOPE[0] < 1 < consistency.SLOPE[1]
