"""The G1 on a page in the browser, served on loopback through viser (extra `web`).

`Page` is a scene: robot, ghost, feet that touch the floor, what a task shows (`Decor`). Like the
window of `mujoco_render` it draws configurations `qpos [36]` and does not simulate. Panels are the
caller's: `page.server.gui` is viser's.

The robot stays in the middle and the world moves under it, so that turning the view by hand and
following the robot do not get into each other's way.

The server answers on 127.0.0.1 alone, and viser's offer to share a page through a relay on the
internet is switched off. Whoever can open local ports on this machine can use the page. Pages from
elsewhere in the same browser cannot: `Guard` lets in what was asked of this machine by a page of
this server, and of that only what a panel sends.
"""

from __future__ import annotations

import contextlib
import functools
import html
import http
import io
import math
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import mujoco
import numpy as np

from bm_envs.backends.mujoco_render import GHOST_RGBA, Decor, View
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.robots import g1, kinematics, mjcf
from bm_envs.rotations import quat_yaw

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
FIELD_OF_VIEW = 42.0  # degrees up and down, that of the model's own view
FOLLOW = 0.2  # share of its way to the robot that the point looked at goes at each picture
GHOST_OPACITY = 0.28
TOUCH_N = 1.0  # force on a foot from which on it touches the floor; the robot weighs 330 N
CONTACT_RGB, GHOST_CONTACT_RGB = (255, 140, 0), (10, 150, 60)
PATH_RGB, ARROW_RGB = (242, 204, 26), (230, 90, 13)
GOAL_RGB, OBSTACLE_RGB = (204, 26, 115), (115, 51, 153)
OBSTACLE_HEIGHT = 1.2  # m, as in the window
_SIDES = 20  # of what is round

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")  # of this machine, in a request's `Host`
LARGEST_MESSAGE = 65_536  # bytes; a panel's messages have some hundred
LONGEST_TEXT = 1000  # characters of a text field
LARGEST_NUMBER = 1e9  # of anything

Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices `[V, 3]`, m, and triangles `[F, 3]` that turn to the left as seen from outside."""


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
        self.model = mjcf.compile_model(replace(config or mjcf.ModelConfig(), visuals=True))
        self._data = mujoco.MjData(self.model)
        self._view, self.follow = view, True
        self._lookat: np.ndarray | None = None
        self._decor: dict[str, Any] = {}
        self._drawn: dict[str, bytes] = {}

        class Server(viser.ViserServer):
            def request_share_url(self, verbose: bool = True) -> str | None:
                return None  # a page on loopback is not passed on, whatever a client asks for

        self.guard = Guard()
        with contextlib.redirect_stdout(io.StringIO()):  # its banner; ours is a line
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
        """Where the viewer looks over the ground, deg: the one who came last, else the start's."""
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
        ellipse = _transformed(_revolved([[(0, 0), (1, 0), (1, 1), (0, 1)]]), (0.115, 0.05, 0.006))
        for name, rgb in (("robot", CONTACT_RGB), ("ghost", GHOST_CONTACT_RGB)):
            root = scene.add_frame(f"/world/{name}", show_axes=False)
            if name == "ghost":
                self._ghost = root
                root.visible = False
            self._frames[name] = [
                scene.add_frame(f"/world/{name}/{body}", show_axes=False) for body in g1.BODY_NAMES
            ]
            self._patches[name] = [
                scene.add_mesh_simple(
                    f"/world/{name}_{body}_on_floor", *ellipse, color=rgb, cast_shadow=False,
                    visible=False, opacity=1.0 if name == "robot" else 0.6,
                )
                for body in g1.FOOT_BODIES
            ]  # fmt: skip
        for body, parts in body_meshes(self.model).items():
            for number, (rgb, mesh) in enumerate(parts):
                scene.add_mesh_simple(f"/world/robot/{body}/{number}", *mesh, color=rgb)
            whole = joined([mesh for _, mesh in parts])
            scene.add_mesh_simple(
                f"/world/ghost/{body}/0", *whole, color=_rgb(GHOST_RGBA), opacity=GHOST_OPACITY,
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
        soles = kinematics.sole_points(pos[None], quat[None])[0].mean(1)
        height = 0.001 if name == "robot" else 0.003
        for patch, sole, body, touches in zip(
            self._patches[name], soles, kinematics.FOOT_INDICES, feet, strict=True
        ):
            patch.visible = bool(touches)
            if touches:
                half = quat_yaw(quat[body]) / 2
                patch.position = (sole[0], sole[1], height)
                patch.wxyz = (math.cos(half), 0.0, 0.0, math.sin(half))
        if name == "robot":
            self._root = qpos[:2].copy()

    def _look(self) -> None:
        """Put the robot, or where it was when following ended, in the middle."""
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
            """Whether it is to be drawn anew, and take away what there was if so."""
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


class Guard:
    """What a page's server lets in.

    A browser tells with a websocket which page opened it (`Origin`), and with every request under
    which name it found the server (`Host`). Both must be this machine's, and the same. So no page
    from elsewhere opens a socket, nor one whose name was made to point here (DNS rebinding).
    Programs that are no browsers send no `Origin`; they are on this machine already. Any port is
    right, since ports are forwarded (`ssh -L 9000:localhost:8080`).

    Of what comes through a socket, messages of a panel are passed on whose values are of the kind
    of the elements they change. All others are dropped.

    Attributes:
        refused: connections and requests that were answered with 403.
        dropped: messages that were not passed on.
        elements: of the panel, by their identifiers.
        on_duty: whether a server was started under it.
    """

    def __init__(self) -> None:
        self.refused = self.dropped = 0
        self.elements: dict[str, Any] = {}
        self.on_duty = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The server that viser starts meanwhile asks this guard; it has no way in of its own."""
        import websockets.asyncio.server as module

        with _STARTING:
            serve = module.serve
            module.serve = functools.partial(self._serve, serve)  # type: ignore[misc]
            try:
                yield
            finally:
                module.serve = serve  # type: ignore[misc]

    def _serve(
        self, serve: Any, handler: Any, *where: Any, process_request: Any, **how: Any
    ) -> Any:
        self.on_duty = True

        async def watched(connection: Any) -> None:
            receive = connection.recv

            async def recv() -> bytes:
                while not self.understands(message := await receive()):
                    self.dropped += 1
                return message

            connection.recv = recv
            await handler(connection)

        def checked(connection: Any, request: Any) -> Any:
            hosts, origins = (request.headers.get_all(name) for name in ("Host", "Origin"))
            if len(hosts) == 1 and len(origins) <= 1 and is_ours(hosts[0], *origins):
                return process_request(connection, request)
            self.refused += 1
            text = "This page is for the machine that it runs on: open it as http://localhost.\n"
            return connection.respond(http.HTTPStatus.FORBIDDEN, text)

        how["max_size"] = LARGEST_MESSAGE
        return serve(watched, *where, process_request=checked, **how)

    def understands(self, raw: str | bytes) -> bool:
        """Whether a message is one to pass on."""
        import msgspec

        if isinstance(raw, str):
            return False
        try:
            message = _incoming().decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        fields = msgspec.structs.asdict(message)
        updates = fields.pop("updates", None)
        if not _is_sane(tuple(fields.values())):
            return False
        if updates is None:
            return True
        element = self.elements.get(fields["uuid"])
        return (
            element is not None and updates.keys() == {"value"}
            and is_value_of(element, updates["value"])
        )  # fmt: skip


_STARTING = threading.Lock()  # of one server at a time


def is_ours(host: str, origin: str | None = None) -> bool:
    """Whether a request was made of this machine and, if by a page, by one of the same server.

    Args:
        host: the header `Host`.
        origin: the header `Origin`; None: there is none.
    """
    try:
        name = urllib.parse.urlsplit(f"//{host}")
        name.port  # noqa: B018 (raises where it is no number)
        page = None if origin is None else urllib.parse.urlsplit(origin)
    except ValueError:
        return False
    if name.hostname not in LOCAL_NAMES or "@" in host or "/" in host:
        return False
    return page is None or (page.scheme in ("http", "https") and page.netloc == host.lower())


def is_value_of(element: Any, value: Any) -> bool:
    """Whether a panel's element can have a value: one of its kind, finite, of its choices.

    Args:
        element: one of viser's input handles.
        value: what a browser sent.
    """
    present = element.value
    if isinstance(present, bool):
        return isinstance(value, bool)
    if isinstance(present, int | float):  # the panels bring what is out of their range back into it
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_sane(value)
    if isinstance(present, str):
        options = getattr(element, "options", None)
        known = options is None or value in options
        return isinstance(value, str) and len(value) <= LONGEST_TEXT and known
    return False  # of a kind that the panels do not have


def _is_sane(value: Any) -> bool:
    """Whether numbers are finite and not beyond all bounds, and texts not long."""
    if isinstance(value, tuple | list):
        return all(map(_is_sane, value))
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return value is None or abs(value) <= LARGEST_NUMBER


@functools.cache
def _incoming() -> Any:
    """Reads what browsers send to panels: six kinds of viser's messages, by their own names."""
    import msgspec

    vector, quaternion = tuple[float, float, float], tuple[float, float, float, float]
    modifier = str | None
    kinds: dict[str, list[Any]] = {
        "ViewerCameraMessage": [
            ("wxyz", quaternion), ("position", vector), ("fov", float), ("near", float),
            ("far", float), ("image_height", int), ("image_width", int), ("look_at", vector),
            ("up_direction", vector),
        ],
        "ScenePointerMessage": [
            ("event_type", Literal["click"]), ("ray_origin", vector), ("ray_direction", vector),
            ("screen_pos", list[tuple[float, float]]), ("modifier", modifier),
        ],
        "SceneNodeClickMessage": [
            ("name", str), ("instance_index", int | None), ("ray_origin", vector),
            ("ray_direction", vector), ("screen_pos", tuple[float, float]), ("modifier", modifier),
            ("owner", str, ""),
        ],
        "GuiUpdateMessage": [("uuid", str), ("updates", dict[str, Any])],
        "GuiButtonHoldMessage": [("uuid", str), ("frequency", float)],
        "CommandTriggerMessage": [("uuid", str)],
    }  # fmt: skip
    structs = [
        msgspec.defstruct(name, fields, tag_field="type", tag=name, forbid_unknown_fields=True)
        for name, fields in kinds.items()
    ]
    union: Any = structs[0]
    for struct in structs[1:]:
        union = union | struct
    return msgspec.msgpack.Decoder(union)


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
        # As the server does it: a port on which a connection was closed a moment ago is free.
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


# --- shapes ---------------------------------------------------------------------------------------


def body_meshes(
    model: mujoco.MjModel,
) -> dict[str, list[tuple[tuple[int, int, int], Mesh]]]:
    """What is seen of each link, in its frame: colour and mesh, one of each colour it has."""
    found: dict[str, list[tuple[tuple[int, int, int], Mesh]]] = {}
    for body in g1.BODY_NAMES:
        by_colour: dict[tuple[int, int, int], list[Mesh]] = {}
        for geom in np.flatnonzero(model.geom_bodyid == model.body(body).id):
            if model.geom_group[geom] == mjcf.VISUAL_GROUP:
                material = model.geom_matid[geom]
                rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
                by_colour.setdefault(_rgb(rgba), []).append(geom_mesh(model, int(geom)))
        found[body] = [(rgb, joined(meshes)) for rgb, meshes in by_colour.items()]
    return found


def geom_mesh(model: mujoco.MjModel, geom: int) -> Mesh:
    """One shape of the model, in its link's frame."""
    shape, kind = mujoco.mjtGeom, model.geom_type[geom]
    radius, half, *_ = size = model.geom_size[geom]
    arc = np.linspace(0.0, math.pi / 2, _SIDES // 4 + 1)
    up = np.stack([np.cos(arc), np.sin(arc)], 1)  # from the equator to the pole
    down = up[::-1] * (1.0, -1.0)
    if kind == shape.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[first : first + count].astype(float)
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        found = vertices, model.mesh_face[first : first + count].astype(np.int64)
    elif kind == shape.mjGEOM_SPHERE:
        found = _transformed(_revolved([[*down, *up[1:]]]), (radius,) * 3)
    elif kind == shape.mjGEOM_ELLIPSOID:
        found = _transformed(_revolved([[*down, *up[1:]]]), tuple(size))
    elif kind == shape.mjGEOM_CAPSULE:
        found = _revolved([[*(down * radius - (0, half)), *(up * radius + (0, half))]])
    elif kind == shape.mjGEOM_CYLINDER:
        found = _revolved([
            [(0, -half), (radius, -half)], [(radius, -half), (radius, half)],
            [(radius, half), (0, half)],
        ])  # fmt: skip
    elif kind == shape.mjGEOM_BOX:
        found = _transformed(_cube(), tuple(size))
    else:
        raise ConfigError(f"geom {geom} of the model is of a kind that pages do not draw.")
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    return found[0] @ turn.reshape(3, 3).T + model.geom_pos[geom], found[1]


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    return (
        np.concatenate([vertices for vertices, _ in meshes]),
        np.concatenate([faces + start for (_, faces), start in zip(meshes, starts, strict=False)]),
    )


def _revolved(profile: Sequence[Sequence[Any]]) -> Mesh:
    """Lines of (radius, z), from bottom to top, turned about z; edges between lines are sharp."""
    angle = np.arange(_SIDES) * 2 * math.pi / _SIDES
    meshes = []
    for line in profile:
        radius, z = np.array(line, float).T
        vertices = np.stack([
            radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle),
            np.broadcast_to(z[:, None], (len(z), _SIDES)),
        ], -1).reshape(-1, 3)  # fmt: skip
        low = (np.arange(len(z) - 1)[:, None] * _SIDES + np.arange(_SIDES)).ravel()
        right = low // _SIDES * _SIDES + (low + 1) % _SIDES
        a, b, c, d = low, right, right + _SIDES, low + _SIDES
        meshes.append((vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])))
    return joined(meshes)


def _cube() -> Mesh:
    """Corners at -1 and 1, sharp edges."""
    square = np.array([[1, -1, -1], [1, 1, -1], [1, 1, 1], [1, -1, 1]], float)  # seen from +x
    sides = [np.roll(square * (sign, sign, 1), axis, 1) for axis in range(3) for sign in (1, -1)]
    quad = np.array([[0, 1, 2], [0, 2, 3]])
    return joined([(side, quad) for side in sides])


def _transformed(mesh: Mesh, scale: tuple[float, ...]) -> Mesh:
    return mesh[0] * scale, mesh[1]


def _rgb(rgba: Sequence[float]) -> tuple[int, int, int]:
    r, g, b = (round(255 * float(value)) for value in rgba[:3])
    return r, g, b


# --- panels ---------------------------------------------------------------------------------------


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as HTML; their text is shown as it is."""
    cells = "".join(
        f"<tr><td style='color:#868e96;padding-right:0.8em;white-space:nowrap'>{html.escape(name)}"
        f"</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table style='font-size:0.85em;margin:0.2em 0.75em;line-height:1.45'>{cells}</table>"


_PAD = """<style>body{margin:0;font:12px sans-serif;color:#868e96;overflow:hidden;white-space:nowrap}
</style><body>no gamepad: press a button on it<script>
let told = "";
function field() {
  for (let e = window.frameElement; e; e = e.parentElement) {
    const found = e.querySelector("input");
    if (found) return found;
  }
}
const write = Object.getOwnPropertyDescriptor(parent.HTMLInputElement.prototype, "value").set;
setInterval(() => {
  const pad = [...parent.navigator.getGamepads()].find((p) => p && p.connected);
  const number = (value) => (value || 0).toFixed(2);
  const pressed = (sum, i) => sum + (pad.buttons[i]?.pressed ? 1 << i : 0);
  const text = pad ? `${number(pad.axes[0])} ${number(pad.axes[1])} ${[0, 1, 2, 3].reduce(pressed, 0)}` : "";
  if (text === told) return;
  const input = field();
  if (!input) return;
  document.body.firstChild.data = pad ? pad.id : "the gamepad is gone";
  write.call(input, told = text);
  input.dispatchEvent(new parent.Event("input", {bubbles: true}));
}, 50);
</script>"""  # noqa: E501


class PageGamepad:
    """A gamepad at the browser, by its Gamepad API.

    viser runs no script of ours, but a frame inside its page may; it writes what it reads into a
    text field, whose changes viser reports.
    """

    def __init__(self, page: Page) -> None:
        """Two elements in the panel."""
        gui = page.server.gui
        self._state: tuple[tuple[float, float], int] | None = None
        with gui.add_folder("gamepad"):
            text = gui.add_text("stick, buttons", "")
            gui.add_html(
                f'<iframe title="gamepad" srcdoc="{html.escape(_PAD)}" '
                'style="border:0;width:94%;height:1.5em;margin:0 0.75em"></iframe>'
            )

        @text.on_update
        async def _(event: Any) -> None:
            self._state = parse_gamepad(text.value)

        @page.server.on_client_disconnect
        def _(client: Any) -> None:
            self._state = None  # a stick that was held when the page was shut is let go of

    def read(self) -> tuple[tuple[float, float], int] | None:
        """The left stick, right and down in [-1, 1], and a bit for each of the first 4 buttons."""
        return self._state


def parse_gamepad(text: str) -> tuple[tuple[float, float], int] | None:
    """What a page reports of its gamepad; None where it is malformed."""
    found = re.fullmatch(r"(-?[01]\.\d\d) (-?[01]\.\d\d) (\d{1,2})", text)
    if not found:
        return None
    x, y = (min(max(float(word), -1.0), 1.0) for word in found.groups()[:2])
    return (x, y), int(found[3]) & 0b1111


def timeline(
    seconds: np.ndarray, curve: np.ndarray | None, bars: Sequence[tuple[str, str, np.ndarray]],
    now_s: float, unit: str = "",
) -> str:  # fmt: skip
    """A curve over time and below it bars of when something holds, as HTML.

    Args:
        seconds: `[T]`, ascending from 0.
        curve: `[R]`, R <= T, of the first frames; None: there is none.
        bars: a name, a colour and `[R]` bool each.
        now_s: where the line of the present is.
        unit: of the curve.
    """
    width, left, high = 280.0, 26.0, 62.0 if curve is not None else 0.0
    total = max(float(seconds[-1]), 1e-9)
    row = 11.0

    def x(second: float) -> float:
        return left + (width - left) * min(second, total) / total

    parts: list[str] = []
    if curve is not None and len(curve):
        top = max(float(np.nanmax(curve)), 1e-9)
        # No more points than can be seen apart, each the worst of its share.
        step = -(-len(curve) // 240)
        worst = [float(curve[i : i + step].max()) for i in range(0, len(curve), step)]
        points = " ".join(
            f"{x(float(seconds[i * step])):.1f},{high - (high - 12) * value / top:.1f}"
            for i, value in enumerate(worst)
        )
        parts.append(
            f"<text x='0' y='9'>{top:.0f} {html.escape(unit)}</text><text x='0' y='{high}'>0</text>"
            f"<polyline points='{points}' fill='none' stroke='#1073e6' stroke-width='1.2'/>"
        )
    for number, (name, colour, values) in enumerate(bars):
        y = high + 5 + number * row
        parts.append(f"<text x='0' y='{y + 8}'>{html.escape(name)}</text>")
        for first, last in _runs(values):
            begin, end = x(float(seconds[first])), x(float(seconds[last]))
            parts.append(
                f"<rect x='{begin:.1f}' y='{y}' width='{max(end - begin, 0.5):.1f}' "
                f"height='{row - 3}' fill='{colour}'/>"
            )
    height = high + 5 + len(bars) * row
    parts.append(
        f"<line x1='{x(now_s):.1f}' x2='{x(now_s):.1f}' y1='0' y2='{height}' stroke='#e03131'/>"
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' style='width:94%;margin:0 3%;font:9px sans-serif;"
        f"fill:#868e96'>{''.join(parts)}</svg>"
    )


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last index of each stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    for first, end in edges.reshape(-1, 2):
        yield int(first), int(end) - 1
