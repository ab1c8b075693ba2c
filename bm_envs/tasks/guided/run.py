"""run: run straight ahead at a commanded speed."""

from __future__ import annotations

import numpy as np

from bm_envs.tasks.guided.base import length
from bm_envs.tasks.guided.config import RunConfig
from bm_envs.tasks.guided.joystick import CommandedTask


class RunTask(CommandedTask):
    """Run straight ahead at one speed. Success: no fall, and a mean speed near the commanded."""

    config: RunConfig

    def result_of(self, env_ids: np.ndarray, command: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, passed = super().result_of(env_ids, command)
        return value, passed & (value <= self.config.most_speed_share * length(command[:, :2]))

    def is_won(self) -> np.ndarray:
        return super().is_won() & self.segment_passed.all(1)
