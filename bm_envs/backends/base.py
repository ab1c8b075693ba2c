"""The seam between tasks and physics engines: a batched protocol, and `make_simulator`.

Conventions, the same for every engine: the batch is the first axis, N robots, N = 1 included;
arrays are float32 in the backend's own type (NumPy on the CPU, torch on a GPU); world frame with z
up, metres, radians, seconds; quaternions w, x, y, z; joints in the robot table's order (depth
first); a velocity is that of the link frame's origin, in world axes unless its name says otherwise.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bm_envs.errors import BackendUnavailable, ConfigError, unknown_name
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.rotations import namespace

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True)
class SimulatorConfig:
    """What to simulate. Per-joint values are in the robot table's order."""

    num_envs: int
    """Number of robots, N."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shapes and solver settings."""
    decimation: int = 4
    """Physics steps per control step."""
    stiffness: tuple[float, ...] | None = None
    """Gain kp, N m/rad, `[J]`; None: the robot table's."""
    damping: tuple[float, ...] | None = None
    """Gain kd, N m s/rad, `[J]`; None: the robot table's."""
    bodies: tuple[str, ...] = ()
    """The K bodies whose poses and velocities are observed, the root first; empty: the tracked ones
    of the robot."""
    threads: int = 0
    """Threads of a CPU engine; 0: all cores this process may use."""
    device: str | None = None
    """Device of an engine that can choose, "cpu" or "cuda:0"; None: a GPU where there is one."""

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ConfigError(f"num_envs is {self.num_envs}, expected 1 or more.")
        if self.decimation < 1:
            raise ConfigError(f"decimation is {self.decimation}, expected 1 or more.")
        robot = self.model.table
        if not self.bodies:
            object.__setattr__(self, "bodies", robot.tracked_bodies)
        if self.bodies[0] != robot.root_body:
            raise ConfigError(
                f"The first tracked body is '{self.bodies[0]}', expected '{robot.root_body}'."
            )
        for name in ("stiffness", "damping"):
            values = getattr(self, name)
            if values is not None and (
                len(values) != robot.num_joints or not all(0 <= value < np.inf for value in values)
            ):
                raise ConfigError(f"{name} must be {robot.num_joints} finite non-negative numbers.")

    @property
    def control_dt(self) -> float:
        """Seconds per control step."""
        return self.model.physics_dt * self.decimation


class Simulator(Protocol):
    """N robots in one engine. Shapes are those of the G1, of 29 joints and 30 links.

    Freshness: after `reset`, `lift`, `step` and `push` every property describes the present state
    of every robot; only the contact forces describe the last physics step that ran (it needs the
    solver), and are zero after a reset. Properties are read-only views, overwritten by the next
    call.

    Robots are named by `env_ids`: indices `[M]`, with values of those M. An engine whose arrays are
    torch's also takes a mask `[N]` bool, with values of all N robots, of which the named ones'
    count: then nothing has to wait for the device.

    A copy or a pickle is a simulator of its own, which goes on from the same state; `revived` is
    what its `__reduce__` calls. After `close` a call that acts on the robots, or reads or sets the
    state, is a `ConfigError` with the text `CLOSED`; a second `close` does nothing.
    """

    config: SimulatorConfig
    num_envs: int

    @property
    def root_pos(self) -> Array:
        """Pelvis origin, world, m. `[N, 3]`."""
        ...

    @property
    def root_quat(self) -> Array:
        """Pelvis orientation. `[N, 4]`."""
        ...

    @property
    def root_lin_vel(self) -> Array:
        """Velocity of the pelvis origin, world axes, m/s. `[N, 3]`."""
        ...

    @property
    def root_ang_vel_b(self) -> Array:
        """Angular velocity of the pelvis in the pelvis axes, rad/s. `[N, 3]`."""
        ...

    @property
    def joint_pos(self) -> Array:
        """Joint angles, rad. `[N, 29]`."""
        ...

    @property
    def joint_vel(self) -> Array:
        """Joint velocities, rad/s. `[N, 29]`."""
        ...

    @property
    def body_pos(self) -> Array:
        """Link origins of `config.bodies`, world, m. `[N, K, 3]`."""
        ...

    @property
    def body_quat(self) -> Array:
        """Link orientations of `config.bodies`. `[N, K, 4]`."""
        ...

    @property
    def body_axes(self) -> Array:
        """Axes x, y, z of the links of `config.bodies` as rows, world axes. `[N, K, 3, 3]`.

        The rotation matrices transposed: `vector @ axes` leaves the link's frame for the world's.
        """
        ...

    @property
    def body_lin_vel(self) -> Array:
        """Velocities of the link origins, world axes, m/s. `[N, K, 3]`."""
        ...

    @property
    def body_ang_vel(self) -> Array:
        """Angular velocities of the links, world axes, rad/s. `[N, K, 3]`."""
        ...

    @property
    def contact_force(self) -> Array:
        """Net force on `contact_bodies` in the last physics step, world axes, N. `[N, C, 3]`."""
        ...

    @property
    def self_contact_force(self) -> Array:
        """Strongest contact between two links in the last physics step, N. `[N]`.

        Zero where self-collision is off.
        """
        ...

    @property
    def net_self_contact_force(self) -> Array:
        """Net force between each of `contact_bodies` and the robot's other links. `[N, C, 3]`, N.

        Of the last physics step, world axes; zero where self-collision is off. As of
        `contact_force`, an engine tells what acts on the body or what the body does, in all alike.
        """
        ...

    @property
    def contact_bodies(self) -> tuple[str, ...]:
        """Names of the C bodies of the two net forces; the two feet are the last."""
        ...

    def reset(self, env_ids: Array, qpos: Array, qvel: Array) -> None:
        """Put robots `env_ids [M]` into the full states `qpos [M, 36]`, `qvel [M, 35]`.

        `qpos`: root position 3, root quaternion 4, joints 29. `qvel`: root linear velocity in world
        axes 3, root angular velocity in **root** axes 3, joints 29 (MuJoCo's layout).
        """
        ...

    def lift(self, env_ids: Array, height: Array) -> None:
        """Raise robots `env_ids [M]` by `height [M]`, m."""
        ...

    def step(self, joint_targets: Array) -> None:
        """Hold the joint targets `[N, 29]`, rad, for `decimation` physics steps of PD control."""
        ...

    def push(self, env_ids: Array, lin_vel: Array, ang_vel: Array) -> None:
        """Add to the root velocities of `env_ids [M]`: m/s and rad/s, world axes, `[M, 3]` each."""
        ...

    def apply_force(self, env_ids: Array, links: Array, force: Array) -> None:
        """Pull at links of robots `env_ids [M]` during the next `step`, all its physics steps.

        It acts at the origin of the link's frame; what is applied to a robot before a step adds up.
        After the step, and by a reset of the robot, it is gone. It changes no property by itself.

        Args:
            env_ids: which robots.
            links: `[M]` int, which link of each: its place in the robot's `body_names`.
            force: `[M, 3]`, N, world axes, constant through the step.
        """
        ...

    def randomize(
        self, env_ids: Array, *, foot_friction: Array | None = None,
        torso_com_offset: Array | None = None,
    ) -> None:  # fmt: skip
        """Set sliding friction of the feet `[M]` and the shift of the torso's CoM `[M, 3]`, m."""
        ...

    def diverged(self) -> Array:
        """Which robots have a non-finite state. `[N]` bool."""
        ...

    def overflowed(self) -> Array:
        """Which robots' physics was wrong since their reset, as contacts had no room. `[N]` bool.

        Engines of fixed capacity leave contacts out that do not fit.
        """
        ...

    def read_model(self) -> dict[str, np.ndarray]:
        """The robots' figures as the engine holds them now, float64, for comparisons.

        `body_mass [N, 30]`, kg; `body_com [N, 30, 3]`, m, in link frames; `body_inertia
        [N, 30, 3]`, kg m^2, principal moments in ascending order; `joint_range [N, 29, 2]`, rad;
        `armature`, `stiffness`, `damping`, `effort_limit`, `[N, 29]`; `foot_friction [N]`, the
        sliding coefficient between feet and ground.
        """
        ...

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs, as NumPy arrays.

        The state, what the solver remembers of the last step, what was randomized, the contact
        forces, and a force that waits for its step.
        """
        ...

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned."""
        ...

    def close(self) -> None:
        """Free the engine's resources."""
        ...

    def __reduce__(self) -> tuple[Any, ...]:
        """`revived` and its arguments."""
        ...


CLOSED = "The simulator was closed, make a new one."


def revived(
    kind: Callable[[SimulatorConfig], Simulator], config: SimulatorConfig,
    state: dict[str, np.ndarray] | None,
) -> Simulator:  # fmt: skip
    """What was pickled or copied, of the class `kind`; without a state it was closed."""
    simulator = kind(config)
    if state is None:
        simulator.close()
    else:
        simulator.set_state(state)
    return simulator


def full_state(sim: Simulator) -> tuple[Array, Array]:
    """Copies of the robots' `qpos [N, 36]` and `qvel [N, 35]`, in the layout that `reset` takes."""
    concatenate = namespace(sim.root_pos).concatenate
    return (
        concatenate([sim.root_pos, sim.root_quat, sim.joint_pos], 1),
        concatenate([sim.root_lin_vel, sim.root_ang_vel_b, sim.joint_vel], 1),
    )


_ISAACLAB = (
    "pip install 'bm-envs[isaaclab]', in an environment of its own with Python 3.12 "
    "(tools/isaaclab_env makes one)"
)
# name -> (module, class, what brings its packages)
_BACKENDS = {
    "mujoco": ("bm_envs.backends.mujoco_cpu", "MujocoSimulator", "pip install bm-envs"),
    "mujoco_warp": (
        "bm_envs.backends.mujoco_warp", "MujocoWarpSimulator", "pip install 'bm-envs[warp]'",
    ),
    "isaaclab": ("bm_envs.backends.isaaclab", "IsaacLabNewtonSimulator", _ISAACLAB),
    "isaaclab_physx": ("bm_envs.backends.isaaclab_physx", "IsaacLabPhysxSimulator", _ISAACLAB),
}  # fmt: skip


OF_ANY_ROBOT = ("mujoco", "mujoco_warp")  # those that take every robot's table


def backend_names() -> Sequence[str]:
    """The names `make_simulator` knows."""
    return tuple(_BACKENDS)


def make_simulator(backend: str, config: SimulatorConfig) -> Simulator:
    """Build the simulator of a backend; its engine is imported here and only when asked for.

    Raises:
        BackendUnavailable: the name is unknown, or a package is missing.
        ConfigError: the model has a latency, which `make_host_simulator` alone can simulate.
    """
    if config.model.latency_s:
        raise ConfigError(
            f"model.latency_s is {config.model.latency_s:g}, expected 0 where an engine is used "
            "without an environment; NumPy's environments can have one."
        )
    if backend not in _BACKENDS:
        raise BackendUnavailable(unknown_name("backend", backend, _BACKENDS))
    if config.model.robot != "g1" and backend not in OF_ANY_ROBOT:
        raise ConfigError(
            f"backend='{backend}' has no robot {config.model.robot} (model.robot), expected g1; "
            f"{' and '.join(OF_ANY_ROBOT)} have every robot."
        )
    module, name, remedy = _BACKENDS[backend]
    try:
        simulator = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise BackendUnavailable(
            f"backend='{backend}' needs the package {package}: {remedy}."
        ) from error
    return simulator(config)
