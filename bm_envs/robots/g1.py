"""The Unitree G1 (29 actuated joints, rev 1.0) as data: tree, inertia, drives, shapes, orders.

Every number here is a fact about the robot with its source beside it; nothing is computed by an
engine. `bm_envs.robots.mjcf` turns the tables into a MuJoCo model. One file because it is one
table of one robot.

Units are SI (m, kg, rad, s, N m). Quaternions are w, x, y, z. Body frames: x forward, y left, z up;
a body's frame coincides with its joint's frame. The order of `JOINTS` and `BODIES` is the depth-first
order of the tree, which is also the column order of the Unitree motion CSV files and the motor order
of the robot: it is *the* joint order of this project.

Source of the model: `mjlab` 1.6.0, `asset_zoo/robots/unitree_g1` (Apache-2.0); the same gains and the
velocity limits stand in `HybridRobotics/whole_body_tracking : robots/g1.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bm_envs.errors import ConfigError

Vec3 = tuple[float, float, float]
Quat = tuple[float, float, float, float]


@dataclass(frozen=True)
class Body:
    """One link. `inertial_pos` and `inertial_quat` place the principal axes in the link frame."""

    name: str
    parent: str
    pos: Vec3
    quat: Quat
    mass: float
    inertial_pos: Vec3
    inertial_quat: Quat
    diag_inertia: Vec3


@dataclass(frozen=True)
class Motor:
    """A geared motor: `rotor` inertias (kg m^2) behind gear ratios `gears` (motor side first)."""

    rotor: Vec3
    gears: Vec3
    effort_limit: float
    velocity_limit: float

    @property
    def armature(self) -> float:
        """Inertia reflected to the joint, kg m^2: `r1*(g2*g3)^2 + r2*g3^2 + r3`."""
        r1, r2, r3 = self.rotor
        _, g2, g3 = self.gears
        return r1 * (g2 * g3) ** 2 + r2 * g3**2 + r3


@dataclass(frozen=True)
class Joint:
    """One hinge. `motor_count` motors of type `motor` drive it (2: a parallel linkage taken as 1:1)."""

    name: str
    body: str
    axis: Vec3
    range: tuple[float, float]
    motor: str
    motor_count: int = 1

    @property
    def armature(self) -> float:
        return self.motor_count * MOTORS[self.motor].armature

    @property
    def stiffness(self) -> float:
        """kp, N m/rad: `I * w^2`."""
        return self.armature * NATURAL_FREQUENCY**2

    @property
    def damping(self) -> float:
        """kd, N m s/rad: `2 * zeta * I * w`."""
        return 2.0 * DAMPING_RATIO * self.armature * NATURAL_FREQUENCY

    @property
    def effort_limit(self) -> float:
        return self.motor_count * MOTORS[self.motor].effort_limit

    @property
    def velocity_limit(self) -> float:
        """rad/s. Declared by the maker; no MuJoCo path enforces it (neither do mjlab's drives)."""
        return MOTORS[self.motor].velocity_limit

    @property
    def action_scale(self) -> float:
        """Radians of joint target per unit of action: `0.25 * effort / kp`."""
        return 0.25 * self.effort_limit / self.stiffness


@dataclass(frozen=True)
class Site:
    """A named point on a link, axes parallel to the link's."""

    name: str
    body: str
    pos: Vec3


@dataclass(frozen=True)
class Geom:
    """A sphere (`end` is None) or a capsule from `start` to `end`, in the link frame."""

    name: str
    body: str
    radius: float
    start: Vec3
    end: Vec3 | None = None


# Gains: a critically overdamped 10 Hz response of the motor's own reflected inertia.
# The source writes pi as 3.1415926535, so these are its digits and not math.pi.
NATURAL_FREQUENCY = 10.0 * 2.0 * 3.1415926535  # rad/s
DAMPING_RATIO = 2.0
SOFT_LIMIT_FACTOR = 0.9  # share of a joint's range, about its middle, that is free of penalty

MOTORS: dict[str, Motor] = {
    "5020": Motor((0.139e-4, 0.017e-4, 0.169e-4), (1, 1 + 46 / 18, 1 + 56 / 16), 25.0, 37.0),
    "7520_14": Motor((0.489e-4, 0.098e-4, 0.533e-4), (1, 4.5, 1 + 48 / 22), 88.0, 32.0),
    "7520_22": Motor((0.489e-4, 0.109e-4, 0.738e-4), (1, 4.5, 5.0), 139.0, 20.0),
    "4010": Motor((0.068e-4, 0.0, 0.0), (1, 5.0, 5.0), 5.0, 22.0),
}

# fmt: off
# Inertial quaternions are as the source prints them (six digits); the model compiler normalises them.
BODIES: tuple[Body, ...] = (
    Body("pelvis", "world", (0, 0, 0.793), (1, 0, 0, 0),
         3.813, (0, 0, -0.07605), (1, 0, -0.000399148, 0),
         (0.010549, 0.0093089, 0.0079184)),
    Body("left_hip_pitch_link", "pelvis", (0, 0.064452, -0.1027), (1, 0, 0, 0),
         1.35, (0.002741, 0.047791, -0.02606), (0.954862, 0.293964, 0.0302556, 0.030122),
         (0.00181517, 0.00153422, 0.00116212)),
    Body("left_hip_roll_link", "left_hip_pitch_link", (0, 0.052, -0.030465), (0.996179, 0, -0.0873386, 0),
         1.52, (0.029812, -0.001045, -0.087934), (0.977808, -1.97119e-05, 0.205576, -0.0403793),
         (0.00254986, 0.00241169, 0.00148755)),
    Body("left_hip_yaw_link", "left_hip_roll_link", (0.025001, 0, -0.12412), (1, 0, 0, 0),
         1.702, (-0.057709, -0.010981, -0.15078), (0.600598, 0.15832, 0.223482, 0.751181),
         (0.00776166, 0.00717575, 0.00160139)),
    Body("left_knee_link", "left_hip_yaw_link", (-0.078273, 0.0021489, -0.17734), (0.996179, 0, 0.0873386, 0),
         1.932, (0.005457, 0.003964, -0.12074), (0.923418, -0.0327699, 0.0158246, 0.382067),
         (0.0113804, 0.0112778, 0.00146458)),
    Body("left_ankle_pitch_link", "left_knee_link", (0, -9.4445e-05, -0.30001), (1, 0, 0, 0),
         0.074, (-0.007269, 0, 0.011137), (0.603053, 0.369225, 0.369225, 0.603053),
         (1.89e-05, 1.40805e-05, 6.9195e-06)),
    Body("left_ankle_roll_link", "left_ankle_pitch_link", (0, 0, -0.017558), (1, 0, 0, 0),
         0.608, (0.026505, 0, -0.016425), (-0.000481092, 0.728482, -0.000618967, 0.685065),
         (0.00167218, 0.0016161, 0.000217621)),
    Body("right_hip_pitch_link", "pelvis", (0, -0.064452, -0.1027), (1, 0, 0, 0),
         1.35, (0.002741, -0.047791, -0.02606), (0.954862, -0.293964, 0.0302556, -0.030122),
         (0.00181517, 0.00153422, 0.00116212)),
    Body("right_hip_roll_link", "right_hip_pitch_link", (0, -0.052, -0.030465), (0.996179, 0, -0.0873386, 0),
         1.52, (0.029812, 0.001045, -0.087934), (0.977808, 1.97119e-05, 0.205576, 0.0403793),
         (0.00254986, 0.00241169, 0.00148755)),
    Body("right_hip_yaw_link", "right_hip_roll_link", (0.025001, 0, -0.12412), (1, 0, 0, 0),
         1.702, (-0.057709, 0.010981, -0.15078), (0.751181, 0.223482, 0.15832, 0.600598),
         (0.00776166, 0.00717575, 0.00160139)),
    Body("right_knee_link", "right_hip_yaw_link", (-0.078273, -0.0021489, -0.17734), (0.996179, 0, 0.0873386, 0),
         1.932, (0.005457, -0.003964, -0.12074), (0.923439, 0.0345276, 0.0116333, -0.382012),
         (0.011374, 0.0112843, 0.00146452)),
    Body("right_ankle_pitch_link", "right_knee_link", (0, 9.4445e-05, -0.30001), (1, 0, 0, 0),
         0.074, (-0.007269, 0, 0.011137), (0.603053, 0.369225, 0.369225, 0.603053),
         (1.89e-05, 1.40805e-05, 6.9195e-06)),
    Body("right_ankle_roll_link", "right_ankle_pitch_link", (0, 0, -0.017558), (1, 0, 0, 0),
         0.608, (0.026505, 0, -0.016425), (0.000481092, 0.728482, 0.000618967, 0.685065),
         (0.00167218, 0.0016161, 0.000217621)),
    Body("waist_yaw_link", "pelvis", (0, 0, 0), (1, 0, 0, 0),
         0.214, (0.003494, 0.000233, 0.018034), (0.289697, 0.591001, -0.337795, 0.672821),
         (0.000163531, 0.000107714, 0.000102205)),
    Body("waist_roll_link", "waist_yaw_link", (-0.0039635, 0, 0.044), (1, 0, 0, 0),
         0.086, (0, 2.3e-05, 0), (0.5, 0.5, -0.5, 0.5),
         (8.245e-06, 7.079e-06, 6.339e-06)),
    Body("torso_link", "waist_roll_link", (0, 0, 0), (1, 0, 0, 0),
         7.818, (0.00203158, 0.000339683, 0.184568), (0.999803, -6.03319e-05, 0.0198256, 0.00131986),
         (0.121847, 0.109825, 0.0273735)),
    Body("left_shoulder_pitch_link", "torso_link", (0.0039563, 0.10022, 0.24778), (0.990264, 0.139201, 1.38722e-05, -9.86868e-05),
         0.718, (0, 0.035892, -0.011628), (0.654152, 0.0130458, -0.326267, 0.68225),
         (0.000465864, 0.000432842, 0.000406394)),
    Body("left_shoulder_roll_link", "left_shoulder_pitch_link", (0, 0.038, -0.013831), (0.990268, -0.139172, 0, 0),
         0.643, (-0.000227, 0.00727, -0.063243), (0.701256, -0.0196223, -0.00710317, 0.712604),
         (0.000691311, 0.000618011, 0.000388977)),
    Body("left_shoulder_yaw_link", "left_shoulder_roll_link", (0, 0.00624, -0.1032), (1, 0, 0, 0),
         0.734, (0.010773, -0.002949, -0.072009), (0.716879, -0.0964829, -0.0679942, 0.687134),
         (0.00106187, 0.00103217, 0.000400661)),
    Body("left_elbow_link", "left_shoulder_yaw_link", (0.015783, 0, -0.080518), (1, 0, 0, 0),
         0.6, (0.064956, 0.004454, -0.010062), (0.541765, 0.636132, 0.388821, 0.388129),
         (0.000443035, 0.000421612, 0.000259353)),
    Body("left_wrist_roll_link", "left_elbow_link", (0.1, 0.00188791, -0.01), (1, 0, 0, 0),
         0.085445, (0.0171394, 0.000537591, 4.8864e-07), (0.575338, 0.411667, -0.574906, 0.411094),
         (5.48211e-05, 4.96646e-05, 3.57798e-05)),
    Body("left_wrist_pitch_link", "left_wrist_roll_link", (0.038, 0, 0), (1, 0, 0, 0),
         0.48405, (0.0229999, -0.00111685, -0.00111658), (0.249998, 0.661363, 0.293036, 0.643608),
         (0.000430353, 0.000429873, 0.000164648)),
    Body("left_wrist_yaw_link", "left_wrist_pitch_link", (0.046, 0, 0), (1, 0, 0, 0),
         0.254576, (0.0708244, 0.000191745, 0.00161742), (0.510571, 0.526295, 0.468078, 0.493188),
         (0.000646113, 0.000559993, 0.000147566)),
    Body("right_shoulder_pitch_link", "torso_link", (0.0039563, -0.10021, 0.24778), (0.990264, -0.139201, 1.38722e-05, 9.86868e-05),
         0.718, (0, -0.035892, -0.011628), (0.68225, -0.326267, 0.0130458, 0.654152),
         (0.000465864, 0.000432842, 0.000406394)),
    Body("right_shoulder_roll_link", "right_shoulder_pitch_link", (0, -0.038, -0.013831), (0.990268, 0.139172, 0, 0),
         0.643, (-0.000227, -0.00727, -0.063243), (0.712604, -0.00710317, -0.0196223, 0.701256),
         (0.000691311, 0.000618011, 0.000388977)),
    Body("right_shoulder_yaw_link", "right_shoulder_roll_link", (0, -0.00624, -0.1032), (1, 0, 0, 0),
         0.734, (0.010773, 0.002949, -0.072009), (0.687134, -0.0679942, -0.0964829, 0.716879),
         (0.00106187, 0.00103217, 0.000400661)),
    Body("right_elbow_link", "right_shoulder_yaw_link", (0.015783, 0, -0.080518), (1, 0, 0, 0),
         0.6, (0.064956, -0.004454, -0.010062), (0.388129, 0.388821, 0.636132, 0.541765),
         (0.000443035, 0.000421612, 0.000259353)),
    Body("right_wrist_roll_link", "right_elbow_link", (0.1, -0.00188791, -0.01), (1, 0, 0, 0),
         0.085445, (0.0171394, -0.000537591, 4.8864e-07), (0.411667, 0.575338, -0.411094, 0.574906),
         (5.48211e-05, 4.96646e-05, 3.57798e-05)),
    Body("right_wrist_pitch_link", "right_wrist_roll_link", (0.038, 0, 0), (1, 0, 0, 0),
         0.48405, (0.0229999, 0.00111685, -0.00111658), (0.643608, 0.293036, 0.661363, 0.249998),
         (0.000430353, 0.000429873, 0.000164648)),
    Body("right_wrist_yaw_link", "right_wrist_pitch_link", (0.046, 0, 0), (1, 0, 0, 0),
         0.254576, (0.0708244, -0.000191745, 0.00161742), (0.493188, 0.468078, 0.526295, 0.510571),
         (0.000646113, 0.000559993, 0.000147566)),
)

JOINTS: tuple[Joint, ...] = (
    Joint("left_hip_pitch_joint", "left_hip_pitch_link", (0, 1, 0), (-2.5307, 2.8798), "7520_14"),
    Joint("left_hip_roll_joint", "left_hip_roll_link", (1, 0, 0), (-0.5236, 2.9671), "7520_22"),
    Joint("left_hip_yaw_joint", "left_hip_yaw_link", (0, 0, 1), (-2.7576, 2.7576), "7520_14"),
    Joint("left_knee_joint", "left_knee_link", (0, 1, 0), (-0.087267, 2.8798), "7520_22"),
    Joint("left_ankle_pitch_joint", "left_ankle_pitch_link", (0, 1, 0), (-0.87267, 0.5236), "5020", 2),
    Joint("left_ankle_roll_joint", "left_ankle_roll_link", (1, 0, 0), (-0.2618, 0.2618), "5020", 2),
    Joint("right_hip_pitch_joint", "right_hip_pitch_link", (0, 1, 0), (-2.5307, 2.8798), "7520_14"),
    Joint("right_hip_roll_joint", "right_hip_roll_link", (1, 0, 0), (-2.9671, 0.5236), "7520_22"),
    Joint("right_hip_yaw_joint", "right_hip_yaw_link", (0, 0, 1), (-2.7576, 2.7576), "7520_14"),
    Joint("right_knee_joint", "right_knee_link", (0, 1, 0), (-0.087267, 2.8798), "7520_22"),
    Joint("right_ankle_pitch_joint", "right_ankle_pitch_link", (0, 1, 0), (-0.87267, 0.5236), "5020", 2),
    Joint("right_ankle_roll_joint", "right_ankle_roll_link", (1, 0, 0), (-0.2618, 0.2618), "5020", 2),
    Joint("waist_yaw_joint", "waist_yaw_link", (0, 0, 1), (-2.618, 2.618), "7520_14"),
    Joint("waist_roll_joint", "waist_roll_link", (1, 0, 0), (-0.52, 0.52), "5020", 2),
    Joint("waist_pitch_joint", "torso_link", (0, 1, 0), (-0.52, 0.52), "5020", 2),
    Joint("left_shoulder_pitch_joint", "left_shoulder_pitch_link", (0, 1, 0), (-3.0892, 2.6704), "5020"),
    Joint("left_shoulder_roll_joint", "left_shoulder_roll_link", (1, 0, 0), (-1.5882, 2.2515), "5020"),
    Joint("left_shoulder_yaw_joint", "left_shoulder_yaw_link", (0, 0, 1), (-2.618, 2.618), "5020"),
    Joint("left_elbow_joint", "left_elbow_link", (0, 1, 0), (-1.0472, 2.0944), "5020"),
    Joint("left_wrist_roll_joint", "left_wrist_roll_link", (1, 0, 0), (-1.97222, 1.97222), "5020"),
    Joint("left_wrist_pitch_joint", "left_wrist_pitch_link", (0, 1, 0), (-1.61443, 1.61443), "4010"),
    Joint("left_wrist_yaw_joint", "left_wrist_yaw_link", (0, 0, 1), (-1.61443, 1.61443), "4010"),
    Joint("right_shoulder_pitch_joint", "right_shoulder_pitch_link", (0, 1, 0), (-3.0892, 2.6704), "5020"),
    Joint("right_shoulder_roll_joint", "right_shoulder_roll_link", (1, 0, 0), (-2.2515, 1.5882), "5020"),
    Joint("right_shoulder_yaw_joint", "right_shoulder_yaw_link", (0, 0, 1), (-2.618, 2.618), "5020"),
    Joint("right_elbow_joint", "right_elbow_link", (0, 1, 0), (-1.0472, 2.0944), "5020"),
    Joint("right_wrist_roll_joint", "right_wrist_roll_link", (1, 0, 0), (-1.97222, 1.97222), "5020"),
    Joint("right_wrist_pitch_joint", "right_wrist_pitch_link", (0, 1, 0), (-1.61443, 1.61443), "4010"),
    Joint("right_wrist_yaw_joint", "right_wrist_yaw_link", (0, 0, 1), (-1.61443, 1.61443), "4010"),
)

SITES: tuple[Site, ...] = (
    Site("imu_in_pelvis", "pelvis", (0.04525, 0, -0.08339)),
    Site("left_foot", "left_ankle_roll_link", (0.04, 0, -0.037)),
    Site("right_foot", "right_ankle_roll_link", (0.04, 0, -0.037)),
    Site("imu_in_torso", "torso_link", (-0.03959, -0.00224, 0.14792)),
    Site("left_palm", "left_wrist_yaw_link", (0.08, 0, 0)),
    Site("right_palm", "right_wrist_yaw_link", (0.08, 0, 0)),
)

COLLISION_GEOMS: tuple[Geom, ...] = (
    Geom("pelvis_collision", "pelvis", 0.07, (0, 0, -0.08)),
    Geom("left_hip_collision", "left_hip_roll_link", 0.06, (0.02, 0, 0), (0.02, 0, -0.08)),
    Geom("left_thigh_collision", "left_hip_yaw_link", 0.055, (0, 0, -0.03), (-0.06, 0, -0.17)),
    Geom("left_shin_collision", "left_knee_link", 0.045, (0.01, 0, 0), (0.01, 0, -0.15)),
    Geom("left_linkage_brace_collision", "left_knee_link", 0.03, (0.01, 0, -0.2), (0.01, 0, -0.28)),
    Geom("right_hip_collision", "right_hip_roll_link", 0.06, (0.02, 0, 0), (0.02, 0, -0.08)),
    Geom("right_thigh_collision", "right_hip_yaw_link", 0.055, (0, 0, -0.03), (-0.06, 0, -0.17)),
    Geom("right_shin_collision", "right_knee_link", 0.045, (0.01, 0, 0), (0.01, 0, -0.15)),
    Geom("right_linkage_brace_collision", "right_knee_link", 0.03, (0.01, 0, -0.2), (0.01, 0, -0.28)),
    Geom("torso_collision", "torso_link", 0.09, (0.01, 0, 0.08), (0.01, 0, 0.2)),
    Geom("head_collision", "torso_link", 0.06, (0, 0, 0.43)),
    Geom("left_shoulder_yaw_collision", "left_shoulder_yaw_link", 0.035, (0, 0, -0.08), (0, 0, 0.05)),
    Geom("left_elbow_yaw_collision", "left_elbow_link", 0.035, (-0.01, 0, -0.01), (0.08, 0, -0.01)),
    Geom("left_wrist_collision", "left_wrist_pitch_link", 0.035, (-0.01, 0, 0), (0.06, 0, 0)),
    Geom("left_hand_collision", "left_wrist_yaw_link", 0.035, (0.07, 0, 0), (0.15, -0.02, 0)),
    Geom("right_shoulder_yaw_collision", "right_shoulder_yaw_link", 0.035, (0, 0, -0.08), (0, 0, 0.05)),
    Geom("right_elbow_yaw_collision", "right_elbow_link", 0.035, (-0.01, 0, -0.01), (0.08, 0, -0.01)),
    Geom("right_wrist_collision", "right_wrist_pitch_link", 0.035, (-0.01, 0, 0), (0.06, 0, 0)),
    Geom("right_hand_collision", "right_wrist_yaw_link", 0.035, (0.07, 0, 0), (0.15, 0.02, 0)),
)

# The first capsule of the left foot ends at y = -0.027 where the right one ends at -0.026: so in the source.
FOOT_CAPSULES: tuple[Geom, ...] = (
    Geom("left_foot1_collision", "left_ankle_roll_link", 0.01, (0.1, -0.026, -0.025), (0.05, -0.027, -0.025)),
    Geom("left_foot2_collision", "left_ankle_roll_link", 0.01, (-0.044, -0.018, -0.025), (0.123, -0.018, -0.025)),
    Geom("left_foot3_collision", "left_ankle_roll_link", 0.01, (-0.052, -0.01, -0.025), (0.13, -0.01, -0.025)),
    Geom("left_foot4_collision", "left_ankle_roll_link", 0.01, (-0.054, 0, -0.025), (0.132, 0, -0.025)),
    Geom("left_foot5_collision", "left_ankle_roll_link", 0.01, (-0.052, 0.01, -0.025), (0.13, 0.01, -0.025)),
    Geom("left_foot6_collision", "left_ankle_roll_link", 0.01, (-0.044, 0.018, -0.025), (0.123, 0.018, -0.025)),
    Geom("left_foot7_collision", "left_ankle_roll_link", 0.01, (0.1, 0.026, -0.025), (0.05, 0.026, -0.025)),
    Geom("right_foot1_collision", "right_ankle_roll_link", 0.01, (0.1, -0.026, -0.025), (0.05, -0.026, -0.025)),
    Geom("right_foot2_collision", "right_ankle_roll_link", 0.01, (-0.044, -0.018, -0.025), (0.123, -0.018, -0.025)),
    Geom("right_foot3_collision", "right_ankle_roll_link", 0.01, (-0.052, -0.01, -0.025), (0.13, -0.01, -0.025)),
    Geom("right_foot4_collision", "right_ankle_roll_link", 0.01, (-0.054, 0, -0.025), (0.132, 0, -0.025)),
    Geom("right_foot5_collision", "right_ankle_roll_link", 0.01, (-0.052, 0.01, -0.025), (0.13, 0.01, -0.025)),
    Geom("right_foot6_collision", "right_ankle_roll_link", 0.01, (-0.044, 0.018, -0.025), (0.123, 0.018, -0.025)),
    Geom("right_foot7_collision", "right_ankle_roll_link", 0.01, (0.1, 0.026, -0.025), (0.05, 0.026, -0.025)),
)
# fmt: on

# Unitree's own foot: four small spheres. Its sole is the same plane, 35 mm under the ankle frame.
# Source: g1_29dof_rev_1_0.xml (unitree_ros).
_FOOT_SPHERES: tuple[Vec3, ...] = (
    (-0.05, 0.025, -0.03),
    (-0.05, -0.025, -0.03),
    (0.12, 0.03, -0.03),
    (0.12, -0.03, -0.03),
)
FOOT_SPHERES: tuple[Geom, ...] = tuple(
    Geom(f"{side}_foot{i}_collision", f"{side}_ankle_roll_link", 0.005, pos)
    for side in ("left", "right")
    for i, pos in enumerate(_FOOT_SPHERES, start=1)
)
SOLE_HEIGHT = -0.035  # m, sole plane in the ankle_roll frame, both foot variants

CONTACT_EXCLUSIONS: tuple[tuple[str, str], ...] = (
    ("left_elbow_link", "left_wrist_pitch_link"),
    ("right_elbow_link", "right_wrist_pitch_link"),
    ("pelvis", "right_hip_roll_link"),
    ("pelvis", "left_hip_roll_link"),
)

ROOT_BODY = "pelvis"
ANCHOR_BODY = "torso_link"
# The tracked bodies, in BeyondMimic's order (ONNX metadata `body_names`); the first is the root.
TRACKED_BODIES: tuple[str, ...] = (
    "pelvis",
    "left_hip_roll_link",
    "left_knee_link",
    "left_ankle_roll_link",
    "right_hip_roll_link",
    "right_knee_link",
    "right_ankle_roll_link",
    "torso_link",
    "left_shoulder_roll_link",
    "left_elbow_link",
    "left_wrist_yaw_link",
    "right_shoulder_roll_link",
    "right_elbow_link",
    "right_wrist_yaw_link",
)
FOOT_BODIES = ("left_ankle_roll_link", "right_ankle_roll_link")
END_EFFECTORS = (*FOOT_BODIES, "left_wrist_yaw_link", "right_wrist_yaw_link")


@dataclass(frozen=True)
class Pose:
    """Root height (m) and joint angles (rad); joints not named are zero, orientation is identity."""

    root_height: float
    joints: dict[str, float]

    def joint_pos(self) -> np.ndarray:
        """`[29]`, rad, in the project's joint order."""
        return np.array([self.joints.get(joint.name, 0.0) for joint in JOINTS])


def _pose(root_height: float, **by_stem: float) -> Pose:
    """Both sides get the stem's angle; roll angles change sign on the right."""
    joints = {}
    for stem, angle in by_stem.items():
        joints[f"left_{stem}_joint"] = angle
        joints[f"right_{stem}_joint"] = -angle if stem.endswith("roll") else angle
    return Pose(root_height, joints)


POSES: dict[str, Pose] = {
    # The default pose (action offset q0) of BeyondMimic policies.
    "KNEES_BENT": _pose(
        0.76,
        hip_pitch=-0.312,
        knee=0.669,
        ankle_pitch=-0.363,
        shoulder_pitch=0.2,
        shoulder_roll=0.2,
        elbow=0.6,
    ),
    "HOME": _pose(
        0.783675,
        hip_pitch=-0.1,
        knee=0.3,
        ankle_pitch=-0.2,
        shoulder_pitch=0.2,
        shoulder_roll=0.2,
        elbow=1.28,
    ),
    "UNITREE_HOME": _pose(
        0.78,
        hip_pitch=-0.1,
        knee=0.3,
        ankle_pitch=-0.2,
        shoulder_pitch=0.35,
        shoulder_roll=0.18,
        elbow=0.87,
    ),
    "ZERO": Pose(0.793, {}),
}

# Derived arrays, `[29]` in the project's joint order.
JOINT_NAMES: tuple[str, ...] = tuple(joint.name for joint in JOINTS)
BODY_NAMES: tuple[str, ...] = tuple(body.name for body in BODIES)
NUM_JOINTS = len(JOINTS)
FIRST_ARM = JOINT_NAMES.index("left_shoulder_pitch_joint")  # before it: legs and waist
LABEL = f"Unitree G1, {NUM_JOINTS} actuated joints"  # what policy files say of the robot
NUM_BODIES = len(BODIES)
STIFFNESS = np.array([joint.stiffness for joint in JOINTS])
DAMPING = np.array([joint.damping for joint in JOINTS])
EFFORT_LIMIT = np.array([joint.effort_limit for joint in JOINTS])
VELOCITY_LIMIT = np.array([joint.velocity_limit for joint in JOINTS])
ARMATURE = np.array([joint.armature for joint in JOINTS])
ACTION_SCALE = np.array([joint.action_scale for joint in JOINTS])
JOINT_RANGE = np.array([joint.range for joint in JOINTS])  # [29, 2]
DEFAULT_JOINT_POS = POSES["KNEES_BENT"].joint_pos()
for _array in (
    STIFFNESS, DAMPING, EFFORT_LIMIT, VELOCITY_LIMIT, ARMATURE, ACTION_SCALE, JOINT_RANGE,
    DEFAULT_JOINT_POS,
):  # fmt: skip
    _array.setflags(write=False)


def soft_joint_range(factor: float = SOFT_LIMIT_FACTOR) -> np.ndarray:
    """`[29, 2]`, rad: the middle `factor` of each joint's range."""
    center = JOINT_RANGE.mean(axis=1, keepdims=True)
    return center + factor * (JOINT_RANGE - center)


def _breadth_first_bodies() -> tuple[str, ...]:
    children: dict[str, list[str]] = {}
    for body in BODIES:
        children.setdefault(body.parent, []).append(body.name)
    order = list(children["world"])
    for name in order:  # the list grows while it is walked: a queue
        order.extend(children.get(name, []))
    return tuple(order)


# Isaac Lab numbers links and joints breadth first; files written there are in this order.
ISAAC_BODY_NAMES: tuple[str, ...] = _breadth_first_bodies()
_JOINT_OF_BODY = {joint.body: joint.name for joint in JOINTS}
ISAAC_JOINT_NAMES: tuple[str, ...] = tuple(
    _JOINT_OF_BODY[name] for name in ISAAC_BODY_NAMES if name in _JOINT_OF_BODY
)

Order = Literal["mujoco", "isaac"]


def joint_names(order: Order) -> tuple[str, ...]:
    """The 29 joint names in depth-first (`mujoco`) or breadth-first (`isaac`) order."""
    return JOINT_NAMES if order == "mujoco" else ISAAC_JOINT_NAMES


def body_names(order: Order) -> tuple[str, ...]:
    """The 30 body names in depth-first (`mujoco`) or breadth-first (`isaac`) order."""
    return BODY_NAMES if order == "mujoco" else ISAAC_BODY_NAMES


def order_map(source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Index `m` such that `x_target = x_source[..., m]` for values labelled by these names.

    Args:
        source: names in the order the values have.
        target: names in the order wanted; each must occur in `source`.

    Raises:
        ConfigError: a name repeats in `source`, or one of `target` is missing there.
    """
    where = {name: i for i, name in enumerate(source)}
    if len(where) != len(source):
        repeated = sorted({name for name in source if list(source).count(name) > 1})
        raise ConfigError(f"Names must be unique, but {', '.join(repeated)} occur more than once.")
    missing = [name for name in target if name not in where]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(target)} names are missing, the first is '{missing[0]}'."
        )
    return np.array([where[name] for name in target], dtype=np.intp)


def mirror_name(name: str) -> str:
    """Name of the joint or body on the other side; of one in the middle, its own."""
    side, _, rest = name.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)


def mirror_map() -> tuple[np.ndarray, np.ndarray]:
    """Left-right mirror of joint values: `mirrored = sign * x[..., index]`; both `[29]`.

    Reflection in the sagittal (x-z) plane swaps sides and turns roll and yaw angles around.
    """
    index, sign = [], []
    for joint in JOINTS:
        index.append(JOINT_NAMES.index(mirror_name(joint.name)))
        sign.append(1.0 if joint.axis == (0, 1, 0) else -1.0)
    return np.array(index, dtype=np.intp), np.array(sign)
