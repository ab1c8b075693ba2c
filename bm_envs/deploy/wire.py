"""Streamed references over UDP: one datagram a sample, so that a lost one holds nothing up.

    0   4 bytes   `BMR1`
    4   uint32    number of the sample, from 0
    8   float64   time of the sender's clock, s
    16  uint8     1 in the last sample, 0 before
    17  uint8     N, 7 and the robot's joints; 36 for the G1
    18  float32   N numbers: pelvis x y z, m; its quaternion w x y z; joints, rad, `g1.JOINT_NAMES`

All little-endian. What does not look so is dropped and counted, and so is what comes from anybody
but the first sender. Nothing is encrypted, nobody proves who they are: take a network of your own.
"""

from __future__ import annotations

import socket
import struct

import numpy as np

from bm_envs.deploy.live import Sample
from bm_envs.errors import ConfigError

MAGIC = b"BMR1"
_HEAD = struct.Struct("<4sIdBB")
_LARGEST = _HEAD.size + 4 * 255
PENDING = 1024  # datagrams read at once, at most: twenty seconds of a stream


def pack(sample: Sample, number: int) -> bytes:
    """A sample as a datagram."""
    values = np.asarray(sample.qpos, "<f4")
    head = _HEAD.pack(MAGIC, number % 2**32, sample.time_s, sample.is_last, len(values))
    return head + values.tobytes()


def unpack(data: bytes) -> Sample | None:
    """The sample of a datagram; None where it is none."""
    if len(data) < _HEAD.size:
        return None
    magic, _, time_s, is_last, count = _HEAD.unpack_from(data)
    if magic != MAGIC or is_last > 1 or len(data) != _HEAD.size + 4 * count:
        return None
    values = np.frombuffer(data, "<f4", count, _HEAD.size).astype(np.float64)
    return Sample(time_s, values, bool(is_last))


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `udp:HOST:PORT`.

    Raises:
        ConfigError: it is no such address.
    """
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if kind != "udp" or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"'{text}' is no address of a stream, expected udp:HOST:PORT, as udp:127.0.0.1:9870."
        )
    return host, int(port)


class Receiver:
    """Samples that come to a port of this machine.

    Attributes:
        broken: datagrams that were none of a stream.
        foreign: datagrams of another sender than the first.
    """

    def __init__(self, address: str) -> None:
        """Listen at `udp:HOST:PORT`; 0.0.0.0 hears every network.

        Raises:
            ConfigError: it is no address, or nobody can listen there.
        """
        where = address_of(address)
        self.broken = self.foreign = 0
        self._sender: object = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind(where)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"no stream can be heard at {address} ({error.strerror or error}): another program "
                "listens there, or it is no address of this machine."
            ) from error
        self._socket.setblocking(False)

    def take(self) -> list[Sample]:
        """What came since the last call; it never waits."""
        found: list[Sample] = []
        for _ in range(PENDING):
            try:
                data, sender = self._socket.recvfrom(_LARGEST)
            except (BlockingIOError, ConnectionError):
                break
            if (sample := unpack(data)) is None:
                self.broken += 1
            elif self._sender not in (None, sender):
                self.foreign += 1
            else:
                self._sender = sender
                found.append(sample)
        return found

    def close(self) -> None:
        self._socket.close()


class Sender:
    """Samples to a port of any machine."""

    def __init__(self, address: str) -> None:
        """Send to `udp:HOST:PORT`.

        Raises:
            ConfigError: it is no address, or its host is not known.
        """
        host, port = address_of(address)
        try:
            self._to = socket.gethostbyname(host), port
        except OSError as error:
            raise ConfigError(f"'{address}': no host of that name is known ({error}).") from error
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._number = 0

    def send(self, sample: Sample) -> None:
        """Send one; nobody need listen."""
        try:
            self._socket.sendto(pack(sample, self._number), self._to)
        except ConnectionError:  # nobody listened to the one before
            pass
        self._number += 1

    def close(self) -> None:
        self._socket.close()
