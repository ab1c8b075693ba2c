"""The page of results, the README's table and plot, and tables of speed, from `benchmarks/results`.

    python docs/results_tables.py            # write tables and plot
    python docs/results_tables.py --check    # exit status 1 where they are not those of the files

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do. Sentences with figures are made here, too.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import guided_tables
import lafan1_tables
import learning_tables
import numpy as np
from drawing import cross, log_share, svg, write_picture
from guided_tables import ABSENT, MODELS, write
from learning_tables import median
from site_tables import completed

from bm_envs.cli import markdown_table
from bm_envs.evaluation import ROBUST
from bm_envs.motion import suites
from bm_envs.results import ERROR_HEADS, MAIN_HEADS, machine_text, successes_by_rule
from bm_envs.statistics import wilson

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "images" / "time_to_track.svg"
SCRIPT = "docs/results_tables.py"
PPO, WORLD_MODEL = "`ppo_track.py`", "`wm_track.py`"
JOINTS = ERROR_HEADS["joint_pos_rad"]
Row = dict[str, Any]

# Policies of others: what they are, their result file, and the joint error of a plain loop of
# MuJoCo, rad. Source of the last: the measurements that come with the policies, which
# tests/policy/test_oracle_policies.py and tests/benchmarks/test_track_benchmark.py hold.
OTHERS = (
    ("jumping jacks (whole_body_tracking, trained in Isaac Lab)", "oracle_jump", 0.0648),
    ("LAFAN1 `dance1_subject2` (Unitree, trained in mjlab)", "oracle_dance", 0.0969),
)
# Sets of shipped trackers and their result files.
SHIPPED = (
    ("the built-in `walk`", "walk"),
    ("the eight built-in clips", "builtin"),
    ("eight ten-second cuts of LAFAN1", "lafan1_cuts"),
    ("LAFAN1 `walk4_subject1`, whole", "lafan1_walk4_subject1"),
    ("LAFAN1 `dance1_subject1`, whole", "lafan1_dance1_subject1"),
    ("eleven whole walks of LAFAN1, one policy", "lafan1_walks"),
)
TWO_CORES = ("two_cores",)


@dataclass(frozen=True)
class Comparison:
    """A line of the comparison of both trainers."""

    motion: str
    """As the files name it."""
    files: tuple[str, ...]
    key: str = "first_pass"
    """Until when it counts, a key of the files' rows."""

    @property
    def label(self) -> str:
        """For a table."""
        text = "the eight built-in clips" if self.motion == "builtin" else f"`{self.motion}`"
        return text + f", until {100 * ROBUST:.0f} of 100 `robust`" * (self.key != "first_pass")


COMPARED = (
    Comparison("walk", ("trainers",)),
    Comparison("builtin", ("trainers_builtin",)),
    Comparison("dance1[0:10]", ("trainers",)),
    Comparison("walk1[5:15]", ("trainers",)),
    Comparison("walk3[60:70]", ("trainers_walk3",)),
    Comparison("jumps1[24:34]", ("trainers_jumps1",)),
    Comparison("run1[20:30]", ("trainers_run1",)),
    Comparison("fight1[60:70]", ("trainers_fight1",)),
    Comparison(
        "fallAndGetUp1[10:20]",
        ("trainers_fallAndGetUp1", "trainers_fallAndGetUp1_wm", "trainers_fallAndGetUp1_ppo"),
    ),
    Comparison("sprint1[20:30]", ("trainers_sprint1",)),
    Comparison("walk", ("trainers_robust",), "first_robust"),
)


# --- files ----------------------------------------------------------------------------------------


@functools.cache
def read(name: str) -> Row:
    """A result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def by_protocol(name: str) -> dict[str, list[Row]]:
    """Rows of a `track` file."""
    rows: dict[str, list[Row]] = {}
    for row in read(name)["rows"]:
        rows.setdefault(row["protocol"], []).append(row)
    return rows


def made_by(names: Iterable[str]) -> str:
    """The files behind a table and their commands, folded; a command begins in the root."""
    lines = []
    for name in dict.fromkeys(names):
        file = read(name)
        lines += [
            f"benchmarks/results/{name}.json, commit {file['commit'][:7]}",
            f"    {escape(file['command'], False)}",
        ]
    count = len(lines) // 2
    title = "The result file and its command" if count == 1 else f"{count} result files"
    return "\n".join([
        f"<details><summary>{title}{' and their commands' * (count > 1)}</summary><pre>",
        *lines, "</pre></details>",
    ])  # fmt: skip


def of_files(text: str, names: Iterable[str]) -> str:
    """A table with the files behind it."""
    return f"{text}\n\n{made_by(names)}"


# --- figures --------------------------------------------------------------------------------------


def span(values: Iterable[float], digits: int = 0) -> str:
    """The lowest and the highest, once where they are one."""
    low, high = (f"{value:.{digits}f}" for value in np.sort(np.array(list(values)))[[0, -1]])
    return low if low == high else f"{low} to {high}"


def times(runs: Sequence[Row], key: str) -> list[float | None]:
    """Minutes until each run reached `key`; None: it did not."""
    return [run[key]["wall_s"] / 60 if run[key] else None for run in runs]


def reached(runs: Sequence[Row], key: str) -> str:
    """Median minutes until runs reached `key`, or how many did."""
    found = [value for value in times(runs, key) if value is not None]
    some = f"{len(found)} of {len(runs)}"
    if not found:
        return f"none in {span((run['wall_s'] / 60 for run in runs), 1)}"
    if (middle := median(runs, key)) == math.inf:
        return f"{some}: {span(found, 1)}"
    return f"{middle / 60:.1f}" + f" ({some})" * (len(found) < len(runs))


def runs_of(line: Comparison) -> tuple[list[Row], list[Row]]:
    """Runs of PPO and of the world model."""
    found = learning_tables.rows_of(line.files)
    return found[line.motion, PPO], found[line.motion, WORLD_MODEL]


def steps_ratio(line: Comparison) -> float | None:
    """How many times more steps PPO takes, by the medians."""
    ppo, model = (median(runs, line.key, "env_steps") for runs in runs_of(line))
    return ppo / model if max(ppo, model) < math.inf else None


def of_robust(rows: Sequence[Row]) -> str:
    """Completed episodes of 100 each: with the interval of one row, or from the worst to the best.

    `robust` rows have 100 episodes each.
    """
    if len(rows) == 1:
        return completed(rows[0])
    return f"{span(100 * row['success'] for row in rows)} of 100"


def of_clips(name: str) -> str:
    """Completed clips of those that a policy was measured on."""
    clip = by_protocol(name)["clip"]
    return f"{sum(row['success'] == 1 for row in clip)} of {len(clip)}"


def successes(task: str, model: str) -> str:
    """Successes of a model in a guided task with the interval."""
    row = guided_tables.row_of(f"guided_{task}_{model}")
    assert row is not None, f"no row of {task} with {model}"
    count = successes_by_rule(row)[0]
    assert count is not None
    low, high = (f"{100 * value:.0f}" for value in wilson(count, row["trials"]))
    return f"{count} of {row['trials']} ({low} to {high} %)"


# --- tables ---------------------------------------------------------------------------------------


def conclusions() -> str:
    """What the page says, in sentences."""
    two = learning_tables.rows_of(TWO_CORES)
    minutes = {motion: median(runs, "first_pass") / 60 for (motion, _), runs in two.items()}
    pairs = [(line, *runs_of(line)) for line in COMPARED if line.key == "first_pass"]
    faster = [median(model, line.key) < median(ppo, line.key) for line, ppo, model in pairs]
    seldom = " ".join(
        f"Of {line.label} it completes {reached(model, line.key).partition(':')[0]} runs."
        for line, _, model in pairs if median(model, line.key) == math.inf
    )  # fmt: skip
    ratios = [ratio for line in COMPARED if (ratio := steps_ratio(line)) is not None]
    board = lafan1_tables.board_here()
    whole = [one for one in board.best.values() if one.is_complete]
    kept = measured()["env", "", 512]["ratio_to_raw"]
    walks = by_protocol("lafan1_walks")["clip"]
    done = [f"`{row['motion']}`" for row in walks if row["success"] == 1]
    noisy = [f"{text} {of_robust(rows)}" + " each" * (len(rows) > 1)
             for text, name in SHIPPED if (rows := robust_of(name))]  # fmt: skip
    return "\n".join([
        f"- **A tracker trains in minutes on two cores.** The built-in walk is completed for the "
        f"first time after {minutes['walk']:.1f} minutes in the median, ten seconds of LAFAN1 "
        f"after {span((m for name, m in minutes.items() if name != 'walk'), 1)}. A robust policy "
        "takes longer.",
        f"- **A learned world model saves time.** `wm_track.py` completes {sum(faster)} of "
        f"{len(pairs)} motions sooner than `ppo_track.py`, by medians of three seeds, with "
        f"{span(ratios)} times fewer control steps where both do. {seldom}",
        "- **How robust a tracker is depends on its motion.** Episodes completed with noise and "
        f"pushes: {'; '.join(noisy)}.",
        f"- **Few whole clips of LAFAN1 have a policy yet.** {len(board.best)} of "
        f"{len(suites.motions('lafan1-40'))} have one of their own, which completes {len(whole)} "
        f"of them. One policy for {len(walks)} walks completes {len(done)}: {', '.join(done)}.",
        "- **Policies of others run unmodified**, with the joint error that they have elsewhere.",
        "- **A guided model takes tasks at run time, without a reference.** Body-Pos: "
        f"joystick {successes('joystick', 'body_pos')}, a place behind posts "
        f"{successes('obstacle', 'body_pos')}, a minute of all tasks with pushes "
        f"{successes('composition', 'body_pos')}. It learned from computed walks, not from "
        "people's motion.",
        f"- **The environment keeps {100 * kept:.0f} % of the engine's speed** with "
        "512 robots on two cores.",
        "",
        "Nothing here was measured on a robot, and nothing on a GPU.",
    ])  # fmt: skip


def robust_of(name: str) -> list[Row]:
    """The `robust` rows of a file."""
    return by_protocol(name).get("robust", [])


def front() -> str:
    """The README's table."""
    two = learning_tables.rows_of(TWO_CORES)
    walk = median(two["walk", PPO], "first_pass") / 60
    lines = [
        ["minutes until `ppo` first completes the built-in walk (not yet robust), two cores",
         f"{walk:.1f}"],
        *([f"`robust`: {text}", of_robust(robust_of(name))]
          for text, name in SHIPPED if robust_of(name)),
        *([f"completed: {text}", of_clips(name)]
          for text, name in SHIPPED if not robust_of(name)),
        *([f"guided model: {text}", successes(task, "body_pos")] for task, text in
          (("joystick", "joystick"), ("obstacle", "a place behind posts"),
           ("composition", "a minute of all tasks, pushed"))),
    ]  # fmt: skip
    return markdown_table(["what", "result"], lines)


def others() -> str:
    """Policies that were trained by others in other simulators."""
    lines = []
    for text, name, elsewhere in OTHERS:
        (row,) = by_protocol(name)["clip"]
        robust = robust_of(name)
        lines.append([
            text, f"{row['survival_s']:.2f} of {row['clip_s']:.2f}",
            f"{row['joint_pos_rad']:.4f}", f"{elsewhere}", f"{row['mpkpe_mm']:.0f}",
            f"{row['r_mpkpe_mm']:.0f}", of_robust(robust) if robust else ABSENT,
        ])  # fmt: skip
    mpkpe, r_mpkpe, _ = MAIN_HEADS
    heads = ["policy", "survived, s", f"{JOINTS}, here", "elsewhere", mpkpe, r_mpkpe, "robust"]
    return of_files(markdown_table(heads, lines), (name for _, name, _ in OTHERS))


def shipped() -> str:
    """Trackers that ship, a line a set."""
    lines = []
    for text, name in SHIPPED:
        clip, robust = by_protocol(name)["clip"], robust_of(name)
        lines.append([
            text, of_clips(name), of_robust(robust) if robust else ABSENT,
            *(span(row[key] for row in clip) for key in ("mpkpe_mm", "r_mpkpe_mm")),
            span((row["joint_pos_rad"] for row in clip), 3),
            span((row["train_env_steps"] / 1e6 for row in clip), 1),
            span(row["train_wall_s"] / 60 for row in clip),
        ])  # fmt: skip
    heads = [
        "motions", "clips completed", "robust", *MAIN_HEADS, "million steps", "minutes",
    ]  # fmt: skip
    return of_files(markdown_table(heads, lines), (name for _, name in SHIPPED))


def two_cores() -> str:
    """The time to the first completed clip with the defaults."""
    heads = ["`--motion`", "million steps", "minutes", "median", *lafan1_tables.MPKPE]
    lines = []
    for (motion, _), runs in learning_tables.rows_of(TWO_CORES).items():
        figures = learning_tables.reached(runs, "first_pass", 1e6, 1)
        lines.append([f"`{motion}`", *figures, *learning_tables.errors(runs, "first_pass")])
    return of_files(markdown_table(heads, lines), TWO_CORES)


def first_command() -> str:
    """What the README's first command makes."""
    files = ("walk_first_learning", "walk_first")
    (run,) = read(files[0])["rows"]
    first, (robust,) = run["first_pass"], robust_of(files[1])
    text = (
        f"With nothing else to do, two cores take {run['wall_s'] / 60:.1f} minutes for the "
        f"README's first command. The clip is completed for the first time after "
        f"{first['wall_s'] / 60:.1f} minutes, {first['env_steps'] / 1e6:.1f} million steps. The "
        f"policy at the end completes {completed(robust)} `robust` episodes: a robust one takes "
        "[more training](training.md#a-robust-policy)."
    )
    return of_files(text, files)


def compared() -> str:
    """Both trainers, a line a motion."""
    lines = []
    for line in COMPARED:
        runs = runs_of(line)
        machines = sorted({machine_text(run["machine"]) for found in runs for run in found})
        ratio = steps_ratio(line)
        lines.append([
            line.label, "; ".join(machines), *(reached(found, line.key) for found in runs),
            ABSENT if ratio is None else f"{ratio:.0f}",
            ", ".join(f"`{name}`" for name in line.files),
        ])  # fmt: skip
    heads = ["motion", "machine", "PPO, minutes", "world model, minutes",
             "control steps, PPO to world model", "result files"]  # fmt: skip
    files = (name for line in COMPARED for name in line.files)
    return of_files(markdown_table(heads, lines), files)


def guided() -> str:
    """The tasks without a reference."""
    tasks = [f"guided_{task.name}_{model}" for task in guided_tables.TASKS for model in MODELS]
    gates = [f"gates_guided_{model}" for model in MODELS]
    return of_files(guided_tables.short(), [*gates, *tasks])


# What the pages show of a file of `benchmarks/throughput.py`: a row's `what`, `variant` and number
# of robots. The page on speed has before each the engine that it is compared with.
Measured = tuple[str, str, int]
SPEED_HEADS = ["what", "robots", "control steps/s", "to the engine"]
SPEEDS = {
    ("env", ""): "the environment", ("ppo", "default"): "the whole training loop",
    ("rollout_with_policy", ""): "the environment and a network (512-256-128)",
    ("single_env", ""): "one robot, one thread",
    ("ppo", "5 ms physics"): "the whole training loop, 5 ms physics",
    ("raw_engine", ""): "engine", ("raw_loop", ""): "engine, one thread",
    ("raw_engine_ppo", "default"): "engine, 10 ms physics",
    ("raw_engine_ppo", "5 ms physics"): "engine, 5 ms physics",
}  # fmt: skip
SHORT: tuple[Measured, ...] = (
    ("env", "", 512), ("rollout_with_policy", "", 512), ("single_env", "", 1),
    ("ppo", "default", 256),
)  # fmt: skip
SHOWN: tuple[Measured, ...] = (
    *SHORT[:2], ("env", "", 1024), *SHORT[2:], ("ppo", "5 ms physics", 256),
)  # fmt: skip


def measured() -> dict[Measured, Row]:
    """Rows of the file on speed, without those of other environments."""
    rows = read("throughput")["rows"]
    return {
        (row["what"], row["variant"], row["num_envs"]): row for row in rows if row["what"] != "peer"
    }


def speed_line(key: Measured, spread: str = "") -> list[str]:
    """A line of either table."""
    row = measured()[key]
    return [
        SPEEDS[key[:2]], f"{row['num_envs']:,}", f"{row['control_steps_per_s']:,.0f}{spread}",
        f"{row['ratio_to_raw']:.2f}",
    ]  # fmt: skip


def speed() -> str:
    """The short table: against the bare engine."""
    return of_files(markdown_table(SPEED_HEADS, map(speed_line, SHORT)), ["throughput"])


def engine() -> str:
    """The environment and the training beside the engine, with the repetitions' spread."""
    rows = measured()
    wanted = [[(rows[key]["raw"], *key[1:]), key] for key in SHOWN]
    lines = []
    for key in dict.fromkeys(key for pair in wanted for key in pair):
        low, high = (f"{rows[key][name]:,.0f}" for name in ("lowest", "highest"))
        lines.append(speed_line(key, f" ({low} to {high})"))
    table = markdown_table(SPEED_HEADS, lines)
    return f"{table}\n\nMachine: {machine_text(read('throughput')['machine'])}."


def peers() -> str:
    """Other environments."""
    rows = [row for row in read("throughput")["rows"] if row["what"] == "peer"]
    (robots,) = {row["env_num_envs"] for row in rows if "env_num_envs" in row}
    lines = [
        [row["variant"], row["task"], str(row["num_envs"]),
         *([f"does not run: `{row['error']}`", ABSENT] if "error" in row else
           [f"{row['control_steps_per_s']:,.0f}", f"{row['ratio_to_env']:.2f}"])]
        for row in rows
    ]  # fmt: skip
    heads = ["", "task", "robots", "control steps/s", f"to ours ({robots} robots)"]
    return markdown_table(heads, lines)


def solver() -> str:
    """What the solver's settings cost and add to the error of a control step."""
    lines = [
        [f"{1000 * row['physics_dt']:.0f} ms", row["setting"],
         *(f"{row[name]['joint_vel_rad_s']:.2g}" for name in ("solver_error", "total_error")),
         f"{row['us_per_control_step']:.0f}"]
        for row in read("physics_accuracy")["rows"]
    ]  # fmt: skip
    heads = ["time step", "setting", "solver, rad/s", "total, rad/s", "us a control step"]
    return markdown_table(heads, lines)


# --- plot -----------------------------------------------------------------------------------------

LEFT, PLOT_W, LINE_H, TOP, BOTTOM, RIGHT = 220, 460, 24, 46, 34, 20
TICKS = (1, 2, 5, 10, 20, 50)  # minutes
COLOURS = {PPO: "#8a5a00", WORLD_MODEL: "#1f5fa8"}


def x_of(value: float) -> float:
    """Where so many minutes stand."""
    return LEFT + PLOT_W * log_share(value, 0.5, 60.0)


def plot() -> str:
    """Minutes until a clip was completed, a mark a seed, as SVG text; a cross: not until then."""
    lines = [line for line in COMPARED if line.key == "first_pass"]
    width, height = LEFT + PLOT_W + RIGHT, TOP + LINE_H * len(lines) + BOTTOM
    foot = height - BOTTOM
    parts = []
    for i, (trainer, colour) in enumerate(COLOURS.items()):
        x = LEFT + 130 * i
        parts.append(
            f'<circle cx="{x}" cy="18" r="4.5" fill="{colour}"/>'
            f'<text x="{x + 10}" y="22">{trainer.strip("`")}</text>'
        )
    parts.append(f'<text x="{LEFT + 260}" y="22">cross: not completed by then</text>')
    for minutes in TICKS:
        x = x_of(minutes)
        parts.append(
            f'<path d="M{x:.1f} {TOP - 10}V{foot}" stroke="#ddd"/>'
            f'<text x="{x:.1f}" y="{foot + 14}" text-anchor="middle">{minutes}</text>'
        )
    parts.append(
        f'<text x="{LEFT + PLOT_W / 2:.0f}" y="{height - 4}" text-anchor="middle">'
        "minutes of training until the clip is completed, a mark a seed</text>"
    )
    for i, line in enumerate(lines):
        y = TOP + LINE_H * i
        name = line.label.replace("`", "")
        parts.append(f'<text x="{LEFT - 12}" y="{y + 8}" text-anchor="end">{escape(name)}</text>')
        for j, (colour, runs) in enumerate(zip(COLOURS.values(), runs_of(line), strict=True)):
            for run, minutes in zip(runs, times(runs, line.key), strict=True):
                x, at = x_of(minutes or run["wall_s"] / 60), y + 8 * j
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{at}" r="4.5" fill="{colour}" fill-opacity=".75"/>'
                    if minutes is not None else
                    cross(x, at, colour)
                )  # fmt: skip
    title = "Minutes until a clip is completed, both trainers, three seeds each"
    return svg((width, height), title, parts, 'font-family="sans-serif" font-size="13"')


# --- pages ----------------------------------------------------------------------------------------

PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/results.md": {
        "conclusions": conclusions, "shipped": shipped, "others": others, "two_cores": two_cores,
        "first_command": first_command, "compared": compared, "guided": guided, "speed": speed,
    },
    "docs/performance.md": {"engine": engine, "peers": peers, "solver": solver},
    "README.md": {"results": front},
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Write tables and plot, or compare them."""
    status = write(arguments, PAGES, SCRIPT)
    return max(status, write_picture(arguments, PICTURE, plot(), SCRIPT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
