"""What the G1 looks like: a scene, plain shapes on the links, or the maker's meshes.

Nothing here touches physics: every shape has no mass and no contact bits, every link's inertia is
explicit in the model, and `ModelConfig.visuals` is off where only physics runs.

`SHAPES` is a table like those of `bm_envs.robots.g1`: the left half and the middle are written, the
right half is their mirror image. The shapes are ours, drawn over the link frames and collision shapes.

Meshes: a folder (`ModelConfig.mesh_dir`, or `g1_meshes` in the folder `BM_DATA_DIR`) with files named
after the links: `pelvis.STL`, `left_knee_link.stl`, `torso_link_rev_1_0.STL`, `waist_yaw_link.obj`.
A link without a file keeps its plain shapes.
"""

from __future__ import annotations

import os
import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bm_envs.errors import ConfigError
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot

TRACKING_CAMERA = "track"
VISUAL_GROUP = 2  # of the geoms that are drawn and touch nothing
DATA_DIR_VARIABLE = "BM_DATA_DIR"
MESH_FOLDER = "g1_meshes"  # inside BM_DATA_DIR

Tone = Literal["shell", "dark", "visor", "accent"]
TONES: dict[Tone, dict[str, str]] = {
    "shell": dict(rgba="0.88 0.89 0.90 1", specular="0.35", shininess="0.45"),
    "dark": dict(rgba="0.17 0.18 0.20 1", specular="0.25", shininess="0.30"),
    "visor": dict(rgba="0.04 0.05 0.06 1", specular="0.9", shininess="0.9"),
    "accent": dict(rgba="0.10 0.45 0.90 1", specular="0.4", shininess="0.5", emission="0.3"),
}


@dataclass(frozen=True)
class Shape:
    """One thing to look at, in the frame of `body`, m.

    `size` holds MuJoCo's half sizes. With `end`, the shape's z axis runs from `pos` to `end` and the
    last half size follows from their distance; without, `pos` is the centre and axes are the link's.
    """

    body: str
    kind: Literal["sphere", "capsule", "cylinder", "ellipsoid", "box"]
    tone: Tone
    size: tuple[float, ...]
    pos: g1.Vec3
    end: g1.Vec3 | None = None
    part: str = ""
    """The maker's mesh that replaces this shape; empty: the mesh named after the link."""

    def mirrored(self) -> Shape:
        """The same shape on the robot's right side."""
        return replace(
            self,
            body=self.body.replace("left_", "right_"),
            part=self.part.replace("left_", "right_"),
            pos=(self.pos[0], -self.pos[1], self.pos[2]),
            end=None if self.end is None else (self.end[0], -self.end[1], self.end[2]),
        )


# fmt: off
_MIDDLE: tuple[Shape, ...] = (
    Shape("pelvis", "ellipsoid", "shell", (0.062, 0.088, 0.058), (0.000, 0, -0.062)),
    Shape("pelvis", "capsule", "dark", (0.047,), (0, -0.062, -0.1027), (0, 0.062, -0.1027)),
    Shape("pelvis", "cylinder", "dark", (0.050,), (0, 0, -0.030), (0, 0, 0.004)),
    Shape("waist_yaw_link", "cylinder", "dark", (0.046,), (0, 0, 0.004), (0, 0, 0.036)),
    Shape("waist_roll_link", "capsule", "dark", (0.036,), (0, -0.022, 0), (0, 0.022, 0)),
    # The trunk: belly, chest and a yoke between the shoulders, with a pack on the back.
    Shape("torso_link", "ellipsoid", "dark", (0.060, 0.072, 0.050), (0.003, 0, 0.048)),
    Shape("torso_link", "ellipsoid", "shell", (0.070, 0.090, 0.105), (0.004, 0, 0.135)),
    Shape("torso_link", "ellipsoid", "shell", (0.082, 0.114, 0.092), (0.004, 0, 0.200)),
    Shape("torso_link", "capsule", "shell", (0.054,), (0.002, -0.058, 0.244), (0.002, 0.058, 0.244)),
    Shape("torso_link", "ellipsoid", "dark", (0.040, 0.066, 0.085), (-0.058, 0, 0.180)),
    Shape("torso_link", "cylinder", "accent", (0.015,), (0.078, 0, 0.210), (0.0870, 0, 0.210), "logo_link"),
    Shape("torso_link", "cylinder", "dark", (0.034,), (0, 0, 0.285), (0.002, 0, 0.350)),
    Shape("torso_link", "ellipsoid", "shell", (0.076, 0.066, 0.082), (0.002, 0, 0.408), None, "head_link"),
    Shape("torso_link", "ellipsoid", "visor", (0.060, 0.058, 0.056), (0.0265, 0, 0.410), None, "head_link"),
)

_LEFT: tuple[Shape, ...] = (
    Shape("left_hip_pitch_link", "cylinder", "dark", (0.048,), (0, -0.004, -0.004), (0, 0.030, -0.012)),
    Shape("left_hip_pitch_link", "sphere", "dark", (0.044,), (0.000, 0.046, -0.026)),
    Shape("left_hip_roll_link", "capsule", "shell", (0.056,), (0.014, 0, -0.012), (0.024, 0, -0.082)),
    Shape("left_hip_yaw_link", "cylinder", "dark", (0.050,), (0, 0, -0.004), (0, 0, 0.026)),
    Shape("left_hip_yaw_link", "capsule", "shell", (0.054,), (-0.004, 0, -0.030), (-0.034, 0.001, -0.095)),
    Shape("left_hip_yaw_link", "capsule", "shell", (0.047,), (-0.030, 0.001, -0.080), (-0.066, 0.002, -0.142)),
    Shape("left_knee_link", "cylinder", "dark", (0.044,), (0, -0.047, 0), (0, 0.047, 0)),
    Shape("left_knee_link", "ellipsoid", "shell", (0.040, 0.040, 0.052), (0.022, 0, -0.012)),
    Shape("left_knee_link", "capsule", "shell", (0.042,), (0.010, 0, -0.050), (0.008, 0, -0.130)),
    Shape("left_knee_link", "capsule", "shell", (0.033,), (0.008, 0, -0.130), (0.004, 0, -0.205)),
    Shape("left_knee_link", "capsule", "dark", (0.024,), (0.004, 0, -0.200), (0.001, 0, -0.280)),
    Shape("left_ankle_pitch_link", "cylinder", "dark", (0.022,), (0, -0.026, 0), (0, 0.026, 0)),
    # The sole ends in the plane of the contact shapes, 35 mm down, and is about as large as their hull.
    Shape("left_ankle_roll_link", "box", "dark", (0.062, 0.032, 0.008), (0.034, 0, -0.027)),
    Shape("left_ankle_roll_link", "cylinder", "dark", (0.032,), (0.096, 0, -0.035), (0.096, 0, -0.019)),
    Shape("left_ankle_roll_link", "cylinder", "dark", (0.032,), (-0.028, 0, -0.035), (-0.028, 0, -0.019)),
    Shape("left_ankle_roll_link", "ellipsoid", "shell", (0.080, 0.031, 0.020), (0.040, 0, -0.014)),
    Shape("left_ankle_roll_link", "ellipsoid", "shell", (0.040, 0.029, 0.024), (-0.012, 0, -0.010)),
    Shape("left_shoulder_pitch_link", "cylinder", "dark", (0.038,), (0, -0.006, 0.002), (0, 0.026, -0.006)),
    Shape("left_shoulder_pitch_link", "sphere", "shell", (0.043,), (0, 0.038, -0.012)),
    Shape("left_shoulder_roll_link", "capsule", "shell", (0.040,), (0, 0.004, -0.006), (0, 0.006, -0.050)),
    Shape("left_shoulder_yaw_link", "cylinder", "dark", (0.035,), (0, 0, 0.004), (0, 0, 0.028)),
    Shape("left_shoulder_yaw_link", "capsule", "shell", (0.035,), (0.000, 0, -0.002), (0.010, 0, -0.052)),
    Shape("left_elbow_link", "cylinder", "dark", (0.034,), (0, -0.036, 0), (0, 0.036, 0)),
    Shape("left_elbow_link", "capsule", "shell", (0.032,), (0.020, 0.001, -0.008), (0.078, 0.002, -0.010)),
    Shape("left_wrist_roll_link", "cylinder", "dark", (0.028,), (-0.006, 0, 0), (0.018, 0, 0)),
    Shape("left_wrist_pitch_link", "capsule", "shell", (0.028,), (-0.004, 0, 0), (0.028, 0, 0)),
    Shape("left_wrist_yaw_link", "cylinder", "dark", (0.022,), (0, 0, -0.030), (0, 0, 0.030)),
    Shape("left_wrist_yaw_link", "capsule", "dark", (0.018,), (0.010, 0, 0), (0.050, 0, 0)),
    # A mitten, palm inwards, thumb up and forward.
    Shape("left_wrist_yaw_link", "ellipsoid", "dark", (0.050, 0.020, 0.036), (0.082, 0, 0), None, "left_rubber_hand"),
    Shape("left_wrist_yaw_link", "ellipsoid", "dark", (0.040, 0.016, 0.032), (0.125, -0.008, -0.002), None, "left_rubber_hand"),
    Shape("left_wrist_yaw_link", "capsule", "dark", (0.012,), (0.064, -0.008, 0.026), (0.098, -0.022, 0.040), "left_rubber_hand"),
)
# fmt: on
SHAPES: tuple[Shape, ...] = _MIDDLE + _LEFT + tuple(shape.mirrored() for shape in _LEFT)


@dataclass(frozen=True)
class MeshPart:
    """A mesh of the maker and where its frame lies on a link of our tree."""

    name: str
    body: str
    pos: g1.Vec3 = (0.0, 0.0, 0.0)
    tone: Tone = "shell"


# Parts which the maker's model fixes to a link, with their offsets; every link is a part of itself.
# Source: mjlab 1.6.0, `xmls/g1.xml` (the head and the logo on the torso, the rubber hands on the wrists).
MESH_PARTS: tuple[MeshPart, ...] = (
    *(
        MeshPart(name, name, tone="dark" if "ankle" in name or "waist" in name else "shell")
        for name in g1.BODY_NAMES
    ),
    MeshPart("pelvis_contour_link", "pelvis"),
    MeshPart("head_link", "torso_link", (0.0039635, 0.0, -0.044), "dark"),
    MeshPart("logo_link", "torso_link", (0.0039635, 0.0, -0.044), "dark"),
    MeshPart("left_rubber_hand", "left_wrist_yaw_link", (0.0415, 0.003, 0.0), "dark"),
    MeshPart("right_rubber_hand", "right_wrist_yaw_link", (0.0415, -0.003, 0.0), "dark"),
)


def add_scene(root: ET.Element, asset: ET.Element, world: ET.Element) -> None:
    """Sky, ground material `ground`, robot materials, light from the sky and render settings.

    The lamp that throws the shadow and the camera `track` hang on the pelvis: see `add_body_visuals`.
    """
    visual = ET.SubElement(root, "visual")
    ET.SubElement(visual, "global", offwidth="1280", offheight="960", fovy="42", azimuth="130",
                  elevation="-14")  # fmt: skip
    ET.SubElement(visual, "quality", shadowsize="2048", offsamples="4", numslices="20",
                  numstacks="10", numquads="2")  # fmt: skip
    ET.SubElement(visual, "headlight", ambient="0.36 0.37 0.39", diffuse="0.34 0.34 0.34",
                  specular="0.10 0.10 0.10")  # fmt: skip
    ET.SubElement(visual, "map", znear="0.05", zfar="40", haze="0.35", shadowclip="1.0")
    ET.SubElement(visual, "rgba", haze="0.80 0.85 0.90 1")
    # The plane is infinite, so the size of the scene is said and not computed from it.
    ET.SubElement(root, "statistic", center="0 0 0.7", extent="1.5", meansize="0.05")
    ET.SubElement(asset, "texture", name="sky", type="skybox", builtin="gradient",
                  rgb1="0.62 0.74 0.86", rgb2="0.93 0.95 0.97", width="128", height="768")  # fmt: skip
    ET.SubElement(asset, "texture", name="ground", type="2d", builtin="checker", mark="edge",
                  rgb1="0.62 0.66 0.69", rgb2="0.56 0.60 0.63", markrgb="0.70 0.73 0.76",
                  width="256", height="256")  # fmt: skip
    ET.SubElement(asset, "material", name="ground", texture="ground", texuniform="true",
                  texrepeat="1 1", reflectance="0.0", specular="0.1", shininess="0.1")  # fmt: skip
    for name, look in TONES.items():
        ET.SubElement(asset, "material", {"name": name, **look})
    ET.SubElement(world, "light", name="sky", type="directional", pos="0 0 6", dir="-0.3 -0.4 -1",
                  diffuse="0.22 0.23 0.25", specular="0 0 0", castshadow="false")  # fmt: skip


def add_body_visuals(
    element: ET.Element, asset: ET.Element, body: str, mesh_dir: Path | None,
    robot: Robot = g1.G1,
) -> None:  # fmt: skip
    """Add the shapes of one link to look at: meshes where there are files, or plain shapes.

    Args:
        element: the link's `<body>`.
        asset: the model's `<asset>`; meshes are declared there.
        body: the link's name.
        mesh_dir: folder with meshes; None means `BM_DATA_DIR/g1_meshes` where that exists.
        robot: whose link it is.

    Raises:
        ConfigError: the folder holds no mesh of the G1, or a file is not a mesh.
    """
    if body == g1.ROOT_BODY:
        ET.SubElement(element, "camera", name=TRACKING_CAMERA, mode="trackcom", pos="1.55 -1.85 0.30",
                      xyaxes="0.766 0.643 0 -0.113 0.135 0.984", fovy="42")  # fmt: skip
        ET.SubElement(element, "light", name="lamp", mode="trackcom", type="directional",
                      pos="1.35 0 3", dir="-0.45 0 -1", diffuse="0.45 0.44 0.42",
                      specular="0.25 0.25 0.25", castshadow="true")  # fmt: skip
    files = mesh_files(mesh_dir or default_mesh_dir())
    common = dict(group=str(VISUAL_GROUP), contype="0", conaffinity="0", mass="0")
    for part in MESH_PARTS:
        place, offset = robot.merged.get(part.body, (part.body, (0, 0, 0)))
        if place == body and part.name in files:
            path = files[part.name]
            _check_mesh(path)
            # A maker's shell need not be watertight, and its volume is of no use here.
            ET.SubElement(asset, "mesh", name=part.name, file=str(path.resolve()), inertia="shell")
            ET.SubElement(
                element, "geom", common, type="mesh", mesh=part.name, material=part.tone,
                pos=_numbers(_moved(part.pos, offset)),
            )  # fmt: skip
    for shape in SHAPES:
        place, offset = robot.merged.get(shape.body, (shape.body, (0, 0, 0)))
        if place != body or (shape.part or shape.body) in files:
            continue
        geom = ET.SubElement(
            element, "geom", common, type=shape.kind, material=shape.tone, size=_numbers(shape.size)
        )
        if shape.end is None:
            geom.set("pos", _numbers(_moved(shape.pos, offset)))
        else:
            ends = *_moved(shape.pos, offset), *_moved(shape.end, offset)
            geom.set("fromto", _numbers(ends))


def _moved(point: g1.Vec3, offset: g1.Vec3) -> g1.Vec3:
    x, y, z = (a + b for a, b in zip(point, offset, strict=True))
    return x, y, z


def default_mesh_dir() -> Path | None:
    """The folder `BM_DATA_DIR/g1_meshes`, or None where there is none."""
    data_dir = os.environ.get(DATA_DIR_VARIABLE)
    folder = Path(data_dir) / MESH_FOLDER if data_dir else None
    return folder if folder is not None and folder.is_dir() else None


def mesh_files(mesh_dir: Path | None) -> dict[str, Path]:
    """The mesh file of each part of `MESH_PARTS` that the folder has; empty for None.

    A file belongs to a part by its name, with or without the revision suffix `_rev_1_0`, which wins
    when both are there; the endings are `.stl` and `.obj` in either case.

    Raises:
        ConfigError: not a folder, or without a single mesh of the G1.
    """
    if mesh_dir is None:
        return {}
    mesh_dir = Path(mesh_dir)
    try:
        entries = sorted(mesh_dir.iterdir())
    except OSError as error:
        raise ConfigError(f"mesh_dir {mesh_dir}: cannot be read ({error.strerror}).") from error
    by_stem = {path.stem: path for path in entries if path.suffix.lower() in (".stl", ".obj")}
    found = {}
    for part in MESH_PARTS:
        for stem in (f"{part.name}_rev_1_0", part.name):
            if stem in by_stem:
                found[part.name] = by_stem[stem]
                break
    if not found:
        raise ConfigError(
            f"mesh_dir {mesh_dir}: none of its {len(entries)} entries is a mesh named after a link of "
            "the G1, such as pelvis.STL or left_knee_link.obj."
        )
    return found


def _check_mesh(path: Path) -> None:
    """Refuse what the engine would refuse, in one sentence that names the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(84)
            text = head + stream.read() if path.suffix.lower() == ".obj" else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    if path.suffix.lower() == ".obj":
        lines = text.splitlines()
        corners = sum(line.startswith(b"v ") for line in lines)
        if corners < 3 or not any(line.startswith(b"f ") for line in lines):
            raise ConfigError(f"{path}: not an OBJ mesh (it lists {corners} vertices and no face).")
        return
    count = struct.unpack("<I", head[80:])[0] if len(head) == 84 else 0
    if not 1 <= count <= 200_000 or size != 84 + 50 * count:  # the engine's own limit of faces
        raise ConfigError(
            f"{path}: not a binary STL mesh of 1 to 200000 faces (its header says {count} faces, its "
            f"size is {size} bytes)."
        )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(repr(float(value)) for value in values)
