"""What policy and critic see: the functions that compute the terms of `observation_terms.TERMS`."""

from __future__ import annotations

from bm_envs.observation_terms import CRITIC_TERMS as CRITIC_TERMS
from bm_envs.observation_terms import layout as layout
from bm_envs.observation_terms import size as size
from bm_envs.rotations import (
    Array,
    quat_conj,
    quat_mul,
    quat_rotate_inverse,
    rot6d,
)


def anchor_pos_b(anchor_pos: Array, anchor_quat: Array, ref_anchor_pos: Array) -> Array:
    """`R_a^T (p_ref - p_a)`: the reference anchor from the robot's anchor frame, m. `[N, 3]`."""
    return quat_rotate_inverse(anchor_quat, ref_anchor_pos - anchor_pos)


def anchor_ori_b(anchor_quat: Array, ref_anchor_quat: Array) -> Array:
    """6-D form of `R_a^T R_ref`. `[N, 6]`."""
    return rot6d(quat_mul(quat_conj(anchor_quat), ref_anchor_quat))


def body_pos_b(anchor_pos: Array, anchor_quat: Array, body_pos: Array) -> Array:
    """`R_a^T (p_b - p_a)` of the robot's bodies, m. `[N, K, 3]` -> `[N, 3K]`."""
    local = quat_rotate_inverse(anchor_quat[:, None], body_pos - anchor_pos[:, None])
    return local.reshape(len(local), -1)


def body_ori_b(anchor_quat: Array, body_quat: Array) -> Array:
    """6-D form of `R_a^T R_b` of the robot's bodies. `[N, K, 4]` -> `[N, 6K]`."""
    local = rot6d(quat_mul(quat_conj(anchor_quat)[:, None], body_quat))
    return local.reshape(len(local), -1)
