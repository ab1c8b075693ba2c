"""The tracking task: order of one control step, and nothing of any engine.

Time: at frame t the robot is compared with reference frame t, and the observation shows frame
`t + lead`, the one to be reached by the next step. An episode starts at a frame t with the robot
put on the reference (reference state initialization) and is truncated when t reaches the clip's
last frame.

It is written once. The engine decides by its arrays whether robots are chosen by number and work is
done for those alone (NumPy), or by mask and work is done for all (torch): `bm_envs.arrays` has the
few verbs that differ. `who` below is numbers `[M]` or a mask `[N]`; `[M]` rows are then N.

One file because all that happens to a robot, in its order, is one story.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from bm_envs.arrays import EVERYONE, NUMPY, Array, Arrays, Generator, arrays_of
from bm_envs.backends.base import Simulator, SimulatorConfig
from bm_envs.motion.clip import Clip
from bm_envs.motion.sampler import StartSampler
from bm_envs.robots.observation_terms import CRITIC_TERMS
from bm_envs.rotations import namespace, quat_from_euler, quat_mul, quat_rotate_inverse
from bm_envs.tasks.track import terms
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.kernel import Kernel
from bm_envs.tasks.track.rows import ANCHOR, Reference, Shown
from bm_envs.tasks.track.state import State
from bm_envs.tasks.track.tables import make_tables


@dataclasses.dataclass
class StepResult:
    """What one step did, before any reset. `[N]` each but for `values`."""

    reward: Array
    values: Array
    """`[N, R]`, the signed terms whose sum the reward is."""
    names: tuple[str, ...]
    """Of the terms, as in an environment's `info`: `reward_body_pos`, ..."""
    terminated: Array
    truncated: Array
    causes: dict[str, Array]


def _of_state(name: str) -> property:
    """An array of the state, by the name that users know."""
    return property(lambda self: getattr(self.state, name), doc=f"See `State.{name}`.")


class TrackTask:
    """Tracking of one or several clips by N robots in a simulator.

    Attributes:
        clips: what is tracked.
        config: every number of the task.
        robot: which robot they are; J joints in place of 29.
        num_envs: N.
        tables: constants, as NumPy arrays.
        sampler: of the frames at which episodes start.
        state: what changes, in the engine's arrays; there once a simulator is attached.
    """

    clip_id = _of_state("clip_id")
    frame = _of_state("frame")
    episode_step = _of_state("episode_step")
    action = _of_state("action")
    default_joint_pos = _of_state("default_joint_pos")
    action_delay = _of_state("action_delay")
    reference = _of_state("reference")

    def __init__(self, clips: Sequence[Clip], config: TrackConfig, num_envs: int) -> None:
        self.clips, self.config, self.num_envs = tuple(clips), config, num_envs
        self.robot = config.model.table
        self.tables = tables = make_tables(clips, config)
        self.sampler = StartSampler(
            tables.clip_frames, fps=1 / CONTROL_DT, **dataclasses.asdict(config.start)
        )
        self.clip_frames = tables.clip_frames
        self.nominal_joint_pos, self.action_scale = tables.nominal_joint_pos, tables.action_scale
        self.observation_layout = tables.observation_layout
        self.observation_size, self.critic_size = tables.observation_size, tables.critic_size
        self.reward_names = tables.reward_names
        self._arrays: Arrays = NUMPY
        self._kernel: Kernel | None = None

    def attach(self, simulator: Simulator) -> None:
        """Use this simulator, built from `simulator_config`, for robots that have not begun."""
        self.simulator = simulator
        self._arrays = arrays_of(simulator.root_pos)
        self._tables = self.tables.to(self._arrays)
        self.sampler = self.sampler.to(self._arrays)
        delay = self.config.randomize.action_delay if self.config.randomization else 0
        self.state = State.zeros(self.num_envs, delay, self._arrays, self.robot.num_joints)
        self.state.default_joint_pos[:] = self._tables.nominal_joint_pos
        self._everyone = self._arrays.everyone(self.num_envs)
        self._numbers = self._arrays.array(np.arange(self.num_envs))
        self._compile()

    def _compile(self) -> None:
        """Have the arithmetic done by compiled code where there is any."""
        self._kernel = Kernel.of(self.tables, self.state, self.simulator, self.config, self.sampler)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kernel": None}  # it holds addresses

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "simulator" in state:
            self._compile()

    def simulator_config(self, threads: int = 0) -> SimulatorConfig:
        """What the task needs simulated."""
        config = self.config
        return SimulatorConfig(
            num_envs=self.num_envs, model=config.model, decimation=config.decimation,
            stiffness=config.actuation.stiffness, damping=config.actuation.damping,
            bodies=self.robot.tracked_bodies, threads=threads,
        )  # fmt: skip

    # --- how hard it is ------------------------------------------------------------------------

    @property
    def disturbance(self) -> Any:
        """Scale of start noise, observation noise and pushes; a trainer may raise it from 0."""
        return self.state.disturbance

    @disturbance.setter
    def disturbance(self, value: float) -> None:
        self.state.disturbance = self._arrays.scale(value, self.state.disturbance)

    @property
    def failure_distance_scale(self) -> Any:
        """Scale of `TrackConfig.failure_distance`; a trainer may change it."""
        return self.state.failure_distance_scale

    @failure_distance_scale.setter
    def failure_distance_scale(self, value: float) -> None:
        present = self.state.failure_distance_scale
        self.state.failure_distance_scale = self._arrays.scale(value, present)

    leash = failure_distance_scale  # its name in version 0.1

    # --- one episode start ---------------------------------------------------------------------

    def startup(self, rng: Generator) -> None:
        """Draw what stays with a robot for its life; call once, and again when reseeded."""
        if self.config.randomization and self.config.randomize.when == "startup":
            self._randomize(self._everyone, rng)

    def reset(
        self, who: Array, rng: Generator, *, clip_id: Array | None = None,
        frame: Array | None = None,
    ) -> None:  # fmt: skip
        """Start episodes of the robots `who` on the reference, with noise if configured.

        Args:
            who: which robots.
            rng: source of every draw.
            clip_id: `[M]`, clips to play; drawn, or dealt out in turn where starts are `first`.
            frame: `[M]`, start frames in `[0, T - 2]`; drawn, or 0, when None.
        """
        config, state, tables, on = self.config, self.state, self._tables, self._arrays
        if config.randomization and config.randomize.when == "reset":
            self._randomize(who, rng)
        if frame is None and clip_id is None and config.start.mode != "first":
            clip_id, frame = self.sampler.sample(rng, on.count(who))
        if clip_id is None:
            clip_id = on.take(self._numbers, who) % len(self.clips)
        if frame is None:
            frame = on.zeros((on.count(who),), "int64")
        first_row = tables.first_row[clip_id]
        on.put(state.clip_id, who, clip_id)
        on.put(state.frame, who, frame)
        on.put(state.first_row, who, first_row)
        on.put(state.last_frame, who, tables.clip_frames[clip_id] - 1)
        for array in (state.episode_step, state.action, state.last_action):
            on.put(array, who, 0)
        self._draw_push_times(who, rng)
        qpos, qvel = self._start_states(Reference(tables.reference[first_row + frame]), rng)
        self.simulator.reset(who, qpos, qvel)
        if longest := len(state.sent) - 1:
            on.put(state.action_delay, who, on.integers(rng, longest, len(qpos)))
            for sent in state.sent:
                on.put(sent, who, qpos[:, 7:])  # until the first action gets through
        if config.reset_noise and config.reset.lift_feet:
            body_pos, body_axes = self.simulator.body_pos, self.simulator.body_axes
            height = terms.lowest_sole_point(
                on.take(body_pos, who), on.take(body_axes, who), tables.sole_points,
                tables.sole_radius,
            )  # fmt: skip
            self.simulator.lift(who, (-height).clip(min=0.0))
        self._look_up(who)
        self._remember_anchor(who)

    def _start_states(self, start: Reference, rng: Generator) -> tuple[Array, Array]:
        """States `qpos [M, 36]`, `qvel [M, 35]` about reference frames, see `Simulator.reset`."""
        config, tables, count = self.config, self._tables, len(start.rows)
        root_pos, root_quat = start.body_pos[:, 0], start.body_quat[:, 0]
        lin_vel, ang_vel = start.body_lin_vel[:, 0], start.body_ang_vel[:, 0]
        joint_pos = start.joint_pos
        if config.reset_noise:
            root_pos = root_pos + self._disturbances(rng, tables.start_pos, count, 3)
            turn = self._disturbances(rng, tables.start_rot, count, 3)
            root_quat = quat_mul(quat_from_euler(turn[:, 0], turn[:, 1], turn[:, 2]), root_quat)
            lin_vel = lin_vel + self._disturbances(rng, tables.start_lin_vel, count, 3)
            ang_vel = ang_vel + self._disturbances(rng, tables.start_ang_vel, count, 3)
            joint_pos = joint_pos + self._disturbances(
                rng, config.reset.joint_pos, count, self.robot.num_joints
            )
            joint_pos = joint_pos.clip(tables.start_low, tables.start_high)
        concatenate = namespace(root_pos).concatenate
        return (
            concatenate([root_pos, root_quat, joint_pos], 1),
            concatenate([lin_vel, quat_rotate_inverse(root_quat, ang_vel), start.joint_vel], 1),
        )

    # --- one control step ----------------------------------------------------------------------

    def step(self, action: Array) -> StepResult:
        """Apply raw actions `[N, 29]` and compare the result with the frame that was to be reached.

        Order: physics (everything derived is fresh when it returns) -> frame t + 1 -> anchored
        targets from the robot's present anchor -> rewards -> terminations. Nothing is reset here.
        """
        state, tables, sim = self.state, self._tables, self.simulator
        if tables.options:
            state.older_action[:] = state.last_action
            state.last_joint_vel[:] = sim.joint_vel
        self._note(action)
        sim.step(self._delayed(state.default_joint_pos + tables.action_scale * state.action))
        self._advance()
        diverged = sim.diverged()
        reward, values, failures, terminated = self._compare(diverged)
        if tables.options:
            more = self._optional_terms()
            reward = reward + more.sum(1)
            values = namespace(values).concatenate([values, more], 1)
        causes = {"diverged": diverged, **dict(zip(tables.rule_names, failures, strict=False))}
        truncated = state.frame >= state.last_frame
        causes["clip_end"] = truncated
        if tables.episode_steps is not None:
            causes["time_limit"] = state.episode_step >= tables.episode_steps
            truncated = truncated | causes["time_limit"]
        self._arrays.put(reward, diverged, 0.0)
        self._arrays.put(values, diverged, 0.0)
        truncated = truncated & ~terminated
        return StepResult(reward, values, self.reward_names, terminated, truncated, causes)

    def follow(self, action: Array) -> None:
        """Take note of a step under raw actions `[N, 29]` that another task did.

        It has the same simulator. What `observe` shows is as after `step`; nothing is compared.
        """
        self._note(action)
        self._advance()

    def push(self, rng: Generator, allowed: Array) -> None:
        """Push the robots whose time has come and which are `allowed [N]`."""
        if not self.config.pushes:
            return
        tables, on = self._tables, self._arrays
        due = on.which((self.state.episode_step >= self.state.next_push) & allowed)
        if on.some(due):
            lin_vel = self._disturbances(rng, tables.push_lin_vel, on.count(due), 3)
            ang_vel = self._disturbances(rng, tables.push_ang_vel, on.count(due), 3)
            self.simulator.push(due, lin_vel, ang_vel)
            self._draw_push_times(due, rng)

    def observe(self, who: Array | slice, rng: Generator | None) -> tuple[Array, Array]:
        """Observations of policy, `[M, O]`, and critic, `[M, 286]`.

        The policy's has noise when configured, unless `rng` is None. Where robots are chosen by
        mask, `who` is `EVERYONE`.
        """
        tables = self._tables
        if self._kernel is not None:
            policy, critic = self._kernel.observe(None if isinstance(who, slice) else who)
        else:
            critic = self.critic_observation(who)
            columns = [critic[:, part] for part in tables.policy_columns]
            policy = namespace(critic).concatenate(columns, 1)
            self._remember_anchor(who)
        if self.config.noise and rng is not None:
            level = self.disturbance * tables.noise_level
            policy[:, tables.noisy] += self._arrays.noise(rng, level, len(policy))
        return policy, critic

    def critic_observation(self, who: Array | slice) -> Array:
        """What the critic sees of the present states, which has no noise. `[M, 286]`."""
        with np.errstate(over="ignore", invalid="ignore"):  # of robots that are about to diverge
            values = terms.observation_values(
                self.simulator, self.state.shown, self.action, self.default_joint_pos, who
            )
        parts = [values[name] for name in CRITIC_TERMS]
        return namespace(parts[0]).concatenate(parts, 1)

    def reference_action(self) -> Array:
        """Raw actions whose nominal joint targets are the present frame's pose. `[N, 29]`."""
        tables = self._tables
        return (self.reference.joint_pos - tables.nominal_joint_pos) / tables.action_scale

    def joint_targets(self) -> Array:
        """Joint targets, rad, that the drives held in the last step, delays included. `[N, 29]`."""
        state = self.state
        if len(state.sent) == 1:
            return state.default_joint_pos + self._tables.action_scale * state.action
        return state.sent[state.action_delay, self._numbers]

    def tracking_errors(self) -> dict[str, Array]:
        """See `terms.tracking_errors`: of the last step, before any reset."""
        return terms.tracking_errors(terms.Compared.of(self.simulator, self.reference))

    def frame_numbers(self) -> tuple[Array, Array]:
        """Numbers of the present frames, and of their clips' last frames. `[N]` each.

        All clips' frames are counted on, so that what is kept does not depend on rows of tables.
        """
        start = self._tables.clip_start[self.state.clip_id]
        return start + self.state.frame, start + self.state.last_frame

    # --- state ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs besides the simulator's state."""
        failures, visits = self.sampler.failures, self.sampler.visits
        return self.state.save() | {
            "sampler.failures": np.array(NUMPY.array(failures)),
            "sampler.visits": np.array(NUMPY.array(visits)),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned; the simulator must be restored already."""
        on, clip_id = self._arrays, self.state.clip_id
        self.state.load(state, on)
        on.put(self.sampler.failures, EVERYONE, on.array(state["sampler.failures"]))
        on.put(self.sampler.visits, EVERYONE, on.array(state["sampler.visits"]))
        on.put(self.state.first_row, EVERYONE, self._tables.first_row[clip_id])
        on.put(self.state.last_frame, EVERYONE, self._tables.clip_frames[clip_id] - 1)
        self._look_up(EVERYONE)

    # --- parts ---------------------------------------------------------------------------------

    def _note(self, action: Array) -> None:
        self.state.last_action[:] = self.state.action
        self.state.action[:] = action

    def _delayed(self, targets: Array) -> Array:
        """Of the joint targets sent, the last ones `targets [N, 29]`, those that arrive now."""
        sent = self.state.sent
        if len(sent) == 1:
            return targets
        for age in range(len(sent) - 1, 0, -1):
            sent[age] = sent[age - 1]
        sent[0] = targets
        return sent[self.state.action_delay, self._numbers]

    def _advance(self) -> None:
        """On to the reference's next frame."""
        self.state.frame += 1
        self.state.episode_step += 1
        self._look_up(EVERYONE)

    def _look_up(self, who: Array | slice) -> None:
        """Look up the reference at the present frame of the robots `who`."""
        if self._kernel is not None and isinstance(who, slice):
            self._kernel.look_up()
            return
        state, tables, on = self.state, self._tables, self._arrays
        frame, last = on.take(state.frame, who), on.take(state.last_frame, who)
        least, first = namespace(frame).minimum, on.take(state.first_row, who)
        # A robot that waits for its reset may be past the end.
        row = least(frame, last) + first
        on.put(state.row, who, row)
        on.put(state.reference.rows, who, tables.reference[row])
        shown = Reference(tables.reference[least(frame + self.config.lead, last) + first])
        on.put(state.shown.rows, who, Shown.of(shown))

    def _compare(self, diverged: Array) -> tuple[Array, Array, Sequence[Array], Array]:
        """Compare the robots with their references, and count them in the statistics of starts.

        Returns:
            Reward `[N]`; its signed terms `[N, R]`; failures by the rules of `Tables.rule_names`,
            `[N]` each; and who is terminated, by one of them or as `diverged [N]`.
        """
        scale = self.failure_distance_scale
        if self._kernel is not None:
            compared = self._kernel.compare(diverged, scale)
            self._kernel.record()
            return compared
        sim, state, tables, on = self.simulator, self.state, self._tables, self._arrays
        anchor = (
            (state.stale_pos, state.stale_axes)
            if self.config.stale_targets
            else (sim.body_pos[:, ANCHOR], sim.body_axes[:, ANCHOR])
        )
        with np.errstate(over="ignore", invalid="ignore"):  # of diverged robots, whose reward is 0
            values = on.stack(terms.reward_values(
                sim, state.reference, self.config, action=state.action,
                last_action=state.last_action, anchor=anchor, widths=tables.widths,
                soft_limits=(tables.soft_low, tables.soft_high),
            ))  # fmt: skip
            reward = on.weighted_sum(values, tables.weights)
            values *= tables.weights
            failures = terms.failures(sim, state.reference, self.config, scale)
        terminated = functools.reduce(operator.or_, failures, diverged)
        frame = namespace(state.frame).minimum(state.frame, state.last_frame)
        self.sampler.record(self.sampler.bin_of(state.clip_id, frame), terminated)
        return reward, values, failures, terminated

    def _optional_terms(self) -> Array:
        """The signed terms of `Tables.options`. `[N, E]`."""
        state, tables = self.state, self._tables
        with np.errstate(over="ignore", invalid="ignore"):  # as above
            values = terms.optional_values(
                self.simulator, self.config, tables.options,
                ref_contact=tables.foot_contact[state.row] if len(tables.foot_contact) else None,
                last_joint_vel=state.last_joint_vel,
                actions=(state.action, state.last_action, state.older_action),
            )  # fmt: skip
            return self._arrays.stack(values) * tables.option_weights

    def _remember_anchor(self, who: Array | slice) -> None:
        if self.config.stale_targets:
            on, sim = self._arrays, self.simulator
            on.put(self.state.stale_pos, who, on.take(sim.body_pos, who)[:, ANCHOR])
            on.put(self.state.stale_axes, who, on.take(sim.body_axes, who)[:, ANCHOR])

    def _draw_push_times(self, who: Array, rng: Generator) -> None:
        if self.config.pushes:
            on, state = self._arrays, self.state
            wait = on.uniform(rng, *self.config.push.interval_s, on.count(who)) / CONTROL_DT
            steps = on.take(state.episode_step, who) + on.truncated(wait)
            on.put(state.next_push, who, steps)

    def _randomize(self, who: Array, rng: Generator) -> None:
        level, tables, on, count = (
            self.config.randomize, self._tables, self._arrays, self._arrays.count(who)
        )  # fmt: skip
        friction = on.uniform(rng, *level.foot_friction, count)
        shift = on.symmetric(rng, count, 3) * tables.torso_com
        self.simulator.randomize(who, foot_friction=friction, torso_com_offset=shift)
        on.put(self.state.build, who, on.stack([friction, *shift.T]))
        offset = on.symmetric(rng, count, self.robot.num_joints) * tables.joint_offset
        on.put(self.state.default_joint_pos, who, tables.nominal_joint_pos + offset)

    def _disturbances(self, rng: Generator, half_width: Array | float, *shape: int) -> Array:
        """Uniform in plus and minus that half-width, at the present disturbance."""
        return self.disturbance * (self._arrays.symmetric(rng, *shape) * half_width)
