"""Left and right: the mirror of observations against mirrored physics, and symmetric networks."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.motion.library import load_motions
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import (
    CRITIC_TERMS,
    NO_STATE_ESTIMATION_TERMS,
    POLICY_TERMS,
    layout,
    mirror_map,
    size,
)
from bm_envs.tasks.track.config import TrackConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "algos"))
import ppo_track as ppo  # noqa: E402

from bm_envs.learning import networks  # noqa: E402


def mirrored_state(qpos, qvel):
    """The state reflected in the world's x-z plane, from how vectors and rotations reflect."""
    index, sign = g1.mirror_map()
    other_pos, other_vel = qpos.copy(), qvel.copy()
    other_pos[:, 1] *= -1
    other_pos[:, [4, 6]] *= -1  # rotations about x and z turn around
    other_pos[:, 7:] = sign * qpos[:, 7:][:, index]
    other_vel[:, 1] *= -1
    other_vel[:, [3, 5]] *= -1
    other_vel[:, 6:] = sign * qvel[:, 6:][:, index]
    return other_pos, other_vel


def test_mirrored_robot_on_the_mirrored_clip_sees_the_mirrored_observation():
    n, rng = 8, np.random.default_rng(0)
    qpos = np.concatenate([
        rng.normal(size=(n, 2)), rng.normal(0.8, 0.1, (n, 1)), rng.normal(size=(n, 4)),
        rng.uniform(*g1.JOINT_RANGE.T, (n, g1.NUM_JOINTS)),
    ], axis=1)  # fmt: skip
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qvel = rng.normal(size=(n, 6 + g1.NUM_JOINTS))
    action = rng.normal(size=(n, g1.NUM_JOINTS)).astype(np.float32)
    index, sign = g1.mirror_map()

    seen = []
    for name, state, raw in (
        ("turn_left", (qpos, qvel), action),
        ("turn_right", mirrored_state(qpos, qvel), sign * action[:, index]),
    ):
        env = TrackVectorEnv(n, load_motions((name,)), config=TrackConfig.preset("clip"))
        env.reset(seed=0, options={"frame": 60})
        env.task.simulator.reset(np.arange(n), *state)
        env.task.action[:] = raw
        seen.append(env.task.observe(slice(None), None))
    for names, ours, other in zip((POLICY_TERMS, CRITIC_TERMS), *seen, strict=True):
        index, sign = mirror_map(names)
        for term, place in layout(names).items():
            assert np.abs(ours[:, place]).max() > 0.1, f"{term} is not put to the test"
        # The robot's tables have six digits, and left and right differ in the last ones.
        np.testing.assert_allclose(sign * ours[:, index], other, atol=2e-3)


@pytest.mark.parametrize("names", [POLICY_TERMS, NO_STATE_ESTIMATION_TERMS, CRITIC_TERMS])
def test_mirror_twice_is_nothing(names):
    index, sign = mirror_map(names)
    obs = np.random.default_rng(0).normal(size=size(names))
    once = sign * obs[index]
    assert (once != obs).mean() > 0.6
    np.testing.assert_array_equal(sign * once[index], obs)


def test_symmetric_policy_acts_mirrored_on_the_mirrored_and_learns_so():
    torch.manual_seed(0)
    config = ppo.Config(hidden=(32, 16), init_std=1.0)
    q0 = g1.DEFAULT_JOINT_POS.astype(np.float32)
    actor = ppo.Actor(config, q0, g1.ACTION_SCALE.astype(np.float32))
    seen = ppo.as_mirror(mirror_map(config.task.observations))
    joints = ppo.as_mirror(g1.mirror_map())
    obs = torch.randn(64, 160)
    actor.update_normalizer(torch.randn(100, 160) + 1.0)
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
    before = actor.mean(obs).detach()
    for _ in range(20):  # pulled to targets that are not symmetric
        error = actor.mean(obs) - torch.randn(29) + actor.log_std
        optimizer.zero_grad()
        (error**2).mean().backward()
        actor.symmetrize_gradients()
        optimizer.step()
    after = actor.mean(obs).detach()
    assert (after - before).abs().mean() > 0.1
    # float32 sums of some hundred terms, and twenty steps of rounding.
    torch.testing.assert_close(
        actor.mean(networks.reflected(obs, seen)),
        networks.reflected(after, joints),
        atol=1e-4,
        rtol=1e-3,
    )
    torch.testing.assert_close(actor.log_std, actor.log_std[joints[0]], atol=1e-6, rtol=0)


def test_symmetric_critic_values_the_mirrored_alike():
    torch.manual_seed(0)
    seen = ppo.as_mirror(mirror_map(CRITIC_TERMS))
    critic = ppo.Network((286, 32, 16, 1), "elu", 1.0, (seen, ppo.UNCHANGED))
    obs = torch.randn(64, 286)
    critic.update_normalizer(obs)
    assert critic(critic.normalize(obs)).std() > 0.1
    torch.testing.assert_close(
        critic(critic.normalize(networks.reflected(obs, seen))), critic(critic.normalize(obs)),
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


def test_symmetric_networks_need_pairs_of_units():
    with pytest.raises(ConfigError, match="hidden"):
        ppo.Config(hidden=(33,))
    assert ppo.Config(hidden=(33,), symmetry=False).hidden == (33,)
