"""Errors, penalties and targets of tracking: plain functions of arrays, shape `[N]` each.

`ref_` marks the reference motion. Positions in m, quaternions w x y z, world axes; K tracked
bodies. A reward is the `gaussian` of a squared error; of bodies it is the mean over them that is
taken into the exponential. Source: whole_body_tracking, `mdp/rewards.py`.
"""

from __future__ import annotations

from bm_envs.rotations import Array, dot, namespace, turn_quats, turn_vectors

# The rewards that are a `gaussian`, in the order in which they are computed.
TRACKED = ("anchor_pos", "anchor_ori", "body_pos", "body_ori", "body_lin_vel", "body_ang_vel")
# Terms that are computed only where they have a weight.
OPTIONAL = ("foot_contact", "action_accel", "joint_accel")
# Rewards take raw actions as within plus and minus this, so that what a step can cost has a bound;
# the robot gets them as they are. Actions of policies are below 40 in size.
ACTION_BOUND = 100.0
# What a joint can be beyond its range, rad, and its speed, rad/s. A robot has some tenths, and 40;
# where physics are about to diverge there are 1e30.
LIMIT_BOUND, SPEED_BOUND = 100.0, 1000.0


def gaussian(square: Array, std: Array | float) -> Array:
    """`exp(-square / std^2)`: 1 for no error, 1/e for an error of `std`."""
    return namespace(square).exp(square / (-std * std))


def square_distance(vector: Array, ref_vector: Array) -> Array:
    """`|v_ref - v|^2` of positions or velocities, `[N, 3]`; the mean of bodies, `[N, K, 3]`."""
    error = ref_vector - vector
    flat = error.reshape(len(error), -1)
    return dot(flat, flat) * (3 / flat.shape[1])


def square_angle(quat: Array, ref_quat: Array) -> Array:
    """Squared angle of the rotation between, rad^2, `[N, 4]`; the mean of bodies, `[N, K, 4]`.

    By an arc cosine, a third of the work of `rotations.quat_angle`: in float32 it resolves nothing
    below 1e-3 rad, of which the square is far below any width.
    """
    # q and -q are one rotation; rounding may take a product of unit quaternions over 1.
    half = namespace(quat).arccos(abs(dot(quat, ref_quat)).clip(max=1.0))
    return 4.0 * half * half if half.ndim == 1 else dot(half, half) * (4 / half.shape[1])


def action_rate(action: Array, last_action: Array) -> Array:
    """`sum_j (a_t - a_{t-1})^2` of the raw actions, within `ACTION_BOUND`. `[N, 29]`."""
    return _square(_bounded(action) - _bounded(last_action))


def joint_limit(joint_pos: Array, low: Array, high: Array) -> Array:
    """Radians by which joints are outside the soft range `[29]` to `[29]`, summed. `[N, 29]`."""
    return abs(joint_pos - joint_pos.clip(low, high)).clip(max=LIMIT_BOUND).sum(-1)


def contact_count(contact_force: Array, threshold: float) -> Array:
    """Number of bodies whose net contact force exceeds `threshold`, N. `[N, C, 3]`."""
    return (dot(contact_force, contact_force) > threshold * threshold).sum(-1)


def contact_mismatch(foot_force: Array, ref_contact: Array, threshold: float) -> Array:
    """Number of feet on the ground where the reference's are not, or the other way round.

    Args:
        foot_force: `[N, 2, 3]`, N; a foot whose net force exceeds `threshold` is on the ground.
        ref_contact: `[N, 2]` bool.
        threshold: N.
    """
    return ((dot(foot_force, foot_force) > threshold * threshold) != ref_contact).sum(-1)


def action_accel(action: Array, last_action: Array, older_action: Array) -> Array:
    """`sum_j (a_t - 2 a_{t-1} + a_{t-2})^2` of raw actions within `ACTION_BOUND`. `[N, 29]`."""
    action, last_action, older_action = map(_bounded, (action, last_action, older_action))
    return _square((action - last_action) - (last_action - older_action))


def joint_accel(joint_vel: Array, last_joint_vel: Array, dt: float) -> Array:
    """`sum_j ((v_t - v_{t-1}) / dt)^2`, (rad/s^2)^2. `[N, 29]`, rad/s, and s."""
    now, before = (vel.clip(-SPEED_BOUND, SPEED_BOUND) for vel in (joint_vel, last_joint_vel))
    return _square(now - before) / (dt * dt)


def heading_difference(axes: Array, ref_axes: Array) -> Array:
    """Heading of the robot's anchor from its reference: that of the x axis of `R_a R_ref,a^T`.

    Args:
        axes: `[N, 3, 3]`, axes of the robot's anchor, as rows.
        ref_axes: `[N, 3, 3]`.

    Returns:
        `(cos, sin)` of the whole angle and of half of it, `[N, 2, 2]`.
    """
    xp = namespace(axes)
    x_axis = (ref_axes[:, None, :, 0] @ axes)[:, 0]  # first column of the product
    yaw = xp.arctan2(x_axis[:, 1], x_axis[:, 0])[:, None]
    half = 0.5 * yaw
    turns = xp.concatenate([xp.cos(yaw), xp.sin(yaw), xp.cos(half), xp.sin(half)], -1)
    return turns.reshape(-1, 2, 2)


def anchored_reference(
    anchor_pos: Array, heading: Array, ref_body_pos: Array, ref_body_quat: Array, anchor: int
) -> tuple[Array, Array]:
    """The reference moved to the robot: horizontal place and heading from the robot, height kept.

    With `R_D` the rotation about z by the `heading_difference`: target position
    `(p_a.x, p_a.y, p_ref,a.z) + R_D (p_ref,b - p_ref,a)`, target orientation `R_D R_ref,b`.
    Source: arXiv 2508.08241, sec. III-A.

    Args:
        anchor_pos: `[N, 3]`, robot's anchor.
        heading: `[N, 2, 2]`, of `heading_difference`.
        ref_body_pos: `[N, K, 3]`.
        ref_body_quat: `[N, K, 4]`.
        anchor: index of the anchor among the K bodies.

    Returns:
        Positions `[N, K, 3]` and orientations `[N, K, 4]`.
    """
    ref_anchor = ref_body_pos[:, anchor]
    base = namespace(anchor_pos).concatenate([anchor_pos[:, :2], ref_anchor[:, 2:]], -1)
    pos = turn_vectors(heading[:, 0], ref_body_pos - ref_anchor[:, None]) + base[:, None]
    return pos, turn_quats(heading[:, 1], ref_body_quat)


def _bounded(action: Array) -> Array:
    return action.clip(-ACTION_BOUND, ACTION_BOUND)


def _square(vector: Array) -> Array:
    return dot(vector, vector)
