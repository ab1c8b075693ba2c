"""Terms of the observations as data: names, sizes, frames and units of the vector's stretches.

This is the one table for everybody, and it stands beside the robot's because tasks, policies and
the robot's own controller all use it: the task computes these terms, policy files name them, and
slices, spaces and tables in the documentation are derived from it. Source: whole_body_tracking and
mjlab, `tracking_env_cfg.py`. No term looks back in time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bm_envs.robots import g1
from bm_envs.robots.robot import Robot, mirror_name


@dataclass(frozen=True)
class ObsTerm:
    """One stretch of an observation. `frame` says in which axes it is, `unit` in which unit."""

    name: str
    size: int
    frame: str
    unit: str
    meaning: str
    num_joints: int = g1.NUM_JOINTS
    """Of the robot."""

    @property
    def joint_blocks(self) -> int:
        """How many blocks of a value per joint it consists of; 0 where values are no joints'."""
        return self.size // self.num_joints if self.frame == "joints" else 0


@functools.cache
def terms_of(robot: Robot = g1.G1) -> dict[str, ObsTerm]:
    """All terms, by their names and in the critic's order, as a robot has them."""
    J, K = robot.num_joints, len(robot.tracked_bodies)  # noqa: N806
    terms = (
        ObsTerm(
            "command", 2 * J, "joints", "rad, rad/s",
            "reference joint positions (absolute), then reference joint velocities", J,
        ),
        ObsTerm(
            "motion_anchor_pos_b", 3, "robot torso", "m",
            "R_a^T (p_ref - p_a): reference torso position seen from the robot's torso", J,
        ),
        ObsTerm(
            "motion_anchor_ori_b", 6, "robot torso", "-",
            "R = R_a^T R_ref: its first two columns, row by row: R00 R01 R10 R11 R20 R21", J,
        ),
        ObsTerm(
            "body_pos", 3 * K, "robot torso", "m",
            f"R_a^T (p_b - p_a): positions of the {K} tracked bodies", J,
        ),
        ObsTerm(
            "body_ori", 6 * K, "robot torso", "-",
            f"R_a^T R_b of the {K} tracked bodies, two columns each as above", J,
        ),
        ObsTerm(
            "base_lin_vel", 3, "pelvis", "m/s", "linear velocity of the pelvis link's origin", J
        ),
        ObsTerm("base_ang_vel", 3, "pelvis", "rad/s", "angular velocity of the pelvis", J),
        ObsTerm("joint_pos", J, "joints", "rad", "joint positions less the default pose", J),
        ObsTerm("joint_vel", J, "joints", "rad/s", "joint velocities", J),
        ObsTerm(
            "actions", J, "joints", "-", "previous action as the network gave it; 0 at the start",
            J,
        ),
    )  # fmt: skip
    return {term.name: term for term in terms}


TERMS: dict[str, ObsTerm] = terms_of()  # of the G1
CRITIC_TERMS: tuple[str, ...] = tuple(TERMS)  # 286 values
POLICY_TERMS: tuple[str, ...] = tuple(  # 160 values
    name for name in TERMS if name not in ("body_pos", "body_ori")
)
# For robots without an estimate of their place and linear velocity. 154 values
NO_STATE_ESTIMATION_TERMS: tuple[str, ...] = tuple(
    name for name in POLICY_TERMS if name not in ("motion_anchor_pos_b", "base_lin_vel")
)


def layout(names: Sequence[str], robot: Robot = g1.G1) -> dict[str, slice]:
    """Where each term stands in the observation made of `names`, in order."""
    terms = terms_of(robot)
    slices, start = {}, 0
    for name in names:
        slices[name] = slice(start, start + terms[name].size)
        start += terms[name].size
    return slices


def size(names: Sequence[str], robot: Robot = g1.G1) -> int:
    """Number of values of the observation made of `names`."""
    terms = terms_of(robot)
    return sum(terms[name].size for name in names)


def mirror_map(names: Sequence[str], robot: Robot = g1.G1) -> tuple[np.ndarray, np.ndarray]:
    """Left-right mirror of observations made of `names`: `mirrored = sign * obs[..., index]`.

    What the robot would see were all reflected in its sagittal (x-z) plane; `Robot.mirror_map`
    is the same for joints and actions. Vectors (position, velocity) turn their y around, axial
    vectors (angular velocity) x and z, and a rotation becomes `M R M` with `M = diag(1, -1, 1)`.
    Both `[O]`.
    """
    terms, tracked = terms_of(robot), robot.tracked_bodies
    joint_index, joint_sign = robot.mirror_map()
    body_index = np.array([tracked.index(mirror_name(name)) for name in tracked])
    vector, axial = np.array([1.0, -1.0, 1.0]), np.array([-1.0, 1.0, -1.0])
    columns = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0])  # R00 R01 R10 R11 R20 R21
    signs = {
        "motion_anchor_pos_b": vector, "motion_anchor_ori_b": columns, "body_pos": vector,
        "body_ori": columns, "base_lin_vel": vector, "base_ang_vel": axial,
    }  # fmt: skip
    index, sign = [], []
    for name, place in layout(names, robot).items():
        if terms[name].joint_blocks:
            block, block_sign = joint_index, joint_sign
        elif name in ("body_pos", "body_ori"):
            width = len(signs[name])
            block = (body_index[:, None] * width + np.arange(width)).ravel()
            block_sign = np.tile(signs[name], len(tracked))
        else:
            block, block_sign = np.arange(terms[name].size), signs[name]
        for start in range(place.start, place.stop, len(block)):
            index.append(start + block)
            sign.append(block_sign)
    return np.concatenate(index), np.concatenate(sign).astype(np.float32)
