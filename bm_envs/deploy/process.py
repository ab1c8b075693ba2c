"""What a process that holds motors needs of its surroundings: asking signals, a voice, a key.

A signal's own effect would end or stop the process at once, with the last command in force; here
it is noted, and the loop ends by damping. Printing could hold the loop up for ever (a terminal that
was stopped by Ctrl-S, a pipe that nobody reads) or end it (one that is closed); here a thread
prints.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, TextIO

# Answered by the kernel (KILL, STOP), by Python (CHLD, PIPE, XFSZ), or of no effect; the next are
# the processor's, after which no Python runs: the guard's business.
_LEFT_ALONE = {
    "SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCLD", "SIGPIPE", "SIGXFSZ", "SIGCONT", "SIGWINCH",
    "SIGURG", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGIOT", "SIGSYS",
}  # fmt: skip
# A background process that uses its terminal would be stopped.
_IGNORED = {"SIGTTIN", "SIGTTOU"}


def open_streams() -> None:
    """Open those of standard input, output and error that a process was started without.

    Their numbers would become those of sockets and pipes, into which somebody then prints.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))


class Signals:
    """A context in which signals that end or stop a process are noted, and have no other effect.

    Attributes:
        asked: name of the first that came, or nothing.
    """

    def __init__(self) -> None:
        self.asked = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in signal.valid_signals():
            name = _name(number)
            if name in _LEFT_ALONE:
                continue
            with contextlib.suppress(OSError, ValueError):  # some belong to the C library
                before = signal.getsignal(number)
                signal.signal(number, signal.SIG_IGN if name in _IGNORED else self._note)
                self._before[number] = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or _name(number)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Enter:
    """Notices lines that somebody enters on standard input, without ever waiting for one."""

    def __init__(self) -> None:
        self._open = True

    def __call__(self) -> bool:
        """Whether a line has come since the last call."""
        try:
            if not self._open or not select.select([0], [], [], 0)[0]:
                return False
            data = os.read(0, 4096)
        except OSError:  # closed, or the terminal of a process in the background
            data = b""
        self._open = bool(data)
        return b"\n" in data


class Voice:
    """Prints lines in a thread, so that a caller never waits and never fails."""

    def __init__(self, file: int | TextIO | None) -> None:
        """To an open file, by its number too; to none where a process was started without one.

        That one's number may be another file's by then.
        """
        self._descriptor = file if isinstance(file, int) else None
        if not isinstance(file, int) and file is not None:
            with contextlib.suppress(OSError, ValueError):
                self._descriptor = file.fileno()
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=100)
        # A daemon thread does not keep the process alive when its stream blocks for ever.
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def __call__(self, line: str) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait until all is printed, or for that long."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout_s)

    def _print(self) -> None:
        while (line := self._lines.get()) is not None:
            data = f"{line}\n".encode()
            # This bypasses Python's buffer: a blocked thread would keep the buffer's lock for ever.
            with contextlib.suppress(OSError):
                while data and self._descriptor is not None:
                    data = data[os.write(self._descriptor, data) :]
