"""`policy.json`: what a policy is, for people and for programs that do not read ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bm_envs.cli import file_sha256, read_json, shortened, versions, write_json
from bm_envs.errors import PolicyError
from bm_envs.policy.resolve import TRACKER
from bm_envs.policy.spec import CONTROL_DT, PolicySpec, observation_table

if TYPE_CHECKING:
    from bm_envs.motion.clip import Clip
    from bm_envs.policy.load import Policy


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
            "format": TRACKER.format,
            "robot": spec.robot.label,
            "control_dt_s": CONTROL_DT,
            "network": network,
            "observation": observation_table(spec),
            "observation_size": spec.observation_size,
            "action": {
                "size": spec.robot.num_joints,
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


def check_is_of_g1(policy: Policy, what: str) -> None:
    """Refuse a policy for another robot than the G1, with its 29 joints, where only that one is.

    Args:
        policy: the policy.
        what: is for the G1 alone; the sentence begins with it.

    Raises:
        PolicyError: it is for another.
    """
    robot = policy.spec.robot
    if robot.name != "g1":
        raise PolicyError(
            f"{policy.path}: is for robot {robot.name} ({robot.label}), but {what} have g1 alone; "
            "bm-envs sim2sim and track take every robot."
        )


def read_policy_json(path: str | Path) -> dict[str, Any]:
    """The content of a `policy.json`.

    Raises:
        PolicyError: no such file, no JSON, or another kind of JSON.
    """
    value = read_json(path, PolicyError)
    if not isinstance(value, dict) or value.get("format") != TRACKER.format:
        raise PolicyError(
            f"{path}: not a policy description, expected 'format': '{TRACKER.format}'."
        )
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
        for key, (kind, expected) in known.items():
            entry_value = entry.get(key)
            if entry_value is not None and (
                not isinstance(entry_value, kind) or isinstance(entry_value, bool)
            ):
                actual = shortened(repr(entry_value), 40)
                raise PolicyError(f"{path}: {about}{key} is {actual}, expected {expected}.")

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
        actual = (value.get("network") or {}).get(key)
        if actual is not None and not isinstance(actual, str):
            raise PolicyError(
                f"{path}: network.{key} is {shortened(repr(actual), 40)}, expected a text."
            )


def check_network(path: str | Path, value: Mapping[str, Any], file: str, digest: str) -> None:
    """Refuse a `policy.json` that is about another network than the file it lies beside.

    Args:
        path: the `policy.json`.
        value: its content.
        file: name of the ONNX file.
        digest: SHA-256 of the ONNX file.

    Raises:
        PolicyError: it tells another digest.
    """
    described = (value.get("network") or {}).get("sha256")
    if described not in (None, digest):
        raise PolicyError(
            f"{path}: is about a network with SHA-256 {described[:12]}..., but {file} has "
            f"{digest[:12]}..."
        )


def training_figures(run: Path) -> dict[str, Any]:
    """What a finished run directory says of its training, as rows of result files have it."""
    path = run / "policy.json"
    training = finished_training(path, read_policy_json(path))
    return {
        "env_steps": training["env_steps"], "wall_s": training["wall_s"],
        "first_pass": training["first_pass"] or None, "clip": training["clip_protocol"],
        "commit": training["commit"], "machine": training["machine"],
    }  # fmt: skip


def finished_training(path: str | Path, value: Mapping[str, Any]) -> dict[str, Any]:
    """`training` of the `policy.json` at `path` with this content.

    Raises:
        PolicyError: it lacks what is written when a run ends.
    """
    training = value.get("training") or {}
    keys = ("env_steps", "wall_s", "first_pass", "clip_protocol", "commit", "machine")
    if lacking := [key for key in keys if key not in training]:
        raise PolicyError(f"{path}: training lacks {', '.join(lacking)}; the run has not ended.")
    return training


def read_run_config(run_dir: str | Path) -> dict[str, Any]:
    """The resolved configuration a training run wrote, `config.json`."""
    path = Path(run_dir) / "config.json"
    value = read_json(path, PolicyError)
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: holds no object, expected a run's configuration.")
    return value
