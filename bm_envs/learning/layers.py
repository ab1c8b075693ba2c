"""An MLP over H steps of B rows, forwards and backwards, without autograd.

Between products of matrices stand the kernels of `native.c`. Products are torch's, in float32 or in
bfloat16. Of a left-right symmetric network all stands in two parts, see `parts.py`.

Letters in shapes: H steps, B rows, D any.
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
from bm_envs.learning.parts import Gradient, Parts, in_parts, is_symmetric, reflections

ALIGNED = 32


class Layers:
    """The layers of a network, with what each step leaves for the gradient.

    A linear layer may run beside the network, from the same inputs: it is one product with the
    first layer. What is a list has a tensor for each part.

    Attributes:
        inputs: `[H, B, D]`, to be written before `forward`. Products are faster where D is a
            multiple of `ALIGNED`: it is, and what stands behind the network's inputs stays zero.
        inputs_grad: `[B, D]`, what `pull_back` gives.
        out: `[B, D]`, the last layer's products, without its bias.
        beside: `[B, D]`, likewise, of the layer that runs beside.
        out_grads: `[H, B, D]`, to be written before `pull_back`.
        beside_grads: `[H, B, D]`, likewise.
        before: how the inputs stand in their parts, and
        after: the outputs.
    """

    def __init__(
        self, library: Any, network: Network, beside: Network | None, steps: int, batch: int,
        dtype: torch.dtype, *, learns: bool, behind: range = range(0),
    ) -> None:  # fmt: skip
        """Room for the layers of `network`, and for a layer that runs beside.

        Without `learns` the weights get no gradient, and all steps share the room of what only that
        needs. Inputs of `behind` stand behind the others.
        """

        def room(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=dtype)

        def room_to_learn(width: int) -> Tensor:
            return room(steps if learns else 1, batch, width).expand(steps, -1, -1)

        symmetric = is_symmetric(network) and (beside is None or is_symmetric(beside))
        mirrors = reflections(network) if symmetric else [None] * (len(network.layers) + 1)
        units = [
            Parts(size, mirror, behind if i == 0 else range(0))
            for i, (size, mirror) in enumerate(zip(sizes_of(network), mirrors, strict=True))
        ]
        self._library, self._dtype, self._units = library, dtype, units
        self.before, self.after = units[0], units[-1]
        count = len(units[0].parts)
        inner = [unit.counts for unit in units]
        padded = [-(-width // ALIGNED) * ALIGNED for width in inner[0]]
        extra = inner[-1] if beside is not None else [0] * count
        first = [width + more for width, more in zip(inner[1], extra, strict=True)]
        widths = [first, *inner[2:-1]]
        parts = range(count)
        self.inputs = [room_to_learn(width) for width in padded]
        self.inputs_grad = [room(batch, width) for width in padded]
        self.out = [room(batch, width) for width in inner[-1]]
        self.out_grads = [room_to_learn(width) for width in inner[-1]]
        hidden_values = [[room(steps, batch, width) for width in layer] for layer in inner[1:-1]]
        sums = [[room(batch, width) for width in layer] for layer in widths]
        sum_grads = [[room_to_learn(width) for width in layer] for layer in widths]
        hidden_grads = [[room(batch, width) for width in layer] for layer in inner[1:-1]]
        self.beside = [sums[0][p][:, inner[1][p] :] for p in parts]
        self.beside_grads = [sum_grads[0][p][..., inner[1][p] :] for p in parts]
        # All by step, since cutting takes longer than some of the kernels do.
        values, grads = [self.inputs, *hidden_values], [*sum_grads, self.out_grads]
        self._all = list(zip(values, grads, strict=True)) if learns else []
        self._values = [[value.unbind() for value in layer] for layer in values]
        self._grads = [[grad.unbind() for grad in layer] for layer in grads]
        self._sums, self._hidden_grads = [*sums, self.out], [self.inputs_grad, *hidden_grads]

        def matrices(layer: Sequence[Tensor], width: Sequence[int]) -> Any:
            """Of all parts of a layer, one after another."""
            cut = [Matrix.of(part[..., :w]) for part, w in zip(layer, width, strict=True)]
            return (Matrix * count)(*cut)

        def by_step(layer: Sequence[Tensor], width: Sequence[int]) -> list[Any]:
            return [matrices([part[h] for part in layer], width) for h in range(steps)]

        layers = list(zip(hidden_values, sum_grads, sums, hidden_grads, inner[1:-1], strict=True))
        self._kept = [
            (by_step(v, width), by_step(g, width), matrices(s, width), matrices(b, width))
            for v, g, s, b, width in layers
        ]
        at = ctypes.addressof
        self._value_at = [[at(one) for one in kept[0]] for kept in self._kept]
        self._grad_at = [[at(one) for one in kept[1]] for kept in self._kept]
        self._sum_at = [at(kept[2]) for kept in self._kept]
        self._back_at = [at(kept[3]) for kept in self._kept]
        self._first_widths = inner[1]
        name = "native_activate" if count == 1 else "native_activate_both"
        self._activate = getattr(library, name)
        self._activate_back = getattr(library, f"{name}_back")
        self._gradients = [Gradient(after, before) for before, after in pairwise(units)]
        self._beside_gradient = Gradient(units[-1], units[0]) if beside is not None else None

    def arrange(self, network: Network, beside: Network | None = None) -> None:
        """Take over the present weights, for the steps until the next call."""
        depth, units = range(len(network.layers)), self._units
        weights = [
            in_parts(network.get_parameter(f"layers.{i}.weight").detach(), units[i + 1], units[i])
            for i in depth
        ]
        if beside is not None:
            more = in_parts(
                beside.get_parameter("layers.0.weight").detach(), units[-1], units[0]
            )  # fmt: skip
            weights[0] = [torch.cat(both) for both in zip(weights[0], more, strict=True)]
        for p, inputs in enumerate(self.inputs):
            behind = inputs.shape[-1] - weights[0][p].shape[1]
            weights[0][p] = torch.nn.functional.pad(weights[0][p], (0, behind))
        self._weights = [[part.to(self._dtype) for part in layer] for layer in weights]
        self._across = [[part.T.contiguous() for part in layer] for layer in self._weights]
        biases = [network.get_parameter(f"layers.{i}.bias").detach() for i in depth]
        self._biases = [
            bias[unit.parts[0].first] for bias, unit in zip(biases, units[1:], strict=True)
        ]
        self._bias_at = [bias.data_ptr() for bias in self._biases]

    def forward(self, step: int) -> None:
        """From the step's `inputs` to `out` and `beside`."""
        value, last = [part[step] for part in self._values[0]], len(self._sums) - 1
        for i in range(last):
            multiply(value, self._across[i], self._sums[i])
            self._activate(self._sum_at[i], self._bias_at[i], self._value_at[i][step])
            value = [part[step] for part in self._values[i + 1]]
        multiply(value, self._across[last], self._sums[last])

    def pull_back(self, step: int, *, to_inputs: bool) -> None:
        """From the step's `out_grads` and `beside_grads` to those of all layers, and the inputs."""
        for i in range(len(self._sums) - 1, -1, -1):
            if i == 0 and not to_inputs:
                return
            by = [part[step] for part in self._grads[i]]
            multiply(by, self._weights[i], self._hidden_grads[i])
            if i:
                self._activate_back(
                    self._back_at[i - 1], self._value_at[i - 1][step], self._grad_at[i - 1][step]
                )

    def gradients(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of weight and bias of all layers, and of the layer beside; over all steps at once."""
        found, beside = [], []
        for i, (values, grads) in enumerate(self._all):
            weights, sums = [], []
            for value, grad in zip(values, grads, strict=True):
                value, grad = value.flatten(0, 1), grad.flatten(0, 1)
                weights.append(torch.mm(grad.T, value).float())
                sums.append(torch.empty(grad.shape[1]))
                rows = Matrix.of(grad)
                self._library.native_sum_rows(ctypes.addressof(rows), sums[-1].data_ptr())
            if i == 0 and self._beside_gradient is not None:
                cuts = self._first_widths
                rows = [part[width:] for part, width in zip(weights, cuts, strict=True)]
                beside = [
                    self._beside_gradient.weight(rows),
                    self._beside_gradient.bias(sums[0][cuts[0] :]),
                ]
            gradient = self._gradients[i]
            found += [gradient.weight(weights), gradient.bias(sums[0])]
        return found, beside


def multiply(first: Sequence[Tensor], second: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """The matrix product of each part."""
    for a, b, c in zip(first, second, out, strict=True):
        torch.mm(a, b, out=c)


def sizes_of(network: Network) -> tuple[int, ...]:
    """Numbers of inputs, units of each hidden layer, outputs."""
    shapes = [network.get_parameter(f"layers.{i}.weight").shape for i in range(len(network.layers))]
    assert all(a[0] == b[1] for a, b in pairwise(shapes))
    return (shapes[0][1], *(shape[0] for shape in shapes))
