"""Intervals, averages over runs, and tests. Arrays in, figures out; every interval is two-sided.

Shares of trials have Wilson's interval, their differences Newcombe's. Runs of several tasks are
compared as Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical
precipice", the package `rliable`) propose: interquartile means, intervals by a bootstrap that draws
runs within each task, and performance profiles. Where the same seeds were run twice, pairs are
tested.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from bm_envs.errors import ConfigError

LEVEL = 0.95
EXACT_PAIRS = 16  # up to so many all signs are tried; 2^16 sums


@functools.cache
def _z(level: float) -> float:
    """The normal distribution lies within +-z at this level."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share."""
    z = _z(level)
    share, weight = successes / trials, z**2 / trials
    center = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # Of none the lower end is 0, and of all the upper one is 1: exactly, and not but for rounding.
    low = center - half if successes else 0.0
    return low, center + half if successes < trials else 1.0


def falls_below(values: Sequence[float], shares: Sequence[float], level: float = 0.5) -> float:
    """Where a share that is known at some values first falls to a level.

    Between two values it is taken for a straight line.

    Args:
        values: where it is known, from the mildest to the hardest, in either direction.
        shares: the share there.
        level: what it falls to.

    Returns:
        The value; -inf where the share is below the level at the mildest value already, inf where
        it is above it at all of them.
    """
    if shares[0] < level:
        return -math.inf
    for i, share in enumerate(shares):
        if share == level:
            return float(values[i])
        if share < level:
            way = (shares[i - 1] - level) / (shares[i - 1] - share)
            return float(values[i - 1] + way * (values[i] - values[i - 1]))
    return math.inf


def half_survive(
    values: Sequence[float], successes: Sequence[int], trials: int, level: float = LEVEL
) -> tuple[float, tuple[float, float]]:
    """The value at which half survive, and its interval.

    The interval is from where the lower ends of the values' Wilson intervals fall to half, joined
    by straight lines, to where the upper ends do.

    Args:
        values: from the mildest to the hardest.
        successes: of `trials` at each.
        trials: at each value.
        level: of the intervals.

    Returns:
        As `falls_below`: the value, and the two ends, the one nearer to the mildest value first.
    """
    bands = [wilson(count, trials, level) for count in successes]
    low, high = (falls_below(values, ends) for ends in zip(*bands, strict=True))
    return falls_below(values, [count / trials for count in successes]), (low, high)


def newcombe(
    successes: int, trials: int, others: int, other_trials: int, level: float = LEVEL
) -> tuple[float, float]:
    """Interval of the difference of two shares, `successes / trials - others / other_trials`.

    Source: Newcombe 1998, Statistics in Medicine 17, 873, method 10: from both Wilson intervals.
    """
    share, other = successes / trials, others / other_trials
    low, high = wilson(successes, trials, level)
    other_low, other_high = wilson(others, other_trials, level)
    below = math.hypot(share - low, other_high - other)
    above = math.hypot(high - share, other - other_low)
    return share - other - below, share - other + above


@functools.cache
def student_quantile(level: float, freedom: int) -> float:
    """Student's distribution with so many degrees of freedom lies within +-t at this level.

    The density is integrated, in the angle `atan(t / sqrt(freedom))`: it has no tail there.

    Raises:
        ConfigError: the level is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0 < level < 1 or freedom < 1:
        raise ConfigError(
            f"level is {level} and freedom {freedom}, expected a level between 0 and 1, and 1 or "
            "more."
        )
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def outside(angle: float) -> float:
        """Share beyond +-t. The tail itself is integrated, which keeps the digits of small ones."""
        half = (math.pi / 2 - angle) / 2
        return 2 * scale * half * float(weights @ np.sin(half * (nodes + 1)) ** (freedom - 1))

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if outside(middle) > 1 - level else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def allowed_mean(
    mean: float, deviation: float, count: int, other_count: int, level: float = LEVEL
) -> tuple[float, float]:
    """Where the mean of `other_count` further values of the same distribution lies.

    The prediction interval for values of a normal distribution, of which `count` had this mean and
    this standard deviation (with `count - 1` below the sum of squares).
    """
    if count < 2:
        raise ConfigError(f"count is {count}, expected 2 values or more to tell how they vary.")
    half = student_quantile(level, count - 1) * deviation * math.sqrt(1 / count + 1 / other_count)
    return mean - half, mean + half


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of what is left when a quarter of all values is dropped at either end, rounded down."""
    ordered = np.sort(np.asarray(scores, float), axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def stratified_bootstrap(
    tasks: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float] = interquartile_mean, *,
    seed: int = 0, repeats: int = 2000, level: float = LEVEL,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of a statistic of all runs' scores.

    Args:
        tasks: scores of each task's runs, `[R_k]` each. Runs are drawn anew within each task, as
            many as there were, since tasks were chosen and seeds are chance.
        statistic: a figure of all scores, `[sum R_k]`.
        seed: of the draws.
        repeats: how many samples are drawn.
        level: share of their figures that lies within the interval.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        np.asarray(scores, float)[rng.integers(len(scores), size=(repeats, len(scores)))]
        for scores in tasks
    ]
    figures = [statistic(sample) for sample in np.concatenate(drawn, axis=1)]
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def performance_profile(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Share of runs whose score is above each threshold. `[len(thresholds)]`."""
    values = np.asarray(scores, float).ravel()
    return (values[:, None] > np.asarray(thresholds, float)).mean(axis=0)


def paired_test(differences: np.ndarray, *, seed: int = 0, repeats: int = 20000) -> float:
    """Two-sided p of the mean of paired differences, by Fisher's change of signs.

    Exact up to `EXACT_PAIRS` pairs; of more, signs are drawn, and the data count as one draw.
    """
    values = np.asarray(differences, float)
    if not len(values):
        raise ConfigError("There are no pairs, expected one or more.")
    exact = len(values) <= EXACT_PAIRS
    if exact:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(values))))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(repeats, len(values)))
    sums = np.abs(signs @ values)
    # Sums of the same numbers in another order differ by rounding, and are as far out.
    as_far = sums >= abs(values.sum()) - 1e-12 * np.abs(values).sum()
    return float(as_far.mean() if exact else (as_far.sum() + 1) / (repeats + 1))


def paired_shares_test(only_first: int, only_second: int) -> float:
    """Two-sided p of paired successes and failures, McNemar's exact test.

    Args:
        only_first: pairs in which the first alone succeeded, and
        only_second: the second alone; pairs in which both did the same do not count.
    """
    pairs, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(pairs, k) for k in range(fewer + 1)) / 2**pairs
    return min(1.0, 2 * tail)
