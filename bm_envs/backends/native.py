"""The compiled part of the package, where a C compiler was at hand when installing.

It is one library, made of three files. `native.c` beside this module has the casts of the CPU's
backend; this module calls them. `tasks/track/native.c` has the tracking task's arithmetic;
`tasks/track/kernel.py` calls it. `learning/native.c` has the steps of imagination, and
`learning/compiled.py` is its door.

Without it, or with `BM_NATIVE=0` in the environment, NumPy and torch do the same work, slower.
Nothing else depends on which of them it is but the last digits, and the noise that imagination
draws.
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

VERSION = 9  # of the functions and the structures; `native.c` has the same


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


@functools.cache
def library() -> Any:
    """The loaded library, or None."""
    if os.environ.get("BM_NATIVE") == "0":
        return None
    folder = Path(__file__).resolve().parent.parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_native{suffix}"
        if path.is_file():
            break
    else:
        return None
    loaded = ctypes.CDLL(str(path))
    loaded.native_version.restype = ctypes.c_int64
    if loaded.native_version() != VERSION:
        warnings.warn(
            f"{path.name} was built from another version of native.c and is not used; install the "
            "package again.",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.native_cast.argtypes = [pointer, number, pointer, number]
    loaded.native_cast.restype = None
    return loaded


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
