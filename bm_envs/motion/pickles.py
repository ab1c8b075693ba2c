"""Pickle and joblib files of arrays and plain values, read without running what is in them.

A pickle is a program: unpickling calls whatever functions it names. Here it can name only what
NumPy and joblib write for an array, and what is called is a stand-in of this module that makes an
array and nothing else. Any other name is refused, so a file with a class in it is, too.

joblib writes an array as a small description (`NumpyArrayWrapper`) with the bytes behind it in the
same stream, and may compress the whole. Source: `joblib : joblib/numpy_pickle.py`.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.errors import MotionError

try:
    from lzma import LZMAError
except ImportError:  # of the standard library, and still missing where Python was built without
    LZMAError = OSError

MAX_BYTES = 2**30
"""Largest content taken, unpacked: a day of motion at 50 Hz is a tenth of it."""


def read_pickle(path: str | Path) -> Any:
    """What a pickle or joblib file holds: plain values, and arrays that `as_array` opens.

    Raises:
        MotionError: unreadable, no pickle, or one that names anything but arrays.
    """
    content = _unpacked(Path(path))
    try:
        return _Unpickler(f"{path}", content).load()
    except MotionError:
        raise
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError,
        AttributeError, OverflowError, MemoryError, AssertionError, RecursionError, ImportError,
        struct.error,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise MotionError(f"{path}: is no readable pickle or joblib file ({reason}).") from error


def as_array(value: Any) -> np.ndarray | None:
    """`value` as an array of numbers if it is one, or a list of numbers; else None."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, int | float | list | tuple):
        try:
            array = np.array(value)
        except (ValueError, OverflowError):
            return None
        return array if array.dtype.kind in "fiub" else None
    return None


def _unpacked(path: Path) -> bytes:
    if not os.path.isfile(path):
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .pkl file.")
    too_big = MotionError(f"{path}: holds more than {MAX_BYTES} bytes, which is the limit.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise too_big
        raw = path.read_bytes()
        unpack = _decompressor(raw)
        if unpack is not None:
            raw = unpack.decompress(raw, MAX_BYTES + 1)
            if len(raw) > MAX_BYTES:
                raise too_big
            if not unpack.eof:
                raise MotionError(f"{path}: its compressed content is cut off.")
    except (OSError, zlib.error, EOFError, ImportError, LZMAError) as error:
        raise MotionError(f"{path}: cannot be read ({error}).") from error
    return raw


def _decompressor(raw: bytes) -> Any:
    """What unpacks the content, told by its first bytes; None: it is not packed."""
    if raw[:2] == b"\x1f\x8b" or (raw[:1] == b"\x78" and raw[1:2] in b"\x01\x5e\x9c\xda"):
        return zlib.decompressobj(32 + zlib.MAX_WBITS)
    if raw[:3] == b"BZh":
        import bz2  # which may be missing likewise

        return bz2.BZ2Decompressor()
    if raw[:6] == b"\xfd7zXZ\x00" or raw[:3] == b"\x5d\x00\x00":
        import lzma

        return lzma.LZMADecompressor()
    return None


class _Type:
    """In place of `numpy.dtype`."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1|[US]\d{1,5}", code):
            raise ValueError(f"an array of type {str(code)[:20]!r}, expected plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """In place of `numpy.ndarray`, which is filled after it is made."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.values = _filled(content, kind, shape, "F" if fortran else "C")


def _filled(content: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not (
        isinstance(kind, _Type)
        and isinstance(content, bytes | bytearray)
        and isinstance(shape, tuple)
        and all(isinstance(length, int) and length >= 0 for length in shape)
        and len(content) == math.prod(shape) * kind.dtype.itemsize
    ):
        raise ValueError("an array whose bytes, type and shape do not belong together")
    return np.frombuffer(content, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(content: Any, kind: Any, shape: Any, order: str, *_: Any) -> np.ndarray:
    return _filled(content, kind, shape, order)


def _scalar(kind: Any, content: Any) -> Any:
    return _filled(content, kind, (), "C").item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("bytes in an unusual encoding")
    return text.encode("latin1")


def _ordered(*items: Any) -> dict:
    return dict(*items)


class _Wrapper:
    """In place of joblib's `NumpyArrayWrapper`; its array follows in the stream."""

    def __setstate__(self, state: dict) -> None:
        self.shape, self.order, self.kind = state["shape"], state["order"], state["dtype"]
        self.is_aligned = state.get("numpy_array_alignment_bytes") is not None

    def read(self, stream: io.BytesIO) -> np.ndarray:
        if self.is_aligned:
            (padding,) = stream.read(1)
            stream.seek(padding, io.SEEK_CUR)
        if not isinstance(self.kind, _Type) or not isinstance(self.shape, tuple):
            raise ValueError("an array without a type or shape")
        size = math.prod(self.shape) * self.kind.dtype.itemsize
        return _filled(stream.read(max(0, size)), self.kind, self.shape, self.order)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


# The pure-Python class, as joblib's own: the C one does not let an array be read in between.
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_PythonUnpickler):
    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, where: str, content: bytes) -> None:
        self._where = where
        self._content = io.BytesIO(content)
        super().__init__(self._content)

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise MotionError(
                f"{self._where}: names {f'{module}.{name}'[:80]!r}, which could run code; expected"
                " NumPy arrays and plain values alone."
            )
        return allowed

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension code {code}")

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.stack[-1].read(self._content)

    dispatch[pickle.BUILD[0]] = load_build
