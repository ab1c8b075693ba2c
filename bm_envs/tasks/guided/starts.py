"""States in which episodes begin: frames of clips in which the robot is on its way."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion.clip import Clip
from bm_envs.motion.shared import shared_motions
from bm_envs.rotations import quat_rotate_inverse, quat_yaw
from bm_envs.tasks.track.config import CONTROL_DT


def moving_frames(motions: Sequence[str], travel: float) -> tuple[np.ndarray, np.ndarray]:
    """States of all frames of motions in which the robot is on its way: `qpos [F, 36]`, `qvel`.

    On its way: within the second around the frame the root covers `travel` m, or turns by so many
    rad. Roots stand over the world's origin.

    Raises:
        MotionError: a motion is unknown, or is not 50 frames per second; no frame moves.
    """
    clips = [clip for name in motions for clip in shared_motions(name)]
    qpos, qvel = _moving_frames(tuple(clips), travel)
    if not len(qpos):
        raise MotionError(
            f"No frame of {', '.join(motions)} moves by {travel:g} m or rad in the second around "
            "it; start_travel says how much it must be."
        )
    return qpos, qvel


@functools.lru_cache(maxsize=8)  # a clip is equal to itself alone
def _moving_frames(clips: tuple[Clip, ...], travel: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames of these clips in which the root moves by `travel`; the arrays are read-only."""
    half = round(0.5 / CONTROL_DT)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for clip in clips:
        if abs(clip.fps * CONTROL_DT - 1.0) > 1e-6:
            raise MotionError(
                f"Motion '{clip.name}' has {clip.fps:g} frames/s, expected "
                f"{1 / CONTROL_DT:g}: a frame is a control step."
            )
        pos, quat, lin, ang = (
            array[:, 0].astype(float)
            for array in (
                clip.body_pos_w, clip.body_quat_w, clip.body_lin_vel_w, clip.body_ang_vel_w
            )
        )  # fmt: skip
        yaw = np.unwrap(quat_yaw(quat))
        moves = np.zeros(len(pos), bool)
        if len(pos) > 2 * half:
            covered = np.linalg.norm(pos[2 * half :, :2] - pos[: -2 * half, :2], axis=1)
            turned = abs(yaw[2 * half :] - yaw[: -2 * half])
            moves[half:-half] = (covered >= travel) | (turned >= travel)
        root = pos * [0.0, 0.0, 1.0]
        qpos = np.concatenate([root, quat, clip.joint_pos], 1)
        qvel = np.concatenate([lin, quat_rotate_inverse(quat, ang), clip.joint_vel], 1)
        parts.append((qpos[moves], qvel[moves]))
    qpos, qvel = (np.concatenate(values) for values in zip(*parts, strict=True))
    for rows in (qpos, qvel):
        rows.setflags(write=False)
    return qpos, qvel
