"""`bm_envs/viewers/`: a page's shapes, what its scene holds, its server, its panels, refusals."""

import re
import socket
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bm_envs.errors import BackendUnavailable, BMError, ConfigError
from bm_envs.robots import g1, mjcf, visuals
from bm_envs.viewers import Decor, View, meshes, panels
from bm_envs.viewers import page as pages

STANDING = np.array([0.0, 0.0, 0.76, 1.0, 0.0, 0.0, 0.0, *g1.DEFAULT_JOINT_POS])
HALF = 0.3  # of the shapes below, m
SHAPES = """
<mujoco>
  <asset><mesh name="tetra" vertex="0 0 0  1 0 0  0 1 0  0 0 1"/></asset>
  <worldbody>
    <body>
      <geom name="sphere" type="sphere" size="0.2" pos="0.1 0.2 0.3"/>
      <geom name="ellipsoid" type="ellipsoid" size="0.1 0.2 0.3" pos="0.4 0 0" euler="30 40 50"/>
      <geom name="capsule" type="capsule" size="0.1 0.3" pos="0 0.5 0" euler="70 10 0"/>
      <geom name="cylinder" type="cylinder" size="0.1 0.3" pos="0 0 0.6" euler="0 80 20"/>
      <geom name="box" type="box" size="0.1 0.2 0.3" pos="0.7 0 0" euler="10 20 30"/>
      <geom name="mesh" type="mesh" mesh="tetra" pos="0 0.8 0" euler="15 25 35"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def page():
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    with pages.Page(port=0, title="test", view=View(azimuth=30.0)) as found:
        yield found


def node(page, name):
    return page.server.scene.get_handle_by_name(name)


def error_line(function, *arguments, **settings):
    with pytest.raises(BMError) as caught:
        function(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- shapes --------------------------------------------------------------------------------------


def on_surface(kind, v):
    """Zero for points on a shape of SHAPES in its own frame, m. `[V, 3]` to `[V]`."""
    radial = np.hypot(v[:, 0], v[:, 1])
    if kind == "sphere":
        return np.linalg.norm(v, axis=1) - 0.2
    if kind == "ellipsoid":
        return np.linalg.norm(v / (0.1, 0.2, 0.3), axis=1) - 1
    if kind == "capsule":
        return np.hypot(radial, np.maximum(abs(v[:, 2]) - HALF, 0)) - 0.1
    if kind == "cylinder":
        return np.maximum(radial - 0.1, abs(v[:, 2]) - HALF)
    return np.max(abs(v) - (0.1, 0.2, 0.3), axis=1)


# Round ones are inscribed: of 20 sides a circle's area is 0.9836, and a sphere loses about twice.
VOLUMES = {
    "sphere": (4 / 3 * np.pi * 0.2**3, 0.95), "ellipsoid": (4 / 3 * np.pi * 0.006, 0.95),
    "capsule": (np.pi * 0.01 * 0.6 + 4 / 3 * np.pi * 0.001, 0.97),
    "cylinder": (np.pi * 0.01 * 0.6, 0.983), "box": (8 * 0.006, 1 - 1e-12), "mesh": (1 / 6, 0.9999),
}  # fmt: skip


@pytest.mark.parametrize("kind", VOLUMES)
def test_a_shape_is_closed_faces_outward_and_is_where_the_engine_has_it(kind):
    model = mujoco.MjModel.from_xml_string(SHAPES)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    vertices, faces = meshes.geom_mesh(model, model.geom(kind).id)
    corners = vertices[faces]
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    exact, least = VOLUMES[kind]
    assert least * exact < volume < exact * (1 + 1e-6)  # float32 vertices of the mesh
    # Closed: each edge has its opposite, once corners at one place are one.
    _, same = np.unique(np.round(vertices, 9), axis=0, return_inverse=True)
    edges = [tuple(e) for f in same.ravel()[faces] for e in zip(f, np.roll(f, -1), strict=True)]
    real = [e for e in edges if e[0] != e[1]]  # at a pole triangles have no width
    assert sorted(real) == sorted((b, a) for a, b in real)
    if kind == "mesh":
        turned = Rotation.from_euler("XYZ", [15, 25, 35], degrees=True).apply(
            [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
        ) + (0, 0.8, 0)  # fmt: skip
        distance = np.linalg.norm(vertices[:, None] - turned, axis=2)
        assert distance.min(0).max() < 1e-6  # float32
    else:
        geom = data.geom(kind)
        local = (vertices - geom.xpos) @ geom.xmat.reshape(3, 3)
        assert abs(on_surface(kind, local)).max() < 1e-12


def test_the_robot_is_drawn_in_the_colours_of_its_table():
    model = mjcf.compile_model(mjcf.ModelConfig(visuals=True))
    bodies = meshes.body_meshes(model)
    assert list(bodies) == list(g1.BODY_NAMES)
    tones = {
        name: np.array(tone["rgba"].split()[:3], float) for name, tone in visuals.TONES.items()
    }
    for body, parts in bodies.items():
        used = {shape.tone for shape in visuals.SHAPES if shape.body == body}
        expected = sorted((255 * tones[tone]).tolist() for tone in used)
        # Whole numbers of float32 values: off by a half and a little.
        np.testing.assert_allclose(sorted(list(rgb) for rgb, _ in parts), expected, atol=0.51)


# --- the scene -----------------------------------------------------------------------------------


def test_links_are_where_forward_kinematics_has_them(page):
    rng = np.random.default_rng(0)
    qpos, ghost = STANDING.copy(), STANDING.copy()
    qpos[:3] += (3.0, -2.0, 0.1)
    qpos[3:7] = Rotation.from_euler("z", 0.7).as_quat(scalar_first=True)
    ghost[7:] += rng.uniform(-0.3, 0.3, g1.NUM_JOINTS)
    page.show(qpos, ghost)
    for name, state in (("robot", qpos), ("ghost", ghost)):
        links = oracles.forward_kinematics(state[None, :3], state[None, 3:7], state[None, 7:])
        for i, body in enumerate(g1.BODY_NAMES):
            handle = node(page, f"/world/{name}/{body}")
            # Both in float64 with angles of the tables: some 1e-9 from their decimals.
            np.testing.assert_allclose(handle.position, links["body_pos_w"][0, i], atol=1e-6)
            assert abs(handle.wxyz @ links["body_quat_w"][0, i]) == pytest.approx(1, abs=1e-9)
    assert node(page, "/world/ghost").visible
    page.show(qpos)
    assert not node(page, "/world/ghost").visible


def test_a_patch_lies_under_a_foot_that_touches(page):
    page.show(STANDING, STANDING, feet=(True, False), ghost_feet=(False, True))
    links = oracles.forward_kinematics(STANDING[None, :3], STANDING[None, 3:7], STANDING[None, 7:])
    for name, touching in (("robot", 0), ("ghost", 1)):
        for foot, body in enumerate(g1.FOOT_BODIES):
            patch = node(page, f"/world/{name}_{body}_on_floor")
            assert patch.visible == (foot == touching)
            if patch.visible:
                ankle = links["body_pos_w"][0, g1.BODY_NAMES.index(body)]
                assert 0 < patch.position[2] < 0.01
                # The sole reaches from 0.05 m behind the ankle to 0.12 m before it.
                assert np.linalg.norm(patch.position[:2] - ankle[:2]) < 0.12
    page.show(STANDING, None, ghost_feet=(True, True))
    assert not node(page, f"/world/ghost_{g1.FOOT_BODIES[0]}_on_floor").visible


def test_the_robot_stays_in_the_middle_and_the_lines_on_the_ground(page):
    def place(x):
        qpos = STANDING.copy()
        qpos[0] = x
        page.show(qpos)
        world, ground = (node(page, name).position for name in ("/world", "/ground"))
        # A line of the ground stays where it is in the world: they differ by whole metres. viser
        # does not send what changes by less than 1e-5 of itself, here 0.5 mm.
        off = (ground - world)[:2]
        np.testing.assert_allclose(off, np.round(off), atol=1e-3)
        return x + world[0]

    place(0.0)
    assert place(50.0) == 0  # put elsewhere: at once
    assert [place(50.5) > place(50.5) > place(50.5) > 0] == [True]
    for _ in range(80):
        last = place(50.5)
    assert last == pytest.approx(0, abs=1e-3)  # 0.5 * 0.8 ** 80 is far less
    page.follow = False
    assert place(51.0) == pytest.approx(0.5, abs=1e-3)
    assert place(58.0) == pytest.approx(7.5, abs=1e-3)
    page.follow = True
    assert place(58.0) == 0


def test_what_a_task_shows_comes_changes_and_goes(page):
    goal = np.array([3.0, 1.0, 0.3])
    obstacles = np.array([[1.0, 0.0, 0.2], [2.0, 0.5, 0.3]])
    path, arrow = np.array([[0.0, 0.0], [0.1, 0.0]]), np.array([[0.0, 0, 1], [0.5, 0, 1]])
    page.show(STANDING, None, Decor(path=path, arrow=arrow, goal=goal, obstacles=obstacles))
    disc = node(page, "/world/goal/disc")
    np.testing.assert_allclose(disc.position, (3.0, 1.0, 0.005))
    assert disc.radius == 0.3 and node(page, "/world/obstacle/1").radius == 0.3
    np.testing.assert_allclose(node(page, "/world/obstacle/1").position, (2.0, 0.5, 0.6))
    np.testing.assert_allclose(node(page, "/world/arrow").points, arrow[None])
    np.testing.assert_allclose(node(page, "/world/path").points[0, :, :2], path, atol=1e-8)
    page.show(STANDING, None, Decor(goal=goal, obstacles=obstacles[:1], arrow=arrow * 0.0))
    assert node(page, "/world/goal/disc") is disc  # what did not change is not sent again
    for name in ("obstacle/1", "arrow", "path"):
        assert node(page, f"/world/{name}") is None
    page.show(STANDING)
    assert node(page, "/world/goal/disc") is None and node(page, "/world/obstacle/0") is None


def test_the_camera_starts_as_the_view_says(page):
    camera, view = page.server.initial_camera, View(azimuth=30.0)
    way = camera.look_at - camera.position
    assert np.linalg.norm(way) == pytest.approx(view.distance)
    assert np.degrees(np.arctan2(way[1], way[0])) == pytest.approx(30.0)
    assert np.degrees(np.arcsin(way[2] / view.distance)) == pytest.approx(view.elevation)
    assert page.azimuth == 30.0  # nobody has come


def test_a_wrong_configuration_is_one_sentence(page):
    assert error_line(page.show, np.zeros(7)) == "qpos of the robot has shape (7,), expected (36,)."


# --- the server ----------------------------------------------------------------------------------


def test_the_page_is_served_on_loopback_alone(page):
    with urllib.request.urlopen(page.url, timeout=60) as answer:
        text = answer.read().decode()
    assert page.url == f"http://127.0.0.1:{page.port}" and "<title>Viser</title>" in text
    if sys.platform.startswith("linux"):  # where all of 127.0.0.0/8 is this machine
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", page.port), timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{page.url}/../../../etc/passwd", timeout=60)
    assert page.server.request_share_url() is None


def test_a_closed_page_frees_its_port_and_says_nothing(capfd):
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    page = pages.Page(port=0)
    port = page.port
    page.show(STANDING)
    page.close()
    page.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((pages.HOST, port), timeout=10)
    pages.check(port)
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_one_sentence(page):
    text = (
        f"port {page.port} of 127.0.0.1 is taken; name another with --port (0: any that is free)."
    )
    assert error_line(pages.Page, port=page.port) == text
    with socket.socket() as other:
        other.bind((pages.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert error_line(pages.check, port) == text.replace(str(page.port), str(port))


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_one_sentence(port):
    text = f"port is {port}, expected 0 (any that is free) to 65535."
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        pages.check(port)


def test_without_viser_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    text = "A page needs the package viser: pip install 'bm-envs[web]'."
    with pytest.raises(BackendUnavailable, match=f"^{re.escape(text)}$"):
        pages.Page(port=0)


# --- panels --------------------------------------------------------------------------------------


def test_text_in_a_table_is_text():
    found = ET.fromstring(panels.table([("a<b>", "1 & <script>x</script>"), ("c", "2")]))
    cells = ["".join(cell.itertext()) for cell in found.iter("td")]
    assert cells == ["a<b>", "1 & <script>x</script>", "c", "2"]


def test_a_timeline_has_its_curve_its_bars_and_its_moment():
    seconds = np.arange(101) / 50
    curve = np.zeros(61)  # the robot was lost after 1.2 s
    curve[30] = 80.0
    held = np.zeros(101, bool)
    held[:26] = held[50:76] = True
    text = panels.timeline(seconds, curve, [("L", "#123456", held)], 1.0, "mm")
    svg = ET.fromstring(text)
    width = float(svg.get("viewBox").split()[2])
    (line,), rects = svg.findall("line"), svg.findall("rect")
    left, scale = float(rects[0].get("x")), float(rects[0].get("width")) / 0.5  # pixels a second
    assert len(rects) == 2 and left + 2 * scale == pytest.approx(width, abs=1)
    assert float(rects[1].get("x")) == pytest.approx(left + scale, abs=0.2)
    assert float(rects[1].get("width")) == pytest.approx(0.5 * scale, abs=0.2)
    assert float(line.get("x1")) == float(line.get("x2")) == pytest.approx(left + scale, abs=0.2)
    points = np.array([
        [float(v) for v in pair.split(",")]
        for pair in svg.find("polyline").get("points").split()
    ])  # fmt: skip
    assert points[:, 1].argmin() == 30 and points[-1, 0] == pytest.approx(left + 1.2 * scale, abs=1)
    assert [t.text for t in svg.findall("text")] == ["80 mm", "0", "L"]


def test_a_long_curve_keeps_its_peaks():
    curve = np.zeros(10_000)
    curve[5003] = 50.0
    svg = ET.fromstring(panels.timeline(np.arange(10_000) / 50, curve, [], 0.0))
    points = svg.find("polyline").get("points").split()
    heights = [float(pair.split(",")[1]) for pair in points]
    assert len(points) <= 240 and heights.count(min(heights)) == 1 and min(heights) == 12.0


def test_a_timeline_without_a_curve_has_bars_alone():
    svg = ET.fromstring(
        panels.timeline(np.arange(3) / 50, None, [("R", "red", np.ones(3, bool))], 9.0)
    )
    assert svg.find("polyline") is None and len(svg.findall("rect")) == 1
    assert float(svg.find("line").get("x1")) <= float(svg.get("viewBox").split()[2])


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("0.50 -1.00 5", ((0.5, -1.0), 5)),
        ("-0.00 1.00 15", ((0.0, 1.0), 15)),
        ("1.99 0.00 0", ((1.0, 0.0), 0)),  # a stick that goes too far
        ("", None),
        ("0.5 1.0 0", None),
        ("nan 0.00 0", None),
        ("0.00 0.00 0 0", None),
        ("0.00 0.00 -1", None),
    ],
)
def test_a_gamepad_is_read(text, state):
    assert panels.parse_gamepad(text) == state


@given(st.text(alphabet="-.0123456789 x\n", max_size=20))
def test_whatever_a_page_sends_is_a_stick_or_nothing(text):
    state = panels.parse_gamepad(text)
    if state is not None:
        assert all(-1 <= value <= 1 for value in state[0]) and 0 <= state[1] < 16
