"""Our vector environments in the forms that other people's trainers want.

One module a trainer, each of which needs that trainer's package (extra `clients`) and is imported
by name: `sb3` for Stable-Baselines3, `rsl_rl` for rsl_rl. skrl, TorchRL, Minari and CleanRL take
our environments as they are; `docs/your_own_ppo.md` has a line for each.
"""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.tasks.track.config import CONTROL_DT


def missing(adapter: str, package: str) -> BackendUnavailable:
    """The error of an adapter whose package is not installed."""
    return BackendUnavailable(
        f"bm_envs.adapters.{adapter} needs the package {package}: pip install 'bm-envs[clients]'."
    )


def native(env: Any, adapter: str) -> TrackVectorEnv | GuidedVectorEnv:
    """The vector environment inside wrappers.

    Raises:
        ConfigError: it is none of ours, or it does not reset in the step that ends an episode.
    """
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, TrackVectorEnv | GuidedVectorEnv):
        raise ConfigError(
            f"{adapter} got a {type(inner).__name__}, expected a vector environment of bm_envs, as "
            "gymnasium.make_vec('BMTrack-G1-v0', num_envs=64) makes it."
        )
    if inner.autoreset_mode is not AutoresetMode.SAME_STEP:
        mode = inner.autoreset_mode.name.lower()
        raise ConfigError(
            f"{adapter} got an environment with autoreset_mode '{mode}', expected 'same_step', "
            "which make_vec makes by default."
        )
    return inner


def longest_episode(env: TrackVectorEnv | GuidedVectorEnv) -> int:
    """Control steps after which an episode has ended in any case."""
    limits = [] if env.max_episode_steps is None else [env.max_episode_steps]
    if isinstance(env, GuidedVectorEnv):
        return min([env.config.episode_steps, *limits])
    if env.config.episode_s is not None:
        limits.append(max(1, round(env.config.episode_s / CONTROL_DT)))
    return min([int(env.task.clip_frames.max()) - 1, *limits])
