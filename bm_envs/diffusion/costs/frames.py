"""What stands still in the world, in the now frame, which moves with the robot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bm_envs.diffusion.fields import numbers
from bm_envs.errors import ConfigError
from bm_envs.rotations import quat_yaw, wrapped
from bm_envs.tasks.guided.states import Frame


def frame_of(root_pos: np.ndarray, root_quat: np.ndarray) -> Frame:
    """The now frame of N robots whose roots are at `root_pos [N, 3]`, m, `root_quat [N, 4]`."""
    return Frame(root_pos * np.array([1.0, 1.0, 0.0]), quat_yaw(root_quat))


def points_to_now(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Points of the world in the now frame.

    Args:
        points: `[N, ..., 2 or 3]`, world, m. Heights stay as they are.
        frame: the now frame of N robots in the world, as `Controller.frame`.
    """
    points = _of_frame("points", points, frame)
    return directions_to_now(points - _origins(points, frame), frame)


def directions_to_now(directions: np.ndarray, frame: Frame) -> np.ndarray:
    """Directions or velocities of the world in the now frame's axes. Shapes as `points_to_now`."""
    directions = _of_frame("directions", directions, frame)
    return _in_axes(directions, frame.of)


def headings_to_now(headings: np.ndarray, frame: Frame) -> np.ndarray:
    """Headings `[N]` in the world as headings from the now frame's x axis, rad in (-pi, pi]."""
    headings = numbers("headings", headings, (len(frame.yaw),))
    return wrapped(headings - frame.yaw)


def points_to_world(points: np.ndarray, frame: Frame) -> np.ndarray:
    """The inverse of `points_to_now`."""
    points = _of_frame("points", points, frame)
    return _in_axes(points, frame.to_world) + _origins(points, frame)


def _of_frame(what: str, vectors: np.ndarray, frame: Frame) -> np.ndarray:
    vectors = np.asarray(vectors)
    count = len(frame.yaw)
    if vectors.ndim < 2 or vectors.shape[-1] not in (2, 3) or len(vectors) != count:
        raise ConfigError(
            f"{what} have shape {vectors.shape}, expected [{count}, ..., 2 or 3], as the frame is "
            f"of {count} robots."
        )
    return vectors


def _origins(points: np.ndarray, frame: Frame) -> np.ndarray:
    """The frame's origins, ready to be added to `points`."""
    size = points.shape[-1]
    return np.asarray(frame.origin)[:, :size].reshape(-1, *[1] * (points.ndim - 2), size)


def _in_axes(vectors: np.ndarray, turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`turn`, a frame's function of `[N, n, 3]`, of `vectors [N, ..., 2 or 3]`."""
    rows = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    turned = turn(np.pad(rows, ((0, 0), (0, 0), (0, 3 - rows.shape[-1]))))
    return turned[..., : rows.shape[-1]].reshape(vectors.shape)
