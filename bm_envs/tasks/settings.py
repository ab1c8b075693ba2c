"""Settings are frozen dataclasses, which may be nested: copies with changes, and their checks."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from bm_envs.errors import ConfigError, unknown_name


def with_changes(config: Any, changes: Mapping[str, Any], path: str) -> Any:
    """A copy of a dataclass with fields replaced; a mapping replaces fields of a nested one.

    `path` is where it stands, for errors.

    Raises:
        ConfigError: there is no such field, or a value is of the wrong kind.
    """
    values, hints = {}, _hints(type(config))
    for name, value in changes.items():
        names = [item.name for item in dataclasses.fields(config)]
        if name not in names:
            known = [path + item for item in names]
            raise ConfigError(unknown_name("setting", f"{path}{name}", known))
        present = getattr(config, name)
        if dataclasses.is_dataclass(present) and isinstance(value, Mapping):
            value = with_changes(present, value, f"{path}{name}.")
        elif isinstance(value, list):  # JSON has no tuples
            value = tuple(value)
        check_kind(path + name, value, hints[name])
        values[name] = value
    return dataclasses.replace(config, **values)


def check_kinds(config: Any, path: str = "") -> None:
    """Refuse a dataclass of which a field, or one of a nested dataclass, is of the wrong kind.

    Raises:
        ConfigError: there is one.
    """
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        check_kind(path + name, value, hint)
        if dataclasses.is_dataclass(value):
            check_kinds(value, f"{path}{name}.")


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not what a type hint asks for.

    Numbers may be NumPy's, and a number that is no number (NaN) is none; True is no number. For a
    tuple there may be any sequence or array.

    Raises:
        ConfigError: it is not.
    """
    if not _is_kind(value, hint):
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise ConfigError(f"{name} is {shown}, expected {_kind_text(hint)}.")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _is_kind(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_is_kind(value, argument) for argument in arguments)
    if origin is Literal:
        return any(type(value) is type(item) and value == item for item in arguments)
    if origin is tuple:
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
            return False
        if arguments[-1] is Ellipsis:
            return all(_is_kind(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is_kind, value, arguments))
    if hint in (float, int):
        numbers = (int, np.integer) if hint is int else (int, float, np.integer, np.floating)
        return isinstance(value, numbers) and not isinstance(value, bool) and value == value
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is Path:
        return isinstance(value, str | Path)
    return isinstance(value, origin or hint)


def _kind_text(hint: Any) -> str:
    """What a type hint asks for, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_text(item) for item in sorted(arguments, key=_is_none))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        many = {float: "numbers", int: "integers", str: "texts"}.get(arguments[0], "values")
        return f"{'several' if arguments[-1] is Ellipsis else len(arguments)} {many}"
    words = {
        float: "a number", int: "an integer", bool: "True or False", str: "a text",
        types.NoneType: "None", Path: "a path",
    }  # fmt: skip
    if hint in words:
        return words[hint]
    kind = origin or hint
    return "a mapping" if kind is Mapping else f"a {getattr(kind, '__name__', kind)}"


def _is_none(hint: Any) -> bool:
    return hint is types.NoneType
