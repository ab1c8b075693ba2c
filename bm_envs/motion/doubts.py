"""What is said of motions that are doubtful and still used: warnings, which can be collected."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

from bm_envs.errors import MotionWarning


class Doubt(NamedTuple):
    """One warning."""

    where: str
    """What it is about, usually a file."""
    says: str
    """What is doubtful, with a full stop."""


_collected: ContextVar[list[Doubt] | None] = ContextVar("collected", default=None)
_is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)


def tell(where: str, says: str, stacklevel: int = 3) -> None:
    """Warn, as of the place that called who calls this."""
    collected = _collected.get()
    if collected is not None:
        collected.append(Doubt(where, says))
    if _is_silent.get():
        return
    warnings.warn(f"{where}: {says}", MotionWarning, stacklevel=stacklevel)


@contextlib.contextmanager
def collected() -> Iterator[list[Doubt]]:
    """Within it, warnings are put on this list as well."""
    said: list[Doubt] = []
    token = _collected.set(said)
    try:
        yield said
    finally:
        _collected.reset(token)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within it nobody is warned: of a motion that is only read to make another of it."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)
