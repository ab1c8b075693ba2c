"""Find what no robot can follow in a reference motion.

Retargeting moves a person's motion onto the robot frame by frame and asks neither for its joints
nor for the floor. A tracker pays for such frames, or fails at them, whatever it learns; so a clip
is looked at before anybody trains on it. Bounds are ours: they let through what costs a tracker
centimetres or a few hundredths of a radian, and catch what it cannot make up for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.motion.clip import Clip, foot_height
from bm_envs.robots import kinematics

JOINT_EXCESS = 0.05  # rad beyond a joint's range
FOOT_DEPTH = 0.03  # m of a sole under the floor; standing clips are off by up to 8 mm (LAFAN1)
LINK_DEPTH = 0.0  # m of a link's origin under the floor; the link around it is thicker than that
ROOT_SPEED = 10.0  # m/s from one frame to the next; a person sprints at 10, the robot is smaller
ROOT_TURN = 20.0  # rad/s from one frame to the next; a somersault has 10
FLIGHT_HEIGHT = 0.12  # m, with every shape higher than that the robot is off the floor
FLIGHT_S = 0.9  # s; a jump of 1 m, more than any person's, takes that long

CLEARANCE = 0.05  # m over the floor in nine of ten frames; public clips have up to 0.015
SUNK = 0.05  # m under the floor in one of ten frames; LAFAN1's lying clips have up to 0.03
START_SPEED = 2.0  # m/s of the pelvis in the first two steps
START_JOINT_SPEED = 12.0  # rad/s of a joint in the first two steps; public clips reach 7
START_RATIO = 3.0  # times the median of the half second after them: a cut may start in a run
START_STEPS, START_S = 2, 0.5

FLAGS = ("joint limits", "joint speed", "feet under the floor", "link under the floor", "jump",
         "floating", "over the floor", "jump at the start")  # fmt: skip


@dataclass(frozen=True)
class Feasibility:
    """How far a clip goes beyond what the robot can do; what exceeds a bound is flagged."""

    joint_excess_rad: float
    """Largest angle beyond a joint's range; 0 within it."""
    joint_excess_joint: str
    """The joint of that angle, or the one that is nearest to its limit."""
    joint_excess_share: float
    """Share of frames with a joint beyond its range."""
    joint_speed_ratio: float
    """Largest joint speed between two frames over the joint's limit."""
    joint_speed_joint: str
    """The joint of that speed."""
    joint_speed_share: float
    """Share of steps in which a joint is faster than its limit."""
    foot_depth_m: float
    """Deepest a sole gets under the floor; negative: it never does."""
    foot_depth_share: float
    """Share of frames with a sole deeper than 1 cm."""
    link_depth_m: float
    """Deepest that a link's origin gets under the floor; negative: it never does."""
    link_depth_link: str
    """The link of that origin."""
    shape_depth_m: float
    """Deepest that a shape which meets the floor in the engine gets under it; likewise."""
    shape_depth_link: str
    """The link of that shape."""
    root_speed_m_s: float
    """Largest speed of the pelvis between two frames."""
    root_turn_rad_s: float
    """Largest turning rate of the pelvis between two frames."""
    floating_s: float
    """Longest time with all shapes off the floor."""
    flags: dict[str, float]
    """Which bounds are exceeded, each with the second of the worst frame."""

    def row(self) -> dict[str, Any]:
        """The figures as a row of a result file."""
        figures = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return figures | {"flags": list(self.flags), "worst_s": dict(self.flags)}


def examine(clip: Clip) -> Feasibility:
    """Compare a clip with the robot's joints and with the floor (z = 0)."""
    dt = 1.0 / clip.fps
    # A joint stored on its limit is within it: float32 rounds by less than 1e-6 rad.
    excess = joint_excess(clip)
    frame, joint = _largest(excess)
    ratio = joint_speed_ratio(clip)
    step, fast = _largest(ratio)

    soles = foot_height(clip)
    links = clip.body_pos_w[:, :, 2].astype(np.float64)
    lowest, link = _largest(-links)
    robot = clip.robot
    shapes = kinematics.shape_heights(clip.body_pos_w, clip.body_quat_w, robot)
    deepest = kinematics.shapes_of(robot).body[_largest(-shapes)[1]]
    speed = root_speed(clip)
    turn = root_turn(clip)
    lowest_point = shapes.min(axis=1)
    floating, landed = _longest(lowest_point > FLIGHT_HEIGHT, dt)
    clearance = np.percentile(lowest_point, 10)

    result = Feasibility(
        joint_excess_rad=max(0.0, float(excess.max())),
        joint_excess_joint=robot.joint_names[joint],
        joint_excess_share=float((excess > 1e-6).any(axis=1).mean()),
        joint_speed_ratio=float(ratio.max()),
        joint_speed_joint=robot.joint_names[fast],
        joint_speed_share=float((ratio > 1).any(axis=1).mean()),
        foot_depth_m=float(-soles.min()),
        foot_depth_share=float((soles.min(axis=1) < -0.01).mean()),
        link_depth_m=float(-links.min()),
        link_depth_link=robot.body_names[link],
        shape_depth_m=float(-shapes.min()),
        shape_depth_link=robot.body_names[deepest],
        root_speed_m_s=float(speed.max()),
        root_turn_rad_s=float(turn.max()),
        floating_s=floating,
        flags={},
    )
    worst = {
        "joint limits": (result.joint_excess_rad > JOINT_EXCESS, frame),
        "joint speed": (result.joint_speed_ratio > 1, step),
        "feet under the floor": (result.foot_depth_m > FOOT_DEPTH, _largest(-soles)[0]),
        "link under the floor": (result.link_depth_m > LINK_DEPTH, lowest),
        "jump": (
            result.root_speed_m_s > ROOT_SPEED or result.root_turn_rad_s > ROOT_TURN,
            int(np.maximum(speed / ROOT_SPEED, turn / ROOT_TURN).argmax()),
        ),
        "floating": (floating > FLIGHT_S, landed),
        "over the floor": (clearance > CLEARANCE, 0),
        "jump at the start": (bool(describe_start(clip)), 0),
    }
    assert tuple(worst) == FLAGS
    result.flags.update({name: round(at * dt, 3) for name, (bad, at) in worst.items() if bad})
    return result


def joint_excess(clip: Clip) -> np.ndarray:
    """`[T, 29]` rad: angles beyond the joints' range; negative within it."""
    joints = clip.joint_pos.astype(np.float64)
    low, high = clip.robot.joint_range.T
    return np.maximum(low - joints, joints - high)


def joint_speed_ratio(clip: Clip) -> np.ndarray:
    """`[T - 1, 29]`: speed of each joint between two frames over its limit."""
    joints = clip.joint_pos.astype(np.float64)
    return np.abs(np.diff(joints, axis=0)) * clip.fps / clip.robot.velocity_limit


def root_speed(clip: Clip) -> np.ndarray:
    """`[T - 1]` m/s: speed of the pelvis between two frames."""
    root = clip.body_pos_w[:, 0].astype(np.float64)
    return np.linalg.norm(np.diff(root, axis=0), axis=1) * clip.fps


def root_turn(clip: Clip) -> np.ndarray:
    """`[T - 1]` rad/s: turning rate of the pelvis between two frames."""
    quat = clip.body_quat_w[:, 0].astype(np.float64)
    change = rot.quat_to_rotvec(rot.quat_mul(quat[1:], rot.quat_conj(quat[:-1])))
    return np.linalg.norm(change, axis=1) * clip.fps


def describe_start(clip: Clip) -> str:
    """A phrase if the first rows jump, which would throw a robot that starts there; or nothing."""
    head = min(clip.num_frames, 1 + START_STEPS + max(1, round(START_S * clip.fps)))
    root = clip.body_pos_w[:head, 0].astype(np.float64)
    joints = clip.joint_pos[:head].astype(np.float64)
    if head < START_STEPS + 3:
        return ""
    speed = np.linalg.norm(np.diff(root, axis=0), axis=1) * clip.fps
    turn = np.abs(np.diff(joints, axis=0)).max(axis=1) * clip.fps
    says = [
        f"{what} at {value[:START_STEPS].max():.1f} {unit}"
        for what, unit, value, bound in (
            ("the pelvis", "m/s", speed, START_SPEED), ("a joint", "rad/s", turn, START_JOINT_SPEED)
        )
        if value[:START_STEPS].max() > bound
        and value[:START_STEPS].max() > START_RATIO * np.median(value[START_STEPS:])
    ]  # fmt: skip
    return f"its first rows jump: {' and '.join(says)}" if says else ""


def _largest(values: np.ndarray) -> tuple[int, int]:
    """Frame and column of the largest of `[T, K]` values."""
    frame, column = np.unravel_index(values.argmax(), values.shape)
    return int(frame), int(column)


def _longest(true: np.ndarray, dt: float) -> tuple[float, int]:
    """Seconds of the longest run of true frames, and the frame in which it ends."""
    longest = length = end = 0
    for frame, value in enumerate(true):
        length = length + 1 if value else 0
        if length > longest:
            longest, end = length, frame
    return longest * dt, end
