"""`bm_envs/statistics.py` against SciPy, closed forms, published examples, and rliable."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bm_envs import statistics
from bm_envs.errors import ConfigError


@pytest.mark.parametrize("level", [0.95, 0.9999])
@pytest.mark.parametrize("trials", [1, 7, 100])
def test_wilson_equals_scipys(trials, level):
    for successes in {0, 1, trials // 2, trials}:
        expected = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
        assert statistics.wilson(successes, trials, level) == pytest.approx(
            (expected.low, expected.high)
        )


def test_wilson_of_none_begins_at_0_and_of_all_ends_at_1():
    """Exactly: what was left by rounding, such as 3e-18, once stood in result files."""
    for trials in range(1, 1001):
        assert statistics.wilson(0, trials)[0] == 0 and statistics.wilson(trials, trials)[1] == 1
        assert statistics.wilson(1, trials)[0] > 1e-5


def test_a_line_falls_to_half_where_its_equation_says():
    values = np.array([0.0, 0.3, 0.7, 1.5, 2.0])
    for slope in (0.3, 0.45, 0.8):
        found = statistics.falls_below(values, (1.0 - slope * values).tolist())
        assert found == pytest.approx(0.5 / slope)
    # In the other direction, as friction.
    assert statistics.falls_below([1.2, 0.8, 0.4], [1.2, 0.8, 0.4]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.4, 0.2, 0.1], -math.inf),
        ([0.9, 0.8, 0.7], math.inf),
        ([0.9, 0.8, 0.5], 2.0),
        ([0.5, 0.2, 0.1], 0.0),
        ([0.9, 0.4, 0.8], 0.8),  # the first fall counts, also of a curve that rises again
        ([0.9, 0.5, 0.8], 1.0),
        ([1.0, 0.0, 0.0], 0.5),
    ],
)
def test_where_a_share_first_falls_to_half(shares, expected):
    assert statistics.falls_below([0.0, 1.0, 2.0], shares) == pytest.approx(expected)


def test_the_interval_of_the_half_point_is_where_wilsons_ends_fall_to_half():
    value, (low, high) = statistics.half_survive([0.0, 1.0], [100, 0], 100)
    assert value == pytest.approx(0.5)
    # Of none of 100 the upper end is 3.7 %, of all the lower one 96.3 % (`1 / (1 + z^2 / n)`).
    end = 1 / (1 + 1.959964**2 / 100)
    assert low == pytest.approx((end - 0.5) / end, abs=1e-6)
    assert high == pytest.approx(0.5 / end, abs=1e-6)
    assert statistics.half_survive([0.0, 1.0], [49, 10], 100)[0] == -math.inf
    value, ends = statistics.half_survive([0.0, 1.0], [90, 52], 100)
    assert (value, ends[1]) == (math.inf, math.inf) and 0 < ends[0] < 1


def test_the_interval_of_the_half_point_holds_the_truth_95_times_of_100():
    """Trials at values of a straight line, whose half point is known, at a grid point or not."""
    rng = np.random.default_rng(7)
    values = np.linspace(0.0, 2.0, 9)
    for truth in (0.9, 1.0, 1.13):
        shares = np.clip(0.5 - 0.6 * (values - truth), 0.0, 1.0)
        held = []
        for counts in rng.binomial(100, shares, (1000, 9)):
            _, (low, high) = statistics.half_survive(values.tolist(), counts.tolist(), 100)
            held.append(low <= truth <= high)
        # 1000 draws: a share of 95 % has a standard error of 0.7 %.
        assert np.mean(held) > 0.93, truth


@pytest.mark.parametrize(
    ("shares", "expected"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ],
)
def test_newcombes_published_examples(shares, expected):
    assert statistics.newcombe(*shares) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 19, 99, 1000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.9999])
def test_student_equals_scipys(freedom, level):
    expected = stats.t.ppf(0.5 + level / 2, freedom)
    assert statistics.student_quantile(level, freedom) == pytest.approx(expected, rel=1e-6)


def test_students_closed_form():
    """With one degree of freedom it is Cauchy's distribution: t = tan(pi level / 2)."""
    assert statistics.student_quantile(0.8, 1) == pytest.approx(math.tan(0.4 * math.pi))
    for level, freedom in ((1.0, 3), (0.0, 3), (0.9, 0)):
        with pytest.raises(ConfigError, match="expected a level between 0 and 1"):
            statistics.student_quantile(level, freedom)


def test_as_many_means_lie_within_as_are_said_to():
    """Of 2000 pairs of samples, 20 and 100 values: 90 % within a normal error of 4 deviations."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(2000):
        first, second = rng.normal(3, 2, 20), rng.normal(3, 2, 100)
        low, high = statistics.allowed_mean(first.mean(), first.std(ddof=1), 20, 100, 0.9)
        inside += low <= second.mean() <= high
    assert abs(inside / 2000 - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 2000)
    with pytest.raises(ConfigError, match="count is 1, expected 2"):
        statistics.allowed_mean(1.0, 0.0, 1, 5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_the_interquartile_mean_is_scipys_trimmed_one(values):
    assert statistics.interquartile_mean(np.array(values)) == pytest.approx(
        stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6
    )


def test_the_interquartile_mean_by_hand():
    assert statistics.interquartile_mean(np.array([[9.0, 1.0, 2.0, 100.0], [3, 4, 5, 6]])) == 4.5


def test_the_bootstrap_of_one_task_is_scipys():
    scores = np.random.default_rng(1).gamma(2.0, size=30)
    found = statistics.stratified_bootstrap([scores], np.mean, repeats=20000)
    expected = stats.bootstrap(
        (scores,), np.mean, n_resamples=20000, method="percentile", rng=2
    ).confidence_interval
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_runs_are_drawn_within_their_task():
    """Tasks whose runs all agree have no chance in them, however far apart they are."""
    tasks = [np.full(3, 1.0), np.full(5, 10.0)]
    assert statistics.stratified_bootstrap(tasks, np.mean, repeats=50) == (6.625, 6.625)
    # Of two runs 0 and 1 beside a fixed one, the mean is 1/3, 2/3 or 1 with 1/4, 1/2 and 1/4.
    seen = []
    statistics.stratified_bootstrap(
        [np.array([0.0, 1.0]), np.array([1.0])],
        lambda sample: seen.append(round(3 * sample.mean())) or 0.0, repeats=4000,
    )  # fmt: skip
    shares = np.bincount(seen, minlength=4) / 4000
    assert shares == pytest.approx([0, 0.25, 0.5, 0.25], abs=0.035)


def test_a_profile_by_hand():
    scores = np.array([[0.2, 0.5], [0.5, 0.9]])
    assert statistics.performance_profile(scores, [0.0, 0.2, 0.5, 0.9]).tolist() == [
        1.0, 0.75, 0.25, 0.0,
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_paired_test_equals_scipys_and_an_enumeration(count):
    values = np.random.default_rng(count).normal(0.4, 1, count)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=count)]
    by_hand = np.mean([s >= abs(values.sum()) - 1e-9 for s in sums])
    assert statistics.paired_test(values) == pytest.approx(by_hand)
    if count > 1:
        theirs = stats.permutation_test(
            (values, np.zeros(count)), lambda a, b: np.mean(a - b), permutation_type="samples",
            n_resamples=np.inf,
        )  # fmt: skip
        assert statistics.paired_test(values) == pytest.approx(theirs.pvalue)


def test_many_pairs_are_drawn():
    """Against the normal limit, which 200 pairs are near: sum over its root of squares."""
    values = np.random.default_rng(0).normal(0.12, 1, 200)
    z = abs(values.sum()) / np.sqrt((values**2).sum())
    assert statistics.paired_test(values) == pytest.approx(2 * stats.norm.sf(z), abs=0.012)
    with pytest.raises(ConfigError, match="no pairs"):
        statistics.paired_test(np.array([]))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 5), (1, 8), (9, 2), (0, 6)])
def test_mcnemars_test_is_a_binomial_one(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert statistics.paired_shares_test(first, second) == pytest.approx(expected)


def test_rliable_says_the_same():
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    library = pytest.importorskip("rliable.library")
    scores = np.random.default_rng(4).gamma(2.0, size=(5, 6))  # runs, tasks
    assert statistics.interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores))
    _, theirs = library.get_interval_estimates(
        {"ours": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000
    )
    low, high = theirs["ours"][:, 0]
    found = statistics.stratified_bootstrap(list(scores.T), repeats=4000)
    assert found == pytest.approx((low, high), abs=0.08 * (high - low))
    thresholds = np.linspace(0, 4, 9)
    profile, _ = library.create_performance_profile({"ours": scores}, thresholds, reps=10)
    np.testing.assert_allclose(statistics.performance_profile(scores, thresholds), profile["ours"])
