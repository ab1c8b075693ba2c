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
from bm_envs.policy.latent import LatentPolicy
from bm_envs.policy.network import MLP, ONNX_ACTIVATIONS, Layers
from bm_envs.policy.session import need, read_onnx, upstream
from bm_envs.policy.spec import CONTROL_DT, PolicySpec, motion_outputs
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS
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

    def layers(self, layers: Layers, x: str, output: str, prefix: str = "") -> str:
        """Add a plain network from `x` to `output`; its constants' names begin with `prefix`."""
        constant, node = self.constant, self.node
        x = node("Sub", [x, constant(f"{prefix}obs_mean", layers.obs_mean)], f"{prefix}centered")
        scale = constant(f"{prefix}obs_scale", layers.obs_scale)
        x = node("Div", [x, scale], f"{prefix}normalized")
        last = len(layers.weights) - 1
        for i, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
            arrays = constant(f"{prefix}weight_{i}", weight), constant(f"{prefix}bias_{i}", bias)
            name = output if i == last else f"{prefix}linear_{i}"
            x = node("Gemm", [x, *arrays], name, transB=1)
            if i < last:
                x = node(ONNX_ACTIVATIONS[layers.activation], [x], f"{prefix}hidden_{i}")
        return x

    def columns(self, x: str, first: int, end: int, output: str, prefix: str = "") -> str:
        """Add columns `first` to `end` of `x [N, O]`, the last one left out."""
        bounds = [
            self.constant(f"{prefix}{name}", np.array([value]))
            for name, value in (("first", first), ("end", end), ("axis", 1))
        ]
        return self.node("Slice", [x, *bounds], output)

    def network(self, mlp: MLP) -> None:
        """Add a network from `obs` to `actions`."""
        if mlp.residual_offset is None or mlp.residual_scale is None:
            self.layers(mlp, "obs", "actions")
            return
        constant, node = self.constant, self.node
        x = self.layers(mlp, "obs", f"linear_{len(mlp.weights) - 1}")
        reference = self.columns("obs", 0, len(mlp.residual_offset), "reference_joint_pos")
        offset = constant("residual_offset", mlp.residual_offset)
        residual = node("Sub", [reference, offset], "reference_offset")
        scale = constant("residual_scale", mlp.residual_scale)
        node("Add", [x, node("Div", [residual, scale], "reference_action")], "actions")

    def latent_network(self, policy: LatentPolicy) -> None:
        """Add a policy of latents from `obs` to `latent` and `actions`."""
        seen, size = policy.seen, policy.latent_size
        reference = self.columns("obs", 0, seen, "reference", "reference_")
        moments = self.layers(policy.encoder, reference, "moments", "encoder_")
        latent = self.columns(moments, 0, size, "latent", "latent_")
        end = seen + policy.decoder.obs_mean.shape[0] - size
        robot = self.columns("obs", seen, end, "felt", "felt_")
        x = self.node("Concat", [latent, robot], "decoder_obs", axis=1)
        self.layers(policy.decoder, x, "actions", "decoder_")

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
    path: str | Path, network: MLP | LatentPolicy, spec: PolicySpec, clip: Clip | None, *,
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
        network: it takes and gives values per joint in the order of `spec.joint_names`. One of
            latents also has the output `latent [1, Z]`.
        spec: the metadata.
        clip: the reference motion at 50 frames/s; None for a file that names none.
        embed_motion: False keeps `clip` out of the graph (licences) and only names it in the
            metadata; such a file has neither `time_step` nor the motion's outputs.
        hold_last_frame: False leaves the last frame, moving as it is, for all later indices.
    """
    onnx = need("onnx")
    taken = network.taken if isinstance(network, LatentPolicy) else network.obs_mean.shape[0]
    if taken != spec.observation_size:
        raise PolicyError(
            f"The network takes {taken} values, its observation terms have {spec.observation_size}."
        )
    graph = GraphBuilder()
    if isinstance(network, LatentPolicy):
        if spec.observation_names != POLICY_TERMS or spec.robot is not g1.G1:
            raise PolicyError("A policy of latents needs the G1's 160 observations, in order.")
        graph.latent_network(network)
    else:
        if network.residual_offset is not None and spec.observation_names[0] != "command":
            raise PolicyError("A residual network needs 'command' as its first observation term.")
        graph.network(network)
    constant, node, tensor = graph.constant, graph.node, graph.tensor
    inputs = [tensor("obs", (1, spec.observation_size))]
    outputs = [tensor("actions", (1, spec.robot.num_joints))]
    if isinstance(network, LatentPolicy):
        outputs.append(tensor("latent", (1, network.latent_size)))
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
