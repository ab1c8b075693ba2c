"""Feet that stand: which foot of a person stands, and where the robot's foot then is.

A joint stands while it is near the floor and slow; a foot stands while its ankle (on its heel), its
toe, or both (on its sole) do. Over one such stance the robot's foot keeps its place: it lies flat
while both stand, and else tips over its toe edge or its heel by the person's pitch. So it neither
slides nor sinks in, though it has no toe joint. From one stance to the next the difference between
what the person's foot does and what the robot's has to is handed over smoothly, which bends the
path of a swing a little and leaves no jump.

A foot that is dragged over the floor does not stand, nor does one whose sole is not down, of who
lies or kneels: it follows the person's and only stays out of the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bm_envs import rotations as rot
from bm_envs.motion.smoothing import smooth, smoothstep
from bm_envs.robots import g1

STAND_HEIGHT = 0.03
"""m that a joint may be higher than when the foot stands, at the robot's size."""
STAND_SPEED = 0.25
"""m/s that a joint of a standing foot may move at. The joints of a planted foot are mostly under
0.1, those of a swinging foot over 0.7."""
DRAG_SPEED = 0.1
"""m/s, the limit in place of `STAND_SPEED` for a foot that drifts."""
MAX_DRIFT = 0.06
"""m that a toe may move in a stance; more is a foot that is dragged."""
MIN_FRAMES = 4
"""Shortest stance, and shortest gap in one, in frames at 50 Hz."""
SOLE_DOWN = 0.26
"""Least cosine between a foot's up and the world's: beyond 75 degrees it is no sole that is on the
floor but a side, a heel or an instep of who lies or kneels."""
MAX_YAW = 0.26
"""rad (15 degrees) of turning in a stance that count as noise; beyond, a foot turns on its toe."""

_CENTERS = np.array([g.start for g in g1.FOOT_SPHERES if g.body == g1.FOOT_BODIES[0]])
_RADIUS = g1.FOOT_SPHERES[0].radius
# The ends of the sole's middle line, in the ankle_roll frame.
_HEEL, _TOE = (np.array([x, 0.0, _CENTERS[0, 2]]) for x in (_CENTERS[:, 0].min(),
                                                            _CENTERS[:, 0].max()))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Feet:
    """Poses of the robot's ankle_roll links, left and right."""

    pos: np.ndarray
    """`[T, 2, 3]`, positions of the link origins, world, m."""
    quat: np.ndarray
    """`[T, 2, 4]`, orientations, world, w x y z."""
    contact: np.ndarray
    """`[T, 2]` bool, whether the foot stands."""


def foot_quats(
    shin: np.ndarray,
    foot: np.ndarray,
    ankle_clear: np.ndarray,
    toe_clear: np.ndarray,
    drop: float | None = None,
) -> np.ndarray:
    """`[T, 2, 4]`: orientation of the feet, flat where the person's stand.

    The sole is not in a skeleton: it is taken to lie level, in the middle of the frames in which
    ankle and toe are both down.

    Args:
        shin: `[T, 2, 3]`, from ankle to knee.
        foot: `[T, 2, 3]`, from ankle to toe joint.
        ankle_clear: `[T, 2]`, m, an ankle over its height in standing.
        toe_clear: `[T, 2]`, likewise of the toes.
        drop: m, a toe under its ankle in standing, for feet that never stand; None: seen.
    """
    x = foot / np.linalg.norm(foot, axis=-1, keepdims=True)
    y = rot.cross(shin, x)
    # The axis is undefined for a foot in line with its shin; no ankle goes that far.
    y = y / np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-12)
    quat = rot.quat_from_matrix(np.stack([x, y, rot.cross(x, y)], axis=-1))
    if drop is None:
        high = np.maximum(ankle_clear, toe_clear)
        down = high < max(STAND_HEIGHT, float(np.percentile(high, 5)))
        slope = np.median(np.arcsin(np.clip(-x[..., 2][down], -1.0, 1.0)))
    else:
        length = float(np.median(np.linalg.norm(foot, axis=-1)))
        slope = np.arcsin(np.clip(drop / length, 0.0, 0.7))
    return rot.quat_mul(quat, rot.quat_from_axis_angle(np.array([0.0, -slope, 0.0])))


def plant(
    fps: float,
    ankle: np.ndarray,
    quat: np.ndarray,
    toe: np.ndarray,
    ankle_clear: np.ndarray,
    toe_clear: np.ndarray,
) -> Feet:
    """Feet that stand where the person's do.

    Args:
        fps: frames per second.
        ankle: `[T, 2, 3]`, where the ankles would be.
        quat: `[T, 2, 4]`, how the feet would lie.
        toe: `[T, 2, 3]`, the person's toe joints at the robot's size.
        ankle_clear: `[T, 2]`, as in `foot_quats`.
        toe_clear: likewise.
    """
    pos, turned = ankle.copy(), quat.copy()
    contact = np.zeros(ankle_clear.shape, bool)
    sole_down = rot.quat_rotate(quat, np.array([0.0, 0.0, 1.0]))[..., 2] > SOLE_DOWN
    for side in range(2):
        heel_down, toe_down = (
            (clear[:, side] < STAND_HEIGHT)
            & (_speed(joint[:, side], fps) < STAND_SPEED)
            & sole_down[:, side]
            for clear, joint in ((ankle_clear, ankle), (toe_clear, toe))
        )
        shift, turn = np.full_like(ankle[:, side], np.nan), np.full_like(ankle[:, side], np.nan)
        for start, end in _stances(heel_down | toe_down, toe[:, side], fps):
            keep = slice(start, end)
            place, way = _stand(
                ankle[keep, side], quat[keep, side], heel_down[keep], toe_down[keep]
            )
            shift[keep] = place - ankle[keep, side]
            turn[keep] = rot.quat_to_rotvec(rot.quat_mul(way, rot.quat_conj(quat[keep, side])))
            contact[keep, side] = True
        pos[:, side] += _bridged(shift)
        turned[:, side] = rot.quat_mul(rot.quat_from_axis_angle(_bridged(turn)), quat[:, side])
    pos[..., 2] += np.maximum(0.0, -_lowest(pos, turned))
    return Feet(pos, turned, contact)


def _speed(pos: np.ndarray, fps: float) -> np.ndarray:
    """Speed of `pos [T, 3]` at each frame, m/s. `[T]`."""
    return np.linalg.norm(np.gradient(pos, 1.0 / fps, axis=0), axis=-1)


def runs(true: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of true values in `[T]`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _stances(stands: np.ndarray, toe: np.ndarray, fps: float) -> list[tuple[int, int]]:
    """Stretches of frames in which a foot keeps its place."""
    stands = stands.copy()
    for start, end in runs(~stands):
        if end - start < MIN_FRAMES and start > 0 and end < len(stands):
            stands[start:end] = True

    def drifts(start: int, end: int) -> bool:
        way = toe[start:end, :2]
        return float(np.linalg.norm(np.ptp(way, axis=0))) > MAX_DRIFT

    stances = []
    for start, end in runs(stands):
        if not drifts(start, end):
            stances.append((start, end))
            continue
        slow = _speed(toe[start:end], fps) < DRAG_SPEED if end - start > 2 else np.zeros(0, bool)
        stances += [
            (start + a, start + b) for a, b in runs(slow) if not drifts(start + a, start + b)
        ]
    return [(start, end) for start, end in stances if end - start >= MIN_FRAMES]


def _stand(
    ankle: np.ndarray, quat: np.ndarray, heel_down: np.ndarray, toe_down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Foot poses `[N, 3]`, `[N, 4]` of one stance."""
    ahead = rot.quat_rotate(quat, np.array([1.0, 0.0, 0.0]))
    pitch = np.arcsin(np.clip(-ahead[:, 2], -1.0, 1.0))
    pitch = np.select(
        [heel_down & toe_down, toe_down, heel_down],
        [0.0, np.maximum(pitch, 0.0), np.minimum(pitch, 0.0)],
        0.0,
    )
    pitch = smooth(pitch, 2)

    yaw = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
    flat = heel_down & toe_down
    best = flat if flat.any() else np.ones_like(flat)
    if np.ptp(yaw[best]) > MAX_YAW:
        yaw = smooth(yaw, 2)
    else:
        yaw = np.full_like(yaw, yaw[best].mean())

    # The mean place of the toe edge, over the frames in which the foot lies flat if there are any.
    toe = (ankle + rot.quat_rotate(quat, _TOE))[best, :2].mean(axis=0)
    zero = np.zeros_like(yaw)
    level = rot.quat_from_euler(zero, zero, yaw)
    way = rot.quat_from_euler(zero, pitch, yaw)
    toe_center = np.broadcast_to([*toe, _RADIUS], ankle.shape)
    heel_center = toe_center + rot.quat_rotate(level, _HEEL - _TOE)
    on_toe = toe_center - rot.quat_rotate(way, _TOE)
    on_heel = heel_center - rot.quat_rotate(way, _HEEL)
    return np.where(pitch[:, None] > 0, on_toe, on_heel), way


def _bridged(values: np.ndarray) -> np.ndarray:
    """`[T, 3]` with its NaN frames filled: smooth from one end to the other, level at the ends."""
    known = ~np.isnan(values[:, 0])
    if not known.any():
        return np.zeros_like(values)
    filled = values.copy()
    for start, end in runs(~known):
        if start == 0:
            filled[:end] = values[end]
        elif end == len(values):
            filled[start:] = values[start - 1]
        else:
            s = np.arange(1, end - start + 1)[:, None] / (end - start + 1)
            s = smoothstep(s)
            filled[start:end] = values[start - 1] + s * (values[end] - values[start - 1])
    return filled


def _lowest(pos: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """`[T, 2]`: height of the lowest point of each sole."""
    centers = pos[..., None, :] + rot.quat_rotate(quat[..., None, :], _CENTERS)
    return centers[..., 2].min(axis=-1) - _RADIUS
