"""Pictures of the G1 as arrays, of which videos are made.

OpenGL without a display: MuJoCo settles on an OpenGL from `MUJOCO_GL` when it is imported, and on
one that needs a display where that is unset. Here the choice is made when the first picture is
wanted: `MUJOCO_GL` if set, else the first that works of EGL (graphics driver or Mesa) and OSMesa.

Speed, 640 x 480, Mesa's software renderer on two busy cores: about 0.2 s a picture, 0.1 s without
antialiasing, 0.05 s also without shadows.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import GL_REFUSED, BackendUnavailable, ConfigError, unknown_name
from bm_envs.robots import mjcf
from bm_envs.viewers.scene import Decor, DrawnRobot, View, add_decor
from bm_envs.viewers.window import first_line, has_display

_MAX_GEOMS = 1000  # the robot and its ghost are about 200
_CONTEXT_MODULES = {
    "egl": "mujoco.egl",
    "osmesa": "mujoco.osmesa",
    "glfw": "mujoco.glfw",
    "cgl": "mujoco.cgl",
}
# Values of MUJOCO_GL that mean the same to MuJoCo as the one of the window system.
_GLFW_NAMES = ("glx", "wgl", "enable", "enabled", "on", "true", "1")


CAMERA_LAG = 0.3  # s, time constant of a following camera in a video


def camera_smoothing(fps: float) -> float:
    """`OffscreenRenderer`'s `smoothing` of a video with so many pictures a second."""
    return float(np.exp(-1 / (fps * CAMERA_LAG)))


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
        self._robot = DrawnRobot(config, view, smoothing)
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
        # With segment colours nothing is blended, so that the ghost has a depth, too.
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
        # The endless ground is laid out around the camera, so that the camera is set first.
        mujoco.mjv_updateCamera(self._robot.model, self._robot.data, self._camera, self._scene)
        mujoco.mjv_updateScene(
            self._robot.model, self._robot.data, self._option, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        if ghost_qpos is not None:
            self._robot.add_ghost(ghost_qpos, self._option, self._scene)
        if decor is not None:
            add_decor(decor, self._scene)
        self._context.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        mujoco.mjr_render(self._rect, self._scene, self._mjr)


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
    """Make the context current; MuJoCo 4 restores the one before afterwards, 3.12 does not."""
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
    """The context class of `MUJOCO_GL` or, if that is unset, of the first OpenGL that works."""
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
        except Exception as error:  # drivers fail in many ways; after any of them the next is tried
            failures.append(f"{name}: {first_line(error)}")
    forced = f" as MUJOCO_GL={wanted} asks" if wanted else ""
    raise BackendUnavailable(
        f"No OpenGL to draw without a display{forced} ({'; '.join(failures)}); on Debian or Ubuntu "
        "install it with: apt-get install libegl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)."
    )


def _working_context_class(name: str) -> type:
    """Import the class and try it on a small context."""
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
        # The display is not terminated: displays are shared, and other code may draw on this one.
        if display and initialize(display, None, None):
            return
    raise RuntimeError(f"none of {count.value} devices can be opened")
