"""Verbs of NumPy, by numbers, and of torch, by masks, do the same to the same robots."""

import numpy as np
import pytest

from bm_envs.arrays import EVERYONE, NUMPY, arrays_of

torch = pytest.importorskip("torch")

N = 6
TORCH = arrays_of(torch.zeros(1))
MASK = np.array([False, True, True, False, False, True])


def both(values):
    """The values as arrays of both libraries, each of its own memory."""
    return np.array(values), TORCH.array(values)


def chosen():
    """The same robots by number and by mask."""
    return NUMPY.which(MASK), TORCH.which(torch.from_numpy(MASK))


def test_the_library_of_an_array_is_known():
    assert arrays_of(np.zeros(2)) is NUMPY and TORCH.device == torch.device("cpu")


def test_robots_are_chosen_and_written_alike():
    numbers, mask = chosen()
    assert numbers.tolist() == [1, 2, 5] and NUMPY.count(numbers) == 3 and TORCH.count(mask) == N
    assert NUMPY.some(numbers) and not NUMPY.some(numbers[:0]) and TORCH.some(~mask & mask)
    rows = np.arange(4.0 * N).reshape(N, 4)
    for value in (0, rows):
        host, device = both(np.full((N, 4), 7.0))
        place = device.data_ptr()
        taken = value if np.isscalar(value) else NUMPY.take(value, numbers)
        NUMPY.put(host, numbers, taken)
        TORCH.put(device, mask, value if np.isscalar(value) else torch.from_numpy(value))
        np.testing.assert_array_equal(device, host)
        assert (host[~MASK] == 7).all() and (host[MASK] != 7).any()
        assert device.data_ptr() == place, "a graph reads the place where it was"
    for on, target in zip((NUMPY, TORCH), both(np.zeros(N)), strict=True):
        on.put(target, EVERYONE, 2)
        on.put(target, on.everyone(N), 3)
        assert target.tolist() == [3] * N


def test_sums_and_stacks_are_alike():
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=N).astype(np.float32), rng.integers(0, 9, N), rng.random(N) < 0.5]
    weights = np.array([0.5, -2.0, 3.0], np.float32)
    host, device = NUMPY.stack(columns), TORCH.stack([TORCH.array(c) for c in columns])
    assert host.dtype == np.float32 and device.dtype == torch.float32
    np.testing.assert_array_equal(device, host)
    sums = TORCH.weighted_sum(device, TORCH.array(weights))
    # Three products in another order, in float32.
    np.testing.assert_allclose(sums, NUMPY.weighted_sum(host, weights), atol=1e-5)
    indices = np.array([0, 2, 2, 2, 1, 0])
    for where in (None, MASK):
        host, device = both(np.zeros(4))
        NUMPY.add_at(host, indices, 0.25, where)
        mask = None if where is None else torch.from_numpy(where)
        TORCH.add_at(device, torch.from_numpy(indices), 0.25, mask)
        np.testing.assert_array_equal(device, host)
        assert host.sum() == 0.25 * (N if where is None else MASK.sum())
    for on, values in zip((NUMPY, TORCH), both([1.9, -1.9, 0.0]), strict=True):
        assert on.truncated(values).tolist() == [1, -1, 0]


def test_a_scale_is_a_number_or_stays_one_tensor():
    assert NUMPY.scale(0.5, 1.0) == 0.5
    scale = TORCH.scale(1.0)
    assert TORCH.scale(0.5, scale) is scale and scale == 0.5


@pytest.mark.parametrize(
    "on, rng", [(NUMPY, np.random.default_rng(0)), (TORCH, torch.Generator().manual_seed(0))]
)
def test_draws_are_in_their_ranges_and_reach_both_ends(on, rng):
    n = 4000  # the first and the last twentieth are missed with probability 2 * 0.95^4000
    level = np.array([0.5, 2.0], np.float32)
    for values, low, high in (
        (on.uniform(rng, 2.0, 3.0, n), 2, 3), (on.symmetric(rng, n, 2), -1, 1),
        (on.noise(rng, on.array(level), n)[:, 1], -2, 2), (on.integers(rng, 3, n), 0, 3),
    ):  # fmt: skip
        values, room = NUMPY.array(values), 0.05 * (high - low)
        assert low <= values.min() < low + room and high - room < values.max() <= high
    probabilities = np.array([0.1, 0.0, 0.6, 0.3])
    bins, within = map(NUMPY.array, on.places(rng, on.array(probabilities), n))
    counts = np.bincount(bins, minlength=4)
    # Five standard deviations of a binomial count.
    spread = 5 * np.sqrt(n * probabilities * (1 - probabilities))
    assert (abs(counts - n * probabilities) <= spread).all()
    assert 0 <= within.min() and within.max() < 1
