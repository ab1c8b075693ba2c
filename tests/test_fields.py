"""Signed distance fields against brute force, small differences and what a distance must obey."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bm_envs.diffusion.fields import Boxes, Cylinders, Distance, Grid, Spheres, Union
from bm_envs.errors import ConfigError

# Sums of a few float64 numbers of size 10 or less, divisions by lengths included.
ROUNDING = 1e-12
# Central differences, h = 1e-6: rounding 2e-16 * 10 / 1e-6 = 2e-9; h^2 / 6 times a third derivative
# of 1 / d^2 at most, d being the distance from a center or an edge, which is 1e-4 or more here.
STEP, SLOPE = 1e-6, 1e-4


def two_sets(seed=0):
    """Fields of two environments with three obstacles each, the last of the second left out."""
    rng = np.random.default_rng(seed)

    def gap(values):
        values[1, -1] = np.nan
        return values

    center = rng.uniform(-2, 2, (2, 3, 3))
    half, yaw = rng.uniform(0.1, 0.8, (2, 3, 3)), rng.uniform(-4, 4, (2, 3))
    radius = rng.uniform(0.1, 0.6, (2, 3))
    image = rng.random((2, 12, 9)) < 0.2
    image[:, 4:7, 3:6] = True  # so that some pixels have no free neighbor
    fields = {
        "spheres": Spheres(center, gap(radius.copy())),
        "cylinders": Cylinders(gap(center[..., :2].copy()), radius),
        "walls": Boxes(center[..., :2], half[..., :2], gap(yaw.copy())),
        "boxes": Boxes(center, gap(half.copy()), yaw),
        "grid": Grid(image, 0.3, np.array([-1.3, -1.7])),
    }
    return fields | {"union": Union([fields["boxes"], fields["cylinders"], fields["grid"]])}


FIELDS = two_sets()


def points(count=2000, size=3, seed=1, spread=3.0):
    return np.random.default_rng(seed).uniform(-spread, spread, (2, count, size))


@pytest.mark.parametrize("name", FIELDS)
def test_gradient_is_the_distances_derivative(name):
    field, p = FIELDS[name], points()
    found = field.at(p)
    assert (found.value < 0).any() and (found.value > 0.5).any(), "premise: inside and outside"
    for axis in range(3):
        shift = STEP * np.eye(3)[axis]
        slope = (field.at(p + shift).value - field.at(p - shift).value) / (2 * STEP)
        wrong = np.abs(found.gradient[..., axis] - slope) > SLOPE
        # Where two obstacles, faces or pixels meet, the distance has a kink: h = 1e-6 of it in 2000
        # points in a space some meters wide falls between by a chance of about 1e-3 per kink.
        assert wrong.sum() <= 1
    if name not in ("grid", "union"):
        np.testing.assert_allclose(np.linalg.norm(found.gradient, axis=-1), 1, atol=ROUNDING)
    if name in ("cylinders", "walls", "grid"):
        assert not found.gradient[..., 2].any()


@pytest.mark.parametrize("name", ["spheres", "cylinders", "walls", "boxes"])
@given(p=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)))
def test_the_way_along_the_gradient_ends_on_the_surface(name, p):
    """Of one obstacle: the nearest surface point is `p - distance * gradient`, also from inside."""
    field = {
        "spheres": Spheres(np.array([[[1.0, 0, 2]]]), np.array([[0.7]])),
        "cylinders": Cylinders(np.array([[[1.0, 0]]]), np.array([[0.7]])),
        "walls": Boxes(np.array([[[1.0, 0]]]), np.array([[[0.7, 0.3]]]), np.array([[0.8]])),
        "boxes": Boxes(np.array([[[1.0, 0, 2]]]), np.array([[[0.7, 0.3, 1]]]), np.array([[0.8]])),
    }[name]
    found = field.at(p)
    on = p - found.value[..., None] * found.gradient
    np.testing.assert_allclose(field.at(on).value, 0, atol=ROUNDING)


@given(
    a=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)),
    b=hnp.arrays(float, (2, 1, 3), elements=st.floats(-5, 5)),
)
@pytest.mark.parametrize("name", ["spheres", "cylinders", "walls", "boxes"])
def test_distances_differ_by_no_more_than_the_way_between(name, a, b):
    field, way = FIELDS[name], np.linalg.norm(a - b, axis=-1)
    assert (np.abs(field.at(a).value - field.at(b).value) <= way + ROUNDING).all()


def test_round_ones_by_hand():
    post = Cylinders(np.array([[[3.0, 4.0]]]), np.array([[1.0]]))
    found = post.at(np.array([[[0.0, 0.0, 9.0], [3.0, 4.5, -9.0], [3.0, 4.0, 0.0]]]))
    np.testing.assert_allclose(found.value, [[4, -0.5, -1]], atol=ROUNDING)
    expected = [[[-0.6, -0.8, 0], [0, 1, 0], [1, 0, 0]]]  # from the very center: along x
    np.testing.assert_allclose(found.gradient, expected, atol=ROUNDING)
    ball = Spheres(np.array([[[0.0, 3.0, 4.0]]]), np.array([[1.0]]))
    np.testing.assert_allclose(ball.at(np.zeros((1, 1, 3))).value, 4, atol=ROUNDING)


def box_surface(half, spacing):
    """Points on all faces of a box about the origin, no further apart than `spacing`."""
    axes = [np.linspace(-h, h, int(np.ceil(2 * h / spacing)) + 1) for h in half]
    faces = []
    for k, h in enumerate(half):
        for side in (-h, h):
            grid = np.meshgrid(*[[side] if i == k else axis for i, axis in enumerate(axes)])
            faces.append(np.stack([g.ravel() for g in grid], -1))
    return np.concatenate(faces)


@pytest.mark.parametrize(("size", "spacing"), [(2, 1e-3), (3, 2e-2)])
def test_boxes_by_points_on_their_faces(size, spacing):
    """The nearest of many points on the surface is further away than the surface itself, by half a
    cell's diagonal at most."""
    half, yaw, center = np.array([0.7, 0.3, 0.5])[:size], 0.6, np.array([0.4, -0.2, 0.3])[:size]
    turn = np.eye(size)
    turn[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    surface = center + box_surface(half, spacing) @ turn.T
    p = np.random.default_rng(2).uniform(-1.2, 1.5, (1, 300, size))
    distance = np.linalg.norm(p[0][:, None] - surface, axis=-1).min(1)
    inside = (np.abs((p[0] - center) @ turn) < half).all(1)
    assert 5 < inside.sum() < 295, "premise"
    found = Boxes(center[None, None], half[None, None], np.array([[yaw]])).at(p).value[0]
    assert ((found < 0) == inside).all()
    excess = distance - np.abs(found)
    assert (excess > -ROUNDING).all()
    assert (excess < 0.5 * spacing * np.sqrt(size - 1)).all()


def test_a_point_in_the_middle_of_a_box_has_a_way_out():
    box = Boxes(np.zeros((1, 1, 2)), np.array([[[0.5, 0.2]]]), np.array([[np.pi / 2]]))
    found = box.at(np.zeros((1, 1, 2)))
    np.testing.assert_allclose(found.value, -0.2, atol=ROUNDING)
    # The short side points along -x after a quarter turn to the left.
    np.testing.assert_allclose(np.abs(found.gradient), [[[1, 0]]], atol=ROUNDING)


@pytest.mark.parametrize("name", ["spheres", "cylinders", "walls", "boxes"])
def test_every_environment_has_its_own_and_nan_is_none(name):
    """As one environment at a time, and for the second as without its third obstacle."""
    field, p = FIELDS[name], points(200)
    both = field.at(p)
    values = {key: value for key, value in vars(field).items() if not key.startswith("_")}
    for i, kept in ((0, 3), (1, 2)):
        alone = type(field)(**{key: value[i : i + 1, :kept] for key, value in values.items()})
        np.testing.assert_array_equal(alone.at(p[i : i + 1]).value[0], both.value[i])
        np.testing.assert_array_equal(alone.at(p[i : i + 1]).gradient[0], both.gradient[i])
    nothing = type(field)(**{key: np.full_like(value, np.nan) for key, value in values.items()})
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


def test_a_union_is_the_nearest_of_its_fields():
    p = points()
    union, parts = FIELDS["union"], [FIELDS[name] for name in ("boxes", "cylinders", "grid")]
    found, each = union.at(p), [part.at(p) for part in parts]
    least = np.minimum.reduce([part.value for part in each])
    np.testing.assert_array_equal(found.value, least)
    used = [found.value == part.value for part in each]
    assert all(mask.sum() > 50 for mask in used), "premise: each is the nearest somewhere"
    for mask, part in zip(used, each, strict=True):
        np.testing.assert_array_equal(found.gradient[mask], part.gradient[mask])


# --- grid -----------------------------------------------------------------------------------------


def to_squares(p, squares, resolution, origin):
    """Distance of points `[Q, 2]` to the nearest of pixels `[K, 2]` (row, column) as squares."""
    low = origin + resolution * squares[:, ::-1]
    nearest = np.clip(p[:, None], low, low + resolution)
    return np.linalg.norm(p[:, None] - nearest, axis=-1).min(1, initial=np.inf)


def brute_force(p, image, resolution, origin):
    """Signed distance of points `[Q, 2]`, with free pixels far around the image."""
    wide = np.pad(image, 12)
    corner = origin - 12 * resolution
    full = to_squares(p, np.argwhere(wide), resolution, corner)
    return full - to_squares(p, np.argwhere(~wide), resolution, corner)


IMAGES = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))


@given(image=IMAGES, seed=st.integers(0, 2**32 - 1))
def test_grid_is_exact_in_the_pixels_centers_and_near_it_between(image, seed):
    """Between centers, the mean distance of a point from the four, sqrt(1/2) pixels at most, bounds
    the error, since distances differ by no more than the way between."""
    image[0, 0] = True
    resolution, origin = 0.2, np.array([-0.7, 0.4])
    field = Grid(image, resolution, origin, margin=1.0)
    rows, columns = np.indices(image.shape).reshape(2, -1)
    centers = origin + resolution * (np.stack([columns, rows], -1) + 0.5)
    found = field.at(centers[None]).value[0]
    exact = brute_force(centers, image, resolution, origin)
    np.testing.assert_allclose(found, exact, atol=ROUNDING)
    assert ((found < 0) == image.ravel()).all()
    rng = np.random.default_rng(seed)
    size = resolution * np.array(image.shape)[::-1]
    p = origin + rng.uniform(-1.0, size + 1.0, (30, 2))
    error = field.at(p[None]).value[0] - brute_force(p, image, resolution, origin)
    assert (np.abs(error) <= np.sqrt(0.5) * resolution + ROUNDING).all()


def test_grid_of_a_long_wall_is_its_distance():
    """Linear in x, so that interpolation changes nothing: 1 m to the left of the wall's face."""
    image = np.zeros((60, 30), bool)
    image[:, 20:] = True
    field = Grid(image, 0.1, np.zeros(2))
    x = np.linspace(0.06, 2.4, 50)
    p = np.stack([x, np.full(50, 3.0)], -1)[None]
    found = field.at(p)
    np.testing.assert_allclose(found.value[0], 2.0 - x, atol=ROUNDING)
    np.testing.assert_allclose(found.gradient[0], np.tile([-1.0, 0.0], (50, 1)), atol=1e-11)


def test_far_outside_a_grid_the_distance_is_an_upper_bound_and_more_than_the_margin():
    image = np.array([[True, False, True]])
    field = Grid(image, 0.1, np.array([1.0, 2.0]), margin=0.5)
    p = points(500, size=2, spread=9.0)[:1]
    away = np.abs(p[0] - [1.15, 2.05]).max(1) > 0.8
    assert away.sum() > 400, "premise"
    found, exact = field.at(p), brute_force(p[0], image, 0.1, np.array([1.0, 2.0]))
    assert (found.value[0, away] >= exact[away] - np.sqrt(0.5) * 0.1).all()
    assert (found.value[0, away] > 0.5).all()
    for axis in range(2):
        shift = STEP * np.eye(2)[axis]
        slope = (field.at(p + shift).value - field.at(p - shift).value) / (2 * STEP)
        assert (np.abs(found.gradient[..., axis] - slope) > SLOPE).sum() <= 1


def test_grids_without_anything_and_of_their_own():
    images = np.zeros((2, 3, 4), bool)
    images[1, 1, 2] = True
    field = Grid(images, 0.5, np.array([[0.0, 0.0], [1.0, 0.0]]))
    p = np.array([[[1.25, 0.75]], [[2.25, 0.75]]])  # center of that pixel, in either place
    found = field.at(p)
    assert np.isposinf(found.value[0, 0]) and not found.gradient[0].any()
    assert found.value[1, 0] == pytest.approx(-0.25)
    shared = Grid(images[1], 0.5, np.array([[0.0, 0.0], [1.0, 0.0]])).at(p)
    np.testing.assert_allclose(shared.value, [[-0.25], [-0.25]])


def test_a_robot_that_is_nowhere_is_near_nothing():
    p = np.full((2, 1, 3), np.nan)
    for name, field in FIELDS.items():
        found = field.at(p)
        assert isinstance(found, Distance) and not (found.value < 1).any(), name
        assert not found.gradient.any(), name


# --- bad input ------------------------------------------------------------------------------------

CENTER, RADIUS = np.zeros((2, 3, 2)), np.ones((2, 3))
NUMBERS = "expected finite numbers of shape"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Cylinders(np.zeros((3, 2)), RADIUS),
         f"Cylinders: center has shape (3, 2), {NUMBERS} [N, M, 2] or NaN."),
        (lambda: Spheres(CENTER, RADIUS),
         f"Spheres: center has shape (2, 3, 2), {NUMBERS} [N, M, 3] or NaN."),
        (lambda: Cylinders(CENTER, np.ones(3)),
         f"Cylinders: radius has shape (3,), {NUMBERS} [2, 3] or NaN."),
        (lambda: Cylinders(CENTER, -0.5 * RADIUS),
         "Cylinders: radius is -0.5 m somewhere, expected 0 or more."),
        (lambda: Cylinders(CENTER, np.inf * RADIUS),
         f"Cylinders: radius is not finite everywhere, {NUMBERS} [2, 3] or NaN."),
        (lambda: Cylinders("here", RADIUS),
         f"Cylinders: center are not numbers, {NUMBERS} [N, M, 2] or NaN."),
        (lambda: Boxes(np.zeros((1, 1, 4)), np.ones((1, 1, 4)), np.zeros((1, 1))),
         f"Boxes: center has shape (1, 1, 4), {NUMBERS} [N, M, 2 or 3] or NaN."),
        (lambda: Boxes(CENTER, CENTER - 1, RADIUS),
         "Boxes: half is -1 m somewhere, expected 0 or more."),
        (lambda: Union([]), "Union: fields are none, expected one or more."),
        (lambda: Grid(np.zeros((3, 3)), 0.1, np.zeros(2)),
         "Grid: occupied is float64 of shape (3, 3), expected True or False of shape [H, W] or "
         "[N, H, W]."),
        (lambda: Grid(np.ones((3, 3), bool), 0.0, np.zeros(2)),
         "Grid: resolution is 0.0, expected a positive length in m."),
        (lambda: Grid(np.ones((3, 3), bool), 0.1, np.zeros(3)),
         f"Grid: origin has shape (3,), {NUMBERS} [2]."),
        (lambda: Grid(np.ones((2, 3, 3), bool), 0.1, np.zeros((3, 2))),
         "Grid: origin is of 3 environments, occupied of 2."),
        (lambda: Cylinders(CENTER, RADIUS).at(np.zeros((3, 1, 2))),
         "Cylinders: points are of 3 environments, expected 2."),
        (lambda: Spheres(np.zeros((1, 1, 3)), np.ones((1, 1))).at(np.zeros((3, 1, 2))),
         "Spheres: points have shape (3, 1, 2), expected [N, ..., 3]."),
        (lambda: Cylinders(CENTER, RADIUS).at(np.zeros(2)),
         "Cylinders: points have shape (2,), expected [N, ..., 2 or 3]."),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        make()
