"""What NumPy and torch do differently, under one name each, so that a task is written once.

Robots are chosen by `who`. For `Numpy` that is their numbers `[M]`, and what is taken, drawn or
computed for them has M rows. For `Torch` it is a mask `[N]` bool; everything has N rows, and `put`
writes those of the mask. A step is then the same sequence of kernels whatever happens in it:
nothing waits for the host, and a GPU can capture the step as one graph. `EVERYONE` is all robots
for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor
Generator = Any  # numpy.random.Generator, torch.Generator, or what draws as one of them
EVERYONE = slice(None)


class Numpy:
    """Arrays on the host; robots are chosen by their numbers."""

    def array(self, values: Array) -> np.ndarray:
        """The values as an array; of a tensor a copy."""
        return values.cpu().numpy().copy() if hasattr(values, "cpu") else np.asarray(values)

    def zeros(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """Zeros of the type of that name, which both libraries have."""
        return np.zeros(shape, dtype)

    def scale(self, value: float, present: float | None = None) -> float:
        """A factor, in place of `present` if there is one."""
        return float(value)

    # --- robots --------------------------------------------------------------------------------

    def everyone(self, num_envs: int) -> np.ndarray:
        """All robots, one by one."""
        return np.arange(num_envs)

    def which(self, condition: np.ndarray) -> np.ndarray:
        """The robots for which `condition [N]` holds."""
        return condition.nonzero()[0]

    def some(self, who: np.ndarray) -> bool:
        """Whether there is work for the robots `who`."""
        return len(who) > 0

    def count(self, who: np.ndarray) -> int:
        """Number of rows that are drawn and computed for the robots `who`."""
        return len(who)

    def take(self, array: np.ndarray, who: np.ndarray | slice) -> np.ndarray:
        """Rows of `array [N, ...]`, one for each that is computed."""
        return array[who]

    def put(self, target: np.ndarray, who: np.ndarray | slice, value: Any) -> None:
        """Write `value`, a number or a row for each that is computed, into rows of `target`."""
        target[who] = value

    # --- arithmetic ----------------------------------------------------------------------------

    def truncated(self, values: np.ndarray) -> np.ndarray:
        """Integers, rounded towards zero."""
        return values.astype(np.int64)

    def stack(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Numbers `[N]` of any type as columns, float32. `[N, len]`."""
        return np.stack(values, 1).astype(np.float32)

    def weighted_sum(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Sums of `values [N, R]` times `weights [R]`, in NumPy a product of matrices. `[N]`."""
        return values @ weights

    def add_at(
        self, target: np.ndarray, indices: np.ndarray, amount: float,
        where: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Add to an element of `target [S]` for each of its `indices [N]`, `where [N]` or all."""
        np.add.at(target, indices if where is None else indices[where], amount)

    # --- draws ---------------------------------------------------------------------------------

    def uniform(self, rng: Generator, low: float, high: float, count: int) -> np.ndarray:
        """Uniform in `[low, high)`. `[count]`."""
        return rng.uniform(low, high, count)

    def symmetric(self, rng: Generator, *shape: int) -> np.ndarray:
        """Uniform in `[-1, 1)`, float32."""
        return 2.0 * rng.random(shape, dtype=np.float32) - 1.0

    def noise(self, rng: Generator, level: np.ndarray, count: int) -> np.ndarray:
        """Uniform in plus and minus `level [D]`, float32. `[count, D]`.

        Computed in place, since a robot's observation has most of what is drawn for it.
        """
        noise = rng.random((count, len(level)), dtype=np.float32)
        noise *= 2.0 * level
        noise -= level
        return noise

    def integers(self, rng: Generator, most: int, count: int) -> np.ndarray:
        """Integers in `[0, most]`. `[count]`."""
        return rng.integers(0, most, count, endpoint=True)

    def places(
        self, rng: Generator, probabilities: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bins with these probabilities `[S]`, and uniform places in `[0, 1)` within them."""
        bins = rng.choice(len(probabilities), size=count, p=probabilities)
        return bins, rng.random(count)


class Torch:
    """Tensors on a device; robots are chosen by a mask. The methods are those of `Numpy`."""

    def __init__(self, device: Any) -> None:
        import torch  # where an engine has tensors it is there; others need none

        self.device, self._torch = device, torch

    def array(self, values: Array) -> Array:
        """See `Numpy.array`; a tensor on the device, of the same type. Not inside a step."""
        return self._torch.as_tensor(np.array(values), device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """See `Numpy.zeros`."""
        return self._torch.zeros(shape, dtype=getattr(self._torch, dtype), device=self.device)

    def scale(self, value: float, present: Array | None = None) -> Array:
        """See `Numpy.scale`; a tensor without axes, `present` itself: a captured step reads it."""
        return self.array(np.float32(value)) if present is None else present.fill_(value)

    def everyone(self, num_envs: int) -> Array:
        """See `Numpy.everyone`."""
        return self._torch.ones(num_envs, dtype=self._torch.bool, device=self.device)

    def which(self, condition: Array) -> Array:
        """See `Numpy.which`."""
        return condition

    def some(self, who: Array) -> bool:
        """Always: to ask would be to wait for the device."""
        return True

    def count(self, who: Array) -> int:
        """See `Numpy.count`."""
        return len(who)

    def take(self, array: Array, who: Array | slice) -> Array:
        """See `Numpy.take`."""
        return array

    def put(self, target: Array, who: Array | slice, value: Any) -> None:
        """See `Numpy.put`. A number stays a number: a tensor of one would have to be sent."""
        if isinstance(who, slice):
            target[who] = value
            return
        mask = who.view(-1, *[1] * (target.ndim - 1))
        target.copy_(self._torch.where(mask, value, target))

    def truncated(self, values: Array) -> Array:
        """See `Numpy.truncated`."""
        return values.long()

    def stack(self, values: Sequence[Array]) -> Array:
        """See `Numpy.stack`."""
        return self._torch.stack([value.float() for value in values], 1)

    def weighted_sum(self, values: Array, weights: Array) -> Array:
        """See `Numpy.weighted_sum`."""
        return (values * weights).sum(1)

    def add_at(
        self, target: Array, indices: Array, amount: float, where: Array | None = None
    ) -> None:
        """See `Numpy.add_at`."""
        counts = self._torch.ones_like(indices) if where is None else where
        target.index_add_(0, indices, counts.to(target.dtype), alpha=amount)

    def uniform(self, rng: Generator, low: float, high: float, count: int) -> Array:
        """See `Numpy.uniform`."""
        return low + (high - low) * self._random(rng, count)

    def symmetric(self, rng: Generator, *shape: int) -> Array:
        """See `Numpy.symmetric`."""
        return 2.0 * self._random(rng, *shape) - 1.0

    def noise(self, rng: Generator, level: Array, count: int) -> Array:
        """See `Numpy.noise`."""
        return level * self.symmetric(rng, count, len(level))

    def integers(self, rng: Generator, most: int, count: int) -> Array:
        """See `Numpy.integers`."""
        return (self._random(rng, count) * (most + 1)).long().clamp(max=most)

    def places(self, rng: Generator, probabilities: Array, count: int) -> tuple[Array, Array]:
        """See `Numpy.places`."""
        cumulated = probabilities.cumsum(0)
        where, within = self._random(rng, 2, count, dtype=self._torch.float64)
        bins = self._torch.searchsorted(cumulated, where * cumulated[-1], right=True)
        return bins.clamp(max=len(cumulated) - 1), within

    def _random(self, rng: Generator, *shape: int, dtype: Any = None) -> Array:
        """Uniform in `[0, 1)`, float32 or of another type."""
        return self._torch.rand(*shape, dtype=dtype, device=self.device, generator=rng)


Arrays = Numpy | Torch
NUMPY = Numpy()


def arrays_of(values: Array) -> Arrays:
    """Of the library, and on the device, that these values are of."""
    return NUMPY if isinstance(values, np.ndarray) else Torch(values.device)
