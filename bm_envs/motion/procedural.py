"""Motions made from equations: footsteps -> ZMP -> centre of mass -> inverse kinematics.

`plan_walk` turns velocity commands into footsteps and foot paths, `solve_states` finds a whole-body
motion of our G1 that carries them out, and `make_clip` makes the built-in family (`FAMILY`) of it.
No recorded motion is involved: the clips are the project's own.

    python -m bm_envs.motion.procedural [NAMES...] [--out DIR] [--check]

writes them anew; `--check` compares what it would write with what is there. `walk_mix_0`,
`walk_mix_1`, ... and `walk_on_0`, `walk_on_1`, ..., which never stand, are walks under commands
drawn with that seed, made when asked for.

1. *Footsteps.* Step k puts a foot beside a base pose b_k = (x, y, yaw); b_{k+1} = b_k exp(v_k T)
   with the step period T and a velocity v_k in the heading frame, which follows the command by a
   bounded change per step. No velocity puts the feet side by side, so starts and stops follow.
2. *ZMP* (zero-moment point). Under the stance foot with a small heel-to-toe travel, handed over in
   double support by quintics. Feet go from rest to rest on smooth paths.
3. *Centre of mass.* The ZMP p of a body with centre of mass c at height h and angular momentum L
   about it is `p_x = c_x - r c_x'' - L_y'/f` and `p_y = c_y - r c_y'' + L_x'/f`, where
   r = h/(g + h'') and f = m (g + h''). With second differences this is a tridiagonal boundary value
   problem for c, on the ZMP at both ends: it looks ahead as far as it needs and has no unstable
   direction. L' comes from the whole-body motion of the round before; after five rounds the
   whole-body ZMP is within 1 mm of the planned one.
4. *Inverse kinematics.* The upper body and the pelvis orientation are given; damped Newton steps
   find pelvis position and leg joints (15) from centre of mass and foot poses (15), by frame.

Source of the ZMP equation and of the correction by a whole-body pass: Kajita et al., *Biped walking
pattern generation by using preview control of zero-moment point*, ICRA 2003. The boundary value
form is ours (offline there is nothing to preview), and so are the gait's figures.

Units: m, rad, s; yaw is counter-clockwise seen from above; sides are in the order left, right.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from tyro.conf import Positional

from bm_envs import cli
from bm_envs.errors import ConfigError, MotionError, unknown_name
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, clip_from_states, load_npz, save_npz
from bm_envs.robots import g1, mjcf

MOTION_DIR = Path(__file__).resolve().parent.parent / "assets" / "motions"
SOURCE = "bm_envs.motion.procedural"
LICENCE = "Apache-2.0"

GRAVITY = 9.81
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
    """Elbow flexion, likewise."""
    waist_swing: float = 0.3
    """Counter-rotation of the torso, likewise."""
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
    model = _model()
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


def smooth(x: np.ndarray, half_width: int) -> np.ndarray:
    """Weighted mean over a Hann window of `2 * half_width + 1` frames.

    Straight lines stay as they are; the ends are continued by their end values.
    """
    window = np.hanning(2 * half_width + 3)[1:-1]
    padded = np.concatenate([np.full(half_width, x[0]), x, np.full(half_width, x[-1])])
    return np.convolve(padded, window / window.sum(), mode="valid")


# --- whole body --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class States:
    """A whole-body motion: `root_pos [T, 3]`, `root_quat [T, 4]` w x y z, `joint_pos [T, 29]`."""

    root_pos: np.ndarray
    root_quat: np.ndarray
    joint_pos: np.ndarray


def solve_states(plan: WalkPlan, rounds: int = 5) -> States:
    """A motion that carries out the plan, with its whole-body ZMP on the planned one.

    Args:
        plan: from `plan_walk`.
        rounds: passes of centre of mass and inverse kinematics; the first ignores angular momentum.
    """
    stance = default_stance()
    dt = 1.0 / plan.gait.fps
    height = plan.com_height
    lift = GRAVITY + np.gradient(np.gradient(height, dt), dt)
    shift = np.zeros_like(plan.zmp)
    states = None
    for _ in range(rounds):
        com_xy = solve_com(plan.zmp + shift, height / lift, dt)
        states = inverse_kinematics(plan, np.column_stack([com_xy, height]), stance, guess=states)
        rate = momentum_rate(states, dt)
        shift = np.column_stack([rate[:, 1], -rate[:, 0]]) / (stance.mass * lift)[:, None]
    assert states is not None
    return states


def solve_com(zmp: np.ndarray, ratio: np.ndarray, dt: float) -> np.ndarray:
    """Centre of mass `[T, 2]` with `c - ratio * c'' = zmp` and both ends on the ZMP.

    Args:
        zmp: `[T, 2]`, m.
        ratio: `[T]`, height over gravity plus vertical acceleration, s^2.
        dt: time between frames, s.
    """
    # Thomas algorithm: -k c[i-1] + (1 + 2k) c[i] - k c[i+1] = p[i], diagonally dominant.
    k = ratio / dt**2
    com = np.array(zmp, dtype=float)
    upper = np.zeros(len(zmp))
    for i in range(1, len(zmp) - 1):
        pivot = 1 + 2 * k[i] - k[i] * upper[i - 1]
        upper[i] = k[i] / pivot
        com[i] = (zmp[i] + k[i] * com[i - 1]) / pivot
    for i in range(len(zmp) - 2, 0, -1):
        com[i] += upper[i] * com[i + 1]
    return com


def inverse_kinematics(
    plan: WalkPlan,
    com: np.ndarray,
    stance: Stance,
    guess: States | None = None,
    tolerance: float = 1e-9,
) -> States:
    """Pelvis position and leg joints for a centre of mass `[T, 3]` and the plan's feet.

    Each frame starts from the one before (or from `guess`) and stops when every residual (m, rad)
    is under `tolerance`.

    Raises:
        MotionError: a frame cannot be reached, or a joint leaves its soft range.
    """
    model = _model()
    data = mujoco.MjData(model)
    feet = [model.body(name).id for name in g1.FOOT_BODIES]
    dofs = np.r_[0:3, 6:18]  # the unknowns in qvel: pelvis position, leg joints
    coordinates = np.r_[0:3, 7:19]  # and in qpos, where the pelvis quaternion takes one more
    frames = len(com)
    qpos = np.empty((frames, model.nq))
    jacobian = np.zeros((15, model.nv))
    error = np.empty(15)
    damping = 1e-10 * np.eye(15)
    relative, conjugate = np.empty(4), np.empty(4)

    data.qpos[:3] = (com[0, 0] - stance.com_ahead - stance.ankle_x, com[0, 1], stance.root_height)
    data.qpos[7:] = g1.DEFAULT_JOINT_POS
    for t in range(frames):
        if guess is not None:
            data.qpos[:3], data.qpos[7:] = guess.root_pos[t], guess.joint_pos[t]
        data.qpos[3:7] = _yaw_quat(plan.heading[t])
        data.qpos[19:] = plan.upper_joint_pos[t]
        for _ in range(50):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error[12:] = com[t] - data.subtree_com[1]
            for side, body in enumerate(feet):
                row = 6 * side
                error[row : row + 3] = plan.foot_pos[t, side] - data.xpos[body]
                mujoco.mju_negQuat(conjugate, data.xquat[body])
                mujoco.mju_mulQuat(relative, plan.foot_quat[t, side], conjugate)
                mujoco.mju_quat2Vel(error[row + 3 : row + 6], relative, 1.0)
            if np.abs(error).max() < tolerance:
                break
            for side, body in enumerate(feet):
                row = 6 * side
                mujoco.mj_jacBody(
                    model, data, jacobian[row : row + 3], jacobian[row + 3 : row + 6], body
                )
            mujoco.mj_jacSubtreeCom(model, data, jacobian[12:], 1)
            j = jacobian[:, dofs]
            move = j.T @ np.linalg.solve(j @ j.T + damping, error)
            # A stretched leg asks for huge joint steps; half a radian stays where Newton is valid.
            move *= min(1.0, 0.5 / max(np.abs(move).max(), 1e-12))
            data.qpos[coordinates] += move
        else:
            raise MotionError(
                f"Frame {t} ({t / plan.gait.fps:.2f} s) of the walk cannot be reached: residual "
                f"{np.abs(error).max():.1e} after 50 steps; expected shorter or slower steps."
            )
        qpos[t] = data.qpos
    joint_pos = qpos[:, 7:]
    soft = g1.soft_joint_range()
    excess = np.maximum(soft[:, 0] - joint_pos, joint_pos - soft[:, 1])
    if excess.max() > 0:
        t, j = np.unravel_index(int(excess.argmax()), excess.shape)
        raise MotionError(
            f"{g1.JOINT_NAMES[j]} is {joint_pos[t, j]:.3f} rad at frame {t}, expected within the "
            f"soft range [{soft[j, 0]:.3f}, {soft[j, 1]:.3f}]; take shorter or slower steps."
        )
    return States(qpos[:, :3], qpos[:, 3:7], joint_pos)


def momentum_rate(states: States, dt: float) -> np.ndarray:
    """`[T, 3]`, N m: rate of angular momentum about the centre of mass, world axes; 0 at both ends.

    The momentum is taken half way between frames, from the displacement between the two.
    """
    model = _model()
    data = mujoco.MjData(model)
    qpos = np.column_stack([states.root_pos, states.root_quat, states.joint_pos])
    momentum = np.empty((len(qpos) - 1, 3))
    for t in range(len(momentum)):
        mujoco.mj_differentiatePos(model, data.qvel, dt, qpos[t], qpos[t + 1])
        data.qpos[:] = qpos[t]
        mujoco.mj_integratePos(model, data.qpos, data.qvel, dt / 2)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_subtreeVel(model, data)
        momentum[t] = data.subtree_angmom[1]
    rate = np.zeros((len(qpos), 3))
    rate[1:-1] = np.diff(momentum, axis=0) / dt
    return rate


def _yaw_quat(yaw: float) -> np.ndarray:
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def _model() -> mujoco.MjModel:
    return mjcf.compile_model()


# --- the built-in family -----------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How one clip of the family is made."""

    commands: tuple[Command, ...]
    keep_last_s: float | None = None
    """Keep only this much of the end, moved back to the origin; None: all."""
    gait: Gait = Gait()


def _there(vx: float = 0.0, vy: float = 0.0, wz: float = 0.0) -> Recipe:
    """Stand, move, stop, stand; 11 s."""
    return Recipe((Command(0, 0, 0, 1.0), Command(vx, vy, wz, 7.5), Command(0, 0, 0, 2.5)))


FAMILY: dict[str, Recipe] = {
    "stand": Recipe((Command(0, 0, 0, 10.0),)),
    "walk": Recipe((Command(0, 0, 0, 1.5), Command(0.5, 0, 0, 20.0), Command(0, 0, 0, 3.0))),
    "walk_back": _there(vx=-0.35),
    "turn_left": _there(wz=0.5),
    "turn_right": _there(wz=-0.5),
    "side_left": _there(vy=0.15),
    "side_right": _there(vy=-0.15),
    # Cut from a longer walk, so that it begins in the middle of a periodic stride.
    "walk_to_stand": Recipe((Command(0.5, 0, 0, 10.5), Command(0, 0, 0, 3.0)), keep_last_s=8.0),
}

DRAWN_NAME = re.compile(r"walk_(mix|on)_(\d+)")  # of clips that are made when asked for
NAMES = [*FAMILY, "walk_mix_0", "walk_on_0"]  # for advice
MIX_S = 60.0  # s of commands, and then to the end of the last one
# Ways of walking and how often one is drawn. Every one may follow every other, so that all
# transitions occur; the fastest ones are near what the default gait's legs can reach.
_MIX = {
    "stand": 0.10,
    "forward": 0.25,
    "backward": 0.15,
    "turn": 0.15,
    "arc": 0.20,
    "backward arc": 0.10,
    "sideways": 0.05,
}

# The same without a stand between: share, forward speed in m/s, turning either way in rad/s. A
# model of roll-outs that sees a twelfth of a second of the past cannot know how long the robot has
# been standing, so that it goes on for ever; steps on the spot end by themselves. Commands are
# short and velocities change fast, since a guided model can do in a moment only what it has seen
# done from there: a third of the commands go backward because every one of them is left again.
_ON = {
    "forward": (0.25, (0.3, 0.6), (0.0, 0.0)),
    "arc": (0.30, (0.25, 0.5), (0.2, 0.6)),
    "backward": (0.22, (-0.4, -0.2), (0.0, 0.0)),
    "backward arc": (0.13, (-0.35, -0.15), (0.2, 0.5)),
    "on the spot": (0.10, (-0.1, 0.1), (0.0, 0.4)),
}
_ON_GAIT = Gait(max_change=(0.4, 0.15, 0.4))

# Values are kept as multiples of these. Far under what matters (4 um in a link position is
# 0.01 m/s^2 in its second difference), it halves the files, and a machine that rounds the last
# digits of float64 differently writes the same file but for a few values one unit apart.
GRID: dict[str, float] = {
    "joint_pos": 2.0**-18,
    "joint_vel": 2.0**-12,
    "body_pos_w": 2.0**-18,
    "body_quat_w": 2.0**-20,
    "body_lin_vel_w": 2.0**-12,
    "body_ang_vel_w": 2.0**-12,
}


def mix_commands(seed: int) -> tuple[Command, ...]:
    """Random commands of 1.5 to 4 s each for `MIX_S`, with a stand of a second at both ends."""
    rng = np.random.default_rng(seed)

    def draw(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    stand = Command(0.0, 0.0, 0.0, 1.0)
    commands, total_s = [stand], stand.duration_s
    while total_s < MIX_S:
        way = rng.choice(list(_MIX), p=list(_MIX.values()))
        side = float(rng.choice((-1, 1)))
        duration_s = draw(1.5, 4.0)
        vx, vy, wz = {
            "stand": (0.0, 0.0, 0.0),
            "forward": (draw(0.2, 0.6), 0.0, 0.0),
            "backward": (-draw(0.15, 0.4), 0.0, 0.0),
            "turn": (0.0, 0.0, side * draw(0.2, 0.6)),
            "arc": (draw(0.2, 0.6), 0.0, side * draw(0.2, 0.6)),
            "backward arc": (-draw(0.15, 0.3), 0.0, side * draw(0.2, 0.4)),
            "sideways": (0.0, side * draw(0.05, 0.15), 0.0),
        }[way]
        commands.append(Command(vx, vy, wz, duration_s))
        total_s += duration_s
    return (*commands, stand)


def on_commands(seed: int) -> tuple[Command, ...]:
    """Random commands of 1.5 to 4 s each for `MIX_S`; a stand of a second at both ends only."""
    rng = np.random.default_rng([1, seed])
    stand = Command(0.0, 0.0, 0.0, 1.0)
    commands, total_s = [stand], stand.duration_s
    shares = [share for share, _, _ in _ON.values()]
    while total_s < MIX_S:
        _, speed, turn = _ON[rng.choice(list(_ON), p=shares)]
        side, duration_s = rng.choice((-1.0, 1.0)), float(rng.uniform(1.5, 4.0))
        wz = side * rng.uniform(*turn)
        commands.append(Command(float(rng.uniform(*speed)), 0.0, float(wz), duration_s))
        total_s += duration_s
    return (*commands, stand)


def is_drawn(name: str) -> bool:
    """Whether the clip's commands are drawn by the seed in its name, with a cut or not."""
    return DRAWN_NAME.fullmatch(name.partition("[")[0]) is not None


def is_made(name: str) -> bool:
    """Whether `make_clip` knows this name."""
    return name in FAMILY or DRAWN_NAME.fullmatch(name) is not None


def make_clip(name: str) -> Clip:
    """One clip of the family, `walk_mix_SEED` or `walk_on_SEED`, made anew (0.5 s per 10 s).

    Raises:
        MotionError: no such clip in `FAMILY`, nor a seed's.
    """
    if not is_made(name):
        raise MotionError(unknown_name("procedural motion", name, NAMES))
    if drawn := DRAWN_NAME.fullmatch(name):
        draw, gait = {"mix": (mix_commands, Gait()), "on": (on_commands, _ON_GAIT)}[drawn[1]]
        recipe = Recipe(draw(int(drawn[2])), gait=gait)
    else:
        recipe = FAMILY[name]
    clip = clip_from_plan(
        name, plan_walk(recipe.commands, recipe.gait), keep_last_s=recipe.keep_last_s
    )
    rounded = {
        key: np.round(getattr(clip, key).astype(np.float64) / unit) * unit
        for key, unit in GRID.items()
    }
    return replace(clip, **rounded)


def clip_from_plan(name: str, plan: WalkPlan, *, keep_last_s: float | None = None) -> Clip:
    """The whole-body motion of a plan as a clip, with the planned foot contacts.

    Args:
        name: the clip's name.
        plan: from `plan_walk`.
        keep_last_s: keep only this much of the end, the pelvis moved to start over the origin.

    Raises:
        MotionError: the robot cannot carry the plan out.
    """
    states = solve_states(plan)
    fps = plan.gait.fps
    start = 0 if keep_last_s is None else len(plan.heading) - 1 - round(keep_last_s * fps)
    root_pos = states.root_pos[start:].copy()
    if start:
        root_pos[:, :2] -= root_pos[0, :2]
    return clip_from_states(
        name,
        fps,
        root_pos,
        states.root_quat[start:],
        states.joint_pos[start:],
        source=SOURCE,
        licence=LICENCE,
        foot_contact=plan.foot_contact[start:],
    )


def differences(clip: Clip, other: Clip) -> list[str]:
    """What tells two clips apart beyond two units of `GRID`; empty if nothing does."""
    if clip.num_frames != other.num_frames or clip.fps != other.fps:
        return [f"{other.num_frames} frames at {other.fps:g} Hz, not {clip.num_frames}"]
    found = []
    for key in ARRAY_SHAPES:
        gap = np.abs(getattr(clip, key).astype(np.float64) - getattr(other, key)).max()
        if gap > 2 * GRID[key]:
            found.append(f"{key} differs by {gap:.1e}, more than {2 * GRID[key]:.1e}")
    if not np.array_equal(clip.foot_contact, other.foot_contact):
        found.append("foot_contact differs")
    return found


@dataclass(frozen=True)
class MakeConfig:
    """Write the built-in procedural clips anew, or check them."""

    names: Positional[tuple[str, ...]] = ()
    """Clips to make; by default all that the package holds."""
    out: Path = MOTION_DIR
    """Folder of the .npz files."""
    check: bool = False
    """Write nothing: compare with the files in `out`, exit with 1 if one differs."""


def main(config: MakeConfig) -> int:
    """Make or check the clips; returns the exit status."""
    names = config.names or tuple(FAMILY)
    for name in names:
        if not is_made(name):
            raise MotionError(unknown_name("procedural motion", name, NAMES))
    status = 0
    for name in names:
        path = config.out / f"{name}.npz"
        clip = make_clip(name)
        if config.check:
            found = differences(clip, load_npz(path))
            print(f"{name}: {'; '.join(found) or 'as made'}")
            status |= bool(found)
        else:
            save_npz(clip, path)
            size = path.stat().st_size / 1024
            print(f"{name}: {clip.num_frames} frames, {clip.duration_s:.1f} s, {size:.0f} KiB")
    print(f"{'compared with' if config.check else 'written to'} {config.out}")
    return status


if __name__ == "__main__":
    cli.run(main, MakeConfig)
