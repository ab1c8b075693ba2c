"""The tracking task inside a world model: its reference, observations and costs, in torch.

All are functions that can be differentiated, of states that a world model predicts. Poses of links
are `[3, 4]`, see `learning.kinematics`.

Letters in shapes: B imagined rollouts, H their steps, M = 14 tracked links, F frames of all clips.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm_envs.errors import ConfigError
from bm_envs.learning.graphs import Constant
from bm_envs.learning.world_model import CONTACT_DEPTH, SOLE, SOLE_RADIUS, LocalState, State
from bm_envs.motion.clip import Clip
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot
from bm_envs.rotations import quat_to_matrix
from bm_envs.tasks.track.config import CONTROL_DT, RewardConfig, TrackConfig
from bm_envs.tasks.track.rewards import OPTIONAL, TRACKED, action_accel, joint_accel
from bm_envs.tasks.track.rows import (
    ANCHOR,
    FEET,
    Reference,
    foot_contacts,
    reference_table,
    without_gaps,
)
from bm_envs.tasks.track.tables import noise_half_widths

# Those of `rewards.OPTIONAL` that `optional_cost` knows.
IMAGINED = ("foot_contact", "action_accel", "joint_accel")


@functools.cache
def soft_range(robot: Robot = g1.G1) -> Constant:
    """The joints' soft limits, lower and upper, rad. `[2, J]`."""
    return Constant(robot.soft_joint_range().T.astype(np.float32).copy())


def check_task(task: TrackConfig) -> None:
    """Refuse a task of which imagination leaves something out.

    The penalty of contacts is left out of every task: the model has no forces.

    Raises:
        ConfigError: an optional reward has a weight, and `optional_cost` does not know it; or
            targets arrive late.
    """
    for name in OPTIONAL:
        if name not in IMAGINED and getattr(task.rewards, name):
            raise ConfigError(
                f"task.rewards.{name} is {getattr(task.rewards, name)}, expected 0: the cost in "
                "imagination does not have this reward, so that it would not be learned from."
            )
    if task.randomize.action_delay:
        raise ConfigError(
            f"task.randomize.action_delay is {task.randomize.action_delay}, expected 0: "
            "the model is told the targets that arrive."
        )


class ReferenceTables:
    """The reference motion on a device: what robots are shown, and what they are compared with.

    Frames are known by their numbers, see `TrackTask.frame_numbers`. On the processor the table is
    the task's own, which is not copied; elsewhere it has a row for each number.

    Attributes:
        table: `[R, Reference.SIZE]`.
    """

    def __init__(self, clips: Sequence[Clip], device: torch.device) -> None:
        self._clips, self._device = tuple(clips), device
        frames = np.array([clip.num_frames for clip in clips])
        rows, first = reference_table(clips)
        if device.type != "cpu":
            rows, first = without_gaps(rows, first, frames)
        start = frames.cumsum() - frames
        self._first_row = first
        # The numbers at which clips begin, and what makes rows of numbers, where it is not 0.
        self._places = None
        if not np.array_equal(first, start):
            self._places = torch.from_numpy(start), torch.from_numpy(first - start)
        self.table = _shared(rows).to(device)
        if device.type != "cpu":  # where nothing may be made in the middle of a step
            _ = self.links, self.foot_contact

    @functools.cached_property
    def links(self) -> Tensor:
        """The tracked links in the world, in all rows. `[M 3 4, R]`."""
        frames = Reference(self.table)
        links = torch.cat([quat_to_matrix(frames.body_quat), frames.body_pos[..., None]], -1)
        return links.flatten(1).T.contiguous()

    @functools.cached_property
    def foot_contact(self) -> Tensor:
        """Feet on the ground, in all rows. `[R, 2]` bool."""
        return torch.from_numpy(foot_contacts(self._clips, self._first_row)).to(self._device)

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows of the table of frames with these numbers `[B]`, int64."""
        if self._places is None:
            return numbers
        start, shift = self._places
        return numbers + shift[torch.searchsorted(start, numbers, right=True) - 1]

    def at(self, numbers: Tensor, last: Tensor) -> Reference:
        """Frames of those numbers `[B]`; behind a clip's last `[B]` that one."""
        return Reference(self.table[self.rows(torch.minimum(numbers, last))])

    def links_at(self, numbers: Tensor, last: Tensor) -> Tensor:
        """The tracked links there, in the world. `[M, 3, 4, B]`."""
        picked = self.links.index_select(1, self.rows(torch.minimum(numbers, last)))
        return picked.view(-1, 3, 4, len(numbers))

    def foot_contact_at(self, numbers: Tensor, last: Tensor) -> Tensor:
        """Whether the reference's feet are on the ground there. `[B, 2]` bool."""
        return self.foot_contact[self.rows(torch.minimum(numbers, last))]


def _shared(table: np.ndarray) -> Tensor:
    """A tensor of the same memory, into which nobody writes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(table)


def observation(
    names: Sequence[str], state: State, local: LocalState, shown: Reference, action: Tensor,
    default_joint_pos: Tensor,
) -> Tensor:  # fmt: skip
    """The task's observation of the terms `names`, see `observation_terms.TERMS`. `[B, O]`.

    Args:
        names: terms, in order.
        state: of the robots.
        local: of the same states.
        shown: the reference's frame.
        action: `[B, 29]`, the last one.
        default_joint_pos: `[B, 29]`, rad.
    """
    torso = state.rot @ local.links[0].permute(2, 0, 1)
    rot, pos = torso[..., :3], state.pos + torso[..., 3]
    away = ((shown.body_pos[:, ANCHOR] - pos)[:, None] @ rot)[:, 0]
    turn = rot.mT @ shown.anchor_axes.mT
    values = {
        "command": lambda: torch.cat([shown.joint_pos, shown.joint_vel], 1),
        "motion_anchor_pos_b": lambda: away,
        "motion_anchor_ori_b": lambda: turn[:, :, :2].flatten(1),
        "base_lin_vel": lambda: local.lin,
        "base_ang_vel": lambda: state.ang,
        "joint_pos": lambda: state.joint_pos - default_joint_pos,
        "joint_vel": lambda: state.joint_vel,
        "actions": lambda: action,
    }
    return torch.cat([values[name]() for name in names], 1)


def observation_noise(task: TrackConfig) -> Tensor:
    """Half-width of the uniform noise of each value that the task's policy sees. `[O]`."""
    level = torch.from_numpy(noise_half_widths(task))
    return level if task.noise else torch.zeros_like(level)


class SquareErrors(torch.autograd.Function):
    """The squared errors of `rewards.TRACKED`, `[6, H, B]`.

    They are of links less the reference's, `[M, 3, 4, H + 1, B]`. The gradient is written by hand:
    those of cuts through so large a tensor would take most of the time of an update.
    """

    @staticmethod
    def forward(ctx: Any, error: Tensor, recovery: float) -> Tensor:
        """See `tracking_loss`."""
        ctx.save_for_backward(error)
        ctx.recovery = recovery
        change = (error[:, :, :, 1:] - error[:, :, :, :-1]) * (1 / CONTROL_DT)
        change[:, :, 3] += recovery * error[ANCHOR, :, 3, :-1]
        error = error[:, :, :, 1:]
        pos, turn = error[:, :, 3], error[:, :, :3]
        turns = 0.5 * turn.square().sum((1, 2))
        return torch.stack([
            pos[ANCHOR].square().sum(0),
            turns[ANCHOR],
            (pos - pos[ANCHOR]).square().sum(1).mean(0),
            turns.mean(0),
            change[:, :, 3].square().sum(1).mean(0),
            0.5 * change[:, :, :3].square().sum((1, 2)).mean(0),
        ])  # fmt: skip

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """See `torch.autograd.Function`."""
        (by,) = gradients
        (error,) = ctx.saved_tensors
        share = 1 / len(error)
        result = torch.empty_like(error)
        change = error[:, :, :, 1:] - error[:, :, :, :-1]
        pull = ctx.recovery * CONTROL_DT
        change[:, :, 3] += pull * error[ANCHOR, :, 3, :-1]
        change[:, :, 3] *= by[4] * (2 * share / CONTROL_DT**2)
        change[:, :, :3] *= by[5] * (share / CONTROL_DT**2)
        result[:, :, :, 0] = 0.0
        result[:, :, :, 1:] = change
        result[:, :, :, :-1] -= change
        result[ANCHOR, :, 3, :-1] += pull * change[:, :, 3].sum(0)
        here, error = result[:, :, :, 1:], error[:, :, :, 1:]
        pos = error[:, :, 3]
        here[:, :, :3].addcmul_(error[:, :, :3], by[3] * share)
        here[ANCHOR, :, :3].addcmul_(error[ANCHOR, :, :3], by[1])
        relative = (pos - pos[ANCHOR]) * (by[2] * (2 * share))
        here[:, :, 3] += relative
        here[ANCHOR, :, 3] += 2 * pos[ANCHOR] * by[0] - relative.sum(0)
        return result, None


@functools.cache
def _weights_and_widths(rewards: RewardConfig) -> tuple[Constant, Constant]:
    """Weights and widths of the six tracking rewards. `[6]` each."""
    return (
        Constant([getattr(rewards, name) for name in TRACKED]),
        Constant([getattr(rewards, f"{name}_std") for name in TRACKED]),
    )


def tracking_loss(
    links: Tensor, ref_links: Tensor, batch: int, rewards: RewardConfig, recovery: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How far robots are from the reference over H steps, by the task's six tracking rewards.

    `sum_i w_i 2 (sqrt(1 + e_i^2 / s_i^2) - 1)`, a pseudo-Huber loss, where e_i^2 is the mean over
    links of the squared error of which the reward is `w_i exp(-e_i^2 / s_i^2)`: near the reference
    the two have one slope, and far from it, where the reward has none, this grows with the
    distance. Positions of links are
    relative to the anchor, in world axes; errors of velocities are the changes of errors of poses
    from step to step. What the velocities are compared with is the reference's, and towards it by
    `recovery` times the anchor's distance: otherwise it would never pay within half a second to
    hurry after it. Of a rotation the square is |R - R_ref|^2 / 2 = 2 (1 - cos angle).

    Args:
        links: tracked ones, in the world, over H + 1 steps of B robots, the first where they start:
            `[M, 3, 4, (H + 1) B]`.
        ref_links: the reference's, likewise.
        batch: B.
        rewards: weights and widths.
        recovery: 1/s.

    Returns:
        The loss and the squared distance of the anchor, m^2, of the H steps, `[H B]` each.
    """
    error = (links - ref_links).view(*links.shape[:3], -1, batch)
    squares = SquareErrors.apply(error, recovery)
    assert isinstance(squares, Tensor)
    weights, widths = (constant.like(squares) for constant in _weights_and_widths(rewards))
    scaled = squares / widths[:, None, None] ** 2
    loss = 2 * weights @ ((1 + scaled).sqrt() - 1).flatten(1)
    return loss, squares[0].detach().flatten()


def penalties(
    joint_pos: Tensor, actions: Sequence[Tensor], rewards: RewardConfig, robot: Robot = g1.G1
) -> tuple[Tensor, Tensor]:
    """What joint limits and the action rate take off, of H steps. `[H B]` each, 0 or more.

    Args:
        joint_pos: after each step, `[H B, 29]`, rad.
        actions: before the first step and of each, H + 1 of `[B, 29]`.
        rewards: weights.
        robot: whose joints they are.
    """
    low, high = soft_range(robot).like(joint_pos)
    outside = (joint_pos - joint_pos.clamp(low, high)).abs()
    change = torch.cat([(b - a).square().sum(1) for a, b in pairwise(actions)])
    return -rewards.joint_limit * outside.sum(1), -rewards.action_rate * change


def on_ground(links: Tensor) -> Tensor:
    """How much each foot is on the ground, by the lowest corner of its sole. `[2, B]`, 0 to 1.

    The model has no forces, and a gradient needs a slope: half at a height of `CONTACT_DEPTH`, 0.88
    where the corner touches.

    Args:
        links: tracked ones, in the world, `[M, 3, 4, B]`.
    """
    up = torch.stack([links[foot, 2] for foot in FEET])  # a list would go to a GPU every time
    lowest = (SOLE.like(up) @ up[:, :3] + up[:, 3:] - SOLE_RADIUS).amin(1)
    return torch.sigmoid((CONTACT_DEPTH - lowest) * (2 / CONTACT_DEPTH))


def optional_cost(
    links: Tensor, joint_vel: Tensor, actions: Tensor, ref_contact: Tensor, rewards: RewardConfig
) -> Tensor:
    """What those of `IMAGINED` that have a weight take off, of H steps. `[H B]`.

    Args:
        links: tracked ones, in the world, after the steps: `[M, 3, 4, H B]`.
        joint_vel: before the first step and after each, `[H + 1, B, 29]`, rad/s.
        actions: likewise, `[H + 1, B, 29]`. What was before is not known: the first step has no
            second difference.
        ref_contact: of the reference after the steps, `[H B, 2]` bool.
        rewards: weights.
    """
    cost = torch.zeros_like(actions[1:, :, 0])
    if rewards.action_accel:
        cost[1:] -= rewards.action_accel * action_accel(actions[2:], actions[1:-1], actions[:-2])
    if rewards.joint_accel:
        cost -= rewards.joint_accel * joint_accel(joint_vel[1:], joint_vel[:-1], CONTROL_DT)
    cost = cost.flatten()
    if rewards.foot_contact:
        mismatch = (on_ground(links) - ref_contact.T.to(links)).abs().sum(0)
        cost = cost - rewards.foot_contact * mismatch
    return cost
