"""Tables of the tour: ours from `benchmarks/results`, and the published ones as they were read.

    python docs/tour_tables.py            # write them into the pages
    python docs/tour_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

from guided_tables import RESULTS, write

from bm_envs.cli import markdown_table
from bm_envs.policy.velocity import FAMILIES
from bm_envs.results import read_results

SCRIPT = "docs/tour_tables.py"

# Source: rhoyn/teleop-walking-benchmark, README.md at 0b2ea7a; MuJoCo of "MuJoCo / PhysX". Mean
# survival, s; completed, %; runs; position error, cm; heading error, degrees.
PUBLISHED = (
    ("gr00t_wbc h066_p000", 85.2, 80, 5120, 17, 8),
    ("decoupled_wbc h066_p012", 83.9, 75, 5120, 10, 7),
    ("homie", 78.2, 55, 5120, 17, 32),
    ("amo", 75.9, 54, 5120, 24, 17),
    ("grove", 74.9, 49, 5120, 21, 7),
    ("wbc_agile", 71.2, 34, 512, 23, 8),
    ("sonic (tracker and planner)", 69.2, 36, 512, 29, 9),
    ("mimic_lite (tracker, sonic's planner)", 47.9, 9, 512, 82, 12),
    ("asap", 46.3, 7, 512, 141, 32),
    ("falcon", 37.7, 2, 512, 42, 14),
    ("rl_lab (Unitree)", 25.5, 0, 512, 57, 74),
    ("bfm_zero", 12.2, 0, 512, 399, 63),
    ("holosoma (FastSAC)", 5.9, 0, 512, 73, 48),
    ("rl_mjlab (Unitree)", 5.6, 0, 512, 243, 62),
    ("legged_rl_lab", 3.9, 0, 512, 214, 84),
    ("nanog1", 2.1, 0, 512, 82, 58),
    ("clobot", 1.8, 0, 512, 129, 83),
    ("rl_gym (Unitree)", 1.2, 0, 512, 100, 81),
)


def tour() -> str:
    """Rows of all files of the kind `tour`, each condition together, the longest survival first."""
    rows = [
        (row["arms"] == "free", -ORDER.index(row["punches"]), -row["survival_s"], row, file)
        for file in read_results(RESULTS)
        if file.kind == "tour"
        for row in file.rows
    ]
    lines = []
    for _, _, _, row, file in sorted(rows, key=lambda entry: (*entry[:3], entry[4].name)):
        low, high = row["survival_ci95"]
        lines.append([
            PUNCHES[row["punches"]], row["arms"],
            row["policy"] + (f", {row['sampler']} calls" if row["sampler"] else ""),
            f"{row['survival_s']:.1f} ({low:.1f} to {high:.1f})",
            f"{row['completed']} of {row['runs']}",
            _figure(row["position_error_m"], 100, 0),
            _figure(row["heading_error_rad"], math.degrees(1), 0),
            _figure(row["energy_j"], 1e-3, 1), _figure(row["vibration_rad_s2"], 1e-6, 2),
            f"`{file.path.name}`",
        ])  # fmt: skip
    if not lines:
        return ""
    return markdown_table(
        ["punches", "arms", "policy", "survival, s", "completed", "position error, cm",
         "heading error, degrees", "energy, kJ", "vibration, 10^6 rad/s^2", "file"], lines,
    )  # fmt: skip


PUNCHES = {
    "published": "up to 500 N", "200": "up to 200 N", "100": "up to 100 N", "none": "none",
}  # fmt: skip
ORDER = ("none", "100", "200", "published")


def _figure(value: float | None, factor: float, digits: int) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


def published() -> str:
    """The published rows."""
    return markdown_table(
        ["policy", "survival, s", "completed, %", "runs", "position error, cm",
         "heading error, degrees"],
        [list(map(str, row)) for row in PUBLISHED],
    )  # fmt: skip


def policies() -> str:
    """Where the velocity policies are."""
    return markdown_table(
        ["policy", "sizes", "where", "licence", "SHA-256"],
        [
            [name, f"{one.inputs} to {one.outputs}", one.where, one.licence, f"`{one.sha256}`"]
            for name, one in FAMILIES.items()
        ],
    )  # fmt: skip


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/tour.md": {"tour": tour, "tour_published": published, "tour_policies": policies},
}


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, SCRIPT))
