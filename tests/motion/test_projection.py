"""The projection against other ways to the same: SciPy's optimizer on MuJoCo's kinematics."""

import mujoco
import numpy as np
import pytest
from scipy.optimize import minimize

from bm_envs import rotations as rot
from bm_envs.motion import projection
from bm_envs.motion.projection import Bounds, States, project
from bm_envs.robots import g1, kinematics, mjcf

FPS = 50.0
JOINT = {name.removesuffix("_joint"): i for i, name in enumerate(g1.JOINT_NAMES)}


def squat(**angles):
    """Root position, root quaternion and joints of a squat on flat soles, arms in front."""
    joints = g1.DEFAULT_JOINT_POS.copy()
    pose = {"hip_pitch": -2.2, "knee": 2.4, "ankle_pitch": -0.6}
    for side in ("left", "right"):
        for name, angle in pose.items():
            joints[JOINT[f"{side}_{name}"]] = angle
    joints[JOINT["waist_pitch"]] = 0.5
    for name, angle in ({"left_elbow": 0.2, "left_shoulder_pitch": -0.4} | angles).items():
        joints[JOINT[name]] = angle
    quat = rot.quat_from_axis_angle(np.array([0.0, 0.4, 0.0]))
    links = kinematics.link_poses(np.zeros((1, 3)), quat[None], joints[None])
    height = -kinematics.sole_points(links.pos, links.quat)[..., 2].min()
    return np.array([0.3, -0.2, height]), quat, joints


def still(pose, frames):
    return States(*(np.tile(value, (frames, 1)) for value in pose))


def bounds(frames, height=-0.01):
    least = projection.FLOOR_POINTS.radius + height
    low, high = g1.JOINT_RANGE.T
    return Bounds(*(np.tile(values, (frames, 1)) for values in (least, low, high)))


def by_scipy(pose, height):
    """The change of one pose by SLSQP: the same cost, written anew, on MuJoCo's kinematics."""
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    hands = ("left_hand_collision", "right_hand_collision")
    tracked = [(name, (0, 0, 0), 1.0) for name in g1.TRACKED_BODIES]
    tracked += [(geom.body, geom.start, 0.5) for geom in g1.FOOT_SPHERES]
    tracked += [(g.body, g.end, 1.0) for g in g1.COLLISION_GEOMS if g.name in hands]
    shapes = [
        (geom.body, end, geom.radius)
        for geom in (*g1.COLLISION_GEOMS, *g1.FOOT_SPHERES)
        for end in (geom.start, geom.end) if end is not None
    ]  # fmt: skip
    shapes += [(name, (0, 0, 0), 0.0) for name in g1.BODY_NAMES]

    def places(change, table):
        turned = rot.quat_mul(rot.quat_from_axis_angle(change[3:6]), pose[1])
        data.qpos[:] = np.concatenate([pose[0] + change[:3], turned, pose[2] + change[6:]])
        mujoco.mj_kinematics(model, data)
        return np.array([
            data.body(name).xpos + data.body(name).xmat.reshape(3, 3) @ offset
            for name, offset, _ in table
        ])  # fmt: skip

    before = places(np.zeros(35), tracked)
    weights = np.array([weight for _, _, weight in tracked])
    radii = np.array([radius for _, _, radius in shapes])

    def cost(change):
        moved = ((places(change, tracked) - before) ** 2).sum(axis=1)
        return 100 * ((weights * moved).sum() + 0.05 * (change[6:] ** 2).sum())

    def room(change):
        return places(change, shapes)[:, 2] - radii - height

    limits = [(None, None)] * 6 + list(zip(*(g1.JOINT_RANGE.T - pose[2]), strict=True))
    found = minimize(cost, np.zeros(35), method="SLSQP", bounds=limits,
                     constraints={"type": "ineq", "fun": room},
                     options={"maxiter": 300, "ftol": 1e-7})  # fmt: skip
    assert found.success, found.message
    return found.x, cost


SUNK = {
    "a hand": squat(
        left_elbow=1.0, left_shoulder_pitch=-0.6, waist_pitch=0.52, left_wrist_pitch=0.6
    ),
    "both soles": (squat()[0] - [0, 0, 0.05], *squat()[1:]),
    "a joint beyond its range": squat(right_elbow=g1.JOINT_RANGE[JOINT["right_elbow"], 1] + 0.3),
}


@pytest.mark.parametrize("name", SUNK)
def test_a_still_pose_is_changed_as_scipy_changes_it(name):
    """Over time nothing changes then, so that the best change of a frame is that of all."""
    pose, frames = SUNK[name], 31
    # Without the margin that the projection aims at.
    least = bounds(frames, -0.01 - projection.MARGIN)
    change = project(still(pose, frames), least, FPS, begins=True, ends=True)
    np.testing.assert_allclose(change, np.tile(change[15], (frames, 1)), atol=2e-3)
    expected, cost = by_scipy(pose, -0.01)
    assert cost(expected) > 0.1  # there is something to change
    assert cost(change[15]) == pytest.approx(cost(expected), rel=0.01)
    np.testing.assert_allclose(change[15], expected, atol=0.02)


def test_what_keeps_to_its_bounds_is_not_changed():
    change = project(still(squat(), 40), bounds(40), FPS, begins=True, ends=True)
    assert not change.any()


@pytest.mark.parametrize("fps", [50.0, 30.0, 7.0])
def test_a_change_begins_and_ends_smoothly(fps):
    """One second of a hand in the floor, half a second of free frames before and behind it."""
    knot = projection.knot_frames(fps)
    frames = round(2 * fps) // knot * knot
    high, low = squat(), SUNK["a hand"]
    time = np.arange(frames) / fps
    share = np.clip(np.minimum(time - 0.5, 1.5 - time) / 0.25, 0, 1)[:, None]
    share = share * share * (3 - 2 * share)
    states = States(*((1 - share) * a + share * b for a, b in zip(high, low, strict=True)))
    change = project(states, bounds(frames), fps, begins=False, ends=False)
    moved = States(*states).moved(change).links()
    heights = projection.FLOOR_POINTS.of(moved.pos, moved.quat)[..., 2]
    assert (heights >= projection.FLOOR_POINTS.radius - 0.01).all()
    assert not change[0].any()
    # A cubic spline that is 0 beyond an end grows with the third power of the time from there.
    assert np.abs(change[1]).max() <= np.abs(change).max() / knot**3
    assert np.abs(change[-1]).max() <= np.abs(change).max() / knot**3
    assert 0.05 < np.abs(change).max() < 0.6
    # The hand is moved by its arm.
    arm = [6 + JOINT[f"left_{name}"] for name in ("shoulder_pitch", "elbow", "wrist_pitch")]
    assert np.abs(change[:, arm]).max() > 5 * np.abs(change[:, :3]).max()
