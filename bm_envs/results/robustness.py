"""Result files of success over one disturbance at a time: the kind `robustness`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from bm_envs.results.rules import (
    CI_ROUNDING,
    ROUNDING,
    Kind,
    Rule,
    Rules,
    either,
    interval,
    listing,
    number,
    text,
    whole,
)  # fmt: skip
from bm_envs.statistics import half_survive, wilson

BEFORE, BEYOND = "before", "beyond"
_HALF = "a number, or 'before' or 'beyond' the values that were tried"
_WHERE = either(_HALF, number(), text(BEFORE, BEYOND))
# An axis whose values have no order has no such point.
HALF_RULE = either(f"{_HALF}, or null", number(), text(BEFORE, BEYOND, null=True))
HALF_ENDS_RULE = Rule(
    f"two of these, or null: {_HALF}",
    {"anyOf": [
        {"type": "array", "items": _WHERE.schema, "minItems": 2, "maxItems": 2}, {"type": "null"},
    ]},
)  # fmt: skip

ROBUSTNESS_ROWS: Rules = {
    "policy": text(),
    "world": text(),
    "motion": text(null=True),
    "backend": text(),
    "axis": text(),
    "unit": text(empty=True),
    "harder": text("up", "down", null=True),
    "standard": either("a number, a text, or null", number(), text(null=True)),
    "episodes": whole(1),
    "episode_s": number(0, above=True),
    "values": listing(
        of=either("a number or a text", number(), text()), least=1, words="a list of values"
    ),
    "successes": listing(of=whole(), words="a list of whole numbers of 0 or more"),
    "success": listing(of=number(0, 1), words="a list of numbers of 0 to 1"),
    "success_ci95": listing(of=interval(), words="a list of intervals"),
    "survival_s": listing(of=number(0), words="a list of numbers of 0 or more"),
    "half": HALF_RULE,
    "half_ci95": HALF_ENDS_RULE,
}


def told(value: float) -> float | str:
    """A place of `statistics.falls_below` as a file holds it."""
    if math.isinf(value):
        return BEYOND if value > 0 else BEFORE
    return round(value, 6)


def half_of(
    values: list[Any], successes: list[int], episodes: int, harder: str | None
) -> tuple[float | str | None, list[float | str] | None]:
    """The fields `half` and `half_ci95` of a row.

    Args:
        values: in ascending order.
        successes: of `episodes` at each value.
        episodes: at each value.
        harder: `up` where larger values are harder, `down` where smaller ones are, None where
            values have no order.
    """
    if harder is None:
        return None, None
    turn = slice(None) if harder == "up" else slice(None, None, -1)
    value, ends = half_survive(values[turn], successes[turn], episodes)
    return told(value), [told(end) for end in ends]


def _robustness(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    values, episodes = row["values"], row["episodes"]
    for name in ("successes", "success", "success_ci95", "survival_s"):
        if len(row[name]) != len(values):
            yield name, f"{len(values)} entries, one for each of values"
            return
    if row["harder"] is not None:
        if any(isinstance(value, str) for value in values):
            yield "values", "numbers on an axis with an order"
            return
        if any(a >= b for a, b in itertools.pairwise(values)):
            yield "values", "numbers that rise"
            return
    for count, share, ends, survived in zip(
        row["successes"], row["success"], row["success_ci95"], row["survival_s"], strict=True
    ):
        if count > episodes:
            yield "successes", f"at most the {episodes} episodes"
            return
        if abs(share - count / episodes) > ROUNDING:
            yield "success", f"successes over episodes, {count / episodes:.6g}"
        low, high = wilson(count, episodes)
        if abs(ends[0] - low) > CI_ROUNDING or abs(ends[1] - high) > CI_ROUNDING:
            yield "success_ci95", f"Wilson's 95 % interval, {low:.4f} to {high:.4f}"
        if survived > row["episode_s"] + ROUNDING:
            yield "survival_s", f"at most episode_s, {row['episode_s']:g}"
        elif count == episodes and survived < row["episode_s"] - ROUNDING:
            yield "survival_s", f"episode_s, {row['episode_s']:g}, where all survive"
    half, ends = half_of(values, row["successes"], episodes, row["harder"])
    if not _agree(row["half"], half):
        yield "half", f"{half}, as the counts say"
    given = row["half_ci95"]
    same = given is ends is None or (
        given is not None and ends is not None and all(map(_agree, given, ends))
    )
    if not same:
        yield "half_ci95", f"{ends}, as the counts say"


def _agree(given: Any, expected: Any) -> bool:
    if isinstance(given, int | float) and isinstance(expected, int | float):
        return abs(given - expected) <= CI_ROUNDING * max(1.0, abs(expected))
    return type(given) is type(expected) and given == expected


ROBUSTNESS = Kind(ROBUSTNESS_ROWS, _robustness)
