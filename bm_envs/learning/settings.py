"""What two runs must have in common for one to go on from the other's checkpoint, as text."""

from __future__ import annotations

import json
from typing import Any

from bm_envs.cli import shortened

DEFAULTS = "defaults"  # an entry of a run's settings, see `same_settings`
TOLD = 3  # settings that a message names


def same_settings(saved: Any, settings: str) -> bool:
    """Whether two texts are equal, or JSON with the same content in another order.

    A setting that `saved` does not have has the default that `settings` tells (`DEFAULTS`): the run
    is of before there was such a setting.
    """
    if saved == settings or not isinstance(saved, str):
        return saved == settings
    try:
        before, now = _contents(saved, settings)
    except ValueError:
        return False
    return bool(before == now)


def told_difference(saved: Any, settings: str) -> str:
    """Which settings differ, with both values, for the end of a sentence; empty if none is found.

    Args:
        saved: settings of the checkpoint, see `same_settings`.
        settings: those of this run.
    """
    try:
        before, now = _contents(saved, settings)
    except (TypeError, ValueError):
        return ""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return ""
    differing = _differences(before, now)
    told = [
        f"{name} is {shortened(json.dumps(ours), 60)}, there {shortened(json.dumps(theirs), 60)}"
        for name, theirs, ours in differing[:TOLD]
    ]
    rest = len(differing) - len(told)
    told += [f"and {rest} more"] if rest else []
    return f": {'; '.join(told)}" if told else ""


def _contents(saved: str, settings: str) -> tuple[Any, Any]:
    """Both as values; a setting that is not saved has its default."""
    before, now = json.loads(saved), json.loads(settings)
    if isinstance(before, dict) and isinstance(now, dict):
        before.pop(DEFAULTS, None)
        before = _completed(before, now.pop(DEFAULTS, {}))
    return before, now


def _differences(
    before: dict[str, Any], now: dict[str, Any], group: str = ""
) -> list[tuple[str, Any, Any]]:
    """Name, value before and value now of what differs; groups have a dot in their names."""
    found = []
    for name in [*now, *(name for name in before if name not in now)]:
        theirs, ours = before.get(name), now.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            found += _differences(theirs, ours, f"{group}{name}.")
        elif theirs != ours:
            found.append((f"{group}{name}", theirs, ours))
    return found


def _completed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`values` with the defaults of what they do not have, at every depth."""
    both = {name: values[name] for name in values.keys() & defaults.keys()}
    groups = {
        name: _completed(value, defaults[name])
        for name, value in both.items()
        if isinstance(value, dict) and isinstance(defaults[name], dict)
    }
    return defaults | values | groups
