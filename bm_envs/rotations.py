"""Quaternions and rotation matrices on the last axis, for NumPy and torch alike.

Quaternions are w, x, y, z and of unit length; `q` and `-q` are one rotation. `quat_rotate(q, v)`
takes coordinates in the frame that `q` describes to the frame it is described in (body to world).
Every function broadcasts over leading axes and keeps the dtype it is given.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor


def namespace(x: Array) -> Any:
    """The module (`numpy` or `torch`) whose functions take `x`."""
    torch = sys.modules.get("torch")  # never imported from here: NumPy users need no torch
    return torch if torch is not None and isinstance(x, torch.Tensor) else np


def dot(a: Array, b: Array) -> Array:
    """Scalar product on the last axis. `[..., D]` -> `[...]`."""
    return np.vecdot(a, b) if isinstance(a, np.ndarray) else (a * b).sum(-1)


def _stack(parts: list[Array]) -> Array:
    xp = namespace(parts[0])
    return xp.stack(parts, -1)


def quat_mul(a: Array, b: Array) -> Array:
    """Hamilton product `a b`: first the rotation `b`, then `a`. `[..., 4]`."""
    aw, ax, ay, az = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bw, bx, by, bz = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    return _stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ])  # fmt: skip


def quat_conj(q: Array) -> Array:
    """The inverse rotation. `[..., 4]`."""
    return _stack([q[..., 0], -q[..., 1], -q[..., 2], -q[..., 3]])


def quat_normalize(q: Array) -> Array:
    """`q` scaled to unit length. `[..., 4]`."""
    return q / dot(q, q)[..., None] ** 0.5


def cross(a: Array, b: Array) -> Array:
    """Cross product on the last axis, several times as fast as `numpy.cross`. `[..., 3]`."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return _stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def quat_rotate(q: Array, v: Array) -> Array:
    """`R(q) v`. `q [..., 4]`, `v [..., 3]` -> `[..., 3]`."""
    xyz = q[..., 1:]
    t = 2.0 * cross(xyz, v)
    return v + q[..., :1] * t + cross(xyz, t)


def quat_rotate_inverse(q: Array, v: Array) -> Array:
    """`R(q)^T v`. `q [..., 4]`, `v [..., 3]` -> `[..., 3]`."""
    xyz = q[..., 1:]
    t = 2.0 * cross(v, xyz)
    return v + q[..., :1] * t + cross(t, xyz)


def quat_from_axis_angle(rotvec: Array) -> Array:
    """Exponential map: rotation vector (axis times angle, rad) `[..., 3]` -> `[..., 4]`."""
    xp = namespace(rotvec)
    angle = ((rotvec * rotvec).sum(-1)[..., None]) ** 0.5
    half = 0.5 * angle
    # sin(x)/x by its series near zero, where the quotient is 0/0.
    small = half < 1e-4
    safe = xp.where(small, xp.ones_like(half), half)
    sinc = xp.where(small, 1.0 - half * half / 6.0, xp.sin(safe) / safe)
    xyz = 0.5 * sinc * rotvec
    return _stack([xp.cos(half)[..., 0], xyz[..., 0], xyz[..., 1], xyz[..., 2]])


def quat_to_rotvec(q: Array) -> Array:
    """Logarithm: the shortest rotation vector, rad. `[..., 4]` -> `[..., 3]`."""
    xp = namespace(q)
    # q and -q are one rotation; the one with w >= 0 is the short way round.
    q = xp.where(q[..., :1] < 0, -q, q)
    xyz = q[..., 1:]
    norm = ((xyz * xyz).sum(-1)[..., None]) ** 0.5
    # atan2 and not acos: acos near 1 loses half the digits.
    angle = 2.0 * xp.arctan2(norm, q[..., :1])
    small = norm < 1e-7
    return xyz * xp.where(
        small, 2.0 * xp.ones_like(norm), angle / xp.where(small, xp.ones_like(norm), norm)
    )


def quat_angle(a: Array, b: Array) -> Array:
    """Angle of the rotation between `a` and `b`, rad in [0, pi]. `[..., 4]` -> `[...]`."""
    xp = namespace(a)
    # The parts of conj(a) b; |w| makes it the shorter of the two ways.
    aw, ax, ay, az = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bw, bx, by, bz = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    w = aw * bw + ax * bx + ay * by + az * bz
    x = aw * bx - ax * bw - ay * bz + az * by
    y = aw * by + ax * bz - ay * bw - az * bx
    z = aw * bz - ax * by + ay * bx - az * bw
    return 2.0 * xp.arctan2((x * x + y * y + z * z) ** 0.5, abs(w))


def quat_slerp(a: Array, b: Array, t: Array) -> Array:
    """Spherical interpolation from `a` (t = 0) to `b` (t = 1) along the shorter arc.

    Args:
        a: `[..., 4]`.
        b: `[..., 4]`.
        t: `[...]` fraction.
    """
    rotvec = quat_to_rotvec(quat_mul(b, quat_conj(a)))
    return quat_mul(quat_from_axis_angle(t[..., None] * rotvec), a)


def quat_yaw(q: Array) -> Array:
    """Heading of the x axis about world z, rad: `atan2(2(wz+xy), 1-2(y^2+z^2))`. `[...]`."""
    xp = namespace(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return xp.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


# From `(cos, sin)` of a heading to the matrix that turns rows `(x, y)` by it, and of half of it to
# the one that turns rows `(w, x, y, z)`.
_TURNS = {
    "xy": np.array([[1.0, 0, 0, 1], [0, 1, -1, 0]]),
    "quat": np.stack([np.eye(4).ravel(), np.eye(4)[::-1].ravel() * np.repeat([1, 1, -1, -1], 4)]),
}


@functools.cache
def _turns(name: str, dtype: Any, device: Any) -> Array:
    if device is None:
        return _TURNS[name].astype(dtype)
    return sys.modules["torch"].as_tensor(_TURNS[name], dtype=dtype, device=device)


def _turn_matrices(name: str, cos_sin: Array) -> Array:
    """`[N, 2]` -> `[N, m, m]`."""
    device = None if isinstance(cos_sin, np.ndarray) else cos_sin.device
    size = 2 if name == "xy" else 4
    return (cos_sin @ _turns(name, cos_sin.dtype, device)).reshape(-1, size, size)


def wrapped(angle: Array) -> Array:
    """An angle, rad, in (-pi, pi]."""
    return math.pi - (math.pi - angle) % (2 * math.pi)


def turn_vectors(heading: Array, vector: Array) -> Array:
    """Turn `vector [N, K, 3]` about z by `heading [N, 2]` = (cos, sin)."""
    turned = vector[..., :2] @ _turn_matrices("xy", heading)
    return namespace(vector).concatenate([turned, vector[..., 2:]], -1)


def turn_quats(half: Array, quat: Array) -> Array:
    """Turn `quat [N, K, 4]` about z by twice the angle of which `half [N, 2]` is (cos, sin)."""
    return quat @ _turn_matrices("quat", half)


def yaw_quat(q: Array) -> Array:
    """The rotation about world z by `quat_yaw(q)`. `[..., 4]`.

    From the half-angle identities of `(cos yaw, sin yaw) ~ (c, s)`, without an arc tangent.
    """
    xp = namespace(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    s = 2.0 * (w * z + x * y)
    c = 1.0 - 2.0 * (y * y + z * z)
    half = 0.5 * xp.arctan2(s, c)
    zero = xp.zeros_like(half)
    return _stack([xp.cos(half), zero, zero, xp.sin(half)])


def quat_from_euler(roll: Array, pitch: Array, yaw: Array) -> Array:
    """Roll about x, then pitch about y, then yaw about z, all fixed axes, rad. `[..., 4]`."""
    xp = namespace(roll)
    cr, sr = xp.cos(0.5 * roll), xp.sin(0.5 * roll)
    cp, sp = xp.cos(0.5 * pitch), xp.sin(0.5 * pitch)
    cy, sy = xp.cos(0.5 * yaw), xp.sin(0.5 * yaw)
    return _stack([
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ])  # fmt: skip


def quat_to_matrix(q: Array) -> Array:
    """Rotation matrix. `[..., 4]` -> `[..., 3, 3]`."""
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = _stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ])  # fmt: skip
    return rows.reshape(rows.shape[:-1] + (3, 3))


def quat_from_matrix(matrix: Array) -> Array:
    """The rotation as a quaternion with w >= 0. `[..., 3, 3]` -> `[..., 4]`; NumPy only.

    Four times the outer product of the quaternion with itself is linear in the matrix; of its rows
    the one with the largest diagonal is free of cancellation.
    """
    m = np.asarray(matrix)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = (m[..., k, j] - m[..., j, k] for j, k in ((1, 2), (2, 0), (0, 1)))
    xy, yz, zx = (m[..., j, k] + m[..., k, j] for j, k in ((0, 1), (1, 2), (2, 0)))
    outer = np.stack([
        _stack([1 + xx + yy + zz, wx, wy, wz]),
        _stack([wx, 1 + xx - yy - zz, xy, zx]),
        _stack([wy, xy, 1 - xx + yy - zz, yz]),
        _stack([wz, zx, yz, 1 - xx - yy + zz]),
    ], -2)  # fmt: skip
    largest = np.diagonal(outer, axis1=-2, axis2=-1).argmax(-1)
    q = np.take_along_axis(outer, largest[..., None, None], -2)[..., 0, :]
    return quat_normalize(np.where(q[..., :1] < 0, -q, q))


def quat_axes(q: Array) -> Array:
    """The rotated frame's axes x, y, z, one a row: the matrix transposed. `[..., 3, 3]`.

    `v @ quat_axes(q).T` takes `v` into the frame, `v @ quat_axes(q)` out of it.
    """
    return quat_to_matrix(q).swapaxes(-1, -2)
