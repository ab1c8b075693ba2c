"""Pictures of the G1 in MuJoCo's window."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import BackendUnavailable
from bm_envs.robots import mjcf
from bm_envs.viewers.scene import Decor, DrawnRobot, View, add_decor


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

        self._robot = DrawnRobot(config, view, smoothing=0.9)
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
                add_decor(decor, self._handle.user_scn)
        self._handle.sync()

    def is_running(self) -> bool:
        """False once the user has shut the window or `close` was called."""
        return self._handle is not None and self._handle.is_running()

    def close(self) -> None:
        """Shut the window; may be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()
            for thread in self._threads:  # the window is closed only when they end
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
        raise BackendUnavailable(f"The viewer cannot be loaded: {first_line(error)}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glfw reports errors as warnings; here: a sentence
        usable = bool(glfw.init())
    if not usable:
        raise BackendUnavailable(
            f"No window can be opened on the display '{os.environ.get('DISPLAY', '')}'; {advice}."
        )


def first_line(error: Exception) -> str:
    """The first line of an exception's text, at most 120 characters; its class without one."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
