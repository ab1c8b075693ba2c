"""Densities of Gaussian policies against torch's own, and the learning rate that follows them."""

import pytest
import torch

from bm_envs.learning.gaussian import (
    adaptive_learning_rate,
    gaussian_entropy,
    gaussian_kl,
    log_prob,
)


def test_log_prob_and_kl_agree_with_torch():
    torch.manual_seed(0)
    mean_old, mean, action = torch.randn(3, 50, 29, dtype=torch.float64)
    log_std_old, log_std = 0.3 * torch.randn(2, 29, dtype=torch.float64)
    old = torch.distributions.Normal(mean_old, log_std_old.exp())
    new = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(log_prob(action, mean, log_std), new.log_prob(action).sum(-1))
    expected = torch.distributions.kl_divergence(old, new).sum(-1).mean()
    torch.testing.assert_close(gaussian_kl(mean_old, log_std_old, mean, log_std), expected)
    torch.testing.assert_close(gaussian_entropy(log_std), new.entropy()[0].sum())


def test_adaptive_learning_rate_rule():
    assert adaptive_learning_rate(1e-3, 0.03, 0.01) == pytest.approx(1e-3 / 1.5)
    assert adaptive_learning_rate(1e-3, 0.004, 0.01) == pytest.approx(1.5e-3)
    assert adaptive_learning_rate(1e-3, 0.01, 0.01) == 1e-3
    assert adaptive_learning_rate(1e-3, 0.0, 0.01) == 1e-3  # the first mini-batch has not moved yet
    assert (
        adaptive_learning_rate(1.2e-5, 1.0, 0.01) == 1e-5
        and adaptive_learning_rate(9e-3, 0.001, 0.01) == 1e-2
    )
