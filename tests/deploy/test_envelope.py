"""The safety envelope: a test a row, on the simulated robot, by a clock that the test moves."""

import dataclasses
import os
import re
import runpy
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_files import make_clip, make_mlp

from bm_envs import rotations as rot
from bm_envs.deploy import envelope
from bm_envs.deploy.controller import (
    STANDBY_DAMPING,
    STANDBY_STIFFNESS,
    Controller,
    ControllerConfig,
)
from bm_envs.deploy.envelope import Envelope, Stream
from bm_envs.deploy.messages import Command
from bm_envs.deploy.process import Signals, Voice
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.policy import CONTROL_DT, PolicySpec, load_policy, shipped_policies, write_onnx
from bm_envs.robots import g1

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "tools" / "deploy.py"
ORACLES = Path(os.environ.get("BM_DATA_DIR", "/nonexistent")) / "oracle_policies"
REFUSED = {"stiffness", "damping", "action scale", "default pose"}
LOW, HIGH = g1.JOINT_RANGE.T


# --- the table ------------------------------------------------------------------------------------


def test_the_docs_show_the_table_of_the_code():
    text = (ROOT / "docs" / "deployment.md").read_text()
    block = re.search(r"<!-- envelope: begin -->\n\n(.*?)\n<!-- envelope: end -->", text, re.DOTALL)
    assert block and block[1] == envelope.markdown()


def test_every_row_has_a_test():
    elsewhere = {  # tests/deploy/test_dds.py, with processes
        "a signal to the program (Ctrl-C, kill)",
        "the program is killed, stopped or does not respond",
        "the machine fails, the cable is pulled",  # nothing here can react: the robot's own part
    }
    tested = REFUSED | set(TARGETS) | {row for row, *_ in FAULTS.values()} | elsewhere
    assert tested == {row.quantity for row in envelope.rows()}


def test_it_is_printed_without_a_robot(monkeypatch, capsys):
    pytest.importorskip("cyclonedds")
    monkeypatch.setattr("sys.argv", [str(DEPLOY), "walk", "--envelope", "--lost-s", "0.125"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DEPLOY), run_name="__main__")
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "")
    for row in envelope.rows(lost_s=0.125):
        assert f"  {row.quantity}: {row.bound}; {row.reaction}, {row.within}\n" in out


# --- a policy's constants -------------------------------------------------------------------------


class Told:
    """A policy that answers what it is told to; a function is asked with its number of calls."""

    def __init__(self, action=0.0, spec=None):
        self.spec, self.path, self.name = spec or PolicySpec.for_g1(), Path("told.onnx"), "told"
        self.motion = self.info = None
        self.action, self.calls = action, 0

    def __call__(self, obs):
        self.calls += 1
        action = self.action(self.calls) if callable(self.action) else self.action
        return np.full((1, 29), action, np.float32)


CONSTANTS = {
    "joint_stiffness": (9e3, 501.0, 0.99, 1e-6),
    "joint_damping": (9e2, 20.1, 0.0),
    "action_scale": (90.0, 2.1, 1e-9),
    "default_joint_pos": (6.0, -3.3, float(HIGH.max()) + 1),
}
# These are none for any robot, and refused when the policy is read.
IMPOSSIBLE = {
    "joint_stiffness": (1e9, 0.0),
    "joint_damping": (1e9, -1.0),
    "action_scale": (1e6, 0.0, -1.0),
    "default_joint_pos": (1000.0,),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in CONSTANTS.items() for value in values]
)
def test_a_policy_that_is_none_for_a_robot_is_refused(key, value):
    spec = PolicySpec.for_g1()
    values = [value if i == 7 else old for i, old in enumerate(getattr(spec, key))]
    policy = Told(spec=dataclasses.replace(spec, **{key: tuple(values)}))
    motion = Motion(policy, "stand[0:1]")
    sentence = (
        rf"told.onnx: {key} of right_hip_roll_joint is {re.escape(f'{value:g}')} [\w /]+, "
        r"expected \S+ to \S+ for a robot; correct the policy's metadata \(docs/deployment.md has "
        r"the table of bounds\)\."
    )
    with pytest.raises(PolicyError) as error:
        Controller(policy, motion)
    assert re.fullmatch(sentence, str(error.value)), error.value


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in IMPOSSIBLE.items() for value in values]
)
def test_a_policy_that_is_none_for_any_robot_is_not_even_read(key, value):
    spec = PolicySpec.for_g1()
    values = [value if i == 7 else old for i, old in enumerate(getattr(spec, key))]
    with pytest.raises(PolicyError, match=f"{key} of right_hip_roll_joint is .*, expected "):
        dataclasses.replace(spec, **{key: tuple(values)})


@pytest.mark.parametrize("flags", [[], ["--motors"], ["--envelope"]])
def test_a_file_with_such_a_constant_ends_the_command(flags, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cyclonedds")
    path = tmp_path / "bad.onnx"
    stiff = [1e3, *PolicySpec.for_g1().joint_stiffness[1:]]
    write_onnx(path, make_mlp(), PolicySpec.for_g1(stiffness=stiff), make_clip())
    monkeypatch.setattr("sys.argv", [str(DEPLOY), str(path), *flags])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DEPLOY), run_name="__main__")
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1
    assert "joint_stiffness of left_hip_pitch_joint is 1000 N m/rad, expected 1 to 500" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["guided_body_pos"], "guided_body_pos is a guided model, which has no motion: name a"),
        (["walk", "--task", "joystick"], "task is 'joystick', but walk is no guided model"),
        (
            ["guided_body_pos", "--task", "joystick", "--motion", "walk"],
            "motion is given, but a guided model takes none.",
        ),
        (["missing.onnx", "--task", "joystick"], "missing.onnx: no such policy file or run"),
    ],
)
def test_a_guided_model_and_its_task_belong_together(arguments, sentence, monkeypatch, capsys):
    pytest.importorskip("cyclonedds")
    monkeypatch.setattr("sys.argv", [str(DEPLOY), *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DEPLOY), run_name="__main__")
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "") and err.count("\n") == 1 and sentence in err


def test_the_envelope_of_a_guided_model_is_printed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(DEPLOY), "guided_body_pos", "--envelope"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DEPLOY), run_name="__main__")
    out, err = capsys.readouterr()
    assert (stop.value.code, err) == (0, "") and out.startswith("safety envelope")


def test_every_shipped_policy_is_one_for_a_robot():
    names = shipped_policies()
    assert {"builtin", "walk", "walks", "walks_on"} <= {*names}
    for name in names:
        envelope.check_policy(load_policy(name))


@pytest.mark.skipif(not ORACLES.is_dir(), reason="BM_DATA_DIR with oracle_policies/ is not set")
def test_published_policies_are_for_a_robot():
    envelope.check_policy(load_policy(ORACLES / "jump_wose" / "Jump_wose.onnx"))
    config = ROOT / "benchmarks" / "policy_configs" / "unitree_dance1_subject2.json"
    envelope.check_policy(load_policy(ORACLES / "dance1_subject2" / "policy.onnx", config=config))


def test_standing_is_within_the_envelope_of_policies():
    assert (STANDBY_STIFFNESS <= envelope.STIFFNESS_RANGE[1]).all()
    assert (STANDBY_DAMPING <= envelope.DAMPING_RANGE[1]).all()


# --- commands -------------------------------------------------------------------------------------

gains = st.tuples(st.floats(1, 500), st.floats(0.05, 20))
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


def within(sent, joint_pos, before):
    """The three bounds, written down again, joint by joint."""
    for j in range(29):
        kp, kd, effort = sent.stiffness[j], sent.damping[j], g1.EFFORT_LIMIT[j]
        target, at = sent.joint_pos[j], joint_pos[j]
        beyond = min(2 * effort / kp, 3.6)
        # A joint that is out of its range already may be asked to stay where it is.
        assert min(LOW[j] - beyond, at) - 1e-9 <= target <= max(HIGH[j] + beyond, at) + 1e-9
        reach = min((effort + kd * g1.VELOCITY_LIMIT[j]) / kp, 4.5)
        assert abs(target - at) <= reach + 1e-9
        if before is not None and (before.stiffness == sent.stiffness).all():
            step, moved = min(3 * effort / kp, 5.5), abs(target - before.joint_pos[j])
            # What the robot moved by comes first: the target stays near it.
            assert moved <= step + 1e-9 or abs(target - at) >= reach - 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=12), gains, st.integers(0, 2**32 - 1))
def test_whatever_is_wanted_what_is_sent_is_within_bounds(wanted, gain, seed):
    rng = np.random.default_rng(seed)
    held, before = Envelope(), None
    pos = rng.uniform(LOW, HIGH)
    for k, value in enumerate(wanted):
        command = Command(
            value * rng.choice([-1.0, 0.3, 1.0], 29), np.full(29, gain[0]), np.full(29, gain[1])
        )
        sent, _ = held.bound(command, pos, 0.02 * k, is_new=True)
        within(sent, pos, before)
        pos = np.clip(pos + rng.uniform(-0.1, 0.1, 29), LOW, HIGH)
        before = sent


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 20))
def test_bounds_on_reach_change_no_torque(seed, size):
    """A motor that saturates gives the same torque for the bounded target, however it turns."""
    rng = np.random.default_rng(seed)
    pos, vel = rng.uniform(LOW, HIGH), rng.uniform(-1, 1, 29) * g1.VELOCITY_LIMIT
    kp, kd = g1.STIFFNESS, g1.DAMPING
    wanted = Command(pos + size * rng.uniform(-1, 1, 29), kp, kd)
    # The first command has no step to be bounded; targets beyond the range are of the other bound.
    sent, _ = Envelope().bound(wanted, pos, 0.0, is_new=True)
    inside = np.abs(wanted.joint_pos - np.clip(wanted.joint_pos, LOW, HIGH)) <= np.minimum(
        2 * g1.EFFORT_LIMIT / kp, 3.6
    )

    def torque(command):
        wish = kp * (command.joint_pos - pos) - kd * vel
        return np.clip(wish, -g1.EFFORT_LIMIT, g1.EFFORT_LIMIT)[inside]

    np.testing.assert_allclose(torque(sent), torque(wanted), atol=1e-9)


# --- one robot, one fault -------------------------------------------------------------------------

pytest.importorskip("cyclonedds")
from bm_envs.deploy import unitree  # noqa: E402  (needs the package)

BEGIN = 150  # states until the fault; the policy runs since the 100th


class Wire:
    """A robot that `deploy.drive` talks to, and a clock that passes with its states."""

    def __init__(self, fault=lambda wire, message: message):
        self.robot = SimulatedRobot(RobotConfig(physics_hz=500))
        self.robot.stand(g1.DEFAULT_JOINT_POS)
        self.fault, self.now, self.count = fault, 100.0, 0
        self.broken, self.is_heard, self.heard, self.publishers = 0, True, 1, (1,)
        self.sent, self.since = [], 0
        self.pos = self.robot.sense().joint_pos
        self.began_s = self.damped_s = None

    # Of the module `time`, for `deploy`.
    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def take(self, timeout_s=0.0):
        """The next state, 2 ms later; the fault may change it, hold it back, or send another."""
        self.publishers = (1,)
        if self.count < BEGIN or timeout_s >= SENSOR_DT:
            self.robot.step()
            self.now += SENSOR_DT
            self.count += 1
        else:
            self.now += timeout_s
        if self.count < BEGIN:
            return self.message()
        if self.began_s is None:
            self.began_s = self.now
        message = self.fault(self, self.message())
        self.since += message is not None
        return message

    def message(self):
        sensors = self.robot.sense()
        self.pos = sensors.joint_pos
        return unitree.to_low_state(sensors, np.zeros(29), 5)

    def write(self, message):
        command = unitree.from_low_cmd(message)
        if self.damped_s is None and not command.stiffness.any():
            self.damped_s = self.now
        self.sent.append((self.began_s is not None, command, self.pos))
        self.robot.apply(command)


def joint(name):
    return g1.JOINT_NAMES.index(name)


def each(change):
    """A fault in every state."""

    def fault(wire, message):
        change(message)
        return message

    return fault


def once(change):
    def fault(wire, message):
        if wire.since == 0:
            change(message)
        return message

    return fault


def motor(name, **values):
    def change(message):
        for key, value in values.items():
            setattr(message.motor_state[joint(name)], key, value)

    return change


def moved(name, by):
    def change(message):
        message.motor_state[joint(name)].q += by

    return change


def imu(name, function):
    def change(message):
        old = np.array(getattr(message.imu_state, name))
        setattr(message.imu_state, name, [float(value) for value in function(old)])

    return change


def turned(angle, axis=(0.0, 0.0, 1.0)):
    turn = rot.quat_from_axis_angle(angle * np.array(axis))
    return imu("quaternion", lambda quat: rot.quat_mul(turn, quat))


def button(message):
    message.wireless_remote[3] = 2


def frozen(wire, message):
    wire.kept = getattr(wire, "kept", message)
    return wire.kept


def flood(wire, message):
    """Ten old states in the time of one; none is new."""
    wire.now -= 0.9 * SENSOR_DT
    return dataclasses.replace(message, tick=250 - wire.since % 200)


def slow(wire, message):
    return message if wire.count % 100 == 0 else None  # 5 a second


def other_pose(message):
    moved("left_elbow_joint", 0.5)(message)
    moved("left_knee_joint", 0.4)(message)


def second_publisher(wire, message):
    if wire.since % 2:
        wire.publishers = (2,)
        other_pose(message)
    return message


def two_robots(wire, message):
    """Through one bridge, so that the publisher is one: the other robot's clock is behind."""
    if wire.since % 2:
        other_pose(message)
        return dataclasses.replace(message, tick=message.tick - 300)
    return message


def two_robots_ahead(wire, message):
    if wire.since % 2:
        return dataclasses.replace(message, tick=message.tick + 900)
    return message


def slow_clock(wire, message):
    """The robot's clock passes at a tenth of what it did: the states are older and older."""
    first = wire.first = getattr(wire, "first", message.tick)
    return dataclasses.replace(message, tick=first + (message.tick - first) // 10)


def restarted(wire, message):
    return dataclasses.replace(message, tick=message.tick + 4_000_000_000)


def raises(wire, message):
    raise ZeroDivisionError


NAN = float("nan")
STATE = SENSOR_DT  # s; the fault's first state is the one that is answered by damping
WINDOW = envelope.WINDOW_S + STATE
# Row of the table, fault, longest time from the fault to the first damping command, what is said.
FAULTS = {
    "not a number": ("any reading", once(motor("left_knee_joint", q=NAN)), STATE, "not a finite"),
    "imu is nan": ("any reading", once(imu("gyroscope", lambda v: v * NAN)), STATE, "not a finite"),
    "quaternion of zeros": ("any reading", once(imu("quaternion", lambda q: 0 * q)), STATE,
                            "is not a finite"),
    "quaternion too long": ("length of the quaternion", once(imu("quaternion", lambda q: 1.5 * q)),
                            STATE, r"quaternion has length 1\.5, expected 1"),
    "spike of joint speed": ("joint speed", once(motor("left_knee_joint", dq=1000.0)), STATE,
                             r"left_knee_joint turns at 1e\+03 rad/s, its motor at 20 at most"),
    "spike of angular velocity": ("angular velocity", once(imu("gyroscope", lambda v: v + 100)),
                                  STATE, r"angular velocity is 17\d rad/s, beyond 35"),
    "spike of acceleration": ("acceleration", once(imu("accelerometer", lambda v: v + 1e4)), STATE,
                              r"acceleration is 1\.73e\+04 m/s\^2, beyond 500"),
    "pose jumps": ("joint positions against their speeds", once(moved("left_elbow_joint", 0.6)),
                   STATE, r"left_elbow_joint is 0\.\d\d rad off where its speed takes it"),
    "pose jumps for good": ("joint positions against their speeds",
                            each(moved("left_elbow_joint", 0.6)), STATE, "left_elbow_joint is 0"),
    "joint speed is another's": ("joint positions against their speeds",
                                 each(motor("left_elbow_joint", dq=15.0)), WINDOW,
                                 "left_elbow_joint is 0"),
    "orientation jumps": ("orientation against angular velocity", once(turned(0.9)), STATE,
                          "the orientation is 5[0-3] degrees off"),
    "angular velocity in degrees": ("orientation against angular velocity",
                                    each(imu("gyroscope", lambda v: np.degrees(v + 0.2))), WINDOW,
                                    "the orientation is|angular velocity is"),
    "joint beyond its range": ("joint beyond its range",
                               once(motor("left_knee_joint", q=float(HIGH[3]) + 0.2)), STATE,
                               "left_knee_joint is at 3.08 rad, 0.20 rad beyond its range"),
    "tilted": ("tilt off the reference's", once(turned(1.2, (1.0, 0, 0))), STATE, "tilted by"),
    "button": ("B or select on the remote", once(button), STATE, "the stop button was pressed"),
    "frozen": ("age of the newest state", frozen, 0.2, "no state came for 0.2 s"),
    "gone": ("age of the newest state", lambda wire, message: None, 0.2, "no state came for 0.2"),
    "flood of old states": ("age of the newest state", flood, 0.2,
                            "no state came for 0.2 s|clock went back in 20 of"),
    "five states a second": ("rate of states", slow, 0.7, r"[3456]\.\d states a second came, 25 "
                             "are need|no state came for 0.2 s"),
    "clock goes back": ("the robot's clock", restarted, STATE, "clock went back, it was restarted"),
    "two robots": ("the robot's clock", two_robots, 50 * STATE, "clock went back in 20 of 50"),
    "two robots, ahead": ("the robot's clock", two_robots_ahead, 50 * STATE,
                          "clock jumped by 0.9|clock went back in 20 of"),
    "second publisher": ("publisher of the states", second_publisher, 2 * STATE,
                         "states come from a second publisher"),
    "other robot": ("mode_machine", lambda wire, m: dataclasses.replace(m, mode_machine=4), STATE,
                    "mode_machine changed from 5 to 4"),
    "motor error": ("a motor's error bits", once(motor("left_knee_joint", motorstate=0x410)), STATE,
                    "the motor of left_knee_joint reports error 0x410"),
    "hot": ("a motor's temperature", once(motor("left_knee_joint", temperature=[40, 111])), STATE,
            "the motor of left_knee_joint is at 111 C, at most 110 are allowed"),
    "defect": ("an error in the program", raises, STATE, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def deploy():
    # Dataclasses look their module up by its name, where `run_path` leaves nothing.
    return runpy.run_path(str(DEPLOY))


@pytest.fixture(scope="module")
def walk():
    return load_policy("walk")


def drive(deploy, wire, policy, *, motors=True, clock="tick", motion="walk[0:4]", **changes):
    driver = Controller(
        policy, Motion(policy, motion), ControllerConfig(state="estimated", stand_s=0.2, end_s=0.2)
    )
    config = deploy["Config"]("walk", motors=motors, clock=clock, **changes)
    deploy["drive"].__globals__["time"] = wire
    said = []
    try:
        report = deploy["drive"](
            driver, wire, wire if motors else None, config, say=lambda line: None, warn=said.append
        )
    finally:
        deploy["drive"].__globals__["time"] = time
    return report, driver, said


def check_commands(wire):
    """All that was sent: bounded, and nothing but damping after the first damping."""
    before, damped = None, False
    for _, command, pos in wire.sent:
        # The message is in float32, of values up to some 5.
        if command.stiffness.any():
            assert not damped, "a command after damping"
            reach = (g1.EFFORT_LIMIT + command.damping * g1.VELOCITY_LIMIT) / command.stiffness
            step = 3 * g1.EFFORT_LIMIT / command.stiffness
            far = np.abs(command.joint_pos - pos)
            assert (far <= np.minimum(reach, 4.5) + 1e-5).all()
            if before is not None and (before.stiffness == command.stiffness).all():
                assert (np.abs(command.joint_pos - before.joint_pos) <= step + 1e-5).all()
        else:
            damped = True
            assert (command.damping > 0).all() and not command.torque.any()
        assert (np.abs(command.joint_pos) < 7).all()
        before = command
    assert damped


# Of the stream of states the two clocks are judged apart.
BY_HOST = ("frozen", "gone", "flood of old states", "five states a second", "clock goes back",
           "two robots", "two robots, ahead", "second publisher", "pose jumps", "orientation jumps",
           "joint speed is another's", "angular velocity in degrees")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "clock"), [*((name, "tick") for name in FAULTS), *((name, "host") for name in BY_HOST)]
)
def test_the_robot_is_damped_in_time(name, clock, deploy, walk):
    row, fault, within_s, sentence = FAULTS[name]
    wire = Wire(fault)
    if fault is raises:
        with pytest.raises(ZeroDivisionError):
            drive(deploy, wire, walk, clock=clock)
    else:
        report, _, _ = drive(deploy, wire, walk, clock=clock)
        assert report.phase == "damping" and re.search(sentence, report.reason), report.reason
    assert wire.damped_s is not None and wire.began_s is not None
    # The clock is a sum of thousands of steps of 2 ms; the wait for a state ends up to one late.
    assert wire.damped_s - wire.began_s <= within_s + STATE + 1e-6
    check_commands(wire)
    active = [command for after, command, _ in wire.sent if after and command.stiffness.any()]
    assert len(active) <= within_s / SENSOR_DT + 1


ANY_FLOAT = st.one_of(st.floats(width=32), st.floats(-3, 3, width=32))
LIES = st.lists(
    st.tuples(
        st.sampled_from(["q", "dq", "quaternion", "gyroscope", "accelerometer"]),
        st.integers(0, 28), ANY_FLOAT, st.integers(0, 20),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(LIES)
def test_whatever_states_say_commands_are_bounded(deploy, walk, lies):
    """Any numbers in any fields, from any state on; it may go on or end, but never leave bounds."""

    def fault(wire, message):
        for field, index, value, since in lies:
            if wire.since < since:
                continue
            if field in ("q", "dq"):
                setattr(message.motor_state[index], field, value)
            else:
                values = list(getattr(message.imu_state, field))
                values[index % len(values)] = value
                setattr(message.imu_state, field, values)
        return message

    wire = Wire(fault)
    report, _, _ = drive(deploy, wire, walk, motion="walk[0:0.3]")
    assert report.phase in ("done", "damping")
    check_commands(wire)


def test_the_clock_of_old_states_is_noticed(deploy, walk):
    """States that come as fast as ever but are older and older, which the host's clock tells."""
    wire = Wire(slow_clock)
    global BEGIN
    kept, BEGIN = BEGIN, 600  # the clock's rate is known after a second
    try:
        report, _, _ = drive(deploy, wire, walk, clock="host", motion="walk[0:6]")
    finally:
        BEGIN = kept
    assert re.search(
        r"clock runs at 0\.(20|1\d) times its rate at first|states a second", report.reason
    )
    assert wire.damped_s - wire.began_s <= 0.7 + STATE
    check_commands(wire)


def test_a_low_voltage_and_heat_are_warnings(deploy, walk):
    def fault(wire, message):
        message.motor_state[3].vol = 38.5
        if wire.since > 50:
            message.motor_state[4].temperature = [20, 90]
            message.motor_state[3].vol = 0.0
        return message

    report, _, said = drive(deploy, Wire(fault), walk, motion="walk[0:1]")
    assert report.reason == ""
    assert said == [
        "the motor of left_knee_joint has 38.5 V",
        "the motor of left_ankle_pitch_joint is at 90 C",
    ]


TARGETS = {
    "target beyond the joint's range", "target from the measured position",
    "target's change in a control step", "action",
    "control steps late by more than one, or without an action in any plan",
    "a motor's voltage",
}  # fmt: skip


@pytest.mark.parametrize("action", [1e6, -1e6, 3e38])
def test_actions_without_measure_move_nothing(action, deploy):
    policy = Told(lambda call: action if call > 20 else 0.0)
    wire = Wire()
    report, _, _ = drive(deploy, wire, policy, motion="stand[0:4]")
    assert re.match(r"the target of left_hip_pitch_joint is -?\d.* rad, more than 4", report.reason)
    assert policy.calls == 21
    check_commands(wire)


def test_targets_that_must_be_bounded_again_and_again_end_it(deploy):
    """A policy whose ankles and wrists ask for more than there is, while the robot stands."""
    action = np.zeros(29, np.float32)
    action[[joint("left_wrist_yaw_joint"), joint("right_wrist_yaw_joint")]] = 30.0  # 2.2 rad
    wire = Wire()
    report, driver, _ = drive(deploy, wire, Told(lambda call: action), motion="stand[0:4]")
    assert report.reason.startswith("targets were out of bounds in 10 of 25 control steps, left_wr")
    # While the policy is blended in, gains change and their distance alone bounds targets.
    blended = round(driver.config.blend_s / CONTROL_DT)
    assert report.bounded_steps == driver.frame - blended == envelope.BOUNDED_STEPS
    check_commands(wire)


def test_targets_that_alternate_are_bounded_in_rate(deploy):
    action = np.zeros(29, np.float32)
    action[joint("left_wrist_yaw_joint")] = 8.0  # 0.6 rad, and its steps 1.2
    wire = Wire()
    report, _, _ = drive(
        deploy, wire, Told(lambda call: action * (-1) ** call), motion="stand[0:4]"
    )
    assert report.reason.startswith("targets were out of bounds in 10 of 25 control steps, left_wr")
    check_commands(wire)


def test_an_action_that_is_no_number_damps_at_once(deploy):
    policy = Told(lambda call: np.nan if call > 20 else 0.0)
    wire = Wire()
    report, _, _ = drive(deploy, wire, policy, motion="stand[0:4]")
    assert report.reason == "the policy's action is not finite" and policy.calls == 21
    check_commands(wire)


def test_a_policy_that_is_too_slow_ends_it(deploy):
    wire = Wire()

    def act(call):
        wire.now += 0.045 if call > 10 else 0.0
        return 0.0

    policy = Told(act)
    report, driver, _ = drive(deploy, wire, policy, motion="stand[0:4]", clock="host")
    assert "10 of 50 control steps came more than 20 ms late" in report.reason
    assert report.late_steps == envelope.LATE_STEPS and policy.calls <= 10 + envelope.LATE_OF
    check_commands(wire)


def test_a_controller_that_was_suspended_does_not_go_on(deploy):
    """As after Ctrl-Z, a sleeping laptop, or a debugger."""
    wire = Wire()

    def act(call):
        wire.now += 3.0 if call == 10 else 0.0
        return 0.0

    report, _, _ = drive(deploy, wire, Told(act), motion="stand[0:4]", clock="host")
    assert "control was suspended for 3.0" in report.reason
    check_commands(wire)


def test_a_wall_clock_that_goes_back_is_no_matter(deploy, walk, monkeypatch):
    hours = iter(range(10**6, 0, -1))
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    report, _, _ = drive(deploy, Wire(), walk, motion="walk[0:0.4]", clock="host")
    assert (report.phase, report.reason) == ("done", "")


def test_ticks_begin_again_after_32_bits(deploy, walk):
    def fault(wire, message):
        return dataclasses.replace(message, tick=(message.tick + (1 << 32) - 700) % (1 << 32))

    wire = Wire()
    original = wire.message
    wire.message = lambda: fault(wire, original())
    report, _, _ = drive(deploy, wire, walk, motion="walk[0:1]")
    assert (report.phase, report.reason, report.late_states) == ("done", "", 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mode_machine": 4}, r"mode_machine 4 is a G1 with 23 joints, expected 5 \(29 joints\)"),
        ({"mode_machine": 14}, r"mode_machine 14 is a G1 with a locked waist, expected 5"),
        ({"heard": 2}, r"2 publishers send rt/lowstate, expected one robot \(interface lo"),
        ({"motorstate": 1}, r"the motor of left_hip_pitch_joint reports error 0x1; motors stay"),
    ],
)
def test_what_motors_are_not_switched_on_for(change, sentence, deploy, walk):
    wire = Wire()
    original = wire.message

    def message():
        told = original()
        if "mode_machine" in change:
            told.mode_machine = change["mode_machine"]
        told.motor_state[0].motorstate = change.get("motorstate", 0)
        return told

    wire.message, wire.heard = message, change.get("heard", 1)
    with pytest.raises(ConfigError, match=sentence):
        drive(deploy, wire, walk)
    assert wire.sent == []


def test_a_dry_run_goes_on_where_targets_are_bounded(deploy):
    """Its robot does not do what it is asked for: here it hangs in the air."""
    wire = Wire()
    wire.robot.step = lambda: None
    wire.robot.hang()
    ticks = iter(range(0, 10**6, 2))
    original = wire.message
    wire.message = lambda: dataclasses.replace(original(), tick=next(ticks))
    report, driver, _ = drive(deploy, wire, Told(1e4), motors=False, motion="stand[0:1]")
    assert (report.phase, report.reason, report.commands) == ("done", "", 0)
    assert driver.envelope.bounded > envelope.BOUNDED_STEPS


def test_commands_that_cannot_be_sent_end_it_in_a_sentence(deploy, walk):
    """The network's interface is gone: neither the command nor, at first, the damping gets out."""
    wire = Wire()
    original, failed = wire.write, []

    def write(message):
        if wire.count >= BEGIN and len(failed) < 20:
            failed.append(message)
            raise ConnectionError("network is unreachable")
        original(message)

    wire.write = write
    report, _, _ = drive(deploy, wire, walk)
    assert report.reason == "commands cannot be sent (network is unreachable)"
    # One command, and 19 of the 100 that damp.
    assert len(failed) == 20 and sum(not c.stiffness.any() for _, c, _ in wire.sent) == 81
    check_commands(wire)


# --- the stream by itself -------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats(0, 0.5)), max_size=60))
def test_time_never_goes_back_whatever_ticks_come(states):
    stream, now, last = Stream(lost_s=0.2, by_tick=True), 0.0, 0.0
    for tick, wait in states:
        now += wait
        kind, trouble = stream.take(tick, now)
        assert kind in ("fresh", "overtaken", "repeated") and stream.time_s >= last
        last = stream.time_s
        if trouble:
            break


# --- the process's surroundings -------------------------------------------------------------------


def test_every_signal_only_asks():
    """But for those of the kernel, and those after which no Python runs."""
    before = signal.getsignal(signal.SIGHUP)
    catchable = signal.valid_signals() - {
        signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
        signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS, signal.SIGCHLD, signal.SIGPIPE,
        signal.SIGXFSZ, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG,
        signal.SIGTTIN, signal.SIGTTOU,
    }  # fmt: skip
    assert len(catchable) > 12
    for number in sorted(catchable):
        with Signals() as signals:
            assert signals.asked == ""
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGTTOU)  # ignored
            assert signals.asked != ""
            signal.raise_signal(signal.SIGINT)  # again: no exception, nothing is cut short
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_voice_never_holds_up_and_never_fails():
    read, write = os.pipe()
    voice = Voice(write)
    began = time.monotonic()
    for _ in range(10_000):  # far more than the pipe takes
        voice("x" * 1000)
    os.close(read)
    voice.close(0.5)
    assert time.monotonic() - began < 60  # it would be for ever
    os.close(write)
    closed = Voice(write)
    closed("nobody hears this")
    closed.close()


def test_without_an_output_nothing_is_written_elsewhere(monkeypatch):
    """Its number may be that of another file by then."""
    monkeypatch.setattr(os, "write", lambda *arguments: pytest.fail("it wrote"))
    voice = Voice(None)
    voice("nobody hears this")
    voice.close()


def test_a_voice_says_all_in_order():
    read, write = os.pipe()
    voice = Voice(write)
    for k in range(20):
        voice(f"line {k}")
    voice.close()
    os.close(write)
    with os.fdopen(read) as stream:
        assert stream.read().splitlines() == [f"line {k}" for k in range(20)]


def test_settings_that_cannot_be_are_one_sentence(deploy, tmp_path):
    with pytest.raises(ConfigError, match="is a folder, expected the name of a file for --json"):
        deploy["Config"]("walk", json=tmp_path)
