"""The page on all of LAFAN1, made from `benchmarks/results` and from the policies that ship.

    python docs/lafan1_tables.py            # write tables and picture
    python docs/lafan1_tables.py --check    # exit status 1 where they are not those of the files

A row shows a policy only where the network that was measured is the one that ships: by its name,
and by the SHA-256 that its `policy.json` tells. What was measured several times is shown by its
newest file. A policy whose `policy.json` names several motions has tables of its own. A table
stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of `guided_tables.py` do.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from drawing import cross, log_share, svg, write_picture
from guided_tables import ABSENT, ROOT, write
from site_tables import completed

from bm_envs.cli import figure, markdown_table
from bm_envs.motion import suites
from bm_envs.policy import TRACKER, read_policy_json, shipped_files
from bm_envs.results import ERROR_HEADS, ResultFile, machine_text, read_results

RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "images" / "lafan1.svg"
SCRIPT = "docs/lafan1_tables.py"
TABLE1 = suites.motions("lafan1-table1")
OTHERS = tuple(name for name in suites.motions("lafan1-40") if name not in TABLE1)
NOT_MEASURED = "not measured"
SHARED = "#one-policy-for-many-clips"  # of the page
GOAL = 0.8  # share of `robust` episodes that a policy of a whole clip is to complete
Row = dict[str, Any]
MPKPE = [ERROR_HEADS[name] for name in ("mpkpe_mm", "r_mpkpe_mm")]
FURTHER = ("ee_pos_mm", "ee_ori_rad", "joint_pos_rad", "joint_vel_rad_s")  # of the errors

# Iterations until the whole motion completes, without adaptive sampling of starts and with it; a
# text is the reason why it does not within 30 000. Source: arXiv 2508.08241, Table II, LAFAN1.
PAPER = {
    "dance1_subject1": ("a cartwheel", 8000),
    "dance2_subject1": ("a spinning jump", 9000),
    "fightAndSports1_subject1": ("balance", 10000),
}
PAPER_SAMPLES = 4096 * 24  # of an iteration: robots and steps of whole_body_tracking


# --- what is there --------------------------------------------------------------------------------


@dataclass
class Measured:
    """A policy that ships, on one clip.

    Attributes:
        policy: its name.
        description: its `policy.json`.
        clip: the row of the protocol `clip`; None where it was not measured.
        robust: that of `robust`.
        trace: the error over the time of `clip`, see `benchmarks/track.py`.
    """

    policy: str
    description: Row
    clip: Row | None = None
    robust: Row | None = None
    trace: Row | None = None

    @property
    def training(self) -> Row:
        """What the description says of the training."""
        return self.description.get("training") or {}

    @property
    def rank(self) -> tuple[float, float, float]:
        """Better policies of a clip have higher ones: completed, then robust, then MPKPE."""
        clip, robust = self.clip or {}, self.robust or {}
        error = clip.get("mpkpe_mm")
        return (
            clip.get("success", -1.0), robust.get("success", -1.0),
            -math.inf if error is None else -error,
        )  # fmt: skip

    @property
    def is_complete(self) -> bool:
        """Whether it completes the clip."""
        return self.clip is not None and self.clip["success"] == 1

    @property
    def is_robust(self) -> bool:
        """Whether it completes `GOAL` of the `robust` episodes."""
        return self.robust is not None and self.robust["success"] >= GOAL

    def core_s(self, wall_s: float) -> float:
        """Core-seconds of so many seconds of its training."""
        # Descriptions of before 0.2 lack the threads; those runs had `--threads 1`.
        return wall_s * self.training.get("threads", 1)


@dataclass
class Board:
    """All that the page shows.

    Attributes:
        lengths: of clips, s, by their names.
        best: the best policy of a clip alone, by the clip's name.
        shared: policies of many clips by their names, each by clips.
    """

    lengths: dict[str, float] = field(default_factory=dict)
    best: dict[str, Measured] = field(default_factory=dict)
    shared: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def of(self, names: Iterable[str]) -> list[Measured]:
        """The best policies of these clips, where there are some."""
        return [self.best[name] for name in names if name in self.best]


def comparable(file: ResultFile) -> bool:
    """Whether a file's rows are the protocols as they stand, in the default engine."""
    settings = file.settings
    usual = (settings["feet"], settings["lead"], settings["failure_rules"])
    return usual == ("spheres", 1, "on")


def read(results: Path, policies: Mapping[str, Path]) -> Board:
    """What result files say of policies that ship.

    Args:
        results: folder with result files; it may be empty.
        policies: ONNX files by the policies' names, each with its `policy.json` beside it.

    Raises:
        ResultError: a result file is refused.
        PolicyError: a `policy.json` is.
    """
    board = Board()
    files = read_results(results) if any(results.rglob("*.json")) else []
    measured: dict[tuple[str, str], Measured] = {}
    descriptions: dict[str, Row] = {}
    for file in sorted(files, key=lambda file: file.created):
        if file.kind == "reference":
            board.lengths |= {row["motion"]: row["clip_s"] for row in file.rows}
        if file.kind != "track" or not comparable(file):
            continue
        for row in file.rows:
            name, motion = row["policy"], row["motion"]
            whole = suites.suite_of(motion) == "lafan1-40"
            if not whole or name not in policies or row["backend"] != "mujoco":
                continue
            if name not in descriptions:
                descriptions[name] = read_policy_json(policies[name].with_suffix(".json"))
            network = descriptions[name].get("network") or {}
            if network.get("sha256") != file.policy_sha256(name):
                continue
            board.lengths[motion] = row["clip_s"]
            one = measured.setdefault((name, motion), Measured(name, descriptions[name]))
            if row["protocol"] == "robust":
                one.robust = row
            elif row["protocol"] == "clip":
                one.clip, one.trace = row, trace_of(file, name, motion)
    for (name, motion), one in measured.items():
        if len(one.description.get("motions") or []) > 1:
            board.shared.setdefault(name, {})[motion] = one
        elif motion not in board.best or one.rank > board.best[motion].rank:
            board.best[motion] = one
    return board


def trace_of(file: ResultFile, policy: str, motion: str) -> Row | None:
    """The trace of a policy on a motion, if the file has one."""
    for trace in file.traces:
        if trace["policy"] == policy and trace["motion"] == motion:
            return trace
    return None


# --- what cells say -------------------------------------------------------------------------------


def per_cent(share: float | None, digits: int) -> str:
    """A share in per cent."""
    return figure(None if share is None else 100 * share, digits)


def filled_columns(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which no line has anything."""
    shown = [i for i in range(len(heads)) if any(line[i] != ABSENT for line in lines)]
    return markdown_table([heads[i] for i in shown], [[line[i] for i in shown] for line in lines])


def with_reference(row: Row, name: str, digits: int) -> str:
    """A figure of motion quality, the reference's own in brackets where it has one."""
    reference = row.get(f"ref_{name}")
    beside = "" if reference is None else f" ({figure(reference, digits)})"
    return figure(row.get(name), digits) + beside


def how_far(row: Row) -> str:
    """Whether a clip is completed, and if not, when it fails."""
    return "yes" if row["success"] == 1 else f"fails at {row['survival_s']:.1f} s"


def began(one: Measured) -> str:
    """What a run went on from, for a cell; nothing where it began anew."""
    name = one.training.get("start_from")
    return f", after `{name}`" if name else ""


def minutes(one: Measured) -> str:
    """Core-minutes of a policy's training."""
    wall = one.training.get("wall_s")
    return ABSENT if wall is None else f"{one.core_s(wall) / 60:.0f}{began(one)}"


# --- tables ---------------------------------------------------------------------------------------


def standing(board: Board) -> str:
    """What has been reached, counted."""

    def count(names: Sequence[str]) -> tuple[int, int]:
        done = [one for one in board.of(names) if one.is_complete]
        return len(done), sum(one.is_robust for one in done)

    (complete, robust), (more, more_robust) = count(TABLE1), count(OTHERS)
    everything = len(TABLE1) + len(OTHERS)
    known = {name for name, one in board.best.items() if one.clip is not None}
    unknown = everything - len(known)
    elsewhere = len({name for by_clip in board.shared.values() for name in by_clip} - known)
    return (
        f"Policies that ship, each for one clip, complete **{complete} of the {len(TABLE1)}** "
        f"whole clips of the paper's Table I, and **{robust} of the {len(TABLE1)}** robustly: "
        f"{100 * GOAL:.0f} or more of 100 `robust` episodes. Of the other {len(OTHERS)} clips "
        f"they complete {more}, and {more_robust} robustly. "
        + (f"{unknown} of the {everything} have no measured policy of their own"
           + (f"; {elsewhere} of these are measured with [one policy for many]({SHARED})"
              if elsewhere else "") + "."
           if unknown else f"All {everything} clips are measured.")
    )  # fmt: skip


def clips(names: Sequence[str], board: Board) -> str:
    """A row a clip."""
    heads = [
        "clip", "s", "completed", "`robust` (95 % interval)", *MPKPE,
        "slip, m/s (reference)", "impact, body weights", "action rate", "chatter, %",
        "core-minutes", "policy",
    ]  # fmt: skip
    lines = []
    for name in names:
        one = board.best.get(name)
        line = [f"`{name}`", figure(board.lengths.get(name), 1)]
        clip = one and one.clip
        if one is None or clip is None:
            many = any(name in by_clip for by_clip in board.shared.values())
            told = f"only [with others]({SHARED})" if many else NOT_MEASURED
            line += [told, *[ABSENT] * (len(heads) - 3)]
        else:
            line += [
                how_far(clip), NOT_MEASURED if one.robust is None else completed(one.robust),
                figure(clip["mpkpe_mm"], 0), figure(clip["r_mpkpe_mm"], 0),
                with_reference(clip, "slip_p95_m_s", 2), figure(clip.get("impact_p95_bw"), 1),
                figure(clip.get("action_rate"), 2), per_cent(clip.get("chatter_share"), 1),
                minutes(one), f"`{one.policy}`",
            ]  # fmt: skip
        lines.append(line)
    return filled_columns(heads, lines)


def quality(board: Board) -> str:
    """Further figures of the clips that were measured with them."""
    heads = [
        "clip", "changes of contact, 1/s (reference)", "joint acceleration, rad/s² (reference)",
        "torque over limit, %", *(ERROR_HEADS[name] for name in FURTHER),
        *(f"`robust`: {head}" for head in MPKPE),
    ]  # fmt: skip
    lines = []
    for name in (*TABLE1, *OTHERS):
        one = board.best.get(name)
        if one is None or one.clip is None:
            continue
        clip, robust = one.clip, one.robust or {}
        lines.append([
            f"`{name}`", with_reference(clip, "contact_toggles_s", 1),
            with_reference(clip, "joint_acc_rad_s2", 1),
            per_cent(clip.get("torque_over_share"), 2), figure(clip["ee_pos_mm"], 0),
            figure(clip["ee_ori_rad"], 2), figure(clip["joint_pos_rad"], 3),
            figure(clip["joint_vel_rad_s"], 2), figure(robust.get("mpkpe_mm"), 0),
            figure(robust.get("r_mpkpe_mm"), 0),
        ])  # fmt: skip
    return filled_columns(heads, lines) if lines else "No clip is measured yet."


def shared(board: Board) -> str:
    """Policies of many clips: a row each, then a table each."""
    if not board.shared:
        return "No such policy is measured yet."
    heads = [
        "policy", "trained on", "measured on", "completed", "failed", "`robust`",
        "normalized return", "core-minutes",
    ]  # fmt: skip
    lines, parts = [], []
    for name, by_clip in sorted(board.shared.items()):
        one = next(iter(by_clip.values()))
        rows = {m: by_clip[m].clip for m in suites.motions("lafan1-40") if m in by_clip}
        known = {motion: row for motion, row in rows.items() if row is not None}
        done = sum(row["success"] == 1 for row in known.values())
        noisy = [m.robust for m in by_clip.values() if m.robust is not None]
        episodes = sum(row["episodes"] for row in noisy)
        kept = sum(round(row["success"] * row["episodes"]) for row in noisy)
        returns = [row["normalized_return"] for row in known.values()]
        lines.append([
            f"`{name}`", f"{len(one.description['motions'])} clips", f"{len(known)}", str(done),
            str(len(known) - done), f"{kept} of {episodes}" if noisy else NOT_MEASURED,
            figure(sum(returns) / len(returns), 2) if returns else ABSENT, minutes(one),
        ])  # fmt: skip
        parts += [f"`{name}`, clip by clip:", markdown_table(
            ["clip", "s", "completed", *MPKPE, "normalized return"],
            [
                [f"`{motion}`", figure(row["clip_s"], 1), how_far(row), figure(row["mpkpe_mm"], 0),
                 figure(row["r_mpkpe_mm"], 0), figure(row["normalized_return"], 2)]
                for motion, row in known.items()
            ],
        )]  # fmt: skip
    return "\n\n".join([markdown_table(heads, lines), *parts])


def table2(board: Board) -> str:
    """The paper's iterations until a clip is completed, and this project's steps."""
    heads = [
        "clip", "paper, uniform starts", "paper, adaptive starts: iterations",
        "the same, million samples", "here: million control steps", "here: core-minutes",
    ]  # fmt: skip
    lines = []
    for name, (reason, iterations) in PAPER.items():
        line = [
            f"`{name}`", f"not in 30 000 iterations ({reason})", str(iterations),
            f"{iterations * PAPER_SAMPLES / 1e6:.0f}",
        ]  # fmt: skip
        one = board.best.get(name)
        training = one.training if one is not None else {}
        if one is None or "env_steps" not in training:
            line += [NOT_MEASURED, NOT_MEASURED]
        else:
            first = training.get("first_pass")
            after, prefix = first or training, "" if first else "not in "
            line += [
                f"{prefix}{after['env_steps'] / 1e6:.2f}{began(one)}",
                f"{prefix}{one.core_s(after['wall_s']) / 60:.1f}",
            ]
        lines.append(line)
    return markdown_table(heads, lines)


def cost(board: Board) -> str:
    """Core-hours of all policies on the page, and on what machines."""
    groups = {
        "the paper's 28 clips": board.of(TABLE1),
        f"the other {len(OTHERS)}": board.of(OTHERS),
        "one policy for many clips": [
            next(iter(by_clip.values())) for by_clip in board.shared.values()
        ],
    }
    groups = {
        name: [one for one in found if "wall_s" in one.training] for name, found in groups.items()
    }
    groups["together"] = [one for found in groups.values() for one in found]
    lines = [
        [
            name, str(len(found)), f"{sum(one.training['env_steps'] for one in found) / 1e6:.1f}",
            f"{sum(one.core_s(one.training['wall_s']) for one in found) / 3600:.1f}",
        ]
        for name, found in groups.items()
    ]  # fmt: skip
    parts = [markdown_table(["", "policies", "million control steps", "core-hours"], lines)]
    everything = groups["together"]
    machines = Counter(
        machine_text(one.training["machine"]) for one in everything if "machine" in one.training
    )
    if machines:
        told = "; ".join(f"{name} ({count})" for name, count in machines.most_common())
        parts.append(f"Machines, and how many policies each has trained: {told}.")
    if later := [f"`{one.policy}`" for one in everything if one.training.get("start_from")]:
        parts.append(
            f"Not in these sums: what a run went on from (`--start-from`), of {', '.join(later)}."
        )
    return "\n\n".join(parts)


# --- picture --------------------------------------------------------------------------------------

COLUMNS, CELL_W, CELL_H = 4, 248, 104
LEFT, RIGHT, TOP, BOTTOM, HEADING, MARGIN = 30, 10, 20, 18, 30, 8
LOW, HIGH = 10.0, 1000.0  # mm
SECONDS = 280.0  # no clip is longer
GREY, LINE, FAILED = "#767676", "#1f5fa8", "#c1121f"


def x_of(seconds: float) -> float:
    """Where a time stands in a cell."""
    return LEFT + (CELL_W - LEFT - RIGHT) * min(seconds, SECONDS) / SECONDS


def y_of(error_mm: float) -> float:
    """Where an error stands in a cell; what is beyond the axis stands at its end."""
    level = log_share(min(max(error_mm, LOW), HIGH), LOW, HIGH)
    return TOP + (CELL_H - TOP - BOTTOM) * (1 - level)


def picture(board: Board) -> str:
    """Error over time, a cell a clip, as SVG text."""
    groups = (("The paper's Table I", TABLE1), (f"The other {len(OTHERS)} clips", OTHERS))
    parts, top = [], float(MARGIN)
    for heading, names in groups:
        parts.append(
            f'<text x="{MARGIN}" y="{top + 18:.0f}" font-size="15">{heading}: MPKPE in mm, '
            "over seconds</text>"
        )
        top += HEADING
        for i, name in enumerate(names):
            x, y = MARGIN + i % COLUMNS * CELL_W, top + i // COLUMNS * CELL_H
            parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{cell(name, board)}</g>')
        top += -(-len(names) // COLUMNS) * CELL_H
    width, height = 2 * MARGIN + COLUMNS * CELL_W, top + MARGIN
    title = "MPKPE (mm) over time (s), a cell a clip; a cross where it fails"
    return svg((width, height), title, parts, 'font-family="sans-serif"')


def cell(name: str, board: Board) -> str:
    """One clip: axes, its name, how it ended, and the error."""
    one = board.best.get(name)
    clip, trace = (one.clip, one.trace) if one is not None else (None, None)
    status = NOT_MEASURED
    if clip is not None:
        status = "completed" if clip["success"] == 1 else how_far(clip)
    failed = clip is not None and clip["success"] < 1
    foot = CELL_H - BOTTOM
    parts = [
        f"<title>{escape(f'{name}: {status}')}</title>"
        f'<text x="{LEFT}" y="13" font-size="10">{escape(name)}</text>'
        f'<text x="{CELL_W - RIGHT}" y="13" font-size="10" text-anchor="end" '
        f'fill="{FAILED if failed else GREY}">{escape(status)}</text>'
    ]
    for error in (10, 100, 1000):
        y = y_of(error)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{CELL_W - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 3}" y="{y + 3:.1f}" font-size="8" text-anchor="end" '
            f'fill="{GREY}">{error}</text>'
        )
    for seconds in (0, 100, 200):
        parts.append(
            f'<text x="{x_of(seconds):.1f}" y="{foot + 10}" font-size="8" text-anchor="middle" '
            f'fill="{GREY}">{seconds}</text>'
        )
    if (length := board.lengths.get(name)) is not None:
        parts.append(
            f'<path d="M{x_of(length):.1f} {TOP}V{foot}" stroke="{GREY}" stroke-dasharray="2 2"/>'
        )
    if trace is not None and trace["mpkpe_mm"]:
        errors, every = trace["mpkpe_mm"], trace["every_s"]
        points = " ".join(
            f"{x_of((i + 0.5) * every):.1f},{y_of(error):.1f}" for i, error in enumerate(errors)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{LINE}"/>')
        if trace["failed_s"] is not None:
            parts.append(cross(x_of(trace["failed_s"]), y_of(errors[-1]), FAILED))
    return "".join(parts)


# --- page -----------------------------------------------------------------------------------------


@functools.cache
def board_here() -> Board:
    """What the repository's files say."""
    return read(RESULTS, shipped_files(TRACKER))


def of_here(make: Callable[[Board], str]) -> Callable[[], str]:
    """What makes a table from the repository's files."""
    return lambda: make(board_here())


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/lafan1.md": {
        "standing": of_here(standing),
        "clips": of_here(functools.partial(clips, TABLE1)),
        "others": of_here(functools.partial(clips, OTHERS)),
        "quality": of_here(quality),
        "shared": of_here(shared),
        "table2": of_here(table2),
        "cost": of_here(cost),
    }
}


def main(arguments: Sequence[str]) -> int:
    """Write tables and picture, or compare them."""
    status = write(arguments, PAGES, SCRIPT)
    return max(status, write_picture(arguments, PICTURE, picture(board_here()), SCRIPT, ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
