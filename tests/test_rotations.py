"""Quaternion functions against SciPy's rotations, on NumPy and torch."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from bm_envs import rotations as rot

RNG = np.random.default_rng(0)
# float64 products of unit numbers: a few roundings of 1.1e-16 each, a hundredfold margin.
TOL = 1e-13


def random_quats(n=500):
    q = RNG.normal(size=(n, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def scipy(q):
    return Rotation.from_quat(q[..., [1, 2, 3, 0]])


def same_rotation(a, b):
    return np.abs(np.abs((a * b).sum(-1)) - 1).max()


@pytest.fixture(params=["numpy", "torch"])
def convert(request):
    return np.asarray if request.param == "numpy" else torch.as_tensor


def test_products_and_rotation_agree_with_scipy(convert):
    a, b, v = random_quats(), random_quats(), RNG.normal(size=(500, 3))
    product = np.asarray(rot.quat_mul(convert(a), convert(b)))
    assert same_rotation(product, (scipy(a) * scipy(b)).as_quat()[:, [3, 0, 1, 2]]) < TOL
    turned = np.asarray(rot.quat_rotate(convert(a), convert(v)))
    np.testing.assert_allclose(turned, scipy(a).apply(v), atol=TOL * 10)
    back = np.asarray(rot.quat_rotate_inverse(convert(a), convert(turned)))
    np.testing.assert_allclose(back, v, atol=TOL * 10)
    np.testing.assert_allclose(
        np.asarray(rot.quat_to_matrix(convert(a))), scipy(a).as_matrix(), atol=TOL
    )


def test_exp_and_log_are_inverse_and_agree_with_scipy(convert):
    rotvec = RNG.normal(size=(500, 3))
    rotvec *= (RNG.uniform(0, np.pi - 1e-3, 500) / np.linalg.norm(rotvec, axis=1))[:, None]
    rotvec[:100] *= 1e-6  # the series near zero
    rotvec[0] = 0.0
    q = rot.quat_from_axis_angle(convert(rotvec))
    expected = Rotation.from_rotvec(rotvec).as_quat()[:, [3, 0, 1, 2]]
    assert same_rotation(np.asarray(q), expected) < TOL
    # The angle's error is that of atan2, relative to an angle of up to pi.
    np.testing.assert_allclose(np.asarray(rot.quat_to_rotvec(q)), rotvec, atol=1e-12)
    np.testing.assert_allclose(np.asarray(rot.quat_to_rotvec(-q)), rotvec, atol=1e-12)


def test_slerp_agrees_with_scipy_and_takes_the_short_way(convert):
    a, b = random_quats(50), random_quats(50)
    b[::2] = -b[::2]
    t = RNG.uniform(size=50)
    got = np.asarray(rot.quat_slerp(convert(a), convert(b), convert(t)))
    for i in range(50):
        expected = Slerp([0, 1], scipy(np.stack([a[i], b[i]])))(t[i]).as_quat()[[3, 0, 1, 2]]
        assert same_rotation(got[i : i + 1], expected[None]) < TOL


def test_angle_is_resolved_near_zero_and_ignores_the_sign(convert):
    a = random_quats()
    small = RNG.uniform(1e-9, 1e-6, 500)
    axis = RNG.normal(size=(500, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    step = np.asarray(rot.quat_from_axis_angle(axis * small[:, None]))
    b = np.asarray(rot.quat_mul(a, step))
    np.testing.assert_allclose(
        np.asarray(rot.quat_angle(convert(a), convert(-b))), small, atol=1e-15
    )
    np.testing.assert_allclose(
        np.asarray(rot.quat_angle(convert(a), convert(random_quats()))) <= np.pi + TOL, True
    )


def test_euler_yaw_and_axes(convert):
    roll, pitch, yaw = RNG.uniform(-1.4, 1.4, (3, 300))
    q = rot.quat_from_euler(convert(roll), convert(pitch), convert(yaw))
    expected = Rotation.from_euler("xyz", np.stack([roll, pitch, yaw], 1))
    assert same_rotation(np.asarray(q), expected.as_quat()[:, [3, 0, 1, 2]]) < TOL
    # With pitch inside +-pi/2 the heading of the x axis is the yaw of fixed-axis Euler angles.
    np.testing.assert_allclose(np.asarray(rot.quat_yaw(q)), yaw, atol=1e-12)
    heading = Rotation.from_euler("z", yaw[:, None]).as_quat()[:, [3, 0, 1, 2]]
    assert same_rotation(np.asarray(rot.yaw_quat(q)), heading) < TOL
    matrix = expected.as_matrix()
    np.testing.assert_allclose(np.asarray(rot.quat_to_matrix(q)), matrix, atol=TOL)
    np.testing.assert_allclose(np.asarray(rot.quat_axes(q)), matrix.swapaxes(1, 2), atol=TOL)


def test_turns_about_the_vertical(convert):
    yaw, vector, quat = RNG.uniform(-3, 3, 300), RNG.normal(size=(300, 5, 3)), random_quats()[:300]
    half, whole = (np.stack([np.cos(a), np.sin(a)], 1) for a in (yaw / 2, yaw))
    turn = Rotation.from_euler("z", yaw[:, None])
    got = np.asarray(rot.turn_vectors(convert(whole), convert(vector)))
    for body in range(5):
        np.testing.assert_allclose(got[:, body], turn.apply(vector[:, body]), atol=TOL)
    got = np.asarray(rot.turn_quats(convert(half), convert(quat[:, None])))[:, 0]
    assert same_rotation(got, (turn * scipy(quat)).as_quat()[:, [3, 0, 1, 2]]) < TOL


def test_float32_stays_float32(convert):
    q = convert(random_quats().astype(np.float32))
    for value in (
        rot.quat_mul(q, q), rot.quat_to_rotvec(q), rot.quat_axes(q), rot.yaw_quat(q),
        rot.quat_from_axis_angle(q[..., 1:]), rot.quat_angle(q, q),
    ):  # fmt: skip
        assert "float32" in str(value.dtype)


def test_a_matrix_back_to_its_quaternion():
    """Also at half turns about each axis, where three of the four usual formulas divide by zero."""
    half = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    near = half + 1e-9 * RNG.normal(size=(4, 4))
    q = np.concatenate([random_quats(), half, near / np.linalg.norm(near, axis=1, keepdims=True)])
    found = rot.quat_from_matrix(scipy(q).as_matrix())
    assert same_rotation(found, q) < TOL and (found[:, 0] >= 0).all()
    shaped = rot.quat_from_matrix(scipy(q[:6]).as_matrix().reshape(2, 3, 3, 3))
    np.testing.assert_array_equal(shaped.reshape(6, 4), found[:6])
