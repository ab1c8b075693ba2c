"""An MLP over H steps of B rows, forwards and backwards, without autograd.

Between products of matrices stand the kernels of `native.c`. Products are torch's, in float32 or in
bfloat16. Letters in shapes: H steps, B rows, D any.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bm_envs.learning.compiled import Matrix
from bm_envs.learning.networks import Network

ALIGNED = 32


class Layers:
    """The layers of a network, with what each step leaves for the gradient.

    A linear layer may run beside the network, from the same inputs: it is one product with the
    first layer.

    Attributes:
        inputs: `[H, B, D]`, to be written before `forward`. Products are faster where D is a
            multiple of `ALIGNED`: it is, and what stands behind the network's inputs stays zero.
        inputs_grad: `[B, D]`, what `pull_back` gives.
        out: `[B, D]`, the last layer's products, without its bias.
        beside: `[B, D]`, likewise, of the layer that runs beside.
        out_grads: `[H, B, D]`, to be written before `pull_back`.
        beside_grads: `[H, B, D]`, likewise.
    """

    def __init__(
        self, library: Any, sizes: Sequence[int], beside: int, steps: int, batch: int,
        dtype: torch.dtype, *, learns: bool,
    ) -> None:  # fmt: skip
        """Room for an MLP of `sizes`, and for `beside` outputs of a layer that runs beside.

        Without `learns` the weights get no gradient, and all steps share the room of what only that
        needs.
        """

        def room(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=dtype)

        def room_to_learn(width: int) -> Tensor:
            return room(steps if learns else 1, batch, width).expand(steps, -1, -1)

        self._library, self._dtype = library, dtype
        hidden, self._first_size = sizes[1:-1], sizes[0]
        padded = -(-sizes[0] // ALIGNED) * ALIGNED
        widths = [hidden[0] + beside, *hidden[1:]]
        self.inputs, self.inputs_grad = room_to_learn(padded), room(batch, padded)
        self.out, self.out_grads = room(batch, sizes[-1]), room_to_learn(sizes[-1])
        self._hidden = [room(steps, batch, width) for width in hidden]
        sums = [room(batch, width) for width in widths]
        sum_grads = [room_to_learn(width) for width in widths]
        hidden_grads = [room(batch, width) for width in hidden]
        self.beside, self.beside_grads = sums[0][:, hidden[0] :], sum_grads[0][..., hidden[0] :]
        # All by step, since cutting takes longer than some of the kernels do.
        values = [self.inputs, *self._hidden]
        grads = [*sum_grads, self.out_grads]
        self._all = list(zip(values, grads, strict=True)) if learns else []
        self._values = [value.unbind() for value in values]
        self._grads = [grad.unbind() for grad in grads]
        self._sums, self._hidden_grads = [*sums, self.out], [self.inputs_grad, *hidden_grads]
        matrices = [[Matrix.of(value) for value in parts.unbind()] for parts in self._hidden]
        grad_matrices = [
            [Matrix.of(value[:, :width]) for value in parts.unbind()]
            for parts, width in zip(sum_grads, hidden, strict=True)
        ]
        sum_matrices, back_matrices = ([*map(Matrix.of, v)] for v in (sums, hidden_grads))
        self._kept = matrices, grad_matrices, sum_matrices, back_matrices
        at = ctypes.addressof
        self._value_at, self._grad_at = (
            [[at(one) for one in parts] for parts in lists] for lists in (matrices, grad_matrices)
        )
        self._sum_at, self._back_at = (list(map(at, v)) for v in (sum_matrices, back_matrices))
        self._first_width = hidden[0]

    def arrange(self, network: Network, beside: Network | None = None) -> None:
        """Take over the present weights, for the steps until the next call."""
        layers = [*network.layers]
        weights = [network.get_parameter(f"layers.{i}.weight").detach() for i in range(len(layers))]
        if beside is not None:
            weights[0] = torch.cat([weights[0], beside.get_parameter("layers.0.weight").detach()])
        behind = self.inputs.shape[-1] - self._first_size
        weights[0] = torch.nn.functional.pad(weights[0], (0, behind))
        weights = [weight.to(self._dtype, copy=True) for weight in weights]
        self._weights = weights
        self._across = [weight.T.contiguous() for weight in weights]
        biases = [network.get_parameter(f"layers.{i}.bias") for i in range(len(layers))]
        self._biases = [bias.detach() for bias in biases]
        self._bias_at = [bias.data_ptr() for bias in self._biases]

    def forward(self, step: int) -> None:
        """From the step's `inputs` to `out` and `beside`."""
        value, last = self._values[0][step], len(self._sums) - 1
        activate = self._library.native_activate
        for i in range(last):
            torch.mm(value, self._across[i], out=self._sums[i])
            activate(self._sum_at[i], self._bias_at[i], self._value_at[i][step])
            value = self._values[i + 1][step]
        torch.mm(value, self._across[last], out=self._sums[last])

    def pull_back(self, step: int, *, to_inputs: bool) -> None:
        """From the step's `out_grads` and `beside_grads` to those of all layers, and the inputs."""
        activate_back = self._library.native_activate_back
        for i in range(len(self._sums) - 1, 0, -1):
            torch.mm(self._grads[i][step], self._weights[i], out=self._hidden_grads[i])
            activate_back(
                self._back_at[i - 1], self._value_at[i - 1][step], self._grad_at[i - 1][step]
            )
        if to_inputs:
            torch.mm(self._grads[0][step], self._weights[0], out=self.inputs_grad)

    def gradients(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of weight and bias of all layers, and of the layer beside; over all steps at once."""
        found = []
        for value, grad in ((v.flatten(0, 1), g.flatten(0, 1)) for v, g in self._all):
            bias, rows = torch.empty(grad.shape[1]), Matrix.of(grad)
            self._library.native_sum_rows(ctypes.addressof(rows), bias.data_ptr())
            found += [torch.mm(grad.T, value).float(), bias]
        width, found[0] = self._first_width, found[0][:, : self._first_size]
        beside = [value[width:] for value in found[:2]]
        found[:2] = [value[:width] for value in found[:2]]
        return found, beside


def sizes_of(network: Network) -> tuple[int, ...]:
    """Numbers of inputs, units of each hidden layer, outputs."""
    shapes = [network.get_parameter(f"layers.{i}.weight").shape for i in range(len(network.layers))]
    assert all(a[0] == b[1] for a, b in pairwise(shapes))
    return (shapes[0][1], *(shape[0] for shape in shapes))
