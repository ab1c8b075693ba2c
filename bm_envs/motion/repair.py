"""Repair a reference where no robot can follow it: in the floor, or beyond a joint's range.

A stated, automatic step, so that nobody edits a motion by hand:

1. *Where.* Frames are off where a shape of the robot is more than `FLOOR_TOLERANCE` in the floor,
   the origin of a link is under `ORIGIN_HEIGHT`, or a joint is beyond its range. A run of such
   frames is repaired if one of them exceeds a bound of `feasibility.py`: `FOOT_DEPTH` for any
   shape, `LINK_DEPTH` for an origin, `JOINT_EXCESS` for a joint. Other runs stay; a robot forgives
   them.
2. *How.* `projection.py` finds the smallest smooth change that takes the run's frames to those
   bounds. It begins and ends within `RAMP_S` and a knot of the run, and there nothing gets deeper.
3. *Exactly.* Joints are cut at their range, and what is left in the floor, tenths of a millimetre,
   is a smooth lift of the whole robot.

All other frames keep their values bit for bit, and a repaired motion has nothing to repair.
Contacts and velocities of changed frames are found as those of a converted file
(`clip_from_states`). What cannot be projected is left as it is: a motion that jumps, floats or is
too fast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion import feasibility, projection
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, clip_from_states
from bm_envs.motion.footing import runs
from bm_envs.motion.projection import FLOOR_POINTS, States
from bm_envs.motion.smoothing import cover
from bm_envs.robots import g1, kinematics

SUFFIX = "~repaired"
"""End of a repaired motion's name, before a cut: `walk3_subject1~repaired[10:20]`."""
FLOOR_TOLERANCE = 0.01
"""m that a shape may be in the floor where a motion was repaired; standing clips of LAFAN1 are off
by up to 8 mm."""
ORIGIN_HEIGHT = 0.005
"""m, least height of a link's origin there."""
RAMP_S = 0.5
"""Time before and after a run in which the change begins and ends."""
MAX_STRETCH_S = 600.0
"""Longest stretch that is repaired in one piece; what is in the floor for longer lies too low."""
_ROUNDING = 1e-5
"""m by which heights are better than their bounds: they are stored as float32."""

_IS_SHAPE = np.arange(len(FLOOR_POINTS.body)) < len(kinematics.SHAPES.body)
_ALLOWED = np.where(_IS_SHAPE, FLOOR_POINTS.radius - FLOOR_TOLERANCE, ORIGIN_HEIGHT)
_FORGIVEN = np.where(
    _IS_SHAPE, FLOOR_POINTS.radius - feasibility.FOOT_DEPTH, -feasibility.LINK_DEPTH
)


def is_repaired(name: str) -> bool:
    """Whether a motion of this name is a repaired one, with a cut or not."""
    return SUFFIX in name


def repaired_name(motion: str) -> str:
    """By which name or path the library has a motion repaired: with `SUFFIX` before a cut."""
    cut = re.search(r"(\[[^\[\]]*\])?$", motion)
    assert cut is not None
    return motion[: cut.start()] + SUFFIX + cut[0]


def original_name(name: str) -> str:
    """The name of the whole motion that a cut, a repaired one or a cut of that is made of."""
    return name.partition("[")[0].partition(SUFFIX)[0]


def repair(clip: Clip) -> Clip:
    """The motion with what no robot can follow projected onto the floor and the joints' range.

    It has the same frames, the name with `SUFFIX`, and a source that tells of what it was made. A
    motion without anything to repair has its arrays; one that was repaired is returned.

    Raises:
        MotionError: a stretch is longer than `MAX_STRETCH_S`, or has less than 3 frames.
    """
    run = _runs(clip)
    if not run.any():
        return clip if is_repaired(clip.name) else _named(clip, clip)
    frames = clip.num_frames
    knot = projection.knot_frames(clip.fps)
    ramp = round(RAMP_S * clip.fps)
    heights = _heights(clip)
    low, high = np.broadcast_to(g1.JOINT_RANGE.T[:, None], (2, frames, g1.NUM_JOINTS))
    states = States(*(values.astype(np.float64) for values in
                      (clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], clip.joint_pos)))  # fmt: skip
    # Outside the runs nothing gets worse than it was.
    there = run[:, None]
    least = np.where(there, _ALLOWED, np.minimum(_ALLOWED, heights - projection.MARGIN))
    low = np.where(there, low, np.minimum(low, states.joint_pos))
    high = np.where(there, high, np.maximum(high, states.joint_pos))

    near = np.zeros(frames, bool)
    for start, end in runs(run):
        near[max(0, start - ramp) // knot * knot : -(-(end + ramp) // knot) * knot] = True
    change = np.zeros((frames, projection.DOFS))
    for start, end in runs(near):
        if end - start > MAX_STRETCH_S * clip.fps:
            raise MotionError(
                f"{clip.name}: is in the floor or beyond the joints' range from"
                f" {start / clip.fps:.1f} to {end / clip.fps:.1f} s, expected at most"
                f" {MAX_STRETCH_S:g} s in one piece to repair it; bm-envs motion convert --ground"
                " auto puts a motion on the floor."
            )
        part = slice(start, end)
        bounds = projection.Bounds(least[part], low[part], high[part])
        change[part] = projection.project(
            states.frames(part), bounds, clip.fps, begins=start == 0, ends=end == frames
        )
    moved = states.moved(change)
    moved = moved._replace(joint_pos=np.clip(moved.joint_pos, low, high))

    links = moved.links()
    lacking = np.where(there, _ALLOWED, _FORGIVEN) - FLOOR_POINTS.of(links.pos, links.quat)[..., 2]
    lacking = lacking.max(axis=1) + _ROUNDING
    lift = cover(np.where(near, np.maximum(lacking, 0.0), 0.0), knot)
    moved.root_pos[:, 2] += lift
    return _named(_joined(clip, moved, near | (lift > 0)), clip)


def _named(clip: Clip, original: Clip) -> Clip:
    """The clip under the name and with the source of a repaired one."""
    if is_repaired(original.name):
        return replace(clip, name=original.name, source=original.source)
    source = f"{original.source}; repaired by bm-envs from {original.name}, {original.sha256()}"
    return replace(clip, name=original.name + SUFFIX, source=source)


def _joined(clip: Clip, moved: States, changed: np.ndarray) -> Clip:
    """The clip with `moved` in the frames `changed [T]`, and velocities that fit."""
    made = clip_from_states(
        clip.name, clip.fps, *moved, source=clip.source, licence=clip.licence
    )  # fmt: skip
    # A velocity is of the frames before and after.
    anew = changed.copy()
    anew[1:] |= changed[:-1]
    anew[:-1] |= changed[1:]
    arrays = {}
    for key in (*ARRAY_SHAPES, "foot_contact"):
        values, others = getattr(clip, key).copy(), getattr(made, key)[anew]
        if key == "body_quat_w":  # of both signs of a rotation the one that the file has
            others = np.where((values[anew] * others).sum(-1, keepdims=True) < 0, -others, others)
        values[anew] = others
        arrays[key] = values
    return replace(made, **arrays)


def _heights(clip: Clip) -> np.ndarray:
    """`[T, P]`: heights of `FLOOR_POINTS`."""
    return FLOOR_POINTS.of(clip.body_pos_w, clip.body_quat_w)[..., 2]


def _runs(clip: Clip) -> np.ndarray:
    """`[T]` bool: the frames that are to be repaired."""
    heights, excess = _heights(clip), feasibility.joint_excess(clip).max(axis=1)
    # A joint stored on its limit is within it: float32 rounds by less than 1e-6 rad.
    off = (heights < _ALLOWED).any(axis=1) | (excess > 1e-6)
    beyond = (heights < _FORGIVEN).any(axis=1) | (excess > feasibility.JOINT_EXCESS)
    result = np.zeros(len(off), bool)
    for start, end in runs(off):
        result[start:end] = beyond[start:end].any()
    return result


@dataclass(frozen=True)
class Change:
    """What a repair did to one stretch of a motion."""

    start_s: float
    end_s: float
    depth_m: float
    """Deepest that a shape was in the floor."""
    depth_link: str
    """The link of that shape."""
    excess_rad: float
    """Largest angle that a joint was beyond its range; 0 where none was."""
    excess_joint: str
    shift_m: float
    """Farthest that the origin of a link was moved."""
    shift_link: str
    turn_rad: float
    """Most that a joint was turned."""
    turn_joint: str


def changes(original: Clip, repaired: Clip) -> list[Change]:
    """What differs between a motion and its repaired one, stretch by stretch."""
    shifts = np.linalg.norm(
        repaired.body_pos_w.astype(np.float64) - original.body_pos_w, axis=-1
    )  # fmt: skip
    turns = np.abs(repaired.joint_pos.astype(np.float64) - original.joint_pos)
    depths = -kinematics.shape_heights(original.body_pos_w, original.body_quat_w)
    excesses = np.maximum(feasibility.joint_excess(original), 0.0)

    def most(values: np.ndarray, names: Sequence[str]) -> tuple[float, str]:
        column = int(values.max(axis=0).argmax())
        return float(values[:, column].max()), names[column]

    links = [g1.BODY_NAMES[body] for body in kinematics.SHAPES.body]
    found = []
    for start, end in runs(shifts.any(axis=1) | turns.any(axis=1)):
        part = slice(start, end)
        found.append(Change(
            start / original.fps, (end - 1) / original.fps, *most(depths[part], links),
            *most(excesses[part], g1.JOINT_NAMES), *most(shifts[part], g1.BODY_NAMES),
            *most(turns[part], g1.JOINT_NAMES),
        ))  # fmt: skip
    return found
