"""The vector environment as a trainer of trackers sees it, on the host or on a device.

Letters in shapes: N robots, C critic observation, A action.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.evaluation import run_episodes
from bm_envs.learning.folder import as_arrays
from bm_envs.learning.networks import TrackingPolicy
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.device import DeviceTrack


def leash(level: float) -> float:
    """Factor of `failure_distance` at a level of the curriculum, 0 to 1.

    Three at the end: a robot that was pushed off the path must learn to stay up there, too.
    """
    return 1 + 2 * level


def next_level(level: float, hardest_s: float, config: Any) -> float:
    """The curriculum's level after an iteration: up while robots stay up, else down.

    Args:
        level: the present one, 0 to 1.
        hardest_s: robot seconds per failure in the hardest tenth of the clips.
        config: its `curriculum_s` is what `hardest_s` has to exceed, its `curriculum_step` the way.
    """
    change = config.curriculum_step if hardest_s > config.curriculum_s else -config.curriculum_step
    return float(np.clip(level + change, 0.0, 1.0))


ROBUST_EPISODES = 100  # of a clip
ROBUST_SEED = 1_000_000  # not one that benchmarks report


def evaluation_env(
    config: Any, clips: list[Any], protocol: Literal["clip", "robust"] = "clip"
) -> TrackVectorEnv:
    """Robots under a protocol, which see and are driven as in training.

    They always have the standard physics steps, whatever training saves on. One robot a clip, or
    `ROBUST_EPISODES`.
    """
    preset = TrackConfig.preset(protocol)
    preset = dataclasses.replace(
        preset, observations=config.task.observations, actuation=config.task.actuation,
        model=dataclasses.replace(config.task.model, physics_dt=preset.model.physics_dt),
    )  # fmt: skip
    return TrackVectorEnv(
        len(clips) * (1 if protocol == "clip" else ROBUST_EPISODES), clips, config=preset,
        autoreset_mode="disabled", critic="none", threads=config.threads,
    )  # fmt: skip


def _as_function(actor: TrackingPolicy) -> Callable[[np.ndarray], np.ndarray]:
    actor = copy.deepcopy(actor).cpu()

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return actor.mean(torch.from_numpy(obs)).numpy()

    return act


def evaluate(actor: TrackingPolicy, env: TrackVectorEnv) -> dict[str, float]:
    """The `clip` protocol: every clip once, from its first frame, by the policy's mean.

    Returns the share of clips completed, the mean share of a clip survived, and mean errors of the
    frames before a failure, averaged over clips.
    """
    episodes = run_episodes(_as_function(actor), env)
    result = {
        "success": float(episodes.completed.mean()),
        "survival": float((episodes.reached / (env.task.clip_frames - 1)).mean()),
        "survival_s": float(episodes.reached.mean() * CONTROL_DT),
    }
    for name, error in episodes.errors.items():
        in_mm = name.endswith("_m")
        # A clip failed in its first step has no error.
        value = float(np.nanmean(error)) if np.isfinite(error).any() else 0.0
        result[f"{name}m" if in_mm else name] = value * (1000 if in_mm else 1)
    return result


def robust_share(actor: TrackingPolicy, env: TrackVectorEnv) -> float:
    """Of the episodes of the `robust` protocol, how many the policy's mean completes."""
    return float(run_episodes(_as_function(actor), env, seed=ROBUST_SEED).completed.mean())


# --- robots -------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What a step of all robots tells, on their device."""

    obs: Tensor
    critic_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_critic_obs: Tensor | None
    """`[N, C]`, of the episodes that ended; None where none did."""
    terms: Tensor
    """`[R]`, means of the signed reward terms."""


class HostRobots:
    """Robots of a vector environment, whose arrays are NumPy's, seen as tensors."""

    device = torch.device("cpu")

    def __init__(self, config: Any, clips: list[Any]) -> None:
        self.env = TrackVectorEnv(
            config.num_envs, clips, backend=config.backend, config=config.task,
            threads=config.threads,
        )  # fmt: skip
        self.task, self.sampler = self.env.task, self.env.task.sampler
        self.term_names = [name[7:] for name in self.task.reward_names]

    def reset(self, seed: int) -> tuple[Tensor, Tensor]:
        """Begin everywhere; observations of policy and critic."""
        obs, info = self.env.reset(seed=seed)
        return torch.from_numpy(obs), torch.from_numpy(info["critic_obs"])

    def spread_ends(self, limit: int) -> None:
        """Let episodes be up to `limit` steps old, so that not all end in the same step."""
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

    def set_level(self, level: float) -> None:
        """Set the task to a level of the curriculum, 0 to 1.

        It brings start noise, observation noise and pushes, from nothing to all, and lets the leash
        (`failure_distance`) out.
        """
        self.task.disturbance, self.task.leash = level, leash(level)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Rows of the task's tables: of the present frames, and of the clips' last. `[N]` each."""
        task = self.task
        first = torch.from_numpy(task._first_row)
        return first + torch.from_numpy(task.frame), first + torch.from_numpy(task._last_frame)

    def state(self) -> tuple[Tensor, Tensor]:
        """Copies of `qpos [N, 36]` and `qvel [N, 35]`, see `backends.base.full_state`."""
        qpos, qvel = full_state(self.env.simulator)
        return torch.from_numpy(qpos), torch.from_numpy(qvel)

    def default_joint_pos(self) -> Tensor:
        """Of each robot, rad. `[N, 29]`."""
        return torch.from_numpy(self.task.default_joint_pos)

    def read_statistics(self) -> None:
        """Bring the statistics of starts to `sampler`, where they are always."""

    def errors(self) -> dict[str, Any]:
        """Tracking errors of the last step. `[N]` each."""
        return self.task.tracking_errors()

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        state = self.env.get_state()
        return {**state, "generator": json.dumps(state["generator"])}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.env.set_state({**state, "generator": json.loads(state["generator"])})


class DeviceRobots:
    """The same for robots that live on a device, with all that the task does to them."""

    def __init__(self, config: Any, clips: list[Any], seed: int) -> None:
        self.env = DeviceTrack(
            config.num_envs, clips, config.task, seed=seed, backend=config.backend,
            device=config.device,
        )  # fmt: skip
        self.device = self.env.device
        self.task, self.sampler = self.env.task, self.env.task.sampler
        self.term_names = [name[7:] for name in self.task.reward_names]

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

    def set_level(self, level: float) -> None:
        """See `HostRobots`."""
        self.env.disturbance.fill_(level)
        self.env.leash.fill_(leash(level))

    def rows(self) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        env = self.env
        first = env._clip_start[env.clip_id]
        return first + env.frame, first + env._clip_frames[env.clip_id] - 1

    def state(self) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        return full_state(self.env.simulator)

    def default_joint_pos(self) -> Tensor:
        """See `HostRobots`."""
        return self.env.default_joint_pos

    def read_statistics(self) -> None:
        """See `HostRobots`."""
        self.env.sampler.to_host()

    def errors(self) -> dict[str, Any]:
        """See `HostRobots`."""
        return self.env.tracking_errors()

    def get_state(self) -> dict[str, Any]:
        """See `HostRobots`."""
        return dict(self.env.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """See `HostRobots`."""
        self.env.set_state(state)


def mean_errors(robots: HostRobots | DeviceRobots) -> dict[str, float]:
    """Tracking errors of the last step, means over robots, as they are logged."""
    return {
        f"track/{name}": float(np.nanmean(error))
        for name, error in as_arrays(robots.errors()).items()
    }
