"""Curves over the frames of a motion: smoothed, or smooth and nowhere below another."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Share = TypeVar("Share", float, np.ndarray)


def smoothstep(share: Share) -> Share:
    """From 0 to 1 as `share` goes from 0 to 1, at rest at both ends: `3 s^2 - 2 s^3`."""
    return share * share * (3 - 2 * share)


def smooth(x: np.ndarray, half_width: int) -> np.ndarray:
    """Weighted mean over a Hann window of `2 * half_width + 1` frames.

    Straight lines stay as they are; the ends are continued by their end values.
    """
    window = np.hanning(2 * half_width + 3)[1:-1]
    padded = np.concatenate([np.full(half_width, x[0]), x, np.full(half_width, x[-1])])
    return np.convolve(padded, window / window.sum(), mode="valid")


def cover(x: np.ndarray, half_width: int) -> np.ndarray:
    """A smooth curve nowhere below `x [T]`: the running maximum, smoothed over the same window.

    It is 0 where `x` is 0 within `2 * half_width` frames on either side.
    """
    padded = np.pad(x, half_width, mode="edge")
    highest = np.max([padded[k : k + len(x)] for k in range(2 * half_width + 1)], axis=0)
    return smooth(highest, half_width)
