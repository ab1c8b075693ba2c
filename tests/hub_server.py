"""A Hugging Face Hub small enough for tests: what its client asks for, on loopback.

Serves `HEAD` and `GET` of `/datasets/OWNER/NAME/resolve/REVISION/PATH` with the headers the client
reads (`ETag`, `X-Repo-Commit`, `Content-Length`, `X-Error-Code`), and ranges. With `redirect=True`
it answers as the real Hub does for large files: a redirect to another host that carries
`X-Linked-Etag` and `X-Linked-Size`.

Model repositories (`models`) can be made, written to and read: create, preupload, LFS uploads of
`*.onnx`, commits, revisions, file lists, and `/OWNER/NAME/resolve/REVISION/PATH`. Writing needs
`token`, and so does reading one that is private.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Model:
    """A model repository: the files of each commit, oldest first, and names of commits."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        content = repr((len(self.commits), sorted(files.items()))).encode()
        name = hashlib.sha1(content).hexdigest()
        self.commits[name] = files
        self.messages.append(message)
        return name

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def resolve(self, revision: str) -> str | None:
        if revision == "main":
            return self.head
        revision = self.tags.get(revision, revision)
        return revision if revision in self.commits else None


def is_lfs(path: str) -> bool:
    return path.endswith(".onnx")


def blob_id(path: str, content: bytes) -> str:
    """What git calls a blob, or LFS an object."""
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """Context manager; `url` is the value for HF_ENDPOINT.

    `files` maps `OWNER/NAME/PATH` to bytes and may be changed while the server runs. `sent`
    replaces a body while HEAD still announces the true file (a tampered or truncated transfer).
    `drop` counts how many GETs are cut in the middle by closing the connection. `down` answers all
    with 503, `mute` closes every connection without an answer. `requests` records what was asked.
    `drop_uploads` counts how many uploads are cut likewise.
    """

    def __init__(self, files: dict[str, bytes], *, redirect: bool = False) -> None:
        self.files = files
        self.sent: dict[str, bytes] = {}
        self.redirect = redirect
        self.drop = 0
        self.down = False
        self.mute = False
        self.requests: list[str] = []
        self.models: dict[str, Model] = {}
        self.token = "hf_test"
        self.objects: dict[str, bytes] = {}
        self.drop_uploads = 0

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

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub = self.server_hub
        hub.requests.append(f"POST {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if hub.mute or hub.down:
            return self._refuse_all()
        if parts == ["api", "validate-yaml"]:
            return self._json({"warnings": [], "errors": []})
        if not self._allowed():
            return self._json({"error": "Invalid username or password."}, status=401)
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            url = {"url": f"{hub.url}/{name}"}
            if name in hub.models:
                return self._json({"error": "You already created this model repo", **url}, 409)
            private = asked.get("visibility") == "private" or asked.get("private", False)
            hub.models[name] = Model(private=private)
            hub.models[name].commit({".gitattributes": b"*.onnx filter=lfs\n"})
            return self._json(url)
        if parts[-3:] == ["lfs", "objects", "batch"]:
            found = []
            for entry in json.loads(body)["objects"]:
                there = entry["oid"] in hub.objects
                upload = {"upload": {"href": f"{hub.url}/upload/{entry['oid']}"}}
                found.append(entry | ({} if there else {"actions": upload}))
            return self._json({"transfer": "basic", "objects": found})
        model = hub.models.get("/".join(parts[2:4]))
        if parts[:2] != ["api", "models"] or model is None:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if parts[4] == "preupload":
            answer = []
            for entry in json.loads(body)["files"]:
                mode = "lfs" if is_lfs(entry["path"]) else "regular"
                answer.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False})
            return self._json({"files": answer})
        assert parts[4] == "commit"
        files, message = dict(model.commits[model.head]), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        name = model.commit(files, message)
        repository = "/".join(parts[2:4])
        self._json({"commitUrl": f"{hub.url}/{repository}/commit/{name}", "commitOid": name})

    def do_PUT(self) -> None:
        hub = self.server_hub
        hub.requests.append(f"PUT {self.path}")
        size = int(self.headers["Content-Length"])
        if hub.drop_uploads:
            hub.drop_uploads -= 1
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.rfile.read(size)
        name = self.path.removeprefix("/upload/")
        assert hashlib.sha256(body).hexdigest() == name
        hub.objects[name] = body
        self._send(200, {})

    def _refuse_all(self) -> None:
        self.close_connection = True
        if self.server_hub.down:
            self._send(503, {})

    def _allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server_hub.token}"

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _model(self) -> tuple[str, Model | None, list[str]]:
        """Which model an address is about, and what comes behind its name."""
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts = parts[2:]
        elif parts[2:3] != ["resolve"]:
            return "", None, []
        name = "/".join(parts[:2])
        return name, self.server_hub.models.get(name), parts[2:]

    def _answer_model(self, *, body: bool) -> None:
        name, model, rest = self._model()
        if model is None or (model.private and not self._allowed()):
            # As the real one answers where there is none for this user.
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        revision = rest[1] if len(rest) > 1 else "main"
        commit = model.resolve(revision)
        if commit is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        files = model.commits[commit]
        if rest[:1] in ([], ["revision"]):
            siblings = [{"rfilename": path} for path in files]
            return self._json({"id": name, "sha": commit, "siblings": siblings})
        if rest[0] == "tree":
            return self._json([
                {"type": "file", "path": path, "size": len(data), "oid": blob_id(path, data),
                 **({"lfs": {"oid": blob_id(path, data), "size": len(data), "pointerSize": 130}}
                    if is_lfs(path) else {})}
                for path, data in sorted(files.items())
            ])  # fmt: skip
        path = "/".join(rest[2:])
        if path not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        etag = blob_id(path, files[path])
        self._send_file(f"{name}/{path}", files[path], etag, commit, body=body)

    def _answer(self, *, body: bool) -> None:
        hub = self.server_hub
        hub.requests.append(f"{self.command} {self.path}")
        if hub.mute:
            self.close_connection = True
            return None
        if hub.down:
            return self._send(503, {})
        if self._model()[1] is not None or self.path.startswith("/api/models/"):
            return self._answer_model(body=body)
        name = self._name()
        if name not in hub.files:
            repo = "/".join(name.split("/")[:2])
            known = any(key.startswith(repo + "/") for key in hub.files)
            code = "EntryNotFound" if known else "RepoNotFound"
            return self._send(404, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
        true = hub.files[name]
        self._send_file(name, true, hashlib.sha256(true).hexdigest(), COMMIT, body=body)

    def _send_file(self, name: str, true: bytes, digest: str, commit: str, *, body: bool) -> None:
        hub = self.server_hub
        etag = f'"{digest}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
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
        if self.command != "HEAD":
            self.wfile.write(data)


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Environment of a process whose hub is the server at `url`, with nothing of ours in it."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("HF_") and "proxy" not in key.lower() and key != "BM_DATA_DIR"
    }
    hub = {
        "HF_HOME": str(home),
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "120",  # s; ours is up, but the machine may be busy
        "HF_HUB_DOWNLOAD_TIMEOUT": "120",
    }
    return inherited | hub | {"PYTHONPATH": str(ROOT)} | more
