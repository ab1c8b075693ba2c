"""Advantages against their definition, over the ends of episodes and over processes."""

import numpy as np
import pytest
import torch

from bm_envs.learning.processes import Processes
from bm_envs.learning.returns import (
    Means,
    explained_variance,
    gae,
    lambda_returns,
    mini_batches,
    standardized,
)


def test_gae_is_its_definition_and_stops_at_episode_ends():
    rng = np.random.default_rng(0)
    steps, robots, gamma, lam = 12, 3, 0.97, 0.9
    reward, value = rng.normal(size=(2, steps, robots))
    last = rng.normal(size=robots)
    done = rng.random((steps, robots)) < 0.2
    assert done.any()
    following = np.concatenate([value[1:], last[None]])
    delta = reward + gamma * following * ~done - value
    expected = np.zeros((steps, robots))
    for n in range(robots):
        for t in range(steps):
            for k in range(t, steps):
                expected[t, n] += (gamma * lam) ** (k - t) * delta[k, n]
                if done[k, n]:
                    break
    got = gae(*map(torch.as_tensor, (reward, value, last, done)), gamma, lam)
    # float64 sums of twelve numbers near one.
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-13)


def test_gae_with_lambda_one_and_true_values_is_zero_in_a_deterministic_chain():
    """A reward of 1 for ever has value 1 / (1 - gamma); truncated steps hold gamma V as reward."""
    gamma = 0.9
    value = torch.full((5, 1), 1 / (1 - gamma), dtype=torch.float64)
    reward = torch.ones(5, 1, dtype=torch.float64)
    done = torch.zeros(5, 1, dtype=torch.bool)
    done[2] = True
    reward[2] += gamma * value[2]  # truncated, not terminated
    advantage = gae(reward, value, value[0], done, gamma, 1.0)
    np.testing.assert_allclose(advantage.numpy(), 0.0, atol=1e-12)


def test_standardized_advantages_have_mean_zero_and_deviation_one():
    advantage = 3 + 5 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    found = standardized(advantage, Processes())
    # float32 sums over a thousand values.
    assert found.mean().item() == pytest.approx(0, abs=1e-6)
    assert found.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    order = torch.argsort(advantage)
    torch.testing.assert_close(torch.argsort(found), order, rtol=0, atol=0)


def test_explained_variance_is_one_for_true_values_and_zero_for_a_constant():
    returns = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert explained_variance(returns, returns).item() == pytest.approx(1, abs=1e-6)
    assert explained_variance(torch.full((100,), 7.0), returns).item() == pytest.approx(0, abs=1e-5)


def test_mini_batches_hold_every_sample_once():
    generator = torch.Generator().manual_seed(0)
    parts = mini_batches(24, 4, generator)
    assert [len(part) for part in parts] == [6] * 4
    order = torch.cat(list(parts))
    assert order.tolist() != list(range(24)) and sorted(order.tolist()) == list(range(24))
    state = generator.get_state()
    (whole,) = mini_batches(24, 1, generator)
    assert whole == slice(None) and torch.equal(state, generator.get_state())


def test_means_are_over_updates():
    means = Means()
    assert means.figures("losses/") == {}
    means.add(loss=torch.tensor(1.0), kl=0.5)
    means.add(loss=2.0, kl=0.0)
    assert means.figures("losses/") == {"losses/loss": 1.5, "losses/kl": 0.25}


def test_returns_of_the_critic_are_their_definition():
    rng = np.random.default_rng(0)
    steps, robots, discount, lam = 6, 4, 0.9, 0.7
    cost, value = rng.random((steps, robots)), rng.random((steps + 1, robots))
    counted = np.ones((steps, robots))
    expected = np.zeros((steps, robots))
    for n in range(robots):
        for h in range(steps):
            # The mean, by their weights, of the returns after 1, 2, ... steps.
            for length in range(1, steps - h + 1):
                plain = sum((1 - discount) * discount**k * cost[h + k, n] for k in range(length))
                plain += discount**length * value[h + length, n]
                weight = lam ** (length - 1) * (1 if length == steps - h else 1 - lam)
                expected[h, n] += weight * plain
    returns = lambda_returns(*map(torch.from_numpy, (cost, counted, value)), discount, lam)
    np.testing.assert_allclose(returns.numpy(), expected, atol=1e-13)


def test_behind_the_clips_end_the_last_cost_goes_on():
    cost, counted = torch.tensor([[2.0], [3.0], [9.0]]), torch.tensor([[1.0], [1.0], [0.0]])
    returns = lambda_returns(cost, counted, torch.full((4, 1), 7.0), 0.5, 1.0)
    assert returns[:2, 0].tolist() == [0.5 * 2 + 0.5 * 3, 3.0]
