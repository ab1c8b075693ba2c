"""NPZ files of the G1's motion: whole_body_tracking's and ours, holosoma's and ProtoMotions'."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion import consistency, npz
from bm_envs.motion.checks import QuatOrder
from bm_envs.motion.clip import MAX_FRAMES, load_poses
from bm_envs.motion.formats.layout import Layout, States, all_joints
from bm_envs.motion.rates import PERIOD_KEYS, RATE_KEYS, rate_entries, rate_of
from bm_envs.robots import g1

_PYROKI = {"base_frame_pos": 3, "base_frame_wxyz": 4, "joint_angles": g1.NUM_JOINTS}


def kind_of_npz(path: Path) -> str:
    """Which kind of file an NPZ is, by its keys: `tracking`, `holosoma` or `pyroki`."""
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


def read_npz(path: Path, layout: Layout, fallback: float | None) -> States:
    """Poses and rate; `fallback` is the rate of a file that has none."""
    kind = kind_of_npz(path)
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
        return States(path.stem, pos, quat, joints, fps, order)

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
    return States(
        path.stem, arrays["base_frame_pos"], quat[:, [3, 0, 1, 2]] if order == "xyzw" else quat,
        all_joints(f"{path}", arrays["joint_angles"], names), fps, order,
    )  # fmt: skip


HOLOSOMA_TOLERANCE = 0.03
"""m, distance of a link from where the joints put it. holosoma's model of the robot differs a
little from ours."""


def _read_holosoma(path: Path, layout: Layout) -> States:
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
    joints = all_joints(where, values[:, 7:], names)
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
    return States(path.stem, values[:, :3], quat, joints, fps, order)
