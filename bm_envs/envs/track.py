"""The tracking environments; the docstring of `TrackEnv` is their specification."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np

from bm_envs.backends.host import make_host_simulator
from bm_envs.envs.arguments import Autoreset, arguments_of, check_arguments
from bm_envs.envs.core import Core, Named, unbounded
from bm_envs.envs.single import SingleEnv
from bm_envs.envs.vector import VectorEnv
from bm_envs.errors import ConfigError, MotionError
from bm_envs.motion.clip import Clip
from bm_envs.motion.on_robot import on_robot
from bm_envs.motion.shared import shared_motions
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS
from bm_envs.tasks.settings import check_kind
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.task import TrackTask

Motion = str | os.PathLike[str] | Clip | Sequence[str | os.PathLike[str] | Clip]
CriticObs = Literal["info", "dict", "none"]


class TrackEnv(SingleEnv, gymnasium.Env):
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
    `robot`: `g1`, or `g1_23`, the G1 with 23 joints, which leaves out of motions the joints that it
    lacks: 130 values to observe, by the same rule, and 23 actions (`BMTrack-G1-23-v0`).
    `overrides`: nested mapping of changed settings. `config`: a whole `TrackConfig` in their place.
    `episode_s`: seconds before truncation, None for the end of the clip only, "preset" for the
    preset's. `backend`, `threads`, `critic`, `render_mode`, `width`, `height`, `camera`, `ghost`.

    ## Version History
    v0: first version.
    """

    task: TrackTask
    config: TrackConfig
    _core: _TrackCore

    def __init__(
        self, motion: Motion = "walk", *, backend: str = "mujoco", preset: str = "train",
        overrides: Mapping[str, Any] | None = None, config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        robot: str = "g1", critic: CriticObs = "info", render_mode: str | None = None,
        width: int = 640, height: int = 480, camera: str = "track", ghost: bool = True,
        threads: int = 1, **unknown: Any,
    ) -> None:  # fmt: skip
        super().__init__(_TrackCore(type(self), arguments_of(locals()) | {"num_envs": 1}))

    def _info(self, parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        clip = int(self.task.clip_id[0])
        info: dict[str, Any] = {
            "clip": Named(clip, self.task.clips[clip].name),
            "frame": int(self.task.frame[0]),
        }
        if self._core.critic == "info":
            info["critic_obs"] = parts[1]
        return info


class TrackVectorEnv(VectorEnv, gymnasium.vector.VectorEnv):
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

    task: TrackTask
    config: TrackConfig
    _core: _TrackCore

    def __init__(
        self, num_envs: int = 1, motion: Motion = "walk", *, backend: str = "mujoco",
        preset: str = "train", overrides: Mapping[str, Any] | None = None,
        config: TrackConfig | None = None,
        episode_s: float | None | Literal["preset"] = "preset", state_estimation: bool = True,
        robot: str = "g1", autoreset_mode: Autoreset = "same_step", critic: CriticObs = "info",
        render_mode: str | None = None, width: int = 640, height: int = 480,
        camera: str = "track", ghost: bool = True, threads: int = 0,
        max_episode_steps: int | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        super().__init__(_TrackCore(type(self), arguments_of(locals())))

    def _figures(self, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        values = {"clip": self.task.clip_id.copy(), "frame": self.task.frame.copy()}
        if self._core.critic == "info":
            values["critic_obs"] = parts[1]
        return values


class _TrackCore(Core):
    def __init__(self, env: type, arguments: Mapping[str, Any]) -> None:
        check_arguments(env, arguments)
        config, critic = _resolve_config(arguments), arguments["critic"]
        if critic not in ("info", "dict", "none"):
            raise ConfigError(f"critic is '{critic}', expected 'info', 'dict' or 'none'.")
        self.critic = critic
        clips = [on_robot(clip, config.model.table) for clip in _resolve_clips(arguments["motion"])]
        task = TrackTask(clips, config, int(arguments["num_envs"]))
        settings = task.simulator_config(arguments["threads"])
        task.attach(make_host_simulator(arguments["backend"], settings))
        super().__init__(task, arguments)
        if critic == "dict":
            self.observation_space = gymnasium.spaces.Dict(
                {"policy": self.observation_space, "critic": unbounded(task.critic_size)}
            )

    def start(self, options: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        clip_id, frame = _start_options(self.task, options, count)
        return {"clip_id": clip_id, "frame": frame}

    def observation(self, parts: tuple[np.ndarray, ...]) -> Any:
        policy, critic = parts
        return {"policy": policy, "critic": critic} if self.critic == "dict" else policy

    def ghost(self, env_id: int) -> np.ndarray | None:
        if not self.arguments["ghost"]:
            return None
        ref = self.task.reference
        ghost = np.concatenate(
            [ref.body_pos[env_id, 0], ref.body_quat[env_id, 0], ref.joint_pos[env_id]]
        )
        return ghost.astype(np.float64)


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


def _resolve_config(arguments: Mapping[str, Any]) -> TrackConfig:
    config, overrides = arguments["config"], arguments["overrides"]
    preset, episode_s = arguments["preset"], arguments["episode_s"]
    check_kind("config", config, TrackConfig | None)
    check_kind("preset", preset, str)
    check_kind("overrides", overrides, Mapping | None)
    check_kind("state_estimation", arguments["state_estimation"], bool)
    check_kind("robot", arguments["robot"], str)
    if config is None:
        config = TrackConfig.preset(preset).on_robot(arguments["robot"])
    elif arguments["robot"] not in ("g1", config.model.robot):
        raise ConfigError(
            f"robot is '{arguments['robot']}', but config is for robot '{config.model.robot}' "
            f"(TrackConfig.on_robot makes it another's)."
        )
    if not arguments["state_estimation"]:
        config = dataclasses.replace(config, observations=NO_STATE_ESTIMATION_TERMS)
    if overrides:
        config = config.override(overrides)
    if isinstance(episode_s, str) and episode_s != "preset":
        raise ConfigError(f"episode_s is '{episode_s}', expected seconds, None or 'preset'.")
    return config if episode_s == "preset" else dataclasses.replace(config, episode_s=episode_s)


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

    def check(name: str, values: np.ndarray, ok: np.ndarray, expected: str) -> None:
        if not ok.all():
            worst = values[int(np.argmin(ok))]
            raise ConfigError(f"options['{name}'] is {worst}, expected {expected}.")

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
