"""What the pages' plots share: an axis, a mark, a frame, and how a picture is written or compared.

The scripts `lafan1_tables.py` and `results_tables.py` draw with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from guided_tables import ROOT

from bm_envs import cli


def log_share(value: float, low: float, high: float) -> float:
    """Where a positive value stands on a logarithmic axis: 0 at `low`, 1 at `high`."""
    return math.log(value / low) / math.log(high / low)


def cross(x: float, y: float, colour: str) -> str:
    """A cross with its middle there."""
    return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2"/>'


def svg(
    size: tuple[float, float], title: str, parts: Sequence[str], font: str, ink: str = "#222"
) -> str:
    """A picture's text.

    Args:
        size: width and height.
        title: what it shows, for those who cannot see it.
        parts: what is in it.
        font: attributes of all texts.
        ink: their colour.
    """
    width, height = (f"{length:.0f}" for length in size)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'{font} fill="{ink}">',
        f"<title>{title}</title>",
        # A ground of its own: the page's may be dark.
        f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>\n",
    ])  # fmt: skip


def write_picture(
    arguments: Sequence[str], path: Path, new: str, script: str, root: Path = ROOT
) -> int:
    """Write a script's picture, or compare it; the exit status."""
    if list(arguments) != ["--check"]:
        with cli.atomic_path(path) as temporary:
            temporary.write_text(new)
    elif not path.is_file() or path.read_text() != new:
        print(f"{path.relative_to(root).as_posix()}: run python {script}")
        return 1
    return 0
