"""What acts between standing up and the end: a tracker on its motion, or a planner on its task."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from bm_envs.deploy.messages import Command, Sensors
from bm_envs.robots.robot import Robot


class Actor(Protocol):
    """One policy at work. `begin`, then `act` at every control step, `renew` at readings between.

    `act` and `renew` raise `ConfigError` or `PolicyError` where no command can be had; the robot's
    motors are damped then.
    """

    frame: int
    """Control steps so far."""
    is_late: bool
    """Whether the last control step had to do with what was planned for an earlier one."""

    @property
    def action_s(self) -> float:
        """Time that the last action took, observation and all, s."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        ...

    @property
    def steps(self) -> int:
        """Control steps in all."""
        ...

    @property
    def robot(self) -> Robot:
        """The robot that it is for."""
        ...

    @property
    def default_joint_pos(self) -> np.ndarray:
        """The pose that the robot stands in before and after, rad. `[J]`."""
        ...

    def begin(self, state: Sensors) -> None:
        """Take over a robot in this state."""
        ...

    def act(self, state: Sensors) -> Command | None:
        """The command of a control step; None: keep the last one."""
        ...

    def renew(self, state: Sensors) -> Command | None:
        """Another command for the present control step; None: there is none."""
        ...

    def leaning(self, state: Sensors, *, expected: bool) -> tuple[np.ndarray, np.ndarray]:
        """Upward, seen from a body of the robot, as it is and as it should be. `[3]` each.

        Without `expected` it should stand upright.
        """
        ...
