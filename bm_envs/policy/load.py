"""Read and run trackers of this project, of whole_body_tracking, of mjlab and of others."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bm_envs.cli import file_sha256, read_json, shortened
from bm_envs.errors import BMError, BMWarning, PolicyError, unknown_name
from bm_envs.policy import graph as graph_files
from bm_envs.policy import holosoma, unitree
from bm_envs.policy.description import check_description
from bm_envs.policy.resolve import TRACKER, from_hub, resolve_file
from bm_envs.policy.session import (
    actions_graph,
    constant_shapes,
    first_line,
    need,
    open_session,
    read_onnx,
    upstream,
)
from bm_envs.policy.spec import CONTROL_DT, KNOWN_KEYS, PolicySpec, motion_outputs
from bm_envs.robots.robot import order_map

if TYPE_CHECKING:
    from bm_envs.motion.clip import Clip


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
        name: str | None = None, *, outputs: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.path = path
        folder = path.resolve().parent.name
        self.name = name or ((folder or path.stem) if path.stem == "policy" else path.stem)
        self.sha256 = file_sha256(path)
        self.spec = PolicySpec.from_metadata(metadata)
        self._motion_outputs = dict(outputs or motion_outputs(self.spec.robot))
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
            raise PolicyError(f"{self.path}: the network fails ({first_line(error)}).") from None

    def _probe(self) -> None:
        """Run some observations: actions must be finite, and a batch must equal its rows."""
        rng = np.random.default_rng(0)
        obs = rng.normal(size=(4, self.spec.observation_size)).astype(np.float32)
        obs[0] = 0
        singles = np.concatenate([self._single(row[None]) for row in obs])
        joints = self.spec.robot.num_joints
        if singles.shape != (4, joints) or not np.isfinite(singles).all():
            raise PolicyError(f"the network's action is not finite or not of {joints} values.")
        try:
            session = open_session(actions_graph(self._model), self._threads)
            batch = session.run(["actions"], {"obs": obs})[0]
        except Exception:  # a graph that holds the batch size of 1 in other places: run row by row
            return
        # Both add the same float32 products, in another order.
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
        if self._motion_outputs.keys() == holosoma.HOLOSOMA_OUTPUTS.keys():
            if (np.abs(tables["ref_quat_xyzw"]).max(axis=1) < 1e-3).any():
                raise PolicyError(f"{self.path}: ref_quat_xyzw of its motion holds a zero.")
            names = self.spec.joint_names, self.spec.body_names
            return holosoma.holosoma_motion(tables, *names, CONTROL_DT)
        return tables

    def _check_motion_cost(self, frames: int) -> None:
        """Refuse a motion whose frames are not read from tables but computed at a high cost."""
        nodes = {name: node for node in self._model.graph.node for name in node.output}
        costs = graph_files.check_bounds(need("onnx"), self._model)
        needed = {n for name in self._motion_outputs for n in upstream(self._model, name)[1]}
        needed |= set(self._motion_outputs)
        work = frames * sum(costs[name] for name in needed & nodes.keys())
        if work > graph_files.MAX_OPERATIONS:
            raise PolicyError(
                f"{self.path}: reading the {frames} frames of its motion takes about {work:.1e} "
                f"operations, expected at most {graph_files.MAX_OPERATIONS:.0e}."
            )

    def _count_frames(self) -> int:
        """Frames of the embedded motion, by the metadata or by the length of the joint table."""
        lengths = [
            dims[0]
            for dims in constant_shapes(self._model, "joint_pos")
            if len(dims) == 2 and dims[1] == self.spec.robot.num_joints
        ]
        if not lengths:
            raise PolicyError(f"{self.path}: cannot tell how many frames the motion inside has.")
        stated = self.spec.extra.get("motion_frames", "")
        # Programs count these frames: nine digits of them are 231 days of motion.
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
        """The motion inside the file as a `Clip` of all bodies.

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
        robot = spec.robot
        if robot.root_body not in spec.body_names:
            raise PolicyError(f"{self.path}: its motion lacks the body '{robot.root_body}'.")
        root = spec.body_names.index(robot.root_body)
        order = spec.action_index()
        root_pos, root_quat = motion["body_pos_w"][:, root], motion["body_quat_w"][:, root]
        joint_pos, joint_vel = motion["joint_pos"][:, order], motion["joint_vel"][:, order]
        links = link_states(
            root_pos, root_quat, joint_pos, motion["body_lin_vel_w"][:, root],
            motion["body_ang_vel_w"][:, root], joint_vel, robot,
        )  # fmt: skip
        tracked = order_map(robot.body_names, spec.body_names)
        off = float(np.abs(links.pos[:, tracked] - motion["body_pos_w"]).max())
        if not off <= KINEMATICS_TOLERANCE:
            raise PolicyError(
                f"{self.path}: the motion's links are up to {off:.2f} m from where the G1's joints "
                f"put them, expected at most {KINEMATICS_TOLERANCE} m; joint_names or body_names "
                "do not fit the motion."
            )
        clip = Clip(
            spec.extra.get("motion_name", self.name), 1 / CONTROL_DT, joint_pos, joint_vel, *links,
            foot_contacts(*links, robot=robot), source=f"inside the policy {self.name}",
            licence=spec.extra.get("motion_licence", "not stated; see the policy's own"),
            robot=robot,
        )  # fmt: skip
        return check(clip, f"{self.path}: the motion inside")

    @cached_property
    def info(self) -> dict[str, Any] | None:
        """The policy's description (`policy.json`: the ONNX file's name with `.json`), or None."""
        path = self.path.with_suffix(".json")
        if not path.is_file():
            return None
        value = read_json(path, PolicyError)
        if not isinstance(value, dict) or value.get("format") != TRACKER.format:
            return None
        check_description(path, value)
        return {key: item for key, item in value.items() if item is not None}


def named_motions(policy: Policy) -> list[dict[str, Any]]:
    """The motions that a policy was made for, by its file or its description.

    Each has `name`, `sha256` and, if a description holds it, `frames`.
    """
    extra = policy.spec.extra
    if "motion_name" in extra:
        return [{"name": extra["motion_name"], "sha256": extra.get("motion_sha256")}]
    return list((policy.info or {}).get("motions") or [])


def named_clip(policy: Policy, entry: Mapping[str, Any]) -> Clip:
    """The library's clip that an entry of `named_motions` names.

    Raises:
        PolicyError: it has another content by now.
    """
    from bm_envs.motion import library
    from bm_envs.motion.on_robot import on_robot

    name = str(entry["name"])
    # Only a name of the library is taken: a policy of somebody else must not open paths.
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.isprintable():
        raise PolicyError(
            f"{policy.path}: was made for the motion '{shortened(name, 60)}', expected a name of "
            "the library; give --motion."
        )
    clip = on_robot(library.load_motion(name), policy.spec.robot)
    # The bytes of a clip that is computed tell nothing on another processor; its length does.
    if library.is_computed(clip.name):
        same = entry.get("frames") in (None, clip.num_frames)
    else:
        same = entry.get("sha256") in (None, clip.sha256())
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
            ships, or one of the Hub, `hub:OWNER/NAME[@REVISION]`. An existing path wins over a
            shipped name.
        config: metadata that the file lacks, or that are to replace its own: a JSON object, or the
            `deploy.yaml` of unitree_rl_lab.
        threads: of the runtime.

    Raises:
        PolicyError: unknown, unreadable or malformed; one sentence that names the file.
    """
    reference, name = from_hub(reference)
    path = resolve_file(reference, TRACKER)
    by_user = {} if config is None else _read_config(Path(config))
    model = read_onnx(path, most=graph_files.MAX_TRACKER_OPERATIONS)
    try:
        metadata = _metadata(model)
        outputs = None
        if holosoma.is_holosoma(metadata):
            widths = {
                v.name: v.type.tensor_type.shape.dim[-1].dim_value
                for v in model.graph.input
                if v.type.tensor_type.shape.dim
            }
            metadata, note = holosoma.holosoma_metadata(metadata, widths, by_user)
            outputs = holosoma.HOLOSOMA_OUTPUTS
            if note:
                warnings.warn(f"{path}: {note}.", BMWarning, stacklevel=2)
        metadata |= by_user
        if "observation_names" not in metadata and (beside := _deploy_yaml_of(path)):
            raise PolicyError(
                f"does not tell what it observes; {beside} may: give it as --policy-config."
            )
        return Policy(path, model, metadata, threads, name, outputs=outputs)
    except BMError as error:
        message = str(error)
        raise PolicyError(message if str(path) in message else f"{path}: {message}") from None


def _metadata(model: Any) -> dict[str, Any]:
    """The file's metadata; a key that matters and stands there twice is refused."""
    entries: dict[str, Any] = {}
    for entry in model.metadata_props:
        if entry.key in entries and entry.key in (*KNOWN_KEYS, *holosoma.HOLOSOMA_KEYS):
            raise PolicyError(f"the metadata hold {entry.key} twice.")
        entries[entry.key] = entry.value
    return entries


def _deploy_yaml_of(path: Path) -> Path | None:
    """The `deploy.yaml` that lies where Unitree's projects put it: `../params`, or beside."""
    folder = path.resolve().parent
    for candidate in (folder.parent / "params" / "deploy.yaml", folder / "deploy.yaml"):
        if candidate.is_file():
            return candidate
    return None


def _check_interface(
    model: Any, spec: PolicySpec, motion: Mapping[str, tuple[int, ...]]
) -> tuple[set[str], set[str]]:
    """Check names, types and shapes of inputs and outputs; returns both sets of names."""
    onnx = need("onnx")
    weights = {tensor.name for tensor in model.graph.initializer}

    def shapes(values: Any) -> dict[str, list[int | None]]:
        sizes = {}
        for value in values:
            if value.name in weights:  # old files list their weights among the inputs
                continue
            kind = value.type.tensor_type
            if kind.elem_type != onnx.TensorProto.FLOAT:
                raise PolicyError(f"'{value.name}' is not a float32 tensor.")
            sizes[value.name] = [
                dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim
            ]
        return sizes

    inputs, outputs = shapes(model.graph.input), shapes(model.graph.output)
    known: dict[str, tuple[int, ...]] = {"obs": (1, spec.observation_size), "time_step": (1, 1)}
    if "obs" not in inputs or set(inputs) - set(known):
        raise PolicyError(
            f"inputs are {', '.join(inputs) or 'none'}, expected 'obs' and perhaps 'time_step'."
        )
    if "actions" not in outputs:
        raise PolicyError(f"outputs are {', '.join(outputs) or 'none'}, expected 'actions' there.")
    known["actions"] = (1, spec.robot.num_joints)
    present = [name for name in motion if name in outputs]
    if present and (len(present) < len(motion) or "time_step" not in inputs):
        absent = [name for name in motion if name not in outputs] or ["time_step"]
        raise PolicyError(f"the graph gives a motion but lacks '{absent[0]}'.")
    for name in present:
        frame = motion[name]
        known[name] = (1, *(len(spec.body_names) if size == -1 else size for size in frame))
    for name, shape in (inputs | outputs).items():
        # A batch dimension may be open (None); all others must be what the metadata imply.
        expected = known.get(name)
        if expected is None:
            continue
        if len(shape) != len(expected) or shape[0] not in (1, None) or shape[1:] != [*expected[1:]]:
            got = [size if size is not None else "?" for size in shape]
            because = f" for the terms {', '.join(spec.observation_names)}" if name == "obs" else ""
            raise PolicyError(f"'{name}' has shape {got}, expected {[*expected]}{because}.")
    if "time_step" in upstream(model, "actions")[1]:
        raise PolicyError("'actions' depends on 'time_step', expected on 'obs' alone.")
    return set(inputs), set(outputs)


def _read_config(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return unitree.read_deploy_yaml(path, CONTROL_DT)
    value = read_json(path, PolicyError)
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: holds no object, expected keys as in the ONNX metadata.")
    for key in value:
        if key not in KNOWN_KEYS:
            raise PolicyError(
                f"{path}: {unknown_name('metadata key', shortened(key, 60), KNOWN_KEYS)}"
            )
    return value
