"""What a robot is to this project: one frozen table, `Robot`, and the kinds of its rows.

A module that must know which robot it works with takes a `Robot`, and says `G1` where none is
given. The tables are `bm_envs.robots.g1` and `bm_envs.robots.g1_23`; `bm_envs.robots.registry`
finds one by its name. `docs/extending.md` says how to add another.

Units are SI (m, kg, rad, s, N m). Quaternions are w, x, y, z. Body frames: x forward, y left, z up;
a body's frame coincides with its joint's frame. Bodies and joints stand in the depth-first order of
the tree. J joints, B bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bm_envs.errors import ConfigError

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]


@dataclass(frozen=True)
class Body:
    """One link. `inertial_pos` and `inertial_quat` place the principal axes in the link frame."""

    name: str
    parent: str
    pos: Vec3
    quat: Quat
    mass: float
    inertial_pos: Vec3
    inertial_quat: Quat
    diag_inertia: Vec3


@dataclass(frozen=True)
class Motor:
    """A geared motor: `rotor` inertias (kg m^2) behind gear ratios `gears` (motor side first)."""

    rotor: Vec3
    gears: Vec3
    effort_limit: float
    velocity_limit: float

    @property
    def armature(self) -> float:
        """Inertia reflected to the joint, kg m^2: `r1*(g2*g3)^2 + r2*g3^2 + r3`."""
        r1, r2, r3 = self.rotor
        _, g2, g3 = self.gears
        return r1 * (g2 * g3) ** 2 + r2 * g3**2 + r3


@dataclass(frozen=True)
class Joint:
    """One hinge. `motor_count` motors of type `motor` drive it.

    Two are a parallel linkage, taken as 1:1.
    """

    name: str
    body: str
    axis: Vec3
    range: tuple[float, float]
    motor: str
    motor_count: int = 1

    @property
    def armature(self) -> float:
        return self.motor_count * MOTORS[self.motor].armature

    @property
    def stiffness(self) -> float:
        """kp, N m/rad: `I * w^2`."""
        return self.armature * NATURAL_FREQUENCY**2

    @property
    def damping(self) -> float:
        """kd, N m s/rad: `2 * zeta * I * w`."""
        return 2.0 * DAMPING_RATIO * self.armature * NATURAL_FREQUENCY

    @property
    def effort_limit(self) -> float:
        return self.motor_count * MOTORS[self.motor].effort_limit

    @property
    def velocity_limit(self) -> float:
        """rad/s. Declared by the maker; no MuJoCo path enforces it (neither do mjlab's drives)."""
        return MOTORS[self.motor].velocity_limit

    @property
    def action_scale(self) -> float:
        """Radians of joint target per unit of action: `0.25 * effort / kp`."""
        return 0.25 * self.effort_limit / self.stiffness


@dataclass(frozen=True)
class Site:
    """A named point on a link, axes parallel to the link's."""

    name: str
    body: str
    pos: Vec3


@dataclass(frozen=True)
class Geom:
    """A sphere (`end` is None) or a capsule from `start` to `end`, in the link frame."""

    name: str
    body: str
    radius: float
    start: Vec3
    end: Vec3 | None = None


@dataclass(frozen=True)
class Pose:
    """Root height (m) and joint angles (rad).

    Joints not named are zero, the orientation is the identity.
    """

    root_height: float
    joints: Mapping[str, float]

    def joint_pos(self, robot: Robot | None = None) -> np.ndarray:
        """`[J]`, rad, in the order of a robot's joints; of the G1's where none is given."""
        joints = (robot or _made["g1"]).joints
        return np.array([self.joints.get(joint.name, 0.0) for joint in joints])


# Gains: a critically overdamped 10 Hz response of the motor's own reflected inertia.
# The source writes pi as 3.1415926535, so these are its digits and not math.pi.
NATURAL_FREQUENCY = 10.0 * 2.0 * 3.1415926535  # rad/s
DAMPING_RATIO = 2.0
SOFT_LIMIT_FACTOR = 0.9  # share of a joint's range, about its middle, that is free of penalty

MOTORS: dict[str, Motor] = {
    "5020": Motor((0.139e-4, 0.017e-4, 0.169e-4), (1, 1 + 46 / 18, 1 + 56 / 16), 25.0, 37.0),
    "7520_14": Motor((0.489e-4, 0.098e-4, 0.533e-4), (1, 4.5, 1 + 48 / 22), 88.0, 32.0),
    "7520_22": Motor((0.489e-4, 0.109e-4, 0.738e-4), (1, 4.5, 5.0), 139.0, 20.0),
    "4010": Motor((0.068e-4, 0.0, 0.0), (1, 5.0, 5.0), 5.0, 22.0),
}

Order = Literal["mujoco", "isaac"]


@dataclass(frozen=True, eq=False)
class Robot:
    """One robot as data. Equal robots are the same object; copies and pickles are it, too."""

    name: str
    """By which flags, configurations and policy files know it."""
    label: str
    """What policy descriptions say of it."""
    source: str
    """Where its figures are from."""
    bodies: tuple[Body, ...]
    """Its links, depth first; the first is the root, and each other one has a joint."""
    joints: tuple[Joint, ...]
    """Its hinges, depth first."""
    sites: tuple[Site, ...]
    collision_geoms: tuple[Geom, ...]
    """Shapes that meet the ground and each other, without those of the feet."""
    foot_spheres: tuple[Geom, ...]
    foot_capsules: tuple[Geom, ...]
    contact_exclusions: tuple[tuple[str, str], ...]
    """Pairs of links that may overlap."""
    root_body: str
    anchor_body: str
    """The link by which a motion is laid where the robot is."""
    tracked_bodies: tuple[str, ...]
    """Links that are compared with the reference; the first is the root."""
    foot_bodies: tuple[str, str]
    """Left and right."""
    end_effectors: tuple[str, ...]
    """The feet, then the hands."""
    poses: Mapping[str, Pose]
    default_pose: str
    """Name of the pose whose joints an action of zero asks for."""
    env_id: str
    """Of the environment in which it tracks motions."""
    merged: Mapping[str, tuple[str, Vec3]] = field(default_factory=dict)
    """Links of the G1 that are a fixed part of a link here: of which, and where in it, m. What is
    drawn on them is drawn there."""

    def __post_init__(self) -> None:
        _made[self.name] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, ({entry.name: getattr(self, entry.name) for entry in fields(self)},)

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @cached_property
    def body_names(self) -> tuple[str, ...]:
        return tuple(body.name for body in self.bodies)

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def num_bodies(self) -> int:
        return len(self.bodies)

    @cached_property
    def stiffness(self) -> np.ndarray:
        """`[J]`, N m/rad."""
        return self._of_joints("stiffness")

    @cached_property
    def damping(self) -> np.ndarray:
        """`[J]`, N m s/rad."""
        return self._of_joints("damping")

    @cached_property
    def effort_limit(self) -> np.ndarray:
        """`[J]`, N m."""
        return self._of_joints("effort_limit")

    @cached_property
    def velocity_limit(self) -> np.ndarray:
        """`[J]`, rad/s."""
        return self._of_joints("velocity_limit")

    @cached_property
    def armature(self) -> np.ndarray:
        """`[J]`, kg m^2."""
        return self._of_joints("armature")

    @cached_property
    def action_scale(self) -> np.ndarray:
        """`[J]`, rad per unit of action."""
        return self._of_joints("action_scale")

    @cached_property
    def joint_range(self) -> np.ndarray:
        """`[J, 2]`, rad."""
        return self._of_joints("range")

    @cached_property
    def default_joint_pos(self) -> np.ndarray:
        """`[J]`, rad, the joint targets of an action of zero."""
        return _constant(self.poses[self.default_pose].joint_pos(self))

    def _of_joints(self, figure: str) -> np.ndarray:
        return _constant(np.array([getattr(joint, figure) for joint in self.joints]))

    def soft_joint_range(self, factor: float = SOFT_LIMIT_FACTOR) -> np.ndarray:
        """`[J, 2]`, rad: the middle `factor` of each joint's range."""
        center = self.joint_range.mean(axis=1, keepdims=True)
        return center + factor * (self.joint_range - center)

    @cached_property
    def isaac_body_names(self) -> tuple[str, ...]:
        """Breadth first, as Isaac Lab numbers links."""
        children: dict[str, list[str]] = {}
        for body in self.bodies:
            children.setdefault(body.parent, []).append(body.name)
        order = list(children["world"])
        for name in order:  # the list grows while it is walked: a queue
            order.extend(children.get(name, []))
        return tuple(order)

    @cached_property
    def isaac_joint_names(self) -> tuple[str, ...]:
        """Breadth first, as Isaac Lab numbers joints."""
        joint_of = {joint.body: joint.name for joint in self.joints}
        return tuple(joint_of[name] for name in self.isaac_body_names if name in joint_of)

    def joint_names_in(self, order: Order) -> tuple[str, ...]:
        """The joints' names in depth-first (`mujoco`) or breadth-first (`isaac`) order."""
        return self.joint_names if order == "mujoco" else self.isaac_joint_names

    def body_names_in(self, order: Order) -> tuple[str, ...]:
        """The bodies' names in depth-first (`mujoco`) or breadth-first (`isaac`) order."""
        return self.body_names if order == "mujoco" else self.isaac_body_names

    @cached_property
    def contact_bodies(self) -> tuple[str, ...]:
        """Links whose contacts a task may penalize: those with a shape, but the end effectors."""
        shaped = {geom.body for geom in self.collision_geoms}
        ends = self.end_effectors
        return tuple(name for name in self.body_names if name in shaped and name not in ends)

    def mirror_map(self) -> tuple[np.ndarray, np.ndarray]:
        """Left-right mirror of joint values: `mirrored = sign * x[..., index]`; both `[J]`.

        Reflection in the sagittal (x-z) plane swaps sides and turns roll and yaw angles around.
        """
        index, sign = [], []
        for joint in self.joints:
            index.append(self.joint_names.index(mirror_name(joint.name)))
            sign.append(1.0 if joint.axis == (0, 1, 0) else -1.0)
        return np.array(index, dtype=np.intp), np.array(sign)


def _constant(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


# Robots by their names, so that a copy is the robot itself.
_made: dict[str, Robot] = {}


def _again(values: dict[str, Any]) -> Robot:
    """What was pickled or copied."""
    return _made.get(values["name"]) or Robot(**values)


def order_map(source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Index `m` such that `x_target = x_source[..., m]` for values labelled by these names.

    Args:
        source: names in the order the values have.
        target: names in the order wanted; each must occur in `source`.

    Raises:
        ConfigError: a name repeats in `source`, or one of `target` is missing there.
    """
    where = {name: i for i, name in enumerate(source)}
    if len(where) != len(source):
        repeated = sorted({name for name in source if list(source).count(name) > 1})
        raise ConfigError(f"Names must be unique, but {', '.join(repeated)} occur more than once.")
    missing = [name for name in target if name not in where]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(target)} names are missing, the first is '{missing[0]}'."
        )
    return np.array([where[name] for name in target], dtype=np.intp)


def mirror_name(name: str) -> str:
    """Name of the joint or body on the other side; of one in the middle, its own."""
    side, _, rest = name.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
