"""How long motions take until robots can track them, in a process of its own, as one line of JSON.

    python benchmarks/starting.py lafan1-40
    python benchmarks/starting.py paths.txt --num-envs 64

It is what `benchmarks/throughput.py --start` runs, whose rows hold these figures. Loading is
`load_motions` of them all; making is a `TrackVectorEnv` and its first reset; imports are counted
in neither. Memory is what Linux tells of the process: `private_mb` by how much memory of its own
grew from imports to the first reset, `shared_mb` likewise what it sees of files, which others see,
too, and `peak_mb` the most of all together at any time, with imports. Megabytes are 2^20 bytes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional

from bm_envs import cli
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.motion import suites


@dataclass(frozen=True)
class Config:
    """What is loaded, and for how many robots."""

    motions: Annotated[str, Positional]
    """A suite, or a text file with a motion a line."""
    num_envs: int = 64
    """Robots."""
    threads: int = 0
    """Threads; 0: all cores this process may use."""
    sample_s: float = 1.0
    """Seconds for which they are then driven."""

    def __post_init__(self) -> None:
        if self.num_envs < 1 or not self.sample_s > 0:
            raise ConfigError("num_envs must be 1 or more, and sample_s positive.")


def memory_mb() -> dict[str, float]:
    """Memory of this process: `RssAnon`, `RssFile` and `VmHWM` of Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise BackendUnavailable("Memory is read from /proc, which only Linux has.") from None
    values = dict(line.split(":", 1) for line in lines)
    return {key: int(values[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmHWM")}


def clocks() -> np.ndarray:
    """Seconds by the clock on the wall, and of a processor."""
    return np.array([time.perf_counter(), time.process_time()])


def main(config: Config) -> None:
    """Measure and print."""
    from bm_envs.envs import TrackVectorEnv
    from bm_envs.motion.library import load_motions

    if config.motions in suites.NAMES:
        names = list(suites.motions(config.motions))
    elif Path(config.motions).is_file():
        names = Path(config.motions).read_text().splitlines()
    else:
        raise ConfigError(f"{config.motions} is neither a suite nor a file.")
    imported, before = clocks(), memory_mb()
    clips = load_motions(names)
    loaded = clocks()
    env = TrackVectorEnv(config.num_envs, clips, threads=config.threads)
    env.reset(seed=0)
    made, after = clocks(), memory_mb()
    steps, spent = 0, 0.0
    while spent < config.sample_s:
        env.step(env.task.reference_action())
        steps, spent = steps + config.num_envs, time.perf_counter() - made[0]
    env.close()
    figures = {
        "clips": len(clips), "frames": sum(clip.num_frames for clip in clips),
        "hours": sum(clip.duration_s for clip in clips) / 3600,
        "load_s": loaded - imported, "make_s": made - loaded,
        "ready_s": made - imported,
        "private_mb": after["RssAnon"] - before["RssAnon"],
        "shared_mb": after["RssFile"] - before["RssFile"], "peak_mb": after["VmHWM"],
        "control_steps_per_s": steps / spent,
    }  # fmt: skip
    for key in ("load", "make", "ready"):
        wall, cpu = figures.pop(f"{key}_s")
        figures |= {f"{key}_s": float(wall), f"{key}_cpu_s": float(cpu)}
    print(json.dumps(figures))


if __name__ == "__main__":
    cli.run(main, Config)
