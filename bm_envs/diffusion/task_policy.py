"""A policy of a guided task as a file: the task's observation in, a raw action out.

`policy.onnx` has the input `obs [N, O]` and the output `actions [N, 29]`, float32, for any N; the
normalizer is inside. A tracker's file (`bm_envs.policy`) names terms of the tracking task and may
hold a motion. This file names a guided task, whose observation `observations.py` lays out, and
holds no motion. Its metadata state the task, that layout, the joint order and the drives.
`policy.json` beside it says the same for people, and how the policy was trained. Nothing here runs
code from a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import policy as policy_files
from bm_envs.cli import shortened
from bm_envs.diffusion.files import FORMULA, Drives, NetworkFile, drive_metadata, write_description
from bm_envs.errors import PolicyError, unknown_name
from bm_envs.policy import GUIDED, MLP, GraphBuilder
from bm_envs.policy.graph import MAX_TRACKER_OPERATIONS
from bm_envs.robots import g1
from bm_envs.tasks.guided.observations import TERMS, layout

FILE = GUIDED.file
A = g1.NUM_JOINTS
TORQUE = f"{FORMULA}; torque = stiffness * (target - q) - damping * qdot, within +-effort_limit"


# --- writing --------------------------------------------------------------------------------------


def write_guided_policy(
    folder: Path, network: MLP, *, task: str, drives: Drives, training: Mapping[str, Any],
    evaluation: Mapping[str, Any], licence: str = "",
) -> None:  # fmt: skip
    """Write `policy.onnx` and `policy.json`, each whole or not at all.

    Args:
        folder: where.
        network: from the task's observation to raw actions.
        task: name of the task.
        drives: under which it acts.
        training: figures of the training.
        evaluation: figures of the task's protocol.
        licence: under which terms the weights may be used, one line.

    Raises:
        PolicyError: the network does not fit the task.
    """
    entries = {**_fixed(task), **drive_metadata(drives)}
    size = _size(task)
    if network.obs_mean.shape[0] != size or network.residual_offset is not None:
        what = "a reference pose as well" if network.residual_offset is not None else "other ones"
        raise PolicyError(
            f"The network takes {network.obs_mean.shape[0]} values and {what}, expected the {size} "
            f"of task '{task}' alone."
        )
    graph = GraphBuilder()
    graph.network(network)
    inputs, outputs = [graph.tensor("obs", ("N", size))], [graph.tensor("actions", ("N", A))]
    graph.save(folder / FILE, inputs, outputs, entries)
    places = layout(TERMS[task])
    content = {
        "task": task,
        "observation": [
            {
                "name": term.name, "start": places[term.name].start,
                "stop": places[term.name].stop, "frame": term.frame, "unit": term.unit,
                "meaning": term.meaning,
            }
            for term in TERMS[task]
        ],
        "observation_size": size,
        "evaluation": dict(evaluation),
    }  # fmt: skip
    write_description(
        folder, GUIDED, drives, content, training=training, licence=licence, formula=TORQUE,
        effort_limit=g1.EFFORT_LIMIT,
    )  # fmt: skip


def _size(task: str) -> int:
    return sum(term.size for term in TERMS[task])


def _fixed(task: str) -> dict[str, str]:
    """The metadata that all policies of a task share: a file that differs is for another robot."""
    if task not in TERMS:
        raise PolicyError(unknown_name("task", shortened(task, 60), TERMS))
    return {
        "format": GUIDED.format,
        "task": task,
        "observation": json.dumps([[term.name, term.size] for term in TERMS[task]]),
        "joint_names": ",".join(g1.JOINT_NAMES),
        "control_dt": repr(policy_files.CONTROL_DT),
    }


# --- reading --------------------------------------------------------------------------------------


class GuidedPolicy(NetworkFile):
    """A policy of a guided task, ready to run. Made by `load_guided_policy`.

    Attributes:
        task: name of the task.
    """

    kind, expected = GUIDED, "a policy of a guided task"

    def __init__(self, path: Path, threads: int, name: str | None = None) -> None:
        model, metadata = self.read(path, name, most=MAX_TRACKER_OPERATIONS)
        self.task = metadata.get("task", "")
        for key, value in _fixed(self.task).items():
            if metadata.get(key) != value:
                raise PolicyError(f"its {key} is not that of task '{self.task}' here.")
        self._size = _size(self.task)
        _check_graph(model, self._size)
        self.open(model, threads)
        probe = np.random.default_rng(0).normal(size=(2, self._size)).astype(np.float32)
        actions = self(probe)
        if actions.shape != (2, A) or not np.isfinite(actions).all():
            raise PolicyError(f"the network's action is not finite or not of {A} values.")

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]` float32, project order, for the task's observations `[N, O]`."""
        obs = np.ascontiguousarray(obs, np.float32)
        if obs.ndim != 2 or obs.shape[1] != self._size:
            raise PolicyError(
                f"{self.path}: got observations of shape {obs.shape}, expected (N, {self._size})."
            )
        return self.run(["actions"], obs=obs)[0]


def load_guided_policy(reference: str | Path, *, threads: int = 1) -> GuidedPolicy:
    """Load a policy of a guided task.

    Args:
        reference: a run directory (its `policy.onnx`), that file itself, or one of the Hub,
            `hub:OWNER/NAME[@REVISION]`.
        threads: of the runtime.

    Raises:
        PolicyError: unreadable, malformed, or of another kind; one sentence that names the file.
    """
    return GuidedPolicy.load(reference, threads)


def _check_graph(model: Any, size: int) -> None:
    """Refuse a graph that is not `obs [N, size]` to `actions [N, 29]`, float32, with N open."""
    onnx = policy_files.need("onnx")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for values, name, width in ((inputs, "obs", size), (model.graph.output, "actions", A)):
        actual = {
            value.name: (
                value.type.tensor_type.elem_type,
                [dim.dim_value for dim in value.type.tensor_type.shape.dim],  # 0: open
            )
            for value in values
        }
        if actual != {name: (onnx.TensorProto.FLOAT, [0, width])}:
            shapes = ", ".join(f"{key} {shape}" for key, (_, shape) in actual.items()) or "none"
            raise PolicyError(
                f"the graph has {shapes}, expected {name} [0, {width}] of float32 alone, 0 being "
                "an open size."
            )
