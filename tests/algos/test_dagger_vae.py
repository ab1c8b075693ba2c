"""Distillation into a latent: divergence, mirror images, teachers, resume, files, roll-outs."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_pages import check_metrics
from torch.distributions import Normal, kl_divergence

from bm_envs.diffusion import rollouts
from bm_envs.diffusion.controller import Controller, feelings
from bm_envs.diffusion.model import load_model
from bm_envs.diffusion.network import NetworkConfig
from bm_envs.errors import BMError, ConfigError, PolicyError
from bm_envs.evaluation import in_project_order, motions_of, observations
from bm_envs.learning.networks import as_mirror, reflected
from bm_envs.learning.run import RunConfig
from bm_envs.learning.tracker import TrackerRunConfig
from bm_envs.policy import load_policy, mlp_from_policy, write_onnx
from bm_envs.policy.latent import SEEN, latent_from_policy, latent_mirror
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS, POLICY_TERMS, mirror_map
from bm_envs.tasks.guided.states import NOW, PAST, states_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import collect_rollouts as collect  # noqa: E402
import dagger_vae as dagger  # noqa: E402
import ddpm_guided as ddpm  # noqa: E402

SMALL = dict(
    num_envs=8, num_steps=4, total_timesteps=8 * 4 * 6, encoder=(8,), decoder=(8,), latent=4,
    batch_size=32, updates=2, kept=3,
)  # fmt: skip


def config(folder, *, resume=False, **changes):
    run = TrackerRunConfig(folder, resume, threads=1, eval_every=0, checkpoint_s=0.0)
    settings = {"policy": ("stroll", "jog"), **SMALL, **changes}
    return dagger.Config(run=run, **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dagger") / "run"
    dagger.main(config(folder))
    return folder


@pytest.fixture(scope="module")
def data(run, tmp_path_factory):
    """A student of six iterations falls, so nothing is to be verified and no noise is put on it."""
    out = tmp_path_factory.mktemp("data") / "rollouts"
    collect.main(collect.Config(
        policy=(str(run),), motion=("stroll",), out=out, num_envs=8, episodes=8, steps=22,
        warm_up=0, verify=0, noise_scale=0.4, pushed=0.0,
    ))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    ddpm.main(ddpm_config(data, folder))
    return folder


def ddpm_config(data, folder, **changes):
    return ddpm.Config(
        data=(data,), run=RunConfig(folder, threads=1, eval_every=6),
        network=NetworkConfig(width=32, layers=2, heads=2), batch_size=4, total_steps=6,
        log_every=3, warmup_steps=2, **{"latent": True, **changes},
    )  # fmt: skip


# --- mathematics ----------------------------------------------------------------------------------


def test_the_divergence_is_that_of_gaussians():
    """By torch's own formula, which is written otherwise."""
    mean, log_std = torch.randn(5, 3), 0.3 * torch.randn(5, 3)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(dagger.divergence(mean, log_std), expected)


def test_the_student_of_a_mirror_image_is_the_mirror_image():
    torch.manual_seed(0)
    student = dagger.Student(dagger.Config(policy=("walk",), **SMALL))
    with torch.no_grad():  # its last layers are small at the start
        for part in (student.encoder, student.decoder):
            for value in part.layers.parameters():
                value.normal_()
            part.symmetrize([value.data for value in part.layers.parameters()])
    obs, noise = torch.randn(6, 160), torch.randn(6, 4)
    seen, latent = as_mirror(mirror_map(POLICY_TERMS)), as_mirror(latent_mirror(4))
    action, mean, log_std = student(obs, noise)
    other = student(reflected(obs, seen), reflected(noise, latent))
    for ours, theirs, mirror in zip(
        (action, mean, log_std), other, (as_mirror(g1.mirror_map()), latent, latent), strict=True
    ):
        torch.testing.assert_close(theirs, reflected(ours, mirror), atol=1e-4, rtol=1e-4)


# --- teachers -------------------------------------------------------------------------------------


def test_each_clip_has_its_own_teacher():
    teachers = dagger.Teachers(("stroll", "jog"))
    assert [clip.name for clip in teachers.clips] == ["stroll", "jog"]
    obs = np.random.default_rng(0).normal(size=(5, 160)).astype(np.float32)
    clip = np.array([0, 1, 1, 0, 1])
    labels = teachers(obs, clip)
    for number, name in enumerate(("stroll", "jog")):
        alone = in_project_order(load_policy(name))(obs)
        np.testing.assert_allclose(labels[clip == number], alone[clip == number], atol=1e-5)


def test_teachers_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="policy is empty, expected one teacher"):
        dagger.Teachers(())
    with pytest.raises(PolicyError, match="policies of latents have g1 alone"):
        dagger.Teachers(("walk_23",))
    walk = load_policy("walk")
    stiffer = dataclasses.replace(
        walk.spec, joint_stiffness=tuple(2 * value for value in walk.spec.joint_stiffness)
    )
    few = dataclasses.replace(
        walk.spec, observation_names=NO_STATE_ESTIMATION_TERMS, observation_history_lengths=()
    )
    net = mlp_from_policy(walk.path)
    write_onnx(tmp_path / "stiffer.onnx", net, stiffer, None)
    with pytest.raises(ConfigError, match="stiffer.onnx: has other drives than stroll"):
        dagger.Teachers(("stroll", str(tmp_path / "stiffer.onnx")))
    size = few.observation_size
    cut = dataclasses.replace(
        net, obs_mean=net.obs_mean[:size], obs_scale=net.obs_scale[:size],
        weights=(net.weights[0][:, :size], *net.weights[1:]),
    )  # fmt: skip
    write_onnx(tmp_path / "few.onnx", cut, few, None)
    with pytest.raises(ConfigError, match="few.onnx: observes command, .* expected a teacher"):
        dagger.Teachers((str(tmp_path / "few.onnx"),))


@pytest.mark.parametrize(
    ("changes", "text"),
    [(dict(latent=5), "latent is 5, expected an even number"),
     (dict(encoder=()), r"encoder is \(\), expected one or more even numbers"),
     (dict(decoder=(8, 7)), "expected one or more even numbers"),
     (dict(beta=-1.0), "beta is -1.0, expected 0 to 1"),
     (dict(updates=0), "updates is 0, expected 1 or more"),
     (dict(total_timesteps=10), "is less than one iteration")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        dagger.Config(**{"policy": ("walk",), **SMALL, **changes})


# --- the run --------------------------------------------------------------------------------------


def test_it_learns_what_the_teachers_do():
    """Of states of the teacher's own, the error of its actions falls to a part of what it was."""
    settings = {**SMALL, "encoder": (32,), "decoder": (64,), "batch_size": 256, "updates": 10}
    learner = dagger.Learner(dagger.Config(
        policy=("stroll",), run=TrackerRunConfig(seed=1), learning_rate=5e-3,
        **{**settings, "kept": 30},
    ))  # fmt: skip
    policy = load_policy("stroll")
    obs = observations(policy, motions_of(policy)[0], robots=8, steps=60)
    label = in_project_order(policy)(obs)
    learner.student.update_normalizers(torch.from_numpy(obs), torch.randn(len(obs), 4))
    learner.keep(torch.from_numpy(obs), torch.from_numpy(label))
    errors = [learner.learn(0.0)["losses/action"] for _ in range(20)]
    assert errors[-1] < 0.25 * errors[0]


def test_a_run_cut_short_ends_with_the_same_numbers(run, tmp_path, monkeypatch):
    """It dies in its fourth iteration, and begins there again."""
    learn, calls = dagger.Learner.learn, []

    def dies(self, share):
        calls.append(share)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return learn(self, share)

    monkeypatch.setattr(dagger.Learner, "learn", dies)
    folder = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        dagger.main(config(folder))
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["iteration"] == 3
    dagger.main(config(folder, resume=True))
    ours, whole = (torch.load(path / "checkpoint.pt", weights_only=True) for path in (folder, run))
    assert ours["iteration"] == whole["iteration"] == 6 and len(calls) == 7
    for part in ("student", "averaged"):
        for name, value in whole[part].items():
            assert torch.equal(value, ours[part][name]), name
    assert (folder / "policy.onnx").read_bytes() == (run / "policy.onnx").read_bytes()


def test_the_student_is_a_tracker_as_any_other(run):
    policy = load_policy(run)
    assert policy.info["training"]["algorithm"] == "dagger_vae"
    assert [motion["name"] for motion in policy.info["motions"]] == ["stroll", "jog"]
    student = latent_from_policy(policy.path)
    obs = np.random.default_rng(1).normal(size=(5, 160)).astype(np.float32)
    # The runtime adds the same float32 products in another order.
    np.testing.assert_allclose(policy(obs), student(obs), atol=1e-4)


def test_what_is_logged_stands_on_its_page(run, tmp_path):
    dagger.main(config(tmp_path / "long", total_timesteps=8 * 4 * 40))  # until episodes end
    check_metrics("dagger_vae", run, tmp_path / "long")


# --- roll-outs and models of latents --------------------------------------------------------------


def test_the_decoder_makes_of_recorded_latents_the_recorded_actions(data):
    """What the controller shows the decoder is what the policy observed, joint for joint."""
    episodes, manifest = rollouts.load_rollouts(data)
    decoder = rollouts.load_decoder(data, manifest)
    assert manifest["latent"]["size"] == 4 and episodes.latent.shape[-1] == 4
    default = np.array(manifest["drives"]["default_joint_pos"], np.float32)
    for t in (1, 9):
        states = states_of(episodes.qpos[:, t], episodes.qvel[:, t])
        states = states._replace(joint_pos=states.joint_pos - episodes.joint_offset)
        felt = feelings(states, episodes.executed[:, t - 1], default)
        action = decoder(np.concatenate([episodes.latent[:, t], felt], 1))
        # float32, of values up to some units.
        np.testing.assert_allclose(action, episodes.action[:, t], atol=2e-5)


def test_roll_outs_of_others_have_no_latents(tmp_path, run):
    out = tmp_path / "walk"
    collect.main(collect.Config(
        policy=("walk",), out=out, num_envs=4, episodes=4, steps=22, warm_up=0, verify=0,
    ))  # fmt: skip
    with pytest.raises(BMError, match="its roll-outs have no latents"):
        ddpm.main(ddpm_config(out, tmp_path / "model"))
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match="one of latents among them, expected that alone"):
        collect.main(collect.Config(policy=("stroll", str(run)), out=tmp_path / "both"))


def test_a_decoder_that_is_another_is_refused(data, tmp_path):
    import shutil

    copy = shutil.copytree(data, tmp_path / "copy")
    with (copy / rollouts.DECODER).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BMError, match="is missing or not the file that dataset.json tells"):
        rollouts.load_decoder(copy, rollouts.read_manifest(copy))


def test_a_latents_mirror_image_is_that_of_a_mirrored_window(data):
    """The student is symmetric: of a mirrored state it makes the mirrored latent."""
    episodes, manifest = rollouts.load_rollouts(data)
    index, sign = latent_mirror(4)
    twice = sign * (sign * episodes.latent[..., index])[..., index]
    np.testing.assert_array_equal(twice, episodes.latent)
    assert not np.array_equal(episodes.latent[..., index], episodes.latent)


def test_a_model_of_latents_holds_its_decoder(model, data):
    loaded = load_model(model)
    decoder = rollouts.load_decoder(data, rollouts.read_manifest(data))
    assert loaded.action_size == 4
    x = np.random.default_rng(2).normal(size=(3, 97)).astype(np.float32)
    np.testing.assert_array_equal(loaded.decoder(x), decoder(x))
    assert json.loads((model / "policy.json").read_text())["latent"] == {"size": 4}


def test_half_keeps_the_decoder_within_the_precision_of_its_numbers(model, data, tmp_path):
    ddpm.main(ddpm_config(data, tmp_path / "half", half=True))
    whole, half = load_model(model).decoder, load_model(tmp_path / "half").decoder
    for ours, theirs in zip(whole.weights, half.weights, strict=True):
        np.testing.assert_array_equal(ours.astype(np.float16).astype(np.float32), theirs)


def test_a_latent_is_decoded_when_it_is_due(model, data):
    """Two steps late: the third action is of the first plan's third latent and of its own state."""
    episodes, _ = rollouts.load_rollouts(data)
    loaded = load_model(model)
    control = Controller(loaded, len(episodes), seed=1, method=2)
    last = np.zeros((len(episodes), 29), np.float32)
    plans = []
    for t in range(5):
        states = states_of(episodes.qpos[:, t], episodes.qvel[:, t])
        action = control.act(states, ahead=2)
        plans.append(loaded.unscale_action(control.sample.actions))
        latent = plans[0][:, NOW + t] if t < 2 else plans[t - 2][:, NOW + 2]
        felt = feelings(states, last, np.array(loaded.drives["default_joint_pos"], np.float32))
        expected = loaded.decoder(np.concatenate([latent, felt], 1))
        np.testing.assert_array_equal(action, expected)
        last = action
    assert plans[0].shape[1] == PAST + 2
    control.reset(states)
    again = control.act(states)
    felt = feelings(states, 0 * last, np.array(loaded.drives["default_joint_pos"], np.float32))
    latent = loaded.unscale_action(control.sample.actions[:, NOW])
    np.testing.assert_array_equal(again, loaded.decoder(np.concatenate([latent, felt], 1)))


def test_what_a_decoder_feels_is_the_observation_of_a_tracker():
    """Terms 67 to 160 of the tracking environment, which computes them from the engine's values."""
    from bm_envs.backends.base import full_state
    from bm_envs.envs import TrackVectorEnv
    from bm_envs.tasks.track.config import TrackConfig

    env = TrackVectorEnv(3, "walk", config=TrackConfig.preset("clip"), autoreset_mode="disabled")
    env.reset(seed=0)
    action = np.random.default_rng(3).normal(size=(3, 29)).astype(np.float32)
    for _ in range(4):
        obs, *_ = env.step(0.3 * action)
    states = states_of(*full_state(env.simulator))
    felt = feelings(states, 0.3 * action, env.task.nominal_joint_pos)
    np.testing.assert_allclose(felt, obs[:, SEEN:], atol=2e-5)  # float32 rotations


def test_the_run_needs_the_c_engine(tmp_path):
    run = dataclasses.replace(config(tmp_path).run, backend="mujoco_warp")
    with pytest.raises(ConfigError, match="backend is 'mujoco_warp' and robot 'g1', expected"):
        dagger.main(dataclasses.replace(config(tmp_path), run=run))
