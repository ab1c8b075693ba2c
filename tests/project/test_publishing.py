"""What a package index gets: links, texts, workflows, and that what is installed works alone."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from build_package import built, copy_of_the_tree

from bm_envs.backends import native

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUP = runpy.run_path(str(ROOT / "setup.py"))
README = (ROOT / "README.md").read_text()
ADDRESS = "https://example.org/someone/bm-envs"
TARGET = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
OLDEST = (3, 11)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A wheel with the compiled library, a pure one and the source distribution."""
    source, out = copy_of_the_tree(tmp_path_factory), tmp_path_factory.mktemp("dist")
    made = {}
    for kind, what, environment in (
        ("sdist", "sdist", {}), ("pure", "wheel", {"CC": "/bin/false"}), ("here", "wheel", {}),
    ):  # fmt: skip
        folder = out / kind
        folder.mkdir()
        made[kind] = built(source, folder, what=what, **environment)
    return made


# --- links ---------------------------------------------------------------------------------------


def targets(text):
    return [a or b for a, b in TARGET.findall(text)]


def test_with_an_address_every_link_of_the_description_is_absolute_and_leads_to_a_file():
    told = SETUP["long_description"](README, ADDRESS, "1.2.3")
    local = [t for t in targets(README) if not t.startswith(("http", "#"))]
    assert local, "premise: README links to files"
    for target in targets(told):
        assert target.startswith(("https://", "http://", "#")), target
    for target in local:
        assert f"{ADDRESS}/blob/v1.2.3/{target}" in told or f"{ADDRESS}/raw/v1.2.3/{target}" in told
        assert (ROOT / target.partition("#")[0]).exists()


def test_without_an_address_no_link_leads_to_a_file():
    told = SETUP["long_description"](README, "", "1.2.3")
    assert [t for t in targets(told) if not t.startswith(("http", "#"))] == []
    assert SETUP["urls"]("") == {} and SETUP["urls"](ADDRESS)["Source"] == ADDRESS


@pytest.mark.parametrize(
    "markdown, with_address, without",
    [
        ("[page](docs/a.md#b)", f"[page]({ADDRESS}/blob/v1/docs/a.md#b)", "page"),
        ("![alt](docs/a.gif)", f"![alt]({ADDRESS}/raw/v1/docs/a.gif)", ""),
        ("[here](#part)", "[here](#part)", "[here](#part)"),
        ("[paper](https://arxiv.org/abs/1)",) + ("[paper](https://arxiv.org/abs/1)",) * 2,
        ('<img alt="a" src="docs/a.gif">', f'<img alt="a" src="{ADDRESS}/raw/v1/docs/a.gif">', ""),
        (
            "[![alt](docs/a.gif)](docs/b.md)",
            f"[![alt]({ADDRESS}/raw/v1/docs/a.gif)]({ADDRESS}/blob/v1/docs/b.md)",
            "",
        ),
    ],
)
def test_a_link_of_the_description(markdown, with_address, without):
    assert SETUP["long_description"](markdown, ADDRESS, "1") == with_address
    assert SETUP["long_description"](markdown, "", "1") == without


# --- texts ---------------------------------------------------------------------------------------


def test_twine_finds_nothing(packages):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, packages.values())],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == len(packages)


def test_the_metadata(packages):
    with zipfile.ZipFile(packages["pure"]) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
        told = archive.read(name).decode()
    assert "\nAuthor: The bm-envs developers\n" in told
    assert "\nDescription-Content-Type: text/markdown\n" in told
    assert "# bm-envs\n" in told
    address = PYPROJECT["tool"]["bm-envs"]["repository"]
    assert ("\nProject-URL: Source, " in told) == bool(address)


# --- workflows -----------------------------------------------------------------------------------


def workflow(name):
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())


def commands(told):
    return [step["run"] for job in told["jobs"].values() for step in job["steps"] if "run" in step]


def test_the_workflow_of_every_change_runs_what_ci_runs():
    assert "bash .ci/run" in commands(workflow("ci.yml"))


def test_the_release_stores_no_password_and_publishes_what_all_jobs_built():
    told = workflow("release.yml")
    publish = told["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert {*publish["needs"]} == {*told["jobs"]} - {"publish"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    assert "twine check --strict dist/*" in commands(told)


def test_pythons_are_the_same_everywhere():
    """Classifiers, the wheels that are compiled and the workflow's installations."""
    named = [
        c.rpartition(" ")[2]
        for c in PYPROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c)
    ]
    built_for = [
        f"3.{tag.removeprefix('cp3').removesuffix('-*')}"
        for tag in PYPROJECT["tool"]["cibuildwheel"]["build"]
    ]
    assert named == built_for
    assert named == workflow("ci.yml")["jobs"]["installed"]["strategy"]["matrix"]["python"]


# --- installed -----------------------------------------------------------------------------------


def pythons():
    """Interpreters of this machine by version, the newest patch of each, 3.11 and newer."""
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep))]
    folders += (Path.home() / ".pyenv/versions").glob("*/bin")
    found = {}
    for folder in folders:
        for path in folder.glob("python3.[0-9]*"):
            if re.fullmatch(r"python3\.\d+", path.name) and ".venv" not in str(path):
                minor = int(path.name.rpartition(".")[2])
                if (3, minor) >= OLDEST and works(path, minor):
                    found.setdefault(f"3.{minor}", path)
    return found


def works(path, minor):
    """Whether a path is an interpreter that makes environments, and no version manager's stub."""
    code = (
        "import sys, venv, ensurepip; print(*sys.version_info[:2], sys.prefix == sys.base_prefix)"
    )
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=60)
    except OSError:
        return False
    return done.stdout.split() == ["3", str(minor), "True"]


PYTHONS = pythons()


@pytest.mark.parametrize("version", sorted(PYTHONS) or [None])
def test_an_empty_environment_shows_a_walking_robot(version, packages, tmp_path):
    """`pip install 'WHEEL[deploy,viz]'` and `bm-envs demo --video`, outside of the clone.

    The pure wheel, the source distribution where a compiler is at hand, and, of this Python, the
    compiled wheel.
    """
    assert version is not None, "no Python here makes an environment"
    subprocess.run([PYTHONS[version], "-m", "venv", tmp_path / "venv"], check=True, timeout=300)
    python = tmp_path / "venv/bin/python"
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BM_DATA_DIR")
    }
    environment["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "egl")

    def call(*command):
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, cwd=tmp_path, env=environment,
            timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    call(*pip, f"{packages['pure']}[deploy,viz]")
    kinds = ["pure"]
    if native.library() is not None:
        kinds += ["sdist"]
        kinds += ["here"] * (version == f"3.{sys.version_info.minor}")
    for kind in kinds:
        if kind != "pure":
            call(*pip, "--no-deps", "--force-reinstall", packages[kind])
        code = "from bm_envs.backends import native; print(native.library() is not None)"
        assert call(python, "-c", code) == str(kind != "pure")
        video = tmp_path / f"{kind}.mp4"
        call(tmp_path / "venv/bin/bm-envs", "demo", "--video", video, "--seconds", "1")
        code = (
            "import av, sys\n"
            "frames = [f.to_ndarray(format='gray') for f in av.open(sys.argv[1]).decode(video=0)]\n"
            "moved = abs(frames[-1].astype(float) - frames[0]).mean()\n"
            "print(len(frames), frames[0].std() > 5, moved > 0.1)"
        )
        frames, drawn, moves = call(python, "-c", code, video).split()
        assert int(frames) >= 25 and drawn == moves == "True"
    assert "torch" not in call(python, "-m", "pip", "list").lower().split()
    shutil.rmtree(tmp_path / "venv")


def test_this_python_is_among_those_that_are_tried():
    assert f"3.{sys.version_info.minor}" in PYTHONS
