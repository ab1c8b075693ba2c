"""What `--help` shows, and what commands are called: by their files, or as parts of `bm-envs`."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

# A trainer's short `--help` has the first ten of these that it takes.
MAIN_FLAGS = (
    "policy", "data", "out", "motion", "task", "representation", "preset", "episodes",
    "total_timesteps", "total_steps", "num_envs", "batch_size", "run_dir", "resume", "seed",
    "backend", "start_from", "stop_when_passed", "device", "threads", "eval_every", "eval_trials",
    "learning_rate", "noise", "noise_scale",
)  # fmt: skip
NUM_MAIN_FLAGS = 10
NUM_EXAMPLES = 2
HELP_ALL = "--help-all"

# The scripts' names by the console command, `{"tools/replay.py": "bm-envs replay"}`, and that of
# the one that runs; empty where a script was started by its file.
_names: dict[str, str] = {}
_program: list[str] = []


def call_scripts(names: Mapping[str, str], program: str) -> None:
    """From now on texts name scripts in this way, and this process is `program`."""
    _names.clear()
    _names.update(names)
    _program[:] = [program]


def program() -> str | None:
    """The name by which the console command started this process; None: it did not."""
    return _program[0] if _program else None


def spelled(text: str) -> str:
    """A text with the scripts in it named as the person who reads it calls them."""

    def name(found: re.Match[str]) -> str:
        return _names.get(found[2], found[0])

    return re.sub(r"(python )?\b((?:algos|benchmarks|tools)/\w+\.py)\b", name, text)


def print_next(steps: Mapping[str, str]) -> None:
    """A command's last lines: what to do with what it made.

    Args:
        steps: what for, and the command, by the script's file.
    """
    width = max(map(len, steps))
    print("next:")
    for what, command in steps.items():
        print(f"  {what.ljust(width)}  {spelled(command)}")


def description(text: str | None, *, short: bool = False) -> str | None:
    """What `--help` says above the flags: a script's summary, and its examples with their comments.

    To one who has the console command alone, an example of a script that is none of its parts is
    left out.

    Args:
        text: the script's docstring; None: the help has tyro's own description.
        short: leave out all but the first examples.
    """
    if not text:
        return None
    summary = " ".join(text.strip().partition("\n\n")[0].split())
    # With the lines that continue it.
    found = map(spelled, re.findall(r"^ *((?:python|torchrun) (?:.*\\\n)*.+)$", text, re.M))
    lines = [line for line in found if not (_names and line.startswith("python "))]
    lines = lines[: NUM_EXAMPLES if short else None]
    return "\n".join([summary, "", *(f"    {line}" for line in lines)]).strip("\n")


def main_flags(config_class: Any) -> list[str]:
    """Names of the settings that a short help of the class shows."""
    taken = set(_settings(config_class))
    return [name for name in MAIN_FLAGS if name in taken][:NUM_MAIN_FLAGS]


def with_flags_hidden(
    config_class: Any, shown: Sequence[str], default: Any = None
) -> tuple[Any, Any]:
    """A class of the same settings, of which `--help` shows those `shown` alone, and its default.

    It is for its help only. tyro finds the texts of inherited settings where they are written.

    Args:
        config_class: the class.
        shown: names of settings.
        default: an instance of the class; None: the class's own defaults.
    """
    from tyro.conf import Suppress

    fields, values = [], {}
    for item, kind in _fields(config_class):
        name = item.name
        if default is not None:
            values[name] = getattr(default, name)
        if group := _group_beside(kind):
            hidden, values[name] = with_flags_hidden(
                group, shown, item.default if default is None else values[name]
            )
            kind = Annotated[(hidden, *typing.get_args(kind)[1:])]
            fields.append((name, kind, dataclasses.field(default=values[name])))
        elif name not in shown or _group(kind):
            copy = dataclasses.field(default=item.default, default_factory=item.default_factory)
            fields.append((name, Annotated[kind, Suppress], copy))
    made = dataclasses.make_dataclass(
        config_class.__name__, fields, bases=(config_class,), frozen=True
    )
    made.__doc__ = config_class.__doc__
    return made, None if default is None else made(**values)


def _fields(config_class: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(config_class, include_extras=True)
    for item in dataclasses.fields(config_class):
        yield item, hints[item.name]


def _settings(config_class: Any) -> Iterator[str]:
    """Names of a class's settings that are no groups."""
    for item, kind in _fields(config_class):
        if group := _group_beside(kind):
            yield from _settings(group)
        elif not _group(kind):
            yield item.name


def _group(kind: Any) -> Any:
    """The class of a setting that is a group of settings; None: it is none."""
    bare = typing.get_args(kind)[0] if typing.get_origin(kind) is Annotated else kind
    return bare if dataclasses.is_dataclass(bare) else None


def _group_beside(kind: Any) -> Any:
    """The class of a group whose flags stand beside the others (`learning.run.Flags`), or None."""
    from tyro.conf import arg

    return _group(kind) if arg(name="") in getattr(kind, "__metadata__", ()) else None
