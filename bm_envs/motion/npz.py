"""Read arrays from foreign NPZ files: no code of them runs, no header claims the memory."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from bm_envs.errors import MotionError

T = TypeVar("T")
MAX_NUMBERS, MAX_NUMBER_RATIO = 2**24, 12
"""The bound of numbers in all arrays read from a file: the first, or the second times the file's
bytes if that is more. A motion of eleven minutes at 50 Hz has 2^24, and savez_compressed makes it a
tenth or so smaller."""
Check = Callable[[str, str, tuple[int, ...], np.dtype], None]
"""A function of the file, the key, the shape and the type, called before memory is taken. It raises
if an array must not be read."""


def keys(path: Path) -> frozenset[str]:
    """The names of the arrays in the file."""
    return _in_archive(path, lambda archive: frozenset(
        name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")
    ))  # fmt: skip


def shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape of an array that is in the file, by its header."""
    shapes: list[tuple[int, ...]] = []

    def check(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        shapes.append(shape)
        raise MotionError("")

    with contextlib.suppress(MotionError):
        read_arrays(path, (key,), check)
    return shapes[0] if shapes else ()


def read_arrays(path: Path, known: Iterable[str], check: Check) -> dict[str, np.ndarray]:
    """Those of the arrays `known` that are in the file.

    Raises:
        MotionError: one sentence that names the file, the array, what came and what was expected.
    """

    def read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
        present = set(archive.namelist())
        left = max(MAX_NUMBERS, MAX_NUMBER_RATIO * path.stat().st_size)
        arrays = {}
        for key in known:
            if f"{key}.npy" in present:
                info = archive.getinfo(f"{key}.npy")
                arrays[key] = _read_array(f"{path}", key, archive, info, check, left)
                left -= arrays[key].size
        return arrays

    return _in_archive(path, read)


def _in_archive(path: Path, read: Callable[[zipfile.ZipFile], T]) -> T:
    if not os.path.isfile(path):  # unlike Path.is_file, False and no error for a hopeless name
        problem = "is not a file" if os.path.exists(path) else "does not exist"
        raise MotionError(f"{path}: {problem}, expected a .npz file.")
    try:
        with zipfile.ZipFile(path) as archive:
            return read(archive)
    except MotionError:
        raise
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        # NumPy's and zipfile's parsers raise these for damaged headers.
        KeyError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
        RecursionError,
        MemoryError,
        OverflowError,
        RuntimeError,
        struct.error,
    ) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise MotionError(f"{path}: is not a readable .npz file ({reason}).") from error


def _read_array(
    where: str, key: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, check: Check, most: int
) -> np.ndarray:  # fmt: skip
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MotionError(
            f"{where}: {key} is encrypted or packed in an unusual way, expected a plain .npz file."
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise MotionError(
                f"{where}: {key} is in format {version}, expected 1.0 or 2.0 of .npy."
            )
        shape, fortran, dtype = readers[version](stream)
        if dtype.hasobject:
            raise MotionError(
                f"{where}: {key} holds pickled Python objects, which are never loaded;"
                " expected a plain array."
            )
        check(where, key, shape, dtype)
        size = math.prod(shape) * dtype.itemsize
        if math.prod(shape) > most:
            raise MotionError(
                f"{where}: {key} has shape {shape}, more numbers than a file of its size holds."
            )
        held = info.file_size - stream.tell()
        if held != size:
            raise MotionError(
                f"{where}: {key} needs {size} bytes for shape {shape} but holds {held}."
            )
        return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")
