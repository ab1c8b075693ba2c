"""A person's motion from an SMPL-family NPZ in the layout of AMASS.

| key | shape | what |
|---|---|---|
| `poses` | `[T, 3 J]` or `[T, J, 3]` | rotation vectors, rad, of J joints in their parents' frames, the root's first |
| `root_orient`, `pose_body` | `[T, 3]`, `[T, 63 or more]` | the same in two parts, where there is no `poses` |
| `trans` | `[T, 3]` | m, z up |
| `mocap_framerate`, `mocap_frame_rate`, `framerate`, `frame_rate`, `fps`; `dt` | one number | Hz; s |

Of the joints the first 22 are the body in all members of the family (SMPL has 24, SMPL-H 52, SMPL-X
55). Everything else in the file (`betas`, `gender`, `dmpls`, hands) is not looked at. It has shape
numbers in place of a skeleton: where the joints are, only the body model says, whose licence does
not let this project pass it on. So the user brings the joints of the rest pose in a JSON file:

    {"joints": [[x, y, z], ... 22 or more, in the model's order and axes (y up), m]}

which is `J_regressor @ (v_template + shapedirs @ betas)` of a body model that the user has.
"""  # noqa: E501

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion import npz
from bm_envs.motion.bvh import PersonMotion
from bm_envs.motion.clip import MAX_FRAMES
from bm_envs.motion.mappings import numbers, read_json
from bm_envs.motion.skeletons import REST_UPRIGHT

# The body's joints and their parents. Source: SMPL (Loper et al. 2015).
JOINTS: tuple[tuple[str, int], ...] = (
    ("pelvis", -1), ("left_hip", 0), ("right_hip", 0), ("spine1", 0), ("left_knee", 1),
    ("right_knee", 2), ("spine2", 3), ("left_ankle", 4), ("right_ankle", 5), ("spine3", 6),
    ("left_foot", 7), ("right_foot", 8), ("neck", 9), ("left_collar", 9), ("right_collar", 9),
    ("head", 12), ("left_shoulder", 13), ("right_shoulder", 14), ("left_elbow", 16),
    ("right_elbow", 17), ("left_wrist", 18), ("right_wrist", 19),
)  # fmt: skip
RATES = ("mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate", "fps", "dt")
"""Keys that hold a rate in Hz, and `dt`, which holds a time in s."""
FREE_NUMBERS, MAX_PACKED = 2**21, 2.5
"""Numbers in one array: beyond the first, at most so many for each byte of the file. A motion is
packed to a byte a number at best; zeros, to a thousandth."""
MAX_HEIGHT = 30.0
"""Largest median distance of the body from the origin, m; 90 is the height of a pelvis in cm."""
LEG = (0.1, 5.0)
"""Shortest and longest leg in a skeleton file, hip to ankle, m; a person has 0.8."""


def read_amass(
    path: str | Path, skeleton: str | Path | None, fps: float | None = None
) -> PersonMotion:
    """Read an AMASS file with the rest pose that the user brings.

    Args:
        path: the NPZ.
        skeleton: the JSON file of the rest pose.
        fps: frames per second of a file that does not hold them.

    Raises:
        MotionError: one sentence with what is missing or wrong, and in which file.
    """
    path = Path(path)
    most = max(FREE_NUMBERS, MAX_PACKED * path.stat().st_size) if os.path.isfile(path) else 0

    def check(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        _check(where, key, shape, dtype)
        if math.prod(shape) > most:
            raise MotionError(
                f"{where}: {key} has shape {shape}, expected at most {most:.0f} numbers in a file"
                " of this size."
            )

    arrays = npz.read_arrays(path, ("poses", "root_orient", "pose_body", "trans", *RATES), check)
    parts = ("poses",) if "poses" in arrays else ("root_orient", "pose_body")
    if "poses" not in arrays and not {"root_orient", "pose_body"} & set(arrays):
        parts = ("poses",)
    missing = [key for key in (*parts, "trans") if key not in arrays]
    rate = _rate(path, arrays, fps)
    if missing or rate is None:
        raise MotionError(
            f"{path}: lacks {missing[0] if missing else RATES[0]}, expected the layout of AMASS:"
            " poses, trans, mocap_framerate"
            f"{'' if missing else ' (or --input-fps, where the rate is known)'}."
        )
    if skeleton is None:
        raise MotionError(
            f"{path}: has no skeleton, which is in the licensed body model; expected the"
            f" {len(JOINTS)} joints of its rest pose in a JSON file (--skeleton)."
        )
    rest = _rest_pose(skeleton)
    if not 1 <= rate <= 10_000:  # NaN fails every comparison
        raise MotionError(f"{path}: its rate is {rate:g} Hz, expected 1 to 10000.")
    lengths = {key: len(arrays[key]) for key in (*parts, "trans")}
    if len(set(lengths.values())) > 1 or not 3 <= lengths["trans"] <= MAX_FRAMES:
        raise MotionError(
            f"{path}: {' and '.join(lengths)} have {' and '.join(map(str, lengths.values()))}"
            f" frames, expected 3 to {MAX_FRAMES} of both."
        )
    frames = lengths["trans"]
    body = [arrays[key].reshape(frames, -1)[:, : 3 * len(JOINTS)] for key in parts]
    poses = np.concatenate(body, axis=1)[:, : 3 * len(JOINTS)].astype(np.float64)
    trans = arrays["trans"].astype(np.float64)
    if not (np.isfinite(poses).all() and np.isfinite(trans).all()):
        raise MotionError(f"{path}: holds NaN or infinity, expected finite numbers.")
    poses = poses.reshape(frames, len(JOINTS), 3)
    _check_units(path, poses, trans)

    parents = tuple(parent for _, parent in JOINTS)
    offsets = rest - np.where(np.array(parents)[:, None] < 0, 0.0, rest[list(parents)])
    local_pos = np.tile(offsets, (len(poses), 1, 1))
    local_pos[:, 0] = trans + rest[0]  # `trans` moves the model's origin, not its pelvis
    local_quat = rot.quat_from_axis_angle(poses)
    names = tuple(name for name, _ in JOINTS)
    return PersonMotion(str(path), rate, names, parents, offsets, local_pos, local_quat, up="z")


def _rate(path: Path, arrays: dict[str, np.ndarray], fps: float | None) -> float | None:
    """Rate of the file in Hz; None if it has none."""
    rate_by_key: dict[str, float] = {}
    for key in RATES:
        if key in arrays:
            value = float(arrays[key].reshape(()))
            if key == "dt":
                if not 1e-4 <= value <= 1.0:
                    raise MotionError(f"{path}: dt is {value:g} s, expected 0.0001 to 1.")
                value = 1.0 / value
            rate_by_key[key] = value
    if fps is not None:
        if rate_by_key:
            key = next(iter(rate_by_key))
            raise MotionError(
                f"{path}: {key} says the rate ({rate_by_key[key]:g} Hz), expected"
                " --input-fps only for a file without one."
            )
        return fps
    rates = list(rate_by_key.values())
    if any(not math.isclose(rate, rates[0], rel_tol=1e-3) for rate in rates[1:]):
        listed = ", ".join(f"{key} {rate:g}" for key, rate in rate_by_key.items())
        raise MotionError(f"{path}: has several rates ({listed} Hz), expected one.")
    return rates[0] if rates else None


def _check_units(path: Path, poses: np.ndarray, trans: np.ndarray) -> None:
    """Degrees and millimetres, where no body in radians and metres would be.

    Args:
        path: what errors name.
        poses: `[T, 22, 3]`.
        trans: `[T, 3]`.
    """
    # The bound keeps squares finite.
    turned = np.linalg.norm(np.clip(poses[:, 1:], -1e6, 1e6), axis=-1).max(axis=1)
    # A rotation vector is at most half a turn long; few fits went beyond a whole turn.
    share = float((turned > 2 * math.pi).mean())
    if share > 0.05:
        raise MotionError(
            f"{path}: in {share:.0%} of the frames a joint turns by more than a whole turn (up to"
            f" {turned.max():.4g}), expected rotation vectors in rad: poses look like degrees."
        )
    height = float(np.median(np.abs(trans[:, 2])))
    if height > MAX_HEIGHT:
        raise MotionError(
            f"{path}: trans is {height:.4g} m over the origin (median), expected at most"
            f" {MAX_HEIGHT:g}: it looks like mm or cm, and m are read."
        )


def _rest_pose(path: str | Path) -> np.ndarray:
    """Joints of the body at rest, m. `[22, 3]`."""
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
    rest = rest[: len(JOINTS)]
    index = {name: k for k, (name, _) in enumerate(JOINTS)}
    leg = float(np.linalg.norm(rest[index["left_hip"]] - rest[index["left_ankle"]]))
    if not LEG[0] <= leg <= LEG[1]:
        raise MotionError(
            f"{path}: left_hip and left_ankle are {leg:.4g} m apart, expected {LEG[0]:g} to"
            f" {LEG[1]:g} (0.8 in a person): joints are in m, and in the model's order."
        )
    feet = (rest[index["left_ankle"]] + rest[index["right_ankle"]]) / 2
    up = rest[index["neck"]] - feet
    if not up[1] > REST_UPRIGHT * float(np.linalg.norm(up)):
        raise MotionError(
            f"{path}: from the feet to the neck is {' '.join(f'{x:.3g}' for x in up)}, expected up"
            " along y: the model's own axes, and its order of joints."
        )
    return rest


def _check(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    joints = len(JOINTS)
    columns = math.prod(shape[1:])
    if key in RATES:
        fits, expected = math.prod(shape) == 1, "one number"
    elif key in ("trans", "root_orient"):
        fits, expected = len(shape) == 2 and columns == 3, "(T, 3)"
    else:
        least = 3 * (joints if key == "poses" else joints - 1)
        expected = f"(T, {least} or more), 3 a joint{' with the root' if key == 'poses' else ''}"
        fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
        fits = fits and columns >= least and columns % 3 == 0
    if dtype.kind not in "fiu" or not fits or (shape and shape[0] > MAX_FRAMES):
        raise MotionError(
            f"{where}: {key} has type {dtype} and shape {shape}, expected numbers: {expected}."
        )
