r"""How fast a script of `algos/` learns to track: motions x variants of its recipe x seeds.

    python benchmarks/learning.py --motion 'walk1[5:15]' 'dance1[0:10]' 'run1[20:30]' \
        --flags='--stop-when-passed' --json benchmarks/results/lafan1.json
    python benchmarks/learning.py --motion walk --variants all \
        --flags='--total-timesteps 1000000' --json benchmarks/results/choices.json
    python benchmarks/learning.py --algorithm ppo_track wm_track --motion walk 'walk1[5:15]' \
        --flags='--stop-when-passed' --json out.json --plot out.png
    python benchmarks/learning.py --algorithm wm_track --against ../old --json out.json
    python benchmarks/learning.py --motion 'walk1[5:15]' 'dance1[0:10]' 'jumps1[0:10]' \
        --variants default v4 --flags='--robust-every 4' --json out.json

A motion may also be the name of a suite: one policy for all that it holds. Every variant but the
first changes one choice; three that `all` leaves out are what to take for a robust policy
(`robust`) and for motion that goes to the ground (`later ends`), and the task of the paper's fourth
version (`v4`). A run that is finished in `--run-dir` is not run again, and one that was cut short
goes on; after one that fails no other is begun. A row of the result holds, for one run:

    env_steps, wall_s     control steps over all robots, seconds of training
    first_pass            steps and seconds at the first evaluation that completed the clip by the
                          `clip` protocol; null when there was none
    cpu_s                 processor seconds of the training up to there, where it tells them: what
                          they would be on cores of its own, if run with one thread
    first_robust          as first_pass, of the first evaluation in which 95 % of the `robust`
                          episodes were completed (`--flags=--robust-every N`); null if none
    curve                 of every evaluation: env_steps, wall_s, the share of a clip survived, and
                          the share of `robust` episodes completed or null
    clip                  figures of the final policy by the `clip` protocol
    manner                how it moves there, up to a failure: the share of feet and frames in which
                          a foot is on the ground and the reference's is not, or the other way
                          round; root mean squares, per joint, of the raw action's second difference
                          and of the joints' acceleration, rad/s^2
    time_to_failure_s     robot seconds per failure in the run's last tenth, and reward_per_step:
                          under training conditions, which differ between some variants
    level                 the curriculum's, at the end
    threads               of the run, 0 for all cores
    jobs                  of this command: how many runs it has side by side
    commit, machine       what trained it; several commits where a later one went on with the run
    against               whether the script is of the checkout that `--against` names

The other checkout needs a compiled part of its own, see `benchmarks/world_model.py`.

`--plot` (extra `viz`) draws the curves over time.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import arg

from bm_envs import cli, evaluation
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError, unknown_name
from bm_envs.evaluation import ROBUST
from bm_envs.learning.log import read_metrics
from bm_envs.motion import suites
from bm_envs.policy import load_policy, read_run_config, training_figures
from bm_envs.results import write_result
from bm_envs.robots import g1
from bm_envs.tasks.track.config import CONTROL_DT
from bm_envs.tasks.track.rewards import OPTIONAL

ROOT = Path(__file__).resolve().parents[1]
TELL_EVERY_S = 30.0  # while runs go on

# Of motion that goes to the ground or is hard to begin in: what a stumble may still come back from.
LATER_ENDS = ("--task.failure-height", "0.4", "--task.failure-distance", "0.6")
V4 = ("--preset", "v4")  # whatever it changes, a policy is judged by the same protocols
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
    # What made the shipped `walk` (docs/training.md, "A robust policy").
    "robust": (
        "--critic-speed", "1", "--schedule", "inverse", "--halved-after", "750000",
        "--ema", "0.998", "--task.push.interval-s", "0.7", "1.7",
        "--task.push.lin-vel", "0.6", "0.6", "0.24",
        "--task.push.ang-vel", "0.62", "0.62", "0.93", "--task.reset.lin-vel", "0.6", "0.6", "0.24",
        "--task.reset.ang-vel", "0.62", "0.62", "0.93", "--total-timesteps", "26000000",
    ),
    "later ends": LATER_ENDS,
    "v4": V4,
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
    "no overlap": ("--no-overlap",),
    "no recovery": ("--recovery", "0"),
    "half as many updates of the model": ("--model-updates", "4"),
    "no symmetry": ("--no-symmetry",),
    "states of the whole buffer": ("--recent", "100000"),
    "uniform starts": PPO_VARIANTS["uniform starts"],
    "contact consistency": PPO_VARIANTS["contact consistency"],
    "smoothness": PPO_VARIANTS["smoothness"],
    "no imagined pushes": ("--no-imagined-pushes",),
    "short averages": ("--ema", "0.97"),
    "earlier ends": ("--task.failure-height", "0.25", "--task.failure-distance", "0.3"),
    "robots drawn once": ("--task.randomize.when", "startup"),
    "friction from 0.3": ("--task.randomize.foot-friction", "0.3", "1.2"),
    "starts in bins of 1 s": ("--task.start.bin-s", "1.0"),
    "robust": ("--total-timesteps", "500000"),
    "later ends": (*LATER_ENDS, "--total-timesteps", "400000"),
    "v4": V4,
}  # fmt: skip
VARIANTS = {"ppo_track": PPO_VARIANTS, "wm_track": MODEL_VARIANTS}
RECIPES = ("robust", "later ends", "v4")  # for what they are named after, and no choices to compare


@dataclass(frozen=True)
class Config:
    """What to run."""

    json: Path
    """Result file."""
    algorithm: tuple[Literal["ppo_track", "wm_track"], ...] = ("ppo_track",)
    """The scripts. With several, seed by seed one after another."""
    motion: tuple[str, ...] = ("walk",)
    """Motions or suites to train on, a policy each."""
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
    against: Path | None = None
    """A checkout of another commit, whose scripts train as well: seed by seed after this one's."""
    plot: Path | None = None
    """Picture to draw, .png or .svg."""

    def __post_init__(self) -> None:
        for algorithm in self.algorithm:
            known = (*VARIANTS[algorithm], "all")
            for name in self.variants:
                if name not in known:
                    raise ConfigError(unknown_name("variant", name, known))
        cores = cli.available_cores()
        if not 1 <= self.jobs <= cores:
            raise ConfigError(f"jobs is {self.jobs}, expected 1 to {cores}, the cores there are.")
        for script in map(script_of, self.algorithm):
            if self.against is not None and not (self.against / script).is_file():
                raise ConfigError(f"{self.against}: is no checkout, it has no {script}.")


def script_of(algorithm: str) -> str:
    """Where a checkout has it."""
    return f"algos/{algorithm}.py"


def checkouts(config: Config) -> list[Path]:
    """This one, and the other one where there is any."""
    return [ROOT, *([config.against.resolve()] if config.against is not None else [])]


def manner(run: Path) -> dict[str, float] | None:
    """Steps of a finished run's policy by the `clip` protocol; None where there is none."""
    policy = load_policy(run)
    clips = evaluation.motions_of(policy)
    task = evaluation.protocol_task(policy, "clip")
    task = dataclasses.replace(
        task, rewards=dataclasses.replace(task.rewards, **dict.fromkeys(OPTIONAL, -1.0))
    )
    env = TrackVectorEnv(len(clips), clips, config=task, autoreset_mode="disabled", threads=1)
    episodes = evaluation.run_episodes(evaluation.in_project_order(policy), env)
    env.close()
    if not episodes.compared.any():
        return None
    feet, joints = len(g1.FOOT_BODIES), g1.NUM_JOINTS

    def mean(name: str) -> float:
        term = np.nan_to_num(episodes.terms[name])  # of a clip without a frame
        return float(-(term @ episodes.compared) / episodes.compared.sum() / CONTROL_DT)

    return {
        "foot_contact_mismatch": mean("foot_contact") / feet,
        "action_accel": (mean("action_accel") / joints) ** 0.5,
        "joint_accel_rad_s2": (mean("joint_accel") / joints) ** 0.5,
    }


def processor_seconds(rows: list[dict[str, Any]]) -> list[float]:
    """Processor time of a run up to each row of its metrics, s; empty where they do not hold it.

    A process that went on with the run counted its own.
    """
    before, last, seconds = 0.0, 0.0, []
    for row in rows:
        if "perf/cpu_s" not in row:
            return []
        if row["perf/cpu_s"] < last:
            before += last
        last = row["perf/cpu_s"]
        seconds.append(before + last)
    return seconds


def summary(run: Path) -> dict[str, Any]:
    """Figures of a finished run."""
    rows = read_metrics(run / "metrics.jsonl")
    last = rows[-max(1, len(rows) // 10) :]
    reward = [sum(v for k, v in row.items() if k.startswith("reward/")) for row in last]
    # The mean of times is ruled by lucky iterations; failures per second add up.
    failures = np.mean([1 / row["charts/time_to_failure_s"] for row in last])
    spent = processor_seconds(rows)
    passed = [s for s, row in zip(spent, rows, strict=False) if row.get("eval/success") == 1.0]
    robust = [i for i, row in enumerate(rows) if row.get("eval/robust", 0.0) >= ROBUST]
    return {
        **training_figures(run),
        **({"cpu_s": passed[0]} if passed else {}),
        "first_robust": {
            "env_steps": rows[robust[0]]["step"],
            "wall_s": rows[robust[0]]["train_s"],
            "cpu_s": spent[robust[0]],
        }
        if robust
        else None,
        "curve": [
            [row["step"], row["train_s"], row["eval/survival"], row.get("eval/robust")]
            for row in rows
            if "eval/survival" in row
        ],
        "manner": manner(run),
        "time_to_failure_s": float(1 / failures),
        "reward_per_step": float(np.mean(reward)),
        "level": rows[-1]["track/level"],
        "threads": read_run_config(run)["threads"],
    }


def told(run: tuple[str, str, str, int, Path]) -> str:
    """A run of the grid in words."""
    algorithm, motion, variant, seed, checkout = run
    against = "" if checkout == ROOT else "  against"
    return f"{algorithm}  {motion}  {variant}  seed {seed}{against}"


def how_far(run: Path) -> str:
    """How far a run is, by its metrics: steps, minutes, and what its last evaluation said."""
    if not (run / "metrics.jsonl").is_file() or not (run / "config.json").is_file():
        return "begins"
    rows = read_metrics(run / "metrics.jsonl")
    if not rows:
        return "begins"
    survived = [row["eval/survival"] for row in rows if "eval/survival" in row]
    return (
        f"{rows[-1]['step']:,} of at most {read_run_config(run)['total_timesteps']:,} steps, "
        f"{rows[-1]['train_s'] / 60:.1f} min, "
        + (f"survives {survived[-1]:.0%} of the motion" if survived else "not evaluated yet")
    )


def watched(process: subprocess.Popen[str], run: Path, name: str) -> str:
    """What a trainer wrote to its standard error, once it has ended; meanwhile how far it is."""
    while True:
        try:
            return process.communicate(timeout=TELL_EVERY_S)[1]
        except subprocess.TimeoutExpired:
            print(f"  {name}: {how_far(run)}", flush=True)


def main(config: Config) -> None:
    """Run what is missing, collect everything."""
    if config.plot is not None:
        cli.matplotlib_figure()  # refused before hours of training, not behind them
    grid = [
        (algorithm, motion, variant, seed, checkout)
        for motion in config.motion
        for variant in dict.fromkeys(
            name for algorithm in config.algorithm for name in VARIANTS[algorithm]
            if name in config.variants or ("all" in config.variants and name not in RECIPES)
        )
        for seed in config.seeds
        for algorithm in config.algorithm if variant in VARIANTS[algorithm]
        for checkout in checkouts(config)
    ]  # fmt: skip
    print(
        f"{len(grid)} runs; results go to {config.json} after each. Stopped, the same command goes "
        f"on with what is in {config.run_dir}.", flush=True,
    )  # fmt: skip
    threads = cli.available_cores() // config.jobs
    rows: dict[int, dict[str, Any]] = {}
    reporting = Lock()
    started: set[subprocess.Popen[str]] = set()

    def train(index: int) -> None:
        algorithm, motion, variant, seed, checkout = grid[index]
        motions = suites.motions(motion) if motion in suites.NAMES else (motion,)
        # Runs of `ppo_track` stand where they did when there was no other.
        folder = config.run_dir / ("" if checkout == ROOT else "against")
        folder = folder / ("" if algorithm == "ppo_track" else algorithm)
        run = folder / motion / re.sub("[^a-z0-9.-]+", "_", variant) / str(seed)
        flags = [*config.flags.split(), *VARIANTS[algorithm][variant]]
        if not (run / "policy.json").exists():  # the last file a run writes
            command = [
                sys.executable, str(checkout / script_of(algorithm)), "--motion", *motions,
                "--seed", str(seed), "--run-dir", str(run), "--no-motion", "--resume",
                "--threads", str(threads), *flags,
            ]  # fmt: skip
            print(f"run {index + 1} of {len(grid)}: {told(grid[index])}, in {run}", flush=True)
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env=None if checkout == ROOT else {**os.environ, "PYTHONPATH": str(checkout)},
            )  # fmt: skip
            started.add(process)
            printed = watched(process, run, f"run {index + 1}")
            started.remove(process)
            if process.returncode:
                said = (printed.strip() or "nothing").splitlines()[-1]
                raise BMError(f"The run of {motion}, '{variant}', seed {seed} failed: {said}")
        row = {
            "algorithm": algorithm, "motion": motion, "variant": variant, "flags": flags,
            "seed": seed, "jobs": config.jobs, "against": checkout != ROOT, **summary(run),
        }  # fmt: skip
        with reporting:
            rows[index] = row
            passed = row["first_pass"]
            print(
                f"{told(grid[index])}: "
                f"survived {row['clip']['survival']:.0%}, "
                + (f"passed after {passed['env_steps'] / 1e6:.2f} M steps, "
                   f"{passed['wall_s'] / 60:.1f} min" if passed else "not passed")
                + f" ({row['env_steps'] / 1e6:.2f} M, {row['wall_s'] / 60:.1f} min)",
                flush=True,
            )  # fmt: skip
            finished = [rows[i] for i in sorted(rows)]
            write_result(config.json, cli.json_result("learning", seed=None, rows=finished))

    with ThreadPoolExecutor(config.jobs) as pool:
        try:
            for done in as_completed([pool.submit(train, index) for index in range(len(grid))]):
                done.result()
        except BaseException as error:
            # Where one failed, the others would fail alike, hours later. What runs goes on to its
            # end then, but not where this command is asked to end: it saves and does the same.
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                for process in tuple(started):
                    process.terminate()
            if isinstance(error, KeyboardInterrupt):
                number = error.signal if isinstance(error, cli.Interrupted) else signal.SIGINT
                kept = f"the same command goes on with the runs in {config.run_dir}"
                raise cli.Interrupted(number, kept) from error
            raise
    print(f"results in {config.json}")
    if config.plot is not None:
        draw(config.plot, [rows[i] for i in sorted(rows)])
        print(f"curves in {config.plot}")


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """What was survived of a clip over the time of training, a panel a motion."""
    motions = list(dict.fromkeys(row["motion"] for row in rows))

    def kind_of(row: dict[str, Any]) -> tuple[str, str, bool]:
        return row["algorithm"], row["variant"], row.get("against", False)

    kinds = list(dict.fromkeys(map(kind_of, rows)))
    robust = any(point[3] is not None for row in rows for point in row["curve"])
    figure = cli.matplotlib_figure()(figsize=(4 * len(motions), 3.2), layout="constrained")
    panels = figure.subplots(1, len(motions), squeeze=False)[0]
    for axes, motion in zip(panels, motions, strict=True):
        for i, kind in enumerate(kinds):
            runs = [row for row in rows if row["motion"] == motion and kind_of(row) == kind]
            label = kind[0] if kind[1] == "default" else " ".join(kind[:2])
            label += ", other commit" if kind[2] else ""
            for row in runs:
                points = [(p[1] / 60, p[3 if robust else 2]) for p in row["curve"]]
                points = [point for point in points if point[1] is not None]
                axes.plot(*zip(*points, strict=True), color=f"C{i}", alpha=0.8, label=label,
                          marker=".", markersize=3)  # fmt: skip
                label = None
        axes.set(title=motion, xlabel="minutes of training", ylim=(0, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("robust episodes completed" if robust else "share of the clip survived")
    panels[0].legend(frameon=False)
    with cli.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


if __name__ == "__main__":
    cli.run(main, Config)
