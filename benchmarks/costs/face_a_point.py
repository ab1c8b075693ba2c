"""A cost of one's own: walk around a point and face it. `docs/own_cost.md` has the commands."""

import numpy as np
import torch

from bm_envs.diffusion.user_costs import Plan

POINT = (3.0, 1.0)  # m, world; robots start near the origin
DISTANCE, SPEED = 1.5, 0.2  # m from the point, m/s around it, to the right of who faces it


def face_a_point(plan: Plan) -> torch.Tensor:
    """How far the plan is off from turning to the point and stepping around it. `[N]`."""
    to_point = torch.tensor(POINT) - plan.now_pos[:, :2]
    turn = torch.atan2(to_point[:, 1], to_point[:, 0]) - plan.now_heading
    turn = torch.atan2(turn.sin(), turn.cos())  # the short way round
    # It steps aside, and nearer or away, as far as the point is in front; else it walks an arc.
    facing = turn.cos().clamp(min=0.0)
    nearer = (to_point.norm(dim=1) - DISTANCE).clamp(-0.2, 0.4)
    return plan.walk_error(
        facing * nearer + 0.2 * (1 - facing), -SPEED * facing, turn.clamp(-0.6, 0.6)
    )


def outcome(plan: Plan) -> dict[str, np.ndarray]:
    """How far off the robot faces, how far away it is, and how fast it goes around. `[N]` each."""
    to_point = np.array(POINT) - plan.pos[..., :2]
    bearing = np.arctan2(to_point[..., 1], to_point[..., 0])
    off = np.abs(np.angle(np.exp(1j * (bearing - plan.heading))))
    around = np.angle(np.exp(1j * (bearing[:, -1] - bearing[:, 0])))
    return {
        "off_deg": np.degrees(off).mean(1),
        "distance_m": np.linalg.norm(to_point, axis=-1).mean(1),
        "around_deg_s": np.degrees(around) / (plan.ahead[-1] - plan.ahead[0]),
    }
