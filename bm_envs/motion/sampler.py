"""Where in a set of clips an episode starts: uniformly, or more often just before failures.

Adaptive sampling, BeyondMimic sec. III-F. Clips are cut into bins of about a second. With `f_s` the
moving average of failures in bin `s` and `v_s` that of visits, the failure rate is
`r_s = f_s / v_s`. A failure is caused before it is seen, so rates spread to earlier bins by
`g_s = sum_u decay^u r_{s+u}`, u < kernel, inside a clip; starts follow
`p_s = ratio / S + (1 - ratio) g_s / sum(g)`. The published code counts failures in place of rates,
does not spread, and adds `ratio / S` to the raw counts: options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


class StartSampler:
    """Draws start frames. Frames are numbered through all clips, one after the other."""

    def __init__(
        self, clip_frames: Sequence[int] | np.ndarray, *, fps: float,
        mode: Literal["uniform", "adaptive", "first"] = "uniform", bin_s: float = 1.0,
        statistic: Literal["rate", "count"] = "rate", alpha: float = 0.001, kernel: int = 3,
        decay: float = 0.8, uniform_ratio: float = 0.1,
        mix: Literal["convex", "additive"] = "convex",
    ) -> None:  # fmt: skip
        """Cut clips of `clip_frames` frames at `fps` into bins; the rest is `SamplingConfig`'s."""
        self.mode, self.statistic, self.mix = mode, statistic, mix
        self.alpha, self.uniform_ratio, self.fps = alpha, uniform_ratio, fps
        self.clip_frames = np.asarray(clip_frames, dtype=np.int64)
        self.clip_start = np.concatenate([[0], np.cumsum(self.clip_frames)[:-1]])
        # Source of the bin count: whole_body_tracking, floor(T / frames per bin) + 1.
        self.clip_bins = (self.clip_frames / (bin_s * fps)).astype(np.int64) + 1
        self.bin_start = np.concatenate([[0], np.cumsum(self.clip_bins)[:-1]])
        self.num_bins = int(self.clip_bins.sum())
        self.bin_clip = np.repeat(np.arange(len(clip_frames)), self.clip_bins)
        self.failures = np.zeros(self.num_bins)
        self.visits = np.zeros(self.num_bins)
        # decay^u for bins s and s + u of one clip, else 0: `[S - u]` for each u > 0
        self._kernel = [
            decay**u * (self.bin_clip[u:] == self.bin_clip[:-u]) for u in range(1, kernel)
        ]

    def bin_of(self, clip_id: np.ndarray, frame: np.ndarray) -> np.ndarray:
        """Bin of frame `frame [M]` of clip `clip_id [M]`: floor(t B / T), clamped. `[M]`."""
        bins = self.clip_bins[clip_id]
        within = np.clip(frame * bins // self.clip_frames[clip_id], 0, bins - 1)
        return self.bin_start[clip_id] + within

    def record(self, bins: np.ndarray, failed: np.ndarray) -> None:
        """Fold one control step into the statistics: bins of robots `[N]`, which failed `[N]`."""
        self.visits *= 1 - self.alpha
        np.add.at(self.visits, bins, self.alpha)
        self.failures *= 1 - self.alpha
        if failed.any():
            np.add.at(self.failures, bins[failed], self.alpha)

    def rates(self) -> np.ndarray:
        """Failures per visit of each bin, 0 where nobody has been. `[S]`."""
        return np.divide(
            self.failures, self.visits, out=np.zeros(self.num_bins), where=self.visits > 0
        )

    def hardest_s(self, share: float = 0.1) -> float:
        """Robot seconds per failure in the hardest `share` of the bins; infinite without any."""
        hardest = np.argsort(-self.rates())[: max(1, round(share * self.num_bins))]
        failures = self.failures[hardest].sum()
        return float(self.visits[hardest].sum() / failures / self.fps) if failures else np.inf

    def uniform(self) -> np.ndarray:
        """Probabilities without regard to failures, or of the uniform share of them. `[S]`."""
        if self.mode != "uniform":
            return np.full(self.num_bins, 1.0 / self.num_bins)
        # Bins hold nearly equal numbers of frames within a clip; between clips they need not.
        frames = (self.clip_frames / self.clip_bins)[self.bin_clip]
        return frames / frames.sum()

    def _spread(self, value: np.ndarray) -> np.ndarray:
        """`sum_u decay^u value_{s+u}` inside clips. `[S]`."""
        spread = value.copy()
        for u, weight in enumerate(self._kernel, 1):
            spread[:-u] += weight * value[u:]
        return spread

    def probabilities(self) -> np.ndarray:
        """Probability of starting in each bin. `[S]`."""
        uniform = self.uniform()
        if self.mode == "uniform":
            return uniform
        value = self.rates() if self.statistic == "rate" else self.failures
        if self.mix == "additive":
            value = self._spread(value + self.uniform_ratio / self.num_bins)
            return value / value.sum()
        value = self._spread(value)
        if value.sum() <= 0:
            return uniform
        return self.uniform_ratio * uniform + (1 - self.uniform_ratio) * value / value.sum()

    def sample(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw `count` starts: clip indices and frames in `[0, T - 2]`, `[count]` each."""
        if self.mode == "first":
            raise ValueError("mode 'first' has nothing to draw")
        bins = rng.choice(self.num_bins, size=count, p=self.probabilities())
        clip_id = self.bin_clip[bins]
        fraction = (bins - self.bin_start[clip_id] + rng.random(count)) / self.clip_bins[clip_id]
        # The last frame is no start: an episode compares the robot with at least one later frame.
        return clip_id, (fraction * (self.clip_frames[clip_id] - 1)).astype(np.int64)

    def metrics(self) -> dict[str, float]:
        """Entropy of starts (1: uniform), the likeliest bin and its probability, `hardest_s`."""
        p = self.probabilities()
        entropy = -(p * np.log(p + 1e-12)).sum()
        return {
            "entropy": float(entropy / np.log(self.num_bins)) if self.num_bins > 1 else 1.0,
            "top1_prob": float(p.max()),
            "top1_bin": float(p.argmax() / self.num_bins),
            "hardest_s": self.hardest_s(),
        }
