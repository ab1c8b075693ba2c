"""A generator for each robot: what is drawn for one depends on its own seed, not on the others.

Draws of a batch from one generator depend on how many robots there are. `Streams` stands in for
that generator where every array drawn has one row a robot, and takes each row from that robot's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bm_envs.errors import ConfigError


class Streams:
    """Generators of M robots; its draws have M rows.

    Attributes:
        generators: one a robot.
    """

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = list(generators)

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> Streams:
        """A generator for each seed: that which Gymnasium gives a single environment.

        Raises:
            ConfigError: a seed is no integer of 0 or more.
        """
        for number, seed in enumerate(seeds):
            if not isinstance(seed, int | np.integer) or seed < 0:
                raise ConfigError(f"seed[{number}] is {seed!r}, expected an integer of 0 or more.")
        return cls([np.random.default_rng(int(seed)) for seed in seeds])

    def integers(self, high: int, size: int | tuple[int, ...]) -> np.ndarray:
        """As `Generator.integers`. `size`: M, or `[M, ...]`."""
        rest = self._row(size)
        return np.array([generator.integers(high, size=rest) for generator in self.generators])

    def uniform(self, low: float, high: float, size: int | tuple[int, ...]) -> np.ndarray:
        """As `Generator.uniform`. `size`: M, or `[M, ...]`."""
        rest = self._row(size)
        rows = [generator.uniform(low, high, rest) for generator in self.generators]
        return np.array(rows).reshape(size)

    def standard_normal(self, size: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
        """As `Generator.standard_normal`. `size`: `[M, ...]`."""
        self._row(size)
        rows = np.empty(size, dtype)
        for row, generator in zip(rows, self.generators, strict=True):
            generator.standard_normal(dtype=dtype, out=row)
        return rows

    def _row(self, size: int | tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a row of an array of this size."""
        first, *rest = (size,) if isinstance(size, int) else size
        assert first == len(self.generators)
        return tuple(rest)


Source = np.random.Generator | Streams
"""Of draws for robots: one generator for them all, or one for each."""


def of_robots(rng: Source, env_ids: np.ndarray) -> Source:
    """What the robots `env_ids [M]` draw from: M streams, or the generator of all."""
    if isinstance(rng, Streams):
        return Streams([rng.generators[i] for i in env_ids])
    return rng


def of_robot(rng: Source, env_id: int) -> np.random.Generator:
    """What one robot draws from."""
    return rng.generators[env_id] if isinstance(rng, Streams) else rng
