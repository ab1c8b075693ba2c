"""The box of the training data, and how much of what a guide asks for lies outside it.

A model's file holds, for every feature, the range that nearly all of its training data lie in (the
percentiles 0.1 and 99.9, made wider by 5 %). An estimate that a guide moves out of that range is
cut back to a little more than it (`model.CLIP`), and is then not a step down a gradient but a
switch. So every guided run reports the share of moved numbers that lie outside, before any cut.
"""

from __future__ import annotations

import numpy as np

from bm_envs.diffusion.model import GuidedModel
from bm_envs.tasks.guided.states import PAST, Representation

BELOW = 12  # levels that the share is of: in noisier calls nothing of the window is decided yet
MOST = 0.2  # of the numbers that a guide moves may lie outside


class Box:
    """Counts, over all calls of a run, what a guide moved and what of it left the data's range.

    It is the `watch` of a guide. What counts are the future states of calls at levels below
    `BELOW`, and of these the numbers that the guide changed.

    Attributes:
        active: robots that count, `[N]`; all, unless it is set.
    """

    def __init__(self, model: GuidedModel, count: int) -> None:
        """A box without counts, of `count` robots."""
        self._rep: Representation = model.representation
        self.low, self.high = model.range
        size = self._rep.size
        self.moved, self.outside = np.zeros(size, int), np.zeros(size, int)
        self.active = np.ones(count, bool)

    def __call__(self, features: np.ndarray, step: np.ndarray, levels: np.ndarray) -> None:
        """See `guidance.Watch`."""
        features, step, levels = (x[self.active, PAST:] for x in (features, step, levels))
        changed = (step != 0) & (levels < BELOW)[..., None]
        beyond = (features + step < self.low) | (features + step > self.high)
        self.moved += changed.sum((0, 1))
        self.outside += (changed & beyond).sum((0, 1))

    def share(self) -> float | None:
        """Share of all numbers that were moved which lay outside; None: nothing was moved."""
        moved = int(self.moved.sum())
        return self.outside.sum() / moved if moved else None

    def by_feature(self) -> dict[str, float]:
        """The same of each feature that was moved, by names such as `root_lin_vel 0`."""
        return {
            f"{block} {i - part.start}": self.outside[i] / self.moved[i]
            for block, part in self._rep.blocks.items()
            for i in range(part.start, part.stop)
            if self.moved[i]
        }
