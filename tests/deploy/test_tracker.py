"""The tracking policy as a library: `bm_envs.deploy.Tracker`."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_files import Told

from bm_envs.deploy import Command, RobotState, Tracker
from bm_envs.deploy.controller import Controller, ControllerConfig
from bm_envs.deploy.messages import Sensors
from bm_envs.deploy.reference import Motion
from bm_envs.errors import BMError, ConfigError
from bm_envs.policy import PolicySpec, load_policy
from bm_envs.robots import g1, mjcf
from bm_envs.robots.kinematics import LinkChain
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS


def a_state(rng, **changes):
    quat = rng.normal(size=4)
    low, high = g1.JOINT_RANGE.T
    values = dict(
        quat=quat / np.linalg.norm(quat), gyro=rng.normal(size=3),
        joint_pos=rng.uniform(low, high), joint_vel=rng.normal(size=29),
        base_pos=rng.normal(size=3), base_lin_vel=rng.normal(size=3),
    )  # fmt: skip
    return RobotState(**{**values, **changes})


@given(seed=st.integers(0, 2**32 - 1), link=st.sampled_from(g1.BODY_NAMES))
@settings(max_examples=60, deadline=None)
def test_a_chain_is_where_mujoco_has_the_link(seed, link):
    state = a_state(np.random.default_rng(seed))
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    data.qpos[:] = np.concatenate([state.base_pos, state.quat, state.joint_pos])
    mujoco.mj_kinematics(model, data)
    pos, matrix = LinkChain(link).pose(state.base_pos, state.quat, state.joint_pos)
    body = model.body(link).id
    # Six joints deep at most, all in float64: rounding alone.
    np.testing.assert_allclose(pos, data.xpos[body], atol=1e-12)
    np.testing.assert_allclose(matrix, data.xmat[body].reshape(3, 3), atol=1e-12)


def test_it_commands_what_the_controller_does():
    """The loop of the robot's controller, which others' test vectors hold, step by step."""
    policy = load_policy("walk")
    tracker = Tracker("walk")
    driver = Controller(policy, Motion(policy), ControllerConfig(stand_s=0.0))
    rng = np.random.default_rng(0)
    for k in range(20):
        qpos, qvel = tracker.motion.root(k)
        state = RobotState(
            quat=qpos[3:7], gyro=qvel[3:6], joint_pos=qpos[7:] + rng.normal(scale=0.01, size=29),
            joint_vel=qvel[6:], base_pos=qpos[:3] + (5.0, 1.0, 0.0), base_lin_vel=qvel[:3],
        )  # fmt: skip
        sensors = Sensors(time_s=0.02 * k, accel=np.array([0, 0, 9.81]), **vars(state))
        driver.step(sensors)
        command = tracker.act(state)
        assert isinstance(command, Command)
        np.testing.assert_array_equal(command.joint_pos, driver.wanted.joint_pos)
        np.testing.assert_array_equal(command.stiffness, driver.wanted.stiffness)
        assert tracker.frame == driver.frame == k + 1
    assert not tracker.is_done


def test_it_walks_in_mujoco_from_anywhere():
    """The loop that its docstring shows, with torques by the command's formula. No controller."""
    tracker = Tracker("walk")
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    qpos, qvel = tracker.motion.root(0)
    turn = np.array([np.cos(0.5), 0, 0, np.sin(0.5)])  # by 1 rad about the vertical
    quat, velocity = np.empty(4), np.empty(3)
    mujoco.mju_mulQuat(quat, turn, qpos[3:7])
    mujoco.mju_rotVecQuat(velocity, qvel[:3], turn)
    data.qpos[:] = np.concatenate([[3.0, -2.0, qpos[2]], quat, qpos[7:]])
    data.qvel[:] = np.concatenate([velocity, qvel[3:]])
    steps = round(0.02 / model.opt.timestep)
    lowest = np.inf
    while not tracker.is_done:
        command = tracker.act(
            RobotState(
                quat=data.qpos[3:7], gyro=data.qvel[3:6], joint_pos=data.qpos[7:],
                joint_vel=data.qvel[6:], base_pos=data.qpos[:3], base_lin_vel=data.qvel[:3],
            )
        )  # fmt: skip
        for _ in range(steps):
            off = command.joint_pos - data.qpos[7:]
            data.qfrc_applied[6:] = np.clip(
                command.stiffness * off - command.damping * data.qvel[6:],
                -g1.EFFORT_LIMIT, g1.EFFORT_LIMIT,
            )  # fmt: skip
            mujoco.mj_step(model, data)
        lowest = min(lowest, float(data.qpos[2]))
    assert lowest > 0.6  # it never fell
    # It goes the clip's way in the robot's direction; a wrong heading is metres off.
    end = tracker.alignment.matrix @ tracker.motion.root(tracker.motion.frames - 1)[0][:3]
    assert np.linalg.norm((end + tracker.alignment.offset - data.qpos[:3])[:2]) < 1.0


def test_it_needs_a_place_only_where_the_policy_does():
    rng = np.random.default_rng(1)
    state = a_state(rng)
    without = RobotState(**{**vars(state), "base_pos": None, "base_lin_vel": None})
    with pytest.raises(ConfigError, match="no base_pos.*motion_anchor_pos_b and base_lin_vel"):
        Tracker("walk").act(without)
    blind = Told(PolicySpec.for_g1(NO_STATE_ESTIMATION_TERMS))
    for seen in (state, without):
        Tracker(blind, "stand").act(seen)
    with_place, without_place = blind.shown
    assert with_place.shape == (154,)
    np.testing.assert_array_equal(with_place, without_place)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"joint_pos": np.zeros(23)}, r"joint_pos has shape \(23,\), expected \(29,\)"),
        ({"quat": np.full(4, np.nan)}, "quat is not finite"),
        ({"gyro": None}, r"gyro has shape None, expected \(3,\)"),
    ],
)
def test_a_bad_state_is_refused(changes, told):
    tracker = Tracker("walk")
    with pytest.raises(ConfigError, match=told):
        tracker.act(a_state(np.random.default_rng(2), **changes))
    assert tracker.frame == 0


@pytest.mark.parametrize("arguments", [("wlak",), ("walk", "wlak"), ("guided_body_pos",)])
def test_what_is_no_tracker_or_no_motion_is_refused(arguments):
    with pytest.raises(BMError):
        Tracker(*arguments)


def test_a_reset_begins_again_where_the_robot_is():
    tracker = Tracker("walk")
    rng = np.random.default_rng(3)
    first = a_state(rng)
    command = tracker.act(first)
    tracker.act(a_state(rng))
    tracker.reset()
    moved = RobotState(**{**vars(first), "base_pos": first.base_pos + (7.0, -3.0, 0.0)})
    again = tracker.act(moved)
    # The observation's place is a difference of places 7 m off, in float64, then float32.
    np.testing.assert_allclose(again.joint_pos, command.joint_pos, atol=1e-5)


def test_importing_it_loads_neither_torch_nor_mujoco():
    code = (
        "import sys; from bm_envs.deploy import Tracker; Tracker('walk'); "
        "print([m for m in ('torch', 'mujoco') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
