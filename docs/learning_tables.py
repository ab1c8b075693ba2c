"""Tables of the pages on learning to track, made from `benchmarks/results`.

    python docs/learning_tables.py            # write them into the pages
    python docs/learning_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from guided_tables import ABSENT, write
from lafan1_tables import MPKPE

from bm_envs.cli import markdown_table
from bm_envs.policy import TRACKER, shipped_files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]


def rows_of(files: Iterable[str]) -> dict[tuple[str, str], list[Row]]:
    """Runs of `benchmarks/learning.py` by motion and trainer, in the order of their seeds."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for name in files:
        for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]:
            # Files of before 0.2 name none: `ppo_track.py` was the only one.
            trainer = f"`{row.get('algorithm', 'ppo_track')}.py`" + ", old commit" * row.get(
                "against", False
            )
            runs.setdefault((row["motion"], trainer), []).append(row)
    return {key: sorted(found, key=lambda row: row["seed"]) for key, found in runs.items()}


def listed(values: Sequence[str]) -> str:
    """One value a seed; once where all are the same."""
    return f"{values[0]} (all seeds)" if len(set(values)) == 1 < len(values) else ", ".join(values)


def median(runs: Sequence[Row], key: str, of: str = "wall_s") -> float:
    """Median of when runs reached `key`, seconds or steps; infinite where most did not."""
    return float(np.median([run[key][of] if run[key] else np.inf for run in runs]))


def commits(runs: Iterable[Row]) -> str:
    """The commits that were run, short."""
    return ", ".join(dict.fromkeys(run["commit"][:7] for run in runs))


def reached(runs: Sequence[Row], key: str, unit: float, digits: int) -> list[str]:
    """When runs reached `first_pass` or `first_robust`: steps, minutes, the minutes' median.

    Args:
        runs: one a seed.
        key: which of the two.
        unit: of the steps that are told, and
        digits: behind their decimal point.
    """
    steps, minutes = [], []
    for run in runs:
        found = run[key] or {"env_steps": run["env_steps"], "wall_s": run["wall_s"]}
        prefix = "" if run[key] else "not in "
        steps.append(f"{prefix}{found['env_steps'] / unit:.{digits}f}")
        minutes.append(f"{prefix}{found['wall_s'] / 60:.1f}")
    middle = median(runs, key) / 60
    return [listed(steps), ", ".join(minutes), f"{middle:.1f}" if middle < np.inf else "none"]


def errors(runs: Sequence[Row], key: str) -> list[str]:
    """MPKPE of the final policies by the `clip` protocol, of runs that reached it. mm."""
    if not any(run[key] for run in runs):
        return [ABSENT, ABSENT]
    return [
        ", ".join(f"{run['clip'][name]:.0f}" if run[key] else ABSENT for run in runs)
        for name in ("mpkpe_mm", "r_mpkpe_mm")
    ]


def completed(*files: str) -> str:
    """Until the `clip` protocol was completed for the first time."""
    heads = [
        "`--motion`", "trainer", "commit", "thousand steps", "minutes", "median", *MPKPE,
    ]  # fmt: skip
    lines, before = [], None
    for (motion, trainer), runs in rows_of(files).items():
        name = f"`{motion}`" if motion != before else ""
        figures = [*reached(runs, "first_pass", 1e3, 0), *errors(runs, "first_pass")]
        lines.append([name, trainer, commits(runs), *figures])
        before = motion
    return markdown_table(heads, lines)


def robust(*files: str) -> str:
    """Until 95 of 100 `robust` episodes were completed."""
    heads = [
        "trainer", "commit", "million steps", "minutes", "median", "`robust` then", *MPKPE,
    ]  # fmt: skip
    lines = []
    for (_, trainer), runs in rows_of(files).items():
        last = [[point[3] for point in run["curve"] if point[3] is not None][-1] for run in runs]
        then = ", ".join(f"{100 * share:.0f}" for share in last)
        figures = [*reached(runs, "first_robust", 1e6, 2), then, *errors(runs, "first_robust")]
        lines.append([trainer, commits(runs), *figures])
    return markdown_table(heads, lines)


def elsewhere(measured: str) -> dict[str, list[str]]:
    """What policies survive in `tools/sim2sim.py` at 1000 Hz, on time and 10 ms late, s."""
    survived: dict[str, list[str]] = {}
    for row in json.loads((RESULTS / f"{measured}.json").read_text())["rows"]:
        if (row["physics_hz"], row["state"], row["noise"]) == (1000, "true", 0.0):
            if row["command_ms"] in (0.0, 10.0):
                told = f"{row['survived_s']:.1f} of {row['clip_s']:.1f}"
                survived.setdefault(row["policy"], []).append(told)
    return survived


def shipped(tracked: str, late: str) -> str:
    """Shipped policies by `benchmarks/track.py` and `benchmarks/sim2sim.py`."""
    heads = [
        "`--motion`", "trainer", "million steps", "minutes", *MPKPE, "`robust`",
        "sim2sim, s", "10 ms late, s",
    ]  # fmt: skip
    by_policy: dict[str, dict[str, Row]] = {}
    for row in json.loads((RESULTS / f"{tracked}.json").read_text())["rows"]:
        by_policy.setdefault(row["policy"], {})[row["protocol"]] = row
    lines, policies, survived = [], shipped_files(TRACKER), elsewhere(late)
    for name, rows in by_policy.items():
        clip, noisy = rows["clip"], rows["robust"]
        training = json.loads(policies[name].with_suffix(".json").read_text())["training"]
        low, high = (100 * share for share in noisy["success_ci95"])
        lines.append([
            f"`{clip['motion']}`", f"`{training['algorithm']}.py`",
            f"{training['env_steps'] / 1e6:.2f}", f"{training['wall_s'] / 60:.0f}",
            f"{clip['mpkpe_mm']:.0f}", f"{clip['r_mpkpe_mm']:.0f}",
            f"{100 * noisy['success']:.0f} % ({low:.0f} to {high:.0f})", *survived[name],
        ])  # fmt: skip
    return markdown_table(heads, lines)


def whole(*files: str) -> str:
    """Shares of a clip that the last five evaluations of a run survived, and their lowest."""
    heads = ["`--motion`", "commit", "million steps", "minutes", "last five survived, %",
             "lowest, %", "`robust`, %"]  # fmt: skip
    lines = []
    for (motion, _), runs in rows_of(files).items():
        for run in runs:
            survived = [100 * point[2] for point in run["curve"][-5:]]
            robust = [point[3] for point in run["curve"] if point[3] is not None]
            lines.append([
                f"`{motion}`", commits([run]),
                f"{run['env_steps'] / 1e6:.1f}", f"{run['wall_s'] / 60:.0f}",
                ", ".join(f"{share:.0f}" for share in survived), f"{min(survived):.0f}",
                f"{100 * robust[-1]:.0f}" if robust else ABSENT,
            ])  # fmt: skip
    return markdown_table(heads, lines)


PARTS = {
    "policy_update": "update of the policy, 128 rollouts of 32 steps",
    "policy_update_512": "the same, 512 rollouts",
    "model_update": "update of the model, 256 windows of 8 steps",
    "collect": "8 steps of 64 robots",
    "evaluate": "the `clip` protocol of `walk`, one robot",
}


def speed(measured: str) -> str:
    """Parts of a training beside their bounds, of this and of an older commit, and the share."""
    result = json.loads((RESULTS / f"{measured}.json").read_text())
    ours, old = dict.fromkeys(row["of"] for row in result["rows"])
    by_part = {(row["of"], row["what"]): row for row in result["rows"]}
    lines = []
    for what, name in PARTS.items():
        line = [name]
        for commit in (ours, old):
            row = by_part.get((commit, what))
            line += (
                [f"{row['ms']:.0f}", f"{row['bound_ms']:.0f}", f"{row['ratio']:.2f}"]
                if row
                else [ABSENT] * 3
            )
        lines.append(line)
    # An iteration of the defaults has 4 updates of the policy and 8 of the model.
    both = [
        4 * by_part[commit, "policy_update"]["ms"] + 8 * by_part[commit, "model_update"]["ms"]
        for commit in (ours, old)
    ]
    heads = ["ms", "bound, ms", "ratio"]
    named = [f"{head}, {commit[:7]}" for commit in (ours, old) for head in heads]
    made = markdown_table(["part", *named], lines)
    share = f"{100 * both[0] / both[1]:.0f} %"
    return f"{made}\n\nAn iteration's updates take {share} of the time they took in {old[:7]}."


def table(make: Callable[..., str], *files: str) -> Callable[[], str]:
    """What makes a table of these result files."""
    return functools.partial(make, *files)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/algorithms/wm_track.md": {
        "minutes": table(completed, "world_model_minutes"),
        "sprint": table(completed, "world_model_sprint"),
        "whole": table(whole, "world_model_whole"),
        "robust": table(robust, "world_model_robust"),
    },
    "docs/performance.md": {"imagination": table(speed, "world_model_speed")},
    "docs/leaderboard.md": {"cuts": table(shipped, "lafan1_cuts", "sim2sim_cuts")},
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, "docs/learning_tables.py"))
