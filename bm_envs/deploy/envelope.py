"""What a robot may be asked for and what its states may say: the safety envelope, in one place.

`check_policy` holds a policy to it before the first command, `Envelope` each reading (`look`,
`compare`) and each command (`bound`); `Stream` judges the order and age of states. `rows` is the
whole as a table, which `tools/deploy.py` prints and `docs/deployment.md` shows. Nothing here knows
a simulator or a transport. One file because every bound, and the check that holds to it, is to be
read in one place.

On the bounds of targets. Published deployments send targets as the policy asks for them:
unitree_rl_lab has `clip: null` (deploy.yaml of its mimic policies) and RoboJuDo left its clipping
to the range commented out (`unitree_env.py`), because trained policies ask for targets far beyond a
joint's range where they want torque. So the bounds are those beyond which a motor that saturates
gives the same torque anyway, and not the range.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import PolicyError
from bm_envs.policy import CONTROL_DT
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot

if TYPE_CHECKING:
    from bm_envs.deploy.messages import Command, Sensors
    from bm_envs.policy import Policy

# --- a policy's constants -------------------------------------------------------------------------

# Stiffness, N m/rad. Published: 4 (wrists of ASAP) to 350 (standby of motion_tracking_controller);
# the onboard code of ZiwenZhuang/parkour clips gains to 500.
STIFFNESS_RANGE = (1.0, 500.0)
# Damping, N m s/rad. Published: 0.2 to 10; a motor without damping rings.
DAMPING_RANGE = (0.05, 20.0)
# Action scale, rad per unit of action. Published: 0.07 to 0.55; the bound is four times that.
SCALE_RANGE = (0.01, 2.0)
DEFAULT_POSE_MARGIN = 0.05  # rad beyond the joint's range

# --- a command ------------------------------------------------------------------------------------

# Bounds in units of effort limit / stiffness, and the largest in rad whatever the stiffness is.
RANGE_TORQUES, RANGE_CAP = 2.0, 3.6
STEP_TORQUES, STEP_CAP = 3.0, 5.5
DISTANCE_CAP = 4.5
FAR = 4.0  # a target this many times beyond the greatest distance is no policy's; falls reach 1.8
# Most control steps with a bounded target, and among how many: a policy that works has fewer.
BOUNDED_STEPS, BOUNDED_OF = 10, 25
LATE_STEPS, LATE_OF = 10, 50  # ours

# --- a reading ------------------------------------------------------------------------------------

QUAT_TOLERANCE = 0.05  # deviation of a quaternion's length from 1; float32 and drift reach 5e-5
SPEED_FACTOR = 2.0  # largest joint speed as a multiple of the motor's speed limit
GYRO_LIMIT = 35.0  # rad/s, the full scale of 2000 degrees/s of inertial units
ACCEL_LIMIT = 500.0  # m/s^2, twice what falls give in simulation
# Positions are compared with the integral of their velocities over this time. The first tolerances
# are twice what the noise of training gives; the time is how early or late a reading may come.
WINDOW_S, JITTER_S = 0.1, 0.01
JOINT_TOLERANCE, TURN_TOLERANCE = 0.2, 0.35  # rad
# Tolerances by the host's clock: a simulation need not keep to it, and readings come at odd times.
HOST_SLACK = 0.5
GAP_S = 0.03  # after a longer gap the integrals mean nothing, and only speed limits are checked

# --- the stream of states -------------------------------------------------------------------------

RATE_WINDOW_S, LEAST_RATE = 0.5, 25.0  # s, and the fewest states a second: half the control rate
REORDERED = 1000  # a tick smaller by less than this is of a message that another one overtook
OVERTAKEN, OVERTAKEN_OF = 20, 50  # most overtaken messages, among how many of the last
# How far the robot's clock may lag behind its rate in the first second. A simulation on a busy
# machine lags for a moment; states out of a queue that grows lag for good.
LEAST_CLOCK = 0.2
TICKS = 1 << 32
# Unitree's table of G1 models (unitree_ros, g1_description/README.md), column mode_machine: ours is
# 29 joints of revision 1.0; without wrists, with the waist locked, and two arms alone are others.
MODE_MACHINE = 5
OTHER_ROBOTS = {
    1: "23 joints", 3: "a locked waist", 4: "23 joints", 6: "a locked waist", 9: "two arms alone",
    10: "23 joints", 12: "a locked waist", 14: "a locked waist", 16: "a locked waist",
}  # fmt: skip
# Error bits of a motor's `motorstate`: overcurrent, voltage, heat, encoders, calibration (Unitree's
# G1 developer guide, table of errors). Higher bits mean versions and missing commands.
MOTOR_ERRORS = 0xFFFF
WARM_C, HOT_C = 85, 110  # degrees C to warn and to damp at; ours, as no limit is published
LOW_VOLTS = 42.0  # V of the battery to warn at: 13 lithium cells of 3.2 V each

GUARD_S = 0.05  # s after `lost_s` at which the second process takes over


@dataclass(frozen=True)
class Row:
    """One row of the envelope's table."""

    quantity: str
    bound: str
    reaction: str
    within: str
    """The longest time until the reaction, in words."""


DAMP = "damped"


def rows(
    lost_s: float = 0.2, max_tilt_deg: float = 60.0, joint_margin: float = 0.15
) -> tuple[Row, ...]:
    """The envelope as a table; the three figures are settings, ours but for the tilt.

    unitree_rl_lab stops at a tilt of 57 degrees.
    """

    def span(bounds: tuple[float, float], unit: str) -> str:
        return f"{bounds[0]:g} to {bounds[1]:g} {unit}"

    refused, before = "refused", "at the start"
    state = "1 state"
    bounded = f"bounded; {DAMP} after {BOUNDED_STEPS} of {BOUNDED_OF} steps"
    soon = f"same command; {BOUNDED_OF * CONTROL_DT:g} s"
    window = f"1 state for a jump, {WINDOW_S:g} s else"
    silence = f"{lost_s + GUARD_S:g} s"
    return (
        Row("stiffness", span(STIFFNESS_RANGE, "N m/rad"), refused, before),
        Row("damping", span(DAMPING_RANGE, "N m s/rad"), refused, before),
        Row("action scale", span(SCALE_RANGE, "rad"), refused, before),
        Row("default pose", f"joint range and {DEFAULT_POSE_MARGIN:g} rad", refused, before),
        Row("target beyond the joint's range", f"{RANGE_TORQUES:g} x effort limit / stiffness, at "
            f"most {RANGE_CAP:g} rad", bounded, soon),
        Row("target from the measured position", "(effort limit + damping x speed limit) / "
            f"stiffness, at most {DISTANCE_CAP:g} rad", f"{bounded}; {DAMP} at once beyond {FAR:g} "
            "times that", soon),
        Row("target's change in a control step", f"{STEP_TORQUES:g} x effort limit / stiffness, "
            f"at most {STEP_CAP:g} rad", bounded, soon),
        Row("action", "finite", DAMP, "same command"),
        Row("control steps late by more than one, or without an action in any plan",
            f"fewer than {LATE_STEPS} of {LATE_OF}", DAMP, f"{LATE_OF} steps"),
        Row("any reading", "finite", DAMP, state),
        Row("length of the quaternion", f"1 +- {QUAT_TOLERANCE:g}", DAMP, state),
        Row("joint speed", f"{SPEED_FACTOR:g} x the motor's limit", DAMP, state),
        Row("angular velocity", f"{GYRO_LIMIT:g} rad/s", DAMP, state),
        Row("acceleration", f"{ACCEL_LIMIT:g} m/s^2", DAMP, state),
        Row("joint positions against their speeds", f"{JOINT_TOLERANCE:g} rad in {WINDOW_S:g} s",
            DAMP, window),
        Row("orientation against angular velocity", f"{TURN_TOLERANCE:g} rad in {WINDOW_S:g} s",
            DAMP, window),
        Row("joint beyond its range", f"{joint_margin:g} rad (--joint-margin)", DAMP, state),
        Row("tilt off the reference's", f"{max_tilt_deg:g} degrees (--max-tilt-deg)", DAMP, state),
        Row("B or select on the remote", "not pressed", DAMP, state),
        Row("age of the newest state", f"{lost_s:g} s (--lost-s), by its tick", DAMP,
            f"{lost_s:g} s"),
        Row("rate of states", f"{LEAST_RATE:g} a second over {RATE_WINDOW_S:g} s", DAMP,
            f"{RATE_WINDOW_S + lost_s:g} s"),
        Row("the robot's clock", f"forward, no jump, at least {LEAST_CLOCK:g} times its first "
            f"rate; at most {OVERTAKEN - 1} of {OVERTAKEN_OF} states older than the newest", DAMP,
            f"{OVERTAKEN_OF} states or {RATE_WINDOW_S + lost_s:g} s"),
        Row("publisher of the states", "one, always the same", DAMP, state),
        Row("mode_machine", f"{MODE_MACHINE}; never changes",
            f"other robots refused; a change: {DAMP}", state),
        Row("a motor's error bits", f"none of 0x{MOTOR_ERRORS:x}", DAMP, state),
        Row("a motor's temperature", f"{HOT_C:g} C; {WARM_C:g} C is a warning", DAMP, state),
        Row("a motor's voltage", f"{LOW_VOLTS:g} V", "warning", state),
        Row("a signal to the program (Ctrl-C, kill)", "none", DAMP, "0.02 s and a control step"),
        Row("an error in the program", "none", f"{DAMP}, then its traceback", "same step"),
        Row("the program is killed, stopped or does not respond", f"{silence} without a sign of "
            "life", f"{DAMP} by a second process", silence),
        Row("the machine fails, the cable is pulled", "-", "none from here: the robot's own "
            "timeout", "not known"),
    )  # fmt: skip


def markdown() -> str:
    """The table of `docs/deployment.md`."""
    lines = ["| quantity | bound | reaction | longest time to it |", "|---" * 4 + "|"]
    lines += [f"| {' | '.join(dataclasses.astuple(row))} |" for row in rows()]
    return "\n".join(lines) + "\n"


# --- policies, readings, commands -----------------------------------------------------------------


def check_policy(policy: Policy) -> None:
    """Hold a policy's constants to the envelope.

    Raises:
        PolicyError: one of them is outside.
    """
    keys = ("joint_stiffness", "joint_damping", "action_scale", "default_joint_pos")
    spec = policy.spec
    drives = {key: spec.in_project_order(key) for key in keys}
    check_drives(str(policy.path), drives, spec.robot)


def check_drives(
    name: str, drives: Mapping[str, Sequence[float]], robot: Robot = g1.G1
) -> None:  # fmt: skip
    """Hold drives, `[J]` each in project order, to the envelope; `name` is whose they are.

    Raises:
        PolicyError: one of them is outside.
    """
    low, high = robot.joint_range.T
    full = np.full(robot.num_joints, 1.0)
    for key, least, most, unit in (
        ("joint_stiffness", STIFFNESS_RANGE[0] * full, STIFFNESS_RANGE[1] * full, "N m/rad"),
        ("joint_damping", DAMPING_RANGE[0] * full, DAMPING_RANGE[1] * full, "N m s/rad"),
        ("action_scale", SCALE_RANGE[0] * full, SCALE_RANGE[1] * full, "rad"),
        ("default_joint_pos", low - DEFAULT_POSE_MARGIN, high + DEFAULT_POSE_MARGIN, "rad"),
    ):
        values = np.array(drives[key])
        outside = ~((least <= values) & (values <= most))
        if outside.any():
            joint = int(outside.argmax())
            raise PolicyError(
                f"{name}: {key} of {robot.joint_names[joint]} is {values[joint]:g} {unit}, "
                f"expected {least[joint]:g} to {most[joint]:g} for a robot; correct the policy's "
                "metadata (docs/deployment.md has the table of bounds)."
            )


@dataclass(frozen=True, eq=False)
class _Moment:
    """A reading, the integral of the velocities up to it, and how uncertain that integral is."""

    time_s: float
    joints: np.ndarray
    frame: np.ndarray
    way: np.ndarray
    turn_way: float
    speed: float
    turning: float


class Envelope:
    """The bounds at work, on one robot.

    Attributes:
        slack: share by which the clock of readings may be wrong; of one that is not the robot's.
        forgiving: whether bounded targets alone never end it; of a dry run, whose robot does not do
            what it is asked for.
        bounded: control steps so far whose target was held to a bound.
    """

    def __init__(self, noise: float = 0.0, robot: Robot = g1.G1) -> None:
        """`noise`: of the readings, as a multiple of that in training (`SimulatedRobot`)."""
        self._more = max(1.0, noise)
        self.forgiving, self.slack = False, 0.0
        self.bounded = 0
        self._window: deque[_Moment] = deque()
        self._last: Sensors | None = None
        self._robot, J = robot, robot.num_joints  # noqa: N806
        self._sum, self._turned = np.zeros(J), np.array([1.0, 0, 0, 0])
        self._way, self._turn_way = np.zeros(J), 0.0
        self._sent: Command | None = None
        self._base, self._is_free = np.zeros(J), True  # of the rate, and whether it is unbounded
        self._times: deque[float] = deque()
        self._late: deque[int] = deque()
        self._steps = 0

    # --- readings ---

    def look(self, sensors: Sensors) -> str:
        """What is physically impossible in a finite reading, in words, or nothing."""
        length = float(np.linalg.norm(sensors.quat))
        if abs(length - 1) > QUAT_TOLERANCE:
            return f"the orientation's quaternion has length {length:.3g}, expected 1"
        speed = np.abs(sensors.joint_vel) / self._robot.velocity_limit
        worst = int(speed.argmax())
        if speed[worst] > SPEED_FACTOR * self._more:
            return (
                f"{self._robot.joint_names[worst]} turns at {sensors.joint_vel[worst]:.3g} rad/s, "
                f"its motor at {self._robot.velocity_limit[worst]:g} at most"
            )
        for name, values, limit, unit in (
            ("angular velocity", sensors.gyro, GYRO_LIMIT, "rad/s"),
            ("acceleration", sensors.accel, ACCEL_LIMIT, "m/s^2"),
        ):
            size = float(np.linalg.norm(values))
            if size > limit * self._more:
                return f"the {name} is {size:.3g} {unit}, beyond {limit:g}"
        return ""

    def compare(self, sensors: Sensors) -> str:
        """Where positions and velocities of the last readings contradict each other, or nothing."""
        last, self._last = self._last, sensors
        dt = 0.0 if last is None else sensors.time_s - last.time_s
        if last is not None and not 0 <= dt <= GAP_S:
            self._window.clear()
            way = np.abs(sensors.joint_pos - last.joint_pos)
            allowed = SPEED_FACTOR * self._robot.velocity_limit * max(dt, 0.0) + JOINT_TOLERANCE
            over = way - allowed * self._more
            if over.max() > 0:
                return self._jump(int(over.argmax()), way)
        elif last is not None:
            way = 0.5 * dt * (sensors.joint_vel + last.joint_vel)
            # Between two readings the velocity may have been that of either for all the time.
            change = 0.5 * dt * np.abs(sensors.joint_vel - last.joint_vel)
            self._sum, self._way = self._sum + way, self._way + self.slack * np.abs(way) + change
            turn = 0.5 * dt * (sensors.gyro + last.gyro)
            change = 0.5 * dt * float(np.linalg.norm(sensors.gyro - last.gyro))
            self._turn_way += self.slack * float(np.linalg.norm(turn)) + change
            turned = rot.quat_mul(self._turned, rot.quat_from_axis_angle(turn))
            self._turned = rot.quat_normalize(turned)
        now = _Moment(
            time_s=sensors.time_s,
            # Where the two agree, a position minus the integral of its velocity is constant.
            joints=sensors.joint_pos - self._sum,
            frame=rot.quat_mul(rot.quat_normalize(sensors.quat), rot.quat_conj(self._turned)),
            way=self._way, turn_way=self._turn_way,
            speed=float(np.abs(sensors.joint_vel).max()),
            turning=float(np.linalg.norm(sensors.gyro)),
        )  # fmt: skip
        window = self._window
        while window and now.time_s - window[0].time_s > WINDOW_S + 1e-9:
            window.popleft()
        window.append(now)
        first = window[0]
        off = np.abs(now.joints - first.joints)
        early = JITTER_S * max(moment.speed for moment in window)
        allowed = JOINT_TOLERANCE + early + (now.way - first.way)
        if (off > allowed * self._more).any():
            return self._jump(int((off - allowed).argmax()), off)
        off_turn = float(rot.quat_angle(now.frame, first.frame))
        early = JITTER_S * max(moment.turning for moment in window)
        allowed_turn = TURN_TOLERANCE + early + (now.turn_way - first.turn_way)
        if off_turn > allowed_turn * self._more:
            return (
                f"the orientation is {np.degrees(off_turn):.0f} degrees off what its angular "
                f"velocity adds up to within {WINDOW_S:g} s"
            )
        return ""

    def _jump(self, joint: int, off: np.ndarray) -> str:
        return (
            f"{self._robot.joint_names[joint]} is {off[joint]:.2f} rad off where its speed takes "
            f"it within {WINDOW_S:g} s"
        )

    # --- commands ---

    def limits(
        self, command: Command, joint_pos: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Least and greatest target `[29]` at these positions, and the greatest step, rad."""
        stiffness = np.maximum(command.stiffness, 1e-6)
        torques = self._robot.effort_limit / stiffness
        margin = np.minimum(RANGE_TORQUES * torques, RANGE_CAP)
        reach = self._reach(command)
        low, high = self._robot.joint_range.T
        # A joint beyond its range may still get its present angle as a target.
        least = np.minimum(np.maximum(low - margin, joint_pos - reach), joint_pos)
        most = np.maximum(np.minimum(high + margin, joint_pos + reach), joint_pos)
        return least, most, np.minimum(STEP_TORQUES * torques, STEP_CAP)

    def _reach(self, command: Command) -> np.ndarray:
        """Distance to the target beyond which a motor saturates at any speed. `[29]`, rad."""
        most = self._robot.effort_limit + command.damping * self._robot.velocity_limit
        return np.minimum(most / np.maximum(command.stiffness, 1e-6), DISTANCE_CAP)

    def bound(
        self, command: Command, joint_pos: np.ndarray, time_s: float, *, is_new: bool
    ) -> tuple[Command, str]:
        """The command within its bounds, and why to damp, if targets had to be bounded too often.

        Args:
            command: what is wanted.
            joint_pos: `[29]`, measured, rad.
            time_s: of the reading.
            is_new: whether it is another target than before, and not the same for a new reading.
        """
        least, most, step = self.limits(command, joint_pos)
        sent = self._sent
        if sent is None or (sent.stiffness != command.stiffness).any():
            # With other gains than the policy's the torque counts, and the distance bounds it.
            self._base, self._is_free = joint_pos, True
        elif is_new:
            self._base, self._is_free = sent.joint_pos, False
        if self._is_free:  # until another target comes, or the same one would be bounded otherwise
            step = np.full(self._robot.num_joints, np.inf)
        least = np.maximum(least, np.minimum(self._base - step, most))
        most = np.minimum(most, np.maximum(self._base + step, least))
        target = np.clip(command.joint_pos, least, most)
        over = np.abs(target - command.joint_pos)
        bounded = dataclasses.replace(command, joint_pos=target)
        self._sent = bounded
        far = np.abs(command.joint_pos - joint_pos) > FAR * self._reach(command)
        if far.any() and not self.forgiving:
            joint = int(far.argmax())
            return bounded, (
                f"the target of {self._robot.joint_names[joint]} is "
                f"{command.joint_pos[joint]:.3g} rad, more than {FAR:g} times as far from its "
                "place as any that matters"
            )
        if not over.any() or self._times and time_s - self._times[-1] < CONTROL_DT - 1e-6:
            return bounded, ""
        self.bounded += 1
        while self._times and time_s - self._times[0] > BOUNDED_OF * CONTROL_DT:
            self._times.popleft()
        self._times.append(time_s)
        if len(self._times) < BOUNDED_STEPS or self.forgiving:
            return bounded, ""
        joint = int(over.argmax())
        return bounded, (
            f"targets were out of bounds in {BOUNDED_STEPS} of {BOUNDED_OF} control steps, "
            f"{self._robot.joint_names[joint]} at {command.joint_pos[joint]:.3g} rad"
        )

    def steps(self, is_late: bool) -> str:
        """Count a control step; returns why to damp, if too many came late."""
        self._steps += 1
        if is_late:
            self._late.append(self._steps)
        while self._late and self._steps - self._late[0] >= LATE_OF:
            self._late.popleft()
        if len(self._late) < LATE_STEPS:
            return ""
        return (
            f"{LATE_STEPS} of {LATE_OF} control steps came more than {1e3 * CONTROL_DT:g} ms late, "
            "or were in no plan: this machine is too slow for the policy, or too busy; end other "
            "programs"
        )


# --- the stream -----------------------------------------------------------------------------------


class Stream:
    """Judges states by tick, publisher and times of arrival; on the monotonic clock alone.

    Attributes:
        tick: of the newest state.
        fresh_s: when it came, on the monotonic clock.
        time_s: the same on the clock that was asked for.
        lost_s: the greatest age.
        overtaken, repeated: states so far that were older than, or the same as, the newest.
    """

    def __init__(self, *, lost_s: float, by_tick: bool) -> None:
        """`by_tick`: whether time is the robot's tick in ms, which may pass at any rate."""
        self.lost_s, self._by_tick = lost_s, by_tick
        self.tick, self.fresh_s, self.time_s = 0, 0.0, 0.0
        self.overtaken = self.repeated = 0
        self._publisher: object = None
        self._mode: int | None = None
        self._in_order: deque[bool] = deque(maxlen=OVERTAKEN_OF)
        self._recent: deque[tuple[float, float, int]] = deque()  # time, monotonic time, ticks
        self._ticks = 0  # since the first state; no overflow
        self._rate: float | None = None
        self._began = 0.0

    def take(
        self, tick: int, now: float, publisher: object = None, mode_machine: int | None = None
    ) -> tuple[Literal["fresh", "overtaken", "repeated"], str]:
        """What a state is, and why to damp, or nothing.

        Args:
            tick: of the state, 32 bits.
            now: its arrival on the monotonic clock, s.
            publisher: who sent it, if that is known.
            mode_machine: as the state tells it.
        """
        if not self._recent:
            self.tick, self.fresh_s = tick, now
            self._publisher, self._mode, self._began = publisher, mode_machine, now
            self.time_s = self._time(now)
            self._recent.append((self.time_s, now, 0))
            return "fresh", ""
        if publisher != self._publisher:
            return "fresh", "states come from a second publisher"
        if mode_machine != self._mode:
            return "fresh", f"mode_machine changed from {self._mode} to {mode_machine}"
        step = (tick - self.tick + TICKS // 2) % TICKS - TICKS // 2
        if step == 0:
            self.repeated += 1
            return "repeated", self.age(now)
        if step <= -REORDERED:
            return "fresh", "the robot's clock went back, it was restarted"
        self._in_order.append(step > 0)
        if step < 0:
            self.overtaken += 1
            if self._in_order.count(False) >= OVERTAKEN:
                return "overtaken", (
                    f"the robot's clock went back in {OVERTAKEN} of {len(self._in_order)} states: "
                    "they are old, or of two robots"
                )
            return "overtaken", self.age(now)
        if trouble := self.suspended(now):
            return "fresh", trouble
        return "fresh", self._advance(tick, step, now)

    def suspended(self, now: float) -> str:
        """Whether the newest state has become too old while nobody waited for another."""
        if now - self.fresh_s <= self.lost_s:
            return ""
        return (
            f"control was suspended for {now - self.fresh_s:.2f} s, at most {self.lost_s:g} s are "
            "allowed: this machine was stopped or is too busy; end other programs"
        )

    def age(self, now: float) -> str:
        """Whether the newest state is too old, and the sentence that says so."""
        if now - self.fresh_s <= self.lost_s:
            return ""
        return f"no state came for {self.lost_s:g} s, the robot is gone"

    def _time(self, now: float) -> float:
        return self._ticks / 1e3 if self._by_tick else now

    def _advance(self, tick: int, step: int, now: float) -> str:
        rate = 1e3 if self._by_tick else self._rate
        # By the host's clock the rate is a mean.
        missed_s = self.lost_s + (0.0 if self._by_tick else RATE_WINDOW_S) + now - self.fresh_s
        if rate is not None and step / rate > missed_s:
            return f"the robot's clock jumped by {step / rate:.2f} s"
        self.tick, self.fresh_s = tick, now
        self._ticks += step
        time_s = self.time_s = self._time(now)
        recent = self._recent
        recent.append((time_s, now, self._ticks))
        while time_s - recent[1][0] >= RATE_WINDOW_S:
            recent.popleft()
        past, past_now, past_ticks = recent[0]
        window = time_s - past
        if window < RATE_WINDOW_S:
            return ""
        states = len(recent) - 1
        if states < LEAST_RATE * window:
            return f"{states / window:.1f} states a second came, {LEAST_RATE:g} are needed"
        if self._by_tick:
            return ""
        passed = (self._ticks - past_ticks) / (now - past_now)
        if self._rate is None:
            if now - self._began >= 2 * RATE_WINDOW_S:
                self._rate = self._ticks / (now - self._began)
        elif passed / self._rate < LEAST_CLOCK:
            return (
                f"the robot's clock runs at {passed / self._rate:.2f} times its rate at first: "
                "states are older and older"
            )
        return ""
