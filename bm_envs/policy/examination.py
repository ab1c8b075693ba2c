"""Does a policy's file control, or does it remember? What a look at its graph says, in sentences.

A network that tracks a motion computes: every product of its layers depends smoothly on what the
robot senses. A look-up compares an observation with stored ones and plays what is stored beside
the one that fits. `examine` looks for signs of that in all that reaches `actions`, first in the
graph and then in what the graph does with observations of a run. The motion outputs, which are read
from tables at `time_step`, are lawful and are not looked at.

A sign is no proof. A graph can hold an unusual operator for a good reason, so a person decides. And
no examination sees everything: what remembers in a way that is not listed here is for the runs with
fresh seeds (`docs/submit.md`) to find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.policy.load import Policy
from bm_envs.policy.session import need, open_session, read_onnx, upstream
from bm_envs.robots.observation_terms import layout

# Operators by which values are compared or cut into steps.
COMPARES = frozenset(
    "Equal Greater GreaterOrEqual Less LessOrEqual Not And Or Xor IsNaN IsInf ArgMax ArgMin".split()
)
STEPS = frozenset("Round Floor Ceil Sign Mod".split())
READS = frozenset("Gather GatherElements GatherND".split())
PRODUCTS = frozenset("Gemm MatMul Conv Einsum GRU LSTM RNN".split())
LARGEST_NETWORK = 5_000_000  # constants; the largest tracker known has 1.5 million
WIDEST_VALUE = 16_384  # numbers that one node makes of an observation; known layers have 2048
DEAD_CONSTANTS = 1000  # numbers that no output needs; exporters leave a few
WIDE = 64  # units of a value from which on it may be a code with a unit for each stored case
FEW_UNITS = 4.0  # that speak at a time; trained layers have dozens
LOW_RANK = 8  # directions that a wide layer sees; trained layers use nearly all
# Changes of what the robot senses, in standard deviations of the run, and how the action answers.
# Trained networks are nearly linear over such changes.
SMALL, LARGE = 1e-3, 1e-1
LEAST_GAIN = 0.01  # change of the action, in its standard deviations, over that of the state
LINEAR = 5.0  # the two changes' answers are as their sizes, within this factor
SAMPLES = 48  # observations whose values inside the graph are kept


def examine(policy: Policy, obs: np.ndarray) -> list[str]:
    """Signs of a look-up in what reaches `actions`; none for an ordinary network.

    Args:
        policy: the policy.
        obs: observations of a run `[S, O]`, unscaled, in the policy's joint order, 2 or more.

    Returns:
        One short sentence a sign, without a full stop.

    Raises:
        PolicyError: the file cannot be read again.
    """
    model = read_onnx(policy.path)
    graph = _Graph(model, obs[np.linspace(0, len(obs) - 1, SAMPLES).astype(int)])
    found = [*graph.operators(), *graph.constants(), *graph.codes(), *_answers(policy, obs)]
    return list(dict.fromkeys(found))


def weights_of(path: Path) -> frozenset[str]:
    """SHA-256 of each layer's weights, whatever they and the file are called.

    Two policies that were trained have none in common. Arrays of 1000 numbers or more count, if
    they reach `actions` and do not hold one number throughout.

    Raises:
        PolicyError: the file cannot be read.
    """
    model = read_onnx(path)
    nodes, needed = upstream(model, "actions")
    return frozenset(
        hashlib.sha256(repr((array.dtype.str, array.shape)).encode() + array.tobytes()).hexdigest()
        for name, array in _arrays(model, nodes).items()
        if name in needed and array.dtype.kind == "f" and array.size >= 1000 and np.ptp(array) > 0
    )


def _arrays(model: Any, nodes: list[Any]) -> dict[str, np.ndarray]:
    """Constants of the graph by name: initializers, and outputs of `Constant`."""
    to_array = need("onnx").numpy_helper.to_array
    found = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    for node in nodes:
        if node.op_type != "Constant":
            continue
        for attribute in node.attribute:
            value = need("onnx").helper.get_attribute_value(attribute)
            found[node.output[0]] = (
                to_array(value) if attribute.name == "value" else np.asarray(value)
            )
    return found


class _Graph:
    """The part of a graph that reaches `actions`, with the values it has in some observations."""

    def __init__(self, model: Any, obs: np.ndarray) -> None:
        self._model = model
        self._nodes, self._needed = upstream(model, "actions")
        self._constants = _arrays(model, self._nodes)
        self._made = {"obs"}  # of the observation
        for node in self._nodes:
            if self._made & set(node.input):
                self._made |= set(node.output)
        self._values = self._run(obs)

    def _run(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        """Values of floats that are made of the observation, `[S, W]`.

        Row by row, as the file's batch may be 1. Others are added to the constants.
        """
        onnx = need("onnx")
        known = onnx.shape_inference.infer_shapes(self._model).graph
        float32 = onnx.TensorProto.FLOAT
        kinds = {v.name: v.type.tensor_type.elem_type for v in (*known.value_info, *known.output)}
        names = [
            name
            for node in self._nodes
            for name in node.output
            if name and kinds.get(name, float32) == float32
        ]
        probe = onnx.ModelProto()
        probe.CopyFrom(self._model)
        del probe.graph.output[:], probe.graph.node[:]
        probe.graph.node.extend(self._nodes)
        probe.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, float32, None) for name in names
        )
        inputs = [value for value in probe.graph.input if value.name != "time_step"]
        del probe.graph.input[:]
        probe.graph.input.extend(inputs)
        session = open_session(probe, 1)
        runs: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for row in np.asarray(obs, np.float32):
            for name, value in zip(names, session.run(names, {"obs": row[None]}), strict=True):
                if name in self._made:
                    runs[name].append(value.ravel()[: WIDEST_VALUE + 1])
                else:  # of constants alone, and so one itself
                    self._constants[name] = value
        return {name: np.stack(rows) for name, rows in runs.items() if rows}

    def operators(self) -> list[str]:
        """Operators that compare, cut into steps, or read a table by what was observed."""
        whole = {kind for name, kind in need("onnx").TensorProto.DataType.items()
                 if name.startswith(("INT", "UINT", "BOOL"))}  # fmt: skip
        found = []
        for node in self._nodes:
            made = [name in self._made for name in node.input]
            if not any(made):
                continue
            kind = node.op_type
            target = next((a.i for a in node.attribute if a.name == "to"), None)
            if kind in COMPARES or (kind == "Where" and made[0]):
                found.append(f"the operator {kind} compares what is made of the observation")
            elif kind in STEPS or (kind == "Cast" and target in whole):
                found.append(f"the operator {kind} cuts what is made of the observation into steps")
            elif kind in READS and made[1]:
                shape = self._shape(node.input[0])
                found.append(f"the operator {kind} reads a table{shape} by what was observed")
        return found

    def _shape(self, name: str) -> str:
        array = self._constants.get(name)
        return "" if array is None else f" of {' x '.join(map(str, array.shape)) or 1} numbers"

    def constants(self) -> list[str]:
        """Constants that no layer needs, or far more of them than a tracker has."""
        found = []
        for node in self._nodes:
            widths = [self._values[name].shape[1] for name in node.input if name in self._values]
            if "obs" in node.input:
                widths.append(self._width_of_obs())
            if node.op_type in PRODUCTS | READS or not widths:
                continue
            for name in node.input:
                array = self._constants.get(name)
                if array is not None and array.size > max(WIDE, *widths):
                    found.append(
                        f"the operator {node.op_type} lays a table{self._shape(name)} against "
                        f"{max(widths)} values of the observation"
                    )
        if any(values.shape[1] > WIDEST_VALUE for values in self._values.values()):
            found.append(f"a node makes more than {WIDEST_VALUE} values of an observation")
        total = sum(a.size for name, a in self._constants.items() if name in self._needed)
        if total > LARGEST_NETWORK:
            found.append(f"{total} constants reach actions, expected at most {LARGEST_NETWORK}")
        needed = set().union(*(upstream(self._model, o.name)[1] for o in self._model.graph.output))
        dead = sum(
            int(np.prod(tensor.dims))
            for tensor in self._model.graph.initializer if tensor.name not in needed
        )  # fmt: skip
        if dead > DEAD_CONSTANTS:
            found.append(f"{dead} constants are in the file that no output needs")
        return found

    def _width_of_obs(self) -> int:
        shape = next(v for v in self._model.graph.input if v.name == "obs").type.tensor_type.shape
        return shape.dim[-1].dim_value

    def codes(self) -> list[str]:
        """Values of which a unit or two speak at a time, and layers that see few directions."""
        found = []
        for node in self._nodes:
            for name in node.output:
                values = self._values.get(name)
                if values is None or values.shape[1] < WIDE:
                    continue
                units = _speaking(values)
                if units < FEW_UNITS:
                    found.append(
                        f"of the {values.shape[1]} values that {node.op_type} makes {units:.1f} "
                        "speak at a time, as of stored cases"
                    )
        for node in self._nodes:
            if node.op_type not in ("Gemm", "MatMul") or not self._made & set(node.input):
                continue
            for name in node.input[:2]:
                weight = self._constants.get(name)
                if weight is None or weight.ndim != 2 or min(weight.shape) < WIDE // 2:
                    continue
                if weight.size <= LARGEST_NETWORK and (rank := _rank(weight)) < LOW_RANK:
                    found.append(
                        f"a layer{self._shape(name)} looks in {rank} direction"
                        f"{'s' * (rank > 1)} only"
                    )
        return found


def _speaking(values: np.ndarray) -> float:
    """How many units of `[S, W]` are away from their usual value at a time; `inf` of none."""
    away = np.abs(values.astype(np.float64) - np.median(values, axis=0))
    spoken = away[away.sum(axis=1) > 1e-9]
    if not len(spoken):
        return np.inf
    return float(np.median(spoken.sum(axis=1) ** 2 / (spoken**2).sum(axis=1)))


def _rank(weight: np.ndarray) -> int:
    values = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    return int((values > 1e-4 * values[0]).sum())


def _answers(policy: Policy, obs: np.ndarray) -> list[str]:
    """How the action answers small changes of the observation, and of what the robot senses."""

    def act(observed: np.ndarray) -> np.ndarray:
        """In parts, as a table may make much of each observation."""
        parts = np.array_split(observed.astype(np.float32), -(-len(observed) // 32))
        return np.concatenate([policy(part) for part in parts]).astype(np.float64)

    spans = layout(policy.spec.observation_names, policy.spec.robot)
    rng = np.random.default_rng(0)
    base = act(obs)
    span = float(base.std(axis=0).max())
    anywhere = act(obs + rng.normal(0, 1, obs.shape))
    if span < 1e-6 and np.abs(anywhere - base).max() < 1e-6:
        return ["actions do not depend on the observation"]
    scale = obs.std(axis=0) + 1e-3
    groups: Mapping[str, list[str]] = {
        "what the robot senses": [name for name in spans if name not in ("command", "actions")],
        "the observation": list(spans),
    }
    found = []
    for words, names in groups.items():
        if not names:
            found.append(f"actions do not depend on {words}")
            continue
        columns = np.concatenate([np.arange(spans[n].start, spans[n].stop) for n in names])
        signs = rng.choice((-1.0, 1.0), size=(len(obs), len(columns)))
        answers = []
        for size in (SMALL, LARGE):
            changed = obs.astype(np.float64)
            changed[:, columns] += size * scale[columns] * signs
            answers.append(float(np.sqrt(((act(changed) - base) ** 2).mean())) / size)
        small, large = answers
        overall = float(np.sqrt(base.var(axis=0).mean())) + 1e-9
        if max(small, large) < LEAST_GAIN * overall:
            found.append(f"actions do not depend on {words}")
        elif not large / LINEAR < small < large * LINEAR:
            found.append(f"actions jump, or stay, where {words} changes a little")
    return found
