"""The collector of roll-outs, with the shipped walk as expert: what it writes and refuses."""

import numpy as np
import pytest
from collected_rollouts import collect, collected, config

from bm_envs.diffusion import rollouts
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.errors import BMError, ConfigError
from bm_envs.robots import g1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("rollouts") / "data")


@pytest.fixture(scope="module")
def episodes(folder) -> Rollouts:
    return rollouts.load_rollouts(folder)[0]


def test_manifest_tells_who_acted_and_what_came_of_it(folder, episodes):
    manifest = rollouts.read_manifest(folder)
    assert manifest["tried"] == 24 and manifest["accepted"] == len(episodes) > 12
    assert manifest["experts"][0]["policy"] == "walk"
    assert manifest["clips"][0]["name"] == "walk" and manifest["settings"]["seed"] == 3
    assert manifest["joint_names"] == list(g1.JOINT_NAMES)
    assert manifest["drives"]["action_scale"] == pytest.approx(list(g1.ACTION_SCALE))
    counts = [shard["episodes"]["count"] + shard["failed"]["count"] for shard in manifest["shards"]]
    assert counts == [12, 12]
    for figure in manifest["coverage"].values():
        assert sum(figure["share"]) == pytest.approx(1, abs=1e-3)
    assert episodes.qpos.shape == (len(episodes), 40, 36) and (episodes.length == 40).all()


def test_noise_is_in_what_was_sent_and_not_in_what_was_wanted(episodes):
    added = episodes.executed - episodes.action
    quiet = episodes.noise == 0
    assert quiet.any() and not quiet.all()
    assert not added[quiet].any()
    loud = episodes[~quiet]
    std = (loud.executed - loud.action).std((0, 1)) / np.sqrt((loud.noise**2).mean())
    # 40 steps of some ten episodes: a tenth of spread. Hips, knees, ankles and the rest.
    np.testing.assert_allclose(std, collect.noise_std(), rtol=0.25)
    assert set(np.round(collect.noise_std(), 3)) == {0.05, 0.2, 0.3, 0.4}
    assert set(episodes.delay) == {0, 1}
    assert episodes.pushed.any() and np.abs(episodes.joint_offset).max() <= 0.01 + 1e-6


def test_a_shove_is_a_horizontal_jump_after_the_recorded_state(episodes):
    jumps = np.diff(episodes.qvel[..., :2], axis=1)
    size = np.linalg.norm(jumps, axis=-1)
    shoved = episodes.pushed[:, :-1]
    assert size[shoved].mean() > 2 * size[~shoved].mean()


def test_ornstein_uhlenbeck_noise_has_its_spread_and_memory():
    """x <- 0.2 x + 0.1 xi: standard deviation 0.1 / sqrt(1 - 0.04), correlation 0.2."""
    draw = collect.noise_process("ou", np.ones(4000), np.random.default_rng(0))
    series = np.stack([draw() for _ in range(30)])[10:, :, 0]
    assert series.std() == pytest.approx(0.10206, rel=0.02)
    assert np.mean(series[1:] * series[:-1]) / series.var() == pytest.approx(0.2, abs=0.01)


def test_a_run_cut_short_goes_on_to_the_same_files(folder, tmp_path, capsys):
    collect.main(config(tmp_path, episodes=12))
    assert len(rollouts.read_manifest(tmp_path)["shards"]) == 1
    collect.main(config(tmp_path))
    whole, parts = (rollouts.read_manifest(path)["shards"] for path in (folder, tmp_path))
    assert whole == parts
    collect.main(config(tmp_path))  # nothing is left to do
    manifest = rollouts.read_manifest(tmp_path)
    assert manifest["shards"] == whole and manifest["command"]
    with pytest.raises(BMError, match="was collected with other settings; choose another --out"):
        collect.main(config(tmp_path, seed=4))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 0}, "steps is 0, expected 1 or more"),
        ({"quiet": 1.5}, "quiet is 1.5, expected a share, 0 to 1"),
        ({"push_speed": -1}, "push_speed is -1, expected 0 or more"),
    ],
)
def test_refused_settings(tmp_path, changes, text):
    with pytest.raises(ConfigError, match=text):
        config(tmp_path, **changes)


def test_a_clip_too_short_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'stand\[0:1\]' has 51 frames, expected 52 or more"):
        collect.main(config(tmp_path / "x", motion=("stand[0:1]",), steps=45))
    assert not (tmp_path / "x").exists()
