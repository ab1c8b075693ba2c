"""Pickle and joblib files of arrays and plain values, read without running what is in them.

A pickle is a program: unpickling calls whatever functions it names. Here it can name only what
NumPy and joblib write for an array, and what is called is a stand-in of this module that makes an
array and nothing else. Any other name is refused, so a file with a class in it is, too.

Nor may a file of a few bytes cost a minute. A list that holds the next one twice, and so on, has
2^30 ends; a tuple likewise takes as long to hash; a kilobyte of zlib unpacks to a megabyte. So
what is unpacked, how many steps the program has, what its calls copy and how many numbers a list
ends in are all bounded, and only plain values are keys.

joblib writes an array as a small description (`NumpyArrayWrapper`) with the bytes behind it in the
same stream, and may compress the whole. Source: `joblib : joblib/numpy_pickle.py`.
"""

from __future__ import annotations

import gc
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
except ImportError:  # it is missing where Python was built without it
    LZMAError = OSError

MAX_BYTES = 2**30
"""Largest content taken, unpacked: a day of motion at 50 Hz is a tenth of it."""
MAX_UNPACKED, MAX_UNPACK_RATIO = 2**26, 50
"""The bound of a packed file's content: the first in bytes, or the second times the file's size if
that is more. Packing halves a motion, and arrays of zeros beside it shrink to nothing."""
MAX_STEPS = 2_000_000
"""Steps of a pickle's program. An array takes about 20, a list one for each number."""
MAX_COPIED = 2**27
"""Bytes that the calls of a pickle's program copy."""
MAX_NUMBERS = 2_000_000
"""Numbers in one value made of lists; each list is followed once."""
_BYTES_PER_ITEM = 200  # an item of a dict takes as long to make as this many bytes to copy
_LONGEST_INTEGER = 1024  # bytes; longer ones are read, hashed and printed slowly


def read_pickle(path: str | Path) -> Any:
    """What a pickle or joblib file holds: plain values, and arrays that `as_array` opens.

    Raises:
        MotionError: unreadable, no pickle, or one that names anything but arrays.
    """
    content = _unpacked(Path(path))
    # While millions of objects are made, the collector would walk all of them again and again.
    collects = gc.isenabled()
    gc.disable()
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
    finally:
        if collects:
            gc.enable()


def as_array(value: Any) -> np.ndarray | None:
    """`value` as an array of numbers, if it is an array or a list of numbers; or None."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, int | float | list | tuple):
        shape = _list_shape(value)
        if shape is None or math.prod(max(1, length) for length in shape) > MAX_NUMBERS:
            return None
        try:
            array = np.array(value)
        except (ValueError, OverflowError):
            return None
        return array if array.dtype.kind in "fiub" else None
    return None


def _list_shape(value: Any) -> tuple[int, ...] | None:
    """Shape of nested lists of numbers; None if they are not regular. Each list is visited once."""
    shapes: dict[int, tuple[int, ...] | None] = {}

    def shape(item: Any, depth: int) -> tuple[int, ...] | None:
        if isinstance(item, bool | int | float):
            return ()
        if not isinstance(item, list | tuple) or depth > 4:
            return None
        if id(item) not in shapes:
            shapes[id(item)] = None  # this ends the recursion for a list that holds itself
            inner = {shape(part, depth + 1) for part in item}
            if not inner:
                shapes[id(item)] = (0,)
            elif len(inner) == 1 and (only := inner.pop()) is not None:
                shapes[id(item)] = (len(item), *only)
        return shapes[id(item)]

    return shape(value, 0)


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
            most = min(MAX_BYTES, max(MAX_UNPACKED, MAX_UNPACK_RATIO * len(raw)))
            raw = unpack.decompress(raw, most + 1)
            if len(raw) > most:
                raise MotionError(
                    f"{path}: holds more than {most} bytes, which is the limit for its size."
                )
            if not unpack.eof:
                raise MotionError(f"{path}: its compressed content is cut off.")
    except (OSError, zlib.error, EOFError, ImportError, LZMAError, MemoryError) as error:
        raise MotionError(f"{path}: cannot be read ({error}).") from error
    return raw


def _decompressor(raw: bytes) -> Any:
    """The module that unpacks the content, by its first bytes; None: it is not packed."""
    if raw[:2] == b"\x1f\x8b" or (raw[:1] == b"\x78" and raw[1:2] in b"\x01\x5e\x9c\xda"):
        return zlib.decompressobj(32 + zlib.MAX_WBITS)
    if raw[:3] == b"BZh":
        import bz2  # which may be missing, too

        return bz2.BZ2Decompressor()
    if raw[:6] == b"\xfd7zXZ\x00" or raw[:3] == b"\x5d\x00\x00":
        import lzma

        return lzma.LZMADecompressor(memlimit=2**28)  # its header may ask for gigabytes
    return None


class _Type:
    """What a pickle gets in place of `numpy.dtype`."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiu][1248]|b1|[US]\d{1,5}", code):
            raise ValueError(f"an array of type {str(code)[:20]!r}, expected plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """What a pickle gets in place of `numpy.ndarray`; it is filled after it is made."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.values = _filled(content, kind, shape, "F" if fortran else "C")


def _filled(content: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if not (
        isinstance(kind, _Type)
        and isinstance(content, bytes | bytearray)
        and isinstance(shape, tuple)
        and len(shape) <= 8
        and all(isinstance(length, int) and 0 <= length < 2**40 for length in shape)
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
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError("bytes in an unusual encoding")
    return text.encode("latin1")


def _ordered(items: Any = ()) -> dict:
    result = {}
    for key, value in items:
        result[_plain_key(key)] = value
    return result


def _plain_key(key: Any) -> Any:
    """A dict's key, if it is a plain value, which hashes quickly; other keys raise an error."""
    if key is None or isinstance(key, str | bytes | bool | float):
        return key
    if isinstance(key, int) and abs(key) < 2**63:
        return key
    raise ValueError(f"a key of type {type(key).__name__}")


class _Wrapper:
    """What a pickle gets for joblib's `NumpyArrayWrapper`; an array follows in the stream."""

    def __setstate__(self, state: dict) -> None:
        self.shape, self.order, self.kind = state["shape"], state["order"], state["dtype"]
        self.is_aligned = state.get("numpy_array_alignment_bytes") is not None

    def read(self, stream: io.BytesIO) -> np.ndarray:
        if self.is_aligned:
            (padding,) = stream.read(1)
            stream.seek(padding, io.SEEK_CUR)
        if not isinstance(self.kind, _Type) or not isinstance(self.shape, tuple):
            raise ValueError("an array without a type or shape")
        if len(self.shape) > 8 or not all(isinstance(length, int) for length in self.shape):
            raise ValueError("an array of an unusual shape")
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


# joblib derives from the pure-Python class, too: with the class in C no array could be read between
# two steps.
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_PythonUnpickler):
    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, where: str, content: bytes) -> None:
        self._where = where
        self._content = io.BytesIO(content)
        self._copied = 0
        super().__init__(self._content)

    def load(self) -> Any:
        """The parent's `load`, but for at most `MAX_STEPS` steps."""
        self._unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore
        self.read, self.readinto = self._unframer.read, self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        read, dispatch = self.read, self.dispatch
        try:
            for _ in range(MAX_STEPS):
                key = read(1)
                if not key:
                    raise EOFError("it is cut off")
                if key[0] not in dispatch:
                    raise pickle.UnpicklingError(f"unknown step {key!r}")
                dispatch[key[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise MotionError(
            f"{self._where}: has more than {MAX_STEPS} values, which is the limit; expected arrays."
        )

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
        if not isinstance(self.stack[-2], _Type | _Array | _Wrapper):
            raise pickle.UnpicklingError(f"a state for {type(self.stack[-2]).__name__}")
        super().load_build()
        if isinstance(self.stack[-1], _Wrapper):
            self.stack[-1] = self.stack[-1].read(self._content)

    dispatch[pickle.BUILD[0]] = load_build

    def load_reduce(self) -> None:
        function, arguments = self.stack[-2:]
        if not any(function is known for known in _FUNCTIONS) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of what is no function")
        for value in arguments:
            if isinstance(value, str | bytes | bytearray):
                self._copied += len(value)
            elif isinstance(value, list | tuple | dict):
                self._copied += _BYTES_PER_ITEM * len(value)
        if self._copied > MAX_COPIED:
            raise MotionError(f"{self._where}: copies more than {MAX_COPIED} bytes in memory.")
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_setitem(self) -> None:
        _plain_key(self.stack[-2])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            _plain_key(key)
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        for key in self.stack[::2]:
            _plain_key(key)
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_long4(self) -> None:
        (size,) = struct.unpack("<i", self.read(4))
        if not 0 <= size <= _LONGEST_INTEGER:
            raise pickle.UnpicklingError(f"an integer of {size} bytes")
        self.append(pickle.decode_long(self.read(size)))

    dispatch[pickle.LONG4[0]] = load_long4

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > len(self._content.getbuffer()):  # checked before the memory is taken
            raise pickle.UnpicklingError(f"{size} bytes that are not there")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_refused(self) -> None:
        raise pickle.UnpicklingError("a set or another kind of value that no motion has")


# A set hashes its items, and INST and OBJ call what they name; no motion needs them.
for _code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.INST, pickle.OBJ):
    _Unpickler.dispatch[_code[0]] = _Unpickler.load_refused
_FUNCTIONS = tuple(value for value in _ALLOWED.values() if callable(value))
