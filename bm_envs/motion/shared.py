"""The motions of the package, read once in a process; environments share them."""

from __future__ import annotations

import functools
import re

from bm_envs.motion.clip import Clip
from bm_envs.motion.library import BUILTIN_DIR, load_motions


def shared_motions(motion: str) -> list[Clip]:
    """`library.load_motions` of one name or path; of the package's names always the same clips.

    Raises:
        MotionError: as there.
    """
    name = re.fullmatch(r"(\w+)(\[.*\])?", motion)
    built_in = name is not None and (BUILTIN_DIR / f"{name[1]}.npz").is_file()
    return list(_built_in(motion)) if built_in else load_motions(motion)


@functools.lru_cache(maxsize=64)
def _built_in(motion: str) -> tuple[Clip, ...]:
    return tuple(load_motions(motion))
