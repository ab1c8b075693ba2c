"""The tracking task's arithmetic in compiled code, where there is any; see `native.c`."""

from __future__ import annotations

import ctypes
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bm_envs.backends.native import View, address, library
from bm_envs.robots import g1

if TYPE_CHECKING:
    from bm_envs.tasks.track.task import TrackTask

VIEWS = (
    "joint_pos", "joint_vel", "root_lin_vel", "root_ang_vel_b", "body_pos", "body_quat",
    "body_axes", "body_lin_vel", "body_ang_vel", "contact_force",
)  # fmt: skip

FEW = 16  # robots, up to which copying observations is quicker than asking for an address


class Track(ctypes.Structure):
    """`Track` of `native.c`; a change of it raises `VERSION` here and there."""

    _fields_ = [
        ("num_envs", ctypes.c_int64),
        *((name, View) for name in (
            "joint_pos", "joint_vel", "root_lin_vel", "root_ang_vel_b", "body_pos", "body_quat",
            "body_axes", "body_lin_vel", "body_ang_vel", "contact_force",
        )),
        *((name, ctypes.c_void_p) for name in (
            "reference_table", "shown_table", "reference", "shown", "frame", "first_row",
            "last_frame", "row", "action", "last_action", "default_joint_pos", "soft_low",
            "soft_high", "stale_pos", "stale_axes",
        )),
        *((name, ctypes.c_int64) for name in (
            "anchor", "num_penalized", "num_values", "stale_targets", "rotate_velocity_targets",
            "failure_body", "train_rules",
        )),
        ("end_effectors", ctypes.c_void_p),
        ("num_end_effectors", ctypes.c_int64),
        *((name, ctypes.c_double) for name in (
            "failure_height", "failure_tilt", "failure_distance", "contact_threshold",
        )),
        *((name, ctypes.c_void_p) for name in (
            "widths", "weights", "values", "reward", "causes", "terminated", "diverged",
        )),
    ]  # fmt: skip


def declare(found: Any) -> bool:
    """Say to the library which arguments the task's functions take; False: it is of another size.

    That happens to who changes `Track` and neither `VERSION` nor builds again.
    """
    found.native_track_size.restype = ctypes.c_int64
    if found.native_track_size() != ctypes.sizeof(Track):
        warnings.warn(
            "The compiled part was built from another version of native.c and is not used; install "
            "the package again.",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        return False
    pointer, number, track = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Track)
    found.native_gather.argtypes = found.native_terms.argtypes = [track]
    found.native_observe.argtypes = [
        track, pointer, number, pointer, number, pointer, pointer, number,
    ]  # fmt: skip
    found.native_record.argtypes = [track, pointer, pointer, pointer, number, ctypes.c_double]
    for function in (found.native_gather, found.native_observe, found.native_record):
        function.restype = None
    found.native_terms.restype = number
    return True


class Kernel:
    """`TrackTask`'s look-up, rewards, failures and observations by compiled code.

    It reads and writes the task's and the simulator's arrays where they are.
    """

    def __init__(self, task: TrackTask, anchor: int, end_effectors: np.ndarray) -> None:
        """Numbers of the anchor and of the end effectors among the tracked bodies."""
        self._task, self._library = task, library()
        config, simulator = task.config, task.simulator
        self._track = track = Track(num_envs=task.num_envs)
        self._pointer = ctypes.pointer(track)
        # Names of struct fields to arrays that stay alive and in place as long as this object.
        self._kept = {
            "reference_table": task._reference_table, "shown_table": task._shown_table,
            "reference": task.reference.rows, "shown": task._shown.rows, "frame": task.frame,
            "first_row": task._first_row, "last_frame": task._last_frame, "row": task._row,
            "default_joint_pos": task.default_joint_pos, "soft_low": task._soft_limits[0],
            "soft_high": task._soft_limits[1], "stale_pos": task._stale_pos,
            "stale_axes": task._stale_axes, "widths": task._widths, "weights": task._weights,
            "end_effectors": end_effectors,
        }  # fmt: skip
        for name, array in self._kept.items():
            assert array.flags.c_contiguous
            setattr(track, name, address(array))
        self._first_action = task.action
        self._action_pointers = address(task.action), address(task._last_action)
        self._views = [getattr(simulator, name) for name in VIEWS]
        for name, array in zip(VIEWS, self._views, strict=True):
            setattr(track, name, View.of(array))
        track.anchor, track.num_end_effectors = anchor, len(end_effectors)
        track.num_penalized = len(simulator.contact_bodies) - len(g1.FOOT_BODIES)
        track.num_values = len(task._weights)
        track.stale_targets = config.stale_targets
        track.rotate_velocity_targets = config.rotate_velocity_targets
        track.failure_body = {"train": anchor, "pelvis": 0, "none": -1}[config.failure]
        track.train_rules = config.failure == "train"
        track.failure_height, track.failure_tilt = config.failure_height, config.failure_tilt
        track.contact_threshold = config.rewards.contact_threshold
        n, rules = task.num_envs, {"train": 4, "pelvis": 2, "none": 0}[config.failure]
        # Results are copied from here: asking NumPy for the address of an array takes longer.
        self._results = (
            np.zeros(n, np.float32), np.zeros((n, track.num_values), np.float32),
            np.zeros((rules, n), bool), np.zeros(n, bool),
        )  # fmt: skip
        track.reward, track.values, track.causes, track.terminated = map(address, self._results)
        self._diverged = np.zeros(n, bool)
        track.diverged = address(self._diverged)
        self._parts = np.array(
            [(part.start, part.stop - part.start) for part in task._policy_columns], np.int64
        )
        self._parts_address = address(self._parts)
        sampler = task.sampler
        self._statistics = (
            address(task._bins), address(sampler.visits), address(sampler.failures),
            sampler.num_bins, sampler.alpha,
        )  # fmt: skip
        # A few robots' observations are copied from here, for the same reason.
        self._few = None
        if n <= FEW:
            self._few = (
                np.zeros((n, task.observation_size), np.float32),
                np.zeros((n, task.critic_size), np.float32),
            )
            self._few_addresses = address(self._few[0]), address(self._few[1])

    @staticmethod
    def serves(task: TrackTask) -> bool:
        """Whether the library is there and the task is one that it knows."""
        found = library()
        return (
            found is not None
            and declare(found)
            and isinstance(task.simulator.body_pos, np.ndarray)
            and task.config.rewards.contact_term != "self"
        )

    def gather(self) -> None:
        """`TrackTask._gather` of all robots."""
        self._library.native_gather(self._pointer)

    def terms(
        self, diverged: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool]:
        """Of all robots the reward `[N]`, its signed terms `[N, R]`, failures and terminations.

        Failures `[rules, N]` are in the order of `TrackTask._failures`, the last rule also where it
        is not asked for. By one of them or `diverged [N]` a robot is terminated, `[N]`. The last
        value: whether any has diverged.
        """
        task, limit = self._task, self._task.config.failure_distance
        self._point_at_actions()
        self._track.failure_distance = np.inf if limit is None else limit * task.leash
        self._diverged[:] = diverged
        any_diverged = self._library.native_terms(self._pointer) > 0
        reward, values, failures, terminated = self._results
        return reward.copy(), values.copy(), failures.copy(), terminated.copy(), any_diverged

    def record(self) -> None:
        """`StartSampler.record` of all robots, with the terminations of the last `terms`."""
        self._library.native_record(self._pointer, *self._statistics)

    def _point_at_actions(self) -> None:
        """The task's two arrays of actions change places in every step."""
        first, second = self._action_pointers
        if self._task.action is not self._first_action:
            first, second = second, first
        self._track.action, self._track.last_action = first, second

    def observe(self, env_ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """`TrackTask.observe` of robots `env_ids [M]`, or of all, without noise."""
        task = self._task
        self._point_at_actions()
        if env_ids is None and self._few is not None:
            self._call_observe(None, task.num_envs, *self._few_addresses)
            return self._few[0].copy(), self._few[1].copy()
        ids = None if env_ids is None else np.ascontiguousarray(env_ids, np.int64)
        count = task.num_envs if ids is None else len(ids)
        policy = np.empty((count, task.observation_size), np.float32)
        critic = np.empty((count, task.critic_size), np.float32)
        listed = None if ids is None else address(ids)
        self._call_observe(listed, count, address(policy), address(critic))
        return policy, critic

    def _call_observe(self, listed: int | None, count: int, policy: int, critic: int) -> None:
        self._library.native_observe(
            self._pointer, listed, count, critic, self._task.critic_size, policy,
            self._parts_address, len(self._parts),
        )  # fmt: skip
