"""Networks of trainers: an MLP behind a normalizer, left-right symmetric where it is asked for.

Letters in shapes: B samples, O observation, A action, D any.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs.errors import ConfigError
from bm_envs.learning.processes import Processes
from bm_envs.policy import MLP, OBS_SCALE_EPS, PolicySpec, load_policy, mlp_from_policy
from bm_envs.policy.network import Layers
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import CRITIC_TERMS, mirror_map, size
from bm_envs.robots.robot import Robot

Activation = Literal["elu", "relu", "tanh"]
Mirror = tuple[Tensor, Tensor]  # index and sign, `[D]` each, of a left-right reflection
UNCHANGED: Mirror = (torch.zeros(1, dtype=torch.long), torch.ones(1))  # a value has no sides


def as_mirror(pair: tuple[np.ndarray, np.ndarray]) -> Mirror:
    """The result of a `mirror_map` as tensors."""
    return torch.as_tensor(pair[0]), torch.as_tensor(pair[1], dtype=torch.float32)


def reflected(x: Tensor, mirror: Mirror) -> Tensor:
    """`[..., D]` seen in the mirror."""
    return x.index_select(-1, mirror[0]) * mirror[1]


def layer_mirror(before: Mirror, after: Mirror) -> Mirror:
    """Of a layer's flattened weight `[after, before]`, whose input and output are reflected."""
    index = after[0][:, None] * len(before[0]) + before[0]
    return index.flatten(), (after[1][:, None] * before[1]).flatten()


class Network(nn.Module):
    """An MLP behind a running normalizer, `y = (x - mean) / (std + OBS_SCALE_EPS)`.

    The normalizer's statistics are buffers, so checkpoint and ONNX carry them.

    With `mirrors`, the reflections of input and output, the network is left-right symmetric: its
    output for a reflected input is the reflected output. The units of a hidden layer are pairs that
    a reflection swaps, so that it remains a plain MLP; `symmetrize` holds the weights (and, while
    they learn, their gradients) to it.

    With `init_std` it is the mean of a Gaussian policy, whose standard deviations are `log_std`.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor
    log_std: nn.Parameter
    """`[A]`, of the raw action; only with `init_std`."""

    def __init__(
        self, sizes: tuple[int, ...], activation: Activation, last_gain: float,
        mirrors: tuple[Mirror, Mirror] | None = None, init_std: float | None = None,
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
        if init_std is not None:
            self.log_std = nn.Parameter(torch.full((sizes[-1],), float(np.log(init_std))))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """`nn.Module`'s hook of `to` and its like: the reflections go along."""
        self.mirrors = [(fn(index), fn(sign)) for index, sign in self.mirrors]
        if self.input_mirror is not None:
            self.input_mirror = fn(self.input_mirror[0]), fn(self.input_mirror[1])
        return super()._apply(fn, recurse)

    def normalize(self, obs: Tensor) -> Tensor:
        """`[B, O]` -> `[B, O]`."""
        return (obs - self.obs_mean) / (self.obs_var.sqrt() + OBS_SCALE_EPS)

    def forward(self, normalized: Tensor) -> Tensor:
        """`[B, O]` normalized -> `[B, out]`."""
        x = normalized
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    def mean(self, obs: Tensor) -> Tensor:
        """The output for raw observations. `[B, O]` -> `[B, out]`."""
        return self(self.normalize(obs))

    def value(self, obs: Tensor) -> Tensor:
        """The single output of a critic for raw observations. `[..., O]` -> `[...]`."""
        return self.mean(obs).squeeze(-1)

    @torch.no_grad()
    def symmetrize(self, values: Sequence[Tensor]) -> None:
        """Replace the layers' weights and biases, or their gradients, by the symmetric part."""
        for value, mirror in zip(values, self.mirrors, strict=True):
            value.add_(reflected(value.flatten(), mirror).view_as(value)).mul_(0.5)

    def symmetrize_gradients(self) -> None:
        """Between `backward` and the optimizer's step; without `mirrors` nothing is to be done."""
        if self.input_mirror is None:
            return
        self.symmetrize([gradient_of(value) for value in self.layers.parameters()])
        if "log_std" in self._parameters:
            gradient = gradient_of(self.log_std)
            gradient.copy_((gradient + gradient[self.mirrors[-1][0]]) / 2)

    def as_mlp(self) -> MLP:
        """Layers and normalizer of a policy as plain arrays, for its file."""
        return MLP(**vars(self.as_layers()))

    def as_layers(self) -> Layers:
        """Layers and normalizer as plain arrays, whatever comes out."""
        depth = range(len(self.layers))

        def arrays(name: str) -> tuple[np.ndarray, ...]:
            values = (self.get_parameter(f"layers.{i}.{name}") for i in depth)
            return tuple(value.detach().cpu().numpy() for value in values)

        return Layers(
            obs_mean=self.obs_mean.cpu().numpy(),
            obs_scale=self.obs_var.sqrt().cpu().numpy() + OBS_SCALE_EPS,
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
            count, original, mirrored = 2 * count, batch_mean, batch_mean[index] * sign
            batch_mean = (original + mirrored) / 2
            batch_var = (batch_var + batch_var[index]) / 2 + ((original - mirrored) / 2) ** 2
        if processes is not None and processes.count > 1:
            count, process_mean = count * processes.count, batch_mean.clone()
            processes.average(batch_mean)
            batch_var += (process_mean - batch_mean) ** 2
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
        symmetry: bool = True, init_std: float | None = None, robot: Robot = g1.G1,
    ) -> None:  # fmt: skip
        mirrors = (as_mirror(mirror_map(observations, robot)), as_mirror(robot.mirror_map()))
        super().__init__(
            (size(observations, robot), *hidden, robot.num_joints), activation, 0.01,
            mirrors if symmetry else None, init_std,
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

    def description(self) -> dict[str, Any]:
        """What a run's record says of it."""
        return {"residual": self.residual, "activation": self.activation_name}

    def offset(self, obs: Tensor) -> Tensor | float:
        """What the reference adds to the mean: `(q_ref - q0) / scale`; q_ref is `obs[:, :J]`."""
        if not self.residual:
            return 0.0
        return (obs[:, : len(self.action_scale)] - self.default_joint_pos) / self.action_scale

    @torch.no_grad()
    def load(self, mlp: MLP) -> None:
        """Take over the network of a policy."""
        depth = range(len(self.layers))
        expected = [tuple(self.get_parameter(f"layers.{i}.weight").shape) for i in depth]
        actual = [weight.shape for weight in mlp.weights]
        residual = mlp.residual_offset is not None
        if actual != expected or residual != self.residual:
            raise ConfigError(
                f"Its layers are {actual}{' with' if residual else ' without'} the reference's "
                f"pose added, expected {expected}{' with' if self.residual else ' without'}."
            )
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            self.get_parameter(f"layers.{i}.weight").copy_(torch.tensor(weight))
            self.get_parameter(f"layers.{i}.bias").copy_(torch.tensor(bias))
        self.obs_mean.copy_(torch.tensor(mlp.obs_mean))
        self.obs_var.copy_(torch.tensor(mlp.obs_scale - OBS_SCALE_EPS) ** 2)
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


def tracking_critic(
    hidden: tuple[int, ...], symmetry: bool = True, robot: Robot = g1.G1
) -> Network:
    """The value of what a critic of tracking sees: `CRITIC_TERMS` to one number."""
    mirrors = (as_mirror(mirror_map(CRITIC_TERMS, robot)), UNCHANGED) if symmetry else None
    return Network((size(CRITIC_TERMS, robot), *hidden, 1), "elu", 1.0, mirrors)


@torch.no_grad()
def polyak_update(average: nn.Module, present: nn.Module, decay: float) -> None:
    """Move the averaged weights to the present ones: `mean = decay mean + (1 - decay) value`."""
    for mean, value in zip(average.parameters(), present.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def average_decay(update: int, share: float, most: float) -> float:
    """`decay` of `polyak_update` for an average over the last `share` of the updates so far.

    Early in a run old weights are worth little, and late in it a long average is steady. A power
    law of Karras et al. 2024 (arXiv 2312.02696, section 3.1).

    Args:
        update: number of the update; the first is 1.
        share: of the updates, in (0, 1).
        most: the largest decay.
    """
    return min(most, max(0.0, 1 - 1 / (share * update)))


def copy_normalizer(average: nn.Module, present: nn.Module) -> None:
    """Give a network the statistics of another one's normalizer."""
    for target, value in zip(average.buffers(), present.buffers(), strict=True):
        target.copy_(value)


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and newer
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def use_bfloat16(choice: Literal["auto", "on", "off"], device: torch.device) -> bool:
    """Whether to compute in bfloat16: as chosen, or where the device is made for it."""
    return choice == "on" or (choice == "auto" and has_native_bfloat16(device))


def autocast(
    choice: Literal["auto", "on", "off"], device: torch.device
) -> Callable[[], torch.autocast]:
    """A maker of contexts in which matrix products are in bfloat16, see `use_bfloat16`."""
    enabled = use_bfloat16(choice, device)
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=enabled)


def begin_with(actors: Sequence[TrackingPolicy], name: str, expected: PolicySpec) -> None:
    """Give `actors` the network of the policy `name`, which must see and drive what is expected."""
    policy = load_policy(name)
    if policy.spec.robot is not expected.robot:
        raise ConfigError(
            f"{policy.path}: is for robot {policy.spec.robot.name}, expected one for "
            f"{expected.robot.name}."
        )
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
