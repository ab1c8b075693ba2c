"""Motion quality, against signals whose figures are known and against the engine's own forces.

Signals are kept in float32. A place of a few metres is then known to 2e-7 m, and a speed over a
step of 0.02 s to 2e-5 m/s: hence the absolute bounds on slip. Sums of float32 are right to 1e-6 or
so: hence the relative ones.
"""

import dataclasses

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bm_envs import evaluation, quality
from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.motion.library import load_motion
from bm_envs.policy import load_policy
from bm_envs.quality import BODY_WEIGHT, Recorder, Signals
from bm_envs.robots import g1, kinematics
from bm_envs.rotations import quat_from_euler
from bm_envs.tasks.track.config import TrackConfig

DT = 0.02
SOLE = np.array([[-0.05, 0.03, 0.0], [-0.05, -0.03, 0.0], [0.12, 0.03, 0.0], [0.12, -0.03, 0.0]])


def still(steps, robots=1):
    """Robots that stand still, half their weight on each foot."""
    points = np.zeros((steps, robots, 2, 4, 3)) + SOLE
    points[:, :, 0, :, 1] += 0.1
    points[:, :, 1, :, 1] -= 0.1
    force = np.zeros((steps, robots, 2, 3))
    force[..., 2] = BODY_WEIGHT / 2
    joints = np.zeros((3, steps, robots, 29))
    return Signals(points, force, *joints)


def at(signals, rows):
    """Some rows of the first axis."""
    values = (getattr(signals, field.name) for field in dataclasses.fields(signals))
    return Signals(*(value[rows] for value in values))


def figures(signals, counted=None):
    steps, robots = signals.action.shape[:2]
    counted = np.ones((steps, robots), bool) if counted is None else counted
    recorder = Recorder(robots, DT)
    for k in range(steps):
        recorder.add(at(signals, k), counted[k])
    return recorder.figures()


def one(signals):
    return {name: value.item() for name, value in figures(signals).items()}


def seconds(steps):
    return DT * np.arange(steps)[:, None, None]


# --- signals whose figures are known ---


def test_who_stands_still():
    found = one(still(120))
    assert tuple(found) == quality.NAMES
    # Nothing moves, so there is no power of which chatter could be a share.
    assert np.isnan(found.pop("chatter_share"))
    assert found.pop("impact_p95_bw") == pytest.approx(0.5)
    assert set(found.values()) == {0.0}


def test_a_foot_slides_at_0_3_m_s():
    """In a slanting direction; what it sinks at the same time is no slip."""
    signals = still(130)
    signals.sole_points[..., :2] += seconds(130)[..., None, None] * [0.18, -0.24]
    signals.sole_points[..., 2] -= 0.05 * seconds(130)[..., None]
    assert one(signals)["slip_p95_m_s"] == pytest.approx(0.3, abs=1e-4)


def test_a_foot_in_the_air_does_not_slip():
    signals = still(60)
    signals.sole_points[:, :, 0, :, 0] += 2.0 * seconds(60)
    signals.foot_force[:, :, 0] = 0.0
    assert one(signals)["slip_p95_m_s"] == 0.0
    # Nor in the steps in which it lands and leaves: it stands in one of their frames alone.
    signals.foot_force[30, :, 0, 2] = BODY_WEIGHT
    assert one(signals)["slip_p95_m_s"] == 0.0
    signals.foot_force[:, :, 0, 2] = 1.01 * quality.STANDS * BODY_WEIGHT
    assert one(signals)["slip_p95_m_s"] == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_foot_that_tips_over_an_edge_does_not_slip(side):
    """The ankle moves at 5 to 12 cm/s; the edge's spheres of 5 mm roll, 5 mm/s at 1 rad/s."""
    rate, steps = side * 1.0, 20
    radius = g1.FOOT_SPHERES[0].radius
    spheres = np.array([geom.start for geom in g1.FOOT_SPHERES[:4]])
    edge = spheres[:, 0].max() if side > 0 else spheres[:, 0].min()
    edge = np.array([edge, 0.0, spheres[0, 2]])
    pitch = rate * DT * np.arange(steps)
    cos, sin, zero = np.cos(pitch), np.sin(pitch), np.zeros(steps)
    turn = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], 1)
    turn = turn.reshape(-1, 3, 3)
    ankle = np.array([0.0, 0.0, radius]) - turn @ edge  # the edge's spheres stay where they are
    ankle[:, 0] += radius * pitch  # but roll
    assert np.abs(np.diff(ankle, axis=0) / DT).max() > 0.05, "premise: the ankle moves"
    # From the robot's own sole points.
    body_pos, body_quat = np.zeros((steps, 30, 3)), np.zeros((steps, 30, 4))
    body_quat[:, list(kinematics.FOOT_INDICES)] = quat_from_euler(zero, pitch, zero)[:, None]
    body_pos[:, list(kinematics.FOOT_INDICES)] = ankle[:, None]
    points = kinematics.sole_points(body_pos, body_quat)
    signals = dataclasses.replace(still(steps), sole_points=points[:, None])
    # 5 mm/s, and what float32 makes of it.
    assert one(signals)["slip_p95_m_s"] == pytest.approx(radius * abs(rate), abs=5e-5)


def test_impacts_are_of_feet_that_stand():
    """Loads 0.1 to 2.0 body weights in one frame each, and no load in most frames."""
    signals = still(400)
    signals.foot_force[...] = 0.0
    loads = np.random.default_rng(0).permutation(np.arange(1, 201) / 100)
    signals.foot_force[::2, 0, 1, 0] = 0.6 * loads * BODY_WEIGHT
    signals.foot_force[::2, 0, 1, 2] = 0.8 * loads * BODY_WEIGHT
    # The two least, 0.01 and 0.02, are no stance. The 95th percentile of the other 198 values is
    # 95 % of the way from the first, 0.03, to the last: for that exact bound the threshold is 0.03.
    stands = loads[loads > quality.STANDS + 1e-6]
    expected = stands.min() + 0.95 * (stands.max() - stands.min())
    assert one(signals)["impact_p95_bw"] == pytest.approx(expected, rel=0.005)


def test_feet_take_turns():
    """Every tenth step one foot lands and the other leaves: two changes each 0.2 s."""
    steps = 201  # 4 s
    signals = still(steps)
    left = (np.arange(steps) // 10) % 2 == 0
    signals.foot_force[:, 0, 0, 2] = np.where(left, BODY_WEIGHT, 0)
    signals.foot_force[:, 0, 1, 2] = np.where(left, 0, BODY_WEIGHT)
    # 20 swaps of both feet in 4 s, whether or not a block of 50 steps ends at one of them.
    assert one(signals)["contact_toggles_s"] == pytest.approx(40 / 4)
    assert one(signals)["impact_p95_bw"] == pytest.approx(1.0)


def test_constant_accelerations_and_steady_actions():
    signals = still(173)
    signals.joint_vel[...] = 3.0 * seconds(173) * np.where(np.arange(29) % 2, 1, -1)
    signals.action[...] = -0.1 * np.arange(173)[:, None, None]
    found = one(signals)
    # Velocities go to 10 rad/s, which float32 knows to 5e-7: 5e-5 rad/s^2 at a step of 0.02 s.
    assert found["joint_acc_rad_s2"] == pytest.approx(3.0, rel=1e-4)
    assert found["action_rate"] == pytest.approx(29 * 0.01, rel=1e-4)  # actions go to 17
    signals.joint_vel[..., 1:] = 0.0  # one joint of 29
    assert one(signals)["joint_acc_rad_s2"] == pytest.approx(3.0 / np.sqrt(29), rel=1e-4)


def test_torques_at_the_limit():
    signals = still(100)
    signals.torque[...] = 0.99 * g1.EFFORT_LIMIT
    assert one(signals)["torque_over_share"] == 0.0
    signals.torque[:50, 0, 3] = -1.2 * g1.EFFORT_LIMIT[3]
    signals.torque[:25, 0, 7] = 1.01 * g1.EFFORT_LIMIT[7]
    assert one(signals)["torque_over_share"] == pytest.approx(75 / (29 * 100))


def sines(steps, **amplitudes):
    """Torques of some frequencies, Hz, whose amplitudes are shares of the joints' limits."""
    time = seconds(steps)
    phase = np.linspace(0, 3, 29)
    return g1.EFFORT_LIMIT * sum(
        amplitude * np.sin(2 * np.pi * float(name[1:]) * time + phase)
        for name, amplitude in amplitudes.items()
    )


@pytest.mark.parametrize(
    ("amplitudes", "share"),
    [
        ({"f2": 0.3}, 0.0),
        ({"f20": 0.3}, 1.0),
        ({"f2": 0.3, "f20": 0.1}, 0.1),  # 0.1^2 / (0.3^2 + 0.1^2)
        ({"f9": 0.2}, 0.0),
        ({"f12": 0.2}, 1.0),
        ({"f5": 0.4, "f15": 0.2, "f22": 0.2}, 8 / 24),
    ],
)
def test_chatter_is_what_is_above_10_hz(amplitudes, share):
    """Exact but for float32, since these tones have a whole number of waves in a second."""
    signals = dataclasses.replace(still(100), torque=sines(100, **amplitudes))
    assert one(signals)["chatter_share"] == pytest.approx(share, abs=1e-6)
    # What a joint holds is no chatter, nor does a joint's strength count.
    signals.torque[...] += 0.5 * g1.EFFORT_LIMIT
    assert one(signals)["chatter_share"] == pytest.approx(share, abs=1e-6)
    alone = still(100)
    alone.torque[..., 20] = signals.torque[..., 20]
    assert one(alone)["chatter_share"] == pytest.approx(share, abs=1e-6)


def test_between_two_lines_a_tone_is_still_on_its_side():
    """3.5 and 17.5 Hz leak: a Hann window leaves under 1e-4 of a tone's power 6 lines away."""
    for name, share in (("f3.5", 0.0), ("f17.5", 1.0)):
        signals = dataclasses.replace(still(200), torque=sines(200, **{name: 0.3}))
        assert one(signals)["chatter_share"] == pytest.approx(share, abs=1e-4)


def test_chatter_of_noise():
    """White noise has the same power in each of 50 lines, of which 29 are above 10 Hz.

    The mean under the window, `sum(w x) / sum(w)`, takes some of the lowest. Of a Hann window
    `sum(w^2) = 3 N / 8` and `sum(w^3) = 5 N / 16` with `sum(w) = N / 2`; then the power of all
    lines is `3 N / 8 - 2 (5 / 8) + (3 / 4)^2` in place of `3 N / 8`. The share of 20 s of 29
    joints, some 14 000 independent lines, is off by 0.005 (one sigma).
    """
    torque = np.random.default_rng(0).normal(size=(1000, 1, 29))
    found = one(dataclasses.replace(still(1000), torque=torque * g1.EFFORT_LIMIT))
    assert found["chatter_share"] == pytest.approx(29 / 50 * 18.75 / 18.0625, abs=0.02)


# --- what counts ---


def noise(seed, steps, robots):
    """Robots that do anything."""
    rng = np.random.default_rng(seed)
    soles = np.cumsum(0.01 * rng.normal(size=(steps, robots, 2, 1, 3)), 0)
    soles = soles + SOLE + 0.003 * rng.normal(size=(steps, robots, 2, 4, 3))
    force = BODY_WEIGHT * rng.normal(size=(steps, robots, 2, 3))
    force *= rng.random((steps, robots, 2, 1)) < 0.7
    joints = rng.normal(size=(3, steps, robots, 29))
    return Signals(soles, force, joints[0], joints[1], joints[2] * g1.EFFORT_LIMIT)


def plainly(signals):
    """The figures from a robot's whole signals, written with loops."""
    steps = len(signals.action)
    stands = np.linalg.norm(signals.foot_force[:, 0], axis=-1) > 0.03 * BODY_WEIGHT
    load = np.linalg.norm(signals.foot_force[:, 0], axis=-1)[stands] / BODY_WEIGHT
    slip, changes, rates, accelerations = [], 0, [], []
    for k in range(1, steps):
        for foot in range(2):
            changes += stands[k, foot] != stands[k - 1, foot]
            if stands[k, foot] and stands[k - 1, foot]:
                before, after = signals.sole_points[k - 1 : k + 1, 0, foot]
                point = np.argmin(before[:, 2] + after[:, 2])
                slip.append(np.linalg.norm((after - before)[point, :2]) / DT)
        rates.append(np.sum((signals.action[k, 0] - signals.action[k - 1, 0]) ** 2))
        change = (signals.joint_vel[k, 0] - signals.joint_vel[k - 1, 0]) / DT
        accelerations.append(np.sqrt(np.mean(change**2)))
    return {
        "slip_p95_m_s": np.percentile(slip, 95), "impact_p95_bw": np.percentile(load, 95),
        "contact_toggles_s": changes / (DT * (steps - 1)), "action_rate": np.mean(rates),
        "joint_acc_rad_s2": np.mean(accelerations),
        "torque_over_share": np.mean(np.abs(signals.torque) >= g1.EFFORT_LIMIT),
    }  # fmt: skip


@pytest.mark.parametrize("steps", [3, 49, 50, 51, 99, 100, 101, 137])
def test_blocks_of_steps_do_not_show(steps):
    signals = noise(steps, steps, 1)
    found = one(signals)
    assert np.isnan(found.pop("chatter_share")) == (steps < 50)
    assert found == pytest.approx(plainly(signals), rel=1e-4)


def test_frames_after_a_failure_do_not_count():
    """Three robots: one goes on, one has 70 frames, one none; what they do then is not finite."""
    signals = noise(1, 130, 3)
    counted = np.ones((130, 3), bool)
    counted[70:, 1] = counted[:, 2] = False
    for field in dataclasses.fields(signals):
        getattr(signals, field.name)[~counted] = np.nan
    signals.joint_vel[100, 1] = 1e30  # whose square is beyond float32
    found = figures(signals, counted)
    for robot, frames in ((0, 130), (1, 70)):
        alone = at(signals, slice(frames))
        alone = Signals(*(getattr(alone, f.name)[:, [robot]] for f in dataclasses.fields(alone)))
        for name, value in one(alone).items():
            assert np.isfinite(value)
            assert found[name][robot] == pytest.approx(value, rel=1e-6), name
    assert all(np.isnan(value[2]) for value in found.values())


def test_one_frame_has_forces_and_torques_alone():
    found = one(at(still(2), slice(1)))
    assert found.pop("impact_p95_bw") == pytest.approx(0.5) and found.pop("torque_over_share") == 0
    assert np.isnan(list(found.values())).all()
    assert all(np.isnan(value).all() for value in Recorder(2, DT).figures().values())


# --- what does not change a figure ---

AGAIN = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 130))


def same(first, second, *, but=(), slip=1e-6):
    for name in set(quality.NAMES) - set(but):
        bound = slip if name == "slip_p95_m_s" else 1e-9
        # Sums in another order; 1e-5 is ten times what float32 does to a sum of fifty.
        np.testing.assert_allclose(second[name], first[name], rtol=1e-5, atol=bound, err_msg=name)


@given(AGAIN)
@settings(deadline=None, max_examples=40)
def test_backward_in_time_it_is_the_same(drawn):
    """Seconds are cut off from the other end, so that their spectra are others."""
    signals = noise(*drawn, 2)
    same(figures(signals), figures(at(signals, slice(None, None, -1))), but=["chatter_share"])


@given(AGAIN)
@settings(deadline=None, max_examples=40)
def test_left_for_right_it_is_the_same(drawn):
    signals = noise(*drawn, 2)
    index, sign = g1.mirror_map()
    across = np.array([1.0, -1.0, 1.0])
    mirrored = Signals(
        signals.sole_points[:, :, ::-1] * across, signals.foot_force[:, :, ::-1] * across,
        *(sign * values[..., index] for values in (
            signals.action, signals.joint_vel, signals.torque
        )),
    )  # fmt: skip
    same(figures(signals), figures(mirrored))


@given(AGAIN, st.floats(-8, 8), st.floats(-8, 8), st.floats(-np.pi, np.pi))
@settings(deadline=None, max_examples=40)
def test_somewhere_else_it_is_the_same(drawn, x, y, yaw):
    """Up to 11 m away a place in float32 is off by 5e-7 m, a speed by 1e-4 m/s."""
    signals = noise(*drawn, 2)
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    moved = dataclasses.replace(
        signals, sole_points=signals.sole_points @ turn.T + [x, y, 0.0],
        foot_force=signals.foot_force @ turn.T,
    )  # fmt: skip
    same(figures(signals), figures(moved), slip=3e-4)


# --- robots ---


def track_env(motion, preset="clip", **changes):
    config = dataclasses.replace(TrackConfig.preset(preset), **changes)
    return TrackVectorEnv(
        3, load_motion(motion), config=config, autoreset_mode="disabled", critic="none", threads=1
    )


def play(env, policy, steps):
    """Signals of the steps, as the policy plays them."""
    act = evaluation.in_project_order(load_policy(policy))
    obs, _ = env.reset(seed=0)
    for _ in range(steps):
        obs, *_ = env.step(act(obs))
        yield evaluation.signals_of(env)


def test_a_standing_robot_s_feet_carry_its_weight():
    """Over 6 s the centre of mass gains no more than 0.05 m/s, 0.1 % of what gravity gives.

    MuJoCo's sensor tells the force on the ground, which points down.
    """
    env = track_env("stand")
    force = np.stack([now.foot_force.copy() for now in play(env, "builtin", 400)])[100:]
    env.close()
    carried = force.sum(2).mean((0, 1)) / BODY_WEIGHT
    assert carried == pytest.approx([0, 0, -1], abs=0.005)
    assert env.simulator.model.body_mass.sum() * 9.81 == pytest.approx(BODY_WEIGHT, rel=1e-9)


@pytest.mark.parametrize("delay", [0, 2])
def test_torques_and_soles_are_the_engine_s(delay):
    """Against MuJoCo's own drives and geoms at the same states, to what float32 keeps of them."""
    randomize = dataclasses.replace(TrackConfig.preset("robust").randomize, action_delay=delay)
    env = track_env("walk[2:6]", "robust", randomize=randomize)
    sim = env.simulator
    model, data = sim.model, mujoco.MjData(sim.model)
    geoms = [[g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(name).id]
             for name in g1.FOOT_BODIES]  # fmt: skip
    largest = 0.0
    for signals in play(env, "walk", 30):
        targets = np.array(sim._ctrl)  # what was sent to the engine
        np.testing.assert_allclose(env.task.joint_targets(), targets, rtol=0, atol=1e-6)
        for i, (qpos, qvel) in enumerate(zip(*full_state(sim), strict=True)):
            data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, targets[i]
            mujoco.mj_forward(model, data)
            held = np.clip(signals.torque[i], -g1.EFFORT_LIMIT, g1.EFFORT_LIMIT)
            # Angles to 1e-7 rad at 100 N m/rad, speeds to 1e-6 rad/s at 6 N m s/rad.
            np.testing.assert_allclose(held, data.qfrc_actuator[6:], atol=1e-4)
            largest = max(largest, float(np.abs(held).max()))
            for points, numbers in zip(signals.sole_points[i], geoms, strict=True):
                assert len(numbers) == 4
                np.testing.assert_allclose(points, data.geom_xpos[numbers], atol=1e-6)
    assert largest > 20, "premise: the drives work"
    env.close()


def test_the_shipped_walk_is_a_walk():
    """Bounds of what is called walking, not of this policy.

    The ground pushes a walking person by 1.0 to 1.2 body weights (Winter) and a running one by 2 to
    3; twice the changes of contact that the reference has; joints that stay far from their limits.
    """
    env = track_env("walk[0:12]")
    found = evaluation.run_episodes(
        evaluation.in_project_order(load_policy("walk")), env, judged=True
    )
    env.close()
    assert found.completed.all()
    quality_of = {name: values[0] for name, values in found.quality.items()}
    reference = quality.reference_figures(load_motion("walk[0:12]"))
    assert 0.01 < quality_of["slip_p95_m_s"] < 0.3
    assert 0.9 < quality_of["impact_p95_bw"] < 1.5
    toggles = reference["ref_contact_toggles_s"]
    assert 0.8 * toggles < quality_of["contact_toggles_s"] < 2 * toggles
    assert 0.05 < quality_of["action_rate"] < 3
    acceleration = reference["ref_joint_acc_rad_s2"]
    assert acceleration < quality_of["joint_acc_rad_s2"] < 4 * acceleration
    assert quality_of["torque_over_share"] < 0.001
    assert 0 < quality_of["chatter_share"] < 0.05


def test_a_shaking_policy_is_seen():
    """The same policy with noise on its actions at 25 Hz: every figure of shaking is worse."""
    policy = evaluation.in_project_order(load_policy("walk"))
    sign = [1.0]

    def shaking(obs):
        sign[0] = -sign[0]
        return (policy(obs) + np.float32(0.4) * sign[0]).astype(np.float32)

    env = track_env("walk[0:4]")
    calm, shaken = (
        evaluation.run_episodes(act, env, judged=True).quality for act in (policy, shaking)
    )
    env.close()
    for name in ("action_rate", "joint_acc_rad_s2", "chatter_share"):
        assert shaken[name][0] > 3 * calm[name][0], name


def test_an_evaluation_records_the_frames_before_the_failure():
    """A rule of one's own fails robots 1 and 2 after 60 and 0 frames; the episodes go on."""
    env = track_env("walk[0:4]")
    policy = evaluation.in_project_order(load_policy("walk"))
    recorder, step = Recorder(3, DT), [0]

    def failed(env):
        step[0] += 1
        return np.array([False, step[0] > 60, True])

    def on_frame(present):
        if step[0]:
            recorder.add(evaluation.signals_of(env), present & [True, step[0] <= 60, False])

    found = evaluation.run_episodes(
        policy, env, failed=failed, past_failure=True, on_frame=on_frame, judged=True
    )
    env.close()
    assert found.reached.tolist() == [200, 60, 0] and found.compared.tolist() == [200] * 3
    np.testing.assert_equal(found.quality, recorder.figures())
    assert np.isfinite(found.quality["slip_p95_m_s"][:2]).all()
    assert all(np.isnan(values[2]) for values in found.quality.values())


def test_a_reference_s_own_figures():
    """Of a planned walk: its feet stand still, and its contacts are the plan's."""
    clip = load_motion("walk")
    found = quality.reference_figures(clip)
    assert tuple(found) == quality.REFERENCE_NAMES
    # Inverse kinematics holds a planted foot's sole to a tenth of a millimetre a frame.
    assert found["ref_slip_p95_m_s"] < 0.005
    changes = np.abs(np.diff(clip.foot_contact.astype(int), axis=0)).sum()
    assert found["ref_contact_toggles_s"] == pytest.approx(changes / clip.duration_s)
    change = np.gradient(clip.joint_vel.astype(np.float64), DT, axis=0)  # over two steps
    # Smooth motion: differences over one step and over two agree within some per cent.
    expected = np.sqrt((change**2).mean(1)).mean()
    assert found["ref_joint_acc_rad_s2"] == pytest.approx(expected, rel=0.15)
    assert found["ref_joint_acc_rad_s2"] >= expected


def test_a_reference_without_a_stance_has_no_slip():
    clip = load_motion("stand[0:1]")
    flying = dataclasses.replace(clip, foot_contact=np.zeros((clip.num_frames, 2), bool))
    found = quality.reference_figures(flying)
    assert np.isnan(found["ref_slip_p95_m_s"]) and found["ref_contact_toggles_s"] == 0
