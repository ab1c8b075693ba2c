"""A cost of one's own: walk around a point and look at it. `docs/own_cost.md` has the commands."""

import math

import numpy as np
import torch

from bm_envs.diffusion.user_costs import Plan

POINT = (3.0, 1.0)  # m, world; robots start near the origin
DISTANCE, SPEED = 1.5, 0.35  # m from the point, m/s around it, clockwise
# The point stands so far to the right of where the robot faces. To face it squarely a robot would
# have to walk to its left, which no clip of the shipped models' data does.
ASIDE = math.radians(45)


def face_a_point(plan: Plan) -> torch.Tensor:
    """How far the plan is off from turning to the point and walking around it. `[N]`."""
    to_point = torch.tensor(POINT) - plan.now_pos[:, :2]
    distance = to_point.norm(dim=1)
    near = (1 - (distance - DISTANCE) / 0.5).clamp(0.0, 1.0)  # 1 on the circle, 0 far outside
    bearing = torch.atan2(to_point[:, 1], to_point[:, 0])
    turn = bearing + ASIDE * near - plan.now_heading
    turn = torch.atan2(turn.sin(), turn.cos())  # the short way round
    # What it walks inward and around, as far as it faces that way by now; else it walks an arc.
    faces = turn.cos().clamp(min=0.0)
    inward = faces * (0.5 * (distance - DISTANCE)).clamp(-0.15, 0.4)
    around = faces * SPEED * near
    cos, sin = (ASIDE * near).cos(), (ASIDE * near).sin()
    forward = inward * cos + around * sin + 0.2 * (1 - faces)
    left = around * cos - inward * sin
    return plan.walk_error(forward, left, (turn - around / distance).clamp(-0.6, 0.6))


def outcome(plan: Plan) -> dict[str, np.ndarray]:
    """How far off it faces, how far away it is, how fast it goes around clockwise. `[N]` each."""
    to_point = np.array(POINT) - plan.pos[..., :2]
    bearing = np.arctan2(to_point[..., 1], to_point[..., 0])
    off = np.abs(np.angle(np.exp(1j * (bearing - plan.heading))))
    around = np.angle(np.exp(1j * (bearing[:, 0] - bearing[:, -1])))
    return {
        "off_deg": np.degrees(off).mean(1),
        "distance_m": np.linalg.norm(to_point, axis=-1).mean(1),
        "around_deg_s": np.degrees(around) / (plan.ahead[-1] - plan.ahead[0]),
    }
