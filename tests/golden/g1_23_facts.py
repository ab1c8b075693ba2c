"""Figures of the G1 with 23 joints in another form than the table's; none is of this project's code.

Source: Unitree's `g1_23dof_rev_1_0.urdf` (unitreerobotics/unitree_ros, commit 5ae4fa5,
BSD-3-Clause), whose inertias are whole tensors where the table has principal ones, and whose torso
is three links. SI units; a tensor is xx, xy, xz, yy, yz, zz about the centre of mass, link axes.
"""

# fmt: off
# Joint: parent, child, place in the parent, axis, lower, upper.
JOINTS = {
    "waist_yaw_joint": ("pelvis", "torso_link", (-0.0039635, 0, 0.044), (0, 0, 1), -2.618, 2.618),
    "left_wrist_roll_joint": ("left_elbow_link", "left_wrist_roll_rubber_hand",
                              (0.1, 0.00188791, -0.01), (1, 0, 0), -1.972222054, 1.972222054),
    "right_wrist_roll_joint": ("right_elbow_link", "right_wrist_roll_rubber_hand",
                               (0.1, -0.00188791, -0.01), (1, 0, 0), -1.972222054, 1.972222054),
}
# In the order of the file, which is the motors'.
ORDER = (
    "left_hip_pitch", "left_hip_roll", "left_hip_yaw", "left_knee", "left_ankle_pitch",
    "left_ankle_roll", "right_hip_pitch", "right_hip_roll", "right_hip_yaw", "right_knee",
    "right_ankle_pitch", "right_ankle_roll", "waist_yaw", "left_shoulder_pitch",
    "left_shoulder_roll", "left_shoulder_yaw", "left_elbow", "left_wrist_roll",
    "right_shoulder_pitch", "right_shoulder_roll", "right_shoulder_yaw", "right_elbow",
    "right_wrist_roll",
)
# Body of the table: parts of the file, each mass, centre of mass, tensor.
BODIES = {
    "torso_link": (
        (6.78, (0.000931, 0.000346, 0.15082),
         (0.05905, 3.3302e-05, -0.0017715, 0.047014, -2.2399e-05, 0.025652)),
        # Both stand at (0.0039635, 0, -0.044) in the torso.
        (0.001, (0.0039635, 0, -0.044), (1e-7, 0, 0, 1e-7, 0, 1e-7)),
        (1.036, (0.005267 + 0.0039635, 0.000299, 0.449869 - 0.044),
         (0.004085051, -2.543e-06, -6.9455e-05, 0.004185212, -3.726e-06, 0.001807911)),
    ),
    "left_wrist_roll_rubber_hand": (
        (0.35692864, (0.10794656650, 0.00163511945, 0.00202244863),
         (0.00019613494735, -4.19816908e-06, -3.950860580e-05, 0.00200280358206, 2.49774203e-06,
          0.00194181412808)),
    ),
    "right_wrist_roll_rubber_hand": (
        (0.35692864, (0.10794656650, -0.00163511945, 0.00202244863),
         (0.00019613494735, 4.19816908e-06, -3.950860580e-05, 0.00200280358206, -2.49774203e-06,
          0.00194181412808)),
    ),
}
