"""The tracking task on the engine's own device: torch tensors, and no robot waits for the host.

What `TrackTask` does robot by robot is done here for all of them under a mask, so that a control
step is the same sequence of kernels whatever happens in it. On a GPU it is captured once, physics
and task together, and replayed as one CUDA graph. Rewards, failures and observations are those of
`terms.py`, as on the CPU; draws are the device's own, so that a seed gives other episodes there.

Episodes end and begin in the same step, as with `autoreset_mode="same_step"`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm_envs.backends.base import Simulator, make_simulator
from bm_envs.errors import ConfigError
from bm_envs.motion.clip import Clip
from bm_envs.robots.observation_terms import CRITIC_TERMS
from bm_envs.rotations import dot, quat_from_euler, quat_mul, quat_rotate_inverse
from bm_envs.tasks.track import terms
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.rows import ANCHOR, FEET, J, Reference, Shown
from bm_envs.tasks.track.task import TrackTask

WARM_UP = 3  # steps before a capture, in which all kernels are loaded and all memory is taken


@dataclass
class DeviceStep:
    """What one step did. Tensors of the environment, overwritten by the next step."""

    obs: Tensor
    """`[N, O]`, of the episode that goes on or has just begun."""
    critic_obs: Tensor
    """`[N, C]`, likewise."""
    reward: Tensor
    """`[N]`."""
    values: Tensor
    """`[N, R]`, the signed terms whose sum the reward is."""
    terminated: Tensor
    """`[N]` bool."""
    truncated: Tensor
    """`[N]` bool."""
    final_critic_obs: Tensor
    """`[N, C]`, of the episode that the step belonged to; of an ended one the last."""


class DeviceSampler:
    """`motion.sampler.StartSampler` in tensors: the same statistics and probabilities."""

    def __init__(self, task: TrackTask, device: torch.device) -> None:
        self._host = host = task.sampler
        self.failures = torch.zeros(host.num_bins, dtype=torch.float64, device=device)
        self.visits = torch.zeros_like(self.failures)
        as_tensor = functools.partial(torch.as_tensor, device=device)
        self._bins_of_rows = as_tensor(task._bins)
        self._kernel = [as_tensor(weight) for weight in host._kernel]
        self._bin_clip, self._bin_start = as_tensor(host.bin_clip), as_tensor(host.bin_start)
        self._clip_bins, self._clip_frames = as_tensor(host.clip_bins), as_tensor(host.clip_frames)
        self._uniform = as_tensor(host.uniform())

    def record(self, rows: Tensor, failed: Tensor) -> None:
        """Fold one control step into the statistics: of robots at `rows [N]`, `failed [N]`."""
        bins, alpha = self._bins_of_rows[rows], self._host.alpha
        self.visits.mul_(1 - alpha).index_add_(
            0, bins, torch.full_like(bins, 1.0, dtype=torch.float64), alpha=alpha
        )
        self.failures.mul_(1 - alpha).index_add_(0, bins, failed.double(), alpha=alpha)

    def probabilities(self) -> Tensor:
        """Probability of starting in each bin. `[S]`."""
        host = self._host
        if host.mode == "uniform":
            return self._uniform
        rates = torch.where(self.visits > 0, self.failures / self.visits, 0.0)
        value = rates if host.statistic == "rate" else self.failures
        if host.mix == "additive":
            value = self._spread(value + host.uniform_ratio / host.num_bins)
            return value / value.sum()
        value = self._spread(value)
        mixed = host.uniform_ratio * self._uniform
        mixed = mixed + (1 - host.uniform_ratio) * value / value.sum().clamp(min=1e-300)
        return torch.where(value.sum() > 0, mixed, self._uniform)

    def _spread(self, value: Tensor) -> Tensor:
        spread = value.clone()
        for u, weight in enumerate(self._kernel, 1):
            spread[:-u] += weight * value[u:]
        return spread

    def sample(self, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Draw `count` starts: clip indices and frames in `[0, T - 2]`, `[count]` each."""
        cumulated = self.probabilities().cumsum(0)
        device = cumulated.device
        where, within = torch.rand(
            2, count, dtype=torch.float64, device=device, generator=generator
        )
        bins = torch.searchsorted(cumulated, where * cumulated[-1], right=True)
        bins = bins.clamp(max=len(cumulated) - 1)
        clip_id = self._bin_clip[bins]
        fraction = (bins - self._bin_start[clip_id] + within) / self._clip_bins[clip_id]
        # The last frame is no start.
        return clip_id, (fraction * (self._clip_frames[clip_id] - 1)).long()

    def to_host(self) -> None:
        """Bring the statistics to the task's own sampler, whose metrics read them."""
        self._host.failures[:] = self.failures.cpu().numpy()
        self._host.visits[:] = self.visits.cpu().numpy()


class DeviceTrack:
    """N robots of an engine with torch tensors, tracking one or several clips.

    Attributes:
        task: tables and names; what it holds of robots is not used.
        sampler: of start frames.
        action: raw, of the last step, `[N, 29]`.
        default_joint_pos: rad, `[N, 29]`; `scale [29]`, rad per unit of action.
        disturbance: scale of noise and pushes, a tensor without axes; `leash`: that of
            `failure_distance`. A trainer may fill them.
    """

    def __init__(
        self, num_envs: int, clips: Sequence[Clip], config: TrackConfig, *, seed: int,
        backend: str = "mujoco_warp", device: str | None = None,
    ) -> None:  # fmt: skip
        """Robots in no particular state; call `reset` first.

        Raises:
            ConfigError: the engine's arrays are NumPy's.
            BackendUnavailable: as `make_simulator`.
        """
        self.task = task = TrackTask(clips, config, num_envs)
        settings = dataclasses.replace(task.simulator_config(), device=device)
        sim: Simulator = make_simulator(backend, settings)
        if not isinstance(sim.root_pos, Tensor):
            raise ConfigError(f"backend is '{backend}', expected one whose arrays are torch's.")
        self.simulator, self.config, self.num_envs = sim, config, num_envs
        self.device = on = sim.root_pos.device
        self.generator = torch.Generator(on).manual_seed(seed)
        self.sampler = DeviceSampler(task, on)

        def constant(values: np.ndarray | float, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, device=on).to(dtype)

        self._reference_table = constant(task._reference_table)
        self._shown_table = constant(task._shown_table)
        self._contact_table = constant(task._foot_contact_table, torch.bool)
        self._clip_start = constant(task._clip_start, torch.long)
        self._clip_frames = constant(task.clip_frames, torch.long)
        self._default = constant(task.nominal_joint_pos)
        self.scale = constant(task.action_scale)
        self._soft_limits = [constant(limit) for limit in task._soft_limits]
        self._start_range = constant(task._start_range)
        self._sole_points = constant(task._sole_points)
        self._widths = [float(width) for width in task._widths]
        self._weights = constant(np.concatenate([task._weights, task._option_weights]))
        self._noise_half = constant(task._noise_level)
        push, noise = config.push, config.reset
        self._halves = {
            name: constant(np.asarray(values))
            for name, values in {
                "push_lin": push.lin_vel, "push_ang": push.ang_vel, "pos": noise.pos,
                "rot": noise.rot, "lin_vel": noise.lin_vel, "ang_vel": noise.ang_vel,
                "torso_com": config.randomize.torso_com,
            }.items()
        }  # fmt: skip

        n = num_envs

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(n, *shape, dtype=dtype, device=on)

        self.disturbance, self.leash = constant(1.0), constant(1.0)
        self.clip_id, self.frame, self.episode_step, self._next_push, self._row = (
            zeros(dtype=torch.long) for _ in range(5)
        )
        self.action, self._last_action, self._older_action = (zeros(J) for _ in range(3))
        self._last_joint_vel, self.default_joint_pos = zeros(J), zeros(J)
        longest = config.randomize.action_delay if config.randomization else 0
        self._sent = torch.zeros(longest + 1, n, J, device=on)
        self.action_delay = zeros(dtype=torch.long)
        self._everyone = torch.arange(n, device=on)
        self.reference = Reference(zeros(Reference.SIZE))
        self._shown = Shown(zeros(Shown.SIZE))
        self._stale_pos, self._stale_axes = zeros(3), zeros(3, 3)
        self._action_in = zeros(J)
        self._out = DeviceStep(
            obs=zeros(task.observation_size), critic_obs=zeros(task.critic_size), reward=zeros(),
            values=zeros(len(self._weights)), terminated=zeros(dtype=torch.bool),
            truncated=zeros(dtype=torch.bool), final_critic_obs=zeros(task.critic_size),
        )  # fmt: skip
        self._graph: torch.cuda.CUDAGraph | None = None
        # Isaac Lab captures its physics itself, and not into a graph of ours.
        self._can_capture = self.device.type == "cuda" and hasattr(self.simulator, "capturing")
        self._steps = 0

    # --- what users call ------------------------------------------------------------------------

    def reset(self) -> tuple[Tensor, Tensor]:
        """Begin anew with every robot; observations of policy `[N, O]` and critic `[N, C]`."""
        self.default_joint_pos[:] = self._default
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if self.config.randomization and self.config.randomize.when == "startup":
            self._randomize(everyone)
        self._reset(everyone)
        obs, critic = self._observe()
        self._out.obs.copy_(obs)
        self._out.critic_obs.copy_(critic)
        return self._out.obs, self._out.critic_obs

    @torch.no_grad()
    def step(self, action: Tensor) -> DeviceStep:
        """Apply raw actions `[N, 29]` to all robots, and begin anew with those that have ended."""
        self._action_in.copy_(action)
        if self._graph is None and self._can_capture and self._steps >= WARM_UP:
            self._graph = self._captured()
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()
        self._steps += 1
        return self._out

    @torch.no_grad()
    def tracking_errors(self) -> dict[str, Tensor]:
        """`terms.tracking_errors` of the present states; robots that have just begun have none."""
        return terms.tracking_errors(self.simulator, self.reference)

    def close(self) -> None:
        """Free the engine's resources."""
        self._graph = None
        self.simulator.close()

    # --- state ---------------------------------------------------------------------------------

    _STATE = (
        "clip_id", "frame", "episode_step", "_next_push", "action", "_last_action",
        "default_joint_pos", "action_delay", "_sent", "_stale_pos", "_stale_axes", "disturbance",
        "leash",
    )  # fmt: skip

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a continuation needs."""
        state = {name: getattr(self, name) for name in self._STATE}
        state |= {"sampler.failures": self.sampler.failures, "sampler.visits": self.sampler.visits}
        state |= {"obs": self._out.obs, "critic_obs": self._out.critic_obs}
        arrays = {name: value.cpu().numpy().copy() for name, value in state.items()}
        arrays["generator"] = self.generator.get_state().numpy()
        return arrays | {f"simulator.{k}": v for k, v in self.simulator.get_state().items()}

    def set_state(self, state: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Continue from what `get_state` returned; the observations of then."""
        prefix = "simulator."
        self.simulator.set_state(
            {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        )
        held = {name: getattr(self, name) for name in self._STATE}
        held |= {"sampler.failures": self.sampler.failures, "sampler.visits": self.sampler.visits}
        held |= {"obs": self._out.obs, "critic_obs": self._out.critic_obs}
        for name, value in held.items():
            value.copy_(torch.from_numpy(state[name]))
        self.generator.set_state(torch.from_numpy(state["generator"]))
        self._gather()
        return self._out.obs, self._out.critic_obs

    # --- a step, as kernels that never wait for the host ----------------------------------------

    def _captured(self) -> torch.cuda.CUDAGraph:
        """`_step` as a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        capture = torch.cuda.graph(graph, capture_error_mode="thread_local")
        with capture, self.simulator.capturing():  # type: ignore[attr-defined]
            self._step()
        return graph

    def _step(self) -> None:
        """One step of `_action_in` into `_out`."""
        config, sim, out = self.config, self.simulator, self._out
        self._older_action.copy_(self._last_action)
        self._last_joint_vel.copy_(sim.joint_vel)
        self._last_action.copy_(self.action)
        self.action.copy_(self._action_in)
        sim.step(self._delayed(self.default_joint_pos + self.scale * self.action))
        self.frame += 1
        self.episode_step += 1
        self._gather()

        diverged = sim.diverged()
        failures = terms.failures(sim, self.reference, config, self.leash)
        terminated = functools.reduce(operator.or_, failures, diverged)
        values = terms.reward_values(
            sim, self.reference, config, action=self.action, last_action=self._last_action,
            anchor=self._anchor(), widths=self._widths, soft_limits=self._soft_limits,
        )  # fmt: skip
        values += terms.optional_values(
            sim, config, self.task._options, ref_contact=self._contact_table[self._row],
            actions=(self.action, self._last_action, self._older_action),
            last_joint_vel=self._last_joint_vel,
        )  # fmt: skip
        signed = torch.stack([value.float() for value in values], 1) * self._weights
        out.values.copy_(torch.where(diverged[:, None], 0.0, signed))
        out.reward.copy_(out.values.sum(1))
        truncated = self.frame >= self._clip_frames[self.clip_id] - 1
        if self.task._episode_steps is not None:
            truncated = truncated | (self.episode_step >= self.task._episode_steps)
        out.terminated.copy_(terminated)
        out.truncated.copy_(truncated & ~terminated)
        self.sampler.record(self._row, terminated)

        done = terminated | truncated
        self._push(~done)
        out.final_critic_obs.copy_(self._critic_obs())
        self._reset(done)
        obs, critic = self._observe()  # which of robots that go on is what it was
        out.obs.copy_(obs)
        out.critic_obs.copy_(critic)

    def _reset(self, mask: Tensor) -> None:
        """Begin episodes of the robots that `mask [N]` names."""
        config, n, task = self.config, self.num_envs, self.task
        if config.randomization and config.randomize.when == "reset":
            self._randomize(mask)
        if config.start.mode == "first":
            clip_id, frame = self._everyone % len(task.clips), torch.zeros_like(self.frame)
        else:
            clip_id, frame = self.sampler.sample(self.generator, n)
        self._put(self.clip_id, mask, clip_id)
        self._put(self.frame, mask, frame)
        for name in ("episode_step", "action", "_last_action"):
            self._put(getattr(self, name), mask, 0)
        self._draw_push_times(mask)
        start = Reference(self._reference_table[self._clip_start[clip_id] + frame])
        root_pos, root_quat = start.body_pos[:, 0], start.body_quat[:, 0]
        lin_vel, ang_vel = start.body_lin_vel[:, 0], start.body_ang_vel[:, 0]
        joint_pos = start.joint_pos
        if config.reset_noise:
            root_pos = root_pos + self._around("pos")
            turn = self._around("rot")
            root_quat = quat_mul(quat_from_euler(turn[:, 0], turn[:, 1], turn[:, 2]), root_quat)
            lin_vel, ang_vel = lin_vel + self._around("lin_vel"), ang_vel + self._around("ang_vel")
            noise = self.disturbance * config.reset.joint_pos * self._symmetric(n, J)
            low, high = self._start_range[:, 0], self._start_range[:, 1]
            joint_pos = (joint_pos + noise).clamp(low, high)
        qpos = torch.cat([root_pos, root_quat, joint_pos], 1)
        qvel = torch.cat([lin_vel, quat_rotate_inverse(root_quat, ang_vel), start.joint_vel], 1)
        self.simulator.reset(mask, qpos, qvel)
        if longest := len(self._sent) - 1:
            waits = (self._uniform(n) * (longest + 1)).long().clamp(max=longest)
            self._put(self.action_delay, mask, waits)
            for sent in self._sent:
                self._put(sent, mask, joint_pos)  # until the first action gets through
        if config.reset_noise and config.reset.lift_feet:
            depth = -self._lowest_sole_point()
            self.simulator.lift(mask & (depth > 0), depth)
        self._gather()
        self._remember_anchor(mask)

    def _observe(self) -> tuple[Tensor, Tensor]:
        """Observations of policy, with noise where configured, and critic; finite in any case."""
        critic = self._critic_obs()
        policy = torch.cat([critic[:, part] for part in self.task._policy_columns], 1)
        if self.config.noise:
            half = self.disturbance * self._noise_half
            policy[:, self.task._noisy] += half * self._symmetric(self.num_envs, len(half))
        self._remember_anchor(None)
        return policy, critic

    def _critic_obs(self) -> Tensor:
        """What the critic sees of the present states, finite in any case. `[N, C]`."""
        values = terms.observation_values(
            self.simulator, self._shown, self.action, self.default_joint_pos
        )
        critic = torch.cat([values[name] for name in CRITIC_TERMS], 1)
        return critic.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _push(self, allowed: Tensor) -> None:
        """Shove the robots whose time has come and which are `allowed [N]`."""
        if self.config.pushes:
            due = (self.episode_step >= self._next_push) & allowed
            self.simulator.push(due, self._around("push_lin"), self._around("push_ang"))
            self._draw_push_times(due)

    def _draw_push_times(self, mask: Tensor) -> None:
        if self.config.pushes:
            low, high = self.config.push.interval_s
            wait = (low + (high - low) * self._uniform(self.num_envs)) / CONTROL_DT
            self._put(self._next_push, mask, self.episode_step + wait.long())

    def _randomize(self, mask: Tensor) -> None:
        level, n = self.config.randomize, self.num_envs
        low, high = level.foot_friction
        self.simulator.randomize(
            mask, foot_friction=low + (high - low) * self._uniform(n),
            torso_com_offset=self._halves["torso_com"] * self._symmetric(n, 3),
        )  # fmt: skip
        offset = level.joint_offset * self._symmetric(n, J)
        self._put(self.default_joint_pos, mask, self._default + offset)

    def _gather(self) -> None:
        """Look up the reference at every robot's frame."""
        last = self._clip_frames[self.clip_id] - 1
        self._row.copy_(self._clip_start[self.clip_id] + torch.minimum(self.frame, last))
        self.reference.rows.copy_(self._reference_table[self._row])
        self._shown.rows.copy_(self._shown_table[self._row])

    def _delayed(self, targets: Tensor) -> Tensor:
        """Of the joint targets sent, the last ones `targets [N, 29]`, those that arrive now."""
        if len(self._sent) == 1:
            return targets
        self._sent[1:] = self._sent[:-1].clone()
        self._sent[0] = targets
        return self._sent[self.action_delay, self._everyone]

    def _anchor(self) -> tuple[Tensor, Tensor]:
        """Place and axes of the robots' anchors, from which targets are made."""
        if self.config.stale_targets:
            return self._stale_pos, self._stale_axes
        return self.simulator.body_pos[:, ANCHOR], self.simulator.body_axes[:, ANCHOR]

    def _remember_anchor(self, mask: Tensor | None) -> None:
        if self.config.stale_targets:
            everyone = torch.ones_like(self.frame, dtype=torch.bool) if mask is None else mask
            self._put(self._stale_pos, everyone, self.simulator.body_pos[:, ANCHOR])
            self._put(self._stale_axes, everyone, self.simulator.body_axes[:, ANCHOR])

    def _lowest_sole_point(self) -> Tensor:
        """Height of the lowest point of the feet, m. `[N]`."""
        sim, heights = self.simulator, []
        for foot, points in zip(FEET, self._sole_points, strict=True):
            ups = sim.body_axes[:, foot, :, 2]  # by how much each axis of the foot goes up
            heights.append(sim.body_pos[:, foot, 2:] + dot(points, ups[:, None]))
        return torch.cat(heights, 1).amin(1) - self.task._sole_radius

    def _put(self, target: Tensor, mask: Tensor, value: Tensor | float) -> None:
        """Write `value`, one or `[N, ...]`, into the rows of `target` that `mask [N]` names."""
        mask = mask.view(-1, *[1] * (target.ndim - 1))
        target.copy_(torch.where(mask, value, target))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device, generator=self.generator)

    def _symmetric(self, *shape: int) -> Tensor:
        """Uniform in `[-1, 1)`."""
        return 2.0 * self._uniform(*shape) - 1.0

    def _around(self, name: str) -> Tensor:
        """Uniform noise of that half-width, at the present disturbance. `[N, 3]`."""
        return self.disturbance * self._halves[name] * self._symmetric(self.num_envs, 3)
