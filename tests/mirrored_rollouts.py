"""Roll-outs and states seen in a mirror: what the mirrors of the package are compared with."""

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


def mirrored_state(qpos, qvel):
    """The state reflected in the world's x-z plane, from how vectors and rotations reflect."""
    index, sign = g1.mirror_map()
    other_pos, other_vel = qpos.copy(), qvel.copy()
    other_pos[:, 1] *= -1
    other_pos[:, [4, 6]] *= -1  # rotations about x and z turn around
    other_pos[:, 7:] = sign * qpos[:, 7:][:, index]
    other_vel[:, 1] *= -1
    other_vel[:, [3, 5]] *= -1
    other_vel[:, 6:] = sign * qvel[:, 6:][:, index]
    return other_pos, other_vel
