"""Synthetic motions for the tests of motion files."""

import numpy as np

from bm_envs.motion.clip import clip_from_states
from bm_envs.robots import g1


def states(frames=60, fps=50.0, seed=0):
    """Smooth root position, root quaternion (w x y z) and joint angles, all moving."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames)[:, None] / fps
    center, half = g1.JOINT_RANGE.mean(axis=1), np.ptp(g1.JOINT_RANGE, axis=1) / 2
    phase, rate = rng.uniform(0, 2 * np.pi, 29), rng.uniform(1, 6, 29)
    joint_pos = center + 0.4 * half * np.sin(rate * t + phase)
    root_pos = np.hstack([0.5 * t, 0.1 * np.sin(3 * t), 0.8 + 0.05 * np.cos(2 * t)])
    angle = 0.4 * np.sin(2 * t) * [0.3, 0.2, 1.0]
    size = np.linalg.norm(angle, axis=1, keepdims=True)
    root_quat = np.hstack([np.cos(size / 2), angle * np.sinc(size / 2 / np.pi) / 2])
    return root_pos, root_quat, joint_pos


def clip(frames=60, fps=50.0, seed=0, name="sample"):
    return clip_from_states(
        name, fps, *states(frames, fps, seed), source="made for a test", licence="CC0"
    )


def csv_text(frames=40, fps=30.0, seed=0):
    """The same motion as CSV rows (quaternion x y z w) with every digit."""
    root_pos, quat, joint_pos = states(frames, fps, seed)
    rows = np.hstack([root_pos, quat[:, [1, 2, 3, 0]], joint_pos])
    return "".join(",".join(repr(float(value)) for value in row) + "\n" for row in rows)
