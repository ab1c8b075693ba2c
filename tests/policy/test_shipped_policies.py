"""Policies that ship: which folder a name is found in, and what the repository's folder holds."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from policy_files import make_clip, make_mlp

from bm_envs.cli import file_sha256
from bm_envs.errors import PolicyError
from bm_envs.motion.library import LAFAN1
from bm_envs.policy import (
    KINDS,
    SHIPPED,
    TRACKER,
    PolicySpec,
    kind_of,
    load_policy,
    make_test_vectors,
    repository_folder,
    resolve,
    shipped_files,
    shipped_policies,
    shipped_test_vectors,
    write_onnx,
)
from bm_envs.results import machine_path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "policies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
MODELS = sorted(path.parent.name for path in FOLDER.glob("*/denoiser.onnx"))


# --- names ---


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of the repository with one policy in either folder, and the process inside it."""
    package = tmp_path / "bm_envs" / "assets" / "policies"
    for folder, name in ((package, "mine"), (tmp_path / "policies", "lafan1_theirs")):
        folder.mkdir(parents=True)
        write_onnx(folder / f"{name}.onnx", make_mlp(), PolicySpec.for_g1(), make_clip())
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "bm-envs"\n')
    monkeypatch.setattr(resolve, "SHIPPED", package)
    monkeypatch.setattr(resolve, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_clone_finds_the_names_of_both_folders(clone):
    assert shipped_policies() == ["lafan1_theirs", "mine"]
    assert load_policy("mine").path == clone / "bm_envs/assets/policies/mine.onnx"
    assert load_policy("lafan1_theirs").path == clone / "policies/lafan1_theirs.onnx"
    assert kind_of("lafan1_theirs") is TRACKER
    for name, meant in {"lafan1_thiers": "lafan1_theirs", "mien": "mine"}.items():
        with pytest.raises(PolicyError, match=f"^Unknown policy '{name}'; did you mean '{meant}'"):
            load_policy(name)


def test_a_path_wins_over_the_repository_s_name(clone):
    (clone / "lafan1_theirs").mkdir()
    write_onnx(
        clone / "lafan1_theirs/policy.onnx", make_mlp(seed=1), PolicySpec.for_g1(), make_clip()
    )
    assert load_policy("lafan1_theirs").path == Path("lafan1_theirs/policy.onnx")


@pytest.mark.parametrize(
    "pyproject",
    [None, '[project]\nname = "another"\n', "[tool.ruff]\n", "name = \n", b"\xff\xfe"],
)
def test_elsewhere_a_policy_of_lafan1_is_not_there_and_the_sentence_says_why(clone, pyproject):
    """In `site-packages` and in other projects a folder `policies` beside the package is theirs."""
    (clone / "pyproject.toml").unlink()
    if pyproject is not None:
        content = pyproject if isinstance(pyproject, bytes) else pyproject.encode()
        (clone / "pyproject.toml").write_bytes(content)
    assert repository_folder() is None and shipped_policies() == ["mine"]
    for act in (load_policy, kind_of, shipped_test_vectors):
        with pytest.raises(PolicyError) as refused:
            act("lafan1_theirs")
        assert str(refused.value) == (
            "lafan1_theirs: policies trained on LAFAN1 (CC BY-NC-ND 4.0, no commercial use) are "
            "not in the installed package, which is under Apache-2.0; take lafan1_theirs.onnx and "
            "lafan1_theirs.json from the repository's folder policies/ and give the path, or name "
            "one of the Hub, hub:OWNER/NAME."
        )
    assert load_policy("policies/lafan1_theirs.onnx").name == "lafan1_theirs"  # as it advises
    with pytest.raises(PolicyError, match="^Unknown policy 'mien'; did you mean 'mine'"):
        load_policy("mien")


def test_the_package_s_policy_is_taken_where_both_have_the_name(clone):
    write_onnx(clone / "policies/mine.onnx", make_mlp(seed=1), PolicySpec.for_g1(), make_clip())
    assert shipped_files(TRACKER)["mine"] == clone / "bm_envs/assets/policies/mine.onnx"


@pytest.mark.clone
def test_no_two_policies_have_one_name():
    """Of whatever kind and folder; else the name would stand for one and hide the other."""
    assert resolve.shipped_folders() == [SHIPPED, FOLDER]
    names = Counter(
        path.parent.name if "/" in kind.shipped else path.stem
        for folder in (SHIPPED, FOLDER)
        for kind in KINDS
        if kind.shipped
        for path in folder.glob(kind.shipped)
    )
    assert {"walk", "guided_body_pos", "lafan1_walk1"} <= names.keys()
    assert [name for name, count in names.items() if count > 1] == []
    beside = {name for name in names if name.startswith(resolve.LAFAN1_PREFIX)}
    assert tuple(MODELS) == resolve.LAFAN1_MODELS and beside == {*NAMES}, (
        "by their names the two folders' policies are told apart"
    )


# --- the repository's folder ---


@pytest.mark.clone
def test_the_folder_holds_policies_and_nothing_else():
    found = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    files = {f"{name}{suffix}" for name in NAMES for suffix in (".onnx", ".json")}
    files |= {f"{name}/{file}" for name in MODELS for file in ("denoiser.onnx", "policy.json")}
    assert len(NAMES) > 10 and found == files | {"README.md", "test_vectors.json"}


@pytest.mark.clone
def test_the_folder_is_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    for name, size in sizes.items():
        assert size <= (8_000_000 if name == "lafan1_40.onnx" else 4_000_000), name
    assert sum(size for name, size in sizes.items() if name != "lafan1_40.onnx") <= 16_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_description_tells_the_licence_and_names_lafan1(name):
    text = (FOLDER / f"{name}.json").read_text()
    told = json.loads(text)
    assert all(part in told["licence"] for part in ("LAFAN1", "CC BY-NC-ND 4.0", "not inside"))
    assert told["motions"] and machine_path(text) is None
    for motion in told["motions"]:
        assert motion["source"] == LAFAN1.source and motion["licence"] == "CC BY-NC-ND 4.0"
        assert motion["name"].partition("[")[0] in LAFAN1.names()
        assert motion["embedded"] is False
    assert told["network"] == {
        "file": f"{name}.onnx", "sha256": file_sha256(FOLDER / f"{name}.onnx"),
    }  # fmt: skip


def numbers(value):
    """Lists of numbers in a JSON value."""
    if isinstance(value, list) and value and all(isinstance(v, int | float) for v in value):
        yield value
    inside = value.values() if isinstance(value, dict) else value
    for inner in inside if isinstance(inside, Iterable) and not isinstance(inside, str) else ():
        yield from numbers(inner)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_holds_a_motion(name):
    """A network takes an observation and gives an action, and its bytes are those of its layers."""
    path = FOLDER / f"{name}.onnx"
    model = onnx.load(path)
    assert [v.name for v in model.graph.input] == ["obs"]
    assert [v.name for v in model.graph.output] == ["actions"]
    assert {e.key: e.value for e in model.metadata_props}["motion_embedded"] == "0"
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    layers = sum(key.startswith("weight_") for key in arrays)
    sizes = [160, *(arrays[f"bias_{i}"].size for i in range(layers))]
    expected = {"obs_mean": (160,), "obs_scale": (160,)}
    for i in range(layers):
        expected |= {f"weight_{i}": (sizes[i + 1], sizes[i]), f"bias_{i}": (sizes[i + 1],)}
    if "residual_scale" in arrays:
        expected |= {"residual_offset": (29,), "residual_scale": (29,)}
        expected |= {"first": (1,), "end": (1,), "axis": (1,)}
    assert {key: array.shape for key, array in arrays.items()} == expected
    # Names, gains and the graph: 10 s of joint positions alone would be 58 000 bytes.
    assert path.stat().st_size - sum(array.nbytes for array in arrays.values()) < 8_000
    # The longest of these lists has a number for each joint.
    told = json.loads((FOLDER / f"{name}.json").read_text())
    assert max(map(len, numbers(told))) == 29 and len(json.dumps(told)) < 32_000


@pytest.mark.clone
def test_the_states_of_the_test_vectors_are_random_ones():
    """Those that `make_test_vectors` draws, so that no motion is in them either."""
    stored = json.loads((FOLDER / "test_vectors.json").read_text())
    assert [*stored["actions"]] == NAMES
    policy = load_policy(NAMES[0])
    for case, drawn in zip(
        stored["cases"], make_test_vectors(policy, policy.spec)["cases"], strict=True
    ):
        assert set(case) == set(drawn) - {"action", "joint_target"}
        np.testing.assert_allclose(case["observation"], drawn["observation"], rtol=0, atol=1e-12)
        for part in ("robot", "reference"):
            for key, value in case[part].items():
                np.testing.assert_allclose(value, drawn[part][key], rtol=0, atol=1e-12)
