"""A tracking policy for your own control loop: a robot's state in, motor commands out.

    from bm_envs.deploy import RobotState, Tracker

    tracker = Tracker("walk")
    while not tracker.is_done:          # every 20 ms
        state = RobotState(quat=..., gyro=..., joint_pos=..., joint_vel=...,
                           base_pos=..., base_lin_vel=...)
        command = tracker.act(state)    # command.joint_pos [29], rad, and gains

Everything it knows of the policy stands in the policy's file: joint order, gains, default pose,
action scale, observation terms, anchor body, motion. `docs/policy_files.md` has the formulas. It
loads ONNX Runtime and NumPy, neither torch nor MuJoCo, and knows no simulator and no transport.
States and commands are in the robot's motor order, the policy's values in its own, `joint_names`.

Nothing here keeps a robot safe: `controller.Controller` stands up, bounds commands and stops.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.envelope import check_policy
from bm_envs.deploy.messages import Command, RobotState
from bm_envs.deploy.reference import Alignment, Motion, Reference
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.policy import Policy, load_policy
from bm_envs.robots.kinematics import LinkChain
from bm_envs.robots.robot import Robot, order_map

_SHAPES = {"quat": (4,), "gyro": (3,), "base_pos": (3,), "base_lin_vel": (3,)}
_NEED_BASE = ("motion_anchor_pos_b", "base_lin_vel")  # observation terms


class Tracker:
    """One policy that follows one motion.

    Attributes:
        policy: the policy.
        motion: what it follows.
        lead: frames by which the reference that the policy sees is ahead of the robot.
        frame: of the motion, at which the robot is or should be. From the last one on the policy
            holds the motion's last pose, which not every policy can.
        is_late: never; of an `Actor`.
        alignment: of the motion's world in the robot's.
        action_s: time of the last call of the policy, observation and all, s.
    """

    def __init__(
        self, policy: Policy | str | Path, motion: Reference | str | None = None, *, lead: int = 1
    ) -> None:
        """Load what is needed; the first `act` begins the motion.

        Args:
            policy: a policy, an ONNX file, a run directory, a shipped name, or hub:OWNER/NAME.
            motion: a motion, a stream (`live.LiveMotion`), or what `--motion` takes; None: the one
                inside the policy, or that it names.
            lead: 1 as in this project's task, 0 for policies that were trained without.

        Raises:
            PolicyError: the file is no tracking policy, or its gains, scales or default pose are
                none for a robot.
            MotionError: there is no such motion.
        """
        if lead not in (0, 1):
            raise ConfigError(f"lead is {lead}, expected 0 or 1.")
        if isinstance(policy, str | Path):
            policy = load_policy(str(policy))
        check_policy(policy)
        spec = policy.spec
        self.policy, self.lead = policy, lead
        if motion is None or isinstance(motion, str):
            motion = Motion(policy, motion)
        self.motion: Reference = motion
        robot, joints = spec.robot, (spec.robot.num_joints,)
        self._shapes = _SHAPES | {"joint_pos": joints, "joint_vel": joints}
        self._to_policy = order_map(robot.joint_names, spec.joint_names)
        self._to_robot = spec.action_index()
        self._default = np.array(spec.default_joint_pos)
        self._scale = np.array(spec.action_scale)
        self._stiffness = np.array(spec.in_project_order("joint_stiffness"))
        self._damping = np.array(spec.in_project_order("joint_damping"))
        self._anchor = LinkChain(spec.anchor_body_name, robot.root_body, robot)
        self._needs_base = [name for name in spec.observation_names if name in _NEED_BASE]
        self._began, self.is_late = False, False
        self.reset()

    def reset(self) -> None:
        """Go back to before the motion: the next `act` begins it where the robot is then."""
        self.frame, self.action_s, self._began = 0, 0.0, False
        self.alignment = Alignment()
        self._action = np.zeros(len(self._default), np.float32)

    @property
    def robot(self) -> Robot:
        """The robot that the policy is for."""
        return self.policy.spec.robot

    @property
    def is_done(self) -> bool:
        """Whether the motion is at its last frame."""
        return self.frame >= self.motion.frames - 1

    @property
    def default_joint_pos(self) -> np.ndarray:
        """The policy's default pose in the robot's order, rad. `[J]`."""
        return self._default[self._to_robot]

    def begin(self, state: RobotState) -> None:
        """Lay the motion's first frame where the robot is, level and in heading."""
        self.reset()
        self.alignment = Alignment.of(*self.anchor_pose(state), *self.motion.anchor(0))
        self._began = True

    def act(self, state: RobotState) -> Command:
        """The command of one control step; call it every 20 ms.

        Raises:
            ConfigError: a part of the state has another shape, is missing, or is not finite.
            PolicyError: the policy's action is not finite.
        """
        self._check(state)
        if not self._began:
            self.begin(state)
        tick = time.perf_counter()
        action = self.policy(self.observe(state, self.frame)[None])[0]
        self.action_s = time.perf_counter() - tick
        if not np.isfinite(action).all():
            raise PolicyError("the policy's action is not finite")
        self._action = action
        self.frame += 1
        target = (self._default + self._scale * action)[self._to_robot]
        return Command(target, self._stiffness, self._damping)

    @property
    def steps(self) -> int:
        """Control steps from the motion's first frame to its last."""
        return self.motion.frames - 1

    def renew(self, state: RobotState) -> Command | None:
        """None: an action is there when its control step begins."""

    def leaning(self, state: RobotState, *, expected: bool) -> tuple[np.ndarray, np.ndarray]:
        """Upward, seen from the anchor body, as it is and as the motion has it. `[3]` each.

        They differ by the tilt, not by the heading. Without `expected` it should stand upright.
        """
        upright = self.motion.anchor(self.frame)[1][2] if expected else np.array([0.0, 0.0, 1.0])
        return self.anchor_pose(state)[1][2], upright

    def observe(self, state: RobotState, frame: int) -> np.ndarray:
        """The policy's observation when it is shown a frame of the motion. `[O]` float32."""
        shown = frame + self.lead
        ref_joint_pos, ref_joint_vel = self.motion.joints(shown)
        ref_pos, ref_matrix = self._aligned_anchor(shown)
        anchor_pos, anchor_matrix = self.anchor_pose(state)
        base_lin_vel = np.zeros(3) if state.base_lin_vel is None else state.base_lin_vel
        relative = anchor_matrix.T @ ref_matrix
        terms = {
            "command": np.concatenate([ref_joint_pos, ref_joint_vel]),
            "motion_anchor_pos_b": anchor_matrix.T @ (ref_pos - anchor_pos),
            "motion_anchor_ori_b": relative[:, :2].ravel(),
            "base_lin_vel": rot.quat_rotate_inverse(state.quat, base_lin_vel),
            "base_ang_vel": state.gyro,
            "joint_pos": state.joint_pos[self._to_policy] - self._default,
            "joint_vel": state.joint_vel[self._to_policy],
            "actions": self._action,
        }
        names = self.policy.spec.observation_names
        return np.concatenate([terms[name] for name in names]).astype(np.float32)

    def anchor_pose(self, state: RobotState) -> tuple[np.ndarray, np.ndarray]:
        """The robot's anchor body: position `[3]`, m, and rotation matrix `[3, 3]`, world.

        Without a `base_pos` the pelvis is taken to be at the origin.
        """
        base = np.zeros(3) if state.base_pos is None else state.base_pos
        return self._anchor.pose(base, state.quat, state.joint_pos)

    def _aligned_anchor(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        pos, matrix = self.motion.anchor(frame)
        turn = self.alignment.matrix
        return turn @ pos + self.alignment.offset, turn @ matrix

    def _check(self, state: RobotState) -> None:
        for name, shape in self._shapes.items():
            value = getattr(state, name)
            if value is None and name in ("base_pos", "base_lin_vel"):
                if self._needs_base:
                    raise ConfigError(
                        f"the state has no {name}, but the policy observes "
                        f"{' and '.join(self._needs_base)}: give it by an estimator, or take a "
                        "policy without state estimation."
                    )
                continue
            found = getattr(value, "shape", None)
            if value is None or found != shape:
                raise ConfigError(f"the state's {name} has shape {found}, expected {shape}.")
            if not np.isfinite(value).all():
                raise ConfigError(f"the state's {name} is not finite, expected numbers.")
