"""What clients may rely on: limits, infos, presets, wrappers, bounds, refusals, sharing."""

import dataclasses
import importlib
import inspect
import re
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bm_envs  # noqa: F401  (registers the environments)
from bm_envs.backends import native
from bm_envs.envs import GuidedEnv, GuidedVectorEnv, Named, TrackEnv, TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.robots import g1, mjcf
from bm_envs.tasks.guided.config import WaypointConfig
from bm_envs.tasks.track import kernel, rewards
from bm_envs.tasks.track.config import PRESETS, TrackConfig, laptop_task

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs"))
site_tables = importlib.import_module("site_tables")

IDS = [name for name in gymnasium.registry if name.startswith("BM")]
STILL = dict(motion="walk", preset="clip")  # draws nothing


def zeros(env):
    return np.zeros(env.action_space.shape, np.float32)


# --- limits and modes ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
@pytest.mark.parametrize("limit", [None, 9])
def test_the_vector_form_is_gymnasiums_own_of_single_ones(mode, limit):
    """Rewards, ends and infos; of a task without draws all robots are alike."""
    count, rng = 3, np.random.default_rng(0)
    ours = gymnasium.make_vec(
        "BMTrack-G1-v0", num_envs=count, autoreset_mode=mode, max_episode_steps=limit, **STILL
    )
    theirs = SyncVectorEnv(
        [lambda: gymnasium.make("BMTrack-G1-v0", max_episode_steps=limit, **STILL)] * count,
        autoreset_mode=AutoresetMode[mode.upper()],
    )
    np.testing.assert_array_equal(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    ends = 0
    for _ in range(150):
        action = rng.normal(size=(count, 29)).astype(np.float32)
        a, b = ours.step(action), theirs.step(action)
        for mine, other in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(mine, other)
        ends += (a[2] | a[3]).sum()
        for name in ("clip", "frame", "critic_obs", *ours.unwrapped.task.reward_names):
            rows = np.stack(list(b[4][name]))
            if mode == "same_step" and name.startswith("reward"):  # theirs are the reset's
                rows = np.where(a[2] | a[3], a[4][name], rows)
            np.testing.assert_array_equal(a[4][name], rows)
            if mode == "next_step":
                assert a[4][f"_{name}"].all() and b[4][f"_{name}"].all()
        if mode == "same_step" and "final_obs" in a[4]:
            done = a[4]["_final_obs"]
            np.testing.assert_array_equal(done, b[4]["_final_obs"])
            last = np.stack(list(b[4]["final_obs"][done]))
            np.testing.assert_array_equal(a[4]["final_obs"][done], last)
    assert ends >= count, "premise: episodes end"


@pytest.mark.parametrize("name", ["BMTrack-G1-v0", "BMGuided-G1-Waypoint-v0"])
def test_max_episode_steps_truncates_and_says_so(name):
    env = gymnasium.make_vec(name, num_envs=4, max_episode_steps=5)
    env.reset(seed=0)
    for round_ in range(3):
        for step in range(1, 6):
            _, _, terminated, truncated, info = env.step(zeros(env))
            assert not terminated.any(), "premise: nobody falls in 0.1 s"
            assert truncated.all() == (step == 5) and truncated.any() == (step == 5)
        assert info["termination"].tolist() == ["time_limit"] * 4, round_
    assert env.spec.kwargs["max_episode_steps"] == 5


def test_the_earlier_of_two_limits_counts_and_failures_come_first():
    env = gymnasium.make_vec(
        "BMTrack-G1-v0", num_envs=2, max_episode_steps=7, episode_s=0.1, **STILL
    )
    env.reset(seed=0)
    ends = [step for step in range(1, 11) if env.step(zeros(env))[3].any()]
    assert ends == [5, 10]
    # A robot that falls in the very step is terminated, and not truncated.
    env = gymnasium.make_vec("BMTrack-G1-v0", num_envs=1, autoreset_mode="disabled", **STILL)
    env.reset(seed=0)
    fall = next(step for step in range(1, 500) if env.step(zeros(env))[2].any())
    env = gymnasium.make_vec("BMTrack-G1-v0", num_envs=1, max_episode_steps=fall, **STILL)
    env.reset(seed=0)
    for _ in range(fall):
        _, _, terminated, truncated, _ = env.step(zeros(env))
    assert terminated.all() and not truncated.any()


def test_a_saved_state_has_the_time_of_the_limit():
    envs = [TrackVectorEnv(2, max_episode_steps=6, **STILL) for _ in range(2)]
    envs[0].reset(seed=0)
    for _ in range(4):
        envs[0].step(zeros(envs[0]))
    envs[1].reset(seed=1)
    envs[1].set_state(envs[0].get_state())
    for expected in (False, True):
        assert all(env.step(zeros(env))[3].all() == expected for env in envs)
    old = envs[0].get_state()
    del old["elapsed"]  # as 0.1 wrote them
    envs[1].set_state(old)


# --- infos ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_infos_have_one_form_from_reset_to_the_end(name):
    """Same keys, kinds and shapes, all of them numbers: what recorders stack (Minari, TorchRL)."""
    form = lambda info: {  # noqa: E731
        key: (np.asarray(value).dtype.kind, np.shape(value)) for key, value in info.items()
    }
    env = gymnasium.make(name)
    _, info = env.reset(seed=0)
    first, done = form(info), False
    assert {kind for kind, _ in first.values()} <= set("biuf")
    assert info["termination"] == 0 and info["termination"] == "" and not info["termination"]
    names = env.unwrapped.task.reward_names
    assert names and [info[key] for key in names] == [0.0] * len(names)
    while not done:
        _, reward, terminated, truncated, info = env.step(zeros(env))
        assert form(info) == first
        assert reward == pytest.approx(sum(info[key] for key in names), abs=1e-5)
        done = terminated or truncated
    assert info["termination"] > 0 and info["termination"] in site_tables.CAUSES

    many = gymnasium.make_vec(name, num_envs=3)
    _, info = many.reset(seed=0)
    first = form(info)
    assert set(first) == {mark + key for key in form(env.reset()[1]) for mark in ("", "_")} - {
        "termination", "_termination"  # where an episode has ended
    }  # fmt: skip
    assert all(not info[key].any() and info[f"_{key}"].all() for key in names)
    assert form(many.step(zeros(many))[4]) == first


def test_the_clip_is_a_number_and_its_name_in_both_forms():
    clips = ["walk", "turn_left"]
    env = TrackEnv(clips)
    for number, name in enumerate(clips):
        _, info = env.reset(options={"clip": name})
        assert info["clip"] == number and info["clip"] == name and str(info["clip"]) == name
        assert isinstance(info["clip"], Named) and f"{info['clip']}" == name
        assert np.asarray(info["clip"]).dtype.kind == "i"
    vector = TrackVectorEnv(2, clips)
    _, info = vector.reset(options={"clip": [1, 0]})
    assert info["clip"].tolist() == [1, 0]


@pytest.mark.parametrize("name", IDS)
def test_classes_are_gymnasiums_by_their_bases(name):
    """skrl knows an environment by the direct bases of its class, and by nothing else."""
    for env in (gymnasium.make(name), gymnasium.make_vec(name, num_envs=1)):
        bases = [str(base) for base in type(env.unwrapped).__bases__]
        assert any(re.search("gymnasium", base) for base in bases), bases
        env.close()


# --- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_an_argument(preset):
    for make in (gymnasium.make, gymnasium.make_vec):
        env = make("BMTrack-G1-v0", motion="stand", preset=preset)
        assert env.unwrapped.config == TrackConfig.preset(preset)
        env.close()


def test_laptop_is_the_task_of_the_trainer_in_a_smaller_unit():
    sys.path.append(str(ROOT / "algos"))
    import ppo_track

    assert ppo_track.Config().task == laptop_task()
    laptop, task = TrackConfig.preset("laptop"), laptop_task()
    changed = {
        item.name for item in dataclasses.fields(task)
        if getattr(laptop, item.name) != getattr(task, item.name)
    }  # fmt: skip
    assert changed == {"rewards", "actuation"}
    np.testing.assert_allclose(laptop.actuation.action_scale, 0.4 * g1.ACTION_SCALE)
    assert laptop.rewards == dataclasses.replace(
        task.rewards, action_rate=laptop.rewards.action_rate
    )
    assert laptop.rewards.action_rate == pytest.approx(0.16 * task.rewards.action_rate)


@pytest.mark.parametrize("unit", [0.4, 0.25, 2.0])
def test_another_unit_of_action_is_the_same_task(unit):
    """An action a there is `unit * a` here: the same robot and rewards, but for rounding.

    0.25 and 2 are powers of two: nothing is rounded, all is equal.
    """
    base = TrackConfig.preset("clip").override({"rewards": {"action_accel": -0.01}})
    envs = [TrackEnv("walk", config=config) for config in (base, base.with_action_unit(unit))]
    first = [env.reset(seed=0)[0] for env in envs]
    np.testing.assert_array_equal(*first)
    rng = np.random.default_rng(0)
    exact = np.log2(unit) % 1 == 0
    for _ in range(10):  # rounding grows in a falling robot
        action = rng.normal(size=29).astype(np.float32)
        here, there = envs[0].step(np.float32(unit) * action), envs[1].step(action)
        tolerance = dict(rtol=0, atol=0) if exact else dict(rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(here[0][:131], there[0][:131], **tolerance)
        np.testing.assert_allclose(here[0][131:], unit * there[0][131:], rtol=1e-6)
        np.testing.assert_allclose(here[1], there[1], rtol=1e-4, atol=1e-6)


def test_noise_of_size_one_costs_less_than_tracking_pays():
    """Of white noise z a step costs 0.1 * 0.02 * 29 * E (z - z')^2 = 0.116; of 0.4 z a sixth."""
    cost, paid = {}, {}
    for preset in ("train", "laptop"):
        env = gymnasium.make_vec("BMTrack-G1-v0", num_envs=64, motion="walk", preset=preset)
        env.reset(seed=0)
        rng, rates, totals = np.random.default_rng(0), [], []
        for _ in range(40):
            action = rng.normal(size=(64, 29)).astype(np.float32)
            _, reward, *_, info = env.step(action)
            rates.append(info["reward_action_rate"].mean())
            totals.append(reward.mean())
        cost[preset], paid[preset] = np.mean(rates), np.mean(totals)
    # The first step of an episode has half the change; the mean of 2560 x 29 squares is within 2 %.
    assert cost["train"] == pytest.approx(-0.116, rel=0.05)
    assert cost["laptop"] == pytest.approx(0.16 * -0.116, rel=0.05)
    assert paid["train"] < 0 < paid["laptop"]


# --- wrappers ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "RecordVideo"))  # it draws
    for name in gymnasium.wrappers.vector.__all__
])  # fmt: skip
def test_gymnasiums_wrappers_do_what_the_table_says(name):
    rows = [
        re.findall(r"\| `?([^|`]*?)`? (?=\|)", line) for line in site_tables.wrappers().split("\n")
    ]
    by_mode = dict(
        zip(("same_step", "next_step"), {row[0]: row[1:] for row in rows}[name], strict=True)
    )
    if name in site_tables.NOT_FOR_US:
        return
    assert by_mode["next_step"] == "yes"
    for mode, says in by_mode.items():
        if says != "yes":
            with pytest.raises(ValueError, match="autoreset_mode"):
                site_tables.wrapped(name, mode)
            continue
        env = site_tables.wrapped(name, mode)
        env.reset(seed=0)
        ends = 0
        for _ in range(12):  # an episode has 10 steps
            _, _, terminated, truncated, _ = env.step(zeros(env))
            ends += np.any(terminated | truncated)
        assert ends, "premise: an episode ends"
        env.close()


# --- the bound of what an action costs -----------------------------------------------------------

WITHIN = arrays(np.float32, (2, 29), elements=st.floats(-100, 100, width=32))
BEYOND = arrays(
    np.float32, (2, 29), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
)


@settings(max_examples=100, deadline=None)
@given(action=WITHIN, last=WITHIN, older=WITHIN)
def test_actions_within_the_bound_cost_what_they_always_did(action, last, older):
    """Bit for bit, by the formulas of 0.1."""
    change = action - last
    np.testing.assert_array_equal(rewards.action_rate(action, last), rewards.dot(change, change))
    second = change - (last - older)
    np.testing.assert_array_equal(
        rewards.action_accel(action, last, older), rewards.dot(second, second)
    )


@settings(max_examples=100, deadline=None)
@given(action=BEYOND, last=BEYOND, older=BEYOND)
def test_no_action_costs_more_than_those_at_the_bound(action, last, older):
    torch = pytest.importorskip("torch")
    most = 29 * (2 * rewards.ACTION_BOUND) ** 2
    rate, accel = rewards.action_rate(action, last), rewards.action_accel(action, last, older)
    assert (rate <= most).all() and (
        accel <= 4 * most
    ).all()  # sums of exact or rounded-down squares
    tensors = [torch.from_numpy(x.copy()) for x in (action, last, older)]
    # Sums of 29 terms in another order: 29 roundings of float32.
    np.testing.assert_allclose(rewards.action_rate(*tensors[:2]), rate, rtol=29 * 1.2e-7)
    np.testing.assert_allclose(rewards.action_accel(*tensors), accel, rtol=29 * 1.2e-7)


@pytest.mark.parametrize("compiled", [True, False])
def test_any_finite_action_is_applied_and_its_reward_is_bounded(compiled, monkeypatch, capfd):
    if compiled and native.library() is None:
        pytest.skip("the library was not compiled: no C compiler")
    if not compiled:
        for module in (native, kernel):
            monkeypatch.setattr(module, "library", lambda: None)
    found = {}
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (30, 8, 29))
    # Action rate, joints beyond their ranges, and contacts with all links.
    least = -0.002 * 29 * 200**2 - 0.2 * 29 * rewards.LIMIT_BOUND - 0.002 * 30
    for size in (100.0, 1e4, 1e10, 3e38):
        env = TrackVectorEnv(8, "walk", preset="clip", autoreset_mode="disabled")
        env.reset(seed=0)
        found[size] = []
        for sign in signs:
            action = (size * sign).astype(np.float32)
            _, reward, *_, info = env.step(action)
            assert np.isfinite(reward).all() and reward.min() >= least
            assert np.array_equal(info["critic_obs"][:, -29:], action)
            found[size].append(reward)
    # The drives are at their torque limits: all targets on one side are alike, and none of them is
    # taken for an error, as MuJoCo does with those over 1e10. (The first steps: soon after, physics
    # go to pieces, and the last digits of what the limits leave are no longer the same.)
    for size in (1e4, 1e10, 3e38):
        np.testing.assert_allclose(found[size][:3], found[100.0][:3], rtol=1e-6)
    assert min(reward.min() for reward in found[1e10]) < -500
    assert "CTRL" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["BMTrack-G1-v0", "BMGuided-G1-Joystick-v0"])
def test_an_action_that_is_no_number_is_refused(name, value):
    for env in (gymnasium.make(name), gymnasium.make_vec(name, num_envs=2)):
        env.reset(seed=0)
        action = zeros(env)
        action.flat[3] = value
        with pytest.raises(ConfigError, match=r"^action\[.*3\] is not finite, expected finite"):
            env.unwrapped.step(action)
        env.step(zeros(env))
        for bad in ("left", None, {"a": 1}, [1.0], np.zeros((2, 30))):
            with pytest.raises(ConfigError, match="^action "):
                env.unwrapped.step(bad)


# --- after close, and refusals -------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_after_close_there_is_one_sentence(name):
    for env in (gymnasium.make(name), gymnasium.make_vec(name, num_envs=2)):
        env.reset(seed=0)
        env.close()
        env.close()
        for call, arguments in (("reset", ()), ("step", (zeros(env),)), ("render", ())):
            with pytest.raises(gymnasium.error.ClosedEnvironmentError) as caught:
                getattr(env.unwrapped, call)(*arguments)
            assert isinstance(caught.value, BMError)
            assert str(caught.value) == (
                f"{call}() was called after close(), make the environment anew."
            )
    with pytest.raises(ConfigError, match=r"^get_state\(\) was called after close"):
        env.unwrapped.get_state()
    with pytest.raises(ConfigError, match=r"^The simulator was closed"):
        env.unwrapped.simulator.step(np.zeros((2, 29)))


BAD = {
    "num_envs": (0, -1, 1.5, "4", None, True, [2], float("nan")),
    "backend": (None, 3, "mujoko"), "preset": (None, 3, "trian"),
    "overrides": (3, "pushes", [1], {"pushes": "no"}, {"pushes": 1}, {"model": None}, {3: 1},
                  {"rewards": {"body_pos": "much"}}, {"rewards": {"body_pos": float("nan")}},
                  {"rewards": 1.0}, {"reset": {"pos": (1, 2)}}, {"reset": {"pos": "abc"}},
                  {"observations": 3}, {"decimation": 2.0}, {"actuation": {"stiffness": [1, "a"]}},
                  {"model": {"mesh_dir": 5}}, {"push": {"interval_s": (3, 1)}},
                  {"noise_levels": {}}, {"episode_s": float("inf")}),
    "config": ("train", 3, {"pushes": False}, WaypointConfig()),
    "episode_s": ("long", -1, 0, float("nan"), [3], True, float("inf")),
    "state_estimation": (1, "no", None), "critic": (None, 3, "all", ["info"]),
    "motion": (3, None, 1.5, {"walk": 1}, [3], ["walk", None], [], b"walk", "wakl"),
    "threads": (-1, 1.5, "all", None), "width": (0, "wide", 1.5), "height": (-3, None),
    "camera": (3, ["track"]), "ghost": ("yes", 1), "render_mode": (3, "gif", ["human"]),
    "autoreset_mode": (None, 3, "never"), "max_episode_steps": (0, -1, 1.5, "10"),
    "no_such_argument": (1,), "num_env": (4,), "seed": (1,),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("env", [TrackEnv, TrackVectorEnv])
def test_arguments_of_the_wrong_kind_are_one_sentence(env, name):
    if name in ("num_envs", "autoreset_mode", "max_episode_steps") and env is TrackEnv:
        pytest.skip("of the vector form")
    for value in BAD[name]:
        with pytest.raises(BMError) as caught:
            env(**{name: value})
        text = str(caught.value)
        assert "\n" not in text and len(text) < 400, text
        shown = {"overrides": "", "motion": "otion", "num_env": "num_env'; did you mean 'num_envs'"}
        assert shown.get(name, name) in text or env is TrackEnv, text


@pytest.mark.parametrize("env", [GuidedEnv, GuidedVectorEnv])
@pytest.mark.parametrize(
    "arguments",
    [
        {"task": 3}, {"task": None}, {"task": "runing"}, {"fall": 3}, {"fall": "soft"},
        {"episode_s": "long"}, {"episode_s": None}, {"warm_up_s": -1}, {"warm_up_s": [1]},
        {"overrides": 3}, {"overrides": {"rewards": {"alive": "much"}}}, {"overrides": {"x": 1}},
        {"overrides": {"rewards": None}}, {"overrides": {"model": 3}}, {"config": "x"},
        {"config": TrackConfig()}, {"camera": 3}, {"threads": 1.5}, {"nothing": 1},
        {"backend": None}, {"overrides": {"start_motions": 3}}, {"overrides": {"actuation": 1}},
    ],
)  # fmt: skip
def test_arguments_of_guided_tasks_are_one_sentence(env, arguments):
    with pytest.raises(BMError) as caught:
        env(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [3, "walk", [1], {"frame": "a"}, {"frame": 1.5}, {"frame": None, "phase": "x"}, {"clip": 1.5},
     {"clip": ["walk"]}, {"clip": {}}, {"phase": float("nan")}, {"frame": [[1]]}, {"nothing": 1}],
)  # fmt: skip
def test_options_of_the_wrong_kind_are_one_sentence(options):
    for env in (TrackEnv("stand"), TrackVectorEnv(2, "stand")):
        with pytest.raises(ConfigError) as caught:
            env.reset(options=options)
        assert "\n" not in str(caught.value)
        env.reset(seed=0)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_makers_pass_the_sentence_on(make):
    with pytest.raises(ConfigError, match=r"\. Unknown argument 'motoin'; did you mean 'motion'\?"):
        make("BMTrack-G1-v0", motoin="walk")


# --- what environments share ---------------------------------------------------------------------


def test_environments_share_what_never_changes_and_nothing_else():
    first, second = TrackEnv("walk"), TrackEnv("walk")
    task, other = first.task, second.task
    assert task.clips[0] is other.clips[0] and task.tables.reference is other.tables.reference
    for table in (task.tables.reference, task.clips[0].joint_pos):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0
    # Another lead is the same table, and a cut of a clip another clip.
    third = TrackEnv("walk", overrides={"lead": 0})
    assert third.task.tables.reference is task.tables.reference
    assert len(TrackEnv("walk[0:2]").task.tables.reference) < len(task.tables.reference)
    # Models are each one's own.
    models = [mjcf.compile_model() for _ in range(2)]
    models[0].opt.gravity[:] = 0
    assert models[1].opt.gravity[2] == -9.81 and mjcf.compile_model().opt.gravity[2] == -9.81
    assert first.simulator.model is not second.simulator.model


def test_a_thing_made_of_a_clip_goes_with_it():
    """The tables of a user's own clip are not kept when nobody has it any more."""
    import gc
    import weakref

    from bm_envs.motion.library import load_motion

    clip = load_motion("walk").cut(0.0, 3.0)
    gone = weakref.ref(clip)
    env = TrackEnv(clip)
    env.close()
    del clip, env
    gc.collect()
    assert gone() is None


def test_no_flags_are_read_to_make_an_environment():
    """What only commands need is not imported: tyro takes longer than all the rest."""
    import subprocess

    code = "import sys, bm_envs.envs; print([n for n in ('tyro', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_vector_only_arguments_are_told():
    signature = inspect.signature(TrackVectorEnv).parameters
    assert {"num_envs", "autoreset_mode", "max_episode_steps"} <= set(signature)
