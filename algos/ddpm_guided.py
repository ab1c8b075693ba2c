"""Train a diffusion model of states and actions together (BeyondMimic stage 2, arXiv 2508.08241).

    python algos/ddpm_guided.py --data runs/rollouts --representation body_pos
    python algos/ddpm_guided.py --data runs/rollouts --preset paper     # 20 M weights, for a GPU

    python algos/ddpm_guided.py --data runs/latents --latent            # states and latents

From windows of 20 control steps of roll-outs (`collect_rollouts.py`) a transformer learns what a
window was before noise was put on it (x0-prediction). Every state and every action has a noise
level of its own. Sampled with the last states put in, the model says what the robot will do next
and the action that does it: a controller, without a task. A cost on its states gives it one when it
is sampled. This file trains the model, in the order data, normalizer, loss, optimizers, loop. The
network is in `bm_envs/diffusion/network.py`, the noise schedule and the sampler in `sampler.py`
beside it, and guidance in `steering.py`.

The run directory holds `config.json`, `checkpoint.pt` (all that a bit-exact `--resume` needs),
`denoiser.onnx` with `policy.json` (what leaves the project), `metrics.jsonl`, TensorBoard events.

With `--latent` the model is of states and latents, for roll-outs of a policy of `dagger_vae.py`
(paper, version 4): its decoder makes the action when it is due, of the newest state.

Letters in shapes: B windows, L = 20 steps, S state and A action features (29, or of a latent).

Logged (metrics.jsonl and TensorBoard):

    losses/state, losses/action, losses/rate    the loss' three parts, mean since the last row
    valid/state, valid/action                   averaged weights, on held-out episodes
    charts/learning_rate, charts/windows_per_s
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.diffusion import rollouts
from bm_envs.diffusion.model import load_model, write_denoiser
from bm_envs.diffusion.network import PUBLISHED, Denoiser, NetworkConfig, onnx_graph
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.diffusion.sampler import LENGTH, SCHEDULE, K
from bm_envs.errors import ConfigError
from bm_envs.learning import checks
from bm_envs.learning.folder import claim_run, load_checkpoint
from bm_envs.learning.networks import has_native_bfloat16, polyak_update
from bm_envs.learning.run import (
    Flags,
    Progress,
    RunConfig,
    config_record,
    settings_of,
    values_of,
)
from bm_envs.learning.windows import Windows
from bm_envs.tasks.guided.states import PAST, Representation, representation

ACTION_STEPS = 8  # future actions that count in the loss. Source: the paper
RATE_COEF = 0.1  # weight of the change of predicted actions from step to step. Source: prototype
WEIGHT_DECAY = 1e-3  # of the matrices, not of biases, norms or positions. Source: prototype
MAX_GRAD_NORM = 1.0
EMA_MAX = 0.9999  # largest decay of the averaged weights, see `ema_decay`. Source: prototype
MUON_LEARNING_RATE = 1e-2  # after the warm-up; it follows the same schedule as AdamW's
HELD_OUT = 0.02  # share of the episodes that validation keeps to itself

# A run records these beside its settings, and a checkpoint with other ones is refused.
CONSTANTS = {
    "action_steps": ACTION_STEPS, "rate_coef": RATE_COEF, "weight_decay": WEIGHT_DECAY,
    "max_grad_norm": MAX_GRAD_NORM, "ema_max": EMA_MAX, "muon_learning_rate": MUON_LEARNING_RATE,
    "validation": HELD_OUT, "mirror": True, "bfloat16": "auto",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """The run. The defaults are the `cpu` preset."""

    data: tuple[Path, ...]
    """Folders of roll-outs."""
    representation: Literal["body_pos", "joint_rot"] = "body_pos"
    """What the model sees of a state."""
    latent: bool = False
    """Learn the latents of the policy that was rolled out, in place of its actions."""
    preset: Literal["cpu", "paper"] = "cpu"
    """`paper`: the published size and recipe."""
    run: Flags[RunConfig] = RunConfig(eval_every=500, checkpoint_s=60.0)
    """Where the run is kept, and when it is looked at. A checkpoint is taken with a row of the
    log."""
    network: Flags[NetworkConfig] = NetworkConfig()
    """Size of the network: `--width`, `--layers`, `--heads`, `--dropout`, and, for comparisons, how
    many known and future states its actions see: `--history`, `--horizon`."""
    start_from: Path | None = None
    """Run directory of an ended run of this script. A new run begins with its averaged weights and
    its scaling of states and actions; data, steps and optimizers are the new run's own."""
    total_steps: int = 10_000
    """Gradient steps. With --resume another number may be given: the rest of the cosine is then as
    that of a run of such a length."""
    batch_size: int = 64
    """Windows of a step; their mirror images come on top."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """`muon`: steps of the blocks' matrices with all singular values alike, AdamW for the rest;
    `adamw`: for all (prototype), which needs several times the steps."""
    learning_rate: float = 4e-3
    """AdamW's after the warm-up; then it falls to 0 along a cosine."""
    warmup_steps: int = 500
    """Steps in which the learning rate rises from 0, linearly."""
    past_noise: float = 0.0
    """Noise on the past states in training, as a share of level 0's (prototype: 1). The controller
    knows past states without noise. A model trained on noisy ones pulls them towards the mean: the
    robot walks ever more slowly until it stands."""
    shoved_futures: bool = False
    """Learn from windows in whose future the robot is pushed, too (prototype: all windows). A push
    is no plan, and what the expert does against it is no way to bring it about."""
    emphasis: float = 4.0
    """Factor by which the root's share of a state is emphasized in the random half of the projected
    states; 0: states are not projected, and then guidance of the root is mostly taken back by the
    180 features of the rest. Source: prototype."""
    log_every: int = 50
    """Steps between rows of the log."""
    half: bool = False
    """Keep the matrices of denoiser.onnx in float16, which halves the file; sums stay in float32.
    With --resume a finished run is exported anew."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(self, "total_steps", "batch_size", "log_every")
        if not 0 <= self.past_noise <= 1:
            raise ConfigError(f"past_noise is {self.past_noise}, expected a share, 0 to 1.")


def paper() -> Config:
    """The published size, 6 x 4 x 512, with the prototype's recipe; dropout as in the paper."""
    return Config(
        data=(), preset="paper", network=PUBLISHED, batch_size=512, optimizer="adamw",
        learning_rate=1e-4, warmup_steps=2000, total_steps=60_000,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], Config]] = {"cpu": lambda: Config(data=()), "paper": paper}


# --- normalizer -----------------------------------------------------------------------------------


class Normalizer:
    """States and actions as the network has them, and what is needed to undo that.

    A state of the network is `((features - center) / half) @ projection`, see `model.py`.
    """

    def __init__(self, rep: Representation, actions: int, config: Config, device: torch.device):
        generator = torch.Generator().manual_seed(config.run.seed)
        projection = torch.eye(rep.size)
        if config.emphasis:
            projection = emphasis_projection(rep, config.emphasis, generator).float()
        self.is_projected, self.width = bool(config.emphasis), projection.shape[1]
        self.device = device
        self.load({
            "state_center": torch.zeros(rep.size), "state_half": torch.ones(rep.size),
            "action_center": torch.zeros(actions), "action_half": torch.ones(actions),
            "projection": projection,
        })  # fmt: skip

    def load(self, arrays: dict[str, Tensor]) -> None:
        """Take the arrays of a checkpoint."""
        self.arrays = {name: value.to(self.device) for name, value in arrays.items()}

    def fit(self, windows: Windows, generator: torch.Generator) -> None:
        """Set center and half-range by a tenth of the windows, 20 000 at most."""
        count = min(len(windows) // 10 + 1, 20_000)
        index = torch.randint(len(windows), (count,), generator=generator, device=self.device)
        for name, values in zip(("state", "action"), windows.batch(index, True), strict=True):
            self.arrays[f"{name}_center"], self.arrays[f"{name}_half"] = limits(values)

    def __call__(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, L, D]` and raw actions `[B, L, A]` as the network has them."""
        arrays = self.arrays
        states = (states - arrays["state_center"]) / arrays["state_half"]
        if self.is_projected:
            states = states @ arrays["projection"]
        return states, (actions - arrays["action_center"]) / arrays["action_half"]


def limits(values: Tensor) -> tuple[Tensor, Tensor]:
    """Center and half-range `[D]` of each feature of `[..., D]`, which bring most values into +-1.

    The range is that between the percentiles 0.1 and 99.9, made wider by 5 %: with the extreme
    values in their place, one odd episode would make all others small. A feature whose range is
    below 1e-4 is only centered.
    """
    ordered = values.reshape(-1, values.shape[-1]).sort(dim=0).values
    last = len(ordered) - 1
    low, high = ordered[round(0.001 * last)], ordered[round(0.999 * last)]
    half = torch.where(high - low < 1e-4, torch.ones_like(low), 0.525 * (high - low))
    return 0.5 * (high + low), half


def emphasis_projection(rep: Representation, factor: float, generator: torch.Generator) -> Tensor:
    """The projection `E = [diag(b) R, 1]`, `[S, 2 S]`: the model diffuses `x E` in place of `x`.

    In `x E` the root weighs more: b is `factor` for its position, rotation and angular velocity,
    and 1 elsewhere. R is random, and such that a reflection of `x` reflects `x E`, too: features
    whose sign a reflection changes fill the first half of its columns, all others the second half,
    and features that a reflection swaps have equal rows. Source: prototype, `random_emph_symm`.
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


# --- another run's weights ------------------------------------------------------------------------

KEYS = ("identity", "network", "averaged", "scaling")  # what a checkpoint has
# Settings that decide what the weights mean, which two runs must have in common.
SHAPE = ("representation", "latent", "emphasis", "width", "layers", "heads", "history", "horizon")


@dataclass(frozen=True)
class Start:
    """What a new run takes of one that has ended.

    Attributes:
        averaged: weights of the network.
        scaling: arrays of the `Normalizer`.
        commits: states of the source that had a part in the weights.
        told: of the run, for `policy.json`, as JSON: `steps`, and `data` with its licences.
    """

    averaged: dict[str, Tensor]
    scaling: dict[str, Tensor]
    commits: list[str]
    told: str


def read_start(folder: Path, config: Config, drives: dict[str, list[float]]) -> Start:
    """Read the run that a new one starts from.

    Args:
        folder: its run directory.
        config: of the new run.
        drives: of the new run's data.

    Raises:
        PolicyError: the run has not ended, or its files cannot be read.
        ConfigError: its weights mean something else.
    """
    saved = load_checkpoint(folder / "checkpoint.pt", KEYS)
    settings = json.loads(saved["identity"])
    for name, own in values_of(config).items():
        theirs = settings.get(name, own)
        if name in SHAPE and theirs != own:
            raise ConfigError(f"{folder}: is a run with {name} {theirs}, expected {own}.")
    model = load_model(folder)
    if {name: list(values) for name, values in model.drives.items()} != drives:
        raise ConfigError(f"{folder}: its actions are for other drives than those of the data.")
    told = {"steps": saved["step"], "data": cli.read_json(folder / "policy.json")["data"]}
    return Start(saved["averaged"], saved["scaling"], saved["commits"], json.dumps(told))


# --- loss -----------------------------------------------------------------------------------------


def noisy(clean: Tensor, levels: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens `[B, L, D]` at noise levels `[B, L]`."""
    abar = torch.as_tensor(SCHEDULE.abar, dtype=clean.dtype, device=clean.device)[levels][..., None]
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


def draw_levels(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A noise level for every state and every action, `[B, L]` each; past states have level 0."""
    state_levels, action_levels = (
        torch.randint(K, (count, LENGTH), generator=generator, device=generator.device)
        for _ in range(2)
    )
    state_levels[:, :PAST] = 0
    return state_levels, action_levels


def window_loss(
    states: Tensor, actions: Tensor, clean_states: Tensor, clean_actions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors of estimated states and actions, and the actions' change. `[B, L, D]` each.

    `states` and `actions` are the network's estimates of the clean ones (x0-prediction).
    Actions further ahead than `ACTION_STEPS` add nothing, though they are counted in the mean.
    Source: the paper's eq. 4; weights and the third part from the prototype.
    """
    state = (states - clean_states).square().mean()
    error = (actions - clean_actions).square()[:, : PAST + ACTION_STEPS]
    action = error.sum() / actions.numel()
    rate = (actions[:, 1:] - actions[:, :-1]).square().mean()
    return state, action, rate


def denoising_losses(
    network: Denoiser, clean: tuple[Tensor, Tensor], past_noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss' three parts: noise is put on windows, and the network estimates the clean ones.

    Args:
        network: what learns.
        clean: normalized states `[B, L, S]` and actions `[B, L, A]`.
        past_noise: share of level 0's noise that past states have.
        generator: of levels and noise.
    """
    levels = draw_levels(len(clean[0]), generator)
    states, actions = (
        noisy(tokens, level, generator) for tokens, level in zip(clean, levels, strict=True)
    )
    # The past is known when the model runs, so it has noise in training only as far as asked.
    states[:, :PAST] = torch.lerp(clean[0][:, :PAST], states[:, :PAST], past_noise)
    device = states.device
    with torch.autocast(device.type, torch.bfloat16, enabled=has_native_bfloat16(device)):
        clean_states, clean_actions = network(states, actions, *levels)
    return window_loss(clean_states.float(), clean_actions.float(), *clean)


def validate(
    network: Denoiser, windows: Windows, normalizer: Normalizer, past_noise: float,
    count: int = 2048,
) -> dict[str, float]:  # fmt: skip
    """Losses of states and actions on `count` windows, with the same noise each time."""
    generator = torch.Generator(normalizer.device).manual_seed(0)
    index = torch.randint(len(windows), (count,), generator=generator, device=normalizer.device)
    with torch.no_grad():
        parts = [
            torch.stack(denoising_losses(
                network, normalizer(*windows.batch(part, False)), past_noise, generator
            ))
            for part in index.split(256)
        ]  # fmt: skip
    state, action, _ = torch.stack(parts).mean(0).tolist()
    return {"valid_state": state, "valid_action": action}


# --- optimizers -----------------------------------------------------------------------------------


def make_optimizers(network: Denoiser, config: Config) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers with their full learning rates, which divide the network's weights among them.

    Muon has the matrices within the transformer's blocks (none with `--optimizer adamw`). AdamW has
    all others: the remaining matrices with weight decay, and biases, norms and positions without.
    Muon: K. Jordan et al., 2024, as in torch; scaled so that a step is as large as AdamW's.
    """
    matrices = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    matrix_ids = {id(p) for p in matrices}
    in_blocks = {id(p) for p in network.blocks.parameters()}
    by_muon = [p for p in matrices if config.optimizer == "muon" and id(p) in in_blocks]
    muon_ids = {id(p) for p in by_muon}
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in matrices if id(p) not in muon_ids],
             "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in network.parameters() if id(p) not in matrix_ids],
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
            by_muon, lr=MUON_LEARNING_RATE, weight_decay=0.0, momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        made.append((muon, MUON_LEARNING_RATE))
    return made


def learning_rate_share(step: int, config: Config) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(step: int) -> float:
    """Share of the averaged weights that stays in step `step`, counted from 0."""
    return min(1 - (1 + step) ** -0.75, EMA_MAX)


# --- training -------------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Train and export."""
    # Everything that can be refused is refused here, before a file is made.
    if not config.data:
        raise ConfigError("data is empty, expected one folder of roll-outs or more.")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch finds no CUDA device.")
    manifests = [rollouts.read_manifest(folder) for folder in config.data]
    for folder, manifest in zip(config.data, manifests, strict=True):
        rollouts.check_complete(folder, manifest)
        if config.latent:
            rollouts.load_decoder(folder, manifest)
    settings = settings_of(
        config, "data", "device", "half", "total_steps", **CONSTANTS,
        shards=[manifest["shards"] for manifest in manifests],
    )  # fmt: skip
    name = f"{config.representation}__ddpm_guided__{config.run.seed}"
    with claim_run(config.run, name, settings, "identity", KEYS, "settings or data") as folder:
        if folder.saved is not None and "iteration" not in folder.saved:
            # Version 0.1 had other names for the steps that are done and for the figures.
            figures = zip(("valid_state", "valid_action"), folder.saved["valid"], strict=True)
            folder.saved |= {"iteration": folder.saved["step"], "evaluation": dict(figures)}
        train(config, manifests, Progress(
            folder, config.run, settings, batch_size=None, total_timesteps=config.total_steps,
            key="identity",
        ))  # fmt: skip


def train(config: Config, manifests: list[dict[str, Any]], run: Progress) -> None:
    """The run itself, in its folder.

    Args:
        config: settings.
        manifests: of the roll-outs.
        run: how far it is, and what is kept of it.
    """
    rep, seed, saved = representation(config.representation), config.run.seed, run.saved
    use_cuda = config.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    torch.set_num_threads(config.run.threads or cli.available_cores())

    # 1. Data: whole episodes are held out, since windows of one are much alike.
    drives = manifests[0]["drives"]
    start = None
    if config.start_from is not None and saved is None:
        start = read_start(config.start_from, config, drives)
    for folder, manifest in zip(config.data, manifests, strict=True):
        if manifest["drives"] != drives:
            raise ConfigError(f"{folder}: its experts have other drives than those of the first.")
        if config.latent and manifest.get("latent") != manifests[0].get("latent"):
            raise ConfigError(f"{folder}: its decoder is another than that of the first.")
    episodes = Rollouts.concatenate(rollouts.load_rollouts(folder)[0] for folder in config.data)
    order = np.random.default_rng(seed).permutation(len(episodes))
    held_out = max(1, round(HELD_OUT * len(episodes)))
    if held_out >= len(episodes):
        raise ConfigError(f"There is {len(episodes)} episode, expected 2 or more.")
    windows, validation = (
        Windows(episodes[np.sort(part)], rep, device, config.shoved_futures, config.latent)
        for part in (order[held_out:], order[:held_out])
    )

    # 2. Network and optimizers, from the start or from the checkpoint.
    torch.manual_seed(seed)  # initial weights, dropout
    normalizer = Normalizer(rep, windows.action_size, config, device)
    network = Denoiser(normalizer.width, config.network, windows.action_size).to(device)
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizers = make_optimizers(network, config)
    generator = torch.Generator(device).manual_seed(seed)  # batches, levels, noise
    if start is not None:
        network.load_state_dict(start.averaged)
        averaged.load_state_dict(start.averaged)
        normalizer.load(start.scaling)
        run.commits[:0] = [commit for commit in start.commits if commit not in run.commits]
    elif saved is None:
        normalizer.fit(windows, generator)
    else:
        network.load_state_dict(saved["network"])
        averaged.load_state_dict(saved["averaged"])
        for (optimizer, _), state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        normalizer.load(saved["scaling"])
        generator.set_state(saved["generator"].cpu())
        torch.set_rng_state(saved["dropout"].cpu())
        if use_cuda:
            torch.cuda.set_rng_state(saved["dropout_cuda"].cpu(), device)
    # What the run began with stays known when the other run is gone.
    began = start.told if start is not None else (saved or {}).get("start")
    weights = sum(p.numel() for p in network.parameters())
    run.begin(
        config_record(
            config, "ddpm_guided", **CONSTANTS, data=[manifest["shards"] for manifest in manifests]
        ),
        f"{rep.name}: {len(windows):,} windows of {len(episodes) - held_out} episodes, "
        f"{weights:,} weights on {device.type}",
        {"action": "the loss of the actions, mean since the row before"},
    )

    # `sums` of the losses are those since the last row of the log. A checkpoint is written only
    # together with a row, so that a resumed run begins its sums where the whole run did.
    sums, first_step, tick = torch.zeros(3, device=device), run.step, time.perf_counter()
    while run.goes_on:
        # 3. One gradient step on a batch of windows and their mirror images.
        share = learning_rate_share(run.step, config)
        for optimizer, learning_rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * learning_rate
        index = torch.randint(
            len(windows), (config.batch_size,), generator=generator, device=device
        )
        clean = normalizer(*windows.batch(index, True))
        state, action, rate = denoising_losses(network, clean, config.past_noise, generator)
        loss = state + action + RATE_COEF * rate
        network.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        for optimizer, _ in optimizers:
            optimizer.step()
        polyak_update(averaged, network, ema_decay(run.step))
        run.iteration += 1
        sums += torch.stack((state, action, rate)).detach()
        if run.step % config.log_every and run.goes_on:
            continue

        # 4. A row of the log, the validation that is due, and a checkpoint.
        count = run.step - first_step
        row: dict[str, float] = {}
        row["losses/state"], row["losses/action"], row["losses/rate"] = (sums / count).tolist()
        row["charts/learning_rate"] = config.learning_rate * share
        row["charts/windows_per_s"] = count * config.batch_size / (time.perf_counter() - tick)
        if run.evaluation_due():
            run.evaluation = validate(averaged, validation, normalizer, config.past_noise)
            row |= {name.replace("_", "/"): value for name, value in run.evaluation.items()}
        run.log(row, {"action": f"{row['losses/action']:.4f}"})
        sums, first_step, tick = torch.zeros_like(sums), run.step, time.perf_counter()
        if run.save_due():
            run.save({
                "network": network.state_dict(), "averaged": averaged.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer, _ in optimizers],
                "scaling": normalizer.arrays, "generator": generator.get_state(),
                "dropout": torch.get_rng_state(),
                **({} if began is None else {"start": began}),
                **({"dropout_cuda": torch.cuda.get_rng_state(device)} if use_cuda else {}),
            })  # fmt: skip

    # 5. What leaves the project: denoiser.onnx and policy.json of the averaged weights.
    if not run.end():
        return
    arrays = {name: value.cpu().numpy() for name, value in normalizer.arrays.items()}
    if not normalizer.is_projected:
        del arrays["projection"]
    told = ("experts", "clips", "accepted", "tried", "settings", "coverage")
    data = [{name: manifest[name] for name in told if name in manifest} for manifest in manifests]
    begun = None if began is None else json.loads(began)
    every = [*data, *(begun["data"] if begun else ())]
    licences = sorted({clip["licence"] for part in every for clip in part["clips"]})
    training = {
        "algorithm": "ddpm_guided", "steps": run.step, "wall_s": round(run.train_s, 1),
        "seed": seed, "preset": config.preset, "weights": weights, **run.evaluation,
        **({"start_from": begun} if begun else {}),
        "commit": ", ".join(run.commits) or None, "machine": cli.machine(),
    }  # fmt: skip
    write_denoiser(
        run.folder.path, onnx_graph(copy.deepcopy(averaged).cpu().eval()), representation=rep.name,
        drives=drives, scaling=arrays, data=data, training=training, half=config.half,
        decoder=rollouts.load_decoder(config.data[0], manifests[0]) if config.latent else None,
        licence=f"learned from motions under {', '.join(licences)}",
    )  # fmt: skip
    figures = ", ".join(
        f"{name.removeprefix('valid_')} {value:.4f}" for name, value in run.evaluation.items()
    )
    print(f"held out: {figures}; results in {run.folder.path}")
    run.print_next({
        "watch": "tools/play.py --policy RUN_DIR --task joystick",
        "measure": "benchmarks/guided.py --policy RUN_DIR --task joystick",
    })  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS, short_help=True)
