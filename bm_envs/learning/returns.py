"""Returns and advantages of samples.

Letters in shapes: N robots, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor, value: Tensor, last_value: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimates `[T, N]`.

    Args:
        reward: `[T, N]`; a truncated step's already holds `gamma * V(final observation)`.
        value: `[T, N]`, V of the observation each action was chosen on.
        last_value: `[N]`, V of the observation after the last step.
        done: `[T, N]` bool, the episode ended in this step for whatever reason.
        gamma: discount.
        lam: lambda.
    """
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(last_value)
    following = last_value
    for t in reversed(range(len(reward))):
        alive = (~done[t]).to(reward.dtype)
        delta = reward[t] + gamma * following * alive - value[t]
        running = delta + gamma * lam * alive * running
        advantage[t] = running
        following = value[t]
    return advantage
