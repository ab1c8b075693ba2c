"""Costs of where the root is to go: with a velocity, to a place, to a direction."""

from __future__ import annotations

from dataclasses import InitVar, dataclass

import numpy as np

from bm_envs.diffusion.costs.base import (
    AHEAD,
    Evaluated,
    at_blocks,
    check_count,
    check_positive,
    check_weights,
    future,
    set_numbers,
)
from bm_envs.diffusion.costs.links import root_heading
from bm_envs.errors import ConfigError
from bm_envs.rotations import wrapped
from bm_envs.tasks.guided.states import PAST, Representation

SPEED = 0.65  # m/s at which a place is walked to
SIDEWAYS = 0.3  # m/s of it to the left or right
TURN_RATE = 0.5  # rad/s of a turn to a direction


@dataclass(frozen=True)
class Joystick:
    """Walk with a velocity and turn at a rate: eq. 7 of the paper, with a turn.

    The goal velocity turns with the commanded heading. The cost also asks for that heading, which
    grows at the commanded rate, and for the rate itself; with `consistent` it asks for the place
    that the velocity leads to, too.
    """

    velocity: np.ndarray
    """`[N, 2]`, m/s, forward and left of the present heading."""
    yaw_rate: np.ndarray
    """`[N]`, rad/s, to the left."""
    consistent: float = 0.0
    """Weight of the positions that go with the velocity; 0: the paper's cost."""
    turn: float = 1.0
    """Weight of heading and turning rate, which the paper's formula leaves open."""

    def __post_init__(self) -> None:
        set_numbers(self, velocity=("N", 2), yaw_rate=("N",))
        check_weights(self, "consistent", "turn")

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

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`: of each part of the cost its weight, 1 at most."""
        result = np.zeros_like(features)
        for start, size, error, weight in self._errors(features, rep):
            result[:, PAST:, start : start + size] = min(weight, 1.0) * error[:, PAST:]
        return result

    def _errors(
        self, features: np.ndarray, rep: Representation
    ) -> list[tuple[int, int, np.ndarray, float]]:
        """First feature, size, error `[N, L, size]` and weight of each part of the cost."""
        velocity, position, heading = self.path()
        rate = np.broadcast_to(self.yaw_rate[:, None], heading.shape)
        targets = [
            ("root_lin_vel", 0, velocity, 1.0),
            ("root_pos", 0, position, self.consistent),
            # A walking root leans little, so its heading is close to its rotation vector's z.
            ("root_rot", 2, heading[..., None], self.turn),
            ("root_ang_vel", 2, rate[..., None], self.turn),
        ]
        errors = []
        for block, offset, target, weight in targets:
            start, size = rep.blocks[block].start + offset, target.shape[-1]
            errors.append((start, size, features[..., start : start + size] - target, weight))
        return errors

    def path(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Target velocity `[N, L, 2]`, position `[N, L, 2]` and heading `[N, L]`."""
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


@dataclass(frozen=True)
class Waypoint(Evaluated):
    """Walk to a place and stop there: eq. 8 of the paper.

    `sum_j (1 - e^{-2d}) |P_j - g|^2 + e^{-2d} |V_j|^2`, with P and V the planar position and
    velocity of the root and d the distance from which the goal is seen now, a constant. The now
    frame begins at the robot's real root, so d = |g|. Far away the place pulls, near it the speed
    is braked.

    No robot is 3 m away in a third of a second. So the cost's own step asks each of the two terms
    for its minimum among walks of one constant velocity, of `speed` and `sideways` at most: the
    first for the walk to the goal, the second for rest. Ours; value and gradient are the paper's.
    """

    goal: np.ndarray
    """`[N, 2]`, m, now frame."""
    speed: float = SPEED
    """Bound of the velocity that the cost's own step asks for, m/s."""
    sideways: float = SIDEWAYS
    """Bound of its part to the left or right, m/s."""
    reach: InitVar[float | None] = None
    """Of 0.1: refused."""

    def __post_init__(self, reach: float | None) -> None:
        if reach is not None:
            raise ConfigError(
                f"Waypoint: reach is {reach}, but the pull is now the paper's at any distance; "
                "leave it out, and bound the walk by speed."
            )
        set_numbers(self, goal=("N", 2))
        check_positive(self, finite=True, speed="m/s", sideways="m/s")

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`."""
        check_count(self, self.goal, features)
        far = self.pull()[..., None]
        pos, vel = future(features, rep, "root_pos", "root_lin_vel")
        ahead = AHEAD[PAST:]
        # Least squares of v t_j - g over the steps, then the bounds.
        velocity = self.goal * ahead.sum() / (ahead**2).sum()
        size = np.linalg.norm(velocity, axis=1, keepdims=True)
        velocity = velocity * np.minimum(1.0, self.speed / np.maximum(size, 1e-9))
        velocity[:, 1] = velocity[:, 1].clip(-self.sideways, self.sideways)
        way = velocity[:, None] * ahead[:, None]
        parts = {
            "root_pos": (0, far * (pos[..., :2] - way)),
            "root_lin_vel": (0, vel[..., :2] - far * velocity[:, None]),
        }
        return at_blocks(features, rep, parts)

    def pull(self) -> np.ndarray:
        """Weight of the place, `1 - e^{-2d}`; the rest is the speed's. `[N, 1]`."""
        return 1 - np.exp(-2 * np.linalg.norm(self.goal, axis=1)[:, None])

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        check_count(self, self.goal, features)
        far = self.pull()[..., None]
        pos, vel = future(features, rep, "root_pos", "root_lin_vel")
        off, vel = pos[..., :2] - self.goal[:, None], vel[..., :2]
        total = (far * off**2 + (1 - far) * vel**2).sum((1, 2))
        parts = {"root_pos": (0, 2 * far * off), "root_lin_vel": (0, 2 * (1 - far) * vel)}
        return total, at_blocks(features, rep, parts)


@dataclass(frozen=True)
class Heading(Evaluated):
    """Face a direction, turning the shorter way.

    `1/2 sum_j (heading_j - h_j)^2 + consistent (w_j - h'_j)^2`, where h_j turns to the direction at
    `rate` and h' is that rate until it is there. Ours.
    """

    heading: np.ndarray
    """`[N]`, rad, now frame."""
    rate: float | np.ndarray = TURN_RATE
    """At which it is turned, rad/s, one number or `[N]`; infinite: at once."""
    consistent: float = 1.0
    """Weight of the turning rate; 0 where `rate` is infinite."""

    def __post_init__(self) -> None:
        set_numbers(self, heading=("N",))
        check_weights(self, "consistent")
        rates = np.asarray(self.rate, float)
        if rates.shape not in ((), (1,), self.heading.shape):
            raise ConfigError(
                f"Heading: rate is of shape {rates.shape}, expected one number or "
                f"{self.heading.shape}."
            )
        if not (rates >= 0).all():
            raise ConfigError(f"Heading: rate is {rates.min():g}, expected rad/s of 0 or more.")
        if self.consistent and np.isinf(rates).any():
            raise ConfigError("Heading: consistent needs a rate, expected rate in rad/s.")

    def path(self) -> tuple[np.ndarray, np.ndarray]:
        """Target heading and turning rate in the steps after the present, `[N, L']`."""
        angle = wrapped(self.heading)[:, None]
        rate = np.reshape(self.rate, (-1, 1))
        turned = rate * AHEAD[PAST:]
        size, sign = np.abs(angle), np.sign(angle)
        return sign * np.minimum(turned, size), sign * np.where(turned < size, rate, 0.0)

    def full_step(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Stepping`; the heading by its rotation vector's z, as a walking root leans little.

        Of the turning rate the weight, 1 at most.
        """
        off, slip, _ = self._errors(features, rep)
        parts = {
            "root_rot": (2, off[..., None]),
            "root_ang_vel": (2, min(self.consistent, 1.0) * slip[..., None]),
        }
        return at_blocks(features, rep, parts)

    def _errors(
        self, features: np.ndarray, rep: Representation
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of heading and turning rate `[N, L']`, and the heading by the rotation `[N, L', 3]`."""
        check_count(self, self.heading, features)
        target, rate = self.path()
        rot, turn = future(features, rep, "root_rot", "root_ang_vel")
        heading, by_rot = root_heading(rot)
        return wrapped(heading - target), turn[..., 2] - rate, by_rot

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        off, slip, by_rot = self._errors(features, rep)
        parts = {
            "root_rot": (0, off[..., None] * by_rot),
            "root_ang_vel": (2, self.consistent * slip[..., None]),
        }
        total = (off**2 + self.consistent * slip**2).sum(1)
        return 0.5 * total, at_blocks(features, rep, parts)
