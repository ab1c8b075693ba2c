"""CUDA graphs: the kernels of a function, recorded once and launched together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Constant:
    """A tensor that is sent to a device once: a graph cannot take anything from the host."""

    def __init__(self, value: Any) -> None:
        self._value = torch.as_tensor(value)
        self._sent: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, other: Tensor) -> Tensor:
        """The values on the device of `other`, in its type."""
        key = other.device, other.dtype
        if key not in self._sent:
            self._sent[key] = self._value.to(other)
        return self._sent[key]


class Graph:
    """A function of tensors; on an NVIDIA GPU a CUDA graph, which launches its kernels together.

    One by one, the thousands of small kernels of an update take longer to launch than to run. The
    first call records them. For that the function must not wait for the device, may read nothing
    but its arguments and tensors that stay in their place (weights, which change there), and may
    leave nothing behind but gradients. The next call overwrites what it returned and left.
    """

    def __init__(self, function: Callable[..., Any], recorded: bool) -> None:
        self.function, self.recorded = function, recorded
        self.inputs: tuple[Tensor, ...] = ()

    def __call__(self, fixed: Any, *inputs: Tensor) -> Any:
        """The function's value. `fixed`, its first argument, is the same object in every call."""
        if not self.recorded:
            return self.function(fixed, *inputs)
        if not self.inputs:
            self.inputs, self.fixed = tuple(value.clone() for value in inputs), fixed
            self.record()
        assert self.fixed is fixed
        for recorded, value in zip(self.inputs, inputs, strict=True):
            recorded.copy_(value)
        self.replay()
        return self.outputs

    def record(self) -> None:
        """Record the kernels; what they compute now is of no use."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.inputs[0].device):
            # Libraries choose kernels and reserve memory at their first calls, which cannot be
            # recorded.
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self.function(self.fixed, *self.inputs)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.outputs = self.function(self.fixed, *self.inputs)

    def replay(self) -> None:
        """Compute outputs and gradients, in their place, of what the inputs hold."""
        self.graph.replay()
