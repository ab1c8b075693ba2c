"""What a cost is, and the parts that several are made of."""

from __future__ import annotations

from typing import Any, Protocol

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
