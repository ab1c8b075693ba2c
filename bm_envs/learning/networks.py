"""Networks of trainers: an MLP behind a normalizer, left-right symmetric where it is asked for.

Letters in shapes: B samples, O observation, A action, D any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs.errors import ConfigError
from bm_envs.learning.processes import Processes
from bm_envs.policy import MLP, PolicySpec, load_policy, mlp_from_policy
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import mirror_map, size

Activation = Literal["elu", "relu", "tanh"]
Mirror = tuple[Tensor, Tensor]  # index and sign, `[D]` each, of a left-right reflection
UNCHANGED: Mirror = (torch.zeros(1, dtype=torch.long), torch.ones(1))  # a value has no sides


def as_mirror(pair: tuple[np.ndarray, np.ndarray]) -> Mirror:
    """The result of a `mirror_map` as tensors."""
    return torch.as_tensor(pair[0]), torch.as_tensor(pair[1], dtype=torch.float32)


def reflected(x: Tensor, mirror: Mirror) -> Tensor:
    """`[..., D]` seen in the mirror."""
    return x[..., mirror[0]] * mirror[1]


def layer_mirror(before: Mirror, after: Mirror) -> Mirror:
    """Of a layer's flattened weight `[after, before]`, whose input and output are reflected."""
    index = after[0][:, None] * len(before[0]) + before[0]
    return index.flatten(), (after[1][:, None] * before[1]).flatten()


class Network(nn.Module):
    """An MLP behind a running normalizer, `y = (x - mean) / (std + 0.01)`.

    The normalizer's statistics are buffers, so checkpoint and ONNX carry them. Source of the 0.01:
    rsl_rl's EmpiricalNormalization.

    With `mirrors`, the reflections of input and output, the network is left-right symmetric: its
    output for a reflected input is the reflected output. The units of a hidden layer are pairs that
    a reflection swaps, so that it remains a plain MLP; `symmetrize` holds the weights (and, while
    they learn, their gradients) to it.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor

    def __init__(
        self, sizes: tuple[int, ...], activation: Activation, last_gain: float,
        mirrors: tuple[Mirror, Mirror] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, 2**0.5 if layer is not layers[-1] else last_gain)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.activation_name: Activation = activation
        self.activation = {"elu": nn.functional.elu, "relu": torch.relu, "tanh": torch.tanh}[
            activation
        ]
        self.input_mirror: Mirror | None = None
        self.mirrors: list[Mirror] = []  # of flattened weights and biases
        if mirrors is not None:
            self.input_mirror = mirrors[0]
            swaps = [(torch.arange(n).roll(n // 2), torch.ones(n)) for n in sizes[1:-1]]
            units = [mirrors[0], *swaps, mirrors[1]]
            for before, after in pairwise(units):  # of weight and bias
                self.mirrors += [layer_mirror(before, after), after]
            for layer in layers:  # the mean of two independent weights has half their variance
                layer.weight.data *= 2**0.5
            self.symmetrize([value.data for value in self.layers.parameters()])
        self.register_buffer("obs_mean", torch.zeros(sizes[0]))
        self.register_buffer("obs_var", torch.ones(sizes[0]))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """`nn.Module`'s hook of `to` and its like: the reflections go along."""
        self.mirrors = [(fn(index), fn(sign)) for index, sign in self.mirrors]
        if self.input_mirror is not None:
            self.input_mirror = fn(self.input_mirror[0]), fn(self.input_mirror[1])
        return super()._apply(fn, recurse)

    def normalize(self, obs: Tensor) -> Tensor:
        """`[B, O]` -> `[B, O]`."""
        return (obs - self.obs_mean) / (self.obs_var.sqrt() + 0.01)

    def forward(self, normalized: Tensor) -> Tensor:
        """`[B, O]` normalized -> `[B, out]`."""
        x = normalized
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    @torch.no_grad()
    def symmetrize(self, values: Sequence[Tensor]) -> None:
        """Replace the layers' weights and biases, or their gradients, by the symmetric part."""
        for value, mirror in zip(values, self.mirrors, strict=True):
            value.copy_((value + reflected(value.flatten(), mirror).view_as(value)) / 2)

    def symmetrize_gradients(self) -> None:
        """Between `backward` and the optimizer's step."""
        self.symmetrize([gradient_of(value) for value in self.layers.parameters()])

    def as_mlp(self) -> MLP:
        """Layers and normalizer as plain arrays, for a policy's file."""
        depth = range(len(self.layers))

        def arrays(name: str) -> tuple[np.ndarray, ...]:
            values = (self.get_parameter(f"layers.{i}.{name}") for i in depth)
            return tuple(value.detach().cpu().numpy() for value in values)

        return MLP(
            obs_mean=self.obs_mean.cpu().numpy(),
            obs_scale=self.obs_var.sqrt().cpu().numpy() + 0.01,
            weights=arrays("weight"), biases=arrays("bias"), activation=self.activation_name,
        )  # fmt: skip

    @torch.no_grad()
    def update_normalizer(self, obs: Tensor, processes: Processes | None = None) -> None:
        """Fold `[B, O]` of every process into mean and variance (Chan et al.'s pairwise update)."""
        count, batch_mean = obs.shape[0], obs.mean(0)
        deviation = obs - batch_mean
        batch_var = (deviation * deviation).mean(0)  # several times as fast as `var`
        if self.input_mirror is not None:  # the samples' reflections count as well
            index, sign = self.input_mirror
            count, seen, mirrored = 2 * count, batch_mean, batch_mean[index] * sign
            batch_mean = (seen + mirrored) / 2
            batch_var = (batch_var + batch_var[index]) / 2 + ((seen - mirrored) / 2) ** 2
        if processes is not None and processes.count > 1:
            count, own_mean = count * processes.count, batch_mean.clone()
            processes.average(batch_mean)
            batch_var += (own_mean - batch_mean) ** 2
            processes.average(batch_var)
        total = self.obs_count + count
        delta = batch_mean - self.obs_mean
        share = (count / total).float()
        self.obs_mean += delta * share
        self.obs_var += share * (batch_var - self.obs_var + delta * delta * (1 - share))
        self.obs_count.copy_(total)


START_COUNT = 10_000_000  # observations that a policy's normalizer stands for when one goes on


def gradient_of(value: Tensor) -> Tensor:
    """What `backward` left there."""
    assert value.grad is not None
    return value.grad


class TrackingPolicy(Network):
    """The policy's mean, which may ride on the reference: raw observations to raw actions."""

    def __init__(
        self, observations: Sequence[str], hidden: tuple[int, ...], default_joint_pos: np.ndarray,
        scale: np.ndarray, *, activation: Activation = "elu", residual: bool = True,
        symmetry: bool = True,
    ) -> None:  # fmt: skip
        mirrors = (as_mirror(mirror_map(observations)), as_mirror(g1.mirror_map()))
        super().__init__(
            (size(observations), *hidden, g1.NUM_JOINTS), activation, 0.01,
            mirrors if symmetry else None,
        )  # fmt: skip
        self.residual = residual
        self.default_joint_pos, self.action_scale = map(torch.as_tensor, (default_joint_pos, scale))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The default pose and the action scales go along, too."""
        self.default_joint_pos, self.action_scale = (
            fn(self.default_joint_pos),
            fn(self.action_scale),
        )
        return super()._apply(fn, recurse)

    def offset(self, obs: Tensor) -> Tensor | float:
        """What the reference adds to the mean: `(q_ref - q0) / scale`; q_ref is `obs[:, :29]`."""
        if not self.residual:
            return 0.0
        return (obs[:, : g1.NUM_JOINTS] - self.default_joint_pos) / self.action_scale

    @torch.no_grad()
    def load(self, mlp: MLP) -> None:
        """Take over the network of a policy."""
        depth = range(len(self.layers))
        own = [tuple(self.get_parameter(f"layers.{i}.weight").shape) for i in depth]
        found = [weight.shape for weight in mlp.weights]
        residual = mlp.residual_offset is not None
        if found != own or residual != self.residual:
            raise ConfigError(
                f"Its layers are {found}{' with' if residual else ' without'} the reference's pose "
                f"added, expected {own}{' with' if self.residual else ' without'}."
            )
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            self.get_parameter(f"layers.{i}.weight").copy_(torch.tensor(weight))
            self.get_parameter(f"layers.{i}.bias").copy_(torch.tensor(bias))
        self.obs_mean.copy_(torch.tensor(mlp.obs_mean))
        self.obs_var.copy_(torch.tensor(mlp.obs_scale - 0.01) ** 2)
        self.obs_count.fill_(START_COUNT)

    def mean(self, obs: Tensor) -> Tensor:
        """Deterministic action for raw observations. `[B, O]` -> `[B, A]`."""
        return self(self.normalize(obs)) + self.offset(obs)

    def as_mlp(self) -> MLP:
        """See `Network.as_mlp`; with what the reference adds."""
        mlp = super().as_mlp()
        if not self.residual:
            return mlp
        return dataclasses.replace(
            mlp, residual_offset=self.default_joint_pos.cpu().numpy(),
            residual_scale=self.action_scale.cpu().numpy(),
        )  # fmt: skip


@torch.no_grad()
def polyak_update(average: nn.Module, present: nn.Module, decay: float) -> None:
    """Move the averaged weights to the present ones: `mean = decay mean + (1 - decay) value`."""
    for mean, value in zip(average.parameters(), present.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def copy_normalizer(average: nn.Module, present: nn.Module) -> None:
    """Give a network the statistics of another one's normalizer."""
    for mine, value in zip(average.buffers(), present.buffers(), strict=True):
        mine.copy_(value)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian. `[B, A]` -> `[B]`."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum() - 0.5 * np.log(2 * np.pi) * action.shape[-1]


def gaussian_kl(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean KL divergence of the new from the old policy, nats. `[B, A]` -> scalar.

    `sum_A ln(s/s_old) + (s_old^2 + (m_old - m)^2) / (2 s^2) - 1/2`. Source: `rsl_rl`, `ppo.py`.
    """
    ratio = torch.exp(2 * (log_std_old - log_std))
    shift = (mean_old - mean) ** 2 * torch.exp(-2 * log_std)
    return (log_std - log_std_old + 0.5 * (ratio + shift) - 0.5).sum(-1).mean()


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and newer
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def use_bfloat16(choice: Literal["auto", "on", "off"], device: torch.device) -> bool:
    """Whether to compute in bfloat16: as chosen, or where the device is made for it."""
    return choice == "on" or (choice == "auto" and has_native_bfloat16(device))


def begin_with(actors: Sequence[TrackingPolicy], name: str, expected: PolicySpec) -> None:
    """Give `actors` the network of the policy `name`, which must see and drive what is expected."""
    policy = load_policy(name)
    for name in (
        "joint_names", "observation_names", "default_joint_pos", "action_scale", "joint_stiffness",
        "joint_damping",
    ):  # fmt: skip
        values = [getattr(spec, name) for spec in (expected, policy.spec)]
        # Figures of a file are written with some eight digits.
        if "names" not in name and len(values[0]) == len(values[1]):
            same = np.allclose(*values, rtol=1e-6)
        else:
            same = values[0] == values[1]
        if not same:
            raise ConfigError(f"{policy.path}: its {name} are not this run's.")
    try:
        for actor in actors:
            actor.load(mlp_from_policy(policy.path))
    except ConfigError as error:
        raise ConfigError(f"{policy.path}: {error}") from None
