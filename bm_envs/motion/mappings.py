"""Which joint of a skeleton is which part of a body: known skeletons, and mapping files.

`find_mapping` tells the known skeletons by their joints' names; others take a small JSON file
(`read_mapping`). What is then made of the parts is in `bm_envs/motion/skeletons.py`.

| skeleton | told by | rest pose as published |
|---|---|---|
| FAIR (AnimatedDrawings) | `Spine3`, `LeftUpLeg`, `LeftToeBase` | T-pose, z up |
| CMU as FBX tools write it | `LHipJoint`, `LeftUpLeg`, `LeftToeBase` | T-pose |
| CMU as MotionBuilder-friendly BVH | `LHipJoint`, `LeftHip`, `LeftAnkle` | standing, y up |
| Mixamo | `Spine2`, `LeftUpLeg`, `LeftToeBase`; often `mixamorig:` before each | T-pose, y up |
| LAFAN1 | `Spine2`, `LeftUpLeg`, `LeftToe` | bones along x, so `pelvis_up` is given |
| Xsens (MVN's BVH) | `Chest4`, `LeftHip`, `LeftCollar` | T-pose, y up |
| Xsens (MVN's segments) | `T8`, `LeftUpperLeg`, `LeftForeArm` | T-pose |
| SMPL family | `left_hip`, `spine3`, `left_foot` | T-pose, y up |

The name in front of a skeleton's joints (`mixamorig:Hips`, `Bob_Hips`) may be any. Names tell which
joint is which and no more: how the rest pose stands is measured in each file, and only where it
does not stand do the skeleton's own `pelvis_up` and `up` serve.

A mapping file has the parts' joints or end sites (`LeftToe_end`), `pelvis_up` where the rest pose
is no standing one, and `up` where the file's axis is known:

    {"joints": {"pelvis": "Hips", "chest": "Spine2", "neck": "Neck", "left_hip": "LeftUpLeg", ...},
     "pelvis_up": [1, 0, 0], "up": "y"}
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion.bvh import PersonMotion

SIDES = ("left", "right")
LIMBS = ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist")
PARTS = ("pelvis", "chest", "neck", *(f"{s}_{limb}" for s in SIDES for limb in LIMBS))
MAX_JSON = 2**20

Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]
AXES: tuple[Up, ...] = ("x", "y", "z", "-x", "-y", "-z")


@dataclass(frozen=True)
class Mapping:
    """The joints of one skeleton that the robot follows."""

    name: str
    joints: dict[str, str]
    """Each of `PARTS` to a joint's name."""
    pelvis_up: tuple[float, float, float] | None = None
    """Direction of up in the frame of the pelvis joint; None: the rest pose shows it."""
    marks: tuple[str, ...] = ()
    """Other joints that a file must have to be of this skeleton."""
    up: Up | None = None
    """The file's axis that points up, for a rest pose that does not stand."""
    known: bool = False
    """Whether the mapping is one of `SKELETONS`. Its `pelvis_up` then serves only where the rest
    pose does not stand; that of a user's mapping file always holds."""


def _mapping(
    name: str,
    trunk: str,
    legs: str,
    arms: str,
    sides: tuple[str, str] = ("Left", "Right"),
    pelvis_up: tuple[float, float, float] | None = None,
    marks: tuple[str, ...] = (),
    up: Up | None = None,
) -> Mapping:
    """A mapping from lists of names; `*` in them stands for the side."""
    joints: dict[str, str] = dict(zip(PARTS[:3], trunk.split(), strict=True))
    for side, spelling in zip(SIDES, sides, strict=True):
        for limb, joint in zip(LIMBS, f"{legs} {arms}".split(), strict=True):
            joints[f"{side}_{limb}"] = joint.replace("*", spelling)
    return Mapping(name, joints, pelvis_up, marks, up, known=True)


SKELETONS = (
    _mapping("FAIR", "Hips Spine3 Neck", "*UpLeg *Leg *Foot *ToeBase", "*Arm *ForeArm *Hand"),
    _mapping(
        "CMU", "Hips Spine1 Neck", "*UpLeg *Leg *Foot *ToeBase", "*Arm *ForeArm *Hand",
        marks=("LHipJoint",),
    ),
    _mapping(
        "CMU", "Hips Chest2 Neck", "*Hip *Knee *Ankle *Toe", "*Shoulder *Elbow *Wrist",
        marks=("LHipJoint",),
    ),
    _mapping("Mixamo", "Hips Spine2 Neck", "*UpLeg *Leg *Foot *ToeBase", "*Arm *ForeArm *Hand"),
    _mapping(
        "LAFAN1", "Hips Spine2 Neck", "*UpLeg *Leg *Foot *Toe", "*Arm *ForeArm *Hand",
        pelvis_up=(1.0, 0.0, 0.0), up="y",
    ),
    _mapping("Xsens", "Hips Chest4 Neck", "*Hip *Knee *Ankle *Toe", "*Shoulder *Elbow *Wrist"),
    _mapping(
        "Xsens", "Pelvis T8 Neck", "*UpperLeg *LowerLeg *Foot *Toe", "*UpperArm *ForeArm *Hand"
    ),
    _mapping(
        "SMPL", "pelvis spine3 neck", "*_hip *_knee *_ankle *_foot", "*_shoulder *_elbow *_wrist",
        sides=SIDES,
    ),
)  # fmt: skip


def find_mapping(person: PersonMotion) -> Mapping:
    """The known skeleton whose joints are all there, maybe with one name before each.

    Raises:
        MotionError: none is.
    """
    names = set(person.names)
    for mapping in SKELETONS:
        root = mapping.joints["pelvis"]
        for name in person.names:
            before = name.removesuffix(root)
            needed = (*mapping.joints.values(), *mapping.marks)
            if name.endswith(root) and names.issuperset(before + joint for joint in needed):
                joints = {part: before + joint for part, joint in mapping.joints.items()}
                return replace(mapping, joints=joints)
    known = ", ".join(dict.fromkeys(mapping.name for mapping in SKELETONS))
    raise MotionError(
        f"{person.source}: its joints ({', '.join(person.names[:4])}, ...) are those of no known"
        f" skeleton ({known}), expected a mapping file that names them (--mapping)."
    )


def read_mapping(path: str | Path) -> Mapping:
    """Read a mapping file, as above.

    Raises:
        MotionError: one sentence with the file, what is wrong and what was expected.
    """
    value = read_json(path)
    if not isinstance(value.get("joints"), dict) or set(value) - {"joints", "pelvis_up", "up"}:
        raise MotionError(
            f"{path}: has {_listed(value)}, expected 'joints' and maybe 'pelvis_up' and 'up'."
        )
    joints = value["joints"]
    if set(joints) != set(PARTS):
        wrong = sorted(set(joints) ^ set(PARTS))[0]
        problem = "lacks" if wrong in PARTS else "has the unknown part"
        raise MotionError(f"{path}: {problem} {shown(wrong)}, expected {', '.join(PARTS)}.")
    parts: dict[str, str] = {}
    for part, joint in joints.items():
        if not isinstance(joint, str) or not joint:
            raise MotionError(f"{path}: {part} is {shown(joint)}, expected a joint's name.")
        # A short spine's only joint may be the chest, too.
        other = parts.setdefault(joint, part)
        if other != part and {other, part} not in ({"pelvis", "chest"}, {"chest", "neck"}):
            raise MotionError(
                f"{path}: {other} and {part} are both {shown(joint)}, expected a joint for each."
            )
    pelvis_up = value.get("pelvis_up")
    if pelvis_up is not None:
        pelvis_up = numbers(path, "pelvis_up", pelvis_up, (3,))
        length = float(np.linalg.norm(pelvis_up))
        if not 1e-6 < length < 1e6:
            raise MotionError(
                f"{path}: pelvis_up is {'zero' if length <= 1e-6 else 'too long'},"
                " expected a direction."
            )
        pelvis_up = (float(pelvis_up[0]), float(pelvis_up[1]), float(pelvis_up[2]))
    up = value.get("up")
    if up is not None and up not in AXES:
        raise MotionError(f"{path}: up is {shown(up)}, expected {', '.join(AXES)}.")
    return Mapping(Path(path).stem, joints, pelvis_up, up=up)


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a small JSON file; a key that comes twice is refused."""
    if not os.path.isfile(path):
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .json file.")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise MotionError(f"{path}: has the key {shown(key)} twice, expected it once.")
                seen.add(key)
        return entries

    try:
        with open(path, encoding="utf-8-sig") as stream:
            text = stream.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise MotionError(f"{path}: has more than {MAX_JSON} characters.")
        value = json.loads(text, object_pairs_hook=once)
    except MotionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no JSON, no UTF-8, or a whole number of more than 4300 digits.
        reason = str(error).splitlines()[0]
        raise MotionError(f"{path}: is no readable JSON file ({reason}).") from error
    if not isinstance(value, dict):
        raise MotionError(f"{path}: holds a {type(value).__name__}, expected an object.")
    return value


def numbers(path: str | Path, key: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` of a JSON file as finite numbers of that shape; None stands for any length."""
    try:
        # Lists of lists of other lengths have no shape; texts and truths are no numbers here.
        array = np.array(value)
        array = array.astype(np.float64) if array.dtype.kind in "iuf" else np.full(1, np.nan)
    except (TypeError, ValueError, OverflowError):
        array = np.full(1, np.nan)
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        expected = " x ".join("N" if length is None else str(length) for length in shape)
        raise MotionError(f"{path}: {key} is no array of {expected} finite numbers.")
    return array


def shown(value: Any) -> str:
    """A short text of one line for whatever a file holds."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value[:41] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:60] + "..."


def _listed(value: dict[str, Any]) -> str:
    keys = [str(key)[:20] for key in itertools.islice(value, 5)]
    return ", ".join(map(repr, keys)) or "no keys"
