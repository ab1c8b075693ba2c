"""What README and docs say can be run: commands, flags, files and code."""

import functools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import PIL.Image
import pytest
import warm_python

from bm_envs.__main__ import COMMANDS
from bm_envs.learning.folder import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "docs").rglob("*.md")
    if "node_modules" not in path.parts
)
SCRIPT = re.compile(
    r"(?:python )?((?:algos|benchmarks|tools)/(?:\w+/)?\w+\.py)((?:[^\S\n]+[^\s`|]+)*)"
)
# A part of the console command, where a line or a piece of code begins with it.
COMMAND = re.compile(
    r"(?:^|`|/)(bm-envs (?:(?:motion|train) )?[a-z]\w*)((?:[^\S\n]+[^\s`|]+)*)", re.M
)


def text(page):
    return (ROOT / page).read_text()


def blocks(page, language):
    """Contents of the page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.M | re.S)


def run(command, **options):
    start = warm_python.run if command[0] == sys.executable else subprocess.run
    return start(command, capture_output=True, text=True, cwd=ROOT, **options)


def one_line(command):
    return " ".join(command.replace("\\\n", " ").split())


# --- the two commands ----------------------------------------------------------------------------


def test_readme_has_two_commands_that_set_up_for_themselves():
    train, test = map(one_line, blocks("README.md", "sh"))
    setup = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[{}]' && "
    learn = ".venv/bin/python algos/ppo_track.py --motion walk --total-timesteps 3000000"
    assert train == setup.format("train") + learn
    assert test == setup.format("dev") + ".venv/bin/python -m pytest -n 2 --dist loadfile"


def test_ci_runs_the_second_command():
    done = run(["bash", ".ci/run", "--list"], timeout=300)
    assert done.returncode == 0, done.stderr
    setup, *checks, tests = done.stdout.splitlines()
    command = one_line(blocks("README.md", "sh")[1])
    assert f"{setup} && {tests}".replace(".ci-cache/venv", ".venv") == command
    assert [line.split()[0].rpartition("/")[2] for line in checks] == ["ruff", "ruff", "pyright"]


def test_the_training_command_trains(tmp_path):
    """The first command's last part, cut short: 16 robots for one iteration of 32 steps."""
    command = one_line(blocks("README.md", "sh")[0]).rpartition(" && ")[2]
    arguments = command.replace(".venv/bin/python", sys.executable).split()
    run_dir = tmp_path / "run"
    short = ["--num-envs", "16", "--total-timesteps", "512", "--run-dir", str(run_dir)]
    done = run([*arguments, *short], timeout=300)
    assert done.returncode == 0, done.stderr
    for name in ("config.json", "checkpoint.pt", "policy.onnx", "policy.json", "metrics.jsonl"):
        assert (run_dir / name).stat().st_size > 0


def test_the_skeleton_of_a_trainer_trains_and_goes_on(tmp_path):
    """Of the page on extending: a resumed run has the policy of one that was never stopped."""
    skeleton, _ = blocks("docs/extending.md", "python")
    script = tmp_path / "search_track.py"
    script.write_text(skeleton)

    def train(folder, steps, *more):
        done = run([
            sys.executable, str(script), "--motion", "stand", "--num-envs", "4", "--num-steps", "4",
            "--total-timesteps", str(steps), "--run-dir", str(tmp_path / folder), *more,
        ], timeout=300)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return load_checkpoint(tmp_path / folder / "checkpoint.pt", ("policy", "best"))

    whole, begun = train("whole", 96), train("parts", 48)
    parts = train("parts", 96, "--resume")
    assert parts["best"] == whole["best"] and (tmp_path / "parts" / "policy.onnx").is_file()
    states = [{k: v.tolist() for k, v in one["policy"].items()} for one in (whole, parts, begun)]
    assert states[0] == states[1]


@pytest.mark.parametrize("page", ["README.md", "docs/environments.md"])
def test_the_python_example_runs(page):
    (example,) = blocks(page, "python")
    check = "\nassert obs.shape == (64, 160)\n"
    done = run([sys.executable, "-c", example + check], timeout=300)
    assert done.returncode == 0, done.stderr


# --- the front page ------------------------------------------------------------------------------

WORDS = 800
PICTURES_MB = 2.0
PUBLIC_INDEX = "https://download.pytorch.org/whl/cpu"


def test_readme_is_short_and_shows_the_robot():
    assert len(re.sub(r"^```.*?^```$", "", text("README.md"), flags=re.M | re.S).split()) <= WORDS
    pictures = [ROOT / name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text("README.md"))]
    moving = [path for path in pictures if path.suffix in (".webp", ".gif")]
    assert moving and sum(path.stat().st_size for path in pictures) < PICTURES_MB * 1e6
    for path in moving:
        with PIL.Image.open(path) as picture:
            assert picture.n_frames > 50 and picture.info["loop"] == 0, "for ever"


def test_readme_names_one_index_and_the_pinned_torch():
    (version, index), *others = re.findall(
        r"pip install torch==(\S+) --index-url (\S+)", text("README.md")
    )
    assert not others and index == PUBLIC_INDEX
    assert f"torch=={version}" in text("constraints.txt").splitlines()


def test_the_first_look_is_a_command_that_is_there():
    (look,) = blocks("README.md", "console")
    extras = re.search(r"pip install .*'\.\[(.+?)\]'", look)[1].split(",")
    known = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    assert set(extras) <= known.keys()
    assert [line for line in look.splitlines() if line.startswith("bm-envs ")] == ["bm-envs demo"]


def test_every_extra_is_told_with_its_pythons():
    """The table's limits are those of the packages' markers; Isaac Lab's are its wheels'."""
    project = tomllib.loads(text("pyproject.toml"))["project"]
    extras, lowest = project["optional-dependencies"], project["requires-python"].strip(">=")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (3\..+) \|$", text("docs/command.md"), re.M)
    assert dict(rows).keys() == extras.keys() and len(rows) == len(extras)
    limited = {"isaaclab"}
    for name, pythons in rows:
        below = re.findall(r"python_version < '3\.(\d+)'", " ".join(extras[name]))
        if below:
            limited.add(name)
            assert pythons.startswith(f"{lowest} to 3.{int(below[0]) - 1}:"), name
    assert {name for name, told in rows if not told.startswith(f"{lowest}+")} == limited


# --- names ---------------------------------------------------------------------------------------


@functools.cache
def flags(script):
    """All flags that the help of a script or a command lists, and those of its subcommands."""
    every = "--help" if "/peers/" in script else "--help-all"

    def listed(*subcommand):
        program, *part = script.split()
        starts = ["-c", "from bm_envs.__main__ import main; main()", *part]
        done = run(
            [sys.executable, *([script] if program != "bm-envs" else starts), *subcommand, every],
            timeout=300,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )
        assert done.returncode == 0, f"{script} {every}: {done.stderr}"
        return done.stdout

    text = listed()
    text += "".join(map(listed, re.findall(r"• ([a-z]+) ", text)))
    return set(re.findall(r"--[a-z][a-z0-9.-]*", text))


def told(page):
    """A page without the commands of its result files, which are a record."""
    return re.sub(r"<pre>.*?</pre>", "", text(page), flags=re.S)


def uses():
    """`(page, script, flag)` of every flag that stands behind a script's name."""
    return sorted(
        {
            (page, script, flag)
            for page in PAGES
            for script, arguments in SCRIPT.findall(told(page)) + COMMAND.findall(told(page))
            if not script.startswith("bm-envs ") or script.removeprefix("bm-envs ") in COMMANDS
            # What is quoted is handed on to another script.
            for flag in re.findall(r"--[a-z][\w.-]*\b", re.sub(r"'[^'\n]*'", "", arguments))
        }
    )


def test_there_are_flags_to_check():
    assert len(uses()) >= 5


@pytest.mark.parametrize(("page", "script", "flag"), uses(), ids=lambda value: value)
def test_flags_exist(page, script, flag):
    assert script.startswith("bm-envs ") or (ROOT / script).is_file(), f"{page} names {script}"
    assert flag in flags(script) | {"--help", "--help-all"}


def test_commands_named_exist():
    fenced = [block for page in PAGES for kind in ("sh", "bash") for block in blocks(page, kind)]
    named = {name for block in fenced for name, _ in COMMAND.findall(block)}
    assert len(named) >= 1
    assert not {name.removeprefix("bm-envs ") for name in named} - COMMANDS.keys()


def test_files_and_modules_named_exist():
    missing = []
    for page in PAGES:
        for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text(page)):
            if "NAME" in name or name.startswith("docs/demo/dist/"):  # stands for any; is built
                continue
            if name.split("/")[0] in ("bm_envs", "algos", "benchmarks", "tools", "tests", "docs"):
                missing += [f"{page}: {name}"] * (not (ROOT / name).exists())
        for name in re.findall(r"\]\(([^)#:]+)\)", text(page)):
            target = (ROOT / page).parent / name
            missing += [f"{page}: {name}"] * (not target.exists())
        for name in re.findall(r"python -m (bm_envs[\w.]+)", text(page)):
            path = (ROOT / name.replace(".", "/")).with_suffix(".py")
            missing += [f"{page}: {name}"] * (not path.exists())
    assert not missing


def test_where_to_look_is_there():
    """Files that the table in development.md names without a folder are in one it names before."""
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]*`(?:bm_envs|algos)/.*) \|$", text("docs/development.md"), re.M
    )
    assert len(rows) > 10
    for row in rows:
        folders = []
        for name in re.findall(r"`([\w./]+)`", row):
            path = ROOT / name
            if path.exists():
                folders.append(path if path.is_dir() else path.parent)
            elif name.endswith((".py", "/")):
                assert any((folder / name).exists() for folder in folders), (name, row)


def test_environments_and_motions_named_exist():
    import gymnasium

    import bm_envs  # noqa: F401

    ids = set(re.findall(r"^\| \[`(BM\w+-G1-[\w-]+)`", text("docs/environments.md"), re.M))
    assert ids == {name for name in gymnasium.registry if name.startswith("BM")}
    rows = [line for line in text("docs/motions.md").splitlines() if "| in the package" in line]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {path.stem for path in (ROOT / "bm_envs/assets/motions").glob("*.npz")}
