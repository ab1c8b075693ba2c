"""How far off a world model's predictions are, by compiled kernels and with their gradient.

`WorldModel.prediction_errors` is the definition. Letters in shapes: K steps, B robots.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bm_envs.learning.compiled import PARTS, Matrix, Misses, kernels
from bm_envs.learning.compiled_steps import Pool, Work, is_known_model, kind_of
from bm_envs.learning.world_model import State, WorldModel, error_weights


class Prediction(Work):
    """K steps of a model by recorded targets, and how far off they are."""

    def __init__(self, model: WorldModel, steps: int, batch: int) -> None:
        super().__init__(model, steps, batch, learns=True)
        self._misses = Misses()
        self._weights = error_weights(model.robot.num_joints).like(torch.zeros(1)).contiguous()

    def forward(
        self, model: WorldModel, states: Sequence[State], targets: Tensor, build: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `prediction_errors`."""
        steps, batch = self.steps, self.batch
        self.begin(model, states[0], build)
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

    def pull_back(self, grad: Tensor) -> list[Tensor]:
        """Gradients of the network's parameters, and of the linear layer's."""
        grad = grad.contiguous()
        self._misses.grad = grad.data_ptr()
        self.library.native_misses(self.at, ctypes.addressof(self._misses))
        for step in range(self.steps - 1, -1, -1):
            self.library.native_advance_back(self.at, step + 1)
            self.model.pull_back(step, to_inputs=step > 0)
        network, linear = self.model.gradients()
        return network + linear


_predictions = Pool()


class Predicted(torch.autograd.Function):
    """`Prediction` as a function of the model's parameters."""

    @staticmethod
    def forward(
        ctx: Any, key: Any, model: WorldModel, states: Sequence[State], targets: Tensor,
        build: Tensor, *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """See `Prediction.forward`."""
        steps, batch = targets.shape[:2]
        work = _predictions.take(key, lambda: Prediction(model, steps, batch))
        ctx.key, ctx.work = key, work
        cost, off = work.forward(model, states, targets, build)
        ctx.mark_non_differentiable(off)
        return cost, off

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """See `torch.autograd.Function`."""
        work, ctx.work = ctx.work, None
        found = work.pull_back(gradients[0])
        _predictions.give_back(ctx.key, work)
        return (None, None, None, None, None, *found)


def prediction_errors(
    model: WorldModel, states: Sequence[State], targets: Tensor, build: Tensor
) -> tuple[Tensor, Tensor]:
    """`WorldModel.prediction_errors`, by kernels where there are any for it."""
    start = states[0].pos
    if kernels(model.robot) is None or start.dtype != torch.float32 or not is_known_model(model):
        return model.prediction_errors(states, targets, build)
    key = targets.shape, kind_of(model)
    parameters = [*model.network.layers.parameters(), *model.linear.layers.parameters()]
    cost, off = Predicted.apply(key, model, states, targets, build, *parameters)  # pyright: ignore
    return cost, off
