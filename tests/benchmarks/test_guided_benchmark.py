"""benchmarks/guided.py: its loop and rows with stand-in models whose success is known."""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python
from policy_files import make_mlp
from stand_in_model import Model, still

from bm_envs import cli
from bm_envs.diffusion.steering import STEERING
from bm_envs.diffusion.task_policy import load_guided_policy, write_guided_policy
from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.evaluation import in_project_order, protocol_task
from bm_envs.policy import DIFFUSION, GUIDED, SHIPPED, TRACKER, kind_of, load_policy
from bm_envs.results import check_result, successes_by_rule
from bm_envs.robots import g1
from bm_envs.rotations import quat_yaw
from bm_envs.tasks.guided.config import JoystickConfig, WalkPerturbConfig
from bm_envs.tasks.track.config import ActuationConfig

ROOT = Path(__file__).resolve().parents[2]
for folder in ("algos", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
guided = importlib.import_module("guided")
collect = importlib.import_module("collect_rollouts")

KEYS = {
    "policy", "task", "representation", "backend", "trials", "successes", "success_rate", "ci95",
    "successes_head", "success_rate_head", "ci95_head", "mean_speed", "mean_forward",
    "mean_forward_predicted", "falls_s", "each", "steering", "outside_box", "by_phase",
}  # fmt: skip


@pytest.fixture(scope="module")
def drives():
    return collect.drives_of(load_policy("walk"))


@pytest.fixture(autouse=True)
def quick_starts(monkeypatch):
    """Starts from a clip that need not be made first."""
    monkeypatch.setattr(guided, "START_MOTIONS", ("walk",))


def briefly(monkeypatch, **changes):
    """The benchmark's task with other figures, for a short test."""
    whole = guided.config_class
    monkeypatch.setattr(
        guided, "config_class", lambda task: lambda **own: whole(task)(**own, **changes)
    )


@pytest.mark.parametrize("task", list(guided.FIGURES))
def test_robots_that_fold_up_fail_every_task(monkeypatch, drives, task):
    # Down in a second, but a trial has its time: whole, that of composition is a minute.
    brief = {"composition": {"command_s": (2.0,) * 4, "episode_s": 12.0}}
    briefly(monkeypatch, **brief.get(task, {"episode_s": 6.0}))
    config = guided.Config(
        policy="x", task=task, trials=2, sampler="2", seed=3, threads=1,
        steering=guided.Steering(speed=np.inf, correct_s=np.inf),
    )  # fmt: skip
    model = Model(drives, still(0.0))
    found = guided.run(model, config, 2)
    row = guided.row_of(model, config, found)
    assert KEYS <= row.keys() and json.dumps(row, allow_nan=False)
    assert row["steering"]["speed"] == "inf"
    assert row["successes"] == row["upright_strict"] == 0 and row["success_rate"] == 0
    assert len(row["falls_s"]) == 2 and len(row["each"]) == 2
    assert row["ci95"][0] == 0 and 0.5 < row["ci95"][1] < 0.7  # Wilson: 0 of 2 is 0 to 65.8 %
    assert not any(trial["success"] for trial in row["each"])


def test_equal_seeds_are_equal_trials_whatever_the_setting(monkeypatch, drives):
    """Goals and starts do not depend on the model's size, strength or sampler."""
    briefly(monkeypatch, episode_s=1.0)
    model = Model(drives, still(0.0))
    seen = []
    for strength, sampler in ((0.0, "2"), (0.5, "3")):
        config = guided.Config(
            policy="x", task="obstacle", sampler=sampler, seed=5, strength=strength, threads=1
        )
        figures = guided.run(model, config, 3).figures
        seen.append((figures["goal"] - 0, figures["num_obstacles"]))
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    # Goals are drawn about where the warm-up has brought the robot, which is sampled: centimetres.
    np.testing.assert_allclose(seen[0][0], seen[1][0], atol=0.3)
    assert np.ptp(seen[0][0], axis=0).min() > 0.5


@pytest.mark.parametrize("task", ["walk_perturb", "obstacle"])
def test_a_trial_is_the_same_in_a_smaller_batch(drives, monkeypatch, task):
    """A stand-in whose action is the sampler's noise: robots, draws and noise alike, to the bit."""
    monkeypatch.setattr(guided, "WARM_UP_S", 0.1)
    briefly(monkeypatch, episode_s=3.0)

    def answer(states, actions, state_levels, action_levels):
        return states.copy(), 0.1 * actions

    seen = []
    for trials in (1, 4):
        config = guided.Config(policy="x", task=task, sampler="2", seed=5, threads=1)
        found = guided.run(Model(drives, answer), config, trials)
        seen.append({**found.figures, "down_s": found.down_s, "speed": found.speed})
    for name, rows in seen[0].items():
        np.testing.assert_array_equal(rows, seen[1][name][:1], name)
    drawn = seen[1]["push_velocity" if task == "walk_perturb" else "goal"]
    assert np.isfinite(drawn).all() and len(np.unique(drawn)) == 8


def test_trials_have_seeds_of_their_own():
    seeds = guided.seeds_of(0, 50, "trial")
    assert seeds[:12] == guided.seeds_of(0, 12, "trial")
    others = [*guided.seeds_of(1, 50, "trial"), *guided.seeds_of(0, 50, "noise")]
    assert len({*seeds, *others}) == 150


@pytest.fixture
def policy_run(tmp_path, drives):
    folder = tmp_path / "ppo"
    folder.mkdir()
    write_guided_policy(
        folder, make_mlp(312), task="joystick", drives=drives, training={}, evaluation={}
    )
    return folder


def test_a_policy_of_the_task_acts_on_its_observation(monkeypatch, policy_run, drives):
    """Against a loop by hand: equal robots to the bit."""
    briefly(monkeypatch, episode_s=0.4, segment_s=0.2, judged_s=0.1)
    config = guided.Config(policy=str(policy_run), task="joystick", seed=4, threads=1)
    model = guided.load(config)
    found = guided.run(model, config, 2)
    env = GuidedVectorEnv(
        2, "joystick", autoreset_mode="disabled", threads=1,
        config=JoystickConfig(
            fall="head", warm_up_s=1.0, start_motions=("walk",), episode_s=0.4, segment_s=0.2,
            judged_s=0.1, actuation=ActuationConfig(**drives),
        ),
    )  # fmt: skip
    obs, _ = env.reset(seed=guided.seeds_of(4, 2, "trial"))
    policy = load_guided_policy(policy_run)
    for _ in range(70):
        obs, *_, info = env.step(policy(obs))
    for name in ("pelvis_height", "velocity", "segment_value", "fell_strict"):
        np.testing.assert_array_equal(found.figures[name], info[name], name)
    row = guided.row_of(model, config, found)
    assert KEYS <= row.keys() and json.dumps(row, allow_nan=False)
    assert (row["policy"], row["representation"]) == ("ppo", "observation")
    assert row["steering"] is row["sampler"] is row["mean_forward_predicted"] is None
    assert np.shape(row["each"][0]["segment_passed"]) == (2,)


def test_policies_are_recognised_by_their_file(policy_run):
    assert kind_of(policy_run) is kind_of(policy_run / "policy.onnx") is GUIDED
    assert kind_of(load_policy("walk").path) is kind_of("walk") is TRACKER
    shipped = SHIPPED / "guided_body_pos"
    for reference in ("guided_body_pos", shipped, shipped / "denoiser.onnx"):
        assert kind_of(reference) is DIFFUSION
    config = guided.Config(policy=str(policy_run), task="waypoint", threads=1)
    with pytest.raises(BMError, match="is a policy of task 'joystick', expected one of 'waypoint'"):
        guided.load(config)
    with pytest.raises(BMError, match="^Unknown policy 'nobody'"):
        guided.load(guided.Config(policy="nobody", expert=True, task="joystick"))
    with pytest.raises(
        ConfigError, match="^walks is a tracker, expected a diffusion model, or --e"
    ):
        guided.load(guided.Config(policy="walks", task="joystick"))


def test_an_experts_clip_is_of_the_tasks_commands():
    """Measured in the clip by the task's rules: it passes all, and walks in the warm-up."""
    config = JoystickConfig(warm_up_s=1.0)
    clip = guided.Tracking.clip(config, 230, 0.45)
    assert clip.num_frames > 230 + 50 * 13 + 1
    yaw = np.unwrap(quat_yaw(clip.body_quat_w[:, 0].astype(float)))
    vx, vy = clip.body_lin_vel_w[:, 0, :2].T
    forward = np.cos(yaw) * vx + np.sin(yaw) * vy
    assert forward[230:280].mean() == pytest.approx(0.45, abs=0.03)
    begin = 280 + 150 * np.arange(4)
    mean = [forward[k + 75 : k + 150].mean() for k in begin]
    turn = [np.degrees(yaw[k + 150] - yaw[k]) for k in begin]
    # Commands are 0.6, -0.3, 0.4, 0.4 m/s and 0, 0, 86, -86 degrees, less what a change takes.
    assert mean == pytest.approx([0.6, -0.3, 0.4, 0.4], abs=0.04)
    assert turn[:2] == pytest.approx([0.0, 0.0], abs=1.0)
    assert 60 < turn[2] < 86 and -86 < turn[3] < -40
    walk = guided.Tracking.clip(WalkPerturbConfig(warm_up_s=1.0), 200, 0.5)
    assert walk.num_frames > 200 + 50 * 16 + 1
    assert np.ptp(walk.body_pos_w[200:1000, 0, 0]) == pytest.approx(8.0, abs=0.1)


def test_an_expert_tracks_as_in_its_own_environment(monkeypatch):
    """The same clip from the same frame, to the bit: the task only judges."""
    briefly(monkeypatch, episode_s=2.0, segment_s=1.0, judged_s=0.5)
    config = guided.Config(policy="walks", expert=True, task="joystick", threads=1)
    policy = guided.load(config)
    made = []
    clip = guided.Tracking.clip

    def spy(*arguments):
        made.append((clip(*arguments), *arguments[1:]))
        return made[-1][0]

    monkeypatch.setattr(guided.Tracking, "clip", staticmethod(spy))
    found = guided.run(policy, config, 2)
    (first, start, speed), (_, *other) = made
    assert 200 <= start < 260 and 0.4 <= speed <= 0.6 and [start, speed] != other
    env = TrackVectorEnv(
        1, first, config=protocol_task(policy, "clip", failure_rules=False), critic="none",
        autoreset_mode="disabled", threads=1,
    )  # fmt: skip
    act = in_project_order(policy)
    obs, _ = env.reset(seed=0, options={"frame": start})
    for _ in range(150):
        obs, *_ = env.step(act(obs))
    assert found.figures["pelvis_height"][0] == env.simulator.root_pos[0, 2]
    speed = np.hypot(*env.simulator.root_lin_vel[0, :2])
    assert found.figures["speed"][0] == pytest.approx(speed, rel=1e-6)
    row = guided.row_of(policy, config, found)
    assert (row["policy"], row["representation"]) == ("walks", "reference")
    assert row["steering"] is None and row["upright_strict"] == 2 and row["mean_forward"] > 0.1


def test_an_expert_is_pushed_as_the_others_are(monkeypatch, drives):
    briefly(monkeypatch, episode_s=0.2, push_interval_s=0.1)
    monkeypatch.setattr(guided, "WARM_UP_S", 0.2)
    config = guided.Config(policy="walks", expert=True, task="walk_perturb", threads=1, sampler="1")
    expert = guided.run(guided.load(config), config, 2).figures
    other = guided.run(Model(drives, still(0.0)), config, 2).figures
    assert (expert["pushes"] == 2).all() and (other["pushes"] == 2).all()
    assert expert["push_velocity"].any(1).all()
    np.testing.assert_array_equal(expert["push_velocity"], other["push_velocity"])


def test_velocities_are_told_by_what_was_asked(monkeypatch, policy_run):
    """Mean of the robot's own motion in each command, against a loop by hand."""
    briefly(monkeypatch, episode_s=0.4, segment_s=0.2, judged_s=0.1)
    monkeypatch.setattr(guided, "WARM_UP_S", 0.0)  # the untrained policy falls in half a second
    config = guided.Config(policy=str(policy_run), task="joystick", seed=4, threads=1)
    model = guided.load(config)
    motions = []
    own_motion = guided.GuidedTask.own_motion
    monkeypatch.setattr(
        guided.GuidedTask,
        "own_motion",
        lambda task: motions.append(own_motion(task)) or motions[-1],
    )
    found = guided.run(model, config, 2)
    assert np.isinf(found.down_s).all(), "premise: both stay up"
    commands = np.array(motions)[-20:].reshape(2, 10, 2, 3).mean(1)  # two, of ten steps
    executed = [velocity[0] for velocity in found.by_phase.values()]
    np.testing.assert_allclose(executed, commands, atol=1e-6)
    np.testing.assert_allclose(found.executed, commands.mean(0), atol=1e-6)
    rows = guided.row_of(model, config, found)["by_phase"]
    assert [row["phase"] for row in rows] == ["command 1", "command 2"]
    assert rows[1]["forward"] == pytest.approx(commands[1, :, 0].mean(), abs=1e-5)
    assert rows[1]["yaw_rate_predicted"] is None  # such a policy predicts nothing
    halves = np.array(motions)[-20:].reshape(2, 2, 5, 2, 3).mean(2)  # of five steps each
    for phase, wanted in zip(rows, halves, strict=True):
        for half, velocity in zip(phase["halves"], wanted, strict=True):
            assert half["forward"] == pytest.approx(velocity[:, 0].mean(), abs=1e-5)
            assert half["left"] == pytest.approx(velocity[:, 1].mean(), abs=1e-5)
            assert half["yaw_rate_predicted"] is None
    # What is judged is the second half: its mean is the task's own figure.
    judged = found.figures["segment_value"].mean(0)
    assert rows[0]["halves"][1]["forward"] == pytest.approx(judged[0], abs=1e-5)
    assert rows[1]["halves"][1]["forward"] == pytest.approx(-judged[1], abs=1e-5)  # backward


@pytest.mark.parametrize(
    ("task", "edges"),
    [
        ("walk_perturb", [375]),
        ("joystick", [75, 150, 225, 300, 375, 450, 525]),
        # 8, 6, 6, 6 and 34 s.
        ("composition", [200, 400, 550, 700, 850, 1000, 1150, 1300, 2150]),
    ],
)
def test_phases_are_halved_in_time(task, edges):
    config = guided.config_class(task)()
    np.testing.assert_array_equal(guided.halves_of(config), edges)
    names, starts = guided.phases_of(config)
    assert len(edges) == 2 * len(names) - 1 and set(starts) <= set(edges)


def trials_of(**figures):
    """What three robots did in walk_perturb, with these figures."""
    none, plain = np.full(3, np.inf), np.zeros(3)
    velocity = np.zeros((2, 3, 3))
    given = {"pushes": np.zeros(3, int), **figures}
    return guided.Trials(
        given, none, plain, velocity[0], velocity[1], {"walk": velocity},
        {"walk": np.stack([velocity, velocity])}, tick_ms=[1.0],
    )  # fmt: skip


def test_a_robot_that_falls_when_time_is_up_has_failed(drives):
    """The second lies at 70 degrees, its head still above 0.2 m; the third has fallen by both."""
    found = trials_of(
        success=np.array([True, True, False]), success_strict=np.array([True, False, False]),
        fell_strict=np.array([False, True, True]), fell_head=np.array([False, False, True]),
    )  # fmt: skip
    config = guided.Config(policy="x", task="walk_perturb")
    row = guided.row_of(Model(drives, still(0.0)), config, found)
    assert (row["successes"], row["successes_head"]) == (1, 2)
    assert row["success_rate"] == pytest.approx(1 / 3)
    assert row["success_rate_head"] == pytest.approx(2 / 3)
    assert row["ci95"][1] < 0.8 < row["ci95_head"][1]
    assert [trial["success"] for trial in row["each"]] == [True, False, False]
    assert [trial["success_head"] for trial in row["each"]] == [True, True, False]
    assert not [name for name in row if name.startswith("success") and "strict" in name]
    value = cli.json_result("guided", seed=0, rows=[row])
    value["command"], value["commit"] = "python benchmarks/guided.py", "0" * 40
    check_result(value, "out.json")
    assert successes_by_rule(row) == (1, 2)


def test_the_command_says_both_rules_both_halves_and_the_box(monkeypatch, capsys, drives):
    briefly(monkeypatch, episode_s=0.4, segment_s=0.2, judged_s=0.1)
    monkeypatch.setattr(guided, "WARM_UP_S", 0.0)
    monkeypatch.setattr(guided, "load", lambda config: model)
    model = Model(drives, still(0.0))
    model.sha256 = "0" * 64
    guided.main(guided.Config(policy="x", task="joystick", trials=1, sampler="3", threads=1))
    said = capsys.readouterr().out
    assert re.search(
        r"^joystick: 0 of 1 \(0\.0% to 79\.3%\), by the head 0; upright 1,", said, re.M
    )
    assert re.search(r"guided numbers outside the training data's range: \d+\.\d%", said)
    half = r"-?\d\.\d\d m/s forward, -?\d\.\d\d rad/s left"
    for number in (1, 2):
        assert re.search(rf"command {number}: first half {half}; second half {half}\n", said)


@pytest.mark.parametrize(
    ("task", "done", "during"),
    [
        ("walk_perturb", 0, "warm-up"),
        ("walk_perturb", 1, "walk"),
        ("joystick", 150, "command 1"),
        ("joystick", 151, "command 2"),
        ("waypoint", 1, "way"),
        ("composition", 26 * 50, "command 4"),
        ("composition", 26 * 50 + 1, "way"),
    ],
)
def test_a_fall_is_told_with_what_was_asked(task, done, during):
    env = guided.GuidedVectorEnv(1, task, autoreset_mode="disabled", threads=1)
    env.reset(seed=0)
    env.task.clock[:] = done
    figures = {"pelvis_height": np.array([0.39]), "tilt": np.array([np.radians(59.0)])}
    fall = guided.fall_of(env.task, 0, figures)
    assert (fall["by"], fall["during"]) == ("pelvis", during)
    assert ("after_push_s" in fall) == (task in ("walk_perturb", "composition") and done > 0)
    figures |= {"tilt": np.array([np.radians(61.0)]), "touched": np.array([True])}
    fall = guided.fall_of(env.task, 0, figures)
    assert fall["by"] == "pelvis and tilt" and fall["touched"] is True
    env.close()


def test_a_push_comes_before_the_step_that_it_is_counted_from():
    """Pushes come at the beginning of steps 0, 50, ...: step 50 ends 0.02 s after the second."""
    env = guided.GuidedVectorEnv(1, "walk_perturb", autoreset_mode="disabled", threads=1)
    env.reset(seed=0)
    figures = {"pelvis_height": np.array([0.7]), "tilt": np.array([np.pi])}
    for done, after in ((1, 0.02), (50, 1.0), (51, 0.02), (75, 0.5)):
        env.task.clock[:] = done
        assert guided.fall_of(env.task, 0, figures)["after_push_s"] == after
    env.close()


def test_velocities_are_of_the_robots_own_axes():
    """What the row calls forward is along the heading, wherever in the world that points."""
    env = guided.GuidedVectorEnv(1, "joystick", threads=1)
    qpos = np.array([0.0, 0.0, 0.8, np.cos(0.6), 0.0, 0.0, np.sin(0.6), *g1.DEFAULT_JOINT_POS])
    qvel = np.array([np.cos(1.2), np.sin(1.2), 0.1, 0.0, 0.0, -0.3, *np.zeros(29)])
    env.reset(seed=0, options={"qpos": qpos, "qvel": qvel})
    np.testing.assert_allclose(env.task.own_motion(), [[1.0, 0.0, -0.3]], atol=1e-6)  # float32


def test_settings():
    config = guided.Config(policy="x", task="joystick", strength=0.7)
    for name in STEERING:
        chosen = config.steering_for(Model({}, still(0.0), name))
        assert chosen == dataclasses.replace(STEERING[name], strength=0.7)
    with pytest.raises(ConfigError, match="trials is 0, expected 1 or more"):
        guided.Config(policy="x", task="joystick", trials=0)
    with pytest.raises(ConfigError, match="seed is -1, expected 0 or more"):
        guided.Config(policy="x", task="joystick", seed=-1)
    with pytest.raises(ConfigError, match="sampler is 'fast', expected full, rolling or 1 to 20"):
        guided.Config(policy="x", task="joystick", sampler="fast")
    done = warm_python.run(
        [sys.executable, str(ROOT / "benchmarks" / "guided.py"), "--policy", "no_such_model",
         "--task", "joystick"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "Unknown diffusion model 'no_such_model'" in done.stderr
    for changes, told in (
        (
            dict(push_speed=1.0),
            "--push-speed is for tasks with pushes, expected walk_perturb or com",
        ),
        (dict(task="walk_perturb", push_speed=-1.0), "push_speed is -1.0, expected 0 m/s or more"),
        (
            dict(task="run", commands="sideways"),
            "--commands is of the joystick alone, expected --t",
        ),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(told)}"):
            guided.Config(**{"policy": "x", "task": "joystick", **changes})
    for task in ("run", "waypoint", "obstacle", "composition"):
        with pytest.raises(
            ConfigError, match=f"^--expert has no clip to follow in task '{task}', expected walk_p"
        ):
            guided.Config(policy="walks", expert=True, task=task)


def test_other_commands_and_harder_pushes_reach_the_task(monkeypatch, drives):
    """What the trials' task asks for, what its pushes are drawn from, and what the row tells."""
    briefly(monkeypatch, episode_s=1.2)
    tasks = []
    whole = guided.GuidedVectorEnv

    def made(*arguments, **named):
        env = whole(*arguments, **named)
        tasks.append(env.task)
        return env

    monkeypatch.setattr(guided, "GuidedVectorEnv", made)
    model = Model(drives, still(0.0))

    def row(**changes):
        config = guided.Config(policy="x", trials=8, sampler="2", seed=5, threads=1, **changes)
        return guided.row_of(model, config, guided.run(model, config, 8))

    hard = row(task="walk_perturb", push_speed=9.0, delay=2)
    assert (hard["push_speed"], hard["delay"]) == (9.0, 2)
    assert tasks[-1].config.push_speed == (0.0, 9.0) and tasks[-1].config.action_delay == 2
    # Of 8 draws of U[0, 9] none above 0.5 m/s has a chance of 1e-10.
    assert np.linalg.norm(tasks[-1].push_velocity, axis=1).max() > 0.5
    assert "push_speed" not in row(task="walk_perturb")
    briefly(monkeypatch, segment_s=0.2, judged_s=0.1)
    aside = row(task="joystick", commands="sideways")
    assert aside["commands"] == "sideways" and "commands" not in row(task="joystick")
    asked = [(0.0, 0.3, 0.0), (0.0, -0.3, 0.0), (0.0, 0.0, 0.5), (0.0, 0.0, -0.5)]
    np.testing.assert_array_equal(tasks[-2].commands[0, :4], asked)


LOW = """
def low(plan):
    return (plan.pos[..., 2] - 0.5).square().sum(1)

def outcome(plan):
    return {"pelvis_m": plan.pos[..., 2].mean(1)}
"""


def test_a_cost_of_ones_own_has_its_row(monkeypatch, drives, tmp_path, capsys):
    """Robots that fold up, whose cost is watched and asked for: the value is the pelvis' height."""
    briefly(monkeypatch, episode_s=0.6)
    monkeypatch.setattr(guided, "WARM_UP_S", 0.0)
    (tmp_path / "low.py").write_text(LOW)
    monkeypatch.setattr(guided, "load", lambda config: Model(drives, still(0.0)))
    monkeypatch.setattr(guided.GuidedModel, "sha256", "0", raising=False)
    rows = {}
    for strength in (0.0, 0.5):
        config = guided.Config(
            policy="x", task="walk_perturb", trials=2, sampler="3", seed=3, threads=1,
            cost=f"{tmp_path}/low.py:low", cost_strength=strength,
        )  # fmt: skip
        guided.main(config)
        found = guided.run(Model(drives, still(0.0)), config, 2)
        rows[strength] = row = guided.row_of(Model(drives, still(0.0)), config, found)
        cost = row["cost"]
        assert (cost["function"], cost["strength"]) == ("low.py:low", strength)
        height = cost["outcome"]["pelvis_m"]
        assert 0.4 < height < 0.8 and cost["mean_executed"] >= 16 * (height - 0.5) ** 2 - 1e-6
        assert row["each"][0]["cost"] > 0 and json.dumps(row, allow_nan=False)
    assert (rows[0.0]["outside_box"], rows[0.5]["outside_box"]) == (None, 0.0)
    assert "cost 'low' at strength 0.5: mean " in capsys.readouterr().out
    without = guided.Config(policy="x", task="walk_perturb", trials=2, sampler="2", threads=1)
    model = Model(drives, still(0.0))
    assert "cost" not in guided.row_of(model, without, guided.run(model, without, 2))


def test_a_cost_that_cannot_be_had_is_one_sentence(policy_run, tmp_path):
    with pytest.raises(ConfigError, match="^cost_strength is -0.1, expected 0 to 1, the share of"):
        guided.Config(policy="x", task="joystick", cost="a.py:b", cost_strength=-0.1)
    with pytest.raises(ConfigError, match="^cost_strength is 0.1, and no --cost is given for it"):
        guided.Config(policy="x", task="joystick", cost_strength=0.1)
    config = guided.Config(policy=str(policy_run), task="joystick", cost="a.py:b", threads=1)
    with pytest.raises(ConfigError, match="^cost is 'a.py:b', but ppo is no diffusion model, whic"):
        guided.main(config)
    (tmp_path / "bad.py").write_text("def bad(plan):\n    return plan.pos.sun()\n")
    done = warm_python.run(
        [sys.executable, str(ROOT / "benchmarks" / "guided.py"), "--policy", "guided_body_pos",
         "--task", "joystick", "--cost", f"{tmp_path}/bad.py:bad"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: cost 'bad' (bad.py, line 2) raises AttributeError" in done.stderr
