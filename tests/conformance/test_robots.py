"""Every robot of the registry on every backend: as its table and a plain loop say, or refused."""

import gymnasium
import mujoco
import numpy as np
import pytest

import bm_envs  # noqa: F401 (registers the environments)
from bm_envs.backends.base import OF_ANY_ROBOT, SimulatorConfig
from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import ConfigError
from bm_envs.robots import mjcf
from bm_envs.robots.g1 import G1
from bm_envs.robots.kinematics import link_poses
from bm_envs.robots.registry import ROBOTS

OTHERS = [robot for robot in ROBOTS.values() if robot is not G1]
pytestmark = pytest.mark.parametrize("robot", OTHERS, ids=lambda robot: robot.name)


@pytest.fixture
def config(robot, backend):
    """Of two robots; a backend that has the G1 alone must have said so."""
    config = SimulatorConfig(2, model=mjcf.ModelConfig(robot=robot.name), threads=1)
    if backend not in OF_ANY_ROBOT:
        told = f"backend='{backend}' has no robot {robot.name} .*, expected g1; mujoco and"
        with pytest.raises(ConfigError, match=told):
            make_host_simulator(backend, config)
        pytest.skip("refused in a sentence, as it should be")
    return config


def states(robot, seed=0):
    """Standing, and upright in the air with joints anywhere near the default pose."""
    rng = np.random.default_rng(seed)
    pose = robot.poses[robot.default_pose]
    qpos = np.tile([0, 0, pose.root_height, 1, 0, 0, 0, *robot.default_joint_pos], (2, 1))
    qpos[1, 2] = 2.0
    qpos[1, 7:] += rng.uniform(-0.2, 0.2, robot.num_joints)
    return qpos, np.zeros((2, 6 + robot.num_joints))


def test_links_are_where_the_table_puts_them(robot, backend, config, bounds):
    simulator = make_host_simulator(backend, config)
    qpos, qvel = states(robot)
    simulator.reset(np.arange(2), qpos, qvel)
    links = link_poses(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], robot)
    tracked = [robot.body_names.index(name) for name in robot.tracked_bodies]
    np.testing.assert_allclose(simulator.body_pos, links.pos[:, tracked], atol=bounds.place, rtol=0)
    assert simulator.joint_pos.shape == (2, robot.num_joints)
    assert simulator.contact_bodies == (*robot.contact_bodies, *robot.foot_bodies)
    held = simulator.read_model()
    np.testing.assert_allclose(held["body_mass"][0], [b.mass for b in robot.bodies], rtol=1e-6)
    for name in ("stiffness", "damping", "effort_limit", "armature"):
        np.testing.assert_allclose(held[name][0], getattr(robot, name), rtol=1e-6)
    simulator.close()


def test_it_moves_as_in_a_plain_loop(robot, backend, config, bounds):
    """0.2 s of standing, and of falling with drives that hold."""
    simulator = make_host_simulator(backend, config)
    qpos, qvel = states(robot)
    target = qpos[:, 7:].copy()
    target[1] += 0.1
    simulator.reset(np.arange(2), qpos, qvel)
    for _ in range(10):
        simulator.step(target)
    model = mjcf.compile_model(config.model)
    for i in range(2):
        data = mujoco.MjData(model)
        data.qpos[:], data.ctrl[:] = qpos[i], target[i]
        for _ in range(40):
            mujoco.mj_step(model, data)
        atol = bounds.rollout
        np.testing.assert_allclose(simulator.joint_pos[i], data.qpos[7:], rtol=0, atol=atol)
        np.testing.assert_allclose(simulator.root_pos[i], data.qpos[:3], rtol=0, atol=atol)
    # Its weight is on its feet, within what a robot that has just been put there sways.
    weight = 9.81 * sum(body.mass for body in robot.bodies)
    carried = np.abs(simulator.contact_force[0, -2:, 2]).sum()
    assert carried == pytest.approx(weight, rel=0.5)
    simulator.close()


def test_its_environment_has_its_size(robot, backend, config):
    env = gymnasium.make_vec(robot.env_id, num_envs=2, motion="walk", backend=backend, threads=1)
    size = 5 * robot.num_joints + 15
    obs, info = env.reset(seed=0)
    assert obs.shape == (2, size) and info["critic_obs"].shape == (2, size + 126)
    for _ in range(5):
        obs, reward, *_ = env.step(np.zeros((2, robot.num_joints), np.float32))
    assert np.isfinite(obs).all() and np.isfinite(reward).all()
    with pytest.raises(ConfigError, match=rf"expected \(2, {robot.num_joints}\)"):
        env.step(np.zeros((2, robot.num_joints + 1), np.float32))
    env.close()
