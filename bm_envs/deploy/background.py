"""One function in a thread of its own, a call at a time, so that a control loop never waits."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from bm_envs.errors import PolicyError

T = TypeVar("T")
PATIENCE_S = 600.0  # s that a simulation waits for a call to end


class Background(Generic[T]):
    """A thread that calls one function.

    Attributes:
        took_s: time of each call so far that came to its end, s.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self._function = function
        self._asked: queue.SimpleQueue[tuple[object, ...] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self.took_s: list[float] = []
        self.is_busy = False
        # A daemon thread does not keep the process alive when a call never ends.
        self._thread = threading.Thread(target=self._work, daemon=True, name="plans")
        self._thread.start()

    def start(self, *arguments: object) -> None:
        """Begin a call; the last one's result must have been taken."""
        assert not self.is_busy
        self.is_busy = True
        self._asked.put(arguments)

    def take(self, *, wait: bool = False) -> T | None:
        """The result of the call that was begun; None: there is none yet.

        Args:
            wait: until there is one.

        Raises:
            PolicyError: none came within `PATIENCE_S`; and whatever the function raised.
        """
        if not self.is_busy:
            return None
        try:
            result, error = self._done.get(block=wait, timeout=PATIENCE_S if wait else None)
        except queue.Empty:
            if wait:
                raise PolicyError(f"no plan came within {PATIENCE_S:g} s") from None
            return None
        self.is_busy = False
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let the thread end after its present call."""
        self._asked.put(None)

    def _work(self) -> None:
        while (arguments := self._asked.get()) is not None:
            began = time.perf_counter()
            try:
                result, error = self._function(*arguments), None
            except BaseException as raised:  # of the loop's own thread, when it takes the result
                result, error = None, raised
            self.took_s.append(time.perf_counter() - began)
            self._done.put((result, error))
