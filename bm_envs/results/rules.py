"""Rules for the fields of result files: what a field may hold, and the words for it in a message.

A kind of result file is a table of such rules, one a field, and a relation between fields of a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bm_envs.statistics import wilson

LARGEST = 2**63  # the largest size of any number in a result file
ROUNDING = 1e-6  # figures are written with six digits or more
CI_ROUNDING = 1e-4  # the ends of intervals are written with four digits or more


@dataclass(frozen=True)
class Rule:
    """What a field may hold."""

    expected: str
    """The rule in words; a message has them behind "expected"."""
    holds: Callable[[Any], bool]
    """Whether a value keeps to the rule."""
    required: bool = True


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

    def holds(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST:
            return False
        return math.isfinite(value) and (low < value if above else low <= value) and value <= high

    return _nullable(Rule(words, holds, required), null)


def whole(low: int = 0, *, null: bool = False, required: bool = True) -> Rule:
    """A whole number of `low` or more."""

    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= LARGEST

    return _nullable(Rule(f"a whole number of {low} or more", holds, required), null)


def text(*choices: str, null: bool = False, required: bool = True) -> Rule:
    """Text that is not empty, or one of the choices."""
    words = " or ".join(repr(choice) for choice in choices) or "text"

    def holds(value: Any) -> bool:
        return isinstance(value, str) and (value in choices if choices else bool(value.strip()))

    return _nullable(Rule(words, holds, required), null)


def matching(pattern: re.Pattern[str], words: str, *, null: bool = False) -> Rule:
    """Text that a pattern matches throughout."""

    def holds(value: Any) -> bool:
        return isinstance(value, str) and pattern.fullmatch(value) is not None

    return _nullable(Rule(words, holds), null)


def truth(*, null: bool = False, required: bool = True) -> Rule:
    """True or false."""
    return _nullable(Rule("true or false", lambda v: isinstance(v, bool), required), null)


def table(*, of: type = object, null: bool = False, required: bool = True) -> Rule:
    """A JSON object whose values are all of one type."""
    words = "an object" if of is object else f"an object of {of.__name__} values"

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(item, of) for item in value.values())

    return _nullable(Rule(words, holds, required), null)


def numbers(*, null: bool = False, required: bool = True) -> Rule:
    """A JSON object whose values are numbers or null."""
    one = number(null=True)

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(one.holds(item) for item in value.values())

    return _nullable(Rule("an object of numbers", holds, required), null)


def interval(*, required: bool = True) -> Rule:
    """Two shares, the lower first."""

    def holds(value: Any) -> bool:
        share = number(0, 1)
        return (
            isinstance(value, list) and len(value) == 2 and all(map(share.holds, value))
            and value[0] <= value[1]
        )  # fmt: skip

    return Rule("two numbers of 0 to 1, the lower first", holds, required)


def listing(*, required: bool = True) -> Rule:
    """A list."""
    return Rule("a list", lambda value: isinstance(value, list), required)


def _nullable(rule: Rule, null: bool) -> Rule:
    if not null:
        return rule
    return Rule(
        f"{rule.expected}, or null",
        lambda value: value is None or rule.holds(value),
        rule.required,
    )


Rules = Mapping[str, Rule]
Relation = Callable[[dict[str, Any], dict[str, Any]], Iterator[tuple[str, str]]]
"""A function of a row and the file's settings. It yields `(field, what was expected)` for each
field that does not agree with the others."""

COMMIT = re.compile(r"[0-9a-f]{7,40}\+?")
COMMIT_RULE = matching(COMMIT, "a commit of 7 to 40 hexadecimal digits, with + for changes")
COMMITS_RULE = matching(
    re.compile(rf"{COMMIT.pattern}(, {COMMIT.pattern})*"),
    "a commit of 7 to 40 hexadecimal digits, with + for changes, or several with commas between",
)
SHA256_RULE = matching(re.compile(r"[0-9a-f]{64}"), "a SHA-256 of 64 hexadecimal digits")
COMMAND_RULE = Rule(
    "a command that starts with 'python '",
    lambda v: isinstance(v, str) and v.startswith("python ") and "\n" not in v,
)
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
