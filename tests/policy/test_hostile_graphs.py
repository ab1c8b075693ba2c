"""Policy files that ask for hours or gigabytes, or that lie: refused within seconds, one sentence.

A child process loads them all and tells time and memory, so that a file which gets through cannot
take the tests along.
"""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import hostile_graphs
import numpy as np
import onnx
import pytest
from hostile_limits import SECONDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from policy_files import make_clip, make_mlp

from bm_envs.diffusion.model import load_model
from bm_envs.errors import PolicyError
from bm_envs.policy import (
    TRACKER,
    PolicySpec,
    graph,
    load_policy,
    read_onnx,
    shipped_files,
    write_onnx,
)

HERE = Path(__file__).resolve().parents[1]  # of `process_memory`
MEBIBYTES = 1024  # what one file of a megabyte may take
CHILD = """
import json, sys, time
from bm_envs.errors import PolicyError
from bm_envs.policy import load_policy
from process_memory import memory
load_policy(sys.argv[1]).motion  # imports are not the files' doing
for path in sys.stdin.read().split():
    start = time.process_time()
    try:
        load_policy(path).motion
        told = None
    except PolicyError as error:
        told = str(error)
    used = memory("VmHWM") / 2**20
    print(json.dumps([path, told, time.process_time() - start, used]), flush=True)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.onnx"
    write_onnx(path, make_mlp(hidden=(8,)), PolicySpec.for_g1(), make_clip(5))
    return path


@pytest.fixture(scope="module")
def loaded(good, tmp_path_factory):
    """What the child says of each case: sentence or None, seconds, peak memory so far in MiB."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for name in hostile_graphs.CASES:
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(hostile_graphs.build(good, name))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(good)], input="\n".join(map(str, paths.values())),
        capture_output=True, text=True, timeout=300, cwd=HERE,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = {Path(path).stem: rest for path, *rest in lines}
    assert done.returncode == 0, (done.stderr, list(told)[-1:])
    return told


@pytest.mark.parametrize("name", hostile_graphs.CASES)
def test_a_graph_that_asks_for_too_much(loaded, name):
    told, seconds, memory = loaded[name]
    if name in hostile_graphs.HARMLESS:
        assert told is None
    else:
        assert told is not None, "was loaded"
        assert f"{name}.onnx: " in told and told.endswith(".") and told.isprintable()
        assert len(told) < 500
    assert seconds < SECONDS and memory < MEBIBYTES


# --- what it costs, against counting by hand ---


def model_of(nodes, inputs, outputs, constants=()):
    make = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [make(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [make(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.array(v, k), n) for n, v, k in constants],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_count_of_a_known_network():
    """A tracker's layers: the products of their sizes, and each weight read once."""
    model = read_onnx(Path(shipped("walk")))
    costs = graph.check_bounds(onnx, model)
    layers = [model_node for model_node in model.graph.node if model_node.op_type == "Gemm"]
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    by_hand = sum(2 * np.prod(weights[layer.input[1]]) for layer in layers)
    counted = sum(costs[layer.output[0]] for layer in layers)
    assert by_hand <= counted <= 1.02 * by_hand  # biases and inputs are read, too


def shipped(name):
    from bm_envs.policy import SHIPPED

    return SHIPPED / f"{name}.onnx"


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_shapes_are_those_that_the_runtime_makes(data):
    """A second implementation: every value of a random graph has the shape that was told."""
    rng = data.draw(st.randoms(use_true_random=False))
    nodes, constants, values = [], [], ["x"]
    rows, columns = rng.randint(1, 4), rng.randint(1, 6)
    shape = {"x": (rows, columns)}
    for i in range(rng.randint(1, 8)):
        kind = rng.choice(["Relu", "MatMul", "Add", "Concat", "Transpose", "Reshape", "Tile",
                           "Slice", "Expand", "Gather", "ReduceSum"])  # fmt: skip
        a, out = rng.choice(values), f"v{i}"
        r, c = shape[a]
        extra = {}
        if kind == "MatMul":
            k = rng.randint(1, 5)
            constants.append((f"w{i}", np.ones((c, k)), np.float32))
            inputs, shape[out] = [a, f"w{i}"], (r, k)
        elif kind == "Add":
            constants.append((f"w{i}", np.ones((1, c)), np.float32))
            inputs, shape[out] = [a, f"w{i}"], (r, c)
        elif kind == "Concat":
            inputs, shape[out], extra = [a, a], (r, 2 * c), {"axis": 1}
        elif kind == "Transpose":
            inputs, shape[out] = [a], (c, r)
        elif kind == "Reshape":  # by a size that is computed of the value's own
            nodes.append(helper.make_node("Shape", [a], [f"s{i}"]))
            constants.append((f"i{i}", [1, 0], np.int64))
            nodes.append(helper.make_node("Gather", [f"s{i}", f"i{i}"], [f"t{i}"]))
            inputs, shape[out] = [a, f"t{i}"], (c, r)
        elif kind in ("Tile", "Expand"):
            n = rng.randint(1, 3)
            values_of = [n, 1] if kind == "Tile" else [n if r == 1 else r, c]
            constants.append((f"n{i}", values_of, np.int64))
            inputs = [a, f"n{i}"]
            shape[out] = (n * r, c) if kind == "Tile" else (n if r == 1 else r, c)
        elif kind == "Slice":
            end = rng.randint(1, c)
            for name, value in (("b", [0]), ("e", [end]), ("d", [1])):
                constants.append((f"{name}{i}", value, np.int64))
            inputs, shape[out] = [a, f"b{i}", f"e{i}", f"d{i}"], (r, end)
        elif kind == "Gather":
            n = rng.randint(1, 4)
            constants.append((f"g{i}", [0] * n, np.int64))
            inputs, shape[out] = [a, f"g{i}"], (n, c)
        elif kind == "ReduceSum":
            constants.append((f"x{i}", [1], np.int64))
            inputs, shape[out] = [a, f"x{i}"], (r, 1)
        else:
            inputs, shape[out] = [a], (r, c)
        nodes.append(helper.make_node(kind, inputs, [out], **extra))
        values.append(out)
    model = model_of(nodes, {"x": [rows, columns]}, values[1:], constants)
    told, _ = graph._shapes(onnx, model, 1)
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {"x": np.ones((rows, columns), np.float32)})
    for name, value in zip(values[1:], found, strict=True):
        assert told[name] == value.shape == shape[name]
    assert graph.check_bounds(onnx, model).keys() >= set(values[1:])


def test_einsum_counts_all_letters():
    equation = helper.make_node("Einsum", ["x", "x"], ["y"], equation="ab,cb->ac")
    model = model_of([equation], {"x": [7, 11]}, ["y"])
    assert graph.check_bounds(onnx, model)["y"] == 7 * 7 * 11 + 2 * 77


# --- what must load ---


def test_what_ships_is_far_below_the_bounds():
    for path in shipped_files(TRACKER).values():
        costs = graph.check_bounds(onnx, read_onnx(path))
        assert sum(costs.values()) < graph.MAX_TRACKER_OPERATIONS / 100
    for name in ("guided_body_pos", "guided_joint_rot"):
        load_model(name)
        model = read_onnx(shipped(name).with_suffix("") / "denoiser.onnx", open_size=20)
        costs = graph.check_bounds(onnx, model, open_size=20)
        assert 1e7 < sum(costs.values()) < graph.MAX_OPERATIONS / 10


# --- weights in other files ---


def external(good, path, name, *, tensors=1, dims=(100,), **details):
    model = onnx.load(good)
    for i in range(tensors):
        tensor = TensorProto(name=f"far_{i}", data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in ({"location": name} | details).items():
            tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret", "sub/../../secret", "missing", "", ".", "..", "link",
             "fifo", "a\0b", "x" * 5000, "/dev/zero", "~/x", "folder"],
)  # fmt: skip
def test_weights_elsewhere(good, tmp_path, name):
    import os

    (tmp_path / "secret").write_bytes(bytes(400))
    folder = tmp_path / "policy"
    (folder / "folder").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "fifo")
    external(good, folder / "p.onnx", name)
    with pytest.raises(PolicyError) as caught:
        load_policy(folder / "p.onnx")
    assert str(caught.value).startswith(f"{folder / 'p.onnx'}: ")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_one_file_read_a_thousand_times(good, tmp_path):
    """5000 weights of a megabyte each, all from the same megabyte."""
    (tmp_path / "data").write_bytes(bytes(10**6))
    external(good, tmp_path / "p.onnx", "data", tensors=5000, dims=(250_000,))
    assert (tmp_path / "p.onnx").stat().st_size < 10**6
    with pytest.raises(PolicyError, match=r"take 5.0e\+09 bytes, but the files .* hold 1.0e\+06"):
        load_policy(tmp_path / "p.onnx")
    for details in ({"offset": 10**12}, {"length": 10**12}, {"offset": -5}, {"length": "x"},
                    {"offset": "9" * 5000}):  # fmt: skip
        external(good, tmp_path / "p.onnx", "data", **details)
        with pytest.raises(PolicyError) as caught:
            load_policy(tmp_path / "p.onnx")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 500


# --- any bytes ---


@given(st.data())
@settings(
    max_examples=80, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_damaged_files_load_or_give_one_sentence(good, tmp_path, data):
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "repeat", "insert"]))
        if kind == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 40))]
        elif kind == "repeat":
            content[place:place] = content[place : place + data.draw(st.integers(1, 40))]
        else:
            content[place:place] = data.draw(st.binary(min_size=1, max_size=12))
        if not content:
            return
    path = tmp_path / "p.onnx"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_policy(path).motion  # noqa: B018
        except PolicyError as error:
            assert "\n" not in str(error) and str(error).startswith(str(tmp_path))


# --- the other kinds of networks go through the same door ---

APART = [
    "matmul_chain_that_nothing_needs", "loop_of_constants_that_nothing_needs", "sparse_weights",
    "hundred_thousand_operators", "four_hundred_thousand_empty_operators", "one_function",
]  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_a_diffusion_model_that_asks_for_too_much(tmp_path, name):
    model = onnx.load(shipped("guided_body_pos").with_suffix("") / "denoiser.onnx")
    try:
        hostile_graphs.CASES[name](model)
    except (IndexError, onnx.checker.ValidationError):  # a case that needs the tracker's outputs
        pytest.fail(f"{name} does not stand alone")
    (tmp_path / "denoiser.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PolicyError, match="the (graph|network) ") as caught:
        load_model(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stiffness", "[1e9" + ", 1.0" * 28 + "]"), ("action_scale", "[0" + ", 1.0" * 28 + "]"),
        ("damping", "[true" + ", 1.0" * 28 + "]"), ("stiffness", "[" * 10**5), ("stiffness", "{}"),
        ("damping", "[" + "9" * 400 + "]"), ("default_joint_pos", "[NaN]"), ("damping", "null"),
        ("action_scale", "[" + "1," * 10**5 + "1]"), ("joint_names", "a," * 10**5),
        ("representation", "x" * 10**6), ("format", "bm-envs policy 1"),
    ],
)  # fmt: skip
def test_metadata_of_a_diffusion_model(tmp_path, key, value):
    model = onnx.load(shipped("guided_body_pos").with_suffix("") / "denoiser.onnx")
    entries = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    helper.set_model_props(model, entries)
    (tmp_path / "denoiser.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PolicyError) as caught:
        load_model(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "/dev/stdin", "../walk.csv", "a/../../walk", "a\0b", "walk\n", "/dev/zero"],
)
def test_a_policy_that_names_a_path_as_its_motion(good, tmp_path, name):
    from bm_envs.evaluation import motions_of

    write_onnx(tmp_path / "p.onnx", make_mlp(hidden=(8,)), PolicySpec.for_g1(), None)
    model = onnx.load(tmp_path / "p.onnx")
    model.metadata_props.add(key="motion_name", value=name)
    (tmp_path / "p.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        PolicyError, match="expected a name of the library; give --motion"
    ) as caught:
        motions_of(load_policy(tmp_path / "p.onnx"))
    assert str(caught.value).isprintable()
