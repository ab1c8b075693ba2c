"""Policy files of other projects: what they say, in the words of ours.

**unitree_rl_lab** and **unitree_rl_mjlab** write `deploy.yaml` beside each network. Its lists have
two orders. `stiffness` and `damping` are in the order of the robot's motors, which is our table's;
`default_joint_pos`, `scale`, `offset` and every observation are in the policy's, and entry i of
`joint_ids_map` says which motor the policy's joint i is. Taken as listed the robot falls.
`read_deploy_yaml` gives the same keys as a policy's ONNX metadata. Source: unitreerobotics/
unitree_rl_lab, `utils/export_deploy_cfg.py`, and the controller under `deploy/`, which reads it.

**holosoma** writes the metadata `dof_names`, `kp` and `kd` as JSON and gives the motion as joints
and the torso's pose (x y z w). It concatenates observation terms sorted by name. Files name neither
these terms nor the default pose nor the scale; its one preset for the G1 does. Source: amazon-far/
holosoma, `utils/inference_helpers.py`, `config_values/wbt/g1/`, `managers/observation/manager.py`.

Nothing here runs code from a file: YAML is read as plain data, tags are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import rotations as rot
from bm_envs.cli import parse_json, shortened
from bm_envs.errors import PolicyError, unknown_name
from bm_envs.robots import g1, kinematics

J = g1.NUM_JOINTS
MAX_YAML_BYTES = 2**16  # such files have 3000
MAX_YAML_VALUES = 20_000
MAX_YAML_DEPTH = 16

# Names of observation terms elsewhere, and here. Source: the two projects' observation functions.
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


# --- Unitree --------------------------------------------------------------------------------------


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
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise PolicyError(f"{path}: not a readable YAML file ({shortened(str(told))}).") from None
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
        given = f"{len(numbers)} values" if numbers is not None else shortened(repr(value), 40)
        wanted = f"{count} finite numbers" if count else "a list of finite numbers"
        raise PolicyError(f"{key} holds {given}, expected {wanted}.")
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


def parse_yaml(text: str) -> Any:
    """YAML of somebody else as plain data: mappings with texts as keys, lists, numbers, texts.

    Bounded in depth and in the number of values, aliases counted as often as they are used. Tags
    are ignored, so that `!!python/object/apply:...` is what stands behind it.

    Raises:
        ValueError: it is no such YAML.
        PolicyError: the package is missing.
    """
    try:
        import yaml
    except ImportError:
        raise PolicyError(
            "A YAML file needs the package pyyaml: pip install 'bm-envs[deploy]'."
        ) from None
    resolver = yaml.SafeLoader("")
    constructor = yaml.constructor.SafeConstructor()
    anchors: dict[str, tuple[Any, int]] = {}
    count = documents = 0
    # What is being filled: the container, its anchor, a mapping's pending key, values within.
    stack: list[list[Any]] = []
    root: Any = None

    def put(value: Any, size: int) -> None:
        nonlocal count, root
        count += size
        if count > MAX_YAML_VALUES:
            raise ValueError(f"it holds more than {MAX_YAML_VALUES} values")
        if not stack:
            root = value
            return
        top = stack[-1]
        top[3] += size
        if isinstance(top[0], list):
            top[0].append(value)
        elif top[2] is None:
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise ValueError("a mapping has a key that is no text")
            if str(value) in top[0]:
                raise ValueError(f"the key '{shortened(str(value), 60)}' stands twice")
            top[2] = str(value)
        else:
            top[0][top[2]] = value
            top[2] = None

    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ValueError("it holds more than one document")
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:  # also one of a container that is not complete
                    raise ValueError(f"the alias '{shortened(event.anchor, 60)}' leads nowhere")
                put(*anchors[event.anchor])
            elif isinstance(event, yaml.ScalarEvent):
                tag = resolver.resolve(yaml.ScalarNode, event.value, (event.implicit[0], False))
                node = yaml.ScalarNode(tag, event.value)
                plain = event.style is None and tag.rpartition(":")[2] in (
                    "null", "bool", "int", "float",
                )  # fmt: skip
                value = constructor.construct_object(node) if plain else event.value
                if event.anchor:
                    anchors[event.anchor] = value, 1
                put(value, 1)
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(stack) >= MAX_YAML_DEPTH:
                    raise ValueError(f"it nests more than {MAX_YAML_DEPTH} deep")
                new: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append([new, event.anchor, None, 1])
            elif isinstance(event, yaml.CollectionEndEvent):
                done, anchor, _, size = stack.pop()
                if anchor:
                    anchors[anchor] = done, size
                count -= size - 1  # its values are counted already
                put(done, size)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None
    except (OverflowError, RecursionError) as error:
        raise ValueError(type(error).__name__) from None
    return root


# --- holosoma -------------------------------------------------------------------------------------


def is_holosoma(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata are of holosoma's exporter."""
    return "joint_names" not in metadata and all(key in metadata for key in HOLOSOMA_KEYS)


def holosoma_metadata(
    metadata: Mapping[str, str], inputs: Mapping[str, int], given: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """The metadata of a holosoma file with our keys, and what was taken that it does not tell.

    Args:
        metadata: the file's.
        inputs: width of each input of the graph.
        given: metadata of the user, which come first. Its `observation_names` may be holosoma's.

    Raises:
        PolicyError: it is of a velocity policy or of another robot, or what it observes cannot be
            told.
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
    found: dict[str, Any] = {
        **plain, "joint_names": values["dof_names"], "joint_stiffness": values["kp"],
        "joint_damping": values["kd"],
    }  # fmt: skip
    assumed = {}
    if "observation_names" not in given:
        if inputs.get("obs") != HOLOSOMA_PRESET_SIZE:
            raise PolicyError(
                f"is of holosoma, whose files do not name what they observe, and takes "
                f"{inputs.get('obs')} values where its preset has {HOLOSOMA_PRESET_SIZE}; give "
                "observation_names in --policy-config, sorted by name as holosoma has them."
            )
        assumed["observation_names"] = list(HOLOSOMA_PRESET)
    if "default_joint_pos" not in given:
        pose = dict(zip(g1.JOINT_NAMES, g1.DEFAULT_JOINT_POS, strict=True))
        assumed["default_joint_pos"] = [float(pose.get(str(n), 0.0)) for n in values["dof_names"]]
    if "action_scale" not in given:
        assumed["action_scale"] = 1.0
    told = ", ".join(name for name in assumed)
    note = (
        f"holosoma's files do not tell {told}; taken are those of its preset g1_29dof_wbt "
        "(others: --policy-config)"
        if assumed
        else ""
    )
    return found | assumed | dict(given), note


def holosoma_motion(
    tables: Mapping[str, np.ndarray], joint_names: Sequence[str], body_names: Sequence[str],
    dt: float,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The motion of a holosoma file as the six tables of this family.

    The file has joints and the torso's pose; the pelvis follows by the waist's three joints, its
    velocities by central differences, as holosoma's and everybody's converters make them.

    Args:
        tables: `HOLOSOMA_OUTPUTS`, `[T, ...]` each, joints in the policy's order.
        joint_names: that order.
        body_names: of the tables to make.
        dt: seconds between frames.
    """
    from bm_envs.motion.clip import clip_from_states

    order = g1.order_map(joint_names, g1.JOINT_NAMES)
    joint_pos, joint_vel = tables["joint_pos"][:, order], tables["joint_vel"][:, order]
    frames = len(joint_pos)
    anchor_quat = rot.quat_normalize(tables["ref_quat_xyzw"][:, [3, 0, 1, 2]].astype(np.float64))
    # The torso seen from a pelvis at the origin, turned around.
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
