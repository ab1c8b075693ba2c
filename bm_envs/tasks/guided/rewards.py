"""The guided tasks' own terms of the reward: plain functions of arrays, `[N]` each, in [0, 1].

Ours: the published method has no rewards, it gets its tasks as costs. The term of the waypoint is
the counterpart of eq. 8 of arXiv 2508.08241: go while far off, brake when near.
"""

from __future__ import annotations

from bm_envs.rotations import Array, dot, namespace
from bm_envs.tasks.track.rewards import gaussian


def share(value: Array, whole: float) -> Array:
    """`value / whole`, not below 0 and not above 1."""
    return (value / whole).clip(0.0, 1.0)


def velocity_error_exp(
    velocity: Array, yaw_rate: Array, command: Array, velocity_std: float, yaw_rate_std: float
) -> Array:
    """Mean of `exp(-|v - v_c|^2 / std^2)` of the velocity and of the yaw rate.

    Args:
        velocity: `[N, 2]`, m/s, forward and left.
        yaw_rate: `[N]`, rad/s.
        command: `[N, 3]`, commanded values of both.
        velocity_std: m/s.
        yaw_rate_std: rad/s.
    """
    error, turn_error = velocity - command[:, :2], yaw_rate - command[:, 2]
    moved = gaussian(dot(error, error), velocity_std)
    return 0.5 * moved + 0.5 * gaussian(turn_error * turn_error, yaw_rate_std)


def approach(
    to_goal: Array, velocity: Array, distance: Array, walk_speed: float, goal_speed: float
) -> Array:
    """`(1 - e^-2d) share(v . g/d, walk_speed) + e^-2d exp(-|v|^2 / goal_speed^2)`.

    Args:
        to_goal: `g [N, 2]`, m, from the root to the goal.
        velocity: `v [N, 2]`, m/s, in the same axes.
        distance: `d = |g| [N]`, m.
        walk_speed: m/s.
        goal_speed: m/s.
    """
    near = namespace(distance).exp(-2.0 * distance)
    # At the goal there is no direction to it, and the first term has no weight.
    forward = dot(velocity, to_goal) / distance.clip(1e-6)
    stopped = gaussian(dot(velocity, velocity), goal_speed)
    return (1.0 - near) * share(forward, walk_speed) + near * stopped
