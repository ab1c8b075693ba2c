"""The Unitree G1 with 23 actuated joints (rev 1.0) as data: where it differs from the G1 of 29.

Its waist turns about z alone, and a wrist about x alone: six joints are not there. Legs, arms to
the elbow, motors and gains are those of the G1 of 29, whose rows are taken over. The hand is one
piece with the wrist: `left_wrist_roll_rubber_hand`, with mass and inertia of its own.

Source: `unitreerobotics/unitree_ros : robots/g1_description/g1_23dof_rev_1_0.xml` (BSD-3-Clause),
read at commit adb48c7; joints and their order are also those of `g1_23dof.urdf` there. As in that
file the waist's bracket has no mass (0.300 kg of the G1 of 29). Shapes that meet the ground are
ours: the forearm's reach and the hand's, from the hand's place and moments of inertia.
"""

from __future__ import annotations

from dataclasses import replace

from bm_envs.robots import g1
from bm_envs.robots.robot import Body, Geom, Joint, Robot, Site, Vec3

# The links and joints of the G1 of 29 that this one does not have.
_ABSENT_BODIES = (
    "waist_yaw_link", "waist_roll_link",
    *(f"left_wrist_{part}_link" for part in ("roll", "pitch", "yaw")),
    *(f"right_wrist_{part}_link" for part in ("roll", "pitch", "yaw")),
)  # fmt: skip
ABSENT_JOINTS = (
    "waist_roll_joint", "waist_pitch_joint",
    *(f"{side}_wrist_{part}_joint" for side in ("left", "right") for part in ("pitch", "yaw")),
)  # fmt: skip

# fmt: off
_HANDS = {
    "left_elbow_link":
        Body("left_wrist_roll_rubber_hand", "left_elbow_link", (0.1, 0.00188791, -0.01),
             (1, 0, 0, 0), 0.356929, (0.107947, 0.00163512, 0.00202245),
             (0.494051, 0.504265, 0.48416, 0.516933),
             (0.00200292, 0.0019426, 0.000195232)),
    "right_elbow_link":
        Body("right_wrist_roll_rubber_hand", "right_elbow_link", (0.1, -0.00188791, -0.01),
             (1, 0, 0, 0), 0.356929, (0.107947, -0.00163512, 0.00202245),
             (0.516933, 0.48416, 0.504265, 0.494051),
             (0.00200292, 0.0019426, 0.000195232)),
}
# fmt: on


def _bodies() -> tuple[Body, ...]:
    found = []
    for body in g1.BODIES:
        if body.name == "torso_link":
            body = replace(body, parent="pelvis", pos=(-0.0039635, 0, 0.044))
        if body.name not in _ABSENT_BODIES:
            found.append(body)
        if body.name in _HANDS:  # the elbow, whose only child it is
            found.append(_HANDS[body.name])
    return tuple(found)


def _joints() -> tuple[Joint, ...]:
    moved = {
        "waist_yaw_joint": "torso_link",
        "left_wrist_roll_joint": "left_wrist_roll_rubber_hand",
        "right_wrist_roll_joint": "right_wrist_roll_rubber_hand",
    }
    return tuple(
        replace(joint, body=moved.get(joint.name, joint.body))
        for joint in g1.JOINTS
        if joint.name not in ABSENT_JOINTS
    )


def _geoms() -> tuple[Geom, ...]:
    """Those of the G1 of 29 but for the hands, which are a forearm's end and a hand."""
    kept = [geom for geom in g1.COLLISION_GEOMS if geom.body not in _ABSENT_BODIES]
    for side, inward in (("left", -0.02), ("right", 0.02)):
        hand = f"{side}_wrist_roll_rubber_hand"
        kept += [
            Geom(f"{side}_wrist_collision", hand, 0.035, (0.028, 0, 0), (0.098, 0, 0)),
            Geom(f"{side}_hand_collision", hand, 0.035, (0.154, 0, 0), (0.2, inward, 0)),
        ]
    return tuple(kept)


def _hand(name: str) -> str:
    """The hand in the place of the wrist's last link."""
    return name.replace("_wrist_yaw_link", "_wrist_roll_rubber_hand")


def _sites() -> tuple[Site, ...]:
    """Palms are as far from the last joint as the hand's centre of mass."""
    return tuple(
        replace(site, body=_hand(site.body), pos=(0.107947, 0, 0)) if "palm" in site.name else site
        for site in g1.SITES
    )


def _merged() -> dict[str, tuple[str, Vec3]]:
    """Where the absent links lie; a hand's parts stand one behind another along x."""
    places: dict[str, tuple[str, Vec3]] = {
        "waist_yaw_link": ("torso_link", (0.0039635, 0, -0.044)),
        "waist_roll_link": ("torso_link", (0, 0, 0)),
    }
    for side in ("left", "right"):
        hand = f"{side}_wrist_roll_rubber_hand"
        places[f"{side}_wrist_roll_link"] = hand, (0, 0, 0)
        places[f"{side}_wrist_pitch_link"] = hand, (0.038, 0, 0)
        places[f"{side}_wrist_yaw_link"] = hand, (0.084, 0, 0)
    return places


G1_23 = Robot(
    name="g1_23",
    label="Unitree G1, 23 actuated joints",
    source="unitreerobotics/unitree_ros, robots/g1_description/g1_23dof_rev_1_0.xml",
    bodies=_bodies(), joints=_joints(), sites=_sites(), collision_geoms=_geoms(),
    foot_spheres=g1.FOOT_SPHERES, foot_capsules=g1.FOOT_CAPSULES,
    contact_exclusions=(("pelvis", "right_hip_roll_link"), ("pelvis", "left_hip_roll_link")),
    root_body=g1.ROOT_BODY, anchor_body=g1.ANCHOR_BODY,
    tracked_bodies=tuple(map(_hand, g1.TRACKED_BODIES)), foot_bodies=g1.FOOT_BODIES,
    end_effectors=tuple(map(_hand, g1.END_EFFECTORS)), poses=g1.POSES,
    default_pose=g1.G1.default_pose, merged=_merged(),
    env_id="BMTrack-G1-23-v0",
)  # fmt: skip
