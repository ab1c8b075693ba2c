"""Forward kinematics in torch, with gradients: the poses of links in batches of robots.

`bm_envs.robots.kinematics` is the same in NumPy, for whole motions and with velocities; a test
holds one to the other. A pose is a rigid transform `[3, 4]`, the rotation beside the position in m.

Letters in shapes: B robots, M links. The batch is the last axis, along which a processor's vectors
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs.robots import g1
from bm_envs.robots.kinematics import joints_of_links
from bm_envs.robots.robot import Robot
from bm_envs.rotations import quat_normalize, quat_to_matrix


def local_bodies(robot: Robot = g1.G1) -> tuple[str, str, str]:
    """Torso, left foot, right foot."""
    left, right = robot.foot_bodies
    return robot.anchor_body, left, right


LOCAL_BODIES = local_bodies()  # of the G1


class Compose(torch.autograd.Function):
    """Products of rigid transforms, `[M, 3, 4, B]` each: first the second one, then the first.

    This takes a third of the time of batched products of small matrices, gradient included.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        """Rotations multiply; positions are turned by the first rotation, and shifted."""
        ctx.save_for_backward(first, second)
        out = first[:, :, 0, None] * second[:, None, 0]
        out.addcmul_(first[:, :, 1, None], second[:, None, 1])
        out.addcmul_(first[:, :, 2, None], second[:, None, 2])
        out[:, :, 3] += first[:, :, 3]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """See `torch.autograd.Function`."""
        (gradient,) = gradients
        first, second = ctx.saved_tensors
        by_first = torch.empty_like(gradient)
        turn = by_first[:, :, :3]
        torch.mul(gradient[:, :, 0, None], second[:, None, :, 0], out=turn)
        for j in (1, 2, 3):
            turn.addcmul_(gradient[:, :, j, None], second[:, None, :, j])
        by_first[:, :, 3] = gradient[:, :, 3]
        by_second = first[:, 0, :3, None] * gradient[:, 0, None]
        for i in (1, 2):
            by_second.addcmul_(first[:, i, :3, None], gradient[:, i, None])
        return by_first, by_second


def compose(first: Tensor, second: Tensor) -> Tensor:
    """See `Compose`."""
    product = Compose.apply(first, second)
    assert isinstance(product, Tensor)
    return product


def path_to(body: str, robot: Robot = g1.G1) -> list[str]:
    """Links from the pelvis, itself left out, to `body`."""
    parent = {body.name: body.parent for body in robot.bodies}
    path = [body]
    while parent[path[0]] != robot.root_body:
        path.insert(0, parent[path[0]])
    return path


class LinkTransforms(nn.Module):
    """Poses of links in their parents, `P0 + sin(q) P1 + cos(q) P2` with q the link's joint angle.

    The rotation is `F Exp(q a) = F (I + A^2) + sin(q) F A - cos(q) F A^2` with F the link's fixed
    rotation and A the cross product with the joint's axis a.
    """

    parts: Tensor
    """`P [3, M, 3, 4, 1]`."""
    joints: Tensor
    """`[M]`, numbers of the links' joints."""

    def __init__(self, bodies: Sequence[str | None], robot: Robot = g1.G1) -> None:
        """None in the place of a link stands for the identity."""
        super().__init__()
        table = {body.name: body for body in robot.bodies}
        joint_of = joints_of_links(robot.bodies, robot.joints)
        joints, parts = np.zeros(len(bodies), np.int64), np.zeros((3, len(bodies), 3, 4))
        parts[0] = np.eye(4)[:3]
        for i, name in enumerate(bodies):
            if name is None:
                continue
            joints[i] = joint_of[name]
            fixed = quat_to_matrix(quat_normalize(np.array(table[name].quat, np.float64)))
            axis = np.array(robot.joints[joints[i]].axis, np.float64)
            cross = np.cross(axis, np.eye(3)).T
            turns = fixed @ (np.eye(3) + cross @ cross), fixed @ cross, -fixed @ cross @ cross
            parts[:, i, :, :3] = turns
            parts[0, i, :, 3] = table[name].pos
        self.register_buffer("joints", torch.tensor(joints), persistent=False)
        self.register_buffer(
            "parts", torch.tensor(parts, dtype=torch.float32)[..., None], persistent=False
        )

    def in_parents(self, joint_pos: Tensor) -> Tensor:
        """`[M, 3, 4, B]` at joint positions `[B, J]`, rad."""
        q = joint_pos.T.index_select(0, self.joints)[:, None, None]
        return self.parts[0] + q.sin() * self.parts[1] + q.cos() * self.parts[2]


class WorldKinematics(LinkTransforms):
    """Poses of chosen links in the world: down the tree, all links of one depth at once."""

    picked: Tensor

    def __init__(self, bodies: Sequence[str], robot: Robot = g1.G1) -> None:
        paths = {name: path_to(name, robot) for name in robot.body_names[1:]}
        needed = {link for body in bodies if body in paths for link in paths[body]}
        # Links of one depth stand in the table's order. A set's order differs between processes,
        # and with it the order of sums in the gradient: a resumed run would have other numbers.
        order = sorted((name for name in paths if name in needed), key=lambda n: len(paths[n]))
        super().__init__(order, robot)
        root = robot.root_body
        depths = range(1, len(paths[order[-1]]) + 1)
        levels = [[name for name in order if len(paths[name]) == depth] for depth in depths]
        self.sizes = [len(level) for level in levels]
        before = [root]
        for d, level in enumerate(levels):
            parents = [before.index([root, *paths[name]][-2]) for name in level]
            self.register_buffer(f"parents{d}", torch.tensor(parents), persistent=False)
            before = level
        place = [[root, *order].index(name) for name in bodies]
        self.register_buffer("picked", torch.tensor(place), persistent=False)

    def forward(self, root: Tensor, joint_pos: Tensor) -> Tensor:
        """Links in the world, `[M, 3, 4, B]`, of pelves `root [3, 4, B]` and joints `[B, 29]`."""
        # All levels are cut apart at once: the gradient of each single cut would be a tensor of
        # the whole size.
        links = [root[None]]
        for d, level in enumerate(self.in_parents(joint_pos).split(self.sizes)):
            parents = self.get_buffer(f"parents{d}")
            links.append(compose(links[-1].index_select(0, parents), level))
        return torch.cat(links).index_select(0, self.picked)


class LocalKinematics(LinkTransforms):
    """Poses of `LOCAL_BODIES` in the pelvis: three chains of up to six joints, pair by pair.

    Products of pairs are three calls in place of the six of `WorldKinematics`.
    """

    def __init__(self, robot: Robot = g1.G1) -> None:
        paths = [path_to(body, robot) for body in local_bodies(robot)]
        padded = [[*path, *[None] * (6 - len(path))] for path in paths]
        # The first links of all pairs, then the second ones; within each, pair by pair, the chains.
        super().__init__([
            chain[2 * pair + k] for k in (0, 1) for pair in range(3) for chain in padded
        ], robot)  # fmt: skip

    def forward(self, joint_pos: Tensor) -> Tensor:
        """`[3, 3, 4, B]` at joint positions `[B, 29]`, rad."""
        one, two, three = compose(*self.in_parents(joint_pos).chunk(2)).chunk(3)
        return compose(compose(one, two), three)
