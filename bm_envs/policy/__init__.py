"""Policies as files: write, read and run ONNX networks of the BeyondMimic family.

A policy file is a network from an un-normalised observation to a raw action, with the reference
motion inside it where the motion's licence allows, and strings that say how observation and action
are laid out. `PolicySpec` is those strings, `MLP` a network as plain arrays, `write_onnx` puts both
into a file that `motion_tracking_controller` reads, and `load_policy` runs such files wherever they
were made, by whole_body_tracking and mjlab too. `docs/policy_files.md` describes the files.

Choices where published exporters differ or err:

* Numbers are written with all their digits, not with three decimals.
* `time_step` is clamped at both ends (published graphs clamp the upper one only), and an index
  past the last frame returns the last pose at rest (`hold_last_frame`), not in motion.
* The metadata keys of whole_body_tracking and of mjlab are both written.

Nothing here runs code from a file: weights are read with `weights_only=True`, graphs with loops,
branches or operators that the runtime does not ship are refused. `onnx`, `onnxruntime` and `torch`
are imported when a function needs them.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bm_envs import hub, observation_terms
from bm_envs import rotations as rot
from bm_envs.cli import (
    atomic_path,
    file_sha256,
    read_json,
    shortened,
    versions,
    write_json,
    zip_damage,
)
from bm_envs.errors import BMError, BMWarning, HubError, PolicyError, unknown_name
from bm_envs.observation_terms import POLICY_TERMS, TERMS
from bm_envs.policy import foreign
from bm_envs.policy import graph as graph_files
from bm_envs.policy.archive import check_archive
from bm_envs.robots import g1, kinematics

if TYPE_CHECKING:
    from bm_envs.motion.clip import Clip

CONTROL_DT = 0.02  # s, one action and one frame of the motion
OBS_SCALE_EPS = 0.01  # added to the standard deviation; source: rsl_rl's empirical normalisation
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "policies"
FORMAT = "bm-envs policy 1"
MOTION_REMOVED = "motion_removed_from_sha256"  # metadata key
VECTORS_FORMAT = "bm-envs test vectors 1"
# How near an action must come to a test vector's, of the case's largest one (at least of 1). Errors
# of n roundings add up like sqrt(n), and the largest network chains 160 + 512 + 256 + 128 products:
# 32 epsilons of float32. The shipped files' networks come within 10, whatever the order of sums.
ACTION_TOLERANCE = 32 * float(np.finfo(np.float32).eps)
OBSERVATION_TOLERANCE = 1e-6  # written in float64, taken in float32; angles, metres, rad/s near 1

# Names under which other projects have the same terms.
OBSERVATION_ALIASES = {
    # motion_tracking_controller, MotionOnnxPolicy.cpp
    "motion_ref_pos_b": "motion_anchor_pos_b",
    "motion_ref_ori_b": "motion_anchor_ori_b",
    **foreign.UNITREE_TERMS,
    **foreign.HOLOSOMA_TERMS,
}

MOTION_OUTPUTS: dict[str, tuple[int, ...]] = {  # shape of one frame, K tracked bodies written as -1
    "joint_pos": (g1.NUM_JOINTS,),
    "joint_vel": (g1.NUM_JOINTS,),
    "body_pos_w": (-1, 3),
    "body_quat_w": (-1, 4),
    "body_lin_vel_w": (-1, 3),
    "body_ang_vel_w": (-1, 3),
}

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
    "observation_history_lengths", "anchor_body_name", "body_names", *MJLAB_KEYS,
)  # fmt: skip


# --- what a policy is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicySpec:
    """Everything about a policy but its weights; field names are the ONNX metadata's keys.

    Per-joint values are in the order of `joint_names`. Raises `PolicyError` when a value does not
    fit the G1 or this family of observations.
    """

    joint_names: tuple[str, ...]
    joint_stiffness: tuple[float, ...]
    """kp, N m/rad."""
    joint_damping: tuple[float, ...]
    """kd, N m s/rad."""
    default_joint_pos: tuple[float, ...]
    """q0, rad."""
    action_scale: tuple[float, ...]
    """Radians of joint target per unit of action."""
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
    """Largest torque, N m; empty means the robot table's, as for files that do not tell."""

    def __post_init__(self) -> None:
        if not self.observation_history_lengths:
            ones = (1,) * len(self.observation_names)
            object.__setattr__(self, "observation_history_lengths", ones)
        if sorted(self.joint_names) != sorted(g1.JOINT_NAMES):
            odd = [name for name in self.joint_names if name not in g1.JOINT_NAMES]
            known = [name for name in g1.JOINT_NAMES if self.joint_names.count(name) > 1]
            advice = f", '{known[0]}' stands there more than once" if known else ""
            advice = f", '{shortened(odd[0], 60)}' is none of them" if odd else advice
            raise PolicyError(
                f"joint_names holds {len(self.joint_names)} names, expected the G1's "
                f"{g1.NUM_JOINTS} joints once each{advice}."
            )
        if not self.joint_effort_limit:
            limits = g1.EFFORT_LIMIT[g1.order_map(g1.JOINT_NAMES, self.joint_names)]
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
            if name not in g1.BODY_NAMES:
                raise PolicyError(unknown_name("body", shortened(name, 60), g1.BODY_NAMES))
        if len(set(self.body_names)) < len(self.body_names):
            raise PolicyError("body_names names a body twice.")
        if self.anchor_body_name not in self.body_names:
            raise PolicyError(
                f"anchor_body_name '{shortened(self.anchor_body_name, 60)}' is not in body_names."
            )
        if clash := sorted(set(self.extra) & set(KNOWN_KEYS)):
            raise PolicyError(f"extra metadata must not hold the standard key '{clash[0]}'.")

    @classmethod
    def for_g1(
        cls, observation_names: Sequence[str] = POLICY_TERMS, *,
        default_joint_pos: Sequence[float] | None = None,
        action_scale: Sequence[float] | None = None, stiffness: Sequence[float] | None = None,
        damping: Sequence[float] | None = None, run_path: str = "none",
        extra: Mapping[str, str] | None = None,
    ) -> PolicySpec:  # fmt: skip
        """A policy trained here: project joint order, and the robot table's values for None."""

        def values(given: Sequence[float] | None, table: np.ndarray) -> tuple[float, ...]:
            return tuple(float(value) for value in (table if given is None else given))

        return cls(
            joint_names=g1.JOINT_NAMES,
            joint_stiffness=values(stiffness, g1.STIFFNESS),
            joint_damping=values(damping, g1.DAMPING),
            default_joint_pos=values(default_joint_pos, g1.DEFAULT_JOINT_POS),
            action_scale=values(action_scale, g1.ACTION_SCALE),
            observation_names=tuple(observation_names),
            run_path=run_path,
            extra=dict(extra or {}),
        )

    @property
    def observation_size(self) -> int:
        return observation_terms.size(self.observation_names)

    def observation_slices(self) -> dict[str, slice]:
        """Where each term lies in the observation vector."""
        return observation_terms.layout(self.observation_names)

    def observation_index(self) -> np.ndarray:
        """Index `m [O]` with `policy_obs = obs[:, m]` for an `obs` with project joint order.

        Only values per joint move: both halves of `command`, `joint_pos`, `joint_vel`, `actions`.
        """
        joints = g1.order_map(g1.JOINT_NAMES, self.joint_names)
        index = np.arange(self.observation_size)
        for name, where in self.observation_slices().items():
            for block in range(TERMS[name].joint_blocks):
                start = where.start + block * g1.NUM_JOINTS
                index[start : start + g1.NUM_JOINTS] = start + joints
        return index

    def action_index(self) -> np.ndarray:
        """Index `m [29]` with `project_action = policy_action[:, m]`, for any value per joint."""
        return g1.order_map(self.joint_names, g1.JOINT_NAMES)

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
            return values * g1.NUM_JOINTS if len(values) == 1 and key == "action_scale" else values

        observations = tuple(
            OBSERVATION_ALIASES.get(name, name) for name in names("observation_names", ())
        )
        lengths: tuple[int, ...] = ()
        for key in ("observation_terms_history_length", "observation_history_lengths"):
            if key in metadata:
                lengths = tuple(max(1, _count(key, v)) for v in _split(metadata[key]))
        _refuse_processing(metadata)
        return cls(
            joint_names=names("joint_names", ()),
            joint_stiffness=joints("joint_stiffness"),
            joint_damping=joints("joint_damping"),
            default_joint_pos=joints("default_joint_pos"),
            action_scale=joints("action_scale"),
            observation_names=observations,
            observation_history_lengths=lengths,
            command_names=names("command_names", ("motion",)),
            anchor_body_name=str(metadata.get("anchor_body_name", g1.ANCHOR_BODY)),
            body_names=names("body_names", g1.TRACKED_BODIES),
            run_path=str(metadata.get("run_path", "none")),
            joint_effort_limit=(
                joints("joint_effort_limit") if "joint_effort_limit" in metadata else ()
            ),
            extra={key: str(v) for key, v in metadata.items() if key not in KNOWN_KEYS},
        )


def check_drive(
    key: str, given: Sequence[float] | np.ndarray, joint_names: Sequence[str] = g1.JOINT_NAMES
) -> None:
    """Refuse figures that no drive of the G1 can have, whatever unit they are meant in.

    Args:
        key: of `DRIVE_BOUNDS`.
        given: a figure per joint.
        joint_names: their joints.

    Raises:
        PolicyError: not 29, not finite, or out of bounds.
    """
    values = np.asarray(given, float)
    if values.shape != (g1.NUM_JOINTS,):
        raise PolicyError(
            f"{key} holds {values.size} values, expected {g1.NUM_JOINTS} finite numbers."
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


# --- the network ----------------------------------------------------------------------------------

_ONNX_ACTIVATIONS = {"elu": "Elu", "relu": "Relu", "tanh": "Tanh"}


@dataclass(frozen=True, eq=False)
class MLP:
    """A deterministic actor as float32 arrays, O observation values to 29 actions.

    `action = net((obs - obs_mean) / obs_scale)`, plus `(obs[:, :29] - residual_offset) /
    residual_scale` when these are given: the first 29 values of the observation are the reference
    joint positions, so the network then learns a correction to the reference pose.
    """

    obs_mean: np.ndarray
    """`[O]`."""
    obs_scale: np.ndarray
    """`[O]`, divided by."""
    weights: tuple[np.ndarray, ...]
    """`[out, in]` of each layer."""
    biases: tuple[np.ndarray, ...]
    """`[out]` of each layer."""
    activation: Literal["elu", "relu", "tanh"] = "elu"
    """Between layers; none after the last."""
    residual_offset: np.ndarray | None = None
    """`[29]`, rad."""
    residual_scale: np.ndarray | None = None
    """`[29]`, rad per unit of action."""

    def __post_init__(self) -> None:
        for name in ("obs_mean", "obs_scale", "residual_offset", "residual_scale"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        for name in ("weights", "biases"):
            arrays = tuple(np.asarray(array, np.float32) for array in getattr(self, name))
            object.__setattr__(self, name, arrays)
        if str(self.activation) not in _ONNX_ACTIVATIONS:
            raise PolicyError(unknown_name("activation", str(self.activation), _ONNX_ACTIVATIONS))
        if not self.weights or len(self.weights) != len(self.biases):
            raise PolicyError(
                f"The network has {len(self.weights)} weights and {len(self.biases)} biases, "
                "expected as many of each and at least one."
            )
        size = self.obs_mean.shape[0] if self.obs_mean.ndim == 1 else -1
        shapes: list[tuple[str, np.ndarray, tuple[int, ...]]] = [
            ("obs_mean", self.obs_mean, (size,)),
            ("obs_scale", self.obs_scale, (size,)),
        ]
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows = weight.shape[0] if weight.ndim == 2 else -1
            shapes += [(f"weight {i}", weight, (rows, size)), (f"bias {i}", bias, (rows,))]
            size = rows
        if (self.residual_offset is None) != (self.residual_scale is None):
            raise PolicyError("residual_offset and residual_scale go together, one is missing.")
        if self.residual_offset is not None and self.residual_scale is not None:
            shapes.append(("residual_offset", self.residual_offset, (g1.NUM_JOINTS,)))
            shapes.append(("residual_scale", self.residual_scale, (g1.NUM_JOINTS,)))
        for name, array, shape in shapes:
            if array.shape != shape:
                raise PolicyError(f"{name} has shape {array.shape}, expected {shape}.")
            if not np.isfinite(array).all():
                raise PolicyError(f"{name} holds a value that is not finite.")
        if (self.obs_scale <= 0).any():
            raise PolicyError("obs_scale holds a value that is not positive.")
        if size != g1.NUM_JOINTS:
            raise PolicyError(f"The network gives {size} actions, expected {g1.NUM_JOINTS}.")

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions `[N, 29]` for observations `[N, O]`; the reference the ONNX graph is held to."""
        x = (np.asarray(obs, np.float32) - self.obs_mean) / self.obs_scale
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if i < len(self.weights) - 1:
                x = self._activate(x)
        if self.residual_offset is not None:
            x = x + (obs[:, : g1.NUM_JOINTS] - self.residual_offset) / self.residual_scale
        return x.astype(np.float32)

    def _activate(self, x: np.ndarray) -> np.ndarray:
        if self.activation == "elu":
            return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
        return np.maximum(x, 0) if self.activation == "relu" else np.tanh(x)


def mlp_from_checkpoint(path: str | Path) -> MLP:
    """The actor of a training checkpoint (`checkpoint.pt`) or of a run directory.

    `config.json` beside it says which activation the network has and whether the reference pose is
    added to its output; the weights are read without running code.

    Raises:
        PolicyError: a file is missing or unreadable, or a tensor is missing or malformed.
    """
    path = Path(path)
    path = path / "checkpoint.pt" if path.is_dir() else path
    torch = need("torch")
    if not path.is_file():
        raise PolicyError(f"{path}: no such checkpoint.")
    config = read_run_config(path.parent)
    network = config.get("network")
    if not isinstance(network, dict):
        raise PolicyError(f"{path.parent / 'config.json'}: 'network' is missing or no object.")
    check_archive(path)
    try:
        if damage := zip_damage(path):
            raise ValueError(damage)
        with warnings.catch_warnings(action="ignore"):  # about pickles of other protocols
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        raise PolicyError(f"{path}: not a readable checkpoint ({_first_line(error)}).") from None
    actor = checkpoint.get("actor") if isinstance(checkpoint, dict) else None
    if not isinstance(actor, dict):
        raise PolicyError(f"{path}: holds no 'actor', expected a training checkpoint.")

    def tensor(key: str) -> np.ndarray:
        value: Any = actor.get(key)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise PolicyError(f"{path}: actor lacks the tensor '{key}'.")
        return value.detach().float().numpy()

    layers = 0
    while f"layers.{layers}.weight" in actor:
        layers += 1
    variance = tensor("obs_var")
    if (variance < 0).any():
        raise PolicyError(f"{path}: obs_var holds a negative value.")
    offset, scale = None, None
    if network.get("residual", False):
        try:
            spec = spec_from_config(config)
        except PolicyError as error:
            raise PolicyError(f"{path.parent / 'config.json'}: {error}") from None
        offset, scale = np.array(spec.default_joint_pos), np.array(spec.action_scale)
    mean = tensor("obs_mean")
    weights = tuple(tensor(f"layers.{i}.weight") for i in range(layers))
    biases = tuple(tensor(f"layers.{i}.bias") for i in range(layers))
    deviation = np.sqrt(variance) + OBS_SCALE_EPS
    try:
        return MLP(
            mean, deviation, weights, biases, network.get("activation", "elu"), offset, scale
        )
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def mlp_from_policy(path: str | Path) -> MLP:
    """The network inside a `policy.onnx` that `write_onnx` made.

    Raises:
        PolicyError: the file is unreadable or was made otherwise.
    """
    onnx = need("onnx")
    path = Path(path)
    model = read_onnx(path)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    layers = sum(re.fullmatch(r"weight_\d+", name) is not None for name in arrays)
    kinds = {node.op_type for node in model.graph.node}
    activations = [name for name, kind in _ONNX_ACTIVATIONS.items() if kind in kinds]
    try:
        return MLP(
            arrays["obs_mean"], arrays["obs_scale"],
            tuple(arrays[f"weight_{i}"] for i in range(layers)),
            tuple(arrays[f"bias_{i}"] for i in range(layers)),
            activations[0] if activations else "elu",  # type: ignore[arg-type]
            arrays.get("residual_offset"), arrays.get("residual_scale"),
        )  # fmt: skip
    except KeyError as error:
        raise PolicyError(
            f"{path}: holds no constant {error}, expected a policy that this project wrote."
        ) from None
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def training_figures(run: Path) -> dict[str, Any]:
    """What a finished run directory says of its training, as rows of result files have it."""
    training = read_policy_json(run / "policy.json").get("training") or {}
    keys = ("env_steps", "wall_s", "first_pass", "clip_protocol", "commit", "machine")
    if lacking := [key for key in keys if key not in training]:
        raise PolicyError(
            f"{run / 'policy.json'}: training lacks {', '.join(lacking)}; the run has not ended."
        )
    return {
        "env_steps": training["env_steps"], "wall_s": training["wall_s"],
        "first_pass": training["first_pass"] or None, "clip": training["clip_protocol"],
        "commit": training["commit"], "machine": training["machine"],
    }  # fmt: skip


def read_run_config(run_dir: str | Path) -> dict[str, Any]:
    """The resolved configuration a training run wrote, `config.json`."""
    path = Path(run_dir) / "config.json"
    value = read_json(path, PolicyError)
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: holds no object, expected a run's configuration.")
    return value


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
    return PolicySpec.for_g1(names, run_path=run_path, **{key: drives.get(key) for key in keys})


# --- writing --------------------------------------------------------------------------------------


def write_onnx(
    path: str | Path, mlp: MLP, spec: PolicySpec, clip: Clip | None, *,
    embed_motion: bool = True, hold_last_frame: bool = True,
) -> None:  # fmt: skip
    """Write a policy as the robot's controller loads it. The file appears whole or not at all.

    Inputs `obs [1, O]` and `time_step [1, 1]`, outputs `actions [1, 29]` and frame `time_step` of
    the motion (`joint_pos`, `joint_vel [1, 29]`, `body_pos_w [1, K, 3]`, `body_quat_w [1, K, 4]`
    wxyz, `body_lin_vel_w`, `body_ang_vel_w [1, K, 3]`), all float32 and of fixed shape; joints in
    the order of `spec.joint_names`, bodies in that of `spec.body_names`; velocities are those of
    the link origins. With T frames, indices below 0 give frame 0, and indices from T on give the
    last pose with zero velocities.

    Args:
        path: the file.
        mlp: the network; it takes and gives values per joint in the order of `spec.joint_names`.
        spec: the metadata.
        clip: the reference motion at 50 frames/s; None for a file that names none.
        embed_motion: False keeps `clip` out of the graph (licences) and only names it in the
            metadata; such a file has neither `time_step` nor the motion's outputs.
        hold_last_frame: False leaves the last frame, moving as it is, for all later indices.
    """
    onnx = need("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    if mlp.obs_mean.shape[0] != spec.observation_size:
        raise PolicyError(
            f"The network takes {mlp.obs_mean.shape[0]} values, its observation terms have "
            f"{spec.observation_size}."
        )
    if mlp.residual_offset is not None and spec.observation_names[0] != "command":
        raise PolicyError("A residual network needs 'command' as its first observation term.")
    nodes, constants = [], []

    def constant(name: str, array: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def tensor(name: str, shape: Sequence[int]) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))

    x = node("Sub", ["obs", constant("obs_mean", mlp.obs_mean)], "centered")
    x = node("Div", [x, constant("obs_scale", mlp.obs_scale)], "normalized")
    last = len(mlp.weights) - 1
    plain = mlp.residual_offset is None
    for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        inputs = [x, constant(f"weight_{i}", weight), constant(f"bias_{i}", bias)]
        x = node("Gemm", inputs, "actions" if i == last and plain else f"linear_{i}", transB=1)
        if i < last:
            x = node(_ONNX_ACTIVATIONS[mlp.activation], [x], f"hidden_{i}")
    if mlp.residual_offset is not None and mlp.residual_scale is not None:
        bounds = [
            constant("first", np.array([0])), constant("end", np.array([g1.NUM_JOINTS])),
            constant("axis", np.array([1])),
        ]  # fmt: skip
        reference = node("Slice", ["obs", *bounds], "reference_joint_pos")
        offset = constant("residual_offset", mlp.residual_offset)
        scale = constant("residual_scale", mlp.residual_scale)
        residual = node("Sub", [reference, offset], "reference_offset")
        node("Add", [x, node("Div", [residual, scale], "reference_action")], "actions")

    inputs = [tensor("obs", (1, spec.observation_size))]
    outputs = [tensor("actions", (1, g1.NUM_JOINTS))]
    metadata = spec.to_metadata()
    if clip is not None:
        metadata |= motion_metadata(clip, embedded=embed_motion)
    else:
        metadata |= {"motion_embedded": "0"}
    if clip is not None and embed_motion:
        tables = motion_tables(clip, spec)
        if hold_last_frame:
            tables = {name: _with_hold(name, table) for name, table in tables.items()}
        metadata["motion_hold_last_frame"] = str(int(hold_last_frame))
        top = np.array(len(tables["joint_pos"]) - 1, np.float32)
        # Clamped as a float, before the cast: a float beyond int64 has no defined cast.
        limits = [constant("first_frame", np.array(0, np.float32)), constant("last_frame", top)]
        index = node("Clip", ["time_step", *limits], "clamped_step")
        index = node("Cast", [index], "frame_column", to=onnx.TensorProto.INT64)
        index = node("Squeeze", [index, constant("last_axis", np.array([1]))], "frame")
        for name, table in tables.items():
            node("Gather", [constant(f"motion_{name}", table), index], name, axis=0)
            outputs.append(tensor(name, (1, *table.shape[1:])))
        inputs.append(tensor("time_step", (1, 1)))

    graph = helper.make_graph(nodes, "policy", inputs, outputs, constants)
    # Opset 17 and IR 8 (ONNX 1.12): every runtime since 2022 takes them, those on robots too.
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="bm-envs"
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def remove_motion(path: str | Path, out: str | Path) -> None:
    """Write a policy's file without the motion inside it; its actions are the same, bit for bit.

    The metadata keep the motion's name and digest where they tell them, and say what file this was
    made from (`MOTION_REMOVED`).

    Args:
        path: an ONNX file of this family, wherever it was made.
        out: the new file.
    """
    onnx = need("onnx")
    path = Path(path)
    model = read_onnx(path)
    nodes, needed = _upstream(model, "actions")
    graph = onnx.helper.make_graph(
        nodes, "policy", [value for value in model.graph.input if value.name == "obs"],
        [value for value in model.graph.output if value.name == "actions"],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )  # fmt: skip
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata.pop("motion_hold_last_frame", None)
    metadata |= {"motion_embedded": "0", MOTION_REMOVED: file_sha256(path)}
    model.graph.CopyFrom(graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(out) as temporary:
        temporary.write_bytes(model.SerializeToString())


def motion_metadata(clip: Clip, *, embedded: bool) -> dict[str, str]:
    """Metadata that names the motion a policy tracks, whether or not the file holds it."""
    return {
        "motion_embedded": str(int(embedded)),
        "motion_name": clip.name,
        "motion_sha256": clip.sha256(),
        "motion_frames": str(clip.num_frames),
        "motion_licence": clip.licence,
        "control_dt": repr(CONTROL_DT),
        "velocity_point": "link_origin",
    }


def motion_tables(clip: Clip, spec: PolicySpec) -> dict[str, np.ndarray]:
    """The clip as a policy file holds it: `[T, ...]` float32, the policy's joints and bodies."""
    if abs(clip.fps * CONTROL_DT - 1) > 1e-6:
        raise PolicyError(
            f"Motion '{clip.name}' has {clip.fps:g} frames/s, expected {1 / CONTROL_DT:g}: a "
            "controller plays one frame per control step."
        )
    joints = g1.order_map(g1.JOINT_NAMES, spec.joint_names)
    bodies = g1.order_map(g1.BODY_NAMES, spec.body_names)
    return {
        name: np.asarray(getattr(clip, name), np.float32)[:, bodies if -1 in shape else joints]
        for name, shape in MOTION_OUTPUTS.items()
    }


def _with_hold(name: str, table: np.ndarray) -> np.ndarray:
    """The table with one more frame: the last pose at rest."""
    still = np.zeros_like(table[-1:]) if "vel" in name else table[-1:]
    return np.concatenate([table, still])


def observation_table(spec: PolicySpec) -> list[dict[str, Any]]:
    """The layout of the observation vector, term by term; `stop` is exclusive."""
    return [
        {
            "name": name,
            "start": where.start,
            "stop": where.stop,
            "size": where.stop - where.start,
            "frame": TERMS[name].frame,
            "unit": TERMS[name].unit,
            "meaning": TERMS[name].meaning,
        }
        for name, where in spec.observation_slices().items()
    ]


def write_policy_json(
    path: str | Path, spec: PolicySpec, *, onnx_file: str | Path | None = None,
    motions: Sequence[Clip] = (), embedded: bool = False, licence: str = "",
    training: Mapping[str, Any] | None = None,
    evaluation: Sequence[Mapping[str, Any]] = (),
) -> None:  # fmt: skip
    """Write `policy.json`: what the policy is, for people and for programs.

    Args:
        path: the file; `load_policy` finds it under the ONNX file's name with the suffix `.json`.
        spec: layouts and gains.
        onnx_file: the network's file, whose name and SHA-256 are recorded.
        motions: the clips it was trained on; only their names, digests and licences are written.
        embedded: whether the ONNX file holds the motion.
        licence: under which terms the weights may be used, one line.
        training: figures such as `env_steps`, `wall_s`, `seed`, `num_envs`, `algorithm`.
        evaluation: rows as `benchmarks/track.py` writes them.
    """
    network = None
    if onnx_file is not None:
        digest = file_sha256(onnx_file)
        network = {"file": Path(onnx_file).name, "sha256": digest}
    write_json(
        path,
        {
            "format": FORMAT,
            "robot": "Unitree G1, 29 actuated joints",
            "control_dt_s": CONTROL_DT,
            "network": network,
            "observation": observation_table(spec),
            "observation_size": spec.observation_size,
            "action": {
                "size": g1.NUM_JOINTS,
                "formula": "joint target (rad) = default_joint_pos + action_scale * action; "
                "torque = stiffness * (target - q) - damping * qdot, within +-effort_limit",
                "joint_names": list(spec.joint_names),
                "default_joint_pos": list(spec.default_joint_pos),
                "action_scale": list(spec.action_scale),
                "stiffness": list(spec.joint_stiffness),
                "damping": list(spec.joint_damping),
                "effort_limit": list(spec.joint_effort_limit),
            },
            "anchor_body_name": spec.anchor_body_name,
            "body_names": list(spec.body_names),
            "motions": [
                {
                    "name": clip.name, "sha256": clip.sha256(), "frames": clip.num_frames,
                    "fps": clip.fps, "source": clip.source, "licence": clip.licence,
                    "embedded": embedded,
                }
                for clip in motions
            ],
            "licence": licence,
            "training": dict(training or {}),
            "evaluation": [dict(row) for row in evaluation],
            "versions": versions(),
        },
    )  # fmt: skip


def read_policy_json(path: str | Path) -> dict[str, Any]:
    """The content of a `policy.json`.

    Raises:
        PolicyError: no such file, no JSON, or another kind of JSON.
    """
    value = read_json(path, PolicyError)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise PolicyError(f"{path}: not a policy description, expected 'format': '{FORMAT}'.")
    check_description(path, value)
    return {key: item for key, item in value.items() if item is not None}


# What programs read of a description, and of which type it is; all of it may be missing.
_Kinds = dict[str, tuple[type | tuple[type, ...], str]]
_DESCRIPTION: _Kinds = {
    "network": (dict, "an object"), "training": (dict, "an object"), "action": (dict, "an object"),
    "motions": (list, "a list of objects"),
    "evaluation": ((list, dict), "a list of objects"),  # of guided policies: an object
    "licence": (str, "a text"),
}  # fmt: skip
_MOTION: _Kinds = {
    "name": (str, "a text"), "sha256": (str, "a text"), "licence": (str, "a text"),
    "frames": (int, "a whole number"),
}  # fmt: skip


def check_description(path: str | Path, value: Mapping[str, Any]) -> None:
    """Refuse a `policy.json` in which what programs read has another type than it should.

    It also serves those of guided policies and of diffusion models, which share these keys.

    Raises:
        PolicyError: one sentence that names the key.
    """

    def check(entry: Mapping[str, Any], known: _Kinds, about: str) -> None:
        for key, (kind, wanted) in known.items():
            found = entry.get(key)
            if found is not None and (not isinstance(found, kind) or isinstance(found, bool)):
                given = shortened(repr(found), 40)
                raise PolicyError(f"{path}: {about}{key} is {given}, expected {wanted}.")

    check(value, _DESCRIPTION, "")
    for key in ("motions", "evaluation"):
        entries = value.get(key) or []
        for i, entry in enumerate(entries if isinstance(entries, list) else []):
            if not isinstance(entry, dict):
                raise PolicyError(
                    f"{path}: {key}[{i}] is {shortened(repr(entry), 40)}, expected an object."
                )
            if key == "motions":
                check(entry, _MOTION, f"motions[{i}].")
                if "name" not in entry:
                    raise PolicyError(f"{path}: motions[{i}] has no name.")
    for key in ("file", "sha256"):
        found = (value.get("network") or {}).get(key)
        if found is not None and not isinstance(found, str):
            raise PolicyError(
                f"{path}: network.{key} is {shortened(repr(found), 40)}, expected a text."
            )


# --- test vectors ---------------------------------------------------------------------------------


def make_test_vectors(
    policy: Callable[[np.ndarray], np.ndarray], spec: PolicySpec, *, cases: int = 8, seed: int = 0
) -> dict[str, Any]:
    """States with the observation, action and joint target they must give.

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
    torso = g1.BODY_NAMES.index(spec.anchor_body_name)
    records = []
    for _ in range(cases):
        robot = {
            "root_pos_w": rng.normal([0, 0, 0.76], [1, 1, 0.05]),
            "root_quat_w": rot.quat_normalize(np.r_[1, rng.normal(0, [0.1, 0.1, 0.6])]),
            "root_lin_vel_w": rng.normal(0, 0.5, 3),
            "root_ang_vel_w": rng.normal(0, 0.5, 3),
            "joint_pos": default + rng.normal(0, 0.2, g1.NUM_JOINTS),
            "joint_vel": rng.normal(0, 1.0, g1.NUM_JOINTS),
            "last_action": rng.normal(0, 1.0, g1.NUM_JOINTS),
        }
        root_and_joints = (
            robot["root_pos_w"], robot["root_quat_w"], robot["joint_pos"][spec.action_index()]
        )  # fmt: skip
        links = kinematics.link_poses(*(value[None] for value in root_and_joints))
        torso_pos, torso_rot = links.pos[0, torso], rot.quat_to_matrix(links.quat[0, torso])
        reference = {
            "joint_pos": default + rng.normal(0, 0.2, g1.NUM_JOINTS),
            "joint_vel": rng.normal(0, 1.0, g1.NUM_JOINTS),
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


# --- reading and running --------------------------------------------------------------------------


class Policy:
    """A policy file, ready to run. Made by `load_policy`.

    Attributes:
        spec: layouts and gains.
        path: the ONNX file.
        name: a short name for tables, without folders.
        sha256: of the ONNX file.
        batched: whether a batch runs in one call (else row by row, for graphs that fix it to 1).
    """

    def __init__(
        self, path: Path, model: Any, metadata: Mapping[str, Any], threads: int,
        name: str | None = None, *, motion_outputs: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        folder = path.resolve().parent.name
        self.name = name or ((folder or path.stem) if path.stem == "policy" else path.stem)
        self.sha256 = file_sha256(path)
        self.spec = PolicySpec.from_metadata(metadata)
        self._motion_outputs = dict(motion_outputs or MOTION_OUTPUTS)
        self._inputs, self._outputs = _check_interface(model, self.spec, self._motion_outputs)
        self._model = model
        self._threads = threads
        self._session = open_session(model, threads)
        self._batch_session = None
        self.batched = False
        self._probe()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]` float32 for observations `[N, O]`, in the policy's joint order."""
        obs = np.ascontiguousarray(obs, np.float32)
        if obs.ndim != 2 or obs.shape[1] != self.spec.observation_size:
            raise PolicyError(
                f"{self.path}: got observations of shape {obs.shape}, expected "
                f"(N, {self.spec.observation_size})."
            )
        if self._batch_session is not None:
            return self._batch_session.run(["actions"], {"obs": obs})[0]
        return np.concatenate([self._single(row[None]) for row in obs])

    def _single(self, obs: np.ndarray, time_step: float = 0.0) -> np.ndarray:
        return self._run(["actions"], obs, time_step)[0]

    def _run(self, outputs: list[str], obs: np.ndarray, time_step: float) -> list[np.ndarray]:
        feed = {"obs": obs}
        if "time_step" in self._inputs:
            feed["time_step"] = np.array([[time_step]], np.float32)
        try:
            return self._session.run(outputs, feed)
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise PolicyError(f"{self.path}: the network fails ({_first_line(error)}).") from None

    def _probe(self) -> None:
        """Run some observations: actions must be finite, and a batch must equal its rows."""
        rng = np.random.default_rng(0)
        obs = rng.normal(size=(4, self.spec.observation_size)).astype(np.float32)
        obs[0] = 0
        singles = np.concatenate([self._single(row[None]) for row in obs])
        if singles.shape != (4, g1.NUM_JOINTS) or not np.isfinite(singles).all():
            raise PolicyError("the network's action is not finite or not of 29 values.")
        try:
            session = open_session(_actions_graph(self._model), self._threads)
            batch = session.run(["actions"], {"obs": obs})[0]
        except Exception:  # a graph that holds the batch size of 1 in other places: run row by row
            return
        # Same float32 products in another order.
        if batch.shape == singles.shape and np.allclose(batch, singles, rtol=1e-4, atol=1e-4):
            self._batch_session = session
            self.batched = True

    @cached_property
    def motion(self) -> dict[str, np.ndarray] | None:
        """The motion inside the file as its six outputs give it, `[T, ...]` each; None without one.

        Joints are in the policy's order, bodies as in `spec.body_names`. Read frame by frame
        through the graph's own `time_step`, without the resting frame that `write_onnx` adds.
        """
        if not set(self._motion_outputs) <= self._outputs or "time_step" not in self._inputs:
            return None
        frames = self._count_frames()
        self._check_motion_cost(frames)
        obs = np.zeros((1, self.spec.observation_size), np.float32)
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self._motion_outputs}
        for frame in range(frames):
            for name, value in zip(columns, self._run(list(columns), obs, frame), strict=True):
                columns[name].append(value[0])
        tables = {name: np.stack(column) for name, column in columns.items()}
        for name, table in tables.items():
            if not np.isfinite(table).all():
                raise PolicyError(f"{self.path}: {name} of its motion is not finite throughout.")
        if self._motion_outputs.keys() == foreign.HOLOSOMA_OUTPUTS.keys():
            if (np.abs(tables["ref_quat_xyzw"]).max(axis=1) < 1e-3).any():
                raise PolicyError(f"{self.path}: ref_quat_xyzw of its motion holds a zero.")
            names = self.spec.joint_names, self.spec.body_names
            return foreign.holosoma_motion(tables, *names, CONTROL_DT)
        return tables

    def _check_motion_cost(self, frames: int) -> None:
        """Refuse a motion whose frames are not looked up but computed, at a price."""
        nodes = {name: node for node in self._model.graph.node for name in node.output}
        costs = graph_files.check_bounds(need("onnx"), self._model)
        upstream = {n for name in self._motion_outputs for n in _upstream(self._model, name)[1]}
        upstream |= set(self._motion_outputs)
        work = frames * sum(costs[name] for name in upstream & nodes.keys())
        if work > graph_files.MAX_OPERATIONS:
            raise PolicyError(
                f"{self.path}: reading the {frames} frames of its motion takes about {work:.1e} "
                f"operations, expected at most {graph_files.MAX_OPERATIONS:.0e}."
            )

    def _count_frames(self) -> int:
        """Frames of the embedded motion: as the metadata says, else the joint table's length."""
        lengths = [
            dims[0]
            for dims in _constant_shapes(self._model, "joint_pos")
            if len(dims) == 2 and dims[1] == g1.NUM_JOINTS
        ]
        if not lengths:
            raise PolicyError(f"{self.path}: cannot tell how many frames the motion inside has.")
        stated = self.spec.extra.get("motion_frames", "")
        # Frames are counted by programs: nine digits are 231 days of them.
        frames = (
            min(int(stated), max(lengths)) if re.fullmatch("[0-9]{1,9}", stated) else max(lengths)
        )
        if frames < 1:
            raise PolicyError(f"{self.path}: the motion inside has no frame.")
        return frames

    @cached_property
    def clip(self) -> Clip | None:
        """The motion inside the file as a `Clip`, or None."""
        return None if self.motion is None else self.embedded_clip()

    def embedded_clip(self) -> Clip:
        """The motion inside the file as a `Clip` of all 30 bodies.

        Root pose, root velocity and joint values are the file's own; the other bodies follow by
        forward kinematics, so all linear velocities are those of link origins. (Files made with
        Isaac Lab hold velocities of centres of mass, except the pelvis's, which the converter took
        from finite differences of its origin.)

        Raises:
            PolicyError: the file holds no motion, or its links do not fit the G1's kinematics.
            MotionError: the motion is not what it says (`motion/checks.py`).
        """
        from bm_envs.motion.checks import check
        from bm_envs.motion.clip import KINEMATICS_TOLERANCE, Clip, foot_contacts
        from bm_envs.robots.kinematics import link_states

        motion, spec = self.motion, self.spec
        if motion is None:
            raise PolicyError(f"{self.path}: holds no motion; name one (--motion).")
        if g1.ROOT_BODY not in spec.body_names:
            raise PolicyError(f"{self.path}: its motion lacks the body '{g1.ROOT_BODY}'.")
        root = spec.body_names.index(g1.ROOT_BODY)
        order = spec.action_index()
        root_pos, root_quat = motion["body_pos_w"][:, root], motion["body_quat_w"][:, root]
        joint_pos, joint_vel = motion["joint_pos"][:, order], motion["joint_vel"][:, order]
        links = link_states(
            root_pos, root_quat, joint_pos, motion["body_lin_vel_w"][:, root],
            motion["body_ang_vel_w"][:, root], joint_vel,
        )  # fmt: skip
        tracked = g1.order_map(g1.BODY_NAMES, spec.body_names)
        off = float(np.abs(links.pos[:, tracked] - motion["body_pos_w"]).max())
        if not off <= KINEMATICS_TOLERANCE:
            raise PolicyError(
                f"{self.path}: the motion's links are up to {off:.2f} m from where the G1's joints "
                f"put them, expected at most {KINEMATICS_TOLERANCE} m; joint_names or body_names "
                "do not fit the motion."
            )
        clip = Clip(
            spec.extra.get("motion_name", self.name), 1 / CONTROL_DT, joint_pos, joint_vel, *links,
            foot_contacts(*links), source=f"inside the policy {self.name}",
            licence=spec.extra.get("motion_licence", "not stated; see the policy's own"),
        )  # fmt: skip
        return check(clip, f"{self.path}: the motion inside")

    @cached_property
    def info(self) -> dict[str, Any] | None:
        """The policy's description (`policy.json`: the ONNX file's name with `.json`), or None."""
        path = self.path.with_suffix(".json")
        if not path.is_file():
            return None
        value = read_json(path, PolicyError)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            return None
        check_description(path, value)
        return {key: item for key, item in value.items() if item is not None}


def named_motions(policy: Policy) -> list[dict[str, Any]]:
    """What the file or its description tells of the motions it was made for.

    Each with `name`, `sha256` and, where a description tells it, `frames`.
    """
    extra = policy.spec.extra
    if "motion_name" in extra:
        return [{"name": extra["motion_name"], "sha256": extra.get("motion_sha256")}]
    return list((policy.info or {}).get("motions") or [])


def named_clip(policy: Policy, told: Mapping[str, Any]) -> Clip:
    """The library's clip that an entry of `named_motions` names.

    Raises:
        PolicyError: it has another content by now.
    """
    from bm_envs.motion import library, procedural

    name = str(told["name"])
    # A name of the library, which is the stem of a file: a policy from elsewhere opens no paths.
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.isprintable():
        raise PolicyError(
            f"{policy.path}: was made for the motion '{shortened(name, 60)}', expected a name of "
            "the library; give --motion."
        )
    clip = library.load_motion(name)
    # A clip that is made when asked for differs in a few last digits between processors, so
    # its bytes tell nothing there; its length does, which follows from the commands.
    if procedural.is_drawn(clip.name):
        same = told.get("frames") in (None, clip.num_frames)
    else:
        same = told.get("sha256") in (None, clip.sha256())
    if not same:
        raise PolicyError(
            f"{policy.path}: was made for another version of motion '{clip.name}'; give --motion."
        )
    return clip


def load_policy(
    reference: str | Path, *, config: str | Path | None = None, threads: int = 1
) -> Policy:
    """Load a policy of this family, wherever it was made.

    Args:
        reference: a run directory (its `policy.onnx`), an ONNX file, the bare name of a policy that
            ships with the package, or one of the Hub, `hub:OWNER/NAME[@REVISION]`. An existing path
            wins over a shipped name.
        config: metadata that the file lacks, or that are to replace its own: a JSON object, or the
            `deploy.yaml` of unitree_rl_lab.
        threads: of the runtime.

    Raises:
        PolicyError: unknown, unreadable or malformed; one sentence that names the file.
    """
    reference, name = from_hub(reference)
    path = _resolve(reference)
    given = {} if config is None else _read_config(Path(config))
    model = read_onnx(path, most=graph_files.MAX_TRACKER_OPERATIONS)
    try:
        metadata = _metadata(model)
        outputs = MOTION_OUTPUTS
        if foreign.is_holosoma(metadata):
            widths = {
                v.name: v.type.tensor_type.shape.dim[-1].dim_value
                for v in model.graph.input
                if v.type.tensor_type.shape.dim
            }
            metadata, note = foreign.holosoma_metadata(metadata, widths, given)
            outputs = foreign.HOLOSOMA_OUTPUTS
            if note:
                warnings.warn(f"{path}: {note}.", BMWarning, stacklevel=2)
        metadata |= given
        if "observation_names" not in metadata and (beside := _deploy_yaml_of(path)):
            raise PolicyError(
                f"does not tell what it observes; {beside} may: give it as --policy-config."
            )
        return Policy(path, model, metadata, threads, name, motion_outputs=outputs)
    except BMError as error:
        message = str(error)
        raise PolicyError(message if str(path) in message else f"{path}: {message}") from None


def _metadata(model: Any) -> dict[str, Any]:
    """The file's metadata; a key that matters and stands there twice is refused."""
    found: dict[str, Any] = {}
    for entry in model.metadata_props:
        if entry.key in found and entry.key in (*KNOWN_KEYS, *foreign.HOLOSOMA_KEYS):
            raise PolicyError(f"the metadata hold {entry.key} twice.")
        found[entry.key] = entry.value
    return found


def _deploy_yaml_of(path: Path) -> Path | None:
    """The `deploy.yaml` that lies where Unitree's projects put it: `../params`, or beside."""
    folder = path.resolve().parent
    for candidate in (folder.parent / "params" / "deploy.yaml", folder / "deploy.yaml"):
        if candidate.is_file():
            return candidate
    return None


def shipped_policies() -> list[str]:
    """Names of the policies inside the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.onnx"))


def from_hub(reference: str | Path) -> tuple[str | Path, str | None]:
    """For a policy of the Hub its folder and its name in tables; any other as it is, and None.

    Raises:
        PolicyError: it cannot be had.
    """
    if not hub.is_reference(reference):
        return reference, None
    try:
        found = hub.fetch_policy(str(reference))
    except HubError as error:
        raise PolicyError(str(error)) from error
    return found.folder, found.name


def _resolve(reference: str | Path) -> Path:
    text = str(reference)
    path = Path(reference)
    if path.is_dir():
        if (path / "policy.onnx").is_file():
            return path / "policy.onnx"
        trained = (path / "checkpoint.pt").exists()
        advice = "; make it with tools/export_onnx.py" if trained else ""
        raise PolicyError(f"{path}: holds no policy.onnx, expected a run directory{advice}.")
    if path.exists():
        return path
    if re.fullmatch(r"\w+", text):
        if text in shipped_policies():
            return SHIPPED / f"{text}.onnx"
        advice = "Give a name, a run directory or an ONNX file."
        raise PolicyError(unknown_name("policy", text, shipped_policies(), advice))
    raise PolicyError(f"{text}: no such policy file or run directory.")


def read_onnx(path: Path, *, open_size: int = 1, most: int = graph_files.MAX_OPERATIONS) -> Any:
    """The parsed graph with all weights in memory, checked for what this family never holds.

    Nothing is run, and what running it may cost is bounded; see `graph`.

    Args:
        path: the file.
        open_size: for sizes of inputs that the graph leaves open, but for the first.
        most: operations of one call.

    Raises:
        PolicyError: no such file, unreadable, or a graph that no policy has.
    """
    onnx = need("onnx")
    if not path.is_file() or path.stat().st_size >= 2**31:
        raise PolicyError(f"{path}: not a regular file of less than 2 GiB.")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        graph_files.check_structure(onnx, model)
        graph_files.check_external(onnx, model, path.parent)
        # Refuses locations outside the file's own folder.
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
        graph_files.check_bounds(onnx, model, open_size=open_size, most=most)
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None
    except Exception as error:  # protobuf, onnx and the system raise many kinds for a bad file
        raise PolicyError(f"{path}: not a readable ONNX model ({_first_line(error)}).") from None
    return model


def _check_interface(
    model: Any, spec: PolicySpec, motion_outputs: Mapping[str, tuple[int, ...]]
) -> tuple[set[str], set[str]]:
    """Check names, types and shapes of inputs and outputs; returns both sets of names."""
    onnx = need("onnx")
    weights = {tensor.name for tensor in model.graph.initializer}

    def shapes(values: Any) -> dict[str, list[int | None]]:
        found = {}
        for value in values:
            if value.name in weights:  # old files list their weights among the inputs
                continue
            kind = value.type.tensor_type
            if kind.elem_type != onnx.TensorProto.FLOAT:
                raise PolicyError(f"'{value.name}' is not a float32 tensor.")
            found[value.name] = [
                dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim
            ]
        return found

    inputs, outputs = shapes(model.graph.input), shapes(model.graph.output)
    wanted: dict[str, tuple[int, ...]] = {"obs": (1, spec.observation_size), "time_step": (1, 1)}
    if "obs" not in inputs or set(inputs) - set(wanted):
        raise PolicyError(
            f"inputs are {', '.join(inputs) or 'none'}, expected 'obs' and perhaps 'time_step'."
        )
    if "actions" not in outputs:
        raise PolicyError(f"outputs are {', '.join(outputs) or 'none'}, expected 'actions' there.")
    wanted["actions"] = (1, g1.NUM_JOINTS)
    motion = [name for name in motion_outputs if name in outputs]
    if motion and (len(motion) < len(motion_outputs) or "time_step" not in inputs):
        absent = [name for name in motion_outputs if name not in outputs] or ["time_step"]
        raise PolicyError(f"the graph gives a motion but lacks '{absent[0]}'.")
    for name in motion:
        frame = motion_outputs[name]
        wanted[name] = (1, *(len(spec.body_names) if size == -1 else size for size in frame))
    for name, shape in (inputs | outputs).items():
        # A batch dimension may be open (None); all others must be what the metadata imply.
        expected = wanted.get(name)
        if expected is None:
            continue
        if len(shape) != len(expected) or shape[0] not in (1, None) or shape[1:] != [*expected[1:]]:
            got = [size if size is not None else "?" for size in shape]
            because = f" for the terms {', '.join(spec.observation_names)}" if name == "obs" else ""
            raise PolicyError(f"'{name}' has shape {got}, expected {[*expected]}{because}.")
    if "time_step" in _upstream(model, "actions")[1]:
        raise PolicyError("'actions' depends on 'time_step', expected on 'obs' alone.")
    return set(inputs), set(outputs)


def _upstream(model: Any, output: str) -> tuple[list[Any], set[str]]:
    """The nodes that `output` depends on, in graph order, and all value names they read."""
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    return nodes[::-1], needed


def _actions_graph(model: Any) -> Any:
    """The part of the graph between `obs` and `actions`, with an open batch dimension."""
    onnx = need("onnx")
    nodes, needed = _upstream(model, "actions")
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    float32, make = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    size = next(v for v in model.graph.input if v.name == "obs").type.tensor_type.shape.dim[1]
    graph = onnx.helper.make_graph(
        nodes, "actions", [make("obs", float32, ["N", size.dim_value])],
        [make("actions", float32, ["N", g1.NUM_JOINTS])], weights,
    )  # fmt: skip
    batch = onnx.ModelProto()
    batch.CopyFrom(model)
    batch.graph.CopyFrom(graph)
    return batch


def _constant_shapes(model: Any, output: str) -> list[tuple[int, ...]]:
    """Shapes of the constants that `output` is computed from."""
    nodes, needed = _upstream(model, output)
    shapes = [tuple(t.dims) for t in model.graph.initializer if t.name in needed]
    for node in nodes:
        if node.op_type == "Constant":
            shapes += [tuple(a.t.dims) for a in node.attribute if a.name == "value"]
    return shapes


def open_session(model: Any, threads: int) -> Any:
    """A runtime session on the CPU, silent about its warnings."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise PolicyError(f"the runtime refuses the graph ({_first_line(error)}).") from None


def _read_config(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return foreign.read_deploy_yaml(path, CONTROL_DT)
    value = read_json(path, PolicyError)
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: holds no object, expected keys as in the ONNX metadata.")
    for key in value:
        if key not in KNOWN_KEYS:
            raise PolicyError(
                f"{path}: {unknown_name('metadata key', shortened(key, 60), KNOWN_KEYS)}"
            )
    return value


def need(package: str) -> Any:
    """Import a package that only policy files need."""
    try:
        return importlib.import_module(package)
    except ImportError:
        extra = "train" if package == "torch" else "deploy"
        raise PolicyError(
            f"Policy files need the package {package}: pip install 'bm-envs[{extra}]'."
        ) from None


def _first_line(error: BaseException) -> str:
    return shortened(str(error)) or type(error).__name__
