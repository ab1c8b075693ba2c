"""The kinds of result files as JSON Schemas, for programs of others.

    python -m bm_envs.results.schemas benchmarks/schemas

They are made of the rules that reader and writer use (`rules.py`), the same bytes each time. What
follows from several values of a file, such as an interval from its counts, no schema says:
`read_result` checks that beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from bm_envs import cli
from bm_envs.results.file import HEADER, TRACE
from bm_envs.results.kinds import KINDS
from bm_envs.results.rules import MACHINE, Rules

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Config:
    """Write a JSON Schema for each kind of result file."""

    out: Annotated[Path, Positional]
    """Folder for `KIND.schema.json`."""


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of files of one kind."""
    rules = KINDS[kind]
    schema = _object(HEADER)
    parts = schema["properties"]
    parts["kind"] = {"const": kind}
    parts["created"] |= {"format": "date-time"}
    parts["machine"] = _object(MACHINE) | {"additionalProperties": False}
    parts["rows"] |= {"items": _object(rules.rows)}
    parts["traces"] |= {"items": _object(TRACE)}
    if rules.settings is not None:
        parts["settings"] = _object(rules.settings)
        schema["required"] = [*schema["required"], "settings"]
    return {"$schema": DIALECT, "title": f"bm-envs result file of the kind {kind}", **schema}


def _object(rules: Rules) -> dict[str, Any]:
    """A schema of an object with these fields; others may be there, too."""
    return {
        "type": "object",
        "required": [name for name, rule in rules.items() if rule.required],
        "properties": {
            name: {"description": rule.expected, **rule.schema} for name, rule in rules.items()
        },
    }


def main(config: Config) -> None:
    """Write all schemas."""
    for kind in KINDS:
        cli.write_json(config.out / f"{kind}.schema.json", schema_of(kind))
    print(f"wrote {len(KINDS)} schemas to {config.out}")


if __name__ == "__main__":
    cli.run(main, Config)
