"""The shortest way to a place around vertical cylinders.

A cost on obstacles sees as far as a window predicts, a third of a second. In front of a post that
stands before the goal, the two push against each other, and a robot stops there. So a robot heads
for the next corner of the shortest way: around discs it is made of their tangents and arcs
(Lozano-Perez and Wesley, 1979, for polygons); arcs are taken as polygons about the discs. Ours: the
paper steers by its costs alone.
"""

from __future__ import annotations

import functools

import numpy as np

CORNERS = 16  # of a polygon about a disc


class Way:
    """The way to one goal among one set of posts, from wherever the robot is."""

    def __init__(self, goal: np.ndarray, posts: np.ndarray, margin: float) -> None:
        """Find how far each corner is from the goal.

        Args:
            goal: `[2]`, m.
            posts: `[C, 3]`: x, y, radius, m.
            margin: from a post's surface, which the way keeps to, m. Nearer to a post than that, a
                goal is reached all the same.
        """
        self._centers = posts[:, :2]
        distance = np.linalg.norm(goal - self._centers, axis=1)
        self._radii = np.minimum(posts[:, 2] + margin, 0.999 * distance)
        angle = 2 * np.pi * np.arange(CORNERS) / CORNERS
        # The polygon's sides touch the disc, a hair outside.
        ring = np.stack([np.cos(angle), np.sin(angle)], 1) * (1.001 / np.cos(np.pi / CORNERS))
        corners = self._centers[:, None] + self._radii[:, None, None] * ring
        self._points = np.vstack([goal[None], corners.reshape(-1, 2)])
        step = np.linalg.norm(self._points[:, None] - self._points, axis=2)
        step[~self._sees(self._points, self._radii)] = np.inf
        np.fill_diagonal(step[1:, 1:], np.inf)
        left = np.full(len(self._points), np.inf)
        left[0] = 0.0
        for _ in left:  # Bellman and Ford: a way has no more corners than there are
            shorter = np.minimum(left, (step + left).min(1))
            if (shorter == left).all():
                break
            left = shorter
        self._left = left
        self._next = (step + left).argmin(1)  # the corner after each; the goal's is itself

    def next(self, place: np.ndarray) -> np.ndarray:
        """Where to head for at `place [2]`: the next corner, or the goal. `[2]`, m.

        A robot that is nearer to a post than the way goes is led away from it first.
        """
        off = np.linalg.norm(place - self._centers, axis=1)
        visible = self._sees(place[None], np.minimum(self._radii, (1 - 1e-6) * off))[0]
        distance = np.linalg.norm(self._points - place, axis=1)
        total = np.where(visible, distance + self._left, np.inf)
        if not np.isfinite(total).any():
            return self._points[0]
        # The furthest corner of the way that is seen: a near one may lie in any direction.
        corner = total.argmin()
        while visible[self._next[corner]] and self._next[corner] != corner:
            corner = self._next[corner]
        return self._points[corner]

    def _sees(self, places: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Whether the straight way from `places [P, 2]` to each point meets no disc. `[P, Q]`."""
        way = self._points - places[:, None]
        length = np.maximum((way**2).sum(-1), 1e-12)
        free = np.ones(length.shape, bool)
        for center, radius in zip(self._centers, radii, strict=True):
            off = center - places[:, None]
            share = ((off * way).sum(-1) / length).clip(0.0, 1.0)
            nearest = off - share[..., None] * way
            free &= (nearest**2).sum(-1) >= radius**2
        return free


def heading_points(
    place: np.ndarray, goal: np.ndarray, posts: np.ndarray, count: np.ndarray, margin: float
) -> np.ndarray:
    """Where N robots head for. `[N, 2]`, m.

    Args:
        place: `[N, 2]`, of the robots, m.
        goal: `[N, 2]`.
        posts: `[N, C, 3]`: x, y, radius.
        count: `[N]`, how many of them exist.
        margin: see `Way`.
    """
    points = np.empty_like(goal)
    for i, many in enumerate(count):
        way = _way(tuple(goal[i].tolist()), tuple(posts[i, :many].ravel().tolist()), margin)
        points[i] = way.next(place[i])
    return points


@functools.lru_cache(maxsize=4096)
def _way(goal: tuple[float, ...], posts: tuple[float, ...], margin: float) -> Way:
    """Posts stand still, so a way is worked out once."""
    return Way(np.array(goal), np.array(posts).reshape(-1, 3), margin)
