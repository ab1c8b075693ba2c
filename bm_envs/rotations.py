"""Quaternions and rotation matrices on the last axis, for NumPy and torch alike.

Quaternions are w, x, y, z and of unit length; `q` and `-q` are one rotation. `quat_rotate(q, v)`
takes coordinates in the frame that `q` describes to the frame it is described in (body to world).
Every function broadcasts over leading axes and keeps the dtype it is given.
"""

from __future__ import annotations

import functools
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


# A product of two quaternions is a bilinear form, `c_n = sum_ij T_ijn a_i b_j`. As two matrix
# products that repeat the factors, one elementwise product and one matrix product that collects, it
# takes four calls of the array library; written out by components it takes thirty, and time with
# them where arrays are small.
_LEFT = np.repeat(np.eye(4), 4, axis=1)  # (w, x, y, z) -> w w w w x x ..., `[4, 16]`
_RIGHT = np.tile(np.eye(4), 4)  # (w, x, y, z) -> w x y z w x ..., `[4, 16]`


def _table(*outputs: str) -> np.ndarray:
    """T as `[16, n]`; an output is a sum of signed products: `"+ww-xx"` is `a_w b_w - a_x b_x`."""
    table = np.zeros((16, len(outputs)))
    for column, terms in enumerate(outputs):
        for sign, left, right in zip(terms[0::3], terms[1::3], terms[2::3], strict=True):
            table["wxyz".index(left) * 4 + "wxyz".index(right), column] += int(f"{sign}1")
    return table


_TABLES = {
    "product": _table("+ww-xx-yy-zz", "+wx+xw+yz-zy", "+wy-xz+yw+zx", "+wz+xy-yx+zw"),
    "matrix": _table(  # of one unit quaternion, row by row
        "+ww+xx-yy-zz", "+xy+yx-wz-zw", "+xz+zx+wy+yw",
        "+xy+yx+wz+zw", "+ww-xx+yy-zz", "+yz+zy-wx-xw",
        "+xz+zx-wy-yw", "+yz+zy+wx+xw", "+ww-xx-yy+zz",
    ),
}  # fmt: skip
_TABLES["heading"] = _TABLES["matrix"][:, [0, 3]]
_TABLES["axes"] = _TABLES["matrix"][:, [0, 3, 6, 1, 4, 7, 2, 5, 8]]


# From `(cos, sin)` of a heading to the matrix that turns rows `(x, y)` by it, and of half of it to
# the one that turns rows `(w, x, y, z)`.
_TURN_XY = np.array([[1.0, 0, 0, 1], [0, 1, -1, 0]])
_TURN_QUAT = np.stack([np.eye(4).ravel(), np.eye(4)[::-1].ravel() * np.repeat([1, 1, -1, -1], 4)])
_CONJUGATE = np.array([1.0, -1.0, -1.0, -1.0])


@functools.cache
def _converted(name: str, dtype: Any, device: Any) -> Array:
    value = _CONSTANTS[name]
    if device is None:
        return value.astype(dtype)
    return sys.modules["torch"].as_tensor(value, dtype=dtype, device=device)


_CONSTANTS = {
    "left": _LEFT, "right": _RIGHT, "conjugate": _CONJUGATE, "turn_xy": _TURN_XY,
    "turn_quat": _TURN_QUAT, **_TABLES,
}  # fmt: skip


def _constant(name: str, like: Array) -> Array:
    """A constant in the type of an array."""
    return _converted(name, like.dtype, None if isinstance(like, np.ndarray) else like.device)


# NumPy's BLAS starts threads for products of more than 2^18 multiplications. They save little here
# and then wait for more, busily, on the cores where physics should run.
_BLOCK = 1024


def _rows_times(rows: Array, matrix: Array) -> Array:
    """`[..., m] @ [m, n]` as a product of plain matrices: a stack would be multiplied singly."""
    shape, flat = (*rows.shape[:-1], matrix.shape[1]), rows.reshape(-1, rows.shape[-1])
    if len(flat) <= _BLOCK or not isinstance(flat, np.ndarray):
        return (flat @ matrix).reshape(shape)
    out = np.empty((len(flat), matrix.shape[1]), np.result_type(flat, matrix))
    for start in range(0, len(flat), _BLOCK):
        np.matmul(flat[start : start + _BLOCK], matrix, out=out[start : start + _BLOCK])
    return out.reshape(shape)


def _bilinear(form: str, a: Array, b: Array) -> Array:
    """`[..., 4]`, `[..., 4]` -> `[..., n]`."""
    products = _rows_times(a, _constant("left", a)) * _rows_times(b, _constant("right", b))
    return _rows_times(products, _constant(form, a))


def quat_mul(a: Array, b: Array) -> Array:
    """Hamilton product `a b`: first the rotation `b`, then `a`. `[..., 4]`."""
    return _bilinear("product", a, b)


def quat_conj(q: Array) -> Array:
    """The inverse rotation. `[..., 4]`."""
    return q * _constant("conjugate", q)


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
    """Heading of the x axis about world z, rad: `atan2(R10, R00)`. `[...]`."""
    x_axis = _bilinear("heading", q, q)
    return namespace(q).arctan2(x_axis[..., 1], x_axis[..., 0])


def turn_vectors(heading: Array, vector: Array) -> Array:
    """Turn `vector [N, K, 3]` about z by `heading [N, 2]` = (cos, sin)."""
    turn = (heading @ _constant("turn_xy", heading)).reshape(-1, 2, 2)
    return namespace(vector).concatenate([vector[..., :2] @ turn, vector[..., 2:]], -1)


def turn_quats(half: Array, quat: Array) -> Array:
    """Turn `quat [N, K, 4]` about z by twice the angle of which `half [N, 2]` is (cos, sin)."""
    return quat @ (half @ _constant("turn_quat", half)).reshape(-1, 4, 4)


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
    return _bilinear("matrix", q, q).reshape(*q.shape[:-1], 3, 3)


def quat_axes(q: Array) -> Array:
    """The rotated frame's axes x, y, z, one a row: the matrix transposed. `[..., 3, 3]`.

    `v @ quat_axes(q).T` takes `v` into the frame, `v @ quat_axes(q)` out of it.
    """
    return _bilinear("axes", q, q).reshape(*q.shape[:-1], 3, 3)
