"""People made for tests: a person with the robot's own limbs, and BVH text of any motion."""

import warnings

import numpy as np
from scipy.spatial.transform import Rotation

from bm_envs.motion.bvh import PersonMotion
from bm_envs.motion.retarget import robot_lengths
from bm_envs.robots import g1

# The joints of the person: name of the part, and the link whose origin it is.
LIMBS = {
    "hip": "hip_roll", "knee": "knee", "ankle": "ankle_roll", "shoulder": "shoulder_roll",
    "elbow": "elbow", "wrist": "wrist_yaw",
}  # fmt: skip
TOE = (0.12, 0.0, -0.03)
NAMES = ("pelvis", "spine3", "neck") + tuple(
    f"{side}_{part}" for side in ("left", "right")
    for part in ("hip", "knee", "ankle", "foot", "shoulder", "elbow", "wrist")
)  # fmt: skip


def rotation(quat):
    """SciPy's rotation of quaternions w x y z."""
    return Rotation.from_quat(np.asarray(quat, np.float64)[..., [1, 2, 3, 0]])


def wxyz(rotations):
    return rotations.as_quat()[..., [3, 0, 1, 2]]


def robot_as_person(clip, frames=slice(None)):
    """A person whose joints are where the robot's links are, named as SMPL's.

    All joints hang on a root at the origin, by position channels and rotations of their own, so
    that where they are is read off the clip and computed by nothing under test.
    """
    index = {name: i for i, name in enumerate(g1.BODY_NAMES)}
    pos = clip.body_pos_w[frames].astype(np.float64)
    quat = clip.body_quat_w[frames].astype(np.float64)
    torso = rotation(quat[:, index["torso_link"]])
    local_pos, local_quat = [], []
    for name in NAMES:
        if name == "pelvis":
            where, how = pos[:, 0], quat[:, 0]
        elif name == "spine3":
            where, how = pos[:, index["torso_link"]], quat[:, index["torso_link"]]
        else:
            side, _, part = name.partition("_")
            if name == "neck":
                where = pos[:, 0] + torso.apply([0.0, 0.0, 0.4])
                how = quat[:, index["torso_link"]]
            elif part == "foot":
                ankle = index[f"{side}_ankle_roll_link"]
                where = pos[:, ankle] + rotation(quat[:, ankle]).apply(TOE)
                how = quat[:, ankle]
            else:
                link = index[f"{side}_{LIMBS[part]}_link"]
                where, how = pos[:, link], quat[:, link]
        local_pos.append(where)
        local_quat.append(how)
    return PersonMotion(
        "made.bvh", clip.fps, ("root", *NAMES), (-1, *[0] * len(NAMES)), rest_offsets(),
        np.stack([np.zeros_like(pos[:, 0]), *local_pos], axis=1),
        np.stack([np.tile([1.0, 0, 0, 0], (len(pos), 1)), *local_quat], axis=1),
    )  # fmt: skip


def rest_offsets():
    """Standing upright, forearms ahead: the robot's zero pose, to what a rest pose needs."""
    robot = robot_lengths()
    points = {"pelvis": (0, 0, 0), "spine3": (0, 0, 0.05), "neck": (0, 0, 0.4)}
    for side, y in (("left", 0.1), ("right", -0.1)):
        points |= {
            f"{side}_hip": (0, y, robot.hip_height),
            f"{side}_knee": (0, y, -0.4), f"{side}_ankle": (0, y, -0.7),
            f"{side}_foot": (TOE[0], y, -0.7 + TOE[2]), f"{side}_shoulder": (0, y, 0.3),
            f"{side}_elbow": (0, y, 0.1), f"{side}_wrist": (0.18, y, 0.1),
        }  # fmt: skip
    return np.array([(0, 0, 0), *(points[name] for name in NAMES)], np.float64)


def bvh_text(person, order="ZYX", digits=9, frame_time=None):
    """A BVH file of a person, every joint with six channels."""
    children = {i: [j for j, p in enumerate(person.parents) if p == i] for i in range(-1, 999)}
    lines, listed = ["HIERARCHY"], []

    def add(joint, depth):
        listed.append(joint)
        pad = "\t" * depth
        lines.append(f"{pad}{'ROOT' if depth == 0 else 'JOINT'} {person.names[joint]}")
        lines.append(f"{pad}{{")
        lines.append(f"{pad}\tOFFSET " + " ".join(map(repr, map(float, person.offsets[joint]))))
        turns = " ".join(f"{axis}rotation" for axis in order)
        lines.append(f"{pad}\tCHANNELS 6 Xposition Yposition Zposition {turns}")
        for child in children[joint]:
            add(child, depth + 1)
        ends = [offset for parent, offset in person.ends.values() if parent == joint]
        for offset in ends or ([] if children[joint] else [np.zeros(3)]):
            place = " ".join(map(repr, map(float, offset)))
            lines.extend([f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET {place}",
                          f"{pad}\t}}"])  # fmt: skip
        lines.append(f"{pad}}}")

    add(0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # at gimbal lock any of many angles serves
        angles = rotation(person.local_quat.reshape(-1, 4)).as_euler(order, degrees=True)
    values = np.concatenate(
        [person.local_pos, angles.reshape(*person.local_pos.shape[:2], 3)], axis=-1
    )[:, listed]
    lines += ["MOTION", f"Frames: {len(values)}"]
    lines += [f"Frame Time: {frame_time or 1.0 / person.fps:.9f}"]
    lines += [" ".join(f"{x:.{digits}f}" for x in row.ravel()) for row in values]
    return "\n".join(lines) + "\n"


# --- people of flesh, in centimetres -------------------------------------------------------------

# A T-pose, y up and z ahead: part, its parent, its place in cm. No published skeleton's numbers.
T_POSE = (
    ("pelvis", None, (0, 0, 0)), ("spine", "pelvis", (0, 10, 0)), ("chest", "spine", (0, 32, 0)),
    ("neck", "chest", (0, 52, 0)), ("head", "neck", (0, 62, 2)),
    *((f"{side}_{part}", "pelvis" if part == "hip" else "chest" if part == "collar"
       else f"{side}_{parent}", (sign * x, y, z))
      for side, sign in (("left", 1), ("right", -1))
      for part, parent, x, y, z in (
          ("hip", "", 9, -4, 0), ("knee", "hip", 9, -46, 0), ("ankle", "knee", 9, -88, 0),
          ("toe", "ankle", 9, -94, 14), ("collar", "", 5, 46, 0), ("shoulder", "collar", 18, 46, 0),
          ("elbow", "shoulder", 46, 46, 0), ("wrist", "elbow", 71, 46, 0))),
)  # fmt: skip
TIPS = {"head": (0, 14, 1), "left_toe": (0, 0, 6), "right_toe": (0, 0, 6),
        "left_wrist": (16, 0, 0), "right_wrist": (-16, 0, 0)}  # fmt: skip
HANG = {"left_shoulder": (0, 0, -75), "right_shoulder": (0, 0, 75)}
"""Degrees about x, y, z that take the arms from the T-pose to the sides."""


def posed(names, *, root, height, turns=(), axes=None, frames=31, fps=30.0, rest=None):
    """A person in one pose that sways a little, as BVH text with the structure of a real file.

    Args:
        names: part of `T_POSE` to the joint's name.
        root: SciPy's rotation of the pelvis from standing, y up.
        height: of the pelvis, cm.
        turns: part to degrees about x, y, z.
        axes: SciPy's rotation from y up to the file's axes; rest pose and motion turn with it.
        frames, fps: how many, at what rate.
        rest: likewise of the rest pose alone: a pose's joints then have other frames.
    """
    axes = Rotation.identity() if axes is None else axes
    rest = axes if rest is None else rest
    index = {part: k for k, (part, _, _) in enumerate(T_POSE)}
    place = {part: np.array(where, float) for part, _, where in T_POSE}
    parents = tuple(-1 if parent is None else index[parent] for _, parent, _ in T_POSE)
    offsets = np.array([
        rest.apply(place[part] - (place[parent] if parent else 0.0)) for part, parent, _ in T_POSE
    ])  # fmt: skip
    t = np.arange(frames) / fps
    sway = 2.0 * np.sin(2 * np.pi * t / 1.5)
    quat = np.empty((frames, len(T_POSE), 4))
    for part, k in index.items():
        if part == "pelvis":
            turn = Rotation.from_euler("z", sway[:, None], degrees=True) * root
            turn = axes * turn * rest.inv()
        else:
            given = np.array({**HANG, **dict(turns)}.get(part, (0, 0, 0)), float)
            angles = given + np.stack([0 * sway, sway * (part == "chest"), 0 * sway], axis=1)
            turn = rest * Rotation.from_euler("xyz", angles, degrees=True) * rest.inv()
        quat[:, k] = wxyz(turn)
    pos = np.tile(offsets, (frames, 1, 1))
    pos[:, 0] = axes.apply(np.stack([0 * sway + 40.0, 0 * sway + height, 0 * sway - 30.0], axis=1))
    offsets[0] = axes.apply((0.0, 95.0, 0.0))
    ends = {f"{part}_end": (index[part], rest.apply(tip)) for part, tip in TIPS.items()}
    person = PersonMotion("made.bvh", fps, tuple(names[part] for part in index), parents, offsets,
                          pos, quat, ends=ends)  # fmt: skip
    return bvh_text(person, "ZXY")


def spelled(trunk, sides, limbs, before=""):
    """Part of `T_POSE` to a skeleton's spelling of it.

    Args:
        trunk: the names of pelvis, spine, chest, neck and head.
        sides: what stands for left and right.
        limbs: the names of hip, knee, ankle, toe, collar, shoulder, elbow and wrist, `*` the side.
        before: what stands before each.
    """
    parts = ("hip", "knee", "ankle", "toe", "collar", "shoulder", "elbow", "wrist")
    middle = ("pelvis", "spine", "chest", "neck", "head")
    found: dict[str, str] = dict(zip(middle, trunk.split(), strict=True))
    for side, spelling in zip(("left", "right"), sides, strict=True):
        for part, name in zip(parts, limbs.split(), strict=True):
            found[f"{side}_{part}"] = name.replace("*", spelling)
    return {part: before + name for part, name in found.items()}


LEGS_ARMS = "*UpLeg *Leg *Foot {} *Shoulder *Arm *ForeArm *Hand"
BOTH = ("Left", "Right")
SPELLINGS = {
    "LAFAN1": spelled("Hips Spine Spine2 Neck Head", BOTH, LEGS_ARMS.format("*Toe")),
    "Mixamo": spelled("Hips Spine Spine2 Neck Head", BOTH, LEGS_ARMS.format("*ToeBase"),
                      "mixamorig:"),
    "Xsens": spelled("Hips Chest Chest4 Neck Head", BOTH,
                     "*Hip *Knee *Ankle *Toe *Collar *Shoulder *Elbow *Wrist"),
    "Xsens segments": spelled("Pelvis L5 T8 Neck Head", BOTH,
                              "*UpperLeg *LowerLeg *Foot *Toe *Shoulder *UpperArm *ForeArm *Hand"),
}  # fmt: skip
