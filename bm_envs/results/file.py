"""Read one result file or a folder of them, and refuse what does not keep to its kind."""

from __future__ import annotations

import datetime
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bm_envs import cli
from bm_envs.errors import BMWarning, ResultError
from bm_envs.policy import KINDS as POLICY_KINDS
from bm_envs.results.kinds import KINDS
from bm_envs.results.rules import (
    COMMAND_RULE,
    COMMIT_RULE,
    MACHINE,
    Kind,
    Rules,
    listing,
    number,
    table,
    text,
    whole,
)  # fmt: skip

MAX_BYTES = 64 * 2**20
# A folder of results may also hold the `policy.json` of a policy, which has one of these formats.
POLICY_FORMATS = tuple(kind.format for kind in POLICY_KINDS)
# A path from the root, a home folder or a drive. It stands at the start of the text or behind a
# character that can stand before a word.
ABSOLUTE = re.compile(
    r"""(?:^|[\s='"`,;:(\[])((?:/[\w.-]+/|~/?[\w.-]*/|[A-Za-z]:[\\/]{1,2}\w)\S*)"""
)

HEADER: Rules = {
    "kind": text(),
    "created": text(),
    "command": COMMAND_RULE,
    "commit": COMMIT_RULE,
    "seed": whole(null=True),
    "versions": table(of=text(empty=True), words="an object of texts"),
    "machine": table(),
    "rows": listing(least=1, words="a list of one row or more"),
    "settings": table(required=False),
    "traces": listing(required=False),
}
TRACE: Rules = {
    "policy": text(),
    "motion": text(),
    "every_s": number(0, above=True),
    "mpkpe_mm": listing(of=number(0), words="a list of numbers of 0 or more"),
    "failed_s": number(0, null=True),
}


@dataclass(frozen=True)
class ResultFile:
    """One result file that keeps to its kind."""

    path: Path
    kind: str
    created: str
    command: str
    """The command that wrote the file, as it is typed in the repository's root."""
    commit: str
    """The commit in hexadecimal digits, with `+` where the source tree had changes."""
    seed: int | None
    versions: dict[str, str]
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    settings: dict[str, Any]
    traces: list[dict[str, Any]]
    """Of the kind `track`: an error over the time of a motion, see `benchmarks/track.py`."""
    name: str = ""
    """The file's path below the folder that was read, without `.json`."""

    @property
    def machine_text(self) -> str:
        """The machine in words."""
        return machine_text(self.machine)

    def policy_sha256(self, policy: str) -> str | None:
        """SHA-256 of the policy's file, or None where the result does not hold it."""
        digest = self.settings.get("policy_sha256")
        return digest.get(policy) if isinstance(digest, dict) else digest


def machine_text(machine: Mapping[str, Any]) -> str:
    """A machine, as result files and descriptions of policies hold it, in words."""
    cores, gpu = machine["cores"], machine["gpu"]
    processor, bfloat16 = machine["processor"], machine.get("bfloat16")
    if bfloat16 is not None:
        processor += " with bfloat16" if bfloat16 else " without bfloat16"
    text = f"{processor}, {cores} core{'s' if cores > 1 else ''}"
    return f"{text}, {gpu}" if gpu else text


def read_result(path: str | Path, *, name: str | None = None) -> ResultFile:
    """Read and check one result file.

    Args:
        path: the file.
        name: what messages call the file; by default its path.

    Raises:
        ResultError: the file cannot be read, or does not keep to its kind.
    """
    path = Path(path)
    name = name or str(path)
    value = _read(path, name)
    check_result(value, name)
    return ResultFile(
        path=path,
        **{key: value[key] for key in HEADER if key not in ("settings", "traces")},
        settings=value.get("settings", {}),
        traces=value.get("traces", []),
    )


def _read(path: Path, name: str) -> Any:
    """The JSON in a file that is called `name`."""
    try:
        if not path.is_file():
            raise ResultError(f"{name}: is no file, expected a result file.")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ResultError(f"{name}: is larger than {MAX_BYTES >> 20} MiB.")
        return cli.parse_json(content.decode("utf-8-sig"))
    except OSError as error:
        raise ResultError(f"{name}: cannot be read ({cli.os_reason(error)}).") from None
    except ValueError as error:
        if isinstance(error, ResultError):
            raise
        reason = str(error).splitlines()[0]
        raise ResultError(f"{name}: is no JSON file of ours ({reason}).") from None


def check_result(value: Any, name: str) -> None:
    """Refuse the content of a result file that does not keep to its kind.

    Raises:
        ResultError: one sentence with the file's name, the row and the field.
    """
    kind, settings = _check_head(value, name, HEADER)
    if settings.get("quick", False):
        raise ResultError(
            f"{name}: settings: quick is true, expected false: such figures are not published."
        )
    _check_plain(f"{name}:", {key: part for key, part in value.items() if key != "rows"})
    for i, row in enumerate(value["rows"], start=1):
        _check_plain(f"{name}: row {i}:", row)
    for where, trace in _each(value.get("traces", []), f"{name}: trace"):
        _check(where, trace, TRACE)
    for where, row in _each(value["rows"], f"{name}: row"):
        _check(where, row, kind.rows)
        for field, expected in kind.relation(row, settings):
            raise ResultError(f"{where} {field} is {_shown(_at(row, field))}, expected {expected}.")


def write_result(path: str | Path, value: dict[str, Any]) -> None:
    """Write a result file, whole or not at all.

    A field that does not keep to its kind's rules is said in a warning, and the file is written
    nevertheless: what was measured may have taken hours. Figures of `--quick`, or of a tree outside
    git, are none to publish, and no fault.
    """
    cli.write_json(path, value)
    # As a reader will see it: a tuple is a list there.
    value = cli.parse_json(Path(path).read_text(encoding="utf-8"))
    outside_git = {"commit": replace(COMMIT_RULE, schema={})} if value["commit"] is None else {}
    try:
        kind, _ = _check_head(value, str(path), {**HEADER, **outside_git})
        for where, row in _each(value["rows"], f"{path}: row"):
            _check(where, row, kind.rows)
    except ResultError as error:
        warnings.warn(f"The leaderboard will refuse this file. {error}", BMWarning, stacklevel=2)


def _check_head(value: Any, name: str, header: Rules) -> tuple[Kind, dict[str, Any]]:
    """Check all but rows and traces; returns the kind and the settings."""
    if not isinstance(value, dict):
        raise ResultError(f"{name}: holds no object, expected a result file.")
    _check(f"{name}:", value, header)
    try:
        if datetime.datetime.fromisoformat(value["created"]).tzinfo is None:
            raise ValueError
    except ValueError:
        raise ResultError(
            f"{name}: created is {_shown(value['created'])}, expected a time with its time zone."
        ) from None
    _check(f"{name}: machine:", value["machine"], MACHINE)
    if odd := sorted(set(value["machine"]) - set(MACHINE)):
        raise ResultError(f"{name}: machine holds '{odd[0]}', expected {', '.join(MACHINE)} alone.")
    if value["kind"] not in KINDS:
        raise ResultError(
            f"{name}: kind is {_shown(value['kind'])}, expected one of {', '.join(KINDS)}."
        )
    kind = KINDS[value["kind"]]
    settings = value.get("settings", {})
    if kind.settings is not None:
        _check(f"{name}: settings:", settings, kind.settings)
    return kind, settings


def _each(values: list[Any], what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a list, with words for where they stand."""
    for i, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise ResultError(f"{what} {i}: is {_shown(value)}, expected an object.")
        yield f"{what} {i}:", value


def _check(where: str, value: Mapping[str, Any], rules: Rules) -> None:
    for field, rule in rules.items():
        if field not in value:
            if rule.required:
                raise ResultError(f"{where} lacks {field}, expected {rule.expected}.")
        elif not rule.holds(value[field]):
            shown = _shown(value[field])
            raise ResultError(f"{where} {field} is {shown}, expected {rule.expected}.")


def _check_plain(where: str, value: Any, field: str = "") -> None:
    """Refuse numbers that are not finite and paths of a machine, at any depth of a value."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(where, key, field or key)
            _check_plain(where, item, f"{field}.{key}" if field else key)
    elif isinstance(value, list):
        for item in value:
            _check_plain(where, item, field)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ResultError(f"{where} {field} is not finite, expected a number.")
    elif isinstance(value, str) and (path := machine_path(value)):
        raise ResultError(
            f"{where} {field} holds the path '{path}' of a machine, expected one from the "
            "repository's root."
        )


def machine_path(text: str) -> str | None:
    """The first path in a text that begins at a machine's root or at a home folder, or None."""
    match = ABSOLUTE.search(text)
    return match[1][:80] if match else None


def _at(row: Mapping[str, Any], field: str) -> Any:
    for key in field.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None  # type: ignore[assignment]
    return row


def _shown(value: Any) -> str:
    """A value as JSON, cut to a length that fits into a message."""
    words = json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 60 else words[:57] + "..."


def read_results(folder: str | Path) -> list[ResultFile]:
    """All result files under a folder, by name. Descriptions of policies are skipped.

    Raises:
        ResultError: there is no such folder, it holds no result file, or a file is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultError(f"{folder}: no such folder.")
    paths = sorted(path for path in folder.rglob("*.json") if path.is_file())
    results = [
        replace(read_result(path), name=path.relative_to(folder).with_suffix("").as_posix())
        for path in paths
        if not _describes_a_policy(path)
    ]
    if not results:
        raise ResultError(f"{folder}: holds no result file.")
    return results


def _describes_a_policy(path: Path) -> bool:
    """Whether a file is the `policy.json` of a policy that lies beside its results."""
    try:
        value = _read(path, str(path))
    except ResultError:
        return False  # `read_result` will say what is wrong with it
    if not isinstance(value, dict) or "kind" in value:
        return False
    return value.get("format") in POLICY_FORMATS
