"""Rules for the fields of result files: what a field may hold, and the words for it in a message.

A kind of result file is a table of such rules, one a field, and a relation between fields of a row.
A rule is a JSON Schema, which the reader and the writer hold values to and which `schemas.py`
writes for other people's programs. What such a schema cannot say is a relation's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bm_envs.statistics import wilson

LARGEST = 2**63  # the largest size of any number in a result file
ROUNDING = 1e-6  # figures are written with six digits or more
CI_ROUNDING = 1e-4  # the ends of intervals are written with four digits or more

Schema = Mapping[str, Any]
_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "anyOf": lambda v, schemas: any(keeps(v, schema) for schema in schemas),
    "type": lambda v, name: _KINDS[name](v),
    "enum": lambda v, values: v in values,
    "minimum": lambda v, low: low <= v,
    "exclusiveMinimum": lambda v, low: low < v,
    "maximum": lambda v, high: v <= high,
    "pattern": lambda v, pattern: re.search(pattern, v) is not None,
    "minItems": lambda v, count: len(v) >= count,
    "maxItems": lambda v, count: len(v) <= count,
    "items": lambda v, schema: all(keeps(item, schema) for item in v),
    "additionalProperties": lambda v, schema: all(keeps(item, schema) for item in v.values()),
}


def keeps(value: Any, schema: Schema) -> bool:
    """Whether a value of a JSON file keeps to a schema made of the words of `_TESTS`.

    The words are tried in their order, and the type comes first. A number with a decimal point is
    no integer here, while JSON Schema takes 1.0 for one.
    """
    return all(_TESTS[word](value, wanted) for word, wanted in schema.items())


@dataclass(frozen=True)
class Rule:
    """What a field may hold."""

    expected: str
    """The rule in words; a message has them behind "expected"."""
    schema: Schema
    """The rule as a JSON Schema."""
    required: bool = True
    also: Callable[[Any], bool] | None = None
    """What else has to hold, of a value that keeps to the schema."""

    def holds(self, value: Any) -> bool:
        """Whether a value keeps to the rule."""
        return keeps(value, self.schema) and (self.also is None or self.also(value))


def number(
    low: float = -math.inf, high: float = math.inf, *, null: bool = False, above: bool = False,
    required: bool = True,
) -> Rule:  # fmt: skip
    """A finite number of `low` to `high`; with `above` more than `low`."""
    words = "a number"
    if math.isfinite(high):
        words += f" of {low:g} to {high:g}" if math.isfinite(low) else f" of at most {high:g}"
    elif math.isfinite(low):
        words += f" above {low:g}" if above else f" of {low:g} or more"
    # Both ends are always there, so that NaN is not within them.
    schema = {
        "type": "number",
        "exclusiveMinimum" if above else "minimum": max(low, -LARGEST),
        "maximum": min(high, LARGEST),
    }
    return _nullable(Rule(words, schema, required), null)


def whole(low: int = 0, *, null: bool = False, required: bool = True) -> Rule:
    """A whole number of `low` or more."""
    schema = {"type": "integer", "minimum": low, "maximum": LARGEST}
    return _nullable(Rule(f"a whole number of {low} or more", schema, required), null)


def text(*choices: str, null: bool = False, required: bool = True, empty: bool = False) -> Rule:
    """Text that is not empty, or one of the choices; with `empty` any text."""
    words = " or ".join(repr(choice) for choice in choices) or "a " * empty + "text"
    schema: dict[str, Any] = {"type": "string"}
    if choices:
        schema["enum"] = list(choices)
    elif not empty:
        schema["pattern"] = r"\S"
    return _nullable(Rule(words, schema, required), null)


def matching(pattern: str, words: str, *, null: bool = False) -> Rule:
    """Text that a pattern matches throughout, of what Python and ECMAScript read alike."""
    # Python's $ also stands before a line's end, ECMAScript's does not.
    schema = {"type": "string", "pattern": rf"^(?:{pattern})$(?!\n)"}
    return _nullable(Rule(words, schema), null)


def truth(*, null: bool = False, required: bool = True) -> Rule:
    """True or false."""
    return _nullable(Rule("true or false", {"type": "boolean"}, required), null)


def table(
    *, of: Rule | None = None, words: str = "an object", null: bool = False, required: bool = True
) -> Rule:
    """A JSON object; with `of` each of its values keeps to that rule."""
    schema: dict[str, Any] = {"type": "object"}
    if of is not None:
        schema["additionalProperties"] = of.schema
    return _nullable(Rule(words, schema, required), null)


def numbers(*, null: bool = False, required: bool = True) -> Rule:
    """A JSON object whose values are numbers or null."""
    words = "an object of numbers"
    return table(of=number(null=True), words=words, null=null, required=required)


def interval(*, required: bool = True) -> Rule:
    """Two shares, the lower first."""
    schema = {"type": "array", "items": number(0, 1).schema, "minItems": 2, "maxItems": 2}
    words = "two numbers of 0 to 1, the lower first"
    return Rule(words, schema, required, also=lambda ends: ends[0] <= ends[1])


def listing(
    *, of: Rule | None = None, least: int = 0, words: str = "a list", required: bool = True
) -> Rule:
    """A list of `least` items or more; with `of` each keeps to that rule."""
    schema: dict[str, Any] = {"type": "array"}
    if least:
        schema["minItems"] = least
    if of is not None:
        schema["items"] = of.schema
    return Rule(words, schema, required)


def either(words: str, *rules: Rule) -> Rule:
    """What keeps to one of the rules."""
    return Rule(words, {"anyOf": [rule.schema for rule in rules]})


def _nullable(rule: Rule, null: bool) -> Rule:
    if not null:
        return rule
    schema = {"anyOf": [rule.schema, {"type": "null"}]}
    return replace(rule, expected=f"{rule.expected}, or null", schema=schema)


Rules = Mapping[str, Rule]
Relation = Callable[[dict[str, Any], dict[str, Any]], Iterator[tuple[str, str]]]
"""A function of a row and the file's settings. It yields `(field, what was expected)` for each
field that does not agree with the others."""

COMMIT = r"[0-9a-f]{7,40}\+?"
COMMIT_RULE = matching(COMMIT, "a commit of 7 to 40 hexadecimal digits, with + for changes")
COMMITS_RULE = matching(
    f"{COMMIT}(, {COMMIT})*",
    "a commit of 7 to 40 hexadecimal digits, with + for changes, or several with commas between",
)
SHA256_RULE = matching("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")
COMMAND_RULE = matching(r"python [^\n]*", "a command that starts with 'python '")
MACHINE: Rules = {
    "processor": text(),
    "bfloat16": truth(null=True, required=False),
    "cores": whole(1),
    "gpu": text(null=True),
}


def no_relation(row: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The relation of a kind whose fields are independent of each other."""
    yield from ()


@dataclass(frozen=True)
class Kind:
    """A kind of result file: the rules of its rows and of its settings."""

    rows: Rules
    relation: Relation = no_relation
    settings: Rules | None = None
    """None: a file of this kind needs no settings."""


def share_and_interval(
    row: dict[str, Any], rate: str, ci: str, trials: int
) -> Iterator[tuple[str, str]]:
    """A row's share of successes is one of `trials` trials, and its interval is Wilson's."""
    count = row[rate] * trials
    if abs(count - round(count)) > ROUNDING * trials:
        yield rate, f"a whole number of the {trials} there were"
        return
    low, high = wilson(round(count), trials)
    if abs(row[ci][0] - low) > CI_ROUNDING or abs(row[ci][1] - high) > CI_ROUNDING:
        yield ci, f"Wilson's 95 % interval, {low:.4f} to {high:.4f}"
