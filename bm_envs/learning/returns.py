"""Returns and advantages of samples.

Letters in shapes: N robots, T steps; B imagined rollouts, H steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bm_envs.learning.processes import Processes


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


def lambda_returns(
    cost: Tensor, counted: Tensor, value: Tensor, discount: float, lam: float
) -> Tensor:
    """Mean discounted costs, the targets for the values of the states before each step. `[H, B]`.

    `G_h = (1 - g) c_h + g ((1 - l) V_{h+1} + l G_{h+1})`, `G_H = V_H`; behind a clip's end nothing
    changes any more, so that the state's value is the last cost.

    Args:
        cost: `[H, B]`, of the state after each step.
        counted: `[H, B]`, 1 up to the clip's end, then 0.
        value: `[H + 1, B]`, of the states before each step, and of the last.
        discount: g.
        lam: l.
    """
    returns, running = torch.empty_like(cost), value[-1]
    for h in reversed(range(len(cost))):
        ahead = (1 - lam) * value[h + 1] + lam * running
        inside = counted[h + 1] if h + 1 < len(cost) else counted[h]
        ahead = torch.where(inside > 0, ahead, cost[h])
        running = (1 - discount) * cost[h] + discount * ahead
        returns[h] = running
    return returns


def standardized(advantage: Tensor, processes: Processes) -> Tensor:
    """Advantages with mean 0 and standard deviation 1 over the samples of all processes."""
    moments = torch.stack([advantage.mean(), (advantage * advantage).mean()])
    processes.average(moments)
    std = (moments[1] - moments[0] ** 2).sqrt()
    return (advantage - moments[0]) / (std + 1e-8)


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """Share of the returns' variance that the values knew. `[B]` -> scalar."""
    return 1 - (returns - value).var() / (returns.var() + 1e-8)


def mini_batches(
    samples: int, count: int, generator: torch.Generator
) -> Sequence[Tensor | slice]:  # fmt: skip
    """Indices of `count` mini-batches, drawn without repetition; a single one is all in order."""
    if count == 1:
        return [slice(None)]
    order = torch.randperm(samples, generator=generator, device=generator.device)
    return order.split(samples // count)


class Means:
    """Means of figures that are taken in every update."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, **figures: Tensor | float) -> None:
        """One update's figures, the same names each time."""
        for name, value in figures.items():
            number = value.item() if isinstance(value, Tensor) else value
            self._sums[name] = self._sums.get(name, 0.0) + number
        self._count += 1

    def figures(self, prefix: str) -> dict[str, float]:
        """The means, as they are logged; empty without an update."""
        return {f"{prefix}{name}": total / self._count for name, total in self._sums.items()}
