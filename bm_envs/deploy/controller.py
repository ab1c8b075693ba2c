"""The controller of a tracking policy: sensor readings in, motor commands out.

`tracker` is the policy at work; this is what is around it. It knows no simulator and no transport;
MuJoCo is used for the estimator's forward kinematics.

It stands up (joints move to the motion's first pose, with stiff gains), runs the policy, and at the
motion's end holds the last pose with the policy or returns to standing. What looks dangerous ends
all of it: motors are damped from then on. `envelope` says what that is, and bounds every target.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.envelope import Envelope
from bm_envs.deploy.estimator import BaseEstimator
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.deploy.reference import Alignment, Motion
from bm_envs.deploy.tracker import Tracker
from bm_envs.errors import ConfigError, PolicyError
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


@dataclass(frozen=True)
class ControllerConfig:
    """What the controller does before, after and instead of the motion."""

    state: Literal["true", "estimated"] = "true"
    """Base position and velocity: as the simulator tells them, or estimated from inertial unit and
    legs, as on a robot."""
    stand_s: float = 2.0
    """Seconds of standing up before the motion, two thirds of them moving; 0: none."""
    at_end: Literal["stand", "hold"] = "stand"
    """At the motion's end: return to the default pose without the policy, or let the policy hold
    the motion's last pose, which not every policy can."""
    end_s: float | None = 2.0
    """Duration of that, s; none: until something stops it."""
    lead: Literal[0, 1] = 1
    """Frames by which the reference that the policy sees is ahead of the robot."""
    max_tilt_deg: float = 60.0
    """Stop when the anchor body's tilt is off the reference's by more than this."""
    joint_margin: float = 0.15
    """Stop when a joint is beyond its range by more than this, rad."""

    def __post_init__(self) -> None:
        for name, choices in (("state", ("true", "estimated")), ("at_end", ("stand", "hold"))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} is '{getattr(self, name)}', expected '{choices[0]}' or '{choices[1]}'."
                )
        for name, limit in (("stand_s", 60.0), ("end_s", 3600.0)):
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


class Controller:
    """One policy at work.

    Attributes:
        tracker: the policy on its motion, which begins when the policy takes over.
        phase: `stand`, `run`, `end`, `damping`; `done` when there is nothing left to do.
        robot: the one that the policy is for.
        reason: why motors are damped; empty while they are not.
        base_pos, base_lin_vel: what it takes for true, `[3]`.
        late: control steps that came more than a whole step late.
        envelope: what readings and commands are held to.
        wanted: the command before the envelope bounded it.
    """

    def __init__(
        self, policy: Policy, motion: Motion, config: ControllerConfig = ControllerConfig(), *,
        noise: float = 0.0,
    ) -> None:  # fmt: skip
        """Make a controller that is ready to stand up.

        Args:
            policy: the policy.
            motion: what it is to follow.
            config: what happens before, after and instead of the motion.
            noise: of the readings, as a multiple of that in training; of a simulation.

        Raises:
            PolicyError: gains, scales or the default pose are none for a robot.
        """
        self.tracker = Tracker(policy, motion, lead=config.lead)
        self.robot = policy.spec.robot
        self._standby = standby_gains(self.robot)
        self.envelope = Envelope(noise, self.robot)
        self.config = config
        model = mjcf.compile_model(mjcf.ModelConfig(robot=self.robot.name))
        self._estimator = BaseEstimator(model, self.robot)
        self.phase: Literal["stand", "run", "end", "damping", "done"] = "stand"
        self.late, self.reason = 0, ""
        self.base_pos, self.base_lin_vel = np.zeros(3), np.zeros(3)
        self._time: float | None = None
        self._began = self._next = 0.0
        self._from = np.zeros(self.robot.num_joints)
        self.wanted = self.command = damped(self.robot)

    def step(self, sensors: Sensors) -> Command:
        """The command for a reading; call it for every reading there is, not only at 50 Hz."""
        first = self._time is None
        dt = 0.0 if self._time is None else sensors.time_s - self._time
        self._time = sensors.time_s
        if not self._finite(sensors):
            self.stop("a reading of the sensors is not a finite number")
            return self.command
        if self.phase in ("stand", "run", "end") and (forbidden := self.envelope.look(sensors)):
            self.stop(forbidden)
        if self.phase == "damping":
            return self.command
        sensors = self._locate(sensors, dt)
        if first:
            self._enter("stand" if self.config.stand_s else "run", sensors)
        if self.phase in ("stand", "run", "end"):
            danger = self._danger(sensors)
            if danger := danger or self.envelope.compare(sensors):
                self.stop(danger)
        elapsed = sensors.time_s - self._began
        due = sensors.time_s >= self._next - 1e-6
        if self.phase == "stand" and elapsed >= self.config.stand_s:
            self._enter("run", sensors)
            due = True
        elif self.phase == "run" and due and self.frame == self.motion.frames - 1:
            self._enter("end", sensors)
            elapsed = 0.0
        if self.phase == "end" and self.config.end_s is not None and elapsed >= self.config.end_s:
            self.phase = "done"
        is_new = True
        if self.phase == "stand":
            self.wanted = self._ramp(elapsed, self.config.stand_s / 1.5)  # and then it settles
        elif self.phase == "end" and self.config.at_end == "stand":
            self.wanted = self._ramp(elapsed, RETURN_S)
        elif self.phase in ("run", "end") and due:
            self._act(sensors)
        else:
            is_new = False
        if self.phase in ("stand", "run", "end"):
            self.command, trouble = self.envelope.bound(
                self.wanted, sensors.joint_pos, sensors.time_s, is_new=is_new
            )
            if trouble:
                self.stop(trouble)
        return self.command

    def stop(self, reason: str) -> None:
        """Damp the motors, for good."""
        if self.phase != "damping":
            self.phase, self.reason, self.command = "damping", reason, damped(self.robot)

    @property
    def motion(self) -> Motion:
        """What the policy follows."""
        return self.tracker.motion

    @property
    def frame(self) -> int:
        """Of the motion, at which the robot is or should be."""
        return self.tracker.frame

    @property
    def alignment(self) -> Alignment:
        """Of the motion's world, fixed when the policy takes over."""
        return self.tracker.alignment

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

    def _enter(self, phase: Literal["stand", "run", "end"], sensors: Sensors) -> None:
        self.phase, self._began = phase, sensors.time_s
        self._from = sensors.joint_pos
        if phase == "end":
            # So that the standby gains begin with the torque that the policy's ended with.
            last, vel = self.command, sensors.joint_vel
            torque = last.stiffness * (last.joint_pos - sensors.joint_pos) - last.damping * vel
            stiffness, damping = self._standby
            self._from = sensors.joint_pos + (torque + damping * vel) / stiffness
        if phase == "run":
            self._next = sensors.time_s
            self.tracker.begin(sensors)

    def _ramp(self, elapsed: float, seconds: float) -> Command:
        """To the default pose with the standby gains, in `seconds` or as long as a joint takes."""
        way = self.tracker.default_joint_pos - self._from
        # A smooth step, which begins and ends at rest, is 1.5 times as fast in its middle.
        share = np.minimum(elapsed / np.maximum(seconds, 1.5 * np.abs(way) / RAMP_RAD_S), 1.0)
        target = self._from + share * share * (3 - 2 * share) * way
        stiffness, damping = self._standby
        return Command(target, stiffness, damping)

    def _act(self, sensors: Sensors) -> None:
        """One control step of the policy."""
        try:
            self.wanted = self.tracker.act(sensors)
        except (ConfigError, PolicyError) as error:  # a bad estimate, a bad action
            self.stop(str(error))
            return
        self._next += CONTROL_DT
        is_late = sensors.time_s > self._next
        if is_late:  # lost time is not made up for: the motion just goes on
            self.late += 1
            self._next = sensors.time_s + CONTROL_DT
        if trouble := self.envelope.steps(is_late):
            self.stop(trouble)

    def _finite(self, sensors: Sensors) -> bool:
        values = [sensors.quat, sensors.gyro, sensors.accel, sensors.joint_pos, sensors.joint_vel]
        values += [x for x in (sensors.base_pos, sensors.base_lin_vel) if x is not None]
        return bool(np.isfinite(np.concatenate(values)).all())

    def _danger(self, sensors: Sensors) -> str:
        """Why to stop, or nothing."""
        if sensors.stop:
            return "the stop button was pressed"
        # Directions of up, seen from the anchor body: they differ by the tilt, not by the heading.
        up = self.tracker.anchor_pose(sensors)[1][2]
        expected = np.array([0.0, 0.0, 1.0])
        if self.phase == "run" or self.config.at_end == "hold" and self.phase == "end":
            expected = self.motion.anchor(self.frame)[1][2]
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
