"""Every command with places that cannot be: one sentence and status 2, before any work, never more.

The commands are called in this process, through the same `cli.run`. What a flag is about is told
by its name, so that a command that comes later is tried too (`test_every_command_is_tried`).
"""

import dataclasses
import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from bm_envs import cli

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("algos", "benchmarks", "tools")
SCRIPTS = {
    f"{path.parent.name}/{path.stem}": path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
}

# What a command asks for beside the flag that is tried. None of it is read before that is refused,
# or it is what the command would read.
NEEDED = {
    "algos/collect_rollouts": ("--policy", "walk", "--out", "{tmp}/out"),
    "algos/dagger_vae": ("--policy", "walk", "--num-envs", "8"),
    "algos/ddpm_guided": ("--data", "{tmp}/none"),
    "algos/ppo_guided": ("--task", "joystick", "--num-envs", "8"),
    "algos/ppo_track": ("--num-envs", "8"),
    "algos/wm_track": ("--num-envs", "8"),
    "benchmarks/gates": ("--policy", "guided_body_pos"),
    "benchmarks/guided": ("--policy", "guided_body_pos", "--task", "joystick"),
    "benchmarks/learning": ("--json", "{tmp}/out.json", "--run-dir", "{tmp}/runs"),
    "benchmarks/retarget_solvers": ("{tmp}/none.bvh",),
    "benchmarks/robustness": ("walk",),
    "benchmarks/same_numbers": ("--parts", "files"),
    "benchmarks/track": ("--policy", "walk"),
    "benchmarks/world_model": ("--run", "{tmp}/none", "--json", "{tmp}/out.json"),
    "tools/csv_to_npz": ("{tmp}/none.csv", "{tmp}/out.npz"),
    "tools/check_reference": ("--motion", "walk"),
    "tools/deploy": ("walk",),
    "tools/export_onnx": ("{tmp}/none", "{tmp}/out.onnx"),
    "tools/repair_motion": ("walk", "{tmp}/out.npz"),
    "tools/retarget": ("{tmp}/none.bvh", "{tmp}/out.npz"),
    "tools/rollouts_to_minari": ("{tmp}/none", "bm/x-v0"),
    "tools/play": ("--policy", "walk"),
    "tools/replay": ("--motion", "walk"),
    "tools/ros_bridge": ("walk",),
    "tools/ship_policy": ("{tmp}/none", "lafan1_none"),
    "tools/sim2sim": ("walk",),
}
POSITIONAL = {"csv": 0, "npz": 1, "onnx": 1}
# What a flag reads. Flags of this kind that only choose among names of ours are left out.
INPUTS = {
    "algos/collect_rollouts": ("policy", "motion"),
    "algos/dagger_vae": ("policy",),
    "algos/ddpm_guided": ("data", "start_from"),
    "algos/ppo_track": ("motion", "start_from"),
    "algos/wm_track": ("motion", "start_from"),
    "benchmarks/demo_page": ("site",),
    "benchmarks/gates": ("policy",),
    "benchmarks/guided": ("policy",),
    "benchmarks/leaderboard": ("results",),
    "benchmarks/learning": ("against",),
    "benchmarks/robustness": ("#0", "motion"),
    "benchmarks/same_numbers": ("against",),
    "benchmarks/track": ("policy", "motion", "policy_config"),
    "benchmarks/world_model": ("run", "against"),
    "tools/check_reference": ("motion",),
    "tools/csv_to_npz": ("#0",),
    "tools/deploy": ("#0", "motion", "then", "policy_config"),
    "tools/export_onnx": ("#0", "motion"),
    "tools/replay": ("policy", "motion", "policy_config"),
    "tools/repair_motion": ("#0",),
    "tools/retarget": ("#0", "mapping", "skeleton"),
    "tools/rollouts_to_minari": ("#0",),
    "tools/ros_bridge": ("#0", "motion", "policy_config"),
    "tools/ship_policy": ("#0",),
    "tools/sim2sim": ("#0", "motion", "policy_config"),
}


def module_of(command):
    path = SCRIPTS[command]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # `benchmarks/sim2sim.py` and `tools/sim2sim.py` have one name.
    name = f"_command_{path.parent.name}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a command as its file does; returns its status and what it printed on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = {number: signal.getsignal(number) for number in cli.ENDING_SIGNALS}

    def run(command, *arguments):
        module = module_of(command)
        monkeypatch.setattr(sys, "argv", [str(SCRIPTS[command]), *map(str, arguments)])
        presets = getattr(module, "PRESETS", None)
        with pytest.raises(SystemExit) as end:
            cli.run(module.main, module.Config, presets=presets)
        return end.value.code, capsys.readouterr().err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
    # Robots that a command made hold gigabytes of address space, and refer to each other.
    gc.collect()


def settings_of(config):
    """Names and types of a class's settings, those of its run's among them."""
    if not dataclasses.is_dataclass(config):
        return  # tools/hub.py, with a class for each of its commands
    for name, kind in typing.get_type_hints(config).items():
        if dataclasses.is_dataclass(kind) and name == "run":
            yield from settings_of(kind)
        else:
            yield name, kind


def outputs_of(command):
    fields = dict(settings_of(module_of(command).Config))
    paths = [name for name, kind in fields.items() if "Path" in str(kind)]
    names = [name for name in (*cli.OUTPUT_FILES, *cli.OUTPUT_FOLDERS) if name in paths]
    return [name for name in names if (command, name) != ("tools/export_onnx", "run_dir")]  # read


def arguments(command, tmp, name, value):
    """A command line with `value` for the setting `name`."""
    needed = [part.replace("{tmp}", str(tmp)) for part in NEEDED.get(command, ())]
    flag = f"--{name.replace('_', '-')}"
    position = int(name[1:]) if name.startswith("#") else POSITIONAL.get(name)
    bare = [i for i, part in enumerate(needed) if not part.startswith("--") and (
        i == 0 or not needed[i - 1].startswith("--"))]  # fmt: skip
    if position is not None:
        if not bare:
            return [*needed, str(value)]
        needed[bare[position]] = str(value)
        return needed
    if flag in needed:
        needed[needed.index(flag) + 1] = str(value)
        return needed
    return [*needed, flag, str(value)]


def sentence(status, told):
    """What was refused; a command that says more or less than that fails here."""
    assert status == 2, told
    lines = [line for line in told.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), told
    assert len(told.splitlines()) <= 3, told
    return lines[0]


def bad_places(tmp, is_folder):
    (tmp / "file").write_text("")
    (tmp / "folder").mkdir()
    (tmp / "loop").symlink_to(tmp / "loop")
    yield "file" if is_folder else "folder"
    yield "file/below"
    yield "loop/below"
    yield "n" * 300


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_place_to_write_that_cannot_be_is_refused_at_once(command, call, tmp_path):
    names = outputs_of(command)
    for name in names:
        place = tmp_path / name
        place.mkdir()
        for bad in bad_places(place, name in cli.OUTPUT_FOLDERS):
            status, told = call(command, *arguments(command, tmp_path, name, place / bad))
            # Some commands have a check of their own, of what their writer can write.
            assert re.search(
                "cannot be written|is a folder|expected|must end in|ends in|too long",
                sentence(status, told),
            ), told
    assert {path.name for path in tmp_path.iterdir()} == set(names), "something was written"


def odd_files(tmp):
    """Things where a file or a folder with content is expected; each is no input of any command."""
    (tmp / "empty").write_bytes(b"")
    (tmp / "zeros.onnx").write_bytes(bytes(4096))
    (tmp / "noise.csv").write_bytes(bytes(range(256)) * 16)
    (tmp / "noise.npz").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    (tmp / "deep.json").write_text("[" * 50_000)
    (tmp / "list.json").write_text('[1, "two", null]')
    (tmp / "folder").mkdir()
    (tmp / "loop").symlink_to(tmp / "loop")
    os.mkfifo(tmp / "pipe.json")
    yield from ("none", "none.csv", "empty", "zeros.onnx", "noise.csv", "noise.npz", "deep.json",
                "list.json", "folder", "loop", "loop/below.npz", "n" * 300, "n" * 300 + ".csv",
                "line\nbreak.bvh")  # fmt: skip


@pytest.mark.parametrize(
    ("command", "name"), [(c, name) for c, names in INPUTS.items() for name in names]
)
def test_an_input_that_is_none_is_one_sentence(command, name, call, tmp_path):
    for odd in odd_files(tmp_path):
        try:
            status, told = call(command, *arguments(command, tmp_path, name, tmp_path / odd))
        except Exception as error:
            pytest.fail(f"{command} {name} {odd[:40]!r}: {type(error).__name__}: {error}")
        sentence(status, told)


def test_every_command_is_tried():
    """A setting of a type or name that says path is among those that are tried."""
    others = {"peer_dir", "mesh_dir", "stage", "picture", "script", "root"}
    for command in SCRIPTS:
        config = module_of(command).Config
        if not dataclasses.is_dataclass(config):
            continue  # tools/hub.py, with a class for each of its commands
        for name, kind in settings_of(config):
            if "Path" not in str(kind) or name in others:
                continue
            positions = [key for key in INPUTS.get(command, ()) if key.startswith("#")]
            assert (
                name in cli.OUTPUT_FILES
                or name in cli.OUTPUT_FOLDERS
                or name in INPUTS.get(command, ())
                or positions
                or (command, name) == ("benchmarks/retarget_solvers", "motions")
            ), (command, name)


def test_a_command_asks_after_mujoco_gl_before_mujoco_does():
    for path in SCRIPTS.values():
        text = path.read_text()
        if found := re.search(r"^(import mujoco|from mujoco)", text, re.MULTILINE):
            assert "\nfrom bm_envs import cli" in text[: found.start()], path
    done = subprocess.run(
        [sys.executable, str(SCRIPTS["tools/sim2sim"]), "walk"], capture_output=True, text=True,
        env={**os.environ, "MUJOCO_GL": "foo", "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        "error: MUJOCO_GL is 'foo', which MuJoCo does not know; unset it, or set it to egl, osmesa "
        "or glfw.\n",
    )
