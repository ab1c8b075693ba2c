"""A replay buffer of control steps, and the robots that fill it.

Letters in shapes: N robots, L slots of the buffer, T steps, K steps of a window, B samples,
J joints and actions, 29 of the G1, O observation.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bm_envs.learning.collecting import iteration_figures
from bm_envs.learning.folder import as_arrays
from bm_envs.learning.networks import TrackingPolicy
from bm_envs.learning.robots import Episodes, Robots
from bm_envs.learning.world_model import State
from bm_envs.robots import g1
from bm_envs.tasks.track.state import BUILD


class Starts(NamedTuple):
    """States from which imagined rollouts start. `[..., D]` each, any leading axes."""

    qpos: Tensor
    """`[..., 36]`, as the engine has it."""
    qvel: Tensor
    """`[..., 35]`, likewise."""
    last_action: Tensor
    """`[..., 29]`, raw."""
    default_joint_pos: Tensor
    """`[..., 29]`, of the robot, rad."""
    build: Tensor
    """`[..., 4]`, of the robot, see `tasks.track.state.State`."""
    row: Tensor
    """`[...]`, of the reference's tables: the present frame."""
    last_row: Tensor
    """`[...]`, likewise: the clip's last frame."""


class Windows(NamedTuple):
    """What robots did in K steps in a row."""

    states: list[State]
    """K + 1 of B robots."""
    targets: Tensor
    """`[K, B, 29]`, rad."""
    build: Tensor
    """`[B, 4]`."""
    valid: Tensor
    """`[K, B]`, 1 until the episode's end, then 0."""


class ReplayBuffer:
    """The last control steps of N robots, `[L, N, ...]`, a ring in time.

    A slot holds the state before a step, what was done, and whether the episode ended by it.
    """

    def __init__(
        self, length: int, robots: int, device: torch.device, num_joints: int = g1.NUM_JOINTS
    ) -> None:
        J = num_joints  # noqa: N806

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(length, robots, *shape, dtype=dtype, device=device)

        self.length, self.robots, self.written = length, robots, 0
        self.qpos, self.qvel = zeros(7 + J), zeros(6 + J)
        self.last_action, self.target, self.default_joint_pos = zeros(J), zeros(J), zeros(J)
        self.build = zeros(BUILD)
        self.row, self.last_row = zeros(dtype=torch.int32), zeros(dtype=torch.int32)
        self.done = zeros(dtype=torch.bool)

    def add(self, starts: Starts, target: Tensor, done: Tensor) -> None:
        """One step of all robots: the state before it, joint targets `[N, 29]` (rad), the end."""
        slot = self.written % self.length
        for name, value in zip(Starts._fields, starts, strict=True):
            getattr(self, name)[slot] = value
        self.target[slot], self.done[slot] = target, done
        self.written += 1

    def draw(
        self, shape: Sequence[int], ahead: int, generator: torch.Generator,
        newest: int = sys.maxsize,
    ) -> Tensor:  # fmt: skip
        """Places `[*shape, 2]` (slot, robot), drawn evenly.

        Args:
            shape: of the result.
            ahead: as many steps that follow a place are in the buffer, too.
            generator: draws.
            newest: how many of the newest slots to draw from.
        """
        held = min(self.written, self.length, newest)
        span = held - ahead
        assert span > 0
        draw = torch.rand(*shape, 2, generator=generator, device=self.done.device)
        age = (draw[..., 0] * span).long().clamp(max=span - 1)
        slot = (self.written - held + age) % self.length
        robot = (draw[..., 1] * self.robots).long().clamp(max=self.robots - 1)
        return torch.stack([slot, robot], -1)

    def starts(
        self, shape: Sequence[int], generator: torch.Generator, newest: int = sys.maxsize
    ) -> Starts:
        """States drawn evenly from the `newest` slots."""
        slot, robot = self.draw(shape, 0, generator, newest).unbind(-1)
        return Starts(*(getattr(self, name)[slot, robot] for name in Starts._fields))

    def windows(self, slot: Tensor, robot: Tensor, steps: int) -> Windows:
        """Windows of `steps` steps from each place."""
        ahead = torch.arange(steps + 1, device=slot.device)[:, None]
        slots = (slot + ahead) % self.length  # [K + 1, B]
        flat = State.of(
            self.qpos[slots, robot].flatten(0, 1), self.qvel[slots, robot].flatten(0, 1)
        )
        parts = (part.unflatten(0, slots.shape).unbind() for part in flat)
        states = [State(*values) for values in zip(*parts, strict=True)]
        alive = ~self.done[slots[:-1], robot]
        targets, build = self.target[slots[:-1], robot], self.build[slot, robot]
        return Windows(states, targets, build, alive.cumprod(0).float())

    def newest_transitions(self, steps: int) -> tuple[State, Tensor, Tensor, State]:
        """State, target, build and next state of the last `steps` transitions that ended nothing.

        The very last step is not among them: the state that follows it is not in the buffer yet.
        """
        slot = torch.tensor([(self.written - 2 - t) % self.length for t in range(steps)])
        slot = slot.repeat_interleave(self.robots).to(self.done.device)
        robot = torch.arange(self.robots, device=slot.device).repeat(steps)
        going = ~self.done[slot, robot]
        (before, after), targets, build, _ = self.windows(slot[going], robot[going], 1)
        return before, targets[0], build, after

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint: the slots that are filled."""
        held = min(self.written, self.length)
        values = {k: v[:held].cpu().numpy() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return {"written": self.written, **values}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        state = as_arrays(state)
        self.written = state["written"]
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                value[: len(state[name])] = torch.from_numpy(state[name])


class ReplayCollector:
    """Robots that move by a policy with noise, and fill a buffer.

    The noise of a robot lasts from step to step. Its standard deviation grows from robot to robot:
    the first robot has none, the last twice the mean.
    """

    def __init__(
        self, robots: Robots, action_noise: float, noise_correlation: float, seed: int
    ) -> None:
        """Begin everywhere.

        Args:
            robots: under the policy.
            action_noise: standard deviation of the raw action's noise, the mean over robots.
            noise_correlation: correlation of a robot's noise from step to step.
            seed: of robots and noise.
        """
        self.robots, self.noise_correlation = robots, noise_correlation
        self.device = device = robots.device
        self.generator = torch.Generator(device).manual_seed(seed)
        n = robots.env.num_envs
        self.spread = torch.linspace(0, 2 * action_noise, n, device=device)[:, None]
        self.obs, _ = robots.reset(seed)
        self.noise, self.last_action = (
            torch.zeros(n, robots.task.robot.num_joints, device=device) for _ in range(2)
        )
        self.episodes = Episodes(robots)

    def figures(self) -> dict[str, float]:
        """See `collecting.iteration_figures`."""
        return iteration_figures(self.robots, self.episodes)

    @torch.no_grad()
    def run(self, policy: TrackingPolicy, buffer: ReplayBuffer, steps: int) -> Tensor:
        """Some steps of all robots; the observations `[T N, O]` on which the policy acted."""
        robots, correlation = self.robots, self.noise_correlation
        fresh = math.sqrt(1 - correlation**2)
        seen = []
        for _ in range(steps):
            seen.append(self.obs.clone())
            draw = torch.randn(self.noise.shape, generator=self.generator, device=self.device)
            self.noise = correlation * self.noise + fresh * self.spread * draw
            action = policy.mean(self.obs) + self.noise
            default, build = robots.default_joint_pos().clone(), robots.build().clone()
            before = Starts(*robots.state(), self.last_action, default, build, *robots.rows())
            step = robots.step(action)
            done = step.terminated | step.truncated
            buffer.add(before, default + policy.action_scale * action, done)
            self.obs = step.obs
            self.episodes.add(step)
            self.noise = self.noise * ~done[:, None]
            self.last_action = action * ~done[:, None]
        return torch.cat(seen)

    _STATE = ("obs", "noise", "last_action")

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            **{name: getattr(self, name).cpu() for name in self._STATE},
            **self.episodes.get_state(), "env": self.robots.get_state(),
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        self.robots.set_state(as_arrays(state["env"]))
        for name in self._STATE:
            setattr(self, name, state[name].to(self.device))
        self.episodes.set_state(state)
        self.generator.set_state(state["generator"])
