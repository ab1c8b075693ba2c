"""The controller of a tracking policy: sensor readings in, motor commands out.

Everything it knows of the policy stands in the policy's file: joint order, gains, default pose,
action scale, observation terms, anchor body, motion. It knows no simulator and no transport; MuJoCo
is used for forward kinematics. `docs/policy_files.md` has the formulas.

It stands up (joints move to the motion's first pose, with stiff gains), runs the policy, and at the
motion's end holds the last pose with the policy or returns to standing. What looks dangerous ends
all of it: motors are damped from then on. `envelope` says what that is, and bounds every target.

On order of joints: readings and commands are in the order of the G1's table, which is the robot's
motor order; the policy's values are in its own, `joint_names`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.envelope import Envelope, check_policy
from bm_envs.deploy.estimator import BaseEstimator
from bm_envs.deploy.reference import Alignment, Motion
from bm_envs.errors import ConfigError
from bm_envs.policy import CONTROL_DT, Policy
from bm_envs.robots import g1, mjcf

# Gains for standing without a policy, by a joint name's stem: N m/rad, N m s/rad.
# Source: HybridRobotics/motion_tracking_controller, the standby controller of its G1 configuration.
STANDBY_GAINS = {
    "hip_pitch": (350, 5), "hip_roll": (200, 5), "hip_yaw": (200, 5), "knee": (300, 10),
    "ankle_pitch": (300, 5), "ankle_roll": (150, 5), "waist": (200, 5), "": (40, 3),
}  # fmt: skip
_GAINS = np.array(
    [
        next(gains for stem, gains in STANDBY_GAINS.items() if stem in name)
        for name in g1.JOINT_NAMES
    ],
    float,
)
STANDBY_STIFFNESS, STANDBY_DAMPING = _GAINS.T
# Duration of the return to the default pose, s, and the largest speed of a joint on the way, rad/s.
# Both are ours. A moving robot without its policy soon falls, so that the return must be quick.
RETURN_S, RAMP_RAD_S = 0.33, 3.0


@dataclass(frozen=True, eq=False)
class Sensors:
    """One reading of the sensors, joints in the robot's order."""

    time_s: float
    """Time of the reading, s, by any clock: only differences are used."""
    quat: np.ndarray
    """`[4]` w x y z, orientation of the pelvis in the world."""
    gyro: np.ndarray
    """`[3]`, angular velocity of the pelvis, pelvis axes, rad/s."""
    accel: np.ndarray
    """`[3]`, specific force at `imu_in_pelvis`, pelvis axes, m/s^2; at rest it points up."""
    joint_pos: np.ndarray
    """`[29]`, joint angles, rad."""
    joint_vel: np.ndarray
    """`[29]`, joint velocities, rad/s."""
    base_pos: np.ndarray | None = None
    """`[3]`, pelvis origin, world, m, by a simulator or motion capture; None on a robot alone."""
    base_lin_vel: np.ndarray | None = None
    """`[3]`, velocity of the pelvis origin, world axes, m/s; None on a robot alone."""
    stop: bool = False
    """Whether somebody pressed the stop button."""


@dataclass(frozen=True, eq=False)
class Command:
    """What motors do until the next command: `kp (target - q) - kd qdot + torque`. `[29]` each."""

    joint_pos: np.ndarray
    """Target angle of each joint, rad."""
    stiffness: np.ndarray
    """Stiffness kp, N m/rad."""
    damping: np.ndarray
    """Damping kd, N m s/rad."""
    torque: np.ndarray = field(default_factory=lambda: np.zeros(g1.NUM_JOINTS))
    """Torque in addition, N m; no policy of this family sets it."""


def damped() -> Command:
    """The command in which no motor holds a position and all resist motion: the robot sinks."""
    return Command(np.zeros(g1.NUM_JOINTS), np.zeros(g1.NUM_JOINTS), STANDBY_DAMPING)


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
        phase: `stand`, `run`, `end`, `damping`; `done` when there is nothing left to do.
        frame: of the motion, at which the robot is or should be.
        reason: why motors are damped; empty while they are not.
        alignment: of the motion's world, fixed when the policy takes over.
        base_pos, base_lin_vel: what it takes for true, `[3]`.
        action_s: time of the last call of the policy, observation and all, s.
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
        check_policy(policy)
        self.envelope = Envelope(noise)
        spec = policy.spec
        self.policy, self.motion, self.config = policy, motion, config
        self._to_policy = g1.order_map(g1.JOINT_NAMES, spec.joint_names)
        self._to_robot = spec.action_index()
        self._default = np.array(spec.default_joint_pos)
        self._scale = np.array(spec.action_scale)
        self._stiffness = np.array(spec.in_project_order("joint_stiffness"))
        self._damping = np.array(spec.in_project_order("joint_damping"))
        self._model = mjcf.compile_model()  # for forward kinematics
        self._data = mujoco.MjData(self._model)
        self._anchor = self._model.body(spec.anchor_body_name).id
        self._estimator = BaseEstimator(self._model)
        self._action = np.zeros(g1.NUM_JOINTS, np.float32)
        self.phase: Literal["stand", "run", "end", "damping", "done"] = "stand"
        self.frame, self.late, self.action_s, self.reason = 0, 0, 0.0, ""
        self.alignment = Alignment()
        self.base_pos, self.base_lin_vel = np.zeros(3), np.zeros(3)
        self._time: float | None = None
        self._began = self._next = 0.0
        self._from = np.zeros(g1.NUM_JOINTS)
        self.wanted = self.command = damped()

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
        self._locate(sensors, dt)
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
            self.phase, self.reason, self.command = "damping", reason, damped()

    def observe(self, sensors: Sensors, frame: int) -> np.ndarray:
        """The policy's observation when it is shown a frame of the motion. `[O]` float32."""
        shown = frame + self.config.lead
        ref_joint_pos, ref_joint_vel = self.motion.joints(shown)
        ref_pos, ref_matrix = self._aligned_anchor(shown)
        anchor_pos, anchor_matrix = self._anchor_pose(sensors)
        relative = anchor_matrix.T @ ref_matrix
        terms = {
            "command": np.concatenate([ref_joint_pos, ref_joint_vel]),
            "motion_anchor_pos_b": anchor_matrix.T @ (ref_pos - anchor_pos),
            "motion_anchor_ori_b": relative[:, :2].ravel(),
            "base_lin_vel": rot.quat_rotate_inverse(sensors.quat, self.base_lin_vel),
            "base_ang_vel": sensors.gyro,
            "joint_pos": sensors.joint_pos[self._to_policy] - self._default,
            "joint_vel": sensors.joint_vel[self._to_policy],
            "actions": self._action,
        }
        names = self.policy.spec.observation_names
        return np.concatenate([terms[name] for name in names]).astype(np.float32)

    # --- the pieces, in the order of a step ---

    def _locate(self, sensors: Sensors, dt: float) -> None:
        if self.config.state == "true":
            if sensors.base_pos is None or sensors.base_lin_vel is None:
                raise ConfigError("state is 'true', but this robot tells no position; estimate it.")
            self.base_pos, self.base_lin_vel = sensors.base_pos, sensors.base_lin_vel
            return
        self._estimator.update(
            sensors.quat, sensors.gyro, sensors.accel, sensors.joint_pos, sensors.joint_vel, dt
        )
        self.base_pos, self.base_lin_vel = self._estimator.pos, self._estimator.lin_vel

    def _anchor_pose(self, sensors: Sensors) -> tuple[np.ndarray, np.ndarray]:
        """Position and rotation matrix of the robot's anchor body, by forward kinematics."""
        data = self._data
        data.qpos[:3], data.qpos[3:7], data.qpos[7:] = (
            self.base_pos, sensors.quat, sensors.joint_pos,
        )  # fmt: skip
        mujoco.mj_kinematics(self._model, data)
        return data.xpos[self._anchor].copy(), data.xmat[self._anchor].reshape(3, 3).copy()

    def _aligned_anchor(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        pos, matrix = self.motion.anchor(frame)
        turn = self.alignment.matrix
        return turn @ pos + self.alignment.offset, turn @ matrix

    def _enter(self, phase: Literal["stand", "run", "end"], sensors: Sensors) -> None:
        self.phase, self._began = phase, sensors.time_s
        self._from = sensors.joint_pos
        if phase == "end":
            # So that the standby gains begin with the torque that the policy's ended with.
            last, vel = self.command, sensors.joint_vel
            torque = last.stiffness * (last.joint_pos - sensors.joint_pos) - last.damping * vel
            self._from = sensors.joint_pos + (torque + STANDBY_DAMPING * vel) / STANDBY_STIFFNESS
        if phase == "run":
            self._next = sensors.time_s
            self.alignment = Alignment.of(*self._anchor_pose(sensors), *self.motion.anchor(0))

    def _ramp(self, elapsed: float, seconds: float) -> Command:
        """To the default pose with the standby gains, in `seconds` or as long as a joint takes."""
        way = self._default[self._to_robot] - self._from
        # A smooth step, which begins and ends at rest, is 1.5 times as fast in its middle.
        share = np.minimum(elapsed / np.maximum(seconds, 1.5 * np.abs(way) / RAMP_RAD_S), 1.0)
        target = self._from + share * share * (3 - 2 * share) * way
        return Command(target, STANDBY_STIFFNESS, STANDBY_DAMPING)

    def _act(self, sensors: Sensors) -> None:
        """One control step of the policy."""
        began = time.perf_counter()
        action = self.policy(self.observe(sensors, self.frame)[None])[0]
        self.action_s = time.perf_counter() - began
        if not np.isfinite(action).all():
            self.stop("the policy's action is not finite")
            return
        self._action = action
        target = (self._default + self._scale * action)[self._to_robot]
        self.wanted = Command(target, self._stiffness, self._damping)
        self.frame += 1
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
        up = self._anchor_pose(sensors)[1][2]
        expected = np.array([0.0, 0.0, 1.0])
        if self.phase == "run" or self.config.at_end == "hold" and self.phase == "end":
            expected = self.motion.anchor(self.frame)[1][2]
        tilt = np.degrees(np.arctan2(np.linalg.norm(rot.cross(up, expected)), up @ expected))
        if tilt > self.config.max_tilt_deg:
            return f"tilted by {tilt:.0f} degrees, at most {self.config.max_tilt_deg:g} are allowed"
        low, high = g1.JOINT_RANGE.T
        beyond = np.maximum(low - sensors.joint_pos, sensors.joint_pos - high)
        worst = int(beyond.argmax())
        if beyond[worst] > self.config.joint_margin:
            return (
                f"{g1.JOINT_NAMES[worst]} is at {sensors.joint_pos[worst]:.2f} rad, "
                f"{beyond[worst]:.2f} rad beyond its range"
            )
        return ""
