"""joystick: follow commanded velocities, each judged at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from bm_envs.tasks.guided import rewards
from bm_envs.tasks.guided.base import GuidedTask, given_rows, length, turned
from bm_envs.tasks.guided.config import CommandedConfig, JoystickConfig
from bm_envs.tasks.guided.streams import Source, of_robots
from bm_envs.tasks.track.config import CONTROL_DT


class CommandedTask(GuidedTask):
    """What tasks share in which commanded velocities follow one another, each judged at its end.

    A command that turns is followed if the heading changes enough in its sense over its time, any
    other if the mean velocity over its last seconds is fast enough in its direction.
    """

    config: CommandedConfig
    STATE = (
        *GuidedTask.STATE, "commands", "_commands_given", "segment_value", "segment_passed",
        "_yaw", "_turn", "_way",
    )  # fmt: skip

    def __init__(self, config: CommandedConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        n = num_envs
        self._steps = np.array(config.command_steps)
        self.command_ends = self._steps.cumsum()  # on the clock
        shortest = self._steps[: config.segments].min()
        self.judged_steps = min(shortest, round(config.judged_s / CONTROL_DT))
        self.commands = np.zeros((n, len(self._steps), 3))
        self._commands_given = np.zeros(n, bool)
        self.segment_value = np.zeros((n, config.segments))
        self.segment_passed = np.zeros((n, config.segments), bool)
        # Last heading, rad; of the present segment: its change so far, sum of judged velocities.
        self._yaw, self._turn, self._way = np.zeros(n), np.zeros(n), np.zeros((n, 2))

    def clear(self, env_ids: np.ndarray, **task_start: np.ndarray) -> None:
        super().clear(env_ids, **task_start)
        self.segment_value[env_ids] = 0.0
        self.segment_passed[env_ids] = False
        self._turn[env_ids] = self._way[env_ids] = 0.0
        self.commands[env_ids] = 0.0
        self._commands_given[env_ids] = False

    def begin(self, env_ids: np.ndarray, rng: Source) -> None:
        super().begin(env_ids, rng)
        drawn = env_ids[~self._commands_given[env_ids]]
        self.commands[drawn] = self.drawn_commands(drawn, rng)
        self._yaw[env_ids] = self.heading(env_ids)

    def drawn_commands(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        """The commands of robots `env_ids [M]`, whose time begins. `[M or 1, P, 3]`."""
        commands = np.array(self.config.commands, float)
        return commands[None, np.arange(len(self._steps)) % len(commands)]

    def segment_at(self, clock: np.ndarray) -> np.ndarray:
        """Which command it is in the step that follows `clock [M]`; after all, the last. `[M]`."""
        return np.searchsorted(self.command_ends, clock, "right").clip(0, len(self._steps) - 1)

    def measure(self, counts: np.ndarray) -> None:
        super().measure(counts)
        segment = self.segment_at(self.clock - 1)  # of the step just done
        steps = self._steps[segment]
        done = self.clock - (self.command_ends[segment] - steps)  # this step included
        yaw = self.heading()
        change = (yaw - self._yaw + np.pi) % (2 * np.pi) - np.pi
        self._yaw = np.where(counts, yaw, self._yaw)
        first = done == 1
        self._turn = np.where(counts, np.where(first, 0.0, self._turn) + change, self._turn)
        velocity = np.where((done > steps - self.judged_steps)[:, None], self.own_velocity(), 0.0)
        way = np.where(first[:, None], 0.0, self._way) + velocity
        self._way = np.where(counts[:, None], way, self._way)
        ended = np.flatnonzero(counts & (done == steps) & (segment < self.config.segments))
        if ended.size:
            number = segment[ended]
            value, passed = self.result_of(ended, self.commands[ended, number])
            self.segment_value[ended, number] = value
            self.segment_passed[ended, number] = passed

    def result_of(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What robots `env_ids [M]` reached of `command [M, 3]`; is it enough? `[M]` each."""
        value, least = self.reached(env_ids, command)
        return value, value >= least

    def reached(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What robots `env_ids [M]` reached of `command [M, 3]`, and what it takes. `[M]` each.

        The command is that of the step just done.
        """
        config = self.config
        rate, speed = command[:, 2], length(command[:, :2])
        turns = abs(rate) >= config.least_command
        along = (self._way[env_ids] * command[:, :2]).sum(1) / np.maximum(speed, 1e-9)
        value = np.where(turns, self._turn[env_ids] * np.sign(rate), along / self.judged_steps)
        steps = self._steps[self.segment_at(self.clock[env_ids] - 1)]
        turn = config.least_turn_share * abs(rate) * steps * CONTROL_DT
        asks = turns | (speed >= config.least_command)
        least = np.where(asks, np.where(turns, turn, config.least_speed_share * speed), -np.inf)
        return value, least

    def is_won(self) -> np.ndarray:
        return super().is_won() & self.segment_passed.all(1)

    def task_reward(self) -> np.ndarray:
        command = self.commands[np.arange(self.num_envs), self.segment_at(self.clock - 1)]
        return rewards.velocity_error_exp(
            self.own_velocity(), self.yaw_rate(), command, self.config.velocity_std,
            self.config.yaw_rate_std,
        )  # fmt: skip

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        rows = np.arange(self.num_envs)[env_ids]
        return self.commands[rows, self.segment_at(self.clock[env_ids])]

    def command(self) -> np.ndarray:
        """The command of the coming step: m/s forward and left, rad/s left. `[N, 3]`."""
        now = CommandedTask.command_values(self, slice(None))
        return np.where(self.clock[:, None] >= 0, now, 0.0)

    def task_figures(self) -> dict[str, np.ndarray]:
        """Command `[N, 3]` of the coming step, own velocity `[N, 2]`, and what segments brought.

        `segment_value [N, S]` is what the first `segments_done` reached: m/s in the commanded
        direction, or rad of heading in the commanded sense; 0 of the others.
        """
        done = np.searchsorted(self.command_ends, self.clock, "right").clip(0, self.config.segments)
        return {
            **super().task_figures(),
            "command": self.command(),
            "velocity": self.own_velocity(),
            "yaw_rate": self.yaw_rate(),
            "segment": self.segment_at(self.clock),
            "segments_done": done,
            "segment_value": self.segment_value.copy(),
            "segment_passed": self.segment_passed.copy(),
        }

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        """Where the command takes the robot in a second, turn included."""
        forward, left, rate = self.command()[env_id]
        middle = self.heading(np.array([env_id]))[0] + 0.5 * rate
        chord = np.sinc(0.5 * rate / np.pi) * np.array([forward, left])  # of an arc of 1 s
        return {"arrow": self.arrow(env_id, turned(chord, middle))}


class JoystickTask(CommandedTask):
    """Follow commanded velocities. Success: every command played to its end was followed."""

    config: JoystickConfig

    def drawn_commands(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        config = self.config
        if not config.random:
            return super().drawn_commands(env_ids, rng)
        ranges = (config.random_forward, config.random_left, config.random_yaw_rate)
        shape = (env_ids.size, len(self._steps))
        draw = of_robots(rng, env_ids)
        return np.stack([draw.uniform(*bounds, shape) for bounds in ranges], -1)

    def set_command(self, command: np.ndarray) -> None:
        """Want something else from the coming step on, to the end of the episode.

        In the warm-up it is what will be wanted when time begins, in place of the task's own
        commands. A segment is judged by the command at its end. Robots whose episode is over are
        left alone.

        Args:
            command: `[3]`, or `[N, 3]` for each robot: m/s forward and left, rad/s left.
        """
        rows = given_rows("command", command, self.num_envs, (3,), label="command")
        coming = np.arange(len(self._steps)) >= self.segment_at(self.clock)[:, None]
        coming &= ~self._over[:, None]
        np.copyto(self.commands, rows[:, None], where=coming[..., None])
        self._commands_given |= self.clock < 0
