"""The controller of a policy: sensor readings in, motor commands out.

One file because a control step is read from its top to its bottom.

`tracker` and `planned` are policies at work; this is what is around one. It knows no simulator and
no transport; MuJoCo is used for the estimator's forward kinematics.

It stands up (joints move to the default pose, with stiff gains), blends into the policy, runs it,
and at the end goes over to a standing policy that balances (`balance`), until another motion is
asked for. What looks dangerous ends all of it: motors are damped from then on. `envelope` says what
that is, and bounds every target; `procedure` is the table of states and events.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy import procedure
from bm_envs.deploy.actor import Actor
from bm_envs.deploy.balance import Balance
from bm_envs.deploy.envelope import Envelope
from bm_envs.deploy.estimator import BaseEstimator
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.deploy.reference import Alignment, Reference
from bm_envs.deploy.tracker import Tracker
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.motion.smoothing import smoothstep
from bm_envs.policy import CONTROL_DT, Policy
from bm_envs.robots import g1, mjcf
from bm_envs.robots.robot import Robot

# Gains for standing without a policy, by a joint name's stem: N m/rad, N m s/rad.
# Source: HybridRobotics/motion_tracking_controller, the standby controller of its G1 configuration.
STANDBY_GAINS = {
    "hip_pitch": (350, 5), "hip_roll": (200, 5), "hip_yaw": (200, 5), "knee": (300, 10),
    "ankle_pitch": (300, 5), "ankle_roll": (150, 5), "waist": (200, 5), "": (40, 3),
}  # fmt: skip


def standby_gains(robot: Robot) -> np.ndarray:
    """Stiffness and damping of a robot that stands without a policy. `[2, J]`."""
    gains = [
        next(gains for stem, gains in STANDBY_GAINS.items() if stem in name)
        for name in robot.joint_names
    ]
    return np.array(gains, float).T


STANDBY_STIFFNESS, STANDBY_DAMPING = standby_gains(g1.G1)
# Duration of the return to the default pose, s, and the largest speed of a joint on the way, rad/s.
# Both are ours. A moving robot without its policy soon falls, so that the return must be quick.
RETURN_S, RAMP_RAD_S = 0.33, 3.0


def damped(robot: Robot = g1.G1) -> Command:
    """The command in which no motor holds a position and all resist motion: the robot sinks."""
    zeros = np.zeros(robot.num_joints)
    return Command(zeros, zeros, standby_gains(robot)[1])


def _between(first: Command, second: Command, share: float) -> Command:
    """Targets, gains and torques by `share` of the way from one command to another."""
    if share >= 1:
        return second
    return Command(*(
        (1 - share) * getattr(first, name) + share * getattr(second, name)
        for name in ("joint_pos", "stiffness", "damping", "torque")
    ))  # fmt: skip


@dataclass(frozen=True)
class ControllerConfig:
    """What the controller does before, after and instead of the motion."""

    state: Literal["true", "estimated"] = "true"
    """Base position and velocity: as the simulator tells them, or estimated from inertial unit and
    legs, as on a robot."""
    stand_s: float = 2.0
    """Seconds of standing up before the motion, two thirds of them moving; 0: none."""
    blend_s: float = 0.1
    """Seconds in which the policy takes over from what acted before, targets and gains in step."""
    at_end: Literal["balance", "stand", "hold"] = "balance"
    """At the motion's end: let the standing policy `balance` bring the robot to a stand (a G1 with
    29 joints; another robot does as for `stand`); return to the default pose without a policy; or
    let the motion's policy hold its last pose, which not every policy can."""
    end_blend_s: float = 0.0
    """Seconds in which the standing policy takes over. In mid-stride there is no time to lose."""
    end_s: float | None = 4.0
    """Duration of that, s; none: until something stops it."""
    lead: Literal[0, 1] = 1
    """Frames by which the reference that the policy sees is ahead of the robot."""
    max_tilt_deg: float = 60.0
    """Stop when the anchor body's tilt is off the reference's by more than this."""
    joint_margin: float = 0.15
    """Stop when a joint is beyond its range by more than this, rad."""

    def __post_init__(self) -> None:
        for name, choices in (
            ("state", ("true", "estimated")), ("at_end", ("balance", "stand", "hold")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                *others, last = (f"'{choice}'" for choice in choices)
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected {', '.join(others)} or {last}."
                )
        for name, limit in (
            ("stand_s", 60.0), ("blend_s", 10.0), ("end_blend_s", 10.0), ("end_s", 3600.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0 <= value <= limit:
                raise ConfigError(f"{name} is {value}, expected 0 to {limit:g} s.")
        if self.lead not in (0, 1):
            raise ConfigError(f"lead is {self.lead}, expected 0 or 1.")
        if not 0 < self.max_tilt_deg <= 180:
            raise ConfigError(
                f"max_tilt_deg is {self.max_tilt_deg}, expected more than 0, up to 180."
            )
        if not 0 <= self.joint_margin <= 10:
            raise ConfigError(f"joint_margin is {self.joint_margin}, expected 0 to 10 rad.")


class ActorController:
    """One actor at work, and all that is around it.

    Attributes:
        actor: what acts between standing up and the end.
        robot: the one that it is for.
        balance: the standing policy; None where `at_end` is another, or the robot has none.
        phase: the state, of `procedure`; `done` when there is nothing left to do.
        reason: why motors are damped; empty while they are not.
        base_pos, base_lin_vel: what it takes for true, `[3]`.
        late: control steps that came more than a whole step late, or had no action in any plan.
        envelope: what readings and commands are held to.
        wanted: the command before the envelope bounded it.
    """

    def __init__(
        self, actor: Actor, config: ControllerConfig = ControllerConfig(), *, noise: float = 0.0,
        balance: Balance | None = None,
    ) -> None:  # fmt: skip
        """Make a controller that is ready to stand up.

        Args:
            actor: what acts; it has begun nothing yet.
            config: what happens before, after and instead of that.
            noise: of the readings, as a multiple of that in training; of a simulation.
            balance: the standing policy, where `at_end` asks for one; None: the shipped one.
        """
        self.actor, self.robot = actor, actor.robot
        self._standby = standby_gains(self.robot)
        self.envelope = Envelope(noise, self.robot)
        self.config = config
        model = mjcf.ModelConfig(robot=self.robot.name)
        self._estimator = BaseEstimator(mjcf.compile_model(model), self.robot)
        balances = config.at_end == "balance" and self.robot is g1.G1
        self.balance = (balance or Balance()) if balances else None
        self.phase: procedure.State = "off"
        self.late, self.reason = 0, ""
        self.base_pos, self.base_lin_vel = np.zeros(3), np.zeros(3)
        self._time: float | None = None
        self._began = self._next = 0.0
        self._from = np.zeros(self.robot.num_joints)
        self._before: Command | None = None
        self._following: Actor | None = None
        self.wanted = self.command = damped(self.robot)

    def step(self, sensors: Sensors) -> Command:
        """The command for a reading; call it for every reading there is, not only at 50 Hz."""
        first = self._time is None
        dt = 0.0 if self._time is None else sensors.time_s - self._time
        self._time = sensors.time_s
        if not self._finite(sensors):
            self.stop("a reading of the sensors is not a finite number")
            return self.command
        if self.phase not in ("damping", "done") and (forbidden := self.envelope.look(sensors)):
            self.stop(forbidden)
        if self.phase == "damping":
            return self.command
        sensors = self._locate(sensors, dt)
        if first:
            self._enter("begin" if self.config.stand_s else "begin at once", sensors)
        if self.phase in ("stand", "run", "end"):
            danger = self._danger(sensors)
            if danger := danger or self.envelope.compare(sensors):
                self.stop(danger)
        elapsed = sensors.time_s - self._began
        due = sensors.time_s >= self._next - 1e-6
        if self.phase == "stand" and elapsed >= self.config.stand_s:
            self._enter("stood", sensors)
            due = True
        elif self.phase == "run" and due and self.actor.is_done:
            self._enter("last frame", sensors)
            elapsed = 0.0
        elif self.phase == "run" and due and self._following is not None:
            self._enter("next", sensors)
            elapsed = 0.0
        elif self.phase == "end" and self._following is not None and self.is_still:
            self.actor, self._following = self._following, None
            self._enter("still", sensors)
            due = True
        if self.phase == "end" and self.config.end_s is not None and elapsed >= self.config.end_s:
            self.phase = procedure.after("end", "over")
        is_new = True
        if self.phase == "stand":
            self.wanted = self._ramp(elapsed, self.config.stand_s / 1.5)  # and then it settles
        elif self.phase == "end" and self.balance is None and self.config.at_end != "hold":
            self.wanted = self._ramp(elapsed, RETURN_S)
        elif self.phase in ("run", "end"):
            is_new = self._act(sensors) if due else self._renew(sensors)
        if self.phase in ("stand", "run", "end"):
            self.command, trouble = self.envelope.bound(
                self.wanted, sensors.joint_pos, sensors.time_s, is_new=is_new
            )
            if trouble:
                self.stop(trouble)
        return self.command

    @property
    def is_still(self) -> bool:
        """Whether the standing policy has brought the robot to a stand."""
        return self.phase == "end" and self.balance is not None and self.balance.is_still

    def play(self, tracker: Tracker) -> None:
        """Go on to another motion, by way of a balanced stand; before the first, in its place.

        Raises:
            ConfigError: `at_end` is not 'balance'.
        """
        if self.balance is None:
            raise ConfigError(
                f"at_end is '{self.config.at_end}', expected 'balance': between two motions the "
                "robot stands."
            )
        tracker.reset()
        if self.phase in ("off", "stand"):
            self.actor = tracker
        else:
            self._following = tracker

    def stop(self, reason: str) -> None:
        """Damp the motors, for good."""
        if self.phase != "damping":
            self.phase, self.reason, self.command = "damping", reason, damped(self.robot)

    @property
    def frame(self) -> int:
        """Control steps that were begun: of a motion, the frame at which the robot should be."""
        return self.actor.frame

    # --- the pieces, in the order of a step ---

    def _locate(self, sensors: Sensors, dt: float) -> Sensors:
        """The reading with the base's place and velocity in it."""
        if self.config.state == "true":
            if sensors.base_pos is None or sensors.base_lin_vel is None:
                raise ConfigError("state is 'true', but this robot tells no position; estimate it.")
            self.base_pos, self.base_lin_vel = sensors.base_pos, sensors.base_lin_vel
            return sensors
        self._estimator.update(
            sensors.quat, sensors.gyro, sensors.accel, sensors.joint_pos, sensors.joint_vel, dt
        )
        self.base_pos, self.base_lin_vel = self._estimator.pos, self._estimator.lin_vel
        return dataclasses.replace(sensors, base_pos=self.base_pos, base_lin_vel=self.base_lin_vel)

    def _enter(self, event: procedure.Event, sensors: Sensors) -> None:
        before, self.phase = self.phase, procedure.after(self.phase, event)
        self._began, self._from = sensors.time_s, sensors.joint_pos
        # What the next one takes over from; nobody, where there was none or it stays.
        stays = before == "off" or self.phase == "end" and self.balance is None
        self._before = None if stays else self.command
        if self.phase == "end" and self.balance is not None:
            self.balance.begin(sensors)
        elif self.phase == "end":
            # So that the standby gains begin with the torque that the policy's ended with.
            last, vel = self.command, sensors.joint_vel
            torque = last.stiffness * (last.joint_pos - sensors.joint_pos) - last.damping * vel
            stiffness, damping = self._standby
            self._from = sensors.joint_pos + (torque + damping * vel) / stiffness
        if self.phase == "run":
            self._next = sensors.time_s
            if not self.config.stand_s:  # until the actor's first command
                self.wanted = Command(sensors.joint_pos, *self._standby)
            self.actor.begin(sensors)

    def _ramp(self, elapsed: float, seconds: float) -> Command:
        """To the default pose with the standby gains, in `seconds` or as long as a joint takes."""
        way = self.actor.default_joint_pos - self._from
        # A smooth step, which begins and ends at rest, is 1.5 times as fast in its middle.
        share = np.minimum(elapsed / np.maximum(seconds, 1.5 * np.abs(way) / RAMP_RAD_S), 1.0)
        target = self._from + smoothstep(share) * way
        return Command(target, *self._standby)

    def _acting(self) -> Actor | Balance:
        """What has the robot; one that holds its last pose at the end goes on as before."""
        return self.balance if self.phase == "end" and self.balance is not None else self.actor

    def _take(self, command: Command | None, sensors: Sensors) -> bool:
        """Want a new command, blended in where another one acted before; is there one?"""
        if command is None:
            return False
        if self._before is not None:
            blend_s = self.config.end_blend_s if self.phase == "end" else self.config.blend_s
            share = (sensors.time_s - self._began) / blend_s if blend_s else 1.0
            command = _between(self._before, command, share)
        self.wanted = command
        return True

    def _act(self, sensors: Sensors) -> bool:
        """One control step of what has the robot; is its command a new one?"""
        acting = self._acting()
        try:
            command = acting.act(sensors)
        except (ConfigError, PolicyError) as error:  # a bad estimate, a bad action
            self.stop(str(error))
            return False
        is_new = self._take(command, sensors)
        self._next += CONTROL_DT
        is_late = sensors.time_s > self._next
        if is_late:  # lost time is not made up for: the motion just goes on
            self._next = sensors.time_s + CONTROL_DT
        is_late = is_late or acting is self.actor and self.actor.is_late
        self.late += is_late
        if trouble := self.envelope.steps(is_late):
            self.stop(trouble)
        return is_new

    def _renew(self, sensors: Sensors) -> bool:
        """What the actor has to add to its control step; is there anything?"""
        if self._acting() is not self.actor:
            return False
        try:
            command = self.actor.renew(sensors)
        except (ConfigError, PolicyError) as error:
            self.stop(str(error))
            return False
        return self._take(command, sensors)

    def _finite(self, sensors: Sensors) -> bool:
        values = [sensors.quat, sensors.gyro, sensors.accel, sensors.joint_pos, sensors.joint_vel]
        values += [x for x in (sensors.base_pos, sensors.base_lin_vel) if x is not None]
        return bool(np.isfinite(np.concatenate(values)).all())

    def _danger(self, sensors: Sensors) -> str:
        """Why to stop, or nothing."""
        if sensors.stop:
            return "the stop button was pressed"
        acts = self.phase == "run" or self.config.at_end == "hold" and self.phase == "end"
        up, expected = self.actor.leaning(sensors, expected=acts)
        tilt = np.degrees(np.arctan2(np.linalg.norm(rot.cross(up, expected)), up @ expected))
        if tilt > self.config.max_tilt_deg:
            return f"tilted by {tilt:.0f} degrees, at most {self.config.max_tilt_deg:g} are allowed"
        low, high = self.robot.joint_range.T
        beyond = np.maximum(low - sensors.joint_pos, sensors.joint_pos - high)
        worst = int(beyond.argmax())
        if beyond[worst] > self.config.joint_margin:
            return (
                f"{self.robot.joint_names[worst]} is at {sensors.joint_pos[worst]:.2f} rad, "
                f"{beyond[worst]:.2f} rad beyond its range"
            )
        return ""


class Controller(ActorController):
    """One tracking policy at work, on one motion after another."""

    def __init__(
        self, policy: Policy, motion: Reference, config: ControllerConfig = ControllerConfig(), *,
        noise: float = 0.0, balance: Balance | None = None,
    ) -> None:  # fmt: skip
        """Make a controller that is ready to stand up.

        Args:
            policy: the policy.
            motion: what it is to follow.
            config: what happens before, after and instead of the motion.
            noise: of the readings, as a multiple of that in training; of a simulation.
            balance: the standing policy, where `at_end` asks for one; None: the shipped one.

        Raises:
            PolicyError: gains, scales or the default pose are none for a robot.
        """
        tracker = Tracker(policy, motion, lead=config.lead)
        super().__init__(tracker, config, noise=noise, balance=balance)

    @property
    def tracker(self) -> Tracker:
        """The policy on its motion, which begins when the policy takes over."""
        assert isinstance(self.actor, Tracker)
        return self.actor

    @property
    def motion(self) -> Reference:
        """What the policy follows."""
        return self.tracker.motion

    @property
    def alignment(self) -> Alignment:
        """Of the motion's world, fixed when the policy takes over."""
        return self.tracker.alignment
