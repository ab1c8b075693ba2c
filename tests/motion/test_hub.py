"""The real Hub client against a small hub on loopback: every way a download goes right or wrong."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import motion_samples
import pytest
from hub_server import HubServer, environment

from bm_envs.motion.hub import LAFAN1_REPO

pytest.importorskip("huggingface_hub")
ROOT = Path(__file__).resolve().parents[2]
CSV = motion_samples.csv_text(frames=61).encode()

# The client reads its environment when it is imported, hence processes: one with a network and one
# without, which share a cache. Each request is a line: file, digest, dataset. `time.sleep` is the
# client's waiting between retries, half a minute where no server answers.
CLIENT = """
import json, sys, time, warnings
time.sleep = lambda seconds: None
from bm_envs.errors import MotionError
from bm_envs.motion import hub
for line in sys.stdin:
    name, sha256, repo = json.loads(line)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = str(hub.fetch(name, sha256, repo_id=repo))
        except MotionError as error:
            answer = f"MotionError: {error}"
    print(json.dumps([answer, [str(w.message) for w in caught]]), flush=True)
"""
LOAD = """
import dataclasses, sys
from bm_envs.motion import library
toy = dataclasses.replace(library.LAFAN1, sha256={"toy1_subject1": sys.argv[1]})
clip = library.load_motion("toy1[0:1]", sets=(toy,))
print(clip.name, clip.num_frames, clip.licence)
"""


class Client:
    def __init__(self, environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, server, file=None, repo=LAFAN1_REPO):
        """The path or `MotionError: ...`, and the warnings."""
        self.process.stdin.write(json.dumps([file or server.file, server.sha256, repo]) + "\n")
        self.process.stdin.flush()
        answer, warned = json.loads(self.process.stdout.readline())
        assert "\n" not in answer
        return answer, warned

    def fetch(self, *arguments, **options):
        return self.ask(*arguments, **options)[0]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=300) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hf_home")


@pytest.fixture(scope="module")
def _server():
    with HubServer({}) as server:
        yield server


@pytest.fixture(scope="module")
def online(_server, home):
    client = Client(environment(_server.url, home))
    yield client
    client.close()


@pytest.fixture(scope="module")
def offline(_server, home):
    client = Client(environment(_server.url, home, HF_HUB_OFFLINE="1"))
    yield client
    client.close()


@pytest.fixture
def server(_server, request):
    """The server in its usual state, with a file that no other test has (`server.file`)."""
    _server.sent, _server.requests = {}, []
    _server.drop, _server.down, _server.mute, _server.redirect = 0, False, False, False
    _server.file = "g1/" + re.sub(r"\W+", "_", request.node.name) + ".csv"
    _server.key = f"{LAFAN1_REPO}/{_server.file}"
    # The client's cache goes by content: equal files would be fetched once for all tests.
    _server.content = CSV + request.node.name.encode()
    _server.sha256 = hashlib.sha256(_server.content).hexdigest()
    _server.files[_server.key] = _server.content
    return _server


def downloads(server):
    return [line for line in server.requests if line.startswith("GET") and line.endswith(".csv")]


@pytest.mark.parametrize("redirect", [False, True])
def test_a_file_is_fetched_once_and_then_needs_no_network(server, online, offline, home, redirect):
    server.redirect = redirect  # as the real Hub answers for large files
    path = online.fetch(server)
    assert Path(path).read_bytes() == server.content and home in Path(path).parents
    assert len(downloads(server)) == 1
    asked = len(server.requests)
    assert online.fetch(server) == path
    assert offline.fetch(server) == path
    assert len(server.requests) == asked


def test_a_motion_by_its_name_comes_from_the_hub(server, tmp_path):
    server.files[f"{LAFAN1_REPO}/g1/toy1_subject1.csv"] = CSV
    done = subprocess.run(
        [sys.executable, "-c", LOAD, hashlib.sha256(CSV).hexdigest()],
        env=environment(server.url, tmp_path), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == "toy1_subject1[0:1] 51 CC BY-NC-ND 4.0\n", done.stderr


def test_offline_without_a_cached_file(server, offline):
    assert offline.fetch(server) == (
        f"MotionError: {server.key}: is not in the Hub cache and HF_HUB_OFFLINE is set."
    )
    assert not server.requests


def test_a_server_that_is_down(server, online):
    server.down = True
    assert online.fetch(server) == (
        f"MotionError: {server.key}: is not in the Hub cache and {server.url} gave no answer."
    )


def test_a_server_that_hangs_up(server, online):
    server.mute = True
    answer = online.fetch(server)
    assert answer.startswith(f"MotionError: {server.key}: the download failed (")


def test_no_server_at_all(tmp_path):
    with HubServer({}) as server:
        server.file, server.sha256 = "g1/x.csv", "0" * 64
    client = Client(environment(server.url, tmp_path))
    assert client.fetch(server) == (
        f"MotionError: {LAFAN1_REPO}/g1/x.csv: is not in the Hub cache and {server.url} gave no"
        " answer."
    )
    client.close()


def test_what_the_hub_does_not_have(server, online):
    assert online.fetch(server, "g1/none.csv") == (
        f"MotionError: {LAFAN1_REPO}/g1/none.csv: the Hub has no such file in this dataset."
    )
    assert online.fetch(server, repo="somebody/else") == (
        f"MotionError: somebody/else/{server.file}: the Hub has no such dataset, or not for"
        " everyone."
    )


def test_a_truncated_transfer_leaves_nothing(server, online, home):
    server.sent[server.key] = server.content[:1000]
    before = {path for path in home.rglob("*") if path.is_file()}
    answer = online.fetch(server)
    assert answer.startswith(f"MotionError: {server.key}: the download failed (")
    left = {path for path in home.rglob("*") if path.is_file()} - before
    assert all(path.stat().st_size < 1000 for path in left), left  # locks, references
    server.sent.clear()
    assert Path(online.fetch(server)).read_bytes() == server.content


def test_a_broken_connection_is_taken_up_again(server, online):
    server.drop = 1
    assert Path(online.fetch(server)).read_bytes() == server.content
    assert server.drop == 0 and len(downloads(server)) == 2


def test_a_tampered_file_is_never_used(server, online, offline):
    tampered = server.content.replace(b"1", b"2", 1)
    found = hashlib.sha256(tampered).hexdigest()[:12]
    server.files[server.key] = tampered
    refusal = (
        f"MotionError: {server.key}: the Hub's file has SHA-256 {found}..., expected"
        f" {server.sha256[:12]}...; it is not used."
    )
    assert online.fetch(server) == refusal
    assert online.fetch(server) == refusal, "nor the second time, out of the cache"
    assert offline.fetch(server) == (
        f"MotionError: {server.key}: the cached copy is damaged and HF_HUB_OFFLINE is set."
    )
    server.files[server.key] = (
        server.content
    )  # as another mirror would have it: same commit, other file
    answer, warned = online.ask(server)
    assert Path(answer).read_bytes() == server.content
    assert len(warned) == 1 and "fetching it again" in warned[0]
    assert online.ask(server) == (answer, [])


def test_a_damaged_cache_is_reported_and_fetched_again(server, online, offline):
    cached = Path(online.fetch(server))
    cached.resolve().write_bytes(server.content[:500])
    sentence = f"MotionError: {server.key}: the cached copy is damaged and"
    assert offline.fetch(server) == f"{sentence} HF_HUB_OFFLINE is set."
    server.down = True
    assert online.fetch(server) == f"{sentence} {server.url} gave no answer."
    server.down = False
    answer, (warning,) = online.ask(server)
    assert Path(answer) == cached and cached.read_bytes() == server.content
    found = hashlib.sha256(server.content[:500]).hexdigest()[:12]
    assert warning == (
        f"{cached}: has SHA-256 {found}..., expected {server.sha256[:12]}...; fetching it again."
    )
    assert online.ask(server) == (str(cached), [])


def test_without_the_client(tmp_path):
    code = """
import sys
sys.modules["huggingface_hub"] = None
from bm_envs.motion import hub
try:
    hub.fetch("g1/x.csv", "0" * 64, repo_id="owner/name")
except hub.MotionError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment("http://127.0.0.1:9", tmp_path),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout == (
        "owner/name/g1/x.csv: fetching it from the Hub needs the package huggingface_hub:"
        " pip install 'bm-envs[hub]'.\n"
    ), done.stderr
