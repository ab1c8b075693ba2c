"""What a cost is, and the parts that several are made of."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from bm_envs.diffusion.fields import numbers
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import NOW, PAST, Representation
from bm_envs.tasks.track.config import CONTROL_DT

AHEAD = (np.arange(LENGTH) - NOW) * CONTROL_DT  # s, of each step of a window


class Cost(Protocol):
    """What guidance lowers; only the steps after the present count."""

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """Cost of each window, `[N]`, of features `[N, L, D]`."""
        ...

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """Its derivative by the features, `[N, L, D]`; zero up to the present."""
        ...


@runtime_checkable
class Stepping(Protocol):
    """A cost that knows the way to its minimum, which is then not searched for."""

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """What to subtract from features `[N, L, D]` to bring the cost to its minimum.

        `[N, L, D]`; zero up to the present.
        """
        ...


@runtime_checkable
class Moving(Protocol):
    """A cost of where the robot is, which knows how far each step is from its minimum."""

    def move(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """By how much the root is to be moved over the ground in each step after the present.

        `[N, L', 2]`, m, now frame.
        """
        ...


def own_step(cost: Cost, features: np.ndarray, rep: Representation) -> np.ndarray:
    """What brings a cost, and nothing but that cost, to its minimum. `[N, L, D]`, to subtract.

    A cost says so itself (`full_step`). Of any other it is the way down its gradient to the lowest
    point on that line: in one step where the cost is a sum of squares, else by halving. This makes
    a share of it mean the same for every cost, whatever its units and scale are.
    """
    return (
        cost.full_step(features, rep)
        if isinstance(cost, Stepping)
        else line_step(cost, features, rep)
    )


PROBE = 1e-3  # of a feature's unit (m, m/s, rad): how far the curvature is looked for
FURTHEST = 10.0  # of the same: the most that one feature is moved by
FLAT = 0.02  # of the slope at the beginning: less is a minimum
HALVINGS = 6  # which find it to 2 % of the way


def line_step(cost: Cost, features: np.ndarray, rep: Representation) -> np.ndarray:
    """The way down the gradient, of each window by itself, to the lowest point on that line.

    The cost's slope along the line, at the beginning and a little further on, tells where a
    quadratic cost has its minimum (Cauchy's step). If the slope there is not zero, the first zero
    is looked for by doubling and halving. A cost that falls on and on moves no feature by more than
    `FURTHEST`. `[N, L, D]`, to subtract.
    """
    down = cost.gradient(features, rep).astype(float)
    largest = np.abs(down).max((1, 2))
    if not largest.any():
        return np.zeros_like(down)
    # Per unit of way the feature that moves most moves by one unit.
    line = down / np.where(largest > 0, largest, 1.0)[:, None, None]

    def slope(way: np.ndarray) -> np.ndarray:
        moved = features - way[:, None, None] * line
        return -(line * cost.gradient(moved, rep)).sum((1, 2))

    first = -(line * down).sum((1, 2))
    flat = FLAT * np.abs(first)
    curvature = (slope(np.full(len(line), PROBE)) - first) / PROBE
    way = np.minimum(np.where(curvature > 0, -first / np.maximum(curvature, 1e-9), 1.0), FURTHEST)
    there = slope(way)
    found = np.abs(there) <= flat
    if not found.all():
        low, high = np.zeros_like(way), way
        for _ in range(HALVINGS):
            short = (there < -flat) & (high < FURTHEST)
            if not short.any():
                break
            low = np.where(short, high, low)
            high = np.where(short, np.minimum(2 * high, FURTHEST), high)
            there = slope(high)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            short = slope(middle) < -flat
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        way = np.where(found, way, high)
    return way[:, None, None] * line


class Evaluated:
    """A cost that finds its value and its gradient together."""

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self._evaluate(features, rep)[0]

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self._evaluate(features, rep)[1]

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


def future(features: np.ndarray, rep: Representation, *blocks: str) -> list[np.ndarray]:
    """Blocks of the steps after the present, `[N, L', size]`, float64."""
    return [features[:, PAST:, rep.blocks[block]].astype(float) for block in blocks]


def at_blocks(
    features: np.ndarray, rep: Representation, parts: dict[str, tuple[int, np.ndarray]]
) -> np.ndarray:
    """Arrays `[N, L', size]` put into blocks from one of their columns on. `[N, L, D]`, else 0."""
    result = np.zeros_like(features)
    for block, (column, part) in parts.items():
        start = rep.blocks[block].start + column
        result[:, PAST:, start : start + part.shape[-1]] = part
    return result


def set_numbers(cost: Any, **shapes: tuple[str | int, ...]) -> None:
    """Fields as float64 arrays of these shapes, all of as many robots."""
    name = type(cost).__name__
    counts = {}
    for field, shape in shapes.items():
        value = numbers(f"{name}: {field}", getattr(cost, field), shape)
        object.__setattr__(cost, field, value)
        counts[field] = len(value)
    if len(set(counts.values())) > 1:
        of = " and ".join(f"{field} is of {count}" for field, count in counts.items())
        raise ConfigError(f"{name}: {of} robots, expected as many.")


def check_weights(cost: Any, *fields: str) -> None:
    """Refuse weights that are negative or not finite."""
    for field in fields:
        value = getattr(cost, field)
        if not 0 <= value < np.inf:
            raise ConfigError(
                f"{type(cost).__name__}: {field} is {value}, expected a weight of 0 or more."
            )


def check_positive(cost: Any, *, finite: bool = False, **units: str) -> None:
    """Refuse fields that are 0 or less, of which `units` tells what they count."""
    for field, unit in units.items():
        value = getattr(cost, field)
        if not value > 0 or (finite and np.isinf(value)):
            raise ConfigError(
                f"{type(cost).__name__}: {field} is {value}, expected a positive "
                f"{'finite ' if finite else ''}number of {unit}."
            )


def check_count(cost: Any, goal: np.ndarray, features: np.ndarray) -> None:
    """Refuse features of another number of robots than the cost's numbers, unless that is one."""
    if len(goal) not in (1, len(features)):
        raise ConfigError(
            f"{type(cost).__name__}: its numbers are of {len(goal)} robots, the features of "
            f"{len(features)}."
        )
