"""Policies of another robot than the G1 with 29 joints: files, refusals, who takes them."""

import dataclasses
import json

import numpy as np
import pytest

from bm_envs import evaluation
from bm_envs.backends.base import SimulatorConfig, make_simulator
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError, MotionError, PolicyError
from bm_envs.motion.library import load_motion
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import (
    MLP,
    PolicySpec,
    check_is_of_g1,
    load_policy,
    make_test_vectors,
    mlp_from_policy,
    read_policy_json,
    write_onnx,
    write_policy_json,
)
from bm_envs.policy.spec import spec_from_config
from bm_envs.robots.g1 import G1
from bm_envs.robots.g1_23 import G1_23
from bm_envs.robots.observation_terms import POLICY_TERMS
from bm_envs.tasks.track.config import TrackConfig


def network(seed=0):
    rng = np.random.default_rng(seed)
    return MLP(
        rng.normal(0, 0.3, 130), rng.uniform(0.2, 2.0, 130),
        (rng.normal(0, 0.3, (12, 130)), rng.normal(0, 0.1, (23, 12))),
        (rng.normal(0, 0.1, 12), rng.normal(0, 0.1, 23)),
        residual_offset=G1_23.default_joint_pos, residual_scale=G1_23.action_scale,
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    clip = load_motion("walk[0:1]")  # of the G1: the file gets the robot's
    spec = PolicySpec.for_g1(robot=G1_23)
    write_onnx(path, network(), spec, clip)
    write_policy_json(path.with_suffix(".json"), spec, onnx_file=path)
    return path


def test_a_file_names_its_robot_and_is_read_again(file):
    policy = load_policy(file)
    spec = policy.spec
    assert spec.robot is G1_23 and spec.to_metadata()["robot"] == "g1_23"
    assert spec == PolicySpec.for_g1(robot=G1_23, extra=spec.extra)
    assert spec.observation_size == 130 and spec.body_names == G1_23.tracked_bodies
    assert "robot" not in PolicySpec.for_g1().to_metadata()  # older than the key
    described = read_policy_json(file.with_suffix(".json"))
    assert described["robot"] == "Unitree G1, 23 actuated joints"
    assert (described["observation_size"], described["action"]["size"]) == (130, 23)
    obs = np.random.default_rng(1).normal(size=(5, 130)).astype(np.float32)
    # The same float32 products in another order.
    np.testing.assert_allclose(policy(obs), network()(obs), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(mlp_from_policy(file).weights[1], network().weights[1])


def test_the_motion_inside_is_the_robot_s(file):
    clip, expected = load_policy(file).embedded_clip(), on_robot(load_motion("walk[0:1]"), G1_23)
    assert clip.robot is G1_23
    for key in ("joint_pos", "joint_vel", "body_pos_w", "body_lin_vel_w"):
        np.testing.assert_allclose(getattr(clip, key), getattr(expected, key), rtol=0, atol=2e-6)
    assert load_policy(file).spec.extra["motion_sha256"] == expected.sha256()


def test_a_file_that_says_another_robot_than_its_joints_is_refused():
    metadata = PolicySpec.for_g1(robot=G1_23).to_metadata()
    told = "is for robot 'g1' by its metadata, but its 23 joint_names are those of 'g1_23'"
    with pytest.raises(PolicyError, match=told):
        PolicySpec.from_metadata(metadata | {"robot": "g1"})
    names = ",".join(G1_23.joint_names[:-1])
    del metadata["robot"]
    with pytest.raises(PolicyError, match="joint_names holds 22 names"):
        PolicySpec.from_metadata(metadata | {"joint_names": names})
    with pytest.raises(PolicyError, match="Unknown body 'left_wrist_yaw_link'"):
        PolicySpec.from_metadata(metadata | {"body_names": ",".join(G1.tracked_bodies)})


def test_who_has_the_g1_alone_says_so(file):
    told = "is for robot g1_23 .*, but the games have g1 alone; bm-envs sim2sim and track"
    with pytest.raises(PolicyError, match=told):
        check_is_of_g1(load_policy(file), "the games")
    check_is_of_g1(load_policy("walk"), "the games")


def test_a_trainer_does_not_begin_with_another_robots_policy(file):
    networks = pytest.importorskip("bm_envs.learning.networks")
    told = "is for robot g1_23, expected one for g1"
    with pytest.raises(ConfigError, match=told):
        networks.begin_with([], str(file), PolicySpec.for_g1())


def test_the_test_vectors_are_what_the_environment_shows(file):
    """The formulas of `make_test_vectors` in float64 against the task, in a state put there."""
    policy = load_policy(file)
    task = evaluation.protocol_task(policy, "clip")
    assert task.model.robot == "g1_23"
    env = TrackVectorEnv(1, "walk", config=task, autoreset_mode="disabled", threads=1)
    env.reset(seed=0)
    vectors = make_test_vectors(policy, policy.spec)
    assert len(vectors["joint_names"]) == 23
    for case in vectors["cases"]:
        robot, reference = case["robot"], case["reference"]
        quat = np.array(robot["root_quat_w"])
        turn = np.array(robot["root_ang_vel_w"])
        from bm_envs import rotations as rot

        spin = rot.quat_rotate_inverse(quat, turn)
        qpos = np.concatenate([robot["root_pos_w"], quat, robot["joint_pos"]])
        qvel = np.concatenate([robot["root_lin_vel_w"], spin, robot["joint_vel"]])
        env.simulator.reset(np.zeros(1, np.int64), qpos[None], qvel[None])
        state = env.task.state
        state.action[0] = robot["last_action"]
        state.shown.command[0, :23] = reference["joint_pos"]
        state.shown.command[0, 23:] = reference["joint_vel"]
        state.shown.anchor_pos[0] = reference["anchor_pos_w"]
        state.shown.anchor_axes[0] = rot.quat_to_matrix(np.array(reference["anchor_quat_w"])).T
        obs, _ = env.task.observe(slice(None), None)
        # float32 values near 1, of chains of six joints.
        np.testing.assert_allclose(obs[0], case["observation"], rtol=0, atol=5e-6)
    env.close()


def test_run_configurations_tell_the_robot():
    task = dataclasses.asdict(TrackConfig.preset("laptop").on_robot("g1_23"))
    spec = spec_from_config({"task": json.loads(json.dumps(task, default=str))})
    assert spec.robot is G1_23 and spec.observation_names == POLICY_TERMS
    np.testing.assert_allclose(spec.action_scale, 0.4 * G1_23.action_scale)
    with pytest.raises(PolicyError, match="Unknown robot 'g2'"):
        spec_from_config({"task": {"observations": list(POLICY_TERMS), "model": {"robot": "g2"}}})


def test_engines_of_the_g1_alone_refuse_before_they_are_looked_for():
    model = TrackConfig().on_robot("g1_23").model
    told = r"backend='isaaclab' has no robot g1_23 .*, expected g1; mujoco and mujoco_warp have"
    with pytest.raises(ConfigError, match=told):
        make_simulator("isaaclab", SimulatorConfig(1, model=model))


def test_tasks_change_robots_by_joint_names():
    by_name = dict(zip(G1.joint_names, range(29), strict=True))
    drive = dataclasses.replace(
        TrackConfig().actuation, stiffness=tuple(float(i) for i in by_name.values())
    )
    task = dataclasses.replace(TrackConfig(), actuation=drive).on_robot("g1_23")
    assert task.actuation.stiffness == tuple(by_name[name] for name in G1_23.joint_names)
    assert task.on_robot("g1_23") is task
    with pytest.raises(ConfigError, match="6 of 29 names are missing"):
        task.on_robot("g1")
    with pytest.raises(ConfigError, match=r"actuation\.stiffness has 29 values, expected 23"):
        dataclasses.replace(task, actuation=drive)
    with pytest.raises(ConfigError, match="robot is 'g1_23', but config is for robot 'g1'"):
        TrackVectorEnv(1, "walk", config=TrackConfig(), robot="g1_23")
    from bm_envs.tasks.track.task import TrackTask

    with pytest.raises(MotionError, match="'walk' is one of robot g1, but the task is for robot"):
        TrackTask([load_motion("walk")], TrackConfig().on_robot("g1_23"), 1)


@pytest.mark.parametrize("preset", ["laptop", "published", "v4"])
def test_compiled_code_and_numpy_are_one_task(preset, monkeypatch):
    """As for the G1: up to the rounding of float32 in values near 10, over steps of physics."""
    seen = []
    for native in (True, False):
        if not native:
            monkeypatch.setattr("bm_envs.tasks.track.kernel.library", lambda: None)
        env = TrackVectorEnv(4, ["walk", "turn_left"], preset=preset, robot="g1_23", threads=1)
        obs, info = env.reset(seed=1)
        rng, rows = np.random.default_rng(0), [obs, info["critic_obs"]]
        for _ in range(20):
            action = rng.normal(0, 0.3, (4, 23)).astype(np.float32)
            obs, reward, terminated, truncated, info = env.step(action)
            rows += [obs, reward, terminated, truncated, info["critic_obs"]]
        seen.append(rows)
        env.close()
    for one, other in zip(*seen, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
