"""The tracking task's arithmetic in compiled code, where there is any; see `native.c`."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any

import numpy as np

from bm_envs.arrays import Array
from bm_envs.backends.base import Simulator
from bm_envs.backends.native import View, address, library
from bm_envs.motion.sampler import StartSampler
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.rows import ANCHOR, END_EFFECTORS, FEET, K
from bm_envs.tasks.track.state import State
from bm_envs.tasks.track.tables import Tables
from bm_envs.tasks.track.terminations import half_angle_cosine
from bm_envs.tasks.track.terms import counted_force

VIEWS = (
    "joint_pos", "joint_vel", "root_lin_vel", "root_ang_vel_b", "body_pos", "body_quat",
    "body_axes", "body_lin_vel", "body_ang_vel", "contact_force",
)  # fmt: skip

FEW = 16  # robots, up to which copying observations is quicker than asking for an address


class Track(ctypes.Structure):
    """`Track` of `native.c`; a change of it raises `VERSION` here and there."""

    _fields_ = [
        ("num_envs", ctypes.c_int64), ("num_joints", ctypes.c_int64),
        *((name, View) for name in VIEWS),
        *((name, ctypes.c_void_p) for name in (
            "reference_table", "reference", "shown", "clip_id", "frame", "first_row",
            "last_frame", "row", "action", "last_action", "default_joint_pos", "soft_low",
            "soft_high", "stale_pos", "stale_axes",
        )),
        *((name, ctypes.c_int64) for name in (
            "lead", "anchor", "num_penalized", "num_values", "stale_targets",
            "rotate_velocity_targets", "failure_body", "train_rules",
        )),
        ("end_effectors", ctypes.c_void_p),
        ("num_end_effectors", ctypes.c_int64),
        *((name, ctypes.c_double) for name in (
            "failure_height", "failure_tilt", "failure_cosine", "failure_distance",
            "contact_threshold",
        )),
        *((name, ctypes.c_void_p) for name in (
            "widths", "weights", "values", "reward", "causes", "terminated", "diverged",
        )),
    ]  # fmt: skip


def declare(loaded: Any) -> bool:
    """Say to the library which arguments the task's functions take; False: it must not be used.

    It was built of another `Track`, which happens to who changes that and neither `VERSION` nor
    builds again; or it was built for robots that track another number of bodies, and would write
    past the ends of rows.
    """
    for function in (loaded.native_track_size, loaded.native_num_bodies):
        function.restype = ctypes.c_int64
    reason = ""
    if loaded.native_track_size() != ctypes.sizeof(Track):
        reason = (
            "The compiled part was built from another version of native.c and is not used; install "
            "the package again."
        )
    elif (bodies := loaded.native_num_bodies()) != K:
        reason = (
            f"The compiled part is for {bodies} tracked bodies (K in "
            f"bm_envs/tasks/track/native.c), the robot has {K}: NumPy does its work."
        )
    if reason:
        warnings.warn(reason, RuntimeWarning, stacklevel=2)
        return False
    pointer, number, track = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Track)
    loaded.native_gather.argtypes = loaded.native_terms.argtypes = [track]
    loaded.native_observe.argtypes = [
        track, pointer, number, pointer, number, pointer, pointer, number,
    ]  # fmt: skip
    loaded.native_record.argtypes = [track, *[pointer] * 5, number, ctypes.c_double]
    for function in (loaded.native_gather, loaded.native_observe, loaded.native_record):
        function.restype = None
    loaded.native_terms.restype = number
    return True


class Kernel:
    """The task's look-up, rewards, failures, statistics and observations by compiled code.

    It works on tables, a state, a simulator and a sampler where they are, and owns nothing but the
    room in which its results come: asking NumPy for the address of an array takes longer than to
    copy it from a place that is known.
    """

    def __init__(
        self, tables: Tables, state: State, simulator: Simulator, config: TrackConfig,
        sampler: StartSampler,
    ) -> None:  # fmt: skip
        """All of them must stay in place as long as this object."""
        self._library, self._tables = library(), tables
        n, num_values = len(state.frame), len(tables.weights)
        rules = {"train": 4, "pelvis": 2, "none": 0}[config.failure]
        limit, turn = config.failure_distance, config.failure_rotation
        self._failure_distance = np.inf if limit is None else limit
        self._num_envs = n
        self._results = (
            np.zeros(n, np.float32), np.zeros((n, num_values), np.float32),
            np.zeros((rules, n), bool), np.zeros(n, bool),
        )  # fmt: skip
        self._diverged = np.zeros(n, bool)
        self._track = track = Track(
            num_envs=n, num_joints=simulator.joint_pos.shape[1], lead=config.lead,
            anchor=ANCHOR, num_end_effectors=len(END_EFFECTORS),
            num_values=num_values,
            num_penalized=len(simulator.contact_bodies) - len(FEET),
            stale_targets=config.stale_targets,
            rotate_velocity_targets=config.rotate_velocity_targets,
            failure_body={"train": ANCHOR, "pelvis": 0, "none": -1}[config.failure],
            train_rules=config.failure == "train", failure_height=config.failure_height,
            failure_tilt=config.failure_tilt, contact_threshold=config.rewards.contact_threshold,
            failure_cosine=0.0 if turn is None else half_angle_cosine(turn),
        )  # fmt: skip
        self._pointer = ctypes.pointer(track)
        # Fields of the structure, and the arrays that they point to: kept, so that they live.
        self._arrays = {
            "reference_table": tables.reference, "clip_id": state.clip_id,
            "soft_low": tables.soft_low, "soft_high": tables.soft_high, "widths": tables.widths,
            "weights": tables.weights, "end_effectors": np.array(END_EFFECTORS),
            "reference": state.reference.rows, "shown": state.shown.rows, "frame": state.frame,
            "first_row": state.first_row, "last_frame": state.last_frame, "row": state.row,
            "action": state.action, "last_action": state.last_action,
            "default_joint_pos": state.default_joint_pos, "stale_pos": state.stale_pos,
            "stale_axes": state.stale_axes, "diverged": self._diverged,
            **dict(zip(("reward", "values", "causes", "terminated"), self._results, strict=True)),
        }  # fmt: skip
        for name, array in self._arrays.items():
            assert array.flags.c_contiguous
            setattr(track, name, address(array))
        self._views = [getattr(simulator, name) for name in VIEWS[:-1]]
        self._views.append(counted_force(simulator, config))
        for name, array in zip(VIEWS, self._views, strict=True):
            setattr(track, name, View.of(array))
        columns = [(part.start, part.stop - part.start) for part in tables.policy_columns]
        self._columns = np.array(columns, np.int64)
        self._columns_address = address(self._columns)
        self._counted = (
            sampler.clip_frames, sampler.clip_bins, sampler.bin_start, sampler.visits,
            sampler.failures,
        )  # fmt: skip
        self._statistics = (*map(address, self._counted), sampler.num_bins, sampler.alpha)
        self._few = self._room(n) if n <= FEW else None
        self._few_addresses = tuple(map(address, self._few or ()))

    @classmethod
    def of(
        cls, tables: Tables, state: State, simulator: Simulator, config: TrackConfig,
        sampler: StartSampler,
    ) -> Kernel | None:  # fmt: skip
        """One for these, if the library is there and the task is one that it knows."""
        serves = (
            isinstance(simulator.body_pos, np.ndarray) and config.rewards.contact_term != "self"
        )
        loaded = library() if serves else None
        if loaded is None or not declare(loaded):
            return None
        return cls(tables, state, simulator, config, sampler)

    def look_up(self) -> None:
        """Look up the reference at the present frames of all robots."""
        self._library.native_gather(self._pointer)

    def compare(
        self, diverged: np.ndarray, failure_distance_scale: float
    ) -> tuple[Array, Array, Array, Array]:
        """Of all robots the reward `[N]`, its signed terms `[N, R]`, failures and terminations.

        Failures `[rules, N]` are in the order of `Tables.rule_names`, the last rule also where it
        is not asked for. By one of them or `diverged [N]` a robot is terminated, `[N]`.
        """
        self._track.failure_distance = self._failure_distance * failure_distance_scale
        self._diverged[:] = diverged
        self._library.native_terms(self._pointer)
        reward, values, failures, terminated = self._results
        return reward.copy(), values.copy(), failures.copy(), terminated.copy()

    def record(self) -> None:
        """Count all robots, with the terminations of the last `compare`, in the statistics."""
        self._library.native_record(self._pointer, *self._statistics)

    def observe(self, env_ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Observations of robots `env_ids [M]`, or of all, without noise; they are remembered.

        Policy's `[M, O]` and critic's `[M, C]`.
        """
        if env_ids is None and self._few is not None:
            self._call_observe(None, self._num_envs, *self._few_addresses)
            return self._few[0].copy(), self._few[1].copy()
        ids = None if env_ids is None else np.ascontiguousarray(env_ids, np.int64)
        policy, critic = self._room(self._num_envs if ids is None else len(ids))
        listed = None if ids is None else address(ids)
        self._call_observe(listed, len(policy), address(policy), address(critic))
        return policy, critic

    def _room(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Room for observations of policy and critic."""
        tables = self._tables
        return (
            np.empty((count, tables.observation_size), np.float32),
            np.empty((count, tables.critic_size), np.float32),
        )

    def _call_observe(self, listed: int | None, count: int, policy: int, critic: int) -> None:
        self._library.native_observe(
            self._pointer, listed, count, critic, self._tables.critic_size, policy,
            self._columns_address, len(self._columns),
        )  # fmt: skip
