"""The tracking task: order of one control step, and nothing of any engine.

Time: at frame t the robot is compared with reference frame t, and the observation shows frame
`t + lead`, the one to be reached by the next step. An episode starts at a frame t with the robot
put on the reference (reference state initialization) and is truncated when t reaches the clip's
last frame.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from bm_envs.backends.base import Simulator, SimulatorConfig
from bm_envs.errors import ConfigError, MotionError
from bm_envs.motion.clip import Clip
from bm_envs.motion.sampler import StartSampler
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import CRITIC_TERMS, layout, size
from bm_envs.rotations import dot, quat_from_euler, quat_mul, quat_rotate_inverse
from bm_envs.tasks.track import terms
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.kernel import Kernel
from bm_envs.tasks.track.rows import ANCHOR, END_EFFECTORS, FEET, J, Reference, Shown


@dataclasses.dataclass
class StepResult:
    """What one step did, before any reset. `[N]` each but for `values`."""

    reward: np.ndarray
    values: np.ndarray
    """`[N, R]`, the signed terms whose sum the reward is."""
    names: tuple[str, ...]
    """Of the terms, as in an environment's `info`: `reward_body_pos`, ..."""
    terminated: np.ndarray
    truncated: np.ndarray
    causes: dict[str, np.ndarray]


class TrackTask:
    """Tracking of one or several clips by N robots in a simulator."""

    def __init__(self, clips: Sequence[Clip], config: TrackConfig, num_envs: int) -> None:
        if not clips:
            raise MotionError("No motion was given, expected at least one.")
        for clip in clips:
            if abs(clip.fps * CONTROL_DT - 1.0) > 1e-6:
                raise MotionError(
                    f"Motion '{clip.name}' has {clip.fps:g} frames/s, expected {1 / CONTROL_DT:g}: "
                    "the reference advances one frame a control step."
                )
            if clip.num_frames < 3:
                raise MotionError(
                    f"Motion '{clip.name}' has {clip.num_frames} frames, expected 3+."
                )
        self.clips, self.config, self.num_envs = tuple(clips), config, num_envs
        self._reference_table = Reference.table(clips)
        self._shown_table = Shown.table(clips, config.lead)
        self.clip_frames = np.array([clip.num_frames for clip in clips])
        self._clip_start = np.concatenate([[0], np.cumsum(self.clip_frames)[:-1]])
        self._foot_contact_table = np.concatenate([clip.foot_contact for clip in clips])
        sampling = dataclasses.asdict(config.start)
        self.sampler = StartSampler(self.clip_frames, fps=1 / CONTROL_DT, **sampling)
        self._bins = np.concatenate([  # of every row of the tables
            self.sampler.bin_of(np.full(frames, clip_id), np.arange(frames))
            for clip_id, frames in enumerate(self.clip_frames)
        ])  # fmt: skip

        drive = config.actuation
        as32 = lambda values, table: np.asarray(  # noqa: E731
            table if values is None else values, np.float32
        )
        self.nominal_joint_pos = as32(drive.default_joint_pos, g1.DEFAULT_JOINT_POS)
        self.action_scale = as32(drive.action_scale, g1.ACTION_SCALE)
        self._soft_limits = tuple(g1.soft_joint_range().T.astype(np.float32).copy())
        self._start_range = (
            g1.JOINT_RANGE.astype(np.float32)
            if config.reset.joint_clip == "hard"
            else np.stack(self._soft_limits, axis=1)
        )
        feet = g1.FOOT_SPHERES if config.model.feet == "spheres" else g1.FOOT_CAPSULES
        points = [(geom, point) for geom in feet for point in (geom.start, geom.end) if point]
        self._sole_points = np.stack([  # [2, P, 3], equally many on both feet
            np.array([point for geom, point in points if geom.body == body], np.float32)
            for body in g1.FOOT_BODIES
        ])  # fmt: skip
        self._sole_radius = feet[0].radius

        self.observation_layout = layout(config.observations)
        self.observation_size = size(config.observations)
        self.critic_size = size(CRITIC_TERMS)
        place = layout(CRITIC_TERMS)  # the critic's terms are all terms
        # The policy's observation as stretches of the critic's, as long as they go.
        self._policy_columns: list[slice] = []
        for part in (place[name] for name in config.observations):
            if self._policy_columns and self._policy_columns[-1].stop == part.start:
                part = slice(self._policy_columns.pop().start, part.stop)
            self._policy_columns.append(part)
        noise = np.zeros(self.observation_size, np.float32)
        for name, level in dataclasses.asdict(config.noise_level).items():
            if name in self.observation_layout:
                noise[self.observation_layout[name]] = level
        noisy = np.flatnonzero(noise)
        # The stretch that has noise; in the standard orders no other value lies in it.
        self._noisy = slice(noisy[0], noisy[-1] + 1) if noisy.size else slice(0, 0)
        self._noise_level = noise[self._noisy]
        self._noise = self._noise_level, 2.0 * self._noise_level
        self._noise_of = 1.0  # the disturbance that it is for
        self._episode_steps = (
            None if config.episode_s is None else max(1, round(config.episode_s / CONTROL_DT))
        )

        self._kernel: Kernel | None = None
        n = num_envs
        self.clip_id = np.zeros(n, np.int64)
        self.frame = np.zeros(n, np.int64)
        self.episode_step = np.zeros(n, np.int64)
        self.action = np.zeros((n, J), np.float32)
        self._last_action = np.zeros((n, J), np.float32)
        # Of two steps ago and of one, noted in a step for the rewards that want them.
        self._older_action = np.zeros((n, J), np.float32)
        self._last_joint_vel = np.zeros((n, J), np.float32)
        self.default_joint_pos = np.tile(self.nominal_joint_pos, (n, 1))
        self._next_push = np.zeros(n, np.int64)
        # Joint targets not yet applied, the newest first, and how many steps each robot waits.
        longest = config.randomize.action_delay if config.randomization else 0
        self._sent = np.zeros((longest + 1, n, J), np.float32)
        self.action_delay = np.zeros(n, np.int64)
        self._everyone = np.arange(n)
        # Scale of start noise, observation noise and pushes; a trainer may raise it from 0 as the
        # policy learns.
        self.disturbance = 1.0
        # Scale of `failure_distance`; a trainer may change it as the policy learns.
        self.leash = 1.0
        # Frame t, with which the robot is compared, and frame t + lead.
        self.reference = Reference(np.zeros((n, Reference.SIZE), np.float32))
        self._shown = Shown(np.zeros((n, Shown.SIZE), np.float32))
        # The anchor's place and axes at the last observation, of which targets may be made.
        self._stale_pos = np.zeros((n, 3), np.float32)
        self._stale_axes = np.zeros((n, 3, 3), np.float32)
        self._row = np.zeros(n, np.int64)  # of the tables, at the present frame
        # Of the robot's clip: its first row in the tables, and its last frame.
        self._first_row, self._last_frame = np.zeros(n, np.int64), np.zeros(n, np.int64)
        reward = config.rewards
        self._widths = np.array([
            reward.anchor_pos_std, reward.anchor_ori_std, reward.body_pos_std, reward.body_ori_std,
            reward.body_lin_vel_std, reward.body_ang_vel_std,
        ], np.float32)  # fmt: skip
        names, self._options = terms.reward_names(config)
        self._weights = np.array([getattr(reward, k) * CONTROL_DT for k in names], np.float32)
        self._option_weights = np.array(
            [getattr(reward, name) * CONTROL_DT for name in self._options], np.float32
        )
        self.reward_names = tuple(f"reward_{name}" for name in (*names, *self._options))
        self._rule_names = terms.rule_names(config)

    def attach(self, simulator: Simulator) -> None:
        """Use this simulator, built from `simulator_config`."""
        self.simulator = simulator
        self._kernel = (
            Kernel(self, ANCHOR, np.array(END_EFFECTORS)) if Kernel.serves(self) else None
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kernel": None}  # it holds addresses

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "simulator" in state:
            self.attach(state["simulator"])

    def simulator_config(self, threads: int = 0) -> SimulatorConfig:
        """What the task needs simulated."""
        config = self.config
        return SimulatorConfig(
            num_envs=self.num_envs, model=config.model, decimation=config.decimation,
            stiffness=config.actuation.stiffness, damping=config.actuation.damping,
            threads=threads,
        )  # fmt: skip

    # --- one episode start ---------------------------------------------------------------------

    def startup(self, rng: np.random.Generator) -> None:
        """Draw what stays with a robot for its life; call once, and again when reseeded."""
        if self.config.randomization and self.config.randomize.when == "startup":
            self._randomize(np.arange(self.num_envs), rng)

    def reset(
        self, env_ids: np.ndarray, rng: np.random.Generator, *, clip_id: np.ndarray | None = None,
        frame: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Start episodes of the robots `env_ids [M]` on the reference, with noise if configured.

        Args:
            env_ids: which robots.
            rng: source of every draw.
            clip_id: `[M]`, clips to play; drawn, or dealt out in turn where starts are `first`.
            frame: `[M]`, start frames in `[0, T - 2]`; drawn, or 0, when None.
        """
        config, count = self.config, len(env_ids)
        if config.randomization and config.randomize.when == "reset":
            self._randomize(env_ids, rng)
        if frame is None and clip_id is None and config.start.mode != "first":
            clip_id, frame = self.sampler.sample(rng, count)
        if clip_id is None:
            clip_id = env_ids % len(self.clips)
        if frame is None:
            frame = np.zeros(count, np.int64)
        self.clip_id[env_ids], self.frame[env_ids] = clip_id, frame
        self.episode_step[env_ids] = 0
        self.action[env_ids] = 0.0
        self._last_action[env_ids] = 0.0
        self._draw_push_times(env_ids, rng)

        start = Reference(self._reference_table[self._clip_start[clip_id] + frame])
        root_pos, root_quat = start.body_pos[:, 0].copy(), start.body_quat[:, 0].copy()
        lin_vel, ang_vel = start.body_lin_vel[:, 0].copy(), start.body_ang_vel[:, 0].copy()
        joint_pos = start.joint_pos.copy()
        if config.reset_noise:
            noise, scale = config.reset, np.float32(self.disturbance)
            root_pos += scale * _uniform(rng, noise.pos, (count, 3))
            turn = scale * _uniform(rng, noise.rot, (count, 3))
            root_quat = quat_mul(quat_from_euler(turn[:, 0], turn[:, 1], turn[:, 2]), root_quat)
            lin_vel += scale * _uniform(rng, noise.lin_vel, (count, 3))
            ang_vel += scale * _uniform(rng, noise.ang_vel, (count, 3))
            joint_pos += scale * _uniform(rng, noise.joint_pos, (count, J))
            joint_pos = np.clip(joint_pos, self._start_range[:, 0], self._start_range[:, 1])
        qpos = np.concatenate([root_pos, root_quat, joint_pos], axis=1)
        qvel = np.concatenate(
            [lin_vel, quat_rotate_inverse(root_quat, ang_vel), start.joint_vel], axis=1
        )
        self.simulator.reset(env_ids, qpos, qvel)
        if longest := len(self._sent) - 1:
            self.action_delay[env_ids] = rng.integers(0, longest, count, endpoint=True)
            self._sent[:, env_ids] = joint_pos  # until the first action gets through
        if config.reset_noise and config.reset.lift_feet:
            depth = -self._lowest_sole_point(env_ids)
            under = depth > 0
            if under.any():
                self.simulator.lift(env_ids[under], depth[under])
        self._first_row[env_ids] = self._clip_start[clip_id]
        self._last_frame[env_ids] = self.clip_frames[clip_id] - 1
        self._gather(env_ids)
        self._remember_anchor(env_ids)

    # --- one control step ----------------------------------------------------------------------

    def step(self, action: np.ndarray) -> StepResult:
        """Apply raw actions `[N, 29]` and compare the result with the frame that was to be reached.

        Order: physics (everything derived is fresh when it returns) -> frame t + 1 -> anchored
        targets from the robot's present anchor -> rewards -> terminations. Nothing is reset here.
        """
        sim = self.simulator
        if self._options:
            self._older_action[:] = self._last_action
            self._last_joint_vel[:] = sim.joint_vel
        self._last_action, self.action = self.action, self._last_action
        self.action[:] = action
        sim.step(self._delayed(self.default_joint_pos + self.action_scale * self.action))
        self._advance()
        diverged = sim.diverged()
        if self._kernel is not None:
            reward, values, failures, terminated, any_diverged = self._kernel.terms(diverged)
            self._kernel.record()
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # diverged robots: see below
                reward, values, failures = self._terms()
            terminated = functools.reduce(np.logical_or, failures, diverged)
            any_diverged = diverged.any()
            self.sampler.record(self._bins[self._row], terminated)
        if self._options:
            with np.errstate(over="ignore", invalid="ignore"):
                more = self._optional_terms()
            reward += more.sum(1)
            values = np.concatenate([values, more], 1)
        causes = {"diverged": diverged, **dict(zip(self._rule_names, failures, strict=False))}
        truncated = self.frame >= self._last_frame
        causes["clip_end"] = truncated
        if self._episode_steps is not None:
            causes["time_limit"] = self.episode_step >= self._episode_steps
            truncated = truncated | causes["time_limit"]
        if any_diverged:
            reward[diverged] = values[diverged] = 0.0
        truncated = truncated & ~terminated
        return StepResult(reward, values, self.reward_names, terminated, truncated, causes)

    def follow(self, action: np.ndarray) -> None:
        """Take note of a step under raw actions `[N, 29]` that another task did.

        It has the same simulator. What `observe` shows is as after `step`; nothing is compared.
        """
        self._last_action, self.action = self.action, self._last_action
        self.action[:] = action
        self._advance()

    def push(self, rng: np.random.Generator, allowed: np.ndarray) -> None:
        """Shove the robots whose time has come and which are `allowed [N]`."""
        if not self.config.pushes:
            return
        (due,) = ((self.episode_step >= self._next_push) & allowed).nonzero()
        if due.size:
            level = self.config.push
            scale = np.float32(self.disturbance)
            lin = scale * _uniform(rng, level.lin_vel, (due.size, 3))
            ang = scale * _uniform(rng, level.ang_vel, (due.size, 3))
            self.simulator.push(due, lin, ang)
            self._draw_push_times(due, rng)

    def observe(
        self, env_ids: np.ndarray | slice, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observations of policy, `[M, O]`, and critic, `[M, 286]`.

        The policy's is noisy when configured and `rng` is given.
        """
        if self._kernel is None:
            policy, critic = self._observations(env_ids)
        else:
            policy, critic = self._kernel.observe(None if isinstance(env_ids, slice) else env_ids)
        if self.config.noise and rng is not None:
            level, span = self._noise_now()
            noise = rng.random((len(policy), level.size), dtype=np.float32)
            noise *= span
            noise -= level
            policy[:, self._noisy] += noise
        return policy, critic

    def _noise_now(self) -> tuple[np.ndarray, np.ndarray]:
        """Half-width and width of the observation noise at the present disturbance."""
        if self._noise_of != self.disturbance:
            level = np.float32(self.disturbance) * self._noise_level
            self._noise_of, self._noise = self.disturbance, (level, 2.0 * level)
        return self._noise

    def reference_action(self) -> np.ndarray:
        """Raw actions whose nominal joint targets are the present frame's pose. `[N, 29]`."""
        return (self.reference.joint_pos - self.nominal_joint_pos) / self.action_scale

    def tracking_errors(self) -> dict[str, np.ndarray]:
        """See `terms.tracking_errors`: of the last step, before any reset."""
        return terms.tracking_errors(self.simulator, self.reference)

    # --- state ---------------------------------------------------------------------------------

    _STATE = (
        "clip_id", "frame", "episode_step", "action", "_last_action", "default_joint_pos",
        "_next_push", "_stale_pos", "_stale_axes",
    )  # fmt: skip

    def _state_names(self) -> tuple[str, ...]:
        return (*self._STATE, "action_delay", "_sent") if len(self._sent) > 1 else self._STATE

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs besides the simulator's state."""
        state = {name: np.array(getattr(self, name)) for name in self._state_names()}
        return state | {
            "disturbance": np.array(self.disturbance),
            "leash": np.array(self.leash),
            "sampler.failures": self.sampler.failures.copy(),
            "sampler.visits": self.sampler.visits.copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned; the simulator must be restored already."""
        for name in self._state_names():
            value = getattr(self, name)
            if value.shape != state[name].shape:
                raise ConfigError(
                    f"Saved environment state has {name} of shape {state[name].shape}, expected "
                    f"{value.shape}."
                )
            value[:] = state[name]
        self.disturbance = state["disturbance"].item()
        self.leash = state["leash"].item()
        self.sampler.failures[:] = state["sampler.failures"]
        self.sampler.visits[:] = state["sampler.visits"]
        self._first_row[:] = self._clip_start[self.clip_id]
        self._last_frame[:] = self.clip_frames[self.clip_id] - 1
        self._gather()

    # --- parts ---------------------------------------------------------------------------------

    def _advance(self) -> None:
        """On to the reference's next frame."""
        self.frame += 1
        self.episode_step += 1
        self._gather()

    def _delayed(self, targets: np.ndarray) -> np.ndarray:
        """Of the joint targets sent, the last ones `targets [N, 29]`, those that arrive now."""
        if len(self._sent) == 1:
            return targets
        self._sent[1:] = self._sent[:-1].copy()
        self._sent[0] = targets
        return self._sent[self.action_delay, self._everyone]

    def _gather(self, env_ids: np.ndarray | None = None) -> None:
        """Look up the reference at the present frame of robots `env_ids [M]`, or of all."""
        if env_ids is not None:
            row = self._row[env_ids] = self._first_row[env_ids] + self.frame[env_ids]
            self.reference.rows[env_ids] = self._reference_table[row]
            self._shown.rows[env_ids] = self._shown_table[row]
            return
        if self._kernel is not None:
            self._kernel.gather()
            return
        # A robot that waits for its reset may be past the end.
        np.minimum(self.frame, self._last_frame, out=self._row)
        self._row += self._first_row
        self._reference_table.take(self._row, 0, self.reference.rows, "clip")
        self._shown_table.take(self._row, 0, self._shown.rows, "clip")

    def _observations(self, env_ids: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Observations of policy and critic, without noise."""
        with np.errstate(over="ignore", invalid="ignore"):  # of robots that are about to diverge
            values = terms.observation_values(
                self.simulator, self._shown, self.action, self.default_joint_pos, env_ids
            )
        self._remember_anchor(env_ids)
        critic = np.concatenate([values[name] for name in CRITIC_TERMS], axis=1)
        policy = np.concatenate([critic[:, part] for part in self._policy_columns], axis=1)
        return policy, critic

    def _remember_anchor(self, env_ids: np.ndarray | slice) -> None:
        if self.config.stale_targets:
            self._stale_pos[env_ids] = self.simulator.body_pos[env_ids, ANCHOR]
            self._stale_axes[env_ids] = self.simulator.body_axes[env_ids, ANCHOR]

    def _terms(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Reward `[N]`, its signed terms `[N, R]`, and failures by the rules of `_rule_names`."""
        sim, ref = self.simulator, self.reference
        anchor = (
            (self._stale_pos, self._stale_axes)
            if self.config.stale_targets
            else (sim.body_pos[:, ANCHOR], sim.body_axes[:, ANCHOR])
        )
        values = np.stack(terms.reward_values(
            sim, ref, self.config, action=self.action, last_action=self._last_action,
            anchor=anchor, widths=self._widths, soft_limits=self._soft_limits,
        ), 1).astype(np.float32)  # fmt: skip
        reward = values @ self._weights
        values *= self._weights
        return reward, values, terms.failures(sim, ref, self.config, self.leash)

    def _optional_terms(self) -> np.ndarray:
        """The signed terms of `_options`. `[N, len]`."""
        values = terms.optional_values(
            self.simulator, self.config, self._options,
            ref_contact=self._foot_contact_table[self._row], last_joint_vel=self._last_joint_vel,
            actions=(self.action, self._last_action, self._older_action),
        )  # fmt: skip
        return np.stack(values, 1).astype(np.float32) * self._option_weights

    def _lowest_sole_point(self, env_ids: np.ndarray) -> np.ndarray:
        """Height of the lowest point of the feet, m. `[M]`."""
        sim = self.simulator
        feet = list(FEET)
        ups = sim.body_axes[env_ids][:, feet][..., 2]  # by how much each axis of a foot goes up
        heights = sim.body_pos[env_ids][:, feet, 2:] + dot(self._sole_points, ups[:, :, None])
        return heights.min((1, 2)) - self._sole_radius

    def _draw_push_times(self, env_ids: np.ndarray, rng: np.random.Generator) -> None:
        if self.config.pushes:
            low, high = self.config.push.interval_s
            wait = rng.uniform(low, high, len(env_ids)) / CONTROL_DT
            self._next_push[env_ids] = self.episode_step[env_ids] + wait.astype(np.int64)

    def _randomize(self, env_ids: np.ndarray, rng: np.random.Generator) -> None:
        level, count = self.config.randomize, len(env_ids)
        self.simulator.randomize(
            env_ids,
            foot_friction=rng.uniform(*level.foot_friction, count),
            torso_com_offset=_uniform(rng, level.torso_com, (count, 3)),
        )
        self.default_joint_pos[env_ids] = self.nominal_joint_pos + _uniform(
            rng, level.joint_offset, (count, J)
        )


def _uniform(
    rng: np.random.Generator, half_width: float | Sequence[float], shape: tuple[int, ...]
) -> np.ndarray:
    """Uniform in `[-half_width, half_width)`, float32."""
    level = np.asarray(half_width, np.float32)
    return (2.0 * rng.random(shape, dtype=np.float32) - 1.0) * level
