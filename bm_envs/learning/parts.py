"""Layers of left-right symmetric networks, in two parts of half the size each.

With u and v the values of units that trade places with left and right, a layer's weights are
`[[A, B], [B, A]]`: the sums u + v go into the sums behind it by A + B alone, and the differences
u - v into the differences by A - B. So two products of half the size do the work of one, in half
the arithmetic.
Numbers that have a sign (those to the side) count with it, and those that are their own counterpart
belong to one part.

Letters in shapes: D plain numbers, K of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bm_envs.learning.compiled import Sides
from bm_envs.learning.networks import Mirror, Network, reflected


class Part(NamedTuple):
    """Numbers that a layer has in place of D plain ones: `x[first] + factor * x[second]`. `[K]`."""

    first: Tensor
    second: Tensor
    factor: Tensor
    """1 or -1, and 0 for plain numbers."""

    def half(self) -> Tensor:
        """What belongs to the number as a weight: half of a pair, and all of a plain one."""
        return torch.where(self.factor == 0, 1.0, 0.5)


class Parts:
    """Where the numbers of a layer stand, its inputs or its outputs.

    Attributes:
        parts: the numbers that keep their sign in a reflection and those that lose it, or all.
        counts: of each part.
        native: as the kernels have it, which must not outlive this.
    """

    def __init__(self, size: int, mirror: Mirror | None, behind: range = range(0)) -> None:
        """Of `size` plain numbers.

        Args:
            size: how many.
            mirror: their reflection; None: one part, with the plain numbers.
            behind: numbers that stand behind the others in each part.
        """
        every, self._size = torch.arange(size), size
        self.parts = [Part(every, every, torch.zeros(size))]
        if mirror is not None:
            index, sign = mirror
            pairs, alone = every[index > every], every[index == every]
            self.parts = []
            for side in (1.0, -1.0):
                own = alone[sign[alone] == side]
                self.parts.append(Part(
                    torch.cat([pairs, own]), torch.cat([index[pairs], own]),
                    torch.cat([side * sign[pairs], torch.zeros(len(own))]),
                ))  # fmt: skip
        splits = []
        for i, part in enumerate(self.parts):
            late = (part.first >= behind.start) & (part.first < behind.stop)
            order = late.long().argsort(stable=True)
            self.parts[i] = Part(*(values[order] for values in part))
            splits.append(int((~late).sum()))
        self.counts = [len(part.first) for part in self.parts]
        self._arrays = [torch.cat(values) for values in zip(*self.parts, strict=True)]
        self.native = Sides(
            tuple(self.counts), tuple(splits), *(values.data_ptr() for values in self._arrays)
        )

    def places(self) -> list[tuple[Tensor, Tensor]]:
        """Of each part: where plain numbers stand in it, and by which factor they count. `[D]`."""
        found = []
        for part in self.parts:
            place, weight = torch.zeros(self._size, dtype=torch.long), torch.zeros(self._size)
            numbers = torch.arange(len(part.first))
            place[part.second], weight[part.second] = numbers, part.half() * part.factor
            place[part.first], weight[part.first] = numbers, part.half()
            found.append((place, weight))
        return found


def in_parts(weight: Tensor, after: Parts, before: Parts) -> list[Tensor]:
    """A layer's weight `[after, before]`, for numbers in parts."""
    found = []
    for rows, columns in zip(after.parts, before.parts, strict=True):
        picked = weight.index_select(0, rows.first)
        both = picked.index_select(1, columns.first)
        both = both + columns.factor * picked.index_select(1, columns.second)
        found.append(both * columns.half())
    return found


class Gradient:
    """From gradients of a layer in parts to those of its weight and bias."""

    def __init__(self, after: Parts, before: Parts) -> None:
        """Of a weight `[after, before]`."""
        self._after, self._before = after.places(), before.places()

    def weight(self, parts: Sequence[Tensor]) -> Tensor:
        """Of the weight, without what is not symmetric; from those of `in_parts`."""
        found = None
        for part, (row, down), (column, across) in zip(
            parts, self._after, self._before, strict=True
        ):
            spread = part.index_select(0, row).index_select(1, column)
            spread *= down[:, None] * across
            found = spread if found is None else found.add_(spread)
        assert found is not None
        return found

    def bias(self, sums: Tensor) -> Tensor:
        """Of the bias, from the sums over rows of the first part's gradients."""
        row, down = self._after[0]
        return sums[row] * down


def is_symmetric(network: Network) -> bool:
    """Whether a network's weights are left-right symmetric.

    While it learns they stay so up to rounding: a million steps that are off by half a unit of the
    last place each, either way, are off by 3e-5 of a weight.
    """

    def same(value: Tensor, mirror: Mirror) -> bool:
        return bool((reflected(value, mirror) - value).abs().max() <= 1e-3 * value.abs().max())

    values = [value.detach().flatten() for value in network.layers.parameters()]
    return bool(network.mirrors) and all(map(same, values, network.mirrors))


def reflections(network: Network) -> list[Mirror]:
    """Of a symmetric network's inputs, of the units of each hidden layer, and of its outputs."""
    assert network.input_mirror is not None
    return [network.input_mirror, *network.mirrors[1::2]]  # those of the biases
