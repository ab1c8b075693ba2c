"""A Hugging Face Hub small enough for tests: what `hf_hub_download` asks for, on loopback.

Serves `HEAD` and `GET` of `/datasets/OWNER/NAME/resolve/REVISION/PATH` with the headers the client
reads (`ETag`, `X-Repo-Commit`, `Content-Length`, `X-Error-Code`), and ranges. With `redirect=True`
it answers as the real Hub does for large files: a redirect to another host that carries
`X-Linked-Etag` and `X-Linked-Size`.
"""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Context manager; `url` is the value for HF_ENDPOINT.

    `files` maps `OWNER/NAME/PATH` to bytes and may be changed while the server runs. `sent`
    replaces a body while HEAD still announces the true file (a tampered or truncated transfer).
    `drop` counts how many GETs are cut in the middle by closing the connection. `down` answers all
    with 503, `mute` closes every connection without an answer. `requests` records what was asked.
    """

    def __init__(self, files: dict[str, bytes], *, redirect: bool = False) -> None:
        self.files = files
        self.sent: dict[str, bytes] = {}
        self.redirect = redirect
        self.drop = 0
        self.down = False
        self.mute = False
        self.requests: list[str] = []

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server_hub
        hub.requests.append(f"{self.command} {self.path}")
        if hub.mute:
            self.close_connection = True
            return None
        if hub.down:
            return self._send(503, {})
        name = self._name()
        if name not in hub.files:
            repo = "/".join(name.split("/")[:2])
            known = any(key.startswith(repo + "/") for key in hub.files)
            code = "EntryNotFound" if known else "RepoNotFound"
            return self._send(404, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
        true = hub.files[name]
        etag = f'"{hashlib.sha256(true).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if hub.redirect and self.path.startswith("/datasets/"):
            headers["X-Linked-Etag"] = etag
            headers["X-Linked-Size"] = str(len(true))
            # "localhost" is not the host of HF_ENDPOINT: the client takes it for storage elsewhere.
            headers["Location"] = f"http://localhost:{hub.port}/storage/{name}"
            return self._send(302, headers)
        if not body:
            headers["Content-Length"] = str(len(true))
            return self._send(200, headers)
        data = hub.sent.get(name, true)
        status = 200
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        headers["Content-Length"] = str(len(data))
        if hub.drop:
            hub.drop -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        self._send(status, headers, data)

    def _name(self) -> str:
        """`OWNER/NAME/PATH` of a resolve or a storage address; empty for any other."""
        if self.path.startswith("/storage/"):
            return self.path.removeprefix("/storage/")
        parts = self.path.split("/")
        if len(parts) > 6 and parts[1] == "datasets" and parts[4] == "resolve":
            return "/".join([parts[2], parts[3], *parts[6:]])
        return ""

    def _send(self, status: int, headers: dict[str, str], data: bytes = b"") -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
