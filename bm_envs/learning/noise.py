"""What disturbs imagined rollouts, by random numbers, many at once.

Letters in shapes: B rollouts, H steps, J = 29 joints, O observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bm_envs.learning.compiled import kernels
from bm_envs.learning.imagination import observation_noise
from bm_envs.learning.replay_buffer import Starts
from bm_envs.rotations import quat_to_matrix
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig


def even_numbers(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Evenly drawn from -1 to 1, float32, on the generator's device.

    Compiled they are a hash of their places and of a key that the generator draws: it would take
    as long to draw them one by one as some steps of imagination.
    """
    library, device = kernels(), generator.device
    if library is None or device.type != "cpu":
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1
    key = torch.randint(2**63 - 1, (1,), generator=generator).item()
    out = torch.empty(*shape)
    library.native_uniform(key, out.numel(), out.data_ptr())
    return out


class Noise(NamedTuple):
    """What disturbs imagined rollouts."""

    action: Tensor
    """`[H, B, J]`, raw."""
    obs: Tensor
    """`[H, B, O]`."""
    push: Tensor
    """`[B, 6]`, m/s and rad/s, world axes: what the start's velocities are changed by."""


def pushed(starts: Starts, push: Tensor) -> Starts:
    """States `[B, ...]` whose velocities jump by `push [B, 6]`, as `Simulator.push` has it."""
    qvel, push = starts.qvel.clone(), push.to(starts.qvel)
    qvel[:, :3] += push[:, :3]
    # The engine has the angular velocity in the pelvis's axes.
    qvel[:, 3:6] += (push[:, None, 3:] @ quat_to_matrix(starts.qpos[:, 3:7]))[:, 0]
    return starts._replace(qvel=qvel)


class Disturbances(nn.Module):
    """Draws what disturbs imagined rollouts of a task.

    The task's pushes come at random times. Here one comes at a rollout's start, in as many rollouts
    as would meet one while they last: from a later step on, such a rollout is one of these.
    """

    width: Tensor
    """`[O]`, half-widths of the observations' noise."""
    push: Tensor
    """`[6]`, half-widths of a push, m/s and rad/s."""

    def __init__(self, task: TrackConfig, horizon: int, action: float, *, pushes: bool) -> None:
        """Disturbances of rollouts over some steps.

        Args:
            task: whose noise and pushes they are.
            horizon: H.
            action: standard deviation of the raw action's noise.
            pushes: whether there are any, if the task has them.
        """
        super().__init__()
        self.horizon, self.action, self.share = horizon, action, 0.0
        self.num_joints = task.model.table.num_joints
        self.register_buffer("width", observation_noise(task))
        self.register_buffer("push", torch.tensor([*task.push.lin_vel, *task.push.ang_vel]))
        if pushes and task.pushes:
            wait_s = sum(task.push.interval_s) / 2
            self.share = min(1.0, horizon * CONTROL_DT / wait_s)

    def draw(self, batch: int, level: float, generator: torch.Generator) -> Noise:
        """Of B rollouts, at a level of the curriculum, 0 to 1; of actions always in full."""
        device = self.width.device
        shape = self.horizon, batch, self.num_joints
        action = torch.randn(*shape, generator=generator, device=device) * self.action
        obs = torch.zeros_like(self.width).expand(self.horizon, batch, -1)
        push = torch.zeros(batch, 6, device=device)
        if level > 0:
            obs = even_numbers(obs.shape, generator) * (level * self.width)
            if self.share:
                some = torch.rand(batch, 1, generator=generator, device=device) < self.share
                push = even_numbers(push.shape, generator) * (level * self.push) * some
        return Noise(action, obs, push)
