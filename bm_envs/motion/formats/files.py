"""Motions of the G1 in the files of other projects, distinguished by what is in them.

`READERS` lists them; `docs/motions.md` shows the table. All come to the same root poses, joints and
rate (`layout.States`), from which one function makes a checked clip. A file with several clips
gives one of them by `FILE.pkl#NAME`. A rate that is missing or is no number is asked for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, unknown_name
from bm_envs.motion.checks import check, contact, fits_better
from bm_envs.motion.clip import MAX_FRAMES, Clip, load_npz
from bm_envs.motion.csv import check_rates, clip_from_rows, rows_of_range
from bm_envs.motion.formats.csv_rows import read_csv_rows
from bm_envs.motion.formats.layout import Layout, States
from bm_envs.motion.formats.npz_arrays import kind_of_npz, read_npz
from bm_envs.motion.formats.pickled import motions_in, read_motion
from bm_envs.motion.resample import Interpolation, frame_count
from bm_envs.robots import g1

SUFFIXES = (".npz", ".csv", ".pkl")
FPS = 50.0
"""Frames per second of clips that are resampled: the environments' rate."""
SMALLEST_FILE, BYTES_PER_FRAME = 25_000, 24
"""The bound of a motion's frames: SMALLEST_FILE, or one for each BYTES_PER_FRAME of its file if
that is more. A frame is 36 numbers, and a kilobyte must not become an hour of motion."""
LEAST_FRAMES = 100  # a clip of fewer frames takes as long to read as one of this many
_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}


class Reader(NamedTuple):
    """One row of the documentation's table of formats."""

    suffix: str
    origin: str
    content: str
    joints: str
    rate: str


READERS = (
    Reader(".npz", "this project", "`fps`, `joint_pos`, `joint_vel`, `body_pos_w`, `body_quat_w`"
           " (w x y z), `body_lin_vel_w`, `body_ang_vel_w`, and what the others leave out:"
           " `joint_names`, `body_names`, `foot_contact`, `velocity_point`, `name`, `source`,"
           " `licence`", "29 by name", "in the file"),
    Reader(".npz", "whole_body_tracking, mjlab, unitree_rl_mjlab",
           "the first seven of these, without names", "29, breadth or depth first: the one in which"
           " the links are where forward kinematics puts them", "in the file"),
    Reader(".npz", "holosoma", "`fps`, `joint_pos` of 36 columns (root x y z, w x y z, joints),"
           " `joint_vel` of 35, `joint_names`, `body_names`; links and velocities are checked and"
           " computed anew", "29 by name", "in the file"),
    Reader(".npz", "ProtoMotions (its PyRoki retargeter)",
           "`base_frame_pos`, `base_frame_wxyz`, `joint_angles`", "29",
           "in the file, else `--input-fps`"),
    Reader(".csv", "Unitree's LAFAN1, GMR (its CSV)",
           "rows: root position 3, root quaternion 4 (x y z w), joints; no header",
           "29, else `--joints`", "30, unless `--input-fps` says otherwise; of a public set its"
           " own; refused where the name or the motion speaks for another"),
    Reader(".pkl", "KungfuBot (PBHC), ASAP, HuB",
           "joblib: clip name to `root_trans_offset`, `root_rot` (x y z w), `dof` or `pose_aa`",
           "29, or 23 without wrists, which its keys tell", "in the file, else `--input-fps`"),
    Reader(".pkl", "GMR", "`root_pos`, `root_rot` (x y z w), `dof_pos`",
           "29, or by `dof_names`, else `--joints`", "in the file, else `--input-fps`"),
)  # fmt: skip


def read_file(
    path: str | Path, *, input_fps: float | None = None, order: g1.Order | None = None
) -> Clip:
    """The one motion in a file, or of `FILE.pkl#NAME`, checked by `checks.check`.

    Args:
        path: the file.
        input_fps: frames per second of a file that has no rate.
        order: as in `load_npz`.

    Raises:
        MotionError: one sentence that names the file, what is wrong in it and what was expected.
    """
    file, name = _parts(path)
    where = f"{path}"
    if file.suffix == ".npz" and kind_of_npz(file) == "tracking":
        clip = load_npz(file, order=order, output_fps=FPS)
        _bound(where, clip.num_frames, file)
        return check(clip, where)
    states = _read_states(file, name, Layout(), input_fps)
    return check(_clip(file, states, FPS, "linear", None), where, quat=states.quat_order)


def convert(
    path: str | Path,
    layout: Layout,
    *,
    output_fps: float = FPS,
    frame_range: tuple[int, int] | None = None,
    interpolation: Interpolation = "linear",
) -> Clip:
    """A file of any format as `layout` says it is to be read, checked by `checks.check`.

    Root poses and joint angles are taken; velocities and links are computed from them, also where
    the file has its own.

    Args:
        path: the file, or `FILE.pkl#NAME`.
        layout: what the user says about it.
        output_fps: the clip's frames per second.
        frame_range: first and last frame taken, counted from 1, both included; None: all.
        interpolation: between the frames.
    """
    file, name = _parts(path)
    states = _read_states(file, name, layout, layout.input_fps)

    def read_as(layout: Layout) -> Clip:
        pos, quat, joints = states.pos * _UNITS[layout.units], states.quat, states.joints
        if layout.angles == "deg":
            joints = np.radians(joints)
        if layout.up == "y":
            turn = np.tile([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], (len(pos), 1))
            pos, quat = rot.quat_rotate(turn, pos), rot.quat_mul(turn, quat)
        read = states._replace(pos=pos, quat=quat, joints=joints)
        clip = _clip(file, read, output_fps, interpolation, frame_range)
        if layout.ground is None:
            return clip
        shift = layout.ground if math.isfinite(layout.ground) else -contact(clip).low
        read = read._replace(pos=pos + [0.0, 0.0, shift])
        return _clip(file, read, output_fps, interpolation, frame_range)

    clip = read_as(layout)
    # A flag that makes a plausible file implausible was a mistake of the user.
    default = Layout()
    for flag in ("angles", "units", "up"):
        chosen, usual = getattr(layout, flag), getattr(default, flag)
        if chosen != usual and fits_better(
            read_as(replace(layout, **{flag: usual})), clip, states.quat_order
        ):
            raise MotionError(
                f"{path}: is no motion with --{flag} {chosen} and is one with {usual}; leave the"
                " flag out."
            )
    return check(clip, f"{path}", quat=states.quat_order)


def is_in_pickle(text: str) -> bool:
    """Whether the text is `FILE.pkl#NAME`."""
    return text.partition("#")[0].endswith(".pkl") and "#" in text


def read_pickled_clips(path: str | Path) -> list[Clip]:
    """All clips of a pickle, which is read once.

    Raises:
        MotionError: as `read_file`.
    """
    file = Path(path)
    clips, frames = [], 0
    for name, motion in motions_in(file).items():
        if clips:  # a small file can hold one motion under a thousand names
            frames += max(clips[-1].num_frames, LEAST_FRAMES)
            _bound(f"{file}: up to clip '{name[:80]}'", frames, file, most=None)
        states = read_motion(file, name, motion, Layout(), None)
        where = f"{file}#{name}"
        clips.append(check(_clip(file, states, FPS, "linear", None), where, quat="xyzw"))
    return clips


def _parts(path: str | Path) -> tuple[Path, str]:
    """The file, and the clip's name in a pickle, or an empty text."""
    text = str(path)
    file, _, name = text.partition("#") if is_in_pickle(text) else (text, "", "")
    return Path(file), name


def _read_states(path: Path, name: str, layout: Layout, fallback: float | None) -> States:
    """Poses and rate; `fallback` is the rate of a file that has none."""
    if path.suffix == ".csv":
        return read_csv_rows(path, layout, fallback)
    if path.suffix == ".npz":
        return read_npz(path, layout, fallback)
    if path.suffix == ".pkl":
        motions = motions_in(path)
        if not name and len(motions) > 1:
            shown = ", ".join(known[:40] for known in list(motions)[:5])
            raise MotionError(
                f"{path}: holds {len(motions)} clips ({shown}, ...), expected one of them as"
                f" '{path}#NAME'."
            )
        name = name or next(iter(motions))
        if name not in motions:
            known = [known[:80] for known in list(motions)[:1000]]
            raise MotionError(f"{path}: {unknown_name('clip', name, known)}")
        return read_motion(path, name, motions[name], layout, fallback)
    if path.suffix == ".bvh":
        raise MotionError(
            f"{path}: is the motion of a person, expected one of the robot: tools/retarget.py makes"
            " it."
        )
    raise MotionError(
        f"{path}: ends in '{path.suffix}', expected a motion in {', '.join(SUFFIXES)}."
    )


def _bound(where: str, frames: int, path: Path, most: int | None = MAX_FRAMES) -> None:
    of_size = max(SMALLEST_FILE, path.stat().st_size // BYTES_PER_FRAME)
    most = of_size if most is None else min(most, of_size)
    if frames > most:
        raise MotionError(
            f"{where}: makes {frames} frames, expected at most {most} from a file of its size."
        )


def _clip(
    path: Path, states: States, output_fps: float, interpolation: Interpolation,
    frame_range: tuple[int, int] | None,
) -> Clip:  # fmt: skip
    """A clip at `output_fps` frames per second, from the poses that were read."""
    name, pos, quat, joints, fps, _ = states
    where = f"{path}: clip '{name[:80]}'" if name != path.stem else f"{path}"
    check_rates(where, fps, output_fps)
    if not len(pos) == len(quat) == len(joints) or len(pos) < 3:
        raise MotionError(
            f"{where}: root position, root rotation and joints have {len(pos)}, {len(quat)} and"
            f" {len(joints)} frames, expected 3 or more of each."
        )
    rows = np.concatenate([pos, quat[:, [1, 2, 3, 0]], joints], axis=1).astype(np.float64)
    bad = ~(np.abs(rows) < 1e6).all(axis=1)
    if bad.any():
        raise MotionError(f"{where}: frame {bad.argmax()} has values that are not finite.")
    length = np.linalg.norm(rows[:, 3:7], axis=1)
    wrong = np.abs(length - 1.0) > 0.1
    if wrong.any():
        raise MotionError(
            f"{where}: the root quaternion of frame {wrong.argmax()} has length"
            f" {length[wrong.argmax()]:.3g}, expected 1."
        )
    rows = rows_of_range(where, rows, frame_range)
    _bound(where, frame_count(len(rows), fps, output_fps), path)
    return clip_from_rows(
        where, rows, input_fps=fps, output_fps=output_fps, interpolation=interpolation, name=name,
        source=path.name, licence="not stated",
    )  # fmt: skip
