"""A cost of one's own: walk with the pelvis as low as the data reach. See `docs/own_cost.md`."""

import numpy as np
import torch

from bm_envs.diffusion.user_costs import Plan

HEIGHT = 0.70  # m; the shipped models' data hold 0.69 to 0.78 m


def pelvis_low(plan: Plan) -> torch.Tensor:
    """Squared error of the pelvis' height, its mean over the plan. `[N]`, m^2."""
    return (plan.pos[..., 2] - HEIGHT).square().mean(1)


def outcome(plan: Plan) -> dict[str, np.ndarray]:
    """The pelvis' height and the speed of walking. `[N]` each."""
    speed = np.linalg.norm(plan.velocity[..., :2], axis=-1)
    return {"pelvis_m": plan.pos[..., 2].mean(1), "speed_m_s": speed.mean(1)}
