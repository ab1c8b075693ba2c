"""A person's motion carried over to the G1.

1. *Normalisation.* The skeleton's parts are found by name and turned to z up
   (`bm_envs/motion/skeletons.py`), then scaled by the length of the legs. The robot starts over the
   origin and looks along x.
2. *Targets* (`targets`). Pelvis and torso keep the person's orientation; hips, and with them the
   pelvis, go where the scaled person's are; ankles keep their places relative to the hips of their
   side, so that the robot's wider hips make a wider stance. Each arm keeps the directions of upper
   arm and forearm, whatever their lengths.
3. *Feet* (`bm_envs/motion/footing.py`). While a foot of the person stands, the robot's stands still
   on the floor: on its sole, its toe or its heel.
4. *Inverse kinematics* (`solve`). The library mink, frame by frame, each from the one before: a
   weighted least-squares step under the joints' limits, as a quadratic program. Then the motion is
   smoothed and solved once more near it, since smoothing moves the feet.

Why mink: `benchmarks/retarget_solvers.py` compares it with a damped Newton step like that of
`bm_envs/motion/whole_body.py` on the same targets. That one is twice as fast, but ends with up to
3.3 times the cost (`benchmarks/results/retarget_solvers.json`).

Units: m, rad, s. One file because targets and solver are two halves of one computation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion import footing
from bm_envs.motion.bvh import PersonMotion
from bm_envs.motion.clip import Clip, clip_from_states
from bm_envs.motion.skeletons import SIDES, Body, Mapping, Up, body_motion
from bm_envs.motion.smoothing import cover, smooth
from bm_envs.robots import g1, kinematics, mjcf

FPS = 50.0
"""Frames per second of the environments."""
REACH = 0.985
"""Longest distance from hip to ankle of a standing foot, as a share of a stretched leg: near 1 the
knee turns without bound for a little height."""
SMOOTHING = 2
"""Half width, in frames at 50 Hz, of the window over joints and pelvis: 5 frames, which leaves a
wave of 5 Hz 0.87 of its height and takes jitter of single frames."""
MAX_SPEED = 0.7
"""Largest joint speed, as a share of the motor's limit, that smoothing leaves."""
FIRST_ITERATIONS, ITERATIONS = 200, 6
"""Most steps of the first frame, from the default pose, and of the others, each from the last."""
STEP = 1e-4
"""m or rad: a smaller step is the last one of a frame."""


@dataclass(frozen=True)
class Robot:
    """The G1's lengths, from its tables."""

    hip_width: float
    """Distance between the hip_roll links, m."""
    hip_height: float
    """Height of the hip_roll links over the pelvis origin, m; negative."""
    leg_length: float
    """Length of the stretched leg from hip_roll over knee to ankle, m."""
    upper_arm: float
    forearm: float


def robot_lengths() -> Robot:
    """Distances of link origins in the zero pose."""
    zero = np.zeros((1, g1.NUM_JOINTS))
    pos = kinematics.link_poses(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), zero).pos[0]
    at = {name: pos[g1.BODY_NAMES.index(name)] for name in g1.BODY_NAMES}

    def distance(a: str, b: str) -> float:
        return float(np.linalg.norm(at[f"left_{a}_link"] - at[f"left_{b}_link"]))

    return Robot(
        hip_width=float(at["left_hip_roll_link"][1] - at["right_hip_roll_link"][1]),
        hip_height=float(at["left_hip_roll_link"][2]),
        leg_length=distance("hip_roll", "knee") + distance("knee", "ankle_roll"),
        upper_arm=distance("shoulder_roll", "elbow"),
        forearm=distance("elbow", "wrist_yaw"),
    )


@dataclass(frozen=True, eq=False)
class Targets:
    """Where the robot's links should be at T frames, world axes, m."""

    fps: float
    pelvis_pos: np.ndarray
    """`[T, 3]`, position of the pelvis origin."""
    pelvis_quat: np.ndarray
    """`[T, 4]`, orientation of the pelvis, w x y z."""
    torso_quat: np.ndarray
    """`[T, 4]`, orientation of the torso, w x y z."""
    foot_pos: np.ndarray
    """`[T, 2, 3]`, positions of the ankle_roll origins."""
    foot_quat: np.ndarray
    """`[T, 2, 4]`, orientations of the ankle_roll links, w x y z."""
    foot_contact: np.ndarray
    """`[T, 2]` bool, whether the foot stands."""
    upper_arm: np.ndarray
    """`[T, 2, 3]`, unit vectors from shoulder to elbow."""
    forearm: np.ndarray
    """`[T, 2, 3]`, unit vectors from elbow to wrist."""
    hand: np.ndarray
    """`[T, 2, 3]`, unit vectors from wrist to fingers."""
    leg: np.ndarray
    """`[T, 2, 3]`, the person's vectors from hip to ankle, for comparison only."""

    @property
    def arm(self) -> np.ndarray:
        """`[T, 2, 3]`: from shoulder to wrist, the person's arm with the robot's lengths."""
        robot = robot_lengths()
        way = robot.upper_arm * self.upper_arm + robot.forearm * self.forearm
        return way / np.linalg.norm(way, axis=-1, keepdims=True)


def targets(body: Body) -> Targets:
    """Targets of the robot's links by which one recognises the person."""
    robot = robot_lengths()
    scale = robot.leg_length / body.leg_length
    pos = {part: scale * value for part, value in body.pos.items()}
    # The robot's standing ankle is higher than the person's by this. A robot that lies is as high
    # as the scaled person.
    ankle_height = -g1.SOLE_HEIGHT - scale * body.ankle_height if body.feet_stand else 0.0

    # In the first frame the robot is over the origin and looks along x.
    hips = (pos["left_hip"] + pos["right_hip"]) / 2
    heading = rot.quat_conj(rot.yaw_quat(body.pelvis_quat[0]))
    start = np.array([hips[0, 0], hips[0, 1], -ankle_height])
    pos = {part: rot.quat_rotate(heading, value - start) for part, value in pos.items()}
    pelvis_quat = rot.quat_mul(heading, body.pelvis_quat)
    torso_quat = rot.quat_mul(heading, body.torso_quat)

    hips = (pos["left_hip"] + pos["right_hip"]) / 2
    left = _sideways(pelvis_quat)
    person_width = np.linalg.norm(pos["left_hip"] - pos["right_hip"], axis=1).mean()
    widen = (robot.hip_width - person_width) / 2
    ankle = np.stack([
        pos[f"{side}_ankle"] + sign * widen * left
        for side, sign in zip(SIDES, (1, -1), strict=True)
    ], axis=1)  # fmt: skip

    def both(part: str) -> np.ndarray:
        return np.stack([pos[f"{side}_{part}"] for side in SIDES], axis=1)

    # Heights of the person's joints over their heights in standing.
    ankle_clear = both("ankle")[..., 2] + g1.SOLE_HEIGHT
    toe_clear = both("toe")[..., 2] - ankle_height - scale * body.toe_height
    shin, foot = both("knee") - both("ankle"), both("toe") - both("ankle")
    drop = None if body.feet_stand else scale * (body.ankle_height - body.toe_height)
    foot_quat = footing.foot_quats(shin, foot, ankle_clear, toe_clear, drop)
    feet = footing.plant(body.fps, ankle, foot_quat, both("toe"), ankle_clear, toe_clear)

    pelvis_pos = hips - rot.quat_rotate(pelvis_quat, np.array([0.0, 0.0, robot.hip_height]))
    pelvis_pos = _within_reach(pelvis_pos, pelvis_quat, feet, robot)

    def directions(a: str, b: str) -> np.ndarray:
        way = both(b) - both(a)
        return way / np.linalg.norm(way, axis=-1, keepdims=True)

    return Targets(
        fps=body.fps,
        pelvis_pos=pelvis_pos,
        pelvis_quat=pelvis_quat,
        torso_quat=torso_quat,
        foot_pos=feet.pos,
        foot_quat=feet.quat,
        foot_contact=feet.contact,
        upper_arm=directions("shoulder", "elbow"),
        forearm=directions("elbow", "wrist"),
        hand=rot.quat_rotate(heading, body.hand),
        leg=directions("hip", "ankle"),
    )


def _sideways(pelvis_quat: np.ndarray) -> np.ndarray:
    """`[T, 3]`: to the left of the pelvis, level while it stands.

    Who lies has no heading: where the pelvis looks straight up or down, its yaw jumps with the
    least turn. There, and by degrees on the way, its own left serves, tilted or not.
    """
    y = np.array([0.0, 1.0, 0.0])
    level = rot.quat_rotate(rot.yaw_quat(pelvis_quat), y)
    steep = np.abs(rot.quat_rotate(pelvis_quat, np.array([1.0, 0.0, 0.0]))[:, 2:])
    share = np.clip((steep - 0.8) / 0.15, 0.0, 1.0)
    return np.where(share > 0, level + share * (rot.quat_rotate(pelvis_quat, y) - level), level)


def _hips(pelvis_pos: np.ndarray, pelvis_quat: np.ndarray, robot: Robot) -> np.ndarray:
    """The robot's hip_roll origins, world, m. `[T, 2, 3]`."""
    offsets = np.array([[0.0, s * robot.hip_width / 2, robot.hip_height] for s in (1, -1)])
    return pelvis_pos[:, None] + rot.quat_rotate(pelvis_quat[:, None], offsets)


def _within_reach(
    pelvis_pos: np.ndarray, pelvis_quat: np.ndarray, feet: footing.Feet, robot: Robot
) -> np.ndarray:
    """Pelvis positions, lowered smoothly where a standing leg would be too short."""
    away = feet.pos - _hips(pelvis_pos, pelvis_quat, robot)
    reach = REACH * robot.leg_length
    below = np.sqrt(np.maximum(reach**2 - (away[..., :2] ** 2).sum(axis=-1), 0.0))
    excess = np.where(feet.contact, -away[..., 2] - below, 0.0).max(axis=1)
    result = pelvis_pos.copy()
    result[:, 2] -= cover(np.maximum(excess, 0.0), 6)
    return result


# --- inverse kinematics --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class States:
    """`qpos [T, 36]`: pelvis position and quaternion w x y z, 29 joints; all within their range."""

    qpos: np.ndarray

    def clip(self, name: str, targets: Targets, source: str, licence: str) -> Clip:
        """The states as a clip, with the contacts that the targets had."""
        return clip_from_states(
            name, targets.fps, self.qpos[:, :3], self.qpos[:, 3:7], self.qpos[:, 7:],
            source=source, licence=licence, foot_contact=targets.foot_contact,
        )  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Costs of an error of 1 m or 1 rad, which the solver squares. Ours, chosen by eye."""

    pelvis_pos: float = 2.0
    pelvis_quat: float = 1.0
    torso_quat: float = 1.0
    foot_pos: float = 10.0
    foot_quat: float = 2.0
    elbow_pos: float = 3.0
    wrist_pos: float = 3.0
    hand: float = 0.2
    posture: float = 0.02
    """Cost of a joint's distance from the default pose, or from the smoothed motion."""
    wrist_posture: float = 0.05
    """The same cost of the wrists' joints, which have little else to do."""
    inertia: float = 0.03
    """Of a joint's way from the frame before: it matters where the arm points along an axis of the
    shoulder, and a small change of direction takes a large one of the joints."""
    damping: float = 1e-3


STAY = Weights(
    pelvis_pos=10.0, pelvis_quat=10.0, torso_quat=0.0, elbow_pos=0.0, wrist_pos=0.0, hand=0.0,
    posture=1.0, wrist_posture=1.0, inertia=0.0,
)  # fmt: skip
"""Costs of the second solution: as little as possible away from the smoothed first one, but the
feet in their places."""


def solve(target: Targets, weights: Weights = Weights()) -> np.ndarray:
    """`qpos [T, 36]`: the robot on its targets, every joint within its range.

    Raises:
        MotionError: the package mink is not installed, or its solver found no step.
    """
    qpos = track(target, weights)
    smoothed = np.column_stack([
        _smoothed(qpos[:, :3], SMOOTHING),
        _smooth_quats(qpos[:, 3:7], SMOOTHING),
        _slowed(_smoothed(qpos[:, 7:], SMOOTHING), target.fps),
    ])  # fmt: skip
    near = replace(target, pelvis_pos=smoothed[:, :3], pelvis_quat=smoothed[:, 3:7])
    qpos = track(near, STAY, smoothed)
    low, high = g1.JOINT_RANGE.T
    # The solver keeps to the limits up to rounding; a stored joint is exactly within them.
    qpos[:, 7:] = np.clip(qpos[:, 7:], low, high)
    return qpos


def _smoothed(columns: np.ndarray, half_width: int) -> np.ndarray:
    return np.column_stack([smooth(column, half_width) for column in columns.T])


def _slowed(joint_pos: np.ndarray, fps: float) -> np.ndarray:
    """`joint_pos [T, 29]` smoothed further where a joint is faster than its motor allows.

    An arm that passes sideways over the horizontal has to turn its shoulder pitch by half a
    revolution; the way there and back is given the frames around it.
    """
    result = joint_pos.copy()
    for _ in range(200):
        ratio = np.abs(np.diff(result, axis=0)) * fps / g1.VELOCITY_LIMIT
        fast = (ratio > MAX_SPEED).any(axis=0)
        if not fast.any():
            break
        for joint in np.flatnonzero(fast):
            near = np.zeros(len(result))
            near[1:] = ratio[:, joint] > MAX_SPEED
            share = np.minimum(1.0, 6.0 * smooth(near, 6))
            column = result[:, joint]
            result[:, joint] = column + share * (smooth(column, 3) - column)
    return result


def _smooth_quats(quat: np.ndarray, half_width: int) -> np.ndarray:
    flips = np.where((quat[1:] * quat[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    even = quat * np.concatenate([[1.0], np.cumprod(flips)])[:, None]
    return rot.quat_normalize(_smoothed(even, half_width))


def _mink() -> Any:
    try:
        import mink
    except ImportError as error:
        raise MotionError(
            "Retargeting needs the package mink: pip install 'bm-envs[retarget]'."
        ) from error
    return mink


def track(target: Targets, weights: Weights, near: np.ndarray | None = None) -> np.ndarray:
    """`qpos [T, 36]` of one pass over all frames, each from the one before.

    Args:
        target: where the links should be.
        weights: at what cost they are not.
        near: `[T, 36]`, a solution to stay near; then nothing is asked of the arms.
    """
    mink = _mink()
    model = mjcf.compile_model(mjcf.ModelConfig())
    robot = robot_lengths()
    configuration = mink.Configuration(model)
    qpos = np.zeros(model.nq)
    qpos[:3], qpos[3:7] = target.pelvis_pos[0], target.pelvis_quat[0]
    qpos[7:] = g1.DEFAULT_JOINT_POS
    configuration.update(qpos if near is None else near[0])

    def task(body: str, position: float, orientation: float) -> Any:
        return mink.FrameTask(body, "body", position, orientation)

    pelvis = task("pelvis", weights.pelvis_pos, weights.pelvis_quat)
    torso = task("torso_link", 0.0, weights.torso_quat)
    feet = [task(f"{side}_ankle_roll_link", weights.foot_pos, weights.foot_quat) for side in SIDES]

    def arm_task(body: str, position: float) -> Any:
        # Hands are relative to the torso, so that an arm out of reach does not pull the body along.
        return mink.RelativeFrameTask(body, "body", "torso_link", "body", position, 0.0)

    elbows = [arm_task(f"{side}_elbow_link", weights.elbow_pos) for side in SIDES]
    wrists = [arm_task(f"{side}_wrist_yaw_link", weights.wrist_pos) for side in SIDES]
    hands = [
        mink.AxisAlignTask(f"{side}_wrist_yaw_link", "body", (1.0, 0.0, 0.0), weights.hand)
        for side in SIDES
    ]
    shoulders = [model.body(f"{side}_shoulder_roll_link").id for side in SIDES]
    trunk = model.body("torso_link").id
    is_wrist = np.array(["wrist" in name for name in g1.JOINT_NAMES])
    posture = mink.PostureTask(
        model,
        cost=np.r_[np.zeros(6), np.where(is_wrist, weights.wrist_posture, weights.posture)],
    )
    posture.set_target(np.r_[qpos[:7], np.where(is_wrist, 0.0, g1.DEFAULT_JOINT_POS)])
    inertia = mink.PostureTask(
        model, cost=np.r_[np.zeros(6), np.full(g1.NUM_JOINTS, weights.inertia)]
    )
    tasks = [pelvis, torso, *feet, posture]
    if near is None:
        tasks += [*elbows, *wrists, *hands]
    limits = [mink.ConfigurationLimit(model)]

    def pose(pos: np.ndarray, quat: np.ndarray = np.array([1.0, 0, 0, 0])) -> Any:
        return mink.SE3(np.concatenate([quat, pos]))

    result = np.empty((len(target.pelvis_pos), model.nq))
    for t in range(len(result)):
        pelvis.set_target(pose(target.pelvis_pos[t], target.pelvis_quat[t]))
        torso.set_target(pose(np.zeros(3), target.torso_quat[t]))
        for side in range(2):
            feet[side].set_target(pose(target.foot_pos[t, side], target.foot_quat[t, side]))
            hands[side].set_target(target.hand[t, side])
        if near is not None:
            posture.set_target(near[t])
            configuration.update(near[t])
        elif t > 0:
            inertia.set_target(result[t - 1])
        followed = [*tasks, inertia] if near is None and t > 0 else tasks
        for _ in range(FIRST_ITERATIONS if t == 0 else ITERATIONS):
            data = configuration.data
            for side in range(2):
                # Directions are in the world, from the shoulder as the torso is now.
                elbow = data.xpos[shoulders[side]] - data.xpos[trunk]
                elbow = elbow + robot.upper_arm * target.upper_arm[t, side]
                wrist = elbow + robot.forearm * target.forearm[t, side]
                to_torso = data.xmat[trunk].reshape(3, 3).T
                elbows[side].set_target(pose(to_torso @ elbow))
                wrists[side].set_target(pose(to_torso @ wrist))
            try:
                step = mink.solve_ik(
                    configuration,
                    followed,
                    1.0,
                    solver="daqp",
                    damping=weights.damping,
                    limits=limits,
                )
            except mink.MinkError as error:
                raise MotionError(
                    f"Frame {t} ({t / target.fps:.2f} s) has no inverse kinematics ({error})."
                ) from error
            configuration.integrate_inplace(step, 1.0)
            if np.abs(step).max() < STEP:
                break
        result[t] = configuration.q
    return result


def retarget(
    person: PersonMotion,
    mapping: Mapping,
    *,
    up: Up = "auto",
    fps: float = FPS,
    name: str,
    source: str,
    licence: str,
) -> tuple[Clip, Targets]:
    """A person's motion on the G1, and what it was solved for.

    Raises:
        MotionError: see `body_motion` and `solve`.
    """
    body = body_motion(person.at_rate(fps), mapping, up)
    return retarget_body(body, name=name, source=source, licence=licence)


def retarget_body(body: Body, *, name: str, source: str, licence: str) -> tuple[Clip, Targets]:
    """Carry a body over to the robot that `skeletons.body_motion` has made.

    Raises:
        MotionError: see `solve`.
    """
    target = targets(body)
    return States(solve(target)).clip(name, target, source, licence), target
