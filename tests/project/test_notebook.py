"""docs/quickstart.ipynb: it runs from top to bottom, installs where it must, holds no outputs.

Committed without outputs: those of a run differ with every version and machine, and pictures would
be most of the file. The site shows its texts and code (`docs/hooks.py`).
"""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import onnx
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from bm_envs.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
hooks = importlib.import_module("hooks")
PATH = ROOT / "docs" / "quickstart.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook, folder):
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


def test_it_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")
    assert len(code(notebook)) >= 8
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None and not cell.metadata
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


def test_its_links_lead_to_pages(notebook):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(cell.source for cell in notebook.cells))
    assert len(links) > 5 and all((PATH.parent / link).is_file() for link in links)


def test_it_clones_from_the_one_address_of_the_repository(notebook):
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    address = told["tool"]["bm-envs"]["repository"]
    says = 'os.environ.get("BM_REPOSITORY", "{}")'
    assert says.format(address) in code(notebook)[0].source, "run python docs/hooks.py"
    # The command writes another address, and changes nothing else.
    moved = hooks.clones_from(PATH.read_text(), "https://github.com/someone/bm-envs")
    there = nbformat.reads(moved, as_version=4)
    assert says.format("https://github.com/someone/bm-envs") in code(there)[0].source
    assert hooks.clones_from(moved, address) == PATH.read_text()


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch, opengl):
    monkeypatch.setenv("BM_NOTEBOOK_QUICK", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own shows pictures
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)  # with it, kernels capture no commands
    run(notebook, tmp_path)
    printed = "".join(
        output.text for cell in code(notebook) for output in cell.outputs if "text" in output
    )
    assert "walk: 24.5 s, 50 frames/s" in printed
    assert len(re.findall(r"survived \d+\.\d of 24\.5 s", printed)) == 2
    assert "survived 24.5 of 24.5 s" in printed  # the shipped policy
    assert "python algos/ppo_track.py --motion walk --run-dir runs/quickstart" in printed

    kinds = [key for cell in code(notebook) for o in cell.outputs for key in o.get("data", {})]
    assert kinds.count("image/png") == 2 and kinds.count("text/html") == 1  # a video
    pixels = [o.data["image/png"] for c in code(notebook) for o in c.outputs if "data" in o
              and "image/png" in o.data]  # fmt: skip
    assert all(len(picture) > 10_000 for picture in pixels)  # base64; an empty figure has 3000

    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert {"runs/quickstart/policy.onnx", "runs/quickstart.mp4", "runs/walk.onnx"} <= files
    assert {output.name for output in onnx.load(tmp_path / "runs/walk.onnx").graph.output} >= {
        "actions", "joint_pos", "body_quat_w"
    }  # fmt: skip
    obs = np.random.default_rng(0).normal(size=(4, 160)).astype(np.float32)
    first, second = (load_policy(tmp_path / "runs" / name) for name in ("quickstart", "walk.onnx"))
    np.testing.assert_allclose(first(obs), second(obs), atol=1e-5)  # the exporter's own bound


def test_a_command_that_fails_stops_it(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    install = code(notebook)[0]
    install.source += '\nrun("tools/csv_to_npz.py", "missing.csv", "out.npz")'
    notebook.cells = [install]
    with pytest.raises(CellExecutionError, match="returned non-zero exit status 2"):
        run(notebook, tmp_path)
    printed = "".join(output.get("text", "") for output in install.outputs)
    assert "error: missing.csv" in printed


# --- the cell that installs -----------------------------------------------------------------------


@pytest.fixture
def elsewhere(notebook, tmp_path, monkeypatch):
    """The first cell's code, in a folder without a clone, where `bm_envs` is not installed.

    Returns the code and the list of commands that it would have run.
    """
    found = importlib.util.find_spec
    commands = []

    def record(command, **_):
        commands.append(list(map(str, command)))
        if command[0] == "git":
            (tmp_path / command[-1] / "algos").mkdir(parents=True)
            (tmp_path / command[-1] / "algos" / "ppo_track.py").touch()

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bm_envs" else found(name)
    )
    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("BM_REPOSITORY", raising=False)
    monkeypatch.chdir(tmp_path)
    return code(notebook)[0].source, commands


def test_without_a_clone_it_asks_for_one(elsewhere):
    source, commands = elsewhere
    with pytest.raises(RuntimeError, match="No clone of bm-envs around this notebook: set REPOSIT"):
        exec(source, {})
    assert commands == []


def test_it_clones_and_installs_what_is_missing(elsewhere, tmp_path, monkeypatch):
    source, commands = elsewhere
    monkeypatch.setenv("BM_REPOSITORY", "somewhere")
    exec(source, {})
    clone, install = commands
    assert clone[:2] == ["git", "clone"] and clone[-2:] == ["somewhere", "bm-envs"]
    assert install == [
        sys.executable, "-m", "pip", "install", "-q", "-e", f"{tmp_path / 'bm-envs'}[train,viz]"
    ]  # fmt: skip
    assert sys.path[0] == str(tmp_path / "bm-envs")


def test_in_a_clone_it_installs_that(elsewhere, monkeypatch):
    source, commands = elsewhere
    monkeypatch.chdir(PATH.parent)
    exec(source, {})
    (install,) = commands
    assert install[-1] == f"{ROOT}[train,viz]"


def test_where_all_is_installed_it_installs_nothing(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("ran a command"))
    space = {}
    exec(code(notebook)[0].source, space)
    assert space["clone"] == ROOT


def test_the_extras_that_it_installs_bring_what_it_needs(notebook):
    source = code(notebook)[0].source
    (needed,) = re.findall(r"^needed = (\(.*\))$", source, re.M)
    (named,) = re.findall(r"\{clone\}\[([\w,]+)\]", source)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    packages = " ".join(line for name in [*named.split(","), "deploy"] for line in extras[name])
    assert "bm-envs[deploy]" in packages, "premise: train brings deploy"
    for package in ast.literal_eval(needed)[1:]:  # the first is bm_envs
        assert re.search(rf"\b{package}>=", packages)
