"""walk_perturb: keep walking while the root's velocity jumps at regular times."""

from __future__ import annotations

from typing import Any

import numpy as np

from bm_envs.tasks.guided import rewards
from bm_envs.tasks.guided.base import GuidedTask, length
from bm_envs.tasks.guided.config import PushedConfig, WalkPerturbConfig
from bm_envs.tasks.guided.streams import Source, of_robots
from bm_envs.tasks.track.config import CONTROL_DT


class PushedTask(GuidedTask):
    """What tasks share in which the root's velocity jumps at regular times."""

    config: PushedConfig
    STATE = (*GuidedTask.STATE, "_jump", "push_velocity", "pushes")

    def __init__(self, config: PushedConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        self._jump = np.zeros((num_envs, 2))  # m/s and rad of the coming push; 0 m/s: none
        self.push_velocity = np.zeros((num_envs, 2))  # m/s, world, of the last push
        self.pushes = np.zeros(num_envs, np.int64)
        self._interval = max(1, round(config.push_interval_s / CONTROL_DT))

    def clear(self, env_ids: np.ndarray, **task_start: np.ndarray) -> None:
        super().clear(env_ids, **task_start)
        self._jump[env_ids] = self.push_velocity[env_ids] = 0.0
        self.pushes[env_ids] = 0

    def prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super().prepare(env_ids, rng)
        clock = self.clock[env_ids]
        due = env_ids[(clock >= 0) & (clock % self._interval == 0)]
        if due.size:
            draw = of_robots(rng, due)
            self._jump[due, 0] = draw.uniform(*self.config.push_speed, due.size)
            self._jump[due, 1] = draw.uniform(0.0, 2.0 * np.pi, due.size)

    def disturb(self) -> None:
        # By the clock and not by the speed, so that a push of 0 m/s is counted as well.
        due = np.flatnonzero(~self._over & (self.clock >= 0) & (self.clock % self._interval == 0))
        if due.size:
            speed, angle = self._jump[due].T
            self.robots.push(speed, angle, due)
            self.push_velocity[due] = np.stack([speed * np.cos(angle), speed * np.sin(angle)], 1)
            self.pushes[due] += 1

    def task_figures(self) -> dict[str, np.ndarray]:
        """`pushed`: by the step just done; `push_velocity [N, 2]`: of the last push, world, m/s."""
        return {
            **super().task_figures(),
            "pushed": (self.clock > 0) & ((self.clock - 1) % self._interval == 0),
            "push_velocity": self.push_velocity.copy(),
            "pushes": self.pushes.copy(),
        }


class WalkPerturbTask(PushedTask):
    """Keep walking while the root's velocity jumps every second. Success: no fall."""

    config: WalkPerturbConfig

    def task_reward(self) -> np.ndarray:
        speed = length(self.simulator.root_lin_vel[:, :2])
        return rewards.share(speed, self.config.walk_speed)

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        fresh = (self.clock[env_id] - 1) % self._interval < self._interval // 2
        if not fresh or not self.pushes[env_id]:
            return {}
        return {"arrow": self.arrow(env_id, self.push_velocity[env_id])}
