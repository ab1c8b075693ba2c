"""What a run of the tour draws: waypoints, punches and the walk of the arms, from its run id alone.

Written from facts about rhoyn/teleop-walking-benchmark (README at 0b2ea7a). A run id names a whole
task. Each kind of draw has a stream of its own: C++'s `std::mt19937`, seeded by
`std::seed_seq{run id, stream}`, whose words NumPy's MT19937 gives once its key is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bm_envs.robots import g1
from bm_envs.robots.kinematics import LinkChain
from bm_envs.rotations import wrapped

TOUR, PUNCHES, ARMS = 2, 3, 4  # streams; 1 is for a self-test of the original
WORD = 2**32
RADIUS = 0.75  # m, of the disc in which waypoints lie
MIDDLE = (0.3, 0.0)  # m, of that disc, in the anchored frame

OWNED = g1.FIRST_ARM  # joints before it are the policy's, legs and waist
LEFT = slice(OWNED, OWNED + 7)
_, _SIGNS = g1.mirror_map()
MIRROR = _SIGNS[LEFT]  # of a right arm's joint against the left one's
STEPS, STEP = 25, 0.06  # of a walk to the next end point of the arms, rad each
TRIES = 8
# Bounding box, m, of unitree_rl_gym's left_rubber_hand.STL, as the original has it: at the origin
# of the wrist's last link, where the mesh itself is 0.04 m further out. The right hand is its
# mirror image.
HAND = ((0.0, 0.131829), (-0.047906, 0.018651), (-0.043029, 0.063450))
# m, of the torso's frame: hands may be nowhere above the head's lowest point. The frame's origin is
# 0.01 m lower here than in the original's model, where the head begins at 0.2708 m.
HIGHEST = 0.2808


def mt_key(seed: Sequence[int]) -> np.ndarray:
    """The 624 words that `std::seed_seq{*seed}` gives `std::mt19937`.

    Source: ISO C++ [rand.util.seedseq], generate; [rand.eng.mers].
    """
    n, s, mask = 624, len(seed), WORD - 1
    t = 11
    p = (n - t) // 2
    q = p + t
    m = max(s + 1, n)
    a = [0x8B8B8B8B] * n

    def mix(word: int) -> int:
        return word ^ (word >> 27)

    for k in range(m + n):
        i, j, before = k % n, (k + p) % n, (k - 1) % n
        if k < m:
            first = 1664525 * mix(a[i] ^ a[j] ^ a[before]) & mask
            add = s if k == 0 else i + (seed[k - 1] if k <= s else 0)
            second = (first + add) & mask
            a[j] = (a[j] + first) & mask
            a[(k + q) % n] = (a[(k + q) % n] + second) & mask
        else:
            first = 1566083941 * mix((a[i] + a[j] + a[before]) & mask) & mask
            second = (first - i) & mask
            a[j] ^= first
            a[(k + q) % n] ^= second
        a[i] = second
    return np.array(a, np.uint32)


class Words:
    """A stream of a run: words of 32 bits, and numbers made of them."""

    def __init__(self, run: int, stream: int) -> None:
        self._bits = _generator(mt_key((run % WORD, stream)), 624)

    @classmethod
    def from_state(cls, key: np.ndarray, pos: int) -> Words:
        """Go on from what `get_state` returned."""
        words = cls.__new__(cls)
        words._bits = _generator(key, pos)
        return words

    def get_state(self) -> tuple[np.ndarray, int]:
        """The generator's key `[624]` and its place in it."""
        state = self._bits.state["state"]
        return state["key"], int(state["pos"])

    def words(self, count: int) -> np.ndarray:
        """The next words. `[count]`."""
        return self._bits.random_raw(count)

    def unit(self, count: int) -> np.ndarray:
        """Numbers of [0, 1), of 24 bits each. `[count]`."""
        return (self.words(count) >> 8) / 2.0**24

    def between(self, low: float, high: float, count: int) -> np.ndarray:
        """Uniform numbers. `[count]`."""
        return low + (high - low) * self.unit(count)

    def below(self, n: int) -> int:
        """A whole number of 0 to n - 1, each as likely: words that would favour some are left."""
        span = WORD // n
        while (word := int(self.words(1)[0])) >= n * span:
            pass
        return word // span


def _generator(key: np.ndarray, pos: int) -> np.random.MT19937:
    """A generator whose state this is."""
    bits = np.random.MT19937()
    bits.state = {
        "bit_generator": "MT19937", "state": {"key": np.array(key, np.uint32), "pos": pos}
    }  # fmt: skip
    return bits


def waypoints(run: int, count: int) -> np.ndarray:
    """Places and headings of a run in the anchored frame: x, y, m, heading, rad. `[count, 3]`."""
    words = Words(run, TOUR)
    found = np.zeros((count, 3))
    for i in range(count):
        radius = RADIUS * np.sqrt(words.unit(1)[0])
        bearing, heading = words.between(0.0, 2.0 * np.pi, 2)
        found[i] = (
            MIDDLE[0] + radius * np.cos(bearing), MIDDLE[1] + radius * np.sin(bearing),
            wrapped(heading),
        )  # fmt: skip
    return found


class Punches(NamedTuple):
    """Punches of a run, `[count, ...]`, one a segment."""

    link: np.ndarray
    """Which link is hit at its frame's origin: its place in `g1.BODY_NAMES`."""
    frame: np.ndarray
    """Which link the direction turns with, the same or its parent."""
    direction: np.ndarray
    """`[count, 3]`, unit vectors in that link's axes."""
    share: np.ndarray
    """Of the ceiling at its time, 0.5 to 1."""


def punches(run: int, count: int) -> Punches:
    """The punches of a run. All 29 joints are alike, so that half of them hit an arm."""
    words = Words(run, PUNCHES)
    link, frame = np.zeros((2, count), np.int64)
    direction, share = np.zeros((count, 3)), np.zeros(count)
    for i in range(count):
        joint, own = words.below(g1.NUM_JOINTS), words.below(2)
        link[i] = _LINK[joint]
        frame[i] = link[i] if own else _PARENT[joint]
        height = words.between(-1.0, 1.0, 1)[0]
        around = words.between(0.0, 2.0 * np.pi, 1)[0]
        flat = np.sqrt(max(0.0, 1.0 - height * height))
        direction[i] = flat * np.cos(around), flat * np.sin(around), height
        share[i] = words.between(0.5, 1.0, 1)[0]
    return Punches(link, frame, direction, share)


_LINK = [g1.BODY_NAMES.index(joint.body) for joint in g1.JOINTS]
_PARENT = [g1.BODY_NAMES.index(g1.BODIES[link].parent) for link in _LINK]


def next_arms(words: Words, left: np.ndarray) -> np.ndarray:
    """The end point after `left [7]`, rad, of the left arm's joints: a walk of 25 small steps.

    Up to eight walks are drawn until one ends with the hands in front and below; else arms stay.
    """
    low, high = g1.JOINT_RANGE[LEFT].T
    for _ in range(TRIES):
        steps = words.between(-STEP, STEP, STEPS * 7).reshape(STEPS, 7)
        end = left
        for step in steps:
            end = np.clip(end + step, low, high)
        if hand_allowed(end):
            return end
    return left


def both_arms(left: np.ndarray) -> np.ndarray:
    """All 14 joints `[..., 14]` of arms whose left ones are `left [..., 7]`: a mirror image."""
    return np.concatenate([left, MIRROR * left], -1)


def hand_allowed(left: np.ndarray) -> bool:
    """Whether no corner of the hand is too far behind or too high, for joints `left [7]`, rad."""
    corners = hand_corners(left)
    return bool(corners[:, 0].min() >= _REARMOST and corners[:, 2].max() <= HIGHEST)


def hand_corners(left: np.ndarray) -> np.ndarray:
    """Corners of the left hand's box in the torso's frame, m, for joints `left [7]`. `[8, 3]`."""
    joints = np.zeros(g1.NUM_JOINTS)
    joints[LEFT] = left
    place, turn = _ARM.pose(np.zeros(3), _UPRIGHT, joints)
    return place + _CORNERS @ turn.T


_ARM, _UPRIGHT = LinkChain("left_wrist_yaw_link", base=g1.ANCHOR_BODY), np.array([1.0, 0, 0, 0])
_CORNERS = np.array([[x, y, z] for x in HAND[0] for y in HAND[1] for z in HAND[2]])
# m, of the torso's frame: hands may be nowhere behind the rearmost corner of the stance.
_REARMOST = hand_corners(g1.DEFAULT_JOINT_POS[LEFT])[:, 0].min()
