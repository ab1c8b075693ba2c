"""Signed distance fields against small differences and what a distance must obey."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bm_envs.diffusion.fields import Cylinders, Distance
from bm_envs.errors import ConfigError

# Sums of a few float64 numbers of size 10 or less, divisions by lengths included.
ROUNDING = 1e-12
# Central differences, h = 1e-6: rounding 2e-16 * 10 / 1e-6 = 2e-9; h^2 / 6 times a third derivative
# of 1 / d^2 at most, d being the distance from a center, which is 1e-4 or more here.
STEP, SLOPE = 1e-6, 1e-4


def posts(seed=0):
    """Three of each of two environments, the last of the second left out."""
    rng = np.random.default_rng(seed)
    center, radius = rng.uniform(-2, 2, (2, 3, 2)), rng.uniform(0.1, 0.6, (2, 3))
    center[1, -1] = np.nan
    return Cylinders(center, radius)


POSTS = posts()


def points(count=2000, size=3, seed=1, spread=3.0):
    return np.random.default_rng(seed).uniform(-spread, spread, (2, count, size))


def test_gradient_is_the_distances_derivative():
    p = points()
    found = POSTS.at(p)
    assert (found.value < 0).any() and (found.value > 0.5).any(), "premise: inside and outside"
    for axis in range(3):
        shift = STEP * np.eye(3)[axis]
        slope = (POSTS.at(p + shift).value - POSTS.at(p - shift).value) / (2 * STEP)
        wrong = np.abs(found.gradient[..., axis] - slope) > SLOPE
        # Where two posts are equally near, the distance has a kink: h = 1e-6 of it in 2000 points
        # in a plane some meters wide falls between by a chance of about 1e-3 per kink.
        assert wrong.sum() <= 1
    np.testing.assert_allclose(np.linalg.norm(found.gradient, axis=-1), 1, atol=ROUNDING)
    assert not found.gradient[..., 2].any()


@given(p=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)))
def test_the_way_along_the_gradient_ends_on_the_surface(p):
    """Of one post: the nearest surface point is `p - distance * gradient`, also from inside."""
    field = Cylinders(np.array([[[1.0, 0]]]), np.array([[0.7]]))
    found = field.at(p)
    on = p - found.value[..., None] * found.gradient
    np.testing.assert_allclose(field.at(on).value, 0, atol=ROUNDING)


@given(
    a=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)),
    b=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)),
)
def test_distances_differ_by_no_more_than_the_way_between(a, b):
    way = np.linalg.norm(a - b, axis=-1)
    assert (np.abs(POSTS.at(a).value - POSTS.at(b).value) <= way + ROUNDING).all()


def test_a_post_by_hand():
    post = Cylinders(np.array([[[3.0, 4.0]]]), np.array([[1.0]]))
    found = post.at(np.array([[[0.0, 0.0, 9.0], [3.0, 4.5, -9.0], [3.0, 4.0, 0.0]]]))
    np.testing.assert_allclose(found.value, [[4, -0.5, -1]], atol=ROUNDING)
    expected = [[[-0.6, -0.8, 0], [0, 1, 0], [1, 0, 0]]]  # from the very center: along x
    np.testing.assert_allclose(found.gradient, expected, atol=ROUNDING)


def test_every_environment_has_its_own_and_nan_is_none():
    """As one environment at a time, and for the second as without its third post."""
    p = points(200)
    both = POSTS.at(p)
    for i, kept in ((0, 3), (1, 2)):
        alone = Cylinders(POSTS.center[i : i + 1, :kept], POSTS.radius[i : i + 1, :kept])
        np.testing.assert_array_equal(alone.at(p[i : i + 1]).value[0], both.value[i])
        np.testing.assert_array_equal(alone.at(p[i : i + 1]).gradient[0], both.gradient[i])
    nothing = Cylinders(np.full_like(POSTS.center, np.nan), POSTS.radius)
    found = nothing.at(p)
    assert np.isposinf(found.value).all() and not found.gradient.any()


def test_one_set_serves_all_environments_and_any_shape_of_points():
    post = Cylinders(np.array([[[1.0, 0.0], [0.0, 2.0]]]), np.array([[0.1, 0.2]]))
    p = points(24).reshape(2, 4, 6, 3)
    found = post.at(p)
    assert found.value.shape == (2, 4, 6) and found.gradient.shape == p.shape
    np.testing.assert_array_equal(found.value[1, 2, 3], post.at(p[1:, 2, 3:4]).value[0, 0])
    in_plane = post.at(p[..., :2])
    np.testing.assert_array_equal(in_plane.value, found.value)
    np.testing.assert_array_equal(in_plane.gradient, found.gradient[..., :2])


def test_a_robot_that_is_nowhere_is_near_nothing():
    p = np.full((2, 1, 3), np.nan)
    found = POSTS.at(p)
    assert isinstance(found, Distance) and not (found.value < 1).any()
    assert not found.gradient.any()


# --- bad input ------------------------------------------------------------------------------------

CENTER, RADIUS = np.zeros((2, 3, 2)), np.ones((2, 3))
NUMBERS = "expected finite numbers of shape"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Cylinders(np.zeros((3, 2)), RADIUS),
         f"Cylinders: center has shape (3, 2), {NUMBERS} [N, M, 2] or NaN."),
        (lambda: Cylinders(CENTER, np.ones(3)),
         f"Cylinders: radius has shape (3,), {NUMBERS} [2, 3] or NaN."),
        (lambda: Cylinders(CENTER, -0.5 * RADIUS),
         "Cylinders: radius is -0.5 m somewhere, expected 0 or more."),
        (lambda: Cylinders(CENTER, np.inf * RADIUS),
         f"Cylinders: radius is not finite everywhere, {NUMBERS} [2, 3] or NaN."),
        (lambda: Cylinders("here", RADIUS),
         f"Cylinders: center are not numbers, {NUMBERS} [N, M, 2] or NaN."),
        (lambda: Cylinders(CENTER, RADIUS).at(np.zeros((3, 1, 2))),
         "Cylinders: points are of 3 environments, expected 2."),
        (lambda: Cylinders(CENTER, RADIUS).at(np.zeros(2)),
         "Cylinders: points have shape (2,), expected [N, ..., 2 or 3]."),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        make()
