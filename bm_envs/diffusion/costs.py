"""Costs on predicted states, which give a diffusion model its task, and the guide that lowers them.

A cost is a function of the states that a window says will be: features of a representation,
`[N, L, D]`, in metres and seconds in the now frame. It knows its value and its gradient, worked out
by hand, so that running a model needs no automatic differentiation. Guidance takes a step down the
gradient in those units, not in the network's: a feature that hardly varies in the data is moved as
far as one that varies much, when the cost asks for the same.

| cost | asks for | source |
|---|---|---|
| `Joystick` | a velocity and a rate of turning | eq. 7, with a turn |
| `Waypoint` | a place | eq. 8 |
| `Obstacle` | a distance from what stands around, a field of `fields.py` | eqs. 9 and 10 |
| `Hold`, `Heading` | standing still; facing a direction | ours |
| `Sum` | several at once | densities exp(-cost) multiply, so costs add |
| `Corrected` | what another asks for, predictions being off | offset-free predictive control |
| `ByVelocity` | what another asks for, of where velocities lead | ours |
| `UserCost` | what a function of one's own says | |

Goals are in the now frame, which moves with the robot: what stands still in the world is expressed
in it anew every tick, by `points_to_now` and its likes, and so is a cost, which is cheap to make.
Arrays of goals are `[N, ...]`; N = 1 means the same for all robots.

Source: arXiv 2508.08241v1, sec. IV-C; what it leaves open (scale of the step, how a turn is asked
for, positions that agree with the velocity, radii and range of obstacles) is ours and named where
it stands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from bm_envs.diffusion.fields import Field, numbers
from bm_envs.diffusion.sampler import LENGTH, Guide, guidance_steps
from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1
from bm_envs.rotations import cross, dot, quat_from_axis_angle, quat_mul, quat_rotate
from bm_envs.tasks.guided.obstacles import LINK_RADII
from bm_envs.tasks.guided.states import NOW, PAST, Frame, Representation
from bm_envs.tasks.track.config import CONTROL_DT

AHEAD = (np.arange(LENGTH) - NOW) * CONTROL_DT  # s, of each step of a window
MOST_STEP = 0.3  # m/s that one call may change a predicted root velocity by
REACH = 1.0  # m; a place further away pulls no harder than one at this distance
SPEED, TURN_RATE = 0.6, 0.5  # m/s and rad/s of a walk to somewhere and of a turn
ARRIVAL = 0.3  # m, within which a point of a route is reached
DELTA, CUTOFF = 0.1, 0.6  # m, of the barrier: where it becomes a parabola and where it ends
# m, of the sphere about each link's origin that the cost keeps free: as the world begins with, and
# a copy, because what a controller keeps free is no rule of the world.
RADII = dict(LINK_RADII)

# --- goals that stand still in the world ----------------------------------------------------------


def points_to_now(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Points of the world in the now frame.

    Args:
        points: `[N, ..., 2 or 3]`, world, m. Heights stay as they are.
        frame: the now frame of N robots in the world, as `Controller.frame`.
    """
    points = _of_frame("points", points, frame)
    return directions_to_now(points - _origins(points, frame), frame)


def directions_to_now(directions: np.ndarray, frame: Frame) -> np.ndarray:
    """Directions or velocities of the world in the now frame's axes. Shapes as `points_to_now`."""
    directions = _of_frame("directions", directions, frame)
    return _in_axes(directions, frame.of)


def headings_to_now(headings: np.ndarray, frame: Frame) -> np.ndarray:
    """Headings `[N]` in the world as headings from the now frame's x axis, rad in (-pi, pi]."""
    headings = numbers("headings", headings, (len(frame.yaw),))
    return _wrapped(headings - frame.yaw)


def points_to_world(points: np.ndarray, frame: Frame) -> np.ndarray:
    """The inverse of `points_to_now`."""
    points = _of_frame("points", points, frame)
    return _in_axes(points, frame.to_world) + _origins(points, frame)


def _of_frame(what: str, vectors: np.ndarray, frame: Frame) -> np.ndarray:
    vectors = np.asarray(vectors)
    count = len(frame.yaw)
    if vectors.ndim < 2 or vectors.shape[-1] not in (2, 3) or len(vectors) != count:
        raise ConfigError(
            f"{what} have shape {vectors.shape}, expected [{count}, ..., 2 or 3], as the frame is "
            f"of {count} robots."
        )
    return vectors


def _origins(points: np.ndarray, frame: Frame) -> np.ndarray:
    """The frame's origins, ready to be added to `points`."""
    size = points.shape[-1]
    return np.asarray(frame.origin)[:, :size].reshape(-1, *[1] * (points.ndim - 2), size)


def _in_axes(vectors: np.ndarray, turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`turn`, a frame's function of `[N, n, 3]`, of `vectors [N, ..., 2 or 3]`."""
    rows = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    turned = turn(np.pad(rows, ((0, 0), (0, 0), (0, 3 - rows.shape[-1]))))
    return turned[..., : rows.shape[-1]].reshape(vectors.shape)


# --- costs ----------------------------------------------------------------------------------------


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

    The goal velocity turns with the heading that is asked for, and the root is wanted turned as far
    as the rate takes it, at that rate. With `consistent` it is also wanted where the velocity takes
    it.
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
        _set_numbers(self, velocity=("N", 2), yaw_rate=("N",))
        _check_weights(self, "consistent", "turn")

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
            ("root_rot", 2, heading[..., None], self.turn),
            ("root_ang_vel", 2, rate[..., None], self.turn),
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


class _Evaluated:
    """A cost that finds its value and its gradient together."""

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self._evaluate(features, rep)[0]

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self._evaluate(features, rep)[1]

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


@dataclass(frozen=True)
class Waypoint(_Evaluated):
    """Walk to a place and stop there: eq. 8 of the paper.

    `sum_j (1 - e^{-2d}) |P_j - g|^2 + e^{-2d} |V_j|^2`, with P and V the planar position and
    velocity of the root and d the distance from which the goal is seen now, a constant. The now
    frame begins at the robot's real root, so d = |g|. Far away the place pulls, near it the speed
    is braked. Beyond `reach` the square goes on as its tangent, so that a far goal pulls no harder.

    With a `speed`, step j is not wanted at the goal but where that speed takes it on the straight
    way there, which a predicted step can reach; and with `consistent` also at that velocity.
    """

    goal: np.ndarray
    """`[N, 2]`, m, now frame."""
    reach: float = REACH
    """Distance beyond which the pull grows no more, m; infinite: the paper's."""
    speed: float = np.inf
    """Of the way to the goal, m/s; infinite: the paper's."""
    consistent: float = 0.0
    """Weight of the velocity on the way, beside the pull; 0: the paper's cost alone."""
    pull: float = 1.0
    """Weight of the positions."""

    def __post_init__(self) -> None:
        _set_numbers(self, goal=("N", 2))
        _check_weights(self, "consistent", "pull")
        _check_positive(self, reach="m", speed="m/s")
        if self.consistent and np.isinf(self.speed):
            raise ConfigError("Waypoint: consistent needs a speed, expected speed in m/s.")

    def path(self) -> tuple[np.ndarray, np.ndarray]:
        """Position and velocity that are wanted in the steps after the present, `[N, L', 2]`."""
        distance = np.linalg.norm(self.goal, axis=1)
        way = self.speed * AHEAD[PAST:]
        direction = (self.goal / np.maximum(distance, 1e-9)[:, None])[:, None]
        position = direction * np.minimum(way, distance[:, None])[..., None]
        walks = way < distance[:, None]
        return position, direction * np.where(walks, self.speed, 0.0)[..., None]

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        _check_count(self, self.goal, features)
        distance = np.linalg.norm(self.goal, axis=1)[:, None]
        near = np.exp(-2 * distance)
        far = 1 - near
        position, velocity = self.path()
        pos, vel = _future(features, rep, "root_pos", "root_lin_vel")
        slow, off = vel[..., :2], vel[..., :2] - velocity
        pull, by_pos = _pull(pos[..., :2] - position, self.reach)
        push, drawn = self.consistent * far, self.pull * far
        total = drawn * pull + push * (off**2).sum(-1) + near * (slow**2).sum(-1)
        by_vel = 2 * (push[..., None] * off + near[..., None] * slow)
        parts = {"root_pos": (0, drawn[..., None] * by_pos), "root_lin_vel": (0, by_vel)}
        return total.sum(1), _at_blocks(features, rep, parts)


@dataclass(frozen=True)
class Hold(_Evaluated):
    """Stand still at a place, facing a direction.

    `1/2 sum_j |V_j|^2 + w_j^2 + stay (|P_j - place|^2 + (heading_j - heading)^2)`, w the turning
    rate of the root. Ours.
    """

    place: np.ndarray
    """`[N, 2]`, m, now frame."""
    heading: np.ndarray
    """`[N]`, rad, now frame."""
    stay: float = 1.0
    """Weight of place and heading; 0: stop wherever that is."""
    reach: float = REACH
    """Distance beyond which the pull grows no more, m."""

    def __post_init__(self) -> None:
        _set_numbers(self, place=("N", 2), heading=("N",))
        _check_weights(self, "stay")
        _check_positive(self, reach="m")

    @classmethod
    def here(cls, count: int) -> Hold:
        """Where and as each of N robots stands now; made anew every tick, this one drifts."""
        return cls(np.zeros((count, 2)), np.zeros(count))

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        _check_count(self, self.place, features)
        pos, rot, vel, turn = _future(
            features, rep, "root_pos", "root_rot", "root_lin_vel", "root_ang_vel"
        )
        heading, by_rot = root_heading(rot)
        off = _wrapped(heading - self.heading[:, None])
        pull, by_pos = _pull(pos[..., :2] - self.place[:, None], self.reach)
        total = (vel[..., :2] ** 2).sum(-1) + turn[..., 2] ** 2 + self.stay * (pull + off**2)
        parts = {
            "root_pos": (0, 0.5 * self.stay * by_pos),
            "root_rot": (0, self.stay * off[..., None] * by_rot),
            "root_lin_vel": (0, vel[..., :2]),
            "root_ang_vel": (2, turn[..., 2:]),
        }
        return 0.5 * total.sum(1), _at_blocks(features, rep, parts)


@dataclass(frozen=True)
class Heading(_Evaluated):
    """Face a direction, turning the shorter way.

    `1/2 sum_j (heading_j - h_j)^2 + consistent (w_j - h'_j)^2`, where h_j turns to the direction at
    `rate` and h' is that rate until it is there. Ours.
    """

    heading: np.ndarray
    """`[N]`, rad, now frame."""
    rate: float = TURN_RATE
    """At which it is turned, rad/s; infinite: at once."""
    consistent: float = 1.0
    """Weight of the turning rate; 0 where `rate` is infinite."""

    def __post_init__(self) -> None:
        _set_numbers(self, heading=("N",))
        _check_weights(self, "consistent")
        _check_positive(self, rate="rad/s")
        if self.consistent and np.isinf(self.rate):
            raise ConfigError("Heading: consistent needs a rate, expected rate in rad/s.")

    def path(self) -> tuple[np.ndarray, np.ndarray]:
        """Heading and turning rate that are wanted in the steps after the present, `[N, L']`."""
        angle = _wrapped(self.heading)[:, None]
        turned = self.rate * AHEAD[PAST:]
        size, sign = np.abs(angle), np.sign(angle)
        return sign * np.minimum(turned, size), sign * np.where(turned < size, self.rate, 0.0)

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        _check_count(self, self.heading, features)
        wanted, rate = self.path()
        rot, turn = _future(features, rep, "root_rot", "root_ang_vel")
        heading, by_rot = root_heading(rot)
        off, slip = _wrapped(heading - wanted), turn[..., 2] - rate
        parts = {
            "root_rot": (0, off[..., None] * by_rot),
            "root_ang_vel": (2, self.consistent * slip[..., None]),
        }
        total = (off**2 + self.consistent * slip**2).sum(1)
        return 0.5 * total, _at_blocks(features, rep, parts)


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
class Obstacle(_Evaluated):
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
    """Of the sphere about each one's origin, m; None: those of `RADII`."""
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
        _check_positive(self, finite=True, delta="m", cutoff="m")

    def distance(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """From each link's sphere to the nearest obstacle, in steps after the present, m.

        `[N, L', P]`, negative where they overlap.
        """
        return self._found(features, rep)[0]

    def _found(
        self, features: np.ndarray, rep: Representation
    ) -> tuple[np.ndarray, np.ndarray, BodyPoints]:
        points = body_points(features[:, PAST:].astype(float), rep, self.bodies)
        pos = points.pos if self.frame is None else points_to_world(points.pos, self.frame)
        found = self.field.at(pos)
        away = found.gradient
        if self.frame is not None:
            away = directions_to_now(away, self.frame)
        radii = self.radii
        if radii is None:
            radii = [RADII[_stem(body)] for body in self.bodies]
        return found.value - np.asarray(radii), away, points

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        distance, away, points = self._found(features, rep)
        near = distance < self.cutoff
        distance = np.where(near, distance, self.cutoff)
        total = barrier(distance, self.delta) - barrier(self.cutoff, self.delta)
        slope = np.where(near, barrier_slope(distance, self.delta), 0.0)
        gradient = np.zeros_like(features)
        gradient[:, PAST:] = points.pull_back(slope[..., None] * away)
        return total.sum((1, 2)), gradient


@dataclass(frozen=True)
class Sum:
    """Costs that are to be low together: their weighted sum."""

    parts: Sequence[tuple[float | np.ndarray, Cost]]
    """Weight, a number or `[N]`, and cost."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("Sum: parts are none, expected one or more.")
        for k, (weight, _) in enumerate(self.parts):
            value = numbers(f"Sum: weight {k}", weight, ("N",) if np.ndim(weight) else ())
            if (value < 0).any():
                raise ConfigError(f"Sum: weight {k} is {value.min():g}, expected 0 or more.")

    @classmethod
    def normalized(
        cls, parts: Sequence[tuple[float | np.ndarray, Cost]], features: np.ndarray,
        rep: Representation,
    ) -> Sum:  # fmt: skip
        """With weights that compare: at the reference `features [N, L, D]` all push as hard.

        See `unit_weight`, whose factors go on where the costs are made anew every tick.
        """
        return cls([(unit_weight(cost, features, rep) * np.asarray(weight), cost)
                    for weight, cost in parts])  # fmt: skip

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

    def _weighted(self, features: np.ndarray) -> list[tuple[np.ndarray, Cost]]:
        weights = [np.atleast_1d(np.asarray(weight, features.dtype)) for weight, _ in self.parts]
        for weight in weights:
            _check_count(self, weight, features)
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
        _set_numbers(self, offset=("N", 3))

    def value(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self.cost.value(self._real(features, rep), rep)

    def gradient(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        """See `Cost`."""
        return self.cost.gradient(self._real(features, rep), rep)

    def _real(self, features: np.ndarray, rep: Representation) -> np.ndarray:
        _check_count(self, self.offset, features)
        plane, turn = self.offset[:, None, :2], self.offset[:, None, 2:]
        ahead = AHEAD[PAST:, None]
        return features - _at_blocks(features, rep, {
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
        return _at_blocks(features, rep, {"root_lin_vel": (0, by_vel)})

    @staticmethod
    def _led(features: np.ndarray, rep: Representation) -> np.ndarray:
        pos, vel = rep.blocks["root_pos"].start, rep.blocks["root_lin_vel"].start
        led = features.copy()
        way = CONTROL_DT * features[:, PAST:, vel : vel + 2].cumsum(1)
        led[:, PAST:, pos : pos + 2] = features[:, NOW : NOW + 1, pos : pos + 2] + way
        return led


def unit_weight(cost: Cost, features: np.ndarray, rep: Representation) -> float:
    """The factor that brings a cost's gradient to length 1 at reference windows `[N, L, D]`.

    Its length is that of all numbers of a window together, whatever their units, root mean square
    over the windows. It makes costs comparable that have different units and sizes. Ours.

    Raises:
        ConfigError: the cost has no gradient there.
    """
    size = np.sqrt((cost.gradient(features, rep).astype(float) ** 2).sum((1, 2)).mean())
    if not 0 < size < np.inf:
        raise ConfigError(
            f"{type(cost).__name__} has a gradient of length {size:g} at the reference features, "
            "expected features on which it acts."
        )
    return float(1 / size)


@dataclass(frozen=True)
class UserCost(_Evaluated):
    """A cost as a function of one's own.

    The function is given the blocks of the window by name, as `states.py` lists them:
    `[N, L, size]` each, all L steps in the now frame, of which step `NOW` is the present and later
    ones are `AHEAD` seconds away. It returns

    - in NumPy: the value `[N]` and a dict of its derivatives by the blocks it depends on, in their
      shapes. That it is right is the author's affair: compare with small differences.
    - with `torch`: the value `[N]` alone, by torch operations on tensors; autograd does the rest.

    What is known, the steps up to the present, may be read, but its derivative does not count.

    >>> from bm_envs.tasks.guided.representation import representation
    >>> def crouch(blocks):  # walk with the pelvis 0.6 m above the ground
    ...     return 0.5 * ((blocks["root_pos"][:, PAST:, 2] - 0.6) ** 2).sum(1)
    >>> cost = UserCost(crouch, torch=True)
    >>> rep = representation("joint_rot")
    >>> cost.value(np.zeros((1, LENGTH, rep.size)), rep).round(2)
    array([2.88])
    """

    function: Callable[[dict[str, Any]], Any]
    torch: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"UserCost: function is {self.function!r}, expected a function.")
        if self.torch:
            self._torch()

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        blocks = {name: features[..., part].copy() for name, part in rep.blocks.items()}
        value, slopes = self._by_torch(blocks) if self.torch else self._by_hand(blocks)
        gradient = np.zeros_like(features)
        for name, slope in slopes.items():
            if name not in blocks:
                raise ConfigError(
                    unknown_name(f"block of the gradient of {self._name}", name, blocks)
                )
            slope = self._checked(f"gradient of block '{name}'", slope, blocks[name].shape)
            gradient[:, PAST:, rep.blocks[name]] = slope[:, PAST:]
        return self._checked("value", value, (len(features),)), gradient

    def _by_hand(self, blocks: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        found = self.function(dict(blocks))
        match found:
            case (value, dict() as slopes):
                return value, slopes
        raise ConfigError(
            f"{self._name} returns {type(found).__name__}, expected the value and a dict of "
            "gradients by block (or torch=True)."
        )

    def _by_torch(self, blocks: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        torch = self._torch()
        with torch.enable_grad():
            tensors = {name: torch.from_numpy(block) for name, block in blocks.items()}
            for tensor in tensors.values():
                tensor.requires_grad_()
            value = self.function(dict(tensors))
            if not isinstance(value, torch.Tensor) or not value.requires_grad:
                raise ConfigError(
                    f"{self._name} returns {type(value).__name__}, expected a tensor that depends "
                    "on the blocks by torch operations."
                )
            slopes = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True)
        used = zip(tensors, slopes, strict=True)
        return value.detach().numpy(), {k: slope.numpy() for k, slope in used if slope is not None}

    def _checked(self, what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        return numbers(f"{what} of {self._name}", value, shape)

    @property
    def _name(self) -> str:
        return f"UserCost '{getattr(self.function, '__name__', self.function)}'"

    @staticmethod
    def _torch() -> Any:
        try:
            import torch
        except ImportError:
            raise ConfigError(
                "UserCost: torch=True needs the package torch: pip install 'bm-envs[train]'."
            ) from None
        return torch


# --- several places -------------------------------------------------------------------------------


class Route:
    """Points to walk to one after another, for N robots; remembers which is next for each.

    Attributes:
        index: of the point that each walks to, `[N]`.
        done: who has reached its last one, where it stays. `[N]`.
    """

    def __init__(
        self, points: np.ndarray, *, arrival: float = ARRIVAL, speed: float = SPEED,
        consistent: float = 1.0, loop: bool = False,
    ) -> None:  # fmt: skip
        """A route from its first point on.

        Args:
            points: `[N, M, 2]`, world, m; NaN after the last one where a route has fewer than M.
            arrival: distance at which a point is reached and the next one begins, m.
            speed: of the way, m/s; see `Waypoint`.
            consistent: see `Waypoint`.
            loop: begin again after the last point; `done` stays false.
        """
        self._points = numbers("Route: points", points, ("N", "M", 2), absent=True)
        given = ~np.isnan(self._points).any(2)
        self._count = given.sum(1)
        leading = np.arange(self._points.shape[1]) < self._count[:, None]
        if not self._count.all():
            robot = self._count.argmin()
            raise ConfigError(f"Route: points hold none for robot {robot}, expected one or more.")
        if (given != leading).any():
            raise ConfigError("Route: points hold NaN before a point, expected it after the last.")
        if not 0 < arrival < np.inf:
            raise ConfigError(f"Route: arrival is {arrival}, expected a positive distance in m.")
        self._arrival, self._loop = arrival, loop
        self._options = {"speed": speed, "consistent": consistent}
        Waypoint(np.zeros((1, 2)), **self._options)  # says what is wrong with them
        self.index = np.zeros(len(self._points), np.intp)
        self.done = np.zeros(len(self._points), bool)

    def reset(self, robots: np.ndarray | slice = slice(None)) -> None:
        """Begin again, for robots of these indices."""
        self.index[robots], self.done[robots] = 0, False

    def goal(self) -> np.ndarray:
        """The point that each robot walks to, `[N, 2]`, world, m."""
        return self._points[np.arange(len(self._points)), self.index]

    def __call__(self, frame: Frame) -> Waypoint:
        """The cost of this tick, for robots whose now frame is `frame`; goes on where one arrived.

        A frame begins under its robot's root, which is where the robot is.
        """
        place = _of_frame("Route: robots", np.asarray(frame.origin), frame)[:, :2]
        if len(place) != len(self._points):
            raise ConfigError(
                f"Route: the frame is of {len(place)} robots, expected {len(self._points)}."
            )
        here = np.linalg.norm(self.goal() - place, axis=1) < self._arrival
        last = self.index == self._count - 1
        if not self._loop:
            self.done |= here & last
            here &= ~last
        self.index[here] = (self.index[here] + 1) % self._count[here]
        return Waypoint(points_to_now(self.goal(), frame), **self._options)


# --- guidance -------------------------------------------------------------------------------------


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


# --- where links are ------------------------------------------------------------------------------


class BodyPoints(NamedTuple):
    """Origins of links in predicted states, and the way back from there to the features."""

    pos: np.ndarray
    """`[N, T, P, 3]`, m, now frame."""
    pull_back: Callable[[np.ndarray], np.ndarray]
    """From a cost's derivative by `pos`, `[N, T, P, 3]`, to that by the features, `[N, T, D]`."""


def body_points(features: np.ndarray, rep: Representation, bodies: Sequence[str]) -> BodyPoints:
    """Where links are, in the now frame, of features `[N, T, D]` of either representation.

    `body_pos` has links in each step's own yaw frame: `P = Rz(heading) p + (x, y, 0)` of the root,
    so that a push on a link moves and turns the root as well. `joint_rot` has joint angles: P by
    forward kinematics from the pelvis down to the links that are asked for.

    Raises:
        ConfigError: a name is no link's or occurs twice, or the representation is another.
    """
    indices = body_indices(tuple(bodies))
    if "body_pos" in rep.blocks:
        return _stored_points(features, rep, indices)
    if "joint_pos" in rep.blocks:
        return _jointed_points(features, rep, indices)
    raise ConfigError(
        f"Representation '{rep.name}' tells no links, expected a block body_pos or joint_pos."
    )


@functools.cache
def body_indices(bodies: tuple[str, ...]) -> tuple[int, ...]:
    """Places of links in `g1.BODY_NAMES`.

    Raises:
        ConfigError: none, an unknown or a repeated name.
    """
    for body in bodies:
        if body not in g1.BODY_NAMES:
            raise ConfigError(unknown_name("body", body, g1.BODY_NAMES))
    if not bodies or len(set(bodies)) != len(bodies):
        raise ConfigError(f"bodies are {', '.join(bodies) or 'none'}, expected each once.")
    return tuple(g1.BODY_NAMES.index(body) for body in bodies)


def root_heading(rotvec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heading of the x axis that a rotation vector `[..., 3]` turns, and its derivative by it.

    With e = R(r) x_axis, the heading is `atan2(e_y, e_x)` and changes under a rotation w, in fixed
    axes, by `w_z - e_z (e_x w_x + e_y w_y) / (e_x^2 + e_y^2)`. `[...]` rad, `[..., 3]`.
    """
    x_axis = quat_rotate(quat_from_axis_angle(rotvec), np.array([1.0, 0.0, 0.0]))
    x, y, z = np.moveaxis(x_axis, -1, 0)
    # A robot within 2 degrees of lying on its face or back heads nowhere; there this is bounded.
    ratio = -z / np.maximum(x**2 + y**2, 1e-3)
    by_rotation = np.stack([ratio * x, ratio * y, np.ones_like(x)], -1)
    return np.arctan2(y, x), _by_rotvec(rotvec, by_rotation)


def _by_rotvec(rotvec: np.ndarray, by_rotation: np.ndarray) -> np.ndarray:
    """From a derivative by a further rotation in fixed axes to that by the rotation vector.

    `J^T g` with J the left Jacobian of SO(3), `I + a [r]x + b [r]x^2`, `a = (1 - cos t) / t^2`,
    `b = (t - sin t) / t^3`, t = |r|.
    """
    angle = np.linalg.norm(rotvec, axis=-1, keepdims=True)
    a = 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    # The difference of near numbers, divided by a small one: by its series where it is small.
    small = angle < 1e-2
    safe = np.where(small, 1.0, angle)
    series = 1 / 6 - angle**2 / 120 + angle**4 / 5040
    b = np.where(small, series, (safe - np.sin(safe)) / safe**3)
    once = cross(rotvec, by_rotation)
    return by_rotation - a * once + b * cross(rotvec, once)


def _stored_points(
    features: np.ndarray, rep: Representation, indices: tuple[int, ...]
) -> BodyPoints:
    blocks = rep.blocks
    columns = blocks["body_pos"].start + 3 * np.array(indices)[:, None] + np.arange(3)
    heading, by_rotvec = root_heading(features[..., blocks["root_rot"]])
    frame = Frame(features[..., blocks["root_pos"]] * (1.0, 1.0, 0.0), heading)
    turned = frame.to_world(features[..., columns])

    def pull_back(by_pos: np.ndarray) -> np.ndarray:
        result = np.zeros_like(features)
        result[..., columns] = frame.of(by_pos)
        result[..., blocks["root_pos"]] = by_pos.sum(-2) * (1.0, 1.0, 0.0)
        by_heading = turned[..., 0] * by_pos[..., 1] - turned[..., 1] * by_pos[..., 0]
        result[..., blocks["root_rot"]] = by_heading.sum(-1)[..., None] * by_rotvec
        return result

    return BodyPoints(turned + frame.origin[..., None, :], pull_back)


_PARENTS = tuple(-1 if b.parent == "world" else g1.BODY_NAMES.index(b.parent) for b in g1.BODIES)
_JOINT_OF_BODY = {g1.BODY_NAMES.index(joint.body): j for j, joint in enumerate(g1.JOINTS)}
_AXES = np.array([joint.axis for joint in g1.JOINTS], float)
_OFFSETS = np.array([body.pos for body in g1.BODIES], float)
_FIXED = np.array([body.quat for body in g1.BODIES], float)
_FIXED /= np.linalg.norm(_FIXED, axis=1, keepdims=True)


@functools.cache
def _chain(indices: tuple[int, ...]) -> tuple[int, ...]:
    """The links from the pelvis, itself left out, down to these; parents first."""
    found = set()
    for i in indices:
        while i > 0:
            found.add(i)
            i = _PARENTS[i]
    return tuple(sorted(found))  # depth first, so a parent's number is the smaller


def _jointed_points(
    features: np.ndarray, rep: Representation, indices: tuple[int, ...]
) -> BodyPoints:
    blocks, links = rep.blocks, _chain(indices)
    rotvec = features[..., blocks["root_rot"]]
    joint_pos = features[..., blocks["joint_pos"]]
    pos = {0: features[..., blocks["root_pos"]]}
    quat = {0: quat_from_axis_angle(rotvec)}
    for i in links:
        parent, j = _PARENTS[i], _JOINT_OF_BODY[i]
        turn = quat_from_axis_angle(joint_pos[..., j, None] * _AXES[j])
        pos[i] = pos[parent] + quat_rotate(quat[parent], _OFFSETS[i])
        quat[i] = quat_mul(quat[parent], quat_mul(_FIXED[i], turn))

    def pull_back(by_pos: np.ndarray) -> np.ndarray:
        # As forces at the points: what a link carries, and its moment about the link's origin,
        # go on to the parent; a joint feels the moment about its axis, the root all of it.
        force = {i: np.zeros_like(pos[0]) for i in (0, *links)}
        moment = {i: np.zeros_like(pos[0]) for i in (0, *links)}
        for k, i in enumerate(indices):
            force[i] += by_pos[..., k, :]
        result = np.zeros_like(features)
        for i in reversed(links):
            parent, j = _PARENTS[i], _JOINT_OF_BODY[i]
            axis = quat_rotate(quat[i], _AXES[j])
            result[..., blocks["joint_pos"].start + j] = dot(axis, moment[i])
            force[parent] += force[i]
            moment[parent] += moment[i] + cross(pos[i] - pos[parent], force[i])
        result[..., blocks["root_pos"]] = force[0]
        result[..., blocks["root_rot"]] = _by_rotvec(rotvec, moment[0])
        return result

    return BodyPoints(np.stack([pos[i] for i in indices], -2), pull_back)


# --- parts ----------------------------------------------------------------------------------------


def _stem(body: str) -> str:
    """`left_hip_roll_link` is a hip."""
    return body.removeprefix("left_").removeprefix("right_").partition("_")[0]


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """In (-pi, pi], rad."""
    return np.pi - (np.pi - angle) % (2 * np.pi)


def _pull(error: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared length of `error [..., 2]`, its tangent beyond `reach`, and the gradient."""
    length = np.linalg.norm(error, axis=-1)
    held = np.minimum(length, reach)
    shrink = held / np.maximum(length, 1e-12)
    shrink[length == 0] = 1.0
    return held * (2 * length - held), 2 * shrink[..., None] * error


def _future(features: np.ndarray, rep: Representation, *blocks: str) -> list[np.ndarray]:
    """Blocks of the steps after the present, `[N, L', size]`, float64."""
    return [features[:, PAST:, rep.blocks[block]].astype(float) for block in blocks]


def _at_blocks(
    features: np.ndarray, rep: Representation, parts: dict[str, tuple[int, np.ndarray]]
) -> np.ndarray:
    """Arrays `[N, L', size]` put into blocks from one of their columns on. `[N, L, D]`, else 0."""
    result = np.zeros_like(features)
    for block, (column, part) in parts.items():
        start = rep.blocks[block].start + column
        result[:, PAST:, start : start + part.shape[-1]] = part
    return result


def _set_numbers(cost: Any, **shapes: tuple[str | int, ...]) -> None:
    """Fields as float64 arrays of these shapes, all of as many robots."""
    name = type(cost).__name__
    counts = {}
    for field, shape in shapes.items():
        value = numbers(f"{name}: {field}", getattr(cost, field), shape)
        object.__setattr__(cost, field, value)
        counts[field] = len(value)
    if len(set(counts.values())) > 1:
        of = " and ".join(f"{field} is of {count}" for field, count in counts.items())
        raise ConfigError(f"{name}: {of} robots, expected as many.")


def _check_weights(cost: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(cost, field)
        if not 0 <= value < np.inf:
            raise ConfigError(
                f"{type(cost).__name__}: {field} is {value}, expected a weight of 0 or more."
            )


def _check_positive(cost: Any, *, finite: bool = False, **units: str) -> None:
    for field, unit in units.items():
        value = getattr(cost, field)
        if not value > 0 or (finite and np.isinf(value)):
            raise ConfigError(
                f"{type(cost).__name__}: {field} is {value}, expected a positive "
                f"{'finite ' if finite else ''}number of {unit}."
            )


def _check_count(cost: Any, goal: np.ndarray, features: np.ndarray) -> None:
    if len(goal) not in (1, len(features)):
        raise ConfigError(
            f"{type(cost).__name__}: its numbers are of {len(goal)} robots, the features of "
            f"{len(features)}."
        )
