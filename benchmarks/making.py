"""What it costs to make an environment, beside Gymnasium's Humanoid in the same process.

    python benchmarks/making.py
    python benchmarks/making.py --most 3    # exit status 1 if one takes longer than 3 Humanoids

Of each the median over `--repeats`, made in turn, so that a busy machine slows all of them alike;
and the first of all, which reads files and imports modules. Processor seconds: what else runs on
the machine has no part in them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium

from bm_envs import cli
from bm_envs.errors import ConfigError

HUMANOID = "Humanoid-v5"
MADE: dict[str, Callable[[], Any]] = {
    HUMANOID: lambda: gymnasium.make(HUMANOID),
    "BMTrack-G1-v0": lambda: gymnasium.make("BMTrack-G1-v0", motion="walk"),
    "BMTrack-G1-v0, 3 clips": lambda: gymnasium.make(
        "BMTrack-G1-v0", motion=["walk", "turn_left", "side_left"]
    ),
    "BMGuided-G1-Joystick-v0": lambda: gymnasium.make("BMGuided-G1-Joystick-v0"),
    "BMTrack-G1-v0, 64 robots": lambda: gymnasium.make_vec("BMTrack-G1-v0", num_envs=64),
}


@dataclass(frozen=True)
class Config:
    """How often, and how much is too much."""

    repeats: int = 15
    """How often each is made."""
    most: float | None = None
    """Exit with status 1 if the median of one is more than so many Humanoids; None: never."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}, expected 1 or more.")


def seconds(make: Callable[[], Any]) -> float:
    """Processor seconds of making one."""
    before = time.process_time()
    env = make()
    passed = time.process_time() - before
    env.close()
    return passed


def main(config: Config) -> int:
    """Measure and print."""
    first = {name: seconds(make) for name, make in MADE.items()}
    again: dict[str, list[float]] = {name: [] for name in MADE}
    for _ in range(config.repeats):
        for name, make in MADE.items():
            again[name].append(seconds(make))
    median = {name: statistics.median(times) for name, times in again.items()}
    ratio = {name: value / median[HUMANOID] for name, value in median.items()}
    rows = [("environment", "first, ms", "median, ms", "Humanoids")]
    for name in MADE:
        figures = f"{1e3 * first[name]:.0f}", f"{1e3 * median[name]:.1f}", f"{ratio[name]:.2f}"
        rows.append((name, *figures))
    print(cli.aligned(rows))
    too_slow = [name for name, value in ratio.items() if config.most and value > config.most]
    for name in too_slow:
        print(f"{name}: {ratio[name]:.1f} Humanoids, more than {config.most:g}")
    return int(bool(too_slow))


if __name__ == "__main__":
    cli.run(main, Config)
