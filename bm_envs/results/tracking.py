"""Result files of policies that track motions, and of those that run as on a robot.

The kinds `track`, `sim2sim` and `sim2sim_guided`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bm_envs import quality
from bm_envs.motion import suites
from bm_envs.results.rules import (
    COMMAND_RULE,
    ROUNDING,
    SHA256_RULE,
    Kind,
    Rules,
    either,
    interval,
    listing,
    number,
    numbers,
    share_and_interval,
    table,
    text,
    truth,
    whole,
)  # fmt: skip
from bm_envs.tasks.track.config import CONTROL_DT

# Protocols, and how many episodes each has at least; `clip` plays a motion once.
EPISODES = {"clip": 1, "clip-perturbed": 20, "robust": 100}
PROTOCOLS = tuple(EPISODES)
BASE_STATES = ("true", "estimated", "none")

TRACK_ROWS: Rules = {
    "policy": text(),
    "motion": text(),
    "suite": text(*suites.NAMES, *suites.OTHERS),
    "backend": text(),
    "protocol": text(*PROTOCOLS),
    "episodes": whole(1),
    "success": number(0, 1),
    "success_ci95": interval(),
    "survival_s": number(0),
    "clip_s": number(0, above=True),
    "mpkpe_mm": number(0, null=True),
    "r_mpkpe_mm": number(0, null=True),
    "joint_pos_rad": number(0, null=True),
    "joint_vel_rad_s": number(0, null=True),
    "ee_pos_mm": number(0, null=True),
    "ee_ori_rad": number(0, math.pi, null=True),
    "normalized_return": number(high=1),
    "train_env_steps": whole(1, null=True),
    "train_wall_s": number(0, above=True, null=True),
    # What the policy is told and how often it acts, which older files lack.
    "observation_size": whole(1, required=False),
    "base_state": text(*BASE_STATES, required=False),
    "control_hz": number(0, above=True, required=False),
    # Standard deviation of figures over the episodes, of more than one. Older files lack it.
    "spread": numbers(required=False),
    # Motion quality, which older files lack.
    **{
        name: number(0, 1 if name.endswith("_share") else math.inf, null=True, required=False)
        for name in (*quality.NAMES, *quality.REFERENCE_NAMES)
    },
}
# Errors of a row, and what a table calls them: these names stand wherever one is shown.
ERROR_HEADS = {
    "mpkpe_mm": "MPKPE, mm",
    "r_mpkpe_mm": "R-MPKPE, mm",
    "joint_pos_rad": "joints, rad",
    "joint_vel_rad_s": "joint velocities, rad/s",
    "ee_pos_mm": "end effectors, mm",
    "ee_ori_rad": "end effectors, rad",
}
ERRORS = tuple(ERROR_HEADS)
MAIN_HEADS = tuple(ERROR_HEADS.values())[:3]  # of the errors that every table has
TRACK_SETTINGS: Rules = {
    "policy_sha256": either(
        "a SHA-256, or one for each policy", SHA256_RULE, table(of=SHA256_RULE)
    ),
    "feet": text("spheres", "capsules"),
    "lead": whole(),
    "failure_rules": text("on", "off"),
    "quick": truth(),
    "motion_sha256": table(of=SHA256_RULE, words="an object with a SHA-256 for each motion"),
}


def _track(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    home = suites.suite_of(row["motion"])
    listed = row["suite"] in suites.NAMES and row["motion"] in suites.motions(row["suite"])
    of_lafan1 = home in ("lafan1-cuts", "lafan1-40")  # as a row of before these suites
    if row["suite"] != home and not listed and not (row["suite"] == "lafan1" and of_lafan1):
        yield "suite", f"'{home}' for the motion '{row['motion']}'"
    if row["protocol"] == "clip" and row["episodes"] != 1:
        yield "episodes", "1 by the protocol 'clip', which plays a motion once"
    elif row["episodes"] < (least := EPISODES[row["protocol"]]):
        yield "episodes", f"{least} or more by the protocol '{row['protocol']}'"
    yield from share_and_interval(row, "success", "success_ci95", row["episodes"])
    steps = row["clip_s"] / CONTROL_DT
    if abs(steps - round(steps)) > 1e-3:
        yield "clip_s", f"a whole number of control steps of {CONTROL_DT} s"
    if row["survival_s"] > row["clip_s"] + ROUNDING:
        yield "survival_s", f"at most clip_s, {row['clip_s']:g}"
    if row["success"] == 1 and row["survival_s"] < row["clip_s"] - ROUNDING:
        yield "survival_s", f"clip_s, {row['clip_s']:g}, where every episode succeeded"
    lost = (1 - row["success"]) * CONTROL_DT
    if row["survival_s"] > row["clip_s"] - lost + 10 * ROUNDING:
        yield "survival_s", "less, where an episode failed"
    for name in ERRORS:
        if (row[name] is None) != (row["mpkpe_mm"] is None):
            yield name, "a number where mpkpe_mm is one, and null where it is not"
    if row["survival_s"] > 0 and row["mpkpe_mm"] is None:
        yield "mpkpe_mm", "a number where frames were survived"
    if row["motion"] not in settings["motion_sha256"]:
        yield "motion", "a motion whose digest the settings tell"
    digests = settings["policy_sha256"]
    if isinstance(digests, dict) and row["policy"] not in digests:
        yield "policy", "a policy whose digest the settings tell"


SIM2SIM_ROWS: Rules = {
    "policy": text(),
    "motion": text(),
    "physics_hz": whole(1),
    "state": text("true", "estimated"),
    "command_ms": number(0),
    "sensor_ms": number(0),
    "noise": number(0),
    "effort_scale": number(0, above=True),
    "trials": whole(1),
    "survived": whole(),
    "survived_s": number(0),
    "clip_s": number(0, above=True),
    "failures": listing(),
    "joint_pos_rad": number(0, null=True),
    "mpkpe_mm": number(0, null=True),
    "r_mpkpe_mm": number(0, null=True),
    "policy_sha256": SHA256_RULE,
    "command": COMMAND_RULE,
}


def _sim2sim(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _survived(row, "clip_s")


def _survived(row: dict[str, Any], whole_s: str) -> Iterator[tuple[str, str]]:
    """What holds of trials that survive or fail; `whole_s` is the key of the whole time."""
    if row["survived"] > row["trials"]:
        yield "survived", f"at most the {row['trials']} trials"
    if row["survived_s"] > row[whole_s] + ROUNDING:
        yield "survived_s", f"at most {whole_s}, {row[whole_s]:g}"
    if row["survived"] == row["trials"] and row["survived_s"] < row[whole_s] - ROUNDING:
        yield "survived_s", f"{whole_s}, {row[whole_s]:g}, where every trial survived"
    if (row["survived"] == row["trials"]) != (row["failures"] == []):
        yield "failures", "one or more where a trial failed, and none elsewhere"


TRACK = Kind(TRACK_ROWS, _track, TRACK_SETTINGS)
SIM2SIM = Kind(SIM2SIM_ROWS, _sim2sim)

SIM2SIM_GUIDED_ROWS: Rules = {
    **{
        name: SIM2SIM_ROWS[name]
        for name in (
            "policy", "physics_hz", "state", "command_ms", "sensor_ms", "noise", "effort_scale",
            "trials", "survived", "survived_s", "failures", "policy_sha256", "command",
        )
    },
    "task": text(),
    "representation": text(),
    "sampler": text(),
    "plan_ms": number(0),
    "task_s": number(0, above=True),
    "done": whole(),
    "plans": whole(),
    "plan_p50_ms": number(0, null=True),
    "plan_p95_ms": number(0, null=True),
    "plan_p99_ms": number(0, null=True),
    # Of the machine in the last minute, beside which times of plans are to be read.
    "load": number(0, null=True),
    "late": whole(),
    "each": listing(),
}  # fmt: skip


def _sim2sim_guided(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _survived(row, "task_s")
    if row["done"] > row["survived"]:
        yield "done", f"at most the {row['survived']} trials that survived"
    if len(row["each"]) != row["trials"]:
        yield "each", f"an entry for each of the {row['trials']} trials"
    times = [row[name] for name in ("plan_p50_ms", "plan_p95_ms", "plan_p99_ms")]
    known = [value for value in times if value is not None]
    if len(known) not in (0, 3) or (len(known) == 3) != (row["plans"] > 0):
        yield "plan_p50_ms", "numbers where there were plans, and null where there were none"
    elif known != sorted(known):
        yield "plan_p99_ms", "at least plan_p95_ms, and that at least plan_p50_ms"


SIM2SIM_GUIDED = Kind(SIM2SIM_GUIDED_ROWS, _sim2sim_guided)
