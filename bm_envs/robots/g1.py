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

from bm_envs.robots.robot import (
    DAMPING_RATIO,
    MOTORS,
    NATURAL_FREQUENCY,
    SOFT_LIMIT_FACTOR,
    Body,
    Geom,
    Joint,
    Motor,
    Order,
    Pose,
    Quat,
    Robot,
    Site,
    Vec3,
    mirror_name,
    order_map,
)

__all__ = [  # beside the tables: the kinds of their rows, and what is no robot's own
    "DAMPING_RATIO", "MOTORS", "NATURAL_FREQUENCY", "SOFT_LIMIT_FACTOR", "Body", "Geom", "Joint",
    "Motor", "Order", "Pose", "Quat", "Robot", "Site", "Vec3", "mirror_name", "order_map",
]  # fmt: skip

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

G1 = Robot(
    name="g1",
    label=f"Unitree G1, {len(JOINTS)} actuated joints",
    source="mjlab 1.6.0, asset_zoo/robots/unitree_g1",
    bodies=BODIES, joints=JOINTS, sites=SITES, collision_geoms=COLLISION_GEOMS,
    foot_spheres=FOOT_SPHERES, foot_capsules=FOOT_CAPSULES, contact_exclusions=CONTACT_EXCLUSIONS,
    root_body=ROOT_BODY, anchor_body=ANCHOR_BODY, tracked_bodies=TRACKED_BODIES,
    foot_bodies=FOOT_BODIES, end_effectors=END_EFFECTORS, poses=POSES, default_pose="KNEES_BENT",
    env_id="BMTrack-G1-v0",
)  # fmt: skip

# The same by the names that modules for this robot alone use; arrays are `[29]` in joint order.
JOINT_NAMES = G1.joint_names
BODY_NAMES = G1.body_names
NUM_JOINTS = G1.num_joints
FIRST_ARM = JOINT_NAMES.index("left_shoulder_pitch_joint")  # before it: legs and waist
LABEL = G1.label
NUM_BODIES = G1.num_bodies
STIFFNESS, DAMPING = G1.stiffness, G1.damping
EFFORT_LIMIT, VELOCITY_LIMIT = G1.effort_limit, G1.velocity_limit
ARMATURE, ACTION_SCALE = G1.armature, G1.action_scale
JOINT_RANGE = G1.joint_range  # [29, 2]
DEFAULT_JOINT_POS = G1.default_joint_pos
ISAAC_BODY_NAMES = G1.isaac_body_names
ISAAC_JOINT_NAMES = G1.isaac_joint_names
soft_joint_range = G1.soft_joint_range
joint_names, body_names = G1.joint_names_in, G1.body_names_in
mirror_map = G1.mirror_map
