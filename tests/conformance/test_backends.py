"""What every backend must do alike: sixteen checks, C1 to C16.

The truth is the robot's table, analysis, or a plain loop of MuJoCo's C engine (`plain.py`).
Tolerances are those of `conftest.Bounds`, argued there, or stand beside the check. Simulators are
seen through their NumPy side, whatever their own arrays are.
"""

from __future__ import annotations

import copy
import importlib
import pickle
from typing import Any

import mujoco
import numpy as np
import pytest

from bm_envs.backends.base import CLOSED, SimulatorConfig, full_state
from bm_envs.backends.host import HostSimulator, make_host_simulator
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.motion.library import load_motion
from bm_envs.robots import g1, mjcf
from bm_envs.robots.kinematics import link_poses, link_states
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.task import TrackTask
from tests.conformance.plain import STAND, WEIGHT, Plain, random_states
from tests.conformance.shared import ONE_AT_A_TIME, N, make_room

EVERYONE = np.arange(N)
FEET = [g1.TRACKED_BODIES.index(name) for name in g1.FOOT_BODIES]
LINKS = ("body_pos", "body_quat", "body_axes", "body_lin_vel", "body_ang_vel")
STATE = (
    "root_pos", "root_quat", "root_lin_vel", "root_ang_vel_b", "joint_pos", "joint_vel", *LINKS,
    "contact_force",
)  # fmt: skip


def build(backend, count=N, **config):
    make_room(backend)
    return make_host_simulator(backend, SimulatorConfig(count, **config))


@pytest.fixture
def sim(shared):
    shared.randomize(
        EVERYONE, foot_friction=np.full(N, mjcf.FOOT_FRICTION), torso_com_offset=np.zeros((N, 3))
    )
    shared.reset(EVERYONE, np.tile(STAND, (N, 1)), np.zeros((N, 35)))
    return shared


def snapshot(sim):
    return {name: np.array(getattr(sim, name)) for name in STATE}


def up_to_sign(quat, other):
    """Largest difference of quaternions, of which q and -q are one."""
    return np.minimum(abs(quat - other), abs(quat + other)).max()


def assert_links(sim, env, truth, bounds):
    tolerance = dict.fromkeys(LINKS, bounds.place)
    tolerance |= dict.fromkeys(("body_lin_vel", "body_ang_vel"), bounds.velocity)
    for name in LINKS:
        found, wanted = getattr(sim, name)[env], truth[name]
        if name == "body_quat":
            assert up_to_sign(found, wanted) < tolerance[name]
        else:
            np.testing.assert_allclose(found, wanted, atol=tolerance[name], rtol=0, err_msg=name)


# --- C1, C2: what the robot is --------------------------------------------------------------------


def test_c01_joints_and_bodies_are_in_the_tables_order(sim, bounds):
    """Every joint at an angle of its own puts every link where the table's chain says."""
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] = 1.5
    qpos[:, 7:] = 0.02 * np.arange(1, 30) * np.array([1, -1, 0.5, -0.3])[:, None]
    qpos[:, 7:] = np.clip(qpos[:, 7:], *g1.JOINT_RANGE.T)
    sim.reset(EVERYONE, qpos, np.zeros((N, 35)))
    still = np.zeros((N, 3))
    links = link_states(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], still, still, np.zeros((N, 29)))
    tracked = g1.order_map(g1.BODY_NAMES, g1.TRACKED_BODIES)
    np.testing.assert_allclose(sim.body_pos, links.pos[:, tracked], atol=bounds.place, rtol=0)
    np.testing.assert_allclose(sim.joint_pos, qpos[:, 7:], atol=bounds.place, rtol=0)
    assert sim.contact_bodies == (*mjcf.CONTACT_BODIES, *g1.FOOT_BODIES)


def test_c01_the_links_that_are_observed_are_those_asked_for(backend, bounds):
    names = (g1.ROOT_BODY, "left_elbow_link", g1.ANCHOR_BODY, "right_knee_link")
    simulator = build(backend, 1, bodies=names)
    qpos, qvel = random_states(1, 4)
    simulator.reset(np.arange(1), qpos, qvel)
    root = qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], *np.zeros((2, 1, 3)), np.zeros((1, 29))
    expected = link_states(*root).pos[:, g1.order_map(g1.BODY_NAMES, names)]
    np.testing.assert_allclose(simulator.body_pos, expected, atol=bounds.place, rtol=0)
    for name, shape in (("body_quat", (4,)), ("body_axes", (3, 3)), ("body_lin_vel", (3,))):
        assert getattr(simulator, name).shape == (1, len(names), *shape)
    simulator.close()


def test_c02_the_model_is_the_table(sim):
    held = sim.read_model()
    table = {
        "body_mass": [body.mass for body in g1.BODIES],
        "body_com": [body.inertial_pos for body in g1.BODIES],
        "body_inertia": [sorted(body.diag_inertia) for body in g1.BODIES],
        "joint_range": g1.JOINT_RANGE,
        "armature": [joint.armature for joint in g1.JOINTS],
        "stiffness": g1.STIFFNESS,
        "damping": g1.DAMPING,
        "effort_limit": [joint.effort_limit for joint in g1.JOINTS],
        "foot_friction": mjcf.FOOT_FRICTION,
    }
    for name, values in table.items():
        values = np.broadcast_to(np.asarray(values, float), held[name].shape)
        # Figures are held in float32; places near zero have no relative error.
        np.testing.assert_allclose(held[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def test_c02_gains_are_those_asked_for(backend):
    gains = dict(stiffness=tuple(np.linspace(10, 90, 29)), damping=tuple(np.linspace(1, 9, 29)))
    simulator = build(backend, 1, **gains)
    for name, values in gains.items():
        np.testing.assert_allclose(simulator.read_model()[name][0], values, rtol=1e-5)
    simulator.close()


# --- C3, C4: states -------------------------------------------------------------------------------


def test_c03_a_state_is_seen_as_it_is(sim, bounds):
    for seed in range(13):  # 52 states
        qpos, qvel = random_states(N, seed)
        sim.reset(EVERYONE, qpos, qvel)
        for env in EVERYONE:
            truth = Plain(qpos[env], qvel[env]).links()
            assert_links(sim, env, truth, bounds)
            # The velocity of a link's center of mass is another: mixed up, it would be seen.
            assert abs(sim.body_lin_vel[env] - truth["com_vel"]).max() > 0.05


def test_c04_what_is_written_is_read_and_the_others_stay(sim, bounds):
    qpos, qvel = random_states(N)
    sim.reset(EVERYONE, qpos, qvel)
    before = snapshot(sim)
    some, rest = np.array([1, 3]), np.array([0, 2])
    fresh = random_states(2, seed=5)
    sim.reset(some, *fresh)
    for name, values in snapshot(sim).items():
        np.testing.assert_array_equal(values[rest], before[name][rest], err_msg=name)
    for read, written in zip(full_state(sim), fresh, strict=True):
        np.testing.assert_allclose(read[some], written, atol=bounds.place, rtol=0)
    assert not sim.contact_force.any(), "nothing has been solved yet"


def test_c04_a_reset_forgets_the_forces_of_these_and_no_others(sim):
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.003
    sim.reset(EVERYONE, qpos, np.zeros((N, 35)))
    for _ in range(3):
        sim.step(qpos[:, 7:])
    before = np.array(sim.contact_force)
    assert before.any(axis=(1, 2)).all(), "premise: all stand on the ground"
    some, rest = np.array([1, 3]), np.array([0, 2])
    sim.reset(some, qpos[some], np.zeros((2, 35)))
    assert not sim.contact_force[some].any(), "nothing has been solved since the reset"
    np.testing.assert_array_equal(sim.contact_force[rest], before[rest])


class Interrupted:
    """A run of robots on the ground that are all randomized, and what came of it."""

    def __init__(self, backend):
        # A solver that is stopped early ends where it began: a lost warm start is seen.
        self.sim = build(backend, model=mjcf.ModelConfig(iterations=2, ls_iterations=8))
        offset = np.random.default_rng(3).uniform(-0.05, 0.05, (N, 3))
        friction = np.linspace(0.2, 0.9, N)
        self.sim.randomize(EVERYONE, foot_friction=friction, torso_com_offset=offset)
        qpos, qvel = np.tile(STAND, (N, 1)), np.zeros((N, 35))
        qpos[:, 2] -= 0.003
        qvel[:, :2] = np.random.default_rng(1).uniform(-0.3, 0.3, (N, 2))
        self.sim.reset(EVERYONE, qpos, qvel)
        self.targets = STAND[7:] + np.random.default_rng(2).uniform(-0.2, 0.2, (8, N, 29))
        for target in self.targets[:4]:
            self.sim.step(target)
        self.seen, self.figures = snapshot(self.sim), self.sim.read_model()
        assert self.seen["contact_force"].any(axis=(1, 2)).sum() > 1, "premise: feet are loaded"

    def go_on(self, sim):
        """What is seen after the other half of the targets."""
        for target in self.targets[4:]:
            sim.step(target)
        return snapshot(sim)

    def assert_as_it_was(self, sim, bounds):
        """What is seen and held at once, before any step."""
        for name, values in snapshot(sim).items():
            off = 0.0 if name == "contact_force" else bounds.velocity
            np.testing.assert_allclose(values, self.seen[name], atol=off, rtol=0, err_msg=name)
        for name, values in sim.read_model().items():
            np.testing.assert_allclose(values, self.figures[name], rtol=1e-6, atol=1e-7)


def assert_same_end(found, expected, bounds):
    for name in STATE if bounds.deterministic else ("root_pos", "joint_pos"):
        off = abs(found[name] - expected[name]).max()
        assert off <= (0.0 if bounds.deterministic else bounds.rollout), f"{name} is off by {off:g}"


def test_c04_a_saved_state_goes_on_as_it_would_have(backend, bounds):
    """As the run that was not interrupted, whatever the simulator did in between."""
    run = Interrupted(backend)
    saved = run.sim.get_state()
    expected = run.go_on(run.sim)
    for name in ("root_pos", "joint_pos"):
        assert abs(expected[name] - run.seen[name]).max() > 0.01, "premise: they moved"
    run.sim.randomize(EVERYONE, foot_friction=np.ones(N), torso_com_offset=np.full((N, 3), 0.01))
    run.sim.reset(EVERYONE, *random_states(N, 7, height=0.8))
    run.sim.step(run.targets[0])
    run.sim.set_state(saved)
    run.assert_as_it_was(run.sim, bounds)
    assert_same_end(run.go_on(run.sim), expected, bounds)
    run.sim.close()


def test_c04_a_pickle_goes_on_as_the_original(backend, bounds):
    """And so does a copy, which is made in the same way."""
    run = Interrupted(backend)
    pickled = pickle.dumps(run.sim)
    expected = run.go_on(run.sim)
    run.sim.close()  # some engines have one simulation a process
    other = pickle.loads(pickled)
    run.assert_as_it_was(other, bounds)
    assert_same_end(run.go_on(other), expected, bounds)
    if backend not in ONE_AT_A_TIME:
        copied = copy.deepcopy(other)
        assert_same_end(run.go_on(copied), run.go_on(other), bounds)
        copied.close()
    other.close()
    closed = pickle.loads(pickle.dumps(other))
    with pytest.raises(ConfigError, match=f"^{CLOSED}$"):
        closed.step(run.targets[0])


def test_c04_lifted_robots_are_higher_and_nothing_else(sim, bounds):
    qpos, qvel = random_states(N, 7, height=0.7)
    sim.reset(EVERYONE, qpos, qvel)
    ids, height = np.array([0, 3]), np.array([0.1, 0.25], np.float32)
    sim.lift(ids, height)
    qpos[ids, 2] += height
    for env in EVERYONE:
        assert_links(sim, env, Plain(qpos[env], qvel[env]).links(), bounds)


def test_c04_a_mask_names_robots_as_indices_do(sim, bounds):
    """Engines whose arrays are torch's: indices with values of those, a mask with values of all."""
    if not isinstance(sim, HostSimulator):
        pytest.skip("its arrays are NumPy's, and robots are named by indices alone")
    import torch

    engine = sim.engine
    device = getattr(engine, "device")  # noqa: B009 (not of the protocol)
    rows = torch.tensor([1, 3], device=device)
    mask = torch.isin(torch.arange(N, device=device), rows)
    values = np.random.default_rng(0).uniform(0.1, 0.4, (N, 3))
    shift, height, states = [
        torch.tensor(part, dtype=torch.float32, device=device)
        for part in (values, values[:, 0], np.concatenate(random_states(N, 8, height=0.8), 1))
    ]
    found = []
    for names, of in ((rows, lambda part: part[rows]), (mask, lambda part: part)):
        sim.randomize(EVERYONE, torso_com_offset=np.zeros((N, 3)))
        sim.reset(EVERYONE, *random_states(N, 7, height=0.8))
        engine.randomize(names, foot_friction=of(height), torso_com_offset=of(0.1 * shift))
        engine.reset(names, of(states[:, :36]), of(states[:, 36:]))
        engine.lift(names, of(height))
        engine.push(names, of(shift), of(shift))
        sim.step(np.tile(STAND[7:], (N, 1)))  # which brings NumPy's side up to date, too
        found.append(snapshot(sim))
    for name in STATE if bounds.deterministic else ("root_pos", "root_quat", "joint_pos"):
        tolerance = 0.0 if bounds.deterministic else 1e-4
        np.testing.assert_allclose(
            found[0][name], found[1][name], atol=tolerance, rtol=0, err_msg=name
        )
    assert abs(found[0]["joint_pos"][1] - states[1, 7:36].cpu().numpy()).max() < 0.3, "premise"


# --- C5, C6: motion without contact ---------------------------------------------------------------


def test_c05_a_limp_robot_falls_as_one_body(backend, bounds):
    """0.5 s without drives: center of mass by Galilei, angular momentum as it was."""
    simulator = build(backend, N, stiffness=(0.0,) * 29, damping=(0.0,) * 29)
    qpos, qvel = random_states(N, 3, height=5.0)
    qpos[:, 7:], qvel[:, 6:] = STAND[7:], 0.3 * qvel[:, 6:]  # no joint comes to its limit
    simulator.reset(EVERYONE, qpos, qvel)
    plain = [Plain(*state, limp=True) for state in zip(qpos, qvel, strict=True)]
    before = [robot.momentum() for robot in plain]
    time, dt, steps = 0.5, 0.005, 25
    for _ in range(steps):
        simulator.step(qpos[:, 7:])
        for env in EVERYONE:
            plain[env].step(qpos[env, 7:])
    # Semi-implicit steps fall further than the parabola by g t dt / 2.
    fall = np.array([0, 0, -9.81 * (time**2 + time * dt) / 2])
    states = [np.asarray(part, float) for part in full_state(simulator)]
    for env in EVERYONE:
        com, spin, _ = Plain(states[0][env], states[1][env]).momentum()
        old_com, old_spin, old_velocity = before[env]
        # The engine's time step: a body that turns at 2 rad/s is off by centimetres after 0.5 s.
        np.testing.assert_allclose(com, old_com + time * old_velocity + fall, atol=0.03)
        assert np.linalg.norm(spin - old_spin) < 0.1 * np.linalg.norm(old_spin)
        np.testing.assert_allclose(com, plain[env].momentum()[0], atol=bounds.flight)
    simulator.close()


def test_c06_a_drive_answers_as_the_oscillator_that_it_is(backend, bounds):
    """A wrist yaw joint in free fall: I_eff qdd = kp (target - q) - kd qd, nearly decoupled."""
    simulator = build(backend, 1)
    qpos = STAND.copy()
    qpos[2] = 10.0
    simulator.reset(np.arange(1), qpos[None], np.zeros((1, 35)))
    plain = Plain(qpos, np.zeros(35))
    j = g1.JOINT_NAMES.index("left_wrist_yaw_joint")
    effective = plain.effective_inertia(6 + j)
    target = qpos[7:].copy()
    target[j] += 0.2
    angles, wanted = [], []
    for _ in range(15):
        simulator.step(target[None])
        plain.step(target)
        angles.append(float(simulator.joint_pos[0, j]) - qpos[7 + j])
        wanted.append(plain.data.qpos[7 + j] - qpos[7 + j])
    a, b = sorted(np.roots([effective, g1.DAMPING[j], g1.STIFFNESS[j]]).real)
    t = 0.02 * np.arange(1, 16)
    analytic = 0.2 * (1 - (b * np.exp(a * t) - a * np.exp(b * t)) / (b - a))
    # 5 ms steps (0.6 % against 0.1 ms), and the arm, which floats and gives way.
    np.testing.assert_allclose(angles, analytic, atol=0.04 * 0.2)
    np.testing.assert_allclose(angles, wanted, atol=bounds.response)
    assert angles[-1] > 0.15, "it has really moved"
    simulator.close()


def test_c06_a_drive_pulls_no_harder_than_it_can(backend, bounds):
    """Asked for ten radians more, a knee in free fall gets what 139 N m give, and no more."""
    simulator = build(backend, 1, decimation=1)
    qpos = STAND.copy()
    qpos[2] = 10.0
    simulator.reset(np.arange(1), qpos[None], np.zeros((1, 35)))
    j = g1.JOINT_NAMES.index("left_knee_joint")
    target = qpos[7:].copy()
    target[j] += 10.0
    plain = Plain(qpos, np.zeros(35))
    simulator.step(target[None])
    plain.step(target, substeps=1)
    limit = g1.JOINTS[j].effort_limit
    expected = limit / plain.effective_inertia(6 + j) * 0.005
    # The drive's damping acts implicitly in the step.
    assert float(simulator.joint_vel[0, j]) == pytest.approx(expected, rel=0.25)
    assert float(simulator.joint_vel[0, j]) == pytest.approx(
        plain.data.qvel[6 + j], abs=max(1e-3, 5 * bounds.response)
    )
    simulator.close()


# --- C7, C8: contact ------------------------------------------------------------------------------


def test_c07_the_feet_carry_the_weight(backend, bounds):
    """Mean force of the ground over 0.5 s: the weight, and what the momentum has changed by."""
    simulator = build(backend, 1, decimation=1)  # so that every physics step's force is seen
    qpos = STAND.copy()
    qpos[2] -= 0.003
    simulator.reset(np.arange(1), qpos[None], np.zeros((1, 35)))
    forces = []
    for _ in range(100):
        simulator.step(qpos[None, 7:])
        forces.append(simulator.contact_force[0, -2:].sum(0))
    _, _, velocity = Plain(
        *(np.asarray(part[0], float) for part in full_state(simulator))
    ).momentum()
    # The engine tells the force on the ground or on the feet; its size is what is compared.
    carried = abs(np.mean(forces, 0)[2]) - WEIGHT / 9.81 * velocity[2] / 0.5
    assert carried == pytest.approx(WEIGHT, rel=bounds.force)
    assert not simulator.contact_force[:, :-2].any(), "nothing but the feet touches the ground"
    simulator.close()


def test_c08_friction_is_the_coefficient_that_was_set(sim, bounds):
    """Sliding along an axis of the contact frame: tangential over normal force."""
    friction = np.array([0.1, 0.2, 0.3, 0.4])
    sim.randomize(EVERYONE, foot_friction=friction)
    qpos, qvel = np.tile(STAND, (N, 1)), np.zeros((N, 35))
    qpos[:, 2] -= 0.003
    qvel[:, 0] = 3.0
    sim.reset(EVERYONE, qpos, qvel)
    forces = []
    for _ in range(3):
        sim.step(qpos[:, 7:])
        forces.append(sim.contact_force[:, -2:].sum(1).copy())
        assert (sim.body_lin_vel[:, FEET, 0] > 0.1).all(), "premise: the feet slide"
    total = np.sum(forces, 0)
    ratio = np.linalg.norm(total[:, :2], axis=1) / abs(total[:, 2])
    np.testing.assert_allclose(ratio, friction, rtol=bounds.friction)


def test_c08_links_that_touch_are_told_with_the_strongest_force(backend):
    """Hands brought together in front of the body, and a robot that does not touch itself."""
    model = mjcf.ModelConfig(self_collision=True)
    try:
        simulator = build(backend, 2, decimation=1, model=model)
    except ConfigError as error:
        pytest.skip(str(error))
    qpos = np.tile(STAND, (2, 1))
    qpos[:, 2] = 3.0
    for side, sign in (("left", 1.0), ("right", -1.0)):
        qpos[0, 7 + g1.JOINT_NAMES.index(f"{side}_shoulder_yaw_joint")] = -1.2 * sign
        qpos[0, 7 + g1.JOINT_NAMES.index(f"{side}_shoulder_roll_joint")] = -0.1 * sign
    # Not the same on both sides: where capsules touch on a line, rounding decides the point.
    qpos[0, 7:] += np.random.default_rng(0).uniform(-0.2, 0.2, 29)
    qpos = qpos.astype(np.float32).astype(float)
    compiled = mjcf.compile_model(model, contacts=True)
    data = mujoco.MjData(compiled)
    data.qpos, data.ctrl = qpos[0], qpos[0, 7:]
    simulator.reset(np.arange(2), qpos, np.zeros((2, 35)))
    assert not simulator.self_contact_force.any(), "nothing has been solved yet"
    for _ in range(4):
        simulator.step(qpos[:, 7:])
        mujoco.mj_step(compiled, data)
        wanted = np.linalg.norm(data.sensor("contact:self").data)
        assert wanted > 10, "premise: they touch"
        # Of depths of millimetres, from places in float32.
        np.testing.assert_allclose(simulator.self_contact_force, [wanted, 0], rtol=1e-3)
        net = net_self_contacts(compiled, data)
        assert (np.linalg.norm(net, axis=1) > 10).sum() >= 2, "premise: by links that are counted"
        told = simulator.net_self_contact_force
        # One engine tells what acts on a link, another what the link does.
        sign = np.sign((told[0] * net).sum())
        np.testing.assert_allclose(sign * told[0], net, rtol=1e-3, atol=1e-3 * wanted)
        assert not told[1].any()
    saved = simulator.get_state()
    names = ("self_contact_force", "net_self_contact_force")
    kept = {name: np.array(getattr(simulator, name)) for name in names}
    simulator.reset(np.arange(1), qpos[1:], np.zeros((1, 35)))
    for name in names:
        assert not getattr(simulator, name).any(), "nothing has been solved since the reset"
    simulator.set_state(saved)
    for name in names:
        np.testing.assert_array_equal(getattr(simulator, name), kept[name])
    simulator.close()


def net_self_contacts(model, data):
    """The sums of the forces of contacts between links, on each of `contact_bodies`. `[C, 3]`."""
    net, wrench = np.zeros((model.nbody, 3)), np.zeros(6)
    for i, contact in enumerate(data.contact):
        first, second = model.geom_bodyid[contact.geom]
        if first and second:  # none is the ground
            mujoco.mj_contactForce(model, data, i, wrench)
            force = contact.frame.reshape(3, 3).T @ wrench[:3]
            net[first] -= force
            net[second] += force
    return net[[model.body(name).id for name in (*mjcf.CONTACT_BODIES, *g1.FOOT_BODIES)]]


def test_c08_a_robot_without_self_collision_has_no_forces_between_its_links(sim):
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.003
    sim.reset(EVERYONE, qpos, np.zeros((N, 35)))
    sim.step(qpos[:, 7:])
    assert sim.contact_force.any(), "premise: it stands"
    assert sim.net_self_contact_force.shape == sim.contact_force.shape
    assert not sim.net_self_contact_force.any() and not sim.self_contact_force.any()


# --- C9, C10: disturbance -------------------------------------------------------------------------


def test_c09_a_push_adds_to_the_roots_velocity(sim, bounds):
    qpos, qvel = random_states(N, 5)
    sim.reset(EVERYONE, qpos, qvel)
    before = snapshot(sim)
    ids, rest = np.array([0, 3]), np.array([1, 2])
    linear, angular = np.random.default_rng(0).normal(size=(2, 2, 3))
    sim.push(ids, linear, angular)
    after = snapshot(sim)
    for k, env in enumerate(ids):
        change = after["body_lin_vel"][env, 0] - before["body_lin_vel"][env, 0]
        np.testing.assert_allclose(change, linear[k], atol=1e-5)
        change = after["body_ang_vel"][env, 0] - before["body_ang_vel"][env, 0]
        np.testing.assert_allclose(change, angular[k], atol=1e-5)
        pushed = qvel[env].copy()
        pushed[:3] += linear[k]
        axes = Plain(qpos[env], qvel[env]).links()["body_axes"][0]
        pushed[3:6] += axes @ angular[k]  # MuJoCo's is in the root's own axes
        assert_links(sim, env, Plain(qpos[env], pushed).links(), bounds)
    for name, values in after.items():
        np.testing.assert_array_equal(values[rest], before[name][rest], err_msg=name)


def momenta(sim, about):
    """Momentum, and angular momentum about points `about [N, 3]`, of each robot. `[N, 2, 3]`."""
    found = []
    for qpos, qvel, point in zip(*full_state(sim), about, strict=True):
        com, spin, velocity = Plain(qpos.astype(float), qvel.astype(float)).momentum()
        push = WEIGHT / 9.81 * velocity
        found.append([push, spin + np.cross(com - point, push)])
    return np.array(found)


def test_c09_a_force_on_a_link_gives_its_impulse(backend, bounds):
    """Limp robots in the air, a link each, against the same robots that nobody pulls at.

    In 0.02 s a force adds force times time to the momentum, whatever the joints do, and nothing to
    the angular momentum about the point that it acts at: its lever there is what that point moves
    meanwhile, millimetres, and float32's digits. The links' centres of mass are further off. (With
    time steps of 5 ms the wrist's impulse is 1.7 % off in MuJoCo: links turn meanwhile.)
    """
    simulator = build(
        backend, N, stiffness=(0.0,) * 29, damping=(0.0,) * 29, decimation=20,
        model=mjcf.ModelConfig(physics_dt=0.001),
    )  # fmt: skip
    (qpos, _), qvel = random_states(N, 6, height=5.0), np.zeros((N, 35))
    qpos[:, 7:] = STAND[7:]
    names = ("left_knee_link", g1.ANCHOR_BODY, "right_wrist_yaw_link", g1.ROOT_BODY)
    links = np.array([g1.BODY_NAMES.index(name) for name in names])
    assert all(np.linalg.norm(g1.BODIES[i].inertial_pos) > 0.02 for i in links[:3]), "premise"
    points = link_poses(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:]).pos[EVERYONE, links]
    force = np.array([[20.0, -10, 6], [-200, 20, 150], [1, 3, -2], [50, 60, 70]])
    ends = []
    for pulls in (False, True):
        simulator.reset(EVERYONE, qpos, qvel)
        for part in (0.25, 0.75) if pulls else ():  # two calls add up
            simulator.apply_force(EVERYONE[:3], links[:3], part * force[:3])
        simulator.step(qpos[:, 7:])
        ends.append(momenta(simulator, points))
    gained, spun = np.moveaxis(ends[1] - ends[0], 1, 0)
    impulse = 0.02 * force
    size = np.linalg.norm(impulse, axis=1)
    off = np.linalg.norm(gained - impulse, axis=1)[:3] / size[:3]
    lever = np.linalg.norm(spun, axis=1)[:3] / size[:3]
    print(f"impulses are off by {off} of themselves, and act {lever} m off")
    assert (off < 0.01).all() and (lever < 0.005).all()
    unmoved = max(abs(gained[3]).max(), abs(spun[3]).max())
    assert unmoved <= (0.0 if bounds.deterministic else 1e-3), "nobody pulls at this one"
    simulator.close()


def test_c09_a_force_lasts_a_step_and_no_reset(sim, bounds):
    qpos, qvel = random_states(N, 6, height=5.0)
    knees, force = np.full(N, g1.BODY_NAMES.index("left_knee_link")), np.full((N, 3), 80.0)
    ends = []
    for pulls in (False, True):
        sim.reset(EVERYONE, qpos, qvel)
        if pulls:
            seen = snapshot(sim)
            sim.apply_force(EVERYONE, knees, force)
            for name, values in snapshot(sim).items():
                np.testing.assert_array_equal(values, seen[name], err_msg=name)
            sim.reset(EVERYONE, qpos, qvel)  # what was applied is gone
        sim.step(qpos[:, 7:])
        ends.append(np.array(sim.root_lin_vel))
    tolerance = 0.0 if bounds.deterministic else 1e-3
    np.testing.assert_allclose(ends[0], ends[1], atol=tolerance, rtol=0)
    sim.reset(EVERYONE, qpos, qvel)
    sim.apply_force(EVERYONE, knees, force)
    sim.step(qpos[:, 7:])
    assert abs(sim.root_lin_vel - ends[0]).min(1).max() > 0.005, "premise: it does something"
    state = full_state(sim)
    after = []
    for _ in range(2):  # the step after it, and from the same state
        sim.step(qpos[:, 7:])
        after.append(momenta(sim, np.zeros((N, 3)))[:, 0, :2])
        sim.reset(EVERYONE, *state)
    np.testing.assert_allclose(after[0], after[1], atol=0.02, rtol=0)


def test_c09_a_force_that_waits_is_saved(backend, bounds):
    simulator = build(backend)
    qpos, qvel = random_states(N, 6, height=5.0)
    simulator.reset(EVERYONE, qpos, qvel)
    knees = np.full(N, g1.BODY_NAMES.index("left_knee_link"))
    simulator.apply_force(EVERYONE, knees, np.full((N, 3), 80.0))
    saved = simulator.get_state()
    ends = []
    for _ in range(2):
        simulator.step(qpos[:, 7:])
        ends.append(np.array(simulator.root_lin_vel))
        simulator.set_state(saved)
    tolerance = 0.0 if bounds.deterministic else 1e-3
    np.testing.assert_allclose(ends[0], ends[1], atol=tolerance, rtol=0)
    simulator.close()


def test_c10_randomized_figures_are_held_and_do_not_add_up(sim):
    ids, rest = np.array([1, 2]), np.array([0, 3])
    shift = np.array([[0.02, -0.03, 0.01], [-0.01, 0.02, 0.04]])
    before = sim.read_model()
    torso = g1.BODY_NAMES.index(g1.ANCHOR_BODY)
    for _ in range(2):  # the second is from the nominal figures, too
        sim.randomize(ids, foot_friction=np.array([0.3, 1.1]), torso_com_offset=shift)
        sim.reset(EVERYONE, np.tile(STAND, (N, 1)), np.zeros((N, 35)))
        held = sim.read_model()
        np.testing.assert_allclose(held["foot_friction"][ids], [0.3, 1.1], rtol=1e-6)
        moved = held["body_com"] - before["body_com"]
        np.testing.assert_allclose(moved[ids, torso], shift, atol=1e-7)
        moved[ids, torso] = 0.0
        assert not moved.any()
        for name, values in held.items():
            np.testing.assert_array_equal(values[rest], before[name][rest], err_msg=name)


def test_c10_a_shifted_torso_tips_the_robot(sim, bounds):
    forward = np.array([0.2, -0.2, 0.0, 0.0])
    sim.randomize(EVERYONE, torso_com_offset=np.stack([forward, 0 * forward, 0 * forward], 1))
    sim.reset(EVERYONE, np.tile(STAND, (N, 1)), np.zeros((N, 35)))
    for _ in range(20):
        sim.step(np.tile(STAND[7:], (N, 1)))
    assert sim.root_ang_vel_b[0, 1] > sim.root_ang_vel_b[1, 1] + 0.1
    # Two that were not shifted: the same, and for an engine of other bits nearly so.
    apart = abs(sim.root_ang_vel_b[2] - sim.root_ang_vel_b[3]).max()
    assert apart <= (0.0 if bounds.deterministic else 0.02)


# --- C11, C12: what the task sees -----------------------------------------------------------------


def standardized(clip, frames, task):
    """The observation of a robot that is on the reference at `frames [M]`, from the clip alone."""
    shown = np.minimum(frames + task.config.lead, clip.num_frames - 1)
    torso, pelvis = (g1.BODY_NAMES.index(name) for name in (g1.ANCHOR_BODY, g1.ROOT_BODY))

    def matrix(quat):
        w, x, y, z = quat.astype(float).T
        return np.moveaxis(np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]), -1, 0)  # fmt: skip

    anchor = matrix(clip.body_quat_w[frames, torso])
    ahead = matrix(clip.body_quat_w[shown, torso])
    root = matrix(clip.body_quat_w[frames, pelvis])
    offset = clip.body_pos_w[shown, torso] - clip.body_pos_w[frames, torso]
    into = lambda frame, vector: np.einsum("mji,mj->mi", frame, vector)  # noqa: E731
    turn = np.einsum("mji,mjk->mik", anchor, ahead)
    return np.concatenate([
        clip.joint_pos[shown], clip.joint_vel[shown], into(anchor, offset),
        turn[:, :, :2].reshape(-1, 6), into(root, clip.body_lin_vel_w[frames, pelvis]),
        into(root, clip.body_ang_vel_w[frames, pelvis]),
        clip.joint_pos[frames] - task.nominal_joint_pos, clip.joint_vel[frames],
        np.zeros((len(frames), 29)),
    ], 1)  # fmt: skip


def test_c11_a_clip_written_frame_by_frame_is_seen_as_the_clip(sim):
    clip = load_motion("walk")
    task = TrackTask([clip], TrackConfig.preset("clip"), N)
    task.attach(sim)
    rng = np.random.default_rng(0)
    for first in range(0, clip.num_frames - 2 - N, 97):
        frames = np.arange(first, first + N)
        task.reset(EVERYONE, rng, clip_id=np.zeros(N, int), frame=frames)
        seen, _ = task.observe(slice(None), None)
        # Velocities of the clip and of the chain differ by the rounding of the clip's float32.
        np.testing.assert_allclose(seen, standardized(clip, frames, task), atol=5e-5)
        assert abs(task.tracking_errors()["mpkpe_m"]).max() < 1e-5


def test_c12_equal_states_give_equal_observations(sim, backend):
    """The robot off its reference: policy's and critic's observation against the golden file.

    It was written by `python -m tests.conformance.dump`, from the backend `mujoco`.
    """
    from tests.conformance.dump import GOLDEN, observations

    golden = np.load(GOLDEN)
    found = observations(sim)
    for name, values in found.items():
        # Sums of ten products of numbers near one, twice.
        np.testing.assert_allclose(values, golden[name], atol=2e-5, err_msg=name)


# --- C13 to C16: runs -----------------------------------------------------------------------------


def test_c13_recorded_targets_lead_to_the_same_place(sim, bounds):
    """0.2 s from the knees-bent stand, a millimetre in the ground, under moving targets."""
    qpos, qvel = np.tile(STAND, (N, 1)), np.zeros((N, 35))
    qpos[:, 2] -= 0.001
    qvel[:, :3] = np.random.default_rng(1).uniform(-0.2, 0.2, (N, 3))
    targets = STAND[7:] + np.random.default_rng(2).uniform(-0.2, 0.2, (10, N, 29))
    sim.reset(EVERYONE, qpos, qvel)
    plain = [Plain(*state) for state in zip(qpos, qvel, strict=True)]
    for target in targets:
        sim.step(target)
        for env in EVERYONE:
            plain[env].step(target[env])
    truth = np.array([robot.data.qpos for robot in plain])
    off = abs(sim.joint_pos - truth[:, 7:]).max()
    print(f"joints off by {off:.2e} rad, roots by {abs(sim.root_pos - truth[:, :3]).max():.2e} m")
    assert np.isfinite(off) and off < bounds.rollout
    assert abs(truth[:, 7:] - STAND[7:]).max() > 0.05, "premise: they moved"


def test_c14_the_step_that_ends_an_episode_tells_of_its_end(backend):
    """`same_step`: reward, flags and final observation of the old episode, observation of the new.

    The same seeds without autoreset are the truth up to there.
    """
    config: dict[str, Any] = dict(episode_s=0.06, config=TrackConfig.preset("clip"))
    action = np.full((N, 29), 0.1, np.float32)
    found, tasks = {}, {}
    for mode in ("same_step", "disabled"):
        env = TrackVectorEnv(N, "walk", backend=backend, autoreset_mode=mode, threads=1, **config)
        env.reset(seed=1, options={"frame": np.arange(N) * 20})
        found[mode], tasks[mode] = [env.step(action) for _ in range(3)][-1], env.task
        env.close()
    obs, reward, terminated, truncated, info = found["same_step"]
    old, old_reward, old_terminated, old_truncated, old_info = found["disabled"]
    np.testing.assert_array_equal(reward, old_reward)
    np.testing.assert_array_equal(terminated, old_terminated)
    np.testing.assert_array_equal(truncated, old_truncated)
    assert truncated.all() and set(info["termination"]) == {"time_limit"}
    np.testing.assert_array_equal(info["final_obs"], old)
    np.testing.assert_array_equal(info["final_info"]["critic_obs"], old_info["critic_obs"])
    assert set(info) - set(old_info) == {"final_obs", "_final_obs", "final_info", "_final_info"}
    task = tasks["same_step"]
    assert (task.episode_step == 0).all() and (task.frame == 0).all(), "a new episode has begun"
    # What is seen is the fresh state: on the reference, no action yet.
    np.testing.assert_allclose(obs[:, 131:], 0.0)
    np.testing.assert_allclose(obs, standardized(task.clips[0], task.frame, task), atol=5e-5)


def test_c15_the_same_run_twice_and_alone_is_the_same(backend):
    qpos, qvel = random_states(N, 3, height=0.8)
    targets = g1.DEFAULT_JOINT_POS + np.random.default_rng(2).uniform(-0.4, 0.4, (8, N, 29))
    runs = []
    for count in (N, N, 1):
        simulator = build(backend, count)
        simulator.reset(np.arange(count), qpos[:count], qvel[:count])
        for target in targets:
            simulator.step(target[:count])
        runs.append(snapshot(simulator))
        simulator.close()
    first, second, alone = runs
    again = max(abs(first[name] - second[name]).max() for name in STATE)
    off = max(abs(first[name][:1] - alone[name]).max() for name in ("joint_pos", "root_pos"))
    print(f"the same run again is off by {again:.1e}, alone by {off:.1e}")
    assert again == 0.0
    # A batch of one may be summed in another order.
    assert off < 1e-4


def test_c15_world_zero_does_not_feel_the_others(sim):
    qpos, qvel = random_states(N, 3, height=0.8)
    runs = []
    for other in (0, 1):
        qpos[1:], qvel[1:] = (part[1:] for part in random_states(N, 10 + other, height=0.8))
        sim.reset(EVERYONE, qpos, qvel)
        for _ in range(8):
            sim.step(np.tile(STAND[7:], (N, 1)))
        runs.append(snapshot(sim))
    for name in STATE:
        np.testing.assert_array_equal(runs[0][name][0], runs[1][name][0], err_msg=name)


def test_c15_a_robot_that_diverges_says_so_and_heals(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning to a file in the working directory
    qpos, qvel = random_states(N)
    qvel[2, 0] = np.inf
    sim.reset(EVERYONE, qpos, qvel)
    sim.step(qpos[:, 7:])
    assert sim.diverged().tolist() == [False, False, True, False]
    qvel[2, 0] = 0.0
    sim.reset(np.array([2]), qpos[2:3], qvel[2:3])
    sim.step(qpos[:, 7:])
    assert not sim.diverged().any() and np.isfinite(sim.body_pos).all()


def test_c15_an_engine_does_not_heal_a_robot_in_silence(sim, tmp_path, monkeypatch):
    """It blows up within a step. MuJoCo by itself would put it back at the origin, at rest."""
    monkeypatch.chdir(tmp_path)  # as above
    qpos, qvel = random_states(N)
    qpos[2, :2] = 100.0
    qvel[2, 6:] = 1e7  # finite, but not what its square makes of the accelerations
    sim.reset(EVERYONE, qpos, qvel)
    assert not sim.diverged().any(), "premise: it has a state"
    for _ in range(5):
        sim.step(qpos[:, 7:])
        at_origin = np.linalg.norm(sim.root_pos[2, :2]) < 50.0
        assert sim.diverged()[2] or not at_origin
    assert not sim.diverged()[[0, 1, 3]].any(), "the others do not feel it"
    sim.reset(EVERYONE, *random_states(N))
    sim.step(qpos[:, 7:])
    assert not sim.diverged().any() and np.isfinite(sim.body_pos).all()


def test_c16_want_of_room_for_contacts_is_told(sim, backend, monkeypatch):
    """Engines of fixed capacity: eight points of the feet in room for two. Others: never."""
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.003
    sim.reset(EVERYONE, qpos, np.zeros((N, 35)))
    sim.step(qpos[:, 7:])
    assert not sim.overflowed().any()
    if backend in ("mujoco_warp", "isaaclab"):
        engine = importlib.import_module(f"bm_envs.backends.{backend}")
        monkeypatch.setattr(engine, "capacity", lambda *_: (2, 8))
        qpos[0, 2] = 2.0  # this one touches nothing
        small = build(backend)
        small.reset(EVERYONE, qpos, np.zeros((N, 35)))
        small.step(qpos[:, 7:])
        assert small.overflowed()[1:].any()
        small.reset(EVERYONE, qpos + [0, 0, 2, *np.zeros(33)], np.zeros((N, 35)))
        small.step(qpos[:, 7:])
        assert not small.overflowed().any(), "a reset forgets"
        small.close()


def test_c16_a_solver_that_runs_out_of_steps_is_no_want_of_room(backend):
    simulator = build(backend, model=mjcf.ModelConfig(iterations=1, ls_iterations=1))
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.003
    simulator.reset(EVERYONE, qpos, np.zeros((N, 35)))
    for _ in range(5):
        simulator.step(qpos[:, 7:])
    assert not simulator.overflowed().any()
    simulator.close()


def test_views_are_read_only(sim):
    with pytest.raises(ValueError, match="read-only"):
        sim.body_pos[0, 0, 0] = 1.0


def test_after_close_there_is_one_sentence(backend):
    simulator = build(backend, 1)
    saved, one, row = simulator.get_state(), np.arange(1), np.zeros((1, 3))
    simulator.close()
    simulator.close()
    calls = {
        "reset": lambda: simulator.reset(one, STAND[None], np.zeros((1, 35))),
        "lift": lambda: simulator.lift(one, np.ones(1)),
        "step": lambda: simulator.step(STAND[None, 7:]),
        "push": lambda: simulator.push(one, row, row),
        "apply_force": lambda: simulator.apply_force(one, one, row),
        "randomize": lambda: simulator.randomize(
            one, foot_friction=np.ones(1), torso_com_offset=row
        ),
        "get_state": simulator.get_state,
        "set_state": lambda: simulator.set_state(saved),
    }
    for call in calls.values():
        with pytest.raises(ConfigError, match=f"^{CLOSED}$"):
            call()
