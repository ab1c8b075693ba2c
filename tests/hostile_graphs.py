"""ONNX files that ask for hours, gigabytes or more than a policy may do; small, made from scratch.

`CASES` maps a name to a function that changes a sound policy (160 values in, 29 out). All but those
in `HARMLESS` must be refused.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CASES = {}
HARMLESS = set()


def case(function):
    CASES[function.__name__] = function
    return function


def harmless(function):
    HARMLESS.add(function.__name__)
    return case(function)


def constant(model, name, value, kind=None):
    array = np.array(value, kind or (np.float32 if np.asarray(value).dtype.kind == "f" else None))
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def node(model, kind, inputs, outputs, **attributes):
    domain = attributes.pop("domain", "")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    model.graph.node.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
    return outputs[0]


def add_to_actions(model, value):
    """`value`, of any shape, becomes part of every action."""
    for item in model.graph.node:
        if list(item.output) == ["actions"]:
            item.output[0] = "plain_actions"
    total = node(model, "ReduceMax", [value], "hostile_total", keepdims=0)
    node(model, "Add", ["plain_actions", total], "actions")


def filled(model, name, shape):
    """A matrix of zeros of any size in a few bytes."""
    return node(model, "ConstantOfShape", [constant(model, f"{name}_shape", shape, np.int64)], name)


def chain(model, start, size, count):
    value = start
    for i in range(count):
        value = node(model, "MatMul", [value, start], f"product_{size}_{i}")
    return value


@case
def matmul_chain(model):
    add_to_actions(model, chain(model, filled(model, "big", [2000, 2000]), 2000, 50))


@case
def matmul_chain_that_nothing_needs(model):
    chain(model, filled(model, "big", [2000, 2000]), 2000, 50)


@case
def matmul_chain_of_the_observation(model):
    wide = node(model, "Tile", ["obs", constant(model, "n", [4000, 25], np.int64)], "wide")
    tall = node(model, "Transpose", [wide], "tall")
    square = node(model, "MatMul", [wide, tall], "square")
    add_to_actions(model, chain(model, square, 4000, 20))


@case
def one_huge_matmul(model):
    big = filled(model, "big", [30000, 30000])
    add_to_actions(model, node(model, "MatMul", [big, big], "product"))


@case
def outer_product_of_the_observation(model):
    value = "obs"
    for i in range(4):
        shape = constant(model, f"column_{i}", [-1, 1], np.int64)
        row = constant(model, f"row_{i}", [1, -1], np.int64)
        column = node(model, "Reshape", [value, shape], f"c_{i}")
        line = node(model, "Reshape", ["obs", row], f"r_{i}")
        value = node(model, "MatMul", [column, line], f"outer_{i}")
    add_to_actions(model, value)


@case
def gemm_bomb(model):
    big = filled(model, "big", [20000, 20000])
    add_to_actions(model, node(model, "Gemm", [big, big], "product", transA=1))


@case
def batched_matmul(model):
    big = filled(model, "big", [64, 64, 256, 256])
    add_to_actions(model, node(model, "MatMul", [big, big], "product"))


@case
def constant_of_shape_bomb(model):
    add_to_actions(model, filled(model, "big", [10**5, 10**5]))


@case
def constant_of_shape_overflow(model):
    add_to_actions(model, filled(model, "big", [2**40, 2**40, 2**40]))


@case
def constant_of_a_shape_that_the_observation_tells(model):
    total = node(model, "ReduceSum", ["obs"], "sum", keepdims=0)
    count = node(model, "Cast", [total], "count", to=I64)
    shape = node(model, "Unsqueeze", [count, constant(model, "zero", [0], np.int64)], "shape")
    add_to_actions(model, node(model, "ConstantOfShape", [shape], "big"))


@case
def expand_bomb(model):
    add_to_actions(
        model, node(model, "Expand", ["obs", constant(model, "s", [10**7, 160], np.int64)], "big")
    )


@case
def tile_bomb(model):
    add_to_actions(
        model, node(model, "Tile", ["obs", constant(model, "s", [10**7, 100], np.int64)], "big")
    )


@case
def range_bomb(model):
    ends = [constant(model, n, v, np.int64) for n, v in (("a", 0), ("b", 10**11), ("c", 1))]
    values = node(model, "Range", ends, "whole")
    add_to_actions(model, node(model, "Cast", [values], "big", to=F))


@case
def pad_bomb(model):
    pads = constant(model, "pads", [0, 0, 10**6, 10**6], np.int64)
    add_to_actions(model, node(model, "Pad", ["obs", pads], "big"))


@case
def concat_doubling(model):
    value = "obs"
    for i in range(40):
        value = node(model, "Concat", [value, value], f"double_{i}", axis=0)
    add_to_actions(model, value)


@case
def add_broadcast_bomb(model):
    a, b = filled(model, "a", [100000, 1]), filled(model, "b", [1, 100000])
    add_to_actions(model, node(model, "Add", [a, b], "big"))


@case
def gather_bomb(model):
    index = filled(model, "index_f", [40000, 40000])
    index = node(model, "Cast", [index], "index", to=I64)
    add_to_actions(model, node(model, "Gather", ["obs", index], "big", axis=1))


@case
def einsum_bomb(model):
    add_to_actions(
        model, node(model, "Einsum", ["obs"] * 5, "big", equation="ab,cd,ef,gh,ij->bdfhj")
    )


@case
def einsum_that_sums(model):
    add_to_actions(
        model, node(model, "Einsum", ["obs"] * 6, "big", equation="ab,cd,ef,gh,ij,kl->a")
    )


@case
def conv_bomb(model):
    image, weight = filled(model, "image", [1, 64, 400, 400]), filled(model, "w", [64, 64, 99, 99])
    add_to_actions(model, node(model, "Conv", [image, weight], "big", pads=[49] * 4))


@case
def conv_of_endless_pads(model):
    image, weight = filled(model, "image", [1, 1, 2, 2]), filled(model, "w", [1, 1, 2, 2])
    add_to_actions(model, node(model, "Conv", [image, weight], "big", pads=[10**6] * 4))


@case
def lstm_bomb(model):
    x, w = filled(model, "x", [10000, 1, 4]), filled(model, "w", [1, 16000, 4])
    r = filled(model, "r", [1, 16000, 4000])
    add_to_actions(model, node(model, "LSTM", [x, w, r], "big", hidden_size=4000))


@case
def softmax_bomb(model):
    value = filled(model, "big", [8000, 8000])
    for i in range(30):
        value = node(model, "Softmax", [value], f"soft_{i}")
    add_to_actions(model, value)


@case
def erf_many_times(model):
    value = filled(model, "big", [1000, 1000])
    for i in range(1000):
        value = node(model, "Erf", [value], f"erf_{i}")
    add_to_actions(model, value)


def loop_body(kind="Identity"):
    return helper.make_graph(
        [helper.make_node("Identity", ["c"], ["k"]), helper.make_node(kind, ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("c", BOOL, []),
            helper.make_tensor_value_info("x", F, [1, 160]),
        ],
        [
            helper.make_tensor_value_info("k", BOOL, []),
            helper.make_tensor_value_info("y", F, [1, 160]),
        ],
    )  # fmt: skip


@case
def loop_for_ever(model):
    constant(model, "go", True)
    add_to_actions(model, node(model, "Loop", ["", "go", "obs"], "turned", body=loop_body()))


@case
def loop_of_many_turns(model):
    constant(model, "go", True)
    constant(model, "turns", 2**62, np.int64)
    add_to_actions(model, node(model, "Loop", ["turns", "go", "obs"], "turned", body=loop_body()))


@case
def loop_of_no_turn(model):
    constant(model, "go", False)
    constant(model, "turns", 0, np.int64)
    add_to_actions(model, node(model, "Loop", ["turns", "go", "obs"], "turned", body=loop_body()))


@case
def loop_of_constants_that_nothing_needs(model):
    constant(model, "go", True)
    constant(model, "start", np.zeros((1, 160), np.float32))
    node(model, "Loop", ["", "go", "start"], "turned", body=loop_body("Elu"))


@case
def loop_inside_a_loop(model):
    inner = helper.make_node("Loop", ["", "c", "x"], ["y"], body=loop_body())
    body = loop_body()
    body.node[1].CopyFrom(inner)
    constant(model, "go", True)
    add_to_actions(model, node(model, "Loop", ["", "go", "obs"], "turned", body=body))


@case
def loop_inside_a_branch(model):
    def branch(name, inner):
        return helper.make_graph(
            [inner], name, [], [helper.make_tensor_value_info(f"{name}_y", F, [1, 160])]
        )

    constant(model, "go", True)
    loop = helper.make_node("Loop", ["", "go", "obs"], ["yes_y"], body=loop_body())
    other = helper.make_node("Identity", ["obs"], ["no_y"])
    add_to_actions(
        model,
        node(model, "If", ["go"], "chosen", then_branch=branch("yes", loop),
             else_branch=branch("no", other)),
    )  # fmt: skip


@case
def branch(model):
    def one(name):
        y = helper.make_tensor_value_info(f"{name}_y", F, [1, 160])
        return helper.make_graph(
            [helper.make_node("Identity", ["obs"], [f"{name}_y"])], name, [], [y]
        )

    constant(model, "go", True)
    add_to_actions(
        model, node(model, "If", ["go"], "chosen", then_branch=one("a"), else_branch=one("b"))
    )


@case
def scan(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "body",
        [helper.make_tensor_value_info("x", F, [160])],
        [helper.make_tensor_value_info("y", F, [160])],
    )  # fmt: skip
    many = node(model, "Expand", ["obs", constant(model, "s", [10**6, 160], np.int64)], "many")
    add_to_actions(model, node(model, "Scan", [many], "scanned", body=body, num_scan_inputs=1))


@case
def sequence_map(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "body",
        [helper.make_tensor_value_info("x", F, [1, 160])],
        [helper.make_tensor_value_info("y", F, [1, 160])],
    )  # fmt: skip
    node(model, "SequenceConstruct", ["obs"] * 100, "sequence")
    node(model, "SequenceMap", ["sequence"], "mapped", body=body)
    add_to_actions(model, node(model, "ConcatFromSequence", ["mapped"], "joined", axis=0))


def functions(model, levels):
    """A function that calls the one below it twice, and so on."""
    for level in range(levels):
        below = f"f{level - 1}" if level else "Identity"
        domain = "local" if level else ""
        nodes = [
            helper.make_node(below, ["x"], ["a"], domain=domain),
            helper.make_node(below, ["a"], ["y"], domain=domain),
        ]
        model.functions.append(
            helper.make_function(
                "local",
                f"f{level}",
                ["x"],
                ["y"],
                nodes,
                [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
            )  # fmt: skip
        )
    model.opset_import.append(helper.make_opsetid("local", 1))
    return node(model, f"f{levels - 1}", ["obs"], "called", domain="local")


@case
def functions_that_double(model):
    add_to_actions(model, functions(model, 40))


@case
def one_function(model):
    add_to_actions(model, functions(model, 1))


@case
def function_that_calls_itself(model):
    nodes = [helper.make_node("f", ["x"], ["y"], domain="local")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model.functions.append(helper.make_function("local", "f", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    add_to_actions(model, node(model, "f", ["obs"], "called", domain="local"))


@case
def hundred_thousand_operators(model):
    value = "obs"
    for i in range(100_000):
        value = node(model, "Identity", [value], f"i{i}")
    add_to_actions(model, value)


@case
def four_hundred_thousand_empty_operators(model):
    for _ in range(400_000):
        model.graph.node.add()


@harmless
def three_thousand_operators(model):
    value = "obs"
    for i in range(3000):
        value = node(model, "Neg", [value], f"i{i}")
    add_to_actions(model, value)


@case
def sizes_computed_of_sizes(model):
    value = node(model, "Shape", ["obs"], "s0")
    one = constant(model, "one", [1, 1], np.int64)
    for i in range(3000):
        value = node(model, "Mul", [value, one], f"s{i + 1}")
    add_to_actions(model, node(model, "Expand", ["obs", value], "big"))


@case
def sizes_in_many_rounds(model):
    value = "obs"
    one = constant(model, "one", [1, 1], np.int64)
    for i in range(300):
        shape = node(model, "Shape", [value], f"shape_{i}")
        shape = node(
            model, "Where", [constant(model, f"yes_{i}", [True, True]), shape, one], f"w_{i}"
        )
        value = node(model, "Reshape", [value, shape], f"r_{i}")
    add_to_actions(model, value)


@harmless
def sizes_computed_as_exporters_do(model):
    shape = node(model, "Shape", ["obs"], "shape")
    first = node(model, "Gather", [shape, constant(model, "at", 0, np.int64)], "first")
    axis = constant(model, "axis", [0], np.int64)
    first = node(model, "Unsqueeze", [first, axis], "first_1d")
    two = node(model, "Concat", [first, constant(model, "rest", [160], np.int64)], "two", axis=0)
    add_to_actions(model, node(model, "Reshape", ["obs", two], "same"))


@case
def a_size_that_lies(model):
    total = node(model, "ReduceSum", ["obs"], "sum", keepdims=0)
    count = node(model, "Cast", [total], "count", to=I64)
    shape = node(model, "Unsqueeze", [count, constant(model, "zero", [0], np.int64)], "shape")
    model.graph.value_info.append(helper.make_tensor_value_info("big", F, [1]))
    add_to_actions(model, node(model, "ConstantOfShape", [shape], "big"))


@case
def size_of_what_is_not_zero(model):
    index = node(model, "NonZero", ["obs"], "index")
    add_to_actions(model, node(model, "Cast", [index], "big", to=F))


@case
def one_hot_bomb(model):
    node(model, "Cast", ["obs"], "index", to=I64)
    constant(model, "depth", 10**10, np.int64)
    constant(model, "values", [0.0, 1.0])
    add_to_actions(model, node(model, "OneHot", ["index", "depth", "values"], "big"))


@case
def random_bomb(model):
    add_to_actions(model, node(model, "RandomNormal", [], "big", shape=[10**5, 10**5]))


@case
def resize_bomb(model):
    image = filled(model, "image", [1, 1, 10, 10])
    scales = constant(model, "scales", [1.0, 1.0, 1e4, 1e4])
    add_to_actions(model, node(model, "Resize", [image, "", scales], "big"))


@case
def upsample_by_transposed_convolution(model):
    image, w = filled(model, "image", [1, 1, 10, 10]), filled(model, "w", [1, 1, 2, 2])
    add_to_actions(model, node(model, "ConvTranspose", [image, w], "big", strides=[10**5] * 2))


@case
def top_k(model):
    constant(model, "k", [100], np.int64)
    add_to_actions(model, node(model, "TopK", ["obs", "k"], ["big", "where"]))


@case
def unique(model):
    add_to_actions(model, node(model, "Unique", ["obs"], "big"))


@case
def strings(model):
    texts = helper.make_tensor("texts", TensorProto.STRING, [2], [b"a" * 1000, b"b"])
    model.graph.initializer.append(texts)
    flags = node(model, "RegexFullMatch", ["texts"], "flags", pattern="(a+)+$")
    add_to_actions(model, node(model, "Cast", [flags], "big", to=F))


@case
def string_split(model):
    texts = helper.make_tensor("texts", TensorProto.STRING, [1], [b"a," * 1000])
    model.graph.initializer.append(texts)
    node(model, "StringSplit", ["texts"], ["parts", "count"], delimiter=",")
    add_to_actions(model, node(model, "Cast", ["count"], "big", to=F))


@case
def microsoft_operator(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    add_to_actions(model, node(model, "Gelu", ["obs"], "big", domain="com.microsoft"))


@case
def tree_ensemble(model):
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    add_to_actions(model, node(model, "Scaler", ["obs"], "big", domain="ai.onnx.ml"))


@case
def operator_of_an_endless_name(model):
    add_to_actions(model, node(model, "X" * 500_000, ["obs"], "big"))


@case
def operator_with_a_newline(model):
    add_to_actions(model, node(model, "X\nerror: all is well", ["obs"], "big"))


@case
def sparse_weights(model):
    values = helper.make_tensor("v", F, [1], [1.0])
    indices = helper.make_tensor("i", I64, [1], [5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9]))


@case
def sparse_constant(model):
    values = helper.make_tensor("v", F, [1], [1.0])
    indices = helper.make_tensor("i", I64, [1], [5])
    sparse = helper.make_sparse_tensor(values, indices, [10**9])
    add_to_actions(model, node(model, "Constant", [], "big", sparse_value=sparse))


@case
def weights_of_no_data(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=F, dims=[10**5, 10**5]))
    add_to_actions(model, "w")


@case
def empty_weights_make_a_large_product(model):
    for name, dims in (("a", [50000, 0]), ("b", [0, 50000])):
        model.graph.initializer.append(TensorProto(name=name, data_type=F, dims=dims))
    add_to_actions(model, node(model, "MatMul", ["a", "b"], "big"))


@case
def trainer_inside(model):
    model.training_info.add()
    add_to_actions(model, filled(model, "big", [10**5, 10**5]))


@case
def motion_that_is_computed(model):
    """Each frame multiplies two large matrices: reading 5000 of them takes hours."""
    for item in list(model.graph.node):
        if list(item.output) == ["joint_pos"]:
            item.output[0] = "looked_up"
    big = filled(model, "big", [500, 500])
    product = chain(model, big, 500, 1)
    total = node(model, "ReduceMax", [product], "total", keepdims=0)
    node(model, "Add", ["looked_up", total], "joint_pos")
    constant(model, "long_table", np.zeros((3000, 29), np.float32))
    spare = node(model, "ReduceMax", ["long_table"], "spare", keepdims=0)
    node(model, "Add", ["joint_pos", spare], "moved")
    for entry in model.metadata_props:
        if entry.key == "motion_frames":
            entry.value = "3000"
    for item in model.graph.node:
        if list(item.output) == ["moved"]:
            item.output[0] = "joint_pos"
        elif list(item.output) == ["joint_pos"]:
            item.output[0] = "summed"
        for i, name in enumerate(item.input):
            if name == "joint_pos":
                item.input[i] = "summed"


@case
def motion_of_no_frames(model):
    for entry in model.metadata_props:
        if entry.key == "motion_frames":
            entry.value = "0"


@harmless
def motion_of_endless_frames(model):
    for entry in model.metadata_props:
        if entry.key == "motion_frames":
            entry.value = "9" * 5000


def metadata_case(name, change):
    def function(model):
        change({entry.key: entry for entry in model.metadata_props}, model)

    CASES[name] = function


def _set(key, value):
    def change(entries, model):
        entries[key].value = value

    return change


def _twice(entries, model):
    model.metadata_props.add(key="action_scale", value="1.0")


metadata_case("a_million_joint_names", _set("joint_names", "a," * 500_000))
metadata_case("one_joint_name_of_a_megabyte", _set("joint_names", "a" * 1_000_000))
metadata_case("an_observation_of_a_megabyte", _set("observation_names", "a" * 1_000_000))
metadata_case("a_million_observations", _set("observation_names", "command," * 125_000))
metadata_case("a_body_of_a_megabyte", _set("body_names", "pelvis," + "a" * 1_000_000))
metadata_case("an_anchor_of_a_megabyte", _set("anchor_body_name", "a" * 1_000_000))
metadata_case("a_nul_in_a_joint_name", _set("joint_names", "left_knee\0_joint"))
metadata_case("a_newline_in_a_name", _set("observation_names", "a\nerror: b"))
metadata_case("digits_without_end", _set("joint_stiffness", "1" * 1_000_000))
metadata_case("exponent_without_end", _set("joint_stiffness", ",".join(["1e999"] * 29)))
metadata_case("scale_of_zero", _set("action_scale", "0"))
metadata_case("scale_of_minus_one", _set("action_scale", ",".join(["-1"] * 29)))
metadata_case("gain_of_a_billion", _set("joint_stiffness", ",".join(["1e9"] * 29)))
metadata_case("pose_of_a_thousand", _set("default_joint_pos", ",".join(["1000"] * 29)))
metadata_case("effort_below_zero", _set("joint_effort_limit", ",".join(["-1"] * 29)))
metadata_case("clip_that_is_no_number", _set("observation_terms_clip", "x;y"))
metadata_case("history_of_half_a_step", _set("observation_history_lengths", "0.5"))
metadata_case("a_key_twice", _twice)


def build(good, name):
    """The bytes of a case, made of a sound file."""
    model = onnx.load(good)
    CASES[name](model)
    return model.SerializeToString()
