"""How natural a gait is: figures by which a walk of people and a shuffle differ.

Each is of a trajectory of the robot, a recorded motion or what a policy did, at a fixed rate
(`measure`). A foot stands in a frame in which its sole is on the floor and at rest
(`bm_envs.motion.clip.foot_contacts`); a stance is a run of such frames, a swing what lies between
two stances of a foot. Swings that stay under `LEAST_LIFT` are shuffles of a standing foot and are
taken as part of the stance.

    speed_m_s           mean speed of the pelvis over the floor
    stance_knee_rad     mean flexion of the knees whose foot stands alone
    straightest_knee_rad  `STRAIGHT` percentile of the knees' flexion
    step_length_m       mean distance, along the stride, from one foot to the other where they stand
    ankle_lift_m        mean over swings of the highest the ankle gets over its height in stance
    arm_range_rad       mean of both shoulders' pitch, `RANGE` percentiles apart
    joint_acc_rad_s2    root mean square over joints of their acceleration, mean over frames
    slip_p95_m_s        speed of the lowest point of a sole that stands, 95 % are under

The last two are those of `bm_envs.quality`. Two trajectories of about one speed are compared by
ratios (`ratios`), whose bands are in `BANDS`; slip has a bound besides, since that of a reference
may be 0. `off` says of each figure whether it is as the reference's.

Units: m, rad, s. Percentiles, bands and bounds are the project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bm_envs import quality
from bm_envs.motion.clip import Clip, clip_from_states
from bm_envs.motion.footing import runs
from bm_envs.robots import g1, kinematics

STRAIGHT = 5.0  # percentile
RANGE = (5.0, 95.0)  # percentiles
LEAST_LIFT = 0.02  # m, of an ankle in a swing
BAND = (0.75, 1.33)
BANDS: dict[str, tuple[float, float]] = {
    "stance_knee_rad": BAND, "straightest_knee_rad": BAND, "step_length_m": BAND,
    "ankle_lift_m": BAND, "arm_range_rad": BAND, "joint_acc_rad_s2": (0.0, 2.0),
}  # fmt: skip
"""Ratios to the reference that are natural, least and largest."""
SLACK = 0.1
"""rad by which a straightest knee may be off as well, whatever its ratio: near a straight knee a
few degrees are a large ratio and no difference that one sees."""
SLIP = 0.15
"""m/s that a sole that stands may slip, or 1.33 times what the reference's does: LAFAN1's walks, as
they are retargeted, have 0.14 to 0.22."""
SAME_SPEED = 0.25
"""Share by which speeds of two trajectories may differ to be compared."""

_SHOULDERS = [g1.JOINT_NAMES.index(f"{side}_shoulder_pitch_joint") for side in ("left", "right")]
_KNEES = [g1.JOINT_NAMES.index(f"{side}_knee_joint") for side in ("left", "right")]


@dataclass(frozen=True)
class Naturalness:
    """Figures of a trajectory, as the module's head says; NaN where nothing was to measure."""

    speed_m_s: float
    stance_knee_rad: float
    straightest_knee_rad: float
    step_length_m: float
    ankle_lift_m: float
    arm_range_rad: float
    joint_acc_rad_s2: float
    slip_p95_m_s: float

    def row(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def mean(several: Sequence[Naturalness]) -> Naturalness:
        """Each figure's mean over trajectories, without those that have none."""
        values = np.array([list(one.row().values()) for one in several])
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            return Naturalness(*(np.where(known, values, 0).sum(0) / known.sum(0)).tolist())


def measure(clip: Clip) -> Naturalness:
    """The figures of a clip."""
    feet = list(kinematics.FOOT_INDICES)
    ankle = clip.body_pos_w[:, feet].astype(np.float64)
    root = clip.body_pos_w[:, 0, :2].astype(np.float64)
    joints = clip.joint_pos.astype(np.float64)
    stands, lifts = _stances(clip.foot_contact, ankle[..., 2])
    alone = stands & ~stands[:, ::-1]
    knees = joints[:, _KNEES]
    shoulders = np.percentile(joints[:, _SHOULDERS], RANGE, axis=0)
    figures = quality.reference_figures(clip)
    return Naturalness(
        speed_m_s=_speed(root, clip.fps),
        stance_knee_rad=_mean(knees[alone]),
        straightest_knee_rad=float(np.percentile(knees, STRAIGHT)),
        step_length_m=_mean(_steps(stands, ankle)),
        ankle_lift_m=_mean(np.array(lifts)),
        arm_range_rad=float((shoulders[1] - shoulders[0]).mean()),
        joint_acc_rad_s2=figures["ref_joint_acc_rad_s2"],
        slip_p95_m_s=figures["ref_slip_p95_m_s"],
    )


def measure_states(qpos: np.ndarray, fps: float) -> Naturalness:
    """The figures of `qpos [T, 36]`: root position, root quaternion w x y z, joints; T >= 3.

    Velocities are differences of the states and not a simulator's, so that a recorded motion and
    what a robot did are measured in one way.
    """
    clip = clip_from_states(
        "trajectory", fps, qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], source="", licence=""
    )
    return measure(clip)


def at_speed(clip: Clip, speed: float, window_s: float = 2.0) -> Clip | None:
    """The longest part of a clip that walks at `speed`, m/s, within `SAME_SPEED`; None without one.

    The speed of a frame is that of the pelvis over `window_s` around it.
    """
    half = round(window_s * clip.fps / 2)
    root = clip.body_pos_w[:, 0, :2].astype(np.float64)
    if len(root) <= 2 * half:
        return None
    pace = np.full(len(root), np.nan)
    pace[half:-half] = np.linalg.norm(root[2 * half :] - root[: -2 * half], axis=1) / (
        2 * half / clip.fps
    )
    spans = runs(np.abs(pace - speed) <= SAME_SPEED * speed)
    spans = [(a, b) for a, b in spans if b - a > clip.fps]
    if not spans:
        return None
    start, end = max(spans, key=lambda span: span[1] - span[0])
    return clip.cut(start / clip.fps, (end - 1) / clip.fps)


def ratios(of: Naturalness, to: Naturalness) -> dict[str, float]:
    """Each figure of `BANDS` over the reference's; NaN or infinite where one was not measured."""
    a, b = of.row(), to.row()
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: float(np.float64(a[name]) / np.float64(b[name])) for name in BANDS}


def off(of: Naturalness, to: Naturalness) -> dict[str, float]:
    """How far each figure is from the reference's: 0 equal, 1 at the edge of its band.

    Of a band around 1 it is the logarithm of the ratio over that of the edge, of the acceleration
    the ratio over its bound, of slip the slip over its bound. Infinite where nothing was measured.
    """
    result = {}
    for name, ratio in ratios(of, to).items():
        low, high = BANDS[name]
        if not (np.isfinite(ratio) and ratio > 0):
            result[name] = float("inf")
        elif low == 0:
            result[name] = ratio / high
        else:
            result[name] = float(np.log(ratio) / np.log(high if ratio > 1 else low))
    knee = "straightest_knee_rad"
    gap = abs(of.straightest_knee_rad - to.straightest_knee_rad)
    result[knee] = min(result[knee], gap / SLACK)
    most = max(SLIP, BAND[1] * to.slip_p95_m_s) if np.isfinite(to.slip_p95_m_s) else SLIP
    slip = of.slip_p95_m_s / most
    result["slip_p95_m_s"] = float(slip) if np.isfinite(slip) else float("inf")
    return result


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _speed(root: np.ndarray, fps: float) -> float:
    """Mean speed of `root [T, 2]`, m/s, by its ways in a second: its sway is no way."""
    count = min(round(fps), len(root) - 1)
    return float(np.linalg.norm(root[count:] - root[:-count], axis=1).mean() * fps / count)


def _stances(contact: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """`[T, 2]`, where a foot stands, without shuffles; and how high the ankle gets in each swing.

    Args:
        contact: `[T, 2]` bool.
        height: `[T, 2]`, m, of the ankles.
    """
    stands, lifts = contact.copy(), []
    for side in (0, 1):
        if not contact[:, side].any():
            continue
        level = float(np.median(height[contact[:, side], side]))
        for start, end in runs(~contact[:, side]):
            lift = float(height[start:end, side].max()) - level
            if lift < LEAST_LIFT:
                stands[start:end, side] = True
            elif start > 0 and end < len(contact):
                lifts.append(lift)
    return stands, lifts


def _steps(stands: np.ndarray, ankle: np.ndarray) -> np.ndarray:
    """Length of each step along the stride it is part of, m. `[S]`.

    A foot's place is its ankle's in the middle of its stance; a stride is the way between two
    places of one foot, so that a sway or the feet's distance from each other is no length.
    """
    found = sorted(
        (start, side, (start + end) // 2)
        for side in (0, 1) for start, end in runs(stands[:, side])
    )  # fmt: skip
    places: list[tuple[int, np.ndarray]] = []
    for _, side, middle in found:
        if not places or places[-1][0] != side:
            places.append((side, ankle[middle, side, :2]))
    lengths = []
    for k in range(1, len(places)):
        first = max(k - 2, 0)
        if first + 2 >= len(places):
            break
        stride = places[first + 2][1] - places[first][1]
        size = np.linalg.norm(stride)
        if size > 1e-6:
            lengths.append(float((places[k][1] - places[k - 1][1]) @ stride / size))
    return np.array(lengths)
