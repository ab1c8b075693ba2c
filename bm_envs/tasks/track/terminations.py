"""When an episode has failed: plain functions of arrays, bool `[N]` each.

Source: whole_body_tracking, `mdp/terminations.py`. The end of the clip and the time limit are
truncations and live in `task.py`.
"""

from __future__ import annotations

from bm_envs.rotations import Array


def height_off(pos: Array, ref_pos: Array, threshold: float) -> Array:
    """Height differs from the reference's by more than `threshold`, m. `[N, 3]`."""
    return abs(ref_pos[:, 2] - pos[:, 2]) > threshold


def distance_off(pos: Array, ref_pos: Array, threshold: float) -> Array:
    """Horizontal distance to the reference is more than `threshold`, m. `[N, 3]`."""
    offset = ref_pos[:, :2] - pos[:, :2]
    return (offset * offset).sum(-1) > threshold * threshold


def tilt_off(quat: Array, ref_quat: Array, threshold: float) -> Array:
    """`|g_z - g_ref,z| > threshold`, g the unit vector of gravity in the body's axes. `[N, 4]`."""
    return abs(_gravity_z(ref_quat) - _gravity_z(quat)) > threshold


def any_height_off(pos: Array, target_pos: Array, threshold: float) -> Array:
    """Any of E bodies is off its anchored target's height by over `threshold`, m. `[N, E, 3]`."""
    return (abs(target_pos[..., 2] - pos[..., 2]) > threshold).any(-1)


def _gravity_z(quat: Array) -> Array:
    """Third component of `R^T (0, 0, -1)`: minus the last element of the rotation matrix."""
    return 2.0 * (quat[:, 1] * quat[:, 1] + quat[:, 2] * quat[:, 2]) - 1.0
