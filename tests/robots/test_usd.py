"""The USD layer describes the robot that MuJoCo compiles from the MJCF.

The layer is read by a few lines here, since no package of the plain set-up reads USD. That an
engine loads it and simulates the same robot is what `tests/conformance` checks with `isaaclab`.
"""

from __future__ import annotations

import math
import re

import mujoco
import numpy as np
import pytest

from bm_envs.robots import g1, mjcf, usd
from bm_envs.rotations import quat_rotate


def read(text):
    """Prims by path: `(type, applied schemas, attributes)`; attributes as their text."""
    prims, path = {}, []
    for line in text.splitlines():
        line = line.strip()
        if head := re.fullmatch(r'def (\w+) "(\w+)"( \()?', line):
            path.append(head[2])
            prims["/".join(path)] = (head[1], [], {})
        elif line == "}":
            path.pop()
        elif schemas := re.fullmatch(r"prepend apiSchemas = \[(.*)\]", line):
            prims["/".join(path)][1].extend(re.findall(r'"([^"]+)"', schemas[1]))
        elif path and " = " in line:
            name, value = line.split(" = ", 1)
            prims["/".join(path)][2][name.split()[-1]] = value
    assert not path, "every brace is closed"
    return prims


def numbers(text):
    return np.array([float(number) for number in re.findall(r"[-+.\d]+(?:e[-+]?\d+)?", text)])


@pytest.fixture(params=["spheres", "capsules"])
def robots(request):
    """The layer's prims, and MuJoCo's model with its state in the zero pose."""
    config = mjcf.ModelConfig(feet=request.param)
    model = mjcf.compile_model(config)
    data = mujoco.MjData(model)
    data.qpos[:] = 0
    data.qpos[3] = 1
    mujoco.mj_kinematics(model, data)
    return read(usd.build_usd(config)), model, data


def test_links_are_where_and_what_mujocos_are(robots):
    prims, model, data = robots
    links = {path: prim for path, prim in prims.items() if "PhysicsRigidBodyAPI" in prim[1]}
    assert list(links) == [f"g1/{name}" for name in g1.BODY_NAMES]
    for path, (_, _, held) in links.items():
        body = model.body(path.split("/")[1])
        place, turn = (numbers(held[f"xformOp:{op}"]) for op in ("translate", "orient"))
        np.testing.assert_allclose(place, data.xpos[body.id], atol=1e-12)
        assert abs(turn @ data.xquat[body.id]) == pytest.approx(1, abs=1e-12)
        assert float(held["physics:mass"]) == body.mass[0]
        np.testing.assert_array_equal(numbers(held["physics:centerOfMass"]), body.ipos)
        np.testing.assert_allclose(numbers(held["physics:diagonalInertia"]), body.inertia)
        assert abs(numbers(held["physics:principalAxes"]) @ body.iquat) == pytest.approx(1)


def test_joints_turn_as_mujocos_do(robots):
    prims, model, _ = robots
    joints = {path: prim[2] for path, prim in prims.items() if prim[0] == "PhysicsRevoluteJoint"}
    assert list(joints) == [f"g1/joints/{name}" for name in g1.JOINT_NAMES]
    for path, held in joints.items():
        joint = model.joint(path.split("/")[2])
        child = model.body(joint.bodyid[0])
        assert held["physics:body0"] == f"</g1/{model.body(child.parentid[0]).name}>"
        assert held["physics:body1"] == f"</g1/{child.name}>"
        np.testing.assert_array_equal(numbers(held["physics:localPos0"]), child.pos)
        assert abs(numbers(held["physics:localRot0"]) @ child.quat) == pytest.approx(1)
        assert "XYZ"[int(np.argmax(joint.axis))] == held["physics:axis"].strip('"')
        limits = [float(held[f"physics:{end}Limit"]) for end in ("lower", "upper")]
        np.testing.assert_allclose(np.deg2rad(limits), joint.range, rtol=1e-12)
        drive = model.actuator(joint.name)
        # Angles are degrees: so much the smaller are figures per angle.
        stiffness = float(held["drive:angular:physics:stiffness"])
        damping = float(held["drive:angular:physics:damping"])
        assert stiffness * 180 / math.pi == pytest.approx(drive.gainprm[0])
        assert damping * 180 / math.pi == pytest.approx(-drive.biasprm[2])
        assert float(held["drive:angular:physics:maxForce"]) == drive.forcerange[1]
        assert float(held["physxJoint:armature"]) == model.dof_armature[joint.dofadr[0]]
        actuator = prims[f"g1/actuators/{joint.name}"][2]
        np.testing.assert_allclose(numbers(actuator["mjc:gainPrm"]), drive.gainprm)
        np.testing.assert_allclose(numbers(actuator["mjc:biasPrm"]), drive.biasprm)
        limits = [float(actuator[f"mjc:forceRange:{end}"]) for end in ("min", "max")]
        np.testing.assert_array_equal(limits, drive.forcerange)


def test_shapes_touch_as_mujocos_do(robots):
    prims, model, _ = robots
    shapes = {path: prim for path, prim in prims.items() if "PhysicsCollisionAPI" in prim[1]}
    assert len(shapes) == model.ngeom - 1  # the ground is a layer of its own
    for path, (kind, _, held) in shapes.items():
        _, link, name = path.split("/")
        geom = model.geom(name)
        assert model.body(geom.bodyid[0]).name == link
        place, turn = (numbers(held[f"xformOp:{op}"]) for op in ("translate", "orient"))
        np.testing.assert_allclose(place, geom.pos, atol=1e-12)
        assert float(held["radius"]) == geom.size[0]
        assert (kind == "Capsule") == (geom.type[0] == mujoco.mjtGeom.mjGEOM_CAPSULE)
        if kind == "Capsule":
            assert float(held["height"]) / 2 == pytest.approx(geom.size[1])
            z = np.array([0.0, 0, 1])
            along, wanted = quat_rotate(turn, z), quat_rotate(geom.quat, z)
            assert abs(along @ wanted) == pytest.approx(1)
        assert_contact_rules(held, geom)
        material = held["material:binding:physics"].strip("<>/")
        assert float(prims[material][2]["physics:dynamicFriction"]) == geom.friction[0]


def assert_contact_rules(held, geom):
    assert (int(held["mjc:condim"]), int(held["mjc:priority"])) == (geom.condim, geom.priority)
    np.testing.assert_array_equal(numbers(held["mjc:solref"]), geom.solref)
    np.testing.assert_array_equal(numbers(held["mjc:solimp"]), geom.solimp)


def test_the_ground_is_mujocos():
    prims = read(usd.build_ground())
    kind, _, held = prims["ground/plane"]
    ground = mjcf.compile_model().geom("ground")
    assert kind == "Plane" and held["axis"] == '"Z"'
    assert_contact_rules(held, ground)
    friction = prims["ground/materials/ground"][2]["physics:dynamicFriction"]
    assert float(friction) == ground.friction[0]


def test_self_collision_is_what_was_asked_for():
    for on in (False, True):
        prims = read(usd.build_usd(mjcf.ModelConfig(self_collision=on)))
        _, schemas, held = prims["g1/pelvis"]
        assert "PhysicsArticulationRootAPI" in schemas
        assert held["physxArticulation:enabledSelfCollisions"] == str(int(on))
    excluded = {
        (path.split("/")[1], other)
        for path, (_, _, held) in prims.items()
        for other in re.findall(r"/g1/(\w+)", held.get("physics:filteredPairs", ""))
    }
    assert excluded == set(g1.CONTACT_EXCLUSIONS)
