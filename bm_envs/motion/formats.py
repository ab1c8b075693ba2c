"""Motions of the G1 in the files of other projects, told apart by what is in them.

`READERS` lists them; `docs/motions.md` shows it. They are in one file because all of them come to
the same root poses, joints and rate, and most differ by a few keys.

Pickles are read by `pickles.py`, which runs no code. Their root quaternions are x y z w; joints are
the project's 29 in its order. A motion without `dof` has it in `pose_aa [T, 1 + joints + more, 3]`:
rotation vectors of the root and of each joint about its own axis. A file with several clips gives
one by `FILE.pkl#NAME`.

What a file does not say is not guessed. 23 joints may be the robot without wrists or Unitree's own
of 23, so names or other keys must tell, or the user (`Layout.joints`). A rate that is not there or
is no number is asked for; a CSV has none and is taken at 30, unless its name or its motion speaks
for another.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, unknown_name
from bm_envs.motion import consistency, npz
from bm_envs.motion.checks import QuatOrder, check, contact, fits_better
from bm_envs.motion.clip import MAX_FRAMES, Clip, load_npz, load_poses
from bm_envs.motion.csv import check_rates, clip_from_rows, read_rows, rows_of_range
from bm_envs.motion.pickles import as_array, read_pickle
from bm_envs.motion.rates import (
    PERIOD_KEYS,
    RATE_KEYS,
    rate_entries,
    rate_in_name,
    rate_of,
    rate_that_fits,
)
from bm_envs.motion.resample import Interpolation, frame_count
from bm_envs.robots import g1

SUFFIXES = (".npz", ".csv", ".pkl")
FPS = 50.0
"""Frames per second of clips that are resampled: the environments' rate."""
CSV_FPS = 30.0
"""Rate of a CSV of which nothing else is known: that of Unitree's retargeted files."""
WITHOUT_WRISTS = tuple(name for name in g1.JOINT_NAMES if "wrist" not in name)
UNITREE_23 = tuple(
    name for name in g1.JOINT_NAMES
    if not re.search("waist_roll|waist_pitch|wrist_pitch|wrist_yaw", name)
)  # fmt: skip
"""Unitree's G1 of 23 joints: the waist turns only about z, of a wrist there is the roll.
Source: `unitreerobotics/unitree_ros : robots/g1_description/g1_23dof.urdf`."""
JOINT_SETS = {"all": g1.JOINT_NAMES, "no_wrists": WITHOUT_WRISTS, "unitree_23": UNITREE_23}
SMALLEST_FILE, BYTES_PER_FRAME = 25_000, 24
"""A motion has so many frames, or one for so many bytes of its file if that is more: a frame is 36
numbers, and a kilobyte must not become an hour of motion."""
LEAST_FRAMES = 100  # what a clip of a few frames takes the time of
_PYROKI = {"base_frame_pos": 3, "base_frame_wxyz": 4, "joint_angles": g1.NUM_JOINTS}
_ROOT_POS, _JOINTS = ("root_trans_offset", "root_pos", "root_trans"), ("dof", "dof_pos")
_NAMES = ("dof_names", "joint_names")
_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}


class Reader(NamedTuple):
    """A row of the documentation's table."""

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


@dataclass(frozen=True)
class Layout:
    """What the user says about a file; None: what the file or its format says."""

    input_fps: float | None = None
    """Frames per second, whatever the file says."""
    quat: QuatOrder | None = None
    """Order of root quaternions."""
    units: Literal["m", "cm", "mm"] = "m"
    """Unit of root positions."""
    angles: Literal["rad", "deg"] = "rad"
    """Unit of joint angles."""
    joints: str | None = None
    """A set by its name, or the joints' names with commas in between, in the file's order."""
    order: g1.Order | None = None
    """Order of the joints in the file."""
    up: Literal["z", "y"] = "z"
    """Axis that points up."""
    ground: float | None = None
    """m that are added to all heights; `auto` (here NaN): what puts the robot on the floor."""

    def joint_names(self, where: str) -> tuple[str, ...] | None:
        """The joints' names in the file's order; None where nothing was said.

        Raises:
            MotionError: no name of a set, or a list with an unknown or repeated name.
        """
        names = None
        if self.joints in JOINT_SETS:
            names = JOINT_SETS[self.joints]
        elif self.joints is not None:
            names = tuple(name.strip() for name in self.joints.split(","))
            names = tuple(name if name.endswith("_joint") else f"{name}_joint" for name in names)
            _check_names(where, names, f"--joints, {', '.join(JOINT_SETS)} or names")
        if self.order == "isaac":
            known = set(names or g1.JOINT_NAMES)
            names = tuple(name for name in g1.joint_names("isaac") if name in known)
        return names


class _States(NamedTuple):
    """What any file comes to before it is resampled."""

    name: str
    pos: np.ndarray
    quat: np.ndarray  # w x y z as read
    joints: np.ndarray  # [T, 29], the project's order
    fps: float
    quat_order: QuatOrder


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
    if file.suffix == ".npz" and _kind(file) == "tracking":
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

    def read_as(told: Layout) -> Clip:
        pos, quat, joints = states.pos * _UNITS[told.units], states.quat, states.joints
        if told.angles == "deg":
            joints = np.radians(joints)
        if told.up == "y":
            turn = np.tile([math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0], (len(pos), 1))
            pos, quat = rot.quat_rotate(turn, pos), rot.quat_mul(turn, quat)
        read = states._replace(pos=pos, quat=quat, joints=joints)
        clip = _clip(file, read, output_fps, interpolation, frame_range)
        if told.ground is None:
            return clip
        shift = told.ground if math.isfinite(told.ground) else -contact(clip).low
        read = read._replace(pos=pos + [0.0, 0.0, shift])
        return _clip(file, read, output_fps, interpolation, frame_range)

    clip = read_as(layout)
    plain = Layout()
    for flag in ("angles", "units", "up"):
        told, usual = getattr(layout, flag), getattr(plain, flag)
        if told != usual and fits_better(
            read_as(replace(layout, **{flag: usual})), clip, states.quat_order
        ):
            raise MotionError(
                f"{path}: is no motion with --{flag} {told} and is one with {usual}; leave the"
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
    for name, motion in _motions(file).items():
        if clips:  # one motion under a thousand names is a small file, too
            frames += max(clips[-1].num_frames, LEAST_FRAMES)
            _bound(f"{file}: up to clip '{name[:80]}'", frames, file, most=None)
        states = _read_motion(file, name, motion, Layout(), None)
        where = f"{file}#{name}"
        clips.append(check(_clip(file, states, FPS, "linear", None), where, quat="xyzw"))
    return clips


def _parts(path: str | Path) -> tuple[Path, str]:
    """The file, and the clip's name in a pickle or nothing."""
    text = str(path)
    file, _, name = text.partition("#") if is_in_pickle(text) else (text, "", "")
    return Path(file), name


def _read_states(path: Path, name: str, layout: Layout, fallback: float | None) -> _States:
    """Poses and rate; `fallback` is the rate of a file that has none."""
    if path.suffix == ".csv":
        return _read_csv(path, layout, fallback)
    if path.suffix == ".npz":
        return _read_npz(path, layout, fallback)
    if path.suffix == ".pkl":
        motions = _motions(path)
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
        return _read_motion(path, name, motions[name], layout, fallback)
    if path.suffix == ".bvh":
        raise MotionError(
            f"{path}: is the motion of a person, expected one of the robot: tools/retarget.py makes"
            " it."
        )
    raise MotionError(
        f"{path}: ends in '{path.suffix}', expected a motion in {', '.join(SUFFIXES)}."
    )


# --- CSV and NPZ ----------------------------------------------------------------------------------


def _csv_rate(path: Path, pose: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """30, for a CSV of which nothing else is known, unless its name or motion contradicts."""
    named = rate_in_name(path.stem)
    if named is not None:
        if named == CSV_FPS:
            return named
        raise MotionError(
            f"{path}: its name says {named:g} frames a second and a CSV is taken at {CSV_FPS:g};"
            f" convert it by tools/csv_to_npz.py with --input-fps {named:g} (or {CSV_FPS:g})."
        )
    fitting, reason = rate_that_fits(*pose, CSV_FPS)
    if fitting is not None:
        raise MotionError(
            f"{path}: {reason}, so its rate is hardly the {CSV_FPS:g} frames a second of a CSV but"
            f" about {fitting:g}; convert it by tools/csv_to_npz.py with --input-fps {fitting:g}"
            " (or what it has)."
        )
    return CSV_FPS


def _read_csv(path: Path, layout: Layout, fallback: float | None) -> _States:
    names = layout.joint_names(f"{path}")
    rows = read_rows(path, len(names or g1.JOINT_NAMES))
    columns = [3, 4, 5, 6] if layout.quat == "wxyz" else [6, 3, 4, 5]
    quat = rot.quat_normalize(rows[:, columns])
    joints = _all_joints(f"{path}", rows[:, 7:], names)
    fps = fallback
    if fps is None:
        fps = _csv_rate(path, (rows[:, :3], quat, joints))
    return _States(path.stem, rows[:, :3], quat, joints, fps, layout.quat or "xyzw")


def _kind(path: Path) -> str:
    """Which of the readers an NPZ is for."""
    keys = npz.keys(path)
    if keys >= {"poses", "trans"}:
        raise MotionError(
            f"{path}: is the motion of a person (AMASS), expected one of the robot:"
            " tools/retarget.py makes it."
        )
    if keys >= set(_PYROKI):
        return "pyroki"
    if "qpos" in keys and "joint_pos" not in keys:
        raise MotionError(
            f"{path}: holds qpos as holosoma's retargeter writes it, whose order of columns does"
            " not show; convert it by holosoma's convert_data_format_mj.py."
        )
    if keys >= {"joint_pos", "joint_names", "body_names"}:
        shape = npz.shape(path, "joint_pos")
        if len(shape) == 2 and shape[1] == 7 + g1.NUM_JOINTS:
            return "holosoma"
    return "tracking"


def _read_npz(path: Path, layout: Layout, fallback: float | None) -> _States:
    kind = _kind(path)
    if kind == "holosoma":
        return _read_holosoma(path, layout)
    names = layout.joint_names(f"{path}")
    if kind == "tracking":
        pos, quat, joints, fps = load_poses(
            path, order=layout.order, names=names, input_fps=layout.input_fps
        )
        order: QuatOrder = layout.quat or "wxyz"
        if order == "xyzw":
            quat = quat[:, [3, 0, 1, 2]]
        return _States(path.stem, pos, quat, joints, fps, order)

    def check_array(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if key in (*RATE_KEYS, *PERIOD_KEYS):
            if dtype.kind not in "fiu" or math.prod(shape) != 1:
                raise MotionError(f"{where}: {key} has shape {shape}, expected one number.")
        elif dtype.kind != "f" or len(shape) != 2 or shape[1] != _PYROKI[key]:
            raise MotionError(
                f"{where}: {key} has type {dtype} and shape {shape}, expected numbers"
                f" (T, {_PYROKI[key]})."
            )
        elif shape[0] > MAX_FRAMES:
            raise MotionError(
                f"{where}: {key} has {shape[0]} frames, expected at most {MAX_FRAMES}."
            )

    arrays = npz.read_arrays(path, (*_PYROKI, *RATE_KEYS, *PERIOD_KEYS), check_array)
    fps = layout.input_fps
    if fps is None:
        fps = rate_of(f"{path}", rate_entries(arrays), fallback)
    order = layout.quat or "wxyz"
    quat = arrays["base_frame_wxyz"]
    return _States(
        path.stem, arrays["base_frame_pos"], quat[:, [3, 0, 1, 2]] if order == "xyzw" else quat,
        _all_joints(f"{path}", arrays["joint_angles"], names), fps, order,
    )  # fmt: skip


HOLOSOMA_TOLERANCE = 0.03
"""m of a link from where the joints put it; holosoma's model of the robot is not ours."""


def _read_holosoma(path: Path, layout: Layout) -> _States:
    """Root and joints of holosoma's tracking file, checked against its links and velocities.

    Source: `amazon-far/holosoma : holosoma/managers/command/terms/wbt.py`.
    """
    where = f"{path}"
    widths = {"joint_pos": (7 + g1.NUM_JOINTS,), "joint_vel": (6 + g1.NUM_JOINTS,)}

    def check_array(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        is_right = {
            "joint_names": dtype.kind == "U" and len(shape) == 1 and shape[0] < 100,
            "body_names": dtype.kind == "U" and len(shape) == 1 and shape[0] < 1000,
            "body_pos_w": dtype.kind == "f" and len(shape) == 3 and shape[2] == 3,
        }.get(key, dtype.kind in "fiu" and math.prod(shape) == 1)
        if key in widths:
            is_right = dtype.kind == "f" and len(shape) == 2 and shape[1:] == widths[key]
        if not is_right or dtype.itemsize > 1024:
            raise MotionError(f"{where}: {key} has type {dtype} and shape {shape} for holosoma.")

    keys = ("joint_pos", "joint_vel", "joint_names", "body_names", "body_pos_w")
    arrays = npz.read_arrays(path, (*keys, *RATE_KEYS, *PERIOD_KEYS), check_array)
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise MotionError(f"{where}: lacks {', '.join(missing)} of a motion of holosoma.")
    fps = layout.input_fps
    if fps is None:
        fps = rate_of(where, rate_entries(arrays), None)
    names = layout.joint_names(where) or tuple(map(str, arrays["joint_names"]))
    values = arrays["joint_pos"].astype(np.float64)
    if not np.isfinite(values).all():
        raise MotionError(f"{where}: joint_pos holds NaN or infinity, expected finite values.")
    order: QuatOrder = layout.quat or "wxyz"
    quat = values[:, [6, 3, 4, 5] if order == "xyzw" else [3, 4, 5, 6]]
    joints = _all_joints(where, values[:, 7:], names)
    bodies = [str(name) for name in arrays["body_names"]]
    if layout == Layout(input_fps=layout.input_fps):
        if len(arrays["joint_vel"]) != len(joints) or len(arrays["body_pos_w"]) != len(joints) \
                or arrays["body_pos_w"].shape[1] != len(bodies):  # fmt: skip
            raise MotionError(f"{where}: its arrays differ in frames or links.")
        consistency.check_links(
            where, values[:, :3], quat, joints, arrays["body_pos_w"], bodies, HOLOSOMA_TOLERANCE
        )
        consistency.check_joint_vel(
            where, values[:, 7:], arrays["joint_vel"][:, 6:].astype(np.float64), fps, names
        )
    return _States(path.stem, values[:, :3], quat, joints, fps, order)


# --- pickles -------------------------------------------------------------------------------------


def _motions(path: Path) -> dict[str, dict[str, Any]]:
    """Clip name to its entries."""
    value = read_pickle(path)
    if isinstance(value, dict) and any(key in value for key in _ROOT_POS):
        value = {path.stem: value}
    if not isinstance(value, dict) or not value:
        raise MotionError(
            f"{path}: holds {type(value).__name__}, expected clip names to motions with"
            f" {_ROOT_POS[0]}, root_rot, dof and fps."
        )
    for name, motion in value.items():
        if not isinstance(name, str) or not isinstance(motion, dict):
            raise MotionError(
                f"{path}: its entry {str(name)[:40]!r} is no motion, expected one with"
                f" {_ROOT_POS[0]}, root_rot, dof and fps."
            )
    return value


def _read_motion(
    path: Path, name: str, motion: dict[str, Any], layout: Layout, fallback: float | None
) -> _States:
    where = f"{path}: clip '{name[:80]}'"
    wanted = (*_ROOT_POS, "root_rot", *_JOINTS, "pose_aa")
    arrays = {key: as_array(motion[key]) for key in wanted if key in motion}
    pos = _numbers(where, _ROOT_POS, arrays, (3,))
    pose = arrays.get("pose_aa")
    if pose is not None and (pose.ndim != 3 or pose.shape[2] != 3 or pose.dtype.kind not in "fiu"):
        raise MotionError(f"{where}: pose_aa has shape {pose.shape}, expected (T, joints, 3).")
    order: QuatOrder = layout.quat or "xyzw"
    if pose is not None and "root_rot" not in arrays:
        if pose.shape[1] == 0:
            raise MotionError(f"{where}: pose_aa has shape {pose.shape}, expected (T, joints, 3).")
        quat = rot.quat_from_axis_angle(pose[:, 0].astype(np.float64))
    else:
        quat = _numbers(where, ("root_rot",), arrays, (4,))
        quat = quat if order == "wxyz" else quat[:, [3, 0, 1, 2]]
    said = layout.joint_names(where)
    names = said or _pickled_names(where, motion)
    if pose is not None and not any(key in arrays for key in _JOINTS):
        joints, own = _along_axes(where, pose.astype(np.float64))
        names = names or own
    else:
        widths = (len(WITHOUT_WRISTS), g1.NUM_JOINTS) if names is None else (len(names),)
        joints = _numbers(where, _JOINTS, arrays, widths)
        if names is None and joints.shape[1] != g1.NUM_JOINTS:
            names = _names_of_23(where, motion, pose)
    fps = layout.input_fps
    if fps is None:
        fps = rate_of(where, motion, fallback)
    return _States(name, pos, quat, _all_joints(where, joints, names), fps, order)


def _pickled_names(where: str, motion: dict[str, Any]) -> tuple[str, ...] | None:
    """The joints' names in a pickle."""
    for key in _NAMES:
        names = motion.get(key)
        array = getattr(names, "values", names)
        if isinstance(array, np.ndarray) and array.dtype.kind in "US" and array.ndim == 1:
            names = [n.decode("latin1") if isinstance(n, bytes) else str(n) for n in array[:1000]]
        if isinstance(names, list | tuple) and names:
            if not all(isinstance(name, str) for name in names[:1000]) or len(names) > 1000:
                raise MotionError(f"{where}: {key} is no list of names.")
            return tuple(names)
    return None


def _names_of_23(
    where: str, motion: dict[str, Any], pose: np.ndarray | None
) -> tuple[str, ...]:  # fmt: skip
    """Which 23 joints a pickle without names has, by its other keys."""
    if pose is not None and pose.shape[1] > len(WITHOUT_WRISTS):
        with_axes = [names for names in (WITHOUT_WRISTS, UNITREE_23) if _fits_axes(pose, names)]
        if len(with_axes) == 1:
            return with_axes[0]
    # The family of PHC's files (PBHC, ASAP, HuB) says `root_trans_offset`, and locks the wrists.
    if "root_trans_offset" in motion and (pose is None or _fits_axes(pose, WITHOUT_WRISTS)):
        return WITHOUT_WRISTS
    raise MotionError(
        f"{where}: has 23 joints, which are the robot's without wrists or Unitree's own 23; convert"
        " it by tools/csv_to_npz.py with --joints no_wrists or --joints unitree_23."
    )


def _fits_axes(pose: np.ndarray, names: tuple[str, ...]) -> bool:
    """Whether rotation vectors `[T, 1 + joints + more, 3]` lie along those joints' axes."""
    axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in names])
    turns = pose[:, 1 : 1 + len(names)].astype(np.float64)
    if turns.shape[1] != len(names) or not len(turns):
        return False
    angles = (turns * axes).sum(axis=-1)
    return bool(np.abs(turns - angles[..., None] * axes).max() < 1e-3)


def _numbers(
    where: str, keys: tuple[str, ...], arrays: dict[str, np.ndarray | None], widths: tuple[int, ...]
) -> np.ndarray:
    """`[T, W]` under the first of the keys that is there."""
    key = next((key for key in keys if key in arrays), None)
    if key is None:
        raise MotionError(f"{where}: lacks {' or '.join(keys)}.")
    value = arrays[key]
    if value is not None and value.ndim == 3 and value.shape[2] == 1:
        value = value[..., 0]
    if value is None or value.dtype.kind not in "fiu" or value.ndim != 2 \
            or value.shape[1] not in widths:  # fmt: skip
        shape = "no array of numbers" if value is None else f"of shape {value.shape}"
        wanted = " or ".join(map(str, widths))
        raise MotionError(f"{where}: {key} is {shape}, expected (T, {wanted}).")
    if len(value) > MAX_FRAMES:
        raise MotionError(f"{where}: {key} has {len(value)} frames, expected at most {MAX_FRAMES}.")
    return value.astype(np.float64)


def _along_axes(where: str, pose: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """`[T, J]` angles of rotation vectors that lie along the joints' axes, and the joints."""
    fitting = [names for names in (g1.JOINT_NAMES, WITHOUT_WRISTS, UNITREE_23)
               if _fits_axes(pose, names)]  # fmt: skip
    # 29 joints that all turn about their axes are no accident; and of 23 the first 13 are shared.
    if not fitting:
        raise MotionError(
            f"{where}: pose_aa does not turn about the axes of the {g1.NUM_JOINTS} joints or of the"
            f" {len(WITHOUT_WRISTS)} without wrists, and there is no dof."
        )
    axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in fitting[0]])
    return (pose[:, 1 : 1 + len(axes)] * axes).sum(axis=-1), fitting[0]


# --- what all have in common ---------------------------------------------------------------------


def _check_names(where: str, names: tuple[str, ...], origin: str) -> None:
    """Refuse names that are not the robot's, or twice there, or too few for its pose."""
    unknown = [name for name in names if name not in g1.JOINT_NAMES]
    if unknown:
        raise MotionError(
            f"{where}: {unknown_name('joint', unknown[0][:80], g1.JOINT_NAMES)} (expected {origin})"
        )
    if len(set(names)) != len(names):
        raise MotionError(f"{where}: its joint names hold one twice, expected each once.")


def _all_joints(
    where: str, joints: np.ndarray, names: tuple[str, ...] | None
) -> np.ndarray:  # fmt: skip
    """`[T, 29]` in the project's order, what is missing in the default pose."""
    if names is None:
        names = g1.JOINT_NAMES
    legs = g1.JOINT_NAMES[:12]
    is_known = set(legs) <= set(names) <= set(g1.JOINT_NAMES) and len(set(names)) == len(names)
    if len(names) != joints.shape[1] or not is_known:
        raise MotionError(
            f"{where}: its joint names are not the {joints.shape[1]} of robot g1 that its angles"
            " need."
        )
    result = np.tile(g1.DEFAULT_JOINT_POS.astype(np.float64), (len(joints), 1))
    result[:, [g1.JOINT_NAMES.index(name) for name in names]] = joints
    return result


def _bound(where: str, frames: int, path: Path, most: int | None = MAX_FRAMES) -> None:
    of_size = max(SMALLEST_FILE, path.stat().st_size // BYTES_PER_FRAME)
    most = of_size if most is None else min(most, of_size)
    if frames > most:
        raise MotionError(
            f"{where}: makes {frames} frames, expected at most {most} from a file of its size."
        )


def _clip(
    path: Path, states: _States, output_fps: float, interpolation: Interpolation,
    frame_range: tuple[int, int] | None,
) -> Clip:  # fmt: skip
    """A clip at the wanted rate from root position, root quaternion (w x y z), joints."""
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
