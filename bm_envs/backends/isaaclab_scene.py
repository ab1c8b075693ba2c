"""What Isaac Lab's engines share: the scene, and the protocol over Isaac Lab's articulation.

Written for Isaac Lab 3.0.0 without Isaac Sim. What differs from our conventions is translated here
and nowhere else: quaternions are x, y, z, w there; an attribute that does not say `link` may be the
centre of mass's; joints and bodies have an order of the engine's own; a robot has an origin of its
own in the engine's world.

Isaac Lab has one simulation a process. Another can be made once the first is closed.

One file because a class has the calls of one protocol.
"""

# Isaac Lab is installed in a separate environment; elsewhere its names have any type.
# pyright: reportMissingImports=false

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import warp as wp
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg
from isaaclab.physics import PhysicsCfg
from isaaclab.scene import InteractiveScene, InteractiveSceneCfg
from isaaclab.sensors import ContactSensorCfg
from isaaclab.sim import SimulationCfg, SimulationContext, UsdFileCfg
from isaaclab.utils.timer import Timer
from torch import Tensor

from bm_envs.backends.base import CLOSED, SimulatorConfig, revived
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import g1, mjcf, usd
from bm_envs.rotations import quat_axes, quat_normalize, quat_rotate, quat_rotate_inverse

Timer.enable_display_output = False  # it prints a line for each stage of building

# Where a robot is before its first reset: in the air, so that nothing touches anything yet.
_SPAWN_HEIGHT = 2.0
_XYZW, _WXYZ = [1, 2, 3, 0], [3, 0, 1, 2]
# What is of the last physics step, and kept.
_FORCES = ("contact_force", "self_contact_force", "net_self_contact_force")


class IsaacLabSimulator:
    """See `bm_envs.backends.base.Simulator`; arrays are float32 torch tensors on `device`.

    Robots are named by indices `[M]`, or by a mask `[N]` bool with values of all N robots. A
    subclass is an engine: `_physics`, foot friction, and what its solver keeps from step to step.
    """

    _spacing = 0.0  # m between the robots' origins; zero loses no digits of positions
    _tells_self_contact = False

    def __init__(self, config: SimulatorConfig) -> None:
        if config.model.self_collision and not self._tells_self_contact:
            # Isaac Lab's sensor gives net forces on bodies, not which two links touch.
            raise ConfigError("self_collision is True, expected False with PhysX in Isaac Lab.")
        if SimulationContext.instance() is not None:
            raise BackendUnavailable(
                "Isaac Lab has one simulation a process: close the one there is, or start another "
                "process."
            )
        self.config = config
        self.num_envs = n = config.num_envs
        self.contact_bodies = (*mjcf.CONTACT_BODIES, *g1.FOOT_BODIES)
        device = config.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(device)
        try:
            self._sim: Any = SimulationContext(
                SimulationCfg(
                    device=device, dt=config.model.physics_dt, physics=self._physics(),
                    save_logs_to_file=False,
                )
            )  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                self._scene: Any = InteractiveScene(_scene(config, self._spacing, Path(folder)))
                self._before_start()
                self._sim.reset()
        except BaseException:
            SimulationContext.clear_instance()
            raise
        self._articulation: Any = self._scene["robot"]
        self._sensor: Any = self._scene["contact"]
        self._origins: Tensor = self._scene.env_origins
        # Isaac Lab's order -> ours, and back; each checked to hold every name once.
        self._joints = self._index(g1.order_map(self._robot.joint_names, g1.JOINT_NAMES))
        self._their_joints = self._index(g1.order_map(g1.JOINT_NAMES, self._robot.joint_names))
        self._bodies = self._index(g1.order_map(self._robot.body_names, config.bodies))
        self._all_bodies = self._index(g1.order_map(self._robot.body_names, g1.BODY_NAMES))
        self._sensed = self._index(g1.order_map(self._sensed_bodies(), self.contact_bodies))
        self._root = self._robot.body_names.index(g1.ROOT_BODY)
        self._torso = self._robot.body_names.index(g1.ANCHOR_BODY)
        self._nominal_torso_com = self._torso_com().clone()

        k, c = len(config.bodies), len(self.contact_bodies)
        self.root_pos, self.root_quat = self._zeros(n, 3), self._zeros(n, 4)
        self.root_lin_vel, self.root_ang_vel_b = self._zeros(n, 3), self._zeros(n, 3)
        self.joint_pos = self._zeros(n, g1.NUM_JOINTS)
        self.joint_vel = self._zeros(n, g1.NUM_JOINTS)
        self.body_pos, self.body_quat = self._zeros(n, k, 3), self._zeros(n, k, 4)
        self.body_axes = self._zeros(n, k, 3, 3)
        self.body_lin_vel, self.body_ang_vel = self._zeros(n, k, 3), self._zeros(n, k, 3)
        self.contact_force, self.self_contact_force = self._zeros(n, c, 3), self._zeros(n)
        self.net_self_contact_force = self._zeros(n, c, 3)
        # Forces of `apply_force` wait for their step here, in Isaac Lab's order of bodies.
        self._applied, self._any_applied = self._zeros(n, g1.NUM_BODIES, 3), False
        self._refresh()

    def __reduce__(self) -> tuple[Any, ...]:
        closed = self._articulation is None
        return revived, (type(self), self.config, None if closed else self.get_state())

    @property
    def _robot(self) -> Any:
        """Isaac Lab's articulation, through which every call goes."""
        if self._articulation is None:
            raise ConfigError(CLOSED)
        return self._articulation

    def reset(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """See `Simulator.reset`."""
        mask, qpos, qvel = self._everyone(env_ids, qpos, qvel)
        quat = quat_normalize(qpos[:, 3:7])  # MuJoCo normalises by itself
        ang_vel = quat_rotate(quat, qvel[:, 3:6])
        self._write_root(mask, qpos[:, :3], quat, qvel[:, :3], ang_vel)
        self._write_joints(mask, qpos[:, 7:], qvel[:, 6:])
        self._forget(mask)
        for force in (self._applied, *(getattr(self, name) for name in _FORCES)):
            force.masked_fill_(mask.view(-1, *[1] * (force.ndim - 1)), 0.0)
        self._refresh()

    def lift(self, env_ids: Tensor, height: Tensor) -> None:
        """See `Simulator.lift`."""
        mask, height = self._everyone(env_ids, height)
        pos = self.root_pos.clone()
        pos[:, 2] += height
        self._write_root(mask, pos, self.root_quat, *self._root_velocity())
        self._refresh()

    def step(self, joint_targets: Tensor) -> None:
        """See `Simulator.step`."""
        targets = torch.as_tensor(joint_targets, dtype=torch.float32, device=self.device)
        self._robot.actuators.target_command.set_position_index(
            value=targets[:, self._their_joints].contiguous()
        )
        pulls = self._robot.permanent_wrench_composer
        if self._any_applied:
            origins = self._robot.data.body_link_pose_w.torch[..., :3]
            pulls.set_forces_and_torques_mask(
                forces=self._applied, positions=origins.contiguous(), is_global=True
            )
        self._robot.write_data_to_sim()  # the drives' targets hold until others are written
        for number in range(self.config.decimation):
            if self._any_applied and number:  # the engine forgets forces after a physics step
                self._robot.write_data_to_sim()
            self._sim.step(render=False)
        if self._any_applied:
            pulls.reset()
            self._applied.zero_()
            self._any_applied = False
        self._scene.update(self.config.control_dt)
        self.contact_force.copy_(self._sensor.data.net_forces_w.torch[:, self._sensed])
        if self.config.model.self_collision:
            self.self_contact_force.copy_(self._strongest_self_contact())
            self.net_self_contact_force.copy_(self._net_self_contact())
        self._refresh()

    def push(self, env_ids: Tensor, lin_vel: Tensor, ang_vel: Tensor) -> None:
        """See `Simulator.push`."""
        mask, lin_vel, ang_vel = self._everyone(env_ids, lin_vel, ang_vel)
        linear, angular = self._root_velocity()
        self._write_root_velocity(mask, linear + lin_vel, angular + ang_vel)
        self._refresh()

    def apply_force(self, env_ids: Tensor, links: Tensor, force: Tensor) -> None:
        """See `Simulator.apply_force`."""
        mask, force = self._everyone(env_ids, force)
        rows = torch.arange(self.num_envs, device=self.device)
        if env_ids.dtype is not torch.bool:
            rows, force = rows[env_ids], force[env_ids]
        else:
            force = torch.where(mask[:, None], force, 0.0)
        self._applied[rows, self._all_bodies[links.long()]] += force
        self._any_applied = True

    def randomize(
        self, env_ids: Tensor, *, foot_friction: Tensor | None = None,
        torso_com_offset: Tensor | None = None,
    ) -> None:  # fmt: skip
        """See `Simulator.randomize`."""
        if foot_friction is not None:
            mask, foot_friction = self._everyone(env_ids, foot_friction)
            self._set_foot_friction(torch.where(mask, foot_friction, self._foot_friction()))
        if torso_com_offset is not None:
            mask, offset = self._everyone(env_ids, torso_com_offset)
            com = self._torso_com().clone()
            com[..., :3] = torch.where(
                mask[:, None], self._nominal_torso_com[..., :3] + offset, com[..., :3]
            )
            # Isaac Lab keeps the velocity of the root's centre of mass, we that of its origin.
            linear, angular = (part.clone() for part in self._root_velocity())
            self._robot.set_coms_index(coms=com[:, None].contiguous(), body_ids=[self._torso])
            self._write_root_velocity(mask, linear, angular)
            self._refresh()

    def diverged(self) -> Tensor:
        """See `Simulator.diverged`."""
        state = (self.root_pos, self.root_quat, self.root_lin_vel, self.root_ang_vel_b)
        # Values whose sum overflows count as divergence, too.
        total = sum(part.sum(1) for part in (*state, self.joint_pos, self.joint_vel))
        return ~torch.isfinite(torch.as_tensor(total))

    def overflowed(self) -> Tensor:
        """See `Simulator.overflowed`."""
        raise NotImplementedError

    def read_model(self) -> dict[str, np.ndarray]:
        """See `Simulator.read_model`."""
        data = self._robot.data
        inertia = data.body_inertia.torch[:, self._all_bodies].unflatten(-1, (3, 3))
        figures = {
            "body_mass": data.body_mass.torch[:, self._all_bodies],
            "body_com": data.body_com_pos_b.torch[:, self._all_bodies],
            "body_inertia": torch.linalg.eigvalsh(inertia.double()),  # ascending
            "joint_range": data.joint_pos_limits.torch[:, self._joints],
            "armature": data.joint_armature.torch[:, self._joints],
            "stiffness": data.joint_stiffness.torch[:, self._joints],
            "damping": data.joint_damping.torch[:, self._joints],
            "effort_limit": data.joint_effort_limits.torch[:, self._joints],
            "foot_friction": self._foot_friction(),
        }
        return {name: values.double().cpu().numpy() for name, values in figures.items()}

    def get_state(self) -> dict[str, np.ndarray]:
        """See `Simulator.get_state`."""
        state = {
            "foot_friction": self._foot_friction(), "torso_com": self._torso_com(),
            **{name: getattr(self, name) for name in _FORCES}, **self._kept(),
            **({"applied": self._applied} if self._any_applied else {}),
        }  # fmt: skip
        return {name: value.cpu().numpy().copy() for name, value in state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Simulator.set_state`."""
        tensors = {name: torch.as_tensor(v).to(self.device) for name, v in state.items()}
        self._set_foot_friction(tensors["foot_friction"])
        self._robot.set_coms_index(coms=tensors["torso_com"][:, None], body_ids=[self._torso])
        self._put_back(tensors)
        self._any_applied = "applied" in tensors
        self._applied.copy_(tensors.get("applied", torch.zeros_like(self._applied)))
        for name in _FORCES:
            if name in tensors:  # 0.1 had no net forces of self-collision
                getattr(self, name).copy_(tensors[name])
        self._refresh()

    def close(self) -> None:
        """See `Simulator.close`; afterwards another simulator can be made."""
        if getattr(self, "_sim", None) is not None:
            self._sim = self._scene = self._articulation = self._sensor = None
            SimulationContext.clear_instance()

    # --- an engine's ----------------------------------------------------------------------------

    def _physics(self) -> PhysicsCfg:
        """Isaac Lab's configuration of the engine."""
        raise NotImplementedError

    def _before_start(self) -> None:
        """Called after the scene is made and before the engine is."""

    def _sensed_bodies(self) -> list[str]:
        """Names of the contact sensor's bodies, in its order."""
        raise NotImplementedError

    def _foot_friction(self) -> Tensor:
        """The sliding coefficient between feet and ground. `[N]`."""
        raise NotImplementedError

    def _set_foot_friction(self, friction: Tensor) -> None:
        """Set the sliding coefficient `[N]` of every shape of the feet."""
        raise NotImplementedError

    def _torso_com(self) -> Tensor:
        """The torso's centre of mass in the form `set_coms_index` takes, place first. `[N, 3+]`."""
        return self._robot.data.body_com_pos_b.torch[:, self._torso]

    def _strongest_self_contact(self) -> Tensor:
        """See `Simulator.self_contact_force`."""
        raise NotImplementedError

    def _net_self_contact(self) -> Tensor:
        """See `Simulator.net_self_contact_force`."""
        raise NotImplementedError

    def _forget(self, mask: Tensor) -> None:
        """Clear what the engine keeps from step to step, after a reset of `mask [N]`."""

    def _kept(self) -> dict[str, Tensor]:
        """All that the next step depends on, apart from the figures of the model."""
        raise NotImplementedError

    def _put_back(self, kept: dict[str, Tensor]) -> None:
        """Continue from what `_kept` returned."""
        raise NotImplementedError

    # --- parts ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Bring every property up to date; Isaac Lab runs the kinematics that are missing."""
        data = self._robot.data
        root, bodies = data.root_link_pose_w.torch, data.body_link_pose_w.torch[:, self._bodies]
        self.root_pos.copy_(root[:, :3] - self._origins)
        self.root_quat.copy_(root[:, 3:][:, _WXYZ])
        linear, angular = self._root_velocity()
        self.root_lin_vel.copy_(linear)
        self.root_ang_vel_b.copy_(quat_rotate_inverse(self.root_quat, angular))
        self.joint_pos.copy_(data.joint_pos.torch[:, self._joints])
        self.joint_vel.copy_(data.joint_vel.torch[:, self._joints])
        self.body_pos.copy_(bodies[..., :3] - self._origins[:, None])
        self.body_quat.copy_(bodies[..., 3:][..., _WXYZ])
        self.body_axes.copy_(quat_axes(self.body_quat))
        velocities = data.body_link_vel_w.torch[:, self._bodies]
        self.body_lin_vel.copy_(velocities[..., :3])
        self.body_ang_vel.copy_(velocities[..., 3:])

    def _root_velocity(self) -> tuple[Tensor, Tensor]:
        """Velocities of the pelvis origin, linear and angular, world axes. `[N, 3]` each.

        Isaac Lab's own attribute for it is at times what was last written and at times computed
        from the centre of mass; the link's is always computed, so that its bits depend on the
        engine's state alone.
        """
        velocity = self._robot.data.body_link_vel_w.torch[:, self._root]
        return velocity[:, :3], velocity[:, 3:]

    def _write_root(
        self, mask: Tensor, pos: Tensor, quat: Tensor, lin_vel: Tensor, ang_vel: Tensor
    ) -> None:
        """Write the pelvis state of the robots in `mask [N]`. Rows are of all N, in world axes."""
        velocity = lin_vel.clone(), ang_vel.clone()  # writing a pose may change them
        self._robot.write_root_link_pose_to_sim_mask(
            root_pose=torch.cat([pos + self._origins, quat[:, _XYZW]], 1),
            env_mask=wp.from_torch(mask),
        )
        self._write_root_velocity(mask, *velocity)

    def _write_root_velocity(self, mask: Tensor, lin_vel: Tensor, ang_vel: Tensor) -> None:
        self._robot.write_root_link_velocity_to_sim_mask(
            root_velocity=torch.cat([lin_vel, ang_vel], 1), env_mask=wp.from_torch(mask)
        )

    def _write_joints(self, mask: Tensor, pos: Tensor, vel: Tensor) -> None:
        """Write the joint state of the robots in `mask [N]`. Rows are of all N, in our order."""
        self._robot.write_joint_state_to_sim_mask(
            position=pos[:, self._their_joints].contiguous(),
            velocity=vel[:, self._their_joints].contiguous(),
            env_mask=wp.from_torch(mask),
        )

    def _everyone(self, env_ids: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """A mask `[N]` of the robots named, and values of all N, of which the others' are zero.

        Isaac Lab's writers for masks are the ones that wait for nothing on the device.
        """
        tensors = [torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in values]
        if env_ids.dtype is torch.bool:
            return env_ids, *tensors
        mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        mask[env_ids] = True
        rows = []
        for value in tensors:
            row = self._zeros(self.num_envs, *value.shape[1:])
            row[env_ids] = value
            rows.append(row)
        return mask, *rows

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.device)

    def _index(self, order: np.ndarray) -> Tensor:
        return torch.as_tensor(order, device=self.device)


def _scene(config: SimulatorConfig, spacing: float, folder: Path) -> InteractiveSceneCfg:
    """The robot N times, the ground and the contact sensor; their USD files go into `folder`."""
    robot, ground = folder / "g1.usda", folder / "ground.usda"
    robot.write_text(usd.build_usd(config.model))
    ground.write_text(usd.build_ground())
    stiffness = g1.STIFFNESS if config.stiffness is None else config.stiffness
    damping = g1.DAMPING if config.damping is None else config.damping

    def by_name(values: Any) -> dict[str, float]:
        return dict(zip(g1.JOINT_NAMES, map(float, values), strict=True))

    scene: Any = InteractiveSceneCfg(num_envs=config.num_envs, env_spacing=spacing)
    scene.ground = AssetBaseCfg(prim_path="/World/ground", spawn=UsdFileCfg(usd_path=str(ground)))
    scene.robot = ArticulationCfg(
        prim_path="{ENV_REGEX_NS}/Robot",
        spawn=UsdFileCfg(usd_path=str(robot), activate_contact_sensors=True),
        init_state=ArticulationCfg.InitialStateCfg(pos=(0.0, 0.0, _SPAWN_HEIGHT)),
        actuators={
            # Drives inside the solver, damped implicitly, as MuJoCo's are.
            "drives": ImplicitActuatorCfg(
                joint_names_expr=[".*"], stiffness=by_name(stiffness), damping=by_name(damping),
                armature=by_name(g1.ARMATURE), joint_effort_limit=by_name(g1.EFFORT_LIMIT),
                friction=0.0,
            )
        },
    )  # fmt: skip
    scene.contact = ContactSensorCfg(prim_path="{ENV_REGEX_NS}/Robot/.*")
    return scene
