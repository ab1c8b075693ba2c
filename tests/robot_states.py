"""States of robots for tests of what predicts them: drawn at random, or after some random steps."""

import dataclasses

import numpy as np
import torch

from bm_envs.envs import TrackVectorEnv
from bm_envs.learning.world_model import State
from bm_envs.robots import g1
from bm_envs.tasks.track.config import TrackConfig


def some_states(count, seed=0):
    """Random states as `qpos` and `qvel`, float64."""
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(count, 4))
    low, high = g1.JOINT_RANGE.T
    qpos = np.concatenate([
        rng.normal(size=(count, 3)), quat / np.linalg.norm(quat, axis=1, keepdims=True),
        rng.uniform(low, high, (count, 29)),
    ], 1)  # fmt: skip
    return qpos, rng.normal(size=(count, 35)) * 2


def as_state(qpos, qvel):
    return State.of(torch.from_numpy(qpos).float(), torch.from_numpy(qvel).float())


def after_random_steps(motion, steps, *, num_envs=8, seed=0, scale=0.3, **changes):
    """A vector environment without noise after some random steps around the reference's pose."""
    config = dataclasses.replace(
        TrackConfig(), noise=False, pushes=False, failure="none", episode_s=None, **changes
    )
    env = TrackVectorEnv(num_envs, motion, config=config, threads=1)
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    action = np.zeros((num_envs, 29), np.float32)
    for _ in range(steps):
        action = env.task.reference_action() + scale * rng.normal(size=(num_envs, 29))
        action = action.astype(np.float32)
        obs = env.step(action)[0]
    return env, obs, action
