"""CSV import: resampling and velocities against SciPy, closed forms and data made elsewhere."""

import re
import sys
from pathlib import Path

import motion_samples
import numpy as np
import pytest
import warm_python
from scipy.spatial.transform import Rotation, Slerp

from bm_envs.errors import MotionError
from bm_envs.motion.clip import load_npz
from bm_envs.motion.csv import read_csv
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "csv_to_npz.py"


def write(path, root_pos, quat_wxyz, joint_pos):
    rows = np.hstack([root_pos, np.asarray(quat_wxyz)[:, [1, 2, 3, 0]], joint_pos])
    path.write_text("".join(",".join(map(repr, map(float, row))) + "\n" for row in rows))
    return path


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text(motion_samples.csv_text(frames=40))
    return path


@pytest.mark.parametrize(
    ("rows", "input_fps", "output_fps", "frames"),
    [
        (31, 30, 50, 50),  # 1 s exactly: the times end at 0.98 s
        (32, 30, 50, 52),  # 1.0333 s: 51.67 steps
        (40, 30, 50, 65),  # 1.3 s exactly
        (61, 60, 50, 50),
        (50, 50, 50, 49),  # equal rates: the last input frame is not sampled
        (31, 30, 25, 25),
        (31, 29.97, 50, 51),  # 1.001 s
    ],
)
def test_number_of_frames(tmp_path, rows, input_fps, output_fps, frames):
    path = tmp_path / "a.csv"
    path.write_text(motion_samples.csv_text(frames=rows))
    clip = read_csv(path, input_fps=input_fps, output_fps=output_fps)
    assert (clip.num_frames, clip.fps) == (frames, output_fps)


def test_positions_and_joints_are_interpolated_linearly(sample):
    rows = np.loadtxt(sample, delimiter=",")
    clip = read_csv(sample, input_fps=30)
    times = np.arange(clip.num_frames) / 50.0
    for j in range(29):
        expected = np.interp(times, np.arange(40) / 30.0, rows[:, 7 + j])
        np.testing.assert_allclose(clip.joint_pos[:, j], expected, rtol=0, atol=3e-7)
    for axis in range(3):
        expected = np.interp(times, np.arange(40) / 30.0, rows[:, axis])
        np.testing.assert_allclose(clip.body_pos_w[:, 0, axis], expected, rtol=0, atol=3e-7)


def test_the_root_turns_as_scipys_slerp(tmp_path):
    rng = np.random.default_rng(0)
    steps = Rotation.from_rotvec(rng.normal(scale=0.8, size=(40, 3)))
    turned = [Rotation.identity()]
    for step in steps:
        turned.append(step * turned[-1])
    quat = np.array([rotation.as_quat()[[3, 0, 1, 2]] for rotation in turned])
    quat *= rng.choice([-1.0, 1.0], size=(41, 1))  # q and -q are one rotation
    path = write(tmp_path / "a.csv", np.zeros((41, 3)), quat, np.zeros((41, 29)))
    clip = read_csv(path, input_fps=30)
    slerp = Slerp(np.arange(41) / 30.0, Rotation.from_quat(quat[:, [1, 2, 3, 0]]))
    expected = slerp(np.arange(clip.num_frames) / 50.0)
    got = Rotation.from_quat(clip.body_quat_w[:, 0][:, [1, 2, 3, 0]])
    # float32 storage of a unit quaternion: 6e-8 a component, twice that as an angle.
    assert (got * expected.inv()).magnitude().max() < 3e-7


def test_a_constant_spin_has_its_angular_velocity(tmp_path):
    spin = np.array([0.7, 0.2, -1.5])
    turned = Rotation.from_rotvec(np.outer(np.arange(90) / 30.0, spin))
    quat = turned.as_quat()[:, [3, 0, 1, 2]]
    path = write(tmp_path / "a.csv", np.zeros((90, 3)), quat, np.zeros((90, 29)))
    for interpolation in ("linear", "cubic"):
        clip = read_csv(path, input_fps=30, interpolation=interpolation)
        expected = np.broadcast_to(spin, (clip.num_frames, 3))
        # Slerp between rotations of one axis is exact; the spline is a fourth-order approximation
        # (its tangent at the two ends, one-sided, of first order only).
        inside = slice(3, -3) if interpolation == "cubic" else slice(None)
        tolerance = 2e-3 if interpolation == "cubic" else 3e-6
        np.testing.assert_allclose(
            clip.body_ang_vel_w[inside, 0], expected[inside], rtol=0, atol=tolerance
        )


def test_velocities_are_differences_of_the_resampled_motion(sample):
    clip = read_csv(sample, input_fps=30)
    x = clip.joint_pos.astype(float)
    expected = np.vstack([x[1] - x[0], (x[2:] - x[:-2]) / 2, x[-1] - x[-2]]) * 50.0
    # Positions are rounded to float32 after the differences are taken: 2.4e-7 rad * 50 / s.
    np.testing.assert_allclose(clip.joint_vel, expected, rtol=0, atol=2.5e-5)


def test_velocities_of_links_are_those_of_their_origins(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(motion_samples.csv_text(frames=200, fps=200))
    clip = read_csv(path, input_fps=200, output_fps=200)
    x = clip.body_pos_w.astype(float)
    differences = (x[2:] - x[:-2]) * 100.0
    # Third derivative times dt^2 / 6: rates up to 6 rad/s, sizes up to 1.5 rad, arms up to 1 m,
    # and 2.4e-7 m of float32 a position.
    tolerance = 6**3 * 1.5 * 0.005**2 / 6 * 3 + 2.4e-7 * 200
    assert tolerance < 0.01
    np.testing.assert_allclose(clip.body_lin_vel_w[1:-1], differences, rtol=0, atol=tolerance)


def test_the_cubic_spline_meets_the_frames_and_is_smoother(sample):
    rows = np.loadtxt(sample, delimiter=",")
    linear = read_csv(sample, input_fps=30)
    cubic = read_csv(sample, input_fps=30, interpolation="cubic")
    # Every fifth output frame at 50 is every third input frame at 30.
    for clip in (linear, cubic):
        np.testing.assert_allclose(clip.joint_pos[::5], rows[:39:3, 7:], rtol=0, atol=3e-7)
    truth = motion_samples.clip(frames=cubic.num_frames, fps=50)
    inside = slice(5, -5)  # the spline's tangents at the ends are one-sided
    for key in ("joint_pos", "joint_vel"):
        errors = [
            np.abs(getattr(clip, key) - getattr(truth, key))[inside].max()
            for clip in (linear, cubic)
        ]
        assert errors[1] < 0.25 * errors[0], key


def test_a_frame_range_is_those_rows(sample, tmp_path):
    part = tmp_path / "part.csv"
    part.write_text("".join(sample.read_text().splitlines(keepends=True)[9:30]))
    expected = read_csv(part, input_fps=30)
    got = read_csv(sample, input_fps=30, frame_range=(10, 30))
    assert got.sha256() == expected.sha256() and got.num_frames == 34
    for bad in ((0, 10), (10, 10), (10, 41), (30, 10)):
        text = (
            f"{sample}: frame range {bad[0]} to {bad[1]} does not fit,"
            " expected first < last within 1 and 40."
        )
        with pytest.raises(MotionError, match=re.escape(text)):
            read_csv(sample, input_fps=30, frame_range=bad)


def test_names_and_provenance(sample):
    clip = read_csv(sample, input_fps=30)
    assert (clip.name, clip.source, clip.licence) == ("sample", "sample.csv", "not stated")
    clip = read_csv(sample, input_fps=30, name="n", source="s", licence="l")
    assert (clip.name, clip.source, clip.licence) == ("n", "s", "l")


@pytest.mark.parametrize("rates", [(0, 50), (-30, 50), (float("nan"), 50), (30, float("inf"))])
def test_rates_are_positive_numbers(sample, rates):
    with pytest.raises(MotionError, match=r"put_fps is \S+, expected a positive number"):
        read_csv(sample, input_fps=rates[0], output_fps=rates[1])


def run_tool(*arguments, cwd):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return warm_python.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_without_a_name_the_command_writes_in_s_name_into_this_folder(sample, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    done = run_tool(sample, cwd=here)
    assert done.returncode == 0 and done.stdout.endswith("wrote sample.npz\n"), done.stderr
    written = (here / "sample.npz").read_bytes()
    assert load_npz(here / "sample.npz").sha256() == read_csv(sample, input_fps=30).sha256()
    done = run_tool("sample.npz", cwd=here)  # its own name
    assert (done.returncode, done.stderr) == (
        2, "error: sample.npz is there already: name the file to write.\n",
    )  # fmt: skip
    assert (here / "sample.npz").read_bytes() == written


def test_the_command_writes_the_same_frames(sample, tmp_path):
    done = run_tool(sample, "out.npz", "--order", "isaac", "--frame-range", 1, 35, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    clip = read_csv(sample, input_fps=30, frame_range=(1, 35))
    back = load_npz(tmp_path / "out.npz")
    assert back.sha256() == clip.sha256()
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["joint_names"].tolist() == list(g1.ISAAC_JOINT_NAMES)
    assert f"frames               {clip.num_frames} ({clip.duration_s:.2f} s)" in done.stdout
    assert "lowest foot point" in done.stdout and "wrote out.npz" in done.stdout


def test_the_command_reports_frames_beyond_the_limits(tmp_path):
    # 10 s in thirds: default pose, knee beyond its soft limit (2.73145), beyond its hard (2.8798).
    joint_pos = np.tile(g1.DEFAULT_JOINT_POS, (301, 1))
    knee = g1.JOINT_NAMES.index("left_knee_joint")
    joint_pos[101:, knee], joint_pos[201:, knee] = 2.8, 2.9
    # The knee passes the limits at rows 100 + (2.73145 - 0.669) / 2.131 = 100.968 and
    # 200 + 0.0798 / 0.1 = 200.798, output frames 168.3 and 334.7 of 500: 331 and 165 are beyond.
    quat = np.tile([1.0, 0, 0, 0], (301, 1))
    write(tmp_path / "a.csv", np.tile([0, 0, 0.76], (301, 1)), quat, joint_pos)
    done = run_tool("a.csv", "a.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "beyond soft limits   66.2% of frames" in done.stdout
    assert "beyond hard limits   33.0% of frames" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none.csv", "a.npz"), "none.csv: does not exist, expected a .csv file."),
        (("bad.csv", "a.npz"), "bad.csv: line 3 has 35 columns, expected 36: root position 3,"
         " root quaternion 4 (x y z w), joints 29."),
        (("sample.csv", "a.txt"), "a.txt: a motion is written to a name that ends in .npz."),
    ],
)  # fmt: skip
def test_the_command_refuses_with_one_sentence(sample, tmp_path, arguments, sentence):
    lines = sample.read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0]
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    before = sorted(path.name for path in tmp_path.iterdir())
    done = run_tool(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_lafan1_becomes_what_another_converter_made_of_it(data_dir):
    """A rollout recorded elsewhere shows its reference in `obs`: joint angles and speeds."""
    rollout = data_dir / "oracle_policies" / "dance1_subject2" / "rollout_first_500.npz"
    with np.load(rollout) as arrays:
        obs = arrays["obs"]
    clip = read_csv(data_dir / "lafan1_g1" / "dance1_subject2.csv", input_fps=30)
    assert clip.num_frames == 6574  # stated beside the rollout
    # float32 angles up to 3 rad; speeds are their differences over 0.04 s.
    np.testing.assert_allclose(clip.joint_pos[: len(obs)], obs[:, :29], rtol=0, atol=1e-6)
    np.testing.assert_allclose(clip.joint_vel[: len(obs)], obs[:, 29:58], rtol=0, atol=5e-5)
