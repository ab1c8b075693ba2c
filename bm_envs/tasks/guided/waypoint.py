"""waypoint: walk to a place and stop there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bm_envs.tasks.guided import rewards
from bm_envs.tasks.guided.base import GuidedTask, given_rows, length, turned
from bm_envs.tasks.guided.config import WaypointConfig
from bm_envs.tasks.guided.streams import Source, of_robots
from bm_envs.tasks.track.config import CONTROL_DT


class WaypointTask(GuidedTask):
    """Walk to a place and stop. Success: it was within the radius and slow, and has not fallen."""

    config: WaypointConfig
    options = (*GuidedTask.options, "goal")
    STATE = (*GuidedTask.STATE, "goal", "_goal_given", "arrived_s")

    def __init__(self, config: WaypointConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        # World, m. What is not yet known or reached is infinite and not NaN, which equals nothing:
        # Gymnasium compares infos.
        self.goal = np.full((num_envs, 2), np.inf)
        self._goal_given = np.zeros(num_envs, bool)
        self.arrived_s = np.full(num_envs, np.inf)
        self.way_begins = 0  # on the clock: when the goal begins to count

    def checked_options(self, asked: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        rows = super().checked_options(asked, count)
        if asked.get("goal") is not None:
            rows["goal"] = given_rows("goal", asked["goal"], count, (2,))
        return rows

    def clear(self, env_ids: np.ndarray, goal: np.ndarray | None = None) -> None:
        super().clear(env_ids)
        self.goal[env_ids] = np.inf if goal is None else goal
        self._goal_given[env_ids] = goal is not None
        self.arrived_s[env_ids] = np.inf

    def set_goal(self, goal: np.ndarray) -> None:
        """Want to be elsewhere from the coming step on; nobody has arrived at a goal that moved.

        Before the way to it begins it is where the goal will be then, and no other is drawn. Robots
        whose episode is over are left alone.

        Args:
            goal: `[2]`, or `[N, 2]` for each robot: world, m.
        """
        rows = given_rows("goal", goal, self.num_envs, (2,), label="goal")
        moves = ~self._over & (rows != self.goal).any(1)
        self.arrived_s[moves] = np.inf
        self.goal[moves] = rows[moves]
        self._goal_given |= self.clock < self.way_begins

    def prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super().prepare(env_ids, rng)
        begun = env_ids[self.clock[env_ids] == self.way_begins]
        if begun.size:
            self.set_out(begun, rng)

    def set_out(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw where robots `env_ids [M]`, whose way begins, are to go."""
        drawn = env_ids[~self._goal_given[env_ids]]
        draw = of_robots(rng, drawn)
        distance = draw.uniform(*self.config.goal_distance, drawn.size)
        angle = draw.uniform(-np.pi, np.pi, drawn.size)
        way = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        self.goal[drawn] = self.simulator.root_pos[drawn, :2] + way

    def way_to_goal(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """From the roots to the goals, m, world. `[M, 2]`."""
        return self.goal[env_ids] - self.simulator.root_pos[env_ids, :2]

    def measure(self, counts: np.ndarray) -> None:
        super().measure(counts)
        counts = counts & (self.clock > self.way_begins)
        near = length(self.way_to_goal()) <= self.config.goal_radius
        slow = length(self.simulator.root_lin_vel[:, :2]) < self.config.goal_speed
        arrives = counts & np.isinf(self.arrived_s) & near & slow & ~self.fell()
        self.arrived_s[arrives] = self.clock[arrives] * CONTROL_DT

    def is_won(self) -> np.ndarray:
        return np.isfinite(self.arrived_s)

    def task_reward(self) -> np.ndarray:
        way = self.way_to_goal()
        return rewards.approach(
            way, self.simulator.root_lin_vel[:, :2], length(way), self.config.walk_speed,
            self.config.goal_speed,
        )  # fmt: skip

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        way = self.way_to_goal(env_ids)
        return np.concatenate([turned(way, -self.heading(env_ids)), length(way)[:, None]], 1)

    def task_figures(self) -> dict[str, np.ndarray]:
        """`goal [N, 2]` in the world, `distance` from it, and `arrived_s`, infinite before that.

        Before the way begins all of them are infinite, but for a goal that was given.
        """
        return {
            **super().task_figures(),
            "goal": self.goal.copy(),
            "distance": length(self.way_to_goal()),
            "arrived_s": self.arrived_s.copy(),
        }

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        way = self.way_to_goal(np.array([env_id]))[0]
        length = max(float(np.hypot(*way)), 1e-9)
        return {
            "goal": np.array([*self.goal[env_id], self.config.goal_radius]),
            "arrow": self.arrow(env_id, way * min(1.0, 0.5 / length)),
        }
