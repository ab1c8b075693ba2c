"""algos/ppo_guided.py: mathematics and reward by hand, mirrors, resume; and its policy's file."""

import copy
import dataclasses
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import warm_python
from metric_pages import check_metrics
from policy_files import make_mlp
from scipy.spatial.transform import Rotation

from bm_envs import cli
from bm_envs.diffusion.task_policy import load_guided_policy, write_guided_policy
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import PolicyError
from bm_envs.robots import g1
from bm_envs.tasks.guided.config import JoystickConfig, WaypointConfig, config_class
from bm_envs.tasks.guided.observations import mirror_map
from bm_envs.tasks.track.config import ActuationConfig

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "algos"))
import ppo_guided as ppo  # noqa: E402

from bm_envs.learning.networks import as_mirror, reflected  # noqa: E402
from bm_envs.learning.run import RunConfig  # noqa: E402

TASKS = ["walk_perturb", "joystick", "waypoint", "obstacle", "tour"]
SMALL = dict(
    num_envs=8, num_steps=16, total_timesteps=6 * 128, eval_every=128, eval_trials=2, hidden=(16,),
    num_minibatches=2, threads=1,
)  # fmt: skip
ONE = SMALL | {"update_epochs": 1, "num_minibatches": 1}
DRIVES = {
    "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
    "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
}  # fmt: skip


def standing(n, height=0.76):
    """`qpos [N, 36]`, `qvel [N, 35]` of robots at rest in the default pose."""
    qpos = np.zeros((n, 36))
    qpos[:, 2], qpos[:, 3], qpos[:, 7:] = height, 1.0, g1.DEFAULT_JOINT_POS
    return qpos, np.zeros((n, 35))


def config_of(**values):
    """A configuration whose run's settings are given beside its own."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    own = {name: values.pop(name) for name in names if name in values}
    return ppo.Config(run=dataclasses.replace(ppo.Config().run, **own), **values)


def networks_of(seed=0, **changes):
    """Actor and critic whose normalizers have seen something and whose outputs are not near 0."""
    torch.manual_seed(seed)
    actor, critic = ppo.make_networks(config_of(**{**SMALL, **changes}))
    seen = torch.randn(200, len(actor.obs_mean)) + 0.5
    for network in (actor, critic):
        network.update_normalizer(seen)
    with torch.no_grad():
        for parameter in actor.layers.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    if actor.mirrors:
        actor.symmetrize([value.data for value in actor.layers.parameters()])
    return actor, critic


def optimizer_of(actor, critic, learning_rate):
    groups = [{"params": list(network.parameters())} for network in (actor, critic)]
    return torch.optim.Adam(groups, learning_rate)


def learned(networks, samples, config, learning_rate=1e-3):
    """The step size, and what is logged, of one call of `learn`."""
    optimizer = optimizer_of(*networks, learning_rate)
    generator = torch.Generator().manual_seed(0)
    return ppo.learn(*networks, optimizer, samples, config, learning_rate, generator)


# --- mathematics ----------------------------------------------------------------------------------


def made_up_samples(networks, count, seed=1):
    """Samples that the policy could have drawn."""
    actor, critic = networks
    torch.manual_seed(seed)
    x = torch.randn(count, len(actor.obs_mean))
    with torch.no_grad():
        mean, value = actor(x), critic(x).squeeze(-1)
        action = mean + actor.log_std.exp() * torch.randn(count, 29)
    advantage, returns = torch.randn(2, count)
    return ppo.Samples(x, action, mean, value, advantage, returns)


@pytest.mark.parametrize("symmetry", [True, False])
def test_first_gradient_is_the_policy_gradient_and_that_of_the_squared_error(symmetry, monkeypatch):
    for name, value in (("MAX_GRAD_NORM", 1e9), ("ENT_COEF", 0.0), ("VALUE_COEF", 0.5)):
        monkeypatch.setattr(ppo, name, value)
    config = config_of(**ONE, symmetry=symmetry)
    networks = networks_of(symmetry=symmetry)
    samples = made_up_samples(networks, 64)
    actor, critic = copy.deepcopy(networks)
    learned(networks, samples, config)

    policy = torch.distributions.Normal(actor(samples.x), actor.log_std.exp())
    objective = (samples.advantage * policy.log_prob(samples.action).sum(-1)).mean()
    error = ((critic(samples.x).squeeze(-1) - samples.returns) ** 2).mean()
    (0.5 * error - objective).backward()
    for mine, other in zip(networks, (actor, critic), strict=True):
        other.symmetrize_gradients()
        for (name, value), expected in zip(
            mine.named_parameters(), other.parameters(), strict=True
        ):
            assert expected.grad.abs().max() > 1e-4, name
            # float32 sums over 64 samples in another order.
            torch.testing.assert_close(value.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("symmetry", [True, False])
def test_divergence_is_from_the_policy_that_drew_the_samples(symmetry, monkeypatch):
    """Only the entropy pulls: Adam's first step widens every log std by its step size, 0.01."""
    monkeypatch.setattr(ppo, "ENT_COEF", 0.1)
    config = config_of(**{**ONE, "update_epochs": 2}, symmetry=symmetry)
    networks = networks_of(symmetry=symmetry)
    samples = made_up_samples(networks, 64)._replace(advantage=torch.zeros(64))
    _, logged = learned(networks, samples, config, 1e-2)
    wider = 29 * (0.01 + 0.5 * np.exp(-0.02) - 0.5)
    # Mean of no divergence before the first step and of this one before the second. float32 leaves
    # 1e-7 of each of the 29 terms of 1e-4.
    assert logged["losses/approx_kl"] == pytest.approx(wider / 2, rel=3e-3)


def test_divergence_steers_the_policys_step_size_and_not_the_critics(monkeypatch):
    monkeypatch.setattr(ppo, "DESIRED_KL", 1e-9)
    config = config_of(**{**ONE, "update_epochs": 2})
    networks = networks_of()
    optimizer, samples = optimizer_of(*networks, 1e-2), made_up_samples(networks, 64)
    generator = torch.Generator().manual_seed(0)
    rate, _ = ppo.learn(*networks, optimizer, samples, config, 1e-2, generator)
    # Before the first step at most what rounding makes, and 0.01 is the most there is; far too much
    # before the second.
    assert rate == 1e-2 / 1.5
    assert [group["lr"] for group in optimizer.param_groups] == [rate, 1e-2]


def test_a_ratio_beyond_the_clip_gives_no_gradient_where_it_would_go_further(monkeypatch):
    for name in ("ENT_COEF", "VALUE_COEF"):
        monkeypatch.setattr(ppo, name, 0.0)
    config = config_of(**ONE, symmetry=False)
    for advantage, moves in ((1.0, False), (-1.0, True)):
        networks = networks_of(symmetry=False)
        samples = made_up_samples(networks, 4)
        # The old policy drew what the present one is much likelier to draw.
        samples = samples._replace(
            action=samples.mean + 0.1, mean=samples.mean + 0.6,
            advantage=torch.full((4,), advantage),
        )  # fmt: skip
        _, logged = learned(networks, samples, config)
        assert logged["losses/clipfrac"] == 1.0
        gradient = max(p.grad.abs().max().item() for p in networks[0].layers.parameters())
        assert (gradient > 0) == moves


def test_gradients_of_policy_and_critic_are_bounded_apart(monkeypatch):
    monkeypatch.setattr(ppo, "MAX_GRAD_NORM", 0.01)
    networks = networks_of()
    learned(networks, made_up_samples(networks, 64), config_of(**ONE))
    for network in networks:
        norm = torch.cat([value.grad.flatten() for value in network.parameters()]).norm().item()
        assert norm == pytest.approx(0.01, rel=1e-3)  # torch divides by norm + 1e-6


# --- left and right -------------------------------------------------------------------------------


def test_symmetric_networks_act_and_value_so_and_stay_so_while_they_learn():
    networks = actor, critic = networks_of()
    seen, joints = (as_mirror(pair) for pair in (mirror_map("joystick"), g1.mirror_map()))
    obs = torch.randn(64, len(actor.obs_mean))
    before = actor.mean(obs).detach()
    samples = made_up_samples(networks, 64)
    samples = samples._replace(advantage=samples.action[:, 0])  # of one side only
    learned(networks, samples, config_of(**SMALL), 1e-2)
    with torch.no_grad():
        after, value = actor.mean(obs), critic.value(obs)
        mirrored = reflected(obs, seen)
        assert (after - before).abs().mean() > 0.01 and value.std() > 0.1
        # float32 sums of some hundred terms.
        torch.testing.assert_close(
            actor.mean(mirrored), reflected(after, joints), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(critic.value(mirrored), value, atol=1e-4, rtol=1e-4)
    std = actor.log_std.detach()
    assert std.std() > 0
    torch.testing.assert_close(std, std[joints[0]], rtol=0, atol=1e-6)
    # Without symmetry nothing of it holds, which the comparison above must see.
    plain, _ = networks_of(symmetry=False)
    with torch.no_grad():
        found, expected = plain.mean(mirrored), reflected(plain.mean(obs), joints)
    assert (found - expected).abs().max() > 0.1


# --- reward ---------------------------------------------------------------------------------------


def test_tilt_is_that_of_the_rotation():
    rotations = Rotation.random(50, rng=np.random.default_rng(0))
    up = rotations.apply([0, 0, 1])[:, 2]
    quat = rotations.as_quat()[:, [3, 0, 1, 2]]
    np.testing.assert_allclose(ppo.tilt_square(quat), 1 - up**2, atol=1e-12)  # float64


def test_air_time_is_the_shorter_phase_of_a_single_stance_up_to_the_most():
    contact = np.array([[1, 0], [1, 0], [0, 1], [1, 1], [0, 0]], bool)
    seconds = np.array([[0.3, 0.1], [0.6, 0.5], [0.02, 0.7], [0.3, 0.3], [0.3, 0.3]])
    np.testing.assert_array_equal(ppo.air_time(contact, seconds, 0.4), [0.1, 0.4, 0.02, 0, 0])


@pytest.fixture(scope="module")
def joystick():
    return GuidedVectorEnv(4, "joystick", autoreset_mode="disabled", threads=1)


def terms_of(env, qpos, qvel, fell=(False,) * 4, wanted=(True,) * 4, change=0.0):
    """The reward's terms of robots put into a state, the left foot down, the right one up."""
    task = env.task
    env.reset(seed=0)
    task.simulator.reset(np.arange(4), qpos, qvel)
    feet = ppo.FootPhases(4)
    feet.contact[:, 0], feet.seconds[:] = True, [0.3, 0.1]
    last = task.robots.action + np.float32(change)
    return ppo.reward_terms(
        task, np.full(4, 0.7), np.array(fell), last, feet, np.array(wanted), ppo.Weights()
    )


def test_terms_of_a_robot_at_rest(joystick):
    qpos, qvel = standing(4)
    qpos[1, 2] = 0.86
    found = terms_of(joystick, qpos, qvel, (False, False, True, False), (True, True, True, False))
    expected = {
        "task": [0.7 * 2 * 0.02] * 4,
        "alive": np.array([1, 1, 0, 1]) * 0.15 * 0.02,
        "fall": [0, 0, -4, 0],
        "base_height": [0, -10 * 0.1**2 * 0.02, 0, 0],
        "air_time": np.array([1, 1, 1, 0]) * 0.75 * 0.1 * 0.02,
    }
    assert found.keys() == {
        field.name for field in dataclasses.fields(ppo.Weights)
    } - {"target_height", "air_time_s"}  # fmt: skip
    for name, values in found.items():
        # float32 of figures of about one.
        np.testing.assert_allclose(values, expected.get(name, [0] * 4), atol=1e-7, err_msg=name)


def test_terms_of_a_robot_that_moves_leans_and_bends(joystick):
    qpos, qvel = standing(4)
    qvel[0, :3] = [0.3, 0.4, 0.5]
    qpos[1, 3:7] = [np.cos(0.15), 0, np.sin(0.15), 0]  # 0.3 rad forward
    qvel[1, 3:6] = [1.0, 2.0, 3.0]
    names = g1.JOINT_NAMES
    for name, angle in (("waist_yaw_joint", 0.2), ("right_elbow_joint", -0.3),
                        ("left_hip_pitch_joint", 0.4)):  # fmt: skip
        qpos[2, 7 + names.index(name)] += angle
    qpos[3, 7 + names.index("left_knee_joint")] = 2.8
    found = terms_of(joystick, qpos, qvel, change=0.5)
    # The knee's range is -0.087267 to 2.8798 rad; its middle nine tenths end here.
    soft = 2.8798 - 0.05 * (2.8798 + 0.087267)
    expected = {
        "lin_vel_z": [-0.2 * 0.25, 0, 0, 0],
        "upright": [0, -(np.sin(0.3) ** 2), 0, 0],
        "ang_vel_xy": [0, -0.05 * (1 + 4), 0, 0],
        "posture": [0, 0, -0.1 * (0.2 + 0.3), 0],  # a hip's pitch is for walking
        "joint_limit": [0, 0, 0, -(2.8 - soft)],
        "action_rate": [-0.005 * 29 * 0.25] * 4,
        "slide": [-0.1 * 0.5, None, 0, 0],  # a foot of a robot that turns moves as well
    }
    for name, values in expected.items():
        for robot, value in enumerate(values):
            if value is not None:
                # float32 of figures of about one.
                assert found[name][robot] == pytest.approx(0.02 * value, abs=2e-7), (name, robot)
    assert found["slide"][1] < -1e-4


def test_numbers_of_a_robot_that_blows_up_are_finite(joystick):
    qpos, qvel = standing(4)
    qvel[:, :3] = np.array([0.0, 1e3, 1e6, 1e9])[:, None]
    found = terms_of(joystick, qpos, qvel, change=1e30)  # its square is beyond float32
    # Beyond 100 the size of an action makes no difference to the reward.
    bounded = terms_of(joystick, qpos, qvel, change=1e6)["action_rate"]
    np.testing.assert_array_equal(found["action_rate"], bounded)
    assert (bounded < 0).all()
    total = sum(found.values())
    assert np.isfinite(total).all() and total[0] > bounded[0] and total[3] < ppo.LEAST_REWARD


def test_steps_are_wanted_by_commands_and_by_goals_that_are_far():
    env = GuidedVectorEnv(4, "joystick", autoreset_mode="disabled", threads=1)
    env.reset(seed=0)
    commands = np.array([[0.09, 0, 0], [0, 0, 0.5], [-0.3, 0, 0], [0, 0, 0]])
    env.task.commands[:] = commands[:, None]
    np.testing.assert_array_equal(ppo.must_step(env.task), [False, True, True, False])
    env = GuidedVectorEnv(2, "waypoint", autoreset_mode="disabled", threads=1)
    qpos, qvel = standing(2)
    env.reset(options={"qpos": qpos, "qvel": qvel, "goal": np.array([[0.2, 0.2], [0.3, 0.1]])})
    np.testing.assert_array_equal(ppo.must_step(env.task), [False, True])  # within 0.3 m or not
    env = GuidedVectorEnv(2, "walk_perturb", autoreset_mode="disabled", threads=1)
    assert ppo.must_step(env.task).all()


# --- the command ----------------------------------------------------------------------------------


def trained(run_dir, **changes):
    ppo.main(config_of(run_dir=run_dir, **{**SMALL, **changes}))
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, trained(folder)


def equal(first, second, path=""):
    """Exactly equal, member by member."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            equal(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, torch.Tensor):
        # `assert_close` and not `torch.equal`: a value that is not finite is equal to itself.
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True, msg=path)
    else:
        assert first == second, path


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    timed = ("train_s", "perf/collect_s", "perf/learn_s", "charts/SPS")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


@pytest.mark.slow
def test_resume_equals_the_uninterrupted_run_bit_for_bit(tmp_path, monkeypatch, whole):
    folder, expected = whole
    evaluate, calls = ppo.evaluate_guided, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 4:  # after the fourth iteration, of which nothing is saved yet
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(ppo, "evaluate_guided", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", checkpoint_s=0.0)
    half = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert half["iteration"] == 3 and not half["episode_return"].eq(0).all()
    found = trained(tmp_path / "cut", resume=True)
    for key in expected.keys() - {"train_s"}:
        equal(found[key], expected[key], key)
    rows = rows_of(folder)
    assert rows == rows_of(tmp_path / "cut") and len(rows) == 6
    # Premises: it learned in both halves, and episodes ended.
    for network, name in (
        ("actor", "layers.0.weight"), ("actor", "log_std"), ("actor", "obs_mean"),
        ("critic", "layers.0.weight"),
    ):  # fmt: skip
        assert not torch.equal(half[network][name], found[network][name])
    assert sum("charts/episodic_length" in row for row in rows) > 1
    assert load_guided_policy(folder).sha256 == load_guided_policy(tmp_path / "cut").sha256


@pytest.mark.slow
def test_a_finished_run_goes_on_as_the_longer_run(tmp_path, whole):
    _, expected = whole
    trained(tmp_path / "parts", total_timesteps=4 * 128)
    found = trained(tmp_path / "parts", resume=True)  # to the 768 steps of the whole
    for key in ("iteration", "actor", "critic", "optimizer", "env", "generator", "obs"):
        equal(found[key], expected[key], key)
    # With fewer steps than were done it only evaluates and exports.
    assert trained(tmp_path / "parts", resume=True, total_timesteps=128)["iteration"] == 6


def test_the_first_iteration_only_fills_the_normalizer(tmp_path):
    saved = trained(tmp_path / "run", total_timesteps=128)
    torch.manual_seed(1)
    for key, network in zip(
        ("actor", "critic"), ppo.make_networks(config_of(**SMALL)), strict=True
    ):
        fresh = network.state_dict()
        for name, value in saved[key].items():
            assert torch.equal(value, fresh[name]) != name.startswith("obs_"), name
        assert saved[key]["obs_count"] == 2 * (8 + 128)  # observations and their reflections


def test_robots_start_at_every_time_of_an_episode(tmp_path):
    saved = trained(tmp_path / "run", total_timesteps=128, num_steps=1, num_envs=128)
    clock = saved["env"]["task"]["clock"]
    # Uniform over 600 steps: all of 128 below 300 has a chance of 2^-128.
    assert clock.min() < 300 < clock.max() and clock.unique().numel() > 64


@pytest.mark.parametrize(("alive", "paid"), [(50.0, 1.0), (-1e4, ppo.LEAST_REWARD)])
def test_truncated_steps_are_paid_the_value_of_what_would_have_come(
    tmp_path, monkeypatch, alive, paid
):
    """Episodes of four steps, in which nobody falls; every step pays the same, bounded."""
    weights = {field.name: 0.0 for field in dataclasses.fields(ppo.Weights)} | {"alive": alive}
    short = dataclasses.replace(
        config_of().environment, segment_s=0.08, judged_s=0.04, episode_s=0.08
    )
    monkeypatch.setattr(ppo.Config, "environment", short)
    monkeypatch.setattr(ppo.Network, "value", lambda self, obs: torch.full(obs.shape[:-1], 3.0))
    seen, gae = [], ppo.gae
    monkeypatch.setattr(ppo, "gae", lambda *given: (seen.append(given[:4]), gae(*given))[1])
    saved = trained(tmp_path / "run", total_timesteps=256, weights=ppo.Weights(**weights))
    ((reward, _, _, done),) = seen
    assert done.sum() == 16 * 8 / 4
    # float32 of figures of up to ten.
    expected = paid + 0.99 * 3.0 * done
    torch.testing.assert_close(reward, expected, rtol=1e-6, atol=1e-6)
    # Feet begin anew with every episode: no phase is older than it.
    seconds, age = saved["feet_seconds"], saved["episode_length"][:, None]
    assert seconds.max() > 0.01 and (seconds <= 0.02 * age + 1e-6).all()


def test_run_directory_holds_what_it_says(whole):
    folder, _ = whole
    for name in ("config.json", "checkpoint.pt", "policy.onnx", "policy.json", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0
    assert list(folder.glob("events.out.tfevents.*"))
    config = json.loads((folder / "config.json").read_text())
    assert config["exp_name"] == "ppo_guided" and config["num_envs"] == 8
    assert config["environment"]["random"] and config["environment"]["decimation"] == 2
    assert config["gamma"] == ppo.GAMMA and config["forward"] == list(ppo.FORWARD)
    told = json.loads((folder / "policy.json").read_text())
    assert told["task"] == "joystick" and told["observation_size"] == 312
    assert told["observation"][-1]["name"] == "command" and told["observation"][-1]["stop"] == 312
    assert told["training"]["env_steps"] == 6 * 128 and 0 <= told["evaluation"]["success"] <= 1
    assert told["network"]["sha256"] == load_guided_policy(folder).sha256
    last = rows_of(folder)[-1]
    terms = [value for key, value in last.items() if key.startswith("reward/")]
    assert len(terms) == 12 and last["step"] == 768 and "eval/segments" in last
    check_metrics("ppo_guided", folder)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_and_its_policy_runs_in_its_environment(tmp_path, name):
    trained(
        tmp_path / "run", task=name, num_steps=4, total_timesteps=64, eval_trials=1, eval_every=0
    )
    policy = load_guided_policy(tmp_path / "run")
    assert policy.task == name and policy.name == "run"
    env = GuidedVectorEnv(
        2, policy.task, config=config_class(name)(actuation=ActuationConfig(**policy.drives)),
        threads=1,
    )  # fmt: skip
    obs, _ = env.reset(seed=0)
    for _ in range(3):
        obs = env.step(policy(obs))[0]
    assert np.isfinite(obs).all()


def test_training_has_random_commands_and_evaluation_the_protocols():
    task = config_of().environment
    assert task.random and task.random_forward == (-0.3, 0.6) and task.random_left == (0, 0)
    assert task.random_yaw_rate == (-0.5, 0.5)
    assert (task.rewards.alive, task.rewards.task) == (0, 1)
    assert task.model.physics_dt == 0.01 and not JoystickConfig().random
    waypoint = config_of(task="waypoint").environment
    assert waypoint == WaypointConfig(
        rewards=waypoint.rewards, model=waypoint.model, decimation=waypoint.decimation
    )


def refused(monkeypatch, capsys, *arguments):
    """The one line with which the command ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["ppo_guided.py", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.run(ppo.main, ppo.Config)
    text = capsys.readouterr().err.strip()
    assert end.value.code == 2 and len(text.splitlines()) == 1, text
    return text


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--total-timesteps 5", "total_timesteps 5 is less than one iteration of num_envs * "
         "num_steps = 6144."),
        ("--num-minibatches 7", "num_envs * num_steps = 6144 is not divisible by num_minibatches "
         "7."),
        ("--hidden 33", "hidden is (33,), expected even numbers: with symmetry units are pairs."),
        ("--hidden 0", "hidden is (0,), expected one or more positive numbers."),
        ("--num-envs 0", "num_envs is 0, expected 1 or more."),
        ("--seed -1", "seed is -1, expected 0 or more."),
        ("--init-std nan", "init_std is nan, expected a positive number."),
        ("--weights.fall inf", "weights.fall is inf, expected a finite number."),
    ],
)  # fmt: skip
def test_refused_settings(monkeypatch, capsys, tmp_path, flags, text):
    run_dir = tmp_path / "run"
    said = refused(monkeypatch, capsys, *flags.split(), "--run-dir", str(run_dir))
    assert said == f"error: {text}" and not run_dir.exists()


class Marker:
    """A pickle that creates a file when it is loaded the unsafe way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_refused_run_directories(monkeypatch, capsys, tmp_path, whole):
    folder, _ = whole
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    good = (folder / "checkpoint.pt").read_bytes()
    flags = []
    for name, value in SMALL.items():
        values = map(str, value if isinstance(value, tuple) else (value,))
        flags += [f"--{name.replace('_', '-')}", *values]
    flags += ["--run-dir", str(run_dir)]
    checkpoint = run_dir / "checkpoint.pt"
    checkpoint.write_bytes(good)
    said = refused(monkeypatch, capsys, *flags)
    assert said == (
        f"error: {run_dir} holds a run already: add --resume, or choose another --run-dir."
    )
    for change, told in (
        (("--update-epochs", "2"), "update_epochs is 2, there "),
        (("--task", "waypoint"), 'task is "waypoint", there "joystick"'),
        (("--weights.fall", "-1"), "weights.fall is -1.0, there "),
    ):
        said = refused(monkeypatch, capsys, *flags, "--resume", *change)
        assert said.startswith(f"error: {checkpoint} is of a run with other settings: {told}")
    with monkeypatch.context() as other:
        other.setattr(ppo, "CONSTANTS", ppo.CONSTANTS | {"gamma": 0.9})
        said = refused(monkeypatch, capsys, *flags, "--resume")
        assert said.startswith(
            f"error: {checkpoint} is of a run with other settings: gamma is 0.9, there "
        )
    marker = tmp_path / "code_ran"
    for content in (b"", b"no checkpoint", good[:5000], pickle.dumps(Marker(marker), 2)):
        checkpoint.write_bytes(content)
        said = refused(monkeypatch, capsys, *flags, "--resume")
        assert said.startswith(f"error: {checkpoint}: not a readable checkpoint of this script")
        assert checkpoint.read_bytes() == content and not marker.exists()
    assert [path.name for path in run_dir.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
def test_the_command_itself_ends_with_status_2():
    done = warm_python.run(
        [sys.executable, str(ROOT / "algos" / "ppo_guided.py"), "--task", "joystik"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "joystik" in done.stderr and "Traceback" not in done.stderr


# --- the policy's file ----------------------------------------------------------------------------


def test_export_equals_the_network(whole):
    folder, saved = whole
    actor, _ = ppo.make_networks(config_of(**SMALL))
    actor.load_state_dict(saved["actor"])
    policy = load_guided_policy(folder)
    noise = np.random.default_rng(0).normal(size=(1000, 312))
    obs = (actor.obs_mean.numpy() + actor.obs_var.sqrt().numpy() * noise).astype(np.float32)
    with torch.no_grad():
        expected = actor.mean(torch.from_numpy(obs)).numpy()
    assert np.abs(expected).max() > 0.02
    # Actions below one, float32 sums of some hundred terms in another order.
    np.testing.assert_allclose(policy(obs), expected, atol=1e-5)
    np.testing.assert_allclose(policy(obs[:1]), expected[:1], atol=1e-5)
    for name, values in DRIVES.items():
        np.testing.assert_array_equal(policy.drives[name], values)


@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
def test_file_runs_as_the_arrays_that_it_was_written_from(tmp_path, activation):
    network = make_mlp(321, activation=activation)
    write_guided_policy(
        tmp_path, network, task="obstacle", drives=DRIVES, training={}, evaluation={}
    )
    obs = np.random.default_rng(0).normal(size=(100, 321)).astype(np.float32)
    expected = network(obs)
    assert np.abs(expected).max() > 1
    # Actions of about one, float32 sums of 321 terms in another order.
    np.testing.assert_allclose(load_guided_policy(tmp_path)(obs), expected, atol=2e-5)


def test_writing_refuses_what_does_not_fit(tmp_path):
    for network, task, text in (
        (make_mlp(312), "waypont", "Unknown task 'waypont'; did you mean 'waypoint'?"),
        (make_mlp(309), "joystick", "takes 309 values and other ones, expected the 312"),
        (make_mlp(312, residual=True), "joystick", "and a reference pose as well, expected"),
    ):
        with pytest.raises(PolicyError, match=text.replace("?", r"\?")):
            write_guided_policy(
                tmp_path, network, task=task, drives=DRIVES, training={}, evaluation={}
            )
    assert not list(tmp_path.iterdir())


def test_reading_refuses_what_is_not_a_policy_of_a_guided_task(tmp_path):
    write_guided_policy(
        tmp_path, make_mlp(312), task="joystick", drives=DRIVES, training={}, evaluation={}
    )
    good = onnx.load(str(tmp_path / "policy.onnx"))
    path = tmp_path / "changed.onnx"

    def refusal(model=None, content=None):
        path.write_bytes(model.SerializeToString() if content is None else content)
        with pytest.raises(PolicyError) as caught:
            load_guided_policy(path)
        message = str(caught.value)
        assert message.startswith(str(path)) and "\n" not in message
        return message

    def told(**changes):
        """The good file with other metadata; None takes an entry away."""
        model = copy.deepcopy(good)
        entries = {entry.key: entry.value for entry in good.metadata_props} | changes
        del model.metadata_props[:]
        kept = {key: value for key, value in entries.items() if value is not None}
        onnx.helper.set_model_props(model, kept)
        return model

    path.write_bytes(told().SerializeToString())
    load_guided_policy(path)  # the premise: unchanged, it loads
    assert "metadata lack format" in refusal(told(format="bm-envs policy 1"))
    assert "did you mean 'joystick'" in refusal(told(task="joystik"))
    assert "its observation is not that of task 'waypoint' here." in refusal(told(task="waypoint"))
    names = ",".join(g1.ISAAC_JOINT_NAMES)
    assert "its joint_names is not that" in refusal(told(joint_names=names))
    assert "its control_dt is not that" in refusal(told(control_dt=None))
    for bad in (None, "", "[1, 2]", json.dumps([float("nan")] * 29), "{}"):
        assert "'stiffness' are not 29 finite numbers" in refusal(told(stiffness=bad))

    model = copy.deepcopy(good)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert "the graph has obs [1, 312], expected obs [0, 312]" in refusal(model)
    model = copy.deepcopy(good)
    bias = next(t for t in model.graph.initializer if t.name == "bias_0")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(24, np.nan, np.float32), "bias_0"))
    assert "not finite" in refusal(model)
    assert "not a readable ONNX model" in refusal(content=b"no model")
    walk = (ROOT / "bm_envs" / "assets" / "policies" / "walk.onnx").read_bytes()
    assert "expected a policy of a guided task" in refusal(content=walk)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyError, match=r"holds no policy.onnx, expected a run"):
        load_guided_policy(tmp_path / "empty")
    with pytest.raises(PolicyError, match=r"got observations of shape \(1, 309\)"):
        load_guided_policy(tmp_path)(np.zeros((1, 309)))
