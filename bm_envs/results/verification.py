"""Does a second run say what a row of the kind `track` says? Rules, without any run.

`clip` is one run without chance, so it is repeated and its figures are compared. What a processor
rounds otherwise grows while a robot moves, hence `SAME`. A path that was learned by heart is
repeated, too; so the policy also has to hold on from 20 other starts (`stands_for_a_policy`).

`clip-perturbed` and `robust` are samples: their second run has other draws. A figure of the row has
to lie where that run's figures let a further sample lie (`resampled`), at a level at which an
honest row with its dozen of figures is refused once in a thousand times. A success rate has
Newcombe's interval of the difference of two shares, other figures the prediction interval of
Student's distribution. A difference of an error below `SAMPLED` is none.

A completed row of `clip` is refused if `LEAST_SHARE` lies above Wilson's 95 % interval of the
starts beside its own that complete the clip: with 20 of them, if fewer than 6 do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bm_envs import statistics
from bm_envs.results.tracking import ERRORS

LEVEL = 0.9999
SAME = 0.05  # largest relative difference of an error of `clip`
SAME_S, SAME_RETURN = 0.5, 0.05  # of survival (or SAME of it), and of the normalized return
# Samples with no failure say little of how rare failures spread errors, and engines differ in the
# last digits: a difference within this share is none.
SAMPLED = 0.05
LEAST_SHARE = 0.5  # of perturbed starts that a completed clip has to be completed from
LEAST_ERROR = 0.5  # of the perturbed starts' error, which a clip's own has to reach

Refusal = tuple[str, Any, str]
"""A field, what the row has there, and what was found and allowed."""


def repeated(row: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[Refusal]:
    """Differences of a row of `clip` from its second run, which has the same start."""

    def found(value: Any, tolerance: str) -> str:
        shown = f"{value:g}" if isinstance(value, float) else value
        return f"run again it is {shown} ({tolerance})"

    if row["success"] != again["success"]:
        yield "success", row["success"], found(again["success"], "expected the same")
    largest = max(SAME_S, SAME * again["survival_s"])
    if abs(row["survival_s"] - again["survival_s"]) > largest:
        yield "survival_s", row["survival_s"], found(again["survival_s"], f"within {largest:.2g} s")
    for name in ERRORS:
        old, new = row[name], again[name]
        if (old is None) != (new is None):
            yield name, old, found(new, "a number or null in both")
        elif new is not None and abs(old - new) > SAME * new:
            yield name, old, found(new, f"within {SAME:.0%}")
    name = "normalized_return"
    if abs(row[name] - again[name]) > SAME_RETURN:
        yield name, row[name], found(again[name], f"within {SAME_RETURN:g}")


def stands_for_a_policy(row: Mapping[str, Any], around: Mapping[str, Any]) -> Iterator[Refusal]:
    """What a row of `clip` claims and starts beside its own do not bear out.

    Args:
        row: of `clip`.
        around: the row of `clip-perturbed` that was measured for it.
    """
    trials = around["episodes"]
    complete = round(around["success"] * trials)
    if row["success"] == 1 and statistics.wilson(complete, trials)[1] < LEAST_SHARE:
        yield "success", row["success"], (
            f"from starts beside it {complete} of {trials} complete the clip (half of all have to "
            "be within their 95 % interval)"
        )  # fmt: skip
    survived = around["survival_s"]
    _, most = statistics.allowed_mean(
        survived, around["spread"]["survival_s"], trials, trials, statistics.LEVEL
    )
    if row["survival_s"] > 0 and most < LEAST_SHARE * row["survival_s"]:
        yield "survival_s", row["survival_s"], (
            f"from starts beside it it is {survived:g} on average (expected {LEAST_SHARE:.0%} of "
            "it or more)"
        )  # fmt: skip
    for name in ("r_mpkpe_mm", "joint_pos_rad"):
        old, new = row[name], around[name]
        if old is not None and new is not None and old < LEAST_ERROR * new:
            yield name, f"{old:g}", (
                f"from starts beside it it is {new:g} on average (expected {LEAST_ERROR:.0%} of it "
                "or more)"
            )  # fmt: skip


def allowed_successes(row: Mapping[str, Any], again: Mapping[str, Any]) -> tuple[float, float]:
    """Lowest and highest share that as many episodes as the row's may have beside a second run."""
    trials, others = row["episodes"], again["episodes"]
    successes = round(again["success"] * others)

    def agree(count: int) -> bool:
        low, high = statistics.newcombe(count, trials, successes, others, LEVEL)
        return low <= 0 <= high

    allowed = [count / trials for count in range(trials + 1) if agree(count)]
    return allowed[0], allowed[-1]


def resampled(row: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[Refusal]:
    """Figures of a row that lie outside what the second run's interval allows."""
    trials = row["episodes"]
    low, high = allowed_successes(row, again)
    tell = f"{again['episodes']} fresh episodes gave"
    if not low <= row["success"] <= high:
        yield (
            "success",
            f"{row['success']:g}",
            (f"{tell} {again['success']:g} ({low:g} to {high:g} is allowed)"),
        )
    spread = again["spread"]

    def bounds(name: str, per_success: float) -> tuple[float, float]:
        """Of a figure that a success more in all episodes would raise by `per_success` at most."""
        mean, deviation = again[name], spread[name] or 0.0
        less, more = statistics.allowed_mean(mean, deviation, again["episodes"], trials, LEVEL)
        slack = SAMPLED * abs(mean)
        fewer, further = ((again["success"] - end) * per_success for end in (low, high))
        return min(less, mean - max(slack, fewer)), max(more, mean + max(slack, -further))

    figures = {"survival_s": row["clip_s"], **dict.fromkeys(ERRORS, 0.0), "normalized_return": 1.0}
    for name, per_success in figures.items():
        old, new = row[name], again[name]
        if (old is None) != (new is None):
            yield name, old, f"{tell} {new} (expected a number or null in both)"
        elif new is not None:
            least, most = bounds(name, per_success)
            if not least <= old <= most:
                yield name, f"{old:g}", f"{tell} {new:g} ({least:.4g} to {most:.4g} is allowed)"
