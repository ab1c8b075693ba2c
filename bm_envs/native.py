"""The compiled part of the package: `native.c`, where a C compiler was at hand when installing.

Without it, or with `BM_NATIVE=0` in the environment, NumPy does the same work, slower. Nothing else
depends on which of the two it is but the last digits.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 3  # of the functions and the structure; `native.c` has the same


def address(array: np.ndarray) -> int:
    """Where its first element is; half the time of `array.ctypes.data`."""
    return array.__array_interface__["data"][0]


class View(ctypes.Structure):
    """A float32 array with an axis of robots, contiguous within a robot."""

    _fields_ = [("data", ctypes.c_void_p), ("stride", ctypes.c_int64)]

    @classmethod
    def of(cls, array: np.ndarray) -> View:
        """The view of `array [N, ...]`; it must outlive the view."""
        inner = array[:1]
        if array.dtype != np.float32 or array.strides[0] % 4 or not inner.flags.c_contiguous:
            raise ValueError(f"{array.dtype} array with strides {array.strides} is no such view")
        return cls(address(array), array.strides[0] // 4)


class Track(ctypes.Structure):
    """`Track` of `native.c`."""

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


@functools.cache
def library() -> Any:
    """The loaded library, or None."""
    if os.environ.get("BM_NATIVE") == "0":
        return None
    folder = Path(__file__).resolve().parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_native{suffix}"
        if path.is_file():
            break
    else:
        return None
    found = ctypes.CDLL(str(path))
    found.native_version.restype = found.native_track_size.restype = ctypes.c_int64
    version, size = found.native_version(), found.native_track_size()
    if version != VERSION or size != ctypes.sizeof(Track):
        warnings.warn(
            f"{path.name} was built from another version of native.c and is not used; install the "
            "package again.",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        return None
    pointer, number, track = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(Track)
    found.native_cast.argtypes = [pointer, number, pointer, number]
    found.native_gather.argtypes = found.native_terms.argtypes = [track]
    found.native_observe.argtypes = [
        track, pointer, number, pointer, number, pointer, pointer, number,
    ]  # fmt: skip
    for function in (
        found.native_cast, found.native_gather, found.native_terms, found.native_observe,
    ):  # fmt: skip
        function.restype = None
    found.native_terms.restype = number
    found.native_record.argtypes = [track, pointer, pointer, pointer, number, ctypes.c_double]
    found.native_record.restype = None
    return found


class Cast(ctypes.Structure):
    """`Cast` of `native.c`."""

    _fields_ = [
        ("source", ctypes.c_void_p), ("source_stride", ctypes.c_int64),
        ("columns", ctypes.c_void_p), ("num_columns", ctypes.c_int64),
        ("target", ctypes.c_void_p), ("target_stride", ctypes.c_int64),
    ]  # fmt: skip


class Casts:
    """Copies columns of float64 arrays to float32 ones, `[N, ...]` each, several at once.

    Values that do not fit become infinite, silently.
    """

    def __init__(self, *casts: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> None:
        """Triples of source, target, and columns of the source (int64; None: all, in order).

        The arrays must stay where they are.
        """
        self._casts, self._library = casts, library()
        self._count = len(casts[0][0])
        self._structures = (Cast * len(casts))(*(
            Cast(
                address(source), source.strides[0] // 8,
                None if columns is None else address(columns), target.shape[1],
                address(target), target.strides[0] // 4,
            )
            for source, target, columns in casts
        ))  # fmt: skip

    def __call__(self, rows: np.ndarray | None = None) -> None:
        """Copy the rows listed, `[M]` int64, or all."""
        if self._library is not None:
            listed, count = None, self._count
            if rows is not None:
                rows = np.ascontiguousarray(rows, np.int64)
                listed, count = address(rows), len(rows)
            self._library.native_cast(self._structures, len(self._casts), listed, count)
            return
        where = slice(None) if rows is None else rows
        with np.errstate(over="ignore", invalid="ignore"):
            for source, target, columns in self._casts:
                values = source[where]
                target[where] = values if columns is None else values.take(columns, 1)
