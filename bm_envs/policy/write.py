"""Write a policy as a file that `motion_tracking_controller` loads on the robot.

Choices where published exporters differ or err: `time_step` is clamped at both ends (published
graphs clamp the upper one only), and an index past the last frame returns the last pose at rest
(`hold_last_frame`), not in motion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bm_envs.cli import atomic_path, file_sha256
from bm_envs.errors import PolicyError
from bm_envs.policy.network import MLP, ONNX_ACTIVATIONS
from bm_envs.policy.session import need, read_onnx, upstream
from bm_envs.policy.spec import CONTROL_DT, PolicySpec, motion_outputs
from bm_envs.robots.robot import order_map

if TYPE_CHECKING:
    from bm_envs.motion.clip import Clip

MOTION_REMOVED = "motion_removed_from_sha256"  # metadata key


class GraphBuilder:
    """An ONNX graph under construction, in the versions that every runtime since 2022 takes."""

    def __init__(self) -> None:
        self.onnx = need("onnx")
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add an array; returns its name."""
        array = np.ascontiguousarray(array)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add an operator; returns its output's name."""
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def tensor(self, name: str, shape: Sequence[int | str]) -> Any:
        """A float32 input or output; a text in `shape` is an open size."""
        float32 = self.onnx.TensorProto.FLOAT
        return self.onnx.helper.make_tensor_value_info(name, float32, list(shape))

    def network(self, mlp: MLP) -> None:
        """Add a network from `obs` to `actions`."""
        constant, node = self.constant, self.node
        x = node("Sub", ["obs", constant("obs_mean", mlp.obs_mean)], "centered")
        x = node("Div", [x, constant("obs_scale", mlp.obs_scale)], "normalized")
        last = len(mlp.weights) - 1
        plain = mlp.residual_offset is None
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            inputs = [x, constant(f"weight_{i}", weight), constant(f"bias_{i}", bias)]
            x = node("Gemm", inputs, "actions" if i == last and plain else f"linear_{i}", transB=1)
            if i < last:
                x = node(ONNX_ACTIVATIONS[mlp.activation], [x], f"hidden_{i}")
        if mlp.residual_offset is not None and mlp.residual_scale is not None:
            bounds = [
                constant("first", np.array([0])),
                constant("end", np.array([len(mlp.residual_offset)])),
                constant("axis", np.array([1])),
            ]  # fmt: skip
            reference = node("Slice", ["obs", *bounds], "reference_joint_pos")
            offset = constant("residual_offset", mlp.residual_offset)
            scale = constant("residual_scale", mlp.residual_scale)
            residual = node("Sub", [reference, offset], "reference_offset")
            node("Add", [x, node("Div", [residual, scale], "reference_action")], "actions")

    def save(
        self, path: str | Path, inputs: Sequence[Any], outputs: Sequence[Any],
        metadata: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Write the file, whole or not at all."""
        onnx = self.onnx
        graph = onnx.helper.make_graph(
            self.nodes, "policy", list(inputs), list(outputs), self.constants
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8,
            producer_name="bm-envs",
        )  # fmt: skip
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(model.SerializeToString())


def write_onnx(
    path: str | Path, mlp: MLP, spec: PolicySpec, clip: Clip | None, *,
    embed_motion: bool = True, hold_last_frame: bool = True,
) -> None:  # fmt: skip
    """Write a policy as the robot's controller loads it. The file appears whole or not at all.

    Inputs `obs [1, O]` and `time_step [1, 1]`, outputs `actions [1, J]` and frame `time_step` of
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
    if mlp.obs_mean.shape[0] != spec.observation_size:
        raise PolicyError(
            f"The network takes {mlp.obs_mean.shape[0]} values, its observation terms have "
            f"{spec.observation_size}."
        )
    if mlp.residual_offset is not None and spec.observation_names[0] != "command":
        raise PolicyError("A residual network needs 'command' as its first observation term.")
    graph = GraphBuilder()
    graph.network(mlp)
    constant, node, tensor = graph.constant, graph.node, graph.tensor
    inputs = [tensor("obs", (1, spec.observation_size))]
    outputs = [tensor("actions", (1, spec.robot.num_joints))]
    metadata = spec.to_metadata()
    if clip is not None:
        clip = _on_robot(clip, spec)
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

    graph.save(path, inputs, outputs, metadata)


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
    nodes, needed = upstream(model, "actions")
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
    clip = _on_robot(clip, spec)
    joints = order_map(clip.robot.joint_names, spec.joint_names)
    bodies = order_map(clip.robot.body_names, spec.body_names)
    return {
        name: np.asarray(getattr(clip, name), np.float32)[:, bodies if -1 in shape else joints]
        for name, shape in motion_outputs(clip.robot).items()
    }


def _on_robot(clip: Clip, spec: PolicySpec) -> Clip:
    from bm_envs.motion.on_robot import on_robot

    return on_robot(clip, spec.robot)


def _with_hold(name: str, table: np.ndarray) -> np.ndarray:
    """The table with one more frame: the last pose at rest."""
    still = np.zeros_like(table[-1:]) if "vel" in name else table[-1:]
    return np.concatenate([table, still])
