"""The tour against its reference sheet: draws, timetable, punches, arms, command, measures."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from bm_envs.backends.base import full_state
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import BMError
from bm_envs.robots import g1, mjcf
from bm_envs.tasks.guided import tour_draws
from bm_envs.tasks.guided.config import TourConfig
from bm_envs.tasks.guided.tour import STANCE, TourTask
from bm_envs.tasks.guided.tour_draws import ARMS, LEFT, Words, both_arms, punches, waypoints

sys.path.insert(0, str(Path(__file__).parents[2] / "golden"))
import tour_facts as facts  # noqa: E402

LIMP = {"actuation": {"stiffness": (0.0,) * 29, "damping": (0.0,) * 29}}


def make(n=1, *, runs=None, **overrides):
    """An environment whose robots do runs 0 and on, and its task."""
    env = GuidedVectorEnv(n, "tour", autoreset_mode="disabled", threads=1, overrides=overrides)
    env.reset(seed=0, options={"run": np.arange(n) if runs is None else np.array(runs)})
    assert isinstance(env.task, TourTask)
    return env, env.task


def held(env, height=0.8):
    """Keep robots where they are: the physics of a step is left out, the rest is not."""
    task, sim = env.task, env.simulator
    everyone = np.arange(env.num_envs)

    def place(x, y, yaw, joints=STANCE, vel=0.0, z=height):
        qpos, qvel = np.zeros((env.num_envs, 36)), np.zeros((env.num_envs, 35))
        qpos[:, 0], qpos[:, 1], qpos[:, 2] = x, y, z
        qpos[:, 3], qpos[:, 6] = np.cos(np.asarray(yaw) / 2), np.sin(np.asarray(yaw) / 2)
        qpos[:, 7:], qvel[:, 6:] = joints, vel
        sim.reset(everyone, qpos, qvel)

    task.robots.step = lambda action: task.robots.action.__setitem__(slice(None), action)
    return place


# --- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), facts.WORDS.items())
def test_words_are_those_of_another_compiler_s_library(name, words):
    stream = Words(*name).words(1000)
    assert [*stream[:4], stream[999]] == list(words)


def test_numbers_are_made_of_words_as_told():
    words = Words(0, 2).words(3)
    other = Words(0, 2)
    assert other.unit(1)[0] == (int(words[0]) >> 8) / 2**24
    assert other.between(-1.0, 3.0, 1)[0] == -1.0 + 4.0 * (int(words[1]) >> 8) / 2**24
    assert other.below(29) == int(words[2]) // (2**32 // 29)
    again = Words.from_state(*other.get_state())
    np.testing.assert_array_equal(again.words(700), other.words(700))


def test_the_last_words_are_rejected(monkeypatch):
    """Without that, some joints would be hit a little more often."""
    words = Words(0, 3)
    span = 2**32 // 29
    played = iter([29 * span, 2**32 - 1, 29 * span - 1])
    monkeypatch.setattr(words, "words", lambda count: np.array([next(played)]))
    assert words.below(29) == 28


def test_waypoints_lie_as_the_sheet_says():
    tours = np.array([waypoints(run, facts.SEGMENTS) for run in range(400)])
    off = tours[..., :2] - [0.3, 0.0]
    assert np.linalg.norm(off, axis=-1).max() <= 0.75 and abs(tours[..., 2]).max() <= np.pi
    # Uniform in a disc: half of them within 0.7071 of the radius; 7200 draws, hence the bounds.
    assert (np.linalg.norm(off, axis=-1) < 0.75 * np.sqrt(0.5)).mean() == pytest.approx(
        0.5, abs=0.02
    )
    step = np.linalg.norm(np.diff(tours[..., :2], axis=1), axis=-1).mean()
    turn = abs(tour_draws.wrapped(np.diff(tours[..., 2], axis=1))).mean()
    assert step == pytest.approx(facts.MEAN_STEP, abs=0.01)
    assert np.degrees(turn) == pytest.approx(facts.MEAN_TURN, abs=2.0)


def test_punches_hit_all_joints_alike():
    drawn = [punches(run, facts.SEGMENTS) for run in range(400)]
    links = np.concatenate([one.link for one in drawn])
    frames = np.concatenate([one.frame for one in drawn])
    names = [g1.BODY_NAMES[link] for link in links]
    arms = np.mean([any(p in n for p in ("shoulder", "elbow", "wrist")) for n in names])
    legs = np.mean([any(p in n for p in ("hip", "knee", "ankle")) for n in names])
    # 7200 draws: three standard deviations are 0.018.
    assert arms == pytest.approx(facts.HIT["arm"] / 29, abs=0.018)
    assert legs == pytest.approx(facts.HIT["leg"] / 29, abs=0.018)
    own = links == frames
    assert own.mean() == pytest.approx(0.5, abs=0.018)
    parents = [g1.BODY_NAMES.index(g1.BODIES[link].parent) for link in links[~own]]
    np.testing.assert_array_equal(frames[~own], parents)
    directions = np.concatenate([one.direction for one in drawn])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-12)
    assert abs(directions.mean(0)).max() < 0.03
    shares = np.concatenate([one.share for one in drawn])
    assert 0.5 <= shares.min() < 0.51 and 0.99 < shares.max() <= 1.0


def test_the_ceiling_of_punches_grows_as_the_sheet_says():
    _, task = make()
    first, later, last = task.ceiling(np.array([0, 6, 12]))
    assert (first / 2, first) == pytest.approx(facts.FIRST_PUNCH, abs=0.5)  # its figures are whole
    assert later == pytest.approx(500.0 * 2 / 3)
    assert (last / 2, last) == pytest.approx(facts.LAST_PUNCH)
    assert task.ceiling(np.array([17]))[0] == pytest.approx(500.0)
    _, task = make(punch=200.0, punch_ramp_s=0.0)
    assert task.ceiling(np.array([0, 17])).tolist() == [200.0, 200.0]


def test_arms_walk_as_in_another_implementation():
    """Its ranges of run 0 have one decimal."""
    words, left = Words(0, ARMS), STANCE[LEFT]
    path = [left]
    for _ in range(180):
        left = tour_draws.next_arms(words, left)
        assert tour_draws.hand_allowed(left) or np.array_equal(left, path[-1])
        path.append(left)
    path = np.array(path)
    found = np.stack([path.min(0), path.max(0)], 1)[:4].round(1)
    np.testing.assert_allclose(found, facts.ARM_RANGES, atol=1e-9)
    low, high = g1.JOINT_RANGE[LEFT].T
    assert (path >= low).all() and (path <= high).all()


def test_arms_are_mirror_images_and_hands_stay_in_their_room():
    """Hands' corners by MuJoCo's kinematics of our robot, of arms that were accepted."""
    words, left = Words(3, ARMS), STANCE[LEFT]
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    torso, hands = model.body(g1.ANCHOR_BODY).id, ("left_wrist_yaw_link", "right_wrist_yaw_link")
    (x0, x1), (y0, y1), (z0, z1) = tour_draws.HAND
    box = np.array([[x, y, z] for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)])

    def corners(left):
        data.qpos[:7], data.qpos[7:] = [0, 0, 1, 1, 0, 0, 0], STANCE
        data.qpos[7 + 15 :] = both_arms(left)
        mujoco.mj_kinematics(model, data)
        found = []
        for side, name in zip((1, -1), hands, strict=True):
            body = model.body(name).id
            world = data.xpos[body] + (box * [1, side, 1]) @ data.xmat[body].reshape(3, 3).T
            found.append((world - data.xpos[torso]) @ data.xmat[torso].reshape(3, 3))
        return found

    rearmost = corners(STANCE[LEFT])[0][:, 0].min()
    assert rearmost == pytest.approx(0.070, abs=5e-4), "the sheet's figure"
    for _ in range(60):
        left = tour_draws.next_arms(words, left)
        mine, other = corners(left)
        np.testing.assert_allclose(mine, tour_draws.hand_corners(left), atol=1e-9)
        np.testing.assert_allclose(mine * [1, -1, 1], other, atol=1e-4)  # links are nearly mirrored
        assert mine[:, 0].min() >= rearmost - 1e-9 and mine[:, 2].max() <= 0.2808


# --- the timetable --------------------------------------------------------------------------------


def test_the_timetable_is_the_sheet_s():
    """Which waypoint is the target, when a punch acts, and where arms are told to be."""
    env, task = make(1, runs=[5])
    place = held(env)
    place(0.0, 0.0, 0.0)
    tour = waypoints(5, 18)
    np.testing.assert_allclose(task.waypoints[0], tour, atol=1e-6)  # float32 of the anchor
    told, punched, arms = [], [], []
    for _ in range(2 * 250 + 1):
        told.append(int(task.segment()[0]))
        punched.append(bool(task.punch_is_on()[0]))
        arms.append(task.arm_targets[0].copy())
        env.step(np.zeros((1, 29), np.float32))
    assert told == [0] * 250 + [1] * 250 + [2]
    on = np.flatnonzero(punched) * 0.02
    np.testing.assert_allclose(on[:4], [0.10, 0.12, 0.14, 0.16])
    np.testing.assert_allclose(on[4:], on[:4] + facts.SEGMENT_S)
    words, ends = Words(5, ARMS), [STANCE[LEFT]]
    for _ in range(3):
        ends.append(tour_draws.next_arms(words, ends[-1]))
    for tick in (0, 7, 24, 25, 49, 60):  # phase (t - 0.5 k + 0.02) / 0.5
        k, phase = tick // 25, (tick % 25 + 1) / 25
        expected = both_arms(ends[k] + phase * (ends[k + 1] - ends[k]))
        np.testing.assert_allclose(arms[tick], expected, atol=1e-12)
    assert TourConfig().segments == facts.SEGMENTS and TourConfig().episode_steps == 4500


def test_the_tour_is_anchored_where_the_robot_is():
    env = GuidedVectorEnv(1, "tour", autoreset_mode="disabled", threads=1)
    qpos = np.concatenate([[2.0, -1.0, 0.8, np.sqrt(0.5), 0, 0, np.sqrt(0.5)], STANCE])
    env.reset(seed=0, options={"run": 5, "qpos": qpos})  # facing +y
    x, y, heading = waypoints(5, 18).T
    found = env.task.waypoints[0]
    np.testing.assert_allclose(found[:, :2], np.stack([2.0 - y, -1.0 + x], 1), atol=1e-6)
    np.testing.assert_allclose(np.cos(found[:, 2]), np.cos(heading + np.pi / 2), atol=1e-6)


def test_the_command_is_a_gain_with_a_latch_and_limits():
    env, task = make(1, forward=(-0.5, 1.0), left=0.3, yaw_rate=0.6)
    place = held(env)

    def command(ahead, left, turn):
        """With the waypoint so far ahead and to the left of a robot that faces +y."""
        task.waypoints[0, :] = [1.0, 2.0, np.pi / 2]
        yaw = np.pi / 2 - turn
        forward, side = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        place(*([1.0, 2.0] - ahead * forward - left * side), yaw)
        env.step(np.zeros((1, 29), np.float32))
        return task.command()[0]

    np.testing.assert_allclose(command(0.4, -0.15, 0.2), [0.6, -0.225, 0.3], atol=1e-6)
    np.testing.assert_allclose(command(4.0, 4.0, 3.0), [1.0, 0.3, 0.6], atol=1e-6)
    np.testing.assert_allclose(command(-4.0, -4.0, -3.0), [-0.5, -0.3, -0.6], atol=1e-6)
    np.testing.assert_allclose(command(0.15, 0.0, 0.1), [0.225, 0.0, 0.15], atol=1e-6)
    np.testing.assert_allclose(command(0.09, 0.0, 0.04), 0.0)  # near: none
    np.testing.assert_allclose(command(0.15, 0.0, 0.1), 0.0)  # and none until it is far again
    np.testing.assert_allclose(command(0.21, 0.0, 0.13), [0.315, 0.0, 0.195], atol=1e-6)
    env, task = make(1, speed_norm=0.5)
    place = held(env)
    np.testing.assert_allclose(command(0.6, 0.8, 0.0), [0.3, 0.4, 0.0], atol=1e-6)


def test_arms_follow_the_harness_or_the_policy():
    action = np.random.default_rng(0).normal(size=(2, 29)).astype(np.float32)
    for arms in ("moved", "free"):
        env, task = make(2, arms=arms)
        sent = []
        step = task.robots.simulator.step

        def kept(targets, sent=sent, step=step):
            sent.append(targets.copy())
            step(targets)

        task.robots.simulator.step = kept
        expected = g1.DEFAULT_JOINT_POS + g1.ACTION_SCALE * action
        told = task.arm_targets.copy()
        env.step(action)
        np.testing.assert_allclose(sent[0][:, :15], expected[:, :15], atol=1e-6)
        other = told if arms == "moved" else expected[:, 15:]
        np.testing.assert_allclose(sent[0][:, 15:], other, atol=1e-6)


# --- physics --------------------------------------------------------------------------------------


def momentum(env):
    """Momentum of robot 0, kg m/s, by MuJoCo's own sum. `[3]`."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    data.qpos, data.qvel = (rows[0] for rows in full_state(env.simulator))
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    return model.body_mass.sum() * data.subtree_linvel[1]


@pytest.mark.parametrize("punch", [0.0, 300.0])
def test_a_punch_gives_force_times_duration_to_a_robot_that_floats(punch):
    """Against the same robot unpunched, in free fall and limp: gravity takes from both alike.

    Direction and link are run 2's; the link turns under the force, and with it the direction.
    """
    ends = []
    for force in (0.0, punch):
        env, task = make(1, runs=[2], punch=force, punch_ramp_s=0.0, **LIMP)
        qpos = np.concatenate([[0.0, 0.0, 5.0, 1, 0, 0, 0], STANCE])
        env.reset(seed=0, options={"run": 2, "qpos": qpos})
        for _ in range(5 + 4 + 1):
            env.step(np.zeros((1, 29), np.float32))
        ends.append(momentum(env))
    gained = np.linalg.norm(ends[1] - ends[0])
    expected = punch * punches(2, 18).share[0] * facts.PUNCH_S
    # Turning shortens the sum of forces; a light link turns by half a radian: cos of that is 0.88.
    assert 0.85 * expected <= gained <= 1.01 * expected
    assert (gained > 5.0) == (punch > 0.0)


def test_a_robot_hangs_where_its_drives_carry_it():
    """Against the drives and gravity in the engine, with the pelvis held: nothing moves."""
    config = TourConfig()
    _, task = make()
    qpos, _ = (rows[0].astype(float) for rows in full_state(task.simulator))
    assert qpos[2] == pytest.approx(0.793)
    model = mjcf.compile_model(config.model)
    data = mujoco.MjData(model)
    data.qpos, data.ctrl = qpos, STANCE
    mujoco.mj_forward(model, data)
    assert data.ncon == 0, "its feet are in the air"
    left = data.qfrc_actuator[6:] - data.qfrc_bias[6:]
    assert abs(left).max() < 1e-3 and abs(data.qfrc_bias[6:]).max() > 1.0, "N m; float32 of 100"


# --- measures -------------------------------------------------------------------------------------


def test_measures_of_a_trajectory_made_by_hand():
    """Errors at the end of a segment and at a fall, energy and vibration by the formulas."""
    env, task = make(1, segment_s=0.5, episode_s=2.0, punch=0.0)
    place = held(env)
    task.waypoints[0] = [[1.0, 0.0, 0.0]] * 4
    speeds = np.random.default_rng(0).normal(size=(60, 29))
    task.robots.torque = lambda: np.full((1, 29), 2.0)
    info = {}
    for tick in range(25 + 10):
        place(0.01 * tick, 0.0, 0.3, vel=speeds[tick], z=0.19 if tick == 34 else 0.8)
        *_, info = env.step(np.zeros((1, 29), np.float32))
    assert info["fell_pelvis"][0] and not info["success"][0]
    assert info["time_s"][0] == pytest.approx(35 * 0.02)
    errors = info["position_error"][0], info["heading_error"][0]
    # The end of the first segment at tick 24; the fall at tick 34 has the error of tick 33.
    np.testing.assert_allclose(errors[0][:2], [1.0 - 0.24, 1.0 - 0.33], atol=1e-6)
    np.testing.assert_allclose(errors[1][:2], [0.3, 0.3], atol=1e-6)
    assert np.isinf(errors[0][2:]).all()
    speed = speeds[:34].astype(np.float32)
    np.testing.assert_allclose(info["energy"][0], 2.0 * abs(speed).sum() * 0.02, rtol=1e-5)
    before = np.concatenate([np.zeros((1, 29)), speed])
    acceleration = np.diff(before, axis=0) / 0.02
    changes = np.diff(np.concatenate([np.zeros((1, 29)), acceleration]), axis=0)
    np.testing.assert_allclose(info["vibration"][0], abs(changes).sum(), rtol=1e-4)


def test_who_is_up_at_the_end_has_completed():
    env, _ = make(2, segment_s=0.5, episode_s=1.0, punch=0.0)
    place = held(env)
    ends, info = np.zeros(2, bool), {}
    for tick in range(50):
        # The second kneels, which is no fall here, and is one by the strict rule.
        place(0.0, 0.0, 0.0, z=np.array([0.8, 0.25]))
        *_, truncated, info = env.step(np.zeros((2, 29), np.float32))
        ends |= truncated
        assert ends.all() == (tick == 49)
    assert info["success"].tolist() == [True, True]
    assert info["success_strict"].tolist() == [True, False]
    assert np.isfinite(info["position_error"]).all()


def test_the_same_run_is_the_same_task_whoever_else_runs():
    env, task = make(3, runs=[4, 9, 4])
    alone, own = make(1, runs=[9])
    np.testing.assert_array_equal(task.waypoints[1], own.waypoints[0])
    np.testing.assert_array_equal(task.waypoints[0], task.waypoints[2])
    action = 0.1 * np.random.default_rng(0).normal(size=(1, 29)).astype(np.float32)
    for _ in range(30):
        env.step(np.tile(action, (3, 1)))
        alone.step(action)
    np.testing.assert_array_equal(task.arm_targets[1], own.arm_targets[0])
    np.testing.assert_array_equal(env.simulator.joint_pos[0], env.simulator.joint_pos[2])
    np.testing.assert_array_equal(env.simulator.joint_pos[1], alone.simulator.joint_pos[0])


def test_a_saved_tour_goes_on_bit_for_bit():
    env, _ = make(2)
    other = GuidedVectorEnv(2, "tour", autoreset_mode="disabled", threads=1)
    action = 0.1 * np.random.default_rng(0).normal(size=(60, 2, 29)).astype(np.float32)
    for row in action[:24]:  # an end point of the arms is next
        env.step(row)
    other.set_state(env.get_state())
    for row in action[24:]:
        first, second = env.step(row), other.step(row)
        np.testing.assert_array_equal(first[0], second[0])
    for name, value in first[-1].items():
        np.testing.assert_array_equal(value, second[-1][name], name)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"overrides": {"arms": "tied"}}, "arms is 'tied', expected 'moved' or 'free'."),
        ({"overrides": {"punch": -1.0}}, "punch is -1.0, expected 0 or more."),
        ({"overrides": {"segment_s": 0.1}}, "segment_s is 0.1, expected 0.5 or more."),
        ({"overrides": {"near": (0.2, 0.1)}}, "near is (0.2, 0.1), expected two ascending"),
        ({"overrides": {"left": -0.1}}, "left is -0.1, expected 0 or more."),
    ],
)
def test_bad_settings_are_one_sentence(arguments, text):
    with pytest.raises(BMError) as caught:
        GuidedVectorEnv(1, "tour", **arguments)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("run", [-1, 0.5, [1, 2, 3]])
def test_a_bad_run_id_is_named(run):
    env = GuidedVectorEnv(2, "tour")
    with pytest.raises(BMError, match=r"options\['run'\] is .*, expected a run id of 0 or more"):
        env.reset(options={"run": run})


def test_published_settings_are_the_sheet_s():
    config = TourConfig()
    found = dataclasses.asdict(config)
    assert (found["near"], found["facing"], found["gain"]) == ((0.10, 0.20), (0.05, 0.12), 1.5)
    assert (config.model.physics_dt, config.decimation, config.model.iterations) == (0.002, 10, 100)
    assert config.model.self_collision and config.foot_friction == 1.0
    env, _ = make()
    np.testing.assert_allclose(env.simulator.read_model()["foot_friction"], 1.0)
