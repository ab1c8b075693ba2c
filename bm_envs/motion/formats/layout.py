"""How a file of the robot's motion may be laid out, and what every file comes to.

What a file does not say is not guessed. 23 joints may be the robot without wrists or Unitree's own
robot of 23, so names or other keys must decide, or the user (`Layout.joints`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from bm_envs.errors import MotionError, unknown_name
from bm_envs.motion.checks import QuatOrder
from bm_envs.robots import g1

WITHOUT_WRISTS = tuple(name for name in g1.JOINT_NAMES if "wrist" not in name)
UNITREE_23 = tuple(
    name for name in g1.JOINT_NAMES
    if not re.search("waist_roll|waist_pitch|wrist_pitch|wrist_yaw", name)
)  # fmt: skip
"""Unitree's G1 of 23 joints: the waist turns only about z, of a wrist there is the roll.
Source: `unitreerobotics/unitree_ros : robots/g1_description/g1_23dof.urdf`."""
JOINT_SETS = {"all": g1.JOINT_NAMES, "no_wrists": WITHOUT_WRISTS, "unitree_23": UNITREE_23}


@dataclass(frozen=True)
class Layout:
    """What the user says about a file; None: what the file or its format says."""

    input_fps: float | None = None
    """Frames per second, whatever the file says."""
    quat: QuatOrder | None = None
    """Order of root quaternions."""
    units: Literal["m", "cm", "mm"] = "m"
    """Unit of root positions."""
    angles: Literal["rad", "deg"] = "rad"
    """Unit of joint angles."""
    joints: str | None = None
    """A set by its name, or the joints' names with commas in between, in the file's order."""
    order: g1.Order | None = None
    """Order of the joints in the file."""
    up: Literal["z", "y"] = "z"
    """Axis that points up."""
    ground: float | None = None
    """m that are added to all heights; `auto` (here NaN): what puts the robot on the floor."""

    def joint_names(self, where: str) -> tuple[str, ...] | None:
        """The joints' names in the file's order; None where nothing was said.

        Raises:
            MotionError: no name of a set, or a list with an unknown or repeated name.
        """
        names = None
        if self.joints in JOINT_SETS:
            names = JOINT_SETS[self.joints]
        elif self.joints is not None:
            names = tuple(name.strip() for name in self.joints.split(","))
            names = tuple(name if name.endswith("_joint") else f"{name}_joint" for name in names)
            check_names(where, names, f"--joints, {', '.join(JOINT_SETS)} or names")
        if self.order == "isaac":
            known = set(names or g1.JOINT_NAMES)
            names = tuple(name for name in g1.joint_names("isaac") if name in known)
        return names


class States(NamedTuple):
    """What the file of any format comes to before it is resampled."""

    name: str
    pos: np.ndarray
    """[T, 3], root position in the world, in the file's unit."""
    quat: np.ndarray
    """[T, 4], root orientation in the world, w x y z."""
    joints: np.ndarray
    """[T, 29], joint angles in the project's order, in the file's unit."""
    fps: float
    quat_order: QuatOrder
    """Order that the file's quaternions were taken to have."""


def check_names(where: str, names: tuple[str, ...], origin: str) -> None:
    """Refuse joint names that the robot does not have, and names that stand twice."""
    unknown = [name for name in names if name not in g1.JOINT_NAMES]
    if unknown:
        raise MotionError(
            f"{where}: {unknown_name('joint', unknown[0][:80], g1.JOINT_NAMES)} (expected {origin})"
        )
    if len(set(names)) != len(names):
        raise MotionError(f"{where}: its joint names hold one twice, expected each once.")


def all_joints(
    where: str, joints: np.ndarray, names: tuple[str, ...] | None
) -> np.ndarray:  # fmt: skip
    """Joints `[T, 29]` in the project's order; those without a name are in the default pose."""
    if names is None:
        names = g1.JOINT_NAMES
    legs = g1.JOINT_NAMES[:12]
    is_known = set(legs) <= set(names) <= set(g1.JOINT_NAMES) and len(set(names)) == len(names)
    if len(names) != joints.shape[1] or not is_known:
        raise MotionError(
            f"{where}: its joint names are not the {joints.shape[1]} of robot g1 that its angles"
            " need."
        )
    result = np.tile(g1.DEFAULT_JOINT_POS.astype(np.float64), (len(joints), 1))
    result[:, [g1.JOINT_NAMES.index(name) for name in names]] = joints
    return result
