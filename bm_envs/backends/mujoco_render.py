"""Pictures of the G1: into arrays (`OffscreenRenderer`) or in a window (`HumanViewer`).

Both draw configurations, not simulations: they take `qpos [36]` (root position 3, root quaternion
w x y z, 29 joint angles in the project's order), compute link poses and draw. A second one, the
ghost, is drawn translucent in the same scene: the reference beside the robot that follows it. What
a task wants of the robot can be drawn as well (`Decor`).

OpenGL without a display: MuJoCo settles on an OpenGL from `MUJOCO_GL` when it is imported, and on
one that needs a display where that is unset. Here the choice is made when the first picture is
wanted: `MUJOCO_GL` if set, else the first that works of EGL (graphics driver or Mesa) and OSMesa.

Speed, 640 x 480, Mesa's software renderer on two busy cores: about 0.2 s a picture, 0.1 s without
antialiasing, 0.05 s also without shadows.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import GL_REFUSED, BackendUnavailable, ConfigError, unknown_name
from bm_envs.robots import mjcf

GHOST_RGBA = (0.05, 0.75, 0.30, 0.25)
_GHOST_SIZE = 0.97  # so that it hides inside the robot, not flickers on it, where the two agree
_MAX_GEOMS = 1000  # the robot and its ghost are about 200
_PATH_RGBA, _ARROW_RGBA = (0.95, 0.80, 0.10, 1.0), (0.90, 0.35, 0.05, 1.0)
_GOAL_RGBA, _OBSTACLE_RGBA = (0.80, 0.10, 0.45, 1.0), (0.45, 0.20, 0.60, 0.55)
_OBSTACLE_HEIGHT = 1.2  # m; lower than the robot, which is to be seen behind
_CONTEXT_MODULES = {
    "egl": "mujoco.egl",
    "osmesa": "mujoco.osmesa",
    "glfw": "mujoco.glfw",
    "cgl": "mujoco.cgl",
}
# Other values which MuJoCo takes for the one that draws through a window system.
_GLFW_NAMES = ("glx", "wgl", "enable", "enabled", "on", "true", "1")


@dataclass(frozen=True)
class View:
    """Where the following camera stands; it moves with the root and keeps its direction."""

    distance: float = 2.4
    """m, from the point looked at."""
    azimuth: float = 130.0
    """Degrees, direction of view over the ground: 180 shows the front of a robot that faces +x."""
    elevation: float = -12.0
    """Degrees; negative looks down."""
    height: float = 0.68
    """m above the ground of the point looked at; it does not bob with the robot."""


FAR_VIEW = View(distance=5.0, elevation=-22.0, height=0.8)  # shows where a robot is going


@dataclass(frozen=True)
class Decor:
    """What a task shows beside the robot, in the world, m. None: there is nothing of the kind."""

    path: np.ndarray | None = None
    """`[P, 2]`, where the robot has been, oldest first: a line on the ground."""
    arrow: np.ndarray | None = None
    """`[2, 3]`, from where and to where."""
    goal: np.ndarray | None = None
    """`[3]`: x, y and radius of a disc on the ground, with a flag in it."""
    obstacles: np.ndarray | None = None
    """`[C, 3]`: x, y and radius of cylinders, drawn translucent."""


class OffscreenRenderer:
    """Draws the robot into arrays. Several may live in a process; `close` may be called twice.

    Args:
        config: the model; `visuals` is switched on here. None: the default model.
        width: pixels.
        height: pixels.
        camera: a camera of the model by name or index; None or -1: the following camera.
        view: where the following camera stands.
        smoothing: share of its lag behind the root that the following camera keeps at each
            frame, in [0, 1); 0 follows exactly, and equal calls give equal pictures.
        antialias: smooth edges, at twice the time of a software renderer.
        shadows: draw shadows, at twice the time of a software renderer.

    Raises:
        BackendUnavailable: no OpenGL that works without a display.
        ConfigError: a size, camera or smoothing outside what is allowed.
    """

    def __init__(
        self,
        config: mjcf.ModelConfig | None = None,
        *,
        width: int = 640,
        height: int = 480,
        camera: str | int | None = None,
        view: View = View(),
        smoothing: float = 0.0,
        antialias: bool = True,
        shadows: bool = True,
    ) -> None:
        self._context: Any = None
        self._mjr: Any = None
        for name, value in (("width", width), ("height", height)):
            if not 1 <= value <= 8192:
                raise ConfigError(f"{name} is {value}, expected 1 to 8192 pixels.")
        if not 0.0 <= smoothing < 1.0:
            raise ConfigError(f"smoothing is {smoothing}, expected 0 or more and below 1.")
        self.width, self.height = int(width), int(height)
        self._robot = _Robot(config, view, smoothing)
        model = self._robot.model
        self._fixed_camera = _camera_id(model, camera)
        # The frame buffer is made in exactly the picture's size, whatever the model asks for.
        model.vis.global_.offwidth, model.vis.global_.offheight = self.width, self.height
        if not antialias:
            model.vis.quality.offsamples = 0
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._rect = mujoco.MjrRect(0, 0, self.width, self.height)
        self._context, self._mjr = _open_context(model, self.width, self.height)

    def render(
        self, qpos: np.ndarray, ghost_qpos: np.ndarray | None = None, decor: Decor | None = None
    ) -> np.ndarray:
        """The picture. `[H, W, 3]` uint8, a new array.

        Args:
            qpos: `[36]`, the robot.
            ghost_qpos: `[36]`, drawn translucent; None: no ghost.
            decor: what else is shown.
        """
        self._draw(qpos, ghost_qpos, decor)
        pixels = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._mjr)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL counts rows from below

    def depth(
        self, qpos: np.ndarray, ghost_qpos: np.ndarray | None = None, decor: Decor | None = None
    ) -> np.ndarray:
        """Distance of what each pixel shows, along the direction of view, m. `[H, W]` float32.

        Where only the sky is seen it is the far clipping distance, `far`.
        """
        # Colours are not wanted, and without blending the ghost has a depth as solid things have.
        flags = self._scene.flags.copy()
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            self._draw(qpos, ghost_qpos, decor)
        finally:
            self._scene.flags[:] = flags
        buffer = np.empty((self.height, self.width), np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rect, self._mjr)
        # The buffer holds 1 at the near plane and 0 at the far one, linear in 1 / distance.
        near = self._robot.model.vis.map.znear * self._robot.model.stat.extent
        inverse = buffer[::-1].astype(np.float64) * (1.0 / near - 1.0 / self.far) + 1.0 / self.far
        return (1.0 / inverse).astype(np.float32)

    @property
    def far(self) -> float:
        """Far clipping distance, m."""
        return float(self._robot.model.vis.map.zfar * self._robot.model.stat.extent)

    def close(self) -> None:
        """Free what OpenGL holds. Nothing can be rendered afterwards."""
        context, self._context = self._context, None
        mjr, self._mjr = self._mjr, None
        if mjr is not None:
            with _current(context):
                mjr.free()
        if context is not None:
            context.free()

    def __enter__(self) -> OffscreenRenderer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _draw(self, qpos: np.ndarray, ghost_qpos: np.ndarray | None, decor: Decor | None) -> None:
        if self._mjr is None:
            raise ConfigError("The renderer is closed; make a new one to render again.")
        self._robot.pose(qpos)
        if self._fixed_camera is None:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            self._robot.aim(self._camera)
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = self._fixed_camera
        # The endless ground is laid out around the camera where it was: tell where it is first.
        mujoco.mjv_updateCamera(self._robot.model, self._robot.data, self._camera, self._scene)
        mujoco.mjv_updateScene(
            self._robot.model, self._robot.data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        if ghost_qpos is not None:
            self._robot.add_ghost(ghost_qpos, self._option, self._scene)
        if decor is not None:
            _add_decor(decor, self._scene)
        self._context.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        mujoco.mjr_render(self._rect, self._scene, self._mjr)


class HumanViewer:
    """MuJoCo's window, showing what `sync` last gave it. It neither simulates nor keeps time.

    The camera moves with the root and otherwise stays under the user's mouse.

    Args:
        config: the model; `visuals` is switched on here. None: the default model.
        view: where the camera starts.
        on_key: called with GLFW's code of each key that is pressed, in the window's thread.

    Raises:
        BackendUnavailable: no display, or no window can be opened on it.
    """

    def __init__(
        self, config: mjcf.ModelConfig | None = None, *, view: View = View(),
        on_key: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        self._handle: Any = None
        _check_window_system()
        import mujoco.viewer

        self._robot = _Robot(config, view, smoothing=0.9)
        self._option = mujoco.MjvOption()
        others = set(threading.enumerate())
        try:
            self._handle = mujoco.viewer.launch_passive(
                self._robot.model, self._robot.data, key_callback=on_key, show_left_ui=False,
                show_right_ui=False,
            )  # fmt: skip
        except RuntimeError as error:  # macOS outside mjpython
            raise BackendUnavailable(f"The viewer cannot be opened: {error}.") from error
        self._threads = set(threading.enumerate()) - others
        self._lookat: np.ndarray | None = None
        # Python ends by shutting GLFW down; a window still drawing then crashes the process.
        atexit.register(self.close)

    def sync(
        self, qpos: np.ndarray, ghost_qpos: np.ndarray | None = None, decor: Decor | None = None
    ) -> None:
        """Show a configuration `[36]`, and ghost and decor if given; no-op in a shut window."""
        if not self.is_running():
            return
        with self._handle.lock():
            self._robot.pose(qpos)
            camera = mujoco.MjvCamera()
            self._robot.aim(camera)
            if self._lookat is None:
                self._handle.cam.distance = camera.distance
                self._handle.cam.azimuth = camera.azimuth
                self._handle.cam.elevation = camera.elevation
                self._handle.cam.lookat[:] = camera.lookat
            else:
                self._handle.cam.lookat[:] += camera.lookat - self._lookat
            self._lookat = camera.lookat.copy()
            self._handle.user_scn.ngeom = 0
            if ghost_qpos is not None:
                self._robot.add_ghost(ghost_qpos, self._option, self._handle.user_scn)
            if decor is not None:
                _add_decor(decor, self._handle.user_scn)
        self._handle.sync()

    def is_running(self) -> bool:
        """False once the user has shut the window or `close` was called."""
        return self._handle is not None and self._handle.is_running()

    def close(self) -> None:
        """Shut the window; may be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()
            for thread in self._threads:  # the window is gone when they end, not before
                thread.join(timeout=60.0)
            atexit.unregister(self.close)

    def __enter__(self) -> HumanViewer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def has_display() -> bool:
    """Whether a window could be opened, as far as the environment tells."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class _Robot:
    """The model to draw, the robot's and the ghost's configuration, and the point looked at."""

    def __init__(self, config: mjcf.ModelConfig | None, view: View, smoothing: float) -> None:
        self.model = mjcf.compile_model(replace(config or mjcf.ModelConfig(), visuals=True))
        self.data = mujoco.MjData(self.model)
        self._ghost = mujoco.MjData(self.model)
        self._perturbation = mujoco.MjvPerturb()
        self._view, self._smoothing = view, smoothing
        self._lookat: np.ndarray | None = None

    def pose(self, qpos: np.ndarray) -> None:
        _set_pose(self.model, self.data, qpos, "qpos")

    def aim(self, camera: mujoco.MjvCamera) -> None:
        """Point a free camera at the root as the view says."""
        target = np.array([self.data.qpos[0], self.data.qpos[1], self._view.height])
        # A robot that is put elsewhere (a reset) is not chased across the ground.
        if self._lookat is None or not np.linalg.norm(target - self._lookat) < 1.0:
            self._lookat = target
        self._lookat = target + self._smoothing * (self._lookat - target)
        camera.lookat[:] = self._lookat
        camera.distance = self._view.distance
        camera.azimuth, camera.elevation = self._view.azimuth, self._view.elevation

    def add_ghost(self, qpos: np.ndarray, option: mujoco.MjvOption, scene: mujoco.MjvScene) -> None:
        """Append the same robot in another configuration, in the ghost's colour."""
        _set_pose(self.model, self._ghost, qpos, "ghost_qpos")
        first = scene.ngeom
        mujoco.mjv_addGeoms(
            self.model, self._ghost, option, self._perturbation,
            mujoco.mjtCatBit.mjCAT_DYNAMIC, scene,
        )  # fmt: skip
        for geom in scene.geoms[first : scene.ngeom]:
            geom.rgba[:] = GHOST_RGBA
            geom.size[:] *= _GHOST_SIZE
            geom.matid, geom.texcoord = -1, 0
            geom.emission, geom.specular, geom.shininess = 0.1, 0.1, 0.2


def _add_decor(decor: Decor, scene: mujoco.MjvScene) -> None:
    """Append the shapes of the decor, as far as the scene has room."""
    shape = mujoco.mjtGeom

    def between(kind: int, width: float, rgba: Sequence[float], start: Any, end: Any) -> None:
        if scene.ngeom < scene.maxgeom:
            geom = scene.geoms[scene.ngeom]
            scene.ngeom += 1
            _init_geom(geom, kind, rgba)
            mujoco.mjv_connector(
                geom, kind, width, np.asarray(start, float), np.asarray(end, float)
            )

    if decor.obstacles is not None:
        for x, y, radius in decor.obstacles:
            foot, top = (x, y, 0.0), (x, y, _OBSTACLE_HEIGHT)
            between(shape.mjGEOM_CYLINDER, radius, _OBSTACLE_RGBA, foot, top)
    if decor.goal is not None:
        x, y, radius = decor.goal
        between(shape.mjGEOM_CYLINDER, radius, _GOAL_RGBA, (x, y, 0.0), (x, y, 0.01))
        between(shape.mjGEOM_CYLINDER, 0.012, _GOAL_RGBA, (x, y, 0.0), (x, y, 1.0))
        # The flag is a drum, the same from every side.
        between(shape.mjGEOM_CYLINDER, 0.08, _GOAL_RGBA, (x, y, 0.85), (x, y, 1.0))
    if decor.arrow is not None and np.ptp(decor.arrow, 0).max() > 0.01:  # m; shorter has no way
        between(shape.mjGEOM_ARROW, 0.03, _ARROW_RGBA, *decor.arrow)
    if decor.path is not None:
        points = np.column_stack([decor.path, np.full(len(decor.path), 0.01)])
        for start, end in itertools.pairwise(points):
            if np.ptp([start, end], 0).max() > 1e-4:
                between(shape.mjGEOM_CAPSULE, 0.012, _PATH_RGBA, start, end)


def _init_geom(geom: mujoco.MjvGeom, kind: int, rgba: Sequence[float]) -> None:
    mujoco.mjv_initGeom(
        geom, kind, np.zeros(3), np.zeros(3), np.eye(3).ravel(), np.array(rgba, np.float32)
    )
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR


def _set_pose(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, name: str) -> None:
    qpos = np.asarray(qpos, float)
    if qpos.shape != (model.nq,):
        raise ConfigError(f"{name} has shape {qpos.shape}, expected ({model.nq},) for robot g1.")
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)  # the lamp and the camera of the model follow the centre of mass
    mujoco.mj_camlight(model, data)


def _camera_id(model: mujoco.MjModel, camera: str | int | None) -> int | None:
    """Index of a camera of the model; None is the following camera."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str):
        if camera not in names:
            raise ConfigError(unknown_name("camera", camera, names))
        return names.index(camera)
    if camera is None or camera == -1:
        return None
    if not 0 <= camera < len(names):
        raise ConfigError(f"camera is {camera}, expected -1 to {len(names) - 1}.")
    return int(camera)


@contextlib.contextmanager
def _current(context: Any) -> Iterator[None]:
    """The context is current inside; MuJoCo 4 gives way to the one before again, 3.12 does not."""
    if hasattr(context, "as_current"):
        with context.as_current():
            yield
    else:
        context.make_current()
        yield


def _open_context(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, Any]:
    """An OpenGL context and MuJoCo's resources in it, current when this returns."""
    wanted = os.environ.get("MUJOCO_GL", GL_REFUSED[0] if GL_REFUSED else "").lower().strip()
    context = _context_class(wanted)(width, height)
    try:
        context.make_current()
        mjr = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mjr.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
    except (mujoco.FatalError, RuntimeError) as error:
        context.free()
        raise BackendUnavailable(
            f"OpenGL failed while making a picture's buffer: {error}."
        ) from error
    return context, mjr


@functools.cache
def _context_class(wanted: str) -> type:
    """The context class of `MUJOCO_GL` or, where that is unset, of the first OpenGL that works."""
    if wanted:
        name = "glfw" if wanted in _GLFW_NAMES else wanted
        if name not in _CONTEXT_MODULES:
            raise ConfigError(
                f"MUJOCO_GL is '{wanted}', with which no picture can be made; unset it, or set it "
                "to egl, osmesa or glfw."
            )
        candidates = [name]
    elif sys.platform.startswith("linux"):
        candidates = ["egl", "osmesa"] + (["glfw"] if has_display() else [])
    else:
        candidates = ["cgl", "glfw"] if sys.platform == "darwin" else ["glfw"]
    failures = []
    for name in candidates:
        try:
            return _working_context_class(name)
        except Exception as error:  # drivers fail in their own ways: any is a reason to go on
            failures.append(f"{name}: {_first_line(error)}")
    forced = f" as MUJOCO_GL={wanted} asks" if wanted else ""
    raise BackendUnavailable(
        f"No OpenGL to draw without a display{forced} ({'; '.join(failures)}); on Debian or Ubuntu "
        "install it with: apt-get install libegl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)."
    )


def _working_context_class(name: str) -> type:
    """Import the class and prove it on a small context."""
    if name == "egl":
        _probe_egl()
    context_class = importlib.import_module(_CONTEXT_MODULES[name]).GLContext
    context = context_class(16, 16)
    try:
        context.make_current()
        tiny = mujoco.MjModel.from_xml_string("<mujoco/>")
        mujoco.MjrContext(tiny, mujoco.mjtFontScale.mjFONTSCALE_100).free()
    finally:
        context.free()
    return context_class


def _probe_egl() -> None:
    """Raise unless a device can be opened through EGL.

    Asked of the library itself, loaded for this module alone: PyOpenGL settles on one platform when
    it is imported and MuJoCo on the first whose library the whole process sees, so that once
    `mujoco.egl` was imported there is no way back to OSMesa.
    """
    library = ctypes.CDLL("libEGL.so.1")  # an OSError names what is missing
    library.eglGetProcAddress.restype = ctypes.c_void_p
    library.eglGetProcAddress.argtypes = [ctypes.c_char_p]

    def function(symbol: str, result: Any, *arguments: Any) -> Any:
        address = library.eglGetProcAddress(symbol.encode())
        if not address:
            raise RuntimeError(f"{symbol} is missing")
        return ctypes.CFUNCTYPE(result, *arguments)(address)

    pointer, integer = ctypes.c_void_p, ctypes.c_int
    devices, count = (pointer * 16)(), integer(0)
    query = function("eglQueryDevicesEXT", ctypes.c_uint, integer, pointer, pointer)
    if not query(16, ctypes.addressof(devices), ctypes.addressof(count)) or count.value == 0:
        raise RuntimeError("no device")
    platform_display = function(
        "eglGetPlatformDisplayEXT", pointer, ctypes.c_uint, pointer, pointer
    )
    initialize = function("eglInitialize", ctypes.c_uint, pointer, pointer, pointer)
    for device in devices[: count.value]:
        display = platform_display(0x313F, device, None)  # EGL_PLATFORM_DEVICE_EXT
        # Not terminated again: displays are shared, and somebody else here may draw on this one.
        if display and initialize(display, None, None):
            return
    raise RuntimeError(f"none of {count.value} devices can be opened")


def _check_window_system() -> None:
    """Raise unless a window can be opened. MuJoCo's viewer would wait for ever where none can."""
    advice = "record instead: render_mode='rgb_array', or tools/replay.py --video out.mp4"
    if not has_display():
        raise BackendUnavailable(
            f"A viewer needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; {advice}."
        )
    try:
        import glfw
        import mujoco.viewer  # noqa: F401 (it refuses a glfw without its library)
    except (ImportError, RuntimeError) as error:  # no glfw package, or one without its library
        raise BackendUnavailable(f"The viewer cannot be loaded: {_first_line(error)}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glfw reports errors as warnings; here: a sentence
        usable = bool(glfw.init())
    if not usable:
        raise BackendUnavailable(
            f"No window can be opened on the display '{os.environ.get('DISPLAY', '')}'; {advice}."
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
