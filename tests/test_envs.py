"""Gymnasium contract of the tracking environments, single and vector."""

import dataclasses
import pickle
import re
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorStatistics

import bm_envs
from bm_envs.envs import TrackEnv, TrackVectorEnv
from bm_envs.errors import BMError, ConfigError, MotionError
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import TERMS, layout
from bm_envs.tasks.track.config import TrackConfig

IDS = {"BMTrack-G1-v0": 160, "BMTrack-G1-NoStateEst-v0": 154, "BMTrack-G1-23-v0": 130}
# Infinite observation bounds and an action range beyond [-1, 1] are by design.
EXPECTED = ("minimum value is -infinity", "maximum value is infinity", "symmetric and normalized")


def hold(obs, rng=None, noise=0.0):
    """Actions that ask for the reference pose shown in the observation."""
    action = (obs[..., :29] - g1.DEFAULT_JOINT_POS) / g1.ACTION_SCALE
    if rng is not None:
        action = action + noise * rng.normal(size=action.shape)
    return action.astype(np.float32)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("critic", ["info", "dict"])
def test_check_env_warns_of_nothing_but_the_declared_bounds(env_id, critic):
    env = gymnasium.make(env_id, motion="walk", critic=critic)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
    odd = [str(w.message) for w in seen if not any(part in str(w.message) for part in EXPECTED)]
    assert not odd


@pytest.mark.parametrize(("env_id", "size"), IDS.items())
def test_spaces(env_id, size):
    env = gymnasium.make(env_id, motion="stand")
    assert env.observation_space.shape == (size,)
    joints = 23 if "-23-" in env_id else 29
    assert env.action_space == gymnasium.spaces.Box(-10, 10, (joints,), np.float32)
    assert env.spec.max_episode_steps is None
    obs, info = env.reset(seed=0)
    assert obs.dtype == np.float32 and env.observation_space.contains(obs)
    assert info["critic_obs"].shape == (5 * joints + 141,)
    vector = gymnasium.make_vec(env_id, num_envs=3, motion="stand")
    assert vector.single_observation_space == env.observation_space
    assert vector.observation_space.shape == (3, size)


def test_the_class_text_shows_the_layout_of_the_code():
    """Its table is prose; index, name, frame, unit and noise of each row are the code's."""
    config = TrackConfig()
    noise = dataclasses.asdict(config.noise_level)
    rows = re.findall(r"\| (\d+:\d+) \| (\w+): .* \| (.*) \| (.*) \| (.*) \|\n", TrackEnv.__doc__)
    assert rows == [
        (f"{where.start}:{where.stop}", name, TERMS[name].frame, TERMS[name].unit,
         str(noise.get(name, "-")))
        for name, where in layout(config.observations).items()
    ]  # fmt: skip


def test_module_form_of_the_id_imports_and_makes():
    code = (
        "import gymnasium; print(gymnasium.make('bm_envs:BMTrack-G1-v0', motion='stand').spec.id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "BMTrack-G1-v0", done.stderr


def test_misspelt_id_names_the_alternative():
    with pytest.raises(gymnasium.error.Error, match="Did you mean: `BMTrack-G1`"):
        gymnasium.make("BMTrak-G1-v0")
    with pytest.raises(MotionError, match="Unknown motion 'wakl'.*'walk'"):
        gymnasium.make("BMTrack-G1-v0", motion="wakl")


def test_two_copies_with_one_seed_are_equal_bit_for_bit():
    first, second = (TrackEnv("walk") for _ in range(2))
    rng = np.random.default_rng(0)
    assert np.array_equal(first.reset(seed=5)[0], second.reset(seed=5)[0])
    ended = 0
    for _ in range(150):
        action = rng.normal(size=29).astype(np.float32)
        a, b = first.step(action), second.step(action)
        assert np.array_equal(a[0], b[0]) and a[1:4] == b[1:4]
        if a[2] or a[3]:
            ended += 1
            assert np.array_equal(first.reset()[0], second.reset()[0])
    assert ended  # resets were part of it


def test_vector_copies_are_equal_and_seeds_differ():
    envs = [TrackVectorEnv(8, "walk") for _ in range(3)]
    starts = [env.reset(seed=seed)[0] for env, seed in zip(envs, (1, 1, 2), strict=True)]
    assert np.array_equal(starts[0], starts[1]) and not np.array_equal(starts[0], starts[2])
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.normal(size=(8, 29)).astype(np.float32)
        a, b = envs[0].step(action), envs[1].step(action)
        assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


def test_threads_do_not_change_a_bit():
    envs = [TrackVectorEnv(6, "walk", threads=threads) for threads in (1, 2)]
    for env in envs:
        env.reset(seed=0)
    for _ in range(30):
        a, b = (env.step(np.zeros((6, 29), np.float32)) for env in envs)
        assert np.array_equal(a[0], b[0])


def test_observations_do_not_share_memory_and_none_is_constant():
    env = TrackVectorEnv(16, "walk")
    obs, info = env.reset(seed=0)
    kept, copies = [obs], [obs.copy()]
    critic = [info["critic_obs"].copy()]
    rng = np.random.default_rng(0)
    for _ in range(40):
        obs, *_, info = env.step(hold(obs, rng, 0.5))
        kept.append(obs)
        copies.append(obs.copy())
        critic.append(info["critic_obs"].copy())
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    # The clip itself moves no wrist; everything else in the observation must vary.
    clip = env.task.clips[0]
    still = np.concatenate([np.ptp(clip.joint_pos, 0) == 0, np.ptp(clip.joint_vel, 0) == 0])
    varies = np.ptp(np.concatenate(copies), 0) > 0
    np.testing.assert_array_equal(varies[:58], ~still)
    assert varies[58:].all()
    # The critic's anchor part is constant by definition: its own position 0 and orientation
    # identity.
    constant = 58 + np.flatnonzero(np.concatenate(critic)[:, 58:].std(0) < 1e-6)
    anchor = 7
    expected = [67 + 3 * anchor + i for i in range(3)] + [109 + 6 * anchor + i for i in range(6)]
    assert constant.tolist() == expected


def test_reward_is_the_sum_of_its_signed_terms():
    env = TrackEnv("walk")
    env.reset(seed=0)
    for _ in range(20):
        _, reward, _, _, info = env.step(np.full(29, 0.3, np.float32))
        terms = [value for key, value in info.items() if key.startswith("reward_")]
        # Nine float32 terms of at most 0.1 each.
        assert sum(terms) == pytest.approx(reward, abs=1e-6)
    assert len(terms) == 9
    assert info["reward_action_rate"] <= 0 <= info["reward_body_pos"]


def test_clip_end_is_a_truncation_at_the_last_frame():
    env = TrackVectorEnv(2, "stand", preset="clip", autoreset_mode="disabled")
    env.reset(seed=0, options={"frame": int(env.task.clip_frames[0]) - 4})
    # A handful of steps near the end: nothing falls in 60 ms.
    obs = np.zeros((2, 160), np.float32)
    ends = []
    for _ in range(3):
        obs, _, terminated, truncated, info = env.step(
            hold(obs) if obs.any() else np.zeros((2, 29))
        )
        ends.append((terminated.tolist(), truncated.tolist()))
    assert ends == [([False] * 2, [False] * 2)] * 2 + [([False] * 2, [True] * 2)]
    assert env.task.frame.tolist() == [env.task.clip_frames[0] - 1] * 2
    assert info["termination"].tolist() == ["clip_end"] * 2


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_episode_s_truncates_single_and_vector_alike(make):
    env = make("BMTrack-G1-v0", motion="stand", preset="clip", episode_s=0.2)
    obs, _ = env.reset(seed=0)
    for step in range(1, 11):
        obs, _, terminated, truncated, info = env.step(hold(obs))
        assert not np.any(terminated)
        assert np.all(truncated) == (step == 10)
    assert np.all(info["termination"] == "time_limit")


def run_until_done(mode, steps=400):
    env = TrackVectorEnv(4, "walk", autoreset_mode=mode)
    obs, _ = env.reset(seed=3)
    history = []
    for _ in range(steps):
        previous = obs
        obs, reward, terminated, truncated, info = env.step(np.zeros((4, 29), np.float32))
        history.append((previous, obs, reward, terminated | truncated, info))
    return env, history


def test_same_step_autoreset_returns_the_new_and_keeps_the_last_observation():
    env, history = run_until_done("same_step")
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    ends = 0
    for _, obs, _, done, info in history:
        if not done.any():
            assert "final_obs" not in info
            continue
        ends += done.sum()
        assert np.array_equal(info["_final_obs"], done)
        slices = env.task.observation_layout
        last = info["final_obs"][done]
        assert not obs[done][:, slices["actions"]].any()  # a fresh episode has no last action
        assert not np.array_equal(last, obs[done])
        assert not info["final_obs"][~done].any()  # what is masked is zero, as Gymnasium has it
        assert info["final_info"]["critic_obs"].shape == (4, 286)
        assert all(info["final_info"]["termination"][done] != "")
    assert ends >= 4


def test_next_step_autoreset_spends_one_step_on_the_reset():
    env, history = run_until_done("next_step")
    ends = 0
    for (_, _, _, done, _), (_, obs, reward, after, _) in zip(history, history[1:], strict=False):
        if done.any():
            ends += 1
            assert not after[done].any() and not reward[done].any()
            assert not obs[done][:, env.task.observation_layout["actions"]].any()
    assert ends >= 2


def test_disabled_autoreset_waits_for_the_mask():
    env = TrackVectorEnv(4, "walk", autoreset_mode="disabled")
    env.reset(seed=0)
    for _ in range(120):
        *_, info = env.step(np.zeros((4, 29), np.float32))
    before = env.task.episode_step.copy()
    assert (before == 120).all()
    mask = np.array([True, False, True, False])
    env.reset(options={"reset_mask": mask})
    assert env.task.episode_step.tolist() == [0, 120, 0, 120]
    for bad in (np.zeros(4, bool), np.ones(3, bool), np.ones(4)):
        with pytest.raises(ConfigError, match="reset_mask"):
            env.reset(options={"reset_mask": bad})


def test_statistics_wrappers_count_what_happened():
    env = RecordEpisodeStatistics(TrackEnv("walk"))
    env.reset(seed=0)
    total, length = 0.0, 0
    done = False
    while not done:
        _, reward, terminated, truncated, info = env.step(np.zeros(29, np.float32))
        total, length, done = total + reward, length + 1, terminated or truncated
    assert info["episode"]["l"] == length and info["episode"]["r"] == pytest.approx(total, abs=1e-5)

    vector = VectorStatistics(TrackVectorEnv(3, "walk"))
    vector.reset(seed=0)
    returns, seen = np.zeros(3), 0
    for _ in range(150):
        _, reward, terminated, truncated, info = vector.step(np.zeros((3, 29), np.float32))
        returns += reward
        done = terminated | truncated
        if done.any():
            seen += 1
            np.testing.assert_allclose(info["episode"]["r"][done], returns[done], atol=1e-4)
            assert np.array_equal(info["_episode"], done)
            returns[done] = 0
    assert seen


def test_a_start_for_each_robot():
    env = TrackVectorEnv(4, ["stand", "walk"])
    env.reset(seed=0, options={"clip": [0, 1, 1, 0], "frame": np.array([3, 700, 0, 9])})
    assert env.task.clip_id.tolist() == [0, 1, 1, 0]
    assert env.task.frame.tolist() == [3, 700, 0, 9]
    mask = np.array([False, True, False, True])
    env.reset(options={"clip": [1, 0], "phase": 0.5, "reset_mask": mask})
    assert env.task.clip_id.tolist() == [0, 1, 1, 0]
    assert env.task.frame.tolist() == [3, (env.task.clip_frames[1] - 1) // 2, 0, 250]
    for options, text in (
        ({"clip": [0, 1]}, "options['clip'] has shape (2,), expected one value or 4."),
        ({"clip": [0, 1, 2, 0]}, "options['clip'] is 2, expected 0 to 1."),
        ({"clip": [0, 1, 1, 0], "frame": 900}, "options['frame'] is 900, expected 0 to 499."),
    ):
        with pytest.raises(ConfigError, match=re.escape(text)):
            env.reset(options=options)


def test_several_clips_and_start_options():
    env = TrackVectorEnv(4, ["stand", "walk"], preset="clip", autoreset_mode="disabled")
    env.reset(seed=0)
    assert env.task.clip_id.tolist() == [0, 1, 0, 1] and not env.task.frame.any()
    env.reset(options={"clip": "walk", "phase": 0.5})
    frames = env.task.clip_frames[1]
    last = env.task.clip_frames[0] - 2
    assert env.task.clip_id.tolist() == [1] * 4
    assert env.task.frame.tolist() == [(frames - 1) // 2] * 4
    for options, text in (
        ({"clip": "run"}, "options['clip'] is 'run', expected one of stand, walk."),
        ({"clip": 2}, "options['clip'] is 2, expected 0 to 1."),
        ({"phase": 1.0}, "options['phase'] is 1.0, expected a number in [0, 1)."),
        ({"frame": 10**6}, f"options['frame'] is 1000000, expected 0 to {last}."),
        ({"speed": 1}, "Unknown reset option 'speed', expected clip, frame, phase or reset_mask."),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=re.escape(text)):
            env.reset(options=options)


def test_training_starts_spread_over_all_clips():
    env = TrackVectorEnv(300, ["stand", "walk"])
    env.reset(seed=0)
    share = env.task.clip_frames / env.task.clip_frames.sum()
    # Binomial with n = 300: four standard deviations.
    assert abs((env.task.clip_id == 0).mean() - share[0]) < 4 * np.sqrt(share[0] * share[1] / 300)
    assert len(np.unique(env.task.frame)) > 150


def test_spec_round_trip_and_pickle():
    env = gymnasium.make(
        "BMTrack-G1-v0", motion="stand", preset="clip", overrides={"model": {"feet": "capsules"}}
    )
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    third = gymnasium.make(pickle.loads(pickle.dumps(env.spec)))
    expected = env.reset(seed=0)[0]
    for other in (again, third):
        assert other.unwrapped.config == env.unwrapped.config
        assert np.array_equal(other.reset(seed=0)[0], expected)


def test_bad_arguments_are_refused_in_one_sentence():
    for arguments, text in (
        ({"preset": "tain"}, "Unknown preset 'tain'; did you mean 'train'?"),
        ({"overrides": {"pushs": 1}}, "Unknown setting 'pushs'; did you mean 'pushes'"),
        ({"overrides": {"model": {"physics_dt": 0.003}}}, "is 0.012 s, expected 0.02 s."),
        ({"critic": "both"}, "critic is 'both', expected 'info', 'dict' or 'none'."),
        ({"backend": "phsyx"}, "Unknown backend 'phsyx'"),
        ({"episode_s": 0.0}, "episode_s is 0.0, expected 0.02 s or more."),
        ({"motion": []}, "No motion was given, expected at least one."),
    ):
        with pytest.raises(BMError, match=re.escape(text)):
            gymnasium.make("BMTrack-G1-v0", **{"motion": "stand", **arguments})
    with pytest.raises(ConfigError, match="render_mode is 'ascii', expected None or one of human"):
        TrackEnv("stand", render_mode="ascii")
    env = TrackEnv("stand")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=re.escape("action has shape (28,), expected (29,).")):
        env.step(np.zeros(28, np.float32))
    with pytest.raises(ConfigError, match=re.escape("action[3] is not finite")):
        env.step(np.where(np.arange(29) == 3, np.nan, 0).astype(np.float32))


@pytest.mark.parametrize("failure", ["train", "none"])
def test_a_diverged_robot_is_reported_although_it_is_reset_at_once(failure):
    env = TrackVectorEnv(3, "stand", overrides={"failure": failure, "pushes": False})
    env.reset(seed=0)
    env.simulator.push(np.array([1]), np.full((1, 3), 1e30), np.zeros((1, 3)))
    _, _, terminated, _, info = env.step(np.zeros((3, 29), np.float32))
    assert terminated.tolist() == [False, True, False]
    assert info["termination"].tolist() == ["", "diverged", ""]
    assert not env.simulator.diverged().any()  # the reset healed it


def test_state_round_trip_continues_bit_for_bit():
    overrides = {"start": {"mode": "adaptive"}, "randomize": {"action_delay": 1}}
    env = TrackVectorEnv(5, "walk", overrides=overrides)
    obs, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(80, 5, 29)).astype(np.float32)
    for action in actions[:40]:
        env.step(action)
    state = pickle.loads(pickle.dumps(env.get_state()))
    first = [env.step(action) for action in actions[40:]]
    other = TrackVectorEnv(5, "walk", overrides=overrides)
    other.reset(seed=9)
    other.set_state(state)
    second = [other.step(action) for action in actions[40:]]
    assert any(step[2].any() for step in first)  # resets were part of it
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


def test_noise_is_on_the_policys_observation_alone():
    alike = {
        "reset_noise": False, "pushes": False, "randomization": False, "start": {"mode": "first"},
    }  # fmt: skip
    noisy, clean = (
        TrackVectorEnv(400, "stand", overrides={**alike, "noise": noise}) for noise in (True, False)
    )
    (a, info_a), (b, info_b) = noisy.reset(seed=0), clean.reset(seed=0)
    np.testing.assert_array_equal(info_a["critic_obs"], info_b["critic_obs"])
    difference = np.abs(a - b).max(0)
    # Uniform noise of half-width w: the largest of 400 draws is within 3 % of w, but for one chance
    # in 1e5 per element (0.97^400 = 5e-6). Source of the widths: whole_body_tracking.
    expected = np.concatenate([np.zeros(58), np.full(3, 0.25), np.full(6, 0.05), np.full(3, 0.5),
                               np.full(3, 0.2), np.full(29, 0.01), np.full(29, 0.5),
                               np.zeros(29)])  # fmt: skip
    assert (difference <= expected + 1e-6).all() and (difference >= 0.97 * expected).all()


def test_version_is_the_packages():
    from importlib.metadata import version

    assert version("bm-envs") == bm_envs.__version__
