"""Result files about the software: its speed, its physics, its backends and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bm_envs.results.rules import Kind, Rules, listing, number, numbers, text, whole

THROUGHPUT_ROWS: Rules = {
    "what": text(),
    "num_envs": whole(1),
    "threads": whole(null=True),
    "control_steps_per_s": number(0, above=True, null=True),
    "ratio_to_raw": number(0, above=True, null=True),
    "lowest": number(0, above=True, required=False),
    "highest": number(0, above=True, required=False),
    "error": text(required=False),
}


def _throughput(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    speed = row["control_steps_per_s"]
    if (speed is None) != ("error" in row):
        yield "control_steps_per_s", "a number, or null beside an error"
    elif speed is not None:
        if row.get("lowest", speed) > speed:
            yield "lowest", f"at most control_steps_per_s, {speed:g}"
        if row.get("highest", speed) < speed:
            yield "highest", f"at least control_steps_per_s, {speed:g}"


SPEED_ROWS: Rules = {
    "what": text(),
    "ms": number(0, above=True),
    "bound_ms": number(0, above=True),
    "ratio": number(0, above=True),
    "threads": whole(1),
    "precision": text("bfloat16", "float32", "float64"),
    "of": text(),
    "imagined_steps_per_s": number(0, above=True, required=False),
}


PHYSICS_ROWS: Rules = {
    "physics_dt": number(0, above=True),
    "setting": text(),
    "us_per_control_step": number(0, above=True),
    "mean_iterations": number(0),
    "solver_error": numbers(),
    "total_error": numbers(),
}


CONFORMANCE_ROWS: Rules = {
    "backend": text(null=True),
    "test": text(),
    "outcome": text("passed", "skipped", "failed"),
    "reason": text(empty=True),
    "seconds": number(0),
}


def _conformance(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if (row["outcome"] == "passed") != (row["reason"] == ""):
        yield "reason", "a reason where the test did not pass, and none where it did"


RELIABILITY_ROWS: Rules = {
    "surface": text(),
    "fault": text(),
    "expected": text("refuse", "doubt", "load", "loads", "any", "damp"),
    **{key: whole() for key in ("inputs", "refused", "warned", "loaded", "wrong")},
    "slowest_s": number(0, null=True),
    "peak_mb": number(null=True),
    "examples": listing(),
}


def _reliability(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["refused"] + row["warned"] + row["loaded"] > row["inputs"]:
        yield "inputs", "at least as many as were refused, warned of and loaded"
    if row["wrong"] > row["inputs"]:
        yield "wrong", "at most the inputs"


DEMO_PAGE_ROWS: Rules = {
    "what": text(),
    "unit": text(),
    **{key: number(0) for key in ("value", "lowest", "highest")},
    "count": whole(1),
}


def _demo_page(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not row["lowest"] <= row["value"] <= row["highest"]:
        yield "value", "one from the lowest to the highest"


THROUGHPUT = Kind(THROUGHPUT_ROWS, _throughput)
SPEED = Kind(SPEED_ROWS)
PHYSICS_ACCURACY = Kind(PHYSICS_ROWS)
CONFORMANCE = Kind(CONFORMANCE_ROWS, _conformance)
RELIABILITY = Kind(RELIABILITY_ROWS, _reliability)
DEMO_PAGE = Kind(DEMO_PAGE_ROWS, _demo_page)
