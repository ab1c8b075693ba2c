"""The one gate that every motion passes: is it what it says it is?

A file with its angles in degrees, its quaternions in another order or its joints in another
robot's is read without an error and trains to the end of its time. So each motion that comes from
a file is looked at before it is used. What contradicts itself is refused with its likely cause and
the flag of `bm-envs motion convert` that mends it; what is only doubtful is a warning of one line.

How a wrong convention shows. A robot that moves touches the floor with one point or another, and
where it touches it, that point rests. So two figures of a true motion are small whatever is danced,
and whether it stands, crawls or lies: the speed of the robot's lowest point, and how much the
height of that point varies. `cost` adds them, the distance from the floor and the angles beyond
the joints' range. A motion whose cost is large while the same numbers read in another way give
a motion of small cost is refused, and the other way is its likely cause. Where no other way is
better the motion is only strange, and passes.

`RULES` lists what is looked at; `docs/motions.md` shows it. One file because it is the one gate;
it is long because every refusal says its figure, its likely cause and the way out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion import doubts, feasibility
from bm_envs.motion.clip import Clip
from bm_envs.motion.feasibility import SUNK, describe_start
from bm_envs.robots import g1, kinematics
from bm_envs.robots.robot import Robot

QuatOrder = Literal["xyzw", "wxyz"]

SUNK_REFUSED = 0.20
"""m under the floor in half of the frames. LAFAN1 has soles 66 mm and links 121 mm deep, in single
frames; a robot whose pelvis was written at height 0 is 0.78 m deep."""
HIGH_REFUSED = 2.0
"""m over the floor in nine of ten frames; more than a person hangs from anything."""
EXCESS_REFUSED = 0.5
"""rad beyond the joints' range, mean over the frames of the worst joint. Retargeters of other
robots' ranges are off by 0.1 or 0.2; angles in degrees by 30."""
SPEED_REFUSED = 20.0
"""m/s of the pelvis between two frames: twice the fastest person."""
SPEED_DOUBTED = 6.5
"""m/s of the pelvis between two frames; LAFAN1, which has a sprint, reaches 5.6."""
TURN_REFUSED = 60.0
"""rad/s of the pelvis between two frames, ten turns a second; LAFAN1 has up to 11.7."""
JOINT_SPEED_DOUBTED = 1.1
"""Share of a joint's limit; LAFAN1's glitches reach 1.00."""
ORDER_EXCESS = 0.3
"""rad beyond a joint's range in any frame, from which on another order is tried by ranges alone.
LAFAN1 and G1 Moves never leave them."""
FRAMES = 64
"""Frames looked at for poses, spread over the clip."""
PLAUSIBLE = 3.0
"""Cost that another reading must stay under, for the motion to be one at all."""
STRANGE = 2.5
"""Cost that a motion must be above before another reading is tried. Of 1 064 pieces (two seconds to
whole, also turned) of the 47 public clips, of the package's and of a published policy's motion, 95
in a hundred cost less than 1.6, and the worst 5.2."""
RATIO = 1.5
"""How many times another reading's cost (plus 1) the motion's must be. Those pieces reach 0.9. In
Isaac's order, and with quaternions in the other order, 57 of the 58 whole clips are refused; of the
58th, the policy's, whose soles slide and dive, no reading is plausible."""
RATIO_UNLIKELY = 2.5
"""The same for readings that files have seldom: sides swapped, rotations inverted."""


class Rule(NamedTuple):
    """One line of the documentation's table; the bounds are the constants above."""

    what: str
    bound: str
    treatment: Literal["refused", "warning"]
    flag: str


RULES = (
    Rule("root quaternions w x y z where x y z w is read, or the other way round",
         "another reading is better, see below", "refused", "--quat"),
    Rule("joints in Isaac Lab's order, or in the reverse one, or with sides swapped",
         "another reading is better", "refused", "--input-order, --joints"),
    Rule("joint angles in degrees",
         f"more than {EXCESS_REFUSED:g} rad beyond the joints' range on average", "refused",
         "--angles"),
    Rule("positions in centimetres or millimetres",
         f"everything is more than {HIGH_REFUSED:g} m over the floor", "refused", "--units"),
    Rule("y points up", "another reading is better", "refused", "--up"),
    Rule("under the floor", f"more than {SUNK_REFUSED:g} m in half of the frames, "
         "as with a root height of 0", "refused", "--ground"),
    Rule("the pelvis jumps", f"faster than {SPEED_REFUSED:g} m/s between two frames", "refused",
         "--frame-range"),
    Rule("the pelvis turns at once", f"faster than {TURN_REFUSED:g} rad/s between two frames",
         "refused", "--frame-range"),
    Rule("over the floor", f"more than {feasibility.CLEARANCE:g} m in nine of ten frames",
         "warning", "--ground"),
    Rule("under the floor", f"more than {SUNK:g} m in one of ten frames", "warning", "--ground"),
    Rule("the first rows jump", f"the first two steps are faster than {feasibility.START_SPEED:g}"
         f" m/s or {feasibility.START_JOINT_SPEED:g} rad/s and {feasibility.START_RATIO:g} times"
         " what follows", "warning", "--frame-range"),
    Rule("the pelvis is fast", f"faster than {SPEED_DOUBTED:g} m/s", "warning", "--input-fps"),
    Rule("the pelvis turns fast", f"faster than {feasibility.ROOT_TURN:g} rad/s", "warning",
         "--input-fps"),
    Rule("a joint is fast", f"faster than {JOINT_SPEED_DOUBTED:g} times its limit", "warning",
         "--input-fps"),
    Rule("a joint beyond its range", f"by more than {feasibility.JOINT_EXCESS:g} rad", "warning",
         ""),
)  # fmt: skip


@dataclass(frozen=True)
class Pose:
    """Root positions `[T, 3]`, root quaternions `[T, 4]` (w x y z), joints `[T, 29]`."""

    pos: np.ndarray
    quat: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class Reading:
    """Another way to read the same numbers."""

    says: str
    """What the numbers are in this reading, for a message."""
    flag: str
    """The flag of `bm-envs motion convert` for this reading; empty where there is none."""
    read: Callable[[Pose], Pose]
    ratio: float = RATIO


def _turned(pose: Pose) -> Pose:
    """From a world with y up to one with z up: a quarter turn about x."""
    turn = np.tile([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0], (len(pose.pos), 1))
    return Pose(rot.quat_rotate(turn, pose.pos), rot.quat_mul(turn, pose.quat), pose.joints)


def _upright(quat: np.ndarray) -> float:
    """Median height of the tip of the pelvis' own z axis over the pelvis; 1 for one who stands."""
    return float(np.median(rot.quat_rotate(quat, np.tile([0.0, 0.0, 1.0], (len(quat), 1)))[:, 2]))


# Where a file's four columns a b c d went, and where they belong.
_OTHER_QUAT: dict[QuatOrder, tuple[QuatOrder, list[int]]] = {
    "xyzw": ("wxyz", [1, 2, 3, 0]),  # read as w=d x=a y=b z=c
    "wxyz": ("xyzw", [3, 0, 1, 2]),  # read as w=a x=b y=c z=d
}


def _from_isaac(robot: Robot) -> np.ndarray:
    """What brings joints in Isaac Lab's order to the project's. `[J]`."""
    return g1.order_map(robot.isaac_joint_names, robot.joint_names)


def _readings(quat: QuatOrder, robot: Robot) -> tuple[Reading, ...]:
    """The readings that are tried, by the order in which the file's quaternions were read."""
    from_isaac, (swapped, _) = _from_isaac(robot), robot.mirror_map()
    other, columns = _OTHER_QUAT[quat]
    spaced = " ".join(other)
    quats = f"root quaternions look like {spaced}, and were read as {' '.join(quat)}"
    order = "joints look like Isaac Lab's (breadth-first) order"
    return (
        Reading(quats, f"--quat {other}",
                lambda p: Pose(p.pos, p.quat[:, columns], p.joints)),
        Reading(order, "--input-order isaac",
                lambda p: Pose(p.pos, p.quat, p.joints[:, from_isaac])),
        Reading(f"{quats}, and {order}", f"--quat {other} --input-order isaac",
                lambda p: Pose(p.pos, p.quat[:, columns], p.joints[:, from_isaac])),
        Reading("positions and rotations look as if y pointed up", "--up y", _turned),
        Reading("joints look like the reverse order", "--joints NAME,NAME,...",
                lambda p: Pose(p.pos, p.quat, p.joints[:, ::-1])),
        Reading("joints look like left and right swapped", "--joints NAME,NAME,...",
                lambda p: Pose(p.pos, p.quat, p.joints[:, swapped]), RATIO_UNLIKELY),
        Reading("joint angles look like they have the opposite sign", "",
                lambda p: Pose(p.pos, p.quat, -p.joints)),
        Reading("root rotations look inverted (the world's in the root's frame)", "",
                lambda p: Pose(p.pos, p.quat * [1, -1, -1, -1], p.joints), RATIO_UNLIKELY),
    )  # fmt: skip


class Contact(NamedTuple):
    """How a motion meets the floor, over frames spread over it; see the module's text."""

    slip: float
    """Median speed of the lowest point, m/s."""
    spread: float
    """Height of the lowest point, its upper quartile less its lower, m."""
    low: float
    """The height that it exceeds in nine of ten frames, m."""
    middle: float
    """Its median height, m."""
    excess: float
    """Mean over the frames of the largest angle beyond a joint's range, rad."""

    @property
    def cost(self) -> float:
        """0 for a robot that never slips; every part is cut off, lest one outweigh all others."""
        return (
            min(self.slip, 6.0) / 0.3
            + min(self.spread, 0.6) / 0.05
            # Depths that are only warned of say nothing about how a file is to be read.
            + min(max(0.0, self.low - 0.12), 1.0) / 0.05
            + min(max(0.0, -self.low - SUNK_REFUSED), 1.0) / 0.02
            + min(self.excess, 2.0) / 0.05
        )


def _pairs(frames: int) -> tuple[np.ndarray, int]:
    """Frames spread over a clip and the frame behind each, `[2 K]`, and K."""
    first = np.unique(np.linspace(0, frames - 2, FRAMES).astype(int))
    return np.concatenate([first, first + 1]), len(first)


def _contact(points: np.ndarray, joints: np.ndarray, fps: float, robot: Robot) -> Contact:
    """From `points [2 K, P, 3]` of the robot in pairs of frames and `joints [2 K, 29]`."""
    count = len(points) // 2
    here, there = points[:count], points[count:]
    lowest = here[..., 2].argmin(axis=1)
    row = np.arange(count)
    speed = np.linalg.norm(there[row, lowest] - here[row, lowest], axis=1) * fps
    height = here[row, lowest, 2]
    low, high = robot.joint_range.T
    excess = np.maximum(0.0, np.maximum(low - joints[:count], joints[:count] - high)).max(axis=1)
    tenth, quarter, middle, upper = np.percentile(height, [10, 25, 50, 75])
    return Contact(float(np.median(speed)), float(upper - quarter), float(tenth), float(middle),
                   float(excess.mean()))  # fmt: skip


def _points(links: kinematics.LinkStates, robot: Robot) -> np.ndarray:
    """`[T, 8 + B, 3]`: eight points of the soles and the links' origins."""
    soles = kinematics.sole_points(links.pos, links.quat, robot)
    return np.concatenate([soles.reshape(len(soles), -1, 3), links.pos], axis=1)


def contact(clip: Clip) -> Contact:
    """How a clip meets the floor."""
    frames, _ = _pairs(clip.num_frames)
    soles = kinematics.sole_points(clip.body_pos_w[frames], clip.body_quat_w[frames], clip.robot)
    points = np.concatenate(
        [soles.reshape(len(frames), -1, 3), clip.body_pos_w[frames].astype(np.float64)], axis=1
    )
    return _contact(points, clip.joint_pos[frames].astype(np.float64), clip.fps, clip.robot)


def likely_cause(clip: Clip, measured: Contact, quat: QuatOrder) -> Reading | None:
    """The reading of the same numbers under which a clip is a far better motion, if there is one.

    Args:
        clip: the motion as it was read.
        measured: the clip's `contact`.
        quat: the order in which the file's quaternions were read.
    """
    if measured.cost <= STRANGE:
        return None
    frames, _ = _pairs(clip.num_frames)
    pose = Pose(
        clip.body_pos_w[frames, 0].astype(np.float64),
        clip.body_quat_w[frames, 0].astype(np.float64),
        clip.joint_pos[frames].astype(np.float64),
    )
    readings = _readings(quat, clip.robot)
    poses = [reading.read(pose) for reading in readings]
    links = kinematics.link_poses(
        np.concatenate([p.pos for p in poses]), np.concatenate([p.quat for p in poses]),
        np.concatenate([p.joints for p in poses]), clip.robot,
    )  # fmt: skip
    points = _points(links, clip.robot).reshape(len(poses), len(frames), -1, 3)
    best, least = None, np.inf
    for reading, other, there in zip(readings, poses, points, strict=True):
        # Who climbs stairs or steps off a chair leaves the floor's height, and on the side would
        # keep to it; but who stands as read was not filed lying.
        if reading.read is _turned and _upright(pose.quat) > _upright(other.quat):
            continue
        cost = _contact(there, other.joints, clip.fps, clip.robot).cost
        if cost < least:
            best, least = reading, cost
    if best is None or least > PLAUSIBLE or measured.cost <= best.ratio * (least + 1.0):
        return None
    return best


def fits_better(other: Clip, clip: Clip, quat: QuatOrder) -> bool:
    """Whether `other`, the same file read without a flag, passes and is much better than `clip`.

    A file that needs the flag is refused without it, or costs more.
    """
    return contact(clip).cost > contact(other).cost + 1.0 and refusal(other, quat) is None


def _order_by_range(joints: np.ndarray, robot: Robot) -> tuple[str, str, float] | None:
    """What another order of the joints looks like, its flag, and how far this one is out of range.

    A slow motion in place slips little in any order. But joints that leave their ranges by more
    than `ORDER_EXCESS` and would never leave them in another order are in that order.
    """
    low, high = robot.joint_range.T

    def excess(angles: np.ndarray) -> float:
        return float(np.maximum(low - angles, angles - high).max())

    actual = excess(joints)
    if actual > ORDER_EXCESS:
        for columns, says, flag in (
            (_from_isaac(robot), "Isaac Lab's (breadth-first) order", "--input-order isaac"),
            (np.arange(robot.num_joints)[::-1], "the reverse order", "--joints NAME,NAME,..."),
        ):
            if excess(joints[:, columns]) <= feasibility.JOINT_EXCESS:
                return says, flag, actual
    return None


def check(
    clip: Clip, where: str, *, quat: QuatOrder = "wxyz", is_start: bool = True
) -> Clip:  # fmt: skip
    """Refuse a clip that is not what it says and warn of a doubtful one; returns the clip.

    Args:
        clip: the motion as it was read.
        where: what errors name, usually the file.
        quat: the order in which the file's root quaternions were read.
        is_start: whether the clip's first frame is where an episode starts.

    Raises:
        MotionError: a contradiction, with its likely cause.
    """
    if problem := refusal(clip, quat):
        reported_to = _reported.get()
        if reported_to is None:
            raise MotionError(f"{where}: {problem}")
        reported_to.append(f"{where}: {problem}")
        return clip
    if says := doubtful(clip, is_start=is_start):
        doubts.tell(where, f"{'; '.join(says)}.")
    return clip


_reported: ContextVar[list[str] | None] = ContextVar("reported", default=None)


@contextlib.contextmanager
def reported() -> Iterator[list[str]]:
    """Within it, why a motion would be refused is put on this list, and the motion is passed on.

    For what only looks at motions.
    """
    problems: list[str] = []
    token = _reported.set(problems)
    try:
        yield problems
    finally:
        _reported.reset(token)


def is_reporting() -> bool:
    """Whether this is within `reported`, where motions pass that would be refused."""
    return _reported.get() is not None


def check_start(clip: Clip, where: str) -> Clip:
    """Warn of a cut whose first rows jump."""
    if says := describe_start(clip):
        doubts.tell(where, f"{says}.")
    return clip


def refusal(clip: Clip, quat: QuatOrder = "wxyz") -> str | None:
    """Why a clip is refused, as the end of a sentence; None where it is not."""
    convert = "convert it by bm-envs motion convert with"
    measured = contact(clip)
    joints = clip.joint_pos.astype(np.float64)
    if measured.excess > EXCESS_REFUSED:
        small = _contact_of_degrees(joints, clip.robot)
        largest = float(np.abs(joints).max())
        if small <= 0.1 and largest > 2 * np.pi:
            return (
                f"joint angles go to {largest:.3g} and look like degrees, expected radians;"
                f" {convert} --angles deg."
            )
    speed = feasibility.root_speed(clip)
    height = float(np.median(clip.body_pos_w[:, 0, 2]))
    if measured.low > HIGH_REFUSED:
        for unit, size in (("cm", 100.0), ("mm", 1000.0)):
            # A pelvis is 0.05 m (lying) to 1.5 m (in the air) high.
            if 0.05 < height / size < 1.5:
                return (
                    f"the pelvis is {height:.4g} m high and its positions look like {unit},"
                    f" expected metres; {convert} --units {unit}."
                )
    jump = int(speed.argmax())
    if speed[jump] > SPEED_REFUSED:
        return (
            f"the pelvis jumps by {speed[jump] / clip.fps:.3g} m at {jump / clip.fps:.2f} s, which"
            f" is {speed[jump]:.3g} m/s, expected at most {SPEED_REFUSED:g}; cut it there"
            " (NAME[START:END], or --frame-range of bm-envs motion convert)."
        )
    turn = feasibility.root_turn(clip)
    flip = int(turn.argmax())
    if turn[flip] > TURN_REFUSED:
        return (
            f"the pelvis turns by {turn[flip] / clip.fps:.3g} rad at {flip / clip.fps:.2f} s, which"
            f" is {turn[flip]:.3g} rad/s, expected at most {TURN_REFUSED:g}; cut it there"
            " (NAME[START:END], or --frame-range of bm-envs motion convert)."
        )
    if measured.middle < -SUNK_REFUSED and not np.any(np.abs(clip.body_pos_w[:, 0, 2]) > 1e-6):
        return (
            "the root's height is 0 in all frames, and so the robot is "
            f"{-measured.middle:.2f} m under the floor (z = 0) in half of them, expected less than"
            f" {SUNK_REFUSED:g}; {convert} --ground auto."
        )
    if reading := likely_cause(clip, measured, quat):
        return (
            f"{reading.says}: as it is, the robot's lowest point moves at {measured.slip:.2f} m/s "
            f"and is {measured.low:.2f} m over the floor; "
            + (f"{convert} {reading.flag}." if reading.flag else "mend the file.")
        )
    if order := _order_by_range(joints, clip.robot):
        return (
            f"a joint is {order[2]:.2f} rad beyond its range, and none would be if the joints were"
            f" in {order[0]}; {convert} {order[1]}."
        )
    if measured.excess > EXCESS_REFUSED:
        low, high = clip.robot.joint_range.T
        excess = np.maximum(low - joints, joints - high).mean(0)
        worst = int(excess.argmax())
        return (
            f"joints are {measured.excess:.2f} rad beyond their range on average"
            f" ('{clip.robot.joint_names[worst]}' the most), expected at most {EXCESS_REFUSED:g}:"
            f" another joint order, unit or robot; {convert} --input-order, --joints or --angles."
        )
    if measured.low > HIGH_REFUSED:
        return (
            f"the robot is {measured.low:.3g} m over the floor (z = 0) all clip long, expected"
            f" under {HIGH_REFUSED:g}; {convert} --units or --ground."
        )
    if measured.middle < -SUNK_REFUSED:
        return (
            f"the robot is {-measured.middle:.2f} m under the floor (z = 0) in half of the frames,"
            f" expected less than {SUNK_REFUSED:g}; {convert} --ground auto."
        )
    return None


def _contact_of_degrees(joints: np.ndarray, robot: Robot) -> float:
    """Mean excess (rad) of angles that are taken for degrees."""
    low, high = robot.joint_range.T
    angles = np.radians(joints)
    return float(np.maximum(0.0, np.maximum(low - angles, angles - high)).max(axis=1).mean())


def doubtful(clip: Clip, *, is_start: bool = True) -> list[str]:
    """What is doubtful in a clip, each with its figure; parts of one sentence."""
    measured = contact(clip)
    says = []
    if measured.low > feasibility.CLEARANCE:
        says.append(
            f"the feet and all else are {measured.low:.3f} m or more over the floor in nine of ten"
            " frames (bm-envs motion convert --ground auto puts them on it)"
        )
    elif measured.low < -SUNK:
        says.append(
            f"feet or other parts are {-measured.low:.3f} m or more under the floor in one of ten"
            " frames (bm-envs motion convert --ground auto puts them on it)"
        )
    if is_start and (start := describe_start(clip)):
        says.append(start)
    speed = feasibility.root_speed(clip)
    frame = int(speed.argmax())
    if speed[frame] > SPEED_DOUBTED:
        says.append(f"the pelvis moves at {speed[frame]:.1f} m/s at {frame / clip.fps:.2f} s")
    turn = feasibility.root_turn(clip)
    frame = int(turn.argmax())
    if turn[frame] > feasibility.ROOT_TURN:
        says.append(f"the pelvis turns at {turn[frame]:.1f} rad/s at {frame / clip.fps:.2f} s")
    ratio = feasibility.joint_speed_ratio(clip)
    frame, joint = np.unravel_index(ratio.argmax(), ratio.shape)
    if ratio[frame, joint] > JOINT_SPEED_DOUBTED:
        says.append(
            f"'{clip.robot.joint_names[joint]}' moves at {ratio[frame, joint]:.0%} of its limit at"
            f" {frame / clip.fps:.2f} s"
        )
    excess = feasibility.joint_excess(clip)
    frame, joint = np.unravel_index(excess.argmax(), excess.shape)
    if excess[frame, joint] > feasibility.JOINT_EXCESS:
        says.append(
            f"'{clip.robot.joint_names[joint]}' is {excess[frame, joint]:.2f} rad beyond its range"
            f" at {frame / clip.fps:.2f} s"
        )
    return says
