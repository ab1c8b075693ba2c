"""The G1 on a page in the browser, served on loopback through viser (extra `web`).

`Page` is a scene: robot, ghost, feet that touch the floor, what a task shows (`Decor`). Like the
window it draws configurations `qpos [36]` and does not simulate. Panels are the
caller's: `page.server.gui` is viser's.

The robot stays in the middle and the world moves under it, so that turning the view by hand and
following the robot do not get into each other's way.

The server answers on 127.0.0.1 alone, and viser's offer to share a page through a relay on the
internet is switched off. Whoever can open local ports on this machine can use the page. Pages from
elsewhere in the same browser cannot: `guard` lets in what was asked of this machine by a page of
this server, and of that only what a panel sends.
"""

from __future__ import annotations

import contextlib
import io
import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import kinematics, mjcf
from bm_envs.rotations import quat_yaw
from bm_envs.viewers.guard import Guard
from bm_envs.viewers.meshes import body_meshes, joined, revolved, rgb_of, transformed
from bm_envs.viewers.scene import GHOST_RGBA, Decor, View

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
FIELD_OF_VIEW = 42.0  # vertical, deg; the same as in the model
FOLLOW = 0.2  # share of the way to the robot by which the point looked at moves at each picture
GHOST_OPACITY = 0.28
TOUCH_N = 1.0  # N, least force of a foot that touches the floor; the robot weighs 330 N
CONTACT_RGB, GHOST_CONTACT_RGB = (255, 140, 0), (10, 150, 60)
PATH_RGB, ARROW_RGB = (242, 204, 26), (230, 90, 13)
GOAL_RGB, OBSTACLE_RGB = (204, 26, 115), (115, 51, 153)
OBSTACLE_HEIGHT = 1.2  # m, as in the window


class Page:
    """A server with a scene. It runs until `close`, which may be called twice.

    Attributes:
        server: viser's `ViserServer`.
        port: that the page is on.
        guard: who and what is let in, and how much was not.
        follow: whether the robot stays in the middle.

    Args:
        config: the model; `visuals` is switched on here. None: the default model.
        port: on loopback; 0: any that is free.
        title: of the panel.
        view: where the camera starts.

    Raises:
        BackendUnavailable: viser is not installed.
        ConfigError: a port that is none, or is taken.
    """

    def __init__(
        self, config: mjcf.ModelConfig | None = None, *, port: int = DEFAULT_PORT,
        title: str = "bm-envs", view: View = View(),
    ) -> None:  # fmt: skip
        self._closed = True
        viser = check(port)
        config = config or mjcf.ModelConfig()
        self.robot = config.table
        self.model = mjcf.compile_model(replace(config, visuals=True))
        self._data = mujoco.MjData(self.model)
        self._view, self.follow = view, True
        self._lookat: np.ndarray | None = None
        self._decor: dict[str, Any] = {}
        self._drawn: dict[str, bytes] = {}

        class Server(viser.ViserServer):
            def request_share_url(self, verbose: bool = True) -> str | None:
                return None  # a page on loopback is not passed on, whatever a client asks for

        self.guard = Guard()
        with contextlib.redirect_stdout(io.StringIO()):  # viser prints a banner, we print one line
            with self.guard.watching():
                self.server: Any = Server(host=HOST, port=port, label=title, verbose=False)
        self._closed = False
        self.guard.elements = self.server.gui._gui_input_handle_from_uuid
        if not self.guard.on_duty:
            self.close()
            raise BackendUnavailable(
                f"viser {viser.__version__} serves in a way that this package does not know how to "
                "guard, install 1.1.1."
            )
        self.port = int(self.server.get_port())
        if port not in (0, self.port):  # taken since it was looked at: viser goes on to the next
            self.close()
            raise ConfigError(_taken(port))
        self._build()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def show(
        self, qpos: np.ndarray, ghost_qpos: np.ndarray | None = None, decor: Decor | None = None,
        *, feet: Sequence[bool] = (False, False), ghost_feet: Sequence[bool] = (False, False),
    ) -> None:  # fmt: skip
        """Draw.

        Args:
            qpos: the robot. `[36]`.
            ghost_qpos: the ghost; None hides it. `[36]`.
            decor: what a task shows beside the robot.
            feet: whether the robot's left and right foot touch the floor: a patch under each.
            ghost_feet: the same of the ghost.
        """
        with self.server.atomic():
            self._place("robot", qpos, feet)
            self._look()
            self._ghost.visible = ghost_qpos is not None
            if ghost_qpos is not None:
                self._place("ghost", ghost_qpos, ghost_feet)
            else:
                for patch in self._patches["ghost"]:
                    patch.visible = False
            self._decorate(decor or Decor())

    @property
    def azimuth(self) -> float:
        """Where the viewer who came last looks over the ground, deg; the start view without one."""
        clients = self.server.get_clients()
        if not clients:
            return self._view.azimuth
        camera = clients[max(clients)].camera
        x, y, _ = camera.look_at - camera.position
        return math.degrees(math.atan2(y, x))

    def on_ground(self, callback: Callable[[float, float], None]) -> None:
        """Call back with x and y, world, m, where the ground is clicked with Shift held down."""

        @self.server.scene.on_click(modifier="shift")
        def _(event: Any) -> None:
            origin, way = np.array(event.ray_origin), np.array(event.ray_direction)
            if way[2] < -1e-6:
                x, y, _ = origin - way * (origin[2] / way[2]) - self._world.position
                if math.hypot(x, y) < 1000.0:  # m; the horizon is no place
                    callback(float(x), float(y))

    def close(self) -> None:
        """Stop serving."""
        if not self._closed:
            self._closed = True
            with contextlib.redirect_stdout(io.StringIO()):
                self.server.stop()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- parts ---------------------------------------------------------------------------------

    def _build(self) -> None:
        scene, view = self.server.scene, self._view
        self.server.gui.configure_theme(
            control_layout="floating", control_width="medium", show_logo=False,
            show_share_button=False, brand_color=(16, 115, 230),
        )  # fmt: skip
        azimuth, elevation = math.radians(view.azimuth), math.radians(view.elevation)
        flat = view.distance * math.cos(elevation)
        camera = self.server.initial_camera
        camera.look_at = np.array([0.0, 0.0, view.height])
        camera.position = np.array([
            -flat * math.cos(azimuth), -flat * math.sin(azimuth),
            view.height - view.distance * math.sin(elevation),
        ])  # fmt: skip
        camera.fov = math.radians(FIELD_OF_VIEW)
        scene.world_axes.visible = False
        self._ground = scene.add_grid(
            "/ground", infinite_grid=True, cell_size=0.5, section_size=1.0, cell_thickness=0.6,
            section_thickness=1.0, cell_color=(190, 198, 204), section_color=(160, 170, 178),
            plane_color=(216, 222, 227), plane_opacity=1.0, shadow_opacity=0.35,
            fade_distance=25.0,
        )  # fmt: skip
        self._world = scene.add_frame("/world", show_axes=False)
        self._frames: dict[str, list[Any]] = {}
        self._patches: dict[str, list[Any]] = {}
        ellipse = transformed(revolved([[(0, 0), (1, 0), (1, 1), (0, 1)]]), (0.115, 0.05, 0.006))
        for name, rgb in (("robot", CONTACT_RGB), ("ghost", GHOST_CONTACT_RGB)):
            root = scene.add_frame(f"/world/{name}", show_axes=False)
            if name == "ghost":
                self._ghost = root
                root.visible = False
            self._frames[name] = [
                scene.add_frame(f"/world/{name}/{body}", show_axes=False)
                for body in self.robot.body_names
            ]
            self._patches[name] = [
                scene.add_mesh_simple(
                    f"/world/{name}_{body}_on_floor", *ellipse, color=rgb, cast_shadow=False,
                    visible=False, opacity=1.0 if name == "robot" else 0.6,
                )
                for body in self.robot.foot_bodies
            ]  # fmt: skip
        for body, parts in body_meshes(self.model).items():
            for number, (rgb, mesh) in enumerate(parts):
                scene.add_mesh_simple(f"/world/robot/{body}/{number}", *mesh, color=rgb)
            whole = joined([mesh for _, mesh in parts])
            scene.add_mesh_simple(
                f"/world/ghost/{body}/0", *whole, color=rgb_of(GHOST_RGBA), opacity=GHOST_OPACITY,
                cast_shadow=False, receive_shadow=False,
            )  # fmt: skip

    def _place(self, name: str, qpos: np.ndarray, feet: Sequence[bool]) -> None:
        qpos = np.asarray(qpos, float)
        if qpos.shape != (self.model.nq,):
            raise ConfigError(
                f"qpos of the {name} has shape {qpos.shape}, expected ({self.model.nq},)."
            )
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self._data)
        pos, quat = self._data.xpos[1:], self._data.xquat[1:]
        for frame, p, q in zip(self._frames[name], pos, quat, strict=True):
            frame.position, frame.wxyz = p, q
        soles = kinematics.sole_points(pos[None], quat[None], self.robot)[0].mean(1)
        height = 0.001 if name == "robot" else 0.003
        for patch, sole, body, touches in zip(
            self._patches[name], soles, kinematics.foot_indices(self.robot), feet, strict=True
        ):
            patch.visible = bool(touches)
            if touches:
                half = quat_yaw(quat[body]) / 2
                patch.position = (sole[0], sole[1], height)
                patch.wxyz = (math.cos(half), 0.0, 0.0, math.sin(half))
        if name == "robot":
            self._root = qpos[:2].copy()

    def _look(self) -> None:
        """Put the robot in the middle of the view, or the place where following ended."""
        if self._lookat is None or np.linalg.norm(self._root - self._lookat) > 1.0:
            if self._lookat is None or self.follow:  # put elsewhere: not chased over the ground
                self._lookat = self._root
        if self.follow:
            self._lookat = self._lookat + FOLLOW * (self._root - self._lookat)
        x, y = -self._lookat
        self._world.position = (x, y, 0.0)
        self._ground.position = (x % 1.0, y % 1.0, 0.0)  # its lines are a metre apart

    def _decorate(self, decor: Decor) -> None:
        """Draw what changed of the decor."""
        scene = self.server.scene

        def changed(name: str, value: np.ndarray | None) -> bool:
            """Whether a part has to be drawn anew; if so, the old one is removed."""
            seen = b"" if value is None else np.asarray(value, float).tobytes()
            if self._drawn.get(name, b"") == seen:
                return False
            self._drawn[name] = seen
            for handle in self._decor.pop(name, ()):
                handle.remove()
            return value is not None

        def cylinder(name: str, x: float, y: float, radius: float, low: float, high: float,
                     rgb: tuple[int, int, int], opacity: float | None = None) -> Any:  # fmt: skip
            return scene.add_cylinder(
                f"/world/{name}", radius, high - low, color=rgb, opacity=opacity,
                position=(x, y, (low + high) / 2),
            )  # fmt: skip

        if changed("goal", decor.goal) and decor.goal is not None:
            x, y, radius = (float(v) for v in decor.goal)
            self._decor["goal"] = [
                cylinder("goal/disc", x, y, radius, 0.0, 0.01, GOAL_RGB),
                cylinder("goal/pole", x, y, 0.012, 0.0, 1.0, GOAL_RGB),
                cylinder("goal/flag", x, y, 0.08, 0.85, 1.0, GOAL_RGB),
            ]
        if changed("obstacles", decor.obstacles) and decor.obstacles is not None:
            self._decor["obstacles"] = [
                cylinder(f"obstacle/{i}", float(x), float(y), float(radius), 0.0, OBSTACLE_HEIGHT,
                         OBSTACLE_RGB, 0.6)
                for i, (x, y, radius) in enumerate(decor.obstacles)
            ]  # fmt: skip
        arrow = decor.arrow
        if arrow is not None and np.ptp(arrow, 0).max() <= 0.01:  # m; shorter has no way
            arrow = None
        if changed("arrow", arrow) and arrow is not None:
            self._decor["arrow"] = [
                scene.add_arrows(
                    "/world/arrow", np.asarray(arrow, np.float32)[None], ARROW_RGB,
                    shaft_radius=0.02, head_radius=0.05, head_length=0.12,
                )
            ]  # fmt: skip
        path = decor.path if decor.path is not None and len(decor.path) > 1 else None
        if changed("path", path) and path is not None:
            points = np.column_stack([path, np.full(len(path), 0.012)]).astype(np.float32)
            self._decor["path"] = [
                scene.add_line_segments(
                    "/world/path", np.stack([points[:-1], points[1:]], 1), PATH_RGB, thickness=0.02
                )
            ]


def feet_touch(contact_force: np.ndarray) -> np.ndarray:
    """Whether the left and the right foot press on the floor. `[2]`.

    Args:
        contact_force: `[M, 3]`, N, of one robot of a `Simulator`, whose last two links are feet.
    """
    return np.linalg.norm(contact_force[-2:], axis=-1) > TOUCH_N


def check(port: int) -> Any:
    """Refuse where no page can be served, before anything is loaded for it; returns viser.

    Raises:
        BackendUnavailable: viser is not installed.
        ConfigError: the port is none, or is taken.
    """
    try:
        import viser
    except ImportError as error:
        raise BackendUnavailable(
            "A page needs the package viser: pip install 'bm-envs[web]'."
        ) from error
    if not 0 <= port <= 65535:
        raise ConfigError(f"port is {port}, expected 0 (any that is free) to 65535.")
    with socket.socket() as probe:
        # The server sets this option, too: a port whose last connection has just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise ConfigError(
                f"port {port} may not be used here, expected one of 1024 or more with --port."
            ) from None
        except OSError:
            raise ConfigError(_taken(port)) from None
    return viser


def _taken(port: int) -> str:
    return f"port {port} of {HOST} is taken; name another with --port (0: any that is free)."
