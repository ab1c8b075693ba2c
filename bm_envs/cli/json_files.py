"""JSON files: written whole, and read with bounds, because somebody else may have written them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bm_envs.cli.files import atomic_path, shortened
from bm_envs.errors import BMError


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, because JSON has neither."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n")


MAX_JSON_BYTES, MAX_JSON_DEPTH = 2**24, 64


def read_json(path: str | Path, error: type[BMError] = BMError) -> Any:
    """Read a JSON file that somebody else may have written.

    Bounded in size and depth. Stricter than the parser of the standard library, where another
    program would read something else: a name twice in one object, NaN and infinity (also as a
    number that is too large for a float), and half a character (a lone surrogate) are refused.

    Args:
        path: the file.
        error: class of the exception.

    Raises:
        BMError: there is no such file, or it is not such JSON; one sentence with its name.
    """
    try:
        with open(path, "rb") as stream:  # `open` refuses a name with a NUL, by a ValueError
            content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"holds more than {MAX_JSON_BYTES >> 20} MiB")
        return parse_json(content.decode("utf-8-sig"))
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f"{path}: not a readable JSON file ({shortened(str(reason))}).") from None


def parse_json(text: str) -> Any:
    """Foreign JSON, read with the same rules as `read_json`.

    Raises:
        ValueError: it is no such JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise ValueError(f"the key '{shortened(twice)}' stands twice in one object")
        return entries

    def number(digits: str) -> float:
        # Whole numbers stay whole; one that no float can hold is refused.
        value = int(digits) if digits.lstrip("-").isdecimal() else float(digits)
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"the number {shortened(digits, 24)} is too large")
        return value

    def no_number(name: str) -> float:
        raise ValueError(f"{name} is no JSON number")

    try:
        value = json.loads(
            text, object_pairs_hook=once, parse_int=number, parse_float=number,
            parse_constant=no_number,
        )  # fmt: skip
    except RecursionError:
        raise ValueError(f"it nests more than {MAX_JSON_DEPTH} deep") from None
    halves = re.search(r"\\u[dD][89a-fA-F]", text) is not None
    # The parser's bound of depth depends on the interpreter, and other programs have lower ones.
    layer, depth = [[value]], -1
    while layer := [part for item in layer for part in _parts(item)]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"it nests more than {MAX_JSON_DEPTH} deep")
        if halves and any(re.search(r"[\ud800-\udfff]", p) for p in layer if isinstance(p, str)):
            raise ValueError("a text in it holds half a character")
    return value


def _parts(value: Any) -> Iterable[Any]:
    """The values directly inside a JSON value, and the names of an object."""
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()
