"""The denoiser as a torch network: which of a window's tokens read which, and its ONNX graph.

A transformer over the 20 state tokens and 20 action tokens of a window (`sampler.py`). The trainer
`algos/ddpm_guided.py` gives it weights; a model in use needs none of this, since `model.py` runs
the ONNX graph. Needs the extra `train`.

Letters in shapes: B windows, L = 20 steps, M actions, S state and A action features (29, or those
of a latent), W width.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bm_envs.diffusion.model import INPUTS, OUTPUTS, A, write_denoiser
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.errors import ConfigError
from bm_envs.tasks.guided.states import PAST, representation


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the transformer, and how much of a window its actions see."""

    width: int = 256
    """Features of a token."""
    layers: int = 2
    """At least two: with one layer, actions never see what becomes of the states."""
    heads: int = 4
    """Heads of the attention."""
    dropout: float = 0.0
    """Share that is dropped of tokens and in the layers while the network learns (prototype: 0.1).
    Runs on two cores see each window only a few times, so there is nothing to hold back."""
    history: int = PAST
    """Known states that actions read, the present one included; for comparisons."""
    horizon: int = LENGTH - PAST
    """Future states that actions read. Those beyond are predicted, but a guide on them reaches no
    action. For comparisons."""

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ConfigError(f"heads is {self.heads}, expected 1 or more.")
        if self.layers < 2:
            raise ConfigError(f"layers is {self.layers}, expected 2 or more: see --help.")
        if self.width % (4 * self.heads) or self.width < 8:
            raise ConfigError(
                f"width is {self.width}, expected a multiple of 4 * heads = {4 * self.heads}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}, expected a share in [0, 1).")
        for name, most in (("history", PAST), ("horizon", LENGTH - PAST)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 to {most}.")


PUBLISHED = NetworkConfig(width=512, layers=6, dropout=0.3)  # 20 M weights. Source: the paper


class Block(nn.Module):
    """Attention and a feed-forward part; each reads the normalized tokens and is added to them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.head_size = config.heads, width // config.heads
        self.dropout = config.dropout
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, n, W]`; `mask [n, n]`: whether the row's token reads the column's."""
        qkv = self.query_key_value(self.before_attention(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        # The attention is written out: for so few tokens, torch's fused attention takes five times
        # as long to differentiate on a processor.
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5
        read = self._drop(scores.masked_fill(~mask, -math.inf).softmax(-1)) @ value
        x = x + self._drop(self.mixed(read.transpose(1, 2).flatten(2)))
        return x + self._drop(self.down(self._drop(F.gelu(self.up(self.before_forward(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Denoiser(nn.Module):
    """From a noisy window to the clean one: a transformer over its state and action tokens."""

    def __init__(self, state_size: int, config: NetworkConfig, action_size: int = A) -> None:
        super().__init__()
        width, part = config.width, config.width * 3 // 4
        self.state_in, self.action_in = nn.Linear(state_size, part), nn.Linear(action_size, part)
        self.positions = nn.Parameter(torch.zeros(LENGTH, 2, width))
        self.dropout = config.dropout
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.state_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, state_size))
        self.action_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action_size))
        count = (width - part) // 2
        self.frequencies: Tensor
        steps = torch.arange(count) / (count - 1)
        self.register_buffer("frequencies", torch.exp(-np.log(10_000) * steps), persistent=False)
        self.mask: Tensor
        mask = attention_mask(config.history, config.horizon)
        self.register_buffer("mask", mask, persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions, std=0.02)

    def forward(
        self, states: Tensor, actions: Tensor, state_levels: Tensor, action_levels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates of the clean states `[B, L, S]` and actions `[B, M, A]`.

        Args:
            states: noisy, normalized. `[B, L, S]`.
            actions: noisy, normalized: the first M of the window. `[B, M, A]`.
            state_levels: noise level of each state. `[B, L]`.
            action_levels: noise level of each action. `[B, M]`.
        """
        count = actions.shape[1]
        state_tokens = torch.cat([self.state_in(states), self._level(state_levels)], -1)
        action_tokens = torch.cat([self.action_in(actions), self._level(action_levels)], -1)
        x = torch.cat([
            state_tokens + self.positions[:, 0], action_tokens + self.positions[:count, 1]
        ], 1)  # fmt: skip
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        mask = self.mask[: LENGTH + count, : LENGTH + count]
        for block in self.blocks:
            x = block(x, mask)
        return self.state_out(x[:, :LENGTH]), self.action_out(x[:, LENGTH:])

    def _level(self, levels: Tensor) -> Tensor:
        """Sines and cosines of noise levels. `[B, L]` -> `[B, L, W / 4]`."""
        angle = levels[..., None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


def attention_mask(history: int = PAST, horizon: int = LENGTH - PAST) -> Tensor:
    """Whether the row's token reads the column's; all states, then all actions. `[2 L, 2 L]` bool.

    States read all states and no actions. An action reads the states and actions up to its own
    step: what follows reaches it through the states that have read it, one layer later. No token
    reads a later action, so a window may end before its last actions. Tokens before the last
    `history` known steps, and beyond `horizon` steps after the present, are read by none but
    themselves.
    """
    step = torch.arange(LENGTH).repeat(2)
    is_action = torch.arange(2 * LENGTH) >= LENGTH
    row, column = is_action[:, None], is_action[None]
    earlier = step[None] <= step[:, None]
    shown = (step >= PAST - history) & (step < PAST + horizon)
    itself = torch.eye(2 * LENGTH, dtype=torch.bool)
    return ((~row & ~column) | (row & earlier)) & (shown[None] | itself)


def onnx_graph(network: Denoiser) -> bytes:
    """One call of the network as an ONNX model, for any number of windows and of their actions."""
    example = (
        torch.zeros(2, LENGTH, network.state_in.in_features),
        torch.zeros(2, LENGTH, network.action_in.in_features),
        torch.zeros(2, LENGTH, dtype=torch.int64), torch.zeros(2, LENGTH, dtype=torch.int64),
    )  # fmt: skip
    axes = {
        name: {0: "B", 1: "N"} if "action" in name else {0: "B"} for name in (*INPUTS, *OUTPUTS)
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # torch calls this exporter deprecated. The new one needs one more package and gives a
        # larger graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / "denoiser.onnx"
        torch.onnx.export(
            network, example, path, input_names=list(INPUTS), output_names=list(OUTPUTS),
            dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
        return path.read_bytes()


def write_untrained(
    folder: Path, config: NetworkConfig, representation_name: str,
    drives: Mapping[str, Sequence[float]],
) -> None:  # fmt: skip
    """Write a model with random weights, by which the time of a call can be measured."""
    rep = representation(representation_name)
    scaling = {
        "state_center": np.zeros(rep.size), "state_half": np.ones(rep.size),
        "action_center": np.zeros(A), "action_half": np.ones(A),
    }  # fmt: skip
    write_denoiser(
        folder, onnx_graph(Denoiser(rep.size, config).eval()), representation=rep.name,
        drives=drives, scaling=scaling, data=(), training={},
    )  # fmt: skip
