"""The procedure's table: every row walked along, on the simulated robot and over DDS."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from bm_envs.deploy import procedure
from bm_envs.deploy.balance import LEASH_M, Balance
from bm_envs.deploy.controller import (
    STANDBY_DAMPING,
    STANDBY_STIFFNESS,
    Controller,
    ControllerConfig,
)
from bm_envs.deploy.messages import Sensors
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.deploy.tracker import Tracker
from bm_envs.errors import ConfigError
from bm_envs.policy import load_policy
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]


class Stage:
    """A robot and its controller, in one process."""

    def __init__(self, motion="walk[4:5]", **changes):
        self.policy = load_policy("walk")
        values = {"stand_s": 0.3, "end_s": None, **changes}
        self.driver = Controller(
            self.policy, Motion(self.policy, motion), ControllerConfig(**values)
        )
        self.robot = SimulatedRobot(RobotConfig())
        self.robot.stand(g1.DEFAULT_JOINT_POS)
        self.command = self.driver.command

    @property
    def state(self):
        return self.driver.phase

    def step(self, **changes):
        """One reading, true but for `changes`, and its answer."""
        sensors = dataclasses.replace(self.robot.sense(), **changes)
        self.command = self.driver.step(sensors)
        self.robot.apply(self.command)
        self.robot.step()

    def until(self, state, seconds=12.0):
        for _ in range(round(seconds / SENSOR_DT)):
            if self.state == state:
                return self
            self.step()
        raise AssertionError(f"{self.state} for {seconds} s, not {state}: {self.driver.reason}")

    def upright(self):
        return self.robot.data.qpos[2] > 0.6

    def acts(self, tracker):
        """Whether the policy's own gains are in force."""
        expected = tracker.policy.spec.in_project_order("joint_stiffness")
        return np.allclose(self.command.stiffness, expected)


def rows(event):
    return [edge for edge in procedure.EDGES if edge.event == event]


def test_every_event_is_tried_below():
    assert {edge.event for edge in procedure.EDGES} == {
        "begin", "begin at once", "stood", "last frame", "next", "still", "over", "stop",
    }  # fmt: skip
    assert {edge.next for edge in rows("stop")} == {"damping"}
    assert all(edge.states == ("stand", "run", "end") for edge in rows("stop"))


def test_no_state_has_two_ways_for_one_event_and_all_are_reached():
    found = {}
    for edge in procedure.EDGES:
        for state in edge.states:
            assert found.setdefault((state, edge.event), edge.next) == edge.next
    reached, new = set(), {"off"}
    while new:
        reached |= new
        new = {following for (state, _), following in found.items() if state in reached} - reached
    assert reached == {"off", "stand", "run", "end", "damping", "done"}


def test_what_the_table_lacks_is_refused():
    with pytest.raises(ConfigError, match="In the state 'off' nothing follows from 'still'."):
        procedure.after("off", "still")


def test_off_begin_stand():
    stage = Stage()
    assert stage.state == "off" and not stage.command.stiffness.any()
    stage.step()
    assert stage.state == "stand" and (stage.command.stiffness == STANDBY_STIFFNESS).all()


def test_off_begin_at_once_run():
    stage = Stage(stand_s=0.0)
    stage.step()
    assert stage.state == "run" and stage.acts(stage.driver.tracker)


def test_stand_stood_run_is_blended():
    """Targets and gains go in even steps from what acted before to the policy's."""
    stage = Stage(blend_s=0.2).until("run")
    before = stage.command
    np.testing.assert_allclose(before.stiffness, STANDBY_STIFFNESS)  # the share is 0 at first
    own = np.array(stage.policy.spec.in_project_order("joint_stiffness"))
    for tick in range(1, 120):
        stage.step()
        control_step = tick // 10  # the share holds for a control step of 20 ms
        share = min(control_step * 0.02 / 0.2, 1.0)
        np.testing.assert_allclose(
            stage.command.stiffness, (1 - share) * STANDBY_STIFFNESS + share * own, rtol=1e-9
        )
    assert stage.acts(stage.driver.tracker) and stage.upright()


@pytest.mark.parametrize("motion", ["walk[4:5]", "walk[4:5.3]"])
def test_run_last_frame_end(motion):
    """In mid-stride, on one foot or another: it is brought to a stand, and stays there."""
    stage = Stage(motion).until("end")
    assert np.linalg.norm(stage.robot.data.qvel[:2]) > 0.2, "premise: it walks"
    assert stage.driver.frame == stage.driver.motion.frames - 1
    assert stage.acts(stage.driver.balance.tracker)
    for _ in range(round(4 / SENSOR_DT)):
        stage.step()
    assert stage.driver.is_still and stage.upright()
    before = stage.robot.data.qpos[:2].copy()
    for _ in range(round(1 / SENSOR_DT)):
        stage.step()
    assert np.linalg.norm(stage.robot.data.qpos[:2] - before) < 0.1


def test_run_next_end_still_run():
    """Another motion on command: out of the first one, by way of a balanced stand."""
    stage = Stage("walk").until("run")
    for _ in range(round(3 / SENSOR_DT)):
        stage.step()
    following = Tracker(stage.policy, "walk[0:1]")
    stage.driver.play(following)
    stage.until("end")
    assert stage.driver.frame < 200, "the walk was not played to its end"
    assert stage.acts(stage.driver.balance.tracker)
    stage.until("run")
    assert stage.driver.tracker is following and stage.upright()
    assert np.linalg.norm(stage.robot.data.qvel[:2]) < 0.3, "it stood before"
    stage.until("end")
    assert stage.driver.motion is following.motion and stage.upright()
    for _ in range(round(2 / SENSOR_DT)):
        stage.step()
    assert stage.state == "end", "nothing else was asked for"


def test_a_motion_that_is_asked_for_before_the_first_takes_its_place():
    stage = Stage("walk")
    stage.step()
    following = Tracker(stage.policy, "walk[0:1]")
    stage.driver.play(following)
    stage.until("run")
    assert stage.driver.tracker is following
    stage.until("end")  # and it is played once
    assert stage.driver._following is None


def test_without_the_standing_policy_there_is_no_next():
    stage = Stage(at_end="stand")
    assert stage.driver.balance is None
    with pytest.raises(ConfigError, match="at_end is 'stand', expected 'balance': between two"):
        stage.driver.play(Tracker(stage.policy, "walk[0:1]"))


def test_end_over_done():
    stage = Stage(end_s=0.5).until("end")
    began = stage.robot.time_s
    stage.until("done")
    assert stage.robot.time_s - began == pytest.approx(0.5, abs=2 * SENSOR_DT)


STOPS = {
    "remote": {"stop": True},
    "envelope": {"joint_vel": np.where(np.arange(29) == 3, 900.0, 0.0)},
}  # a key and a lost link are the program's: below, over DDS


@pytest.mark.parametrize("state", ["stand", "run", "end"])
@pytest.mark.parametrize("stop", STOPS)
def test_stop_damping(state, stop):
    stage = Stage().until(state)
    stage.step()
    stage.step(**STOPS[stop])
    for _ in range(50):
        assert stage.state == "damping" and stage.driver.reason
        assert not stage.command.stiffness.any()
        assert (stage.command.damping == STANDBY_DAMPING).all()
        stage.step()


# --- the standing policy --------------------------------------------------------------------------


def standing(**changes):
    values = dict(
        quat=np.array([1.0, 0, 0, 0]), gyro=np.zeros(3), accel=np.array([0, 0, 9.81]),
        joint_pos=np.array(g1.DEFAULT_JOINT_POS), joint_vel=np.zeros(29),
        base_pos=np.array([0, 0, 0.76]), base_lin_vel=np.zeros(3),
    )  # fmt: skip
    return Sensors(time_s=0.0, **{**values, **changes})


def test_the_stand_lies_where_a_robot_would_come_to_rest_and_gives_way():
    balance = Balance()
    tracker = balance.tracker

    def ahead(state):
        pos, _ = tracker.motion.anchor(tracker.frame)
        where = tracker.alignment.matrix @ pos + tracker.alignment.offset
        return (where - tracker.anchor_pose(state)[0])[:2]

    moving = standing(base_lin_vel=np.array([0.8, -0.4, 0.1]))
    balance.begin(moving)
    np.testing.assert_allclose(ahead(moving), [0.12, -0.06], atol=1e-9)  # 0.15 s of it
    for x in np.linspace(0, 2, 20):
        state = standing(base_pos=np.array([x, 0, 0.76]))
        balance.act(state)
        assert np.linalg.norm(ahead(state)) <= LEASH_M + 1e-9
    back = standing(base_pos=np.array([2 - 0.1, 0, 0.76]))
    held = ahead(back)
    balance.act(back)
    np.testing.assert_allclose(ahead(back), held, atol=2e-3)  # near enough, it stays


def test_still_is_slow_and_upright_for_a_while():
    balance = Balance()
    balance.begin(standing())
    steps = 0
    while not balance.is_still:
        balance.act(standing())
        steps += 1
    assert steps == 25  # half a second
    balance.act(standing(quat=np.array([np.cos(0.2), np.sin(0.2), 0, 0])))  # 23 degrees
    assert not balance.is_still
    balance.begin(standing(base_lin_vel=np.array([1.0, 0, 0])))
    for _ in range(30):  # the average forgets the speed first
        balance.act(standing())
    assert not balance.is_still


# --- the page -------------------------------------------------------------------------------------


def test_the_drawing_has_every_row():
    drawn = procedure.flowchart()
    for edge in procedure.EDGES:
        line = rf"{re.escape(', '.join(edge.states))} +--\[ .*{edge.event}.* \]--> {edge.next}"
        assert re.search(line, drawn), edge
    assert drawn.count("\n") == len({(edge.states, edge.next) for edge in procedure.EDGES})
