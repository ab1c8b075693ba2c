"""Open an ONNX file: its checked graph, parts of the graph, and a session of the runtime.

`onnx`, `onnxruntime` and `torch` are imported when a function needs them. Nothing here runs code
from a file: graphs with loops, branches or operators that the runtime does not ship are refused.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from bm_envs.cli import shortened
from bm_envs.errors import PolicyError
from bm_envs.policy import graph as graph_files


def read_onnx(path: Path, *, open_size: int = 1, most: int = graph_files.MAX_OPERATIONS) -> Any:
    """The parsed graph with all weights in memory, checked for what this family never holds.

    Nothing is run, and what running it may cost is bounded; see `graph`.

    Args:
        path: the file.
        open_size: for sizes of inputs that the graph leaves open, but for the first.
        most: operations of one call.

    Raises:
        PolicyError: no such file, unreadable, or a graph that no policy has.
    """
    onnx = need("onnx")
    if not path.is_file() or path.stat().st_size >= 2**31:
        raise PolicyError(f"{path}: not a regular file of less than 2 GiB.")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        graph_files.check_structure(onnx, model)
        graph_files.check_external(onnx, model, path.parent)
        # This refuses locations outside the file's folder.
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
        graph_files.check_bounds(onnx, model, open_size=open_size, most=most)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None
    except Exception as error:  # protobuf, onnx and the system raise many kinds for a bad file
        raise PolicyError(f"{path}: not a readable ONNX model ({first_line(error)}).") from None
    return model


def open_session(model: Any, threads: int) -> Any:
    """A runtime session on the CPU, silent about its warnings."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise PolicyError(f"the runtime refuses the graph ({first_line(error)}).") from None


def upstream(model: Any, output: str) -> tuple[list[Any], set[str]]:
    """The nodes that `output` depends on, in graph order, and all value names they read."""
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    return nodes[::-1], needed


def actions_graph(model: Any) -> Any:
    """The part of the graph between `obs` and `actions`, with an open batch dimension."""
    onnx = need("onnx")
    nodes, needed = upstream(model, "actions")
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    float32, make = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    size = next(v for v in model.graph.input if v.name == "obs").type.tensor_type.shape.dim[1]
    joints = next(v for v in model.graph.output if v.name == "actions").type.tensor_type.shape
    joints = joints.dim[1].dim_value
    graph = onnx.helper.make_graph(
        nodes, "actions", [make("obs", float32, ["N", size.dim_value])],
        [make("actions", float32, ["N", joints])], weights,
    )  # fmt: skip
    batch = onnx.ModelProto()
    batch.CopyFrom(model)
    batch.graph.CopyFrom(graph)
    return batch


def constant_shapes(model: Any, output: str) -> list[tuple[int, ...]]:
    """Shapes of the constants that `output` is computed from."""
    nodes, needed = upstream(model, output)
    shapes = [tuple(t.dims) for t in model.graph.initializer if t.name in needed]
    for node in nodes:
        if node.op_type == "Constant":
            shapes += [tuple(a.t.dims) for a in node.attribute if a.name == "value"]
    return shapes


def need(package: str) -> Any:
    """Import a package that only policy files need."""
    try:
        return importlib.import_module(package)
    except ImportError:
        extra = "train" if package == "torch" else "deploy"
        raise PolicyError(
            f"Policy files need the package {package}: pip install 'bm-envs[{extra}]'."
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, shortened; its class where it has none."""
    return shortened(str(error)) or type(error).__name__
