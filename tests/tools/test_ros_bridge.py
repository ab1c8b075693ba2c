"""`tools/ros_bridge.py` against a small server that speaks the rosbridge protocol on loopback."""

import json
import os
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("roslibpy")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from bm_envs.motion.library import load_motion
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "tools" / "ros_bridge.py"
SHORT = ("--motion", "walk[0:0.4]", "--stand-s", "0.2", "--end-s", "0.1")


class Server:
    """Takes what a client advertises, publishes and subscribes to, and can send to topics."""

    def __init__(self, hang_up_after=None):
        self.messages, self.advertised = {}, {}
        self.commands = []  # to send to whoever subscribes, one after each joint state
        self.raw = []  # the same, but as it is: whatever a peer may send
        self._hang_up_after = hang_up_after
        self._server = serve(self._talk, "127.0.0.1", 0)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._thread.join(60)

    def _talk(self, connection):
        subscribed = None
        try:
            for text in connection:
                message = json.loads(text)
                topic = message.get("topic")
                if message["op"] == "advertise":
                    self.advertised[topic] = message["type"]
                elif message["op"] == "subscribe":
                    subscribed = topic
                    self.advertised[topic] = message["type"]
                elif message["op"] == "publish":
                    assert topic in self.advertised, "published before it was advertised"
                    self.messages.setdefault(topic, []).append(message["msg"])
                    if subscribed and self.commands and topic.endswith("/joint_states"):
                        command = self.commands.pop(0)
                        connection.send(
                            json.dumps({"op": "publish", "topic": subscribed, "msg": command})
                        )
                    if self.raw and topic.endswith("/joint_states"):
                        connection.send(self.raw.pop(0))
                    if self._hang_up_after and len(self.messages[topic]) >= self._hang_up_after:
                        connection.close()
        except ConnectionClosed:
            pass


def bridge(server, *arguments):
    """In a process of its own, because the client starts threads that it does not end."""
    done = subprocess.run(
        [
            sys.executable, str(BRIDGE), *map(str, arguments), "--url",
            f"ws://127.0.0.1:{server.port}", "--connect-s", "120", "--speed", "100",
        ],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def twist(forward=0.0, turn=0.0):
    zero = {"x": 0.0, "y": 0.0, "z": 0.0}
    return {"linear": {**zero, "x": forward}, "angular": {**zero, "z": turn}}


def test_a_tracker_is_published_and_takes_no_commands():
    with Server() as server:
        server.commands = [twist(0.5)] * 5 + [{"linear": {}}, {"linear": 3}, "fast", twist(np.nan)]
        status, out, err = bridge(server, "walk", *SHORT)
    assert (status, err) == (0, ""), out
    assert out.count("this policy follows its motion and takes no commands") == 1
    assert "4 messages refused" in out
    assert server.advertised == {
        "/g1/joint_states": "sensor_msgs/msg/JointState",
        "/g1/base_pose": "geometry_msgs/msg/PoseStamped",
        "/g1/reference/joint_states": "sensor_msgs/msg/JointState",
        "/g1/reference/base_pose": "geometry_msgs/msg/PoseStamped",
        "/g1/cmd_vel": "geometry_msgs/msg/Twist",
    }
    joints, poses = server.messages["/g1/joint_states"], server.messages["/g1/base_pose"]
    # 0.2 s standing, 0.4 s of motion and 0.1 s of end, 50 a second, without the last.
    assert len(joints) == len(poses) == 35 and f"{len(joints)} states sent" in out
    stamps = [m["header"]["stamp"] for m in joints]
    times = [stamp["sec"] + 1e-9 * stamp["nanosec"] for stamp in stamps]
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-9)
    assert joints[0]["name"] == list(g1.JOINT_NAMES)
    assert {len(joints[0][key]) for key in ("position", "velocity", "effort")} == {29}
    # It begins in the default pose: 2 cm/s of sagging into the drives at most.
    np.testing.assert_allclose(joints[0]["position"], g1.DEFAULT_JOINT_POS, atol=0.05)
    assert np.abs(joints[-1]["effort"]).max() > 1, "somebody holds the robot up"
    for pose in poses:
        place, turned = pose["pose"]["position"], pose["pose"]["orientation"]
        assert 0.7 < place["z"] < 0.8
        assert turned["w"] > 0.99
        assert sum(v * v for v in turned.values()) == pytest.approx(1)
    # The reference is the clip from its second frame on, its place and heading the robot's.
    shown = server.messages["/g1/reference/joint_states"]
    clip = load_motion("walk[0:0.4]")
    np.testing.assert_allclose(
        [m["position"] for m in shown], clip.joint_pos[1 : len(shown) + 1], atol=1e-6
    )
    assert len(shown) == 20
    heights = [m["pose"]["position"]["z"] for m in server.messages["/g1/reference/base_pose"]]
    np.testing.assert_allclose(heights, clip.body_pos_w[1 : len(heights) + 1, 0, 2], atol=1e-6)


NO_TWIST = [
    None, 3, "fast", [], {}, [twist(0.5)], {"linear": {}}, {"linear": 3, "angular": 3},
    {"linear": {"x": "0.5", "y": "0", "z": "0"}, "angular": {"x": "0", "y": "0", "z": "0"}},
    {"linear": {"x": True, "y": 0, "z": 0}, "angular": {"x": 0, "y": 0, "z": 0}},
    {"linear": {"x": [0.5], "y": 0, "z": 0}, "angular": {"x": 0, "y": 0, "z": 0}},
    {"linear": {"x": {"x": 1}, "y": 0, "z": 0}, "angular": {"x": 0, "y": 0, "z": 0}},
    {"linear": {"x": None, "y": 0, "z": 0}, "angular": {"x": 0, "y": 0, "z": 0}},
    twist(float("nan")), twist(float("inf")), twist(0.0, float("-inf")), twist(1e300), twist(1e3),
    twist(10**400), twist(0.5)["linear"],
]  # fmt: skip


@pytest.mark.parametrize("message", NO_TWIST, ids=str)
def test_what_is_no_command_is_dropped(message):
    module = runpy.run_path(str(BRIDGE))
    assert module["twist"](message) is None
    np.testing.assert_array_equal(module["twist"](twist(0.5, -1)), [0.5, 0, -1])


def test_a_hostile_server_changes_nothing_and_is_counted():
    """Messages that are none, of no topic, of no kind, or not even text; the run goes on."""
    topic = "/g1/cmd_vel"
    deep = "[" * 100_000 + "]" * 100_000
    with Server() as server:
        server.raw = [
            "not json", "", "null", "[]", "3", '"text"', deep, "{}", '{"op": 3}',
            '{"op": "publish"}', f'{{"op": "publish", "topic": "{topic}"}}',
            '{"op": "unknown", "id": {}}', '{"op": "service_response", "id": "x"}',
            f'{{"op": "publish", "topic": "{topic}", "msg": "{"x" * 500_000}"}}',
            f'{{"op": "publish", "topic": "{topic}", "msg": {{"linear": {{"x": 1e999}}}}}}',
        ]  # fmt: skip
        sent = len(server.raw)
        server.commands = [twist(np.nan), {"linear": {"x": "1"}}]
        status, out, err = bridge(server, "walk", *SHORT)
    assert (status, err) == (0, ""), out
    assert server.raw == [] and "35 states sent" in out
    assert f"{sent + 2} messages refused" in out


def test_bytes_in_place_of_text_end_it_in_a_sentence():
    """No server of this protocol sends them; the client hangs up."""
    with Server() as server:
        server.raw = [b"\x00\xff"]
        status, out, err = bridge(server, "walk")
    assert (status, err) == (1, "")
    assert f"stopped: the connection to ws://127.0.0.1:{server.port} was lost" in out


def test_ros_1_has_other_names():
    with Server() as server:
        status, _, _ = bridge(server, "walk", *SHORT, "--ros", 1, "--prefix", "/robot")
    assert status == 0
    assert server.advertised["/robot/base_pose"] == "geometry_msgs/PoseStamped"
    assert server.messages["/robot/base_pose"][0]["header"]["stamp"] == {
        "secs": 0, "nsecs": 20_000_000,
    }  # fmt: skip


def headings(server):
    turns = [m["pose"]["orientation"] for m in server.messages["/g1/base_pose"]]
    return np.unwrap([2 * np.arctan2(q["z"], q["w"]) for q in turns])


def test_cmd_vel_steers_the_diffusion_model():
    turned = {}
    for turn in (0.8, -0.8):
        with Server() as server:
            server.commands = [twist(0.4, turn)]
            status, out, err = bridge(
                server, "guided_body_pos", "--task", "joystick", "--seconds", 3,
                "--command-s", 600,
            )  # fmt: skip
        assert (status, err) == (0, ""), out
        heading = headings(server)
        turned[turn] = heading[-1] - heading[50]  # the first second is not steered
    # 0.8 rad/s for 2 s is 1.6 rad; a third of it, and the right way, is more than a walk sways.
    assert turned[0.8] > 0.5 and turned[-0.8] < -0.5, turned


def test_a_lost_connection_ends_it():
    with Server(hang_up_after=5) as server:
        status, out, err = bridge(server, "walk")
    assert (status, err) == (1, "")
    assert f"stopped: the connection to ws://127.0.0.1:{server.port} was lost" in out


def test_a_fall_is_told():
    with Server() as server:
        status, out, err = bridge(server, "walk", "--effort-scale", 0.05)
    assert (status, err) == (1, "") and "stopped: " in out


def test_no_server_is_one_sentence():
    with Server() as server:
        port = server.port
    done = subprocess.run(
        [
            sys.executable, str(BRIDGE), "walk", "--url", f"ws://127.0.0.1:{port}",
            "--connect-s", "1",
        ],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: No rosbridge server answers at ws://127.0.0.1:{port} within 1 s.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["walk", "--url", "http://here"],
         "url is 'http://here', expected one such as ws://127.0.0.1:9090."),
        (["walk", "--url", "ws://here:port"],
         "url is 'ws://here:port', expected one such as ws://127.0.0.1:9090."),
        (["walk", "--speed", "0"], "speed is 0.0, expected more than 0, up to 100."),
        (["walk", "--seconds", "-1"], "seconds is -1.0, expected more than 0, a day at most."),
        (["nobody"], "Unknown policy 'nobody'; "),
        (["walk", "--task", "joystick"], "walk"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(BRIDGE), *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BRIDGE), run_name="__main__")
    err = capsys.readouterr().err
    assert end.value.code == 2 and re.match("error: .*" + re.escape(sentence), err), err
    assert err.count("\n") == 1


def test_a_missing_package_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "roslibpy", None)
    monkeypatch.setattr(sys, "argv", [str(BRIDGE), "walk"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BRIDGE), run_name="__main__")
    assert (end.value.code, capsys.readouterr().err) == (
        2, "error: ROS needs the package roslibpy: pip install 'bm-envs[ros]'.\n",
    )  # fmt: skip
