"""A world model of the robot: what a control step does, by a network and integration.

    model = WorldModel(hidden=(256, 256), decimation=4)
    state = model(state, model.local(state), target, build)     # one control step of all robots

Letters in shapes: B robots or samples, J joints, 29 of the G1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs.learning.graphs import Constant
from bm_envs.learning.kinematics import LocalKinematics
from bm_envs.learning.networks import Mirror, Network, as_mirror
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot
from bm_envs.rotations import quat_to_matrix
from bm_envs.tasks.track.config import CONTROL_DT

# The corners of a sole in its link's axes, the same on both feet. [4, 3]
SOLE = Constant([geom.start for geom in g1.FOOT_SPHERES[:4]])
SOLE_RADIUS = g1.FOOT_SPHERES[0].radius
CONTACT_DEPTH = 0.01  # m, over which a sole's corner goes from free to loaded, as the model sees it


class State(NamedTuple):
    """States of B robots."""

    pos: Tensor
    """`[B, 3]`, pelvis, world, m."""
    rot: Tensor
    """`[B, 3, 3]`, pelvis to world."""
    lin: Tensor
    """`[B, 3]`, of the pelvis's origin, world axes, m/s."""
    ang: Tensor
    """`[B, 3]`, pelvis axes, rad/s."""
    joint_pos: Tensor
    """`[B, 29]`, rad."""
    joint_vel: Tensor
    """`[B, 29]`, rad/s."""

    @staticmethod
    def of(qpos: Tensor, qvel: Tensor) -> State:
        """From the engine's `qpos [B, 36]` and `qvel [B, 35]`."""
        rot = quat_to_matrix(qpos[:, 3:7])
        return State(qpos[:, :3], rot, qvel[:, :3], qvel[:, 3:6], qpos[:, 7:], qvel[:, 6:])

    @staticmethod
    def joined(states: Sequence[State]) -> State:
        """States one after another along the batch."""
        return State(*(torch.cat(parts) for parts in zip(*states, strict=True)))

    def pelvis(self) -> Tensor:
        """Poses of the pelvis as `learning.kinematics` has them. `[3, 4, B]`."""
        return torch.cat([self.rot, self.pos[..., None]], -1).permute(1, 2, 0).contiguous()


class LocalState(NamedTuple):
    """What inputs of the model and observations are made of, in the pelvis's axes."""

    lin: Tensor
    """`[B, 3]`, velocity of the pelvis, m/s."""
    links: Tensor
    """`[3, 3, 4, B]`, poses of torso and feet (`kinematics.LOCAL_BODIES`) in the pelvis."""
    link_vel: Tensor
    """`[3, 3, B]`, m/s, their mean velocities over a control step in which joints keep theirs."""


# From a vector to the nine numbers of its cross product's matrix.
_CROSS = Constant(np.cross(np.eye(3)[:, None], np.eye(3)).swapaxes(1, 2).reshape(3, 9))


def turned(rot: Tensor, vector: Tensor) -> Tensor:
    """`rot Exp(vector)` of `[B, 3, 3]` and small rotation vectors `[B, 3]`, rad, by the series.

    The series ends at the fourth order: 3e-6 off for the 0.2 rad that 10 rad/s are in a step.
    """
    square = (vector * vector).sum(-1)[:, None, None]
    cross = (vector @ _CROSS.like(vector)).view(-1, 3, 3)
    change = cross * (1 - square / 6) + (cross @ cross) * (0.5 - square / 24)
    return rot + rot @ change


class WorldModel(nn.Module):
    """What a control step does to a robot: a network that gives accelerations, and integration.

    All is in the pelvis's axes, without x, y and heading. Inputs: height; gravity's direction;
    velocities of the pelvis; joints' positions and velocities, and how far their targets are; of
    the feet, heights of the soles' corners, how much each is in reach of the ground, velocities;
    and what a robot's randomized build is.
    Outputs: changes of the pelvis's velocities and of the joints', and three corrections of the
    mean velocities by which positions move, since a control step hides several physics steps.

    A linear layer runs beside the network: the drives are linear, and are learned at once.
    """

    scale: Tensor
    """`[70]`, standard deviations of the true outputs."""
    count: Tensor

    def __init__(
        self, hidden: Sequence[int], decimation: int, *, symmetry: bool = True,
        robot: Robot = g1.G1,
    ) -> None:  # fmt: skip
        """A model of the robots of one task.

        Args:
            hidden: widths of the network's hidden layers.
            decimation: physics steps of a control step.
            symmetry: whether the network is left-right symmetric.
            robot: which one they are.
        """
        super().__init__()
        self.robot = robot
        self.kinematics = LocalKinematics(robot)
        inputs, outputs = _mirrors(robot)
        mirrors = (inputs, outputs) if symmetry else None
        sizes = (len(inputs[0]), *hidden, len(outputs[0]))
        self.network = Network(sizes, "elu", 0.01, mirrors)
        self.linear = Network((sizes[0], sizes[-1]), "elu", 0.01, mirrors)
        self.register_buffer("scale", torch.ones(sizes[-1]))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # Share of the velocity after a control step in the mean one of its n physics steps, each
        # of which moves by the velocity after it: with even accelerations (n + 1) / 2n.
        self.late = (decimation + 1) / (2 * decimation)
        self.use_bfloat16 = False  # whether matrix products are computed in bfloat16

    def local(self, state: State) -> LocalState:
        """The state in the pelvis's axes."""
        batch = len(state.pos)
        soon = state.joint_pos + CONTROL_DT * state.joint_vel
        now, then = self.kinematics(torch.cat([state.joint_pos, soon])).split(batch, -1)
        lin = (state.lin[:, None] @ state.rot)[:, 0]
        pos, ang = now[:, :, 3], state.ang.T.expand(3, 3, batch)
        swept = torch.linalg.cross(ang, pos, dim=1)
        return LocalState(lin, now, lin.T + swept + (then[:, :, 3] - pos) * (1 / CONTROL_DT))

    def inputs(self, state: State, local: LocalState, target: Tensor, build: Tensor) -> Tensor:
        """What the network sees of states, joint targets `[B, 29]` (rad) and build. `[B, D]`."""
        up = state.rot[:, 2]
        # A corner is as high as the foot's origin, plus the corner's place in the foot along what
        # is up there.
        feet = (local.links[1:] * up.T[:, None]).sum(1)  # [2, 4, B]
        height = SOLE.like(up) @ feet[:, :3] + (feet[:, 3:] + (state.pos[:, 2] - SOLE_RADIUS))
        height = height.flatten(0, 1).T
        return torch.cat([
            state.pos[:, 2:], up, local.lin, state.ang, state.joint_pos, state.joint_vel,
            target - state.joint_pos, height, torch.sigmoid(height * (-1 / CONTACT_DEPTH)),
            local.link_vel[1:].flatten(0, 1).T, build,
        ], 1)  # fmt: skip

    def rates(self, state: State, following: State) -> Tensor:
        """What the network should put out for true states one control step apart. `[B, 70]`."""
        moved = (following.pos - state.pos) / CONTROL_DT
        turn = state.rot.mT @ following.rot
        # The turn is small: its skew part is sin(angle) times the axis, within 1e-3 of the vector.
        spun = 0.5 / CONTROL_DT * torch.stack([
            turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0],
            turn[:, 1, 0] - turn[:, 0, 1],
        ], 1)  # fmt: skip
        bent = (following.joint_pos - state.joint_pos) / CONTROL_DT

        def between(first: Tensor, second: Tensor) -> Tensor:
            return self.late * second + (1 - self.late) * first

        to_local = lambda v: (v[:, None] @ state.rot)[:, 0]  # noqa: E731
        return torch.cat([
            to_local(following.lin - state.lin), following.ang - state.ang,
            following.joint_vel - state.joint_vel,
            to_local(moved - between(state.lin, following.lin)),
            spun - between(state.ang, following.ang),
            bent - between(state.joint_vel, following.joint_vel),
        ], 1)  # fmt: skip

    def integrate(self, state: State, rates: Tensor) -> State:
        """The state after a control step in which velocities changed by `rates [B, 70]`."""
        J = self.robot.num_joints  # noqa: N806
        dlin, dang, djoint, plin, pang, pjoint = rates.split((3, 3, J, 3, 3, J), 1)
        late = self.late
        dlin, plin = (torch.stack([dlin, plin], 1) @ state.rot.mT).unbind(1)
        return State(
            state.pos + CONTROL_DT * (state.lin + late * dlin + plin),
            turned(state.rot, CONTROL_DT * (state.ang + late * dang + pang)),
            state.lin + dlin,
            state.ang + dang,
            state.joint_pos + CONTROL_DT * (state.joint_vel + late * djoint + pjoint),
            state.joint_vel + djoint,
        )

    def forward(self, state: State, local: LocalState, target: Tensor, build: Tensor) -> State:
        """The state after a control step with joint targets `[B, 29]`, rad.

        `build [B, 4]` is what `tasks.track.state.State.build` has of each robot.
        """
        x = self.network.normalize(self.inputs(state, local, target, build)).clamp(-10, 10)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            y = self.network(x) + self.linear(x)
        return self.integrate(state, y.to(x.dtype) * self.scale)

    @torch.no_grad()
    def update_normalizer(
        self, state: State, target: Tensor, build: Tensor, following: State
    ) -> None:
        """Fold true transitions into the scales of inputs and outputs."""
        self.network.update_normalizer(self.inputs(state, self.local(state), target, build))
        rates = self.rates(state, following)
        # The median of a batch is not moved by the few robots that are pushed.
        square = (rates * rates).clamp(max=25 * (rates * rates).median(0).values + 1e-8).mean(0)
        if self.network.mirrors:
            square = 0.5 * (square + square[self.network.mirrors[-1][0]])
        share = (len(rates) / (self.count + len(rates))).float()
        self.scale.copy_((self.scale**2).lerp(square, share).sqrt() + 1e-6)
        self.count += len(rates)

    def units(self) -> Tensor:
        """What a control step changes the numbers of a state by. `[76]`."""
        J = self.robot.num_joints  # noqa: N806
        lin, ang, joint = self.scale.split((3, 3, J, 3 + 3 + J))[:3]
        dt = CONTROL_DT
        # A small turn of the difference r changes the nine numbers by 2 |r|^2 in squares.
        return torch.cat([
            (dt * lin.mean()).expand(3), (dt * ang.mean() / 4.5**0.5).expand(9),
            lin.mean().expand(3), ang, dt * joint, joint,
        ])  # fmt: skip

    def prediction_errors(
        self, states: Sequence[State], targets: Tensor, build: Tensor
    ) -> tuple[Tensor, Tensor]:
        """How far off the model gets in K steps from true states, by the recorded targets.

        Args:
            states: K + 1 true states.
            targets: `[K, B, 29]`, rad.
            build: `[B, 4]`.

        Returns:
            The cost after each step, `[K, B]`: a pseudo-Huber loss `sqrt(1 + e^2) - 1` with e in
            units of what a step changes, the mean over the six parts of a state, and over the
            numbers of each. And the parts' mean absolute errors in SI units, `[K, 6, B]`.
        """
        state, predicted = states[0], []
        for target in targets:
            state = self(state, self.local(state), target, build)
            predicted.append(state)
        shape = targets.shape[:2]
        off = [
            (a - b).flatten(1)
            for a, b in zip(State.joined(predicted), State.joined(states[1:]), strict=True)
        ]
        scaled = torch.cat(off, 1) / self.units()
        cost = ((1 + scaled * scaled).sqrt() - 1) @ error_weights(self.robot.num_joints).like(
            scaled
        )
        means = [part.detach().abs().mean(1).view(shape) for part in off]
        return cost.view(shape), torch.stack(means, 1)


@functools.cache
def error_weights(num_joints: int) -> Constant:
    """Weights of the numbers of a state: its six parts count alike. `[18 + 2 J]`."""
    parts = (3, 9, 3, 3, num_joints, num_joints)
    return Constant(torch.cat([torch.full((n,), 1 / (n * len(parts))) for n in parts]))


def _mirrors(robot: Robot) -> tuple[Mirror, Mirror]:
    """The left-right reflections of the network's inputs and outputs."""
    vector, axial = (1.0, -1.0, 1.0), (-1.0, 1.0, -1.0)
    three, (index, sign) = np.arange(3), robot.mirror_map()
    corners = np.array([5, 4, 7, 6, 1, 0, 3, 2])  # other foot, other edge
    feet = np.array([3, 4, 5, 0, 1, 2])
    inputs = [
        (np.arange(1), (1.0,)), (three, vector), (three, vector), (three, axial), (index, sign),
        (index, sign), (index, sign), (corners, (1.0,) * 8), (corners, (1.0,) * 8),
        (feet, vector * 2), (np.arange(4), (1.0, *vector)),
    ]  # fmt: skip
    outputs = 2 * [(three, vector), (three, axial), (index, sign)]
    return _joined(inputs), _joined(outputs)


def _joined(parts: Sequence[tuple[np.ndarray, Any]]) -> Mirror:
    """The reflection of values that stand one after another."""
    index, sign, start = [], [], 0
    for part, part_sign in parts:
        index.append(part + start)
        sign.append(np.asarray(part_sign))
        start += len(part)
    return as_mirror((np.concatenate(index), np.concatenate(sign)))
