"""What one robot outside the environments is asked for: a guided task as a plan of control steps.

The tasks are those of `benchmarks/guided.py`, by the figures of their configurations: commands one
after another, or a place, with posts before it, laid from where the robot begins and along its
heading. At the end it is asked to stop for `STOP_S`, so that it can return to standing. The robot
begins at rest, and there is no warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from bm_envs.diffusion.costs import Cost, Sum
from bm_envs.diffusion.steering import Posts, Steering, command_cost, place_cost
from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1, kinematics
from bm_envs.rotations import quat_axes, quat_rotate, quat_yaw, wrapped
from bm_envs.tasks.guided import obstacles
from bm_envs.tasks.guided.base import turned
from bm_envs.tasks.guided.config import (
    JoystickConfig,
    ObstacleConfig,
    RunConfig,
    WalkPerturbConfig,
    WaypointConfig,
    control_steps,
)
from bm_envs.tasks.guided.states import Frame
from bm_envs.tasks.track.config import CONTROL_DT

Task = Literal["walk_perturb", "joystick", "run", "waypoint", "obstacle"]
TASKS: tuple[Task, ...] = get_args(Task)
STOP_S = 3.0  # s of standing that are asked for at the end


@dataclass(frozen=True, eq=False)
class Errand:
    """What is asked of one robot. Places are m forward and left of where it begins.

    Where there is neither a command nor a goal, nothing is asked but the stop at the end.
    """

    task: Task
    steps: int
    """Control steps that count, without the stop."""
    commands: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """`[P, 3]`, m/s forward and left, rad/s left; each lasts as long as the others."""
    goal: np.ndarray | None = None
    """`[2]`, m."""
    posts: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """`[C, 3]`: x, y, radius, m."""
    pushes: dict[int, np.ndarray] = field(default_factory=dict)
    """Jumps `[2]` of the root's velocity, m/s, by the control step with which they come. They are
    what happens, and nothing that is asked."""

    @property
    def all_steps(self) -> int:
        """Control steps, the stop's included."""
        return self.steps + control_steps(STOP_S)

    def command_at(self, step: int) -> np.ndarray | None:
        """The command of a control step, `[3]`; None: none is given."""
        if step >= self.steps:
            return np.zeros(3)
        if not len(self.commands):
            return None
        return self.commands[step * len(self.commands) // self.steps]

    def cost(
        self, step: int, origin: Frame, frame: Frame, steering: Steering, share: np.ndarray
    ) -> Cost | None:
        """The cost of what is asked in a control step; None: nothing is.

        Args:
            step: which.
            origin: yaw frame of where the robot began, of one robot.
            frame: now frame.
            steering: how it is asked.
            share: `[1]`, of what is asked.
        """
        command = self.command_at(step)
        if command is not None:
            return Sum([(share, command_cost(command[None], steering))])
        if self.goal is None:
            return None
        posts = self.posts_in(origin) if len(self.posts) else None
        return place_cost(in_world(self.goal, origin)[None], posts, frame, steering, share)

    def posts_in(self, origin: Frame) -> Posts:
        """The posts in the world, of one robot that began at `origin`."""
        places = np.column_stack([in_world(self.posts[:, :2], origin), self.posts[:, 2]])
        return Posts(places[None], np.array([len(places)]))


def errand(task: str, seed: int) -> Errand:
    """What a task asks; goal, posts and pushes are drawn.

    Raises:
        ConfigError: no such task.
    """
    rng = np.random.default_rng([seed, 0])
    if task == "joystick":
        asked = JoystickConfig()
        return Errand(task, asked.episode_steps, np.array(asked.commands, float))
    if task == "run":
        run = RunConfig()
        return Errand(task, run.episode_steps, np.array(run.commands[:1], float))
    if task == "walk_perturb":
        walk = WalkPerturbConfig()
        every, pushes = control_steps(walk.push_interval_s), {}
        for step in range(0, walk.episode_steps, every):
            speed, angle = rng.uniform(*walk.push_speed), rng.uniform(0.0, 2.0 * np.pi)
            pushes[step] = speed * np.array([np.cos(angle), np.sin(angle)])
        return Errand(task, walk.episode_steps, pushes=pushes)
    if task not in ("waypoint", "obstacle"):
        raise ConfigError(unknown_name("task", task, TASKS))
    way = ObstacleConfig() if task == "obstacle" else WaypointConfig()
    distance, angle = rng.uniform(*way.goal_distance), rng.uniform(-np.pi, np.pi)
    goal = distance * np.array([np.cos(angle), np.sin(angle)])
    if isinstance(way, ObstacleConfig):
        posts = obstacles.place(rng, np.zeros(2), goal, way)
        return Errand("obstacle", way.episode_steps, goal=goal, posts=posts)
    return Errand("waypoint", way.episode_steps, goal=goal)


def in_world(points: np.ndarray, origin: Frame) -> np.ndarray:
    """Points `[..., 2]` of where the robot began, in the world, m."""
    return turned(points, np.asarray(origin.yaw)[0]) + np.asarray(origin.origin)[0, :2]


def decor(errand: Errand, qpos: np.ndarray) -> dict[str, np.ndarray]:
    """What pictures show of an errand that begins at `qpos [36]`: goal and posts, as of a task."""
    start = start_of(qpos)
    shown = {}
    if errand.goal is not None:
        shown["goal"] = np.array([*in_world(errand.goal, start), WaypointConfig().goal_radius])
    if len(errand.posts):
        shown["obstacles"] = errand.posts_in(start).place[0]
    return shown


def start_of(qpos: np.ndarray) -> Frame:
    """The yaw frame of one robot at `qpos [36]`."""
    return Frame(qpos[None, :3] * np.array([1.0, 1.0, 0.0]), quat_yaw(qpos[None, 3:7]))


# --- what came of it ------------------------------------------------------------------------------


def own_motion(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """m/s forward and left of the heading and rad/s left, of `qpos [T, 36]`, `qvel [T, 35]`.

    `[T, 3]`.
    """
    quat = qpos[:, 3:7]
    rate = quat_rotate(quat, qvel[:, 3:6])[:, 2:]
    return np.concatenate([turned(qvel[:, :2], -quat_yaw(quat)), rate], 1)


def judged(errand: Errand, qpos: np.ndarray, qvel: np.ndarray) -> dict[str, Any]:
    """What a robot did of its errand, by the thresholds of `benchmarks/guided.py`.

    Args:
        errand: what it was asked for.
        qpos: `[T, 36]`, the robot as it truly was at its control steps, from where it began on.
        qvel: `[T, 35]`, likewise, as in `states_of`.

    Returns:
        `speed_m_s`, of commands `reached` (m/s along a command, rad of a turn) and `followed`, of a
        place `arrived_s` (None: never) and `distance_m` at the end, of posts `clearance_m`; and
        `done`: whether all of it is done. What was not reached before the end of `qpos` is not.
    """
    qpos, qvel = qpos[: errand.steps + 1], qvel[: errand.steps + 1]
    start = start_of(qpos[0])
    speed = np.linalg.norm(qvel[:, :2], axis=1)
    figures: dict[str, Any] = {"speed_m_s": float(speed.mean())}
    done = len(qpos) > errand.steps
    if len(errand.commands):
        reached, followed = _followed(errand, qpos, qvel)
        figures |= {"reached": reached, "followed": followed}
        done = done and followed == len(errand.commands)
    if errand.goal is not None:
        way = WaypointConfig()
        distance = np.linalg.norm(in_world(errand.goal, start) - qpos[:, :2], axis=1)
        there = (distance <= way.goal_radius) & (speed < way.goal_speed)
        arrived = float(there.argmax() * CONTROL_DT) if there.any() else None
        figures |= {"arrived_s": arrived, "distance_m": float(distance[-1])}
        done = done and arrived is not None
    if len(errand.posts):
        links = kinematics.link_poses(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:])
        tracked = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]
        points = obstacles.body_points(links.pos[:, tracked], quat_axes(links.quat[:, tracked]))
        places = np.tile(errand.posts_in(start).place, (len(points), 1, 1))
        clear = obstacles.clearance(points, places, np.full(len(points), len(errand.posts)))
        figures["clearance_m"] = float(clear.min())
        done = done and bool(clear.min() > 0)
    return figures | {"done": bool(done)}


def _followed(errand: Errand, qpos: np.ndarray, qvel: np.ndarray) -> tuple[list[float], int]:
    """What was reached of each command that was played to its end, and how many were followed."""
    rules = RunConfig() if errand.task == "run" else JoystickConfig()
    most_share = rules.most_speed_share if isinstance(rules, RunConfig) else np.inf
    moved, yaw = own_motion(qpos, qvel), quat_yaw(qpos[:, 3:7])
    each = errand.steps // len(errand.commands)
    judged_steps = min(control_steps(rules.judged_s), each)
    reached, followed = [], 0
    for number, command in enumerate(errand.commands):
        first, last = number * each, (number + 1) * each
        if last >= len(qpos):
            break
        rate, ahead = command[2], float(np.linalg.norm(command[:2]))
        if abs(rate) >= rules.least_command:
            value = float(wrapped(np.diff(yaw[first : last + 1])).sum() * np.sign(rate))
            least, most = rules.least_turn_share * abs(rate) * each * CONTROL_DT, np.inf
        else:
            mean = moved[last - judged_steps + 1 : last + 1, :2].mean(0)
            value = float(mean @ command[:2] / max(ahead, 1e-9))
            least, most = rules.least_speed_share * ahead, most_share * ahead
        reached.append(value)
        followed += int(least <= value <= most)
    return reached, followed
