"""learning/imagination.py: observations and costs against the task's own, gradients."""

import numpy as np
import pytest
import torch
from robot_states import after_random_steps, as_state
from scipy.spatial.transform import Rotation

from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.learning import imagination
from bm_envs.learning.imagination import (
    ReferenceTables,
    SquareErrors,
    check_task,
    observation,
    on_ground,
    optional_cost,
    tracking_loss,
)
from bm_envs.learning.kinematics import WorldKinematics
from bm_envs.learning.world_model import State, WorldModel
from bm_envs.motion.clip import save_npz
from bm_envs.motion.library import load_motions
from bm_envs.policy import load_policy
from bm_envs.robots import g1
from bm_envs.tasks.track import rewards
from bm_envs.tasks.track.config import RewardConfig, TrackConfig


def test_imagined_observations_are_the_environments():
    env, obs, action = after_random_steps("walk", 5)
    state = State.of(*map(torch.from_numpy, full_state(env.simulator)))
    model = WorldModel((8,), env.task.config.decimation)
    reference = ReferenceTables(env.task.clips, torch.device("cpu"))
    rows = torch.from_numpy(env.task.frame)  # of the only clip
    last = torch.full_like(rows, env.task.clips[0].num_frames - 1)
    actual = observation(
        env.task.config.observations, state, model.local(state), reference.at(rows + 1, last),
        torch.from_numpy(action), torch.from_numpy(env.task.default_joint_pos),
    )  # fmt: skip
    assert abs(obs[:, 131:]).max() > 0.1  # premise: robots have acted
    # float32 kinematics of another order of operations; positions of some metres.
    np.testing.assert_allclose(actual.numpy(), obs, atol=1e-5)
    env.close()


def test_frames_are_found_by_their_numbers_wherever_clips_are(tmp_path, monkeypatch):
    """Rows of clips from the cache have gaps, those of clips in memory or on a device have none."""
    memory = load_motions(["walk[1:9]", "turn_left", "walk[3:4.5]"])
    monkeypatch.setenv("BM_CACHE_DIR", f"{tmp_path / 'cache'}")
    for i, clip in enumerate(memory):
        save_npz(clip, tmp_path / f"{i}.npz")
    stored = load_motions([tmp_path / f"{i}.npz" for i in range(len(memory))])
    one, other = (ReferenceTables(clips, torch.device("cpu")) for clips in (memory, stored))
    assert all(clip.is_stored for clip in stored) and len(other.table) > len(one.table)
    frames = [clip.num_frames for clip in memory]
    start = np.repeat(np.cumsum([0, *frames[:-1]]), frames)
    numbers = torch.arange(sum(frames))
    last = torch.from_numpy(start + np.repeat(frames, frames) - 1)
    for ahead in (0, 1, 40):
        found, expected = (tables.at(numbers + ahead, last).rows for tables in (other, one))
        assert torch.equal(found, expected)
        links = (tables.links_at(numbers + ahead, last) for tables in (other, one))
        assert torch.equal(*links)
        contacts = (tables.foot_contact_at(numbers + ahead, last) for tables in (other, one))
        assert torch.equal(*contacts)
    feet = np.concatenate([clip.foot_contact for clip in memory])
    assert np.array_equal(other.foot_contact_at(numbers, last).numpy(), feet)
    assert len(ReferenceTables(stored, torch.device("meta")).table) == sum(frames)


def test_the_derivative_of_the_squares_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(14, 3, 4, 3, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(SquareErrors.apply, (error.requires_grad_(), 1.5))


def on_the_reference(motion, frames, batch):
    """States of the reference itself over some frames, flat, and what they are compared with."""
    clip = load_motions(motion)[0]
    env = TrackVectorEnv(1, clip)
    reference = ReferenceTables(env.task.clips, torch.device("cpu"))
    start = np.arange(batch) * 7
    rows = torch.from_numpy(np.concatenate([start + t for t in range(frames)]))
    env.close()
    pick = rows.numpy()
    qpos = np.concatenate(
        [clip.body_pos_w[pick, 0], clip.body_quat_w[pick, 0], clip.joint_pos[pick]], 1
    )
    qvel = np.zeros((len(pick), 35))
    last = torch.full_like(rows, clip.num_frames - 1)
    return as_state(qpos, qvel), reference.links_at(rows, last)


def test_the_tracking_loss_is_zero_on_the_reference_and_has_the_rewards_slope():
    state, ref_links = on_the_reference("walk", 4, 5)
    kinematics_of = WorldKinematics(g1.TRACKED_BODIES)

    def links(state):
        return kinematics_of(state.pelvis(), state.joint_pos)

    loss, distance = tracking_loss(links(state), ref_links, 5, RewardConfig())
    assert loss.shape == (15,)
    # float32 positions are right to 1e-6 m, velocities to 1e-6 / 0.02 s: squared below 1e-7.
    assert loss.max() < 1e-5 and distance.max() < 1e-9
    weights = dict.fromkeys(rewards.TRACKED, 0.0)
    for name, shift in (("anchor_pos", 0.03), ("body_pos", 0.0)):
        settings = RewardConfig(**{**weights, name: 1.0})
        moved = state._replace(pos=state.pos + torch.tensor([shift or 0.05, 0.0, 0.0]))
        loss, distance = tracking_loss(links(moved), ref_links, 5, settings)
        if name == "body_pos":  # is relative to the anchor
            assert loss.max() < 1e-6
            continue
        # Up to the fourth power of the error, (0.1)^4.
        expected = 1 - np.exp(-((shift / settings.anchor_pos_std) ** 2))
        np.testing.assert_allclose(loss.numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(distance.numpy(), shift**2, rtol=1e-3)


def test_turned_links_cost_what_the_task_takes_off():
    state, ref_links = on_the_reference("walk", 2, 5)
    angle = 0.05
    turn = torch.from_numpy(Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()).float()
    moved = state._replace(rot=turn @ state.rot)
    links = WorldKinematics(g1.TRACKED_BODIES)(moved.pelvis(), state.joint_pos)
    settings = RewardConfig(**{**dict.fromkeys(rewards.TRACKED, 0.0), "body_ori": 1.0})
    loss, _ = tracking_loss(links, ref_links, 5, settings)
    expected = 1 - np.exp(-((angle / settings.body_ori_std) ** 2))
    np.testing.assert_allclose(loss.numpy(), expected, atol=2e-4)  # fourth powers, as above


def test_optional_costs_are_the_tasks_terms():
    """Second differences and accelerations over H steps against the task's own functions."""
    generator = torch.Generator().manual_seed(0)
    joint_vel, actions = torch.randn(2, 5, 3, 29, generator=generator, dtype=torch.float64)
    links = torch.randn(14, 3, 4, 12, generator=generator, dtype=torch.float64)
    contact = torch.ones(12, 2, dtype=torch.bool)
    for name, first, function in (
        ("action_accel", 2, lambda h: rewards.action_accel(*actions[[h, h - 1, h - 2]].numpy())),
        ("joint_accel", 1, lambda h: rewards.joint_accel(
            joint_vel[h].numpy(), joint_vel[h - 1].numpy(), 0.02)),
    ):  # fmt: skip
        settings = RewardConfig(**{name: -0.3})
        cost = optional_cost(links, joint_vel, actions, contact, settings).view(4, 3)
        for h in range(1, 5):
            expected = 0.3 * function(h) if h >= first else np.zeros(3)
            np.testing.assert_allclose(cost[h - 1].numpy(), expected, rtol=1e-9)


def test_a_reward_that_imagination_does_not_know_is_refused(monkeypatch):
    """Every optional reward either takes something off in imagination, or is refused at start."""
    links = torch.zeros(14, 3, 4, 12)
    moving = torch.arange(5.0)[:, None, None] ** 2 * torch.ones(5, 3, 29)
    contact = torch.tensor([[True, False]] * 12)  # both soles are as high: one foot is wrong
    for name in rewards.OPTIONAL:
        task = TrackConfig().override({"rewards": {name: -0.5}})
        if name in imagination.IMAGINED:
            check_task(task)
            assert optional_cost(links, moving, moving, contact, task.rewards).sum() > 0, name
    monkeypatch.setattr(imagination, "IMAGINED", imagination.IMAGINED[1:])
    check_task(TrackConfig())
    name = rewards.OPTIONAL[0]
    task = TrackConfig().override({"rewards": {name: -0.5}})
    with pytest.raises(ConfigError, match=rf"task.rewards.{name} is -0.5, expected 0: the cost in"):
        check_task(task)


def test_feet_on_the_ground_are_those_that_press_on_it():
    """By the height of the sole in imagination, by the force under it in the engine."""
    policy = load_policy("walk")
    env = TrackVectorEnv(16, "walk", config=TrackConfig.preset("clip"), threads=1)
    obs, _ = env.reset(seed=0, options={"frame": np.arange(16) * 60})
    to_policy, to_project = policy.spec.observation_index(), policy.spec.action_index()
    reference = ReferenceTables(env.task.clips, torch.device("cpu"))
    kinematics_of = WorldKinematics(g1.TRACKED_BODIES)
    settings = RewardConfig(foot_contact=-1.0)
    still = torch.zeros(2, 16, 29)
    same, costs, terms = [], [], []
    for _ in range(50):
        obs, _, terminated, _, _ = env.step(policy(obs[:, to_policy])[:, to_project])
        assert not terminated.any()
        state = as_state(*full_state(env.simulator))
        links = kinematics_of(state.pelvis(), state.joint_pos)
        rows = torch.from_numpy(env.task.frame)
        ref_contact = reference.foot_contact_at(rows, torch.full_like(rows, 10**6))
        force = env.simulator.contact_force[:, -2:]
        same.append((on_ground(links) > 0.5).T.numpy() == ((force**2).sum(-1) > 1.0))
        costs.append(optional_cost(links, still, still, ref_contact, settings).numpy())
        terms.append(rewards.contact_mismatch(force, ref_contact.numpy(), 1.0))
    # Before a foot lands and after it has lifted it is within a centimetre for some frames.
    assert np.mean(same) > 0.9
    assert np.corrcoef(np.ravel(costs), np.ravel(terms))[0, 1] > 0.7
    env.close()
