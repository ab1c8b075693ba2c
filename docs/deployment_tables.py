"""Tables of `docs/deployment.md` and `docs/live_reference.md`, from `benchmarks/results`.

    python docs/deployment_tables.py            # write them into the page
    python docs/deployment_tables.py --check    # exit status 1 where the page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do. The envelope's is written by hand from `bm_envs.deploy.envelope.markdown`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from guided_tables import RESULTS, write

from bm_envs.cli import markdown_table
from bm_envs.deploy import procedure
from bm_envs.statistics import wilson

CUTS = ("run1", "fight1", "walk1")  # of `sim2sim_ends_*.json`, the last seconds and the whole
FILES = (*CUTS, *(f"{name}_whole" for name in CUTS))


def ends() -> str:
    """How many noisy trials stand after the cuts of LAFAN1 that end in mid-stride."""
    heads = ["motion", "trials", "complete the motion", "stand after it", "95 % interval"]
    lines = []
    for name in FILES:
        path = RESULTS / f"sim2sim_ends_{name}.json"
        for row in json.loads(path.read_text())["rows"] if path.is_file() else ():
            low, high = wilson(row["survived"], row["completed"])
            stood = f"{row['survived']} of {row['completed']}"
            lines.append([
                f"`{row['motion']}`", f"{row['trials']}", f"{row['completed']}", stood,
                f"{100 * low:.0f} to {100 * high:.0f} %",
            ])  # fmt: skip
    return markdown_table(heads, lines) if lines else "Nothing is measured yet."


def streamed() -> str:
    """What becomes of a motion that is streamed over a link that is late and loses samples."""
    heads = [
        "policy, motion", "late by up to", "lost", "silent", "trials", "stand at the end",
        "MPKPE", "R-MPKPE", "behind, p50; p99",
    ]  # fmt: skip
    lines = []
    for path in sorted(RESULTS.glob("sim2sim_streamed_*.json")):
        for row in json.loads(path.read_text())["rows"]:
            errors = [
                "-" if row[name] is None else f"{row[name]:.0f} mm"
                for name in ("mpkpe_mm", "r_mpkpe_mm")
            ]
            cut = row["cut_s"]
            lines.append([
                f"`{row['policy']}`, {row['motion']}", f"{row['jitter_ms']:g} ms",
                f"{100 * row['loss']:g} %", "-" if cut is None else f"{cut[1] - cut[0]:g} s",
                f"{row['trials']}", f"{row['survived']}", *errors,
                f"{row['behind_p50_ms']:.0f}; {row['behind_p99_ms']:.0f} ms",
            ])  # fmt: skip
    return markdown_table(heads, lines) if lines else "Nothing is measured yet."


def machine() -> str:
    """The procedure as a drawing and as a table."""
    return f"```text\n{procedure.flowchart()}```\n\n{procedure.markdown().rstrip()}"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/deployment.md": {"ends": ends, "procedure": machine},
    "docs/live_reference.md": {"streamed": streamed},
}


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, "docs/deployment_tables.py"))
