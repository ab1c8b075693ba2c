"""benchmarks/robustness.py: each axis at its standard value, at others, and what is refused."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_files import make_mlp
from stand_in_model import Model, still

from bm_envs import evaluation
from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.motion.library import load_motion
from bm_envs.policy import PolicySpec, load_policy, write_onnx
from bm_envs.results import read_result
from bm_envs.results.robustness import half_of
from bm_envs.robots import g1
from bm_envs.tasks.guided.config import WalkPerturbConfig
from bm_envs.tasks.track.config import TrackConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
robustness = importlib.import_module("robustness")
guided = importlib.import_module("guided")
AXES = robustness.AXES


@pytest.fixture(scope="module")
def follower(tmp_path_factory):
    """Asks for the reference's joints, and so falls at some time."""
    path = tmp_path_factory.mktemp("follower") / "follower.onnx"
    spec = PolicySpec.for_g1()
    mlp = make_mlp(160, hidden=(4,), residual=True)
    mlp = dataclasses.replace(
        mlp, weights=tuple(0 * w for w in mlp.weights), biases=tuple(0 * b for b in mlp.biases),
        residual_offset=np.array(spec.default_joint_pos),
        residual_scale=np.array(spec.action_scale),
    )  # fmt: skip
    write_onnx(path, mlp, spec, load_motion("stand"))
    return path


@pytest.fixture(scope="module")
def standing():
    return load_motion("stand")


def config(policy="x", **more):
    return robustness.Config(policy=str(policy), **{"episodes": 8, "threads": 1, **more})


# --- trackers ---


@pytest.fixture(scope="module")
def plain(follower, standing):
    """The `robust` protocol itself, as `benchmarks/track.py` runs it."""
    policy = load_policy(follower)
    env = TrackVectorEnv(
        8, standing, config=evaluation.protocol_task(policy, "robust"),
        autoreset_mode="disabled", critic="none", threads=1,
    )  # fmt: skip
    done = evaluation.run_episodes(evaluation.in_project_order(policy), env, seed=5)
    env.close()
    assert 0 < done.reached.min() < done.reached.max()  # falls, at several times
    return done


@pytest.mark.parametrize("axis", [name for name in AXES if AXES[name].tracker is not None])
def test_a_tracker_at_the_standard_value_does_what_the_protocol_has_it_do(
    axis, plain, follower, standing
):
    standard = AXES[axis].tracker
    assert standard in AXES[axis].values
    task = evaluation.protocol_task(load_policy(follower), "robust")
    assert robustness.tracking_task(task, axis, standard) == task
    done = robustness.track(load_policy(follower), standing, axis, standard, config(seed=5))
    assert (done.survived == plain.completed).all()
    assert done.seconds == pytest.approx(0.02 * plain.reached)
    assert done.episode_s == pytest.approx((standing.num_frames - 1) * 0.02)


@pytest.mark.parametrize("axis", [name for name in AXES if name not in ("push", "noise")])
def test_a_tracker_at_the_hardest_value_does_something_else(axis, plain, follower, standing):
    end = 0 if AXES[axis].harder == "down" else -1
    value = AXES[axis].values[end]
    done = robustness.track(load_policy(follower), standing, axis, value, config(seed=5))
    assert (done.seconds != 0.02 * plain.reached).any()


def test_strong_pushes_throw_a_walk_that_no_push_throws():
    """The follower above is down before the first push, which comes after 1 s or more."""
    policy, clip = load_policy("walk"), load_motion("walk[4:9]")
    none, strong = (
        robustness.track(policy, clip, "push", strength, config()) for strength in (0.0, 2.0)
    )
    assert none.survived.all() and strong.survived.sum() <= 6
    assert strong.seconds.min() >= 1.0 - 0.02


def test_what_a_value_changes_in_the_task():
    task = TrackConfig.preset("robust")

    def at(axis, value):
        return robustness.tracking_task(task, axis, value)

    assert at("push", 0.0).push.lin_vel == at("push", 0.0).push.ang_vel == (0.0, 0.0, 0.0)
    assert at("push", 1.0).push.lin_vel == (1.0, 1.0, 0.4)
    assert at("push", 1.0).push.ang_vel == pytest.approx((1.04, 1.04, 1.56))
    assert at("friction", 0.4).randomize.foot_friction == (0.4, 0.4)
    assert at("payload", 3.0).model.payload_kg == 3.0
    assert at("latency", 15.0).model.latency_s == pytest.approx(0.015)
    assert at("noise", 0.0).noise_level.joint_vel == 0.0
    assert at("noise", 3.0).noise_level.motion_anchor_pos_b == pytest.approx(0.75)
    assert at("step", 10.0).decimation == 2 and at("step", 1.0).decimation == 20
    assert at("iterations", 3.0).model.iterations == 3
    assert at("sole", "capsules").model.feet == "capsules"
    assert at("cone", "elliptic").model.cone == "elliptic"
    for name, axis in AXES.items():
        for value in axis.values:  # all are taken, and nothing else changes
            changed = at(name, value)
            assert changed.rewards == task.rewards and changed.reset == task.reset


def test_friction_is_the_same_for_all_robots():
    task = robustness.tracking_task(TrackConfig.preset("robust"), "friction", 0.4)
    env = TrackVectorEnv(3, "stand", config=task, threads=1)
    env.reset(seed=1)
    assert env.simulator.read_model()["foot_friction"] == pytest.approx(0.4)
    env.close()


# --- walkers ---


def brief(monkeypatch, module):
    """Walks of 2 s without a warm-up, from a clip that need not be made first."""
    monkeypatch.setattr(module, "START_MOTIONS", ("walk",))
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    monkeypatch.setattr(
        module, "config_class", lambda task: lambda **own: WalkPerturbConfig(**own, episode_s=2.0)
    )


@pytest.fixture(scope="module")
def model():
    drives = {
        "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
        "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
    }  # fmt: skip
    return Model(drives, still(0.0))


def test_a_walker_in_its_own_world_falls_when_the_other_benchmark_says_so(monkeypatch, model):
    for module in (robustness, guided):
        brief(monkeypatch, module)
    asked = guided.Config(policy="x", task="walk_perturb", trials=4, sampler="2", seed=3, threads=1)
    down = guided.run(model, asked, 4).down_s
    assert np.isfinite(down).any()
    settings = config(episodes=4, sampler="2", seed=3)
    for axis in AXES:
        value = AXES[axis].walker
        done = robustness.walk(model, axis, value, settings)
        assert (done.survived == np.isinf(down)).all(), axis
        assert done.seconds == pytest.approx(np.minimum(down, 2.0)), axis


@pytest.mark.parametrize(("axis", "value"), [("friction", 0.2), ("noise", 3.0), ("push", 2.0)])
def test_a_walker_elsewhere_does_something_else(monkeypatch, drives_model, axis, value):
    brief(monkeypatch, robustness)
    settings = config(episodes=4, sampler="2", seed=3)
    standard = robustness.walk(drives_model, axis, AXES[axis].walker, settings)
    other = robustness.walk(drives_model, axis, value, settings)
    assert (standard.seconds != other.seconds).any()


@pytest.fixture
def drives_model(model):
    """Its action follows the joints that it is shown, so that their noise arrives."""

    def answer(states, actions, state_levels, action_levels):
        states, actions = still(0.0)(states, actions, state_levels, action_levels)
        actions[:] = 20 * states[:, 3:4, :29]
        return states, actions

    return Model(model.drives, answer, "joint_rot")


def test_sensors_are_as_noisy_as_those_of_tracking_times_the_factor():
    """Against the widths typed from the tracking task, over many robots."""
    env = GuidedVectorEnv(400, "walk_perturb", threads=1)
    env.reset(seed=0)
    true = env.task.robots.states()
    seen = robustness.noisy_states(env, np.random.default_rng(0), 2.0)
    env.close()
    # The largest of 1200 or more uniform draws is within 2 % of the half-width, but for 1 in 10^10.
    for name, width in (("joint_pos", 0.02), ("joint_vel", 1.0), ("root_lin_vel", 1.0)):
        off = np.abs(getattr(seen, name) - getattr(true, name))
        assert 0.98 * width < off.max() <= width * (1 + 1e-4), name
    spin = np.linalg.norm(seen.root_ang_vel - true.root_ang_vel, axis=1)
    assert 0.3 < spin.max() <= 0.4 * 3**0.5 + 1e-4
    assert (seen.root_pos == true.root_pos).all()


# --- rows, files, bad input ---


def test_a_file_of_a_tracker_keeps_to_its_kind(follower, tmp_path, capsys, monkeypatch):
    few = {
        "friction": dataclasses.replace(AXES["friction"], values=(0.2, 1.2)),
        "sole": AXES["sole"],
    }
    monkeypatch.setattr(robustness, "AXES", few)
    path = tmp_path / "out.json"
    robustness.main(config(follower, episodes=3, motion=("stand",), json=path))
    value = json.loads(path.read_text())
    friction, sole = value["rows"]
    assert friction["axis"] == "friction" and friction["values"] == [0.2, 1.2]
    assert len(friction["success"]) == 2 and friction["motion"] == "stand"
    assert (friction["half"], friction["half_ci95"]) == half_of(
        [0.2, 1.2], friction["successes"], 3, "down"
    )
    assert sole["half"] is sole["half_ci95"] is None
    assert "half survive" in capsys.readouterr().out
    if value["commit"] is not None:
        assert read_result(path).kind == "robustness"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": 0}, "episodes is 0, expected 1 or more."),
        ({"seed": -1}, "seed is -1, expected 0 or more."),
        ({"sampler": "0"}, "sampler is '0', expected full, rolling or 1 to 20 DDIM calls."),
    ],
)
def test_bad_figures_are_one_sentence(changes, words):
    with pytest.raises(ConfigError) as caught:
        config(**changes)
    assert str(caught.value) == words


def test_what_a_world_does_not_have_is_left_out_or_refused(model, follower):
    tracker = load_policy(follower)
    assert robustness.axes_of(tracker, config()) == list(AXES)
    assert robustness.axes_of(model, config()) == list(AXES)
    joystick = robustness.axes_of(model, config(world="joystick"))
    assert joystick == [name for name in AXES if name != "push"]
    with pytest.raises(ConfigError, match=r"axes has 'push', but nobody is pushed in task 'joyst"):
        robustness.axes_of(model, config(world="joystick", axes=("friction", "push")))
    assert robustness.axes_of(tracker, config(axes=("noise", "push"))) == ["push", "noise"]


def test_flags_of_another_kind_of_policy_are_refused(follower, tmp_path):
    with pytest.raises(ConfigError, match=r"is no diffusion model, expected no --world with it\.$"):
        robustness.main(config(follower, world="joystick"))
    with pytest.raises(ConfigError, match=r"guided_body_pos is no tracker, expected no --motion"):
        robustness.main(config("guided_body_pos", motion=("walk",)))
    with pytest.raises(ConfigError, match=r"is a folder, expected the name of a file for --json\."):
        robustness.main(config(follower, json=tmp_path))
    with pytest.raises(BMError):
        robustness.main(config(tmp_path / "none.onnx"))
