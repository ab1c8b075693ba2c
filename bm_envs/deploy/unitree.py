"""Unitree's low-level DDS topics of the G1: motor commands (`rt/lowcmd`), states (`rt/lowstate`).

Messages are those of the IDL module `unitree_hg` (35 motor slots, of which the G1 uses the first 29
in the order of our table). Field names, types, the size of the C structures and the check sum are
facts of unitreerobotics/unitree_sdk2_python (`idl/unitree_hg`, `utils/crc.py`); the code is ours.
Nothing here has spoken to a robot yet. One file because messages, check sum and topics are one
protocol.
"""

# No `from __future__ import annotations` here: the package reads the types of the fields. Those of
# arrays say nothing to a type checker.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
import socket
import time
import zlib
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from cyclonedds import idl
from cyclonedds.core import (
    DDSException,
    InstanceState,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import annotations, types
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from bm_envs import rotations as rot
from bm_envs.deploy import envelope
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.errors import ConfigError
from bm_envs.robots import g1

LOW_CMD_TOPIC, LOW_STATE_TOPIC = "rt/lowcmd", "rt/lowstate"
SLOTS = 35
SERIES_MODE = 0  # mode_pr: ankles and waist in pitch and roll, as in our table, not motor by motor
ENABLED, DISABLED = 1, 0  # modes of a motor
# Bits of the remote control that stop: select and B. Bytes 2 and 3 of `wireless_remote`.
STOP_BUTTONS = ((2, 0b1000), (3, 0b10))
NEXT_BUTTON = (3, 0b1)  # A
MAX_DOMAIN = 230  # larger numbers of domains have no ports


@dataclass
@annotations.final
@annotations.autoid("sequential")
class MotorCmd_(idl.IdlStruct, typename="unitree_hg.msg.dds_.MotorCmd_"):
    """Command of one motor: torque `tau + kp (q - measured) + kd (dq - measured)`."""

    mode: types.uint8
    q: types.float32
    dq: types.float32
    tau: types.float32
    kp: types.float32
    kd: types.float32
    reserve: types.uint32


@dataclass
@annotations.final
@annotations.autoid("sequential")
class LowCmd_(idl.IdlStruct, typename="unitree_hg.msg.dds_.LowCmd_"):
    """Command of all motors. `mode_machine` is that of the robot's state."""

    mode_pr: types.uint8
    mode_machine: types.uint8
    motor_cmd: types.array[MotorCmd_, SLOTS]
    reserve: types.array[types.uint32, 4]
    crc: types.uint32


@dataclass
@annotations.final
@annotations.autoid("sequential")
class IMUState_(idl.IdlStruct, typename="unitree_hg.msg.dds_.IMUState_"):
    """The pelvis's inertial unit; quaternion w x y z."""

    quaternion: types.array[types.float32, 4]
    gyroscope: types.array[types.float32, 3]
    accelerometer: types.array[types.float32, 3]
    rpy: types.array[types.float32, 3]
    temperature: types.int16


@dataclass
@annotations.final
@annotations.autoid("sequential")
class MotorState_(idl.IdlStruct, typename="unitree_hg.msg.dds_.MotorState_"):
    """State of one motor."""

    mode: types.uint8
    q: types.float32
    dq: types.float32
    ddq: types.float32
    tau_est: types.float32
    temperature: types.array[types.int16, 2]
    vol: types.float32
    sensor: types.array[types.uint32, 2]
    motorstate: types.uint32
    reserve: types.array[types.uint32, 4]


@dataclass
@annotations.final
@annotations.autoid("sequential")
class LowState_(idl.IdlStruct, typename="unitree_hg.msg.dds_.LowState_"):
    """State of the robot. `tick` is its clock; our simulated robot counts milliseconds."""

    version: types.array[types.uint32, 2]
    mode_pr: types.uint8
    mode_machine: types.uint8
    tick: types.uint32
    imu_state: IMUState_
    motor_state: types.array[MotorState_, SLOTS]
    wireless_remote: types.array[types.uint8, 40]
    reserve: types.array[types.uint32, 4]
    crc: types.uint32


# --- check sum ------------------------------------------------------------------------------------

# The check sum is that of the C structures, with their padding, and not of what goes over the wire.
_MOTOR_CMD = np.dtype(
    [("mode", "u1"), ("values", "<f4", 5), ("reserve", "<u4")], align=True
)  # fmt: skip
LOW_CMD = np.dtype(
    [
        ("modes", "u1", 2), ("motor_cmd", _MOTOR_CMD, SLOTS), ("reserve", "<u4", 4),
        ("crc", "<u4"),
    ],
    align=True,
)  # fmt: skip
_IMU = np.dtype([("values", "<f4", 13), ("temperature", "<i2")], align=True)
_MOTOR_STATE = np.dtype(
    [
        ("mode", "u1"), ("values", "<f4", 4), ("temperature", "<i2", 2), ("vol", "<f4"),
        ("sensor", "<u4", 2), ("motorstate", "<u4"), ("reserve", "<u4", 4),
    ],
    align=True,
)  # fmt: skip
LOW_STATE = np.dtype(
    [
        ("version", "<u4", 2), ("modes", "u1", 2), ("tick", "<u4"), ("imu", _IMU),
        ("motor_state", _MOTOR_STATE, SLOTS), ("remote", "u1", 40), ("reserve", "<u4", 4),
        ("crc", "<u4"),
    ],
    align=True,
)  # fmt: skip
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2: polynomial 0x04C11DB7 from all ones, bits not reflected, nothing added."""
    # zlib has the reflected form of the same polynomial: mirrored bits in, mirrored bits out.
    mirrored = zlib.crc32(data.translate(_REVERSED)) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def check_sum(message: LowCmd_ | LowState_) -> int:
    """What `crc` should be: of all 32-bit words but the last, highest byte first."""
    if isinstance(message, LowCmd_):
        record: Any = np.zeros((), LOW_CMD)
        record["modes"] = message.mode_pr, message.mode_machine
        record["motor_cmd"] = [
            (m.mode, (m.q, m.dq, m.tau, m.kp, m.kd), m.reserve) for m in message.motor_cmd
        ]
    else:
        record = np.zeros((), LOW_STATE)
        record["version"], record["tick"] = message.version, message.tick
        record["modes"] = message.mode_pr, message.mode_machine
        imu = message.imu_state
        record["imu"]["values"] = [
            *imu.quaternion, *imu.gyroscope, *imu.accelerometer, *imu.rpy,
        ]  # fmt: skip
        record["imu"]["temperature"] = imu.temperature
        record["motor_state"] = [
            (
                m.mode, (m.q, m.dq, m.ddq, m.tau_est), m.temperature, m.vol, m.sensor,
                m.motorstate, m.reserve,
            )
            for m in message.motor_state
        ]  # fmt: skip
        record["remote"] = list(message.wireless_remote)
    record["reserve"] = message.reserve
    words = np.frombuffer(record.tobytes(), "<u4")[:-1]
    return crc32_mpeg2(words.astype(">u4").tobytes())


# --- messages -------------------------------------------------------------------------------------


def to_low_cmd(command: Command, mode_machine: int) -> LowCmd_:
    """A command as a message, sealed with its check sum."""
    rows = np.stack(
        [command.joint_pos, command.torque, command.stiffness, command.damping], axis=1
    ).tolist()  # fmt: skip
    motors = [MotorCmd_(ENABLED, q, 0.0, tau, kp, kd, 0) for q, tau, kp, kd in rows]
    motors += [MotorCmd_(DISABLED, 0.0, 0.0, 0.0, 0.0, 0.0, 0)] * (SLOTS - g1.NUM_JOINTS)
    message = LowCmd_(SERIES_MODE, mode_machine, motors, [0] * 4, 0)
    message.crc = check_sum(message)
    return message


def from_low_cmd(message: LowCmd_) -> Command:
    """What a message asks of the motors; disabled ones are limp."""
    rows = np.array(
        [
            (m.q, m.dq, m.tau, m.kp, m.kd) if m.mode == ENABLED else (0.0,) * 5
            for m in message.motor_cmd[: g1.NUM_JOINTS]
        ]
    )
    q, dq, tau, kp, kd = rows.T
    return Command(q, kp, kd, tau + kd * dq)


def to_low_state(
    sensors: Sensors, torque: np.ndarray, mode_machine: int, remote: bytes = bytes(40)
) -> LowState_:
    """A reading as a message, sealed with its check sum. `torque` `[29]`, N m."""
    w, x, y, z = sensors.quat
    rpy = [
        np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
        np.arcsin(np.clip(2 * (w * y - z * x), -1, 1)),
        rot.quat_yaw(sensors.quat),
    ]
    imu = IMUState_(
        sensors.quat.tolist(), sensors.gyro.tolist(), sensors.accel.tolist(),
        [float(angle) for angle in rpy], 0,
    )  # fmt: skip
    rows = np.stack([sensors.joint_pos, sensors.joint_vel, torque], axis=1).tolist()
    rows += [[0.0] * 3] * (SLOTS - g1.NUM_JOINTS)
    motors = [
        MotorState_(
            int(i < g1.NUM_JOINTS), q, dq, 0.0, tau, [0, 0], 0.0, [0, 0], 0, [0] * 4
        )
        for i, (q, dq, tau) in enumerate(rows)
    ]  # fmt: skip
    tick = round(1e3 * sensors.time_s)
    message = LowState_(
        [0, 0], SERIES_MODE, mode_machine, tick, imu, motors, list(remote), [0] * 4, 0
    )
    message.crc = check_sum(message)
    return message


def from_low_state(message: LowState_, time_s: float) -> Sensors:
    """The readings in a message."""
    motors = np.array([(m.q, m.dq) for m in message.motor_state[: g1.NUM_JOINTS]])
    imu = message.imu_state
    quat = np.array(imu.quaternion)
    # Rounded to float32 on its way; one that is none stays what it is: of zeros (no reading yet)
    # not finite, any other as it came.
    if not quat.any():
        quat = np.full(4, np.nan)
    elif abs(np.linalg.norm(quat) - 1) <= envelope.QUAT_TOLERANCE:
        quat = rot.quat_normalize(quat)
    return Sensors(
        time_s=time_s, quat=quat,
        gyro=np.array(imu.gyroscope), accel=np.array(imu.accelerometer),
        joint_pos=motors[:, 0], joint_vel=motors[:, 1],
        stop=any(message.wireless_remote[byte] & bit for byte, bit in STOP_BUTTONS),
        next=bool(message.wireless_remote[NEXT_BUTTON[0]] & NEXT_BUTTON[1]),
    )  # fmt: skip


def motor_trouble(message: LowState_) -> tuple[str, str]:
    """Reasons to damp and to warn, as the motors report them; empty texts where all is well."""
    danger, warning = "", ""
    for name, motor in zip(g1.JOINT_NAMES, message.motor_state, strict=False):
        hottest = max(motor.temperature)
        if bits := motor.motorstate & envelope.MOTOR_ERRORS:
            danger = danger or f"the motor of {name} reports error 0x{bits:x}"
        elif hottest > envelope.HOT_C:
            danger = danger or (
                f"the motor of {name} is at {hottest} C, at most {envelope.HOT_C} are allowed"
            )
        elif hottest > envelope.WARM_C:
            warning = warning or f"the motor of {name} is at {hottest} C"
        # A robot that does not measure it sends 0.
        elif 0 < motor.vol < envelope.LOW_VOLTS:
            warning = warning or f"the motor of {name} has {motor.vol:.1f} V"
    return danger, warning


# --- topics ---------------------------------------------------------------------------------------

Message = TypeVar("Message", LowCmd_, LowState_)
_TYPES: dict[str, type] = {LOW_CMD_TOPIC: LowCmd_, LOW_STATE_TOPIC: LowState_}


class Bus:
    """A participant in a DDS domain on one network interface and no other."""

    def __init__(self, interface: str, domain: int) -> None:
        """Join.

        Args:
            interface: name of the network interface; `lo` stays on this machine.
            domain: 0 is the robot's; the same at both ends.

        Raises:
            ConfigError: no such interface, or DDS refuses.
        """
        names = [name for _, name in socket.if_nameindex()]
        if interface not in names:
            raise ConfigError(
                f"interface is '{interface}', expected a network interface of this machine: "
                f"{', '.join(names)}."
            )
        if not 0 <= domain <= MAX_DOMAIN:
            raise ConfigError(f"domain is {domain}, expected 0 to {MAX_DOMAIN}.")
        # Given here, so that neither CYCLONEDDS_URI nor a default sends commands elsewhere.
        settings = (
            '<CycloneDDS><Domain Id="any"><General><Interfaces>'
            f'<NetworkInterface name="{interface}"/>'
            "</Interfaces></General></Domain></CycloneDDS>"
        )
        try:
            self._domain = Domain(domain, settings)
            self._participant = DomainParticipant(domain)
        except DDSException as error:
            raise ConfigError(
                f"DDS cannot use interface '{interface}' in domain {domain} ({error.msg.strip()})."
            ) from None

    def writer(self, topic: str) -> "Writer":
        return Writer(self._participant, topic)

    def reader(self, topic: str) -> "Reader":
        return Reader(self._participant, topic)


class Writer:
    """Sends messages to a topic."""

    def __init__(self, participant: DomainParticipant, topic: str) -> None:
        self._writer = DataWriter(participant, Topic(participant, topic, _TYPES[topic]))

    def write(self, message: LowCmd_ | LowState_) -> None:
        """Send.

        Raises:
            ConnectionError: DDS cannot.
        """
        try:
            self._writer.write(message)
        except DDSException as error:
            raise ConnectionError(error.msg.strip()) from None

    @property
    def is_heard(self) -> bool:
        """Whether somebody reads the topic; what is written before is lost."""
        return bool(self._writer.get_matched_subscriptions())


class Reader:
    """Takes the newest message of a topic.

    Attributes:
        broken: messages so far whose check sum was wrong, or that were no messages of the topic;
            they are passed over.
        publishers: who sent those of the last `take` that found any, passed over or not.
    """

    # More than one, because the newest by arrival may be an old one that was held up.
    DEPTH = 8

    def __init__(self, participant: DomainParticipant, topic: str) -> None:
        # A lost message is not asked for again: it would come too late.
        qos = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(self.DEPTH))
        self._reader = DataReader(participant, Topic(participant, topic, _TYPES[topic]), qos)
        self._condition = ReadCondition(
            self._reader, ViewState.Any | SampleState.NotRead | InstanceState.Alive
        )
        self._wait = WaitSet(participant)
        self._wait.attach(self._condition)
        self.broken = 0
        self.publishers: tuple[int, ...] = ()

    @property
    def heard(self) -> int:
        """How many publishers of the topic there are."""
        return len(self._reader.get_matched_publications())

    def take(self, timeout_s: float = 0.0) -> Any:
        """The newest message that has not been taken, waited for if need be; None if none comes.

        Newest by arrival; of states that came together, by the robot's clock.
        """
        ends = time.monotonic() + timeout_s
        while True:
            try:
                samples = self._reader.take(self.DEPTH, condition=self._condition)
            except Exception:  # bytes that do not fit the type, or no network; of several kinds
                samples = []
                self.broken += 1
                time.sleep(0.001)
            messages = [sample for sample in samples if hasattr(sample, "crc")]
            if messages:  # one that came before this wait is judged by who sent it
                self.publishers = tuple({s.sample_info.publication_handle for s in messages})
            if messages and isinstance(messages[0], LowState_):
                messages = _by_tick(messages)
            for message in reversed(messages):
                if check_sum(message) == message.crc:
                    return message
                self.broken += 1
            left = ends - time.monotonic()
            if left <= 0:
                return None
            self._wait.wait(duration(seconds=left))


def _by_tick(states: list[Any]) -> list[Any]:
    """Sorted by ticks of 32 bits, which begin again at 0: none is half a turn from the first."""
    half, first = envelope.TICKS // 2, states[0].tick
    return sorted(states, key=lambda state: (state.tick - first + half) % envelope.TICKS)
