r"""How fast a script of `algos/` learns to track: motions x variants of its recipe x seeds.

    python benchmarks/learning.py --motion 'walk1[5:15]' 'dance1[0:10]' 'run1[20:30]' \
        --flags='--stop-when-passed' --json benchmarks/results/lafan1.json
    python benchmarks/learning.py --motion walk --variants all \
        --flags='--total-timesteps 1000000' --json benchmarks/results/choices.json
    python benchmarks/learning.py --algorithm wm_track --motion walk 'walk1[5:15]' 'dance1[0:10]' \
        --flags='--stop-when-passed' --json benchmarks/results/world_model.json

Every variant but the first changes one choice. A run that is finished in `--run-dir` is not run
again, and one that was cut short goes on. A row of the result holds, for one run:

    env_steps, wall_s     control steps over all robots, seconds of training
    first_pass            steps and seconds at the first evaluation that completed the clip by the
                          `clip` protocol; null when there was none
    cpu_s                 processor seconds of the training up to there, where it tells them: what
                          they would be on cores of its own, if run with one thread in one go
    clip                  figures of the final policy by the `clip` protocol
    time_to_failure_s     robot seconds per failure in the run's last tenth, and reward_per_step:
                          under training conditions, which differ between some variants
    level                 the curriculum's, at the end
    threads               of the run, 0 for all cores
    jobs                  of this command: how many runs it has side by side
    commit, machine       what trained it
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError, unknown_name
from bm_envs.policy import read_run_config, training_figures

PPO_VARIANTS: dict[str, tuple[str, ...]] = {
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
    "contact consistency": ("--task.rewards.foot-contact", "-0.5"),
    "smoothness": (
        "--task.rewards.action-accel", "-0.05", "--task.rewards.joint-accel", "-2.5e-7",
    ),
    "episodes of 10 s": ("--task.episode-s", "10"),
    "32 steps a robot": ("--num-steps", "32", "--num-minibatches", "4"),
    "fixed step size": ("--schedule", "fixed"),
    "no overlap": ("--no-overlap",),
    "no bfloat16": ("--bfloat16", "off"),
    "critic's steps as the actor's": ("--critic-speed", "1"),
    "2 epochs": ("--update-epochs", "2"),
    "6 epochs": ("--update-epochs", "6"),
    "2 epochs of 4 mini-batches": ("--update-epochs", "2", "--num-minibatches", "4"),
    "5 ms physics": ("--task.model.physics-dt", "0.005", "--task.decimation", "4"),
    "512-256-128": ("--hidden", "512", "256", "128"),
}  # fmt: skip
MODEL_VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "16 imagined steps": ("--policy-horizon", "16", "--policy-batch", "256"),
    "16 imagined steps and a critic": (
        "--policy-horizon", "16", "--policy-batch", "256", "--critic",
    ),
    "24 imagined steps": ("--policy-horizon", "24", "--policy-batch", "170"),
    "48 imagined steps": ("--policy-horizon", "48", "--policy-batch", "86"),
    "critic": ("--critic",),
    "no recovery": ("--recovery", "0"),
    "half as many updates of the model": ("--model-updates", "4"),
    "no symmetry": ("--no-symmetry",),
    "Muon": ("--muon",),
    "states of the whole buffer": ("--recent", "100000"),
}  # fmt: skip
VARIANTS = {"ppo_track": PPO_VARIANTS, "wm_track": MODEL_VARIANTS}


@dataclass(frozen=True)
class Config:
    """What to run."""

    json: Path
    """Result file."""
    algorithm: Literal["ppo_track", "wm_track"] = "ppo_track"
    """The script."""
    motion: tuple[str, ...] = ("walk",)
    """Motions to train on, a policy each."""
    variants: tuple[str, ...] = ("default",)
    """Names of the variants to run, or `all`."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds of each."""
    flags: Annotated[str, arg(metavar="'FLAGS'")] = ""
    """Further flags of the script for every run, one quoted string."""
    jobs: int = 1
    """Runs side by side; they share the cores evenly."""
    run_dir: Path = Path("runs/learning")
    """Where the runs are kept."""

    def __post_init__(self) -> None:
        for name in self.variants:
            known = (*VARIANTS[self.algorithm], "all")
            if name not in known:
                raise ConfigError(unknown_name("variant", name, known))
        cores = cli.available_cores()
        if not 1 <= self.jobs <= cores:
            raise ConfigError(f"jobs is {self.jobs}, expected 1 to {cores}, the cores there are.")


def summary(run: Path) -> dict[str, Any]:
    """Figures of a finished run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-max(1, len(rows) // 10) :]
    reward = [sum(v for k, v in row.items() if k.startswith("reward/")) for row in last]
    # The mean of times is ruled by lucky iterations; failures per second add up.
    failures = np.mean([1 / row["charts/time_to_failure_s"] for row in last])
    passed = [row["perf/cpu_s"] for row in rows if row.get("eval/success") == 1.0
              and "perf/cpu_s" in row]  # fmt: skip
    return {
        **training_figures(run),
        **({"cpu_s": passed[0]} if passed else {}),
        "time_to_failure_s": float(1 / failures),
        "reward_per_step": float(np.mean(reward)),
        "level": rows[-1]["track/level"],
        "threads": read_run_config(run)["threads"],
    }


def main(config: Config) -> None:
    """Run what is missing, collect everything."""
    script = Path(__file__).parent.parent / "algos" / f"{config.algorithm}.py"
    known = VARIANTS[config.algorithm]
    variants = tuple(known) if "all" in config.variants else config.variants
    # Runs of `ppo_track` stand where they did when there was no other.
    folder = config.run_dir / ("" if config.algorithm == "ppo_track" else config.algorithm)
    grid = [(m, v, s) for m in config.motion for v in variants for s in config.seeds]
    threads = cli.available_cores() // config.jobs
    rows: dict[int, dict[str, Any]] = {}
    reporting = Lock()

    def train(index: int) -> None:
        motion, variant, seed = grid[index]
        run = folder / motion / re.sub("[^a-z0-9.-]+", "_", variant) / str(seed)
        flags = [*config.flags.split(), *known[variant]]
        if not (run / "policy.json").exists():  # the last file a run writes
            command = [
                sys.executable, str(script), "--motion", motion, "--seed", str(seed),
                "--run-dir", str(run), "--no-motion", "--resume", "--threads", str(threads),
                *flags,
            ]  # fmt: skip
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if done.returncode:
                said = (done.stderr.strip() or "nothing").splitlines()[-1]
                raise BMError(f"The run of {motion}, '{variant}', seed {seed} failed: {said}")
        row = {
            "algorithm": config.algorithm, "motion": motion, "variant": variant, "flags": flags,
            "seed": seed, "jobs": config.jobs, **summary(run),
        }  # fmt: skip
        with reporting:
            rows[index] = row
            passed = row["first_pass"]
            print(
                f"{motion}  {variant}  seed {seed}: survived {row['clip']['survival']:.0%}, "
                + (f"passed after {passed['env_steps'] / 1e6:.2f} M steps, "
                   f"{passed['wall_s'] / 60:.1f} min" if passed else "not passed")
                + f" ({row['env_steps'] / 1e6:.2f} M, {row['wall_s'] / 60:.1f} min)",
                flush=True,
            )  # fmt: skip
            finished = [rows[i] for i in sorted(rows)]
            cli.write_json(config.json, cli.json_result("learning", seed=None, rows=finished))

    with ThreadPoolExecutor(config.jobs) as pool:
        for result in [pool.submit(train, index) for index in range(len(grid))]:
            result.result()
    print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
