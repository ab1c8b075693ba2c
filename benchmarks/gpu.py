"""What a GPU gives: is it the same robot, how fast is it, and what does it learn in minutes.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json
    python benchmarks/gpu.py --train 'dance1[0:10]' --train-s 300 --run-dir runs/gpu
    python benchmarks/gpu.py --device cpu --quick      # without a GPU: that it runs, no figures

On MuJoCo-Warp (extra `warp`), everything on one device, in under ten minutes:

    agreement     largest difference of joints and roots from the backend `mujoco`, another engine,
                  after 0.2 s from equal states under equal targets, with contact
    raw_engine    the physics steps of a control step as one graph, from states and with joint
                  targets that were recorded while tracking, and nothing beside it
    env           `DeviceTrack.step` with random actions about the reference: resets, noise, pushes,
                  randomization and adaptive starts included
    ppo           `algos/ppo_track.py --preset gpu` as it stands, learning included

`ratio_to_raw` is the median of the ratios within each repetition; samples are taken in turn, and
`peak_memory_mb` is torch's and Warp's together, of what ran until then. With `--train` a policy is
trained for `--train-s` seconds at the speed found, and evaluated with both protocols on `mujoco`;
the rows of that are in `<run-dir>/results.json`. Rows are of the kind `throughput`.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import FlagCreatePairsOff, arg

from bm_envs import cli
from bm_envs.backends.base import SimulatorConfig, full_state, make_simulator
from bm_envs.backends.host import make_host_simulator
from bm_envs.errors import BackendUnavailable, BMError, ConfigError
from bm_envs.learning.log import read_metrics
from bm_envs.motion.library import load_motions
from bm_envs.results import write_result
from bm_envs.robots import g1
from bm_envs.tasks.track.config import SamplingConfig, TrackConfig

BACKEND = "mujoco_warp"
WINDOW, WINDOWS = 10, 3  # control steps from a recorded state; recordings one after the other
WARM_UP = 50  # control steps, so that falls and resets have begun, and the graph is captured
NUM_STEPS = 16  # a robot and iteration of the training script
ACTION_NOISE = 0.1  # raw action, about the reference
SCRIPTS = Path(__file__).parent.parent

Sample = Callable[[float], float]  # seconds to measure for -> control steps per second


@dataclass(frozen=True)
class Config:
    """What to measure."""

    json: Path | None = None
    """Result file to write."""
    device: str | None = None
    """Where; default the first GPU."""
    num_envs: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """Numbers of robots."""
    ppo_num_envs: tuple[int, ...] = (4096,)
    """Numbers of robots of the training script; none: it is left out."""
    motion: str = "walk"
    """Motion to track."""
    repeats: int = 5
    """Repetitions of everything."""
    sample_s: float = 1.0
    """Seconds of each sample."""
    train: str | None = None
    """A motion to train a policy on, in place of the measurements."""
    train_s: float = 400.0
    """Seconds of training."""
    run_dir: Path = Path("runs/gpu")
    """Where the trained policy is kept."""
    ppo_flags: Annotated[str, arg(metavar="'FLAGS'")] = ""
    """Further flags of the training script, one quoted string."""
    seed: int = 0
    """Seed of states and actions."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """Four robots, two repetitions, short samples: that it runs, not for published figures."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.sample_s > 0 or min(self.num_envs, default=0) < 1:
            raise ConfigError("repeats and num_envs must be 1 or more, and sample_s positive.")
        if not self.train_s > 0:
            raise ConfigError(f"train_s is {self.train_s}, expected a positive time in s.")


# --- is it the same robot -------------------------------------------------------------------------


def agreement(config: Config, count: int = 64) -> dict[str, float]:
    """Differences from `mujoco` after 0.2 s of moving targets from the knees-bent stand."""
    rng = np.random.default_rng(config.seed)
    stand = [0, 0, g1.POSES["KNEES_BENT"].root_height - 0.001, 1, 0, 0, 0, *g1.DEFAULT_JOINT_POS]
    qpos, qvel = np.tile(stand, (count, 1)), np.zeros((count, 35))
    qvel[:, :3] = rng.uniform(-0.2, 0.2, (count, 3))
    targets = g1.DEFAULT_JOINT_POS + rng.uniform(-0.2, 0.2, (10, count, 29))
    ends = []
    for backend, device in ((BACKEND, config.device), ("mujoco", None)):
        sim = make_host_simulator(backend, SimulatorConfig(count, device=device))
        sim.reset(np.arange(count), qpos, qvel)
        for target in targets:
            sim.step(target)
        ends.append(np.array(full_state(sim)[0]))
        sim.close()
    off = abs(ends[0] - ends[1])
    return {"joints_rad": float(off[:, 7:].max()), "roots_m": float(off[:, :3].max())}


# --- how fast is it -------------------------------------------------------------------------------


class Tracking:
    """N robots that follow the reference with noise; the task's `train` preset, adaptive starts."""

    def __init__(self, num_envs: int, config: Config) -> None:
        import torch

        from bm_envs.tasks.track.device import DeviceTrack

        task = TrackConfig(start=SamplingConfig(mode="adaptive"))
        self.num_envs, self._torch = num_envs, torch
        self.env = DeviceTrack(
            num_envs, load_motions(config.motion), task, seed=config.seed, backend=BACKEND,
            device=config.device,
        )  # fmt: skip
        self.env.reset()
        for _ in range(WARM_UP):
            self.env.step(self.actions())

    def actions(self) -> Any:
        """Random raw actions about the reference. `[N, 29]`."""
        env = self.env
        noise = self._torch.randn(self.num_envs, 29, device=env.device)
        return (env.reference.joint_pos - env.default_joint_pos) / env.scale + ACTION_NOISE * noise

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.env.device.type == "cuda":
            self._torch.cuda.synchronize(self.env.device)

    def sample(self, seconds: float) -> float:
        """The environment alone; actions are drawn beforehand."""
        actions = [self.actions() for _ in range(WINDOW)]
        spent, steps = 0.0, 0
        while spent < seconds:
            self.wait()
            start = time.perf_counter()
            for action in actions:
                self.env.step(action)
            self.wait()
            spent += time.perf_counter() - start
            steps += self.num_envs * WINDOW
        return steps / spent

    def engine(self) -> Sample:
        """The engine alone, from states and with targets of this environment."""
        torch, env, windows = self._torch, self.env, []
        for _ in range(WINDOWS):
            start, targets = full_state(env.simulator), []
            for _ in range(WINDOW):
                env.step(self.actions())
                targets.append(env.default_joint_pos + env.scale * env.action)
            windows.append((*start, targets))
        engine: Any = make_simulator(BACKEND, env.simulator.config)
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=env.device)
        endless = itertools.cycle(windows)

        def sample(seconds: float) -> float:
            spent, steps = 0.0, 0
            while spent < seconds:
                qpos, qvel, targets = next(endless)
                engine.reset(everyone, qpos, qvel)
                self.wait()
                begun = time.perf_counter()
                for target in targets:
                    engine.physics_alone(target)
                self.wait()
                spent += time.perf_counter() - begun
                steps += self.num_envs * WINDOW
            return steps / spent

        return sample


def ppo(config: Config, num_envs: int) -> Sample:
    """The training script as a user starts it."""

    def sample(seconds: float) -> float:
        with tempfile.TemporaryDirectory() as folder:
            # The script takes a number of steps, not of seconds; the first iterations warm up.
            iterations = 30 if seconds >= 0.5 else 4
            batch = num_envs * NUM_STEPS
            rows = train(
                config, Path(folder), config.motion, "--num-envs", str(num_envs),
                "--total-timesteps", str(iterations * batch), "--eval-every", "0",
                "--checkpoint-s", "1e9",
            )  # fmt: skip
        rows = rows[iterations // 3 : -1]  # the last one evaluates and exports
        return batch * (len(rows) - 1) / (rows[-1]["train_s"] - rows[0]["train_s"])

    return sample


def train(config: Config, run_dir: Path, motion: str, *flags: str) -> list[dict[str, Any]]:
    """Run the training script; returns the rows of its log.

    Raises:
        BMError: it failed; its last line.
    """
    script = SCRIPTS / "algos" / "ppo_track.py"
    command = [
        sys.executable, str(script), "--preset", "gpu", "--motion", motion,
        "--num-steps", str(NUM_STEPS), "--run-dir", str(run_dir), "--no-motion", *flags,
        *config.ppo_flags.split(),
    ]  # fmt: skip
    if config.device is not None:
        command += ["--device", config.device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise BMError(f"{script.name} failed: {said}")
    return read_metrics(run_dir / "metrics.jsonl")


def peak_memory_mb(device: Any) -> float | None:
    """Memory that is taken on a GPU, by torch and Warp; None elsewhere."""
    if device.type != "cuda":
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return round((total - free) / 2**20, 1)


def measure(config: Config) -> list[dict[str, Any]]:
    """Rows of the kind `throughput`."""
    rows = []
    for n in config.num_envs:
        tracking = Tracking(n, config)
        samples = {"raw_engine": tracking.engine(), "env": tracking.sample}
        if n in config.ppo_num_envs:
            samples["ppo"] = ppo(config, n)
        speeds_of: dict[str, list[float]] = {what: [] for what in samples}
        for _ in range(config.repeats):
            for what, sample in samples.items():
                speeds_of[what].append(sample(config.sample_s))
        for what, speeds in speeds_of.items():
            rows.append({
                "what": what, "num_envs": n, "threads": None, "backend": BACKEND,
                "control_steps_per_s": float(np.median(speeds)), "lowest": min(speeds),
                "highest": max(speeds),
                "ratio_to_raw": float(np.median(np.divide(speeds, speeds_of["raw_engine"]))),
                "peak_memory_mb": peak_memory_mb(tracking.env.device),
            })  # fmt: skip
            print(
                f"{what}, {n} robots: {rows[-1]['control_steps_per_s']:,.0f} control steps/s, "
                f"{rows[-1]['ratio_to_raw']:.2f} of the engine",
                flush=True,
            )
        tracking.env.close()
    return rows


# --- what does it learn ---------------------------------------------------------------------------


def learn(config: Config) -> None:
    """Train a policy for a time and evaluate it on the other engine."""
    assert config.train is not None
    num_envs = ["--num-envs", "4"] if config.quick else []
    with tempfile.TemporaryDirectory() as folder:  # how fast is it
        count = 4 if config.quick else 4096
        rows = train(
            config, Path(folder), config.train, *num_envs, "--eval-every", "0",
            "--total-timesteps", str(count * NUM_STEPS * (4 if config.quick else 20)),
        )  # fmt: skip
    speed = (rows[-2]["step"] - rows[1]["step"]) / (rows[-2]["train_s"] - rows[1]["train_s"])
    steps = max(int(speed * config.train_s), count * NUM_STEPS)
    print(f"{speed:,.0f} steps/s: {steps:,} steps in {config.train_s:g} s", flush=True)
    train(config, config.run_dir, config.train, *num_envs, "--total-timesteps", str(steps))
    command = [
        sys.executable, str(SCRIPTS / "benchmarks" / "track.py"), "--policy", str(config.run_dir),
        "--motion", config.train, "--json", str(config.run_dir / "results.json"),
        *(["--quick"] if config.quick else []),
    ]  # fmt: skip
    if subprocess.run(command).returncode:
        raise BMError(f"{config.run_dir}: the trained policy could not be evaluated, see above.")


def main(config: Config) -> None:
    """Measure, or train."""
    if config.quick:
        config = dataclasses.replace(
            config, num_envs=(4,), ppo_num_envs=(4,), repeats=2, sample_s=0.2
        )
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    import torch

    if config.device is None and not torch.cuda.is_available():
        raise BackendUnavailable(
            "There is no NVIDIA GPU here that torch sees; --device cpu --quick runs without one."
        )
    if config.train is not None:
        learn(config)
        return
    off = agreement(config)
    print(f"from `mujoco` after 0.2 s: joints {off['joints_rad']:.1e} rad, roots "
          f"{off['roots_m']:.1e} m", flush=True)  # fmt: skip
    rows = measure(config)
    if config.json is not None:
        result = cli.json_result("throughput", seed=config.seed, rows=rows)
        write_result(config.json, result | {"agreement": off})
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
