"""Signed distance fields: how far points are from the nearest obstacle, and which way leads away.

A field's `at(points)` takes points of N environments, `[N, ..., 2 or 3]`, metres, in the axes in
which its obstacles are given (the world's, as a rule), and finds distances `[N, ...]`, positive
outside and negative inside, with their gradients, of the points' shape. `Cylinders`, `Grid` and
`Boxes` of two columns stand upright without end, which is what walking has to heed: they read x and
y alone and their gradient has no z. `Spheres` and `Boxes` of three columns need points of three.

Each environment may have obstacles of its own. Arrays are `[N, M, ...]`, where N = 1 means the same
ones everywhere; a NaN in an obstacle's numbers means that it is not there, for environments that
have fewer than M. Where nothing is, the distance is infinite and the gradient zero.

The gradient is a unit vector, but for that of a `Grid`, which is the derivative of what it
interpolates and shorter where two obstacles are equally near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from bm_envs.errors import ConfigError


class Distance(NamedTuple):
    """What a field finds at points `[N, ..., D]`."""

    value: np.ndarray
    """`[N, ...]`, m to the nearest surface, negative inside."""
    gradient: np.ndarray
    """`[N, ..., D]`, its derivative by the point: away from the obstacle, out of it inside."""


class Field(Protocol):
    """A signed distance field."""

    def at(self, points: np.ndarray) -> Distance:
        """Distance and gradient at points `[N, ..., 2 or 3]`, m."""
        ...


@dataclass(frozen=True)
class Spheres:
    """Balls. `|p - center| - radius`."""

    center: np.ndarray
    """`[N, M, 3]`, m."""
    radius: np.ndarray
    """`[N, M]`, m."""
    _columns: ClassVar[int] = 3

    def __post_init__(self) -> None:
        name = type(self).__name__
        shape = ("N", "M", self._columns)
        center = numbers(f"{name}: center", self.center, shape, absent=True)
        radius = numbers(f"{name}: radius", self.radius, center.shape[:2], absent=True)
        _not_negative(f"{name}: radius", radius)
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", radius)

    def at(self, points: np.ndarray) -> Distance:
        """See `Field`."""
        rows = _rows(type(self).__name__, points, len(self.center), self._columns)
        offset = rows[:, :, None] - self.center[:, None]
        length = np.linalg.norm(offset, axis=-1)
        distance, index = _nearest(length - self.radius[:, None])
        offset, length = _pick(offset, index), _pick(length[..., None], index)
        # In the very center every way leads out: along x.
        centered = length == 0
        away = np.where(centered, np.eye(self._columns)[0], offset / np.where(centered, 1, length))
        return _found(points, distance, away)


@dataclass(frozen=True)
class Cylinders(Spheres):
    """Upright posts without end: discs in the plane. `|p_xy - center| - radius`."""

    center: np.ndarray
    """`[N, M, 2]`, m."""
    radius: np.ndarray
    """`[N, M]`, m."""
    _columns: ClassVar[int] = 2


@dataclass(frozen=True)
class Boxes:
    """Boxes turned about the vertical; with two columns, walls without end upward and downward.

    With q = |R(yaw)^T (p - center)| - half, element by element: `|max(q, 0)| + min(max_i q_i, 0)`.
    """

    center: np.ndarray
    """`[N, M, 2 or 3]`, m."""
    half: np.ndarray
    """`[N, M, 2 or 3]`, half of the length of each side, m."""
    yaw: np.ndarray
    """`[N, M]`, rad, from the x axis to the first side."""

    def __post_init__(self) -> None:
        center = numbers("Boxes: center", self.center, ("N", "M", (2, 3)), absent=True)
        half = numbers("Boxes: half", self.half, center.shape, absent=True)
        _not_negative("Boxes: half", half)
        yaw = numbers("Boxes: yaw", self.yaw, center.shape[:2], absent=True)
        for name, value in (("center", center), ("half", half), ("yaw", yaw)):
            object.__setattr__(self, name, value)

    def at(self, points: np.ndarray) -> Distance:
        """See `Field`."""
        rows = _rows("Boxes", points, len(self.center), self.center.shape[-1])
        cos, sin = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        local = _turned(rows[:, :, None] - self.center[:, None], cos, -sin)
        beyond = np.abs(local) - self.half[:, None]
        outside = np.maximum(beyond, 0)
        length = np.linalg.norm(outside, axis=-1)
        distance, index = _nearest(length + np.minimum(beyond.max(-1), 0))
        local, beyond, outside = (_pick(value, index) for value in (local, beyond, outside))
        length = _pick(length[..., None], index)
        # Inside and on a face the nearest face is the way out.
        face = np.arange(local.shape[-1]) == beyond.argmax(-1)[..., None]
        away = np.where(length > 0, outside / np.where(length > 0, length, 1), face)
        away *= np.where(local < 0, -1, 1)
        every = np.broadcast_to(np.stack([cos, sin], -1), (*index.shape[:2], cos.shape[-1], 2))
        turn = _pick(every, index)
        return _found(points, distance, _turned(away, turn[..., 0], turn[..., 1]))


@dataclass(frozen=True)
class Union:
    """Several fields as one: of each point, what the nearest of them finds."""

    fields: Sequence[Field]

    def __post_init__(self) -> None:
        if not self.fields:
            raise ConfigError("Union: fields are none, expected one or more.")

    def at(self, points: np.ndarray) -> Distance:
        """See `Field`."""
        found = [field.at(points) for field in self.fields]
        values = np.stack([part.value for part in found])
        index = np.where(np.isnan(values), np.inf, values).argmin(0)[None]
        gradients = np.stack([part.gradient for part in found])
        return Distance(
            np.take_along_axis(values, index, 0)[0],
            np.take_along_axis(gradients, index[..., None], 0)[0],
        )


@dataclass(frozen=True)
class Grid:
    """Obstacles drawn in an image seen from above; a pixel is a square that is full or free.

    The distance is exact in the centers of the pixels and bilinear between them, which is wrong by
    0.71 pixels at most: a point's mean distance from the four centers, as they are weighted.
    Outside the image nothing stands; further away than `margin` the distance is an upper bound.
    """

    occupied: np.ndarray
    """`[H, W]` or `[N, H, W]`, True where something stands. Rows go along y and columns along x,
    both upward from `origin`: an image file, whose first row is the top one, has to be flipped."""
    resolution: float
    """Side of a pixel, m."""
    origin: np.ndarray
    """`[2]` or `[N, 2]`, m: the image's corner of lowest x and y, not the first pixel's center."""
    margin: float = 1.0
    """Width of what is added around the image, m; more than a cost's range and radius together."""
    _distances: np.ndarray = field(init=False, repr=False)
    _corner: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        occupied = np.asarray(self.occupied)
        if occupied.dtype != bool or occupied.ndim not in (2, 3) or not occupied.size:
            raise ConfigError(
                f"Grid: occupied is {occupied.dtype} of shape {occupied.shape}, "
                "expected True or False of shape [H, W] or [N, H, W]."
            )
        for name, value in (("resolution", self.resolution), ("margin", self.margin)):
            if not 0 < value < np.inf:
                raise ConfigError(f"Grid: {name} is {value}, expected a positive length in m.")
        origin = np.asarray(self.origin)
        shape = ("N", 2) if origin.ndim == 2 else (2,)
        origin = np.atleast_2d(numbers("Grid: origin", origin, shape))
        images = occupied.reshape(-1, *occupied.shape[-2:])
        if len({len(images), len(origin)} - {1}) > 1:
            raise ConfigError(
                f"Grid: origin is of {len(origin)} environments, occupied of {len(images)}."
            )
        border = int(np.ceil(self.margin / self.resolution)) + 1
        images = np.pad(images, ((0, 0), (border, border), (border, border)))
        cells = _distance_to_squares(images) - _distance_to_squares(~images)
        object.__setattr__(self, "_distances", cells * self.resolution)
        # Of the first pixel's center, where the first distance is.
        object.__setattr__(self, "_corner", origin - (border - 0.5) * self.resolution)

    def at(self, points: np.ndarray) -> Distance:
        """See `Field`."""
        count = max(len(self._distances), len(self._corner))
        rows = _rows("Grid", points, count, 2)
        last = np.array(self._distances.shape[:0:-1]) - 1  # of columns, of rows
        wanted = (rows - self._corner[:, None]) / self.resolution
        held = np.clip(np.where(np.isnan(wanted), 0, wanted), 0, last)
        cell = np.minimum(held.astype(np.intp), last - 1)
        (x, y), (u, v) = np.moveaxis(cell, -1, 0), np.moveaxis(held - cell, -1, 0)
        env = np.arange(len(rows))[:, None] if len(self._distances) > 1 else 0
        # Of an empty image all distances are infinite, and so is what comes out.
        empty = np.asarray(np.isinf(self._distances).any((1, 2)))[env]
        low_left, low_right, high_left, high_right = (
            np.where(empty, 0, self._distances[env, y + dy, x + dx])
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))
        )
        low = low_left + u * (low_right - low_left)
        high = high_left + u * (high_right - high_left)
        along_x = (1 - v) * (low_right - low_left) + v * (high_right - high_left)
        gradient = np.stack([along_x, high - low], -1) / self.resolution
        # Outside, the way to the border is added.
        beyond = (wanted - held) * self.resolution
        way = np.linalg.norm(beyond, axis=-1)
        out = beyond / np.where(way > 0, way, 1)[..., None]
        gradient = np.where(beyond != 0, out, gradient)
        distance = np.where(empty, np.inf, low + v * (high - low) + way)
        return _found(points, distance, gradient)


def numbers(
    what: str, value: Any, shape: Sequence[str | int | tuple[int, ...]], *, absent: bool = False
) -> np.ndarray:
    """`value` as float64.

    Args:
        what: its name for the sentence.
        value: what was given.
        shape: of each axis its size, the sizes it may have, or a letter where any will do.
        absent: whether NaN is a number, too.

    Raises:
        ConfigError: not numbers, not finite, or of another shape.
    """
    axes = ", ".join(
        " or ".join(map(str, axis)) if isinstance(axis, tuple) else str(axis) for axis in shape
    )
    expected = f"expected finite numbers of shape [{axes}]{' or NaN' if absent else ''}."
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ConfigError(f"{what} are not numbers, {expected}") from None
    fits = array.ndim == len(shape) and all(
        size > 0
        if isinstance(axis, str)
        else size in (axis if isinstance(axis, tuple) else (axis,))
        for size, axis in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ConfigError(f"{what} has shape {array.shape}, {expected}")
    if np.isinf(array).any() or (not absent and np.isnan(array).any()):
        raise ConfigError(f"{what} is not finite everywhere, {expected}")
    return array


# --- parts ----------------------------------------------------------------------------------------


def _not_negative(what: str, value: np.ndarray) -> None:
    if (value < 0).any():
        raise ConfigError(f"{what} is {np.nanmin(value):g} m somewhere, expected 0 or more.")


def _rows(what: str, points: np.ndarray, count: int, columns: int) -> np.ndarray:
    """Points `[N, ..., 2 or 3]` as `[N, Q, columns]`."""
    points = np.asarray(points)
    if points.ndim < 2 or points.shape[-1] not in (2, 3) or points.shape[-1] < columns:
        wanted = "2 or 3" if columns == 2 else "3"
        raise ConfigError(f"{what}: points have shape {points.shape}, expected [N, ..., {wanted}].")
    if count not in (1, len(points)):
        raise ConfigError(f"{what}: points are of {len(points)} environments, expected {count}.")
    return points[..., :columns].reshape(len(points), -1, columns)


def _nearest(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least of `[N, Q, M]` and its index, both `[N, Q]`; infinite where all are NaN."""
    distance = np.where(np.isnan(distance), np.inf, distance)
    return distance.min(-1), distance.argmin(-1)


def _pick(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`values [N, Q, M, D]` of obstacle `index [N, Q]`. `[N, Q, D]`."""
    return np.take_along_axis(values, index[..., None, None], 2)[:, :, 0]


def _turned(vectors: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """`vectors [..., D]` about the vertical."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.concatenate(
        [np.stack([cos * x - sin * y, sin * x + cos * y], -1), vectors[..., 2:]], -1
    )


def _found(points: np.ndarray, distance: np.ndarray, gradient: np.ndarray) -> Distance:
    """In the points' shape; without a z where the field has none."""
    shape = np.shape(points)
    result = np.zeros((*distance.shape, shape[-1]))
    result[..., : gradient.shape[-1]] = gradient
    result[~np.isfinite(distance)] = 0
    return Distance(distance.reshape(shape[:-1]), result.reshape(shape))


def _distance_to_squares(full: np.ndarray) -> np.ndarray:
    """From centers of pixels to the nearest full one's square, in pixels; 0 in it. `[N, H, W]`."""
    squared = np.where(full, 0.0, np.inf)
    # Squared distances along rows and along columns add up, so that one goes after the other.
    for axis in (1, 2):
        squared = _spread(squared, axis)
    return np.sqrt(squared)


def _spread(squared: np.ndarray, axis: int) -> np.ndarray:
    """`min_j squared_j + gap(i - j)^2` along an axis; pixels k apart leave a gap of k - 1/2."""
    source = np.moveaxis(squared, axis, 0)
    best = source.copy()
    for k in range(1, len(source)):
        gap = (k - 0.5) ** 2
        if gap >= best.max():
            break  # no pixel can gain from one that far away
        np.minimum(best[k:], source[:-k] + gap, out=best[k:])
        np.minimum(best[:-k], source[k:] + gap, out=best[:-k])
    return np.moveaxis(best, 0, axis)
