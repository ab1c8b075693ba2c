"""Gymnasium's single and vector environments around (Simulator, Task); nothing else.

Tracking and the guided tasks share what Gymnasium asks of every environment (seeds, autoreset,
saved states, pictures): `_SingleEnv` and `_VectorEnv`, which drive a task through the calls that
both kinds have: `startup`, `reset`, `step`, `push`, `observe`. A guided environment imports its
tasks when it is made, so that tracking starts without them.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import ConfigError, MotionError, unknown_name
from bm_envs.motion.clip import Clip
from bm_envs.motion.shared import shared_motions
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig, check_kind
from bm_envs.tasks.track.task import StepResult, TrackTask

if TYPE_CHECKING:
    from bm_envs.tasks.guided.base import GuidedTask
    from bm_envs.tasks.guided.config import GuidedConfig
    from bm_envs.tasks.guided.streams import Source, Streams

Motion = str | os.PathLike[str] | Clip | Sequence[str | os.PathLike[str] | Clip]
CriticObs = Literal["info", "dict", "none"]
Autoreset = Literal["same_step", "next_step", "disabled"] | AutoresetMode
Setting = float | Literal["preset"]
# A declared range and no clip: published policies need any finite raw action to be applied.
ACTION_BOUND = 10.0
METADATA: dict[str, Any] = {
    "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
    "render_fps": round(1 / CONTROL_DT),
}


class ClosedError(ConfigError, gymnasium.error.ClosedEnvironmentError):
    """A call of an environment that was closed."""


class Named(int):
    """A number that has a name, and equals both.

    What the `info` of one robot holds of a clip or of the rule that ended an episode: a number for
    those who stack infos into arrays, the name for those who read them. As a dictionary's key it is
    its name.
    """

    name: str

    def __new__(cls, number: int, name: str) -> Named:
        """The number `number` of the name `name`."""
        self = super().__new__(cls, number)
        self.name = name
        return self

    def __getnewargs__(self) -> tuple[int, str]:
        return int(self), self.name

    def __eq__(self, other: object) -> bool:
        return self.name == other if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{int(self)} ({self.name!r})"


class UnknownArgument(ConfigError, TypeError):
    """An argument that the environment does not have.

    A TypeError with Python's words, too: who makes environments of many kinds, as TorchRL's
    `GymEnv` does, tries an argument and goes by them.
    """


def _resolve_clips(motion: Motion) -> list[Clip]:
    single = isinstance(motion, str | os.PathLike | Clip)
    items = [motion] if single or not isinstance(motion, Sequence) else list(motion)
    clips: list[Clip] = []
    for item in items:
        if isinstance(item, Clip):
            clips.append(item)
        elif isinstance(item, str | os.PathLike):
            clips.extend(shared_motions(os.fspath(item)))
        else:
            raise MotionError(
                f"motion is {motion!r}, expected a name, a path, a Clip or several of those."
            )
    return clips


def _resolve_config(
    config: TrackConfig | None, preset: str, overrides: Mapping[str, Any] | None,
    episode_s: float | None | Literal["preset"], state_estimation: bool,
) -> TrackConfig:  # fmt: skip
    check_kind("config", config, TrackConfig | None)
    check_kind("preset", preset, str)
    check_kind("overrides", overrides, Mapping | None)
    check_kind("state_estimation", state_estimation, bool)
    config = TrackConfig.preset(preset) if config is None else config
    if not state_estimation:
        config = dataclasses.replace(config, observations=NO_STATE_ESTIMATION_TERMS)
    if overrides:
        config = config.override(overrides)
    if isinstance(episode_s, str) and episode_s != "preset":
        raise ConfigError(f"episode_s is '{episode_s}', expected seconds, None or 'preset'.")
    return config if episode_s == "preset" else dataclasses.replace(config, episode_s=episode_s)


def _check_arguments(env: type, unknown: Mapping[str, Any], **given: Any) -> None:
    """Refuse what no environment takes, and values of the wrong kind.

    Args:
        env: the environment's class.
        unknown: arguments that it does not have.
        given: of the arguments that all environments have, those given to this one.
    """
    if unknown:
        known = [name for name in inspect.signature(env).parameters if name != "unknown"]
        name = next(iter(unknown))
        raise UnknownArgument(
            f"{env.__name__}.__init__() got an unexpected keyword argument '{name}'. "
            + unknown_name("argument", name, known)
        )
    for name, least in (("num_envs", 1), ("threads", 0), ("width", 1), ("height", 1)):
        value = given.get(name, least)
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not integer or value < least:
            raise ConfigError(f"{name} is {value!r}, expected an integer of {least} or more.")
    check_kind("backend", given["backend"], str)
    check_kind("camera", given["camera"], str | None)
    check_kind("ghost", given.get("ghost", True), bool)
    steps = given.get("max_episode_steps")
    if steps is not None and (not isinstance(steps, int | np.integer) or steps < 1):
        raise ConfigError(f"max_episode_steps is {steps!r}, expected None or 1 or more.")
    mode = given["render_mode"]
    if mode is not None and mode not in METADATA["render_modes"]:
        modes = ", ".join(METADATA["render_modes"])
        raise ConfigError(f"render_mode is '{mode}', expected None or one of {modes}.")


class _Core:
    """Task, simulator, spaces and rendering: what a single and a vector environment share."""

    _far = False  # whether the following camera keeps away
    streams = False  # whether the task can draw for each robot from a generator of its own

    def __init__(self, task: Any, config: Any, render: Mapping[str, Any]) -> None:
        self.task, self.simulator, self.config = task, task.simulator, config
        self._render_config = dict(render)
        self._renderer: Any = None
        self._viewer: Any = None
        self.closed = False
        self.observation_space: gymnasium.Space = _unbounded(task.observation_size)
        self.action_space = gymnasium.spaces.Box(
            -ACTION_BOUND, ACTION_BOUND, (g1.NUM_JOINTS,), np.float32
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy opens windows of its own when it is asked for pictures.
        return self.__dict__ | {"_renderer": None, "_viewer": None}

    def start(self, options: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        """Arguments of the task's reset of `count` robots, from the options of Gymnasium's."""
        return self.task.start(options, count)

    def observe(self, env_ids: np.ndarray | slice, rng: Source) -> tuple[np.ndarray, ...]:
        """What observations are made of; a diverged robot's have zeros for what is not finite."""
        parts = self.task.observe(env_ids, rng)
        if not math.isfinite(np.vdot(parts[0], parts[0])):
            for part in parts:
                np.nan_to_num(part, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return parts

    def observation(self, parts: tuple[np.ndarray, ...]) -> Any:
        """What Gymnasium's calls return, of the parts that `observe` found."""
        return parts[0]

    def check_open(self, call: str) -> None:
        """Refuse a call after `close`."""
        if self.closed:
            raise ClosedError(f"{call}() was called after close(), make the environment anew.")

    def render(self, env_id: int = 0) -> np.ndarray | tuple[np.ndarray, ...] | None:
        """A picture of robot `env_id` and of what its task shows, in the configured mode."""
        mode = self._render_config["render_mode"]
        if mode is None:
            gymnasium.logger.warn("render() was called but no render_mode was given to make().")
            return None
        from bm_envs import viewers

        sim = self.simulator
        qpos = np.concatenate(
            [sim.root_pos[env_id], sim.root_quat[env_id], sim.joint_pos[env_id]]
        ).astype(np.float64)
        shown = qpos, self._ghost(env_id), viewers.Decor(**self._decor(env_id))
        model = self.config.model
        view = viewers.FAR_VIEW if self._far else viewers.View()
        if mode == "human":
            if self._viewer is None:
                self._viewer = viewers.HumanViewer(model, view=view)
            self._viewer.sync(*shown)
            return None
        if self._renderer is None:
            size = {key: self._render_config[key] for key in ("width", "height", "camera")}
            self._renderer = viewers.OffscreenRenderer(model, view=view, **size)
        if mode == "rgb_array":
            return self._renderer.render(*shown)
        depth = self._renderer.depth(*shown)
        return depth if mode == "depth_array" else (self._renderer.render(*shown), depth)

    def _ghost(self, env_id: int) -> np.ndarray | None:
        """A second configuration to draw, `[36]`."""
        return None

    def _decor(self, env_id: int) -> dict[str, np.ndarray]:
        """What else to draw, members of the renderer's `Decor`."""
        return {}

    def close(self) -> None:
        """Free windows, pictures and the engine; nothing happens the second time."""
        self.closed = True
        for part in (self._renderer, self._viewer):
            if part is not None:
                part.close()
        self._renderer = self._viewer = None
        self.simulator.close()


class _TrackCore(_Core):
    def __init__(
        self, num_envs: int, motion: Motion, config: TrackConfig, backend: str, threads: int,
        critic: CriticObs, render: Mapping[str, Any],
    ) -> None:  # fmt: skip
        if critic not in ("info", "dict", "none"):
            raise ConfigError(f"critic is '{critic}', expected 'info', 'dict' or 'none'.")
        self.critic = critic
        task = TrackTask(_resolve_clips(motion), config, num_envs)
        task.attach(make_host_simulator(backend, task.simulator_config(threads)))
        super().__init__(task, config, render)
        if critic == "dict":
            self.observation_space = gymnasium.spaces.Dict(
                {"policy": self.observation_space, "critic": _unbounded(task.critic_size)}
            )

    def start(self, options: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        clip_id, frame = _start_options(self.task, options, count)
        return {"clip_id": clip_id, "frame": frame}

    def observation(self, parts: tuple[np.ndarray, ...]) -> Any:
        policy, critic = parts
        return {"policy": policy, "critic": critic} if self.critic == "dict" else policy

    def _ghost(self, env_id: int) -> np.ndarray | None:
        if not self._render_config["ghost"]:
            return None
        ref = self.task.reference
        ghost = np.concatenate(
            [ref.body_pos[env_id, 0], ref.body_quat[env_id, 0], ref.joint_pos[env_id]]
        )
        return ghost.astype(np.float64)


class _GuidedCore(_Core):
    _far = True
    streams = True

    def __init__(
        self, num_envs: int, config: GuidedConfig, backend: str, threads: int,
        render: Mapping[str, Any],
    ) -> None:  # fmt: skip
        from bm_envs.tasks.guided.tasks import TASKS

        task = TASKS[config.task](config, num_envs, backend=backend, threads=threads)
        super().__init__(task, config, render)

    def _decor(self, env_id: int) -> dict[str, np.ndarray]:
        return self.task.shown(env_id)


def _unbounded(size: int) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _check_action(action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        action = np.asarray(action, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"action is {type(action).__name__}, expected numbers {shape}.") from None
    if action.shape != shape:
        raise ConfigError(f"action has shape {action.shape}, expected {shape}.")
    if not math.isfinite(np.vdot(action, action)):  # may overflow where all are finite
        where = np.argwhere(~np.isfinite(action))
        if len(where):
            raise ConfigError(f"action{where[0].tolist()} is not finite, expected finite numbers.")
    return action


def _only(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """A copy of the rows `ids`; the others, which mean nothing, are zero and cost no memory."""
    copy = np.zeros(rows.shape, rows.dtype)
    copy[ids] = rows[ids]
    return copy


def _cause(result: StepResult, env_id: int) -> Named:
    """The first rule that ended the episode; failures come before the end of clip and time.

    Its number counts the task's rules from 1.
    """
    rules = enumerate(result.causes.items(), 1)
    return next(Named(i, name) for i, (name, happened) in rules if happened[env_id])


NO_CAUSE = Named(0, "")  # of an episode that goes on


class _SingleEnv(gymnasium.Env):
    """One robot, at any task."""

    metadata = METADATA
    _core: _Core

    def __init__(self, core: _Core, render_mode: str | None) -> None:
        self.render_mode = render_mode
        self._core = core
        self.task, self.simulator = core.task, core.simulator
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
        action = _check_action(action, (g1.NUM_JOINTS,))
        result = self.task.step(action[None])
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        self.task.push(self.np_random, ~(result.terminated | result.truncated))
        parts = tuple(part[0] for part in self._core.observe(slice(None), self.np_random))
        info = self._info(parts)
        info |= zip(result.names, result.values[0].tolist(), strict=True)
        info["termination"] = _cause(result, 0) if terminated or truncated else NO_CAUSE
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


class _VectorEnv(gymnasium.vector.VectorEnv):
    """N robots in one simulator, at any task; `TrackVectorEnv` tells of the autoreset modes."""

    metadata: dict[str, Any] = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}
    _core: _Core

    def __init__(
        self, num_envs: int, core: _Core, autoreset_mode: AutoresetMode, render_mode: str | None,
        max_episode_steps: int | None,
    ) -> None:  # fmt: skip
        self.autoreset_mode = autoreset_mode
        self.metadata = {**self.metadata, "autoreset_mode": autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self._core = core
        self.task, self.simulator = core.task, core.simulator
        self.single_observation_space = core.observation_space
        self.single_action_space = core.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.arange(num_envs)
        self._all = np.ones(num_envs, bool)
        self._max_steps = max_episode_steps
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
        actions = _check_action(actions, (self.num_envs, g1.NUM_JOINTS))
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
            causes[ids] = [_cause(result, int(i)) for i in ids]
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


class TrackEnv(_SingleEnv, gymnasium.Env):
    """Track a reference motion with a Unitree G1: one robot. The vector form is `TrackVectorEnv`.

    ## Description
    A humanoid with 29 actuated joints follows a clip of human motion at 50 Hz under PD control, as
    in BeyondMimic stage 1 (arXiv 2508.08241).

    ## Action Space
    `Box(-10, 10, (29,))`, raw: joint target = default pose + action scale * action, held for the 4
    physics steps of 5 ms. The bounds are declared, not enforced: any finite action is applied.
    Joint order: the robot table's.

    ## Observation Space
    `Box(-inf, inf, (160,))`, terms in the order of `TrackConfig.observations`:

    | index | term | frame | unit | noise |
    |---|---|---|---|---|
    | 0:58 | command: reference joint positions (29), velocities (29) | joints | rad, rad/s | - |
    | 58:61 | motion_anchor_pos_b: reference torso position | robot torso | m | 0.25 |
    | 61:67 | motion_anchor_ori_b: reference torso orientation, 6-D | robot torso | - | 0.05 |
    | 67:70 | base_lin_vel: velocity of the pelvis origin | pelvis | m/s | 0.5 |
    | 70:73 | base_ang_vel: angular velocity of the pelvis | pelvis | rad/s | 0.2 |
    | 73:102 | joint_pos: joint positions less the default pose | joints | rad | 0.01 |
    | 102:131 | joint_vel: joint velocities | joints | rad/s | 0.5 |
    | 131:160 | actions: previous raw action | joints | - | - |

    `BMTrack-G1-NoStateEst-v0` leaves `motion_anchor_pos_b` and `base_lin_vel` out (154 values). The
    noise-free critic observation (286 values) is `info["critic_obs"]`, or the entry `critic` of a
    dictionary observation with `critic="dict"`.

    ## Rewards
    The sum of the signed terms `info["reward_<term>"]`, each weight * value * 0.02 s; see
    `bm_envs.tasks.track.config.RewardConfig`. Perfect tracking pays at most 0.1 a step. Noise of
    size 1 on the action costs 0.116 a step on average; `preset="laptop"` is for trainers that begin
    so. Terms of the action take it as within -100 and 100.

    ## Starting State
    On the reference at a drawn frame (reference state initialization) plus noise.
    `reset(options={"clip": name or index, "frame": index})` or `"phase"` in [0, 1) chooses.

    ## Episode End
    Termination: torso height off by 0.25 m, torso tilt by 0.8, a foot's or hand's height by 0.25 m,
    or a diverged simulation; `info["termination"]` names the rule. Truncation: the clip's last
    frame, or `episode_s` seconds.

    ## Info
    `clip` and `frame`: the motion, an integer that equals its name, too, and the present frame of
    the reference. `critic_obs`: see above. Of the step just done, and 0 after a reset:
    `reward_<term>`, signed and weighted; their sum is the reward. `termination`: by which rule an
    episode has ended, an integer that equals the rule's name, too, and 0 and "" where it goes on.

    ## Arguments
    `motion`: a name, a path, a `Clip`, or a list of those. `preset`: see `TrackConfig.preset`.
    `overrides`: nested mapping of changed settings. `config`: a whole `TrackConfig` in their place.
    `episode_s`: seconds before truncation, None for the end of the clip only, "preset" for the
    preset's. `backend`, `threads`, `critic`, `render_mode`, `width`, `height`, `camera`, `ghost`.

    ## Version History
    v0: first version.
    """

    _core: _TrackCore

    def __init__(
        self, motion: Motion = "walk", *, backend: str = "mujoco", preset: str = "train",
        overrides: Mapping[str, Any] | None = None, config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        critic: CriticObs = "info", render_mode: str | None = None, width: int = 640,
        height: int = 480, camera: str = "track", ghost: bool = True, threads: int = 1,
        **unknown: Any,
    ) -> None:  # fmt: skip
        _check_arguments(
            type(self),
            unknown,
            backend=backend,
            threads=threads,
            render_mode=render_mode,
            width=width,
            height=height,
            camera=camera,
            ghost=ghost,
        )
        render = dict(
            render_mode=render_mode, width=width, height=height, camera=camera, ghost=ghost
        )
        resolved = _resolve_config(config, preset, overrides, episode_s, state_estimation)
        core = _TrackCore(1, motion, resolved, backend, threads, critic, render)
        super().__init__(core, render_mode)

    @property
    def config(self) -> TrackConfig:
        """The resolved configuration."""
        return self._core.config

    def _info(self, parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        clip = int(self.task.clip_id[0])
        info: dict[str, Any] = {
            "clip": Named(clip, self.task.clips[clip].name),
            "frame": int(self.task.frame[0]),
        }
        if self._core.critic == "info":
            info["critic_obs"] = parts[1]
        return info


class TrackVectorEnv(_VectorEnv, gymnasium.vector.VectorEnv):
    """N robots in one simulator; task, spaces and arguments are those of `TrackEnv`.

    `autoreset_mode`: `same_step` (default: no step is lost; the last observation of an ended
    episode is in `info["final_obs"]`, what belonged to it in `info["final_info"]`), `next_step`, or
    `disabled`, where `reset(options={"reset_mask": ...})` restarts robots by hand.
    `max_episode_steps`: control steps after which an episode is truncated if the task has not ended
    it, as Gymnasium's `TimeLimit` does for a single environment; None: no such limit.

    Every array in `info` has one row a robot. `info["reward_<term>"]` and `info["termination"]`
    (the name of the rule that ended the episode, "" where none did; only in steps that end one)
    belong to the step just taken, `info["critic_obs"]` to the observation returned. `info["clip"]`
    is the number of the motion.
    """

    _core: _TrackCore

    def __init__(
        self, num_envs: int = 1, motion: Motion = "walk", *, backend: str = "mujoco",
        preset: str = "train", overrides: Mapping[str, Any] | None = None,
        config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        autoreset_mode: Autoreset = "same_step", critic: CriticObs = "info",
        render_mode: str | None = None, width: int = 640, height: int = 480,
        camera: str = "track", ghost: bool = True, threads: int = 0,
        max_episode_steps: int | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        mode = _autoreset_mode(autoreset_mode)
        _check_arguments(
            type(self),
            unknown,
            backend=backend,
            threads=threads,
            render_mode=render_mode,
            width=width,
            height=height,
            camera=camera,
            ghost=ghost,
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )
        render = dict(
            render_mode=render_mode, width=width, height=height, camera=camera, ghost=ghost
        )
        resolved = _resolve_config(config, preset, overrides, episode_s, state_estimation)
        core = _TrackCore(num_envs, motion, resolved, backend, threads, critic, render)
        super().__init__(int(num_envs), core, mode, render_mode, max_episode_steps)

    @property
    def config(self) -> TrackConfig:
        """The resolved configuration."""
        return self._core.config

    def _figures(self, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        values = {"clip": self.task.clip_id.copy(), "frame": self.task.frame.copy()}
        if self._core.critic == "info":
            values["critic_obs"] = parts[1]
        return values


class GuidedEnv(_SingleEnv, gymnasium.Env):
    """A Unitree G1 without a reference, at one of the guided tasks: one robot.

    The vector form is `GuidedVectorEnv`.

    ## Description
    The tasks with which BeyondMimic (arXiv 2508.08241) tries its guided diffusion model; robot,
    physics and drives are those of tracking, 50 Hz. Where the paper tells no figure it is ours, as
    `bm_envs.tasks.guided.config` says one by one.

    | id | task | it is done when |
    |---|---|---|
    | BMGuided-G1-WalkPerturb-v0 | walk 15 s; the root's velocity jumps by U[0, 0.5] m/s each second, in any horizontal direction, beginning at 0 s | no fall |
    | BMGuided-G1-Joystick-v0 | 3 s each: 0.6 m/s forward, 0.3 m/s backward, 0.5 rad/s left and right at 0.4 m/s | each was followed: mean speed over the last 1.5 s half the commanded one or more (0.3, 0.15 m/s); turns: heading changed by 25 degrees or more; and no fall |
    | BMGuided-G1-Waypoint-v0 | a goal 2 to 5 m off, 15 s | the pelvis was within 0.3 m and slower than 0.2 m/s, and no fall |
    | BMGuided-G1-Obstacle-v0 | the same behind 1 to 5 vertical cylinders of 0.15 to 0.3 m radius | the same, and no link came into one |

    Cylinders are no part of the physics; `bm_envs.tasks.guided.obstacles` has the test of contact.

    `task="composition"`, which has no id, is a minute of all: walk 8 s, stop, back, turn, 6 s each,
    then 34 s for a goal behind obstacles, with pushes throughout.

    ## Action Space
    `Box(-10, 10, (29,))`, as in `TrackEnv`.

    ## Observation Space
    `Box(-inf, inf, (O,))`, the terms of `bm_envs.tasks.guided.observations.TERMS`, where they stand
    being `env.unwrapped.task.observation_layout`. The now frame stands on the ground under the
    pelvis and faces as it does. Terms of 4 steps hold t-3, t-2, t-1 and t one after another, as if
    the robot had been in its start state before; `observations.features` makes of them the states
    as a diffusion model wants them.

    | index | term | frame | unit |
    |---|---|---|---|
    | 0:116 | joint_pos: joint positions, 4 steps | joints | rad |
    | 116:232 | joint_vel: joint velocities, 4 steps | joints | rad/s |
    | 232:244 | root_pos: pelvis, 4 steps; heights are above the ground | now | m |
    | 244:256 | root_rot: rotation vector of the pelvis, 4 steps | now | rad |
    | 256:268 | root_lin_vel: velocity of the pelvis origin, 4 steps | now | m/s |
    | 268:280 | root_ang_vel: angular velocity of the pelvis, 4 steps | now | rad/s |
    | 280:309 | actions: last raw action; at the start the one that asks for the pose | joints | - |

    WalkPerturb ends here. Joystick goes on with

    | 309:312 | command: wanted velocity forward and left, wanted yaw rate | now | m/s, rad/s |

    and Waypoint and Obstacle with the first two of these, Obstacle with all three:

    | 309:311 | goal_pos: the goal | now | m |
    | 311:312 | goal_distance: horizontal distance of the pelvis from it | - | m |
    | 312:321 | obstacles: x, y and radius of the 3 nearest obstacles | now | m |

    Where there are fewer than 3, (10, 0, 0) stands for the others. A composition has all rows in
    this order: the command first, then goal and obstacles, each in its own phase.

    ## Rewards
    `reward_alive` + `reward_task` each step: 0.5 while not fallen, and 0.5 times a term in [0, 1],
    0 from a fall on and in the warm-up. v is the horizontal velocity of the pelvis:

    - WalkPerturb: |v| / 0.2, at most 1.
    - Joystick: the mean of exp(-|v - v_c|^2 / 0.3^2) and exp(-(w - w_c)^2 / 0.5^2), the command's
      velocity and yaw rate.
    - Waypoint: (1 - e^-2d) min(1, max(0, v_g / 0.5)) + e^-2d exp(-|v|^2 / 0.2^2), d the distance
      and v_g the speed towards the goal.
    - Obstacle: that times min(1, max(0, c / 0.1)), c the clearance.
    - Composition: the joystick's in commanded phases, the obstacle task's on the way.

    ## Starting State
    A drawn frame of the built-in walks and turns in which the robot is on its way.
    `reset(options={"qpos": [36], "qvel": [35]})` gives the state (at rest without `qvel`), in
    MuJoCo's layout; `"goal": [2]` and, with it, `"obstacles": [C, 3]` (x, y, radius) give the task,
    in the world, m. With `warm_up_s` the time begins so much later, and with it command, goal,
    obstacles and pushes; in observations they are then zero (obstacles: absent).

    ## Episode End
    Termination: a fall (`fall="strict"`: pelvis below 0.4 m or tilted by more than 60 degrees;
    `"head"`: head below 0.2 m) or a diverged simulation. Truncation: the task's time, 15 s (joystick
    12 s), or `episode_s`. `info["termination"]` names which. Nothing else ends an episode: not the
    arrival at a goal, nor the touch of an obstacle.

    ## Info
    The figures of the state that is observed. All: `time_s` (negative in the warm-up),
    `pelvis_height`, `head_height`, `tilt`, `speed`, `fell_strict`, `fell_head` (so far), `success`
    (earned so far; of WalkPerturb, Joystick and Composition in the last step only; a fall by the criterion that
    ends episodes takes it back: the paper's success wants `fall="head"`), `success_strict` (and no
    fall by the strict one).
    WalkPerturb: `pushed`, `push_velocity`, `pushes`. Joystick: `command`, `velocity`, `yaw_rate`,
    `segment`, `segments_done`, `segment_value` (0 before its end), `segment_passed`. Waypoint,
    Obstacle: `goal`, `distance`, `arrived_s` (infinite before). Obstacle: `clearance`, `least_clearance`, `touched`,
    `num_obstacles`. Composition: all of these. m, s, rad; `reward_alive` and `reward_task` are of the step just done,
    and 0 after a reset; `termination` as in `TrackEnv`.

    ## Arguments
    `task`: which one, given by the id. `overrides`: nested mapping of changed settings of the task's
    configuration, `config`: a whole one in their place. `episode_s`, `fall`, `warm_up_s`: three of
    those settings, "preset" for the configuration's. `backend`, `threads`, `render_mode`, `width`,
    `height`: as in `TrackEnv`; `camera`: one of the model's, None for one that follows from afar.
    Pictures show the command as an arrow, the path walked, the goal and the obstacles.

    ## Version History
    v0: first version.
    """  # noqa: E501 (a table's row is a line)

    task: GuidedTask

    def __init__(
        self, task: str = "walk_perturb", *, backend: str = "mujoco",
        overrides: Mapping[str, Any] | None = None, config: GuidedConfig | None = None,
        episode_s: Setting = "preset", fall: str = "preset", warm_up_s: Setting = "preset",
        render_mode: str | None = None, width: int = 640, height: int = 480,
        camera: str | None = None, threads: int = 1,
        **unknown: Any,
    ) -> None:  # fmt: skip
        _check_arguments(
            type(self),
            unknown,
            backend=backend,
            threads=threads,
            render_mode=render_mode,
            width=width,
            height=height,
            camera=camera,
        )
        render = dict(render_mode=render_mode, width=width, height=height, camera=camera)
        settings = dict(episode_s=episode_s, fall=fall, warm_up_s=warm_up_s)
        resolved = _resolve_guided(task, config, overrides, settings)
        super().__init__(_GuidedCore(1, resolved, backend, threads, render), render_mode)

    @property
    def config(self) -> GuidedConfig:
        """The resolved configuration."""
        return self._core.config

    def _info(self, parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        rows = {name: values[0] for name, values in self.task.figures().items()}
        return {name: row if row.ndim else row.item() for name, row in rows.items()}


class GuidedVectorEnv(_VectorEnv, gymnasium.vector.VectorEnv):
    """N robots in one simulator; task, spaces and arguments are those of `GuidedEnv`.

    `autoreset_mode` and `max_episode_steps` as in `TrackVectorEnv`. With `reset(seed=[...])`, one
    seed for each robot, what is drawn for a robot does not depend on the others: see `reset`. Every
    array in `info` has one row a robot; with `same_step` those of an ended episode, its success
    among them, are in `info["final_info"]`.
    """

    task: GuidedTask

    def __init__(
        self, num_envs: int = 1, task: str = "walk_perturb", *, backend: str = "mujoco",
        overrides: Mapping[str, Any] | None = None, config: GuidedConfig | None = None,
        episode_s: Setting = "preset", fall: str = "preset", warm_up_s: Setting = "preset",
        autoreset_mode: Autoreset = "same_step", render_mode: str | None = None, width: int = 640,
        height: int = 480, camera: str | None = None, threads: int = 0,
        max_episode_steps: int | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        mode = _autoreset_mode(autoreset_mode)
        _check_arguments(
            type(self),
            unknown,
            backend=backend,
            threads=threads,
            render_mode=render_mode,
            width=width,
            height=height,
            camera=camera,
            num_envs=num_envs,
            max_episode_steps=max_episode_steps,
        )
        render = dict(render_mode=render_mode, width=width, height=height, camera=camera)
        settings = dict(episode_s=episode_s, fall=fall, warm_up_s=warm_up_s)
        resolved = _resolve_guided(task, config, overrides, settings)
        core = _GuidedCore(num_envs, resolved, backend, threads, render)
        super().__init__(int(num_envs), core, mode, render_mode, max_episode_steps)

    @property
    def config(self) -> GuidedConfig:
        """The resolved configuration."""
        return self._core.config

    def _figures(self, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        return self.task.figures()


def _resolve_guided(
    task: str, config: GuidedConfig | None, overrides: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> GuidedConfig:  # fmt: skip
    from bm_envs.tasks.guided.config import config_class

    check_kind("task", task, str)
    check_kind("overrides", overrides, Mapping | None)
    kind = config_class(task)
    config = kind() if config is None else config
    if type(config) is not kind:
        raise ConfigError(
            f"config is a {type(config).__name__}, expected a {kind.__name__} for task '{task}'."
        )
    changes = {name: value for name, value in settings.items() if value != "preset"}
    return config.override({**(overrides or {}), **changes})


def _streams(seeds: Sequence[int]) -> Streams:
    """A generator for each robot; the guided tasks draw from them."""
    from bm_envs.tasks.guided.streams import Streams

    return Streams.seeded(seeds)


def _autoreset_mode(mode: Autoreset) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    try:
        return AutoresetMode[mode.upper()]
    except (KeyError, AttributeError):
        raise ConfigError(
            f"autoreset_mode is '{mode}', expected 'same_step', 'next_step' or 'disabled'."
        ) from None


def _start_options(
    task: TrackTask, options: Mapping[str, Any] | None, count: int = 1
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The clips and frames asked for in `reset(options=...)`, `[count]` each, or None where drawn.

    A value of an option is for every robot, or there is one for each.
    """
    options = dict(options or {})
    options.pop("reset_mask", None)
    clip, frame, phase = (options.pop(key, None) for key in ("clip", "frame", "phase"))
    if options:
        raise ConfigError(
            f"Unknown reset option '{next(iter(options))}', expected clip, frame, phase or "
            "reset_mask."
        )
    if frame is not None and phase is not None:
        raise ConfigError("options have both 'frame' and 'phase', expected one of them.")
    if clip is None and frame is None and phase is None:
        return None, None
    names = [item.name for item in task.clips]
    if isinstance(clip, str):
        if clip not in names:
            raise ConfigError(f"options['clip'] is '{clip}', expected one of {', '.join(names)}.")
        clip = names.index(clip)

    def each(name: str, value: Any, dtype: type) -> np.ndarray:
        array = np.asarray(0 if value is None else value)
        if array.dtype.kind not in ("iu" if dtype is int else "iuf"):
            kind = "an integer" if dtype is int else "a number"
            raise ConfigError(f"options['{name}'] is {value!r}, expected {kind}.")
        if array.shape not in ((), (count,)):
            raise ConfigError(
                f"options['{name}'] has shape {array.shape}, expected one value or {count}."
            )
        return np.broadcast_to(array, count).astype(dtype)

    def check(name: str, values: np.ndarray, ok: np.ndarray, wanted: str) -> None:
        if not ok.all():
            worst = values[int(np.argmin(ok))]
            raise ConfigError(f"options['{name}'] is {worst}, expected {wanted}.")

    clips = each("clip", clip, int)
    check("clip", clips, (clips >= 0) & (clips < len(names)), f"0 to {len(names) - 1}")
    last = task.clip_frames[clips] - 2
    if phase is not None:
        phases = each("phase", phase, float)
        check("phase", phases, (phases >= 0) & (phases < 1), "a number in [0, 1)")
        return clips, (phases * (last + 1)).astype(int)
    frames = each("frame", frame, int)
    check("frame", frames, (frames >= 0) & (frames <= last), f"0 to {last.min()}")
    return clips, frames
