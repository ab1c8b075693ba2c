"""What a peer's script has in common: it stays alive, and measures when asked.

A peer is started as `python <script>.py <num_envs> <motion.npz>` in an environment of its own,
which lacks this project. Once it is set up it prints `ready`, and then, for every number of seconds
it reads, the control steps per second of its environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

# What the peer's libraries print goes to stderr from here on; stdout is for answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def serve(step: Callable[[], object], num_envs: int, warm_up: int = 25) -> None:
    """Answer requests. `step` moves every robot on by one control step."""
    for _ in range(warm_up):
        step()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        seconds, start, steps = float(line), time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds:
            step()
            steps += num_envs
        print(steps / spent, file=answers, flush=True)
