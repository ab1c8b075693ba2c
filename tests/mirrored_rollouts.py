"""Roll-outs seen in a mirror: what the models' own mirrors are compared with."""

import dataclasses

import numpy as np

from bm_envs.robots import g1


def mirrored(episodes):
    """The episodes seen in the robot's sagittal plane; clips and frames stay those copied."""
    index, sign = g1.mirror_map()
    sign = sign.astype(np.float32)

    def joints(values):
        return values[..., index] * sign

    def state(values, root):
        root = np.array(root, np.float32)
        return np.concatenate(
            [values[..., : root.size] * root, joints(values[..., root.size :])], -1
        )

    return dataclasses.replace(
        episodes,
        qpos=state(episodes.qpos, (1, -1, 1, 1, -1, 1, -1)),
        qvel=state(episodes.qvel, (1, -1, 1, -1, 1, -1)),
        **{name: joints(getattr(episodes, name)) for name in ("action", "executed")},
        joint_offset=joints(episodes.joint_offset),
    )
