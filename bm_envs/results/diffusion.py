"""Result files of diffusion models: the kinds `guided` and `gates`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bm_envs.results.rules import (
    ROUNDING,
    Kind,
    Rules,
    interval,
    listing,
    number,
    share_and_interval,
    table,
    text,
    truth,
    whole,
)  # fmt: skip
from bm_envs.tasks.guided.config import CONFIGS

# Gates whose value must be at least the threshold, and at most. A gate may ask for more than its
# value, and so fail although the value is on the right side.
GATES_AT_LEAST = ("1", "2", "3", "4", "5")
GATES_AT_MOST = ("0", "1b", "2b", "box", "natural", "latency")

GUIDED_ROWS: Rules = {
    "policy": text(),
    "task": text(*CONFIGS),
    "representation": text(),
    "backend": text(),
    "trials": whole(1),
    "successes": whole(),
    "success_rate": number(0, 1),
    "ci95": interval(),
    "successes_head": whole(required=False),
    "success_rate_head": number(0, 1, required=False),
    "ci95_head": interval(required=False),
    # Of files before 0.2, whose `successes` go by the head: see `successes_by_rule`.
    "successes_strict": whole(required=False),
    "success_rate_strict": number(0, 1, required=False),
    "ci95_strict": interval(required=False),
    "mean_speed": number(null=True, required=False),
    "each": listing(required=False),
}


def successes_by_rule(row: Mapping[str, Any]) -> tuple[int | None, int]:
    """How many trials of a `guided` row succeeded by the strict rule of a fall, and by the head.

    A file before 0.2 counts by the head, and by the strict rule under another name; one that knows
    nothing of the strict rule has None there.
    """
    if "successes_head" in row:
        return row["successes"], row["successes_head"]
    return row.get("successes_strict"), row["successes"]


def steered_as_before(row: Mapping[str, Any]) -> bool:
    """Whether a `gates` row was made by factors of a gradient, as before 0.2.

    A strength is a share of the cost's own step now, 1 at most, and says another thing.
    """
    details = row.get("details") or {}
    return max(details.get("chosen_strength") or 0, details.get("strength") or 0) > 1


def _guided(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "successes_head" in row and "successes_strict" in row:
        yield "successes_strict", "no such field beside successes_head"
    for kind in ("", "_strict", "_head"):
        count, rate = f"successes{kind}", f"success_rate{kind}"
        if rate not in row or count not in row:
            continue
        if row[count] > row["trials"]:
            yield count, f"at most the {row['trials']} trials"
        if abs(row[rate] - row[count] / row["trials"]) > ROUNDING:
            yield rate, f"{count} over trials, {row[count] / row['trials']:.6g}"
        if f"ci95{kind}" in row:
            yield from share_and_interval(row, rate, f"ci95{kind}", row["trials"])
        if kind == "_strict" and row[count] > row["successes"]:
            yield count, f"at most the {row['successes']} successes"
        if kind == "_head" and row[count] < row["successes"]:
            yield count, f"at least the {row['successes']} successes by the strict rule"
        each = row.get("each")
        if each is not None and len(each) != row["trials"]:
            yield "each", f"an entry for each of the {row['trials']} trials"
        elif each is not None:
            counted = sum(isinstance(e, dict) and e.get(f"success{kind}") is True for e in each)
            if counted != row[count]:
                yield count, f"{counted}, as the single trials say"


GATES_ROWS: Rules = {
    "gate": text(*GATES_AT_LEAST, *GATES_AT_MOST),
    "title": text(required=False),
    "value": number(null=True),
    "unit": text(required=False),
    "threshold": number(null=True),
    "passed": truth(null=True),
    "details": table(required=False),
}


def _gates(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    value, threshold = row["value"], row["threshold"]
    if row["passed"] is not True:
        return
    if value is None:
        yield "value", "a number where the gate is passed"
    elif threshold is not None and row["gate"] in GATES_AT_LEAST and value < threshold:
        yield "passed", f"false, for {value:g} is below {threshold:g}"
    elif threshold is not None and row["gate"] in GATES_AT_MOST and value > threshold:
        yield "passed", f"false, for {value:g} is above {threshold:g}"


GUIDED = Kind(GUIDED_ROWS, _guided)
GATES = Kind(GATES_ROWS, _gates)
