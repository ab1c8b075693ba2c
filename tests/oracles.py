"""Independent truths that several tests compare with: MuJoCo's own kinematics."""

from typing import Literal

import mujoco
import numpy as np

from bm_envs.robots import g1, mjcf


def at_keyframe(model: mujoco.MjModel, name: str) -> mujoco.MjData:
    """The model's data in one of its named poses, with everything derived."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(name).id)
    mujoco.mj_forward(model, data)
    return data


def forward_kinematics(
    root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray,
    root_lin_vel: np.ndarray | None = None, root_ang_vel: np.ndarray | None = None,
    joint_vel: np.ndarray | None = None, feet: Literal["spheres", "capsules"] = "spheres",
) -> dict[str, np.ndarray]:  # fmt: skip
    """Link poses and velocities of all 30 bodies over T frames, from MuJoCo's kinematics (float64).

    Args:
        root_pos: `[T, 3]`, world, m.
        root_quat: `[T, 4]`, w x y z; normalised here.
        joint_pos: `[T, 29]`, rad, the project's joint order.
        root_lin_vel: `[T, 3]`, world, m/s, of the pelvis origin; zero when None.
        root_ang_vel: `[T, 3]`, **world** axes, rad/s; zero when None.
        joint_vel: `[T, 29]`, rad/s; zero when None.
        feet: foot shape, for `foot_height` only.

    Returns:
        `body_pos_w [T, 30, 3]`, `body_quat_w [T, 30, 4]`, `body_lin_vel_w [T, 30, 3]` (of link
        origins), `body_ang_vel_w [T, 30, 3]` (world axes), `com_w [T, 3]`, and
        `foot_height [T, 2]`: the lowest point of the left and right foot's shapes, m.
    """
    model = mjcf.compile_model(mjcf.ModelConfig(feet=feet))
    data = mujoco.MjData(model)
    frames = len(root_pos)
    out = {
        "body_pos_w": np.empty((frames, g1.NUM_BODIES, 3)),
        "body_quat_w": np.empty((frames, g1.NUM_BODIES, 4)),
        "body_lin_vel_w": np.empty((frames, g1.NUM_BODIES, 3)),
        "body_ang_vel_w": np.empty((frames, g1.NUM_BODIES, 3)),
        "com_w": np.empty((frames, 3)),
        "foot_height": np.empty((frames, 2)),
    }
    foot_geoms = [
        [i for i in range(model.ngeom) if model.geom(i).name.startswith(f"{side}_foot")]
        for side in ("left", "right")
    ]
    velocity = np.zeros(6)
    inverse = np.empty(4)
    for t in range(frames):
        data.qpos[:3], data.qpos[3:7], data.qpos[7:] = root_pos[t], root_quat[t], joint_pos[t]
        data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        if root_lin_vel is not None:
            data.qvel[:3] = root_lin_vel[t]
        if root_ang_vel is not None:  # a free joint's angular velocity is in the body's axes
            mujoco.mju_negQuat(inverse, data.qpos[3:7])
            mujoco.mju_rotVecQuat(data.qvel[3:6], np.asarray(root_ang_vel[t], float), inverse)
        if joint_vel is not None:
            data.qvel[6:] = joint_vel[t]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        out["body_pos_w"][t] = data.xpos[1:]
        out["body_quat_w"][t] = data.xquat[1:]
        out["com_w"][t] = data.subtree_com[1]
        for body in range(g1.NUM_BODIES):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body + 1, velocity, 0)
            out["body_ang_vel_w"][t, body] = velocity[:3]
            out["body_lin_vel_w"][t, body] = velocity[3:]
        for side, ids in enumerate(foot_geoms):
            # A capsule's lowest point is its lower end's centre less the radius.
            out["foot_height"][t, side] = min(
                data.geom_xpos[i, 2]
                - model.geom_size[i, 0]
                - abs(data.geom_xmat[i, 8]) * model.geom_size[i, 1]
                for i in ids
            )
    return out
