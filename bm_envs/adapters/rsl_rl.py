"""rsl_rl's `VecEnv` (rsl-rl-lib 5) around one of our vector environments.

    env = RslRlVecEnv(gymnasium.make_vec("BMTrack-G1-v0", num_envs=256, preset="laptop"))
    OnPolicyRunner(env, train_cfg, "runs/rsl_rl").learn(500)

where `train_cfg["obs_groups"]` is `{"actor": ["policy"], "critic": ["critic"]}`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium

from bm_envs.adapters import longest_episode, missing, native
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError

try:
    import torch
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError as error:
    raise missing("rsl_rl", "rsl-rl-lib") from error


class RslRlVecEnv(VecEnv):
    """N robots in the form that rsl_rl takes, with tensors on the CPU.

    Observations are a `TensorDict` with the group `policy` and, in tracking, `critic` (286 values
    without noise); with `critic="none"` and in the guided tasks there is `policy` alone. `extras`
    holds `time_outs` `[N]`, the episodes that were cut off and did not fail, and `log`, the means
    of the signed reward terms.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        self._native = native(env, "RslRlVecEnv")
        self.env = env
        self.num_envs = env.num_envs
        self.num_actions = env.single_action_space.shape[0]  # type: ignore[index]  # a Box
        self.max_episode_length = longest_episode(self._native)
        self.device = torch.device("cpu")
        self.cfg: dict[str, Any] = dataclasses.asdict(self._native.config)
        self._steps = torch.zeros(self.num_envs, dtype=torch.long)
        self._obs: TensorDict | None = None

    @property
    def unwrapped(self) -> Any:
        """The environment of bm_envs."""
        return self._native

    @property
    def episode_length_buf(self) -> torch.Tensor:
        """Control steps since each robot's episode began. `[N]`."""
        return self._steps

    @episode_length_buf.setter
    def episode_length_buf(self, steps: torch.Tensor) -> None:
        """Set the episodes' ages, as `learn(init_at_random_ep_len=True)` does to spread ends."""
        if not isinstance(self._native, TrackVectorEnv):
            raise ConfigError(
                "init_at_random_ep_len is True, expected False in a guided task, where what is "
                "commanded goes by the episode's time."
            )
        if self._native.max_episode_steps is not None:
            raise ConfigError(
                "init_at_random_ep_len is True, expected False beside max_episode_steps: give the "
                "environment's time as episode_s, in seconds, instead."
            )
        if steps.shape != (self.num_envs,):
            raise ConfigError(
                f"episode_length_buf has shape {tuple(steps.shape)}, expected ({self.num_envs},)."
            )
        self.get_observations()
        self._steps = steps.to(self.device, torch.long, copy=True)
        self._native.task.episode_step[:] = self._steps.numpy()

    def seed(self, seed: int) -> None:
        """Begin everywhere anew with a seed for the batch; without, the first one is drawn."""
        self._begin(seed)

    def get_observations(self) -> TensorDict:
        """The present observations; the first call begins the episodes."""
        if self._obs is None:
            self._begin(None)
        assert self._obs is not None
        return self._obs

    def step(
        self, actions: torch.Tensor
    ) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Apply raw actions `[N, 29]`; episodes that end are begun again in the same step."""
        obs, reward, terminated, truncated, info = self.env.step(actions.detach().cpu().numpy())
        self._obs = self._groups(obs, info)
        done = torch.from_numpy(terminated | truncated)
        self._steps = torch.where(done, 0, self._steps + 1)
        terms = [name for name in info if name.startswith("reward_")]
        log = {f"reward/{name[7:]}": float(info[name].mean()) for name in terms}
        extras = {"time_outs": torch.from_numpy(truncated & ~terminated), "log": log}
        return self._obs, torch.from_numpy(reward), done.long(), extras

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _begin(self, seed: int | None) -> None:
        obs, info = self.env.reset(seed=seed)
        self._obs = self._groups(obs, info)
        self._steps = torch.zeros(self.num_envs, dtype=torch.long)

    def _groups(self, obs: Any, info: dict[str, Any]) -> TensorDict:
        groups = dict(obs) if isinstance(obs, dict) else {"policy": obs}
        if "critic_obs" in info:
            groups["critic"] = info["critic_obs"]
        tensors = {name: torch.from_numpy(values) for name, values in groups.items()}
        return TensorDict(tensors, batch_size=[self.num_envs])
