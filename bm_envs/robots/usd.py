"""The G1 as a USD layer, written from the tables in `bm_envs.robots.g1`, for engines that load USD.

`build_usd` returns the robot and `build_ground` the plane it stands on, as USD's text form: the
same bodies, joints, shapes and contact rules as `bm_envs.robots.mjcf` writes for MuJoCo. Attributes
`physics:` are read by every engine; `mjc:` and `newton:` carry what only MuJoCo's solver has
(Newton reads them), `physx...:` what only PhysX has.

Not converted from the MJCF: the converter that Isaac Lab names needs an environment of its own,
whose pins exclude Isaac Lab's, and writes one fixed file, where the shapes here depend on
`ModelConfig`. The tests compare what an engine holds (`Simulator.read_model`) with the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from bm_envs.robots import g1
from bm_envs.robots.kinematics import link_poses
from bm_envs.robots.mjcf import FOOT_FRICTION, ModelConfig

# MuJoCo's defaults, which the MJCF leaves alone. Another engine would use other defaults.
_SOLREF = "(0.02, 1)"
_SOLIMP = "[0.9, 0.95, 0.001, 0.5, 2]"


def build_usd(config: ModelConfig = ModelConfig()) -> str:
    """The robot in its zero pose, the pelvis at the origin; links side by side under one prim.

    Drives hold the table's gains. Angles are in degrees, as the format wants.
    """
    geoms = g1.COLLISION_GEOMS + (g1.FOOT_SPHERES if config.feet == "spheres" else g1.FOOT_CAPSULES)
    poses = link_poses(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), np.zeros((1, g1.NUM_JOINTS)))
    links = [
        _link(body, pos, quat, [geom for geom in geoms if geom.body == body.name], config)
        for body, pos, quat in zip(g1.BODIES, poses.pos[0], poses.quat[0], strict=True)
    ]
    joints = [_joint(joint) for joint in g1.JOINTS]
    materials = [_material("body", 1.0), _material("foot", FOOT_FRICTION)]
    content = [
        *links, _block('def Scope "joints"', joints),
        _block('def Scope "actuators"', [_actuator(joint) for joint in g1.JOINTS]),
        _block('def Scope "materials"', materials),
    ]  # fmt: skip
    return _layer("g1", content)


def build_ground() -> str:
    """A plane, z up, with sliding friction 1; the friction of the feet overrides it."""
    plane = _block(
        'def Plane "plane"',
        [
            'uniform token axis = "Z"', "double width = 1000", "double length = 1000",
            "rel material:binding:physics = </ground/materials/ground>",
            *_contact_attributes(condim=3, priority=0),
        ],
        "PhysicsCollisionAPI", "MaterialBindingAPI",
    )  # fmt: skip
    return _layer("ground", [plane, _block('def Scope "materials"', [_material("ground", 1.0)])])


def _link(
    body: g1.Body, pos: np.ndarray, quat: np.ndarray, geoms: Sequence[g1.Geom], config: ModelConfig
) -> str:
    apis = ["PhysicsRigidBodyAPI", "PhysicsMassAPI", "PhysxRigidBodyAPI"]
    lines = [
        *_pose(pos, quat),
        f"float physics:mass = {config.mass_of(body)!r}",
        f"point3f physics:centerOfMass = {_tuple(body.inertial_pos)}",
        f"float3 physics:diagonalInertia = {_tuple(body.diag_inertia)}",
        f"quatf physics:principalAxes = {_tuple(_unit(body.inertial_quat))}",
        # By default PhysX damps turning bodies.
        "float physxRigidBody:linearDamping = 0",
        "float physxRigidBody:angularDamping = 0",
    ]
    if body.name == g1.ROOT_BODY:
        apis += ["PhysicsArticulationRootAPI", "PhysxArticulationAPI"]
        enabled = int(config.self_collision)
        lines.append(f"bool newton:selfCollisionEnabled = {enabled}")
        lines.append(f"bool physxArticulation:enabledSelfCollisions = {enabled}")
        # Source: whole_body_tracking : robots/g1.py.
        lines.append("int physxArticulation:solverPositionIterationCount = 8")
        lines.append("int physxArticulation:solverVelocityIterationCount = 4")
    excluded = [other for first, other in g1.CONTACT_EXCLUSIONS if first == body.name]
    if excluded:
        apis.append("PhysicsFilteredPairsAPI")
        lines.append(
            f"rel physics:filteredPairs = [{', '.join(f'</g1/{name}>' for name in excluded)}]"
        )
    return _block(f'def Xform "{body.name}"', [*lines, *map(_shape, geoms)], *apis)


def _shape(geom: g1.Geom) -> str:
    is_foot = geom.body in g1.FOOT_BODIES
    shared = [
        f"rel material:binding:physics = </g1/materials/{'foot' if is_foot else 'body'}>",
        *_contact_attributes(condim=3 if is_foot else 1, priority=int(is_foot)),
    ]
    apis = ("PhysicsCollisionAPI", "MaterialBindingAPI")
    start = np.array(geom.start)
    if geom.end is None:
        lines = [f"double radius = {geom.radius!r}", *_pose(start, np.array([1.0, 0, 0, 0]))]
        return _block(f'def Sphere "{geom.name}"', [*lines, *shared], *apis)
    along = np.array(geom.end) - start
    length = float(np.linalg.norm(along))
    lines = [
        'uniform token axis = "Z"',
        f"double radius = {geom.radius!r}",
        f"double height = {length!r}",
        *_pose(start + along / 2, _turn_from_z(along / length)),
    ]
    return _block(f'def Capsule "{geom.name}"', [*lines, *shared], *apis)


def _joint(joint: g1.Joint) -> str:
    """A hinge whose frames are the link's frame in the zero pose; its axis is one of that frame."""
    body = g1.BODIES[g1.BODY_NAMES.index(joint.body)]
    low, high = (math.degrees(angle) for angle in joint.range)
    per_degree = math.pi / 180
    return _block(
        f'def PhysicsRevoluteJoint "{joint.name}"',
        [
            f'uniform token physics:axis = "{"XYZ"[joint.axis.index(1)]}"',
            f"rel physics:body0 = </g1/{body.parent}>",
            f"rel physics:body1 = </g1/{body.name}>",
            f"point3f physics:localPos0 = {_tuple(body.pos)}",
            f"quatf physics:localRot0 = {_tuple(_unit(body.quat))}",
            "point3f physics:localPos1 = (0, 0, 0)",
            "quatf physics:localRot1 = (1, 0, 0, 0)",
            f"float physics:lowerLimit = {low!r}",
            f"float physics:upperLimit = {high!r}",
            'uniform token drive:angular:physics:type = "force"',
            f"float drive:angular:physics:stiffness = {joint.stiffness * per_degree!r}",
            f"float drive:angular:physics:damping = {joint.damping * per_degree!r}",
            f"float drive:angular:physics:maxForce = {joint.effort_limit!r}",
            f"float physxJoint:armature = {joint.armature!r}",
            f"double[] mjc:solreflimit = [{_SOLREF.strip('()')}]",
            f"double[] mjc:solimplimit = {_SOLIMP}",
        ],
        "PhysicsDriveAPI:angular",
    )


def _actuator(joint: g1.Joint) -> str:
    """MuJoCo's form of the drive: limited as a whole, so that at the limit it damps no more."""
    kp, kd, limit = joint.stiffness, joint.damping, joint.effort_limit
    zeros = ", 0" * 7
    return _block(
        f'def MjcActuator "{joint.name}"',
        [
            f"rel mjc:target = </g1/joints/{joint.name}>",
            f"uniform double[] mjc:gainPrm = [{kp!r}, 0, 0{zeros}]",
            f"uniform double[] mjc:biasPrm = [0, {-kp!r}, {-kd!r}{zeros}]",
            'uniform token mjc:biasType = "affine"',
            f"uniform double mjc:forceRange:min = {-limit!r}",
            f"uniform double mjc:forceRange:max = {limit!r}",
        ],
    )


def _contact_attributes(condim: int, priority: int) -> list[str]:
    """MuJoCo's contact rules; see `bm_envs.robots.mjcf`."""
    return [
        f"int mjc:condim = {condim}",
        f"int mjc:priority = {priority}",
        f"double[] mjc:solref = [{_SOLREF.strip('()')}]",
        f"double[] mjc:solimp = {_SOLIMP}",
        "float newton:contactMargin = 0",
        "float newton:contactGap = 0",
    ]


def _material(name: str, friction: float) -> str:
    return _block(
        f'def Material "{name}"',
        [
            f"float physics:staticFriction = {friction!r}",
            f"float physics:dynamicFriction = {friction!r}",
            "float physics:restitution = 0",
            # The ground has friction 1, so that the product is the robot's friction.
            'uniform token physxMaterial:frictionCombineMode = "multiply"',
        ],
        "PhysicsMaterialAPI",
        "PhysxMaterialAPI",
    )


def _pose(pos: np.ndarray, quat: np.ndarray) -> list[str]:
    return [
        f"double3 xformOp:translate = {_tuple(pos)}",
        f"quatd xformOp:orient = {_tuple(quat)}",
        'uniform token[] xformOpOrder = ["xformOp:translate", "xformOp:orient"]',
    ]


def _layer(name: str, content: Sequence[str]) -> str:
    header = f'(\n    defaultPrim = "{name}"\n    metersPerUnit = 1\n    kilogramsPerUnit = 1\n'
    header += '    upAxis = "Z"\n)\n'
    return "#usda 1.0\n" + header + _block(f'def Xform "{name}"', content) + "\n"


def _block(head: str, content: Sequence[str], *apis: str) -> str:
    """A prim with its applied schemas, attributes and children."""
    if apis:
        names = ", ".join(f'"{name}"' for name in apis)
        head += f" (\n    prepend apiSchemas = [{names}]\n)"
    inside = "\n".join(content).replace("\n", "\n    ")
    return f"{head}\n{{\n    {inside}\n}}"


def _turn_from_z(direction: np.ndarray) -> np.ndarray:
    """The shortest turn, w x y z, of the z axis into a unit vector."""
    x, y, z = direction
    if z < -1 + 1e-9:
        return np.array([0.0, 1, 0, 0])
    return _unit((1 + z, -y, x, 0.0))


def _unit(quat: Iterable[float]) -> np.ndarray:
    values = np.array(tuple(quat), float)
    return values / np.linalg.norm(values)


def _tuple(values: Iterable[float]) -> str:
    return f"({', '.join(repr(float(value)) for value in values)})"
