"""Which backends the suite runs on, and how exact each has to be.

`pytest tests/conformance --backend NAME NAME` names them; one that is named and absent is a
failure. Without the option every backend is tried, and an absent one skipped with the reason and
the command that would run it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bm_envs.backends.base import Simulator, SimulatorConfig, backend_names
from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import BackendUnavailable
from tests.conformance.physx_cpu import ignore_pinned
from tests.conformance.shared import close_shared, make_room, shared_simulator

# What brings a backend, for the reason of a skip. A new backend enters its own.
HOW = {
    "mujoco": "pip install -e '.[dev]'",
    "mujoco_warp": "pip install -e '.[dev,warp]'",
    "isaaclab": "tools/isaaclab_env runs/isaaclab",
    "isaaclab_physx": "tools/isaaclab_env runs/isaaclab --physx",
}


@dataclass(frozen=True)
class Bounds:
    """How far a backend may be from a plain loop of MuJoCo's C engine in float64."""

    place: float = 2e-6
    """m, rad and components of quaternions of a state that was written: float32 near 1."""
    velocity: float = 2e-5
    """m/s and rad/s of the same: sums over a chain of ten joints, near 10."""
    rollout: float = 1e-3
    """rad, joints after 0.2 s with contact."""
    flight: float = 1e-4
    """m, free fall of 0.5 s."""
    response: float = 1e-4
    """rad, a joint's step response."""
    force: float = 0.01
    """Share of the weight."""
    friction: float = 0.05
    """Share of the coefficient."""
    deterministic: bool = True
    """Whether robots that are put back into a state go on with the same bits. (Where not, contacts
    of before are remembered; a simulation made anew repeats itself all the same: check C15.)"""


# PhysX integrates in finer steps, so that a fall is nearer to the parabola than MuJoCo's by up to
# g t dt / 2 = 0.0123 m; its drives reach the same place by another way (joints are 0.03 rad off on
# the way of check C13).
BOUNDS = {
    "isaaclab_physx": Bounds(
        rollout=0.1, flight=0.013, response=2e-2, friction=0.1, deterministic=False
    )
}


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest) -> None:
    """For a test that makes simulators of its own."""
    if "backend" in request.fixturenames and "shared" not in request.fixturenames:
        make_room(request.getfixturevalue("backend"))


@pytest.fixture(scope="session")
def session(backend: str) -> Iterator[None]:
    yield
    close_shared(backend)


@pytest.fixture
def shared(backend: str, session: None) -> Simulator:
    """A simulator of N robots under standard settings, of which tests use the same."""
    return shared_simulator(backend)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        named = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", named or backend_names(), indirect=True, scope="session")


_absent: dict[str, str] = {}  # reasons, by name


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """A backend's name; without the backend this skips or, where it was named, fails."""
    name = request.param
    if name not in _absent:
        try:
            if name == "isaaclab_physx" and importlib.util.find_spec("isaaclab_ov"):
                ignore_pinned()
            make_host_simulator(name, SimulatorConfig(1)).close()
            _absent[name] = ""
        except BackendUnavailable as error:
            _absent[name] = str(error)
    if reason := _absent[name]:
        if request.config.getoption("--backend"):
            pytest.fail(reason)
        if name not in HOW:
            pytest.skip(f"{reason} (HOW in tests/conformance/conftest.py has no command for it.)")
        how = f"{HOW[name]} && pytest tests/conformance --backend {name}"
        pytest.skip(f"{reason} To run it: {how}")
    return name


@pytest.fixture
def bounds(backend: str) -> Bounds:
    return BOUNDS.get(backend, Bounds())
