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
    `[N, L, size]` each, of all L steps, of which step `NOW` is the present and later ones are
    `AHEAD` seconds away. Frames are those of the table there: blocks of the root are in the now
    frame, `body_pos` and `body_lin_vel` in each step's own yaw frame, the latter less the root's
    velocity. Places of links in one frame, and goals that stand in the world, are at hand in
    `user_costs.PlanCost`. It returns

    - in NumPy: the value `[N]` and a dict of its derivatives by the blocks it depends on, in their
      shapes. That it is right is the author's affair: compare with small differences.
    - with `torch`: the value `[N]` alone, by torch operations on tensors; autograd does the rest.

    What is known, the steps up to the present, may be read, but its derivative does not count.

    >>> from bm_envs.tasks.guided.states import representation
    >>> def slow(blocks):  # walk no faster than 0.3 m/s
    ...     return torch.relu(blocks["root_lin_vel"][:, PAST:, 0] - 0.3).square().sum(1)
    >>> cost = UserCost(slow, torch=True)
    """

    function: Callable[[dict[str, Any]], Any]
    torch: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"UserCost: function is {self.function!r}, expected a function.")
        if self.torch:
            need_torch(self._name)

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
        torch = need_torch(self._name)
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
            return slopes_of(value, tensors, self._name)

    def _checked(self, what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        return numbers(f"{what} of {self._name}", value, shape)

    @property
    def _name(self) -> str:
        return f"UserCost '{getattr(self.function, '__name__', self.function)}'"


def slopes_of(
    value: Any, tensors: dict[Any, Any], whose: str
) -> tuple[np.ndarray, dict[Any, np.ndarray]]:
    """The value of a torch tensor, and its derivatives by those it depends on, by their names.

    Raises:
        ConfigError: it is no plain tensor of float32 or float64, or torch cannot differentiate it;
            the sentence begins with `whose`.
    """
    torch = need_torch(whose)
    plain = value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.dtype not in (torch.float32, torch.float64):
        kind = f"{value.dtype} tensor, {value.layout}, on {value.device}"
        raise ConfigError(
            f"{whose} returns a {kind}, expected torch.float32 or torch.float64, strided, on cpu."
        )
    try:
        slopes = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True)
    except RuntimeError as error:
        said = str(error).splitlines()[0].split(": ")[0].rstrip(".")
        raise ConfigError(
            f"{whose} cannot be differentiated by torch: {said}; expected operations that make new "
            "tensors and change none."
        ) from error
    used = zip(tensors, slopes, strict=True)
    return value.detach().numpy(), {k: slope.numpy() for k, slope in used if slope is not None}


def need_torch(whose: str) -> Any:
    """The package torch.

    Raises:
        ConfigError: it is not installed; the sentence says whose function needs it.
    """
    try:
        import torch
    except ImportError:
        raise ConfigError(
            f"{whose} is differentiated by the package torch: pip install 'bm-envs[train]', or "
            "return the gradient yourself."
        ) from None
    return torch
