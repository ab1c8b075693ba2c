"""Tables of `guided_latent`, the model of states and latents, made from `benchmarks/results`.

    python docs/latent_tables.py            # write them into the pages
    python docs/latent_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do. A row whose result file is not there is left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from guided_tables import ABSENT, RESULTS, ROOT, counted, fell, row_of, table, write

SCRIPT = "docs/latent_tables.py"
MODEL = ROOT / "policies" / "guided_latent" / "policy.json"
STUDENT = "latent_student"  # result file of the student and its teachers
Row = dict[str, Any]

# What a line is called; its file, after `guided_`; what is asked for, of 50 trials.
LINES = (
    ("walk_perturb: pushed by up to 0.5 m/s each second, 15 s", "walk_perturb", None),
    ("the same, by up to 1.0 m/s", "walk_perturb_hard", None),
    ("joystick: forward, backward, left, right", "joystick", 48),
    ("the same, the plan one step late", "joystick_delay", None),
    ("the same, the plan two steps late", "joystick_delay2", 45),
    ("joystick: to the left, to the right, turns on the spot", "joystick_sideways", None),
    ("run: 2.0 m/s for 15 s", "run", None),
    ("waypoint, our approach", "waypoint", 48),
    ("obstacle, our approach and path", "obstacle", None),
    ("composition: a minute of all, pushed", "composition", None),
)


def tasks() -> str:
    """Each task, the model of states and actions beside it."""
    lines = []
    for text, name, asked in LINES:
        row, other = (row_of(f"guided_{name}_{model}") for model in ("latent", "human"))
        if row is None:
            continue
        lines.append([
            text, counted(row), fell(row), ABSENT if asked is None else f"{asked} of 50",
            ABSENT if other is None else counted(other),
        ])  # fmt: skip
    return table(["task", "`guided_latent`", "fell", "asked", "`guided_human`"], lines)


def students() -> str:
    """How the student tracks its teachers' clips, and how they do."""
    path = RESULTS / f"{STUDENT}.json"
    if not path.is_file():
        return ""
    lines = []
    for row in json.loads(path.read_text())["rows"]:
        if row["protocol"] != "clip":
            continue
        survived = f"{row['survival_s']:.1f} of {row['clip_s']:.1f}"
        errors = (row[key] for key in ("mpkpe_mm", "r_mpkpe_mm"))
        cells = [ABSENT if error is None else f"{error:.0f}" for error in errors]
        lines.append([f"`{row['policy']}`", f"`{row['motion']}`", survived, *cells])
    lines.sort(key=lambda line: line[1])
    return table(["policy", "clip", "survived, s", "MPKPE, mm", "R-MPKPE, mm"], lines)


def data() -> str:
    """What was rolled out, and how many of the episodes were kept."""
    if not MODEL.is_file():
        return ""
    lines = []
    for part in json.loads(MODEL.read_text())["data"]:
        clips = ", ".join(f"{one['name']} ({one['licence']})" for one in part["clips"])
        lines.append([clips, f"{part['accepted']} of {part['tried']}"])
    return table(["clips", "episodes kept"], lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/latent.md": {
        "latent_tasks": tasks, "latent_students": students, "latent_data": data,
    },
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, SCRIPT))
