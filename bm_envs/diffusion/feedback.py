"""What robots do of what a guide asks for, and what that changes in what they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bm_envs.diffusion.controller import one_blas_thread
from bm_envs.diffusion.costs import Corrected, Cost
from bm_envs.diffusion.model import GuidedModel
from bm_envs.diffusion.sampler import Sample
from bm_envs.tasks.guided.states import PAST
from bm_envs.tasks.track.config import CONTROL_DT

if TYPE_CHECKING:
    from bm_envs.diffusion.steering import Steering


class Feedback:
    """What N robots do of what is asked, and what that changes in what they are asked.

    What a guided model executes differs from what it predicts, most where the guide asks for what
    the data seldom show. The difference of the two velocities is filtered, and the costs see the
    predictions without it (`costs.Corrected`), so that what is executed settles at what was asked.
    And a robot that was pushed is asked for less for a short time.

    Attributes:
        offset: predicted less executed velocity forward and left, m/s, and turning rate, rad/s, of
            each robot's heading. `[N, 3]`.
    """

    def __init__(self, steering: Steering, velocity: np.ndarray) -> None:
        """Of robots whose roots move with `velocity [N, 2]` over the ground, m/s, world."""
        self._steering = steering
        self.offset = np.zeros((len(velocity), 3))
        self._shaken = np.zeros(len(velocity))  # m/s
        self._velocity = velocity.copy()

    def steady(self, velocity: np.ndarray) -> np.ndarray:
        """Share of what is asked of each robot, less after a push; call it every tick. `[N]`."""
        steering = self._steering
        with np.errstate(invalid="ignore", over="ignore"):  # robots that diverged
            jump = np.nan_to_num(np.linalg.norm(velocity - self._velocity, axis=1), posinf=0.0)
        self._velocity = velocity.copy()
        self._shaken = np.maximum(jump, self._shaken * np.exp(-CONTROL_DT / steering.recover_s))
        return np.minimum(1.0, steering.recover_at / np.maximum(self._shaken, 1e-9)) ** 2

    def corrected(self, cost: Cost) -> Cost:
        """The cost, of what will really happen."""
        return Corrected(cost, self.offset) if np.isfinite(self._steering.correct_s) else cost

    def observe(self, predicted: np.ndarray, executed: np.ndarray) -> None:
        """Compare `predicted_velocity` with what robots do, `[N, 3]` each, of their headings."""
        steering = self._steering
        with np.errstate(invalid="ignore", over="ignore"):  # robots that diverged
            off = np.nan_to_num(predicted - executed)
        share = CONTROL_DT / steering.correct_s
        self.offset += share * (off - self.offset)
        self.offset.clip(-steering.most_correction, steering.most_correction, out=self.offset)


def predicted_velocity(model: GuidedModel, sample: Sample) -> np.ndarray:
    """Mean velocity forward and left, m/s, and turning rate, rad/s, of the future. `[N, 3]`."""
    blocks = model.representation.blocks
    plane = slice(blocks["root_lin_vel"].start, blocks["root_lin_vel"].start + 2)
    turn = blocks["root_ang_vel"].start + 2
    with one_blas_thread():
        plan = model.unscale(sample.states[:, PAST:])
    return np.column_stack([plan[..., plane].mean(1), plan[..., turn].mean(1)])
