"""The Simulator protocol, as a test of the backend `mujoco`.

The truth is analytic (free fall, momentum), or a plain loop over `mujoco.mj_step` on the same
model.
"""

import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bm_envs.backends.base import SimulatorConfig, make_simulator
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import g1, mjcf
from tests.conformance.plain import STAND, Plain
from tests.conformance.plain import random_states as states_anywhere

N = 6


@pytest.fixture(autouse=True)
def asked_for(request):
    named = request.config.getoption("--backend")
    if named and "mujoco" not in named:
        pytest.skip("these are of the backend mujoco, and --backend names others")


@pytest.fixture
def sim():
    simulator = make_simulator("mujoco", SimulatorConfig(N))
    yield simulator
    simulator.close()


def random_states(seed=0, height=1.5):
    """With quaternions of unit length in float64, as the comparison to the bit wants them."""
    qpos, qvel = states_anywhere(N, seed, height)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, qvel


def plain(qpos, qvel, targets=()):
    """The same robot in a loop of `mj_step`."""
    robot = Plain(qpos, qvel)
    for target in targets:
        robot.step(target)
    return robot


def assert_equals_plain(sim, env, robot):
    # Same C code on the same float64 numbers; the views are rounded to float32 once.
    data, links = robot.data, robot.links()
    np.testing.assert_array_equal(sim.body_pos[env], links["body_pos"].astype(np.float32))
    np.testing.assert_array_equal(sim.joint_pos[env], data.qpos[7:].astype(np.float32))
    np.testing.assert_array_equal(sim.joint_vel[env], data.qvel[6:].astype(np.float32))
    np.testing.assert_array_equal(sim.root_ang_vel_b[env], data.qvel[3:6].astype(np.float32))
    # The sensor adds the same products in another order: a few float32 roundings at ~10 m/s.
    np.testing.assert_allclose(sim.body_lin_vel[env], links["body_lin_vel"], atol=1e-5)
    np.testing.assert_allclose(sim.body_ang_vel[env], links["body_ang_vel"], atol=1e-5)
    dots = abs((sim.body_quat[env] * links["body_quat"]).sum(1))
    np.testing.assert_allclose(dots, 1.0, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(sim.body_axes[env], links["body_axes"].astype(np.float32))


def test_reset_is_fresh_and_leaves_the_others_alone(sim):
    qpos, qvel = random_states()
    everyone = np.arange(N)
    sim.reset(everyone, qpos, qvel)
    for env in everyone:
        assert_equals_plain(sim, env, plain(qpos[env], qvel[env]))
    before = [np.array(v) for v in (sim.body_pos, sim.body_lin_vel, sim.joint_pos, sim.root_quat)]
    some = np.array([1, 4])
    sim.reset(some, *(array[some] for array in random_states(1)))
    rest = np.setdiff1d(everyone, some)
    after = [sim.body_pos, sim.body_lin_vel, sim.joint_pos, sim.root_quat]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[rest], new[rest])
        assert not np.array_equal(old[some], new[some])


def test_lift_is_a_start_from_higher_up(sim):
    qpos, qvel = random_states(7, height=0.7)  # in the ground
    sim.reset(np.arange(N), qpos, qvel)
    ids, height = np.array([0, 3]), np.array([0.1, 0.25], np.float32)
    sim.lift(ids, height)
    qpos[ids, 2] += height
    for env in range(N):
        truth = plain(qpos[env], qvel[env]).links()["body_pos"]
        # A float32 sum of heights near 1 m.
        np.testing.assert_allclose(sim.body_pos[env], truth, atol=2e-7)
    targets = np.tile(g1.DEFAULT_JOINT_POS, (2, N, 1))
    for target in targets:
        sim.step(target)
    for env in range(N):
        assert_equals_plain(sim, env, plain(qpos[env], qvel[env], targets[:, env]))


def test_step_equals_a_plain_loop_and_is_fresh(sim):
    qpos, qvel = random_states(height=0.9)
    sim.reset(np.arange(N), qpos, qvel)
    targets = g1.DEFAULT_JOINT_POS + np.random.default_rng(2).uniform(-0.5, 0.5, (5, N, 29))
    for target in targets:
        sim.step(target)
    for env in range(N):
        assert_equals_plain(sim, env, plain(qpos[env], qvel[env], targets[:, env]))


def test_one_robot_equals_a_row_of_many(sim):
    qpos, qvel = random_states(3, height=0.9)
    sim.reset(np.arange(N), qpos, qvel)
    one = make_simulator("mujoco", SimulatorConfig(1))
    one.reset(np.arange(1), qpos[4:5], qvel[4:5])
    for _ in range(3):
        sim.step(np.tile(g1.DEFAULT_JOINT_POS, (N, 1)))
        one.step(g1.DEFAULT_JOINT_POS[None])
    np.testing.assert_array_equal(one.body_pos[0], sim.body_pos[4])


def test_free_fall_is_the_analytic_one(sim):
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] = 10.0
    sim.reset(np.arange(N), qpos, np.zeros((N, 35)))
    for _ in range(10):
        sim.step(qpos[:, 7:])  # the drives hold the pose they have: no internal motion
    time, dt = 0.2, 0.005
    # Semi-implicit Euler over n steps of dt: z - g t^2/2 - g t dt/2. float32 at 10 m: 1e-6 m.
    expected = 10.0 - 9.81 * time**2 / 2 - 9.81 * time * dt / 2
    np.testing.assert_allclose(sim.root_pos[:, 2], expected, atol=2e-6)
    np.testing.assert_allclose(sim.root_lin_vel[:, 2], -9.81 * time, atol=1e-5)
    np.testing.assert_allclose(sim.joint_pos, qpos[:, 7:], atol=1e-6)


def test_pd_step_response_of_a_wrist_is_the_overdamped_oscillator():
    """A wrist yaw joint in free fall: I_eff qdd = kp (target - q) - kd qd, nearly decoupled.

    The 10 Hz, zeta = 2 oscillator in the effective inertia of the compiled model. The bound is the
    first-order error of 5 ms implicit steps (measured against 0.1 ms steps: 0.6 %) plus the
    reaction of the free-floating arm.
    """
    simulator = make_simulator("mujoco", SimulatorConfig(1))
    qpos = STAND.copy()
    qpos[2] = 10.0
    simulator.reset(np.arange(1), qpos[None], np.zeros((1, 35)))
    j = g1.JOINT_NAMES.index("left_wrist_yaw_joint")
    effective = plain(qpos, np.zeros(35)).effective_inertia(6 + j)
    target = qpos[7:].copy()
    target[j] += 0.2
    times, angles = [], []
    for step in range(15):
        simulator.step(target[None])
        times.append(0.02 * (step + 1))
        angles.append(float(simulator.joint_pos[0, j]) - qpos[7 + j])
    kp, kd = g1.STIFFNESS[j], g1.DAMPING[j]
    roots = np.roots([effective, kd, kp])
    a, b = sorted(roots.real)
    t = np.array(times)
    expected = 0.2 * (1 - (b * np.exp(a * t) - a * np.exp(b * t)) / (b - a))
    np.testing.assert_allclose(angles, expected, atol=0.04 * 0.2)
    assert angles[-1] > 0.15  # it has really moved


def test_push_adds_world_velocities_and_is_fresh(sim):
    qpos, qvel = random_states(5)
    sim.reset(np.arange(N), qpos, qvel)
    linear, angular = sim.body_lin_vel[:, 0].copy(), sim.body_ang_vel[:, 0].copy()
    ids = np.array([0, 3])
    push = np.random.default_rng(0).normal(size=(2, 2, 3))
    sim.push(ids, push[0], push[1])
    # float32 sums of numbers near 5.
    np.testing.assert_allclose(sim.body_lin_vel[ids, 0], linear[ids] + push[0], atol=2e-6)
    np.testing.assert_allclose(sim.body_ang_vel[ids, 0], angular[ids] + push[1], atol=2e-6)
    np.testing.assert_array_equal(sim.body_lin_vel[1, 0], linear[1])
    for env, lin, ang in zip(ids, *push, strict=True):
        velocity = qvel[env].copy()
        velocity[:3] += lin
        rotation = Rotation.from_quat(qpos[env, [4, 5, 6, 3]])
        velocity[3:6] += rotation.inv().apply(ang)  # MuJoCo's is in the root's own axes
        assert_equals_plain(sim, env, plain(qpos[env], velocity))


def test_friction_decides_whether_a_sliding_robot_stops():
    simulator = make_simulator("mujoco", SimulatorConfig(2))
    simulator.randomize(np.arange(2), foot_friction=np.array([0.05, 1.2]))
    qpos = np.tile(STAND, (2, 1))
    qpos[:, 2] -= 0.003
    qvel = np.zeros((2, 35))
    qvel[:, 1] = 0.5
    simulator.reset(np.arange(2), qpos, qvel)
    for _ in range(10):
        simulator.step(qpos[:, 7:])
    feet = [g1.TRACKED_BODIES.index(name) for name in g1.FOOT_BODIES]
    speed = np.abs(simulator.body_lin_vel[:, feet, 1]).mean(1)
    assert speed[0] > 5 * speed[1]


def test_torso_com_shift_tips_the_robot():
    simulator = make_simulator("mujoco", SimulatorConfig(2))
    simulator.randomize(np.arange(2), torso_com_offset=np.array([[0.2, 0, 0], [-0.2, 0, 0]]))
    qpos = np.tile(STAND, (2, 1))
    simulator.reset(np.arange(2), qpos, np.zeros((2, 35)))
    for _ in range(20):
        simulator.step(qpos[:, 7:])
    assert simulator.root_ang_vel_b[0, 1] > simulator.root_ang_vel_b[1, 1] + 0.1


def test_standing_robot_is_carried_by_its_feet(sim):
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.003
    sim.reset(np.arange(N), qpos, np.zeros((N, 35)))
    assert not sim.contact_force.any()  # nothing has been solved yet
    forces = []
    for _ in range(20):
        sim.step(qpos[:, 7:])
        forces.append(np.linalg.norm(sim.contact_force[:, -2:].sum(1), axis=-1))
    # Bouncing on soft drives: the mean over 0.4 s is the weight to a tenth.
    weight = 33.341142 * 9.81
    assert np.mean(forces[5:]) == pytest.approx(weight, rel=0.1)
    assert not sim.contact_force[:, :-2].any()


def test_state_round_trip_is_bit_exact(sim):
    qpos, qvel = random_states(7, height=0.8)
    sim.randomize(np.arange(N), foot_friction=np.linspace(0.3, 1.2, N))
    sim.reset(np.arange(N), qpos, qvel)
    targets = g1.DEFAULT_JOINT_POS + np.random.default_rng(0).uniform(-0.3, 0.3, (10, N, 29))
    for target in targets[:5]:
        sim.step(target)
    state = sim.get_state()
    for target in targets[5:]:
        sim.step(target)
    expected = [np.array(v) for v in (sim.body_pos, sim.body_lin_vel, sim.contact_force)]
    other = make_simulator("mujoco", SimulatorConfig(N))
    other.set_state(state)
    for target in targets[5:]:
        other.step(target)
    for a, b in zip(
        expected, (other.body_pos, other.body_lin_vel, other.contact_force), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_divergence_is_reported_and_reset_heals_it(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the engine logs its warning to a file in the working directory
    qpos, qvel = random_states()
    sim.reset(np.arange(N), qpos, qvel)
    qvel[2, 0] = np.inf
    sim.reset(np.array([2]), qpos[2:3], qvel[2:3])
    sim.step(qpos[:, 7:])
    assert sim.diverged().tolist() == [False, False, True, False, False, False]
    qvel[2, 0] = 0.0
    sim.reset(np.array([2]), qpos[2:3], qvel[2:3])
    sim.step(qpos[:, 7:])
    assert not sim.diverged().any() and np.isfinite(sim.body_pos).all()


def test_views_are_read_only(sim):
    with pytest.raises(ValueError, match="read-only"):
        sim.body_pos[0, 0, 0] = 1.0


def test_errors_say_what_was_expected():
    with pytest.raises(BackendUnavailable, match="Unknown backend 'mujco'; did you mean 'mujoco'"):
        make_simulator("mujco", SimulatorConfig(1))
    with pytest.raises(ConfigError, match="num_envs is 0, expected 1 or more"):
        SimulatorConfig(0)


def test_an_older_engine_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.batch", None)
    monkeypatch.delitem(sys.modules, "bm_envs.backends.mujoco_cpu", raising=False)
    with pytest.raises(BackendUnavailable, match="needs MuJoCo 4.0 or newer .* pip install"):
        make_simulator("mujoco", SimulatorConfig(1))


def test_self_contact_is_seen_only_with_self_collision():
    forces = []
    for on in (False, True):
        model = mjcf.ModelConfig(self_collision=on)
        simulator = make_simulator("mujoco", SimulatorConfig(1, model=model))
        qpos = STAND.copy()
        qpos[2] = 3.0
        # Hands brought together in front of the body.
        for side, sign in (("left", 1.0), ("right", -1.0)):
            qpos[7 + g1.JOINT_NAMES.index(f"{side}_shoulder_yaw_joint")] = -1.2 * sign
            qpos[7 + g1.JOINT_NAMES.index(f"{side}_shoulder_roll_joint")] = -0.1 * sign
        simulator.reset(np.arange(1), qpos[None], np.zeros((1, 35)))
        simulator.step(qpos[None, 7:])
        forces.append(float(simulator.self_contact_force[0]))
    assert forces[0] == 0.0 and forces[1] > 1.0
