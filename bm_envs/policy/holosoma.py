"""Policy files of holosoma: what they say, in the words of ours.

holosoma writes the metadata `dof_names`, `kp` and `kd` as JSON, and gives the motion as joints and
the torso's pose (x y z w). It concatenates observation terms sorted by name. Its files name neither
these terms nor the default pose nor the scale; its one preset for the G1 does.

Source: amazon-far/holosoma, `utils/inference_helpers.py`, `config_values/wbt/g1/`,
`managers/observation/manager.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.cli import parse_json, shortened
from bm_envs.errors import PolicyError
from bm_envs.robots import g1, kinematics

J = g1.NUM_JOINTS
# Names of holosoma's observation terms, and ours.
HOLOSOMA_TERMS = {
    "motion_command": "command",
    "motion_ref_pos_b": "motion_anchor_pos_b",
    "motion_ref_ori_b": "motion_anchor_ori_b",
    "base_lin_vel": "base_lin_vel",
    "base_ang_vel": "base_ang_vel",
    "dof_pos": "joint_pos",
    "dof_vel": "joint_vel",
    "actions": "actions",
}
# holosoma's `g1_29dof_wbt_observation`, which has 154 values, sorted.
HOLOSOMA_PRESET = (
    "actions", "base_ang_vel", "dof_pos", "dof_vel", "motion_command", "motion_ref_ori_b",
)  # fmt: skip
HOLOSOMA_PRESET_SIZE = 154
HOLOSOMA_KEYS = ("dof_names", "kp", "kd")
HOLOSOMA_OUTPUTS: dict[str, tuple[int, ...]] = {
    "joint_pos": (J,), "joint_vel": (J,), "ref_pos_xyz": (3,), "ref_quat_xyzw": (4,),
}  # fmt: skip


def is_holosoma(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata are of holosoma's exporter."""
    return "joint_names" not in metadata and all(key in metadata for key in HOLOSOMA_KEYS)


def holosoma_metadata(
    metadata: Mapping[str, str], inputs: Mapping[str, int], by_user: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The metadata of a holosoma file under our keys, and a note of the values it does not hold.

    Args:
        metadata: the file's metadata.
        inputs: width of each input of the graph.
        by_user: metadata of the user, which come first. Its `observation_names` may be holosoma's.

    Raises:
        PolicyError: the policy tracks no motion or is for another robot, or nothing says what it
            observes.
    """
    try:
        values = {key: parse_json(metadata[key]) for key in HOLOSOMA_KEYS}
    except ValueError as error:
        raise PolicyError(
            f"its metadata of holosoma are no JSON ({shortened(str(error))})."
        ) from None
    for key, value in values.items():
        if not isinstance(value, list):
            raise PolicyError(f"{key} of its holosoma metadata is no list.")
    if "obs" not in inputs and "actor_obs" in inputs:
        raise PolicyError(
            "is a velocity policy of holosoma (it takes 'actor_obs'), expected one that tracks a "
            "motion."
        )
    plain = {key: value for key, value in metadata.items() if key not in HOLOSOMA_KEYS}
    translated: dict[str, Any] = {
        **plain, "joint_names": values["dof_names"], "joint_stiffness": values["kp"],
        "joint_damping": values["kd"],
    }  # fmt: skip
    assumed = {}
    if "observation_names" not in by_user:
        if inputs.get("obs") != HOLOSOMA_PRESET_SIZE:
            raise PolicyError(
                f"is of holosoma, whose files do not name what they observe, and takes "
                f"{inputs.get('obs')} values where its preset has {HOLOSOMA_PRESET_SIZE}; give "
                "observation_names in --policy-config, sorted by name as holosoma has them."
            )
        assumed["observation_names"] = list(HOLOSOMA_PRESET)
    if "default_joint_pos" not in by_user:
        pose = dict(zip(g1.JOINT_NAMES, g1.DEFAULT_JOINT_POS, strict=True))
        assumed["default_joint_pos"] = [float(pose.get(str(n), 0.0)) for n in values["dof_names"]]
    if "action_scale" not in by_user:
        assumed["action_scale"] = 1.0
    note = (
        f"holosoma's files do not tell {', '.join(assumed)}; taken are those of its preset "
        "g1_29dof_wbt (others: --policy-config)"
        if assumed
        else ""
    )
    return translated | assumed | dict(by_user), note


def holosoma_motion(
    tables: Mapping[str, np.ndarray], joint_names: Sequence[str], body_names: Sequence[str],
    dt: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The motion of a holosoma file as the six tables of this family.

    The file has joints and the torso's pose; the pelvis follows by the waist's three joints, its
    velocities are central differences, as the converters of holosoma and of others make them.

    Args:
        tables: `HOLOSOMA_OUTPUTS`, `[T, ...]` each, joints in the policy's order.
        joint_names: the policy's order of joints.
        body_names: links of the tables to make.
        dt: seconds between frames.
    """
    from bm_envs.motion.clip import clip_from_states

    order = g1.order_map(joint_names, g1.JOINT_NAMES)
    joint_pos, joint_vel = tables["joint_pos"][:, order], tables["joint_vel"][:, order]
    frames = len(joint_pos)
    anchor_quat = rot.quat_normalize(tables["ref_quat_xyzw"][:, [3, 0, 1, 2]].astype(np.float64))
    # Forward kinematics from a pelvis at the origin gives the torso in the pelvis frame. Its
    # inverse takes the known pose of the torso to the pose of the pelvis.
    still = np.tile([1.0, 0.0, 0.0, 0.0], (frames, 1))
    links = kinematics.link_poses(np.zeros((frames, 3)), still, joint_pos.astype(np.float64))
    torso = g1.BODY_NAMES.index(g1.ANCHOR_BODY)
    root_quat = rot.quat_mul(anchor_quat, rot.quat_conj(links.quat[:, torso]))
    root_pos = tables["ref_pos_xyz"] - rot.quat_rotate(root_quat, links.pos[:, torso])
    moved = clip_from_states("", 1 / dt, root_pos, root_quat, joint_pos, source="", licence="")
    root = g1.BODY_NAMES.index(g1.ROOT_BODY)
    states = kinematics.link_states(
        root_pos, root_quat, joint_pos, moved.body_lin_vel_w[:, root],
        moved.body_ang_vel_w[:, root], joint_vel,
    )  # fmt: skip
    bodies = g1.order_map(g1.BODY_NAMES, body_names)
    return {
        "joint_pos": tables["joint_pos"], "joint_vel": tables["joint_vel"],
        "body_pos_w": states.pos[:, bodies], "body_quat_w": states.quat[:, bodies],
        "body_lin_vel_w": states.lin_vel[:, bodies], "body_ang_vel_w": states.ang_vel[:, bodies],
    }  # fmt: skip
