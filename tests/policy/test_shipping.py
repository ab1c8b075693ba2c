"""Putting a policy into the repository's folder: what is written, and what is refused."""

import dataclasses
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from policy_files import isaac_spec, make_clip, make_mlp

from bm_envs import cli
from bm_envs.diffusion.model import load_model
from bm_envs.errors import BMError, PolicyError
from bm_envs.motion.library import LAFAN1
from bm_envs.policy import (
    SHIPPED,
    PolicySpec,
    load_policy,
    read_policy_json,
    resolve,
    shipped_test_vectors,
    shipping,
    write_onnx,
    write_policy_json,
)
from bm_envs.policy.shipping import ship, ship_denoiser

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {
    "algorithm": "wm_track", "env_steps": 800_000, "wall_s": 1800.0, "seed": 1, "num_envs": 64,
    "commit": "0" * 40, "machine": {"processor": "AMD EPYC", "cores": 1, "gpu": None},
    "first_pass": {"env_steps": 100_000, "wall_s": 200.0}, "clip_protocol": {"success": 1.0},
}  # fmt: skip


def make_run(
    folder, *, seed=0, embedded=False, training=TRAINING, spec=None, hidden=(24, 16), **clip
):
    """A finished run on a motion that says of itself that it is LAFAN1's."""
    told = {"name": "fight1_subject2[60:70]", "source": LAFAN1.source, "licence": LAFAN1.licence}
    motion = dataclasses.replace(make_clip(), **{**told, **clip})
    spec = spec or PolicySpec.for_g1()
    folder.mkdir()
    mlp = make_mlp(hidden=hidden, seed=seed)
    write_onnx(folder / "policy.onnx", mlp, spec, motion, embed_motion=embedded)
    write_policy_json(
        folder / "policy.json", spec, onnx_file=folder / "policy.onnx", motions=[motion],
        embedded=embedded, training=training,
    )  # fmt: skip
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The folder `policies/` of a clone, empty."""
    (tmp_path / "clone" / "policies").mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").write_text('[project]\nname = "bm-envs"\n')
    monkeypatch.setattr(resolve, "ROOT", tmp_path / "clone")
    return tmp_path / "clone" / "policies"


def test_a_run_becomes_a_policy_that_its_name_finds(clone, tmp_path):
    run = make_run(tmp_path / "run")
    before = contents(run)
    assert ship(run, "lafan1_fight9", clone) == clone / "lafan1_fight9.onnx"
    assert contents(run) == before
    files = ["lafan1_fight9.json", "lafan1_fight9.onnx", "test_vectors.json"]
    assert sorted(contents(clone)) == files
    assert contents(clone)["lafan1_fight9.onnx"] == before["policy.onnx"]
    policy = load_policy("lafan1_fight9")
    assert policy.path == clone / "lafan1_fight9.onnx"
    old, new = read_policy_json(run / "policy.json"), read_policy_json(clone / files[0])
    changed = {"licence": shipping.LICENCE,
               "network": {"file": "lafan1_fight9.onnx", "sha256": policy.sha256}}  # fmt: skip
    assert new == {**old, **changed} and [*new] == [*old]
    # The actions are those of the network's arrays, in NumPy.
    mlp, vectors = make_mlp(), shipped_test_vectors("lafan1_fight9")
    for case in vectors["cases"]:
        action = mlp(np.array([case["observation"]], np.float32))[0]
        np.testing.assert_allclose(case["action"], action, rtol=0, atol=1e-5)


@pytest.mark.clone
def test_it_writes_what_was_put_there_by_hand(clone, tmp_path):
    """The policy that ships, from its own two files: the same bytes, and the same actions."""
    name, folder = "lafan1_fight1", ROOT / "policies"
    ship(folder / f"{name}.onnx", name, clone)
    for suffix in (".onnx", ".json"):
        assert (clone / f"{name}{suffix}").read_bytes() == (folder / f"{name}{suffix}").read_bytes()
    again, kept = (
        json.loads((place / "test_vectors.json").read_text()) for place in (clone, folder)
    )
    for key in ("format", "units", "joint_names", "observation_layout"):
        assert again[key] == kept[key]
    largest = np.abs(kept["actions"][name]).max()
    np.testing.assert_allclose(
        again["actions"][name], kept["actions"][name], rtol=0, atol=1e-5 * largest
    )


def test_one_of_a_repaired_motion_of_lafan1_may_ship_too(clone, tmp_path):
    """It holds no motion either, and says of which it was trained."""
    about = {
        "name": "fight1_subject3~repaired",
        "source": f"{LAFAN1.source}; repaired by bm-envs from fight1_subject3, {'0' * 64}",
    }
    path = ship(make_run(tmp_path / "run", **about), "lafan1_fight9_repaired", clone)
    (motion,) = load_policy(path).info["motions"]
    assert {key: motion[key] for key in about} == about and motion["embedded"] is False
    with pytest.raises(PolicyError, match="policy.onnx: holds a motion, which CC BY-NC-ND 4.0 kee"):
        ship(make_run(tmp_path / "held", embedded=True, **about), "lafan1_held", clone)


def test_a_second_joins_the_first_and_takes_its_own_place_again(clone, tmp_path):
    for seed, name in ((0, "lafan1_b"), (1, "lafan1_a")):
        ship(make_run(tmp_path / name, seed=seed), name, clone)
    table = clone / "test_vectors.json"
    both = json.loads(table.read_text())
    assert table.read_text().count("\n") == 1 and [*both["actions"]] == ["lafan1_a", "lafan1_b"]
    assert both["actions"]["lafan1_a"] != both["actions"]["lafan1_b"]
    ship(make_run(tmp_path / "better", seed=2), "lafan1_a", clone)
    after = json.loads(table.read_text())
    assert after["actions"]["lafan1_b"] == both["actions"]["lafan1_b"]
    assert after["actions"]["lafan1_a"] != both["actions"]["lafan1_a"]
    assert {**after, "actions": None} == {**both, "actions": None}
    assert load_policy("lafan1_a").sha256 == load_policy(tmp_path / "better").sha256
    assert len(contents(clone)) == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"embedded": True}, "policy.onnx: holds a motion, which CC BY-NC-ND 4.0 keeps from being"),
        ({"source": "made by a test", "name": "wiggle"}, "was trained on 'wiggle', expected motio"),
        ({"training": {}}, "policy.json: training lacks env_steps, wall_s, first_pass, clip_proto"),
        ({"spec": isaac_spec()}, "test_vectors.json: has another order of joints or another obse"),
        ({"hidden": (1200, 700)}, "policy.onnx: has 4,"),
    ],
)
def test_what_is_refused_leaves_the_folder_as_it_was(clone, tmp_path, changes, told):
    ship(make_run(tmp_path / "first"), "lafan1_first", clone)
    before = contents(clone)
    run = make_run(tmp_path / "run", **changes)
    with pytest.raises(PolicyError, match=re.escape(told)):
        ship(run, "lafan1_second", clone)
    assert contents(clone) == before


@pytest.mark.parametrize("name", ["fight9", "lafan1_", "lafan1_a/b", "lafan1_a.b", "../lafan1_a"])
def test_a_name_is_of_lafan1_and_of_letters(clone, tmp_path, name):
    with pytest.raises(PolicyError, match=f"^The name is '{re.escape(name)}', expected lafan1_"):
        ship(make_run(tmp_path / "run"), name, clone)
    assert contents(clone) == {}


def test_data_that_no_action_needs_may_be_a_motion(clone, tmp_path):
    import onnx

    run = make_run(tmp_path / "run")
    model = onnx.load(run / "policy.onnx")
    hidden = onnx.numpy_helper.from_array(make_clip().joint_pos, "table")
    model.graph.initializer.append(hidden)
    onnx.save(model, run / "policy.onnx")
    told = json.loads((run / "policy.json").read_text())
    told["network"]["sha256"] = cli.file_sha256(run / "policy.onnx")
    (run / "policy.json").write_text(json.dumps(told))
    with pytest.raises(PolicyError, match="holds a motion"):
        ship(run, "lafan1_a", clone)


def test_files_that_do_not_belong_together(clone, tmp_path):
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other", seed=1)
    (run / "policy.onnx").write_bytes((other / "policy.onnx").read_bytes())
    with pytest.raises(PolicyError, match="policy.json: is about a network with SHA-256"):
        ship(run, "lafan1_a", clone)
    (run / "policy.json").unlink()
    with pytest.raises(PolicyError, match="has no description, expected policy.json beside it"):
        ship(run, "lafan1_a", clone)
    (clone / "test_vectors.json").write_text('{"format": "another"}')
    with pytest.raises(PolicyError, match="not a folder's test vectors"):
        ship(other, "lafan1_a", clone)
    assert [*contents(clone)] == ["test_vectors.json"]


def test_a_folder_that_is_full_takes_no_more(clone, tmp_path):
    run = make_run(tmp_path / "run")
    (clone / "lafan1_large.onnx").write_bytes(bytes(3_990_000))
    (clone / "lafan1_40.onnx").write_bytes(bytes(7_990_000))  # which is not counted
    ship(run, "lafan1_a", clone)
    for i in range(3):
        (clone / f"lafan1_{i}.onnx").write_bytes(bytes(3_990_000))
    with pytest.raises(PolicyError, match=r"would have 16,\d{3},\d{3} bytes with .*16,000,000"):
        ship(run, "lafan1_b", clone)
    (clone / "lafan1_0.onnx").unlink()
    ship(run, "lafan1_b", clone)


def test_nothing_is_there_where_one_file_cannot_be_written(clone, tmp_path):
    run = make_run(tmp_path / "run")
    (clone / "test_vectors.json").mkdir()
    with pytest.raises(BMError, match="test_vectors.json"):
        ship(run, "lafan1_a", clone)
    assert [path.name for path in clone.iterdir()] == ["test_vectors.json"]
    (clone / "test_vectors.json").rmdir()
    (clone / "lafan1_a.json").mkdir()
    with pytest.raises(BMError, match="lafan1_a.json"):
        ship(run, "lafan1_a", clone)
    assert [path.name for path in clone.iterdir()] == ["lafan1_a.json"]


def guided_run(folder, *, licence=LAFAN1.licence, **changes):
    """The shipped guided model's files, as if one of its clips had this licence."""
    shutil.copytree(SHIPPED / "guided_body_pos", folder)
    record = json.loads((folder / "policy.json").read_text())
    record["data"][0]["clips"][0]["licence"] = licence
    (folder / "policy.json").write_text(json.dumps(record | changes))
    return folder


def test_a_guided_model_becomes_a_folder_that_its_name_finds(clone, tmp_path):
    run = guided_run(tmp_path / "run")
    out = ship_denoiser(run, "guided_a", clone)
    assert out == clone / "guided_a" / "denoiser.onnx"
    assert load_model("guided_a").sha256 == load_model(run).sha256
    told = json.loads((clone / "guided_a" / "policy.json").read_text())
    assert told["licence"] == shipping.LICENCE and told["data"]
    ship_denoiser(out, "guided_b", clone)  # by its file; and a second joins the first
    assert {path.name for path in clone.iterdir()} == {"guided_a", "guided_b"}


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("lafan1_a", {}, "The name is 'lafan1_a', expected guided_NAME"),
        ("guided_a/b", {}, "expected guided_NAME of letters, digits and underscores"),
        ("guided_a", {"training": {"steps": 1}}, "training lacks wall_s, commit, machine; the run"),
        ("guided_a", {"licence": "Apache-2.0"}, "was learned from no clip of LAFAN1"),
    ],
)
def test_a_guided_model_that_is_refused_leaves_the_folder_empty(
    clone, tmp_path, name, changes, told
):
    run = guided_run(tmp_path / "run", **changes)
    with pytest.raises(PolicyError, match=re.escape(told)):
        ship_denoiser(run, name, clone)
    assert not [*clone.iterdir()]


def test_the_command(clone, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        """Its exit status."""
        monkeypatch.setattr("sys.argv", ["ship_policy.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / "ship_policy.py"), run_name="__main__")
        return end.value.code

    assert command(guided_run(tmp_path / "guided"), "guided_a") == 0
    written = clone / "guided_a" / "denoiser.onnx"
    assert capsys.readouterr().out == f"wrote {written} and its description\n"
    out = clone / "lafan1_a.onnx"
    assert command("run", "lafan1_a") == 0
    assert capsys.readouterr().out == f"wrote {out}, its description and test vectors\n"
    assert load_policy(out).sha256 == load_policy(run).sha256
    for arguments, told in (
        (("run", "a"), "error: The name is 'a', expected lafan1_NAME"),
        (("none", "lafan1_b"), "error: Unknown policy 'none'; "),
    ):
        assert command(*arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(told) and printed.err.count("\n") == 1
    (clone.parent / "pyproject.toml").unlink()
    assert command(run, "lafan1_b") == 2
    assert "no clone of the repository" in capsys.readouterr().err
    assert len([*clone.iterdir()]) == 4
