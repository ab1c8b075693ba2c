"""Result files of trainings: the kinds `learning`, `sweep`, `world_model` and `clients`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bm_envs.results.rules import (
    COMMITS_RULE,
    MACHINE,
    ROUNDING,
    Kind,
    Rules,
    listing,
    number,
    numbers,
    table,
    text,
    truth,
    whole,
)  # fmt: skip

LEARNING_ROWS: Rules = {
    "motion": text(),
    "variant": text(required=False),
    "flags": listing(),
    "seed": whole(),
    "env_steps": whole(1),
    "wall_s": number(0, above=True),
    "first_pass": numbers(null=True),
    "first_robust": numbers(null=True, required=False),
    "clip": numbers(),
    "manner": numbers(null=True, required=False),
    "commit": COMMITS_RULE,
    "machine": table(),
}
SWEEP_ROWS: Rules = {
    name: replace(rule, required=name in ("motion", "seed", "flags"))
    for name, rule in LEARNING_ROWS.items()
} | {"run": text(), "error": text(required=False)}


def _learning(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in row:
        return
    for name in ("env_steps", "wall_s", "first_pass", "clip", "machine"):
        if name not in row:
            yield name, "there, in a row without an error"
            return
    for name, rule in MACHINE.items():
        there = name in row["machine"]
        if not rule.holds(row["machine"][name]) if there else rule.required:
            yield f"machine.{name}", rule.expected
    clip, first = row["clip"], row["first_pass"]
    if not number(0, 1).holds(clip.get("success")):
        yield "clip.success", "a number of 0 to 1"
    if first is None:
        return
    for name in ("env_steps", "wall_s"):
        # The run's own figure is rounded to a tenth.
        if not number(0, row[name] + 0.1, above=True).holds(first.get(name)):
            yield f"first_pass.{name}", f"a number above 0 and at most the run's {row[name]:g}"


WORLD_MODEL_ROWS: Rules = {
    "step": whole(1),
    "count": whole(1),
    "model": numbers(),
    "coasting": numbers(),
}


CLIENTS_ROWS: Rules = {
    "client": text(),
    "version": text(),
    "what": text("check", "train"),
    "name": text(),
    "passed": truth(),
    "reason": text(empty=True),
    "wall_s": number(0),
    "preset": text(required=False),
    "noise_std": number(0, above=True, required=False),
    "num_envs": whole(1, required=False),
    "seed": whole(required=False),
    "steps": whole(1, required=False),
    "settings": table(required=False),
    "episode_length_first": number(1, null=True, required=False),
    "episode_length_last": number(1, null=True, required=False),
    "reward_per_step_first": number(null=True, required=False),
    "reward_per_step_last": number(null=True, required=False),
    "curve": listing(required=False),
}


def _clients(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["passed"] != (row["reason"] == ""):
        yield "reason", "a reason where it did not pass, and none where it did"
    if row["what"] == "check" or not row["passed"]:
        return
    for name, rule in CLIENTS_ROWS.items():
        if name not in row or row[name] is None:
            yield name, f"{rule.expected} in a training that passed"
            return
    points = row["curve"]
    whole_point = all(
        isinstance(point, list) and len(point) == 3 and all(map(number().holds, point))
        for point in points
    )
    if len(points) < 2 or not whole_point:
        yield "curve", "two points or more of steps, length and reward"
        return
    steps = [0, *(point[0] for point in points), row["steps"] + ROUNDING]
    if any(a >= b for a, b in itertools.pairwise(steps)):
        yield "curve", f"steps that rise to at most {row['steps']}"
    for i, figure in ((1, "episode_length"), (2, "reward_per_step")):
        for end, point in (("first", points[0]), ("last", points[-1])):
            if row[f"{figure}_{end}"] != point[i]:
                yield f"{figure}_{end}", f"{point[i]:g}, as the curve has it"


LEARNING = Kind(LEARNING_ROWS, _learning)
SWEEP = Kind(SWEEP_ROWS, _learning)
WORLD_MODEL = Kind(WORLD_MODEL_ROWS)
CLIENTS = Kind(CLIENTS_ROWS, _clients)
