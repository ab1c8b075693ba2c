"""obstacle: a waypoint behind vertical cylinders; `obstacles.py` says where and what touches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.tasks.guided import obstacles, rewards
from bm_envs.tasks.guided.base import given_rows, length, turned
from bm_envs.tasks.guided.config import ObstacleConfig
from bm_envs.tasks.guided.observations import ABSENT, NEAREST
from bm_envs.tasks.guided.streams import Source, of_robot
from bm_envs.tasks.guided.waypoint import WaypointTask


class ObstacleTask(WaypointTask):
    """A waypoint behind vertical cylinders. Success: that of the waypoint, and none was touched."""

    config: ObstacleConfig
    options = (*WaypointTask.options, "obstacles")
    STATE = (
        *WaypointTask.STATE, "obstacles", "count", "_obstacles_given", "least_clearance",
    )  # fmt: skip

    def __init__(self, config: ObstacleConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        n = num_envs
        self.obstacles = np.zeros((n, config.obstacle_count[1], 3))  # x, y, radius; world, m
        self.count = np.zeros(n, np.int64)  # of them that exist
        self._obstacles_given = np.zeros(n, bool)
        self.least_clearance = np.full(n, np.inf)

    def checked_options(self, asked: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        rows = super().checked_options(asked, count)
        if asked.get("obstacles") is None:
            return rows
        if "goal" not in rows:
            raise ConfigError("options have 'obstacles' without 'goal', expected both or neither.")
        most = self.obstacles.shape[1]
        shape = np.shape(asked["obstacles"])
        if len(shape) not in (2, 3) or shape[-1] != 3 or shape[-2] > most:
            raise ConfigError(
                f"options['obstacles'] has shape {shape}, expected (C, 3) or ({count}, C, 3) with "
                f"C of 0 to {most}: x, y, radius in m."
            )
        rows["obstacles"] = given_rows("obstacles", asked["obstacles"], count, shape[-2:])
        if (rows["obstacles"][..., 2] <= 0).any():
            raise ConfigError("options['obstacles'] has a radius of 0 or less, expected more.")
        return rows

    def clear(
        self, env_ids: np.ndarray, goal: np.ndarray | None = None,
        obstacles: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        super().clear(env_ids, goal)
        self._obstacles_given[env_ids] = obstacles is not None
        self.least_clearance[env_ids] = np.inf
        self.obstacles[env_ids], self.count[env_ids] = 0.0, 0
        if obstacles is not None:
            self.count[env_ids] = obstacles.shape[1]
            self.obstacles[env_ids, : obstacles.shape[1]] = obstacles

    def set_out(self, env_ids: np.ndarray, rng: Source) -> None:
        super().set_out(env_ids, rng)
        for env_id in env_ids[~self._obstacles_given[env_ids]]:
            start = self.simulator.root_pos[env_id, :2].astype(float)
            placed = obstacles.place(of_robot(rng, env_id), start, self.goal[env_id], self.config)
            self.count[env_id] = len(placed)
            self.obstacles[env_id, : len(placed)] = placed
        self.least_clearance[env_ids] = self.clearance(env_ids)

    def clearance(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Clearance of the nearest obstacle, m; infinite where there is none. `[M]`."""
        sim = self.simulator
        points = obstacles.body_points(sim.body_pos[env_ids], sim.body_axes[env_ids])
        of_points = obstacles.clearance(points, self.obstacles[env_ids], self.count[env_ids])
        return of_points.min(1)

    def measure(self, counts: np.ndarray) -> None:
        super().measure(counts)
        least = np.fmin(self.least_clearance, self.clearance())
        counts = counts & (self.clock > self.way_begins)
        self.least_clearance = np.where(counts, least, self.least_clearance)

    def is_won(self) -> np.ndarray:
        return super().is_won() & (self.least_clearance > 0)

    def task_reward(self) -> np.ndarray:
        clear = rewards.share(self.clearance(), self.config.safe_clearance)
        return super().task_reward() * clear

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        sim = self.simulator
        offset = self.obstacles[env_ids, :, :2] - sim.root_pos[env_ids, None, :2]
        offset = turned(offset, -self.heading(env_ids)[:, None])
        radius = self.obstacles[env_ids, :, 2]
        exists = np.arange(radius.shape[1]) < self.count[env_ids, None]
        surface = np.where(exists, length(offset) - radius, np.inf)
        order = np.argsort(surface, 1, kind="stable")[:, :NEAREST, None]
        rows = np.concatenate([offset, radius[..., None]], -1)
        rows = np.where(exists[..., None], rows, ABSENT)
        nearest = self._no_obstacles(len(rows))
        nearest[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
        return np.concatenate([super().command_values(env_ids), nearest.reshape(len(rows), -1)], 1)

    def no_command_values(self) -> np.ndarray:
        return np.concatenate([np.zeros((1, 3)), self._no_obstacles(1).reshape(1, -1)], 1)

    @staticmethod
    def _no_obstacles(rows: int) -> np.ndarray:
        return np.tile(np.array(ABSENT), (rows, NEAREST, 1))

    def task_figures(self) -> dict[str, np.ndarray]:
        """`clearance` of the nearest obstacle and `least_clearance` of the episode, in m."""
        return {
            **super().task_figures(),
            "clearance": self.clearance(),
            "least_clearance": self.least_clearance.copy(),
            "touched": ~(self.least_clearance > 0),
            "num_obstacles": self.count.copy(),
        }

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        return super().task_shown(env_id) | {
            "obstacles": self.obstacles[env_id, : self.count[env_id]].copy()
        }
