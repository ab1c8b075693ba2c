"""Gaussian policies: densities, divergences, and a learning rate that follows them.

Letters in shapes: B samples, A action.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian. `[B, A]` -> `[B]`."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum() - 0.5 * np.log(2 * np.pi) * action.shape[-1]


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian, nats. `[A]` -> scalar."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


def gaussian_kl(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean KL divergence of the new from the old policy, nats. `[B, A]` -> scalar.

    `sum_A ln(s/s_old) + (s_old^2 + (m_old - m)^2) / (2 s^2) - 1/2`. Source: `rsl_rl`, `ppo.py`.
    """
    ratio = torch.exp(2 * (log_std_old - log_std))
    shift = (mean_old - mean) ** 2 * torch.exp(-2 * log_std)
    return (log_std - log_std_old + 0.5 * (ratio + shift) - 0.5).sum(-1).mean()


def adaptive_learning_rate(learning_rate: float, kl: float, desired_kl: float) -> float:
    """The learning rate after a step that moved the policy by `kl` nats.

    It falls above twice the desired divergence, and rises below half of it. Source: `rsl_rl`,
    `ppo.py`.
    """
    if kl > 2 * desired_kl:
        return max(1e-5, learning_rate / 1.5)
    if 0 < kl < desired_kl / 2:
        return min(1e-2, learning_rate * 1.5)
    return learning_rate
