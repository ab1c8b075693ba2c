"""Every number of the tracking task, typed, with where it comes from.

"Published" means the public code of BeyondMimic stage 1 (`HybridRobotics/whole_body_tracking`,
commit cd65172) and the port in `mjlab` 1.6.0. Where the two differ or are defective, the default
here is the repaired form and the field's text names the other one;
`TrackConfig.preset("published")` turns the published choices on.

One file because every number of the task is looked up here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.robots.observation_terms import POLICY_TERMS
from bm_envs.robots.registry import robot_named
from bm_envs.robots.robot import order_map
from bm_envs.tasks.settings import check_kinds, with_changes

CONTROL_DT = 0.02  # s; motions are 50 frames per second, one frame per control step
# Of `TrackConfig.preset`.
PRESETS = ("train", "published", "v4", "laptop", "clip", "clip-perturbed", "robust")
# What an action of 1 stands for in the preset `laptop`, in published raw actions. Ordinary trainers
# begin with noise of unit size: of published actions that alone costs 0.116 a step on average
# (0.1 /s * 0.02 s * 29 joints * variance 2 of a change), where perfect tracking pays 0.1.
LAPTOP_ACTION_UNIT = 0.4


@dataclass(frozen=True)
class RewardConfig:
    """Weights (per second) and widths of the reward terms.

    Each step pays weight * value * control_dt. Source: whole_body_tracking, `tracking_env_cfg.py`.
    """

    anchor_pos: float = 0.5
    """Weight of `exp(-|p_ref - p|^2 / anchor_pos_std^2)` of the anchor in the world."""
    anchor_pos_std: float = 0.3
    """Error of the anchor's position that pays 1/e of the reward, m."""
    anchor_ori: float = 0.5
    """Weight of `exp(-angle^2 / anchor_ori_std^2)` of the anchor in the world."""
    anchor_ori_std: float = 0.4
    """Error of the anchor's orientation that pays 1/e of the reward, rad."""
    body_pos: float = 1.0
    """Weight of the anchored positions of the tracked bodies."""
    body_pos_std: float = 0.3
    """Error of the bodies' positions that pays 1/e of the reward, m."""
    body_ori: float = 1.0
    """Weight of the anchored orientations of the tracked bodies."""
    body_ori_std: float = 0.4
    """Error of the bodies' orientations that pays 1/e of the reward, rad."""
    body_lin_vel: float = 1.0
    """Weight of the linear velocities of the tracked bodies."""
    body_lin_vel_std: float = 1.0
    """Error of the bodies' velocities that pays 1/e of the reward, m/s."""
    body_ang_vel: float = 1.0
    """Weight of the angular velocities of the tracked bodies."""
    body_ang_vel_std: float = 3.14
    """Error of the bodies' angular velocities that pays 1/e of the reward, rad/s."""
    action_rate: float = -0.1
    """Weight of the summed squared change of the raw action, taken as within -100 and 100."""
    joint_limit: float = -10.0
    """Weight of the radians by which joints are beyond their soft limits, summed."""
    contact: float = -0.1
    """Weight of the contact term; mjlab has -10 for `contact_term="self"`."""
    contact_term: Literal["links", "self_links", "self", "none"] = "links"
    """`links`: bodies other than feet and hands that press on anything (whole_body_tracking; it
    taxes motions on the floor). `self_links`: those that press on others of the robot's own (the
    paper's fourth version). `self`: physics steps with a self-collision (mjlab). The last two need
    `model.self_collision`."""
    contact_threshold: float = 1.0
    """N; a smaller net force is no contact. mjlab's `self` term has 10."""
    foot_contact: float = 0.0
    """Weight, negative for a penalty, of the number of feet that press on something, by
    `contact_threshold`, where the reference's stand free, or the other way round. Ours, as the two
    below; 0: no such term."""
    action_accel: float = 0.0
    """Weight, negative for a penalty, of the summed squared second difference of the raw action."""
    joint_accel: float = 0.0
    """Weight, negative for a penalty, of the summed squared change of the joints' velocities in a
    step, over its time, (rad/s^2)^2."""


@dataclass(frozen=True)
class NoiseConfig:
    """Half-widths of the uniform noise on each policy observation. Source: whole_body_tracking."""

    motion_anchor_pos_b: float = 0.25
    """Each coordinate of the reference anchor's position, m."""
    motion_anchor_ori_b: float = 0.05
    """Each element of the reference anchor's two rotation columns."""
    base_lin_vel: float = 0.5
    """Each component of the pelvis' velocity, m/s."""
    base_ang_vel: float = 0.2
    """Each component of the pelvis' angular velocity, rad/s."""
    joint_pos: float = 0.01
    """Each joint angle, rad."""
    joint_vel: float = 0.5
    """Each joint velocity, rad/s."""


@dataclass(frozen=True)
class ResetConfig:
    """Half-widths of the uniform noise on the start state. Source: whole_body_tracking."""

    pos: tuple[float, float, float] = (0.05, 0.05, 0.01)
    """Root position, m."""
    rot: tuple[float, float, float] = (0.1, 0.1, 0.2)
    """Roll, pitch, yaw turned on from the world side, rad."""
    lin_vel: tuple[float, float, float] = (0.5, 0.5, 0.2)
    """Root linear velocity, m/s."""
    ang_vel: tuple[float, float, float] = (0.52, 0.52, 0.78)
    """Root angular velocity, world axes, rad/s."""
    joint_pos: float = 0.1
    """Joint angles, rad."""
    joint_clip: Literal["hard", "soft"] = "hard"
    """Joint range the start is clipped to. Published: `soft`, which moves straight knees off the
    reference."""
    lift_feet: bool = True
    """Raise the root until no foot is under the ground. Published: off, feet start in the floor."""


@dataclass(frozen=True)
class RandomizationConfig:
    """Domain randomization of the robot. Source: whole_body_tracking and mjlab."""

    foot_friction: tuple[float, float] = (0.3, 1.2)
    """Sliding friction of the feet, one value a robot (mjlab; PhysX: static, too, 0.3 to 1.6)."""
    joint_offset: float = 0.01
    """Half-width of the error of the default pose, rad, per joint: in the action offset and in the
    observed joint positions alike (whole_body_tracking)."""
    ankle_offset: float | None = None
    """`joint_offset` of the ankles' pitch and roll; None: as of all joints."""
    torso_com: tuple[float, float, float] = (0.025, 0.05, 0.05)
    """Half-widths of the shift of the torso's centre of mass, m."""
    when: Literal["startup", "reset"] = "startup"
    """Draw once per robot (published) or anew at every reset."""
    action_delay: int = 0
    """Control steps that pass at most before an action is applied; every episode draws its own
    number, 0 included. BeyondMimic's second stage wants 1: inference takes a control step."""


@dataclass(frozen=True)
class PushConfig:
    """Random pushes: the root's velocity jumps. Source: whole_body_tracking."""

    interval_s: tuple[float, float] = (1.0, 3.0)
    """Each robot draws its own time to the next push, s."""
    lin_vel: tuple[float, float, float] = (0.5, 0.5, 0.2)
    """Half-widths, m/s, world axes."""
    ang_vel: tuple[float, float, float] = (0.52, 0.52, 0.78)
    """Half-widths, rad/s, world axes."""


@dataclass(frozen=True)
class SamplingConfig:
    """Where in the clips episodes start; `motion/sampler.py` has the rule."""

    mode: Literal["uniform", "adaptive", "first"] = "uniform"
    """`uniform` over all frames of all clips; `adaptive` favours the seconds before failures;
    `first`: always the first frame."""
    bin_s: float = 1.0
    """Length of a bin, s."""
    statistic: Literal["rate", "count"] = "rate"
    """Failures per visit, or their plain count (published: grows with visits, so the often visited
    gets more)."""
    alpha: float = 0.001
    """Moving-average share of the present control step. With N robots and S bins a bin has
    N / (alpha S) visits in memory: of many minutes choose less, or most rates are nobody's."""
    kernel: int = 3
    """Bins over which a failure spreads to *earlier* starts. Published: 1, no spreading."""
    decay: float = 0.8
    """Factor of the kernel from bin to bin."""
    uniform_ratio: float = 0.1
    """Share of uniform starts."""
    mix: Literal["convex", "additive"] = "convex"
    """`convex`: exactly `uniform_ratio` of starts are uniform. `additive` (published): the ratio
    over the number of bins is added to each bin's statistic, which of counts leaves far less; and
    the kernel meets a clip's last bin again behind its end."""


@dataclass(frozen=True)
class ActuationConfig:
    """Drives, `[J]` each in the robot table's order; None is the robot table's value."""

    default_joint_pos: tuple[float, ...] | None = None
    """q0, rad: joint target = q0 + action_scale * action."""
    action_scale: tuple[float, ...] | None = None
    """rad per unit of action."""
    stiffness: tuple[float, ...] | None = None
    """N m/rad."""
    damping: tuple[float, ...] | None = None
    """N m s/rad."""


@dataclass(frozen=True)
class TrackConfig:
    """The tracking task. `TrackConfig()` is the training task with every repair on."""

    observations: tuple[str, ...] = POLICY_TERMS
    """Terms of the policy's observation, in order."""
    episode_s: float | None = 10.0
    """Truncate after so many seconds; None: only at the end of the clip."""
    start: SamplingConfig = field(default_factory=SamplingConfig)
    """Where episodes start."""
    failure: Literal["train", "pelvis", "none"] = "train"
    """`train`: torso height 0.25 m, torso tilt 0.8, feet or hands 0.25 m off in height. `pelvis`:
    pelvis height 0.25 m, pelvis tilt 0.8 (the evaluation protocols). A diverged robot always
    fails."""
    failure_height: float = 0.25
    """Largest difference in height from the reference, m."""
    failure_tilt: float = 0.8
    """Largest difference of the z components of gravity's unit vector in the body's frame."""
    failure_rotation: float | None = None
    """rad, the largest angle of the whole rotation, yaw included, between that body and its
    reference, in place of `failure_tilt`; None: the tilt counts. The fourth version has 0.8."""
    failure_distance: float | None = None
    """m, horizontal, of the anchor from its reference, for `failure="train"`; None (published): no
    such rule. Beyond half a metre the position reward has no slope left, so a robot that lags or
    drifts is never called back. The published code has an unused rule to this end, in 3-D."""
    noise: bool = True
    """Observation noise on the policy's observation (never on the critic's)."""
    reset_noise: bool = True
    """Noise on the start state."""
    randomization: bool = True
    """Domain randomization."""
    pushes: bool = True
    """Random pushes."""
    lead: int = 1
    """Frames by which the shown reference leads: at frame t it is t + lead, the frame to be reached
    (published: 1)."""
    stale_targets: bool = False
    """Anchored targets from the anchor before the step (published) in place of after it."""
    rotate_velocity_targets: bool = False
    """Turn velocity targets by the heading difference as pose targets are. Published: off."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    noise_level: NoiseConfig = field(default_factory=NoiseConfig)
    reset: ResetConfig = field(default_factory=ResetConfig)
    randomize: RandomizationConfig = field(default_factory=RandomizationConfig)
    push: PushConfig = field(default_factory=PushConfig)
    actuation: ActuationConfig = field(default_factory=ActuationConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    decimation: int = 4
    """Physics steps per control step."""

    def __post_init__(self) -> None:
        check_kinds(self)
        unknown = [name for name in self.observations if name not in POLICY_TERMS]
        if unknown:
            raise ConfigError(unknown_name("observation", unknown[0], POLICY_TERMS))
        if len(set(self.observations)) != len(self.observations) or not self.observations:
            raise ConfigError("observations must name each term once, and at least one.")
        if self.episode_s is not None and not CONTROL_DT <= self.episode_s < float("inf"):
            raise ConfigError(f"episode_s is {self.episode_s}, expected {CONTROL_DT} s or more.")
        for name, (low, high) in {
            "push.interval_s": self.push.interval_s,
            "randomize.foot_friction": self.randomize.foot_friction,
        }.items():
            if not 0 < low <= high < float("inf"):
                raise ConfigError(
                    f"{name} is {(low, high)}, expected two positive numbers, the smaller first."
                )
        if self.failure_distance is not None and not self.failure_distance > 0:
            raise ConfigError(
                f"failure_distance is {self.failure_distance}, expected None or a positive number."
            )
        if self.failure_rotation is not None and not 0 < self.failure_rotation < math.pi:
            raise ConfigError(
                f"failure_rotation is {self.failure_rotation}, expected None or an angle between 0 "
                "and pi, rad."
            )
        if self.lead not in (0, 1):
            raise ConfigError(f"lead is {self.lead}, expected 0 or 1.")
        control_dt = self.model.physics_dt * self.decimation
        if abs(control_dt - CONTROL_DT) > 1e-9:
            raise ConfigError(
                f"decimation * model.physics_dt is {control_dt:g} s, expected {CONTROL_DT} s."
            )
        if self.randomize.action_delay < 0:
            raise ConfigError(
                f"randomize.action_delay is {self.randomize.action_delay}, expected 0 or more."
            )
        term = self.rewards.contact_term
        if term in ("self", "self_links") and not self.model.self_collision:
            raise ConfigError(f"rewards.contact_term='{term}' needs model.self_collision=True.")
        if self.start.kernel < 1 or not 0 < self.start.bin_s:
            raise ConfigError("start.kernel must be 1 or more and start.bin_s positive.")
        for name, value in dataclasses.asdict(self.actuation).items():
            joints = self.model.table.num_joints
            if value is not None and len(value) != joints:
                raise ConfigError(f"actuation.{name} has {len(value)} values, expected {joints}.")

    @staticmethod
    def preset(name: str) -> TrackConfig:
        """A named configuration.

        Args:
            name: `train` (the default), `published` (train with the published choices where ours
                are repairs), `v4` (the paper's fourth version: `v4_task`), `laptop` (train where
                samples are few, with any PPO: `laptop_task` with an action of 1 for 0.4 published
                ones), `clip` (one deterministic run per clip: no noise, pushes or randomization,
                from the first frame to the last), `clip-perturbed` (the same from starts within
                `perturbed_starts` of the first frame) or `robust` (the same with all of them on).
        """
        if name == "train":
            return TrackConfig()
        if name == "published":
            return TrackConfig(
                start=SamplingConfig(mode="adaptive", statistic="count", kernel=1, mix="additive"),
                stale_targets=True,
                reset=ResetConfig(joint_clip="soft", lift_feet=False),
            )
        if name == "v4":
            return v4_task()
        if name == "laptop":
            return laptop_task().with_action_unit(LAPTOP_ACTION_UNIT)
        evaluation = TrackConfig(
            episode_s=None, start=SamplingConfig(mode="first"), failure="pelvis"
        )
        if name == "robust":
            return evaluation
        clip = dataclasses.replace(
            evaluation, noise=False, reset_noise=False, randomization=False, pushes=False
        )
        if name == "clip":
            return clip
        if name == "clip-perturbed":
            return dataclasses.replace(clip, reset_noise=True, reset=perturbed_starts())
        raise ConfigError(unknown_name("preset", name, PRESETS))

    def with_action_unit(self, unit: float) -> TrackConfig:
        """The same task in another unit of action: 1 moves and costs what `unit` does here.

        The joint target stays `q0 + action_scale * action`, so that a policy that learns here is
        one like any other: its file holds the `action_scale` made here.

        Args:
            unit: in (0, 1] for trainers whose noise is too large at first.
        """
        if not 0 < unit < float("inf"):
            raise ConfigError(f"unit is {unit}, expected a positive number.")
        drive, reward = self.actuation, self.rewards
        table = self.model.table.action_scale.tolist()
        scale = table if drive.action_scale is None else drive.action_scale
        return dataclasses.replace(
            self,
            actuation=dataclasses.replace(drive, action_scale=tuple(unit * s for s in scale)),
            rewards=dataclasses.replace(
                reward, action_rate=reward.action_rate * unit**2,
                action_accel=reward.action_accel * unit**2,
            ),
        )  # fmt: skip

    def on_robot(self, name: str) -> TrackConfig:
        """The same task for another robot; values per joint go along by the joints' names.

        Raises:
            ConfigError: there is no such robot, or it has joints that values are missing for.
        """
        if name == self.model.robot:
            return self
        robot = robot_named(name)
        drives = dataclasses.asdict(self.actuation)
        if any(values is not None for values in drives.values()):
            taken = order_map(self.model.table.joint_names, robot.joint_names)
            drives = {
                key: None if values is None else tuple(values[i] for i in taken)
                for key, values in drives.items()
            }
        return dataclasses.replace(
            self, actuation=ActuationConfig(**drives),
            model=dataclasses.replace(self.model, robot=name),
        )  # fmt: skip

    def override(self, changes: Mapping[str, Any]) -> TrackConfig:
        """A copy with fields replaced; nested groups are given as nested mappings.

        `config.override({"pushes": False, "model": {"feet": "capsules"}})`
        """
        return with_changes(self, changes, "")


def perturbed_starts() -> ResetConfig:
    """Starts of the protocol `clip-perturbed`: half of the training's noise on the start state.

    A policy that controls brings such starts back to the reference; what only replays actions of
    one run does not, since walking without feedback is not stable.
    """
    return ResetConfig(
        pos=(0.025, 0.025, 0.005), rot=(0.05, 0.05, 0.1), lin_vel=(0.25, 0.25, 0.1),
        ang_vel=(0.26, 0.26, 0.39), joint_pos=0.05,
    )  # fmt: skip


def v4_task() -> TrackConfig:
    """The task of the paper's fourth version, arXiv 2508.08241v4, sec. S1 and tables S1 and S2.

    What it does not print is as in `train`: observation noise, an episode's length, physics, and
    the repairs. What it leaves open, or prints in two ways:

    - Ankles' default angles are off by up to 0.1 rad (text; the table has 0.01 for all joints).
    - The change of the action is squared (table; the text has the norm itself).
    - Of a bin's "failure rate" no denominator is printed: failures per visit, in the bin of the
      failure. Bins behind a clip's last one count as that one (whole_body_tracking).
    - Friction has the static range, is the feet's alone, and holds while they slide: MuJoCo has one
      coefficient, and neither a dynamic one (0.3 to 1.2) nor restitution (0 to 0.5).
    - The observed columns of the anchor are of `R_a^T R_ref` (code; the paper has `R_ref R_a^T`).
    """
    return TrackConfig(
        start=SamplingConfig(mode="adaptive", kernel=3, decay=0.8, mix="additive"),
        failure_rotation=0.8,
        rewards=RewardConfig(contact_term="self_links"),
        reset=ResetConfig(joint_pos=0.0),
        randomize=RandomizationConfig(foot_friction=(0.3, 1.6), ankle_offset=0.1, when="reset"),
        model=ModelConfig(self_collision=True),
    )  # fmt: skip


def laptop_task() -> TrackConfig:
    """The task of training on two CPU cores; `docs/training.md` has the reasons.

    In published raw actions, for trainers that choose their noise: adaptive starts and short
    episodes, ended 0.3 m off the path; velocities pay twice and more strictly; physics steps of
    10 ms at half of the standard's cost.
    """
    return TrackConfig(
        episode_s=3.0,
        start=SamplingConfig(mode="adaptive"),
        failure_distance=0.3,
        rewards=RewardConfig(body_lin_vel=2.0, body_lin_vel_std=0.5),
        model=ModelConfig(physics_dt=0.01), decimation=2,
    )  # fmt: skip
