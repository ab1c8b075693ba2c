"""Every number of the guided tasks, typed, with where it comes from: a class a task.

"Published" is arXiv 2508.08241, sec. V and table III; what that leaves open is ours and says so.
Velocities and directions of a command are in the robot's own heading: x forward, y left. What the
classes share, and the checks of values, are in `base_config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.guided.base_config import (
    CommandedConfig,
    GuidedConfig,
    PushedConfig,
    RewardConfig,
    check_number,
    check_range,
    control_steps,
)
from bm_envs.tasks.track.config import CONTROL_DT

__all__ = [
    "CONFIGS",
    "CommandedConfig",
    "CompositionConfig",
    "GuidedConfig",
    "JoystickConfig",
    "ObstacleConfig",
    "PushedConfig",
    "RewardConfig",
    "RunConfig",
    "TourConfig",
    "WalkPerturbConfig",
    "WaypointConfig",
    "config_class",
    "control_steps",
]


@dataclass(frozen=True)
class WalkPerturbConfig(PushedConfig):
    """Keep walking while the root's velocity jumps every second."""

    task: ClassVar[str] = "walk_perturb"

    walk_speed: float = 0.2
    """m/s of horizontal speed that earn the whole task term: the least that counts as walking in
    the diffusion model's gates. Ours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("walk_speed", self.walk_speed, 0.0, above=True)


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
        check_number("segment_s", self.segment_s, CONTROL_DT)
        check_number("judged_s", self.judged_s, CONTROL_DT, self.segment_s)
        if self.episode_steps < self.segment_steps:
            raise ConfigError(
                f"episode_s is {self.episode_s}, expected segment_s, {self.segment_s}, or more."
            )
        for name in ("random_forward", "random_left", "random_yaw_rate"):
            check_range(name, getattr(self, name))

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
class RunConfig(CommandedConfig):
    """Run straight ahead at one speed. Ours, as all of this class."""

    task: ClassVar[str] = "run"

    commands: tuple[tuple[float, float, float], ...] = ((2.0, 0.0, 0.0),)
    """The speed; of several commands the first."""
    judged_s: float = 10.0
    """The last seconds, over which the mean velocity is taken, all of a shorter episode; those
    before are for speeding up."""
    least_speed_share: float = 0.85
    """Share of the commanded speed that the mean velocity must have ahead: 1.7 m/s."""
    most_speed_share: float = 1.15
    """Share that it may have at most: 2.3 m/s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("judged_s", self.judged_s, CONTROL_DT)
        check_number("most_speed_share", self.most_speed_share, self.least_speed_share)

    @property
    def command_steps(self) -> tuple[int, ...]:
        """Control steps of the one command: all."""
        return (self.episode_steps,)

    @property
    def segments(self) -> int:
        """One command, which is judged."""
        return 1


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
        check_range("goal_distance", self.goal_distance, 0.0)
        for name in ("goal_radius", "goal_speed", "walk_speed"):
            check_number(name, getattr(self, name), 0.0, above=True)


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
        check_range("obstacle_count", self.obstacle_count, 1)
        if not all(isinstance(value, int) for value in self.obstacle_count):
            raise ConfigError(f"obstacle_count is {self.obstacle_count}, expected two integers.")
        check_range("obstacle_radius", self.obstacle_radius, 0.0)
        for name in ("spread", "gap", "margin"):
            check_number(name, getattr(self, name), 0.0)
        check_number("safe_clearance", self.safe_clearance, 0.0, above=True)
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
            check_number(f"command_s[{number}]", seconds, CONTROL_DT)
        check_number("judged_s", self.judged_s, CONTROL_DT, min(self.command_s))
        check_number("most_stop_speed", self.most_stop_speed, 0.0)
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


@dataclass(frozen=True)
class TourConfig(GuidedConfig):
    """Waypoints with a heading, five seconds each, with arms that somebody else moves and punches.

    "Published" is here rhoyn/teleop-walking-benchmark (README at 0b2ea7a); see `docs/tour.md`.
    """

    task: ClassVar[str] = "tour"
    falls: ClassVar[tuple[str, ...]] = ("pelvis", "strict", "head")

    episode_s: float = 90.0
    """Published."""
    fall: Literal["strict", "head", "pelvis"] = "pelvis"  # pyright: ignore[reportIncompatibleVariableOverride]
    """`pelvis`: pelvis below 0.2 m (published: kneeling is no fall); others as in every task."""
    segment_s: float = 5.0
    """How long a waypoint is the target, whatever happens. Published."""
    arms: Literal["moved", "free"] = "moved"
    """Who gives the targets of the arms' 14 joints: `moved`: a random walk (published); `free`: the
    policy."""
    punch: float = 500.0
    """N, ceiling of the punches, one a segment; each has half of it to all of it. Published."""
    punch_ramp_s: float = 60.0
    """Seconds in which the ceiling grows from a third of `punch` to all of it. Published. 0: it is
    all of it from the start (ours)."""
    forward: tuple[float, float] = (-0.5, 1.0)
    """m/s, range of the command forward. The limits are the policy's: what it was trained for."""
    left: float = 0.5
    """m/s, largest command to a side."""
    yaw_rate: float = 1.0
    """rad/s, largest commanded turn."""
    speed_norm: float = 0.0
    """m/s that the command in the plane is scaled down to; 0: it is not."""
    gain: float = 1.5
    """1/s, commanded velocity per m of distance and rad of heading. Published."""
    near: tuple[float, float] = (0.10, 0.20)
    """m: no velocity is commanded once within the first, until beyond the second. Published."""
    facing: tuple[float, float] = (0.05, 0.12)
    """rad: the same of the turn. Published."""
    foot_friction: float = 1.0
    """Sliding coefficient of the feet. Published."""
    velocity_std: float = 0.3
    """m/s, width of the reward for velocity. Ours, as the joystick's."""
    yaw_rate_std: float = 0.5
    """rad/s, width of the reward for turning. Ours."""
    model: ModelConfig = field(
        default_factory=lambda: ModelConfig(physics_dt=0.002, iterations=100, self_collision=True)
    )
    """Published: 2 ms, 100 iterations, links meet each other; shapes and masses are ours."""
    decimation: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("segment_s", self.segment_s, 0.5)
        if self.arms not in ("moved", "free"):
            raise ConfigError(f"arms is '{self.arms}', expected 'moved' or 'free'.")
        for name in ("punch", "punch_ramp_s", "left", "yaw_rate", "speed_norm", "gain"):
            check_number(name, getattr(self, name), 0.0)
        check_range("forward", self.forward)
        for name in ("near", "facing"):
            check_range(name, getattr(self, name), 0.0)
        check_number("foot_friction", self.foot_friction, 0.0)
        check_number("velocity_std", self.velocity_std, 0.0, above=True)
        check_number("yaw_rate_std", self.yaw_rate_std, 0.0, above=True)

    @property
    def segment_steps(self) -> int:
        """Control steps of a waypoint."""
        return control_steps(self.segment_s)

    @property
    def segments(self) -> int:
        """Waypoints of an episode, the last perhaps not to its end."""
        return -(-self.episode_steps // self.segment_steps)


CONFIGS: dict[str, type[GuidedConfig]] = {
    kind.task: kind
    for kind in (
        WalkPerturbConfig, JoystickConfig, RunConfig, WaypointConfig, ObstacleConfig,
        CompositionConfig, TourConfig,
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
