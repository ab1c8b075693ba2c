"""Gymnasium's single and vector environments around (Simulator, Task); nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from bm_envs.backends.base import Simulator, make_simulator
from bm_envs.errors import ConfigError
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.observation_terms import NO_STATE_ESTIMATION_TERMS
from bm_envs.robots import g1
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.task import StepResult, TrackTask

Motion = str | Clip | Sequence[str | Clip]
CriticObs = Literal["info", "dict", "none"]
# A declared range and no clip: published policies need any finite raw action to be applied.
ACTION_BOUND = 10.0
RENDER_FPS = round(1 / CONTROL_DT)


def _resolve_clips(motion: Motion) -> list[Clip]:
    items = [motion] if isinstance(motion, str | Clip) else list(motion)
    clips: list[Clip] = []
    for item in items:
        clips.extend([item] if isinstance(item, Clip) else load_motions(item))
    return clips


def _resolve_config(
    config: TrackConfig | None, preset: str, overrides: Mapping[str, Any] | None,
    episode_s: float | None | Literal["preset"], state_estimation: bool,
) -> TrackConfig:  # fmt: skip
    config = TrackConfig.preset(preset) if config is None else config
    if not state_estimation:
        config = dataclasses.replace(config, observations=NO_STATE_ESTIMATION_TERMS)
    if overrides:
        config = config.override(overrides)
    if isinstance(episode_s, str) and episode_s != "preset":
        raise ConfigError(f"episode_s is '{episode_s}', expected seconds, None or 'preset'.")
    return config if episode_s == "preset" else dataclasses.replace(config, episode_s=episode_s)


class _Core:
    """Task, simulator, spaces and rendering: what the two environment classes share."""

    def __init__(
        self, num_envs: int, motion: Motion, config: TrackConfig, backend: str, threads: int,
        critic: CriticObs, render: Mapping[str, Any],
    ) -> None:  # fmt: skip
        if critic not in ("info", "dict", "none"):
            raise ConfigError(f"critic is '{critic}', expected 'info', 'dict' or 'none'.")
        self.critic = critic
        self.config = config
        self.task = TrackTask(_resolve_clips(motion), config, num_envs)
        self.simulator: Simulator = make_simulator(backend, self.task.simulator_config(threads))
        self.task.attach(self.simulator)
        self._render_config = dict(render)
        self._renderer: Any = None
        self._viewer: Any = None

        def unbounded(size: int) -> gymnasium.spaces.Box:
            return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

        policy = unbounded(self.task.observation_size)
        self.observation_space: gymnasium.Space = policy
        if critic == "dict":
            self.observation_space = gymnasium.spaces.Dict(
                {"policy": policy, "critic": unbounded(self.task.critic_size)}
            )
        self.action_space = gymnasium.spaces.Box(
            -ACTION_BOUND, ACTION_BOUND, (g1.NUM_JOINTS,), np.float32
        )

    def observe(
        self, env_ids: np.ndarray | slice, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Policy and critic observations; a diverged robot's have zeros for what is not finite."""
        policy, critic = self.task.observe(env_ids, rng)
        if not math.isfinite(np.vdot(policy, policy)):
            np.nan_to_num(policy, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            np.nan_to_num(critic, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return policy, critic

    def render(self, env_id: int = 0) -> np.ndarray | tuple[np.ndarray, ...] | None:
        """A picture of robot `env_id` with its reference as a ghost, in the configured mode."""
        mode = self._render_config["render_mode"]
        if mode is None:
            gymnasium.logger.warn("render() was called but no render_mode was given to make().")
            return None
        from bm_envs.backends import mujoco_render

        qpos, ghost = self._poses(env_id)
        model = self.config.model
        if mode == "human":
            if self._viewer is None:
                self._viewer = mujoco_render.HumanViewer(model)
            self._viewer.sync(qpos, ghost)
            return None
        if self._renderer is None:
            size = {key: self._render_config[key] for key in ("width", "height", "camera")}
            self._renderer = mujoco_render.OffscreenRenderer(model, **size)
        if mode == "rgb_array":
            return self._renderer.render(qpos, ghost)
        depth = self._renderer.depth(qpos, ghost)
        return depth if mode == "depth_array" else (self._renderer.render(qpos, ghost), depth)

    def _poses(self, env_id: int) -> tuple[np.ndarray, np.ndarray | None]:
        sim, ref = self.simulator, self.task.reference
        qpos = np.concatenate(
            [sim.root_pos[env_id], sim.root_quat[env_id], sim.joint_pos[env_id]]
        ).astype(np.float64)
        if not self._render_config["ghost"]:
            return qpos, None
        ghost = np.concatenate(
            [ref.body_pos[env_id, 0], ref.body_quat[env_id, 0], ref.joint_pos[env_id]]
        )
        return qpos, ghost.astype(np.float64)

    def close(self) -> None:
        """Free windows, pictures and the engine."""
        for part in (self._renderer, self._viewer):
            if part is not None:
                part.close()
        self._renderer = self._viewer = None
        self.simulator.close()


def _check_action(action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    action = np.asarray(action, np.float32)
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


def _cause(result: StepResult, env_id: int) -> str:
    """The first rule that ended the episode; failures come before the end of clip and time."""
    return next(name for name, happened in result.causes.items() if happened[env_id])


class TrackEnv(gymnasium.Env):
    """Track a reference motion with a Unitree G1: one robot. The vector form is `TrackVectorEnv`.

    ## Description
    A humanoid with 29 actuated joints follows a clip of human motion at 50 Hz under PD control, as
    in BeyondMimic stage 1 (arXiv 2508.08241).

    ## Action Space
    `Box(-10, 10, (29,))`, raw: joint target = default pose + action scale * action, held for the 4
    physics steps of 5 ms. The bounds are declared, not enforced. Joint order: the robot table's.

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
    `bm_envs.tasks.track.config.RewardConfig`. Perfect tracking pays at most 0.1 a step.

    ## Starting State
    On the reference at a drawn frame (reference state initialization) plus noise.
    `reset(options={"clip": name or index, "frame": index})` or `"phase"` in [0, 1) chooses.

    ## Episode End
    Termination: torso height off by 0.25 m, torso tilt by 0.8, a foot's or hand's height by 0.25 m,
    or a diverged simulation; `info["termination"]` names the rule. Truncation: the clip's last
    frame, or `episode_s` seconds.

    ## Arguments
    `motion`: a name, a path, a `Clip`, or a list of those. `preset`: see `TrackConfig.preset`.
    `overrides`: nested mapping of changed settings. `config`: a whole `TrackConfig` in their place.
    `episode_s`: seconds before truncation, None for the end of the clip only, "preset" for the
    preset's. `backend`, `threads`, `critic`, `render_mode`, `width`, `height`, `camera`, `ghost`.

    ## Version History
    v0: first version.
    """

    metadata = {
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": RENDER_FPS,
    }

    def __init__(
        self, motion: Motion = "walk", *, backend: str = "mujoco", preset: str = "train",
        overrides: Mapping[str, Any] | None = None, config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        critic: CriticObs = "info", render_mode: str | None = None, width: int = 640,
        height: int = 480, camera: str = "track", ghost: bool = True, threads: int = 1,
    ) -> None:  # fmt: skip
        self.render_mode = _check_render_mode(render_mode, self.metadata)
        render = dict(
            render_mode=render_mode, width=width, height=height, camera=camera, ghost=ghost
        )
        resolved = _resolve_config(config, preset, overrides, episode_s, state_estimation)
        self._core = _Core(1, motion, resolved, backend, threads, critic, render)
        self.task, self.simulator = self._core.task, self._core.simulator
        self.observation_space = self._core.observation_space
        self.action_space = self._core.action_space
        self._started = False

    @property
    def config(self) -> TrackConfig:
        """The resolved configuration."""
        return self._core.config

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`; options `clip`, `frame` and `phase` choose the start."""
        super().reset(seed=seed)
        if seed is not None or not self._started:
            self.task.startup(self.np_random)
            self._started = True
        clip_id, frame = _start_options(self.task, options)
        self.task.reset(np.zeros(1, np.int64), self.np_random, clip_id=clip_id, frame=frame)
        policy, critic = self._core.observe(slice(None), self.np_random)
        if self.render_mode == "human":
            self.render()
        return self._observation(policy, critic), self._info(critic)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        action = _check_action(action, (g1.NUM_JOINTS,))
        result = self.task.step(action[None])
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        self.task.push(self.np_random, ~(result.terminated | result.truncated))
        policy, critic = self._core.observe(slice(None), self.np_random)
        info = self._info(critic)
        info |= zip(result.names, result.values[0].tolist(), strict=True)
        if terminated or truncated:
            info["termination"] = _cause(result, 0)
        if self.render_mode == "human":
            self.render()
        observation = self._observation(policy, critic)
        return observation, float(result.reward[0]), terminated, truncated, info

    def render(self) -> Any:
        """See `gymnasium.Env.render`."""
        return self._core.render()

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self._core.close()

    def _observation(self, policy: np.ndarray, critic: np.ndarray) -> Any:
        if self._core.critic == "dict":
            return {"policy": policy[0], "critic": critic[0]}
        return policy[0]

    def _info(self, critic: np.ndarray) -> dict[str, Any]:
        info: dict[str, Any] = {
            "clip": self.task.clips[self.task.clip_id[0]].name,
            "frame": int(self.task.frame[0]),
        }
        if self._core.critic == "info":
            info["critic_obs"] = critic[0]
        return info


class TrackVectorEnv(gymnasium.vector.VectorEnv):
    """N robots in one simulator; task, spaces and arguments are those of `TrackEnv`.

    `autoreset_mode`: `same_step` (default: no step is lost; the last observation of an ended
    episode is in `info["final_obs"]`, what belonged to it in `info["final_info"]`), `next_step`, or
    `disabled`, where `reset(options={"reset_mask": ...})` restarts robots by hand.

    Every array in `info` has one row a robot. `info["reward_<term>"]` and `info["termination"]`
    (the rule that ended the episode, "" where none did) belong to the step just taken,
    `info["critic_obs"]` to the observation returned.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self, num_envs: int = 1, motion: Motion = "walk", *, backend: str = "mujoco",
        preset: str = "train", overrides: Mapping[str, Any] | None = None,
        config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        autoreset_mode: Literal["same_step", "next_step", "disabled"] | AutoresetMode = "same_step",
        critic: CriticObs = "info", render_mode: str | None = None, width: int = 640,
        height: int = 480, camera: str = "track", ghost: bool = True, threads: int = 0,
    ) -> None:  # fmt: skip
        if not isinstance(autoreset_mode, AutoresetMode):
            try:
                autoreset_mode = AutoresetMode[autoreset_mode.upper()]
            except KeyError:
                raise ConfigError(
                    f"autoreset_mode is '{autoreset_mode}', expected 'same_step', 'next_step' or "
                    "'disabled'."
                ) from None
        self.autoreset_mode = autoreset_mode
        self.metadata = {**self.metadata, "autoreset_mode": autoreset_mode}
        self.render_mode = _check_render_mode(render_mode, self.metadata)
        render = dict(
            render_mode=render_mode, width=width, height=height, camera=camera, ghost=ghost
        )
        resolved = _resolve_config(config, preset, overrides, episode_s, state_estimation)
        self.num_envs = num_envs
        self._core = _Core(num_envs, motion, resolved, backend, threads, critic, render)
        self.task, self.simulator = self._core.task, self._core.simulator
        self.single_observation_space = self._core.observation_space
        self.single_action_space = self._core.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._everyone = np.arange(num_envs)
        self._all = np.ones(num_envs, bool)
        self._ended = np.zeros(num_envs, bool)  # next_step: to be reset by the coming step
        self._started = False

    @property
    def config(self) -> TrackConfig:
        """The resolved configuration."""
        return self._core.config

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.reset`.

        Args:
            seed: one seed for the whole batch.
            options: `clip`, `frame`, `phase` as in `TrackEnv`, for every robot alike or, as
                arrays, for each of those that are reset; `reset_mask` `[N]` bool resets only some.
        """
        super().reset(seed=seed)
        if isinstance(seed, list | tuple):
            raise ConfigError("seed must be one integer: the batch has one generator.")
        if seed is not None or not self._started:
            self.task.startup(self.np_random)
            self._started = True
        env_ids = self._everyone
        mask = (options or {}).get("reset_mask")
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise ConfigError(
                    f"options['reset_mask'] must be {self.num_envs} booleans, at least one True."
                )
            env_ids = np.flatnonzero(mask)
        clip_id, frame = _start_options(self.task, options, len(env_ids))
        self.task.reset(env_ids, self.np_random, clip_id=clip_id, frame=frame)
        self._ended[env_ids] = False
        policy, critic = self._core.observe(slice(None), self.np_random)
        return self._observation(policy, critic), self._info(critic)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `gymnasium.vector.VectorEnv.step`."""
        actions = _check_action(actions, (self.num_envs, g1.NUM_JOINTS))
        result = self.task.step(actions)
        reward, terminated, truncated = result.reward, result.terminated, result.truncated
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._ended.any():
            # The step after an episode's end only resets; physics of those robots is thrown away.
            for array in (reward, terminated, truncated, result.values):
                array[self._ended] = 0
            self.task.reset(np.flatnonzero(self._ended), self.np_random)
        done = terminated | truncated
        self.task.push(self.np_random, ~(done | self._ended))
        policy, critic = self._core.observe(slice(None), self.np_random)

        info: dict[str, Any] = {}
        if done.any():
            ids = np.flatnonzero(done)
            causes = np.full(self.num_envs, "", dtype="U16")
            causes[ids] = [_cause(result, int(i)) for i in ids]
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                kept = _only(critic, ids)
                final = self._info(kept, result)
                final["termination"], final["_termination"] = causes, done
                info["final_obs"] = self._observation(_only(policy, ids), kept)
                info["final_info"] = {
                    key: done if key.startswith("_") else value for key, value in final.items()
                }
                info["_final_obs"] = info["_final_info"] = done
                self.task.reset(ids, self.np_random)
                policy[ids], critic[ids] = self._core.observe(ids, self.np_random)
            info["termination"], info["_termination"] = causes, done
        self._ended = done.copy()
        info |= self._info(critic, result)
        return self._observation(policy, critic), reward, terminated, truncated, info

    def render(self) -> Any:
        """A tuple with the picture of the first robot (one window or picture shows one robot)."""
        picture = self._core.render()
        return None if picture is None else (picture,)

    def close_extras(self, **kwargs: Any) -> None:
        """See `gymnasium.vector.VectorEnv.close_extras`."""
        self._core.close()

    def get_state(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs: arrays, and the generator's state."""
        generator = self.np_random.bit_generator
        return {
            "simulator": self.simulator.get_state(),
            "task": self.task.get_state(),
            "generator": generator.state,
            "ended": self._ended.copy(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `get_state` returned, in an environment built with equal arguments."""
        self.simulator.set_state(state["simulator"])
        self.task.set_state(state["task"])
        self.np_random.bit_generator.state = state["generator"]
        self._ended[:] = state["ended"]
        self._started = True

    def _observation(self, policy: np.ndarray, critic: np.ndarray) -> Any:
        return {"policy": policy, "critic": critic} if self._core.critic == "dict" else policy

    def _info(self, critic: np.ndarray, result: StepResult | None = None) -> dict[str, Any]:
        values: dict[str, np.ndarray] = {
            "clip": self.task.clip_id.copy(),
            "frame": self.task.frame.copy(),
        }
        if self._core.critic == "info":
            values["critic_obs"] = critic
        if result is not None:
            values |= zip(result.names, result.values.T, strict=True)
        everyone = self._all.copy()
        return values | {f"_{name}": everyone for name in values}


def _check_render_mode(mode: str | None, metadata: Mapping[str, Any]) -> str | None:
    if mode is not None and mode not in metadata["render_modes"]:
        known = ", ".join(metadata["render_modes"])
        raise ConfigError(f"render_mode is '{mode}', expected None or one of {known}.")
    return mode


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
