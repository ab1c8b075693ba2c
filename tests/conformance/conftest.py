"""Which backends the suite runs on, and how exact each has to be.

`pytest tests/conformance --backend NAME NAME` names them; one that is named and absent is a
failure. Without the option every backend is tried, and an absent one skipped with the reason and
the command that would run it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bm_envs.backends.base import SimulatorConfig, backend_names
from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import BackendUnavailable

HOW = {
    "mujoco": "pip install -e '.[dev]'",
    "mujoco_warp": "pip install -e '.[dev,warp]'",
    "isaaclab": "tools/isaaclab_env runs/isaaclab",
    "isaaclab_physx": "tools/isaaclab_env runs/isaaclab --physx",
}
# Isaac Lab has one simulation a process: the next can be made once the last is closed.
ONE_AT_A_TIME = ("isaaclab", "isaaclab_physx")


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
    """Whether a simulation has the same bits when run again."""


# PhysX integrates otherwise, and its drives reach the same place by another way.
BOUNDS = {
    "isaaclab_physx": Bounds(
        rollout=float("inf"), flight=1e-2, response=2e-2, friction=0.1, deterministic=False
    )
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        named = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", named or backend_names(), scope="session")


_absent: dict[str, str] = {}  # reasons, by name


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """A backend's name; without the backend this skips or, where it was named, fails."""
    name = request.param
    if name not in _absent:
        try:
            make_host_simulator(name, SimulatorConfig(1)).close()
            _absent[name] = ""
        except BackendUnavailable as error:
            _absent[name] = str(error)
    if reason := _absent[name]:
        if request.config.getoption("--backend"):
            pytest.fail(reason)
        how = f"{HOW[name]} && pytest tests/conformance --backend {name}"
        pytest.skip(f"{reason} To run it: {how}")
    return name


@pytest.fixture
def bounds(backend: str) -> Bounds:
    return BOUNDS.get(backend, Bounds())
