"""Pictures: what is in them, the camera's geometry, the ghost, and the choice of OpenGL."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bm_envs import viewers
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import g1, mjcf
from bm_envs.viewers import HumanViewer, OffscreenRenderer, View

ROOT = Path(__file__).resolve().parents[2]
# Without a graphics card, smooth edges and shadows take eight times as long.
SIZE = dict(width=160, height=120, antialias=False, shadows=False)


pytestmark = pytest.mark.usefixtures("opengl")


@pytest.fixture(scope="module")
def renderer():
    with OffscreenRenderer(**SIZE) as renderer:
        yield renderer


def configuration(pose="KNEES_BENT", x=0.0, y=0.0, yaw=0.0, **joints):
    """`qpos [36]` of a pose at a place, with joints added by name (rad)."""
    figure = g1.POSES[pose]
    joint_pos = figure.joint_pos()
    for name, angle in joints.items():
        joint_pos[g1.JOINT_NAMES.index(name)] += angle
    root = [x, y, figure.root_height, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    return np.array([*root, *joint_pos])


def green(picture):
    """How many pixels are plainly green: nothing of the robot, the ground or the sky is."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return int(((green > red + 30) & (green > blue + 30)).sum())


def test_a_picture_shows_something_and_changes_when_the_robot_moves(renderer):
    picture = renderer.render(configuration())
    assert picture.shape == (120, 160, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.std() > 10
    assert np.array_equal(picture, renderer.render(configuration()))
    renderer.render(configuration(x=40.0, y=-9.0))
    assert np.array_equal(picture, renderer.render(configuration())), "a picture has no memory"
    raised = renderer.render(configuration(left_shoulder_roll_joint=1.2))
    changed = (np.abs(picture.astype(int) - raised) > 30).any(axis=-1)
    assert 50 < changed.sum() < 0.2 * changed.size  # an arm, not the whole picture


def test_pictures_are_upright(renderer):
    picture = renderer.render(configuration()).astype(float)
    sky, ground = picture[:10].mean(axis=(0, 1)), picture[-10:].mean(axis=(0, 1))
    assert sky[2] > sky[0] + 10, "blue above"
    assert ground.mean() < sky.mean() - 20, "darker below"


def test_the_camera_follows_exactly(renderer):
    # The ground's pattern repeats, so only a following camera sees the same robot again. Depth is
    # compared where the robot is: on the column and row of the point looked at.
    here = renderer.depth(configuration())
    away = renderer.depth(configuration(x=7.0, y=-3.0))
    np.testing.assert_allclose(here, away, rtol=1e-4)


def test_a_smooth_camera_lags_and_catches_up(renderer):
    with OffscreenRenderer(**SIZE, smoothing=0.5) as smooth:
        still = smooth.render(configuration())
        assert np.array_equal(still, renderer.render(configuration()))
        lagging = smooth.depth(configuration(x=0.3))
        exact = renderer.depth(configuration(x=0.3))
        assert np.abs(lagging - exact).max() > 0.1
        for _ in range(30):  # 2^-30 of 0.3 m is left
            lagging = smooth.depth(configuration(x=0.3))
        np.testing.assert_allclose(lagging, exact, atol=1e-3)
        # Put elsewhere, it is found at once.
        far = smooth.depth(configuration(x=40.0))
        np.testing.assert_allclose(far, renderer.depth(configuration(x=40.0)), rtol=1e-3)


def test_depth_of_the_ground_is_that_of_a_pinhole_camera():
    """Ground seen at angle a below the axis: h cos(a) / sin(e + a) for a camera h above it."""
    view = View(distance=4.0, elevation=-20.0, azimuth=90.0, height=0.5)
    with OffscreenRenderer(width=81, height=61, view=view) as renderer:
        depth = renderer.depth(configuration())
        assert depth.dtype == np.float32
        assert depth.max() == pytest.approx(renderer.far, rel=1e-3)
    height = 0.5 + 4.0 * np.sin(np.deg2rad(20))
    for row in (45, 52, 60):  # column 0 is far to the left of the robot
        # 42 degrees is the vertical field of view; the middle row's centre is the axis.
        slope = np.tan(np.deg2rad(21)) * (row - 30) / 30.5
        angle = np.arctan(slope)
        expected = height * np.cos(angle) / np.sin(np.deg2rad(20) + angle)
        assert depth[row, 0] == pytest.approx(expected, rel=2e-3)


def test_depth_of_the_robot_is_its_distance():
    """Level with the pelvis and from the front, the nearest thing on the axis is the pelvis."""
    height = g1.POSES["ZERO"].root_height - 0.062  # the centre of the pelvis's front shell
    view = View(distance=2.0, elevation=0.0, azimuth=180.0, height=height)
    with OffscreenRenderer(width=81, height=61, view=view) as renderer:
        depth = renderer.depth(configuration("ZERO"))
    assert depth[30, 40] == pytest.approx(2.0 - 0.062, abs=2e-3)


def test_the_ghost_is_drawn_and_leaves_nothing_behind(renderer):
    alone = renderer.render(configuration())
    assert green(alone) == 0
    ghost = configuration(y=0.8)
    both = renderer.render(configuration(), ghost)
    assert green(both) > 200
    assert np.array_equal(renderer.render(configuration()), alone)
    # Where robot and ghost agree the ghost hides inside the robot.
    assert green(renderer.render(configuration(), configuration())) < 0.1 * green(both)


def test_the_ghost_does_not_change_what_it_does_not_cover(renderer):
    alone = renderer.depth(configuration())
    both = renderer.depth(configuration(), configuration(y=0.8))
    nearer = both < alone - 1e-3
    assert 200 < nearer.sum() < 0.3 * nearer.size
    np.testing.assert_allclose(both[~nearer], alone[~nearer], rtol=1e-4)


def test_cameras_of_the_model():
    with OffscreenRenderer(**SIZE, camera="track") as by_name:
        picture = by_name.render(configuration())
        with OffscreenRenderer(**SIZE, camera=0) as by_index:
            assert np.array_equal(picture, by_index.render(configuration()))
        with OffscreenRenderer(**SIZE, camera=-1) as following:
            assert not np.array_equal(picture, following.render(configuration()))
    with pytest.raises(ConfigError, match=r"^Unknown camera 'trakc'; did you mean 'track'\?"):
        OffscreenRenderer(**SIZE, camera="trakc")
    with pytest.raises(ConfigError, match=r"^camera is 7, expected -1 to 0\.$"):
        OffscreenRenderer(**SIZE, camera=7)


def test_quality_switches_change_the_picture_only_a_little(renderer):
    quick = renderer.render(configuration()).astype(int)
    for switch in ("antialias", "shadows"):
        with OffscreenRenderer(**SIZE | {switch: True}) as fine:
            difference = np.abs(fine.render(configuration()).astype(int) - quick).max(axis=-1)
            assert 20 < (difference > 30).sum() < 0.1 * difference.size, switch


def test_feet_and_meshes_of_the_config_are_honoured(tmp_path):
    with pytest.raises(ConfigError, match="none of its 0 entries is a mesh"):
        OffscreenRenderer(mjcf.ModelConfig(mesh_dir=tmp_path), **SIZE)


def test_bad_sizes_and_shapes_are_one_sentence(renderer):
    with pytest.raises(ConfigError, match=r"^width is 0, expected 1 to 8192 pixels\.$"):
        OffscreenRenderer(width=0)
    with pytest.raises(ConfigError, match=r"^smoothing is 1\.0, expected 0 or more and below 1\.$"):
        OffscreenRenderer(smoothing=1.0)
    text = "qpos has shape (29,), expected (36,) for robot g1."
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        renderer.render(np.zeros(29))
    text = "ghost_qpos has shape (2, 36), expected (36,) for robot g1."
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        renderer.render(configuration(), np.zeros((2, 36)))


def test_many_may_be_open_and_closing_is_safe():
    first = OffscreenRenderer(width=32, height=24)
    picture = first.render(configuration())
    for _ in range(3):
        with OffscreenRenderer(width=48, height=32) as other:
            other.render(configuration())
        assert np.array_equal(first.render(configuration()), picture)
    first.close()
    first.close()
    with pytest.raises(ConfigError, match="^The renderer is closed; make a new one"):
        first.render(configuration())


def run_python(code, **environment):
    """`(return code, output)` of a fresh interpreter, with no OpenGL chosen beforehand."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


WHICH = """
import numpy as np
from bm_envs import viewers as mr
r = mr.OffscreenRenderer(width=32, height=24, antialias=False, shadows=False)
q = np.zeros(36); q[2:4] = 0.8, 1
print("drawn with", type(r._context).__module__, r.render(q).std() > 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL and OSMesa are Linux's")
def test_opengl_is_found_without_any_setting():
    assert run_python(WHICH)[0] == 0
    # Without drivers EGL has no device; OSMesa takes over where it is installed.
    no_drivers = {"__EGL_VENDOR_LIBRARY_DIRS": "/nonexistent"}
    has_osmesa = run_python(WHICH, MUJOCO_GL="osmesa")[0] == 0
    status, output = run_python(WHICH, **no_drivers)
    if has_osmesa:
        assert (status, output) == (0, "drawn with mujoco.osmesa True\n")
    else:
        assert status == 1
        assert "BackendUnavailable: No OpenGL to draw without a display (egl: " in output
        assert "apt-get install libegl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)." in output
    # What the user asks for by name is not replaced by something else.
    status, output = run_python(WHICH, MUJOCO_GL="egl", **no_drivers)
    assert status == 1
    assert "No OpenGL to draw without a display as MUJOCO_GL=egl asks (egl: no device)" in output


def test_mujoco_gl_off_is_one_sentence(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    text = (
        "MUJOCO_GL is 'off', with which no picture can be made; unset it, or set it to egl, osmesa "
        "or glfw."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        OffscreenRenderer(**SIZE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a display")
def test_a_viewer_without_a_display_is_one_sentence(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not viewers.has_display()
    text = (
        "A viewer needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; record instead: "
        "render_mode='rgb_array', or tools/replay.py --video out.mp4."
    )
    with pytest.raises(BackendUnavailable, match=f"^{re.escape(text)}$"):
        HumanViewer()
    code = "from bm_envs.viewers import HumanViewer; HumanViewer()"
    status, output = run_python(code, DISPLAY=":987")
    assert status == 1
    assert "BackendUnavailable: No window can be opened on the display ':987'; record" in output


def test_a_window_opens_follows_and_shuts():
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("xvfb-run is not installed: no display to open a window on")
    code = """
import numpy as np
from bm_envs.viewers import HumanViewer, OffscreenRenderer
q = np.zeros(36); q[2:4] = 0.8, 1
pictures = OffscreenRenderer(width=32, height=24, antialias=False, shadows=False)
before = pictures.render(q)
with HumanViewer() as viewer:
    assert viewer.is_running()
    for _ in range(3):
        q[0] += 0.1
        viewer.sync(q, q)
    assert viewer._handle.user_scn.ngeom > 50
    viewer.sync(q)
    assert viewer._handle.user_scn.ngeom == 0
    assert 0 < viewer._handle.cam.lookat[0] < 0.3
assert not viewer.is_running()
viewer.sync(q)
viewer.close()
q[0] = 0
assert np.array_equal(pictures.render(q), before)
left_open = HumanViewer()
print("done")
"""
    done = subprocess.run(
        [xvfb, "-a", sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
