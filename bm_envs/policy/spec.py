"""What a policy is, apart from its weights: layouts, joint order and drives, as ONNX metadata.

One file because the metadata are one table, which is written, read and checked.

`PolicySpec` has the names of the ONNX metadata's keys. The keys of whole_body_tracking and those of
mjlab are both written, and either exporter's are read. Numbers are written with all their digits,
not with three decimals as published exporters do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bm_envs.cli import shortened
from bm_envs.errors import ConfigError, PolicyError, unknown_name
from bm_envs.policy import holosoma, unitree
from bm_envs.robots import g1, observation_terms
from bm_envs.robots.observation_terms import POLICY_TERMS, terms_of
from bm_envs.robots.registry import robot_named, robot_with_joints
from bm_envs.robots.robot import Robot

CONTROL_DT = 0.02  # s, one action and one frame of the motion
# Names under which other projects have the same terms.
OBSERVATION_ALIASES = {
    # motion_tracking_controller, MotionOnnxPolicy.cpp
    "motion_ref_pos_b": "motion_anchor_pos_b",
    "motion_ref_ori_b": "motion_anchor_ori_b",
    **unitree.UNITREE_TERMS,
    **holosoma.HOLOSOMA_TERMS,
}


def motion_outputs(robot: Robot = g1.G1) -> dict[str, tuple[int, ...]]:
    """The motion's outputs of a robot's policy: shape of one frame, K tracked bodies as -1."""
    return {
        "joint_pos": (robot.num_joints,),
        "joint_vel": (robot.num_joints,),
        "body_pos_w": (-1, 3),
        "body_quat_w": (-1, 4),
        "body_lin_vel_w": (-1, 3),
        "body_ang_vel_w": (-1, 3),
    }


MOTION_OUTPUTS = motion_outputs()  # of the G1
# Lowest and highest figure of a drive, whether the lowest itself is refused, and the unit. Wide:
# nothing of a G1 is near them, while figures of another unit or robot are beyond. What the robot
# itself is sent has closer ones, in `deploy`.
DRIVE_BOUNDS: dict[str, tuple[float, float, bool, str]] = {
    "joint_stiffness": (0.0, 1e4, True, "N m/rad"),
    "joint_damping": (0.0, 1e3, False, "N m s/rad"),
    "default_joint_pos": (-2 * np.pi, 2 * np.pi, False, "rad"),
    "action_scale": (0.0, 100.0, True, "rad"),
    "joint_effort_limit": (0.0, 1e4, True, "N m"),
}
PER_JOINT_KEYS = ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
REQUIRED_KEYS = ("joint_names", *PER_JOINT_KEYS, "observation_names")
# Keys that only mjlab writes; they say the same as ours for terms that have no history.
MJLAB_KEYS = (
    "observation_terms_scale",
    "observation_terms_flatten_history_dim",
    "observation_terms_history_length",
    "observation_terms_clip",
)
KNOWN_KEYS = (
    "run_path", *REQUIRED_KEYS, "joint_effort_limit", "command_names",
    "observation_history_lengths", "anchor_body_name", "body_names", "robot", *MJLAB_KEYS,
)  # fmt: skip


@dataclass(frozen=True)
class PolicySpec:
    """Everything about a policy but its weights; field names are the ONNX metadata's keys.

    Per-joint values are in the order of `joint_names`, which tell the robot. Raises `PolicyError`
    when a value does not fit a robot of `robots.registry` or this family of observations.
    """

    joint_names: tuple[str, ...]
    joint_stiffness: tuple[float, ...]
    """Stiffness kp of each joint, N m/rad."""
    joint_damping: tuple[float, ...]
    """Damping kd of each joint, N m s/rad."""
    default_joint_pos: tuple[float, ...]
    """Default angle q0 of each joint, rad."""
    action_scale: tuple[float, ...]
    """Joint target per unit of action, rad."""
    observation_names: tuple[str, ...] = POLICY_TERMS
    observation_history_lengths: tuple[int, ...] = ()
    """Time steps per term, 1 = this step alone; empty means 1 for all."""
    command_names: tuple[str, ...] = ("motion",)
    anchor_body_name: str = g1.ANCHOR_BODY
    body_names: tuple[str, ...] = g1.TRACKED_BODIES
    run_path: str = "none"
    extra: dict[str, str] = field(default_factory=dict)
    """Further metadata, verbatim."""
    joint_effort_limit: tuple[float, ...] = ()
    """Largest torque of each joint, N m; empty means the robot table's."""

    def __post_init__(self) -> None:
        if not self.observation_history_lengths:
            ones = (1,) * len(self.observation_names)
            object.__setattr__(self, "observation_history_lengths", ones)
        if robot_with_joints(self.joint_names) is None:
            odd = [name for name in self.joint_names if name not in g1.JOINT_NAMES]
            known = [name for name in g1.JOINT_NAMES if self.joint_names.count(name) > 1]
            advice = f", '{known[0]}' stands there more than once" if known else ""
            advice = f", '{shortened(odd[0], 60)}' is none of them" if odd else advice
            raise PolicyError(
                f"joint_names holds {len(self.joint_names)} names, expected the G1's "
                f"{g1.NUM_JOINTS} joints once each{advice}."
            )
        robot = self.robot
        if not self.joint_effort_limit:
            limits = robot.effort_limit[g1.order_map(robot.joint_names, self.joint_names)]
            object.__setattr__(self, "joint_effort_limit", tuple(map(float, limits)))
        for key in (*PER_JOINT_KEYS, "joint_effort_limit"):
            check_drive(key, getattr(self, key), self.joint_names)
        for name in self.observation_names:
            if name not in POLICY_TERMS:
                raise PolicyError(unknown_name("observation", shortened(name, 60), POLICY_TERMS))
        if not self.observation_names or len(set(self.observation_names)) < len(
            self.observation_names
        ):
            raise PolicyError("observation_names must name at least one term, and each one once.")
        if len(self.observation_history_lengths) != len(self.observation_names):
            raise PolicyError(
                f"observation_history_lengths holds {len(self.observation_history_lengths)} values "
                f"for {len(self.observation_names)} observation terms."
            )
        for name, length in zip(
            self.observation_names, self.observation_history_lengths, strict=True
        ):
            if length != 1:
                raise PolicyError(
                    f"Observation '{name}' wants a history of {length} steps, expected 1: "
                    "histories are not supported."
                )
        for name in self.body_names:
            if name not in robot.body_names:
                raise PolicyError(unknown_name("body", shortened(name, 60), robot.body_names))
        if len(set(self.body_names)) < len(self.body_names):
            raise PolicyError("body_names names a body twice.")
        if self.anchor_body_name not in self.body_names:
            raise PolicyError(
                f"anchor_body_name '{shortened(self.anchor_body_name, 60)}' is not in body_names."
            )
        if clash := sorted(set(self.extra) & set(KNOWN_KEYS)):
            raise PolicyError(f"extra metadata must not hold the standard key '{clash[0]}'.")

    @cached_property
    def robot(self) -> Robot:
        """The robot, by its joints."""
        robot = robot_with_joints(self.joint_names)
        assert robot is not None, "refused when it was made"
        return robot

    @classmethod
    def for_g1(
        cls, observation_names: Sequence[str] = POLICY_TERMS, *, robot: Robot = g1.G1,
        default_joint_pos: Sequence[float] | None = None,
        action_scale: Sequence[float] | None = None, stiffness: Sequence[float] | None = None,
        damping: Sequence[float] | None = None, run_path: str = "none",
        extra: Mapping[str, str] | None = None,
    ) -> PolicySpec:  # fmt: skip
        """A policy trained here: project joint order, and the robot table's values for None."""

        def values(figures: Sequence[float] | None, table: np.ndarray) -> tuple[float, ...]:
            return tuple(float(value) for value in (table if figures is None else figures))

        return cls(
            joint_names=robot.joint_names,
            joint_stiffness=values(stiffness, robot.stiffness),
            joint_damping=values(damping, robot.damping),
            default_joint_pos=values(default_joint_pos, robot.default_joint_pos),
            action_scale=values(action_scale, robot.action_scale),
            observation_names=tuple(observation_names),
            anchor_body_name=robot.anchor_body,
            body_names=robot.tracked_bodies,
            run_path=run_path,
            extra=dict(extra or {}),
        )

    @property
    def observation_size(self) -> int:
        return observation_terms.size(self.observation_names, self.robot)

    def observation_slices(self) -> dict[str, slice]:
        """Where each term lies in the observation vector."""
        return observation_terms.layout(self.observation_names, self.robot)

    def observation_index(self) -> np.ndarray:
        """Index `m [O]` with `policy_obs = obs[:, m]` for an `obs` with project joint order.

        Only values per joint move: both halves of `command`, `joint_pos`, `joint_vel`, `actions`.
        """
        joints = g1.order_map(self.robot.joint_names, self.joint_names)
        terms = terms_of(self.robot)
        index = np.arange(self.observation_size)
        for name, where in self.observation_slices().items():
            for block in range(terms[name].joint_blocks):
                start = where.start + block * len(joints)
                index[start : start + len(joints)] = start + joints
        return index

    def action_index(self) -> np.ndarray:
        """Index `m [J]` with `project_action = policy_action[:, m]`, for any value per joint."""
        return g1.order_map(self.joint_names, self.robot.joint_names)

    def in_project_order(self, key: str) -> tuple[float, ...]:
        """One of the per-joint fields in the project's joint order."""
        values = getattr(self, key)
        return tuple(float(values[i]) for i in self.action_index())

    def to_metadata(self) -> dict[str, str]:
        """ONNX metadata: lists joined by bare commas, every number with all its digits."""

        def joined(values: Sequence[Any]) -> str:
            return ",".join(value if isinstance(value, str) else repr(value) for value in values)

        terms = len(self.observation_names)
        metadata = {
            "run_path": self.run_path,
            "joint_names": joined(self.joint_names),
            **{
                key: joined([float(v) for v in getattr(self, key)])
                for key in (*PER_JOINT_KEYS, "joint_effort_limit")
            },
            "command_names": joined(self.command_names),
            "observation_names": joined(self.observation_names),
            "observation_history_lengths": joined(self.observation_history_lengths),
            "anchor_body_name": self.anchor_body_name,
            "body_names": joined(self.body_names),
            "observation_terms_scale": joined([1.0] * terms),
            "observation_terms_flatten_history_dim": joined([1] * terms),
            "observation_terms_history_length": joined([0] * terms),  # mjlab writes 0 for none
            "observation_terms_clip": joined(["-inf;inf"] * terms),
        }
        if self.robot is not g1.G1:  # which its files, older than the key, do without
            metadata["robot"] = self.robot.name
        return metadata | self.extra

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> PolicySpec:
        """Read metadata of this or another exporter; values are comma strings, lists or numbers.

        Keys that older exporters leave out get the value they stand for: one time step per term,
        command `motion`, anchor `torso_link`, the 14 tracked bodies.

        Raises:
            PolicyError: keys are missing, or a value cannot be what it should.
        """
        missing = [key for key in REQUIRED_KEYS if key not in metadata]
        if missing:
            raise PolicyError(
                f"metadata lacks {', '.join(missing)}; give them in a JSON file as the policy's "
                "config (--policy-config)."
            )

        def names(key: str, default: Sequence[str]) -> tuple[str, ...]:
            # Not trimmed: the robot's controller does not trim names either.
            return tuple(str(part) for part in _split(metadata.get(key, tuple(default))))

        def joints(key: str) -> tuple[float, ...]:
            values = tuple(_number(key, part) for part in _split(metadata[key]))
            is_one = len(values) == 1 and key == "action_scale"
            return values * len(joint_names) if is_one else values

        joint_names = names("joint_names", ())
        robot = robot_with_joints(joint_names) or g1.G1
        named = str(metadata.get("robot", robot.name))
        if named != robot.name:
            raise PolicyError(
                f"is for robot '{shortened(named, 60)}' by its metadata, but its "
                f"{len(joint_names)} joint_names are those of '{robot.name}'."
            )
        observations = tuple(
            OBSERVATION_ALIASES.get(name, name) for name in names("observation_names", ())
        )
        lengths: tuple[int, ...] = ()
        for key in ("observation_terms_history_length", "observation_history_lengths"):
            if key in metadata:
                lengths = tuple(max(1, _count(key, v)) for v in _split(metadata[key]))
        _refuse_processing(metadata)
        return cls(
            joint_names=joint_names,
            joint_stiffness=joints("joint_stiffness"),
            joint_damping=joints("joint_damping"),
            default_joint_pos=joints("default_joint_pos"),
            action_scale=joints("action_scale"),
            observation_names=observations,
            observation_history_lengths=lengths,
            command_names=names("command_names", ("motion",)),
            anchor_body_name=str(metadata.get("anchor_body_name", robot.anchor_body)),
            body_names=names("body_names", robot.tracked_bodies),
            run_path=str(metadata.get("run_path", "none")),
            joint_effort_limit=(
                joints("joint_effort_limit") if "joint_effort_limit" in metadata else ()
            ),
            extra={key: str(v) for key, v in metadata.items() if key not in KNOWN_KEYS},
        )


def check_drive(
    key: str, figures: Sequence[float] | np.ndarray, joint_names: Sequence[str] = g1.JOINT_NAMES
) -> None:
    """Refuse figures that no drive of the G1 can have, whatever unit they are meant in.

    Args:
        key: of `DRIVE_BOUNDS`.
        figures: a figure per joint.
        joint_names: their joints.

    Raises:
        PolicyError: not one for each joint, not finite, or out of bounds.
    """
    values = np.asarray(figures, float)
    if values.shape != (len(joint_names),):
        raise PolicyError(
            f"{key} holds {values.size} values, expected {len(joint_names)} finite numbers."
        )
    if not np.isfinite(values).all():
        raise PolicyError(f"{key} holds a value that is not finite.")
    low, high, is_above, unit = DRIVE_BOUNDS[key]
    wrong = (values < low) | (values > high) | ((values == low) & is_above)
    if wrong.any():
        joint = int(np.argmax(wrong))
        interval = f"above {low:g} and at most" if is_above else f"{low:g} to"
        raise PolicyError(
            f"{key} of {joint_names[joint]} is {values[joint]:g} {unit}, expected {interval} "
            f"{high:g}."
        )


MAX_VALUE = 2**16  # characters of a metadata value that is taken apart


def _split(value: Any) -> list[Any]:
    """Parts of a metadata value: a comma string as the reader splits it, a list, or one number."""
    if isinstance(value, (str, list)) and len(value) > MAX_VALUE:
        raise PolicyError(f"the metadata hold a list of {len(value)} characters or values.")
    if isinstance(value, str):
        return value.split(",") if value else []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _number(key: str, part: Any) -> float:
    try:
        # Python alone reads True and 1_0 as numbers.
        if isinstance(part, bool) or "_" in f"{part}":
            raise ValueError
        return float(part)
    except (OverflowError, TypeError, ValueError):
        raise PolicyError(f"{key} holds {shortened(repr(part), 60)}, expected a number.") from None


def _count(key: str, part: Any) -> int:
    """A whole number as any of the exporters writes it: `1`, `1.000`."""
    value = _number(key, part)
    if not (value.is_integer() and value >= 0):
        raise PolicyError(f"{key} holds {shortened(repr(part), 60)}, expected a whole number.")
    return int(value)


def _refuse_processing(metadata: Mapping[str, Any]) -> None:
    """Refuse scaled or clipped observations: this family has none, so they would be ignored."""

    def numbers(key: str) -> list[float]:
        parts = [str(v) for part in _split(metadata.get(key, ())) for v in _split(part)]
        return [_number(key, v) for part in parts for v in part.split(";") if v != "None"]

    for value in numbers("observation_terms_scale"):
        if value != 1:
            raise PolicyError(f"observation_terms_scale holds {value:g}, expected 1 throughout.")
    for value in numbers("observation_terms_clip"):
        if np.isfinite(value):
            raise PolicyError(f"observation_terms_clip holds {value:g}, expected no bounds.")


def robot_of_config(config: Mapping[str, Any]) -> Robot:
    """The robot of a run's `config.json`; the G1 where it names none.

    Raises:
        PolicyError: it names one that there is not.
    """
    task = config.get("task")
    model = task.get("model") if isinstance(task, dict) else None
    try:
        return robot_named(str((model if isinstance(model, dict) else {}).get("robot", "g1")))
    except ConfigError as error:
        raise PolicyError(f"task.model.robot: {error}") from None


def spec_from_config(config: Mapping[str, Any], run_path: str = "none") -> PolicySpec:
    """The spec of a run's policy from its `config.json`, whose `task` is the tracking config.

    Raises:
        PolicyError: the task's observations or drives are missing or malformed.
    """
    task = config.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("observations"), list):
        raise PolicyError("'task' with its list 'observations' is missing.")
    drives = task.get("actuation") or {}
    keys = ("default_joint_pos", "action_scale", "stiffness", "damping")
    if not isinstance(drives, dict):
        raise PolicyError("task.actuation must hold lists of numbers.")
    for key in keys:
        value = drives.get(key)
        plain = isinstance(value, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
        )
        if value is not None and not plain:
            raise PolicyError(f"task.actuation.{key} is no list of numbers.")
    names = [str(name) for name in task["observations"]]
    return PolicySpec.for_g1(
        names,
        robot=robot_of_config(config),
        run_path=run_path,
        **{key: drives.get(key) for key in keys},
    )


def observation_table(spec: PolicySpec) -> list[dict[str, Any]]:
    """The layout of the observation vector, term by term; `stop` is exclusive."""
    terms = terms_of(spec.robot)
    return [
        {
            "name": name,
            "start": where.start,
            "stop": where.stop,
            "size": where.stop - where.start,
            "frame": terms[name].frame,
            "unit": terms[name].unit,
            "meaning": terms[name].meaning,
        }
        for name, where in spec.observation_slices().items()
    ]
