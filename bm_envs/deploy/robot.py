"""A G1 in MuJoCo that stands in for the robot: motor commands in, sensor readings out.

What a robot has and a training environment may not: drives that run their PD law at the physics
rate with a torque limit, commands and readings that arrive late, noisy sensors, bodies that collide
with each other, and whatever contact the ground is given.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.errors import ConfigError
from bm_envs.robots import g1, mjcf
from bm_envs.robots.robot import Robot

SENSOR_DT = 0.002  # s between readings, as on the G1's topic rt/lowstate
PHYSICS_RATES = (500, 1000, 2000)
# Half-widths of the uniform noise of training (whole_body_tracking, tracking_env_cfg.py). The
# accelerometer has none there; its figure is ours.
NOISE = {
    "orientation": 0.05, "gyro": 0.2, "accel": 0.3, "joint_pos": 0.01, "joint_vel": 0.5,
    "base_pos": 0.25, "base_lin_vel": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class RobotConfig:
    """The stand-in robot and its world."""

    physics_hz: int = 1000
    """Physics steps in a second: 500, 1000 or 2000."""
    feet: Literal["spheres", "capsules"] = "capsules"
    """Foot contact shape; policies of this project were trained with spheres."""
    self_collision: bool = True
    """Whether links collide with each other, too."""
    contact_s: float = 0.02
    """Time constant of contacts, s: larger is softer. MuJoCo's own is 0.02."""
    friction: float = mjcf.FOOT_FRICTION
    """Sliding friction of the feet."""
    effort_scale: float = 1.0
    """Torque limit of every motor as a share of the robot's."""
    command_ms: float = 0.0
    """Delay of commands on their way to the motors, ms."""
    sensor_ms: float = 0.0
    """Delay of readings on their way to the controller, ms."""
    noise: float = 0.0
    """Sensor noise as a multiple of that in training."""

    def __post_init__(self) -> None:
        if self.physics_hz not in PHYSICS_RATES:
            raise ConfigError(f"physics_hz is {self.physics_hz}, expected 500, 1000 or 2000.")
        if self.feet not in ("spheres", "capsules"):
            raise ConfigError(f"feet is '{self.feet}', expected 'spheres' or 'capsules'.")
        if not 2 / self.physics_hz <= self.contact_s <= 1:
            raise ConfigError(
                f"contact_s is {self.contact_s}, expected 1 s at most and two physics steps at "
                f"least ({2 / self.physics_hz:g} s at {self.physics_hz} Hz)."
            )
        for name in ("friction", "effort_scale"):
            if not 0 < getattr(self, name) <= 10:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected more than 0, up to 10."
                )
        for name in ("command_ms", "sensor_ms"):
            if not 0 <= getattr(self, name) <= 500:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 500 ms.")
        if not 0 <= self.noise <= 100:
            raise ConfigError(f"noise is {self.noise}, expected 0 to 100.")


class SimulatedRobot:
    """One robot, its sensors and its motors; `step` is `SENSOR_DT` long.

    Attributes:
        model, data: MuJoCo's; the truth, for figures and pictures.
        saturated: motor-steps so far at the torque limit, and of how many.
    """

    def __init__(
        self, config: RobotConfig = RobotConfig(), *, seed: int = 0, robot: Robot = g1.G1
    ) -> None:
        self.config, self.robot = config, robot
        self._rng = np.random.default_rng(seed)
        spec = mujoco.MjSpec.from_string(
            mjcf.build_mjcf(
                mjcf.ModelConfig(
                    feet=config.feet, self_collision=config.self_collision,
                    physics_dt=1 / config.physics_hz, robot=robot.name,
                )
            )
        )  # fmt: skip
        spec.add_sensor(
            type=mujoco.mjtSensor.mjSENS_ACCELEROMETER, objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname="imu_in_pelvis",
        )  # fmt: skip
        self.model = spec.compile()
        self.model.geom_solref[:, 0] = config.contact_s
        self.model.geom_friction[mjcf.foot_geoms(self.model), 0] = config.friction
        limit = config.effort_scale * robot.effort_limit
        self.model.actuator_forcerange[:] = np.stack([-limit, limit], axis=1)
        self._limit = limit
        self.data = mujoco.MjData(self.model)
        self._substeps = round(config.physics_hz * SENSOR_DT)
        self.saturated, self.motor_steps = 0, 0
        self._due: deque[tuple[int, Command]] = deque()  # physics step at which it takes effect
        self._readings: deque[Sensors] = deque(maxlen=1 + round(config.sensor_ms / 1e3 / SENSOR_DT))
        self._physics_steps = 0

    @property
    def time_s(self) -> float:
        return self._physics_steps / self.config.physics_hz

    def reset(self, qpos: np.ndarray, qvel: np.ndarray | None = None) -> None:
        """Put the robot into a state, with limp motors; time begins again.

        Args:
            qpos: `[36]`: root position, root quaternion w x y z, joints.
            qvel: `[35]`: linear velocity in world axes, angular in the pelvis's, joints.
        """
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos, 0.0 if qvel is None else qvel
        limp = np.zeros(self.robot.num_joints)
        self._set_motors(Command(limp, limp, limp))
        mujoco.mj_forward(self.model, self.data)
        self._due.clear()
        self._readings.clear()
        self._physics_steps = self.saturated = self.motor_steps = 0
        self._read()

    def stand(self, joint_pos: np.ndarray) -> None:
        """Put the robot upright at the origin, soles on the ground. `joint_pos` `[29]`, rad."""
        self.reset(np.concatenate([(0, 0, 1, 1, 0, 0, 0), joint_pos]))
        geoms = mjcf.foot_geoms(self.model)
        bottom = self.data.geom_xpos[geoms, 2] - self.model.geom_size[geoms, 0]
        # A capsule's end is lower than its middle by its half length times its axis's slope.
        bottom -= np.where(
            self.model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE,
            np.abs(self.data.geom_xmat[geoms, 8]) * self.model.geom_size[geoms, 1], 0.0,
        )  # fmt: skip
        height = 1 - bottom.min()
        self.reset(np.concatenate([(0, 0, height, 1, 0, 0, 0), joint_pos]))

    def hang(self) -> None:
        """Read the sensors anew, as of a robot that something holds where it is.

        What an accelerometer reads depends on what carries the robot: after a reset nothing does.
        """
        held = rot.quat_rotate_inverse(self.data.qpos[3:7], -self.model.opt.gravity)
        self.data.sensordata[:3] = held
        self._readings.clear()
        self._read()

    def apply(self, command: Command) -> None:
        """Send a command to the motors; it holds until another arrives."""
        delay = round(self.config.command_ms / 1e3 * self.config.physics_hz)
        self._due.append((self._physics_steps + delay, command))

    def push(self, jump: np.ndarray) -> None:
        """Let the root's velocity over the ground jump by `jump [2]`, m/s, world, at once.

        The newest reading knows nothing of it yet, and no accelerometer ever does.
        """
        self.data.qvel[:2] += jump

    def sense(self) -> Sensors:
        """The newest reading that has arrived."""
        return self._readings[0]

    def step(self) -> None:
        """Step the physics up to the next reading."""
        for _ in range(self._substeps):
            while self._due and self._due[0][0] <= self._physics_steps:
                self._set_motors(self._due.popleft()[1])
            mujoco.mj_step(self.model, self.data)
            self._physics_steps += 1
            full = np.abs(self.data.actuator_force) >= 0.999 * self._limit
            self.saturated += int(full.sum())
            self.motor_steps += full.size
        self._read()

    def diverged(self) -> bool:
        """Whether the state has a value that is not finite."""
        warned = self.data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number > 0
        return bool(warned or not np.isfinite(self.data.qpos).all())

    def _set_motors(self, command: Command) -> None:
        """The motors' law, kp (target - q) - kd qdot + torque, as MuJoCo's affine actuator.

        Inside the engine it is integrated implicitly, so that it does not ring at 500 Hz.
        """
        self.model.actuator_gainprm[:, 0] = command.stiffness
        self.model.actuator_biasprm[:, 0] = command.torque
        self.model.actuator_biasprm[:, 1] = -command.stiffness
        self.model.actuator_biasprm[:, 2] = -command.damping
        self.data.ctrl[:] = command.joint_pos

    def _read(self) -> None:
        data, noise = self.data, self.config.noise
        values: dict[str, Any] = {
            "gyro": data.qvel[3:6], "accel": data.sensordata[:3],  # of one physics step ago
            "joint_pos": data.qpos[7:], "joint_vel": data.qvel[6:], "base_pos": data.qpos[:3],
            "base_lin_vel": data.qvel[:3],
        }  # fmt: skip
        quat = data.qpos[3:7].copy()
        if noise:
            values = {
                name: value + noise * NOISE[name] * self._rng.uniform(-1, 1, value.shape)
                for name, value in values.items()
            }
            turn = noise * NOISE["orientation"] * self._rng.uniform(-1, 1, 3)
            quat = rot.quat_mul(quat, rot.quat_from_axis_angle(turn))
        # Copies: the engine writes the next state where this one stands.
        copies: dict[str, Any] = {name: np.array(value) for name, value in values.items()}
        self._readings.append(Sensors(time_s=self.time_s, quat=rot.quat_normalize(quat), **copies))
