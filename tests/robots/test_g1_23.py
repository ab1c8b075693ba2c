"""The G1 with 23 joints: its table against the maker's other file, and what follows from it."""

import copy
import pickle

import mujoco
import numpy as np
import pytest
from golden import g1_23_facts as facts

from bm_envs import rotations as rot
from bm_envs.errors import ConfigError, MotionError
from bm_envs.motion import checks, feasibility, library
from bm_envs.motion.clip import ARRAY_SHAPES, Clip, foot_height
from bm_envs.motion.on_robot import on_robot
from bm_envs.robots import g1, kinematics, mjcf, observation_terms
from bm_envs.robots.g1 import G1
from bm_envs.robots.g1_23 import ABSENT_JOINTS, G1_23
from bm_envs.robots.registry import ROBOTS, robot_named, robot_with_joints
from bm_envs.tasks.track.rows import ANCHOR, END_EFFECTORS, FEET, K

BUILT_IN = sorted(path.stem for path in library.BUILTIN_DIR.glob("*.npz"))


@pytest.fixture(scope="module")
def model():
    return mjcf.compile_model(mjcf.ModelConfig(robot="g1_23"))


# --- the table ------------------------------------------------------------------------------------


def test_joints_are_the_makers_in_the_motors_order():
    assert G1_23.joint_names == tuple(f"{stem}_joint" for stem in facts.ORDER)
    assert set(g1.JOINT_NAMES) - set(G1_23.joint_names) == set(ABSENT_JOINTS)
    joints = {joint.name: joint for joint in G1_23.joints}
    bodies = {body.name: body for body in G1_23.bodies}
    for name, (parent, child, place, axis, low, high) in facts.JOINTS.items():
        joint, body = joints[name], bodies[child]
        assert (joint.body, body.parent, joint.axis) == (child, parent, axis)
        assert body.pos == place and body.quat == (1, 0, 0, 0)
        # The table's source has six digits.
        np.testing.assert_allclose(joint.range, (low, high), rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", facts.BODIES)
def test_inertias_are_those_of_the_makers_other_file(name):
    """A gram of the torso is missing there: 0.23 m off, its moment is 5.3e-5 kg m^2."""
    masses, centres, tensors = zip(*facts.BODIES[name], strict=True)
    masses, centres = np.array(masses), np.array(centres)
    centre = masses @ centres / masses.sum()
    whole = np.zeros((3, 3))
    for mass, place, (xx, xy, xz, yy, yz, zz) in zip(masses, centres, tensors, strict=True):
        arm = place - centre
        whole += [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
        whole += mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
    (body,) = (body for body in G1_23.bodies if body.name == name)
    axes = rot.quat_to_matrix(rot.quat_normalize(np.array(body.inertial_quat)))
    held = axes @ np.diag(body.diag_inertia) @ axes.T
    loose = name == "torso_link"
    assert body.mass == pytest.approx(masses.sum(), abs=1.1e-3 if loose else 5e-7)
    np.testing.assert_allclose(body.inertial_pos, centre, rtol=0, atol=3e-5 if loose else 5e-7)
    np.testing.assert_allclose(held, whole, rtol=0, atol=6e-5 if loose else 5e-8)


def test_the_rest_is_the_g1_of_29():
    bodies = {body.name: body for body in G1.bodies}
    same = [body for body in G1_23.bodies if body.name not in facts.BODIES]
    assert len(same) == 21 and all(bodies[body.name] == body for body in same)
    drives = {joint.name: joint for joint in G1.joints}
    for joint in G1_23.joints:
        other = drives[joint.name]
        assert (joint.range, joint.stiffness, joint.damping, joint.effort_limit) == (
            other.range, other.stiffness, other.damping, other.effort_limit,
        )  # fmt: skip
    assert G1_23.foot_spheres == G1.foot_spheres and G1_23.poses == G1.poses
    # Its parts weigh less by the waist's bracket (0.3 kg) and by lighter hands.
    wrists = sum(body.mass for body in G1.bodies if "wrist" in body.name)
    hands = 2 * 0.356929
    total = sum(body.mass for body in G1_23.bodies)
    assert total == pytest.approx(33.341142 - 0.214 - 0.086 - wrists + hands, abs=1e-9)


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=lambda robot: robot.name)
def test_every_robot_is_laid_out_as_the_task_takes_it(robot):
    """Tables, rows and compiled code have these places as constants."""
    tracked = robot.tracked_bodies
    assert len(tracked) == K and tracked[0] == robot.root_body
    assert tracked.index(robot.anchor_body) == ANCHOR
    assert tuple(tracked.index(name) for name in robot.end_effectors) == END_EFFECTORS
    assert tuple(tracked.index(name) for name in robot.foot_bodies) == FEET
    assert [joint.body for joint in robot.joints] == list(robot.body_names[1:])
    parents = [robot.body_names.index(body.parent) for body in robot.bodies[1:]]
    assert all(parent < child for child, parent in enumerate(parents, 1))  # parents come first
    index, sign = robot.mirror_map()
    assert (index[index] == np.arange(robot.num_joints)).all() and (sign[index] == sign).all()
    assert pickle.loads(pickle.dumps(robot)) is robot and copy.deepcopy(robot) is robot
    assert robot_named(robot.name) is robot
    assert robot_with_joints(robot.isaac_joint_names) is robot
    assert not any(a.flags.writeable for a in (robot.stiffness, robot.default_joint_pos))


def test_an_unknown_robot_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="Unknown robot 'g1_24'; did you mean 'g1_23'"):
        mjcf.ModelConfig(robot="g1_24")
    assert robot_with_joints(("left_knee_joint",)) is None


# --- the model ------------------------------------------------------------------------------------


def test_the_model_is_the_table(model):
    assert (model.nq, model.nv, model.nu, model.nbody - 1) == (30, 29, 23, 24)
    names = [model.body(i).name for i in range(1, model.nbody)]
    assert tuple(names) == G1_23.body_names
    assert tuple(model.actuator(i).name for i in range(model.nu)) == G1_23.joint_names
    figures = mjcf.model_figures(model, 1)
    for key in ("stiffness", "damping", "effort_limit", "armature"):
        np.testing.assert_allclose(figures[key][0], getattr(G1_23, key), rtol=1e-12)


def test_kinematics_is_the_engines(model):
    rng, data = np.random.default_rng(0), mujoco.MjData(model)
    for _ in range(5):
        data.qpos[:3], data.qpos[3:7] = rng.normal(size=3), rot.quat_normalize(rng.normal(size=4))
        data.qpos[7:], data.qvel[:] = rng.normal(size=23), rng.normal(size=29)
        mujoco.mj_forward(model, data)
        spin = rot.quat_rotate(data.qpos[3:7], data.qvel[3:6])
        parts = data.qpos[:3], data.qpos[3:7], data.qpos[7:], data.qvel[:3], spin, data.qvel[6:]
        links = kinematics.link_states(*(part[None].copy() for part in parts), G1_23)
        np.testing.assert_allclose(links.pos[0], data.xpos[1:], rtol=0, atol=1e-12)
        velocity = np.zeros(6)
        for i in range(model.nbody - 1):
            kind = mujoco.mjtObj.mjOBJ_XBODY
            mujoco.mj_objectVelocity(model, data, kind, i + 1, velocity, 0)
            np.testing.assert_allclose(links.lin_vel[0, i], velocity[3:], rtol=0, atol=1e-11)
        chain = kinematics.LinkChain("left_wrist_roll_rubber_hand", "pelvis", G1_23)
        place, _ = chain.pose(data.qpos[:3], data.qpos[3:7], data.qpos[7:])
        np.testing.assert_allclose(place, data.body("left_wrist_roll_rubber_hand").xpos, atol=1e-12)


def test_it_is_drawn_whole():
    """What hangs on the links that it does not have is drawn on those that it has."""
    drawn = {}
    for robot in ROBOTS.values():
        look = mjcf.compile_model(mjcf.ModelConfig(robot=robot.name, visuals=True))
        data = mujoco.MjData(look)
        data.qpos[2], data.qpos[3] = 0.8, 1.0
        mujoco.mj_kinematics(look, data)
        shown = look.geom_group == 2
        drawn[robot.name] = np.sort(np.round(data.geom_xpos[shown], 9), axis=0)
    np.testing.assert_allclose(drawn["g1_23"], drawn["g1"], rtol=0, atol=1e-8)


def test_observations_have_the_size_of_the_robot():
    sizes = [
        observation_terms.size(names, G1_23)
        for names in (
            observation_terms.POLICY_TERMS, observation_terms.NO_STATE_ESTIMATION_TERMS,
            observation_terms.CRITIC_TERMS,
        )
    ]  # fmt: skip
    assert sizes == [130, 124, 256]  # 5 J + 15, 5 J + 9, and 126 more than the first
    index, sign = observation_terms.mirror_map(observation_terms.CRITIC_TERMS, G1_23)
    assert (index[index] == np.arange(256)).all() and (sign * sign[index] == 1).all()


# --- motions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_motions_pass_the_gate_on_it(name):
    clip = library.load_motion(name)
    mapped = on_robot(clip, G1_23)
    assert checks.refusal(mapped) is None and not checks.doubtful(mapped)
    assert set(feasibility.examine(mapped).flags) <= set(feasibility.examine(clip).flags)


def test_a_motion_keeps_pelvis_and_feet_and_leaves_joints_out():
    clip = library.load_motion("walk")
    rng = np.random.default_rng(0)
    joints = clip.joint_pos + 0.1 * rng.normal(size=29).astype(np.float32)  # the waist, too
    links = kinematics.link_states(
        clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], joints, clip.body_lin_vel_w[:, 0],
        clip.body_ang_vel_w[:, 0], clip.joint_vel,
    )  # fmt: skip
    clip = Clip("bent", 50.0, joints, clip.joint_vel, *links, clip.foot_contact, "a test", "none")
    mapped = on_robot(clip, G1_23)
    assert mapped.joint_pos.shape[1:] == (23,) and mapped.body_pos_w.shape[1:] == (24, 3)
    for i, name in enumerate(G1_23.joint_names):
        np.testing.assert_array_equal(mapped.joint_pos[:, i], joints[:, g1.JOINT_NAMES.index(name)])
    legs = [name for name in G1_23.body_names if "_hip_" in name or "knee" in name or "ank" in name]
    for name in ("pelvis", *legs):
        for key in ("body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w"):
            actual = getattr(mapped, key)[:, G1_23.body_names.index(name)]
            expected = getattr(clip, key)[:, g1.BODY_NAMES.index(name)]
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)  # float32 of 10 m
    np.testing.assert_allclose(foot_height(mapped), foot_height(clip), rtol=0, atol=1e-5)
    # The torso turns about z alone.
    torso, pelvis = (
        mapped.body_quat_w[:, G1_23.body_names.index(name)].astype(float)
        for name in ("torso_link", "pelvis")
    )
    waist = rot.quat_to_rotvec(rot.quat_mul(rot.quat_conj(pelvis), torso))
    np.testing.assert_allclose(waist[:, :2], 0, atol=1e-5)
    np.testing.assert_allclose(waist[:, 2], mapped.joint_pos[:, 12], atol=1e-5)
    assert (mapped.foot_contact == clip.foot_contact).all()
    assert on_robot(clip, G1_23) is mapped and on_robot(mapped, G1_23) is mapped
    assert on_robot(clip, G1) is clip and clip.sha256() != mapped.sha256()
    cut = mapped.cut(1.0, 3.0)
    assert cut.robot is G1_23 and pickle.loads(pickle.dumps(cut)).robot is G1_23


def test_a_motion_does_not_gain_joints():
    mapped = on_robot(library.load_motion("stand"), G1_23)
    with pytest.raises(MotionError, match="'stand' is one of robot g1_23, expected .* g1"):
        on_robot(mapped, G1)
    arrays = {key: getattr(mapped, key) for key in (*ARRAY_SHAPES, "foot_contact")}
    with pytest.raises(MotionError, match=r"expected \(T, 29\) for robot g1"):
        Clip("wrong", 50.0, **arrays, source="a test", licence="none")
