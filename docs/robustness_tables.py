"""Tables and plots of robustness curves, made from `benchmarks/results`.

    python docs/robustness_tables.py            # write them
    python docs/robustness_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do; a plot of each axis that a file has is in `docs/images/`. Every result file
of the kind `robustness` is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from drawing import svg, write_picture
from guided_tables import ABSENT, RESULTS, ROOT, per_cent, write

from bm_envs.cli import markdown_table
from bm_envs.results import ResultFile, read_result
from bm_envs.results.robustness import BEFORE, BEYOND

IMAGES = ROOT / "docs" / "images"
PAGE = "docs/robustness.md"
SCRIPT = "docs/robustness_tables.py"
NOTHING = "Nothing is measured yet."
Row = dict[str, Any]

# Axes in the order of the page, with what stands on a plot's axis.
TITLES = {
    "push": "strength of the pushes, m/s",
    "friction": "sliding friction of the feet",
    "payload": "payload on the torso, kg",
    "latency": "latency of the drives, ms",
    "noise": "observation noise, times the standard",
    "sole": "shape of the soles",
    "step": "physics step, ms",
    "iterations": "most iterations of the solver",
    "cone": "friction cone",
}


# --- result files ---------------------------------------------------------------------------------


def files_of(folder: Path) -> list[ResultFile]:
    """All files of the kind in a folder, by name."""
    found = [read_result(path) for path in sorted(folder.glob("robustness_*.json"))]
    return [file for file in found if file.kind == "robustness"]


def rows_of(folder: Path) -> list[Row]:
    """Their rows, by axis in the page's order, then by file; each with its `file`."""
    rows = [row | {"file": file.path.stem} for file in files_of(folder) for row in file.rows]
    order = list(TITLES)
    return sorted(rows, key=lambda row: order.index(row["axis"]))


def name_of(row: Row) -> str:
    """Who did what: a policy, and its motion where the name does not tell it."""
    motion = row["motion"]
    if motion is None:
        return f"{row['policy']}, {row['world']}"
    return row["policy"] if motion == row["policy"] else f"{row['policy']}, {motion}"


def shown(value: float | str, digits: int = 2) -> str:
    """A value as a cell has it."""
    return value if isinstance(value, str) else f"{value:.{digits}f}".rstrip("0").rstrip(".")


def half_cell(row: Row) -> str:
    """Where half survive: a value, or in words that it is beyond what was tried."""
    mildest, hardest = row["values"][0], row["values"][-1]
    if row["harder"] == "down":
        mildest, hardest = hardest, mildest
    if row["half"] == BEYOND:
        return f"beyond the grid: more than half survive {shown(hardest)}"
    if row["half"] == BEFORE:
        return f"beyond the grid: fewer than half survive {shown(mildest)}"
    return shown(row["half"])


def ends_cell(row: Row) -> str:
    """The interval, the smaller end first; an end that is beyond the grid as such."""
    low, high = row["values"][0], row["values"][-1]
    harder_up = row["harder"] == "up"

    def end(value: float | str) -> str:
        if not isinstance(value, str):
            return shown(value)
        above = (value == BEYOND) == harder_up
        return f"above {shown(high)}" if above else f"below {shown(low)}"

    first, last = (end(value) for value in row["half_ci95"][:: 1 if harder_up else -1])
    return first if first == last else f"{first} to {last}"


def halves(folder: Path) -> str:
    """Where half survive, an axis with an order a line."""
    lines = []
    for row in rows_of(folder):
        if row["harder"] is not None:
            standard = row["standard"]
            lines.append([
                row["axis"], name_of(row), f"{shown(row['values'][0])} to "
                f"{shown(row['values'][-1])}{' ' * bool(row['unit'])}{row['unit']}",
                "drawn" if standard is None else shown(standard), half_cell(row), ends_cell(row),
                str(row["episodes"]), f"`{row['file']}`",
            ])  # fmt: skip
    heads = [
        "axis", "policy", "tried", "standard", "half survive", "95 % interval", "episodes", "file"
    ]  # fmt: skip
    return markdown_table(heads, lines) if lines else NOTHING


def points(axis: str, folder: Path) -> str:
    """How many survive at each value of an axis, with the interval of the share in per cent."""
    rows = [row for row in rows_of(folder) if row["axis"] == axis]
    values = list(dict.fromkeys(value for row in rows for value in row["values"]))
    if all(not isinstance(value, str) for value in values):
        values.sort()
    lines = []
    for row in rows:
        cells = dict.fromkeys(values, ABSENT)
        measured = zip(row["values"], row["success"], row["success_ci95"], strict=True)
        for value, share, (low, high) in measured:
            cells[value] = f"{per_cent(share)} ({100 * low:.0f} to {100 * high:.0f})"
        lines.append([name_of(row), *cells.values(), f"`{row['file']}`"])
    return markdown_table(["policy", *map(shown, values), "file"], lines)


def curves(folder: Path) -> str:
    """A plot and a table for each axis that a file has."""
    parts = []
    measured = {row["axis"] for row in rows_of(folder)}
    for axis, title in TITLES.items():
        if axis not in measured:
            continue
        part = f"### {title[0].upper()}{title[1:]}\n\n"
        if picture(axis, folder) is not None:
            part += f"![share that survives over {axis}](images/{image_of(axis).name})\n\n"
        parts.append(part + points(axis, folder))
    return "\n\n".join(parts) or NOTHING


# --- plots ----------------------------------------------------------------------------------------

LEFT, RIGHT, TOP, BOTTOM, WIDTH, HEIGHT, LINE_H = 56, 20, 14, 44, 460, 200, 18
COLOURS = ("#1f5fa8", "#8a5a00", "#2e7d32", "#8e24aa", "#c62828", "#00838f")


def image_of(axis: str) -> Path:
    """The file of an axis's plot."""
    return IMAGES / f"robustness_{axis}.svg"


def picture(axis: str, folder: Path) -> str | None:
    """Shares over an axis with their intervals, as SVG text; None where there is none to draw."""
    rows = [row for row in rows_of(folder) if row["axis"] == axis and row["harder"] is not None]
    if not rows:
        return None
    low = min(row["values"][0] for row in rows)
    high = max(row["values"][-1] for row in rows)

    def x_of(value: float) -> float:
        return LEFT + WIDTH * ((value - low) / (high - low) if high > low else 0.5)

    def y_of(share: float) -> float:
        return TOP + HEIGHT * (1 - share)

    foot = TOP + HEIGHT
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, line = y_of(share), 'stroke="#ddd"'
        if share == 0.5:
            line = 'stroke="#888" stroke-dasharray="4 3"'
        parts.append(
            f'<path d="M{LEFT} {y:.1f}h{WIDTH}" {line}/>'
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f}</text>'
        )
    ticks = sorted({value for row in rows for value in row["values"]})
    last = -1e9
    for value in ticks:
        x = x_of(value)
        parts.append(f'<path d="M{x:.1f} {foot}v4" stroke="#888"/>')
        if x - last >= 24:
            last = x
            parts.append(
                f'<text x="{x:.1f}" y="{foot + 17}" text-anchor="middle">{shown(value)}</text>'
            )
    parts.append(
        f'<text x="{LEFT + WIDTH / 2:.0f}" y="{foot + 35}" text-anchor="middle">'
        f"{escape(TITLES[axis])}; survive, % of episodes</text>"
    )
    for i, row in enumerate(rows):
        colour = COLOURS[i % len(COLOURS)]
        xs, bands = [x_of(value) for value in row["values"]], row["success_ci95"]
        upper = [f"{x:.1f} {y_of(band[1]):.1f}" for x, band in zip(xs, bands, strict=True)]
        lower = [f"{x:.1f} {y_of(band[0]):.1f}" for x, band in zip(xs, bands, strict=True)]
        line = [f"{x:.1f} {y_of(s):.1f}" for x, s in zip(xs, row["success"], strict=True)]
        parts.append(
            f'<path d="M{"L".join([*upper, *lower[::-1]])}Z" fill="{colour}" fill-opacity=".15"/>'
            f'<path d="M{"L".join(line)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        y = foot + BOTTOM + LINE_H * i
        parts.append(
            f'<path d="M{LEFT} {y + 8}h18" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{LEFT + 26}" y="{y + 12}">{escape(name_of(row))}</text>'
        )
    size = LEFT + WIDTH + RIGHT, foot + BOTTOM + LINE_H * len(rows) + 6
    title = f"Share that survives over {TITLES[axis]}"
    return svg(size, escape(title), parts, 'font-family="sans-serif" font-size="12"')


# --- the page -------------------------------------------------------------------------------------

PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    PAGE: {"halves": lambda: halves(RESULTS), "curves": lambda: curves(RESULTS)},
}


def main(arguments: Sequence[str]) -> int:
    """Write tables and plots, or compare them."""
    status = write(arguments, PAGES, SCRIPT)
    for axis in TITLES:
        path, new = image_of(axis), picture(axis, RESULTS)
        if new is not None:
            status = max(status, write_picture(arguments, path, new, SCRIPT))
        elif path.is_file():
            if list(arguments) != ["--check"]:
                path.unlink()
            else:
                print(f"{path.relative_to(ROOT).as_posix()}: run python {SCRIPT}")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
