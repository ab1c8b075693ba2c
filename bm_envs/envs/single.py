"""One robot at any task, as Gymnasium's `Env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from bm_envs.envs.arguments import METADATA, check_action
from bm_envs.envs.core import NO_CAUSE, Core, cause
from bm_envs.tasks.settings import check_kind


class SingleEnv(gymnasium.Env):
    """One robot, at any task."""

    metadata = METADATA
    task: Any
    config: Any
    """The resolved configuration of the task."""
    _core: Core

    def __init__(self, core: Core) -> None:
        self.render_mode = core.arguments["render_mode"]
        self._core = core
        self.task, self.simulator, self.config = core.task, core.simulator, core.config
        self.observation_space = core.observation_space
        self.action_space = core.action_space
        self._started = False

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`; the class's text names the options that choose the start."""
        self._core.check_open("reset")
        check_kind("options", options, Mapping | None)
        super().reset(seed=seed)
        if seed is not None or not self._started:
            self.task.startup(self.np_random)
            self._started = True
        self.task.reset(np.zeros(1, np.int64), self.np_random, **self._core.start(options, 1))
        parts = tuple(part[0] for part in self._core.observe(slice(None), self.np_random))
        if self.render_mode == "human":
            self.render()
        info = self._info(parts) | dict.fromkeys(self.task.reward_names, 0.0)
        return self._core.observation(parts), info | {"termination": NO_CAUSE}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        self._core.check_open("step")
        action = check_action(action, (self._core.num_actions,))
        result = self.task.step(action[None])
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        self.task.push(self.np_random, ~(result.terminated | result.truncated))
        parts = tuple(part[0] for part in self._core.observe(slice(None), self.np_random))
        info = self._info(parts)
        info |= zip(result.names, result.values[0].tolist(), strict=True)
        info["termination"] = cause(result, 0) if terminated or truncated else NO_CAUSE
        if self.render_mode == "human":
            self.render()
        observation = self._core.observation(parts)
        return observation, float(result.reward[0]), terminated, truncated, info

    def render(self) -> Any:
        """See `gymnasium.Env.render`."""
        self._core.check_open("render")
        return self._core.render()

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self._core.close()

    def _info(self, parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        """Of the state that is observed."""
        raise NotImplementedError
