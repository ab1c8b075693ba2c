"""Who and what the server of a page in the browser lets in."""

from __future__ import annotations

import contextlib
import functools
import http
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any, Literal

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")  # names of this machine in a request's `Host`
LARGEST_MESSAGE = 65_536  # bytes; a panel's messages have some hundred
LONGEST_TEXT = 1000  # characters of a text field
LARGEST_NUMBER = 1e9  # bound of any number in a message


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
        """A context in which viser starts its server: that server then asks this guard.

        viser offers no other way to check its connections.
        """
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
        """Whether a message may be passed on."""
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


_STARTING = threading.Lock()  # only one server starts at a time


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
    """Whether all numbers are finite and within bounds, and all texts short."""
    if isinstance(value, tuple | list):
        return all(map(_is_sane, value))
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return value is None or abs(value) <= LARGEST_NUMBER


@functools.cache
def _incoming() -> Any:
    """Reads what browsers send to panels: six kinds of viser's messages, by viser's names."""
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
