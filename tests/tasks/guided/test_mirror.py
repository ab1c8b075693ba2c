"""The mirror of the guided tasks' observations, against mirrored robots in mirrored worlds."""

import numpy as np
import pytest
from mirrored_rollouts import mirrored_state
from scipy.spatial.transform import Rotation

from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import ObsTerm
from bm_envs.tasks.guided.observations import TERMS, layout, mirror_map

TASKS = [name for name in TERMS if name != "composition"]  # whose terms the others have


def test_a_term_without_a_mirror_is_named(monkeypatch):
    term = ObsTerm("ball_pos", 2, "now", "m", "a ball")
    monkeypatch.setitem(TERMS, "football", (*TERMS["joystick"], term))
    with pytest.raises(ConfigError, match="The observation term 'ball_pos' has no mirror: enter"):
        mirror_map("football")


@pytest.mark.parametrize("name", TERMS)
def test_mirror_twice_is_nothing(name):
    index, sign = mirror_map(name)
    obs = np.random.default_rng(0).normal(size=len(index))
    once = sign * obs[index]
    assert (once != obs).mean() > 0.6
    np.testing.assert_array_equal(sign * once[index], obs)


@pytest.mark.parametrize("name", TASKS)
def test_mirrored_robot_in_the_mirrored_world_sees_the_mirrored_observation(name):
    n, rng = 6, np.random.default_rng(0)
    states = []
    for _ in range(4):
        euler = np.stack([rng.uniform(-3, 3, n), *rng.uniform(-0.6, 0.6, (2, n))], 1)
        quat = Rotation.from_euler("ZYX", euler).as_quat()[:, [3, 0, 1, 2]]
        place = np.stack([*rng.normal(size=(2, n)), rng.uniform(0.7, 0.9, n)], 1)
        joints = rng.uniform(*g1.JOINT_RANGE.T, (n, 29))
        states.append((np.concatenate([place, quat, joints], 1), rng.normal(size=(n, 35))))
    action = rng.normal(size=(n, 29)).astype(np.float32)
    index, sign = g1.mirror_map()
    command = rng.uniform(-1, 1, (n, 3))
    goal, posts = rng.uniform(2, 4, (n, 2)), rng.uniform(-3, 3, (n, 5, 3))
    posts[..., 2] = 0.2
    waypoints = rng.uniform(-3, 3, (n, 18, 3))

    seen = []
    for side in (1, -1):
        env = GuidedVectorEnv(n, name, autoreset_mode="disabled", threads=1)
        played = iter([state if side == 1 else mirrored_state(*state) for state in states])
        qpos, qvel = next(played)
        options = {"qpos": qpos, "qvel": qvel}
        if "goal" in env.task.options:
            options["goal"] = goal * [1, side]
        if "obstacles" in env.task.options:
            options["obstacles"] = posts * [1, side, 1]
        env.reset(seed=0, options=options)
        if hasattr(env.task, "commands"):
            env.task.commands[:] = (command * [1, side, side])[:, None]
        if hasattr(env.task, "waypoints"):
            env.task.waypoints[:] = waypoints * [1, side, side]

        def step(raw, env=env, played=played):
            env.task.robots.action[:] = raw
            env.task.simulator.reset(np.arange(n), *next(played))

        env.task.robots.step = step
        for _ in range(3):
            obs = env.step(action if side == 1 else sign * action[:, index])[0]
        seen.append(obs)
    index, sign = mirror_map(name)
    for term, place in layout(TERMS[name]).items():
        assert np.abs(seen[0][:, place]).max() > 0.1, f"{term} is not put to the test"
    # float32 of numbers of up to five, through a dozen operations.
    np.testing.assert_allclose(sign * seen[0][:, index], seen[1], atol=1e-5)
