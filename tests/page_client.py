"""A browser's part of viser's protocol, without a browser: what the panel holds, and using it."""

import threading
import time

import msgspec
import viser
import websockets.sync.client
import zstandard

PATIENCE = 120.0  # s


class Client:
    """Somebody who looks at a page. Elements are named by their labels."""

    def __init__(self, page):
        self._socket = websockets.sync.client.connect(
            f"ws://{page.url.removeprefix('http://')}", compression=None, max_size=None,
            subprotocols=[f"viser-v{viser.__version__}"],
        )  # fmt: skip
        self._elements = {}  # uuid -> its message, kept up to date
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        camera = dict(
            wxyz=[1, 0, 0, 0], position=[0, -3, 1], fov=1.0, near=0.01, far=100.0,
            image_height=100, image_width=100, look_at=[0, 0, 1], up_direction=[0, 0, 1],
        )  # fmt: skip
        self.send("ViewerCameraMessage", **camera)
        self.until(lambda: page.server.get_clients())

    def _read(self):
        try:
            for data in self._socket:
                packed = int.from_bytes(data[8:16], "little")
                inner = zstandard.decompress(data[16 : 16 + packed])
                for message in msgspec.msgpack.decode(inner, strict=False)["messages"]:
                    kind, uuid = message["type"], message.get("uuid")
                    if kind.startswith("Gui") and "props" in message or "Register" in kind:
                        self._elements[uuid] = message
                    elif kind == "GuiUpdateMessage" and uuid in self._elements:
                        for key, value in message["updates"].items():
                            holder = self._elements[uuid]
                            (holder if key == "value" else holder["props"])[key] = value
        except websockets.exceptions.ConnectionClosed:
            pass

    def send(self, kind, **fields):
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def _find(self, label, kind):
        found = []
        self.until(lambda: found.extend(
            uuid for uuid, message in list(self._elements.items())
            if message["props"].get("label") == label and kind in message["type"]
        ) or found)  # fmt: skip
        return found[0]

    def set(self, label, value, kind="Gui"):
        """Change a field, or press a button (True)."""
        self.send("GuiUpdateMessage", uuid=self._find(label, kind), updates={"value": value})

    def press(self, label):
        self.set(label, True, "Button")

    def key(self, command):
        """Use the key of a command."""
        self.send("CommandTriggerMessage", uuid=self._find(command, "Command"))

    def value(self, label):
        return self._elements[self._find(label, "Gui")]["value"]

    def labels(self):
        return {m["props"].get("label") for m in list(self._elements.values())}

    def html(self):
        """All HTML of the panel."""
        messages = list(self._elements.values())
        return "".join(m["props"].get("content", "") for m in messages if "Html" in m["type"])

    @staticmethod
    def until(condition, step=lambda: None):
        """Wait until something holds, doing `step` meanwhile."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "it never came"
            step()
            time.sleep(0.02)

    def close(self):
        self._socket.close()
        self._reader.join(PATIENCE)
