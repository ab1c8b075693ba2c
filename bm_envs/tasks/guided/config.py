"""Every number of the guided tasks, typed, with where it comes from.

"Published" is arXiv 2508.08241, sec. V and table III; what that leaves open is ours and says so.
Velocities and directions of a command are in the robot's own heading: x forward, y left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from bm_envs.errors import ConfigError, unknown_name
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
            _number(f"rewards.{name}", value, 0.0)
        if self.alive + self.task > 1.0:
            raise ConfigError(
                f"rewards.alive + rewards.task is {self.alive + self.task:g}, expected 1 at most."
            )


@dataclass(frozen=True)
class GuidedConfig:
    """What all tasks have in common."""

    task: ClassVar[str] = ""

    episode_s: float = 15.0
    """Seconds that count, after which the episode is truncated. Published for walk_perturb."""
    warm_up_s: float = 0.0
    """Seconds before those, with the command, the goal and the pushes off; a fall ends the episode
    there, too."""
    fall: Literal["strict", "head"] = "strict"
    """What ends the episode: `strict`: pelvis below 0.4 m or tilted by more than 60 degrees (ours:
    it sees a robot that sits down); `head`: head below 0.2 m (published). Both are reported."""
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
        _number("episode_s", self.episode_s, CONTROL_DT)
        _number("warm_up_s", self.warm_up_s, 0.0)
        if self.fall not in ("strict", "head"):
            raise ConfigError(f"fall is '{self.fall}', expected 'strict' or 'head'.")
        if not self.start_motions or isinstance(self.start_motions, str):
            raise ConfigError(
                f"start_motions is {self.start_motions!r}, expected one or more names of motions."
            )
        _number("start_travel", self.start_travel, 0.0)
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
        _range("push_speed", self.push_speed, 0.0)
        _number("push_interval_s", self.push_interval_s, CONTROL_DT)


@dataclass(frozen=True)
class WalkPerturbConfig(PushedConfig):
    """Keep walking while the root's velocity jumps every second."""

    task: ClassVar[str] = "walk_perturb"

    walk_speed: float = 0.2
    """m/s of horizontal speed that earn the whole task term: the least that counts as walking in
    the diffusion model's gates. Ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _number("walk_speed", self.walk_speed, 0.0, above=True)


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
            _number(name, getattr(self, name), 0.0)
        _number("velocity_std", self.velocity_std, 0.0, above=True)
        _number("yaw_rate_std", self.yaw_rate_std, 0.0, above=True)

    @property
    def command_steps(self) -> tuple[int, ...]:
        """Control steps of each command that an episode plays, the last perhaps not to its end."""
        raise NotImplementedError

    @property
    def segments(self) -> int:
        """Commands that an episode plays to their end, and that are judged."""
        raise NotImplementedError


@dataclass(frozen=True)
class JoystickConfig(CommandedConfig):
    """Follow commanded velocities, a few seconds each."""

    task: ClassVar[str] = "joystick"

    episode_s: float = 12.0
    """Published: 4 commands of 3 s."""
    segment_s: float = 3.0
    """How long a command lasts. Published."""
    random: bool = False
    """Draw each command from the ranges below, for training."""
    random_forward: tuple[float, float] = (-0.3, 0.6)
    random_left: tuple[float, float] = (0.0, 0.0)
    random_yaw_rate: tuple[float, float] = (-0.5, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _number("segment_s", self.segment_s, CONTROL_DT)
        _number("judged_s", self.judged_s, CONTROL_DT, self.segment_s)
        if self.episode_steps < self.segment_steps:
            raise ConfigError(
                f"episode_s is {self.episode_s}, expected segment_s, {self.segment_s}, or more."
            )
        for name in ("random_forward", "random_left", "random_yaw_rate"):
            _range(name, getattr(self, name))

    @property
    def segment_steps(self) -> int:
        """Control steps of a command."""
        return control_steps(self.segment_s)

    @property
    def command_steps(self) -> tuple[int, ...]:
        """Control steps of each command that an episode plays, the last perhaps not to its end."""
        return (self.segment_steps,) * -(-self.episode_steps // self.segment_steps)

    @property
    def segments(self) -> int:
        """Commands that an episode plays to their end, and that are judged."""
        return self.episode_steps // self.segment_steps


@dataclass(frozen=True)
class WaypointConfig(GuidedConfig):
    """Walk to a place and stop there."""

    task: ClassVar[str] = "waypoint"

    goal_distance: tuple[float, float] = (2.0, 5.0)
    """m, range of the uniform distance of the goal when time begins; its direction is uniform.
    Ours, as all of this class: the published task is a video."""
    goal_radius: float = 0.3
    """m of horizontal distance of the pelvis from the goal."""
    goal_speed: float = 0.2
    """m/s: within the radius and slower than this, a robot has arrived."""
    walk_speed: float = 0.5
    """m/s towards a far goal that earn the whole task term."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _range("goal_distance", self.goal_distance, 0.0)
        for name in ("goal_radius", "goal_speed", "walk_speed"):
            _number(name, getattr(self, name), 0.0, above=True)


@dataclass(frozen=True)
class ObstacleConfig(WaypointConfig):
    """Walk to a place behind vertical cylinders, which no link may touch."""

    task: ClassVar[str] = "obstacle"

    obstacle_count: tuple[int, int] = (1, 5)
    """Range of the uniform number that is asked for; as many as find room are placed, one at
    least. Ours, as all of this class."""
    obstacle_radius: tuple[float, float] = (0.15, 0.3)
    """m, range of the uniform radius."""
    spread: float = 1.0
    """m from the straight line to the goal within which obstacles stand; one stands on it."""
    gap: float = 0.8
    """m between the surfaces of any two obstacles: a robot is 0.6 m wide over its hands."""
    margin: float = 0.6
    """m from an obstacle's surface to the start and to the goal."""
    safe_clearance: float = 0.1
    """m of clearance from which on the task term is the waypoint's; it sinks to 0 at contact."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _range("obstacle_count", self.obstacle_count, 1)
        if not all(isinstance(value, int) for value in self.obstacle_count):
            raise ConfigError(f"obstacle_count is {self.obstacle_count}, expected two integers.")
        _range("obstacle_radius", self.obstacle_radius, 0.0)
        for name in ("spread", "gap", "margin"):
            _number(name, getattr(self, name), 0.0)
        _number("safe_clearance", self.safe_clearance, 0.0, above=True)
        least = 2.0 * (self.margin + self.obstacle_radius[1])
        if self.goal_distance[0] < least:
            raise ConfigError(
                f"goal_distance begins at {self.goal_distance[0]}, expected {least:g} m or more: "
                "an obstacle with its margins must fit between start and goal."
            )


@dataclass(frozen=True)
class CompositionConfig(PushedConfig, CommandedConfig, ObstacleConfig):
    """All in one trial: commands, and then a place behind obstacles, under pushes throughout.

    Ours, as all of this class: the published composition is a video.
    """

    task: ClassVar[str] = "composition"

    episode_s: float = 60.0
    """What the commands leave of it is for the way to the place: 34 s."""
    commands: tuple[tuple[float, float, float], ...] = (
        (0.5, 0.0, 0.0), (0.0, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.3, 0.0, 0.5),
    )  # fmt: skip
    """Commands like the joystick's: walk, stop, back, turn; once each."""
    command_s: tuple[float, ...] = (8.0, 6.0, 6.0, 6.0)
    """How long each lasts."""
    most_stop_speed: float = 0.15
    """m/s: a command weaker than `least_command` asks for a stop. It is followed if the root's
    displacement over the last `judged_s` is no more than it would be at this speed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.command_s) != len(self.commands):
            raise ConfigError(
                f"command_s has {len(self.command_s)} values, expected {len(self.commands)}: one "
                "for each of commands."
            )
        for number, seconds in enumerate(self.command_s):
            _number(f"command_s[{number}]", seconds, CONTROL_DT)
        _number("judged_s", self.judged_s, CONTROL_DT, min(self.command_s))
        _number("most_stop_speed", self.most_stop_speed, 0.0)
        if self.episode_steps <= self.way_begins:
            raise ConfigError(
                f"episode_s is {self.episode_s}, expected more than the {sum(self.command_s):g} "
                "of command_s: the rest is for the way."
            )

    @property
    def way_begins(self) -> int:
        """Control steps before the last phase, the way to the place."""
        return sum(control_steps(seconds) for seconds in self.command_s)

    @property
    def command_steps(self) -> tuple[int, ...]:
        """Control steps of each command, and of the way, on which none is given."""
        steps = tuple(control_steps(seconds) for seconds in self.command_s)
        return (*steps, self.episode_steps - self.way_begins)

    @property
    def segments(self) -> int:
        """Commands; all are judged, the way by its own rule."""
        return len(self.commands)


CONFIGS: dict[str, type[GuidedConfig]] = {
    kind.task: kind
    for kind in (
        WalkPerturbConfig, JoystickConfig, WaypointConfig, ObstacleConfig, CompositionConfig,
    )
}  # fmt: skip


def config_class(task: str) -> type[GuidedConfig]:
    """The class of a task's configuration.

    Raises:
        ConfigError: no such task.
    """
    if task not in CONFIGS:
        raise ConfigError(unknown_name("task", task, CONFIGS))
    return CONFIGS[task]


def control_steps(seconds: float) -> int:
    """The nearest number of control steps."""
    return round(seconds / CONTROL_DT)


def _number(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Raise unless `value` is a finite number from `low`, or above it, to `high`."""
    good = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
    if not good or (above and value == low):
        expected = f"a number above {low:g}" if above else f"{low:g} or more"
        if high < math.inf:
            expected = f"{low:g} to {high:g}"
        raise ConfigError(f"{name} is {value!r}, expected {expected}.")


def _range(name: str, value: Any, low: float = -math.inf) -> None:
    """Raise unless `value` is two finite numbers, ascending, the first not below `low`."""
    try:
        first, last = value
        good = math.isfinite(first) and math.isfinite(last) and low <= first <= last
    except (TypeError, ValueError):
        good = False
    if not good:
        least = "" if low == -math.inf else f" of {low:g} or more"
        raise ConfigError(f"{name} is {value!r}, expected two ascending numbers{least}.")
