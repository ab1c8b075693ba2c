"""Imagined steps by compiled kernels, and their gradient: see `native.c`.

What is computed is defined elsewhere, in torch: `world_model.prediction_errors`, and `Imagination`
of `algos/wm_track.py`. Here a whole rollout is one function of autograd. Its steps go forwards, and
its gradients backwards, over arrays that stay in their place. Weights are taken over once for all
steps, and their gradients are one product over all of them.

Letters in shapes: B robots, H steps, J = 29 joints, O observation.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bm_envs.errors import BMWarning
from bm_envs.learning.compiled import (
    INPUTS,
    MOST_OBSERVATIONS,
    OUTPUTS,
    PARTS,
    STATE,
    TERMS,
    Costs,
    Matrix,
    Misses,
    Steps,
    TreeTables,
    kernels,
)
from bm_envs.learning.imagination import IMAGINED, SOFT_RANGE, ReferenceTables
from bm_envs.learning.kinematics import LOCAL_BODIES
from bm_envs.learning.layers import Layers, sizes_of
from bm_envs.learning.networks import Network, TrackingPolicy
from bm_envs.learning.replay_buffer import Starts
from bm_envs.learning.world_model import (
    CONTACT_DEPTH,
    ERROR_WEIGHTS,
    SOLE,
    SOLE_RADIUS,
    State,
    WorldModel,
)
from bm_envs.policy import OBS_SCALE_EPS
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import size
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.rewards import TRACKED
from bm_envs.tasks.track.rows import ANCHOR

J = g1.NUM_JOINTS
_KINDS = dict(Steps._fields_)
SLOW = (
    "the package's compiled part is missing, or BM_NATIVE=0 switches it off: updates of the policy "
    "and of its model take three to six times as long; install the package again where there is a "
    "C compiler, such as gcc."
)


class Work:
    """Room for H steps of B robots in a model, with the values that their gradient needs."""

    def __init__(self, model: WorldModel, steps: int, batch: int, *, learns: bool) -> None:
        """Room for one model's sizes and precision; `learns`: its weights get a gradient."""
        self.library = library = kernels()
        assert library is not None
        self.steps, self.batch, self.lanes = steps, batch, library.native_lanes()
        self.blocks = -(-batch // self.lanes)
        self.dtype = torch.bfloat16 if model.use_bfloat16 else torch.float32
        self.model = Layers(
            library, sizes_of(model.network), OUTPUTS, steps, batch, self.dtype, learns=learns
        )
        self._tables, self._kept = TreeTables(LOCAL_BODIES), {}
        self.native = Steps(batch=batch, blocks=self.blocks, steps=steps, local=self._tables.tree)
        self.set(
            soles=SOLE.like(torch.zeros(1)).contiguous(), dt=CONTROL_DT, per_dt=1 / CONTROL_DT,
            late=model.late, sole_radius=SOLE_RADIUS, per_depth=1 / CONTACT_DEPTH,
            states=self.room(steps + 1, STATE), state_grads=self.room(steps + 1, STATE),
            rates=self.room(steps, OUTPUTS),
            model_in=self.model.inputs, model_in_grad=self.model.inputs_grad,
            last_out=self.model.out, linear_out=self.model.beside,
            out_grad=self.model.out_grads, beside_grad=self.model.beside_grads,
        )  # fmt: skip
        self.at = ctypes.addressof(self.native)

    def room(self, steps: int, numbers: int) -> Tensor:
        """Numbers of all robots, as the kernels have them."""
        room = torch.zeros(steps, self.blocks, numbers, self.lanes)
        assert room.data_ptr() % (4 * self.lanes) == 0  # torch's arrays begin at a cache line
        return room

    def set(self, **values: Any) -> None:
        """Give the kernels numbers and arrays, which are kept as long as they may be read."""
        for name, value in values.items():
            self._kept[name] = value
            if isinstance(value, Tensor):
                value = Matrix.of(value) if _KINDS[name] is Matrix else value.data_ptr()
            setattr(self.native, name, value)

    def begin(self, model: WorldModel, start: State) -> None:
        """Take over the model as it is, and the states `[B, ...]` to start from."""
        self.model.arrange(model.network, model.linear)
        mean, inverse = scaling(model.network)
        bias = last_bias(model.network) + last_bias(model.linear)
        self.set(
            model_mean=mean, model_inverse=inverse, out_scale=model.scale.clone(), out_bias=bias
        )
        self._start = [part.flatten(1).contiguous() for part in start]
        self.native.starts = (Matrix * PARTS)(*map(Matrix.of, self._start))


def scaling(network: Network) -> tuple[Tensor, Tensor]:
    """Mean of the inputs, and the inverse of what they are divided by. `[D]` each."""
    return network.obs_mean.clone(), 1 / (network.obs_var.sqrt() + OBS_SCALE_EPS)


def last_bias(network: Network) -> Tensor:
    """Of the last layer, as it is now. `[D]`."""
    return network.get_parameter(f"layers.{len(network.layers) - 1}.bias").detach().clone()


class Pool:
    """Work that nobody uses. A gradient needs what its steps left, so that it must have its own."""

    def __init__(self) -> None:
        self._free: dict[Any, list[Any]] = {}

    def take(self, key: Any, make: Callable[[], Any]) -> Any:
        """Work of the sizes that `key` says, which is made where there is none."""
        free = self._free.setdefault(key, [])
        return free.pop() if free else make()

    def give_back(self, key: Any, work: Any) -> None:
        """The gradient has been computed."""
        self._free[key].append(work)


def is_known(network: Network, inputs: int, outputs: int) -> bool:
    """Whether the kernels know this network."""
    weight, sizes = network.get_parameter("layers.0.weight"), sizes_of(network)
    return (
        network.activation_name == "elu" and weight.dtype == torch.float32
        and weight.device.type == "cpu" and (sizes[0], sizes[-1]) == (inputs, outputs)
    )  # fmt: skip


def is_known_model(model: WorldModel) -> bool:
    """Whether the kernels know this model."""
    return type(model) is WorldModel and is_known(model.network, INPUTS, OUTPUTS)


# --- predictions of a model -----------------------------------------------------------------------


class Prediction(Work):
    """K steps of a model by recorded targets, and how far off they are."""

    def __init__(self, model: WorldModel, steps: int, batch: int) -> None:
        super().__init__(model, steps, batch, learns=True)
        self._misses = Misses()
        self._weights = ERROR_WEIGHTS.like(torch.zeros(1)).contiguous()

    def forward(
        self, model: WorldModel, states: Sequence[State], targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `prediction_errors`."""
        steps, batch = self.steps, self.batch
        self.begin(model, states[0])
        self.set(targets=targets.contiguous())
        for step in range(steps):
            self.library.native_advance(self.at, step)
            self.model.forward(step)
        self.library.native_advance(self.at, steps)
        truth = State.joined(states)
        self._truth = [part.view(steps + 1, batch, -1) for part in truth]
        self._per_unit = 1 / model.units()
        cost, off = torch.empty(steps, batch), torch.empty(steps, PARTS, batch)
        self._misses = Misses(
            (Matrix * PARTS)(*map(Matrix.of, self._truth)), self._weights.data_ptr(),
            self._per_unit.data_ptr(), cost.data_ptr(), off.data_ptr(), None,
        )  # fmt: skip
        self.library.native_misses(self.at, ctypes.addressof(self._misses))
        return cost, off

    def backward(self, grad: Tensor) -> list[Tensor]:
        """Gradients of the network's parameters, and of the linear layer's."""
        grad = grad.contiguous()
        self._misses.grad = grad.data_ptr()
        self.library.native_misses(self.at, ctypes.addressof(self._misses))
        for step in range(self.steps - 1, -1, -1):
            self.library.native_advance_back(self.at, step + 1)
            self.model.backward(step, to_inputs=step > 0)
        network, linear = self.model.gradients()
        return network + linear


_predictions = Pool()


class Predicted(torch.autograd.Function):
    """`Prediction` as a function of the model's parameters."""

    @staticmethod
    def forward(
        ctx: Any, key: Any, model: WorldModel, states: Sequence[State], targets: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """See `Prediction.forward`."""
        steps, batch = targets.shape[:2]
        work = _predictions.take(key, lambda: Prediction(model, steps, batch))
        ctx.key, ctx.work = key, work
        cost, off = work.forward(model, states, targets)
        ctx.mark_non_differentiable(off)
        return cost, off

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """See `torch.autograd.Function`."""
        work, ctx.work = ctx.work, None
        found = work.backward(gradients[0])
        _predictions.give_back(ctx.key, work)
        return (None, None, None, None, *found)


def prediction_errors(
    model: WorldModel, states: Sequence[State], targets: Tensor
) -> tuple[Tensor, Tensor]:
    """`WorldModel.prediction_errors`, by kernels where there are any for it."""
    start = states[0].pos
    if kernels() is None or start.dtype != torch.float32 or not is_known_model(model):
        return model.prediction_errors(states, targets)
    key = targets.shape, sizes_of(model.network), model.use_bfloat16, model.late
    parameters = [*model.network.layers.parameters(), *model.linear.layers.parameters()]
    cost, off = Predicted.apply(key, model, states, targets, *parameters)  # pyright: ignore
    return cost, off


# --- imagined rollouts ----------------------------------------------------------------------------


class Rollout(Work):
    """H steps of a policy in a model, and what they cost."""

    def __init__(
        self, owner: CompiledImagination, policy: TrackingPolicy, model: WorldModel, batch: int
    ) -> None:
        super().__init__(model, owner.horizon, batch, learns=False)
        steps, task, rewards = self.steps, owner.task, owner.task.rewards
        self._observed = owner.observed
        self.policy = Layers(
            self.library, sizes_of(policy), 0, steps, batch, self.dtype, learns=True
        )
        table = owner.reference.table
        self.set(
            observation_size=size(task.observations), lead=task.lead, anchor=ANCHOR,
            places=(ctypes.c_int64 * len(TERMS))(*places(task.observations)), reference=table,
            policy_in=self.policy.inputs, policy_in_grad=self.policy.inputs_grad,
            mean_out=self.policy.out, mean_grad=self.policy.out_grads,
            default_pos=self.room(1, J), offsets=self.room(1, J), noisy_grads=self.room(1, J),
            actions=self.room(steps + 1, J), action_grads=self.room(steps + 1, J),
            noisy=self.room(steps + 1, J),
        )  # fmt: skip
        self._all_tables = TreeTables(g1.TRACKED_BODIES)
        weights = torch.tensor([2 * getattr(rewards, name) for name in TRACKED])
        widths = torch.tensor([getattr(rewards, f"{name}_std") for name in TRACKED])
        self._arrays = weights, widths**-2, SOFT_RANGE.like(table).contiguous()
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
        self.begin(model, State.of(starts.qpos, starts.qvel))
        self.policy.arrange(policy)
        mean, inverse = scaling(policy)
        per_scale = 1 / policy.action_scale
        clean = torch.empty(steps + 1 if self._observed else 0, batch, len(mean))
        self.set(
            row=starts.row.long().contiguous(),
            last_row=starts.last_row.long().contiguous(), policy_mean=mean,
            policy_inverse=inverse, nominal_pos=policy.default_joint_pos,
            offset_per=per_scale if policy.residual else torch.zeros(J),
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

    def backward(self, cost_grad: Tensor, obs_grad: Tensor | None) -> list[Tensor]:
        """Gradients of the policy's parameters."""
        library, at, costs = self.library, self.at, self._costs
        cost_grad = cost_grad.contiguous()
        costs.grad = cost_grad.data_ptr()
        self.set(clean_grad=Matrix() if obs_grad is None else obs_grad.contiguous())
        library.native_costs(at, ctypes.addressof(costs))
        for step in range(self.steps - 1, -1, -1):
            library.native_advance_back(at, step + 1)
            self.model.backward(step, to_inputs=True)
            library.native_act_back(at, step)
            self.policy.backward(step, to_inputs=step > 0)
        return self.policy.gradients()[0]


def places(names: Sequence[str]) -> list[int]:
    """Where `TERMS` are in an observation of the terms `names`; -1: they are not."""
    starts = {
        name: sum(map(size, ([other] for other in names[:i]))) for i, name in enumerate(names)
    }
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
        found = work.backward(gradients[0], gradients[2])
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
        if kernels() is None and reference.table.device.type == "cpu":
            warnings.warn(SLOW, BMWarning, stacklevel=2)
        names, numbers = task.observations, size(task.observations)
        self._known = (
            kernels() is not None and not optional and set(names) <= set(TERMS)
            and len(set(names)) == len(names) and J <= numbers <= MOST_OBSERVATIONS
        )  # fmt: skip

    def takes(self, policy: TrackingPolicy, model: WorldModel, starts: Starts) -> bool:
        """Whether the kernels know all of this; else torch must do the work."""
        single = {starts.qpos.dtype, self.reference.table.dtype} == {torch.float32}
        seen = is_known(policy, size(self.task.observations), J)
        return self._known and single and seen and is_known_model(model)

    def __call__(
        self, policy: TrackingPolicy, model: WorldModel, starts: Starts, action_noise: Tensor,
        obs_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Cost and distance of the anchor after each step, `[H, B]`; observations `[H + 1, B, O]`.

        Only the policy's parameters get a gradient. For arguments and result see `Imagination` of
        `algos/wm_track.py`.
        """
        key = (
            len(starts.qpos), sizes_of(policy), sizes_of(model.network), model.use_bfloat16,
            model.late,
        )  # fmt: skip
        inputs = policy, model, starts, action_noise, obs_noise
        return Imagined.apply(self, key, inputs, *policy.layers.parameters())  # pyright: ignore
