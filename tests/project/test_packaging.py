"""The built wheel: what is in it, what its tag says, its licences, and that it works by itself.

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
from build_package import built, copy_of_the_tree

from bm_envs.__main__ import COMMANDS
from bm_envs.backends import native
from bm_envs.motion import procedural

ROOT = Path(__file__).resolve().parents[2]
KEPT = (".py", ".c", ".h", ".npz", ".json", ".onnx", ".xml", ".typed")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return copy_of_the_tree(tmp_path_factory)


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return built(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def pure_wheel(wheel, source, tmp_path_factory):
    """Built where no compiler works, in a tree that holds what one made before."""
    if native.library() is not None:
        assert [*(source / "build").rglob("_native*")], "premise: the build before left a library"
    return built(source, tmp_path_factory.mktemp("pure"), CC="/bin/false")


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return built(source, tmp_path_factory.mktemp("sdist"), what="sdist")


@pytest.fixture(scope="module")
def site(pure_wheel, tmp_path_factory):
    """The wheel without a compiler, installed in a folder."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(pure_wheel) as archive:
        archive.extractall(folder)
    return folder


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_contents(wheel):
    names = names_in(wheel)
    version = importlib.metadata.version("bm-envs")
    info = f"bm_envs-{version}.dist-info"
    tree = ROOT / "bm_envs"
    expected = {
        f"bm_envs/{path.relative_to(tree)}"
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix in KEPT
    }
    assert "bm_envs/py.typed" in expected and "bm_envs/assets/motions/walk.npz" in expected
    scripts = {command.script for command in COMMANDS.values()} - {""}
    expected |= {f"bm_envs/_scripts/{script}" for script in scripts}
    library = {name for name in names if name.startswith("bm_envs/_native")}
    assert len(library) == (native.library() is not None)  # both are of the same compiler
    assert {name for name in names if not name.startswith(info)} - library == expected
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
        assert motions <= {procedural.SOURCE, procedural.HUMAN_SOURCE}, name
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


@pytest.mark.clone
def test_the_source_distribution_has_no_policy_that_the_wheel_lacks(source, wheel, sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    networks = {name for name in names if name.endswith(".onnx")}
    assert networks == {name for name in names_in(wheel) if name.endswith(".onnx")}
    assert not [name for name in names if name.startswith("policies/")]
    assert "policies" in {path.name for path in source.iterdir()}, "premise: they could come in"


@pytest.mark.clone
def test_away_from_a_clone_a_name_of_lafan1_says_where_it_is(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    shutil.copytree(ROOT / "policies", tmp_path / "site" / "policies")  # of whom ever
    code = (
        "from bm_envs.errors import PolicyError\n"
        "from bm_envs.policy import load_policy, shipped_policies, shipped_test_vectors\n"
        "print(*shipped_policies())\n"
        "shipped_test_vectors(load_policy('walk').name)\n"
        "from bm_envs.diffusion.model import load_model\n"
        "for load, name in (load_policy, 'lafan1_walk1'), (load_model, 'guided_human'):\n"
        "    try:\n"
        "        load(name)\n"
        "    except PolicyError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, told, of_model = done.stdout.splitlines()
    assert names == "balance builtin jog stride stroll walk walk_23 walks walks_on"
    for part in ("lafan1_walk1.onnx", "CC BY-NC-ND 4.0", "folder policies/", "hub:OWNER/NAME"):
        assert part in told
    expected = told.replace(
        "lafan1_walk1.onnx and lafan1_walk1.json", "the folder guided_human"
    ).replace("lafan1_walk1", "guided_human")
    assert of_model == expected


def test_a_wheel_s_tag_says_what_is_inside(wheel, pure_wheel):
    version = importlib.metadata.version("bm-envs")
    assert pure_wheel.name == f"bm_envs-{version}-py3-none-any.whl"
    assert names_in(pure_wheel) == {
        name for name in names_in(wheel) if not name.startswith("bm_envs/_native")
    }
    for path, is_pure in ((pure_wheel, True), (wheel, native.library() is None)):
        with zipfile.ZipFile(path) as archive:
            told = archive.read(f"bm_envs-{version}.dist-info/WHEEL").decode()
        assert f"Root-Is-Purelib: {str(is_pure).lower()}\n" in told
        assert ("Tag: py3-none-any\n" in told) == is_pure
        assert path.name.endswith("-py3-none-any.whl") == is_pure


def test_a_source_distribution_makes_the_same_wheel(sdist, pure_wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    again = built(unpacked, tmp_path, CC="/bin/false")
    assert again.name == pure_wheel.name and names_in(again) == names_in(pure_wheel)


def installed(site, *arguments, cwd):
    """Run `bm-envs ARGUMENTS` of an installed package, by its entry point."""
    (entry,) = (site / next(site.glob("*.dist-info")) / "entry_points.txt").read_text().split()[3:]
    module, _, function = entry.partition(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "COLUMNS": "100"}, timeout=300,
    )  # fmt: skip


def test_the_installed_command_starts_copies_of_the_scripts(site, tmp_path):
    for command in COMMANDS.values():
        if command.script:
            copy = site / "bm_envs" / "_scripts" / command.script
            assert copy.read_bytes() == (ROOT / command.script).read_bytes()
    done = installed(site, "train", "ppo", "--help", cwd=tmp_path)
    assert done.stdout.startswith("usage: bm-envs train ppo [-h]"), done.stderr
    done = installed(site, "track", "--policy", "wlak", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean 'walk'" in done.stderr
    listed = installed(site, "replay", "--list", cwd=tmp_path)
    assert listed.returncode == 0 and "\nwalk " in listed.stdout
    json_file = tmp_path / "check.json"
    done = installed(
        site, "motion", "check", "--motion", "walk", "--json", str(json_file), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    recorded = json.loads(json_file.read_text())
    assert recorded["command"] == (
        "python tools/check_reference.py --motion walk --json check.json"
    )
    assert recorded["commit"] is None


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
