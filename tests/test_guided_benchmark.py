"""benchmarks/guided.py: its loop and rows with stand-in models whose success is known."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from diffusion import Model, still

from bm_envs.errors import ConfigError
from bm_envs.policy import load_policy

ROOT = Path(__file__).resolve().parent.parent
for folder in ("algos", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
guided = importlib.import_module("guided")
collect = importlib.import_module("collect_rollouts")

KEYS = {
    "policy", "task", "representation", "backend", "trials", "successes", "success_rate", "ci95",
    "mean_speed", "mean_forward", "mean_forward_predicted", "falls_s", "each", "steering",
}  # fmt: skip


@pytest.fixture(scope="module")
def drives():
    return collect.drives_of(load_policy("walk"))


@pytest.fixture(autouse=True)
def quick_starts(monkeypatch):
    """Starts from a clip that need not be made first."""
    monkeypatch.setattr(guided, "START_MOTIONS", ("walk",))


@pytest.mark.parametrize("task", list(guided.FIGURES))
def test_robots_that_fold_up_fail_every_task(drives, task):
    config = guided.Config(policy="x", task=task, trials=2, sampler="2", seed=3, threads=1)
    model = Model(drives, still(0.0))
    found = guided.run(model, config, 2)
    row = guided.row_of(model, config, found)
    assert KEYS <= row.keys() and json.dumps(row, allow_nan=False)
    assert row["successes"] == row["upright_strict"] == 0 and row["success_rate"] == 0
    assert len(row["falls_s"]) == 2 and len(row["each"]) == 2
    assert row["ci95"][0] == 0 and 0.5 < row["ci95"][1] < 0.7  # Wilson: 0 of 2 is 0 to 65.8 %
    assert not any(trial["success"] for trial in row["each"])


def test_equal_seeds_are_equal_trials_whatever_the_setting(drives):
    """Goals and starts do not depend on the model's size, strength or sampler."""
    model = Model(drives, still(0.0))
    seen = []
    for strength, sampler in ((0.0, "2"), (0.5, "3")):
        config = guided.Config(
            policy="x", task="obstacle", sampler=sampler, seed=5, strength=strength, threads=1
        )
        figures = guided.run(model, config, 3).figures
        seen.append((figures["goal"] - 0, figures["num_obstacles"]))
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    # Goals are drawn about where the warm-up has brought the robot, which is sampled: centimetres.
    np.testing.assert_allclose(seen[0][0], seen[1][0], atol=0.3)
    assert np.ptp(seen[0][0], axis=0).min() > 0.5


@pytest.mark.parametrize("task", ["walk_perturb", "obstacle"])
def test_a_trial_is_the_same_in_a_smaller_batch(drives, monkeypatch, task):
    """A stand-in whose action is the sampler's noise: robots, draws and noise alike, to the bit."""
    monkeypatch.setattr(guided, "WARM_UP_S", 0.1)

    def answer(states, actions, state_levels, action_levels):
        return states.copy(), 0.1 * actions

    seen = []
    for trials in (1, 4):
        config = guided.Config(policy="x", task=task, sampler="2", seed=5, threads=1)
        found = guided.run(Model(drives, answer), config, trials)
        seen.append({**found.figures, "down_s": found.down_s, "speed": found.speed})
    for name, rows in seen[0].items():
        np.testing.assert_array_equal(rows, seen[1][name][:1], name)
    drawn = seen[1]["push_velocity" if task == "walk_perturb" else "goal"]
    assert np.isfinite(drawn).all() and len(np.unique(drawn)) == 8


def test_trials_have_seeds_of_their_own():
    seeds = guided.seeds_of(0, 50, "trial")
    assert seeds[:12] == guided.seeds_of(0, 12, "trial")
    others = [*guided.seeds_of(1, 50, "trial"), *guided.seeds_of(0, 50, "noise")]
    assert len({*seeds, *others}) == 150


def test_velocities_are_of_the_robots_own_axes(drives, monkeypatch):
    """What the row calls forward is along the heading, wherever in the world that points."""
    quat = guided._yaw_quat(np.array([[np.cos(0.6), 0.0, 0.0, np.sin(0.6)]]))
    own = guided.quat_rotate_inverse(quat, np.array([[np.cos(1.2), np.sin(1.2), 0.1]]))
    np.testing.assert_allclose(own, [[1.0, 0.0, 0.1]], atol=1e-12)


def test_settings():
    config = guided.Config(policy="x", task="joystick", strength=0.7)
    assert config.resolved == dataclasses.replace(guided.STEERING["joystick"], strength=0.7)
    with pytest.raises(ConfigError, match="trials is 0, expected 1 or more"):
        guided.Config(policy="x", task="joystick", trials=0)
    with pytest.raises(ConfigError, match="seed is -1, expected 0 or more"):
        guided.Config(policy="x", task="joystick", seed=-1)
    with pytest.raises(ConfigError, match="sampler is 'fast', expected full, rolling or 1 to 20"):
        guided.Config(policy="x", task="joystick", sampler="fast")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "guided.py"), "--policy", "no_such_model",
         "--task", "joystick"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "Unknown diffusion model 'no_such_model'" in done.stderr
