"""The guide that lowers a cost in the sampler's calls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bm_envs.diffusion.costs.base import Cost, own_step
from bm_envs.diffusion.sampler import SHARES, Guide, K, guidance_steps
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import Representation

Watch = Callable[[np.ndarray, np.ndarray, np.ndarray], None]
"""`(features [N, L, D], what is added to them [N, L, D], their levels [N, L])`, of every call."""


def guide(
    cost: Cost, rep: Representation, strength: float | np.ndarray = 1.0, *,
    scaling: str = "share", last_level: int = K - 1, most_step: float = np.inf,
    watch: Watch | None = None,
) -> Guide:  # fmt: skip
    """A guide that lowers `cost`, of states as features: see `Controller`.

    With a scaling by shares a strength of 1 brings the cost to its minimum at the noisiest level
    (`share`) or in every call (`even_share`), whatever the cost: see `own_step`.

    Args:
        cost: what to lower; may be changed between ticks by whoever owns it.
        rep: representation of the states.
        strength: factor of every step; a number, or one for each window, `[N]`.
        scaling: how steps depend on the level, see `guidance_steps`.
        last_level: noisiest level at which states are moved.
        most_step: bound of the change of a step's predicted root velocity in a call, m/s.
        watch: is told what each call moves.

    Raises:
        ConfigError: no such scaling, or a share that is not 0 to 1.
    """
    check_strength(strength, scaling)
    steps = guidance_steps(scaling, last_level).astype(np.float32)
    factor = np.asarray(strength, np.float32).reshape(-1, 1, 1)
    velocity = rep.blocks["root_lin_vel"]
    plane = slice(velocity.start, velocity.start + 2)

    def move(features: np.ndarray, levels: np.ndarray) -> np.ndarray:
        way = own_step(cost, features, rep) if scaling in SHARES else cost.gradient(features, rep)
        step = factor * steps[levels][..., None] * way.astype(np.float32)
        if most_step < np.inf:
            size = np.linalg.norm(step[..., plane], axis=-1, keepdims=True)
            step *= np.minimum(1.0, most_step / np.maximum(size, 1e-9))
        if watch is not None:
            watch(features, -step, levels)
        return (features - step).astype(np.float32)

    return move


def check_strength(strength: float | np.ndarray, scaling: str) -> None:
    """Refuse strengths that are negative, or that are no share where the scaling wants one.

    Raises:
        ConfigError: such a strength.
    """
    most = 1.0 if scaling in SHARES else np.inf
    for value in np.atleast_1d(strength):
        if not 0 <= value <= most or np.isinf(value):
            expected = (
                "0 to 1, the share of each cost's own step (a factor of the gradient, as in 0.1, "
                "needs scaling 'linear')"
                if most == 1.0
                else "0 or more"
            )
            raise ConfigError(f"strength is {value:g}, expected {expected}.")
