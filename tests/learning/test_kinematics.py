"""learning/kinematics.py against the tables in NumPy, and gradients against finite differences."""

import numpy as np
import torch
from robot_states import as_state, some_states
from scipy.spatial.transform import Rotation

from bm_envs.learning.kinematics import (
    LOCAL_BODIES,
    LocalKinematics,
    WorldKinematics,
    compose,
    path_to,
)
from bm_envs.robots import g1, kinematics


def test_kinematics_are_those_of_the_tables_in_numpy():
    qpos, qvel = some_states(50)
    root = Rotation.from_quat(qpos[:, [4, 5, 6, 3]])
    expected = kinematics.link_states(
        qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], qvel[:, :3], root.apply(qvel[:, 3:6]), qvel[:, 6:]
    )
    state = as_state(qpos, qvel)
    local = LocalKinematics()(state.joint_pos)
    links = WorldKinematics(g1.TRACKED_BODIES)(state.pelvis(), state.joint_pos)
    in_world = compose(state.pelvis().expand(3, 3, 4, 50), local)
    for bodies, poses in ((g1.TRACKED_BODIES, links), (LOCAL_BODIES, in_world)):
        picked = [g1.BODY_NAMES.index(name) for name in bodies]
        poses = poses.permute(3, 0, 1, 2).numpy()
        # float32 through ten links: 1e-7 of a metre each.
        np.testing.assert_allclose(poses[..., 3], expected.pos[:, picked], atol=2e-6)
        quats = expected.quat[:, picked][..., [1, 2, 3, 0]].reshape(-1, 4)
        turns = Rotation.from_quat(quats).as_matrix().reshape(50, -1, 3, 3)
        np.testing.assert_allclose(poses[..., :3], turns, atol=2e-6)


def test_links_have_the_tables_order_whatever_the_hashes_are():
    """Sums of gradients are added in this order: one that differed would change a resumed run."""
    joints = WorldKinematics(g1.TRACKED_BODIES).joints.tolist()
    depths = [len(path_to(g1.JOINTS[joint].body)) for joint in joints]
    assert depths == sorted(depths)
    places = [g1.BODY_NAMES.index(g1.JOINTS[joint].body) for joint in joints]
    assert list(zip(depths, places, strict=True)) == sorted(zip(depths, places, strict=True))


def test_products_of_transforms_are_those_of_matrices_and_so_is_their_gradient():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    square = [
        torch.cat([v.detach().permute(0, 3, 1, 2), last.expand(2, 5, 1, 4)], 2)
        for v in (first, second)
    ]
    expected = (square[0] @ square[1])[:, :, :3].permute(0, 2, 3, 1)
    torch.testing.assert_close(compose(first, second), expected)
    assert torch.autograd.gradcheck(compose, (first, second))
