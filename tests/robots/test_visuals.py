"""What is drawn never changes physics, stands on the ground, and takes a user's meshes."""

import re
import struct

import mujoco
import numpy as np
import oracles
import pytest

from bm_envs.errors import ConfigError
from bm_envs.robots import g1, mjcf, visuals

TETRAHEDRON = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.07, 0.0], [0.0, 0.0, 0.05]])
NOT_STL = "not a binary STL mesh of 1 to 200000 faces"
FACES = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))


def write_stl(path, corners=TETRAHEDRON):
    """Binary STL: 80 bytes, the number of faces, then per face a normal, 3 corners and 2 bytes."""
    body = b"".join(
        struct.pack("<3f", 0, 0, 0)
        + b"".join(struct.pack("<3f", *corners[corner]) for corner in face)
        + b"\0\0"
        for face in FACES
    )
    path.write_bytes(b"\0" * 80 + struct.pack("<I", len(FACES)) + body)


def write_obj(path, corners=TETRAHEDRON):
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def model():
    return mjcf.compile_model(mjcf.ModelConfig(visuals=True))


def visible(model, body):
    """Geoms of a body that are there to be seen."""
    return [
        i
        for i in range(model.ngeom)
        if model.geom_group[i] == visuals.VISUAL_GROUP
        and model.geom_bodyid[i] == model.body(body).id
    ]


@pytest.mark.parametrize("feet", ["spheres", "capsules"])
def test_visuals_leave_physics_bit_equal(feet, tmp_path):
    write_stl(tmp_path / "pelvis.STL")
    config = dict(feet=feet, self_collision=True)
    plain = mjcf.compile_model(mjcf.ModelConfig(**config))
    with_meshes = mjcf.ModelConfig(**config, mesh_dir=tmp_path)
    for seen in (mjcf.ModelConfig(**config, visuals=True), with_meshes):
        model = mjcf.compile_model(seen)
        assert model.ngeom > plain.ngeom
        for name in (
            "body_mass",
            "body_inertia",
            "body_ipos",
            "body_iquat",
            "dof_M0",
            "actuator_acc0",
        ):
            assert np.array_equal(getattr(model, name), getattr(plain, name)), name
        states = []
        for each in (plain, model):
            data = oracles.at_keyframe(each, "KNEES_BENT")
            rng = np.random.default_rng(0)
            data.qpos[2] -= 0.01  # both feet in the ground
            data.qpos[7:] += rng.normal(0, 0.1, 29)
            data.qvel[:] = rng.normal(0, 1, 35)
            data.ctrl[:] = rng.normal(0, 0.3, 29)
            for _ in range(20):
                mujoco.mj_step(each, data)
            assert data.ncon > 0, "premise: there was contact"
            states.append((data.qpos.copy(), data.qvel.copy(), data.qacc.copy(), data.ncon))
        for one, other in zip(*states, strict=True):
            assert np.array_equal(one, other)


def test_every_link_is_seen_and_nothing_seen_collides(model):
    seen = np.flatnonzero(model.geom_group == visuals.VISUAL_GROUP)
    assert len(seen) == len(visuals.SHAPES)
    assert not model.geom_contype[seen].any()
    assert not model.geom_conaffinity[seen].any()
    for body in g1.BODY_NAMES:
        assert visible(model, body), body


def test_the_plain_model_has_nothing_to_see():
    plain = mjcf.compile_model()
    assert (plain.geom_group != visuals.VISUAL_GROUP).all()
    assert plain.ntex == plain.nmat == plain.ncam == 0


def test_the_robot_stands_on_its_soles_and_is_as_tall_as_a_g1(model):
    # A geom's extent is taken from its box in the geom's frame: exact for upright shapes, never too
    # small otherwise.
    data = oracles.at_keyframe(model, "ZERO")

    def extent(geoms):
        low, high = [], []
        for i in geoms:
            centre = data.geom_xpos[i] + data.geom_xmat[i].reshape(3, 3) @ model.geom_aabb[i, :3]
            half = np.abs(data.geom_xmat[i].reshape(3, 3)) @ model.geom_aabb[i, 3:]
            low.append(centre[2] - half[2])
            high.append(centre[2] + half[2])
        return min(low), max(high)

    for side in ("left", "right"):
        foot = f"{side}_ankle_roll_link"
        sole = data.xpos[model.body(foot).id, 2] + g1.SOLE_HEIGHT
        assert extent(visible(model, foot))[0] == pytest.approx(sole, abs=1e-6)
    every = [i for body in g1.BODY_NAMES for i in visible(model, body)]
    bottom, top = extent(every)
    assert bottom == pytest.approx(data.xpos[model.body("left_ankle_roll_link").id, 2] - 0.035)
    assert 1.25 < top - bottom < 1.36  # the maker says 1.32 m


def test_the_robot_is_its_own_mirror_image(model):
    data = oracles.at_keyframe(model, "KNEES_BENT")
    middle = data.qpos[1]
    for name in g1.BODY_NAMES:
        if name.startswith("left_"):
            left = visible(model, name)
            right = visible(model, name.replace("left_", "right_"))
            assert len(left) == len(right) > 0
            assert np.array_equal(model.geom_size[left], model.geom_size[right])
            mirrored = data.geom_xpos[left] * [1, -1, 1] + [0, 2 * middle, 0]
            # The robot's own tree differs by 1e-5 m between the sides (shoulders).
            np.testing.assert_allclose(mirrored, data.geom_xpos[right], atol=2e-5)


def test_shapes_cover_the_contact_shapes_of_trunk_and_limbs(model):
    """Seen and felt agree: a contact shape's axis lies inside what is drawn of its link (5 mm)."""
    data = oracles.at_keyframe(model, "ZERO")
    for geom in g1.COLLISION_GEOMS:
        body = model.body(geom.body).id
        frame = data.xmat[body].reshape(3, 3)
        ends = [geom.start] if geom.end is None else [geom.start, geom.end]
        near = [i for i in range(model.ngeom) if model.geom_group[i] == visuals.VISUAL_GROUP]
        for point in ends:
            world = data.xpos[body] + frame @ np.array(point)
            inside = False
            for i in near:
                local = data.geom_xmat[i].reshape(3, 3).T @ (world - data.geom_xpos[i])
                inside |= bool((np.abs(local) <= model.geom_aabb[i, 3:] + 0.005).all())
            assert inside, f"{geom.name} at {point} has nothing drawn around it"


def mesh_corners(model, data, body):
    """World positions of the corners of the one mesh on a body."""
    (i,) = [i for i in visible(model, body) if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_MESH]
    mesh = model.geom_dataid[i]
    start = model.mesh_vertadr[mesh]
    corners = model.mesh_vert[start : start + model.mesh_vertnum[mesh]]
    return data.geom_xpos[i] + corners @ data.geom_xmat[i].reshape(3, 3).T


@pytest.mark.parametrize(
    ("file", "link", "offset"),
    [
        ("left_knee_link.STL", "left_knee_link", (0, 0, 0)),
        ("left_knee_link.stl", "left_knee_link", (0, 0, 0)),
        ("left_knee_link.obj", "left_knee_link", (0, 0, 0)),
        ("torso_link_rev_1_0.STL", "torso_link", (0, 0, 0)),
        ("torso_link.STL", "torso_link", (0, 0, 0)),
        ("head_link.STL", "torso_link", (0.0039635, 0, -0.044)),
        ("right_rubber_hand.STL", "right_wrist_yaw_link", (0.0415, -0.003, 0)),
    ],
)
def test_a_mesh_lies_in_its_links_frame(file, link, offset, tmp_path):
    (write_obj if file.endswith("obj") else write_stl)(tmp_path / file)
    (tmp_path / "README.md").write_text("other files do not matter")
    model = mjcf.compile_model(mjcf.ModelConfig(mesh_dir=tmp_path))
    data = oracles.at_keyframe(model, "KNEES_BENT")
    body = model.body(link).id
    expected = data.xpos[body] + (TETRAHEDRON + offset) @ data.xmat[body].reshape(3, 3).T
    got = mesh_corners(model, data, link)
    # float32 corners about half a metre from the origin
    distance = np.linalg.norm(got[:, None] - expected[None], axis=-1)
    assert (distance.min(axis=0) < 1e-6).all()


def test_links_without_a_file_keep_their_shapes(model, tmp_path):
    write_stl(tmp_path / "left_knee_link.STL")
    mixed = mjcf.compile_model(mjcf.ModelConfig(mesh_dir=tmp_path))
    assert len(visible(mixed, "left_knee_link")) == 1
    for body in g1.BODY_NAMES:
        if body != "left_knee_link":
            assert len(visible(mixed, body)) == len(visible(model, body))


def test_a_torso_mesh_leaves_the_plain_head_on(tmp_path):
    write_stl(tmp_path / "torso_link.STL")
    mixed = mjcf.compile_model(mjcf.ModelConfig(mesh_dir=tmp_path))
    heads = [shape for shape in visuals.SHAPES if shape.part == "head_link"]
    kinds = [mixed.geom_type[i] for i in visible(mixed, "torso_link")]
    assert kinds.count(mujoco.mjtGeom.mjGEOM_ELLIPSOID) == len(heads) > 0


def test_the_revision_of_the_robot_wins(tmp_path):
    write_stl(tmp_path / "torso_link.STL", TETRAHEDRON * 2)
    write_stl(tmp_path / "torso_link_rev_1_0.STL")
    assert visuals.mesh_files(tmp_path)["torso_link"].name == "torso_link_rev_1_0.STL"


def test_meshes_are_found_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "g1_meshes").mkdir()
    write_stl(tmp_path / "g1_meshes" / "pelvis.STL")
    monkeypatch.setenv("BM_DATA_DIR", str(tmp_path))
    assert mjcf.compile_model(mjcf.ModelConfig(visuals=True)).nmesh == 1
    assert mjcf.compile_model().nmesh == 0
    monkeypatch.setenv("BM_DATA_DIR", str(tmp_path / "g1_meshes"))
    assert mjcf.compile_model(mjcf.ModelConfig(visuals=True)).nmesh == 0


def test_a_folder_without_meshes_is_one_sentence(tmp_path):
    (tmp_path / "chair.STL").touch()
    text = (
        f"mesh_dir {tmp_path}: none of its 1 entries is a mesh named after a link of the G1, such "
        "as pelvis.STL or left_knee_link.obj."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        mjcf.compile_model(mjcf.ModelConfig(mesh_dir=tmp_path))
    absent = tmp_path / "absent"
    text = f"mesh_dir {absent}: cannot be read (No such file or directory)."
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        mjcf.compile_model(mjcf.ModelConfig(mesh_dir=absent))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (
            "pelvis.STL",
            b"\0" * 80 + struct.pack("<I", 4) + b"\0" * 150,
            f"{NOT_STL} (its header says 4 faces, its size is 234 bytes).",
        ),
        (
            "pelvis.STL",
            b"solid pelvis",
            f"{NOT_STL} (its header says 0 faces, its size is 12 bytes).",
        ),
        ("pelvis.obj", b"v 0 0 0\n", "not an OBJ mesh (it lists 1 vertices and no face)."),
    ],
)
def test_a_broken_mesh_is_one_sentence(name, content, text, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {text}')}$"):
        mjcf.compile_model(mjcf.ModelConfig(mesh_dir=tmp_path))
