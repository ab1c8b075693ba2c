"""LocoMuJoCo's G1, one robot, random actions: its package comes without motions."""

import numpy as np
from loco_mujoco.environments.humanoids.unitreeG1 import UnitreeG1
from serve import serve

if __name__ == "__main__":
    env = UnitreeG1()
    env.reset()
    low, high = env.info.action_space.low, env.info.action_space.high
    rng = np.random.default_rng(0)

    def step() -> None:  # noqa: D103
        _, _, absorbing, done, _ = env.step(rng.uniform(low, high))
        if absorbing or done:
            env.reset()

    serve(step, 1)
