"""What a command shows on a terminal: a progress bar and aligned columns."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any


def bar_interval() -> float:
    """Seconds between two updates of a progress bar; in a log file it is one line a minute."""
    return 0.1 if sys.stderr.isatty() else 60.0


def progress_bar(total: int, done: int, *, unit_scale: bool = False) -> Any:
    """A bar of steps on stderr, by a clock that nobody sets.

    Args:
        total: steps in all.
        done: of them before now.
        unit_scale: write thousands as k.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # tqdm's thread would use the clock on the wall

    bar: Any = Bar(
        total=total, initial=done, unit="step", unit_scale=unit_scale, smoothing=0.1,
        mininterval=bar_interval(),
    )  # fmt: skip
    # tqdm uses `time.time`: when that clock is set back by an hour, the bar stands still for one.
    bar._time = time.monotonic
    bar.start_t = bar.last_print_t = bar._time()
    return bar


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows with the same number of cells as text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def figure(value: float | None, digits: int, missing: str = "-") -> str:
    """A table's figure with so many digits behind the point; `missing` where there is none."""
    return missing if value is None else f"{value:.{digits}f}"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; bars and what would be HTML are escaped."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """One line, with its bars and what would be HTML escaped outside of code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = lambda part: part.replace("|", r"\|").replace("<", "&lt;")  # noqa: E731
    return "".join(part if part.startswith("`") else plain(part) for part in parts)
