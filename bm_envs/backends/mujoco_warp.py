"""MuJoCo-Warp: the same model in thousands of worlds on an NVIDIA GPU, as torch tensors.

All state stays on the device and is shared with torch without copies. The physics steps of a
control step are captured once, as a graph, and replayed: on a GPU as a CUDA graph, whose launch
costs as much as that of one kernel. Inside a capture of the caller's (`torch.cuda.graph`, with
`capturing()` around what it records) the same kernels go into that one in its place.

Without a GPU it runs on Warp's CPU device, slowly: for tests, not for training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from bm_envs.backends.base import CLOSED, SimulatorConfig, revived
from bm_envs.backends.mujoco_warp_kernels import links
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import mjcf
from bm_envs.robots.mjcf import capacity, model_figures
from bm_envs.rotations import quat_rotate_inverse

# Warp would print a line for each of a hundred kernels.
if hasattr(wp, "LOG_WARNING"):
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)

# The fields that a continued simulation needs. The solver begins with the last accelerations.
_STATE_FIELDS = ("time", "qpos", "qvel", "qacc_warmstart", "ctrl")
# Bits of the engine's flag for missing room. Other bits mean that a solver ran out of steps.
_NO_ROOM = int(
    mjw.OverflowType.ALL & ~(mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS)
)
_RANDOMIZED_FIELDS = ("geom_friction", "body_ipos")


class MujocoWarpSimulator:
    """See `bm_envs.backends.base.Simulator`; arrays are float32 torch tensors on `device`.

    Robots are named by indices `[M]`, or by a mask `[N]` bool with values of all N robots, of which
    the named ones' count: then nothing waits for the device, and the call can be captured.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.num_envs = n = config.num_envs
        robot = config.model.table
        self.contact_bodies = (*robot.contact_bodies, *robot.foot_bodies)
        self._warp_device = _device(config.device)
        self.device = torch.device(wp.device_to_torch(self._warp_device))
        self.model = model = mjcf.compile_model(config.model, contacts=True)
        mjcf.set_gains(model, config.stiffness, config.damping)
        contacts, rows = capacity(model, config.model.self_collision)
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        mujoco.mj_forward(model, data)
        with wp.ScopedDevice(self._warp_device):
            self._model = mjw.put_model(model, batch_sizes=dict.fromkeys(_RANDOMIZED_FIELDS, n))
            self._data = mjw.put_data(model, data, nworld=n, nconmax=contacts, njmax=rows)
            # The engine would print from the device; `overflowed` reports it instead.
            self._model.opt.warn_overflow = 0
            k = len(config.bodies)
            self._body_ids = wp.array([model.body(name).id for name in config.bodies], dtype=int)
            self._link_arrays = (
                wp.zeros((n, k), dtype=wp.vec3), wp.zeros((n, k), dtype=wp.quat),
                wp.zeros((n, k), dtype=wp.mat33), wp.zeros((n, k), dtype=wp.vec3),
                wp.zeros((n, k), dtype=wp.vec3),
            )  # fmt: skip
        self._root = model.body(robot.root_body).id
        self._fields = {name: wp.to_torch(getattr(self._data, name)) for name in _STATE_FIELDS}
        self._randomized = {
            name: wp.to_torch(getattr(self._model, name)) for name in _RANDOMIZED_FIELDS
        }
        self._foot_geoms = mjcf.foot_geoms(model).tolist()
        self._torso = model.body(robot.anchor_body).id
        self._nominal_torso_com = self._randomized["body_ipos"][0, self._torso].clone()
        self._qpos, self._qvel = self._fields["qpos"], self._fields["qvel"]
        # Forces of `apply_force` wait for their step here; linear part first, `[N, 31, 6]`.
        self._applied = wp.to_torch(self._data.xfrc_applied)
        self._places = wp.to_torch(self._data.xpos), wp.to_torch(self._data.xipos)
        self._overflow = wp.to_torch(self._data.overflow)  # the engine adds to it, and never clears
        self._forces = wp.to_torch(self._data.sensordata)

        self.root_pos, self.root_quat = self._qpos[:, :3], self._qpos[:, 3:7]
        self.joint_pos = self._qpos[:, 7:]
        self.root_lin_vel, self.root_ang_vel_b = self._qvel[:, :3], self._qvel[:, 3:6]
        self.joint_vel = self._qvel[:, 6:]
        (
            self.body_pos, self.body_quat, self.body_axes, self.body_lin_vel, self.body_ang_vel,
        ) = map(wp.to_torch, self._link_arrays)  # fmt: skip
        c = len(self.contact_bodies)
        self.contact_force = self._forces[:, : 3 * c].unflatten(1, (c, 3))
        self._self_contact = self._forces[:, 3 * c : 3 * c + 3]
        own = self._forces[:, 3 * c + 3 :]
        if not config.model.self_collision:
            own = torch.zeros_like(self._forces)
        self.net_self_contact_force = own.unflatten(1, (c, 3))
        self._graph: wp.Graph | None = None
        self._bare_graph: wp.Graph | None = None
        self._capturing = False
        self._closed = False
        self._refresh()
        self._forces.zero_()

    def __reduce__(self) -> tuple[Any, ...]:
        return revived, (type(self), self.config, None if self._closed else self.get_state())

    @property
    def self_contact_force(self) -> Tensor:
        """See `Simulator.self_contact_force`."""
        return self._self_contact.square().sum(1).sqrt()

    def reset(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """See `Simulator.reset`."""
        for name, value in (("qpos", qpos), ("qvel", qvel)):
            self._put(self._fields[name], env_ids, value)
        for name in ("time", "qacc_warmstart", "ctrl"):
            self._put(self._fields[name], env_ids, 0.0)
        self._put(self._overflow, env_ids, 0)
        self._put(self._applied, env_ids, 0.0)
        self._refresh()
        self._put(self._forces, env_ids, 0.0)

    def lift(self, env_ids: Tensor, height: Tensor) -> None:
        """See `Simulator.lift`."""
        self._add(self._qpos[:, 2], env_ids, height)
        self._add(self.body_pos[..., 2], env_ids, height[:, None])

    def step(self, joint_targets: Tensor) -> None:
        """See `Simulator.step`."""
        self._require_open()
        self._fields["ctrl"].copy_(joint_targets)
        with self._on_stream():
            if self._capturing:
                self._physics()
            else:
                if self._graph is None:
                    self._graph = self._captured(self._physics)
                wp.capture_launch(self._graph)
        self._applied.zero_()

    def physics_alone(self, joint_targets: Tensor) -> None:
        """`step` without the update of derived quantities, for a measurement of its time."""
        self._fields["ctrl"].copy_(joint_targets)
        with self._on_stream():
            if self._bare_graph is None:
                self._bare_graph = self._captured(self._physics_steps)
            wp.capture_launch(self._bare_graph)

    def push(self, env_ids: Tensor, lin_vel: Tensor, ang_vel: Tensor) -> None:
        """See `Simulator.push`."""
        quat = self.root_quat if env_ids.dtype is torch.bool else self.root_quat[env_ids]
        self._add(self.root_lin_vel, env_ids, lin_vel)
        self._add(self.root_ang_vel_b, env_ids, quat_rotate_inverse(quat, ang_vel))
        self._refresh()

    def apply_force(self, env_ids: Tensor, links: Tensor, force: Tensor) -> None:
        """See `Simulator.apply_force`."""
        self._require_open()
        rows = torch.arange(self.num_envs, device=self.device)
        if env_ids.dtype is torch.bool:
            force = torch.where(env_ids[:, None], force, 0.0)
        else:
            rows = rows[env_ids]
        bodies = links.long() + 1  # 0 is the world
        # The engine wants the force at the body's centre of mass, with its moment about it.
        origin, centre = (place[rows, bodies] for place in self._places)
        moment = torch.linalg.cross(origin - centre, force)
        self._applied[rows, bodies] += torch.cat([force, moment], 1)

    def randomize(
        self, env_ids: Tensor, *, foot_friction: Tensor | None = None,
        torso_com_offset: Tensor | None = None,
    ) -> None:  # fmt: skip
        """See `Simulator.randomize`; constants derived from the CoM keep their nominal values."""
        if foot_friction is not None:
            friction = self._randomized["geom_friction"]
            for geom in self._foot_geoms:
                self._put(friction[:, geom, 0], env_ids, foot_friction)
        if torso_com_offset is not None:
            com = self._randomized["body_ipos"][:, self._torso]
            self._put(com, env_ids, self._nominal_torso_com + torso_com_offset)

    def diverged(self) -> Tensor:
        """See `Simulator.diverged`."""
        # Positions or velocities whose sum overflows count as divergence, too.
        return ~torch.isfinite(self._qpos.sum(1) + self._qvel.sum(1))

    def overflowed(self) -> Tensor:
        """See `Simulator.overflowed`."""
        return (self._overflow & _NO_ROOM) != 0

    def read_model(self) -> dict[str, np.ndarray]:
        """See `Simulator.read_model`."""
        names = (
            "body_mass", "body_ipos", "body_inertia", "jnt_range", "dof_armature",
            "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "geom_friction",
        )  # fmt: skip
        held = {name: getattr(self._model, name).numpy() for name in names}
        return model_figures(self.model, self.num_envs, **held)

    def get_state(self) -> dict[str, np.ndarray]:
        """See `Simulator.get_state`."""
        self._require_open()
        state = self._fields | {f"model.{name}": v for name, v in self._randomized.items()}
        state |= {"forces": self._forces, "overflow": self._overflow, "applied": self._applied}
        return {name: value.cpu().numpy().copy() for name, value in state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Simulator.set_state`."""
        self._require_open()
        for name, value in self._fields.items():
            value.copy_(torch.from_numpy(state[name]))
        for name, value in self._randomized.items():
            value.copy_(torch.from_numpy(state[f"model.{name}"]))
        self._refresh()
        saved = state["forces"]  # of 0.1 without net forces of self-collision, the last ones
        self._forces[:, : saved.shape[1]].copy_(torch.from_numpy(saved))
        self._overflow.copy_(torch.from_numpy(state["overflow"]))
        self._applied.zero_()
        if "applied" in state:  # 0.1 had no such forces
            self._applied.copy_(torch.from_numpy(state["applied"]))

    def close(self) -> None:
        """See `Simulator.close`."""
        self._graph = self._bare_graph = None
        self._closed = True

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Inside a `torch.cuda.graph` of mode "thread_local": let it record our kernels, too."""
        with self._on_stream():
            stream = wp.get_stream(self._warp_device)
            wp.capture_begin(stream=stream, external=True)
            self._capturing = True
            try:
                yield
            finally:
                self._capturing = False
                wp.capture_end(stream=stream)

    # --- parts ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Launch Warp's kernels on torch's stream, so that both run in order."""
        # Warp knows a capture by its stream's object, so that there must not be a second one.
        if self._capturing or not self._warp_device.is_cuda:
            with wp.ScopedDevice(self._warp_device):
                yield
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        with wp.ScopedStream(stream, sync_enter=False):
            yield

    def _captured(self, what: Callable[[], None]) -> wp.Graph:
        """The kernels that `what` launches, as a graph."""
        self._physics_warm_up()
        with wp.ScopedCapture(device=self._warp_device) as capture:
            what()
        assert capture.graph is not None
        return capture.graph

    def _physics_warm_up(self) -> None:
        """Compile all kernels, which a capture cannot do, by one step that is undone."""
        kept = {name: value.clone() for name, value in self._fields.items()}
        self._physics()
        for name, value in kept.items():
            self._fields[name].copy_(value)

    def _physics(self) -> None:
        """The physics steps of a control step, and the derived quantities after them."""
        self._physics_steps()
        self._kinematics()

    def _physics_steps(self) -> None:
        for _ in range(self.config.decimation):
            mjw.step(self._model, self._data)

    def _kinematics(self) -> None:
        """Derived quantities of the present state. The engine leaves them a step behind."""
        model, data = self._model, self._data
        mjw.kinematics(model, data)
        mjw.com_pos(model, data)
        mjw.com_vel(model, data)
        wp.launch(
            links, dim=self._link_arrays[0].shape,
            inputs=[
                self._body_ids, self._root, data.xpos, data.xquat, data.xmat, data.cvel,
                data.subtree_com,
            ],
            outputs=list(self._link_arrays),
        )  # fmt: skip

    def _refresh(self) -> None:
        with self._on_stream():
            self._kinematics()

    def _require_open(self) -> None:
        if self._closed:
            raise ConfigError(CLOSED)

    def _put(self, target: Tensor, env_ids: Tensor, value: Tensor | float) -> None:
        """Write into the rows of `target [N, ...]` that `env_ids` names."""
        self._require_open()
        if env_ids.dtype is not torch.bool:
            target[env_ids] = value.to(target.dtype) if isinstance(value, Tensor) else value
            return
        # A number stays a number: to bring it to a GPU first would mean to wait for it.
        mask = env_ids.view(-1, *[1] * (target.ndim - 1))
        target.copy_(torch.where(mask, value, target))

    def _add(self, target: Tensor, env_ids: Tensor, value: Tensor) -> None:
        """Add to the rows of `target [N, ...]` that `env_ids` names."""
        rows = target if env_ids.dtype is torch.bool else target[env_ids]
        self._put(target, env_ids, rows + value)


def _device(name: str | None) -> wp.Device:
    """Warp's device of a name; without a name the first GPU, or the processor if there is none."""
    if name is None:
        return wp.get_device("cuda:0" if wp.is_cuda_available() else "cpu")
    try:
        return wp.get_device(name)
    except (ValueError, RuntimeError):
        known = ", ".join(str(device) for device in wp.get_devices())
        raise BackendUnavailable(
            f"device is '{name}', expected one that Warp finds here: {known}."
        ) from None
