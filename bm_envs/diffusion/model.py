"""A trained diffusion model as a file; `controller.py` runs it on robots.

`denoiser.onnx` is one call of the denoiser of `sampler.py`, for any number of windows and, in each,
of the first actions: inputs `states`, `actions`, `state_levels`, `action_levels`, outputs
`clean_states`, `clean_actions`. The
other outputs are constants, by which numbers with units become the network's and back:

    states of the network = ((features - state_center) / state_half) @ projection
    raw action            = action_center + action_half * action of the network

`projection` is left out where there is none. Its metadata tell the representation, joint order and
drives; `policy.json` beside it says the same for people, and what the model was trained on. Nothing
here runs code from a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import policy as policy_files
from bm_envs.cli import (
    atomic_path,
    file_sha256,
    parse_json,
    read_json,
    shortened,
    versions,
    write_json,
)
from bm_envs.diffusion.sampler import LENGTH, Guide
from bm_envs.errors import BMError, PolicyError, unknown_name
from bm_envs.policy import DIFFUSION
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, REPRESENTATIONS, Representation, representation

FORMAT, FILE = DIFFUSION.format, DIFFUSION.file
A = g1.NUM_JOINTS
DRIVES = ("default_joint_pos", "action_scale", "stiffness", "damping")
SCALING = ("state_center", "state_half", "action_center", "action_half")
INPUTS = ("states", "actions", "state_levels", "action_levels")
OUTPUTS = ("clean_states", "clean_actions")
CLIP = 1.2  # bound of the estimates, in half-ranges about the center


# --- writing --------------------------------------------------------------------------------------


def write_denoiser(
    folder: Path, graph: bytes, *, representation: str, drives: Mapping[str, Sequence[float]],
    scaling: Mapping[str, np.ndarray], data: Sequence[Mapping[str, Any]],
    training: Mapping[str, Any], half: bool = False, licence: str = "",
) -> None:  # fmt: skip
    """Write `denoiser.onnx` and `policy.json`.

    Args:
        folder: where.
        graph: an ONNX model with the inputs and outputs above.
        representation: name of the states' representation.
        drives: `[29]` each of `DRIVES`, project order.
        scaling: the arrays of `SCALING`, and `projection` if there is one.
        data: what it was trained on, one entry per folder of roll-outs.
        training: figures of the training.
        half: keep the matrices in float16, which halves the file; products stay in float32.
        licence: under which terms the weights may be used, one line.
    """
    onnx = policy_files.need("onnx")
    model = onnx.load_from_string(graph)
    if half:
        _halve(model)
    for name, array in scaling.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(array, np.float32), f"{name}_values")
        model.graph.initializer.append(tensor)
        model.graph.node.append(onnx.helper.make_node("Identity", [tensor.name], [name]))
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        )
    entries = {
        "format": FORMAT, "representation": representation,
        "joint_names": ",".join(g1.JOINT_NAMES),
        **{name: json.dumps([float(v) for v in drives[name]]) for name in DRIVES},
    }  # fmt: skip
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model)
    with atomic_path(folder / FILE) as temporary:
        temporary.write_bytes(model.SerializeToString())
    digest = file_sha256(folder / FILE)
    rep = REPRESENTATIONS[representation]
    write_json(folder / "policy.json", {
        "format": FORMAT,
        "robot": "Unitree G1, 29 actuated joints",
        "control_dt_s": policy_files.CONTROL_DT,
        "network": {"file": FILE, "sha256": digest},
        "window": {"length": LENGTH, "now": NOW},
        "representation": representation,
        "state": {name: [part.start, part.stop] for name, part in rep.blocks.items()},
        "action": {
            "size": A, "joint_names": list(g1.JOINT_NAMES),
            "formula": "joint target (rad) = default_joint_pos + action_scale * action",
            **{name: [float(v) for v in drives[name]] for name in DRIVES},
        },
        "data": list(data),
        "licence": licence,
        "training": dict(training),
        "versions": versions(),
    })  # fmt: skip


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


class GuidedModel:
    """A denoiser's file, ready to run. Made by `load_model`.

    Attributes:
        path: the file.
        name: for tables, without folders.
        sha256: of the file.
        representation: of its states.
        drives: `DRIVES`, project order.
        width: S, the size of a state as the network has it.
    """

    def __init__(self, path: Path, threads: int, name: str | None = None) -> None:
        self.path = path
        folder = path.resolve().parent.name
        self.name = name or ((folder or path.stem) if path.name == FILE else path.stem)
        model = policy_files.read_onnx(path, open_size=LENGTH)
        self.sha256 = file_sha256(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if metadata.get("format") != FORMAT:
            raise PolicyError(f"its metadata lack format '{FORMAT}', expected a denoiser.")
        self.representation = _representation(metadata.get("representation", ""))
        if tuple(metadata.get("joint_names", "").split(",")) != g1.JOINT_NAMES:
            raise PolicyError("joint_names are not the project's, in its order.")
        self.drives = {name: drive_of(metadata, name) for name in DRIVES}
        self.width = _check_graph(model, self.representation)
        self._session = policy_files.open_session(model, threads)
        self._read_scaling([output.name for output in model.graph.output])

    def denoise(
        self, states: np.ndarray, actions: np.ndarray, state_levels: np.ndarray,
        action_levels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """One call; see `sampler.py`."""
        given = (states, actions, state_levels.astype(np.int64), action_levels.astype(np.int64))
        found = self._run(OUTPUTS, given)
        return found[0], found[1]

    def scale(self, features: np.ndarray) -> np.ndarray:
        """Features of the representation, `[..., D]`, as the network has them. `[..., S]`."""
        scaled = (features - self._scaling["state_center"]) / self._scaling["state_half"]
        return scaled if self._projection is None else scaled @ self._projection

    def unscale(self, states: np.ndarray) -> np.ndarray:
        """The network's states, `[..., S]`, as features of the representation. `[..., D]`."""
        if self._unprojection is not None:
            states = states @ self._unprojection
        return states * self._scaling["state_half"] + self._scaling["state_center"]

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        """Raw actions as the network has them. `[..., 29]`."""
        return (action - self._scaling["action_center"]) / self._scaling["action_half"]

    def unscale_action(self, action: np.ndarray) -> np.ndarray:
        """The network's actions as raw ones. `[..., 29]`."""
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

    def expert_names(self) -> list[str]:
        """Names of the trackers that it learned from, of `policy.json` beside it; may be none."""
        return self._told("experts", "policy")

    def clip_names(self) -> list[str]:
        """Names of the clips that those tracked, likewise."""
        return self._told("clips", "name")

    def _told(self, what: str, key: str) -> list[str]:
        """Names of what the training data were made with."""
        try:
            told = read_json(self.path.parent / "policy.json")
            names = [entry[key] for part in told["data"] for entry in part[what]]
        except (BMError, LookupError, TypeError):
            return []
        return list(dict.fromkeys(str(name) for name in names))

    def _run(self, outputs: Sequence[str], given: Sequence[np.ndarray]) -> list[np.ndarray]:
        feed = dict(zip(INPUTS, given, strict=True))
        try:
            return self._session.run(list(outputs), feed)
        except Exception as error:  # the runtime's exceptions share no base but Exception
            line = str(error).strip().splitlines()[0]
            raise PolicyError(f"{self.path}: the network fails ({line}).") from None

    def _read_scaling(self, outputs: Sequence[str]) -> None:
        """The constants, by one call on zeros, which also shows that the network runs."""
        names = [*SCALING, *(["projection"] if "projection" in outputs else [])]
        if lacking := [name for name in names if name not in outputs]:
            raise PolicyError(f"outputs lack {', '.join(lacking)}.")
        zeros = np.zeros((1, LENGTH, self.width), np.float32), np.zeros((1, LENGTH, A), np.float32)
        levels = np.zeros((1, LENGTH), np.int64)
        found = dict(zip([*OUTPUTS, *names],
                         self._run([*OUTPUTS, *names], (*zeros, levels, levels)),
                         strict=True))  # fmt: skip
        size = self.representation.size
        shapes = {"clean_states": (1, LENGTH, self.width), "clean_actions": (1, LENGTH, A),
                  "state_center": (size,), "state_half": (size,), "action_center": (A,),
                  "action_half": (A,), "projection": (size, self.width)}  # fmt: skip
        for name, value in found.items():
            if value.shape != shapes[name] or not np.isfinite(value).all():
                raise PolicyError(
                    f"'{name}' has shape {value.shape}, expected {shapes[name]} of finite numbers."
                )
        self._scaling = {name: found[name] for name in SCALING}
        if min(self._scaling["state_half"].min(), self._scaling["action_half"].min()) <= 0:
            raise PolicyError("state_half and action_half must be positive.")
        center, half = self._scaling["state_center"], self._scaling["state_half"]
        self._limits = center - CLIP * half, center + CLIP * half
        self._projection = self._unprojection = None
        if "projection" in names:
            self._projection = found["projection"]
            inverse = np.linalg.pinv(self._projection.astype(np.float64))
            self._unprojection = inverse.astype(np.float32)
        elif self.width != size:
            raise PolicyError(f"states have {self.width} values, expected {size}.")


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
    reference, name = policy_files.from_hub(reference)
    path = policy_files.resolve_file(reference, DIFFUSION)
    try:
        return GuidedModel(path, threads, name)
    except PolicyError as error:
        message = str(error)
        raise PolicyError(message if str(path) in message else f"{path}: {message}") from None


def _representation(name: str) -> Representation:
    if name not in REPRESENTATIONS:
        raise PolicyError(unknown_name("representation", shortened(name, 60), REPRESENTATIONS))
    return representation(name)


def drive_of(metadata: Mapping[str, str], name: str) -> tuple[float, ...]:
    """The figures of one of `DRIVES` in a file's metadata, a joint each.

    Raises:
        PolicyError: they are missing or malformed.
    """
    try:
        values = parse_json(metadata.get(name, ""))
    except ValueError:
        values = None
    if (
        not isinstance(values, list)
        or len(values) != A
        or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values)
    ):
        raise PolicyError(f"metadata '{name}' are not {A} finite numbers.")
    key = name if name in policy_files.DRIVE_BOUNDS else f"joint_{name}"
    policy_files.check_drive(key, values)
    return tuple(float(v) for v in values)


def _check_graph(model: Any, rep: Representation) -> int:
    """The width of states, of a graph whose inputs are those of a denoiser."""
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
    expected = [[LENGTH, width], [0, A], [LENGTH], [0]]  # 0: open
    if [found[1:] for found in dims.values()] != expected or width < rep.size:
        raise PolicyError(
            f"inputs have shapes {[*dims.values()]}, expected windows of {LENGTH} states with "
            f"{rep.size} or more values and of any number of actions with {A}."
        )
    return width
