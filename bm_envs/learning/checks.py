"""Checks of settings that several trainers have: one sentence each, with name and value."""

from __future__ import annotations

import math
from typing import Any

from bm_envs.errors import ConfigError


def check_at_least_one(config: Any, *names: str) -> None:
    """Each of these settings is a number of 1 or more."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}, expected 1 or more.")


def check_positive(config: Any, *names: str) -> None:
    """Each of these settings is above 0 and finite."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigError(f"{name} is {getattr(config, name)}, expected a positive number.")


def check_batches(config: Any) -> None:
    """A run has an iteration of `num_envs * num_steps` samples, which `num_minibatches` divides."""
    batch = config.num_envs * config.num_steps
    if config.total_timesteps < batch:
        raise ConfigError(
            f"total_timesteps {config.total_timesteps} is less than one iteration of num_envs * "
            f"num_steps = {batch}."
        )
    if batch % config.num_minibatches:
        raise ConfigError(
            f"num_envs * num_steps = {batch} is not divisible by num_minibatches "
            f"{config.num_minibatches}."
        )


def check_hidden(config: Any) -> None:
    """The layers `hidden` have units, in pairs where the networks are symmetric (`symmetry`)."""
    if not config.hidden or min(config.hidden) < 1:
        raise ConfigError(f"hidden is {config.hidden}, expected one or more positive numbers.")
    if config.symmetry and any(width % 2 for width in config.hidden):
        raise ConfigError(
            f"hidden is {config.hidden}, expected even numbers: with symmetry units are pairs."
        )
