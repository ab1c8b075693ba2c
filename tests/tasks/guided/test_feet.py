"""How long feet have been on or off the ground."""

import numpy as np

from bm_envs.tasks.guided.feet import FootPhases


def test_feet_count_the_seconds_of_their_phase():
    feet = FootPhases(2)
    down, up = [0.0, 0.6, 0.9], [0.0, 0.0, 0.9]  # 1.08 N, which counts, and 0.9 N
    for left in (down, down, up, up, up):
        feet.step(np.array([[left, down], [up, up]], np.float32))
    np.testing.assert_array_equal(feet.contact, [[False, True], [False, False]])
    # Sums of float32 steps of 0.02 s.
    np.testing.assert_allclose(feet.seconds, [[0.06, 0.1], [0.1, 0.1]], atol=1e-7)
    feet.reset(np.array([True, False]))
    np.testing.assert_array_equal(feet.contact, [[False, False], [False, False]])
    np.testing.assert_allclose(feet.seconds, [[0, 0], [0.1, 0.1]], atol=1e-7)
