"""Motions of the G1 in the files of other projects, told apart by what is in them.

| file | from | content |
|---|---|---|
| `.npz` | whole_body_tracking, mjlab, ours | `fps, joint_pos, ..., body_ang_vel_w` (`clip.py`) |
| `.npz` | ProtoMotions (PyRoki) | `base_frame_pos, base_frame_wxyz, joint_angles`, no rate |
| `.pkl` | KungfuBot/PBHC, ASAP, HuB | joblib: name to `{root_trans_offset, root_rot, dof, fps}` |
| `.pkl` | GMR | `{fps, root_pos, root_rot, dof_pos}` |
| `.csv` | Unitree, GMR | rows of root and joints (`csv.py`) |

Pickles are read by `pickles.py`, which runs no code. Their root quaternions are x y z w; joints are
the project's 29 in its order, or the 23 without the wrists', which then stay in the default pose. A
motion without `dof` has it in `pose_aa [T, 1 + joints + more, 3]`: rotation vectors of the root and
of each joint about its own axis. A file with several clips gives one by `FILE.pkl#NAME`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, unknown_name
from bm_envs.motion import npz
from bm_envs.motion.clip import MAX_FRAMES, Clip, load_npz
from bm_envs.motion.csv import clip_from_rows, read_csv
from bm_envs.motion.pickles import as_array, read_pickle
from bm_envs.robots import g1

SUFFIXES = (".npz", ".csv", ".pkl")
FPS = 50.0
"""Frames per second of clips that are resampled: the environments' rate."""
WITHOUT_WRISTS = tuple(name for name in g1.JOINT_NAMES if "wrist" not in name)
_PYROKI = {"base_frame_pos": 3, "base_frame_wxyz": 4, "joint_angles": g1.NUM_JOINTS}
_ROOT_POS, _JOINTS = ("root_trans_offset", "root_pos", "root_trans"), ("dof", "dof_pos")
_NAMES = ("dof_names", "joint_names")


def read_file(path: str | Path, *, input_fps: float, order: g1.Order | None = None) -> Clip:
    """The one motion in a file, or of `FILE.pkl#NAME`.

    Args:
        path: the file.
        input_fps: frames per second of a file that has no rate.
        order: as in `load_npz`.

    Raises:
        MotionError: one sentence that names the file, what is wrong in it and what was expected.
    """
    text = str(path)
    file, _, name = text.partition("#") if is_in_pickle(text) else (text, "", "")
    path = Path(file)
    if path.suffix == ".csv":
        return read_csv(path, input_fps=input_fps)
    if path.suffix == ".npz":
        return _read_npz(path, input_fps, order)
    if path.suffix == ".pkl":
        motions = _motions(path)
        if name:
            if name not in motions:
                raise MotionError(f"{path}: {unknown_name('clip', name, motions)}")
            return _read_motion(path, name, motions[name], input_fps)
        if len(motions) > 1:
            shown = ", ".join(list(motions)[:5])
            raise MotionError(
                f"{path}: holds {len(motions)} clips ({shown}, ...), expected one of them as"
                f" '{path}#NAME'."
            )
        ((name, motion),) = motions.items()
        return _read_motion(path, name, motion, input_fps)
    if path.suffix == ".bvh":
        raise MotionError(
            f"{path}: is the motion of a person, expected one of the robot: tools/retarget.py makes"
            " it."
        )
    raise MotionError(
        f"{path}: ends in '{path.suffix}', expected a motion in {', '.join(SUFFIXES)}."
    )


def is_in_pickle(text: str) -> bool:
    """Whether the text is `FILE.pkl#NAME`."""
    return text.partition("#")[0].endswith(".pkl") and "#" in text


def clip_names(path: str | Path) -> list[str]:
    """The clips in a pickle, as `FILE.pkl#NAME` names them."""
    return list(_motions(Path(path)))


def _read_npz(path: Path, fps: float, order: g1.Order | None) -> Clip:
    keys = npz.keys(path)
    if keys >= {"poses", "trans"}:
        raise MotionError(
            f"{path}: is the motion of a person (AMASS), expected one of the robot:"
            " tools/retarget.py makes it."
        )
    if not keys >= set(_PYROKI):
        return load_npz(path, order=order)

    def check(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if key == "fps":
            if dtype.kind not in "fiu" or math.prod(shape) != 1:
                raise MotionError(f"{where}: fps has shape {shape}, expected one number.")
        elif dtype.kind != "f" or len(shape) != 2 or shape[1] != _PYROKI[key]:
            raise MotionError(
                f"{where}: {key} has type {dtype} and shape {shape}, expected numbers"
                f" (T, {_PYROKI[key]})."
            )
        elif shape[0] > MAX_FRAMES:
            raise MotionError(
                f"{where}: {key} has {shape[0]} frames, expected at most {MAX_FRAMES}."
            )

    arrays = npz.read_arrays(path, (*_PYROKI, "fps"), check)
    rate = float(arrays["fps"].reshape(())) if "fps" in arrays else fps
    return _clip(
        path, path.stem, arrays["base_frame_pos"], arrays["base_frame_wxyz"],
        arrays["joint_angles"], rate,
    )  # fmt: skip


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


def _read_motion(path: Path, name: str, motion: dict[str, Any], fps: float) -> Clip:
    where = f"{path}: clip '{name}'"
    lists = {key: motion[key] for key in _NAMES if isinstance(motion.get(key), list | tuple)}
    arrays = {key: as_array(value) for key, value in motion.items()}
    pos = _numbers(where, _ROOT_POS, arrays, (3,))
    pose = arrays.get("pose_aa")
    if pose is not None and (pose.ndim != 3 or pose.shape[2] != 3 or pose.dtype.kind not in "fiu"):
        raise MotionError(f"{where}: pose_aa has shape {pose.shape}, expected (T, joints, 3).")
    if pose is not None and "root_rot" not in arrays:
        quat = rot.quat_from_axis_angle(pose[:, 0].astype(np.float64))
    else:
        quat = _numbers(where, ("root_rot",), arrays, (4,))[:, [3, 0, 1, 2]]
    if pose is not None and not any(key in arrays for key in _JOINTS):
        joints = _along_axes(where, pose.astype(np.float64))
    else:
        joints = _numbers(where, _JOINTS, arrays, (len(WITHOUT_WRISTS), g1.NUM_JOINTS))
    names = list(next(iter(lists.values()), ()))
    rate = arrays.get("fps")
    if rate is not None and (rate.size != 1 or rate.dtype.kind not in "fiu"):
        raise MotionError(f"{where}: fps is no number.")
    fps = fps if rate is None else float(rate.reshape(()))
    return _clip(path, name, pos, quat, _all_joints(where, joints, names), fps)


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
    return value.astype(np.float64)


def _along_axes(where: str, pose: np.ndarray) -> np.ndarray:
    """`[T, 29]` or `[T, 23]`: angles of rotation vectors that lie along the joints' axes."""
    for names in (g1.JOINT_NAMES, WITHOUT_WRISTS):
        axes = np.array([g1.JOINTS[g1.JOINT_NAMES.index(name)].axis for name in names])
        turns = pose[:, 1 : 1 + len(names)]
        if turns.shape[1] == len(names):
            angles = (turns * axes).sum(axis=-1)
            if np.abs(turns - angles[..., None] * axes).max() < 1e-3:
                return angles
    raise MotionError(
        f"{where}: pose_aa does not turn about the axes of the {g1.NUM_JOINTS} joints or of the"
        f" {len(WITHOUT_WRISTS)} without wrists, and there is no dof."
    )


def _all_joints(where: str, joints: np.ndarray, names: list[Any]) -> np.ndarray:
    """`[T, 29]` in the project's order, what is missing in the default pose."""
    if not names:
        names = list(g1.JOINT_NAMES if joints.shape[1] == g1.NUM_JOINTS else WITHOUT_WRISTS)
    if len(names) != joints.shape[1] or not set(WITHOUT_WRISTS) <= set(map(str, names)) <= set(
        g1.JOINT_NAMES
    ):
        raise MotionError(
            f"{where}: its joint names are not the {joints.shape[1]} of robot g1 that its angles"
            " need."
        )
    result = np.tile(g1.DEFAULT_JOINT_POS.astype(np.float64), (len(joints), 1))
    result[:, [g1.JOINT_NAMES.index(name) for name in names]] = joints
    return result


def _clip(
    path: Path, name: str, pos: np.ndarray, quat: np.ndarray, joints: np.ndarray, fps: float
) -> Clip:
    """A clip at the environments' rate from root position, root quaternion (w x y z), joints."""
    where = f"{path}: clip '{name}'" if name != path.stem else f"{path}"
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
    return clip_from_rows(
        where, rows, input_fps=fps, output_fps=FPS, interpolation="linear", name=name,
        source=path.name, licence="not stated",
    )  # fmt: skip
