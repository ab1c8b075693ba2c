"""Settings of the public dance policy, which its file does not hold."""

from bm_envs.robots import g1

# deploy.yaml of the dance policy, rounded there; by drive group, from the oracle folder's README.
GROUPS = {
    "hip_pitch": "7520_14", "hip_yaw": "7520_14", "waist_yaw": "7520_14", "hip_roll": "7520_22",
    "knee": "7520_22", "ankle_pitch": "2x5020", "ankle_roll": "2x5020", "waist_roll": "2x5020",
    "waist_pitch": "2x5020", "wrist_pitch": "4010", "wrist_yaw": "4010",
}  # fmt: skip
KP = {"7520_14": 40.2, "7520_22": 99.1, "2x5020": 28.5, "5020": 14.3, "4010": 16.8}
KD = {"7520_14": 2.6, "7520_22": 6.3, "2x5020": 1.8, "5020": 0.9, "4010": 1.1}
SCALE = {"7520_14": 0.55, "7520_22": 0.35, "2x5020": 0.44, "5020": 0.44, "4010": 0.07}
HOME = {
    "hip_pitch": -0.1, "knee": 0.3, "ankle_pitch": -0.2, "shoulder_pitch": 0.35, "elbow": 0.87,
}  # fmt: skip


def stem(joint):
    return joint.removesuffix("_joint").removeprefix("left_").removeprefix("right_")


def dance_config():
    """The dance policy's settings as a `--policy-config` object."""
    groups = [GROUPS.get(stem(name), "5020") for name in g1.JOINT_NAMES]
    roll = {"left_shoulder_roll_joint": 0.18, "right_shoulder_roll_joint": -0.18}
    return {
        "joint_names": list(g1.JOINT_NAMES),
        "joint_stiffness": [KP[group] for group in groups],
        "joint_damping": [KD[group] for group in groups],
        "default_joint_pos": [roll.get(n, HOME.get(stem(n), 0.0)) for n in g1.JOINT_NAMES],
        "action_scale": [SCALE[group] for group in groups],
        "observation_names": "command,motion_anchor_ori_b,base_ang_vel,joint_pos,joint_vel,actions",
        "anchor_body_name": "torso_link",
    }
