"""The network of a tracker or of a guided task's policy, as plain arrays."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bm_envs.cli import zip_damage
from bm_envs.errors import PolicyError, unknown_name
from bm_envs.policy.archive import check_archive
from bm_envs.policy.description import read_run_config
from bm_envs.policy.session import first_line, need, read_onnx
from bm_envs.policy.spec import robot_of_config, spec_from_config
from bm_envs.robots.registry import ROBOTS

OBS_SCALE_EPS = 0.01  # added to the standard deviation; source: rsl_rl's empirical normalisation
ONNX_ACTIVATIONS = {"elu": "Elu", "relu": "Relu", "tanh": "Tanh"}


@dataclass(frozen=True, eq=False)
class Layers:
    """A plain network as float32 arrays, O values in and any number out.

    `y = net((x - obs_mean) / obs_scale)`.
    """

    obs_mean: np.ndarray
    """`[O]`, mean of the observation; it is subtracted first."""
    obs_scale: np.ndarray
    """`[O]`, scale of the observation; it is divided by this."""
    weights: tuple[np.ndarray, ...]
    """Weights of each layer, `[out, in]`."""
    biases: tuple[np.ndarray, ...]
    """Biases of each layer, `[out]`."""
    activation: Literal["elu", "relu", "tanh"] = "elu"
    """Activation between layers; there is none after the last."""

    def __post_init__(self) -> None:
        for name in ("obs_mean", "obs_scale"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        for name in ("weights", "biases"):
            arrays = tuple(np.asarray(array, np.float32) for array in getattr(self, name))
            object.__setattr__(self, name, arrays)
        if str(self.activation) not in ONNX_ACTIVATIONS:
            raise PolicyError(unknown_name("activation", str(self.activation), ONNX_ACTIVATIONS))
        if not self.weights or len(self.weights) != len(self.biases):
            raise PolicyError(
                f"The network has {len(self.weights)} weights and {len(self.biases)} biases, "
                "expected as many of each and at least one."
            )
        size = self.obs_mean.shape[0] if self.obs_mean.ndim == 1 else -1
        shapes: list[tuple[str, np.ndarray, tuple[int, ...]]] = [
            ("obs_mean", self.obs_mean, (size,)),
            ("obs_scale", self.obs_scale, (size,)),
        ]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows = weight.shape[0] if weight.ndim == 2 else -1
            shapes += [(f"weight {i}", weight, (rows, size)), (f"bias {i}", bias, (rows,))]
            size = rows
        check_arrays(shapes)
        if (self.obs_scale <= 0).any():
            raise PolicyError("obs_scale holds a value that is not positive.")

    @property
    def size(self) -> int:
        """Values that come out."""
        return len(self.biases[-1])

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """What comes out, `[N, size]`, for `[N, O]`; the reference the ONNX graph is held to."""
        x = (np.asarray(obs, np.float32) - self.obs_mean) / self.obs_scale
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if i < len(self.weights) - 1:
                x = self._activate(x)
        return x.astype(np.float32)

    def _activate(self, x: np.ndarray) -> np.ndarray:
        if self.activation == "elu":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        return np.maximum(x, 0) if self.activation == "relu" else np.tanh(x)


def check_arrays(shapes: Sequence[tuple[str, np.ndarray, tuple[int, ...]]]) -> None:
    """Refuse named arrays that have another shape than they should, or a number not finite."""
    for name, array, shape in shapes:
        if array.shape != shape:
            raise PolicyError(f"{name} has shape {array.shape}, expected {shape}.")
        if not np.isfinite(array).all():
            raise PolicyError(f"{name} holds a value that is not finite.")


@dataclass(frozen=True, eq=False)
class MLP(Layers):
    """A deterministic actor as float32 arrays, O observation values to 29 actions.

    `action = net((obs - obs_mean) / obs_scale)`, plus `(obs[:, :29] - residual_offset) /
    residual_scale` when these are given: the first 29 values of the observation are the reference
    joint positions, so the network then learns a correction to the reference pose.
    """

    residual_offset: np.ndarray | None = None
    """`[29]`, default joint angles, rad."""
    residual_scale: np.ndarray | None = None
    """`[29]`, joint target per unit of action, rad."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("residual_offset", "residual_scale"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        if (self.residual_offset is None) != (self.residual_scale is None):
            raise PolicyError("residual_offset and residual_scale go together, one is missing.")
        if self.residual_offset is not None and self.residual_scale is not None:
            check_arrays([
                ("residual_offset", self.residual_offset, (self.size,)),
                ("residual_scale", self.residual_scale, (self.size,)),
            ])  # fmt: skip
        joints = [robot.num_joints for robot in ROBOTS.values()]
        if self.size not in joints:
            expected = " or ".join(map(str, joints))
            raise PolicyError(f"The network gives {self.size} actions, expected {expected}.")

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions `[N, 29]` for observations `[N, O]`; the reference the ONNX graph is held to."""
        x = super().__call__(obs)
        if self.residual_offset is not None:
            reference = obs[:, : len(self.residual_offset)]
            x = x + (reference - self.residual_offset) / self.residual_scale
        return x.astype(np.float32)


def mlp_from_checkpoint(path: str | Path) -> MLP:
    """The actor of a training checkpoint (`checkpoint.pt`) or of a run directory.

    `config.json` beside it says which activation the network has and whether the reference pose is
    added to its output; the weights are read without running code.

    Raises:
        PolicyError: a file is missing or unreadable, or a tensor is missing or malformed.
    """
    path = Path(path)
    path = path / "checkpoint.pt" if path.is_dir() else path
    torch = need("torch")
    if not path.is_file():
        raise PolicyError(f"{path}: no such checkpoint.")
    config = read_run_config(path.parent)
    network = config.get("network")
    if not isinstance(network, dict):
        raise PolicyError(f"{path.parent / 'config.json'}: 'network' is missing or no object.")
    check_archive(path)
    try:
        if damage := zip_damage(path):
            raise ValueError(damage)
        with warnings.catch_warnings(action="ignore"):  # about pickles of other protocols
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        raise PolicyError(f"{path}: not a readable checkpoint ({first_line(error)}).") from None
    actor = checkpoint.get("actor") if isinstance(checkpoint, dict) else None
    if not isinstance(actor, dict):
        raise PolicyError(f"{path}: holds no 'actor', expected a training checkpoint.")

    def tensor(key: str) -> np.ndarray:
        value: Any = actor.get(key)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise PolicyError(f"{path}: actor lacks the tensor '{key}'.")
        return value.detach().float().numpy()

    layers = 0
    while f"layers.{layers}.weight" in actor:
        layers += 1
    variance = tensor("obs_var")
    if (variance < 0).any():
        raise PolicyError(f"{path}: obs_var holds a negative value.")
    offset, scale = None, None
    if network.get("residual", False):
        try:
            spec = spec_from_config(config)
        except PolicyError as error:
            raise PolicyError(f"{path.parent / 'config.json'}: {error}") from None
        offset, scale = np.array(spec.default_joint_pos), np.array(spec.action_scale)
    mean = tensor("obs_mean")
    weights = tuple(tensor(f"layers.{i}.weight") for i in range(layers))
    biases = tuple(tensor(f"layers.{i}.bias") for i in range(layers))
    deviation = np.sqrt(variance) + OBS_SCALE_EPS
    joints = robot_of_config(config).num_joints
    if biases and len(biases[-1]) != joints:
        raise PolicyError(
            f"{path}: The network gives {len(biases[-1])} actions, expected {joints}."
        )
    try:
        return MLP(
            mean, deviation, weights, biases, network.get("activation", "elu"), offset, scale
        )
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def mlp_from_policy(path: str | Path) -> MLP:
    """The network inside a `policy.onnx` that `write_onnx` made.

    Raises:
        PolicyError: the file is unreadable or was made otherwise.
    """
    onnx = need("onnx")
    path = Path(path)
    model = read_onnx(path)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    layers = sum(re.fullmatch(r"weight_\d+", name) is not None for name in arrays)
    kinds = {node.op_type for node in model.graph.node}
    activations = [name for name, kind in ONNX_ACTIVATIONS.items() if kind in kinds]
    try:
        return MLP(
            arrays["obs_mean"], arrays["obs_scale"],
            tuple(arrays[f"weight_{i}"] for i in range(layers)),
            tuple(arrays[f"bias_{i}"] for i in range(layers)),
            activations[0] if activations else "elu",  # type: ignore[arg-type]
            arrays.get("residual_offset"), arrays.get("residual_scale"),
        )  # fmt: skip
    except KeyError as error:
        raise PolicyError(
            f"{path}: holds no constant {error}, expected a policy that this project wrote."
        ) from None
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None
