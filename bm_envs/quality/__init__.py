"""Motion quality: how a robot moves beside how far it is off its reference.

A policy that follows its clip to a centimetre may still slide, stamp or shake. Each figure is of
one episode and comes from arrays recorded once a control step, after the step; frames after a
failure do not count. A foot *stands* in a frame in which the ground pushes it by more than
`STANDS` body weights. The figures:

    slip_p95_m_s       95th percentile, over the steps in which a foot stands at both ends, of the
                       horizontal distance that the lowest point of its sole moved over the step's
                       time, m/s
    impact_p95_bw      95th percentile, over the frames in which a foot stands, of the size of the
                       ground's force on it, body weights
    contact_toggles_s  how often a foot begins or ends to stand, both feet together, 1/s
    action_rate        squared change of the raw action from step to step, summed over joints, mean
                       over steps
    joint_acc_rad_s2   change of the joint velocities from step to step over the step's time, root
                       mean square over joints, mean over steps, rad/s^2
    torque_over_share  share of all joints and frames in which the drive asks for its torque limit
                       or more, 0 to 1
    chatter_share      share of the power of the torques' changes that is above `CHATTER_HZ`, 0 to 1

A reference has slip, toggles and joint acceleration; in it a foot stands where the clip says so.

Sources. Slip is what computer animation calls foot skate (Kovar, Schreiner and Gleicher 2002;
Zhang et al. 2018 measure it by horizontal speeds near the ground). Ground forces in body weights
and their usual figures are those of gait analysis (Winter, Biomechanics and Motor Control of Human
Movement: some 1.2 at most in walking). The action rate is the penalty `action_rate_l2` of
whole_body_tracking and mjlab. The spectrum is Welch's (1967). Percentiles and thresholds are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bm_envs.motion.clip import Clip
from bm_envs.robots import g1, kinematics
from bm_envs.robots.robot import Robot

NAMES = (
    "slip_p95_m_s", "impact_p95_bw", "contact_toggles_s", "action_rate", "joint_acc_rad_s2",
    "torque_over_share", "chatter_share",
)  # fmt: skip
REFERENCE_NAMES = tuple(
    f"ref_{name}" for name in ("slip_p95_m_s", "contact_toggles_s", "joint_acc_rad_s2")
)
_SUMMED = ("contact_toggles_s", "action_rate", "joint_acc_rad_s2", "torque_over_share")


def body_weight(robot: Robot) -> float:
    """N."""
    return 9.81 * sum(body.mass for body in robot.bodies)


BODY_WEIGHT = body_weight(g1.G1)
"""N, of the G1."""
STANDS = 0.03
"""Body weights. Gait laboratories take 20 N for a person, which are 3 % of 70 kg."""
PERCENTILE = 95.0
CHATTER_HZ = 10.0
"""A person moves below it: nearly all power of walking is below 6 Hz (Winter)."""
SEGMENT = 50
"""Control steps of a spectrum: 1 s at 50 Hz, so that its lines are 1 Hz apart."""


@dataclass(frozen=True, eq=False)
class Signals:
    """What is recorded of N robots after a control step, `[N, ...]`, or of T steps, `[T, N, ...]`.

    World frame; joints in the robot table's order.
    """

    sole_points: np.ndarray
    """`[..., 2, P, 3]`, m, points of the left and of the right sole."""
    foot_force: np.ndarray
    """`[..., 2, 3]`, N, between each foot and the ground; which way it points does not matter."""
    action: np.ndarray
    """`[..., 29]`, raw, of the step just done."""
    joint_vel: np.ndarray
    """`[..., 29]`, rad/s."""
    torque: np.ndarray
    """`[..., 29]`, N m, what the drives ask for; their limits are not applied."""


def slip_speed(sole_points: np.ndarray, stands: np.ndarray, dt: float) -> np.ndarray:
    """Horizontal speed of each foot's lowest sole point over each step, m/s. `[T - 1, N, 2]`.

    The point is the one that is lowest in the mean of the step's two frames; NaN where a foot does
    not stand in both. It is a mean over the step, and a push, which changes velocities at once, is
    none. The sole's points are those of small spheres, which roll: a foot that tips at 1 rad/s over
    an edge counts 5 mm/s.

    Args:
        sole_points: `[T, N, 2, P, 3]`, m, world.
        stands: `[T, N, 2]` bool.
        dt: s, of a step.
    """
    height = sole_points[..., 2]
    lowest = (height[1:] + height[:-1]).argmin(-1)[..., None, None]
    moved = np.diff(sole_points[..., :2], axis=0)
    moved = np.take_along_axis(moved, lowest, axis=-2)[..., 0, :]
    speed = np.sqrt((moved**2).sum(-1)) / dt
    return np.where(stands[1:] & stands[:-1], speed, np.nan)


def foot_load(foot_force: np.ndarray, robot: Robot = g1.G1) -> np.ndarray:
    """Size of the force `[..., 2, 3]`, N, on each foot, in body weights. `[..., 2]`."""
    return np.sqrt((foot_force**2).sum(-1)) / body_weight(robot)


def toggles(stands: np.ndarray) -> np.ndarray:
    """Feet of `stands [T, N, 2]` that begin or end to stand in each step. `[T - 1, N]`."""
    return (stands[1:] != stands[:-1]).sum(-1)


def action_rate(action: np.ndarray) -> np.ndarray:
    """`|a_t - a_(t-1)|^2` of raw actions `[T, N, 29]`. `[T - 1, N]`."""
    return (np.diff(action, axis=0) ** 2).sum(-1)


def joint_acceleration(joint_vel: np.ndarray, dt: float) -> np.ndarray:
    """Root mean square over joints of `[T, N, 29]`, rad/s, changed in `dt` s. `[T - 1, N]`."""
    return np.sqrt((np.diff(joint_vel, axis=0) ** 2).mean(-1)) / dt


def over_limit(torque: np.ndarray, robot: Robot = g1.G1) -> np.ndarray:
    """Share of the joints whose torque `[..., 29]`, N m, is the drive's limit or more. `[...]`."""
    return (np.abs(torque) >= robot.effort_limit).mean(-1)


def chatter_power(
    torque: np.ndarray, dt: float, robot: Robot = g1.G1
) -> tuple[np.ndarray, np.ndarray]:
    """Power of the torques' changes above `CHATTER_HZ`, and at it and below. `[N]` each.

    Torques are over their joints' limits, so that a wrist counts as a knee does. A Hann window is
    put on, by which a tone of a whole number of hertz lies in its own line and its two neighbours;
    their mean under it is taken away. Powers are summed over joints.

    Args:
        torque: `[T, N, 29]`, N m.
        dt: s, of a step.
        robot: whose joints they are.
    """
    count = len(torque)
    share = torque / robot.effort_limit
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count))[:, None, None]
    mean = (share * window).sum(0) / window.sum()
    spectrum = np.fft.rfft((share - mean) * window, axis=0)
    power = (spectrum.real**2 + spectrum.imag**2).sum(-1)
    frequency = np.fft.rfftfreq(count, dt)
    # All lines but the first and, of an even count, the last stand for two.
    power[1 : (count + 1) // 2] *= 2
    is_above = frequency > CHATTER_HZ + 1e-9
    return power[is_above].sum(0), power[~is_above].sum(0)


class Recorder:
    """Figures of N robots, an episode each, from what is added control step by control step.

    Signals are kept for one spectrum's time and are then reduced to what the figures need: whole
    episodes of a hundred robots over minutes would be half a gigabyte.
    """

    def __init__(self, num_envs: int, dt: float, robot: Robot = g1.G1) -> None:
        self._dt, self._num_envs, self._robot = dt, num_envs, robot
        # The first row is the last frame of the block before, where there is one.
        self._buffers: dict[str, np.ndarray] = {}
        self._counted = np.zeros((1 + SEGMENT, num_envs), bool)
        self._filled, self._is_first = 0, True
        self._sums = {name: np.zeros(num_envs) for name in _SUMMED}
        self._frames, self._steps = np.zeros(num_envs), np.zeros(num_envs)
        self._above, self._below = np.zeros(num_envs), np.zeros(num_envs)
        self._slip: list[np.ndarray] = []
        self._load: list[np.ndarray] = []

    def add(self, signals: Signals, counted: np.ndarray) -> None:
        """Add a control step.

        Args:
            signals: `[N, ...]`, of all robots.
            counted: `[N]` bool, robots of which it counts; who was left out once is not counted
                again.
        """
        self._filled += 1
        for field in fields(signals):
            value = getattr(signals, field.name)
            buffer = self._buffers.get(field.name)
            if buffer is None:
                shape = (1 + SEGMENT, *value.shape)
                buffer = self._buffers[field.name] = np.zeros(shape, np.float32)
            buffer[self._filled] = value
        self._counted[self._filled] = counted
        if self._filled == SEGMENT:
            self._reduce()

    def figures(self) -> dict[str, np.ndarray]:
        """The figures by `NAMES`, `[N]` each, NaN where nothing was counted.

        `chatter_share` needs a second of frames, and torques that change.
        """
        self._reduce()
        sums = self._sums
        with np.errstate(invalid="ignore"):
            means = {name: sums[name] / self._steps for name in ("action_rate", "joint_acc_rad_s2")}
            return {
                "slip_p95_m_s": _percentile(self._slip, self._num_envs),
                "impact_p95_bw": _percentile(self._load, self._num_envs),
                "contact_toggles_s": sums["contact_toggles_s"] / (self._steps * self._dt),
                **means,
                "torque_over_share": sums["torque_over_share"] / self._frames,
                "chatter_share": self._above / (self._above + self._below),
            }

    def _reduce(self) -> None:
        """Take the figures' parts from the steps in the buffers."""
        if not self._filled:
            return
        rows = slice(int(self._is_first), self._filled + 1)
        signals = Signals(**{name: buffer[rows] for name, buffer in self._buffers.items()})
        new = slice(0 if self._is_first else 1, None)
        in_frame, in_step = self._counted[rows][new], self._counted[rows][1:]
        with np.errstate(over="ignore", invalid="ignore"):  # of robots that have diverged
            load = foot_load(signals.foot_force, self._robot)
            stands = load > STANDS
            slip = slip_speed(signals.sole_points, stands, self._dt)
            self._slip.append(np.where(in_step[..., None], slip, np.nan))
            self._load.append(np.where(in_frame[..., None] & stands[new], load[new], np.nan))
            for name, values, counted in (
                ("contact_toggles_s", toggles(stands), in_step),
                ("action_rate", action_rate(signals.action), in_step),
                ("joint_acc_rad_s2", joint_acceleration(signals.joint_vel, self._dt), in_step),
                ("torque_over_share", over_limit(signals.torque[new], self._robot), in_frame),
            ):
                self._sums[name] += np.where(counted, values, 0.0).sum(0)
            if self._filled == SEGMENT:
                above, below = chatter_power(signals.torque[new], self._dt, self._robot)
                self._above += np.where(in_frame[-1], above, 0.0)
                self._below += np.where(in_frame[-1], below, 0.0)
        self._frames += in_frame.sum(0)
        self._steps += in_step.sum(0)
        for array in (*self._buffers.values(), self._counted):
            array[0] = array[self._filled]
        self._filled, self._is_first = 0, False


def _percentile(parts: Sequence[np.ndarray], num_envs: int) -> np.ndarray:
    """`PERCENTILE` of what is not NaN in `[T, N, 2]`, float64. `[N]`."""
    result = np.full(num_envs, np.nan)
    if parts:
        values = np.concatenate(parts).swapaxes(0, 1).reshape(num_envs, -1)
        for i, row in enumerate(values):
            if (known := row[~np.isnan(row)]).size:
                result[i] = np.percentile(known, PERCENTILE)
    return result


def reference_figures(clip: Clip) -> dict[str, float]:
    """A whole clip's own figures by `REFERENCE_NAMES`; NaN where no foot stands in it."""
    dt = 1.0 / clip.fps
    soles = kinematics.sole_points(clip.body_pos_w, clip.body_quat_w, clip.robot)[:, None]
    stands = clip.foot_contact[:, None]
    slip = _percentile([slip_speed(soles, stands, dt)], 1)[0]
    acceleration = joint_acceleration(clip.joint_vel[:, None].astype(np.float64), dt)
    values = slip, toggles(stands).sum() / clip.duration_s, acceleration.mean()
    return dict(zip(REFERENCE_NAMES, map(float, values), strict=True))
