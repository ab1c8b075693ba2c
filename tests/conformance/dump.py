"""States and observations of a backend as a file, to be compared where the other cannot run.

    python -m tests.conformance.dump mujoco tests/golden/conformance.npz
    python -m tests.conformance.dump isaaclab runs/isaaclab.npz
    python -m tests.conformance.dump --compare runs/isaaclab.npz tests/golden/conformance.npz

Engines whose packages exclude each other do the same scenario, each in its own environment. The
golden file is that of `mujoco`, from the built-in walk, and is what check C12 and the last of these
commands compare with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bm_envs import cli
from bm_envs.backends.base import Simulator, SimulatorConfig, full_state
from bm_envs.backends.host import make_host_simulator
from bm_envs.motion.library import load_motion
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.task import TrackTask
from tests.conformance.plain import STAND, random_states

GOLDEN = Path(__file__).parent.parent / "golden" / "conformance.npz"
N = 4


def observations(sim: Simulator) -> dict[str, np.ndarray]:
    """What the tracking task shows of states off the reference. `[3, N, O]` and `[3, N, C]`."""
    task = TrackTask([load_motion("walk")], TrackConfig.preset("clip"), N)
    task.attach(sim)
    everyone, rng = np.arange(N), np.random.default_rng(0)
    policy, critic = [], []
    for seed in range(3):
        task.reset(everyone, rng, clip_id=np.zeros(N, int), frame=everyone * 50 + seed)
        qpos, qvel = random_states(N, seed, height=0.9)
        sim.reset(everyone, qpos, qvel)
        parts = task.observe(slice(None), None)
        policy.append(parts[0])
        critic.append(parts[1])
    return {"policy_obs": np.array(policy), "critic_obs": np.array(critic)}


def rollout(sim: Simulator) -> dict[str, np.ndarray]:
    """A second of targets that move, from a stand: states after each step. `[50, N, ...]`."""
    qpos = np.tile(STAND, (N, 1))
    qpos[:, 2] -= 0.001
    targets = STAND[7:] + np.random.default_rng(2).uniform(-0.15, 0.15, (50, N, 29))
    sim.reset(np.arange(N), qpos, np.zeros((N, 35)))
    states = []
    for target in targets:
        sim.step(target)
        states.append([np.array(part, np.float64) for part in full_state(sim)])
    return {
        "qpos": np.array([state[0] for state in states]),
        "qvel": np.array([state[1] for state in states]),
    }


def compare(path: Path, other: Path) -> str:
    """Largest differences of two files, as a table."""
    first, second = np.load(path), np.load(other)
    rows = [("what", "largest difference")]
    for name in ("policy_obs", "critic_obs"):
        rows.append((name, f"{abs(first[name] - second[name]).max():.1e}"))
    off = abs(first["qpos"] - second["qpos"])
    for seconds in (0.02, 0.1, 0.2, 0.5, 1.0):
        step = round(seconds / 0.02)
        rows.append((f"joints until {seconds:g} s, rad", f"{off[:step, :, 7:].max():.1e}"))
        rows.append((f"root until {seconds:g} s, m", f"{off[:step, :, :3].max():.1e}"))
    return cli.aligned(rows)


def main(arguments: list[str]) -> None:
    """Write a file, or compare two."""
    if arguments[0] == "--compare":
        print(compare(Path(arguments[1]), Path(arguments[2])))
        return
    backend, path = arguments[0], Path(arguments[1])
    sim = make_host_simulator(backend, SimulatorConfig(N))
    values = observations(sim) | rollout(sim)
    sim.close()
    with cli.atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{k: v.astype(np.float32) for k, v in values.items()})
    print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
