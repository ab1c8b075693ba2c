"""`benchmarks/track.py` and `tools/export_onnx.py`: figures, files, and two public policies."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python
from oracle_dance import dance_config
from policy_files import isaac_spec, make_mlp, save_checkpoint

from bm_envs import evaluation, quality
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError, PolicyError
from bm_envs.motion.clip import clip_from_states, save_npz
from bm_envs.motion.library import load_motion
from bm_envs.policy import (
    PolicySpec,
    load_policy,
    write_onnx,
    write_policy_json,
)
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS, POLICY_TERMS
from bm_envs.tasks.track.config import RewardConfig, TrackConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import export_onnx  # noqa: E402
import track  # noqa: E402

ORACLES = Path(os.environ.get("BM_DATA_DIR", "/nonexistent")) / "oracle_policies"
needs_oracles = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="BM_DATA_DIR with oracle_policies/ is not set"
)
# The keys of a row, typed from the design's list of result files.
ROW_KEYS = (
    "policy, motion, suite, backend, protocol, episodes, success, success_ci95, survival_s, "
    "clip_s, mpkpe_mm, r_mpkpe_mm, joint_pos_rad, joint_vel_rad_s, ee_pos_mm, ee_ori_rad, "
    "normalized_return, train_env_steps, train_wall_s, observation_size, base_state, control_hz, "
    "slip_p95_m_s, impact_p95_bw, "
    "contact_toggles_s, action_rate, joint_acc_rad_s2, torque_over_share, chatter_share, "
    "ref_slip_p95_m_s, ref_contact_toggles_s, ref_joint_acc_rad_s2"
).split(", ")


def command(*arguments, script="benchmarks/track.py", expect=0):
    """Run a command in a process of its own; most tests call its `main` in this one instead."""
    done = warm_python.run(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done


def pose_follower(spec, size):
    """A residual network with zero weights: the target is the reference pose shown."""
    mlp = make_mlp(size, hidden=(4,), residual=True)
    return dataclasses.replace(
        mlp,
        weights=tuple(0 * weight for weight in mlp.weights),
        biases=tuple(0 * bias for bias in mlp.biases),
        residual_offset=np.array(spec.default_joint_pos),
        residual_scale=np.array(spec.action_scale),
    )


@pytest.fixture(scope="module")
def follower(tmp_path_factory):
    """Follows the reference's joints and falls, as open-loop targets must; `stand` is inside."""
    path = tmp_path_factory.mktemp("follower") / "follower.onnx"
    spec = PolicySpec.for_g1()
    write_onnx(path, pose_follower(spec, 160), spec, load_motion("stand"))
    training = {"env_steps": 12345, "wall_s": 6.5}
    write_policy_json(path.with_suffix(".json"), spec, training=training)
    return path


# --- figures ---


def test_the_best_reward_is_the_sum_of_the_tracking_weights():
    weights = [
        field.default
        for field in dataclasses.fields(RewardConfig)
        if isinstance(field.default, float) and field.default > 0
        and not field.name.endswith(("_std", "_threshold"))
    ]  # fmt: skip
    assert len(weights) == 6
    assert track.BEST_REWARD == pytest.approx(0.02 * sum(weights))


def test_a_failing_run_counts_the_frames_before_the_failure(follower):
    """Against the environment stepped by hand, in its own joint order."""
    policy = load_policy(follower)
    clip = load_motion("stand")
    config = track.Config(policy=str(follower), protocol=("clip",))
    row = track.evaluate(policy, clip, "clip", config)
    env = TrackVectorEnv(1, clip, config=TrackConfig.preset("clip"), threads=1)
    obs, _ = env.reset(seed=0)
    total, steps = 0.0, 0
    while True:  # obs begins with the joint positions of the frame shown
        action = (obs[:, :29] - g1.DEFAULT_JOINT_POS) / g1.ACTION_SCALE
        obs, reward, terminated, truncated, _ = env.step(action.astype(np.float32))
        total += reward[0]
        assert not truncated[0]  # the premise: it falls
        if terminated[0]:
            break
        steps += 1
    assert 10 < steps < clip.num_frames - 1
    assert row["success"] == 0.0
    # Two float32 paths to the same action; a fall amplifies their rounding by a step at most.
    assert row["survival_s"] == pytest.approx(steps * 0.02, abs=0.021)
    assert row["clip_s"] == pytest.approx(clip.duration_s)
    assert row["normalized_return"] == pytest.approx(
        total / (0.1 * (clip.num_frames - 1)), rel=0.05
    )
    assert row["train_env_steps"] == 12345 and row["train_wall_s"] == 6.5
    assert row["suite"] == "builtin"
    env.close()


def test_errors_of_a_short_completed_run(follower):
    """0.3 s are too short to fall; errors recomputed from the environment's raw state."""
    clip = load_motion("stand").cut(0, 0.3)
    config = track.Config(policy=str(follower), protocol=("clip",))
    row = track.evaluate(load_policy(follower), clip, "clip", config)
    env = TrackVectorEnv(1, clip, config=TrackConfig.preset("clip"), threads=1,
                         autoreset_mode="disabled")  # fmt: skip
    obs, _ = env.reset(seed=0)
    joint, body, speed = [], [], []
    tracked = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]
    for frame in range(1, clip.num_frames):
        action = (obs[:, :29] - g1.DEFAULT_JOINT_POS) / g1.ACTION_SCALE
        obs, _, terminated, truncated, _ = env.step(action.astype(np.float32))
        sim = env.simulator
        joint.append(np.abs(sim.joint_pos[0] - clip.joint_pos[frame]).mean())
        speed.append(np.sqrt(((sim.joint_vel[0] - clip.joint_vel[frame]) ** 2).mean()))
        offset = sim.body_pos[0] - clip.body_pos_w[frame, tracked]
        body.append(np.linalg.norm(offset, axis=1).mean())
    assert truncated[0] and not terminated[0]
    assert row["success"] == 1.0
    assert row["survival_s"] == row["clip_s"] == pytest.approx(0.3)
    assert row["joint_pos_rad"] == pytest.approx(np.mean(joint), rel=1e-3)
    assert row["joint_vel_rad_s"] == pytest.approx(np.mean(speed), rel=1e-3)
    assert row["mpkpe_mm"] == pytest.approx(1000 * np.mean(body), rel=1e-3)
    assert 0.5 < row["normalized_return"] <= 1.0
    env.close()


@pytest.mark.parametrize("names", [POLICY_TERMS, NO_STATE_ESTIMATION_TERMS])
def test_isaac_order_and_154_values_give_the_same_run(tmp_path, follower, names):
    clip = load_motion("walk").cut(2, 2.4)
    base = PolicySpec.for_g1(names)
    spec = isaac_spec(base)
    write_onnx(tmp_path / "p.onnx", pose_follower(spec, spec.observation_size), spec, None)
    config = track.Config(policy="", protocol=("clip",))
    row = track.evaluate(load_policy(tmp_path / "p.onnx"), clip, "clip", config)
    expected = track.evaluate(load_policy(follower), clip, "clip", config)
    for key in ("joint_pos_rad", "mpkpe_mm", "normalized_return", "survival_s"):
        assert row[key] == pytest.approx(expected[key], rel=1e-3), key


def test_drives_and_options_reach_the_task(tmp_path, follower):
    spec = PolicySpec.for_g1(
        default_joint_pos=g1.DEFAULT_JOINT_POS + 0.01, stiffness=2 * g1.STIFFNESS,
        damping=3 * g1.DAMPING, action_scale=0.5 * g1.ACTION_SCALE,
    )  # fmt: skip
    write_onnx(tmp_path / "p.onnx", make_mlp(hidden=(4,)), spec, None)
    config = track.Config(policy="", feet="capsules", lead=0, no_failure=True)
    task = track.task_config(load_policy(tmp_path / "p.onnx"), "robust", config)
    np.testing.assert_array_equal(task.actuation.stiffness, 2 * g1.STIFFNESS)
    np.testing.assert_array_equal(task.actuation.damping, 3 * g1.DAMPING)
    np.testing.assert_array_equal(task.actuation.action_scale, 0.5 * g1.ACTION_SCALE)
    np.testing.assert_array_equal(task.actuation.default_joint_pos, g1.DEFAULT_JOINT_POS + 0.01)
    assert (task.model.feet, task.lead, task.failure) == ("capsules", 0, "none")
    assert task.noise and task.pushes and task.randomization and task.reset_noise
    clip_task = track.task_config(load_policy(follower), "clip", track.Config(policy=""))
    assert not (clip_task.noise or clip_task.pushes or clip_task.randomization)
    assert (clip_task.failure, clip_task.episode_s) == ("pelvis", None)


def test_robust_runs_differ_by_episode_and_repeat_by_seed(follower):
    policy, clip = load_policy(follower), load_motion("stand").cut(0, 2)
    task = track.task_config(policy, "robust", track.Config(policy=""))
    first, again, other = (
        track.run_episodes(policy, clip, task, episodes=6, seed=seed, threads=1)
        for seed in (3, 3, 4)
    )
    np.testing.assert_equal(dataclasses.asdict(first), dataclasses.asdict(again))
    assert len(set(first.errors["joint_pos_rad"])) == 6
    assert not np.array_equal(first.errors["joint_pos_rad"], other.errors["joint_pos_rad"])


def test_without_failure_rules_a_fall_is_still_no_success(follower):
    clip = load_motion("stand").cut(0, 4)
    config = track.Config(policy="", protocol=("clip",), no_failure=True)
    policy = load_policy(follower)
    figures = track.run_episodes(
        policy, clip, track.task_config(policy, "clip", config), episodes=1, seed=0
    )
    assert figures.compared[0] == clip.num_frames - 1  # it goes on to the end of the clip
    assert 0 < figures.reached[0] < clip.num_frames - 1  # after having fallen
    assert not figures.completed[0]


# --- which motion ---


def test_a_policy_without_its_motion_finds_it_by_name(tmp_path):
    spec, clip = PolicySpec.for_g1(), load_motion("stand").cut(0, 0.3)
    path = tmp_path / "p.onnx"
    write_onnx(path, pose_follower(spec, 160), spec, clip, embed_motion=False)
    (found,) = evaluation.motions_of(load_policy(path))
    assert found.name == "stand[0:0.3]" and found.sha256() == clip.sha256()
    changed = dataclasses.replace(clip, joint_vel=clip.joint_vel + 1)
    write_onnx(path, pose_follower(spec, 160), spec, changed, embed_motion=False)
    with pytest.raises(PolicyError, match=r"another version of motion 'stand\[0:0.3\]'"):
        evaluation.motions_of(load_policy(path))
    write_onnx(path, pose_follower(spec, 160), spec, None)
    with pytest.raises(PolicyError, match="holds and names no motion; give --motion"):
        evaluation.motions_of(load_policy(path))
    clips = [load_motion("stand"), load_motion("walk")]
    write_policy_json(path.with_suffix(".json"), spec, motions=clips)
    assert [c.name for c in evaluation.motions_of(load_policy(path))] == ["stand", "walk"]

    # Made when asked for: another processor's rounding is the same motion, another length is not.
    mix = load_motion("walk_mix_0")
    rounded = dataclasses.replace(mix, joint_pos=mix.joint_pos + 2.0**-18)
    write_policy_json(path.with_suffix(".json"), spec, motions=[rounded])
    (found,) = evaluation.motions_of(load_policy(path))
    assert found.sha256() == mix.sha256() != rounded.sha256()
    write_policy_json(path.with_suffix(".json"), spec, motions=[mix.cut(0, 60)])
    text = path.with_suffix(".json").read_text().replace("walk_mix_0[0:60]", "walk_mix_0")
    path.with_suffix(".json").write_text(text)
    with pytest.raises(PolicyError, match="another version of motion 'walk_mix_0'"):
        evaluation.motions_of(load_policy(path))
    repaired = load_motion("stand~repaired")
    rounded = dataclasses.replace(repaired, joint_pos=repaired.joint_pos + 2.0**-18)
    write_policy_json(path.with_suffix(".json"), spec, motions=[rounded])
    (found,) = evaluation.motions_of(load_policy(path))
    assert (found.name, found.sha256()) == ("stand~repaired", repaired.sha256())


def test_without_a_policy_a_suite_takes_those_that_ship(monkeypatch):
    names = {"stand": "stand", "turn_left": None, "walk": "walk"}
    assert track.shipped_for(("walk", "side_left", "no_such")) == {
        "walk": "walk", "side_left": "builtin", "no_such": None,
    }  # fmt: skip
    monkeypatch.setattr(track, "shipped_for", lambda motions: names)
    monkeypatch.setattr(track, "load_policy", lambda name: name)
    chosen = track.choose(track.Config(suite="builtin"))
    assert [(name, clip.name) for name, (clip,) in chosen] == [("stand", "stand"), ("walk", "walk")]


def test_a_policy_for_each_motion(tmp_path, follower):
    for name in ("stand[0:0.3]", "walk[1:1.3]"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.onnx").write_bytes(follower.read_bytes())
    out = tmp_path / "out.json"
    track.main(
        track.Config(
            policy=f"{tmp_path}/{{motion}}", motion=("stand[0:0.3]", "walk[1:1.3]"),
            protocol=("clip",), json=out,
        )
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert [(row["policy"], row["motion"]) for row in result["rows"]] == [
        ("stand[0:0.3]", "stand[0:0.3]"), ("walk[1:1.3]", "walk[1:1.3]"),
    ]  # fmt: skip
    sha256 = load_policy(follower).sha256
    assert result["settings"]["policy_sha256"] == dict.fromkeys(
        ("stand[0:0.3]", "walk[1:1.3]"), sha256
    )


def test_a_motion_and_the_repaired_one_are_measured_beside_each_other(tmp_path, follower):
    stand = load_motion("stand[0:0.5]")
    pos, quat = (np.array(x[:, 0], np.float64) for x in (stand.body_pos_w, stand.body_quat_w))
    pos[:, 2] -= 0.04
    sunk = clip_from_states("walk1_subject1", 50.0, pos, quat, stand.joint_pos,
                            source="a test", licence="CC BY-NC-ND 4.0")  # fmt: skip
    path, out = tmp_path / "sunk.npz", tmp_path / "out.json"
    save_npz(sunk, path)
    track.main(
        track.Config(
            policy=str(follower), motion=(str(path), f"{path}~repaired"), protocol=("clip",),
            json=out,
        )
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert [(row["motion"], row["suite"]) for row in result["rows"]] == [
        ("walk1_subject1", "lafan1-40"), ("walk1_subject1~repaired", "lafan1-repaired"),
    ]  # fmt: skip
    digests = result["settings"]["motion_sha256"]
    assert digests["walk1_subject1"] == sunk.sha256() != digests["walk1_subject1~repaired"]


def test_a_row_tells_the_suite_it_was_asked_for():
    policy, clip = load_policy("walk"), load_motion("walk")
    figures = evaluation.Episodes(
        np.ones(1, bool), np.full(1, 1225.0), np.full(1, 1225.0), np.full(1, 100.0),
        {name: np.full(1, 0.1) for name in (
            "mpkpe_m", "r_mpkpe_m", "joint_pos_rad", "joint_vel_rad_s", "ee_pos_m", "ee_ori_rad"
        )}, {}, {name: np.full(1, np.nan) for name in quality.NAMES},
    )  # fmt: skip
    rows = [
        track.result_row(policy, clip, "clip", "mujoco", figures, suite)
        for suite in (None, "lafan1-table1")
    ]
    assert [row["suite"] for row in rows] == ["builtin", "lafan1-table1"]
    assert all(row[name] is None for row in rows for name in quality.NAMES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Neither --policy nor --suite is given"),
        ({"suite": "builtin", "motion": ("walk",)}, "Both --motion and --suite are given"),
        ({"policy": "runs/{motion}"}, "needs --motion or --suite"),
    ],
)
def test_suites_and_policies_are_asked_for_plainly(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        track.Config(**settings)


# --- the command ---


def test_the_command_writes_rows_with_exactly_the_keys(tmp_path, follower):
    out = tmp_path / "out.json"
    done = command("--policy", follower, "--motion", "stand[0:0.3]", "walk[1:1.3]", "--quick",
                   "--trials", 3, "--seed", 5, "--json", out)  # fmt: skip
    result = json.loads(out.read_text())
    assert (result["kind"], result["seed"]) == ("track", 5)
    rows = result["rows"]
    assert [(row["motion"], row["protocol"], row["episodes"]) for row in rows] == [
        ("stand[0:0.3]", "clip", 1), ("stand[0:0.3]", "robust", 3),
        ("walk[1:1.3]", "clip", 1), ("walk[1:1.3]", "robust", 3),
    ]  # fmt: skip
    for row in rows:
        assert [key for key in row if key != "spread"] == ROW_KEYS
        assert ("spread" in row) == (row["protocol"] == "robust")
        assert row["policy"] == "follower" and row["backend"] == "mujoco"
    for trace, row in zip(result["traces"], rows[::2], strict=True):
        assert (trace["policy"], trace["motion"]) == ("follower", row["motion"])
        assert trace["failed_s"] is None and trace["every_s"] == 0.02
        assert len(trace["mpkpe_mm"]) == 15
        assert np.mean(trace["mpkpe_mm"]) == pytest.approx(row["mpkpe_mm"], abs=0.01)
    assert str(tmp_path) not in json.dumps(rows) and str(tmp_path) not in json.dumps(
        [result["machine"], result["settings"]]
    )
    assert "results in" in done.stdout


def test_without_a_motion_the_one_inside_is_used(follower, capsys):
    track.main(track.Config(policy=str(follower), protocol=("clip",)))
    assert re.search(r"^stand +clip +1 +0.0%", capsys.readouterr().out, re.MULTILINE)


def test_bad_input_gives_one_sentence_and_status_2(tmp_path, follower):
    foreign = tmp_path / "bad.onnx"
    foreign.write_bytes(b"nonsense")
    done = command("--policy", foreign, expect=2)
    assert re.fullmatch(r"error: .*bad.onnx: not a readable ONNX model \(.*\)\.\n", done.stderr)
    good = track.Config(policy=str(follower))
    for changes, message in (
        ({"policy": "nowhere.onnx"}, "no such policy file"),
        ({"motion": ("wlak",)}, "Unknown motion 'wlak'; did you mean 'walk'"),
        ({"backend": "mujocoo"}, "backend 'mujocoo'"),
        ({"json": tmp_path}, "is a folder, expected the name of a file"),
        ({"policy_config": tmp_path / "none.json"}, "none.json: not a readable JSON file"),
    ):
        with pytest.raises(BMError, match=message):
            track.main(dataclasses.replace(good, **changes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.onnx"]


def test_a_trace_ends_at_the_failure(follower):
    policy, clip = load_policy(follower), load_motion("stand")
    traces = []
    config = track.Config(policy=str(follower), protocol=("clip",))
    row = track.evaluate(policy, clip, "clip", config, traces)
    (trace,) = traces
    assert row["success"] == 0
    assert trace["failed_s"] == pytest.approx(row["survival_s"] + 0.02)
    frames = round(row["survival_s"] / 0.02)
    assert len(trace["mpkpe_mm"]) == frames
    assert np.mean(trace["mpkpe_mm"]) == pytest.approx(row["mpkpe_mm"], abs=0.01)


def test_a_long_trace_is_means():
    errors = list(np.arange(1001.0))
    found = track.means(errors)
    assert found["every_s"] == pytest.approx(0.12) and len(found["mpkpe_mm"]) == 167 <= track.TRACE
    assert found["mpkpe_mm"][0] == pytest.approx(2500.0)
    assert found["mpkpe_mm"][-1] == pytest.approx(1000 * np.mean(errors[166 * 6 :]))


def test_trials_are_counted():
    assert track.Config(policy="x").episodes("robust") == 100
    assert track.Config(policy="x", quick=True).episodes("robust") == 10
    assert track.Config(policy="x", trials=300).episodes("robust") == 300
    with pytest.raises(ConfigError, match="trials is 99"):
        track.Config(policy="x", trials=99)


# --- the exporter ---


@pytest.mark.parametrize("residual", [False, True])
def test_export_writes_the_runs_policy(tmp_path, residual, capsys):
    mlp = make_mlp(hidden=(16,), residual=residual)
    run = tmp_path / "run"
    save_checkpoint(run, mlp, residual)
    config = json.loads((run / "config.json").read_text()) | {"motion": ["stand[0:1]"]}
    (run / "config.json").write_text(json.dumps(config))
    write_policy_json(run / "policy.json", PolicySpec.for_g1(), training={"env_steps": 9})
    out = tmp_path / "out" / "p.onnx"
    export = export_onnx.Config(run, out)
    export_onnx.main(dataclasses.replace(export, check=True, with_vectors=True))
    printed = capsys.readouterr().out
    assert "motion stand[0:1] inside" in printed and "checked: actions within" in printed
    assert sorted(p.name for p in out.parent.iterdir()) == ["p.json", "p.onnx", "p_vectors.json"]
    policy = load_policy(out)
    obs = np.random.default_rng(0).normal(size=(10, 160)).astype(np.float32)
    # obs_scale went through a square and a root in float32.
    np.testing.assert_allclose(policy(obs), mlp(obs), atol=2e-5)
    assert policy.spec.run_path == "run" and policy.clip.num_frames == 51
    assert policy.info["training"]["env_steps"] == 9
    assert policy.info["motions"][0]["embedded"] is True
    vectors = json.loads((out.parent / "p_vectors.json").read_text())
    case = vectors["cases"][0]
    np.testing.assert_allclose(
        policy(np.array([case["observation"]], np.float32))[0], case["action"], atol=1e-5
    )
    export_onnx.main(dataclasses.replace(export, no_motion=True))
    assert load_policy(out).clip is None
    export_onnx.main(dataclasses.replace(export, motion="walk[0:1]"))
    assert load_policy(out).clip.name == "walk[0:1]"


def test_export_refuses(tmp_path):
    run = tmp_path / "run"
    save_checkpoint(run, make_mlp(hidden=(16,)))
    out = tmp_path / "p.onnx"
    for arguments, message in {
        (run, tmp_path / "p.txt"): "expected the name of a file that ends in .onnx",
        (tmp_path, out): "no such checkpoint",
        (run, out, "wlak"): "Unknown motion 'wlak'",
    }.items():
        with pytest.raises(BMError, match=message):
            export_onnx.main(export_onnx.Config(*arguments))
    done = command(run, out, script="tools/export_onnx.py", expect=2)
    assert re.fullmatch(
        r"error: .*config.json: 'motion' names no motion; give --motion\.\n", done.stderr
    )
    (run / "config.json").write_text(
        json.dumps(json.loads((run / "config.json").read_text()) | {"motion": ["walk", "stand"]})
    )
    with pytest.raises(PolicyError, match="trained on 2 motions and a file holds one"):
        export_onnx.main(export_onnx.Config(run, out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


# --- policies made elsewhere, in other simulators ---


@needs_oracles
@pytest.mark.parametrize(("feet", "lead"), [("spheres", 1), ("capsules", 0)])
def test_the_jump_policy_completes_its_motion(tmp_path, feet, lead):
    """Accepted range 0.055 to 0.075 rad; measured elsewhere 0.0648 rad (capsules, lead 0)."""
    out = tmp_path / "out.json"
    policy = str(ORACLES / "jump_wose" / "Jump_wose.onnx")
    track.main(track.Config(policy=policy, protocol=("clip",), feet=feet, lead=lead, json=out))
    (row,) = json.loads(out.read_text())["rows"]
    assert row["success"] == 1.0
    assert row["survival_s"] == row["clip_s"] == pytest.approx(164 * 0.02)
    assert 0.055 < row["joint_pos_rad"] < 0.075


@pytest.fixture
def dance(tmp_path):
    if not (ORACLES.parent / "lafan1_g1" / "dance1_subject2.csv").is_file():
        pytest.skip("BM_DATA_DIR holds no lafan1_g1/dance1_subject2.csv")
    (tmp_path / "dance.json").write_text(json.dumps(dance_config()))
    return ORACLES / "dance1_subject2" / "policy.onnx", tmp_path / "dance.json"


@needs_oracles
@pytest.mark.slow
def test_the_dance_policy_stays_up_for_its_whole_motion(tmp_path, dance):
    """Accepted range 0.085 to 0.11 rad; measured elsewhere 0.0969 rad over 131.48 s."""
    out = tmp_path / "out.json"
    policy, config = dance
    command("--policy", policy, "--policy-config", config, "--motion", "dance1_subject2",
            "--protocol", "clip", "--no-failure", "--json", out)  # fmt: skip
    (row,) = json.loads(out.read_text())["rows"]
    assert row["policy"] == "dance1_subject2" and row["suite"] == "lafan1-40"
    assert row["success"] == 1.0  # the root never more than 0.3 m below the reference
    assert row["survival_s"] == row["clip_s"] == pytest.approx(6573 * 0.02)
    assert 0.085 < row["joint_pos_rad"] < 0.11


def check_against_recording(policy, clip, rollout, steps, state_bound):
    """The environment put on recorded states: its observation, and one control period from each."""
    config = dataclasses.replace(
        track.task_config(policy, "clip", track.Config(policy="", feet="capsules", lead=0)),
        failure="none",
    )
    env = TrackVectorEnv(1, clip, config=config, autoreset_mode="disabled", threads=1)
    to_policy, to_env = policy.spec.observation_index(), policy.spec.action_index()
    obs, _ = env.reset(seed=0)
    first = np.zeros(1, np.int64)
    np.testing.assert_allclose(obs[0, to_policy], rollout["obs"][0], atol=1e-5)
    errors = []
    for k in range(steps):
        env.reset(options={"frame": k})
        qpos, qvel = rollout["qpos"][k][None], rollout["qvel"][k][None]
        env.simulator.reset(first, qpos.astype(np.float32), qvel.astype(np.float32))
        obs, *_ = env.step(rollout["act"][k][None][:, to_env])
        recorded = rollout["obs"][k + 1]
        parts = obs[0, to_policy]
        # Reference and previous action are copies of float32 values; the clip's own resampling and
        # forward kinematics are in it, so 1e-5.
        np.testing.assert_allclose(parts[:58], recorded[:58], atol=1e-5)
        np.testing.assert_allclose(parts[125:], recorded[125:], atol=0)
        # The recorded torso is one physics step old (see test_oracle_policies.py).
        np.testing.assert_allclose(parts[58:64], recorded[58:64], atol=0.02)
        after = np.r_[env.simulator.root_pos[0], env.simulator.root_quat[0]]
        joints = np.abs(env.simulator.joint_pos[0] - rollout["qpos"][k + 1][7:])
        errors.append(max(joints.max(), np.abs(after - rollout["qpos"][k + 1][:7]).max()))
    env.close()
    assert max(errors) < state_bound
    return max(errors)


@needs_oracles
def test_the_environment_reproduces_the_jump_recording():
    policy = load_policy(ORACLES / "jump_wose" / "Jump_wose.onnx")
    rollout = np.load(ORACLES / "jump_wose" / "rollout.npz")
    np.testing.assert_allclose(policy(rollout["obs"]), rollout["act"], atol=2e-5, rtol=1e-5)
    # Model facts of six digits, gains of three decimals and float32 states: 1e-4 rad or m in 20 ms.
    check_against_recording(policy, policy.embedded_clip(), rollout, 164, 2e-4)


@needs_oracles
def test_the_environment_reproduces_the_dance_recording(dance):
    path, config = dance
    # The recording was made with the robot table's gains and scales, not the rounded ones.
    exact = dance_config() | {
        "joint_stiffness": list(g1.STIFFNESS), "joint_damping": list(g1.DAMPING),
        "action_scale": list(g1.ACTION_SCALE),
    }  # fmt: skip
    config.write_text(json.dumps(exact))
    policy = load_policy(path, config=config)
    rollout = np.load(ORACLES / "dance1_subject2" / "rollout_first_500.npz")
    np.testing.assert_allclose(policy(rollout["obs"]), rollout["act"], atol=2e-5, rtol=1e-5)
    check_against_recording(policy, load_motion("dance1_subject2"), rollout, 200, 2e-4)
