"""Gymnasium's Humanoid-v5 (17 actuators, 15 ms a control step), a process per robot."""

import sys

import gymnasium
from serve import serve

if __name__ == "__main__":
    num_envs = int(sys.argv[1])
    env = gymnasium.make_vec("Humanoid-v5", num_envs=num_envs, vectorization_mode="async")
    env.reset(seed=0)
    serve(lambda: env.step(env.action_space.sample()), num_envs)
