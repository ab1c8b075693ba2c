"""Isaac Lab with PhysX, from the package `ovphysx`: no Isaac Sim.

It is another solver than MuJoCo's, and motions part from it: contacts are rigid, friction is a
patch's, and drives take another way to the same place. Conventions, kinematics and the robot's
figures are the same.
"""

# Isaac Lab is installed in a separate environment; elsewhere its names have any type.
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib.util

import torch
import warp as wp
from isaaclab.physics import PhysicsCfg
from isaaclab_ov.physics import OvPhysxCfg
from torch import Tensor

from bm_envs.backends.base import SimulatorConfig
from bm_envs.backends.isaaclab_scene import IsaacLabSimulator
from bm_envs.errors import BackendUnavailable
from bm_envs.robots import g1, mjcf

if importlib.util.find_spec("ovphysx") is None:  # Isaac Lab itself looks for it when it starts
    raise BackendUnavailable(
        "backend='isaaclab_physx' needs the package ovphysx: "
        "pip install 'isaaclab[ovphysx]==3.0.0'."
    )
from isaaclab_ov import tensor_types


class IsaacLabPhysxSimulator(IsaacLabSimulator):
    """See `bm_envs.backends.base.Simulator`.

    What PhysX remembers of contacts cannot be read: a saved state goes on nearly as it would have.
    """

    # Robots do not touch each other, but PhysX looks for pairs in one world: apart they are fewer.
    _spacing = 2.5

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__(config)
        # Shapes have no names there. The feet's are those that came with the feet's friction.
        self._foot_shapes = torch.isclose(
            self._materials()[0, :, 0], torch.tensor(mjcf.FOOT_FRICTION)
        ).nonzero()[:, 0]
        shapes = g1.FOOT_SPHERES if config.model.feet == "spheres" else g1.FOOT_CAPSULES
        assert len(self._foot_shapes) == len(shapes)

    def overflowed(self) -> Tensor:
        """See `Simulator.overflowed`; PhysX grows its buffers, or says in its log that it can't."""
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _physics(self) -> PhysicsCfg:
        return OvPhysxCfg()

    def _sensed_bodies(self) -> list[str]:
        return self._sensor.body_names

    def _materials(self) -> Tensor:
        """Static and dynamic friction and restitution of all shapes, a copy. `[N, S, 3]`."""
        kind = tensor_types.SHAPE_FRICTION_AND_RESTITUTION
        return wp.to_torch(self._robot.root_view.get_attribute(kind)).clone()

    def _foot_friction(self) -> Tensor:
        return self._materials()[:, self._foot_shapes[0], 1].to(self.device)

    def _set_foot_friction(self, friction: Tensor) -> None:
        materials = self._materials()
        materials[:, self._foot_shapes, :2] = friction.to(materials.device)[:, None, None]
        self._robot.root_view.set_attribute(
            tensor_types.SHAPE_FRICTION_AND_RESTITUTION,
            wp.from_torch(materials, dtype=wp.float32),
        )

    def _torso_com(self) -> Tensor:
        # With the axes of the inertia, which are PhysX's frame there.
        return self._robot.data.body_com_pose_b.torch[:, self._torso]

    def _kept(self) -> dict[str, Tensor]:
        linear, angular = self._root_velocity()
        return {
            "root_pos": self.root_pos, "root_quat": self.root_quat,
            "root_lin_vel": linear, "root_ang_vel": angular,
            "joint_pos": self.joint_pos, "joint_vel": self.joint_vel,
        }  # fmt: skip

    def _put_back(self, kept: dict[str, Tensor]) -> None:
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        root = ("root_pos", "root_quat", "root_lin_vel", "root_ang_vel")
        self._write_root(everyone, *(kept[name] for name in root))
        self._write_joints(everyone, kept["joint_pos"], kept["joint_vel"])
