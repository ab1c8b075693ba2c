"""What a policy's file shows of a look-up: six constructions of cheats, and all honest policies."""

import json
import os
from pathlib import Path

import cheating_policies as cheats
import numpy as np
import onnx
import pytest
from foreign_exports import reordered
from oracle_dance import dance_config
from policy_files import make_clip, make_mlp

from bm_envs import evaluation
from bm_envs.errors import BMError
from bm_envs.motion.library import load_motion
from bm_envs.policy import (
    TRACKER,
    PolicySpec,
    load_policy,
    named_clip,
    named_motions,
    remove_motion,
    shipped_files,
    write_onnx,
)
from bm_envs.policy.examination import examine, weights_of

CLIP = "walk[1:4]"
ORACLES = Path(os.environ.get("BM_DATA_DIR", "/nonexistent")) / "oracle_policies"


@pytest.fixture(scope="module")
def clip():
    return load_motion(CLIP)


@pytest.fixture(scope="module")
def by_frame(clip):
    """A run of the shipped walk without chance."""
    return cheats.record(load_policy("walk"), clip, "clip")


@pytest.fixture(scope="module")
def by_seed(clip):
    """Episodes of a public seed."""
    return cheats.record(load_policy("walk"), clip, "robust", episodes=12, notes=True)


def examined(path, clip, config=None):
    policy = load_policy(path, config=config)
    return examine(policy, evaluation.observations(policy, clip, steps=30))


# --- look-ups -------------------------------------------------------------------------------------

SIGNS = {
    "gather": "reads a table",
    "where_equal": "Equal compares",
    "softmax": "speak at a time",
    "relu_kernel": "speak at a time",
    "convolution": "speak at a time",
    "ramps": "looks in 1 direction only",
}


@pytest.mark.parametrize("construction", cheats.CONSTRUCTIONS)
def test_a_look_up_by_frame_is_seen(construction, by_frame, clip, tmp_path):
    path = tmp_path / "cheat.onnx"
    cheats.by_frame(path, construction, by_frame)
    found = examined(path, clip)
    assert any(SIGNS[construction] in sentence for sentence in found), found
    assert any("do not depend on what the robot senses" in sentence for sentence in found), found


@pytest.mark.parametrize("construction", [c for c in cheats.CONSTRUCTIONS if c != "ramps"])
def test_a_look_up_by_seed_is_seen(construction, by_seed, clip, tmp_path):
    path = tmp_path / "cheat.onnx"
    cheats.by_seed(path, construction, by_seed)
    found = examined(path, clip)
    assert any(SIGNS[construction] in sentence for sentence in found), found


# --- honest policies ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_files(TRACKER))
def test_shipped_policies_show_nothing(name):
    policy = load_policy(name)
    try:
        # Only one of them, as `walks` has dozens that are computed.
        named = named_motions(policy)
        motion = named_clip(policy, named[0]) if named else policy.embedded_clip()
    except BMError as error:
        pytest.skip(f"its motion is not at hand: {error}")
    assert examine(policy, evaluation.observations(policy, motion, steps=15)) == []


@pytest.mark.skipif(not ORACLES.is_dir(), reason="BM_DATA_DIR with oracle_policies/ is not set")
@pytest.mark.parametrize("oracle", ["jump_wose/Jump_wose.onnx", "dance1_subject2/policy.onnx"])
def test_policies_made_elsewhere_show_nothing(oracle, tmp_path):
    """One has a normalizer, both have layers of 512, and the jump reads its motion by a Gather."""
    config = None
    if oracle.startswith("dance"):
        config = tmp_path / "dance.json"
        config.write_text(json.dumps(dance_config()))
    policy = load_policy(ORACLES / oracle, config=config)
    motion = load_motion("dance1_subject2[0:10]") if config else policy.embedded_clip()
    assert examine(policy, evaluation.observations(policy, motion, steps=30)) == []


def test_exports_in_other_orders_show_nothing(clip, tmp_path):
    """Gathers by constant indices on either side, and a motion read at `time_step`."""
    spec = load_policy("walk").spec
    model = reordered(
        spec.observation_names[::-1], spec.joint_names, metadata={
            **spec.to_metadata(), "observation_names": ",".join(spec.observation_names[::-1]),
        },
    )  # fmt: skip
    onnx.save(model, tmp_path / "foreign.onnx")
    assert examined(tmp_path / "foreign.onnx", clip) == []


@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
def test_untrained_networks_show_nothing(activation, clip, tmp_path):
    path = tmp_path / "policy.onnx"
    mlp = make_mlp(hidden=(256, 128), activation=activation)
    write_onnx(path, mlp, PolicySpec.for_g1(), make_clip())
    assert examined(path, clip) == []


# --- single signs ---------------------------------------------------------------------------------


@pytest.fixture
def changed(tmp_path):
    """A policy of ours after a change of its graph."""

    def make(change):
        path = tmp_path / "policy.onnx"
        write_onnx(path, make_mlp(hidden=(64, 64)), PolicySpec.for_g1(), None)
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)
        return path

    return make


def test_an_action_that_is_always_the_same_is_seen(changed, clip):
    def still(graph):
        for tensor in graph.initializer:
            if tensor.name == "weight_2":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((29, 64), "f4"), "weight_2"))

    found = examined(changed(still), clip)
    assert "actions do not depend on the observation" in found


def test_constants_that_nothing_needs_are_seen(changed, clip):
    table = np.zeros((300, 29), np.float32)

    def hide(graph):
        graph.initializer.append(onnx.numpy_helper.from_array(table, "hidden"))

    found = examined(changed(hide), clip)
    assert found == ["8700 constants are in the file that no output needs"]


def test_a_table_laid_against_the_observation_is_seen(changed, clip):
    """The distance to 500 keys, as a difference; its weight in the action is nothing."""

    def lay(graph):
        for array, name in (
            (np.ones((500, 160), "f4"), "keys"), (np.zeros(1, "f4"), "nothing"),
            (np.array([0]), "across"),
        ):  # fmt: skip
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        last = graph.node[-1]
        last.output[0] = "plain"
        make = onnx.helper.make_node
        graph.node.extend([
            make("Sub", ["obs", "keys"], ["laid"]),
            make("ReduceMean", ["laid"], ["mean"], axes=[0, 1], keepdims=1),
            make("Mul", ["mean", "nothing"], ["none"]),
            make("Add", ["plain", "none"], ["actions"]),
        ])  # fmt: skip

    found = examined(changed(lay), clip)
    assert "the operator Sub lays a table of 500 x 160 numbers against 160 values of the " in str(
        found
    )


def test_weights_are_known_again_under_another_name(tmp_path):
    """Names in the file, its metadata, the motion inside it and a changed layer do not hide it."""
    paths = shipped_files(TRACKER)
    layers = {name: weights_of(path) for name, path in paths.items()}
    assert len(layers["walk"]) == 3
    assert sum(map(len, layers.values())) == len(frozenset().union(*layers.values()))
    remove_motion(paths["walk"], tmp_path / "mine.onnx")
    model = onnx.load(tmp_path / "mine.onnx")
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [f"my_{n}" if n == tensor.name else n for n in node.input]
        tensor.name = f"my_{tensor.name}"
    onnx.save(model, tmp_path / "mine.onnx")
    assert weights_of(tmp_path / "mine.onnx") == layers["walk"]
    for tensor in model.graph.initializer:
        if tensor.name == "my_weight_2":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0, 0] += np.float32(1e-3)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "mine.onnx")
    assert len(weights_of(tmp_path / "mine.onnx") & layers["walk"]) == 2
