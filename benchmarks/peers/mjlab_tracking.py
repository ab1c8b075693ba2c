"""mjlab's tracking task of the same robot on the same clip; its engine on a CPU is mujoco_warp."""

import sys

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg
from serve import serve

ACTION_NOISE = 0.1  # raw action, about the reference

if __name__ == "__main__":
    num_envs = int(sys.argv[1])
    config = load_env_cfg("Mjlab-Tracking-Flat-Unitree-G1")
    config.scene.num_envs = num_envs
    config.commands["motion"].motion_file = sys.argv[2]
    env = ManagerBasedRlEnv(config, device="cpu")
    env.reset()
    robot, motion = env.scene["robot"], env.command_manager.get_term("motion")
    action_term = env.action_manager.get_term("joint_pos")

    def step() -> None:  # noqa: D103
        offset = motion.joint_pos - robot.data.default_joint_pos
        action = offset / action_term.scale
        env.step(action + ACTION_NOISE * torch.randn_like(action))

    serve(step, num_envs, warm_up=3)
