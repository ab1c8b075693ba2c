"""tasks/guided/states.py: frames, round trips and mirrors against kinematics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from bm_envs.errors import ConfigError
from bm_envs.robots import g1, kinematics
from bm_envs.tasks.guided.states import REPRESENTATIONS, States, now_frame, representation

T, NOW, WINDOWS = 20, 3, 6
NAMES = tuple(REPRESENTATIONS)


def scipy(quat):
    return Rotation.from_quat(np.asarray(quat)[..., [1, 2, 3, 0]])


def with_bodies(states: States) -> States:
    """The same states with link positions and velocities by forward kinematics."""
    shape = states.root_pos.shape[:-1]
    rows = [value.reshape(-1, value.shape[-1]) for value in states[:6]]
    pos, quat, lin, ang, joint, joint_vel = rows
    links = kinematics.link_states(pos, quat, joint, lin, ang, joint_vel)
    return states._replace(
        body_pos=links.pos.reshape(*shape, -1, 3), body_lin_vel=links.lin_vel.reshape(*shape, -1, 3)
    )


@pytest.fixture
def states() -> States:
    """Windows of any motion, tumbling too: consecutive steps need not follow from each other."""
    rng = np.random.default_rng(1)
    quat = rng.normal(size=(WINDOWS, T, 4))
    return with_bodies(
        States(
            rng.normal(size=(WINDOWS, T, 3)) * 5,
            quat / np.linalg.norm(quat, axis=-1, keepdims=True),
            rng.normal(size=(WINDOWS, T, 3)),
            rng.normal(size=(WINDOWS, T, 3)),
            rng.uniform(*g1.JOINT_RANGE.T, (WINDOWS, T, 29)),
            rng.normal(size=(WINDOWS, T, 29)),
        )
    )


def test_sizes_are_the_published_ones():
    """192 with the angular velocity, which the paper's text lacks and its prototype has; 70."""
    assert {name: REPRESENTATIONS[name].size for name in NAMES} == {
        "body_pos": 192,
        "joint_rot": 70,
    }
    blocks = REPRESENTATIONS["body_pos"].blocks
    assert blocks["root_pos"] == slice(180, 183) and blocks["root_ang_vel"] == slice(189, 192)


def test_blocks_by_rotation_matrices(states):
    """Every number of one window, from the table in words."""
    features = representation("body_pos").encode(states, NOW)
    joint_rot = representation("joint_rot").encode(states, NOW)
    for w in range(WINDOWS):
        rotation = scipy(states.root_quat[w])
        # The heading of the x axis, not an Euler angle: the robot may lie on its back.
        yaw = np.arctan2(rotation.as_matrix()[:, 1, 0], rotation.as_matrix()[:, 0, 0])
        now = Rotation.from_euler("z", yaw[NOW]).inv()
        origin = states.root_pos[w, NOW] * [1, 1, 0]
        for i in range(T):
            own = Rotation.from_euler("z", yaw[i]).inv()
            pos, vel = states.body_pos[w, i], states.body_lin_vel[w, i]
            root = np.concatenate(
                [
                    now.apply(states.root_pos[w, i] - origin),
                    (now * rotation[i]).as_rotvec(),
                    now.apply(states.root_lin_vel[w, i]),
                    now.apply(states.root_ang_vel[w, i]),
                ]
            )
            bodies = own.apply(pos - states.root_pos[w, i] * [1, 1, 0]).ravel()
            speeds = own.apply(vel - states.root_lin_vel[w, i]).ravel()
            expected = np.concatenate([bodies, speeds, root])
            np.testing.assert_allclose(features[w, i], expected, atol=1e-10)
            joints = np.concatenate([states.joint_pos[w, i], states.joint_vel[w, i], root])
            np.testing.assert_allclose(joint_rot[w, i], joints, atol=1e-10)


def test_now_is_at_the_origin_and_faces_along_x(states):
    for name in NAMES:
        rep = representation(name)
        now = rep.encode(states, NOW)[:, NOW]
        np.testing.assert_allclose(now[:, rep.blocks["root_pos"]][:, :2], 0, atol=1e-12)
        x_axis = Rotation.from_rotvec(now[:, rep.blocks["root_rot"]]).apply([1, 0, 0])
        np.testing.assert_allclose(x_axis[:, 1], 0, atol=1e-12)
        assert (x_axis[:, 0] > 0).all()
        heights = now[:, rep.blocks["root_pos"]][:, 2]
        np.testing.assert_allclose(heights, states.root_pos[:, NOW, 2], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(shift=hnp.arrays(float, 2, elements=st.floats(-100, 100)), yaw=st.floats(-np.pi, np.pi))
def test_place_and_heading_in_the_world_do_not_show(name, shift, yaw):
    states = _fixed()
    turn = Rotation.from_euler("z", yaw)
    quat = (turn * scipy(states.root_quat.reshape(-1, 4))).as_quat()[:, [3, 0, 1, 2]]
    offset = np.append(shift, 0.0)

    def turned(vectors):
        return turn.apply(vectors.reshape(-1, 3)).reshape(vectors.shape)

    moved = States(
        turned(states.root_pos) + offset,
        quat.reshape(states.root_quat.shape),
        turned(states.root_lin_vel),
        turned(states.root_ang_vel),
        states.joint_pos,
        states.joint_vel,
        turned(states.body_pos) + offset,
        turned(states.body_lin_vel),
    )
    encode = representation(name).encode
    # 100 m lose two of float64's sixteen digits; 1e-5 is the gate's threshold.
    np.testing.assert_allclose(encode(moved, NOW), encode(states, NOW), atol=1e-10)


def _fixed() -> States:
    """Windows for hypothesis, upright to 1 rad: of a robot that stands on its head a rounding error
    turns the heading, and of one turned by pi the rotation vector."""
    rng = np.random.default_rng(2)
    quat = scipy_wxyz(Rotation.from_rotvec(rng.uniform(-0.5, 0.5, (2 * T, 3)))).reshape(2, T, 4)
    vectors = [rng.normal(size=(2, T, 3)) for _ in range(3)]
    joints = [rng.uniform(*g1.JOINT_RANGE.T, (2, T, 29)), rng.normal(size=(2, T, 29))]
    return with_bodies(States(vectors[0], quat, *vectors[1:], *joints))


def scipy_wxyz(rotation):
    return rotation.as_quat()[..., [3, 0, 1, 2]]


@pytest.mark.parametrize("name", NAMES)
def test_decoded_is_what_was_encoded(name, states):
    rep = representation(name)
    back = rep.decode(rep.encode(states, NOW), now_frame(states, NOW))
    if name == "joint_rot":  # its bodies follow by forward kinematics
        back = with_bodies(back)
    for field in ("root_pos", "root_lin_vel", "root_ang_vel", "body_pos", "body_lin_vel"):
        np.testing.assert_allclose(getattr(back, field), getattr(states, field), atol=1e-9)
    same = np.abs((back.root_quat * states.root_quat).sum(-1))
    np.testing.assert_allclose(same, 1.0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_torch_gives_the_same_numbers(name, states):
    rep = representation(name)
    tensors = States(*(torch.as_tensor(value) for value in states))
    features = rep.encode(tensors, NOW)
    np.testing.assert_allclose(features, rep.encode(states, NOW), atol=1e-12)
    back = rep.decode(features, now_frame(tensors, NOW))
    np.testing.assert_allclose(back.root_pos, states.root_pos, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_mirror_of_the_window_is_the_window_of_the_mirrored_motion(name, states):
    rep = representation(name)
    index, sign = rep.mirror
    features = rep.encode(states, NOW)
    np.testing.assert_array_equal((features[..., index] * sign)[..., index] * sign, features)
    joint, flip = g1.mirror_map()
    polar, axial = np.array([1, -1, 1]), np.array([-1, 1, -1])
    mirrored = with_bodies(
        States(
            states.root_pos * polar,
            states.root_quat * np.array([1, -1, 1, -1]),
            states.root_lin_vel * polar,
            states.root_ang_vel * axial,
            states.joint_pos[..., joint] * flip,
            states.joint_vel[..., joint] * flip,
        )
    )
    # Published link offsets of the two sides differ by up to 1e-4 m, and speeds by as much a rad/s.
    np.testing.assert_allclose(rep.encode(mirrored, NOW), features[..., index] * sign, atol=2e-3)


def test_unknown_name():
    with pytest.raises(ConfigError, match="Unknown representation 'body_rot'; did you mean"):
        representation("body_rot")
