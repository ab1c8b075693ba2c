"""States of the robot, and how they are written as numbers in frames that move with it.

A window of states has `PAST` steps that are known, of which step `NOW` is the present; a diffusion
model's windows go on after it. Two representations of the same states, BeyondMimic sec. IV:
`body_pos` (positions and velocities of all links) and `joint_rot` (joint angles and velocities),
each followed by the same root block. The observation of the guided tasks holds `joint_rot`; models
are of one or the other.

Frames. The *yaw frame* of step i has its origin under the root (its x and y, at height zero), its z
axis upward and its x axis along the root's heading. The *now frame* is the yaw frame of the step
that is now. Heights are therefore absolute, and neither where in the world the robot is nor which
way it faces shows.

| block of `body_pos` | size | of step i, in the frame of |
|---|---|---|
| body_pos | 90 | link origins, m; step i |
| body_lin_vel | 90 | their velocities less the root's, m/s; step i |
| root_pos | 3 | m; now |
| root_rot | 3 | rotation vector of the root from the now frame, rad |
| root_lin_vel | 3 | m/s; now |
| root_ang_vel | 3 | rad/s; now |

`joint_rot` has joint_pos (29) and joint_vel (29) in place of the first two. Functions take NumPy
arrays and torch tensors; a window's steps are the axis before the last one of its features.

Source: arXiv 2508.08241v1, sec. IV-B; the authors' prototype (`WhoKnowsssss/
diffusion_implementation`) for what the paper leaves open: which links, the root's velocity
subtracted, the root's angular velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1, kinematics
from bm_envs.rotations import (
    Array,
    namespace,
    quat_conj,
    quat_from_axis_angle,
    quat_mul,
    quat_normalize,
    quat_rotate,
    quat_to_rotvec,
    quat_yaw,
)

B, J = g1.NUM_BODIES, g1.NUM_JOINTS
NOW = 3  # step of a window that is the present
PAST = NOW + 1  # states that are known, the present one included


class States(NamedTuple):
    """States of the robot over the steps of windows, `[..., T, ...]`; world axes.

    A representation needs either the joints or the bodies, and gives back the one it holds.
    """

    root_pos: Array
    """`[..., T, 3]`, m."""
    root_quat: Array
    """`[..., T, 4]`, w x y z."""
    root_lin_vel: Array
    """`[..., T, 3]`, m/s, of the pelvis origin."""
    root_ang_vel: Array
    """`[..., T, 3]`, rad/s."""
    joint_pos: Array | None = None
    """`[..., T, 29]`, rad."""
    joint_vel: Array | None = None
    """`[..., T, 29]`, rad/s."""
    body_pos: Array | None = None
    """`[..., T, 30, 3]`, m."""
    body_lin_vel: Array | None = None
    """`[..., T, 30, 3]`, m/s, of link origins."""


class Frame(NamedTuple):
    """A yaw frame in the world: one for a window, `[...]`, or one for each of its steps."""

    origin: Array
    """`[..., 3]`, m; z is 0."""
    yaw: Array
    """`[...]`, rad."""

    def of(self, vector: Array) -> Array:
        """World axes to the frame's. `[..., n, 3]`."""
        return _turn(vector, -self.yaw[..., None])

    def to_world(self, vector: Array) -> Array:
        """The frame's axes to the world's. `[..., n, 3]`."""
        return _turn(vector, self.yaw[..., None])


class Representation(NamedTuple):
    """One way to write states as numbers."""

    name: str
    blocks: dict[str, slice]
    """Where each block of the table above stands."""
    encode: Callable[[States, int], Array]
    """`(states, now) -> features [..., T, D]`."""
    decode: Callable[[Array, Frame], States]
    """`(features, now_frame(states, now)) -> states`."""
    mirror: tuple[np.ndarray, np.ndarray]
    """Left-right mirror: `mirrored = sign * features[..., index]`, `[D]` each."""

    @property
    def size(self) -> int:
        return len(self.mirror[0])


def states_of(qpos: np.ndarray, qvel: np.ndarray) -> States:
    """States, links included, of `qpos [..., 36]` and `qvel [..., 35]`. float32.

    The velocity that MuJoCo keeps of a free joint is the pelvis origin's in the world, its angular
    velocity is in the pelvis' axes.
    """
    shape = qpos.shape[:-1]
    flat_pos, flat_vel = (v.reshape(-1, v.shape[-1]).astype(np.float64) for v in (qpos, qvel))
    quat = quat_normalize(flat_pos[:, 3:7])
    spin = quat_rotate(quat, flat_vel[:, 3:6])
    links = kinematics.link_states(
        flat_pos[:, :3], quat, flat_pos[:, 7:], flat_vel[:, :3], spin, flat_vel[:, 6:]
    )
    values = (
        flat_pos[:, :3], quat, flat_vel[:, :3], spin, flat_pos[:, 7:], flat_vel[:, 6:],
        links.pos, links.lin_vel,
    )  # fmt: skip
    return States(*(v.reshape(*shape, *v.shape[1:]).astype(np.float32) for v in values))


def yaw_frames(states: States) -> Frame:
    """The yaw frame of every step. `[..., T]`."""
    x_y = states.root_pos[..., :2]
    origin = namespace(x_y).concatenate([x_y, 0 * x_y[..., :1]], -1)
    return Frame(origin, quat_yaw(states.root_quat))


def now_frame(states: States, now: int) -> Frame:
    """The yaw frame of step `now` of each window. `[...]`."""
    frames = yaw_frames(states)
    return Frame(frames.origin[..., now, :], frames.yaw[..., now])


def encode_body_pos(states: States, now: int) -> Array:
    """Features of `body_pos`, `[..., T, 192]`, of windows whose step `now` is the present."""
    assert states.body_pos is not None and states.body_lin_vel is not None
    frames = yaw_frames(states)
    body_pos = frames.of(states.body_pos - frames.origin[..., None, :])
    body_lin_vel = frames.of(states.body_lin_vel - states.root_lin_vel[..., None, :])
    parts = [_flat(body_pos), _flat(body_lin_vel), *_root_blocks(states, now)]
    return namespace(body_pos).concatenate(parts, -1)


def decode_body_pos(features: Array, frame: Frame) -> States:
    """States whose `encode_body_pos` is `features`, the now frame being at `frame`."""
    root = _root_states(features[..., 6 * B :], frame)
    frames = yaw_frames(root)
    vectors = features[..., : 6 * B].reshape(*features.shape[:-1], 2 * B, 3)
    return root._replace(
        body_pos=frames.to_world(vectors[..., :B, :]) + frames.origin[..., None, :],
        body_lin_vel=frames.to_world(vectors[..., B:, :]) + root.root_lin_vel[..., None, :],
    )


def encode_joint_rot(states: States, now: int) -> Array:
    """Features of `joint_rot`, `[..., T, 70]`."""
    parts = [states.joint_pos, states.joint_vel, *_root_blocks(states, now)]
    return namespace(states.root_pos).concatenate(parts, -1)


def decode_joint_rot(features: Array, frame: Frame) -> States:
    """States whose `encode_joint_rot` is `features`, the now frame being at `frame`."""
    root = _root_states(features[..., 2 * J :], frame)
    return root._replace(joint_pos=features[..., :J], joint_vel=features[..., J : 2 * J])


def representation(name: str) -> Representation:
    """The representation of that name.

    Raises:
        ConfigError: no such name.
    """
    if name not in REPRESENTATIONS:
        raise ConfigError(unknown_name("representation", name, REPRESENTATIONS))
    return REPRESENTATIONS[name]


# --- parts ----------------------------------------------------------------------------------------


def _turn(vector: Array, yaw: Array) -> Array:
    """`vector [..., 3]` turned about z by `yaw [...]`, rad."""
    xp = namespace(vector)
    c, s = xp.cos(yaw), xp.sin(yaw)
    x, y = vector[..., 0], vector[..., 1]
    return xp.stack([c * x - s * y, s * x + c * y, vector[..., 2]], -1)


def _flat(vectors: Array) -> Array:
    return vectors.reshape(*vectors.shape[:-2], -1)


def _yaw_quat(yaw: Array) -> Array:
    xp = namespace(yaw)
    zero = 0 * yaw
    return xp.stack([xp.cos(0.5 * yaw), zero, zero, xp.sin(0.5 * yaw)], -1)


def _root_blocks(states: States, now: int) -> list[Array]:
    frame = now_frame(states, now)
    # The rotation vector is the short way round, so at most pi long: `q` and `-q` are one rotation.
    turn = quat_mul(quat_conj(_yaw_quat(frame.yaw))[..., None, :], states.root_quat)
    return [
        frame.of(states.root_pos - frame.origin[..., None, :]),
        quat_to_rotvec(turn),
        frame.of(states.root_lin_vel),
        frame.of(states.root_ang_vel),
    ]


def _root_states(blocks: Array, frame: Frame) -> States:
    """States of the root from its four blocks, `[..., T, 12]`."""
    turn = quat_from_axis_angle(blocks[..., 3:6])
    return States(
        frame.to_world(blocks[..., :3]) + frame.origin[..., None, :],
        quat_mul(_yaw_quat(frame.yaw)[..., None, :], turn),
        frame.to_world(blocks[..., 6:9]),
        frame.to_world(blocks[..., 9:12]),
    )


ROOT_BLOCKS = ("root_pos", "root_rot", "root_lin_vel", "root_ang_vel")
_POLAR, _AXIAL = (1.0, -1.0, 1.0), (-1.0, 1.0, -1.0)  # reflection in the x-z plane


def _make(
    name: str, first: dict[str, tuple[np.ndarray, np.ndarray]],
    encode: Callable[[States, int], Array], decode: Callable[[Array, Frame], States],
) -> Representation:  # fmt: skip
    """A representation from the mirror maps of its first blocks; the root's follow."""
    straight = np.arange(3)
    signs = dict(zip(ROOT_BLOCKS, (_POLAR, _AXIAL, _POLAR, _AXIAL), strict=True))
    maps = first | {name: (straight, np.array(sign)) for name, sign in signs.items()}
    blocks, start = {}, 0
    for block, (index, _) in maps.items():
        blocks[block] = slice(start, start + len(index))
        start += len(index)
    index = np.concatenate([blocks[block].start + index for block, (index, _) in maps.items()])
    sign = np.concatenate([sign for _, sign in maps.values()])
    return Representation(name, blocks, encode, decode, (index, sign))


def _bodies_mirror() -> tuple[np.ndarray, np.ndarray]:
    """Mirror of polar vectors of all links, flattened. `[90]` each."""
    other = [g1.BODY_NAMES.index(g1.mirror_name(name)) for name in g1.BODY_NAMES]
    index = 3 * np.array(other)[:, None] + np.arange(3)
    return index.ravel(), np.tile(_POLAR, B)


REPRESENTATIONS: dict[str, Representation] = {
    rep.name: rep
    for rep in (
        _make(
            "body_pos", {"body_pos": _bodies_mirror(), "body_lin_vel": _bodies_mirror()},
            encode_body_pos, decode_body_pos,
        ),
        _make(
            "joint_rot", {"joint_pos": g1.mirror_map(), "joint_vel": g1.mirror_map()},
            encode_joint_rot, decode_joint_rot,
        ),
    )
}  # fmt: skip
