"""The published figures of BeyondMimic stage 1 on the G1, typed in; none comes from this project's code.

Sources: `HybridRobotics/whole_body_tracking`, commit cd65172 (MIT), called WBT below; `mjlab` 1.6.0
(Apache-2.0), called MJ; `HybridRobotics/motion_tracking_controller`, commit 6beda6d, called MTC; and
arXiv 2508.08241. Units are SI. Where a figure is printed rounded, so it is here.
"""

# fmt: off
# --- drives and joints (WBT robots/g1.py; MJ g1_constants.py, g1.xml) -----------------------------

NATURAL_FREQUENCY = 62.83185307  # rad/s
DAMPING_RATIO = 2
# Motor: armature, effort, velocity limit, kp, kd. WBT types the armature of 7520_14 as 0.010177520,
# MJ computes 0.01017752004132231 from the rotors; the gains are MJ's.
MOTORS = {
    "7520_14": (0.01017752004132231, 88, 32, 40.17923863450712, 2.557889775413375),
    "7520_22": (0.025101925, 139, 20, 99.09842777666113, 6.3088018534966395),
    "5020": (0.003609725, 25, 37, 14.25062309787429, 0.907222843292423),
    "4010": (0.00425, 5, 22, 16.77832748089279, 1.06814150219),
    "2x5020": (0.00721945, 50, 37, 28.50124619574858, 1.814445686584846),  # a parallel linkage
}
WBT_7520_14 = (0.010177520, 40.179238471373175, 2.5578897650279457)

# Joint, depth-first: index in Isaac Lab, lower, upper, soft lower, soft upper, default position,
# motor, armature, effort, velocity limit, kp, kd, action scale.
JOINTS = {
    "left_hip_pitch_joint": (0, -2.5307, 2.8798, -2.26017, 2.60927, -0.312, "7520_14", 0.01017752, 88, 32, 40.179238, 2.5578898, 0.547546465),
    "left_hip_roll_joint": (3, -0.5236, 2.9671, -0.349065, 2.79256, 0, "7520_22", 0.025101925, 139, 20, 99.098428, 6.3088019, 0.350661466),
    "left_hip_yaw_joint": (6, -2.7576, 2.7576, -2.48184, 2.48184, 0, "7520_14", 0.01017752, 88, 32, 40.179238, 2.5578898, 0.547546465),
    "left_knee_joint": (9, -0.087267, 2.8798, 0.0610863, 2.73145, 0.669, "7520_22", 0.025101925, 139, 20, 99.098428, 6.3088019, 0.350661466),
    "left_ankle_pitch_joint": (13, -0.87267, 0.5236, -0.802856, 0.453786, -0.363, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "left_ankle_roll_joint": (17, -0.2618, 0.2618, -0.23562, 0.23562, 0, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "right_hip_pitch_joint": (1, -2.5307, 2.8798, -2.26017, 2.60927, -0.312, "7520_14", 0.01017752, 88, 32, 40.179238, 2.5578898, 0.547546465),
    "right_hip_roll_joint": (4, -2.9671, 0.5236, -2.79256, 0.349065, 0, "7520_22", 0.025101925, 139, 20, 99.098428, 6.3088019, 0.350661466),
    "right_hip_yaw_joint": (7, -2.7576, 2.7576, -2.48184, 2.48184, 0, "7520_14", 0.01017752, 88, 32, 40.179238, 2.5578898, 0.547546465),
    "right_knee_joint": (10, -0.087267, 2.8798, 0.0610863, 2.73145, 0.669, "7520_22", 0.025101925, 139, 20, 99.098428, 6.3088019, 0.350661466),
    "right_ankle_pitch_joint": (14, -0.87267, 0.5236, -0.802856, 0.453786, -0.363, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "right_ankle_roll_joint": (18, -0.2618, 0.2618, -0.23562, 0.23562, 0, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "waist_yaw_joint": (2, -2.618, 2.618, -2.3562, 2.3562, 0, "7520_14", 0.01017752, 88, 32, 40.179238, 2.5578898, 0.547546465),
    "waist_roll_joint": (5, -0.52, 0.52, -0.468, 0.468, 0, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "waist_pitch_joint": (8, -0.52, 0.52, -0.468, 0.468, 0, "2x5020", 0.00721945, 50, 37, 28.501246, 1.8144457, 0.438577314),
    "left_shoulder_pitch_joint": (11, -3.0892, 2.6704, -2.80122, 2.38242, 0.2, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "left_shoulder_roll_joint": (15, -1.5882, 2.2515, -1.39621, 2.05952, 0.2, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "left_shoulder_yaw_joint": (19, -2.618, 2.618, -2.3562, 2.3562, 0, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "left_elbow_joint": (21, -1.0472, 2.0944, -0.89012, 1.93732, 0.6, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "left_wrist_roll_joint": (23, -1.97222, 1.97222, -1.775, 1.775, 0, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "left_wrist_pitch_joint": (25, -1.61443, 1.61443, -1.45299, 1.45299, 0, "4010", 0.00425, 5, 22, 16.778327, 1.0681415, 0.0745008703),
    "left_wrist_yaw_joint": (27, -1.61443, 1.61443, -1.45299, 1.45299, 0, "4010", 0.00425, 5, 22, 16.778327, 1.0681415, 0.0745008703),
    "right_shoulder_pitch_joint": (12, -3.0892, 2.6704, -2.80122, 2.38242, 0.2, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "right_shoulder_roll_joint": (16, -2.2515, 1.5882, -2.05952, 1.39621, -0.2, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "right_shoulder_yaw_joint": (20, -2.618, 2.618, -2.3562, 2.3562, 0, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "right_elbow_joint": (22, -1.0472, 2.0944, -0.89012, 1.93732, 0.6, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "right_wrist_roll_joint": (24, -1.97222, 1.97222, -1.775, 1.775, 0, "5020", 0.003609725, 25, 37, 14.250623, 0.90722284, 0.438577314),
    "right_wrist_pitch_joint": (26, -1.61443, 1.61443, -1.45299, 1.45299, 0, "4010", 0.00425, 5, 22, 16.778327, 1.0681415, 0.0745008703),
    "right_wrist_yaw_joint": (28, -1.61443, 1.61443, -1.45299, 1.45299, 0, "4010", 0.00425, 5, 22, 16.778327, 1.0681415, 0.0745008703),
}
SOFT_LIMIT_FACTOR = 0.9
DEFAULT_ROOT_HEIGHT = 0.76

ISAAC_JOINTS = (
    "left_hip_pitch", "right_hip_pitch", "waist_yaw", "left_hip_roll", "right_hip_roll", "waist_roll",
    "left_hip_yaw", "right_hip_yaw", "waist_pitch", "left_knee", "right_knee", "left_shoulder_pitch",
    "right_shoulder_pitch", "left_ankle_pitch", "right_ankle_pitch", "left_shoulder_roll",
    "right_shoulder_roll", "left_ankle_roll", "right_ankle_roll", "left_shoulder_yaw",
    "right_shoulder_yaw", "left_elbow", "right_elbow", "left_wrist_roll", "right_wrist_roll",
    "left_wrist_pitch", "right_wrist_pitch", "left_wrist_yaw", "right_wrist_yaw",
)
# x_isaac[k] = x_mujoco[ISAAC_FROM_MUJOCO[k]], and back.
ISAAC_FROM_MUJOCO = (0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24, 18, 25, 19, 26, 20, 27, 21, 28)
MUJOCO_FROM_ISAAC = (0, 3, 6, 9, 13, 17, 1, 4, 7, 10, 14, 18, 2, 5, 8, 11, 15, 19, 21, 23, 25, 27, 12, 16, 20, 22, 24, 26, 28)

# MJ's "home" keyframe: pelvis height; joints, right side alike but for the sign of roll.
HOME = (0.783675, {"hip_pitch": -0.1, "knee": 0.3, "ankle_pitch": -0.2, "shoulder_pitch": 0.2, "shoulder_roll": 0.2, "elbow": 1.28})

# --- tracked bodies (WBT flat_env_cfg.py; MJ env_cfgs.py) ------------------------------------------

ANCHOR = "torso_link"
TRACKED_BODIES = {  # index in MuJoCo (pelvis 0), in Isaac Lab
    "pelvis": (0, 0),
    "left_hip_roll_link": (2, 4),
    "left_knee_link": (4, 10),
    "left_ankle_roll_link": (6, 18),
    "right_hip_roll_link": (8, 5),
    "right_knee_link": (10, 11),
    "right_ankle_roll_link": (12, 19),
    "torso_link": (15, 9),
    "left_shoulder_roll_link": (17, 16),
    "left_elbow_link": (19, 22),
    "left_wrist_yaw_link": (22, 28),
    "right_shoulder_roll_link": (24, 17),
    "right_elbow_link": (26, 23),
    "right_wrist_yaw_link": (29, 29),
}
END_EFFECTORS = {"left_ankle_roll_link", "right_ankle_roll_link", "left_wrist_yaw_link", "right_wrist_yaw_link"}

# --- observations (WBT and MJ tracking_env_cfg.py) -------------------------------------------------

POLICY_OBSERVATION = {  # term: slice, half-width of the uniform noise
    "command": (0, 58, None),
    "motion_anchor_pos_b": (58, 61, 0.25),
    "motion_anchor_ori_b": (61, 67, 0.05),
    "base_lin_vel": (67, 70, 0.5),
    "base_ang_vel": (70, 73, 0.2),
    "joint_pos": (73, 102, 0.01),
    "joint_vel": (102, 131, 0.5),
    "actions": (131, 160, None),
}
CRITIC_OBSERVATION = {
    "command": (0, 58),
    "motion_anchor_pos_b": (58, 61),
    "motion_anchor_ori_b": (61, 67),
    "body_pos": (67, 109),
    "body_ori": (109, 193),
    "base_lin_vel": (193, 196),
    "base_ang_vel": (196, 199),
    "joint_pos": (199, 228),
    "joint_vel": (228, 257),
    "actions": (257, 286),
}
NO_STATE_ESTIMATION = {
    "command": (0, 58),
    "motion_anchor_ori_b": (58, 64),
    "base_ang_vel": (64, 67),
    "joint_pos": (67, 96),
    "joint_vel": (96, 125),
    "actions": (125, 154),
}

# --- task (WBT and MJ tracking_env_cfg.py) ---------------------------------------------------------

REWARDS = {  # term: weight, std
    "anchor_pos": (0.5, 0.3),
    "anchor_ori": (0.5, 0.4),
    "body_pos": (1.0, 0.3),
    "body_ori": (1.0, 0.4),
    "body_lin_vel": (1.0, 1.0),
    "body_ang_vel": (1.0, 3.14),
    "action_rate": (-0.1, None),
    "joint_limit": (-10.0, None),
    "contact": (-0.1, None),
}
MAX_REWARD_PER_SECOND = 5.0
CONTACT_THRESHOLD = 1.0  # N

EPISODE = 10.0  # s
EPISODE_STEPS = 500
FAILURE_HEIGHT = 0.25  # m: anchor, end effectors, and the evaluation's pelvis
FAILURE_TILT = 0.8

FOOT_FRICTION_RANGE = (0.3, 1.2)  # MJ
FOOT_FRICTION = 0.6
JOINT_OFFSET = 0.01  # rad
TORSO_COM = (0.025, 0.05, 0.05)  # m
PUSH_INTERVAL = (1.0, 3.0)  # s
PUSH_LIN_VEL = (0.5, 0.5, 0.2)
PUSH_ANG_VEL = (0.52, 0.52, 0.78)  # roll, pitch, yaw
RESET_POS = (0.05, 0.05, 0.01)
RESET_ROT = (0.1, 0.1, 0.2)
RESET_JOINT_POS = 0.1

PHYSICS_DT = 0.005
DECIMATION = 4
CONTROL_DT = 0.02

# --- adaptive sampling (WBT mdp/commands.py) -------------------------------------------------------

SAMPLING = {"bin_s": 1.0, "alpha": 0.001, "uniform_ratio": 0.1, "kernel": 1, "decay": 0.8}

# --- the paper's fourth version (arXiv 2508.08241v4, sec. S1, tables S1 and S2) --------------------

# Where text and table differ the text's range of the ankles and the table's square of the action's
# change. Not printed: noise of observations, time limit, noise of the start's joints (none is named).
V4 = {
    "failure_height": 0.25,  # m, of the anchor and of ankles and hands
    "failure_rotation": 0.8,  # rad, |log(R_des R^T)| of the anchor
    "episode_s": EPISODE,  # WBT
    "start": {"mode": "adaptive", "bin_s": 1.0, "alpha": 0.001, "kernel": 3, "decay": 0.8, "uniform_ratio": 0.1, "mix": "additive"},
    "randomize": {"when": "reset", "foot_friction": (0.3, 1.6), "joint_offset": 0.01, "ankle_offset": 0.1, "torso_com": TORSO_COM, "action_delay": 0},
    "push": {"interval_s": PUSH_INTERVAL, "lin_vel": PUSH_LIN_VEL, "ang_vel": PUSH_ANG_VEL},
    "reset": {"pos": RESET_POS, "rot": RESET_ROT, "lin_vel": PUSH_LIN_VEL, "ang_vel": PUSH_ANG_VEL, "joint_pos": 0.0},
    "rewards": {"contact_term": "self_links", "contact_threshold": CONTACT_THRESHOLD},
    "model": {"self_collision": True},
}
V4_ANKLES = ("left_ankle_pitch_joint", "left_ankle_roll_joint", "right_ankle_pitch_joint", "right_ankle_roll_joint")

# --- PPO (WBT rsl_rl_ppo_cfg.py; MJ rl_cfg.py; rsl_rl 2.3.1) ---------------------------------------

PPO = {
    "num_envs": 4096,
    "num_steps": 24,
    "iterations": 30_000,
    "epochs": 5,
    "mini_batches": 4,
    "gamma": 0.99,
    "lambda": 0.95,
    "clip": 0.2,
    "value_coefficient": 1.0,
    "clip_value_loss": True,
    "entropy_coefficient": 0.005,
    "learning_rate": 1e-3,
    "max_grad_norm": 1.0,
    "desired_kl": 0.01,
    "hidden": (512, 256, 128),
    "activation": "elu",
    "initial_std": 1.0,
    "normalizer_epsilon": 0.01,
}
LEARNING_RATE_RANGE = (1e-5, 1e-2)
LEARNING_RATE_FACTOR = 1.5
ACTOR_PARAMETERS = 250_426  # standard deviations included

# --- whole clips of LAFAN1 (arXiv 2508.08241, Tables I and II) -------------------------------------

# Table I prints these; one row stands there twice.
TABLE_1 = {
    "walk1_subject1", "walk1_subject2", "walk1_subject5", "walk2_subject1", "walk2_subject3",
    "walk2_subject4", "dance1_subject1", "dance1_subject2", "dance1_subject3", "dance2_subject1",
    "dance2_subject2", "dance2_subject3", "dance2_subject4", "fallAndGetUp1_subject4",
    "fallAndGetUp2_subject2", "fallAndGetUp2_subject3", "run1_subject2", "run1_subject4",
    "run1_subject5", "run2_subject1", "jumps1_subject1", "jumps1_subject2", "jumps1_subject5",
    "fightAndSports1_subject1", "fightAndSports1_subject4", "fight1_subject2", "fight1_subject3",
    "fight1_subject5",
}
# Iterations until the whole clip is completed, with adaptive sampling; without it none is by 30 000.
TABLE_2 = {
    "dance1_subject1": 8000,
    "dance2_subject1": 9000,
    "fightAndSports1_subject1": 10_000,
}

# --- files (WBT utils/exporter.py, scripts/csv_to_npz.py; MTC MotionOnnxPolicy.cpp) ----------------

ONNX_INPUTS = {"obs": [1, 160], "time_step": [1, 1]}
ONNX_OUTPUTS = {
    "actions": [1, 29],
    "joint_pos": [1, 29],
    "joint_vel": [1, 29],
    "body_pos_w": [1, 14, 3],
    "body_quat_w": [1, 14, 4],
    "body_lin_vel_w": [1, 14, 3],
    "body_ang_vel_w": [1, 14, 3],
}
METADATA_KEYS = {  # WBT and MJ, and MTC reads them
    "run_path", "joint_names", "joint_stiffness", "joint_damping", "default_joint_pos",
    "command_names", "observation_names", "observation_history_lengths", "action_scale",
    "anchor_body_name", "body_names",
}
MJ_METADATA_KEYS = {
    "observation_terms_scale", "observation_terms_flatten_history_dim",
    "observation_terms_history_length", "observation_terms_clip",
}

CSV_COLUMNS = 36
NPZ_ARRAYS = {  # behind the frame axis
    "joint_pos": (29,),
    "joint_vel": (29,),
    "body_pos_w": (30, 3),
    "body_quat_w": (30, 4),
    "body_lin_vel_w": (30, 3),
    "body_ang_vel_w": (30, 3),
}
# fmt: on
