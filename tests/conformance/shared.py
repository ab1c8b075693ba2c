"""The simulators that tests share, and which engines have to give theirs up for another.

Apart from `conftest.py`, of which pytest may import a copy under a name of its own.
"""

from __future__ import annotations

import sys

from bm_envs.backends.base import Simulator, SimulatorConfig
from bm_envs.backends.host import make_host_simulator

N = 4  # robots of a simulator that tests share
# Isaac Lab has one simulation a process: the next can be made once the last is closed.
ONE_AT_A_TIME = {"isaaclab", "isaaclab_physx"}

_open: dict[str, Simulator] = {}  # by backend


def shared_simulator(backend: str) -> Simulator:
    """The one of a backend, under standard settings."""
    if backend not in _open:
        make_room(backend)
        _open[backend] = make_host_simulator(backend, SimulatorConfig(N))
    return _open[backend]


def close_shared(backend: str) -> None:
    if backend in _open:
        _open.pop(backend).close()


def make_room(backend: str) -> None:
    """Before another simulator is made: an engine that has one a process gives up the last.

    That may be one that a failed test has left open.
    """
    if backend in ONE_AT_A_TIME:
        for name in ONE_AT_A_TIME:
            close_shared(name)
        if "isaaclab.sim" in sys.modules:
            sys.modules["isaaclab.sim"].SimulationContext.clear_instance()
