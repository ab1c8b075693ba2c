"""Motions at other times than their frames: linear or by a spline, rotations along short arcs.

Linear interpolation is what the published converter does. Of 30 Hz it makes velocities a staircase;
a Catmull-Rom spline through the same frames has continuous ones, and may overshoot their range a
little. A rotation's quaternion components go through the same spline and are normalised.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError

Interpolation = Literal["linear", "cubic"]


def frame_count(frames: int, input_fps: float, output_fps: float) -> int:
    """How many frames of an output at `output_fps` lie strictly before the last input frame.

    Source: `whole_body_tracking : scripts/csv_to_npz.py`, whose float32 `arange` adds or drops a
    sample at some lengths; here times are exact fractions: 5 * 30 / 50 is frame 3 and not 2.9999.
    """
    return math.ceil((frames - 1) * Fraction(output_fps) / Fraction(input_fps))


def frame_positions(frames: int, input_fps: float, output_fps: float) -> np.ndarray:
    """The fractional input frame of each of the output's `frame_count` frames."""
    step = Fraction(input_fps) / Fraction(output_fps)
    return np.array([float(k * step) for k in range(frame_count(frames, input_fps, output_fps))])


def interpolate(values: np.ndarray, position: np.ndarray, how: Interpolation) -> np.ndarray:
    """`values [T, ...]` at fractional frames `position [N]` -> `[N, ...]`."""
    before, after, blend = _neighbours(len(values), position)
    flat = values.reshape(len(values), -1)
    if how == "linear":
        result = flat[before] + blend[:, None] * (flat[after] - flat[before])
    elif how == "cubic":
        result = _catmull_rom(flat, before, after, blend)
    else:
        raise MotionError(f"interpolation is {how!r}, expected 'linear' or 'cubic'.")
    return result.reshape(len(position), *values.shape[1:])


def interpolate_quats(quat: np.ndarray, position: np.ndarray, how: Interpolation) -> np.ndarray:
    """Unit quaternions `[T, ..., 4]` at fractional frames `position [N]` -> `[N, ..., 4]`."""
    before, after, blend = _neighbours(len(quat), position)
    if how == "linear":
        blend = blend.reshape(-1, *[1] * (quat.ndim - 2))
        return rot.quat_slerp(quat[before], quat[after], blend)
    # q and -q are one rotation: neighbours must have the sign that makes them close.
    flips = np.where((quat[1:] * quat[:-1]).sum(axis=-1) < 0, -1.0, 1.0)
    signs = np.concatenate([np.ones((1, *flips.shape[1:])), np.cumprod(flips, axis=0)])
    return rot.quat_normalize(interpolate(quat * signs[..., None], position, how))


def _neighbours(frames: int, position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    before = np.floor(position).astype(int)
    return before, np.minimum(before + 1, frames - 1), position - before


def _catmull_rom(
    x: np.ndarray, before: np.ndarray, after: np.ndarray, blend: np.ndarray
) -> np.ndarray:
    """Cubic Hermite spline through the rows of `x` with central differences as tangents."""
    slope = np.gradient(x, axis=0)
    t = blend[:, None]
    return (
        (2 * t**3 - 3 * t**2 + 1) * x[before]
        + (t**3 - 2 * t**2 + t) * slope[before]
        + (3 * t**2 - 2 * t**3) * x[after]
        + (t**3 - t**2) * slope[after]
    )
