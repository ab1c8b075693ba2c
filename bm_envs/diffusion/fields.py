"""Signed distance fields: how far points are from the nearest obstacle, and which way leads away.

A field's `at(points)` takes points of N environments, `[N, ..., 2 or 3]`, metres, in the axes in
which its obstacles are given (the world's, as a rule), and finds distances `[N, ...]`, positive
outside and negative inside, with their gradients, of the points' shape. `Cylinders` stand upright
without end, which is what walking has to heed: they read x and y alone and their gradient has no z.

Each environment may have obstacles of its own. Arrays are `[N, M, ...]`, where N = 1 means the same
ones everywhere; a NaN in an obstacle's numbers means that it is not there, for environments that
have fewer than M. Where nothing is, the distance is infinite and the gradient zero. Elsewhere the
gradient is a unit vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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
class Cylinders:
    """Upright posts without end: discs in the plane. `|p_xy - center| - radius`."""

    center: np.ndarray
    """Where the axes of the posts stand, x and y. `[N, M, 2]`, m."""
    radius: np.ndarray
    """Their radii. `[N, M]`, m."""

    def __post_init__(self) -> None:
        center = numbers("Cylinders: center", self.center, ("N", "M", 2), absent=True)
        radius = numbers("Cylinders: radius", self.radius, center.shape[:2], absent=True)
        if (radius < 0).any():
            raise ConfigError(
                f"Cylinders: radius is {np.nanmin(radius):g} m somewhere, expected 0 or more."
            )
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", radius)

    def at(self, points: np.ndarray) -> Distance:
        """See `Field`."""
        rows = _rows("Cylinders", points, len(self.center))
        offset = rows[:, :, None] - self.center[:, None]
        length = np.linalg.norm(offset, axis=-1)
        distance, index = _nearest(length - self.radius[:, None])
        offset, length = _pick(offset, index), _pick(length[..., None], index)
        # In the very center every way leads out: along x.
        centered = length == 0
        away = np.where(centered, (1.0, 0.0), offset / np.where(centered, 1, length))
        return _found(points, distance, away)


def numbers(
    what: str, value: Any, shape: Sequence[str | int], *, absent: bool = False
) -> np.ndarray:
    """`value` as float64.

    Args:
        what: its name for the sentence.
        value: what was given.
        shape: of each axis its size, or a letter where any will do.
        absent: whether NaN is a number, too.

    Raises:
        ConfigError: not numbers, not finite, or of another shape.
    """
    axes = ", ".join(map(str, shape))
    expected = f"expected finite numbers of shape [{axes}]{' or NaN' if absent else ''}."
    try:
        found = np.asarray(value)
        array = found.astype(float) if found.dtype.kind in "biuf" else None
    except (TypeError, ValueError):
        array = None
    if array is None:
        raise ConfigError(f"{what} are not numbers, {expected}")
    fits = array.ndim == len(shape) and all(
        size > 0 if isinstance(axis, str) else size == axis
        for size, axis in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ConfigError(f"{what} has shape {array.shape}, {expected}")
    if np.isinf(array).any() or (not absent and np.isnan(array).any()):
        raise ConfigError(f"{what} is not finite everywhere, {expected}")
    return array


# --- parts ----------------------------------------------------------------------------------------


def _rows(what: str, points: np.ndarray, count: int) -> np.ndarray:
    """The x and y of points `[N, ..., 2 or 3]`. `[N, Q, 2]`."""
    points = np.asarray(points)
    if points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise ConfigError(f"{what}: points have shape {points.shape}, expected [N, ..., 2 or 3].")
    if count not in (1, len(points)):
        raise ConfigError(f"{what}: points are of {len(points)} environments, expected {count}.")
    return points[..., :2].reshape(len(points), -1, 2)


def _nearest(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least of `[N, Q, M]` and its index, both `[N, Q]`; infinite where all are NaN."""
    distance = np.where(np.isnan(distance), np.inf, distance)
    return distance.min(-1), distance.argmin(-1)


def _pick(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`values [N, Q, M, D]` of obstacle `index [N, Q]`. `[N, Q, D]`."""
    return np.take_along_axis(values, index[..., None, None], 2)[:, :, 0]


def _found(points: np.ndarray, distance: np.ndarray, gradient: np.ndarray) -> Distance:
    """In the points' shape; without a z where the field has none."""
    shape = np.shape(points)
    result = np.zeros((*distance.shape, shape[-1]))
    result[..., : gradient.shape[-1]] = gradient
    result[~np.isfinite(distance)] = 0
    return Distance(distance.reshape(shape[:-1]), result.reshape(shape))
