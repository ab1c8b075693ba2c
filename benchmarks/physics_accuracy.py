"""What the engine's settings cost in accuracy: one control step, against tiny converged steps.

    python benchmarks/physics_accuracy.py --json benchmarks/results/physics_accuracy.json

From states that occur while robots track and fall, each setting simulates one control step of 20 ms
under the same joint targets. Two errors are told apart, both as the root mean square over states:

    solver_error    from the solver run to convergence, with the same time step
    total_error     from the solver run to convergence, with time steps of 0.125 ms

The rule: a setting of the solver is good enough when its `solver_error` is below a tenth of what
the time step itself costs (the `total_error` of `converged`); of those the cheapest is taken, and
what saves less than the measurement scatters saves nothing.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import mujoco
import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.results import write_result
from bm_envs.robots import mjcf
from bm_envs.tasks.track.config import CONTROL_DT, SamplingConfig, TrackConfig

SETTLE = 40  # control steps, so that robots differ and some fall
ACTION_NOISE = 0.1  # raw action, about the reference
FINE_DT = 0.000125  # s
CONVERGED = dict(iterations=100, ls_iterations=50, tolerance=1e-12, ls_tolerance=1e-4)
SETTINGS: dict[str, dict[str, Any]] = {
    "converged": CONVERGED,
    "standard": {},
    "5 iterations": dict(iterations=5),
    "3 iterations": dict(iterations=3),
    "2 iterations": dict(iterations=2),
    "1 iteration": dict(iterations=1),
    "tolerance 1e-6": dict(tolerance=1e-6),
    "tolerance 1e-4": dict(tolerance=1e-4),
    "5 line-search iterations": dict(ls_iterations=5),
    "semi-implicit Euler": dict(integrator=int(mujoco.mjtIntegrator.mjINT_EULER)),
}


@dataclass(frozen=True)
class Config:
    """What to compare."""

    json: Path | None = None
    """Result file to write."""
    motion: str = "walk"
    """Motion to track."""
    states: int = 512
    """Number of states."""
    physics_dt: tuple[float, ...] = (0.005, 0.01)
    """Time steps, s."""
    seed: int = 0
    """Seed of the states."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """32 states: not for published figures."""

    def __post_init__(self) -> None:
        if self.states < 1 or not self.physics_dt or min(self.physics_dt) <= 0:
            raise ConfigError("states must be 1 or more, and physics_dt positive times in s.")
        for dt in self.physics_dt:
            if abs(CONTROL_DT / dt - round(CONTROL_DT / dt)) > 1e-6:
                raise ConfigError(f"physics_dt is {dt:g} s, expected a part of {CONTROL_DT:g} s.")


def record(config: Config, task_config: TrackConfig) -> tuple[np.ndarray, ...]:
    """States, `[S, 36]` and `[S, 35]`, and joint targets `[S, 29]` that were to follow."""
    env = TrackVectorEnv(config.states, config.motion, config=task_config)
    task, rng = env.task, np.random.default_rng(config.seed)
    env.reset(seed=config.seed)

    def actions() -> np.ndarray:
        noise = rng.standard_normal(task.action.shape, dtype=np.float32)
        return task.reference_action() + ACTION_NOISE * noise

    for _ in range(SETTLE):
        env.step(actions())
    state = env.simulator.get_state()
    targets = task.default_joint_pos + task.action_scale * actions()
    env.close()
    return state["qpos"], state["qvel"], targets.astype(np.float64)


def simulate(
    states: tuple[np.ndarray, ...], task: TrackConfig, dt: float, options: dict[str, Any]
) -> tuple[np.ndarray, float, float]:
    """One control step from every state.

    Returns:
        State after it `[S, 71]`, microseconds of one control step, mean iterations of the solver.
    """
    model = mjcf.compile_model(dataclasses.replace(task.model, physics_dt=dt))
    for name, value in options.items():
        setattr(model.opt, name, value)
    data = mujoco.MjData(model)
    after, spent, iterations = [], 0.0, []
    for qpos, qvel, targets in zip(*states, strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, targets
        start = time.process_time()
        for _ in range(round(CONTROL_DT / dt)):
            mujoco.mj_step(model, data)
        spent += time.process_time() - start
        iterations.append(data.solver_niter[0] if data.nefc else 0)
        after.append(np.concatenate([data.qpos, data.qvel]))
    count = len(after)
    return np.array(after), 1e6 * spent / count, float(np.mean(iterations))


def errors(after: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Root mean squares of the difference."""
    off = after - truth
    parts = {
        "root_pos_m": off[:, :3], "joint_pos_rad": off[:, 7:36],
        "root_lin_vel_m_s": off[:, 36:39], "joint_vel_rad_s": off[:, 42:],
    }  # fmt: skip
    return {name: float(np.sqrt((part**2).mean())) for name, part in parts.items()}


def main(config: Config) -> None:
    """Compare, print, write."""
    if config.quick:
        config = dataclasses.replace(config, states=32)
    task = TrackConfig(start=SamplingConfig(mode="adaptive"))
    states = record(config, task)
    fine, _, _ = simulate(states, task, FINE_DT, CONVERGED)
    rows = []
    for dt in config.physics_dt:
        converged, _, _ = simulate(states, task, dt, CONVERGED)
        for name, options in SETTINGS.items():
            after, us, iterations = simulate(states, task, dt, options)
            rows.append({
                "physics_dt": dt, "setting": name, "options": options, "us_per_control_step": us,
                "mean_iterations": iterations, "solver_error": errors(after, converged),
                "total_error": errors(after, fine),
            })  # fmt: skip
    lines = [("physics_dt, s", "setting", "us", "iterations", "solver, rad/s", "total, rad/s")]
    for row in rows:
        lines.append((
            f"{row['physics_dt']:g}", row["setting"], f"{row['us_per_control_step']:.0f}",
            f"{row['mean_iterations']:.1f}", f"{row['solver_error']['joint_vel_rad_s']:.2g}",
            f"{row['total_error']['joint_vel_rad_s']:.2g}",
        ))  # fmt: skip
    print(cli.aligned(lines))
    if config.json is not None:
        result = cli.json_result("physics_accuracy", seed=config.seed, rows=rows)
        write_result(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
