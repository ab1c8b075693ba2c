"""N robots in one simulator at any task, as Gymnasium's `VectorEnv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from bm_envs.envs.arguments import METADATA, autoreset_mode, check_action
from bm_envs.envs.core import Core, cause
from bm_envs.errors import ConfigError
from bm_envs.tasks.settings import check_kind
from bm_envs.tasks.track.task import StepResult

if TYPE_CHECKING:
    from bm_envs.tasks.guided.streams import Streams


class VectorEnv(gymnasium.vector.VectorEnv):
    """N robots in one simulator, at any task; see `TrackVectorEnv` for the autoreset modes."""

    metadata: dict[str, Any] = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}
    task: Any
    config: Any
    """The resolved configuration of the task."""
    _core: Core

    def __init__(self, core: Core) -> None:
        self.autoreset_mode = autoreset_mode(core.arguments["autoreset_mode"])
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = core.arguments["render_mode"]
        self.num_envs = num_envs = int(core.arguments["num_envs"])
        self._core = core
        self.task, self.simulator, self.config = core.task, core.simulator, core.config
        self.single_observation_space = core.observation_space
        self.single_action_space = core.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.arange(num_envs)
        self._all = np.ones(num_envs, bool)
        self._max_steps: int | None = core.arguments["max_episode_steps"]
        self._elapsed = np.zeros(num_envs, np.int64)  # control steps of the episode, for that
        self._ended = np.zeros(num_envs, bool)  # next_step: to be reset by the coming step
        self._started = False
        self._streams: Streams | None = None  # in place of the batch's generator

    @property
    def max_episode_steps(self) -> int | None:
        """Control steps after which an episode is cut off; None: as the task says alone."""
        return self._max_steps

    @property
    def _rng(self) -> Any:
        """Source of all draws."""
        return self.np_random if self._streams is None else self._streams

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.reset`.

        Args:
            seed: one seed for the whole batch, which then draws from one generator, so that what a
                robot gets depends on how many there are. Or, at the guided tasks, a list of N: each
                robot then draws from a generator of its own, until another seed is given, and gets
                what a single environment with its seed would. With `reset_mask`, robots that are
                not reset keep the generators they have.
            options: those of the single environment, for every robot alike or, as arrays, for each
                of those that are reset; `reset_mask` `[N]` bool resets only some.
        """
        self._core.check_open("reset")
        check_kind("options", options, Mapping | None)
        streams = None
        if isinstance(seed, Sequence):
            if not self._core.streams:
                raise ConfigError("seed must be one integer: the batch has one generator.")
            if len(seed) != self.num_envs:
                raise ConfigError(
                    f"seed is a list of {len(seed)}, expected one integer or {self.num_envs}."
                )
            streams = _streams(seed)
        else:
            super().reset(seed=seed)
        env_ids = self._everyone
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise ConfigError(
                    f"options['reset_mask'] must be {self.num_envs} booleans, at least one True."
                )
            env_ids = np.flatnonzero(mask)
        if streams is not None and self._streams is not None:
            for i in np.setdiff1d(self._everyone, env_ids):
                streams.generators[i] = self._streams.generators[i]
        if seed is not None:
            self._streams = streams
        if seed is not None or not self._started:
            self.task.startup(self._rng)
            self._started = True
        self.task.reset(env_ids, self._rng, **self._core.start(options, len(env_ids)))
        self._ended[env_ids] = False
        self._elapsed[env_ids] = 0
        parts = self._core.observe(slice(None), self._rng)
        return self._core.observation(parts), self._info(parts)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.step`."""
        self._core.check_open("step")
        actions = check_action(actions, (self.num_envs, self._core.num_actions))
        result = self.task.step(actions)
        self._limit_time(result)
        reward, terminated, truncated = result.reward, result.terminated, result.truncated
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._ended.any():
            # The step after an episode's end only resets; physics of those robots is thrown away.
            for array in (reward, terminated, truncated, result.values):
                array[self._ended] = 0
            self.task.reset(np.flatnonzero(self._ended), self._rng)
            self._elapsed[self._ended] = 0
        done = terminated | truncated
        self.task.push(self._rng, ~(done | self._ended))
        parts = self._core.observe(slice(None), self._rng)

        info: dict[str, Any] = {}
        if done.any():
            ids = np.flatnonzero(done)
            causes = np.full(self.num_envs, "", dtype="U16")
            causes[ids] = [cause(result, int(i)) for i in ids]
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                kept = tuple(_only(part, ids) for part in parts)
                final = self._info(kept, result)
                final["termination"], final["_termination"] = causes, done
                info["final_obs"] = self._core.observation(kept)
                info["final_info"] = {
                    key: done if key.startswith("_") else value for key, value in final.items()
                }
                info["_final_obs"] = info["_final_info"] = done
                self.task.reset(ids, self._rng)
                self._elapsed[ids] = 0
                for part, fresh in zip(parts, self._core.observe(ids, self._rng), strict=True):
                    part[ids] = fresh
            info["termination"], info["_termination"] = causes, done
        self._ended = done.copy()
        info |= self._info(parts, result)
        return self._core.observation(parts), reward, terminated, truncated, info

    def _limit_time(self, result: StepResult) -> None:
        """Truncate where `max_episode_steps` are over, as the task does where its time is."""
        if self._max_steps is None:
            return
        self._elapsed += 1
        over = self._elapsed >= self._max_steps
        result.truncated |= over & ~result.terminated
        result.causes["time_limit"] = result.causes.get("time_limit", False) | over

    def render(self) -> Any:
        """A tuple with a picture of each robot; None of a window, which shows the first."""
        self._core.check_open("render")
        if self.render_mode in (None, "human"):
            return self._core.render()
        return tuple(self._core.render(i) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """See `gymnasium.vector.VectorEnv.close_extras`."""
        if "_core" in self.__dict__:  # else it was refused, and is thrown away
            self._core.close()

    def get_state(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs: arrays, and the generator's state."""
        self._core.check_open("get_state")
        streams = self._streams
        return {
            "simulator": self.simulator.get_state(),
            "task": self.task.get_state(),
            "generator": (
                self.np_random.bit_generator.state
                if streams is None
                else [stream.bit_generator.state for stream in streams.generators]
            ),
            "ended": self._ended.copy(),
            "elapsed": self._elapsed.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `get_state` returned, in an environment built with equal arguments."""
        self._core.check_open("set_state")
        self.simulator.set_state(state["simulator"])
        self.task.set_state(state["task"])
        generator = state["generator"]
        self._streams = None
        if isinstance(generator, list):
            self._streams = _streams([0] * self.num_envs)
            for stream, saved in zip(self._streams.generators, generator, strict=True):
                stream.bit_generator.state = saved
        else:
            self.np_random.bit_generator.state = generator
        self._ended[:] = state["ended"]
        if "elapsed" in state:  # 0.1 had no such limit
            self._elapsed[:] = state["elapsed"]
        self._started = True

    def _info(
        self, parts: tuple[np.ndarray, ...], result: StepResult | None = None
    ) -> dict[str, Any]:
        """Of the states that are observed and of the step that led there, if any."""
        values = self._figures(parts)
        names = self.task.reward_names
        rows = np.zeros((len(names), self.num_envs), np.float32)
        values |= zip(names, rows if result is None else result.values.T, strict=True)
        everyone = self._all.copy()
        return values | {f"_{name}": everyone for name in values}

    def _figures(self, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        """A row of each for every robot."""
        raise NotImplementedError


def _only(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A copy of the rows `ids`; the others, which mean nothing, are zero and cost no memory."""
    copy = np.zeros(rows.shape, rows.dtype)
    copy[ids] = rows[ids]
    return copy


def _streams(seeds: Sequence[int]) -> Streams:
    """A generator for each robot; the guided tasks draw from them."""
    from bm_envs.tasks.guided.streams import Streams

    return Streams.seeded(seeds)
