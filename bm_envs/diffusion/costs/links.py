"""Where links are in predicted states, and how a push on them moves the features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1
from bm_envs.rotations import cross, dot, quat_from_axis_angle, quat_mul, quat_rotate
from bm_envs.tasks.guided.states import Frame, Representation

_PARENTS = tuple(-1 if b.parent == "world" else g1.BODY_NAMES.index(b.parent) for b in g1.BODIES)
_JOINT_OF_BODY = {g1.BODY_NAMES.index(joint.body): j for j, joint in enumerate(g1.JOINTS)}
_AXES = np.array([joint.axis for joint in g1.JOINTS], float)
_OFFSETS = np.array([body.pos for body in g1.BODIES], float)
_FIXED = np.array([body.quat for body in g1.BODIES], float)
_FIXED /= np.linalg.norm(_FIXED, axis=1, keepdims=True)


class BodyPoints(NamedTuple):
    """Origins of links in predicted states, and the way back from there to the features."""

    pos: np.ndarray
    """`[N, T, P, 3]`, m, now frame."""
    pull_back: Callable[[np.ndarray], np.ndarray]
    """From a cost's derivative by `pos`, `[N, T, P, 3]`, to that by the features, `[N, T, D]`."""


def body_points(features: np.ndarray, rep: Representation, bodies: Sequence[str]) -> BodyPoints:
    """Where links are, in the now frame, of features `[N, T, D]` of either representation.

    `body_pos` has links in each step's own yaw frame: `P = Rz(heading) p + (x, y, 0)` of the root,
    so that a push on a link moves and turns the root as well. `joint_rot` has joint angles: P by
    forward kinematics from the pelvis down to the links that are asked for.

    Raises:
        ConfigError: a name is no link's or occurs twice, or the representation is another.
    """
    indices = body_indices(tuple(bodies))
    if "body_pos" in rep.blocks:
        return _stored_points(features, rep, indices)
    if "joint_pos" in rep.blocks:
        return _jointed_points(features, rep, indices)
    raise ConfigError(
        f"Representation '{rep.name}' tells no links, expected a block body_pos or joint_pos."
    )


@functools.cache
def body_indices(bodies: tuple[str, ...]) -> tuple[int, ...]:
    """Places of links in `g1.BODY_NAMES`.

    Raises:
        ConfigError: none, an unknown or a repeated name.
    """
    for body in bodies:
        if body not in g1.BODY_NAMES:
            raise ConfigError(unknown_name("body", body, g1.BODY_NAMES))
    if not bodies or len(set(bodies)) != len(bodies):
        raise ConfigError(f"bodies are {', '.join(bodies) or 'none'}, expected each once.")
    return tuple(g1.BODY_NAMES.index(body) for body in bodies)


def root_heading(rotvec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heading of the x axis that a rotation vector `[..., 3]` turns, and its derivative by it.

    With e = R(r) x_axis, the heading is `atan2(e_y, e_x)` and changes under a rotation w, in fixed
    axes, by `w_z - e_z (e_x w_x + e_y w_y) / (e_x^2 + e_y^2)`. `[...]` rad, `[..., 3]`.
    """
    x_axis = quat_rotate(quat_from_axis_angle(rotvec), np.array([1.0, 0.0, 0.0]))
    x, y, z = np.moveaxis(x_axis, -1, 0)
    # A robot within 2 degrees of lying on its face or back heads nowhere; there this is bounded.
    ratio = -z / np.maximum(x**2 + y**2, 1e-3)
    by_rotation = np.stack([ratio * x, ratio * y, np.ones_like(x)], -1)
    return np.arctan2(y, x), _by_rotvec(rotvec, by_rotation)


def _by_rotvec(rotvec: np.ndarray, by_rotation: np.ndarray) -> np.ndarray:
    """From a derivative by a further rotation in fixed axes to that by the rotation vector.

    `J^T g` with J the left Jacobian of SO(3), `I + a [r]x + b [r]x^2`, `a = (1 - cos t) / t^2`,
    `b = (t - sin t) / t^3`, t = |r|.
    """
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    a = 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    # The difference of near numbers, divided by a small one: by its series where it is small.
    small = angle < 1e-2
    safe = np.where(small, 1.0, angle)
    series = 1 / 6 - angle**2 / 120 + angle**4 / 5040
    b = np.where(small, series, (safe - np.sin(safe)) / safe**3)
    once = cross(rotvec, by_rotation)
    return by_rotation - a * once + b * cross(rotvec, once)


def _stored_points(
    features: np.ndarray, rep: Representation, indices: tuple[int, ...]
) -> BodyPoints:
    blocks = rep.blocks
    columns = blocks["body_pos"].start + 3 * np.array(indices)[:, None] + np.arange(3)
    heading, by_rotvec = root_heading(features[..., blocks["root_rot"]])
    frame = Frame(features[..., blocks["root_pos"]] * (1.0, 1.0, 0.0), heading)
    turned = frame.to_world(features[..., columns])

    def pull_back(by_pos: np.ndarray) -> np.ndarray:
        result = np.zeros_like(features)
        result[..., columns] = frame.of(by_pos)
        result[..., blocks["root_pos"]] = by_pos.sum(-2) * (1.0, 1.0, 0.0)
        by_heading = turned[..., 0] * by_pos[..., 1] - turned[..., 1] * by_pos[..., 0]
        result[..., blocks["root_rot"]] = by_heading.sum(-1)[..., None] * by_rotvec
        return result

    return BodyPoints(turned + frame.origin[..., None, :], pull_back)


@functools.cache
def _chain(indices: tuple[int, ...]) -> tuple[int, ...]:
    """The links from the pelvis, itself left out, down to these; parents first."""
    links = set()
    for i in indices:
        while i > 0:
            links.add(i)
            i = _PARENTS[i]
    return tuple(sorted(links))  # depth first, so a parent's number is the smaller


def _jointed_points(
    features: np.ndarray, rep: Representation, indices: tuple[int, ...]
) -> BodyPoints:
    blocks, links = rep.blocks, _chain(indices)
    rotvec = features[..., blocks["root_rot"]]
    joint_pos = features[..., blocks["joint_pos"]]
    pos = {0: features[..., blocks["root_pos"]]}
    quat = {0: quat_from_axis_angle(rotvec)}
    for i in links:
        parent, j = _PARENTS[i], _JOINT_OF_BODY[i]
        turn = quat_from_axis_angle(joint_pos[..., j, None] * _AXES[j])
        pos[i] = pos[parent] + quat_rotate(quat[parent], _OFFSETS[i])
        quat[i] = quat_mul(quat[parent], quat_mul(_FIXED[i], turn))

    def pull_back(by_pos: np.ndarray) -> np.ndarray:
        # As forces at the points: what a link carries, and its moment about the link's origin,
        # go on to the parent; a joint feels the moment about its axis, the root all of it.
        force = {i: np.zeros_like(pos[0]) for i in (0, *links)}
        moment = {i: np.zeros_like(pos[0]) for i in (0, *links)}
        for k, i in enumerate(indices):
            force[i] += by_pos[..., k, :]
        result = np.zeros_like(features)
        for i in reversed(links):
            parent, j = _PARENTS[i], _JOINT_OF_BODY[i]
            axis = quat_rotate(quat[i], _AXES[j])
            result[..., blocks["joint_pos"].start + j] = dot(axis, moment[i])
            force[parent] += force[i]
            moment[parent] += moment[i] + cross(pos[i] - pos[parent], force[i])
        result[..., blocks["root_pos"]] = force[0]
        result[..., blocks["root_rot"]] = _by_rotvec(rotvec, moment[0])
        return result

    return BodyPoints(np.stack([pos[i] for i in indices], -2), pull_back)
