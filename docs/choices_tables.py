"""Tables of what the choices of the trainers are worth, made from `benchmarks/results`.

    python docs/choices_tables.py            # write them into the pages
    python docs/choices_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from guided_tables import RESULTS, write
from lafan1_tables import MPKPE
from learning_tables import commits, errors, reached, table

from bm_envs.cli import markdown_table

SCRIPT = "docs/choices_tables.py"
Row = dict[str, Any]
Cell = Callable[[Row], str]

# Variants of `benchmarks/learning.py` whose names do not explain themselves.
LABELS = {
    "no curriculum": "no curriculum: all disturbances from the start",
    "no limit of distance": "no limit of distance (fewer ways to fail)",
}
SAMPLES = 2048  # of an iteration of `ppo_track.py`, see its `Config`
PAPER = (("Cristiano Ronaldo", 3000, 1500), ("swallow balance", 2800, 1800))  # its Table II


def rows(name: str) -> list[Row]:
    """Rows of a result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def by_variant(runs: Iterable[Row]) -> dict[str, list[Row]]:
    """Runs by their variants, in the order of their seeds."""
    found: dict[str, list[Row]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        found.setdefault(run["variant"], []).append(run)
    return found


def of_seeds(runs: Sequence[Row], cell: Cell) -> str:
    """A value for each seed."""
    return ", ".join(map(cell, runs))


def choices(name: str, digits: int) -> str:
    """Variants of a trainer beside its defaults.

    Args:
        name: of the result file.
        digits: of the seconds per failure.
    """
    every = rows(name)
    length = every[0]["clip"]["survival_s"] / every[0]["clip"]["survival"]
    cells: dict[str, Cell] = {
        "s per failure": lambda run: f"{run['time_to_failure_s']:.{digits}f}",
        "reward per step": lambda run: f"{run['reward_per_step']:.3f}",
        f"survived, s of {length:.1f}": lambda run: f"{run['clip']['survival_s']:.1f}",
    }
    return markdown_table(["variant", *cells], [
        [LABELS.get(variant, variant), *(of_seeds(runs, cell) for cell in cells.values())]
        for variant, runs in by_variant(every).items()
    ])  # fmt: skip


def starts(*files: str) -> str:
    """Steps and iterations until clips are completed, with uniform and with adaptive starts.

    A clip whose file has no runs with the defaults takes those of the file `trainers`.
    """
    cells: tuple[Cell, Cell] = (
        lambda run: f"{run['first_pass']['env_steps'] / 1e6:.1f}",
        lambda run: f"{run['first_pass']['env_steps'] / SAMPLES:.0f}",
    )
    lines = []
    for name in files:
        runs = by_variant(rows(name))
        uniform = runs["uniform starts"]
        motion = uniform[0]["motion"]
        adaptive = runs.get("default") or by_variant(
            run for run in rows("trainers")
            if (run["algorithm"], run["motion"]) == ("ppo_track", motion)
        )["default"]  # fmt: skip
        figures = [of_seeds(kind, cell) for cell in cells for kind in (uniform, adaptive)]
        lines.append([f"`{motion}`", *figures])
    lines += [[f"paper: {name}", "", "", str(uniform), str(adaptive)]
              for name, uniform, adaptive in PAPER]  # fmt: skip
    heads = ["motion", *(f"{starts}, {unit}" for unit in ("million steps", "iterations")
                      for starts in ("uniform", "adaptive"))]  # fmt: skip
    return markdown_table(heads, lines)


def optional_rewards(*files: str) -> str:
    """What the optional penalties change, by the `clip` protocol."""
    cells: dict[str, Cell] = {
        "survived, %": lambda run: f"{100 * run['clip']['survival']:.0f}",
        "wrong contacts, %": lambda run: f"{100 * run['manner']['foot_contact_mismatch']:.1f}",
        "action's second difference": lambda run: f"{run['manner']['action_accel']:.2f}",
        "joints' acceleration, rad/s²": lambda run: f"{run['manner']['joint_accel_rad_s2']:.1f}",
        MPKPE[0]: lambda run: f"{run['clip']['mpkpe_mm']:.0f}",
        MPKPE[1]: lambda run: f"{run['clip']['r_mpkpe_mm']:.0f}",
    }
    lines = [
        [f"`{motion}`", variant, *(of_seeds(runs, cell) for cell in cells.values())]
        for found in map(rows, files)
        for motion in dict.fromkeys(run["motion"] for run in found)
        for variant, runs in by_variant(run for run in found if run["motion"] == motion).items()
    ]
    return markdown_table(["motion", "variant", *cells], lines)


def model_error(name: str) -> str:
    """How far off the world model gets, and who keeps the present velocities."""
    parts = (("pos_mm", "pelvis, mm", 1), ("rot_deg", "pelvis, degrees", 1),
             ("joint_pos_rad", "joints, rad", 3))  # fmt: skip
    heads = [text for _, head, _ in parts for text in (head, f"coasting: {head}")]
    lines = [
        [str(row["step"]), *(f"{row[who][key]:.{digits}f}" for key, _, digits in parts
                             for who in ("model", "coasting"))]
        for row in rows(name) if row["step"] in (1, 2, 4, 8, 16, 32)
    ]  # fmt: skip
    return markdown_table(["steps", *heads], lines)


def spent(name: str) -> str:
    """What variants take for one number of steps: a run's length and minutes, by seed."""
    cells: dict[str, Cell] = {
        "thousand steps": lambda run: f"{run['env_steps'] / 1e3:.0f}",
        "minutes": lambda run: f"{run['wall_s'] / 60:.1f}",
    }
    return markdown_table(["variant", "commit", *cells], [
        [variant, commits(runs), *(of_seeds(runs, cell) for cell in cells.values())]
        for variant, runs in by_variant(rows(name)).items()
    ])  # fmt: skip


def ideas(measured: str) -> str:
    """Variants of the recipe beside the default: what their last evaluations came to, by seed."""
    heads = ["variant", "`robust`, % of episodes, by seed", "mean", "clip completed after, "
             "thousand steps", *MPKPE]  # fmt: skip
    lines = []
    for variant, runs in by_variant(rows(measured)).items():
        shares = [100 * [p[3] for p in run["curve"] if p[3] is not None][-1] for run in runs]
        lines.append([
            variant, ", ".join(f"{share:.0f}" for share in shares), f"{np.mean(shares):.0f}",
            reached(runs, "first_pass", 1e3, 0)[0], *errors(runs, "first_pass"),
        ])  # fmt: skip
    return markdown_table(heads, lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/training.md": {
        "choices": lambda: choices("choices", 2),
        "choices_speed": lambda: choices("choices_speed", 1),
        "starts": table(starts, "starts_walk1", "starts_dance1"),
        "rewards_model": table(
            optional_rewards, "optional_rewards", "optional_rewards_walk1_80k"
        ),
        "rewards_cuts": table(
            optional_rewards, "optional_rewards_walk1", "optional_rewards_run1"
        ),
    },
    "docs/algorithms/wm_track.md": {
        "model_error": table(model_error, "world_model_error"),
        "overlap": lambda: spent("world_model_overlap"),
        "ideas": lambda: ideas("world_model_ideas"),
    },
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, SCRIPT))
