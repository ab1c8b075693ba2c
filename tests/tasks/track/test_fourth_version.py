"""What the preset `v4` is made of: against the paper's figures, scipy, and its formulas."""

import copy
import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import tracking_facts as facts
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bm_envs.envs import TrackEnv, TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.learning.imagination import check_task
from bm_envs.motion.sampler import StartSampler
from bm_envs.robots import g1
from bm_envs.rotations import quat_mul
from bm_envs.tasks.track import terminations
from bm_envs.tasks.track.config import ModelConfig, RewardConfig, TrackConfig

V4 = TrackConfig.preset("v4")
ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "algos"))
NOISE_OFF = {"noise": False, "reset_noise": False, "pushes": False}


# --- the preset -----------------------------------------------------------------------------------


def test_the_preset_has_the_papers_figures():
    for name, expected in facts.V4.items():
        found = getattr(V4, name)
        if isinstance(expected, dict):
            found = {key: getattr(found, key) for key in expected}
        assert found == expected, name
    for term, (weight, std) in facts.REWARDS.items():
        assert getattr(V4.rewards, term) == weight
        assert getattr(V4.rewards, f"{term}_std", None) == std


def test_what_the_paper_does_not_print_is_as_by_default():
    train = TrackConfig()
    changed = {
        item.name
        for item in dataclasses.fields(train)
        if getattr(V4, item.name) != getattr(train, item.name)
    }
    assert changed == {"start", "failure_rotation", "rewards", "reset", "randomize", "model"}
    assert V4.noise and V4.noise_level == train.noise_level
    assert dataclasses.replace(V4.rewards, contact_term="links") == train.rewards
    assert dataclasses.replace(V4.reset, joint_pos=train.reset.joint_pos) == train.reset
    assert dataclasses.replace(V4.model, self_collision=False) == train.model


def test_both_trainers_begin_with_it():
    import ppo_track
    import wm_track

    for script in (ppo_track, wm_track):
        config, plain = script.PRESETS["v4"](), script.Config()
        assert config.task == V4 and config.preset == "v4"
        # The trainer itself is the default one.
        assert dataclasses.replace(config, preset=plain.preset, task=plain.task) == plain
    assert {"v4"} < ppo_track.GAE_LAMBDA.keys() == ppo_track.ENT_COEF.keys()
    for table in (ppo_track.GAE_LAMBDA, ppo_track.ENT_COEF, ppo_track.WARMUP_ITERATIONS):
        assert table.keys() == ppo_track.PRESETS.keys() and table["v4"] == table["laptop"]
    check_task(V4)


@pytest.mark.parametrize("angle", [0.0, -0.8, math.pi, 4.0])
def test_an_angle_that_is_none_is_refused(angle):
    with pytest.raises(ConfigError, match=f"^failure_rotation is {angle}, expected None or an"):
        TrackConfig(failure_rotation=angle)


@pytest.mark.parametrize("term", ["self", "self_links"])
def test_self_contacts_need_robots_that_touch_themselves(term):
    with pytest.raises(ConfigError, match=f"^rewards.contact_term='{term}' needs model.self_coll"):
        TrackConfig(rewards=RewardConfig(contact_term=term))
    TrackConfig(rewards=RewardConfig(contact_term=term), model=ModelConfig(self_collision=True))


# --- rotation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0.05, 3.1))
def test_the_rotation_is_scipys_whole_angle(convert, seed, threshold):
    rng = np.random.default_rng(seed)
    first, ref = Rotation.random(64, rng), Rotation.random(64, rng)
    first[:8] = ref[:8]  # no rotation at all
    angle = (ref * first.inv()).magnitude()
    sign = rng.choice([-1.0, 1.0], (64, 1))  # q and -q are one rotation
    quats = [sign * first.as_quat(scalar_first=True), ref.as_quat(scalar_first=True)]
    failed = np.asarray(terminations.rotation_off(*map(convert, quats), threshold))
    clear = abs(angle - threshold) > 1e-6
    np.testing.assert_array_equal(failed[clear], (angle > threshold)[clear])
    assert not failed[:8].any()


def test_a_robot_turned_too_far_in_any_direction_has_failed():
    """0.75 and 0.85 rad of yaw, roll or pitch; the tilt's rule sees none of them."""
    axes = np.tile(np.eye(3), (2, 1))[[2, 0, 1, 5, 3, 4]]
    angles = np.repeat([0.75, 0.85], 3)
    turns = Rotation.from_rotvec(axes * angles[:, None]).as_quat(scalar_first=True)
    for rotation, name in ((0.8, "anchor_rotation"), (None, "anchor_ori")):
        env = TrackVectorEnv(
            6, "stand", preset="v4", autoreset_mode="disabled",
            overrides={"failure_rotation": rotation, "failure_height": 9.0, "randomization": False,
                       **NOISE_OFF},
        )  # fmt: skip
        env.reset(seed=0)
        sim = env.simulator
        qpos = np.concatenate([
            sim.root_pos + [0, 0, 1.0], quat_mul(turns, sim.root_quat), sim.joint_pos
        ], 1)  # fmt: skip
        sim.reset(np.arange(6), qpos, np.zeros((6, 35)))
        # A step in the air turns the torso by less than the 0.05 rad between.
        result = env.task.step(env.task.reference_action())
        assert result.causes[name].tolist() == [False] * 3 + [rotation is not None] * 3
        assert env.task.tables.rule_names == ("anchor_pos", name, "ee_body_pos")
        assert result.terminated.tolist() == result.causes[name].tolist()
        env.close()


# --- randomization --------------------------------------------------------------------------------


def drawn(env):
    """What is drawn of a robot: offsets `[N, 29]`, friction `[N]`, the torso's shift `[N, 3]`."""
    held = env.simulator.read_model()
    torso = g1.BODY_NAMES.index(g1.ANCHOR_BODY)
    nominal = np.array(g1.BODIES[torso].inertial_pos)
    offset = env.task.default_joint_pos - g1.DEFAULT_JOINT_POS.astype(np.float32)
    return offset.copy(), held["foot_friction"], held["body_com"][:, torso] - nominal


def test_ankles_have_a_range_of_their_own_and_joints_are_independent():
    n = 2000
    env = TrackVectorEnv(n, "stand", preset="v4", overrides=NOISE_OFF)
    obs, _ = env.reset(seed=0)
    offset, friction, shift = drawn(env)
    width = np.array([0.1 if name in facts.V4_ANKLES else 0.01 for name in g1.JOINT_NAMES])
    assert (abs(offset) <= width + 1e-6).all()
    # Of uniform draws all are within 0.99 of the width on one side in 0.995^2000 = 4e-5 of cases.
    assert (offset.max(0) > 0.99 * width).all() and (offset.min(0) < -0.99 * width).all()
    np.testing.assert_allclose(offset.std(0), width / np.sqrt(3), rtol=0.06)
    everything = np.concatenate([offset, friction[:, None], shift], 1)
    apart = np.corrcoef(everything.T) - np.eye(33)
    assert abs(apart).max() < 5.5 / np.sqrt(n)  # standard deviations, of 528 pairs
    low, high = facts.V4["randomize"]["foot_friction"]
    assert low <= friction.min() < low + 0.01 and high - 0.01 < friction.max() <= high
    assert (abs(shift).max(0) <= np.array(facts.TORSO_COM) + 1e-6).all()
    assert (abs(shift).max(0) > 0.98 * np.array(facts.TORSO_COM)).all()
    # Action and observation alike.
    seen = obs[:, env.task.observation_layout["joint_pos"]]
    expected = env.simulator.joint_pos - (g1.DEFAULT_JOINT_POS + offset)
    np.testing.assert_allclose(seen, expected, atol=2e-6)
    targets = []
    env.simulator.step, step = (lambda q: (targets.append(q.copy()), step(q))), env.simulator.step
    env.step(np.zeros((n, 29), np.float32))
    np.testing.assert_allclose(targets[0], g1.DEFAULT_JOINT_POS + offset, atol=1e-6)
    env.close()


def test_a_reset_draws_all_anew_for_its_robots_and_no_others():
    env = TrackVectorEnv(6, "stand", preset="v4", autoreset_mode="disabled")
    env.reset(seed=0)
    seen = [drawn(env)]
    for _ in range(3):
        env.step(np.zeros((6, 29), np.float32))
        for before, after in zip(seen[-1], drawn(env), strict=True):
            np.testing.assert_array_equal(before, after)
        mask = np.array([True, False, False, True, False, False])
        env.reset(options={"reset_mask": mask})
        for before, after in zip(seen[-1], drawn(env), strict=True):
            same = (before == after).reshape(6, -1)
            assert not same[mask].any() and same[~mask].all()
        seen.append(drawn(env))
        np.testing.assert_allclose(env.task.state.build[:, 0], seen[-1][1], rtol=1e-6)
        np.testing.assert_allclose(env.task.state.build[:, 1:], seen[-1][2], atol=1e-7)
    env.close()


@pytest.mark.parametrize("backend", ["mujoco", "mujoco_warp"])
def test_an_episode_that_begins_by_itself_is_drawn_anew(backend):
    if backend == "mujoco_warp":
        pytest.importorskip("mujoco_warp", reason="needs the extra warp")
    env = TrackVectorEnv(3, "stand", preset="v4", episode_s=0.06, backend=backend)
    env.reset(seed=0)
    env.task.episode_step[:] = [0, 1, 2]  # the last robot's episode ends first
    before = drawn(env)
    env.step(np.zeros((3, 29), np.float32))
    for old, new in zip(before, drawn(env), strict=True):
        same = (old == new).reshape(3, -1)
        assert same[:2].all() and not same[2].any()
    env.close()


def test_one_robot_draws_as_many_do():
    env = TrackEnv("stand", preset="v4")
    env.reset(seed=0)
    first = drawn(env)
    env.reset()
    for old, new in zip(first, drawn(env), strict=True):
        assert not (old == new).any()
    low, high = facts.V4["randomize"]["foot_friction"]
    assert low <= first[1][0] <= high
    env.close()


# --- a state that was saved -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 4])
def test_a_saved_environment_goes_on_bit_for_bit(count):
    """With ends and new draws before and behind it."""

    def make():
        if count is None:
            return TrackEnv("walk", preset="v4", episode_s=0.3)
        return TrackVectorEnv(count, "walk", preset="v4", episode_s=0.3)

    def play(env, steps):
        rng, seen = np.random.default_rng(2), []
        for _ in range(steps):
            obs, reward, terminated, truncated, _ = env.step(
                rng.normal(0, 0.5, env.action_space.shape).astype(np.float32)
            )
            seen += [obs, reward, *drawn(env)]
            if count is None and (terminated or truncated):
                seen.append(env.reset()[0])
        return seen

    env = make()
    env.reset(seed=1)
    play(env, 20)
    others = [copy.deepcopy(env)]
    if isinstance(env, TrackVectorEnv):
        others.append(make())
        others[1].reset(seed=9)
        others[1].set_state(env.get_state())
    expected = play(env, 25)
    for again in others:
        for a, b in zip(expected, play(again, 25), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_state_without_net_forces_is_still_read():
    """Version 0.1 did not tell them, and robots that touch themselves were there."""
    env = TrackVectorEnv(2, "stand", preset="v4", overrides={"rewards": {"contact_term": "self"}})
    env.reset(seed=0)
    env.step(np.zeros((2, 29), np.float32))
    saved = env.simulator.get_state()
    told = 3 * len(env.simulator.contact_bodies)
    saved["sensors32"] = saved["sensors32"][:, :-told]
    force = env.simulator.contact_force.copy()
    env.step(np.ones((2, 29), np.float32))
    env.simulator.set_state(saved)
    np.testing.assert_array_equal(env.simulator.contact_force, force)


# --- starts ---------------------------------------------------------------------------------------


def sampler(frames, **changes):
    return StartSampler(frames, fps=50, **dataclasses.asdict(V4.start) | changes)


def test_starts_are_uniform_where_nobody_fails():
    starts = sampler([500, 40, 1276])
    np.testing.assert_allclose(starts.probabilities(), np.full(38, 1 / 38), rtol=1e-12)


@pytest.mark.parametrize("torches", [False, True])
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kernel=st.integers(1, 5))
def test_starts_follow_the_papers_formula(torches, seed, kernel):
    """p_s ~ sum_u 0.8^u (f_{s+u} + 0.1 / S), and behind a clip's end its last bin once more."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(3, 700, 3)
    starts = sampler(frames, kernel=kernel)
    clip = rng.integers(0, 3, 40)
    bins = starts.bin_of(clip, rng.integers(0, frames[clip]))
    failures, visits = np.zeros(starts.num_bins), np.zeros(starts.num_bins)
    for _ in range(5):
        failed = rng.random(40) < 0.3
        starts.record(bins, failed)
        failures = 0.999 * failures + 0.001 * np.bincount(bins[failed], minlength=len(failures))
        visits = 0.999 * visits + 0.001 * np.bincount(bins, minlength=len(visits))
    rate = np.divide(failures, visits, out=np.zeros_like(visits), where=visits > 0)
    weight, total = [], starts.num_bins
    for first, count in zip(starts.bin_start, starts.clip_bins, strict=True):
        own = rate[first : first + count] + 0.1 / total
        padded = np.concatenate([own, np.full(kernel, own[-1])])
        weight += [sum(0.8**u * padded[s + u] for u in range(kernel)) for s in range(count)]
    if torches:
        from bm_envs.arrays import Torch

        starts = starts.to(Torch("cpu"))
    found = np.asarray(starts.probabilities())
    np.testing.assert_allclose(found, np.array(weight) / sum(weight), rtol=1e-9)
