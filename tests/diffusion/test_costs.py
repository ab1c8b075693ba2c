"""Costs against finite differences and worked values; guides on data with a known posterior."""

import re
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from bm_envs.diffusion import costs, sampler
from bm_envs.diffusion.costs import (
    ByVelocity,
    Corrected,
    Heading,
    Joystick,
    Obstacle,
    Sum,
    UserCost,
    Waypoint,
    barrier,
    barrier_slope,
)
from bm_envs.diffusion.fields import Cylinders, Distance
from bm_envs.diffusion.sampler import LENGTH, SCHEDULE, K
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.robots.mjcf import compile_model
from bm_envs.tasks.guided.states import (
    NOW,
    PAST,
    REPRESENTATIONS,
    Frame,
    States,
    now_frame,
    representation,
)

REP = representation("body_pos")
VELOCITY = REP.blocks["root_lin_vel"].start


def joystick(**changes):
    values = dict(
        velocity=np.array([[0.6, 0.1], [-0.3, 0.0]]), yaw_rate=np.array([0.5, 0.0]), consistent=0.7,
        turn=0.6,
    )  # fmt: skip
    return Joystick(**{**values, **changes})


def features(rep=REP, count=2, seed=0):
    return np.random.default_rng(seed).normal(0, 0.5, (count, LENGTH, rep.size))


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("consistent", [0.0, 0.7])
def test_gradient_is_the_values_derivative(name, consistent):
    """Central differences of a quadratic are exact but for rounding."""
    rep, cost = REPRESENTATIONS[name], joystick(consistent=consistent, turn=0.5 * consistent)
    x = features(rep)
    gradient = cost.gradient(x, rep)
    rng = np.random.default_rng(1)
    root = rep.blocks["root_pos"].start
    columns = [*range(root, rep.size), *rng.integers(0, root, 5)]
    for j in columns:
        for i in (0, NOW, PAST, 11, LENGTH - 1):
            up, down = x.copy(), x.copy()
            up[:, i, j] += 1e-4
            down[:, i, j] -= 1e-4
            slope = (cost.value(up, rep) - cost.value(down, rep)) / 2e-4
            np.testing.assert_allclose(gradient[:, i, j], slope, atol=1e-8)


def test_joystick_by_hand():
    """Eq. 7: half the squared distance of velocities, summed over the sixteen future steps."""
    x = np.zeros((1, LENGTH, REP.size))
    cost = Joystick(np.array([[0.5, 0.0]]), np.zeros(1), turn=0.0)
    assert cost.value(x, REP)[0] == pytest.approx(16 * 0.5 * 0.25)
    gradient = cost.gradient(x, REP)
    assert (gradient[:, PAST:, VELOCITY] == -0.5).all()
    assert np.count_nonzero(gradient) == 16
    x[:, PAST:, VELOCITY] = 0.5
    assert cost.value(x, REP)[0] == 0 and not cost.gradient(x, REP).any()


def test_nothing_up_to_the_present_is_moved():
    assert not joystick().gradient(features(), REP)[:, :PAST].any()


def test_path_is_where_the_velocity_leads():
    """Against small steps: 0.32 s at 0.6 m/s and 2 rad/s, and straight on without a turn."""
    cost = joystick(velocity=np.array([[0.6, 0.1], [0.4, 0.0]]), yaw_rate=np.array([2.0, 0.0]))
    velocity, position, heading = cost.path()
    fine = 1000
    t = (np.arange(16 * fine) + 0.5) * 0.02 / fine
    v = np.stack([0.6 * np.cos(2 * t) - 0.1 * np.sin(2 * t),
                  0.6 * np.sin(2 * t) + 0.1 * np.cos(2 * t)], -1)  # fmt: skip
    end = (v * 0.02 / fine).sum(0)
    np.testing.assert_allclose(position[0, -1], end, atol=1e-8)
    assert heading[0, -1] == pytest.approx(0.64) and heading[0, NOW] == 0
    np.testing.assert_allclose(position[1, -1], [0.4 * 0.32, 0])
    np.testing.assert_allclose(velocity[1], np.tile([0.4, 0], (LENGTH, 1)))


def test_a_window_that_does_what_is_wanted_costs_nothing():
    cost = joystick()
    velocity, position, heading = cost.path()
    x = features()
    start = {name: part.start for name, part in REP.blocks.items()}
    x[..., start["root_lin_vel"] : start["root_lin_vel"] + 2] = velocity
    x[..., start["root_pos"] : start["root_pos"] + 2] = position
    x[..., start["root_rot"] + 2] = heading
    x[..., start["root_ang_vel"] + 2] = cost.yaw_rate[:, None]
    np.testing.assert_allclose(cost.value(x, REP), 0, atol=1e-20)


# --- steps ----------------------------------------------------------------------------------------


def test_steps_are_the_tables():
    """Rows of the sheet's table of scalings, by hand from abar."""
    for name, at_4, at_14 in [
        ("linear", 4 / 19, 14 / 19),
        ("score", 0.166, 2.25),
        ("noise", 0.425, 2.44),
        ("variance", 0.038, 0.270),
        ("constant", 1, 1),
    ]:
        steps = sampler.guidance_steps(name)
        assert steps[[4, 14]] == pytest.approx([at_4, at_14], rel=5e-3)
        assert steps[1:].all()
        np.testing.assert_array_equal(sampler.guidance_steps(name, 14)[:15], steps[:15])
        assert not sampler.guidance_steps(name, 14)[15:].any()
    assert sampler.guidance_steps("score")[19] == pytest.approx(408, rel=5e-3)
    np.testing.assert_array_equal(sampler.guidance_steps("share"), np.arange(K) / 19)
    np.testing.assert_array_equal(sampler.guidance_steps("even_share"), np.ones(K))
    with pytest.raises(ConfigError, match="guidance scaling"):
        sampler.guidance_steps("linaer")


def guided(cost, strength, **options):
    return costs.guide(cost, REP, strength, **options)


@pytest.mark.parametrize(
    "scaling", ["share", "even_share", "linear", "score", "noise", "variance", "constant"]
)
def test_every_scaling_moves_towards_the_goal(scaling):
    cost, x = joystick(consistent=0.0, turn=0.0), features().astype(np.float32)
    levels = np.full((2, LENGTH), 9)
    levels[:, :PAST] = 0
    moved = guided(cost, 0.1, scaling=scaling)(x, levels)
    assert (cost.value(moved, REP) < cost.value(x, REP)).all()
    np.testing.assert_array_equal(moved[:, :PAST], x[:, :PAST])
    others = np.delete(np.arange(REP.size), [VELOCITY, VELOCITY + 1])
    np.testing.assert_allclose(moved[..., others], x[..., others], atol=1e-6)


def test_a_share_of_one_reaches_what_the_joystick_asks_for():
    """At the noisiest level, and an even share at every level; half of it goes half the way."""
    cost, x = joystick(consistent=1.0, turn=1.0), features().astype(np.float32)
    start = cost.value(x, REP)
    for level, scaling, strength in (
        (19, "share", 1.0), (4, "even_share", 1.0), (19, "share", 0.5), (0, "share", 1.0),
    ):  # fmt: skip
        moved = guided(cost, strength, scaling=scaling)(x, np.full((2, LENGTH), level))
        left = 1 - strength * (level / 19 if scaling == "share" else 1)
        np.testing.assert_allclose(cost.value(moved, REP), left**2 * start, rtol=1e-4, atol=1e-5)


def test_the_search_for_a_step_ends_where_a_cost_falls_without_end():
    """-x: no minimum. A kink, |x|: near it."""
    x = np.zeros((1, LENGTH, REP.size))
    x[:, PAST:, VELOCITY] = 0.3

    def falls(blocks):
        return -blocks["root_lin_vel"][:, PAST:, 0].sum(1), {
            "root_lin_vel": np.tile([-1.0, 0.0, 0.0], (1, LENGTH, 1))
        }

    def kink(blocks):
        off = blocks["root_lin_vel"] * [1.0, 0.0, 0.0]
        return np.abs(off[:, PAST:]).sum((1, 2)), {"root_lin_vel": np.sign(off)}

    assert costs.own_step(UserCost(falls), x, REP).min() == -10.0
    step = costs.own_step(UserCost(kink), x, REP)[:, PAST:, VELOCITY]
    np.testing.assert_allclose(step, 0.3, atol=0.02 * 1.0)
    assert not costs.own_step(UserCost(kink), 0 * x, REP).any()


def test_strength_may_differ_between_windows():
    cost, x = joystick(), features().astype(np.float32)
    levels = np.full((2, LENGTH), 9)
    both = guided(cost, np.array([0.0, 0.3]))(x, levels)
    np.testing.assert_array_equal(both[0], x[0])
    np.testing.assert_array_equal(both[1], guided(cost, 0.3)(x, levels)[1])


def test_a_step_changes_velocity_by_a_bounded_amount():
    cost = joystick(velocity=np.array([[50.0, 0.0], [0.0, 0.0]]))
    x = np.zeros((2, LENGTH, REP.size), np.float32)
    moved = guided(cost, 1.0, most_step=0.3)(x, np.full((2, LENGTH), 14))
    change = np.linalg.norm(moved[0, PAST:, VELOCITY : VELOCITY + 2], axis=-1)
    np.testing.assert_allclose(change, 0.3, rtol=1e-5)


@pytest.mark.slow
def test_a_quadratic_cost_shifts_gaussian_data_as_its_linear_recursion_says():
    """Data N(m, s^2) in every token, cost (x - g)^2 / 2, exact denoiser, `score` steps.

    The estimate is moved, not differentiated through, so the end is not the product of the two
    densities; but all is linear, so its mean follows from one recursion, to 4 standard errors.
    """
    m, s, g, strength = 0.7, 0.5, -0.4, 0.3
    steps = strength * sampler.guidance_steps("score")
    mean = 0.0
    for k in reversed(range(K)):
        abar = SCHEDULE.abar[k]
        gain = s**2 * np.sqrt(abar) / (abar * s**2 + 1 - abar)
        clean = m + gain * (mean - np.sqrt(abar) * m)
        clean -= steps[k] * (clean - g)
        mean = SCHEDULE.from_clean[k] * clean + SCHEDULE.from_noisy[k] * mean

    def denoiser(states, actions, state_levels, action_levels):
        found = []
        for x, level in ((states, state_levels), (actions, action_levels)):
            abar = SCHEDULE.abar[level][..., None]
            gain = s**2 * np.sqrt(abar) / (abar * s**2 + 1 - abar)
            found.append((m + gain * (x - np.sqrt(abar) * m)).astype(np.float32))
        return found[0], found[1]

    count = 20_000
    goal = Joystick(np.full((count, 2), g), np.zeros(count), turn=0.0)
    # A state of six numbers: the velocity, and one place for all that weighs nothing here.
    blocks = {name: slice(3, 6) for name in REP.blocks} | {"root_lin_vel": slice(0, 3)}
    small = REP._replace(blocks=blocks, mirror=(np.arange(6), np.ones(6)))
    move = costs.guide(goal, small, strength, scaling="score", most_step=1e9)
    past = np.full((count, PAST, 6), m, np.float32)
    found = sampler.sample(denoiser, past, 1, np.random.default_rng(0), guide=move)
    future = found.states[:, PAST:, :2]
    error = future.mean() - mean
    assert abs(error) < 4 * future.std() / np.sqrt(future.size)
    assert g < mean < m
    assert abs(found.actions.mean() - m) < 4 * s / np.sqrt(found.actions.size)


# --- the other costs: derivatives -----------------------------------------------------------------

FUTURE = LENGTH - PAST
ARMS_AND_LEGS = ("pelvis", "torso_link", "left_knee_link", "right_ankle_roll_link",
                 "left_wrist_yaw_link", "right_elbow_link")  # fmt: skip


def crouch(blocks):
    """Written with torch: a pelvis at 0.6 m, feet and all else free, and a slow roll."""
    height, roll = blocks["root_pos"][..., 2], blocks["root_ang_vel"][..., 0]
    return (torch.cosh(height - 0.6) + 0.3 * roll**4)[:, PAST:].sum(1)


def crouch_by_hand(blocks):
    height, roll = blocks["root_pos"][..., 2], blocks["root_ang_vel"][..., 0]
    value = (np.cosh(height - 0.6) + 0.3 * roll**4)[:, PAST:].sum(1)
    by_pos, by_ang_vel = np.zeros_like(blocks["root_pos"]), np.zeros_like(blocks["root_ang_vel"])
    by_pos[..., 2], by_ang_vel[..., 0] = np.sinh(height - 0.6), 1.2 * roll**3
    return value, {"root_pos": by_pos, "root_ang_vel": by_ang_vel}


def around(count):
    """Posts, the same for `count` environments; dense, so that many count."""
    rng = np.random.default_rng(3)
    center, radius = rng.uniform(-1.2, 1.2, (1, 9, 2)), rng.uniform(0.1, 0.25, (1, 9))
    return Cylinders(np.tile(center, (count, 1, 1)), np.tile(radius, (count, 1)))


class Balls:
    """A field of one's own, whose gradient has a z: `|p - center| - radius` of the nearest."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.center, self.radius = rng.uniform(-1.2, 1.2, (20, 3)), rng.uniform(0.1, 0.3, 20)

    def at(self, points):
        offset = points[..., None, :] - self.center
        length = np.linalg.norm(offset, axis=-1)
        index = (length - self.radius).argmin(-1)[..., None]
        away = np.take_along_axis(offset / length[..., None], index[..., None], -2)[..., 0, :]
        return Distance(np.take_along_axis(length - self.radius, index, -1)[..., 0], away)


def frames(count):
    return Frame(np.tile([0.5, -0.7, 0.0], (count, 1)), np.full(count, 2.2))


def waypoint(n, *goal, **options):
    return Waypoint(np.tile(goal, (n, 1)), **options)


COSTS = {
    "waypoint": lambda n: waypoint(n, 0.4, -0.3),
    "waypoint, far": lambda n: waypoint(n, 3.0, 4.0),
    "waypoint, there": lambda n: waypoint(n, 0.0, 0.0),
    "heading": lambda n: Heading(np.full(n, -2.0)),
    "heading, at once": lambda n: Heading(np.full(n, 1.0), rate=np.inf, consistent=0.0),
    "obstacle": lambda n: Obstacle(around(n), frames(n)),
    "obstacle, limbs": lambda n: Obstacle(Balls(), None, ARMS_AND_LEGS, cutoff=0.25),
    "torch": lambda n: UserCost(crouch, torch=True),
    "by hand": lambda n: UserCost(crouch_by_hand),
    "sum": lambda n: Sum([(0.5, waypoint(n, 1.0, 1.0)), (np.full(n, 2.0), Heading(np.full(n, 0.4))),
                          (1.5, Obstacle(around(n), frames(n)))]),
    "corrected": lambda n: Corrected(Obstacle(around(n), frames(n)),
                                     np.tile([0.2, -0.1, 0.4], (n, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("kind", COSTS)
def test_every_gradient_is_its_values_derivative(kind, name):
    """By central differences in every number of every step, in float64.

    h = 1e-6: rounding is 2e-16 of a value of some 100, over h: 2e-8. The third derivative times
    h^2 / 6 is less: 1e-12 / 6 * 1000 for the barrier (2 / delta^3). Kinks (nearest obstacle,
    cut-off) are where two values meet to 1e-6, which none of these does.
    """
    rep, h = REPRESENTATIONS[name], 1e-6
    x = features(rep, count=1, seed=6)
    gradient = COSTS[kind](1).gradient(x, rep)[0]
    assert gradient.any() and gradient.shape == (LENGTH, rep.size)
    cost = COSTS[kind](2 * rep.size)
    shifts = h * np.concatenate([np.eye(rep.size), -np.eye(rep.size)])
    for step in range(PAST, LENGTH):
        windows = np.repeat(x, len(shifts), 0)
        windows[:, step] += shifts
        up, down = np.split(cost.value(windows, rep), 2)
        np.testing.assert_allclose(gradient[step], (up - down) / (2 * h), atol=5e-7)
    assert not gradient[:PAST].any()


def test_the_differences_see_all_of_the_obstacles_cost():
    """Premise of the test above: inside, on the parabola, on the logarithm, out of range."""
    for name in REPRESENTATIONS:
        rep = REPRESENTATIONS[name]
        distance = COSTS["obstacle, limbs"](1).distance(features(rep, count=1, seed=6), rep)
        assert distance.shape == (1, FUTURE, len(ARMS_AND_LEGS))
        parts = np.histogram(distance, [-np.inf, 0.0, 0.1, 0.25, np.inf])[0]
        assert (parts > 5).all()
        assert (distance < 0.25).any((0, 1)).all(), "each link is near something"


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("kind", COSTS)
def test_robots_do_not_mix(kind, name):
    """Row by row as each alone; to rounding, since sums of many rows may go in another order."""
    rep = REPRESENTATIONS[name]
    x = features(rep, count=3, seed=7)
    both = COSTS[kind](3)
    for i in range(3):
        alone, row = COSTS[kind](1), x[i : i + 1]
        np.testing.assert_allclose(both.value(x, rep)[i], alone.value(row, rep)[0], rtol=1e-13)
        np.testing.assert_allclose(
            both.gradient(x, rep)[i], alone.gradient(row, rep)[0], rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("kind", COSTS)
def test_a_guide_lowers_every_cost(kind, name):
    """Small steps of the float32 numbers that the sampler has; nothing known is touched."""
    rep = REPRESENTATIONS[name]
    x, cost = features(rep, count=3, seed=8).astype(np.float32), COSTS[kind](3)
    assert cost.gradient(x, rep).dtype == np.float32
    move = costs.guide(cost, rep, 1e-3, scaling="constant")
    moved = move(x, np.full((3, LENGTH), 9))
    assert moved.dtype == np.float32
    assert (cost.value(moved, rep) < cost.value(x, rep)).all()
    np.testing.assert_array_equal(moved[:, :PAST], x[:, :PAST])


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("kind", COSTS)
def test_a_costs_own_step_brings_it_down_whatever_its_scale(kind, name):
    """No gradient is left along the step; a hundredth of the cost has the same step.

    2 % of the first slope is what the search for a zero leaves, and as much the weighted sum.
    """
    rep = REPRESENTATIONS[name]
    x = features(rep, count=3, seed=8)
    cost = COSTS[kind](3)
    step = costs.own_step(cost, x, rep)
    assert not step[:, :PAST].any()
    # Features drawn at random are nearer to a far goal than any walk leads.
    assert kind == "waypoint, far" or (cost.value(x - step, rep) < cost.value(x, rep)).all()

    class Scaled:
        """A cost without a step of its own."""

        def __init__(self, factor):
            self.factor = factor

        def value(self, features, rep):
            return self.factor * cost.value(features, rep)

        def gradient(self, features, rep):
            return self.factor * cost.gradient(features, rep)

    searched = costs.own_step(Scaled(1.0), x, rep)
    np.testing.assert_allclose(costs.own_step(Scaled(0.01), x, rep), searched, rtol=1e-6, atol=1e-9)
    after = cost.gradient(x - searched, rep)
    slope, first = ((searched * g).sum((1, 2)) for g in (after, cost.gradient(x, rep)))
    assert (np.abs(slope) < 0.05 * first).all()
    assert (cost.value(x - searched, rep) < cost.value(x, rep)).all()


# --- goals of the world ---------------------------------------------------------------------------


@given(
    points=hnp.arrays(float, (2, 4, 3), elements=st.floats(-10, 10)),
    origin=hnp.arrays(float, (2, 2), elements=st.floats(-10, 10)),
    yaw=hnp.arrays(float, 2, elements=st.floats(-7, 7)),
)
def test_the_now_frame_by_complex_numbers(points, origin, yaw):
    """Turning in the plane is multiplication by e^{i yaw}. Of numbers of 20, 1e-13 is rounding."""
    frame = Frame(np.pad(origin, ((0, 0), (0, 1))), yaw)
    plane = points[..., 0] + 1j * points[..., 1]
    shift, turn = (origin[:, 0] + 1j * origin[:, 1])[:, None], np.exp(-1j * yaw)[:, None]

    def check(found, expected):
        np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], expected, atol=1e-13)

    found = costs.points_to_now(points, frame)
    check(found, (plane - shift) * turn)
    np.testing.assert_array_equal(found[..., 2], points[..., 2])
    np.testing.assert_allclose(costs.points_to_now(points[:, 0, :2], frame), found[:, 0, :2])
    check(costs.directions_to_now(points, frame), plane * turn)
    np.testing.assert_allclose(costs.points_to_world(found, frame), points, atol=1e-13)
    heading = costs.headings_to_now(np.array([1.0, -3.0]), frame)
    expected = np.exp(1j * np.array([1.0, -3.0])) * turn[:, 0]
    np.testing.assert_allclose(np.exp(1j * heading), expected, atol=1e-13)
    assert (np.abs(heading) <= np.pi).all()


def any_states(seed=0):
    rng = np.random.default_rng(seed)
    quat = Rotation.from_euler("ZYX", rng.uniform([-3, -1, -1], [3, 1, 1], (2 * LENGTH, 3)))
    return States(
        rng.normal(0, 0.5, (2, LENGTH, 3)),
        quat.as_quat()[:, [3, 0, 1, 2]].reshape(2, LENGTH, 4),
        rng.normal(size=(2, LENGTH, 3)),
        rng.normal(size=(2, LENGTH, 3)),
        rng.uniform(*g1.JOINT_RANGE.T, (2, LENGTH, 29)),
        rng.normal(size=(2, LENGTH, 29)),
        rng.normal(0, 0.5, (2, LENGTH, 30, 3)),
        rng.normal(size=(2, LENGTH, 30, 3)),
    )


@pytest.mark.parametrize("name", REPRESENTATIONS)
@given(yaw=st.floats(-4, 4), shift=hnp.arrays(float, 2, elements=st.floats(-9, 9)))
def test_turning_the_world_changes_no_cost(name, yaw, shift):
    """Robots, their goals and obstacles are moved together; the costs stay, to rounding.

    Features agree to 1e-14 (numbers of size 10); slopes of costs are 1000 at most.
    """
    rep, turn = REPRESENTATIONS[name], Rotation.from_euler("z", yaw)

    def rotated(vectors, offset=(0.0, 0.0)):
        padded = np.pad(vectors, (*[(0, 0)] * (vectors.ndim - 1), (0, 3 - vectors.shape[-1])))
        moved = turn.apply(padded.reshape(-1, 3)).reshape(padded.shape) + [*offset, 0]
        return moved[..., : vectors.shape[-1]]

    def total(moved):
        """Of all costs, in the world as it is or in the moved one."""
        at = (lambda p: rotated(p, shift)) if moved else (lambda p: p)
        along = rotated if moved else (lambda v: v)
        states = any_states()
        if moved:
            quat = turn * Rotation.from_quat(states.root_quat.reshape(-1, 4)[:, [1, 2, 3, 0]])
            states = States(
                at(states.root_pos), quat.as_quat()[:, [3, 0, 1, 2]].reshape(2, LENGTH, 4),
                along(states.root_lin_vel), along(states.root_ang_vel), states.joint_pos,
                states.joint_vel, at(states.body_pos), along(states.body_lin_vel),
            )  # fmt: skip
        x, frame = rep.encode(states, NOW), now_frame(states, NOW)
        north = np.arctan2(*along(np.array([[1.0, 0.0]]))[0, ::-1])
        posts = np.array([[[0.5, 0.2], [-0.4, 0.6], [-0.5, -0.2], [0.4, -0.6]]] * 2)
        field = Cylinders(at(posts), np.full((2, 4), 0.2))
        goal = np.array([[0.7, 0.2], [-0.4, 0.9]])
        parts = [
            Joystick(costs.directions_to_now(along(goal), frame), np.full(2, 0.3)),
            Waypoint(costs.points_to_now(at(goal), frame)),
            Heading(costs.headings_to_now(np.full(2, 2 + north), frame)),
            Obstacle(field, frame, ARMS_AND_LEGS),
        ]  # fmt: skip
        return np.stack([part.value(x, rep) for part in parts])

    np.testing.assert_allclose(total(True), total(False), rtol=1e-11, atol=1e-11)


# --- waypoint, by hand ----------------------------------------------------------------------------


def blocks_of(x, rep=REP):
    return {name: x[:, PAST:, part] for name, part in rep.blocks.items()}


def test_far_weight_is_the_sheets():
    """At four distances; half a meter beyond the goal, so that the gradient is the weight."""
    for d, weight in ((0.1, 0.181), (0.35, 0.503), (1.0, 0.865), (2.0, 0.982)):
        x = np.zeros((1, LENGTH, REP.size))
        blocks_of(x)["root_pos"][..., 0] = d + 0.5
        gradient = Waypoint(np.array([[d, 0.0]])).gradient(x, REP)
        by_pos = blocks_of(gradient)["root_pos"]
        np.testing.assert_allclose(by_pos[..., 0], weight, atol=5e-4)
        assert np.count_nonzero(gradient) == FUTURE


def test_waypoint_far_away_is_the_papers():
    """Five metres away: 25 m^2 in each of the sixteen steps, and twice five metres of slope."""
    x = np.zeros((1, LENGTH, REP.size))
    cost, far = Waypoint(np.array([[3.0, 4.0]])), 1 - np.exp(-10)
    assert cost.value(x, REP)[0] == pytest.approx(16 * far * 25)
    by_pos = blocks_of(cost.gradient(x, REP))["root_pos"]
    np.testing.assert_allclose(by_pos, np.tile(far * 10 * np.array([-0.6, -0.8, 0]), (1, 16, 1)))


@pytest.mark.parametrize("distance", [0.02, 0.1, 5.0])
def test_the_waypoints_own_step_is_a_walk_of_one_velocity(distance):
    """By a search among velocities, where the bound does not act; else at the bound.

    Both terms have their minimum with their weights 1 - e^{-2d} and e^{-2d}.
    """
    goal = distance * np.array([[0.6, 0.8]])
    cost, x = Waypoint(goal, speed=0.5, sideways=0.5), features(count=1)
    blocks = blocks_of(x - cost.full_step(x, REP))
    far = 1 - np.exp(-2 * distance)
    ahead = costs.AHEAD[PAST:]
    sizes = np.linspace(0, 0.5, 50001)
    off = sizes[:, None] * ahead - distance
    best = sizes[(off**2).sum(1).argmin()]
    velocity = best * goal[0] / distance
    moved = blocks["root_lin_vel"][0, :, :2]
    np.testing.assert_allclose(moved, np.tile(far * velocity, (16, 1)), atol=2e-5)
    before = blocks_of(x)["root_pos"][0, :, :2]
    np.testing.assert_allclose(
        blocks["root_pos"][0, :, :2], (1 - far) * before + far * velocity * ahead[:, None],
        atol=2e-5,
    )  # fmt: skip
    assert (best == 0.5) == (distance == 5.0)
    slow = blocks_of(x - Waypoint(goal, speed=0.5, sideways=0.3).full_step(x, REP))
    bounded = np.minimum(velocity, [np.inf, 0.3])
    np.testing.assert_allclose(
        slow["root_lin_vel"][0, :, :2], np.tile(far * bounded, (16, 1)), atol=2e-5
    )


def test_at_the_waypoint_only_speed_counts():
    x = features(count=1)
    cost = Waypoint(np.zeros((1, 2)))
    velocity = blocks_of(x)["root_lin_vel"][..., :2]
    assert cost.value(x, REP)[0] == pytest.approx((velocity**2).sum())
    gradient = cost.gradient(x, REP)
    np.testing.assert_array_equal(blocks_of(gradient)["root_lin_vel"][..., :2], 2 * velocity)
    assert np.count_nonzero(gradient) == 2 * FUTURE


# --- standing and facing --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-4, 9e-3, 1.1e-2, 1.0, 3.1, 5.0])
def test_root_heading_by_rotation_matrices(size):
    """Value to rounding; slope by central differences of SciPy's, h = 1e-5: rounding 1e-11, and
    h^2 / 6 times a third derivative of 1000 or less, none of these heading steeply up: 2e-8."""
    rng, h = np.random.default_rng(4), 1e-5
    rotvec = rng.normal(size=(200, 3))
    rotvec *= size / np.linalg.norm(rotvec, axis=1, keepdims=True)

    def heading(r):
        matrix = Rotation.from_rotvec(r).as_matrix()
        return np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])

    upright = np.abs(Rotation.from_rotvec(rotvec).as_matrix()[:, 2, 0]) < 0.98
    assert upright.sum() > 150
    rotvec = rotvec[upright]
    found, slope = costs.root_heading(rotvec)
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * heading(rotvec)), atol=1e-13)
    for axis in range(3):
        shift = h * np.eye(3)[axis]
        change = heading(rotvec + shift) - heading(rotvec - shift)
        change = (change + np.pi) % (2 * np.pi) - np.pi
        np.testing.assert_allclose(slope[:, axis], change / (2 * h), atol=1e-6)


def test_a_root_that_points_straight_up_is_pushed_by_a_bounded_amount():
    rotvec = np.array([[0, -np.pi / 2, 0], [1e-9, np.pi / 2, 0]])
    assert (np.abs(costs.root_heading(rotvec)[1]) <= np.sqrt(1000) * np.pi).all()


def test_heading_turns_the_shorter_way_at_its_rate():
    """To 190 degrees it is turned by -170; 0.1 rad at 0.5 rad/s are ten of sixteen steps."""
    wanted, rate = Heading(np.radians([190.0, 0.0])).path()
    np.testing.assert_allclose(wanted[0], -0.01 * np.arange(1, 17))
    np.testing.assert_allclose(rate, [[-0.5] * 16, [0.0] * 16])
    assert not wanted[1].any()
    each, _ = Heading(np.array([1.0, -1.0]), rate=np.array([0.25, 0.0])).path()
    np.testing.assert_allclose(each, [0.005 * np.arange(1, 17), np.zeros(16)])
    wanted, rate = Heading(np.array([0.1])).path()
    np.testing.assert_allclose(wanted[0], np.minimum(0.01 * np.arange(1, 17), 0.1))
    np.testing.assert_array_equal(rate[0, [0, 8, 10, 15]], [0.5, 0.5, 0, 0])
    x = features(count=1)
    blocks_of(x)["root_rot"][...] = 0
    blocks_of(x)["root_rot"][..., 2] = wanted
    blocks_of(x)["root_ang_vel"][..., 2] = rate
    assert Heading(np.array([0.1])).value(x, REP)[0] == pytest.approx(0, abs=1e-25)
    at_once = Heading(np.array([0.1]), rate=np.inf, consistent=0.0)
    np.testing.assert_allclose(at_once.path()[0], np.full((1, 16), 0.1))
    blocks_of(x)["root_rot"][..., 2] = -3.1  # on the other side of where headings wrap
    step = blocks_of(Heading(np.array([0.1])).full_step(x, REP))
    around = 2 * np.pi * (wanted > np.pi - 3.1)
    np.testing.assert_allclose(step["root_rot"][..., 2], -3.1 - wanted + around)
    assert not step["root_ang_vel"].any()
    behind = Heading(np.array([3.1]), rate=np.inf, consistent=0.0)
    off = 2 * np.pi - 6.2
    assert behind.value(x, REP)[0] == pytest.approx(16 * 0.5 * off**2)
    by_rot = blocks_of(behind.gradient(x, REP))["root_rot"]
    np.testing.assert_allclose(by_rot, np.tile([0, 0, off], (1, 16, 1)), atol=1e-12)


# --- obstacles ------------------------------------------------------------------------------------


@given(delta=st.floats(1e-3, 1.0))
def test_barrier_is_the_closed_form(delta):
    """Section 17 of the sheet: values and slopes at delta, 0 and -delta, from both sides of delta.

    A step of 1e-9 delta changes the value by 1e-9 and the slope by as much of itself.
    """
    log = -np.log(delta)
    found = barrier(np.array([delta, 0.0, -delta, np.e * delta]), delta)
    np.testing.assert_allclose(found, [log, log + 1.5, log + 4, log - 1], rtol=1e-12, atol=1e-12)
    assert barrier_slope(0.0, delta) == pytest.approx(-2 / delta)
    assert barrier_slope(2 * delta, delta) == pytest.approx(-0.5 / delta)
    for side in (1 - 1e-9, 1, 1 + 1e-9):
        assert barrier(side * delta, delta) == pytest.approx(log, abs=2e-9)
        assert barrier_slope(side * delta, delta) == pytest.approx(-1 / delta, rel=2e-9)


@given(a=st.floats(-2, 2), b=st.floats(-2, 2))
def test_barrier_falls_and_its_slope_rises_with_distance(a, b):
    a, b = min(a, b), max(a, b)
    assert barrier(a) >= barrier(b)
    assert barrier_slope(a) <= barrier_slope(b) < 0


def post_ahead(distance, **options):
    """A post, 0.1 m in radius, at this distance from the sphere about a pelvis at the origin."""
    center = np.array([[[distance + 0.18 + 0.1, 0.0]]])
    return Obstacle(Cylinders(center, np.array([[0.1]])), bodies=("pelvis",), **options)


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_obstacle_by_hand(name):
    rep = REPRESENTATIONS[name]
    x = np.zeros((1, LENGTH, rep.size))
    for distance, value, slope in (
        (0.3, -np.log(0.3), 1 / 0.3),
        (0.1, -np.log(0.1), 10.0),
        (0.0, -np.log(0.1) + 1.5, 20.0),
        (-0.1, -np.log(0.1) + 4, 30.0),
    ):
        cost = post_ahead(distance)
        # From where the cost begins, at 0.6 m.
        assert cost.value(x, rep)[0] == pytest.approx(16 * (value + np.log(0.6)))
        by_pos = blocks_of(cost.gradient(x, rep), rep)["root_pos"]
        np.testing.assert_allclose(by_pos, np.tile([slope, 0, 0], (1, 16, 1)))
    assert post_ahead(0.599).value(x, rep)[0] > 0
    for cost in (post_ahead(0.601), post_ahead(0.3, cutoff=0.25)):
        assert cost.value(x, rep)[0] == 0 and not cost.gradient(x, rep).any()
    assert post_ahead(0.3, radii=(0.08,)).distance(x, rep) == pytest.approx(0.4)


def test_only_the_nearest_obstacle_of_each_link_counts():
    x = np.zeros((1, LENGTH, REP.size))
    near, far = np.array([0.5, 0.0]), np.array([-0.6, 0.0])
    both = Obstacle(Cylinders(np.stack([far, near])[None], np.full((1, 2), 0.1)))
    one = Obstacle(Cylinders(near[None, None], np.full((1, 1), 0.1)))
    np.testing.assert_array_equal(both.gradient(x, REP), one.gradient(x, REP))


def test_a_hand_that_nears_a_post_turns_the_robot_away():
    """Body-Pos. The robot is at (1, 2) and heads north, along y; its left hand is 0.5 m west of it,
    a post 0.4 m south of the hand. All is pushed north: for the root that is north, for the hand in
    its own axes forward, and for the heading clockwise, the hand being west."""
    x = np.zeros((1, LENGTH, REP.size))
    blocks = blocks_of(x)
    hand = 3 * g1.BODY_NAMES.index("left_wrist_yaw_link")
    blocks["body_pos"][..., hand : hand + 3] = (0.0, 0.5, 0.9)
    blocks["root_pos"][...] = (1.0, 2.0, 0.8)
    blocks["root_rot"][..., 2] = np.pi / 2
    cost = Obstacle(Cylinders(np.array([[[0.5, 1.6]]]), np.array([[0.13]])),
                    bodies=("left_wrist_yaw_link",))  # fmt: skip
    np.testing.assert_allclose(cost.distance(x, REP), 0.4 - 0.13 - 0.07)
    push = {name: -part[0, 0] for name, part in blocks_of(cost.gradient(x, REP)).items()}
    slope = 1 / 0.2
    np.testing.assert_allclose(push["root_pos"], [0, slope, 0], atol=1e-12)
    np.testing.assert_allclose(push["body_pos"][hand : hand + 3], [slope, 0, 0], atol=1e-12)
    np.testing.assert_allclose(push["root_rot"], [0, 0, -0.5 * slope], atol=1e-12)
    others = np.delete(push["body_pos"], [hand, hand + 1, hand + 2])
    assert not others.any() and not push["root_lin_vel"].any()


def test_body_pos_points_are_the_decoded_states():
    """Links of `decode` in the world, taken into the now frame by SciPy. Numbers of size 10."""
    x = features(seed=9)
    frame = frames(2)
    world = REP.decode(x, frame).body_pos
    expected = Rotation.from_euler("z", -2.2).apply(
        (world - frame.origin[:, None, None]).reshape(-1, 3)
    )
    found = costs.body_points(x, REP, g1.BODY_NAMES)
    np.testing.assert_allclose(found.pos.reshape(-1, 3), expected, atol=1e-13)


def test_joint_rot_points_are_mujocos():
    """All links against `mj_kinematics`; to 1e-13: chains of ten links, lengths of a meter."""
    rep = representation("joint_rot")
    x = features(rep, count=1, seed=10)
    blocks = {name: x[..., part] for name, part in rep.blocks.items()}
    blocks["joint_pos"][...] = np.random.default_rng(11).uniform(*g1.JOINT_RANGE.T, (1, LENGTH, 29))
    model = compile_model()
    data = mujoco.MjData(model)
    bodies = [model.body(name).id for name in g1.BODY_NAMES]
    joints = [model.joint(name).qposadr[0] for name in g1.JOINT_NAMES]
    found = costs.body_points(x, rep, g1.BODY_NAMES).pos[0]
    some = ARMS_AND_LEGS[::-1]
    of_some = costs.body_points(x, rep, some).pos[0]
    for step in range(LENGTH):
        data.qpos[:3] = blocks["root_pos"][0, step]
        turn = Rotation.from_rotvec(blocks["root_rot"][0, step])
        data.qpos[3:7] = turn.as_quat()[[3, 0, 1, 2]]
        data.qpos[joints] = blocks["joint_pos"][0, step]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(found[step], data.xpos[bodies], atol=1e-13)
        expected = [data.body(name).xpos for name in some]
        np.testing.assert_allclose(of_some[step], expected, atol=1e-13)


def test_joint_rot_pull_back_is_mujocos_jacobian():
    """Joints and root position against `mj_jac`, of which the free joint's first rows are world."""
    rep = representation("joint_rot")
    x = features(rep, count=1, seed=12)[:, :1]
    model = compile_model()
    data = mujoco.MjData(model)
    root, rot, joint = (rep.blocks[name] for name in ("root_pos", "root_rot", "joint_pos"))
    data.qpos[:3], data.qpos[7:] = x[0, 0, root], x[0, 0, joint]
    data.qpos[3:7] = Rotation.from_rotvec(x[0, 0, rot]).as_quat()[[3, 0, 1, 2]]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    push = np.random.default_rng(13).normal(size=(len(ARMS_AND_LEGS), 3))
    expected = np.zeros(model.nv)
    for name, force in zip(ARMS_AND_LEGS, push, strict=True):
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacBody(model, data, jacobian, None, model.body(name).id)
        expected += force @ jacobian
    found = costs.body_points(x, rep, ARMS_AND_LEGS).pull_back(push[None, None])[0, 0]
    np.testing.assert_allclose(found[root], expected[:3], atol=1e-12)
    np.testing.assert_allclose(found[joint], expected[6:], atol=1e-12)


def test_every_link_has_a_radius():
    """Section 9.4 of the sheet: trunk 0.18, thigh 0.10, shank and foot 0.08, arm and hand 0.07."""
    field = Cylinders(np.zeros((1, 1, 2)), np.ones((1, 1)))
    x = np.zeros((1, LENGTH, REP.size))
    radius = -1 - Obstacle(field, bodies=g1.BODY_NAMES).distance(x, REP)[0, 0]
    of = dict(zip(g1.BODY_NAMES, radius.round(6), strict=True))
    assert of["pelvis"] == of["torso_link"] == 0.18 and of["right_hip_yaw_link"] == 0.10
    assert of["left_knee_link"] == of["right_ankle_roll_link"] == 0.08
    assert of["left_shoulder_yaw_link"] == of["right_wrist_yaw_link"] == 0.07
    assert Obstacle(field).bodies == ("pelvis", "torso_link")


# --- sums and one's own ---------------------------------------------------------------------------


def test_a_sum_is_the_weighted_sum():
    other = waypoint(2, 0.3, 0.2)
    x, parts = features(), [(2.0, joystick()), (np.array([0.5, 0.0]), other)]
    total = Sum(parts)
    value = 2 * joystick().value(x, REP) + [0.5, 0] * other.value(x, REP)
    np.testing.assert_allclose(total.value(x, REP), value, rtol=1e-14)
    gradient = 2 * joystick().gradient(x, REP)
    gradient[0] += 0.5 * other.gradient(x, REP)[0]
    np.testing.assert_allclose(total.gradient(x, REP), gradient, rtol=1e-14)


def test_a_correction_is_paid_by_the_prediction():
    """Nothing is to be paid where predictions are ahead of what is wanted by the offset."""
    cost = joystick(yaw_rate=np.zeros(2))
    offset = np.array([[0.2, -0.1, 0.3], [0.0, 0.1, -0.3]])
    velocity, position, _ = cost.path()
    x = features()
    ahead = costs.AHEAD[PAST:, None]
    shift = offset[:, None, :2]
    for block, column, wanted in (
        ("root_lin_vel", 0, velocity[:, PAST:] + shift),
        ("root_pos", 0, position[:, PAST:] + shift * ahead),
        ("root_rot", 2, offset[:, None, 2:] * ahead), ("root_ang_vel", 2, offset[:, None, 2:]),
    ):  # fmt: skip
        start = REP.blocks[block].start + column
        x[:, PAST:, start : start + wanted.shape[-1]] = wanted
    corrected, before = Corrected(cost, offset), x.copy()
    np.testing.assert_allclose(corrected.value(x, REP), 0, atol=1e-12)
    assert not np.abs(corrected.gradient(x, REP)).max() > 1e-12
    assert (cost.value(x, REP) > 0.1).all() and (x == before).all()


def test_places_are_where_velocities_lead():
    """A constant velocity for 0.32 s, and positions that say something else."""
    seen = []

    def look(blocks):
        seen.append(blocks["root_pos"].copy())
        return np.zeros(1), {}

    x = features(count=1)
    x[:, :, VELOCITY : VELOCITY + 2] = 0.5, -0.25
    ByVelocity(UserCost(look)).value(x, REP)
    start = REP.blocks["root_pos"].start
    expected = x[:, NOW, None, start : start + 2] + costs.AHEAD[PAST:, None] * (0.5, -0.25)
    np.testing.assert_allclose(seen[0][:, PAST:, :2], expected, atol=1e-12)
    np.testing.assert_array_equal(seen[0][:, PAST:, 2], x[:, PAST:, start + 2])


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("kind", ["waypoint", "obstacle", "obstacle, limbs"])
def test_the_gradient_by_velocities_is_the_values_derivative_by_them(kind, name):
    """Central differences as above, of the root's horizontal velocities alone."""
    rep, h = REPRESENTATIONS[name], 1e-6
    x = features(rep, count=1, seed=6)
    plane = rep.blocks["root_lin_vel"].start + np.arange(2)
    gradient = ByVelocity(COSTS[kind](1)).gradient(x, rep)[0]
    cost = ByVelocity(COSTS[kind](4))
    for step in range(PAST, LENGTH):
        windows = np.repeat(x, 4, 0)
        windows[[0, 1], step, plane] += h
        windows[[2, 3], step, plane] -= h
        up, down = np.split(cost.value(windows, rep), 2)
        np.testing.assert_allclose(gradient[step, plane], (up - down) / (2 * h), atol=5e-7)
    gradient[PAST:, plane] = 0
    assert not gradient.any()


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_posts_own_step_is_the_walk_that_gets_furthest_out_of_its_reach(name):
    """By a search among velocities: the squares of what is left to where the post does not count.

    The post is 0.5 m ahead of a pelvis that stands.
    """
    rep = REPRESENTATIONS[name]
    cost = ByVelocity(post_ahead(0.5))
    x = np.zeros((1, LENGTH, rep.size))
    step = cost.full_step(x, rep)
    others = np.delete(np.arange(rep.size), rep.blocks["root_lin_vel"].start)
    assert not step[..., others].any() and not step[:, :PAST].any()
    back = step[0, PAST:, rep.blocks["root_lin_vel"].start]
    wanted = 0.6 - 0.5  # to the distance at which a post does not count
    sizes = np.linspace(0, 5, 50001)
    left = wanted - sizes[:, None] * costs.AHEAD[PAST:]
    np.testing.assert_allclose(back, sizes[(left**2).sum(1).argmin()], atol=2e-4)
    assert (cost.value(x - 0.3 * step, rep) < cost.value(x, rep)).all()
    far = ByVelocity(post_ahead(5.0))
    assert not far.full_step(x, rep).any()


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_of_the_places_to_which_a_posts_own_step_leads_a_share_is_asked_for(name):
    rep = REPRESENTATIONS[name]
    x = np.zeros((1, LENGTH, rep.size))
    alone = ByVelocity(post_ahead(0.5)).full_step(x, rep)
    pos, vel = rep.blocks["root_pos"].start, rep.blocks["root_lin_vel"].start
    for weight, share in ((0.5, 0.5), (1.0, 1.0), (3.0, 1.0)):
        step = ByVelocity(post_ahead(0.5), weight).full_step(x, rep)
        for axis in range(2):
            places = costs.AHEAD[PAST:] * alone[0, PAST:, vel + axis]
            np.testing.assert_allclose(step[0, PAST:, pos + axis], share * places, atol=1e-12)
            step[0, PAST:, pos + axis] = 0
        np.testing.assert_array_equal(step, alone)
    for wrong in (-0.1, np.inf, np.nan):
        with pytest.raises(ConfigError, match="consistent"):
            ByVelocity(post_ahead(0.5), wrong)


@pytest.mark.parametrize("kind", ["waypoint", "heading"])
def test_by_velocity_a_cost_that_is_no_obstacle_is_lowered_along_the_gradient(kind):
    cost, x = ByVelocity(COSTS[kind](2)), features(seed=4)
    step = cost.full_step(x, REP)
    if kind == "heading":
        assert not step.any()
    else:
        assert (cost.value(x - step, REP) < cost.value(x, REP)).all()


def test_a_users_cost_in_torch_is_the_joysticks():
    """Eq. 7 by autograd against the one worked out by hand, in both precisions."""
    goal = np.array([[0.6, 0.1], [-0.3, 0.0]])

    def eq_7(blocks):
        error = blocks["root_lin_vel"][:, PAST:, :2] - torch.as_tensor(goal)[:, None]
        return 0.5 * (error**2).sum((1, 2))

    truth, cost = Joystick(goal, np.zeros(2), turn=0.0), UserCost(eq_7, torch=True)
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        x = features().astype(dtype)
        np.testing.assert_allclose(cost.value(x, REP), truth.value(x, REP), rtol=10 * tolerance)
        found = cost.gradient(x, REP)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, truth.gradient(x, REP), atol=tolerance)
    with torch.no_grad():
        assert cost.gradient(x, REP).any()


def test_a_users_cost_may_read_the_past_but_does_not_move_it():
    """Smoothness: differences of velocities from the present on."""

    def smooth(blocks):
        return ((blocks["root_lin_vel"][:, PAST:] - blocks["root_lin_vel"][:, NOW:-1]) ** 2).sum(
            (1, 2)
        )

    x = features()
    gradient = UserCost(smooth, torch=True).gradient(x, REP)
    assert not gradient[:, :PAST].any()
    velocity = x[..., REP.blocks["root_lin_vel"]]
    expected = 2 * (2 * velocity[:, PAST] - velocity[:, NOW] - velocity[:, PAST + 1])
    np.testing.assert_allclose(gradient[:, PAST, REP.blocks["root_lin_vel"]], expected)


def test_a_users_function_cannot_change_the_features():
    def spoil(blocks):
        blocks["root_pos"][:] = 0
        return np.zeros(2), {}

    x = features()
    UserCost(spoil).gradient(x, REP)
    np.testing.assert_array_equal(x, features())


def test_costs_load_neither_torch_nor_scipy():
    code = "import bm_envs.diffusion.costs, sys; print({'torch', 'scipy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr


# --- bad input ------------------------------------------------------------------------------------

TWO = np.zeros((2, 2))
POST = Cylinders(np.zeros((1, 1, 2)), np.ones((1, 1)))
NUMBERS = "expected finite numbers of shape"
X = np.zeros((3, LENGTH, REP.size))


def no_dict(blocks):
    return np.zeros(3)


def wrong_block(blocks):
    return np.zeros(3), {"root_poss": 0}


def wrong_shape(blocks):
    return np.zeros(3), {"root_pos": np.zeros((3, LENGTH, 2))}


def wrong_value(blocks):
    return np.zeros((3, LENGTH)), {}


def not_finite(blocks):
    return np.zeros(3), {"root_pos": np.full((3, LENGTH, 3), np.nan)}


def no_torch(blocks):
    return blocks["root_pos"].detach().sum((1, 2))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Joystick(np.zeros(2), np.zeros(1)),
         f"Joystick: velocity has shape (2,), {NUMBERS} [N, 2]."),
        (lambda: Joystick(TWO, np.zeros(3)),
         "Joystick: velocity is of 2 and yaw_rate is of 3 robots, expected as many."),
        (lambda: Waypoint(np.zeros((2, 3))),
         f"Waypoint: goal has shape (2, 3), {NUMBERS} [N, 2]."),
        (lambda: Waypoint(TWO + np.nan),
         f"Waypoint: goal is not finite everywhere, {NUMBERS} [N, 2]."),
        (lambda: Waypoint(TWO, speed=0.0),
         "Waypoint: speed is 0.0, expected a positive finite number of m/s."),
        (lambda: Waypoint(TWO, sideways=-0.1),
         "Waypoint: sideways is -0.1, expected a positive finite number of m/s."),
        (lambda: Waypoint(TWO, reach=1.0),
         "Waypoint: reach is 1.0, but the pull is now the paper's at any distance; leave it out, "
         "and bound the walk by speed."),
        (lambda: costs.guide(joystick(), REP, 30.0),
         "strength is 30, expected 0 to 1, the share of each cost's own step (a factor of the "
         "gradient, as in 0.1, needs scaling 'linear')."),
        (lambda: costs.guide(joystick(), REP, -1.0, scaling="linear"),
         "strength is -1, expected 0 or more."),
        (lambda: Waypoint(TWO).value(X, REP),
         "Waypoint: its numbers are of 2 robots, the features of 3."),
        (lambda: Heading(np.zeros(2), consistent=-1.0),
         "Heading: consistent is -1.0, expected a weight of 0 or more."),
        (lambda: Heading(np.zeros(2), rate=np.array([1.0, -0.5])),
         "Heading: rate is -0.5, expected rad/s of 0 or more."),
        (lambda: Heading(np.zeros(2), rate=np.ones(3)),
         "Heading: rate is of shape (3,), expected one number or (2,)."),
        (lambda: Heading(np.zeros(2), rate=np.inf),
         "Heading: consistent needs a rate, expected rate in rad/s."),
        (lambda: Obstacle(POST, bodies=("pelvis", "torso")),
         "Unknown body 'torso'; did you mean 'torso_link'? 30 are known."),
        (lambda: Obstacle(POST, bodies=("pelvis", "pelvis")),
         "bodies are pelvis, pelvis, expected each once."),
        (lambda: Obstacle(POST, bodies=()), "bodies are none, expected each once."),
        (lambda: Obstacle(POST, radii=(0.1,)),
         f"Obstacle: radii has shape (1,), {NUMBERS} [2]."),
        (lambda: Obstacle(POST, radii=(0.1, -0.1)),
         "Obstacle: radii hold -0.1, expected 0 or more m."),
        (lambda: Obstacle(POST, delta=0.0),
         "Obstacle: delta is 0.0, expected a positive finite number of m."),
        (lambda: Obstacle(POST, cutoff=np.inf),
         "Obstacle: cutoff is inf, expected a positive finite number of m."),
        (lambda: Obstacle(POST, frames(2)).value(X, REP),
         "points have shape (3, 16, 2, 3), expected [2, ..., 2 or 3], as the frame is of 2 "
         "robots."),
        (lambda: Obstacle(POST).value(X, REP._replace(name="mine", blocks={})),
         "Representation 'mine' tells no links, expected a block body_pos or joint_pos."),
        (lambda: costs.points_to_now(np.zeros(2), frames(2)),
         "points have shape (2,), expected [2, ..., 2 or 3], as the frame is of 2 robots."),
        (lambda: Sum([]), "Sum: parts are none, expected one or more."),
        (lambda: Sum([(-1.0, Waypoint(TWO))]), "Sum: weight 0 is -1, expected 0 or more."),
        (lambda: Sum([(1.0, Waypoint(TWO)), (np.zeros((2, 2)), Waypoint(TWO))]),
         f"Sum: weight 1 has shape (2, 2), {NUMBERS} [N]."),
        (lambda: Sum([(np.ones(2), Waypoint(np.zeros((3, 2))))]).value(X, REP),
         "Sum: its numbers are of 2 robots, the features of 3."),
        (lambda: UserCost("crouch"), "UserCost: function is 'crouch', expected a function."),
        (lambda: UserCost(no_dict).value(X, REP),
         "UserCost 'no_dict' returns ndarray, expected the value and a dict of gradients by block "
         "(or torch=True)."),
        (lambda: UserCost(no_dict, torch=True).value(X, REP),
         "UserCost 'no_dict' returns ndarray, expected a tensor that depends on the blocks by "
         "torch operations."),
        (lambda: UserCost(no_torch, torch=True).value(X, REP),
         "UserCost 'no_torch' returns Tensor, expected a tensor that depends on the blocks by "
         "torch operations."),
        (lambda: UserCost(wrong_block).value(X, REP),
         "Unknown block of the gradient of UserCost 'wrong_block' 'root_poss'; did you mean "
         "'root_pos' or 'root_rot'? Known: body_lin_vel, body_pos, root_ang_vel, root_lin_vel, "
         "root_pos, root_rot."),
        (lambda: UserCost(wrong_shape).value(X, REP),
         f"gradient of block 'root_pos' of UserCost 'wrong_shape' has shape (3, 20, 2), {NUMBERS} "
         "[3, 20, 3]."),
        (lambda: UserCost(wrong_value).value(X, REP),
         f"value of UserCost 'wrong_value' has shape (3, 20), {NUMBERS} [3]."),
        (lambda: UserCost(not_finite).value(X, REP),
         "gradient of block 'root_pos' of UserCost 'not_finite' is not finite everywhere, "
         f"{NUMBERS} [3, 20, 3]."),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        make()


def test_torch_that_is_missing_is_told_when_the_cost_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=re.escape(
        "UserCost 'crouch' is differentiated by the package torch: pip install 'bm-envs[train]', "
        "or return the gradient yourself."
    )):  # fmt: skip
        UserCost(crouch, torch=True)
    UserCost(crouch_by_hand)
