"""The control loop of robots: observations, phases, safety, the estimate and the stand-in robot."""

import dataclasses
import os
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_files import Told, isaac_spec, make_clip, make_mlp

from bm_envs import rotations as rot
from bm_envs.deploy.controller import (
    STANDBY_DAMPING,
    STANDBY_STIFFNESS,
    Controller,
    ControllerConfig,
)
from bm_envs.deploy.estimator import IMU_POS, BaseEstimator
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.robot import NOISE, SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.motion.library import load_motion
from bm_envs.policy import (
    PolicySpec,
    load_policy,
    make_test_vectors,
    shipped_test_vectors,
    write_onnx,
)
from bm_envs.robots import g1, mjcf

ORACLES = Path(os.environ.get("BM_DATA_DIR", "/nonexistent")) / "oracle_policies"
Z = np.array([0.0, 0.0, 1.0])
ANY = 1e6  # noise of a robot whose made up readings need not follow from each other


def reading(time_s=0.0, **changes):
    """A robot that stands still in its default pose, by default."""
    values = dict(
        quat=np.array([1.0, 0, 0, 0]), gyro=np.zeros(3), accel=9.81 * Z,
        joint_pos=np.array(g1.DEFAULT_JOINT_POS), joint_vel=np.zeros(29),
        base_pos=np.array([0, 0, 0.76]), base_lin_vel=np.zeros(3),
    )  # fmt: skip
    return Sensors(time_s=time_s, **{**values, **changes})


def controller(policy=None, motion="stand", noise=0.0, **changes):
    policy = policy or Told()
    settings = {"stand_s": 0.0, "end_s": 0.0, "at_end": "stand", **changes}
    return Controller(policy, Motion(policy, motion), ControllerConfig(**settings), noise=noise)


# --- what the policy is shown, and what motors get ------------------------------------------------


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A policy in Isaac Lab's joint order, and its test vectors."""
    path = tmp_path_factory.mktemp("foreign") / "isaac.onnx"
    spec = isaac_spec()
    write_onnx(path, make_mlp(), spec, make_clip())
    policy = load_policy(path)
    return policy, make_test_vectors(policy, spec)


@pytest.mark.parametrize(
    "name", ["walk", pytest.param("lafan1_walk3", marks=pytest.mark.clone), "isaac"]
)
def test_observation_and_target_are_those_of_the_test_vectors(name, foreign, request):
    """`make_test_vectors` computes them from the formulas, with the tables' own kinematics."""
    if name == "isaac":
        policy, vectors = foreign
    else:
        policy = load_policy(name)
        vectors = shipped_test_vectors(name)
    spec = policy.spec
    by_name = {joint: i for i, joint in enumerate(vectors["joint_names"])}
    to_robot = [by_name[joint] for joint in g1.JOINT_NAMES]
    assert vectors["cases"]
    for case in vectors["cases"]:
        robot, reference = case["robot"], {k: np.array(v) for k, v in case["reference"].items()}
        quat = np.array(robot["root_quat_w"])
        inward = rot.quat_to_matrix(quat).T
        sensors = reading(
            quat=quat, gyro=inward @ robot["root_ang_vel_w"],
            joint_pos=np.array(robot["joint_pos"])[to_robot],
            joint_vel=np.array(robot["joint_vel"])[to_robot],
            base_pos=np.array(robot["root_pos_w"]),
            base_lin_vel=np.array(robot["root_lin_vel_w"]),
        )  # fmt: skip
        told = Told(spec, 0.0)
        told.action = np.array(robot["last_action"], np.float32)
        driver = controller(told, "walk")

        class Frame(Motion):
            """The reference of this case, whatever the frame."""

            def __init__(self, inner):
                self.__dict__.update(inner.__dict__)

            def joints(self, frame, ref=reference):
                return ref["joint_pos"], ref["joint_vel"]

            def anchor(self, frame, ref=reference):
                return ref["anchor_pos_w"], rot.quat_to_matrix(ref["anchor_quat_w"])

        driver.step(sensors)  # gives it its last action
        driver.tracker.motion = Frame(driver.motion)
        driver.tracker.alignment = type(driver.alignment)()
        # float32 of values up to some 4: half a unit in the last place is 2.4e-7.
        np.testing.assert_allclose(
            driver.tracker.observe(sensors, 0), case["observation"], atol=1e-6, rtol=1e-6
        )
        told.action = np.array(case["action"], np.float32)
        command = driver.step(dataclasses.replace(sensors, time_s=0.02))
        target = np.array(case["joint_target"])[to_robot]
        np.testing.assert_allclose(driver.wanted.joint_pos, target, atol=1e-6)
        table = dict(zip(spec.joint_names, spec.joint_stiffness, strict=True))
        assert command.stiffness.tolist() == [table[joint] for joint in g1.JOINT_NAMES]
        table = dict(zip(spec.joint_names, spec.joint_damping, strict=True))
        assert command.damping.tolist() == [table[joint] for joint in g1.JOINT_NAMES]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.floats(-3.1, 3.1), st.floats(-50, 50), st.floats(-50, 50))
def test_where_the_robot_stands_and_looks_is_all_one(yaw, x, y):
    """The motion is laid to the robot's feet: its place and heading change no observation."""
    driver, moved = controller(motion="walk"), controller(motion="walk")
    qpos, qvel = driver.motion.root(300)
    turn = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
    first = dict(
        quat=qpos[3:7], gyro=qvel[3:6], joint_pos=qpos[7:], joint_vel=qvel[6:],
        base_pos=qpos[:3], base_lin_vel=qvel[:3],
    )  # fmt: skip
    second = first | dict(
        quat=rot.quat_mul(turn, qpos[3:7]),
        base_pos=rot.quat_rotate(turn, qpos[:3]) + (x, y, 0),
        base_lin_vel=rot.quat_rotate(turn, qvel[:3]),
    )
    driver.step(reading(**first))
    moved.step(reading(**second))
    # float32 of places 50 m away would be off by 4e-6; all is float64 before it is rounded.
    np.testing.assert_allclose(moved.tracker.policy.shown, driver.tracker.policy.shown, atol=1e-6)


def test_a_robot_on_its_reference_is_shown_no_error():
    driver = controller(motion="walk", lead=0)
    qpos, qvel = driver.motion.root(0)
    driver.step(reading(
        quat=qpos[3:7], gyro=qvel[3:6], joint_pos=qpos[7:], joint_vel=qvel[6:],
        base_pos=qpos[:3] + (3, -2, 0), base_lin_vel=qvel[:3],
    ))  # fmt: skip
    where = driver.tracker.policy.spec.observation_slices()
    (obs,) = driver.tracker.policy.shown
    # The clip's link poses are float32.
    np.testing.assert_allclose(obs[where["motion_anchor_pos_b"]], 0, atol=2e-6)
    np.testing.assert_allclose(obs[where["motion_anchor_ori_b"]], [1, 0, 0, 1, 0, 0], atol=2e-6)


@pytest.mark.skipif(not ORACLES.is_dir(), reason="BM_DATA_DIR with oracle_policies/ is not set")
def test_a_foreign_policy_sees_what_it_saw_elsewhere():
    """Every observation and action of a rollout that was recorded by other hands."""
    policy = load_policy(ORACLES / "jump_wose" / "Jump_wose.onnx")
    rollout = np.load(ORACLES / "jump_wose" / "rollout.npz")
    driver = Controller(policy, Motion(policy), ControllerConfig(stand_s=0.0, lead=0))
    for k, (qpos, qvel) in enumerate(zip(rollout["qpos"], rollout["qvel"], strict=True)):
        if k == len(rollout["obs"]) - 1:
            break
        # The rollout has no alignment, and the first frame's is none: it began on its reference.
        sensors = reading(
            0.02 * k, quat=qpos[3:7], gyro=qvel[3:6], joint_pos=qpos[7:], joint_vel=qvel[6:],
            base_pos=qpos[:3], base_lin_vel=qvel[:3],
        )  # fmt: skip
        obs = driver.tracker.observe(sensors, k) if k else None
        command = driver.step(sensors)
        if obs is not None:
            np.testing.assert_allclose(obs[:58], rollout["obs"][k][:58], atol=1e-6)
            # The recorder's torso was 5 ms old (`test_oracle_policies.py`): 4 rad/s and less.
            np.testing.assert_allclose(obs[58:64], rollout["obs"][k][58:64], atol=0.02)
            np.testing.assert_allclose(obs[64:125], rollout["obs"][k][64:125], atol=1e-6)
            # The last action is the network's answer to the torso of now, not to that of then.
            np.testing.assert_allclose(obs[125:], rollout["obs"][k][125:], atol=0.2)
        assert np.isfinite(command.joint_pos).all()
    assert driver.phase == "run" and driver.frame == len(rollout["obs"]) - 1


# --- phases ---------------------------------------------------------------------------------------


def phases(driver, seconds, robot=lambda command: {}):
    """`(time, phase, command)` of each reading; the robot is where `robot(command)` says."""
    found, command = [], None
    for tick in range(round(seconds / SENSOR_DT)):
        state = robot(command) if command is not None else {}
        command = driver.step(reading(tick * SENSOR_DT, **state))
        found.append((tick * SENSOR_DT, driver.phase, command))
    return found


def test_it_stands_up_runs_and_returns():
    driver = controller(stand_s=1.0, end_s=0.5, motion="stand[0:1]", noise=ANY)
    start = g1.DEFAULT_JOINT_POS + 0.3
    found = phases(driver, 3.0, lambda command: {"joint_pos": command.joint_pos.copy()})
    assert found[0][1] == "stand"
    driver = controller(stand_s=1.0, end_s=0.5, motion="stand[0:1]", noise=ANY)
    found = phases(
        driver, 3.0,
        lambda command: {"joint_pos": start if driver.phase == "stand" else g1.DEFAULT_JOINT_POS},
    )  # fmt: skip
    spans = {phase: [t for t, p, _ in found if p == phase] for phase in ("stand", "run", "end")}
    # A clip of 51 frames is 50 control steps.
    assert [len(spans[name]) for name in ("stand", "run", "end")] == [500, 500, 250]
    assert found[-1][1] == "done" and driver.frame == 50 and len(driver.tracker.policy.shown) == 50
    standing = [command for _, phase, command in found if phase == "stand"]
    assert all((c.stiffness == STANDBY_STIFFNESS).all() for c in standing)
    targets = np.array([command.joint_pos for command in standing])
    # From where the robot was at first (the default pose, here) it never leaves the line to it.
    assert np.abs(np.diff(targets, axis=0)).max() < 0.01
    np.testing.assert_allclose(targets[-1], g1.DEFAULT_JOINT_POS)
    end = [command for _, phase, command in found if phase == "end"]
    assert all((c.damping == STANDBY_DAMPING).all() for c in end)


def test_standing_up_begins_where_the_robot_is_and_ends_in_the_default_pose():
    driver = controller(stand_s=3.0)
    start = g1.DEFAULT_JOINT_POS + np.linspace(-0.3, 0.1, 29)
    targets = []
    for tick in range(1499):
        targets.append(driver.step(reading(tick * SENSOR_DT, joint_pos=start)).joint_pos)
    assert driver.phase == "stand"
    np.testing.assert_allclose(targets[0], start, atol=1e-12)
    np.testing.assert_allclose(targets[1001:], np.tile(g1.DEFAULT_JOINT_POS, (498, 1)))
    # A smooth step over 2 s is fastest in its middle, 1.5 times the mean speed.
    speed = np.abs(np.diff(targets, axis=0)).max() / SENSOR_DT
    assert speed == pytest.approx(1.5 * 0.3 / 2.0, rel=1e-3)


def test_the_return_begins_with_the_policys_torque_and_keeps_its_speed():
    driver = controller(motion="stand[0:1]", end_s=3.0, noise=ANY)
    driver.tracker.policy.action = np.linspace(-1, 2, 29).astype(np.float32)
    there = g1.DEFAULT_JOINT_POS + np.linspace(-0.2, 0.1, 29)
    there[18] += 1.2  # an elbow far away
    moving = np.linspace(-1, 1, 29)
    found = phases(driver, 3.5, lambda command: {"joint_pos": there, "joint_vel": moving})
    first = next(i for i, (_, phase, _) in enumerate(found) if phase == "end")

    def torque(command):
        return command.stiffness * (command.joint_pos - there) - command.damping * moving

    np.testing.assert_allclose(torque(found[first][2]), torque(found[first - 1][2]), atol=1e-9)
    targets = np.array([command.joint_pos for _, phase, command in found if phase == "end"])
    speed = np.abs(np.diff(targets, axis=0)).max(axis=0) / SENSOR_DT
    # 3 rad/s where a third of a second would be too short a time, and never more.
    assert speed.max() == pytest.approx(3.0, rel=1e-3) and (speed < 2.0).any()
    np.testing.assert_allclose(targets[-1], g1.DEFAULT_JOINT_POS)


def test_holding_the_end_shows_the_last_pose_at_rest():
    driver = controller(motion="walk[4:5]", at_end="hold", end_s=1.0, noise=ANY)
    qpos, _ = driver.motion.root(0)
    still = {"joint_pos": qpos[7:], "quat": qpos[3:7], "base_pos": qpos[:3]}
    found = phases(driver, 2.1, lambda command: still)
    assert found[-1][1] == "done"
    shown = np.array(driver.tracker.policy.shown)
    assert len(shown) == 100
    clip = load_motion("walk[4:5]")
    assert np.abs(clip.joint_vel[-1]).max() > 0.1, "premise: it ends in motion"
    np.testing.assert_allclose(shown[51:, :29], np.tile(clip.joint_pos[-1], (49, 1)), atol=1e-6)
    assert not shown[51:, 29:58].any() and shown[48, 29:58].any()


def test_lost_time_is_counted_and_not_made_up_for():
    driver = controller(motion="stand[0:5]")
    for tick in range(20):
        driver.step(reading(tick * 0.02))
    assert (driver.frame, driver.late) == (20, 0)
    driver.step(reading(20 * 0.02 + 0.5))
    driver.step(reading(20 * 0.02 + 0.502))
    assert (driver.frame, driver.late) == (21, 1)


# --- safety ---------------------------------------------------------------------------------------


def tilted(degrees):
    angle = np.radians(degrees)
    return {"quat": rot.quat_from_euler(*np.array([angle, 0.0, 0.0]))}


DANGERS = {
    "tilt": (tilted(70), "tilted by 70 degrees, at most 60 are allowed"),
    "limit": (
        {"joint_pos": np.where(np.arange(29) == 3, 3.1, g1.DEFAULT_JOINT_POS)},
        "left_knee_joint is at 3.10 rad, 0.22 rad beyond its range",
    ),
    "nan": ({"gyro": np.array([0, np.nan, 0])}, "a reading of the sensors is not a finite number"),
    "infinite": (
        {"joint_vel": np.full(29, np.inf)},
        "a reading of the sensors is not a finite number",
    ),
    "button": ({"stop": True}, "the stop button was pressed"),
}  # fmt: skip


@pytest.mark.parametrize("stand_s", [0.0, 5.0])
@pytest.mark.parametrize("name", DANGERS)
def test_danger_damps_the_motors_for_good(name, stand_s):
    bad, reason = DANGERS[name]
    driver = controller(stand_s=stand_s, motion="stand[0:5]")
    fine = driver.step(reading(0.0))
    assert fine.stiffness.any() and driver.phase == ("stand" if stand_s else "run")
    for tick in range(1, 200):  # a moment of it is enough
        command = driver.step(reading(0.002 * tick, **(bad if tick == 1 else {})))
        assert not command.stiffness.any() and not command.torque.any()
        assert (command.damping == STANDBY_DAMPING).all()
    assert (driver.phase, driver.reason) == ("damping", reason)
    assert driver.frame == (0 if stand_s else 1), "the policy is not asked any more"


def test_what_is_not_dangerous_goes_on():
    for state in (
        tilted(55),
        {"joint_pos": np.where(np.arange(29) == 3, g1.JOINT_RANGE[3, 1] + 0.14, 0.0)},
    ):
        driver = controller(motion="stand[0:5]")
        driver.step(reading(0.0, **state))
        assert driver.phase == "run"


def test_tilt_counts_from_the_reference_not_from_upright():
    """A motion that leans may lean, and one that does may not stand upright."""
    driver = controller(motion="stand[0:5]", max_tilt_deg=30.0)
    lean = rot.quat_from_euler(*np.array([0.0, 0.9, 0.0]))
    tables = dict(driver.motion._tables)
    tables["body_quat_w"] = rot.quat_mul(lean, tables["body_quat_w"].astype(float))
    driver.motion._tables = tables
    driver.step(reading(quat=lean))
    assert driver.phase == "run"
    driver.step(reading(0.02, quat=np.array([1.0, 0, 0, 0])))
    assert re.fullmatch(r"tilted by 5[12] degrees, at most 30 are allowed", driver.reason)


def test_an_action_that_is_no_number_damps_the_motors():
    driver = controller(motion="stand[0:5]")
    driver.tracker.policy.action = np.full(29, np.nan, np.float32)
    command = driver.step(reading())
    assert driver.reason == "the policy's action is not finite" and not command.stiffness.any()


def test_an_estimate_that_is_no_number_damps_the_motors():
    """No reading shows it: the estimator makes it of them."""
    driver = controller(motion="stand[0:5]", state="estimated")
    driver.step(reading())
    driver._estimator.pos = np.full(3, np.nan)
    driver._estimator.update = lambda *readings: None
    command = driver.step(reading(0.02))
    assert driver.phase == "damping" and not command.stiffness.any()
    assert driver.reason == "the state's base_pos is not finite, expected numbers."


# --- motions and settings -------------------------------------------------------------------------


def test_the_motion_is_the_policys_own_the_named_or_the_asked_for():
    walk = load_policy("walk")
    assert (Motion(walk).name, Motion(walk).frames) == ("walk", 1226)
    assert Motion(walk, "stand[0:1]").frames == 51
    clip = load_motion("walk")
    # The graph holds float32 of what the clip is.
    np.testing.assert_allclose(Motion(walk).root(700)[0][7:], clip.joint_pos[700], atol=1e-6)
    with pytest.raises(
        PolicyError, match="builtin.onnx: holds no motion and names 8; name one with --motion"
    ):
        Motion(load_policy("builtin"))
    changed = Told(dataclasses.replace(
        PolicySpec.for_g1(), extra={"motion_name": "walk", "motion_sha256": "0" * 64}
    ))  # fmt: skip
    with pytest.raises(PolicyError, match="was made for another version of motion 'walk'; give"):
        Motion(changed)
    assert Motion(changed, "walk").frames == 1226


@pytest.mark.parametrize(
    ("make", "values", "sentence"),
    [
        (ControllerConfig, {"state": "wrong"}, "state is 'wrong', expected 'true' or 'estimated'."),
        (ControllerConfig, {"at_end": "lie"}, "at_end is 'lie', expected 'balance', 'stand' or 'h"),
        (ControllerConfig, {"blend_s": -1.0}, "blend_s is -1.0, expected 0 to 10 s."),
        (ControllerConfig, {"stand_s": -1.0}, "stand_s is -1.0, expected 0 to 60 s."),
        (ControllerConfig, {"end_s": float("nan")}, "end_s is nan, expected 0 to 3600 s."),
        (ControllerConfig, {"lead": 2}, "lead is 2, expected 0 or 1."),
        (ControllerConfig, {"max_tilt_deg": 0.0}, "max_tilt_deg is 0.0, expected more than 0, up"),
        (ControllerConfig, {"joint_margin": -0.1}, "joint_margin is -0.1, expected 0 to 10 rad."),
        (RobotConfig, {"physics_hz": 200}, "physics_hz is 200, expected 500, 1000 or 2000."),
        (RobotConfig, {"feet": "wheels"}, "feet is 'wheels', expected 'spheres' or 'capsules'."),
        (RobotConfig, {"contact_s": 0.001}, "two physics steps at least (0.002 s at 1000 Hz)."),
        (RobotConfig, {"friction": 0.0}, "friction is 0.0, expected more than 0, up to 10."),
        (RobotConfig, {"effort_scale": float("nan")}, "effort_scale is nan, expected more than 0"),
        (RobotConfig, {"command_ms": -1.0}, "command_ms is -1.0, expected 0 to 500 ms."),
        (RobotConfig, {"sensor_ms": 1e4}, "sensor_ms is 10000.0, expected 0 to 500 ms."),
        (RobotConfig, {"noise": -1.0}, "noise is -1.0, expected 0 to 100."),
    ],
)  # fmt: skip
def test_bad_settings_are_one_sentence(make, values, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        make(**values)


def test_a_robot_that_tells_no_position_needs_an_estimate():
    with pytest.raises(ConfigError, match="this robot tells no position; estimate it"):
        controller().step(reading(base_pos=None))


# --- the estimate ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return mjcf.compile_model()


def test_standing_still_is_at_rest_at_the_height_of_the_legs(model):
    data = mujoco.MjData(model)
    data.qpos[:3], data.qpos[7:] = 0.0, g1.DEFAULT_JOINT_POS
    mujoco.mj_kinematics(model, data)
    sole = g1.SOLE_HEIGHT + min(data.body(name).xpos[2] for name in g1.FOOT_BODIES)
    estimator = BaseEstimator(model)
    for _ in range(1000):
        still = reading()
        estimator.update(
            still.quat, still.gyro, still.accel, still.joint_pos, still.joint_vel, 0.002
        )  # fmt: skip
    np.testing.assert_allclose(estimator.lin_vel, 0, atol=1e-9)
    # The knees are bent by angles that leave the sole level to 0.006 rad: a millimetre at its ends.
    np.testing.assert_allclose(estimator.pos, [0, 0, -sole], atol=2e-3)


def test_in_free_fall_legs_are_not_believed(model):
    """Whatever the legs do then, the speed is that of a falling stone."""
    estimator = BaseEstimator(model)
    estimator.update(*upright(), np.zeros(29), 0.0)
    began = estimator.lin_vel.copy()
    rng = np.random.default_rng(0)
    for _ in range(200):
        estimator.update(*upright(accel=np.zeros(3)), rng.normal(0, 3, 29), 0.002)
    np.testing.assert_allclose(estimator.lin_vel - began, [0, 0, -9.81 * 0.4], atol=1e-9)


def upright(accel=9.81 * Z):
    return np.array([1.0, 0, 0, 0]), np.zeros(3), accel, np.array(g1.DEFAULT_JOINT_POS)


def test_the_estimate_follows_a_walk(model):
    """The built-in walk, whose feet do not slide: its root is the truth, no physics in between."""
    clip = load_motion("walk[4:9]")
    root_quat, root_vel = clip.body_quat_w[:, 0].astype(float), clip.body_lin_vel_w[:, 0]
    gyro = rot.quat_rotate_inverse(root_quat, clip.body_ang_vel_w[:, 0].astype(float))
    lever = rot.quat_rotate(root_quat, rot.cross(gyro, np.broadcast_to(IMU_POS, gyro.shape)))
    acceleration = np.gradient(root_vel.astype(float) + lever, 0.02, axis=0)
    accel = rot.quat_rotate_inverse(root_quat, acceleration + 9.81 * Z)
    estimator = BaseEstimator(model)
    off = []
    for k in range(clip.num_frames):
        estimator.update(
            root_quat[k], gyro[k], accel[k], clip.joint_pos[k].astype(float),
            clip.joint_vel[k].astype(float), 0.02 if k else 0.0,
        )  # fmt: skip
        off.append(estimator.lin_vel - root_vel[k])
    assert np.linalg.norm(root_vel[:, :2], axis=1).mean() > 0.3, "premise: it walks"
    off, moved = np.array(off), clip.body_pos_w[-1, 0] - clip.body_pos_w[0, 0]
    # A filter with a time constant of 0.06 s, on readings every 0.02 s.
    assert np.sqrt((off**2).mean(axis=0)).max() < 0.1
    assert np.linalg.norm((estimator.pos - moved)[:2]) < 0.1 * np.linalg.norm(moved[:2])
    assert abs(estimator.pos[2] - clip.body_pos_w[-1, 0, 2]) < 0.01


# --- the stand-in robot ---------------------------------------------------------------------------


def commands(seed):
    rng = np.random.default_rng(seed)
    return Command(
        g1.DEFAULT_JOINT_POS + rng.normal(0, 0.5, 29), rng.uniform(0, 300, 29),
        rng.uniform(0, 5, 29), rng.normal(0, 5, 29),
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_motors_follow_their_law_within_their_limits(scale):
    robot = SimulatedRobot(RobotConfig(physics_hz=500, effort_scale=scale))
    rng = np.random.default_rng(0)
    qpos = np.concatenate([(0, 0, 2, 1, 0, 0, 0), g1.DEFAULT_JOINT_POS])
    qvel = np.concatenate([np.zeros(6), rng.normal(0, 2, 29)])
    robot.reset(qpos, qvel)
    command = commands(1)
    robot.apply(command)
    robot.step()
    wanted = (
        command.stiffness * (command.joint_pos - qpos[7:])
        - command.damping * qvel[6:]
        + command.torque
    )
    limit = scale * g1.EFFORT_LIMIT
    assert (np.abs(wanted) > limit).any() and (np.abs(wanted) < limit).any(), "premise"
    # One physics step: the engine's force is that of the state before it.
    np.testing.assert_allclose(robot.data.actuator_force, np.clip(wanted, -limit, limit))
    assert robot.saturated == (np.abs(wanted) >= 0.999 * limit).sum()


@pytest.mark.parametrize(("rate", "delay_ms"), [(500, 0), (500, 10), (1000, 3), (2000, 2.5)])
def test_commands_arrive_as_late_as_they_should(rate, delay_ms):
    """With a delay of n physics steps the motion is the same, n steps later."""
    robot = SimulatedRobot(RobotConfig(physics_hz=rate, command_ms=delay_ms))
    robot.reset(np.concatenate([(0, 0, 2, 1, 0, 0, 0), g1.DEFAULT_JOINT_POS]))
    robot.apply(commands(2))
    late = []
    for _ in range(10):
        robot.step()
        late.append(np.abs(robot.data.ctrl).max() > 0)
    # Readings are every 2 ms; a command that has arrived within them has been taken.
    assert late == [2 * (i + 1) > delay_ms for i in range(10)]


@pytest.mark.parametrize("delay_ms", [0, 20])
def test_readings_arrive_as_late_as_they_should(delay_ms):
    robot = SimulatedRobot(RobotConfig(sensor_ms=delay_ms))
    robot.reset(np.concatenate([(0, 0, 2, 1, 0, 0, 0), g1.DEFAULT_JOINT_POS]))
    heights = {0.0: 2.0}
    for _ in range(30):
        robot.step()
        heights[round(robot.time_s, 3)] = robot.data.qpos[2]
    told = robot.sense()
    assert told.time_s == pytest.approx(robot.time_s - delay_ms / 1e3)
    assert told.base_pos is not None and told.base_pos[2] == heights[round(told.time_s, 3)]


def test_noise_is_within_its_bounds_and_follows_the_seed():
    def told(noise, seed):
        robot = SimulatedRobot(RobotConfig(noise=noise), seed=seed)
        robot.stand(g1.DEFAULT_JOINT_POS)
        return robot.sense()

    clean, first, again, other = told(0, 0), told(2, 0), told(2, 0), told(2, 1)
    assert rot.quat_angle(clean.quat, np.array([1.0, 0, 0, 0])) == 0
    for name in set(NOISE) - {"orientation"}:
        off = np.abs(getattr(first, name) - getattr(clean, name))
        assert 0 < off.max() <= 2 * NOISE[name]
        assert (getattr(first, name) == getattr(again, name)).all()
        assert (getattr(first, name) != getattr(other, name)).any()
    assert 0 < rot.quat_angle(first.quat, clean.quat) <= 2 * NOISE["orientation"] * 3**0.5


def test_the_accelerometer_reads_gravity_on_the_ground_and_nothing_in_the_air():
    robot = SimulatedRobot(RobotConfig(physics_hz=500))
    robot.reset(np.concatenate([(0, 0, 2, 1, 0, 0, 0), g1.DEFAULT_JOINT_POS]))
    robot.step()
    np.testing.assert_allclose(robot.sense().accel, 0, atol=1e-6)
    robot.stand(g1.DEFAULT_JOINT_POS)
    robot.apply(Command(g1.DEFAULT_JOINT_POS, STANDBY_STIFFNESS, STANDBY_DAMPING))
    for _ in range(1500):
        robot.step()
    # It stands by itself, with the gains that a robot stands with; what is left is a slow sway.
    np.testing.assert_allclose(np.linalg.norm(robot.sense().accel), 9.81, atol=0.05)
    assert robot.data.qpos[2] > 0.74
