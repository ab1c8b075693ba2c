"""diffusion/steering.py: what a task's cost asks for, against values worked out by hand."""

import dataclasses
import re
import warnings

import numpy as np
import pytest
from stand_in_model import Model, still

from bm_envs.diffusion.controller import Controller
from bm_envs.diffusion.costs import ByVelocity, Heading, Joystick, Obstacle, Sum, Waypoint
from bm_envs.diffusion.sampler import Sample
from bm_envs.diffusion.steering import (
    STEERING,
    STEERING_OF,
    Pilot,
    Steering,
    cost_of,
    steering_for,
)
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.tasks.guided.robots import Robots, drives_of
from bm_envs.tasks.guided.states import PAST, REPRESENTATIONS
from bm_envs.tasks.track.config import ActuationConfig

# A robot at (1, 2) that faces along +y, a quarter turn to the left.
POSE = np.array([1.0, 2.0, 0.76, np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5), *g1.DEFAULT_JOINT_POS])


def make(task, *, robots=2, **options):
    env = GuidedVectorEnv(robots, task, autoreset_mode="disabled", threads=1)
    env.reset(seed=0, options={"qpos": POSE, **options})
    return env.task


def test_every_representation_has_a_steering():
    assert STEERING.keys() == REPRESENTATIONS.keys()


def test_a_strength_replaces_that_of_the_steering():
    model = Model({}, still(0.0))
    chosen = STEERING[model.representation.name]
    assert steering_for(model) == chosen
    assert steering_for(model, strength=0.7) == dataclasses.replace(chosen, strength=0.7)
    assert steering_for(model, Steering(turn=0.5), 0.0) == Steering(turn=0.5, strength=0.0)


def test_a_shipped_model_may_have_a_steering_of_its_own():
    model = Model({}, still(0.0))
    model.name = "guided_human"
    own = STEERING_OF["guided_human"]
    assert own != STEERING[model.representation.name] and steering_for(model) == own
    assert steering_for(model, strength=0.0) == dataclasses.replace(own, strength=0.0)


def test_walk_perturb_asks_for_nothing():
    task = make("walk_perturb")
    assert cost_of(task, Steering()) is None
    assert Pilot(task, Model({}, still(0.0)), Steering()).guide() is None


def test_the_tour_asks_for_its_command_as_the_joystick_does():
    task = make("tour", run=np.array([3, 4]))
    cost = cost_of(task, Steering(consistent=0.5, turn=0.25))
    assert isinstance(cost, Joystick)
    command = task.command()
    assert abs(command).max() > 0.1, "premise: the first waypoint is not here"
    expected = Joystick(command[:, :2], command[:, 2], 0.5, 0.25)
    assert cost.__dict__.keys() == expected.__dict__.keys()
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(vars(cost)[name], value, name)


def test_joystick_asks_for_the_command_of_the_present_segment():
    task = make("joystick")
    cost = cost_of(task, Steering(consistent=0.5, turn=0.2))
    assert isinstance(cost, Joystick) and (cost.consistent, cost.turn) == (0.5, 0.2)
    np.testing.assert_array_equal(cost.velocity, [[0.6, 0.0]] * 2)
    task.clock[1] = 7 * 50  # seven seconds: the third segment, of 3 s each
    cost = cost_of(task, Steering())
    np.testing.assert_array_equal(cost.velocity, [[0.6, 0.0], [0.4, 0.0]])
    np.testing.assert_array_equal(cost.yaw_rate, [0.0, 0.5])


def parts_of(cost):
    assert isinstance(cost, Sum)
    return {type(part): (weight, part) for weight, part in cost.parts}


def test_a_waypoint_is_approached_by_turning_to_it_and_walking():
    """Three metres ahead; and 0.4 m to the left, a quarter turn away."""
    task = make("waypoint", goal=np.array([[1.0, 5.0], [0.6, 2.0]]))
    steering = Steering(speed=0.5, turn_rate=0.6, turn_s=2.0, least_ahead=0.3, turn=0.2)
    parts = parts_of(cost_of(task, steering))
    assert parts.keys() == {Joystick}
    weight, command = parts[Joystick]
    assert (weight, command.turn) == (1.0, 0.2)
    np.testing.assert_allclose(command.velocity, [[0.5, 0.0], [0.3 * 0.4, 0.0]], atol=1e-6)
    np.testing.assert_allclose(command.yaw_rate, [0.0, 0.6], atol=1e-6)
    slower = parts_of(cost_of(task, dataclasses.replace(steering, turn_s=4.0)))[Joystick][1]
    np.testing.assert_allclose(slower.yaw_rate, [0.0, np.pi / 8], atol=1e-6)


def test_an_approach_brakes_and_stops():
    task = make("waypoint", goal=np.array([[1.0, 2.25], [1.0, 2.1]]))
    command = parts_of(cost_of(task, Steering(brake_s=0.5, stop_within=0.15)))[Joystick][1]
    np.testing.assert_allclose(command.velocity, [[0.5, 0.0], [0.0, 0.0]], atol=1e-6)
    assert not command.yaw_rate[1]


def test_a_waypoint_by_the_papers_cost():
    task = make("waypoint", goal=np.array([[1.0, 5.0], [-1.0, 2.2]]))
    paper = parts_of(cost_of(task, Steering(places="paper")))
    assert paper.keys() == {Waypoint, Heading}
    weight, cost = paper[Waypoint]
    np.testing.assert_allclose(cost.goal, [[3.0, 0.0], [0.2, 2.0]], atol=1e-6)
    assert weight == 1.0
    share, turn = paper[Heading]
    bearing = [0.0, np.arctan2(2.0, 0.2)]
    np.testing.assert_allclose(turn.heading, bearing, atol=1e-6)
    np.testing.assert_allclose(turn.rate, np.minimum(bearing, 1.0), atol=1e-6)
    np.testing.assert_allclose(share, 1 - np.exp([-6.0, -2 * np.hypot(0.2, 2.0)]), atol=1e-6)


def test_nothing_turns_to_a_place_that_is_reached():
    task = make("waypoint", goal=np.array([[1.2, 2.0], [1.3, 2.0]]))
    parts = parts_of(cost_of(task, Steering(places="paper", stop_within=0.25)))
    np.testing.assert_array_equal(parts[Heading][0] > 0, [False, True])
    without = parts_of(cost_of(task, Steering(places="paper", turn=0.0)))
    assert not without[Heading][0].any()


def test_posts_are_gone_around():
    """One on the straight way, 1.5 m ahead, whose disc reaches 0.65 m to either side."""
    posts = np.array([[1.0, 3.5, 0.2]])
    task = make("obstacle", goal=np.array([1.0, 5.0]), obstacles=posts)
    wanted = parts_of(cost_of(task, Steering(margin=0.45, turn_s=1.0, turn_rate=9.0)))[Joystick][1]
    # Past the tangent to the disc, at a corner of the polygon of 16 about it, 2 % further out.
    tangent = np.arcsin(0.65 / 1.5)
    assert (tangent < np.abs(wanted.yaw_rate)).all()
    assert (np.abs(wanted.yaw_rate) < 1.1 * tangent).all()
    straight = parts_of(cost_of(task, Steering(around=False)))[Joystick][1]
    np.testing.assert_allclose(straight.yaw_rate, 0.0, atol=1e-6)


def test_the_papers_cost_on_a_place_leads_along_the_way_around_posts():
    """The way's next corner stands as far away as the goal, 3 m, and the turn is to it."""
    posts = np.array([[1.0, 3.5, 0.2]])
    task = make("obstacle", goal=np.array([1.0, 5.0]), obstacles=posts)
    parts = parts_of(cost_of(task, Steering(places="paper", margin=0.45)))
    goal = parts[Waypoint][1].goal
    np.testing.assert_allclose(np.linalg.norm(goal, axis=1), 3.0, atol=1e-6)
    tangent = np.arcsin(0.65 / 1.5)
    off = np.abs(np.arctan2(goal[:, 1], goal[:, 0]))
    assert ((tangent < off) & (off < 1.1 * tangent)).all()
    np.testing.assert_allclose(parts[Heading][1].heading, np.arctan2(goal[:, 1], goal[:, 0]))
    straight = parts_of(cost_of(task, Steering(places="paper", around=False)))
    np.testing.assert_allclose(straight[Waypoint][1].goal, [[3.0, 0.0]] * 2, atol=1e-6)


def test_obstacles_are_seen_from_the_robot_and_those_there_are_not_are_absent():
    posts = np.array([[[1.0, 3.5, 0.2], [4.0, 9.0, 0.3]]])
    task = make("obstacle", goal=np.array([1.0, 5.0]), obstacles=posts.repeat(2, 0))
    task.count[1] = 1
    cost = cost_of(task, Steering(obstacle=0.3))
    weight, by_velocity = parts_of(cost)[ByVelocity]
    assert weight == 0.3
    obstacle = by_velocity.cost
    assert isinstance(obstacle, Obstacle)
    model = Model({}, None)
    features = np.zeros((2, 20, model.width))
    body = model.representation.blocks["body_pos"].start
    features[:, :, body + 2 :: 3] = 0.7
    distance = obstacle.distance(features, model.representation)
    # All links over the robot's origin: 1.5 m to the first post's middle, 0.2 m of post and 0.18 m
    # of trunk.
    np.testing.assert_allclose(distance, 1.5 - 0.2 - 0.18, atol=1e-6)
    assert ByVelocity not in parts_of(cost_of(task, Steering(obstacle=0.0)))


def test_a_composition_asks_each_robot_for_what_its_phase_wants():
    task = make("composition", goal=np.array([1.0, 5.0]), obstacles=np.array([[1.0, 3.5, 0.2]]))
    cost = cost_of(task, Steering(consistent=0.5, turn=0.2))
    assert isinstance(cost, Joystick) and (cost.consistent, cost.turn) == (0.5, 0.2)
    np.testing.assert_array_equal(cost.velocity, [[0.5, 0.0]] * 2)
    task.clock[:] = 10 * 50  # the stop
    assert not cost_of(task, Steering()).velocity.any()
    task.clock[:] = 26 * 50
    parts = parts_of(cost_of(task, Steering()))
    assert parts.keys() == {Joystick, ByVelocity}
    assert (np.abs(parts[Joystick][1].yaw_rate) > 0.3).all()  # around the post
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


def test_a_share_is_of_what_is_asked_and_not_of_the_posts():
    posts = np.array([[1.0, 2.6, 0.1]])
    task = make("obstacle", goal=np.array([1.0, 5.0]), obstacles=posts)
    share = np.array([1.0, 0.25])
    parts = parts_of(cost_of(task, Steering(obstacle=0.3), share))
    np.testing.assert_array_equal(parts[Joystick][0], share)
    assert parts[ByVelocity][0] == 0.3
    paper = parts_of(cost_of(task, Steering(places="paper", place=0.5), share))
    np.testing.assert_array_equal(paper[Waypoint][0], 0.5 * share)
    # Eq. 8 asks for positions, so the posts do, too.
    assert (parts[ByVelocity][1].consistent, paper[ByVelocity][1].consistent) == (0.0, 1.0)
    velocities = parts_of(cost_of(task, Steering(places="paper", consistent=0.0)))
    assert velocities[ByVelocity][1].consistent == 0.0
    weight, command = parts_of(cost_of(make("joystick"), Steering(), share))[Joystick]
    np.testing.assert_array_equal(weight, share)
    np.testing.assert_array_equal(command.velocity, [[0.6, 0.0]] * 2)


def test_nothing_is_asked_in_the_warm_up():
    task = make("joystick")
    pilot = Pilot(task, Model({}, still(0.0)), Steering())
    assert pilot.guide() is not None
    assert Pilot(task, Model({}, still(0.0)), Steering(strength=0.0)).guide() is None
    task.clock[:] = -1
    assert pilot.guide() is None


def test_the_guide_moves_predictions_towards_what_is_asked():
    task = make("joystick")
    model = Model({}, still(0.0))
    forward = model.representation.blocks["root_lin_vel"].start
    states = np.zeros((2, 20, model.width), np.float32)
    levels = np.full((2, 20), 10)
    for strength in (0.1, 0.4):
        moved = Pilot(task, model, Steering(strength=strength)).guide()(states, levels)
        # A step of strength * 10 / 19 down the gradient 0 - 0.6 m/s.
        np.testing.assert_allclose(moved[:, 4:, forward], strength * 10 / 19 * 0.6, rtol=1e-5)
        assert not moved[:, :4].any()


def test_a_pushed_robot_is_left_to_catch_itself():
    """A push of 0.45 m/s is three times what counts as one: a ninth of the strength is left.

    It is forgotten with exp(-t / 0.5 s), so that after 0.5 s (0.15 e / 0.45)^2 of it is back.
    """
    task = make("joystick")
    model = Model({}, still(0.0))
    forward = model.representation.blocks["root_lin_vel"].start
    states, levels = np.zeros((2, 20, model.width), np.float32), np.full((2, 20), 19)
    pilot = Pilot(task, model, Steering(recover_at=0.15, recover_s=0.5))
    never = Pilot(task, model, Steering(recover_at=np.inf))
    steady = pilot.guide()(states, levels)[:, PAST:, forward]
    np.testing.assert_allclose(steady, 0.6, rtol=1e-5)
    task.simulator.push(np.array([1]), np.array([[0.0, 0.45, 0.0]]), np.zeros((1, 3)))
    for step in range(26):
        left = min(1.0, 0.15 / (0.45 * np.exp(-0.02 * step / 0.5))) ** 2
        moved = pilot.guide()(states, levels)[:, PAST:, forward]
        np.testing.assert_allclose(moved[0], 0.6, rtol=1e-5)
        np.testing.assert_allclose(moved[1], left * 0.6, rtol=1e-4)
        np.testing.assert_allclose(never.guide()(states, levels)[:, PAST:, forward], 0.6, rtol=1e-5)


def window(model, forward, left, rate):
    """A sample that predicts these velocities of two robots, always the same."""
    states = np.zeros((2, 20, model.width), np.float32)
    blocks = model.representation.blocks
    states[..., blocks["root_lin_vel"]] = forward, left, 0.0
    states[..., blocks["root_ang_vel"]] = 0.0, 0.0, rate
    return Sample(states, np.zeros((2, 4, 29), np.float32))


def test_what_is_executed_settles_at_what_is_asked():
    """Of a model that predicts all that it is asked for, and whose robots do 0.2 m/s less.

    The filter's solution after t seconds is `0.2 (1 - exp(-t / 0.5))`; its steps of 0.02 s change
    that by less than 0.003. They stand, so what is predicted is all of the difference.
    """
    task = make("joystick")
    model = Model({}, still(0.0))
    pilot = Pilot(task, model, Steering(strength=1.0, turn=0.7, correct_s=0.5))
    for step in range(100):
        pilot.observe(window(model, 0.2, 0.0, -0.1))
        t = 0.02 * (step + 1)
        expected = np.array([0.2, 0.0, -0.1]) * (1 - np.exp(-t / 0.5))
        np.testing.assert_allclose(pilot.offset, np.tile(expected, (2, 1)), atol=3e-3)
    # The guide now asks predictions for so much more: 0.6 + 0.2 m/s, nothing - 0.1 rad/s.
    blocks = model.representation.blocks
    states = np.zeros((2, 20, model.width), np.float32)
    moved = pilot.guide()(states, np.full((2, 20), 19))
    np.testing.assert_allclose(
        moved[:, 4:, blocks["root_lin_vel"].start], 0.6 + pilot.offset[0, 0], rtol=1e-4
    )
    np.testing.assert_allclose(
        moved[:, 4:, blocks["root_ang_vel"].start + 2], 0.7 * pilot.offset[0, 2], rtol=1e-4
    )


def test_corrections_are_bounded_begin_with_time_and_can_be_left_out():
    task = make("joystick")
    model = Model({}, still(0.0))
    pilot = Pilot(task, model, Steering(correct_s=0.1, most_correction=0.3))
    for _ in range(50):
        pilot.observe(window(model, 5.0, -5.0, 5.0))
    np.testing.assert_allclose(pilot.offset, [[0.3, -0.3, 0.3]] * 2)
    task.clock[1] = -1
    pilot.observe(window(model, 5.0, -5.0, 5.0))
    np.testing.assert_allclose(pilot.offset, [[0.3, -0.3, 0.3], [0, 0, 0]])
    never = Pilot(task, model, Steering(correct_s=np.inf))
    never.observe(window(model, 5.0, -5.0, 5.0))
    assert not never.offset.any()


def test_bad_settings():
    with pytest.raises(ConfigError, match=r"correct_s is 0, expected 0.02 s or more, or inf"):
        Steering(correct_s=0)
    with pytest.raises(ConfigError, match=r"brake_s is 0, expected 0.02 s or more"):
        Steering(brake_s=0)
    with pytest.raises(ConfigError, match=r"places is 'there', expected 'approach' or 'paper'"):
        Steering(places="there")
    with pytest.raises(ConfigError, match="strength is -1, expected 0 to 1"):
        dataclasses.replace(Steering(), strength=-1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(scaling="shares"), "Unknown guidance scaling 'shares'; did you mean 'share'"),
        (dict(last_level=-1), "last_level is -1, expected 0 to 19."),
        (dict(last_level=20), "last_level is 20, expected 0 to 19."),
        (dict(most_step=np.nan), "most_step is nan, expected more than 0 m/s, or inf."),
        (dict(most_step=-1.0), "most_step is -1.0, expected more than 0 m/s, or inf."),
        (dict(consistent=np.inf), "consistent is inf, expected 0 or more, finite."),
        (dict(turn_rate=np.inf), "turn_rate is inf, expected 0 or more, finite."),
        (dict(recover_at=np.nan), "recover_at is nan, expected 0 m/s or more, or inf."),
    ],
)
def test_settings_are_refused_before_anything_runs(settings, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}"):
        Steering(**settings)


def test_one_call_says_that_it_ignores_guidance():
    """Its actions are there before the states are moved."""
    drives = drives_of(ActuationConfig())
    model = Model(drives, still(0.0))
    robots = Robots(1, drives, threads=1)
    for method, guided, said in ((1, True, 1), (1, False, 0), (2, True, 0)):
        guide = (lambda features, levels: features) if guided else None
        controller = Controller(model, 1, method=method, guide=guide)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            controller.act(robots.states())
        assert sum("sampler 1 ignores guidance" in str(one.message) for one in caught) == said
    robots.close()
