"""`bm_envs/viewers/guard.py`: who and what a page's server lets in, asked by raw clients."""

import logging
import math
import socket
import time

import numpy as np
import page_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

msgspec = pytest.importorskip("msgspec", reason="the package viser (extra web) is not installed")
viser = pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
import websockets.exceptions  # noqa: E402
import websockets.sync.client  # noqa: E402

from bm_envs.errors import BackendUnavailable  # noqa: E402
from bm_envs.viewers import guard  # noqa: E402
from bm_envs.viewers import page as pages  # noqa: E402

CAMERA = dict(
    type="ViewerCameraMessage", wxyz=[1, 0, 0, 0], position=[0, -3, 1], fov=1.0, near=0.01,
    far=100.0, image_height=100, image_width=100, look_at=[0, 0, 1], up_direction=[0, 0, 1],
)  # fmt: skip
CLICK = dict(
    type="ScenePointerMessage", event_type="click", ray_origin=[0, 0, 2], ray_direction=[0, 0, -1],
    screen_pos=[[0.5, 0.5]], modifier="shift",
)  # fmt: skip


@pytest.fixture(scope="module")
def page():
    with pages.Page(port=0, title="test") as found:
        found.slider = found.server.gui.add_slider("speed", 0.0, 2.0, 0.05, 1.0)
        found.whole = found.server.gui.add_slider("count", 0, 5, 1, 2)
        found.choice = found.server.gui.add_dropdown("motion", ("walk", "stand"))
        found.box = found.server.gui.add_checkbox("ghost", True)
        found.text = found.server.gui.add_text("name", "")
        yield found


def connect(page, *, host=None, origin=None):
    """A socket to the page under a name of our choice."""
    return websockets.sync.client.connect(
        f"ws://{host or f'127.0.0.1:{page.port}'}/", origin=origin, compression=None, max_size=None,
        sock=socket.create_connection(("127.0.0.1", page.port)),
        subprotocols=[f"viser-v{viser.__version__}"],
    )  # fmt: skip


def ask(page, host):
    """The status of the page itself, asked for under a name."""
    with socket.create_connection(("127.0.0.1", page.port), 10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(raw.recv(4096).split()[1])


# --- who -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (None, "http://evil.example"), (None, "null"), (None, "http://127.0.0.1:1"),
        (None, "http://localhost"), (None, "file://"), (None, "chrome-extension://abcdef"),
        (None, "http://127.0.0.1:{port}.evil.example"), (None, "http://127.0.0.1:{port}@evil.example"),
        ("evil.example:{port}", None), ("evil.example", "http://evil.example"),
        ("evil.example:{port}", "http://evil.example:{port}"),
        ("localhost.evil.example:{port}", None), ("127.0.0.1.nip.io:{port}", None),
        ("10.0.0.7:{port}", "http://10.0.0.7:{port}"), ("0.0.0.0:{port}", "http://0.0.0.0:{port}"),
    ],
)  # fmt: skip
def test_others_are_refused(page, host, origin):
    host = host and host.format(port=page.port)
    before = page.guard.refused
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(page, host=host, origin=origin and origin.format(port=page.port))
    assert caught.value.response.status_code == 403
    assert b"localhost" in caught.value.response.body
    assert page.guard.refused == before + 1
    if host is not None:
        assert ask(page, host) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (None, None), (None, "http://127.0.0.1:{port}"),
        ("localhost:{port}", "http://localhost:{port}"),
        ("LOCALHOST:{port}", "http://localhost:{port}"), ("localhost:9000", "http://localhost:9000"),
        ("localhost", "https://localhost"), ("[::1]:{port}", "http://[::1]:{port}"),
    ],
)  # fmt: skip
def test_this_machine_is_let_in(page, host, origin):
    """The last ones are what forwarded ports look like."""
    host = host and host.format(port=page.port)
    before = page.guard.refused
    connect(page, host=host, origin=origin and origin.format(port=page.port)).close()
    assert page.guard.refused == before
    assert ask(page, host or "127.0.0.1") == 200


@pytest.mark.parametrize("header", ["", "Host: localhost\r\nHost: localhost\r\n"])
def test_no_name_and_two_names_are_refused(page, header):
    with socket.create_connection(("127.0.0.1", page.port), 10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\n{header}Connection: close\r\n\r\n".encode())
        assert int(raw.recv(4096).split()[1]) in (400, 403)


@given(host=st.text(max_size=30), origin=st.none() | st.text(max_size=30))
def test_whatever_stands_there_is_judged(host, origin):
    ours = guard.is_ours(host, origin)
    assert isinstance(ours, bool)
    if ours:
        assert any(name in host.lower() for name in guard.LOCAL_NAMES)


# --- what ----------------------------------------------------------------------------------------


def bad_messages(page):
    """What no panel sends, by what is wrong with it."""
    slider, whole, choice, box, text = page.slider, page.whole, page.choice, page.box, page.text

    def update(element, value, key="value"):
        uuid = element._impl.uuid
        return {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {key: value}}

    upload = dict(
        type="FileTransferStartUpload", transfer_uuid="a", source_component_uuid="b", filename="f",
        mime_type="x", part_count=1, size_bytes=10,
    )  # fmt: skip
    found = {
        "no mapping": [1, 2], "a number": 7, "nothing": None, "no type": {"uuid": "x"},
        "an unknown type": {"type": "Nonsense"}, "a type that is a list": {"type": [1]},
        "a type of the server": {"type": "RemoveSceneNodeMessage", "name": "/world"},
        "a share": {"type": "ShareUrlRequest"}, "an upload": upload,
        "an unknown element": update(slider, 1.0) | {"uuid": "x"},
        "another attribute": update(slider, [], "update_cb"),
        "no update": update(slider, 1.0) | {"updates": {}},
        "a list of updates": update(slider, 1.0) | {"updates": [1]},
        "a text for a number": update(slider, "fast"), "a NaN": update(slider, math.nan),
        "infinity": update(slider, math.inf), "beyond all ends": update(slider, 1e30),
        "no value": update(slider, None),
        "a list for a number": update(slider, [1.0]), "a yes for a number": update(slider, True),
        "a huge integer": update(whole, 2**63), "a text for an integer": update(whole, "3"),
        "no choice": update(choice, "dance"), "a number for a choice": update(choice, 1),
        "a number for a box": update(box, 1), "a text for a box": update(box, "yes"),
        "a number for a text": update(text, 1), "a novel for a text": update(text, "x" * 5000),
        "a mapping for a text": update(text, {"a": 1}),
        "a list of numbers for a text": update(text, list(range(5000))),
        "a camera at NaN": CAMERA | {"position": [math.nan, 0, 0]},
        "a camera of texts": CAMERA | {"look_at": ["a", "b", "c"]},
        "a flat camera": CAMERA | {"position": [0, 0]}, "a camera too many": CAMERA | {"more": 1},
        "half a camera": {k: v for k, v in CAMERA.items() if k != "fov"},
        "a click from infinity": CLICK | {"ray_origin": [math.inf, 0, 0]},
        "a click of texts": CLICK | {"ray_direction": "down"},
        "a click without a ray": CLICK | {"ray_origin": None},
    }  # fmt: skip
    encoded = {name: msgspec.msgpack.encode(message) for name, message in found.items()}
    deep = b"\x91" * 20_000 + b"\x00"  # lists in lists
    return encoded | {
        "no msgpack": b"\xc1\xff\x00", "an empty message": b"",
        "half a message": encoded["a share"][:9], "deep": deep,
        "a text message": "hello", "bad UTF-8": b"\x81\xa4type\xa2\xff\xfe",
    }  # fmt: skip


def test_bad_messages_are_dropped_and_counted(page, caplog, capfd):
    """The page stays what it was, the connection stays open, and nothing is printed."""
    places, clicked = [], []
    page.on_ground(lambda x, y: places.append((x, y)))
    for element in (page.slider, page.whole, page.choice, page.box, page.text):
        element.on_update(lambda event: clicked.append(event.target.label))
    messages = bad_messages(page)
    before, dropped = {}, page.guard.dropped
    for name in ("slider", "whole", "choice", "box", "text"):
        before[name] = getattr(page, name).value
    with caplog.at_level(logging.INFO), connect(page) as client:
        client.send(msgspec.msgpack.encode(CAMERA))
        for message in messages.values():
            client.send(message)
        # Its turn comes after all of those.
        client.send(msgspec.msgpack.encode({
            "type": "GuiUpdateMessage", "uuid": page.slider._impl.uuid, "updates": {"value": 0.5},
        }))  # fmt: skip
        page_client.Client.until(lambda: page.slider.value == 0.5 and clicked)
        client.send(msgspec.msgpack.encode(CLICK))
        page_client.Client.until(lambda: places)
    assert page.guard.dropped - dropped == len(messages)
    assert clicked == ["speed"] and places == [(0.0, 0.0)]
    for name, value in before.items():
        assert name == "slider" or getattr(page, name).value == value
    time.sleep(0.2)  # a task that failed would be told of when it is collected
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert not errors and "Traceback" not in "".join(capfd.readouterr())


def test_a_message_too_large_ends_that_connection_alone(page):
    with connect(page) as greedy, connect(page) as other:
        greedy.send(b"\xc6" + (10**6).to_bytes(4, "big") + bytes(10**6))
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            while True:
                greedy.recv(timeout=20)
        other.send(msgspec.msgpack.encode(CAMERA))
        page_client.Client.until(page.server.get_clients)


@settings(max_examples=300, deadline=None)
@given(raw=st.binary(max_size=200))
def test_random_bytes_are_no_message(raw):
    assert not guard.Guard().understands(raw)


MESSAGE = st.fixed_dictionaries({}, optional={
    **{key: st.none() | st.floats() | st.text(max_size=5) | st.lists(st.floats(), max_size=4)
       for key in (*CAMERA, *CLICK, "uuid", "updates") if key != "type"},
    "type": st.sampled_from(["ViewerCameraMessage", "ScenePointerMessage", "GuiUpdateMessage",
                             "CommandTriggerMessage"]),
})  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(changes=MESSAGE)
def test_of_changed_messages_only_finite_ones_pass(changes):
    message = CAMERA | changes
    if guard.Guard().understands(msgspec.msgpack.encode(message)):
        numbers = [message[name] for name in CAMERA if name != "type" and name in message]
        assert all(np.isfinite(np.ravel(value)).all() for value in numbers if value is not None)


def test_without_a_way_to_guard_there_is_no_page(monkeypatch):
    """A viser that does not start its server as 1.1.1 does gets no page."""
    import contextlib

    monkeypatch.setattr(guard.Guard, "watching", lambda self: contextlib.nullcontext())
    with pytest.raises(BackendUnavailable, match=r"does not know how to guard"):
        pages.Page(port=0)
