"""Tables of guided runs, made from `benchmarks/results`.

    python docs/guided_tables.py            # write them into the pages
    python docs/guided_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`. A row whose result file is
not there is left out, and so is a run that was steered by factors of a gradient, as before 0.2:
its strength means something else. These tables are kept in the pages, unlike those of
`site_tables.py`, so that they are read where no site is built.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bm_envs.cli import markdown_table
from bm_envs.diffusion.model import load_model
from bm_envs.diffusion.sampler import SHARES
from bm_envs.diffusion.steering import STEERING, Steering
from bm_envs.results import steered_as_before, successes_by_rule
from bm_envs.robots.g1 import BODY_NAMES, JOINT_NAMES
from bm_envs.statistics import wilson
from bm_envs.tasks.guided.config import JoystickConfig

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODELS = {"body_pos": "Body-Pos", "joint_rot": "Joint-Rot"}
CALLS, SEED = "10", 6  # of the runs of the tables; a row with others says so
ABSENT = "-"
PAPER = "paper, Table III: Body-Pos, Joint-Rot"
Row = dict[str, Any]


# --- result files ---------------------------------------------------------------------------------


def row_of(name: str) -> Row | None:
    """The row of a `guided` file, with the file's `seed`; None where it is not to be shown."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    file = json.loads(path.read_text())
    (row,) = file["rows"]
    steering = row["steering"] if row["task"] != "walk_perturb" else None  # asks for nothing
    if steering and steering["strength"] and steering["scaling"] not in SHARES:
        return None
    return row | {"seed": file["seed"]}


def gates_of(name: str) -> dict[str, Row]:
    """Rows of the gates of a model, later files first, without those of another steering."""
    rows: dict[str, Row] = {}
    for kind in ("latency", "guided", "steered", "natural"):
        path = RESULTS / f"gates_{kind}_{name}.json"
        if path.is_file():
            file = json.loads(path.read_text())
            told = {"sampler": file["settings"]["sampler"], "seed": file["seed"]}
            rows |= {row["gate"]: row | told for row in file["rows"]}
    return {gate: row for gate, row in rows.items() if not steered_as_before(row)}


# --- what cells say -------------------------------------------------------------------------------


def per_cent(share: float) -> str:
    """A share in per cent, without a needless zero."""
    return f"{100 * share:.1f}".removesuffix(".0")


def counted(row: Row, *, outside: bool = True) -> str:
    """Successes by the strict rule with their interval, and what else has to be known of them.

    That is the head's rule where it counts others, the share of guided numbers outside the data's
    range where it is not 0, and calls and seed where they are not those of the other runs.
    """
    strict, head = successes_by_rule(row)
    trials = row["trials"]
    if strict is None:
        return f"by the head alone {head} of {trials}"
    low, high = wilson(strict, trials)
    text = f"{strict} of {trials} ({per_cent(low)} to {per_cent(high)} %)"
    if head != strict:
        text += f"; by the head {head}"
    if outside and (share := per_cent(row.get("outside_box") or 0.0)) != "0":
        text += f"; outside {share} %"
    return "; ".join([text, *otherwise(row)])


def count(row: Row) -> str:
    """Successes by the strict rule, of a run whose cell of `counted` is in another table."""
    return f"{successes_by_rule(row)[0]} of {row['trials']}"


def otherwise(row: Row) -> list[str]:
    """Calls and seed of a run, where they are not those of the tables."""
    calls, seed = row.get("sampler"), row["seed"]
    told = []
    if calls not in (None, CALLS):
        told.append({"full": "20 calls", "rolling": "15 calls"}.get(calls, f"{calls} calls"))
    return told + [f"seed {seed}"] * (seed != SEED)


def fell(row: Row) -> str:
    """How many fell by the strict rule."""
    return str(row["trials"] - row["upright_strict"])


def halves(row: Row, command: int) -> str:
    """What was executed in the first and in the second half of a joystick's command.

    m/s forward, or rad/s to the left of a command that turns. Files of before 0.2 have the second
    half of a speed, and of a turn the mean over both.
    """
    turns = JoystickConfig().commands[command][2]
    name = "yaw_rate" if turns else "forward"
    phases = row.get("by_phase") or []
    if phases and "halves" in phases[command]:
        parts = [half[name] for half in phases[command]["halves"]]
        return ", ".join(ABSENT if value is None else f"{value:.2f}" for value in parts)
    value = row["mean_segment_value"][command]
    if turns:
        return f"{value / JoystickConfig().segment_s * (1 if turns > 0 else -1):.2f} over both"
    forward = JoystickConfig().commands[command][0]
    return f"{ABSENT}, {value if forward > 0 else -value:.2f}"


def papers_and_ours(row: Row) -> tuple[list[str], list[str]]:
    """Which parts of the guidance of a run are the paper's, and which are this project's."""
    steering, task = row["steering"], row["task"]
    papers: list[str] = []
    ours: list[str] = []
    if task == "walk_perturb" or steering is None or not steering["strength"]:
        return papers, ours
    by_commands = task in ("joystick", "composition") or steering["places"] == "approach"
    places = task != "joystick"
    if by_commands:
        papers.append("eq. 7 (velocity)")
        ours += ["turn terms"] * bool(steering["turn"])
        ours += ["positions"] * bool(steering["consistent"])
    if places and steering["places"] == "paper":
        papers.append("eq. 8 (place)")
        ours.append("bounded speed of eq. 8's step")
        ours += ["turn to the place"] * bool(steering["turn"])
    elif places:
        ours.append("approach")
    if task in ("obstacle", "composition"):
        if steering["obstacle"]:
            papers.append("eqs. 9, 10 (distance)")
            alone = steering["places"] == "approach" or not steering["consistent"]
            ours.append(f"eq. 9 moves {'only velocities' if alone else 'velocities, positions'}")
        ours += ["path planner"] * bool(steering["around"])
    ours += ["correction"] * (steering["correct_s"] != "inf")
    ours += ["recovery after a push"] * (steering.get("recover_at", "inf") != "inf")
    return papers, ours


# Of each part: what it does, where its name does not say it, and what turns it off.
PARTS = {
    "eqs. 9, 10 (distance)": ("", "`--steering.obstacle 0`"),
    "turn terms": ("ask for a command's heading and turning rate", "`--steering.turn 0`"),
    "positions": ("where a commanded velocity leads", "`--steering.consistent 0`"),
    "correction": (
        "costs see predictions without their mean error of half a second",
        "`--steering.correct-s inf`",
    ),
    "recovery after a push": ("less is asked for a short time", "`--steering.recover-at inf`"),
    "approach": ("asks for a place by velocities", "`--steering.places paper`"),
    "bounded speed of eq. 8's step": ("`--steering.speed` at most", ""),
    "turn to the place": ("", "`--steering.turn 0`"),
    "path planner": ("heads for the next corner around posts", "`--steering.no-around`"),
}


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; nothing where no run is there."""
    return markdown_table(heads, lines) if lines else ""


# --- tables of guided runs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A line of the tables by task."""

    name: str
    """Of its result files, between `guided_` and the representation."""
    text: str
    short: str
    """For the results' page."""
    published: str = "not given"
    """Table III of the paper: Body-Pos, Joint-Rot."""


TASKS = (
    Task(
        "walk_perturb", "walk_perturb: pushed each second, 15 s",
        "walk, pushed by up to 0.5 m/s each second, 15 s", "100 %, 72 %",
    ),
    Task(
        "joystick", "joystick: forward, backward, left, right",
        "joystick: forward, backward, left, right, 3 s each", "80 %, 0 %",
    ),
    Task("waypoint", "waypoint, our approach", "a place 2 to 5 m away, our approach"),
    Task("waypoint_paper", "waypoint, eq. 8", "the same, the paper's cost (eq. 8)"),
    Task(
        "obstacle", "obstacle, our approach and path",
        "a place behind 1 to 5 posts, none touched, our approach",
    ),
    Task(
        "obstacle_paper", "obstacle, eqs. 8 to 10 and our path",
        "the same, the paper's costs (eqs. 8 to 10) along our path",
    ),
    Task("composition", "composition: a minute of all, pushed", "a minute of all of it, pushed"),
)  # fmt: skip


def found(task: Task, ending: str = "") -> dict[str, Row]:
    """The rows of a task by representation, as far as they are there."""
    rows = {name: row_of(f"guided_{task.name}_{name}{ending}") for name in MODELS}
    return {name: row for name, row in rows.items() if row is not None}


def by_model(rows: Mapping[str, Row], cell: Callable[[Row], str]) -> list[str]:
    """A cell for each representation."""
    return [cell(rows[name]) if name in rows else ABSENT for name in MODELS]


def tasks() -> str:
    """All tasks, both models."""
    lines = [
        [task.text, *by_model(rows, counted), task.published]
        for task in TASKS
        if (rows := found(task))
    ]
    return table(["task", *MODELS.values(), PAPER], lines)


def parts() -> str:
    """Which parts of the guidance act in which task, and whose they are."""
    acting = {
        task.text.partition(":")[0]: papers_and_ours(next(iter(rows.values())))
        for task in TASKS
        if (rows := found(task))
    }
    acting = {task: both for task, both in acting.items() if any(both)}
    lines = []
    for i, whose in enumerate(("paper", "ours")):
        named = dict.fromkeys(part for both in acting.values() for part in both[i])
        for part in named:
            acts = ("x" * (part in both[i]) for both in acting.values())
            lines.append([part, whose, *acts, *PARTS.get(part, ("", ""))])
    return table(["part", "from", *acting, "what it does", "off by"], lines)


def delayed() -> str:
    """The tasks with an action that comes a control step late."""
    lines = [
        [task.text, *by_model(rows, counted)] for task in TASKS if (rows := found(task, "_delay"))
    ]
    return table(["task, the action one control step late", *MODELS.values()], lines)


def joystick_table(runs: Iterable[tuple[str, str]]) -> str:
    """What was executed in each half of the joystick's commands.

    Args:
        runs: what a row is called, and its file.
    """
    config = JoystickConfig()
    heads = [
        f"turn at {turn:g} rad/s" if turn else f"forward at {forward:g} m/s"
        for forward, _, turn in config.commands
    ]
    lines = [
        [label, counted(row), *(halves(row, i) for i in range(len(heads))), fell(row)]
        for label, name in runs
        if (row := row_of(name)) is not None
    ]
    return table(["variant", "success", *heads, "fell"], lines)


def joystick() -> str:
    """Both models, and the controls on the same trials."""
    return joystick_table(
        [
            *((label, f"guided_joystick_{name}") for name, label in MODELS.items()),
            ("PPO policy, trained on joystick", "guided_joystick_ppo"),
            ("tracker `walks_on`, on planned clips", "guided_joystick_expert_walks_on"),
            ("tracker `walks`, on planned clips", "guided_joystick_expert_walks"),
        ]
    )


def joystick_ablations() -> str:
    """Body-Pos with one thing changed in each row."""
    return joystick_table(
        [
            ("as shipped (strength 1, 10 calls)", "guided_joystick_body_pos"),
            ("strength 0.5", "ablation_joystick_share50"),
            ("strength 0", "ablation_joystick_share0"),
            ("20 calls (DDPM)", "ablation_joystick_calls20"),
            ("rolling, 15 calls", "ablation_joystick_rolling"),
            ("5 calls", "ablation_joystick_calls5"),
            ("2 calls", "ablation_joystick_calls2"),
            ("without the correction", "ablation_joystick_no_correction"),
            ("without positions (eq. 7 and turn)", "ablation_joystick_no_positions"),
        ]
    )


def places() -> str:
    """How places were reached, by task, model and what was changed."""
    runs = [
        (f"{task.text}, {label}", f"guided_{task.name}_{name}", count)
        for task in TASKS[2:6]
        for name, label in MODELS.items()
    ]
    ablations = [
        ("waypoint, eq. 8 without our turn, Body-Pos", "ablation_waypoint_paper_no_turn"),
        ("obstacle, our approach without eqs. 9 and 10, Body-Pos", "ablation_obstacle_no_barrier"),
        ("obstacle, our approach without the path, Body-Pos", "ablation_obstacle_straight"),
    ]
    ablations += [
        (
            f"obstacle, eqs. 8 to 10 without our path, eq. 9 at share 1, {label}",
            f"ablation_obstacle_paper_{name}",
        )
        for name, label in MODELS.items()
    ]
    runs += [(*run, counted) for run in ablations]
    lines = []
    for label, name, success in runs:
        if (row := row_of(name)) is None:
            continue
        posts = "touched" in row
        deepest = row.get("smallest_clearance") if posts else None
        touched = f"{row['touched']}" if posts else ABSENT
        if deepest is not None and deepest < 0:
            touched += f" ({-100 * deepest:.0f} cm)"
        after = row["mean_arrived_s"]
        lines.append([
            label, success(row), str(row["arrivals"]),
            ABSENT if after is None else f"{after:.1f} s", touched, fell(row),
        ])  # fmt: skip
    heads = ["run", "success", "arrived", "mean time", "touched a post (deepest)", "fell"]
    return table(heads, lines)


def composition() -> str:
    """How far robots came in the minute of all."""
    lines = []
    for name, label in MODELS.items():
        for ending, late in (("", ""), ("_delay", ", one step late")):
            row = row_of(f"guided_composition_{name}{ending}")
            if row is not None:
                followed = ", ".join(map(str, row["segments_passed"]))
                lines.append([
                    label + late, count(row), followed, str(row["arrivals"]),
                    str(row["touched"]), fell(row),
                ])  # fmt: skip
    heads = [
        "model", "success", "followed: walk, stop, back, turn", "arrived", "touched a post", "fell",
    ]  # fmt: skip
    return table(heads, lines)


def costs() -> str:
    """The examples of a cost of one's own, asked for and, where it was run, only watched."""
    lines = []
    for name in ("face_a_point", "pelvis_low"):
        for ending in ("", "_watched"):
            row = row_of(f"cost_{name}_body_pos{ending}")
            if row is not None:
                cost = row["cost"]
                figures = {"cost": cost["mean_executed"], **cost["outcome"]}
                shown = [_with_unit(what, value) for what, value in figures.items()]
                lines.append([
                    f"`benchmarks/costs/{name}.py`", row["task"], f"{cost['strength']:g}",
                    ", ".join(shown), counted(row),
                ])  # fmt: skip
    if not lines:
        return ""
    heads = ["example", "task", "strength", "executed, mean", "success"]
    said = (
        "Body-Pos with two examples of [a cost of your own](own_cost.md). At strength 0 the cost "
        "is only measured."
    )
    return f"{said}\n\n{table(heads, lines)}"


def _with_unit(name: str, value: float | None) -> str:
    """A figure of a cost's outcome; its unit is the end of its name, as in `speed_m_s`."""
    words, unit = name, ""
    for ending, unit_of in (("_deg_s", "deg/s"), ("_m_s", "m/s"), ("_deg", "deg"), ("_m", "m")):
        if name.endswith(ending):
            words, unit = name.removesuffix(ending), unit_of
            break
    figure = ABSENT if value is None else f"{value:.3g}"
    return f"{words.replace('_', ' ')} {figure} {unit}".rstrip()


def short() -> str:
    """The short table of the results' page."""
    lines = []
    alone = {name: gates["3"] for name in MODELS if "3" in (gates := gates_of(name))}
    if alone:
        lines.append(["walk, nothing asked, 15 s", *by_model(alone, _stay_up), "not given"])
    for task in TASKS:
        if rows := found(task):
            cells = by_model(rows, lambda row: counted(row, outside=False))
            lines.append([task.short, *cells, task.published])
    return table(["task", *MODELS.values(), PAPER], lines)


def _stay_up(gate: Row) -> str:
    trials = gate["details"]["trials"]
    text = f"{round(gate['value'] * trials)} of {trials} ({_interval(gate['details']['free'])} %)"
    return "; ".join([text, *otherwise(gate)])


def _interval(figures: Row) -> str:
    low, high = figures["alive_ci95"]
    return f"{per_cent(low)} to {per_cent(high)}"


# --- tables of gates ------------------------------------------------------------------------------


def _digits(*values: float | None) -> str:
    return ", ".join(ABSENT if value is None else f"{value:.3g}" for value in values)


def _walks(figures: Row) -> str:
    return f"{figures['alive']:.2f} ({_interval(figures)} %), {figures['mean_speed']:.2f} m/s"


def _latency(gate: Row) -> str:
    own = [line for line in gate["details"]["by_model"] if line["model"].startswith("guided_")]
    shown = [line for line in own if line["sampler"] in ("full", f"ddim {CALLS}")]
    return ", ".join(f"{line['calls']} calls: {line['p95_ms']:.1f} ms" for line in shown)


def _box(gate: Row) -> str:
    if gate["value"] is None:
        return "nothing was moved"
    details = gate["details"]
    return (
        f"{per_cent(gate['value'])} %; {per_cent(details['success_rate'])} %; "
        f"{per_cent(details['success_rate_at_strength_0'])} %"
    )


def _natural(gate: Row) -> str:
    if gate["value"] is None:
        return "no clip walks as fast"
    return f"{gate['value']:.2g}"


# A line of a gate: its name, what it is about, its figures, and what they have to be.
GATES: tuple[tuple[str, str, Callable[[Row], str], str], ...] = (
    (
        "0", "largest error of the states' transforms and mirror",
        lambda gate: f"{gate['value']:.0e}", "at most 1e-5",
    ),
    (
        "1", "the tracker for 15 s: share that follows; with pushes",
        lambda gate: _digits(gate["value"], gate["details"]["with_shoves"]),
        "at least 0.98; 0.95",
    ),
    (
        "1b", "recorded actions without feedback, 10 steps: 95 % of the roots within",
        lambda gate: f"{100 * gate['value']:.1f} cm", "at most 3 cm",
    ),
    ("2", "R2 of the next action", lambda gate: _digits(gate["value"]), "at least 0.90"),
    (
        "2", "given the true future states",
        lambda gate: _digits(gate["details"]["true_future"]), "at least 0.97",
    ),
    (
        "2", "given noise in their place",
        lambda gate: _digits(gate["details"]["noise_future"]), "at most the first",
    ),
    (
        "2", "of the worst leg joint",
        lambda gate: _digits(gate["details"]["worst_leg_joint"]), "at least 0.85",
    ),
    (
        "2b", "root 0.32 s ahead: median error; of keeping the velocity",
        lambda gate: (
            f"{100 * gate['value']:.1f} cm, {100 * gate['details']['constant_velocity_m']:.1f} cm"
        ),
        "at most 5 cm and the second",
    ),
    (
        "3", "walks unguided for 15 s: share that stays up, mean speed",
        lambda gate: _walks(gate["details"]["free"]), "at least 0.95; 0.2 m/s",
    ),
    (
        "3", "with pushes",
        lambda gate: _walks(gate["details"]["shoved"]), "at least 0.80; 0.2 m/s",
    ),
    (
        "4",
        "walked against commanded speed, -0.3 to 0.9 m/s: Spearman correlation, slope, falls",
        lambda gate: (
            f"{_digits(gate['value'], gate['details']['slope'])}, "
            f"{per_cent(gate['details']['falls'])} %"
        ),
        "at least 0.9; 0.5 to 1.3; at most 10 %",
    ),
    (
        "5", "change of the action from +0.3 to -0.3 m/s, over its standard deviation",
        lambda gate: _digits(gate["value"]),
        "at least 0.05; another future changes it more than other noise",
    ),
    (
        "5", "share of the step's phases where +0.3 m/s walks faster",
        lambda gate: _digits(gate["details"]["phases_that_agree"]), "1",
    ),
    (
        "box", "joystick: outside; success; success at strength 0",
        _box, "under 20 %; at least 50 %; under 50 %",
    ),
    (
        "natural", "gait against the clips' at equal speed, the worst figure: share of its band",
        _natural, "at most 1",
    ),
    (
        "latency", "control step of one robot on one core: 95 % are under", _latency,
        "20 ms with 20 calls",
    ),
)  # fmt: skip


def gates() -> str:
    """Every gate, both models."""
    models = {name: gates_of(name) for name in MODELS}
    lines = []
    for gate, what, cell, threshold in GATES:
        rows = {name: of[gate] for name, of in models.items() if gate in of}
        if rows:
            calls = {row["sampler"] for row in rows.values()} - {"full"}
            what += f" ({', '.join(sorted(calls))} calls)" * bool(calls)
            lines.append([gate, what, *by_model(rows, cell), threshold])
    return table(["gate", "what", *MODELS.values(), "threshold"], lines)


def doses() -> str:
    """Gate 4 by strength."""
    lines, targets = [], []
    for name, label in MODELS.items():
        details = gates_of(name).get("4", {}).get("details")
        if details is None:
            continue
        targets = details["targets"]
        for row in details["by_strength"]:
            own = " (its own)" * (row["strength"] == details["chosen_strength"])
            walked = [ABSENT if v is None else f"{v:.2f}" for v in row["forward"]]
            lines.append([
                label, f"{row['strength']:g}{own}", *walked, f"{row['slope']:.2f}",
                f"{per_cent(row['falls'])} %",
            ])  # fmt: skip
    heads = ["model", "strength", *(f"{value:g} m/s" for value in targets), "slope", "falls"]
    return table(heads, lines)


def differences() -> str:
    """What is chosen for each model otherwise than the defaults, from the code."""
    plain, told = asdict(Steering()), []
    for name, label in MODELS.items():
        own = asdict(STEERING[name])
        flags = [_flag(key, own[key]) for key in plain if own[key] != plain[key]]
        told.append(f"{label} has {', '.join(flags) or 'the defaults'}")
    return "; ".join(told) + "."


def _flag(name: str, value: Any) -> str:
    """A setting of the steering as it is typed."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"`--steering.{'' if value else 'no-'}{name}`"
    return f"`--steering.{name} {f'{value:g}' if isinstance(value, float) else value}`"


def ranges() -> str:
    """What the shipped models' data hold of some features, from the models' files."""
    bodies, joints = (load_model(f"guided_{name}") for name in MODELS)
    pelvis, wrist = (3 * BODY_NAMES.index(body) + 2 for body in ("pelvis", "left_wrist_yaw_link"))
    shown = [
        ("height of the pelvis, m", bodies, "body_pos", pelvis),
        ("velocity forward, m/s", bodies, "root_lin_vel", 0),
        ("velocity to the side, m/s", bodies, "root_lin_vel", 1),
        ("wrist (`left_wrist_yaw_link`) above the floor, m", bodies, "body_pos", wrist),
        ("knee angle, rad", joints, "joint_pos", JOINT_NAMES.index("left_knee_joint")),
    ]
    lines = []
    for label, model, block, column in shown:
        feature = model.representation.blocks[block].start + column
        lines.append([label, *(f"{bound[feature]:.2f}" for bound in model.range)])
    return table(["", "lowest", "highest"], lines)


# --- pages ----------------------------------------------------------------------------------------


def on_robot() -> str:
    """What guided models did in `tools/sim2sim.py`, a row for each model and task."""
    lines: dict[tuple[str, str], dict[tuple[str, float], str]] = {}
    for path in sorted(RESULTS.glob("sim2sim_guided*.json")):
        if path.stem == LATENCY:
            continue
        for row in json.loads(path.read_text())["rows"]:
            cell = f"{row['survived']}, {row['done']} of {row['trials']}"
            cells = lines.setdefault((row["policy"], row["task"]), {})
            cells[row["state"], row["plan_ms"]] = cell
    if not lines:
        return ""
    ways = list(dict.fromkeys(way for cells in lines.values() for way in cells))
    heads = ["model, task", *(f"{state} state, plans in {ms:g} ms" for state, ms in ways)]
    made = [
        [f"`{policy}`, {task}", *(cells.get(way, ABSENT) for way in ways)]
        for (policy, task), cells in lines.items()
    ]
    told = (
        "Trials that survived, and those that did what was asked, by the thresholds of the [guided "
        "tasks](guided.md#guided-tasks):"
    )
    return f"{told}\n\n{markdown_table(heads, made)}"


LATENCY = "sim2sim_guided_latency"  # the file of a machine that does nothing else


def plan_times() -> str:
    """How long plans took, of the file that was made for it."""
    path = RESULTS / f"{LATENCY}.json"
    if not path.is_file():
        return ""
    file = json.loads(path.read_text())
    heads = ["model, calls", "p50, ms", "p95, ms", "p99, ms", "plans", "load of the machine"]
    lines = [
        [
            f"`{row['policy']}`, {row['sampler']}",
            *(f"{row[f'plan_{name}_ms']:.1f}" for name in ("p50", "p95", "p99")),
            str(row["plans"]), ABSENT if row["load"] is None else f"{row['load']:.1f}",
        ]
        for row in file["rows"]
    ]  # fmt: skip
    machine = file["machine"]
    told = f"On {machine['cores']} cores of {machine['processor']}, one thread for plans."
    return f"{markdown_table(heads, lines)}\n\n{told}"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/guided.md": {
        "gates": gates, "doses": doses, "tasks": tasks, "joystick": joystick, "places": places,
        "parts": parts,
        "composition": composition, "delayed": delayed, "costs": costs,
        "joystick_ablations": joystick_ablations, "differences": differences,
    },
    "docs/own_cost.md": {"ranges": ranges},
    "docs/deployment.md": {"on_robot": on_robot, "plan_times": plan_times},
}  # fmt: skip


def filled(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with its tables as the files say.

    Raises:
        ValueError: a table has no place in the page, or more than one.
    """
    for name, made in tables.items():
        mark = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        content = made()
        inside = f"\n{content}\n\n" if content else ""
        text, places = re.subn(
            mark, lambda found, new=inside: f"{found[1]}{new}{found[2]}", text, flags=re.S
        )
        if places != 1:
            raise ValueError(f"{places} places for the table '{name}', expected one")
    return text


def write(
    arguments: Sequence[str], pages: Mapping[str, Mapping[str, Callable[[], str]]], script: str
) -> int:
    """Write a script's tables into their pages, or compare them."""
    wrong = []
    for page, tables in pages.items():
        path = ROOT / page
        old = path.read_text()
        new = filled(old, tables)
        wrong += [page] * (new != old)
        if list(arguments) != ["--check"]:
            path.write_text(new)
    if list(arguments) == ["--check"]:
        print("\n".join(f"{page}: run python {script}" for page in wrong), end="")
        return int(bool(wrong))
    return 0


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, "docs/guided_tables.py"))
