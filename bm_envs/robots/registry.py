"""The robots by their names; a new one is entered here."""

from __future__ import annotations

from collections.abc import Collection

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots.g1 import G1
from bm_envs.robots.g1_23 import G1_23
from bm_envs.robots.robot import Robot

ROBOTS: dict[str, Robot] = {robot.name: robot for robot in (G1, G1_23)}


def robot_named(name: str) -> Robot:
    """The robot of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ROBOTS:
        raise ConfigError(unknown_name("robot", str(name), ROBOTS))
    return ROBOTS[name]


def robot_with_joints(names: Collection[str]) -> Robot | None:
    """The robot that has these joints, in whatever order; None: none has."""
    return next((r for r in ROBOTS.values() if sorted(r.joint_names) == sorted(names)), None)
