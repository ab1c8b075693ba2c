"""Result files: what each kind holds, and whether a file keeps to it.

A file is refused at the first thing that is not as its kind wants it, with one sentence that names
the file, the row and the field. Types and ranges are checked, and what follows from other values of
the row: an interval is Wilson's for its counts, a run that succeeded lasted as long as its clip, a
gate that passed has a value on the right side of its threshold. Fields that no rule is about may be
there, so that a benchmark can report more; but no number that is not finite and no path of a
machine may be anywhere.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bm_envs import cli
from bm_envs.errors import ResultError
from bm_envs.evaluation import wilson
from bm_envs.motion import suites
from bm_envs.motion.feasibility import FLAGS
from bm_envs.policy import KINDS as POLICY_KINDS
from bm_envs.tasks.guided.config import CONFIGS
from bm_envs.tasks.track.config import CONTROL_DT

# Of files beside results that are none.
POLICY_FORMATS = tuple(kind.format for kind in POLICY_KINDS)
MAX_BYTES = 64 * 2**20
PROTOCOLS = ("clip", "robust")
# Of the gates' values; what a gate asks beside its value may still fail it.
GATES_AT_LEAST = ("1", "2", "3", "4", "5")
GATES_AT_MOST = ("0", "1b", "2b", "latency")
ROBUST_EPISODES = 100
LARGEST = 2**63  # of any number
ROUNDING = 1e-6  # of figures that are written with six digits or more
COMMIT = re.compile(r"[0-9a-f]{7,40}\+?")
SHA256 = re.compile(r"[0-9a-f]{64}")
# A path from the root, a home folder or a drive, at the start or behind what can precede a word.
ABSOLUTE = re.compile(
    r"""(?:^|[\s='"`,;:(\[])((?:/[\w.-]+/|~/?[\w.-]*/|[A-Za-z]:[\\/]{1,2}\w)\S*)"""
)


@dataclass(frozen=True)
class ResultFile:
    """One result file that keeps to its kind."""

    path: Path
    kind: str
    created: str
    command: str
    """As it was typed in the repository's root."""
    commit: str
    """Hexadecimal, with `+` where the source tree had changes."""
    seed: int | None
    versions: dict[str, str]
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    traces: list[dict[str, Any]]
    """Of `track`: how an error went over a motion, see `benchmarks/track.py`."""
    name: str = ""
    """Its path below the folder that was read, without `.json`."""

    @property
    def machine_text(self) -> str:
        """The machine in words."""
        cores, gpu = self.machine["cores"], self.machine["gpu"]
        processor, rounds = self.machine["processor"], self.machine.get("bfloat16")
        if rounds is not None:
            processor += " with bfloat16" if rounds else " without bfloat16"
        text = f"{processor}, {cores} core{'s' if cores > 1 else ''}"
        return f"{text}, {gpu}" if gpu else text

    def policy_sha256(self, policy: str) -> str | None:
        """Digest of the policy's file, where the result tells it."""
        told = self.settings.get("policy_sha256")
        return told.get(policy) if isinstance(told, dict) else told


# --- rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What a field may hold."""

    expected: str
    """In words, behind "expected"."""
    holds: Callable[[Any], bool]
    required: bool = True


def number(
    low: float = -math.inf, high: float = math.inf, *, null: bool = False, above: bool = False,
    required: bool = True,
) -> Rule:  # fmt: skip
    """A finite number of `low` to `high`; with `above` more than `low`."""
    words = "a number"
    if math.isfinite(high):
        words += f" of {low:g} to {high:g}" if math.isfinite(low) else f" of at most {high:g}"
    elif math.isfinite(low):
        words += f" above {low:g}" if above else f" of {low:g} or more"

    def holds(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST:
            return False
        return math.isfinite(value) and (low < value if above else low <= value) and value <= high

    return _nullable(Rule(words, holds, required), null)


def whole(low: int = 0, *, null: bool = False, required: bool = True) -> Rule:
    """A whole number of `low` or more."""

    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST

    return _nullable(Rule(f"a whole number of {low} or more", holds, required), null)


def text(*choices: str, null: bool = False, required: bool = True) -> Rule:
    """Text that is not empty, or one of the choices."""
    words = " or ".join(repr(choice) for choice in choices) or "text"

    def holds(value: Any) -> bool:
        return isinstance(value, str) and (value in choices if choices else bool(value.strip()))

    return _nullable(Rule(words, holds, required), null)


def matching(pattern: re.Pattern[str], words: str, *, null: bool = False) -> Rule:
    """Text that a pattern matches throughout."""

    def holds(value: Any) -> bool:
        return isinstance(value, str) and pattern.fullmatch(value) is not None

    return _nullable(Rule(words, holds), null)


def truth(*, null: bool = False, required: bool = True) -> Rule:
    """True or false."""
    return _nullable(Rule("true or false", lambda v: isinstance(v, bool), required), null)


def table(*, of: type = object, null: bool = False, required: bool = True) -> Rule:
    """A JSON object, with values of one type if it is told."""
    words = "an object" if of is object else f"an object of {of.__name__} values"

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(item, of) for item in value.values())

    return _nullable(Rule(words, holds, required), null)


def numbers(*, null: bool = False, required: bool = True) -> Rule:
    """An object of numbers, or null in place of each."""
    one = number(null=True)

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(one.holds(item) for item in value.values())

    return _nullable(Rule("an object of numbers", holds, required), null)


def interval(*, required: bool = True) -> Rule:
    """Two shares, the lower first."""

    def holds(value: Any) -> bool:
        share = number(0, 1)
        return (
            isinstance(value, list) and len(value) == 2 and all(map(share.holds, value))
            and value[0] <= value[1]
        )  # fmt: skip

    return Rule("two numbers of 0 to 1, the lower first", holds, required)


def listing(*, required: bool = True) -> Rule:
    """A list."""
    return Rule("a list", lambda value: isinstance(value, list), required)


def _nullable(rule: Rule, null: bool) -> Rule:
    if not null:
        return rule
    return Rule(
        f"{rule.expected}, or null",
        lambda value: value is None or rule.holds(value),
        rule.required,
    )


Rules = Mapping[str, Rule]
Relation = Callable[[dict[str, Any], dict[str, Any]], Iterator[tuple[str, str]]]
"""Of a row and the file's settings: `(field, what was expected of it)` for what does not fit."""

COMMIT_RULE = matching(COMMIT, "a commit of 7 to 40 hexadecimal digits, with + for changes")
COMMITS_RULE = matching(
    re.compile(rf"{COMMIT.pattern}(, {COMMIT.pattern})*"),
    "a commit of 7 to 40 hexadecimal digits, with + for changes, or several with commas between",
)
SHA256_RULE = matching(SHA256, "a SHA-256 of 64 hexadecimal digits")
MACHINE: Rules = {
    "processor": text(),
    "bfloat16": truth(null=True, required=False),
    "cores": whole(1),
    "gpu": text(null=True),
}
HEADER: Rules = {
    "kind": text(),
    "created": text(),
    "command": Rule(
        "a command that starts with 'python '",
        lambda v: isinstance(v, str) and v.startswith("python ") and "\n" not in v,
    ),
    "commit": COMMIT_RULE,
    "seed": whole(null=True),
    "versions": table(of=str),
    "machine": table(),
    "rows": Rule("a list of one row or more", lambda v: isinstance(v, list) and len(v) > 0),
    "settings": table(required=False),
    "traces": listing(required=False),
}
TRACE: Rules = {
    "policy": text(),
    "motion": text(),
    "every_s": number(0, above=True),
    "mpkpe_mm": Rule(
        "a list of numbers of 0 or more",
        lambda v: isinstance(v, list) and all(map(number(0).holds, v)),
    ),
    "failed_s": number(0, null=True),
}


# --- the kinds ------------------------------------------------------------------------------------

TRACK: Rules = {
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
}
ERRORS = ("mpkpe_mm", "r_mpkpe_mm", "joint_pos_rad", "joint_vel_rad_s", "ee_pos_mm", "ee_ori_rad")
TRACK_SETTINGS: Rules = {
    "policy_sha256": Rule(
        "a SHA-256, or one for each policy",
        lambda v: all(map(SHA256_RULE.holds, v.values() if isinstance(v, dict) else [v])),
    ),
    "feet": text("spheres", "capsules"),
    "lead": whole(),
    "failure_rules": text("on", "off"),
    "quick": truth(),
    "motion_sha256": Rule(
        "an object with a SHA-256 for each motion",
        lambda v: isinstance(v, dict) and all(map(SHA256_RULE.holds, v.values())),
    ),
}


def _track(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    home = suites.suite_of(row["motion"])
    listed = row["suite"] in suites.NAMES and row["motion"] in suites.motions(row["suite"])
    if row["suite"] != home and not listed and not (
        row["suite"] == "lafan1" and home.startswith("lafan1")
    ):  # fmt: skip
        yield "suite", f"'{home}' for the motion '{row['motion']}'"
    if row["protocol"] == "clip" and row["episodes"] != 1:
        yield "episodes", "1 by the protocol 'clip', which plays a motion once"
    if row["protocol"] == "robust" and row["episodes"] < ROBUST_EPISODES:
        yield "episodes", f"{ROBUST_EPISODES} or more by the protocol 'robust'"
    yield from _share(row, "success", "success_ci95", row["episodes"])
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
    told = settings["policy_sha256"]
    if isinstance(told, dict) and row["policy"] not in told:
        yield "policy", "a policy whose digest the settings tell"


GUIDED: Rules = {
    "policy": text(),
    "task": text(*CONFIGS),
    "representation": text(),
    "backend": text(),
    "trials": whole(1),
    "successes": whole(),
    "success_rate": number(0, 1),
    "ci95": interval(),
    "successes_strict": whole(required=False),
    "success_rate_strict": number(0, 1, required=False),
    "ci95_strict": interval(required=False),
    "mean_speed": number(null=True, required=False),
    "each": listing(required=False),
}


def _guided(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("", "_strict"):
        count, rate = f"successes{kind}", f"success_rate{kind}"
        if rate not in row or count not in row:
            continue
        if row[count] > row["trials"]:
            yield count, f"at most the {row['trials']} trials"
        if abs(row[rate] - row[count] / row["trials"]) > ROUNDING:
            yield rate, f"{count} over trials, {row[count] / row['trials']:.6g}"
        if f"ci95{kind}" in row:
            yield from _share(row, rate, f"ci95{kind}", row["trials"])
        if kind and row[count] > row["successes"]:
            yield count, f"at most the {row['successes']} successes"
        each = row.get("each")
        if each is not None and len(each) != row["trials"]:
            yield "each", f"an entry for each of the {row['trials']} trials"
        elif each is not None:
            won = sum(isinstance(e, dict) and e.get(f"success{kind}") is True for e in each)
            if won != row[count]:
                yield count, f"{won}, as the single trials say"


GATES: Rules = {
    "gate": text(*GATES_AT_LEAST, *GATES_AT_MOST),
    "title": text(required=False),
    "value": number(null=True),
    "unit": text(required=False),
    "threshold": number(null=True),
    "passed": truth(null=True),
    "details": table(required=False),
}


def _gates(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    value, threshold = row["value"], row["threshold"]
    if row["passed"] is not True:
        return
    if value is None:
        yield "value", "a number where the gate is passed"
    elif threshold is not None and row["gate"] in GATES_AT_LEAST and value < threshold:
        yield "passed", f"false, for {value:g} is below {threshold:g}"
    elif threshold is not None and row["gate"] in GATES_AT_MOST and value > threshold:
        yield "passed", f"false, for {value:g} is above {threshold:g}"


THROUGHPUT: Rules = {
    "what": text(),
    "num_envs": whole(1),
    "threads": whole(null=True),
    "control_steps_per_s": number(0, above=True, null=True),
    "ratio_to_raw": number(0, above=True, null=True),
    "lowest": number(0, above=True, required=False),
    "highest": number(0, above=True, required=False),
    "error": text(required=False),
}


def _throughput(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    speed = row["control_steps_per_s"]
    if (speed is None) != ("error" in row):
        yield "control_steps_per_s", "a number, or null beside an error"
    elif speed is not None:
        if row.get("lowest", speed) > speed:
            yield "lowest", f"at most control_steps_per_s, {speed:g}"
        if row.get("highest", speed) < speed:
            yield "highest", f"at least control_steps_per_s, {speed:g}"


LEARNING: Rules = {
    "motion": text(),
    "variant": text(required=False),
    "flags": listing(),
    "seed": whole(),
    "env_steps": whole(1),
    "wall_s": number(0, above=True),
    "first_pass": numbers(null=True),
    "first_robust": numbers(null=True, required=False),
    "clip": numbers(),
    "manner": numbers(null=True, required=False),
    "commit": COMMITS_RULE,
    "machine": table(),
}
SWEEP: Rules = {
    name: Rule(rule.expected, rule.holds, required=name in ("motion", "seed", "flags"))
    for name, rule in LEARNING.items()
} | {"run": text(), "error": text(required=False)}


def _learning(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "error" in row:
        return
    for name in ("env_steps", "wall_s", "first_pass", "clip", "machine"):
        if name not in row:
            yield name, "there, in a row without an error"
            return
    for name, rule in MACHINE.items():
        there = name in row["machine"]
        if not rule.holds(row["machine"][name]) if there else rule.required:
            yield f"machine.{name}", rule.expected
    clip, first = row["clip"], row["first_pass"]
    if not number(0, 1).holds(clip.get("success")):
        yield "clip.success", "a number of 0 to 1"
    if first is None:
        return
    for name in ("env_steps", "wall_s"):
        # The run's own figure is rounded to a tenth.
        if not number(0, row[name] + 0.1, above=True).holds(first.get(name)):
            yield f"first_pass.{name}", f"a number above 0 and at most the run's {row[name]:g}"


PHYSICS: Rules = {
    "physics_dt": number(0, above=True),
    "setting": text(),
    "us_per_control_step": number(0, above=True),
    "mean_iterations": number(0),
    "solver_error": numbers(),
    "total_error": numbers(),
}
REFERENCE: Rules = {
    "motion": text(),
    "suite": text(*suites.NAMES, *suites.OTHERS),
    "clip_s": number(0, above=True),
    "frames": whole(2),
    "joint_excess_rad": number(0),
    "joint_excess_share": number(0, 1),
    "joint_speed_ratio": number(0),
    "joint_speed_share": number(0, 1),
    "foot_depth_m": number(),
    "foot_depth_share": number(0, 1),
    "link_depth_m": number(),
    "root_speed_m_s": number(0),
    "root_turn_rad_s": number(0),
    "floating_s": number(0),
    "flags": Rule(
        f"a list of some of: {', '.join(FLAGS)}",
        lambda v: isinstance(v, list) and all(flag in FLAGS for flag in v),
    ),
    "worst_s": numbers(),
}

WORLD_MODEL: Rules = {
    "step": whole(1),
    "count": whole(1),
    "model": numbers(),
    "coasting": numbers(),
}


CONFORMANCE: Rules = {
    "backend": text(null=True),
    "test": text(),
    "outcome": text("passed", "skipped", "failed"),
    "reason": Rule("a text", lambda v: isinstance(v, str)),
    "seconds": number(0),
}


def _conformance(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if (row["outcome"] == "passed") != (row["reason"] == ""):
        yield "reason", "a reason where the test did not pass, and none where it did"


def _reference(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if sorted(row["worst_s"]) != sorted(row["flags"]):
        yield "worst_s", "a time for each of the flags"


SIM2SIM: Rules = {
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
    "command": HEADER["command"],
}


def _sim2sim(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["survived"] > row["trials"]:
        yield "survived", f"at most the {row['trials']} trials"
    if row["survived_s"] > row["clip_s"] + ROUNDING:
        yield "survived_s", f"at most clip_s, {row['clip_s']:g}"
    if row["survived"] == row["trials"] and row["survived_s"] < row["clip_s"] - ROUNDING:
        yield "survived_s", f"clip_s, {row['clip_s']:g}, where every trial survived"
    if (row["survived"] == row["trials"]) != (row["failures"] == []):
        yield "failures", "one or more where a trial failed, and none elsewhere"


def _nothing(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ()


@dataclass(frozen=True)
class Kind:
    """A kind of result file."""

    rows: Rules
    relation: Relation = _nothing
    settings: Rules | None = None
    """None: a file may do without settings."""


RETARGET: Rules = {
    "motion": text(),
    "skeleton": text(),
    "frames": whole(3),
    "clip_s": number(0, above=True),
    "cpu_s": number(0),
    "frames_per_s": number(0, above=True),
    "limit_excess_rad": number(0),
    "foot_contact_share": number(0, 1),
    "foot_slide_m_s": number(0),
    "foot_slide_worst_m_s": number(0),
    "penetration_m": number(0),
    **{
        f"{limb}_direction{which}_deg": number(0, 180)
        for limb in ("arm", "leg") for which in ("", "_worst")
    },
    "warnings": listing(),
    "joint_difference_rad": numbers(required=False),
}  # fmt: skip
RETARGET_SOLVERS: Rules = {
    "solver": text("mink", "newton"),
    "motion": text(),
    "frames": whole(3),
    "cpu_s": number(0),
    "frames_per_s": number(0, above=True),
    "cost": number(0),
    "arm_direction_deg": number(0, 180),
    "foot_error_m": number(0),
    "joint_speed_ratio": number(0),
    "limit_excess_rad": number(0),
}

RELIABILITY: Rules = {
    "surface": text(),
    "fault": text(),
    "expected": text("refuse", "doubt", "load", "loads", "any", "damp"),
    **{key: whole() for key in ("inputs", "refused", "warned", "loaded", "wrong")},
    "slowest_s": number(0, null=True),
    "peak_mb": number(null=True),
    "examples": listing(),
}


def _reliability(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["refused"] + row["warned"] + row["loaded"] > row["inputs"]:
        yield "inputs", "at least as many as were refused, warned of and loaded"
    if row["wrong"] > row["inputs"]:
        yield "wrong", "at most the inputs"


CLIENTS: Rules = {
    "client": text(),
    "version": text(),
    "what": text("check", "train"),
    "name": text(),
    "passed": truth(),
    "reason": Rule("a text", lambda v: isinstance(v, str)),
    "wall_s": number(0),
    "preset": text(required=False),
    "noise_std": number(0, above=True, required=False),
    "num_envs": whole(1, required=False),
    "seed": whole(required=False),
    "steps": whole(1, required=False),
    "settings": table(required=False),
    "episode_length_first": number(1, null=True, required=False),
    "episode_length_last": number(1, null=True, required=False),
    "reward_per_step_first": number(null=True, required=False),
    "reward_per_step_last": number(null=True, required=False),
    "curve": listing(required=False),
}


def _clients(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if row["passed"] != (row["reason"] == ""):
        yield "reason", "a reason where it did not pass, and none where it did"
    if row["what"] == "check" or not row["passed"]:
        return
    for name, rule in CLIENTS.items():
        if name not in row or row[name] is None:
            yield name, f"{rule.expected} in a training that passed"
            return
    points = row["curve"]
    whole_point = all(
        isinstance(point, list) and len(point) == 3 and all(map(number().holds, point))
        for point in points
    )
    if len(points) < 2 or not whole_point:
        yield "curve", "two points or more of steps, length and reward"
        return
    steps = [0, *(point[0] for point in points), row["steps"] + ROUNDING]
    if any(a >= b for a, b in itertools.pairwise(steps)):
        yield "curve", f"steps that rise to at most {row['steps']}"
    for i, figure in ((1, "episode_length"), (2, "reward_per_step")):
        for end, point in (("first", points[0]), ("last", points[-1])):
            if row[f"{figure}_{end}"] != point[i]:
                yield f"{figure}_{end}", f"{point[i]:g}, as the curve has it"


KINDS: dict[str, Kind] = {
    "track": Kind(TRACK, _track, TRACK_SETTINGS),
    "guided": Kind(GUIDED, _guided),
    "gates": Kind(GATES, _gates),
    "throughput": Kind(THROUGHPUT, _throughput),
    "learning": Kind(LEARNING, _learning),
    "sweep": Kind(SWEEP, _learning),
    "physics_accuracy": Kind(PHYSICS),
    "reference": Kind(REFERENCE, _reference),
    "conformance": Kind(CONFORMANCE, _conformance),
    "sim2sim": Kind(SIM2SIM, _sim2sim),
    "world_model": Kind(WORLD_MODEL),
    "clients": Kind(CLIENTS, _clients),
    "retarget": Kind(RETARGET),
    "retarget_solvers": Kind(RETARGET_SOLVERS),
    "reliability": Kind(RELIABILITY, _reliability),
}


def _share(row: dict[str, Any], rate: str, ci: str, trials: int) -> Iterator[tuple[str, str]]:
    """A share of so many trials, and Wilson's interval of it."""
    count = row[rate] * trials
    if abs(count - round(count)) > ROUNDING * trials:
        yield rate, f"a whole number of the {trials} there were"
        return
    low, high = wilson(round(count), trials)
    if abs(row[ci][0] - low) > 1e-4 or abs(row[ci][1] - high) > 1e-4:
        yield ci, f"Wilson's 95 % interval, {low:.4f} to {high:.4f}"


# --- reading --------------------------------------------------------------------------------------


def read_result(path: str | Path, *, name: str | None = None) -> ResultFile:
    """Read and check one result file.

    Args:
        path: the file.
        name: what messages call it; its path otherwise.

    Raises:
        ResultError: unreadable, or not as its kind wants it.
    """
    path = Path(path)
    name = name or str(path)

    check_result(value := _read(path, name), name)
    return ResultFile(
        path=path,
        **{key: value[key] for key in HEADER if key not in ("settings", "traces")},
        settings=value.get("settings", {}),
        traces=value.get("traces", []),
    )


def _read(path: Path, name: str) -> Any:
    """The JSON in a file that is called `name`."""
    try:
        if not path.is_file():
            raise ResultError(f"{name}: is no file, expected a result file.")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ResultError(f"{name}: is larger than {MAX_BYTES >> 20} MiB.")
        return cli.parse_json(content.decode("utf-8-sig"))
    except OSError as error:
        raise ResultError(f"{name}: cannot be read ({cli.os_reason(error)}).") from None
    except ValueError as error:
        if isinstance(error, ResultError):
            raise
        reason = str(error).splitlines()[0]
        raise ResultError(f"{name}: is no JSON file of ours ({reason}).") from None


def check_result(value: Any, name: str) -> None:
    """Refuse the content of a result file that is not as its kind wants it.

    Raises:
        ResultError: one sentence with the file's name, the row and the field.
    """
    if not isinstance(value, dict):
        raise ResultError(f"{name}: holds no object, expected a result file.")
    _check(f"{name}:", value, HEADER)
    try:
        if datetime.datetime.fromisoformat(value["created"]).tzinfo is None:
            raise ValueError
    except ValueError:
        raise ResultError(
            f"{name}: created is {_shown(value['created'])}, expected a time with its time zone."
        ) from None
    _check(f"{name}: machine:", value["machine"], MACHINE)
    if odd := sorted(set(value["machine"]) - set(MACHINE)):
        raise ResultError(f"{name}: machine holds '{odd[0]}', expected {', '.join(MACHINE)} alone.")
    if value["kind"] not in KINDS:
        raise ResultError(
            f"{name}: kind is {_shown(value['kind'])}, expected one of {', '.join(KINDS)}."
        )
    kind = KINDS[value["kind"]]
    settings = value.get("settings", {})
    if kind.settings is not None:
        _check(f"{name}: settings:", settings, kind.settings)
    if settings.get("quick", False):
        raise ResultError(
            f"{name}: settings: quick is true, expected false: such figures are not published."
        )
    for place, part in (("", {k: v for k, v in value.items() if k != "rows"}), *(
        (f" row {i}:", row) for i, row in enumerate(value["rows"], start=1)
    )):  # fmt: skip
        _check_plain(f"{name}:{place}", part)
    for i, trace in enumerate(value.get("traces", []), start=1):
        where = f"{name}: trace {i}:"
        if not isinstance(trace, dict):
            raise ResultError(f"{where} is {_shown(trace)}, expected an object.")
        _check(where, trace, TRACE)
    for i, row in enumerate(value["rows"], start=1):
        where = f"{name}: row {i}:"
        if not isinstance(row, dict):
            raise ResultError(f"{where} is {_shown(row)}, expected an object.")
        _check(where, row, kind.rows)
        for field, expected in kind.relation(row, settings):
            raise ResultError(f"{where} {field} is {_shown(_at(row, field))}, expected {expected}.")


def _check(where: str, value: Mapping[str, Any], rules: Rules) -> None:
    for field, rule in rules.items():
        if field not in value:
            if rule.required:
                raise ResultError(f"{where} lacks {field}, expected {rule.expected}.")
        elif not rule.holds(value[field]):
            shown = _shown(value[field])
            raise ResultError(f"{where} {field} is {shown}, expected {rule.expected}.")


def _check_plain(where: str, value: Any, field: str = "") -> None:
    """No number that is not finite, no path of a machine, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(where, key, field or key)
            _check_plain(where, item, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for item in value:
            _check_plain(where, item, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"{where} {field} is not finite, expected a number.")
    elif isinstance(value, str) and (found := machine_path(value)):
        raise ResultError(
            f"{where} {field} holds the path '{found}' of a machine, expected one from the "
            "repository's root."
        )


def machine_path(text: str) -> str | None:
    """A path of a machine, from its root or from a home folder, if a text holds one."""
    found = ABSOLUTE.search(text)
    return found[1][:80] if found else None


def _at(row: Mapping[str, Any], field: str) -> Any:
    for key in field.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None  # type: ignore[assignment]
    return row


def _shown(value: Any) -> str:
    """A value in a message, short."""
    words = json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 60 else words[:57] + "..."


def read_results(folder: str | Path) -> list[ResultFile]:
    """All result files under a folder, by name; descriptions of policies are passed over.

    Raises:
        ResultError: no such folder, no file in it, or a file that is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder.")
    paths = sorted(path for path in folder.rglob("*.json") if path.is_file())
    results = [
        replace(read_result(path), name=path.relative_to(folder).with_suffix("").as_posix())
        for path in paths
        if not _describes_a_policy(path)
    ]
    if not results:
        raise ResultError(f"{folder}: holds no result file.")
    return results


def _describes_a_policy(path: Path) -> bool:
    """Whether a file is the `policy.json` of a policy that lies beside its results."""
    try:
        value = _read(path, str(path))
    except ResultError:
        return False  # `read_result` says what is wrong
    if not isinstance(value, dict) or "kind" in value:
        return False
    return value.get("format") in POLICY_FORMATS
