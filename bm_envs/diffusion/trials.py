"""What trials of walkers have in common: where they start, and their seeds."""

from __future__ import annotations

from typing import Literal

import numpy as np

START_MOTIONS = ("walk_on_100[2:58]", "walk_on_101[2:58]")
"""Walks that no shipped model has seen; a trial starts in a frame of them."""
WARM_UP_S = 1.0
"""s of walking before the task begins."""


def seeds_of(seed: int, trials: int, what: Literal["trial", "noise", "start"]) -> list[int]:
    """A seed for each trial, which has nothing to do with their number."""
    number = ("trial", "noise", "start").index(what)
    draws = (np.random.SeedSequence([seed, i, number]) for i in range(trials))
    return [int(draw.generate_state(1, np.uint64)[0]) for draw in draws]
