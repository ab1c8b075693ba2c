"""Where in a set of clips an episode starts: uniformly, or more often just before failures.

Adaptive sampling, BeyondMimic sec. III-F. Clips are cut into bins of about a second. With `f_s` the
moving average of failures in bin `s` and `v_s` that of visits, the failure rate is
`r_s = f_s / v_s`. A failure is caused before it is seen, so rates spread to earlier bins by
`g_s = sum_u decay^u r_{s+u}`, u < kernel, inside a clip; starts follow
`p_s = ratio / S + (1 - ratio) g_s / sum(g)`. The published code counts failures in place of rates,
does not spread, and adds `ratio / S` to the raw counts before that: options. Where it is added,
bins behind a clip's end count as its last one (published), so that without failures starts are
uniform; else there are none.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np

from bm_envs.arrays import NUMPY, Array, Arrays, Generator
from bm_envs.rotations import namespace

_LEAST = 1e-300  # a divisor where there is nothing to divide


class StartSampler:
    """Draws start frames, for NumPy and torch alike.

    Attributes:
        failures: `[S]`, moving average of the failures in each of S bins.
        visits: `[S]`, that of the robots there.
    """

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
        # Source of the bin count: whole_body_tracking, floor(T / frames per bin) + 1.
        self.clip_bins = (self.clip_frames / (bin_s * fps)).astype(np.int64) + 1
        self.bin_start = np.concatenate([[0], np.cumsum(self.clip_bins)[:-1]])
        self.num_bins = int(self.clip_bins.sum())
        self.bin_clip = np.repeat(np.arange(len(clip_frames)), self.clip_bins)
        self.failures: Array = np.zeros(self.num_bins)
        self.visits: Array = np.zeros(self.num_bins)
        self._uniform = self._without_failures()
        self._arrays: Arrays = NUMPY
        # For each u > 0 the bins s + u of all bins s, and what they count: `[S]` both.
        last, ahead = (self.bin_start + self.clip_bins - 1)[self.bin_clip], np.arange(self.num_bins)
        self._kernel: list[tuple[Array, Array]] = [
            (np.minimum(ahead + u, last), decay**u * ((ahead + u <= last) | (mix == "additive")))
            for u in range(1, kernel)
        ]

    def to(self, arrays: Arrays) -> StartSampler:
        """The same sampler, with its statistics, in arrays of a library."""
        if arrays is self._arrays:
            return self
        other = copy.copy(self)
        other._arrays = arrays
        for name in (
            "clip_frames", "clip_bins", "bin_start", "bin_clip", "failures", "visits", "_uniform",
        ):  # fmt: skip
            setattr(other, name, arrays.array(getattr(self, name)))
        other._kernel = [(arrays.array(bins), arrays.array(w)) for bins, w in self._kernel]
        return other

    def bin_of(self, clip_id: Array, frame: Array) -> Array:
        """Bin of frame t = `frame [M]` of clip `clip_id [M]`: floor(t B / T), clamped. `[M]`."""
        bins = self.clip_bins[clip_id]
        within = namespace(bins).minimum(frame * bins // self.clip_frames[clip_id], bins - 1)
        return self.bin_start[clip_id] + within

    def record(self, bins: Array, failed: Array) -> None:
        """Fold one control step into the statistics: bins of robots `[N]`, which failed `[N]`."""
        self.visits *= 1 - self.alpha
        self._arrays.add_at(self.visits, bins, self.alpha)
        self.failures *= 1 - self.alpha
        self._arrays.add_at(self.failures, bins, self.alpha, failed)

    def rates(self) -> Array:
        """Failures per visit of each bin, 0 where nobody has been. `[S]`."""
        visits = self.visits
        return self.failures / namespace(visits).where(visits > 0, visits, 1.0)

    def hardest_s(self, share: float = 0.1) -> float:
        """Robot seconds per failure in the hardest `share` of the bins; infinite without any."""
        hardest = np.argsort(-self.rates())[: max(1, round(share * self.num_bins))]
        failures = self.failures[hardest].sum()
        return float(self.visits[hardest].sum() / failures / self.fps) if failures else np.inf

    def _without_failures(self) -> np.ndarray:
        """Probabilities without regard to failures, or of the uniform share of them. `[S]`."""
        if self.mode != "uniform":
            return np.full(self.num_bins, 1.0 / self.num_bins)
        # Bins hold nearly equal numbers of frames within a clip; between clips they need not.
        frames = (self.clip_frames / self.clip_bins)[self.bin_clip]
        return frames / frames.sum()

    def _spread(self, value: Array) -> Array:
        """`sum_u decay^u value_{s+u}` inside clips. `[S]`."""
        spread = 1.0 * value
        for bins, weight in self._kernel:
            spread += weight * value[bins]
        return spread

    def probabilities(self) -> Array:
        """Probability of starting in each bin. `[S]`."""
        if self.mode == "uniform":
            return self._uniform
        value = self.rates() if self.statistic == "rate" else self.failures
        if self.mix == "additive":
            value = self._spread(value + self.uniform_ratio / self.num_bins)
            return value / value.sum()
        value = self._spread(value)
        total = value.sum()
        share = (1 - self.uniform_ratio) * value / total.clip(_LEAST)
        mixed = self.uniform_ratio * self._uniform + share
        return namespace(value).where(total > 0, mixed, self._uniform)

    def sample(self, rng: Generator, count: int) -> tuple[Array, Array]:
        """Draw `count` starts: clip indices and frames in `[0, T - 2]`, `[count]` each."""
        if self.mode == "first":
            raise ValueError("mode 'first' has nothing to draw")
        bins, within = self._arrays.places(rng, self.probabilities(), count)
        clip_id = self.bin_clip[bins]
        fraction = (bins - self.bin_start[clip_id] + within) / self.clip_bins[clip_id]
        # The last frame is no start: an episode compares the robot with at least one later frame.
        return clip_id, self._arrays.truncated(fraction * (self.clip_frames[clip_id] - 1))

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
