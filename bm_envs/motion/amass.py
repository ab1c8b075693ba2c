"""A person's motion from an SMPL-family NPZ in the layout of AMASS.

Such a file has `poses [T, 3 J]` (rotation vectors of J joints in their parents' frames, the root's
first), `trans [T, 3]` (m, z up) and `mocap_framerate` or `mocap_frame_rate` (Hz); of the joints the
first 22 are the body in all members of the family. It has shape numbers (`betas`) in place of a
skeleton: where the joints are, only the body model says, whose licence does not let this project
pass it on. So the user brings the joints of the rest pose in a JSON file:

    {"joints": [[x, y, z], ... 22 or more, in the model's order and axes (y up), m]}

which is `J_regressor @ (v_template + shapedirs @ betas)` of a body model that the user has.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion import npz
from bm_envs.motion.bvh import PersonMotion
from bm_envs.motion.clip import MAX_FRAMES
from bm_envs.motion.skeletons import numbers, read_json

# The body's joints and their parents. Source: SMPL (Loper et al. 2015).
JOINTS: tuple[tuple[str, int], ...] = (
    ("pelvis", -1), ("left_hip", 0), ("right_hip", 0), ("spine1", 0), ("left_knee", 1),
    ("right_knee", 2), ("spine2", 3), ("left_ankle", 4), ("right_ankle", 5), ("spine3", 6),
    ("left_foot", 7), ("right_foot", 8), ("neck", 9), ("left_collar", 9), ("right_collar", 9),
    ("head", 12), ("left_shoulder", 13), ("right_shoulder", 14), ("left_elbow", 16),
    ("right_elbow", 17), ("left_wrist", 18), ("right_wrist", 19),
)  # fmt: skip
_RATES = ("mocap_framerate", "mocap_frame_rate")


def read_amass(path: str | Path, skeleton: str | Path | None) -> PersonMotion:
    """Read an AMASS file with the rest pose that the user brings.

    Raises:
        MotionError: one sentence with what is missing or wrong, and in which file.
    """
    path = Path(path)
    arrays = npz.read_arrays(path, ("poses", "trans", *_RATES), _check)
    missing = [key for key in ("poses", "trans") if key not in arrays]
    rates = [arrays[key] for key in _RATES if key in arrays]
    if missing or not rates:
        raise MotionError(
            f"{path}: lacks {missing[0] if missing else _RATES[0]}, expected the layout of AMASS:"
            " poses, trans, mocap_framerate."
        )
    if skeleton is None:
        raise MotionError(
            f"{path}: has no skeleton, which is in the licensed body model; expected the"
            f" {len(JOINTS)} joints of its rest pose in a JSON file (--skeleton)."
        )
    rest = _rest_pose(skeleton)
    fps, poses = float(rates[0].reshape(())), arrays["poses"].astype(np.float64)
    trans = arrays["trans"].astype(np.float64)
    if not (math.isfinite(fps) and 1 <= fps <= 10_000):
        raise MotionError(f"{path}: {_RATES[0]} is {fps}, expected 1 to 10000 Hz.")
    if not 3 <= len(poses) <= MAX_FRAMES or len(poses) != len(trans):
        raise MotionError(
            f"{path}: poses and trans have {len(poses)} and {len(trans)} frames, expected 3 to"
            f" {MAX_FRAMES} of both."
        )
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise MotionError(f"{path}: holds NaN or infinity, expected finite numbers.")

    parents = tuple(parent for _, parent in JOINTS)
    offsets = rest - np.where(np.array(parents)[:, None] < 0, 0.0, rest[list(parents)])
    local_pos = np.tile(offsets, (len(poses), 1, 1))
    local_pos[:, 0] = trans + rest[0]  # the model moves its origin, from which the pelvis is off
    local_quat = rot.quat_from_axis_angle(poses[:, : 3 * len(JOINTS)].reshape(len(poses), -1, 3))
    names = tuple(name for name, _ in JOINTS)
    return PersonMotion(str(path), fps, names, parents, offsets, local_pos, local_quat)


def _rest_pose(path: str | Path) -> np.ndarray:
    """`[22, 3]`, m."""
    value = read_json(path)
    if "joints" not in value:
        raise MotionError(
            f"{path}: lacks 'joints', expected the positions of the rest pose's joints."
        )
    rest = numbers(path, "joints", value["joints"], (None, 3))
    if len(rest) < len(JOINTS):
        raise MotionError(
            f"{path}: joints has {len(rest)} positions, expected {len(JOINTS)} or more in the"
            f" model's order: {', '.join(name for name, _ in JOINTS[:4])}, ..."
        )
    return rest[: len(JOINTS)]


def _check(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if key in _RATES:
        fits, wanted = math.prod(shape) == 1, "one number"
    elif key == "trans":
        fits, wanted = len(shape) == 2 and shape[1] == 3, "(T, 3)"
    else:
        fits = len(shape) == 2 and shape[1] >= 3 * len(JOINTS) and shape[1] % 3 == 0
        wanted = f"(T, {3 * len(JOINTS)} or more)"
    if dtype.kind not in "fiu" or not fits or (shape and shape[0] > MAX_FRAMES):
        raise MotionError(
            f"{where}: {key} has type {dtype} and shape {shape}, expected numbers: {wanted}."
        )
