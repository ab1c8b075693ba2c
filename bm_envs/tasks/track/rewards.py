"""Reward terms and errors of tracking: plain functions of arrays, shape `[N]` each.

`ref_` marks the reference motion. Positions in m, quaternions w x y z, world axes; K tracked
bodies. Means over bodies are taken inside the exponential. Source: whole_body_tracking,
`mdp/rewards.py`.
"""

from __future__ import annotations

from bm_envs.rotations import Array, namespace, quat_angle, quat_conj, quat_mul, quat_yaw


def position_exp(pos: Array, ref_pos: Array, std: float) -> Array:
    """`exp(-|p_ref - p|^2 / std^2)`; `[N, 3]`, for bodies `[N, K, 3]` the mean square of K."""
    return _exp(_square_norm(ref_pos - pos), std)


def orientation_exp(quat: Array, ref_quat: Array, std: float) -> Array:
    """`exp(-angle^2 / std^2)`; `[N, 4]`, for bodies `[N, K, 4]` the mean square of K."""
    return _exp(quat_angle(ref_quat, quat) ** 2, std)


def velocity_exp(vel: Array, ref_vel: Array, std: float) -> Array:
    """`exp(-mean_K |v_ref - v|^2 / std^2)`, linear or angular, world axes. `[N, K, 3]`."""
    return _exp(_square_norm(ref_vel - vel), std)


def action_rate(action: Array, last_action: Array) -> Array:
    """`sum_j (a_t - a_{t-1})^2` of the raw actions. `[N, 29]`."""
    change = action - last_action
    return (change * change).sum(-1)


def joint_limit(joint_pos: Array, soft_range: Array) -> Array:
    """Radians by which joints are outside `soft_range [29, 2]`, summed. `[N, 29]`."""
    xp = namespace(joint_pos)
    below = xp.clip(soft_range[:, 0] - joint_pos, 0.0, None)
    above = xp.clip(joint_pos - soft_range[:, 1], 0.0, None)
    return (below + above).sum(-1)


def contact_count(contact_force: Array, threshold: float) -> Array:
    """Number of bodies whose net contact force exceeds `threshold`, N. `[N, C, 3]`."""
    return ((contact_force * contact_force).sum(-1) > threshold * threshold).sum(-1)


def anchored_reference(
    anchor_pos: Array, anchor_quat: Array, ref_body_pos: Array, ref_body_quat: Array, anchor: int
) -> tuple[Array, Array, Array]:
    """The reference moved to the robot: horizontal place and heading from the robot, height kept.

    With `R_D` the rotation about z by the heading of `R_a R_ref,a^T`: target position
    `(p_a.x, p_a.y, p_ref,a.z) + R_D (p_ref,b - p_ref,a)`, target orientation `R_D R_ref,b`.
    Source: arXiv 2508.08241, sec. III-A.

    Args:
        anchor_pos: `[N, 3]`, robot's anchor.
        anchor_quat: `[N, 4]`.
        ref_body_pos: `[N, K, 3]`.
        ref_body_quat: `[N, K, 4]`.
        anchor: index of the anchor among the K bodies.

    Returns:
        Positions `[N, K, 3]`, orientations `[N, K, 4]`, and `R_D` as `(cos, sin)` of the heading
        difference, `[N, 2]`.
    """
    xp = namespace(anchor_pos)
    yaw = quat_yaw(quat_mul(anchor_quat, quat_conj(ref_body_quat[:, anchor])))
    cos, sin = xp.cos(yaw)[:, None], xp.sin(yaw)[:, None]
    offset = ref_body_pos - ref_body_pos[:, anchor : anchor + 1]
    dx, dy = offset[..., 0], offset[..., 1]
    pos = xp.stack(
        [
            anchor_pos[:, 0:1] + cos * dx - sin * dy,
            anchor_pos[:, 1:2] + sin * dx + cos * dy,
            ref_body_pos[..., 2],
        ],
        -1,
    )
    half_cos, half_sin = xp.cos(0.5 * yaw)[:, None], xp.sin(0.5 * yaw)[:, None]
    bw, bx, by, bz = (ref_body_quat[..., i] for i in range(4))
    quat = xp.stack(
        [
            half_cos * bw - half_sin * bz,
            half_cos * bx - half_sin * by,
            half_cos * by + half_sin * bx,
            half_cos * bz + half_sin * bw,
        ],
        -1,
    )
    return pos, quat, xp.concatenate([cos, sin], -1)


def rotate_heading(heading: Array, vector: Array) -> Array:
    """Turn `vector [N, K, 3]` about z by `heading [N, 2]` = (cos, sin)."""
    xp = namespace(vector)
    cos, sin = heading[:, 0:1], heading[:, 1:2]
    x, y = vector[..., 0], vector[..., 1]
    return xp.stack([cos * x - sin * y, sin * x + cos * y, vector[..., 2]], -1)


def _square_norm(vector: Array) -> Array:
    return (vector * vector).sum(-1)


def _exp(square: Array, std: float) -> Array:
    """`exp(-square / std^2)` of a squared error `[N]`, or of its mean over bodies `[N, K]`."""
    if square.ndim > 1:
        square = square.mean(-1)
    return namespace(square).exp(-square / (std * std))
