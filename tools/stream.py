"""Send a motion as a live reference, frame by frame, as a teleoperator or a planner would.

    python tools/deploy.py walk --stream udp:127.0.0.1:9870 --domain 7 --motors   # listens
    python tools/stream.py walk --to udp:127.0.0.1:9870                           # sends

The first pose is sent for `--hold-s`; then the motion runs once. `bm_envs/deploy/wire.py` says what
a datagram holds, for a sender of your own. With `--jitter-ms` and `--loss` the link is made worse
than it is, to see what comes of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.deploy.streamed import LinkConfig, sent
from bm_envs.deploy.wire import Sender
from bm_envs.errors import ConfigError
from bm_envs.motion import library

REPEATED = 20  # times that the last sample is sent: no single one is sure to come


@dataclass(frozen=True)
class Config:
    """Send a motion as a live reference."""

    motion: Positional[Annotated[str, arg(metavar="MOTION")]]
    """Name, file or cut such as 'walk1[5:15]'."""
    to: str = "udp:127.0.0.1:9870"
    """Where somebody listens, udp:HOST:PORT."""
    hold_s: float = 8.0
    """Seconds for which the first pose is sent before the motion begins; a robot stands up in 5."""
    link: Annotated[LinkConfig, arg(name="")] = field(default_factory=LinkConfig)
    """What is done to the stream on its way."""
    seed: int = 0
    """Seed of delays and losses."""

    def __post_init__(self) -> None:
        if not 0 <= self.hold_s <= 3600:
            raise ConfigError(f"hold_s is {self.hold_s}, expected 0 to 3600 s.")


def main(config: Config) -> None:
    """Send every sample when its time has come."""
    sender = Sender(config.to)
    motion = library.load_motion(config.motion)
    print(
        f"motion {motion.name} ({motion.duration_s:.2f} s) to {config.to}, first pose for "
        f"{config.hold_s:g} s",
        flush=True,
    )
    count = 0
    began = time.perf_counter()
    try:
        for comes, sample in sent(motion.qpos(), config.link, config.seed, hold_s=config.hold_s):
            time.sleep(max(began + comes - time.perf_counter(), 0.0))
            for _ in range(REPEATED if sample.is_last else 1):
                sender.send(sample)
            count += 1
    finally:
        sender.close()
        print(f"{count} samples sent")


if __name__ == "__main__":
    cli.run(main, Config)
