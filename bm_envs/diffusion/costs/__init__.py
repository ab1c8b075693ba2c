"""Costs on predicted states, which give a diffusion model its task, and the guide that lowers them.

A cost is a function of the states that a window says will be: features of a representation,
`[N, L, D]`, in metres and seconds in the now frame. It knows its value and its gradient, worked out
by hand, so that running a model needs no automatic differentiation. Guidance moves the states in
those units, not in the network's, by a share of the step that brings the cost to its minimum
(`own_step`): one strength means the same for every cost.

| cost | asks for | source |
|---|---|---|
| `Joystick` | a velocity and a rate of turning | eq. 7, with a turn |
| `Waypoint` | a place | eq. 8 |
| `Obstacle` | a distance from what stands around, a field of `fields.py` | eqs. 9 and 10 |
| `Heading` | facing a direction | ours |
| `Sum` | several at once | densities exp(-cost) multiply, so costs add |
| `Corrected` | what another asks for, predictions being off | offset-free predictive control |
| `ByVelocity` | what another asks for, of where velocities lead | ours |
| `UserCost` | what a function of one's own says; see `user_costs` for one of the world | |

Goals are in the now frame, which moves with the robot: what stands still in the world is expressed
in it anew every tick, by `points_to_now` and its likes, and so is a cost, which is cheap to make.
Arrays of goals are `[N, ...]`; N = 1 means the same for all robots.

Source: arXiv 2508.08241v1, sec. IV-C; what it leaves open (scale of the step, how a turn is asked
for, positions that agree with the velocity, radii and range of obstacles) is ours and named where
it stands.
"""

from bm_envs.diffusion.costs.base import AHEAD, Cost, Stepping, own_step
from bm_envs.diffusion.costs.combined import ByVelocity, Corrected, Sum
from bm_envs.diffusion.costs.frames import (
    directions_to_now,
    frame_of,
    headings_to_now,
    points_to_now,
    points_to_world,
)
from bm_envs.diffusion.costs.goals import Heading, Joystick, Waypoint
from bm_envs.diffusion.costs.guidance import check_strength, guide
from bm_envs.diffusion.costs.links import body_points, root_heading
from bm_envs.diffusion.costs.obstacle import RADII, Obstacle, barrier, barrier_slope
from bm_envs.diffusion.costs.user import UserCost

__all__ = [
    "AHEAD", "RADII", "ByVelocity", "Corrected", "Cost", "Heading", "Joystick", "Obstacle",
    "Stepping", "Sum", "UserCost", "Waypoint", "barrier", "barrier_slope", "body_points",
    "check_strength", "directions_to_now", "frame_of", "guide", "headings_to_now", "own_step",
    "points_to_now", "points_to_world", "root_heading",
]  # fmt: skip
