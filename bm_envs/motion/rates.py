"""Frames per second of a motion file: by its keys, its name, or how its robot balances.

A rate that is wrong makes every speed wrong, and nothing in a frame shows it. In a CSV it is not
even stated; there the name may tell it, and the motion: see `rate_that_fits`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion.pickles import as_array
from bm_envs.robots import g1, kinematics

RATE_KEYS = ("fps", "framerate", "frame_rate", "mocap_framerate", "mocap_frame_rate")
PERIOD_KEYS = ("dt",)
RATES = (1.0, 10_000.0)
"""Lowest and highest number in a file that is taken for frames per second."""
USUAL_RATES = (50.0, 60.0, 100.0, 120.0, 200.0, 240.0)
SLOWED = 1.9
"""How many times too slow a motion must look, by `balance`, to be refused. The 47 public clips and
the package's, whole and at their own rates, look 0.0 to 1.2 times too slow, and pieces of the
package's, of 50 Hz taken for 30, up to 1.8: one of 50 Hz does not show, one of 120 does."""
CORRELATION = 0.35
SINGLE_FRAMES = 60
"""Frames on one foot that `balance` must have seen."""
FAST_SHARE = 0.05
"""Share of steps with a joint beyond its speed limit; no public clip has one."""
GRAVITY = 9.81


def rate_of(where: str, entries: dict[str, Any], fallback: float | None) -> float:
    """Frames per second by the keys of a file.

    Args:
        where: what errors name.
        entries: key to value, of which those that tell a rate are looked at.
        fallback: what is taken where no key tells one.

    Raises:
        MotionError: no rate, one that is no number, or keys that contradict each other.
    """
    advice = "pass --input-fps to bm-envs motion convert"
    rate_by_key: dict[str, float] = {}
    for key in (*RATE_KEYS, *PERIOD_KEYS):
        if key not in entries:
            continue
        value = _one_number(entries[key])
        if value is None:
            raise MotionError(
                f"{where}: {key} is no number, expected frames a second; {advice}."
                if key in RATE_KEYS
                else f"{where}: {key} is no number, expected seconds a frame; {advice}."
            )
        rate = value if key in RATE_KEYS else 1.0 / value if value else math.inf
        if not RATES[0] <= rate <= RATES[1]:
            raise MotionError(
                f"{where}: {key} is {value:g}, expected a positive number"
                f" ({'frames a second' if key in RATE_KEYS else 'seconds a frame'},"
                f" {RATES[0]:g} to {RATES[1]:g} frames a second); {advice}."
            )
        # float32's 0.02 s are 49.9999989 frames a second.
        rate_by_key[key] = float(round(rate)) if abs(rate - round(rate)) < 1e-5 * rate else rate
    if not rate_by_key:
        if fallback is None:
            raise MotionError(
                f"{where}: tells no rate (none of {', '.join((*RATE_KEYS, *PERIOD_KEYS))});"
                f" {advice}."
            )
        return fallback
    if max(rate_by_key.values()) > 1.01 * min(rate_by_key.values()):
        listed = ", ".join(f"{key} {rate:g}" for key, rate in rate_by_key.items())
        raise MotionError(f"{where}: its rates contradict each other ({listed}); {advice}.")
    return next(iter(rate_by_key.values()))


def _one_number(value: Any) -> float | None:
    """The value of a number or of an array of one number; None for anything else, text included."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) > 10**15):
        return None
    array = as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(()))


def rate_in_name(stem: str) -> float | None:
    """Frames per second in a file's name, as in `walk_60hz` or `fps120-walk`; None without them."""
    number = r"(\d{1,4}(?:\.\d{1,3})?)"
    match = re.search(rf"(?<![\d.]){number}[ _-]?(?:hz|fps)(?![a-z])", stem, re.IGNORECASE)
    match = match or re.search(rf"(?<![a-z])fps[ _-]?{number}(?![\d.])", stem, re.IGNORECASE)
    rate = float(match[1]) if match else None
    return rate if rate is not None and RATES[0] <= rate <= RATES[1] else None


def rate_entries(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of a file that `rate_of` reads."""
    return {key: arrays[key] for key in (*RATE_KEYS, *PERIOD_KEYS) if key in arrays}


def rate_that_fits(
    pos: np.ndarray, quat: np.ndarray, joints: np.ndarray, fps: float
) -> tuple[float | None, str]:
    """A usual rate that fits a motion far better than `fps` does, and why; None where `fps` may be.

    Args:
        pos: `[T, 3]`, world, m.
        quat: `[T, 4]`, w x y z, unit length.
        joints: `[T, 29]`, rad.
        fps: the rate that is doubted.
    """
    if len(pos) < 2 or not (np.abs(joints) < 10).all() or not (np.abs(pos) < 1e3).all():
        return None, ""  # the angles have another unit, which the checks of the motion report
    fast = (np.abs(np.diff(joints, axis=0)) * fps / g1.VELOCITY_LIMIT).max(axis=1)
    share = float((fast > 1.0).mean())
    if share > FAST_SHARE:
        # This is the rate at which all but that share of the steps would be within the limits.
        lower = fps / float(np.quantile(fast, 1.0 - FAST_SHARE))
        return float(max(1, math.floor(lower))), (
            f"at {fps:g} frames a second a joint is faster than its motor in {share:.0%} of steps"
        )
    slowed, correlation, frames = balance(pos, quat, joints, fps)
    if slowed > SLOWED and correlation > CORRELATION and frames >= SINGLE_FRAMES:
        fitting = min(USUAL_RATES, key=lambda rate: abs(math.log(rate / (fps * slowed))))
        return fitting, (f"on one foot the robot leans as if it moved {slowed:.1f} times as fast")
    return None, ""


_MASS = np.array([body.mass for body in g1.BODIES])
_CENTER = np.array([body.inertial_pos for body in g1.BODIES])
_BLOCK, _BLOCKS = 500, 4


def balance(
    pos: np.ndarray, quat: np.ndarray, joints: np.ndarray, fps: float
) -> tuple[float, float, int]:
    """How many times too slow a motion is played, by the law of the inverted pendulum.

    On one foot the centre of mass accelerates away from the foot by its distance times g over its
    height; walking at a third of its speed, a person would fall over. The regression of that
    distance on (height / g) x acceleration has the slope s^2 for a motion that is played s times
    too slowly. Noise of the acceleration makes s smaller, so a large one says something and a small
    one nothing.

    Returns:
        s, the correlation of the two, and the frames on one foot that were used.
    """
    starts = [0] if len(pos) <= _BLOCK * _BLOCKS else \
        list(np.linspace(0, len(pos) - _BLOCK, _BLOCKS).astype(int))  # fmt: skip
    length = len(pos) if len(starts) == 1 else _BLOCK
    away, pushed = [], []
    for start in starts:
        part = slice(start, start + length)
        lean = _leaning(pos[part], quat[part], joints[part], fps)
        away.append(lean[0])
        pushed.append(lean[1])
    a, b = np.concatenate(away).ravel(), np.concatenate(pushed).ravel()
    product, own, other = float(a @ b), float(b @ b), float(a @ a)
    if product <= 0 or own <= 0:
        return 0.0, 0.0, len(a) // 2
    return math.sqrt(product / own), product / math.sqrt(own * other), len(a) // 2


def _leaning(
    pos: np.ndarray, quat: np.ndarray, joints: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the centre of mass from the foot, and height / g x acceleration: `[K, 2]` each.

    Of the frames on one foot, that is at rest.
    """
    h = max(1, round(0.08 * fps))
    k = np.arange(2 * h, len(pos) - 2 * h)
    if not len(k):
        return np.zeros((0, 2)), np.zeros((0, 2))
    links = kinematics.link_poses(pos, quat, joints)
    offsets = rot.quat_rotate(links.quat, np.broadcast_to(_CENTER, links.pos.shape))
    center = ((links.pos + offsets) * _MASS[:, None]).sum(axis=1) / _MASS.sum()
    soles = kinematics.sole_points(links.pos, links.quat)
    lowest = soles[..., 2].min(axis=2)
    floor = np.percentile(lowest.min(axis=1), 10)
    wide = (center[k + 2 * h] - 2 * center[k] + center[k - 2 * h]) * (fps / (2 * h)) ** 2
    near = (center[k + h] - 2 * center[k] + center[k - h]) * (fps / h) ** 2
    foot = lowest[k].argmin(axis=1)
    middle = soles.mean(axis=2)
    under, row = middle[k, foot], np.arange(len(k))
    speed = np.linalg.norm(middle[k + 1, foot] - middle[k - 1, foot], axis=1) * fps / 2
    height = np.sort(lowest[k], axis=1)
    single = (height[:, 0] < floor + 0.03) & (height[:, 1] - height[:, 0] > 0.03) & (speed < 0.3)
    up = (center[k, 2] - under[row, 2])[:, None]
    away = center[k, :2] - under[:, :2]
    pushed = 0.5 * (wide + near)[:, :2] * up / GRAVITY
    return away[single], pushed[single]
