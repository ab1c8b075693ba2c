"""Every name of Isaac Lab that our backends use is in the wheels that they are written for.

Isaac Lab is too large for the plain set-up, so its sources are read and not imported. The wheels
are looked for in `.cache/isaaclab`; without them these tests skip with the commands that fetch
them. An older Isaac Lab, whose interface is another, is the check that the checker sees something.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.isaaclab_sources import Wheels, problems

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "isaaclab"
FETCH = "pip download --no-deps --only-binary=:all: --python-version {} -d .cache/isaaclab {}"
PINNED = ("isaaclab==3.0.0", "newton==1.6.1", "mujoco-warp==3.12.0")
PACKAGES = ("isaaclab", "isaaclab_newton", "isaaclab_ov", "newton", "mujoco_warp")
ARTICULATION = "assets.articulation.articulation"
ENGINES = {"isaaclab": ("isaaclab_newton",), "isaaclab_physx": ("isaaclab_ov",)}
ENGINES["isaaclab_scene"] = ("isaaclab_newton", "isaaclab_ov")


def types(file):
    """Of expressions in a file of ours: the engines' own classes, where an attribute really is.

    Isaac Lab's `Articulation` and its like only choose among them.
    """
    engines = ENGINES[file]
    robot = [f"{engine}.{ARTICULATION}:Articulation" for engine in engines]
    data = [f"{engine}.{ARTICULATION}_data:ArticulationData" for engine in engines]
    sensor = [f"{e}.sensors.contact_sensor.contact_sensor:ContactSensor" for e in engines]
    sensed = [f"{e}.sensors.contact_sensor.contact_sensor_data:ContactSensorData" for e in engines]
    views = {
        "isaaclab_newton": "newton.selection:ArticulationView",
        "isaaclab_ov": "isaaclab_ov.sim.views.ovphysx_view:OvPhysxView",
    }
    array = "isaaclab.utils.warp.proxy_array:ProxyArray"
    actuators = "isaaclab.actuators.actuator_collection"
    return {
        r"self\._sim": ["isaaclab.sim:SimulationContext"],
        r"self\._scene": ["isaaclab.scene.interactive_scene:InteractiveScene"],
        r"self\._robot": robot,
        r"self\._robot\.data|data": data,
        r"self\._sensor": sensor,
        r"self\._sensor\.data": sensed,
        r"(self\._robot\.|self\._sensor\.)?data\.\w+": [array],
        r"self\._robot\.root_view|view": [views[engine] for engine in engines],
        r"self\._robot\.actuators": [f"{actuators}:ActuatorCollection"],
        r"self\._robot\.actuators\.target_command": [f"{actuators}:ActuatorTargetCommand"],
        r"builder": ["newton:ModelBuilder"],
        r"shapes": ["newton:Model"],
        r"contacts": ["newton:Contacts"],
        r"solver": ["newton.solvers:SolverMuJoCo"],
        r"solver\.mjw_model\.opt": ["mujoco_warp:Option"],
        r"solver\.mjw_data": ["mujoco_warp:Data"],
    }


def wheels(*requirements):
    paths = []
    for requirement in requirements:
        name, _, version = requirement.partition("==")
        found = sorted(FOLDER.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
        if not found:
            python = "3.11" if version.startswith("2.3") else "3.12"
            pytest.skip(f"{requirement} is not there: {FETCH.format(python, requirement)}")
        paths += found
    return Wheels(paths)


@pytest.fixture(scope="module")
def pinned():
    return wheels(*PINNED)


def source(file):
    return (ROOT / "bm_envs" / "backends" / f"{file}.py").read_text()


@pytest.mark.parametrize("file", ENGINES)
def test_every_name_that_is_used_exists(file, pinned):
    assert problems(source(file), pinned, PACKAGES, types(file)) == []


@pytest.mark.parametrize(
    ("file", "name", "other"),
    [
        ("isaaclab_scene", "UsdFileCfg", "UsdFilesCfg"),
        ("isaaclab_scene", "write_root_link_pose_to_sim_mask", "write_root_link_pose"),
        ("isaaclab_scene", "body_link_vel_w", "body_link_velocity_w"),
        ("isaaclab_scene", "net_forces_w", "net_force_w"),
        ("isaaclab_scene", "joint_pos.torch", "joint_pos.tensor"),
        ("isaaclab_scene", "set_position_index", "set_positions_index"),
        ("isaaclab_scene", "InitialStateCfg", "StartCfg"),
        ("isaaclab_scene", "root_pose=", "pose="),
        ("isaaclab_scene", "usd_path=", "path="),
        ("isaaclab_scene", "joint_effort_limit=", "effort="),
        ("isaaclab_scene", "env_spacing=", "spacing="),
        ("isaaclab", "ls_iterations=", "line_iterations="),
        ("isaaclab", "SHAPE_PROPERTIES", "SHAPES"),
        ("isaaclab", "get_state_0", "get_state_2"),
        ("isaaclab", "shape_names", "shapes_names"),
        ("isaaclab", "rigid_contact_count", "contact_count"),
        ("isaaclab", "qacc_warmstart", "warmstart"),
        ("isaaclab_physx", "SHAPE_FRICTION_AND_RESTITUTION", "SHAPE_FRICTION"),
        ("isaaclab_physx", "_sensor.body_names", "_sensor.names"),
    ],
)
def test_a_name_that_does_not_exist_is_told(file, name, other, pinned):
    text = source(file)
    assert name in text, "premise: it is used"
    found = problems(text.replace(name, other), pinned, PACKAGES, types(file))
    assert any(other.strip("=") in line for line in found), found


def test_an_older_isaac_lab_is_told_apart():
    """2.3.2 has writers for indices only, PhysX only, and arrays that are torch's themselves."""
    older = wheels("isaaclab==2.3.2.post1")
    found = problems(source("isaaclab_scene"), older, ("isaaclab",), {
        r"self\._robot": ["isaaclab.assets.articulation.articulation:Articulation"],
    })  # fmt: skip
    assert any("write_root_link_pose_to_sim_mask" in line for line in found)
    assert any("no keyword physics" in line for line in found)
    assert not any(line.startswith("from isaaclab.scene") for line in found), "that was there"
