"""A cost of one's own: the trunk as low as the data reach. `docs/own_cost.md` has the commands."""

import numpy as np
import torch

from bm_envs.diffusion.user_costs import Plan

# m above the floor: 4 cm under the middle of the shipped models' data, which go that far.
LOW = {
    "pelvis": 0.695, "torso_link": 0.738,
    "left_hip_pitch_link": 0.594, "right_hip_pitch_link": 0.594,
    "left_shoulder_pitch_link": 0.982, "right_shoulder_pitch_link": 0.982,
}  # fmt: skip


def pelvis_low(plan: Plan) -> torch.Tensor:
    """Squared errors of the heights of the trunk's links, summed over links and steps. `[N]`."""
    off = plan.links(*LOW)[..., 2] - torch.tensor(list(LOW.values()))
    root = plan.pos[..., 2] - LOW["pelvis"]
    return off.square().sum((1, 2)) + root.square().sum(1)


def outcome(plan: Plan) -> dict[str, np.ndarray]:
    """The pelvis' height and the speed of walking. `[N]` each."""
    speed = np.linalg.norm(plan.velocity[..., :2], axis=-1)
    return {"pelvis_m": plan.pos[..., 2].mean(1), "speed_m_s": speed.mean(1)}
