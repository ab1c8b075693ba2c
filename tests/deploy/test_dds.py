"""Unitree's topics: messages against other definitions of them, and both ends on loopback."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pty
import re
import runpy
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cyclonedds")

from bm_envs.deploy import unitree
from bm_envs.deploy.controller import Controller, ControllerConfig
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.errors import ConfigError
from bm_envs.policy import load_policy
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
DEPLOY, ROBOT = ROOT / "tools" / "deploy.py", ROOT / "tools" / "dds_robot.py"
STREAM = ROOT / "tools" / "stream.py"
# Test runs side by side do not hear each other. Up to domain 101 the ports, 7400 + 250 a domain,
# lie below those that a system gives to whoever asks for any.
DOMAIN = 20 + os.getpid() % 78
PATIENCE = "120"  # s; a busy machine


# --- messages -------------------------------------------------------------------------------------


def bitwise(data):
    """CRC-32/MPEG-2 by its definition, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 1 << 31 else 0)) & 0xFFFFFFFF
    return crc


def test_the_check_sum_is_the_catalogued_one():
    # The check value of CRC-32/MPEG-2 in catalogues of check sums.
    assert unitree.crc32_mpeg2(b"123456789") == 0x0376E6E7


@given(st.binary(max_size=64))
def test_the_check_sum_is_its_definition(data):
    assert unitree.crc32_mpeg2(data) == bitwise(data)


def a_command(seed=0):
    rng = np.random.default_rng(seed)
    return Command(*rng.normal(size=(4, 29)))


def a_reading(seed=0):
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=4)
    return Sensors(
        time_s=1.234,
        quat=quat / np.linalg.norm(quat),
        gyro=rng.normal(size=3),
        accel=rng.normal(size=3),
        joint_pos=rng.normal(size=29),
        joint_vel=rng.normal(size=29),
    )


def words_of_c(message):
    """The C structure's 32-bit words, by its declaration: `B3x` is a byte before a float."""
    if isinstance(message, unitree.LowCmd_):
        values = [message.mode_pr, message.mode_machine]
        for m in message.motor_cmd:
            values += [m.mode, m.q, m.dq, m.tau, m.kp, m.kd, m.reserve]
        packed = struct.pack("<2B2x" + "B3x5fI" * 35 + "4I", *values, *message.reserve)
        assert len(packed) + 4 == 1004  # size of the structure, as the maker's code has it
    else:
        imu = message.imu_state
        values = [*message.version, message.mode_pr, message.mode_machine, message.tick]
        values += [*imu.quaternion, *imu.gyroscope, *imu.accelerometer, *imu.rpy, imu.temperature]
        for m in message.motor_state:
            values += [m.mode, m.q, m.dq, m.ddq, m.tau_est, *m.temperature, m.vol, *m.sensor]
            values += [m.motorstate, *m.reserve]
        layout = "<2I2B2xI13fh2x" + "B3x4f2hf7I" * 35 + "40B4I"
        packed = struct.pack(layout, *values, *message.wireless_remote, *message.reserve)
        assert len(packed) + 4 == 2092
    return packed


@pytest.mark.parametrize("kind", ["command", "state"])
def test_messages_are_sealed_as_the_maker_does_it(kind):
    if kind == "command":
        message = unitree.to_low_cmd(a_command(), 5)
    else:
        message = unitree.to_low_state(a_reading(), np.arange(29.0), 5, bytes(range(40)))
    little = words_of_c(message)
    big = b"".join(little[i : i + 4][::-1] for i in range(0, len(little), 4))
    assert message.crc == bitwise(big)
    received = type(message).deserialize(message.serialize())
    assert unitree.check_sum(received) == message.crc
    received.reserve[2] ^= 1
    assert unitree.check_sum(received) != message.crc


def test_a_command_is_the_same_at_the_other_end():
    command = a_command()
    message = unitree.LowCmd_.deserialize(unitree.to_low_cmd(command, 5).serialize())
    assert (message.mode_pr, message.mode_machine, len(message.motor_cmd)) == (0, 5, 35)
    assert [m.mode for m in message.motor_cmd] == [1] * 29 + [0] * 6
    knee = message.motor_cmd[3]  # in the maker's enumeration LeftKnee is 3
    assert g1.JOINT_NAMES[3] == "left_knee_joint"
    assert knee.q == np.float32(command.joint_pos[3]) and knee.kp == np.float32(
        command.stiffness[3]
    )
    received = unitree.from_low_cmd(message)
    for name in ("joint_pos", "stiffness", "damping", "torque"):
        np.testing.assert_array_equal(
            getattr(received, name), getattr(command, name).astype(np.float32)
        )
    message.motor_cmd[3].mode = 0
    message.motor_cmd[4].dq = 2.0
    other = unitree.from_low_cmd(message)
    assert other.stiffness[3] == other.torque[3] == 0, "a motor that is off holds nothing"
    assert other.torque[4] == received.torque[4] + 2.0 * received.damping[4]


def test_a_reading_is_the_same_at_the_other_end():
    sensors, torque = a_reading(), np.arange(29.0)
    message = unitree.LowState_.deserialize(unitree.to_low_state(sensors, torque, 6).serialize())
    assert (message.tick, message.mode_machine) == (1234, 6)
    assert [m.tau_est for m in message.motor_state[:29]] == torque.tolist()
    received = unitree.from_low_state(message, 7.0)
    assert received.time_s == 7.0 and not received.stop and received.base_pos is None
    for name in ("quat", "gyro", "accel", "joint_pos", "joint_vel"):
        np.testing.assert_allclose(
            getattr(received, name), getattr(sensors, name), rtol=1e-6
        )  # float32, and a quaternion normalised again
    roll, pitch, yaw = message.imu_state.rpy
    half = [np.array([np.cos(a / 2), *(np.sin(a / 2) * axis)])
            for a, axis in zip((roll, pitch, yaw), np.eye(3), strict=True)]  # fmt: skip
    from bm_envs.rotations import quat_angle, quat_mul

    turned = quat_mul(half[2], quat_mul(half[1], half[0]))
    assert quat_angle(turned, sensors.quat) < 1e-5


@pytest.mark.parametrize(("byte", "bit", "stops"), [(3, 2, True), (2, 8, True), (3, 1, False)])
def test_the_remotes_b_and_select_stop(byte, bit, stops):
    remote = bytearray(40)
    remote[byte] = bit
    message = unitree.to_low_state(a_reading(), np.zeros(29), 5, bytes(remote))
    assert unitree.from_low_state(message, 0.0).stop is stops


def test_a_state_without_an_orientation_is_not_finite():
    """Before its first reading a robot tells four zeros, which no normalisation may hide."""
    message = unitree.to_low_state(a_reading(), np.zeros(29), 5)
    message.imu_state.quaternion = [0.0] * 4
    assert np.isnan(unitree.from_low_state(message, 0.0).quat).all()


# --- the controller's end, with the other one made up ---------------------------------------------


class Wire:
    """Both topics in this process: a robot whose states are taken, and the commands it was sent."""

    def __init__(self, script):
        self.robot = SimulatedRobot()
        self.robot.stand(g1.DEFAULT_JOINT_POS)
        self.script, self.ticks, self.broken, self.is_heard = script, 0, 0, True
        self.publishers, self.heard = (1,), 1
        self.sent = []

    def take(self, timeout_s=0.0):
        self.ticks += 1
        self.robot.step()
        message = unitree.to_low_state(self.robot.sense(), np.zeros(29), 5)
        return self.script(self.ticks, message)

    def write(self, message):
        assert unitree.check_sum(message) == message.crc and message.mode_machine == 5
        self.sent.append(unitree.from_low_cmd(message))
        self.robot.apply(self.sent[-1])


@pytest.fixture(scope="module")
def deploy():
    # Dataclasses look their module up by its name, where `run_path` leaves nothing.
    return runpy.run_path(str(DEPLOY))


def drive(deploy, script, *, motors=True, **changes):
    policy = load_policy("walk")
    motion = Motion(policy, "walk[0:0.4]")
    values = dict(state="estimated", stand_s=0.2, end_s=0.2)
    driver = Controller(policy, motion, ControllerConfig(**values))
    # The process may be held up by whatever else runs here; what that does to a robot is the
    # envelope's tests' to say, which have a clock of their own.
    changes = {"lost_s": 60.0} | changes
    config = deploy["Config"]("walk", motors=motors, clock="tick", **changes)
    wire = Wire(script)
    deploy["drive"].__globals__["DAMP_S"] = 0.03
    report = deploy["drive"](driver, wire, wire if motors else None, config)
    return report, wire


def is_damped(command):
    return not command.stiffness.any() and (command.damping > 0).all()


def test_it_comes_to_its_end_and_damps_the_motors(deploy):
    report, wire = drive(deploy, lambda tick, message: message)
    assert (report.phase, report.reason, report.frame) == ("done", "", 20)
    assert report.commands == report.states - 1 == 400
    assert not any(map(is_damped, wire.sent[:400]))
    assert len(wire.sent) == 403 and all(map(is_damped, wire.sent[400:]))


def test_a_dry_run_sends_nothing(deploy):
    report, wire = drive(deploy, lambda tick, message: message, motors=False)
    # The robot hangs limp in the air here or lies: whatever it does, nothing is sent.
    assert report.commands == 0 and wire.sent == [] and report.states > 50


def raise_at(tick, error):
    def script(now, message):
        if now == tick:
            raise error
        return message

    return script


def changed_at(tick, **values):
    def script(now, message):
        return dataclasses.replace(message, **values) if now == tick else message

    return script


def nan_at(tick):
    def script(now, message):
        if now == tick:
            message.motor_state[5].dq = float("nan")
        return message

    return script


REMOTE = [0] * 3 + [2] + [0] * 36
STOPS = {
    "gone": (lambda now, message: message if now < 150 else None,
             "no state came for 0.5 s, the robot is gone"),
    "restarted": (lambda now, message: dataclasses.replace(message, tick=5000 + message.tick)
                  if now < 150 else message, "the robot's clock went back, it was restarted"),
    "interrupted": (raise_at(150, KeyboardInterrupt()), "interrupted"),
    "button": (changed_at(150, wireless_remote=REMOTE), "the stop button was pressed"),
    "nan": (nan_at(150), "a reading of the sensors is not a finite number"),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPS)
def test_whatever_stops_it_the_motors_are_damped(deploy, name):
    script, reason = STOPS[name]
    report, wire = drive(deploy, script, lost_s=0.5 if name == "gone" else 60.0)
    assert (report.phase, report.reason) == ("damping", reason)
    assert not is_damped(wire.sent[-4]) and all(map(is_damped, wire.sent[-3:]))
    assert report.commands == len(wire.sent) - 3 < 160


def test_a_defect_damps_the_motors_too(deploy):
    wires = []

    def script(now, message):
        if now == 100:
            raise ZeroDivisionError
        return message

    class Kept(Wire):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            wires.append(self)

    original, globals()["Wire"] = Wire, Kept
    try:
        with pytest.raises(ZeroDivisionError):
            drive(deploy, script)
    finally:
        globals()["Wire"] = original
    assert all(map(is_damped, wires[0].sent[-3:])) and not is_damped(wires[0].sent[-4])


def test_overtaken_states_are_passed_over(deploy):
    """Of every ten states the last two come in the wrong order: the older is not used."""
    held = []

    def script(now, message):
        if now % 10 == 8:
            held.append(message)
            return dataclasses.replace(message)  # in its place, nothing is missing
        return held.pop() if now % 10 == 0 and held else message

    report, _ = drive(deploy, script)
    assert report.phase == "done" and 35 <= report.late_states <= 45


# --- both ends, on loopback -----------------------------------------------------------------------


def start(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    # That the settings of a machine do not send a robot's commands elsewhere.
    environment["CYCLONEDDS_URI"] = "<CycloneDDS><Domain><General><Interfaces><NetworkInterface "
    environment["CYCLONEDDS_URI"] += 'name="nowhere"/></Interfaces></General></Domain></CycloneDDS>'
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def robot(*arguments):
    return start(
        ROBOT, "--domain", DOMAIN, "--lockstep", "--patience-s", PATIENCE, "--idle-s", "0.3",
        *arguments,
    )  # fmt: skip


def controller(*arguments, lost_s="60"):
    return start(
        DEPLOY, "walk", "--motion", "walk[0:0.4]", "--domain", DOMAIN, "--clock", "tick",
        "--stand-s", "0.3", "--end-s", "0.2", "--lost-s", lost_s, "--patience-s", PATIENCE,
        *arguments,
    )  # fmt: skip


def until(process, text):
    """Read its output until a line has the text."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"'{text}' never came: {lines}, {process.stderr.read()}")


def test_both_ends_over_a_bad_network(tmp_path):
    paths = tmp_path / "robot.json", tmp_path / "controller.json"
    other = robot(
        "--drop", "0.1", "--late", "0.1", "--late-ms", "6", "--repeat", "0.1", "--json", paths[0]
    )  # fmt: skip
    ours = controller("--motors", "--json", paths[1])
    status, out, err = end(ours)
    assert (status, err) == (0, ""), out
    assert "20 of 20 steps of the motion" in out and "done, motors damped" in out
    status, out, err = end(other)
    assert (status, err) == (0, ""), out
    assert "upright when motors last held something" in out
    robots, controllers = (json.loads(path.read_text()) for path in paths)
    # A tenth of some 450 states and as many commands: fewer than 40 are a chance of 1e-8.
    assert robots["dropped"] > 40 and robots["held_back"] > 15 and robots["repeated"] > 15
    assert controllers["late_states"] > 5 and controllers["broken_states"] == 0
    assert robots["commands"] < controllers["commands"] + 100 + 1  # the last hundred damp


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_streamed_reference_is_followed_to_its_end(tmp_path):
    """Robot, controller and sender are three processes; the stream jitters and loses samples.

    The simulated robot may be slower than real time, and the sender is not: then the reference is
    played further behind, and nothing of it is lost.
    """
    paths = tmp_path / "robot.json", tmp_path / "controller.json"
    address = f"udp:127.0.0.1:{free_port()}"
    other = robot("--drop", "0.02", "--late", "0.05", "--json", paths[0])
    ours = start(
        DEPLOY, "walk", "--stream", address, "--domain", DOMAIN, "--clock", "tick", "--stand-s",
        "0.6", "--end-s", "0.5", "--lost-s", "60", "--patience-s", PATIENCE, "--motors", "--json",
        paths[1],
    )  # fmt: skip
    until(ours, "reference streamed to")
    sender = start(
        STREAM, "walk[0:3]", "--to", address, "--hold-s", "3", "--jitter-ms", "40", "--loss",
        "0.02", "--seed", "1",
    )  # fmt: skip
    status, out, err = end(ours)
    assert (status, err) == (0, ""), out
    assert "done, motors damped" in out and " 0 gaps of 0.00 s" in out
    assert end(sender)[0] == 0
    status, out, err = end(other)
    assert (status, err) == (0, ""), out
    assert "upright when motors last held something" in out
    stream = json.loads(paths[1].read_text())["stream"]
    # 3 s of the first pose and 3 s of the walk, 2 in a hundred lost, the last sample twenty times.
    assert 280 <= stream["samples"] <= 320 and stream["repeated"] == 19 and not stream["refused"]


def test_a_stream_that_does_not_come_moves_nothing(tmp_path):
    ours = start(
        DEPLOY, "walk", "--stream", f"udp:127.0.0.1:{free_port()}", "--domain", DOMAIN,
        "--patience-s", "0.5",
    )  # fmt: skip
    status, _, err = end(ours)
    assert status == 2 and "No reference at udp:127.0.0.1:" in err and "a first sample" in err


def test_a_guided_model_walks_over_the_topics(tmp_path):
    """Until Ctrl-C; its plans come from a thread while states are answered."""
    paths = tmp_path / "robot.json", tmp_path / "controller.json"
    other = robot("--json", paths[0])
    ours = start(
        DEPLOY, "guided_body_pos", "--task", "joystick", "--sampler", "3", "--domain", DOMAIN,
        "--clock", "tick", "--stand-s", "0.6", "--lost-s", "60", "--patience-s", PATIENCE,
        "--motors", "--json", paths[1],
    )  # fmt: skip
    for _ in range(3):  # a line each second
        until(ours, "/750: ")
    ours.send_signal(signal.SIGINT)
    status, out, err = end(ours)
    assert (status, err) == (0, ""), out
    assert " of 750 steps of the task" in out and "done, motors damped" in out
    assert " ms (p99); " in out
    status, out, err = end(other)
    assert (status, err) == (0, ""), out
    assert "upright when motors last held something" in out
    report = json.loads(paths[1].read_text())
    assert report["reason"] == "interrupted" and report["frame"] > 100
    # A plan for nearly each step, or fewer where this machine is slower than the simulation.
    assert 20 < report["plans"] <= report["frame"] + 1
    assert 0 < report["plan_p50_ms"] <= report["plan_p99_ms"]
    assert report["late_steps"] < 10


def test_a_dry_run_moves_no_robot():
    other = start(ROBOT, "--domain", DOMAIN, "--patience-s", PATIENCE)
    ours = start(
        DEPLOY, "walk", "--motion", "walk[0:0.2]", "--domain", DOMAIN, "--stand-s", "0.1",
        "--end-s", "0.1", "--lost-s", "60", "--patience-s", PATIENCE,
    )  # fmt: skip
    status, out, _ = end(ours)
    # It hangs in the default pose, which is near enough to where the walk begins.
    assert status == 0 and "dry run, nothing is published" in out
    assert ", 0 commands (0 steps bounded), 10 of 10" in out
    # What it says of the base is of a robot that is held: it does not fall.
    bases = re.findall(r"base at \[(\S+), (\S+), (\S+)\] m", out)
    assert bases and all(np.allclose(np.float64(b), [0, 0, 0.76], atol=0.03) for b in bases)
    other.send_signal(signal.SIGTERM)
    status, out, err = end(other)
    assert (status, err) == (130, "interrupted\n")
    assert "waits for commands: interface lo" in out and "first command" not in out


def test_the_robot_damps_its_motors_when_its_controller_dies():
    other = robot()
    ours = controller("--motors")
    until(other, "first command")
    ours.kill()
    ours.communicate()
    _, out, err = end(other)
    assert err == "" and "no command for 100 ms, motors damped" in out


def test_the_controller_stops_when_its_robot_dies():
    other = robot()
    ours = controller("--motors", lost_s="3")
    until(other, "first command")
    other.kill()
    other.communicate()
    status, out, err = end(ours)
    assert (status, err) == (1, "")
    assert "stopped: no state came for 3 s, the robot is gone; motors damped" in out


def test_sigterm_damps_the_motors():
    other = robot()
    ours = controller("--motors", "--end-s", "600")
    until(other, "first command")
    ours.send_signal(signal.SIGTERM)
    status, out, err = end(ours)
    assert (status, err) == (0, "") and "done, motors damped" in out
    assert end(other)[0] == 0


# --- a hostile robot, and a controller that is hurt -----------------------------------------------


class Peer:
    """A robot on the bus of this process, by a script: it may lie, and it keeps what it was sent.

    It waits for an answer to each state, so that its time is as slow as the machine.
    """

    BEGIN = 150  # states after the first command

    def __init__(self, bus, fault=None):
        self.bus, self.fault = bus, fault or (lambda peer, message: peer.send(message))
        self.is_honest = fault is None
        self.states, self.commands = bus.states, bus.commands
        while self.commands.take() is not None:  # of the robot before
            pass
        self.robot = SimulatedRobot(RobotConfig(physics_hz=500))
        self.robot.stand(g1.DEFAULT_JOINT_POS)
        self.robot.hang()
        self.hung, self.count, self.faulty = 0, 0, 0
        self.sent, self.pos = [], self.robot.sense().joint_pos
        self.other = None

    def message(self):
        sensors = self.robot.sense()
        self.pos = sensors.joint_pos
        time_s = sensors.time_s + SENSOR_DT * self.hung
        return unitree.to_low_state(dataclasses.replace(sensors, time_s=time_s), np.zeros(29), 5)

    def send(self, message, writer=None):
        message.crc = unitree.check_sum(message)
        (writer or self.states).write(message)

    def hang(self, process):
        """Until the first command comes."""
        ends = time.monotonic() + float(PATIENCE)
        while not self.sent and time.monotonic() < ends and process.poll() is None:
            self.hung += 1
            self.send(self.message())
            self.keep(self.commands.take(0.005))
        assert self.sent, (process.poll(), process.communicate() if process.poll() else "")

    def step(self, wait_s=1.0):
        """One state, true or not, and its answer."""
        self.robot.step()
        self.count += 1
        message = self.message()
        if self.count >= self.BEGIN:
            self.faulty += 1
            self.fault(self, message)
        else:
            self.send(message)
        before = len(self.sent)
        self.keep(self.commands.take(wait_s))
        return len(self.sent) > before

    def keep(self, message):
        if message is None:
            return
        command = unitree.from_low_cmd(message)
        self.sent.append((self.count, command, self.pos))
        self.robot.apply(command)

    def run(self, process, states=3000):
        """Be the robot until the other end has damped for good and ended; its report."""
        self.hang(process)
        answers = True
        while process.poll() is None and self.count < states:
            # One that does not answer a faulty robot is waited for no more.
            answers = self.step(0.2 if answers else 0.01)
            if not answers and (self.is_honest or self.count < self.BEGIN):
                answers = self.waited(process, 10.0)
        return end(process)

    def waited(self, process, seconds):
        """Whether an answer came at last: on a busy machine a process may rest for a while."""
        ends, before = time.monotonic() + seconds, len(self.sent)
        while len(self.sent) == before and process.poll() is None and time.monotonic() < ends:
            self.keep(self.commands.take(0.05))
        return len(self.sent) > before

    def drain(self, seconds):
        """Take what still comes."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.step(0.01)

    def check(self):
        """All commands bounded, by the bounds written down again, and none after damping."""
        before, seen_damped = None, False
        for _, command, pos in self.sent:
            if is_damped(command):
                seen_damped = True
                continue
            assert not seen_damped, "a command after damping"
            kp, kd = command.stiffness, command.damping
            reach = np.minimum((g1.EFFORT_LIMIT + kd * g1.VELOCITY_LIMIT) / kp, 4.5)
            # It was computed for this state or one before: what a joint turns by in 3 states.
            slack = 3 * SENSOR_DT * g1.VELOCITY_LIMIT
            assert (np.abs(command.joint_pos - pos) <= reach + slack).all()
            if before is not None and (before.stiffness == kp).all():
                step = np.minimum(3 * g1.EFFORT_LIMIT / kp, 5.5) + 1e-5
                assert (np.abs(command.joint_pos - before.joint_pos) <= step).all()
            before = command
        assert seen_damped, "it never damped"
        return [count for count, command, _ in self.sent if not is_damped(command)]


@pytest.fixture(scope="module")
def bus():
    """One for all peers, whose writer counts as one publisher."""
    made = unitree.Bus("lo", DOMAIN + 3)
    made.states = made.writer(unitree.LOW_STATE_TOPIC)
    made.commands = made.reader(unitree.LOW_CMD_TOPIC)
    return made


def hurt(*arguments, lost_s="5", **options):
    """A controller that a peer of this process drives; in simulated time, but for what is lost."""
    command = [
        sys.executable, str(DEPLOY), "walk", "--motion", "walk[0:6]", "--domain", str(DOMAIN + 3),
        "--clock", "tick", "--stand-s", "0.2", "--end-s", "600", "--lost-s", lost_s,
        "--patience-s", PATIENCE, "--motors", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    values = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    return subprocess.Popen(command, **(values | options))


def spike(peer, message):
    if peer.faulty == 1:
        message.motor_state[3].dq = 900.0
    peer.send(message)


def freeze(peer, message):
    peer.kept = getattr(peer, "kept", message)
    peer.send(peer.kept)


def five_a_second(peer, message):
    if peer.count % 100 == 0:
        peer.send(message)


def stale(peer, message):
    """Thirty old states for each one that would be new, which does not come."""
    for back in range(30):
        peer.send(dataclasses.replace(message, tick=message.tick - 2 * peer.faulty - 20 - back % 9))


def another(peer, message):
    """A second publisher, of another robot."""
    peer.send(message)
    if peer.other is None:
        peer.other = peer.bus.writer(unitree.LOW_STATE_TOPIC)
    told = dataclasses.replace(message, tick=message.tick + 1)
    told.motor_state[18].q += 1.0
    peer.send(told, peer.other)


def broken(peer, message):
    """Its check sum is wrong from now on: as if no state came."""
    message.crc = 1
    peer.states.write(message)


HOSTILE = {
    "spike": (spike, r"left_knee_joint turns at 900 rad/s, its motor at 20 at most", 3),
    "freeze": (freeze, r"no state came for 1 s, the robot is gone", 3),
    "slow": (five_a_second, r"\d\.\d states a second came|no state came for 1 s", 400),
    "stale": (stale, r"clock went back in 20 of \d\d states|no state came for 1 s", 3),
    "another": (another, r"states come from a second publisher", 3),
    "broken": (broken, r"no state came for 1 s, the robot is gone", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_robot_gets_bounded_commands_and_then_damping(name, bus):
    fault, reason, states = HOSTILE[name]
    peer, process = Peer(bus, fault), hurt(lost_s="1")
    status, out, err = peer.run(process, states=20_000)
    if peer.other is not None:  # the package's own clean-up never comes to it
        peer.other._writer._delete(peer.other._writer._ref)
    assert (status, err) == (1, "") and "motors damped" in out
    assert re.search(rf"stopped: .*({reason})", out), out[-500:]
    active = peer.check()
    assert len(active) > 100, "premise: it drove before"
    assert max(active) <= Peer.BEGIN + states


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGTSTP"])
def test_a_signal_damps_the_motors(name, bus):
    peer, process = Peer(bus), hurt()
    peer.hang(process)
    for _ in range(100):
        peer.step()
    process.send_signal(getattr(signal, name))
    process.send_signal(signal.SIGINT)  # another one cuts nothing short
    status, out, err = peer.run(process)
    assert (status, err) == (0, "") and "done, motors damped" in out
    active = peer.check()
    assert max(active) <= 110


def test_a_terminal_that_is_closed_damps_the_motors(bus):
    """As when a connection by ssh drops: SIGHUP, and neither input nor output any more."""
    ours, theirs = pty.openpty()

    def lead():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = hurt(stdin=theirs, stdout=theirs, stderr=theirs, text=False, preexec_fn=lead)
    os.close(theirs)
    peer = Peer(bus)
    peer.hang(process)
    for _ in range(60):
        peer.step()
    os.close(ours)
    status, *said = peer.run(process)
    assert status == 0, said
    assert max(peer.check()) <= 80


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP", "SIGSEGV"])
def test_a_second_process_damps_what_the_first_one_cannot(name, bus):
    peer, process = Peer(bus), hurt(lost_s="1")
    peer.hang(process)
    for _ in range(100):
        peer.step()
    process.send_signal(getattr(signal, name))
    peer.drain(3.0)
    active = [count for count, command, _ in peer.sent if not is_damped(command)]
    assert max(active) <= 110 and is_damped(peer.sent[-1][1])
    damping = sum(is_damped(command) for _, command, _ in peer.sent)
    if name != "SIGSTOP":
        process.wait(60)
        assert 50 <= damping <= 101  # for a second, and then it leaves
        return
    # One that goes on afterwards sees that it was away, and damps.
    process.send_signal(signal.SIGCONT)
    status, out, err = peer.run(process)
    assert status == 1 and re.search("control was suspended for|no state came for 1 s", out), out
    peer.check()


def test_a_guard_that_is_gone_ends_it(bus):
    peer, process = Peer(bus), hurt()
    peer.hang(process)
    for _ in range(50):
        peer.step()
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    (guard,) = listed.stdout.split()
    os.kill(int(guard), signal.SIGKILL)
    status, out, _ = peer.run(process)
    assert status == 1 and "stopped: the process that guards the motors has ended" in out
    peer.check()


def test_output_that_nobody_reads_does_not_hold_it_up(bus):
    """The pipe is full before it begins: no line can be written."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(write, bytes(4096)):
            pass
    os.set_blocking(write, True)
    process = hurt("--end-s", "0.1", "--motion", "walk[0:1]", stdout=write)
    os.close(write)
    peer = Peer(bus)
    peer.run(process)
    os.close(read)
    assert process.returncode == 0
    assert len(peer.check()) > 500  # 0.2 s of standing, 1 s of motion, 0.1 s of end


def test_a_process_without_any_stream_drives_as_well(bus, tmp_path):
    """Closed ones, whose numbers the sockets and the guard's pipes would get."""

    def close():
        for number in range(3):
            os.close(number)

    path = tmp_path / "report.json"
    process = hurt(
        "--end-s", "0.1", "--motion", "walk[0:0.4]", "--json", path, stdout=None, stderr=None,
        preexec_fn=close,
    )  # fmt: skip
    peer = Peer(bus)
    status, *said = peer.run(process)
    assert status == 0, said
    assert json.loads(path.read_text())["phase"] == "done" and len(peer.check()) > 200


# --- the procedure's table, over a bad network ----------------------------------------------------


class BadNetwork(Peer):
    """States are lost (2 %), late (5 %, so that newer ones overtake them) and repeated (5 %)."""

    def __init__(self, bus):
        super().__init__(bus)
        self.rng, self.held, self.remote = np.random.default_rng(0), [], [0] * 40

    def step(self, wait_s=1.0):
        self.robot.step()
        self.count += 1
        message = self.message()
        message.wireless_remote = list(self.remote)
        for due, late in [*self.held]:
            if due <= self.count:
                self.send(late)
                self.held.remove((due, late))
        chance = self.rng.random()
        if chance < 0.02:
            return True
        if chance < 0.07:
            self.held.append((self.count + 4, message))
            return True
        self.send(message)
        if chance < 0.12:
            self.send(message)
        before = len(self.sent)
        command = self.commands.take(wait_s)
        if self.rng.random() >= 0.02:  # nor does every command come
            self.keep(command)
        return command is not None or len(self.sent) > before

    def drive(self, process, until):
        """Be the robot up to this number of states."""
        while self.count < until and process.poll() is None:
            if not self.step():
                self.waited(process, 10.0)


def moved(bus, *arguments, lost_s="5"):
    """Half a second of standing up, one of a walk that ends in mid-stride, then standing."""
    times = ("--motion", "walk[4:5]", "--stand-s", "0.5", *arguments)
    process = hurt(*times, lost_s=lost_s, stdin=subprocess.PIPE)
    peer = BadNetwork(bus)
    peer.hang(process)
    return peer, process


STATES = {"stand": 150, "run": 500, "end": 1100}  # readings after which the procedure is there
ENDS = {
    "key": ("", 0),
    "remote": ("the stop button was pressed", 1),
    "link": ("no state came for 1 s, the robot is gone", 1),
    "envelope": ("left_knee_joint turns at 900 rad/s", 1),
}


@pytest.mark.parametrize("stop", ENDS)
@pytest.mark.parametrize("state", STATES)
def test_every_stop_of_the_procedure_damps(state, stop, bus):
    sentence, status = ENDS[stop]
    peer, process = moved(bus, lost_s="1" if stop == "link" else "5")
    peer.drive(process, STATES[state])
    assert process.poll() is None, end(process)
    began = peer.count
    if stop == "key":
        process.send_signal(signal.SIGINT)
    if stop == "remote":
        peer.remote[3] = 2  # B, held for long enough to come through
    if stop == "envelope":
        spike_of = peer.message

        def message():
            told = spike_of()
            told.motor_state[3].dq = 900.0
            return told

        peer.message = message
    if stop == "link":
        for _ in range(60):  # nothing comes any more
            if process.poll() is None:
                peer.waited(process, 1.0)
    found, out, err = peer.run(process)
    assert (found, err) == (status, "") and sentence in out, out[-500:]
    active = peer.check()
    # A signal is seen within a control step, a reading that is lost or late comes after some more.
    assert max(active) <= began + 20
    last = [command for _, command, _ in peer.sent if not is_damped(command)][-1]
    assert (last.stiffness[0] == 350) == (state == "stand"), "premise: who acted"
    if state != "stand":
        assert is_upright_of(peer)


def is_upright_of(peer):
    return peer.robot.data.qpos[2] > 0.4


@pytest.mark.parametrize("how", ["remote", "key"])
def test_the_procedure_from_hanging_to_its_end(how, bus):
    """off, stand, run, end; another motion on command, by way of a stand; and its end."""
    peer, process = moved(bus, "--then", "walk[0:1]", "--end-s", "5")
    peer.drive(process, STATES["end"])
    if how == "remote":
        peer.remote[3] = 1  # A
        peer.drive(process, STATES["end"] + 30)
        peer.remote[3] = 0
    else:
        process.stdin.write("\n")
        process.stdin.flush()
    while process.poll() is None and peer.count < 8000:
        if not peer.step():
            peer.waited(process, 10.0)
        if process.poll() is None and not is_damped(peer.sent[-1][1]):
            assert is_upright_of(peer), peer.count
    assert peer.robot.time_s > 0
    status, out, err = end(process)
    assert (status, err) == (0, ""), out
    assert "next: walk[0:1]" in out and "done, motors damped" in out
    assert "50 of 50 steps of the motion" in out
    lines = [line.split(":")[0].split()[0] for line in out.splitlines()]
    told = [name for name in lines if name in ("stand", "run", "end")]
    assert told[0] == "stand" and told[-1] == "end" and "run" in told
    # 0.5 s up, 1 s, a stand, 1 s and 5 s: so many states, and more for the stand between.
    assert max(peer.check()) > 500 * 7.5


def test_a_message_of_another_type_is_no_state(bus):
    """A peer that says the topic's name and means other fields: it is not listened to."""
    from cyclonedds.idl import IdlStruct
    from cyclonedds.pub import DataWriter
    from cyclonedds.topic import Topic

    @dataclasses.dataclass
    class Other(IdlStruct, typename="unitree_hg.msg.dds_.LowState_"):
        text: str

    reader = bus.reader(unitree.LOW_STATE_TOPIC)
    participant = bus._participant
    writer = DataWriter(participant, Topic(participant, unitree.LOW_STATE_TOPIC, Other))
    for _ in range(20):
        writer.write(Other("x" * 5000))
        assert reader.take(0.02) is None


def test_a_robot_that_does_not_listen_is_not_begun_with(deploy):
    policy = load_policy("walk")
    driver = Controller(policy, Motion(policy), ControllerConfig(state="estimated"))
    wire = Wire(lambda tick, message: message)
    wire.is_heard = False
    config = deploy["Config"]("walk", motors=True, patience_s=0.2)
    with pytest.raises(ConfigError, match="No robot listens on rt/lowcmd within 0.2 s, though"):
        deploy["drive"](driver, wire, wire, config)
    assert wire.sent == []


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (DEPLOY, ["walk", "--domain", DOMAIN, "--patience-s", "0.3"],
         r"No robot: nothing came on rt/lowstate within 0.3 s \(interface lo, domain \d+\)."),
        (DEPLOY, ["walk", "--interface", "eth77"],
         r"interface is 'eth77', expected a network interface of this machine: lo.*"),
        (DEPLOY, ["walk", "--domain", "231"], r"domain is 231, expected 0 to 230."),
        (DEPLOY, ["walk", "--state", "true"],
         r"state is 'true', expected 'estimated': a robot tells no position."),
        (DEPLOY, ["walk", "--then", "walk", "--at-end", "hold"],
         r"at_end is 'hold', expected 'balance' with --then: between two motions the .*"),
        (ROBOT, ["--repeat", "-0.1"], r"repeat is -0.1, expected a share below 1."),
        (DEPLOY, ["walk", "--lost-s", "0"], r"lost_s is 0.0, expected more than 0, up to 600 s."),
        (DEPLOY, ["nobody"], r"Unknown policy 'nobody';.*"),
        (ROBOT, ["--domain", DOMAIN + 1, "--patience-s", "0.3"],
         r"No controller: nothing came on rt/lowcmd within 0.3 s \(interface lo, domain \d+\)."),
        (ROBOT, ["--drop", "1"], r"drop is 1.0, expected a share below 1."),
        (ROBOT, ["--watchdog-ms", "0"], r"watchdog_ms is 0.0, expected more than 0, up to 10000."),
        (ROBOT, ["--interface", "lo:"], r"interface is 'lo:', expected a network interface .*"),
    ],
)  # fmt: skip
def test_what_cannot_begin_is_one_sentence(script, arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    signal.signal(signal.SIGTERM, before)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and re.fullmatch(f"error: {sentence}\n", err), err


@pytest.mark.parametrize("script", [DEPLOY, ROBOT])
def test_a_missing_package_is_one_sentence(script, monkeypatch, capsys):
    import bm_envs.deploy

    monkeypatch.setitem(sys.modules, "bm_envs.deploy.unitree", None)
    monkeypatch.delattr(bm_envs.deploy, "unitree")
    monkeypatch.setattr(sys, "argv", [str(script), *(["walk"] if script == DEPLOY else [])])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: DDS needs the package cyclonedds: pip install 'bm-envs[dds]' (Python 3.11 to "
        "3.13).\n"
    )


def test_messages_with_a_wrong_check_sum_are_passed_over():
    bus = unitree.Bus("lo", DOMAIN + 2)
    reader, writer = bus.reader(unitree.LOW_STATE_TOPIC), bus.writer(unitree.LOW_STATE_TOPIC)
    good = unitree.to_low_state(a_reading(), np.zeros(29), 5)
    bad = dataclasses.replace(good, tick=99)
    taken, ends = None, time.monotonic() + 60
    while taken is None and time.monotonic() < ends:  # until the two have found each other
        writer.write(good)
        taken = reader.take(0.1)
    assert taken is not None and taken.tick == 1234
    # Who sent it is known as long as it is the newest, though one waits for another in vain.
    sent_by = reader.publishers
    while reader.take(0.05) is not None:
        pass
    assert reader.take(0.01) is None and len(sent_by) == 1 and reader.publishers == sent_by
    before = reader.broken
    while reader.broken == before and time.monotonic() < ends:
        writer.write(bad)
        assert reader.take(0.1) is None or reader.broken == before
    assert reader.broken > before
    with pytest.raises(ConfigError, match="DDS cannot use interface 'lo' in domain"):
        unitree.Bus("lo", DOMAIN + 2)  # joined already
