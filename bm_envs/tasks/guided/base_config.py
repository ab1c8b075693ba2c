"""What configurations of guided tasks share: common fields, checks, pushes and commands.

"Published" is arXiv 2508.08241, sec. V and table III; what that leaves open is ours and says so.
Velocities and directions of a command are in the robot's own heading: x forward, y left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from bm_envs.errors import ConfigError
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.track.config import CONTROL_DT, ActuationConfig, with_changes


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the two terms of every task's reward; a step pays at most their sum."""

    alive: float = 0.5
    """Weight of the 1 that a robot gets for not having fallen."""
    task: float = 0.5
    """Weight of the task's own term, which is in [0, 1]; `rewards.py` has the formulas."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            check_number(f"rewards.{name}", value, 0.0)
        if self.alive + self.task > 1.0:
            raise ConfigError(
                f"rewards.alive + rewards.task is {self.alive + self.task:g}, expected 1 at most."
            )


@dataclass(frozen=True)
class GuidedConfig:
    """What all tasks have in common."""

    task: ClassVar[str] = ""
    falls: ClassVar[tuple[str, ...]] = ("strict", "head")
    """What `fall` may be."""

    episode_s: float = 15.0
    """Seconds that count, after which the episode is truncated. Published for walk_perturb."""
    warm_up_s: float = 0.0
    """Seconds before those, with the command, the goal and the pushes off; a fall ends the episode
    there, too."""
    fall: Literal["strict", "head"] = "strict"
    """What ends the episode: `strict`: pelvis below 0.4 m or tilted by more than 60 degrees (ours:
    it sees a robot that sits down); `head`: head below 0.2 m (published). Both are reported. The
    tour has a third."""
    start_motions: tuple[str, ...] = ("walk", "walk_back", "turn_left", "turn_right")
    """Motions in whose frames robots start, each moving frame as often as every other."""
    start_travel: float = 0.2
    """m, or rad of heading: a frame moves if the root does so much in the second around it."""
    action_delay: int = 0
    """Control steps that an action takes to arrive."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    actuation: ActuationConfig = field(default_factory=ActuationConfig)
    """Drives; a diffusion model's come with its file."""
    model: ModelConfig = field(default_factory=ModelConfig)
    decimation: int = 4
    """Physics steps per control step."""

    def __post_init__(self) -> None:
        check_number("episode_s", self.episode_s, CONTROL_DT)
        check_number("warm_up_s", self.warm_up_s, 0.0)
        if self.fall not in self.falls:
            known = " or ".join(f"'{name}'" for name in self.falls)
            raise ConfigError(f"fall is '{self.fall}', expected {known}.")
        if not self.start_motions or isinstance(self.start_motions, str):
            raise ConfigError(
                f"start_motions is {self.start_motions!r}, expected one or more names of motions."
            )
        check_number("start_travel", self.start_travel, 0.0)
        if not isinstance(self.action_delay, int) or self.action_delay < 0:
            raise ConfigError(f"action_delay is {self.action_delay}, expected 0 or more steps.")
        control_dt = self.model.physics_dt * self.decimation
        if abs(control_dt - CONTROL_DT) > 1e-9:
            raise ConfigError(
                f"decimation * model.physics_dt is {control_dt:g} s, expected {CONTROL_DT} s."
            )

    @property
    def episode_steps(self) -> int:
        """Control steps that count."""
        return control_steps(self.episode_s)

    @property
    def warm_up_steps(self) -> int:
        """Control steps before those."""
        return control_steps(self.warm_up_s)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with fields replaced; nested groups are given as nested mappings.

        `config.override({"fall": "head", "rewards": {"alive": 0.2, "task": 0.8}})`
        """
        return with_changes(self, changes, "")


@dataclass(frozen=True)
class PushedConfig(GuidedConfig):
    """Jumps of the root's velocity at regular times."""

    push_speed: tuple[float, float] = (0.0, 0.5)
    """m/s, range of the uniform jump. Published; its direction, uniform in the plane, is ours."""
    push_interval_s: float = 1.0
    """Published; the first push comes when time begins to count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("push_speed", self.push_speed, 0.0)
        check_number("push_interval_s", self.push_interval_s, CONTROL_DT)


@dataclass(frozen=True)
class CommandedConfig(GuidedConfig):
    """Commanded velocities one after another, and when one has been followed."""

    commands: tuple[tuple[float, float, float], ...] = (
        (0.6, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.4, 0.0, 0.5), (0.4, 0.0, -0.5),
    )  # fmt: skip
    """m/s forward, m/s to the left, rad/s to the left, in this order, then from the first again.
    Published: forward, backward, turn left, turn right; the figures are ours."""
    judged_s: float = 1.5
    """The last seconds of a command over which the mean velocity is taken. Ours."""
    least_speed_share: float = 0.5
    """Share of the commanded speed that the mean velocity must have in the commanded direction:
    0.3 m/s forward, 0.15 m/s backward. Ours."""
    least_turn_share: float = math.radians(25.0) / (0.5 * 3.0)
    """Share of the commanded turn that the heading must change by over the command's time, in place
    of the rule on velocity: 25 degrees of the 86 of a turning command. Ours."""
    least_command: float = 0.1
    """m/s or rad/s. A weaker command cannot be told from standing and asks for nothing but staying
    up; only random ones are so weak."""
    velocity_std: float = 0.3
    """m/s, width of the reward for velocity. Ours: half of the strongest command."""
    yaw_rate_std: float = 0.5
    """rad/s, width of the reward for turning. Ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.commands:
            raise ConfigError("commands is empty, expected at least one.")
        for number, command in enumerate(self.commands):
            try:
                bad = len(command) != 3 or not all(math.isfinite(value) for value in command)
            except TypeError:
                bad = True
            if bad:
                raise ConfigError(
                    f"commands[{number}] is {command!r}, expected 3 finite numbers: m/s forward, "
                    "m/s left, rad/s left."
                )
        for name in ("least_speed_share", "least_turn_share", "least_command"):
            check_number(name, getattr(self, name), 0.0)
        check_number("velocity_std", self.velocity_std, 0.0, above=True)
        check_number("yaw_rate_std", self.yaw_rate_std, 0.0, above=True)

    @property
    def command_steps(self) -> tuple[int, ...]:
        """Control steps of each command that an episode plays, the last perhaps not to its end."""
        raise NotImplementedError

    @property
    def segments(self) -> int:
        """Commands that an episode plays to their end, and that are judged."""
        raise NotImplementedError


def control_steps(seconds: float) -> int:
    """The nearest number of control steps."""
    return round(seconds / CONTROL_DT)


def check_number(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Raise unless `value` is a finite number from `low`, or above it, to `high`."""
    good = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
    if not good or (above and value == low):
        expected = f"a number above {low:g}" if above else f"{low:g} or more"
        if high < math.inf:
            expected = f"{low:g} to {high:g}"
        raise ConfigError(f"{name} is {value!r}, expected {expected}.")


def check_range(name: str, value: Any, low: float = -math.inf) -> None:
    """Raise unless `value` is two finite numbers, ascending, the first not below `low`."""
    try:
        first, last = value
        good = math.isfinite(first) and math.isfinite(last) and low <= first <= last
    except (TypeError, ValueError):
        good = False
    if not good:
        least = "" if low == -math.inf else f" of {low:g} or more"
        raise ConfigError(f"{name} is {value!r}, expected two ascending numbers{least}.")
