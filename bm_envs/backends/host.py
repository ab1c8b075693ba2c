"""NumPy's side of an engine whose arrays are torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bm_envs.backends.base import Array, Simulator, SimulatorConfig, make_simulator

VIEWS = (
    "root_pos", "root_quat", "root_lin_vel", "root_ang_vel_b", "joint_pos", "joint_vel", "body_pos",
    "body_quat", "body_axes", "body_lin_vel", "body_ang_vel", "contact_force",
    "self_contact_force", "net_self_contact_force",
)  # fmt: skip


class HostSimulator:
    """A simulator with torch tensors, as one with NumPy arrays, which stay where they are.

    Of an engine on the processor they share its memory where they can; else they are copies,
    brought up to date by every call that changes the state. For tasks written in NumPy: who wants
    an engine's full speed works with its tensors.
    """

    config: SimulatorConfig
    num_envs: int
    root_pos: np.ndarray
    root_quat: np.ndarray
    root_lin_vel: np.ndarray
    root_ang_vel_b: np.ndarray
    joint_pos: np.ndarray
    joint_vel: np.ndarray
    body_pos: np.ndarray
    body_quat: np.ndarray
    body_axes: np.ndarray
    body_lin_vel: np.ndarray
    body_ang_vel: np.ndarray
    contact_force: np.ndarray
    self_contact_force: np.ndarray
    net_self_contact_force: np.ndarray

    def __init__(self, engine: Simulator) -> None:
        self.engine = engine
        self.config, self.num_envs = engine.config, engine.num_envs
        self._copied: list[tuple[str, np.ndarray]] = []
        for name in VIEWS:
            tensor = getattr(engine, name)
            array = tensor.cpu().numpy()
            again = getattr(engine, name)
            shared = tensor.device.type == "cpu" and again.data_ptr() == tensor.data_ptr()
            if not shared:
                array = np.ascontiguousarray(array, np.float32)
                self._copied.append((name, array))
            view = array[...]
            view.setflags(write=False)
            setattr(self, name, view)

    def __reduce__(self) -> tuple[Any, ...]:
        return _host_of, self.engine.__reduce__()

    @property
    def contact_bodies(self) -> tuple[str, ...]:
        """See `Simulator.contact_bodies`."""
        return self.engine.contact_bodies

    def reset(self, env_ids: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Simulator.reset`."""
        self._call("reset", env_ids, qpos, qvel)

    def lift(self, env_ids: np.ndarray, height: np.ndarray) -> None:
        """See `Simulator.lift`."""
        self._call("lift", env_ids, height)

    def step(self, joint_targets: np.ndarray) -> None:
        """See `Simulator.step`."""
        self._call("step", joint_targets)

    def push(self, env_ids: np.ndarray, lin_vel: np.ndarray, ang_vel: np.ndarray) -> None:
        """See `Simulator.push`."""
        self._call("push", env_ids, lin_vel, ang_vel)

    def apply_force(self, env_ids: np.ndarray, links: np.ndarray, force: np.ndarray) -> None:
        """See `Simulator.apply_force`."""
        self.engine.apply_force(*map(self._tensor, (env_ids, links, force)))

    def randomize(
        self, env_ids: np.ndarray, *, foot_friction: np.ndarray | None = None,
        torso_com_offset: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """See `Simulator.randomize`."""
        values = dict(foot_friction=foot_friction, torso_com_offset=torso_com_offset)
        self.engine.randomize(
            self._tensor(env_ids),
            **{name: self._tensor(value) for name, value in values.items() if value is not None},
        )

    def diverged(self) -> np.ndarray:
        """See `Simulator.diverged`."""
        return self.engine.diverged().cpu().numpy()

    def overflowed(self) -> np.ndarray:
        """See `Simulator.overflowed`."""
        return self.engine.overflowed().cpu().numpy()

    def read_model(self) -> dict[str, np.ndarray]:
        """See `Simulator.read_model`."""
        return self.engine.read_model()

    def get_state(self) -> dict[str, np.ndarray]:
        """See `Simulator.get_state`."""
        return self.engine.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Simulator.set_state`."""
        self.engine.set_state(state)
        self._refresh()

    def close(self) -> None:
        """See `Simulator.close`."""
        self.engine.close()

    def _call(self, method: str, *arrays: np.ndarray) -> None:
        getattr(self.engine, method)(*map(self._tensor, arrays))
        self._refresh()

    def _tensor(self, array: np.ndarray) -> Array:
        """On the engine's device: numbers as float32, indices as they are."""
        import torch

        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = np.asarray(array, np.float32)
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.engine.root_pos.device)

    def _refresh(self) -> None:
        for name, array in self._copied:
            array[...] = getattr(self.engine, name).cpu().numpy()


def _host_of(make: Callable[..., Simulator], arguments: tuple[Any, ...]) -> HostSimulator:
    """What was pickled or copied, around the engine's own copy."""
    return HostSimulator(make(*arguments))


def make_host_simulator(backend: str, config: SimulatorConfig) -> Simulator:
    """`make_simulator`, with NumPy arrays whatever the engine's own are.

    Raises:
        BackendUnavailable: as there.
    """
    simulator = make_simulator(backend, config)
    if isinstance(simulator.root_pos, np.ndarray):
        return simulator
    return HostSimulator(simulator)
