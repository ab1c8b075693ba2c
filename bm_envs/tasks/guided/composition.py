"""composition: commands, and then a place behind obstacles, under pushes throughout."""

from __future__ import annotations

from typing import Any

import numpy as np

from bm_envs.tasks.guided.base import GuidedTask, length
from bm_envs.tasks.guided.config import CompositionConfig
from bm_envs.tasks.guided.joystick import CommandedTask
from bm_envs.tasks.guided.obstacle import ObstacleTask
from bm_envs.tasks.guided.streams import Source
from bm_envs.tasks.guided.walk_perturb import PushedTask
from bm_envs.tasks.track.config import CONTROL_DT


class CompositionTask(PushedTask, CommandedTask, ObstacleTask):
    """Commands, each judged, and then a place behind obstacles, under pushes throughout.

    Success: at the end no fall, every command was followed, the place was reached and no obstacle
    touched. A command too weak to walk by asks for a stop: what counts is the displacement over its
    last seconds. Time, that of the arrival included, goes on from the first command.
    """

    config: CompositionConfig
    STATE = tuple(dict.fromkeys(
        (*PushedTask.STATE, *CommandedTask.STATE, *ObstacleTask.STATE, "_mark")
    ))  # fmt: skip

    def __init__(self, config: CompositionConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        self.way_begins = config.way_begins
        # Where the root was when the judged seconds of the present command began; world, m.
        self._mark = np.zeros((num_envs, 2))

    def on_way(self) -> np.ndarray:
        """Whether the coming step belongs to the last phase, the way to the place. `[N]`."""
        return self.clock >= self.way_begins

    def drawn_commands(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        commands = super().drawn_commands(env_ids, rng)
        commands[:, -1] = 0.0  # none on the way
        return commands

    def prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super().prepare(env_ids, rng)
        segment = self.segment_at(self.clock[env_ids])
        at = env_ids[self.clock[env_ids] == self.command_ends[segment] - self.judged_steps]
        self._mark[at] = self.simulator.root_pos[at, :2]

    def result_of(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, passed = super().result_of(env_ids, command)
        config = self.config
        weak = np.maximum(length(command[:, :2]), abs(command[:, 2])) < config.least_command
        moved = length(self.simulator.root_pos[env_ids, :2] - self._mark[env_ids])
        speed = moved / (self.judged_steps * CONTROL_DT)
        stopped = speed <= config.most_stop_speed
        return np.where(weak, speed, value), np.where(weak, stopped, passed)

    def is_won(self) -> np.ndarray:
        return GuidedTask.is_won(self) & super().is_won()

    def task_reward(self) -> np.ndarray:
        way = self.clock > self.way_begins
        return np.where(way, ObstacleTask.task_reward(self), super().task_reward())

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        way = self.on_way()[env_ids, None]
        none = ObstacleTask.no_command_values(self)
        place = np.where(way, ObstacleTask.command_values(self, env_ids), none)
        return np.concatenate([super().command_values(env_ids), place], 1)

    def no_command_values(self) -> np.ndarray:
        return np.concatenate([np.zeros((1, 3)), super().no_command_values()], 1)

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        kind = ObstacleTask if self.on_way()[env_id] else CommandedTask
        return kind.task_shown(self, env_id)
