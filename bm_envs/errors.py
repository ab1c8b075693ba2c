"""Errors that a user can cause. Each carries one sentence: where, what came, what was expected.

A warning is for input that is doubtful and still used; commands print it as one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BMError(ValueError):
    """Base of all errors about input; commands print it as one line and exit with status 2."""


class ConfigError(BMError):
    """A setting or argument outside what is allowed."""


class MotionError(BMError):
    """A motion that is unknown, unreadable or malformed."""


class PolicyError(BMError):
    """A policy, checkpoint or run directory that is unknown, unreadable or malformed."""


class ResultError(BMError):
    """A result file that is unreadable, malformed or not reproduced."""


class HubError(BMError):
    """What the Hugging Face Hub or its client could not do."""


class BackendUnavailable(BMError):
    """A physics backend, or a package it needs, that is not installed or not known."""


class BMWarning(UserWarning):
    """Base of all warnings about input; commands print it as one line that begins `warning:`."""


class MotionWarning(BMWarning):
    """A motion that is readable and doubtful."""


def unknown_name(kind: str, name: str, known: Iterable[str], advice: str = "") -> str:
    """One sentence for a misspelt name, with close matches and the number of known ones."""
    known, name = sorted(known), str(name)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f" did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    listed = f" Known: {', '.join(known)}." if len(known) <= 20 else f" {len(known)} are known."
    return f"Unknown {kind} '{name}';{hint}{listed}{' ' + advice if advice else ''}".replace(
        "; Known", "; known"
    )


# A value of MUJOCO_GL with which MuJoCo cannot even be imported. `bm_envs/__init__.py` takes it out
# of the environment and leaves it here, for a command or a renderer to refuse it in one sentence.
GL_REFUSED: list[str] = []
