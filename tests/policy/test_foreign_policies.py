"""Policies of unitree_rl_lab and holosoma: read as they are meant, or refused by name."""

import copy
import json
import warnings

import numpy as np
import onnx
import pytest
import yaml
from foreign_exports import (
    HOLOSOMA,
    ISAAC_MOTORS,
    MOTOR_NAMES,
    deploy_yaml,
    drives,
    holosoma_metadata,
    reordered,
)
from hostile_limits import SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st

from bm_envs import evaluation
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMWarning, PolicyError
from bm_envs.motion.library import load_motion
from bm_envs.policy import load_policy, plain_yaml, unitree
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, TERMS

SORTED = sorted(POLICY_TERMS, key=lambda term: HOLOSOMA.get(term, term))


@pytest.fixture(scope="module")
def clip():
    return load_motion("walk[0:3]")


def tracked(policy, clip):
    """Every action and state of the clip protocol, in the project's order."""
    task = evaluation.protocol_task(policy, "clip")
    env = TrackVectorEnv(1, [clip], config=task, autoreset_mode="disabled", critic="none")
    act, rows = evaluation.in_project_order(policy), []

    def remember(obs):
        action = act(obs)
        rows.append(np.concatenate([action[0], env.simulator.joint_pos[0]]))
        return action

    found = evaluation.run_episodes(remember, env)
    env.close()
    return found, np.array(rows)


def same_as_walk(policy, clip):
    found, rows = tracked(policy, clip)
    expected, wanted = tracked(load_policy("walk"), clip)
    assert expected.completed.all() and len(wanted) == clip.num_frames - 1  # premise: it walks
    # The same products in the same order behind a permutation: not one bit differs.
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(found.reached, expected.reached)


def save(path, model, config=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    if config is not None:
        text = config if isinstance(config, str) else dump(config)
        (path.parent / "deploy.yaml").write_text(text)
    return path, path.parent / "deploy.yaml"


def dump(config):
    return yaml.dump(config, default_flow_style=None, sort_keys=False)


# --- deploy.yaml ---


def test_a_walk_exported_by_unitree_tracks_as_ours(tmp_path, clip):
    joints = [MOTOR_NAMES[motor] for motor in ISAAC_MOTORS]
    assert tuple(joints) == g1.ISAAC_JOINT_NAMES
    path, config = save(tmp_path / "policy.onnx", reordered(POLICY_TERMS, joints), deploy_yaml())
    policy = load_policy(path, config=config)
    assert policy.spec.joint_names == g1.ISAAC_JOINT_NAMES
    for key, of in drives().items():
        expected = [of[joint] for joint in joints]
        assert list(getattr(policy.spec, key)) == pytest.approx(expected, rel=1e-12)
    same_as_walk(policy, clip)


def test_gains_taken_as_listed_are_others_and_the_robot_falls(tmp_path, clip):
    """The premise of the two orders: without the map the same file does not walk."""
    joints = [MOTOR_NAMES[motor] for motor in ISAAC_MOTORS]
    path, config = save(tmp_path / "policy.onnx", reordered(POLICY_TERMS, joints), deploy_yaml())
    told = unitree.read_deploy_yaml(config, 0.02)
    listed = deploy_yaml()
    as_listed = {**told, "joint_stiffness": listed["stiffness"], "joint_damping": listed["damping"]}
    assert as_listed["joint_stiffness"] != told["joint_stiffness"]
    (tmp_path / "c.json").write_text(json.dumps(as_listed))
    found, rows = tracked(load_policy(path, config=tmp_path / "c.json"), clip)
    right, wanted = tracked(load_policy("walk"), clip)
    assert not np.array_equal(rows[: len(wanted)], wanted[: len(rows)])


@pytest.mark.parametrize("order", ["motors", "random"])
def test_other_orders_of_joints_and_terms(tmp_path, clip, order):
    rng = np.random.default_rng(0)
    motors = list(range(29)) if order == "motors" else rng.permutation(29).tolist()
    terms = POLICY_TERMS if order == "motors" else tuple(rng.permutation(POLICY_TERMS).tolist())
    joints = [MOTOR_NAMES[motor] for motor in motors]
    config = deploy_yaml(terms, motors)
    path, config = save(tmp_path / "policy.onnx", reordered(terms, joints), config)
    same_as_walk(load_policy(path, config=config), clip)


def test_what_the_exporters_write_is_read(tmp_path):
    """Tags of Python objects, missing scales, one number as scale, two terms for the command."""
    of = deploy_yaml()
    expected = unitree.read_deploy_yaml(_written(tmp_path, of), 0.02)
    text = dump(of).replace(
        "joint_ids: null", "joint_ids: !!python/object/apply:builtins.slice [null, null, null]"
    )
    assert "builtins.slice" in text
    assert unitree.read_deploy_yaml(_written(tmp_path, text), 0.02) == expected
    one = copy.deepcopy(of)
    one["actions"]["JointPositionAction"]["scale"] = 0.25
    del one["actions"]["JointPositionAction"]["offset"]
    one["observations"]["base_ang_vel"] = {"params": {}, "scale": None, "history_length": 0}
    found = unitree.read_deploy_yaml(_written(tmp_path, one), 0.02)
    assert found["action_scale"] == [0.25] * 29
    two = copy.deepcopy(of)
    command = two["observations"].pop("motion_command")
    halves = {name: command for name in ("motion_joint_pos", "motion_joint_vel")}
    two["observations"] = halves | two["observations"]
    text = dump(two)
    assert "&id001" in text and "*id001" in text  # an alias, as PyYAML writes equal objects
    assert unitree.read_deploy_yaml(_written(tmp_path, text), 0.02) == expected
    rounded = json.loads(json.dumps(of), parse_float=lambda v: float(f"{float(v):.3g}"))
    found = unitree.read_deploy_yaml(_written(tmp_path, rounded), 0.02)
    assert found["joint_stiffness"] == pytest.approx(expected["joint_stiffness"], rel=5e-3)


def _written(folder, config):
    path = folder / "deploy.yaml"
    path.write_text(config if isinstance(config, str) else dump(config))
    return path


def _set(*keys, value):
    def change(config):
        for key in keys[:-1]:
            config = config[key]
        if value is ...:
            del config[keys[-1]]
        else:
            config[keys[-1]] = value

    return change


def _terms(change):
    def edit(config):
        config["observations"] = change(config["observations"])

    return edit


TERM = {"params": {}, "clip": None, "scale": [1.0, 1.0, 1.0], "history_length": 1}
SOME = {"params": {"asset_cfg": {"joint_ids": [0, 1]}}}
ACTION = "JointPositionAction"
REFUSED = {
    "a velocity policy": (_terms(lambda t: t | {"velocity_commands": TERM}),
                          "is of a velocity policy, which observes 'velocity_commands'"),
    "a gait": (_terms(lambda t: t | {"gait_phase": TERM}), "is of a velocity policy"),
    "gravity": (_terms(lambda t: t | {"projected_gravity": TERM}),
                "Unknown observation 'projected_gravity'"),
    "half a command": (_terms(lambda t: {"motion_joint_pos": TERM} | t),
                       "Unknown observation 'motion_joint_pos'"),
    "no terms": (_set("observations", value=...), "'observations' is missing or no mapping"),
    "a list of terms": (_set("observations", value=["a"]), "'observations' is missing"),
    "a term of null": (_set("observations", "base_ang_vel", value=None), "'base_ang_vel' is missi"),
    "history": (_set("observations", "base_ang_vel", "history_length", value=5),
                "'base_ang_vel' wants a history of 5 steps"),
    "history of true": (_set("observations", "base_ang_vel", "history_length", value=True),
                        "wants a history of True steps"),
    "scaled": (_set("observations", "base_ang_vel", "scale", value=[0.2, 0.2, 0.2]),
               "'base_ang_vel' is scaled, expected a scale of 1"),
    "scaled by nan": (_set("observations", "base_ang_vel", "scale", value=float("nan")),
                      "'base_ang_vel' is scaled"),
    "scaled by text": (_set("observations", "base_ang_vel", "scale", value="one"),
                       "scale of base_ang_vel holds 'one', expected a number"),
    "clipped": (_set("observations", "base_ang_vel", "clip", value=[-5, 5]), "is clipped"),
    "some joints": (_set("observations", "joint_pos_rel", "params", value=SOME["params"]),
                    "Observation 'joint_pos_rel' is of some joints"),
    "no map": (_set("joint_ids_map", value=...), "holds no 'joint_ids_map'"),
    "a map of 23": (_set("joint_ids_map", value=list(range(23))), "joint_ids_map holds 23 numbers"),
    "a map of 12": (_set("joint_ids_map", value=list(range(12))), "joint_ids_map holds 12 numbers"),
    "a motor twice": (_set("joint_ids_map", 3, value=0), "expected the G1's motors 0 to 28 once"),
    "half a motor": (_set("joint_ids_map", 0, value=0.5), "expected the G1's motors"),
    "a motor below 0": (_set("joint_ids_map", 0, value=-29), "expected the G1's motors"),
    "texts as motors": (_set("joint_ids_map", value=["a"] * 29), "joint_ids_map holds 29 values"),
    "a map that is a number": (_set("joint_ids_map", value=3), "joint_ids_map holds 3, expected a"),
    "200 Hz": (_set("step_dt", value=0.005), "step_dt is 0.005 s, expected 0.02"),
    "no step": (_set("step_dt", value=...), "step_dt holds 1 values, expected 1 finite numbers"),
    "step of nan": (_set("step_dt", value=float("nan")), "step_dt holds 1 values"),
    "25 gains": (_set("stiffness", value=[1.0] * 25), "stiffness holds 25 values, expected 29"),
    "gains of nan": (_set("damping", 3, value=float("nan")), "damping holds 29 values, expected"),
    "gains of true": (_set("damping", 3, value=True), "damping holds 29 values, expected"),
    "a gain of a billion": (_set("stiffness", 3, value=1e9), r"is 1e\+09 N m/rad, expected above"),
    "a gain below 0": (_set("damping", 3, value=-1.0), "is -1 N m s/rad, expected 0 to"),
    "a pose in degrees": (lambda c: (_set("default_joint_pos", 9, value=38.3)(c),
                                     _set("actions", ACTION, "offset", 9, value=38.3)(c)),
                          "is 38.3 rad, expected"),
    "a scale of 0": (_set("actions", ACTION, "scale", value=0), "is 0 rad, expected above 0"),
    "no scale": (_set("actions", ACTION, "scale", value=...), "scale holds 29 values, expected 29"),
    "another offset": (_set("actions", ACTION, "offset", 0, value=0.5),
                       "offset of JointPositionAction differs from default_joint_pos"),
    "clipped targets": (_set("actions", ACTION, "clip", value=[[-1, 1]] * 29),
                        "JointPositionAction clips its targets"),
    "some joints act": (_set("actions", ACTION, "joint_ids", value=[0, 1]), "name some joints"),
    "another action": (_set("actions", "JointVelocityAction", value={}), "actions are JointPositi"),
    "no action": (_set("actions", value={}), "actions are none, expected"),
    "actions of null": (_set("actions", value=None), "'actions' is missing or no mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_deploy_yaml_that_is_not_a_trackers(tmp_path, name):
    change, message = REFUSED[name]
    config = deploy_yaml()
    change(config)
    _, path = save(tmp_path / "policy.onnx", reordered(POLICY_TERMS, g1.ISAAC_JOINT_NAMES), config)
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(tmp_path / "policy.onnx", config=path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def laughs(levels, wide=9):
    rows = ["a0: &a0 [x, x, x]"]
    for i in range(levels):
        rows.append(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * wide)}]")
    return "\n".join(rows)


BAD_YAML = {
    "laughs": laughs(12),
    "laughs in mappings": "\n".join(
        ["a0: &a0 {x: 1}"]
        + [f"a{i + 1}: &a{i + 1} {{a: *a{i}, b: *a{i}, c: *a{i}}}" for i in range(20)]
    ),
    "merge keys of laughs": "\n".join(
        ["a0: &a0 {x: 1}"]
        + [f"a{i + 1}: &a{i + 1}\n  <<: [*a{i}, *a{i}, *a{i}]" for i in range(20)]
    ),
    "itself": "a: &a [*a]",
    "itself in a mapping": "a: &a {b: *a}",
    "nowhere": "a: *b",
    "deep lists": "[" * 30000,
    "deep mappings": "{a: " * 8000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(300)),
    "dashes": "- " * 30000,
    "many values": "a: [" + "1," * 30000 + "]",
    "two documents": "a: 1\n---\nb: 2",
    "a key twice": "a: 1\na: 2",
    "a list as key": "? [a]\n: 1",
    "python": "!!python/object/apply:os.system ['touch marker']",
    "python in a key": "? !!python/object/apply:os.system ['touch marker']\n: 1",
    "python new": "a: !!python/object/new:os.system {args: ['touch marker']}",
    "python name": "a: !!python/name:os.system",
    "a tab": "a:\n\t- 1",
    "nul": "a: \0",
    "bytes": b"\xff\xfe\x00a",
    "half a letter": b"a: \xed\xa0\x80",
    "nothing": "",
    "a text": "walk",
    "a number": "3",
    "null": "null",
    "endless digits": "joint_ids_map: " + "1" * 10000,
    "sexagesimal": "joint_ids_map: 190:20:30:" + "59:" * 2000 + "1",
    "a date": "joint_ids_map: 2001-01-01",
    "octal": "joint_ids_map: 0o777",
    "too large": "a: " + "x" * 70000,
    "an open quote": "a: '",
    "an unknown directive": "%FOO\n---\na: 1",
    "a version": "%YAML 9.9\n---\na: 1",
    "a comment": "#" * 60000,
    "long anchor": f"a: &{'b' * 60000} 1",
    "json": '{"joint_ids_map": [0]}',
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_that_is_no_deploy_yaml(tmp_path, monkeypatch, name):
    import time

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "deploy.yaml"
    content = BAD_YAML[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.process_time()
    with pytest.raises(PolicyError) as caught:
        unitree.read_deploy_yaml(path, 0.02)
    assert time.process_time() - start < SECONDS
    told = str(caught.value)
    assert told.startswith(f"{path}: ") and "\n" not in told and len(told) < 400
    assert not (tmp_path / "marker").exists()


def test_laughs_are_laughs():
    """The premise: PyYAML's own safe loader makes billions of values of those bytes."""
    small = yaml.safe_load(laughs(3))
    assert len(json.dumps(small["a3"])) > 9**3


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc _-.:#[]{}'\"", max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text("abc_", min_size=1, max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN, st.sampled_from([None, True, False]))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_yaml_is_read_as_pyyaml_reads_it(value, style):
    """A second implementation: on plain data this reader and `safe_load` agree."""
    text = yaml.safe_dump(value, default_flow_style=style)
    assert plain_yaml.parse_yaml(text) == yaml.safe_load(text)


@given(st.text(st.sampled_from("ab:- \n[]{},&*!|>'\"#%?01.~\t"), max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_yaml_or_a_value_error(text):
    try:
        plain_yaml.parse_yaml(text)
    except ValueError as error:
        assert "\n" not in str(error)


def test_the_error_tells_of_the_deploy_yaml(tmp_path):
    model = reordered(POLICY_TERMS, g1.ISAAC_JOINT_NAMES)
    path, _ = save(tmp_path / "exported" / "policy.onnx", model)
    with pytest.raises(PolicyError, match="metadata lacks joint_names"):
        load_policy(path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "deploy.yaml").write_text(dump(deploy_yaml()))
    with pytest.raises(PolicyError, match="params/deploy.yaml may: give it as --policy-config"):
        load_policy(path)
    assert (
        load_policy(path, config=tmp_path / "params" / "deploy.yaml").spec.observation_size == 160
    )


def test_an_observation_of_another_size_is_refused(tmp_path):
    config = deploy_yaml(tuple(t for t in POLICY_TERMS if t != "base_lin_vel"))
    path, config = save(tmp_path / "p.onnx", reordered(POLICY_TERMS, g1.ISAAC_JOINT_NAMES), config)
    with pytest.raises(PolicyError, match=r"'obs' has shape \[1, 160\], expected \[1, 157\] for"):
        load_policy(path, config=config)


# --- holosoma ---


def holosoma_config(tmp_path, **more):
    of = drives()
    config = {
        "observation_names": sorted(HOLOSOMA.get(term, term) for term in POLICY_TERMS),
        "default_joint_pos": list(of["default_joint_pos"].values()),
        "action_scale": list(of["action_scale"].values()),
    }
    (tmp_path / "c.json").write_text(json.dumps(config | more))
    return tmp_path / "c.json"


def torso_motion(clip):
    """The clip as holosoma's exporter writes it: joints, and the torso's pose with w last."""
    torso = g1.BODY_NAMES.index("torso_link")
    return {
        "joint_pos": clip.joint_pos, "joint_vel": clip.joint_vel,
        "ref_pos_xyz": clip.body_pos_w[:, torso],
        "ref_quat_xyzw": clip.body_quat_w[:, torso][:, [1, 2, 3, 0]],
    }  # fmt: skip


def test_a_walk_exported_by_holosoma_tracks_as_ours(tmp_path, clip):
    model = reordered(
        SORTED, g1.JOINT_NAMES, metadata=holosoma_metadata(), motion=torso_motion(clip)
    )
    path, _ = save(tmp_path / "p.onnx", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # everything is told, so nobody is warned
        policy = load_policy(path, config=holosoma_config(tmp_path))
    assert list(policy.spec.observation_names) == SORTED and SORTED != list(POLICY_TERMS)
    same_as_walk(policy, clip)
    # The motion inside is the clip: float32 of metres, and the waist's chain forth and back.
    found = policy.embedded_clip()
    assert found.num_frames == clip.num_frames and found.fps == 50
    np.testing.assert_allclose(found.joint_pos, clip.joint_pos, atol=1e-6)
    np.testing.assert_allclose(found.body_pos_w, clip.body_pos_w, atol=5e-6)
    dots = np.abs((found.body_quat_w * clip.body_quat_w).sum(-1))
    np.testing.assert_allclose(dots, 1, atol=1e-6)
    # Central differences of float32 positions of a metre: two roundings of 6e-8 m over 0.04 s, and
    # the velocities that the clip is kept with have 11 bits. At the cut's last frame they are
    # one-sided.
    moves = found.body_lin_vel_w[:-1], clip.body_lin_vel_w[:-1]
    np.testing.assert_allclose(*moves, rtol=1e-3, atol=5e-4)
    tracks, _ = tracked(policy, found)
    assert tracks.completed.all()


def test_in_another_order_it_does_not_walk(tmp_path, clip):
    """The premise: sorted terms read in BeyondMimic's order are other numbers."""
    model = reordered(SORTED, g1.JOINT_NAMES, metadata=holosoma_metadata())
    path, _ = save(tmp_path / "p.onnx", model)
    unsorted = [HOLOSOMA.get(term, term) for term in POLICY_TERMS]
    config = holosoma_config(tmp_path, observation_names=unsorted)
    _, rows = tracked(load_policy(path, config=config), clip)
    assert not np.array_equal(rows[:5], tracked(load_policy("walk"), clip)[1][:5])


def small_holosoma(size=154, inputs=None, **metadata):
    """A random network with holosoma's signature."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.05, (size, 29)).astype(np.float32)
    make = helper.make_tensor_value_info
    name = inputs or "obs"
    graph = helper.make_graph(
        [helper.make_node("MatMul", [name, "w"], ["actions"])], "g",
        [make(name, TensorProto.FLOAT, [1, size])], [make("actions", TensorProto.FLOAT, [1, 29])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, holosoma_metadata() | metadata)
    return model


def test_what_holosoma_does_not_tell_is_its_preset_and_is_said(tmp_path):
    path, _ = save(tmp_path / "p.onnx", small_holosoma())
    with pytest.warns(BMWarning, match="do not tell observation_names, default_joint_pos, action_"):
        policy = load_policy(path)
    # Its preset, sorted by its own names, typed from config_values/wbt/g1/observation.py.
    assert policy.spec.observation_names == (
        "actions", "base_ang_vel", "joint_pos", "joint_vel", "command", "motion_anchor_ori_b",
    )  # fmt: skip
    assert sum(TERMS[t].size for t in policy.spec.observation_names) == 154
    assert policy.spec.action_scale == (1.0,) * 29
    # config_values/robot.py, left leg and left arm of g1_29dof
    assert policy.spec.default_joint_pos[:6] == (-0.312, 0, 0, 0.669, -0.363, 0)
    assert policy.spec.default_joint_pos[15:22] == (0.2, 0.2, 0, 0.6, 0, 0, 0)


NAMES = list(g1.JOINT_NAMES)


@pytest.mark.parametrize(
    ("size", "inputs", "metadata", "message"),
    [
        (160, None, {}, "takes 160 values where its preset has 154; give observation_names in"),
        (100, "actor_obs", {}, "is a velocity policy of holosoma"),
        (154, None, {"kp": "[1, 2]"}, "joint_stiffness holds 2 values, expected 29"),
        (154, None, {"kp": "1,2"}, "its metadata of holosoma are no JSON"),
        (154, None, {"kp": "[" * 5000}, "nests more than 64 deep"),
        (154, None, {"kp": "null"}, "kp of its holosoma metadata is no list"),
        (154, None, {"kp": json.dumps([1e9] * 29)}, r"is 1e\\+09 N m/rad"),
        (154, None, {"kp": json.dumps(["x"] * 29)}, "joint_stiffness holds 'x', expected a number"),
        (154, None, {"kp": json.dumps([True] * 29)}, "joint_stiffness holds True, expected a num"),
        (154, None, {"kd": "[NaN]"}, "NaN is no JSON number"),
        (154, None, {"dof_names": json.dumps(NAMES[:23])}, "joint_names holds 23 names"),
        (154, None, {"dof_names": json.dumps([*NAMES[:-1], NAMES[0]])}, "stands there more than"),
        (154, None, {"dof_names": json.dumps([[1]] * 29)}, "is none of them"),
        (154, None, {"dof_names": json.dumps(["T1_" + n for n in NAMES])}, "'T1_left_hip_pitch_jo"),
    ],
)  # fmt: skip
def test_files_of_holosoma_that_are_no_trackers(tmp_path, size, inputs, metadata, message):
    path, _ = save(tmp_path / "p.onnx", small_holosoma(size, inputs, **metadata))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BMWarning)
        with pytest.raises(PolicyError, match=message.replace("\\\\", "\\")) as caught:
            load_policy(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_motion_of_holosoma_that_is_none(tmp_path, clip):
    for change, message in (
        (lambda m: m | {"ref_quat_xyzw": np.zeros((len(clip.joint_pos), 4))}, "holds a zero"),
        (lambda m: m | {"ref_pos_xyz": np.full((len(clip.joint_pos), 3), np.nan)}, "not finite"),
        (lambda m: {k: v for k, v in m.items() if k != "ref_quat_xyzw"}, "lacks 'ref_quat_xyzw'"),
    ):
        model = reordered(SORTED, g1.JOINT_NAMES, metadata=holosoma_metadata(),
                          motion=change(torso_motion(clip)))  # fmt: skip
        path, _ = save(tmp_path / "p.onnx", model)
        with pytest.raises(PolicyError, match=message):
            load_policy(path, config=holosoma_config(tmp_path)).embedded_clip()


def test_a_policy_whose_layout_nobody_tells_is_not_run(tmp_path):
    """154 values and no names: of any of the three families, so of none."""
    model = small_holosoma()
    del model.metadata_props[:]
    path, _ = save(tmp_path / "p.onnx", model)
    with pytest.raises(PolicyError, match="metadata lacks joint_names, .*observation_names"):
        load_policy(path)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1].dim_value == 154
