"""Roll-outs as a Minari dataset: read back by Minari itself; what is refused leaves nothing."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python

from bm_envs import cli
from bm_envs.diffusion import rollouts
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.errors import BMError, ConfigError
from bm_envs.motion import library

minari = pytest.importorskip("minari", reason="the extra `minari` is not installed")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "algos")]
import collect_rollouts as collect  # noqa: E402
import rollouts_to_minari as tool  # noqa: E402

NAME = "g1/walks-v0"
STEPS = 6


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """Minari's folder, so that no test writes to the real one."""
    folder = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


def random_rollouts(lengths, seed, steps=STEPS) -> Rollouts:
    """Episodes of random numbers, two clips."""
    rng, count = np.random.default_rng(seed), len(lengths)

    def normal(*shape):
        return rng.standard_normal((count, *shape)).astype(np.float32)

    return Rollouts(
        qpos=normal(steps, 36), qvel=normal(steps, 35), action=normal(steps, 29),
        executed=normal(steps, 29), pushed=rng.random((count, steps)) < 0.3,
        clip=rng.integers(0, 2, count), frame=rng.integers(0, 500, count),
        noise=rng.random(count, np.float32), delay=rng.integers(0, 2, count),
        joint_offset=normal(29), length=np.array(lengths, np.int64),
    )  # fmt: skip


def write_folder(folder, accepted, failed=(), **changes) -> Path:
    """A folder of roll-outs, a shard for each of `accepted` and of `failed`."""
    shards = []
    for i, episodes in enumerate(accepted):
        entry = {"expert": i, "episodes": {"count": 0}, "failed": {"count": 0}}
        parts = {"episodes": episodes, "failed": failed[i] if i < len(failed) else None}
        for kind, part in parts.items():
            if part is not None:
                file = f"{kind}-{i:05d}.npz"
                digest = rollouts.save_shard(part, folder / file)
                entry[kind] = {"count": len(part), "file": file, "sha256": digest}
        shards.append(entry)
    manifest = {
        "format": rollouts.FORMAT,
        "settings": {"seed": 7, "steps": STEPS, "noise": "white"},
        "experts": [{"policy": "walk", "sha256": "ab"}, {"policy": "turn", "sha256": "cd"}],
        "clips": [
            {"name": "walk", "sha256": "ef", "licence": "Apache-2.0"},
            {"name": "own", "sha256": "01", "licence": "CC BY 4.0"},
        ],
        "drives": {"action_scale": [0.5, 0.25]},
        "commit": "0123abcd",
        "versions": {"mujoco": "4.0.0"},
        "shards": shards,
    }
    cli.write_json(folder / rollouts.MANIFEST, manifest | changes)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    parts = [random_rollouts([STEPS] * 3, 0), random_rollouts([STEPS] * 2, 1)]
    failed = [None, random_rollouts([0, 1, 4, STEPS - 1, STEPS], 2)]
    return write_folder(tmp_path / "data", parts, failed)


def export(folder, name=NAME, **options):
    tool.main(tool.Config(folder, name, **options))
    return minari.load_dataset(name)


def files(folder) -> list[Path]:
    return sorted(folder.rglob("*"))


# --- what arrives ---------------------------------------------------------------------------------


def test_episodes_arrive_bit_for_bit(folder, capsys):
    dataset = export(folder)
    episodes, _ = rollouts.load_rollouts(folder)
    assert len(dataset) == len(episodes) == 5
    assert dataset.total_steps == 5 * (STEPS - 1)
    details = list(dataset.storage.get_episode_metadata(range(5)))
    for e, (found, more) in enumerate(zip(dataset.iterate_episodes(), details, strict=True)):
        assert len(found) == more["total_steps"] == STEPS - 1
        expected = {
            "qpos": (found.observations["qpos"], episodes.qpos[e]),
            "qvel": (found.observations["qvel"], episodes.qvel[e]),
            "actions": (found.actions, episodes.executed[e, :-1]),
            "last_action": (more["last_action"], episodes.executed[e, -1]),
            "expert_action": (found.infos["expert_action"], episodes.action[e]),
            "pushed": (found.infos["pushed"], episodes.pushed[e]),
            "clip": (found.infos["clip"], np.repeat(episodes.clip[e], STEPS)),
            "frame": (found.infos["frame"], episodes.frame[e] + np.arange(STEPS)),
            "noise": (found.infos["noise"], np.repeat(episodes.noise[e], STEPS)),
            "delay": (found.infos["delay"], np.repeat(episodes.delay[e], STEPS)),
            "joint_offset": (more["joint_offset"], episodes.joint_offset[e]),
            "rewards": (found.rewards, np.zeros(STEPS - 1, np.float32)),
            "terminations": (found.terminations, np.zeros(STEPS - 1, bool)),
            "truncations": (found.truncations, np.arange(STEPS - 1) == STEPS - 2),
        }
        for name, (value, wanted) in expected.items():
            assert value.dtype == wanted.dtype, name
            np.testing.assert_array_equal(value, wanted, err_msg=name)
        assert set(found.infos) == {"expert_action", "pushed", "clip", "frame", "noise", "delay"}
        assert more["seed"] == 7 and more["accepted"]
        assert more["shard"] == more["expert"] == (e >= 3)
        first = {key: value[0] for key, value in found.observations.items()}
        assert dataset.observation_space.contains(first)
        assert dataset.action_space.contains(found.actions[0])
    printed = capsys.readouterr().out
    assert "5 accepted episodes of 2 experts on 2 clips -> g1/walks-v0" in printed
    assert "licences of the clips that were followed: Apache-2.0, CC BY 4.0" in printed


def test_the_manifest_and_the_export_are_told(folder, home):
    metadata = export(folder).storage.metadata
    assert metadata["rollouts"] == rollouts.read_manifest(folder)
    assert metadata["rollouts_export"]["episodes"] == "accepted"
    assert metadata["rollouts_export"]["left_out"] == 0
    assert metadata["rollouts_export"]["versions"] == cli.versions()
    assert metadata["dataset_id"] == NAME and metadata["data_format"] == "hdf5"
    assert "without noise" in metadata["description"]
    assert list(minari.list_local_datasets()) == [NAME]
    from minari.namespace import list_local_namespaces

    assert list_local_namespaces() == ["g1"]
    assert not [path for path in files(home) if path.name.startswith(".")]
    assert os.environ["MINARI_DATASETS_PATH"] == str(home)


def test_failed_episodes_end_with_the_state_of_the_failure(folder, capsys):
    """Recorded lengths 0, 1, 4, 5 and 6 of 6 states: none, 1, 4, 5 steps to it, 5 to the end."""
    dataset = export(folder, failed=True)
    episodes, _ = rollouts.load_rollouts(folder, failed=True)
    found = list(dataset.iterate_episodes())
    assert [len(episode) for episode in found] == [1, 4, 5, 5]
    assert [bool(episode.terminations[-1]) for episode in found] == [True, True, True, False]
    assert [bool(episode.truncations[-1]) for episode in found] == [False, False, False, True]
    for e, episode in zip((1, 2, 3, 4), found, strict=True):
        n = len(episode)
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
        np.testing.assert_array_equal(episode.observations["qvel"], episodes.qvel[e, : n + 1])
        np.testing.assert_array_equal(episode.actions, episodes.executed[e, :n])
        assert {len(value) for value in episode.infos.values()} == {n + 1}
    assert not any(m["accepted"] for m in dataset.storage.get_episode_metadata(range(4)))
    assert dataset.storage.metadata["rollouts_export"]["left_out"] == 1
    assert "left out 1 episodes that fell before the recording began" in capsys.readouterr().out


def test_minaris_own_tools_work_on_it(folder):
    accepted, failed = export(folder), export(folder, "g1/falls-v0", failed=True)
    assert len(accepted.filter_episodes(lambda e: e.infos["clip"][0] == 0)) == np.sum(
        rollouts.load_rollouts(folder)[0].clip == 0
    )
    both = minari.combine_datasets([accepted, failed], "g1/both-v0")
    assert len(both) == 9 and both.total_steps == 25 + 15
    np.testing.assert_array_equal(both[8].infos["noise"], failed[3].infos["noise"])


def test_a_failure_is_where_the_rules_say(tmp_path):
    """Of collected episodes: the pelvis obeys the clip's frames until the last state, not there.

    Rules of the protocols: 0.25 m of height, 0.8 of the projection of gravity. It also shows that
    `frame` is the reference's at each state.
    """
    collect.main(
        collect.Config(
            policy=("walk",), out=tmp_path, num_envs=16, episodes=16, steps=60, warm_up=5,
            verify=0, noise_scale=10, quiet=0, seed=3,
        )
    )  # fmt: skip
    dataset = export(tmp_path, failed=True)
    (clip,) = library.load_motions(("walk",))
    ended = [e for e in dataset.iterate_episodes() if e.terminations[-1]]
    assert len(ended) > 3
    for episode in ended:
        qpos, frame = episode.observations["qpos"], episode.infos["frame"]
        height = abs(qpos[:, 2] - clip.body_pos_w[frame, 0, 2])
        lean = [
            2 * (q[:, 1] ** 2 + q[:, 2] ** 2) for q in (qpos[:, 3:7], clip.body_quat_w[frame, 0])
        ]
        broken = (height > 0.25) | (abs(lean[0] - lean[1]) > 0.8)
        assert broken[-1] and not broken[:-1].any()


# --- where it goes --------------------------------------------------------------------------------


def test_the_folder_of_datasets(folder, tmp_path, home, monkeypatch):
    tool.main(tool.Config(folder, "walks-v3", root=tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b" / "walks-v3" / "data").is_dir() and not home.exists()
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    tool.main(tool.Config(folder, "deep/er/walks-v3"))
    assert "MINARI_DATASETS_PATH" not in os.environ
    assert len(minari.load_dataset("deep/er/walks-v3")) == 5  # Minari's own default
    assert (tmp_path / "user" / ".minari" / "datasets" / "deep" / "er").is_dir()


def test_a_dataset_that_exists_is_left_alone(folder, home):
    export(folder)
    before = {path: path.read_bytes() for path in files(home) if path.is_file()}
    text = f"{home / NAME}: exists already; choose another name or version."
    with pytest.raises(BMError, match=re.escape(text)):
        export(folder)
    text = f"{home / NAME}: is a dataset, expected a folder that holds datasets."
    with pytest.raises(BMError, match=re.escape(text)):
        export(folder, f"{NAME}/more-v0")
    assert before == {path: path.read_bytes() for path in files(home) if path.is_file()}
    assert len(export(folder, "g1/walks-v1")) == 5
    assert list(minari.list_local_datasets()) == [NAME, "g1/walks-v1"]


def test_an_export_that_breaks_off_leaves_nothing(folder, home, monkeypatch):
    buffers = tool.buffers

    def broken(*arguments):
        yield next(buffers(*arguments))
        assert [path for path in files(home) if path.name == "main_data.hdf5"]  # premise
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tool, "buffers", broken)
    text = f"{home / NAME}: cannot be written (No space left on device)."
    with pytest.raises(BMError, match=re.escape(text)):
        export(folder)
    assert files(home) == []
    (home / "file").write_text("")
    with pytest.raises(BMError, match="cannot be written"):
        export(folder, root=home / "file")


@pytest.mark.parametrize("root", ["here", "./here", "a/../here"])
def test_a_relative_root(folder, home, monkeypatch, tmp_path, root):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    tool.main(tool.Config(folder, NAME, root=Path(root)))
    monkeypatch.setenv(tool.ROOT_VARIABLE, str(tmp_path / "here"))
    assert len(minari.load_dataset(NAME)) == 5
    monkeypatch.setenv(tool.ROOT_VARIABLE, "there")  # the variable may be relative, too
    tool.main(tool.Config(folder, NAME))
    assert files(tmp_path / "there") and not files(home)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["walks", "g1/walks", "g1/walks-v", "g1/walks-v0/", "/walks-v0", "g1//walks-v0", "../walks-v0",
     "g/walks-v0", "g1/wa lks-v0", "data/walks-v0", "g1/data/walks-v0", "-v0", ""],
)  # fmt: skip
def test_names_that_are_none(folder, home, name):
    text = f"'{name}' is not the id of a dataset, expected NAMESPACE/NAME-v0"
    with pytest.raises(ConfigError, match=re.escape(text)):
        export(folder, name)
    assert not home.exists()


def test_folders_that_are_none(folder, tmp_path, home):
    with pytest.raises(BMError, match="holds no dataset.json, expected a folder of roll-outs"):
        export(tmp_path)
    with (folder / "episodes-00001.npz").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BMError, match="has another SHA-256 than dataset.json tells"):
        export(folder)
    part = random_rollouts([STEPS] * 2, 0)
    changes = {
        "'experts' is missing or malformed; collect it anew": {"experts": None},
        "'settings' has no whole number as seed; collect it anew": {"settings": {}},
        "lists 0 clips, but an episode has another than these": {"clips": []},
    }
    for i, (text, change) in enumerate(changes.items()):
        with pytest.raises(BMError, match=f"dataset.json: {re.escape(text)}"):
            export(write_folder(tmp_path / f"bad{i}", [part], **change))
    manifest = rollouts.read_manifest(write_folder(tmp_path / "count", [part]))
    manifest["shards"][0]["episodes"]["count"] = 3
    cli.write_json(tmp_path / "count" / rollouts.MANIFEST, manifest)
    with pytest.raises(BMError, match="holds 2 episodes, but dataset.json tells 3"):
        export(tmp_path / "count")
    with pytest.raises(BMError, match="holds no failed episodes"):
        export(write_folder(tmp_path / "none", [part]), failed=True)
    single = write_folder(tmp_path / "single", [random_rollouts([1], 0, steps=1)])
    with pytest.raises(BMError, match="no episode holds a step, expected two states or more"):
        export(single)
    assert not home.exists()


@pytest.mark.parametrize("package", ["minari", "h5py", "PIL"])
def test_a_missing_package_is_named(folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    text = f"A Minari dataset needs the package {package}: pip install 'bm-envs[minari]'."
    with pytest.raises(ConfigError, match=re.escape(text)):
        tool.main(tool.Config(folder, NAME))


@pytest.mark.slow
def test_the_command(folder, home, tmp_path):
    def run(*arguments):
        return warm_python.run(
            [sys.executable, "tools/rollouts_to_minari.py", *map(str, arguments)],
            capture_output=True, text=True, cwd=ROOT, timeout=300,
        )  # fmt: skip

    done = run(folder, NAME, "--failed")
    assert done.returncode == 0 and done.stderr == ""
    last = rf"wrote 4 episodes of 15 steps in all, [\d.]+ MB: {re.escape(str(home / NAME))}"
    assert re.fullmatch(last, done.stdout.splitlines()[-1])
    dataset = minari.load_dataset(NAME)
    assert "rollouts_to_minari.py" in dataset.storage.metadata["rollouts_export"]["command"]
    done = run(folder, NAME)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {home / NAME}: exists already; choose another name or version.\n"
    done = run(tmp_path / "nothing", "g1/x-v0")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
