"""Robots without a reference: what a diffusion model controls, when it counts as fallen, pushes.

One control step is 20 ms, as in the tracking task, and the physics are that task's under its
`robust` protocol, in which roll-outs are collected. Velocities of the root are in the world unless
a name says otherwise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from bm_envs.backends.base import Simulator, SimulatorConfig, full_state
from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.guided.states import States, states_of
from bm_envs.tasks.track.config import ActuationConfig, TrackConfig

TORSO = g1.TRACKED_BODIES.index(g1.ANCHOR_BODY)
HEAD = next(geom.start for geom in g1.COLLISION_GEOMS if geom.name == "head_collision")
HEAD_HEIGHT = 0.2  # m; lower is a fall. Source: arXiv 2508.08241, sec. V
PELVIS_HEIGHT, TILT = 0.4, np.radians(60.0)  # a fall by the strict criterion: lower, or more


class Robots:
    """N robots of one backend under a model's drives, and their last action.

    Attributes:
        action: raw actions of the last step, `[N, 29]`.
    """

    def __init__(
        self, num_envs: int, drives: Mapping[str, Sequence[float]], *, backend: str = "mujoco",
        threads: int = 0, action_delay: int = 0, model: ModelConfig | None = None,
        decimation: int | None = None,
    ) -> None:  # fmt: skip
        """Robots in no particular state; call `reset` first.

        Args:
            num_envs: N.
            drives: `default_joint_pos`, `action_scale`, `stiffness` and `damping`, `[29]` each.
            backend: physics engine.
            threads: of a CPU engine; 0: all cores this process may use.
            action_delay: control steps that an action takes to arrive.
            model: shapes and solver settings; None: the tracking task's.
            decimation: physics steps per control step; None: the tracking task's.
        """
        task = TrackConfig.preset("robust")
        self.num_envs = num_envs
        self.simulator: Simulator = make_host_simulator(backend, SimulatorConfig(
            num_envs=num_envs, model=model or task.model, decimation=decimation or task.decimation,
            stiffness=tuple(drives["stiffness"]), damping=tuple(drives["damping"]), threads=threads,
        ))  # fmt: skip
        self._stiffness = np.asarray(drives["stiffness"], np.float32)
        self._damping = np.asarray(drives["damping"], np.float32)
        self._default = np.asarray(drives["default_joint_pos"], np.float32)
        self._scale = np.asarray(drives["action_scale"], np.float32)
        self.action = np.zeros((num_envs, g1.NUM_JOINTS), np.float32)
        # Joint targets on their way, the oldest first.
        self._sent = np.zeros((action_delay + 1, num_envs, g1.NUM_JOINTS), np.float32)

    def reset(self, qpos: np.ndarray, qvel: np.ndarray, env_ids: np.ndarray | None = None) -> None:
        """Put robots into states `qpos [M, 36]`, `qvel [M, 35]`; targets are their poses.

        Robots `env_ids [M]`, or all of them.
        """
        ids = np.arange(self.num_envs) if env_ids is None else env_ids
        self.simulator.reset(ids, qpos, qvel)
        self._sent[:, ids] = qpos[:, 7:]
        self.action[ids] = self.action_for(qpos[:, 7:])

    def step(self, action: np.ndarray) -> None:
        """One control step under raw actions `[N, 29]`."""
        self.action[:] = action
        self._sent = np.roll(self._sent, -1, 0)
        self._sent[-1] = self._default + self._scale * self.action
        self.simulator.step(self._sent[0])

    def action_for(self, joint_pos: np.ndarray) -> np.ndarray:
        """The raw action that asks for the joint positions `[..., 29]`, rad."""
        return (joint_pos - self._default) / self._scale

    def torque(self) -> np.ndarray:
        """What the drives exert now, N m, under the targets of the last step. `[N, 29]`."""
        sim = self.simulator
        torque = self._stiffness * (self._sent[0] - sim.joint_pos) - self._damping * sim.joint_vel
        return torque.clip(-g1.EFFORT_LIMIT, g1.EFFORT_LIMIT)

    def states(self) -> States:
        """Where they are now. `[N, ...]`, float32."""
        return states_of(*full_state(self.simulator))

    def push(self, speed: np.ndarray, angle: np.ndarray, env_ids: np.ndarray | None = None) -> None:
        """Add `speed [M]`, m/s, in the horizontal direction `angle [M]`, rad, to roots.

        Those of the robots `env_ids [M]`, or of all of them.
        """
        ids = np.arange(self.num_envs) if env_ids is None else env_ids
        zero = np.zeros_like(speed)
        jump = np.stack([speed * np.cos(angle), speed * np.sin(angle), zero], 1)
        self.simulator.push(ids, jump, np.zeros((1, 3)))

    def head_height(self) -> np.ndarray:
        """Height of the center of the head's collision sphere, m. `[N]`."""
        sim = self.simulator
        return sim.body_pos[:, TORSO, 2] + sim.body_axes[:, TORSO, :, 2] @ np.array(HEAD)

    def head_is_down(self) -> np.ndarray:
        """Fallen by the paper's criterion, or diverged. `[N]`."""
        return ~(self.head_height() >= HEAD_HEIGHT) | self.simulator.diverged()

    def is_down(self) -> np.ndarray:
        """Fallen by the strict criterion, which sitting and leaning meet, or diverged. `[N]`."""
        sim = self.simulator
        stands = (sim.root_pos[:, 2] >= PELVIS_HEIGHT) & (self._upright() >= np.cos(TILT))
        return ~stands | sim.diverged()

    def tilt(self) -> np.ndarray:
        """Angle between the pelvis' z axis and the vertical, rad. `[N]`."""
        return np.arccos(self._upright().clip(-1.0, 1.0))

    def _upright(self) -> np.ndarray:
        """Cosine of the tilt. `[N]`."""
        lean = self.simulator.root_quat[:, 1:3]
        return 1 - 2 * (lean[:, 0] ** 2 + lean[:, 1] ** 2)

    def get_state(self) -> dict[str, np.ndarray]:
        """All that a bit-exact continuation needs besides the simulator's state."""
        return {"action": self.action.copy(), "sent": self._sent.copy()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from what `get_state` returned; the simulator must be restored as well."""
        self.action[:] = state["action"]
        self._sent[:] = state["sent"]

    def close(self) -> None:
        """Free the engine's resources."""
        self.simulator.close()


def drives_of(actuation: ActuationConfig) -> dict[str, Sequence[float]]:
    """The robot table's drives, or the configured ones, as `Robots` takes them.

    Raises:
        ConfigError: a drive has another number of values than there are joints.
    """
    table = {
        "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
        "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
    }  # fmt: skip
    given = dataclasses.asdict(actuation)
    for name, values in given.items():
        if values is not None and len(values) != g1.NUM_JOINTS:
            raise ConfigError(
                f"actuation.{name} has {len(values)} values, expected {g1.NUM_JOINTS}."
            )
    return {
        name: tuple(table[name] if values is None else values) for name, values in given.items()
    }
