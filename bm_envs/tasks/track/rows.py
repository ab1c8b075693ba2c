"""The reference motion as tables, a row a frame, and a row for every robot of what it needs.

For NumPy and torch alike: the tables are NumPy's, rows are whatever they were gathered into.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bm_envs.motion.clip import Clip
from bm_envs.robots import g1
from bm_envs.rotations import Array, quat_axes

ANCHOR = g1.TRACKED_BODIES.index(g1.ANCHOR_BODY)
END_EFFECTORS = tuple(g1.TRACKED_BODIES.index(name) for name in g1.END_EFFECTORS)
FEET = tuple(g1.TRACKED_BODIES.index(name) for name in g1.FOOT_BODIES)
K, J = len(g1.TRACKED_BODIES), g1.NUM_JOINTS
_TRACKED = np.array([g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES])


# What was made of a clip, as long as it lives: environments of the same clips share it.
_made: weakref.WeakKeyDictionary[Clip, dict[Any, np.ndarray]] = weakref.WeakKeyDictionary()


def _table(clips: Sequence[Clip], key: Any, rows: Callable[[Clip], np.ndarray]) -> np.ndarray:
    """`rows` of all clips one after another, float32, read-only. `[F, SIZE]`."""
    parts = []
    for clip in clips:
        made = _made.setdefault(clip, {})
        if key not in made:
            made[key] = rows(clip).astype(np.float32)
            made[key].setflags(write=False)
        parts.append(made[key])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _anchor_axes(clip: Clip) -> np.ndarray:
    """Axes of the clip's anchor as rows, in every frame. `[T, 3, 3]`."""
    return quat_axes(clip.body_quat_w[:, _TRACKED[ANCHOR]].astype(np.float64))


class Reference:
    """Named views of rows `[N, SIZE]`, one per robot: the frame it is compared with."""

    SIZE = 2 * J + 13 * K + 9

    def __init__(self, rows: Array) -> None:
        self.rows, n = rows, len(rows)
        self.joint_pos, self.joint_vel = rows[:, :J], rows[:, J : 2 * J]
        bodies = rows[:, 2 * J :]
        self.body_pos = bodies[:, : 3 * K].reshape(n, K, 3)
        self.body_quat = bodies[:, 3 * K : 7 * K].reshape(n, K, 4)
        self.body_lin_vel = bodies[:, 7 * K : 10 * K].reshape(n, K, 3)
        self.body_ang_vel = bodies[:, 10 * K : 13 * K].reshape(n, K, 3)
        self.anchor_axes = bodies[:, 13 * K :].reshape(n, 3, 3)

    def __reduce__(self) -> tuple[type, tuple[Array]]:
        return type(self), (self.rows,)  # views of a copy must be of its rows

    @staticmethod
    def table(clips: Sequence[Clip]) -> np.ndarray:
        """All frames of all clips, one row a frame in the layout of the views. `[F, SIZE]`."""
        return _table(clips, "reference", Reference._rows)

    @staticmethod
    def _rows(clip: Clip) -> np.ndarray:
        return np.concatenate([
            clip.joint_pos, clip.joint_vel,
            *(
                array[:, _TRACKED].reshape(clip.num_frames, -1)
                for array in (
                    clip.body_pos_w, clip.body_quat_w, clip.body_lin_vel_w, clip.body_ang_vel_w
                )
            ),
            _anchor_axes(clip).reshape(-1, 9),
        ], axis=1)  # fmt: skip


class Shown:
    """Named views of rows `[N, SIZE]`, one per robot: what observations show of the reference."""

    SIZE = 2 * J + 3 + 9

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        self.command = rows[:, : 2 * J]
        self.anchor_pos = rows[:, 2 * J : 2 * J + 3]
        self.anchor_axes = rows[:, 2 * J + 3 :].reshape(len(rows), 3, 3)

    def __reduce__(self) -> tuple[type, tuple[Array]]:
        return type(self), (self.rows,)

    @staticmethod
    def table(clips: Sequence[Clip], lead: int) -> np.ndarray:
        """For every frame t of every clip what is shown at t: frame t + lead. `[F, SIZE]`."""
        anchor = _TRACKED[ANCHOR]

        def rows(clip: Clip) -> np.ndarray:
            frames = np.minimum(np.arange(clip.num_frames) + lead, clip.num_frames - 1)
            return np.concatenate([
                clip.joint_pos[frames], clip.joint_vel[frames], clip.body_pos_w[frames, anchor],
                _anchor_axes(clip)[frames].reshape(-1, 9),
            ], axis=1)  # fmt: skip

        return _table(clips, ("shown", lead), rows)
