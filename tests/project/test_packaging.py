"""The built wheel: what is in it, and that it works away from the repository."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bm_envs.backends import native

ROOT = Path(__file__).resolve().parents[2]
KEPT = (".py", ".c", ".h", ".npz", ".json", ".onnx", ".xml", ".typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        shutil.copy(ROOT / name, source)
    for name in ("bm_envs", "algos", "tests", "typings"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    # Without isolation nothing is downloaded: the environment's own setuptools builds.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet",
         "--wheel-dir", str(folder), str(source)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    version = importlib.metadata.version("bm-envs")
    info = f"bm_envs-{version}.dist-info"
    tree = ROOT / "bm_envs"
    expected = {
        f"bm_envs/{path.relative_to(tree)}"
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix in KEPT
    }
    assert "bm_envs/py.typed" in expected and "bm_envs/assets/motions/walk.npz" in expected
    built = {name for name in names if name.startswith("bm_envs/_native")}
    assert len(built) == (native.library() is not None)  # both were built with the same compiler
    assert {name for name in names if not name.startswith(info)} - built == expected
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/THIRD_PARTY_NOTICES.md"} <= names


def test_the_installed_package_steps_an_environment(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import gymnasium, numpy, bm_envs\n"
        "print(bm_envs.__file__)\n"
        "env = gymnasium.make('BMTrack-G1-v0', motion='walk')\n"
        "env.reset(seed=0)\n"
        "obs, reward, *_ = env.step(numpy.zeros(29, numpy.float32))\n"
        "assert obs.shape == (160,) and 0 < reward < 0.1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))


def test_versions_agree():
    import bm_envs

    assert bm_envs.__version__ == importlib.metadata.version("bm-envs")
