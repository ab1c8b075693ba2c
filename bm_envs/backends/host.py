"""NumPy's side of an engine whose arrays are torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

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


class LateSimulator:
    """A simulator whose joint targets come `config.model.latency_s` late; all else is the engine's.

    A latency of L physics steps is q control steps and r physics steps: the first r physics steps
    of a control step are under the target of q + 1 control steps ago, the others under that of q
    ago. The engine does the largest part that divides both. Arrays are NumPy's.

    Attributes:
        engine: the simulator of that part, without a latency.
    """

    def __init__(self, backend: str, config: SimulatorConfig) -> None:
        """Robots as the engine begins them; call `reset` before the first `step`."""
        self.config, self.num_envs, self._backend = config, config.num_envs, backend
        whole, late = divmod(config.model.latency_steps, config.decimation)
        part = math.gcd(config.decimation, late)
        self._old, self._new = late // part, (config.decimation - late) // part
        self.engine = make_host_simulator(
            backend,
            replace(config, decimation=part, model=replace(config.model, latency_s=0.0)),
        )
        # Joint targets on their way, the oldest first.
        self._sent = np.zeros((whole + 2, config.num_envs, self.engine.joint_pos.shape[1]))
        self._sent[:] = self.engine.joint_pos
        # Forces of `apply_force` wait for their step here: the engine keeps them for a part of it.
        self._applied = np.zeros((config.num_envs, config.model.table.num_bodies, 3))
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # of an object that is not made yet
            raise AttributeError(name)
        return getattr(self.engine, name)

    def __reduce__(self) -> tuple[Any, ...]:
        state = None if self._closed else self.get_state()
        return _late_of, (self._backend, self.config, state)

    def reset(self, env_ids: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Simulator.reset`."""
        self.engine.reset(env_ids, qpos, qvel)
        self._sent[:, env_ids] = np.asarray(qpos)[:, 7:]
        self._applied[env_ids] = 0.0

    def step(self, joint_targets: np.ndarray) -> None:
        """See `Simulator.step`."""
        self._sent[:-1] = self._sent[1:]
        self._sent[-1] = joint_targets
        for count, targets in ((self._old, self._sent[0]), (self._new, self._sent[1])):
            for _ in range(count):
                robots, links = np.nonzero(self._applied.any(-1))
                if robots.size:
                    self.engine.apply_force(robots, links, self._applied[robots, links])
                self.engine.step(targets)
        self._applied[:] = 0.0

    def apply_force(self, env_ids: np.ndarray, links: np.ndarray, force: np.ndarray) -> None:
        """See `Simulator.apply_force`."""
        self._applied[env_ids, links] += force

    def get_state(self) -> dict[str, np.ndarray]:
        """See `Simulator.get_state`."""
        own = {"late.sent": self._sent.copy(), "late.applied": self._applied.copy()}
        return self.engine.get_state() | own

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Simulator.set_state`."""
        engine = {name: value for name, value in state.items() if not name.startswith("late.")}
        self.engine.set_state(engine)
        self._sent[:], self._applied[:] = state["late.sent"], state["late.applied"]

    def close(self) -> None:
        """See `Simulator.close`."""
        self._closed = True
        self.engine.close()


def _late_of(
    backend: str, config: SimulatorConfig, state: dict[str, np.ndarray] | None
) -> LateSimulator:
    """What was pickled or copied; without a state it was closed."""
    simulator = LateSimulator(backend, config)
    if state is None:
        simulator.close()
    else:
        simulator.set_state(state)
    return simulator


def make_host_simulator(backend: str, config: SimulatorConfig) -> Simulator:
    """`make_simulator`, with NumPy arrays whatever the engine's own are, and with a latency.

    Raises:
        BackendUnavailable: as there.
    """
    if config.model.latency_s:
        return cast(Simulator, LateSimulator(backend, config))
    simulator = make_simulator(backend, config)
    if isinstance(simulator.root_pos, np.ndarray):
        return simulator
    return HostSimulator(simulator)
