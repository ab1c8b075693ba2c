"""What a robot tells and what it is told: its state, a reading of all sensors, a command.

Joints are in the order of the robot's table (`g1.JOINT_NAMES`, 29, for the G1), its motor order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class RobotState:
    """What a tracking policy reads of a robot."""

    quat: np.ndarray
    """`[4]` w x y z, orientation of the pelvis in the world."""
    gyro: np.ndarray
    """`[3]`, angular velocity of the pelvis, pelvis axes, rad/s."""
    joint_pos: np.ndarray
    """`[29]`, joint angles, rad."""
    joint_vel: np.ndarray
    """`[29]`, joint velocities, rad/s."""
    base_pos: np.ndarray | None = None
    """`[3]`, pelvis origin, world, m, by a simulator, motion capture or an estimator."""
    base_lin_vel: np.ndarray | None = None
    """`[3]`, velocity of the pelvis origin, world axes, m/s, likewise."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensors(RobotState):
    """One reading of the sensors. A robot alone tells neither `base_pos` nor `base_lin_vel`."""

    time_s: float
    """Time of the reading, s, by any clock: only differences are used."""
    accel: np.ndarray
    """`[3]`, specific force at `imu_in_pelvis`, pelvis axes, m/s^2; at rest it points up."""
    stop: bool = False
    """Whether somebody pressed the stop button."""
    next: bool = False
    """Whether somebody presses the button for the next motion."""


@dataclass(frozen=True, eq=False)
class Command:
    """What motors do until the next command: `kp (target - q) - kd qdot + torque`. `[29]` each."""

    joint_pos: np.ndarray
    """Target angle of each joint, rad."""
    stiffness: np.ndarray
    """Stiffness kp, N m/rad."""
    damping: np.ndarray
    """Damping kd, N m s/rad."""
    torque: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Torque in addition, N m; no policy of this family sets it. Without one it is 0."""

    def __post_init__(self) -> None:
        if not len(self.torque):
            object.__setattr__(self, "torque", np.zeros(len(self.joint_pos)))
