"""A video of a tracker: the policy's robot, and the reference beside it as a green ghost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bm_envs import cli, evaluation
from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.motion.clip import Clip
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import Policy
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.viewers import OffscreenRenderer, camera_smoothing

FPS = 25


def record_video(path: Path, policy: Policy, clip: Clip) -> None:
    """Let a policy follow a clip by the `clip` protocol, past a failure, and write it as an MP4.

    Raises:
        BackendUnavailable: there is no OpenGL that works without a display.
        ConfigError: the package av is missing.
    """
    cli.video_package()  # asked before the policy runs
    clip = on_robot(clip, policy.spec.robot)
    robot, look = follow(policy, clip), ModelConfig(visuals=True, robot=policy.spec.robot.name)
    reference = clip.qpos()
    total = int(clip.duration_s * FPS) + 1

    def pictures() -> Iterator[np.ndarray]:
        smoothing = camera_smoothing(FPS)
        with OffscreenRenderer(look, smoothing=smoothing) as renderer:
            for index in range(total):
                frame = round(index / FPS * clip.fps)
                solid, ghost = (q[min(frame, len(q) - 1)] for q in (robot, reference))
                yield renderer.render(solid, ghost)

    cli.write_video(path, pictures(), FPS, total)


def follow(policy: Policy, clip: Clip) -> np.ndarray:
    """The robot's configurations while a policy follows a clip. `[R, 36]`.

    R is the clip's number of frames, or less where the simulation diverged.
    """
    task = evaluation.protocol_task(policy, "clip", failure_rules=False)
    env = TrackVectorEnv(1, clip, config=task, autoreset_mode="disabled", critic="none", threads=1)
    states: list[np.ndarray] = []

    def record(present: np.ndarray) -> None:
        if present[0]:  # a diverged robot has no state to draw
            states.append(full_state(env.simulator)[0][0].astype(float))

    try:
        evaluation.run_episodes(evaluation.in_project_order(policy), env, on_frame=record)
    finally:
        env.close()
    return np.stack(states)
