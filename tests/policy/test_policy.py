"""Policy files: what is written, that other runtimes agree, and what is read from elsewhere."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from policy_files import isaac_spec, make_clip, make_mlp, save_checkpoint

from bm_envs.errors import PolicyError
from bm_envs.policy import (
    ACTION_TOLERANCE,
    MOTION_OUTPUTS,
    PolicySpec,
    load_policy,
    make_test_vectors,
    mlp_from_checkpoint,
    observation_table,
    read_policy_json,
    shipped_policies,
    shipped_test_vectors,
    write_onnx,
    write_policy_json,
    write_test_vectors,
)
from bm_envs.robots import g1, mjcf
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS, POLICY_TERMS

# Names and shapes typed from the controller's contract (facts on tracking, sections 7.1 and 7.2).
KEYS_OF_BOTH_EXPORTERS = {
    "run_path", "joint_names", "joint_stiffness", "joint_damping", "default_joint_pos",
    "command_names", "observation_names", "observation_history_lengths", "action_scale",
    "anchor_body_name", "body_names", "observation_terms_scale",
    "observation_terms_flatten_history_dim", "observation_terms_history_length",
    "observation_terms_clip",
}  # fmt: skip
OUTPUT_SHAPES = {
    "actions": [1, 29], "joint_pos": [1, 29], "joint_vel": [1, 29], "body_pos_w": [1, 14, 3],
    "body_quat_w": [1, 14, 4], "body_lin_vel_w": [1, 14, 3], "body_ang_vel_w": [1, 14, 3],
}  # fmt: skip
SPEC = PolicySpec.for_g1(run_path="runs/walk")


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def frame(runtime, step, size=160):
    feed = {"obs": np.zeros((1, size), np.float32), "time_step": np.array([[step]], np.float32)}
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(None, feed), strict=True))


def torch_network(mlp):
    """The same network in torch, float32, written from the training script's definition."""
    kind = {"elu": torch.nn.ELU, "relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[mlp.activation]
    layers = []
    for weight, bias in zip(mlp.weights, mlp.biases, strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        layers += [linear, kind()]
    net = torch.nn.Sequential(*layers[:-1])

    def actor(obs):
        obs = torch.tensor(obs)
        out = net((obs - torch.tensor(mlp.obs_mean)) / torch.tensor(mlp.obs_scale))
        if mlp.residual_offset is not None:
            reference = obs[:, :29] - torch.tensor(mlp.residual_offset)
            out = out + reference / torch.tensor(mlp.residual_scale)
        return out.detach().numpy()

    return actor


@pytest.fixture(scope="module")
def clip():
    return make_clip()


@pytest.fixture(scope="module")
def written(tmp_path_factory, clip):
    path = tmp_path_factory.mktemp("policy") / "wiggle.onnx"
    write_onnx(path, make_mlp(), SPEC, clip)
    return path


# --- what is written ---


def test_names_shapes_and_types_are_the_controllers(written):
    runtime = session(written)
    assert [(i.name, i.type, i.shape) for i in runtime.get_inputs()] == [
        ("obs", "tensor(float)", [1, 160]),
        ("time_step", "tensor(float)", [1, 1]),
    ]
    assert {o.name: o.shape for o in runtime.get_outputs()} == OUTPUT_SHAPES
    assert {o.type for o in runtime.get_outputs()} == {"tensor(float)"}


def test_metadata_parse_by_the_readers_rules(written):
    """The reader splits at commas, converts numbers with strtod and strtoul, and trims no name."""
    metadata = session(written).get_modelmeta().custom_metadata_map
    assert metadata.keys() >= KEYS_OF_BOTH_EXPORTERS
    for key in KEYS_OF_BOTH_EXPORTERS:
        assert " " not in metadata[key] and "[" not in metadata[key]
    assert metadata["joint_names"].split(",") == list(g1.JOINT_NAMES)
    assert metadata["body_names"].split(",") == list(g1.TRACKED_BODIES)
    assert metadata["observation_names"].split(",") == list(POLICY_TERMS)
    assert metadata["command_names"] == "motion"
    assert metadata["anchor_body_name"] == "torso_link"
    for key, table in {
        "joint_stiffness": g1.STIFFNESS, "joint_damping": g1.DAMPING,
        "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
    }.items():  # fmt: skip
        assert [float(part) for part in metadata[key].split(",")] == list(table)  # every digit
    assert all(re.fullmatch(r"\d+", v) for v in metadata["observation_history_lengths"].split(","))
    assert metadata["observation_history_lengths"] == ",".join(["1"] * 8)
    assert metadata["observation_terms_history_length"] == ",".join(["0"] * 8)  # mjlab's "none"
    assert metadata["observation_terms_clip"].split(",")[0] == "-inf;inf"
    # mjlab's reader: float of every part.
    assert {float(v) for v in metadata["observation_terms_scale"].split(",")} == {1.0}


def test_metadata_round_trip(written, clip):
    spec = load_policy(written).spec
    assert dataclasses.replace(spec, extra={}) == SPEC
    assert spec.extra["motion_name"] == "wiggle"
    assert spec.extra["motion_sha256"] == clip.sha256()
    assert spec.extra["motion_embedded"] == "1"
    assert float(spec.extra["control_dt"]) == 0.02


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
def test_graph_equals_torch_and_numpy_on_1000_observations(tmp_path, clip, activation, residual):
    mlp = make_mlp(hidden=(512, 256, 128), activation=activation, residual=residual)
    write_onnx(tmp_path / "p.onnx", mlp, SPEC, clip)
    obs = np.random.default_rng(1).normal(size=(1000, 160)).astype(np.float32)
    expected = torch_network(mlp)(obs)
    assert np.abs(expected).max() > 1  # the comparison has something to compare
    runtime = session(tmp_path / "p.onnx")
    step = np.zeros((1, 1), np.float32)
    rows = [runtime.run(["actions"], {"obs": row[None], "time_step": step})[0][0] for row in obs]
    # float32, sums of up to 512 terms of size 1: 512 * 6e-8 / sqrt(512) is about 1.4e-6.
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(mlp(obs), expected, rtol=0, atol=1e-5)
    loaded = load_policy(tmp_path / "p.onnx")
    assert loaded.batched
    np.testing.assert_allclose(loaded(obs), expected, rtol=0, atol=1e-5)


def test_time_step_is_clamped_at_both_ends_and_the_end_rests(written, clip):
    runtime, last = session(written), clip.num_frames - 1
    bodies = g1.order_map(g1.BODY_NAMES, g1.TRACKED_BODIES)

    def expected(name, step):
        value = getattr(clip, name)[step]
        return value if name.startswith("joint") else value[bodies]

    for step, index in {-1: 0, -5.7: 0, 0: 0, 7: 7, 7.9: 7, last: last}.items():
        out = frame(runtime, step)
        for name in MOTION_OUTPUTS:
            np.testing.assert_array_equal(out[name][0], expected(name, index), err_msg=name)
    assert np.abs(clip.joint_vel[last]).max() > 0.1  # the motion does move at its end
    for step in (last + 1, last + 100, 1e20):
        out = frame(runtime, step)
        for name in MOTION_OUTPUTS:
            wanted = 0 * expected(name, last) if "vel" in name else expected(name, last)
            np.testing.assert_array_equal(out[name][0], wanted, err_msg=name)


def test_the_last_frame_can_be_kept_as_published(tmp_path, clip):
    write_onnx(tmp_path / "p.onnx", make_mlp(), SPEC, clip, hold_last_frame=False)
    runtime = session(tmp_path / "p.onnx")
    for step in (clip.num_frames - 1, clip.num_frames + 99):
        np.testing.assert_array_equal(frame(runtime, step)["joint_vel"][0], clip.joint_vel[-1])


def test_no_motion_leaves_the_motion_out_and_names_it(tmp_path, clip):
    write_onnx(tmp_path / "p.onnx", make_mlp(), SPEC, clip, embed_motion=False)
    runtime = session(tmp_path / "p.onnx")
    assert [i.name for i in runtime.get_inputs()] == ["obs"]
    assert [o.name for o in runtime.get_outputs()] == ["actions"]
    metadata = runtime.get_modelmeta().custom_metadata_map
    assert metadata["motion_embedded"] == "0"
    assert metadata["motion_name"] == "wiggle"
    assert metadata["motion_sha256"] == clip.sha256()
    content = (tmp_path / "p.onnx").read_bytes()
    assert clip.joint_pos[5].tobytes() not in content
    loaded = load_policy(tmp_path / "p.onnx")
    assert loaded.clip is None
    with pytest.raises(PolicyError, match="holds no motion"):
        loaded.embedded_clip()


def test_writing_refuses_what_does_not_fit_and_leaves_the_old_file(tmp_path, clip):
    path = tmp_path / "p.onnx"
    path.write_bytes(b"old")
    short = dataclasses.replace(SPEC, observation_names=NO_STATE_ESTIMATION_TERMS,
                                observation_history_lengths=())  # fmt: skip
    with pytest.raises(PolicyError, match="takes 160 values, its observation terms have 154"):
        write_onnx(path, make_mlp(160), short, clip)
    turned = dataclasses.replace(SPEC, observation_names=POLICY_TERMS[::-1])
    with pytest.raises(PolicyError, match="needs 'command' as its first"):
        write_onnx(path, make_mlp(residual=True), turned, clip)
    slow = make_clip()
    object.__setattr__(slow, "fps", 30.0)
    with pytest.raises(PolicyError, match="30 frames/s, expected 50"):
        write_onnx(path, make_mlp(), SPEC, slow)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.onnx"]


def test_networks_are_checked():
    good = make_mlp()
    with pytest.raises(PolicyError, match=r"weight 1 has shape \(16, 24\), expected \(16, 20\)"):
        weights = (good.weights[0][:20], *good.weights[1:])
        biases = (good.biases[0][:20], *good.biases[1:])
        dataclasses.replace(good, weights=weights, biases=biases)
    with pytest.raises(PolicyError, match="The network gives 16 actions, expected 29"):
        dataclasses.replace(good, weights=good.weights[:2], biases=good.biases[:2])
    with pytest.raises(PolicyError, match="bias 2 holds a value that is not finite"):
        dataclasses.replace(good, biases=(*good.biases[:2], np.full(29, np.nan)))
    with pytest.raises(PolicyError, match="Unknown activation 'gelu'"):
        dataclasses.replace(good, activation="gelu")


# --- joint order ---


def test_a_policy_in_isaac_order_gives_the_same_targets(tmp_path, clip):
    """The same network with its joints renumbered, run through the index maps."""
    mlp, spec = make_mlp(), isaac_spec()
    # Renumbered by hand: row j of the Isaac network is the joint of that name.
    joints = [g1.JOINT_NAMES.index(name) for name in g1.ISAAC_JOINT_NAMES]
    columns = [*joints, *(29 + j for j in joints), *range(58, 73)]
    for start in (73, 102, 131):  # joint_pos, joint_vel, actions of the 160 values
        columns += [start + j for j in joints]
    renumbered = dataclasses.replace(
        mlp, obs_mean=mlp.obs_mean[columns], obs_scale=mlp.obs_scale[columns],
        weights=(mlp.weights[0][:, columns], mlp.weights[1], mlp.weights[2][joints]),
        biases=(*mlp.biases[:2], mlp.biases[2][joints]),
    )  # fmt: skip
    write_onnx(tmp_path / "isaac.onnx", renumbered, spec, clip)
    loaded = load_policy(tmp_path / "isaac.onnx")
    obs = np.random.default_rng(0).normal(size=(50, 160)).astype(np.float32)
    action = loaded(obs[:, loaded.spec.observation_index()])[:, loaded.spec.action_index()]
    np.testing.assert_allclose(action, mlp(obs), atol=1e-5)
    assert loaded.spec.in_project_order("joint_stiffness") == tuple(g1.STIFFNESS)
    np.testing.assert_array_equal(loaded.motion["joint_pos"], clip.joint_pos[:, joints])
    np.testing.assert_array_equal(loaded.clip.joint_pos, clip.joint_pos)


def test_the_embedded_motion_comes_back_as_the_clip(written, clip):
    back = load_policy(written).embedded_clip()
    assert (back.name, back.fps, back.num_frames) == ("wiggle", 50.0, clip.num_frames)
    for name in ("joint_pos", "joint_vel"):
        np.testing.assert_array_equal(getattr(back, name), getattr(clip, name))
    for name in ("body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w"):
        # Forward kinematics from float32 root and joints: 1e-7 of 1 m, 1 rad/s times ten links.
        np.testing.assert_allclose(getattr(back, name), getattr(clip, name), atol=2e-6)


def test_a_motion_in_the_wrong_order_is_refused(tmp_path, clip):
    write_onnx(tmp_path / "p.onnx", make_mlp(), SPEC, clip)
    model = onnx.load(tmp_path / "p.onnx")
    for entry in model.metadata_props:
        if entry.key == "joint_names":
            entry.value = ",".join(g1.ISAAC_JOINT_NAMES)
    onnx.save(model, tmp_path / "p.onnx")
    with pytest.raises(PolicyError, match="links are up to .* joint_names or body_names"):
        load_policy(tmp_path / "p.onnx").embedded_clip()


# --- files from elsewhere ---


def foreign(path, metadata=None, *, size=160, reshape=False, external=False, outputs=("actions",)):
    """A network as other exporters write them: opset 11, IR 6, no motion."""
    mlp = make_mlp(size, hidden=(8,))
    constants = [
        numpy_helper.from_array(array, name)
        for name, array in {
            "mean": mlp.obs_mean[None], "std": mlp.obs_scale[None], "w0": mlp.weights[0],
            "b0": mlp.biases[0], "w1": mlp.weights[1], "b1": mlp.biases[1],
            "one": np.array([1, -1]),
        }.items()
    ]  # fmt: skip
    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["c"]),
        helper.make_node("Div", ["c", "std"], ["n"]),
        helper.make_node("Reshape", ["n", "one"], ["r"]),
        helper.make_node("Gemm", ["r" if reshape else "n", "w0", "b0"], ["h"], transB=1),
        helper.make_node("Elu", ["h"], ["e"]),
        helper.make_node("Gemm", ["e", "w1", "b1"], list(outputs)[:1], transB=1),
    ]
    if not reshape:
        del nodes[2]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, [1, 29])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    helper.set_model_props(model, metadata or {})
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0
    )
    return mlp


def rounded_metadata(**changes):
    """Metadata with three decimals, as whole_body_tracking and mjlab write them."""
    spec = isaac_spec()
    metadata = {
        key: ",".join(f"{v:.3f}" for v in getattr(spec, key))
        for key in ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
    }
    metadata |= {
        "joint_names": ",".join(spec.joint_names),
        "observation_names": ",".join(POLICY_TERMS),
        "observation_history_lengths": ",".join(["1.000"] * 8),
        "observation_terms_history_length": ",".join(["0.000"] * 8),
        "observation_terms_scale": ",".join(["1.000"] * 8),
        "observation_terms_clip": ",".join(["-inf;inf"] * 8),
    }
    return metadata | changes


def test_a_foreign_policy_with_metadata(tmp_path):
    mlp = foreign(tmp_path / "p.onnx", rounded_metadata(run_path="somebody's"))
    loaded = load_policy(tmp_path / "p.onnx")
    assert loaded.spec.joint_names == g1.ISAAC_JOINT_NAMES
    assert loaded.spec.joint_stiffness[:4] == (40.179, 40.179, 40.179, 99.098)
    assert loaded.spec.anchor_body_name == "torso_link"
    obs = np.random.default_rng(0).normal(size=(7, 160)).astype(np.float32)
    np.testing.assert_allclose(loaded(obs), mlp(obs), atol=1e-5)


def test_a_graph_that_fixes_the_batch_runs_row_by_row(tmp_path):
    mlp = foreign(tmp_path / "p.onnx", rounded_metadata(), reshape=True)
    loaded = load_policy(tmp_path / "p.onnx")
    obs = np.random.default_rng(0).normal(size=(7, 160)).astype(np.float32)
    np.testing.assert_allclose(loaded(obs), mlp(obs), atol=1e-5)


def test_weights_in_an_external_file(tmp_path):
    mlp = foreign(tmp_path / "p.onnx", rounded_metadata(), external=True)
    assert (tmp_path / "p.onnx.data").stat().st_size > 4000
    obs = np.random.default_rng(0).normal(size=(3, 160)).astype(np.float32)
    np.testing.assert_allclose(load_policy(tmp_path / "p.onnx")(obs), mlp(obs), atol=1e-5)
    (tmp_path / "p.onnx.data").unlink()
    with pytest.raises(PolicyError, match="weights are in 'p.onnx.data', expected that file besid"):
        load_policy(tmp_path / "p.onnx")


def test_external_weights_outside_the_folder_are_refused(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    foreign(folder / "p.onnx", rounded_metadata(), external=True)
    (folder / "p.onnx.data").rename(tmp_path / "p.onnx.data")
    content = (folder / "p.onnx").read_bytes()
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../p.onnx.data"
    (folder / "p.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PolicyError, match="not a readable ONNX model"):
        load_policy(folder / "p.onnx")


def config_of(metadata, path):
    path.write_text(json.dumps(metadata))
    return path


def test_a_config_gives_what_the_file_lacks(tmp_path):
    foreign(tmp_path / "p.onnx")
    with pytest.raises(PolicyError) as error:
        load_policy(tmp_path / "p.onnx")
    assert str(error.value) == (
        f"{tmp_path / 'p.onnx'}: metadata lacks joint_names, joint_stiffness, joint_damping, "
        "default_joint_pos, action_scale, observation_names; give them in a JSON file as the "
        "policy's config (--policy-config)."
    )
    spec = isaac_spec()
    config = {
        "joint_names": list(spec.joint_names), "joint_stiffness": list(spec.joint_stiffness),
        "joint_damping": ",".join(map(str, spec.joint_damping)),
        "default_joint_pos": list(spec.default_joint_pos), "action_scale": 0.25,
        "observation_names": ",".join(POLICY_TERMS),
    }  # fmt: skip
    loaded = load_policy(tmp_path / "p.onnx", config=config_of(config, tmp_path / "c.json"))
    assert loaded.spec.joint_damping == spec.joint_damping
    assert loaded.spec.action_scale == (0.25,) * 29
    assert loaded.spec.observation_history_lengths == (1,) * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_names": "command,joint_posn"}, "Unknown observation 'joint_posn'; did you"),
        ({"observation_names": "command,command"}, "must name at least one term, and each one"),
        ({"joint_names": "a,b"}, "joint_names holds 2 names, expected the G1's 29 joints once"),
        ({"joint_stiffness": "1,2,x"}, "joint_stiffness holds 'x', expected a number"),
        ({"joint_stiffness": [1.0] * 28}, "joint_stiffness holds 28 values, expected 29 finite"),
        ({"joint_damping": ["nan"] * 29}, "joint_damping holds a value that is not finite"),
        (
            {"joint_stiffness": [0] * 29},
            "joint_stiffness of left_hip_pitch_joint is 0 N m/rad, expected above 0 and at most",
        ),
        ({"joint_stiffness": [1e9] * 29}, r"is 1e\+09 N m/rad, expected above 0 and at most 10000"),
        ({"joint_damping": [-1] * 29}, "is -1 N m s/rad, expected 0 to 1000"),
        ({"default_joint_pos": [1000.0] * 29}, "is 1000 rad, expected -6.28319 to 6.28319"),
        ({"action_scale": 0}, "is 0 rad, expected above 0 and at most 100"),
        ({"action_scale": -1}, "is -1 rad, expected above 0 and at most 100"),
        ({"action_scale": 1e6}, r"is 1e\+06 rad, expected above 0 and at most 100"),
        ({"joint_effort_limit": [-88.0] * 29}, "is -88 N m, expected above 0 and at most 10000"),
        ({"joint_effort_limit": [88.0] * 3}, "joint_effort_limit holds 3 values, expected 29"),
        ({"joint_damping": [True] * 29}, "joint_damping holds True, expected a number"),
        ({"joint_damping": ["1_0"] * 29}, "joint_damping holds '1_0', expected a number"),
        ({"joint_damping": [10**300] * 29}, r"is 1e\+300 N m s/rad, expected 0 to 1000"),
        ({"observation_history_lengths": ",".join("15111111")}, "a history of 5 steps, expected 1"),
        ({"observation_history_lengths": "1,1"}, "2 values for 8 observation terms"),
        ({"observation_history_lengths": "inf"}, "holds 'inf', expected a whole number"),
        ({"observation_terms_scale": ",".join(["2.000"] * 8)}, "holds 2, expected 1 throughout"),
        ({"observation_terms_clip": ",".join(["-5;5"] * 8)}, "holds -5, expected no bounds"),
        ({"anchor_body_name": "head"}, "anchor_body_name 'head' is not in body_names"),
        ({"body_names": "pelvis,torso"}, "Unknown body 'torso'; did you mean 'torso_link'"),
        (
            {"observation_names": "joint_pos,actions"},
            r"'obs' has shape \[1, 160\], expected \[1, 5",
        ),
    ],
)
def test_bad_metadata_gives_one_sentence(tmp_path, change, message):
    foreign(tmp_path / "p.onnx", rounded_metadata())
    if "observation_names" in change:
        lengths = ",".join(["1"] * len(change["observation_names"].split(",")))
        change = change | {
            "observation_history_lengths": lengths, "observation_terms_history_length": lengths
        }  # fmt: skip
    config = config_of(change, tmp_path / "c.json")
    with pytest.raises(PolicyError, match=message) as error:
        load_policy(tmp_path / "p.onnx", config=config)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_bad_configs_give_one_sentence(tmp_path):
    foreign(tmp_path / "p.onnx", rounded_metadata())
    config = tmp_path / "c.json"
    for text, message in {
        "{": "c.json: not a readable JSON file",
        "[1]": "c.json: holds no object",
        '{"joint_name": "a"}': "c.json: Unknown metadata key 'joint_name'; did you mean",
    }.items():
        config.write_text(text)
        with pytest.raises(PolicyError, match=message):
            load_policy(tmp_path / "p.onnx", config=config)
    with pytest.raises(PolicyError, match="absent.json: not a readable JSON file"):
        load_policy(tmp_path / "p.onnx", config=tmp_path / "absent.json")


# --- what a policy may be given as ---


def test_references(tmp_path, monkeypatch, written):
    run = tmp_path / "my_run"
    run.mkdir()
    (run / "policy.onnx").write_bytes(written.read_bytes())
    assert load_policy(run).name == "my_run"
    assert load_policy(str(run / "policy.onnx")).name == "my_run"
    assert load_policy(written).name == "wiggle"
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "wiggle.onnx").write_bytes(written.read_bytes())
    monkeypatch.setattr("bm_envs.policy.resolve.SHIPPED", shipped)
    monkeypatch.chdir(tmp_path)
    assert load_policy("wiggle").path == shipped / "wiggle.onnx"
    (tmp_path / "wiggle").mkdir()
    (tmp_path / "wiggle" / "policy.onnx").write_bytes(written.read_bytes())
    assert load_policy("wiggle").path == Path("wiggle/policy.onnx")  # a path wins
    for reference, message in {
        "wigle": "Unknown policy 'wigle'; did you mean 'wiggle'",
        "hub:mine": "'hub:mine': is no policy of the Hub, expected hub:OWNER/NAME[@REVISION].",
        "runs/none": "runs/none: no such policy file or run directory",
        "absent.onnx": "absent.onnx: no such policy file",
        "shipped": "shipped: holds no policy.onnx, expected a run directory",
    }.items():
        with pytest.raises(PolicyError, match=re.escape(message)):
            load_policy(reference)


def test_observations_of_the_wrong_size_are_refused(written):
    with pytest.raises(PolicyError, match=r"shape \(3, 154\), expected \(N, 160\)"):
        load_policy(written)(np.zeros((3, 154), np.float32))


# --- checkpoints ---


@pytest.mark.parametrize("residual", [False, True])
def test_a_checkpoint_becomes_the_network_it_holds(tmp_path, residual):
    scale = tuple(float(v) for v in 0.5 * g1.ACTION_SCALE)
    mlp = make_mlp(residual=residual)
    if residual:
        mlp = dataclasses.replace(mlp, residual_scale=np.array(scale))
    save_checkpoint(tmp_path / "run", mlp, residual, drives={"action_scale": scale})
    back = mlp_from_checkpoint(tmp_path / "run")
    obs = np.random.default_rng(0).normal(size=(20, 160)).astype(np.float32)
    # obs_scale went through a square and a root in float32.
    np.testing.assert_allclose(back(obs), torch_network(mlp)(obs), atol=2e-5)
    assert (back.residual_offset is not None) == residual


# --- descriptions and test vectors ---


def test_policy_json(tmp_path, written, clip):
    path = tmp_path / "policy.json"
    write_policy_json(
        path, SPEC, onnx_file=written, motions=[clip], embedded=True, licence="Apache-2.0",
        training={"env_steps": 1000, "wall_s": 2.5}, evaluation=[{"protocol": "clip"}],
    )  # fmt: skip
    value = read_policy_json(path)
    assert [(t["name"], t["start"], t["stop"]) for t in value["observation"]] == [
        ("command", 0, 58), ("motion_anchor_pos_b", 58, 61), ("motion_anchor_ori_b", 61, 67),
        ("base_lin_vel", 67, 70), ("base_ang_vel", 70, 73), ("joint_pos", 73, 102),
        ("joint_vel", 102, 131), ("actions", 131, 160),
    ]  # fmt: skip
    assert value["action"]["stiffness"] == list(g1.STIFFNESS)
    assert value["action"]["effort_limit"][3] == 139  # left knee
    assert value["motions"][0]["sha256"] == clip.sha256()
    assert value["training"] == {"env_steps": 1000, "wall_s": 2.5}
    assert "joint_pos" not in value["motions"][0]
    for content in ("{}", "nonsense", '{"format": "other"}'):
        path.write_text(content)
        with pytest.raises(PolicyError, match="policy.json: not a"):
            read_policy_json(path)


def test_the_description_is_found_beside_the_file(tmp_path, written):
    (tmp_path / "walk.onnx").write_bytes(written.read_bytes())
    assert load_policy(tmp_path / "walk.onnx").info is None
    write_policy_json(tmp_path / "walk.json", SPEC, training={"env_steps": 7})
    assert load_policy(tmp_path / "walk.onnx").info["training"]["env_steps"] == 7


def test_the_documentation_shows_the_layout_of_the_code():
    text = (Path(__file__).parents[2] / "docs" / "policy_files.md").read_text()
    full = {row["name"]: row for row in observation_table(SPEC)}
    short = PolicySpec.for_g1(NO_STATE_ESTIMATION_TERMS).observation_slices()
    for name, row in full.items():
        without = f"{short[name].start}:{short[name].stop}" if name in short else "-"
        line = (
            f"| `{name}` | {row['start']}:{row['stop']} | {without} | {row['size']} | "
            f"{row['frame']} | {row['unit']} | {row['meaning']} |"
        )
        assert line in text, line


@pytest.mark.parametrize("names", [POLICY_TERMS, NO_STATE_ESTIMATION_TERMS])
def test_vectors_agree_with_mujoco(tmp_path, names):
    """The written cases against MuJoCo's link poses and its sensors' velocities."""
    spec = dataclasses.replace(
        isaac_spec(), observation_names=names, observation_history_lengths=()
    )
    mlp = make_mlp(spec.observation_size)
    write_test_vectors(tmp_path / "vectors.json", mlp, spec, cases=8, seed=3)
    content = json.loads((tmp_path / "vectors.json").read_text())
    assert len(content["cases"]) == 8 and content["joint_names"] == list(g1.ISAAC_JOINT_NAMES)
    model = mjcf.compile_model(mjcf.ModelConfig(), tracked=("pelvis", "torso_link"))
    data = mujoco.MjData(model)
    order = [model.joint(name).qposadr[0] for name in content["joint_names"]]
    layout = {
        row["name"]: slice(row["start"], row["stop"]) for row in content["observation_layout"]
    }
    for case in content["cases"]:
        robot, reference = case["robot"], case["reference"]
        data.qpos[:3], data.qpos[3:7] = robot["root_pos_w"], robot["root_quat_w"]
        data.qpos[order] = robot["joint_pos"]
        pelvis = np.empty(9)
        mujoco.mju_quat2Mat(pelvis, np.array(robot["root_quat_w"]))
        pelvis = pelvis.reshape(3, 3)
        data.qvel[:3] = robot["root_lin_vel_w"]
        data.qvel[3:6] = pelvis.T @ robot["root_ang_vel_w"]
        mujoco.mj_forward(model, data)
        torso = data.body("torso_link")
        wanted_quat, wanted = np.empty(4), np.empty(9)
        inverse = np.empty(4)
        mujoco.mju_negQuat(inverse, torso.xquat)
        mujoco.mju_mulQuat(wanted_quat, inverse, np.array(reference["anchor_quat_w"]))
        mujoco.mju_quat2Mat(wanted, wanted_quat)
        offset = np.empty(3)
        mujoco.mju_rotVecQuat(offset, np.array(reference["anchor_pos_w"]) - torso.xpos, inverse)
        velocity = np.empty(6)
        mujoco.mj_objectVelocity(
            model, data, mujoco.mjtObj.mjOBJ_XBODY, model.body("pelvis").id, velocity, 1
        )
        expected = {
            "command": [*reference["joint_pos"], *reference["joint_vel"]],
            "motion_anchor_pos_b": offset,
            "motion_anchor_ori_b": wanted[[0, 1, 3, 4, 6, 7]],
            "base_lin_vel": velocity[3:],
            "base_ang_vel": velocity[:3],
            "joint_pos": np.array(robot["joint_pos"]) - np.array(spec.default_joint_pos),
            "joint_vel": robot["joint_vel"],
            "actions": robot["last_action"],
        }
        obs = np.array(case["observation"])
        assert len(obs) == spec.observation_size
        for name, where in layout.items():
            # float64 on both sides; body offsets carry six digits in both.
            np.testing.assert_allclose(obs[where], expected[name], atol=1e-9, err_msg=name)
        np.testing.assert_allclose(case["action"], mlp(obs[None].astype(np.float32))[0], atol=1e-6)
        target = np.array(spec.default_joint_pos) + np.array(spec.action_scale) * case["action"]
        np.testing.assert_allclose(case["joint_target"], target, atol=1e-12)


def test_vectors_are_the_same_for_the_same_seed():
    mlp = make_mlp()
    assert make_test_vectors(mlp, SPEC, seed=1) == make_test_vectors(mlp, SPEC, seed=1)
    assert make_test_vectors(mlp, SPEC, seed=1) != make_test_vectors(mlp, SPEC, seed=2)


def test_importing_loads_no_heavy_package():
    code = (
        "import sys, bm_envs.policy; heavy = ('torch', 'onnx', 'onnxruntime', 'huggingface_hub'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def plain_network(path, dtype):
    """The actor of a file as plain loops, sums term after term, in one type throughout."""
    model = onnx.load(path)
    arrays = {t.name: numpy_helper.to_array(t).astype(dtype) for t in model.graph.initializer
              if t.name.startswith(("obs_", "weight_", "bias_", "residual_"))}  # fmt: skip
    layers = sum(name.startswith("weight_") for name in arrays)
    assert "Elu" in {node.op_type for node in model.graph.node}

    def act(obs):
        obs = np.asarray(obs, dtype)
        x = (obs - arrays["obs_mean"]) / arrays["obs_scale"]
        for i in range(layers):
            total = np.zeros(len(arrays[f"bias_{i}"]), dtype)
            for k in range(len(x)):
                total = total + arrays[f"weight_{i}"][:, k] * x[k]
            x = total + arrays[f"bias_{i}"]
            if i < layers - 1:
                x = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
        if "residual_offset" in arrays:
            x = x + (obs[: len(x)] - arrays["residual_offset"]) / arrays["residual_scale"]
        return x

    return act


@pytest.mark.parametrize("name", shipped_policies())
def test_the_promised_tolerance_holds_for_other_implementations(name):
    """The page's: 32 epsilons of float32 of the largest action of the case, at least of 1.

    Sums in another order in float32, the same in float64, and the runtime; `exp(x) - 1` in place of
    `expm1`, as a reader of the page may write it.
    """
    vectors = shipped_test_vectors(name)
    runtime = load_policy(name)
    implementations = [
        plain_network(runtime.path, np.float32),
        plain_network(runtime.path, np.float64),
        lambda obs: runtime(np.asarray(obs)[None])[0],
    ]
    scale, default = np.array(runtime.spec.action_scale), np.array(runtime.spec.default_joint_pos)
    for case in vectors["cases"]:
        action = np.array(case["action"])
        most = ACTION_TOLERANCE * max(1.0, np.abs(action).max())
        for act in implementations:
            np.testing.assert_allclose(act(case["observation"]), action, rtol=0, atol=most)
        np.testing.assert_allclose(case["joint_target"], default + scale * action, atol=1e-12)


def test_the_old_promise_did_not_hold():
    """The premise: 1e-5 for all actions is less than float32 gives where they reach 37."""
    off = 0.0
    for name in ("builtin", "walk"):
        vectors = shipped_test_vectors(name)
        act = plain_network(load_policy(name).path, np.float32)
        for case in vectors["cases"]:
            off = max(off, np.abs(act(case["observation"]) - np.array(case["action"])).max())
    assert off > 1e-5


def test_the_metadata_tell_the_effort_limits(tmp_path):
    """Of new files; those before load with the robot table's."""
    write_onnx(tmp_path / "p.onnx", make_mlp(), SPEC, make_clip(5))
    policy = load_policy(tmp_path / "p.onnx")
    assert policy.spec.joint_effort_limit == tuple(g1.EFFORT_LIMIT)
    model = onnx.load(tmp_path / "p.onnx")
    (told,) = [e.value for e in model.metadata_props if e.key == "joint_effort_limit"]
    assert [float(v) for v in told.split(",")] == list(g1.EFFORT_LIMIT)
    kept = [e for e in model.metadata_props if e.key != "joint_effort_limit"]
    entries = {e.key: e.value for e in kept}
    helper.set_model_props(model, entries)
    (tmp_path / "old.onnx").write_bytes(model.SerializeToString())
    assert load_policy(tmp_path / "old.onnx").spec == policy.spec
    assert isaac_spec().joint_effort_limit == tuple(
        g1.EFFORT_LIMIT[g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)]
    )
    for name in shipped_policies():
        spec = load_policy(name).spec
        assert spec.joint_effort_limit == tuple(spec.robot.effort_limit)
