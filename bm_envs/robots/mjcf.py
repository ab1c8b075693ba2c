"""MuJoCo model of a robot, written from its table, `bm_envs.robots.g1` or another.

`build_mjcf` returns the XML, `compile_model` the compiled `mujoco.MjModel`, and
`python -m bm_envs.robots.mjcf g1.xml` writes a file for other programs; the one in `assets/` was
made so and is for reading: nothing here loads it. The model needs no mesh: collision shapes are
spheres and capsules, and what is drawn is a set of plain shapes too, unless the user has the
maker's meshes (`mesh_dir`).

Contact rules (source: mjlab 1.6.0, `g1_constants.py`): feet are condim 3 with priority 1 and
sliding friction 0.6, so the ground's own value does not count for them; the ground is condim 3 with
friction 1; links against each other are frictionless (condim 1) when self-collision is on. MuJoCo
never tests a body against its parent.
"""

from __future__ import annotations

import copy
import functools
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import mujoco
import numpy as np

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.robots import g1, visuals
from bm_envs.robots.registry import robot_named
from bm_envs.robots.robot import Body, Geom, Robot

if TYPE_CHECKING:
    from tyro.conf import Positional, arg

FOOT_FRICTION = 0.6
COLLISION_GROUP = 3
# With self-collision the pairs of links that touch at once are bounded by this.
_SELF_CONTACTS = 32


@dataclass(frozen=True)
class ModelConfig:
    """What the model contains and how the engine solves it.

    The engine settings are those of the tracking task of mjlab 1.6.0.
    """

    feet: Literal["spheres", "capsules"] = "spheres"
    """Foot contact shape: Unitree's 4 spheres (fast) or mjlab's 7 capsules."""
    self_collision: bool = False
    """Whether links collide with each other as well as with the ground."""
    physics_dt: float = 0.005
    """Physics time step, s."""
    iterations: int = 10
    """Upper bound of Newton iterations of the constraint solver."""
    ls_iterations: int = 20
    """Upper bound of line-search iterations of the constraint solver."""
    cone: Literal["pyramidal", "elliptic"] = "pyramidal"
    """Friction cone of contacts."""
    payload_kg: float = 0.0
    """Mass added to the torso, kg, a point in its centre of mass; moments of inertia stay."""
    latency_s: float = 0.0
    """Time by which joint targets reach the drives late, s, a whole number of physics steps. Until
    the first one arrives the drives hold the pose of the reset."""
    visuals: bool = False
    """Whether shapes to look at are included (never needed by physics)."""
    mesh_dir: Path | None = None
    """Folder with the maker's G1 meshes to draw instead of plain shapes; implies `visuals`."""
    robot: str = "g1"
    """Which robot: g1, the Unitree G1 with 29 joints, or g1_23, the one with 23."""

    def __post_init__(self) -> None:
        robot_named(self.robot)
        if self.feet not in ("spheres", "capsules"):
            raise ConfigError(f"feet is '{self.feet}', expected 'spheres' or 'capsules'.")
        if not self.physics_dt > 0:
            raise ConfigError(f"physics_dt is {self.physics_dt}, expected a positive time in s.")
        if not 0 <= self.payload_kg < math.inf:
            raise ConfigError(f"payload_kg is {self.payload_kg}, expected 0 kg or more.")
        if not 0 <= self.latency_s < math.inf:
            raise ConfigError(f"latency_s is {self.latency_s}, expected 0 s or more.")
        if abs(self.latency_steps * self.physics_dt - self.latency_s) > 1e-9:
            raise ConfigError(
                f"latency_s is {self.latency_s}, expected a whole number of physics steps of "
                f"{self.physics_dt:g} s."
            )

    @property
    def latency_steps(self) -> int:
        """Physics steps by which joint targets are late."""
        return round(self.latency_s / self.physics_dt)

    @property
    def table(self) -> Robot:
        """The robot."""
        return robot_named(self.robot)

    def mass_of(self, body: Body) -> float:
        """Mass of a link, its share of the payload included, kg."""
        return body.mass + (self.payload_kg if body.name == self.table.anchor_body else 0.0)


def build_mjcf(
    config: ModelConfig = ModelConfig(), tracked: Sequence[str] = (), *, contacts: bool = False
) -> str:
    """MJCF text of the robot on a plane.

    Args:
        config: shapes and engine settings.
        tracked: bodies to put frame sensors on; see `add_sensors`.
        contacts: whether there are contact sensors without `tracked`, too.
    """
    robot = config.table
    root = ET.Element("mujoco", model=robot.name)
    ET.SubElement(root, "compiler", angle="radian", autolimits="true")
    ET.SubElement(
        root, "option", timestep=_num(config.physics_dt), integrator="implicitfast",
        solver="Newton", cone=config.cone, impratio="1", iterations=str(config.iterations),
        ls_iterations=str(config.ls_iterations), tolerance="1e-8", ls_tolerance="0.01",
        ccd_iterations="50", gravity="0 0 -9.81",
        jacobian="sparse",  # left to itself the engine takes dense ones here: the same, but slower
    )  # fmt: skip
    defaults = ET.SubElement(root, "default")
    _collision_default(defaults, "collision", config, condim="1")
    _collision_default(
        defaults, "foot", config, condim="3", priority="1", friction=f"{FOOT_FRICTION} 0.005 0.0001"
    )
    asset = ET.SubElement(root, "asset")
    world = ET.SubElement(root, "worldbody")
    ground = dict(
        name="ground", type="plane", size="0 0 0.05", condim="3", friction="1 0.005 0.0001"
    )
    if config.visuals or config.mesh_dir:
        visuals.add_scene(root, asset, world)
        ground["material"] = "ground"
    ET.SubElement(world, "geom", ground, contype="1", conaffinity="1", group="0")

    elements = {"world": world}
    feet = robot.foot_spheres if config.feet == "spheres" else robot.foot_capsules
    geoms = robot.collision_geoms + feet
    for body in robot.bodies:
        element = ET.SubElement(
            elements[body.parent], "body", name=body.name, pos=_vec(body.pos), quat=_vec(body.quat)
        )
        elements[body.name] = element
        ET.SubElement(
            element, "inertial", mass=_num(config.mass_of(body)), pos=_vec(body.inertial_pos),
            quat=_vec(body.inertial_quat), diaginertia=_vec(body.diag_inertia),
        )  # fmt: skip
        if body.parent == "world":
            ET.SubElement(element, "freejoint", name="floating_base_joint")
        for joint in robot.joints:
            if joint.body == body.name:
                ET.SubElement(
                    element, "joint", name=joint.name, type="hinge", axis=_vec(joint.axis),
                    range=_vec(joint.range), armature=_num(joint.armature),
                )  # fmt: skip
        for geom in geoms:
            if geom.body == body.name:
                _add_geom(element, geom, robot)
        if config.visuals or config.mesh_dir:
            visuals.add_body_visuals(element, asset, body.name, config.mesh_dir, robot)
        for site in robot.sites:
            if site.body == body.name:
                ET.SubElement(element, "site", name=site.name, pos=_vec(site.pos), group="4")

    contact = ET.SubElement(root, "contact")
    for first, second in robot.contact_exclusions:
        ET.SubElement(contact, "exclude", body1=first, body2=second)
    actuator = ET.SubElement(root, "actuator")
    for joint in robot.joints:
        # kp(target - q) - kd*qdot inside the engine, so that `implicitfast` damps it implicitly:
        # kd*dt/I is 1.26 at 5 ms, where an explicit PD would ring.
        ET.SubElement(
            actuator, "position", name=joint.name, joint=joint.name, kp=_num(joint.stiffness),
            kv=_num(joint.damping), forcerange=_vec((-joint.effort_limit, joint.effort_limit)),
            inheritrange="0", ctrllimited="false",
        )  # fmt: skip
    keyframe = ET.SubElement(root, "keyframe")
    for name, pose in robot.poses.items():
        joints = pose.joint_pos(robot)
        qpos = (0, 0, pose.root_height, 1, 0, 0, 0, *joints)
        ET.SubElement(keyframe, "key", name=name, qpos=_vec(qpos), ctrl=_vec(joints))
    if tracked or contacts:
        add_sensors(ET.SubElement(root, "sensor"), tracked, config.self_collision, robot)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


FRAME_SENSORS = {"framepos": 3, "framequat": 4, "framelinvel": 3, "frameangvel": 3}
CONTACT_BODIES = g1.G1.contact_bodies  # of the G1; see `Robot.contact_bodies`


def add_sensors(
    sensor: ET.Element, tracked: Sequence[str], self_collision: bool, robot: Robot = g1.G1
) -> None:
    """Link-frame pose and velocity sensors (world axes) of each body, then contact forces.

    Sensor data are laid out kind by kind: positions `[K, 3]`, quaternions `[K, 4]`, linear and
    angular velocities `[K, 3]` each (velocity of the link origin), then the net contact force
    `[C, 3]` of each of `robot.contact_bodies` and of the two feet, and with self-collision the
    force `[3]` of the strongest contact between two links (contact frame, normal first) and the net
    force `[C, 3]` of each of those bodies with the robot's other links.
    """
    for kind in FRAME_SENSORS:
        for name in tracked:
            ET.SubElement(sensor, kind, name=f"{kind}:{name}", objtype="xbody", objname=name)
    bodies, root = (*robot.contact_bodies, *robot.foot_bodies), robot.root_body
    net = dict(data="force", reduce="netforce")
    for name in bodies:
        ET.SubElement(sensor, "contact", name=f"contact:{name}", body1=name, attrib=net)
    if self_collision:
        ET.SubElement(
            sensor, "contact", name="contact:self", subtree1=root, subtree2=root,
            data="force", reduce="maxforce",
        )  # fmt: skip
        for name in bodies:
            ET.SubElement(
                sensor, "contact", name=f"contact:self:{name}", body1=name, subtree2=root,
                attrib=net,
            )  # fmt: skip


def compile_model(
    config: ModelConfig = ModelConfig(), tracked: Sequence[str] = (), *, contacts: bool = False
) -> mujoco.MjModel:
    """The compiled model of `build_mjcf`, with the robot's poses as keyframes.

    It is the caller's own, to be changed at will.
    """
    if config.visuals or config.mesh_dir:  # made of files that may change
        return mujoco.MjModel.from_xml_string(build_mjcf(config, tracked, contacts=contacts))
    return copy.copy(_compiled(config, tuple(tracked), contacts))


@functools.lru_cache(maxsize=16)
def _compiled(config: ModelConfig, tracked: tuple[str, ...], contacts: bool) -> mujoco.MjModel:
    """A model that nobody changes."""
    return mujoco.MjModel.from_xml_string(build_mjcf(config, tracked, contacts=contacts))


def capacity(model: mujoco.MjModel, self_collision: bool) -> tuple[int, int]:
    """Contacts and constraint rows of a robot that can be active at once.

    A sphere meets the ground in one point, a capsule in two; a point has four rows (a pyramid of
    friction), a joint at its limit one.
    """
    kinds = model.geom_type[model.geom_bodyid > 0]
    points = int((kinds == mujoco.mjtGeom.mjGEOM_SPHERE).sum())
    points += 2 * int((kinds == mujoco.mjtGeom.mjGEOM_CAPSULE).sum())
    own = _SELF_CONTACTS if self_collision else 0
    return points + own, 4 * points + own + int(model.jnt_limited.sum())


def set_gains(
    model: mujoco.MjModel, stiffness: Sequence[float] | None, damping: Sequence[float] | None
) -> None:
    """Replace the drives' gains, `[J]` each; None leaves the table's."""
    if stiffness is not None:
        model.actuator_gainprm[:, 0] = stiffness
        model.actuator_biasprm[:, 1] = -np.asarray(stiffness)
    if damping is not None:
        model.actuator_biasprm[:, 2] = -np.asarray(damping)


def foot_geoms(model: mujoco.MjModel, robot: Robot = g1.G1) -> np.ndarray:
    """Indices of the shapes of both feet."""
    feet = [model.body(name).id for name in robot.foot_bodies]
    return np.flatnonzero(np.isin(model.geom_bodyid, feet))


def model_figures(
    model: mujoco.MjModel, num_envs: int, **fields: np.ndarray
) -> dict[str, np.ndarray]:
    """What `Simulator.read_model` tells, of engines that hold MuJoCo's arrays.

    Args:
        model: of one robot.
        num_envs: N.
        fields: arrays of the model by its names, as an engine holds them, `[N, ...]` or `[1, ...]`;
            those not given are the model's.
    """

    def held(name: str) -> np.ndarray:
        rows = np.asarray(fields[name] if name in fields else getattr(model, name)[None])
        return np.array(np.broadcast_to(rows, (num_envs, *rows.shape[1:])), np.float64)

    return {
        "body_mass": held("body_mass")[:, 1:],  # without the world
        "body_com": held("body_ipos")[:, 1:],
        "body_inertia": np.sort(held("body_inertia")[:, 1:], -1),
        "joint_range": held("jnt_range")[:, 1:],
        "armature": held("dof_armature")[:, 6:],
        "stiffness": held("actuator_gainprm")[..., 0],
        "damping": -held("actuator_biasprm")[..., 2],
        "effort_limit": held("actuator_forcerange")[..., 1],
        "foot_friction": held("geom_friction")[:, foot_geoms(model)[0], 0],
    }


def _collision_default(
    parent: ET.Element, name: str, config: ModelConfig, **attributes: str
) -> None:
    element = ET.SubElement(parent, "default", {"class": name})
    # contype 0 against conaffinity 1: only the ground, whose contype is 1, meets the links.
    masks = dict(contype="1" if config.self_collision else "0", conaffinity="1")
    shared = dict(group=str(COLLISION_GROUP), rgba="0.5 0.6 0.7 0.4")
    ET.SubElement(element, "geom", {**masks, **shared, **attributes})


def _add_geom(parent: ET.Element, geom: Geom, robot: Robot) -> None:
    element = ET.SubElement(
        parent, "geom", {"class": "foot" if geom.body in robot.foot_bodies else "collision"},
        name=geom.name, size=_num(geom.radius),
    )  # fmt: skip
    if geom.end is None:
        element.set("type", "sphere")
        element.set("pos", _vec(geom.start))
    else:
        element.set("type", "capsule")
        element.set("fromto", _vec((*geom.start, *geom.end)))


def _num(value: float) -> str:
    return repr(float(value))


def _vec(values: Iterable[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


@dataclass(frozen=True)
class WriteConfig:
    """Write the robot on a plane as a MuJoCo XML file for other programs."""

    xml: Positional[Annotated[Path, arg(metavar="OUT.xml")]]
    """File to write; its name ends in .xml."""
    model: ModelConfig = field(default_factory=lambda: ModelConfig(visuals=True))
    """What it contains."""


def main(config: WriteConfig) -> None:
    """Write the file."""
    if config.xml.suffix != ".xml" or config.xml.is_dir():
        raise ConfigError(f"{config.xml}: expected the name of a file that ends in .xml.")
    text = build_mjcf(config.model)
    model = mujoco.MjModel.from_xml_string(text)  # what does not compile is not written
    with cli.atomic_path(config.xml) as temporary:
        temporary.write_text(text + "\n")
    print(f"wrote {config.xml}: {model.nbody - 1} bodies")


if __name__ == "__main__":
    # Of the annotations above, which are read when the command runs; environments need no flags.
    from tyro.conf import Positional, arg

    cli.run(main, WriteConfig)
