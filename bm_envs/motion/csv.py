"""Motions of the G1 as CSV (the Unitree-retargeted LAFAN1 layout), resampled to the control rate.

A row is a frame: root position x y z (m), root quaternion **x y z w**, 29 joint angles (rad) in the
project's order; no header. The rate is not in the file.

Resampling follows `whole_body_tracking : scripts/csv_to_npz.py`: output times `k / output_fps`
strictly before the last input frame (so that frame is normally not sampled, also at equal rates),
linear interpolation of positions and joints, shortest-arc slerp of the root. One thing differs: the
published script takes its times from a float32 `arange`, which for some lengths adds or drops a
sample at the end; here they are exact fractions.

`interpolation="cubic"` is ours. Linear interpolation of 30 Hz makes velocities a staircase; a
Catmull-Rom spline through the same frames has continuous ones, and may overshoot their range a
little. The root's quaternion components go through the same spline and are normalised.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.clip import MAX_FRAMES, Clip, clip_from_states
from bm_envs.robots import g1

COLUMNS = 3 + 4 + g1.NUM_JOINTS
MAX_LINE = 4096
"""Characters in a row (the published files have under 400); bounds the file's size too."""

Interpolation = Literal["linear", "cubic"]


def read_csv(
    path: str | Path,
    *,
    input_fps: float,
    output_fps: float = 50.0,
    frame_range: tuple[int, int] | None = None,
    interpolation: Interpolation = "linear",
    name: str | None = None,
    source: str | None = None,
    licence: str = "not stated",
) -> Clip:
    """Read a CSV motion and resample it.

    Args:
        path: the file.
        input_fps: its frames per second.
        output_fps: the clip's frames per second.
        frame_range: first and last row taken, counted from 1, both included; None: all.
        interpolation: "linear" as the published tool, or "cubic".
        name: the clip's name; None: the file's stem.
        source: where the motion is from; None: the file's name.
        licence: its licence.

    Raises:
        MotionError: one sentence with the file, the line, what is wrong and what was expected.
    """
    path, where = Path(path), str(path)
    for key, fps in (("input_fps", input_fps), ("output_fps", output_fps)):
        if not (math.isfinite(fps) and fps > 0):
            raise MotionError(f"{where}: {key} is {fps}, expected a positive number.")
    rows = _read_rows(path)
    if frame_range is not None:
        first, last = frame_range
        if not 1 <= first < last <= len(rows):
            raise MotionError(
                f"{where}: frame range {first} to {last} does not fit, expected first < last within"
                f" 1 and {len(rows)}."
            )
        rows = rows[first - 1 : last]
    # Times are exact fractions of an input frame: 5 * 30 / 50 is frame 3 and not 2.9999.
    step = Fraction(input_fps) / Fraction(output_fps)
    frames = math.ceil((len(rows) - 1) / step)
    if not 3 <= frames <= MAX_FRAMES:
        raise MotionError(
            f"{where}: {len(rows)} rows at {input_fps:g} fps make {frames} frames at {output_fps:g}"
            f" fps, expected 3 to {MAX_FRAMES}."
        )
    position = np.array([float(k * step) for k in range(frames)])
    root_pos, root_quat, joint_pos = _resample(rows, position, interpolation)
    return clip_from_states(
        name or path.stem,
        output_fps,
        root_pos,
        root_quat,
        joint_pos,
        source=source or path.name,
        licence=licence,
    )


def count_frames(path: Path) -> int | None:
    """Rows of a CSV whose first is a motion's, for lists; None where it is none."""
    try:
        with path.open("rb") as stream:
            first = stream.readline(MAX_LINE)
            _parse(f"{path}: line 1", first.decode("ascii"))
            count, ended = 1, True
            while block := stream.read(1 << 20):
                count, ended = count + block.count(b"\n"), block.endswith(b"\n")
    except (OSError, UnicodeDecodeError, MotionError):
        return None
    return count + (not ended)


def _resample(
    rows: np.ndarray, position: np.ndarray, interpolation: Interpolation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root position, root quaternion (w x y z), joints at fractional row numbers `position [T]`."""
    quat = rot.quat_normalize(rows[:, [6, 3, 4, 5]])
    linear = np.delete(rows, range(3, 7), axis=1)
    before = np.floor(position).astype(int)
    after = np.minimum(before + 1, len(rows) - 1)
    blend = position - before
    if interpolation == "linear":
        values = linear[before] + blend[:, None] * (linear[after] - linear[before])
        root_quat = rot.quat_slerp(quat[before], quat[after], blend)
    elif interpolation == "cubic":
        # q and -q are one rotation: neighbours must have the sign that makes them close.
        flips = np.where((quat[1:] * quat[:-1]).sum(axis=1) < 0, -1.0, 1.0)
        quat[1:] *= np.cumprod(flips)[:, None]
        values = _catmull_rom(linear, before, after, blend)
        root_quat = rot.quat_normalize(_catmull_rom(quat, before, after, blend))
    else:
        raise MotionError(f"interpolation is {interpolation!r}, expected 'linear' or 'cubic'.")
    return values[:, :3], root_quat, values[:, 3:]


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


def _read_rows(path: Path) -> np.ndarray:
    """`[N, 36]` float64 with unit-length quaternions in all rows; errors name the line."""
    if not os.path.isfile(path):  # unlike Path.is_file, False and no error for a hopeless name
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .csv file.")
    rows: list[list[float]] = []
    blank = 0
    try:
        # `newline` and `readline(limit)`: a line of a gigabyte is refused and not read.
        with path.open(encoding="ascii", newline="\n") as stream:
            for number in range(1, MAX_FRAMES + 2):
                line = stream.readline(MAX_LINE)
                if not line:
                    break
                if len(line) >= MAX_LINE:
                    raise MotionError(f"{path}: line {number} has {MAX_LINE} or more characters.")
                if not line.strip():
                    blank = blank or number
                    continue
                if blank:
                    raise MotionError(f"{path}: line {blank} is empty, expected {COLUMNS} numbers.")
                rows.append(_parse(f"{path}: line {number}", line))
            else:
                raise MotionError(f"{path}: has more than {MAX_FRAMES} lines, which is the limit.")
    except UnicodeDecodeError as error:
        raise MotionError(
            f"{path}: holds bytes that are not ASCII text, expected comma-separated numbers."
        ) from error
    except OSError as error:
        raise MotionError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(rows) < 3:
        raise MotionError(f"{path}: has {len(rows)} rows, expected 3 or more.")
    return np.array(rows)


def _parse(where: str, line: str) -> list[float]:
    fields = line.split(",")
    if len(fields) != COLUMNS:
        raise MotionError(
            f"{where} has {len(fields)} columns, expected {COLUMNS}: root position 3, root"
            f" quaternion 4 (x y z w), joints {g1.NUM_JOINTS}."
        )
    values = []
    for column, field in enumerate(fields, start=1):
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not abs(value) <= 1e6:  # NaN fails every comparison
            raise MotionError(
                f"{where}, column {column} is {field.strip()[:30]!r}, expected a finite number"
                " (and no header line)."
            )
        values.append(value)
    length = math.hypot(*values[3:7])
    # The published files are within 1e-6. Another length means other columns, as a frame number in
    # front of the row gives.
    if not 0.9 <= length <= 1.1:
        raise MotionError(
            f"{where} has a root quaternion (columns 4 to 7) of length {length:.3g}, expected 1."
        )
    return values
