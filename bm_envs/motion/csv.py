"""Motions of the G1 as CSV (the Unitree-retargeted LAFAN1 layout), resampled to the control rate.

A row is a frame: root position x y z (m), root quaternion **x y z w**, 29 joint angles (rad) in the
project's order; no header. The rate is not in the file. A robot without some of the joints has
fewer columns (`joints`); a byte order mark in front is skipped.

`clip_from_rows` resamples to the control rate by `bm_envs/motion/resample.py`, as
`whole_body_tracking : scripts/csv_to_npz.py` does: output times strictly before the last frame
(so that frame is normally not sampled, also at equal rates), linear interpolation of positions and
joints, shortest-arc slerp of the root; or, ours, a cubic spline.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.clip import MAX_FRAMES, Clip, clip_from_states
from bm_envs.motion.resample import (
    Interpolation,
    frame_count,
    frame_positions,
    interpolate,
    interpolate_quats,
)
from bm_envs.robots import g1

COLUMNS = 3 + 4 + g1.NUM_JOINTS
MAX_LINE = 4096
"""Characters in a row (the published files have under 400); bounds the file's size too."""


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
    check_rates(where, input_fps, output_fps)
    rows = read_rows(path)
    rows = rows_of_range(where, rows, frame_range)
    return clip_from_rows(
        where, rows, input_fps=input_fps, output_fps=output_fps, interpolation=interpolation,
        name=name or path.stem, source=source or path.name, licence=licence,
    )  # fmt: skip


def rows_of_range(
    where: str, rows: np.ndarray, frame_range: tuple[int, int] | None
) -> np.ndarray:  # fmt: skip
    """The rows from a first to a last one, counted from 1, both included; None: all rows."""
    if frame_range is None:
        return rows
    first, last = frame_range
    if not 1 <= first < last <= len(rows):
        raise MotionError(
            f"{where}: frame range {first} to {last} does not fit, expected first < last within"
            f" 1 and {len(rows)}."
        )
    return rows[first - 1 : last]


def check_rates(where: str, input_fps: float, output_fps: float) -> None:
    """Refuse rates that are not positive numbers."""
    for key, fps in (("input_fps", input_fps), ("output_fps", output_fps)):
        if not (math.isfinite(fps) and fps > 0):
            raise MotionError(f"{where}: {key} is {fps}, expected a positive number.")


def clip_from_rows(
    where: str,
    rows: np.ndarray,
    *,
    input_fps: float,
    output_fps: float,
    interpolation: Interpolation,
    name: str,
    source: str,
    licence: str,
) -> Clip:
    """A clip from rows as a CSV has them, resampled; arguments as in `read_csv`.

    Args:
        where: what errors name.
        rows: `[N, 36]`: root position, root quaternion x y z w of any length but zero, joints.
        input_fps: the rows' frames per second.
        output_fps: the clip's.
        interpolation: between the rows.
        name: the clip's name.
        source: where it is from.
        licence: its licence.
    """
    check_rates(where, input_fps, output_fps)
    frames = frame_count(len(rows), input_fps, output_fps)
    if not 3 <= frames <= MAX_FRAMES:
        raise MotionError(
            f"{where}: {len(rows)} rows at {input_fps:g} fps make {frames} frames at {output_fps:g}"
            f" fps, expected 3 to {MAX_FRAMES}."
        )
    position = frame_positions(len(rows), input_fps, output_fps)
    values = interpolate(np.delete(rows, range(3, 7), axis=1), position, interpolation)
    quat = rot.quat_normalize(rows[:, [6, 3, 4, 5]])
    root_quat = interpolate_quats(quat, position, interpolation)
    return clip_from_states(
        name, output_fps, values[:, :3], root_quat, values[:, 3:], source=source, licence=licence
    )


def count_frames(path: Path) -> int | None:
    """Number of rows of a CSV, for lists; None if its first row is not of a motion."""
    try:
        with path.open("rb") as stream:
            first = stream.readline(MAX_LINE)
            _parse(f"{path}: line 1", first.decode("utf-8-sig"), g1.NUM_JOINTS)
            count, ended = 1, True
            while block := stream.read(1 << 20):
                count, ended = count + block.count(b"\n"), block.endswith(b"\n")
    except (OSError, UnicodeDecodeError, MotionError):
        return None
    return count + (not ended)


def read_rows(path: Path, joints: int = g1.NUM_JOINTS) -> np.ndarray:
    """`[N, 7 + joints]` float64 with quaternions of about unit length; errors name the line."""
    if not os.path.isfile(path):  # unlike Path.is_file, False and no error for a hopeless name
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .csv file.")
    rows: list[list[float]] = []
    blank = 0
    try:
        # With `newline` and `readline(limit)` a line of a gigabyte is refused and not read.
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
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
                    raise MotionError(
                        f"{path}: line {blank} is empty, expected {7 + joints} numbers."
                    )
                rows.append(_parse(f"{path}: line {number}", line, joints))
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


def _parse(where: str, line: str, joints: int) -> list[float]:
    if not line.isascii():
        raise MotionError(
            f"{where} holds characters that are not ASCII, expected comma-separated numbers."
        )
    fields, columns = line.split(","), 7 + joints
    values = [_number(field) for field in fields]
    if len(fields) != columns:
        raise MotionError(
            f"{where} has {len(fields)} columns, expected {columns}: root position 3, root"
            f" quaternion 4 (x y z w), joints {joints}{_advice(line, len(fields), columns)}."
        )
    is_header = sum(value is None for value in values) > columns / 2
    no_header = "and no header line"
    for column, (field, value) in enumerate(zip(fields, values, strict=True), start=1):
        if value is None or not abs(value) <= 1e6:  # NaN fails every comparison
            raise MotionError(
                f"{where}, column {column} is {field.strip()[:30]!r}, expected a finite number"
                f" ({'this looks like a header line: delete it' if is_header else no_header})."
            )
    numbers = [value for value in values if value is not None]
    length = math.hypot(*numbers[3:7])
    # The published files are within 1e-6. Another length means that the columns are others, for
    # example after a frame number at the row's start.
    if not 0.9 <= length <= 1.1:
        raise MotionError(
            f"{where} has a root quaternion (columns 4 to 7) of length {length:.3g}, expected 1."
        )
    return numbers


def _number(field: str) -> float | None:
    """The field as a number; None if it is none, such as `1_000`, which Python alone would read."""
    try:
        return None if "_" in field else float(field)
    except ValueError:
        return None


def _advice(line: str, count: int, columns: int) -> str:
    """The end of a sentence: what may have happened to a row of another length."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), (" ", "spaces")):
        parts = len(line.split(None if separator == " " else separator))
        if count == 1 and parts >= columns:
            return f"; {name} are in the place of commas: replace them"
    if count == columns + 1:
        return "; if the first column counts frames or seconds, delete it"
    if count == 30 and columns == COLUMNS:
        return (
            "; 30 columns are a robot of 23 joints: say which ones by --joints of"
            " bm-envs motion convert"
        )
    return ""
