"""A second process that damps the motors when the first one cannot any more.

    python -m bm_envs.deploy.guard INTERFACE DOMAIN PATIENCE_S

What nothing inside a process can answer is its own death: SIGKILL, a crash in native code, SIGSTOP,
a call that never returns. So `tools/deploy.py --motors` has this one beside it, in a session of its
own, that no terminal's signal reaches. On standard input it gets the robot's `mode_machine` (one
byte), then a byte for each sign of life, and `q` when all is well and over. When signs of life
stop for PATIENCE_S it sends damping until they come again (what comes then is damping, too: the
controller notices that it was suspended); when the other end closes without a `q` it sends
damping for a second and leaves. It reads no states and decides nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from bm_envs.deploy import unitree_topics
from bm_envs.deploy.controller import damped
from bm_envs.errors import ConfigError

BEAT, END = b".", b"q"
READY = b"r"
DAMP_S, DAMP_EVERY_S = 1.0, 0.01


class Guard:
    """The guard's process, as the controller's process sees it."""

    def __init__(self, interface: str, domain: int, patience_s: float) -> None:
        """Start the process; `is_ready` says when a robot listens to it."""
        command = [sys.executable, "-m", __name__, interface, str(domain), str(patience_s)]
        # The other process runs the same package as this one.
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        # A full pipe must not hold the controller up.
        os.set_blocking(self._in, False)

    def tell(self, mode_machine: int) -> None:
        """Send the robot's mode, which must be the first message."""
        self._write(bytes([mode_machine]))

    def is_ready(self) -> bool:
        """Whether a robot listens to it.

        Raises:
            ConfigError: it has ended.
        """
        if self._process.poll() is not None:
            raise ConfigError("The process that guards the motors has ended before it began.")
        readable, _, _ = select.select([self._out], [], [], 0)
        return bool(readable) and os.read(self._out, 1) == READY

    def beat(self) -> bool:
        """Send a sign of life; returns whether the guard is there."""
        return self._write(BEAT)

    def dismiss(self) -> None:
        """End the guard: all is well, and it does nothing."""
        self._write(END)
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _write(self, data: bytes) -> bool:
        try:
            os.write(self._in, data)
        except BlockingIOError:  # the guard is alive and has not read 65536 signs
            return True
        except OSError:
            return False
        return True


def watch(commands: Any, message: Any, patience_s: float, source: int) -> None:
    """Read signs of life until they end."""
    armed = False
    while True:
        # The guard acts only after the first sign: a controller that still waits commands nothing.
        readable, _, _ = select.select([source], [], [], patience_s if armed else None)
        if readable:
            data = os.read(source, 65536)
            if END in data:
                return
            if not data:
                if armed:
                    damp(commands, message)
                return
            armed = True
            continue
        while not select.select([source], [], [], DAMP_EVERY_S)[0]:
            with contextlib.suppress(ConnectionError):
                commands.write(message)


def damp(commands: Any, message: Any) -> None:
    """Damp the motors for a second."""
    for _ in range(round(DAMP_S / DAMP_EVERY_S)):
        with contextlib.suppress(ConnectionError):  # the next turn tries again
            commands.write(message)
        time.sleep(DAMP_EVERY_S)


def main(arguments: list[str]) -> int:
    """Run the guard."""
    interface, domain, patience_s = arguments[0], int(arguments[1]), float(arguments[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    unitree = unitree_topics()
    bus = unitree.Bus(interface, domain)  # ends with its last reference
    commands = bus.writer(unitree.LOW_CMD_TOPIC)
    source = sys.stdin.fileno()
    mode = os.read(source, 1)
    if not mode or mode == END:
        return 0
    message = unitree.to_low_cmd(damped(), mode[0])
    while not commands.is_heard:
        if select.select([source], [], [], 0.02)[0]:  # the other end has left
            return 0
    os.write(sys.stdout.fileno(), READY)
    watch(commands, message, patience_s, source)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
