"""The smallest smooth change of a motion after which it is over the floor and within joint ranges.

The change of a frame has 35 coordinates: the pelvis' position and rotation, and the joints. Over
time each is a cubic B-spline with a knot every `KNOT_S`, so that speeds and accelerations of the
change are continuous, and where it begins and ends they are 0. It minimises, summed over frames,

    sum w |p - p_ref|^2 + JOINT_WEIGHT |dq|^2 + SMOOTH_S^4 |x''|^2

with p the points of `TRACKED`: the links that a policy tracks, the soles and the finger tips. x''
is the second derivative of the change, in the same metric, averaged over the frames. So a hand in
the floor is lifted by its arm, and who lies in the floor is lifted as a whole: each is what moves
the tracked points least.

Floor and ranges are one-sided squares of a weight that grows (`WEIGHTS`), each weight solved by
Gauss-Newton steps with a line search; a step's equations couple each knot with three others. The
last weight leaves tenths of a millimetre, for which there is `MARGIN`.

Units: m, rad, s; world frame, z up, floor at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bm_envs import rotations as rot
from bm_envs.robots import g1, kinematics

KNOT_S = 0.1
"""Time between knots."""
SMOOTH_S = 0.1
"""Time in which a change that nothing asks for any more fades."""
JOINT_WEIGHT = 0.05
"""m^2/rad^2: 0.1 rad of a joint counts as much as 22 mm of a link. Much less, and a joint turns
far for millimetres of a link that it hardly moves."""
MARGIN = 0.002
"""m that points are aimed above their least height."""
WEIGHTS = (30.0, 300.0, 3000.0)
"""Of a metre in the floor, or a radian out of range, against a metre of a tracked point."""
ITERATIONS = 15
"""Most steps with one weight."""
DECREASE = 1e-3
"""Share of the cost: a smaller decrease is the last one of a weight."""
DOFS = 6 + g1.NUM_JOINTS
_INTERVALS = 32  # between knots, whose frames are worked on at once
_GROUP = 3  # knots that a knot is coupled with, on one side


ORIGINS = kinematics.points_on([(name, (0.0, 0.0, 0.0), 0.0) for name in g1.BODY_NAMES])
"""Origins of all links."""
FLOOR_POINTS = kinematics.Points(
    *(np.concatenate(parts) for parts in zip(kinematics.SHAPES, ORIGINS, strict=True))
)
"""What has a least height: the shapes that meet the floor, then the origins."""

_HANDS = [geom for geom in g1.COLLISION_GEOMS if geom.name.endswith("hand_collision") and geom.end]
TRACKED = kinematics.points_on([
    *((name, (0.0, 0.0, 0.0), 0.0) for name in g1.TRACKED_BODIES),
    *((geom.body, geom.start, 0.0) for geom in g1.FOOT_SPHERES),
    *((geom.body, geom.end, 0.0) for geom in _HANDS if geom.end),
])  # fmt: skip
"""What is to stay where it is. A sole's four points and a hand's tip also tell how they lie."""
_TRACKED_WEIGHT = np.where(
    np.isin(np.arange(len(TRACKED.body)) - len(g1.TRACKED_BODIES), range(len(g1.FOOT_SPHERES))),
    0.5, 1.0,
)  # fmt: skip

_JOINT_BODY = np.array([g1.BODY_NAMES.index(joint.body) for joint in g1.JOINTS])
_JOINT_AXIS = np.array([joint.axis for joint in g1.JOINTS], np.float64)


def _descendants() -> np.ndarray:
    """`[30, 32]`: whether a link turns with the pelvis' three axes and each joint's."""
    turns = np.zeros((g1.NUM_BODIES, g1.NUM_JOINTS), bool)
    for i, body in enumerate(g1.BODIES[1:], start=1):
        turns[i] = turns[g1.BODY_NAMES.index(body.parent)] | (_JOINT_BODY == i)
    return np.concatenate([np.ones((g1.NUM_BODIES, 3), bool), turns], axis=1)


_TURNS = _descendants()


class States(NamedTuple):
    """`root_pos [T, 3]`, `root_quat [T, 4]` w x y z, `joint_pos [T, 29]`, all float64."""

    root_pos: np.ndarray
    root_quat: np.ndarray
    joint_pos: np.ndarray

    def moved(self, change: np.ndarray) -> States:
        """The states after `change [T, 35]`: a way, a rotation vector (world axes), joints."""
        turn = rot.quat_from_axis_angle(change[:, 3:6])
        return States(self.root_pos + change[:, :3], rot.quat_mul(turn, self.root_quat),
                      self.joint_pos + change[:, 6:])  # fmt: skip

    def frames(self, which: slice) -> States:
        return States(*(values[which] for values in self))

    def links(self) -> kinematics.LinkStates:
        return kinematics.link_poses(*self)


@dataclass(frozen=True, eq=False)
class Bounds:
    """What the states are to keep to in every frame."""

    height: np.ndarray
    """`[T, P]`, least heights of `FLOOR_POINTS`."""
    low: np.ndarray
    """`[T, 29]`, least joint angles."""
    high: np.ndarray
    """`[T, 29]`, largest joint angles."""


def knot_frames(fps: float) -> int:
    """Frames from one knot to the next."""
    return max(1, round(KNOT_S * fps))


def project(
    states: States, bounds: Bounds, fps: float, *, begins: bool, ends: bool
) -> np.ndarray:  # fmt: skip
    """The change `[T, 35]` of a stretch of a motion, as `States.moved` takes it.

    Args:
        states: the stretch. It starts at a knot, a multiple of `knot_frames`, and if the motion
            goes on behind it, it ends before one.
        bounds: what it is to keep to, up to tenths of a millimetre and thousandths of a radian.
        fps: frames per second.
        begins: the motion begins with the stretch; else the change is 0 in its first frame.
        ends: the motion ends with it; else the change is 0 behind its last frame.
    """
    piece = _Piece(states, bounds, fps)
    free = slice(0 if begins else _GROUP, None if ends else -_GROUP)
    coefs = np.zeros((piece.intervals + _GROUP, DOFS))
    for weight in WEIGHTS:
        for _ in range(ITERATIONS):
            before, gradient, blocks = piece.linearised(coefs, weight)
            step = np.zeros_like(coefs)
            step[free] = _solve(blocks[free], -gradient[free])
            slope = float((gradient * step).sum())
            for share in (1.0, 0.5, 0.25, 0.1, 0.01):
                after = piece.cost(coefs + share * step, weight)
                if after <= before + 0.1 * share * slope:
                    coefs += share * step
                    break
            else:
                break
            if before - after < DECREASE * before:
                break
    return piece.change(coefs)[: len(states.root_pos)]


class _Piece:
    """The cost of a stretch's change by the spline's coefficients `[intervals + 3, 35]`."""

    def __init__(self, states: States, bounds: Bounds, fps: float):
        self.size = knot_frames(fps)
        frames = len(states.root_pos)
        self.intervals = -(-frames // self.size)
        # The last interval is filled up with the last frame.
        fill = np.minimum(np.arange(self.intervals * self.size), frames - 1)
        self.states = States(*(values[fill] for values in states))
        self.height = bounds.height[fill] + MARGIN
        self.low, self.high = bounds.low[fill], bounds.high[fill]

        u = np.arange(self.size) / self.size
        self.basis = np.stack(
            [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1
        ) / 6  # fmt: skip
        second = np.stack([1 - u, 3 * u - 2, 1 - 3 * u, u], axis=1) * (fps / self.size) ** 2
        self.bending = SMOOTH_S**4 * second.T @ second  # [4, 4] of an interval's coefficients

        links = [self.states.frames(rows).links() for rows in self._chunks()]
        self.reference = np.concatenate([TRACKED.of(part.pos, part.quat) for part in links])
        self.metric = sum(self._metric(_Jacobian(part)).sum(axis=0) for part in links) / len(fill)

    def _chunks(self) -> list[slice]:
        """Frames of a few intervals each."""
        starts = range(0, self.intervals, _INTERVALS)
        return [slice(i * self.size, min(i + _INTERVALS, self.intervals) * self.size)
                for i in starts]  # fmt: skip

    def change(self, coefs: np.ndarray) -> np.ndarray:
        """`[T, 35]`, the spline at every frame."""
        change = sum(self.basis[:, k, None] * coefs[k : k + self.intervals, None] for k in range(4))
        return np.reshape(change, (-1, DOFS))

    def cost(self, coefs: np.ndarray, weight: float) -> float:
        """What `project` minimises, with floor and ranges at `weight`."""
        change = self.change(coefs)
        total = self._bent(coefs)[0]
        for rows in self._chunks():
            total += self._residuals(rows, change[rows], weight)[0]
        return total

    def linearised(
        self, coefs: np.ndarray, weight: float
    ) -> tuple[float, np.ndarray, np.ndarray]:  # fmt: skip
        """The cost, its gradient `[K, 35]`, and the Gauss-Newton matrix by its blocks.

        `blocks[k, j] [35, 35]` couples coefficient k with k - j, for j from 0 to 3.
        """
        change = self.change(coefs)
        cost, gradient = self._bent(coefs)
        blocks = np.zeros((len(coefs), _GROUP + 1, DOFS, DOFS))
        for k in range(4):
            for j in range(k + 1):
                blocks[k : k + self.intervals, j] += self.bending[k, k - j] * self.metric
        for rows in self._chunks():
            part, distance, depth, excess, links = self._residuals(rows, change[rows], weight)
            cost += part
            jacobian = _Jacobian(links)
            matrix = self._metric(jacobian)
            slope = np.zeros((len(distance), DOFS))
            for axis in range(3):
                rise = jacobian.rows(TRACKED, axis) * _TRACKED_WEIGHT[:, None]
                slope += np.einsum("tpx,tp->tx", rise, distance[..., axis])
            rise = jacobian.rows(FLOOR_POINTS, 2) * (depth > 0)[..., None]
            matrix += weight * (rise.swapaxes(1, 2) @ rise)
            slope -= weight * np.einsum("tpx,tp->tx", rise, depth)
            joints = np.arange(6, DOFS)
            matrix[:, joints, joints] += weight * (excess != 0)
            slope[:, 6:] += JOINT_WEIGHT * change[rows, 6:] + weight * excess

            first, count = rows.start // self.size, len(distance) // self.size
            matrix = matrix.reshape(count, self.size, DOFS * DOFS)
            slope = slope.reshape(count, self.size, DOFS)
            for k in range(4):
                at = slice(first + k, first + k + count)
                gradient[at] += self.basis[:, k] @ slope
                for j in range(k + 1):
                    both = self.basis[:, k] * self.basis[:, k - j]
                    blocks[at, j] += (both @ matrix).reshape(count, DOFS, DOFS)
        return cost, gradient, blocks

    def _metric(self, jacobian: _Jacobian) -> np.ndarray:
        """`[T, 35, 35]`: what a small change costs, of tracked points and joints."""
        root = np.sqrt(_TRACKED_WEIGHT)[:, None]
        rows = np.concatenate([jacobian.rows(TRACKED, axis) * root for axis in range(3)], axis=1)
        metric = rows.swapaxes(1, 2) @ rows
        joints = np.arange(6, DOFS)
        metric[:, joints, joints] += JOINT_WEIGHT
        return metric

    def _residuals(
        self, rows: slice, change: np.ndarray, weight: float
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, kinematics.LinkStates]:
        """Of some frames: the cost; distances `[T, P, 3]` of tracked points; depths and excesses.

        Depths `[T, P]` are under the least heights, excesses `[T, 29]` are signed.
        """
        states = self.states.frames(rows).moved(change)
        links = states.links()
        distance = TRACKED.of(links.pos, links.quat) - self.reference[rows]
        depth = self.height[rows] - FLOOR_POINTS.of(links.pos, links.quat)[..., 2]
        depth = np.maximum(0.0, depth)
        joints = states.joint_pos
        excess = joints - np.clip(joints, self.low[rows], self.high[rows])
        cost = (
            np.einsum("tpi,tpi,p->", distance, distance, _TRACKED_WEIGHT)
            + JOINT_WEIGHT * (change[:, 6:] ** 2).sum()
            + weight * ((depth**2).sum() + (excess**2).sum())
        ) / 2
        return float(cost), distance, depth, excess, links

    def _bent(self, coefs: np.ndarray) -> tuple[float, np.ndarray]:
        """The cost of accelerations and its gradient."""
        ends = [coefs[k : k + self.intervals] @ self.metric for k in range(4)]
        gradient = np.zeros_like(coefs)
        for k in range(4):
            pull = sum(self.bending[k, other] * ends[other] for other in range(4))
            gradient[k : k + self.intervals] += pull
        return float((gradient * coefs).sum()) / 2, gradient


class _Jacobian:
    """How points of T frames move with the 35 coordinates."""

    def __init__(self, links: kinematics.LinkStates):
        frames = len(links.pos)
        self.links = links
        axes = rot.quat_rotate(links.quat[:, _JOINT_BODY], _JOINT_AXIS)
        self.axes = np.concatenate([np.broadcast_to(np.eye(3), (frames, 3, 3)), axes], axis=1)
        at = np.concatenate([links.pos[:, [0, 0, 0]], links.pos[:, _JOINT_BODY]], axis=1)
        # A point p turns by axis x (p - at).
        self.rest = -rot.cross(self.axes, at)

    def rows(self, points: kinematics.Points, axis: int) -> np.ndarray:
        """`[T, P, 35]`: of one component of the points."""
        y, z = (axis + 1) % 3, (axis + 2) % 3
        where = points.of(self.links.pos, self.links.quat)
        turned = (
            self.axes[:, None, :, y] * where[..., z, None]
            - self.axes[:, None, :, z] * where[..., y, None]
            + self.rest[:, None, :, axis]
        ) * _TURNS[points.body]
        moved = np.zeros((*where.shape[:2], 3))
        moved[..., axis] = 1.0
        return np.concatenate([moved, turned], axis=2)


def _solve(blocks: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve the symmetric system of `_Piece.linearised` for `right [K, 35]`.

    Three knots are one block of a block tridiagonal matrix, which is eliminated from the first on.
    """
    count = -(-len(right) // _GROUP) * _GROUP
    lines = np.zeros((count, _GROUP + 1, DOFS, DOFS))
    lines[: len(right)] = blocks
    for k in range(_GROUP):
        lines[k, k + 1 :] = 0.0  # with coefficients that are not free
    # Behind the end, and where a coefficient is of no frame, the change is 0.
    diagonal = np.arange(DOFS)
    lines[:, 0, diagonal, diagonal] += 1e-9
    groups = count // _GROUP
    here = np.zeros((groups, _GROUP, DOFS, _GROUP, DOFS))
    before = np.zeros_like(here)
    for k in range(_GROUP):
        for j in range(_GROUP + 1):
            if j <= k:
                here[:, k, :, k - j] = lines[k::_GROUP, j]
                here[:, k - j, :, k] = lines[k::_GROUP, j].swapaxes(1, 2)
            else:
                before[:, k, :, k - j + _GROUP] = lines[k::_GROUP, j]
    size = _GROUP * DOFS
    here, before = here.reshape(groups, size, size), before.reshape(groups, size, size)
    rest = np.zeros((groups, size, 1))
    rest.reshape(count, DOFS)[: len(right)] = right
    ahead = np.zeros((groups, size, size))
    for i in range(groups):
        pivot, side = here[i], rest[i]
        if i:
            pivot, side = pivot - before[i] @ ahead[i - 1], side - before[i] @ rest[i - 1]
        coupled = before[i + 1].T if i + 1 < groups else np.zeros((size, 0))
        solved = np.linalg.solve(pivot, np.concatenate([coupled, side], axis=1))
        ahead[i, :, : coupled.shape[1]], rest[i] = solved[:, :-1], solved[:, -1:]
    for i in range(groups - 2, -1, -1):
        rest[i] -= ahead[i] @ rest[i + 1]
    return rest.reshape(count, DOFS)[: len(right)]
