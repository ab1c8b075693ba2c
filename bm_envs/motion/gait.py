"""From velocity commands to a plan of walking: footsteps, foot paths and the ZMP (steps 1 and 2).

`bm_envs.motion.procedural` says what the steps are and gives their source. `plan_walk` makes the
plan; `bm_envs.motion.whole_body` finds a motion of the robot that carries it out. One file because
the paths over time are read together with the support spans that the footsteps make.

Units: m, rad, s; yaw is counter-clockwise seen from above; sides are in the order left, right.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.motion.smoothing import smooth
from bm_envs.robots import g1, mjcf

LEFT, RIGHT = 0, 1
SIDE_SIGN = (1.0, -1.0)  # of an ankle's y in the base frame
UPPER_JOINTS = slice(12, 29)  # waist and arms
TOE_X = 0.13  # m, front end of the sole in the ankle_roll frame (the longest capsule's)
MAX_ZMP_REACH = 0.035  # m, heel-to-toe travel of the ZMP to either side of its resting place


class Command(NamedTuple):
    """A velocity to keep for a while, in the heading frame. All zero means: stand."""

    vx: float
    """Forward, m/s."""
    vy: float
    """Left, m/s."""
    wz: float
    """Counter-clockwise, rad/s."""
    duration_s: float

    @property
    def is_stand(self) -> bool:
        return self.vx == 0 and self.vy == 0 and self.wz == 0


@dataclass(frozen=True)
class Gait:
    """How to step. Lengths of time are frames, so that every step falls on the same grid."""

    fps: float = 50.0
    single_support: int = 24
    """Frames from lift-off to touch-down (0.48 s)."""
    double_support: int = 6
    """Frames from touch-down to the next lift-off (0.12 s, 20 % of the step)."""
    weight_shift: int = 24
    """Frames in which the ZMP goes from between the feet to the stance foot, or back (0.48 s)."""
    settle: int = 50
    """Fewest frames of a stand."""
    apex: float = 0.05
    """Height of the lowest point of the sole at mid-swing, m."""
    toe_pitch: float = 0.3
    """Peak pitch of the swing foot (toes down) per metre of stride, rad/m: early in a forward
    swing, late in a backward one, which spares the ankle of the leg that is behind."""
    push_off: float = 0.6
    """How far the ZMP goes the other way in a weight shift: 1 would be under the other foot."""
    crouch: float = 0.025
    """How much lower the centre of mass is in walking than in standing, m: it keeps knees bent."""
    zmp_travel: float = 0.06
    """Heel-to-toe ZMP travel in single support, per metre of stride."""
    max_change: tuple[float, float, float] = (0.25, 0.15, 0.3)
    """Largest change of (vx, vy, wz) from one step to the next."""
    min_foot_distance: float = 0.11
    """Smallest lateral distance of the ankles that is planned, m."""
    arm_swing: float = 1.0
    """Shoulder pitch per metre by which the opposite foot leads, rad/m."""
    elbow_swing: float = 0.3
    """Elbow flexion per metre by which the opposite foot leads, rad/m."""
    waist_swing: float = 0.3
    """Counter-rotation of the torso per metre by which a foot leads, rad/m."""
    smoothing: int = 7
    """Half width, in frames, of the window that smooths heading and arm swing."""

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ConfigError(f"fps is {self.fps}, expected a positive rate in Hz.")
        for name in ("single_support", "double_support", "weight_shift", "settle"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 2 frames or more.")

    @property
    def step(self) -> int:
        """Frames from one touch-down to the next."""
        return self.single_support + self.double_support

    @property
    def step_s(self) -> float:
        return self.step / self.fps


@dataclass(frozen=True)
class Step:
    """One footstep: `foot` leaves the ground at frame `lift_off`, stands from `touch_down` on."""

    foot: int
    lift_off: int
    touch_down: int
    pose: np.ndarray
    """`[3]`: ankle x, y and yaw, world."""
    base: np.ndarray
    """`[3]`: the base pose it stands beside."""


@dataclass(frozen=True, eq=False)
class WalkPlan:
    """What the body has to do, at T frames; `solve_states` finds how."""

    gait: Gait
    steps: tuple[Step, ...]
    foot_pos: np.ndarray
    """`[T, 2, 3]`, ankle_roll origins, world."""
    foot_quat: np.ndarray
    """`[T, 2, 4]`, w x y z."""
    foot_contact: np.ndarray
    """`[T, 2]` bool."""
    heading: np.ndarray
    """`[T]`, yaw of the pelvis."""
    zmp: np.ndarray
    """`[T, 2]`, world."""
    com_height: np.ndarray
    """`[T]`."""
    upper_joint_pos: np.ndarray
    """`[T, 17]`, waist and arms."""


@dataclass(frozen=True)
class Stance:
    """Figures of the default pose with the soles on the ground, from the model."""

    root_height: float
    ankle_x: float
    """Ankle_roll origin ahead of the pelvis."""
    half_width: float
    """Half the distance of the ankles."""
    com_ahead: float
    """Centre of mass ahead of the ankles: where the ZMP belongs in the foot."""
    com_height: float
    mass: float


def plan_walk(
    commands: Sequence[Command | tuple[float, float, float, float]],
    gait: Gait = Gait(),
    first_foot: int | None = None,
) -> WalkPlan:
    """Footsteps, foot paths, ZMP and upper body for a list of velocity commands.

    The plan starts and ends at rest, feet side by side, and stands for `gait.settle` frames or more
    wherever it stands. A command changes the velocity from the next step on, by at most
    `gait.max_change` a step. A stand command stops the robot until the next moving one; after the
    last command it stops as well.

    Args:
        commands: one or more, in order; it begins at the origin, heading along x.
        gait: how to step.
        first_foot: 0 (left) or 1 (right) starts; None takes the side it goes or turns to, left if
            neither.

    Raises:
        ConfigError: no commands, a number that is not finite, a duration that is not positive, or a
            sideways speed that would bring the feet together; a first foot that is neither.
    """
    if first_foot not in (None, LEFT, RIGHT):
        raise ConfigError(f"first_foot is {first_foot}, expected 0 (left), 1 (right) or None.")
    commands = [Command(*command) for command in commands]
    if not commands:
        raise ConfigError("commands is empty, expected at least one (vx, vy, wz, duration_s).")
    for i, command in enumerate(commands):
        if not np.all(np.isfinite(command)) or command.duration_s <= 0:
            raise ConfigError(
                f"Command {i} is {tuple(command)}, expected finite (vx, vy, wz) and duration_s > 0."
            )
    stance = default_stance()
    sideways = max(abs(command.vy) for command in commands)
    gap = 2 * stance.half_width - sideways * gait.step_s
    if gap < gait.min_foot_distance:
        raise ConfigError(
            f"Sideways speed {sideways} m/s brings the feet to {gap:.3f} m, expected "
            f"{gait.min_foot_distance} m or more."
        )
    steps, spans, length = _footsteps(commands, gait, stance, first_foot)
    return _paths(steps, spans, length, gait, stance)


def default_stance() -> Stance:
    """The default pose, lowered until the soles touch the ground."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    data.qpos[:7] = (0, 0, 0, 1, 0, 0, 0)
    data.qpos[7:] = g1.DEFAULT_JOINT_POS
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    left = data.body(g1.FOOT_BODIES[LEFT]).xpos
    root_height = -g1.SOLE_HEIGHT - left[2]
    com = data.subtree_com[1]
    return Stance(
        root_height=float(root_height),
        ankle_x=float(left[0]),
        half_width=float(left[1]),
        com_ahead=float(com[0] - left[0]),
        com_height=float(com[2] + root_height),
        mass=float(model.body_subtreemass[1]),
    )


# --- footsteps ---------------------------------------------------------------------------------


class _Span(NamedTuple):
    """Frames [start, end] with one support; `foot` carries, None: both."""

    start: int
    end: int
    foot: int | None
    step: int
    """Number of steps done before this span; their footholds are what stands."""
    rests: bool = False
    """A stand, in which the ZMP stays between the feet."""


def _footsteps(
    commands: list[Command], gait: Gait, stance: Stance, first_foot: int | None
) -> tuple[list[Step], list[_Span], int]:
    """Steps, support spans that cover the clip without gaps, and the last frame's index."""
    ends = np.rint(np.cumsum([c.duration_s for c in commands]) * gait.fps).astype(int)

    def command_at(frame: int) -> Command | None:
        i = int(np.searchsorted(ends, frame, side="right"))
        return commands[i] if i < len(commands) else None

    steps: list[Step] = []
    spans: list[_Span] = []
    base = np.zeros(3)
    frame = 0
    while True:
        # Stand until a moving command begins.
        start, frame = frame, frame + gait.settle
        index = int(np.searchsorted(ends, start, side="right"))
        # A stand lasts as commanded, and a command that ends before the settling does is missed.
        while index < len(commands) and (commands[index].is_stand or ends[index] <= frame):
            frame = max(frame, int(ends[index]))
            index += 1
        spans.append(_Span(start, frame, None, len(steps), rests=True))
        if index == len(commands):
            return steps, spans, frame

        # Walk until the command is to stand and the feet are side by side at rest.
        foot = first_foot
        if foot is None:
            side = commands[index].vy + commands[index].wz
            foot = RIGHT if side < 0 else LEFT
        velocity = np.zeros(3)
        spans.append(_Span(frame, frame + gait.weight_shift, None, len(steps)))
        frame += gait.weight_shift
        while True:
            touch_down = frame + gait.single_support
            command = command_at(touch_down)
            target = np.zeros(3) if command is None else np.array(command[:3])
            limit = np.array(gait.max_change)
            velocity = velocity + np.clip(target - velocity, -limit, limit)
            base = _se2_step(base, velocity * gait.step_s)
            pose = _foothold(base, foot, stance)
            spans.append(_Span(frame, touch_down, 1 - foot, len(steps)))
            steps.append(Step(foot, frame, touch_down, pose, base))
            frame = touch_down
            stops = not velocity.any() and (command is None or command.is_stand)
            frames = gait.weight_shift if stops else gait.double_support
            spans.append(_Span(frame, frame + frames, None, len(steps)))
            frame += frames
            foot = 1 - foot
            if stops:
                break


def _foothold(base: np.ndarray, foot: int, stance: Stance) -> np.ndarray:
    """`[3]`: ankle x, y, yaw beside a base pose; the base is the point between the ankles."""
    lateral = SIDE_SIGN[foot] * stance.half_width
    return base + np.array([-np.sin(base[2]) * lateral, np.cos(base[2]) * lateral, 0.0])


def _holds(steps: Sequence[Step], count: int, stance: Stance) -> list[np.ndarray]:
    """Poses of the left and right foot after `count` steps."""
    holds = [_foothold(np.zeros(3), foot, stance) for foot in (LEFT, RIGHT)]
    for step in steps[:count]:
        holds[step.foot] = step.pose
    return holds


def _se2_step(pose: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """Pose after the planar twist (dx, dy, dyaw), constant in the moving frame, an arc."""
    dx, dy, turn = twist
    # sin(a)/a and (1 - cos a)/a, regular at 0.
    s = np.sinc(turn / np.pi)
    c = np.sin(turn / 2) * np.sinc(turn / (2 * np.pi))
    x, y = s * dx - c * dy, c * dx + s * dy
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    return pose + np.array([cos * x - sin * y, sin * x + cos * y, turn])


# --- paths over time ---------------------------------------------------------------------------


def _paths(
    steps: list[Step], spans: list[_Span], last: int, gait: Gait, stance: Stance
) -> WalkPlan:
    frames = last + 1

    # Feet: a smooth ramp along and in yaw; upward and in pitch bumps with zero speed and
    # acceleration at their ends. A pitched foot is carried higher, so the toes clear the ground.
    pose = np.tile(np.array(_holds(steps, 0, stance)), (frames, 1, 1))
    height = np.zeros((frames, 2))
    pitch = np.zeros((frames, 2))
    contact = np.ones((frames, 2), dtype=bool)
    for step in steps:
        start = pose[step.lift_off, step.foot].copy()
        move = step.pose - start
        s = np.linspace(0.0, 1.0, step.touch_down - step.lift_off + 1)
        swing = slice(step.lift_off, step.touch_down + 1)
        pose[swing, step.foot] = start + swing_profile(s)[:, None] * move
        pose[step.touch_down :, step.foot] = step.pose
        height[swing, step.foot] = gait.apex * _bump(s, 3, 3)
        yaw = start[2] + move[2] / 2
        ahead = np.cos(yaw) * move[0] + np.sin(yaw) * move[1]
        bump = _bump(s, 3, 5) if ahead > 0 else _bump(s, 5, 3)
        pitch[swing, step.foot] = gait.toe_pitch * abs(ahead) * bump
        contact[step.lift_off + 1 : step.touch_down, step.foot] = False
    height += -g1.SOLE_HEIGHT * np.cos(pitch) + TOE_X * np.sin(pitch)
    yaw = pose[..., 2]
    foot_quat = np.stack(
        [
            np.cos(yaw / 2) * np.cos(pitch / 2),
            -np.sin(yaw / 2) * np.sin(pitch / 2),
            np.cos(yaw / 2) * np.sin(pitch / 2),
            np.sin(yaw / 2) * np.cos(pitch / 2),
        ],
        axis=-1,
    )

    # Heading: the yaw of the base that the stance foot stands beside, in the middle of its stance.
    knots = []
    for span in spans:
        yaw = steps[span.step - 1].base[2] if span.step else 0.0
        if span.rests:
            knots += [(span.start, yaw), (span.end, yaw)]
        elif span.foot is not None:
            knots += [((span.start + span.end) / 2, yaw)]
    time = np.arange(frames)
    heading = np.interp(time, *np.transpose(knots))
    heading = smooth(heading, gait.step // 2)

    zmp = _zmp(steps, spans, frames, gait, stance)

    # The body sinks, or rises, in the time of two weight shifts, halfway at the end of the stand.
    moving = np.ones(frames)
    for span in spans:
        if span.rests:
            moving[span.start : span.end + 1] = 0.0
    com_height = stance.com_height - gait.crouch * smooth(moving, gait.weight_shift)

    # Arms and waist go with the lead of the right foot over the left.
    lead = np.cos(heading) * (pose[:, RIGHT, 0] - pose[:, LEFT, 0])
    lead += np.sin(heading) * (pose[:, RIGHT, 1] - pose[:, LEFT, 1])
    lead = smooth(lead, gait.smoothing)
    joints = np.tile(g1.DEFAULT_JOINT_POS, (frames, 1))
    for name, gain in (
        ("waist_yaw", -gait.waist_swing),
        ("left_shoulder_pitch", -gait.arm_swing),
        ("right_shoulder_pitch", gait.arm_swing),
        ("left_elbow", -gait.elbow_swing),
        ("right_elbow", gait.elbow_swing),
    ):
        joints[:, g1.JOINT_NAMES.index(f"{name}_joint")] += gain * lead

    return WalkPlan(
        gait=gait,
        steps=tuple(steps),
        foot_pos=np.concatenate([pose[..., :2], height[..., None]], axis=-1),
        foot_quat=foot_quat,
        foot_contact=contact,
        heading=heading,
        zmp=zmp,
        com_height=com_height,
        upper_joint_pos=joints[:, UPPER_JOINTS],
    )


def _zmp(
    steps: list[Step], spans: list[_Span], frames: int, gait: Gait, stance: Stance
) -> np.ndarray:
    """`[T, 2]`: under the stance foot, between the feet at rest, quintics in between."""

    def point(pose: np.ndarray, ahead: float) -> np.ndarray:
        return pose[:2] + ahead * np.array([np.cos(pose[2]), np.sin(pose[2])])

    zmp = np.full((frames, 2), np.nan)
    for span in spans:  # first what stays on one foot or between the two
        feet = _holds(steps, span.step, stance)
        time = np.linspace(0.0, 1.0, span.end - span.start + 1)[:, None]
        if span.rests:
            middle = (point(feet[0], stance.com_ahead) + point(feet[1], stance.com_ahead)) / 2
            zmp[span.start : span.end + 1] = middle
        elif span.foot is not None:
            foot = feet[span.foot]
            stride = steps[span.step].pose - feet[1 - span.foot]
            along = np.cos(foot[2]) * stride[0] + np.sin(foot[2]) * stride[1]
            reach = np.clip(gait.zmp_travel * along, -MAX_ZMP_REACH, MAX_ZMP_REACH)
            first = point(foot, stance.com_ahead - reach)
            second = point(foot, stance.com_ahead + reach)
            zmp[span.start : span.end + 1] = first + time * (second - first)
    for i, span in enumerate(spans):  # then the transfers, with the speeds of what they join
        if span.foot is not None or span.rests:
            continue
        a, b = span.start, span.end
        path = [(a, zmp[a], zmp[a] - zmp[a - 1]), (b, zmp[b], zmp[b + 1] - zmp[b])]
        before, after = spans[i - 1], spans[i + 1]
        if before.rests or after.rests:
            # From rest the body is first pushed off by the foot that will swing, and caught by the
            # one that swung last; without that it would have to sway much further.
            middle, foot = (zmp[a], zmp[b]) if before.rests else (zmp[b], zmp[a])
            via = middle + gait.push_off * (middle - foot)
            path.insert(1, ((a + b) // 2, via, np.zeros(2)))
        for (t0, x0, v0), (t1, x1, v1) in itertools.pairwise(path):
            n = t1 - t0
            s = np.linspace(0.0, 1.0, n + 1)[:, None]
            zmp[t0 : t1 + 1] = _quintic(s, x0, n * v0, x1, n * v1)
    return zmp


def swing_profile(s: np.ndarray) -> np.ndarray:
    """0 to 1 as s goes from 0 to 1, with zero speed and acceleration at both ends.

    The acceleration is `sin 2 pi s + sin(6 pi s) / 6` scaled, a sine with its peaks flattened: its
    peak is 5.15 where minimum jerk needs 5.77, at no higher jerk.
    """
    k = 1 / 6
    scale = 1 / (1 + k / 3)
    wave = np.sin(2 * np.pi * s) / (2 * np.pi) + k * np.sin(6 * np.pi * s) / (18 * np.pi)
    return s - scale * wave


def _bump(s: np.ndarray, rise: int, fall: int) -> np.ndarray:
    """`s^rise (1 - s)^fall` scaled to a peak of 1, at `s = rise / (rise + fall)`."""
    top = rise / (rise + fall)
    return s**rise * (1 - s) ** fall / (top**rise * (1 - top) ** fall)


def _quintic(
    s: np.ndarray, x0: np.ndarray, v0: np.ndarray, x1: np.ndarray, v1: np.ndarray
) -> np.ndarray:
    """Quintic on s in [0, 1] with these end values and speeds, and no acceleration at the ends."""
    d = x1 - x0
    c3 = 10 * d - 6 * v0 - 4 * v1
    c4 = -15 * d + 8 * v0 + 7 * v1
    c5 = 6 * d - 3 * v0 - 3 * v1
    return x0 + s * (v0 + s**2 * (c3 + s * (c4 + s * c5)))
