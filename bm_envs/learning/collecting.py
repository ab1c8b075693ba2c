"""What an iteration of a trainer collects, and the robots that collect it.

Letters in shapes: N robots, T steps, O policy and C critic observation, A action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm_envs.learning.folder import as_arrays
from bm_envs.learning.robots import Episodes, Robots, Step, mean_errors
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.task import TrackTask


def spread_ends(robots: Robots, task: TrackConfig) -> None:
    """Give the episodes different ages at the start of a run.

    Otherwise the time limit would truncate the episodes of all robots that survive in one and the
    same step.
    """
    if task.episode_s is not None:
        robots.spread_ends(round(task.episode_s / CONTROL_DT))


def iteration_figures(robots: Robots, episodes: Episodes) -> dict[str, float]:
    """What is logged of the steps since the last call: episodes, errors, statistics of starts."""
    starts = robots.sampler.metrics()
    return {
        **episodes.figures(), **mean_errors(robots),
        **{f"sampling/{name}": value for name, value in starts.items()},
    }  # fmt: skip


class Rollout:
    """The samples of one iteration, and what they were drawn from.

    Attributes:
        obs: `[T, N, O]`.
        critic_obs: `[T + 1, N, C]`, the last ones behind the last step.
        mean: `[T, N, A]`, of the policy.
        chosen: `[T, N, A]`, `mean` plus fresh noise, which is what the policy chose: the raw action
            is that plus a share of the last step's noise.
        log_std: `[A]`, of `chosen`, the fresh noise alone.
        reward: `[T, N]`.
        done: `[T, N]` bool, episodes that ended.
        truncated: `[T, N]` bool, those of them that ended with the clip or at the time limit.
        final_critic_obs: `[T, N, C]`, their last observations.
    """

    def __init__(
        self, steps: int, num_envs: int, task: TrackTask, device: torch.device | str = "cpu"
    ) -> None:
        def zeros(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(steps, num_envs, *sizes, dtype=dtype, device=device)

        self.obs = zeros(task.observation_size)
        self.critic_obs = torch.zeros(steps + 1, num_envs, task.critic_size, device=device)
        joints = task.robot.num_joints
        self.mean, self.chosen = zeros(joints), zeros(joints)
        self.log_std = torch.zeros(joints, device=device)
        self.reward = zeros()
        self.done, self.truncated = zeros(dtype=torch.bool), zeros(dtype=torch.bool)
        self.final_critic_obs = zeros(task.critic_size)

    def store(self, t: int, step: Step) -> None:
        """Keep what step `t` led to."""
        self.reward[t], self.truncated[t] = step.reward, step.truncated
        self.done[t] = step.terminated | step.truncated
        if step.final_critic_obs is not None:
            self.final_critic_obs[t] = step.final_critic_obs

    def get_state(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {name: value.cpu().numpy() for name, value in vars(self).items()}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        for name, value in vars(self).items():
            value.copy_(torch.as_tensor(state[name]))


class Collector:
    """Robots, what they see, the noise that they carry over, and the figures of their episodes.

    Attributes:
        obs: `[N, O]`, what the policy sees.
        critic_obs: `[N, C]`, what the critic sees.
        noise: `[N, A]`, of the last raw action; 0 where an episode begins.
    """

    def __init__(self, robots: Robots, seed: int) -> None:
        """Begin all episodes; `seed` is that of resets and noise."""
        self._robots, self._episodes = robots, Episodes(robots)
        self.noise = torch.zeros(
            robots.env.num_envs, robots.task.robot.num_joints, device=robots.device
        )
        self._generator = torch.Generator(robots.device).manual_seed(seed)
        self.obs, self.critic_obs = robots.reset(seed)

    def normal(self) -> Tensor:
        """Independent draws of a standard normal distribution, `[N, A]`."""
        device = self._robots.device
        return torch.randn(self.noise.shape, generator=self._generator, device=device)

    def step(self, mean: Tensor, noise: Tensor) -> Step:
        """Apply the raw actions `mean + noise`, `[N, A]` each."""
        step = self._robots.step(mean + noise)
        self.obs, self.critic_obs = step.obs, step.critic_obs
        self._episodes.add(step)
        self.noise = noise * ~(step.terminated | step.truncated)[:, None]
        return step

    def figures(self) -> dict[str, float]:
        """See `iteration_figures`."""
        return iteration_figures(self._robots, self._episodes)

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "robots": self._robots.get_state(), "noise": self.noise.cpu(), "obs": self.obs.cpu(),
            "torch_generator": self._generator.get_state().numpy(),
            "critic_obs": self.critic_obs.cpu(), **self._episodes.get_state(),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        state = as_arrays(state)
        self._robots.set_state(state["robots"])
        self._generator.set_state(torch.from_numpy(state["torch_generator"]))
        for name in ("obs", "critic_obs", "noise"):
            setattr(self, name, torch.from_numpy(state[name]).to(self._robots.device))
        self._episodes.set_state(state)
