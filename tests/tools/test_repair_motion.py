"""`tools/repair_motion.py`: what it prints and writes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python

from bm_envs.errors import ConfigError
from bm_envs.motion import library, repair, suites
from bm_envs.motion.clip import clip_from_states, save_npz

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import repair_motion  # noqa: E402


@pytest.fixture
def sunk(tmp_path):
    """Two seconds of standing, in the middle 5 cm in the floor, under the name of a LAFAN1 clip."""
    stand = library.load_motion("stand")
    pos, quat, joints = (
        np.tile(values[0].astype(np.float64), (101, 1))
        for values in (stand.body_pos_w[:, 0], stand.body_quat_w[:, 0], stand.joint_pos)
    )
    pos[:, 2] -= 0.05 * np.clip(np.minimum(np.arange(101) - 40, 60 - np.arange(101)) / 6, 0, 1)
    clip = clip_from_states(
        "walk1_subject1", 50.0, pos, quat, joints, source="a test", licence="CC BY-NC-ND 4.0"
    )
    save_npz(clip, tmp_path / "sunk.npz")
    return tmp_path / "sunk.npz"


def call(motion, npz, capsys):
    repair_motion.main(repair_motion.Config(motion=str(motion), npz=npz))
    return capsys.readouterr().out


def test_it_prints_what_was_changed_and_writes_a_motion(sunk, tmp_path, capsys):
    out = tmp_path / "out.npz"
    head, row, total, wrote = call(sunk, out, capsys).splitlines()
    original, repaired = library.load_motion(sunk), library.load_motion(out)
    (change,) = repair.changes(original, repaired)
    assert row.split() == [
        f"{change.start_s:.2f}", f"{change.end_s:.2f}",
        f"{100 * change.depth_m:.1f}", f"({change.depth_link})", "-",
        f"{100 * change.shift_m:.1f}", f"({change.shift_link})",
        f"{change.turn_rad:.2f}", f"({change.turn_joint})",
    ]  # fmt: skip
    assert change.depth_m == pytest.approx(0.05, abs=1e-3) and 0.02 < change.shift_m < 0.1
    seconds = change.end_s - change.start_s
    assert total == f"walk1_subject1: {seconds:.2f} of 2.00 s changed" and seconds < 1.9
    assert wrote == f"wrote {out}: walk1_subject1~repaired (CC BY-NC-ND 4.0)"
    # The file is another motion than the original in every result.
    assert suites.suite_of(repaired.name) == "lafan1-repaired"
    assert f"from walk1_subject1, {original.sha256()}" in repaired.source
    # What is repaired already stays.
    assert "nothing is to be repaired" in call(out, tmp_path / "again.npz", capsys)
    assert (tmp_path / "again.npz").read_bytes() == out.read_bytes()


def test_a_cut_is_one_of_the_repaired_motion(sunk, tmp_path, capsys):
    call(f"{sunk}[0.5:1.5]", tmp_path / "cut.npz", capsys)
    cut = library.load_motion(tmp_path / "cut.npz")
    whole = library.load_motion(f"{sunk}~repaired")
    assert cut.name == "walk1_subject1~repaired[0.5:1.5]"
    assert np.array_equal(cut.joint_pos, whole.joint_pos[25:76])


def test_a_sound_motion(tmp_path, capsys):
    printed = call("walk[0:2]", tmp_path / "out.npz", capsys)
    assert printed.startswith("walk[0:2]: nothing is to be repaired\n")
    written = library.load_motion(tmp_path / "out.npz")
    assert written.sha256() == library.load_motion("walk[0:2]").sha256()


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="out.txt: a motion is written to a name that ends in"):
        repair_motion.main(repair_motion.Config(motion="walk", npz=tmp_path / "out.txt"))
    done = warm_python.run(
        [sys.executable, str(ROOT / "tools" / "repair_motion.py"), "wlak", "out.npz"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert done.stderr.startswith("error: Unknown motion 'wlak'; did you mean 'walk'?")
