"""Plans in a thread of their own: which action is executed when, late plans, none, bad ones."""

import threading

import numpy as np
import pytest

from bm_envs.deploy.background import Background
from bm_envs.deploy.controller import ActorController, ControllerConfig
from bm_envs.deploy.messages import Sensors
from bm_envs.deploy.planned import Planned
from bm_envs.deploy.robot import SENSOR_DT
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.policy import CONTROL_DT
from bm_envs.robots import g1

EVERY = round(CONTROL_DT / SENSOR_DT)
AHEAD = 4
ANY = 1e6  # noise of a robot whose made up readings need not follow from each other


def reading(tick, **changes):
    """A robot that stands still, but for its place, which tells the reading."""
    values = dict(
        quat=np.array([1.0, 0, 0, 0]), gyro=np.zeros(3), accel=np.array([0, 0, 9.81]),
        joint_pos=np.array(g1.DEFAULT_JOINT_POS), joint_vel=np.zeros(29),
        base_pos=np.array([tick, 0, 0.76]), base_lin_vel=np.array([0, tick, 0.0]),
    )  # fmt: skip
    return Sensors(time_s=tick * SENSOR_DT, **{**values, **changes})


class Told:
    """A planner whose action tells the step that it is planned in, and the one it is for."""

    name, past, ahead, steps = "told", 4, AHEAD, 30
    drives = {
        "default_joint_pos": tuple(g1.DEFAULT_JOINT_POS), "action_scale": (0.1,) * 29,
        "stiffness": tuple(g1.STIFFNESS), "damping": tuple(g1.DAMPING),
    }  # fmt: skip

    def __init__(self, answer=None):
        self.shown, self.answer = [], answer

    def plan(self, qpos, qvel, step):
        self.shown.append((qpos, qvel, step))
        if self.answer is not None:
            return self.answer(step)
        actions = np.zeros((AHEAD, 29))
        actions[:, 0], actions[:, 1] = step, step + np.arange(AHEAD)
        return actions


def run(planner, plan_s, ticks, **settings):
    """`(plan's step, step it is for)` of the command at each reading, None before the first."""
    actor = Planned(planner, plan_s=plan_s)
    settings = {"stand_s": 0.0, "end_s": 0.0} | settings
    driver = ActorController(actor, ControllerConfig(**settings), noise=ANY)
    driver.envelope.forgiving = True  # these targets make no sense
    found = []
    for tick in range(ticks):
        driver.step(reading(tick))
        target = driver.wanted
        if not np.array_equal(target.stiffness, g1.STIFFNESS):
            found.append(None)
            continue
        action = (target.joint_pos - g1.DEFAULT_JOINT_POS) / 0.1
        found.append(tuple(action[:2].round(6).astype(int)))
    return found, driver, actor


def test_a_plan_that_takes_no_time_is_executed_in_its_own_step():
    found, driver, actor = run(Told(), 0.0, 5 * EVERY)
    assert found == [(k, k) for k in range(5) for _ in range(EVERY)]
    assert set(actor.ages) == {0} and driver.late == 0


def test_a_plan_that_takes_a_step_is_executed_a_step_late():
    """Its second action then, which it planned for that step; before the first one it stands."""
    found, driver, actor = run(Told(), CONTROL_DT, 5 * EVERY)
    assert found[:EVERY] == [None] * EVERY
    assert found[EVERY:] == [(k - 1, k) for k in range(1, 5) for _ in range(EVERY)]
    assert set(actor.ages) == {1} and driver.late == 0


def test_a_plan_that_comes_within_a_step_takes_over_at_once():
    """After 6 of 20 ms, which is three readings."""
    found, *_ = run(Told(), 0.006, 4 * EVERY)
    for k in range(1, 4):
        step = found[k * EVERY : (k + 1) * EVERY]
        assert step == [(k - 1, k)] * 3 + [(k, k)] * (EVERY - 3)


def test_a_slow_plan_is_followed_by_one_from_the_newest_states():
    """In 30 ms: the next begins when it is there, from the states of the step before that."""
    planner = Told()
    found, driver, _ = run(planner, 0.030, 7 * EVERY)
    assert [step for *_, step in planner.shown][:4] == [0, 1, 3, 4]
    # The first is there in the middle of step 1, the second, begun then, when step 3 begins.
    half = EVERY // 2
    expected = [None] * 15 + [(0, 1)] * half + [(0, 2)] * EVERY + [(1, 3)] * EVERY
    assert found[: len(expected)] == expected
    assert driver.late == 0


def test_every_action_is_the_one_planned_for_its_step():
    for plan_s in (0.0, 0.008, 0.02, 0.03, 0.04):
        found, *_ = run(Told(), plan_s, 20 * EVERY)
        for tick, action in enumerate(found):
            assert action is None or action[1] == tick // EVERY, plan_s


def test_plans_that_come_too_late_damp():
    """A plan in 0.2 s has four actions for ten steps, and those are over when it comes."""
    found, driver, _ = run(Told(), 0.2, 60 * EVERY)
    assert driver.phase == "damping"
    assert driver.reason == (
        "10 of 50 control steps came more than 20 ms late, or were in no plan: this machine is too "
        "slow for the policy, or too busy; end other programs"
    )
    assert set(found) == {None}
    # Four steps that a first plan would have had actions for, and ten that were late.
    assert driver.frame == 14 and driver.late == 10


def test_the_loop_does_not_wait_for_a_plan():
    """Of a planner that never comes to an end."""
    over = threading.Event()
    _, driver, actor = run(Told(lambda step: over.wait()), None, 60 * EVERY)
    assert driver.phase == "damping" and "were in no plan" in driver.reason
    assert actor.took_s == [], "premise: it has not ended"
    over.set()


def test_the_planner_is_shown_the_states_of_control_steps_the_present_last():
    planner = Told()
    run(planner, 0.0, 6 * EVERY)
    qpos, qvel, step = planner.shown[5]
    assert step == 5 and qpos.shape == (4, 36) and qvel.shape == (4, 35)
    ticks = EVERY * np.arange(2, 6)
    np.testing.assert_array_equal(qpos[:, 0], ticks)
    np.testing.assert_array_equal(qvel[:, 1], ticks)
    np.testing.assert_array_equal(qpos[:, 7:], np.tile(g1.DEFAULT_JOINT_POS, (4, 1)))
    np.testing.assert_array_equal(planner.shown[0][0][:, 0], [0, 0, 0, 0])


def test_an_estimate_takes_the_place_of_the_position():
    planner = Told()
    run(planner, 0.0, 2 * EVERY, state="estimated")
    qpos, qvel, _ = planner.shown[1]
    assert qpos[-1, 0] == 0 and not qvel[-1, :3].any(), "it stands still, by its legs"
    assert qpos[-1, 2] == pytest.approx(0.76, abs=0.02)


@pytest.mark.parametrize("plan_s", [0.0, 0.02])
def test_an_action_that_is_no_number_damps(plan_s):
    answer = lambda step: np.full((AHEAD, 29), np.nan if step == 3 else 0.0)  # noqa: E731
    found, driver, _ = run(Told(answer), plan_s, 8 * EVERY)
    assert (driver.phase, driver.reason) == ("damping", "the policy's action is not finite")
    assert driver.frame == (3 if plan_s == 0 else 4)
    assert not driver.command.stiffness.any() and (driver.command.damping > 0).all()


def test_what_a_planner_refuses_damps_and_a_defect_is_raised():
    def refuse(step):
        raise PolicyError("the network fails")

    _, driver, _ = run(Told(refuse), 0.0, EVERY)
    assert (driver.phase, driver.reason) == ("damping", "the network fails")
    with pytest.raises(ZeroDivisionError):
        run(Told(lambda step: 1 // 0), 0.0, EVERY)


def test_it_ends_when_its_steps_are_done_and_may_go_on_holding():
    _, driver, actor = run(Told(), 0.0, 31 * EVERY)
    assert driver.phase == "done" and actor.frame == actor.steps == 30
    _, driver, actor = run(Told(), 0.0, 40 * EVERY, at_end="hold", end_s=10.0)
    assert driver.phase == "end" and actor.frame == 40


def test_a_tilted_robot_is_stopped():
    driver = ActorController(Planned(Told(), plan_s=0.0), ControllerConfig(stand_s=0.0), noise=ANY)
    half = np.radians(70) / 2
    driver.step(reading(0, quat=np.array([np.cos(half), 0, np.sin(half), 0])))
    assert driver.reason == "tilted by 70 degrees, at most 60 are allowed"


def test_drives_that_are_none_for_a_robot_are_refused():
    planner = Told()
    planner.drives = planner.drives | {"stiffness": (0.0,) * 29}
    with pytest.raises(PolicyError, match="told: joint_stiffness of left_hip_pitch_joint is 0"):
        Planned(planner)


def test_a_state_without_a_place_is_refused():
    with pytest.raises(ConfigError, match="no base_pos or base_lin_vel"):
        Planned(Told()).begin(reading(0, base_pos=None))


def test_a_call_in_the_background_is_taken_when_it_is_there():
    go = threading.Event()
    thread = Background(lambda x: go.wait() and 2 * x)
    assert thread.take() is None, "nothing was asked"
    thread.start(21)
    assert thread.take() is None and thread.is_busy
    go.set()
    assert thread.take(wait=True) == 42 and not thread.is_busy
    assert len(thread.took_s) == 1
    thread.close()
