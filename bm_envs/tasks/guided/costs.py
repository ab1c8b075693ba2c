"""Costs on predicted states, which give a diffusion model its task, and the guide that lowers them.

A cost is a function of the states that a window says will be: features of a representation,
`[N, L, D]`, in metres and seconds in the now frame. It knows its value and its gradient, worked out
by hand, so that running a model needs no automatic differentiation. Guidance takes a step down the
gradient in those units, not in the network's: a feature that hardly varies in the data is moved as
far as one that varies much, when the cost asks for the same.

Source: arXiv 2508.08241v1, sec. IV-C; what it leaves open (scale of the step, how a turn is asked
for, positions that agree with the velocity) is ours and named where it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bm_envs.tasks.guided.representation import Representation
from bm_envs.tasks.guided.sampler import LENGTH, NOW, PAST, Guide, guidance_steps
from bm_envs.tasks.track.config import CONTROL_DT

AHEAD = (np.arange(LENGTH) - NOW) * CONTROL_DT  # s, of each step of a window
MOST_STEP = 0.3  # m/s that one call may change a predicted root velocity by


class Cost(Protocol):
    """What guidance lowers; only the steps after the present count."""

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """Cost of each window, `[N]`, of features `[N, L, D]`."""
        ...

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """Its derivative by the features, `[N, L, D]`; zero up to the present."""
        ...


@dataclass(frozen=True)
class Joystick:
    """Walk with a velocity and turn at a rate: eq. 7 of the paper, with a turn.

    The goal velocity turns with the heading that is asked for. With `consistent`, the root is also
    wanted where that velocity takes it and turned as far as the rate does, since velocities alone
    would contradict the positions predicted with them.
    """

    velocity: np.ndarray
    """`[N, 2]`, m/s, forward and left of the present heading."""
    yaw_rate: np.ndarray
    """`[N]`, rad/s, to the left."""
    consistent: float = 1.0
    """Weight of position and heading; 0: the paper's cost alone."""

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        total = np.zeros(len(features))
        for _, _, error, weight in self._errors(features, rep):
            total += 0.5 * weight * (error[:, PAST:] ** 2).sum((1, 2))
        return total

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        result = np.zeros_like(features)
        for start, size, error, weight in self._errors(features, rep):
            result[:, PAST:, start : start + size] = weight * error[:, PAST:]
        return result

    def _errors(
        self, features: np.ndarray, rep: Representation
    ) -> list[tuple[int, int, np.ndarray, float]]:
        """First feature, size, error `[N, L, size]` and weight of what is wanted."""
        velocity, position, heading = self.path()
        rate = np.broadcast_to(self.yaw_rate[:, None], heading.shape)
        wanted = [
            ("root_lin_vel", 0, velocity, 1.0),
            ("root_pos", 0, position, self.consistent),
            # A walking root leans little, so its heading is close to its rotation vector's z.
            ("root_rot", 2, heading[..., None], self.consistent),
            ("root_ang_vel", 2, rate[..., None], self.consistent),
        ]
        found = []
        for block, offset, target, weight in wanted:
            start, size = rep.blocks[block].start + offset, target.shape[-1]
            found.append((start, size, features[..., start : start + size] - target, weight))
        return found

    def path(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Velocity `[N, L, 2]`, position `[N, L, 2]` and heading `[N, L]` that are wanted."""
        heading = self.yaw_rate[:, None] * AHEAD
        x, y = self.velocity[:, :1], self.velocity[:, 1:]
        cos, sin = np.cos(heading), np.sin(heading)
        velocity = np.stack([cos * x - sin * y, sin * x + cos * y], -1)
        # The way along an arc of constant rate is its chord, sin(h/2) / (h/2) of its length.
        half = 0.5 * heading
        shrink = np.sinc(half / np.pi) * AHEAD
        cos, sin = np.cos(half), np.sin(half)
        position = np.stack([cos * x - sin * y, sin * x + cos * y], -1) * shrink[..., None]
        return velocity, position, heading


def guide(
    cost: Cost, rep: Representation, scale: Callable[[np.ndarray], np.ndarray],
    unscale: Callable[[np.ndarray], np.ndarray], strength: float | np.ndarray, *,
    scaling: str = "linear", last_level: int = 14, most_step: float = MOST_STEP,
) -> Guide:  # fmt: skip
    """A guide of the sampler that lowers `cost`.

    Args:
        cost: what to lower; may be changed between ticks by whoever owns it.
        rep: representation of the states.
        scale: features as the network has them, a model's function.
        unscale: its inverse.
        strength: factor of every step; a number, or one for each window, `[N]`.
        scaling: how steps depend on the level, see `guidance_steps`.
        last_level: noisiest level at which states are moved.
        most_step: bound of the change of a step's predicted root velocity in a call, m/s.
    """
    steps = guidance_steps(scaling, last_level)
    factor = np.asarray(strength, float).reshape(-1, 1, 1)
    velocity = rep.blocks["root_lin_vel"]
    plane = slice(velocity.start, velocity.start + 2)

    def move(states: np.ndarray, levels: np.ndarray) -> np.ndarray:
        features = unscale(states)
        step = factor * steps[levels][..., None] * cost.gradient(features, rep)
        size = np.linalg.norm(step[..., plane], axis=-1, keepdims=True)
        step *= np.minimum(1.0, most_step / np.maximum(size, 1e-9))
        # What the cost leaves alone stays as it is, to the last bit.
        moved = scale((features - step).astype(np.float32)).astype(np.float32)
        return np.where(step.any(-1, keepdims=True), moved, states)

    return move
