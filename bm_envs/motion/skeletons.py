"""Skeletons of motion capture: which joint is which part of a body, and the body in our axes.

`find_mapping` tells the known skeletons by their joints' names; others take a small JSON file
(`read_mapping`). `body_motion` then gives positions and orientations that no longer depend on the
file's axes: z up, the floor at 0, metres of the robot's size.

| skeleton | told by | rest pose |
|---|---|---|
| LAFAN1 | `LeftUpLeg`, `LeftToe`, `Spine2` | bones along x, so `pelvis_up` is given |
| CMU as FBX tools write it | `LHipJoint`, `LeftUpLeg`, `LeftToeBase` | T-pose |
| CMU as MotionBuilder-friendly BVH | `LHipJoint`, `LeftHip`, `LeftAnkle` | standing, y up |
| FAIR (AnimatedDrawings) | `Spine3`, `LeftUpLeg`, `LeftToeBase` | T-pose, z up |
| SMPL family | `left_hip`, `spine3`, `left_foot` | T-pose, y up |

A mapping file has the parts' joints, and `pelvis_up` where the rest pose is no standing one:

    {"joints": {"pelvis": "Hips", "chest": "Spine2", "neck": "Neck", "left_hip": "LeftUpLeg", ...},
     "pelvis_up": [1, 0, 0]}
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.bvh import PersonMotion

SIDES = ("left", "right")
LIMBS = ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist")
PARTS = ("pelvis", "chest", "neck", *(f"{s}_{limb}" for s in SIDES for limb in LIMBS))
MAX_JSON = 2**20

Up = Literal["auto", "x", "y", "z"]

FLOOR_PERCENTILE = 10.0
"""Of the lower foot's height over all frames: where a foot on the floor is. Someone who jumps all
the time still stands for more than a tenth of it, and a slip below the floor of a few frames does
not count."""
TOE_SHARE = 0.25
"""Toe joint over the sole, as a share of its height under the ankle: 2 of 8 cm in a person."""
UPRIGHT = 0.5
"""Least cosine between the mean direction from feet to neck and the axis that is taken for up."""


@dataclass(frozen=True)
class Mapping:
    """The joints of one skeleton that the robot follows."""

    name: str
    joints: dict[str, str]
    """Each of `PARTS` to a joint's name."""
    pelvis_up: tuple[float, float, float] | None = None
    """What points up in the pelvis joint's own frame; None: seen from the rest pose."""
    marks: tuple[str, ...] = ()
    """Other joints by which the skeleton is told."""


def _mapping(
    name: str,
    trunk: str,
    legs: str,
    arms: str,
    sides: tuple[str, str] = ("Left", "Right"),
    pelvis_up: tuple[float, float, float] | None = None,
    marks: tuple[str, ...] = (),
) -> Mapping:
    """A mapping from lists of names; `*` in them stands for the side."""
    joints: dict[str, str] = dict(zip(PARTS[:3], trunk.split(), strict=True))
    for side, spelling in zip(SIDES, sides, strict=True):
        for limb, joint in zip(LIMBS, f"{legs} {arms}".split(), strict=True):
            joints[f"{side}_{limb}"] = joint.replace("*", spelling)
    return Mapping(name, joints, pelvis_up, marks)


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
    _mapping(
        "LAFAN1", "Hips Spine2 Neck", "*UpLeg *Leg *Foot *Toe", "*Arm *ForeArm *Hand",
        pelvis_up=(1.0, 0.0, 0.0),
    ),
    _mapping(
        "SMPL", "pelvis spine3 neck", "*_hip *_knee *_ankle *_foot", "*_shoulder *_elbow *_wrist",
        sides=SIDES,
    ),
)  # fmt: skip


def find_mapping(person: PersonMotion) -> Mapping:
    """The known skeleton whose joints are all there.

    Raises:
        MotionError: none is.
    """
    names = set(person.names)
    for mapping in SKELETONS:
        if names.issuperset([*mapping.joints.values(), *mapping.marks]):
            return mapping
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
    if not isinstance(value.get("joints"), dict) or set(value) - {"joints", "pelvis_up"}:
        raise MotionError(f"{path}: has {_listed(value)}, expected 'joints' and maybe 'pelvis_up'.")
    joints = value["joints"]
    if set(joints) != set(PARTS):
        wrong = sorted(set(joints) ^ set(PARTS))[0]
        problem = "lacks" if wrong in PARTS else "has the unknown part"
        raise MotionError(f"{path}: {problem} '{wrong}', expected {', '.join(PARTS)}.")
    for part, joint in joints.items():
        if not isinstance(joint, str):
            raise MotionError(f"{path}: {part} is {joint!r}, expected a joint's name.")
    up = value.get("pelvis_up")
    if up is not None:
        up = numbers(path, "pelvis_up", up, (3,))
        if not np.linalg.norm(up) > 1e-6:
            raise MotionError(f"{path}: pelvis_up is zero, expected a direction.")
        up = (float(up[0]), float(up[1]), float(up[2]))
    return Mapping(Path(path).stem, joints, up)


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a small JSON file."""
    if not os.path.isfile(path):
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .json file.")
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise MotionError(f"{path}: has more than {MAX_JSON} characters.")
        value = json.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise MotionError(f"{path}: is no readable JSON file ({reason}).") from error
    if not isinstance(value, dict):
        raise MotionError(f"{path}: holds a {type(value).__name__}, expected an object.")
    return value


def numbers(path: str | Path, key: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` of a JSON file as finite numbers of that shape; None stands for any length."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.full(1, np.nan)
    fits = array.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        wanted = " x ".join("N" if length is None else str(length) for length in shape)
        raise MotionError(f"{path}: {key} is no array of {wanted} finite numbers.")
    return array


def _listed(value: dict[str, Any]) -> str:
    keys = [str(key)[:20] for key in itertools.islice(value, 5)]
    return ", ".join(map(repr, keys)) or "no keys"


# --- the body ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Body:
    """A person's motion in the robot's axes: x ahead, y left, z up, in the file's unit of length.

    Orientations are those of the robot's links: identity for one who stands upright and looks
    along x.
    """

    fps: float
    pos: dict[str, np.ndarray]
    """Each of `PARTS` to `[T, 3]`, floor at z = 0."""
    pelvis_quat: np.ndarray
    """`[T, 4]`."""
    torso_quat: np.ndarray
    """`[T, 4]`: up from the middle of the hips to the neck, left as the chest has it. A spine that
    bends is one direction so, as the robot's rigid torso over its waist is."""
    hand: np.ndarray
    """`[T, 2, 3]`, unit vectors of the left and right hand: at rest a hand goes on where its
    forearm points, which needs no finger in the skeleton."""
    ankle_height: float
    """Of an ankle over the floor while the foot stands."""
    toe_height: float
    """Likewise of a toe joint."""

    @property
    def leg_length(self) -> float:
        """Hip to knee to ankle, mean of both sides."""
        return float(np.mean([
            np.linalg.norm(self.pos[f"{side}_{a}"] - self.pos[f"{side}_{b}"], axis=1).mean() * 2
            for side in SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))
        ]))  # fmt: skip


def body_motion(person: PersonMotion, mapping: Mapping, up: Up = "auto") -> Body:
    """The parts of the body that the robot follows, in its axes.

    Args:
        person: the motion.
        mapping: which joints are which parts.
        up: the file's axis that points up; "auto": the one that goes from feet to neck on average.

    Raises:
        MotionError: a joint is missing, limbs without length, no axis is up, or the rest pose does
            not tell how the pelvis stands.
    """
    missing = [name for name in mapping.joints.values() if name not in person.names]
    if missing:
        raise MotionError(
            f"{person.source}: lacks the joint '{missing[0]}' that the mapping '{mapping.name}'"
            f" names; it has {', '.join(person.names[:40])}."
        )
    index = {part: person.names.index(name) for part, name in mapping.joints.items()}
    world_pos, world_quat = person.world()
    raw = {part: world_pos[:, joint] for part, joint in index.items()}
    for side, (a, b) in itertools.product(SIDES, itertools.pairwise(LIMBS)):
        if (a, b) != ("toe", "shoulder"):
            first, second = f"{side}_{a}", f"{side}_{b}"
            if np.linalg.norm(raw[first] - raw[second], axis=1).min() < 1e-6:
                raise MotionError(
                    f"{person.source}: {first} and {second} are in one place, expected a limb"
                    " between them."
                )

    turn = _upright(person.source, raw, up)
    pos = {part: rot.quat_rotate(turn, value) for part, value in raw.items()}
    local = rot.quat_from_matrix(_pelvis_axes(person, mapping, index))
    pelvis, chest = (
        rot.quat_mul(rot.quat_mul(turn, world_quat[:, index[part]]), local)
        for part in ("pelvis", "chest")
    )
    trunk = pos["neck"] - (pos["left_hip"] + pos["right_hip"]) / 2
    torso = frame_quat(up=trunk, left=rot.quat_rotate(chest, np.array([0.0, 1.0, 0.0])))
    hand = np.stack([
        rot.quat_rotate(rot.quat_mul(turn, world_quat[:, index[f"{side}_wrist"]]), way)
        for side, way in zip(SIDES, _rest_hands(person, index), strict=True)
    ], axis=1)  # fmt: skip
    ankle, toe = (
        float(np.percentile(
            np.minimum(*(pos[f"{side}_{part}"][:, 2] for side in SIDES)), FLOOR_PERCENTILE
        ))
        for part in ("ankle", "toe")
    )  # fmt: skip
    # The sole's distance under the toe joint is not in the file; some of the ankle's is typical.
    floor = toe - TOE_SHARE * max(0.0, ankle - toe)
    for value in pos.values():
        value[:, 2] -= floor
    return Body(person.fps, pos, pelvis, torso, hand, ankle - floor, toe - floor)


def _rest_hands(person: PersonMotion, index: dict[str, int]) -> np.ndarray:
    """`[2, 3]`: unit vectors from elbow to wrist in the rest pose."""
    rest = person.rest_pos()
    way = np.stack([rest[index[f"{s}_wrist"]] - rest[index[f"{s}_elbow"]] for s in SIDES])
    return way / np.linalg.norm(way, axis=-1, keepdims=True)


def frame_quat(*, up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The frame whose z is `up [T, 3]` and whose y is nearest to `left [T, 3]`. `[T, 4]`."""
    z = up / np.linalg.norm(up, axis=-1, keepdims=True)
    x = rot.cross(left, z)
    x = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return rot.quat_from_matrix(np.stack([x, rot.cross(z, x), z], axis=-1))


def _upright(source: str, pos: dict[str, np.ndarray], up: Up) -> np.ndarray:
    """The rotation that takes the file's axes to z up."""
    feet = (pos["left_ankle"] + pos["right_ankle"]) / 2
    mean = (pos["neck"] - feet).mean(axis=0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
    axis = int(np.abs(mean).argmax()) if up == "auto" else "xyz".index(up)
    if up == "auto" and abs(mean[axis]) < UPRIGHT:
        raise MotionError(
            f"{source}: the person does not stand along any axis on average, so which is up must"
            " be told (--up x, y or z)."
        )
    sign = -1.0 if up == "auto" and mean[axis] < 0 else 1.0
    if axis == 2 and sign > 0:
        return np.array([1.0, 0.0, 0.0, 0.0])
    if axis == 2:
        return np.array([0.0, 1.0, 0.0, 0.0])
    # A quarter turn about the axis that is neither up nor z.
    about = np.cross(np.eye(3)[axis] * sign, [0.0, 0.0, 1.0])
    return rot.quat_from_axis_angle(about * np.pi / 2)


def _pelvis_axes(person: PersonMotion, mapping: Mapping, index: dict[str, int]) -> np.ndarray:
    """`[3, 3]`: ahead, left and up as columns, in the frames of pelvis and chest at rest.

    At rest all joints' frames are parallel, so the same axes serve for both.
    """
    rest = {part: person.rest_pos()[joint] for part, joint in index.items()}
    left = rest["left_hip"] - rest["right_hip"]
    if mapping.pelvis_up is not None:
        up = np.array(mapping.pelvis_up)
    else:
        hips = (rest["left_hip"] + rest["right_hip"]) / 2
        feet = (rest["left_ankle"] + rest["right_ankle"]) / 2
        up = rest["neck"] - feet
        trunk, legs = rest["neck"] - hips, hips - feet
        if not (up @ trunk > 0.5 * np.linalg.norm(up) * np.linalg.norm(trunk)
                and up @ legs > 0.5 * np.linalg.norm(up) * np.linalg.norm(legs)):  # fmt: skip
            raise MotionError(
                f"{person.source}: its rest pose does not stand, expected 'pelvis_up' in the"
                " mapping: what points up in the pelvis joint's own frame."
            )
    left = left - up * (left @ up) / (up @ up)
    if not np.linalg.norm(left) > 1e-6:
        raise MotionError(f"{person.source}: the hips are one above the other in its rest pose.")
    left, up = left / np.linalg.norm(left), up / np.linalg.norm(up)
    return np.column_stack([np.cross(left, up), left, up])
