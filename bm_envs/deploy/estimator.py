"""Where the base is and how fast it moves, from an inertial unit and the legs alone.

A complementary filter: the accelerometer tells fast changes of velocity, the legs slow ones, since
the lowest point of a foot that carries the robot is at rest for a moment. Heights follow from the
legs as well; the horizontal place is the integral of the velocity and drifts. The ground is taken
to be flat and level at height 0, and the orientation is the inertial unit's own.
"""

from __future__ import annotations

import mujoco
import numpy as np

from bm_envs import rotations as rot
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot

GRAVITY = np.array([0.0, 0.0, -9.81])
IMU_POS = np.array(next(site.pos for site in g1.SITES if site.name == "imu_in_pelvis"))
# All figures are ours, chosen on the built-in clip `walk_to_stand`, on which nothing is reported.
VELOCITY_S, HEIGHT_S = 0.06, 0.05  # s, time constants towards the legs' estimate
POINT_M, FOOT_M = 0.004, 0.01  # m, heights over which a higher point, or foot, loses its weight
SLIP_M_S, LEAST_TRUST = 0.3, 0.02  # m/s, error at which a foot loses trust, and its least trust
# m/s^2 of upward specific force at the base: below the first the robot falls freely (a jump), from
# the second on the legs are trusted in full.
FREE_FALL, CARRIED = 2.0, 6.0


class BaseEstimator:
    """Position and velocity of the pelvis origin.

    Attributes:
        pos: `[3]`, world, m; x and y begin at 0 and drift.
        lin_vel: `[3]`, world axes, m/s.
    """

    def __init__(self, model: mujoco.MjModel, robot: Robot = g1.G1) -> None:
        """`model` is the robot's of `robots.mjcf`, used for its kinematics."""
        self._model, self._data = model, mujoco.MjData(model)
        self._feet = [model.body(name).id for name in robot.foot_bodies]
        self._soles = np.array(
            [
                [geom.start for geom in robot.foot_spheres if geom.body == name]
                for name in robot.foot_bodies
            ]
        )
        self._soles[..., 2] = g1.SOLE_HEIGHT
        self.pos, self.lin_vel = np.zeros(3), np.zeros(3)
        self._imu_vel: np.ndarray | None = None

    def update(
        self, quat: np.ndarray, gyro: np.ndarray, accel: np.ndarray, joint_pos: np.ndarray,
        joint_vel: np.ndarray, dt: float,
    ) -> None:  # fmt: skip
        """Take one reading of the sensors.

        Args:
            quat: `[4]` w x y z, orientation of the pelvis in the world.
            gyro: `[3]`, pelvis axes, rad/s.
            accel: `[3]`, pelvis axes, m/s^2, what an accelerometer at `imu_in_pelvis` reads (at
                rest it reads 9.81 upwards).
            joint_pos: `[29]`, rad, project order.
            joint_vel: `[29]`, rad/s.
            dt: s since the last reading; 0 at the first.
        """
        matrix = rot.quat_to_matrix(quat)
        to_imu = matrix @ rot.cross(gyro, IMU_POS)  # velocity of the inertial unit about the origin
        heights, speeds = self._legs(quat, gyro, joint_pos, joint_vel)
        specific = matrix @ accel
        speeds = speeds + to_imu
        share = np.exp(-(heights.max() - heights) / FOOT_M)  # the lower foot carries
        if self._imu_vel is None:
            self._imu_vel, self.pos[2] = share @ speeds / share.sum(), share @ heights / share.sum()
        velocity = self._imu_vel + (specific + GRAVITY) * dt
        # A foot by which the base would jump to another speed moves: it is in the air.
        odd = ((speeds - velocity) ** 2).sum(axis=1)
        share = share * np.maximum(np.exp(-0.5 * odd / SLIP_M_S**2), LEAST_TRUST)
        carried = np.clip((specific[2] - FREE_FALL) / (CARRIED - FREE_FALL), 0.0, 1.0)
        trust = carried * min(share.sum(), 1.0)
        share /= share.sum()
        height = share @ heights
        velocity = velocity + trust * (1 - np.exp(-dt / VELOCITY_S)) * (share @ speeds - velocity)
        self._imu_vel, self.lin_vel = velocity, velocity - to_imu
        self.pos = self.pos + self.lin_vel * dt
        self.pos[2] += trust * (1 - np.exp(-dt / HEIGHT_S)) * (height - self.pos[2])

    def _legs(
        self, quat: np.ndarray, gyro: np.ndarray, joint_pos: np.ndarray, joint_vel: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Height `[2]` and velocity `[2, 3]` of the base if that foot stood still on the ground."""
        model, data = self._model, self._data
        # With the base at the origin, and at rest but for its turning, states of feet are relative.
        data.qpos[:3], data.qpos[3:7], data.qpos[7:] = 0.0, quat, joint_pos
        data.qvel[:3], data.qvel[3:6], data.qvel[6:] = 0.0, gyro, joint_vel
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        heights, speeds, twist = np.empty(2), np.empty((2, 3)), np.empty(6)
        for foot, body in enumerate(self._feet):
            points = self._soles[foot] @ data.xmat[body].reshape(3, 3).T
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, twist, 0)
            weight = np.exp(-(points[:, 2] - points[:, 2].min()) / POINT_M)
            point = weight @ points / weight.sum()
            heights[foot] = -(data.xpos[body, 2] + point[2])
            speeds[foot] = -(twist[3:] + rot.cross(twist[:3], point))
        return heights, speeds
