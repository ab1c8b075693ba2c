"""Policy files of unitree_rl_lab and unitree_rl_mjlab: what they say, in the words of ours.

Both write `deploy.yaml` beside each network. Its lists have two orders. `stiffness` and `damping`
are in the order of the robot's motors, which is our table's; `default_joint_pos`, `scale`, `offset`
and every observation are in the policy's, and entry i of `joint_ids_map` says which motor the
policy's joint i is. A robot falls whose controller takes all lists in one order. `read_deploy_yaml`
gives the same keys as a policy's ONNX metadata.

Source: unitreerobotics/unitree_rl_lab, `utils/export_deploy_cfg.py`, and the controller under
`deploy/`, which reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli import shortened
from bm_envs.errors import PolicyError, unknown_name
from bm_envs.policy.plain_yaml import parse_yaml
from bm_envs.robots import g1

J = g1.NUM_JOINTS
MAX_YAML_BYTES = 2**16  # such files have 3000 bytes

# Names of unitree_rl_lab's observation terms, and ours.
UNITREE_TERMS = {
    "motion_command": "command",
    "motion_anchor_pos_b": "motion_anchor_pos_b",
    "motion_anchor_ori_b": "motion_anchor_ori_b",
    "base_lin_vel": "base_lin_vel",
    "base_ang_vel": "base_ang_vel",
    "joint_pos_rel": "joint_pos",
    "joint_vel_rel": "joint_vel",
    "last_action": "actions",
}
UNITREE_COMMAND = ("motion_joint_pos", "motion_joint_vel")  # the command in two terms
VELOCITY_TERMS = ("velocity_commands", "gait_phase", "command_lin_vel", "command_ang_vel")


def read_deploy_yaml(path: Path, control_dt: float) -> dict[str, Any]:
    """The content of a `deploy.yaml` as metadata of a policy: the same keys as in an ONNX file.

    Args:
        path: the file.
        control_dt: seconds of a control step; a file with another one is refused.

    Raises:
        PolicyError: unreadable, of another robot or task, or it asks for what is not supported
            (scaled or clipped observations, histories, clipped targets, other actions).
    """
    try:
        content = path.read_bytes()[: MAX_YAML_BYTES + 1]
        if len(content) > MAX_YAML_BYTES:
            raise ValueError(f"holds more than {MAX_YAML_BYTES >> 10} KiB")
        value = parse_yaml(content.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PolicyError(f"{path}: not a readable YAML file ({shortened(str(reason))}).") from None
    try:
        return _deploy_metadata(value, control_dt)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def _deploy_metadata(value: Any, control_dt: float) -> dict[str, Any]:
    if not isinstance(value, dict) or "joint_ids_map" not in value:
        raise PolicyError("holds no 'joint_ids_map', expected a deploy.yaml of unitree_rl_lab.")
    terms = _mapping(value, "observations")
    if velocity := [name for name in VELOCITY_TERMS if name in terms]:
        raise PolicyError(
            f"is of a velocity policy, which observes '{velocity[0]}'; expected a policy that "
            "tracks a motion."
        )
    motors = _numbers(value.get("joint_ids_map"), "joint_ids_map", None)
    if sorted(motors) != list(range(J)):
        raise PolicyError(
            f"joint_ids_map holds {len(motors)} numbers, expected the G1's motors 0 to {J - 1} "
            "once each."
        )
    order = [int(motor) for motor in motors]
    (step,) = _numbers([value.get("step_dt")], "step_dt", 1)
    if abs(step / control_dt - 1) > 1e-3:
        raise PolicyError(f"step_dt is {step:g} s, expected {control_dt:g}.")
    pose = _numbers(value.get("default_joint_pos"), "default_joint_pos", J)
    action = _action(value, pose)
    gains = {
        ours: [_numbers(value.get(theirs), theirs, J)[motor] for motor in order]
        for ours, theirs in (("joint_stiffness", "stiffness"), ("joint_damping", "damping"))
    }
    names = _unitree_terms(terms)
    return {
        "joint_names": [g1.JOINT_NAMES[motor] for motor in order],
        **gains,
        "default_joint_pos": pose,
        "action_scale": action,
        "observation_names": names,
        "anchor_body_name": g1.ANCHOR_BODY,
    }


def _action(value: Mapping[str, Any], pose: Sequence[float]) -> list[float]:
    """The scale of the one action term, after a look at the rest of it."""
    actions = _mapping(value, "actions")
    if list(actions) != ["JointPositionAction"]:
        given = shortened(", ".join(map(str, actions)) or "none", 60)
        raise PolicyError(f"actions are {given}, expected 'JointPositionAction' alone.")
    term = _mapping(actions, "JointPositionAction")
    joints = term.get("joint_ids")
    # `slice(None)`, as PyYAML writes it, has three empty entries here.
    if joints not in (None, [None, None, None]) and joints != list(range(J)):
        raise PolicyError("joint_ids of JointPositionAction name some joints, expected all.")
    if any(np.isfinite(v) for v in _flat(term.get("clip"), "clip of JointPositionAction")):
        raise PolicyError("JointPositionAction clips its targets, which is not supported.")
    scale = term.get("scale")
    scales = _numbers(scale if isinstance(scale, list) else [scale] * J, "scale", J)
    if term.get("offset") is not None:
        offset = _numbers(term.get("offset"), "offset", J)
        # Both lists are rounded to three digits by the exporter, each from the same numbers.
        if np.abs(np.subtract(offset, pose)).max() > 2e-3:
            raise PolicyError(
                "offset of JointPositionAction differs from default_joint_pos, which is not "
                "supported."
            )
    return scales


def _unitree_terms(terms: Mapping[str, Any]) -> list[str]:
    """Observation terms in their order, with our names."""
    given, names = [str(name) for name in terms], []
    for i, name in enumerate(given):
        if name == UNITREE_COMMAND[0] and given[i + 1 : i + 2] == [UNITREE_COMMAND[1]]:
            names.append("command")
        elif name == UNITREE_COMMAND[1] and given[max(0, i - 1) : i] == [UNITREE_COMMAND[0]]:
            pass  # the second half of the one before
        elif name in UNITREE_TERMS:
            names.append(UNITREE_TERMS[name])
        else:
            raise PolicyError(unknown_name("observation", shortened(name, 60), UNITREE_TERMS))
        term = _mapping(terms, name)
        if (history := term.get("history_length")) not in (None, 0, 1) or history is True:
            raise PolicyError(
                f"Observation '{name}' wants a history of {shortened(str(history), 20)} steps, "
                "expected 1: histories are not supported."
            )
        if any(v != 1 for v in _flat(term.get("scale"), f"scale of {name}")):
            raise PolicyError(f"Observation '{name}' is scaled, expected a scale of 1 throughout.")
        if any(np.isfinite(v) for v in _flat(term.get("clip"), f"clip of {name}")):
            raise PolicyError(f"Observation '{name}' is clipped, expected no bounds.")
        params = term.get("params")
        asset = params.get("asset_cfg") if isinstance(params, dict) else None
        joints = asset.get("joint_ids") if isinstance(asset, dict) else None
        if joints not in (None, [None, None, None]) and joints != list(range(J)):
            raise PolicyError(f"Observation '{name}' is of some joints, expected all.")
    return names


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise PolicyError(f"'{key}' is missing or no mapping.")
    return found


def _numbers(value: Any, key: str, count: int | None) -> list[float]:
    """A list of finite numbers."""
    numbers = value if isinstance(value, list) else None
    plain = numbers is not None and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v) for v in numbers
    )
    if numbers is None or not plain or count not in (None, len(numbers)):
        actual = f"{len(numbers)} values" if numbers is not None else shortened(repr(value), 40)
        expected = f"{count} finite numbers" if count else "a list of finite numbers"
        raise PolicyError(f"{key} holds {actual}, expected {expected}.")
    return [float(v) for v in numbers]


def _flat(value: Any, key: str) -> Iterator[float]:
    """All numbers of a scale or of bounds: null, a number, a list or a list of pairs."""
    if value is None:
        return
    for part in value if isinstance(value, list) else [value]:
        for number in part if isinstance(part, list) else [part]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise PolicyError(f"{key} holds {shortened(repr(number), 40)}, expected a number.")
            yield number
