"""algos/wm_track.py: losses and gradients against other sources; graphs; resume; export."""

import contextlib
import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
import warm_python
from metric_pages import check_metrics
from robot_states import as_state, some_states
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import wm_track as wm  # noqa: E402

from bm_envs.envs import TrackVectorEnv  # noqa: E402
from bm_envs.errors import ConfigError  # noqa: E402
from bm_envs.learning import evaluation  # noqa: E402
from bm_envs.learning.folder import load_checkpoint, save_checkpoint  # noqa: E402
from bm_envs.learning.graphs import Graph  # noqa: E402
from bm_envs.learning.networks import TrackingPolicy  # noqa: E402
from bm_envs.learning.noise import Noise  # noqa: E402
from bm_envs.learning.replay_buffer import ReplayBuffer, ReplayCollector, Starts  # noqa: E402
from bm_envs.learning.robots import HostRobots  # noqa: E402
from bm_envs.learning.tracker import TrackerRunConfig  # noqa: E402
from bm_envs.learning.world_model import WorldModel  # noqa: E402
from bm_envs.motion.library import load_motions  # noqa: E402
from bm_envs.policy import load_policy  # noqa: E402
from bm_envs.results import check_result  # noqa: E402
from bm_envs.robots import g1  # noqa: E402
from bm_envs.tasks.track.config import (  # noqa: E402
    RandomizationConfig,
    RewardConfig,
    TrackConfig,
)

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


# --- world model ----------------------------------------------------------------------------------


def world_model(config):
    return WorldModel(config.model_hidden, config.task.decimation, symmetry=config.symmetry)


def test_the_loss_counts_valid_steps_alone_and_is_zero_for_the_truth():
    model = world_model(wm.Config())
    for network in (model.network, model.linear):
        for value in network.layers.parameters():
            value.data.zero_()
    state = as_state(*some_states(6))
    targets = torch.zeros(3, 6, 29)
    states = [state]
    for _ in range(3):  # the model itself, so that it has no error
        states.append(model.integrate(states[-1], torch.zeros(6, 70)))
    build = torch.ones(6, 4)
    loss, metrics = wm.model_loss(model, states, targets, build, torch.ones(3, 6))
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    for name in ("first_joint_pos", "last_joint_vel"):
        assert metrics[f"model/{name}"].item() == pytest.approx(0.0, abs=1e-7)
    states[2] = states[2]._replace(lin=states[2].lin + torch.eye(6)[:, :1])  # the first robot's
    valid = torch.ones(3, 6)
    assert wm.model_loss(model, states, targets, build, valid)[0] > 0.001
    valid[1:, 0] = 0.0
    loss, _ = wm.model_loss(model, states, targets, build, valid)
    assert loss.item() == pytest.approx(0.0, abs=1e-7)


def fitted(motion, updates, seed=0):
    """A small model, trained on random steps around a motion, and the buffer it was trained on."""
    torch.manual_seed(seed)
    config = dataclasses.replace(
        wm.Config(), model_hidden=(64, 64), model_updates=updates, model_batch=128,
        model_horizon=2, num_envs=32,
    )  # fmt: skip
    clips = load_motions(motion)
    buffers = []
    for robot_seed in (seed, seed + 1):
        robots = HostRobots(clips, config.task, config.num_envs, threads=1)
        robots.set_difficulty(0.0, 1.0)
        robots.reset(robot_seed)
        buffer = ReplayBuffer(64, 32, torch.device("cpu"))
        rng = np.random.default_rng(robot_seed)
        last = torch.zeros(32, 29)
        for _ in range(64):
            noise = rng.normal(size=(32, 29))
            action = torch.from_numpy(robots.task.reference_action() + 0.3 * noise).float()
            default, build = robots.default_joint_pos().clone(), robots.build().clone()
            before = Starts(*robots.state(), last, default, build, *robots.rows())
            target = default + torch.from_numpy(robots.task.action_scale) * action
            _, _, _, terminated, truncated, _, _ = robots.step(action)
            buffer.add(before, target, terminated | truncated)
            last = action
        buffers.append(buffer)
        robots.env.close()
    learner = wm.ModelLearner(config, torch.device("cpu"))
    learner.model.update_normalizer(*buffers[0].newest_transitions(63))
    learner.learn(buffers[0], 2e-3)
    return learner.model, buffers[1]


@pytest.mark.slow
def test_the_model_predicts_held_out_rollouts_better_than_their_velocities_do():
    model, other = fitted("walk", 250)
    places = other.draw((256,), 8, torch.Generator().manual_seed(0))
    states, targets, build, valid = other.windows(*places.unbind(-1), 8)
    state = coasting = states[0]
    with torch.no_grad():
        for k, target in enumerate(targets):
            state = model(state, model.local(state), target, build)
            coasting = model.integrate(coasting, torch.zeros(256, 70))
            if k in (0, 7):
                alive = valid[k] > 0
                for name, share in (("joint_vel", 0.5), ("joint_pos", 0.5), ("lin", 0.6)):
                    truth = getattr(states[k + 1], name)[alive]
                    modelled, plain = (
                        (getattr(s, name)[alive] - truth).abs().mean().item()
                        for s in (state, coasting)
                    )
                    assert modelled < share * plain, (k, name, modelled, plain)


# --- gradient of the policy -----------------------------------------------------------------------


class Linear(torch.nn.Module):
    """A known system in place of the world model: joints are driven, the pelvis is held."""

    use_bfloat16 = False

    def __init__(self, local):
        super().__init__()
        self.local = local

    def forward(self, state, local, target, build):
        rate = 0.9 * state.joint_vel + 4.0 * (target - state.joint_pos)
        return state._replace(joint_pos=state.joint_pos + 0.02 * rate, joint_vel=rate)


def imagined(clip="walk", horizon=4, **changes):
    """Imagination in float64 with a linear system, and a policy with random weights."""
    torch.manual_seed(0)
    config = dataclasses.replace(wm.Config(), hidden=(8,), policy_horizon=horizon, **changes)
    env = TrackVectorEnv(4, clip, config=config.task, threads=1)
    learner = wm.PolicyLearner(config, env.task, torch.device("cpu"))
    env.close()
    imagination = learner.imagination.double()
    reference = imagination.reference
    reference.table, reference.links = reference.table.double(), reference.links.double()
    policy = learner.actor.double()
    for layer in policy.layers:
        layer.weight.data = 0.1 * torch.randn_like(layer.weight)
    local = world_model(config).double().local
    qpos, qvel = some_states(6)
    qpos[:, 3:7] = [1.0, 0.0, 0.0, 0.0]
    starts = Starts(
        torch.from_numpy(qpos), 0.1 * torch.from_numpy(qvel),
        torch.zeros(6, 29).double(), torch.zeros(6, 29).double(), torch.zeros(6, 4).double(),
        torch.arange(6) * 10,
        torch.full((6,), 52),
    )  # fmt: skip

    learner.critic.double()
    generator = torch.Generator()

    def loss(model=None):
        model = model or Linear(local)
        noise = imagination.disturbances.draw(6, 0.0, generator.manual_seed(0))
        return learner.loss(imagination(policy, model, starts, noise), model)

    return policy, loss


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"critic": True},
        {"task": dataclasses.replace(wm.Config().task, rewards=RewardConfig(
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
        def forward(self, state, local, target, build):
            following = super().forward(state, local, target, build)
            late.append(None)
            kick = torch.zeros_like(following.pos)
            kick[5, 0] = 100.0 if len(late) >= 3 else 0.0
            return following._replace(pos=following.pos + kick)

    local = world_model(wm.Config()).double().local
    with torch.no_grad():
        assert loss(Wild(local)).item() == pytest.approx(loss().item(), rel=1e-12)


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
    assert record["discount"] == wm.DISCOUNT
    described = json.loads((run_dir / "policy.json").read_text())
    training = described["training"]
    assert training["algorithm"] == "wm_track" and training["start_from"] is None
    assert training["threads"] == 2
    # The file acts as the average of the weights does.
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    config = dataclasses.replace(wm.Config(), hidden=(32,))
    actor = TrackingPolicy(config.task.observations, config.hidden,
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


def test_only_a_checkpoint_of_the_same_constants_goes_on(tmp_path, whole):
    """What were settings once is compared still: a checkpoint of before may have had others."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole[0], run_dir)
    saved = load_checkpoint(run_dir / "checkpoint.pt", ("task",))
    settings = json.loads(saved["task"])
    assert (settings["muon"], settings["discount"], settings["residual"]) == (False, 0.97, True)
    for name, value in (("muon", True), ("discount", 0.9)):
        changed = {**saved, "task": json.dumps({**settings, name: value})}
        save_checkpoint(run_dir / "checkpoint.pt", changed)
        flags = [*SMALL, "--run-dir", str(run_dir), "--resume"]
        with pytest.raises(ConfigError, match=f"settings or motions: {name} is .*, there "):
            wm.main(tyro.cli(wm.Config, args=flags))


@pytest.mark.slow
def test_refusals(tmp_path, whole):
    for values, text in (
        ({"num_envs": 0}, "num_envs is 0, expected 1 or more."),
        ({"total_timesteps": 5}, "total_timesteps 5 is less than one iteration"),
        ({"capacity": 640}, "10 steps of each robot, expected num_steps + model_horizon + 1 = 17"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected a positive number."),
        ({"model_hidden": (33,)}, "model_hidden is (33,), expected even numbers"),
        ({"model_hidden": ()}, "model_hidden is (), expected one or more positive numbers"),
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
         "is of a run with other settings or motions: policy_horizon is 2, there "),
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
    starts = Starts(*robots.state(), torch.zeros(2, 29), robots.default_joint_pos(),
                    robots.build(), *robots.rows())  # fmt: skip
    learner.learn(world_model(config), Starts(*(v[None] for v in starts)), 0.0, 1e-2, 1000)
    for average, now, then in zip(*(
        net.parameters() for net in (learner.averaged, learner.actor, before)
    ), strict=True):  # fmt: skip
        torch.testing.assert_close(average, (now + then) / 2)
    assert not torch.equal(learner.actor.layers[0].weight, before.layers[0].weight)
    robots.env.close()
    env.close()


# --- graphs ---------------------------------------------------------------------------------------


class FakeGraph(Graph):
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
        for output, value in zip(tensors_of(self.outputs), values, strict=True):
            output.copy_(value)
        for value, recorded, before in zip(self.parameters, self.gradients, attached, strict=True):
            if recorded is not None:
                assert value.grad is not None and value.grad is not recorded
                recorded.copy_(value.grad)
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
    buffer = ReplayBuffer(40, 4, cpu)
    collector = ReplayCollector(robots, config.action_noise, wm.NOISE_CORRELATION, 0)
    metrics = []
    for level in (0.0, 0.5, 1.0):
        collector.run(policy.actor, buffer, 12)
        dynamics.model.update_normalizer(*buffer.newest_transitions(12))
        metrics.append(dynamics.learn(buffer, 1e-2))
        model.load_state_dict(dynamics.model.state_dict())
        starts = buffer.starts((4, 8), dynamics.generator)
        metrics.append(policy.learn(model, starts, level, 1e-2, 0))
    robots.env.close()
    figures = [v for row in metrics for k, v in row.items() if not k.startswith("perf")]
    networks = (dynamics.model, policy.actor, policy.averaged, policy.critic)
    return figures, [value for net in networks for value in net.state_dict().values()]


@pytest.mark.parametrize("changes", [{}, {"critic": True}], ids=["default", "critic"])
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
        values = tree_leaves((args, kwargs, result))
        if len({value.device for value in values if isinstance(value, torch.Tensor)}) > 1:
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
    reference, buffer = policy.imagination.reference, ReplayBuffer(20, 2, meta)
    for name in ("table", "links", "foot_contact"):
        setattr(reference, name, getattr(reference, name).to(meta))
    for module in (policy.actor, policy.critic, policy.imagination, dynamics.model):
        module.to(meta)
    for optimizer in (policy.optimizer, dynamics.optimizer):  # those there are new ones
        optimizer.parameters = [value for n in optimizer.networks for value in n.parameters()]
    places = torch.zeros(4, 2, dtype=torch.long, device=meta)
    starts = Starts(*(getattr(buffer, name)[0] for name in Starts._fields))
    noise = Noise(
        torch.zeros(3, 2, 29, device=meta), torch.zeros(3, 2, 160, device=meta),
        torch.zeros(2, 6, device=meta),
    )  # fmt: skip
    fixed = copy.deepcopy(dynamics.model).requires_grad_(False)
    for _ in range(2):  # the first time sends constants
        with Transfers() as transfers, Created() as created:
            dynamics.backward(buffer, places)
            policy.backward(fixed, *starts, *noise)
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
    model = world_model(config).to(device).requires_grad_(False)
    qpos, qvel = (torch.from_numpy(v).float().to(device) for v in some_states(6))
    zeros, rows = torch.zeros(6, 29, device=device), torch.arange(6, device=device)
    build = torch.ones(6, 4, device=device)
    draw = learner.imagination.disturbances.draw
    noises = [draw(6, level, learner.generator) for level in (0.0, 1.0)]

    def computed(function, noise):
        values = function(model, qpos, 0.1 * qvel, zeros, zeros, build, rows, rows + 90, *noise)
        gradients = [value.grad for value in learner.actor.parameters()]
        return [value.clone() for value in [*tensors_of(values), *gradients]]

    expected = [computed(learner.backward, noise) for noise in noises]
    assert not torch.equal(expected[0][0], expected[1][0])
    for noise, values in zip(noises, expected, strict=True):
        for found, value in zip(computed(learner.graphed_backward, noise), values, strict=True):
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
def test_parts_of_a_training_are_timed_beside_their_bounds(tmp_path):
    done = warm_python.run(
        command("--speed", "--quick", "--json", str(tmp_path / "out.json"),
                script="benchmarks/world_model.py"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    check_result(result, "out.json")
    rows = {row["what"]: row for row in result["rows"]}
    assert set(rows) == {"policy_update", "model_update", "collect", "evaluate"}
    steps = 1000 * 128 * 32 / rows["policy_update"]["ms"]
    assert rows["policy_update"]["imagined_steps_per_s"] == pytest.approx(steps)
    # Robots and their task take longer than the engine alone.
    assert all(rows[what]["ratio"] > 0.8 for what in ("collect", "evaluate"))


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
    for flags, text in (
        (["--speed"], "Expected either --run or --speed."),
        (["--against", str(tmp_path)], "is no checkout, it has no algos/wm_track.py."),
    ):
        done = growth(other, tmp_path, *flags)
        assert done.returncode == 2 and text in done.stderr
    assert not (tmp_path / "out.json").exists()
