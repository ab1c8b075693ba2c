"""From a plan of walking to a motion of the whole robot (steps 3 and 4 of `procedural`).

The centre of mass follows from the ZMP and from the angular momentum of the round before; inverse
kinematics then finds the pelvis position and the leg joints of every frame.

Units: m, rad, s.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from bm_envs.errors import MotionError
from bm_envs.motion.gait import Stance, WalkPlan, default_stance
from bm_envs.robots import g1, mjcf

GRAVITY = 9.81  # m/s^2


@dataclass(frozen=True, eq=False)
class States:
    """A whole-body motion: `root_pos [T, 3]`, `root_quat [T, 4]` w x y z, `joint_pos [T, 29]`."""

    root_pos: np.ndarray
    root_quat: np.ndarray
    joint_pos: np.ndarray


def solve_states(plan: WalkPlan, rounds: int = 5) -> States:
    """A motion that carries out the plan, with its whole-body ZMP on the planned one.

    Args:
        plan: from `plan_walk`.
        rounds: passes of centre of mass and inverse kinematics; the first ignores angular momentum.
    """
    stance = default_stance()
    dt = 1.0 / plan.gait.fps
    height = plan.com_height
    lift = GRAVITY + np.gradient(np.gradient(height, dt), dt)
    shift = np.zeros_like(plan.zmp)
    states = None
    for _ in range(rounds):
        com_xy = solve_com(plan.zmp + shift, height / lift, dt)
        states = inverse_kinematics(plan, np.column_stack([com_xy, height]), stance, guess=states)
        rate = momentum_rate(states, dt)
        shift = np.column_stack([rate[:, 1], -rate[:, 0]]) / (stance.mass * lift)[:, None]
    assert states is not None
    return states


def solve_com(zmp: np.ndarray, ratio: np.ndarray, dt: float) -> np.ndarray:
    """Centre of mass `[T, 2]` with `c - ratio * c'' = zmp` and both ends on the ZMP.

    Args:
        zmp: `[T, 2]`, m.
        ratio: `[T]`, height over gravity plus vertical acceleration, s^2.
        dt: time between frames, s.
    """
    # Thomas algorithm: -k c[i-1] + (1 + 2k) c[i] - k c[i+1] = p[i], diagonally dominant.
    k = ratio / dt**2
    com = np.array(zmp, dtype=float)
    upper = np.zeros(len(zmp))
    for i in range(1, len(zmp) - 1):
        pivot = 1 + 2 * k[i] - k[i] * upper[i - 1]
        upper[i] = k[i] / pivot
        com[i] = (zmp[i] + k[i] * com[i - 1]) / pivot
    for i in range(len(zmp) - 2, 0, -1):
        com[i] += upper[i] * com[i + 1]
    return com


def inverse_kinematics(
    plan: WalkPlan,
    com: np.ndarray,
    stance: Stance,
    guess: States | None = None,
    tolerance: float = 1e-9,
) -> States:
    """Pelvis position and leg joints for a centre of mass `[T, 3]` and the plan's feet.

    Each frame starts from the one before (or from `guess`) and stops when every residual (m, rad)
    is under `tolerance`.

    Raises:
        MotionError: a frame cannot be reached, or a joint leaves its soft range.
    """
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    feet = [model.body(name).id for name in g1.FOOT_BODIES]
    dofs = np.r_[0:3, 6:18]  # the unknowns in qvel: pelvis position, leg joints
    coordinates = np.r_[0:3, 7:19]  # and in qpos, where the pelvis quaternion takes one more
    frames = len(com)
    qpos = np.empty((frames, model.nq))
    jacobian = np.zeros((15, model.nv))
    error = np.empty(15)
    damping = 1e-10 * np.eye(15)
    relative, conjugate = np.empty(4), np.empty(4)

    data.qpos[:3] = (com[0, 0] - stance.com_ahead - stance.ankle_x, com[0, 1], stance.root_height)
    data.qpos[7:] = g1.DEFAULT_JOINT_POS
    for t in range(frames):
        if guess is not None:
            data.qpos[:3], data.qpos[7:] = guess.root_pos[t], guess.joint_pos[t]
        data.qpos[3:7] = _yaw_quat(plan.heading[t])
        data.qpos[19:] = plan.upper_joint_pos[t]
        for _ in range(50):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error[12:] = com[t] - data.subtree_com[1]
            for side, body in enumerate(feet):
                row = 6 * side
                error[row : row + 3] = plan.foot_pos[t, side] - data.xpos[body]
                mujoco.mju_negQuat(conjugate, data.xquat[body])
                mujoco.mju_mulQuat(relative, plan.foot_quat[t, side], conjugate)
                mujoco.mju_quat2Vel(error[row + 3 : row + 6], relative, 1.0)
            if np.abs(error).max() < tolerance:
                break
            for side, body in enumerate(feet):
                row = 6 * side
                mujoco.mj_jacBody(
                    model, data, jacobian[row : row + 3], jacobian[row + 3 : row + 6], body
                )
            mujoco.mj_jacSubtreeCom(model, data, jacobian[12:], 1)
            j = jacobian[:, dofs]
            move = j.T @ np.linalg.solve(j @ j.T + damping, error)
            # A stretched leg asks for huge joint steps; half a radian stays where Newton is valid.
            move *= min(1.0, 0.5 / max(np.abs(move).max(), 1e-12))
            data.qpos[coordinates] += move
        else:
            raise MotionError(
                f"Frame {t} ({t / plan.gait.fps:.2f} s) of the walk cannot be reached: residual "
                f"{np.abs(error).max():.1e} after 50 steps; expected shorter or slower steps."
            )
        qpos[t] = data.qpos
    joint_pos = qpos[:, 7:]
    soft = g1.soft_joint_range()
    excess = np.maximum(soft[:, 0] - joint_pos, joint_pos - soft[:, 1])
    if excess.max() > 0:
        t, j = np.unravel_index(int(excess.argmax()), excess.shape)
        raise MotionError(
            f"{g1.JOINT_NAMES[j]} is {joint_pos[t, j]:.3f} rad at frame {t}, expected within the "
            f"soft range [{soft[j, 0]:.3f}, {soft[j, 1]:.3f}]; take shorter or slower steps."
        )
    return States(qpos[:, :3], qpos[:, 3:7], joint_pos)


def momentum_rate(states: States, dt: float) -> np.ndarray:
    """`[T, 3]`, N m: rate of angular momentum about the centre of mass, world axes; 0 at both ends.

    The momentum is taken half way between frames, from the displacement between the two.
    """
    model = mjcf.compile_model()
    data = mujoco.MjData(model)
    qpos = np.column_stack([states.root_pos, states.root_quat, states.joint_pos])
    momentum = np.empty((len(qpos) - 1, 3))
    for t in range(len(momentum)):
        mujoco.mj_differentiatePos(model, data.qvel, dt, qpos[t], qpos[t + 1])
        data.qpos[:] = qpos[t]
        mujoco.mj_integratePos(model, data.qpos, data.qvel, dt / 2)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_subtreeVel(model, data)
        momentum[t] = data.subtree_angmom[1]
    rate = np.zeros((len(qpos), 3))
    rate[1:-1] = np.diff(momentum, axis=0) / dt
    return rate


def _yaw_quat(yaw: float) -> np.ndarray:
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
