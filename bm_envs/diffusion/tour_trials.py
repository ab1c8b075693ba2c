"""Runs of the tour: a policy's limits and drives, who gives its actions, and the row that results.

`benchmarks/guided.py --task tour` is the command. What is measured is the task's
(`tasks/guided/tour.py`); here are the conditions under which it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import numpy as np

from bm_envs.policy.velocity import Seen, VelocityPolicy
from bm_envs.rotations import quat_rotate_inverse
from bm_envs.statistics import stratified_bootstrap, wilson
from bm_envs.tasks.guided.config import TourConfig
from bm_envs.tasks.guided.tour import TourTask
from bm_envs.tasks.track.config import CONTROL_DT, ActuationConfig

Arms = Literal["moved", "free"]
Punches = Literal["published", "200", "100", "none"]
PUNCHES: dict[str, dict[str, float]] = {
    "published": {},
    "200": {"punch": 200.0, "punch_ramp_s": 0.0},
    "100": {"punch": 100.0, "punch_ramp_s": 0.0},
    "none": {"punch": 0.0},
}
"""Fields of the configuration; a number is the ceiling in N throughout (ours)."""

WALKS: dict[str, Any] = {"forward": (-0.3, 0.6), "left": 0.0, "yaw_rate": 0.5}
"""Limits of what learned from the built-in walks, and of the joystick task: no step to a side."""
LEAST_COMPLETED = 0.2  # share of runs; with fewer, energy and vibration are left blank


class Driver(Protocol):
    """What gives actions."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]` for observations `[N, O]` of the tour."""
        ...


def tour_config(
    drives: Mapping[str, Any], limits: Mapping[str, Any], arms: Arms, punches: Punches
) -> TourConfig:
    """The task under a policy's drives and limits, and one condition."""
    actuation = ActuationConfig(**{name: tuple(values) for name, values in drives.items()})
    return TourConfig(actuation=actuation, arms=arms, **PUNCHES[punches], **limits)


class VelocityDriver:
    """A published velocity policy, which is shown what its own observation is made of."""

    def __init__(self, policy: VelocityPolicy, task: TourTask) -> None:
        self._policy, self._task = policy, task
        policy.reset(task.num_envs)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Driver.act`."""
        task, sim = self._task, self._task.simulator
        down = np.tile([0.0, 0.0, -1.0], (task.num_envs, 1))
        places = task.observation_layout
        away = [obs[:, places[name]] for name in ("waypoint_distance", "heading_error")]
        return self._policy.act(
            Seen(
                quat_rotate_inverse(sim.root_quat.astype(float), down), sim.root_ang_vel_b,
                sim.joint_pos, sim.joint_vel, task.command(), abs(np.concatenate(away, 1)),
                task.arm_targets, task.config.arms == "moved",
            )
        )  # fmt: skip


class ObservingDriver:
    """A policy of the tour or of the joystick, whose observation is the tour's beginning."""

    def __init__(self, policy: Any, size: int) -> None:
        self._policy, self._size = policy, size

    def act(self, obs: np.ndarray) -> np.ndarray:
        """See `Driver.act`."""
        return self._policy(obs[:, : self._size])


def run_tour(
    env: Any, driver: Driver, obs: np.ndarray, ticks: Iterable[int]
) -> dict[str, np.ndarray]:
    """Let the N robots of a `GuidedVectorEnv` do their runs; the task's figures at the end.

    Args:
        env: of the tour, after its reset.
        driver: gives actions.
        obs: `[N, O]`, observations of that reset.
        ticks: as many as an episode has control steps, or fewer.
    """
    over = np.zeros(env.num_envs, bool)
    for _ in ticks:
        # A robot that lies on the ground may be given anything; numbers must be finite.
        action = np.nan_to_num(np.asarray(driver.act(obs), np.float32), posinf=0.0, neginf=0.0)
        obs, _, terminated, truncated, _ = env.step(action)
        over |= terminated | truncated
        if over.all():
            break
    return env.task.figures()


def tour_row(figures: Mapping[str, np.ndarray], task: TourTask) -> dict[str, Any]:
    """What N runs brought, as JSON: the original's columns, with intervals, and every run.

    Errors are means over the ends of all segments of all runs, and over the falls. Energy, J, is
    the sum of |torque x joint speed| 0.02 s over joints and ticks, vibration that of the changes of
    the joints' accelerations, rad/s^2, from one tick to the next: means of completed runs.
    """
    survival = figures["time_s"]
    completed = figures["success"]
    runs, count = len(survival), int(completed.sum())
    told = count >= LEAST_COMPLETED * runs and count > 0
    row: dict[str, Any] = {
        "runs": runs, "first_run": int(figures["run"].min()), "episode_s": task.config.episode_s,
        "survival_s": round(float(survival.mean()), 3),
        "survival_ci95": [round(end, 3) for end in stratified_bootstrap([survival], np.mean)],
        "completed": count, "completed_rate": count / runs, "ci95": list(wilson(count, runs)),
        "position_error_m": _mean(figures["position_error"]),
        "heading_error_rad": _mean(figures["heading_error"]),
        "energy_j": _mean(figures["energy"][completed]) if told else None,
        "vibration_rad_s2": _mean(figures["vibration"][completed]) if told else None,
    }  # fmt: skip
    row["each"] = [
        {
            "run": int(figures["run"][i]), "survival_s": round(float(survival[i]), 3),
            "completed": bool(completed[i]),
            "position_error_m": _mean(figures["position_error"][i]),
            "heading_error_rad": _mean(figures["heading_error"][i]),
            "energy_j": _mean(figures["energy"][i]),
            "vibration_rad_s2": _mean(figures["vibration"][i]),
        }
        for i in range(runs)
    ]  # fmt: skip
    return row


def limits_of(config: TourConfig) -> dict[str, Any]:
    """The limits of the command, as JSON."""
    names = ("left", "yaw_rate", "speed_norm", "gain")
    return {"forward": list(config.forward), **{name: getattr(config, name) for name in names}}


def _mean(values: np.ndarray) -> float | None:
    finite = np.asarray(values)[np.isfinite(values)]
    return round(float(finite.mean()), 5) if finite.size else None


assert CONTROL_DT == 0.02, "the published timetable is in ticks of 20 ms"
