"""A motion of the G1 on another robot of its family.

The other robot has some of the G1's joints and the same legs. Pelvis and joints are taken over,
joints that it does not have are left out, and its links follow by forward kinematics: feet and
pelvis move as before, and what hangs on a joint that is not there moves with the link before it.
"""

from __future__ import annotations

import weakref

import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion.clip import Clip
from bm_envs.robots import g1, kinematics
from bm_envs.robots.robot import Robot

# The motions made of a clip, by the robot's name, as long as the clip lives.
_made: weakref.WeakKeyDictionary[Clip, dict[str, Clip]] = weakref.WeakKeyDictionary()


def on_robot(clip: Clip, robot: Robot) -> Clip:
    """The motion on a robot; of the same clip the same one, so that environments share it.

    Raises:
        MotionError: the clip is another robot's than the G1 or this one, or this one has joints
            that the G1 does not have.
    """
    if clip.robot is robot:
        return clip
    if clip.robot is not g1.G1 or not set(robot.joint_names) <= set(g1.JOINT_NAMES):
        raise MotionError(
            f"Motion '{clip.name}' is one of robot {clip.robot.name}, expected one of robot "
            f"{robot.name} or of g1."
        )
    known = _made.setdefault(clip, {})
    if robot.name in known:
        return known[robot.name]
    joints = g1.order_map(g1.JOINT_NAMES, robot.joint_names)
    joint_pos, joint_vel = clip.joint_pos[:, joints], clip.joint_vel[:, joints]
    links = kinematics.link_states(
        clip.body_pos_w[:, 0].astype(np.float64), clip.body_quat_w[:, 0].astype(np.float64),
        joint_pos, clip.body_lin_vel_w[:, 0], clip.body_ang_vel_w[:, 0], joint_vel, robot,
    )  # fmt: skip
    known[robot.name] = Clip(
        clip.name, clip.fps, joint_pos, joint_vel, *links, clip.foot_contact, clip.source,
        clip.licence, robot,
    )  # fmt: skip
    return known[robot.name]
