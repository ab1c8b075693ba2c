"""Shared fixtures. Data that may not be in the repository come from the folder `BM_DATA_DIR`."""

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

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


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it.

    That is a million objects, through which it would go again and again while the tests run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def opengl() -> None:
    """Skips where nothing can be drawn."""
    from bm_envs.errors import BackendUnavailable
    from bm_envs.viewers import OffscreenRenderer

    try:
        OffscreenRenderer(width=16, height=16).close()
    except BackendUnavailable as error:
        pytest.skip(f"no OpenGL on this machine: {error}")


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
