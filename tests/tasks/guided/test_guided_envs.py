"""The guided environments: Gymnasium's contract, and when a trial has succeeded or failed.

Where success is tested the physics are taken out: a robot is put into a written state after every
step (`puppet`), so that every expected number follows by hand from what was written.
"""

import dataclasses
import itertools
import json
import pickle
import re
import shutil
import subprocess
import sys
import warnings

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from scipy.spatial.transform import Rotation

import bm_envs  # noqa: F401 (registers the ids)
from bm_envs.backends.base import full_state
from bm_envs.envs import GuidedEnv, GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import BMError, ConfigError, MotionError
from bm_envs.motion.library import load_motions
from bm_envs.policy import load_policy
from bm_envs.robots import g1, mjcf
from bm_envs.tasks.guided import obstacles, rewards
from bm_envs.tasks.guided.config import (
    CONFIGS,
    CompositionConfig,
    JoystickConfig,
    ObstacleConfig,
    WaypointConfig,
)
from bm_envs.tasks.guided.observations import TERMS, features, history_states, layout
from bm_envs.tasks.guided.starts import moving_frames
from bm_envs.tasks.guided.states import REPRESENTATIONS, representation, states_of
from bm_envs.tasks.guided.tasks import missing_entries

# Ids and tasks are the code's, so that these tests see a new one, too.
IDS = {
    spec.id: spec.kwargs["task"]
    for spec in gymnasium.registry.values()
    if spec.id.startswith("BMGuided-G1-")
}
SIZES = {
    "walk_perturb": 309, "joystick": 312, "run": 312, "waypoint": 312, "obstacle": 321, "tour": 330,
}  # fmt: skip
NAMES = list(IDS.values())
ALL = list(CONFIGS)
# Infinite observation bounds and an action range beyond [-1, 1] are by design.
EXPECTED = ("minimum value is -infinity", "maximum value is infinity", "symmetric and normalized")
EPS = float(np.finfo(np.float32).eps)  # what simulators give is float32
POSE = g1.POSES["KNEES_BENT"]


def standing(x=0.0, y=0.0, yaw=0.0, height=0.76, forward=0.0, left=0.0, pitch=0.0, turning=0.0):
    """`qpos [36]`, `qvel [35]` of the default pose; velocities in the own heading, m/s."""
    quat = Rotation.from_euler("ZY", [yaw, pitch]).as_quat()[[3, 0, 1, 2]]
    velocity = Rotation.from_euler("z", yaw).apply([forward, left, 0.0])
    spin = Rotation.from_euler("y", pitch).inv().apply([0.0, 0.0, turning])
    return (
        np.array([x, y, height, *quat, *POSE.joint_pos()]),
        np.array([*velocity, *spin, *np.zeros(29)]),
    )


def states(*robots):
    """`qpos [N, 36]`, `qvel [N, 35]`, one `standing` robot for each mapping."""
    return tuple(np.stack(values) for values in zip(*(standing(**r) for r in robots), strict=True))


def puppet(env, place):
    """In place of physics, the state after step k = 1, 2, ... is `place(k)`: `qpos`, `qvel`."""
    task = env.unwrapped.task
    count = itertools.count(1)

    def step(action):
        task.robots.action[:] = action
        task.simulator.reset(np.arange(task.num_envs), *place(next(count)))

    task.robots.step = step
    return env


def still(env):
    """Zero actions for every robot of an environment."""
    return np.zeros(env.action_space.shape, np.float32)


def noise(rng, *shape):
    return rng.normal(size=(*shape, 29)).astype(np.float32)


def same(first, second, path=""):
    """Exactly equal, member by member."""
    if isinstance(first, dict):
        assert list(first) == list(second), path
        for name in first:
            same(first[name], second[name], f"{path}/{name}")
    else:
        np.testing.assert_array_equal(first, second, path)


# --- Gymnasium's contract -------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_check_env_warns_of_nothing_but_the_declared_bounds(env_id):
    env = gymnasium.make(env_id)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
    odd = [str(w.message) for w in seen if not any(part in str(w.message) for part in EXPECTED)]
    assert not odd


def test_every_task_has_an_id():
    """Composition has none: it is a benchmark of several skills, not a task to train for."""
    missing = set(ALL) - set(NAMES) - {"composition"}
    assert not missing, f"no id of {missing} in _IDS of bm_envs/__init__.py"
    assert IDS["BMGuided-G1-Joystick-v0"] == "joystick" and len(NAMES) >= 4, "premise"


def test_every_table_of_tasks_has_every_task():
    assert not missing_entries({"first": ["walk", "run"], "second": ["run", "walk"]})
    found = missing_entries({"first": ["walk"], "second": ["run"], "third": ["walk", "run"]})
    assert found == (
        "The guided task 'run' has no entry in first. The guided task 'walk' has no entry in "
        "second."
    )


@pytest.mark.parametrize("task", ALL)
def test_a_saved_state_has_every_array_of_the_robots(task):
    """What has a row for each robot stands in `STATE`, or a saved environment goes on otherwise."""
    n = 11  # the length of nothing else
    own = GuidedVectorEnv(n, task).task
    arrays = {
        name
        for name, value in vars(own).items()
        if isinstance(value, np.ndarray) and value.shape[:1] == (n,)
    }
    assert "clock" in arrays
    assert not arrays - set(own.STATE), "arrays of the task that its STATE lacks"


@pytest.mark.parametrize(("env_id", "task"), IDS.items())
def test_spaces_and_layout(env_id, task):
    size = SIZES.get(task, sum(term.size for term in TERMS[task]))
    env = gymnasium.make(env_id, backend="mujoco")
    assert env.observation_space.shape == (size,)
    assert env.action_space == gymnasium.spaces.Box(-10, 10, (29,), np.float32)
    assert env.spec.max_episode_steps is None
    obs, _ = env.reset(seed=0)
    assert obs.dtype == np.float32 and env.observation_space.contains(obs)
    places = env.unwrapped.task.observation_layout
    assert places == layout(TERMS[task])
    ends = [place.stop for place in places.values()]
    assert [place.start for place in places.values()] == [0, *ends[:-1]] and ends[-1] == size
    vector = gymnasium.make_vec(env_id, num_envs=3)
    assert vector.single_observation_space == env.observation_space
    assert vector.observation_space.shape == (3, size)
    assert vector.single_action_space == env.action_space
    assert vector.reset(seed=0)[0].shape == (3, size)


def test_the_class_text_shows_the_layout_of_the_code():
    """Its tables are prose; index, name, meaning, frame and unit of each row are the code's."""
    found = re.findall(r"\| (\d+:\d+) \| (\w+): (.*) \| (.*) \| (.*) \|\n", GuidedEnv.__doc__)
    expected = []
    for task in ("joystick", "obstacle", "tour"):  # which have all rows, in the order of the text
        assert task == "tour" or set(TERMS[task]) <= set(TERMS["composition"])
        places = layout(TERMS[task])
        for term in TERMS[task]:
            place = places[term.name]
            row = (f"{place.start}:{place.stop}", term.name, term.meaning, term.frame, term.unit)
            if row not in expected:
                expected.append(row)
    assert found == expected
    for task in ("walk_perturb", "waypoint"):  # and the others begin as those do
        whole = layout(TERMS["obstacle"])
        assert layout(TERMS[task]).items() <= whole.items()


def test_config_and_class_text_agree_on_the_protocol():
    """Figures of the published protocol, and of ours where it has none, typed here once more."""
    config = JoystickConfig()
    assert config.commands == ((0.6, 0, 0), (-0.3, 0, 0), (0.4, 0, 0.5), (0.4, 0, -0.5))
    assert (config.episode_s, config.segment_s, config.judged_s) == (12.0, 3.0, 1.5)
    assert config.least_speed_share * 0.6 == 0.3 and config.least_speed_share * 0.3 == 0.15
    turn = config.least_turn_share * 0.5 * 3.0
    assert np.degrees(turn) == pytest.approx(25.0, rel=1e-12)  # a division and a product
    walk = GuidedEnv("walk_perturb").config
    assert (walk.episode_s, walk.push_speed, walk.push_interval_s) == (15.0, (0.0, 0.5), 1.0)
    goal = WaypointConfig()
    assert (goal.goal_distance, goal.goal_radius, goal.goal_speed) == ((2.0, 5.0), 0.3, 0.2)
    assert ObstacleConfig().obstacle_count == (1, 5)
    assert ObstacleConfig().obstacle_radius == (0.15, 0.3)


@pytest.mark.parametrize("task", ALL)
def test_one_robot_is_the_vector_of_one(task):
    """Bit for bit, draws and all: the same calls in the same order."""
    single, vector = GuidedEnv(task), GuidedVectorEnv(1, task, autoreset_mode="disabled")
    rng = np.random.default_rng(0)
    (obs, info), (rows, infos) = single.reset(seed=4), vector.reset(seed=4)
    ended = 0
    for _ in range(160):
        assert np.array_equal(obs, rows[0])
        for name, value in info.items():
            if name != "termination":  # which Gymnasium leaves out where nothing ended
                np.testing.assert_array_equal(value, infos[name][0], name)
                assert infos[f"_{name}"].all()
        action = noise(rng)
        obs, reward, terminated, truncated, info = single.step(action)
        rows, rewards_, *ends, infos = vector.step(action[None])
        assert (reward, terminated, truncated) == (rewards_[0], ends[0][0], ends[1][0])
        if terminated or truncated:
            ended += 1
            assert info["termination"] == infos["termination"][0] == "fall"
            (obs, info), (rows, infos) = single.reset(), vector.reset()
    assert ended  # resets were part of it


def test_a_row_of_the_vector_is_a_single_robot():
    """The same start and actions in a batch of three: physics alike to the bit.

    Observations are NumPy arithmetic, which may round otherwise where rows lie otherwise in memory;
    what is shown is at most 64 (joint velocities, rad/s), hence some steps of its float32 spacing.
    """
    starts = states({"x": 1.0, "forward": 0.3}, {"yaw": 2.0}, {"y": -3.0, "left": 0.2})
    goals = np.array([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    options = {"qpos": starts[0], "qvel": starts[1], "goal": goals}
    vector = GuidedVectorEnv(3, "waypoint", autoreset_mode="disabled")
    rows, _ = vector.reset(seed=0, options=options)
    singles = [GuidedEnv("waypoint") for _ in range(3)]
    own = [
        env.reset(seed=i, options={name: value[i] for name, value in options.items()})[0]
        for i, env in enumerate(singles)
    ]
    rng = np.random.default_rng(0)
    for _ in range(25):
        np.testing.assert_allclose(rows, own, rtol=0, atol=64 * 4 * EPS)
        action = 0.3 * noise(rng, 3)
        rows, reward, *_, infos = vector.step(action)
        results = [env.step(row) for env, row in zip(singles, action, strict=True)]
        own = [result[0] for result in results]
        for i, env in enumerate(singles):
            for mine, theirs in zip(
                full_state(env.simulator), full_state(vector.simulator), strict=True
            ):
                assert np.array_equal(mine[0], theirs[i])
            # Rewards and distances are sums of a few terms of 5 at most.
            assert results[i][1] == pytest.approx(reward[i], abs=16 * EPS)
            assert results[i][4]["distance"] == pytest.approx(infos["distance"][i], abs=16 * EPS)


@pytest.mark.parametrize("task", ALL)
def test_seeds(task):
    envs = [GuidedVectorEnv(4, task) for _ in range(3)]
    starts = [env.reset(seed=seed) for env, seed in zip(envs, (1, 1, 2), strict=True)]
    same(starts[0][0], starts[1][0])
    assert not np.array_equal(starts[0][0], starts[2][0])
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(120):
        action = noise(rng, 4)
        first, second = envs[0].step(action), envs[1].step(action)
        for a, b in zip(first, second, strict=True):
            same(a, b)
        ended += (first[2] | first[3]).sum()
    assert ended > 4  # resets, and what they draw, were part of it
    # Without a seed the generator goes on: another episode.
    assert not np.array_equal(envs[0].reset()[0], starts[0][0])
    same(envs[0].reset(seed=1)[0], starts[0][0])


@pytest.mark.parametrize("task", ALL)
def test_a_list_of_seeds_makes_each_robot_a_single_environment(task):
    """What is drawn for one, episode after episode, whatever its place and its company."""
    seeds = [11, 5, 7]
    short = {"command_s": (0.3,) * 4, "judged_s": 0.1, "episode_s": 1.6, "push_interval_s": 0.2}
    overrides = {"composition": short, "joystick": {"random": True}}.get(task, {})
    vector = GuidedVectorEnv(3, task, autoreset_mode="disabled", overrides=overrides)
    singles = [GuidedEnv(task, overrides=overrides) for _ in seeds]
    rng = np.random.default_rng(0)
    drawn = ("qpos", "push_velocity", "commands", "goal", "obstacles", "count", "run", "waypoints")

    def draws(env, row):
        names = [name for name in drawn if hasattr(env.task, name)]
        found = {name: getattr(env.task, name)[row] for name in names}
        return found | {"state": full_state(env.simulator)[0][row]}

    ended = 0
    for episode in range(2):
        vector.reset(seed=seeds if episode == 0 else None)
        for env, seed in zip(singles, seeds, strict=True):
            env.reset(seed=seed if episode == 0 else None)
        for _ in range(70):
            for row, env in enumerate(singles):
                same(draws(env, 0), draws(vector, row))
            action = (0.1 if task == "composition" else 0.3) * noise(rng, 3)
            vector.step(action)
            for env, one in zip(singles, action, strict=True):
                env.step(one)
        ended += np.isfinite(draws(vector, 0)["state"]).all()
    assert ended == 2
    if task == "composition":
        assert vector.task.count.any()  # the way was part of it


def test_seeds_of_robots_that_are_not_reset_stay():
    envs = [GuidedVectorEnv(2, "walk_perturb", autoreset_mode="disabled") for _ in range(2)]
    for env in envs:
        env.reset(seed=[1, 2])
    envs[1].reset(seed=[1, 9], options={"reset_mask": np.array([True, False])})
    for env in envs:
        env.reset(options={"reset_mask": np.array([False, True])})
    same(*(full_state(env.simulator)[0][1] for env in envs))
    # The generators are part of the state, and one seed makes it one generator again.
    state = pickle.loads(pickle.dumps(envs[0].get_state()))
    other = GuidedVectorEnv(2, "walk_perturb", autoreset_mode="disabled")
    other.set_state(state)
    same(envs[0].reset()[0], other.reset()[0])
    plain = GuidedVectorEnv(2, "walk_perturb", autoreset_mode="disabled")
    same(plain.reset(seed=3)[0], other.reset(seed=3)[0])
    same(plain.reset()[0], other.reset()[0])


def test_bad_lists_of_seeds_are_refused_in_one_sentence():
    env = GuidedVectorEnv(2, "walk_perturb")
    for seed, text in (
        ([1], "seed is a list of 1, expected one integer or 2."),
        ([1, -1], "seed[1] is -1, expected an integer of 0 or more."),
        ([1, 0.5], "seed[1] is 0.5, expected an integer of 0 or more."),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
            env.reset(seed=seed)
    with pytest.raises(ConfigError, match="^seed must be one integer: the batch has one generato"):
        TrackVectorEnv(2).reset(seed=[1, 2])


def test_threads_do_not_change_a_bit():
    envs = [GuidedVectorEnv(4, "obstacle", threads=threads) for threads in (1, 2)]
    rng = np.random.default_rng(0)
    for env in envs:
        env.reset(seed=0)
    for _ in range(60):
        action = noise(rng, 4)
        for a, b in zip(*(env.step(action) for env in envs), strict=True):
            same(a, b)


@pytest.mark.parametrize("env_id", IDS)
def test_spec_round_trip(env_id):
    env = gymnasium.make(env_id, fall="head", overrides={"rewards": {"alive": 0.1}, "warm_up_s": 1})
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.config == env.unwrapped.config
    assert again.unwrapped.config.fall == "head"
    same(env.reset(seed=0)[0], again.reset(seed=0)[0])


def test_observations_do_not_share_memory_and_none_is_constant():
    env = GuidedVectorEnv(16, "obstacle")
    rng = np.random.default_rng(0)
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for _ in range(60):
        kept.append(env.step(noise(rng, 16))[0])
        copies.append(kept[-1].copy())
    same(np.array(kept), np.array(copies))
    spread = np.ptp(np.concatenate(copies), 0)
    constant = np.flatnonzero(spread == 0)
    # By definition of the now frame: x and y of the present root.
    place = env.task.observation_layout["root_pos"]
    assert constant.tolist() == [place.start + 9, place.start + 10]


# --- autoreset, saved states ----------------------------------------------------------------------


def test_same_step_autoreset_returns_the_new_and_keeps_the_last():
    env = GuidedVectorEnv(3, "walk_perturb", overrides={"episode_s": 0.1})
    puppet(env, lambda k: states({}, {"height": 0.39 if k == 2 else 0.76}, {}))
    env.reset(seed=0)
    ends = []
    for k in range(1, 8):
        obs, _, terminated, truncated, info = env.step(still(env))
        done = terminated | truncated
        ends.append((terminated.tolist(), truncated.tolist()))
        if not done.any():
            assert "final_obs" not in info and "termination" not in info
            continue
        last = info["final_info"]
        assert np.array_equal(info["_final_obs"], done) and np.array_equal(last["_success"], done)
        assert np.array_equal(info["time_s"] == 0, done)  # a fresh episode
        np.testing.assert_allclose(last["time_s"][done], 0.02 * (2 if k == 2 else 5))
        assert last["success"][done].tolist() == truncated[done].tolist()
        assert not info["success"].any()  # belongs to the state returned
        assert info["termination"].tolist() == [
            "fall" if a else "time_limit" if b else ""
            for a, b in zip(terminated, truncated, strict=True)
        ]
        height = env.task.observation_layout["root_pos"].stop - 1  # at the present step
        fallen = 0.39 if k == 2 else 0.76
        np.testing.assert_allclose(info["final_obs"][done, height], fallen, rtol=EPS)
        assert (obs[done, height] != info["final_obs"][done, height]).all()
        assert not info["final_obs"][~done].any()
    no = [False] * 3
    # Robot 1 falls in step 2; the others' time is over after 5 steps, its own 5 steps after 2.
    assert ends == [
        (no, no), ([False, True, False], no), (no, no), (no, no),
        (no, [True, False, True]), (no, no), (no, [False, True, False]),
    ]  # fmt: skip


def test_next_step_autoreset_spends_one_step_on_the_reset():
    env = GuidedVectorEnv(2, "joystick", autoreset_mode="next_step", overrides=SHORT)
    puppet(env, lambda k: states({}, {"pitch": 1.1 if k == 2 else 0.0}))  # 63 degrees
    env.reset(seed=0)
    history = [env.step(still(env)) for _ in range(3)]
    assert history[1][2].tolist() == [False, True]
    _, reward, terminated, truncated, info = history[2]
    assert not terminated.any() and not truncated.any()
    assert reward[1] == 0 < reward[0]
    np.testing.assert_allclose(info["time_s"], [0.06, 0.0])
    assert not info["fell_strict"].any()


SHORT = {"episode_s": 0.2, "segment_s": 0.1, "judged_s": 0.04}


def test_disabled_autoreset_keeps_what_the_end_brought_until_the_mask():
    env = GuidedVectorEnv(3, "waypoint", autoreset_mode="disabled", episode_s=0.1)

    # Robot 0 arrives, and falls after its time; robot 1 falls in time; robot 2 comes too late.
    def place(k):
        return states(
            {"x": 2.0, "height": 0.3 if k > 5 else 0.76}, {"height": 0.3 if k == 3 else 0.76},
            {"x": 2.0 if k > 5 else 0.0},
        )  # fmt: skip

    puppet(env, place)
    env.reset(seed=0, options={"qpos": states({})[0][0], "goal": [2.0, 0.0]})
    for _ in range(8):
        *_, terminated, truncated, info = env.step(still(env))
    assert terminated.tolist() == [False, True, False]
    assert truncated.tolist() == [True, False, True]
    assert info["success"].tolist() == [True, False, False]
    assert info["fell_strict"].tolist() == [False, True, False]
    np.testing.assert_allclose(info["time_s"], [0.1, 0.06, 0.1])
    np.testing.assert_array_equal(info["arrived_s"], [0.02, np.inf, np.inf])
    assert info["pelvis_height"][0] == np.float32(0.3)  # of now, not of the end
    env.reset(options={"reset_mask": np.array([True, False, False])})
    *_, terminated, truncated, info = env.step(still(env))
    assert terminated.tolist() == [True, True, False]  # the puppet lies there still
    np.testing.assert_allclose(info["time_s"], [0.02, 0.06, 0.1])
    for bad in (np.zeros(3, bool), np.ones(2, bool), np.ones(3)):
        with pytest.raises(ConfigError, match="reset_mask"):
            env.reset(options={"reset_mask": bad})


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_state_round_trip_continues_bit_for_bit(task, mode):
    arguments = dict(autoreset_mode=mode, warm_up_s=0.1, overrides={"action_delay": 1})
    env = GuidedVectorEnv(4, task, **arguments)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = noise(rng, 160, 4)
    for action in actions[:60]:
        env.step(action)
    state = pickle.loads(pickle.dumps(env.get_state()))
    first = [env.step(action) for action in actions[60:]]
    other = GuidedVectorEnv(4, task, **arguments)
    other.reset(seed=9)
    other.set_state(state)
    second = [other.step(action) for action in actions[60:]]
    assert sum(step[2].sum() for step in first) > 2  # resets were part of it
    for a, b in zip(first, second, strict=True):
        same(dict(enumerate(a)), dict(enumerate(b)))


def test_a_push_that_is_pending_is_part_of_the_state():
    """It is drawn one step before it comes: here by the reset."""
    envs = [GuidedVectorEnv(2, "walk_perturb") for _ in range(2)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    envs[1].set_state(envs[0].get_state())
    first, second = (env.step(still(env))[4]["push_velocity"] for env in envs)
    assert first.all() and np.array_equal(first, second)


def test_a_state_of_another_size_is_refused():
    state = GuidedVectorEnv(2, "joystick").task.get_state()
    with pytest.raises(ConfigError, match=re.escape("has clock of shape (2,), expected (3,).")):
        GuidedVectorEnv(3, "joystick").task.set_state(state)


def test_a_diverged_robot_is_reported_although_it_is_reset_at_once():
    env = GuidedVectorEnv(3, "obstacle")
    env.reset(seed=0)
    env.simulator.push(np.array([1]), np.full((1, 3), 1e30), np.zeros((1, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        obs, reward, terminated, _, info = env.step(still(env))
    assert terminated.tolist() == [False, True, False]
    assert info["termination"].tolist() == ["", "diverged", ""]
    assert np.isfinite(obs).all() and np.isfinite(info["final_obs"]).all()
    assert reward[1] == 0 and info["final_info"]["fell_head"][1]
    assert not env.simulator.diverged().any()  # the reset healed it


# --- robot, start, observation --------------------------------------------------------------------


@pytest.mark.parametrize("fall", ["strict", "head"])
def test_the_robot_is_that_of_tracking(fall):
    """One state, one action, 5 control steps: the same place to the bit."""
    track = TrackVectorEnv(2, "walk", preset="clip")
    track.reset(seed=0, options={"frame": 300})
    qpos, qvel = full_state(track.simulator)
    env = GuidedVectorEnv(2, "joystick", fall=fall)
    env.reset(seed=0, options={"qpos": qpos, "qvel": qvel})
    rng = np.random.default_rng(0)
    # Each engine begins in float32 numbers and with nothing of an earlier step.
    track.simulator.reset(np.arange(2), qpos, qvel)
    for _ in range(5):
        action = noise(rng, 2)
        track.step(action)
        env.step(action)
        same(full_state(env.simulator)[0], full_state(track.simulator)[0])


def test_starts_are_moving_frames_of_the_walks():
    env = GuidedVectorEnv(400, "walk_perturb")
    env.reset(seed=0)
    qpos, qvel = full_state(env.simulator)
    assert not qpos[:, :2].any()
    clips = [load_motions(name)[0] for name in ("walk", "walk_back", "turn_left", "turn_right")]
    frames = np.concatenate([clip.joint_pos for clip in clips]).astype(np.float32)
    # Which frame a robot stands in, by all its joints: an exact copy of one.
    distance = np.abs(frames[None] - qpos[:, None, 7:]).max(-1)
    assert (distance.min(1) <= 2 * EPS).all()  # joint angles of 2 rad at most, through float64
    # A second each way, the root is somewhere else or faces elsewhere: from the clips themselves.
    starts = np.concatenate([[0], np.cumsum([clip.num_frames for clip in clips])])
    number = distance.argmin(1)
    which = np.searchsorted(starts, number, "right") - 1
    assert set(which.tolist()) == {0, 1, 2, 3}
    for clip, first in zip(clips, starts, strict=False):
        own = number[(number >= first) & (number < first + clip.num_frames)] - first
        pos = clip.body_pos_w[:, 0, :2]
        way = np.linalg.norm(pos[own + 25] - pos[own - 25], axis=1)
        turn = [
            (Rotation.from_quat(clip.body_quat_w[f + 25, 0, [1, 2, 3, 0]])
             * Rotation.from_quat(clip.body_quat_w[f - 25, 0, [1, 2, 3, 0]]).inv()).magnitude()
            for f in own
        ]  # fmt: skip
        assert ((way >= 0.2 - 1e-6) | (np.array(turn) >= 0.2 - 1e-6)).all()  # float32 clips
    # The velocity is the frame's: the robot does not lose its way in the first step.
    speed = np.linalg.norm(qvel[:, :2], axis=1)
    assert 0.2 < speed.mean() < 0.6


def test_motions_that_stand_still_are_refused():
    with pytest.raises(MotionError, match=r"^No frame of stand moves by 0\.2 m or rad"):
        moving_frames(("stand",), 0.2)
    assert len(moving_frames(("stand",), 0.0)[0]) == load_motions("stand")[0].num_frames - 50


def test_given_starts():
    qpos, qvel = states({"x": 1.0, "y": -2.0, "yaw": 0.5, "forward": 0.4}, {"height": 0.8})
    env = GuidedVectorEnv(3, "obstacle")
    mask = np.array([True, False, True])
    env.reset(seed=0)
    before = full_state(env.simulator)[0][1].copy()
    goal, stones = [[4.0, 0.0], [0.0, 3.0]], [[[2.0, 0.5, 0.2]], [[0.5, 1.5, 0.3]]]
    options = {"qpos": qpos, "qvel": qvel, "goal": goal, "obstacles": stones, "reset_mask": mask}
    _, info = env.reset(options=options)
    found = full_state(env.simulator)
    np.testing.assert_allclose(found[0][mask], qpos, rtol=0, atol=2 * EPS)  # numbers below 4
    np.testing.assert_allclose(found[1][mask], qvel, rtol=0, atol=2 * EPS)
    assert np.array_equal(found[0][1], before)
    np.testing.assert_array_equal(info["goal"][mask], goal)
    np.testing.assert_array_equal(info["num_obstacles"][mask], [1, 1])
    np.testing.assert_array_equal(env.task.obstacles[mask, :1], stones)
    # A state alone is at rest.
    single = GuidedEnv("joystick")
    single.reset(seed=0, options={"qpos": qpos[0]})
    assert not full_state(single.simulator)[1].any()
    # A quaternion is made exactly one.
    loose = qpos[0].copy()
    loose[3:7] *= 1.0005
    single.reset(options={"qpos": loose})
    assert abs(np.linalg.norm(single.simulator.root_quat[0]) - 1) < 2 * EPS


@pytest.mark.parametrize("task", ["walk_perturb", "obstacle"])
@pytest.mark.parametrize("name", list(REPRESENTATIONS))
def test_observations_hold_both_representations(task, name):
    """Of the last four states of the simulator, and of the simulator's kinematics, not ours.

    Root blocks, joints and links are compared where they come from MuJoCo's own forward kinematics
    of the recorded `qpos`, turned by scipy; all in float64.
    """
    env = GuidedVectorEnv(5, task, autoreset_mode="disabled")
    obs, _ = env.reset(seed=3)
    past = [full_state(env.simulator)] * 4  # the robot has been in its start state
    rng = np.random.default_rng(0)
    model = mjcf.compile_model()
    for _ in range(8):
        qpos, qvel = (np.stack([state[i] for state in past[-4:]], 1) for i in (0, 1))
        found = features(obs, name)
        expected = representation(name).encode(states_of(qpos, qvel), 3)
        # Float32 numbers that went through a rotation vector and back and through chains of up to
        # 10 joints, each some 10 operations: 100 roundings of the largest number at worst.
        np.testing.assert_allclose(found, expected, rtol=0, atol=100 * EPS * abs(expected).max())
        if name == "body_pos":
            for robot in range(5):
                check_links(model, qpos[robot], qvel[robot], found[robot])
        else:
            assert np.array_equal(found[..., :29], qpos[..., 7:])
            assert np.array_equal(found[..., 29:58], qvel[..., 6:])
        obs, *_ = env.step(0.5 * noise(rng, 5))
        past.append(full_state(env.simulator))
    moved = np.abs(past[-1][0] - past[-2][0]).max()
    assert moved > 0.01  # the steps of a history differ


def check_links(model, qpos, qvel, found):
    """`found [4, 192]` against MuJoCo's links at four states."""
    data = mujoco.MjData(model)
    links = [model.body(name).id for name in g1.BODY_NAMES]
    for step in range(4):
        data.qpos[:], data.qvel[:] = qpos[step], qvel[step]
        mujoco.mj_forward(model, data)
        axis = data.xmat[links[0]].reshape(3, 3)[:, 0]
        turn = Rotation.from_euler("z", np.arctan2(axis[1], axis[0])).inv()
        place = turn.apply(data.xpos[links] - data.qpos[:3] * [1, 1, 0])
        velocity = np.zeros((len(links), 6))
        for i, link in enumerate(links):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, link, velocity[i], 0)
        speed = turn.apply(velocity[:, 3:] - data.qvel[:3])
        # As above: 100 roundings of at most 1.5 m and of a few m/s.
        np.testing.assert_allclose(found[step, :90], place.ravel(), rtol=0, atol=150 * EPS)
        largest = max(1.0, abs(speed).max())
        np.testing.assert_allclose(
            found[step, 90:180], speed.ravel(), rtol=0, atol=300 * EPS * largest
        )


def test_place_and_heading_in_the_world_do_not_show():
    """A robot in the air, so that no contact makes more of a last digit than it is."""
    envs = [GuidedEnv("joystick") for _ in range(2)]
    own = dict(height=2.0, forward=0.4, pitch=0.1, turning=0.5)
    here, there = standing(**own), standing(5.0, -6.0, 2.5, **own)
    rows = [
        env.reset(seed=0, options={"qpos": state[0], "qvel": state[1]})[0]
        for env, state in zip(envs, (here, there), strict=True)
    ]
    rng = np.random.default_rng(0)
    for _ in range(6):
        # 8 m have a spacing of 1e-6 m in float32, and no number here is above 64 (1 digit: 8e-6).
        np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=2e-5)
        action = noise(rng)
        rows = [env.step(action)[0] for env in envs]
    places = layout(TERMS["joystick"])
    assert abs(rows[0][places["root_pos"]].reshape(4, 3)[0, 0]) > 0.01  # t-3 was elsewhere


def test_an_unknown_representation_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^Unknown representation 'body_rot'; did you mean"):
        features(np.zeros(309, np.float32), "body_rot")


def test_history_states_are_in_the_now_frame():
    env = GuidedVectorEnv(2, "walk_perturb")
    obs, _ = env.reset(seed=0, options={"qpos": standing(3.0, 4.0, 1.0)[0]})
    found = history_states(obs)
    assert found.root_pos.shape == (2, 4, 3) and found.body_pos.shape == (2, 4, 30, 3)
    np.testing.assert_allclose(found.root_pos[0, 3], [0, 0, 0.76], atol=2 * EPS)
    np.testing.assert_allclose(found.root_quat[0, 3], [1, 0, 0, 0], atol=2 * EPS)


def test_the_last_action_is_shown():
    env = GuidedEnv("walk_perturb")
    obs, _ = env.reset(seed=0, options={"qpos": standing()[0]})
    place = env.task.observation_layout["actions"]
    # At the start the one whose target is the pose: of the default pose, zero.
    np.testing.assert_allclose(obs[place], 0, atol=1e-6)  # rounding over a scale of 0.07 or more
    action = noise(np.random.default_rng(0))
    assert np.array_equal(env.step(action)[0][place], action)


def test_delayed_actions_arrive_one_step_later():
    action = noise(np.random.default_rng(0))
    places = []
    for delay, sent in ((0, [0 * action, action]), (1, [action, 0 * action])):
        env = GuidedEnv("walk_perturb", overrides={"action_delay": delay, "push_speed": (0, 0)})
        env.reset(seed=0, options={"qpos": standing()[0]})
        for a in sent:
            env.step(a)
        places.append(full_state(env.simulator)[0])
    # Without a delay: hold the default pose, then the action; with one: the pose asked for by the
    # reset, which the same zeros would ask for up to rounding, then the action.
    np.testing.assert_allclose(places[0], places[1], atol=1e-5)
    env.reset(seed=0, options={"qpos": standing()[0]})
    env.step(0 * action)
    env.step(0 * action)
    assert np.abs(full_state(env.simulator)[0] - places[1]).max() > 0.01


# --- falls and rewards ----------------------------------------------------------------------------


def test_falls_by_both_criteria():
    """Pelvis at 0.4 m, tilt 60 degrees, head at 0.2 m; a robot on its face has its head as high as
    its pelvis but for 4 mm."""
    lying = np.pi / 2
    # pose, fallen strictly, head down
    cases = [
        ({}, False, False),
        ({"height": 0.41}, False, False),
        ({"height": 0.39}, True, False),
        ({"pitch": np.radians(59.5)}, False, False),
        ({"pitch": np.radians(60.5)}, True, False),
        ({"pitch": -np.radians(60.5)}, True, False),
        ({"pitch": lying, "height": 0.23}, True, False),
        ({"pitch": lying, "height": 0.17}, True, True),
    ]
    for fall in ("strict", "head"):
        env = GuidedVectorEnv(len(cases), "walk_perturb", fall=fall, autoreset_mode="disabled")
        puppet(env, lambda k: states(*(case[0] for case in cases)))
        env.reset(seed=0)
        _, reward, terminated, truncated, info = env.step(still(env))
        assert info["fell_strict"].tolist() == [case[1] for case in cases]
        assert info["fell_head"].tolist() == [case[2] for case in cases]
        assert np.array_equal(terminated, info[f"fell_{fall}"]) and not truncated.any()
        assert np.array_equal(reward == 0, terminated)
    np.testing.assert_allclose(info["tilt"][3:5], np.radians([59.5, 60.5]), atol=1e-6)
    # Standing, the head is 0.43 m over the torso, whose place the robot's table has.
    assert info["head_height"][0] == pytest.approx(0.76 + 0.044 + 0.43, abs=2e-3)


def test_a_fall_stays_a_fall():
    env = puppet(
        GuidedEnv("walk_perturb", fall="head"), lambda k: states({"height": 0.3 + 0.46 * (k != 2)})
    )
    env.reset(seed=0)
    seen = [env.step(still(env))[2:] for _ in range(3)]
    assert [info["fell_strict"] for *_, info in seen] == [False, True, True]
    assert not any(terminated for terminated, *_ in seen)


def test_rewards_are_bounded_and_the_sum_of_their_terms():
    rng = np.random.default_rng(0)
    for task in NAMES:
        env = GuidedVectorEnv(8, task)
        env.reset(seed=0)
        spread = 0.0
        for _ in range(40):
            _, reward, terminated, _, info = env.step(noise(rng, 8))
            np.testing.assert_allclose(  # a sum of two float32 numbers
                reward, info["reward_alive"] + info["reward_task"], rtol=EPS
            )
            assert ((reward >= 0) & (reward <= 1)).all()
            assert np.array_equal(info["reward_alive"] == 0.5, ~terminated)
            spread = max(spread, np.ptp(info["reward_task"]))
        assert spread > 0.1


def test_rewards_by_hand():
    share = rewards.share(np.array([-0.1, 0.05, 0.3]), 0.2)
    np.testing.assert_allclose(share, [0, 0.25, 1])
    command = np.array([[0.6, 0.0, 0.5]])
    exact = rewards.velocity_error_exp(command[:, :2], command[:, 2], command, 0.3, 0.5)
    assert exact.tolist() == [1.0]
    off = rewards.velocity_error_exp(
        np.array([[0.6, 0.3]]), np.array([1.0]), command, 0.3, 0.5
    )  # both off by one width
    assert off[0] == pytest.approx(0.36787944117144233, rel=1e-12)
    # 1 m from the goal at 0.25 m/s, half of it towards the goal in the second case.
    way = np.array([[1.0, 0.0]] * 3 + [[0.0, 0.0]])
    velocity = np.array([[0.25, 0.0], [0.125, 0.0], [-0.25, 0.0], [0.0, 0.0]])
    near = np.exp(-2.0)
    stopped = np.exp(-((0.25 / 0.2) ** 2))
    expected = [
        (1 - near) * 0.5 + near * stopped,
        (1 - near) * 0.25 + near * np.exp(-((0.125 / 0.2) ** 2)),
        near * stopped,
        1.0,
    ]
    found = rewards.approach(way, velocity, np.array([1.0, 1.0, 1.0, 0.0]), 0.5, 0.2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# --- walk_perturb ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_pushes_come_each_second_and_are_uniform():
    """60 robots for 15 s: 900 pushes, recorded where the simulator receives them.

    Kolmogorov-Smirnov at 1e-4, for the speed and for the direction: with the fixed seed the outcome
    does not change; it would be a false alarm once in 10^4 seeds each.
    """
    count = 60
    env = GuidedVectorEnv(count, "walk_perturb", autoreset_mode="disabled")
    puppet(env, lambda k: states(*[{}] * count))
    received = []
    push = env.simulator.push

    def spy(env_ids, lin_vel, ang_vel):
        before = env.simulator.root_lin_vel.copy()
        push(env_ids, lin_vel, ang_vel)
        # A jump of the velocity, at once; velocities of 0.5 m/s in float32.
        jump = (env.simulator.root_lin_vel - before)[env_ids]
        np.testing.assert_allclose(jump, lin_vel, atol=2 * EPS)
        received.append((env_ids.copy(), lin_vel.copy(), np.array(ang_vel)))

    env.simulator.push = spy
    env.reset(seed=0)
    times = []
    for k in range(750):
        *_, truncated, info = env.step(still(env))
        assert info["pushed"].all() == (len(received) > len(times)) == info["pushed"].any()
        if info["pushed"].any():
            times.append(k)
            np.testing.assert_array_equal(info["push_velocity"], received[-1][1][:, :2])
    assert truncated.all()
    assert times == [50 * second for second in range(15)] and (info["pushes"] == 15).all()
    assert all(np.array_equal(ids, np.arange(count)) for ids, *_ in received)
    pushes = np.concatenate([lin for _, lin, _ in received])
    assert not pushes[:, 2].any() and not any(ang.any() for *_, ang in received)
    speed = np.hypot(pushes[:, 0], pushes[:, 1])
    angle = np.arctan2(pushes[:, 1], pushes[:, 0])
    assert speed.max() <= 0.5 + 1e-12
    assert stats.kstest(speed, stats.uniform(0.0, 0.5).cdf).pvalue > 1e-4
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4
    # All around: a sector of 10 degrees stays empty once in 10^11 seeds, (35 / 36)^900.
    assert (np.histogram(angle, 36, (-np.pi, np.pi))[0] > 0).all()
    assert info["success"].all() and info["success_strict"].all()


def test_a_push_moves_the_robot():
    """With physics: 0.4 m/s and nothing are told apart by the place a tenth of a second later."""
    places = []
    for speed in (0.0, 0.4):
        env = GuidedEnv("walk_perturb", overrides={"push_speed": (speed, speed)})
        env.reset(seed=0, options={"qpos": standing()[0]})
        for _ in range(5):
            *_, info = env.step(still(env))
        places.append(env.simulator.root_pos[0, :2].copy())
    moved, push = places[1] - places[0], info["push_velocity"]
    assert np.hypot(*push) == pytest.approx(0.4)
    assert 0.01 < np.hypot(*moved) < 0.4 * 0.1 + 0.005  # the feet hold some of it back
    assert moved @ push / (np.hypot(*moved) * np.hypot(*push)) > 0.9


def test_walk_perturb_succeeds_at_its_end_or_not_at_all():
    """A robot that sits down at 0.35 m has its head up: the paper's criterion lets it pass."""
    env = GuidedVectorEnv(3, "walk_perturb", fall="head", episode_s=0.1, autoreset_mode="disabled")
    lying = {"pitch": np.pi / 2, "height": 0.1}
    puppet(env, lambda k: states({}, {"height": 0.35} if k == 3 else {}, lying if k == 3 else {}))
    env.reset(seed=0)
    seen = []
    for _ in range(5):
        *_, terminated, truncated, info = env.step(still(env))
        seen.append(info["success"].tolist())
    assert seen == [[False] * 3] * 4 + [[True, True, False]]
    assert info["success_strict"].tolist() == [True, False, False]
    assert terminated.tolist() == [False, False, True]
    assert truncated.tolist() == [True, True, False]


# --- joystick -------------------------------------------------------------------------------------


def joystick_run(*scripts, seconds=12.0, **arguments):
    """Robots that move as their scripts say: `script(t)` gives (forward, left, yaw, more).

    Returns the infos of all steps.
    """
    env = GuidedVectorEnv(len(scripts), "joystick", autoreset_mode="disabled", **arguments)

    def place(k):
        return states(*(
            dict(forward=f, left=s, yaw=y) | more
            for f, s, y, more in (script(0.02 * k) for script in scripts)
        ))  # fmt: skip

    puppet(env, place)
    starts = place(0)
    _, info = env.reset(seed=0, options={"qpos": starts[0], "qvel": starts[1]})
    infos = [info]
    for _ in range(round(seconds * 50)):
        *_, terminated, truncated, info = env.step(still(env))
        infos.append(info | {"terminated": terminated, "truncated": truncated})
    return env, infos


def follower(speeds=(0.31, -0.16, 0.0, 0.0), turns=(0.0, 0.0, 26.0, -26.0), start=0.0, fall=None):
    """Velocities in the last 1.5 s of each command (before it: the opposite) and turns, degrees."""
    ends = np.cumsum([0.0, *turns])

    def script(t):
        segment = min(int((t - 1e-9) / 3.0), 3) if t > 0 else 0
        part = t - 3.0 * segment  # s of it, up to 3
        forward = speeds[segment] * (1.0 if part > 1.5 + 1e-9 else -1.0)
        yaw = start + np.radians(ends[segment] + turns[segment] * part / 3.0)
        return forward, 0.0, yaw, {"height": 0.3} if fall and abs(t - fall) < 0.01 else {}

    return script


def test_joystick_thresholds():
    """0.3 m/s forward, 0.15 m/s backward over the last 1.5 s, 25 degrees each way over 3 s."""
    robots = [
        follower(),
        follower(speeds=(0.29, -0.16, 0, 0)),
        follower(speeds=(0.31, -0.14, 0, 0)),
        follower(turns=(0, 0, 24, -26)),
        follower(turns=(0, 0, 26, -24)),
        follower(turns=(0, 0, -26, 26)),  # the wrong way
        follower(start=3.0),  # through 180 degrees
        follower(turns=(0, 0, 400, -400)),  # more than once around
        follower(speeds=(-0.31, 0.16, 0, 0)),
    ]
    env, infos = joystick_run(*robots)
    passed = infos[-1]["segment_passed"]
    yes, no = True, False
    assert passed.tolist() == [
        [yes, yes, yes, yes], [no, yes, yes, yes], [yes, no, yes, yes], [yes, yes, no, yes],
        [yes, yes, yes, no], [yes, yes, no, no], [yes, yes, yes, yes], [yes, yes, yes, yes],
        [no, no, yes, yes],
    ]  # fmt: skip
    assert infos[-1]["success"].tolist() == [yes] + [no] * 5 + [yes, yes, no]
    assert not any(info["success"].any() for info in infos[:-1])
    assert infos[-1]["truncated"].all() and not infos[-2]["truncated"].any()
    # Values in the commanded sense, of float32 states: velocities below 1 m/s, headings of 7 rad at
    # most whose 150 changes are summed.
    expected = [0.31, 0.16, np.radians(26), np.radians(26)]
    np.testing.assert_allclose(infos[-1]["segment_value"][0], expected, atol=150 * 4 * EPS)
    around = np.radians([400, 400])
    np.testing.assert_allclose(infos[-1]["segment_value"][7, 2:], around, atol=150 * 4 * EPS)
    # A segment's value appears with its last step and not before.
    for segment in range(4):
        last = 150 * (segment + 1)
        assert not infos[last - 1]["segment_value"][:, segment].any()
        assert infos[last]["segment_value"][:, segment].all()
        assert (infos[last - 1]["segments_done"] == segment).all()
        assert (infos[last]["segments_done"] == segment + 1).all()


def test_joystick_a_fall_ends_it():
    env, infos = joystick_run(follower(fall=10.0), follower(fall=10.0), fall="strict")
    assert infos[-1]["terminated"].all() and not infos[-1]["success"].any()
    assert infos[-1]["segment_passed"].tolist() == [[True, True, True, False]] * 2
    np.testing.assert_allclose(infos[-1]["time_s"], 10.0)
    # By the paper's criterion a robot that sat down goes on.
    env, infos = joystick_run(follower(fall=10.0), fall="head")
    assert infos[-1]["success"].tolist() == [True]
    assert infos[-1]["success_strict"].tolist() == [False]


def test_joystick_commands_in_their_order():
    env, infos = joystick_run(follower())
    wanted = [(0.6, 0, 0), (-0.3, 0, 0), (0.4, 0, 0.5), (0.4, 0, -0.5)]
    for k, info in enumerate(infos):
        segment = min(k // 150, 3)  # of the coming step; after the last, still the last
        assert info["segment"].tolist() == [segment]
        np.testing.assert_array_equal(info["command"][0], wanted[segment])
    obs, _ = env.reset(seed=0)
    place = env.task.observation_layout["command"]
    np.testing.assert_array_equal(obs[0, place], np.float32(wanted[0]))


def test_joystick_reward_is_for_the_command_that_was_shown():
    """The step that ends a command is rewarded for it, and not for the next one."""

    def exact(t):
        commands = [(0.6, 0, 0), (-0.3, 0, 0)]
        return commands[int(t - 1e-9 > 3.0)][0], 0.0, 0.3, {}

    env, infos = joystick_run(exact, seconds=4.0)
    # exp of a square of float32 rounding is 1 to the last digit.
    assert all(info["reward_task"][0] == pytest.approx(0.5, abs=1e-6) for info in infos[1:])
    np.testing.assert_allclose(infos[10]["velocity"], [[0.6, 0.0]], atol=4 * EPS)


def test_yaw_rate_and_velocity_are_in_the_own_heading():
    env = puppet(
        GuidedEnv("joystick"),
        lambda k: states({"yaw": 2.0, "forward": 0.3, "left": -0.1, "pitch": 0.4, "turning": 0.7}),
    )
    env.reset(seed=0)
    *_, info = env.step(still(env))
    np.testing.assert_allclose(info["velocity"], [0.3, -0.1], atol=4 * EPS)
    assert info["yaw_rate"] == pytest.approx(0.7, abs=4 * EPS)


def test_random_commands():
    """Within their ranges, other ones each time, and judged by the same shares."""
    overrides = {"random": True, "random_left": (-0.2, 0.2)}
    env = GuidedVectorEnv(200, "joystick", overrides=overrides)
    env.reset(seed=0)
    commands = env.task.commands
    assert commands.shape == (200, 4, 3)
    low, high = np.array([-0.3, -0.2, -0.5]), np.array([0.6, 0.2, 0.5])
    assert (commands >= low).all() and (commands <= high).all()
    # 800 uniform draws: the nearest to an end is farther than 1 % of the range with a chance of
    # 0.99^800 = 3e-4 for each of six ends; the seed is fixed.
    reached = (commands.reshape(-1, 3).min(0) - low, high - commands.reshape(-1, 3).max(0))
    assert (np.array(reached) < 0.01 * (high - low)).all()
    assert len(np.unique(commands)) == commands.size

    # Half the speed along (0.3, 0.4) m/s: 0.25; a share of a turn of 1 rad/s: 50 degrees in 3 s; a
    # command of 0.05 m/s asks for nothing.
    task = env.task
    ids = np.arange(5)
    task._way[ids] = 75 * np.array([[0.16, 0.2], [0.14, 0.19], [0, 0], [0, 0], [-1, -1]])
    task._turn[ids] = [0, 0, np.radians(51), np.radians(49), 0]
    command = np.array([[0.3, 0.4, 0], [0.3, 0.4, 0], [0, 0, 1.0], [0.5, 0, 1.0], [0.03, 0.04, 0]])
    value, least = task.reached(ids, command)
    np.testing.assert_allclose(value[:2], [0.16 * 0.6 + 0.2 * 0.8, 0.14 * 0.6 + 0.19 * 0.8])
    np.testing.assert_allclose(least[:4], [0.25, 0.25, np.radians(50), np.radians(50)])
    assert (value >= least).tolist() == [True, False, True, False, True]


def test_a_shorter_or_longer_joystick_episode():
    """Whole commands are judged, a last one that is cut off is not; after four they come again."""
    for seconds, segments, played in ((3.0, 1, 1), (7.0, 2, 3), (15.0, 5, 5)):
        env = GuidedVectorEnv(1, "joystick", episode_s=seconds)
        env.reset(seed=0)
        assert env.task.segment_passed.shape == (1, segments)
        assert env.task.commands.shape == (1, played, 3)
    assert env.task.commands[0, 4].tolist() == env.task.commands[0, 0].tolist()
    env, infos = joystick_run(follower(), seconds=7.0, episode_s=7.0)
    assert infos[-1]["success"].tolist() == [True]


# --- run ------------------------------------------------------------------------------------------


def test_run_thresholds():
    """1.7 to 2.3 m/s ahead over the last 10 of 15 s, whatever was before, and no fall."""
    speeds = (1.69, 1.71, 2.29, 2.31, -2.0, 2.0, 2.0)  # the sixth to the left, the last falls

    def place(k):
        late = 0.02 * k > 5.0 + 1e-9
        rows = [{"forward": speed if late else 0.0} for speed in speeds]
        rows[5] = {"left": 2.0}
        rows[6] |= {"height": 0.3} if k == 700 else {}
        return states(*rows)

    env = GuidedVectorEnv(len(speeds), "run", autoreset_mode="disabled", fall="strict")
    puppet(env, place)
    starts = place(0)
    env.reset(seed=0, options={"qpos": starts[0], "qvel": starts[1]})
    for _ in range(749):
        *_, info = env.step(still(env))
    np.testing.assert_array_equal(info["command"], [[2.0, 0.0, 0.0]] * 7)
    assert not info["success"].any() and not info["segment_value"].any()
    *_, truncated, info = env.step(still(env))
    assert truncated.tolist() == [True] * 6 + [False]
    assert info["segment_passed"][:6, 0].tolist() == [False, True, True, False, False, False]
    assert info["success"].tolist() == [False, True, True, False, False, False, False]
    # Float32 velocities of a few m/s, of which 500 are summed.
    np.testing.assert_allclose(info["segment_value"][:5, 0], speeds[:5], atol=500 * 4 * EPS)


# --- waypoint -------------------------------------------------------------------------------------


def test_goals_are_drawn_around_the_robot():
    """Uniform distance and direction: Kolmogorov-Smirnov at 1e-4, fixed seed, 400 robots."""
    env = GuidedVectorEnv(400, "waypoint")
    _, info = env.reset(seed=0)
    assert info["distance"].min() >= 2.0 - 1e-6 and info["distance"].max() <= 5.0 + 1e-6
    assert stats.kstest(info["distance"], stats.uniform(2.0, 3.0).cdf).pvalue > 1e-4
    angle = np.arctan2(info["goal"][:, 1], info["goal"][:, 0])  # robots start over the origin
    assert stats.kstest(angle, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_the_goal_is_shown_in_the_now_frame():
    """At (1, 2) facing +y, a goal at (0, 6) is 4 m ahead and 1 m to the left."""
    env = puppet(GuidedEnv("waypoint"), lambda k: states({"x": 1.0, "y": 2.0, "yaw": np.pi}))
    options = {"qpos": standing(1.0, 2.0, np.pi / 2)[0], "goal": [0.0, 6.0]}
    obs, info = env.reset(seed=0, options=options)
    places = env.task.observation_layout
    np.testing.assert_allclose(obs[places["goal_pos"]], [4.0, 1.0], atol=8 * EPS)
    np.testing.assert_allclose(obs[places["goal_distance"]], 17**0.5, rtol=2 * EPS)
    assert info["distance"] == pytest.approx(17**0.5, rel=2 * EPS)
    # Turned on to -x it is 1 m ahead and 4 m to the right.
    obs, *_ = env.step(still(env))
    np.testing.assert_allclose(obs[places["goal_pos"]], [1.0, -4.0], atol=8 * EPS)


def test_arrival_is_near_and_slow():
    """Within 0.3 m and slower than 0.2 m/s, both in one step."""
    start = {"x": 3.0}
    robots = [
        {"x": 0.29, "forward": 0.19},
        {"y": -0.29, "left": -0.19},
        {"x": 0.31, "forward": 0.0},
        {"x": 0.1, "forward": 0.21},
        {"x": 0.22, "y": 0.22},  # 0.311 m off
    ]
    env = GuidedVectorEnv(6, "waypoint", autoreset_mode="disabled", episode_s=0.1)
    passing = [{"forward": 0.5}, {"x": 0.5}, {"forward": 0.5}, {"x": 0.5}, {"x": 0.5}]

    def place(k):
        return states(*(robots if k == 2 else [start] * 5), passing[k - 1])

    puppet(env, place)
    env.reset(seed=0, options={"qpos": standing(**start)[0], "goal": [0.0, 0.0]})
    seen = []
    for _ in range(5):
        *_, terminated, truncated, info = env.step(still(env))
        seen.append(info["success"].tolist())
    arrived = [True, True, False, False, False, False]
    assert seen == [[False] * 6] + [arrived] * 4  # and it may go on from there
    np.testing.assert_array_equal(info["arrived_s"], np.where(arrived, 0.04, np.inf))
    assert not terminated.any() and truncated.all()


def test_a_fall_takes_the_arrival_back():
    env = GuidedVectorEnv(1, "waypoint", autoreset_mode="disabled", episode_s=0.1)
    puppet(env, lambda k: states({"height": 0.3} if k == 4 else {}))
    env.reset(seed=0, options={"qpos": standing(2.0)[0], "goal": [0.0, 0.0]})
    seen = [env.step(still(env))[4]["success"].tolist() for _ in range(5)]
    assert seen == [[True]] * 3 + [[False]] * 2


def test_a_robot_that_falls_as_it_arrives_has_not_arrived():
    env = GuidedVectorEnv(1, "waypoint", autoreset_mode="disabled", episode_s=0.1)
    puppet(env, lambda k: states({"height": 0.3}))
    env.reset(seed=0, options={"qpos": standing(2.0)[0], "goal": [0.0, 0.0]})
    *_, info = env.step(still(env))
    assert np.isinf(info["arrived_s"]).all() and not info["success"].any()


# --- obstacle -------------------------------------------------------------------------------------


def obstacle_env(robots, options=None, **arguments):
    """Robots in written states, the same in every step, with a goal far off if none is given."""
    env = GuidedVectorEnv(len(robots), "obstacle", autoreset_mode="disabled", **arguments)
    puppet(env, lambda k: states(*robots))
    qpos, qvel = states(*robots)
    given = {"qpos": qpos, "qvel": qvel, "goal": [50.0, 0.0]} | (options or {})
    obs, info = env.reset(seed=0, options=given)
    return env, obs, info


def test_clearance_against_mujoco_and_by_hand():
    """Every link and tip against every obstacle, by MuJoCo's kinematics and the figures anew."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    robots = [{"x": 1.0, "y": 2.0, "yaw": yaw, "pitch": 0.3} for yaw in (0.0, 1.0, -2.5)]
    stones = np.concatenate([rng.uniform(-1, 4, (3, 5, 2)), rng.uniform(0.1, 0.4, (3, 5, 1))], 2)
    _, _, info = obstacle_env(robots, {"obstacles": stones})
    radius = {
        "pelvis": 0.18, "torso_link": 0.18, "hip_roll": 0.10, "knee": 0.08, "ankle_roll": 0.08,
        "shoulder_roll": 0.07, "elbow": 0.07, "wrist_yaw": 0.07,
    }  # fmt: skip
    expected = []
    for robot, own in zip(robots, stones, strict=True):
        data.qpos[:] = standing(**robot)[0]
        mujoco.mj_kinematics(model, data)
        points = []
        for stem, r in radius.items():
            for side in ("left_", "right_", ""):
                full = f"{side}{stem}" + ("" if stem in ("pelvis", "torso_link") else "_link")
                if full in g1.BODY_NAMES:
                    points.append((data.body(full).xpos[:2].copy(), r))
        for side, sign in (("left", 1), ("right", -1)):
            for x, y in ((-0.05, 0.025), (-0.05, -0.025), (0.12, 0.03), (0.12, -0.03)):
                ankle = data.body(f"{side}_ankle_roll_link")
                tip = ankle.xpos + ankle.xmat.reshape(3, 3) @ [x, y, -0.03]
                points.append((tip[:2], 0.005))
            wrist = data.body(f"{side}_wrist_yaw_link")
            tip = wrist.xpos + wrist.xmat.reshape(3, 3) @ [0.15, -0.02 * sign, 0]
            points.append((tip[:2], 0.035))
        assert len(points) == 14 + 8 + 2
        expected.append(min(
            np.hypot(*(point - stone[:2])) - r - stone[2] for point, r in points for stone in own
        ))  # fmt: skip
    # Places of 4 m in float32, through a matrix: a dozen roundings.
    np.testing.assert_allclose(info["clearance"], expected, atol=4 * 12 * EPS)
    assert np.array_equal(info["touched"], np.array(expected) <= 0)
    # By hand: the pelvis stands in the middle of an obstacle of 1 m, deeper than any other link.
    _, _, info = obstacle_env([{"x": 5.0}], {"obstacles": [[5.0, 0.0, 1.0]]})
    assert info["clearance"][0] == pytest.approx(-1.18, abs=5e-3)  # the torso is 4 mm behind it


@pytest.mark.slow
def test_what_a_controller_keeps_free_is_no_rule_of_the_world():
    """Wider spheres of the cost, set before the world is imported, leave its contact as it is."""
    program = """
import json, sys
import numpy as np
from bm_envs.diffusion import costs
if sys.argv[1] == "wide":
    costs.RADII.update(wrist=0.30, hip=0.25)
from bm_envs.envs import GuidedVectorEnv
env = GuidedVectorEnv(1, "obstacle")
_, info = env.reset(seed=0, options={"goal": [50.0, 0.0], "obstacles": [[0.0, 0.45, 0.1]]})
print(json.dumps([float(info["clearance"][0]), bool(info["touched"][0])]))
"""
    told = [
        json.loads(subprocess.run(
            [sys.executable, "-c", program, how], capture_output=True, text=True, check=True
        ).stdout)
        for how in ("as it is", "wide")
    ]  # fmt: skip
    assert told[0] == told[1]
    # The premise: the post is so near the left wrist that 0.30 m about it would touch.
    assert 0 < told[0][0] < 0.2 and not told[0][1]


def test_obstacles_are_shown_nearest_first():
    """Of five: by the distance of their surface from the pelvis, in the now frame."""
    stones = [[2.0, 0.0, 0.1], [2.0, 3.0, 0.2], [2.0, -1.2, 0.5], [0.5, 0.0, 0.4], [2.0, 9.0, 0.1]]
    robots = [{"x": 2.0, "y": 1.0, "yaw": np.pi / 2}]
    env, obs, info = obstacle_env(robots, {"obstacles": stones})
    # Distances of surfaces: 0.9, 1.8, 1.7 (its middle is farther off than the one before),
    # sqrt(3.25) - 0.4 = 1.403, 7.9. Facing +y: ahead is +y, left is -x.
    place = env.task.observation_layout["obstacles"]
    expected = [[-1.0, 0.0, 0.1], [-1.0, 1.5, 0.4], [-2.2, 0.0, 0.5]]
    np.testing.assert_allclose(obs[0, place].reshape(3, 3), expected, atol=8 * EPS)
    assert info["num_obstacles"].tolist() == [5]
    # Fewer than are shown, or none: a point far ahead.
    for count in (0, 1):
        given = {"obstacles": np.reshape(stones[:count], (count, 3))}
        env, obs, info = obstacle_env(robots, given)
        np.testing.assert_allclose(
            obs[0, place].reshape(3, 3), expected[:count] + [[10.0, 0, 0]] * (3 - count),
            atol=8 * EPS,
        )  # fmt: skip
    env, _, info = obstacle_env(robots, {"obstacles": np.zeros((0, 3))})
    assert info["clearance"].tolist() == [np.inf] and not info["touched"].any()


def test_obstacle_success_wants_the_goal_and_no_contact():
    """Along x past a cylinder 1 m to the left, or 0.2 m; then at the goal, at rest."""
    env = GuidedVectorEnv(3, "obstacle", autoreset_mode="disabled", episode_s=0.2)

    def place(k):
        x = {1: 0.0, 2: 1.0, 3: 2.0}.get(k, 3.0)
        late = {"x": x} if k < 6 else {"x": 3.0, "y": 1.0}  # arrives, then walks into it
        return states({"x": x}, {"x": x}, late)

    puppet(env, place)
    stones = [[[1.0, 1.0, 0.2]], [[1.0, 0.2, 0.2]], [[3.0, 1.0, 0.2]]]
    env.reset(seed=0, options={"qpos": standing()[0], "goal": [3.0, 0.0], "obstacles": stones})
    infos = [env.step(still(env))[4] for _ in range(10)]
    assert [i["success"].tolist() for i in infos[3:6]] == [
        [True, False, True], [True, False, True], [True, False, False],
    ]  # fmt: skip
    last = infos[-1]
    assert last["success"].tolist() == [True, False, False]
    assert last["touched"].tolist() == [False, True, True]
    np.testing.assert_allclose(last["arrived_s"], 0.08)
    # The smallest clearance of the way, not of the end. At x = 1 the pelvis of robot 1 is 0.2 m
    # from the axis, 0.18 m deep, a hand deeper. Robot 0 passes by less than 1 - 0.2 - 0.18 m.
    assert last["least_clearance"][1] < -0.18 < 0.3 < last["least_clearance"][0] < 0.62
    assert last["clearance"][1] > 1.0
    least = np.min([i["clearance"] for i in infos], 0)
    np.testing.assert_array_equal(last["least_clearance"], least)


def test_a_tracker_walks_to_the_goal():
    """With physics: a robot that follows `walk_to_stand` (8 s, 2.8 m) arrives where the clip ends.

    The guided environment gets the actions of a tracker in the same state, and so walks as it does.
    Of two such robots one has an obstacle beside its way and one has it on its way.
    """
    policy = load_policy("walks")
    track = TrackVectorEnv(2, "walk_to_stand", preset="clip", autoreset_mode="disabled")
    obs, _ = track.reset(seed=0)
    clip = track.task.clips[0]
    start, end = clip.body_pos_w[[0, -1], 0, :2]
    middle = 0.5 * (start + end)
    env = GuidedVectorEnv(2, "obstacle", autoreset_mode="disabled")
    qpos, qvel = full_state(track.simulator)
    stones = [[[*(middle + [0.0, 1.0]), 0.2]], [[*middle, 0.2]]]
    env.reset(seed=0, options={"qpos": qpos, "qvel": qvel, "goal": end, "obstacles": stones})
    for _ in range(clip.num_frames - 1):
        action = policy(obs)
        obs, *_ = track.step(action)
        *_, info = env.step(action)
    assert info["success"].tolist() == [True, False] and info["touched"].tolist() == [False, True]
    assert not info["fell_strict"].any()
    # It is there when the clip is all but over, and not before it has walked most of the way.
    assert ((info["arrived_s"] > 4.0) & (info["arrived_s"] < 8.0)).all()
    assert (info["distance"] < 0.3).all() and (info["speed"] < 0.2).all()


def test_obstacle_reward_sinks_to_zero_at_contact():
    """On the way to a far goal at full speed, past obstacles at several distances to the left."""
    stones = [[[0.1, y, 0.1]] for y in np.linspace(0.1, 0.8, 36)]
    env, *_ = obstacle_env([{"forward": 0.5}] * 36, {"obstacles": stones})
    *_, info = env.step(still(env))
    clearance = info["clearance"]
    between = (clearance > 0) & (clearance < 0.1)
    assert between.sum() >= 3 and (clearance < 0).any() and (clearance > 0.1).any()
    # 50 m from the goal the waypoint's term is 1 to e^-100; its share is half of the reward.
    np.testing.assert_allclose(
        info["reward_task"], 0.5 * np.interp(clearance, [0.0, 0.1], [0.0, 1.0]), atol=1e-6
    )


layouts = given(
    seed=st.integers(0, 2**32 - 1),
    distance=st.floats(2.0, 5.0),
    angle=st.floats(-np.pi, np.pi),
    start=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
)


def a_layout(seed, distance, angle, start):
    start = np.array(start)
    goal = start + distance * np.array([np.cos(angle), np.sin(angle)])
    return start, goal, obstacles.place(np.random.default_rng(seed), start, goal, ObstacleConfig())


@settings(deadline=None)  # a busy machine is slow
@layouts
def test_obstacles_keep_their_distances(seed, distance, angle, start):
    start, goal, stones = a_layout(seed, distance, angle, start)
    assert 1 <= len(stones) <= 5
    places, radius = stones[:, :2], stones[:, 2]
    assert ((radius >= 0.15) & (radius <= 0.3)).all()
    slack = 1e-9  # roundings of numbers of 15 m
    for point in (start, goal):  # never over start or goal, with room for a robot
        assert (np.hypot(*(places - point).T) - radius >= 0.6 - slack).all()
    for i, j in itertools.combinations(range(len(stones)), 2):
        assert np.hypot(*(places[i] - places[j])) - radius[i] - radius[j] >= 0.8 - slack
    # One stands in the way: the straight line goes through it; none is far from that line.
    ahead = (goal - start) / distance
    along, across = (places - start) @ ahead, np.abs((places - start) @ [-ahead[1], ahead[0]])
    assert ((along > 0) & (along < distance)).all()
    assert (across < radius).any() and (across <= 1.0 + slack).all()


@settings(deadline=None, max_examples=25)
@layouts
def test_a_robot_finds_a_way(seed, distance, angle, start):
    """On a grid of 5 cm, start and goal are joined for a disc of 0.35 m radius.

    0.4 m is half a gap; 5 cm are left for the grid.
    """
    start, goal, stones = a_layout(seed, distance, angle, start)
    low = np.minimum(start, goal) - 2.0
    axes = [np.arange(a, b, 0.05) for a, b in zip(low, np.maximum(start, goal) + 2.0, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    gaps = np.linalg.norm(grid[..., None, :] - stones[:, :2], axis=-1) - stones[:, 2]
    pieces, _ = ndimage.label((gaps > 0.35).all(-1))
    cell = [tuple(np.rint((point - low) / 0.05).astype(int)) for point in (start, goal)]
    assert pieces[cell[0]] == pieces[cell[1]] > 0


def test_as_many_obstacles_as_find_room():
    """All numbers come up; on 5 m most layouts get what was asked for, on 2 m hardly two fit."""
    numbers = {
        distance: [len(a_layout(seed, distance, 0.0, (0, 0))[2]) for seed in range(200)]
        for distance in (2.0, 5.0)
    }
    assert set(numbers[5.0]) == {1, 2, 3, 4, 5} and np.mean(numbers[5.0]) > 2.5
    assert set(numbers[2.0]) <= {1, 2}
    # Start and goal so near that not even one fits.
    assert len(a_layout(0, 1.0, 0.0, (0, 0))[2]) == 0


def test_obstacles_of_an_environment_are_around_its_robot():
    env = GuidedVectorEnv(50, "obstacle")
    _, info = env.reset(seed=0, options={"qpos": standing(7.0, -3.0)[0]})
    assert set(info["num_obstacles"].tolist()) <= {1, 2, 3, 4, 5}
    assert len(set(info["num_obstacles"].tolist())) >= 4
    assert (info["clearance"] > 0.2).all()  # 0.6 m from the middle of a robot 0.6 m wide
    for i in range(50):
        stones = env.task.obstacles[i, : info["num_obstacles"][i]]
        way = info["goal"][i] - [7.0, -3.0]
        along = (stones[:, :2] - [7.0, -3.0]) @ way / np.hypot(*way)
        assert (along > 0.6).all() and (along < np.hypot(*way) - 0.6).all()


# --- composition ----------------------------------------------------------------------------------

# Each command 2 s, then 2 s for the way.
BRISK = {"command_s": (2.0,) * 4, "episode_s": 10.0}


def test_composition_is_the_minute_that_was_agreed():
    config = CompositionConfig()
    assert config.commands == ((0.5, 0, 0), (0, 0, 0), (-0.3, 0, 0), (0.3, 0, 0.5))
    assert config.command_s == (8.0, 6.0, 6.0, 6.0) and config.episode_s - 26.0 == 34.0
    assert (config.push_speed, config.push_interval_s) == ((0.0, 0.5), 1.0)
    assert (config.goal_distance, config.obstacle_count) == ((2.0, 5.0), (1, 5))
    assert (config.judged_s, config.least_speed_share, config.most_stop_speed) == (1.5, 0.5, 0.15)
    assert config.least_turn_share == JoystickConfig().least_turn_share
    assert config.way_begins == 26 * 50 and config.command_steps == (400, 300, 300, 300, 1700)


class Walker:
    """Follows the brisk composition as told, then is at the goal (5, 0) or elsewhere.

    `speeds` of walking and backing over the judged seconds, `drift` in m/s and `sway` in m/s of the
    stop, `turn` in degrees, `end` where it is from 1 s before the end on, `down` in the last step.
    """

    def __init__(
        self, speeds=(0.26, -0.16), drift=0.14, sway=0.0, turn=17.0, end=(5.0, 0.0), down=False
    ):
        self.speeds, self.drift, self.sway, self.turn = speeds, drift, sway, turn
        self.end, self.down = end, down

    def __call__(self, k):
        t = 0.02 * k
        if k <= 100:  # up to 2 s
            return {"forward": self.speeds[0]}
        if k <= 200:
            return {"x": self.drift * (t - 2.0), "forward": self.sway}
        if k <= 300:
            return {"forward": self.speeds[1]}
        if k <= 400:
            return {"yaw": np.radians(self.turn) * (t - 6.0) / 2.0}
        x, y = self.end if k > 450 else (0.0, 0.0)
        height = 0.3 if self.down and k == 500 else 0.76
        return {"x": x, "y": y, "height": height}


def composition_run(*walkers, obstacles=(), **arguments):
    """Infos and observations of the whole trial, and the environment."""
    count = len(walkers)
    env = GuidedVectorEnv(
        count, "composition", autoreset_mode="disabled", overrides=BRISK, **arguments
    )
    puppet(env, lambda k: states(*(walker(k) for walker in walkers)))
    options = {"qpos": standing()[0]}
    if len(obstacles):
        options |= {"goal": [5.0, 0.0], "obstacles": obstacles}
    obs, info = env.reset(seed=0, options=options)
    seen, infos = [obs], [info]
    for _ in range(500):
        obs, _, terminated, truncated, info = env.step(still(env))
        seen.append(obs)
        infos.append(info | {"terminated": terminated, "truncated": truncated})
    return env, infos, np.array(seen)


def test_composition_thresholds():
    """Half of 0.5 and 0.3 m/s; 0.15 m/s of displacement; 16.7 degrees in 2 s (25 of 1.5 rad)."""
    robots = [
        Walker(),
        Walker(speeds=(0.24, -0.16)),
        Walker(drift=0.16),
        Walker(drift=-0.16),
        Walker(drift=0.0, sway=0.6),  # where it ends counts, not how its pelvis swings
        Walker(speeds=(0.26, -0.14)),
        Walker(turn=16.0),
        Walker(turn=-20.0),
        Walker(end=(4.0, 0.0)),
        Walker(end=(5.0, 0.29)),
        Walker(down=True),
        Walker(),  # an obstacle stands at the goal
    ]
    stones = np.tile([[2.0, 3.0, 0.2]], (12, 1, 1))
    stones[11] = [5.3, 0.0, 0.2]
    _, infos, _ = composition_run(*robots, obstacles=stones)
    last = infos[-1]
    expected = np.ones((12, 4), bool)
    for robot, segment in ((1, 0), (2, 1), (3, 1), (5, 2), (6, 3), (7, 3)):
        expected[robot, segment] = False
    np.testing.assert_array_equal(last["segment_passed"], expected)
    arrived = np.full(12, 9.02)
    arrived[8] = np.inf
    np.testing.assert_array_equal(last["arrived_s"], arrived)
    assert last["touched"].tolist() == [False] * 11 + [True]
    assert last["success"].tolist() == [True] + [False] * 3 + [True] + [False] * 4 + [True] + (
        [False] * 2
    )
    assert not any(info["success"].any() for info in infos[:-1])
    assert last["truncated"].tolist() == [True] * 10 + [False, True]
    # Float32 states; sums of 75 velocities and of 100 changes of the heading.
    value = [0.26, 0.14, 0.16, np.radians(17.0)]
    np.testing.assert_allclose(last["segment_value"][0], value, atol=100 * EPS)
    np.testing.assert_allclose(last["segment_value"][4, 1], 0.0, atol=1e-9)
    for segment in range(4):
        assert not infos[100 * segment + 99]["segment_passed"][:, segment].any()
        assert infos[100 * segment + 100]["segment_passed"][0, segment]


def test_composition_by_the_papers_fall():
    """A robot that sits down in the end has its head up, and succeeds; strictly it does not."""
    _, infos, _ = composition_run(Walker(down=True), obstacles=[[2.0, 3.0, 0.2]], fall="head")
    assert infos[-1]["success"].tolist() == [True]
    assert infos[-1]["success_strict"].tolist() == [False]


@pytest.mark.slow
def test_composition_draws_its_goal_where_the_way_begins_and_pushes_throughout():
    away = Walker(end=(-3.0, 1.0))
    env, infos, seen = composition_run(*[away] * 40)
    assert (infos[-1]["pushes"] == 10).all()
    speed = np.hypot(*infos[-1]["push_velocity"].T)
    assert speed.max() <= 0.5 and np.ptp(speed) > 0.2
    places = env.task.observation_layout
    assert list(places)[-4:] == ["command", "goal_pos", "goal_distance", "obstacles"]
    wanted = [(0.5, 0, 0), (0, 0, 0), (-0.3, 0, 0), (0.3, 0, 0.5), (0, 0, 0)]
    for k in (0, 99, 100, 250, 399, 400, 500):
        phase = min(k // 100, 4)
        assert (infos[k]["segment"] == phase).all() and (infos[k]["command"] == wanted[phase]).all()
        assert (infos[k]["segments_done"] == min(k // 100, 4)).all()
        assert (seen[k][:, places["command"]] == np.float32(wanted[phase])).all()
        assert np.isinf(infos[k]["distance"]).all() == (k < 400)
        absent = seen[k][:, places["obstacles"]].reshape(-1, 3, 3) == [10.0, 0.0, 0.0]
        assert absent[:, 0].all(1).any() == (k < 400)
        assert seen[k][:, places["goal_pos"]].any() == (k >= 400)
    # At 8 s robots stand at (0, 0) heading 17 degrees to the left.
    distance = np.hypot(*infos[400]["goal"].T)
    assert distance.min() >= 2.0 and distance.max() <= 5.0 and np.ptp(distance) > 1.5
    turned = seen[400][:, places["goal_pos"]]
    angle = np.arctan2(turned[:, 1], turned[:, 0]) + np.radians(17.0)
    shown = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    np.testing.assert_allclose(shown, infos[400]["goal"], atol=20 * EPS)
    assert set(infos[400]["num_obstacles"].tolist()) <= {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(infos[500]["goal"], infos[400]["goal"])


def test_composition_rewards_each_phase_as_its_task():
    """A perfect walk earns all; on the way, speed towards the goal does."""
    robot = GuidedVectorEnv(1, "composition", autoreset_mode="disabled", overrides=BRISK)
    puppet(robot, lambda k: states({"forward": 0.5}))
    stones = {"goal": [50.0, 0.0], "obstacles": [[0.0, 50.0, 0.2]], "qpos": standing()[0]}
    robot.reset(seed=0, options=stones)
    paid = [robot.step(still(robot))[4]["reward_task"][0] for _ in range(420)]
    # Half is for turning, which only the fourth command asks for; exp(-(0.5 / 0.3)^2) for a stop.
    assert paid[50] == pytest.approx(0.5, abs=1e-6)
    assert paid[150] == pytest.approx(0.5 * (0.5 + 0.5 * np.exp(-25 / 9)), abs=1e-6)
    assert paid[399] == pytest.approx(0.25 * (np.exp(-4 / 9) + np.exp(-1.0)), abs=1e-6)
    assert paid[400] == pytest.approx(0.5, abs=1e-6)


def test_a_composition_continues_from_its_state_bit_for_bit():
    """Saved in the judged part of a stop, continued through the draw of goal and obstacles."""
    short = {"command_s": (0.2,) * 4, "judged_s": 0.1, "episode_s": 1.2, "push_interval_s": 0.1}
    envs = [GuidedVectorEnv(3, "composition", overrides=short) for _ in range(2)]
    rng = np.random.default_rng(0)
    actions = 0.1 * noise(rng, 120, 3)
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    for action in actions[:17]:
        envs[0].step(action)
    envs[1].set_state(pickle.loads(pickle.dumps(envs[0].get_state())))
    for action in actions[17:]:
        first, second = (env.step(action) for env in envs)
        same(dict(enumerate(first)), dict(enumerate(second)))
    assert first[4]["num_obstacles"].any() or first[4]["time_s"].any()


# --- warm-up --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NAMES)
def test_the_warm_up_does_not_count(task):
    """0.2 s in which the robot walks 1 m; then 0.1 s of the task, from where it is."""
    overrides = SHORT | {"episode_s": 0.1} if task == "joystick" else {"episode_s": 0.1}
    env = GuidedVectorEnv(2, task, warm_up_s=0.2, autoreset_mode="disabled", overrides=overrides)
    puppet(env, lambda k: states(*[{"x": min(0.1 * k, 1.0)}] * 2))
    obs, info = env.reset(seed=0, options={"qpos": standing()[0]})
    history = env.task.observation_layout["actions"].stop
    off = {"obstacle": [0.0] * 3 + [10.0, 0.0, 0.0] * 3}.get(task, [0.0] * (obs.shape[1] - history))
    pushes = []
    for k in range(16):
        warm = k < 10
        np.testing.assert_allclose(info["time_s"], 0.02 * (min(k, 15) - 10), atol=1e-9)
        asks = obs.shape[1] > history  # or there is no command that could be off
        assert (obs[:, history:] == np.float32(off)).all() == (warm or not asks)
        if task == "walk_perturb":
            pushes.append(int(info["pushes"][0]))
        elif task == "joystick":
            assert info["command"].any() != warm
        elif "distance" in info:
            assert np.isinf(info["distance"]).all() == warm
        if k == 10 and task in ("waypoint", "obstacle"):  # drawn from where the robot is
            distance = np.linalg.norm(info["goal"] - [1.0, 0.0], axis=1)
            np.testing.assert_allclose(distance, info["distance"])
            assert ((distance >= 2) & (distance <= 5)).all()
        if k == 15:
            break
        obs, reward, terminated, truncated, info = env.step(still(env))
        assert not terminated.any() and truncated.all() == (k == 14)
        assert not (warm and info["reward_task"].any())
        if task in ("joystick", "waypoint"):
            assert info["reward_task"].any() != warm
    if task == "walk_perturb":
        assert pushes == [0] * 11 + [1] * 5


def test_a_fall_in_the_warm_up_ends_the_episode():
    env = GuidedVectorEnv(1, "walk_perturb", warm_up_s=0.2, autoreset_mode="disabled")
    puppet(env, lambda k: states({"height": 0.3}))
    env.reset(seed=0)
    *_, terminated, _, info = env.step(still(env))
    assert terminated.all() and info["fell_strict"].all() and info["termination"][0] == "fall"


def test_a_given_goal_waits_for_the_end_of_the_warm_up():
    env = GuidedEnv("obstacle", warm_up_s=0.04)
    puppet(env, lambda k: states({}))
    given = {"goal": [3.0, 0.0], "obstacles": [[1.5, 0.0, 0.2]], "qpos": standing()[0]}
    obs, _ = env.reset(seed=0, options=given)
    place = env.task.observation_layout["goal_pos"]
    shown = [obs[place].tolist()]
    for _ in range(3):
        obs, *_, info = env.step(still(env))
        shown.append(obs[place].tolist())
    assert shown == [[0, 0], [0, 0], [3, 0], [3, 0]]
    assert info["goal"].tolist() == [3.0, 0.0] and info["num_obstacles"] == 1


# --- pictures -------------------------------------------------------------------------------------

PICTURE = dict(render_mode="rgb_array", width=160, height=120)


def pixels(picture, red, green, blue):
    """How many pixels have this hue, light or dark: colors of the renderer's decor."""
    color = np.array([red, green, blue], float)
    value = picture.reshape(-1, 3) / 255.0
    length = np.linalg.norm(value, axis=1) * np.linalg.norm(color)
    return int(((value @ color > 0.985 * length) & (np.ptp(value, axis=1) > 0.2)).sum())


GOAL, ARROW = (0.80, 0.10, 0.45), (0.90, 0.35, 0.05)


@pytest.mark.usefixtures("opengl")
def test_pictures_show_the_task():
    env = gymnasium.make("BMGuided-G1-Waypoint-v0", **PICTURE)
    pictures = {}
    for goal in ((1.0, 0.0), (-1.0, 0.5), (1.0, 0.0)):
        env.reset(seed=0, options={"qpos": standing()[0], "goal": goal})
        again, pictures[goal] = pictures.get(goal), env.render()
        assert again is None or np.array_equal(again, pictures[goal])
    a, b = pictures.values()
    assert a.shape == (120, 160, 3) and a.dtype == np.uint8
    assert pixels(a, *GOAL) > 40 and pixels(b, *GOAL) > 40 and pixels(a, *ARROW) > 5
    changed = (np.abs(a.astype(int) - b) > 30).any(-1)
    assert 80 < changed.sum() < 0.3 * changed.size  # goal and arrow, not the whole picture
    # Behind the camera there is no goal to see.
    env.reset(seed=0, options={"qpos": standing()[0], "goal": (20.0, -30.0)})
    assert pixels(env.render(), *GOAL) == 0
    env.close()


@pytest.mark.usefixtures("opengl")
def test_pictures_show_obstacles_command_and_path():
    # At small size: an obstacle in the picture changes what is where it stands.
    env = GuidedEnv("obstacle", **PICTURE)
    found = []
    for stones in (np.zeros((0, 3)), [[0.8, -0.8, 0.3]]):
        given = {"qpos": standing()[0], "goal": [2.0, 0.0], "obstacles": stones}
        env.reset(seed=0, options=given)
        found.append(env.render().astype(int))
    assert ((np.abs(found[0] - found[1]) > 30).any(-1)).sum() > 300
    env.close()
    # The joystick's arrow points forward, then backward; the path is where the robot was.
    env = puppet(
        GuidedEnv("joystick", overrides=SHORT, **PICTURE), lambda k: states({"x": 0.2 * (k - 10)})
    )
    env.reset(seed=0, options={"qpos": standing(-2.0)[0]})
    assert "path" not in env.task.shown()
    forward = env.task.shown()["arrow"]
    np.testing.assert_allclose(forward[1] - forward[0], [0.6, 0, 0], atol=1e-6)
    for _ in range(10):
        env.step(still(env))
    path = env.task.shown()["path"]
    np.testing.assert_allclose(path, [[-2.0, 0], [-1.0, 0], [0.0, 0]], atol=1e-6)
    with_path = env.render()
    env.task._trail.clear()
    without = env.render()
    changed = (np.abs(with_path.astype(int) - without) > 30).any(-1)
    assert 10 < changed.sum() < 0.1 * changed.size
    env.close()


def test_the_arrow_of_a_turn_is_the_chord_of_its_arc():
    """0.4 m/s with 0.5 rad/s for a second: radius 0.8 m, from the formula of a circle."""
    env = GuidedEnv("joystick", overrides={"commands": ((0.4, 0.0, 0.5),)})
    env.reset(seed=0, options={"qpos": standing(1.0, 2.0, np.pi / 2)[0]})
    start, end = env.task.shown()["arrow"]
    ahead, left = 0.8 * np.sin(0.5), 0.8 * (1 - np.cos(0.5))
    np.testing.assert_allclose(start, [1.0, 2.0, 1.45], atol=1e-6)
    np.testing.assert_allclose(end - start, [-left, ahead, 0.0], atol=1e-6)


def test_pushes_are_shown_for_half_a_second():
    env = puppet(GuidedEnv("walk_perturb"), lambda k: states({}))
    env.reset(seed=0)
    shown = ["arrow" in env.task.shown()]
    for _ in range(52):
        *_, info = env.step(still(env))
        shown.append("arrow" in env.task.shown())
    assert shown == [False] + [True] * 25 + [False] * 25 + [True] * 2
    start, end = env.task.shown()["arrow"]
    np.testing.assert_allclose((end - start)[:2], info["push_velocity"])


@pytest.mark.usefixtures("opengl")
def test_vector_pictures_and_depth():
    env = GuidedVectorEnv(2, "waypoint", render_mode="rgbd_tuple", width=64, height=48)
    env.reset(seed=0)
    shown = env.render()
    assert len(shown) == 2  # one a robot
    for picture, depth in shown:
        assert picture.shape == (48, 64, 3) and depth.shape == (48, 64)
    assert (shown[0][1] != shown[1][1]).any()
    env.close()


@pytest.mark.slow
def test_a_window_shows_the_task():
    """In a process of its own, which has a display."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("xvfb-run is not installed: no display to open a window on")
    code = """
import numpy as np
from bm_envs.envs import GuidedEnv
env = GuidedEnv("obstacle", render_mode="human")
env.reset(seed=0, options={"goal": [3.0, 0.0], "obstacles": [[1.5, 0.0, 0.2]]})
# Obstacle, disc, pole, flag and arrow; the path is still one point.
print(env._core._viewer._handle.user_scn.ngeom)
for _ in range(5):
    env.step(np.zeros(29, np.float32))
print(env._core._viewer._handle.user_scn.ngeom)
env.close()
"""
    done = subprocess.run(
        [xvfb, "-a", sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout.split()) == (0, ["5", "6"]), done.stderr


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arguments", "text"),
    [
        ("obstacel", {}, "Unknown task 'obstacel'; did you mean 'obstacle'?"),
        ("joystick", {"fall": "hard"}, "fall is 'hard', expected 'strict' or 'head'."),
        ("joystick", {"warm_up_s": -1}, "warm_up_s is -1, expected 0 or more."),
        ("joystick", {"warm_up_s": float("nan")}, "warm_up_s is nan, expected a number."),
        ("joystick", {"episode_s": None}, "episode_s is None, expected a number."),
        ("joystick", {"episode_s": 2.0}, "episode_s is 2.0, expected segment_s, 3.0, or more."),
        ("waypoint", {"overrides": {"goal_radus": 1}},
         "Unknown setting 'goal_radus'; did you mean 'goal_radius'"),
        ("waypoint", {"overrides": {"goal_radius": 0}}, "goal_radius is 0, expected a number abov"),
        ("waypoint", {"overrides": {"goal_distance": (5, 2)}},
         "goal_distance is (5, 2), expected two ascending numbers of 0 or more."),
        ("joystick", {"overrides": {"judged_s": 4.0}}, "judged_s is 4.0, expected 0.02 to 3."),
        ("joystick", {"overrides": {"commands": ()}}, "commands is empty, expected at least one."),
        ("joystick", {"overrides": {"commands": ((1.0, 0.0),)}}, "commands is ((1.0, 0.0),), exp"),
        ("joystick", {"overrides": {"rewards": {"alive": 0.6}}},
         "rewards.alive + rewards.task is 1.1, expected 1 at most."),
        ("joystick", {"overrides": {"start_motions": "walk"}},
         "start_motions is 'walk', expected several texts."),
        ("joystick", {"overrides": {"start_motions": ("wakl",)}}, "Unknown motion 'wakl'"),
        ("joystick", {"overrides": {"action_delay": -1}}, "action_delay is -1, expected 0 or mo"),
        ("joystick", {"overrides": {"decimation": 3}}, "is 0.015 s, expected 0.02 s."),
        ("joystick", {"overrides": {"actuation": {"stiffness": (1.0,)}}},
         "actuation.stiffness has 1 values, expected 29."),
        ("walk_perturb", {"overrides": {"push_speed": 0.5}}, "push_speed is 0.5, expected 2 nu"),
        ("obstacle", {"overrides": {"goal_distance": (1, 2)}},
         "goal_distance begins at 1, expected 1.8 m or more"),
        ("obstacle", {"overrides": {"obstacle_count": (0, 5)}},
         "obstacle_count is (0, 5), expected two ascending numbers of 1 or more."),
        ("obstacle", {"overrides": {"obstacle_count": (1.0, 2.5)}},
         "obstacle_count is (1.0, 2.5), expected 2 integers."),
        ("run", {"overrides": {"judged_s": 0.0}}, "judged_s is 0.0, expected 0.02 or more."),
        ("run", {"overrides": {"most_speed_share": 0.5}}, "is 0.5, expected 0.85 or more."),
        ("composition", {"overrides": {"command_s": (1.0,)}},
         "command_s has 1 values, expected 4: one for each of commands."),
        ("composition", {"overrides": {"command_s": (8.0, 6.0, 6.0, 0.0)}},
         "command_s[3] is 0.0, expected 0.02 or more."),
        ("composition", {"overrides": {"judged_s": 7.0}}, "judged_s is 7.0, expected 0.02 to 6."),
        ("composition", {"episode_s": 26.0},
         "episode_s is 26.0, expected more than the 26 of command_s: the rest is for the way."),
        ("composition", {"overrides": {"most_stop_speed": -1.0}},
         "most_stop_speed is -1.0, expected 0 or more."),
        ("composition", {"overrides": {"push_speed": 0.5}}, "push_speed is 0.5, expected 2 nu"),
        ("composition", {"overrides": {"obstacle_count": (0, 5)}},
         "obstacle_count is (0, 5), expected two ascending numbers of 1 or more."),
        ("obstacle", {"config": WaypointConfig()},
         "config is a WaypointConfig, expected a ObstacleConfig for task 'obstacle'."),
        ("joystick", {"render_mode": "ascii"}, "render_mode is 'ascii', expected None or one of"),
        ("joystick", {"backend": "phsyx"}, "Unknown backend 'phsyx'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(task, arguments, text):
    with pytest.raises(BMError, match=f"^{re.escape(text)}" if text[:2] != "is" else text):
        GuidedEnv(task, **arguments)
    with pytest.raises(BMError, match=re.escape(text)):
        GuidedVectorEnv(2, task, **arguments)


@pytest.mark.parametrize(
    ("task", "options", "text"),
    [
        ("waypoint", {"frame": 1},
         "Unknown reset option 'frame', expected qpos, qvel, goal or reset_mask."),
        ("joystick", {"goal": [1, 2]},
         "Unknown reset option 'goal', expected qpos, qvel or reset_mask."),
        ("waypoint", {"qpos": np.zeros(35)},
         "options['qpos'] has shape (35,), expected (36,) or (2, 36)."),
        ("waypoint", {"qpos": np.zeros(36)},
         "options['qpos'] has a quaternion of length 0, expected 1."),
        ("waypoint", {"qpos": np.full(36, np.nan)},
         "options['qpos'] holds a value that is not finite."),
        ("waypoint", {"qvel": np.zeros(35)},
         "options have 'qvel' without 'qpos', expected both or 'qpos' alone."),
        ("waypoint", {"goal": "there"}, "options['goal'] is not an array of numbers."),
        ("waypoint", {"goal": [[1, 2]] * 3},
         "options['goal'] has shape (3, 2), expected (2,) or (2, 2)."),
        ("obstacle", {"obstacles": [[1, 0, 0.2]]},
         "options have 'obstacles' without 'goal', expected both or neither."),
        ("obstacle", {"goal": [3, 0], "obstacles": [1, 0, 0.2]},
         "options['obstacles'] has shape (3,), expected (C, 3) or (2, C, 3) with C of 0 to 5: "
         "x, y, radius in m."),
        ("obstacle", {"goal": [3, 0], "obstacles": [[1, 0, 0.2]] * 6},
         "options['obstacles'] has shape (6, 3), expected (C, 3) or (2, C, 3) with C of 0 to 5: "
         "x, y, radius in m."),
        ("obstacle", {"goal": [3, 0], "obstacles": [[1, 0, 0.0]]},
         "options['obstacles'] has a radius of 0 or less, expected more."),
    ],
)  # fmt: skip
def test_bad_reset_options_are_refused_in_one_sentence(task, options, text):
    env = GuidedVectorEnv(2, task)
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        env.reset(seed=0, options=options)


def test_bad_actions_and_modes_are_refused_in_one_sentence():
    env = GuidedEnv("joystick")
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=re.escape("action has shape (28,), expected (29,).")):
        env.step(np.zeros(28, np.float32))
    with pytest.raises(ConfigError, match=re.escape("action[3] is not finite")):
        env.step(np.where(np.arange(29) == 3, np.nan, 0).astype(np.float32))
    with pytest.raises(ConfigError, match="autoreset_mode is 'later', expected 'same_step'"):
        GuidedVectorEnv(2, "joystick", autoreset_mode="later")


def test_a_whole_configuration_is_taken():
    config = dataclasses.replace(WaypointConfig(), goal_distance=(1.0, 1.0), fall="head")
    env = GuidedVectorEnv(3, "waypoint", config=config, episode_s=3.0)
    _, info = env.reset(seed=0)
    np.testing.assert_allclose(info["distance"], 1.0, rtol=4 * EPS)
    assert env.config == dataclasses.replace(config, episode_s=3.0)
