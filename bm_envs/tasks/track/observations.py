"""What policy and critic see: the terms as data, and the functions that compute them.

The layout is data: slices, spaces, ONNX metadata and documentation tables are derived from `TERMS`.
Source: whole_body_tracking, `tracking_env_cfg.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bm_envs.robots import g1
from bm_envs.rotations import (
    Array,
    quat_conj,
    quat_mul,
    quat_rotate_inverse,
    rot6d,
)

NUM_BODIES = len(g1.TRACKED_BODIES)


@dataclass(frozen=True)
class ObsTerm:
    """One part of an observation. `frame` says in which axes it is, `unit` in which unit."""

    name: str
    size: int
    frame: str
    unit: str
    meaning: str


TERMS: dict[str, ObsTerm] = {
    term.name: term
    for term in (
        ObsTerm(
            "command", 58, "joints", "rad, rad/s", "reference joint positions, then velocities"
        ),
        ObsTerm("motion_anchor_pos_b", 3, "torso", "m", "reference torso position"),
        ObsTerm("motion_anchor_ori_b", 6, "torso", "1", "reference torso orientation, 6-D"),
        ObsTerm("body_pos", 42, "torso", "m", "positions of the 14 tracked bodies"),
        ObsTerm("body_ori", 84, "torso", "1", "orientations of the 14 tracked bodies, 6-D"),
        ObsTerm("base_lin_vel", 3, "pelvis", "m/s", "velocity of the pelvis origin"),
        ObsTerm("base_ang_vel", 3, "pelvis", "rad/s", "angular velocity of the pelvis"),
        ObsTerm("joint_pos", 29, "joints", "rad", "joint positions less the default pose"),
        ObsTerm("joint_vel", 29, "joints", "rad/s", "joint velocities"),
        ObsTerm("actions", 29, "joints", "1", "previous raw action"),
    )
}
CRITIC_TERMS = tuple(TERMS)  # 286 values


def layout(names: Sequence[str]) -> dict[str, slice]:
    """Where each term stands in the observation made of `names`, in order."""
    slices, start = {}, 0
    for name in names:
        slices[name] = slice(start, start + TERMS[name].size)
        start += TERMS[name].size
    return slices


def size(names: Sequence[str]) -> int:
    """Number of values of the observation made of `names`."""
    return sum(TERMS[name].size for name in names)


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
