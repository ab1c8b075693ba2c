"""The motion that a policy follows on a robot, and where that motion lies in the robot's world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import PolicyError
from bm_envs.motion import library
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import CONTROL_DT, Policy, motion_tables, named_clip, named_motions


class Reference(Protocol):
    """What a tracker follows, frame by frame: a `Motion`, or a stream of it (`live.LiveMotion`)."""

    name: str

    @property
    def frames(self) -> int:
        """How many; a stream knows it at its end."""
        ...

    def joints(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities `[J]` in the policy's order, rad, rad/s."""
        ...

    def anchor(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Position `[3]`, m, and rotation matrix `[3, 3]` of the anchor body."""
        ...

    def body_pos(self, frame: int) -> np.ndarray:
        """Positions of the policy's bodies, m. `[K, 3]`."""
        ...

    def root(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The state in this frame, joints in the robot's order: `qpos [7 + J]`, `qvel [6 + J]`."""
        ...


class Motion:
    """The reference, frame by frame, as policy files hold it: joints in the policy's order.

    Attributes:
        name: of the motion.
        frames: how many.
    """

    def __init__(self, policy: Policy, motion: str | None = None) -> None:
        """The library's `motion`; None: the one inside the policy, or the one that it names.

        Raises:
            PolicyError: the policy names none, or one whose content has changed.
        """
        if motion is None and policy.motion is not None:
            self.name = policy.spec.extra.get("motion_name", policy.name)
            tables = policy.motion
        else:
            if motion is not None:
                clip = on_robot(library.load_motion(motion), policy.spec.robot)
            else:
                named = named_motions(policy)
                if len(named) != 1:
                    raise PolicyError(
                        f"{policy.path}: holds no motion and names {len(named)}; name one with "
                        "--motion."
                    )
                clip = named_clip(policy, named[0])
            self.name, tables = clip.name, motion_tables(clip, policy.spec)
        self._tables = tables
        self.frames = len(tables["joint_pos"])
        bodies = policy.spec.body_names
        self._anchor = bodies.index(policy.spec.anchor_body_name)
        root = policy.spec.robot.root_body
        if root not in bodies:
            raise PolicyError(f"{policy.path}: body_names lacks '{root}'.")
        self._root = bodies.index(root)
        self._to_robot = policy.spec.action_index()

    @property
    def duration_s(self) -> float:
        return (self.frames - 1) * CONTROL_DT

    def joints(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities `[29]` in the policy's order; at rest beyond the last frame."""
        last = min(frame, self.frames - 1)
        speed = self._tables["joint_vel"][last]
        return self._tables["joint_pos"][last], speed if frame == last else np.zeros_like(speed)

    def anchor(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Position `[3]` and rotation matrix `[3, 3]` of the anchor body, in the motion's world."""
        last = min(frame, self.frames - 1)
        quat = self._tables["body_quat_w"][last, self._anchor].astype(float)
        pos = self._tables["body_pos_w"][last, self._anchor].astype(float)
        return pos, rot.quat_to_matrix(rot.quat_normalize(quat))

    def body_pos(self, frame: int) -> np.ndarray:
        """Positions of `body_names`, in the motion's world. `[K, 3]`."""
        return self._tables["body_pos_w"][min(frame, self.frames - 1)].astype(float)

    def root(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The state in this frame, joints in the robot's order: `qpos [36]` and `qvel [35]`."""
        last = min(frame, self.frames - 1)
        place = {
            name: self._tables[name][last, self._root].astype(float)
            for name in ("body_pos_w", "body_quat_w", "body_lin_vel_w", "body_ang_vel_w")
        }
        quat = rot.quat_normalize(place["body_quat_w"])
        turning = rot.quat_rotate_inverse(quat, place["body_ang_vel_w"])
        pos, vel = self.joints(frame)
        return (
            np.concatenate([place["body_pos_w"], quat, pos[self._to_robot]]),
            np.concatenate([place["body_lin_vel_w"], turning, vel[self._to_robot]]),
        )


@dataclass
class Alignment:
    """Where the motion's world lies in the robot's: turned about the vertical, then moved level.

    Heights are left alone, because the floor is at 0 in both.
    """

    matrix: np.ndarray = field(default_factory=lambda: np.eye(3))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def of(
        cls, robot_pos: np.ndarray, robot_matrix: np.ndarray, pos: np.ndarray, matrix: np.ndarray
    ) -> Alignment:
        """The one that takes a body of the motion to where the robot's is, level and in heading."""
        turn = robot_matrix @ matrix.T
        # The heading of a rotation: that of its x axis over the ground.
        angle = np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])
        heading = rot.quat_to_matrix(np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)]))
        offset = robot_pos - heading @ pos
        offset[2] = 0.0
        return cls(heading, offset)
