"""Late joint targets and a payload: against MuJoCo stepped by hand, and the task's own delay."""

import copy
import pickle
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from bm_envs.backends.base import CLOSED, SimulatorConfig, make_simulator
from bm_envs.backends.host import make_host_simulator
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.robots import g1, mjcf, usd
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.track.config import RandomizationConfig, TrackConfig

TORSO = g1.BODY_NAMES.index("torso_link")


def late(latency_s, num_envs=2, **model):
    return SimulatorConfig(
        num_envs=num_envs, model=ModelConfig(latency_s=latency_s, **model), threads=1
    )


def start(num_envs=2):
    qpos = np.zeros((num_envs, 36))
    qpos[:, 2], qpos[:, 3], qpos[:, 7:] = 0.8, 1.0, g1.DEFAULT_JOINT_POS
    return qpos, np.zeros((num_envs, 35))


def targets(steps=12):
    rng = np.random.default_rng(4)
    return (g1.DEFAULT_JOINT_POS + rng.uniform(-0.4, 0.4, (steps, 2, 29))).astype(np.float32)


@pytest.mark.parametrize("physics_steps", [1, 2, 4, 5])
def test_a_force_acts_through_its_control_step_and_is_kept_with_the_state(physics_steps):
    """As without a latency: targets that do not change are the same however late they come."""
    qpos, qvel = start()
    still = np.tile(g1.DEFAULT_JOINT_POS, (2, 1)).astype(np.float32)
    after = []
    for steps in (0, physics_steps):
        sim = make_host_simulator("mujoco", late(0.005 * steps))
        sim.reset(np.arange(2), qpos, qvel)
        sim.step(still)
        sim.apply_force(np.array([1]), np.array([TORSO]), np.array([[90.0, -60.0, 30.0]]))
        waiting = copy.deepcopy(sim)
        for _ in range(2):  # in the second it is gone
            sim.step(still)
            waiting.step(still)
        np.testing.assert_array_equal(waiting.root_lin_vel, sim.root_lin_vel)
        after.append((sim.root_pos.copy(), sim.root_lin_vel.copy(), sim.joint_pos.copy()))
        waiting.close()
        sim.close()
    for plain, late_one in zip(*after, strict=True):
        moved = plain[1] - plain[0]  # the force acts on one robot alone
        assert abs(moved).max() > 1e-3
        # In parts of a step the force's moment about the centre of mass is taken anew while the
        # torso turns, a thousandth of what it does; a part of the step alone would be a quarter.
        np.testing.assert_allclose(late_one[1] - late_one[0], moved, atol=0.01 * abs(moved).max())


@pytest.mark.parametrize("physics_steps", [0, 1, 2, 3, 4, 6, 8, 9])
def test_a_target_arrives_as_many_physics_steps_late(physics_steps):
    """MuJoCo alone, robot by robot, with the targets in a list of physics steps."""
    sim = make_host_simulator("mujoco", late(0.005 * physics_steps))
    qpos, qvel = start()
    sim.reset(np.arange(2), qpos, qvel)
    asked = targets()
    for one in asked:
        sim.step(one)
    model = mjcf.compile_model(ModelConfig())
    for robot in range(2):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[robot], qvel[robot]
        held = [qpos[robot, 7:]] * physics_steps + [t[robot] for t in asked for _ in range(4)]
        for target in held[: 4 * len(asked)]:
            data.ctrl[:] = target
            mujoco.mj_step(model, data)
        # The same engine and the same order of steps: float32 views of the same float64 numbers.
        assert sim.joint_pos[robot] == pytest.approx(data.qpos[7:], abs=1e-6)
        assert sim.root_pos[robot] == pytest.approx(data.qpos[:3], abs=1e-6)
    assert sim.config.control_dt == pytest.approx(0.02)
    sim.close()


def test_20_ms_are_the_tasks_delay_of_one_step():
    """The task's own delay is drawn, 0 or 1 step; here all robots are given 1."""
    actions = np.random.default_rng(1).uniform(-1, 1, (15, 3, 29)).astype(np.float32)

    def play(config, *, force):
        env = TrackVectorEnv(3, "walk", config=config, autoreset_mode="disabled", threads=1)
        env.reset(seed=2)
        if force:
            env.task.action_delay[:] = 1
        for action in actions:
            env.step(action)
        state = np.concatenate([env.simulator.root_pos, env.simulator.joint_pos], 1)
        env.close()
        return state

    task = replace(TrackConfig.preset("clip"), failure="none", randomization=True)
    still = RandomizationConfig(foot_friction=(0.6, 0.6), joint_offset=0.0, torso_com=(0, 0, 0))
    delayed = replace(task, randomize=replace(still, action_delay=1))
    by_model = replace(task, randomize=still, model=ModelConfig(latency_s=0.02))
    expected = play(delayed, force=True)
    assert np.array_equal(play(by_model, force=False), expected)
    on_time = play(replace(task, randomize=still), force=False)
    assert np.abs(on_time - expected).max() > 1e-3  # a delay matters here


@pytest.mark.parametrize("again", [copy.deepcopy, lambda sim: pickle.loads(pickle.dumps(sim))])
def test_a_copy_goes_on_bit_for_bit(again):
    sim = make_host_simulator("mujoco", late(0.03))
    sim.reset(np.arange(2), *start())
    asked = targets()
    for one in asked[:6]:
        sim.step(one)
    other = again(sim)
    for one in asked[6:]:
        sim.step(one)
        other.step(one)
    assert np.array_equal(sim.joint_pos, other.joint_pos)
    assert np.array_equal(sim.get_state()["late.sent"], other.get_state()["late.sent"])
    sim.close()
    with pytest.raises(ConfigError, match=CLOSED):
        again(sim).step(asked[0])


def test_a_reset_forgets_what_was_on_its_way():
    sim = make_host_simulator("mujoco", late(0.02))
    qpos, qvel = start()
    sim.reset(np.arange(2), qpos, qvel)
    sim.step(targets()[0])
    sim.reset(np.array([1]), qpos[1:], qvel[1:])
    sim.step(targets()[1])
    fresh = make_host_simulator("mujoco", late(0.02))
    fresh.reset(np.arange(2), qpos, qvel)
    fresh.step(targets()[1])
    assert np.array_equal(sim.joint_pos[1], fresh.joint_pos[1])
    assert not np.array_equal(sim.joint_pos[0], fresh.joint_pos[0])


def test_an_engine_alone_has_no_latency():
    with pytest.raises(ConfigError, match=r"^model\.latency_s is 0\.01, expected 0 where an engin"):
        make_simulator("mujoco", late(0.01))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latency_s": 0.007}, "latency_s is 0.007, expected a whole number of physics steps of"),
        ({"latency_s": -0.005}, "latency_s is -0.005, expected 0 s or more."),
        ({"latency_s": float("nan")}, "latency_s is nan, expected 0 s or more."),
        ({"payload_kg": -1.0}, "payload_kg is -1.0, expected 0 kg or more."),
        ({"payload_kg": float("inf")}, "payload_kg is inf, expected 0 kg or more."),
    ],
)
def test_bad_values_are_one_sentence(changes, words):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**changes)
    assert str(caught.value).startswith(words)


def test_a_payload_is_mass_of_the_torso_alone():
    plain, loaded = (
        make_host_simulator("mujoco", late(0.0, payload_kg=mass)).read_model() for mass in (0, 3.5)
    )
    more = loaded["body_mass"] - plain["body_mass"]
    assert more[:, TORSO] == pytest.approx(3.5)
    assert not np.delete(more, TORSO, axis=1).any()
    for name in ("body_com", "body_inertia"):
        assert np.array_equal(loaded[name], plain[name])


def test_the_other_engines_scene_has_the_payload():
    plain, loaded = usd.build_usd(), usd.build_usd(ModelConfig(payload_kg=3.5))
    lines = [(a, b) for a, b in zip(plain.splitlines(), loaded.splitlines(), strict=True) if a != b]
    ((before, after),) = lines
    mass = float(after.rpartition("=")[2]) - float(before.rpartition("=")[2])
    assert "physics:mass" in after and mass == pytest.approx(3.5)
