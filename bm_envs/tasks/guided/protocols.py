"""The guided tasks: the order of one control step, what each wants, and when it has succeeded.

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

import dataclasses
import functools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bm_envs.errors import ConfigError, MotionError
from bm_envs.motion.clip import Clip
from bm_envs.motion.shared import shared_motions
from bm_envs.robots import g1
from bm_envs.rotations import quat_rotate, quat_rotate_inverse, quat_yaw
from bm_envs.tasks.guided import obstacles, rewards
from bm_envs.tasks.guided.config import (
    CONFIGS,
    CommandedConfig,
    CompositionConfig,
    GuidedConfig,
    JoystickConfig,
    ObstacleConfig,
    PushedConfig,
    WalkPerturbConfig,
    WaypointConfig,
)
from bm_envs.tasks.guided.observations import ABSENT, NEAREST, TERMS, history_values, layout
from bm_envs.tasks.guided.states import PAST, States
from bm_envs.tasks.guided.streams import Source, of_robot, of_robots
from bm_envs.tasks.guided.task import Robots
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
    _STATE: ClassVar[tuple[str, ...]] = (
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
            num_envs, _drives(config), backend=backend, threads=threads, model=config.model,
            action_delay=config.action_delay, decimation=config.decimation,
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
        given = dict(options or {})
        given.pop("reset_mask", None)
        if unknown := [name for name in given if name not in self.options]:
            known = ", ".join(self.options)
            raise ConfigError(
                f"Unknown reset option '{unknown[0]}', expected {known} or reset_mask."
            )
        rows = self._checked(given, count)
        if "qvel" in rows and "qpos" not in rows:
            raise ConfigError("options have 'qvel' without 'qpos', expected both or 'qpos' alone.")
        if "qpos" in rows:
            length = np.linalg.norm(rows["qpos"][:, 3:7], axis=1)
            if (off := abs(length - 1.0) > 1e-3).any():
                raise ConfigError(
                    f"options['qpos'] has a quaternion of length {length[off][0]:.4g}, expected 1."
                )
        return rows

    def _checked(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """The options as arrays with a row for each of `count` robots."""
        sizes = {"qpos": 7 + J, "qvel": 6 + J}
        return {
            name: given_rows(name, given[name], count, (sizes[name],))
            for name in sizes
            if given.get(name) is not None
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
        self._clear(env_ids, **task_start)
        self._prepare(env_ids, rng)
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
            self._disturb()
            self.robots.step(action)
            self.clock += running
            self._past[:, :-1] = self._past[:, 1:]
            self._past[:, -1] = self._present(slice(None))
            self.fell_strict |= running & self.robots.is_down()
            self.fell_head |= running & self.robots.head_is_down()
            counts = running & (self.clock > 0)
            self._measure(counts)
            fell = self._fell()
            self.success = np.where(running, counts & self._won() & ~fell, self.success)
            value = np.where(counts & ~fell, self._task_reward(), 0.0)
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
        self._prepare(np.flatnonzero(allowed & ~self._over), rng)

    def observe(self, env_ids: np.ndarray | slice, rng: Source | None = None) -> tuple[np.ndarray]:
        """Observations, `[M, O]` float32, the only member of the tuple; `rng` is not used."""
        with np.errstate(over="ignore", invalid="ignore"):
            history = history_values(self.history(env_ids))
            command = np.where(
                self.clock[env_ids, None] >= 0, self._command(env_ids), self._no_command()
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
                "speed": _length(sim.root_lin_vel[:, :2]),
                "fell_strict": self.fell_strict.copy(),
                "fell_head": self.fell_head.copy(),
                "success": self.success.copy(),
                "success_strict": self.success & ~self.fell_strict,
                **self._task_figures(),
            }

    def shown(self, env_id: int = 0) -> dict[str, np.ndarray]:
        """What pictures show beside the robot, all in the world and in m; only what there is.

        `path [P, 2]` (of robot 0), `arrow [2, 3]` from and to, `goal [3]`: x, y, radius,
        `obstacles [C, 3]`: x, y, radius.
        """
        found = self._task_shown(env_id) if self.clock[env_id] >= 0 else {}
        if env_id == 0 and len(self._trail) > 1:
            found["path"] = np.stack(self._trail)
        return found

    # --- state ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs besides the simulator's state."""
        state = {name: getattr(self, name).copy() for name in self._STATE}
        return state | {f"robots.{k}": value for k, value in self.robots.get_state().items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned; the path that pictures show begins anew."""
        robots = {name: state[f"robots.{name}"] for name in self.robots.get_state()}
        present = {name: getattr(self, name) for name in self._STATE} | self.robots.get_state()
        for name, value in present.items():
            saved = np.asarray(robots[name] if name in robots else state[name])
            if value.shape != saved.shape:
                raise ConfigError(
                    f"Saved environment state has {name} of shape {saved.shape}, expected "
                    f"{value.shape}."
                )
        for name in self._STATE:
            getattr(self, name)[:] = state[name]
        self.robots.set_state(robots)
        self._trail.clear()

    # --- what a task adds ----------------------------------------------------------------------

    def _clear(self, env_ids: np.ndarray) -> None:
        """Forget the last episode of robots `env_ids [M]`."""

    def _prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw for robots `env_ids [M]` what the coming step brings."""
        begun = env_ids[self.clock[env_ids] == 0]
        if begun.size:
            self._begin(begun, rng)

    def _begin(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw for robots `env_ids [M]`, whose time begins, what is wanted of them."""

    def _disturb(self) -> None:
        """Apply the pushes that were drawn."""

    def _measure(self, counts: np.ndarray) -> None:
        """Take the measures of the step just done, of robots whose time `counts [N]`."""

    def _won(self) -> np.ndarray:
        """Whether all is done that the task wants, falls apart. `[N]`."""
        return self.clock >= self.config.episode_steps

    def _task_reward(self) -> np.ndarray:
        """The task's own term, in [0, 1]. `[N]`."""
        raise NotImplementedError

    def _command(self, env_ids: np.ndarray | slice) -> np.ndarray:
        """The command's stretch of observations. `[M, C]`."""
        return self._no_command()

    def _no_command(self) -> np.ndarray:
        """The same in the warm-up. `[1, C]`."""
        return np.zeros((1, self.observation_size - self.observation_layout["actions"].stop))

    def _task_figures(self) -> dict[str, np.ndarray]:
        return {}

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        return {}

    # --- parts ---------------------------------------------------------------------------------

    def _fell(self) -> np.ndarray:
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

    def _heading(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Yaw of the roots, rad. `[M]`."""
        return quat_yaw(self.simulator.root_quat[env_ids])

    def own_velocity(self) -> np.ndarray:
        """Velocity of the roots, m/s, forward and left of their headings. `[N, 2]`."""
        return _turned(self.simulator.root_lin_vel[:, :2], -self._heading())

    def yaw_rate(self) -> np.ndarray:
        """Of the roots about the vertical, rad/s. `[N]`."""
        return quat_rotate(self.simulator.root_quat, self.simulator.root_ang_vel_b)[:, 2]

    def own_motion(self) -> np.ndarray:
        """Both: m/s forward and left, and rad/s left. `[N, 3]`."""
        return np.column_stack([self.own_velocity(), self.yaw_rate()])

    def _arrow(self, env_id: int, vector: np.ndarray) -> np.ndarray:
        """From over the robot's head along `vector [2]`, m, world. `[2, 3]`."""
        base = np.array([*self.simulator.root_pos[env_id, :2], ARROW_HEIGHT], float)
        return np.stack([base, base + [*vector, 0.0]])


class PushedTask(GuidedTask):
    """What tasks share in which the root's velocity jumps at regular times."""

    config: PushedConfig
    _STATE = (*GuidedTask._STATE, "_jump", "push_velocity", "pushes")

    def __init__(self, config: PushedConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        self._jump = np.zeros((num_envs, 2))  # m/s and rad of the coming push; 0 m/s: none
        self.push_velocity = np.zeros((num_envs, 2))  # m/s, world, of the last push
        self.pushes = np.zeros(num_envs, np.int64)
        self._interval = max(1, round(config.push_interval_s / CONTROL_DT))

    def _clear(self, env_ids: np.ndarray, **task_start: np.ndarray) -> None:
        super()._clear(env_ids, **task_start)
        self._jump[env_ids] = self.push_velocity[env_ids] = 0.0
        self.pushes[env_ids] = 0

    def _prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super()._prepare(env_ids, rng)
        clock = self.clock[env_ids]
        due = env_ids[(clock >= 0) & (clock % self._interval == 0)]
        if due.size:
            draw = of_robots(rng, due)
            self._jump[due, 0] = draw.uniform(*self.config.push_speed, due.size)
            self._jump[due, 1] = draw.uniform(0.0, 2.0 * np.pi, due.size)

    def _disturb(self) -> None:
        # By the clock and not by the speed, so that a push of 0 m/s is counted as well.
        due = np.flatnonzero(~self._over & (self.clock >= 0) & (self.clock % self._interval == 0))
        if due.size:
            speed, angle = self._jump[due].T
            self.robots.push(speed, angle, due)
            self.push_velocity[due] = np.stack([speed * np.cos(angle), speed * np.sin(angle)], 1)
            self.pushes[due] += 1

    def _task_figures(self) -> dict[str, np.ndarray]:
        """`pushed`: by the step just done; `push_velocity [N, 2]`: of the last push, world, m/s."""
        return {
            **super()._task_figures(),
            "pushed": (self.clock > 0) & ((self.clock - 1) % self._interval == 0),
            "push_velocity": self.push_velocity.copy(),
            "pushes": self.pushes.copy(),
        }


class WalkPerturbTask(PushedTask):
    """Keep walking while the root's velocity jumps every second. Success: no fall."""

    config: WalkPerturbConfig

    def _task_reward(self) -> np.ndarray:
        speed = _length(self.simulator.root_lin_vel[:, :2])
        return rewards.share(speed, self.config.walk_speed)

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        fresh = (self.clock[env_id] - 1) % self._interval < self._interval // 2
        if not fresh or not self.pushes[env_id]:
            return {}
        return {"arrow": self._arrow(env_id, self.push_velocity[env_id])}


class CommandedTask(GuidedTask):
    """What tasks share in which commanded velocities follow one another, each judged at its end.

    A command that turns is followed if the heading changes enough in its sense over its time, any
    other if the mean velocity over its last seconds is fast enough in its direction.
    """

    config: CommandedConfig
    _STATE = (
        *GuidedTask._STATE, "commands", "_commands_given", "segment_value", "segment_passed",
        "_yaw", "_turn", "_way",
    )  # fmt: skip

    def __init__(self, config: CommandedConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        n = num_envs
        self._steps = np.array(config.command_steps)
        self._ends = self._steps.cumsum()  # on the clock
        shortest = self._steps[: config.segments].min()
        self._judged = min(shortest, round(config.judged_s / CONTROL_DT))
        self.commands = np.zeros((n, len(self._steps), 3))
        self._commands_given = np.zeros(n, bool)
        self.segment_value = np.zeros((n, config.segments))
        self.segment_passed = np.zeros((n, config.segments), bool)
        # Last heading, rad; of the present segment: its change so far, sum of judged velocities.
        self._yaw, self._turn, self._way = np.zeros(n), np.zeros(n), np.zeros((n, 2))

    def _clear(self, env_ids: np.ndarray, **task_start: np.ndarray) -> None:
        super()._clear(env_ids, **task_start)
        self.segment_value[env_ids] = 0.0
        self.segment_passed[env_ids] = False
        self._turn[env_ids] = self._way[env_ids] = 0.0
        self.commands[env_ids] = 0.0
        self._commands_given[env_ids] = False

    def _begin(self, env_ids: np.ndarray, rng: Source) -> None:
        super()._begin(env_ids, rng)
        own = env_ids[~self._commands_given[env_ids]]
        self.commands[own] = self._script(own, rng)
        self._yaw[env_ids] = self._heading(env_ids)

    def _script(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        """The commands of robots `env_ids [M]`, whose time begins. `[M or 1, P, 3]`."""
        commands = np.array(self.config.commands, float)
        return commands[None, np.arange(len(self._steps)) % len(commands)]

    def _segment(self, clock: np.ndarray) -> np.ndarray:
        """Which command it is in the step that follows `clock [M]`; after all, the last. `[M]`."""
        return np.searchsorted(self._ends, clock, "right").clip(0, len(self._steps) - 1)

    def _measure(self, counts: np.ndarray) -> None:
        super()._measure(counts)
        segment = self._segment(self.clock - 1)  # of the step just done
        steps = self._steps[segment]
        done = self.clock - (self._ends[segment] - steps)  # this step included
        yaw = self._heading()
        change = (yaw - self._yaw + np.pi) % (2 * np.pi) - np.pi
        self._yaw = np.where(counts, yaw, self._yaw)
        first = done == 1
        self._turn = np.where(counts, np.where(first, 0.0, self._turn) + change, self._turn)
        velocity = np.where((done > steps - self._judged)[:, None], self.own_velocity(), 0.0)
        way = np.where(first[:, None], 0.0, self._way) + velocity
        self._way = np.where(counts[:, None], way, self._way)
        ended = np.flatnonzero(counts & (done == steps) & (segment < self.config.segments))
        if ended.size:
            number = segment[ended]
            value, passed = self._result(ended, self.commands[ended, number])
            self.segment_value[ended, number] = value
            self.segment_passed[ended, number] = passed

    def _result(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What robots `env_ids [M]` reached of `command [M, 3]`; is it enough? `[M]` each."""
        value, least = self._judge(env_ids, command)
        return value, value >= least

    def _judge(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What robots `env_ids [M]` reached of `command [M, 3]`, and what it takes. `[M]` each.

        The command is that of the step just done.
        """
        config = self.config
        rate, speed = command[:, 2], _length(command[:, :2])
        turns = abs(rate) >= config.least_command
        along = (self._way[env_ids] * command[:, :2]).sum(1) / np.maximum(speed, 1e-9)
        value = np.where(turns, self._turn[env_ids] * np.sign(rate), along / self._judged)
        steps = self._steps[self._segment(self.clock[env_ids] - 1)]
        turn = config.least_turn_share * abs(rate) * steps * CONTROL_DT
        asks = turns | (speed >= config.least_command)
        least = np.where(asks, np.where(turns, turn, config.least_speed_share * speed), -np.inf)
        return value, least

    def _won(self) -> np.ndarray:
        return super()._won() & self.segment_passed.all(1)

    def _task_reward(self) -> np.ndarray:
        command = self.commands[np.arange(self.num_envs), self._segment(self.clock - 1)]
        return rewards.velocity_error_exp(
            self.own_velocity(), self.yaw_rate(), command, self.config.velocity_std,
            self.config.yaw_rate_std,
        )  # fmt: skip

    def _command(self, env_ids: np.ndarray | slice) -> np.ndarray:
        rows = np.arange(self.num_envs)[env_ids]
        return self.commands[rows, self._segment(self.clock[env_ids])]

    def command(self) -> np.ndarray:
        """What is wanted in the coming step: m/s forward and left, rad/s left. `[N, 3]`."""
        now = CommandedTask._command(self, slice(None))
        return np.where(self.clock[:, None] >= 0, now, 0.0)

    def _task_figures(self) -> dict[str, np.ndarray]:
        """Command `[N, 3]` of the coming step, own velocity `[N, 2]`, and what segments brought.

        `segment_value [N, S]` is what the first `segments_done` reached: m/s in the commanded
        direction, or rad of heading in the commanded sense; 0 of the others.
        """
        done = np.searchsorted(self._ends, self.clock, "right").clip(0, self.config.segments)
        return {
            **super()._task_figures(),
            "command": self.command(),
            "velocity": self.own_velocity(),
            "yaw_rate": self.yaw_rate(),
            "segment": self._segment(self.clock),
            "segments_done": done,
            "segment_value": self.segment_value.copy(),
            "segment_passed": self.segment_passed.copy(),
        }

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        """Where the command takes the robot in a second, turn included."""
        forward, left, rate = self.command()[env_id]
        middle = self._heading(np.array([env_id]))[0] + 0.5 * rate
        chord = np.sinc(0.5 * rate / np.pi) * np.array([forward, left])  # of an arc of 1 s
        return {"arrow": self._arrow(env_id, _turned(chord, middle))}


class JoystickTask(CommandedTask):
    """Follow commanded velocities. Success: every command played to its end was followed."""

    config: JoystickConfig

    def _script(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        config = self.config
        if not config.random:
            return super()._script(env_ids, rng)
        ranges = (config.random_forward, config.random_left, config.random_yaw_rate)
        shape = (env_ids.size, len(self._steps))
        draw = of_robots(rng, env_ids)
        return np.stack([draw.uniform(*bounds, shape) for bounds in ranges], -1)

    def set_command(self, command: np.ndarray) -> None:
        """Want something else from the coming step on, to the end of the episode.

        In the warm-up it is what will be wanted when time begins, in place of the task's own
        commands. A segment is judged by the command at its end. Robots whose episode is over are
        left alone.

        Args:
            command: `[3]`, or `[N, 3]` for each robot: m/s forward and left, rad/s left.
        """
        rows = given_rows("command", command, self.num_envs, (3,), label="command")
        coming = np.arange(len(self._steps)) >= self._segment(self.clock)[:, None]
        coming &= ~self._over[:, None]
        np.copyto(self.commands, rows[:, None], where=coming[..., None])
        self._commands_given |= self.clock < 0


class WaypointTask(GuidedTask):
    """Walk to a place and stop. Success: it was within the radius and slow, and has not fallen."""

    config: WaypointConfig
    options = (*GuidedTask.options, "goal")
    _STATE = (*GuidedTask._STATE, "goal", "_goal_given", "arrived_s")

    def __init__(self, config: WaypointConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        # World, m. What is not yet known or reached is infinite and not NaN, which equals nothing:
        # Gymnasium compares infos.
        self.goal = np.full((num_envs, 2), np.inf)
        self._goal_given = np.zeros(num_envs, bool)
        self.arrived_s = np.full(num_envs, np.inf)
        self._way_begins = 0  # on the clock: when the goal begins to count

    def _checked(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        rows = super()._checked(given, count)
        if given.get("goal") is not None:
            rows["goal"] = given_rows("goal", given["goal"], count, (2,))
        return rows

    def _clear(self, env_ids: np.ndarray, goal: np.ndarray | None = None) -> None:
        super()._clear(env_ids)
        self.goal[env_ids] = np.inf if goal is None else goal
        self._goal_given[env_ids] = goal is not None
        self.arrived_s[env_ids] = np.inf

    def set_goal(self, goal: np.ndarray) -> None:
        """Want to be elsewhere from the coming step on; nobody has arrived at a goal that moved.

        Before the way to it begins it is where the goal will be then, and no other is drawn. Robots
        whose episode is over are left alone.

        Args:
            goal: `[2]`, or `[N, 2]` for each robot: world, m.
        """
        rows = given_rows("goal", goal, self.num_envs, (2,), label="goal")
        moves = ~self._over & (rows != self.goal).any(1)
        self.arrived_s[moves] = np.inf
        self.goal[moves] = rows[moves]
        self._goal_given |= self.clock < self._way_begins

    def _prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super()._prepare(env_ids, rng)
        begun = env_ids[self.clock[env_ids] == self._way_begins]
        if begun.size:
            self._set_out(begun, rng)

    def _set_out(self, env_ids: np.ndarray, rng: Source) -> None:
        """Draw where robots `env_ids [M]`, whose way begins, are to go."""
        drawn = env_ids[~self._goal_given[env_ids]]
        draw = of_robots(rng, drawn)
        distance = draw.uniform(*self.config.goal_distance, drawn.size)
        angle = draw.uniform(-np.pi, np.pi, drawn.size)
        way = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        self.goal[drawn] = self.simulator.root_pos[drawn, :2] + way

    def _to_goal(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """From the roots to the goals, m, world. `[M, 2]`."""
        return self.goal[env_ids] - self.simulator.root_pos[env_ids, :2]

    def _measure(self, counts: np.ndarray) -> None:
        super()._measure(counts)
        counts = counts & (self.clock > self._way_begins)
        near = _length(self._to_goal()) <= self.config.goal_radius
        slow = _length(self.simulator.root_lin_vel[:, :2]) < self.config.goal_speed
        arrives = counts & np.isinf(self.arrived_s) & near & slow & ~self._fell()
        self.arrived_s[arrives] = self.clock[arrives] * CONTROL_DT

    def _won(self) -> np.ndarray:
        return np.isfinite(self.arrived_s)

    def _task_reward(self) -> np.ndarray:
        way = self._to_goal()
        return rewards.approach(
            way, self.simulator.root_lin_vel[:, :2], _length(way), self.config.walk_speed,
            self.config.goal_speed,
        )  # fmt: skip

    def _command(self, env_ids: np.ndarray | slice) -> np.ndarray:
        way = self._to_goal(env_ids)
        return np.concatenate([_turned(way, -self._heading(env_ids)), _length(way)[:, None]], 1)

    def _task_figures(self) -> dict[str, np.ndarray]:
        """`goal [N, 2]` in the world, `distance` from it, and `arrived_s`, infinite before that.

        Before the way begins all of them are infinite, but for a goal that was given.
        """
        return {
            **super()._task_figures(),
            "goal": self.goal.copy(),
            "distance": _length(self._to_goal()),
            "arrived_s": self.arrived_s.copy(),
        }

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        way = self._to_goal(np.array([env_id]))[0]
        length = max(float(np.hypot(*way)), 1e-9)
        return {
            "goal": np.array([*self.goal[env_id], self.config.goal_radius]),
            "arrow": self._arrow(env_id, way * min(1.0, 0.5 / length)),
        }


class ObstacleTask(WaypointTask):
    """A waypoint behind vertical cylinders. Success: that of the waypoint, and none was touched."""

    config: ObstacleConfig
    options = (*WaypointTask.options, "obstacles")
    _STATE = (
        *WaypointTask._STATE, "obstacles", "count", "_obstacles_given", "least_clearance",
    )  # fmt: skip

    def __init__(self, config: ObstacleConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        n = num_envs
        self.obstacles = np.zeros((n, config.obstacle_count[1], 3))  # x, y, radius; world, m
        self.count = np.zeros(n, np.int64)  # of them that exist
        self._obstacles_given = np.zeros(n, bool)
        self.least_clearance = np.full(n, np.inf)

    def _checked(self, given: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        rows = super()._checked(given, count)
        if given.get("obstacles") is None:
            return rows
        if "goal" not in rows:
            raise ConfigError("options have 'obstacles' without 'goal', expected both or neither.")
        most = self.obstacles.shape[1]
        shape = np.shape(given["obstacles"])
        if len(shape) not in (2, 3) or shape[-1] != 3 or shape[-2] > most:
            raise ConfigError(
                f"options['obstacles'] has shape {shape}, expected (C, 3) or ({count}, C, 3) with "
                f"C of 0 to {most}: x, y, radius in m."
            )
        rows["obstacles"] = given_rows("obstacles", given["obstacles"], count, shape[-2:])
        if (rows["obstacles"][..., 2] <= 0).any():
            raise ConfigError("options['obstacles'] has a radius of 0 or less, expected more.")
        return rows

    def _clear(
        self, env_ids: np.ndarray, goal: np.ndarray | None = None,
        obstacles: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        super()._clear(env_ids, goal)
        self._obstacles_given[env_ids] = obstacles is not None
        self.least_clearance[env_ids] = np.inf
        self.obstacles[env_ids], self.count[env_ids] = 0.0, 0
        if obstacles is not None:
            self.count[env_ids] = obstacles.shape[1]
            self.obstacles[env_ids, : obstacles.shape[1]] = obstacles

    def _set_out(self, env_ids: np.ndarray, rng: Source) -> None:
        super()._set_out(env_ids, rng)
        for env_id in env_ids[~self._obstacles_given[env_ids]]:
            start = self.simulator.root_pos[env_id, :2].astype(float)
            placed = obstacles.place(of_robot(rng, env_id), start, self.goal[env_id], self.config)
            self.count[env_id] = len(placed)
            self.obstacles[env_id, : len(placed)] = placed
        self.least_clearance[env_ids] = self._clearance(env_ids)

    def _clearance(self, env_ids: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Of the nearest obstacle, m; infinite where there is none. `[M]`."""
        sim = self.simulator
        points = obstacles.body_points(sim.body_pos[env_ids], sim.body_axes[env_ids])
        found = obstacles.clearance(points, self.obstacles[env_ids], self.count[env_ids])
        return found.min(1)

    def _measure(self, counts: np.ndarray) -> None:
        super()._measure(counts)
        least = np.fmin(self.least_clearance, self._clearance())
        counts = counts & (self.clock > self._way_begins)
        self.least_clearance = np.where(counts, least, self.least_clearance)

    def _won(self) -> np.ndarray:
        return super()._won() & (self.least_clearance > 0)

    def _task_reward(self) -> np.ndarray:
        clear = rewards.share(self._clearance(), self.config.safe_clearance)
        return super()._task_reward() * clear

    def _command(self, env_ids: np.ndarray | slice) -> np.ndarray:
        sim = self.simulator
        offset = self.obstacles[env_ids, :, :2] - sim.root_pos[env_ids, None, :2]
        offset = _turned(offset, -self._heading(env_ids)[:, None])
        radius = self.obstacles[env_ids, :, 2]
        exists = np.arange(radius.shape[1]) < self.count[env_ids, None]
        surface = np.where(exists, _length(offset) - radius, np.inf)
        order = np.argsort(surface, 1, kind="stable")[:, :NEAREST, None]
        rows = np.concatenate([offset, radius[..., None]], -1)
        rows = np.where(exists[..., None], rows, ABSENT)
        nearest = self._no_obstacles(len(rows))
        nearest[:, : order.shape[1]] = np.take_along_axis(rows, order, 1)
        return np.concatenate([super()._command(env_ids), nearest.reshape(len(rows), -1)], 1)

    def _no_command(self) -> np.ndarray:
        return np.concatenate([np.zeros((1, 3)), self._no_obstacles(1).reshape(1, -1)], 1)

    @staticmethod
    def _no_obstacles(rows: int) -> np.ndarray:
        return np.tile(np.array(ABSENT), (rows, NEAREST, 1))

    def _task_figures(self) -> dict[str, np.ndarray]:
        """`clearance` of the nearest obstacle and `least_clearance` of the episode, in m."""
        return {
            **super()._task_figures(),
            "clearance": self._clearance(),
            "least_clearance": self.least_clearance.copy(),
            "touched": ~(self.least_clearance > 0),
            "num_obstacles": self.count.copy(),
        }

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        found = super()._task_shown(env_id)
        return found | {"obstacles": self.obstacles[env_id, : self.count[env_id]].copy()}


class CompositionTask(PushedTask, CommandedTask, ObstacleTask):
    """Commands, each judged, and then a place behind obstacles, under pushes throughout.

    Success: at the end no fall, every command was followed, the place was reached and no obstacle
    touched. A command too weak to walk by asks for a stop: what counts is the displacement over its
    last seconds. Time, that of the arrival included, goes on from the first command.
    """

    config: CompositionConfig
    _STATE = tuple(dict.fromkeys(
        (*PushedTask._STATE, *CommandedTask._STATE, *ObstacleTask._STATE, "_mark")
    ))  # fmt: skip

    def __init__(self, config: CompositionConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        self._way_begins = config.way_begins
        # Where the root was when the judged seconds of the present command began; world, m.
        self._mark = np.zeros((num_envs, 2))

    def on_way(self) -> np.ndarray:
        """Whether the coming step belongs to the last phase, the way to the place. `[N]`."""
        return self.clock >= self._way_begins

    def _script(self, env_ids: np.ndarray, rng: Source) -> np.ndarray:
        commands = super()._script(env_ids, rng)
        commands[:, -1] = 0.0  # none on the way
        return commands

    def _prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        super()._prepare(env_ids, rng)
        segment = self._segment(self.clock[env_ids])
        at = env_ids[self.clock[env_ids] == self._ends[segment] - self._judged]
        self._mark[at] = self.simulator.root_pos[at, :2]

    def _result(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, passed = super()._result(env_ids, command)
        config = self.config
        weak = np.maximum(_length(command[:, :2]), abs(command[:, 2])) < config.least_command
        moved = _length(self.simulator.root_pos[env_ids, :2] - self._mark[env_ids])
        speed = moved / (self._judged * CONTROL_DT)
        stopped = speed <= config.most_stop_speed
        return np.where(weak, speed, value), np.where(weak, stopped, passed)

    def _won(self) -> np.ndarray:
        return GuidedTask._won(self) & super()._won()

    def _task_reward(self) -> np.ndarray:
        way = self.clock > self._way_begins
        return np.where(way, ObstacleTask._task_reward(self), super()._task_reward())

    def _command(self, env_ids: np.ndarray | slice) -> np.ndarray:
        way = self.on_way()[env_ids, None]
        none = ObstacleTask._no_command(self)
        place = np.where(way, ObstacleTask._command(self, env_ids), none)
        return np.concatenate([super()._command(env_ids), place], 1)

    def _no_command(self) -> np.ndarray:
        return np.concatenate([np.zeros((1, 3)), super()._no_command()], 1)

    def _task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        kind = ObstacleTask if self.on_way()[env_id] else CommandedTask
        return kind._task_shown(self, env_id)


TASKS: dict[str, type[GuidedTask]] = {
    "walk_perturb": WalkPerturbTask,
    "joystick": JoystickTask,
    "waypoint": WaypointTask,
    "obstacle": ObstacleTask,
    "composition": CompositionTask,
}
assert TASKS.keys() == CONFIGS.keys() == TERMS.keys()


def moving_frames(motions: Sequence[str], travel: float) -> tuple[np.ndarray, np.ndarray]:
    """States of all frames of motions in which the robot is on its way: `qpos [F, 36]`, `qvel`.

    On its way: within the second around the frame the root covers `travel` m, or turns by so many
    rad. Roots stand over the world's origin.

    Raises:
        MotionError: a motion is unknown, or is not 50 frames per second; no frame moves.
    """
    clips = [clip for name in motions for clip in shared_motions(name)]
    qpos, qvel = _moving_frames(tuple(clips), travel)
    if not len(qpos):
        raise MotionError(
            f"No frame of {', '.join(motions)} moves by {travel:g} m or rad in the second around "
            "it; start_travel says how much it must be."
        )
    return qpos, qvel


@functools.lru_cache(maxsize=8)  # a clip is equal to itself alone
def _moving_frames(clips: tuple[Clip, ...], travel: float) -> tuple[np.ndarray, np.ndarray]:
    """The same of clips; read-only."""
    half = round(0.5 / CONTROL_DT)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for clip in clips:
        if abs(clip.fps * CONTROL_DT - 1.0) > 1e-6:
            raise MotionError(
                f"Motion '{clip.name}' has {clip.fps:g} frames/s, expected "
                f"{1 / CONTROL_DT:g}: a frame is a control step."
            )
        pos, quat, lin, ang = (
            array[:, 0].astype(float)
            for array in (
                clip.body_pos_w, clip.body_quat_w, clip.body_lin_vel_w, clip.body_ang_vel_w
            )
        )  # fmt: skip
        yaw = np.unwrap(quat_yaw(quat))
        moves = np.zeros(len(pos), bool)
        if len(pos) > 2 * half:
            covered = _length(pos[2 * half :, :2] - pos[: -2 * half, :2])
            turned = abs(yaw[2 * half :] - yaw[: -2 * half])
            moves[half:-half] = (covered >= travel) | (turned >= travel)
        root = pos * [0.0, 0.0, 1.0]
        qpos = np.concatenate([root, quat, clip.joint_pos], 1)
        qvel = np.concatenate([lin, quat_rotate_inverse(quat, ang), clip.joint_vel], 1)
        parts.append((qpos[moves], qvel[moves]))
    qpos, qvel = (np.concatenate(values) for values in zip(*parts, strict=True))
    for rows in (qpos, qvel):
        rows.setflags(write=False)
    return qpos, qvel


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


def _drives(config: GuidedConfig) -> dict[str, Sequence[float]]:
    """The robot table's drives, or the configured ones."""
    table = {
        "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
        "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
    }  # fmt: skip
    given = dataclasses.asdict(config.actuation)
    for name, values in given.items():
        if values is not None and len(values) != J:
            raise ConfigError(f"actuation.{name} has {len(values)} values, expected {J}.")
    return {
        name: tuple(table[name] if values is None else values) for name, values in given.items()
    }


def _length(vector: np.ndarray) -> np.ndarray:
    return np.sqrt((vector * vector).sum(-1))


def _turned(vector: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """`vector [..., 2]` turned by `yaw [...]`, rad."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = vector[..., 0], vector[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)
