"""The cost of what stands around: eqs. 9 and 10 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bm_envs.diffusion.costs.base import Evaluated, check_positive
from bm_envs.diffusion.costs.frames import directions_to_now, points_to_world
from bm_envs.diffusion.costs.links import BodyPoints, body_indices, body_points
from bm_envs.diffusion.fields import Field, numbers
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.obstacles import LINK_RADII
from bm_envs.tasks.guided.states import PAST, Frame, Representation

DELTA, CUTOFF = 0.1, 0.6  # m, of the barrier: where it becomes a parabola and where it ends
# m, of the sphere about each link's origin that the cost keeps free: as the world begins with, and
# a copy, because what a controller keeps free is no rule of the world.
RADII = dict(LINK_RADII)


def barrier(x: np.ndarray | float, delta: float = DELTA) -> np.ndarray:
    """Relaxed log barrier of a distance x, eq. 10: finite where something is touched or entered.

    `-ln x` from delta on; `-ln delta + (((x - 2 delta) / delta)^2 - 1) / 2` below, a parabola that
    goes on with the same value and slope.
    """
    x = np.asarray(x, float)
    inside = -np.log(delta) + 0.5 * (((x - 2 * delta) / delta) ** 2 - 1)
    return np.where(x < delta, inside, -np.log(np.maximum(x, delta)))


def barrier_slope(x: np.ndarray | float, delta: float = DELTA) -> np.ndarray:
    """The derivative of `barrier`: `-1 / x` from delta on, `(x - 2 delta) / delta^2` below."""
    x = np.asarray(x, float)
    return np.where(x < delta, (x - 2 * delta) / delta**2, -1 / np.maximum(x, delta))


@dataclass(frozen=True)
class Obstacle(Evaluated):
    """Keep links away from what stands around: eqs. 9 and 10 of the paper.

    `sum_j sum_b B(SDF(P_bj) - r_b, delta)`, with P_b the origin of link b and B the `barrier`. Only
    what is nearer than `cutoff` counts, and of that only the nearest obstacle of each link: -ln x
    never ends, so that everything in the world would push. B's value at `cutoff` is subtracted, so
    that the cost begins there without a jump; its gradient is the same with and without.

    The paper names neither links nor radii. The origins of pelvis and torso_link lie 4 cm apart in
    the trunk: their spheres are the trunk's. Legs and arms reach further.
    """

    field: Field
    """What stands around, of `fields.py`."""
    frame: Frame | None = None
    """The now frame in the field's axes, for fields that stand in the world; None: the field is
    itself in the now frame."""
    bodies: tuple[str, ...] = ("pelvis", "torso_link")
    """Links that are to stay away."""
    radii: tuple[float, ...] | None = None
    """Radius of the sphere about each link's origin, m; None: those of `RADII`."""
    delta: float = DELTA
    """Distance below which the barrier is a parabola, m."""
    cutoff: float = CUTOFF
    """Distance from which on an obstacle does not count, m."""

    def __post_init__(self) -> None:
        body_indices(self.bodies)
        if self.radii is not None:
            radii = numbers("Obstacle: radii", self.radii, (len(self.bodies),))
            if (radii < 0).any():
                raise ConfigError(f"Obstacle: radii hold {radii.min():g}, expected 0 or more m.")
        check_positive(self, finite=True, delta="m", cutoff="m")

    def distance(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """From each link's sphere to the nearest obstacle, in steps after the present, m.

        `[N, L', P]`, negative where they overlap.
        """
        return self._distances(features, rep)[0]

    def move(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Moving`: away from what is near, to where it does not count; mean of the links."""
        distance, away, _ = self._distances(features, rep)
        return (np.maximum(self.cutoff - distance, 0.0)[..., None] * away[..., :2]).mean(2)

    def _distances(
        self, features: np.ndarray, rep: Representation
    ) -> tuple[np.ndarray, np.ndarray, BodyPoints]:
        points = body_points(features[:, PAST:].astype(float), rep, self.bodies)
        pos = points.pos if self.frame is None else points_to_world(points.pos, self.frame)
        distance, away = self.field.at(pos)
        if self.frame is not None:
            away = directions_to_now(away, self.frame)
        radii = self.radii
        if radii is None:
            radii = [RADII[_stem(body)] for body in self.bodies]
        return distance - np.asarray(radii), away, points

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        distance, away, points = self._distances(features, rep)
        near = distance < self.cutoff
        distance = np.where(near, distance, self.cutoff)
        total = barrier(distance, self.delta) - barrier(self.cutoff, self.delta)
        slope = np.where(near, barrier_slope(distance, self.delta), 0.0)
        gradient = np.zeros_like(features)
        gradient[:, PAST:] = points.pull_back(slope[..., None] * away)
        return total.sum((1, 2)), gradient


def _stem(body: str) -> str:
    """`left_hip_roll_link` is a hip."""
    return body.removeprefix("left_").removeprefix("right_").partition("_")[0]
