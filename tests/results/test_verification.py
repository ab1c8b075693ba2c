"""What a second run bears out: simulated honest rows, claims that are too good, and the numbers."""

import numpy as np
import pytest
from result_files import track_row
from scipy import stats

from bm_envs.results import ERRORS, verification
from bm_envs.statistics import wilson

LENGTH = 10.0  # s


def drawn(rng, episodes, *, fails=0.1, scale=1.0, protocol="robust"):
    """A row, with its spread, of episodes that fail with this chance at any time."""
    failed = rng.random(episodes) < fails
    survival = np.where(failed, rng.uniform(0.5, LENGTH, episodes), LENGTH)
    values = {
        name: level * scale * rng.gamma(16, 1 / 16, episodes) * np.where(failed, 1.5, 1.0)
        for name, level in zip(ERRORS, (90, 35, 0.09, 0.7, 45, 0.1), strict=True)
    } | {"survival_s": survival, "normalized_return": 0.9 * survival / LENGTH}
    successes = int(episodes - failed.sum())
    return track_row(
        protocol=protocol, episodes=episodes, clip_s=LENGTH, success=successes / episodes,
        success_ci95=list(wilson(successes, episodes)),
        spread={name: float(each.std(ddof=1)) for name, each in values.items()},
        **{name: float(each.mean()) for name, each in values.items()},
    )  # fmt: skip


@pytest.mark.parametrize("fails", [0.0, 0.02, 0.3, 0.9])
@pytest.mark.parametrize(("protocol", "episodes"), [("robust", 100), ("clip-perturbed", 20)])
def test_honest_rows_are_borne_out(fails, protocol, episodes):
    """A dozen figures at a level of 0.9999: of 150 rows a refusal is seen once in six."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        row, again = (drawn(rng, episodes, fails=fails, protocol=protocol) for _ in range(2))
        refused += bool(list(verification.resampled(row, again)))
    assert refused <= 1


@pytest.mark.parametrize(
    ("better", "figure"),
    [
        ({"scale": 0.5}, "mpkpe_mm"), ({"scale": 0.7}, "mpkpe_mm"), ({"scale": 1.4}, "mpkpe_mm"),
        ({"fails": 0.0}, "success"),
    ],
)  # fmt: skip
def test_better_and_worse_rows_are_refused(better, figure):
    rng = np.random.default_rng(1)
    for _ in range(20):
        again = drawn(rng, 100, fails=0.4 if "fails" in better else 0.1)
        refusals = list(verification.resampled(drawn(rng, 100, **better), again))
        assert figure in [name for name, *_ in refusals]


def test_a_refusal_has_the_numbers():
    rng = np.random.default_rng(2)
    again = drawn(rng, 100)
    (name, claimed, found), *_ = verification.resampled(
        {**again, "r_mpkpe_mm": again["r_mpkpe_mm"] / 2}, again
    )
    mean, spread = again["r_mpkpe_mm"], again["spread"]["r_mpkpe_mm"]
    # The prediction interval of Student's distribution, by SciPy.
    half = stats.t.ppf(1 - 0.5e-4, 99) * spread * np.sqrt(2 / 100)
    assert (name, claimed) == ("r_mpkpe_mm", f"{mean / 2:g}")
    assert found == (
        f"100 fresh episodes gave {mean:g} ({mean - half:.4g} to {mean + half:.4g} is allowed)"
    )


def test_which_shares_are_allowed_beside_a_second_run():
    row, again = (track_row(episodes=100, success=s) for s in (1.0, 0.41))
    low, high = verification.allowed_successes(row, again)
    assert low < 0.41 < high
    # A test of two shares that has nothing in common with Newcombe's interval, at this level.
    for share, agrees in ((low, True), (high, True), (low - 0.06, False), (high + 0.06, False)):
        table = [[round(100 * share), 100 - round(100 * share)], [41, 59]]
        p = stats.fisher_exact(table).pvalue
        assert (p > 0.5e-4) == agrees, share
    assert verification.allowed_successes(row, track_row(episodes=100, success=1.0))[1] == 1.0


@pytest.mark.parametrize(("complete", "refused"), [(20, False), (6, False), (5, True), (0, True)])
def test_a_completed_clip_is_completed_from_other_starts(complete, refused):
    """Wilson's interval of 5 of 20 ends at 0.47, that of 6 of 20 at 0.52 (SciPy)."""
    high = stats.binomtest(complete, 20).proportion_ci(method="wilson").high
    assert (high < 0.5) == refused
    around = {**drawn(np.random.default_rng(0), 20), "success": complete / 20, "survival_s": 24.0}
    found = list(verification.stands_for_a_policy(track_row(), around))
    assert [name for name, *_ in found] == ["success"] * refused
    if refused:
        assert f"{complete} of 20 complete the clip" in found[0][2]


def test_a_clip_that_fails_fails_about_as_late_from_other_starts():
    rng = np.random.default_rng(3)
    row = track_row(success=0.0, survival_s=8.0, r_mpkpe_mm=35.0, joint_pos_rad=0.09)
    around = drawn(rng, 20, fails=1.0)
    assert list(verification.stands_for_a_policy(row, around)) == []
    early = {**around, "survival_s": 0.6, "spread": {**around["spread"], "survival_s": 0.2}}
    ((name, value, found),) = verification.stands_for_a_policy(row, early)
    assert (name, value) == ("survival_s", 8.0) and "0.6 on average" in found


def test_errors_of_a_clip_are_not_half_of_those_from_other_starts():
    row, around = track_row(r_mpkpe_mm=16.0), drawn(np.random.default_rng(4), 20, fails=0.0)
    around["survival_s"] = 24.5
    ((name, value, _),) = verification.stands_for_a_policy(row, around)
    assert (name, value) == ("r_mpkpe_mm", "16")
