"""The compiled arithmetic against NumPy's: the same task in two processes' worth of states."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from bm_envs.backends import native
from bm_envs.envs import TrackVectorEnv
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS
from bm_envs.tasks.track import kernel
from bm_envs.tasks.track.task import TrackTask

N = 64
SETTINGS = {
    "train": {},
    "published": {"preset": "published"},
    "v4": {"preset": "v4"},
    "pelvis rules": {"preset": "robust"},
    "a rotation rule": {"preset": "robust", "overrides": {"failure_rotation": 0.2}},
    "no rules": {"overrides": {"failure": "none"}},
    "no contact term": {"overrides": {"rewards": {"contact_term": "none"}}},
    "a distance rule": {"overrides": {"failure_distance": 0.3}},
    "turned velocities": {"overrides": {"rotate_velocity_targets": True}},
    "fewer terms, other order": {"overrides": {"observations": NO_STATE_ESTIMATION_TERMS[::-1]}},
}

needs_library = pytest.mark.skipif(
    native.library() is None, reason="the library was not compiled: no C compiler"
)


def test_the_library_is_built_where_tests_run_for_real():
    """Without it the tests below would all skip: a compiler is part of CI."""
    if os.environ.get("CI") == "true":
        assert native.library() is not None


def numpys(task: TrackTask):
    """A second task without the kernel on the same arrays."""
    other = object.__new__(TrackTask)
    vars(other).update(vars(task))
    other._kernel = None
    return other


@needs_library
@pytest.mark.parametrize("name", SETTINGS)
def test_terms_and_observations_are_numpys(name):
    """Two minutes of robots that follow, fall and are reset, with all their disturbances."""
    settings = {"preset": "train", **SETTINGS[name]}
    env = TrackVectorEnv(N, ["walk", "turn_left"], **settings)
    env.reset(seed=0)
    task, state, rng = env.task, env.task.state, np.random.default_rng(0)
    assert task._kernel is not None
    other = numpys(task)
    fallen, touching = 0, 0.0
    for _ in range(100):
        noise = rng.normal(0, 0.5, (N, 29))
        _, _, terminated, truncated, _ = env.step((task.reference_action() + noise).astype("f4"))
        fallen += int((terminated | truncated).sum())
        reference, shown = state.reference.rows.copy(), state.shown.rows.copy()
        for one in (other, task):
            state.reference.rows[:] = state.shown.rows[:] = 0
            one._look_up(slice(None))
            np.testing.assert_array_equal(state.reference.rows, reference)
            np.testing.assert_array_equal(state.shown.rows, shown)
        diverged = np.zeros(N, bool)
        diverged[5] = True
        before = task.sampler.visits.copy(), task.sampler.failures.copy()
        reward, values, failures, terminated = task._compare(diverged)
        counted = task.sampler.visits.copy(), task.sampler.failures.copy()
        task.sampler.visits[:], task.sampler.failures[:] = before
        reward2, values2, failures2, terminated2 = other._compare(diverged)
        np.testing.assert_allclose(counted[0], task.sampler.visits, rtol=1e-12)
        np.testing.assert_allclose(counted[1], task.sampler.failures, rtol=1e-12)
        np.testing.assert_array_equal(terminated, terminated2)
        # float32: sums of 42 products in another order, and exp, acos and sin of two libraries.
        np.testing.assert_allclose(values, values2, rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(reward, reward2, rtol=2e-4, atol=2e-6)
        touching += float(abs(values[:, 8:]).sum())
        assert len(failures2) == len(task.tables.rule_names) <= len(failures)
        for mine, theirs in zip(failures, failures2, strict=False):
            assert (mine != theirs).sum() == 0  # or a robot would be within 1e-6 of a threshold
        for ids in (slice(None), np.array([3, 9, 11])):
            found = task.observe(ids, None)
            stale = state.stale_pos.copy()
            for mine, theirs in zip(found, other.observe(ids, None), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=2e-6)
            np.testing.assert_array_equal(state.stale_pos, stale)
    assert fallen or name == "no rules"
    if name in ("v4", "no rules"):
        assert touching, "premise: contacts of links are counted, their own or any"


@needs_library
def test_a_diverged_robot_is_dealt_with_alike():
    found = []
    for task_of in (lambda task: task, numpys):
        env = TrackVectorEnv(4, "walk", autoreset_mode="disabled")
        env.reset(seed=0)
        env._core.task = env.task = task_of(env.task)
        env.simulator.push(np.array([2]), np.full((1, 3), 1e30), np.zeros((1, 3)))
        obs, reward, terminated, _, info = env.step(np.zeros((4, 29), np.float32))
        found.append((obs, reward, terminated, info["reward_body_pos"]))
    (obs, reward, terminated, term), other = found
    assert terminated.tolist() == other[2].tolist() and terminated[2]
    assert reward[2] == other[1][2] == term[2] == other[3][2] == 0
    np.testing.assert_allclose(obs, other[0], rtol=1e-5, atol=2e-6)


@needs_library
def test_copies_round_as_numpy_does():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(6, 9)) * 10.0 ** rng.integers(-40, 45, (6, 9))
    source[1, 2], source[3, 4] = np.nan, np.inf
    columns = np.array([5, 0, 2, 4])
    with np.errstate(over="ignore"):
        expected = source.astype(np.float32)
    target = np.zeros((6, 9), np.float32)
    native.Casts((source, target, None))()
    np.testing.assert_array_equal(target, expected)
    chosen = np.full((6, 4), 7, np.float32)
    native.Casts((source[:, 1:], chosen, columns), (source, target, None))(np.array([4, 1]))
    np.testing.assert_array_equal(chosen[[4, 1]], expected[:, 1:][[4, 1]][:, columns])
    assert (chosen[[0, 2, 3, 5]] == 7).all()


def test_without_the_library_numpy_does_it():
    code = (
        "import numpy as np; from bm_envs.backends import native;"
        "from bm_envs.envs import TrackVectorEnv;"
        "env = TrackVectorEnv(3, 'walk'); env.reset(seed=0);"
        "assert native.library() is None and env.task._kernel is None;"
        "print(float(env.step(np.zeros((3, 29), np.float32))[1].sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "BM_NATIVE": "0"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    env = TrackVectorEnv(3, "walk")
    env.reset(seed=0)
    expected = float(env.step(np.zeros((3, 29), np.float32))[1].sum())
    assert float(done.stdout) == pytest.approx(expected, rel=1e-5)


@needs_library
def test_a_library_of_another_version_is_not_used(monkeypatch):
    native.library.cache_clear()
    try:
        monkeypatch.setattr(native, "VERSION", 99)
        with pytest.warns(RuntimeWarning, match="built from another version of native.c"):
            assert native.library() is None
    finally:
        monkeypatch.undo()
        native.library.cache_clear()
    assert native.library() is not None


@needs_library
def test_a_library_with_another_structure_is_not_used(monkeypatch):
    class Longer(ctypes.Structure):
        _fields_ = [("track", kernel.Track), ("more", ctypes.c_int64)]

    monkeypatch.setattr(kernel, "Track", Longer)
    with pytest.warns(RuntimeWarning, match="built from another version of native.c"):
        env = TrackVectorEnv(2, "stand")
    assert env.task._kernel is None
    env.close()


@needs_library
def test_a_library_for_another_robot_is_not_used(monkeypatch):
    """With rows of other lengths it would write past their ends."""
    monkeypatch.setattr(kernel, "K", 15)
    expected = "is for 14 tracked bodies .*, the robot has 15: NumPy does"
    with pytest.warns(RuntimeWarning, match=expected) as told:
        env = TrackVectorEnv(2, "stand")
    assert len(told) == 1 and env.task._kernel is None
    env.reset(seed=0)
    env.step(np.zeros((2, 29), np.float32))
    env.close()
