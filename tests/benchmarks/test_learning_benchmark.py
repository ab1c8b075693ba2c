"""`benchmarks/learning.py`: a grid of short trainings, its result file, what it runs again."""

import importlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm_python
from PIL import Image

from bm_envs import cli
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError
from bm_envs.motion import suites
from bm_envs.policy import load_policy
from bm_envs.tasks.track.config import TrackConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "algos")]
import learning  # noqa: E402

SMALL = (
    "--num-envs 8 --num-steps 8 --total-timesteps 192 --eval-every 64 --hidden 32 --no-curriculum"
)


def run(tmp_path, *arguments, flags=SMALL):
    return warm_python.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "learning.py"), "--json",
            str(tmp_path / "out.json"), "--run-dir", str(tmp_path / "runs"), f"--flags={flags}",
            *arguments,
        ], capture_output=True, text=True,
    )  # fmt: skip


def test_grid_of_runs_fills_one_file_and_finished_runs_stay(tmp_path):
    arguments = ("--motion", "stand", "--seeds", "1", "2", "--variants", "default", "no symmetry")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"4 runs; results go to {tmp_path / 'out.json'} after each.")
    assert first.endswith(f"the same command goes on with what is in {tmp_path / 'runs'}.")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["kind"] == "learning"
    rows = result["rows"]
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("default", 1), ("default", 2), ("no symmetry", 1), ("no symmetry", 2),
    ]  # fmt: skip
    assert [row["flags"][-1] for row in rows[1:3]] == ["--no-curriculum", "--no-symmetry"]
    for row in rows:
        # Three iterations teach nobody to stand for long.
        assert row["env_steps"] == 192 and row["first_pass"] is None
        assert 0 < row["clip"]["survival"] < 1 and row["time_to_failure_s"] > 0
        # A foot of two is at most wrong in every frame.
        assert 0 <= row["manner"]["foot_contact_mismatch"] <= 1
        assert row["manner"]["action_accel"] > 0 and row["manner"]["joint_accel_rad_s2"] > 1
    # The seeds are seeds of the training itself.
    assert rows[0]["reward_per_step"] != rows[1]["reward_per_step"]

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("policy.json")}
    assert len(made) == 4
    next(iter(made)).unlink()  # as if it had been cut short
    assert run(tmp_path, *arguments).returncode == 0
    again = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [path.stat().st_mtime_ns == time for path, time in made.items()] == [False] + 3 * [True]
    assert [row["reward_per_step"] for row in again] == [row["reward_per_step"] for row in rows]


def test_while_a_run_goes_on_it_is_told_how_far_it_is(tmp_path, monkeypatch, capsys):
    """A process of a second, which writes a row of figures and then waits."""
    (tmp_path / "config.json").write_text(json.dumps({"total_timesteps": 8_000_000}))
    row = {"step": 12_345, "train_s": 90.0, "eval/survival": 0.25}
    waits = (
        "import json, sys, time, pathlib\n"
        f"file = pathlib.Path({str(tmp_path / 'metrics.jsonl')!r})\n"
        f"file.write_text({json.dumps(row)!r} + chr(10))\n"
        "time.sleep(1.5); print('the end', file=sys.stderr)"
    )
    monkeypatch.setattr(learning, "TELL_EVERY_S", 0.7)
    process = subprocess.Popen(
        [sys.executable, "-c", waits], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert learning.watched(process, tmp_path, "run 3") == "the end\n"
    assert process.returncode == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == (
        "  run 3: 12,345 of at most 8,000,000 steps, 1.5 min, survives 25% of the motion"
    )


def test_a_run_without_figures_has_begun(tmp_path):
    assert learning.how_far(tmp_path / "none") == "begins"
    (tmp_path / "config.json").write_text(json.dumps({"total_timesteps": 10}))
    (tmp_path / "metrics.jsonl").write_text("")
    assert learning.how_far(tmp_path) == "begins"
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "train_s": 6.0}) + "\n")
    assert learning.how_far(tmp_path) == "1 of at most 10 steps, 0.1 min, not evaluated yet"


def test_manner_is_that_of_the_recorded_motion(monkeypatch):
    """Against differences of what the engine went through, with the shipped walk."""
    seen = []
    step = TrackVectorEnv.step

    def spied(env, action):
        result = step(env, action)
        force = np.linalg.norm(env.simulator.contact_force[:, -2:], axis=-1)
        seen.append((action.copy(), env.simulator.joint_vel.copy(), force > 1.0))
        return result

    monkeypatch.setattr(TrackVectorEnv, "step", spied)
    found = learning.manner(Path("walk"))
    actions, velocities, feet = (np.concatenate(values) for values in zip(*seen, strict=True))
    clip = load_policy("walk").embedded_clip()
    assert len(actions) == clip.num_frames - 1
    mismatch = (feet != clip.foot_contact[1:]).mean()
    assert found["foot_contact_mismatch"] == pytest.approx(mismatch, abs=1e-6)
    # The task begins with actions of 0; velocities before the first step were not seen.
    known = np.concatenate([np.zeros((2, 29)), actions])
    second = np.diff(known, n=2, axis=0)
    assert found["action_accel"] == pytest.approx(np.sqrt((second**2).mean()), rel=1e-4)
    accel = np.diff(velocities, axis=0) / 0.02
    # One step of 1225 is missing.
    assert found["joint_accel_rad_s2"] == pytest.approx(np.sqrt((accel**2).mean()), rel=0.01)


def test_the_other_script_runs_in_a_folder_of_its_own(tmp_path):
    flags = (
        "--num-envs 8 --num-steps 8 --total-timesteps 192 --hidden 32 --model-hidden 32 "
        "--warmup-iterations 1 --model-batch 16 --model-horizon 3 --policy-batch 16 --capacity 256"
    )
    arguments = "--algorithm wm_track --motion stand --seeds 1 --variants".split()
    done = run(tmp_path, *arguments, "critic", flags=flags)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["algorithm"] == "wm_track" and row["flags"][-1] == "--critic"
    assert row["env_steps"] == 192 and row["reward_per_step"] > 0
    assert (tmp_path / "runs" / "wm_track" / "stand" / "critic" / "1" / "policy.json").exists()
    done = run(tmp_path, *arguments, "no residual, unit noise", flags=flags)
    assert done.returncode == 2 and "Unknown variant 'no residual, unit noise'" in done.stderr


@pytest.mark.parametrize("algorithm", learning.VARIANTS)
def test_every_variant_is_settings_that_its_script_takes(algorithm):
    script = importlib.import_module(algorithm)
    made = {
        name: cli.parse(script.Config, script.PRESETS, list(flags))
        for name, flags in learning.VARIANTS[algorithm].items()
    }
    assert made.pop("default") == script.Config()
    assert all(config.preset == "laptop" for name, config in made.items() if name != "v4")
    assert made["v4"].task == TrackConfig.preset("v4")
    assert set(learning.RECIPES) < made.keys()


def test_both_scripts_in_one_run_with_their_curves(tmp_path):
    flags = (
        "--num-envs 4 --num-steps 8 --total-timesteps 96 --eval-every 32 --hidden 8 "
        "--robust-every 2 --no-curriculum"
    )
    picture = tmp_path / "curves.png"
    done = run(tmp_path, "--algorithm", "ppo_track", "wm_track", "--motion", "stand[0:0.5]",
               "--seeds", "1", "--plot", str(picture), flags=flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["algorithm"] for row in rows] == ["ppo_track", "wm_track"]
    for row in rows:
        assert [point[0] for point in row["curve"]] == [32, 64, 96]
        times = [point[1] for point in row["curve"]]
        assert times == sorted(times) and 0 < times[-1] <= row["wall_s"] + 0.1
        assert row["curve"][0][3] is None
        shares = [point[3] for point in row["curve"][1:]]
        first = next((i for i, share in enumerate(shares, 1) if share >= 0.95), None)
        found = row["first_robust"]
        assert (found and found["env_steps"]) == (first and row["curve"][first][0])
    with Image.open(picture) as image:
        assert image.width > 300


def test_another_checkout_trains_by_its_own_scripts(tmp_path):
    """It stands in a folder of its own, and its rows say so."""
    other = tmp_path / "other"
    for name in ("bm_envs", "algos"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = other / "algos" / "ppo_track.py"
    arguments = ("--motion", "stand", "--seeds", "1", "--against", str(other))
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["against"] for row in rows] == [False, True]
    # The same code, so the same numbers.
    assert rows[0]["reward_per_step"] == rows[1]["reward_per_step"]
    assert (tmp_path / "runs" / "against" / "stand" / "default" / "1" / "policy.json").exists()
    assert "stand  default  seed 1  against: " in done.stdout

    script.write_text("raise SystemExit('the other script')")
    (tmp_path / "runs" / "against" / "stand" / "default" / "1" / "policy.json").unlink()
    done = run(tmp_path, *arguments)
    assert done.returncode == 2 and "failed: the other script" in done.stderr
    script.unlink()
    done = run(tmp_path, *arguments)
    assert done.returncode == 2 and "is no checkout, it has no algos/ppo_track.py" in done.stderr


def test_processor_seconds_of_a_run_that_was_cut_short_twice_add_up():
    rows = [{"perf/cpu_s": value} for value in (3.0, 5.0, 1.0, 2.0, 0.5)]
    assert learning.processor_seconds(rows) == [3.0, 5.0, 6.0, 7.0, 7.5]
    assert learning.processor_seconds([{}, *rows]) == []


def test_a_suite_is_one_policy_for_all_it_holds(tmp_path):
    flags = "--num-envs 8 --num-steps 4 --total-timesteps 32 --hidden 8 --eval-every 0"
    done = run(tmp_path, "--motion", "builtin", "--seeds", "1", flags=flags)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["motion"] == "builtin"
    described = json.loads((tmp_path / "runs/builtin/default/1/policy.json").read_text())
    assert [entry["name"] for entry in described["motions"]] == list(suites.motions("builtin"))


def test_the_first_run_that_fails_ends_the_grid(tmp_path, monkeypatch):
    begun = []

    class Refused:
        """A run that ends in a sentence, late enough for the others to be called off."""

        returncode = 2

        def __init__(self, command, **_):
            begun.append(command)

        def communicate(self, timeout):
            time.sleep(1.0)
            return "", "error: no such clip.\n"

        def send_signal(self, number):
            pass

    monkeypatch.setattr(learning.subprocess, "Popen", Refused)
    config = learning.Config(json=tmp_path / "out.json", seeds=(1, 2, 3, 4), run_dir=tmp_path)
    with pytest.raises(BMError, match="'default', seed 1 failed: error: no such clip."):
        learning.main(config)
    assert len(begun) < 4 and not (tmp_path / "out.json").exists()


def test_bad_requests_are_one_sentence(tmp_path):
    done = run(tmp_path, "--algorithm", "ppo_track", "wm_track", "--variants", "2 epochs")
    assert done.returncode == 2 and "Unknown variant '2 epochs'" in done.stderr
    done = run(tmp_path, "--variants", "no symetry")
    assert done.returncode == 2 and "'no symetry'" in done.stderr
    assert "no symmetry" in done.stderr
    done = run(tmp_path, "--jobs", "999")
    assert done.returncode == 2 and "jobs is 999" in done.stderr
    done = run(tmp_path, "--motion", "stand", "--seeds", "1", flags="--num-envs 0")
    assert done.returncode == 2 and "num_envs is 0" in done.stderr
    assert not (tmp_path / "out.json").exists()
