"""Test vectors: states with the observation and the action that they must give.

They are for people who write the observation again, on a robot or in another simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.cli import read_json, write_json
from bm_envs.errors import PolicyError
from bm_envs.policy.load import Policy, load_policy
from bm_envs.policy.resolve import TRACKER, shipped_file
from bm_envs.policy.spec import PolicySpec, observation_table
from bm_envs.robots import kinematics

VECTORS_FORMAT = "bm-envs test vectors 1"
# One file for all trackers of a folder that ships, of each robot.
SHIPPED_VECTORS, SHIPPED_VECTORS_FORMAT = "test_vectors.json", "bm-envs shipped test vectors 1"
# How near an action must come to a test vector's, of the case's largest one (at least of 1). Errors
# of n roundings add up like sqrt(n), and the largest network chains 160 + 512 + 256 + 128 products:
# 32 epsilons of float32. The shipped files' networks come within 10, whatever the order of sums.
ACTION_TOLERANCE = 32 * float(np.finfo(np.float32).eps)
OBSERVATION_TOLERANCE = 1e-6  # written in float64, taken in float32; angles, metres, rad/s near 1


def make_test_vectors(
    policy: Callable[[np.ndarray], np.ndarray], spec: PolicySpec, *, cases: int = 8, seed: int = 0
) -> dict[str, Any]:
    """States with the observation, action and joint target that they must give.

    For people who write the observation again, on a robot or in another simulator. Everything is
    computed from the formulas in `TERMS` and the robot's kinematics in float64 NumPy, without the
    environments. The reference frames are random poses, so that no motion's licence is touched.
    Values per joint are in the policy's joint order.

    Args:
        policy: `[N, O] -> [N, 29]`, a `Policy` or an `MLP`.
        spec: layout of both.
        cases: how many states.
        seed: of the random states.
    """
    rng = np.random.default_rng(seed)
    default = np.array(spec.default_joint_pos)
    robot_table, J = spec.robot, spec.robot.num_joints  # noqa: N806
    torso = robot_table.body_names.index(spec.anchor_body_name)
    records = []
    for _ in range(cases):
        robot = {
            "root_pos_w": rng.normal([0, 0, 0.76], [1, 1, 0.05]),
            "root_quat_w": rot.quat_normalize(np.r_[1, rng.normal(0, [0.1, 0.1, 0.6])]),
            "root_lin_vel_w": rng.normal(0, 0.5, 3),
            "root_ang_vel_w": rng.normal(0, 0.5, 3),
            "joint_pos": default + rng.normal(0, 0.2, J),
            "joint_vel": rng.normal(0, 1.0, J),
            "last_action": rng.normal(0, 1.0, J),
        }
        root_and_joints = (
            robot["root_pos_w"], robot["root_quat_w"], robot["joint_pos"][spec.action_index()]
        )  # fmt: skip
        root_pos, root_quat, joints = (value[None] for value in root_and_joints)
        links = kinematics.link_poses(root_pos, root_quat, joints, robot_table)
        torso_pos, torso_rot = links.pos[0, torso], rot.quat_to_matrix(links.quat[0, torso])
        reference = {
            "joint_pos": default + rng.normal(0, 0.2, J),
            "joint_vel": rng.normal(0, 1.0, J),
            "anchor_pos_w": torso_pos + rng.normal(0, 0.1, 3),
            "anchor_quat_w": rot.quat_normalize(robot["root_quat_w"] + rng.normal(0, 0.1, 4)),
        }
        # World to body is the transpose: every rotation below is body to world.
        relative = torso_rot.T @ rot.quat_to_matrix(reference["anchor_quat_w"])
        pelvis = rot.quat_to_matrix(robot["root_quat_w"])
        parts = {
            "command": np.r_[reference["joint_pos"], reference["joint_vel"]],
            "motion_anchor_pos_b": torso_rot.T @ (reference["anchor_pos_w"] - torso_pos),
            "motion_anchor_ori_b": relative[:, :2].ravel(),
            "base_lin_vel": pelvis.T @ robot["root_lin_vel_w"],
            "base_ang_vel": pelvis.T @ robot["root_ang_vel_w"],
            "joint_pos": robot["joint_pos"] - default,
            "joint_vel": robot["joint_vel"],
            "actions": robot["last_action"],
        }
        observation = np.concatenate([parts[name] for name in spec.observation_names])
        action = np.asarray(policy(observation[None].astype(np.float32)))[0]
        records.append({
            "robot": {key: value.tolist() for key, value in robot.items()},
            "reference": {key: value.tolist() for key, value in reference.items()},
            "robot_anchor_pos_w": torso_pos.tolist(),
            "robot_anchor_rotation": torso_rot.tolist(),
            "observation": observation.tolist(),
            "action": action.astype(float).tolist(),
            "joint_target": (default + np.array(spec.action_scale) * action).tolist(),
        })  # fmt: skip
    return {
        "format": VECTORS_FORMAT,
        "units": "m, rad, s; quaternions w x y z, body to world; velocities in world axes, "
        "root_lin_vel_w of the pelvis link's origin",
        "joint_names": list(spec.joint_names),
        "observation_layout": observation_table(spec),
        "tolerance": {
            "observation": OBSERVATION_TOLERANCE,
            "action": ACTION_TOLERANCE,
            "meaning": "action: for the observation given here, times the largest |action| of the "
            "case or 1",
        },
        "cases": records,
    }


def write_test_vectors(
    path: str | Path, policy: Callable[[np.ndarray], np.ndarray], spec: PolicySpec, *,
    cases: int = 8, seed: int = 0,
) -> None:  # fmt: skip
    """Write `make_test_vectors` as JSON."""
    write_json(path, make_test_vectors(policy, spec, cases=cases, seed=seed))


def vectors_file(spec: PolicySpec) -> str:
    """Name of a folder's test vectors for the trackers of a robot."""
    if spec.robot.name == "g1":
        return SHIPPED_VECTORS
    return SHIPPED_VECTORS.replace(".json", f"_{spec.robot.name}.json")


def shipped_test_vectors(name: str) -> dict[str, Any]:
    """The test vectors of a tracker that ships, as `make_test_vectors` gives them.

    States and observations are stored once for all trackers of a robot in a folder, whose layout is
    the same,
    and for each of them the actions that its file gave where it was made.

    Raises:
        PolicyError: no such tracker.
    """
    file = shipped_file(name, TRACKER)
    spec = load_policy(file).spec
    path = file.with_name(vectors_file(spec))
    stored = _read_shipped(path)
    if name not in stored["actions"]:
        raise PolicyError(f"{path}: has no actions of '{name}', expected one entry a tracker.")
    default, scale = np.array(spec.default_joint_pos), np.array(spec.action_scale)
    cases = [
        {**case, "action": action, "joint_target": (default + scale * np.array(action)).tolist()}
        for case, action in zip(stored["cases"], stored["actions"][name], strict=True)
    ]
    shared = {k: v for k, v in stored.items() if k not in ("format", "cases", "actions")}
    return {"format": VECTORS_FORMAT, **shared, "cases": cases}


def with_shipped_vectors(path: Path, name: str, policy: Policy) -> dict[str, Any]:
    """Content of a folder's file of test vectors with a tracker's actions in it, added or replaced.

    Args:
        path: the file as it is; where there is none, the content begins with this tracker.
        name: the tracker's name in the folder.
        policy: the tracker.

    Raises:
        PolicyError: the file is no such file, or its states are not for this tracker's layout.
    """
    made = make_test_vectors(policy, policy.spec)
    own = ("action", "joint_target")  # the rest of a case is every tracker's
    stored = {
        "format": SHIPPED_VECTORS_FORMAT,
        **{key: made[key] for key in ("units", "joint_names", "observation_layout")},
        "cases": [{k: v for k, v in case.items() if k not in own} for case in made["cases"]],
        "actions": {},
    }
    if path.exists():
        new, stored = stored, _read_shipped(path)
        if any(stored.get(key) != new[key] for key in ("joint_names", "observation_layout")):
            raise PolicyError(
                f"{path}: has another order of joints or another observation than {policy.path}, "
                "expected the same of all trackers of a folder."
            )
        old, asked = ([case["observation"] for case in v["cases"]] for v in (stored, new))
        near = {"rtol": 0, "atol": OBSERVATION_TOLERANCE}
        if np.shape(old) != np.shape(asked) or not np.allclose(old, asked, **near):
            raise PolicyError(f"{path}: has other states than `make_test_vectors` makes.")
    actions = {**stored["actions"], name: [case["action"] for case in made["cases"]]}
    return {**stored, "actions": dict(sorted(actions.items()))}


def _read_shipped(path: Path) -> dict[str, Any]:
    """The test vectors of a folder's trackers."""
    stored = read_json(path, PolicyError)
    if not isinstance(stored, dict) or stored.get("format") != SHIPPED_VECTORS_FORMAT:
        raise PolicyError(
            f"{path}: not a folder's test vectors, expected 'format': '{SHIPPED_VECTORS_FORMAT}'."
        )
    return stored
