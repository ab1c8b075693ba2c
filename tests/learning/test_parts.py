"""Layers in two parts: the numbers, the weights, and their gradients are those of plain layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bm_envs.learning.networks import Network, as_mirror, reflected
from bm_envs.learning.parts import Gradient, Parts, in_parts, is_symmetric, reflections


def reflection(size, seed):
    """Any reflection: some numbers trade places, some stay, with or without their sign."""
    rng = np.random.default_rng(seed)
    index, sign = np.arange(size), rng.choice([-1.0, 1.0], size)
    order = rng.permutation(size)
    for i, j in zip(order[0::2], order[1::2], strict=False):
        if rng.random() < 0.7:
            index[[i, j]], sign[j] = [j, i], sign[i]
    return as_mirror((index, sign))


def numbers(parts, plain):
    """Of both parts, of plain numbers `[..., D]`."""
    return [plain[..., part.first] + part.factor * plain[..., part.second] for part in parts.parts]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_a_symmetric_layer_in_parts_is_that_layer(before, after, seed):
    """Also its gradient, which is the plain one without what is not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    mirrors = reflection(before, seed), reflection(after, seed + 1)
    weight = torch.randn(after, before, generator=generator, dtype=torch.float64)
    both = reflected(reflected(weight, mirrors[0]).T, mirrors[1]).T
    weight = ((weight + both) / 2).requires_grad_()
    x = torch.randn(5, before, generator=generator, dtype=torch.float64)
    inputs, outputs = (
        Parts(size, mirror) for size, mirror in zip((before, after), mirrors, strict=True)
    )
    assert sum(inputs.counts) == before and sum(outputs.counts) == after

    matrices = in_parts(weight.detach(), outputs, inputs)
    found = torch.zeros(5, after, dtype=torch.float64)
    for part, value, matrix in zip(outputs.parts, numbers(inputs, x), matrices, strict=True):
        out = value @ matrix.T
        found.index_add_(1, part.first, out)
        found.index_add_(1, part.second, part.factor * out)
    assert torch.allclose(found, x @ weight.T, atol=1e-12)

    by = torch.randn(5, after, generator=generator, dtype=torch.float64)
    (by * (x @ weight.T)).sum().backward()
    expected = weight.grad
    expected = (expected + reflected(reflected(expected, mirrors[0]).T, mirrors[1]).T) / 2
    pairs = list(zip(numbers(outputs, by), numbers(inputs, x), strict=True))
    if all(outputs.counts) and all(inputs.counts):
        gradient = Gradient(outputs, inputs)
        assert torch.allclose(gradient.weight([g.T @ v for g, v in pairs]), expected, atol=1e-12)
        sums = by.sum(0)
        expected = (sums + reflected(sums, mirrors[1])) / 2
        assert torch.allclose(gradient.bias(pairs[0][0].sum(0)), expected, atol=1e-12)


def test_numbers_that_come_later_stand_behind_the_others():
    parts = Parts(10, reflection(10, 3), range(4, 7))
    splits = list(parts.native.split)
    for part, split in zip(parts.parts, splits, strict=True):
        late = [4 <= first < 7 for first in part.first.tolist()]
        assert late == sorted(late) and split == late.count(False)


@pytest.mark.parametrize("off", [0.0, 1e-6, 0.01])
def test_what_counts_as_symmetric(off):
    mirrors = reflection(6, 0), reflection(4, 1)
    network = Network((6, 8, 4), "elu", 1.0, mirrors)
    assert [len(index) for index, _ in reflections(network)] == [6, 8, 4]
    network.layers[0].weight.data[0, 0] += off
    assert is_symmetric(network) == (off < 0.001)
    assert not is_symmetric(Network((6, 8, 4), "elu", 1.0))
