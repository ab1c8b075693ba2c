"""What the files of the second stage share: drives, an ONNX file that is read, and `policy.json`.

A denoiser (`model.py`) and a policy of a guided task (`task_policy.py`) are ONNX files with a
`policy.json` beside them. Both, and the manifest of roll-outs (`rollouts.py`), state the drives
that turn an action into torques: the same action means another torque under other drives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from bm_envs import policy as policy_files
from bm_envs.cli import file_sha256, parse_json, versions, write_json
from bm_envs.errors import PolicyError
from bm_envs.policy import Kind
from bm_envs.robots import g1

FORMULA = "joint target (rad) = default_joint_pos + action_scale * action"
DRIVES = {
    "default_joint_pos": "default_joint_pos", "action_scale": "action_scale",
    "stiffness": "joint_stiffness", "damping": "joint_damping",
}  # fmt: skip
"""Names of the drives, and of the bounds that `policy.check_drive` holds each to."""

Drives = Mapping[str, Sequence[float] | np.ndarray]
"""`[29]` each of `DRIVES`, project order."""


def check_drive(name: str, values: Any) -> tuple[float, ...] | None:
    """The figures of the drive `name`, a joint each; None where they are no list of numbers.

    Raises:
        PolicyError: another number of values than joints, or values that no drive of the G1 has.
    """
    if not isinstance(values, list) or any(
        isinstance(value, bool) or not isinstance(value, (int, float)) for value in values
    ):
        return None
    policy_files.check_drive(DRIVES[name], values)
    return tuple(float(value) for value in values)


def drive_metadata(drives: Drives) -> dict[str, str]:
    """The drives as entries of an ONNX file's metadata."""
    return {name: json.dumps(values) for name, values in _plain(drives).items()}


def _plain(drives: Drives) -> dict[str, list[float]]:
    return {name: [float(value) for value in drives[name]] for name in DRIVES}


class NetworkFile:
    """An ONNX file of the second stage, ready to run.

    Attributes:
        path: the file.
        name: a short name for tables, without folders.
        sha256: of the file.
        drives: `[29]` each of `DRIVES`, project order: what `ActuationConfig` takes.
    """

    kind: ClassVar[Kind]
    """What its files are."""
    expected: ClassVar[str]
    """What its files are, in the message about a file of another kind."""

    path: Path
    name: str
    sha256: str
    drives: dict[str, tuple[float, ...]]

    def __init__(self, path: Path, threads: int, name: str | None = None) -> None:
        """Read, check and open the file: `read`, what the kind itself checks, then `open`.

        Args:
            path: the file.
            threads: of the runtime.
            name: for tables; None: the run's folder, or the file's name where it has one.
        """
        raise NotImplementedError

    def read(self, path: Path, name: str | None, **bounds: int) -> tuple[Any, dict[str, str]]:
        """Read the file, and check what files of both kinds state; returns model and metadata.

        Args:
            path: the file.
            name: for tables, see above.
            bounds: of the graph, as `policy.read_onnx` takes them.
        """
        self.path = path
        folder = path.resolve().parent.name
        self.name = name or ((folder or path.stem) if path.name == self.kind.file else path.stem)
        model = policy_files.read_onnx(path, **bounds)
        self.sha256 = file_sha256(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if metadata.get("format") != self.kind.format:
            raise PolicyError(
                f"its metadata lack format '{self.kind.format}', expected {self.expected}."
            )
        self.drives = {key: _drive(metadata, key) for key in DRIVES}
        return model, metadata

    def open(self, model: Any, threads: int) -> None:
        """Make the ONNX model ready for `run`."""
        self._session = policy_files.open_session(model, threads)

    @classmethod
    def load(cls, reference: str | Path, threads: int) -> Self:
        """Load the file that a reference names; see `policy.resolve_file`.

        Raises:
            PolicyError: unknown, unreadable or malformed; one sentence that names the file.
        """
        reference, name = policy_files.from_hub(reference)
        path = policy_files.resolve_file(reference, cls.kind)
        try:
            return cls(path, threads, name)
        except PolicyError as error:
            message = str(error)
            raise PolicyError(message if str(path) in message else f"{path}: {message}") from None

    def run(self, outputs: Sequence[str], **inputs: np.ndarray) -> list[np.ndarray]:
        """The named outputs of one call of the graph, for inputs by their names.

        Raises:
            PolicyError: the runtime cannot compute them.
        """
        try:
            return self._session.run(list(outputs), inputs)
        except Exception as error:  # the runtime's exceptions share no base but Exception
            line = str(error).strip().splitlines()[0]
            raise PolicyError(f"{self.path}: the network fails ({line}).") from None


def _drive(metadata: Mapping[str, str], name: str) -> tuple[float, ...]:
    """A drive of an ONNX file's metadata."""
    try:
        values = parse_json(metadata.get(name, ""))
    except ValueError:
        values = None
    if not isinstance(values, list) or len(values) != g1.NUM_JOINTS:
        values = None
    figures = check_drive(name, values)
    if figures is None:
        raise PolicyError(f"metadata '{name}' are not {g1.NUM_JOINTS} finite numbers.")
    return figures


def write_description(
    folder: Path, kind: Kind, drives: Drives, content: Mapping[str, Any], *,
    training: Mapping[str, Any], licence: str, formula: str = FORMULA,
    effort_limit: Sequence[float] | np.ndarray | None = None,
) -> None:  # fmt: skip
    """Write `policy.json` beside the kind's ONNX file: what the policy is, for people.

    Args:
        folder: of both files.
        kind: of the policy.
        drives: under which it acts.
        content: what only this kind's description says.
        training: figures of the training.
        licence: under which terms the weights may be used, one line.
        formula: from an action to what a joint does.
        effort_limit: bound of each joint's torque, N m, where the formula speaks of it.
    """
    action: dict[str, Any] = {
        "size": g1.NUM_JOINTS, "joint_names": list(g1.JOINT_NAMES), "formula": formula,
        **_plain(drives),
    }  # fmt: skip
    if effort_limit is not None:
        action["effort_limit"] = [float(value) for value in effort_limit]
    write_json(folder / "policy.json", {
        "format": kind.format,
        "robot": g1.LABEL,
        "control_dt_s": policy_files.CONTROL_DT,
        "network": {"file": kind.file, "sha256": file_sha256(folder / kind.file)},
        **content,
        "action": action,
        "licence": licence,
        "training": dict(training),
        "versions": versions(),
    })  # fmt: skip
