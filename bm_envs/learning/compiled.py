"""The kernels of `native.c`: what they are given, and whether they are there."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bm_envs.backends.native import address, library
from bm_envs.learning.kinematics import local_bodies, path_to
from bm_envs.robots import g1
from bm_envs.robots.kinematics import joints_of_links
from bm_envs.robots.robot import Robot
from bm_envs.rotations import quat_normalize, quat_to_matrix
from bm_envs.tasks.track.rows import K, row_size

# By the robot's joints, what the library's functions are called; see `native_23.c`.
PREFIXES = {29: "native_", 23: "native23_"}
# In the order in which `native.c` has them.
TERMS = (
    "command", "motion_anchor_pos_b", "motion_anchor_ori_b", "base_lin_vel", "base_ang_vel",
    "joint_pos", "joint_vel", "actions",
)  # fmt: skip
PARTS = 6  # of a state
STATE = 76  # numbers of a state; these are of the G1, `sizes_with` has those of other robots
INPUTS, OUTPUTS = 123, 70  # of the model
TARGETS = range(68, 97)  # of these inputs: how far joints are from their targets
MOST_OBSERVATIONS = 256
NEWEST = 2  # instructions to use where the processor has them, see `native_choose`


class Sizes(NamedTuple):
    """Numbers of a state and of the model, and which inputs are how far joints are off."""

    state: int
    inputs: int
    outputs: int
    targets: range


def sizes_with(num_joints: int) -> Sizes:
    """For a robot of so many joints."""
    more = num_joints - g1.NUM_JOINTS
    first = TARGETS.start + 2 * more
    return Sizes(
        STATE + 2 * more, INPUTS + 3 * more, OUTPUTS + 2 * more, range(first, first + num_joints)
    )


class Matrix(ctypes.Structure):
    """`Matrix` of `native.c`: rows of numbers, for one step or for each of several."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "stride", "step", "bfloat16")),
    ]

    @classmethod
    def of(cls, value: Tensor) -> Matrix:
        """The matrix of a tensor `[B, D]` or `[H, B, D]`, which must outlive it."""
        if value.dtype not in (torch.float32, torch.bfloat16) or value.stride(-1) != 1:
            raise ValueError(f"{value.dtype} tensor with strides {value.stride()} is no matrix")
        step = value.stride(0) if value.dim() == 3 else 0
        return cls(
            value.data_ptr(), value.shape[-2], value.shape[-1], value.stride(-2), step,
            value.dtype == torch.bfloat16,
        )  # fmt: skip


class Tree(ctypes.Structure):
    """`Tree` of `native.c`."""

    _fields_ = [
        ("count", ctypes.c_int64), ("links", ctypes.c_void_p), ("fixed", ctypes.c_void_p),
        ("picked", ctypes.c_void_p),
    ]  # fmt: skip


class Sides(ctypes.Structure):
    """`Sides` of `native.c`."""

    _fields_ = [
        ("count", ctypes.c_int64 * 2), ("split", ctypes.c_int64 * 2), ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p), ("factor", ctypes.c_void_p),
    ]  # fmt: skip


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names]


def _matrices(*names: str) -> list[tuple[str, Any]]:
    return [(name, Matrix) for name in names]


def _in_parts(*names: str) -> list[tuple[str, Any]]:
    return [(name, Matrix * 2) for name in names]


class Steps(ctypes.Structure):
    """`Steps` of `native.c`; a change of it raises `backends.native.VERSION`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "blocks", "steps")),
        ("local", Tree),
        ("soles", ctypes.c_void_p),
        *((name, ctypes.c_double) for name in ("dt", "per_dt", "late", "sole_radius", "per_depth")),
        *_pointers("states", "state_grads", "rates"),
        ("starts", Matrix * PARTS),
        *_pointers("model_mean", "model_inverse", "out_scale", "out_bias"),
        ("model_sides", Sides), ("rate_sides", Sides),
        *_in_parts(
            "model_in", "model_in_grad", "last_out", "linear_out", "out_grad", "beside_grad",
        ),
        ("targets", Matrix),
        *((name, ctypes.c_int64) for name in ("observation_size", "lead", "anchor")),
        ("places", ctypes.c_int64 * len(TERMS)),
        *_pointers(
            "reference", "row", "last_row", "policy_mean", "policy_inverse", "nominal_pos",
            "offset_per", "action_scale", "mean_bias",
        ),
        ("policy_sides", Sides), ("mean_sides", Sides),
        *_in_parts("policy_in", "policy_in_grad", "mean_out", "mean_grad"),
        *_matrices(
            "clean", "clean_grad", "obs_noise", "action_noise", "default_in", "last_action",
            "build",
        ),
        *_pointers(
            "default_pos", "offsets", "noisy_grads", "actions", "action_grads", "noisy",
        ),
    ]  # fmt: skip


STEPS_FIELDS: dict[str, Any] = dict(Steps._fields_)  # pyright: ignore


class Costs(ctypes.Structure):
    """`Costs` of `native.c`."""

    _fields_ = [
        ("tree", Tree),
        ("anchor", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("per_dt", "recovery", "joint_limit", "action_rate")),
        *_pointers("weights", "per_width", "soft_low", "soft_high", "cost", "distance", "grad"),
    ]


class Misses(ctypes.Structure):
    """`Misses` of `native.c`."""

    _fields_ = [
        ("truth", Matrix * PARTS),
        *_pointers("weights", "per_unit", "cost", "off", "grad"),
    ]


class TreeTables:
    """Links on the ways from the pelvis to some bodies, as the kernels have them.

    Attributes:
        tree: of the tables, which must outlive it.
    """

    def __init__(self, bodies: Sequence[str], robot: Robot = g1.G1) -> None:
        paths = {name: path_to(name, robot) for name in robot.body_names[1:]}
        needed = {link for body in bodies if body in paths for link in paths[body]}
        # In the table's order, as `WorldKinematics` has them: a set's differs between processes.
        order = sorted((name for name in paths if name in needed), key=lambda n: len(paths[n]))
        names, table = [robot.root_body, *order], {body.name: body for body in robot.bodies}
        joint_of = joints_of_links(robot.bodies, robot.joints)
        links, fixed = np.zeros((len(names), 4), np.int64), np.zeros((len(names), 12), np.float32)
        for i, name in enumerate(order, 1):
            body, joint = table[name], joint_of[name]
            turn = quat_to_matrix(quat_normalize(np.array(body.quat, np.float64)))
            axis = np.array(robot.joints[joint].axis, np.float64)
            if sorted(axis) != [0, 0, 1]:
                raise ValueError(f"joint {joint} turns about {axis}, expected a link's own axis")
            turned = not np.array_equal(turn, np.eye(3))
            links[i] = names.index(body.parent), joint, axis.argmax(), turned
            fixed[i] = *turn.flatten(), *body.pos
        self._arrays = links, fixed, np.array([names.index(body) for body in bodies])
        self.tree = Tree(len(names), *map(address, self._arrays))


def _numbers(robot: Robot) -> list[int]:
    """Those that `native.c` has as constants."""
    joints, bodies = robot.num_joints, (local_bodies(robot), robot.tracked_bodies)
    local, every = (TreeTables(names, robot).tree.count for names in bodies)
    state, inputs, outputs, targets = sizes_with(joints)
    sizes = [inputs, outputs, state, row_size(joints)]
    return [joints, K, local, every, *sizes, targets.start, len(targets)]


class Functions:
    """The library's functions for a robot, by the names that the G1's have."""

    def __init__(self, loaded: Any, prefix: str) -> None:
        self._loaded, self._prefix = loaded, prefix

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._loaded, self._prefix + name.removeprefix("native_"))
        setattr(self, name, function)
        return function


def _why_not(loaded: Any, robot: Robot) -> str:
    """Why the library must not be used; empty: it may be."""
    names = ("lanes", "steps_size", "costs_size", "misses_size", "learning_number", "choose")
    for name in names:
        getattr(loaded, f"native_{name}").restype = ctypes.c_int64
    loaded.native_learning_number.argtypes = [ctypes.c_int64]
    sizes = loaded.native_steps_size(), loaded.native_costs_size(), loaded.native_misses_size()
    if sizes != tuple(map(ctypes.sizeof, (Steps, Costs, Misses))):
        return (
            "The compiled part was built from another version of learning/native.c and is not "
            "used; install the package again."
        )
    try:
        expected = _numbers(robot)
    except ValueError as error:
        return f"The compiled part is not used for this robot: {error}."
    actual = [loaded.native_learning_number(i) for i in range(len(expected))]
    if actual != expected:
        return (
            f"The compiled part is for other numbers, {actual}, than the robot's, {expected} (see "
            "bm_envs/learning/native.c): torch does its work."
        )
    return ""


def _declare(loaded: Any) -> None:
    """Say which arguments the functions take."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, arguments in (
        ("choose", [number]), ("activate", [pointer] * 3), ("activate_back", [pointer] * 3),
        ("activate_both", [pointer] * 3), ("activate_both_back", [pointer] * 3),
        ("advance", [pointer, number]), ("advance_back", [pointer, number]),
        ("act", [pointer, number]), ("act_back", [pointer, number]), ("costs", [pointer] * 2),
        ("misses", [pointer] * 2), ("sum_rows", [pointer] * 2),
        ("uniform", [number, number, pointer]),
    ):  # fmt: skip
        function = getattr(loaded, f"native_{name}")
        function.argtypes = arguments
        if name != "choose":
            function.restype = None


@functools.cache
def kernels(robot: Robot = g1.G1) -> Any | None:
    """The library with its functions declared, or None where torch does the work."""
    loaded = library()
    if loaded is None or robot.num_joints not in PREFIXES:
        return None
    if robot.num_joints != g1.NUM_JOINTS:
        loaded = Functions(loaded, PREFIXES[robot.num_joints])
    if reason := _why_not(loaded, robot):
        warnings.warn(reason, RuntimeWarning, stacklevel=2)
        return None
    _declare(loaded)
    loaded.native_choose(NEWEST)
    return loaded


def lanes(robot: Robot = g1.G1) -> int:
    """How many robots the kernels in use take at a time, by which arrays are laid out."""
    return kernels(robot).native_lanes()  # pyright: ignore
