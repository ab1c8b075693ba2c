"""Policies and motions that the policy tests write, small and made from seeds."""

from pathlib import Path

import numpy as np

from bm_envs.motion.clip import clip_from_states
from bm_envs.policy import MLP, PolicySpec
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS


class Told:
    """A policy that answers what it is told to, and remembers what it was shown."""

    def __init__(self, spec=None, action=0.0):
        self.spec, self.path, self.name = spec or PolicySpec.for_g1(), Path("told.onnx"), "told"
        self.motion = self.info = None
        self.action = np.full(29, action, np.float32)
        self.shown = []

    def __call__(self, obs):
        self.shown.append(obs[0])
        return self.action[None]


def make_mlp(size=160, hidden=(24, 16), activation="elu", residual=False, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [size, *hidden, 29]
    pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
    return MLP(
        obs_mean=rng.normal(0, 0.3, size),
        obs_scale=rng.uniform(0.2, 2.0, size),
        weights=tuple(rng.normal(0, i**-0.5, (o, i)) for o, i in pairs),
        biases=tuple(rng.normal(0, 0.1, o) for o, _ in pairs),
        activation=activation,
        residual_offset=g1.DEFAULT_JOINT_POS if residual else None,
        residual_scale=g1.ACTION_SCALE if residual else None,
    )


def make_clip(frames=30, seed=0, name="wiggle"):
    """A smooth random motion about the default pose, 50 frames/s, moving at its last frame."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 50
    joints = g1.DEFAULT_JOINT_POS + 0.2 * np.sin(3 * time + rng.uniform(0, 6, 29))
    pos = np.concatenate([0.5 * time, 0.1 * np.sin(time), 0.76 + 0 * time], axis=1)
    half = 0.2 * np.sin(2 * time)
    quat = np.concatenate([np.cos(half), 0 * time, 0 * time, np.sin(half)], axis=1)
    return clip_from_states(
        name, 50.0, pos, quat, joints, source="made by a test", licence="Apache-2.0"
    )


def isaac_spec(spec=None):
    """`spec` with its joints in Isaac Lab's breadth-first order."""
    spec = spec or PolicySpec.for_g1(POLICY_TERMS)
    order = g1.order_map(spec.joint_names, g1.ISAAC_JOINT_NAMES)
    values = {
        key: tuple(getattr(spec, key)[i] for i in order)
        for key in ("joint_stiffness", "joint_damping", "default_joint_pos", "action_scale")
    }
    return PolicySpec(
        joint_names=g1.ISAAC_JOINT_NAMES, observation_names=spec.observation_names, **values
    )


def save_checkpoint(folder, mlp, residual=False, names=POLICY_TERMS, drives=None):
    """`checkpoint.pt` and `config.json` as training writes them, with this network as the actor."""
    import json

    import torch

    from bm_envs.policy import OBS_SCALE_EPS

    actor = {
        "obs_mean": torch.as_tensor(mlp.obs_mean.copy()),
        "obs_var": torch.as_tensor((mlp.obs_scale.astype(np.float64) - OBS_SCALE_EPS) ** 2).float(),
        "log_std": torch.zeros(29),
    }
    for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
        actor[f"layers.{i}.weight"] = torch.as_tensor(weight.copy())
        actor[f"layers.{i}.bias"] = torch.as_tensor(bias.copy())
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"actor": actor, "iteration": 3}, folder / "checkpoint.pt")
    config = {
        "network": {"residual": residual, "activation": mlp.activation},
        "task": {"observations": list(names), "actuation": drives or {}},
        "motion": "walk",
        "seed": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "checkpoint.pt"
