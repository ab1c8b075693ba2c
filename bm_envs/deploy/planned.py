"""A planner for a robot's control loop: its plans come from a thread of their own, perhaps late.

A plan holds actions of the present control step and of some after it. The loop asks for a plan from
the states of every control step, and never waits for one: at any time it executes what the newest
plan has for the present step. A plan that takes longer than a step makes the next one begin later,
from the newest states. Where even the last action of a plan is over, the last target holds, and the
step counts as late: too many of them, and the envelope damps.

What plans is given (`Planner`); `bm_envs.diffusion.robot_planner` is the one of this project.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.background import Background
from bm_envs.deploy.envelope import check_drives
from bm_envs.deploy.messages import Command, Sensors
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.robots import g1
from bm_envs.robots.robot import Robot

_UP = np.array([0.0, 0.0, 1.0])


class Planner(Protocol):
    """Plans actions of one robot. It is called in a thread of its own, a call at a time."""

    name: str
    past: int
    """States that a plan is made from."""
    ahead: int
    """Actions of a plan."""
    steps: int
    """Control steps that there is something to do."""
    drives: dict[str, tuple[float, ...]]
    """`default_joint_pos`, `action_scale`, `stiffness` and `damping`, `[29]` each."""

    def plan(self, qpos: np.ndarray, qvel: np.ndarray, step: int) -> np.ndarray:
        """Raw actions `[ahead, 29]` of control step `step` and of those after it.

        Args:
            qpos: `[past, 36]`, root position, m, and quaternion w x y z in the world, joints, rad,
                of the last control steps, the present one last.
            qvel: `[past, 35]`, velocity of the pelvis origin, m/s, world axes; angular velocity,
                rad/s, pelvis axes; joints, rad/s.
            step: which control step it is.
        """
        ...


class Plan(NamedTuple):
    """A plan that came."""

    step: int
    """From the states of which control step."""
    actions: np.ndarray
    """`[ahead, 29]`, raw, of that step and of those after it."""


class Planned:
    """An actor whose actions are planned.

    Attributes:
        frame: control steps so far.
        is_late: whether the last control step had no action in any plan.
        action_s: time of the last plan, s.
        ages: of each control step with a plan, how many steps before it the plan was asked for.
    """

    def __init__(self, planner: Planner, *, plan_s: float | None = None) -> None:
        """Begin the thread.

        Args:
            planner: what plans.
            plan_s: seconds that a plan takes, by the clock of readings, however long it takes here:
                of a simulation, which waits for it. None: a plan is there when it is there.

        Raises:
            PolicyError: the drives are none for a robot.
        """
        check_drives(planner.name, {
            "joint_stiffness": planner.drives["stiffness"],
            "joint_damping": planner.drives["damping"],
            "action_scale": planner.drives["action_scale"],
            "default_joint_pos": planner.drives["default_joint_pos"],
        })  # fmt: skip
        self._planner, self._plan_s = planner, plan_s
        self._thread: Background[Plan] = Background(self._think)
        drives = {name: np.array(values, float) for name, values in planner.drives.items()}
        self._default, self._scale = drives["default_joint_pos"], drives["action_scale"]
        self._stiffness, self._damping = drives["stiffness"], drives["damping"]
        self.frame, self.is_late, self.ages = 0, False, list[int]()
        self._plan: Plan | None = None
        self._began_s = 0.0  # the present call, by the clock of readings
        self._waiting: tuple[np.ndarray, np.ndarray, int] | None = None
        self._qpos, self._qvel = np.zeros((0, 36)), np.zeros((0, 35))

    @property
    def steps(self) -> int:
        """Control steps in all."""
        return self._planner.steps

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.frame >= self.steps

    @property
    def robot(self) -> Robot:
        """The G1 with 29 joints: guided models know no other."""
        return g1.G1

    @property
    def default_joint_pos(self) -> np.ndarray:
        """The pose that the robot stands in before and after, rad. `[29]`."""
        return self._default

    @property
    def action_s(self) -> float:
        """Time of the last plan, s."""
        took = self._thread.took_s
        return took[-1] if took else 0.0

    @property
    def took_s(self) -> list[float]:
        """Time of each plan so far, s."""
        return self._thread.took_s

    def begin(self, state: Sensors) -> None:
        """Take over a robot that has been in this state for a while."""
        qpos, qvel = _full_state(state)
        self._qpos = np.tile(qpos, (self._planner.past, 1))
        self._qvel = np.tile(qvel, (self._planner.past, 1))

    def act(self, state: Sensors) -> Command | None:
        """The command of a control step; None: keep the last one.

        Raises:
            PolicyError: the plan's action is not finite.
        """
        qpos, qvel = _full_state(state)
        self._qpos = np.concatenate([self._qpos[1:], qpos[None]])
        self._qvel = np.concatenate([self._qvel[1:], qvel[None]])
        self._waiting = self._qpos, self._qvel, self.frame
        self._collect(state.time_s)  # and what begins after it, begins from this state
        self._begin_plan(state.time_s)
        self._collect(state.time_s)  # one that takes no time
        self.frame += 1
        first = 0 if self._plan is None else self._plan.step
        age = self.frame - 1 - first
        length = self._planner.ahead if self._plan is None else len(self._plan.actions)
        self.is_late = age >= length
        if self._plan is None or self.is_late:
            return None
        self.ages.append(age)
        return self._command(age)

    def renew(self, state: Sensors) -> Command | None:
        """The command of a plan that came since the control step began; None: none came."""
        if not self._collect(state.time_s) or self._plan is None:
            return None
        age = self.frame - 1 - self._plan.step
        return self._command(age) if age < len(self._plan.actions) else None

    def leaning(self, state: Sensors, *, expected: bool) -> tuple[np.ndarray, np.ndarray]:
        """Upward, seen from the pelvis, as it is and as it should be: upright. `[3]` each."""
        return rot.quat_rotate_inverse(state.quat, _UP), _UP

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    # --- parts ---

    def _think(self, qpos: np.ndarray, qvel: np.ndarray, step: int) -> Plan:
        """In the other thread."""
        return Plan(step, self._planner.plan(qpos, qvel, step))

    def _begin_plan(self, now: float) -> None:
        """Begin the plan that waits, if none is being made."""
        if self._waiting is not None and not self._thread.is_busy:
            self._thread.start(*self._waiting)
            self._began_s, self._waiting = now, None

    def _collect(self, now: float) -> bool:
        """Take the plan that is there by now, and begin the one that waits; was there one?"""
        if not self._thread.is_busy:
            return False
        if self._plan_s is not None and now < self._began_s + self._plan_s - 1e-6:
            return False
        plan = self._thread.take(wait=self._plan_s is not None)
        if plan is None:
            return False
        if not np.isfinite(plan.actions).all():
            raise PolicyError("the policy's action is not finite")
        self._plan = plan
        self._begin_plan(now)
        return True

    def _command(self, age: int) -> Command:
        assert self._plan is not None
        target = self._default + self._scale * self._plan.actions[age]
        return Command(target, self._stiffness, self._damping)


def _full_state(state: Sensors) -> tuple[np.ndarray, np.ndarray]:
    """`qpos [36]` and `qvel [35]`.

    Raises:
        ConfigError: the base's place or velocity is missing or not finite.
    """
    if state.base_pos is None or state.base_lin_vel is None:
        raise ConfigError(
            "the state has no base_pos or base_lin_vel, but a plan is made from them."
        )
    qpos = np.concatenate([state.base_pos, state.quat, state.joint_pos])
    qvel = np.concatenate([state.base_lin_vel, state.gyro, state.joint_vel])
    if not (np.isfinite(qpos).all() and np.isfinite(qvel).all()):
        raise ConfigError("the state is not finite, expected numbers.")
    return qpos, qvel
