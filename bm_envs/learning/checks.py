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


def check_length(config: Any) -> None:
    """A run has at least one iteration of `num_envs * num_steps` control steps."""
    batch = config.num_envs * config.num_steps
    if config.total_timesteps < batch:
        raise ConfigError(
            f"total_timesteps {config.total_timesteps} is less than one iteration of num_envs * "
            f"num_steps = {batch}."
        )


def check_batches(config: Any) -> None:
    """See `check_length`; and `num_minibatches` divides an iteration's samples."""
    check_length(config)
    batch = config.num_envs * config.num_steps
    if batch % config.num_minibatches:
        raise ConfigError(
            f"num_envs * num_steps = {batch} is not divisible by num_minibatches "
            f"{config.num_minibatches}."
        )


def check_hidden(config: Any, *names: str) -> None:
    """These hidden layers have units, in pairs where the networks are symmetric (`symmetry`)."""
    for name in names:
        widths = getattr(config, name)
        if not widths or min(widths) < 1:
            raise ConfigError(f"{name} is {widths}, expected one or more positive numbers.")
        if config.symmetry and any(width % 2 for width in widths):
            raise ConfigError(
                f"{name} is {widths}, expected even numbers: with symmetry units are pairs."
            )
