"""Which inverse kinematics retargets: the library mink, or a damped Newton step of our own.

    python benchmarks/retarget_solvers.py a.bvh b.bvh --json out.json

Both solve the same targets with the same costs, frame by frame, each from the one before, and stop
at the same step size or number of steps. `mink` finds a step under the joints' limits as a
quadratic program (solver DAQP). `newton` is the step of `bm_envs/motion/whole_body.py` with more
tasks than legs: MuJoCo's Jacobians, damped least squares, then joints cut off at their limits.

Rows: `solver, motion, frames, cpu_s, frames_per_s` (of processor time), `cost` (mean over the
frames of the sum of squared weighted errors, tasks alone), `arm_direction_deg`, `foot_error_m`
(95 % are nearer), `joint_speed_ratio` (largest, over the motor's limit; before any smoothing),
`limit_excess_rad`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import mujoco
import numpy as np
from tyro.conf import Positional

from bm_envs.errors import ConfigError
from bm_envs.motion import fidelity, retarget
from bm_envs.motion.bvh import read_bvh
from bm_envs.motion.feasibility import examine
from bm_envs.motion.retarget import FIRST_ITERATIONS, ITERATIONS, STEP, Targets, Weights
from bm_envs.motion.skeletons import SIDES, body_motion, find_mapping
from bm_envs.results import write_result
from bm_envs.robots import g1, mjcf


@dataclass(frozen=True)
class Config:
    """Compare solvers on the motions of BVH files."""

    motions: Positional[tuple[Path, ...]]
    """BVH files with a known skeleton."""
    repeats: int = 3
    """How often each is timed; the fastest counts."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        if not self.motions:
            raise ConfigError("Expected one BVH file or more.")
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}, expected 1 or more.")


class Errors:
    """Weighted errors of all tasks in a state, and their Jacobian: rows for pelvis to posture."""

    def __init__(self) -> None:
        self.model = mjcf.compile_model(mjcf.ModelConfig())
        self.data = mujoco.MjData(self.model)
        self.robot = retarget.robot_lengths()
        self.is_wrist = np.array(["wrist" in name for name in g1.JOINT_NAMES])
        self.rest = np.where(self.is_wrist, 0.0, g1.DEFAULT_JOINT_POS)

    def id(self, name: str) -> int:
        return self.model.body(name).id

    def set(self, qpos: np.ndarray) -> None:
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)

    def jacobian(self, body: int) -> tuple[np.ndarray, np.ndarray]:
        linear, angular = np.zeros((3, self.model.nv)), np.zeros((3, self.model.nv))
        mujoco.mj_jacBody(self.model, self.data, linear, angular, body)
        return linear, angular

    def turn(self, target: np.ndarray, body: int) -> np.ndarray:
        """World rotation vector from the body's orientation to the target."""
        conjugate, relative, vector = np.empty(4), np.empty(4), np.empty(3)
        mujoco.mju_negQuat(conjugate, self.data.xquat[body])
        mujoco.mju_mulQuat(relative, target, conjugate)
        mujoco.mju_quat2Vel(vector, relative, 1.0)
        return vector

    def rows(
        self, target: Targets, t: int, weights: Weights, before: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Errors, their Jacobian, and how many of the rows are of tasks."""
        errors: list[np.ndarray] = []
        jacobians: list[np.ndarray] = []

        def add(weight: float, error: np.ndarray, jacobian: np.ndarray) -> None:
            errors.append(weight * error)
            jacobians.append(weight * jacobian)

        def add_pose(body: int, pos: np.ndarray | None, quat: np.ndarray,
                     cost: float, turn_cost: float) -> None:  # fmt: skip
            linear, angular = self.jacobian(body)
            if pos is not None:
                add(cost, pos - self.data.xpos[body], linear)
            add(turn_cost, self.turn(quat, body), angular)

        trunk = self.id("torso_link")
        add_pose(self.id("pelvis"), target.pelvis_pos[t], target.pelvis_quat[t],
                 weights.pelvis_pos, weights.pelvis_quat)  # fmt: skip
        add_pose(trunk, None, target.torso_quat[t], 0.0, weights.torso_quat)
        _, trunk_turn = self.jacobian(trunk)
        trunk_move, _ = self.jacobian(trunk)
        for side, name in enumerate(SIDES):
            add_pose(self.id(f"{name}_ankle_roll_link"), target.foot_pos[t, side],
                     target.foot_quat[t, side], weights.foot_pos, weights.foot_quat)  # fmt: skip
            shoulder = self.data.xpos[self.id(f"{name}_shoulder_roll_link")]
            elbow = shoulder + self.robot.upper_arm * target.upper_arm[t, side]
            wrist = elbow + self.robot.forearm * target.forearm[t, side]
            for link, goal, cost in (
                ("elbow", elbow, weights.elbow_pos), ("wrist_yaw", wrist, weights.wrist_pos)
            ):  # fmt: skip
                body = self.id(f"{name}_{link}_link")
                linear, _ = self.jacobian(body)
                # What moves the arm against the torso, and not the two together.
                arm = _cross(self.data.xpos[body] - self.data.xpos[trunk])
                linear = linear - trunk_move + arm @ trunk_turn
                add(cost, goal - self.data.xpos[body], linear)
            body = self.id(f"{name}_wrist_yaw_link")
            ahead = self.data.xmat[body].reshape(3, 3)[:, 0]
            add(weights.hand, target.hand[t, side] - ahead,
                -_cross(ahead) @ self.jacobian(body)[1])  # fmt: skip
        tasks = sum(map(len, errors))
        joints = np.hstack([np.zeros((g1.NUM_JOINTS, 6)), np.eye(g1.NUM_JOINTS)])
        posture = np.where(self.is_wrist, weights.wrist_posture, weights.posture)
        add(1.0, posture * (self.rest - self.data.qpos[7:]), posture[:, None] * joints)
        if before is not None:
            add(weights.inertia, before[7:] - self.data.qpos[7:], joints)
        return np.concatenate(errors), np.concatenate(jacobians), tasks


def _cross(v: np.ndarray) -> np.ndarray:
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def newton(target: Targets, weights: Weights) -> np.ndarray:
    """`qpos [T, 36]` by damped Newton steps, joints cut off at their limits."""
    problem = Errors()
    low, high = g1.JOINT_RANGE.T
    qpos = np.zeros(problem.model.nq)
    qpos[:3], qpos[3:7] = target.pelvis_pos[0], target.pelvis_quat[0]
    qpos[7:] = g1.DEFAULT_JOINT_POS
    result = np.empty((len(target.pelvis_pos), problem.model.nq))
    damping = weights.damping * np.eye(problem.model.nv)
    for t in range(len(result)):
        before = result[t - 1] if t else None
        for _ in range(FIRST_ITERATIONS if t == 0 else ITERATIONS):
            problem.set(qpos)
            error, jacobian, _ = problem.rows(target, t, weights, before)
            step = np.linalg.solve(jacobian.T @ jacobian + damping, jacobian.T @ error)
            mujoco.mj_integratePos(problem.model, qpos, step, 1.0)
            qpos[7:] = np.clip(qpos[7:], low, high)
            if np.abs(step).max() < STEP:
                break
        result[t] = qpos
    return result


SOLVERS: dict[str, Callable[[Targets, Weights], np.ndarray]] = {
    "mink": retarget.track,
    "newton": newton,
}


def measure(solver: str, motion: Path, target: Targets, repeats: int) -> dict[str, Any]:
    """The row of one solver and motion."""
    times, qpos, weights = [], np.empty(0), Weights()
    for _ in range(repeats):
        began = time.process_time()
        qpos = SOLVERS[solver](target, weights)
        times.append(time.process_time() - began)
    problem, cost = Errors(), 0.0
    for t in range(len(qpos)):
        problem.set(qpos[t])
        error, _, tasks = problem.rows(target, t, weights, None)
        cost += float(error[:tasks] @ error[:tasks]) / len(qpos)
    clip = retarget.States(qpos).clip(motion.stem, target, motion.name, "not stated")
    figures = fidelity.measure(clip, target)
    feet = [g1.BODY_NAMES.index(name) for name in g1.FOOT_BODIES]
    distance = np.linalg.norm(clip.body_pos_w[:, feet] - target.foot_pos, axis=-1)
    return {
        "solver": solver, "motion": motion.stem, "frames": len(qpos), "cpu_s": min(times),
        "frames_per_s": len(qpos) / max(min(times), 1e-9), "cost": cost,
        "arm_direction_deg": figures.arm_direction_deg,
        "foot_error_m": float(np.percentile(distance, 95)),
        "joint_speed_ratio": examine(clip).joint_speed_ratio,
        "limit_excess_rad": figures.limit_excess_rad,
    }  # fmt: skip


def main(config: Config) -> None:
    """Measure, report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    rows = []
    for motion in config.motions:
        person = read_bvh(motion).at_rate(retarget.FPS)
        target = retarget.targets(body_motion(person, find_mapping(person)))
        rows += [measure(solver, motion, target, config.repeats) for solver in SOLVERS]
    head = ("motion", "solver", "frames/s", "cost", "arm, deg", "foot, mm", "speed", "excess, rad")
    print(cli.aligned([head, *(
        (row["motion"], row["solver"], f"{row['frames_per_s']:.0f}", f"{row['cost']:.4f}",
         f"{row['arm_direction_deg']:.2f}", f"{1000 * row['foot_error_m']:.1f}",
         f"{row['joint_speed_ratio']:.0%}", f"{row['limit_excess_rad']:.1e}")
        for row in rows
    )]))  # fmt: skip
    if config.json is not None:
        write_result(config.json, cli.json_result("retarget_solvers", seed=None, rows=rows))
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
