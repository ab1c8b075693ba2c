"""Link poses and velocities over whole motions: the tables' chain in NumPy, all frames at once.

MuJoCo's kinematics would do the same one frame at a time; here four minutes at 50 Hz take a third
of a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.robots.robot import Body, Joint, Robot, Vec3


def joints_of_links(
    bodies: Sequence[Body] = g1.BODIES, joints: Sequence[Joint] = g1.JOINTS
) -> dict[str, int]:
    """Of every link but the root, by name, which joint moves it.

    Raises:
        ConfigError: a link has none; it would have to be part of its parent.
    """
    joint_of = {joint.body: i for i, joint in enumerate(joints)}
    for body in bodies[1:]:
        if body.name not in joint_of:
            raise ConfigError(
                f"The link '{body.name}' of the robot's table has no joint, expected one of every "
                "link but the root: give its mass and shapes to its parent."
            )
    return joint_of


class Tree(NamedTuple):
    """A robot's links by their numbers: a row of each but the root, which is the first."""

    index: dict[str, int]
    joint_of_body: dict[str, int]

    @staticmethod
    def of(robot: Robot) -> Tree:
        """Of this robot."""
        index = {name: i for i, name in enumerate(robot.body_names)}
        return Tree(index, joints_of_links(robot.bodies, robot.joints))


@functools.cache
def tree_of(robot: Robot) -> Tree:
    """The tree of a robot, made once."""
    return Tree.of(robot)


FOOT_INDICES = tuple(g1.BODY_NAMES.index(name) for name in g1.FOOT_BODIES)


def foot_indices(robot: Robot = g1.G1) -> tuple[int, ...]:
    """Numbers of the left and the right foot among the links."""
    return tuple(tree_of(robot).index[name] for name in robot.foot_bodies)


class Points(NamedTuple):
    """Points fixed to links: `body [P]` index, `offset [P, 3]` in its frame, m, `radius [P]`, m."""

    body: np.ndarray
    offset: np.ndarray
    radius: np.ndarray

    def of(self, body_pos_w: np.ndarray, body_quat_w: np.ndarray) -> np.ndarray:
        """`[T, P, 3]`: where they are, by positions `[T, 30, 3]` and quaternions of the links."""
        pos, quat = np.asarray(body_pos_w, np.float64), np.asarray(body_quat_w, np.float64)
        return pos[:, self.body] + rot.quat_rotate(quat[:, self.body], self.offset)


def points_on(entries: Sequence[tuple[str, Vec3, float]], robot: Robot = g1.G1) -> Points:
    """Points by their link's name, their place in its frame and a radius."""
    bodies, offsets, radii = zip(*entries, strict=True)
    index = tree_of(robot).index
    return Points(
        np.array([index[name] for name in bodies]),
        np.array(offsets, np.float64), np.array(radii, np.float64),
    )  # fmt: skip


@functools.cache
def shapes_of(robot: Robot = g1.G1) -> Points:
    """Centres of what meets the floor in the engine: spheres, and both ends of capsules."""
    return points_on([
        (geom.body, end, geom.radius)
        for geom in (*robot.collision_geoms, *robot.foot_spheres)
        for end in (geom.start, geom.end) if end is not None
    ], robot)  # fmt: skip


SHAPES = shapes_of()
"""Of the G1."""


class LinkStates(NamedTuple):
    """States of a robot's B links, world axes, float64; 30 of the G1, in `g1.BODY_NAMES` order."""

    pos: np.ndarray
    """`[T, 30, 3]`, m, link origins."""
    quat: np.ndarray
    """`[T, 30, 4]`, w x y z."""
    lin_vel: np.ndarray
    """`[T, 30, 3]`, m/s, of the link origins."""
    ang_vel: np.ndarray
    """`[T, 30, 3]`, rad/s."""


def link_states(
    root_pos: np.ndarray,
    root_quat: np.ndarray,
    joint_pos: np.ndarray,
    root_lin_vel: np.ndarray,
    root_ang_vel: np.ndarray,
    joint_vel: np.ndarray,
    robot: Robot = g1.G1,
) -> LinkStates:
    """Forward kinematics of every frame.

    Args:
        root_pos: `[T, 3]`, world, m.
        root_quat: `[T, 4]`, w x y z; normalised here.
        joint_pos: `[T, 29]`, rad, the project's joint order.
        root_lin_vel: `[T, 3]`, world, m/s, of the pelvis origin.
        root_ang_vel: `[T, 3]`, world axes, rad/s.
        joint_vel: `[T, 29]`, rad/s.
        robot: whose links they are; with J joints in place of 29, and B links of 30.
    """
    index, joint_of_body = tree_of(robot)
    # Bodies first while computing, so that each link's values lie together in memory.
    frames = len(root_pos)
    pos = np.empty((robot.num_bodies, frames, 3))
    quat = np.empty((robot.num_bodies, frames, 4))
    lin_vel = np.empty((robot.num_bodies, frames, 3))
    ang_vel = np.empty((robot.num_bodies, frames, 3))
    pos[0], lin_vel[0], ang_vel[0] = root_pos, root_lin_vel, root_ang_vel
    quat[0] = rot.quat_normalize(np.asarray(root_quat, np.float64))
    for i, body in enumerate(robot.bodies[1:], start=1):
        parent, j = index[body.parent], joint_of_body[body.name]
        offset = rot.quat_rotate(quat[parent], np.array(body.pos, np.float64))
        axis = np.array(robot.joints[j].axis, np.float64)
        turn = rot.quat_from_axis_angle(np.asarray(joint_pos, np.float64)[:, j, None] * axis)
        fixed = rot.quat_normalize(np.array(body.quat, np.float64))
        pos[i] = pos[parent] + offset
        quat[i] = rot.quat_normalize(rot.quat_mul(quat[parent], rot.quat_mul(fixed, turn)))
        lin_vel[i] = lin_vel[parent] + rot.cross(ang_vel[parent], offset)
        ang_vel[i] = ang_vel[parent] + joint_vel[:, j, None] * rot.quat_rotate(quat[i], axis)
    return LinkStates(
        *(np.ascontiguousarray(x.swapaxes(0, 1)) for x in (pos, quat, lin_vel, ang_vel))
    )


def link_poses(
    root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray, robot: Robot = g1.G1
) -> LinkStates:
    """The links at rest; arguments as in `link_states`."""
    still, slow = np.zeros((len(root_pos), 3)), np.zeros_like(joint_pos)
    return link_states(root_pos, root_quat, joint_pos, still, still, slow, robot)


class LinkChain:
    """Where one link is, one frame at a time, for a control loop."""

    def __init__(
        self, link: str, base: str = g1.ROOT_BODY, robot: Robot = g1.G1
    ) -> None:  # fmt: skip
        """Keep the joints from the link `base` to `link`."""
        index, joint_of_body = tree_of(robot)
        # Of each link: its place in its parent, the joint, and its rotation there, which is
        # `fixed (1 + sin(angle) K + (1 - cos(angle)) K K)` (Rodrigues, K: cross with the axis).
        self._steps: list[tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray]] = []
        body = robot.bodies[index[link]]
        while body.name != base:
            joint = joint_of_body[body.name]
            fixed = rot.quat_to_matrix(rot.quat_normalize(np.array(body.quat, np.float64)))
            cross = np.cross(np.eye(3), np.array(robot.joints[joint].axis, np.float64))
            around = fixed @ cross
            place = np.array(body.pos, np.float64)
            self._steps.insert(0, (place, joint, fixed, around, around @ cross))
            body = robot.bodies[index[body.parent]]

    def pose(
        self, base_pos: np.ndarray, base_quat: np.ndarray, joint_pos: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Position `[3]`, m, and rotation matrix `[3, 3]` of the link, world.

        Args:
            base_pos: `[3]`, of the base, world, m.
            base_quat: `[4]`, w x y z; normalised here.
            joint_pos: `[29]`, rad, the project's joint order.
        """
        pos = np.array(base_pos, np.float64)
        matrix = rot.quat_to_matrix(rot.quat_normalize(np.asarray(base_quat, np.float64)))
        for place, joint, fixed, around, twice in self._steps:
            angle = joint_pos[joint]
            pos = pos + matrix @ place
            matrix = matrix @ (fixed + math.sin(angle) * around + (1 - math.cos(angle)) * twice)
        return pos, matrix


def sole_points(
    body_pos_w: np.ndarray, body_quat_w: np.ndarray, robot: Robot = g1.G1
) -> np.ndarray:
    """`[T, 2, 4, 3]`: the lowest points of the left and right foot's four spheres, world, m."""
    feet = list(foot_indices(robot))
    pos = np.asarray(body_pos_w, np.float64)[:, feet, None]
    quat = np.asarray(body_quat_w, np.float64)[:, feet, None]
    # Centres of the spheres in the feet's frames. [2, 4, 3]
    centres = np.array(
        [[g.start for g in robot.foot_spheres if g.body == name] for name in robot.foot_bodies]
    )
    return pos + rot.quat_rotate(quat, centres) - (0.0, 0.0, robot.foot_spheres[0].radius)


def shape_heights(
    body_pos_w: np.ndarray, body_quat_w: np.ndarray, robot: Robot = g1.G1
) -> np.ndarray:
    """`[T, P]`, m: height of the lowest point of each of the shapes; negative in the floor."""
    shapes = shapes_of(robot)
    return shapes.of(body_pos_w, body_quat_w)[..., 2] - shapes.radius
