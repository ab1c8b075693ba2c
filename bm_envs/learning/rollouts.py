"""Imagined rollouts by compiled kernels, and their gradient.

`Imagination` of `algos/wm_track.py` is the definition. Here a whole rollout is one function of
autograd. Letters in shapes: B robots, H steps, J joints, 29 of the G1, O observation.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bm_envs.errors import BMWarning
from bm_envs.learning.compiled import (
    MOST_OBSERVATIONS,
    TERMS,
    Costs,
    Matrix,
    TreeTables,
    kernels,
)
from bm_envs.learning.compiled_steps import (
    Pool,
    Work,
    is_known,
    is_known_model,
    kind_of,
    last_bias,
    scaling,
)
from bm_envs.learning.imagination import IMAGINED, ReferenceTables, soft_range
from bm_envs.learning.layers import Layers, sizes_of
from bm_envs.learning.networks import TrackingPolicy
from bm_envs.learning.parts import is_symmetric
from bm_envs.learning.replay_buffer import Starts
from bm_envs.learning.world_model import State, WorldModel
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import layout, size
from bm_envs.robots.robot import Robot
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.rewards import TRACKED
from bm_envs.tasks.track.rows import ANCHOR

SLOW = (
    "the package's compiled part is missing, or BM_NATIVE=0 switches it off: updates of the policy "
    "and of its model take three to six times as long; install the package again where there is a "
    "C compiler, such as gcc."
)


class Rollout(Work):
    """H steps of a policy in a model, and what they cost."""

    def __init__(
        self, owner: CompiledImagination, policy: TrackingPolicy, model: WorldModel, batch: int
    ) -> None:
        super().__init__(model, owner.horizon, batch, learns=False)
        steps, task, rewards = self.steps, owner.task, owner.task.rewards
        self._observed, J = owner.observed, model.robot.num_joints  # noqa: N806
        self.policy = Layers(self.library, policy, None, steps, batch, self.dtype, learns=True)
        self._reference = owner.reference
        table = self._reference.table
        self.set(
            observation_size=size(task.observations, model.robot), lead=task.lead, anchor=ANCHOR,
            places=(ctypes.c_int64 * len(TERMS))(*places(task.observations, model.robot)),
            reference=table,
            policy_sides=self.policy.before.native, mean_sides=self.policy.after.native,
            policy_in=self.policy.inputs, policy_in_grad=self.policy.inputs_grad,
            mean_out=self.policy.out, mean_grad=self.policy.out_grads,
            default_pos=self.room(1, J), offsets=self.room(1, J), noisy_grads=self.room(1, J),
            actions=self.room(steps + 1, J), action_grads=self.room(steps + 1, J),
            noisy=self.room(steps + 1, J),
        )  # fmt: skip
        self._all_tables = TreeTables(model.robot.tracked_bodies, model.robot)
        weights = torch.tensor([2 * getattr(rewards, name) for name in TRACKED])
        widths = torch.tensor([getattr(rewards, f"{name}_std") for name in TRACKED])
        self._arrays = weights, widths**-2, soft_range(model.robot).like(table).contiguous()
        low, high = self._arrays[2]
        self._costs = Costs(
            self._all_tables.tree, ANCHOR, 1 / CONTROL_DT, owner.recovery, rewards.joint_limit,
            rewards.action_rate, weights.data_ptr(), self._arrays[1].data_ptr(), low.data_ptr(),
            high.data_ptr(),
        )  # fmt: skip

    def forward(
        self, policy: TrackingPolicy, model: WorldModel, starts: Starts, action_noise: Tensor,
        obs_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """See `CompiledImagination.__call__`."""
        steps, batch = self.steps, self.batch
        self.begin(model, State.of(starts.qpos, starts.qvel), starts.build)
        self.policy.arrange(policy)
        mean, inverse = scaling(policy)
        per_scale = 1 / policy.action_scale
        clean = torch.empty(steps + 1 if self._observed else 0, batch, len(mean))
        self.set(
            row=self._reference.rows(starts.row.long()).contiguous(),
            last_row=self._reference.rows(starts.last_row.long()).contiguous(), policy_mean=mean,
            policy_inverse=inverse, nominal_pos=policy.default_joint_pos,
            offset_per=per_scale if policy.residual else torch.zeros(len(per_scale)),
            action_scale=policy.action_scale, mean_bias=last_bias(policy),
            clean=clean if self._observed else Matrix(),
            action_noise=action_noise, obs_noise=obs_noise,
            default_in=starts.default_joint_pos.contiguous(),
            last_action=starts.last_action.contiguous(),
        )  # fmt: skip
        library, at = self.library, self.at
        for step in range(steps):
            library.native_advance(at, step)
            self.policy.forward(step)
            library.native_act(at, step)
            self.model.forward(step)
        library.native_advance(at, steps)
        cost, distance = torch.empty(steps, batch), torch.empty(steps, batch)
        costs = self._costs
        costs.cost, costs.distance, costs.grad = cost.data_ptr(), distance.data_ptr(), None
        library.native_costs(at, ctypes.addressof(costs))
        return cost, distance, clean

    def pull_back(self, cost_grad: Tensor, obs_grad: Tensor | None) -> list[Tensor]:
        """Gradients of the policy's parameters."""
        library, at, costs = self.library, self.at, self._costs
        cost_grad = cost_grad.contiguous()
        costs.grad = cost_grad.data_ptr()
        self.set(clean_grad=Matrix() if obs_grad is None else obs_grad.contiguous())
        library.native_costs(at, ctypes.addressof(costs))
        for step in range(self.steps - 1, -1, -1):
            library.native_advance_back(at, step + 1)
            self.model.pull_back(step, to_inputs=True)
            library.native_act_back(at, step)
            self.policy.pull_back(step, to_inputs=step > 0)
        return self.policy.gradients()[0]


def places(names: Sequence[str], robot: Robot = g1.G1) -> list[int]:
    """Where `TERMS` are in an observation of the terms `names`; -1: they are not."""
    starts = {name: where.start for name, where in layout(names, robot).items()}
    return [starts.get(name, -1) for name in TERMS]


class Imagined(torch.autograd.Function):
    """`Rollout` as a function of the policy's parameters."""

    @staticmethod
    def forward(
        ctx: Any, owner: CompiledImagination, key: Any, inputs: tuple[Any, ...],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """See `Rollout.forward`."""
        policy, model, starts = inputs[:3]
        work = owner.pool.take(key, lambda: Rollout(owner, policy, model, len(starts.qpos)))
        ctx.owner, ctx.key, ctx.work = owner, key, work
        cost, distance, clean = work.forward(*inputs)
        ctx.mark_non_differentiable(distance)
        ctx.set_materialize_grads(False)
        return cost, distance, clean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """See `torch.autograd.Function`."""
        work, ctx.work = ctx.work, None
        found = work.pull_back(gradients[0], gradients[2])
        ctx.owner.pool.give_back(ctx.key, work)
        return (None, None, None, *found)


class CompiledImagination:
    """Imagined rollouts of a task by kernels, where there are any for it."""

    def __init__(
        self, task: TrackConfig, horizon: int, recovery: float, reference: ReferenceTables,
        *, observed: bool,
    ) -> None:  # fmt: skip
        """Rollouts of `horizon` steps; `observed`: with their observations, else with none."""
        self.task, self.horizon, self.recovery = task, horizon, recovery
        self.reference, self.observed, self.pool = reference, observed, Pool()
        optional = any(getattr(task.rewards, name) for name in IMAGINED)
        self._joints, robot = task.model.table.num_joints, task.model.table
        if kernels(robot) is None and reference.table.device.type == "cpu":
            warnings.warn(SLOW, BMWarning, stacklevel=2)
        names, numbers = task.observations, size(task.observations, robot)
        self._known = (
            kernels(robot) is not None and not optional
            and set(names) <= set(TERMS)
            and len(set(names)) == len(names) and self._joints <= numbers <= MOST_OBSERVATIONS
        )  # fmt: skip

    def takes(self, policy: TrackingPolicy, model: WorldModel, starts: Starts) -> bool:
        """Whether the kernels know all of this; else torch must do the work."""
        single = {starts.qpos.dtype, self.reference.table.dtype} == {torch.float32}
        seen = is_known(policy, size(self.task.observations, self.task.model.table), self._joints)
        return self._known and single and seen and is_known_model(model)

    def __call__(
        self, policy: TrackingPolicy, model: WorldModel, starts: Starts, action_noise: Tensor,
        obs_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Cost and distance of the anchor after each step, `[H, B]`; observations `[H + 1, B, O]`.

        Only the policy's parameters get a gradient. For arguments and result see `Imagination` of
        `algos/wm_track.py`.
        """
        key = len(starts.qpos), sizes_of(policy), is_symmetric(policy), kind_of(model)
        inputs = policy, model, starts, action_noise, obs_noise
        return Imagined.apply(self, key, inputs, *policy.layers.parameters())  # pyright: ignore
