"""A person's body in the robot's axes: which axis is up, how the pelvis stands, where the floor is.

`body_motion` takes a motion and its joints that are parts of the body (`mappings.py`), and gives
positions and orientations that no longer depend on the file's axes: z up, the floor at 0, in the
file's unit of length. One file because each of the three questions is answered from the figures of
the others, and with the same bounds (ours).

**Which axis is up.** What says so first: the layout of the file (AMASS: z), then the rest pose if
it stands along an axis, then the mapping. The motion is the second witness: from the feet to the
neck, in the mean. Where it is along another axis, either a person lies, crawls or hangs upside
down, or the file is turned, and nothing in it tells which: that is a question to the user (`up`).
So is the motion alone, if the person's lowest joint keeps to 0 along another axis, as on a floor.
"""

from __future__ import annotations

import difflib
import itertools
import warnings
from dataclasses import dataclass

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion.bvh import PersonMotion
from bm_envs.motion.mappings import (
    AXES,
    LIMBS,
    PARTS,
    SIDES,
    SKELETONS,
    Mapping,
    Up,
    find_mapping,
    read_mapping,
    shown,
)

# Mappings are asked for here, too.
__all__ = [
    "AXES", "LIMBS", "PARTS", "SIDES", "SKELETONS", "Body", "Findings", "Mapping", "Up",
    "body_motion", "find_mapping", "frame_quat", "read_mapping",
]  # fmt: skip

FLOOR_PERCENTILE = 10.0
"""Of the lower foot's height over all frames: where a foot on the floor is. Someone who jumps all
the time still stands for more than a tenth of it, and a slip below the floor of a few frames does
not count."""
TOE_SHARE = 0.25
"""Toe joint over the sole, as a share of its height under the ankle: 2 of 8 cm in a person."""
UPRIGHT = 0.5
"""Least cosine between the mean direction from feet to neck and the axis that is taken for up."""
REST_UPRIGHT = 0.866
"""The same of a rest pose: within 30 degrees, of which a pose that stands slanted has no say."""
MAX_BEND = 45.0
"""degrees between the pelvis's up and the line from hips to neck, in the median: no spine bends so
far all the time, so the pelvis's up is wrong. In the five public BVH files of the tests it is 3 to
7."""
MAX_PACE = 25.0
"""Leg lengths a second of the root that 5 % of the frames may exceed: a sprinter has 14."""
JUMP, MAX_JUMP = 50.0, 2000.0
"""The same of any frame, to be warned of and at most: 0.8 and 34 m from one frame to the next at 50
Hz. The first frame of many files is a T-pose at the origin, and the second where the person was."""
TRUNK_LEGS = (0.15, 7.0)
"""Least and most of the trunk's length (hips to neck) over the leg's: 0.6 in a person."""
LYING = {"pelvis": 0.12, "hip": 0.12, "chest": 0.14, "neck": 0.1}
LEANING = {"shoulder": 0.1, "knee": 0.07, "elbow": 0.05, "wrist": 0.04, "ankle": 0.05,
           "toe": 0.025}  # fmt: skip
"""How high a part's joint is over the floor that it is on, in leg lengths: 0.12 is 10 cm."""
LIES = 0.25
"""Leg lengths from the floor under arms and knees within which the trunk lies, and tells the floor
better than a hand, which is drawn through it as often as not."""
LAID, LAID_STEADY, LAID_FLAT, LAID_PELVIS = (-0.05, 0.17), 0.1, 0.6, (0.05, 0.3)
"""Leg lengths of the lowest joint over a floor at 0 that somebody lies on, by how much it changes,
how high the body is at most, and the pelvis over that floor. Who stands at the origin has joints on
both sides of 0, and elsewhere is off it."""
SUNKEN = 0.08
"""Leg lengths that such a part must be under the floor of the feet before the feet are taken to be
in the air: a knee or a hand in kneeling is not."""
SHIN = 0.3
"""Least cosine between the world's up and the shin of a leg that stands; 0.7 in a deep squat."""
FOOT_HEIGHTS = (0.1, 0.025)
"""Ankle and toe joint over the floor of who stands, in leg lengths, where the feet never do."""


@dataclass(frozen=True)
class Findings:
    """The axes and the floor of a file, each with what shows it."""

    up: str
    """The file's axis that points up."""
    up_by: str
    """What shows which axis points up."""
    rest: str
    """How the rest pose stands, and what shows which way the pelvis points up."""
    floor: float
    """Height of the floor along the axis that points up, in the file's unit."""
    floor_by: str
    """What lies or stands on the floor."""


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
    """`[T, 4]`, w x y z, in the world."""
    torso_quat: np.ndarray
    """`[T, 4]`, w x y z, in the world. Up is from the middle of the hips to the neck; left is the
    chest's left. A bent spine thus has one direction, as the robot's rigid torso has."""
    hand: np.ndarray
    """`[T, 2, 3]`, unit vectors along the left and right hand. At rest a hand continues its
    forearm, so that the skeleton needs no fingers."""
    ankle_height: float
    """Height of an ankle over the floor while the foot stands, in the file's unit."""
    toe_height: float
    """Height of a toe joint over the floor while the foot stands, in the file's unit."""
    feet_stand: bool
    """Whether a foot stands in any frame. If none does, the two heights are typical ones."""
    found: Findings
    """The file's axes and floor, and what shows them."""

    @property
    def leg_length(self) -> float:
        """Hip to knee to ankle, mean of both sides."""
        return _leg_length(self.pos)


def body_motion(person: PersonMotion, mapping: Mapping, up: Up = "auto") -> Body:
    """The parts of the body that the robot follows, in its axes.

    Args:
        person: the motion.
        mapping: which joints are which parts.
        up: the file's axis that points up; "auto": this module's first lines say how it is found.

    Raises:
        MotionError: a joint is missing, limbs without length, what is up is not told or told in
            two ways, or the rest pose does not tell how the pelvis stands.
    """
    person = person.with_ends(set(mapping.joints.values()) - set(person.names))
    for name in mapping.joints.values():
        if name not in person.names:
            raise MotionError(_lacks(person, mapping, name))
    index = {part: person.names.index(name) for part, name in mapping.joints.items()}
    world_pos, world_quat = person.world()
    raw = {part: world_pos[:, joint] for part, joint in index.items()}
    rest = {part: person.rest_pos()[joint] for part, joint in index.items()}
    _check_limbs(person, raw, rest)

    rest_up = _rest_up(rest)
    axes, rest_text = _pelvis_axes(person.source, mapping, rest, rest_up)
    axis, up_by = _find_up(person, mapping, raw, rest_up, up)
    turn = _to_z(axis)
    pos = {part: rot.quat_rotate(turn, value) for part, value in raw.items()}
    local = rot.quat_from_matrix(axes)
    pelvis, chest = (
        rot.quat_mul(rot.quat_mul(turn, world_quat[:, index[part]]), local)
        for part in ("pelvis", "chest")
    )
    trunk = pos["neck"] - (pos["left_hip"] + pos["right_hip"]) / 2
    torso = frame_quat(up=trunk, left=rot.quat_rotate(chest, np.array([0.0, 1.0, 0.0])))
    _check_bend(person.source, pelvis, trunk, rest_text)
    hand = np.stack([
        rot.quat_rotate(rot.quat_mul(turn, world_quat[:, index[f"{side}_wrist"]]), way)
        for side, way in zip(SIDES, _rest_hands(person, index), strict=True)
    ], axis=1)  # fmt: skip
    if not all(np.isfinite(value).all() for value in (pelvis, torso, hand, *pos.values())):
        raise MotionError(
            f"{person.source}: its numbers are too large or too small for a body, expected lengths"
            " of 0.001 to 100000 in its unit."
        )
    ankle, toe = (
        float(np.percentile(
            np.minimum(*(pos[f"{side}_{part}"][:, 2] for side in SIDES)), FLOOR_PERCENTILE
        ))
        for part in ("ankle", "toe")
    )  # fmt: skip
    # The sole's distance under the toe joint is not in the file; some of the ankle's is typical.
    floor, floor_by = toe - TOE_SHARE * max(0.0, ankle - toe), "the lower foot"
    heights = (ankle - floor, toe - floor)
    leg = _leg_length(pos)
    lowest = _lying_floor(pos, leg)
    feet_stand = _shins_upright(pos, ankle, leg) and not lowest < floor - SUNKEN * leg
    if not feet_stand:
        floor, floor_by = lowest, "the body (the feet never stand)"
        ankle_high, toe_high = FOOT_HEIGHTS
        heights = (ankle_high * leg, toe_high * leg)
    for value in pos.values():
        value[:, 2] -= floor
    found = Findings(axis, up_by, rest_text, floor, floor_by)
    return Body(person.fps, pos, pelvis, torso, hand, *heights, feet_stand, found)


def _lacks(person: PersonMotion, mapping: Mapping, name: str) -> str:
    here = (*person.names, *person.ends)
    close = difflib.get_close_matches(name, here, n=3, cutoff=0.6) or here[:12]
    more = ", ..." if len(close) < len(here) else ""
    return (
        f"{person.source}: lacks the joint {shown(name)} that the mapping {shown(mapping.name)}"
        f" names; it has {', '.join(close)}{more}."
    )


def _leg_length(pos: dict[str, np.ndarray]) -> float:
    """Hip to knee to ankle, mean of both sides."""
    return float(np.mean([
        np.linalg.norm(pos[f"{side}_{a}"] - pos[f"{side}_{b}"], axis=1).mean() * 2
        for side in SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]))  # fmt: skip


def _lying_floor(pos: dict[str, np.ndarray], leg: float) -> float:
    """The floor under a body that does not stand, in the lowest tenth of the frames."""
    trunk, limbs = (
        float(np.percentile(np.min([
            pos[part][:, 2] - leg * height
            for limb, height in table.items()
            for part in ((limb,) if limb in pos else (f"left_{limb}", f"right_{limb}"))
        ], axis=0), FLOOR_PERCENTILE))
        for table in (LYING, LEANING)
    )  # fmt: skip
    return trunk if trunk - limbs < LIES * leg else limbs


def _shins_upright(pos: dict[str, np.ndarray], ankle: float, leg: float) -> bool:
    """Whether a shin is ever upright over an ankle that is down, at height `ankle` or little more.

    In a tenth of these frames: a foot is flat on the floor only so.
    """
    low, upright = [], []
    for side in SIDES:
        shin = pos[f"{side}_knee"] - pos[f"{side}_ankle"]
        upright.append(_unit(shin)[:, 2] > SHIN)
        low.append(pos[f"{side}_ankle"][:, 2] < ankle + 0.03 * leg)
    low = np.array(low)
    return bool(np.array(upright)[low].mean() > 0.1) if low.any() else False


def _check_limbs(
    person: PersonMotion, pos: dict[str, np.ndarray], rest: dict[str, np.ndarray]
) -> None:
    """Limbs that have a length, legs that fit the trunk, a root that moves as people do."""
    leg = _leg_length(pos)
    least = max(1e-6, 1e-3 * leg)
    for side, (a, b) in itertools.product(SIDES, itertools.pairwise(LIMBS)):
        if (a, b) == ("toe", "shoulder"):
            continue
        first, second = f"{side}_{a}", f"{side}_{b}"
        way = np.linalg.norm(pos[first] - pos[second], axis=1).min()
        if b == "wrist":  # a hand points where the forearm does at rest
            way = min(way, np.linalg.norm(rest[first] - rest[second]))
        if not way >= least:
            raise MotionError(
                f"{person.source}: {first} and {second} are in one place, expected a limb"
                " between them."
            )
    for left, right in (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")):
        if not np.linalg.norm(pos[left] - pos[right], axis=1).min() >= least:
            raise MotionError(
                f"{person.source}: {left} and {right} are in one place, expected the body's width"
                " between them."
            )
    hips = (pos["left_hip"] + pos["right_hip"]) / 2
    trunk = np.linalg.norm(pos["neck"] - hips, axis=1)
    ratio = float(np.median(trunk)) / leg
    if not (TRUNK_LEGS[0] <= ratio <= TRUNK_LEGS[1] and trunk.min() >= least):
        raise MotionError(
            f"{person.source}: from hips to neck are {float(np.median(trunk)):.4g} and the legs"
            f" have {leg:.4g}, expected 0.6 times as much as in a person: the mapping names other"
            " joints, or lengths have different units."
        )
    pace = np.linalg.norm(np.diff(pos["pelvis"], axis=0), axis=1) * person.fps / leg
    fast = float(np.percentile(pace, 95))
    if not fast <= MAX_PACE:
        raise MotionError(
            f"{person.source}: its pelvis moves at {fast:.4g} leg lengths a second, expected at"
            f" most {MAX_PACE:g}: positions have another unit than the skeleton (mm or cm to m), or"
            f" {person.fps:.6g} is not its rate."
        )
    if not pace.max() <= JUMP:
        says = (
            f"{person.source}: its pelvis jumps by {pace.max() / person.fps:.4g} leg lengths at"
            f" {int(pace.argmax()) / person.fps:.3f} s"
        )
        if not pace.max() <= MAX_JUMP:
            raise MotionError(f"{says}, expected a motion without gaps: cut it there.")
        warnings.warn(
            f"{says}; many files begin with a T-pose that is better cut off.",
            MotionWarning,
            stacklevel=3,
        )


def _check_bend(source: str, pelvis: np.ndarray, trunk: np.ndarray, rest_text: str) -> None:
    up = rot.quat_rotate(pelvis, np.array([0.0, 0.0, 1.0]))
    sine = np.linalg.norm(np.cross(up, trunk), axis=-1)
    bend = float(np.median(np.degrees(np.arctan2(sine, (up * trunk).sum(axis=-1)))))
    if bend > MAX_BEND:
        raise MotionError(
            f"{source}: the pelvis is tilted by {bend:.0f} degrees (median) from the line between"
            f" hips and neck, expected at most {MAX_BEND:g}: {rest_text}, which does not fit this"
            " file (--mapping with another pelvis_up)."
        )


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


def _unit(value: np.ndarray) -> np.ndarray:
    return value / np.maximum(np.linalg.norm(value, axis=-1, keepdims=True), 1e-12)


def _nearest_axis(way: np.ndarray, least: float) -> Up | None:
    """The axis within `least` (a cosine) of `way [3]`."""
    axis = int(np.abs(way).argmax())
    if not abs(way[axis]) >= least:
        return None
    return AXES[axis + 3 * bool(way[axis] < 0)]


def _vector(axis: str) -> np.ndarray:
    return np.eye(3)["xyz".index(axis[-1])] * (-1.0 if axis[0] == "-" else 1.0)


def _to_z(axis: str) -> np.ndarray:
    """The rotation that takes the file's `axis` to z up."""
    if axis == "z":
        return np.array([1.0, 0.0, 0.0, 0.0])
    if axis == "-z":
        return np.array([0.0, 1.0, 0.0, 0.0])
    # A quarter turn about the axis that is neither up nor z.
    about = np.cross(_vector(axis), [0.0, 0.0, 1.0])
    return rot.quat_from_axis_angle(about * np.pi / 2)


def _find_up(
    person: PersonMotion,
    mapping: Mapping,
    pos: dict[str, np.ndarray],
    rest_up: np.ndarray | None,
    chosen: Up,
) -> tuple[str, str]:
    """The file's axis that points up, and what says so."""
    if chosen != "auto":
        return chosen, "as told"
    way = pos["neck"] - (pos["left_ankle"] + pos["right_ankle"]) / 2
    mean = _unit(way).mean(axis=0)
    rest = None if rest_up is None else _nearest_axis(_unit(rest_up), REST_UPRIGHT)
    said = [
        (person.up, "the file's layout"),
        (rest, "the rest pose"),
        (mapping.up, f"the skeleton {mapping.name}" if mapping.known else "the mapping"),
    ]
    axis, witness = next(((axis, name) for axis, name in said if axis), (None, ""))
    if axis is None:
        axis = _nearest_axis(mean, UPRIGHT)
        if axis is None:
            raise MotionError(
                f"{person.source}: the person does not stand along any axis on average, so which"
                " is up must be told (--up x, y or z)."
            )
        for other in AXES:
            if other[-1] != axis[-1] and _lies_on_a_floor(pos, other):
                raise MotionError(
                    f"{person.source}: the person stands along {axis} or lies on the floor along"
                    f" {other}, and the rest pose stands along no axis, expected --up={axis} or"
                    f" --up={other}."
                )
        share = float((_unit(way) @ _vector(axis) > REST_UPRIGHT).mean())
        warnings.warn(
            f"{person.source}: {axis} is taken for up by the motion alone ({share:.0%} of the"
            f" frames stand along it), since the rest pose stands along no axis; --up={axis} says"
            " that it is right.",
            MotionWarning,
            stacklevel=3,
        )
        return axis, "the motion alone"
    if mean @ _vector(axis) >= UPRIGHT:
        return axis, f"{witness} and the motion"
    other = _nearest_axis(mean, UPRIGHT)
    if other is None:
        return axis, f"{witness} (the motion stands along no axis)"
    raise MotionError(
        f"{person.source}: up is {axis} by {witness} and {other} by the motion (from feet to neck),"
        f" expected one: --up={axis} if the person lies, crawls or is upside down, --up={other} if"
        " the file is turned."
    )


def _lies_on_a_floor(pos: dict[str, np.ndarray], axis: str) -> bool:
    """Whether the body's lowest part along `axis` keeps to a floor at 0."""
    heights = np.stack([value @ _vector(axis) for value in pos.values()]) / _leg_length(pos)
    lowest = heights.min(axis=0)
    low, high = np.percentile(lowest, [FLOOR_PERCENTILE, 100 - FLOOR_PERCENTILE])
    flat = np.median(heights.max(axis=0) - lowest) < LAID_FLAT
    pelvis = np.median(pos["pelvis"] @ _vector(axis)) / _leg_length(pos)
    thick = LAID_PELVIS[0] <= pelvis <= LAID_PELVIS[1]
    return bool(LAID[0] <= low <= LAID[1] and high - low < LAID_STEADY and flat and thick)


def _rest_up(rest: dict[str, np.ndarray]) -> np.ndarray | None:
    """Unit vector from the feet to the neck in a rest pose that stands, else None."""
    hips = (rest["left_hip"] + rest["right_hip"]) / 2
    feet = (rest["left_ankle"] + rest["right_ankle"]) / 2
    up = rest["neck"] - feet
    trunk, legs = rest["neck"] - hips, hips - feet
    if (up @ trunk > 0.5 * np.linalg.norm(up) * np.linalg.norm(trunk)
            and up @ legs > 0.5 * np.linalg.norm(up) * np.linalg.norm(legs)):  # fmt: skip
        return up
    return None


def _pelvis_axes(
    source: str, mapping: Mapping, rest: dict[str, np.ndarray], rest_up: np.ndarray | None
) -> tuple[np.ndarray, str]:
    """`[3, 3]`: ahead, left and up as columns, in the frames of pelvis and chest at rest.

    At rest all joints' frames are parallel, so the same axes serve for both. And where they are
    from, as a sentence's part.
    """
    left = rest["left_hip"] - rest["right_hip"]
    by_mapping = None if mapping.pelvis_up is None else np.array(mapping.pelvis_up)
    if rest_up is not None and (by_mapping is None or mapping.known):
        up, text = rest_up, "the rest pose stands, and the pelvis with it"
    elif by_mapping is None:
        raise MotionError(
            f"{source}: its rest pose does not stand, expected 'pelvis_up' in the"
            " mapping: what points up in the pelvis joint's own frame."
        )
    else:
        up = by_mapping
        text = (
            f"{'the rest pose does not stand' if rest_up is None else 'the rest pose stands'}, and"
            f" {mapping.name} says {' '.join(f'{x:g}' for x in by_mapping)} is up in the pelvis"
        )
        if rest_up is not None and not _unit(up) @ _unit(rest_up) >= np.cos(np.radians(MAX_BEND)):
            raise MotionError(
                f"{source}: pelvis_up is {' '.join(f'{x:g}' for x in by_mapping)} in the mapping"
                f" and {' '.join(f'{x:.2g}' for x in _unit(rest_up))} by the rest pose, which"
                " stands; expected the same, or no pelvis_up."
            )
    left = left - up * (left @ up) / (up @ up)
    if not np.linalg.norm(left) > 1e-6:
        raise MotionError(f"{source}: the hips are one above the other in its rest pose.")
    left, up = left / np.linalg.norm(left), up / np.linalg.norm(up)
    ahead = np.cross(left, up)
    toes = _unit(np.stack([rest[f"{side}_toe"] - rest[f"{side}_ankle"] for side in SIDES]))
    if rest_up is not None and (toes @ ahead < -UPRIGHT).all():
        raise MotionError(
            f"{source}: the toes point behind the body in its rest pose, expected ahead: left and"
            " right are swapped in the mapping, or the file is a mirror image (left-handed axes)."
        )
    return np.column_stack([ahead, left, up]), text
