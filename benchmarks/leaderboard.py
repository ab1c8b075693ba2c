"""Turn result files into tables: `LEADERBOARD.md` and a page that needs no network.

    python benchmarks/leaderboard.py --results benchmarks/results --out benchmarks/leaderboard
    python benchmarks/leaderboard.py --results submitted --out page --verify 5

Every `*.json` under `--results` is checked first (`bm_envs/results/`). One that does not keep to
its kind is refused in one sentence with exit status 2, and nothing is written. A video beside a
result file, `NAME.mp4` or `NAME_MOTION.mp4` (`.webm` too) beside `NAME.json`, is linked; characters
of a motion's name other than letters and digits are `_` there.

`--verify N` runs N rows of the `track` files again, drawn by `--seed` from those whose policy is at
hand with the SHA-256 that the file tells: an ONNX file beside the result (`NAME.onnx`,
`POLICY.onnx`, `NAME/policy.onnx`, `POLICY/policy.onnx`, or `policy.onnx` beside the folder
`results`), one that ships with the package, or one of the Hub that the command names. A file is
refused when a figure of such a row is not reproduced. What a processor rounds otherwise grows while
a robot moves, hence the tolerances:

    clip      the same success; survival within 0.5 s or 5 %; every error within 5 %
    robust    each of both success rates within the other's 95 % interval; survival and errors
              within 10 %
    both      normalized_return within 0.05; clip_s and the motion's SHA-256 the same (of motions
              made when asked for, and of repaired ones: the length)

One file because only tables of checked files are written, by the command that checked them.
"""

from __future__ import annotations

import datetime
import html
import json
import math
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError, ResultError
from bm_envs.motion import library, suites
from bm_envs.policy import MOTION_REMOVED, load_policy, shipped_policies
from bm_envs.results import (
    ERROR_HEADS,
    ERRORS,
    MAIN_HEADS,
    ResultFile,
    read_results,
    steered_as_before,
    successes_by_rule,
)
from bm_envs.statistics import wilson

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("leaderboard_page.html")
TOLERANCE = {"clip": 0.05, "robust": 0.10}
SURVIVAL_S, RETURN = 0.5, 0.05
VIDEOS = (".mp4", ".webm")
NOT_TOLD = "not told"


@dataclass(frozen=True)
class Config:
    """Check result files and write the tables."""

    results: Path = Path("benchmarks/results")
    """Folder with result files, also in folders inside it."""
    out: Path = Path("benchmarks/leaderboard")
    """Folder for LEADERBOARD.md and index.html."""
    verify: int = 0
    """Run so many rows of the tracking results again."""
    seed: int = 0
    """Which rows those are."""

    def __post_init__(self) -> None:
        if self.verify < 0:
            raise ConfigError(f"verify is {self.verify}, expected 0 or more.")


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One value of a table: its text, what it is sorted by, and how it is shown."""

    text: str
    key: float | None = None
    """None: by the text; "-" and what is not told come last either way."""
    code: bool = False
    """A command, to be copied."""
    link: str | None = None


@dataclass
class Table:
    """A table with what is said about it."""

    title: str
    head: tuple[str, ...]
    rows: list[list[Cell]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: Cell | str) -> None:
        """Add a row of as many cells as the head has."""
        row = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
        assert len(row) == len(self.head)
        self.rows.append(row)


def figure(value: float | None, digits: int, missing: str = "-") -> Cell:
    """A number with so many digits behind the point."""
    return Cell(missing) if value is None else Cell(f"{value:.{digits}f}", float(value))


def share(rate: float) -> Cell:
    """A rate in per cent."""
    return Cell(f"{100 * rate:.1f} %".replace(".0 %", " %"), rate)


def bounds(ci: Sequence[float]) -> Cell:
    """An interval of a rate in per cent, sorted by its lower end."""
    low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in ci)
    return Cell(f"{low} to {high} %", float(ci[0]))


def origin(file: ResultFile) -> list[Cell]:
    """The last cells of every row: the file, the machine, the commit and the command."""
    return [
        Cell(file.name),
        Cell(file.machine_text),
        Cell(short(file.commit)),
        Cell(file.command, code=True),
    ]


def short(commit: str) -> str:
    """The first digits of a commit, and whether there were changes."""
    return commit[:10] + "+" * commit.endswith("+")


ORIGIN = ("result", "machine", "commit", "command")
TRACK_HEAD = (
    "motion", "protocol", "policy", "success", "95 % interval", "survived, s",
    *MAIN_HEADS, "return", "episodes", "M samples", "minutes", "video", *ORIGIN,
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A row with the file it is from."""

    file: ResultFile
    row: dict[str, Any]
    video: str | None = None

    @property
    def suite(self) -> str:
        """The suite that a motion is shown in, whichever its row was measured for."""
        return suites.suite_of(self.row["motion"])


def entries(results: Iterable[ResultFile], *kinds: str) -> list[Entry]:
    """All rows of files of some kinds."""
    return [Entry(file, row) for file in results if file.kind in kinds for row in file.rows]


def tracking(results: Sequence[ResultFile], out: Path) -> dict[str, list[Entry]]:
    """Rows of `track` files by suite; in each by motion and protocol, the best first."""
    by_suite: dict[str, list[Entry]] = {name: [] for name in (*suites.NAMES, *suites.OTHERS)}
    for entry in entries(results, "track"):
        video = video_of(entry.file.path, entry.row["motion"], out)
        by_suite[entry.suite].append(Entry(entry.file, entry.row, video))

    def rank(entry: Entry) -> tuple[Any, ...]:
        row = entry.row
        error = row["r_mpkpe_mm"]
        worst = math.inf if error is None else error
        return natural(row["motion"]), row["protocol"], -row["success"], -row["survival_s"], worst

    return {name: sorted(rows, key=rank) for name, rows in by_suite.items() if rows}


def natural(name: str) -> tuple[Any, ...]:
    """Sorts `walk_on_2` before `walk_on_10`."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


def video_of(result: Path, motion: str, out: Path) -> str | None:
    """Where the video of a row is, as seen from the page; None without one."""
    plain = re.sub(r"[^A-Za-z0-9]", "_", motion)
    for stem in (f"{result.stem}_{plain}", result.stem):
        for suffix in VIDEOS:
            path = result.with_name(stem + suffix)
            if path.is_file():
                return quote(Path(os.path.relpath(path, out)).as_posix())
    return None


def driven(entry: Entry) -> str:
    """The policy, and the engine that it was evaluated in where that is not the usual one.

    A run that is named by its seed alone has the folder before it, which says of what variant.
    """
    name = entry.row["policy"]
    path = Path(option(entry.file.command, "--policy") or "")
    if name.isdigit() and path.name == name and path.parent.name:
        name = f"{path.parent.name}/{name}"
    engine = entry.row["backend"]
    return name if engine == "mujoco" else f"{name} ({engine})"


def track_table(title: str, rows: Iterable[Entry], note: str = "") -> Table:
    """Rows of `track` files."""
    table = Table(title, TRACK_HEAD, note=note)
    for entry in rows:
        row = entry.row
        steps, wall = row["train_env_steps"], row["train_wall_s"]
        table.add(
            row["motion"], row["protocol"], driven(entry), share(row["success"]),
            bounds(row["success_ci95"]),
            Cell(f"{row['survival_s']:.2f} of {row['clip_s']:.2f}",
                 row["survival_s"] / row["clip_s"]),
            figure(row["mpkpe_mm"], 1), figure(row["r_mpkpe_mm"], 1),
            figure(row["joint_pos_rad"], 4), figure(row["normalized_return"], 3),
            figure(row["episodes"], 0),
            figure(None if steps is None else steps / 1e6, 1, NOT_TOLD),
            figure(None if wall is None else wall / 60, 1, NOT_TOLD),
            Cell("video", link=entry.video) if entry.video else Cell("-"), *origin(entry.file),
        )  # fmt: skip
    return table


def missing(suite: str, rows: Iterable[Entry]) -> str:
    """What a suite holds and nobody has a result for."""
    if suite not in suites.NAMES:
        return ""
    there = {entry.row["motion"] for entry in rows}
    absent = [name for name in suites.motions(suite) if name not in there]
    return f"No result: {', '.join(absent)}." if absent else ""


def guided_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `guided` files by task, the best first."""
    table = Table("Guided tasks", (
        "task", "policy", "representation", "sampler", "delay", "successes", "rate",
        "95 % interval", "by the head", "speed, m/s", *ORIGIN,
    ))  # fmt: skip

    def rate(row: dict[str, Any]) -> float:
        """By the strict rule; what was counted by the head alone comes last."""
        strict, _ = successes_by_rule(row)
        return -1.0 if strict is None else strict / row["trials"]

    def counted(count: int | None, trials: int) -> Cell:
        return Cell("-") if count is None else Cell(f"{count} of {trials}", count / trials)

    rows = entries(results, "guided")
    for entry in sorted(rows, key=lambda e: (e.row["task"], -rate(e.row))):
        row = entry.row
        trials, (strict, head) = row["trials"], successes_by_rule(row)
        table.add(
            row["task"], row["policy"], row["representation"], str(row.get("sampler", "-")),
            str(row.get("delay", "-")),
            counted(strict, trials),
            Cell("-") if strict is None else share(strict / trials),
            Cell("-") if strict is None else bounds(wilson(strict, trials)),
            counted(head, trials),
            figure(row.get("mean_speed"), 2), *origin(entry.file),
        )  # fmt: skip
    return table


def gates_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `gates` files; of a gate that was examined again the newest.

    Those of another steering are left out.
    """
    verdict = {True: "passed", False: "FAILED", None: "measured"}
    table = Table("Gates of the diffusion model", (
        "policy", "gate", "about", "value", "unit", "threshold", "verdict", *ORIGIN,
    ))  # fmt: skip
    newest: dict[tuple[Any, str], Entry] = {}
    for entry in entries(results, "gates"):
        if steered_as_before(entry.row):
            continue
        key = entry.file.settings.get("policy"), entry.row["gate"]
        if key not in newest or _made(newest[key]) <= _made(entry):
            newest[key] = entry
    for entry in newest.values():
        row = entry.row

        def six(value: float | None) -> Cell:
            return Cell("-") if value is None else Cell(f"{value:.4g}", float(value))

        table.add(
            str(entry.file.settings.get("policy", NOT_TOLD)), row["gate"],
            str(row.get("title", "")), six(row["value"]), str(row.get("unit", "")),
            six(row["threshold"]), verdict[row["passed"]], *origin(entry.file),
        )  # fmt: skip
    return table


def _made(entry: Entry) -> datetime.datetime:
    return datetime.datetime.fromisoformat(entry.file.created)


def learning_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `learning` and `sweep` files."""
    table = Table("Training runs", (
        "trainer", "motion", "variant", "seed", "M samples", "minutes",
        "completed after, M samples", "after, minutes", "final success", ERROR_HEADS["r_mpkpe_mm"],
        *ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "learning", "sweep"):
        row = entry.row
        trainer = str(row.get("algorithm", "ppo_track"))  # the only one there was
        variant = str(row.get("variant") or " ".join(map(str, row["flags"])) or "-")
        if "error" in row:
            table.add(trainer, row["motion"], variant, figure(row["seed"], 0), *["-"] * 4, "error",
                      "-", *origin(entry.file))  # fmt: skip
            continue
        first = row["first_pass"] or {}
        steps, wall = first.get("env_steps"), first.get("wall_s")
        table.add(
            trainer, row["motion"], variant, figure(row["seed"], 0),
            figure(row["env_steps"] / 1e6, 2), figure(row["wall_s"] / 60, 1),
            figure(None if steps is None else steps / 1e6, 2),
            figure(None if wall is None else wall / 60, 1), share(row["clip"]["success"]),
            figure(row["clip"].get("r_mpkpe_mm"), 1), *origin(entry.file),
        )  # fmt: skip
    return table


def throughput_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `throughput` files."""
    table = Table("Speed", (
        "what", "variant", "robots", "threads", "control steps/s", "to raw engine", *ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "throughput"):
        row = entry.row
        table.add(
            row["what"], str(row.get("variant") or "-"), figure(row["num_envs"], 0),
            figure(row["threads"], 0), figure(row["control_steps_per_s"], 0, "error"),
            figure(row["ratio_to_raw"], 2), *origin(entry.file),
        )  # fmt: skip
    return table


def reference_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `reference` files."""
    table = Table("Reference motions against joints and floor", (
        "motion", "seconds", "flags", *ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "reference"):
        row = entry.row
        table.add(row["motion"], figure(row["clip_s"], 1), ", ".join(map(str, row["flags"])) or "-",
                  *origin(entry.file))  # fmt: skip
    return table


def files_table(results: Iterable[ResultFile], out: Path) -> Table:
    """The files, with what made each; links are as seen from the folder `out`."""
    table = Table("Result files", ("file", "kind", "made", "seed", *ORIGIN[1:]))
    for file in results:
        _, *made_by = origin(file)
        link = quote(Path(os.path.relpath(file.path, out)).as_posix())
        seed = "-" if file.seed is None else str(file.seed)
        table.add(Cell(file.name, link=link), file.kind, file.created[:10], seed, *made_by)
    return table


def other_tables(results: Sequence[ResultFile]) -> list[Table]:
    """All tables but those of tracking, without empty ones."""
    makers = (guided_table, gates_table, learning_table, throughput_table, reference_table)
    return [table for maker in makers if (table := maker(results)).rows]


# --- Markdown -------------------------------------------------------------------------------------

ABOUT = (
    "Tracking: `clip` plays a motion once from first frame to last, without noise; `robust` is 100 "
    "episodes or more with noise, pushes and randomized robots. Errors are those of the frames "
    "before a failure: MPKPE of the tracked links as they are in the world, R-MPKPE once torsos "
    "are laid on each other, and joints. `benchmarks/track.py` and `benchmarks/guided.py` define "
    "every figure. Samples are control steps of training, over all robots, and like minutes of "
    "the last run alone: what a run went on from (`--start-from`; `docs/leaderboard.md` tells) is "
    "not in them. A commit with + had changes. What was not trained "
    "here, or where nobody told, says so; no row is estimated."
)


def markdown(results: Sequence[ResultFile], by_suite: dict[str, list[Entry]], out: Path) -> str:
    """LEADERBOARD.md: for narrow tables a row names its file, and the last table what made it."""
    where = "Each row names its file; machine, commit and command of all are in the last table."
    intro = f"{summary(results)} {where} Made by `benchmarks/leaderboard.py`."
    parts = ["# Leaderboard", intro, ABOUT]
    for suite, rows in by_suite.items():
        parts += markdown_table(track_table(f"Tracking: {suite}", rows, missing(suite, rows)))
    for table in other_tables(results):
        parts += markdown_table(table)
    parts += markdown_table(files_table(results, out))
    return "\n\n".join(parts) + "\n"


def summary(results: Sequence[ResultFile]) -> str:
    """How many files of which kind."""
    kinds = Counter(file.kind for file in results)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"From {len(results)} result file{'s' if len(results) > 1 else ''} ({counts})."


def markdown_table(table: Table) -> list[str]:
    """A heading, the note if there is one, and the table."""
    head, rows = table.head, table.rows
    if head[-len(ORIGIN) :] == ORIGIN:
        cut = 1 - len(ORIGIN)  # all but the file's name
        head, rows = head[:cut], [row[:cut] for row in rows]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in rows]
    return [f"## {table.title}", *([table.note] if table.note else []), "\n".join(lines)]


def markdown_cell(cell: Cell) -> str:
    """A cell's text, with all that Markdown or HTML would read otherwise as it is."""
    if cell.code:
        ticks = "`" * (1 + max((len(run) for run in re.findall("`+", cell.text)), default=0))
        gap = " " if cell.text.startswith("`") or cell.text.endswith("`") else ""
        return ticks + gap + cell.text.replace("|", "\\|") + gap + ticks
    text = re.sub(r"([\\`*|<>&])", r"\\\1", " ".join(cell.text.split()))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text).replace("](", "]\\(")
    return f"[{text}]({cell.link})" if cell.link else text


# --- the page -------------------------------------------------------------------------------------


def page(results: Sequence[ResultFile], by_suite: dict[str, list[Entry]]) -> str:
    """index.html: the tables, sortable, and a plot for each motion."""
    sections = []
    rows = [entry for group in by_suite.values() for entry in group]
    if rows:
        table = track_table("Tracking", rows)
        table.head = ("suite", *table.head)
        for cells, entry in zip(table.rows, rows, strict=True):
            cells.insert(0, Cell(entry.suite))
        notes = [
            f"{suite}: {text}" for suite in by_suite if (text := missing(suite, by_suite[suite]))
        ]
        table.note = " ".join(notes)
        sections.append(html_table(table))
        sections.append('<h2 id="motions">Motion by motion</h2>\n' + "\n".join(plots(rows)))
    sections += [html_table(table) for table in other_tables(results)]
    text = PAGE.read_text(encoding="utf-8")
    for mark, content in (
        ("SUMMARY", html.escape(summary(results))),
        ("ABOUT", re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(ABOUT))),
        ("SECTIONS", "\n".join(sections)),
    ):
        assert text.count(f"<!-- {mark} -->") == 1
        text = text.replace(f"<!-- {mark} -->", content)
    return text


def html_table(table: Table) -> str:
    """A table whose head sorts it; `data-key` is what a cell is sorted by."""
    identity = re.sub(r"\W+", "-", table.title.lower()).strip("-")
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{html.escape(name)}</button></th>'
        for name in table.head
    )
    body = "\n".join(
        "<tr>" + "".join(map(html_cell, row)) + "</tr>" for row in table.rows
    )  # fmt: skip
    note = f"<p>{html.escape(table.note)}</p>\n" if table.note else ""
    return (
        f'<h2 id="{identity}">{html.escape(table.title)}</h2>\n{note}'
        f'<p><input type="search" placeholder="show rows with ..." aria-label="filter"></p>\n'
        f'<div class="wide"><table class="sortable">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def html_cell(cell: Cell) -> str:
    """A cell; commands get a button that copies them."""
    text = html.escape(cell.text)
    if cell.code:
        button = '<button type="button" class="copy">copy</button>'
        return f"<td>{button}<code>{text}</code></td>"
    if cell.link:
        text = f'<a href="{html.escape(cell.link)}">{text}</a>'
    if cell.key is None:
        return f"<td>{text}</td>"
    return f'<td class="number" data-key="{html.escape(f"{cell.key!r}")}">{text}</td>'


def plots(rows: Sequence[Entry]) -> Iterator[str]:
    """For each motion: how far every policy came, and its error over time where a file has it."""
    for motion in dict.fromkeys(entry.row["motion"] for entry in rows):
        own = [entry for entry in rows if entry.row["motion"] == motion]
        curves = [
            trace
            for file in dict.fromkeys(entry.file.path for entry in own)
            for trace in next(e.file for e in own if e.file.path == file).traces
            if trace["motion"] == motion and trace["mpkpe_mm"]
        ]
        seconds = max(entry.row["clip_s"] for entry in own)
        yield (
            f'<figure class="clip"><figcaption>{html.escape(motion)}</figcaption>\n'
            f"{bars(motion, own)}{over_time(motion, curves, seconds) if curves else ''}</figure>"
        )


LABEL, WIDTH, LINE = 210, 240, 18  # px


def bars(motion: str, rows: Sequence[Entry]) -> str:
    """A bar per row: the survived share of the clip, and the success rate with its interval."""
    height = LINE * len(rows) + 22
    parts = [
        f'<svg role="img" width="{LABEL + WIDTH + 70}" height="{height}" '
        f'aria-label="{html.escape(f"survived share and success on {motion}")}">'
    ]
    for i, entry in enumerate(rows):
        row, top = entry.row, i * LINE
        name = f"{driven(entry)}, {row['protocol']}"
        name = name if len(name) <= 34 else name[:33] + "\u2026"
        survived = WIDTH * min(1.0, row["survival_s"] / row["clip_s"])
        low, high = (LABEL + WIDTH * end for end in row["success_ci95"])
        middle, rate = top + LINE / 2, LABEL + WIDTH * row["success"]
        error = row["r_mpkpe_mm"]
        parts.append(
            f'<text x="{LABEL - 6}" y="{top + 13}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect class="back" x="{LABEL}" y="{top + 3}" width="{WIDTH}" height="12"/>'
            f'<rect class="bar" x="{LABEL}" y="{top + 3}" width="{survived:.1f}" height="12"/>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
            f'<circle cx="{rate:.1f}" cy="{middle}" r="3.5"/>'
            f'<text x="{LABEL + WIDTH + 6}" y="{top + 13}">'
            f"{'' if error is None else f'{error:.0f} mm'}</text>"
        )
    foot = LINE * len(rows) + 16
    parts.append(
        f'<text x="{LABEL}" y="{foot}">bar: survived share; dot: success, 95 %</text></svg>\n'
    )
    return "".join(parts)


def over_time(motion: str, curves: Sequence[dict[str, Any]], seconds: float) -> str:
    """MPKPE over the motion, a line per run; a cross where it failed."""
    width, height, left, bottom = 420, 130, 44, 18
    top = max(max(trace["mpkpe_mm"]) for trace in curves) or 1.0

    def x(at: float) -> float:
        return left + (width - left - 8) * min(1.0, at / seconds)

    def y(error: float) -> float:
        return 8 + (height - bottom - 8) * (1 - error / top)

    label = html.escape(f"MPKPE over time on {motion}")
    parts = [
        f'<svg role="img" width="{width}" height="{height}" aria-label="{label}">'
        f'<path class="axis" d="M{left} 8V{height - bottom}H{width - 8}"/>'
        f'<text x="{left - 4}" y="14" text-anchor="end">{top:.0f}</text>'
        f'<text x="{left - 4}" y="{height - bottom}" text-anchor="end">0</text>'
        f'<text x="{left}" y="{height - 4}">MPKPE, mm, over {seconds:g} s</text>'
    ]
    for i, trace in enumerate(curves):
        every = trace["every_s"]
        points = " ".join(
            f"{x((k + 0.5) * every):.1f},{y(error):.1f}"
            for k, error in enumerate(trace["mpkpe_mm"])
        )
        name = html.escape(str(trace["policy"]))
        parts.append(
            f'<polyline class="c{i % 6}" points="{points}"><title>{name}</title></polyline>'
        )
        if trace["failed_s"] is not None:
            at, level = x(trace["failed_s"]), y(trace["mpkpe_mm"][-1])
            parts.append(
                f'<path class="c{i % 6} failed" d="M{at - 4:.1f} {level - 4:.1f}l8 8m0 -8l-8 8">'
                f"<title>{name} failed at {trace['failed_s']:g} s</title></path>"
            )
    return "".join(parts) + "</svg>\n"


# --- running again --------------------------------------------------------------------------------


def option(command: str, flag: str) -> str | None:
    """The value that a command line gives a flag."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None


def policy_at_hand(file: ResultFile, policy: str) -> str | None:
    """A reference to the policy that a row was made with, or None where it is not to be had.

    Raises:
        ResultError: a policy lies beside the file, but it is not the one that the file tells.
    """
    digest = file.policy_sha256(policy)
    folder, stem = file.path.parent, file.path.stem
    beside = [folder / f"{stem}.onnx", folder / stem / "policy.onnx"]
    if re.fullmatch(r"[\w.\[\]:-]+", policy):
        beside += [folder / f"{policy}.onnx", folder / policy / "policy.onnx"]
    if folder.name == "results":  # as tools/hub.py lays a policy out
        beside.append(folder.parent / "policy.onnx")
    there = [path for path in dict.fromkeys(beside) if path.is_file()]
    for path in there:
        loaded = load_policy(path, config=config_of(file))
        if digest in (loaded.sha256, loaded.spec.extra.get(MOTION_REMOVED)):
            return str(path)
    if there:
        raise ResultError(
            f"{file.path}: settings: policy_sha256 is {str(digest)[:12]}..., but {there[0].name} "
            "beside it is another policy."
        )
    if policy in shipped_policies():
        return policy if load_policy(policy).sha256 == digest else None
    reference = option(file.command, "--policy") or ""
    if reference.startswith("hub:"):
        try:
            return reference if load_policy(reference).sha256 == digest else None
        except BMError:
            return None
    return None


def config_of(file: ResultFile) -> Path | None:
    """The configuration that the command names for a policy without metadata, if it is here."""
    named = option(file.command, "--policy-config")
    path = ROOT / named if named else None
    return path if path is not None and path.is_file() else None


def run_again(file: ResultFile, row: dict[str, Any], policy: str) -> dict[str, Any]:
    """The result file that `benchmarks/track.py` writes for this row alone.

    Raises:
        ResultError: the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "again.json"
        command = [
            sys.executable, str(ROOT / "benchmarks" / "track.py"), "--policy", policy,
            "--motion", row["motion"], "--protocol", row["protocol"],
            "--seed", str(file.seed or 0), "--backend", row["backend"],
            "--feet", file.settings["feet"], "--lead", str(file.settings["lead"]),
            "--json", str(out),
        ]  # fmt: skip
        if row["protocol"] == "robust":
            command += ["--trials", str(row["episodes"])]
        if file.settings["failure_rules"] == "off":
            command.append("--no-failure")
        if (config := config_of(file)) is not None:
            command += ["--policy-config", str(config)]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            command, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise ResultError(f"{place(file, row)} cannot be run again ({said}).")
        return json.loads(out.read_text())


def place(file: ResultFile, row: dict[str, Any]) -> str:
    """Where a row stands, for a message."""
    return f"{file.path}: row {file.rows.index(row) + 1}:"


def compare(file: ResultFile, row: dict[str, Any], again: dict[str, Any]) -> None:
    """Refuse a row that differs by more than the tolerances from its second run.

    Raises:
        ResultError: one sentence with the file, the row and the figure.
    """
    new, motion = again["rows"][0], row["motion"]

    def refuse(name: str, published: Any, actual: Any, tolerance: str) -> None:
        raise ResultError(
            f"{place(file, row)} {name} is {published}, but run again it is {actual} ({tolerance})."
        )

    published = file.settings["motion_sha256"][motion]
    actual = again["settings"]["motion_sha256"].get(motion)
    if published != actual and not library.is_computed(motion):
        refuse("the motion's SHA-256", published[:12] + "...", str(actual)[:12] + "...", "the same")
    if abs(row["clip_s"] - new["clip_s"]) > 1e-6:
        refuse("clip_s", row["clip_s"], new["clip_s"], "the same")
    relative = TOLERANCE[row["protocol"]]
    (low, high), (new_low, new_high) = row["success_ci95"], new["success_ci95"]
    rates = f"{row['success']:g}", f"{new['success']:g}"
    if row["protocol"] == "clip" and row["success"] != new["success"]:
        refuse("success", *rates, "expected the same")
    if not (low <= new["success"] <= high and new_low <= row["success"] <= new_high):
        refuse("success", *rates, "expected each within the other's interval")
    largest = max(SURVIVAL_S, relative * new["survival_s"])
    if abs(row["survival_s"] - new["survival_s"]) > largest:
        refuse("survival_s", row["survival_s"], new["survival_s"], f"within {largest:.2g} s")
    for name in ERRORS:
        if (row[name] is None) != (new[name] is None):
            refuse(name, row[name], new[name], "a number or null in both")
        if new[name] is not None and abs(row[name] - new[name]) > relative * new[name]:
            refuse(name, f"{row[name]:g}", f"{new[name]:g}", f"within {relative:.0%}")
    if abs(row["normalized_return"] - new["normalized_return"]) > RETURN:
        values = f"{row['normalized_return']:g}", f"{new['normalized_return']:g}"
        refuse("normalized_return", *values, f"within {RETURN:g}")


def verify(results: Sequence[ResultFile], count: int, seed: int) -> str:
    """Run some rows again; returns what was done in one sentence.

    Raises:
        ResultError: a row is not reproduced.
    """
    candidates: list[tuple[ResultFile, dict[str, Any], str]] = []
    total = 0
    known: dict[tuple[Path, str], str | None] = {}
    for file in results:
        if file.kind != "track":
            continue
        for row in file.rows:
            total += 1
            key = file.path, row["policy"]
            if key not in known:
                known[key] = policy_at_hand(file, row["policy"])
            if (policy := known[key]) is not None:
                candidates.append((file, row, policy))
    chosen = random.Random(seed).sample(candidates, min(count, len(candidates)))
    for file, row, policy in chosen:
        print(f"running again: {place(file, row)} {row['policy']}, {row['motion']}, "
              f"{row['protocol']}", flush=True)  # fmt: skip
        compare(file, row, run_again(file, row, policy))
    return (
        f"{len(chosen)} of {total} tracking rows were run again and reproduced; the policies of "
        f"{total - len(candidates)} are not at hand."
    )


def main(config: Config) -> None:
    """Check, run again what is asked for, write."""
    for name in ("LEADERBOARD.md", "index.html"):
        if (config.out / name).is_dir():
            raise ConfigError(f"{config.out / name} is a folder, expected a file or nothing.")
    if config.out.exists() and not config.out.is_dir():
        raise ConfigError(f"{config.out} is no folder, expected one for --out.")
    results = read_results(config.results)
    print(summary(results))
    if config.verify:
        print(verify(results, config.verify, config.seed))
    by_suite = tracking(results, config.out)
    texts = {
        "LEADERBOARD.md": markdown(results, by_suite, config.out),
        "index.html": page(results, by_suite),
    }
    for name, text in texts.items():
        with cli.atomic_path(config.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"wrote {config.out / name}")


if __name__ == "__main__":
    cli.run(main, Config)
