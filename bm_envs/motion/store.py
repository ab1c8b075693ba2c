"""The cache of converted motions: arrays and small entries on disk, each under a key.

    BM_CACHE_DIR/motion/KIND/KEY.arrays    arrays, one after another, and a foot that tells of them
    BM_CACHE_DIR/motion/KIND/KEY.json      a small value

`BM_CACHE_DIR` is by default `XDG_CACHE_HOME/bm-envs`, which is `~/.cache/bm-envs` where that is not
set either; `BM_CACHE_DIR=0` is no cache. Files can be deleted at any time.

Nobody sees half a file: it is written under another name, and renamed when it is on the disk. Two
processes that make the same file write the same bytes, and the later one replaces the earlier, to
which others may hold on. A file that is damaged, cut off, or of code that has changed is as good as
none: it is made again.

To compare gigabytes with their SHA-256 at every start would take longer than to use them. A file
that was compared gets a time of modification that follows from that SHA-256, and a later write
changes the time. So a file is compared when it does not have its time, and a copy of the cache that
keeps times is trusted as the cache was.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bm_envs.cli import atomic_path
from bm_envs.errors import BMError, BMWarning
from bm_envs.motion.memory import MemoryUnavailable, Region

DIR_VARIABLE = "BM_CACHE_DIR"
PACKAGE = Path(__file__).resolve().parent.parent
_MAGIC = b"bm-envs arrays 1"  # with the version of the form
_TAIL = len(_MAGIC) + 8 + 32  # behind the foot: magic, its length and its SHA-256
_FOOT_BYTES = 1 << 16
_ALIGNED = 64  # bytes, of an array's beginning; the first one is at the file's
_LEFTOVER_S = 86400.0


@dataclass(frozen=True)
class Foot:
    """What a file of arrays says of itself."""

    made_by: str
    """By what: another text is another file."""
    size: int
    """Bytes of all arrays."""
    sha256: str
    """Of those bytes."""
    arrays: dict[str, tuple[str, list[int], int]]
    """Of each array the type, the shape and where it begins."""

    @property
    def time_s(self) -> int:
        """The time of modification of a file that was compared with `sha256`: a day of 2020."""
        return 1_577_836_800 + 2 * int(self.sha256[:6], 16)  # even: some disks count two seconds

    def views(self, content: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays in the file's bytes."""
        found = {}
        for name, (dtype, shape, offset) in self.arrays.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found[name] = content[offset : offset + size].view(dtype).reshape(shape)
        return found


@dataclass(frozen=True)
class Store:
    """A cache in a folder. What cannot be written is left out, with a warning once in a process."""

    folder: Path

    def load(self, kind: str, key: str, made_by: str) -> dict[str, np.ndarray] | None:
        """The arrays under a key, as read-only memory; None where there is no sound file of them.

        Args:
            kind: the folder.
            key: the file's name in it.
            made_by: what `save` was given.
        """
        with self._opened(kind, key, made_by) as opened:
            if opened is None:
                return None
            handle, foot = opened
            try:
                region = Region(foot.size)
                region.put_file(0, handle, foot.size)
                return foot.views(region.bytes)
            except MemoryUnavailable:
                content = np.frombuffer(_read(handle, 0, foot.size), np.uint8)
                return foot.views(content)

    def place(
        self, kind: str, key: str, made_by: str, shape: tuple[int, ...], region: Region, offset: int
    ) -> bool:  # fmt: skip
        """Show a file's one array, float32, in a region; False where there is no sound file of it.

        Args:
            kind: as in `load`, like `key` and `made_by`.
            key: see there.
            made_by: see there.
            shape: of the array.
            region: where to show it.
            offset: bytes from the region's start, a multiple of a page.

        Raises:
            MemoryUnavailable: the system does not show it.
        """
        with self._opened(kind, key, made_by) as opened:
            if opened is None:
                return False
            handle, foot = opened
            if list(foot.arrays.values()) != [("<f4", list(shape), 0)]:
                return False
            region.put_file(offset, handle, foot.size)
            return True

    def save(self, kind: str, key: str, made_by: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays under a key; a file of that key is replaced."""

        def write(path: Path) -> None:
            with path.open("wb") as stream:
                foot = _write_arrays(stream, made_by, arrays)
                stream.write(_foot_bytes(foot))
            _set_time(path, foot)

        self._write(kind, key, ".arrays", write)

    def load_entry(self, kind: str, key: str) -> Any:
        """The value under a key; None where there is no sound file of it."""
        try:
            digest, _, text = self._path(kind, key, ".json").read_text("utf-8").partition("\n")
            return json.loads(text) if _sha256(text) == digest else None
        except (OSError, ValueError):
            return None

    def save_entry(self, kind: str, key: str, value: Any) -> None:
        """Write a value, of which JSON can be made, under a key."""
        text = json.dumps(value)
        content = f"{_sha256(text)}\n{text}".encode()
        self._write(kind, key, ".json", lambda path: path.write_bytes(content))

    # --- parts ---------------------------------------------------------------------------------

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        return self.folder / kind / (key + suffix)

    def _write(self, kind: str, key: str, suffix: str, write: Callable[[Path], object]) -> None:
        """Have a file written that gets its name at the end; what the disk refuses is told once."""
        if self.folder in _refused:
            return
        path = self._path(kind, key, suffix)
        try:
            with atomic_path(path) as temporary:
                _remove_leftovers(path.parent)
                write(temporary)
        except BMError as error:
            _refused.add(self.folder)
            warnings.warn(
                f"{str(error).removesuffix('.')}; motions are converted anew each time. Set "
                f"{DIR_VARIABLE} to a folder for their cache, or to 0 for none.",
                BMWarning, stacklevel=4,
            )  # fmt: skip

    @contextlib.contextmanager
    def _opened(self, kind: str, key: str, made_by: str) -> Iterator[tuple[int, Foot] | None]:
        """The descriptor of a sound file and its foot, or None."""
        path = self._path(kind, key, ".arrays")
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            yield None
            return
        try:
            foot = _sound_foot(path, handle)
            yield None if foot is None or foot.made_by != made_by else (handle, foot)
        finally:
            os.close(handle)


# Folders in which this process could not write, and those in which it has looked for leftovers.
_refused: set[Path] = set()
_tidied: set[Path] = set()


def store_in_use() -> Store | None:
    """The cache that the environment names, or None."""
    named = os.environ.get(DIR_VARIABLE)
    if named == "0":
        return None
    if named:
        return Store(Path(named).absolute() / "motion")
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):  # to be ignored, says the standard
        caches = os.path.expanduser("~/.cache")
    # A home that is not known stays a tilde.
    return Store(Path(caches, "bm-envs", "motion")) if os.path.isabs(caches) else None


@functools.cache
def code_sha256(*names: str) -> str:
    """Hex digest of the package's modules and folders of these names, and of NumPy's version.

    It is part of the key of what they make: who changes one of them gets everything made anew.
    """
    digest = hashlib.sha256(np.__version__.encode())
    for name in names:
        place = PACKAGE / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(PACKAGE).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_arrays(stream: BinaryIO, made_by: str, arrays: Mapping[str, np.ndarray]) -> Foot:
    """Write arrays one after another; what the file is to say of them."""
    layout: dict[str, tuple[str, list[int], int]] = {}
    digest, size = hashlib.sha256(), 0
    for name, array in arrays.items():
        array, gap = np.ascontiguousarray(array), bytes(-size % _ALIGNED)
        for part in (gap, array.data):
            stream.write(part)
            digest.update(part)
        layout[name] = array.dtype.str, list(array.shape), size + len(gap)
        size += len(gap) + array.nbytes
    return Foot(made_by, size, digest.hexdigest(), layout)


def _foot_bytes(foot: Foot) -> bytes:
    """The end of a file: the foot, and what it is found and checked by."""
    text = json.dumps(vars(foot)).encode()
    return text + _MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest()


def _sound_foot(path: Path, handle: int) -> Foot | None:
    """The foot of an open file if the file is as it was written, else None."""
    try:
        about = os.fstat(handle)
        end = _read(handle, max(0, about.st_size - _FOOT_BYTES), _FOOT_BYTES)
        tail, length = end[-_TAIL:], int.from_bytes(end[-40:-32], "little")
        text = end[-_TAIL - length : -_TAIL]
        if not tail.startswith(_MAGIC) or hashlib.sha256(text).digest() != tail[-32:]:
            return None
        values = json.loads(text)
        values["arrays"] = {name: tuple(array) for name, array in values["arrays"].items()}
        foot = Foot(**values)
        if foot.size + length + _TAIL != about.st_size:
            return None
        if about.st_mtime_ns != foot.time_s * 10**9:
            if _content_sha256(handle, foot.size) != foot.sha256:
                return None
            with contextlib.suppress(OSError):  # whose cache it is not compares it every time
                _set_time(path, foot)
        return foot
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _set_time(path: Path, foot: Foot) -> None:
    os.utime(path, (time.time(), foot.time_s))


def _read(handle: int, offset: int, size: int) -> bytes:
    """Up to `size` bytes of an open file."""
    os.lseek(handle, offset, os.SEEK_SET)
    parts = []
    while size and (part := os.read(handle, min(size, 1 << 24))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _content_sha256(handle: int, size: int) -> str:
    digest = hashlib.sha256()
    for offset in range(0, size, 1 << 20):
        digest.update(_read(handle, offset, min(1 << 20, size - offset)))
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left a day ago or earlier, once in a process."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_ctime > _LEFTOVER_S:  # of their writing, or renaming
                path.unlink()
