"""algos/wm_track.py: kinematics, model, loss and gradient against other sources; resume; export."""

import contextlib
import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python
from metric_pages import check_metrics
from scipy.spatial.transform import Rotation
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import wm_track as wm  # noqa: E402

from bm_envs.backends.base import full_state  # noqa: E402
from bm_envs.envs import TrackVectorEnv  # noqa: E402
from bm_envs.errors import ConfigError  # noqa: E402
from bm_envs.learning import evaluation  # noqa: E402
from bm_envs.learning.robots import HostRobots  # noqa: E402
from bm_envs.learning.run import Clock  # noqa: E402
from bm_envs.learning.tracker import TrackerRunConfig  # noqa: E402
from bm_envs.motion.library import load_motions  # noqa: E402
from bm_envs.policy import load_policy  # noqa: E402
from bm_envs.robots import g1, kinematics  # noqa: E402
from bm_envs.tasks.track import rewards  # noqa: E402
from bm_envs.tasks.track.config import RandomizationConfig, TrackConfig  # noqa: E402

SMALL = (
    "--motion stand --num-envs 8 --num-steps 8 --total-timesteps 384 --eval-every 128 --hidden 32 "
    "--model-hidden 32 --warmup-iterations 2 --model-batch 16 --model-horizon 3 --policy-batch 16 "
    "--policy-horizon 3 --capacity 256 --critic --threads 2"
).split()


def command(*arguments, script="algos/wm_track.py"):
    return [sys.executable, str(ROOT / script), *arguments]


def train(run_dir, *arguments):
    done = warm_python.run(
        command(*SMALL, "--run-dir", str(run_dir), *arguments), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def some_states(count, seed=0):
    """Random states as `qpos` and `qvel`, float64."""
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(count, 4))
    low, high = g1.JOINT_RANGE.T
    qpos = np.concatenate([
        rng.normal(size=(count, 3)), quat / np.linalg.norm(quat, axis=1, keepdims=True),
        rng.uniform(low, high, (count, 29)),
    ], 1)  # fmt: skip
    return qpos, rng.normal(size=(count, 35)) * 2


def world_root(state):
    return torch.cat([state.rot, state.pos[..., None]], -1).permute(1, 2, 0)


def as_state(qpos, qvel):
    return wm.State.of(torch.from_numpy(qpos).float(), torch.from_numpy(qvel).float())


# --- kinematics and observation -------------------------------------------------------------------


def test_kinematics_are_those_of_the_tables_in_numpy():
    qpos, qvel = some_states(50)
    root = Rotation.from_quat(qpos[:, [4, 5, 6, 3]])
    expected = kinematics.link_states(
        qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], qvel[:, :3], root.apply(qvel[:, 3:6]), qvel[:, 6:]
    )
    state = as_state(qpos, qvel)
    near = wm.WorldModel(wm.Config()).near(state).links
    links = wm.Kinematics(g1.TRACKED_BODIES)(world_root(state), state.joint_pos)
    in_world = wm.compose(world_root(state).expand(3, 3, 4, 50), near)
    for bodies, found in ((g1.TRACKED_BODIES, links), (wm.NEAR_BODIES, in_world)):
        picked = [g1.BODY_NAMES.index(name) for name in bodies]
        found = found.permute(3, 0, 1, 2).numpy()
        # float32 through ten links: 1e-7 of a metre each.
        np.testing.assert_allclose(found[..., 3], expected.pos[:, picked], atol=2e-6)
        quats = expected.quat[:, picked][..., [1, 2, 3, 0]].reshape(-1, 4)
        turns = Rotation.from_quat(quats).as_matrix().reshape(50, -1, 3, 3)
        np.testing.assert_allclose(found[..., :3], turns, atol=2e-6)


def test_links_have_the_tables_order_whatever_the_hashes_are():
    """Sums of gradients are added in this order: one that differed would change a resumed run."""
    joints = wm.Kinematics(g1.TRACKED_BODIES).joints.tolist()
    depths = [len(wm.path_to(g1.JOINTS[joint].body)) for joint in joints]
    assert depths == sorted(depths)
    places = [g1.BODY_NAMES.index(g1.JOINTS[joint].body) for joint in joints]
    assert list(zip(depths, places, strict=True)) == sorted(zip(depths, places, strict=True))


def test_products_of_transforms_are_those_of_matrices_and_so_is_their_gradient():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    square = [
        torch.cat([v.detach().permute(0, 3, 1, 2), last.expand(2, 5, 1, 4)], 2)
        for v in (first, second)
    ]
    expected = (square[0] @ square[1])[:, :, :3].permute(0, 2, 3, 1)
    torch.testing.assert_close(wm.compose(first, second), expected)
    assert torch.autograd.gradcheck(wm.compose, (first, second))


def test_links_move_as_they_do_at_low_speed():
    """Mean velocities of a step are the present ones but for what turns bend, second order."""
    qpos, qvel = some_states(50)
    qvel[:, 6:] *= 0.01
    root = Rotation.from_quat(qpos[:, [4, 5, 6, 3]])
    expected = kinematics.link_states(
        qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], qvel[:, :3], root.apply(qvel[:, 3:6]), qvel[:, 6:]
    )
    moved = wm.WorldModel(wm.Config()).near(as_state(qpos, qvel)).moved.numpy()
    picked = [g1.BODY_NAMES.index(name) for name in wm.NEAR_BODIES]
    found = np.einsum("bij,mjb->bmi", root.as_matrix(), moved)
    # Joints turn by up to 1e-3 rad a step, feet are 0.8 m away: 1e-6 m in 0.02 s, and float32
    # places (1e-7 m) over the same time.
    np.testing.assert_allclose(found, expected.lin_vel[:, picked], atol=3e-4)


def test_a_turn_is_the_exponential_map_up_to_the_fourth_order():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3))
    vectors *= (np.geomspace(1e-6, 0.2, 100) / np.linalg.norm(vectors, axis=1))[:, None]
    start = Rotation.random(100, random_state=0)
    found = wm.turned(*map(torch.from_numpy, (start.as_matrix(), vectors))).numpy()
    expected = (start * Rotation.from_rotvec(vectors)).as_matrix()
    np.testing.assert_allclose(found, expected, atol=0.2**5 / 100)  # the next term has 1 / 120


def rolled(motion, steps, *, num_envs=8, seed=0, scale=0.3, **changes):
    """A vector environment without noise after some random steps around the reference's pose."""
    config = dataclasses.replace(
        TrackConfig(), noise=False, pushes=False, failure="none", episode_s=None, **changes
    )
    env = TrackVectorEnv(num_envs, motion, config=config, threads=1)
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    action = np.zeros((num_envs, 29), np.float32)
    for _ in range(steps):
        action = env.task.reference_action() + scale * rng.normal(size=(num_envs, 29))
        action = action.astype(np.float32)
        obs = env.step(action)[0]
    return env, obs, action


def test_imagined_observations_are_the_environments():
    env, obs, action = rolled("walk", 5)
    state = wm.State.of(*map(torch.from_numpy, full_state(env.simulator)))
    model = wm.WorldModel(wm.Config())
    goals = wm.Goals(env.task, torch.device("cpu"))
    rows = torch.from_numpy(env.task._first_row + env.task.frame)
    last = torch.from_numpy(env.task._last_frame + env.task._first_row)
    found = wm.observation(
        env.task.config.observations, state, model.near(state), goals.at(rows + 1, last),
        torch.from_numpy(action), torch.from_numpy(env.task.default_joint_pos),
    )  # fmt: skip
    assert abs(obs[:, 131:]).max() > 0.1  # premise: robots have acted
    # float32 kinematics of another order of operations; positions of some metres.
    np.testing.assert_allclose(found.numpy(), obs, atol=1e-5)
    env.close()


# --- world model ----------------------------------------------------------------------------------


def test_integration_of_the_true_rates_is_the_engines_next_state():
    """Accelerations read off two states of the engine lead from the one to the other."""
    env, _, action = rolled("walk", 3)
    before = wm.State.of(*map(torch.from_numpy, full_state(env.simulator)))
    env.step(action)
    after = wm.State.of(*map(torch.from_numpy, full_state(env.simulator)))
    model = wm.WorldModel(wm.Config())
    found = model.integrate(before, model.rates(before, after))
    for name, value, truth in zip(wm.State._fields, found, after, strict=True):
        # The turn of a step is taken by its sine: an angle of 0.1 rad is 2e-4 rad short.
        tolerance = 3e-4 if name == "rot" else 2e-5
        torch.testing.assert_close(value, truth, atol=tolerance, rtol=1e-5, msg=name)
    env.close()


def test_a_body_in_free_flight_falls_as_it_should():
    """With the rates of free fall, H steps are the parabola of the closed form."""
    config = wm.Config()
    model = wm.WorldModel(config)
    qpos, qvel = some_states(4)
    qvel[:, 3:] = 0.0
    state = start = as_state(qpos, qvel)
    steps, gravity = 10, -9.81
    for _ in range(steps):
        rates = torch.zeros(4, 70)
        rates[:, :3] = state.rot[:, 2] * gravity * wm.CONTROL_DT
        state = model.integrate(state, rates)
    elapsed, physics_dt = steps * wm.CONTROL_DT, config.task.model.physics_dt
    # Semi-implicit physics steps h: z = v t + g t (t + h) / 2.
    fallen = start.lin[:, 2] * elapsed + gravity * elapsed * (elapsed + physics_dt) / 2
    torch.testing.assert_close(state.pos[:, 2] - start.pos[:, 2], fallen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.lin[:, 2], start.lin[:, 2] + gravity * elapsed)


def mirrored(state, joints):
    flip = torch.tensor([1.0, -1.0, 1.0])
    index, sign = joints
    return wm.State(
        state.pos * flip, state.rot * flip[:, None] * flip, state.lin * flip, state.ang * -flip,
        state.joint_pos[:, index] * sign, state.joint_vel[:, index] * sign,
    )  # fmt: skip


def test_what_the_model_says_of_the_mirrored_robot_is_mirrored():
    torch.manual_seed(0)
    model = wm.WorldModel(wm.Config())
    for network in (model.network, model.linear):
        for value in network.layers.parameters():
            value.data += 0.1 * torch.randn_like(value)
        network.symmetrize([value.data for value in network.layers.parameters()])
    joints = wm.as_mirror(g1.mirror_map())
    state, target = as_state(*some_states(20)), torch.randn(20, 29)
    expected = mirrored(model(state, model.near(state), target), joints)
    other = mirrored(state, joints)
    found = model(other, model.near(other), target[:, joints[0]] * joints[1])
    assert (found.joint_vel - other.joint_vel).abs().mean() > 0.1  # premise: it does something
    for value, truth in zip(found, expected, strict=True):
        # float32 sums of a few hundred terms; the robot's own links are symmetric to 1e-4 m.
        torch.testing.assert_close(value, truth, atol=2e-3, rtol=1e-3)


def test_the_loss_counts_valid_steps_alone_and_is_zero_for_the_truth():
    model = wm.WorldModel(wm.Config())
    for network in (model.network, model.linear):
        for value in network.layers.parameters():
            value.data.zero_()
    state = as_state(*some_states(6))
    targets = torch.zeros(3, 6, 29)
    states = [state]
    for _ in range(3):  # the model itself, so that it has no error
        states.append(model.integrate(states[-1], torch.zeros(6, 70)))
    loss, told = model.loss(states, targets, torch.ones(3, 6))
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    assert told["first_joint_pos"].item() == told["last_joint_vel"].item() == 0.0
    states[2] = states[2]._replace(lin=states[2].lin + torch.eye(6)[:, :1])  # the first robot's
    valid = torch.ones(3, 6)
    assert model.loss(states, targets, valid)[0] > 0.001
    valid[1:, 0] = 0.0
    assert model.loss(states, targets, valid)[0].item() == pytest.approx(0.0, abs=1e-7)


def test_scales_of_the_outputs_are_those_of_the_data():
    model = wm.WorldModel(dataclasses.replace(wm.Config(), symmetry=False))
    before = as_state(*some_states(4000))
    rng = torch.Generator().manual_seed(0)
    change = torch.randn(4000, 29, generator=rng)
    after = before._replace(joint_vel=before.joint_vel + 3 * change)
    for part in range(4):
        picked = slice(1000 * part, 1000 * part + 1000)
        model.update_normalizer(
            wm.State(*(v[picked] for v in before)), torch.zeros(1000, 29),
            wm.State(*(v[picked] for v in after)),
        )  # fmt: skip
    # A standard deviation of 4000 draws is right to 1.1 %; five of that, and what the bound of the
    # largest squares takes off.
    np.testing.assert_allclose(model.scale[6:35].numpy(), 3.0, rtol=0.06)


def drawn(buffer, batch, steps, generator=None):
    """Windows from places drawn evenly."""
    generator = generator or torch.Generator().manual_seed(0)
    return buffer.windows(*buffer.draw((batch,), steps, generator).unbind(-1), steps)


def fitted(motion, updates, seed=0):
    """A small model, trained on random steps around a motion, and the buffer it was trained on."""
    torch.manual_seed(seed)
    config = dataclasses.replace(
        wm.Config(), model_hidden=(64, 64), model_updates=updates, model_batch=128,
        model_horizon=2, num_envs=32,
    )  # fmt: skip
    clips = load_motions(motion)
    buffers = []
    for own in (seed, seed + 1):
        robots = HostRobots(clips, config.task, config.num_envs, threads=1)
        robots.set_difficulty(0.0, 1.0)
        robots.reset(own)
        buffer = wm.Buffer(64, 32, torch.device("cpu"))
        rng = np.random.default_rng(own)
        last = torch.zeros(32, 29)
        for _ in range(64):
            noise = rng.normal(size=(32, 29))
            action = torch.from_numpy(robots.task.reference_action() + 0.3 * noise).float()
            default = robots.default_joint_pos().clone()
            before = wm.Starts(*robots.state(), last, default, *robots.rows())
            target = default + torch.from_numpy(robots.task.action_scale) * action
            _, _, _, terminated, truncated, _, _ = robots.step(action)
            buffer.add(before, target, terminated | truncated)
            last = action
        buffers.append(buffer)
        robots.env.close()
    learner = wm.ModelLearner(config, torch.device("cpu"))
    held = buffers[0]
    flat = lambda v: v.flatten(0, 1)  # noqa: E731
    going = ~flat(held.done[:-1])
    pair = [
        wm.State.of(flat(held.qpos[at])[going], flat(held.qvel[at])[going])
        for at in (slice(0, -1), slice(1, None))
    ]
    learner.model.update_normalizer(pair[0], flat(held.target[:-1])[going], pair[1])
    learner.learn(held, 2e-3)
    return learner.model, buffers[1]


@pytest.mark.slow
def test_the_model_predicts_held_out_roll_outs_better_than_their_velocities_do():
    model, other = fitted("walk", 250)
    states, targets, valid = drawn(other, 256, 8)
    state = coasting = states[0]
    with torch.no_grad():
        for k, target in enumerate(targets):
            state = model(state, model.near(state), target)
            coasting = model.integrate(coasting, torch.zeros(256, 70))
            if k in (0, 7):
                alive = valid[k] > 0
                for name, share in (("joint_vel", 0.5), ("joint_pos", 0.5), ("lin", 0.6)):
                    truth = getattr(states[k + 1], name)[alive]
                    found, plain = (
                        (getattr(s, name)[alive] - truth).abs().mean().item()
                        for s in (state, coasting)
                    )
                    assert found < share * plain, (k, name, found, plain)


# --- buffer ---------------------------------------------------------------------------------------


def numbered_buffer(steps, length=10, robots=3, ends=()):
    """Every state tells its step and its robot."""
    buffer = wm.Buffer(length, robots, torch.device("cpu"))
    for t in range(steps):
        qpos = torch.zeros(robots, 36)
        qpos[:, 0], qpos[:, 1], qpos[:, 3] = t, torch.arange(robots), 1.0
        rows = torch.full((robots,), t)
        zeros = torch.zeros(robots, 29)
        done = torch.tensor([(t, n) in ends for n in range(robots)])
        buffer.add(wm.Starts(qpos, torch.zeros(robots, 35), zeros, zeros, rows, rows + 9),
                   torch.full((robots, 29), float(t)), done)  # fmt: skip
    return buffer


@pytest.mark.parametrize("steps", [7, 10, 23])
def test_windows_are_consecutive_steps_of_one_robot_that_are_held(steps):
    buffer = numbered_buffer(steps)
    states, targets, valid = drawn(buffer, 500, 4)
    begin = states[0].pos[:, 0]
    for k, state in enumerate(states):
        assert torch.equal(state.pos[:, 0], begin + k)
        assert torch.equal(state.pos[:, 1], states[0].pos[:, 1])
    for k, target in enumerate(targets):
        assert torch.equal(target[:, 0], begin + k)
    assert valid.all()
    oldest = max(0, steps - 10)
    assert set(begin.tolist()) == set(range(oldest, steps - 4))  # the last state is held, too
    assert set(states[0].pos[:, 1].tolist()) == {0, 1, 2}


def test_windows_end_where_an_episode_does():
    buffer = numbered_buffer(10, ends={(4, 1)})
    states, _, valid = drawn(buffer, 500, 4)
    begin, robot = states[0].pos[:, 0], states[0].pos[:, 1]
    for k in range(4):
        # The step that ends an episode leads into the next one's first state.
        cut = (robot == 1) & (begin <= 4) & (begin + k >= 4)
        assert torch.equal(valid[k] == 0, cut)
    assert cut.any()


def test_starts_are_drawn_evenly():
    buffer = numbered_buffer(23)
    starts = buffer.starts((30, 100), torch.Generator().manual_seed(0))
    assert starts.qpos.shape == (30, 100, 36) and torch.equal(starts.last_row, starts.row + 9)
    counts = torch.bincount((starts.row.flatten() - 13) * 3 + starts.qpos[..., 1].flatten().long())
    assert len(counts) == 30
    # Chi-square with 29 degrees of freedom: above 70 with probability 3e-5.
    assert ((counts - 100.0) ** 2 / 100).sum() < 70


def test_a_buffer_goes_on_from_its_state():
    buffer = numbered_buffer(23)
    other = wm.Buffer(10, 3, torch.device("cpu"))
    other.set_state(buffer.get_state())
    for one in (buffer, other):
        one.generator = torch.Generator().manual_seed(1)
    first, second = (drawn(one, 50, 3, one.generator) for one in (buffer, other))
    assert all(torch.equal(a, b) for a, b in zip(first[0][0], second[0][0], strict=True))
    part = numbered_buffer(4)
    again = wm.Buffer(10, 3, torch.device("cpu"))
    again.set_state(part.get_state())
    assert again.written == 4 and torch.equal(again.qpos, part.qpos)


# --- loss and gradient ----------------------------------------------------------------------------


def test_the_derivative_of_the_squares_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(14, 3, 4, 3, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(wm.SquareErrors.apply, (error.requires_grad_(), 1.5))


def on_the_reference(motion, frames, batch):
    """States of the reference itself over some frames, flat, and what they are compared with."""
    clip = load_motions(motion)[0]
    env = TrackVectorEnv(1, clip)
    goals = wm.Goals(env.task, torch.device("cpu"))
    start = np.arange(batch) * 7
    rows = torch.from_numpy(np.concatenate([start + t for t in range(frames)]))
    env.close()
    pick = rows.numpy()
    qpos = np.concatenate(
        [clip.body_pos_w[pick, 0], clip.body_quat_w[pick, 0], clip.joint_pos[pick]], 1
    )
    qvel = np.zeros((len(pick), 35))
    return as_state(qpos, qvel), goals.links_at(rows, torch.full_like(rows, clip.num_frames - 1))


def test_the_tracking_loss_is_zero_on_the_reference_and_has_the_rewards_slope():
    state, goal = on_the_reference("walk", 4, 5)
    kinematics_of = wm.Kinematics(g1.TRACKED_BODIES)

    def links(state):
        return kinematics_of(world_root(state), state.joint_pos)

    loss, distance = wm.tracking_loss(links(state), goal, 5, wm.RewardConfig())
    assert loss.shape == (15,)
    # float32 positions are right to 1e-6 m, velocities to 1e-6 / 0.02 s: squared below 1e-7.
    assert loss.max() < 1e-5 and distance.max() < 1e-9
    weights = dict.fromkeys(rewards.TRACKED, 0.0)
    for name, shift in (("anchor_pos", 0.03), ("body_pos", 0.0)):
        settings = wm.RewardConfig(**{**weights, name: 1.0})
        moved = state._replace(pos=state.pos + torch.tensor([shift or 0.05, 0.0, 0.0]))
        loss, distance = wm.tracking_loss(links(moved), goal, 5, settings)
        if name == "body_pos":  # is relative to the anchor
            assert loss.max() < 1e-6
            continue
        # Up to the fourth power of the error, (0.1)^4.
        expected = 1 - np.exp(-((shift / settings.anchor_pos_std) ** 2))
        np.testing.assert_allclose(loss.numpy(), expected, atol=1e-4)
        np.testing.assert_allclose(distance.numpy(), shift**2, rtol=1e-3)


def test_turned_links_cost_what_the_task_takes_off():
    state, goal = on_the_reference("walk", 2, 5)
    angle = 0.05
    turn = torch.from_numpy(Rotation.from_rotvec([0.0, angle, 0.0]).as_matrix()).float()
    moved = state._replace(rot=turn @ state.rot)
    links = wm.Kinematics(g1.TRACKED_BODIES)(world_root(moved), state.joint_pos)
    settings = wm.RewardConfig(**{**dict.fromkeys(rewards.TRACKED, 0.0), "body_ori": 1.0})
    loss, _ = wm.tracking_loss(links, goal, 5, settings)
    expected = 1 - np.exp(-((angle / settings.body_ori_std) ** 2))
    np.testing.assert_allclose(loss.numpy(), expected, atol=2e-4)  # fourth powers, as above


def test_optional_costs_are_the_tasks_terms():
    """Second differences and accelerations over H steps against the task's own functions."""
    generator = torch.Generator().manual_seed(0)
    joint_vel, actions = torch.randn(2, 5, 3, 29, generator=generator, dtype=torch.float64)
    links = torch.randn(14, 3, 4, 12, generator=generator, dtype=torch.float64)
    contact = torch.ones(12, 2, dtype=torch.bool)
    for name, first, function in (
        ("action_accel", 2, lambda h: rewards.action_accel(*actions[[h, h - 1, h - 2]].numpy())),
        ("joint_accel", 1, lambda h: rewards.joint_accel(
            joint_vel[h].numpy(), joint_vel[h - 1].numpy(), 0.02)),
    ):  # fmt: skip
        settings = wm.RewardConfig(**{name: -0.3})
        cost = wm.optional_cost(links, joint_vel, actions, contact, settings).view(4, 3)
        for h in range(1, 5):
            expected = 0.3 * function(h) if h >= first else np.zeros(3)
            np.testing.assert_allclose(cost[h - 1].numpy(), expected, rtol=1e-9)


def test_feet_on_the_ground_are_those_that_press_on_it():
    """By the height of the sole in imagination, by the force under it in the engine."""
    policy = load_policy("walk")
    env = TrackVectorEnv(16, "walk", config=TrackConfig.preset("clip"), threads=1)
    obs, _ = env.reset(seed=0, options={"frame": np.arange(16) * 60})
    to_policy, to_project = policy.spec.observation_index(), policy.spec.action_index()
    goals = wm.Goals(env.task, torch.device("cpu"))
    kinematics_of = wm.Kinematics(g1.TRACKED_BODIES)
    settings = wm.RewardConfig(foot_contact=-1.0)
    still = torch.zeros(2, 16, 29)
    same, costs, terms = [], [], []
    for _ in range(50):
        obs, _, terminated, _, _ = env.step(policy(obs[:, to_policy])[:, to_project])
        assert not terminated.any()
        state = as_state(*full_state(env.simulator))
        links = kinematics_of(world_root(state), state.joint_pos)
        rows = torch.from_numpy(env.task._first_row + env.task.frame)
        wanted = goals.foot_contact_at(rows, torch.full_like(rows, 10**6))
        force = env.simulator.contact_force[:, -2:]
        same.append((wm.on_ground(links) > 0.5).T.numpy() == ((force**2).sum(-1) > 1.0))
        costs.append(wm.optional_cost(links, still, still, wanted, settings).numpy())
        terms.append(rewards.contact_mismatch(force, wanted.numpy(), 1.0))
    # Before a foot lands and after it has lifted it is within a centimetre for some frames.
    assert np.mean(same) > 0.9
    assert np.corrcoef(np.ravel(costs), np.ravel(terms))[0, 1] > 0.7
    env.close()


class Linear(torch.nn.Module):
    """A known system in place of the world model: joints are driven, the pelvis is held."""

    rounded = False

    def __init__(self, near):
        super().__init__()
        self.near = near

    def forward(self, state, near, target):
        rate = 0.9 * state.joint_vel + 4.0 * (target - state.joint_pos)
        return state._replace(joint_pos=state.joint_pos + 0.02 * rate, joint_vel=rate)


def imagined(clip="walk", horizon=4, **changes):
    """Imagination in float64 with a linear system, and a policy with random weights."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        wm.Config(), hidden=(8,), policy_horizon=horizon, imagined_noise=0.1, **changes
    )
    env = TrackVectorEnv(4, clip, config=config.task, threads=1)
    learner = wm.PolicyLearner(config, env.task, torch.device("cpu"))
    env.close()
    imagination = learner.imagination.double()
    goals = imagination.goals
    goals.table, goals.links = goals.table.double(), goals.links.double()
    policy = learner.actor.double()
    for layer in policy.layers:
        layer.weight.data = 0.1 * torch.randn_like(layer.weight)
    near = wm.WorldModel(config).double().near
    qpos, qvel = some_states(6)
    qpos[:, 3:7] = [1.0, 0.0, 0.0, 0.0]
    starts = wm.Starts(
        torch.from_numpy(qpos), 0.1 * torch.from_numpy(qvel),
        torch.zeros(6, 29).double(), torch.zeros(6, 29).double(), torch.arange(6) * 10,
        torch.full((6,), 52),
    )  # fmt: skip

    learner.critic.double()
    generator = torch.Generator()

    def loss(model=None):
        model = model or Linear(near)
        noise = imagination.draw_noise(6, 0.0, generator.manual_seed(0))
        dream = imagination(policy, model, starts, noise)
        return learner.objective(dream, model)

    return policy, loss


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic": True},
        {"task": dataclasses.replace(wm.Config().task, rewards=wm.RewardConfig(
            foot_contact=-0.5, action_accel=-0.05, joint_accel=-2.5e-7))},
    ], ids=["default", "critic", "optional rewards"],
)  # fmt: skip
def test_policy_gradient_through_a_known_linear_system_is_that_of_finite_differences(changes):
    policy, loss = imagined(**changes)
    parameters = list(policy.layers.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    rng = np.random.default_rng(0)
    for value, gradient in zip(parameters, gradients, strict=True):
        for place in rng.choice(value.numel(), min(4, value.numel()), replace=False):
            flat, step = value.data.view(-1), 1e-6
            differences = []
            for sign in (1, -1):
                flat[place] += sign * step
                differences.append(loss().item())
                flat[place] -= sign * step
            # Error of a central difference in float64: 1e-12 of its third derivative and 1e-10
            # of rounding; the loss is of size 10.
            expected = (differences[0] - differences[1]) / (2 * step)
            assert gradient.view(-1)[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_returns_of_the_critic_are_their_definition():
    rng = np.random.default_rng(0)
    steps, robots, discount, lam = 6, 4, 0.9, 0.7
    cost, value = rng.random((steps, robots)), rng.random((steps + 1, robots))
    counted = np.ones((steps, robots))
    expected = np.zeros((steps, robots))
    for n in range(robots):
        for h in range(steps):
            # The mean, by their weights, of the returns after 1, 2, ... steps.
            for length in range(1, steps - h + 1):
                plain = sum((1 - discount) * discount**k * cost[h + k, n] for k in range(length))
                plain += discount**length * value[h + length, n]
                weight = lam ** (length - 1) * (1 if length == steps - h else 1 - lam)
                expected[h, n] += weight * plain
    given = (*map(torch.from_numpy, (cost, counted, value)), discount, lam)
    np.testing.assert_allclose(wm.lambda_returns(*given).numpy(), expected, atol=1e-13)


def test_behind_the_clips_end_the_last_cost_goes_on():
    cost, counted = torch.tensor([[2.0], [3.0], [9.0]]), torch.tensor([[1.0], [1.0], [0.0]])
    returns = wm.lambda_returns(cost, counted, torch.full((4, 1), 7.0), 0.5, 1.0)
    assert returns[:2, 0].tolist() == [0.5 * 2 + 0.5 * 3, 3.0]


@pytest.mark.parametrize("critic", [False, True])
def test_policy_descends_on_the_linear_system(critic):
    policy, loss = imagined(critic=critic)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    first = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    assert value.item() < 0.9 * first


def test_frames_behind_the_clips_end_do_not_count():
    """The last start, of row 50, has two frames to go: its later states may be anything."""
    policy, loss = imagined()
    late = []

    class Wild(Linear):
        def forward(self, state, near, target):
            following = super().forward(state, near, target)
            late.append(None)
            kick = torch.zeros_like(following.pos)
            kick[5, 0] = 100.0 if len(late) >= 3 else 0.0
            return following._replace(pos=following.pos + kick)

    near = wm.WorldModel(wm.Config()).double().near
    with torch.no_grad():
        assert loss(Wild(near)).item() == pytest.approx(loss().item(), rel=1e-12)


def test_gradients_between_imagined_steps_are_bounded():
    state = wm.State(*(torch.randn(5, *shape, requires_grad=True) for shape in
                       ((3,), (3, 3), (3,), (3,), (29,), (29,))))  # fmt: skip
    same = wm.bounded(state, 2.0)
    assert all(torch.equal(a, b) for a, b in zip(state, same, strict=True))
    weights = torch.tensor([0.1, 1.0, 10.0, 0.0, 5.0])
    sum((value.flatten(1) * weights[:, None]).sum() for value in same).backward()
    norms = torch.cat([value.grad.flatten(1) for value in state], 1).norm(dim=1)
    whole = weights * 76**0.5  # numbers of a state
    torch.testing.assert_close(norms, whole.clamp(max=2.0))


# --- the command ----------------------------------------------------------------------------------


def weights(run_dir):
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    return {
        f"{part}.{k}": v
        for part in ("actor", "learner", "model", "critic", "target")
        for k, v in saved[part].items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, train(run_dir)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, whole):
    process = subprocess.Popen(
        command(*SMALL, "--run-dir", str(tmp_path / "cut"), "--checkpoint-s", "0"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoint = tmp_path / "cut" / "checkpoint.pt"
    deadline = time.monotonic() + 900
    # Three iterations: the policy learns from the third on.
    while process.poll() is None and time.monotonic() < deadline:
        log = tmp_path / "cut" / "metrics.jsonl"
        if checkpoint.exists() and log.exists() and log.read_text().count("\n") >= 4:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(checkpoint, weights_only=True)["iteration"]
    train(tmp_path / "cut", "--resume")
    one, other = weights(whole[0]), weights(tmp_path / "cut")
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), (key, reached)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").open()]
    assert [row["iteration"] for row in rows] == list(range(1, 7))


@pytest.mark.slow
def test_the_second_thread_and_further_evaluations_change_no_number(tmp_path, whole):
    train(tmp_path / "run", "--no-overlap", "--threads", "1", "--robust-every", "2")
    one, other = weights(whole[0]), weights(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    shares = [row.get("eval/robust") for row in rows]
    # Of three evaluations, 128 steps apart, the second and the run's last.
    assert [share is not None for share in shares] == [False, False, False, True, False, True]
    assert all(share in np.arange(101) / 100 for share in (shares[3], shares[5]))
    check_metrics("wm_track", tmp_path / "run")


def test_a_run_ends_where_it_is_robust(tmp_path, monkeypatch):
    shares = iter([0.94, 0.95])
    monkeypatch.setattr(evaluation, "robust_share", lambda actor, env: next(shares))
    config = wm.Config(
        motion=("stand[0:0.5]",), num_envs=4, num_steps=8, hidden=(8,), model_hidden=(8,),
        total_timesteps=320, capacity=256, run=TrackerRunConfig(
            run_dir=tmp_path / "run", eval_every=32, robust_every=2, stop_when_robust=True,
            threads=1,
        ),
    )  # fmt: skip
    wm.main(config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row.get("eval/robust") for row in rows] == [None, 0.94, None, 0.95]


def test_a_clock_that_is_stopped_does_not_count(monkeypatch):
    now = 10.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr("time.process_time", lambda: 2 * now)
    clock = Clock(5.0)
    now = 12.0
    assert (clock.wall_s, clock.cpu_s) == (7.0, 24.0)
    with clock.stopped():
        now = 15.0
    now = 16.0
    assert (clock.wall_s, clock.cpu_s) == (8.0, 26.0)


@pytest.mark.slow
def test_the_run_directory_is_that_of_a_tracker(tmp_path, whole):
    run_dir, done = whole
    assert "motion stand" in done.stdout and str(run_dir) in done.stdout
    assert list(run_dir.glob("events.out.tfevents.*"))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    assert rows[-1]["step"] == 384 and 0 <= rows[-1]["eval/survival"] <= 1
    assert "losses/policy" not in rows[1] and rows[-1]["losses/policy"] > 0
    assert rows[-1]["losses/model"] > 0 and rows[-1]["model/last_pos"] > 0
    record = json.loads((run_dir / "config.json").read_text())
    assert record["exp_name"] == "wm_track" and record["num_envs"] == 8
    described = json.loads((run_dir / "policy.json").read_text())
    assert described["training"]["algorithm"] == "wm_track"
    # The file acts as the average of the weights does.
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    config = dataclasses.replace(wm.Config(), hidden=(32,))
    actor = wm.TrackingPolicy(config.task.observations, config.hidden,
                              g1.DEFAULT_JOINT_POS.astype(np.float32),
                              g1.ACTION_SCALE.astype(np.float32))  # fmt: skip
    actor.load_state_dict(saved["actor"])
    obs = np.random.default_rng(0).normal(size=(50, 160)).astype(np.float32)
    with torch.no_grad():
        expected = actor.mean(torch.from_numpy(obs)).numpy()
    # Another order of float32 sums, actions of size ten.
    np.testing.assert_allclose(load_policy(run_dir)(obs), expected, atol=1e-4)
    done = warm_python.run(
        command(str(run_dir), str(tmp_path / "p.onnx"), "--check", script="tools/export_onnx.py"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "checked" in done.stdout, done.stderr
    done = warm_python.run(
        command("--policy", str(run_dir), "--motion", "stand[0:0.5]", "--json",
                str(tmp_path / "r.json"), script="benchmarks/track.py"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "r.json").stat().st_size > 0, done.stderr


@pytest.mark.slow
def test_a_run_goes_on_from_a_policy(tmp_path, whole):
    train(tmp_path / "run", "--start-from", str(whole[0]), "--policy-updates", "0")
    before, after = (torch.load(path / "checkpoint.pt", weights_only=True)["actor"]
                     for path in (whole[0], tmp_path / "run"))  # fmt: skip
    assert torch.equal(before["layers.0.weight"], after["layers.0.weight"])


@pytest.mark.slow
def test_one_policy_for_clips_on_a_device_learns_as_one_command(tmp_path):
    pytest.importorskip("mujoco_warp", reason="needs the extra warp: pip install -e '.[warp]'")
    flags = "--preset gpu --motion stand walk --device cpu --num-steps 4 --total-timesteps 96"
    flags += " --model-updates 2 --policy-updates 2"
    train(tmp_path / "run", *flags.split())
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 96 and last["losses/policy"] > 0
    described = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert [motion["name"] for motion in described["motions"]] == ["stand", "walk"]


@pytest.mark.slow
def test_hidden_weights_learn_by_muon_on_request(tmp_path):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("needs PyTorch 2.9")
    train(tmp_path / "run", "--muon", "--model-hidden", "32", "32", "--hidden", "32", "32")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert len(saved["optimizer"]) == 2
    policy = saved["actor"]
    hidden = policy["layers.1.weight"]
    # Symmetric still: units are pairs, half the width apart.
    torch.testing.assert_close(hidden, hidden.roll((16, 16), (0, 1)), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_refusals(tmp_path, whole):
    for values, text in (
        ({"num_envs": 0}, "num_envs is 0, expected 1 or more."),
        ({"total_timesteps": 5}, "total_timesteps 5 is less than one iteration"),
        ({"capacity": 640}, "10 steps of each robot, expected num_steps + model_horizon + 1 = 17"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected a positive number."),
        ({"noise_correlation": 1.0}, "noise_correlation is 1.0, expected a number in [0, 1)."),
        ({"model_hidden": (33,)}, "model_hidden is (33,), expected even numbers"),
        ({"task": TrackConfig(randomize=RandomizationConfig(action_delay=1))},
         "task.randomize.action_delay is 1, expected 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            wm.Config(**values)
        assert text in str(error.value)
    with pytest.raises(ConfigError, match="^stop_when_robust needs robust_every, which is 0.$"):
        TrackerRunConfig(stop_when_robust=True)
    run_dir, _ = whole
    other = tmp_path / "other"
    for arguments, text in (
        ([*SMALL, "--run-dir", str(run_dir)], "holds a run already: add --resume"),
        ([*SMALL, "--resume", "--policy-horizon", "2", "--run-dir", str(run_dir)],
         "is of a run with other settings or motions."),
        ([*SMALL, "--motion", "wakl", "--run-dir", str(other)], "did you mean 'walk'"),
        ([*SMALL, "--suite", "builtin", "--run-dir", str(other)], "Both --motion and --suite"),
        ([*SMALL, "--hidden", "16", "--start-from", str(run_dir), "--run-dir", str(other)],
         "Its layers are"),
    ):  # fmt: skip
        done = warm_python.run(command(*arguments), capture_output=True, text=True)
        assert done.returncode == 2 and text in done.stderr and not other.exists()
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_average_follows_the_policy():
    config = dataclasses.replace(wm.Config(), hidden=(8,), ema=0.5, policy_horizon=1)
    env = TrackVectorEnv(2, "stand", config=config.task, threads=1)
    learner = wm.PolicyLearner(config, env.task, torch.device("cpu"))
    before = copy.deepcopy(learner.actor)
    robots = HostRobots(env.task.clips, config.task, 2, threads=1)
    robots.reset(0)
    starts = wm.Starts(*robots.state(), torch.zeros(2, 29), robots.default_joint_pos(),
                       *robots.rows())  # fmt: skip
    learner.learn(wm.WorldModel(config), wm.Starts(*(v[None] for v in starts)), 0.0, 1e-2)
    for average, now, then in zip(*(
        net.parameters() for net in (learner.averaged, learner.actor, before)
    ), strict=True):  # fmt: skip
        torch.testing.assert_close(average, (now + then) / 2)
    assert not torch.equal(learner.actor.layers[0].weight, before.layers[0].weight)
    robots.env.close()
    env.close()


# --- graphs ---------------------------------------------------------------------------------------


class FakeGraph(wm.Graph):
    """What CUDA would do: a replay writes into the memory of the record, and to nothing else."""

    def record(self):
        self.outputs = self.function(self.fixed, *self.inputs)
        learner = vars(self.function.__self__).values()
        networks = [value for value in learner if isinstance(value, torch.nn.Module)]
        self.parameters = [value for net in networks for value in net.parameters()]
        self.gradients = [p.grad for p in self.parameters]

    def replay(self):
        attached = [p.grad for p in self.parameters]
        values = tensors_of(self.function(self.fixed, *self.inputs))
        for own, value in zip(tensors_of(self.outputs), values, strict=True):
            own.copy_(value)
        for value, own, before in zip(self.parameters, self.gradients, attached, strict=True):
            if own is not None:
                assert value.grad is not None and value.grad is not own
                own.copy_(value.grad)
            else:  # of what another learns by
                assert value.grad is before
            value.grad = before


def tensors_of(values):
    if isinstance(values, torch.Tensor):
        return [values]
    values = values.values() if isinstance(values, dict) else values
    return [tensor for value in values for tensor in tensors_of(value)]


def both_learners(graph, monkeypatch, **changes):
    """Weights and figures after some updates of model and policy."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        wm.Config(), hidden=(8, 8), model_hidden=(8, 8), policy_horizon=3, model_batch=16,
        policy_batch=8, model_horizon=2, num_envs=4, **changes,
    )  # fmt: skip
    if graph is not None:
        monkeypatch.setattr(wm, "Graph", lambda function, recorded: graph(function, True))
    cpu = torch.device("cpu")
    robots = HostRobots(load_motions(["walk"]), config.task, 4, threads=1)
    policy, dynamics = wm.PolicyLearner(config, robots.task, cpu), wm.ModelLearner(config, cpu)
    model = copy.deepcopy(dynamics.model).requires_grad_(False)
    buffer, collector = wm.Buffer(40, 4, cpu), wm.Collector(config, robots, 0)
    told = []
    for level in (0.0, 0.5, 1.0):
        collector.run(policy.actor, buffer, 12)
        dynamics.update_normalizer(buffer, 12)
        told.append(dynamics.learn(buffer, 1e-2))
        model.load_state_dict(dynamics.model.state_dict())
        told.append(policy.learn(model, buffer.starts((4, 8), dynamics.generator), level, 1e-2))
    robots.env.close()
    figures = [v for row in told for k, v in row.items() if not k.startswith("perf")]
    networks = (dynamics.model, policy.actor, policy.averaged, policy.critic)
    return figures, [value for net in networks for value in net.state_dict().values()]


@pytest.mark.parametrize(
    "changes", [{}, {"critic": True}, {"muon": True}], ids=["default", "critic", "Muon"]
)
def test_learning_by_recorded_graphs_is_learning_without(changes, monkeypatch):
    plain = both_learners(None, monkeypatch, **changes)
    graphs = both_learners(FakeGraph, monkeypatch, **changes)
    assert plain[0] == graphs[0]
    for one, other in zip(plain[1], graphs[1], strict=True):
        assert torch.equal(one, other)


class Transfers(TorchDispatchMode):
    """Notes operations with tensors of more than one device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = tree_leaves((args, kwargs, result))
        if len({value.device for value in given if isinstance(value, torch.Tensor)}) > 1:
            self.found.append(func)
        return result


class Created(TorchFunctionMode):
    """Notes tensors and indices that are made of Python's numbers: the other does not see them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        index = args[1] if func is torch.Tensor.__getitem__ else ()
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) or any(
            isinstance(part, (list, np.ndarray))
            for part in (index if isinstance(index, tuple) else (index,))
        ):
            self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("critic", [False, True])
def test_what_a_graph_records_neither_waits_for_the_device_nor_asks_the_host(critic, monkeypatch):
    """On PyTorch's device without values whatever needs one raises; copies from the host show."""
    # It has no autocast, which is a conversion there as elsewhere.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    config = dataclasses.replace(
        wm.Config(), hidden=(8,), model_hidden=(8,), policy_horizon=3, critic=critic
    )
    env = TrackVectorEnv(2, "walk", config=config.task, threads=1)
    cpu, meta = torch.device("cpu"), torch.device("meta")
    policy = wm.PolicyLearner(config, env.task, cpu)
    dynamics = wm.ModelLearner(config, cpu)
    env.close()
    goals, buffer = policy.imagination.goals, wm.Buffer(20, 2, meta)
    for name in ("table", "links", "foot_contact"):
        setattr(goals, name, getattr(goals, name).to(meta))
    for module in (policy.actor, policy.critic, policy.imagination, dynamics.model):
        module.to(meta)
    for optimizer in (policy.optimizer, dynamics.optimizer):  # those there are new ones
        optimizer.parameters = [value for n in optimizer.networks for value in n.parameters()]
    places = torch.zeros(4, 2, dtype=torch.long, device=meta)
    starts = wm.Starts(*(getattr(buffer, name)[0] for name in wm.Starts._fields))
    noise = wm.Noise(torch.zeros(3, 2, 29, device=meta), torch.zeros(3, 2, 160, device=meta))
    fixed = copy.deepcopy(dynamics.model).requires_grad_(False)
    for _ in range(2):  # the first time sends constants
        with Transfers() as transfers, Created() as created:
            dynamics.differentiate(buffer, places)
            policy.differentiate(fixed, *starts, *noise)
    assert not transfers.found and not created.found
    assert all(value.grad is not None for value in policy.actor.parameters())
    with Transfers() as transfers, Created() as created:  # they can tell
        noise.action.new_tensor([1.0])
        torch.ones(3).to(meta)
        places[[0, 1]]
        with pytest.raises(RuntimeError, match="meta"):
            torch.ones((), device=meta).item()
    assert len(transfers.found) == 1 and len(created.found) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("critic", [False, True])
def test_a_recorded_graph_computes_what_its_function_does(critic):
    torch.manual_seed(0)
    device = torch.device("cuda:0")
    config = dataclasses.replace(
        wm.Config(), hidden=(8,), model_hidden=(8,), policy_horizon=3, critic=critic
    )
    env = TrackVectorEnv(4, "walk", config=config.task, threads=1)
    learner = wm.PolicyLearner(config, env.task, device)
    env.close()
    model = wm.WorldModel(config).to(device).requires_grad_(False)
    qpos, qvel = (torch.from_numpy(v).float().to(device) for v in some_states(6))
    zeros, rows = torch.zeros(6, 29, device=device), torch.arange(6, device=device)
    noises = [learner.imagination.draw_noise(6, level, learner.generator) for level in (0.0, 1.0)]

    def computed(function, noise):
        values = function(model, qpos, 0.1 * qvel, zeros, zeros, rows, rows + 90, *noise)
        gradients = [value.grad for value in learner.actor.parameters()]
        return [value.clone() for value in [*tensors_of(values), *gradients]]

    expected = [computed(learner.differentiate, noise) for noise in noises]
    assert not torch.equal(expected[0][0], expected[1][0])
    for noise, values in zip(noises, expected, strict=True):
        for found, value in zip(computed(learner.graph, noise), values, strict=True):
            torch.testing.assert_close(found, value)


# --- error growth ---------------------------------------------------------------------------------


def growth(run, tmp_path, *arguments):
    return warm_python.run(
        command("--run", str(run), "--json", str(tmp_path / "out.json"), "--num-envs", "4",
                "--roll-out", "12", *arguments, script="benchmarks/world_model.py"),
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_errors_of_a_runs_model_over_the_horizon(tmp_path, whole):
    pytest.importorskip("matplotlib", reason="needs the extra viz")
    done = growth(whole[0], tmp_path, "--steps", "4", "--plot", str(tmp_path / "out.png"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["kind"] == "world_model" and (tmp_path / "out.png").stat().st_size > 1000
    rows = result["rows"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["count"] == 4 * 8  # every state with four steps behind it; nobody has failed yet
    for who in ("model", "coasting"):
        assert 0 < rows[0][who]["pos_mm"] < rows[3][who]["pos_mm"]
    # From the same true state: a step at rest's velocities bends the joints by next to nothing.
    assert rows[0]["coasting"]["joint_pos_rad"] < 0.1


@pytest.mark.slow
def test_refusals_of_the_error_growth(tmp_path, whole):
    done = growth(whole[0], tmp_path, "--steps", "12")
    assert done.returncode == 2 and "roll_out is 12, expected more than steps, 12" in done.stderr
    other = tmp_path / "run"
    other.mkdir()
    record = json.loads((whole[0] / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(record | {"exp_name": "ppo_track"}))
    done = growth(other, tmp_path, "--steps", "4")
    assert done.returncode == 2 and "is no run of wm_track.py, but of ppo_track" in done.stderr
    (other / "config.json").write_text(json.dumps(record))
    done = growth(other, tmp_path, "--steps", "4")
    assert done.returncode == 2 and "not a readable checkpoint" in done.stderr
    assert not (tmp_path / "out.json").exists()
