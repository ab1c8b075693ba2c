"""MuJoCo's C engine on all cores: `mujoco.batch` steps N robots, no Python between substeps."""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from typing import Any

import mujoco
import numpy as np

from bm_envs.backends.base import CLOSED, SimulatorConfig, revived
from bm_envs.backends.native import Casts
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import mjcf
from bm_envs.robots.mjcf import model_figures
from bm_envs.rotations import cross, quat_rotate_inverse

try:
    from mujoco.batch import Batch
except ModuleNotFoundError:
    raise BackendUnavailable(
        "backend='mujoco' needs MuJoCo 4.0 or newer (mujoco.batch), and this is "
        f"{mujoco.__version__}: pip install 'mujoco>=4.0'."
    ) from None

# The forward stages run after the last substep. Without them MuJoCo's sensors belong to the state
# *before* that substep: `mj_step` computes them first and integrates last.
_FRESH = int(mujoco.mjtStage.mjSTAGE_VEL)
_NONE = int(mujoco.mjtStage.mjSTAGE_NONE)

# The fields that a continued simulation needs. Without the solver's warm start its iterates would
# differ in the last bits.
_STATE_FIELDS = ("time", "qpos", "qvel", "qacc_warmstart", "ctrl")
# Largest joint target, rad. The engine takes targets beyond 1e10 for an error and holds the joints
# at 0; drives are at their torque limits long before.
_FURTHEST = 1e9
_RANDOMIZED_FIELDS = ("geom_friction", "body_ipos")
# Attributes that belong to a running engine; `close` drops them.
_ENGINE = (
    "_batch", "_ctrl", "_qpos", "_qvel", "_sensordata", "_xmat", "_fields", "_refresh_copies",
    "_applied",
)  # fmt: skip
_alive: weakref.WeakSet[MujocoSimulator] = weakref.WeakSet()


class MujocoSimulator:
    """See `bm_envs.backends.base.Simulator`. The engine runs in float64, the views are float32.

    Copies and pickles go on from the same state bit for bit, as does a forked process.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.num_envs = config.num_envs
        robot = config.model.table
        self.contact_bodies = (*robot.contact_bodies, *robot.foot_bodies)
        self.model = model = mjcf.compile_model(config.model, tracked=config.bodies)
        # A robot that diverges must say so: by default the engine would silently put it back to
        # its default pose.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        mjcf.set_gains(model, config.stiffness, config.damping)

        # Flat indices into the tracked bodies' matrices, transposed: each axis is a row.
        bodies = np.array([model.body(name).id for name in config.bodies])
        self._axes = (9 * bodies[:, None] + np.arange(9).reshape(3, 3).T.ravel()).ravel()
        self._foot_geoms = mjcf.foot_geoms(model, robot)
        self._torso = model.body(robot.anchor_body).id
        self._nominal_torso_com = model.body_ipos[self._torso].copy()

        # float32 copies of state and sensors, and named views into them.
        n, k, c = config.num_envs, len(config.bodies), len(self.contact_bodies)
        self._state32 = np.zeros((n, model.nq + model.nv), np.float32)
        self._qpos32, self._qvel32 = self._state32[:, : model.nq], self._state32[:, model.nq :]
        self._diverged = np.zeros(n, bool)
        self._any_diverged = False
        self._axes32 = np.zeros((n, 9 * k), np.float32)
        self._sensors32 = np.zeros((n, model.nsensordata), np.float32)

        def view(array: np.ndarray, start: int, *shape: int) -> np.ndarray:
            out = array[:, start : start + int(np.prod(shape))].reshape(n, *shape)
            out.setflags(write=False)
            assert out.base is not None  # a view, so that one refresh serves every property
            return out

        self.root_pos = view(self._qpos32, 0, 3)
        self.root_quat = view(self._qpos32, 3, 4)
        self.joint_pos = view(self._qpos32, 7, robot.num_joints)
        self.root_lin_vel = view(self._qvel32, 0, 3)
        self.root_ang_vel_b = view(self._qvel32, 3, 3)
        self.joint_vel = view(self._qvel32, 6, robot.num_joints)
        self.body_pos = view(self._sensors32, 0, k, 3)
        self.body_quat = view(self._sensors32, 3 * k, k, 4)
        self.body_axes = view(self._axes32, 0, k, 3, 3)
        self.body_lin_vel = view(self._sensors32, 7 * k, k, 3)
        self.body_ang_vel = view(self._sensors32, 10 * k, k, 3)
        self.contact_force = view(self._sensors32, 13 * k, c, 3)
        # Writable views of the same velocities.
        self._body_lin_vel32 = self._sensors32[:, 7 * k : 10 * k].reshape(n, k, 3)
        self._body_ang_vel32 = self._sensors32[:, 10 * k : 13 * k].reshape(n, k, 3)
        self._num_pose_sensors, own = 13 * k, 13 * k + 3 * c
        self._self_contact = slice(own, own + 3)
        if config.model.self_collision:
            self.net_self_contact_force = view(self._sensors32, own + 3, c, 3)
        else:
            self.net_self_contact_force = view(np.zeros((n, 3 * c), np.float32), 0, c, 3)
        self._start_engine()
        self._batch.reset(keyframe=0, stage=_FRESH)
        self._refresh()

    def _start_engine(self) -> None:
        """Make a batch with threads, and bind its arrays."""
        config = self.config
        self._batch = Batch(
            self.model, config.num_envs, min(config.threads, config.num_envs), persistent=True
        )
        bind = self._batch.bind
        self._ctrl, self._qpos, self._qvel = bind("ctrl"), bind("qpos"), bind("qvel")
        self._sensordata = bind("sensordata")
        self._xmat = bind("xmat").reshape(config.num_envs, -1)
        self._fields = {name: bind(name) for name in _STATE_FIELDS}
        self._randomized: dict[str, np.ndarray] = {}
        # Forces of `apply_force` wait for their step here.
        self._applied, self._any_applied = bind("xfrc_applied"), False
        self._refresh_copies = Casts(
            (self._qpos, self._qpos32, None), (self._qvel, self._qvel32, None),
            (self._sensordata, self._sensors32, None), (self._xmat, self._axes32, self._axes),
        )  # fmt: skip
        self._usable, self._closed = True, False
        _alive.add(self)

    def _make_usable(self) -> None:
        """After a fork: a batch of this process in place of one whose threads stayed behind.

        Raises:
            ConfigError: it is closed.
        """
        if self._closed:
            raise ConfigError(CLOSED)
        state = self.get_state()
        self._start_engine()
        self.set_state(state)

    def leave_engine_to_parent(self) -> None:
        """In a forked child: the engine's threads exist in the parent alone.

        A batch waits for its threads when it is deleted. So the child keeps this one for its whole
        life, also when nobody uses the simulator any more, and starts another at the next call.
        """
        if self._usable and self._batch.nthread > 1:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._batch))
            self._usable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return revived, (type(self), self.config, None if self._closed else self.get_state())

    @property
    def self_contact_force(self) -> np.ndarray:
        """See `Simulator.self_contact_force`."""
        force = self._sensors32[:, self._self_contact]  # [N, 3], or [N, 0] without self-collision
        return np.sqrt((force * force).sum(1))

    def reset(self, env_ids: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Simulator.reset`."""
        if not self._usable:
            self._make_usable()
        gone = env_ids[self._diverged[env_ids]]
        if gone.size:  # only these need the engine's own reset, which clears all of their memory
            self._batch.reset(gone, stage=_NONE)
        self._qpos[env_ids] = qpos
        self._qvel[env_ids] = qvel
        for name in ("time", "qacc_warmstart", "ctrl"):
            self._fields[name][env_ids] = 0.0
        if self._any_applied:
            self._applied[env_ids] = 0.0
        self._batch.forward(env_ids, stage=_FRESH)
        self._refresh(env_ids)
        self._sensors32[env_ids, self._num_pose_sensors :] = 0.0

    def lift(self, env_ids: np.ndarray, height: np.ndarray) -> None:
        """See `Simulator.lift`."""
        if not self._usable:
            self._make_usable()
        # Only heights change; all else that is known of a robot stays valid.
        self._qpos[env_ids, 2] += height
        self._qpos32[env_ids, 2] = self._qpos[env_ids, 2]
        heights = self._sensors32[:, 2 : 3 * len(self.config.bodies) : 3]
        heights[env_ids] += height[:, None].astype(np.float32)

    def step(self, joint_targets: np.ndarray) -> None:
        """See `Simulator.step`."""
        if not self._usable:
            self._make_usable()
        np.clip(joint_targets, -_FURTHEST, _FURTHEST, out=self._ctrl)
        # A robot that has diverged waits for its reset: stepping it on would only cost time and
        # print the engine's warnings.
        alive = np.flatnonzero(~self._diverged) if self._any_diverged else None
        if alive is None or alive.size:
            self._batch.step(alive, nstep=self.config.decimation, stage=_FRESH)
        if self._any_applied:
            self._applied[:], self._any_applied = 0.0, False
        self._refresh()

    def push(self, env_ids: np.ndarray, lin_vel: np.ndarray, ang_vel: np.ndarray) -> None:
        """See `Simulator.push`."""
        if not self._usable:
            self._make_usable()
        lin_vel, ang_vel = np.asarray(lin_vel, np.float64), np.asarray(ang_vel, np.float64)
        self._qvel[env_ids, :3] += lin_vel
        self._qvel[env_ids, 3:6] += quat_rotate_inverse(self._qpos[env_ids, 3:7], ang_vel)
        self._qvel32[env_ids] = self._qvel[env_ids]
        # The robot's links move on as one rigid body would; contact forces stay those of the last
        # physics step.
        arm = self.body_pos[env_ids] - self.root_pos[env_ids, None]
        self._body_lin_vel32[env_ids] += lin_vel[:, None] + cross(ang_vel[:, None], arm)
        self._body_ang_vel32[env_ids] += ang_vel[:, None]

    def apply_force(self, env_ids: np.ndarray, links: np.ndarray, force: np.ndarray) -> None:
        """See `Simulator.apply_force`."""
        if not self._usable:
            self._make_usable()
        bodies, force = np.asarray(links) + 1, np.asarray(force, np.float64)  # 0 is the world
        # The engine wants the force at the body's centre of mass, with its moment about it.
        centre, origin = self._batch.bind("xipos"), self._batch.bind("xpos")
        arm = origin[env_ids, bodies] - centre[env_ids, bodies]
        self._applied[env_ids, bodies] += np.concatenate([force, cross(arm, force)], 1)
        self._any_applied = True

    def randomize(
        self, env_ids: np.ndarray, *, foot_friction: np.ndarray | None = None,
        torso_com_offset: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """See `Simulator.randomize`.

        The constants that MuJoCo derives from the CoM at compile time (inverse weights, which only
        shape the softness of constraints) keep their nominal values; dynamics see the new CoM.
        """
        if foot_friction is not None:
            friction = self._expanded("geom_friction")
            friction[env_ids[:, None], self._foot_geoms, 0] = np.reshape(foot_friction, (-1, 1))
        if torso_com_offset is not None:
            self._expanded("body_ipos")[env_ids, self._torso] = (
                self._nominal_torso_com + torso_com_offset
            )

    def diverged(self) -> np.ndarray:
        """See `Simulator.diverged`."""
        return self._diverged.copy()  # the next reset changes it

    def overflowed(self) -> np.ndarray:
        """See `Simulator.overflowed`: this engine's memory grows."""
        return np.zeros(self.num_envs, bool)

    def read_model(self) -> dict[str, np.ndarray]:
        """See `Simulator.read_model`."""
        return model_figures(self.model, self.num_envs, **self._randomized)

    def get_state(self) -> dict[str, np.ndarray]:
        """See `Simulator.get_state`."""
        if self._closed:
            raise ConfigError(CLOSED)
        state = {name: np.array(field) for name, field in self._fields.items()}
        state |= {f"model.{name}": np.array(value) for name, value in self._randomized.items()}
        if self._any_applied:
            state["applied"] = np.array(self._applied)
        return state | {"sensors32": self._sensors32.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Simulator.set_state`."""
        if not self._usable:
            self._make_usable()
        for name in _RANDOMIZED_FIELDS:
            if f"model.{name}" in state:
                self._expanded(name)[:] = state[f"model.{name}"]
        for name, array in self._fields.items():
            array[:] = state[name]
        self._any_applied = "applied" in state
        self._applied[:] = state.get("applied", 0.0)
        self._batch.forward(stage=_FRESH)
        self._refresh()
        saved = state["sensors32"]  # of 0.1 without net forces of self-collision, the last ones
        self._sensors32[:, : saved.shape[1]] = saved

    def close(self) -> None:
        """See `Simulator.close`."""
        # Dropping the references frees the threads and the data; nothing else is held. The views
        # show the last state.
        if self._closed:
            return
        for name in _ENGINE:
            del self.__dict__[name]
        self._randomized = {}
        self._usable, self._closed = False, True
        _alive.discard(self)

    def _expanded(self, name: str) -> np.ndarray:
        """The per-robot values of a model field, made on first use."""
        if not self._usable:
            self._make_usable()
        if name not in self._randomized:
            self._randomized[name] = self._batch.expand(name)
        return self._randomized[name]

    def _refresh(self, env_ids: np.ndarray | None = None) -> None:
        """Bring the float32 copies of robots `env_ids [M]`, or of all, up to date."""
        self._refresh_copies(env_ids)
        state = self._state32 if env_ids is None else self._state32[env_ids]
        # A product is finite only if all factors are. A product that is too large only means that
        # the robots must be looked at one by one.
        finite = math.isfinite(np.vdot(state, state))
        if finite and not self._any_diverged:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            # A huge velocity is divergence, too.
            gone = ~np.isfinite(state.sum(1))
        self._diverged[slice(None) if env_ids is None else env_ids] = gone
        self._any_diverged = bool(self._diverged.any())


def _after_fork() -> None:
    for simulator in _alive:
        simulator.leave_engine_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
