"""The standing policy at work: from whatever a robot is doing to a balanced stand.

`balance` is a tracking policy, trained on clips that stand, or walk and stop, from starts that are
thrown about and with pushes, so that it steps where it has to. It follows the clip `stand`, which
has no place of its own here: it begins where the robot would come to rest, and gives way where the
robot does not come to it.
"""

from __future__ import annotations

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.messages import Command, RobotState
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.tracker import Tracker
from bm_envs.policy import CONTROL_DT, Policy

NAME, MOTION = "balance", "stand"
# The stand lies this times the robot's velocity ahead at first, s, and later at most so far from
# the robot, m (level, of the torso). Both are ours; no fine choice.
AHEAD_S, LEASH_M = 0.15, 0.3
# It stands still when its pelvis' speed, averaged over about `AVERAGED_S`, and its tilt have been
# below these for `STILL_S`.
AVERAGED_S, STILL_M_S, STILL_DEG, STILL_S = 0.3, 0.15, 15.0, 0.5


class Balance:
    """The standing policy on one robot.

    Attributes:
        tracker: it, on the clip `stand`.
        is_still: whether the robot has been standing still.
    """

    def __init__(self, policy: Policy | str = NAME, motion: Motion | str = MOTION) -> None:
        """Load it.

        Args:
            policy: a tracking policy that stands.
            motion: what it follows.
        """
        self.tracker = Tracker(policy, motion)
        self._speed, self._still_s = np.zeros(3), 0.0

    @property
    def is_still(self) -> bool:
        return self._still_s >= STILL_S

    def begin(self, state: RobotState) -> None:
        """Lay the stand to where the robot would come to rest."""
        self.tracker.begin(state)
        self._speed, self._still_s = np.zeros(3), 0.0
        if state.base_lin_vel is not None:
            self._speed = state.base_lin_vel.copy()
            self.tracker.alignment.offset[:2] += AHEAD_S * state.base_lin_vel[:2]

    def act(self, state: RobotState) -> Command:
        """The command of one control step.

        Raises:
            ConfigError, PolicyError: as of `Tracker.act`.
        """
        self._give_way(state)
        self._watch(state)
        return self.tracker.act(state)

    def _give_way(self, state: RobotState) -> None:
        """Move the stand level, to `LEASH_M` from the robot at most."""
        tracker = self.tracker
        pos, _ = tracker.motion.anchor(tracker.frame)
        alignment = tracker.alignment
        off = (alignment.matrix @ pos + alignment.offset - tracker.anchor_pose(state)[0])[:2]
        distance = float(np.linalg.norm(off))
        if distance > LEASH_M:
            alignment.offset[:2] -= (1 - LEASH_M / distance) * off

    def _watch(self, state: RobotState) -> None:
        """Count for how long the robot has been standing still."""
        if state.base_lin_vel is not None:
            self._speed += (state.base_lin_vel - self._speed) * CONTROL_DT / AVERAGED_S
        up = rot.quat_rotate_inverse(state.quat, np.array([0.0, 0.0, 1.0]))
        upright = up[2] >= np.cos(np.radians(STILL_DEG))
        slow = float(np.linalg.norm(self._speed)) < STILL_M_S
        self._still_s = self._still_s + CONTROL_DT if upright and slow else 0.0
