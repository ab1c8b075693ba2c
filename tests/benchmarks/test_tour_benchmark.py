"""guided.py --task tour: rows, files and refusals, with made-up policies; tables from its files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_files import make_mlp

from bm_envs.diffusion import tour_trials
from bm_envs.diffusion.task_policy import write_guided_policy
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import BMError
from bm_envs.results import read_result
from bm_envs.robots import g1
from bm_envs.statistics import wilson
from tests.policy.test_velocity import write

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "docs"))
guided = importlib.import_module("guided")
tour_tables = importlib.import_module("tour_tables")
DRIVES = {
    "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
    "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
}  # fmt: skip


def publishable(path):
    """The file as it would be of a whole run: quick ones are not published."""
    content = json.loads(path.read_text())
    content["settings"]["quick"] = False
    content["commit"] = content["commit"] or "0" * 40
    content["command"] = "python benchmarks/guided.py --policy x.onnx --task tour"
    path.write_text(json.dumps(content))
    return read_result(path)


def test_a_velocity_policy_runs_and_its_row_is_of_the_kind(tmp_path, capsys):
    """A network of zeros holds its pose, and falls within seconds."""
    path, out = write(tmp_path / "zeros.onnx", 100, 29), tmp_path / "out.json"
    guided.main(guided.Config(
        policy=str(path), task="tour", trials=3, seed=5, threads=1, json=out, quick=True,
    ))  # fmt: skip
    assert "tour, arms moved, punches published: survived" in capsys.readouterr().out
    (row,) = publishable(out).rows
    assert (row["policy"], row["representation"]) == ("zeros", "velocity, holosoma")
    assert row["runs"] == 2 and [one["run"] for one in row["each"]] == [5, 6]
    assert row["completed"] == 0 and 0.3 < row["survival_s"] < 20
    assert row["energy_j"] is None and row["limits"]["forward"] == [-1.0, 1.0]
    assert row["survival_s"] == pytest.approx(
        np.mean([e["survival_s"] for e in row["each"]]), abs=1e-3
    )


def test_a_policy_of_the_joystick_is_shown_the_beginning_of_the_tour(tmp_path):
    write_guided_policy(
        tmp_path, make_mlp(312), task="joystick", drives=DRIVES, training={},
        evaluation={},
    )  # fmt: skip
    config = guided.Config(policy=str(tmp_path), task="tour", threads=1)
    policy = guided.load(config)
    env = GuidedVectorEnv(2, "tour", autoreset_mode="disabled", threads=1)
    obs, info = env.reset(seed=0)
    np.testing.assert_allclose(obs[:, 309:312], info["command"], atol=1e-6)
    driver = tour_trials.ObservingDriver(policy, 312)
    np.testing.assert_allclose(driver.act(obs), policy(obs[:, :312]))
    with pytest.raises(BMError, match="is a policy of task 'joystick', expected one of 'obstacle'"):
        guided.load(guided.Config(policy=str(tmp_path), task="obstacle", threads=1))


def test_a_row_counts_by_hand():
    class Task:
        class config:  # noqa: N801
            episode_s = 90.0

    inf = np.inf
    figures = {
        "time_s": np.array([90.0, 30.0, 90.0, 10.0]),
        "success": np.array([True, False, True, False]), "run": np.arange(7, 11),
        "position_error": np.array([[0.1, 0.3], [0.5, inf], [0.2, 0.2], [inf, inf]]),
        "heading_error": np.array([[0.0, 0.2], [1.0, inf], [0.0, 0.0], [inf, inf]]),
        "energy": np.array([10.0, 99.0, 20.0, 99.0]), "vibration": np.array([1.0, 9, 3.0, 9]),
    }  # fmt: skip
    row = tour_trials.tour_row(figures, Task)  # type: ignore[arg-type]
    assert (row["survival_s"], row["completed"], row["first_run"]) == (55.0, 2, 7)
    assert row["ci95"] == list(wilson(2, 4))
    assert row["position_error_m"] == pytest.approx((0.1 + 0.3 + 0.5 + 0.2 + 0.2) / 5)
    assert row["heading_error_rad"] == pytest.approx(1.2 / 5)
    assert (row["energy_j"], row["vibration_rad_s2"]) == (15.0, 2.0)
    assert row["each"][3]["position_error_m"] is None
    low, high = row["survival_ci95"]
    assert 10.0 <= low < 55.0 < high <= 90.0
    figures["success"] = np.zeros(4, bool)
    assert tour_trials.tour_row(figures, Task)["energy_j"] is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("punches", "strengths"),
    [
        ("published", [500 / 3, 500.0]),
        ("200", [200.0] * 2),
        ("100", [100.0] * 2),
        ("none", [0.0] * 2),
    ],
)
def test_the_named_punches(punches, strengths):
    config = tour_trials.tour_config(DRIVES, {}, "moved", punches)
    task = GuidedVectorEnv(1, "tour", config=config, threads=1).task
    assert task.ceiling(np.array([0, 17])) == pytest.approx(strengths)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (dict(task="tour", delay=1), "--delay is not for the tour, expected a task without it."),
        (dict(task="tour", cost="a.py:f"), "--cost is not for the tour, expected a task"),
        (dict(task="tour", expert=True), "--expert has no clip to follow in task 'tour'"),
        (dict(task="joystick", arms="free"), "--arms is of the tour alone, expected --task tour"),
        (dict(task="joystick", punches="none"), "--punches is of the tour alone, expected --task"),
    ],
)
def test_flags_that_do_not_go_together(flags, text):
    with pytest.raises(BMError) as caught:
        guided.Config(policy="x", **flags)
    assert str(caught.value).startswith(text)


def test_a_velocity_policy_of_another_task_is_refused(tmp_path):
    path = write(tmp_path / "zeros.onnx", 100, 29)
    with pytest.raises(BMError, match=r"zeros.onnx: is a velocity policy, which task 'waypoint'"):
        guided.load(guided.Config(policy=str(path), task="waypoint", threads=1))


def test_published_rows_are_the_reference_s():
    """Typed once more: three rows of README 0b2ea7a."""
    rows = {row[0]: row[1:] for row in tour_tables.PUBLISHED}
    assert rows["asap"] == (46.3, 7, 512, 141, 32)
    assert rows["rl_lab (Unitree)"] == (25.5, 0, 512, 57, 74)
    assert rows["holosoma (FastSAC)"] == (5.9, 0, 512, 73, 48)
    survivals = [row[1] for row in tour_tables.PUBLISHED]
    assert survivals == sorted(survivals, reverse=True)
