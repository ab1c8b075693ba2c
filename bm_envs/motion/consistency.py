"""Check that a motion file agrees with itself: links with joints, velocities with positions.

An NPZ holds poses and velocities of all links beside the joint angles they follow from. A tracker
takes the velocities for its reference, so a file with those of another joint order throws the robot
in a tenth of a second. Bounds leave room for every way in which velocities are made (central or
one-sided differences, a simulator's measured ones, of link origins or of centres of mass), and none
for numbers of another joint, frame, rate or sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError
from bm_envs.motion import doubts
from bm_envs.robots import g1, kinematics

SAMPLES = 64
"""Number of frames that are compared, spread over the clip."""
ANGLE = 0.05
"""Largest angle, rad, between a link's rotation and forward kinematics. Rounding to float32 and to
six digits costs 0.001; another joint order or quaternion order is off by 0.3 or more."""
UNLIKE = 0.7
"""Share of the energy (sum of squares) by which velocities may differ from differences of
positions. One-sided differences of LAFAN1 differ by 0.2 at most; velocities of zero by 1, of other
joints by about 2, of the opposite sign by 4."""
SLOPE = (0.75, 1.33)
"""Velocities over differences of positions, by regression: 30 instead of 50 Hz makes it 0.6."""
MOVING = {"joint": 0.1, "linear": 0.1, "angular": 0.2}
"""Root mean square under which a joint (rad/s) or link (m/s, rad/s) counts as still."""
FLOOR = {"joint": 0.3, "linear": 0.15, "angular": 0.3}
"""Measured velocities shake by so much, however slow the joint or link is; in the same units."""
STILL = {"joint": 1.0, "linear": 0.5, "angular": 1.0}
"""Largest velocities of a joint or link that is still; in the same units."""


def check_tracking(
    where: str, arrays: Mapping[str, np.ndarray], fps: float, *, are_velocities_used: bool = True
) -> None:
    """Refuse arrays of a motion file that contradict each other.

    Args:
        where: what errors name.
        arrays: those of `clip.ARRAY_SHAPES`, in the project's order; link positions are already
            known to fit the joints.
        fps: their rate.
        are_velocities_used: whether they will be; where they are made anew at another rate,
            velocities that fit another rate are only a warning.
    """
    joints, joint_vel = (arrays[f"joint_{key}"].astype(np.float64) for key in ("pos", "vel"))
    factor = 1.0 if are_velocities_used else _rate_factor(joints, joint_vel, fps)
    if factor != 1.0:
        doubts.tell(
            where,
            f"says {fps:g} frames a second and its joint_vel are those of {factor * fps:.3g}; taken"
            f" at {fps:g}, and velocities computed anew (bm-envs motion convert --input-fps for"
            " another rate).",
            stacklevel=4,
        )
    joint_vel = joint_vel / factor
    check_joint_vel(where, joints, joint_vel, fps, g1.JOINT_NAMES)
    frames = np.unique(np.linspace(0, len(joints) - 1, SAMPLES).astype(int))
    pos, quat = (arrays[key].astype(np.float64) for key in ("body_pos_w", "body_quat_w"))
    lin, ang = (arrays[f"body_{key}_vel_w"].astype(np.float64) / factor for key in ("lin", "ang"))
    links = kinematics.link_states(
        pos[frames, 0], quat[frames, 0], joints[frames], lin[frames, 0], ang[frames, 0],
        joint_vel[frames],
    )  # fmt: skip
    # q and -q are the same rotation.
    cosine = np.abs((links.quat * quat[frames]).sum(axis=-1)).clip(max=1.0)
    sine = np.sqrt(1.0 - cosine**2)
    angle = 2.0 * np.arctan2(sine, cosine)
    frame, body = np.unravel_index(angle.argmax(), angle.shape)
    if angle[frame, body] > ANGLE:
        raise MotionError(
            f"{where}: body_quat_w of '{g1.BODY_NAMES[body]}' at frame {frames[frame]} is"
            f" {angle[frame, body]:.2f} rad from forward kinematics of joint_pos, expected at most"
            f" {ANGLE:g}; {_REBUILD}."
        )
    _check_root(where, pos[:, 0], quat[:, 0], lin[:, 0], ang[:, 0], fps)
    center = np.array([body.inertial_pos for body in g1.BODIES])
    arm = rot.quat_rotate(links.quat, np.broadcast_to(center, links.pos.shape))
    of_center = links.lin_vel + rot.cross(links.ang_vel, arm)
    for key, kind, actual, ways in (
        ("body_lin_vel_w", "linear", lin[frames], (links.lin_vel, of_center)),
        ("body_ang_vel_w", "angular", ang[frames], (links.ang_vel,)),
    ):
        off = np.min([((actual - way) ** 2).sum(-1).mean(0) for way in ways], axis=0)
        size = np.max([(way**2).sum(-1).mean(0) for way in ways], axis=0)
        unlike = np.sqrt(off) / np.maximum(np.sqrt(UNLIKE * size), STILL[kind])
        worst = int(unlike.argmax())
        slope = _slope(ways[0], actual)
        if size.max() > MOVING[kind] ** 2 and not SLOPE[0] <= slope <= SLOPE[1]:
            raise MotionError(
                f"{where}: {key} is {slope:.2f} times what the root's and the joints' velocities"
                f" make it; {_REBUILD}."
            )
        if unlike[worst] > 1.0:
            raise MotionError(
                f"{where}: {key} of '{g1.BODY_NAMES[worst]}' is {np.sqrt(off[worst]):.2f}"
                f" {'m/s' if kind == 'linear' else 'rad/s'} (root mean square) from what the root's"
                f" and the joints' velocities make it; {_REBUILD}."
            )


_REBUILD = "bm-envs motion convert IN.npz OUT.npz computes links and velocities anew"


def check_joint_vel(
    where: str, joint_pos: np.ndarray, joint_vel: np.ndarray, fps: float, names: Sequence[str]
) -> None:
    """Refuse joint velocities `[T, J]` that are not those of the angles `[T, J]`."""
    if len(joint_pos) < 3:
        return
    truth = np.gradient(joint_pos, 1.0 / fps, axis=0)
    unlike = _unlike(truth, joint_vel, "joint")
    if unlike is None:
        return
    worst, share = unlike
    raise MotionError(
        f"{where}: joint_vel contradicts joint_pos: {_describe(truth, joint_vel, share)}, and the"
        f" most for '{names[worst]}'; {_REBUILD}."
    )


def _check_root(
    where: str, pos: np.ndarray, quat: np.ndarray, lin: np.ndarray, ang: np.ndarray, fps: float
) -> None:
    """Refuse velocities of the pelvis that are not those of its poses, `[T, 3]` and `[T, 4]`."""
    if len(pos) < 3:
        return
    truth = np.gradient(pos, 1.0 / fps, axis=0)
    turn = rot.quat_to_rotvec(rot.quat_mul(quat[2:], rot.quat_conj(quat[:-2]))) * fps / 2.0
    turn = np.concatenate([turn[:1], turn, turn[-1:]])
    for key, kind, expected, actual in (
        ("body_lin_vel_w", "linear", truth, lin), ("body_ang_vel_w", "angular", turn, ang)
    ):  # fmt: skip
        # All axes go into one column: those of a vector are small or large together.
        unlike = _unlike(expected.reshape(-1, 1), actual.reshape(-1, 1), kind)
        if unlike is not None:
            raise MotionError(
                f"{where}: {key} of '{g1.ROOT_BODY}' contradicts its poses:"
                f" {_describe(expected, actual, unlike[1])}; {_REBUILD}."
            )


def _unlike(truth: np.ndarray, actual: np.ndarray, kind: str) -> tuple[int, float] | None:
    """The column of `[T, C]` velocities that is most unlike the truth, and how much; or None."""
    size = (truth**2).mean(axis=0)
    off = ((actual - truth) ** 2).mean(axis=0)
    is_moving = size > MOVING[kind] ** 2
    share = np.where(is_moving, off / np.maximum(size, 1e-12), 0.0)
    all_share = off[is_moving].sum() / max(size[is_moving].sum(), 1e-12)
    if all_share > UNLIKE:
        return int(share.argmax()), float(all_share)
    share = np.where(off > FLOOR[kind] ** 2, share, 0.0)
    still = np.where(is_moving, 0.0, np.sqrt(off) / STILL[kind])
    if share.max() > UNLIKE:
        return int(share.argmax()), float(share.max())
    if still.max() > 1.0:
        return int(still.argmax()), float(still.max())
    slope = _slope(truth, actual)
    if is_moving.any() and not SLOPE[0] <= slope <= SLOPE[1]:
        return int(share.argmax()), float(share.max())
    return None


def _rate_factor(joint_pos: np.ndarray, joint_vel: np.ndarray, fps: float) -> float:
    """For which multiple of its rate a motion's velocities were made; 1 if the rate is not why."""
    if len(joint_pos) < 3:
        return 1.0
    truth = np.gradient(joint_pos, 1.0 / fps, axis=0)
    slope = _slope(truth, joint_vel)
    product = float((truth * joint_vel).sum())
    alike = product / max(1e-12, float(np.sqrt((truth**2).sum() * (joint_vel**2).sum())))
    return slope if alike > 0.95 and not SLOPE[0] <= slope <= SLOPE[1] else 1.0


def _slope(truth: np.ndarray, actual: np.ndarray) -> float:
    """Velocities over differences of positions, all columns together."""
    return float((truth * actual).sum() / max(1e-12, (truth**2).sum()))


def _describe(truth: np.ndarray, actual: np.ndarray, share: float) -> str:
    """What is wrong with velocities, in words and with a figure."""
    if not actual.any():
        return "it is 0 throughout"
    slope = _slope(truth, actual)
    if share <= UNLIKE and not SLOPE[0] <= slope <= SLOPE[1]:
        return f"it is {slope:.2f} times the differences of positions, as of another rate"
    size = float(np.sqrt((truth**2).mean()))
    off = float(np.sqrt(((actual - truth) ** 2).mean()))
    return (
        f"it is {off:.2f} off (root mean square) where differences of positions are {size:.2f}, as"
        " of another order"
    )


def check_links(
    where: str,
    pos: np.ndarray,
    quat: np.ndarray,
    joints: np.ndarray,
    body_pos: np.ndarray,
    bodies: Sequence[str],
    tolerance: float,
) -> None:
    """Refuse link positions `[T, K, 3]` of the named links that the joints `[T, 29]` contradict.

    Links that the robot's table does not have are left out.
    """
    frames = np.unique(np.linspace(0, len(joints) - 1, SAMPLES).astype(int))
    expected = kinematics.link_poses(pos[frames], quat[frames], joints[frames]).pos
    known = [name for name in g1.BODY_NAMES if name in bodies]
    if g1.ROOT_BODY not in known:
        raise MotionError(f"{where}: body_names lacks '{g1.ROOT_BODY}'.")
    actual = body_pos[frames][:, [list(bodies).index(name) for name in known]]
    distance = np.linalg.norm(
        actual - expected[:, [g1.BODY_NAMES.index(name) for name in known]], axis=-1
    )
    if not np.isfinite(distance).all() or distance.max() > tolerance:
        frame, body = np.unravel_index(np.nan_to_num(distance, nan=np.inf).argmax(), distance.shape)
        raise MotionError(
            f"{where}: body_pos_w of '{known[body]}' at frame {frames[frame]} is"
            f" {distance[frame, body]:.3g} m from forward kinematics of joint_pos, expected at most"
            f" {tolerance:g} m."
        )
