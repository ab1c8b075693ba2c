"""Policies as files: write, read and run ONNX networks of the BeyondMimic family.

A policy file is a network from an un-normalised observation to a raw action, with the reference
motion inside it where the motion's licence allows, and strings that say how observation and action
are laid out. `docs/policy_files.md` describes the files.

    spec          `PolicySpec`: layouts, joint order, drives, and the metadata that hold them
    network       `MLP`: a network as plain arrays, from a checkpoint or from a policy's file
    write         the ONNX file
    description   `policy.json`
    resolve       which file a name stands for, and what kind of policy it is
    load          `Policy`: a file read, checked and run, wherever it was made
    vectors       test vectors for people who write the observation again
    shipping      a policy into the repository's folder `policies/`
    session       a graph opened safely; `graph` bounds what it may hold and cost
    unitree       `deploy.yaml` of Unitree's trainers; `plain_yaml` reads it
    holosoma      the metadata that holosoma writes
    archive       checks of a checkpoint before torch reads it

Nothing here runs code from a file. `onnx`, `onnxruntime` and `torch` are imported when a function
needs them.
"""

from bm_envs.policy.description import (
    check_description,
    check_is_of_g1,
    check_network,
    read_policy_json,
    read_run_config,
    training_figures,
    write_policy_json,
)
from bm_envs.policy.load import Policy, load_policy, named_clip, named_motions
from bm_envs.policy.network import MLP, OBS_SCALE_EPS, mlp_from_checkpoint, mlp_from_policy
from bm_envs.policy.resolve import (
    DIFFUSION,
    GUIDED,
    KINDS,
    SHIPPED,
    TRACKER,
    Kind,
    from_hub,
    kind_of,
    repository_folder,
    resolve_file,
    shipped_files,
    shipped_kind,
    shipped_policies,
)
from bm_envs.policy.session import need, open_session, read_onnx
from bm_envs.policy.spec import (
    CONTROL_DT,
    DRIVE_BOUNDS,
    MOTION_OUTPUTS,
    PolicySpec,
    check_drive,
    observation_table,
    spec_from_config,
)
from bm_envs.policy.vectors import (
    ACTION_TOLERANCE,
    make_test_vectors,
    shipped_test_vectors,
    write_test_vectors,
)
from bm_envs.policy.write import (
    MOTION_REMOVED,
    GraphBuilder,
    motion_metadata,
    motion_tables,
    remove_motion,
    write_onnx,
)

FORMAT = TRACKER.format

__all__ = [
    "ACTION_TOLERANCE",
    "check_description",
    "check_drive",
    "check_is_of_g1",
    "check_network",
    "CONTROL_DT",
    "DIFFUSION",
    "DRIVE_BOUNDS",
    "FORMAT",
    "from_hub",
    "GraphBuilder",
    "GUIDED",
    "Kind",
    "kind_of",
    "KINDS",
    "load_policy",
    "make_test_vectors",
    "MLP",
    "mlp_from_checkpoint",
    "mlp_from_policy",
    "motion_metadata",
    "MOTION_OUTPUTS",
    "MOTION_REMOVED",
    "motion_tables",
    "named_clip",
    "named_motions",
    "need",
    "OBS_SCALE_EPS",
    "observation_table",
    "open_session",
    "Policy",
    "PolicySpec",
    "read_onnx",
    "read_policy_json",
    "read_run_config",
    "remove_motion",
    "repository_folder",
    "resolve_file",
    "SHIPPED",
    "shipped_files",
    "shipped_kind",
    "shipped_policies",
    "shipped_test_vectors",
    "spec_from_config",
    "TRACKER",
    "training_figures",
    "write_onnx",
    "write_policy_json",
    "write_test_vectors",
]
