"""Result files of the tour: the kind `tour`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bm_envs.results.rules import (
    ROUNDING,
    SHA256_RULE,
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

LEAST_ROUNDING = 1e-3  # seconds are written with three digits

TOUR_ROWS: Rules = {
    "policy": text(),
    "representation": text(),
    "arms": text("moved", "free"),
    "punches": text("published", "200", "100", "none"),
    "backend": text(),
    "runs": whole(1),
    "first_run": whole(),
    "episode_s": number(0, above=True),
    "survival_s": number(0),
    "survival_ci95": listing(of=number(0), least=2, words="two numbers of 0 or more"),
    "completed": whole(),
    "completed_rate": number(0, 1),
    "ci95": interval(),
    "position_error_m": number(0, null=True),
    "heading_error_rad": number(0, null=True),
    "energy_j": number(0, null=True),
    "vibration_rad_s2": number(0, null=True),
    "limits": table(),
    "sampler": text(null=True),
    "each": listing(least=1),
}
TOUR_SETTINGS: Rules = {"policy_sha256": SHA256_RULE, "quick": truth()}


def _tour(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["completed"] > row["runs"]:
        yield "completed", f"at most the {row['runs']} runs"
    if abs(row["completed_rate"] - row["completed"] / row["runs"]) > ROUNDING:
        yield "completed_rate", f"completed over runs, {row['completed'] / row['runs']:.6g}"
    yield from share_and_interval(row, "completed_rate", "ci95", row["runs"])
    if row["survival_s"] > row["episode_s"] + ROUNDING:
        yield "survival_s", f"at most episode_s, {row['episode_s']:g}"
    if len(row["each"]) != row["runs"]:
        yield "each", f"an entry for each of the {row['runs']} runs"
        return
    each = [one if isinstance(one, dict) else {} for one in row["each"]]
    lasted = [one.get("survival_s") for one in each]
    if not all(number(0, row["episode_s"]).holds(seconds) for seconds in lasted):
        yield "each", f"survival_s of 0 to {row['episode_s']:g} in each entry"
        return
    mean = sum(lasted) / row["runs"]  # type: ignore[arg-type]
    if abs(row["survival_s"] - mean) > LEAST_ROUNDING:
        yield "survival_s", f"the mean of the single runs, {mean:.3f}"
    counted = sum(one.get("completed") is True for one in each)
    if counted != row["completed"]:
        yield "completed", f"{counted}, as the single runs say"
    low, high = row["survival_ci95"][:2]
    if not low - LEAST_ROUNDING <= row["survival_s"] <= high + LEAST_ROUNDING:
        yield "survival_ci95", "two numbers with survival_s between them"


TOUR = Kind(TOUR_ROWS, _tour, TOUR_SETTINGS)
