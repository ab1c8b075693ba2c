"""One motion of the G1 in memory (`Clip`) and on disk (NPZ).

The NPZ holds the keys, shapes and types of whole_body_tracking's motion files (`fps (1,)`,
`joint_pos`, `joint_vel`, `body_pos_w`, `body_quat_w`, `body_lin_vel_w`, `body_ang_vel_w`), so its
tools and mjlab's read it, and adds what those files leave out: `joint_names`, `body_names`,
`foot_contact [T, 2]`, `velocity_point`, `name`, `source`, `licence`.
Source: `whole_body_tracking : scripts/csv_to_npz.py`. One file because a clip's arrays and the keys
of its file are one table (`ARRAY_SHAPES`).

Order. A file of Isaac Lab is breadth first, one of MuJoCo depth first, and without names no key
says which. So values are mapped to the project's order by the names in the file, or, without names,
in the one order in which the link positions are those that forward kinematics finds for the joint
angles. No wrong order survives that comparison, which is made with names, too.

Velocities are of link *origins*. Isaac Lab's files store the centre of mass's instead, but their
pelvis entry is the finite difference of the pelvis *origin*, written into the centre-of-mass slot.
Hence a file that does not say `velocity_point = "link_origin"` gets its linear velocities anew from
the pelvis entry, the angular velocity and the joint velocities: exact for either kind of file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.cli import atomic_path
from bm_envs.errors import MotionError
from bm_envs.motion import consistency, npz
from bm_envs.motion.rates import PERIOD_KEYS, RATE_KEYS, rate_entries, rate_of
from bm_envs.motion.resample import frame_positions, interpolate, interpolate_quats
from bm_envs.robots import g1, kinematics
from bm_envs.robots.robot import Robot


def array_shapes(robot: Robot = g1.G1) -> dict[str, tuple[int, ...]]:
    """Float arrays of a robot's clip and their shape behind the frame axis."""
    joints, bodies = robot.num_joints, robot.num_bodies
    return {
        "joint_pos": (joints,),
        "joint_vel": (joints,),
        "body_pos_w": (bodies, 3),
        "body_quat_w": (bodies, 4),
        "body_lin_vel_w": (bodies, 3),
        "body_ang_vel_w": (bodies, 3),
    }


ARRAY_SHAPES = array_shapes()
"""Those of the G1, whose files are read."""

MAX_FRAMES = 500_000
"""Most frames of a clip, 2.8 h at 50 Hz: a damaged or hostile header must not claim the memory."""

KINEMATICS_TOLERANCE = 0.01
"""Largest distance (m) of a stored link position from forward kinematics. float32 costs 1e-6 m and
files of whole_body_tracking agree to 1e-6 m; a wrong order is off by 1 m in the zero pose."""

CONTACT_HEIGHT = 0.03
"""Height of a sole that counts as contact, m. Retargeted clips stand up to 8 mm (LAFAN1) or 30 mm
(g1-moves) off the floor."""
CONTACT_SPEED = 0.5
"""Speed of the lowest sole point that counts as contact, m/s. In LAFAN1 `walk1` it is mostly under
0.2 for a planted foot and above 0.7 for a swinging one; between them the value hardly matters (in
contact: 0.70 of the frames at 0.3 m/s, 0.76 at 0.8)."""

VELOCITY_POINT = "link_origin"
_NAME_KEYS = {"joint_names": g1.JOINT_NAMES, "body_names": g1.BODY_NAMES}
_TEXT_KEYS = ("name", "source", "licence", "velocity_point")


@dataclass(frozen=True, eq=False)
class Clip:
    """A motion at a fixed frame rate: project order, world axes, velocities of link origins.

    Arrays are float32 (contact: bool) and read-only. Quaternions further than rounding from unit
    length are normalised.

    Raises:
        MotionError: a shape, a value that is not finite, a zero quaternion, fewer than 2 frames.
    """

    name: str
    fps: float
    """Frames per second."""
    joint_pos: np.ndarray
    """`[T, 29]`, joint angles, rad."""
    joint_vel: np.ndarray
    """`[T, 29]`, joint velocities, rad/s."""
    body_pos_w: np.ndarray
    """`[T, 30, 3]`, positions of the link origins, world, m."""
    body_quat_w: np.ndarray
    """`[T, 30, 4]`, orientations of the links, world, w x y z."""
    body_lin_vel_w: np.ndarray
    """`[T, 30, 3]`, velocities of the link origins, world axes, m/s."""
    body_ang_vel_w: np.ndarray
    """`[T, 30, 3]`, angular velocities of the links, world axes, rad/s."""
    foot_contact: np.ndarray
    """`[T, 2]` bool: whether the left and the right foot stand."""
    source: str
    licence: str
    robot: Robot = g1.G1
    """Whose motion it is: J joints in place of 29, and B links in place of 30."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for key, value in _checked(f"motion {self.name!r}", values, self.robot).items():
            object.__setattr__(self, key, value)

    @property
    def num_frames(self) -> int:
        return len(self.joint_pos)

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the last: `(T - 1) / fps`."""
        return (self.num_frames - 1) / self.fps

    def qpos(self) -> np.ndarray:
        """The frames as configurations: root position, root quaternion, joints. `[T, 36]`."""
        root = self.body_pos_w[:, 0], self.body_quat_w[:, 0]
        return np.concatenate([*root, self.joint_pos], axis=1).astype(np.float64)

    def cut(
        self, start_s: float = 0.0, end_s: float | None = None, name: str | None = None
    ) -> Clip:
        """The frames nearest to `start_s` and `end_s` (None: the last) and all between them.

        Raises:
            MotionError: the times do not lie in the clip, or hold less than two frames.
        """
        end = self.duration_s if end_s is None else end_s
        asked = f"[{start_s:g}:{'' if end_s is None else format(end_s, 'g')}]"
        frames = [round(s * self.fps) if math.isfinite(s) else -1 for s in (start_s, end)]
        if not 0 <= frames[0] < frames[1] < self.num_frames:
            raise MotionError(
                f"{self.name}: the cut {asked} does not fit, expected start < end within"
                f" 0 and {self.duration_s:.2f} s."
            )
        keep = slice(frames[0], frames[1] + 1)
        arrays = {key: getattr(self, key)[keep] for key in (*ARRAY_SHAPES, "foot_contact")}
        return Clip(
            name or self.name + asked, self.fps, **arrays, source=self.source,
            licence=self.licence, robot=self.robot,
        )  # fmt: skip

    @classmethod
    def of_store(
        cls, arrays: Mapping[str, np.ndarray], *, name: str, fps: float, source: str, licence: str,
        sha256: str,
    ) -> Clip:  # fmt: skip
        """A clip again of arrays that were a clip's, by its digest, none of which is looked at."""
        clip = object.__new__(cls)
        vars(clip).update(arrays, name=name, fps=fps, source=source, licence=licence, robot=g1.G1)
        vars(clip).update(_sha256=sha256, _is_stored=True)
        return clip

    @property
    def is_stored(self) -> bool:
        """Whether the arrays are the cache's, so that what is made of them may be kept there."""
        return vars(self).get("_is_stored", False)

    def sha256(self) -> str:
        """Hex digest of the content (rate and arrays), whatever file and order it came from."""
        if "_sha256" not in vars(self):
            digest = hashlib.sha256(np.float64(self.fps).astype("<f8").tobytes())
            for key in ARRAY_SHAPES:
                digest.update(getattr(self, key).astype("<f4").tobytes())
            digest.update(self.foot_contact.astype(np.uint8).tobytes())
            vars(self)["_sha256"] = digest.hexdigest()
        return vars(self)["_sha256"]


def clip_from_states(
    name: str,
    fps: float,
    root_pos: np.ndarray,
    root_quat: np.ndarray,
    joint_pos: np.ndarray,
    *,
    source: str,
    licence: str,
    foot_contact: np.ndarray | None = None,
    robot: Robot = g1.G1,
) -> Clip:
    """A clip from the pelvis' pose and the joint angles.

    Velocities are central differences, one-sided at both ends; the pelvis' angular velocity is
    `log(q[k+1] q[k-1]^-1) / 2dt` in world axes with its end values copied from their neighbours
    (source: `whole_body_tracking : scripts/csv_to_npz.py`). Link states follow by forward
    kinematics.

    Args:
        name: the clip's name.
        fps: frames per second.
        root_pos: `[T, 3]`, world, m; T >= 3.
        root_quat: `[T, 4]`, w x y z.
        joint_pos: `[T, 29]`, rad, the project's joint order.
        source: where the motion is from.
        licence: its licence.
        foot_contact: `[T, 2]` bool, left and right; None: by height and speed of the soles.
        robot: whose motion it is.
    """
    where = f"motion {name!r}"
    _check_fps(where, fps)
    root_pos = _numbers(where, "root_pos", root_pos, (3,))
    root_quat = rot.quat_normalize(
        _nonzero(where, "root_quat", _numbers(where, "root_quat", root_quat, (4,)))
    )
    joint_pos = _numbers(where, "joint_pos", joint_pos, (robot.num_joints,), robot)
    frames = len(root_pos)
    if frames < 3 or len(root_quat) != frames or len(joint_pos) != frames:
        raise MotionError(
            f"{where}: root_pos, root_quat and joint_pos have {frames}, {len(root_quat)} and"
            f" {len(joint_pos)} frames, expected 3 or more of each."
        )
    dt = 1.0 / fps
    turn = rot.quat_to_rotvec(rot.quat_mul(root_quat[2:], rot.quat_conj(root_quat[:-2]))) / (
        2.0 * dt
    )
    joint_vel = np.gradient(joint_pos, dt, axis=0)
    links = kinematics.link_states(
        root_pos, root_quat, joint_pos,
        np.gradient(root_pos, dt, axis=0), np.concatenate([turn[:1], turn, turn[-1:]]), joint_vel,
        robot,
    )  # fmt: skip
    if foot_contact is None:
        foot_contact = foot_contacts(*links, robot=robot)
    return Clip(
        name, float(fps), joint_pos, joint_vel, *links, foot_contact, source, licence, robot
    )


def foot_contacts(
    body_pos_w: np.ndarray,
    body_quat_w: np.ndarray,
    body_lin_vel_w: np.ndarray,
    body_ang_vel_w: np.ndarray,
    *,
    robot: Robot = g1.G1,
) -> np.ndarray:
    """`[T, 2]` bool: whether the lowest point of each sole is on the floor and at rest.

    Left, right. On the floor: under `CONTACT_HEIGHT`; at rest: slower than `CONTACT_SPEED`. The
    point and not the ankle, because a planted foot's ankle moves while it rolls over heel and toe.
    """
    feet = list(kinematics.foot_indices(robot))
    points = kinematics.sole_points(body_pos_w, body_quat_w, robot)
    lowest = points[..., 2].argmin(axis=-1)[..., None, None]
    point = np.take_along_axis(points, lowest, axis=2)[:, :, 0]
    arm = point - body_pos_w[:, feet]
    velocity = body_lin_vel_w[:, feet] + rot.cross(body_ang_vel_w[:, feet], arm)
    return (point[..., 2] < CONTACT_HEIGHT) & (np.linalg.norm(velocity, axis=-1) < CONTACT_SPEED)


def foot_height(clip: Clip) -> np.ndarray:
    """`[T, 2]`, m: height of the lowest point of the left and right sole."""
    soles = kinematics.sole_points(clip.body_pos_w, clip.body_quat_w, clip.robot)
    return soles[..., 2].min(axis=-1)


def save_npz(clip: Clip, path: str | Path, *, order: g1.Order = "mujoco") -> None:
    """Write `clip` with its values and names in `order`; whole or not at all.

    Equal clips give equal bytes.

    Args:
        clip: the motion.
        path: a name ending in .npz; a file of that name is replaced.
        order: "mujoco" (depth first, the project's own) or "isaac" (breadth first, as Isaac Lab's).
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise MotionError(f"{path}: a motion is written to a name that ends in .npz.")
    _check_order(str(path), order)
    joint_names, body_names = clip.robot.joint_names_in(order), clip.robot.body_names_in(order)
    joints = g1.order_map(clip.robot.joint_names, joint_names)
    bodies = g1.order_map(clip.robot.body_names, body_names)
    arrays: dict[str, Any] = {"fps": np.array([clip.fps])}
    for key in ARRAY_SHAPES:
        arrays[key] = getattr(clip, key)[:, joints if key.startswith("joint") else bodies]
    arrays["foot_contact"] = clip.foot_contact
    arrays["joint_names"] = np.array(joint_names)
    arrays["body_names"] = np.array(body_names)
    for key in ("name", "source", "licence"):
        arrays[key] = np.array(getattr(clip, key))
    arrays["velocity_point"] = np.array(VELOCITY_POINT)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_npz(
    path: str | Path, *, order: g1.Order | None = None, output_fps: float | None = None
) -> Clip:
    """Read a motion of ours, of whole_body_tracking or of mjlab.

    Args:
        path: the file.
        order: order that the values of a file without names must have; None: the one that fits.
        output_fps: the rate to resample it to (`at_rate`); None: its own.

    Raises:
        MotionError: one sentence that names the file, what is wrong in it and what was expected.
    """
    path, where = Path(path), str(path)
    if order is not None:
        _check_order(where, order)
    members = _read_members(path)
    rates = rate_entries(members)
    members = {key: value for key, value in members.items() if key not in rates}
    missing = [key for key in ARRAY_SHAPES if key not in members]
    missing = missing if rates else ["fps", *missing]
    if missing:
        raise MotionError(
            f"{where}: lacks {', '.join(missing)}; expected the keys"
            f" {', '.join(('fps', *ARRAY_SHAPES))} of a whole_body_tracking motion file."
        )
    texts = {key: str(members.pop(key, "")) for key in _TEXT_KEYS}
    if texts["velocity_point"] not in ("", VELOCITY_POINT):
        raise MotionError(
            f"{where}: velocity_point is {texts['velocity_point']!r}, expected '{VELOCITY_POINT}'."
        )
    fps = rate_of(where, rates, None)
    names = {key: members.pop(key, None) for key in _NAME_KEYS}
    contact_given = "foot_contact" in members
    members.setdefault("foot_contact", np.zeros((len(members["joint_pos"]), 2), bool))
    arrays = _checked(where, members)
    joint_map, body_map = _order_of(where, names, order, arrays)
    for key in ARRAY_SHAPES:
        arrays[key] = arrays[key][:, joint_map if key.startswith("joint") else body_map]
    is_resampled = output_fps is not None and fps != output_fps
    consistency.check_tracking(where, arrays, fps, are_velocities_used=not is_resampled)
    if not texts["velocity_point"]:
        arrays["body_lin_vel_w"] = kinematics.link_states(
            arrays["body_pos_w"][:, 0], arrays["body_quat_w"][:, 0], arrays["joint_pos"],
            arrays["body_lin_vel_w"][:, 0], arrays["body_ang_vel_w"][:, 0], arrays["joint_vel"],
        ).lin_vel  # fmt: skip
    if not contact_given:
        arrays["foot_contact"] = foot_contacts(
            *(
                arrays[key]
                for key in ("body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w")
            )
        )
    clip = Clip(
        texts["name"] or path.stem, fps, **arrays,
        source=texts["source"] or path.name, licence=texts["licence"] or "not stated",
        robot=g1.G1,
    )  # fmt: skip
    return clip if output_fps is None else at_rate(clip, output_fps)


def load_poses(
    path: Path,
    *,
    order: g1.Order | None = None,
    names: tuple[str, ...] | None = None,
    input_fps: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Root positions, root quaternions (w x y z as they are), joints and rate of such a file.

    What follows from them, links but the pelvis and all velocities, is not looked at, so a file in
    which it is wrong can be made anew. The pelvis is the first link in either order.

    Args:
        path: the file.
        order: order of its joints; None: by its names, or the one that its links fit.
        names: the joints' names in the file's order, instead.
        input_fps: its rate, whatever it says.
    """
    where = str(path)
    members = _read_members(path)
    needed = ("joint_pos", "body_pos_w", "body_quat_w")
    if missing := [key for key in needed if key not in members]:
        raise MotionError(f"{where}: lacks {', '.join(missing)} of a motion of the robot.")
    fps = rate_of(where, rate_entries(members), None) if input_fps is None else input_fps
    arrays = {key: _numbers(where, key, members[key], ARRAY_SHAPES[key]) for key in needed}
    if len({len(value) for value in arrays.values()}) > 1:
        raise MotionError(f"{where}: {', '.join(needed)} differ in frames, expected one number.")
    root = 0
    if "body_names" in members and g1.ROOT_BODY in members["body_names"]:
        root = list(members["body_names"]).index(g1.ROOT_BODY)
    if names is None and order is not None:
        names = g1.joint_names(order)
    if names is not None:
        joint_map = g1.order_map(names, g1.JOINT_NAMES)
    else:
        texts = {key: members.get(key) for key in _NAME_KEYS}
        joint_map, _ = _order_of(where, texts, None, arrays)
    pos, quat = arrays["body_pos_w"][:, root], arrays["body_quat_w"][:, root]
    return pos, quat, arrays["joint_pos"][:, joint_map], fps


def at_rate(clip: Clip, fps: float) -> Clip:
    """The same motion at another rate, as `resample.py` takes it: linear, rotations by slerp.

    Velocities are differences of the new frames; a foot is in contact as in the nearest old one.
    """
    if clip.fps == fps:
        return clip
    position = frame_positions(clip.num_frames, clip.fps, fps)
    if not 3 <= len(position) <= MAX_FRAMES:
        raise MotionError(
            f"{clip.name}: {clip.num_frames} frames at {clip.fps:g} fps make {len(position)} at"
            f" {fps:g} fps, expected 3 to {MAX_FRAMES}."
        )
    nearest = np.minimum(np.rint(position).astype(int), clip.num_frames - 1)
    return clip_from_states(
        clip.name, fps,
        interpolate(clip.body_pos_w[:, 0].astype(np.float64), position, "linear"),
        interpolate_quats(clip.body_quat_w[:, 0].astype(np.float64), position, "linear"),
        interpolate(clip.joint_pos.astype(np.float64), position, "linear"),
        source=clip.source, licence=clip.licence, foot_contact=clip.foot_contact[nearest],
        robot=clip.robot,
    )  # fmt: skip


def _order_of(
    where: str,
    names: dict[str, np.ndarray | None],
    order: g1.Order | None,
    arrays: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Maps from the file's joint and body order to the project's, checked by forward kinematics."""
    present = [key for key, value in names.items() if value is not None]
    if len(present) == 1:
        (absent,) = set(_NAME_KEYS) - set(present)
        raise MotionError(
            f"{where}: holds {present[0]} but not {absent}, expected both or neither."
        )
    if present:
        maps = []
        for key, known in _NAME_KEYS.items():
            listed = [str(name) for name in names[key]]  # type: ignore[union-attr]
            if sorted(listed) != sorted(known):
                lacking = sorted(set(known) - set(listed))[0]
                raise MotionError(
                    f"{where}: {key} lacks {lacking!r}, expected robot g1's {len(known)} names."
                )
            maps.append(g1.order_map(listed, known))
        error, body, frame = _kinematics_error(arrays, *maps)
        if error > KINEMATICS_TOLERANCE:
            raise MotionError(
                f"{where}: body_pos_w of '{body}' at frame {frame} is {error:.3g} m from forward"
                f" kinematics of joint_pos, expected at most {KINEMATICS_TOLERANCE} m: the names do"
                " not belong to the values, or the robot is another."
            )
        return maps[0], maps[1]

    choices: dict[g1.Order, tuple[np.ndarray, np.ndarray]] = {
        choice: (
            g1.order_map(g1.joint_names(choice), g1.JOINT_NAMES),
            g1.order_map(g1.body_names(choice), g1.BODY_NAMES),
        )
        for choice in ("mujoco", "isaac")
    }
    errors: dict[g1.Order, float] = {
        choice: _kinematics_error(arrays, *maps)[0] for choice, maps in choices.items()
    }
    fitting: list[g1.Order] = [
        choice for choice, error in errors.items() if error <= KINEMATICS_TOLERANCE
    ]
    finding = (
        f"forward kinematics fits order='{fitting[0]}'"
        if fitting
        else f"forward kinematics fits neither order ({min(errors.values()):.3g} m off at best,"
        f" expected at most {KINEMATICS_TOLERANCE} m)"
    )
    if order is None and len(fitting) == 1:
        return choices[fitting[0]]
    if order is None:
        raise MotionError(
            f"{where}: has no joint_names and body_names, and the order of its values does not"
            f" show: {finding}{_other_quats(choices, arrays)}."
        )
    if order not in fitting:
        raise MotionError(
            f"{where}: body_pos_w is {errors[order]:.3g} m from forward kinematics of joint_pos in"
            f" order='{order}'; {finding}."
        )
    return choices[order]


def _other_quats(
    choices: dict[g1.Order, tuple[np.ndarray, np.ndarray]], arrays: dict[str, np.ndarray]
) -> str:
    """The end of a sentence that says whether the root's quaternions fit as x y z w, or nothing."""
    turned = arrays | {"body_quat_w": arrays["body_quat_w"][..., [3, 0, 1, 2]]}
    if min(_kinematics_error(turned, *maps)[0] for maps in choices.values()) > KINEMATICS_TOLERANCE:
        return ""
    return (
        "; body_quat_w looks like x y z w, expected w x y z: convert it by bm-envs motion convert"
        " with --quat xyzw"
    )


def _kinematics_error(
    arrays: dict[str, np.ndarray], joint_map: np.ndarray, body_map: np.ndarray
) -> tuple[float, str, int]:
    """Largest distance (m) of a link from forward kinematics in 64 frames, its link and frame."""
    frames = np.unique(np.linspace(0, len(arrays["joint_pos"]) - 1, 64).astype(int))
    body_pos = arrays["body_pos_w"][frames][:, body_map]
    expected = kinematics.link_poses(
        body_pos[:, 0],
        arrays["body_quat_w"][frames, body_map[0]],
        arrays["joint_pos"][frames][:, joint_map],
    ).pos
    distance = np.linalg.norm(body_pos - expected, axis=-1)
    frame, body = np.unravel_index(distance.argmax(), distance.shape)
    return float(distance[frame, body]), g1.BODY_NAMES[body], int(frames[frame])


def read_head(path: Path) -> tuple[float, int, str, str] | None:
    """Rate, frames, source and licence of a motion file, for lists; None if it is no motion."""
    try:
        members = npz.read_arrays(path, ("fps", "joint_pos", "source", "licence"), _check_member)
    except MotionError:
        return None
    if "fps" not in members or "joint_pos" not in members:
        return None
    source, licence = (str(members.get(key, "")) for key in ("source", "licence"))
    return float(members["fps"].reshape(())), len(members["joint_pos"]), source, licence


def _read_members(path: Path) -> dict[str, np.ndarray]:
    """The arrays under the keys we know."""
    rates = (*RATE_KEYS, *PERIOD_KEYS)
    known = (*rates, *ARRAY_SHAPES, "foot_contact", *_NAME_KEYS, *_TEXT_KEYS)
    return npz.read_arrays(path, known, _check_member)


def _check_member(where: str, key: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if key in ARRAY_SHAPES or key == "foot_contact":
        _check_shape(where, key, shape, ARRAY_SHAPES.get(key, (2,)))
    elif key in _NAME_KEYS:
        count = len(_NAME_KEYS[key])
        if dtype.kind != "U" or shape != (count,) or dtype.itemsize > 1024:
            raise MotionError(
                f"{where}: {key} has type {dtype} and shape {shape}, expected {count} names."
            )
    elif key in _TEXT_KEYS:
        if dtype.kind != "U" or shape != () or dtype.itemsize > 65536:
            raise MotionError(
                f"{where}: {key} has type {dtype} and shape {shape}, expected one text."
            )
    elif dtype.kind not in "fiu" or shape not in ((), (1,)):
        raise MotionError(
            f"{where}: {key} has type {dtype} and shape {shape}, expected one number."
        )


def _check_order(where: str, order: str) -> None:
    if order not in ("mujoco", "isaac"):
        raise MotionError(f"{where}: order is {order!r}, expected 'mujoco' or 'isaac'.")


def _check_fps(where: str, fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise MotionError(f"{where}: fps is {fps}, expected a positive number.")


def _check_shape(
    where: str, key: str, shape: tuple[int, ...], per_frame: tuple[int, ...],
    robot: Robot = g1.G1,
) -> None:  # fmt: skip
    if len(shape) != len(per_frame) + 1 or shape[1:] != per_frame or shape[0] < 0:
        expected = ", ".join(["T", *map(str, per_frame)])
        raise MotionError(
            f"{where}: {key} has shape {shape}, expected ({expected}) for robot {robot.name}."
        )
    if shape[0] > MAX_FRAMES:
        raise MotionError(f"{where}: {key} has {shape[0]} frames, expected at most {MAX_FRAMES}.")


def _numbers(
    where: str, key: str, value: Any, per_frame: tuple[int, ...], robot: Robot = g1.G1
) -> np.ndarray:
    """`value` as float64 `[T, *per_frame]`, all finite."""
    value = np.asarray(value)
    if value.dtype.kind not in "fiu":
        raise MotionError(f"{where}: {key} has type {value.dtype}, expected numbers.")
    _check_shape(where, key, value.shape, per_frame, robot)
    value = value.astype(np.float64)
    # The range is that of float32, in which a clip keeps its values.
    bad = ~(np.abs(value) <= np.finfo(np.float32).max).all(axis=tuple(range(1, value.ndim)))
    if bad.any():
        raise MotionError(
            f"{where}: {key} holds NaN or infinity at frame {bad.argmax()}, expected finite values."
        )
    return value


def _nonzero(where: str, key: str, quat: np.ndarray) -> np.ndarray:
    zero = (np.linalg.norm(quat, axis=-1) < 1e-3).any(axis=tuple(range(1, quat.ndim - 1)))
    if zero.any():
        raise MotionError(
            f"{where}: {key} holds a zero quaternion at frame {zero.argmax()}, expected length 1."
        )
    return quat


def _checked(where: str, values: dict[str, Any], robot: Robot = g1.G1) -> dict[str, np.ndarray]:
    """The arrays of a clip, validated, in their final types and read-only."""
    arrays = {
        key: _numbers(where, key, values[key], shape, robot)
        for key, shape in array_shapes(robot).items()
    }
    quat = _nonzero(where, "body_quat_w", arrays["body_quat_w"])
    norm = np.linalg.norm(quat, axis=-1, keepdims=True)
    # A unit quaternion rounded to float32 is within 2e-7 and stays as it is, bit for bit.
    arrays["body_quat_w"] = np.where(np.abs(norm - 1.0) > 1e-6, quat / norm, quat)
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    contact = np.asarray(values["foot_contact"])
    if contact.dtype.kind not in "bfiu":
        raise MotionError(
            f"{where}: foot_contact has type {contact.dtype}, expected true or false."
        )
    _check_shape(where, "foot_contact", contact.shape, (2,))
    arrays["foot_contact"] = contact.astype(bool)
    lengths = {key: len(value) for key, value in arrays.items()}
    if len(set(lengths.values())) > 1 or len(contact) < 2:
        counts = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise MotionError(f"{where}: frames are {counts}, expected one number, 2 or more.")
    if "fps" in values:
        _check_fps(where, values["fps"])
    for value in arrays.values():
        value.setflags(write=False)
    return arrays
