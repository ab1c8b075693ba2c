"""Roll-outs: what is stored against physics, mirror and kinematics; files that are none."""

import dataclasses
import json
import re
import sys
import tempfile
from pathlib import Path

import mujoco
import numpy as np
import pytest
from collected_rollouts import collect, collected, config
from hypothesis import given, settings
from hypothesis import strategies as st
from mirrored_rollouts import mirrored

from bm_envs.diffusion import rollouts
from bm_envs.diffusion.files import DRIVES
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.errors import BMError
from bm_envs.learning.run import RunConfig
from bm_envs.robots import g1, mjcf
from bm_envs.tasks.guided.states import states_of

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "algos"))
import ddpm_guided  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("rollouts") / "data")


@pytest.fixture(scope="module")
def episodes(folder) -> Rollouts:
    return rollouts.load_rollouts(folder)[0]


# --- physics of what is stored --------------------------------------------------------------------


def play(qpos, qvel, targets):
    """Where plain physics takes a robot: root and joints after each target, held for 20 ms."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    found = []
    for target in targets:
        data.ctrl[:] = target
        mujoco.mj_step(model, data, 4)
        found.append(data.qpos.copy())
    return np.array(found)


def targets_of(episodes: Rollouts, e: int, t: int, count: int) -> np.ndarray:
    late = int(episodes.delay[e])
    sent = episodes.executed[e, t - late : t - late + count]
    return g1.DEFAULT_JOINT_POS + episodes.joint_offset[e] + g1.ACTION_SCALE * sent


def test_stored_actions_lead_through_the_stored_states(episodes):
    """Open loop for ten steps: order, scale, delay and index of actions are right.

    Friction and the torso's centre of mass are not stored, hence 3 cm (the sheet's gate 1b).
    """
    still = [e for e in range(len(episodes)) if not episodes.pushed[e].any()]
    assert len(still) > 3
    errors, shifted = [], []
    for e in still[:6]:
        for t in (3, 20):
            start = episodes.qpos[e, t], episodes.qvel[e, t]
            then = episodes.qpos[e, t + 1 : t + 11]
            found = play(*start, targets_of(episodes, e, t, 10))
            errors.append(np.linalg.norm(found[-1, :3] - then[-1, :3]))
            wrong = play(*start, targets_of(episodes, e, t - 1 + 2 * int(episodes.delay[e]), 10))
            shifted.append(np.abs(wrong[-1, 7:] - then[-1, 7:]).mean())
            assert np.abs(found[-1, 7:] - then[-1, 7:]).mean() < shifted[-1]
    assert max(errors) < 0.03


def test_mirrored_twice_is_the_same_and_once_obeys_the_same_physics(episodes):
    other = mirrored(episodes)
    for field in dataclasses.fields(Rollouts):
        twice = getattr(mirrored(other), field.name)
        np.testing.assert_array_equal(twice, getattr(episodes, field.name))
    index, sign = g1.mirror_map()
    for e in (0, 1, 2):
        found = play(episodes.qpos[e, 5], episodes.qvel[e, 5], targets_of(episodes, e, 5, 10))
        seen = play(other.qpos[e, 5], other.qvel[e, 5], targets_of(other, e, 5, 10))
        # The published robot is symmetric to 1e-4 m and 1e-3 kg; contacts make it a little more.
        np.testing.assert_allclose(seen[:, 1], -found[:, 1], atol=2e-3)
        np.testing.assert_allclose(seen[:, 7:], found[:, 7:][:, index] * sign, atol=5e-3)
        assert np.abs(seen[:, 7:] - found[:, 7:]).max() > 0.05  # a walk is not its own mirror


def test_states_are_mujocos(episodes):
    states = states_of(episodes.qpos[:2, :3], episodes.qvel[:2, :3])
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    ids = [model.body(name).id for name in g1.BODY_NAMES]
    for e in range(2):
        for t in range(3):
            data.qpos[:], data.qvel[:] = episodes.qpos[e, t], episodes.qvel[e, t]
            mujoco.mj_forward(model, data)
            np.testing.assert_allclose(states.body_pos[e, t], data.xpos[ids], atol=2e-6)
            for k, body in enumerate(ids):
                velocity = np.empty(6)
                kind = mujoco.mjtObj.mjOBJ_XBODY
                mujoco.mj_objectVelocity(model, data, kind, body, velocity, 0)
                np.testing.assert_allclose(states.body_lin_vel[e, t, k], velocity[3:], atol=1e-5)
                if g1.BODY_NAMES[k] == g1.ROOT_BODY:
                    np.testing.assert_allclose(states.root_ang_vel[e, t], velocity[:3], atol=1e-5)


# --- bad files ------------------------------------------------------------------------------------


def test_files_that_are_not_what_the_manifest_tells(folder, tmp_path):
    def copy():
        target = tmp_path / str(len(list(tmp_path.iterdir())))
        target.mkdir()
        for path in folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return target

    with pytest.raises(BMError, match="holds no dataset.json, expected a folder of roll-outs"):
        rollouts.load_rollouts(tmp_path)
    broken = copy()
    (broken / "episodes-00001.npz").unlink()
    with pytest.raises(BMError, match=r"episodes-00001.npz: is missing, though dataset.json"):
        rollouts.load_rollouts(broken)
    broken = copy()
    with (broken / "episodes-00000.npz").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BMError, match="another SHA-256 than dataset.json tells; collect it anew"):
        rollouts.load_rollouts(broken)
    broken = copy()
    (broken / "dataset.json").write_text("[]")
    with pytest.raises(BMError, match="is not a manifest of roll-outs"):
        rollouts.load_rollouts(broken)
    (broken / "dataset.json").write_text("{")
    with pytest.raises(BMError, match=r"dataset.json: not a readable JSON file"):
        rollouts.load_rollouts(broken)
    for shards in (None, [3], [{"episodes": {"count": 1}, "failed": {"count": 0}}]):
        text = json.dumps({"format": rollouts.FORMAT, "shards": shards})
        (broken / "dataset.json").write_text(text)
        with pytest.raises(BMError, match=r"dataset.json: shards are not a list of entries"):
            rollouts.load_rollouts(broken)


def test_shards_that_are_not_shards(episodes, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(BMError, match="cannot be read as an NPZ shard of roll-outs"):
        rollouts.load_shard(path)
    np.savez(path, qpos=np.zeros(3))
    with pytest.raises(BMError, match="lacks qvel, action"):
        rollouts.load_shard(path)
    arrays = episodes.arrays()
    np.savez(path, **{**arrays, "qvel": arrays["qvel"][..., :-1]})
    with pytest.raises(
        BMError, match=r"qvel is float32 of shape \(\d+, 40, 34\), expected float32"
    ):
        rollouts.load_shard(path)
    spoilt = arrays["action"].copy()
    spoilt[0, 0, 0] = np.nan
    np.savez(path, **{**arrays, "action": spoilt})
    with pytest.raises(BMError, match="action holds a value that is not finite"):
        rollouts.load_shard(path)
    np.savez(path, **{**arrays, "clip": np.array([object()] * len(episodes))}, allow_pickle=True)
    with pytest.raises(BMError, match=r"clip is object of shape \(\d+,\), expected int64"):
        rollouts.load_shard(path)
    rollouts.save_shard(episodes, path)
    again = rollouts.load_shard(path)
    np.testing.assert_array_equal(again.qpos, episodes.qpos)
    assert json.dumps(sorted(np.load(path).files)) == json.dumps(sorted(rollouts._SHAPES))


def copied(folder, target):
    target.mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def with_manifest(folder, **changes):
    path = folder / rollouts.MANIFEST
    manifest = json.loads(path.read_text())
    manifest = {k: v for k, v in (manifest | changes).items() if v is not ...}
    path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "", "sub/episodes-00000.npz", "a\0b",
             "x" * 5000, "\u202e.npz", "episodes-00000.npz/"],
)  # fmt: skip
def test_a_manifest_that_leads_out_of_its_folder(folder, tmp_path, name):
    broken = copied(folder, tmp_path / "a")
    shards = json.loads((broken / rollouts.MANIFEST).read_text())["shards"]
    shards[0]["episodes"]["file"] = name
    with pytest.raises(BMError) as caught:
        rollouts.load_rollouts(with_manifest(broken, shards=shards))
    told = str(caught.value)
    assert "\n" not in told and len(told) < 400
    assert "expected a file of this folder" in told or "is missing" in told


def test_a_shard_that_is_a_link_is_not_followed(folder, tmp_path):
    broken = copied(folder, tmp_path / "a")
    (broken / "episodes-00000.npz").unlink()
    (broken / "episodes-00000.npz").symlink_to(folder / "episodes-00000.npz")
    with pytest.raises(BMError, match="names the shard 'episodes-00000.npz', expected a file of t"):
        rollouts.load_rollouts(broken)


def test_shards_that_announce_more_than_they_hold(episodes, tmp_path):
    """A header is 100 bytes, whatever shape it tells; memory is asked for by nobody."""
    import io
    import tracemalloc
    import zipfile

    arrays = episodes.arrays()
    path = tmp_path / "a.npz"

    def write(changed, head, compression=zipfile.ZIP_STORED, content=b""):
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, array in arrays.items():
                stream = io.BytesIO()
                np.lib.format.write_array(stream, array)
                if name == changed:
                    stream = io.BytesIO()
                    np.lib.format.write_array_header_1_0(stream, head)
                    stream.write(content)
                archive.writestr(f"{name}.npy", stream.getvalue())

    def head(shape, kind="<f4"):
        return {"descr": kind, "fortran_order": False, "shape": shape}

    def refused(match):
        tracemalloc.start()
        with pytest.raises(BMError, match=match) as caught:
            rollouts.load_shard(path)
        # What the sound arrays take is less than this; what is announced would be terabytes.
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()
        assert "\n" not in str(caught.value)

    write("noise", head((len(episodes),)))
    refused("expected 96 bytes got 0")
    write("noise", head((0,)))
    refused(r"noise is float32 of shape \(0,\)")
    write("noise", head((10**12,)))
    refused(r"noise is float32 of shape \(1000000000000,\), expected float32 of shape")
    write("action", head((10**12, 10**12, 29)))
    refused("qpos is float32 of shape .*, expected float32 of shape")
    write("action", head((-1, 40, 29)))
    refused(r"action.npy has the shape \(-1, 40, 29\)")
    write("action", head(()))
    refused("expected")
    write("action", head((len(episodes), 40, 29), "|O"))
    refused("action is object of shape")
    write("action", head((len(episodes), 40, 29), "<f8"))
    refused("action is float64 of shape")
    zeros = bytes(4 * 10**8)
    write("noise", head((10**8,)), zipfile.ZIP_DEFLATED, zeros)
    assert path.stat().st_size < 2e6  # premise: the zeros are nearly nothing
    refused("unpacks to .* MiB, more than 100 times its size")
    np.savez_compressed(path, **arrays)  # as somebody may keep them; read as before
    np.testing.assert_array_equal(rollouts.load_shard(path).qpos, episodes.qpos)


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_damaged_shards_are_read_or_refused(data):
    """Any bytes may differ: there is a shard, or one sentence."""
    rng = np.random.default_rng(0)
    values = {
        name: rng.normal(size=(2, *((3,) if per_step else ()), *shape)).astype(kind)
        for name, (shape, per_step, kind) in rollouts._SHAPES.items()
    }
    values["length"][:] = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        np.savez(path, **values)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
        try:
            assert len(rollouts.load_shard(path)) == 2
        except BMError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))


JUNK = [None, True, 3, -1, 0.5, "x", [], {}, [1], [None], {"a": 1}, 10**30, ["x"], [[]]]


@pytest.mark.parametrize("key", ["drives", "experts", "clips", "accepted", "tried", "shards"])
@pytest.mark.parametrize("value", [..., *JUNK], ids=lambda v: repr(v)[:12])
def test_manifests_of_odd_types_are_refused_before_training(folder, tmp_path, key, value):
    broken = with_manifest(copied(folder, tmp_path / "a"), **{key: value})
    try:
        rollouts.check_complete(broken, rollouts.read_manifest(broken))
    except BMError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:  # right by its type: nobody can tell more
        right = {"accepted": int, "tried": int}.get(key, list)
        assert type(value) is right
        assert right is int or all(isinstance(entry, dict) for entry in value)


@pytest.mark.parametrize("value", ["x", [1] * 28, [None] * 29, [True] * 29, [1e9] * 29, {}, None])
@pytest.mark.parametrize("name", DRIVES)
def test_drives_of_a_manifest(folder, tmp_path, name, value):
    drives = json.loads((folder / rollouts.MANIFEST).read_text())["drives"]
    broken = with_manifest(copied(folder, tmp_path / "a"), drives=drives | {name: value})
    with pytest.raises(BMError, match=name):
        rollouts.check_complete(broken, rollouts.read_manifest(broken))


def test_an_interrupted_collection_is_told_before_training(tmp_path, folder):
    """What a kill leaves: the manifest of the last whole shard, as the collector wrote it."""
    written = []
    keep = collect.cli.write_json

    def interrupted(path, value):
        keep(path, value)
        written.append(path)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect.cli, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect.main(config(tmp_path / "cut"))
    assert written
    text = (
        f"{tmp_path / 'cut'}: this collection was interrupted after 1 of 2 shards; run the command "
        "that made it again and it goes on from there."
    )
    with pytest.raises(BMError, match=re.escape(text)):
        run = RunConfig(tmp_path / "run")
        ddpm_guided.main(ddpm_guided.Config(data=(tmp_path / "cut",), run=run))
    assert not (tmp_path / "run").exists()
    collect.main(config(tmp_path / "cut"))
    rollouts.check_complete(tmp_path / "cut", rollouts.read_manifest(tmp_path / "cut"))
    # Manifests of 0.1 tell no state: the counts came last.
    old = with_manifest(copied(folder, tmp_path / "old"), state=..., planned_shards=...)
    rollouts.check_complete(old, rollouts.read_manifest(old))
    old = with_manifest(old, tried=..., accepted=...)
    with pytest.raises(BMError, match="this collection was interrupted after 2 shards; run"):
        rollouts.check_complete(old, rollouts.read_manifest(old))
