"""When each foot of the robots last touched or left the ground."""

from __future__ import annotations

import numpy as np

from bm_envs.tasks.track.config import CONTROL_DT

GROUND_FORCE = 1.0  # N; a foot that presses with less is in the air. Source: Isaac Lab


class FootPhases:
    """How long each foot has been on or off the ground, of N robots.

    Attributes:
        contact: whether it is on the ground, `[N, 2]` bool, left and right.
        seconds: since it came to it or left it, `[N, 2]`.
    """

    def __init__(self, num_envs: int) -> None:
        self.contact = np.zeros((num_envs, 2), bool)
        self.seconds = np.zeros((num_envs, 2), np.float32)

    def reset(self, robots: np.ndarray) -> None:
        """Forget the past of `robots`, `[N]` bool."""
        self.contact[robots], self.seconds[robots] = False, 0.0

    def step(self, force: np.ndarray) -> None:
        """A control step that ended with the net forces `[N, 2, 3]`, N, on the feet."""
        contact = (force * force).sum(-1) > GROUND_FORCE**2
        self.seconds = np.where(contact == self.contact, self.seconds, 0.0) + np.float32(CONTROL_DT)
        self.contact = contact

    def get_state(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {"feet_contact": self.contact, "feet_seconds": self.seconds}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        self.contact, self.seconds = state["feet_contact"], state["feet_seconds"]
