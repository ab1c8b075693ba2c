"""A tracker of ours as other projects would have exported it: other orders, other files.

Nothing here uses the orders that `bm_envs.policy` computes: values are labelled by term and joint,
and found by their label.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bm_envs.policy import SHIPPED, load_policy
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, TERMS

# Isaac Lab counts joints breadth first; motors of the robot in that order, as the exporter has it.
# Source: unitree_rl_lab, any deploy.yaml of the G1 with 29 joints.
ISAAC_MOTORS = [0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24, 18, 25,
                19, 26, 20, 27, 21, 28]  # fmt: skip
MOTOR_NAMES = g1.JOINT_NAMES  # left leg, right leg, waist, left arm, right arm, as the SDK has them
UNITREE = {
    "command": "motion_command", "joint_pos": "joint_pos_rel", "joint_vel": "joint_vel_rel",
    "actions": "last_action",
}  # fmt: skip
HOLOSOMA = {
    "command": "motion_command", "motion_anchor_pos_b": "motion_ref_pos_b",
    "motion_anchor_ori_b": "motion_ref_ori_b", "joint_pos": "dof_pos", "joint_vel": "dof_vel",
}  # fmt: skip


def labels(terms, joints):
    """What each value of an observation is."""
    found = []
    for term in terms:
        if TERMS[term].joint_blocks:
            for block in range(TERMS[term].joint_blocks):
                found += [(term, block, joint) for joint in joints]
        else:
            found += [(term, i) for i in range(TERMS[term].size)]
    return found


def reordered(terms, joints, *, policy="walk", metadata=None, motion=None):
    """The shipped policy behind a Gather on either side, so that its numbers stay bit-equal.

    Args:
        terms: of the new observation, our names, in order.
        joints: order of everything per joint.
        metadata: strings of the new file.
        motion: outputs of a motion by name, `[T, ...]`.
    """
    model = onnx.load(SHIPPED / f"{policy}.onnx")
    inner, outer = labels(POLICY_TERMS, g1.JOINT_NAMES), labels(terms, joints)
    nodes = [helper.make_node("Gather", ["obs", "order"], ["inner_obs"], axis=1)]
    needed, kept = {"actions"}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    for node in kept[::-1]:
        node.input[:] = ["inner_obs" if n == "obs" else n for n in node.input]
        node.output[:] = ["inner_actions" if n == "actions" else n for n in node.output]
        nodes.append(node)
    nodes.append(helper.make_node("Gather", ["inner_actions", "joints"], ["actions"], axis=1))
    weights = [t for t in model.graph.initializer if t.name in needed]
    constants = {
        "order": np.array([outer.index(label) for label in inner]),
        "joints": np.array([g1.JOINT_NAMES.index(joint) for joint in joints]),
    }
    make, number = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [make("obs", number, [1, len(outer)])]
    outputs = [make("actions", number, [1, 29])]
    if motion:
        inputs.append(make("time_step", number, [1, 1]))
        constants |= {"top": np.array(len(motion["joint_pos"]) - 1), "last_dim": np.array([-1])}
        nodes += [
            helper.make_node("Cast", ["time_step"], ["cast"], to=TensorProto.INT64),
            helper.make_node("Squeeze", ["cast", "last_dim"], ["squeezed"]),
            helper.make_node("Clip", ["squeezed", "", "top"], ["frame"]),
        ]
        for name, table in motion.items():
            constants[f"table_{name}"] = np.asarray(table, np.float32)
            nodes.append(helper.make_node("Gather", [f"table_{name}", "frame"], [name]))
            outputs.append(make(name, number, [1, *table.shape[1:]]))
    weights += [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata or {})
    onnx.checker.check_model(made, full_check=True)
    return made


def drives(policy="walk"):
    """Gains, pose and scale of the shipped policy by joint."""
    spec = load_policy(policy).spec
    keys = ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
    return {key: dict(zip(spec.joint_names, getattr(spec, key), strict=True)) for key in keys}


def deploy_yaml(terms=POLICY_TERMS, motors=ISAAC_MOTORS, policy="walk"):
    """What `export_deploy_cfg` writes for a tracker, before it is dumped."""
    of = drives(policy)
    own = [MOTOR_NAMES[motor] for motor in motors]  # the policy's order

    def listed(key, joints):
        return [float(of[key][joint]) for joint in joints]

    return {
        "joint_ids_map": list(motors),
        "step_dt": 0.02,
        "stiffness": listed("joint_stiffness", MOTOR_NAMES),
        "damping": listed("joint_damping", MOTOR_NAMES),
        "default_joint_pos": listed("default_joint_pos", own),
        "commands": {},
        "actions": {
            "JointPositionAction": {
                "clip": None, "joint_names": [".*"], "scale": listed("action_scale", own),
                "offset": listed("default_joint_pos", own), "joint_ids": None,
            }
        },
        "observations": {
            UNITREE.get(term, term): {
                "params": {"command_name": "motion"} if "motion" in term else {}, "clip": None,
                "scale": [1.0] * TERMS[term].size, "history_length": 1,
            }
            for term in terms
        },
    }  # fmt: skip


def holosoma_metadata(joints=g1.JOINT_NAMES, policy="walk"):
    """What `attach_onnx_metadata` writes: JSON in every value."""
    of = drives(policy)
    values = {
        "dof_names": list(joints),
        "kp": [of["joint_stiffness"][joint] for joint in joints],
        "kd": [of["joint_damping"][joint] for joint in joints],
        "command_ranges": None,
        "robot_urdf": "<robot name='g1'/>",
    }
    return {key: json.dumps(value) for key, value in values.items()}
