"""Draws which room of the package imports which, from the code: `docs/images/house.svg`.

    python docs/house.py            # write the picture
    python docs/house.py --check    # exit status 1 where the picture is not that of the code

A box is a room, one package of `bm_envs` or a folder of scripts; an arrow points to a room that it
imports. Left out are arrows that follow from others, and the small modules below all rooms
(`SHARED`). A room stands above all that it imports.
"""

from __future__ import annotations

import ast
import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "house.svg"
SCRIPTS = ("algos", "benchmarks", "tools")
SHARED = ("arrays", "errors", "rotations", "statistics", "cli", "__init__", "__main__")
# What a room is for, in as few words as fit into its box.
PURPOSE = {
    "robots": "tables, MJCF, kinematics",
    "motion": "clips, readers, checks",
    "backends": "engines behind one protocol",
    "tasks.track": "the tracking task",
    "tasks.guided": "worlds without a reference",
    "envs": "Gymnasium environments",
    "policy": "policy files",
    "diffusion": "runs a diffusion model",
    "evaluation": "protocols",
    "quality": "figures of motion",
    "results": "result files",
    "learning": "what trainers share",
    "deploy": "the robot's control loop",
    "viewers": "window, video, page",
    "adapters": "other people's trainers",
    "algos": "algorithms, a file each",
    "benchmarks": "measurements",
    "tools": "commands",
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 176, 50, 18, 40, 16


def room_of(module: str) -> str:
    """The room of a dotted name inside the package; "" for the small modules below all rooms.

    `tasks` is a house of two rooms; a module that stands beside them is used by both.
    """
    first, _, rest = module.partition(".")
    if first in SHARED or not first:
        return ""
    if first != "tasks":
        return first
    room = rest.partition(".")[0]
    return f"tasks.{room}" if (ROOT / "bm_envs" / "tasks" / room).is_dir() and room else ""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.partition(".")[2] for name in names if name.startswith("bm_envs.")}
    return {room_of(name) for name in inside} - {""}


def graph() -> dict[str, set[str]]:
    """Rooms, and those that each imports."""
    rooms: dict[str, set[str]] = {}
    for path in sorted((ROOT / "bm_envs").rglob("*.py")):
        parts = path.relative_to(ROOT / "bm_envs").with_suffix("").parts
        if room := room_of(".".join(part for part in parts if part != "__init__")):
            rooms.setdefault(room, set()).update(imported(path) - {room})
    for folder in SCRIPTS:
        # `peers` run among other projects' packages, and import nothing of ours.
        files = [path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "peers"]
        rooms[folder] = set().union(*map(imported, files))
    return {room: {name for name in names if name in rooms} for room, names in rooms.items()}


def reduced(rooms: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without arrows that follow from others."""

    def reached(room: str) -> set[str]:
        return rooms[room].union(*map(reached, rooms[room]))

    return {
        room: names - set().union(*(reached(name) for name in names))
        for room, names in rooms.items()
    }


def levels(rooms: dict[str, set[str]]) -> dict[str, int]:
    """0 for a room that imports none; else one more than the highest that it imports."""

    def level(room: str) -> int:
        return 1 + max(map(level, rooms[room]), default=-1)

    return {room: level(room) for room in rooms}


def layout(arrows: dict[str, set[str]], level: dict[str, int]) -> dict[Any, tuple[float, float]]:
    """Centers of rooms, and of the points `(room, name, row)` by which an arrow passes a row.

    Rows are ordered by the mean place of what they are connected to, downward and upward in turn:
    Sugiyama, Tagawa and Toda (1981).
    """
    rows: list[list[Any]] = [[] for _ in range(1 + max(level.values()))]
    joined: dict[Any, list[Any]] = {room: [] for room in arrows}
    for room in sorted(arrows):
        rows[level[room]].append(room)
        for name in sorted(arrows[room]):
            chain = [(room, name, row) for row in range(level[room] - 1, level[name], -1)]
            for point in chain:
                rows[point[2]].append(point)
                joined[point] = []
            for upper, lower in pairwise([room, *chain, name]):
                joined[upper].append(lower)
                joined[lower].append(upper)

    def x_of(row: list[Any]) -> dict[Any, float]:
        sizes = [WIDTH if isinstance(item, str) else 0 for item in row]
        left = -(sum(sizes) + GAP_X * (len(row) - 1)) / 2
        places = {}
        for item, size in zip(row, sizes, strict=True):
            places[item] = left + size / 2
            left += size + GAP_X
        return places

    place = {item: x for row in rows for item, x in x_of(row).items()}
    for _ in range(8):
        for row in (*rows, *reversed(rows)):
            row.sort(key=lambda item: fmean(place[other] for other in joined[item]))
            place |= x_of(row)
    return {
        item: (place[item], -index * (HEIGHT + GAP_Y))
        for index, row in enumerate(rows)
        for item in row
    }


def draw() -> str:
    """The picture, as SVG text."""
    rooms = graph()
    arrows, level = reduced(rooms), levels(rooms)
    center = layout(arrows, level)
    half = MARGIN + max(
        abs(x) + WIDTH / 2 * isinstance(item, str) for item, (x, _) in center.items()
    )
    top = MARGIN + HEIGHT / 2 - min(y for _, y in center.values())
    center = {item: (half + x, top + y) for item, (x, y) in center.items()}
    width, height = 2 * half, top + HEIGHT / 2 + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="sans-serif">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#777"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
    ]
    for room in sorted(rooms):
        for name in sorted(arrows[room]):
            x, y = center[room]
            path = f"M{x:.0f} {y + HEIGHT / 2:.0f}"
            y += HEIGHT / 2
            passed = [(room, name, row) for row in range(level[room] - 1, level[name], -1)]
            for item in (*passed, name):
                to_x, to_y = center[item]
                to_y -= HEIGHT / 2
                middle = (y + to_y) / 2
                path += f" C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
                x, y = to_x, to_y
                if item != name:
                    y += HEIGHT
                    path += f" V{y:.0f}"
            lines.append(f'<path d="{path}" fill="none" stroke="#777" marker-end="url(#head)"/>')
    for room in sorted(rooms):
        x, y = center[room]
        fill = "#fdf1dc" if room in SCRIPTS else "#e3edf9"
        lines += [
            f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" '
            f'height="{HEIGHT}" rx="6" fill="{fill}" stroke="#557"/>',
            f'<text x="{x:.0f}" y="{y - 4:.0f}" text-anchor="middle" font-size="15" '
            f'fill="#223">{escape(room.replace(".", "/"))}</text>',
            f'<text x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle" font-size="11" '
            f'fill="#445">{escape(PURPOSE[room])}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


def main() -> int:
    """Write the picture, or compare it."""
    picture = draw()
    if sys.argv[1:] == ["--check"]:
        return int(not PICTURE.is_file() or PICTURE.read_text() != picture)
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
