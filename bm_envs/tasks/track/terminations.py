"""When an episode has failed: plain functions of arrays, bool.

Source: whole_body_tracking, `mdp/terminations.py`. The end of the clip and the time limit are
truncations and live in `task.py`.
"""

from __future__ import annotations

import math

from bm_envs.rotations import Array, dot


def height_off(pos: Array, ref_pos: Array, threshold: float) -> Array:
    """Height differs from the reference's by more than `threshold`, m. `[..., 3]` -> `[...]`."""
    return abs(ref_pos[..., 2] - pos[..., 2]) > threshold


def distance_off(pos: Array, ref_pos: Array, threshold: float) -> Array:
    """Horizontal distance to the reference is more than `threshold`, m. `[N, 3]` -> `[N]`."""
    offset = ref_pos[:, :2] - pos[:, :2]
    return dot(offset, offset) > threshold * threshold


def tilt_off(quat: Array, ref_quat: Array, threshold: float) -> Array:
    """`|g_z - g_ref,z| > threshold`, g the unit vector of gravity in the body's axes. `[N, 4]`.

    `g_z`, minus the last element of the rotation matrix, is `2 (x^2 + y^2) - 1`.
    """
    lean, ref_lean = quat[:, 1:3], ref_quat[:, 1:3]
    return abs(dot(ref_lean, ref_lean) - dot(lean, lean)) > threshold / 2


def rotation_off(quat: Array, ref_quat: Array, threshold: float) -> Array:
    """The rotation to the reference's orientation is one by more than `threshold`, rad. `[N, 4]`.

    `|log(R_ref R^T)|` is twice the arc cosine of the quaternions' product, of which q and -q are
    one rotation. Source: arXiv 2508.08241v4, sec. S1.
    """
    return abs(dot(quat, ref_quat)) < half_angle_cosine(threshold)


def half_angle_cosine(angle: float) -> float:
    """What the product of two quaternions of that angle, rad, is in size."""
    return math.cos(angle / 2)
