"""What the site's demo page fetches beside its scripts: robot, motions, policies and figures.

    python docs/demo/export.py docs/demo/dist/data

Everything comes from the package: the folder holds copies and is not committed.

    settings.json         figures of robot, tasks, steering and observation, and what there is
    robot.xml             the MJCF of the tracking task, with the project's own shapes to look at
    motions/NAME.bin      float32, a row a frame: the columns of `COLUMNS`
    policies/NAME.onnx    trackers
    guided/denoiser.onnx  the diffusion model
    guided/bounds.onnx    its states as features with units, moved, bounded, and back (`bounds`)

The motions are the project's own and so are the policies: nothing of LAFAN1 is among them.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tyro.conf import Positional

from bm_envs import cli, evaluation
from bm_envs.diffusion import sampler
from bm_envs.diffusion.costs import AHEAD
from bm_envs.diffusion.model import CLIP, SCALING, A, GuidedModel, load_model
from bm_envs.diffusion.steering import steering_for
from bm_envs.errors import ConfigError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import load_policy, named_motions
from bm_envs.policy.spec import DRIVE_BOUNDS, OBSERVATION_ALIASES, REQUIRED_KEYS
from bm_envs.robots import g1
from bm_envs.robots.mjcf import build_mjcf
from bm_envs.robots.observation_terms import POLICY_TERMS, TERMS
from bm_envs.robots.visuals import DATA_DIR_VARIABLE, VISUAL_GROUP
from bm_envs.tasks.guided import robots, starts
from bm_envs.tasks.guided.config import JoystickConfig
from bm_envs.tasks.guided.states import PAST
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.viewers import driving

TRACKERS = ("walks", "walk", "stroll", "stride", "jog")
"""Trackers on the page, the first shown first."""
GUIDED = "guided_body_pos"
CALLS = 5  # of the network a control step: docs/guided.md, "Ablations", has what fewer than 10 cost
WARM_UP_S = 1.0
START_MOTION, START_TRAVEL = "walk", JoystickConfig.start_travel
COLUMNS: dict[str, int] = {
    "joint_pos": g1.NUM_JOINTS, "joint_vel": g1.NUM_JOINTS, "root_pos": 3, "root_quat": 4,
    "root_lin_vel": 3, "root_ang_vel": 3, "anchor_pos": 3, "anchor_quat": 4,
}  # fmt: skip
"""Of a frame, with their sizes: rad, m, s; world axes; quaternions w x y z."""


@dataclass(frozen=True)
class Config:
    """Write what the demo page needs into a folder."""

    out: Annotated[Path, Positional]
    """Folder to write: `data` beside the page's `main.js`."""


def main(config: Config) -> None:
    """Write the folder; `settings.json` comes last, without which the page reads nothing."""
    # The maker's meshes, which a page must not hold, would be taken from there.
    os.environ.pop(DATA_DIR_VARIABLE, None)
    write(config.out)
    size = sum(path.stat().st_size for path in config.out.rglob("*") if path.is_file())
    print(f"{config.out}: {size / 1e6:.1f} MB")


def write(folder: Path) -> None:
    """Write everything into a folder, which is made where it is not there."""
    model = load_model(GUIDED)
    trackers = [{"name": name, **describe(name)} for name in TRACKERS]
    names = sorted({name for tracker in trackers for name in tracker["motions"]})
    clips = [library.load_motion(name) for name in names]
    task = TrackConfig.preset("clip")
    look = dataclasses.replace(task.model, visuals=True)
    files = {
        "robot.xml": build_mjcf(look).encode(),
        **{f"motions/{clip.name}.bin": rows(clip).tobytes() for clip in clips},
        **{f"policies/{name}.onnx": load_policy(name).path.read_bytes() for name in TRACKERS},
        "guided/denoiser.onnx": model.path.read_bytes(),
        "guided/bounds.onnx": bounds(model).SerializeToString(),
    }
    for name, content in files.items():
        with cli.atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    settings = {
        **robot_figures(), **observation_figures(task),
        "motions": [{"name": clip.name, "frames": len(clip.joint_pos)} for clip in clips],
        "columns": COLUMNS, "trackers": trackers,
        "fall_below_reference": evaluation.FALL_HEIGHT, "guided": guided_figures(model),
    }  # fmt: skip
    cli.write_json(folder / "settings.json", settings)


def describe(name: str) -> dict[str, Any]:
    """The shipped motions that a tracker was made for, and its licence."""
    policy = load_policy(name)
    own = {entry["name"] for entry in named_motions(policy)}
    shipped = [info.name for info in library.list_motions(()) if info.where == "package"]
    return {
        "motions": [motion for motion in shipped if motion in own],
        "licence": (policy.info or {})["licence"],
    }


def rows(clip: Clip) -> np.ndarray:
    """A clip as the page reads it: `[T, 78]` float32, see `COLUMNS`."""
    anchor = g1.BODY_NAMES.index(g1.ANCHOR_BODY)
    parts = (
        clip.joint_pos, clip.joint_vel, clip.body_pos_w[:, 0], clip.body_quat_w[:, 0],
        clip.body_lin_vel_w[:, 0], clip.body_ang_vel_w[:, 0], clip.body_pos_w[:, anchor],
        clip.body_quat_w[:, anchor],
    )  # fmt: skip
    return np.concatenate(parts, 1).astype("<f4")


def robot_figures() -> dict[str, Any]:
    """Names of the robot."""
    return {
        "joint_names": g1.JOINT_NAMES, "body_names": g1.BODY_NAMES, "root_body": g1.ROOT_BODY,
        "anchor_body": g1.ANCHOR_BODY, "visual_group": VISUAL_GROUP,
    }  # fmt: skip


def observation_figures(task: TrackConfig) -> dict[str, Any]:
    """What a tracker's file may say, and how its control step goes."""
    return {
        "control_dt": CONTROL_DT, "substeps": task.decimation, "lead": task.lead,
        "terms": {name: TERMS[name].size for name in POLICY_TERMS}, "aliases": OBSERVATION_ALIASES,
        "required_keys": REQUIRED_KEYS,
        "drive_bounds": {
            key: {"low": low, "high": high, "above": above, "unit": unit}
            for key, (low, high, above, unit) in DRIVE_BOUNDS.items()
        },
    }  # fmt: skip


def guided_figures(model: GuidedModel) -> dict[str, Any]:
    """Sampler, steering and joystick of the diffusion model."""
    steering = steering_for(model)
    if steering.scaling not in sampler.SHARES or not np.isinf(steering.most_step):
        raise ConfigError(f"{GUIDED}: its steering is not one that the page knows.")
    moving, _ = starts.moving_frames((START_MOTION,), START_TRAVEL)
    clip = library.load_motion(START_MOTION)
    # The page takes frames of the clip by number; these are the ones that `moving_frames` gives.
    first = int(np.flatnonzero((clip.qpos()[:, 7:] == moving[0, 7:]).all(1))[0])
    if not np.array_equal(clip.qpos()[first : first + len(moving), 7:], moving[:, 7:]):
        raise ConfigError(f"{START_MOTION}: the frames in which it moves are not in one piece.")
    return {
        "name": GUIDED, "calls": CALLS, "warm_up_s": WARM_UP_S,
        "start": {"motion": START_MOTION, "first": first, "count": len(moving)},
        "length": sampler.LENGTH, "past": PAST, "width": model.width,
        "action_size": A, "clip": CLIP, "abar": sampler.SCHEDULE.abar.tolist(),
        "ahead": AHEAD.tolist(),
        "share": sampler.guidance_steps(steering.scaling, steering.last_level).tolist(),
        "steering": {
            key: getattr(steering, key)
            for key in (
                "strength", "consistent", "turn", "correct_s", "most_correction", "recover_at",
                "recover_s",
            )
        },
        "blocks": {
            name: [part.start, part.stop] for name, part in model.representation.blocks.items()
        },
        "fall": {"pelvis_height": robots.PELVIS_HEIGHT, "tilt": robots.TILT},
        "joystick": {
            "forward": JoystickConfig.random_forward, "turn": JoystickConfig.random_yaw_rate,
            "ramp": driving.RAMP.tolist(), "push_speed": driving.PUSH_SPEED,
        },
    }  # fmt: skip


def bounds(model: GuidedModel) -> Any:
    """A graph for what stands between two calls of the denoiser: `GuidedModel.bound` with a guide.

    Inputs are the network's clean states `[1, L, S]`, and `gain` and `target` `[1, L, D]` of a
    guide that moves each feature by a share of its way to a target; outputs the `features`
    `[1, L, D]` and the states they are. In the browser the runtime's matrix products take a
    fraction of the time of a script's.
    """
    size, width, length = model.representation.size, model.width, sampler.LENGTH
    names = [*SCALING[:2], "projection"]
    states = np.zeros((1, length, width), np.float32)
    actions, levels = np.zeros((1, length, A), np.float32), np.zeros((1, length), np.int64)
    center, half, projection = model.run(
        names, states=states, actions=actions, state_levels=levels, action_levels=levels
    )
    tensors = {
        "center": center, "half": half, "projection": projection,
        "unprojection": np.linalg.pinv(projection.astype(np.float64)).astype(np.float32),
        "low": center - CLIP * half, "high": center + CLIP * half,
    }  # fmt: skip
    steps = (
        ("MatMul", "states unprojection", "shares"), ("Mul", "shares half", "sized"),
        ("Add", "sized center", "found"), ("Sub", "found target", "off"),
        ("Mul", "gain off", "step"), ("Sub", "found step", "moved"),
        ("Max", "moved low", "raised"), ("Min", "raised high", "features"),
        ("Sub", "features center", "centered"), ("Div", "centered half", "scaled"),
        ("MatMul", "scaled projection", "clean_states"),
    )  # fmt: skip

    def value(name: str, last: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, length, last])

    graph = helper.make_graph(
        [helper.make_node(kind, inputs.split(), [output]) for kind, inputs, output in steps],
        "bounds", [value("states", width), value("gain", size), value("target", size)],
        [value("features", size), value("clean_states", width)],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8  # as of the policies
    onnx.checker.check_model(made)
    return made


if __name__ == "__main__":
    cli.run(main, Config)
