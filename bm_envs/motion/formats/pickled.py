"""Pickles of the G1's motion: KungfuBot's (PBHC), ASAP's, HuB's and GMR's.

They are read by `motion/pickles.py`, which runs no code. Root quaternions are x y z w; joints are
the project's 29 in its order. A motion without `dof` has its joints in
`pose_aa [T, 1 + joints + more, 3]`: rotation vectors of the root and of each joint about its axis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.checks import QuatOrder
from bm_envs.motion.clip import MAX_FRAMES
from bm_envs.motion.formats.layout import (
    UNITREE_23,
    WITHOUT_WRISTS,
    Layout,
    States,
    all_joints,
)
from bm_envs.motion.pickles import as_array, read_pickle
from bm_envs.motion.rates import rate_of
from bm_envs.robots import g1

ROOT_POS, _JOINTS = ("root_trans_offset", "root_pos", "root_trans"), ("dof", "dof_pos")
_NAMES = ("dof_names", "joint_names")


def motions_in(path: Path) -> dict[str, dict[str, Any]]:
    """The motions in a pickle: clip name to its entries."""
    value = read_pickle(path)
    if isinstance(value, dict) and any(key in value for key in ROOT_POS):
        value = {path.stem: value}
    if not isinstance(value, dict) or not value:
        raise MotionError(
            f"{path}: holds {type(value).__name__}, expected clip names to motions with"
            f" {ROOT_POS[0]}, root_rot, dof and fps."
        )
    for name, motion in value.items():
        if not isinstance(name, str) or not isinstance(motion, dict):
            raise MotionError(
                f"{path}: its entry {str(name)[:40]!r} is no motion, expected one with"
                f" {ROOT_POS[0]}, root_rot, dof and fps."
            )
    return value


def read_motion(
    path: Path, name: str, motion: dict[str, Any], layout: Layout, fallback: float | None
) -> States:
    """Poses and rate of one clip; `fallback` is the rate of a clip that has none."""
    where = f"{path}: clip '{name[:80]}'"
    known = (*ROOT_POS, "root_rot", *_JOINTS, "pose_aa")
    arrays = {key: as_array(motion[key]) for key in known if key in motion}
    pos = _numbers(where, ROOT_POS, arrays, (3,))
    pose = arrays.get("pose_aa")
    if pose is not None and (pose.ndim != 3 or pose.shape[2] != 3 or pose.dtype.kind not in "fiu"):
        raise MotionError(f"{where}: pose_aa has shape {pose.shape}, expected (T, joints, 3).")
    order: QuatOrder = layout.quat or "xyzw"
    if pose is not None and "root_rot" not in arrays:
        if pose.shape[1] == 0:
            raise MotionError(f"{where}: pose_aa has shape {pose.shape}, expected (T, joints, 3).")
        quat = rot.quat_from_axis_angle(pose[:, 0].astype(np.float64))
    else:
        quat = _numbers(where, ("root_rot",), arrays, (4,))
        quat = quat if order == "wxyz" else quat[:, [3, 0, 1, 2]]
    names = layout.joint_names(where) or _pickled_names(where, motion)
    if pose is not None and not any(key in arrays for key in _JOINTS):
        joints, names_by_axes = _along_axes(where, pose.astype(np.float64))
        names = names or names_by_axes
    else:
        widths = (len(WITHOUT_WRISTS), g1.NUM_JOINTS) if names is None else (len(names),)
        joints = _numbers(where, _JOINTS, arrays, widths)
        if names is None and joints.shape[1] != g1.NUM_JOINTS:
            names = _names_of_23(where, motion, pose)
    fps = layout.input_fps
    if fps is None:
        fps = rate_of(where, motion, fallback)
    return States(name, pos, quat, all_joints(where, joints, names), fps, order)


def _pickled_names(where: str, motion: dict[str, Any]) -> tuple[str, ...] | None:
    """The joints' names that a pickle holds, or None."""
    for key in _NAMES:
        names = motion.get(key)
        array = getattr(names, "values", names)
        if isinstance(array, np.ndarray) and array.dtype.kind in "US" and array.ndim == 1:
            names = [n.decode("latin1") if isinstance(n, bytes) else str(n) for n in array[:1000]]
        if isinstance(names, list | tuple) and names:
            if not all(isinstance(name, str) for name in names[:1000]) or len(names) > 1000:
                raise MotionError(f"{where}: {key} is no list of names.")
            return tuple(names)
    return None


def _names_of_23(
    where: str, motion: dict[str, Any], pose: np.ndarray | None
) -> tuple[str, ...]:  # fmt: skip
    """The names of 23 joints in a pickle without names, as its other keys show."""
    if pose is not None and pose.shape[1] > len(WITHOUT_WRISTS):
        with_axes = [names for names in (WITHOUT_WRISTS, UNITREE_23) if _fits_axes(pose, names)]
        if len(with_axes) == 1:
            return with_axes[0]
    # The family of PHC's files (PBHC, ASAP, HuB) says `root_trans_offset`, and locks the wrists.
    if "root_trans_offset" in motion and (pose is None or _fits_axes(pose, WITHOUT_WRISTS)):
        return WITHOUT_WRISTS
    raise MotionError(
        f"{where}: has 23 joints, which are the robot's without wrists or Unitree's own 23; convert"
        " it by bm-envs motion convert with --joints no_wrists or --joints unitree_23."
    )


def _fits_axes(pose: np.ndarray, names: tuple[str, ...]) -> bool:
    """Whether rotation vectors `[T, 1 + joints + more, 3]` lie along those joints' axes."""
    axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in names])
    turns = pose[:, 1 : 1 + len(names)].astype(np.float64)
    if turns.shape[1] != len(names) or not len(turns):
        return False
    angles = (turns * axes).sum(axis=-1)
    return bool(np.abs(turns - angles[..., None] * axes).max() < 1e-3)


def _numbers(
    where: str, keys: tuple[str, ...], arrays: dict[str, np.ndarray | None], widths: tuple[int, ...]
) -> np.ndarray:
    """`[T, W]` under the first of the keys that is there."""
    key = next((key for key in keys if key in arrays), None)
    if key is None:
        raise MotionError(f"{where}: lacks {' or '.join(keys)}.")
    value = arrays[key]
    if value is not None and value.ndim == 3 and value.shape[2] == 1:
        value = value[..., 0]
    if value is None or value.dtype.kind not in "fiu" or value.ndim != 2 \
            or value.shape[1] not in widths:  # fmt: skip
        actual = "no array of numbers" if value is None else f"of shape {value.shape}"
        expected = " or ".join(map(str, widths))
        raise MotionError(f"{where}: {key} is {actual}, expected (T, {expected}).")
    if len(value) > MAX_FRAMES:
        raise MotionError(f"{where}: {key} has {len(value)} frames, expected at most {MAX_FRAMES}.")
    return value.astype(np.float64)


def _along_axes(where: str, pose: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """`[T, J]` angles of rotation vectors that lie along the joints' axes, and the joints."""
    fitting = [names for names in (g1.JOINT_NAMES, WITHOUT_WRISTS, UNITREE_23)
               if _fits_axes(pose, names)]  # fmt: skip
    # No motion fits all 29 axes by accident. Where both sets of 23 fit, the one without wrists is
    # taken: the first 13 joints of both are the same.
    if not fitting:
        raise MotionError(
            f"{where}: pose_aa does not turn about the axes of the {g1.NUM_JOINTS} joints or of the"
            f" {len(WITHOUT_WRISTS)} without wrists, and there is no dof."
        )
    axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in fitting[0]])
    return (pose[:, 1 : 1 + len(axes)] * axes).sum(axis=-1), fitting[0]
