"""Which choices of the laptop recipe make PPO learn faster: variants x seeds of one short training.

    python benchmarks/ablations.py --motion walk --total-timesteps 1000000 --json out.json

Each variant changes one setting of `algos/ppo_track.py`. A run that is finished in `--run-dir` is
not run again. Rows hold, per variant and seed, the robot seconds between failures and the reward
per step over the last tenth of the run (training conditions: noise on, disturbances by the
curriculum; a variant without it, or with other noise or starts, trains under other conditions),
and survival by the `clip` protocol of the final policy, which is the same test for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError, unknown_name

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "no residual, unit noise": ("--no-residual", "--init-std", "1.0"),
    "initial noise 0.3": ("--init-std", "0.3"),
    "white action noise": ("--noise-correlation", "0"),
    "no symmetry": ("--no-symmetry",),
    "no curriculum": ("--no-curriculum",),
    "no limit of distance": ("--task.failure-distance", "None"),
    "published velocity reward": (
        "--task.rewards.body-lin-vel", "1", "--task.rewards.body-lin-vel-std", "1",
    ),
    "uniform starts": ("--task.start.mode", "uniform"),
    "published starts": (
        "--task.start.statistic", "count", "--task.start.kernel", "1",
        "--task.start.mix", "additive",
    ),
    "episodes of 10 s": ("--task.episode-s", "10"),
    "32 steps a robot": ("--num-steps", "32", "--num-minibatches", "4"),
    "fixed step size": ("--schedule", "fixed"),
    "5 ms physics": ("--task.model.physics-dt", "0.005", "--task.decimation", "4"),
    "512-256-128": ("--hidden", "512", "256", "128"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What to run."""

    json: Path
    """Result file."""
    motion: str = "walk"
    """Motion to train on."""
    total_timesteps: int = 1_000_000
    """Control steps of each run."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of each variant."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Names of the variants to run."""
    run_dir: Path = Path("runs/ablations")
    """Where the runs are kept."""

    def __post_init__(self) -> None:
        for name in self.variants:
            if name not in VARIANTS:
                raise ConfigError(unknown_name("variant", name, VARIANTS))


def summary(run_dir: Path) -> dict[str, float | int | None]:
    """Figures of a finished run: means over the last tenth of its iterations."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    last = rows[-max(1, len(rows) // 10) :]
    reward = [sum(v for k, v in row.items() if k.startswith("reward/")) for row in last]
    # The mean of times is ruled by lucky iterations; failures per second add up.
    failures = np.mean([1 / row["charts/time_to_failure_s"] for row in last])
    return {
        "env_steps": rows[-1]["step"],
        "wall_s": rows[-1]["train_s"],
        "time_to_failure_s": float(1 / failures),
        "reward_per_step": float(np.mean(reward)),
        "level": rows[-1]["track/level"],
        "clip_survival": rows[-1]["eval/survival"],
    }


def main(config: Config) -> None:
    """Run what is missing, collect everything."""
    script = Path(__file__).parent.parent / "algos" / "ppo_track.py"
    rows = []
    for name in config.variants:
        for seed in config.seeds:
            run = (
                config.run_dir / config.motion / name.replace(" ", "_").replace(",", "") / str(seed)
            )
            if not (run / "policy.json").exists():  # the last file a run writes
                command = [
                    sys.executable, str(script), "--motion", config.motion, "--seed", str(seed),
                    "--total-timesteps", str(config.total_timesteps), "--run-dir", str(run),
                    "--eval-every", "0", "--no-motion", "--resume", *VARIANTS[name],
                ]  # fmt: skip
                if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                    raise BMError(f"The run of variant '{name}', seed {seed} failed, see above.")
            row = {"variant": name, "flags": list(VARIANTS[name]), "motion": config.motion,
                   "seed": seed, **summary(run)}  # fmt: skip
            rows.append(row)
            print(f"{name:26s} seed {seed}  {row['time_to_failure_s']:6.2f} s between failures, "
                  f"clip {row['clip_survival']:.0%}, {row['wall_s'] / 60:.1f} min")  # fmt: skip
            cli.write_json(config.json, cli.json_result("ablation", seed=None, rows=rows))
    print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
