"""`stroll`, `stride`, `jog`: people's walking and running, carried over to the G1 by joint angles.

The curves are those of `bm_envs.motion.normative`. A robot of other proportions with these angles
would slide on the floor, so one cycle of the whole motion is the solution of a least-squares
problem (`solve_cycle`), periodic, its second half the mirror of the first. What is asked for:

1. joints near the published angles at every share of the cycle, pelvis near its published turns;
2. in stance no point of the sole that stands moves: first the heel, then the whole sole, then the
   toes; the pelvis' path, and with it speed and step length, follow from that;
3. while a foot swings, its sole is off the floor;
4. the body's balance: with centre of mass c, height h and lift f = g + c_z'', the ZMP p satisfies
   f (c - p) = h c''. p goes from heel to toe of the foot that stands. In flight f = 0, so that c
   flies on at its speed. In running the lift is asked for too: half sines of each stance;
5. changes from frame to frame that are smooth.

How fast a cycle is: a person's stride time times the root of the ratio of leg lengths (equal Froude
numbers). Arms swing against the legs, the chest turns against the pelvis.

Source of the ZMP equation: as in `bm_envs.motion.procedural`; angular momentum is left out here.
Weights are ours. Units: m, rad, s; sides left, right. One file because the residuals are read
together: each gives way to the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bm_envs import rotations as rot
from bm_envs.motion.clip import Clip, clip_from_states
from bm_envs.motion.normative import FREE, RUN, SLOW, Curves
from bm_envs.robots import g1, kinematics

FPS = 50.0
GRAVITY = 9.81  # m/s^2
LEG_LENGTH = 0.69
"""m, of the G1 from hip to ground."""
PERSON_LEG = 0.89
"""m, of a person 1.69 m tall: 0.53 of the height (Winter)."""
LEGS = tuple(
    g1.JOINT_NAMES.index(f"{side}_{name}_joint")
    for side in ("left", "right")
    for name in ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
)
DOFS = 6 + len(LEGS)  # of a frame: pelvis x, y, z, roll, pitch, yaw, then `LEGS`
_MIRROR_ROOT = np.array([1.0, -1, 1, -1, 1, -1])
_MIRROR_LEG = np.array([1.0, -1, -1, 1, 1, -1])
_POINTS = 4  # of a sole: two at the heel, two at the toes
_MASS = np.array([body.mass for body in g1.BODIES])
_COM = np.array([body.inertial_pos for body in g1.BODIES])


@dataclass(frozen=True)
class Style:
    """One gait: whose angles, how fast a cycle, and what the curves do not say."""

    curves: Curves
    frames: int
    """Frames of a cycle, even."""
    cycles: int
    """Cycles of the clip."""
    foot_flat: float
    """Share of the cycle from which on the whole sole stands."""
    heel_off: float
    """Share of the cycle from which on only the toes stand."""
    foot_off: float
    """Share of the cycle from which on nothing stands."""
    half_width: float
    """Half the distance of the feet's lines, m."""
    clearance: float
    """Least height of the sole at mid-swing, m."""
    lean: float
    """Forward lean of the chest, rad."""
    shoulder: tuple[float, float]
    """Middle (back is positive) and half the range of the shoulder's swing, rad."""
    elbow: tuple[float, float]
    """Middle of the elbow's bend, and half its range, rad; most bent when in front."""
    lifts: bool = False
    """Whether there is flight, so that the lift is half sines of each stance."""

    @property
    def duration_s(self) -> float:
        """Of a cycle."""
        return self.frames / FPS


HUMAN: dict[str, Style] = {
    # 1.30, 1.04 and 0.74 s of a person, whose legs are 0.89 m, times 0.88.
    "stroll": Style(
        SLOW, 58, 14, foot_flat=0.08, heel_off=0.44, foot_off=0.62, half_width=0.08,
        clearance=0.02, lean=0.03, shoulder=(0.12, 0.20), elbow=(0.35, 0.12),
    ),
    "stride": Style(
        FREE, 46, 18, foot_flat=0.08, heel_off=0.38, foot_off=0.60, half_width=0.08,
        clearance=0.02, lean=0.04, shoulder=(0.14, 0.27), elbow=(0.45, 0.18),
    ),
    "jog": Style(
        RUN, 32, 25, foot_flat=0.07, heel_off=0.22, foot_off=0.394, half_width=0.06,
        clearance=0.02, lean=0.10, shoulder=(0.25, 0.40), elbow=(1.45, 0.15), lifts=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cycle:
    """One cycle of T frames; frame T would be frame 0, `advance` m further on."""

    style: Style
    root_pos: np.ndarray
    """`[T, 3]`."""
    root_quat: np.ndarray
    """`[T, 4]`, w x y z."""
    joint_pos: np.ndarray
    """`[T, 29]`."""
    contact: np.ndarray
    """`[T, 2]` bool."""
    advance: float
    """Stride length, m."""

    @property
    def speed(self) -> float:
        return self.advance / self.style.duration_s


def stance(style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Whether heel and toes of each foot stand. `[T, 2]` bool each."""
    frame = np.arange(style.frames)
    phase = np.stack([frame, (frame + style.frames // 2) % style.frames], 1) / style.frames
    heel = phase < style.heel_off - 1e-9
    toe = (phase >= style.foot_flat - 1e-9) & (phase < style.foot_off - 1e-9)
    return heel, toe


def solve_cycle(style: Style, iterations: int = 60) -> Cycle:
    """One cycle of the gait, as the module's head says."""
    problem = _Problem(style)
    half, advance = problem.start()
    for _ in range(iterations):
        step_half, step_advance = problem.step(half, advance)
        half, advance = half + step_half, advance + step_advance
        if max(np.abs(step_half).max(), abs(step_advance)) < 1e-8:
            break
    full = problem.whole(half)
    heel, toe = stance(style)
    root_pos, root_quat, joint_pos = problem.states(full, advance)
    return Cycle(style, root_pos, root_quat, joint_pos, heel | toe, advance)


def make_human_clip(name: str, *, source: str, licence: str) -> Clip:
    """A clip of `HUMAN`: whole cycles, the last frame being the first one further on.

    Velocities at both ends are those of the endless motion.
    """
    style = HUMAN[name]
    cycle = solve_cycle(style)
    frame = np.arange(-1, style.frames * style.cycles + 2)
    turn, index = np.divmod(frame, style.frames)
    root_pos = cycle.root_pos[index].copy()
    root_pos[:, 0] += turn * cycle.advance
    clip = clip_from_states(
        name, FPS, root_pos, cycle.root_quat[index], cycle.joint_pos[index],
        source=source, licence=licence, foot_contact=cycle.contact[index],
    )  # fmt: skip
    return clip.cut(1 / FPS, clip.duration_s - 1 / FPS, name)


# --- the least-squares problem --------------------------------------------------------------------


class _Problem:
    """Residuals and their derivatives; unknown are half a cycle `[T / 2, DOFS]` and the advance.

    The pelvis' x is what it is ahead of an even speed.
    """

    def __init__(self, style: Style) -> None:
        self.style, self.count = style, style.frames
        self.dt = 1.0 / FPS
        frame = np.arange(self.count)
        self.phase = np.stack([frame, (frame + self.count // 2) % self.count], 1) / self.count
        self.heel, self.toe = stance(style)
        self.upper = self._upper_joints()
        self.wanted = self._wanted()
        middle = self.count // 2
        mirror = np.zeros((DOFS, DOFS))
        mirror[range(6), range(6)] = _MIRROR_ROOT
        for row in range(6):
            mirror[6 + row, 12 + row] = mirror[12 + row, 6 + row] = _MIRROR_LEG[row]
        self.mirror = mirror
        self._linear, self._target = self._linear_part()
        # Of the half cycle: what `_linear` says of the second half is said of the mirrored first.
        rows = self._linear.reshape(-1, self.count, DOFS)
        half = rows[:, :middle] + rows[:, middle:] @ mirror
        self._linear_half = half.reshape(len(rows), -1)

    # What is given.

    def _upper_joints(self) -> np.ndarray:
        """Waist and arms, `[T, 29]`; legs are left at 0."""
        style = self.style
        joints = np.zeros((self.count, g1.NUM_JOINTS))

        def put(name: str, values: np.ndarray | float) -> None:
            joints[:, g1.JOINT_NAMES.index(f"{name}_joint")] = values

        put("waist_yaw", 1.8 * self._both("rotation"))
        put("waist_roll", -self._both("obliquity"))
        put("waist_pitch", style.lean)
        for side, name, sign in ((0, "left", 1.0), (1, "right", -1.0)):
            back = np.cos(2 * np.pi * self.phase[:, side])  # furthest back at its foot's contact
            middle, half_range = style.shoulder
            put(f"{name}_shoulder_pitch", middle + half_range * back)
            put(f"{name}_shoulder_roll", sign * 0.18)
            middle, half_range = style.elbow
            put(f"{name}_elbow", np.pi / 2 - (middle - half_range * back))
        return joints

    def _both(self, name: str) -> np.ndarray:
        """`[T]`, rad: a turn of the pelvis, left side up or forward, by the curves of both sides.

        Measured curves of one side are not quite the other side's mirror.
        """
        left, right = self.style.curves.at(name, self.phase).T
        return np.deg2rad(left - right) / 2

    def _wanted(self) -> np.ndarray:
        """Published angles in the robot's coordinates, `[T, DOFS]`; NaN where nothing is said."""
        curves = self.style.curves
        wanted = np.full((self.count, DOFS), np.nan)
        wanted[:, 3] = self._both("obliquity")
        wanted[:, 4] = 0.0
        wanted[:, 5] = -self._both("rotation")
        even = np.arange(200) / 200
        for side, sign in ((0, 1.0), (1, -1.0)):
            phase, column = self.phase[:, side], 6 + 6 * side
            adduction = curves.at("adduction", phase) - curves.at("adduction", even).mean()
            narrow = np.arcsin((0.116 - self.style.half_width) / (LEG_LENGTH - 0.04))
            wanted[:, column] = -np.deg2rad(curves.thigh(phase))
            wanted[:, column + 1] = -sign * (np.deg2rad(adduction) + narrow)
            wanted[:, column + 2] = 0.0
            wanted[:, column + 3] = np.maximum(np.deg2rad(curves.at("knee", phase)), 0.06)
            wanted[:, column + 4] = -np.deg2rad(curves.at("ankle", phase))
            wanted[:, column + 5] = 0.0
        return wanted

    def start(self) -> tuple[np.ndarray, float]:
        """The published angles, and the way that a leg of this length makes of them."""
        full = np.where(np.isnan(self.wanted), 0.0, self.wanted)
        full[:, 2] = LEG_LENGTH + 0.08
        half = full[: self.count // 2]
        soles, _ = self.features(self.whole(half), 0.0)
        lowest = soles[:, :, :, 2].min(axis=(1, 2))
        half = half.copy()
        half[:, 2] -= lowest.mean()
        flat = self.heel[:, 0] & self.toe[:, 0]
        way = np.diff(soles[:, 0].mean(axis=1)[:, 0])[flat[:-1]].mean()
        return half, float(-way * self.count)

    # From unknowns to what the residuals are made of.

    def whole(self, half: np.ndarray) -> np.ndarray:
        """`[T, DOFS]`: the half cycle and its mirror."""
        return np.concatenate([half, half @ self.mirror.T])

    def states(self, full: np.ndarray, advance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Root positions, root quaternions and joints of `full [T, DOFS]`."""
        pos = full[:, :3].copy()
        pos[:, 0] += advance * np.arange(len(full)) / self.count
        joints = self.upper.copy()
        joints[:, LEGS] = full[:, 6:]
        return pos, rot.quat_from_euler(*full[:, 3:6].T), joints

    def features(self, full: np.ndarray, advance: float) -> tuple[np.ndarray, np.ndarray]:
        """Sole points `[T, 2, 4, 3]` and centre of mass `[T, 3]`, world."""
        links = kinematics.link_poses(*self.states(full, advance))
        com = links.pos + rot.quat_rotate(links.quat, _COM)
        com = (com * _MASS[:, None]).sum(1) / _MASS.sum()
        return kinematics.sole_points(links.pos, links.quat), com

    def step(self, half: np.ndarray, advance: float) -> tuple[np.ndarray, float]:
        """One Gauss-Newton step."""
        full = self.whole(half)
        base = self._flat(full, advance)
        slope = np.empty((self.count, base.shape[1], DOFS))
        for k in range(DOFS):
            moved = full.copy()
            moved[:, k] += 1e-6
            slope[:, :, k] = (self._flat(moved, advance) - base) / 1e-6
        rows = self._feature_rows(base, advance)
        residual, by_feature, by_wrap = rows.arrays()
        by_full = np.matmul(by_feature.transpose(1, 0, 2), slope).transpose(1, 0, 2)
        middle = self.count // 2
        by_half = by_full[:, :middle] + by_full[:, middle:] @ self.mirror
        ahead = np.zeros(base.shape)
        ahead[:, 0::3] = (np.arange(self.count) / self.count)[:, None]
        by_advance = np.tensordot(by_feature, ahead, 2) + by_wrap
        jacobian = np.column_stack([by_half.reshape(len(residual), -1), by_advance])
        normal = jacobian.T @ jacobian
        gradient = jacobian.T @ residual
        normal[:-1, :-1] += self._linear_half.T @ self._linear_half
        gradient[:-1] += self._linear_half.T @ (self._linear @ full.ravel() - self._target)
        # Nothing else asks where the whole motion is along x.
        along = np.zeros(len(normal))
        along[0:-1:DOFS] = 1 / middle
        normal += np.outer(along, along) / 0.001**2
        gradient += along * (along[:-1] @ half.ravel()) / 0.001**2
        change = -np.linalg.solve(normal, gradient)
        change *= min(0.7 if self.style.lifts else 1.0, 0.3 / np.abs(change).max())
        return change[:-1].reshape(half.shape), float(change[-1])

    def _flat(self, full: np.ndarray, advance: float) -> np.ndarray:
        """`[T, 27]`: the features in a row, soles then centre of mass."""
        soles, com = self.features(full, advance)
        return np.concatenate([soles.reshape(self.count, -1), com], axis=1)

    def _linear_part(self) -> tuple[np.ndarray, np.ndarray]:
        """What is linear in the unknowns (1. and 5.), `[R, T * DOFS]`, and its target `[R]`."""
        count = self.count
        spread = np.full(DOFS, np.deg2rad(4.0))
        spread[[7, 8, 11, 13, 14, 17]] = np.deg2rad(8.0)  # hip roll, hip yaw, ankle roll
        known = ~np.isnan(self.wanted).ravel()
        weight = np.tile(1 / spread, count)[known]
        blocks: list[np.ndarray] = [np.eye(count * DOFS)[known] * weight[:, None]]
        targets: list[np.ndarray] = [self.wanted.ravel()[known] * weight]
        # Second and third differences; what is smooth depends on how long a cycle is.
        pace = 46 / count
        each = np.eye(count)
        after, before = np.roll(each, 1, 1), np.roll(each, -1, 1)
        second = after - 2 * each + before
        third = np.roll(each, 2, 1) - 3 * after + 3 * each - before
        for difference, power, sizes in (
            (second, 2, (0.002, 0.02, 0.04)), (third, 3, (0.0004, 0.004, 0.008))
        ):  # fmt: skip
            size = np.repeat(sizes, (3, 3, 12)) * pace**power
            blocks.append(np.kron(difference, np.diag(1 / size)))
            targets.append(np.zeros(count * DOFS))
        return np.concatenate(blocks), np.concatenate(targets)

    def _feature_rows(self, features: np.ndarray, advance: float) -> _Rows:
        """Residuals of feet and balance (2. to 4.)."""
        rows = _Rows(features, advance)
        style, dt = self.style, self.dt
        soles = features[:, :24].reshape(self.count, 2, _POINTS, 3)
        firm, near = 1 / 0.0003, 1 / 0.004
        toe_out = np.tan(np.deg2rad(4.0)) * 0.17
        for side, sign in ((0, 1.0), (1, -1.0)):
            for t in range(self.count):
                for point in range(_POINTS):
                    down = self.heel if point < 2 else self.toe
                    column = 12 * side + 3 * point
                    if down[t, side]:
                        rows.add([(t, column + 2, 1.0)], 0.0, firm)
                        if down[(t + 1) % self.count, side]:
                            for axis in (column, column + 1):
                                rows.add([(t + 1, axis, 1.0), (t, axis, -1.0)], 0.0, firm)
                    else:
                        low = self._least_height(self.phase[t, side])
                        if soles[t, side, point, 2] < low:
                            rows.add([(t, column + 2, 1.0)], -low, near)
                heel, toe = 12 * side + 1, 12 * side + 7
                line = [(t, heel, 0.25), (t, heel + 3, 0.25), (t, toe, 0.25), (t, toe + 3, 0.25)]
                rows.add(line, -sign * style.half_width, 1 / 0.02)
                line = [(t, toe, 0.5), (t, toe + 3, 0.5), (t, heel, -0.5), (t, heel + 3, -0.5)]
                rows.add(line, -sign * toe_out, 1 / 0.01)

        com = features[:, 24:]
        rise = (np.roll(com[:, 2], -1) - 2 * com[:, 2] + np.roll(com[:, 2], 1)) / dt**2
        scale = com[:, 2].mean() / (GRAVITY * dt**2)
        for t in range(self.count):
            lift = self._lift(t) if style.lifts else max(1 + rise[t] / GRAVITY, 0.0)
            for axis, spread in ((0, 0.04), (1, 0.01)):
                c = 24 + axis
                terms = [(t + 1, c, -scale), (t, c, 2 * scale + lift), (t - 1, c, -scale)]
                terms += [(i, column, -lift * share) for i, column, share in self._zmp(t, axis)]
                rows.add(terms, 0.0, 1 / spread)
            if style.lifts:
                terms = [(t + 1, 26, 1.0), (t, 26, -2.0), (t - 1, 26, 1.0)]
                rows.add(terms, (1 - lift) * GRAVITY * dt**2, 1 / dt**2)
        return rows

    def _least_height(self, phase: float) -> float:
        """m, of a sole that swings: 0 at its ends."""
        share = (phase - self.style.foot_off) / (1 - self.style.foot_off)
        return self.style.clearance * float(np.sin(np.pi * np.clip(share, 0, 1)))

    def _lift(self, t: int) -> float:
        """Weight on the feet in running, in body weights: a half sine of each stance."""
        duty = self.style.foot_off
        shares = self.phase[t] / duty
        return float((np.pi / (4 * duty) * np.sin(np.pi * shares[shares < 1])).sum())

    def _zmp(self, t: int, axis: int) -> list[tuple[int, int, float]]:
        """The planned ZMP of a frame, x or y, as a sum of features: frame, column, share.

        It goes from heel to toe under the foot that stands, and is shared while both do. Empty in
        flight.
        """
        style, count = self.style, self.count
        duty = style.foot_off
        ramp = max(2 * duty - 1, 0.04) / duty
        loads = []
        for side in (0, 1):
            share = self.phase[t, side] / duty
            loads.append(0.0 if share >= 1 else min(1.0, min(share, 1 - share) / ramp + 1e-3))
        terms = []
        for side, load in enumerate(loads):
            if not load:
                continue
            # A frame of this stance in which the whole sole stands.
            flat = round((style.foot_flat + style.heel_off) / 2 * count)
            frame = t + flat - round(self.phase[t, side] * count)
            along = min(0.15 + 0.75 * self.phase[t, side] / duty, 1.0)
            for point in range(_POINTS):
                weight = (1 - along if point < 2 else along) / 2 * load / sum(loads)
                terms.append((frame, 12 * side + 3 * point + axis, weight))
        return terms


class _Rows:
    """Residuals linear in features `[T, 27]`; frames beyond the cycle's are in the next or last."""

    def __init__(self, features: np.ndarray, advance: float) -> None:
        self.features, self.advance = features, advance
        self.residual: list[float] = []
        self.wrapped: list[float] = []
        self.entries: list[tuple[int, int, int, float]] = []

    def add(self, terms: list[tuple[int, int, float]], constant: float, weight: float) -> None:
        """`weight * (constant + sum of factor * feature)` of terms (frame, column, factor)."""
        total, wrapped = constant, 0.0
        for frame, column, factor in terms:
            turn, index = divmod(frame, len(self.features))
            total += factor * self.features[index, column]
            if column % 3 == 0:
                total += factor * turn * self.advance
                wrapped += factor * turn
            self.entries.append((len(self.residual), index, column, weight * factor))
        self.residual.append(weight * total)
        self.wrapped.append(weight * wrapped)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals `[R]`, their derivatives by features `[R, T, 27]` and by the advance `[R]`.

        The last one is only what comes from frames of other cycles.
        """
        slope = np.zeros((len(self.residual), *self.features.shape))
        row, frame, column, value = (np.array(x) for x in zip(*self.entries, strict=True))
        np.add.at(slope, (row, frame, column), value)
        return np.array(self.residual), slope, np.array(self.wrapped)
