"""From a guided task to the cost that tells a diffusion model what is wanted, tick after tick.

walk_perturb wants nothing, joystick a velocity and a turning rate, waypoint a place, and obstacle a
place without touching anything; a composition wants one after another, each robot what belongs to
its phase. Costs are in the now frame, so they are made anew every tick.

Source: arXiv 2508.08241, sec. IV-C and eqs. 7 to 10. That a robot also faces the place it walks to
is ours: the paper's cost alone would draw it there sideways, which its data need not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.rotations import quat_yaw
from bm_envs.tasks.guided.costs import (
    Corrected,
    Cost,
    Heading,
    Joystick,
    Obstacle,
    Sum,
    Waypoint,
    guide,
    points_to_now,
)
from bm_envs.tasks.guided.model import GuidedModel, one_blas_thread
from bm_envs.tasks.guided.protocols import (
    CommandedTask,
    CompositionTask,
    GuidedTask,
    ObstacleTask,
    WaypointTask,
)
from bm_envs.tasks.guided.representation import Frame
from bm_envs.tasks.guided.sampler import PAST, Guide, K, Sample
from bm_envs.tasks.guided.sdf import Cylinders
from bm_envs.tasks.track.config import CONTROL_DT


@dataclass(frozen=True)
class Steering:
    """How costs pull. Chosen on other seeds than those that are reported.

    The network weighs a window's twelve features of the root against some hundred others and its
    past, so that a step to what is wanted is mostly taken back in the next call; hence steps that
    go well beyond it.
    """

    strength: float = 30.0
    """Factor of every step down the gradient."""
    scaling: str = "linear"
    """How the step depends on the noise level, see `sampler.guidance_steps`."""
    last_level: int = K - 1
    """Noisiest level at which states are moved."""
    most_step: float = 10.0
    """m/s that one call may change a predicted root velocity by."""
    consistent: float = 0.0
    """Weight of the positions that go with a commanded velocity. Held to places as well, the model
    walks backward whatever the command."""
    turn: float = 0.03
    """Weight of heading and turning rate of a command. The pelvis of a walking robot swings about
    its heading; held to it tightly, the model takes shorter and then backward steps."""
    speed: float = 0.5
    """m/s of the way to a place; infinite: the paper's cost, which only says where."""
    pull: float = 0.0
    """Weight of the places on that way, beside its velocity, which weighs 1."""
    heading: float = 0.06
    """Weight of facing the place, while it is further away than a robot has to turn for."""
    turn_rate: float = 0.5
    """rad/s, of that turn."""
    face_beyond: float = 0.5
    """m, of a place that is to be faced."""
    obstacle: float = 0.1
    """Weight of obstacles beside the place."""
    correct_s: float = 0.5
    """Time constant of the correction of predictions by what was executed, s; infinite: none, as
    published."""
    most_correction: float = 1.0
    """m/s, and rad/s, that predictions are corrected by at most."""

    def __post_init__(self) -> None:
        for name in (
            "strength", "consistent", "turn", "pull", "heading", "face_beyond", "obstacle",
            "most_correction",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more.")
        if not self.correct_s >= CONTROL_DT:
            raise ConfigError(
                f"correct_s is {self.correct_s}, expected {CONTROL_DT} s or more, or inf."
            )


STEERING: dict[str, Steering] = {
    name: Steering() for name in ("walk_perturb", "joystick", "waypoint", "obstacle", "composition")
}


def cost_of(task: GuidedTask, steering: Steering) -> Cost | None:
    """What the task wants in the coming steps, of each of its N robots; None: nothing."""
    if isinstance(task, CompositionTask):
        way = task.on_way()
        if way.all():
            return _place_cost(task, steering)
        if not way.any():
            return command_cost(task.command(), steering)
        # Some robots are further than others: those that fell stay in the phase of their fall.
        return Sum(
            [
                (1.0 * ~way, command_cost(task.command(), steering)),
                (1.0 * way, _place_cost(task, steering)),
            ]
        )
    if isinstance(task, CommandedTask):
        return command_cost(task.command(), steering)
    return _place_cost(task, steering) if isinstance(task, WaypointTask) else None


def command_cost(command: np.ndarray, steering: Steering) -> Joystick:
    """That of commands `[N, 3]`: m/s forward and left, rad/s left."""
    return Joystick(command[:, :2], command[:, 2], steering.consistent, steering.turn)


def _place_cost(task: WaypointTask, steering: Steering) -> Sum:
    sim = task.simulator
    origin = sim.root_pos * np.array([1.0, 1.0, 0.0])
    frame = Frame(origin, quat_yaw(sim.root_quat))
    # A robot that fell before its time began has no goal; it may stay where it is.
    known = np.isfinite(task.goal).all(1, keepdims=True)
    goal = points_to_now(np.where(known, task.goal, origin[:, :2]), frame)
    waypoint = Waypoint(goal)
    if np.isfinite(steering.speed):
        waypoint = Waypoint(goal, speed=steering.speed, consistent=1.0, pull=steering.pull)
    parts: list[tuple[float | np.ndarray, Cost]] = [(1.0, waypoint)]
    if steering.heading:
        far = np.linalg.norm(goal, axis=1) > steering.face_beyond
        facing = Heading(np.arctan2(goal[:, 1], goal[:, 0]), steering.turn_rate)
        parts.append((steering.heading * far, facing))
    if isinstance(task, ObstacleTask) and steering.obstacle:
        exists = np.arange(task.obstacles.shape[1]) < task.count[:, None]
        posts = np.where(exists[..., None], task.obstacles, np.nan)
        field = Cylinders(posts[..., :2], posts[..., 2])
        parts.append((steering.obstacle, Obstacle(field, frame)))
    return Sum(parts)


def guide_by(
    cost: Cost, model: GuidedModel, steering: Steering, strength: float | np.ndarray | None = None
) -> Guide:
    """The cost's guide; `strength`, one number or `[N]`, in place of the steering's."""
    return guide(
        cost, model.representation, steering.strength if strength is None else strength,
        scaling=steering.scaling, last_level=steering.last_level, most_step=steering.most_step,
    )  # fmt: skip


class Pilot:
    """Steers a model through a task: `guide` before every tick of its controller, `observe` after.

    What a guided model executes differs from what it predicts, most where the guide asks for what
    the data seldom show. The difference of the two velocities is filtered, and the costs see the
    predictions without it (`costs.Corrected`), so that what is executed settles at what was asked.

    Attributes:
        predicted: `predicted_velocity` of the window observed last. `[N, 3]`.
        offset: predicted less executed velocity forward and left, m/s, and turning rate, rad/s, of
            each robot's heading. `[N, 3]`.
    """

    predicted: np.ndarray

    def __init__(self, task: GuidedTask, model: GuidedModel, steering: Steering) -> None:
        self._task, self._model, self._steering = task, model, steering
        self.offset = np.zeros((task.num_envs, 3))

    def guide(self) -> Guide | None:
        """The guide of the coming tick; None in the warm-up and where nothing is wanted."""
        task, model, steering = self._task, self._model, self._steering
        if not steering.strength or (task.clock < 0).all():
            return None
        cost = cost_of(task, steering)
        if cost is None:
            return None
        if np.isfinite(steering.correct_s):
            cost = Corrected(cost, self.offset)
        return guide_by(cost, model, steering)

    def observe(self, sample: Sample) -> None:
        """Compare the controller's window of this tick with what the robots do."""
        steering = self._steering
        self.predicted = predicted_velocity(self._model, sample)
        with np.errstate(invalid="ignore", over="ignore"):  # robots that diverged
            off = np.nan_to_num(self.predicted - self._task.own_motion())
        share = CONTROL_DT / steering.correct_s
        self.offset += share * (off - self.offset)
        self.offset.clip(-steering.most_correction, steering.most_correction, out=self.offset)
        self.offset[self._task.clock < 0] = 0.0


def predicted_velocity(model: GuidedModel, sample: Sample) -> np.ndarray:
    """Mean velocity forward and left, m/s, and turning rate, rad/s, of the future. `[N, 3]`."""
    blocks = model.representation.blocks
    plane = slice(blocks["root_lin_vel"].start, blocks["root_lin_vel"].start + 2)
    turn = blocks["root_ang_vel"].start + 2
    with one_blas_thread():
        plan = model.unscale(sample.states[:, PAST:])
    return np.column_stack([plan[..., plane].mean(1), plan[..., turn].mean(1)])
