"""A known motion as a stream over a link that delays and loses: it tests a live reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bm_envs.deploy.live import Sample
from bm_envs.errors import ConfigError
from bm_envs.policy import CONTROL_DT

HELD_S = 1.5  # s for which a sender holds the first pose before its motion begins


@dataclass(frozen=True)
class LinkConfig:
    """What a link does to a stream."""

    jitter_ms: float = 0.0
    """Each sample is late by 0 to this, evenly drawn, ms: samples overtake each other."""
    loss: float = 0.0
    """Share of the samples that never come."""
    cut_s: tuple[float, float] | None = None
    """Seconds of the motion in which nothing comes."""

    def __post_init__(self) -> None:
        if not 0 <= self.jitter_ms <= 1000:
            raise ConfigError(f"jitter_ms is {self.jitter_ms}, expected 0 to 1000 ms.")
        if not 0 <= self.loss < 1:
            raise ConfigError(f"loss is {self.loss}, expected 0 or more and less than 1.")
        if self.cut_s is not None and not 0 <= self.cut_s[0] < self.cut_s[1]:
            raise ConfigError(f"cut_s is {self.cut_s}, expected two times, the later one second.")


def sent(
    poses: np.ndarray, link: LinkConfig, seed: int, *, hold_s: float = HELD_S
) -> list[tuple[float, Sample]]:
    """The samples of a motion that come through, each with when it comes, s, in that order.

    The first leaves at 0, and the motion begins at `hold_s`. The last always comes: a sender
    repeats it until it is heard.

    Args:
        poses: `[T, 7 + J]`, the motion at 50 Hz, as `Sample.qpos`.
        link: what becomes of them.
        seed: of delays and losses.
        hold_s: for which the first pose is sent.
    """
    rng = np.random.default_rng(seed)
    coming: list[tuple[float, int, Sample]] = []
    held, last = round(hold_s / CONTROL_DT), len(poses) - 1
    for k in range(held + len(poses)):
        frame, time_s = max(k - held, 0), k * CONTROL_DT
        is_lost = rng.random() < link.loss
        comes = time_s + 1e-3 * link.jitter_ms * rng.random()
        is_cut = link.cut_s is not None and link.cut_s[0] <= frame * CONTROL_DT < link.cut_s[1]
        if frame == last or not (is_lost or is_cut):
            coming.append((comes, k, Sample(time_s, poses[frame], is_last=frame == last)))
    return [(comes, sample) for comes, _, sample in sorted(coming, key=lambda row: row[:2])]


class Link:
    """A stream that comes in simulated time."""

    def __init__(
        self, poses: np.ndarray, link: LinkConfig, seed: int, clock: Callable[[], float]
    ) -> None:
        """Begin to send when the clock, s, is at 0; the rest as of `sent`."""
        self._coming, self._clock = deque(sent(poses, link, seed)), clock

    def take(self) -> list[Sample]:
        """What has come since the last call."""
        found = []
        while self._coming and self._coming[0][0] <= self._clock():
            found.append(self._coming.popleft()[1])
        return found
