"""The guided tasks' protocol, on robots whose motion is written down."""

import numpy as np
import pytest

from bm_envs.envs import GuidedVectorEnv
from bm_envs.learning.evaluation import evaluate_guided
from bm_envs.learning.networks import Network
from bm_envs.robots import g1
from bm_envs.tasks.guided.config import JoystickConfig


def standing(n):
    """`qpos [N, 36]`, `qvel [N, 35]` of robots at rest in the default pose."""
    qpos = np.zeros((n, 36))
    qpos[:, 2], qpos[:, 3], qpos[:, 7:] = 0.76, 1.0, g1.DEFAULT_JOINT_POS
    return qpos, np.zeros((n, 35))


def test_evaluation_of_a_robot_that_obeys_one_that_stands_and_one_that_falls():
    """Four commands of ten steps; the physics are taken out."""
    env = GuidedVectorEnv(
        3, "joystick", autoreset_mode="disabled", threads=1,
        config=JoystickConfig(segment_s=0.2, judged_s=0.1, episode_s=0.8),
    )  # fmt: skip
    task, done, yaw = env.task, 0, np.zeros(3)

    def step(action):
        nonlocal done, yaw
        done += 1
        moves = task.command() * np.array([[1.0], [0.0], [1.0]])
        yaw = yaw + 0.02 * moves[:, 2]
        qpos, qvel = standing(3)
        qpos[:, 3], qpos[:, 6] = np.cos(yaw / 2), np.sin(yaw / 2)
        qpos[2, 2] = 0.76 if done < 15 else 0.3
        qvel[:, 0], qvel[:, 1] = moves[:, 0] * np.cos(yaw), moves[:, 0] * np.sin(yaw)
        qvel[:, 5] = moves[:, 2]
        task.simulator.reset(np.arange(3), qpos, qvel)

    task.robots.step = step
    found = evaluate_guided(Network((task.observation_size, 16, 29), "elu", 0.01), env, 0)
    assert done == 40
    stands = [
        0.5 * np.exp(-((v / 0.3) ** 2)) + 0.5 * np.exp(-((w / 0.5) ** 2))
        for v, w in ((0.6, 0), (0.3, 0), (0.4, 0.5), (0.4, 0.5))
    ]
    assert found["success"] == pytest.approx(1 / 3) and found["upright"] == pytest.approx(2 / 3)
    assert found["segments"] == pytest.approx((4 + 0 + 1) / 12)
    # float32 velocities in exponents of up to four.
    assert found["task"] == pytest.approx((40 + 10 * sum(stands) + 14) / 120, rel=1e-5)
