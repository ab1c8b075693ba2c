"""Damaged, wrong and hostile policy files: one sentence each, and nothing else happens."""

import json
import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hostile_limits import SECONDS
from onnx import TensorProto, helper, numpy_helper
from policy_files import make_clip, make_mlp, save_checkpoint

from bm_envs.errors import PolicyError
from bm_envs.policy import PolicySpec, load_policy, mlp_from_checkpoint, write_onnx
from bm_envs.policy.archive import check_archive


class Marker:
    """A pickle that creates a file when it is loaded the unsafe way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def tree(folder):
    """Every file below `folder` with its content and time of change."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refuse(function, folder, *arguments):
    """`function` raises one sentence that names the file, and nothing in `folder` changes."""
    before = tree(folder)
    with pytest.raises(PolicyError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert tree(folder) == before
    assert message.startswith(str(folder)), message
    assert "\n" not in message and message.endswith(".") and len(message) < 600, message
    return message


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.onnx"
    write_onnx(path, make_mlp(hidden=(8,)), PolicySpec.for_g1(), make_clip(5))
    load_policy(path).embedded_clip()  # the premise: undamaged, it loads
    return path


# --- ONNX: bytes ---


def truncations(content):
    return [content[: int(len(content) * share)] for share in np.linspace(0, 0.999, 25)]


def noise():
    rng = np.random.default_rng(0)
    return [rng.bytes(n) for n in (1, 2, 3, 5, 8, 16, 33, 64, 100, 333, 1000, 5000, 20000, 65536)]


def test_truncated_files(tmp_path, good):
    for i, content in enumerate(truncations(good.read_bytes())):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(content)
        refuse(load_policy, tmp_path, path)


def test_random_bytes(tmp_path):
    for i, content in enumerate(noise()):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(content)
        refuse(load_policy, tmp_path, path)


def test_files_of_other_kinds(tmp_path):
    torch.save({"actor": {"w": torch.zeros(3)}}, tmp_path / "torch.onnx")
    np.savez(tmp_path / "npz.npz", a=np.zeros(4))
    (tmp_path / "npz.npz").rename(tmp_path / "npz.onnx")
    (tmp_path / "json.onnx").write_text(json.dumps({"graph": {"node": []}}))
    (tmp_path / "text.onnx").write_text("ir_version: 8\n")
    (tmp_path / "png.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (tmp_path / "folder.onnx").mkdir()
    for name in ("torch", "npz", "json", "text", "png", "folder"):
        refuse(load_policy, tmp_path, tmp_path / f"{name}.onnx")


def test_pickles_renamed_to_onnx_run_nothing(tmp_path):
    marker = tmp_path / "marker"
    for protocol in range(6):
        path = tmp_path / f"{protocol}.onnx"
        path.write_bytes(pickle.dumps(Marker(str(marker)), protocol=protocol))
        refuse(load_policy, tmp_path, path)
        assert not marker.exists()
    pickle.loads((tmp_path / "5.onnx").read_bytes())  # the premise: such a pickle does run
    assert marker.exists()


def test_flipped_bytes_load_or_give_one_sentence(tmp_path, good):
    """A flip in a weight may leave a valid file; anywhere, only `PolicyError` comes out."""
    rng = np.random.default_rng(1)
    content = np.frombuffer(good.read_bytes(), np.uint8)
    refused = 0
    for i in range(60):
        damaged = content.copy()
        # Structure lies at both ends of the file, the weights between them.
        low, high = ((0, 2000), (len(content) - 4000, len(content)))[i % 2]
        where = rng.integers(low, high, 8)
        damaged[where] ^= rng.integers(1, 256, 8).astype(np.uint8)
        path = tmp_path / "flipped.onnx"
        path.write_bytes(damaged.tobytes())
        try:
            load_policy(path).clip  # noqa: B018
        except PolicyError as error:
            assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
            refused += 1
    assert refused > 20


# --- ONNX: valid files that are no policy ---


def edit(change):
    """A named damage: `change(model)` edits the parsed good file."""
    return pytest.param(change, id=change.__name__)


def _weight(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _replace(model, name, array):
    _weight(model, name).CopyFrom(numpy_helper.from_array(array, name))


def _metadata(model, key):
    return next(entry for entry in model.metadata_props if entry.key == key)


def _value(values, name):
    return next(value for value in values if value.name == name)


def nan_weight(model):
    weight = numpy_helper.to_array(_weight(model, "weight_0")).copy()
    weight[3, 5] = np.nan
    _replace(model, "weight_0", weight)


def infinite_bias(model):
    _replace(model, "bias_1", np.full(29, np.inf, np.float32))


def zero_scale(model):
    _replace(model, "obs_scale", np.zeros(160, np.float32))


def narrow_input(model):
    _value(model.graph.input, "obs").type.tensor_type.shape.dim[1].dim_value = 159


def open_input_size(model):
    _value(model.graph.input, "obs").type.tensor_type.shape.dim[1].dim_param = "O"


def input_of_rank_one(model):
    del _value(model.graph.input, "obs").type.tensor_type.shape.dim[0]


def batch_of_two(model):
    _value(model.graph.input, "obs").type.tensor_type.shape.dim[0].dim_value = 2


def double_input(model):
    _value(model.graph.input, "obs").type.tensor_type.elem_type = TensorProto.DOUBLE


def renamed_input(model):
    _value(model.graph.input, "obs").name = "observation"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "obs":
                node.input[i] = "observation"


def one_input_more(model):
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 4]))


def no_actions(model):
    model.graph.output.remove(_value(model.graph.output, "actions"))


def renamed_actions(model):
    _value(model.graph.output, "actions").name = "action"
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "actions":
                node.output[i] = "action"


def twelve_actions(model):
    _replace(model, "weight_1", np.zeros((12, 8), np.float32))
    _replace(model, "bias_1", np.zeros(12, np.float32))
    _value(model.graph.output, "actions").type.tensor_type.shape.dim[1].dim_value = 12


def weight_of_wrong_shape(model):
    _replace(model, "weight_1", np.zeros((29, 9), np.float32))


def lost_weight(model):
    model.graph.initializer.remove(_weight(model, "weight_0"))


def short_weight_data(model):
    _weight(model, "weight_0").raw_data = b"\0" * 12


def huge_dims(model):
    _weight(model, "weight_0").dims[0] = 2**40


def negative_dims(model):
    _weight(model, "weight_0").dims[0] = -8


def missing_motion_output(model):
    model.graph.output.remove(_value(model.graph.output, "body_quat_w"))


def motion_without_time_step(model):
    model.graph.input.remove(_value(model.graph.input, "time_step"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), "f4"), "time_step"))


def thirteen_bodies(model):
    names = _metadata(model, "body_names").value.split(",")
    _metadata(model, "body_names").value = ",".join(names[:-1])


def actions_need_the_frame(model):
    for node in model.graph.node:
        if list(node.output) == ["actions"]:
            node.output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "joint_pos"], ["actions"]))


def unknown_operator(model):
    model.graph.node[0].op_type = "Subtract"


def foreign_domain(model):
    model.graph.node[0].domain = "com.example"


def cycle(model):
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


def endless_loop(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["k"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 29]),
        ],
        [
            helper.make_tensor_value_info("k", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 29]),
        ],
    )
    for node in model.graph.node:
        if list(node.output) == ["actions"]:
            node.output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(helper.make_node("Loop", ["", "go", "before"], ["actions"], body=body))


def no_operators(model):
    del model.graph.node[:]


def no_graph(model):
    model.ClearField("graph")


def future_version(model):
    model.ir_version = 10**6


def future_opset(model):
    model.opset_import[0].version = 10**6


def no_opset(model):
    del model.opset_import[:]


def external_password_file(model):
    tensor = _weight(model, "weight_0")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def no_metadata(model):
    del model.metadata_props[:]


def joints_missing(model):
    _metadata(model, "joint_names").value = "left_knee_joint,right_knee_joint"


def joint_twice(model):
    names = _metadata(model, "joint_names").value.split(",")
    _metadata(model, "joint_names").value = ",".join([names[1], *names[1:]])


def names_with_blanks(model):
    _metadata(model, "joint_names").value = _metadata(model, "joint_names").value.replace(",", ", ")


def gains_in_brackets(model):
    _metadata(model, "joint_stiffness").value = f"[{_metadata(model, 'joint_stiffness').value}]"


def gains_short(model):
    _metadata(model, "joint_damping").value = "1.0,2.0"


def gains_negative(model):
    _metadata(model, "joint_stiffness").value = ",".join(["-1.0"] * 29)


def scale_not_a_number(model):
    _metadata(model, "action_scale").value = ",".join(["nan"] * 29)


def empty_pose(model):
    _metadata(model, "default_joint_pos").value = ""


def unknown_observation(model):
    value = _metadata(model, "observation_names").value
    _metadata(model, "observation_names").value = value.replace("base_lin_vel", "imu_acc")


def term_missing(model):
    value = _metadata(model, "observation_names").value
    _metadata(model, "observation_names").value = value.replace(",actions", "")


def long_history(model):
    value = _metadata(model, "observation_history_lengths").value
    _metadata(model, "observation_history_lengths").value = value[:-1] + "4"


EDITS = [
    nan_weight, infinite_bias, zero_scale, narrow_input, open_input_size, input_of_rank_one,
    batch_of_two, double_input, renamed_input, one_input_more, no_actions, renamed_actions,
    twelve_actions, weight_of_wrong_shape, lost_weight, short_weight_data, huge_dims,
    negative_dims, missing_motion_output, motion_without_time_step, thirteen_bodies,
    actions_need_the_frame, unknown_operator, foreign_domain, cycle, endless_loop, no_operators,
    no_graph, future_version, future_opset, no_opset, external_password_file, no_metadata,
    joints_missing, joint_twice, names_with_blanks, gains_in_brackets, gains_short,
    gains_negative, scale_not_a_number, empty_pose, unknown_observation, term_missing,
    long_history,
]  # fmt: skip


@pytest.mark.parametrize("change", [edit(change) for change in EDITS])
def test_valid_files_that_are_no_policy(tmp_path, good, change):
    model = onnx.load(good)
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(load_policy, tmp_path, path)


@pytest.mark.parametrize("name", ["motion_joint_pos", "motion_body_quat_w"])
def test_motions_that_are_not_finite(tmp_path, good, name):
    model = onnx.load(good)
    table = numpy_helper.to_array(_weight(model, name)).copy()
    table[2, 3] = np.nan
    _replace(model, name, table)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load_policy(path)  # the network itself is sound
    assert "is not finite throughout" in refuse(loaded.embedded_clip, tmp_path)


# --- checkpoints ---


@pytest.fixture
def checkpoint(tmp_path):
    return save_checkpoint(tmp_path / "run", make_mlp(hidden=(8,)))


def test_damaged_checkpoints(tmp_path, checkpoint):
    mlp_from_checkpoint(checkpoint)  # the premise
    content = checkpoint.read_bytes()
    for damaged in [*truncations(content), *noise()]:
        checkpoint.write_bytes(damaged)
        refuse(mlp_from_checkpoint, tmp_path, checkpoint)


def test_pickled_checkpoints_run_nothing(tmp_path, checkpoint):
    marker = tmp_path / "marker"
    for protocol in range(6):
        checkpoint.write_bytes(pickle.dumps({"actor": Marker(str(marker))}, protocol=protocol))
        refuse(mlp_from_checkpoint, tmp_path, checkpoint)
        assert not marker.exists()
    torch.save({"actor": Marker(str(marker))}, checkpoint)  # torch's own container around it
    refuse(mlp_from_checkpoint, tmp_path, checkpoint)
    assert not marker.exists()
    torch.load(checkpoint, weights_only=False)  # the premise: loaded the unsafe way, it runs
    assert marker.exists()


def _actor(**changes):
    def change(checkpoint):
        for key, value in changes.items():
            checkpoint["actor"][key.replace("__", ".")] = value
        return checkpoint

    return change


def _without(key):
    def change(checkpoint):
        del checkpoint["actor"][key]
        return checkpoint

    return change


CHECKPOINT_EDITS = {
    "a list": lambda c: [c],
    "no actor": lambda c: {"critic": c["actor"]},
    "actor a tensor": lambda c: {"actor": torch.zeros(3)},
    "no mean": _without("obs_mean"),
    "no variance": _without("obs_var"),
    "no first weight": _without("layers.0.weight"),
    "no last bias": _without("layers.1.bias"),
    "no last layer": lambda c: _without("layers.1.bias")(_without("layers.1.weight")(c)),
    "nan mean": _actor(obs_mean=torch.full((160,), float("nan"))),
    "negative variance": _actor(obs_var=torch.full((160,), -1.0)),
    "nan variance": _actor(obs_var=torch.full((160,), float("nan"))),
    "infinite weight": _actor(layers__0__weight=torch.full((8, 160), float("inf"))),
    "scalar mean": _actor(obs_mean=torch.tensor(1.0)),
    "short mean": _actor(obs_mean=torch.zeros(154)),
    "short variance": _actor(obs_var=torch.ones(154)),
    "wide weight": _actor(layers__0__weight=torch.zeros(9, 160)),
    "flat weight": _actor(layers__0__weight=torch.zeros(8 * 160)),
    "23 joints": _actor(layers__1__weight=torch.zeros(23, 8), layers__1__bias=torch.zeros(23)),
    "integers": _actor(layers__1__bias=torch.zeros(29, dtype=torch.int64)),
    "text": _actor(obs_mean="zero"),
}


@pytest.mark.parametrize("name", CHECKPOINT_EDITS)
def test_checkpoints_of_another_network(tmp_path, checkpoint, name):
    content = CHECKPOINT_EDITS[name](torch.load(checkpoint, weights_only=True))
    torch.save(content, checkpoint)
    refuse(mlp_from_checkpoint, tmp_path, checkpoint)


@pytest.mark.parametrize(
    "config",
    [
        None, "", "{", "[]", "null", "{}", '{"network": 3}',
        '{"network": {"residual": true, "activation": "elu"}}',
        '{"network": {"residual": true}, "task": {"observations": "command"}}',
        '{"network": {"residual": true}, "task": {"observations": ["commando"]}}',
        '{"network": {"residual": true}, "task": {"observations": ["command"], "actuation": 5}}',
        '{"network": {"residual": true},'
        ' "task": {"observations": ["command"], "actuation": {"action_scale": [1, 2]}}}',
        '{"network": {"residual": true},'
        ' "task": {"observations": ["command"], "actuation": {"action_scale": [null]}}}',
        '{"network": {"residual": false, "activation": "swish"}}',
        '{"network": {"residual": false, "activation": ["elu"]}}',
    ],
)  # fmt: skip
def test_checkpoints_without_a_usable_config(tmp_path, checkpoint, config):
    (checkpoint.parent / "config.json").unlink()
    if config is not None:
        (checkpoint.parent / "config.json").write_text(config)
    refuse(mlp_from_checkpoint, tmp_path, checkpoint)


def test_archives_with_odd_members(tmp_path, checkpoint):
    for name in ("../outside", "archive/data.pkl"):
        with zipfile.ZipFile(checkpoint, "w") as archive:
            archive.writestr(name, b"\x80\x02}q\x00.")
        refuse(mlp_from_checkpoint, tmp_path, checkpoint)
    (checkpoint.parent / "checkpoint.pt").unlink()
    assert "no such checkpoint" in refuse(mlp_from_checkpoint, tmp_path, checkpoint)


def _nested(levels):
    """A pickle of a tuple of two references to a tuple of two references ..., as a key."""
    tuples = b"U\x01a\x85" + b"".join(
        b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels)
    )
    return b"\x80\x02}" + tuples + b"K\x01s."


ARCHIVES = {
    "a key of thirty levels": (zipfile.ZIP_STORED, "data.pkl", lambda _: _nested(30)),
    "an actor of thirty levels": (
        zipfile.ZIP_STORED, "data.pkl",
        lambda _: b"\x80\x02}U\x05actor" + _nested(30)[3:-5] + b"s.",
    ),
    "a gigabyte of zeros as weights": (zipfile.ZIP_DEFLATED, "data/0", lambda _: bytes(3 * 10**8)),
    "a gigabyte of nothing": (
        zipfile.ZIP_DEFLATED, "data.pkl", lambda _: b"\x80\x02" + b"N" * 3 * 10**8 + b".",
    ),
    "lists without end": (
        zipfile.ZIP_STORED, "data.pkl", lambda _: b"\x80\x02" + b"]" * 10**5 + b"a" * 10**5 + b".",
    ),
    "marks without end": (zipfile.ZIP_STORED, "data.pkl", lambda _: b"\x80\x02" + b"(" * 10**6),
    "nothing": (zipfile.ZIP_STORED, "data.pkl", lambda _: b""),
    "half of it": (zipfile.ZIP_STORED, "data.pkl", lambda content: content[: len(content) // 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_checkpoints_that_unpack_without_end(tmp_path, checkpoint, name):
    compression, suffix, change = ARCHIVES[name]
    content = {}
    with zipfile.ZipFile(checkpoint) as archive:
        for member in archive.namelist():
            content[member] = archive.read(member)
    with zipfile.ZipFile(checkpoint, "w", compression) as archive:
        for member, data in content.items():
            archive.writestr(member, change(data) if member.endswith(suffix) else data)
    assert checkpoint.stat().st_size < 2e6
    start = time.process_time()
    message = refuse(mlp_from_checkpoint, tmp_path, checkpoint)
    assert time.process_time() - start < SECONDS
    if "levels" in name:
        assert "nests references that stand for more than 1000000 values" in message
    if "gigabyte" in name:
        assert "unpacks to 286 MiB, more than 4 times its size" in message


def test_true_checkpoints_pass(tmp_path):
    state = {
        "actor": {f"layers.{i}.weight": torch.zeros(300, 300) for i in range(4)},
        "optimizer": {"state": {i: {"step": torch.tensor(1.0)} for i in range(500)}},
        "curve": [float(i) for i in range(10_000)], "shared": [torch.zeros(3)] * 1000,
        "text": "x" * 10_000,
    }  # fmt: skip
    for options in ({}, {"pickle_protocol": 4}):
        torch.save(state, tmp_path / "c.pt", **options)
        check_archive(tmp_path / "c.pt")
