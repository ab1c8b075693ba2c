"""How a trainer looks at its policy: the protocols `clip` and `robust`, and the guided tasks'."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.evaluation import run_episodes
from bm_envs.learning.networks import Network, TrackingPolicy
from bm_envs.motion.clip import Clip
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig

ROBUST_EPISODES = 100  # of a clip
ROBUST_SEED = 1_000_000  # not one that benchmarks report


def evaluation_env(
    task: TrackConfig,
    clips: list[Clip],
    threads: int,
    protocol: Literal["clip", "robust"],
) -> TrackVectorEnv:
    """Robots under a protocol, which see and are driven as in training.

    They always have the standard physics steps, whatever training saves on. One robot a clip, or
    `ROBUST_EPISODES`.
    """
    preset = TrackConfig.preset(protocol)
    preset = dataclasses.replace(
        preset, observations=task.observations, actuation=task.actuation,
        model=dataclasses.replace(task.model, physics_dt=preset.model.physics_dt),
    )  # fmt: skip
    return TrackVectorEnv(
        len(clips) * (1 if protocol == "clip" else ROBUST_EPISODES), clips, config=preset,
        autoreset_mode="disabled", critic="none", threads=threads,
    )  # fmt: skip


def evaluate(actor: TrackingPolicy, env: TrackVectorEnv) -> dict[str, float]:
    """The `clip` protocol: every clip once, from its first frame, by the policy's mean.

    Returns the share of clips completed, the mean share of a clip survived, and mean errors of the
    frames before a failure, averaged over clips.
    """
    episodes = run_episodes(actor.as_mlp(), env)
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
    return float(run_episodes(actor.as_mlp(), env, seed=ROBUST_SEED).completed.mean())


class Evaluation:
    """Robots under both protocols, kept for the length of a run."""

    def __init__(self, clips: list[Clip], task: TrackConfig, threads: int, *, robust: bool) -> None:
        self._clip_env = evaluation_env(task, clips, threads, "clip")
        self._robust_env = evaluation_env(task, clips, threads, "robust") if robust else None

    def clip(self, policy: TrackingPolicy) -> dict[str, float]:
        """See `evaluate`."""
        return evaluate(policy, self._clip_env)

    def robust(self, policy: TrackingPolicy) -> float:
        """See `robust_share`."""
        assert self._robust_env is not None, "made without"
        return robust_share(policy, self._robust_env)

    def close(self) -> None:
        """Let go of the robots."""
        for env in (self._clip_env, self._robust_env):
            if env is not None:
                env.close()


def evaluate_guided(actor: Network, env: GuidedVectorEnv, seed: int) -> dict[str, float]:
    """A guided task's own protocol: one trial in every robot of `env`, by the policy's mean.

    Returns shares of the trials that did it and that did not fall, the mean of the task's term over
    the trials' whole time, and of the joystick the share of commands that were followed.

    Args:
        actor: from the task's observation to raw actions.
        env: with `autoreset_mode="disabled"`.
        seed: of the environment's draws.
    """
    obs, _ = env.reset(seed=seed)
    act, task = actor.as_mlp(), env.task
    task_sum, done = 0.0, np.zeros(env.num_envs, bool)
    while not done.all():
        obs, _, terminated, truncated, info = env.step(act(obs))
        task_sum += float(info["reward_task"][~done].sum())  # 0 from a fall on
        done |= terminated | truncated
    figures = task.figures()
    steps = env.num_envs * env.config.episode_steps * env.config.rewards.task
    result = {
        "success": float(figures["success"].mean()),
        "upright": float((~figures["fell_strict"]).mean()),
        "task": task_sum / steps,
    }
    if "segment_passed" in figures:
        result["segments"] = float(figures["segment_passed"].mean())
    return result
