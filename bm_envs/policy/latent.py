"""A tracker whose action passes through a latent: encoder and decoder as plain arrays.

    latent = encoder(reference part of the observation)
    action = decoder(latent, the rest of the observation: what the robot feels)

The encoder sees the command and how far the reference's torso is from the robot's; the decoder sees
the latent, the pelvis' velocities, joint positions and velocities, and the last action. So whoever
finds a latent otherwise, as a diffusion model does, has a policy of the robot's own state. The file
is that of any tracker, with the output `latent` beside `actions`.

Source: arXiv 2508.08241v4, the conditional VAE of its second stage. There the decoder sees gravity,
too; the observation of trackers, which this file keeps so that every controller of trackers loads
it, does not hold it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bm_envs.errors import PolicyError
from bm_envs.policy.network import ONNX_ACTIVATIONS, Layers
from bm_envs.policy.session import need, read_onnx
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, mirror_map, size

REFERENCE_TERMS = ("command", "motion_anchor_pos_b", "motion_anchor_ori_b")
ROBOT_TERMS = tuple(name for name in POLICY_TERMS if name not in REFERENCE_TERMS)
assert (*REFERENCE_TERMS, *ROBOT_TERMS) == POLICY_TERMS
SEEN, FELT = size(REFERENCE_TERMS), size(ROBOT_TERMS)  # 67 and 93 values


@dataclass(frozen=True, eq=False)
class LatentPolicy:
    """Encoder and decoder; Z values of a latent.

    Raises `PolicyError` when their sizes do not fit each other, or the G1's observations.
    """

    encoder: Layers
    """From `[N, 67]` to mean and logarithm of the standard deviation of the latent, `[N, 2 Z]`."""
    decoder: Layers
    """From the latent and what the robot feels, `[N, Z + 93]`, to raw actions `[N, 29]`."""

    def __post_init__(self) -> None:
        taken = self.encoder.obs_mean.shape[0], self.decoder.obs_mean.shape[0]
        expected = SEEN, self.latent_size + FELT
        if taken != expected or self.encoder.size % 2 or self.decoder.size != g1.NUM_JOINTS:
            raise PolicyError(
                f"Encoder and decoder take {taken} and give {self.encoder.size, self.decoder.size} "
                f"values, expected {expected} in, and an even number and {g1.NUM_JOINTS} out."
            )

    @property
    def latent_size(self) -> int:
        """Z."""
        return self.encoder.size // 2

    @property
    def seen(self) -> int:
        """Values of the observation that the encoder takes, the first ones."""
        return SEEN

    @property
    def taken(self) -> int:
        """Values of the observation."""
        return SEEN + FELT

    def latent(self, obs: np.ndarray) -> np.ndarray:
        """Means of the latent `[N, Z]` for observations `[N, 160]`."""
        return self.encoder(obs[:, :SEEN])[:, : self.latent_size]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions `[N, 29]` for observations `[N, 160]`; the reference of the ONNX graph."""
        return self.decoder(np.concatenate([self.latent(obs), obs[:, SEEN:]], 1))


def latent_mirror(latent_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Left-right mirror of a latent, index and sign `[Z]`: its halves are swapped."""
    return np.roll(np.arange(latent_size), latent_size // 2), np.ones(latent_size, np.float32)


def decoder_mirror(latent_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of what a decoder takes, `[Z + 93]`."""
    index, sign = latent_mirror(latent_size)
    felt_index, felt_sign = mirror_map(ROBOT_TERMS)
    return np.concatenate([index, latent_size + felt_index]), np.concatenate([sign, felt_sign])


def layers_from(arrays: Mapping[str, np.ndarray], prefix: str, activation: str = "elu") -> Layers:
    """The plain network whose arrays have names that begin with `prefix`.

    Raises:
        PolicyError: an array is missing or malformed.
    """
    count = sum(re.fullmatch(rf"{prefix}weight_\d+", name) is not None for name in arrays)
    try:
        return Layers(
            arrays[f"{prefix}obs_mean"], arrays[f"{prefix}obs_scale"],
            tuple(arrays[f"{prefix}weight_{i}"] for i in range(count)),
            tuple(arrays[f"{prefix}bias_{i}"] for i in range(count)),
            activation,  # type: ignore[arg-type]
        )  # fmt: skip
    except KeyError as error:
        raise PolicyError(f"lacks the constant {error}.") from None


def arrays_of(layers: Layers, prefix: str) -> dict[str, np.ndarray]:
    """What `layers_from` reads."""
    numbered = {
        f"{prefix}{name}_{i}": array
        for name, arrays in (("weight", layers.weights), ("bias", layers.biases))
        for i, array in enumerate(arrays)
    }
    return {
        f"{prefix}obs_mean": layers.obs_mean, f"{prefix}obs_scale": layers.obs_scale, **numbered,
    }  # fmt: skip


def latent_from_policy(path: str | Path) -> LatentPolicy | None:
    """Encoder and decoder inside a policy's file; None: it has no latent.

    Raises:
        PolicyError: the file cannot be read, or was made otherwise than by this project.
    """
    onnx = need("onnx")
    model = read_onnx(Path(path))
    if "latent" not in [output.name for output in model.graph.output]:
        return None
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    kinds = {node.op_type for node in model.graph.node}
    activation = next((name for name, kind in ONNX_ACTIVATIONS.items() if kind in kinds), "elu")
    try:
        parts = [layers_from(arrays, f"{part}_", activation) for part in ("encoder", "decoder")]
        return LatentPolicy(*parts)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None
