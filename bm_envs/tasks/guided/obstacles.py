"""Vertical cylinders in the robot's way: where they stand, and how far the robot is from them.

They are no part of the physics: a robot that walks into one walks on, and has failed. Contact is
between circles on the ground plane, since the cylinders are taller than the robot.
"""

from __future__ import annotations

import numpy as np

from bm_envs.robots import g1
from bm_envs.tasks.guided.config import ObstacleConfig

# m, of the circle about each link's origin, by a part of the link's name: what counts as contact.
# Ours: the paper names neither links nor radii. Changing one changes the environment.
LINK_RADII = {"pelvis": 0.18, "waist": 0.18, "torso": 0.18, "hip": 0.10, "knee": 0.08,
              "ankle": 0.08, "shoulder": 0.07, "elbow": 0.07, "wrist": 0.07}  # fmt: skip
# Toes, heels and finger tips, where those circles do not reach: (link, place on it, radius).
_ENDS = [
    *((geom.body, geom.start, geom.radius) for geom in g1.FOOT_SPHERES),
    *((geom.body, geom.end, geom.radius) for geom in g1.COLLISION_GEOMS
      if geom.name.endswith("_hand_collision") and geom.end),
]  # fmt: skip


def _radius(link: str) -> float:
    """Radius of the circle about a link's origin, m."""
    return next(radius for stem, radius in LINK_RADII.items() if f"_{stem}_" in f"_{link}_")


# Index of each point's link among the tracked ones, place on it and radius. [P], [P, 3], [P]
POINT_LINKS = np.array([
    *range(len(g1.TRACKED_BODIES)), *(g1.TRACKED_BODIES.index(link) for link, _, _ in _ENDS)
])  # fmt: skip
POINT_PLACES = np.array(
    [(0.0, 0.0, 0.0)] * len(g1.TRACKED_BODIES) + [place for _, place, _ in _ENDS], np.float32
)
POINT_RADII = np.array(
    [_radius(link) for link in g1.TRACKED_BODIES] + [radius for _, _, radius in _ENDS], np.float32
)
_LAYOUTS, _TRIES = 4, 32  # layouts that are tried for one with all obstacles; places for each


def body_points(body_pos: np.ndarray, body_axes: np.ndarray) -> np.ndarray:
    """Where the robot's points are over the ground. `[N, P, 2]`, world, m.

    Args:
        body_pos: `[N, K, 3]`, tracked links, world, m.
        body_axes: `[N, K, 3, 3]`, their axes as rows.
    """
    axes = body_axes[:, POINT_LINKS, :, :2]
    return body_pos[:, POINT_LINKS, :2] + (POINT_PLACES[..., None] * axes).sum(2)


def clearance(points: np.ndarray, obstacles: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Distance of the robot's surface from each obstacle's, m; negative inside. `[N, K]`.

    Args:
        points: `[N, P, 2]`, of `body_points`.
        obstacles: `[N, K, 3]`: x, y, radius, m.
        count: `[N]`, how many of them exist; the others are infinitely far.
    """
    offset = points[:, :, None] - obstacles[:, None, :, :2]
    gap = np.sqrt((offset * offset).sum(-1)) - POINT_RADII[:, None] - obstacles[:, None, :, 2]
    exists = np.arange(obstacles.shape[1]) < count[:, None]
    return np.where(exists, gap.min(1), np.inf)


def place(
    rng: np.random.Generator, start: np.ndarray, goal: np.ndarray, config: ObstacleConfig
) -> np.ndarray:
    """Obstacles between `start [2]` and `goal [2]`, world, m. `[C, 3]`: x, y, radius.

    The first stands on the straight line from start to goal; the others within `spread` of it. No
    two surfaces are nearer than `gap`, none is nearer to start or goal than `margin`: so a robot
    half a gap wide to either side finds a way, for what its middle may not enter are discs that do
    not touch each other, and around those the plane stays in one piece.

    As many as find room of a number drawn from `obstacle_count`; none where start and goal are so
    near that not even one does.
    """
    expected = int(rng.integers(*config.obstacle_count, endpoint=True))
    way = goal - start
    distance = float(np.hypot(*way))
    ahead = way / max(distance, 1e-9)
    left = np.array([-ahead[1], ahead[0]])
    best = np.zeros((0, 3))
    for _ in range(_LAYOUTS):
        placed = np.zeros((0, 3))
        for radius in rng.uniform(*config.obstacle_radius, expected):
            side = config.spread if len(placed) else radius
            free = distance / 2 - config.margin - radius  # m to both sides of the middle
            if free < 0:
                continue
            along = distance / 2 + rng.uniform(-free, free, _TRIES)
            across = rng.uniform(-side, side, _TRIES)
            places = start + along[:, None] * ahead + across[:, None] * left
            offset = places[:, None] - placed[:, :2]
            apart = np.sqrt((offset * offset).sum(-1)) - radius - placed[:, 2]
            (fitting,) = (apart >= config.gap).all(1).nonzero()
            if fitting.size:
                placed = np.vstack([placed, [*places[fitting[0]], radius]])
        if len(placed) > len(best):
            best = placed
        if len(best) == expected:
            break
    return best
