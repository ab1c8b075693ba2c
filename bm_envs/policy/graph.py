"""What a foreign ONNX graph may cost, computed before it is run.

A file of a few hundred bytes can ask for hours: a chain of large matrix products over a constant, a
loop, a tensor of ten gigabytes that one operator makes of a number. A runtime starts on some of it
when the file is opened. So a graph is read as data first: `check_bounds` refuses what no policy
network holds (control flow, functions, operators that are not in `OPERATORS`), computes the size of
every value from the graph alone, and adds up multiplications and bytes. A graph whose sizes depend
on its values is refused, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli import shortened
from bm_envs.errors import PolicyError

MAX_NODES = 4000  # a transformer of 8 layers exports as about 400
# Multiplications of one call. A core does about 10^10 a second. The shipped denoiser takes 8e7, a
# denoiser of 20 million weights 10^9 and the largest known tracker 1.5e6. Loading a policy calls it
# about ten times.
MAX_OPERATIONS = 4 * 10**9
MAX_TRACKER_OPERATIONS = 2 * 10**8
MAX_BYTES = 2**28  # bytes of all values that one call makes, as if no memory were freed
MAX_FOLDED = 4096  # elements of a value from which sizes are computed
MAX_EVALUATIONS = 500  # operators that compute sizes; the shipped denoiser has 30
# Rounds of inference; the shipped denoiser needs 3, the published size, 6 layers, some more.
MAX_ROUNDS = 32

# Operators of policy networks, and what an element of their output costs beside a multiplication.
# Left out on purpose: those with a graph inside, random and sequence operators, and those whose
# output's size depends on values alone (NonZero, Unique, Compress, Resize, ...).
_CHEAP = (
    "Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape Div DepthToSpace "
    "Dropout Equal Expand Flatten Floor Gather GatherElements GatherND Greater GreaterOrEqual "
    "Identity LeakyRelu Less LessOrEqual Max Mean Min Mod Mul Neg Not Or PRelu Pad Range "
    "Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare ReduceL1 "
    "ReduceL2 Relu Reshape Round Shape Sign Size Slice Split Sqrt Squeeze Sub Sum "
    "ThresholdedRelu Tile Transpose Trilu Unsqueeze Where Xor"
).split()
_COSTLY = (
    "ArgMax ArgMin BatchNormalization Celu Cos CumSum Elu Erf Exp Gelu GroupNormalization "
    "HardSigmoid HardSwish InstanceNormalization IsInf IsNaN LayerNormalization Log LogSoftmax "
    "LpNormalization Mish Pow RMSNormalization ReduceLogSumExp Selu Sigmoid Sin Softmax Softplus "
    "Softsign Swish Tan Tanh"
).split()
# Operators that read no more of their inputs than they write.
_PICKS = frozenset(
    "Constant ConstantOfShape Expand Gather GatherElements GatherND Range Shape Size Slice "
    "Tile".split()
)
_PRODUCTS = ("Conv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
OPERATORS = {
    **dict.fromkeys(_CHEAP, 1), **dict.fromkeys(_COSTLY, 20), **dict.fromkeys(_PRODUCTS, 1),
}  # fmt: skip
# Operators by which exporters compute sizes; small values of them are computed here.
_SIZE_OPERATORS = frozenset(
    "Abs Add And Cast Ceil Concat Div Equal Floor Gather Greater Identity Less Max Min Mod Mul Neg "
    "Not Or ReduceMax ReduceMin ReduceProd ReduceSum Reshape Size Slice Split Squeeze Sub "
    "Transpose Unsqueeze Where".split()
)

Shape = tuple[int, ...]


def check_structure(onnx: Any, model: Any) -> None:
    """Refuse what no policy network holds, by a look at each node; before anything else is done.

    Raises:
        PolicyError: a function, control flow, or an operator that is not in `OPERATORS`.
    """
    if model.functions:
        raise PolicyError(f"the graph defines {len(model.functions)} functions, expected none.")
    if len(model.graph.node) > MAX_NODES:
        raise PolicyError(
            f"the graph holds {len(model.graph.node)} operators, expected at most {MAX_NODES}."
        )
    if model.graph.sparse_initializer:
        raise PolicyError("the graph holds sparse weights, expected dense ones.")
    kinds = onnx.AttributeProto
    for node in model.graph.node:
        name = shortened(node.op_type, 60)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise PolicyError(f"the graph holds the control-flow operator {name}, expected none.")
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain or node.op_type not in OPERATORS:
            where = f" of the domain '{shortened(domain, 60)}'" if domain else ""
            raise PolicyError(
                f"the graph holds the operator '{name}'{where}, which is none of the "
                f"{len(OPERATORS)} that policy networks are made of."
            )
        if any(a.HasField("sparse_tensor") or a.type == kinds.TYPE_PROTO for a in node.attribute):
            raise PolicyError(f"the operator {name} holds a sparse tensor or a type.")


def check_external(onnx: Any, model: Any, folder: Path) -> None:
    """Refuse weights beside the file that are not there, or that are read several times over.

    A few bytes can name the same file a thousand times, so their sum is held to what the folder
    holds. Where a name leads is the loader's to check.

    Raises:
        PolicyError: a name leads to no file, or the weights are more than the files hold.
    """
    kept = onnx.external_data_helper
    attributes = (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))
    needed, sizes = 0, {}
    for tensor in (*model.graph.initializer, *attributes):
        if not kept.uses_external_data(tensor):
            continue
        name = next((e.value for e in tensor.external_data if e.key == "location"), "")
        if name not in sizes:
            # No file has a name with a NUL, or one that is longer than names may be.
            try:
                sizes[name] = (folder / name).stat().st_size if (folder / name).is_file() else -1
            except (OSError, ValueError):
                sizes[name] = -1
            if sizes[name] < 0:
                raise PolicyError(
                    f"its weights are in '{shortened(name, 60)}', expected that file beside it."
                )
        elements = math.prod(max(0, size) for size in tensor.dims)
        needed += max(1, elements * _element_bytes(onnx, tensor.data_type))
    if needed > sum(sizes.values()):
        raise PolicyError(
            f"its weights take {_power(needed)} bytes, but the files beside it that it names hold "
            f"{_power(sum(sizes.values()))}."
        )


def check_bounds(
    onnx: Any, model: Any, *, open_size: int = 1, most: int = MAX_OPERATIONS
) -> dict[str, int]:
    """Refuse a graph that asks for more operations than `most`, or more memory than `MAX_BYTES`.

    Args:
        onnx: the package.
        model: with all weights in memory; `check_structure` has passed it.
        open_size: for dimensions of inputs that the graph leaves open, but for the first, which is
            the number of robots and taken as 1.
        most: operations of one call.

    Returns:
        For each value the operations of the node that makes it.

    Raises:
        PolicyError: it does, or its sizes cannot be told.
    """
    shapes, kinds = _shapes(onnx, model, open_size)
    costs: dict[str, int] = {}
    operations = bytes_made = 0
    for node in model.graph.node:
        made = [name for name in node.output if name]
        for name in made:
            if name not in shapes:
                raise PolicyError(
                    f"the size of '{shortened(name, 60)}', which {node.op_type} makes, cannot be "
                    "told from the graph; expected sizes that do not depend on values."
                )
        count = sum(math.prod(shapes[name]) for name in made)
        size = sum(math.prod(shapes[name]) * kinds.get(name, 8) for name in made)
        work = _operations(node, shapes, count)
        operations, bytes_made = operations + work, bytes_made + size
        for name in made:
            costs[name] = work
    if operations > most:
        raise PolicyError(
            f"the network takes about {_power(operations)} operations a call, expected at most "
            f"{_power(most)}."
        )
    if bytes_made > MAX_BYTES:
        raise PolicyError(
            f"the network makes values of about {_power(bytes_made)} bytes in a call, expected at "
            f"most {_power(MAX_BYTES)}."
        )
    return costs


def _power(count: int) -> str:
    """A whole number of any size with two digits."""
    text = str(count) if count < 10**30 else "1" + "0" * 30
    return f"{float(text):.1e}"


def _operations(node: Any, shapes: Mapping[str, Shape], count: int) -> int:
    """About how many multiplications a node takes; never fewer, up to a small factor."""
    inputs = [shapes.get(name, ()) for name in node.input if name]
    taken = sum(math.prod(shape) for shape in inputs)
    kind = node.op_type
    if kind in _PICKS:
        return count
    attributes = {a.name: a for a in node.attribute}
    if kind == "MatMul":
        return count * (inputs[0][-1] if inputs and inputs[0] else 1) + taken
    if kind == "Gemm":
        transposed = "transA" in attributes and attributes["transA"].i
        depth = inputs[0][0 if transposed else -1] if inputs and inputs[0] else 1
        return count * depth + taken
    if kind == "Conv":
        weight = inputs[1] if len(inputs) > 1 else ()
        return count * math.prod(weight[1:]) + taken
    if kind == "Einsum":
        return _einsum(attributes, inputs) + taken
    if kind in ("GRU", "LSTM", "RNN"):
        steps = math.prod(inputs[0][:2]) if inputs else 1
        return steps * sum(math.prod(shape) for shape in inputs[1:]) + count + taken
    return OPERATORS[kind] * (count + taken)


def _einsum(attributes: Mapping[str, Any], inputs: list[Shape]) -> int:
    """The product of all sizes that the equation's letters stand for."""
    equation = (
        attributes["equation"].s.decode("ascii", "replace") if "equation" in attributes else ""
    )
    sizes: dict[str, int] = {}
    rest = 1
    for term, shape in zip(equation.partition("->")[0].split(","), inputs, strict=False):
        letters = term.replace(" ", "")
        if "." in letters:  # an ellipsis counts as if the inputs shared none of its sizes
            rest *= math.prod(shape)
        else:
            sizes |= {a: max(n, sizes.get(a, 1)) for a, n in zip(letters, shape, strict=False)}
    return rest * math.prod(sizes.values())


def _shapes(onnx: Any, model: Any, open_size: int) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shape of every value whose shape follows from the graph, and the bytes of one element.

    ONNX's own inference does it, on a copy without the weights' numbers. What it does not follow
    are sizes that a graph computes of sizes, as exporters write them; those few small values are
    computed here, and it is asked again.
    """
    skeleton, known = _skeleton(onnx, model, open_size)
    shapes: dict[str, Shape] = {}
    kinds: dict[str, int] = {}
    for _ in range(MAX_ROUNDS):
        try:
            inferred = onnx.shape_inference.infer_shapes(
                skeleton, check_type=True, strict_mode=True, data_prop=False
            )
        except Exception as error:  # of several classes, for a graph that contradicts itself
            raise PolicyError(f"the graph's sizes do not fit ({shortened(str(error))}).") from None
        shapes, kinds = {}, {}
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
            tensor = value.type.tensor_type
            sizes = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            if tensor.HasField("shape") and min(sizes, default=0) >= 0:
                shapes[value.name] = sizes
                kinds[value.name] = _element_bytes(onnx, tensor.elem_type)
        for tensor in skeleton.graph.initializer:
            shapes[tensor.name] = tuple(tensor.dims)
        if not _fold(onnx, skeleton, shapes, known):
            return shapes, kinds
    return shapes, kinds


def _skeleton(onnx: Any, model: Any, open_size: int) -> tuple[Any, dict[str, np.ndarray]]:
    """A model of the same nodes whose large weights are inputs, and its small constants.

    Sizes that the file itself tells of what is between are left out: nobody checks them.
    """
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    graph, known = skeleton.graph, {}
    graph.name = "skeleton"
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        graph.input.add().CopyFrom(value)
        for axis, dim in enumerate(graph.input[-1].type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_value = open_size if axis else 1
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MAX_FOLDED and tensor.data_type != onnx.TensorProto.STRING:
            graph.initializer.add().CopyFrom(tensor)
            known[tensor.name] = onnx.numpy_helper.to_array(tensor)
        else:
            make = onnx.helper.make_tensor_value_info
            graph.input.append(make(tensor.name, tensor.data_type, list(tensor.dims)))
    for node in model.graph.node:
        constant = next(
            (a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None
        )
        if node.op_type != "Constant":
            graph.node.add().CopyFrom(node)
        elif constant is None:  # numbers and lists of them
            graph.node.add().CopyFrom(node)
            for a in node.attribute:
                if a.name in ("value_int", "value_ints", "value_float", "value_floats"):
                    kind = np.int64 if "int" in a.name else np.float32
                    known[node.output[0]] = np.array(onnx.helper.get_attribute_value(a), kind)
        elif math.prod(constant.dims) <= MAX_FOLDED:
            graph.node.add().CopyFrom(node)
            if constant.data_type != onnx.TensorProto.STRING:
                known[node.output[0]] = onnx.numpy_helper.to_array(constant)
        else:
            make = onnx.helper.make_tensor_value_info
            graph.input.append(make(node.output[0], constant.data_type, list(constant.dims)))
    for value in model.graph.output:
        graph.output.add().CopyFrom(value)
        graph.output[-1].type.tensor_type.ClearField("shape")
    return skeleton, known


def _fold(
    onnx: Any, skeleton: Any, shapes: Mapping[str, Shape], known: dict[str, np.ndarray]
) -> bool:
    """Compute the small values that sizes are made of; returns whether there was a new one.

    Each becomes a constant of the skeleton in place of the node that made it.
    """
    rest, changed, evaluations = [], False, 0
    for node in skeleton.graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type == "Shape" and node.input[0] in shapes:
            first, last = 0, None
            for a in node.attribute:
                first, last = (a.i, last) if a.name == "start" else (first, a.i)
            values = [np.array(shapes[node.input[0]][first:last], np.int64)]
        elif (
            node.op_type in _SIZE_OPERATORS
            and all(name in known for name in inputs)
            # No output of these has more elements than its inputs' product.
            and math.prod(max(1, known[name].size) for name in inputs) <= MAX_FOLDED
        ):
            evaluations += 1
            if evaluations > MAX_EVALUATIONS:
                raise PolicyError(
                    f"the graph computes its sizes in more than {MAX_EVALUATIONS} operators."
                )
            values = _evaluate(onnx, skeleton, node, {name: known[name] for name in inputs})
        else:
            values = None
        if values is None or len(values) != len(node.output):
            rest.append(node)
            continue
        changed = True
        for name, value in zip(node.output, values, strict=True):
            known[name] = np.asarray(value)
            skeleton.graph.initializer.append(onnx.numpy_helper.from_array(known[name], name))
    if changed:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in rest]
        del skeleton.graph.node[:]
        skeleton.graph.node.extend(kept)
    return changed


def _evaluate(
    onnx: Any, skeleton: Any, node: Any, values: Mapping[str, np.ndarray]
) -> list[np.ndarray] | None:
    """Outputs of one node for small inputs, by ONNX's reference implementation; None: it cannot."""
    from onnx.reference import ReferenceEvaluator

    make = onnx.helper.make_tensor_value_info
    kinds = onnx.helper.np_dtype_to_tensor_dtype
    inputs = [make(n, kinds(v.dtype), list(v.shape)) for n, v in values.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", inputs, outputs),
        opset_imports=list(skeleton.opset_import),
    )
    try:
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(model).run(None, dict(values))
            return results
    except Exception:  # of many classes: the size stays unknown, and the graph is refused
        return None


def _element_bytes(onnx: Any, kind: int) -> int:
    try:
        return max(1, onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError, ValueError):
        return 8
