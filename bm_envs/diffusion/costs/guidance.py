"""The guide that lowers a cost in the sampler's calls."""

from __future__ import annotations

import numpy as np

from bm_envs.diffusion.costs.base import Cost
from bm_envs.diffusion.sampler import Guide, guidance_steps
from bm_envs.tasks.guided.states import Representation

MOST_STEP = 0.3  # m/s that one call may change a predicted root velocity by


def guide(
    cost: Cost, rep: Representation, strength: float | np.ndarray, *,
    scaling: str = "linear", last_level: int = 14, most_step: float = MOST_STEP,
) -> Guide:  # fmt: skip
    """A guide that lowers `cost`, of states as features: see `Controller`.

    Args:
        cost: what to lower; may be changed between ticks by whoever owns it.
        rep: representation of the states.
        strength: factor of every step; a number, or one for each window, `[N]`.
        scaling: how steps depend on the level, see `guidance_steps`.
        last_level: noisiest level at which states are moved.
        most_step: bound of the change of a step's predicted root velocity in a call, m/s.
    """
    steps = guidance_steps(scaling, last_level).astype(np.float32)
    factor = np.asarray(strength, np.float32).reshape(-1, 1, 1)
    velocity = rep.blocks["root_lin_vel"]
    plane = slice(velocity.start, velocity.start + 2)

    def move(features: np.ndarray, levels: np.ndarray) -> np.ndarray:
        step = factor * steps[levels][..., None] * cost.gradient(features, rep)
        size = np.linalg.norm(step[..., plane], axis=-1, keepdims=True)
        step *= np.minimum(1.0, most_step / np.maximum(size, 1e-9))
        return (features - step).astype(np.float32)

    return move
