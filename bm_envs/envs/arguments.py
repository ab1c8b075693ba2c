"""Arguments that every environment has: their kinds, and the sentence about one that is wrong."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from bm_envs.errors import ConfigError, unknown_name
from bm_envs.tasks.settings import check_kind
from bm_envs.tasks.track.config import CONTROL_DT

Autoreset = Literal["same_step", "next_step", "disabled"] | AutoresetMode
Setting = float | Literal["preset"]
# A declared range and no clip: published policies need any finite raw action to be applied.
ACTION_BOUND = 10.0
METADATA: dict[str, Any] = {
    "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
    "render_fps": round(1 / CONTROL_DT),
}


class ClosedError(ConfigError, gymnasium.error.ClosedEnvironmentError):
    """A call of an environment that was closed."""


class UnknownArgument(ConfigError, TypeError):
    """An argument that the environment does not have.

    A TypeError with Python's words, too: who makes environments of many kinds, as TorchRL's
    `GymEnv` does, tries an argument and goes by them.
    """


def arguments_of(names: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its `locals()` before it has other variables.

    A signature is the only place where a class lists its arguments: all are checked and passed on
    by name.
    """
    return {name: value for name, value in names.items() if name not in ("self", "__class__")}


def check_arguments(env: type, arguments: Mapping[str, Any]) -> None:
    """Refuse what an environment does not have, and values of the wrong kind.

    Args:
        env: the environment's class.
        arguments: all of a call, see `arguments_of`; `unknown` are those that it does not have.
    """
    if unknown := arguments["unknown"]:
        known = [name for name in inspect.signature(env).parameters if name != "unknown"]
        name = next(iter(unknown))
        raise UnknownArgument(
            f"{env.__name__}.__init__() got an unexpected keyword argument '{name}'. "
            + unknown_name("argument", name, known)
        )
    for name, least in (("num_envs", 1), ("threads", 0), ("width", 1), ("height", 1)):
        value = arguments.get(name, least)
        integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not integer or value < least:
            raise ConfigError(f"{name} is {value!r}, expected an integer of {least} or more.")
    check_kind("backend", arguments["backend"], str)
    check_kind("camera", arguments["camera"], str | None)
    check_kind("ghost", arguments.get("ghost", True), bool)
    steps = arguments.get("max_episode_steps")
    if steps is not None and (not isinstance(steps, int | np.integer) or steps < 1):
        raise ConfigError(f"max_episode_steps is {steps!r}, expected None or 1 or more.")
    if "autoreset_mode" in arguments:
        autoreset_mode(arguments["autoreset_mode"])
    mode = arguments["render_mode"]
    if mode is not None and mode not in METADATA["render_modes"]:
        modes = ", ".join(METADATA["render_modes"])
        raise ConfigError(f"render_mode is '{mode}', expected None or one of {modes}.")


def autoreset_mode(mode: Autoreset) -> AutoresetMode:
    """Gymnasium's name of what happens after an episode's end."""
    if isinstance(mode, AutoresetMode):
        return mode
    try:
        return AutoresetMode[mode.upper()]
    except (KeyError, AttributeError):
        raise ConfigError(
            f"autoreset_mode is '{mode}', expected 'same_step', 'next_step' or 'disabled'."
        ) from None


def check_action(action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The action as float32, if it has this shape and every number of it is finite."""
    try:
        action = np.asarray(action, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"action is {type(action).__name__}, expected numbers {shape}.") from None
    if action.shape != shape:
        raise ConfigError(f"action has shape {action.shape}, expected {shape}.")
    if not math.isfinite(np.vdot(action, action)):  # may overflow where all are finite
        where = np.argwhere(~np.isfinite(action))
        if len(where):
            raise ConfigError(f"action{where[0].tolist()} is not finite, expected finite numbers.")
    return action
