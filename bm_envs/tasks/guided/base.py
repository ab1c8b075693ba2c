"""What the guided tasks share: the order of one control step, starts, history and falls.

Time. An episode begins with `warm_up_s` seconds that do not count, then `episode_s` that do. The
clock counts control steps from where time begins; what a task draws (goal, obstacles, commands,
the first push) it draws there, from where the robot is then; goal and obstacles of a composition
where its last phase begins.

Success is what has been earned: of walk_perturb, joystick and composition it can be true at the
last step only, of waypoint and obstacle from the arrival on, and a fall takes it back. A robot
whose episode is over, and which nobody resets, keeps the figures of its end, though it is simulated
on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.rotations import quat_rotate, quat_yaw
from bm_envs.tasks.guided.config import GuidedConfig
from bm_envs.tasks.guided.observations import TERMS, history_values, layout
from bm_envs.tasks.guided.robots import Robots, drives_of
from bm_envs.tasks.guided.starts import moving_frames
from bm_envs.tasks.guided.states import PAST, States
from bm_envs.tasks.guided.streams import Source, of_robots
from bm_envs.tasks.track.config import CONTROL_DT
from bm_envs.tasks.track.task import StepResult

J = g1.NUM_JOINTS
_STATE_SIZES = (3, 4, 3, 3, J, J)  # of the members of `States` that a history holds
_TRAIL_STEPS, _TRAIL_LENGTH = 5, 300  # control steps between points of the path, points kept
ARROW_HEIGHT = 1.45  # m, over the robot's head


class GuidedTask:
    """N robots at one of the tasks, each a subclass.

    Attributes:
        robots: the robots, their drives and their simulator.
        clock: control steps since time began to count, `[N]`; negative in the warm-up.
        fell_strict: whether a robot has fallen in its episode by the strict criterion, `[N]`.
        fell_head: the same by the paper's criterion.
        success: see the module's text, `[N]`.
    """

    config: GuidedConfig
    reward_names: ClassVar[tuple[str, ...]] = ("reward_alive", "reward_task")
    options: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    """What `start` takes."""
    STATE: ClassVar[tuple[str, ...]] = (
        "clock", "fell_strict", "fell_head", "success", "_over", "_past",
    )  # fmt: skip

    def __init__(
        self, config: GuidedConfig, num_envs: int, *, backend: str = "mujoco", threads: int = 0
    ) -> None:
        """Robots in no particular state; call `reset` first.

        Args:
            config: of the task's own class.
            num_envs: N.
            backend: physics engine.
            threads: of a CPU engine; 0: all cores this process may use.
        """
        self.config, self.num_envs = config, num_envs
        self.robots = Robots(
            num_envs, drives_of(config.actuation), backend=backend, threads=threads,
            model=config.model, action_delay=config.action_delay, decimation=config.decimation,
        )  # fmt: skip
        self.simulator = self.robots.simulator
        self.terms = TERMS[config.task]
        self.observation_layout = layout(self.terms)
        self.observation_size = sum(term.size for term in self.terms)
        self._starts = moving_frames(config.start_motions, config.start_travel)
        n = num_envs
        self.clock = np.zeros(n, np.int64)
        self.fell_strict, self.fell_head = np.zeros(n, bool), np.zeros(n, bool)
        self.success, self._over = np.zeros(n, bool), np.zeros(n, bool)
        # The last states, the present one last; members of `States` side by side.
        self._past = np.zeros((n, PAST, sum(_STATE_SIZES)), np.float32)
        self._trail: deque[np.ndarray] = deque(maxlen=_TRAIL_LENGTH)  # of robot 0, for pictures

    # --- one episode start ---------------------------------------------------------------------

    def startup(self, rng: Source) -> None:
        """Nothing stays with a robot for its life; here because tracking has it."""

    def start(self, options: Mapping[str, Any] | None, count: int) -> dict[str, np.ndarray]:
        """Arguments of `reset` for `count` robots, from the options of an environment's reset.

        An array of an option is for every robot, or has one row for each.

        Raises:
            ConfigError: an unknown option, or one of the wrong shape or value.
        """
        asked = dict(options or {})
        asked.pop("reset_mask", None)
        if unknown := [name for name in asked if name not in self.options]:
            known = ", ".join(self.options)
            raise ConfigError(
                f"Unknown reset option '{unknown[0]}', expected {known} or reset_mask."
            )
        rows = self.checked_options(asked, count)
        if "qvel" in rows and "qpos" not in rows:
            raise ConfigError("options have 'qvel' without 'qpos', expected both or 'qpos' alone.")
        if "qpos" in rows:
            length = np.linalg.norm(rows["qpos"][:, 3:7], axis=1)
            if (off := abs(length - 1.0) > 1e-3).any():
                raise ConfigError(
                    f"options['qpos'] has a quaternion of length {length[off][0]:.4g}, expected 1."
                )
        return rows

    def checked_options(self, asked: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """The options as arrays with a row for each of `count` robots."""
        sizes = {"qpos": 7 + J, "qvel": 6 + J}
        return {
            name: given_rows(name, asked[name], count, (sizes[name],))
            for name in sizes
            if asked.get(name) is not None
        }

    def reset(
        self, env_ids: np.ndarray, rng: Source, *, qpos: np.ndarray | None = None,
        qvel: np.ndarray | None = None, **task_start: np.ndarray,
    ) -> None:  # fmt: skip
        """Start episodes of the robots `env_ids [M]`.

        They have been in their start state for a while, as far as the history tells, and the last
        action is the one that asks for its pose.

        Args:
            env_ids: which robots.
            rng: source of every draw: a generator for all robots, or `Streams` of all N.
            qpos: `[M, 36]`, start states; drawn from the start motions when None.
            qvel: `[M, 35]`; at rest when None and `qpos` is given.
            task_start: what else a task takes, a row a robot.
        """
        if qpos is None:
            draw = of_robots(rng, env_ids)
            frame = draw.integers(len(self._starts[0]), size=len(env_ids))
            qpos, qvel = (values[frame] for values in self._starts)
        elif qvel is None:
            qvel = np.zeros((len(env_ids), 6 + J))
        length = np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
        qpos = np.concatenate([qpos[:, :3], qpos[:, 3:7] / length, qpos[:, 7:]], 1)
        self.robots.reset(qpos, qvel, env_ids)
        self.clock[env_ids] = -self.config.warm_up_steps
        for latch in (self.fell_strict, self.fell_head, self.success, self._over):
            latch[env_ids] = False
        self._past[env_ids] = self._present(env_ids)[:, None]
        self.clear(env_ids, **task_start)
        self.prepare(env_ids, rng)
        if 0 in env_ids:
            self._trail.clear()
            self._trail.append(self.simulator.root_pos[0, :2].copy())

    # --- one control step ----------------------------------------------------------------------

    def step(self, action: np.ndarray) -> StepResult:
        """Apply raw actions `[N, 29]`.

        Order: the push that is due (no observation has shown it) -> physics, after which everything
        derived is fresh -> clock and history -> falls -> the task's measures -> success -> reward
        and ends. Nothing is drawn and nothing is reset here.
        """
        config, sim = self.config, self.simulator
        running = ~self._over
        # Diverged robots: their numbers are not used.
        with np.errstate(over="ignore", invalid="ignore"):
            self.disturb()
            self.robots.step(action)
            self.clock += running
            self._past[:, :-1] = self._past[:, 1:]
            self._past[:, -1] = self._present(slice(None))
            self.fell_strict |= running & self.robots.is_down()
            self.fell_head |= running & self.robots.head_is_down()
            counts = running & (self.clock > 0)
            self.measure(counts)
            fell = self.fell()
            self.success = np.where(running, counts & self.is_won() & ~fell, self.success)
            value = np.where(counts & ~fell, self.task_reward(), 0.0)
        weights = np.array([config.rewards.alive, config.rewards.task], np.float32)
        values = (np.stack([~fell, value], 1) * weights).astype(np.float32)
        truncated = (self.clock >= config.episode_steps) & ~fell
        causes = {"diverged": sim.diverged(), "fall": fell, "time_limit": truncated}
        self._over |= fell | truncated
        if running[0] and self.clock[0] % _TRAIL_STEPS == 0:
            self._trail.append(sim.root_pos[0, :2].copy())
        return StepResult(values.sum(1), values, self.reward_names, fell.copy(), truncated, causes)

    def push(self, rng: Source, allowed: np.ndarray) -> None:
        """Draw what the coming step brings to the robots that are `allowed [N]`.

        Where time begins, what the task wants; and the push that the step will begin with.
        """
        self.prepare(np.flatnonzero(allowed & ~self._over), rng)

    def observe(self, env_ids: np.ndarray | slice, rng: Source | None = None) -> tuple[np.ndarray]:
        """Observations, `[M, O]` float32, the only member of the tuple; `rng` is not used."""
        with np.errstate(over="ignore", invalid="ignore"):
            history = history_values(self.history(env_ids))
            command = np.where(
                self.clock[env_ids, None] >= 0,
                self.command_values(env_ids),
                self.no_command_values(),
            )
        parts = (history, self.robots.action[env_ids], command)
        return (np.concatenate(parts, 1).astype(np.float32),)

    def history(self, env_ids: np.ndarray | slice = slice(None)) -> States:
        """The last four states, oldest first, without links. `[M, 4, ...]`, world."""
        places = np.cumsum(_STATE_SIZES)[:-1].tolist()
        return States(*np.split(self._past[env_ids], places, -1))

    def figures(self) -> dict[str, np.ndarray]:
        """What is reported of every robot, `[N]` each if nothing else is said; new arrays.

        `time_s` is negative in the warm-up, `speed` is horizontal, `tilt` in rad. `success` goes by
        the criterion that ends episodes, `success_strict` by the strict one in any case.
        """
        sim = self.simulator
        with np.errstate(over="ignore", invalid="ignore"):
            return {
                "time_s": self.clock * CONTROL_DT,
                "pelvis_height": sim.root_pos[:, 2].copy(),
                "head_height": self.robots.head_height(),
                "tilt": self.robots.tilt(),
                "speed": length(sim.root_lin_vel[:, :2]),
                "fell_strict": self.fell_strict.copy(),
                "fell_head": self.fell_head.copy(),
                "success": self.success.copy(),
                "success_strict": self.success & ~self.fell_strict,
                **self.task_figures(),
            }

    def shown(self, env_id: int = 0) -> dict[str, np.ndarray]:
        """What pictures show beside the robot, all in the world and in m; only what there is.

        `path [P, 2]` (of robot 0), `arrow [2, 3]` from and to, `goal [3]`: x, y, radius,
        `obstacles [C, 3]`: x, y, radius.
        """
        drawn = self.task_shown(env_id) if self.clock[env_id] >= 0 else {}
        if env_id == 0 and len(self._trail) > 1:
            drawn["path"] = np.stack(self._trail)
        return drawn

    # --- state ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs besides the simulator's state."""
        state = {name: getattr(self, name).copy() for name in self.STATE}
        return state | {f"robots.{k}": value for k, value in self.robots.get_state().items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned; the path that pictures show begins anew."""
        robots = {name: state[f"robots.{name}"] for name in self.robots.get_state()}
        present = {name: getattr(self, name) for name in self.STATE} | self.robots.get_state()
        for name, value in present.items():
            saved = np.asarray(robots[name] if name in robots else state[name])
            if value.shape != saved.shape:
                raise ConfigError(
                    f"Saved environment state has {name} of shape {saved.shape}, expected "
                    f"{value.shape}."
                )
        for name in self.STATE:
            getattr(self, name)[:] = state[name]
        self.robots.set_state(robots)
        self._trail.clear()

    # --- what a task adds: the step above calls these, and each task extends those it needs -----

    def clear(self, env_ids: np.ndarray) -> None:
        """Forget the last episode of robots `env_ids [M]`."""

    def prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw for robots `env_ids [M]` what the coming step brings."""
        begun = env_ids[self.clock[env_ids] == 0]
        if begun.size:
            self.begin(begun, rng)

    def begin(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw what the task asks of robots `env_ids [M]`, whose time begins."""

    def disturb(self) -> None:
        """Apply the pushes that were drawn."""

    def measure(self, counts: np.ndarray) -> None:
        """Take the measures of the step just done, of robots whose time `counts [N]`."""

    def is_won(self) -> np.ndarray:
        """Whether all is done that the task wants, whatever its falls. `[N]`."""
        return self.clock >= self.config.episode_steps

    def task_reward(self) -> np.ndarray:
        """The task's own term, in [0, 1]. `[N]`."""
        raise NotImplementedError

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        """The command's stretch of observations. `[M, C]`."""
        return self.no_command_values()

    def no_command_values(self) -> np.ndarray:
        """What the command's stretch of observations holds in the warm-up. `[1, C]`."""
        return np.zeros((1, self.observation_size - self.observation_layout["actions"].stop))

    def task_figures(self) -> dict[str, np.ndarray]:
        """What `figures` reports of this task alone, `[N, ...]` each."""
        return {}

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        """What `shown` has of this task alone, once time counts."""
        return {}

    # --- parts ---------------------------------------------------------------------------------

    def fell(self) -> np.ndarray:
        """Fallen by the criterion that ends episodes. `[N]`."""
        return self.fell_strict if self.config.fall == "strict" else self.fell_head

    def _present(self, env_ids: np.ndarray | slice) -> np.ndarray:
        """The present states as rows of the history. `[M, S]`."""
        sim = self.simulator
        quat = sim.root_quat[env_ids]
        return np.concatenate([
            sim.root_pos[env_ids], quat, sim.root_lin_vel[env_ids],
            quat_rotate(quat, sim.root_ang_vel_b[env_ids]), sim.joint_pos[env_ids],
            sim.joint_vel[env_ids],
        ], 1)  # fmt: skip

    def heading(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Yaw of the roots, rad. `[M]`."""
        return quat_yaw(self.simulator.root_quat[env_ids])

    def own_velocity(self) -> np.ndarray:
        """Velocity of the roots, m/s, forward and left of their headings. `[N, 2]`."""
        return turned(self.simulator.root_lin_vel[:, :2], -self.heading())

    def yaw_rate(self) -> np.ndarray:
        """Turning rate of the roots about the vertical, rad/s. `[N]`."""
        return quat_rotate(self.simulator.root_quat, self.simulator.root_ang_vel_b)[:, 2]

    def own_motion(self) -> np.ndarray:
        """Both: m/s forward and left, and rad/s left. `[N, 3]`."""
        return np.column_stack([self.own_velocity(), self.yaw_rate()])

    def arrow(self, env_id: int, vector: np.ndarray) -> np.ndarray:
        """From over the robot's head along `vector [2]`, m, world. `[2, 3]`."""
        base = np.array([*self.simulator.root_pos[env_id, :2], ARROW_HEIGHT], float)
        return np.stack([base, base + [*vector, 0.0]])


def given_rows(
    name: str, value: Any, count: int, shape: tuple[int, ...], *, label: str = ""
) -> np.ndarray:
    """The reset option `name` as `[count, *shape]`: one for all robots, or one for each.

    `label` is what messages call it where it is no reset option.

    Raises:
        ConfigError: it has another shape, or is not finite.
    """
    label = label or f"options['{name}']"
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ConfigError(f"{label} is not an array of numbers.") from None
    if array.shape not in (shape, (count, *shape)):
        raise ConfigError(
            f"{label} has shape {array.shape}, expected {shape} or {(count, *shape)}."
        )
    if not np.isfinite(array).all():
        raise ConfigError(f"{label} holds a value that is not finite.")
    return np.broadcast_to(array, (count, *shape)).copy()


def length(vector: np.ndarray) -> np.ndarray:
    """Length of vectors `[..., D]`. `[...]`."""
    return np.sqrt((vector * vector).sum(-1))


def turned(vector: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """`vector [..., 2]` turned by `yaw [...]`, rad."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = vector[..., 0], vector[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)
