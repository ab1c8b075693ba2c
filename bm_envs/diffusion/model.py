"""A trained diffusion model as a file; `controller.py` runs it on robots.

`denoiser.onnx` is one call of the denoiser of `sampler.py`, for any number of windows and, in each,
of the first actions. Its inputs are `states`, `actions`, `state_levels` and `action_levels`, its
outputs `clean_states` and `clean_actions`. All other outputs are constants, by which numbers with
units become the network's and back:

    states of the network = ((features - state_center) / state_half) @ projection
    raw action            = action_center + action_half * action of the network

`projection` is left out where there is none. In a model of latents (`algos/dagger_vae.py`) an
action is a latent, and constants whose names begin with `decoder_` are the network that makes a raw
action of a latent and of what the robot feels then (`policy/latent.py`). The file's metadata say
which representation, joint order and drives it is for; `policy.json` beside it says the same for
people, and what the model was trained on. Nothing here runs code from a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import policy as policy_files
from bm_envs.cli import atomic_path, read_json, shortened
from bm_envs.diffusion.files import Drives, NetworkFile, drive_metadata, write_description
from bm_envs.diffusion.sampler import LENGTH, Guide
from bm_envs.errors import BMError, PolicyError, unknown_name
from bm_envs.policy import DIFFUSION
from bm_envs.policy.latent import FELT, arrays_of, layers_from
from bm_envs.policy.network import Layers
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, REPRESENTATIONS, Representation, representation

FORMAT, FILE = DIFFUSION.format, DIFFUSION.file
A = g1.NUM_JOINTS
DECODER = "decoder_"  # its constants' names begin so
SCALING = ("state_center", "state_half", "action_center", "action_half")
INPUTS = ("states", "actions", "state_levels", "action_levels")
OUTPUTS = ("clean_states", "clean_actions")
CLIP = 1.2  # bound of the estimates, in half-ranges about the center


# --- writing --------------------------------------------------------------------------------------


def write_denoiser(
    folder: Path, graph: bytes, *, representation: str, drives: Drives,
    scaling: Mapping[str, np.ndarray], data: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any], half: bool = False, licence: str = "",
    decoder: Layers | None = None,
) -> None:  # fmt: skip
    """Write `denoiser.onnx` and `policy.json`.

    Args:
        folder: where.
        graph: an ONNX model with the inputs and outputs above.
        representation: name of the states' representation.
        drives: under which the actions were made.
        scaling: the arrays of `SCALING`, and `projection` if there is one.
        data: what it was trained on, one entry per folder of roll-outs.
        training: figures of the training.
        half: keep the matrices in float16, which halves the file; products stay in float32.
        licence: under which terms the weights may be used, one line.
        decoder: of a model of latents.
    """
    onnx = policy_files.need("onnx")
    model = onnx.load_from_string(graph)
    if decoder is not None:
        _add_constants(model, arrays_of(decoder, DECODER))
    if half:
        _halve(model)
    _add_constants(model, scaling)
    entries = {
        "format": FORMAT, "representation": representation,
        "joint_names": ",".join(g1.JOINT_NAMES), **drive_metadata(drives),
    }  # fmt: skip
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model)
    with atomic_path(folder / FILE) as temporary:
        temporary.write_bytes(model.SerializeToString())
    rep = REPRESENTATIONS[representation]
    content = {
        "window": {"length": LENGTH, "now": NOW},
        "representation": representation,
        "state": {name: [part.start, part.stop] for name, part in rep.blocks.items()},
        "data": list(data),
        **({} if decoder is None else {"latent": {"size": decoder.obs_mean.shape[0] - FELT}}),
    }
    write_description(folder, DIFFUSION, drives, content, training=training, licence=licence)


def _add_constants(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Add arrays as outputs of the graph, by their names."""
    onnx = policy_files.need("onnx")
    for name, array in arrays.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(array, np.float32), f"{name}_values")
        model.graph.initializer.append(tensor)
        model.graph.node.append(onnx.helper.make_node("Identity", [tensor.name], [name]))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        )


def _halve(model: Any) -> None:
    """Keep matrices of the graph in float16, cast to float32 where they are used."""
    onnx = policy_files.need("onnx")
    casts = []
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim >= 2:
            name = tensor.name
            stored = onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
            tensor.CopyFrom(stored)
            cast = onnx.helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT)
            casts.append(cast)
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)


# --- reading --------------------------------------------------------------------------------------


class GuidedModel(NetworkFile):
    """A denoiser's file, ready to run. Made by `load_model`.

    Attributes:
        representation: of its states.
        width: S, the size of a state as the network has it.
        range: lowest and highest of each feature in nearly all of its training data, `[D]` each.
        action_size: numbers of an action: 29, or Z of a model of latents.
        decoder: of a model of latents, from a latent and what the robot feels to a raw action.
    """

    decoder: Layers | None

    kind, expected = DIFFUSION, "a denoiser"

    def __init__(self, path: Path, threads: int, name: str | None = None) -> None:
        model, metadata = self.read(path, name, open_size=LENGTH)
        self.representation = _representation(metadata.get("representation", ""))
        if tuple(metadata.get("joint_names", "").split(",")) != g1.JOINT_NAMES:
            raise PolicyError("joint_names are not the project's, in its order.")
        self.width, self.action_size = _check_graph(model, self.representation)
        self.open(model, threads)
        self._read_scaling([output.name for output in model.graph.output])

    def denoise(
        self, states: np.ndarray, actions: np.ndarray, state_levels: np.ndarray,
        action_levels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """One call; see `sampler.py`."""
        clean_states, clean_actions = self.run(
            OUTPUTS, states=states, actions=actions, state_levels=state_levels.astype(np.int64),
            action_levels=action_levels.astype(np.int64),
        )  # fmt: skip
        return clean_states, clean_actions

    def scale(self, features: np.ndarray) -> np.ndarray:
        """Features of the representation, `[..., D]`, as the network has them. `[..., S]`."""
        scaled = (features - self._scaling["state_center"]) / self._scaling["state_half"]
        return scaled if self._projection is None else scaled @ self._projection

    def unscale(self, states: np.ndarray) -> np.ndarray:
        """The network's states, `[..., S]`, as features of the representation. `[..., D]`."""
        if self._unprojection is not None:
            states = states @ self._unprojection
        return states * self._scaling["state_half"] + self._scaling["state_center"]

    def unscale_action(self, action: np.ndarray) -> np.ndarray:
        """The network's actions as raw ones, or as latents. `[..., A]`."""
        return action * self._scaling["action_half"] + self._scaling["action_center"]

    def bound(
        self, states: np.ndarray, guide: Guide | None = None, levels: np.ndarray | None = None
    ) -> np.ndarray:
        """The network's states with every feature within `CLIP` half-ranges.

        Args:
            states: `[..., S]`; with a guide, windows `[B, L, S]`.
            guide: moves their features `[B, L, D]` before that.
            levels: of the states, for the guide. `[B, L]`.
        """
        features = self.unscale(states)
        if guide is not None:
            assert levels is not None
            features = guide(features, levels)
        return self.scale(features.clip(*self._limits))

    def bound_action(self, actions: np.ndarray) -> np.ndarray:
        """The network's actions within `CLIP` half-ranges."""
        return actions.clip(-CLIP, CLIP)

    def clips_of_experts(self) -> dict[str, list[str]]:
        """Names of the clips that each tracker it learned from followed, by that tracker's name.

        By the `policy.json` beside it; empty where that does not tell.
        """
        found: dict[str, dict[str, None]] = {}  # names in their order, each once
        try:
            for part in read_json(self.path.parent / "policy.json")["data"]:
                firsts = [int(expert["first_clip"]) for expert in part["experts"]]
                ends = [*firsts[1:], len(part["clips"])]
                for expert, first, end in zip(part["experts"], firsts, ends, strict=True):
                    names = [str(clip["name"]) for clip in part["clips"][first:end]]
                    found.setdefault(str(expert["policy"]), {}).update(dict.fromkeys(names))
        except (BMError, LookupError, TypeError, ValueError):
            return {}
        return {expert: list(names) for expert, names in found.items()}

    def _read_scaling(self, present: Sequence[str]) -> None:
        """Read the constants by one call on zeros, which also shows that the network runs."""
        names = [*SCALING, *(["projection"] if "projection" in present else [])]
        if lacking := [name for name in names if name not in present]:
            raise PolicyError(f"outputs lack {', '.join(lacking)}.")
        states = np.zeros((1, LENGTH, self.width), np.float32)
        A = self.action_size  # noqa: N806
        actions, levels = np.zeros((1, LENGTH, A), np.float32), np.zeros((1, LENGTH), np.int64)
        outputs = [*OUTPUTS, *names]
        arrays = dict(zip(outputs, self.run(
            outputs, states=states, actions=actions, state_levels=levels, action_levels=levels,
        ), strict=True))  # fmt: skip
        size = self.representation.size
        shapes = {"clean_states": (1, LENGTH, self.width), "clean_actions": (1, LENGTH, A),
                  "state_center": (size,), "state_half": (size,), "action_center": (A,),
                  "action_half": (A,), "projection": (size, self.width)}  # fmt: skip
        for name, value in arrays.items():
            if value.shape != shapes[name] or not np.isfinite(value).all():
                raise PolicyError(
                    f"'{name}' has shape {value.shape}, expected {shapes[name]} of finite numbers."
                )
        self._scaling = {name: arrays[name] for name in SCALING}
        self.decoder = self._read_decoder(present)
        if min(self._scaling["state_half"].min(), self._scaling["action_half"].min()) <= 0:
            raise PolicyError("state_half and action_half must be positive.")
        center, half = self._scaling["state_center"], self._scaling["state_half"]
        self.range = center - half, center + half
        self._limits = center - CLIP * half, center + CLIP * half
        self._projection = self._unprojection = None
        if "projection" in names:
            self._projection = arrays["projection"]
            inverse = np.linalg.pinv(self._projection.astype(np.float64))
            self._unprojection = inverse.astype(np.float32)
        elif self.width != size:
            raise PolicyError(f"states have {self.width} values, expected {size}.")

    def _read_decoder(self, present: Sequence[str]) -> Layers | None:
        names = [name for name in present if name.startswith(DECODER)]
        if not names:
            if self.action_size != g1.NUM_JOINTS:
                raise PolicyError(f"actions have {self.action_size} numbers and no decoder.")
            return None
        states = np.zeros((1, LENGTH, self.width), np.float32)
        actions = np.zeros((1, 1, self.action_size), np.float32)
        none, one = np.zeros((1, LENGTH), np.int64), np.zeros((1, 1), np.int64)
        values = self.run(
            names, states=states, actions=actions, state_levels=none, action_levels=one
        )
        decoder = layers_from(dict(zip(names, values, strict=True)), DECODER)
        sizes = decoder.obs_mean.shape[0], decoder.size
        if sizes != (self.action_size + FELT, g1.NUM_JOINTS):
            raise PolicyError(
                f"the decoder takes and gives {sizes} values, expected "
                f"{self.action_size + FELT, g1.NUM_JOINTS}."
            )
        return decoder


def load_model(reference: str | Path, *, threads: int = 1) -> GuidedModel:
    """Load a diffusion model.

    Args:
        reference: a run directory (its `denoiser.onnx`), that file itself, the bare name of a model
            that ships with the package, or one of the Hub, `hub:OWNER/NAME[@REVISION]`. An existing
            path wins over a shipped name.
        threads: of the runtime.

    Raises:
        PolicyError: unknown, unreadable or malformed; one sentence that names the file.
    """
    return GuidedModel.load(reference, threads)


def _representation(name: str) -> Representation:
    if name not in REPRESENTATIONS:
        raise PolicyError(unknown_name("representation", shortened(name, 60), REPRESENTATIONS))
    return representation(name)


def _check_graph(model: Any, rep: Representation) -> tuple[int, int]:
    """The widths of states and actions, of a graph whose inputs are those of a denoiser."""
    onnx = policy_files.need("onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in weights}
    if tuple(inputs) != INPUTS:
        raise PolicyError(
            f"inputs are {', '.join(inputs) or 'none'}, expected {', '.join(INPUTS)}."
        )
    dims = {name: [dim.dim_value for dim in kind.shape.dim] for name, kind in inputs.items()}
    kinds = [kind.elem_type for kind in inputs.values()]
    number = onnx.TensorProto
    if kinds != [number.FLOAT, number.FLOAT, number.INT64, number.INT64]:
        raise PolicyError("inputs are not float32, float32, int64, int64.")
    width = dims["states"][-1] if len(dims["states"]) == 3 else 0
    action = dims["actions"][-1] if len(dims["actions"]) == 3 else 0
    expected = [[LENGTH, width], [0, action], [LENGTH], [0]]  # 0: open
    if [sizes[1:] for sizes in dims.values()] != expected or width < rep.size or action < 1:
        raise PolicyError(
            f"inputs have shapes {[*dims.values()]}, expected windows of {LENGTH} states with "
            f"{rep.size} or more values and of any number of actions."
        )
    return width, action
