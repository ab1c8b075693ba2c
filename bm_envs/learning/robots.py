"""The vector environment as a trainer of trackers sees it, on the host or on a device.

Letters in shapes: N robots, C critic observation, A action.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from bm_envs.arrays import NUMPY
from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.learning.folder import as_arrays
from bm_envs.learning.states import env_state, load_env_state
from bm_envs.learning.tracker import TrackerRunConfig
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.motion.on_robot import on_robot
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.device import DeviceTrack

ConfigT = TypeVar("ConfigT")


def with_motions(config: ConfigT) -> tuple[ConfigT, list[Clip]]:
    """A trainer's settings with the task for the robot that they name, and the motions on it.

    With `robot` at `g1` the task's own counts, which may be another.
    """
    settings: Any = config
    name, task = settings.run.robot, settings.task
    task = task if name == "g1" else task.on_robot(name)
    clips = [on_robot(clip, task.model.table) for clip in load_motions(settings.motion)]
    return dataclasses.replace(settings, task=task), clips


class Step(NamedTuple):
    """Results of one step of all robots, on their device."""

    obs: Tensor
    critic_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_critic_obs: Tensor | None
    """`[N, C]`, of the episodes that ended; None where none did."""
    terms: Tensor
    """`[R]`, means of the signed reward terms."""


class _Robots:
    """What robots on the host and on a device have in common: the task and what it computes."""

    def __init__(self, env: TrackVectorEnv | DeviceTrack, device: torch.device) -> None:
        self.task, self.simulator, self.device = env.task, env.simulator, device
        self.sampler = self.task.sampler
        self.term_names = [name.removeprefix("reward_") for name in self.task.reward_names]

    def set_difficulty(self, disturbance: float, failure_distance_scale: float) -> None:
        """How hard the task is.

        Args:
            disturbance: share of start noise, observation noise and pushes, 0 to 1.
            failure_distance_scale: factor of the task's `failure_distance`.
        """
        self.task.disturbance = disturbance
        self.task.failure_distance_scale = failure_distance_scale

    def rows(self) -> tuple[Tensor, Tensor]:
        """`TrackTask.frame_numbers`: of the present frames, and of the clips' last. `[N]` each."""
        present, last = self.task.frame_numbers()
        return torch.as_tensor(present), torch.as_tensor(last)

    def state(self) -> tuple[Tensor, Tensor]:
        """Copies of `qpos [N, 36]` and `qvel [N, 35]`, see `backends.base.full_state`."""
        qpos, qvel = full_state(self.simulator)
        return torch.as_tensor(qpos), torch.as_tensor(qvel)

    def default_joint_pos(self) -> Tensor:
        """Of each robot, rad. `[N, 29]`."""
        return torch.as_tensor(self.task.default_joint_pos)

    def build(self) -> Tensor:
        """How each robot differs from the nominal one, see `tasks.track.state.State`. `[N, 4]`."""
        return torch.as_tensor(self.task.state.build)

    def read_statistics(self) -> None:
        """Bring the statistics of starts to `sampler`, whose arrays are NumPy's."""
        self.sampler = self.task.sampler.to(NUMPY)

    @torch.no_grad()
    def errors(self) -> dict[str, Any]:
        """Tracking errors of the last step. `[N]` each."""
        return self.task.tracking_errors()


class HostRobots(_Robots):
    """Robots of a vector environment, whose arrays are NumPy's, seen as tensors."""

    def __init__(
        self, clips: list[Clip], task: TrackConfig, num_envs: int, threads: int = 0
    ) -> None:
        self.env = TrackVectorEnv(num_envs, clips, config=task, threads=threads)
        super().__init__(self.env, torch.device("cpu"))

    def reset(self, seed: int) -> tuple[Tensor, Tensor]:
        """Begin everywhere; observations of policy and critic."""
        obs, info = self.env.reset(seed=seed)
        return torch.from_numpy(obs), torch.from_numpy(info["critic_obs"])

    def spread_ends(self, limit: int) -> None:
        """Let episodes be up to `limit` steps old already."""
        self.task.episode_step[:] = self.env.np_random.integers(0, limit, self.env.num_envs)

    def step(self, action: Tensor) -> Step:
        """Apply raw actions `[N, A]`."""
        obs, reward, terminated, truncated, info = self.env.step(action.numpy())
        final = torch.from_numpy(info["final_info"]["critic_obs"]) if truncated.any() else None
        terms = torch.tensor([info[name].mean() for name in self.task.reward_names])
        tensor = torch.from_numpy
        return Step(
            tensor(obs), tensor(info["critic_obs"]), tensor(reward), tensor(terminated),
            tensor(truncated), final, terms,
        )  # fmt: skip

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return env_state(self.env)

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        load_env_state(self.env, state)


class DeviceRobots(_Robots):
    """The same for robots that live on a device, with all that the task does to them."""

    def __init__(
        self, clips: list[Clip], task: TrackConfig, num_envs: int, *, backend: str,
        device: str | None, seed: int,
    ) -> None:  # fmt: skip
        self.env = DeviceTrack(num_envs, clips, task, seed=seed, backend=backend, device=device)
        super().__init__(self.env, self.env.device)
        self.read_statistics()

    def reset(self, seed: int) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        self.env.generator.manual_seed(seed)
        return self.env.reset()

    def spread_ends(self, limit: int) -> None:
        """See `HostRobots`."""
        age = torch.rand(self.env.num_envs, device=self.device, generator=self.env.generator)
        self.env.episode_step.copy_((age * limit).long())

    def step(self, action: Tensor) -> Step:
        """See `HostRobots`. The tensors are overwritten by the next step."""
        out = self.env.step(action)
        return Step(
            out.obs, out.critic_obs, out.reward, out.terminated, out.truncated,
            out.final_critic_obs, out.values.mean(0),
        )  # fmt: skip

    def get_state(self) -> dict[str, Any]:
        """See `HostRobots`."""
        return dict(self.env.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """See `HostRobots`."""
        self.env.set_state(state)


Robots = HostRobots | DeviceRobots


def make_robots(
    clips: list[Clip], task: TrackConfig, num_envs: int, run: TrackerRunConfig, seed: int
) -> Robots:
    """Robots of the run's backend: on the host with the C engine, else on a device."""
    if run.backend == "mujoco":
        return HostRobots(clips, task, num_envs, run.threads)
    return DeviceRobots(
        clips, task, num_envs, backend=run.backend, device=run.device, seed=seed
    )  # fmt: skip


class Episodes:
    """Returns and lengths of the robots' episodes, and the figures of an iteration's steps."""

    def __init__(self, robots: Robots) -> None:
        n, device = robots.env.num_envs, robots.device
        self._names, self._device = robots.term_names, device
        self.episode_return = torch.zeros(n, dtype=torch.float64, device=device)
        self.episode_length = torch.zeros(n, dtype=torch.long, device=device)
        self._begin()

    def _begin(self) -> None:
        # Failures, episodes that ended, the sums of their returns and of their lengths.
        self._counts = torch.zeros(4, dtype=torch.float64, device=self._device)
        self._terms = torch.zeros(len(self._names), device=self._device)
        self._steps = 0

    def add(self, step: Step) -> None:
        """Count a step of all robots."""
        done = step.terminated | step.truncated
        self.episode_return += step.reward
        self.episode_length += 1
        ended = done.double()
        self._counts += torch.stack([
            step.terminated.sum(), done.sum(), (self.episode_return * ended).sum(),
            (self.episode_length * ended).sum(),
        ])  # fmt: skip
        self.episode_return *= ~done
        self.episode_length *= ~done
        self._terms += step.terms
        self._steps += 1

    def figures(self) -> dict[str, float]:
        """What is logged of the steps since the last call."""
        failures, episodes, returns, lengths = self._counts.tolist()
        seconds = self._steps * len(self.episode_length) * CONTROL_DT
        terms = zip(self._names, self._terms.tolist(), strict=True)
        figures = {
            "charts/time_to_failure_s": seconds / max(failures, 1),
            **{f"reward/{name}": value / self._steps for name, value in terms},
        }
        if episodes:
            figures["charts/episodic_return"] = returns / episodes
            figures["charts/episodic_length"] = lengths / episodes
        self._begin()
        return figures

    def get_state(self) -> dict[str, Tensor]:
        """For a checkpoint, between two iterations."""
        return {
            "episode_return": self.episode_return.cpu(),
            "episode_length": self.episode_length.cpu(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        for name, value in self.get_state().items():
            saved = torch.as_tensor(state[name]).to(self._device)
            assert saved.shape == value.shape
            setattr(self, name, saved)


def mean_errors(robots: Robots) -> dict[str, float]:
    """Tracking errors of the last step, means over robots, as they are logged."""
    return {
        f"track/{name}": float(np.nanmean(error))
        for name, error in as_arrays(robots.errors()).items()
    }
