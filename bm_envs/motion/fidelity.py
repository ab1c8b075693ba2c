"""How well a retargeted clip follows the person, and what of it is only the robot's.

Bounds are ours. Beyond them a clip may still be trackable (`feasibility.py` asks that), but it is
not the motion that was recorded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bm_envs.motion.clip import Clip, foot_height
from bm_envs.motion.retarget import Targets
from bm_envs.motion.skeletons import SIDES
from bm_envs.robots import g1, kinematics

SLIDE = 0.05  # m/s of a standing foot, in the mean: a centimetre in a step of 0.2 s
PENETRATION = 0.01  # m of a sole under the floor; feet's capsules of other models differ by 5 mm
DIRECTION = 10.0  # degrees of an arm or leg off the person's, in the mean; the wider stance costs 4


@dataclass(frozen=True)
class Fidelity:
    """Figures of one clip."""

    limit_excess_rad: float
    """Largest angle of a joint beyond its range; it must be 0."""
    foot_contact_share: float
    """Share of feet and frames that stand."""
    foot_slide_m_s: float
    """Mean horizontal speed of the lowest point of a sole while the foot stands."""
    foot_slide_worst_m_s: float
    """95th percentile of that speed."""
    penetration_m: float
    """Deepest point of a sole under the floor; 0: never under it."""
    arm_direction_deg: float
    """Mean angle between the robot's and the person's line from shoulder to wrist, the person's
    with the robot's lengths."""
    arm_direction_worst_deg: float
    """95th percentile of that angle over the frames."""
    leg_direction_deg: float
    """Mean angle between the robot's and the person's line from hip to ankle, likewise scaled."""
    leg_direction_worst_deg: float
    """95th percentile of that angle over the frames."""

    def row(self) -> dict[str, Any]:
        return asdict(self)

    def warnings(self) -> list[str]:
        """A sentence for each bound that is exceeded."""
        doubts = []
        if self.limit_excess_rad > 0:
            doubts.append(f"A joint is {self.limit_excess_rad:.3f} rad beyond its range.")
        if self.foot_contact_share == 0.0:
            doubts.append(
                "No foot stands on the floor in any frame: the person lies or hangs, or the up axis"
                " or the rate is not what was found."
            )
        if self.foot_slide_m_s > SLIDE:
            doubts.append(
                f"Standing feet slide at {self.foot_slide_m_s:.3f} m/s, over {SLIDE} m/s."
            )
        if self.penetration_m > PENETRATION:
            doubts.append(
                f"A sole is {1000 * self.penetration_m:.0f} mm under the floor, over"
                f" {1000 * PENETRATION:.0f} mm."
            )
        for limb, angle in (("Arms", self.arm_direction_deg), ("Legs", self.leg_direction_deg)):
            if angle > DIRECTION:
                doubts.append(
                    f"{limb} are {angle:.1f} degrees off the person's, over {DIRECTION:g}."
                )
        return doubts


def measure(clip: Clip, targets: Targets) -> Fidelity:
    """Compare a clip with what it was solved for."""
    joints = clip.joint_pos.astype(np.float64)
    low, high = g1.JOINT_RANGE.T
    # A joint stored on its limit is within it: float32 rounds by less than 1e-6 rad.
    excess = float(np.maximum(low - joints, joints - high).max())
    slide = foot_slide(clip)
    arm = _angles(clip, "shoulder_roll", "wrist_yaw", targets.arm)
    leg = _angles(clip, "hip_roll", "ankle_roll", targets.leg)
    return Fidelity(
        limit_excess_rad=max(0.0, excess) if excess > 1e-6 else 0.0,
        foot_contact_share=float(clip.foot_contact.mean()),
        foot_slide_m_s=float(slide.mean()) if len(slide) else 0.0,
        foot_slide_worst_m_s=float(np.percentile(slide, 95)) if len(slide) else 0.0,
        penetration_m=max(0.0, float(-foot_height(clip).min())),
        arm_direction_deg=float(arm.mean()),
        arm_direction_worst_deg=float(np.percentile(arm, 95)),
        leg_direction_deg=float(leg.mean()),
        leg_direction_worst_deg=float(np.percentile(leg, 95)),
    )


def foot_slide(clip: Clip) -> np.ndarray:
    """Horizontal speeds, m/s, of the lowest sole point of each foot that stands in two frames."""
    points = kinematics.sole_points(clip.body_pos_w, clip.body_quat_w)
    lowest = points[:-1, :, :, 2].argmin(axis=-1)[..., None, None]
    way = np.take_along_axis(np.diff(points, axis=0), lowest, axis=2)[:, :, 0, :2]
    stands = clip.foot_contact[:-1] & clip.foot_contact[1:]
    return np.linalg.norm(way, axis=-1)[stands] * clip.fps


def _angles(clip: Clip, start: str, end: str, target: np.ndarray) -> np.ndarray:
    """Degrees between the limbs' lines and `target [T, 2, 3]`, both sides of all frames."""
    pos = clip.body_pos_w.astype(np.float64)
    index = {name: i for i, name in enumerate(g1.BODY_NAMES)}
    way = np.stack([
        pos[:, index[f"{side}_{end}_link"]] - pos[:, index[f"{side}_{start}_link"]]
        for side in SIDES
    ], axis=1)  # fmt: skip
    # atan2 and not acos: acos near 1 loses half the digits.
    sine = np.linalg.norm(np.cross(way, target), axis=-1)
    return np.degrees(np.arctan2(sine, (way * target).sum(axis=-1))).ravel()


def joint_difference(clip: Clip, other: Clip) -> dict[str, float]:
    """Mean absolute difference of each joint, rad, over the frames that both have."""
    frames = min(clip.num_frames, other.num_frames)
    gap = np.abs(clip.joint_pos[:frames].astype(np.float64) - other.joint_pos[:frames])
    return dict(zip(g1.JOINT_NAMES, gap.mean(axis=0).tolist(), strict=True))
