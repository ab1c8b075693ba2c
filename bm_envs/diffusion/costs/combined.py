"""Costs made of other costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bm_envs.diffusion.costs.base import (
    AHEAD,
    Cost,
    Moving,
    at_blocks,
    check_count,
    check_weights,
    line_step,
    own_step,
    set_numbers,
)
from bm_envs.diffusion.fields import numbers
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import NOW, PAST, Representation
from bm_envs.tasks.track.config import CONTROL_DT


@dataclass(frozen=True)
class Sum:
    """Costs that are to be low together: their weighted sum.

    Of each part's own step the sum takes the weight, 1 at most: where several ask for the same
    numbers, a weight is the share of a cost's wish. Weights above 1 are for gradients.
    """

    parts: Sequence[tuple[float | np.ndarray, Cost]]
    """Weight, a number or `[N]`, and cost."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("Sum: parts are none, expected one or more.")
        for k, (weight, _) in enumerate(self.parts):
            value = numbers(f"Sum: weight {k}", weight, ("N",) if np.ndim(weight) else ())
            if (value < 0).any():
                raise ConfigError(f"Sum: weight {k} is {value.min():g}, expected 0 or more.")

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        total = np.zeros(len(features))
        for weight, cost in self._weighted(features):
            total += weight * cost.value(features, rep)
        return total

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        result = np.zeros_like(features)
        for weight, cost in self._weighted(features):
            result += weight[:, None, None] * cost.gradient(features, rep)
        return result

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`."""
        result = np.zeros_like(features)
        for weight, cost in self._weighted(features):
            if weight.any():
                share = np.minimum(weight, 1.0)[:, None, None]
                result += share * own_step(cost, features, rep)
        return result

    def _weighted(self, features: np.ndarray) -> list[tuple[np.ndarray, Cost]]:
        weights = [np.atleast_1d(np.asarray(weight, features.dtype)) for weight, _ in self.parts]
        for weight in weights:
            check_count(self, weight, features)
        return list(zip(weights, (cost for _, cost in self.parts), strict=True))


@dataclass(frozen=True)
class Corrected:
    """Another cost, of what will really happen, where predictions are off by a constant velocity.

    Step j after the present is seen with `offset` less of velocity and turning rate, and so much
    less far and less turned. The correction is added to the features, so that the gradient is the
    other cost's there. Source: offset-free model predictive control (an output disturbance that is
    estimated and taken from the predictions); ours here.
    """

    cost: Cost
    offset: np.ndarray
    """`[N, 3]`, m/s forward and left and rad/s left of the now frame: what is predicted less what
    is executed."""

    def __post_init__(self) -> None:
        set_numbers(self, offset=("N", 3))

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self.cost.value(self._real(features, rep), rep)

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self.cost.gradient(self._real(features, rep), rep)

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`."""
        return own_step(self.cost, self._real(features, rep), rep)

    def _real(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        check_count(self, self.offset, features)
        plane, turn = self.offset[:, None, :2], self.offset[:, None, 2:]
        ahead = AHEAD[PAST:, None]
        return features - at_blocks(features, rep, {
            "root_lin_vel": (0, plane), "root_pos": (0, plane * ahead),
            # A walking root leans little, so its heading is close to its rotation vector's z.
            "root_rot": (2, turn * ahead), "root_ang_vel": (2, turn),
        })  # fmt: skip


@dataclass(frozen=True)
class ByVelocity:
    """Another cost, of where the root's velocities lead, lowered by those velocities alone. Ours.

    The root's way over the ground is the sum of its predicted velocities, `P_j = P_now + dt (V_1 +
    .. + V_j)`, in place of its predicted positions; the gradient is the derivative by the V, all
    else being held. For costs on places whose own gradient would move positions, turns and links of
    a window apart from the velocities, and take them out of what the data hold.
    """

    cost: Cost
    consistent: float = 0.0
    """Share of the positions that go with the velocity of the own step."""

    def __post_init__(self) -> None:
        check_weights(self, "consistent")

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self.cost.value(self._led(features, rep), rep)

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`; zero but for the root's horizontal velocity."""
        by_all = self.cost.gradient(self._led(features, rep), rep)
        pos, vel = rep.blocks["root_pos"].start, rep.blocks["root_lin_vel"].start
        by_pos, by_vel = (by_all[:, PAST:, start : start + 2] for start in (pos, vel))
        # A velocity moves all places after it.
        by_vel = by_vel + CONTROL_DT * by_pos[:, ::-1].cumsum(1)[:, ::-1]
        return at_blocks(features, rep, {"root_lin_vel": (0, by_vel)})

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`: the walk of one more constant velocity that gets nearest to the minimum.

        Of a cost that tells how far the root is to be moved in each step (`Moving`), by least
        squares, and of the positions to which that leads their share, 1 at most; of another along
        the gradient by the velocities.
        """
        if not isinstance(self.cost, Moving):
            return line_step(self, features, rep)
        way, ahead = self.cost.move(self._led(features, rep), rep), AHEAD[PAST:]
        velocity = np.einsum("t,ntk->nk", ahead, way) / (ahead**2).sum()
        by_vel = np.tile(-velocity[:, None], (1, len(ahead), 1))
        by_pos = min(self.consistent, 1.0) * by_vel * ahead[:, None]
        return at_blocks(features, rep, {"root_lin_vel": (0, by_vel), "root_pos": (0, by_pos)})

    @staticmethod
    def _led(features: np.ndarray, rep: Representation) -> np.ndarray:
        pos, vel = rep.blocks["root_pos"].start, rep.blocks["root_lin_vel"].start
        led = features.copy()
        way = CONTROL_DT * features[:, PAST:, vel : vel + 2].cumsum(1)
        led[:, PAST:, pos : pos + 2] = features[:, NOW : NOW + 1, pos : pos + 2] + way
        return led
