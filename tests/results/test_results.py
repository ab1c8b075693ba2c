"""Result files: good ones of every kind are taken, and each kind of tampering is refused."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from result_files import (
    MACHINE,
    gates,
    guided,
    guided_before_0_2,
    learning,
    result,
    throughput,
    tour,
    track,
    track_row,
)

from bm_envs import quality
from bm_envs.errors import ResultError
from bm_envs.results import (
    KINDS,
    check_result,
    read_result,
    read_results,
    successes_by_rule,
)
from bm_envs.statistics import wilson

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "track": track(),
    "guided": guided(),
    "tour": tour(),
    "gates": gates(),
    "throughput": throughput(),
    "learning": learning(),
    "sweep": result("sweep", [
        {"motion": "walk", "seed": 1, "flags": [], "run": "walk__1", "error": "it died"},
        {**learning()["rows"][0], "run": "walk__1"},
    ]),
    "physics_accuracy": result("physics_accuracy", [{
        "physics_dt": 0.005, "setting": "standard", "options": {}, "us_per_control_step": 130.2,
        "mean_iterations": 3.2, "solver_error": {"root_pos_m": 0.0},
        "total_error": {"root_pos_m": 1e-4},
    }]),
    "reference": result("reference", [{
        "motion": "walk", "suite": "builtin", "clip_s": 24.5, "frames": 1226,
        "joint_excess_rad": 0.0, "joint_excess_share": 0.0, "joint_speed_ratio": 1.4,
        "joint_speed_share": 0.01, "foot_depth_m": -0.001, "foot_depth_share": 0.0,
        "link_depth_m": -0.035, "root_speed_m_s": 0.8, "root_turn_rad_s": 0.0, "floating_s": 0.0,
        "flags": ["joint speed"], "worst_s": {"joint speed": 3.2},
    }]),
    "conformance": result("conformance", [
        {"backend": "mujoco", "test": "test_backends.py test_c05", "outcome": "passed",
         "reason": "", "seconds": 0.4},
        {"backend": None, "test": "test_backends.py test_c16", "outcome": "skipped",
         "reason": "no room of its own", "seconds": 0.0},
    ]),
    "speed": result("speed", [{
        "what": "policy_update", "ms": 40.0, "bound_ms": 22.0, "ratio": 1.8, "threads": 1,
        "precision": "bfloat16", "of": "1123a0c30bf8", "imagined_steps_per_s": 102400.0,
    }]),
    "world_model": result("world_model", [{
        "step": 1, "count": 640, "model": {"pos_mm": 1.1}, "coasting": {"pos_mm": 3.0},
    }]),
    "retarget": result("retarget", [{
        "motion": "jacks", "skeleton": "CMU", "frames": 207, "clip_s": 4.12, "cpu_s": 0.7,
        "frames_per_s": 303.1, "limit_excess_rad": 0.0, "foot_contact_share": 0.49,
        "foot_slide_m_s": 0.005, "foot_slide_worst_m_s": 0.02, "penetration_m": 0.0017,
        "arm_direction_deg": 0.6, "arm_direction_worst_deg": 1.5, "leg_direction_deg": 0.8,
        "leg_direction_worst_deg": 1.6, "warnings": [], "compared_with": "dance1",
        "joint_difference_rad": {"left_knee_joint": 0.1}, "mean_difference_rad": 0.1,
    }]),
    "reliability": result("reliability", [{
        "surface": "motion .csv", "fault": "degrees", "expected": "refuse", "inputs": 54,
        "refused": 53, "warned": 0, "loaded": 1, "wrong": 1, "slowest_s": 0.1, "peak_mb": 20.5,
        "examples": ["stand.csv: loaded: "],
    }]),
    "demo_page": result("demo_page", [
        {"what": "load", "unit": "s", "value": 2.1, "lowest": 1.9, "highest": 2.4, "count": 5},
    ]),
    "robustness": result("robustness", [{
        "policy": "walk", "world": "robust", "motion": "walk", "backend": "mujoco",
        "axis": "friction", "unit": "", "harder": "down", "standard": None, "episodes": 10,
        "episode_s": 24.5, "values": [0.2, 0.4, 0.8], "successes": [0, 4, 10],
        "success": [0.0, 0.4, 1.0],
        "success_ci95": [list(wilson(count, 10)) for count in (0, 4, 10)],
        "survival_s": [1.0, 12.0, 24.5], "half": 0.466667, "half_ci95": [0.8 - 0.4 * (
            (wilson(10, 10)[0] - 0.5) / (wilson(10, 10)[0] - wilson(4, 10)[0])
        ), 0.4 - 0.2 * (wilson(4, 10)[1] - 0.5) / (wilson(4, 10)[1] - wilson(0, 10)[1])],
    }, {
        "policy": "walk", "world": "robust", "motion": "walk", "backend": "mujoco",
        "axis": "sole", "unit": "", "harder": None, "standard": "spheres", "episodes": 1,
        "episode_s": 24.5, "values": ["spheres", "capsules"], "successes": [1, 1],
        "success": [1.0, 1.0], "success_ci95": [list(wilson(1, 1))] * 2,
        "survival_s": [24.5, 24.5], "half": None, "half_ci95": None,
    }]),
    "retarget_solvers": result("retarget_solvers", [{
        "solver": "mink", "motion": "jacks", "frames": 207, "cpu_s": 0.6, "frames_per_s": 346.0,
        "cost": 0.0014, "arm_direction_deg": 0.09, "foot_error_m": 0.0017,
        "joint_speed_ratio": 2.0, "limit_excess_rad": 0.0,
    }]),
    "clients": result("clients", [{
        "client": "sb3", "version": "2.9.2", "what": "train", "name": "laptop", "passed": True,
        "reason": "", "wall_s": 91.5, "preset": "laptop", "noise_std": 1.0, "num_envs": 64,
        "seed": 1, "steps": 40960, "settings": {"n_steps": 32}, "episode_length_first": 24.5,
        "episode_length_last": 31.0, "reward_per_step_first": 0.031, "reward_per_step_last": 0.04,
        "curve": [[20480, 24.5, 0.031], [40960, 31.0, 0.04]],
    }, {
        "client": "minari", "version": "0.5.4", "what": "check", "name": "DataCollector",
        "passed": False, "reason": "ImportError: no jax", "wall_s": 0.2,
    }]),
    "sim2sim": result("sim2sim", [{
        "policy": "walk", "motion": "walk", "physics_hz": 1000, "state": "estimated",
        "command_ms": 10.0, "sensor_ms": 0.0, "noise": 1.0, "effort_scale": 1.0, "trials": 5,
        "survived": 4, "survived_s": 24.1, "clip_s": 24.5, "failures": ["run: off its reference"],
        "joint_pos_rad": 0.08, "mpkpe_mm": 100.0, "r_mpkpe_mm": 33.0, "policy_sha256": "0" * 64,
        "command": "python tools/sim2sim.py walk --noise 1",
    }]),
    "sim2sim_guided": result("sim2sim_guided", [{
        "policy": "guided_body_pos", "task": "joystick", "representation": "body_pos",
        "physics_hz": 1000, "state": "estimated", "command_ms": 0.0, "sensor_ms": 0.0, "noise": 0.0,
        "effort_scale": 1.0, "sampler": "10", "plan_ms": 20.0, "trials": 2, "survived": 1,
        "survived_s": 10.0, "task_s": 15.0, "done": 1, "failures": ["run: fell"], "plans": 1000,
        "plan_p50_ms": 6.0, "plan_p95_ms": 7.0, "plan_p99_ms": 8.0, "load": 0.5, "late": 0,
        "each": [{"done": True}, {"done": False}], "policy_sha256": "0" * 64,
        "command": "python tools/sim2sim.py guided_body_pos --task joystick --trials 2",
    }]),
}  # fmt: skip


def refusal(value):
    with pytest.raises(ResultError) as caught:
        check_result(value, "out.json")
    message = str(caught.value)
    assert message.startswith("out.json: ") and message.endswith(".") and "\n" not in message
    return message


def changed(kind, where, new):
    """The good file of a kind with one value replaced, or taken away for `...`."""
    value = copy.deepcopy(GOOD[kind])
    *path, last = where
    inner = value
    for key in path:
        inner = inner[key]
    if new is ...:
        del inner[last]
    else:
        inner[last] = new
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_are_taken(kind, tmp_path):
    path = tmp_path / "out.json"
    path.write_text(json.dumps(GOOD[kind]))
    file = read_result(path)
    assert (file.kind, file.rows) == (kind, GOOD[kind]["rows"])


def test_the_repositorys_own_files_are_taken():
    files = read_results(ROOT / "benchmarks" / "results")
    assert {"track", "gates", "throughput", "learning"} <= {file.kind for file in files}
    ends = [
        end for file in files for row in file.rows
        for key in ("success_ci95", "ci95", "ci95_head") for end in np.ravel(row.get(key, ()))
    ]  # fmt: skip
    assert 0 in ends and 1 in ends
    assert not [end for end in ends if 0 < min(end, 1 - end) < 1e-9], "rounding is no interval"


# --- the header ---


@pytest.mark.parametrize(
    ("field", "new", "sentence"),
    [
        ("kind", "trak", "kind is \"trak\", expected one of track, guided,"),
        ("kind", ..., "lacks kind"),
        ("created", "yesterday", 'created is "yesterday", expected a time with its time zone.'),
        ("created", "2026-11-21T17:23:22", "expected a time with its time zone."),
        ("command", "rm -r .", "command is \"rm -r .\", expected a command that starts"),
        ("commit", "main", 'commit is "main", expected a commit of 7 to 40 hexadecimal digits'),
        ("commit", "1123a0c30bf8++", "expected a commit"),
        ("commit", None, "commit is null, expected a commit"),
        ("seed", -1, "seed is -1, expected a whole number of 0 or more, or null."),
        ("seed", True, "seed is true, expected a whole number"),
        ("versions", {"mujoco": 4}, "expected an object of texts."),
        ("rows", [], "rows is [], expected a list of one row or more."),
        ("rows", [3], "row 1: is 3, expected an object."),
        ("machine", {"processor": "x", "cores": 2}, "machine: lacks gpu, expected text, or null."),
        ("machine", {"processor": "x", "cores": 0, "gpu": None}, "machine: cores is 0, expected"),
        ("machine", {"processor": "x", "cores": 2, "gpu": None, "host": "lab7"},
         "machine holds 'host', expected processor, bfloat16, cores, gpu alone."),
        ("settings", ..., "settings: lacks policy_sha256"),
    ],
)  # fmt: skip
def test_headers_are_checked(field, new, sentence):
    assert sentence in refusal(changed("track", [field], new))


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, "AMD EPYC, 2 cores"),
        ({"bfloat16": None}, "AMD EPYC, 2 cores"),
        ({"bfloat16": True}, "AMD EPYC with bfloat16, 2 cores"),
        ({"bfloat16": False, "cores": 1, "gpu": "H200"}, "AMD EPYC without bfloat16, 1 core, H200"),
    ],
)
def test_machines_are_told_in_words(tmp_path, known, text):
    path = tmp_path / "walk.json"
    path.write_text(json.dumps(changed("track", ["machine"], {**MACHINE, **known})))
    assert read_result(path).machine_text == text


@pytest.mark.parametrize(
    "path",
    ["/home/me/x.json", "~/x.json", "C:\\me\\x.json", "a --json /tmp/x.json", "--json=/tmp/x/y"],
)
@pytest.mark.parametrize("where", [["command"], ["rows", 0, "note"], ["settings", "from"]])
def test_no_path_of_a_machine(path, where):
    new = f"python {path}" if where == ["command"] else path
    message = refusal(changed("track", where, new))
    assert (
        "holds the path" in message
        and "of a machine, expected one from the repository's root." in message
    )
    assert ("row 1" in message) == ("rows" in where)


@pytest.mark.parametrize(
    "words", ["m/s", "https://arxiv.org/abs/2508.08241", "runs/x/y.json", "a or/and b", "1 / 2"]
)
def test_what_only_looks_like_a_path(words):
    check_result(changed("track", ["rows", 0, "note"], words), "out.json")


# --- rows ---

ROW = ["rows", 1]


@pytest.mark.parametrize(
    ("field", "new", "sentence"),
    [
        ("success", 1.7, "row 2: success is 1.7, expected a number of 0 to 1."),
        ("success", "1", 'row 2: success is "1", expected a number of 0 to 1.'),
        ("success", True, "row 2: success is true, expected a number of 0 to 1."),
        ("success", ..., "row 2: lacks success, expected a number of 0 to 1."),
        ("success", 0.955, "row 2: success is 0.955, expected a whole number of the 100 there"),
        ("success", 0.95, "row 2: success_ci95 is [0.9"),
        ("success_ci95", [0.5, 0.6], "expected Wilson's 95 % interval, 0.9300 to 0.9945."),
        ("success_ci95", [0.99, 0.9], "expected two numbers of 0 to 1, the lower first."),
        ("success_ci95", [0.9], "expected two numbers of 0 to 1, the lower first."),
        ("episodes", 10, "episodes is 10, expected 100 or more by the protocol 'robust'."),
        ("episodes", 10**400, "expected a whole number of 1 or more."),
        ("clip_s", 10**400, "expected a number above 0."),
        ("episodes", 100.0, "episodes is 100.0, expected a whole number of 1 or more."),
        ("protocol", "best", "expected 'clip' or 'clip-perturbed' or 'robust'."),
        ("suite", "lafan1-cuts", "expected 'builtin' for the motion 'walk'."),
        ("suite", "mine", "row 2: suite is \"mine\", expected 'builtin' or"),
        ("clip_s", 0, "clip_s is 0, expected a number above 0."),
        ("clip_s", 24.507, "clip_s is 24.507, expected a whole number of control steps of 0.02 s."),
        ("survival_s", 25.0, "survival_s is 25.0, expected at most clip_s, 24.5."),
        ("survival_s", 24.5, "survival_s is 24.5, expected less, where an episode failed."),
        ("survival_s", -1, "survival_s is -1, expected a number of 0 or more."),
        ("mpkpe_mm", None, "expected a number where mpkpe_mm is one, and null where it is not."),
        ("ee_ori_rad", 4.0, "ee_ori_rad is 4.0, expected a number of 0 to 3.14159, or null."),
        ("joint_pos_rad", -0.1, "expected a number of 0 or more, or null."),
        ("normalized_return", 1.2, "normalized_return is 1.2, expected a number of at most 1."),
        ("train_env_steps", 0, "expected a whole number of 1 or more, or null."),
        ("train_wall_s", -5, "expected a number above 0, or null."),
        ("motion", "walk_back", "expected a motion whose digest the settings tell."),
        ("policy", "", 'policy is "", expected text.'),
    ],
)
def test_rows_of_track_are_checked(field, new, sentence):
    assert sentence in refusal(changed("track", [*ROW, field], new))


@pytest.mark.parametrize("suite", ["lafan1", "lafan1-40", "lafan1-walks", "other"])
def test_a_repaired_motion_is_of_no_suite(suite):
    motion = "walk3_subject1~repaired"
    check_result(track(track_row(motion=motion, suite="lafan1-repaired")), "out.json")
    message = refusal(track(track_row(motion=motion, suite=suite)))
    assert f"suite is \"{suite}\", expected 'lafan1-repaired' for the motion '{motion}'" in message
    message = refusal(track(track_row(motion="walk3_subject1", suite="lafan1-repaired")))
    assert "expected 'lafan1-40' for the motion 'walk3_subject1'" in message


REPAIRED = {
    "repaired_from_sha256": "0" * 64, "repaired_stretches": 2, "repaired_s": 3.5,
    "repaired_shift_m": 0.09, "repaired_shift_link": "left_knee_link", "repaired_turn_rad": 0.3,
    "repaired_turn_joint": "left_knee_joint",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"motion": "walk~repaired", "suite": "other"}, None),
        ({}, "repaired_from_sha256 is \"000000"),
        ({"motion": "walk~repaired", "suite": "other", "repaired_s": 25.0},
         "repaired_s is 25.0, expected at most clip_s, 24.5."),
        ({"motion": "walk~repaired", "suite": "other", "repaired_shift_link": ""},
         "repaired_shift_link is \"\", expected text."),
    ],
)  # fmt: skip
def test_what_a_row_tells_of_a_repair_is_checked(changes, sentence):
    value = copy.deepcopy(GOOD["reference"])
    value["rows"][0] |= REPAIRED | changes
    if sentence is None:
        check_result(value, "out.json")
        del value["rows"][0]["repaired_s"]
        assert "repaired_s" in refusal(value)
    else:
        assert sentence in refusal(value)


QUALITY = dict.fromkeys((*quality.NAMES, *quality.REFERENCE_NAMES), 0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        (dict.fromkeys(QUALITY), None),  # of rows without a frame
        ({"chatter_share": 1.1}, "chatter_share is 1.1, expected a number of 0 to 1, or null."),
        ({"action_rate": -1}, "action_rate is -1, expected a number of 0 or more, or null."),
        ({"ref_slip_p95_m_s": "0"}, "expected a number of 0 or more, or null."),
    ],
)
def test_motion_quality_is_checked_where_a_row_tells_it(changes, sentence):
    row = track_row(**QUALITY | changes)
    if sentence is None:
        check_result(track(row, track_row()), "out.json")  # rows without it are valid, too
    else:
        assert sentence in refusal(track(row))


def test_a_run_that_succeeded_lasted():
    message = refusal(changed("track", ["rows", 0, "survival_s"], 20.0))
    assert message == (
        "out.json: row 1: survival_s is 20.0, expected clip_s, 24.5, where every episode succeeded."
    )
    assert "expected 1 by the protocol 'clip'" in refusal(
        changed("track", ["rows", 0, "episodes"], 2)
    )


@pytest.mark.parametrize(
    ("field", "new", "sentence"),
    [
        ("quick", True, "settings: quick is true, expected false: such figures are not published."),
        ("policy_sha256", "13fb", "expected a SHA-256, or one for each policy."),
        ("policy_sha256", {"other": "0" * 64}, "expected a policy whose digest the settings tell."),
        ("failure_rules", "some", "expected 'on' or 'off'."),
    ],
)
def test_settings_of_track_are_checked(field, new, sentence):
    assert sentence in refusal(changed("track", ["settings", field], new))


def test_traces_of_track_are_checked():
    message = refusal(changed("track", ["traces", 0, "mpkpe_mm"], [1.0, -2.0]))
    assert "trace 1: mpkpe_mm is [1.0, -2.0], expected a list of numbers of 0 or more" in message


@pytest.mark.parametrize(
    ("kind", "field", "new", "sentence"),
    [
        ("guided", "successes", 51, "successes is 51, expected at most the 50 trials."),
        ("guided", "successes", 30, "success_rate is 0.8, expected successes over trials, 0.6."),
        ("guided", "success_rate", 0.81, "expected successes over trials, 0.8."),
        ("guided", "success_rate_head", 0.8, "expected successes_head over trials, 0.9."),
        ("guided", "successes_strict", 30, "expected no such field beside successes_head."),
        ("guided", "ci95", [0.1, 0.9], "expected Wilson's 95 % interval"),
        ("guided", "task", "fly", "expected 'walk_perturb' or 'joystick' or"),
        ("guided", "trials", 0, "expected a whole number of 1 or more."),
        ("guided", "each", [], "expected an entry for each of the 50 trials."),
        ("guided", "each", [{"success": True}] * 50, "successes is 40, expected 50, as the single"),
        ("gates", "value", 0.5, "passed is true, expected false, for 0.5 is below 0.9."),
        ("gates", "value", None, "value is null, expected a number where the gate is passed."),
        ("gates", "gate", "7", "row 1: gate is \"7\", expected"),
        ("gates", "passed", "yes", "expected true or false, or null."),
        ("throughput", "control_steps_per_s", 0, "expected a number above 0, or null."),
        ("throughput", "control_steps_per_s", None, "expected a number, or null beside an error."),
        ("throughput", "lowest", 1e6, "expected at most control_steps_per_s"),
        ("throughput", "num_envs", 0.5, "expected a whole number of 1 or more."),
        ("learning", "clip", {"success": 2}, "row 1: clip.success is 2, expected a number of 0"),
        ("learning", "first_pass", {"env_steps": 9e9, "wall_s": 1.0}, "first_pass.env_steps is"),
        ("learning", "commit", "HEAD", "row 1: commit is \"HEAD\", expected a commit"),
        ("learning", "commit", "1123a0c30bf8, HEAD", "row 1: commit is \"1123a0c30bf8, HEAD\","),
        ("learning", "machine", {"processor": "x"}, "row 1: machine.cores is null, expected"),
        ("sweep", "error", ..., "row 1: env_steps is null, expected there, in a row without"),
        ("physics_accuracy", "physics_dt", 0, "expected a number above 0."),
        ("sim2sim", "physics_hz", 0, "expected a whole number of 1 or more."),
        ("sim2sim", "state", "guessed", "expected 'true' or 'estimated'."),
        ("sim2sim", "survived", 6, "survived is 6, expected at most the 5 trials."),
        ("sim2sim", "survived", 5, "expected clip_s, 24.5, where every trial survived."),
        ("sim2sim", "survived_s", 25.0, "survived_s is 25.0, expected at most clip_s, 24.5."),
        ("sim2sim", "failures", [], "expected one or more where a trial failed, and none else"),
        ("sim2sim", "command", "sim2sim walk", "expected a command that starts with 'python '."),
        ("sim2sim_guided", "survived", 3, "survived is 3, expected at most the 2 trials."),
        ("sim2sim_guided", "done", 2, "done is 2, expected at most the 1 trials that survived."),
        ("sim2sim_guided", "survived_s", 15.5, "expected at most task_s, 15."),
        ("sim2sim_guided", "failures", [], "expected one or more where a trial failed, and none"),
        ("sim2sim_guided", "each", [], "expected an entry for each of the 2 trials."),
        ("sim2sim_guided", "plan_p99_ms", 6.5, "expected at least plan_p95_ms"),
        ("sim2sim_guided", "plan_p50_ms", None, "expected numbers where there were plans"),
        ("reference", "flags", "none", "expected a list of some of: joint limits, joint speed,"),
        ("reference", "flags", ["slow"], "expected a list of some of: joint limits, joint speed,"),
        ("reference", "flags", [], "expected a time for each of the flags."),
        ("conformance", "outcome", "skipped", "a reason where the test did not pass"),
        ("conformance", "outcome", "fine", "expected 'passed' or 'skipped' or 'failed'."),
        ("clients", "what", "look", "expected 'check' or 'train'."),
        ("clients", "reason", "no torch", "expected a reason where it did not pass, and none"),
        ("clients", "passed", False, "expected a reason where it did not pass, and none where"),
        ("clients", "preset", ..., "preset is null, expected text in a training that passed."),
        ("clients", "steps", 40959, "expected steps that rise to at most 40959."),
        ("clients", "curve", [[1, 2, 3]], "expected two points or more of steps, length and"),
        ("clients", "curve", [[1, 2], [2, 3]], "expected two points or more of steps, length and"),
        ("clients", "episode_length_last", 150, "is 150, expected 31, as the curve has it."),
        ("clients", "reward_per_step_first", 0.1, "is 0.1, expected 0.031, as the curve has it."),
        ("speed", "ratio", 0, "expected a number above 0."),
        ("speed", "precision", "half", "expected 'bfloat16' or 'float32' or 'float64'."),
        ("world_model", "step", 0, "expected a whole number of 1 or more."),
        ("world_model", "model", {"pos_mm": "far"}, "expected an object of numbers"),
    ],
)  # fmt: skip
def test_rows_of_other_kinds_are_checked(kind, field, new, sentence):
    assert sentence in refusal(changed(kind, ["rows", 0, field], new))


def test_a_run_may_have_gone_on_by_a_later_commit():
    check_result(
        changed("learning", ["rows", 0, "commit"], "1123a0c30bf8, 67da643af079+"), "o.json"
    )


def test_a_guided_file_of_before_0_2_is_read():
    value = guided_before_0_2()
    check_result(value, "o.json")
    assert successes_by_rule(value["rows"][0]) == successes_by_rule(guided()["rows"][0]) == (40, 45)
    # A fall by the head is one by the strict rule, so no row has fewer successes by the head.
    for made, name, other in ((guided_before_0_2, "_strict", 46), (guided, "_head", 39)):
        value = made()
        (row,) = value["rows"]
        row[f"successes{name}"], row[f"success_rate{name}"] = other, other / 50
        row[f"ci95{name}"] = [*map(float, wilson(other, 50))]
        sentence = {
            "_strict": "successes_strict is 46, expected at most the 45 successes.",
            "_head": "expected at least the 40 successes by the strict rule.",
        }[name]
        assert sentence in refusal(value)


def test_a_gate_that_wants_little_is_read_the_other_way():
    value = changed("gates", ["rows", 0, "gate"], "0")
    value["rows"][0] |= {"value": 1e-7, "threshold": 1e-5}
    check_result(value, "out.json")
    value["rows"][0]["value"] = 1e-3
    assert "passed is true, expected false, for 0.001 is above 1e-05." in refusal(value)


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_whatever_else_stands_in_a_field_is_one_sentence_or_fine(kind, data):
    """No other exception than ours, whatever JSON a known field holds."""
    value = copy.deepcopy(GOOD[kind])
    row = data.draw(st.sampled_from(value["rows"]))
    target = data.draw(st.sampled_from([value, row, value["machine"]]))
    name = data.draw(st.sampled_from(sorted(target)))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    target[name] = data.draw(
        st.recursive(
            scalars,
            lambda part: (
                st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=4), part, max_size=3)
            ),
            max_leaves=6,
        )
    )
    try:
        check_result(value, "out.json")
    except ResultError as error:
        assert str(error).startswith("out.json: ") and "\n" not in str(error)


@pytest.mark.parametrize("odd", [None, 1.0, [1.0], "1", {}, True])
def test_the_mean_speed_of_a_guided_row_is_a_number(odd):
    """The leaderboard formats it."""
    value = copy.deepcopy(GOOD["guided"])
    value["rows"][0]["mean_speed"] = odd
    if odd is None or type(odd) is float:
        check_result(value, "out.json")
    else:
        assert "mean_speed is" in refusal(value)


# --- files ---


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"is no JSON file of ours \("),
        ("[1]", "holds no object, expected a result file."),
        ('{"kind": NaN}', r"is no JSON file of ours \(NaN is no JSON number\)."),
        ('{"kind": "track", "kind": "gates"}', "the key 'kind' stands twice in one object"),
        ("[" * 100_000, r"is no JSON file of ours \("),
    ],
)
def test_files_that_are_no_result(tmp_path, text, sentence):
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=rf"^{re.escape(str(path))}: .*{sentence}"):
        read_result(path)


def test_a_number_too_large_for_a_float_is_refused(tmp_path):
    path = tmp_path / "out.json"
    path.write_text(json.dumps(GOOD["track"]).replace('"note": 0', '"note": 1e999'))
    with pytest.raises(ResultError, match="the number 1e999 is too large"):
        read_result(path)


def test_folders(tmp_path):
    with pytest.raises(ResultError, match="no such folder"):
        read_results(tmp_path / "none")
    with pytest.raises(ResultError, match="holds no result file"):
        read_results(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.json").write_text(json.dumps(GOOD["gates"]))
    (tmp_path / "a.json").write_text(json.dumps(GOOD["track"]))
    (tmp_path / "policy.json").write_text(json.dumps({"format": "bm-envs policy 1"}))
    assert [file.path.name for file in read_results(tmp_path)] == ["a.json", "b.json"]
    # A description with a kind is a result file that wants to be passed over.
    (tmp_path / "policy.json").write_text(
        json.dumps({**GOOD["track"], "format": "bm-envs policy 1", "commit": "x"})
    )
    with pytest.raises(ResultError, match=r"policy.json: commit is \"x\""):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("where", "new", "sentence"),
    [
        (["values"], [0.4, 0.2, 0.8], "row 1: values is [0.4, 0.2, 0.8], expected numbers that"),
        (["values"], ["a", "b", "c"], "expected numbers on an axis with an order."),
        (["successes"], [0, 4], "expected 3 entries, one for each of values."),
        (["successes", 2], 11, "expected at most the 10 episodes."),
        (["success", 1], 0.5, "expected successes over episodes, 0.4."),
        (["success_ci95", 0], [0.0, 0.9], "expected Wilson's 95 % interval, 0.0000 to 0.2775."),
        (["survival_s", 1], 25.0, "expected at most episode_s, 24.5."),
        (["survival_s", 2], 24.0, "expected episode_s, 24.5, where all survive."),
        (["half"], 0.5, "row 1: half is 0.5, expected 0.466667, as the counts say."),
        (["half"], "beyond", "expected 0.466667, as the counts say."),
        (["half"], "never", "expected a number, or 'before' or 'beyond' the values that were"),
        (["half_ci95"], ["before", 0.3], "as the counts say."),
        (["half_ci95"], None, "as the counts say."),
        (["harder"], "left", "expected 'up' or 'down', or null."),
    ],
)
def test_a_curve_that_contradicts_itself_is_refused(where, new, sentence):
    assert sentence in refusal(changed("robustness", ["rows", 0, *where], new))
