"""tasks/guided/steering.py: what a task's cost asks for, against values worked out by hand."""

import dataclasses

import numpy as np
import pytest
from diffusion import Model, still

from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.tasks.guided.costs import Heading, Joystick, Obstacle, Sum, Waypoint
from bm_envs.tasks.guided.protocols import TASKS
from bm_envs.tasks.guided.steering import STEERING, Steering, cost_of, guide_of

# A robot at (1, 2) that faces along +y, a quarter turn to the left.
POSE = np.array([1.0, 2.0, 0.76, np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5), *g1.DEFAULT_JOINT_POS])


def make(task, *, robots=2, **options):
    env = GuidedVectorEnv(robots, task, autoreset_mode="disabled", threads=1)
    env.reset(seed=0, options={"qpos": POSE, **options})
    return env.task


def test_every_task_has_a_steering():
    assert STEERING.keys() == TASKS.keys()


def test_walk_perturb_asks_for_nothing():
    task = make("walk_perturb")
    assert cost_of(task, Steering()) is None
    assert guide_of(task, Model({}, still(0.0)), Steering()) is None


def test_joystick_asks_for_the_command_of_the_present_segment():
    task = make("joystick")
    cost = cost_of(task, Steering(consistent=0.5))
    assert isinstance(cost, Joystick) and cost.consistent == 0.5
    np.testing.assert_array_equal(cost.velocity, [[0.6, 0.0]] * 2)
    task.clock[1] = 7 * 50  # seven seconds: the third segment, of 3 s each
    cost = cost_of(task, Steering())
    np.testing.assert_array_equal(cost.velocity, [[0.6, 0.0], [0.4, 0.0]])
    np.testing.assert_array_equal(cost.yaw_rate, [0.0, 0.5])


def parts_of(cost):
    assert isinstance(cost, Sum)
    return {type(part): (weight, part) for weight, part in cost.parts}


def test_a_waypoint_is_seen_from_the_robot():
    task = make("waypoint", goal=np.array([[1.0, 5.0], [-1.0, 2.2]]))
    parts = parts_of(cost_of(task, Steering(speed=0.4, heading=2.0, face_beyond=0.5)))
    # Three metres ahead; two to the left and 0.2 m ahead.
    np.testing.assert_allclose(parts[Waypoint][1].goal, [[3.0, 0.0], [0.2, 2.0]], atol=1e-6)
    assert parts[Waypoint][1].speed == 0.4
    weight, facing = parts[Heading]
    np.testing.assert_allclose(facing.heading, [0.0, np.arctan2(2.0, 0.2)], atol=1e-6)
    np.testing.assert_array_equal(weight, [2.0, 2.0])
    near = make("waypoint", goal=np.array([1.0, 2.4]))
    assert (parts_of(cost_of(near, Steering(face_beyond=0.5)))[Heading][0] == 0).all()
    paper = parts_of(cost_of(task, Steering(speed=np.inf, heading=0.0)))
    assert paper.keys() == {Waypoint} and paper[Waypoint][1].consistent == 0


def test_obstacles_are_seen_from_the_robot_and_those_there_are_not_are_absent():
    posts = np.array([[[1.0, 3.5, 0.2], [4.0, 9.0, 0.3]]])
    task = make("obstacle", goal=np.array([1.0, 5.0]), obstacles=posts.repeat(2, 0))
    task.count[1] = 1
    cost = cost_of(task, Steering(obstacle=0.3))
    weight, obstacle = parts_of(cost)[Obstacle]
    assert weight == 0.3
    model = Model({}, None)
    features = np.zeros((2, 20, model.width))
    body = model.representation.blocks["body_pos"].start
    features[:, :, body + 2 :: 3] = 0.7
    distance = obstacle.distance(features, model.representation)
    # All links over the robot's origin: 1.5 m to the first post's middle, 0.2 m of post and 0.18 m
    # of trunk.
    np.testing.assert_allclose(distance, 1.5 - 0.2 - 0.18, atol=1e-6)
    assert Obstacle not in parts_of(cost_of(task, Steering(obstacle=0.0)))


def test_a_composition_asks_each_robot_for_what_its_phase_wants():
    task = make("composition", goal=np.array([1.0, 5.0]), obstacles=np.array([[1.0, 3.5, 0.2]]))
    cost = cost_of(task, Steering(consistent=0.5))
    assert isinstance(cost, Joystick) and cost.consistent == 0.5
    np.testing.assert_array_equal(cost.velocity, [[0.5, 0.0]] * 2)
    task.clock[:] = 10 * 50  # the stop
    assert not cost_of(task, Steering()).velocity.any()
    task.clock[:] = 26 * 50
    parts = parts_of(cost_of(task, Steering()))
    assert parts.keys() == {Waypoint, Heading, Obstacle}
    np.testing.assert_allclose(parts[Waypoint][1].goal, [[3.0, 0.0]] * 2, atol=1e-6)
    # One that fell as it turned is left behind, there without a pull to the place.
    task.clock[1] = 25 * 50
    both = parts_of(cost_of(task, Steering()))
    np.testing.assert_array_equal(both[Joystick][0], [0.0, 1.0])
    np.testing.assert_array_equal(both[Sum][0], [1.0, 0.0])
    np.testing.assert_array_equal(both[Joystick][1].velocity[1], [0.3, 0.0])
    model = Model({}, still(0.0))
    features = np.random.default_rng(0).normal(size=(2, 20, model.width))
    mixed = cost_of(task, Steering()).gradient(features, model.representation)
    for robot, clock in ((0, 26 * 50), (1, 25 * 50)):
        task.clock[:] = clock
        alone = cost_of(task, Steering()).gradient(features, model.representation)
        np.testing.assert_array_equal(mixed[robot], alone[robot])


def test_nothing_is_asked_in_the_warm_up():
    task = make("joystick")
    model = Model({}, still(0.0))
    assert guide_of(task, model, Steering()) is not None
    task.clock[:] = -1
    assert guide_of(task, model, Steering()) is None


def test_the_guide_moves_predictions_towards_what_is_asked():
    task = make("joystick")
    model = Model({}, still(0.0))
    forward = model.representation.blocks["root_lin_vel"].start
    states = np.zeros((2, 20, model.width), np.float32)
    levels = np.full((2, 20), 10)
    for strength in (0.1, 0.4):
        moved = guide_of(task, model, Steering(strength=strength))(states, levels)
        # A step of strength * 10 / 19 down the gradient 0 - 0.6 m/s.
        np.testing.assert_allclose(moved[:, 4:, forward], strength * 10 / 19 * 0.6, rtol=1e-5)
        assert not moved[:, :4].any()


def test_bad_settings():
    with pytest.raises(ConfigError, match="strength is -1, expected 0 or more"):
        dataclasses.replace(Steering(), strength=-1)
