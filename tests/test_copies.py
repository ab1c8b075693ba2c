"""Copies, pickles and forked processes of environments go on as the original, to the last bit."""

import copy
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import time

import gymnasium
import numpy as np
import pytest

import bm_envs  # noqa: F401  (registers the environments)
from bm_envs.backends import native
from bm_envs.backends.mujoco_cpu import MujocoSimulator
from bm_envs.envs import Named, TrackVectorEnv
from bm_envs.tasks.track import kernel

cloudpickle = importlib.import_module("cloudpickle")  # which Gymnasium itself requires
IDS = [name for name in gymnasium.registry if name.startswith("BM")]
COPIES = {
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "deepcopy": copy.deepcopy,
    "cloudpickle": lambda env: cloudpickle.loads(cloudpickle.dumps(env)),
}
STEPS = 120


def make(name, count, **settings):
    """One robot, or `count` in a vector environment with threads of its own."""
    if "Track" in name:
        settings["motion"] = ["walk", "turn_left"]
    if count is None:
        return gymnasium.make(name, **settings)
    return gymnasium.make_vec(name, num_envs=count, threads=2, **settings)


def play(envs, steps, rng):
    """Drive environments by the same actions and compare all that they return."""
    first, ends = envs[0], 0
    for _ in range(steps):
        action = rng.normal(size=first.action_space.shape).astype(np.float32)
        results = [env.step(action) for env in envs]
        for result in results[1:]:
            assert_same(results[0], result)
        ends += np.sum(results[0][2]) + np.sum(results[0][3])
        if first.action_space.shape in ((29,), (23,)) and (results[0][2] or results[0][3]):
            starts = [env.reset() for env in envs]
            for start in starts[1:]:
                assert_same(starts[0], start)
    return ends


def assert_same(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, tuple | list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        np.testing.assert_array_equal(a, b)
        assert type(a) is type(b)


@pytest.fixture(params=["compiled", "numpy"])
def arithmetic(request, monkeypatch):
    """With and without the compiled part."""
    if request.param == "compiled":
        if native.library() is None:
            pytest.skip("the library was not compiled: no C compiler")
        return
    for module in (native, kernel):
        monkeypatch.setattr(module, "library", lambda: None)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("count", [None, 1, 6])
@pytest.mark.parametrize("name", IDS)
def test_copies_of_the_middle_of_an_episode_go_on_alike(name, count):
    env, rng = make(name, count), np.random.default_rng(0)
    env.reset(seed=1)
    play([env], 13, rng)
    copies = [copied(env) for copied in COPIES.values()]
    ends = play([env, *copies], STEPS, rng)
    if "Track" in name:
        assert ends  # episodes that ended and began anew were part of it
    # Copies are of their own: what one does changes no other.
    play(copies[:1], 3, rng)
    play([env, *copies[1:]], 5, rng)
    for one in (env, *copies):
        one.close()


def test_copies_of_what_is_special():
    """Delays, seeds for each robot, a diverged robot, a time limit, the other autoreset modes."""
    rng = np.random.default_rng(0)
    env = make("BMTrack-G1-v0", 5, autoreset_mode="next_step", max_episode_steps=7,
               overrides={"randomize": {"action_delay": 2, "when": "reset"}})  # fmt: skip
    env.reset(seed=0)
    assert play([env, *(copied(env) for copied in COPIES.values())], 20, rng)
    env = make("BMGuided-G1-Obstacle-v0", 3, autoreset_mode="disabled")
    env.reset(seed=[4, 5, 6])
    play([env, pickle.loads(pickle.dumps(env))], 20, rng)
    env = TrackVectorEnv(3, "stand", autoreset_mode="disabled", overrides={"failure": "none"})
    env.reset(seed=0)
    env.simulator.push(np.array([1]), np.full((1, 3), 1e30), np.zeros((1, 3)))
    env.step(np.zeros((3, 29), np.float32))
    assert env.simulator.diverged().tolist() == [False, True, False]
    play([env, copy.deepcopy(env)], 10, rng)


def test_a_closed_environment_stays_closed_as_a_copy():
    env = make("BMTrack-G1-v0", 2)
    env.close()
    again = pickle.loads(pickle.dumps(env))
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        again.reset()
    again.close()


def test_a_simulator_is_copied_with_what_was_randomized():
    env = make("BMTrack-G1-v0", 4)
    env.reset(seed=3)
    first = env.unwrapped.simulator
    second = copy.deepcopy(first)
    assert isinstance(second, MujocoSimulator)
    for name, value in first.read_model().items():
        np.testing.assert_array_equal(second.read_model()[name], value)
    assert np.ptp(second.read_model()["foot_friction"]) > 0


def test_a_name_is_kept_with_its_number():
    name = Named(3, "walk")
    for again in (copy.deepcopy(name), pickle.loads(pickle.dumps(name))):
        assert again == 3 and again == "walk" and str(again) == "walk" and again != "stand"
    assert np.stack([name, name]).dtype == np.int64 and {"walk": 1}[name] == 1
    assert name != 2 and not name == "stand" and isinstance(name, int)


def test_the_warp_backend_is_copied_as_well():
    pytest.importorskip("mujoco_warp", reason="needs the extra warp: pip install -e '.[warp]'")
    env = make("BMTrack-G1-v0", 2, backend="mujoco_warp")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    play([env], 2, rng)
    play([env, pickle.loads(pickle.dumps(env))], 5, rng)


# --- processes -----------------------------------------------------------------------------------


def _go_on(env, pipe, seed):
    """In another process: what the environment does next."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(20):
        found.append(env.step(rng.normal(size=env.action_space.shape).astype(np.float32))[:4])
    env.close()
    pipe.send(found)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("name", ["BMTrack-G1-v0", "BMGuided-G1-Joystick-v0"])
def test_another_process_goes_on_from_the_middle_of_an_episode(name, method):
    """The engine's two threads are not in a forked child: it must start its own, and not wait."""
    env = make(name, 6)
    env.reset(seed=2)
    play([env], 5, np.random.default_rng(9))
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_go_on, args=(env, there, 7))
    process.start()
    try:
        assert here.poll(120), "the other process waits for ever"
        found = here.recv()
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
    rng = np.random.default_rng(7)
    for result in found:
        action = rng.normal(size=env.action_space.shape).astype(np.float32)
        assert_same(env.step(action)[:4], result)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_reset_close_and_end():
    """Its copy of the engine must not wait for threads that are not there, at its end either."""
    env = make("BMTrack-G1-v0", 4)
    env.reset(seed=0)
    thrown_away = make("BMTrack-G1-v0", 4)
    del thrown_away  # in a circle, which waits for the collector
    for use in ("reset", "close", "nothing", "collect"):
        child = os.fork()
        if not child:  # no test of its own here: only a status
            status = 1
            try:
                if use == "reset":
                    env.reset(seed=1)
                elif use == "close":
                    env.close()
                elif use == "collect":
                    gc.collect()
                status = 0
            finally:
                os._exit(status)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.02)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail(f"the child that was to do {use!r} hangs")
        assert status == 0, use


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_gymnasiums_own_processes_hold_environments(context):
    """`AsyncVectorEnv`; its infos are numbers, the clips' and rules' as well."""
    singles = [make("BMTrack-G1-v0", None) for _ in range(2)]
    many = gymnasium.vector.AsyncVectorEnv(
        [lambda: gymnasium.make("bm_envs:BMTrack-G1-v0", motion=["walk", "turn_left"])] * 2,
        context=context,
    )
    try:
        obs, info = many.reset(seed=[1, 2])
        starts = [env.reset(seed=seed) for env, seed in zip(singles, (1, 2), strict=True)]
        np.testing.assert_array_equal(obs, [start for start, _ in starts])
        assert np.stack(info["clip"]).dtype == np.int64
        assert list(info["clip"]) == [start["clip"] for _, start in starts]
        obs, reward, *_ = many.step(np.zeros((2, 29), np.float32))
        results = [env.step(np.zeros(29, np.float32)) for env in singles]
        np.testing.assert_array_equal(obs, [result[0] for result in results])
        np.testing.assert_array_equal(reward, [result[1] for result in results])
    finally:
        many.close()
