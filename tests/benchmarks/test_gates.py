"""benchmarks/gates.py: every gate passes what is right and fails what is broken on purpose."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm_python
from result_files import result
from scipy import stats
from stand_in_model import Model, still

from bm_envs.diffusion.network import NetworkConfig, write_untrained
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.diffusion.steering import STEERING
from bm_envs.errors import ConfigError
from bm_envs.motion import library, procedural
from bm_envs.motion.gait import plan_walk
from bm_envs.results import check_result
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import PAST, REPRESENTATIONS, representation

ROOT = Path(__file__).resolve().parents[2]
for folder in ("algos", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
collect = importlib.import_module("collect_rollouts")
gates = importlib.import_module("gates")


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """Short roll-outs of the shipped walk, in one clip without a delay."""
    out = tmp_path_factory.mktemp("data") / "rollouts"
    flags = ("--episodes", "16", "--num-envs", "16", "--steps", "60", "--verify", "10",
             "--motion", "walk[6:16]")  # fmt: skip
    return gates.collect(out, ["walk"], 3, *flags)


@pytest.fixture(scope="module")
def drives():
    policy = collect.load_policy("walk")
    return collect.drives_of(policy)


# --- gates 0 to 2b --------------------------------------------------------------------------------


def test_gate_0_passes_and_notices_a_wrong_sign(episodes, monkeypatch):
    gate = gates.gate_0(episodes)
    assert gate.passed and gate.value < 1e-5
    assert len(gate.details) == 4 * len(REPRESENTATIONS)
    rep = representation("body_pos")
    index, sign = rep.mirror
    sign = sign.copy()
    sign[rep.blocks["root_lin_vel"].start + 1] = 1.0  # the velocity to the left is not turned
    monkeypatch.setitem(REPRESENTATIONS, "body_pos", rep._replace(mirror=(index, sign)))
    gate = gates.gate_0(episodes)
    assert not gate.passed and gate.details["body_pos mirrored motion"] > 1e-3
    assert gate.details["body_pos mirror twice"] < 1e-5


def test_gate_1_counts_episodes_that_lasted(episodes):
    length = np.full(16, 60)
    length[:2] = 59
    most = dataclasses.replace(episodes, length=length)
    all_of_them = dataclasses.replace(episodes, length=np.full(16, 60))
    gate = gates.gate_1(most, all_of_them, ["walk"])
    assert gate.value == 14 / 16 and gate.details["with_shoves"] == 1 and not gate.passed
    assert gates.gate_1(all_of_them, all_of_them, ["walk"]).passed
    assert not gates.gate_1(all_of_them, most, ["walk"]).passed  # 0.875 with pushes, wanted 0.95


def test_gate_1b_passes_and_notices_wrong_actions(episodes, drives):
    def check(changed, drives=drives):
        return gates.gate_1b(changed, drives, "mujoco", 0, count=32)

    right = check(episodes)
    assert right.passed and right.value < 0.03
    for name, wrong in {
        "sides": episodes.executed[..., g1.mirror_map()[0]],
        "a zero point": episodes.executed + 1.0,
    }.items():
        gate = check(dataclasses.replace(episodes, executed=wrong))
        assert gate.value > 2 * right.value and not gate.passed, name


def test_r_squared_by_hand():
    truth = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]])  # variances 8/3 and 2
    found = truth + np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    share, each = gates.r_squared(found, truth)
    assert each == pytest.approx([1 - 3 / 8, 1.0])
    assert share == pytest.approx(1 - 1 / (8 / 3 + 2))


def test_gate_2_passes_who_knows_and_fails_who_guesses(episodes, drives):
    truth = gates.truth_of(Model(drives, None), episodes, 48, seed=1)
    assert truth.features.shape == (48, LENGTH, 192)

    def knows(states, actions, state_levels, action_levels):
        """The action that belongs to the past; worse, the further the given future is from it."""
        gap = ((states[:, None, :PAST] - truth.states[None, :, :PAST]) ** 2).sum((2, 3))
        which = gap.argmin(1)
        off = np.sqrt(((states - truth.states[which]) ** 2)[:, PAST:].mean((1, 2)))
        vague = np.minimum(0.5 * off, 0.2)[:, None, None]
        rng = np.random.default_rng(0)
        spread = truth.actions.std((0, 1))
        known = truth.actions[which, : actions.shape[1]]
        guess = known + vague * spread * rng.standard_normal(actions.shape)
        return truth.states[which], guess.astype(np.float32)

    gate, features = gates.gate_2(Model(drives, knows), truth, seed=0)
    assert gate.passed, gate
    assert gate.details["true_future"] == pytest.approx(1, abs=1e-4)
    assert gate.details["noise_future"] < gate.value
    np.testing.assert_allclose(features, truth.features, atol=1e-5)
    gate, _ = gates.gate_2(Model(drives, still(0.0)), truth, seed=0)
    assert not gate.passed and gate.value <= 0


def test_gate_2b_wants_to_be_better_than_going_straight_on(episodes, drives):
    model = Model(drives, None)
    truth = gates.truth_of(model, episodes, 48, seed=1)
    start = model.representation.blocks["root_pos"].start

    def gate(offset):
        features = truth.features.copy()
        features[:, -1, start] += offset
        return gates.gate_2b(model, truth, features)

    straight = gate(0.0).details["constant_velocity_m"]
    assert 0.001 < straight < 0.1  # a walking root swings by some millimetres in 0.3 s
    assert gate(0.0).passed and gate(0.0).value == 0
    assert gate(0.9 * straight).value == pytest.approx(0.9 * straight, rel=1e-3)
    assert not gate(1.1 * straight).passed
    assert not gate(0.06).passed


# --- gates 3 to 5 ---------------------------------------------------------------------------------


def test_starts_walk(episodes):
    qpos, qvel = gates.walking_starts(episodes, 50, np.random.default_rng(0))
    assert qpos.shape == (50, 36) and qvel.shape == (50, 35)
    stored = episodes.qpos.reshape(-1, 36)
    assert all((stored == pose).all(1).any() for pose in qpos)
    standing = dataclasses.replace(episodes, qpos=np.repeat(episodes.qpos[:, :1], 60, 1))
    with pytest.raises(gates.BMError, match=r"walks at 0.3 m/s or faster"):
        gates.walking_starts(standing, 5, np.random.default_rng(0))


@pytest.fixture(scope="module")
def standing():
    qpos = np.zeros((3, 36))
    qpos[:, 2], qpos[:, 3], qpos[:, 7:] = 0.76, 1.0, g1.DEFAULT_JOINT_POS
    return qpos, np.zeros((3, 35))


@pytest.mark.parametrize(
    "free, shoved, speed, passes",
    [(0, 0, 0.5, True), (1, 4, 0.5, True), (2, 0, 0.5, False), (0, 5, 0.5, False),
     (0, 0, 0.1, False)],
)  # fmt: skip
def test_gate_3_wants_robots_that_stay_up_and_walk(
    drives, episodes, monkeypatch, free, shoved, speed, passes
):
    """Of 20 robots so many fall without and with pushes; a post would stay up, too."""

    def told(model, starts, *, pushes, **_):
        down = np.full(20, np.inf)
        down[: shoved if pushes else free] = 3.0
        speeds = np.full(20, speed)
        return gates.Trials(down, np.full(20, np.inf), speeds, speeds, speeds)

    monkeypatch.setattr(gates, "closed_loop", told)
    gate = gates.gate_3(
        Model(drives, None), episodes, trials=20, seconds=15.0, config=gates.Config(policy="x")
    )
    assert gate.passed is passes and gate.value == 1 - free / 20
    assert gate.details["shoved"]["alive"] == 1 - shoved / 20
    assert gate.details["shoved"]["falls_s"] == [3.0] * shoved
    assert gate.details["free"]["alive_head"] == 1


def test_a_robot_that_folds_up_is_down(standing, drives):
    """Knees asked to bend as far as they go: by both criteria, the strict one first."""
    action = np.zeros(29, np.float32)
    for i, name in enumerate(g1.JOINT_NAMES):
        if "knee" in name:
            action[i] = 2.5 / drives["action_scale"][i]
    found = gates.closed_loop(Model(drives, still(action)), standing, seconds=3.0, seed=0)
    assert not found.alive.any()
    assert (found.down_s < 0).all()  # within the second of warm-up
    assert (found.down_s < found.head_down_s).all()


def test_pushes_come_every_second(standing, drives, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        gates.Robots, "push", lambda self, speed, angle: pushed.append((speed, angle))
    )
    gates.closed_loop(
        Model(drives, still(0.0)), standing, seconds=3.0, seed=0, pushes=True, method=1
    )
    assert len(pushed) == 3
    speed, angle = np.array(pushed).transpose(1, 0, 2)
    assert (speed >= 0).all() and (speed <= 0.5).all() and np.ptp(speed) > 0.05
    assert (angle >= 0).all() and (angle <= 2 * np.pi).all() and np.ptp(angle) > 0.5


def test_figures_of_dose_and_response():
    rng = np.random.default_rng(0)
    x = rng.choice(gates.TARGETS, 60)
    y = 0.7 * x + 0.1 * rng.normal(size=60)
    assert gates.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert gates.slope(x, y) == pytest.approx(stats.linregress(x, y).slope, abs=1e-12)
    assert gates.spearman(x, 0 * y) == 0 and gates.slope(0 * x, y) == 0


@pytest.mark.parametrize("gain, passes", [(1.0, True), (0.3, False), (-1.0, False)])
def test_gate_4_reads_strength_and_slope(drives, episodes, monkeypatch, gain, passes):
    """Robots that walk at `gain` times what they are told, at the chosen strength alone."""
    config = gates.Config(policy="x", strength=0.2)

    def told(model, starts, *, cost, strength, **_):
        count = len(strength)
        forward = np.where(strength == 0.2, gain, 0.0) * cost.velocity[:, 0] + 0.2
        down = np.where(strength == 0.8, 1.0, np.inf)  # too strong: all fall
        return gates.Trials(down, down, forward, forward, np.zeros(count))

    monkeypatch.setattr(gates, "closed_loop", told)
    gate = gates.gate_4(
        Model(drives, None), episodes, trials=2, seconds=6.0, strengths=(0.0, 0.2, 0.8),
        config=config,
    )  # fmt: skip
    assert gate.passed is passes
    assert gate.details["slope"] == pytest.approx(gain)
    rows = {row["strength"]: row for row in gate.details["by_strength"]}
    assert rows[0.0]["slope"] == 0 and rows[0.8]["falls"] == 1 and rows[0.2]["falls"] == 0
    assert rows[0.2]["forward"] == pytest.approx([gain * v + 0.2 for v in gates.TARGETS])


@pytest.mark.parametrize("reads", [True, False])
def test_gate_5_notices_whether_actions_read_the_states(drives, episodes, monkeypatch, reads):
    """An action that follows the predicted velocity, and one that obeys in states alone."""
    model = Model(drives, None)
    velocity = model.representation.blocks["root_lin_vel"].start

    def answer(states, actions, state_levels, action_levels):
        clean, _ = still(0.0)(states, actions, state_levels, action_levels)
        # What the last call's guide left in the noisy states.
        ahead = states[:, PAST:, velocity].mean(1) if reads else np.zeros(len(states))
        answer = np.broadcast_to(ahead[:, None, None], actions.shape)
        return clean, (100 * answer).astype(np.float32)

    model.answer = answer
    truth = gates.truth_of(model, episodes, 16, seed=0)

    def obeys(model, starts, *, cost, **_):
        forward = cost.velocity[:, 0]
        none = np.full(len(forward), np.inf)
        return gates.Trials(none, none, forward, forward, forward)

    monkeypatch.setattr(gates, "closed_loop", obeys)
    gate = gates.gate_5(model, truth, episodes, config=gates.Config(policy="x", strength=0.2))
    assert gate.passed is reads
    assert (gate.value > 0.05) is reads and gate.details["phases_that_agree"] == 1


def joystick_rows(outside=0.1, guided=12, unguided=0):
    """Rows of 12 trials of `guided.py`, with guidance and without."""
    row = {"trials": 12, "outside_box_by_feature": {"root_lin_vel 0": outside}}
    rows = {guided: outside, unguided: None}
    return tuple(
        row | {"successes": count, "success_rate": count / 12, "outside_box": share}
        for count, share in rows.items()
    )


@pytest.mark.parametrize(
    ("made", "passed", "reason"),
    [
        ({}, True, ""),
        ({"outside": 0.199}, True, ""),
        ({"outside": 0.2}, False, "lies outside what the data hold"),
        # A guide that moves next to nothing is always inside: it has to be obeyed as well.
        ({"guided": 5}, False, "with guidance 5 of 12 do the task, expected half"),
        ({"unguided": 6}, None, "says nothing: at strength 0, 6 of 12 do the task"),
        ({"unguided": 5}, True, ""),
        ({"outside": None}, None, "says nothing: at strength 0.7 guidance moved nothing"),
    ],
)
def test_gate_box_wants_guidance_inside_the_data_that_is_needed(made, passed, reason):
    gate = gates.gate_box(*joystick_rows(**made), 0.7)
    assert gate.passed is passed and gate.value == made.get("outside", 0.1)
    assert gate.threshold == 0.2 and gate.details["levels_below"] == 12
    assert gate.details["reason"].startswith(reason) or reason in gate.details["reason"]
    assert bool(gate.details["reason"]) is bool(reason) and reason in gates.line(gate)[-1]
    check_result(result("gates", [gate.row()], settings={"policy": "x"}), "out.json")


def test_gate_box_runs_the_joystick_task_with_and_without_guidance(monkeypatch, tmp_path):
    """Equal commands but for the strength; the rows are read from the files they name."""
    commands = []

    def told(command, **_):
        commands.append(command)
        flags = dict(zip(command[2::2], command[3::2], strict=True))
        row = joystick_rows()[float(flags["--strength"]) == 0]
        Path(flags["--json"]).write_text(json.dumps({"rows": [row]}))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(gates.subprocess, "run", told)
    config = gates.Config(policy="some/model", gate=("box",), quick=True, delay=1, seed=7)
    (gate,) = gates.examine(Model({}, still(0.0)), config, tmp_path)
    assert gate.passed and gate.details["strength"] == STEERING["body_pos"].strength
    flags = [dict(zip(command[2::2], command[3::2], strict=True)) for command in commands]
    assert [each.pop("--strength") for each in flags] == [f"{gate.details['strength']}", "0.0"]
    assert len({each.pop("--json") for each in flags}) == 2
    assert flags[0] == flags[1] and flags[0]["--task"] == "joystick"
    assert (flags[0]["--trials"], flags[0]["--delay"], flags[0]["--seed"]) == ("2", "1", "7")
    assert flags[0]["--sampler"] == "10" and gates.Config(policy="x").sampled_by == "full"
    assert Path(commands[0][1]).is_file()


def walks_of(name):
    """States of ten seconds; a shuffle is the built-in family's walk at 0.6 m/s."""
    if name == "shuffle":
        plan = plan_walk([(0, 0, 0, 1.0), (0.6, 0, 0, 14.0), (0, 0, 0, 1.0)])
        return procedural.clip_from_plan(name, plan).qpos()[150:650]
    return library.load_motion(name).qpos()[:500]


@pytest.mark.parametrize(
    ("robots", "references", "passed", "reason"),
    [
        # A robot that does what the clip does is natural.
        ("stride", ["stride"], True, ""),
        # The procedural walk beside people's: bent knees, short steps.
        ("shuffle", ["stroll"], False, "not as the clips: stance_knee_rad"),
        ("stride", ["stand", "jog"], None, "no clip walks at 0.9"),
        (None, ["stroll"], False, "no robot stays up"),
    ],
)
def test_gate_natural_compares_with_clips_of_equal_speed(robots, references, passed, reason):
    walks = {0.5: [] if robots is None else [walks_of(robots)]}
    gate = gates.natural_gate(walks, library.load_motions(references))
    assert gate.passed is passed and reason in gate.details["reason"]
    assert (gate.details["reason"] == "") is (reason == "")
    row = gate.row()
    assert row["threshold"] == 1.0
    if passed:  # equal but for the slip of feet that just land, which has a bound and no ratio
        off = gate.details["by_speed"][0]["off"]
        assert off.pop("joint_acc_rad_s2") == pytest.approx(0.5, abs=0.01)  # 1 of at most 2
        assert off.pop("slip_p95_m_s") < 0.8 and max(off.values()) < 0.05
    check_result(result("gates", [row], settings={"policy": "x"}), "out.json")


def test_gate_natural_walks_at_its_speeds_and_measures_who_stays_up(monkeypatch, drives, episodes):
    """Two robots at each of two speeds, one of which falls; what they did is what is measured."""
    asked = {}

    def walked(model, starts, *, cost, strength, record, **_):
        asked["forward"] = cost.velocity[:, 0].tolist()
        walk = walks_of("stride")
        record += [np.stack([walk[t]] * 4) for t in range(len(walk))]
        down = np.array([np.inf, 1.0, np.inf, np.inf])
        return gates.Trials(down, down, down, down, down)

    monkeypatch.setattr(gates, "closed_loop", walked)
    gate = gates.gate_natural(
        Model(drives, still(0.0)), episodes, library.load_motions(["stride"]), trials=2,
        seconds=10.0, config=gates.Config(policy="x"),
    )  # fmt: skip
    assert asked["forward"] == [0.5, 0.5, 0.8, 0.8] and gate.passed
    assert [entry["robots"] for entry in gate.details["by_speed"]] == [1, 2]


def test_strengths_are_shares_and_the_model_s_own_is_the_default(monkeypatch, drives, episodes):
    for name in ("body_pos", "joint_rot"):
        model = Model(drives, still(0.0), name)
        assert gates.Config(policy="x").steering_for(model) == STEERING[name]
        own = gates.Config(policy="x", strength=0.3).steering_for(model)
        assert own == dataclasses.replace(STEERING[name], strength=0.3)
    seen = []
    monkeypatch.setattr(gates, "collect", lambda *_: episodes)
    monkeypatch.setattr(gates, "sources_of", lambda *_: {"walk": []})
    monkeypatch.setattr(gates, "gate_4", lambda *_, strengths, **__: seen.append(strengths))
    for quick in (False, True):
        config = gates.Config(policy="x", gate=("4",), quick=quick)
        list(gates.examine(Model(drives, still(0.0), "joint_rot"), config, Path()))
    own = STEERING["joint_rot"].strength
    assert seen[0] == sorted({0.0, 0.25, 0.5, 0.75, 1.0, own}) and seen[1] == [own]
    with pytest.raises(ConfigError, match="strength is 3, expected 0 to 1, the share of each cost"):
        gates.Config(policy="x", strength=3.0).steering_for(Model(drives, still(0.0)))


def test_phase_goes_round_once_in_two_steps(episodes):
    phase = gates.phase_of(episodes.qpos[0])
    assert ((phase >= 0) & (phase < 1)).all()
    # The built-in walk takes two steps in 1.2 s, which is all of the 60 frames.
    turns = np.abs(np.unwrap(2 * np.pi * phase)[-1] - 2 * np.pi * phase[0]) / (2 * np.pi)
    assert 0.7 < turns < 1.4


# --- the command ----------------------------------------------------------------------------------


def test_settings_are_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="sampler is '21', expected full, rolling or 1 to 20"):
        gates.Config(policy="x", sampler="21")
    for name, value, least in (("trials", 0, 1), ("windows", 1, 2), ("ticks", 0, 1)):
        with pytest.raises(ConfigError, match=f"{name} is {value}, expected {least} or more"):
            gates.Config(policy="x", **{name: value})
    done = warm_python.run(
        [sys.executable, str(ROOT / "benchmarks" / "gates.py"), "--policy", "no_such_model"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "Unknown diffusion model 'no_such_model'" in done.stderr


@pytest.mark.slow
def test_the_command_writes_a_row_for_each_gate(tmp_path, episodes, drives):
    """Of an untrained model: gates 0 to 1b are about data and pass, 2 and 3 fail."""
    write_untrained(tmp_path / "model", NetworkConfig(), "body_pos", drives)
    out = tmp_path / "gates.json"
    done = warm_python.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "gates.py"), "--policy",
            str(tmp_path / "model"), "--expert", "walk", "--quick", "--trials", "2", "--sampler",
            "2", "--windows", "64", "--ticks", "3", "--json", str(out), "--gate", "0", "1", "1b",
            "2", "2b", "3", "latency",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # It says what it does before it does it.
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model ") and lines[1] == "  64 roll-outs of walk ..."
    result = json.loads(out.read_text())
    assert result["kind"] == "gates" and result["seed"] == 1000
    rows = {row["gate"]: row for row in result["rows"]}
    assert list(rows) == ["0", "1", "1b", "2", "2b", "3", "latency"]
    for row in rows.values():
        assert {"gate", "value", "threshold", "passed"} <= set(row)
    assert [rows[name]["passed"] for name in ("0", "1", "1b")] == [True] * 3
    assert not rows["2"]["passed"] and not rows["3"]["passed"]
    assert rows["latency"]["details"]["ticks"] == 3
    table = rows["latency"]["details"]["by_model"]
    calls = {(entry["model"], entry["sampler"]): entry for entry in table}
    assert len(calls) == 10 and all(entry["median_ms"] > 0 for entry in table)
    # Twice ten calls and a ten times larger network cannot be as fast.
    assert (
        calls["paper preset, untrained", "full"]["median_ms"]
        > calls["model", "ddim 2"]["median_ms"]
    )
