"""What the guided tasks show: the last four states of the robot, its last action, its command.

The *now frame* has its origin under the root (its x and y, at height zero), its z axis upward and
its x axis along the root's heading, all of the present step; see `states.py`. The history holds
what that module calls `joint_rot`, block by block, each with its steps t-3, t-2, t-1, t one after
another. `joint_rot` is therefore read off, and `body_pos` follows by kinematics: `features`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import ObsTerm
from bm_envs.rotations import quat_rotate_inverse
from bm_envs.tasks.guided.states import (
    NOW,
    PAST,
    REPRESENTATIONS,
    Frame,
    States,
    decode_joint_rot,
    representation,
    states_of,
)

J = g1.NUM_JOINTS
NEAREST = 3  # obstacles shown
ABSENT = (10.0, 0.0, 0.0)  # stands for one where there are fewer: a point, far ahead
_BLOCKS = REPRESENTATIONS["joint_rot"].blocks

HISTORY_TERMS = (
    ObsTerm("joint_pos", PAST * J, "joints", "rad", "joint positions, 4 steps"),
    ObsTerm("joint_vel", PAST * J, "joints", "rad/s", "joint velocities, 4 steps"),
    ObsTerm("root_pos", PAST * 3, "now", "m", "pelvis, 4 steps; heights are above the ground"),
    ObsTerm("root_rot", PAST * 3, "now", "rad", "rotation vector of the pelvis, 4 steps"),
    ObsTerm("root_lin_vel", PAST * 3, "now", "m/s", "velocity of the pelvis origin, 4 steps"),
    ObsTerm("root_ang_vel", PAST * 3, "now", "rad/s", "angular velocity of the pelvis, 4 steps"),
)
_ACTION = ObsTerm(
    "actions", J, "joints", "-", "last raw action; at the start the one that asks for the pose"
)
_COMMAND = ObsTerm(
    "command", 3, "now", "m/s, rad/s", "wanted velocity forward and left, wanted yaw rate"
)
_GOAL = (
    ObsTerm("goal_pos", 2, "now", "m", "the goal"),
    ObsTerm("goal_distance", 1, "-", "m", "horizontal distance of the pelvis from it"),
)
_OBSTACLES = ObsTerm(
    "obstacles", 3 * NEAREST, "now", "m", f"x, y and radius of the {NEAREST} nearest obstacles"
)
_TOUR = (
    ObsTerm("waypoint", 2, "now", "m", "the waypoint"),
    ObsTerm("waypoint_distance", 1, "-", "m", "horizontal distance of the pelvis from it"),
    ObsTerm("heading_error", 1, "-", "rad", "turn to its heading, to the left"),
    ObsTerm("arm_targets", 14, "joints", "rad", "targets of the arms' joints in the coming step"),
)
# What belongs to the command is zero in the warm-up (obstacles: absent). So is, in a composition,
# what belongs to the other kind of phase.
TERMS: dict[str, tuple[ObsTerm, ...]] = {
    "walk_perturb": (*HISTORY_TERMS, _ACTION),
    "joystick": (*HISTORY_TERMS, _ACTION, _COMMAND),
    "run": (*HISTORY_TERMS, _ACTION, _COMMAND),
    "waypoint": (*HISTORY_TERMS, _ACTION, *_GOAL),
    "obstacle": (*HISTORY_TERMS, _ACTION, *_GOAL, _OBSTACLES),
    "composition": (*HISTORY_TERMS, _ACTION, _COMMAND, *_GOAL, _OBSTACLES),
    "tour": (*HISTORY_TERMS, _ACTION, _COMMAND, *_TOUR),  # begins as the joystick's
}


def layout(terms: Sequence[ObsTerm]) -> dict[str, slice]:
    """Where each term stands in an observation of these terms, `TERMS[task]` for example."""
    places, start = {}, 0
    for term in terms:
        places[term.name] = slice(start, start + term.size)
        start += term.size
    return places


def history_values(states: States) -> np.ndarray:
    """The history's stretch of observations, `[M, 280]`, of states `[M, 4, ...]`."""
    features = representation("joint_rot").encode(states, NOW)
    blocks = [features[..., _BLOCKS[term.name]] for term in HISTORY_TERMS]
    return np.concatenate([block.reshape(len(block), -1) for block in blocks], 1)


def joint_rot_features(observation: np.ndarray) -> np.ndarray:
    """Features of `joint_rot`, `[..., 4, 70]`, of any task's observations `[..., O]`."""
    parts = [
        observation[..., place].reshape(*observation.shape[:-1], PAST, -1)
        for place in layout(HISTORY_TERMS).values()
    ]
    return np.concatenate(parts, -1)


def history_states(observation: np.ndarray) -> States:
    """The four states, links included, in the now frame. `[..., 4, ...]`, float32."""
    features = joint_rot_features(observation)
    zero = np.zeros((*observation.shape[:-1], 3), features.dtype)
    states = decode_joint_rot(features, Frame(zero, zero[..., 0]))
    spin = quat_rotate_inverse(states.root_quat, states.root_ang_vel)
    assert states.joint_pos is not None and states.joint_vel is not None
    return states_of(
        np.concatenate([states.root_pos, states.root_quat, states.joint_pos], -1),
        np.concatenate([states.root_lin_vel, spin, states.joint_vel], -1),
    )


def features(observation: np.ndarray, name: str) -> np.ndarray:
    """Features of the representation `name`, `[..., 4, D]`, of any task's observations `[..., O]`.

    Raises:
        ConfigError: no such representation.
    """
    if name not in REPRESENTATIONS:
        raise ConfigError(unknown_name("representation", name, REPRESENTATIONS))
    if name == "joint_rot":
        return joint_rot_features(observation)
    return representation(name).encode(history_states(observation), NOW)


_COMMAND_SIGNS = {  # forward, left, yaw rate; x, y; distance; x, y, radius
    "command": (1.0, -1.0, -1.0), "goal_pos": (1.0, -1.0), "goal_distance": (1.0,),
    "obstacles": (1.0, -1.0, 1.0), "waypoint": (1.0, -1.0), "waypoint_distance": (1.0,),
    "heading_error": (-1.0,),
}  # fmt: skip


def mirror_map(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Left-right mirror of a task's observations: `mirrored = sign * obs[..., index]`, `[O]` both.

    What the robot would see were all reflected in the x-z plane of its heading. A term is so many
    times what has a mirror of its own: the history's are the representation's blocks.

    Raises:
        ConfigError: a term of the task has no mirror here.
    """
    history = representation("joint_rot")
    index, sign, start = [], [], 0
    for term in TERMS[task]:
        if term.name in history.blocks:
            block = history.blocks[term.name]
            places, signs = history.mirror[0][block] - block.start, history.mirror[1][block]
        elif term.name == "actions":
            places, signs = g1.mirror_map()
        elif term.name == "arm_targets":
            places, signs = (part[J - term.size :] for part in g1.mirror_map())
            places = places - (J - term.size)
        elif term.name not in _COMMAND_SIGNS:
            raise ConfigError(
                f"The observation term '{term.name}' has no mirror: enter the signs of its values "
                "in _COMMAND_SIGNS of bm_envs/tasks/guided/observations.py."
            )
        else:
            signs = np.array(_COMMAND_SIGNS[term.name])
            places = np.arange(len(signs))
        for first in range(start, start + term.size, len(places)):
            index.append(first + places)
            sign.append(signs)
        start += term.size
    return np.concatenate(index), np.concatenate(sign).astype(np.float32)
