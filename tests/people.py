"""People made for tests: a person with the robot's own limbs, and BVH text of any motion."""

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
        if not children[joint]:
            lines.extend([f"{pad}\tEnd Site", f"{pad}\t{{", f"{pad}\t\tOFFSET 0 0 0", f"{pad}\t}}"])
        lines.append(f"{pad}}}")

    add(0, 0)
    angles = rotation(person.local_quat.reshape(-1, 4)).as_euler(order, degrees=True)
    values = np.concatenate(
        [person.local_pos, angles.reshape(*person.local_pos.shape[:2], 3)], axis=-1
    )[:, listed]
    lines += ["MOTION", f"Frames: {len(values)}"]
    lines += [f"Frame Time: {frame_time or 1.0 / person.fps:.9f}"]
    lines += [" ".join(f"{x:.{digits}f}" for x in row.ravel()) for row in values]
    return "\n".join(lines) + "\n"
