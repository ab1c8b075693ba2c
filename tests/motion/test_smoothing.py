"""Smoothed curves, and curves that are nowhere below another."""

import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from bm_envs.motion.smoothing import cover, smooth


def test_smoothing_keeps_lines_and_levels():
    line = 0.3 * np.arange(40.0) - 2
    np.testing.assert_allclose(smooth(line, 5)[5:-5], line[5:-5], atol=1e-12)
    np.testing.assert_allclose(smooth(np.ones(9), 3), 1, atol=1e-12)


CURVES = arrays_of.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1, width=32))


@given(CURVES, st.integers(1, 7))
def test_a_cover_is_nowhere_below_and_not_far_away(curve, width):
    covering = cover(curve, width)
    assert (covering >= curve - 1e-12).all() and covering.max() <= curve.max() + 1e-12
    for frame in range(len(curve)):
        if not curve[max(0, frame - 2 * width) : frame + 2 * width + 1].any():
            assert covering[frame] == 0.0


def test_a_cover_of_one_peak_is_smooth():
    """Its steps are those of the window's shares, whose largest is 1 over half the width."""
    curve = np.zeros(41)
    curve[20] = 1.0
    assert np.abs(np.diff(cover(curve, 5))).max() <= 1.0 / 5
