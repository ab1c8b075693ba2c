"""Turn result files into tables: `LEADERBOARD.md` and a page that needs no network.

    python benchmarks/leaderboard.py --results benchmarks/results --out benchmarks/leaderboard
    python benchmarks/leaderboard.py --results submitted --out page --verify 5

Every `*.json` under `--results` is checked first (`bm_envs/results/`). One that does not keep to
its kind is refused in one sentence with exit status 2, and nothing is written. A video beside a
result file, `NAME.mp4` or `NAME_MOTION.mp4` (`.webm` too) beside `NAME.json`, is linked; characters
of a motion's name other than letters and digits are `_` there.

`--verify N` runs N rows of the `track` files again, of those whose policy is at hand with the
SHA-256 that the file tells: an ONNX file beside the result (`NAME.onnx`, `POLICY.onnx`,
`NAME/policy.onnx`, `POLICY/policy.onnx`, or `policy.onnx` beside the folder `results`), one that
ships with the package, or one of the Hub that the command names. Which rows, and with which draws,
is for a fresh seed to say, which nobody knew when the file was made; `--seed N` repeats a
verification. A file is refused when a figure of such a row lies outside what its second run allows
(`bm_envs/results/verification.py`). `clip` is repeated, and run from 20 other starts.

All these policies are examined, too (`bm_envs/policy/examination.py`). What looks like a look-up,
or has the weights of a policy of another name, is not ranked until a maintainer has looked, and is
listed with the reason. `looked_at.json` beside this file has what maintainers found:
`{SHA-256 of the ONNX file: {"ranked": true or false, "reason": sentence}}`.

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
import secrets
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

import numpy as np

from bm_envs import cli, evaluation, statistics
from bm_envs.errors import BMError, ConfigError, ResultError
from bm_envs.motion import library, suites
from bm_envs.policy import (
    MOTION_REMOVED,
    TRACKER,
    load_policy,
    read_policy_json,
    shipped_files,
    shipped_policies,
)
from bm_envs.policy.examination import examine, weights_of
from bm_envs.results import (
    ERROR_HEADS,
    MAIN_HEADS,
    ResultFile,
    read_results,
    rules,
    steered_as_before,
    successes_by_rule,
)
from bm_envs.results.verification import repeated, resampled, stands_for_a_policy
from bm_envs.statistics import wilson
from bm_envs.tasks.track.config import CONTROL_DT

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_name("leaderboard_page.html")
LOOKED_AT = Path(__file__).with_name("looked_at.json")
SHOWN = (  # kinds
    "track", "guided", "tour", "gates", "learning", "sweep", "throughput", "reference",
)  # fmt: skip
VIDEOS = (".mp4", ".webm")
NOT_TOLD = "not told"

Doubts = dict[tuple[Path, str], list[str]]
"""Why a policy is not ranked, by its file's path and its name there."""


@dataclass(frozen=True)
class Config:
    """Check result files and write the tables."""

    results: Path = Path("benchmarks/results")
    """Folder with result files, also in folders inside it."""
    out: Path = Path("benchmarks/leaderboard")
    """Folder for LEADERBOARD.md and index.html."""
    verify: int = 0
    """Run so many rows of the tracking results again."""
    seed: int | None = None
    """Seed of a verification that is to be repeated, in place of a fresh one."""

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
    about: str | None = None
    """The `name` of a cell whose row has more; the page links to it."""
    name: str | None = None
    """Of a cell that others are about."""


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
    return Cell(cli.figure(value, digits, missing), None if value is None else float(value))


def share(rate: float) -> Cell:
    """A rate in per cent."""
    return Cell(f"{100 * rate:.1f} %".replace(".0 %", " %"), rate)


def bounds(ci: Sequence[float]) -> Cell:
    """An interval of a rate in per cent, sorted by its lower end."""
    low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in ci)
    return Cell(f"{low} to {high} %", float(ci[0]))


def origin(file: ResultFile) -> Cell:
    """The last cell of every row, the file; the table of files has what made it."""
    return Cell(file.name, about=file_id(file))


def file_id(file: ResultFile) -> str:
    """What the page calls the row of a file."""
    return f"file-{file.name}"


def short(commit: str) -> str:
    """The first digits of a commit, and whether there were changes."""
    return commit[:10] + "+" * commit.endswith("+")


ORIGIN = "result"
TRACK_HEAD = (
    "motion", "protocol", "policy", "success", "95 % interval", "survived, s",
    *MAIN_HEADS, "episodes", "obs", "base", "Hz", "delay, ms", "M samples",
    "minutes", "video", ORIGIN,
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a tracker is told, how often it acts, and what delay of its commands it bears."""

    size: int | None = None
    """Numbers that it observes."""
    base: str = NOT_TOLD
    """The base's place and velocity: `true`, `estimated`, or `none`, which it does not observe."""
    hz: float = 1 / CONTROL_DT
    delay: str = NOT_TOLD
    """The longest with which every trial in sim2sim results survived, ms."""


@dataclass(frozen=True)
class Entry:
    """A row with the file it is from."""

    file: ResultFile
    row: dict[str, Any]
    video: str | None = None
    told: Told = Told()

    @property
    def suite(self) -> str:
        """The suite that a motion is shown in, whichever its row was measured for."""
        return suites.suite_of(self.row["motion"])


def entries(results: Iterable[ResultFile], *kinds: str) -> list[Entry]:
    """All rows of files of some kinds."""
    return [Entry(file, row) for file in results if file.kind in kinds for row in file.rows]


def tracking(
    results: Sequence[ResultFile], out: Path, doubts: Doubts | None = None
) -> dict[str, list[Entry]]:
    """Ranked rows of `track` files by suite; in each by motion and protocol, the best first."""
    by_suite: dict[str, list[Entry]] = {name: [] for name in (*suites.NAMES, *suites.OTHERS)}
    shipped, delays = observed_by_shipped(), borne_delays(results)
    for entry in entries(results, "track"):
        if doubts and (entry.file.path, entry.row["policy"]) in doubts:
            continue
        video = video_of(entry.file.path, entry.row["motion"], out)
        told = told_of(entry, shipped, delays)
        by_suite[entry.suite].append(Entry(entry.file, entry.row, video, told))

    def rank(entry: Entry) -> tuple[Any, ...]:
        row = entry.row
        error = row["r_mpkpe_mm"]
        worst = math.inf if error is None else error
        return natural(row["motion"]), row["protocol"], -row["success"], -row["survival_s"], worst

    return {name: sorted(rows, key=rank) for name, rows in by_suite.items() if rows}


def observed_by_shipped() -> dict[str, tuple[int, str]]:
    """Size of the observation, and the base's state in it, by SHA-256 of shipped trackers.

    Older result files do not tell it, and the descriptions beside the policies do.
    """
    found = {}
    for path in shipped_files(TRACKER).values():
        about = read_policy_json(path.with_suffix(".json"))
        names = {term["name"] for term in about["observation"]}
        digest = cli.file_sha256(path)
        found[digest] = about["observation_size"], evaluation.base_state(names)
    return found


def borne_delays(results: Iterable[ResultFile]) -> dict[tuple[str, str], tuple[float, str]]:
    """Longest delay of commands (ms) that all trials of `sim2sim` files survived, and their base.

    By the policy's SHA-256 and the motion. A delay counts if no trial of it or of a shorter one
    failed, at any rate of physics, with any noise, and with the base's state as it is named.
    """
    trials: dict[tuple[str, str], dict[str, dict[float, bool]]] = {}
    for entry in entries(results, "sim2sim"):
        row = entry.row
        by_base = trials.setdefault((row["policy_sha256"], row["motion"]), {})
        survived = by_base.setdefault(row["state"], {})
        delay = row["command_ms"] + row["sensor_ms"]
        survived[delay] = survived.get(delay, True) and row["survived"] == row["trials"]
    found = {}
    for policy, by_base in trials.items():
        borne = [
            (delay, base)
            for base, survived in by_base.items()
            for delay in survived
            if all(kept for other, kept in survived.items() if other <= delay)
        ]
        if borne:
            found[policy] = max(borne)
    return found


def told_of(
    entry: Entry, shipped: dict[str, tuple[int, str]],
    delays: dict[tuple[str, str], tuple[float, str]],
) -> Told:  # fmt: skip
    """What is told of a tracker by its row, by its description, or by `sim2sim` files."""
    row = entry.row
    digest = entry.file.policy_sha256(row["policy"]) or ""
    size, base = shipped.get(digest, (None, NOT_TOLD))
    borne = delays.get((digest, row["motion"]))
    return Told(
        row.get("observation_size", size), row.get("base_state", base),
        row.get("control_hz", 1 / CONTROL_DT),  # all had this rate before rows told it
        f"{borne[0]:g} ({borne[1]} base)" if borne else NOT_TOLD,
    )  # fmt: skip


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
        row, told = entry.row, entry.told
        steps, wall = row["train_env_steps"], row["train_wall_s"]
        table.add(
            row["motion"], row["protocol"], driven(entry), share(row["success"]),
            bounds(row["success_ci95"]),
            Cell(f"{row['survival_s']:.1f} of {row['clip_s']:.1f}",
                 row["survival_s"] / row["clip_s"]),
            figure(row["mpkpe_mm"], 1), figure(row["r_mpkpe_mm"], 1),
            figure(row["joint_pos_rad"], 4), figure(row["episodes"], 0),
            figure(told.size, 0, NOT_TOLD), told.base, figure(told.hz, 0), told.delay,
            figure(None if steps is None else steps / 1e6, 1, NOT_TOLD),
            figure(None if wall is None else wall / 60, 1, NOT_TOLD),
            Cell("video", link=entry.video) if entry.video else Cell("-"), origin(entry.file),
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
        "95 % interval", "by the head", "speed, m/s", ORIGIN,
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
            figure(row.get("mean_speed"), 2), origin(entry.file),
        )  # fmt: skip
    return table


def tour_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `tour` files, each condition together, the longest survival first."""
    table = Table("The tour", (
        "punches", "arms", "policy", "sees", "sampler", "survival, s", "95 % interval", "completed",
        "position error, cm", "heading error, rad", ORIGIN,
    ))  # fmt: skip
    hardest = ("published", "200", "100", "none")
    rows = entries(results, "tour")
    for entry in sorted(
        rows,
        key=lambda e: (hardest.index(e.row["punches"]), e.row["arms"] != "moved",
                       -e.row["survival_s"]),
    ):  # fmt: skip
        row = entry.row
        low, high = row["survival_ci95"][:2]
        position = row["position_error_m"]
        table.add(
            row["punches"], row["arms"], row["policy"], row["representation"],
            str(row["sampler"] or "-"), figure(row["survival_s"], 1),
            Cell(f"{low:.1f} to {high:.1f}", float(low)),
            Cell(f"{row['completed']} of {row['runs']}", row["completed_rate"]),
            figure(None if position is None else 100 * position, 0),
            figure(row["heading_error_rad"], 2), origin(entry.file),
        )  # fmt: skip
    return table


def gates_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `gates` files; of a gate that was examined again the newest.

    Those of another steering are left out.
    """
    verdict = {True: "passed", False: "FAILED", None: "measured"}
    table = Table("Gates of the diffusion model", (
        "policy", "gate", "about", "value", "unit", "threshold", "verdict", ORIGIN,
    ))  # fmt: skip
    kept, _ = newest_gates(results)
    for entry in kept:
        row = entry.row

        def six(value: float | None) -> Cell:
            return Cell("-") if value is None else Cell(f"{value:.4g}", float(value))

        table.add(
            str(entry.file.settings.get("policy", NOT_TOLD)), row["gate"],
            str(row.get("title", "")), six(row["value"]), str(row.get("unit", "")),
            six(row["threshold"]), verdict[row["passed"]], origin(entry.file),
        )  # fmt: skip
    return table


def newest_gates(
    results: Iterable[ResultFile],
) -> tuple[list[Entry], list[tuple[Entry, str]]]:
    """Rows of `gates` files that are shown, and those that are not, with the reason."""
    newest: dict[tuple[Any, str], Entry] = {}
    left: list[tuple[Entry, str]] = []
    for entry in entries(results, "gates"):
        if steered_as_before(entry.row):
            left.append((entry, "steered by factors of a gradient, as before 0.2"))
            continue
        key = entry.file.settings.get("policy"), entry.row["gate"]
        if key not in newest or _made(newest[key]) <= _made(entry):
            entry, newest[key] = newest.get(key), entry
        if entry is not None:
            left.append((entry, "examined again later"))
    return list(newest.values()), left


def _made(entry: Entry) -> datetime.datetime:
    return datetime.datetime.fromisoformat(entry.file.created)


def learning_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `learning` and `sweep` files."""
    table = Table("Training runs", (
        "trainer", "motion", "variant", "seed", "M samples", "minutes",
        "completed after, M samples", "after, minutes", "final success", ERROR_HEADS["r_mpkpe_mm"],
        ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "learning", "sweep"):
        row = entry.row
        trainer = str(row.get("algorithm", "ppo_track"))  # the only one there was
        variant = str(row.get("variant") or " ".join(map(str, row["flags"])) or "-")
        if "error" in row:
            table.add(trainer, row["motion"], variant, figure(row["seed"], 0), *["-"] * 4, "error",
                      "-", origin(entry.file))  # fmt: skip
            continue
        first = row["first_pass"] or {}
        steps, wall = first.get("env_steps"), first.get("wall_s")
        table.add(
            trainer, row["motion"], variant, figure(row["seed"], 0),
            figure(row["env_steps"] / 1e6, 2), figure(row["wall_s"] / 60, 1),
            figure(None if steps is None else steps / 1e6, 2),
            figure(None if wall is None else wall / 60, 1), share(row["clip"]["success"]),
            figure(row["clip"].get("r_mpkpe_mm"), 1), origin(entry.file),
        )  # fmt: skip
    return table


def throughput_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `throughput` files."""
    table = Table("Speed", (
        "what", "variant", "robots", "threads", "control steps/s", "to raw engine", ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "throughput"):
        row = entry.row
        table.add(
            row["what"], str(row.get("variant") or "-"), figure(row["num_envs"], 0),
            figure(row["threads"], 0), figure(row["control_steps_per_s"], 0, "error"),
            figure(row["ratio_to_raw"], 2), origin(entry.file),
        )  # fmt: skip
    return table


def reference_table(results: Iterable[ResultFile]) -> Table:
    """Rows of `reference` files."""
    table = Table("Reference motions against joints and floor", (
        "motion", "seconds", "flags", ORIGIN,
    ))  # fmt: skip
    for entry in entries(results, "reference"):
        row = entry.row
        table.add(row["motion"], figure(row["clip_s"], 1), ", ".join(map(str, row["flags"])) or "-",
                  origin(entry.file))  # fmt: skip
    return table


PAIR = 2  # trainers of whose runs pairs are made


def trainers_table(results: Iterable[ResultFile]) -> Table:
    """Trainers beside each other, over all motions that one file trained with each of them.

    Interquartile means and their intervals are over all seeds, drawn within each motion.
    """
    minutes = (2, 5, 15)
    table = Table("Trainers compared", (
        "trainer", "motions", "runs", "survived share, interquartile mean", "95 % interval",
        *(f"completed within {m} minutes" for m in minutes),
    ))  # fmt: skip
    runs: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for entry in entries(results, "learning"):
        row = entry.row
        if "error" not in row and "algorithm" in row and not row.get("against"):
            key = entry.file.name, row["motion"], row.get("variant"), row["seed"]
            runs.setdefault(key, {})[row["algorithm"]] = row
    pairs = {key: by for key, by in sorted(runs.items(), key=str) if len(by) == PAIR}
    names = sorted({name for by in pairs.values() for name in by})
    if len(names) != PAIR:
        return table

    def after(row: dict[str, Any]) -> float:
        """Minutes until the clip was completed for the first time; `inf` where it was not."""
        return row["first_pass"]["wall_s"] / 60 if row["first_pass"] else math.inf

    for name in names:
        tasks: dict[Any, list[dict[str, Any]]] = {}
        for (_, motion, variant, _), by in pairs.items():
            tasks.setdefault((motion, variant), []).append(by[name])
        scores = [np.array([row["clip"]["survival"] for row in rows]) for rows in tasks.values()]
        low, high = statistics.stratified_bootstrap(scores)
        # A profile counts scores above a threshold, and fewer minutes are better.
        faster = statistics.performance_profile(
            np.array([-after(by[name]) for by in pairs.values()]), [-m for m in minutes]
        )
        table.add(
            name, figure(len({motion for motion, _ in tasks}), 0), figure(len(pairs), 0),
            share(statistics.interquartile_mean(np.concatenate(scores))), bounds((low, high)),
            *map(share, faster),
        )  # fmt: skip
    one, other = names
    times = [(after(by[one]), after(by[other])) for by in pairs.values()]
    alone = [sum(a < b == math.inf for a, b in each) for each in (times, [t[::-1] for t in times])]
    both = np.array([math.log(a / b) for a, b in times if max(a, b) < math.inf])
    table.note = (
        "Pairs are two runs of one file with the same motion and seed. "
        f"Only {one} completed the clip in {alone[0]} of {len(pairs)} pairs, only {other} in "
        f"{alone[1]} (McNemar's exact test: p = {statistics.paired_shares_test(*alone):.2g})."
    )
    if len(both):
        table.note += (
            f" Where both did, {one} took {math.exp(both.mean()):.2f} times the minutes of {other}"
            f", a geometric mean over {len(both)} pairs (changes of sign: "
            f"p = {statistics.paired_test(both):.2g})."
        )
    return table


def left_out(results: Sequence[ResultFile], doubts: Doubts) -> Table:
    """What no table shows, with the reason."""
    table = Table("Left out", ("what", "rows", "reason", ORIGIN))
    for file in results:
        policies = dict.fromkeys(row.get("policy") for row in file.rows)
        for policy in policies:
            if findings := doubts.get((file.path, str(policy))):
                count = sum(row["policy"] == policy for row in file.rows)
                reason = "; ".join(findings)
                table.add(f"policy {policy}", figure(count, 0), reason, origin(file))
    gates: dict[tuple[str, str], tuple[ResultFile, int]] = {}
    for entry, reason in newest_gates(results)[1]:
        _, count = gates.get((entry.file.name, reason), (entry.file, 0))
        gates[entry.file.name, reason] = entry.file, count + 1
    for (_, reason), (file, count) in gates.items():
        table.add("gates", figure(count, 0), reason, origin(file))
    for file in results:
        if file.kind not in SHOWN:
            reason = f"files of the kind {file.kind} have no table here"
            if file.kind == "sim2sim":
                reason = "only the delays that a policy bears are shown"
            table.add(file.kind, figure(len(file.rows), 0), reason, origin(file))
    return table


def files_table(results: Iterable[ResultFile], out: Path) -> Table:
    """The files, with what made each; links are as seen from the folder `out`."""
    heads = ("file", "kind", "made", "seed", "machine", "commit", "command")
    table = Table("Result files", heads)
    for file in results:
        link = quote(Path(os.path.relpath(file.path, out)).as_posix())
        seed = "-" if file.seed is None else str(file.seed)
        table.add(
            Cell(file.name, link=link, name=file_id(file)), file.kind, file.created[:10], seed,
            file.machine_text, short(file.commit), Cell(file.command, code=True),
        )  # fmt: skip
    return table


def other_tables(results: Sequence[ResultFile]) -> list[Table]:
    """All tables but those of tracking, without empty ones."""
    makers = (
        guided_table, tour_table, gates_table, trainers_table, learning_table, throughput_table,
        reference_table,
    )  # fmt: skip
    return [table for maker in makers if (table := maker(results)).rows]


# --- Markdown -------------------------------------------------------------------------------------

WHERE = "Each row names its file; machine, commit and command of all are in the last table."
READING = "What the columns say"
ABOUT = (
    "Tracking: `clip` plays a motion once from first frame to last, without noise; `robust` is 100 "
    "episodes or more with noise, pushes and randomized robots. Errors are those of the frames "
    "before a failure: MPKPE of the tracked links as they are in the world, R-MPKPE once torsos "
    "are laid on each other, and joints. `benchmarks/track.py` and `benchmarks/guided.py` define "
    "every figure. Samples are control steps of training, over all robots, and like minutes of "
    "the last run alone: what a run went on from (`--start-from`; `docs/leaderboard.md` tells) is "
    "not in them. A policy observes so many numbers; the place and velocity of its base are as in "
    "the simulation (true), estimated from what a robot senses, or not observed (none). Its delay "
    "is the longest, of commands and sensors together, with which it survived every trial of "
    "`tools/sim2sim.py`. A commit with + had changes. What was not trained "
    "here, or where nobody told, says so; no row is estimated."
)


def markdown(
    results: Sequence[ResultFile], by_suite: dict[str, list[Entry]], out: Path, doubts: Doubts
) -> str:
    """LEADERBOARD.md: the tables. Results come first, and what is said about them after them."""
    intro = f"{summary(results)} {WHERE} Made by `benchmarks/leaderboard.py`."
    parts = ["# Leaderboard", intro]
    for suite, rows in by_suite.items():
        parts += markdown_table(track_table(f"Tracking: {suite}", rows, missing(suite, rows)))
    for table in (*other_tables(results), left_out(results, doubts)):
        if table.rows:
            parts += markdown_table(table)
    parts += [f"## {READING}", ABOUT, *markdown_table(files_table(results, out))]
    return "\n\n".join(parts) + "\n"


def summary(results: Sequence[ResultFile]) -> str:
    """How many files of which kind."""
    kinds = Counter(file.kind for file in results)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"From {len(results)} result file{'s' if len(results) > 1 else ''} ({counts})."


def markdown_table(table: Table) -> list[str]:
    """A heading, the table, and the note if there is one."""
    lines = ["| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
    lines += ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in table.rows]
    return [f"## {table.title}", "\n".join(lines), *([table.note] if table.note else [])]


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


def page(
    results: Sequence[ResultFile], by_suite: dict[str, list[Entry]], out: Path, doubts: Doubts
) -> str:
    """index.html: the tables, sortable, and a plot for each motion; in the order of the Markdown.

    Its tables fit a window of 1280 pixels, which is why a row does not hold its command.
    """
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
    tables = [*other_tables(results), left_out(results, doubts)]
    sections += [html_table(table) for table in tables if table.rows]
    about = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(ABOUT))
    sections += [f"<h2>{READING}</h2>\n<p>{about}</p>", html_table(files_table(results, out))]
    text = PAGE.read_text(encoding="utf-8")
    for mark, content in (
        ("SUMMARY", html.escape(f"{summary(results)} {WHERE}")),
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
    note = f"\n<p>{html.escape(table.note)}</p>" if table.note else ""
    return (
        f'<h2 id="{identity}">{html.escape(table.title)}</h2>\n'
        f'<p><input type="search" placeholder="show rows with ..." aria-label="filter"></p>\n'
        f'<div class="wide"><table class="sortable">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>{note}"
    )


def html_cell(cell: Cell) -> str:
    """A cell; commands get a button that copies them."""
    text = html.escape(cell.text)
    if cell.code:
        button = '<button type="button" class="copy">copy</button>'
        return f"<td>{button}<code>{text}</code></td>"
    if link := cell.link or (cell.about and "#" + quote(cell.about)):
        text = f'<a href="{html.escape(link)}">{text}</a>'
    if cell.key is None:
        named = f' id="{html.escape(cell.name)}"' if cell.name else ""
        return f"<td{named}>{text}</td>"
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


def run_again(
    file: ResultFile, row: dict[str, Any], policy: str, seed: int
) -> dict[str, dict[str, Any]]:
    """Rows by protocol that `benchmarks/track.py` gives for a row with another seed.

    With a row of `clip` comes one of `clip-perturbed`.

    Raises:
        ResultError: the command fails, or the motion or its length is another one.
    """
    protocols = [row["protocol"]] + ["clip-perturbed"] * (row["protocol"] == "clip")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "again.json"
        command = [
            sys.executable, str(ROOT / "benchmarks" / "track.py"), "--policy", policy,
            "--motion", row["motion"], "--protocol", *protocols, "--seed", str(seed),
            "--backend", row["backend"], "--feet", file.settings["feet"],
            "--lead", str(file.settings["lead"]), "--json", str(out),
        ]  # fmt: skip
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
        again = json.loads(out.read_text())
    check_motion(file, row, again)
    return {new["protocol"]: new for new in again["rows"]}


def place(file: ResultFile, row: dict[str, Any]) -> str:
    """Where a row stands, for a message."""
    return f"{file.path}: row {file.rows.index(row) + 1}:"


def check_motion(file: ResultFile, row: dict[str, Any], again: dict[str, Any]) -> None:
    """Refuse a row whose motion is another one here.

    Raises:
        ResultError: its SHA-256 or its length differs.
    """
    motion = row["motion"]
    published = file.settings["motion_sha256"][motion]
    actual = str(again["settings"]["motion_sha256"].get(motion))
    # The bytes of a motion that is computed tell nothing on another processor.
    if published != actual and not library.is_computed(motion):
        raise ResultError(
            f"{place(file, row)} the motion's SHA-256 is {published[:12]}..., but run again it is "
            f"{actual[:12]}... (the same)."
        )
    clip_s = again["rows"][0]["clip_s"]
    if abs(row["clip_s"] - clip_s) > 1e-6:
        raise ResultError(
            f"{place(file, row)} clip_s is {row['clip_s']}, but run again it is {clip_s} (the "
            "same)."
        )


def compare(file: ResultFile, row: dict[str, Any], again: dict[str, dict[str, Any]]) -> None:
    """Refuse a row that its second run does not bear out.

    Args:
        file: where the row is.
        row: of it.
        again: rows of the second run by protocol.

    Raises:
        ResultError: one sentence with the file, the row, the figure and the numbers.
    """
    protocol = row["protocol"]
    for name in ("observation_size", "base_state", "control_hz"):
        if name in row and row[name] != again[protocol][name]:
            raise ResultError(
                f"{place(file, row)} {name} is {row[name]}, but the policy's is "
                f"{again[protocol][name]}."
            )
    if protocol == "clip":
        refusals = [
            *repeated(row, again["clip"]), *stands_for_a_policy(row, again["clip-perturbed"]),
        ]  # fmt: skip
    else:
        refusals = list(resampled(row, again[protocol]))
    for name, value, found in refusals:
        raise ResultError(f"{place(file, row)} {name} is {value}, but {found}.")


def looked_at() -> dict[str, tuple[bool, str]]:
    """What maintainers found of policies, by SHA-256: whether they are ranked, and why.

    Raises:
        ConfigError: the file is not as it is described in the first lines of this one.
    """
    value = cli.read_json(LOOKED_AT, ConfigError)
    wanted = {"ranked": rules.truth(), "reason": rules.text()}
    for entry in value.values() if isinstance(value, dict) else [None]:
        fields = entry if isinstance(entry, dict) else {}
        if not all(rule.holds(fields.get(name)) for name, rule in wanted.items()):
            raise ConfigError(
                f"{LOOKED_AT}: holds {cli.shortened(json.dumps(entry), 60)}, expected "
                '{"ranked": true or false, "reason": text} by the SHA-256 of a policy.'
            )
    return {digest: (entry["ranked"], entry["reason"]) for digest, entry in value.items()}


def refused_by_maintainers(results: Iterable[ResultFile]) -> Doubts:
    """Policies that maintainers looked at and do not rank."""
    found: Doubts = {}
    verdicts = looked_at()
    for entry in entries(results, "track"):
        name = entry.row["policy"]
        ranked, reason = verdicts.get(entry.file.policy_sha256(name) or "", (True, ""))
        if not ranked:
            found[entry.file.path, name] = [reason]
    return found


Candidate = tuple[ResultFile, dict[str, Any], str]
"""A row whose policy is at hand, and the policy's reference."""


def doubts_of(candidates: Sequence[Candidate], seed: int) -> Doubts:
    """Why policies look like no controllers, or like others' under another name."""
    verdicts = looked_at()
    known = [(name, weights_of(path)) for name, path in shipped_files(TRACKER).items()]
    found: Doubts = {}
    done = set()
    for file, row, reference in candidates:
        name = row["policy"]
        if (file.path, name) in done:
            continue
        done.add((file.path, name))
        policy = load_policy(reference, config=config_of(file))
        if policy.sha256 in verdicts:
            continue
        try:
            clip = library.load_motion(row["motion"])
        except BMError as error:
            print(f"not examined: {file.path}: policy {name}: {error}", flush=True)
            continue
        findings = examine(policy, evaluation.observations(policy, clip, seed=seed))
        weights = weights_of(policy.path)
        same = {other: len(weights & theirs) for other, theirs in known if weights & theirs}
        if same and name not in same:
            other, count = max(same.items(), key=lambda item: item[1])
            layers = f"{count} of its {len(weights)} layers"
            findings.append(f"{layers} have the weights of the policy '{other}'")
        known.append((name, weights))
        if findings:
            found[file.path, name] = findings
    return found


def verify(results: Sequence[ResultFile], count: int, seed: int) -> tuple[str, Doubts]:
    """Run some rows again, and examine all policies at hand.

    Returns:
        What was done in one sentence, and why which policies are not ranked.

    Raises:
        ResultError: a row is not borne out by its second run.
    """
    candidates: list[Candidate] = []
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
    doubts = doubts_of(candidates, seed)
    for (path, policy), findings in doubts.items():
        print(f"not ranked: {path}: policy {policy}: {'; '.join(findings)}", flush=True)
    chosen = random.Random(seed).sample(candidates, min(count, len(candidates)))
    for file, row, policy in chosen:
        print(f"running again: {place(file, row)} {row['policy']}, {row['motion']}, "
              f"{row['protocol']}", flush=True)  # fmt: skip
        compare(file, row, run_again(file, row, policy, seed))
    return (
        f"{len(chosen)} of {total} tracking rows were run again and are borne out; the policies of "
        f"{total - len(candidates)} are not at hand."
    ), doubts


def main(config: Config) -> None:
    """Check, run again what is asked for, write."""
    for name in ("LEADERBOARD.md", "index.html"):
        if (config.out / name).is_dir():
            raise ConfigError(f"{config.out / name} is a folder, expected a file or nothing.")
    if config.out.exists() and not config.out.is_dir():
        raise ConfigError(f"{config.out} is no folder, expected one for --out.")
    results = read_results(config.results)
    print(summary(results))
    doubts = refused_by_maintainers(results)
    if config.verify:
        seed = secrets.randbelow(2**31) if config.seed is None else config.seed
        print(f"fresh seed {seed}" if config.seed is None else f"seed {seed} again", flush=True)
        said, found = verify(results, config.verify, seed)
        print(said)
        doubts = found | doubts
    by_suite = tracking(results, config.out, doubts)
    texts = {
        "LEADERBOARD.md": markdown(results, by_suite, config.out, doubts),
        "index.html": page(results, by_suite, config.out, doubts),
    }
    for name, text in texts.items():
        with cli.atomic_path(config.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"wrote {config.out / name}")


if __name__ == "__main__":
    cli.run(main, Config)
