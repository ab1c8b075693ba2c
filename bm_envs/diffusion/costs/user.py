"""A cost as a function of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bm_envs.diffusion.costs.base import Evaluated
from bm_envs.diffusion.fields import numbers
from bm_envs.errors import ConfigError, unknown_name
from bm_envs.tasks.guided.states import PAST, Representation


@dataclass(frozen=True)
class UserCost(Evaluated):
    """A cost as a function of one's own.

    The function is given the blocks of the window by name, as `states.py` lists them:
    `[N, L, size]` each, all L steps in the now frame, of which step `NOW` is the present and later
    ones are `AHEAD` seconds away. It returns

    - in NumPy: the value `[N]` and a dict of its derivatives by the blocks it depends on, in their
      shapes. That it is right is the author's affair: compare with small differences.
    - with `torch`: the value `[N]` alone, by torch operations on tensors; autograd does the rest.

    What is known, the steps up to the present, may be read, but its derivative does not count.

    >>> from bm_envs.tasks.guided.states import representation
    >>> def crouch(blocks):  # walk with the pelvis 0.6 m above the ground
    ...     return 0.5 * ((blocks["root_pos"][:, PAST:, 2] - 0.6) ** 2).sum(1)
    >>> cost = UserCost(crouch, torch=True)
    >>> rep = representation("joint_rot")
    >>> cost.value(np.zeros((1, LENGTH, rep.size)), rep).round(2)
    array([2.88])
    """

    function: Callable[[dict[str, Any]], Any]
    torch: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"UserCost: function is {self.function!r}, expected a function.")
        if self.torch:
            self._torch()

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        blocks = {name: features[..., part].copy() for name, part in rep.blocks.items()}
        value, slopes = self._by_torch(blocks) if self.torch else self._by_hand(blocks)
        gradient = np.zeros_like(features)
        for name, slope in slopes.items():
            if name not in blocks:
                raise ConfigError(
                    unknown_name(f"block of the gradient of {self._name}", name, blocks)
                )
            slope = self._checked(f"gradient of block '{name}'", slope, blocks[name].shape)
            gradient[:, PAST:, rep.blocks[name]] = slope[:, PAST:]
        return self._checked("value", value, (len(features),)), gradient

    def _by_hand(self, blocks: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        result = self.function(dict(blocks))
        match result:
            case (value, dict() as slopes):
                return value, slopes
        raise ConfigError(
            f"{self._name} returns {type(result).__name__}, expected the value and a dict of "
            "gradients by block (or torch=True)."
        )

    def _by_torch(self, blocks: dict[str, np.ndarray]) -> tuple[Any, dict[str, Any]]:
        torch = self._torch()
        with torch.enable_grad():
            tensors = {name: torch.from_numpy(block) for name, block in blocks.items()}
            for tensor in tensors.values():
                tensor.requires_grad_()
            value = self.function(dict(tensors))
            if not isinstance(value, torch.Tensor) or not value.requires_grad:
                raise ConfigError(
                    f"{self._name} returns {type(value).__name__}, expected a tensor that depends "
                    "on the blocks by torch operations."
                )
            slopes = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True)
        used = zip(tensors, slopes, strict=True)
        return value.detach().numpy(), {k: slope.numpy() for k, slope in used if slope is not None}

    def _checked(self, what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        return numbers(f"{what} of {self._name}", value, shape)

    @property
    def _name(self) -> str:
        return f"UserCost '{getattr(self.function, '__name__', self.function)}'"

    @staticmethod
    def _torch() -> Any:
        try:
            import torch
        except ImportError:
            raise ConfigError(
                "UserCost: torch=True needs the package torch: pip install 'bm-envs[train]'."
            ) from None
        return torch
