"""`tools/sim2sim.py` and `benchmarks/sim2sim.py`: runs, figures, failures."""

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_files import make_mlp

from bm_envs.deploy.controller import ControllerConfig
from bm_envs.diffusion.errands import Errand
from bm_envs.diffusion.model import load_model
from bm_envs.policy import PolicySpec, write_onnx
from bm_envs.results import check_result

ROOT = Path(__file__).resolve().parents[2]
TOOL, BENCHMARK = ROOT / "tools" / "sim2sim.py", ROOT / "benchmarks" / "sim2sim.py"
ORACLES = Path(os.environ.get("BM_DATA_DIR", "/nonexistent")) / "oracle_policies"
JUMP = ORACLES / "jump_wose" / "Jump_wose.onnx"
needs_jump = pytest.mark.skipif(not JUMP.is_file(), reason="BM_DATA_DIR is not set")
SHORT = ("--motion", "walk[0:0.4]", "--stand-s", "0.2", "--end-s", "0.1")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """A script's command line, run in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, script=TOOL):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


@pytest.mark.slow
@pytest.mark.clone  # a result tells the commit
@needs_jump
@pytest.mark.parametrize("flags", [("--physics-hz", "2000"), ("--state", "estimated")])
def test_a_foreign_policy_stands_up_jumps_and_stands(command, flags):
    status, out, _ = command(JUMP, *flags, "--json", "out.json")
    assert status == 0 and "survived 3.28 of 3.28 s; joints off by 0.0" in out
    result = json.loads(Path("out.json").read_text())
    (row,) = result["rows"]
    # What the oracle folder's README suggests for another simulator: 0.055 to 0.075 rad.
    assert 0.055 < row["joint_pos_rad"] < 0.075
    assert (row["trials"], row["survived"], row["failures"]) == (1, 1, [])
    assert (row["base_vel_error_m_s"] > 0) == ("estimated" in flags)
    result["command"] = row["command"] = "python tools/sim2sim.py Jump_wose.onnx"
    check_result(result, "out.json")


@needs_jump
@pytest.mark.parametrize(("rate", "error"), [(500, 0.0660), (1000, 0.0664)])
def test_the_error_is_the_one_found_elsewhere(command, rate, error):
    """Published for a plain MuJoCo loop from the first frame: 0.0660 rad at 2 ms, 0.0664 at 1 ms.

    The means there have the first frame, of no error, too (1 of 165: 0.0004), and drives are
    MuJoCo's there, too; what is left is another version of the engine.
    """
    status, _, _ = command(
        JUMP, "--physics-hz", rate, "--start", "reference", "--lead", 0, "--no-self-collision",
        "--end-s", 0, "--json", "out.json",
    )  # fmt: skip
    (row,) = json.loads(Path("out.json").read_text())["rows"]
    assert status == 0
    assert row["joint_pos_rad"] == pytest.approx(error * 165 / 164, abs=5e-4)


def test_a_policy_without_its_motion_takes_it_from_the_library(command):
    status, out, _ = command("builtin", *SHORT)
    assert status == 0 and "survived 0.40 of 0.40 s" in out


def test_equal_seeds_give_equal_runs_and_others_not(command):
    def figures(seed):
        command("walk", *SHORT, "--noise", 1, "--seed", seed, "--json", "out.json")
        (row,) = json.loads(Path("out.json").read_text())["rows"]
        return {k: row[k] for k in ("joint_pos_rad", "mpkpe_mm", "base_vel_error_m_s")}

    assert figures(1) == figures(1) != figures(2)


def test_a_motion_that_ends_in_mid_stride_ends_in_a_stand(command):
    """A fraction of the walk, at whose end one foot is in the air; `hold` does as the name says."""
    status, out, _ = command("walk", "--motion", "walk[4:5.3]", "--json", "o.json")
    assert status == 0 and "survived 1.30 of 1.30 s; " in out
    (row,) = json.loads(Path("o.json").read_text())["rows"]
    assert (row["at_end"], row["end_s"], row["completed"], row["survived"]) == ("balance", 4, 1, 1)


def test_standing_still_is_in_place_high_and_upright():
    moves = runpy.run_path(str(TOOL))["moves"]
    qpos = np.tile(np.concatenate([(0, 0, 0.75, 1, 0, 0, 0), np.zeros(29)]), (50, 1))
    assert moves(qpos) == ""
    walks = qpos.copy()
    walks[:, 0] = np.linspace(0, 0.3, 50)
    assert moves(walks) == "does not stand still at the end (0.30 m in 1 s)"
    squats, leans = qpos.copy(), qpos.copy()
    squats[20, 2] = 0.55
    leans[:, 3:7] = np.cos(0.2), 0, np.sin(0.2), 0  # 23 degrees
    assert moves(squats) == moves(leans) == "is not upright at the end"


@pytest.mark.clone
def test_a_fall_is_exit_status_1_and_named(command):
    # A twentieth of the torque holds nothing.
    status, out, _ = command(
        "walk",
        *SHORT[:2],
        "--effort-scale",
        0.05,
        "--stand-s",
        3,
        "--trials",
        2,
        "--json",
        "o.json",
    )
    assert status == 1
    assert out.count("survived 0.00 of 0.40 s: stopped while standing up, ") == 2
    assert "0 of 2 trials survived" in out
    result = json.loads(Path("o.json").read_text())
    (row,) = result["rows"]
    assert row["survived"] == 0 and row["joint_pos_rad"] is None
    assert len(row["failures"]) == 1 and row["failures"][0].startswith("stand: ")
    check_result(result, "o.json")


def test_a_policy_that_does_nothing_useful_falls_in_the_motion(command):
    spec = PolicySpec.for_g1(stiffness=np.full(29, 1.0), damping=np.full(29, 0.5))
    write_onnx("limp.onnx", make_mlp(), spec, None)
    status, out, _ = command("limp.onnx", "--motion", "walk[0:3]")
    assert status == 1 and " of 3.00 s: stopped in the motion, " in out
    survived = float(out.split("survived ")[1].split()[0])
    assert 0 < survived < 2


def test_video(command, opengl):
    av = pytest.importorskip("av")
    status, out, _ = command(
        "walk", *SHORT, "--video", "v.mp4", "--fast", "--width", 64, "--height", 48, "--fps", 10
    )  # fmt: skip
    assert status == 0 and "video in v.mp4" in out
    with av.open("v.mp4") as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    # 0.2 s standing, 0.4 s of motion, 0.1 s of end: at 0, 0.1, ... 0.7 s.
    assert len(pictures) == 8 and pictures[0].shape == (48, 64, 3)
    assert pictures[0].std() > 5, "something is drawn"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "Unknown policy 'nobody';"),
        (["missing.onnx"], "missing.onnx: no such policy file or run directory."),
        (["walk", "--motion", "wlak"], "Unknown motion 'wlak'; did you mean 'walk'"),
        (["builtin"], "builtin.onnx: holds no motion and names 8; name one with --motion."),
        (["walk", "--physics-hz", "50"], "physics_hz is 50, expected 500, 1000 or 2000."),
        (["walk", "--end-s", "None"], "end_s is none, expected seconds: a simulation has to end."),
        (["walk", "--trials", "0"], "trials is 0, expected 1 to 10000."),
        (["walk", "--video", "v.avi"], "v.avi: the name of a video must end in .mp4."),
        (["walk", "--video", "v.mp4", "--width", "3"], "expected even numbers for a video."),
        (["walk", "--fps", "0"], "fps is 0, expected 1 to 50."),
        (["walk", "--json", "."], ". is a folder, expected the name of a file for --json."),
        (
            ["guided_body_pos"],
            "guided_body_pos is a guided model, which has no motion: name a task",
        ),
        (["walk", "--task", "joystick"], "task is 'joystick', but walk is no guided model:"),
        (
            ["guided_body_pos", "--task", "joystick", "--motion", "walk"],
            "motion is given, but a guided model takes none.",
        ),
        (["guided_body_pos", "--task", "joystick", "--plan-ms", "-1"], "expected 0 to 1000 ms."),
        (
            ["guided_body_pos", "--task", "joystick", "--sampler", "rolling"],
            "sampler is 'rolling', expected 'full' or a number of calls",
        ),
    ],
)
def test_bad_input_is_one_sentence(command, arguments, sentence):
    status, out, err = command(*arguments)
    assert status == 2 and err.startswith("error: ") and sentence in err
    assert err.count("\n") == 1 and "survived" not in out and not list(Path.cwd().iterdir())


def test_a_file_that_is_no_policy_is_one_sentence(command):
    Path("junk.onnx").write_bytes(b"\x08\x01junk")
    status, _, err = command("junk.onnx")
    assert status == 2 and "junk.onnx: " in err and err.count("\n") == 1


def test_a_missing_package_is_one_sentence(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    status, out, err = command("walk", *SHORT, "--json", "r.json", "--video", "v.mp4")
    assert (status, out, err) == (
        2, "", "error: A video needs the package av: pip install 'bm-envs[viz]'.\n",
    )  # fmt: skip
    assert not list(Path.cwd().iterdir())  # it is said before anything is run
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = command("walk", *SHORT)
    assert status == 2 and "need the package onnxruntime: pip install 'bm-envs[deploy]'." in err


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what only type checkers import."""

    def visit_If(self, node):
        return None if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)


def test_nothing_of_the_environments_is_in_the_loop():
    """The second implementation shares no code with the first; pictures are drawn after the run."""
    allowed = ("cli", "rotations", "deploy", "errors", "policy", "results", "robots")
    eager, lazy = [], []
    tree = WithoutTypes().visit(ast.parse(TOOL.read_text()))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bm_envs"):
            names = [f"{node.module}.{alias.name}".split(".")[1] for alias in node.names]
            (lazy if node.col_offset else eager).extend(names)
    # A guided model has its states, costs and figures from there, and is loaded when asked for.
    assert set(eager) == set(allowed) and set(lazy) == {"diffusion", "viewers"}
    code = (
        "import sys, bm_envs.deploy.robot; before = set(sys.modules)\n"
        "print([n for n in before if n.startswith(('bm_envs.tasks', 'bm_envs.backends', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- guided models --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope="module")
def model():
    return load_model("guided_body_pos")


def guided(tool, model, errand, *, seed=0, plan_ms=20.0, **settings):
    """A short run, by few calls of the network."""
    controller = ControllerConfig(**{"stand_s": 0.6, "end_s": 0.4} | settings)
    config = tool["Config"](
        "guided_body_pos", task="joystick", controller=controller, plan_ms=plan_ms, sampler="4"
    )
    return tool["run_guided"](model, errand, config, seed)


FORWARD = Errand("joystick", 150, np.array([[0.5, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("state", "plan_ms"),
    [("estimated", 20.0), *(pytest.param(*p, marks=pytest.mark.slow) for p in (
        ("true", 0.0), ("true", 40.0)))],
)  # fmt: skip
def test_a_guided_model_walks_and_stops(tool, model, state, plan_ms):
    """3 s forward and a stop, from standing to standing; half of the speed is enough."""
    result = guided(tool, model, FORWARD, state=state, plan_ms=plan_ms)
    assert (result.failure, result.failed_in, result.survived_s) == ("", "", 6.0)
    assert result.figures["followed"] == 1 and result.figures["done"]
    age = round(plan_ms / 20.0)
    assert set(result.ages) == ({0} if not age else {age, 2 * age - 1}) and result.late == 0
    walked = result.qpos[result.began + 150] - result.qpos[result.began]
    assert walked[0] > 0.5
    assert abs(result.qpos[-1][0] - result.qpos[-20][0]) < 0.05, "it stands at the end"
    assert result.qpos[-1][2] > 0.7


def test_equal_seeds_of_a_guided_model_give_equal_runs(tool, model):
    """Though plans come from a thread: in the simulation they take the time that is said."""
    short = Errand("joystick", 20, FORWARD.commands)
    first, again, other = (guided(tool, model, short, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.qpos, again.qpos)
    assert not np.array_equal(first.qpos, other.qpos)


def test_a_model_that_answers_no_number_damps(tool, model, monkeypatch):
    calls = []

    def broken(*window):
        states, actions = type(model).denoise(model, *window)
        calls.append(1)
        return states, actions * (np.nan if len(calls) > 80 else 1.0)

    monkeypatch.setattr(model, "denoise", broken)
    result = guided(tool, model, FORWARD)
    assert (result.failure, result.failed_in) == ("the policy's action is not finite", "run")
    # 4 calls to warm up and 4 a plan: that of step 19, which comes when step 20 would begin.
    assert result.survived_s == pytest.approx(19 * 0.02)
    assert not result.figures["done"]


def test_a_model_that_falls_is_told(tool, model):
    """Pushed by 3 m/s."""
    pushed = Errand("walk_perturb", 100, pushes={10: np.array([0.0, 3.0])})
    result = guided(tool, model, pushed)
    assert result.failed_in == "run" and 0.2 < result.survived_s < 2.0
    assert tool["describe_guided"](result, pushed).startswith(
        f"survived {result.survived_s:.2f} of 5.00 s: stopped in the task, "
    )


@pytest.mark.slow
@pytest.mark.clone  # a result tells the commit
def test_a_guided_command_with_a_result_and_a_video(command, opengl):
    status, out, _ = command(
        "guided_joint_rot", "--task", "waypoint", "--sampler", "3", "--stand-s", "0.6", "--end-s",
        "0.3", "--json", "o.json", "--video", "v.mp4", "--fast", "--width", 64, "--height", 48,
        "--fps", 2,
    )  # fmt: skip
    assert "survived " in out and " of 18.00 s" in out and "a plan took " in out
    result = json.loads(Path("o.json").read_text())
    (row,) = result["rows"]
    assert row["survived"] == 1 - status and 0 < row["plan_p50_ms"] <= row["plan_p99_ms"]
    assert row["representation"] == "joint_rot" and Path("v.mp4").stat().st_size > 1000
    result["command"] = row["command"] = "python tools/sim2sim.py guided_joint_rot --task waypoint"
    check_result(result, "o.json")


@pytest.mark.slow
def test_the_benchmark_has_a_row_for_each_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = Path(os.environ["PYTEST_CURRENT_TEST"].split("::")[0]).with_suffix(".out.json")
    flags = f"--motion 'walk[0:0.1]' {' '.join(SHORT[2:])}"
    try:
        status, out, _ = command(
            "walk", "--quick", f"--flags={flags}", "--json", path, script=BENCHMARK
        )
        result = json.loads(path.read_text())
    finally:
        path.unlink(missing_ok=True)
    assert status == 0 and out.count("1 of 1 survived, 0.10 of 0.10 s") == 3
    assert [row["command_ms"] for row in result["rows"]] == [0, 10, 20]
    assert result["rows"][1]["command"] == (
        "python tools/sim2sim.py walk --physics-hz 1000 --state true --command-ms 10 "
        "--motion 'walk[0:0.1]' --stand-s 0.2 --end-s 0.1"
    )
    assert result["settings"] == {"quick": True}, "which keeps it out of the published ones"


def test_the_benchmark_tells_what_a_run_refuses(command):
    status, _, err = command("nobody", "--quick", script=BENCHMARK)
    assert status == 2 and "error: tools/sim2sim.py failed: Unknown policy 'nobody'" in err
