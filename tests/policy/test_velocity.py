"""Published velocity policies: their layouts against frames written out by hand, made-up files."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bm_envs.errors import PolicyError
from bm_envs.policy.velocity import (
    FAMILIES,
    Asap,
    Holosoma,
    RlLab,
    Seen,
    is_velocity_policy,
    load_velocity_policy,
)
from bm_envs.robots import g1

ISAAC = [g1.JOINT_NAMES.index(name) for name in g1.ISAAC_JOINT_NAMES]


def write(path, inputs, outputs, weights=None, *, batch=1):
    """A linear network with a bias of 0.01 an output."""
    weights = np.zeros((inputs, outputs), np.float32) if weights is None else weights
    tensors = {"w": weights.astype(np.float32), "b": np.full(outputs, 0.01, np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["obs", "w", "b"], ["out"])], "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [batch, inputs])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(path),
    )
    return path


def seen(seed=0, n=2, **changes):
    rng = np.random.default_rng(seed)
    gravity = rng.normal(size=(n, 3))
    found = Seen(
        gravity, rng.normal(size=(n, 3)), rng.normal(size=(n, 29)), rng.normal(size=(n, 29)),
        rng.normal(size=(n, 3)), np.full((n, 2), 0.5), rng.normal(size=(n, 14)), False,
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def test_the_joints_orders_are_those_of_the_published_files():
    """rl_lab's deploy.yaml at e72a072 has the map of its order to the motors'."""
    published = [0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24, 18, 25,
                 19, 26, 20, 27, 21, 28]  # fmt: skip
    assert published == ISAAC
    # Its default pose, joint by joint.
    pose = dict(zip(g1.JOINT_NAMES, FAMILIES["rl_lab"].pose, strict=True))
    for side, sign in (("left", 1), ("right", -1)):
        assert pose[f"{side}_hip_pitch_joint"] == -0.1 and pose[f"{side}_knee_joint"] == 0.3
        assert pose[f"{side}_ankle_pitch_joint"] == -0.2 and pose[f"{side}_elbow_joint"] == 0.97
        assert pose[f"{side}_shoulder_pitch_joint"] == 0.3
        assert pose[f"{side}_shoulder_roll_joint"] == sign * 0.25
        assert pose[f"{side}_wrist_roll_joint"] == sign * 0.15
    assert sum(value != 0 for value in pose.values()) == 14


@pytest.mark.parametrize("name", FAMILIES)
def test_drives_have_the_policy_s_gains_and_the_table_s_arms(name):
    family = FAMILIES[name]
    drives = family.drives()
    assert all(len(values) == 29 for values in drives.values())
    for one, table, i in (("stiffness", g1.STIFFNESS, 0), ("damping", g1.DAMPING, 1)):
        assert drives[one][:6] == drives[one][6:12] == tuple(map(float, family.legs[i]))
        assert drives[one][12:15] == tuple(map(float, family.waist[i]))
        assert drives[one][15:] == tuple(table[15:])
    assert set(drives["action_scale"]) == {0.25}
    assert len(family.sha256) == 64


def test_rl_lab_sees_five_frames_term_by_term():
    memory = RlLab(2)
    pose = np.array(FAMILIES["rl_lab"].pose)[ISAAC]
    frames, action = [], np.zeros((2, 29))
    for tick in range(7):
        now = seen(tick)
        frames.append([
            0.2 * now.ang_vel, now.gravity, now.command, now.joint_pos[:, ISAAC] - pose,
            0.05 * now.joint_vel[:, ISAAC], action,
        ])  # fmt: skip
        last = ([frames[0]] * 5 + frames)[-5:] if tick < 5 else frames[-5:]
        expected = [frame[term] for term in range(6) for frame in last]
        np.testing.assert_allclose(memory.observe(now), np.concatenate(expected, 1))
        output = np.random.default_rng(100 + tick).normal(0, 8, (2, 29))
        action = output.clip(-10, 10)
        told = memory.act(output)
        np.testing.assert_allclose(told[:, ISAAC], action)
    assert (abs(output) > 10).any(), "premise"


def test_rl_lab_is_shown_moved_arms_as_it_asked():
    memory = RlLab(1)
    memory.observe(seen(0, 1))
    action = np.arange(29.0)[None] / 10
    memory.act(action)
    now = seen(1, 1, arms_moved=True)
    obs = memory.observe(now)[0]
    offset, speed = obs[45 + 4 * 29 : 45 + 5 * 29], obs[190 + 4 * 29 : 190 + 5 * 29]
    arm = np.array(ISAAC) >= 15
    np.testing.assert_allclose(offset[arm], 0.25 * action[0, arm])
    assert not speed[arm].any()
    pose = np.array(FAMILIES["rl_lab"].pose)
    np.testing.assert_allclose(offset[~arm], (now.joint_pos[0] - pose)[ISAAC][~arm])


def test_holosoma_sees_its_terms_by_the_alphabet_and_two_phases():
    memory = Holosoma(1)
    commands = [[0.5, 0.1, 0.2]] * 3 + [[0.0, 0.0, 0.005]] * 2 + [[0.3, 0.0, 0.0]] * 2
    step = 2 * np.pi * 0.02
    expected = [(0, np.pi), (step, np.pi + step), (2 * step, np.pi + 2 * step)]
    expected += [(np.pi, np.pi)] * 2 + [(0, np.pi), (step, np.pi + step)]
    action = np.zeros((1, 29))
    for tick, (command, phase) in enumerate(zip(commands, expected, strict=True)):
        now = seen(tick, 1, command=np.array([command]))
        obs = memory.observe(now)
        parts = [
            action, 0.25 * now.ang_vel, np.array([[command[2], *command[:2]]]),
            np.cos([phase]), now.joint_pos - g1.DEFAULT_JOINT_POS, 0.05 * now.joint_vel,
            now.gravity, np.sin([phase]),
        ]  # fmt: skip
        np.testing.assert_allclose(obs, np.concatenate(parts, 1), atol=1e-12)
        action = np.random.default_rng(tick).normal(size=(1, 29))
        np.testing.assert_array_equal(memory.act(action), action)


def test_asap_sees_a_frame_and_four_before_it_and_stands_near_its_place():
    memory = Asap(1)
    away = [[0.05, 0.05], [0.09, 0.0], [0.05, 0.0], [0.03, 0.04], [0.0, 0.11], [0.5, 0.5]]
    walks = [0, 1, 1, 0, 1, 1]
    split = (0, 12, 15, 16, 17, 19, 20, 21, 50, 79, 82, 99, 100)
    pose = np.array([-0.1, 0, 0, 0.3, -0.2, 0] * 2 + [0.0] * 17)
    past, action = [np.zeros(100)] * 4, np.zeros(12)
    for tick, (near, walk) in enumerate(zip(away, walks, strict=True)):
        now = seen(tick, 1, away=np.array([near]))
        phase = 2 * np.pi * (0.02 * tick % 0.9) / 0.9 * walk
        vx, vy, rate = now.command[0] * walk
        frame = np.concatenate([
            action, 0.25 * now.ang_vel[0], [rate, 1.56, vx, vy, walk, np.cos(phase)],
            now.joint_pos[0] - pose, 0.05 * now.joint_vel[0], now.gravity[0], np.zeros(3),
            now.arm_targets[0], [np.sin(phase)],
        ])  # fmt: skip
        history = [one[a:b] for a, b in zip(split[:-1], split[1:], strict=True) for one in past]
        expected = np.concatenate([frame[:79], *history, frame[79:]])
        obs = memory.observe(now)[0]
        assert obs.shape == (500,)
        np.testing.assert_allclose(obs, expected, atol=1e-12)
        past = [frame, *past[:3]]
        output = np.random.default_rng(tick).normal(0, 60, (1, 12))
        action = output[0].clip(-100, 100)
        target = (pose[:12] + 0.25 * action).clip(*g1.JOINT_RANGE[:12].T)
        told = memory.act(output)[0]
        np.testing.assert_allclose(pose[:12] + 0.25 * told[:12], target, atol=1e-12)
        assert not told[12:].any(), "the waist at 0, the arms at their stance"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_is_known_by_its_sizes_and_run_a_row_a_call(tmp_path, name):
    family = FAMILIES[name]
    weights = np.random.default_rng(0).normal(0, 0.1, (family.inputs, family.outputs))
    path = write(tmp_path / "mine.onnx", family.inputs, family.outputs, weights)
    assert is_velocity_policy(path)
    policy = load_velocity_policy(path)
    assert (policy.family, policy.name, policy.published) == (name, "mine", False)
    policy.reset(2)
    other = {"rl_lab": RlLab, "holosoma": Holosoma, "asap": Asap}[name](2)
    for tick in range(3):
        now = seen(tick)
        obs = other.observe(now).astype(np.float32)
        expected = other.act(obs.astype(float) @ weights + 0.01)
        np.testing.assert_allclose(policy.act(now), expected, rtol=1e-4, atol=1e-4)  # float32


def test_a_file_of_other_sizes_is_refused_with_what_it_is(tmp_path):
    path = write(tmp_path / "other.onnx", 47, 12)
    assert not is_velocity_policy(path)
    with pytest.raises(PolicyError) as caught:
        load_velocity_policy(path)
    assert str(caught.value) == (
        f"{path}: takes 47 numbers to 12, expected a velocity policy of a known layout: rl_lab's "
        "480 numbers to 29; holosoma's 100 numbers to 29; asap's 500 numbers to 12."
    )
    assert not is_velocity_policy(tmp_path), "a folder is none"
    assert not is_velocity_policy("walk")
