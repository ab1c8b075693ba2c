"""From a guided task to the cost that gives a diffusion model its task, tick after tick.

walk_perturb asks for nothing, joystick, run and tour for a velocity and a turning rate, waypoint
for a place, and obstacle for a place without touching anything. A composition asks for one after
another, of each robot what belongs to its phase. Costs are in the now frame, so they are made anew
every tick.

Source: arXiv 2508.08241, sec. IV-C and eqs. 7 to 10. The way to a place is ours: the paper's cost
would draw a robot there backward or sideways at any speed, which its data need not hold. So the
robot is asked, as by a joystick, to turn to the place and walk forward, slower when it is near.
Where posts stand on the way, it is asked to go to the next corner of the way around them.
`places="paper"` asks for the place as published, or for a point in the direction of the next corner
that is as far away, and for a turn to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from bm_envs.diffusion.box import Box
from bm_envs.diffusion.controller import one_blas_thread
from bm_envs.diffusion.costs import (
    ByVelocity,
    Cost,
    Heading,
    Joystick,
    Obstacle,
    Sum,
    Waypoint,
    check_strength,
    frame_of,
    guide,
    points_to_now,
)
from bm_envs.diffusion.costs.goals import SIDEWAYS, SPEED
from bm_envs.diffusion.feedback import Feedback, predicted_velocity
from bm_envs.diffusion.fields import Cylinders
from bm_envs.diffusion.model import GuidedModel
from bm_envs.diffusion.sampler import Guide, K, Sample, guidance_steps
from bm_envs.diffusion.user_costs import OwnCost
from bm_envs.diffusion.ways import heading_points
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.composition import CompositionTask
from bm_envs.tasks.guided.joystick import CommandedTask
from bm_envs.tasks.guided.obstacle import ObstacleTask
from bm_envs.tasks.guided.states import Frame
from bm_envs.tasks.guided.tour import TourTask
from bm_envs.tasks.guided.waypoint import WaypointTask
from bm_envs.tasks.track.config import CONTROL_DT


@dataclass(frozen=True)
class Steering:
    """How costs pull. Chosen on seeds from 1000 on, which no table reports.

    Four were chosen after a reported result: the turn and eq. 9 beside eq. 8, and Joint-Rot's share
    of eq. 8 and recovery after a push. Their runs were reported anew, with later seeds.
    """

    strength: float = 1.0
    """Share of each cost's own step, 0 to 1; with a scaling of gradients their factor."""
    scaling: str = "share"
    """How the step depends on the noise level, see `sampler.guidance_steps`."""
    last_level: int = K - 1
    """Noisiest level at which states are moved."""
    most_step: float = np.inf
    """m/s that one call may change a predicted root velocity by."""
    consistent: float = 1.0
    """Share of the positions that go with a commanded velocity, and beside eq. 8 with eq. 9's."""
    turn: float = 1.0
    """Share of heading and turning rate of a command, and beside eq. 8 of a turn to the place."""
    places: Literal["approach", "paper"] = "approach"
    """How a place is asked for: by velocities that lead there, or by the paper's cost (eq. 8)."""
    place: float = 1.0
    """Share of the paper's cost on a place, and of the turn beside it."""
    speed: float = SPEED
    """m/s at which a place is walked to."""
    sideways: float = SIDEWAYS
    """m/s of it to the left or right, by the paper's cost."""
    turn_rate: float = 1.0
    """rad/s of a turn to a place, at most."""
    turn_s: float = 1.0
    """Time constant of a turn to the place, s."""
    least_ahead: float = 0.3
    """Share of the speed that it walks at while the place is not ahead: an arc, and no turn on the
    spot."""
    brake_s: float = 1.0
    """Time constant of the end of an approach, s."""
    stop_within: float = 0.25
    """m from the place at which nothing more than standing is asked."""
    around: bool = True
    """Whether the way to a place goes around posts; otherwise straight on."""
    margin: float = 0.6
    """m that a robot's middle keeps from posts on the way around them."""
    obstacle: float = 0.4
    """Share of obstacles (eq. 9) beside the place. Velocities answer to it and, beside the paper's
    cost, which asks for positions, those to which they lead (`ByVelocity`)."""
    correct_s: float = 0.5
    """Time constant of the correction of predictions by what was executed, s; infinite: none, as
    published."""
    most_correction: float = 1.0
    """m/s, and rad/s, that predictions are corrected by at most."""
    recover_at: float = 0.2
    """m/s by which the root's velocity changes within a tick when a robot was pushed. It is then
    left to catch itself: less is asked, with the square of what is more; infinite: never."""
    recover_s: float = 0.3
    """Time constant at which a push is forgotten, s."""

    def __post_init__(self) -> None:
        guidance_steps(self.scaling)  # refuses an unknown one
        check_strength(self.strength, self.scaling)
        if not 0 <= self.last_level < K:
            raise ConfigError(f"last_level is {self.last_level}, expected 0 to {K - 1}.")
        if not self.most_step > 0:
            raise ConfigError(f"most_step is {self.most_step}, expected more than 0 m/s, or inf.")
        # An infinite speed brakes from everywhere, and an infinite bound is none.
        for name in ("recover_at", "most_correction", "speed"):
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected 0 m/s or more, or inf."
                )
        for name in (
            "consistent", "place", "turn", "turn_rate", "least_ahead", "stop_within", "margin",
            "obstacle", "turn_s", "brake_s", "recover_s",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more, finite.")
        if self.places not in ("approach", "paper"):
            raise ConfigError(f"places is '{self.places}', expected 'approach' or 'paper'.")
        if not self.sideways > 0:
            raise ConfigError(f"sideways is {self.sideways}, expected more than 0 m/s.")
        for name in ("turn_s", "brake_s", "recover_s"):
            if not getattr(self, name) >= CONTROL_DT:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected {CONTROL_DT} s or more."
                )
        if not self.correct_s >= CONTROL_DT:
            raise ConfigError(
                f"correct_s is {self.correct_s}, expected {CONTROL_DT} s or more, or inf."
            )


STEERING = {
    "body_pos": Steering(),
    "joint_rot": Steering(scaling="even_share", strength=0.65),
}
"""What was chosen for models of each representation, for all tasks."""
STEERING_OF: dict[str, Steering] = {
    "guided_human": Steering(scaling="even_share", strength=0.65),
}
"""What was chosen for one shipped model, by its name."""


def steering_for(
    model: GuidedModel, steering: Steering | None = None, strength: float | None = None
) -> Steering:
    """The steering, or what was chosen for the model; `strength` replaces the steering's."""
    if steering is None:
        steering = STEERING_OF.get(model.name) or STEERING[model.representation.name]
    return steering if strength is None else replace(steering, strength=strength)


def cost_of(task: GuidedTask, steering: Steering, share: float | np.ndarray = 1.0) -> Cost | None:
    """The cost of what the task asks of each of its N robots now; None: it asks for nothing.

    Args:
        task: what it is.
        steering: how it is asked.
        share: of a command or a place that is asked for, one number or `[N]`; posts are kept away
            from by all of their cost.
    """
    if isinstance(task, CompositionTask):
        way = task.on_way()
        if way.any():
            to_place = _place_cost(task, steering, share)
            # Some robots are further than others: those that fell stay in the phase of their fall.
            commands = (1.0 * ~way, _commands_cost(task, steering, share))
            return to_place if way.all() else Sum([commands, (1.0 * way, to_place)])
    if isinstance(task, CommandedTask | TourTask):
        return _commands_cost(task, steering, share)
    return _place_cost(task, steering, share) if isinstance(task, WaypointTask) else None


def _commands_cost(
    task: CommandedTask | TourTask, steering: Steering, share: float | np.ndarray
) -> Cost:
    cost = command_cost(task.command(), steering)
    return Sum([(share, cost)]) if np.ndim(share) else cost


def command_cost(command: np.ndarray, steering: Steering) -> Joystick:
    """The cost of commands `[N, 3]`: m/s forward and left, rad/s left."""
    return Joystick(command[:, :2], command[:, 2], steering.consistent, steering.turn)


def _place_cost(task: WaypointTask, steering: Steering, share: float | np.ndarray) -> Sum:
    sim = task.simulator
    posts = None
    if isinstance(task, ObstacleTask):
        posts = Posts(task.obstacles, task.count)
    return place_cost(task.goal, posts, frame_of(sim.root_pos, sim.root_quat), steering, share)


class Posts(NamedTuple):
    """Posts in the way of N robots."""

    place: np.ndarray
    """`[N, C, 3]`: x, y, radius; world, m."""
    count: np.ndarray
    """`[N]`, how many of them there are."""


def place_cost(
    goal: np.ndarray, posts: Posts | None, frame: Frame, steering: Steering,
    share: float | np.ndarray = 1.0,
) -> Sum:  # fmt: skip
    """The cost of places `goal [N, 2]`, world, m, and of the posts on the way there.

    Args:
        goal: a robot whose goal is not finite is to stay where it is.
        posts: None: there are none.
        frame: now frames of the robots.
        steering: how it is asked.
        share: of the place that is asked for, one number or `[N]`.
    """
    place = np.asarray(frame.origin)[:, :2].astype(float)
    # A robot that fell before its time began has no goal: its goal is the place where it is.
    known = np.isfinite(goal).all(1, keepdims=True)
    goal = np.where(known, goal, place)
    ahead, left = goal, np.linalg.norm(goal - place, axis=1)
    if posts is not None and steering.around:
        ahead = heading_points(place, goal, posts.place, posts.count, steering.margin)
    parts: list[tuple[float | np.ndarray, Cost]]
    if steering.places == "paper":
        # A corner on the way counts as being as far away as the place, so that none brakes.
        way = ahead - place
        stretch = left / np.maximum(np.linalg.norm(way, axis=1), 1e-9)
        ahead = np.where(
            (ahead == goal).all(1, keepdims=True), goal, place + stretch[:, None] * way
        )
        parts = _published(points_to_now(ahead, frame), steering, share)
        consistent = steering.consistent
    else:
        command = approach(points_to_now(ahead, frame), left, steering)
        parts = [(share, command_cost(command, steering))]
        consistent = 0.0
    if posts is not None and steering.obstacle:
        exists = np.arange(posts.place.shape[1]) < posts.count[:, None]
        there = np.where(exists[..., None], posts.place, np.nan)
        field = Cylinders(there[..., :2], there[..., 2])
        parts.append((steering.obstacle, ByVelocity(Obstacle(field, frame), consistent)))
    return Sum(parts)


def _published(
    goal: np.ndarray, steering: Steering, share: float | np.ndarray
) -> list[tuple[float | np.ndarray, Cost]]:
    """Eq. 8 for places `[N, 2]`, m, now frame, and our turn to them, with their shares.

    The turn ends near the place, where eq. 8 asks for rest.
    """
    place = Waypoint(goal, steering.speed, steering.sideways)
    pull = place.pull()[:, 0] * (np.linalg.norm(goal, axis=1) > steering.stop_within)
    turn = Heading(np.arctan2(goal[:, 1], goal[:, 0]), np.abs(_turning(goal, steering)))
    share = share * steering.place
    return [(share, place), (share * steering.turn * pull, turn)]


def _turning(ahead: np.ndarray, steering: Steering) -> np.ndarray:
    """Turning rate to what lies at `ahead [N, 2]` of the now frame, rad/s to the left. `[N]`."""
    rate = np.arctan2(ahead[:, 1], ahead[:, 0]) / steering.turn_s
    return rate.clip(-steering.turn_rate, steering.turn_rate)


def approach(ahead: np.ndarray, left: np.ndarray, steering: Steering) -> np.ndarray:
    """Commands that lead to a place: m/s forward and left, rad/s left. `[N, 3]`.

    Args:
        ahead: `[N, 2]`, where each robot heads for, m, now frame.
        left: `[N]`, distance of the place at which it is to stop, m.
        steering: speeds and times.
    """
    bearing = np.arctan2(ahead[:, 1], ahead[:, 0])
    speed = np.minimum(steering.speed, left / steering.brake_s)
    speed *= np.maximum(np.cos(bearing), steering.least_ahead)
    command = np.stack([speed, np.zeros_like(speed), _turning(ahead, steering)], 1)
    return np.where((left > steering.stop_within)[:, None], command, 0.0)


def guide_by(
    cost: Cost, model: GuidedModel, steering: Steering,
    strength: float | np.ndarray | None = None, box: Box | None = None,
) -> Guide:  # fmt: skip
    """The cost's guide.

    Args:
        cost: what it lowers.
        model: whose states it moves.
        steering: how.
        strength: one number or `[N]`, in place of the steering's.
        box: counts what it moves.
    """
    return guide(
        cost, model.representation, steering.strength if strength is None else strength,
        scaling=steering.scaling, last_level=steering.last_level, most_step=steering.most_step,
        watch=box,
    )  # fmt: skip


class Pilot:
    """Steers a model through a task: `guide` before every tick of its controller, `observe` after.

    Attributes:
        predicted: `predicted_velocity` of the window observed last. `[N, 3]`.
        feedback: what robots do of what is asked.
        box: what was moved, and what of it lay outside the range of the training data.
    """

    predicted: np.ndarray

    def __init__(
        self, task: GuidedTask, model: GuidedModel, steering: Steering, own: OwnCost | None = None
    ) -> None:
        """Of the robots of a task; `own` is asked for beside what the task asks."""
        self._task, self._model, self._steering, self._own = task, model, steering, own
        self.feedback = Feedback(steering, task.simulator.root_lin_vel[:, :2])
        self.box = Box(model, task.num_envs)

    @property
    def offset(self) -> np.ndarray:
        """Of the feedback. `[N, 3]`."""
        return self.feedback.offset

    def guide(self) -> Guide | None:
        """The guide of the coming tick; None in the warm-up and where the task asks for nothing."""
        task, model, steering = self._task, self._model, self._steering
        steady = self.feedback.steady(task.simulator.root_lin_vel[:, :2])
        if not steering.strength or (task.clock < 0).all():
            return None
        cost = cost_of(task, steering, steady)
        if self._own is not None:
            sim = task.simulator
            frame = frame_of(sim.root_pos, sim.root_quat)
            cost = self._own.beside(cost, frame, task.clock * CONTROL_DT, steady)
        if cost is None:
            return None
        return guide_by(self.feedback.corrected(cost), model, steering, box=self.box)

    def observe(self, sample: Sample) -> None:
        """Compare the controller's window of this tick with what the robots do."""
        task = self._task
        if self._own is not None:
            with one_blas_thread():
                plan = self._model.unscale(sample.states)
            time = task.clock * CONTROL_DT
            self._own.observe(plan, task.robots.states(), time, ~task.fell_strict)
        self.predicted = predicted_velocity(self._model, sample)
        self.feedback.observe(self.predicted, task.own_motion())
        self.offset[task.clock < 0] = 0.0
