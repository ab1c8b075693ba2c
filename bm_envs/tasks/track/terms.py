"""What the tracking task computes of all robots at once, for NumPy and torch alike.

`sim` is a `Simulator`, `ref` the reference's rows at the present frame and `shown` those that
observations show (`rows.Reference`, `rows.Shown`), one of each for every robot. N robots, K tracked
bodies.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bm_envs.backends.base import Simulator
from bm_envs.rotations import Array, dot, namespace, quat_angle, turn_vectors
from bm_envs.tasks.track import rewards, terminations
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.rows import ANCHOR, END_EFFECTORS, FEET, K, Reference

RULES: dict[str, tuple[str, ...]] = {
    "train": ("anchor_pos", "anchor_ori", "ee_body_pos", "anchor_distance"),
    "pelvis": ("root_pos", "root_ori"), "none": (),
}  # fmt: skip
# With `failure_rotation`, what takes the place of a rule.
ROTATION_RULES = {"anchor_ori": "anchor_rotation", "root_ori": "root_rotation"}


def observation_values(
    sim: Simulator, shown: Any, action: Array, default_joint_pos: Array, rows: Any = slice(None)
) -> dict[str, Array]:
    """Every observation term of robots `rows`, without noise. `[M, size]` each."""
    body_pos, body_axes = sim.body_pos[rows], sim.body_axes[rows]
    xp = namespace(body_pos)
    anchor_pos, anchor_axes = body_pos[:, ANCHOR], body_axes[:, ANCHOR]
    count = len(body_pos)
    # One product takes all to the anchor's frame: places and x and y axes of the reference's
    # anchor and of the robot's bodies. The matrices are copied, since NumPy takes twice the time
    # for transposed ones.
    into = anchor_axes.swapaxes(1, 2)
    into = into.copy() if xp is np else into
    local = xp.concatenate([
        (shown.anchor_pos[rows] - anchor_pos)[:, None], body_pos - anchor_pos[:, None],
        shown.anchor_axes[rows, :2], body_axes[:, :, :2].reshape(count, 2 * K, 3),
    ], 1) @ into  # fmt: skip
    pos = local[:, : 1 + K].reshape(count, -1)
    # Both columns row by row, not one column after the other.
    ori = local[:, 1 + K :].reshape(count, 1 + K, 2, 3).swapaxes(2, 3).reshape(count, -1)
    return {
        "command": shown.command[rows],
        "motion_anchor_pos_b": pos[:, :3],
        "motion_anchor_ori_b": ori[:, :6],
        "body_pos": pos[:, 3:],
        "body_ori": ori[:, 6:],
        "base_lin_vel": dot(body_axes[:, 0], sim.root_lin_vel[rows][:, None]),
        "base_ang_vel": sim.root_ang_vel_b[rows],
        "joint_pos": sim.joint_pos[rows] - default_joint_pos[rows],
        "joint_vel": sim.joint_vel[rows],
        "actions": action[rows],
    }


def reward_values(
    sim: Simulator, ref: Reference, config: TrackConfig, *, action: Array, last_action: Array,
    anchor: tuple[Array, Array], widths: Array, soft_limits: Sequence[Array],
) -> list[Array]:  # fmt: skip
    """The rewards that always count, unweighted, in the order of `reward_names`. `[N]` each.

    Args:
        sim: the robots.
        ref: what they are compared with.
        config: of the task.
        action: `[N, 29]`, raw, of the step just done.
        last_action: `[N, 29]`, of the one before.
        anchor: place `[N, 3]` and axes `[N, 3, 3]` of the robots' anchors, from which the anchored
            targets are made.
        widths: `[6]`, of `rewards.TRACKED`.
        soft_limits: lower and upper, `[29]` each, rad.
    """
    settings = config.rewards
    anchor_pos, anchor_axes = anchor
    heading = rewards.heading_difference(anchor_axes, ref.anchor_axes)
    target_pos, target_quat = rewards.anchored_reference(
        anchor_pos, heading, ref.body_pos, ref.body_quat, ANCHOR
    )
    lin_vel, ang_vel = ref.body_lin_vel, ref.body_ang_vel
    if config.rotate_velocity_targets:
        turn = heading[:, 0]
        lin_vel, ang_vel = turn_vectors(turn, lin_vel), turn_vectors(turn, ang_vel)
    square_distance, square_angle = rewards.square_distance, rewards.square_angle
    errors = (
        square_distance(sim.body_pos[:, ANCHOR], ref.body_pos[:, ANCHOR]),
        square_angle(sim.body_quat[:, ANCHOR], ref.body_quat[:, ANCHOR]),
        square_distance(sim.body_pos, target_pos), square_angle(sim.body_quat, target_quat),
        square_distance(sim.body_lin_vel, lin_vel), square_distance(sim.body_ang_vel, ang_vel),
    )  # fmt: skip
    values = [rewards.gaussian(square, std) for square, std in zip(errors, widths, strict=True)]
    values.append(rewards.action_rate(action, last_action))
    values.append(rewards.joint_limit(sim.joint_pos, *soft_limits))
    if settings.contact_term in ("links", "self_links"):
        others = len(sim.contact_bodies) - len(FEET)
        force = counted_force(sim, config)[:, :others]
        values.append(rewards.contact_count(force, settings.contact_threshold))
    elif settings.contact_term == "self":
        # mjlab counts physics steps; seen here is the last one, taken for all of them.
        touching = sim.self_contact_force > settings.contact_threshold
        values.append(touching * config.decimation)
    return values


def counted_force(sim: Simulator, config: TrackConfig) -> Array:
    """Forces of the contacts that a task counts, on `sim.contact_bodies`. `[N, C, 3]`, N."""
    own = config.rewards.contact_term == "self_links"
    return sim.net_self_contact_force if own else sim.contact_force


def reward_names(config: TrackConfig) -> tuple[list[str], tuple[str, ...]]:
    """Of the rewards that always count, and of those that do where they have a weight."""
    names = [*rewards.TRACKED, "action_rate", "joint_limit"]
    names += [] if config.rewards.contact_term == "none" else ["contact"]
    return names, tuple(name for name in rewards.OPTIONAL if getattr(config.rewards, name))


def optional_values(
    sim: Simulator, config: TrackConfig, names: Sequence[str], *, ref_contact: Array,
    actions: Sequence[Array], last_joint_vel: Array,
) -> list[Array]:  # fmt: skip
    """The rewards of these names, unweighted. `[N]` each.

    Args:
        sim: the robots.
        config: of the task.
        names: some of `rewards.OPTIONAL`.
        ref_contact: `[N, 2]` bool, feet of the reference that are on the ground.
        actions: of the step just done, of the one before and of that before, `[N, 29]` each.
        last_joint_vel: `[N, 29]`, before the step.
    """
    threshold, feet = config.rewards.contact_threshold, len(FEET)
    terms = {
        "foot_contact": lambda: rewards.contact_mismatch(
            sim.contact_force[:, -feet:], ref_contact, threshold
        ),
        "action_accel": lambda: rewards.action_accel(*actions),
        "joint_accel": lambda: rewards.joint_accel(sim.joint_vel, last_joint_vel, CONTROL_DT),
    }
    return [terms[name]() for name in names]


def rule_names(config: TrackConfig) -> tuple[str, ...]:
    """Of the rules by which an episode fails."""
    names = RULES[config.failure]
    if config.failure_rotation is not None:
        names = tuple(ROTATION_RULES.get(name, name) for name in names)
    return names if config.failure_distance is not None else names[:3]


def failures(
    sim: Simulator, ref: Reference, config: TrackConfig, failure_distance_scale: Array | float
) -> list[Array]:
    """Whether an episode has failed by each of `rule_names`. `[N]` bool each."""
    if config.failure == "none":
        return []
    body = ANCHOR if config.failure == "train" else 0
    # Anchored targets have the reference's heights.
    height_off = terminations.height_off(sim.body_pos, ref.body_pos, config.failure_height)
    quats = sim.body_quat[:, body], ref.body_quat[:, body]
    if config.failure_rotation is None:
        turned = terminations.tilt_off(*quats, config.failure_tilt)
    else:
        turned = terminations.rotation_off(*quats, config.failure_rotation)
    failed = [height_off[:, body], turned]
    if config.failure == "train":
        # One by one: a list of indices would have to be brought to a GPU in every step.
        failed.append(functools.reduce(operator.or_, (height_off[:, i] for i in END_EFFECTORS)))
        if config.failure_distance is not None:
            failed.append(terminations.distance_off(
                sim.body_pos[:, ANCHOR], ref.body_pos[:, ANCHOR],
                config.failure_distance * failure_distance_scale,
            ))  # fmt: skip
    return failed


def lowest_sole_point(
    body_pos: Array, body_axes: Array, sole_points: Array, radius: float
) -> Array:
    """Height of the lowest point of the feet above the ground, m. `[N]`.

    Args:
        body_pos: `[N, K, 3]`, m, world.
        body_axes: `[N, K, 3, 3]`, axes of the links as rows, world.
        sole_points: `[2, P, 3]`, m, centers of the spheres of both soles in the feet's axes.
        radius: m, of the spheres.
    """
    heights = []
    for foot, points in zip(FEET, sole_points, strict=True):
        ups = body_axes[:, foot, :, 2]  # by how much each axis of the foot goes up
        heights.append(body_pos[:, foot, 2:] + dot(points, ups[:, None]))
    xp = namespace(body_pos)
    return xp.amin(xp.concatenate(heights, 1), 1) - radius


class Compared(NamedTuple):
    """What tracking errors are taken of: states of N robots, and their reference's.

    Axes of the anchor are `[N, 3, 3]`, places and orientations of bodies `[N, K, 3]` and
    `[N, K, 4]`, joints `[N, 29]`.
    """

    anchor_axes: Array
    body_pos: Array
    body_quat: Array
    joint_pos: Array
    joint_vel: Array
    ref_anchor_axes: Array
    ref_body_pos: Array
    ref_body_quat: Array
    ref_joint_pos: Array
    ref_joint_vel: Array

    @staticmethod
    def of(sim: Simulator, ref: Reference) -> Compared:
        """The present ones, as views."""
        return Compared(
            sim.body_axes[:, ANCHOR], sim.body_pos, sim.body_quat, sim.joint_pos, sim.joint_vel,
            ref.anchor_axes, ref.body_pos, ref.body_quat, ref.joint_pos, ref.joint_vel,
        )  # fmt: skip


def tracking_errors(states: Compared) -> dict[str, Array]:
    """Errors of states. `[N]` each, float32.

    Source: definitions of mjlab 1.6.0 `mdp/metrics.py` (mpkpe, r_mpkpe, joint velocity, end
    effectors); joint position is the mean absolute error over 29 joints.
    """
    (axes, body_pos, body_quat, joint_pos, joint_vel,
     ref_axes, ref_pos, ref_quat, ref_joint_pos, ref_joint_vel) = states  # fmt: skip
    heading = rewards.heading_difference(axes, ref_axes)
    pos, quat = rewards.anchored_reference(body_pos[:, ANCHOR], heading, ref_pos, ref_quat, ANCHOR)
    distance = lambda a, b: ((a - b) ** 2).sum(-1) ** 0.5  # noqa: E731
    ends = list(END_EFFECTORS)
    return {
        "mpkpe_m": distance(ref_pos, body_pos).mean(1),
        "r_mpkpe_m": distance(pos, body_pos).mean(1),
        "joint_pos_rad": abs(ref_joint_pos - joint_pos).mean(1),
        "joint_vel_rad_s": ((ref_joint_vel - joint_vel) ** 2).mean(1) ** 0.5,
        "ee_pos_m": distance(pos[:, ends], body_pos[:, ends]).mean(1),
        "ee_ori_rad": quat_angle(quat[:, ends], body_quat[:, ends]).mean(1),
    }
