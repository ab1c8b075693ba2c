"""Random numbers, many at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bm_envs.learning.compiled import kernels


def even_numbers(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Evenly drawn from -1 to 1, float32, on the generator's device.

    Compiled they are a hash of their places and of a key that the generator draws: it would take
    as long to draw them one by one as some steps of imagination.
    """
    library, device = kernels(), generator.device
    if library is None or device.type != "cpu":
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1
    key = torch.randint(2**63 - 1, (1,), generator=generator).item()
    out = torch.empty(*shape)
    library.native_uniform(key, out.numel(), out.data_ptr())
    return out
