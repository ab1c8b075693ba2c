"""Costs by their names: `file.py:function` or `module:function`.

Loading runs the named file or module, with all the rights of whoever starts the command. Nothing
is loaded but what is named, and no model's file can name one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bm_envs.diffusion.user_costs.cost import raised
from bm_envs.diffusion.user_costs.plan import Plan
from bm_envs.errors import ConfigError, unknown_name

OUTCOME = "outcome"  # name of the function beside a cost that says what came of it


@dataclass(frozen=True)
class Loaded:
    """A function that was found by its name."""

    function: Callable[[Plan], Any]
    outcome: Callable[[Plan], Any] | None = None
    """Of the same file, if it has one: figures by name, `[N]` each, of what was executed."""
    reference: str = ""
    """By which it was found."""


def load_cost(reference: str) -> Loaded:
    """The function of a reference, `file.py:function` or `module:function`. This runs the file.

    Raises:
        ConfigError: malformed, not there, not a function, or its file raises something.
    """
    where, _, name = reference.rpartition(":")
    relative = where.startswith(".") and not where.endswith(".py")
    if not where or relative or not name.isidentifier():
        raise ConfigError(f"cost is '{reference}', expected file.py:function or module:function.")
    module = _of_file(Path(where)) if where.endswith(".py") else _of_module(where)
    functions = {k: v for k, v in vars(module).items() if callable(v) and not k.startswith("_")}
    if not functions:
        raise ConfigError(f"{where} has no function, expected '{name}' in it.")
    if name not in vars(module):
        raise ConfigError(unknown_name(f"function of {where}", name, functions))
    function = vars(module)[name]
    if not callable(function) or isinstance(function, type):
        raise ConfigError(
            f"cost '{name}' of {where} is {type(function).__name__}, expected a function."
        )
    outcome = functions.get(OUTCOME) if name != OUTCOME else None
    short = Path(where).name if where.endswith(".py") else where
    return Loaded(function, outcome, f"{short}:{name}")


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        what = "is no file" if path.exists() else "no such file"
        raise ConfigError(f"{path}: {what}, expected one with the function of --cost.")
    # A name that no installed module has: a file `random.py` must not be taken for another.
    name = f"bm_envs_cost_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ConfigError(raised(f"{path}", error, str(path.absolute()))) from error
    return module


def _of_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"cost is of module '{name}', which is not there; a file is named as "
                "path/to/file.py:function."
            ) from None
        raise ConfigError(raised(f"module {name}", error, "")) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(raised(f"module {name}", error, "")) from error
