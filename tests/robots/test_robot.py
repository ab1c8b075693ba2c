"""The G1 tables and the MuJoCo model built from them, against another implementation's figures."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import oracles
import pytest
from golden import g1_facts as facts

from bm_envs.errors import ConfigError
from bm_envs.robots import g1, mjcf
from bm_envs.robots.kinematics import joints_of_links

# The same C code on the same figures: differences are those of the XML's decimal numbers, which are
# printed with all digits, and of the summation order between two MuJoCo releases.
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def model():
    return mjcf.compile_model(mjcf.ModelConfig(feet="capsules", self_collision=True))


def link(data, name):
    return data.body(name).xpos


# --- masses, frames and dynamics -----------------------------------------------------------------


def test_size_and_mass(model):
    assert (model.nq, model.nv, model.nu, model.nbody - 1) == (36, 35, 29, 30)
    assert model.body_mass.sum() == pytest.approx(facts.TOTAL_MASS, abs=ROUNDING)
    assert sum(body.mass for body in g1.BODIES) == pytest.approx(facts.TOTAL_MASS, abs=ROUNDING)


@pytest.mark.parametrize("pose", facts.POSES)
def test_center_of_mass_and_lowest_foot_point(model, pose):
    root_height, com, lowest_foot = facts.POSES[pose]
    data = oracles.at_keyframe(model, pose)
    assert data.qpos[2] == root_height
    np.testing.assert_allclose(data.subtree_com[1], com, rtol=0, atol=ROUNDING)
    feet = [i for i in range(model.ngeom) if "_foot" in model.geom(i).name]
    assert len(feet) == 14
    ends = [
        data.geom_xpos[i, 2] + sign * data.geom_xmat[i, 8] * model.geom_size[i, 1]
        for i in feet
        for sign in (-1, 1)
    ]
    assert min(ends) - 0.01 == pytest.approx(lowest_foot, abs=ROUNDING)


@pytest.mark.parametrize(("column", "pose"), [(0, "HOME"), (1, "KNEES_BENT")])
def test_link_positions(model, column, pose):
    data = oracles.at_keyframe(model, pose)
    assert set(facts.LINK_POSITIONS) == set(g1.BODY_NAMES)
    for name, positions in facts.LINK_POSITIONS.items():
        # The table has nine decimals.
        np.testing.assert_allclose(
            link(data, name), positions[column], rtol=0, atol=0.51e-9, err_msg=name
        )


@pytest.mark.parametrize(("column", "pose"), [(0, "HOME"), (1, "KNEES_BENT")])
def test_mass_matrix_diagonal_with_armature(model, column, pose):
    data = oracles.at_keyframe(model, pose)
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    expected = [row[column] for row in facts.DYNAMICS.values()]
    np.testing.assert_allclose(np.diag(full), expected, rtol=1e-11)  # the table has 12 digits


def test_gravity_bias_force_at_home(model):
    data = oracles.at_keyframe(model, "HOME")
    expected = [row[2] for row in facts.DYNAMICS.values()]
    np.testing.assert_allclose(data.qfrc_bias, expected, rtol=1e-11, atol=ROUNDING)
    assert list(facts.DYNAMICS)[6:] == list(g1.JOINT_NAMES)


@pytest.mark.parametrize("state", facts.RANDOM_STATES, ids=["first", "second"])
def test_accelerations_of_random_states(state):
    model = mjcf.compile_model()
    disabled = mujoco.mjtDisableBit
    model.opt.disableflags |= int(
        disabled.mjDSBL_CONTACT | disabled.mjDSBL_LIMIT | disabled.mjDSBL_ACTUATION
    )
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = state["qpos"], state["qvel"]
    data.qfrc_applied[6:] = state["joint_torque"]
    mujoco.mj_forward(model, data)
    # The condition of the mass matrix, about 1e4 here, times the rounding of float64.
    np.testing.assert_allclose(
        data.qacc, state["qacc"], rtol=0, atol=1e-11 * np.abs(data.qacc).max()
    )
    np.testing.assert_allclose(data.subtree_com[1], state["com"], rtol=0, atol=ROUNDING)
    mujoco.mj_energyVel(model, data)
    assert data.energy[1] == pytest.approx(state["kinetic_energy"], rel=ROUNDING)


@pytest.mark.parametrize("state", facts.RANDOM_STATES, ids=["first", "second"])
def test_forward_kinematics_gives_velocities_of_link_origins_in_world_axes(state):
    qpos, qvel = np.array([state["qpos"]]), np.array([state["qvel"]])
    root_ang_vel_w = np.empty(3)
    mujoco.mju_rotVecQuat(root_ang_vel_w, qvel[0, 3:6], qpos[0, 3:7])
    out = oracles.forward_kinematics(
        qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], qvel[:, :3], root_ang_vel_w[None], qvel[:, 6:]
    )
    wrist = g1.BODY_NAMES.index("left_wrist_yaw_link")
    linear, angular = state["left_wrist_yaw_link"]
    np.testing.assert_allclose(out["body_lin_vel_w"][0, wrist], linear, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(out["body_ang_vel_w"][0, wrist], angular, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(out["com_w"][0], state["com"], rtol=0, atol=ROUNDING)


def test_drives_hold_the_default_pose_as_elsewhere(model):
    data = oracles.at_keyframe(model, "KNEES_BENT")
    for _ in range(20):
        mujoco.mj_step(model, data)
    expected = facts.PD_HOLD
    assert data.time == pytest.approx(0.1)
    # 20 steps through up to 28 contacts; seen: equal to 1e-15. A wrong gain or foot is off by 1e-4.
    np.testing.assert_allclose(data.qpos[:3], expected["root_pos"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(data.qpos[3:7], expected["root_quat"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(data.qpos[7:], expected["joint_pos"], rtol=0, atol=1e-9)
    assert data.ncon == expected["contacts"]
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.subtree_com[1], expected["com"], rtol=0, atol=1e-9)
    force, total = np.zeros(6), 0.0
    for i in range(data.ncon):
        mujoco.mj_contactForce(model, data, i, force)
        total += (data.contact[i].frame.reshape(3, 3).T @ force[:3])[2]
    assert total == pytest.approx(expected["vertical_contact_force"], rel=1e-9)


# --- drives --------------------------------------------------------------------------------------


def test_compiled_drives_are_the_tables(model):
    for i, joint in enumerate(g1.JOINTS):
        assert model.actuator(i).name == joint.name
        assert model.jnt(i + 1).name == joint.name  # joint 0 is the free one
        gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
        assert gain[0] == joint.stiffness
        assert tuple(bias[:3]) == (0, -joint.stiffness, -joint.damping)
        assert model.actuator_gear[i, 0] == 1
        assert tuple(model.actuator_forcerange[i]) == (-joint.effort_limit, joint.effort_limit)
        assert model.actuator_forcelimited[i] and not model.actuator_ctrllimited[i]
        assert model.actuator_trnid[i, 0] == i + 1
        assert tuple(model.jnt_range[i + 1]) == joint.range and model.jnt_limited[i + 1]
        assert tuple(model.jnt_axis[i + 1]) == joint.axis
        assert model.dof_armature[i + 6] == pytest.approx(joint.armature, rel=ROUNDING)
    assert not model.dof_damping.any() and not model.dof_frictionloss.any()
    assert not model.jnt_stiffness.any()
    assert not model.dof_armature[:6].any()


def test_torque_is_pd_clipped_at_the_effort_limit(model):
    data = oracles.at_keyframe(model, "ZERO")
    rng = np.random.default_rng(0)
    data.qpos[7:] = rng.uniform(-0.2, 0.2, 29)
    data.qvel[6:] = rng.uniform(-2, 2, 29)
    data.ctrl[:] = rng.uniform(-4, 4, 29)
    mujoco.mj_forward(model, data)
    torque = g1.STIFFNESS * (data.ctrl - data.qpos[7:]) - g1.DAMPING * data.qvel[6:]
    clipped = np.clip(torque, -g1.EFFORT_LIMIT, g1.EFFORT_LIMIT)
    assert 0 < (torque != clipped).sum() < 29  # both cases occur
    np.testing.assert_allclose(data.qfrc_actuator[6:], clipped, rtol=0, atol=1e-12)


# --- shapes and contacts -------------------------------------------------------------------------


def test_collision_shapes(model):
    geoms = {geom.name: geom for geom in g1.COLLISION_GEOMS + g1.FOOT_CAPSULES}
    assert set(geoms) == set(facts.COLLISION_GEOMS)
    data = oracles.at_keyframe(model, "ZERO")
    for name, (body, radius, points, dim, priority, friction) in facts.COLLISION_GEOMS.items():
        geom = geoms[name]
        assert (geom.body, geom.radius, geom.start) == (body, radius, points[0])
        assert geom.end == (points[1] if len(points) == 2 else None)
        compiled = model.geom(name)
        i = compiled.id
        assert model.body(model.geom_bodyid[i]).name == body
        assert (model.geom_condim[i], model.geom_priority[i]) == (dim, priority)
        assert tuple(model.geom_friction[i]) == (friction, 0.005, 0.0001)
        assert (model.geom_contype[i], model.geom_conaffinity[i]) == (1, 1)
        assert model.geom_size[i, 0] == radius
        np.testing.assert_allclose(model.geom_pos[i], np.mean(points, axis=0), atol=ROUNDING)
        if len(points) == 2:
            half = np.linalg.norm(np.subtract(*points)) / 2
            assert model.geom_size[i, 1] == pytest.approx(half, abs=ROUNDING)
            axis = (np.array(points[1]) - points[0]) / (2 * half)
            rotation = data.body(body).xmat.reshape(3, 3).T @ data.geom_xmat[i].reshape(3, 3)
            assert abs(rotation[:, 2] @ axis) == pytest.approx(1, abs=1e-9)
        assert tuple(model.geom_solref[i]) == (0.02, 1)
        assert tuple(model.geom_solimp[i]) == (0.9, 0.95, 0.001, 0.5, 2)


def test_feet_of_four_spheres_have_the_same_sole():
    model = mjcf.compile_model()
    data = oracles.at_keyframe(model, "ZERO")
    for side in ("left", "right"):
        ankle = model.body(f"{side}_ankle_roll_link").id
        ids = [i for i in range(model.ngeom) if model.geom_bodyid[i] == ankle]
        assert {tuple(model.geom_pos[i]) for i in ids} == set(facts.FOOT_SPHERES)
        for i in ids:
            assert model.geom_type[i] == mujoco.mjtGeom.mjGEOM_SPHERE
            assert model.geom_size[i, 0] == facts.FOOT_SPHERE_RADIUS
            assert (model.geom_condim[i], model.geom_priority[i]) == (3, 1)
            assert model.geom_friction[i, 0] == 0.6
            # The ankle frame is upright in the zero pose but for rounding of its quaternion.
            sole = data.geom_xpos[i, 2] - 0.005 - data.xpos[ankle, 2]
            assert sole == pytest.approx(facts.SOLE_HEIGHT, abs=1e-6)
    assert g1.SOLE_HEIGHT == facts.SOLE_HEIGHT
    for geom in g1.FOOT_CAPSULES:
        assert geom.start[2] - geom.radius == pytest.approx(facts.SOLE_HEIGHT, abs=1e-15)


def test_sites(model):
    assert model.nsite == len(facts.SITES)
    for name, (body, pos) in facts.SITES.items():
        site = model.site(name)
        assert model.body(model.site_bodyid[site.id]).name == body
        assert tuple(site.pos) == pos
        assert tuple(site.quat) == (1, 0, 0, 0)


def test_engine_options(model):
    opt = model.opt
    assert (opt.timestep, opt.iterations, opt.ls_iterations, opt.ccd_iterations) == (
        0.005,
        10,
        20,
        50,
    )
    assert (opt.tolerance, opt.ls_tolerance, opt.impratio) == (1e-8, 0.01, 1.0)
    assert opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    assert tuple(opt.gravity) == (0, 0, -9.81)
    other = mjcf.compile_model(
        mjcf.ModelConfig(physics_dt=0.002, iterations=3, ls_iterations=5, cone="elliptic")
    ).opt
    assert (other.timestep, other.iterations, other.ls_iterations) == (0.002, 3, 5)
    assert other.cone == mujoco.mjtCone.mjCONE_ELLIPTIC


def self_collision_pairs(model):
    """Geom and link pairs that pass the engine's documented filter: masks, parents, excludes."""
    excluded = {frozenset((s >> 16, s & 0xFFFF)) for s in model.exclude_signature}
    robot = [i for i in range(model.ngeom) if model.geom_bodyid[i] > 0]
    pairs = []
    for i, j in itertools.combinations(robot, 2):
        a, b = int(model.geom_bodyid[i]), int(model.geom_bodyid[j])
        masks = (
            model.geom_contype[i] & model.geom_conaffinity[j]
            or model.geom_contype[j] & model.geom_conaffinity[i]
        )
        related = a == b or model.body_parentid[a] == b or model.body_parentid[b] == a
        if masks and not related and frozenset((a, b)) not in excluded:
            pairs.append((i, j, frozenset((a, b))))
    return pairs


def test_self_collision_candidates(model):
    pairs = self_collision_pairs(model)
    assert len(pairs) == facts.SELF_COLLISION_GEOM_PAIRS
    assert len({bodies for *_, bodies in pairs}) == facts.SELF_COLLISION_BODY_PAIRS
    assert not self_collision_pairs(mjcf.compile_model(mjcf.ModelConfig(feet="capsules")))


def contacts(model, qpos):
    """`{kind: {(dimension, sliding friction)}}` of the contacts in a state."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    found = {}
    for i in range(data.ncon):
        contact = data.contact[i]
        names = [model.geom(g).name for g in contact.geom]
        other = "ground" if "ground" in names else "self"
        part = "foot" if any("_foot" in name for name in names) else "body"
        found.setdefault(f"{part}-{other}", set()).add((contact.dim, contact.friction[0]))
    return found


def test_contact_rules_in_live_contacts(model):
    """Lying on the ground with crossed, folded legs and arms brings up all four combinations."""
    rng = np.random.default_rng(3)
    seen = {}
    for _ in range(40):
        qpos = np.zeros(36)
        quat = rng.normal(size=4)
        qpos[3:7] = quat / np.linalg.norm(quat)
        qpos[2] = 0.05
        qpos[7:] = rng.uniform(*g1.JOINT_RANGE.T)
        for kind, rules in contacts(model, qpos).items():
            seen.setdefault(kind, set()).update(rules)
    assert seen == {
        "foot-ground": {(3, 0.6)},
        "body-ground": {(3, 1.0)},
        "foot-self": {(3, 0.6)},
        "body-self": {(1, 1.0)},
    }


def test_without_self_collision_only_the_ground_is_met():
    model = mjcf.compile_model()
    qpos = model.key("ZERO").qpos.copy()
    qpos[2] = 0.0
    assert set(contacts(model, qpos)) == {"foot-ground", "body-ground"}


# --- names, orders, poses ------------------------------------------------------------------------


def test_keyframes_are_the_poses(model):
    assert {model.key(i).name for i in range(model.nkey)} == set(g1.POSES)
    for name, pose in g1.POSES.items():
        key = model.key(name)
        assert tuple(key.qpos[:7]) == (0, 0, pose.root_height, 1, 0, 0, 0)
        np.testing.assert_array_equal(key.qpos[7:], pose.joint_pos())
        np.testing.assert_array_equal(key.ctrl, pose.joint_pos())


def test_order_map_round_trip_and_refusals():
    forth = g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)
    back = g1.order_map(g1.ISAAC_JOINT_NAMES, g1.JOINT_NAMES)
    assert sorted(forth) == list(range(29))
    np.testing.assert_array_equal(forth[back], np.arange(29))
    values = np.arange(29.0)[None] * 2
    np.testing.assert_array_equal(values[..., forth][..., back], values)
    with pytest.raises(ConfigError, match=re.escape("1 of 2 names are missing, the first is 'c'.")):
        g1.order_map(["a", "b"], ["b", "c"])
    with pytest.raises(
        ConfigError, match=re.escape("Names must be unique, but a occur more than once.")
    ):
        g1.order_map(["a", "b", "a"], ["b"])


def test_mirror_is_an_involution_and_mirrors_the_robot(model):
    index, sign = g1.mirror_map()
    np.testing.assert_array_equal(index[index], np.arange(29))
    np.testing.assert_array_equal(sign * sign[index], np.ones(29))
    joint_pos = np.random.default_rng(1).uniform(-0.5, 0.5, 29)
    mirrored = sign * joint_pos[index]
    np.testing.assert_array_equal(sign * mirrored[index], joint_pos)
    data, other = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos[:7] = other.qpos[:7] = (0, 0, 1, 1, 0, 0, 0)
    data.qpos[7:], other.qpos[7:] = joint_pos, mirrored
    mujoco.mj_kinematics(model, data)
    mujoco.mj_kinematics(model, other)
    for name in g1.BODY_NAMES:
        twin = swap_side(name)
        # The source's own left and right differ by 0.01 mm at the shoulders.
        np.testing.assert_allclose(
            link(other, twin), link(data, name) * (1, -1, 1), rtol=0, atol=2e-5, err_msg=name
        )


def swap_side(name):
    side, _, rest = name.partition("_")
    return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)


def test_tables_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        g1.STIFFNESS[0] = 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feet": "mesh"}, "feet is 'mesh', expected 'spheres' or 'capsules'."),
        ({"physics_dt": 0.0}, "physics_dt is 0.0, expected a positive time in s."),
        ({"physics_dt": float("nan")}, "physics_dt is nan, expected a positive time in s."),
    ],
)
def test_model_config_refuses(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        mjcf.ModelConfig(**arguments)


def test_model_file_in_the_package_is_what_the_tables_make(tmp_path):
    command = [sys.executable, "-m", "bm_envs.robots.mjcf"]
    done = subprocess.run([*command, str(tmp_path / "g1.xml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shipped = Path(mjcf.__file__).parent.parent / "assets" / "g1.xml"
    assert (tmp_path / "g1.xml").read_text() == shipped.read_text()
    model = mujoco.MjModel.from_xml_path(str(shipped))
    assert model.body_subtreemass[1] == pytest.approx(33.341142, abs=1e-6)
    refused = subprocess.run([*command, str(tmp_path / "g1.txt")], capture_output=True, text=True)
    assert refused.returncode == 2 and ".xml" in refused.stderr
    assert not (tmp_path / "g1.txt").exists()


def test_a_link_without_a_joint_is_named():
    with pytest.raises(ConfigError, match="The link 'left_knee_link' .* has no joint"):
        joints_of_links(joints=[joint for joint in g1.JOINTS if joint.body != "left_knee_link"])
    assert list(joints_of_links()) == [joint.body for joint in g1.JOINTS]
