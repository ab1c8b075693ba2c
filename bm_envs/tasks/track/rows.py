"""The reference motion as tables, a row a frame, and a row for every robot of what it needs.

For NumPy and torch alike: the tables are NumPy's, rows are whatever they were gathered into.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from bm_envs.motion.clip import Clip
from bm_envs.motion.memory import MemoryUnavailable, Region, rows_in_pages
from bm_envs.motion.store import Store, code_sha256, store_in_use
from bm_envs.robots import g1
from bm_envs.rotations import Array, namespace, quat_axes

T = TypeVar("T")
Key = tuple[str, str, str]  # of a file in the cache: kind, name, what it was made by

ANCHOR = g1.TRACKED_BODIES.index(g1.ANCHOR_BODY)
END_EFFECTORS = tuple(g1.TRACKED_BODIES.index(name) for name in g1.END_EFFECTORS)
FEET = tuple(g1.TRACKED_BODIES.index(name) for name in g1.FOOT_BODIES)
K, J = len(g1.TRACKED_BODIES), g1.NUM_JOINTS
"""Of the G1; every robot tracks as many links, and has anchor, hands and feet in the same places.
How many joints a robot has is seen by the width of its rows."""


def row_size(num_joints: int) -> int:
    """Numbers of a frame of a robot's reference."""
    return 2 * num_joints + 13 * K + 9


def shown_size(num_joints: int) -> int:
    """Numbers that observations show of it."""
    return 2 * num_joints + 3 + 9


class Reference:
    """Named views of rows `[N, SIZE]`, one per robot: the frame it is compared with."""

    SIZE = row_size(J)

    def __init__(self, rows: Array) -> None:
        self.rows, n = rows, len(rows)
        J = (rows.shape[1] - row_size(0)) // 2  # noqa: N806
        self.joint_pos, self.joint_vel = rows[:, :J], rows[:, J : 2 * J]
        bodies = rows[:, 2 * J :]
        self.body_pos = bodies[:, : 3 * K].reshape(n, K, 3)
        self.body_quat = bodies[:, 3 * K : 7 * K].reshape(n, K, 4)
        self.body_lin_vel = bodies[:, 7 * K : 10 * K].reshape(n, K, 3)
        self.body_ang_vel = bodies[:, 10 * K : 13 * K].reshape(n, K, 3)
        self.anchor_axes = bodies[:, 13 * K :].reshape(n, 3, 3)

    def __reduce__(self) -> tuple[type, tuple[Array]]:
        return type(self), (self.rows,)  # views of a copy must be of its rows


class Shown:
    """Named views of rows `[N, SIZE]`, one per robot: what observations show of the reference."""

    SIZE = shown_size(J)

    def __init__(self, rows: Array) -> None:
        self.rows = rows
        J = (rows.shape[1] - shown_size(0)) // 2  # noqa: N806
        self.command = rows[:, : 2 * J]
        self.anchor_pos = rows[:, 2 * J : 2 * J + 3]
        self.anchor_axes = rows[:, 2 * J + 3 :].reshape(len(rows), 3, 3)

    def __reduce__(self) -> tuple[type, tuple[Array]]:
        return type(self), (self.rows,)

    @staticmethod
    def of(frames: Reference) -> Array:
        """The rows of these frames of the reference. `[N, SIZE]`."""
        joints = frames.rows[:, : frames.rows.shape[1] - row_size(0)]
        parts = [
            joints, frames.body_pos[:, ANCHOR], frames.anchor_axes.reshape(-1, 9)
        ]  # fmt: skip
        return namespace(frames.rows).concatenate(parts, 1)


# --- tables ---------------------------------------------------------------------------------------

# Rows of a clip, as long as it lives: environments of the same clip share them.
_made: weakref.WeakKeyDictionary[Clip, np.ndarray] = weakref.WeakKeyDictionary()
_KIND = "tables"  # of files in the cache, each with the rows of a clip
_MAKERS = ("tasks/track/rows.py", "robots", "rotations.py")


def reference_table(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """All frames of all clips, a row a frame as `Reference` shows it, float32, read-only.

    Rows of clips that are in the cache of motions are there, too, and are shown from there: they
    take memory when they are looked at, and then for all processes once. A file begins a page of
    memory, so that there are rows between clips that nobody reads.

    Returns:
        The table `[R, row_size(J)]`, and the row at which each clip begins, `[C]`.
    """
    if len(clips) == 1:
        return _rows_of(clips[0]), np.zeros(1, np.int64)
    if any(clip.is_stored for clip in clips):
        with contextlib.suppress(MemoryUnavailable):
            return _in_a_region(clips)
    first = np.cumsum([0] + [clip.num_frames for clip in clips[:-1]])
    table = np.concatenate([_rows_of(clip) for clip in clips])
    table.setflags(write=False)
    return table, first


def foot_contacts(clips: Sequence[Clip], first_row: np.ndarray) -> np.ndarray:
    """The clips' `foot_contact` in rows as those of `reference_table`. `[R, 2]` bool."""
    table = np.zeros((first_row[-1] + clips[-1].num_frames, 2), bool)
    for clip, row in zip(clips, first_row, strict=True):
        table[row : row + clip.num_frames] = clip.foot_contact
    return table


def without_gaps(
    table: np.ndarray, first_row: np.ndarray, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A table of clips that begin at `first_row [C]` and have `frames [C]`, for another memory.

    Returns:
        Rows of frames alone, and the row at which each clip then begins.
    """
    start = frames.cumsum() - frames
    if np.array_equal(first_row, start):
        return table, start
    places = zip(first_row, frames, strict=True)
    return np.concatenate([table[row : row + count] for row, count in places]), start


def _rows_of(clip: Clip) -> np.ndarray:
    """A clip's rows."""
    if clip not in _made:
        if (stored := _stored(clip, lambda store, key: store.load(*key))) is not None:
            _made[clip] = stored["rows"]
        else:
            _made[clip] = _make_rows(clip)
            _made[clip].setflags(write=False)
    return _made[clip]


def _stored(clip: Clip, get: Callable[[Store, Key], T | None]) -> T | None:
    """What `get` gets of the clip's file in the cache, which is written first where it has to be.

    None where nothing is in the cache.
    """
    store = store_in_use() if clip.is_stored else None
    if store is None:
        return None
    key = _KIND, clip.sha256(), code_sha256(*_MAKERS)
    if found := get(store, key):
        return found
    store.save(*key, {"rows": _make_rows(clip)})
    return get(store, key) or None


def _in_a_region(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """`reference_table` without a copy of what is in the cache."""
    size = row_size(clips[0].robot.num_joints)
    row_bytes = 4 * size
    frames, step = np.array([clip.num_frames for clip in clips]), rows_in_pages(row_bytes)
    first = np.cumsum(np.concatenate([[0], -(-frames[:-1] // step) * step]))
    region = Region(int(first[-1] + frames[-1]) * row_bytes)
    for clip, row in zip(clips, first.tolist(), strict=True):
        shape, offset = (clip.num_frames, size), row * row_bytes

        def place(store: Store, key: Key, shape: Any = shape, offset: int = offset) -> bool:
            return store.place(*key, shape, region, offset)

        if not _stored(clip, place):
            region.put_array(offset, _rows_of(clip))
    return region.bytes.view(np.float32).reshape(-1, size), first


def _make_rows(clip: Clip) -> np.ndarray:
    """A clip's rows in the layout of `Reference`. `[T, SIZE]`."""
    robot = clip.robot
    tracked = [robot.body_names.index(name) for name in robot.tracked_bodies]
    rows = np.empty((clip.num_frames, row_size(robot.num_joints)), np.float32)
    views = Reference(rows)
    views.joint_pos[:], views.joint_vel[:] = clip.joint_pos, clip.joint_vel
    for name in ("body_pos", "body_quat", "body_lin_vel", "body_ang_vel"):
        getattr(views, name)[:] = getattr(clip, f"{name}_w")[:, tracked]
    views.anchor_axes[:] = quat_axes(clip.body_quat_w[:, tracked[ANCHOR]].astype(np.float64))
    return rows
