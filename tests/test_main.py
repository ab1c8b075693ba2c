"""The console command `bm-envs`: it starts the scripts as their files would be started."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python

from bm_envs import __main__ as console
from bm_envs import __version__, cli
from bm_envs.cli import help as helps
from bm_envs.errors import PolicyError

ROOT = Path(__file__).resolve().parent.parent
STARTED = {name: command for name, command in console.COMMANDS.items() if command.script}
TRAINERS = [name for name, command in STARTED.items() if command.script.startswith("algos/")]
MAIN = "from bm_envs.__main__ import main; main()"
FLAG = re.compile(r"^│ (--[a-z][\w.-]*)", re.M)


def call(*arguments, before="", cwd=None):
    """Run `bm-envs ARGUMENTS` in a process; `before` is Python that it runs first."""
    return warm_python.run(
        [sys.executable, "-c", before + MAIN, *arguments], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"},
        timeout=600,
    )  # fmt: skip


def without(package):
    """Python that makes a package absent."""
    return f"""
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for name in [name for name in sys.modules if name.partition(".")[0] == {package!r}]:
    del sys.modules[name]
"""


# --- which command is which script ----------------------------------------------------------------


def test_every_command_names_a_script_and_every_trainer_has_a_command():
    named = [command.script for command in STARTED.values()]
    assert all((ROOT / script).is_file() for script in named)
    assert len(set(named)) == len(named)
    algos = {f"algos/{path.name}" for path in (ROOT / "algos").glob("*.py")}
    assert algos <= set(named)


def test_the_page_has_every_command_once_and_fits_a_terminal():
    lines = console.page().splitlines()
    shown = [re.match(r"  ([a-z0-9]+(?: [a-z0-9]+)?)  ", line) for line in lines]
    assert sorted(found[1] for found in shown if found) == sorted(console.COMMANDS)
    assert len(lines) <= 30 and max(map(len, lines)) <= 80
    assert [line.split()[1] for line in console.page("train").splitlines()[:3]] == [
        "ppo", "wm", "guided",
    ]  # fmt: skip


def test_the_page_of_the_documentation_has_every_command_with_its_file():
    text = (ROOT / "docs/command.md").read_text()
    rows = re.findall(r"^\| `bm-envs ([\w ]+)` \| .+ \| (?:`(.+)`)? ?\|$", text, re.M)
    assert rows == [(name, command.script) for name, command in console.COMMANDS.items()]


def test_a_clone_runs_its_own_files():
    assert console.scripts_folder() == ROOT


@pytest.mark.parametrize("name", STARTED)
def test_help_of_a_command_is_its_script_s(name):
    done = call(*name.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: bm-envs {name} [-h] ")
    text = (ROOT / STARTED[name].script).read_text()
    summary = " ".join(text.removeprefix('"""').partition("\n\n")[0].split())
    assert summary in " ".join(done.stdout.split())
    assert f"    bm-envs {name} " in done.stdout  # an example of the docstring
    assert not re.search(r"\b(algos|benchmarks|tools)/\w+\.py", done.stdout.partition("╭")[0])


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "Unknown command 'trian'; did you mean 'train' or 'track'?"),
        (["reply", "--web"], "Unknown command 'reply'; did you mean 'replay'"),
        (["train", "pop"], "Unknown command 'train pop'; did you mean 'train ppo'"),
        (["motion", "chekc"], "Unknown command 'motion chekc'; did you mean 'motion check'"),
        (["--motion", "walk"], "Unknown command '--motion'; did you mean 'motion'?"),
    ],
)
def test_an_unknown_command_is_one_sentence_with_the_nearest(arguments, told):
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", [*TRAINERS, "guided"])
def test_a_missing_extra_is_one_sentence(name):
    package = "tqdm" if name in ("collect", "guided") else "torch"
    done = call(*name.split(), before=without(package))
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "",
        f"error: bm-envs {name} needs the package {package}: pip install 'bm-envs[train]'.\n",
    )  # fmt: skip


def test_a_part_of_this_package_that_is_missing_is_a_defect():
    lacking = "import bm_envs.learning, sys\nsys.modules['bm_envs.learning.run'] = None\n"
    done = call("train", "ppo", "--help", before=lacking)
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("where", [["--video", "walk.mp4"], []], ids=["a video", "a window"])
def test_errors_name_the_commands_as_the_person_calls_them(where, monkeypatch):
    """Without a display, too: what was mistyped is told before one is looked for."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = call("replay", "--motion", "wlak", *where)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: Unknown motion 'wlak'; did you mean 'walk'.*: run bm-envs replay --list\.\n",
        done.stderr,
    ), done.stderr


def test_the_status_is_the_script_s():
    done = call("track", "--policy", "none.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.onnx: no such policy file or run directory.\n"
    assert call("replay", "--list").returncode == 0


# --- what is there at once ------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["train"], ["motion", "--help"]])
def test_the_page_loads_nothing_that_is_slow(arguments):
    code = f"""
import sys
sys.argv = ["bm-envs", *{arguments!r}]
from bm_envs.__main__ import main
main()
slow = [name for name in ("torch", "mujoco", "tyro", "onnx", "viser") if name in sys.modules]
assert not slow, slow
"""
    assert importlib.util.find_spec("torch"), "premise: it could be loaded"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "bm-envs COMMAND --help" in done.stdout


def test_the_module_is_the_command():
    for arguments, told in (
        (["--version"], f"bm-envs {__version__}"),
        ([], console.page()),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bm_envs", *arguments], capture_output=True, text=True,
            cwd=ROOT, timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, told + "\n"), done.stderr


# --- a trainer's help -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_s_help_is_short_and_all_of_it_is_there(name):
    short, whole = (call(*name.split(), flag).stdout for flag in ("--help", "--help-all"))
    few, all_of_them = FLAG.findall(short), FLAG.findall(whole)
    assert len(few) == 10 and len(set(few)) == 10
    assert set(few) < set(all_of_them)
    examples = re.findall(r"^    (?:bm-envs|torchrun) .*", short, re.M)
    assert len(examples) == 2
    text = (ROOT / STARTED[name].script).read_text().split('"""')[1]
    told = re.findall(r"^ +(?:python|torchrun) (.*)", text, re.M)
    assert len(told) >= 2 and len(re.findall(r"^    (?:bm-envs|torchrun) ", whole, re.M)) == len(
        told
    )
    assert short.splitlines()[-1] == "All flags: --help-all"
    assert "--help-all" not in whole


def test_a_preset_s_values_are_the_defaults_of_its_help():
    laptop, published = (
        call("train", "ppo", *preset, "--help").stdout for preset in ([], ["--preset", "published"])
    )
    assert "Robots, N. (default: 256)" in laptop and "Robots, N. (default: 4096)" in published
    gpu = call("train", "ppo", "--preset=gpu", "--help").stdout
    assert "Physics backend of training. (default: mujoco_warp)" in gpu


def test_an_unknown_flag_leads_to_all_flags():
    done = call("train", "wm", "--cirtic")
    assert done.returncode == 2 and done.stderr.endswith("; --help-all lists the flags.\n")
    done = call("track", "--plicy", "walk")
    assert done.returncode == 2 and done.stderr.endswith("; --help lists the flags.\n")


@dataclasses.dataclass(frozen=True)
class Small:
    """No trainer."""

    seed: int = 0
    colour: str = "red"


def test_main_flags_are_taken_in_their_order():
    assert helps.main_flags(Small) == ["seed"]


def test_texts_name_scripts_as_the_command_does_only_where_it_started_them(monkeypatch):
    text = "run python tools/replay.py --list, or tools/none.py, or mytools/replay.py"
    assert cli.spelled(text) == text
    monkeypatch.setattr(helps, "_names", {"tools/replay.py": "bm-envs replay"})
    assert cli.spelled(text) == "run bm-envs replay --list, or tools/none.py, or mytools/replay.py"


# --- the demo -------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """What a demo starts, on a machine with a browser and all packages."""
    calls = []
    monkeypatch.setattr(console, "start", lambda name, arguments: calls.append([name, *arguments]))
    monkeypatch.setattr(console, "has_browser", lambda: True)
    monkeypatch.setattr(console, "is_there", lambda package: True)
    return calls


def test_a_demo_is_a_page_where_there_is_a_browser(started):
    console.demo(console.Demo())
    assert started == [["play", "--policy", "stride", "--web", "--open"]]


def test_a_demo_is_a_video_where_there_is_none_or_one_is_asked_for(started, monkeypatch, tmp_path):
    console.demo(console.Demo(video=tmp_path / "a.mp4", seconds=3.0))
    monkeypatch.setattr(console, "has_browser", lambda: False)
    console.demo(console.Demo())
    console.demo(console.Demo(policy="guided_body_pos"))
    video = ["replay", "--policy", "stride", "--show", "policy", "--fast", "--video"]
    assert started == [
        [*video, str(tmp_path / "a.mp4"), "--seconds", "3.0"],
        [*video, "bm_envs_demo.mp4", "--seconds", "10.0"],
        ["play", "--policy", "guided_body_pos", "--fast", "--video", "bm_envs_demo.mp4",
         "--seconds", "10.0"],
    ]  # fmt: skip
    with pytest.raises(PolicyError, match="did you mean 'walk'"):
        console.demo(console.Demo(policy="wlak"))


def test_a_demo_says_what_it_lacks(started, monkeypatch):
    monkeypatch.setattr(console, "is_there", lambda package: package not in ("viser", "av"))
    with pytest.raises(ValueError, match=r"needs av: pip install 'bm-envs\[deploy,viz\]'"):
        console.demo(console.Demo())
    monkeypatch.setattr(console, "is_there", lambda package: package != "onnxruntime")
    with pytest.raises(ValueError, match=r"needs onnxruntime: .*\[deploy,web\]"):
        console.demo(console.Demo())
    assert started == []


def test_no_browser_without_a_display(monkeypatch):
    monkeypatch.setattr(console.webbrowser, "get", lambda: object())
    monkeypatch.setenv("DISPLAY", ":0")
    assert console.has_browser()

    def none():
        raise console.webbrowser.Error("no browser")

    monkeypatch.setattr(console.webbrowser, "get", none)
    assert not console.has_browser()
    if sys.platform == "linux":
        monkeypatch.setattr(console.webbrowser, "get", lambda: object())
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            monkeypatch.delenv(name, raising=False)
        assert not console.has_browser()


def test_the_demo_s_video_is_of_a_robot_that_walks(opengl, tmp_path):
    av = pytest.importorskip("av")
    done = call("demo", "--video", "demo.mp4", "--seconds", "2.4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "policy stride" in done.stdout and "survived 2.40 of 2.40 s" in done.stdout
    with av.open(str(tmp_path / "demo.mp4")) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(pictures) == 61
    assert abs(pictures[0].astype(int) - pictures[-1]).max() > 100, "nothing moves"
