"""The diffusion model's training: projection, loss, averaging, resume, files, control."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python
from metric_pages import check_metrics
from mirrored_rollouts import mirrored
from threadpoolctl import threadpool_info, threadpool_limits

from bm_envs.diffusion import rollouts
from bm_envs.diffusion.controller import Controller
from bm_envs.diffusion.model import load_model
from bm_envs.diffusion.network import PUBLISHED, Denoiser, NetworkConfig
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.diffusion.sampler import LENGTH, SCHEDULE
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.learning import windows as windows_module
from bm_envs.learning.folder import save_checkpoint
from bm_envs.learning.run import RunConfig
from bm_envs.learning.windows import Windows
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, PAST, REPRESENTATIONS, representation, states_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import collect_rollouts as collect  # noqa: E402
import ddpm_guided as ddpm  # noqa: E402

SIZE = NetworkConfig(width=32, layers=2, heads=2)
SMALL = dict(network=SIZE, batch_size=4, total_steps=12, log_every=3, warmup_steps=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "rollouts"
    collect.main(
        collect.Config(policy=("walk",), out=out, num_envs=8, episodes=16, steps=30, verify=10)
    )
    return out


def config(data, run_dir, *, resume=False, checkpoint_s=60.0, **changes):
    run = RunConfig(run_dir, resume, threads=1, eval_every=6, checkpoint_s=checkpoint_s)
    return ddpm.Config(data=(data,), run=run, **{**SMALL, **changes})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    ddpm.main(config(data, folder))
    return folder


# --- mathematics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_projection_knows_left_from_right_and_can_be_undone(name):
    rep = representation(name)
    projection = ddpm.emphasis_projection(rep, 4.0, torch.Generator().manual_seed(5)).numpy()
    n = rep.size
    assert projection.shape == (n, 2 * n)
    index, sign = rep.mirror
    x = np.random.default_rng(0).normal(size=(5, n))
    half = np.where(np.arange(n) < n // 2, -1.0, 1.0)
    y = x @ projection
    mirrored = np.concatenate([y[:, :n] * half, y[:, n:][:, index] * sign], 1)
    np.testing.assert_allclose((x[:, index] * sign) @ projection, mirrored, atol=1e-12)
    np.testing.assert_allclose(y @ np.linalg.pinv(projection), x, atol=1e-12)
    norms = np.linalg.norm(projection[:, :n], axis=1)
    root = norms[rep.blocks["root_pos"]].mean()
    assert root == pytest.approx(4 * norms[rep.blocks["root_lin_vel"]].mean(), rel=0.35)


def test_loss_by_hand():
    states, actions = torch.zeros(1, LENGTH, 2), torch.zeros(1, LENGTH, 3)
    guess = actions.clone()
    guess[0, 11, 0] = 2.0  # the last action that counts with 8 ahead of 3
    guess[0, 12, 1] = 5.0  # the first that does not
    state, action, rate = ddpm.window_loss(states + 3, guess, states, actions)
    assert state.item() == 9
    assert action.item() == pytest.approx(4 / (LENGTH * 3))
    # 0 -> 2 -> 0 in one joint, 0 -> 5 -> 0 in another.
    assert rate.item() == pytest.approx((4 + 4 + 25 + 25) / ((LENGTH - 1) * 3))


def test_levels_are_uniform_and_the_past_clean():
    state_levels, action_levels = ddpm.draw_levels(4000, torch.Generator().manual_seed(0))
    assert not state_levels[:, :PAST].any()
    for levels in (state_levels[:, PAST:], action_levels):
        share = torch.bincount(levels.flatten(), minlength=20) / levels.numel()
        np.testing.assert_allclose(share, 0.05, atol=0.003)  # four standard errors
    both = (state_levels[:, 5] == action_levels[:, 5]).float().mean()
    assert both.item() == pytest.approx(0.05, abs=0.015)  # independent


def test_noise_is_the_samplers():
    clean = torch.ones(20, 500, 3)
    levels = torch.arange(20)[:, None].expand(20, 500)
    found = ddpm.noisy(clean, levels, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.mean((1, 2)), np.sqrt(SCHEDULE.abar), atol=0.11)
    np.testing.assert_allclose(found.std((1, 2)), np.sqrt(1 - SCHEDULE.abar), rtol=0.08)


def test_limits_ignore_the_odd_episode_and_leave_constants_alone():
    values = torch.rand(2000, 3) * 4 - 1  # -1 to 3
    values[0, 0] = 1e6
    values[:, 2] = 0.25
    center, half = ddpm.limits(values)
    np.testing.assert_allclose(center[:2], 1.0, atol=0.02)
    np.testing.assert_allclose(half[:2], 2 * 1.05, atol=0.02)
    assert center[2] == 0.25 and half[2] == 1


def test_the_paper_preset_has_the_published_size():
    assert ddpm.paper().network == PUBLISHED and ddpm.Config(data=()).network == NetworkConfig()


def test_step_size_and_averaging():
    settings = ddpm.Config(data=(), total_steps=100, warmup_steps=10)
    rates = [ddpm.learning_rate_share(step, settings) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[55] == pytest.approx(0.5)
    assert rates[-1] < 1e-3 and np.argmax(rates) in (9, 10)
    assert ddpm.ema_decay(0) == 0
    assert ddpm.ema_decay(9999) == pytest.approx(0.999)
    assert ddpm.ema_decay(10**7) == 0.9999


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_past_states_have_their_share_of_noise(data, share):
    episodes = rollouts.load_rollouts(data)[0]
    rep = representation("joint_rot")
    windows = Windows(episodes, rep, torch.device("cpu"))
    normalizer = ddpm.Normalizer(rep, 29, ddpm.Config(data=()), torch.device("cpu"))
    normalizer.fit(windows, torch.Generator().manual_seed(1))
    batch = normalizer(*windows.batch(torch.arange(64), False))
    clean = batch[0][:, :PAST]
    seen = []

    def network(states, actions, state_levels, action_levels):
        assert not state_levels[:, :PAST].any()
        seen.append(states[:, :PAST])
        return states, actions

    ddpm.denoising_losses(network, batch, share, torch.Generator().manual_seed(0))
    noise = seen[0] - clean
    # Level 0 takes 0.4 % of the signal away as well, which is small beside its noise of 0.089.
    expected = share * np.sqrt(1 - SCHEDULE.abar[0])
    assert noise.std().item() == pytest.approx(expected, rel=0.03, abs=1e-7)


def test_windows_are_of_one_episode_and_mirrored_as_motions_are(data):
    episodes = rollouts.load_rollouts(data)[0]
    for name in REPRESENTATIONS:
        rep = representation(name)
        windows = Windows(episodes, rep, torch.device("cpu"), shoved_futures=True)
        assert len(windows) == len(episodes) * 11
        index = torch.tensor([0, 11, 25])
        states, actions = windows.batch(index, mirror=True)
        assert states.shape == (6, LENGTH, rep.size)
        np.testing.assert_array_equal(actions[2], episodes.action[2, 3 : 3 + LENGTH])
        other = Windows(mirrored(episodes), rep, torch.device("cpu"), shoved_futures=True)
        mirrored_states, mirrored_actions = other.batch(index, mirror=False)
        np.testing.assert_allclose(actions[3:], mirrored_actions, atol=1e-6)
        # The robot's published links are symmetric to 1e-4 m only.
        np.testing.assert_allclose(states[3:], mirrored_states, atol=3e-3)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_learns_and_writes_its_files(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert rows[-1]["valid/action"] > 0 and "valid/action" not in rows[0]
    assert rows[-1]["losses/state"] < rows[0]["losses/state"]
    assert not {"iteration", "charts/SPS"} & rows[-1].keys()  # its steps are not control steps
    record = json.loads((run / "policy.json").read_text())
    assert record["representation"] == "body_pos" and record["training"]["steps"] == 12
    assert record["data"][0]["clips"][0]["name"] == "walk"
    check_metrics("ddpm_guided", run)
    assert not [p for p in run.iterdir() if p.suffix == ".npz"]


@pytest.mark.slow
def test_killed_and_resumed_it_gives_the_same_numbers(data, run, tmp_path):
    """Stopped after the checkpoint of step 6 and gone on with: weights and rows are equal."""

    class Killed(Exception):
        pass

    folder = tmp_path / "run"
    losses, count = ddpm.denoising_losses, 0

    def counted(network, *arguments):
        nonlocal count
        count += network.training
        if count > 8:
            raise Killed
        return losses(network, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm, "denoising_losses", counted)
        with pytest.raises(Killed):
            ddpm.main(config(data, folder, checkpoint_s=0.0))
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 6
    ddpm.main(config(data, folder, resume=True))
    whole, parts = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (run, folder))
    for name in ("network", "averaged"):
        for key, value in whole[name].items():
            assert torch.equal(value, parts[name][key]), key
    assert torch.equal(whole["generator"], parts["generator"])

    def figures(path):
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k.startswith(("l", "v"))} for r in rows]

    assert figures(run) == figures(folder)


@pytest.mark.slow
def test_a_run_starts_from_another(data, run, tmp_path):
    """Steps as good as none leave the other run's weights, and its scaling stays in any case."""
    other, folder = tmp_path / "other", tmp_path / "run"
    shutil.copytree(run, other)
    # Its first steps of a warm-up of a million change a weight by 1e-2 / 1e6 each, at most.
    new = dict(start_from=other, total_steps=2, warmup_steps=1_000_000, batch_size=3)
    seeded = dataclasses.replace(config(data, folder, **new).run, seed=2)  # has another projection
    ddpm.main(dataclasses.replace(config(data, folder, **new), run=seeded))
    theirs, own = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (run, folder))
    for name, value in theirs["averaged"].items():
        torch.testing.assert_close(own["averaged"][name], value, atol=1e-6, rtol=0)
    for name, value in theirs["scaling"].items():
        assert torch.equal(own["scaling"][name], value), name
    # Without it, both would be others.
    apart = tmp_path / "apart"
    ddpm.main(dataclasses.replace(config(data, apart, **new | {"start_from": None}), run=(
        dataclasses.replace(seeded, run_dir=apart))))  # fmt: skip
    drawn = torch.load(apart / "checkpoint.pt", weights_only=True)
    assert not torch.equal(drawn["scaling"]["projection"], theirs["scaling"]["projection"])
    record = json.loads((folder / "policy.json").read_text())["training"]
    assert record["steps"] == 2 and record["start_from"]["steps"] == 12
    assert record["start_from"]["data"][0]["clips"][0]["name"] == "walk"
    assert "start_from" not in json.loads((run / "policy.json").read_text())["training"]
    shutil.rmtree(other)  # a run that goes on needs it no more
    resumed = dataclasses.replace(seeded, resume=True)
    ddpm.main(dataclasses.replace(config(data, folder, **new), run=resumed))
    again = json.loads((folder / "policy.json").read_text())["training"]
    assert again["start_from"] == record["start_from"]


@pytest.mark.slow
def test_a_start_that_is_none_is_refused(data, run, tmp_path):
    wide = NetworkConfig(width=64, layers=2, heads=2)
    with pytest.raises(ConfigError, match="is a run with width 32, expected 64"):
        ddpm.main(config(data, tmp_path / "run", start_from=run, network=wide))
    with pytest.raises(PolicyError, match="checkpoint.pt"):
        ddpm.main(config(data, tmp_path / "run", start_from=tmp_path / "none"))
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    shutil.copy(run / "checkpoint.pt", stopped)
    with pytest.raises(PolicyError, match="stopped"):
        ddpm.main(config(data, tmp_path / "run", start_from=stopped))
    others = {name: [2.0 * v for v in values] for name, values in
              rollouts.read_manifest(data)["drives"].items()}  # fmt: skip
    with pytest.raises(ConfigError, match="for other drives than those of the data"):
        ddpm.read_start(run, config(data, tmp_path / "run"), others)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_refusals(data, run, tmp_path):
    with pytest.raises(ConfigError, match="holds a run already: add --resume"):
        ddpm.main(config(data, run))
    with pytest.raises(ConfigError, match="is of a run with other settings or data"):
        ddpm.main(config(data, run, resume=True, batch_size=5))
    with pytest.raises(ConfigError, match="past_noise is 2, expected a share, 0 to 1"):
        config(data, tmp_path, past_noise=2)
    with pytest.raises(ConfigError, match="data is empty"):
        ddpm.main(ddpm.Config(data=(), run=RunConfig(tmp_path)))
    assert not list(tmp_path.iterdir())
    done = warm_python.run(
        [sys.executable, "algos/ddpm_guided.py", "--data", str(tmp_path / "none"), "--run-dir",
         str(tmp_path / "run")],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2 and "holds no dataset.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_checkpoint_of_version_0_2_goes_on(data, run, tmp_path):
    """It had `valid` for the last figures, no `iteration`, and the constants among the settings."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    figures = saved.pop("evaluation")
    del saved["iteration"]
    settings = json.loads(saved["identity"])
    assert settings["ema_max"] == 0.9999 and settings["mirror"] is True
    old = saved | {"valid": [figures["valid_state"], figures["valid_action"]]}
    save_checkpoint(folder / "checkpoint.pt", old)
    ddpm.main(config(data, folder, resume=True))
    records = [json.loads((path / "policy.json").read_text()) for path in (run, folder)]
    for key in ("steps", "valid_state", "valid_action"):
        assert records[0]["training"][key] == records[1]["training"][key]
    other = old | {"identity": json.dumps(settings | {"ema_max": 0.99})}
    save_checkpoint(folder / "checkpoint.pt", other)
    with pytest.raises(ConfigError, match="is of a run with other settings or data"):
        ddpm.main(config(data, folder, resume=True))


def test_episodes_shorter_than_a_window_are_refused(data):
    episodes = rollouts.load_rollouts(data)[0]
    cut = Rollouts(
        **{
            name: value[:, :10] if value.ndim > 1 and value.shape[1] == 30 else value
            for name, value in episodes.arrays().items()
        }
    )
    with pytest.raises(ConfigError, match="Episodes have 10 steps, expected 20 or more"):
        Windows(cut, representation("body_pos"), torch.device("cpu"))


def test_no_window_is_shoved_after_its_present(data):
    """Of one episode of 30 steps that is shoved between its states 12 and 13."""
    episodes = rollouts.load_rollouts(data)[0][:1]
    pushed = np.zeros_like(episodes.pushed)
    pushed[0, 12] = True
    episodes = dataclasses.replace(episodes, pushed=pushed)
    rep, cpu = representation("joint_rot"), torch.device("cpu")
    every = Windows(episodes, rep, cpu, shoved_futures=True)
    some = Windows(episodes, rep, cpu)
    assert len(every) == 11
    # A window from t has its present at t + 3: that is 13 or later from t = 10 on.
    assert len(some) == 1
    first = some.batch(torch.tensor([0]), False)[1]
    assert torch.equal(first, every.batch(torch.tensor([10]), False)[1])
    pushed[:] = True
    with pytest.raises(ConfigError, match="every window the robot is pushed"):
        Windows(dataclasses.replace(episodes, pushed=pushed), rep, cpu)


def test_links_are_those_of_all_episodes_at_once(data, monkeypatch):
    """Of 16 episodes, 5 at a time: the last portion is a short one."""
    episodes = rollouts.load_rollouts(data)[0]
    rep, cpu = representation("body_pos"), torch.device("cpu")
    whole = Windows(episodes, rep, cpu)
    monkeypatch.setattr(windows_module, "PORTION", 5)
    portions = Windows(episodes, rep, cpu)
    index = torch.arange(len(whole))
    for one, other in zip(whole.batch(index, False), portions.batch(index, False), strict=True):
        assert torch.equal(one, other)


# --- files and control ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["body_pos", "joint_rot", "plain"])
def trained(request, data, run, tmp_path_factory):
    """A run of each kind, and its checkpoint."""
    if request.param == "body_pos":
        folder = run
    else:
        folder = tmp_path_factory.mktemp(request.param) / "run"
        changes = (
            {"representation": "joint_rot"} if request.param == "joint_rot" else {"emphasis": 0.0}
        )
        ddpm.main(config(data, folder, total_steps=4, **changes))
    return folder, torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.slow
def test_the_file_gives_what_the_network_gives(trained):
    folder, state = trained
    model = load_model(folder)
    width = model.width
    network = Denoiser(width, SIZE).eval()
    network.load_state_dict(state["averaged"])
    rng = np.random.default_rng(0)
    given = (
        rng.normal(size=(3, LENGTH, width)).astype(np.float32),
        rng.normal(size=(3, LENGTH, 29)).astype(np.float32),
        rng.integers(0, 20, (3, LENGTH)), rng.integers(0, 20, (3, LENGTH)),
    )  # fmt: skip
    with torch.no_grad():
        expected = network(*map(torch.from_numpy, given))
    for mine, theirs in zip(model.denoise(*given), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_half_precision_halves_the_file_and_little_else(run, data, tmp_path):
    """Exported anew from a finished run; float16 has 11 binary digits, so 2^-11 of a weight."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    ddpm.main(config(data, folder, resume=True, half=True))
    files = [path / "denoiser.onnx" for path in (run, folder)]
    rng = np.random.default_rng(0)
    given = (
        rng.normal(size=(3, LENGTH, load_model(folder).width)).astype(np.float32),
        rng.normal(size=(3, LENGTH, 29)).astype(np.float32),
        rng.integers(0, 20, (3, LENGTH)), rng.integers(0, 20, (3, LENGTH)),
    )  # fmt: skip
    whole, half = (load_model(file).denoise(*given) for file in files)
    for mine, theirs in zip(half, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
        assert not np.array_equal(mine, theirs)
    sizes = [file.stat().st_size for file in files]
    matrices = sum(
        value.numel() for value in torch.load(run / "checkpoint.pt", weights_only=True)[
            "averaged"].values() if value.ndim > 1
    )  # fmt: skip
    assert sizes[0] - sizes[1] == pytest.approx(2 * matrices, rel=0.25)
    record = json.loads((folder / "policy.json").read_text())
    assert record["licence"] == "learned from motions under Apache-2.0"


def test_scaling_goes_both_ways(trained, data):
    model = load_model(trained[0])
    episodes = rollouts.load_rollouts(data)[0]
    states = states_of(episodes.qpos[:2, :LENGTH], episodes.qvel[:2, :LENGTH])
    features = model.representation.encode(states, NOW)
    scaled = model.scale(features)
    assert scaled.shape[-1] == model.width
    np.testing.assert_allclose(model.unscale(scaled), features, atol=2e-4)
    kept = np.isclose(model.unscale(model.bound(scaled)), features, atol=2e-3)
    assert kept.mean() > 0.95  # few are beyond the bound
    action = episodes.action[0]
    center, edge = (model.unscale_action(np.full(29, value)) for value in (0.0, 1.0))
    assert np.abs((action - center) / (edge - center)).mean() < 1


@pytest.mark.parametrize("method", ["full", "rolling", 4])
def test_a_model_in_the_loop(trained, method):
    """Twenty control steps of three robots; equal seeds give equal actions."""
    model = load_model(trained[0])
    found = []
    for _ in range(2):
        env = TrackVectorEnv(3, "walk", preset="clip", autoreset_mode="disabled")
        env.reset(seed=0, options={"frame": 300})
        controller = Controller(model, 3, seed=7, method=method)
        for _ in range(5):
            sim = env.simulator
            qpos = np.concatenate([sim.root_pos, sim.root_quat, sim.joint_pos], 1)
            qvel = np.concatenate([sim.root_lin_vel, sim.root_ang_vel_b, sim.joint_vel], 1)
            states = states_of(qpos, qvel)
            action = controller.act(states)
            assert action.shape == (3, 29) and np.isfinite(action).all()
            plan = controller.plan()
            np.testing.assert_allclose(plan.root_pos[:, NOW], states.root_pos, atol=2e-3)
            env.step(action)
        found.append(action)
    np.testing.assert_array_equal(*found)


def test_a_guide_is_given_the_estimates_and_moves_the_plan(trained):
    model = load_model(trained[0])
    forward = model.representation.blocks["root_lin_vel"].start

    def guide(features, levels):
        assert features.shape == (2, LENGTH, model.representation.size)
        features[:, PAST:, forward] += 0.05
        return features

    env = TrackVectorEnv(2, "walk", preset="clip", autoreset_mode="disabled")
    env.reset(seed=0, options={"frame": 300})
    sim = env.simulator
    qpos = np.concatenate([sim.root_pos, sim.root_quat, sim.joint_pos], 1)
    qvel = np.concatenate([sim.root_lin_vel, sim.root_ang_vel_b, sim.joint_vel], 1)
    states = states_of(qpos, qvel)
    speeds = []
    for given in (None, guide):
        controller = Controller(model, 2, seed=1, guide=given)
        controller.act(states)
        found = model.unscale(controller.sample.states)[:, PAST:, forward]
        speeds.append(found.mean())
    assert speeds[1] > speeds[0]


def test_numpy_has_one_thread_while_a_model_runs_and_all_of_them_afterwards(trained):
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    inside = []

    def guide(features, levels):
        inside.append(threads())
        return features

    model = load_model(trained[0])
    qpos = np.zeros((1, 36))
    qpos[:, 2], qpos[:, 3] = 0.76, 1.0
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        Controller(model, 1, method=2, guide=guide).act(states_of(qpos, np.zeros((1, 35))))
        assert threads() == before and set(before) == {2}
    assert len(inside) == 2 and all(set(found) == {1} for found in inside)


def test_files_that_are_no_models(run, tmp_path):
    with pytest.raises(PolicyError, match="Unknown diffusion model 'nothing'"):
        load_model("nothing")
    with pytest.raises(PolicyError, match="holds no denoiser.onnx, expected a diffusion model's"):
        load_model(tmp_path)
    with pytest.raises(PolicyError, match="lack format 'bm-envs denoiser 1', expected a denoiser"):
        load_model(ROOT / "bm_envs" / "assets" / "policies" / "walk.onnx")
    broken = tmp_path / "denoiser.onnx"
    content = (run / "denoiser.onnx").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(PolicyError, match="not a readable ONNX model"):
        load_model(broken)
    shutil.copy(run / "denoiser.onnx", broken)
    assert load_model(broken).sha256 == load_model(run).sha256
    assert load_model(run).drives["action_scale"] == pytest.approx(list(g1.ACTION_SCALE))
