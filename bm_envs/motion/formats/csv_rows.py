"""CSV files of the G1's motion: rows of root position, root quaternion and joints.

A CSV does not hold its rate. It is taken at `CSV_FPS` frames a second, and refused where its name
or its motion contradicts that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.csv import read_rows
from bm_envs.motion.formats.layout import Layout, States, all_joints
from bm_envs.motion.rates import rate_in_name, rate_that_fits
from bm_envs.robots import g1

CSV_FPS = 30.0
"""Frames per second of a CSV without further evidence: the rate of Unitree's retargeted files."""


def _csv_rate(path: Path, pose: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """`CSV_FPS`, unless the file's name or its motion contradicts that."""
    named = rate_in_name(path.stem)
    if named is not None:
        if named == CSV_FPS:
            return named
        raise MotionError(
            f"{path}: its name says {named:g} frames a second and a CSV is taken at {CSV_FPS:g};"
            f" convert it by bm-envs motion convert with --input-fps {named:g} (or {CSV_FPS:g})."
        )
    fitting, reason = rate_that_fits(*pose, CSV_FPS)
    if fitting is not None:
        raise MotionError(
            f"{path}: {reason}, so its rate is hardly the {CSV_FPS:g} frames a second of a CSV but"
            f" about {fitting:g}; convert it by bm-envs motion convert with --input-fps {fitting:g}"
            " (or what it has)."
        )
    return CSV_FPS


def read_csv_rows(path: Path, layout: Layout, fallback: float | None) -> States:
    """Poses and rate; `fallback` is the rate that the caller gives, in place of the usual one."""
    names = layout.joint_names(f"{path}")
    rows = read_rows(path, len(names or g1.JOINT_NAMES))
    columns = [3, 4, 5, 6] if layout.quat == "wxyz" else [6, 3, 4, 5]
    quat = rot.quat_normalize(rows[:, columns])
    joints = all_joints(f"{path}", rows[:, 7:], names)
    fps = fallback
    if fps is None:
        fps = _csv_rate(path, (rows[:, :3], quat, joints))
    return States(path.stem, rows[:, :3], quat, joints, fps, layout.quat or "xyzw")
