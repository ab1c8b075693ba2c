"""`tools/check_reference.py` and what it measures, on clips with one thing wrong each."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python

from bm_envs.errors import ConfigError
from bm_envs.motion import repair
from bm_envs.motion.clip import clip_from_states, save_npz
from bm_envs.motion.feasibility import FLAGS, examine
from bm_envs.motion.library import load_motion
from bm_envs.results import read_result
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import check_reference  # noqa: E402

FRAMES, FPS = 101, 50.0
KNEE = g1.JOINT_NAMES.index("left_knee_joint")
ELBOW = g1.JOINT_NAMES.index("right_elbow_joint")
STANDING = load_motion("stand").body_pos_w[0, 0, 2]


def states():
    """Standing still for 2 s: root position, root quaternion, joints."""
    pos = np.tile([0.0, 0.0, STANDING], (FRAMES, 1))
    quat = np.tile([1.0, 0.0, 0.0, 0.0], (FRAMES, 1))
    joints = np.tile(load_motion("stand").joint_pos[0].astype(float), (FRAMES, 1))
    return pos, quat, joints


def make(pos, quat, joints, name="hand-made"):
    return clip_from_states(
        name, FPS, pos, quat, joints, source="made by a test", licence="Apache-2.0"
    )


def test_standing_is_fine():
    found = examine(make(*states()))
    assert found.flags == {}
    assert found.joint_excess_rad == found.joint_speed_ratio == found.root_speed_m_s == 0.0
    assert abs(found.foot_depth_m) < 0.005 and found.link_depth_m < 0
    assert found.floating_s == 0.0


@pytest.mark.parametrize("name", ["walk", "walk_back", "turn_left", "side_right"])
def test_the_packages_motions_are_fine(name):
    assert examine(load_motion(name)).flags == {}


def test_a_joint_beyond_its_range():
    pos, quat, joints = states()
    low, high = g1.JOINT_RANGE[KNEE]
    rise = np.linspace(joints[0, KNEE], high + 0.2, 81)
    joints[20:, KNEE] = rise
    pos[:, 2] += 0.5  # with its legs drawn in it would be in the floor
    found = examine(make(pos, quat, joints))
    assert found.joint_excess_rad == pytest.approx(0.2, abs=1e-5)
    assert found.joint_excess_joint == "left_knee_joint"
    beyond = (rise > high + 1e-6).sum()
    assert found.joint_excess_share == pytest.approx(beyond / FRAMES)
    assert found.flags["joint limits"] == pytest.approx(2.0)
    joints[:, KNEE] = np.minimum(joints[:, KNEE], high + 0.04)  # within the bound
    assert "joint limits" not in examine(make(pos, quat, joints)).flags
    joints[:, KNEE] = low - 0.1
    assert examine(make(pos, quat, joints)).joint_excess_rad == pytest.approx(0.1, abs=1e-5)


def test_a_joint_faster_than_its_limit():
    """A jump of one frame, which central differences would halve."""
    pos, quat, joints = states()
    step = 1.2 * g1.VELOCITY_LIMIT[ELBOW] / FPS
    joints[60:, ELBOW] += step
    found = examine(make(pos, quat, joints))
    assert found.joint_speed_ratio == pytest.approx(1.2, rel=1e-4)
    assert found.joint_speed_joint == "right_elbow_joint"
    assert found.joint_speed_share == pytest.approx(1 / (FRAMES - 1))
    assert found.flags == {"joint speed": pytest.approx(59 / FPS)}
    joints[60:, ELBOW] -= 0.4 * step
    assert examine(make(pos, quat, joints)).flags == {}


def test_feet_under_the_floor():
    pos, quat, joints = states()
    pos[40:50, 2] -= 0.032
    found = examine(make(pos, quat, joints))
    sole = examine(make(*states())).foot_depth_m
    assert found.foot_depth_m == pytest.approx(sole + 0.032, abs=1e-5)
    assert found.foot_depth_share == pytest.approx(10 / FRAMES)
    assert list(found.flags) == ["feet under the floor"] and 0.8 <= found.flags[FLAGS[2]] < 1.0


def test_a_link_under_the_floor():
    """Lying on its back, the pelvis lower than it is thick."""
    pos, quat, joints = states()
    half = np.pi / 4
    quat[:] = [np.cos(half), 0.0, -np.sin(half), 0.0]
    pos[:, 2] = -0.01
    found = examine(make(pos, quat, joints))
    assert found.link_depth_m >= 0.01 - 1e-6 and "link under the floor" in found.flags
    assert found.link_depth_link in g1.BODY_NAMES


@pytest.mark.parametrize(("axis", "size"), [(0, 0.25), (1, -0.3)])
def test_a_jump_of_the_pelvis(axis, size):
    pos, quat, joints = states()
    pos[30:, axis] += size
    found = examine(make(pos, quat, joints))
    assert found.root_speed_m_s == pytest.approx(abs(size) * FPS, rel=1e-4)
    assert found.flags == {"jump": pytest.approx(29 / FPS)}


def test_a_turn_in_one_frame_and_the_sign_of_a_quaternion():
    pos, quat, joints = states()
    quat[50:] = [np.cos(0.25), 0.0, 0.0, np.sin(0.25)]  # 0.5 rad
    found = examine(make(pos, quat, joints))
    assert found.root_turn_rad_s == pytest.approx(0.5 * FPS, rel=1e-4)
    assert list(found.flags) == ["jump"]
    pos, quat, joints = states()
    quat[50:] *= -1  # the same rotation
    assert examine(make(pos, quat, joints)).root_turn_rad_s == pytest.approx(0.0, abs=1e-3)


def test_floating():
    pos, quat, joints = states()
    pos[10:70, 2] += 0.2
    found = examine(make(pos, quat, joints))
    assert found.floating_s == pytest.approx(60 / FPS)
    assert found.flags.get("floating") == pytest.approx(69 / FPS)
    pos[50:70, 2] = STANDING  # 0.8 s, as long as a high jump
    assert "floating" not in examine(make(pos, quat, joints)).flags


def test_who_lies_on_thick_links_does_not_float():
    """Their origins are off the floor; the shapes around them are on it."""
    pos, quat, joints = states()
    quat[:] = [np.cos(np.pi / 4), 0.0, -np.sin(np.pi / 4), 0.0]
    joints[:] = 0.0
    for name in ("hip_pitch", "shoulder_pitch"):  # legs and arms up
        for side in ("left", "right"):
            joints[:, g1.JOINT_NAMES.index(f"{side}_{name}_joint")] = -1.5
    pos[:, 2] = 1.0
    high = examine(make(pos, quat, joints))
    pos[:, 2] += high.shape_depth_m  # negative: to the floor
    found = examine(make(pos, quat, joints))
    assert found.shape_depth_m == pytest.approx(0.0, abs=1e-5)
    assert found.link_depth_m < -0.03 and found.floating_s == 0.0 and found.flags == {}
    pos[:, 2] += 0.13
    assert set(examine(make(pos, quat, joints)).flags) == {"floating", "over the floor"}


# --- the command ---


def test_the_command_writes_a_row_per_clip(tmp_path, capsys):
    pos, quat, joints = states()
    pos[30:, 0] += 1.0
    save_npz(make(pos, quat, joints, "leap"), tmp_path / "leap.npz")
    out = tmp_path / "out.json"
    motions = ("walk[0:2]", str(tmp_path / "leap.npz"))
    check_reference.main(check_reference.Config(motion=motions, json=out))
    printed = capsys.readouterr().out
    assert "1 of 2 flagged" in printed and "jump (0.58 s)" in printed
    value = json.loads(out.read_text())
    value["commit"] = value["commit"] or "0" * 40
    value["command"] = "python tools/check_reference.py --motion 'walk[0:2]' leap.npz"
    out.write_text(json.dumps(value))
    file = read_result(out)
    assert [(row["motion"], row["suite"], row["flags"]) for row in file.rows] == [
        ("walk[0:2]", "builtin", []), ("leap", "other", ["jump"]),
    ]  # fmt: skip
    assert file.rows[1]["worst_s"] == {"jump": 0.58}


def test_the_command_looks_at_repaired_motions_too(tmp_path, capsys):
    pos, quat, joints = states()
    pos[40:60, 2] -= 0.034
    joints[:20, ELBOW] = g1.JOINT_RANGE[ELBOW, 1] + 0.1
    save_npz(make(pos, quat, joints, "sunk"), tmp_path / "sunk.npz")
    out = tmp_path / "out.json"
    motions = ("walk[0:2]", str(tmp_path / "sunk.npz"))
    check_reference.main(check_reference.Config(motion=motions, repaired=True, json=out))
    assert "1 of 2 flagged\n1 of 2 repaired" in capsys.readouterr().out
    value = json.loads(out.read_text())
    value["commit"] = value["commit"] or "0" * 40
    value["command"] = "python tools/check_reference.py --motion 'walk[0:2]' sunk.npz --repaired"
    out.write_text(json.dumps(value))
    sound, original, repaired = read_result(out).rows
    assert (sound["flags"], sound["motion"]) == ([], "walk[0:2]")
    assert original["flags"] == ["joint limits", "joint speed", "feet under the floor"]
    # The elbow leaps into its range, which is no repair's.
    assert (repaired["motion"], repaired["flags"]) == ("sunk~repaired", ["joint speed"])
    assert repaired["shape_depth_m"] <= 0.01 < 0.03 < original["shape_depth_m"]
    assert repaired["repaired_from_sha256"] == load_motion(motions[1]).sha256()
    assert repaired["repaired_stretches"] == 1 and 1.0 < repaired["repaired_s"] <= 2.0
    (change,) = repair.changes(*(load_motion(motions[1] + end) for end in ("", "~repaired")))
    assert repaired["repaired_turn_rad"] == change.turn_rad >= 0.1 - 1e-5
    assert repaired["repaired_shift_link"] == change.shift_link


def test_the_command_refuses(tmp_path):
    for settings in ({}, {"motion": ("walk",), "suite": "builtin"}):
        with pytest.raises(ConfigError, match="Expected either --motion or --suite"):
            check_reference.Config(**settings)
    done = warm_python.run(
        [sys.executable, str(ROOT / "tools" / "check_reference.py"), "--motion", "wlak"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown motion 'wlak'; did you mean 'walk'?")


@pytest.mark.slow
def test_the_cuts(data_dir):
    """All eight are fine; the fall ten seconds later, which was chosen first, is in the floor."""
    from bm_envs.motion import suites

    flags = {
        name: list(examine(load_motion(name)).flags)
        for name in (*suites.CUTS, "fallAndGetUp1_subject1[20:30]")
    }
    assert {name for name, found in flags.items() if found} == {"fallAndGetUp1_subject1[20:30]"}
