"""Costs against finite differences and worked values; guides on data with a known posterior."""

import numpy as np
import pytest

from bm_envs.errors import ConfigError
from bm_envs.tasks.guided import costs, sampler
from bm_envs.tasks.guided.costs import Joystick
from bm_envs.tasks.guided.representation import REPRESENTATIONS, representation
from bm_envs.tasks.guided.sampler import LENGTH, NOW, PAST, SCHEDULE, K

REP = representation("body_pos")
VELOCITY = REP.blocks["root_lin_vel"].start


def joystick(**changes):
    values = dict(
        velocity=np.array([[0.6, 0.1], [-0.3, 0.0]]), yaw_rate=np.array([0.5, 0.0]), consistent=0.7
    )
    return Joystick(**{**values, **changes})


def features(rep=REP, count=2, seed=0):
    return np.random.default_rng(seed).normal(0, 0.5, (count, LENGTH, rep.size))


@pytest.mark.parametrize("name", REPRESENTATIONS)
@pytest.mark.parametrize("consistent", [0.0, 0.7])
def test_gradient_is_the_values_derivative(name, consistent):
    """Central differences of a quadratic are exact but for rounding."""
    rep, cost = REPRESENTATIONS[name], joystick(consistent=consistent)
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
    cost = Joystick(np.array([[0.5, 0.0]]), np.zeros(1), consistent=0.0)
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
        assert not steps[15:].any()
    assert sampler.guidance_steps("score", K - 1)[19] == pytest.approx(408, rel=5e-3)
    with pytest.raises(ConfigError, match="guidance scaling"):
        sampler.guidance_steps("linaer")


def identity(x):
    return x


def guided(cost, strength, **options):
    return costs.guide(cost, REP, identity, identity, strength, **options)


@pytest.mark.parametrize("scaling", ["linear", "score", "noise", "variance", "constant"])
def test_every_scaling_moves_towards_the_goal(scaling):
    cost, x = joystick(consistent=0.0), features().astype(np.float32)
    levels = np.full((2, LENGTH), 9)
    levels[:, :PAST] = 0
    moved = guided(cost, 0.1, scaling=scaling)(x, levels)
    assert (cost.value(moved, REP) < cost.value(x, REP)).all()
    np.testing.assert_array_equal(moved[:, :PAST], x[:, :PAST])
    others = np.delete(np.arange(REP.size), [VELOCITY, VELOCITY + 1])
    np.testing.assert_allclose(moved[..., others], x[..., others], atol=1e-6)


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
    goal = Joystick(np.full((count, 2), g), np.zeros(count), consistent=0.0)
    # A state of six numbers: the velocity, and one place for all that weighs nothing here.
    blocks = {name: slice(3, 6) for name in REP.blocks} | {"root_lin_vel": slice(0, 3)}
    small = REP._replace(blocks=blocks, mirror=(np.arange(6), np.ones(6)))
    move = costs.guide(goal, small, identity, identity, strength, scaling="score", most_step=1e9)
    past = np.full((count, PAST, 6), m, np.float32)
    found = sampler.sample(denoiser, past, 1, np.random.default_rng(0), guide=move)
    future = found.states[:, PAST:, :2]
    error = future.mean() - mean
    assert abs(error) < 4 * future.std() / np.sqrt(future.size)
    assert g < mean < m
    assert abs(found.actions.mean() - m) < 4 * s / np.sqrt(found.actions.size)
