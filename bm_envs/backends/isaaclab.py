"""Isaac Lab with its Newton engine, whose solver is MuJoCo Warp.

The solver gets the settings of our MuJoCo model and takes all but one: its tolerance is no smaller
than 1e-6, the precision of float32.
"""

# Isaac Lab is installed in a separate environment; elsewhere its names have any type.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import warp as wp
from isaaclab.physics import PhysicsCfg, PhysicsEvent
from isaaclab_newton.physics import (
    MJWarpSolverCfg,
    NewtonBuilderCfg,
    NewtonCfg,
    NewtonManager,
    NewtonShapeCfg,
)
from mujoco_warp import OverflowType
from newton import JointTargetMode, ModelFlags
from torch import Tensor

from bm_envs.backends.base import SimulatorConfig
from bm_envs.backends.isaaclab_scene import IsaacLabSimulator
from bm_envs.robots import g1, mjcf
from bm_envs.robots.mjcf import capacity

# The solver's reports of missing room. Reaching the bound of its iterations is no error.
_NO_ROOM = int(
    OverflowType.NEFC | OverflowType.NJMAX_NNZ | OverflowType.BROADPHASE | OverflowType.NARROWPHASE
)
_FOOT_SHAPES = {geom.name for geom in (*g1.FOOT_SPHERES, *g1.FOOT_CAPSULES)}


class IsaacLabNewtonSimulator(IsaacLabSimulator):
    """See `bm_envs.backends.base.Simulator`."""

    _tells_self_contact = True

    def __init__(self, config: SimulatorConfig) -> None:
        super().__init__(config)
        solver: Any = NewtonManager._solver  # Isaac Lab has no public way to it
        # It would print from the device; `overflowed` reports it.
        solver.mjw_model.opt.warn_overflow = 0
        self._overflow = wp.to_torch(solver.mjw_data.overflow)
        self._warm_start = wp.to_torch(solver.mjw_data.qacc_warmstart)
        shapes = NewtonManager.get_model()
        # The place in `contact_bodies` of each body of the engine's, those of hands and of the
        # ground, which is body -1, behind them.
        names = [label.rpartition("/")[2] for label in (*shapes.body_label, "")]
        places = {name: place for place, name in enumerate(self.contact_bodies)}
        self._link_of = self._index(np.array([places.get(name, len(places)) for name in names]))

    def overflowed(self) -> Tensor:
        """See `Simulator.overflowed`."""
        return (self._overflow & _NO_ROOM) != 0

    def _physics(self) -> PhysicsCfg:
        model = self.config.model
        contacts, rows = capacity(mjcf.compile_model(model), model.self_collision)
        return NewtonCfg(
            solver_cfg=MJWarpSolverCfg(
                solver="newton", integrator="implicitfast", cone=model.cone, impratio=1.0,
                iterations=model.iterations, ls_iterations=model.ls_iterations, tolerance=1e-8,
                nconmax=contacts, njmax=rows,
            ),
            # By default contacts would begin a centimetre above the ground.
            default_shape_cfg=NewtonShapeCfg(margin=0.0, gap=0.0),
        )  # fmt: skip

    def _before_start(self) -> None:
        NewtonManager.register_callback(
            self._one_actuator_a_joint, PhysicsEvent.MODEL_INIT, order=1, wrap_weak_ref=False
        )

    def _one_actuator_a_joint(self, _event: Any) -> None:
        """Put stiffness and damping of a drive into one actuator, before the model is made.

        Isaac Lab asks for an actuator each, so that no limit of force is the drive's as a whole
        but the joint's only: then a drive at its limit goes on being damped implicitly, which
        MuJoCo's is not, and within a step at the limit the two part by hundredths of a radian.
        """
        builder = self._sim.get_or_create_backend(
            NewtonBuilderCfg(physics_cfg=self._sim.cfg.physics)
        )
        both, one = int(JointTargetMode.POSITION_VELOCITY), int(JointTargetMode.POSITION)
        builder.joint_target_mode[:] = [one if m == both else m for m in builder.joint_target_mode]

    def _sensed_bodies(self) -> list[str]:
        return self._sensor.sensor_names

    def _friction(self) -> tuple[Tensor, list[int]]:
        """The engine's coefficients of all shapes `[N, S]`, and which shapes are feet."""
        view = self._robot.root_view
        values = wp.to_torch(view.get_attribute("shape_material_mu", NewtonManager.get_model()))
        feet = [
            i for i, name in enumerate(view.shape_names) if name.rpartition("/")[2] in _FOOT_SHAPES
        ]
        return values[:, 0], feet

    def _foot_friction(self) -> Tensor:
        values, feet = self._friction()
        return values[:, feet[0]].clone()

    def _set_foot_friction(self, friction: Tensor) -> None:
        values, feet = self._friction()
        values[:, feet] = friction[:, None]
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    def _self_contacts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both bodies of every contact and its robot, `[M]` each, and its force `[M, 3]`.

        The force is zero where it is none between two links.
        """
        shapes, contacts = NewtonManager.get_model(), NewtonManager.get_contacts()
        first, second, count, force = (
            wp.to_torch(array)
            for array in (
                contacts.rigid_contact_shape0, contacts.rigid_contact_shape1,
                contacts.rigid_contact_count, contacts.force,
            )
        )  # fmt: skip
        body, world = wp.to_torch(shapes.shape_body), wp.to_torch(shapes.shape_world)
        # The arrays have room for more contacts than there are; entries behind those are old.
        live = torch.arange(len(first), device=self.device) < count
        live &= (body[first] >= 0) & (body[second] >= 0)  # the ground is no body
        force = torch.where(live[:, None], force[: len(first), :3], 0.0)
        robots = torch.where(live, world[first], 0).long()
        return body[first], body[second], robots, force

    def _strongest_self_contact(self) -> Tensor:
        _, _, robots, force = self._self_contacts()
        return self._zeros(self.num_envs).scatter_reduce_(0, robots, force.norm(dim=1), "amax")

    def _net_self_contact(self) -> Tensor:
        first, second, robots, force = self._self_contacts()
        count = len(self.contact_bodies)
        net = self._zeros(self.num_envs * (count + 1), 3)
        for body, acting in ((first, force), (second, -force)):
            net.index_add_(0, robots * (count + 1) + self._link_of[body.long()], acting)
        return net.unflatten(0, (self.num_envs, count + 1))[:, :count]

    def _forget(self, mask: Tensor) -> None:
        # The solver's warm start is cleared by Isaac Lab, of every robot that was written to.
        self._overflow.masked_fill_(mask, 0)

    def _kept(self) -> dict[str, Tensor]:
        state = NewtonManager.get_state_0()
        return {
            "joint_q": wp.to_torch(state.joint_q), "joint_qd": wp.to_torch(state.joint_qd),
            "warm_start": self._warm_start, "overflow": self._overflow,
        }  # fmt: skip

    def _put_back(self, kept: dict[str, Tensor]) -> None:
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        # First Isaac Lab learns that every state is another; then the engine's coordinates are set
        # bit by bit. The warm start is set last, since the kinematics clear it.
        self._write_root(everyone, self.root_pos, self.root_quat, *self._root_velocity())
        for name in ("joint_q", "joint_qd"):
            wp.to_torch(getattr(NewtonManager.get_state_0(), name)).copy_(kept[name])
        self._refresh()
        self._warm_start.copy_(kept["warm_start"])
        self._overflow.copy_(kept["overflow"])
