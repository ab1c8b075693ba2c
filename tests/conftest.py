"""Shared fixtures, and which tests are quick.

Data that may not be in the repository come from the folder `BM_DATA_DIR`.
"""

import ctypes
import gc
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A test says nothing about time: a busy machine takes as long as it takes.
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

# Physics and small networks gain nothing from threads of their own here, and two cores are common.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# MuJoCo reserves 18 MB of address space a robot and uses little of it. glibc keeps what a thousand
# robots gave back in one piece, and Linux forks no process with a piece larger than the memory.
# Above this size (M_MMAP_THRESHOLD) each piece is returned as it is freed.
if sys.platform == "linux" and hasattr(_libc := ctypes.CDLL(None), "mallopt"):
    _libc.mallopt(-3, 1 << 20)

# What starts the tests may ignore signals (`nohup`, a shell's `&`), and commands that the tests
# start would inherit that: but how a command ends when asked is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("SIGHUP", "SIGQUIT", "SIGTERM", "SIGTSTP"):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), signal.SIG_DFL)


# Converted motions are kept for the time of the tests, and none that a user has are looked at.
_cache = tempfile.TemporaryDirectory(prefix="bm-envs-tests-")
os.environ["BM_CACHE_DIR"] = _cache.name

TESTS = Path(__file__).parent
# Files that `pytest -m quick` leaves out: they train, start many processes, or compare at length.
# Of all others it takes the tests that are not marked `slow`.
NOT_QUICK = {
    "adapters/test_adapters.py",
    "benchmarks/test_gates.py",
    "benchmarks/test_gpu_benchmark.py",
    "benchmarks/test_guided_benchmark.py",
    "benchmarks/test_learning_benchmark.py",
    "benchmarks/test_making_benchmark.py",
    "benchmarks/test_physics_accuracy.py",
    "benchmarks/test_reliability.py",
    "benchmarks/test_sweep.py",
    "benchmarks/test_throughput.py",
    "benchmarks/test_track_benchmark.py",
    "conformance/test_conformance_record.py",
    "deploy/test_dds.py",
    "learning/test_ending.py",
    "learning/test_run_files.py",
    "motion/test_checks.py",
    "motion/test_hostile_motion.py",
    "motion/test_hub.py",
    "policy/test_hostile_graphs.py",
    "policy/test_hub_policies.py",
    "policy/test_malformed_policy.py",
    "project/test_demo.py",
    "project/test_docs.py",
    "project/test_notebook.py",
    "project/test_packaging.py",
    "project/test_publishing.py",
    "project/test_readme.py",
    "tasks/track/test_device_task.py",
    "test_cli.py",
    "test_commands.py",
    "test_copies.py",
    "test_main.py",
    "tools/test_pages.py",
    "tools/test_play.py",
    "tools/test_replay.py",
    "tools/test_ros_bridge.py",
    "viewers/test_page_guard.py",
    "viewers/test_render.py",
}
QUICK_S = 10.0  # s of processor time that a quick test may take, its processes' included


def only_quick(config: pytest.Config) -> bool:
    return config.option.markexpr == "quick"


def file_of(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is not quick before it is imported, which takes a good part of the time."""
    if only_quick(config) and TESTS in collection_path.parents:
        return file_of(collection_path) in NOT_QUICK or None
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the quick tests."""
    if file_of(item.path) not in NOT_QUICK and item.get_closest_marker("slow") is None:
        item.add_marker(pytest.mark.quick)


def pytest_configure(config: pytest.Config) -> None:
    """With workers, keep the order below; they would begin with the files of the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers begin with the files that take long, so that none has a long one left at the end."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if item.get_closest_marker("quick") is None}
        items.sort(key=lambda item: item.path not in long)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is about the policies of a clone has no place elsewhere."""
    if item.get_closest_marker("clone") and not (TESTS.parent / "policies").is_dir():
        pytest.skip("policies/ is in a clone, and not in a source distribution")


def processor_s() -> float:
    """Seconds that this process and those that it waited for have had of a processor."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A quick test that is none fails; what else the machine does has no part in its figure."""
    began = processor_s()
    result = yield
    if only_quick(pyfuncitem.config):
        took = processor_s() - began
        assert took < QUICK_S, f"a quick test took {took:.1f} s: mark it slow"
    return result


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it.

    That is a million objects, through which it would go again and again while the tests run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def counted_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that a test makes without a seed draws the same each time the test runs.

    Gymnasium would take the seed from the system, and a start in a clip's last frame, say, would
    then fail a test once in a while. Seeds differ from one environment to the next.
    """
    from gymnasium.utils import seeding

    seeds, made = itertools.count(7001), seeding.np_random

    def np_random(seed: int | None = None) -> tuple[object, int]:
        return made(next(seeds) if seed is None else seed)

    monkeypatch.setattr(seeding, "np_random", np_random)


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skips where nothing can be drawn."""
    from bm_envs.errors import BackendUnavailable
    from bm_envs.viewers import OffscreenRenderer

    try:
        OffscreenRenderer(width=16, height=16).close()
    except BackendUnavailable as error:
        pytest.skip(f"no OpenGL on this machine: {error}")


@pytest.fixture(scope="module")
def chromium() -> Generator[Any, None, None]:
    """A real browser, which draws WebGL by the processor; skips where there is none."""
    # At the end of the path, where it hides no other module.
    sys.path.append(str(TESTS.parent / "benchmarks"))
    import demo_page

    from bm_envs.errors import BackendUnavailable

    try:
        with demo_page.chromium() as browser:
            yield browser
    except BackendUnavailable as error:
        pytest.skip(f"the pages are not looked at: {error}")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder `BM_DATA_DIR` (lafan1_g1, g1_moves, bvh, oracle_policies); skips where unset."""
    folder = os.environ.get("BM_DATA_DIR")
    if not folder:
        pytest.skip("BM_DATA_DIR is not set: it names a folder with motions that are not in here")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"BM_DATA_DIR is '{folder}', which is no folder")
    return path
