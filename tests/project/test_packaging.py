"""The built wheel: what is in it, under which licence, and that it works away from the repository.

Of the source distribution: that nothing is in it which the wheel keeps out.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bm_envs.backends import native

ROOT = Path(__file__).resolve().parents[2]
KEPT = (".py", ".c", ".h", ".npz", ".json", ".onnx", ".xml", ".typed")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        shutil.copy(ROOT / name, source)
    for name in ("bm_envs", "algos", "policies", "tests", "typings"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
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


def licences(told):
    """All that a policy's description tells of licences, of itself and of what it learned from."""
    learned = [
        *told.get("motions", ()),
        *(c for part in told.get("data", ()) for c in part["clips"]),
    ]
    assert learned, "it tells what it was trained on"
    return [told["licence"], *(motion["licence"] for motion in learned)]


def test_every_policy_in_the_wheel_is_covered_by_apache_2(wheel):
    """By its description, and so is the motion inside; what it learned from experts, by theirs."""
    from onnx import load_from_string

    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    networks = {name: content for name, content in inside.items() if name.endswith(".onnx")}
    digests = {hashlib.sha256(content).hexdigest(): name for name, content in networks.items()}
    assert len(networks) > 4
    for name, content in networks.items():
        assert name.startswith("bm_envs/assets/policies/")
        beside = name.replace("denoiser.onnx", "policy.json").replace(".onnx", ".json")
        told = json.loads(inside[beside])
        assert digests[told["network"]["sha256"]] == name
        for licence in licences(told):
            assert "Apache-2.0" in licence and "CC" not in licence, (name, licence)
        motions = {m["source"] for m in told.get("motions", ())}
        assert motions <= {"bm_envs.motion.procedural"}, name
        for part in told.get("data", ()):
            assert {expert["sha256"] for expert in part["experts"]} <= digests.keys(), name
        metadata = {entry.key: entry.value for entry in load_from_string(content).metadata_props}
        assert metadata.get("motion_licence", "Apache-2.0") == "Apache-2.0", name
    vectors = json.loads(inside["bm_envs/assets/policies/test_vectors.json"])
    assert {
        f"bm_envs/assets/policies/{name}.onnx" for name in vectors["actions"]
    } <= networks.keys()
    lafan1 = [name for name in inside if "lafan1" in name.lower()]
    assert lafan1 == []


def test_the_source_distribution_has_no_policy_that_the_wheel_lacks(source, wheel, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; "
         f"build_meta.build_sdist({str(tmp_path)!r})"],
        capture_output=True, text=True, timeout=300, cwd=source,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        expected = {name for name in archive.namelist() if name.endswith((".onnx", ".json"))}
    assert {name for name in names if name.endswith((".onnx", ".json"))} == expected
    assert "policies" in {path.name for path in source.iterdir()}, "premise: they could come in"


def test_away_from_a_clone_a_name_of_lafan1_says_where_it_is(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shutil.copytree(ROOT / "policies", tmp_path / "site" / "policies")  # of whom ever
    code = (
        "from bm_envs.errors import PolicyError\n"
        "from bm_envs.policy import load_policy, shipped_policies, shipped_test_vectors\n"
        "print(*shipped_policies())\n"
        "shipped_test_vectors(load_policy('walk').name)\n"
        "try:\n"
        "    load_policy('lafan1_walk1')\n"
        "except PolicyError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, told = done.stdout.splitlines()
    assert names == "builtin walk walks walks_on"
    for part in ("lafan1_walk1.onnx", "CC BY-NC-ND 4.0", "folder policies/", "hub:OWNER/NAME"):
        assert part in told


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
