"""Clips that are converted or planned once, and come from the cache (`store.py`) afterwards.

| kind | key | holds |
|---|---|---|
| `digests` | a file's path | its SHA-256, and size, times and number of the file that had it |
| `files` | its SHA-256 and name, how it is read, and the code that reads it | its clips, doubts |
| `derived` | a clip's SHA-256 and texts, and the code that makes another of it | that one |
| `planned` | a planned clip's name, the code that plans it and the engine's version | that one |
| `clips` | `Clip.sha256` | the clip's arrays |

A file is known again without being read when size, times (the system's own of any change, too) and
number are those of then. The times of a file that was just written say little, since a disk's clock
is coarse: that one is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bm_envs.cli import file_sha256
from bm_envs.motion import checks, doubts
from bm_envs.motion.clip import ARRAY_SHAPES, Clip
from bm_envs.motion.store import Store, code_sha256, store_in_use

READERS = ("motion", "robots", "rotations.py")
"""Where in the package a clip's numbers come from."""
SETTLED_S = 2.0
"""Age (s) from which a file's times are believed; disks count up to two seconds."""


def source_sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes, which are not read if the file is one that was read before.

    Raises:
        OSError: it cannot be read.
    """
    store = store_in_use()
    if store is None:
        return file_sha256(path)
    key = hashlib.sha256(os.path.abspath(path).encode(errors="surrogateescape")).hexdigest()
    state = _state(path)
    known = store.load_entry("digests", key)
    if known is not None and known["state"] == state:
        return known["sha256"]
    digest = file_sha256(path)
    about = os.stat(path)
    settled = time.time() - max(about.st_mtime, about.st_ctime) > SETTLED_S
    if settled and _state(path) == state:
        store.save_entry("digests", key, {"sha256": digest, "state": state})
    return digest


def converted(
    path: str | Path, how: Sequence[Any], convert: Callable[[], list[Clip]]
) -> list[Clip]:  # fmt: skip
    """The clips of a motion file, from the cache if they are there; what is doubtful is said anew.

    Args:
        path: the file, as messages name it.
        how: all that the clips depend on beside the file: numbers, texts and None.
        convert: reads the file.

    Raises:
        MotionError: `convert` does.
    """
    store = store_in_use()
    # Who looks at motions that are refused must not be believed that they pass.
    if store is None or checks.is_reporting():
        return convert()
    try:
        sha256, state = source_sha256(path), _state(path)
    except (OSError, ValueError):  # a name with a NUL
        return convert()  # which says what is wrong
    described = json.dumps([code_sha256(*READERS), sha256, Path(path).name, *how])
    key = hashlib.sha256(described.encode(errors="surrogateescape")).hexdigest()
    if (found := _load(store, "files", key, path)) is not None:
        return found
    with doubts.collected() as said:
        clips = convert()
    with contextlib.suppress(OSError):
        if _state(path) == state:
            parts = [(_part(doubt.where, path), doubt.says) for doubt in said]
            return _kept(store, "files", key, clips, parts)
    return clips


def derived(clip: Clip, what: str, make: Callable[[Clip], Clip]) -> Clip:
    """The clip that `make` makes of another one, from the cache if it is there.

    Args:
        clip: what it is made of.
        what: a word for `make`, which depends on nothing else.
        make: the function.
    """
    of = (what, clip.sha256(), clip.name, clip.source, clip.licence)
    return _made_once("derived", of, lambda: make(clip))


def planned(name: str, make: Callable[[], Clip]) -> Clip:
    """The clip of a name that `make` plans, from the cache if it is there.

    Args:
        name: the clip's, on which `make` depends and on nothing else.
        make: plans it, which takes seconds for a minute of walking.

    Raises:
        MotionError: `make` does.
    """
    return _made_once("planned", (importlib.metadata.version("mujoco"), name), make)


def _made_once(kind: str, of: Sequence[str], make: Callable[[], Clip]) -> Clip:
    """The clip of a kind that follows from these texts and the code, made where it is not there."""
    store = store_in_use()
    if store is None:
        return make()
    key = hashlib.sha256(json.dumps([code_sha256(*READERS), *of]).encode()).hexdigest()
    found = _load(store, kind, key, None)
    return (found or _kept(store, kind, key, [make()], []))[0]


def _state(path: str | Path) -> list[int]:
    """What differs when a file was changed."""
    about = os.stat(path)
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]


def _kept(
    store: Store, kind: str, key: str, clips: list[Clip], said: list[tuple[str, str]]
) -> list[Clip]:
    """Save clips with what is doubtful of which part; returns them as the cache has them."""
    for clip in clips:
        if store.load("clips", clip.sha256(), "") is None:
            arrays = {name: getattr(clip, name) for name in (*ARRAY_SHAPES, "foot_contact")}
            store.save("clips", clip.sha256(), "", arrays)
    listed = [
        {"name": clip.name, "fps": clip.fps, "source": clip.source, "licence": clip.licence,
         "sha256": clip.sha256()}
        for clip in clips
    ]  # fmt: skip
    store.save_entry(kind, key, {"clips": listed, "doubts": said})
    # Those given would hold memory of their own.
    return _load(store, kind, key, None) or clips


def _part(where: str, path: str | Path) -> str:
    """What follows the file's path, which may be another one the next time: `#kick`."""
    paths = (f"{path}", f"{Path(path)}")
    return next((where.removeprefix(text) for text in paths if where.startswith(text)), "")


def _load(store: Store, kind: str, key: str, path: str | Path | None) -> list[Clip] | None:
    """Clips from the cache; doubts about them are said of `path`, where it is given."""
    entry = store.load_entry(kind, key)
    if entry is None:
        return None
    clips = []
    for about in entry["clips"]:
        arrays = store.load("clips", about["sha256"], "")
        if arrays is None:
            return None
        clips.append(Clip.of_store(arrays, **about))
    if path is not None:
        for part, says in entry["doubts"]:
            doubts.tell(f"{path}{part}", says)
    return clips
