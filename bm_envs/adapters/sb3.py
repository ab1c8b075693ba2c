"""Stable-Baselines3's `VecEnv` around one of our vector environments.

    env = SB3VecEnv(gymnasium.make_vec("BMTrack-G1-v0", num_envs=64, preset="laptop"))
    model = PPO("MlpPolicy", VecNormalize(VecMonitor(env)), n_steps=32)

All robots step in one call, on all cores, where `DummyVecEnv` steps one robot after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from bm_envs.adapters import missing, native
from bm_envs.errors import ConfigError

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
except ImportError as error:
    raise missing("sb3", "stable-baselines3") from error

INFO_OF_THE_ENDED = ("final_obs", "final_info")


class SB3VecEnv(VecEnv):
    """N robots in the form that Stable-Baselines3 takes.

    An episode that ends is begun again in the same step. Its last observation is then in
    `infos[i]["terminal_observation"]`, and `infos[i]["TimeLimit.truncated"]` says whether it was
    cut off (value is bootstrapped) or failed. `infos[i]` has robot i's entries of the environment's
    `info`: `reward_<term>`, `clip`, `frame`, `critic_obs`, and `termination` where it ended.

    The robots share one simulator: `get_attr`, `set_attr` and `env_method` speak to all of them,
    and `seed(s)` gives the batch the seed s.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        native(env, "SB3VecEnv")
        self.env = env
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.spec = env.spec
        self.metadata = {**env.metadata, **self.metadata}

    # --- stepping ---------------------------------------------------------------------------------

    def reset(self) -> Any:
        """Begin everywhere, with the seed and the options set before; they serve once."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ConfigError(
                "set_options got different options for the robots, expected one mapping for all: "
                "a value in it may be an array with one entry a robot."
            )
        seed = self._seeds[0]
        obs, info = self.env.reset(seed=seed, options=dict(options) if options else None)
        self.reset_infos = rows(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions `[N, 29]` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """`(obs, rewards [N], dones [N], infos)` of one control step."""
        if self._actions is None:
            raise ConfigError("step_wait was called before step_async.")
        actions, self._actions = self._actions, None
        obs, reward, terminated, truncated, info = self.env.step(actions)
        infos = rows(info, self.num_envs)
        done = terminated | truncated
        if done.any():
            final = rows(info["final_info"], self.num_envs, done)
            for i in np.flatnonzero(done).tolist():
                self.reset_infos[i] = infos[i]
                infos[i] = infos[i] | final[i]
                infos[i]["terminal_observation"] = _row(info["final_obs"], i)
        for row, cut in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = cut
        return obs, reward.astype(np.float32, copy=False), done, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The environment's pictures."""
        if self.render_mode != "rgb_array":
            warnings.warn(
                f"The render mode is {self.render_mode}, pictures need 'rgb_array'.", stacklevel=2
            )
            return [None] * self.num_envs
        pictures: Any = self.env.render()
        return list(pictures or ())

    # --- what robots have in common ---------------------------------------------------------------

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The environment's attribute, once a robot."""
        value = getattr(self.env, attr_name, _NONE)
        if value is _NONE:
            value = getattr(self.env.unwrapped, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the environment's attribute, for all robots."""
        self._everyone(f"set_attr('{attr_name}')", indices)
        setattr(self.env.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the environment's method returns, called once, once a robot."""
        self._everyone(f"env_method('{method_name}')", indices)
        value = self.get_attr(method_name, 0)[0](*method_args, **method_kwargs)
        return [value for _ in range(self.num_envs)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list:
        """False: there is no environment of a single robot in it."""
        return [False for _ in self._get_indices(indices)]

    def _everyone(self, what: str, indices: Any) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise ConfigError(
                f"{what} has indices {indices}, expected None: the robots share one environment."
            )


_NONE = object()


def _row(values: Any, i: int) -> Any:
    """Robot i's observation, a plain one or a mapping of several."""
    if isinstance(values, Mapping):
        return {key: value[i] for key, value in values.items()}
    return values[i]


def rows(
    info: Mapping[str, Any], num_envs: int, only: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """A vector environment's `info`, one mapping a robot; numbers are Python's.

    Args:
        info: arrays of N rows or mappings of such, each beside its mask `_<name>`.
        num_envs: N.
        only: `[N]` bool, the robots that are wanted; the others' mappings are empty.
    """
    by_robot: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in info.items():
        if name.startswith("_") or name in INFO_OF_THE_ENDED:
            continue
        mask = info.get(f"_{name}", only)
        mask = mask if only is None or mask is None else mask & only
        if isinstance(values, Mapping):  # as Gymnasium's RecordEpisodeStatistics adds it
            plain = rows(values, num_envs, mask)
        else:
            plain = values.tolist() if values.ndim == 1 else list(values)
        ids = range(num_envs) if mask is None else np.flatnonzero(mask).tolist()
        for i in ids:
            by_robot[i][name] = plain[i]
    return by_robot
