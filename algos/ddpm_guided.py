"""Train a diffusion model of states and actions together (BeyondMimic stage 2, arXiv 2508.08241).

    python algos/ddpm_guided.py --data runs/rollouts --representation body_pos
    python algos/ddpm_guided.py --data runs/rollouts --preset paper     # 20 M weights, for a GPU

From windows of 20 control steps of roll-outs (`collect_rollouts.py`) a transformer learns what a
window was before noise was put on it, every state and every action with a noise level of its own.
Sampled with the last states put in, it says what the robot will do next and the action that does
it: a controller, without a task; a cost on its states gives it one at test time. How it is sampled
is in `bm_envs/diffusion/sampler.py`; this file trains it.

The run directory holds `config.json`, `checkpoint.pt` (all that a bit-exact `--resume` needs),
`denoiser.onnx` with `policy.json` (what leaves the project), `metrics.jsonl`, TensorBoard events.

Letters in shapes: B windows, L = 20 steps, S state and A = 29 action features, W width.

Logged (metrics.jsonl and TensorBoard):

    losses/state, losses/action, losses/rate    the loss' three parts, mean since the last row
    valid/state, valid/action                   averaged weights, on held-out episodes
    charts/learning_rate, charts/windows_per_s
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.diffusion import rollouts
from bm_envs.diffusion.model import write_denoiser
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.diffusion.sampler import LENGTH, SCHEDULE, K
from bm_envs.errors import ConfigError
from bm_envs.learning.folder import Run, claim_run, save_checkpoint
from bm_envs.learning.log import RunLog
from bm_envs.learning.networks import has_native_bfloat16
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import PAST, Representation, States, representation, states_of

A = g1.NUM_JOINTS


@dataclass(frozen=True)
class Config:
    """The run. The defaults are the `cpu` preset."""

    data: tuple[Path, ...]
    """Folders of roll-outs."""
    representation: Literal["body_pos", "joint_rot"] = "body_pos"
    """What the model sees of a state."""
    preset: Literal["cpu", "paper"] = "cpu"
    """`paper`: the published size and recipe."""
    run_dir: Path | None = None
    """Where results go; default: runs/<representation>__ddpm_guided__<seed>, with __2 and so on
    behind it where that is a run with other settings."""
    resume: bool = False
    """Go on from the checkpoint in `run_dir`, if there is one."""
    seed: int = 1
    """Seed of everything."""
    total_steps: int = 10_000
    """Gradient steps."""
    batch_size: int = 64
    """Windows of a step; their mirror images come on top."""
    mirror: bool = True
    """Learn from the left-right mirror image of every window as well."""

    width: int = 256
    """Of the transformer."""
    layers: int = 2
    """Two at least: with one, actions never see what becomes of the states."""
    heads: int = 4
    """Of the attention."""
    dropout: float = 0.0
    """Of tokens and in the layers (prototype: 0.1). Runs on two cores see each window a few times
    only, so there is nothing to hold back."""

    optimizer: Literal["muon", "adamw"] = "muon"
    """`muon`: steps of the blocks' matrices with all singular values alike, AdamW for the rest;
    `adamw`: for all (prototype), which needs several times the steps."""
    learning_rate: float = 4e-3
    """AdamW's after the warm-up; then a cosine down to 0."""
    muon_learning_rate: float = 1e-2
    """Muon's, likewise."""
    warmup_steps: int = 500
    """Linear from 0."""
    weight_decay: float = 1e-3
    """Of the matrices, not of biases, norms or positions. Source: prototype."""
    max_grad_norm: float = 1.0
    """Bound of the gradient."""
    ema_max: float = 0.9999
    """Averaged weights: decay `1 - (1 + step)^-0.75`, at most this. Source: prototype."""
    past_noise: float = 0.0
    """Share of level 0's noise that past states have in training (prototype: 1, with clean ones at
    run time). What is learned from noisy states pulls clean ones towards the mean: walking dies
    away."""
    shoved_futures: bool = False
    """Learn from windows in whose future the robot is shoved, too (prototype: all windows). A shove
    is no plan, and what the expert does against it is no way to bring it about."""
    action_steps: int = 8
    """Future actions that count in the loss. Source: the paper."""
    history: int = PAST
    """Known states, the present one included, that the network sees; for comparisons."""
    horizon: int = LENGTH - PAST
    """Future states that it sees; those beyond are predicted, but a guide on them reaches no
    action. For comparisons."""
    rate_coef: float = 0.1
    """Weight of the change of predicted actions from step to step. Source: prototype."""
    emphasis: float = 4.0
    """Factor by which the root's share of a state is emphasized in the random half of the projected
    states; 0: states are not projected, and then guidance of the root is mostly taken back by the
    180 features of the rest. Source: prototype."""
    bfloat16: Literal["auto", "on", "off"] = "auto"
    """Matrix products of the training in bfloat16; `auto`: where the processor has it."""

    validation: float = 0.02
    """Share of episodes held out."""
    log_every: int = 50
    """Steps between rows."""
    eval_every: int = 500
    """Steps between validations."""
    checkpoint_s: float = 60.0
    """Seconds between checkpoints, which are taken with a row of the log."""
    half: bool = False
    """Keep the matrices of denoiser.onnx in float16, which halves the file; sums stay in float32.
    With --resume a finished run is exported anew."""
    threads: int = 0
    """Of torch; 0: all cores."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    def __post_init__(self) -> None:
        for name in ("total_steps", "batch_size", "heads", "log_every", "eval_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if self.layers < 2:
            raise ConfigError(f"layers is {self.layers}, expected 2 or more: see --help.")
        if self.width % (4 * self.heads) or self.width < 8:
            raise ConfigError(
                f"width is {self.width}, expected a multiple of 4 * heads = {4 * self.heads}."
            )
        if not 0 <= self.past_noise <= 1:
            raise ConfigError(f"past_noise is {self.past_noise}, expected a share, 0 to 1.")
        if not 0 < self.validation < 1 or not 0 <= self.dropout < 1:
            raise ConfigError("validation must be in (0, 1) and dropout in [0, 1).")
        most = LENGTH - PAST
        for name, high in (("action_steps", most), ("horizon", most), ("history", PAST)):
            if not 1 <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 to {high}.")


def paper() -> Config:
    """The published size, 6 x 4 x 512, with the prototype's recipe; dropout as in the paper."""
    return Config(
        data=(), preset="paper", width=512, layers=6, dropout=0.3, batch_size=512,
        optimizer="adamw", learning_rate=1e-4, warmup_steps=2000, total_steps=60_000,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], Config]] = {"cpu": lambda: Config(data=()), "paper": paper}


# --- data -----------------------------------------------------------------------------------------


class Windows:
    """Windows of `LENGTH` steps out of episodes, none of them across two.

    Without `shoved_futures`, none in whose future the robot is shoved; that it was shoved before is
    no matter.
    """

    def __init__(
        self, episodes: Rollouts, rep: Representation, device: torch.device,
        shoved_futures: bool = False,
    ) -> None:  # fmt: skip
        self._rep = rep
        states = states_of(episodes.qpos, episodes.qvel)
        self._states = States(*(torch.as_tensor(value, device=device) for value in states))
        self._actions = torch.as_tensor(episodes.action, device=device)
        starts = episodes.qpos.shape[1] - LENGTH + 1
        if starts < 1:
            raise ConfigError(
                f"Episodes have {episodes.qpos.shape[1]} steps, expected {LENGTH} or more."
            )
        futures = np.arange(starts)[:, None] + np.arange(PAST - 1, LENGTH - 1)
        taken = shoved_futures | ~episodes.pushed[:, futures].any(2)  # [E, starts]
        self._places = torch.as_tensor(np.argwhere(taken), device=device)
        if not len(self._places):
            raise ConfigError(
                "In the future of every window the robot is shoved, expected some without."
            )
        self._offsets = torch.arange(LENGTH, device=device)
        index, sign = rep.mirror
        self._mirror = torch.as_tensor(index), torch.as_tensor(sign, dtype=torch.float32)
        joint, flip = g1.mirror_map()
        self._joint_mirror = torch.as_tensor(joint), torch.as_tensor(flip, dtype=torch.float32)
        self._mirror, self._joint_mirror = (
            tuple(value.to(device) for value in pair) for pair in (self._mirror, self._joint_mirror)
        )

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, index: Tensor, mirror: bool) -> tuple[Tensor, Tensor]:
        """Features of states `[B, L, S]` and actions `[B, L, A]` of windows `index [B]`.

        With `mirror`, 2 B: their mirror images follow.
        """
        episode, start = self._places[index].unbind(1)
        at = episode[:, None], start[:, None] + self._offsets
        states = States(*(value[at] for value in self._states if value is not None))
        features, actions = self._rep.encode(states, PAST - 1), self._actions[at]
        if mirror:
            features = torch.cat([features, features[..., self._mirror[0]] * self._mirror[1]])
            index, sign = self._joint_mirror
            actions = torch.cat([actions, actions[..., index] * sign])
        return features, actions


def limits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Center and half-range of each feature, `[D]` each, of `[..., D]`; most of it is then in +-1.

    Of the 0.1 and 99.9 percentiles, widened by a twentieth: one odd episode must not shrink all
    others. A feature that hardly varies is only centered.
    """
    ordered = values.reshape(-1, values.shape[-1]).sort(dim=0).values
    last = len(ordered) - 1
    low, high = ordered[round(0.001 * last)], ordered[round(0.999 * last)]
    half = torch.where(high - low < 1e-4, torch.ones_like(low), 0.525 * (high - low))
    return 0.5 * (high + low), half


def emphasis_projection(rep: Representation, factor: float, generator: torch.Generator) -> Tensor:
    """`E = [diag(b) R, 1]`, `[S, 2 S]`: states `x` are diffused as `x E`, in which the root weighs.

    b is `factor` on the root's position, rotation and angular velocity and 1 elsewhere. R is random
    and knows left from right: features that a reflection turns around fill its first half of the
    columns, the others the second, and swapped features are alike. So a reflection of `x` is one of
    `x E`. Source: prototype, mode `random_emph_symm`.
    """
    index, sign = torch.as_tensor(rep.mirror[0]), torch.as_tensor(rep.mirror[1])
    size = rep.size
    turned = sign < 0
    first = torch.arange(size) < size // 2
    random = torch.randn(size, size, generator=generator, dtype=torch.float64)
    random = 0.5 * (random + random[index]) * (turned[:, None] == first)
    count = torch.where(first, turned.sum(), (~turned).sum())
    emphasis = torch.ones(size, dtype=torch.float64)
    for name in ("root_pos", "root_rot", "root_ang_vel"):
        emphasis[rep.blocks[name]] = factor
    random = emphasis[:, None] * random / count.sqrt()
    return torch.cat([random, torch.eye(size, dtype=torch.float64)], 1)


# --- network --------------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention and a feed-forward part, each on normalized input and added to it."""

    def __init__(self, config: Config) -> None:
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
        # Written out: of so few tokens, torch's fused attention takes five times as long to
        # differentiate on a processor.
        scores = query @ key.transpose(-1, -2) * self.head_size**-0.5
        read = self._drop(scores.masked_fill(~mask, -math.inf).softmax(-1)) @ value
        x = x + self._drop(self.mixed(read.transpose(1, 2).flatten(2)))
        return x + self._drop(self.down(self._drop(F.gelu(self.up(self.before_forward(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class Denoiser(nn.Module):
    """From a noisy window to the clean one: a transformer over its state and action tokens."""

    def __init__(self, state_size: int, config: Config) -> None:
        super().__init__()
        width, part = config.width, config.width * 3 // 4
        self.state_in, self.action_in = nn.Linear(state_size, part), nn.Linear(A, part)
        self.positions = nn.Parameter(torch.zeros(LENGTH, 2, width))
        self.dropout = config.dropout
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.state_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, state_size))
        self.action_out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, A))
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
        """See `bm_envs.diffusion.sampler`; actions may be the first few of the window."""
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
    step: what follows reaches it through the states that have read it, one layer later. As no
    token reads a later action, a window may be short of them. Tokens before the last `history`
    known steps, and beyond `horizon` steps after the present, are read by none but themselves.
    """
    step = torch.arange(LENGTH).repeat(2)
    is_action = torch.arange(2 * LENGTH) >= LENGTH
    row, column = is_action[:, None], is_action[None]
    earlier = step[None] <= step[:, None]
    shown = (step >= PAST - history) & (step < PAST + horizon)
    itself = torch.eye(2 * LENGTH, dtype=torch.bool)
    return ((~row & ~column) | (row & earlier)) & (shown[None] | itself)


# --- mathematics ----------------------------------------------------------------------------------


def noisy(clean: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens `[B, L, D]` at noise levels `[B, L]`."""
    abar = torch.as_tensor(SCHEDULE.abar, dtype=clean.dtype, device=clean.device)[levels][..., None]
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


def draw_levels(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A level for every state and every action, `[B, L]` each; that of past states is 0."""
    state_levels, action_levels = (
        torch.randint(K, (count, LENGTH), generator=generator, device=generator.device)
        for _ in range(2)
    )
    state_levels[:, :PAST] = 0
    return state_levels, action_levels


def window_loss(
    states: Tensor, actions: Tensor, clean_states: Tensor, clean_actions: Tensor, action_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors of estimated states and actions, and the actions' change. `[B, L, D]` each.

    Actions further ahead than `action_steps` do not count; the mean is over all of them still.
    Source: the paper's eq. 4; weights and the third part from the prototype.
    """
    state = (states - clean_states).square().mean()
    error = (actions - clean_actions).square()[:, : PAST + action_steps]
    action = error.sum() / actions.numel()
    rate = (actions[:, 1:] - actions[:, :-1]).square().mean()
    return state, action, rate


def schedule(step: int, config: Config) -> float:
    """Share of the full step size: linear warm-up, then half a cosine to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(step: int, config: Config) -> float:
    """Share of the averaged weights that stays in step `step`, counted from 0."""
    return min(1 - (1 + step) ** -0.75, config.ema_max)


# --- learner --------------------------------------------------------------------------------------


def make_optimizers(network: Denoiser, config: Config) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers that share the network's weights, each with its full step size.

    Muon: K. Jordan et al., 2024, as in torch; scaled so that a step is as large as one of AdamW.
    """
    matrices = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    inner = {id(p) for p in network.blocks.parameters()} if config.optimizer == "muon" else set()
    by_muon = [p for p in matrices if id(p) in inner]
    chosen = {id(p) for p in matrices}
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in matrices if id(p) not in inner],
             "weight_decay": config.weight_decay},
            {"params": [p for p in network.parameters() if id(p) not in chosen],
             "weight_decay": 0.0},
        ],
        lr=config.learning_rate, betas=(0.9, 0.95), fused=True,
    )  # fmt: skip
    made: list[tuple[torch.optim.Optimizer, float]] = [(adamw, config.learning_rate)]
    if by_muon:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(
                f"optimizer is 'muon', which torch {torch.__version__} lacks: expected 2.9 or "
                "newer, or --optimizer adamw."
            )
        muon = torch.optim.Muon(
            by_muon, lr=config.muon_learning_rate, weight_decay=0.0, momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        made.append((muon, config.muon_learning_rate))
    return made


class Learner:
    """Network, averaged network, normalizers and optimizer: one call of `learn` per batch."""

    def __init__(self, config: Config, rep: Representation, device: torch.device) -> None:
        self.config, self.device = config, device
        projected = rep.size * (2 if config.emphasis else 1)
        self.network = Denoiser(projected, config).to(device)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizers = make_optimizers(self.network, config)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.bfloat16 = config.bfloat16 == "on" or (
            config.bfloat16 == "auto" and has_native_bfloat16(device)
        )
        self.step = 0
        # What is learned is `((features - center) / half) @ projection`; part of the checkpoint.
        generator = torch.Generator().manual_seed(config.seed)
        eye = torch.eye(rep.size, dtype=torch.float64)
        projection = (
            emphasis_projection(rep, config.emphasis, generator) if config.emphasis else eye
        )
        self.scaling = {
            "state_center": torch.zeros(rep.size), "state_half": torch.ones(rep.size),
            "action_center": torch.zeros(A), "action_half": torch.ones(A),
            "projection": projection.float(),
        }  # fmt: skip
        self._to_device()

    def _to_device(self) -> None:
        self.scaling = {name: value.to(self.device) for name, value in self.scaling.items()}

    def fit_limits(self, windows: Windows) -> None:
        """Set the normalizers by a tenth of the windows, 20 000 at most."""
        count = min(len(windows) // 10 + 1, 20_000)
        index = torch.randint(len(windows), (count,), generator=self.generator, device=self.device)
        states, actions = windows.batch(index, self.config.mirror)
        center, half = limits(states)
        self.scaling |= {"state_center": center, "state_half": half}
        center, half = limits(actions)
        self.scaling |= {"action_center": center, "action_half": half}

    def scaled(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Features as the network sees them, without noise."""
        s = self.scaling
        states = (states - s["state_center"]) / s["state_half"]
        if self.config.emphasis:
            states = states @ s["projection"]
        return states, (actions - s["action_center"]) / s["action_half"]

    def losses(
        self, network: Denoiser, windows: Windows, index: Tensor, mirror: bool,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The loss' parts on windows `index`."""
        states, actions = self.scaled(*windows.batch(index, mirror))
        levels = draw_levels(len(states), generator)
        given = [
            noisy(clean, level, generator)
            for clean, level in zip((states, actions), levels, strict=True)
        ]
        past = slice(None), slice(PAST)
        given[0][past] = torch.lerp(states[past], given[0][past], self.config.past_noise)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            clean_states, clean_actions = network(*given, *levels)
        return window_loss(
            clean_states.float(), clean_actions.float(), states, actions, self.config.action_steps
        )

    def learn(self, windows: Windows) -> Tensor:
        """One gradient step; returns the loss' parts, `[3]`."""
        config = self.config
        index = torch.randint(
            len(windows), (config.batch_size,), generator=self.generator, device=self.device
        )
        share = schedule(self.step, config)
        for optimizer, full in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * full
        parts = self.losses(self.network, windows, index, config.mirror, self.generator)
        loss = parts[0] + parts[1] + config.rate_coef * parts[2]
        self.network.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.max_grad_norm)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            stays = ema_decay(self.step, config)
            for average, present in zip(
                self.averaged.parameters(), self.network.parameters(), strict=True
            ):
                average.lerp_(present, 1 - stays)
        self.step += 1
        return torch.stack(parts).detach()

    def validate(self, windows: Windows, count: int = 2048) -> tuple[float, float]:
        """Losses of states and actions by the averaged weights, with the same noise each time."""
        generator = torch.Generator(self.device).manual_seed(0)
        index = torch.randint(len(windows), (count,), generator=generator, device=self.device)
        with torch.no_grad():
            parts = [
                torch.stack(self.losses(self.averaged, windows, part, False, generator))
                for part in index.split(256)
            ]
        state, action, _ = torch.stack(parts).mean(0).tolist()
        return state, action

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        state = {
            "step": self.step, "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "scaling": self.scaling, "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
        }  # fmt: skip
        if self.device.type == "cuda":
            state["dropout_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scaling = state["scaling"]
        self._to_device()
        self.generator.set_state(state["generator"].cpu())
        torch.set_rng_state(state["dropout"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["dropout_cuda"].cpu(), self.device)


# --- training -------------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Train and export."""
    # 1. Everything that can be refused is refused here, before a file is made.
    if not config.data:
        raise ConfigError("data is empty, expected one folder of roll-outs or more.")
    rep = representation(config.representation)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch finds no CUDA device.")
    manifests = [rollouts.read_manifest(folder) for folder in config.data]
    for folder, manifest in zip(config.data, manifests, strict=True):
        rollouts.check_complete(folder, manifest)
    identity = json.dumps(_identity(config, manifests))
    keys = ("identity", "network", "averaged", "scaling")
    with claim_run(
        config, f"{rep.name}__ddpm_guided__{config.seed}", identity, "identity", keys,
        "settings or data",
    ) as run:  # fmt: skip
        train(config, rep, identity, run)


def train(config: Config, rep: Representation, identity: str, run: Run) -> None:
    """The run itself, in its folder.

    Args:
        config: settings.
        rep: how a state is told.
        identity: what a checkpoint must have in common with this run.
        run: its folder, and the checkpoint that is there.
    """
    saved, run_dir = run.saved, run.path
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    torch.set_num_threads(config.threads or cli.available_cores())

    # 2. Data: whole episodes are held out, since windows of one are much alike.
    loaded = [rollouts.load_rollouts(folder) for folder in config.data]
    manifests = [manifest for _, manifest in loaded]
    drives = manifests[0]["drives"]
    for folder, manifest in zip(config.data, manifests, strict=True):
        if manifest["drives"] != drives:
            raise ConfigError(f"{folder}: its experts have other drives than those of the first.")
    episodes = Rollouts.concatenate(part for part, _ in loaded)
    order = np.random.default_rng(config.seed).permutation(len(episodes))
    held_out = max(1, round(config.validation * len(episodes)))
    if held_out >= len(episodes):
        raise ConfigError(f"There is {len(episodes)} episode, expected 2 or more.")
    windows, validation = (
        Windows(episodes[np.sort(part)], rep, device, config.shoved_futures)
        for part in (order[held_out:], order[:held_out])
    )

    # 3. Start afresh, or from the checkpoint.
    torch.manual_seed(config.seed)
    learner = Learner(config, rep, device)
    train_s, commits, valid = 0.0, [], (float("nan"), float("nan"))
    if saved is None:
        learner.fit_limits(windows)
    else:
        learner.set_state(saved)
        train_s, commits, valid = saved["train_s"], saved["commits"], tuple(saved["valid"])
    if (commit := cli.commit()) is not None and commit not in commits:
        commits.append(commit)
    log = RunLog(run_dir, learner.step)
    if saved is None:
        cli.write_json(run_dir / "config.json", _record(config, manifests))
    weights = sum(p.numel() for p in learner.network.parameters())
    print(
        f"{rep.name}: {len(windows):,} windows of {len(episodes) - held_out} episodes, "
        f"{weights:,} weights, {config.total_steps:,} steps on {device.type} -> {run_dir}"
    )

    # 4. Learn, validate, save.
    bar = cli.progress_bar(config.total_steps, learner.step)
    run.listen()
    started, last_save = time.perf_counter() - train_s, time.perf_counter()
    # A run goes on with the rows it would have had: sums begin with a row.
    sums, first_step, tick = torch.zeros(3, device=device), learner.step, time.perf_counter()
    while learner.step < config.total_steps:
        sums += learner.learn(windows)
        step, last = learner.step, learner.step == config.total_steps
        bar.update()
        if step % config.log_every == 0 or last:
            count = step - first_step
            row: dict[str, float] = {}
            row["losses/state"], row["losses/action"], row["losses/rate"] = (sums / count).tolist()
            row["charts/learning_rate"] = config.learning_rate * schedule(step - 1, config)
            now = time.perf_counter()
            row["charts/windows_per_s"] = count * config.batch_size / (now - tick)
            if step % config.eval_every == 0 or last:
                valid = learner.validate(validation)
                row |= {"valid/state": valid[0], "valid/action": valid[1]}
            train_s = time.perf_counter() - started
            log.write(step, row, train_s=round(train_s, 2))
            bar.set_postfix(action=f"{row['losses/action']:.4f}", refresh=False)
            sums, first_step, tick = torch.zeros_like(sums), step, time.perf_counter()
            asked = run.asked is not None
            if last or asked or time.perf_counter() - last_save > config.checkpoint_s:
                last_save = time.perf_counter()
                save_checkpoint(run.checkpoint, {
                    "identity": identity, "train_s": train_s, "commits": commits,
                    "valid": list(valid), **learner.get_state(),
                })  # fmt: skip
            if asked:
                break
    bar.close()
    log.close()
    if learner.step < config.total_steps:
        run.leave(f"{learner.step:,} steps")
    run.stop_listening()

    # 5. What leaves the project.
    training = {
        "algorithm": "ddpm_guided", "steps": learner.step, "wall_s": round(train_s, 1),
        "seed": config.seed, "preset": config.preset, "weights": weights,
        "valid_state": valid[0], "valid_action": valid[1], "commit": ", ".join(commits) or None,
        "machine": cli.machine(),
    }  # fmt: skip
    export(run_dir, learner, rep, drives, manifests, training)
    print(f"held out: state {valid[0]:.4f}, action {valid[1]:.4f}; results in {run_dir}")


def export(
    run_dir: Path, learner: Learner, rep: Representation, drives: dict[str, Any],
    manifests: list[dict[str, Any]], training: dict[str, Any],
) -> None:  # fmt: skip
    """Write denoiser.onnx and policy.json of the averaged weights."""
    scaling = {name: value.cpu().numpy() for name, value in learner.scaling.items()}
    if not learner.config.emphasis:
        del scaling["projection"]
    data = [
        {"experts": manifest["experts"], "clips": manifest["clips"],
         "accepted": manifest["accepted"], "tried": manifest["tried"]}
        for manifest in manifests
    ]  # fmt: skip
    graph = onnx_graph(copy.deepcopy(learner.averaged).cpu().eval())
    licences = sorted({clip["licence"] for part in data for clip in part["clips"]})
    write_denoiser(
        run_dir, graph, representation=rep.name, drives=drives, scaling=scaling, data=data,
        training=training, half=learner.config.half,
        licence=f"learned from motions under {', '.join(licences)}",
    )  # fmt: skip


def onnx_graph(network: Denoiser) -> bytes:
    """One call of the network as an ONNX model, of any number of windows and of actions in each."""
    example = (
        torch.zeros(2, LENGTH, network.state_in.in_features), torch.zeros(2, LENGTH, A),
        torch.zeros(2, LENGTH, dtype=torch.int64), torch.zeros(2, LENGTH, dtype=torch.int64),
    )  # fmt: skip
    names = ("states", "actions", "state_levels", "action_levels")
    outputs = ("clean_states", "clean_actions")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter that is to replace this one wants a package more and gives a larger graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        path = Path(folder) / "denoiser.onnx"
        axes = {
            name: {0: "B", 1: "N"} if "action" in name else {0: "B"} for name in (*names, *outputs)
        }
        torch.onnx.export(
            network, example, path, input_names=list(names), output_names=list(outputs),
            dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
        return path.read_bytes()


def write_untrained(
    folder: Path, preset: str, representation_name: str, drives: Mapping[str, Sequence[float]]
) -> None:
    """A model of a preset's size with random weights, to measure how long a call takes."""
    config, rep = PRESETS[preset](), representation(representation_name)
    network = Denoiser(rep.size, config).eval()
    scaling = {
        "state_center": np.zeros(rep.size), "state_half": np.ones(rep.size),
        "action_center": np.zeros(A), "action_half": np.ones(A),
    }  # fmt: skip
    write_denoiser(
        folder, onnx_graph(network), representation=rep.name, drives=drives, scaling=scaling,
        data=(), training={},
    )  # fmt: skip


def _identity(config: Config, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """What must be equal for a checkpoint to go on as if nothing had happened."""
    free = ("run_dir", "resume", "checkpoint_s", "data", "threads", "device", "half")
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in free}
    return values | {"shards": [manifest["shards"] for manifest in manifests]}


def _record(config: Config, manifests: list[dict[str, Any]]) -> dict[str, Any]:
    values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in ("run_dir", "resume", "data"):
        values.pop(name)
    return {
        "exp_name": "ddpm_guided", **values,
        "data": [manifest["shards"] for manifest in manifests],
        "versions": cli.versions(), "commit": cli.commit(), "machine": cli.machine(),
    }  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS)
