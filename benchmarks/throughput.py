"""Control steps per second of environment and training, against the bare engine on the same states.

    python benchmarks/throughput.py --json benchmarks/results/throughput.json --chart throughput.svg

Measured, on all cores, in turn and repeated, so that a machine that speeds up or slows down does so
for all of them:

    raw_engine             `mujoco.batch` on the same model without sensors and without the forward
                           stages that make values fresh, from states and with joint targets that
                           were recorded while tracking (a robot that stands has fewer contacts)
    env                    `make_vec(...).step` with random actions about the reference: resets,
                           noise, pushes, randomization and adaptive starts included
    single_env             `make(...).step`, against a loop of `mujoco.mj_step` in one thread
    rollout_with_policy    `env` with the actions of a 512-256-128 network
    ppo                    `algos/ppo_track.py` as it stands, learning included, against the engine
                           with that script's own physics steps and number of robots

A row holds the median of `repeats` samples and their range; `ratio_to_raw` is the median of the
ratios within each repetition.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch
from tyro.conf import FlagCreatePairsOff, arg

import bm_envs
from bm_envs import cli
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.robots import mjcf
from bm_envs.tasks.track.config import SamplingConfig, TrackConfig

What = Literal["raw_engine", "env", "single_env", "rollout_with_policy", "ppo"]
ALL: tuple[What, ...] = ("raw_engine", "env", "single_env", "rollout_with_policy", "ppo")
WINDOW = 10  # control steps from a recorded state, before robots get far from what was recorded
WARM_UP = 25  # control steps, so that pushes, falls and resets have begun
ACTION_NOISE = 0.1  # raw action, about the reference
HIDDEN = (512, 256, 128)

Sample = Callable[[float], float]  # seconds to measure for -> control steps per second


@dataclass(frozen=True)
class Config:
    """What to measure."""

    json: Path | None = None
    """Result file to write."""
    chart: Path | None = None
    """Chart to write, .svg or .png (needs the extra `viz`)."""
    what: tuple[What, ...] = ALL
    """Which figures; `raw_engine` is always measured."""
    num_envs: tuple[int, ...] = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096)
    """Numbers of robots of `raw_engine`, `env` and `rollout_with_policy`."""
    motion: str = "walk"
    """Motion to track."""
    repeats: int = 7
    """Repetitions of everything."""
    sample_s: float = 1.0
    """Seconds of each sample."""
    ppo_flags: Annotated[str, arg(metavar="'FLAGS'")] = ""
    """Further flags of the training script, one quoted string."""
    threads: int = 0
    """Threads; 0: all cores this process may use."""
    seed: int = 0
    """Seed of states and actions."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """N = 1 and 512, three repetitions, shorter samples: not for published figures."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.sample_s > 0 or min(self.num_envs) < 1:
            raise ConfigError("repeats and num_envs must be 1 or more, and sample_s positive.")
        if self.chart is not None and self.chart.suffix not in (".svg", ".png"):
            raise ConfigError(f"{self.chart}: expected a name that ends in .svg or .png.")


# --- what is sampled ------------------------------------------------------------------------------


class Tracking:
    """N robots that follow the reference with noise; the task's `train` preset, adaptive starts."""

    def __init__(self, num_envs: int, config: Config, task: TrackConfig) -> None:
        self.env = TrackVectorEnv(num_envs, config.motion, config=task, threads=config.threads)
        self.task = self.env.task
        self._rng = np.random.default_rng(config.seed)
        self.env.reset(seed=config.seed)
        for _ in range(WARM_UP):
            self.env.step(self.actions())

    def actions(self) -> np.ndarray:
        """Random raw actions about the reference. `[N, 29]`."""
        task = self.task
        noise = self._rng.standard_normal(task.action.shape, dtype=np.float32)
        followed = (task.reference.joint_pos - task.nominal_joint_pos) / task.action_scale
        return followed + np.float32(ACTION_NOISE) * noise

    def sample(self, seconds: float) -> float:
        """The environment alone."""
        spent, steps = 0.0, 0
        while spent < seconds:
            actions = self.actions()
            start = time.perf_counter()
            self.env.step(actions)
            spent += time.perf_counter() - start
            steps += self.env.num_envs
        return steps / spent


@dataclass(frozen=True)
class Recording:
    """A window of tracking: the states it starts from, and the joint targets of its steps."""

    qpos: np.ndarray
    qvel: np.ndarray
    targets: np.ndarray  # [WINDOW, N, 29]


def record(tracking: Tracking) -> Recording:
    """Let the robots track for a window, and keep what the engine needs to do the same."""
    state = tracking.env.simulator.get_state()
    targets = []
    for _ in range(WINDOW):
        tracking.env.step(tracking.actions())
        task = tracking.task
        targets.append(task.default_joint_pos + task.action_scale * task.action)
    return Recording(state["qpos"], state["qvel"], np.array(targets, np.float64))


def raw_engine(recording: Recording, task: TrackConfig, threads: int) -> Sample:
    """The batched C loop alone."""
    num_envs = len(recording.qpos)
    batch = Batch(mjcf.compile_model(task.model), num_envs, min(threads, num_envs), persistent=True)
    qpos, qvel, ctrl = (batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
    stage = int(mujoco.mjtStage.mjSTAGE_NONE)

    def sample(seconds: float) -> float:
        spent, steps = 0.0, 0
        while spent < seconds:
            qpos[:], qvel[:] = recording.qpos, recording.qvel
            for target in recording.targets:
                start = time.perf_counter()
                ctrl[:] = target
                batch.step(nstep=task.decimation, stage=stage)
                spent += time.perf_counter() - start
                steps += num_envs
        return steps / spent

    return sample


def raw_loop(recording: Recording, task: TrackConfig) -> Sample:
    """One robot at a time with `mj_step`, in one thread."""
    model = mjcf.compile_model(task.model)
    data = mujoco.MjData(model)

    def sample(seconds: float) -> float:
        spent, steps, robot = 0.0, 0, 0
        while spent < seconds:
            data.qpos[:], data.qvel[:] = recording.qpos[robot], recording.qvel[robot]
            for target in recording.targets[:, robot]:
                start = time.perf_counter()
                data.ctrl[:] = target
                mujoco.mj_step(model, data, task.decimation)
                spent += time.perf_counter() - start
                steps += 1
            robot = (robot + 1) % len(recording.qpos)
        return steps / spent

    return sample


def single_env(config: Config, task: TrackConfig) -> Sample:
    """`gymnasium.make(...).step`, with the wrappers it comes in."""
    env = gymnasium.make("BMTrack-G1-v0", motion=config.motion, config=task)
    inner = env.unwrapped.task  # type: ignore[attr-defined]
    rng = np.random.default_rng(config.seed)
    env.reset(seed=config.seed)

    def sample(seconds: float) -> float:
        spent, steps = 0.0, 0
        while spent < seconds:
            noise = rng.standard_normal(29, dtype=np.float32)
            followed = (inner.reference.joint_pos[0] - inner.nominal_joint_pos) / inner.action_scale
            action = followed + np.float32(ACTION_NOISE) * noise
            start = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
            spent += time.perf_counter() - start
            steps += 1
        return steps / spent

    return sample


def rollout_with_policy(tracking: Tracking, config: Config) -> Sample:
    """The environment and a network that acts in it, as a rollout does."""
    import torch

    torch.manual_seed(config.seed)
    sizes = (tracking.task.observation_size, *HIDDEN, 29)
    layers: list[torch.nn.Module] = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [torch.nn.Linear(before, after), torch.nn.ELU()]
    network = torch.nn.Sequential(*layers[:-1])
    task = tracking.task
    q0, scale = torch.as_tensor(task.nominal_joint_pos), torch.as_tensor(task.action_scale)
    obs, _ = tracking.env.reset(seed=config.seed)

    def sample(seconds: float) -> float:
        nonlocal obs
        torch.set_num_threads(config.threads)
        start, steps = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds:
            with torch.inference_mode():
                seen = torch.from_numpy(obs)
                mean = (seen[:, :29] - q0) / scale + 0.1 * network(seen)
                action = mean + ACTION_NOISE * torch.randn_like(mean)
            obs = tracking.env.step(action.numpy())[0]
            steps += tracking.env.num_envs
        return steps / spent

    return sample


def ppo(config: Config) -> tuple[Sample, TrackConfig, int]:
    """The training script as a user starts it; its task and its number of robots."""
    script = Path(__file__).parent.parent / "algos" / "ppo_track.py"

    def run(total: int, folder: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        command = [
            sys.executable, str(script), "--motion", config.motion, "--eval-every", "0",
            "--total-timesteps", str(total), "--run-dir", folder,
            "--threads", str(config.threads), "--checkpoint-s", "1e9", *config.ppo_flags.split(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise BMError(f"{script.name} failed: {said}")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        settings = json.loads((Path(folder) / "config.json").read_text())
        return [json.loads(line) for line in lines], settings

    with tempfile.TemporaryDirectory() as folder:
        _, settings = run(4096, folder)  # to learn its settings
    task = TrackConfig().override(settings["task"])
    first = 10  # iterations, in which it warms up

    def sample(seconds: float) -> float:
        # The script is given steps, not seconds; long enough at any plausible speed.
        batch = settings["num_envs"] * settings["num_steps"]
        total = max(30 * batch, int(20_000 * seconds))
        with tempfile.TemporaryDirectory() as folder:
            rows, _ = run(total, folder)
        rows = rows[first:-1]  # the last one evaluates and exports
        return batch * (len(rows) - 1) / (rows[-1]["train_s"] - rows[0]["train_s"])

    return sample, task, settings["num_envs"]


# --- the measurement ------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.quick:
        config = dataclasses.replace(config, num_envs=(1, 512), repeats=3, sample_s=0.5)
    config = dataclasses.replace(config, threads=config.threads or cli.available_cores())
    standard = TrackConfig(start=SamplingConfig(mode="adaptive"))
    # (what, N) -> its sample and the key of the raw sample it is compared with
    samples: dict[tuple[str, int], tuple[Sample, tuple[str, int]]] = {}

    def add_raw(key: tuple[str, int], task: TrackConfig) -> None:
        recording = record(Tracking(key[1], config, task))
        samples[key] = raw_engine(recording, task, config.threads), key

    for n in config.num_envs:
        add_raw(("raw_engine", n), standard)
        if "env" in config.what:
            samples["env", n] = Tracking(n, config, standard).sample, ("raw_engine", n)
        if "rollout_with_policy" in config.what:
            rollout = rollout_with_policy(Tracking(n, config, standard), config)
            samples["rollout_with_policy", n] = rollout, ("raw_engine", n)
    if "single_env" in config.what:
        many = record(Tracking(64, config, standard))
        samples["raw_loop", 1] = raw_loop(many, standard), ("raw_loop", 1)
        samples["single_env", 1] = single_env(config, standard), ("raw_loop", 1)
    if "ppo" in config.what:
        train, task, n = ppo(config)
        add_raw(("raw_engine_ppo", n), task)
        samples["ppo", n] = train, ("raw_engine_ppo", n)

    found: dict[tuple[str, int], list[float]] = {key: [] for key in samples}
    for repeat in range(config.repeats):
        for key, (sample, _) in samples.items():
            found[key].append(sample(config.sample_s))
        print(f"repetition {repeat + 1} of {config.repeats}", flush=True)

    rows = []
    for key, (_, base) in samples.items():
        what, n = key
        ratio = np.median(np.divide(found[key], found[base]))
        rows.append({
            "what": what, "num_envs": n,
            "threads": 1 if what in ("raw_loop", "single_env") else config.threads,
            "control_steps_per_s": float(np.median(found[key])),
            "lowest": min(found[key]), "highest": max(found[key]),
            "ratio_to_raw": float(ratio), "raw": base[0],
            **({"flags": config.ppo_flags} if what == "ppo" else {}),
        })  # fmt: skip
    print(table(rows))
    if config.json is not None:
        cli.write_json(config.json, cli.json_result("throughput", seed=config.seed, rows=rows))
        print(f"results in {config.json}")
    if config.chart is not None:
        draw(rows, config.chart)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines: list[tuple[str, ...]] = [("what", "robots", "control steps/s", "range", "to raw")]
    for row in rows:
        lines.append((
            row["what"], str(row["num_envs"]), f"{row['control_steps_per_s']:,.0f}",
            f"{row['lowest']:,.0f} to {row['highest']:,.0f}", f"{row['ratio_to_raw']:.2f}",
        ))  # fmt: skip
    return cli.aligned(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Steps per second over the number of robots."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError("--chart needs matplotlib: pip install 'bm-envs[viz]'.") from None
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for what, label in (
        ("raw_engine", "bare engine"), ("env", "environment"),
        ("rollout_with_policy", "environment and policy"),
    ):  # fmt: skip
        line = [row for row in rows if row["what"] == what]
        if line:
            x = [row["num_envs"] for row in line]
            axes.plot(x, [row["control_steps_per_s"] for row in line], marker="o", label=label)
            axes.fill_between(
                x, [row["lowest"] for row in line], [row["highest"] for row in line], alpha=0.2
            )
    axes.set(xscale="log", xlabel="robots", ylabel="control steps per second", ylim=(0, None))
    axes.legend()
    with cli.atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
    print(f"chart in {path}")


if __name__ == "__main__":
    assert bm_envs  # its import registers the environments
    cli.run(main, Config)
