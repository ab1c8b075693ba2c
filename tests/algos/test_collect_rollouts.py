"""The collector of roll-outs, with the shipped walk as expert: what it writes and refuses."""

import numpy as np
import pytest
from collected_rollouts import collect, collected, config

from bm_envs.diffusion import rollouts
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.errors import BMError, ConfigError
from bm_envs.motion import library
from bm_envs.robots import g1
from bm_envs.rotations import (
    quat_from_axis_angle,
    quat_mul,
    quat_rotate,
    quat_rotate_inverse,
    quat_yaw,
    wrapped,
)


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


def test_other_starts_are_states_of_other_motions_where_the_clip_is_most_alike(tmp_path):
    """Nearly all at the start are poses of that motion, which no frame of the clip has."""
    name = "walk_on_0[5:9]"
    folder = tmp_path / "data"
    collect.main(config(
        folder, other_starts=1.0, start_motions=(name,), quiet=1.0, pushed=0.0, warm_up=0, verify=0,
    ))  # fmt: skip
    episodes = rollouts.load_rollouts(folder)[0]
    clip, (other,) = library.load_motions(["walk"])[0], library.load_motions([name])

    def off(frames):
        """Of each episode's first pose the distance to the nearest of these, rad."""
        poses = episodes.qpos[:, 0, 7:]
        return np.linalg.norm(poses[:, None] - frames[None], axis=2).min(1)

    assert len(episodes) > 6
    np.testing.assert_allclose(off(other.joint_pos), 0.0, atol=1e-5)  # float32 of a copy
    assert off(clip.joint_pos).min() > 1e-3
    # Each stands where its frame of the clip does, and faces as it does, but for the start's noise.
    roots = clip.body_pos_w[episodes.frame, 0, :2]
    assert np.abs(episodes.qpos[:, 0, :2] - roots).max() < 0.06
    turned = quat_yaw(episodes.qpos[:, 0, 3:7]) - quat_yaw(clip.body_quat_w[episodes.frame, 0])
    assert np.abs(wrapped(turned)).max() < 0.25
    manifest = rollouts.read_manifest(folder)
    assert manifest["settings"]["start_motions"] == [name]


def test_the_nearest_frame_of_a_frame_is_itself(monkeypatch):
    """Turned about, moved, and with all frames as candidates."""
    clip = library.load_motions(["walk"])[0]
    monkeypatch.setattr(collect, "CANDIDATES", 20_000)  # 400 frames: none is missed
    frames = np.array([20, 77, 301])
    turn = quat_from_axis_angle(np.array([[0.0, 0.0, 2.0]]))
    quat = quat_mul(turn, clip.body_quat_w[frames, 0].astype(float))
    spin = quat_rotate_inverse(clip.body_quat_w[frames, 0], clip.body_ang_vel_w[frames, 0])
    qpos = np.concatenate([np.ones((3, 3)), quat, clip.joint_pos[frames]], 1)
    velocity = quat_rotate(turn, clip.body_lin_vel_w[frames, 0].astype(float))
    qvel = np.concatenate([velocity, spin, clip.joint_vel[frames]], 1)
    which, found = collect.nearest_frames(
        [clip], np.array([400]), (qpos, qvel), np.random.default_rng(0)
    )
    assert which.tolist() == [0, 0, 0] and found.tolist() == frames.tolist()
    placed, speed = collect.placed((qpos, qvel), *(np.zeros((3, n)) + unit for n, unit in (
        (36, np.eye(36)[3]), (35, 0.0))))  # fmt: skip
    np.testing.assert_allclose(quat_yaw(placed[:, 3:7]), 0.0, atol=1e-6)
    np.testing.assert_allclose(placed[:, :3], [[0.0, 0.0, 1.0]] * 3)
    np.testing.assert_allclose(np.linalg.norm(speed[:, :2], axis=1),
                               np.linalg.norm(qvel[:, :2], axis=1))  # fmt: skip
    np.testing.assert_array_equal(placed[:, 7:], qpos[:, 7:])


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
