"""Tables of `guided_human`, the model of people's walks and runs, made from `benchmarks/results`.

    python docs/human_tables.py            # write them into the pages
    python docs/human_tables.py --check    # exit status 1 where a page does not hold them

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, as those of
`guided_tables.py` do. A row whose result file is not there is left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from guided_tables import ABSENT, RESULTS, ROOT, counted, fell, gates_of, row_of, table, write

SCRIPT = "docs/human_tables.py"
MODEL = ROOT / "policies" / "guided_human" / "policy.json"
Row = dict[str, Any]

# What a line is called; its file, after `guided_` and before `_human`; what issue and gate ask for,
# of 50 trials.
LINES = (
    ("walk_perturb: pushed by up to 0.5 m/s each second, 15 s", "walk_perturb", 48),
    ("the same, by up to 1.0 m/s", "walk_perturb_hard", 40),
    ("joystick: forward, backward, left, right", "joystick", 48),
    ("the same, one step late", "joystick_delay", None),
    ("the same, two steps late", "joystick_delay2", 40),
    ("joystick: to the left, to the right, turns on the spot", "joystick_sideways", 40),
    ("waypoint, our approach", "waypoint", 48),
    ("the same, one step late", "waypoint_delay", None),
    ("the same, two steps late", "waypoint_delay2", None),
    ("waypoint, eq. 8", "waypoint_paper", None),
    ("obstacle, our approach and path", "obstacle", 46),
    ("composition: a minute of all, pushed", "composition", 45),
    ("run: 2.0 m/s for 15 s", "run", 40),
)


def tasks() -> str:
    """Each task, the procedural model's run of the same beside it where there is one."""
    lines = []
    for text, name, asked in LINES:
        row = row_of(f"guided_{name}_human")
        if row is None:
            continue
        other = row_of(f"guided_{name}_body_pos")
        lines.append([
            text, counted(row), fell(row), ABSENT if asked is None else f"{asked} of 50",
            ABSENT if other is None else counted(other),
        ])  # fmt: skip
    heads = ["task", "`guided_human`", "fell", "asked", "`guided_body_pos`"]
    return table(heads, lines)


def _velocity(phase: Row) -> str:
    """Velocities executed in the second half of a command."""
    half = phase["halves"][1]
    values = [half[name] for name in ("forward", "left", "yaw_rate")]
    return ", ".join(ABSENT if value is None else f"{value:.2f}" for value in values)


COMMANDS = (
    ("joystick", ("0.6 forward", "0.3 backward", "0.4 forward, 0.5 left", "0.4, 0.5 right")),
    ("joystick_sideways", ("0.3 to the left", "0.3 to the right", "turn left", "turn right")),
    ("run", ("2.0 forward",)),
)


def commands() -> str:
    """What each command brought."""
    lines = []
    for name, asked in COMMANDS:
        row = row_of(f"guided_{name}_human")
        if row is None:
            continue
        for number, (text, phase) in enumerate(zip(asked, row["by_phase"], strict=True)):
            passed = f"{row['segments_passed'][number]} of {row['trials']}"
            lines.append([name.replace("_", " "), text, passed, _velocity(phase)])
    heads = [
        "task", "commanded, m/s and rad/s", "followed",
        "second half: forward, left, m/s; turn, rad/s",
    ]  # fmt: skip
    return table(heads, lines)


FIGURES = (
    ("stance_knee_rad", "stance knee, rad"),
    ("straightest_knee_rad", "straightest knee, rad"),
    ("step_length_m", "step, m"),
    ("ankle_lift_m", "lift of the ankle, m"),
    ("arm_range_rad", "range of the arms, rad"),
    ("joint_acc_rad_s2", "joint acceleration, rad/s²"),
    ("slip_p95_m_s", "slip, m/s"),
)


def _gates() -> dict[str, Row]:
    """Rows of the gates of `guided_human`."""
    path = RESULTS / "gates_human.json"
    return (
        {row["gate"]: row for row in json.loads(path.read_text())["rows"]} if path.is_file() else {}
    )


def natural() -> str:
    """The gait against that of the clips at equal speed, both models."""
    lines = []
    for rows, label in ((_gates(), "`guided_human`"), (gates_of("body_pos"), "`guided_body_pos`")):
        gate = rows.get("natural")
        for row in gate["details"]["by_speed"] if gate else ():
            own, clips = row["figures"], row["reference"]
            cells = [f"{own[key]:.2f} ({clips[key]:.2f})" for key, _ in FIGURES]
            worst = max(row["off"].values())
            speed = f"{own['speed_m_s']:.2f} ({clips['speed_m_s']:.2f})"
            lines.append([label, f"{row['commanded_m_s']:g}", speed, *cells, f"{worst:.2f}"])
    heads = [
        "model",
        "commanded, m/s",
        "speed, m/s",
        *(text for _, text in FIGURES),
        "worst, of its band",
    ]
    return table(heads, lines)


GATES = ("0", "1", "1b", "2", "2b", "3", "4", "5", "box", "natural", "latency")


def gates() -> str:
    """Every gate that was run, with the section's title; nothing where none was."""
    rows = _gates()
    if not rows:
        return ""
    lines = []
    for gate in GATES:
        if gate not in rows:
            continue
        row = rows[gate]
        verdict = {True: "passed", False: "failed", None: "measured"}[row["passed"]]
        value = ABSENT if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        limit = ABSENT if row["threshold"] is None else f"{row['threshold']:g}"
        lines.append([gate, row["title"], value, limit, verdict, row["details"].get("reason", "")])
    heads = ["gate", "what", "value", "threshold", "verdict", "why"]
    return f"## Gates\n\n{table(heads, lines)}"


def experts() -> str:
    """Which trackers the model learned from, and how many of their episodes were kept."""
    if not MODEL.is_file():
        return ""
    record = json.loads(MODEL.read_text())
    lines = []
    for part in record["data"]:
        names = ", ".join(f"`{one['policy']}`" for one in part["experts"])
        clips = ", ".join(f"{one['name']} ({one['licence']})" for one in part["clips"])
        lines.append([names, clips, f"{part['accepted']} of {part['tried']}"])
    return table(["trackers", "clips", "episodes kept"], lines)


BINS = (
    ("forward_m_s", "forward, m/s"), ("left_m_s", "to the left, m/s"),
    ("yaw_rad_s", "turning rate, rad/s"),
)  # fmt: skip


def coverage() -> str:
    """Shares of the data's frames by velocity in the heading, all data together."""
    if not MODEL.is_file():
        return ""
    data = json.loads(MODEL.read_text())["data"]
    total = sum(part["accepted"] for part in data)
    lines = []
    for name, text in BINS:
        figures = [part["coverage"][name] for part in data]
        shares = [
            sum(
                part["accepted"] * figure["share"][k]
                for part, figure in zip(data, figures, strict=True)
            )
            for k in range(len(figures[0]["share"]))
        ]
        edges = [f"{edge:g}" for edge in figures[0]["edges"]]
        edges[0], edges[-1] = "less", "more"
        lines += [
            [text if k == 0 else "", f"{low} to {high}", f"{100 * share / total:.1f} %"]
            for k, (low, high, share) in enumerate(zip(edges[:-1], edges[1:], shares, strict=True))
        ]
    return table(["", "from, to", "share of frames"], lines)


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/human.md": {
        "human_experts": experts, "human_coverage": coverage, "human_tasks": tasks,
        "human_commands": commands, "human_natural": natural, "human_gates": gates,
    },
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(write(sys.argv[1:], PAGES, SCRIPT))
