"""Clips and their NPZ files, against MuJoCo, closed forms and a published motion."""

import re

import motion_samples
import mujoco
import numpy as np
import oracles
import pytest

from bm_envs.errors import MotionError
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, clip_from_states, load_npz, save_npz
from bm_envs.robots import g1, kinematics, mjcf

# x_isaac[k] = x_mujoco[ISAAC_FROM_MUJOCO[k]]; typed from the project's facts (tracking.md 2.4).
ISAAC_FROM_MUJOCO = [
    0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24, 18, 25, 19, 26, 20,
    27, 21, 28,
]  # fmt: skip
# Body of Isaac's breadth-first order -> index there; typed from tracking.md section 3.
ISAAC_BODY_INDEX = {
    "pelvis": 0, "left_hip_roll_link": 4, "left_knee_link": 10, "left_ankle_roll_link": 18,
    "torso_link": 9, "left_wrist_yaw_link": 28, "right_wrist_yaw_link": 29,
}  # fmt: skip
FLOAT_KEYS = tuple(ARRAY_SHAPES)


@pytest.fixture(scope="module")
def clip():
    return motion_samples.clip()


def npz_arrays(clip, path, **changes):
    """The arrays of a saved clip; None removes a key."""
    save_npz(clip, path)
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files} | changes
    return {key: value for key, value in arrays.items() if value is not None}


def equal(a, b):
    return all(
        np.array_equal(getattr(a, key), getattr(b, key)) for key in (*FLOAT_KEYS, "foot_contact")
    )


def test_kinematics_of_all_frames_at_once_equal_mujoco():
    rng = np.random.default_rng(0)
    root_pos, lin_vel, ang_vel = rng.normal(size=(3, 50, 3))
    root_quat = rng.normal(size=(50, 4))
    joint_pos, joint_vel = rng.uniform(-1, 1, (50, 29)), rng.normal(size=(50, 29))
    links = kinematics.link_states(root_pos, root_quat, joint_pos, lin_vel, ang_vel, joint_vel)
    oracle = oracles.forward_kinematics(root_pos, root_quat, joint_pos, lin_vel, ang_vel, joint_vel)
    # Double precision, chains of 9 links, values up to about 10: 1e-12 is thousands of roundings.
    for got, key in zip(links, ("pos", "quat", "lin_vel", "ang_vel"), strict=True):
        np.testing.assert_allclose(got, oracle[f"body_{key}_w"], rtol=0, atol=1e-12)
    soles = kinematics.sole_points(links.pos, links.quat)[..., 2].min(axis=-1)
    np.testing.assert_allclose(soles, oracle["foot_height"], rtol=0, atol=1e-12)


def test_velocities_are_those_of_a_sine():
    fps, rate, size = 50.0, 4.0, 0.3
    t = np.arange(100) / fps
    joint_pos = np.tile(size * np.sin(rate * t)[:, None], (1, 29))
    root_pos = np.stack([size * np.sin(rate * t), 2.0 * t, 0.8 + 0 * t], axis=1)
    quat = np.tile([1.0, 0, 0, 0], (100, 1))
    clip = clip_from_states("sine", fps, root_pos, quat, joint_pos, source="", licence="")
    exact = size * rate * np.cos(rate * t)
    # A central difference is off by at most A w^3 dt^2 / 6, a one-sided one by A w^2 dt / 2.
    inside, end = size * rate**3 / fps**2 / 6, size * rate**2 / fps / 2
    for got in (clip.joint_vel[:, 7], clip.body_lin_vel_w[:, 0, 0]):
        assert np.abs(got - exact)[1:-1].max() < inside + 1e-6
        assert np.abs(got - exact)[[0, -1]].max() < end + 1e-6
        assert np.abs(got - exact)[1:-1].max() > 0.5 * inside, "premise: the bound is tight"
    np.testing.assert_allclose(clip.body_lin_vel_w[:, 0, 1], 2.0, atol=1e-5)


def test_angular_velocity_of_a_constant_spin_about_a_world_axis():
    spin = np.array([0.3, -0.5, 1.2])  # rad/s, world axes
    angle = np.linalg.norm(spin) * np.arange(200) / 50.0  # passes pi, where q turns into -q
    quat = np.hstack(
        [np.cos(angle / 2)[:, None], np.outer(np.sin(angle / 2), spin / np.linalg.norm(spin))]
    )
    assert angle[-1] > np.pi
    quat[::2] *= -1  # the same rotations
    joint_pos = np.tile(g1.DEFAULT_JOINT_POS, (200, 1))
    clip = clip_from_states("spin", 50, np.zeros((200, 3)), quat, joint_pos, source="", licence="")
    # A rigid body that spins about its origin: every link turns alike, and v = w x r.
    np.testing.assert_allclose(clip.body_ang_vel_w, np.broadcast_to(spin, (200, 30, 3)), atol=2e-6)
    np.testing.assert_allclose(clip.body_lin_vel_w, np.cross(spin, clip.body_pos_w), atol=5e-6)


def test_end_values_of_the_angular_velocity_are_copies(clip):
    np.testing.assert_array_equal(clip.body_ang_vel_w[0, 0], clip.body_ang_vel_w[1, 0])
    np.testing.assert_array_equal(clip.body_ang_vel_w[-1, 0], clip.body_ang_vel_w[-2, 0])


def test_foot_contact_by_height_and_speed():
    pose = np.tile(g1.DEFAULT_JOINT_POS, (50, 1))
    quat = np.tile([1.0, 0, 0, 0], (50, 1))
    still = clip_from_states(
        "a", 50, np.tile([0, 0, 0.76], (50, 1)), quat, pose, source="", licence=""
    )
    assert still.foot_contact.all()
    high = clip_from_states(
        "b", 50, np.tile([0, 0, 0.81], (50, 1)), quat, pose, source="", licence=""
    )
    assert not high.foot_contact.any()
    sliding = np.tile([0, 0, 0.76], (50, 1)) + np.arange(50)[:, None] / 50.0 * [1.0, 0, 0]  # 1 m/s
    assert not clip_from_states(
        "c", 50, sliding, quat, pose, source="", licence=""
    ).foot_contact.any()
    lifted = pose.copy()
    lifted[:, g1.JOINT_NAMES.index("left_knee_joint")] += 0.5
    one = clip_from_states(
        "d", 50, np.tile([0, 0, 0.76], (50, 1)), quat, lifted, source="", licence=""
    )
    assert not one.foot_contact[:, 0].any() and one.foot_contact[:, 1].all()
    told = np.tile([True, False], (50, 1))
    kept = clip_from_states(
        "e",
        50,
        np.tile([0, 0, 0.76], (50, 1)),
        quat,
        pose,
        source="",
        licence="",
        foot_contact=told,
    )
    np.testing.assert_array_equal(kept.foot_contact, told)


@pytest.mark.parametrize("order", ["mujoco", "isaac"])
def test_a_saved_clip_comes_back_bit_for_bit(clip, tmp_path, order):
    save_npz(clip, tmp_path / "a.npz", order=order)
    back = load_npz(tmp_path / "a.npz")
    assert equal(back, clip)
    assert (back.name, back.fps, back.source, back.licence) == (
        "sample",
        50.0,
        "made for a test",
        "CC0",
    )
    assert back.sha256() == clip.sha256()


def test_equal_clips_give_equal_files(clip, tmp_path):
    save_npz(clip, tmp_path / "a.npz")
    save_npz(clip, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_the_file_has_the_published_keys_shapes_and_types(clip, tmp_path):
    arrays = npz_arrays(clip, tmp_path / "a.npz")
    shapes = {
        "fps": (1,), "joint_pos": (60, 29), "joint_vel": (60, 29), "body_pos_w": (60, 30, 3),
        "body_quat_w": (60, 30, 4), "body_lin_vel_w": (60, 30, 3), "body_ang_vel_w": (60, 30, 3),
    }  # fmt: skip
    for key, shape in shapes.items():
        assert arrays[key].shape == shape
        assert key == "fps" or arrays[key].dtype == np.float32
    assert arrays["joint_names"].tolist() == list(g1.JOINT_NAMES)
    assert arrays["body_names"].tolist() == list(g1.BODY_NAMES)
    assert arrays["foot_contact"].shape == (60, 2) and arrays["foot_contact"].dtype == bool
    assert str(arrays["velocity_point"]) == "link_origin"


def test_isaac_order_is_the_published_one(clip, tmp_path):
    save_npz(clip, tmp_path / "a.npz", order="isaac")
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["joint_pos"], clip.joint_pos[:, ISAAC_FROM_MUJOCO])
        np.testing.assert_array_equal(arrays["joint_vel"], clip.joint_vel[:, ISAAC_FROM_MUJOCO])
        for name, index in ISAAC_BODY_INDEX.items():
            mine = g1.BODY_NAMES.index(name)
            np.testing.assert_array_equal(arrays["body_pos_w"][:, index], clip.body_pos_w[:, mine])
            assert arrays["body_names"][index] == name


def test_any_order_is_undone_by_the_names(clip, tmp_path):
    rng = np.random.default_rng(1)
    joints, bodies = rng.permutation(29), rng.permutation(30)
    arrays = npz_arrays(clip, tmp_path / "a.npz")
    for key in arrays:
        if key.startswith("joint_"):
            arrays[key] = arrays[key][..., joints]
        elif key == "body_names":
            arrays[key] = arrays[key][bodies]
        elif key.startswith("body_"):
            arrays[key] = arrays[key][:, bodies]
    np.savez(tmp_path / "b.npz", **arrays)
    assert equal(load_npz(tmp_path / "b.npz"), clip)


@pytest.mark.parametrize(("order", "other"), [("mujoco", "isaac"), ("isaac", "mujoco")])
def test_a_file_without_names_is_read_in_the_order_that_fits(clip, tmp_path, order, other):
    path = tmp_path / "bare.npz"
    save_npz(clip, path, order=order)
    with np.load(path) as archive:
        bare = {key: archive[key] for key in ("fps", *FLOAT_KEYS)}
    np.savez(path, **bare)
    wrong = (
        f"{path}: body_pos_w is \\S+ m from forward kinematics of joint_pos in order='{other}';"
        f" forward kinematics fits order='{order}'."
    )
    with pytest.raises(MotionError, match=wrong):
        load_npz(path, order=other)
    told = load_npz(path)
    assert load_npz(path, order=order).sha256() == told.sha256()
    np.testing.assert_array_equal(told.joint_pos, clip.joint_pos)
    np.testing.assert_array_equal(told.body_pos_w, clip.body_pos_w)
    np.testing.assert_allclose(told.body_lin_vel_w, clip.body_lin_vel_w, atol=2e-6)
    np.testing.assert_array_equal(told.foot_contact, clip.foot_contact)
    assert told.name == "bare"
    with pytest.raises(MotionError, match="order is 'urdf', expected 'mujoco' or 'isaac'"):
        load_npz(path, order="urdf")


def test_center_of_mass_velocities_of_isaac_lab_become_those_of_link_origins(clip, tmp_path):
    """The file whole_body_tracking would write of this clip, its velocities from MuJoCo."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    com_vel = np.empty((clip.num_frames, 30, 3))
    velocity = np.zeros(6)
    for t in range(clip.num_frames):
        data.qpos[:] = np.concatenate(
            [clip.body_pos_w[t, 0], clip.body_quat_w[t, 0], clip.joint_pos[t]]
        )
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, data.qpos[3:7])
        rotation = rotation.reshape(3, 3)
        spin = clip.body_ang_vel_w[t, 0]
        # The pelvis' origin velocity stands in the slot of its centre of mass, so the simulated
        # robot's pelvis origin moves at v - w x r.
        arm = rotation @ model.body("pelvis").ipos
        data.qvel[:] = np.concatenate(
            [clip.body_lin_vel_w[t, 0] - np.cross(spin, arm), rotation.T @ spin, clip.joint_vel[t]]
        )
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_comVel(model, data)
        for body in range(30):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body + 1, velocity, 0)
            com_vel[t, body] = velocity[3:]
    np.testing.assert_allclose(com_vel[:, 0], clip.body_lin_vel_w[:, 0], atol=1e-6)
    assert np.abs(com_vel - clip.body_lin_vel_w).max() > 0.1, "premise: the points differ"
    arrays = npz_arrays(
        clip, tmp_path / "a.npz", body_lin_vel_w=com_vel.astype(np.float32), velocity_point=None
    )
    np.savez(tmp_path / "b.npz", **arrays)
    np.testing.assert_allclose(
        load_npz(tmp_path / "b.npz").body_lin_vel_w, clip.body_lin_vel_w, atol=5e-6
    )


def test_quaternions_of_a_file_are_normalized(clip, tmp_path):
    arrays = npz_arrays(clip, tmp_path / "a.npz", body_quat_w=clip.body_quat_w * np.float32(1.5))
    np.savez(tmp_path / "b.npz", **arrays)
    back = load_npz(tmp_path / "b.npz")
    assert np.abs(np.linalg.norm(back.body_quat_w, axis=-1) - 1).max() < 2e-7
    np.testing.assert_allclose(back.body_quat_w, clip.body_quat_w, atol=2e-7)


def test_other_float_types_and_layouts_are_read(clip, tmp_path):
    arrays = npz_arrays(clip, tmp_path / "a.npz", fps=np.array(50))
    for key in FLOAT_KEYS:
        arrays[key] = np.asfortranarray(arrays[key].astype(">f8"))
    np.savez(tmp_path / "b.npz", **arrays)
    back = load_npz(tmp_path / "b.npz")
    assert equal(back, clip) and back.fps == 50.0
    assert back.joint_pos.dtype == np.float32


def test_digest_is_of_the_content(clip):
    same = motion_samples.clip(name="other name")
    assert same.sha256() == clip.sha256()
    assert re.fullmatch("[0-9a-f]{64}", clip.sha256())
    fields = {key: getattr(clip, key) for key in (*FLOAT_KEYS, "foot_contact", "source", "licence")}
    for key in (*FLOAT_KEYS, "foot_contact"):
        changed = fields[key].copy()
        changed[10, 1] = ~changed[10, 1] if key == "foot_contact" else changed[10, 1] + 1e-3
        other = Clip("sample", 50.0, **fields | {key: changed})
        assert other.sha256() != clip.sha256(), key
    assert Clip("sample", 30.0, **fields).sha256() != clip.sha256()


def test_a_clip_cannot_be_written_to(clip):
    with pytest.raises(ValueError, match="read-only"):
        clip.joint_pos[0, 0] = 1.0


def test_cut_keeps_both_end_frames(clip):
    part = clip.cut(0.2, 1.0)
    assert part.num_frames == 41 and part.duration_s == pytest.approx(0.8)
    np.testing.assert_array_equal(part.body_pos_w, clip.body_pos_w[10:51])
    np.testing.assert_array_equal(part.foot_contact, clip.foot_contact[10:51])
    assert part.name == "sample[0.2:1]" and part.licence == clip.licence
    assert equal(clip.cut(), clip)
    assert clip.cut(0.5, None, name="tail").name == "tail"


@pytest.mark.parametrize(
    ("start", "end", "shown"),
    [
        (0.5, 0.5, "[0.5:0.5]"), (0.6, 0.5, "[0.6:0.5]"), (0, 1.3, "[0:1.3]"),
        (-0.1, 1, "[-0.1:1]"), (float("nan"), 1, "[nan:1]"), (0, float("inf"), "[0:inf]"),
        (2, None, "[2:]"),
    ],
)  # fmt: skip
def test_a_cut_outside_the_clip_is_refused(clip, start, end, shown):
    text = f"sample: the cut {shown} does not fit, expected start < end within 0 and 1.18 s."
    with pytest.raises(MotionError, match=re.escape(text)):
        clip.cut(start, end)


def test_only_npz_names_are_written(clip, tmp_path):
    with pytest.raises(
        MotionError, match=r"a\.txt: a motion is written to a name that ends in \.npz"
    ):
        save_npz(clip, tmp_path / "a.txt")
    with pytest.raises(MotionError, match="order is 'x', expected 'mujoco' or 'isaac'"):
        save_npz(clip, tmp_path / "a.npz", order="x")
    assert not list(tmp_path.iterdir())


def test_bad_states_are_refused():
    root_pos, quat, joint_pos = motion_samples.states(10)

    def make(**changes):
        values = {"root_pos": root_pos, "root_quat": quat, "joint_pos": joint_pos} | changes
        return clip_from_states("m", values.pop("fps", 50), **values, source="", licence="")

    for text, changes in {
        "motion 'm': joint_pos has shape (10, 23), expected (T, 29) for robot g1.": {
            "joint_pos": joint_pos[:, :23]
        },
        "motion 'm': root_quat holds a zero quaternion at frame 0, expected length 1.": {
            "root_quat": np.zeros((10, 4))
        },
        "motion 'm': fps is 0, expected a positive number.": {"fps": 0},
        "motion 'm': root_pos, root_quat and joint_pos have 9, 10 and 10 frames,"
        " expected 3 or more of each.": {"root_pos": root_pos[:9]},
        "motion 'm': root_pos holds NaN or infinity at frame 3, expected finite values.": {
            "root_pos": np.where(np.arange(10)[:, None] == 3, np.nan, root_pos)
        },
    }.items():
        with pytest.raises(MotionError, match=re.escape(text)):
            make(**changes)


@pytest.fixture(scope="module")
def published(data_dir):
    """The 165 frames inside a policy trained with whole_body_tracking, 14 links, Isaac order."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path = data_dir / "oracle_policies" / "jump_wose" / "Jump_wose.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    obs = np.zeros((1, 154), np.float32)
    frames = [
        session.run(None, {"obs": obs, "time_step": np.array([[k]], np.float32)})
        for k in range(165)
    ]
    motion = {name: np.concatenate([frame[i] for frame in frames]) for i, name in enumerate(names)}
    for key in ("joint_pos", "joint_vel"):
        inverse = np.argsort(ISAAC_FROM_MUJOCO)
        motion[key] = motion[key][:, inverse]
    return motion


def test_kinematics_reproduce_a_published_motion(published):
    tracked = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]
    root = {key: published[f"body_{key}_w"][:, 0] for key in ("pos", "quat", "lin_vel", "ang_vel")}
    links = kinematics.link_states(
        root["pos"], root["quat"], published["joint_pos"], root["lin_vel"], root["ang_vel"],
        published["joint_vel"],
    )  # fmt: skip
    # float32 through another simulator's kinematics; measured 9.9e-7 m and 1.0e-5 rad/s.
    assert np.abs(links.pos[:, tracked] - published["body_pos_w"]).max() < 2e-6
    assert np.abs(links.ang_vel[:, tracked] - published["body_ang_vel_w"]).max() < 5e-5
    # Our velocities of its states: the joints' and the pelvis' are differences, as ours.
    clip = clip_from_states(
        "jump", 50, root["pos"], root["quat"], published["joint_pos"], source="", licence=""
    )
    np.testing.assert_allclose(clip.joint_vel, published["joint_vel"], atol=2e-5)
    np.testing.assert_allclose(clip.body_lin_vel_w[:, 0], root["lin_vel"], atol=2e-5)
    assert np.abs(clip.body_ang_vel_w[:, 0] - root["ang_vel"]).max() < 1e-3


def test_published_velocities_are_of_the_center_of_mass(published):
    """What the loader assumes of a file without `velocity_point` (module docstring)."""
    tracked = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]
    pos, quat = published["body_pos_w"][:, 0], published["body_quat_w"][:, 0]
    lin_vel, ang_vel = published["body_lin_vel_w"][:, 0], published["body_ang_vel_w"][:, 0]
    rotation = np.empty((len(quat), 9))
    for row, q in zip(rotation, quat.astype(float), strict=True):
        mujoco.mju_quat2Mat(row, q)
    arm = rotation.reshape(-1, 3, 3) @ np.array(g1.BODIES[0].inertial_pos)
    links = kinematics.link_states(
        pos,
        quat,
        published["joint_pos"],
        lin_vel - np.cross(ang_vel, arm),
        ang_vel,
        published["joint_vel"],
    )
    for i, body in enumerate(tracked):
        for t in range(0, 165, 10):
            matrix = np.empty(9)
            mujoco.mju_quat2Mat(matrix, links.quat[t, body])
            offset = matrix.reshape(3, 3) @ np.array(g1.BODIES[body].inertial_pos)
            com = links.lin_vel[t, body] + np.cross(links.ang_vel[t, body], offset)
            assert np.abs(com - published["body_lin_vel_w"][t, i]).max() < 1e-4
    assert np.abs(links.lin_vel[:, tracked] - published["body_lin_vel_w"]).max() > 0.3
