"""Left and right: the mirror of observations against mirrored physics."""

import numpy as np
import pytest
from mirrored_rollouts import mirrored_state

from bm_envs.envs import TrackVectorEnv
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
