"""learning/world_model.py: inputs, integration and scales against the engine and closed forms."""

import numpy as np
import torch
from robot_states import after_random_steps, as_state, some_states
from scipy.spatial.transform import Rotation

from bm_envs.backends.base import full_state
from bm_envs.learning.kinematics import LOCAL_BODIES
from bm_envs.learning.networks import as_mirror
from bm_envs.learning.world_model import State, WorldModel, turned
from bm_envs.robots import g1, kinematics
from bm_envs.tasks.track.config import CONTROL_DT, laptop_task

TASK = laptop_task()


def world_model(**further):
    return WorldModel((256, 256), TASK.decimation, **further)


def test_links_move_as_they_do_at_low_speed():
    """Mean velocities of a step are the present ones but for what turns bend, second order."""
    qpos, qvel = some_states(50)
    qvel[:, 6:] *= 0.01
    root = Rotation.from_quat(qpos[:, [4, 5, 6, 3]])
    expected = kinematics.link_states(
        qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], qvel[:, :3], root.apply(qvel[:, 3:6]), qvel[:, 6:]
    )
    link_vel = world_model().local(as_state(qpos, qvel)).link_vel.numpy()
    picked = [g1.BODY_NAMES.index(name) for name in LOCAL_BODIES]
    actual = np.einsum("bij,mjb->bmi", root.as_matrix(), link_vel)
    # Joints turn by up to 1e-3 rad a step, feet are 0.8 m away: 1e-6 m in 0.02 s, and float32
    # places (1e-7 m) over the same time.
    np.testing.assert_allclose(actual, expected.lin_vel[:, picked], atol=3e-4)


def test_a_turn_is_the_exponential_map_up_to_the_fourth_order():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 3))
    vectors *= (np.geomspace(1e-6, 0.2, 100) / np.linalg.norm(vectors, axis=1))[:, None]
    start = Rotation.random(100, random_state=0)
    actual = turned(*map(torch.from_numpy, (start.as_matrix(), vectors))).numpy()
    expected = (start * Rotation.from_rotvec(vectors)).as_matrix()
    np.testing.assert_allclose(actual, expected, atol=0.2**5 / 100)  # the next term has 1 / 120


def test_integration_of_the_true_rates_is_the_engines_next_state():
    """Accelerations read off two states of the engine lead from the one to the other."""
    env, _, action = after_random_steps("walk", 3)
    before = State.of(*map(torch.from_numpy, full_state(env.simulator)))
    env.step(action)
    after = State.of(*map(torch.from_numpy, full_state(env.simulator)))
    model = world_model()
    actual = model.integrate(before, model.rates(before, after))
    for name, value, truth in zip(State._fields, actual, after, strict=True):
        # The turn of a step is taken by its sine: an angle of 0.1 rad is 2e-4 rad short.
        tolerance = 3e-4 if name == "rot" else 2e-5
        torch.testing.assert_close(value, truth, atol=tolerance, rtol=1e-5, msg=name)
    env.close()


def test_a_body_in_free_flight_falls_as_it_should():
    """With the rates of free fall, H steps are the parabola of the closed form."""
    model = world_model()
    qpos, qvel = some_states(4)
    qvel[:, 3:] = 0.0
    state = start = as_state(qpos, qvel)
    steps, gravity = 10, -9.81
    for _ in range(steps):
        rates = torch.zeros(4, 70)
        rates[:, :3] = state.rot[:, 2] * gravity * CONTROL_DT
        state = model.integrate(state, rates)
    elapsed, physics_dt = steps * CONTROL_DT, TASK.model.physics_dt
    # Semi-implicit physics steps h: z = v t + g t (t + h) / 2.
    fallen = start.lin[:, 2] * elapsed + gravity * elapsed * (elapsed + physics_dt) / 2
    torch.testing.assert_close(state.pos[:, 2] - start.pos[:, 2], fallen, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.lin[:, 2], start.lin[:, 2] + gravity * elapsed)


def mirrored(state, joints):
    flip = torch.tensor([1.0, -1.0, 1.0])
    index, sign = joints
    return State(
        state.pos * flip, state.rot * flip[:, None] * flip, state.lin * flip, state.ang * -flip,
        state.joint_pos[:, index] * sign, state.joint_vel[:, index] * sign,
    )  # fmt: skip


def test_what_the_model_says_of_the_mirrored_robot_is_mirrored():
    torch.manual_seed(0)
    model = world_model()
    for network in (model.network, model.linear):
        for value in network.layers.parameters():
            value.data += 0.1 * torch.randn_like(value)
        network.symmetrize([value.data for value in network.layers.parameters()])
    joints = as_mirror(g1.mirror_map())
    state, target = as_state(*some_states(20)), torch.randn(20, 29)
    build, flip = torch.randn(20, 4), torch.tensor([1.0, 1.0, -1.0, 1.0])
    expected = mirrored(model(state, model.local(state), target, build), joints)
    other = mirrored(state, joints)
    target = target[:, joints[0]] * joints[1]
    actual = model(other, model.local(other), target, build * flip)
    assert (actual.joint_vel - other.joint_vel).abs().mean() > 0.1  # premise: it does something
    for value, truth in zip(actual, expected, strict=True):
        # float32 sums of a few hundred terms; the robot's own links are symmetric to 1e-4 m.
        torch.testing.assert_close(value, truth, atol=2e-3, rtol=1e-3)


def test_scales_of_the_outputs_are_those_of_the_data():
    model = world_model(symmetry=False)
    before = as_state(*some_states(4000))
    rng = torch.Generator().manual_seed(0)
    change = torch.randn(4000, 29, generator=rng)
    after = before._replace(joint_vel=before.joint_vel + 3 * change)
    for part in range(4):
        picked = slice(1000 * part, 1000 * part + 1000)
        model.update_normalizer(
            State(*(v[picked] for v in before)), torch.zeros(1000, 29), torch.ones(1000, 4),
            State(*(v[picked] for v in after)),
        )  # fmt: skip
    # A standard deviation of 4000 draws is right to 1.1 %; five of that, and what the bound of the
    # largest squares takes off.
    np.testing.assert_allclose(model.scale[6:35].numpy(), 3.0, rtol=0.06)
