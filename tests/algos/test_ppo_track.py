"""algos/ppo_track.py: its mathematics against definitions, resume against an uninterrupted run."""

import copy
import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import warm_python
from metric_pages import check_metrics

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import ppo_track as ppo  # noqa: E402

from bm_envs.envs import TrackVectorEnv  # noqa: E402
from bm_envs.errors import BMWarning, ConfigError  # noqa: E402
from bm_envs.learning import tracker  # noqa: E402
from bm_envs.learning.collecting import Rollout  # noqa: E402
from bm_envs.learning.networks import begin_with  # noqa: E402
from bm_envs.learning.robots import HostRobots  # noqa: E402
from bm_envs.learning.tracker import TrackerRunConfig, spec_of  # noqa: E402
from bm_envs.motion.library import load_motions  # noqa: E402
from bm_envs.policy import load_policy, mlp_from_policy  # noqa: E402

SMALL = (
    "--motion stand --num-envs 8 --num-steps 8 --total-timesteps 384 --eval-every 128 --hidden 32 "
    "--threads 1 --curriculum-s 0.1"
).split()


def command(*arguments):
    return [sys.executable, str(ROOT / "algos" / "ppo_track.py"), *arguments]


def train(run_dir, *arguments):
    done = warm_python.run(
        command(*SMALL, "--run-dir", str(run_dir), *arguments), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


# --- mathematics ----------------------------------------------------------------------------------


def test_policy_gradient_is_that_of_the_unclipped_objective_at_the_start():
    """At ratio one the gradient is -mean(A grad log pi): against finite differences."""
    torch.manual_seed(0)
    action, mean = torch.randn(2, 64, 29, dtype=torch.float64)
    advantage = torch.randn(64, dtype=torch.float64)
    shift = torch.zeros(29, dtype=torch.float64, requires_grad=True)
    log_std = torch.zeros(29, dtype=torch.float64)
    zero = torch.zeros(64, dtype=torch.float64)
    old = ppo.log_prob(action, mean, log_std)

    def loss(offset):
        ratio = ppo.log_prob(action, mean + offset, log_std) - old
        return ppo.ppo_loss(ratio, advantage, zero, zero, zero, torch.zeros(()))[0]

    loss(shift).backward()
    for j in (0, 13, 28):
        step = torch.zeros(29, dtype=torch.float64)
        step[j] = 1e-5  # ~eps^(1/3): error of the central difference near 1e-10
        difference = (loss(step) - loss(-step)).item() / 2e-5
        assert shift.grad[j].item() == pytest.approx(difference, abs=1e-8)


def test_clipped_ratio_gives_no_gradient_where_it_would_go_further():
    for advantage, log_ratio, moves in ((1.0, 0.5, False), (1.0, -0.5, True), (-1.0, -0.5, False),
                                        (-1.0, 0.5, True)):  # fmt: skip
        ratio = torch.tensor([log_ratio], requires_grad=True)
        zero = torch.zeros(1)
        loss, parts = ppo.ppo_loss(
            ratio, torch.tensor([advantage]), zero, zero, zero, torch.zeros(())
        )
        loss.backward()
        assert (ratio.grad.item() != 0) == moves
        assert parts["clipfrac"].item() == 1.0


def test_one_update_on_a_fixed_batch_lowers_the_loss():
    torch.manual_seed(0)
    config = ppo.Config()
    actor = ppo.make_actor(config, np.zeros(29, np.float32), np.ones(29, np.float32))
    obs, advantage = torch.randn(256, 160), torch.randn(256)
    x, std = actor.normalize(obs), actor.log_std.detach()
    with torch.no_grad():
        mean = actor(x)
        action = mean + std.exp() * torch.randn(256, 29)
        old = ppo.log_prob(action, mean, std)
    zero = torch.zeros(256)

    def loss():
        ratio = ppo.log_prob(action, actor(x), actor.log_std) - old
        return ppo.ppo_loss(ratio, advantage, zero, zero, zero, torch.zeros(()))[0]

    before = loss()
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-4)
    before.backward()
    optimizer.step()
    assert loss().item() < before.item()


def test_initial_policy_asks_for_the_reference_pose():
    config = ppo.Config(hidden=(16,))
    q0, scale = np.full(29, 0.1, np.float32), np.full(29, 0.5, np.float32)
    actor = ppo.make_actor(config, q0, scale)
    torch.nn.init.zeros_(actor.layers[-1].weight)
    obs = torch.randn(7, 160)
    target = q0 + scale * actor.mean(obs).detach().numpy()
    np.testing.assert_allclose(target, obs[:, :29].numpy(), atol=1e-6)


def test_curriculum_disturbs_and_lets_robots_go_further_off():
    robots = HostRobots(load_motions("stand"), ppo.Config().task, num_envs=1)
    seen = []
    for level in (0.0, 0.5, 1.0):
        robots.set_difficulty(level, ppo.failure_distance_scale(level))
        seen.append((robots.task.failure_distance_scale, robots.task.disturbance))
    assert seen == [(1, 0), (2, 0.5), (3, 1)]


def filled_rollout(config, task, actor):
    """A rollout of an actor on made-up observations and rewards."""
    rng = np.random.default_rng(0)
    rollout = Rollout(config.num_steps, config.num_envs, task)
    rollout.log_std[:] = ppo.fresh_log_std(actor, config).detach()

    def normal(shape):
        return torch.from_numpy(rng.normal(size=tuple(shape)))

    for values in (rollout.obs, rollout.critic_obs, rollout.reward):
        values[:] = normal(values.shape)
    with torch.no_grad():
        mean = actor.mean(rollout.obs.flatten(0, 1))
    rollout.mean[:] = mean.view_as(rollout.mean)
    rollout.chosen[:] = rollout.mean + normal(rollout.mean.shape) * rollout.log_std.exp()
    rollout.done[:] = torch.from_numpy(rng.random(tuple(rollout.done.shape)) < 0.1)
    return rollout


def test_samples_of_the_present_policy_weigh_the_same_with_and_without_overlap():
    learned = []
    for overlap in (False, True):
        torch.manual_seed(0)
        config = ppo.Config(
            num_envs=16, hidden=(32,), update_epochs=3, overlap=overlap, bfloat16="off"
        )
        task = TrackVectorEnv(1, "stand").task
        learner = ppo.Learner(config, task)
        learner.learn(filled_rollout(config, task, learner.actor), iteration=1)
        learned.append(torch.cat([p.detach().flatten() for p in learner.actor.parameters()]))
    # Weights of one to float32 rounding (1e-6 in a sum of 29); Adam's step is 1e-3.
    torch.testing.assert_close(*learned, rtol=0, atol=2e-5)


def test_samples_of_an_older_policy_are_weighted_by_their_likelihood_ratio(monkeypatch):
    """The first gradient is the policy gradient at the present policy, importance-weighted."""
    torch.manual_seed(0)
    config = ppo.Config(
        num_envs=16, hidden=(32,), overlap=True, symmetry=False, noise_correlation=0.0,
        update_epochs=1, bfloat16="off",
    )  # fmt: skip
    monkeypatch.setattr(ppo, "MAX_GRAD_NORM", 1e9)
    task = TrackVectorEnv(1, "stand").task
    learner = ppo.Learner(config, task)
    rollout = filled_rollout(config, task, learner.actor)
    bias = learner.actor.layers[-1].bias
    bias.data += 0.05 * torch.randn(29)  # the learner moved on meanwhile
    rollout.done[:] = True  # advantage = reward - value, the critic's below
    rollout.reward[:] = torch.randn(rollout.reward.shape)
    actor, critic = copy.deepcopy(learner.actor), copy.deepcopy(learner.critic)
    gradients = []
    bias.register_hook(lambda gradient: gradients.append(gradient.clone()))
    learner.learn(rollout, iteration=1)

    with torch.no_grad():
        critic_obs = rollout.critic_obs[:-1].flatten(0, 1)
        value = critic(critic.normalize(critic_obs)).squeeze(-1)
    advantage = rollout.reward.flatten() - value
    advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    mean = actor.mean(rollout.obs.flatten(0, 1))
    new = torch.distributions.Normal(mean, actor.log_std.exp())
    old = torch.distributions.Normal(rollout.mean.flatten(0, 1), rollout.log_std.exp())
    chosen = rollout.chosen.flatten(0, 1)
    log_new = new.log_prob(chosen).sum(-1)
    weight = (log_new - old.log_prob(chosen).sum(-1)).detach().exp().clamp(max=2.0)
    assert weight.std() > 0.1
    loss = -(weight / weight.mean() * advantage * log_new).mean()
    expected = torch.autograd.grad(loss, actor.layers[-1].bias)[0]
    # float32 sums over 128 samples.
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-6)


def test_the_critics_steps_are_critic_speed_times_the_actors():
    torch.manual_seed(0)
    config = ppo.Config(num_envs=16, hidden=(32,), update_epochs=1, critic_speed=3.0)
    task = TrackVectorEnv(1, "stand").task
    learner = ppo.Learner(config, task)
    rollout = filled_rollout(config, task, learner.actor)
    before = copy.deepcopy([learner.actor.layers, learner.critic.layers])
    learner.learn(rollout, iteration=1)
    moved = [
        max(abs(new - old).max().item() for new, old in zip(now, then, strict=True))
        for now, then in (
            (net.layers.parameters(), old.parameters())
            for net, old in zip([learner.actor, learner.critic], before, strict=True)
        )
    ]
    # Adam's first step is its step size for every weight whose gradient is well above eps, 1e-5.
    assert moved[0] == pytest.approx(1e-3, rel=0.02)
    assert moved[1] == pytest.approx(3e-3, rel=0.02)


def test_rounding_to_bfloat16_moves_no_ratio_by_itself():
    """The present policy is compared with itself in the same precision."""
    torch.manual_seed(0)
    config = ppo.Config(num_envs=16, hidden=(32,), overlap=True, update_epochs=1, bfloat16="on")
    task = TrackVectorEnv(1, "stand").task
    learner = ppo.Learner(config, task)
    rollout = filled_rollout(config, task, learner.actor)
    for layer in learner.actor.layers:  # means as large as a trained policy's
        layer.weight.data *= 3
    learned = learner.learn(rollout, iteration=1)
    assert abs(learned["losses/approx_kl"]) < 1e-6 and learned["losses/clipfrac"] == 0


# --- the command ----------------------------------------------------------------------------------


def weights(run_dir):
    saved = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    return {**saved["actor"], **{f"learner.{k}": v for k, v in saved["learner"].items()}}


@pytest.mark.slow
def test_run_of_open_length_goes_on_as_the_longer_run(tmp_path):
    flags = "--schedule inverse --halved-after 128".split()
    train(tmp_path / "whole", *flags)
    train(tmp_path / "parts", *flags, "--total-timesteps", "192")
    done = train(tmp_path / "parts", *flags, "--resume")  # to the 384 steps of the whole
    assert "384 steps, from step 192 on (of 192 before)" in done.stdout
    whole, parts = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "parts")
    )
    assert whole == parts and parts["total_timesteps"] == 384
    shorter = command(*SMALL, *flags, "--run-dir", str(tmp_path / "parts"), "--resume",
                      "--total-timesteps", "192")  # fmt: skip
    done = warm_python.run(shorter, capture_output=True, text=True)
    assert done.returncode == 2 and "total_timesteps is 192, but " in done.stderr
    assert "has 384 behind it" in done.stderr
    assert json.loads((tmp_path / "parts" / "config.json").read_text()) == parts
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    rows = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["charts/learning_rate"] for row in rows]
    # 64 control steps an iteration: halved after two, a third after four.
    np.testing.assert_allclose(steps, 1e-3 / (1 + 0.5 * np.arange(6)))


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["--no-overlap", "--overlap", "--backend mujoco_warp"])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(tmp_path, flags):
    if "warp" in flags:
        pytest.importorskip("mujoco_warp", reason="needs the extra warp: pip install -e '.[warp]'")
    flags = flags.split()
    train(tmp_path / "whole", *flags)
    # Same settings, stopped half way (the schedule of the step size spans the whole run, so that
    # the run is killed and not shortened), as soon as there is a checkpoint.
    process = subprocess.Popen(
        command(*SMALL, *flags, "--run-dir", str(tmp_path / "cut"), "--checkpoint-s", "0"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoint = tmp_path / "cut" / "checkpoint.pt"
    deadline = time.monotonic() + 900
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    reached = torch.load(checkpoint, weights_only=True)["iteration"]
    train(tmp_path / "cut", *flags, "--resume")
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for key in whole:
        assert torch.equal(whole[key], cut[key]), (key, reached)
    assert (tmp_path / "whole" / "policy.onnx").exists()
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").open()]
    assert [row["iteration"] for row in rows] == list(range(1, 7))


@pytest.mark.slow
def test_the_last_lines_of_a_run_are_commands_that_work(tmp_path):
    run_dir = tmp_path / "a run"
    first = train(run_dir, "--total-timesteps", "128")
    lines = first.stdout.splitlines()
    assert [line for line in lines if line.startswith("the bar counts steps and shows: ")] == [
        "the bar counts steps and shows: length, control steps of an episode, mean; R-MPKPE, "
        "distance of the links from the reference, torsos laid on each other, mean in training; "
        "clip, share of the motions that the last evaluation survived"
    ]
    steps = dict(re.match(r"  (\w+(?: on)?)  +(.+)", line).groups() for line in lines[-4:])
    assert lines[-5] == "next:" and list(steps) == ["watch", "measure", "export", "go on"]

    def run(what, *further):
        python, script, *flags = shlex.split(steps[what])
        assert python == "python"
        return warm_python.run(
            [sys.executable, str(ROOT / script), *flags, *further], capture_output=True, text=True,
            cwd=tmp_path,
        )  # fmt: skip

    for done in (run("export"), run("measure", "--protocol", "clip")):
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a run.onnx").is_file() and (run_dir / "track.json").is_file()
    again = run("export")
    assert again.returncode == 2
    assert again.stderr == "error: a run.onnx is there already: name the file to write.\n"
    watched = run("watch", "--video", "none/x.gif")
    assert watched.returncode == 2 and "must end in .mp4" in watched.stderr, "its flags are taken"
    same, flags = steps["go on"].split(" with ")
    assert same == "the same command"
    assert "from step 128 on (of 128 before)" in train(run_dir, *shlex.split(flags)).stdout
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    assert rows[-1]["step"] == 256


def begun(run_dir, *arguments):
    """A run of open length that has saved once."""
    process = subprocess.Popen(
        command(*SMALL, "--total-timesteps", "10000000", "--run-dir", str(run_dir), *arguments),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (run_dir / "checkpoint.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_run_that_is_asked_to_end_saves_and_says_how_it_goes_on(tmp_path, name):
    """Also when nothing but the first iteration would have been saved, and nobody else gets in."""
    run_dir = tmp_path / "run"
    process = begun(run_dir, "--checkpoint-s", "1e9", "--schedule", "inverse")
    if name == "SIGTERM":
        other = command(*SMALL, "--run-dir", str(run_dir), "--resume")
        done = warm_python.run(other, capture_output=True, text=True)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert f"another process is writing there (process {process.pid}, since" in done.stderr
    rows = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while rows.read_text().count("\n") < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    _, told = process.communicate(timeout=300)
    assert process.returncode == 128 + getattr(signal, name)
    iteration = torch.load(run_dir / "checkpoint.pt", weights_only=True)["iteration"]
    assert iteration >= 4 and len(rows.read_text().splitlines()) == iteration
    assert told.splitlines()[-1] == (
        f"interrupted: {run_dir} keeps {64 * iteration:,} of 10,000,000 steps; to go on, add "
        f"--resume --run-dir {run_dir} to the same command; bm-envs export {run_dir} "
        f"{run_dir}/policy.onnx writes its policy so far"
    )
    assert "Traceback" not in told and not (run_dir / "policy.json").exists()
    assert not list(run_dir.glob(".*"))
    if name == "SIGTERM":
        more = ("--schedule", "inverse", "--resume", "--total-timesteps", str(64 * iteration + 64))
        assert f"from step {64 * iteration:,} on" in train(run_dir, *more).stdout
        assert (run_dir / "policy.json").exists()


# --- several processes ----------------------------------------------------------------------------


def together(processes, script, *arguments):
    """What `torchrun` does, without the time that it takes itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    command = [sys.executable, str(script), *map(str, arguments)]
    ends = warm_python.run_together([
        (command, os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ])  # fmt: skip
    assert all(done.returncode == 0 for done in ends), [done.stderr for done in ends]


def torchrun(processes, script, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={processes}", str(script), *arguments],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


WEIGHTS_OF_EVERY_PROCESS = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "algos")!r})
import torch, ppo_track as ppo
from bm_envs import cli

folder = sys.argv.pop()
made = []
init = ppo.Learner.__init__
ppo.Learner.__init__ = lambda self, *given: (init(self, *given), made.append(self))[0]
try:
    cli.run(ppo.main, ppo.Config)
except SystemExit as end:
    if end.code:
        raise
state = {{**made[0].actor.state_dict(), "level": torch.tensor(made[0].learning_rate)}}
torch.save(state, f"{{folder}}/{{os.environ['RANK']}}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--no-overlap", "--overlap"])
def test_processes_have_the_same_weights_and_resume_together(tmp_path, flag):
    script = tmp_path / "script.py"
    script.write_text(WEIGHTS_OF_EVERY_PROCESS)
    flags = [*SMALL, flag, "--schedule", "inverse", "--total-timesteps", "768"]
    begin = torchrun if flag == "--no-overlap" else together
    begin(2, script, *flags, "--run-dir", str(tmp_path / "run"), str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [128 * i for i in range(1, 7)]  # of both

    parts = [*flags, "--run-dir", str(tmp_path / "parts")]
    together(2, script, *parts, "--total-timesteps", "384", str(tmp_path))
    together(2, script, *parts, "--resume", str(tmp_path))
    again = torch.load(tmp_path / "1.pt", weights_only=True)
    assert all(torch.equal(first[name], again[name]) for name in first)
    done = warm_python.run(command(*parts, "--resume"), capture_output=True, text=True)
    assert done.returncode == 2 and "is of a run with other settings" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"WORLD_SIZE": "two"}, "The environment's WORLD_SIZE is 'two', expected a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', expected a whole number of 1 to"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is '2', expected a whole number of 0 to 1;"),
        ({"RANK": "-1"}, "RANK is '-1', expected a whole number of 0 to 0;"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "x"}, "MASTER_PORT is 'x', expected a"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "Process 0 of 2 does not find the others"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "taken"},
            "address already in use",
        ),
    ],
)
def test_an_environment_of_no_torchrun_is_one_sentence(tmp_path, environment, text):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        if environment.get("MASTER_PORT") == "taken":
            environment = environment | {"MASTER_PORT": str(other.getsockname()[1])}
        done = warm_python.run(
            command(*SMALL, "--run-dir", str(tmp_path / "run")), capture_output=True, text=True,
            env=os.environ | environment, timeout=300,
        )  # fmt: skip
    assert done.returncode == 2 and text in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()


HALF_A_ROLLOUT = f"""
import os, sys
sys.path[:0] = [{str(ROOT / "algos")!r}, {str(ROOT / "tests")!r}, {str(ROOT / "tests/algos")!r}]
import torch, ppo_track as ppo
from test_ppo_track import filled_rollout
from bm_envs.envs import TrackVectorEnv

torch.manual_seed(0)
config = ppo.Config(num_envs=16, hidden=(32,), overlap=True, update_epochs=3, bfloat16="off")
task = TrackVectorEnv(1, "stand").task
processes = ppo.Processes()
learner = ppo.Learner(config, task, processes)
rollout = filled_rollout(config, task, learner.actor)
mine = slice(None) if processes.count == 1 else slice(8 * processes.rank, 8 * processes.rank + 8)
for name, values in vars(rollout).items():
    if name != "log_std":
        setattr(rollout, name, values[:, mine])
learner.actor.layers[-1].bias.data += 0.02
learner.learn(rollout, iteration=1)
if processes.rank == 0:
    torch.save(learner.actor.state_dict() | {{"loss": learner.critic.obs_var}}, sys.argv[1])
processes.close()
if sys.platform == "linux":
    from pathlib import Path
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # PyTorch keeps the two of the group of all, which carried nothing.
    assert sum(name.startswith("pt_gloo") for name in threads) <= 2, threads
"""


@pytest.mark.slow
def test_two_processes_learn_from_halves_what_one_learns_from_all(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(HALF_A_ROLLOUT)
    for processes in (1, 2):
        together(processes, script, str(tmp_path / f"{processes}.pt"))
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for name in one:
        # Sums in another order (1e-7 relative); Adam's first steps are 1e-3 whatever the gradient's
        # size, so that a weight with next to none may move by a part of that.
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_learn_like_one_with_all_the_robots(tmp_path):
    flags = (
        "--motion stand --num-steps 8 --total-timesteps 40960 --eval-every 0 --hidden 32 "
        "--threads 1 --no-curriculum"
    ).split()
    script = ROOT / "algos" / "ppo_track.py"
    together(2, script, *flags, "--num-envs", "32", "--run-dir", str(tmp_path / "two"))
    together(1, script, *flags, "--num-envs", "64", "--run-dir", str(tmp_path / "one"))
    curves = []
    for name in ("one", "two"):
        rows = [json.loads(row) for row in (tmp_path / name / "metrics.jsonl").open()]
        assert len(rows) == 80
        quarters = [rows[20 * i : 20 * i + 20] for i in range(4)]
        curves.append([
            np.mean([row["losses/value_loss"] for row in part if "losses/value_loss" in row])
            for part in quarters
        ])  # fmt: skip
    # What so short a run learns is mostly values. Quarters scatter by some 10 % from seed to seed.
    assert all(curve[-1] < 0.25 * curve[0] for curve in curves)
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.3)


# --- the run directory ----------------------------------------------------------------------------


@pytest.mark.slow
def test_run_directory_and_refusals(tmp_path):
    run_dir = tmp_path / "run"
    done = train(run_dir, "--robust-every", "3")
    assert "motion stand" in done.stdout and str(run_dir) in done.stdout
    for name in ("config.json", "checkpoint.pt", "policy.onnx", "policy.json", "metrics.jsonl"):
        assert (run_dir / name).stat().st_size > 0
    assert list(run_dir.glob("events.out.tfevents.*"))
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 384 and 0 <= last["eval/survival"] <= 1
    config = json.loads((run_dir / "config.json").read_text())
    assert config["exp_name"] == "ppo_track" and config["num_envs"] == 8
    check_metrics("ppo_track", run_dir)

    for arguments, text in (
        (SMALL, "holds a run already: add --resume"),
        (
            [*SMALL, "--resume", "--gamma", "0.5"],
            "is of a run with other settings or motions: gamma is 0.5, there 0.99.",
        ),
    ):
        done = warm_python.run(
            command(*arguments, "--run-dir", str(run_dir)), capture_output=True, text=True
        )
        assert done.returncode == 2 and text in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    other = tmp_path / "other"
    for flags, text in (
        (("--motion", "wakl"), "did you mean 'walk'"),
        (("--backend", "isaclab"), "Unknown backend 'isaclab'"),
    ):
        done = warm_python.run(
            command(*SMALL, *flags, "--run-dir", str(other)), capture_output=True, text=True
        )
        assert done.returncode == 2 and text in done.stderr and not other.exists()

    # A checkpoint that is none: one sentence, and the file stays as it is.
    for content in (b"", b"no checkpoint", (run_dir / "checkpoint.pt").read_bytes()[:5000]):
        (run_dir / "checkpoint.pt").write_bytes(content)
        done = warm_python.run(
            command(*SMALL, "--resume", "--run-dir", str(run_dir)), capture_output=True, text=True
        )
        assert done.returncode == 2 and "not a readable checkpoint" in done.stderr
        assert (run_dir / "checkpoint.pt").read_bytes() == content


@pytest.mark.slow
def test_a_run_goes_on_from_a_policy(tmp_path):
    """While the critic learns alone the policy stays what it was; then it moves."""
    first, still, moved = (tmp_path / name for name in ("first", "still", "moved"))
    train(first)
    train(still, "--start-from", str(first), "--critic-first", "1000", "--motion", "walk")
    train(moved, "--start-from", str(first), "--critic-first", "64")
    told = [json.loads((path / "policy.json").read_text()) for path in (first, still, moved)]
    assert [one["training"]["start_from"] for one in told] == [None, "first", "first"]
    before, same, other = (mlp_from_policy(path / "policy.onnx") for path in (first, still, moved))
    for name in ("weights", "biases"):
        for mine, theirs in zip(getattr(same, name), getattr(before, name), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(other.weights[0], before.weights[0])
    # 384 observations beside the ten million that the old normalizer stands for.
    np.testing.assert_allclose(same.obs_mean, before.obs_mean, atol=1e-3)
    for flags, text in (
        (("--hidden", "16"), "Its layers are"),
        (("--task.observations", "command"), "its observation_names are not this run's"),
        (("--start-from", "wlak"), "did you mean 'walk'"),
    ):
        other = tmp_path / "other"
        arguments = [*SMALL, "--start-from", str(first), *flags, "--run-dir", str(other)]
        done = warm_python.run(command(*arguments), capture_output=True, text=True)
        assert done.returncode == 2 and text in done.stderr and not other.exists()


def test_the_actor_begins_as_the_policy_that_it_goes_on_from():
    config = ppo.Config(start_from="walks")
    learner = ppo.Learner(config, TrackVectorEnv(1, "stand").task)
    begin_with((learner.actor, learner.averaged), "walks", spec_of(config.task))
    mlp = mlp_from_policy(ROOT / "bm_envs" / "assets" / "policies" / "walks.onnx")
    noise = np.random.default_rng(0).normal(size=(50, 160))
    obs = (mlp.obs_mean + mlp.obs_scale * noise).astype(np.float32)
    expected = load_policy("walks")(obs)
    for actor in (learner.actor, learner.averaged):
        with torch.no_grad():
            found = actor.mean(torch.from_numpy(obs)).numpy()
        # Another order of the sums of three layers in float32, actions of size ten.
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_actor_waits_for_the_critic_and_then_gets_up_to_speed():
    config = ppo.Config(num_envs=10, num_steps=10, critic_first=1000)
    shares = [ppo.actor_share(iteration, config) for iteration in (0, 9, 10, 15, 20, 99)]
    assert shares == [0, 0, 0, 0.5, 1, 1]
    assert ppo.actor_share(0, ppo.Config()) == 1


@pytest.mark.slow
def test_published_preset_is_overridable_and_complete():
    config = ppo.published()
    changed = dataclasses.replace(config, num_envs=8192)
    assert changed.num_steps == 24 and changed.task.stale_targets
    assert config.total_timesteps == 30_000 * 4096 * 24
    done = warm_python.run(
        command("--preset", "published", "--help"), capture_output=True, text=True
    )
    assert "4096" in done.stdout


@pytest.mark.slow
def test_a_video_of_the_final_policy_on_request(tmp_path, opengl):
    arguments = [a if a != "stand" else "stand[0:0.3]" for a in SMALL]
    done = subprocess.run(
        command(*arguments, "--run-dir", str(tmp_path / "run"), "--capture-video"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with av.open(tmp_path / "run" / "video.mp4") as file:
        assert len(list(file.decode(video=0))) > 3


def test_a_video_that_cannot_be_made_is_one_warning_and_the_policy_is_kept(tmp_path, monkeypatch):
    def fails(*arguments):
        raise ConfigError("A video needs the package av.")

    monkeypatch.setattr(tracker, "record_video", fails)
    run = TrackerRunConfig(run_dir=tmp_path / "run", capture_video=True, threads=1)
    config = ppo.Config(
        motion=("stand[0:0.3]",), num_envs=4, num_steps=4, total_timesteps=16, hidden=(8,), run=run
    )
    with pytest.warns(BMWarning, match="no video of the policy: A video needs the package av"):
        ppo.main(config)
    assert (tmp_path / "run" / "policy.json").exists()
    assert not (tmp_path / "run" / "video.mp4").exists()


def test_a_checkpoint_of_before_the_constants_goes_on(tmp_path):
    """Its settings have, by name, what no flag changes any more."""
    train(tmp_path / "run", "--total-timesteps", "192")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    settings = json.loads(saved["task"])
    known = {"clip_coef", "gae_lambda", "ent_coef", "warmup_iterations", "activation"}
    assert known < settings.keys() and not known & {f.name for f in dataclasses.fields(ppo.Config)}
    assert (settings["gae_lambda"], settings["ent_coef"], settings["warmup_iterations"]) == (
        0.97, 0.0, 1
    )  # fmt: skip
    assert ppo.constants(ppo.published())["gae_lambda"] == 0.95


def test_symmetric_networks_need_pairs_of_units():
    with pytest.raises(ConfigError, match="hidden"):
        ppo.Config(hidden=(33,))
    assert ppo.Config(hidden=(33,), symmetry=False).hidden == (33,)
