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

With `--peers` there is a row `peer` for each of `PEERS`, what a user could pick instead, measured
in turn with the rest. `ratio_to_env` is its speed to that of `env` with `env_num_envs` robots;
robots, engines and control steps differ, see `task`. One that does not run has an `error` and no
figures. Each has an environment of its own, `<peer-dir>/<name>`, made with pip where there is none.
For mjlab that brings PyTorch as pip finds it: to have its CPU build, make the environment yourself.

    python benchmarks/throughput.py --start --json benchmarks/results/motion_store.json

measures something else, in place of all that: `start`, how long motions take until 64 robots can
track them (`benchmarks/starting.py`, a process each): the forty clips of LAFAN1 without a cache,
with an empty one, and the second time, and ten and a hundred hours the second time. These are the
forty clips and their mirror images over and over under other paths, which are links to 80 files: so
each has entries of its own in the cache and is opened, shown and checked for itself, while clips of
the same content are the same file there. What a robot looks at is read. All files are in the
system's memory; from a disk the first looks take longer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch
from tyro.conf import FlagCreatePairsOff, arg

import bm_envs
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.learning.log import read_metrics
from bm_envs.motion import store, suites
from bm_envs.motion.clip import Clip, clip_from_states, save_npz
from bm_envs.motion.library import load_motions
from bm_envs.policy import read_run_config
from bm_envs.results import write_result
from bm_envs.robots import g1, mjcf
from bm_envs.tasks.track.config import SamplingConfig, TrackConfig

What = Literal["raw_engine", "env", "single_env", "rollout_with_policy", "ppo"]
ALL: tuple[What, ...] = ("raw_engine", "env", "single_env", "rollout_with_policy", "ppo")
WINDOW = 10  # control steps from a recorded state, before robots get far from what was recorded
WINDOWS = 5  # recorded one after the other, so that starts, falls and all between have their share
WARM_UP = 50  # control steps, so that falls and resets have begun
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
    peers: Annotated[bool, FlagCreatePairsOff] = False
    """Measure other projects' environments as well."""
    peer_dir: Path = Path(".cache/peers")
    """Where the peers' Python environments are, or are to be made."""
    start: Annotated[bool, FlagCreatePairsOff] = False
    """Measure how long many motions take to be ready (needs LAFAN1, 3 GB of disk), nothing else."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """N = 1 and 512, three repetitions, shorter samples, with `--start` the package's own clips:
    not for published figures."""

    def __post_init__(self) -> None:
        if self.start and (self.peers or self.chart is not None):
            raise ConfigError("--start measures nothing else: leave --peers and --chart out.")
        if self.peers and "env" not in self.what:
            raise ConfigError("--peers compares with `env`, which --what leaves out.")
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
        return task.reference_action() + np.float32(ACTION_NOISE) * noise

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


def record(tracking: Tracking) -> list[Recording]:
    """Let the robots track for some windows, and keep what the engine needs to do the same."""
    windows = []
    for _ in range(WINDOWS):
        state = tracking.env.simulator.get_state()
        targets = []
        for _ in range(WINDOW):
            tracking.env.step(tracking.actions())
            task = tracking.task
            targets.append(task.default_joint_pos + task.action_scale * task.action)
        windows.append(Recording(state["qpos"], state["qvel"], np.array(targets, np.float64)))
    return windows


def raw_engine(windows: list[Recording], task: TrackConfig, threads: int) -> Sample:
    """The batched C loop alone."""
    num_envs = len(windows[0].qpos)
    batch = Batch(mjcf.compile_model(task.model), num_envs, min(threads, num_envs), persistent=True)
    qpos, qvel, ctrl = (batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
    stage = int(mujoco.mjtStage.mjSTAGE_NONE)
    endless = itertools.cycle(windows)

    def sample(seconds: float) -> float:
        spent, steps = 0.0, 0
        while spent < seconds:
            window = next(endless)
            qpos[:], qvel[:] = window.qpos, window.qvel
            for target in window.targets:
                start = time.perf_counter()
                ctrl[:] = target
                batch.step(nstep=task.decimation, stage=stage)
                spent += time.perf_counter() - start
                steps += num_envs
        return steps / spent

    return sample


def raw_loop(windows: list[Recording], task: TrackConfig) -> Sample:
    """One robot at a time with `mj_step`, in one thread."""
    model = mjcf.compile_model(task.model)
    data = mujoco.MjData(model)
    robots = range(len(windows[0].qpos))
    endless = itertools.cycle(itertools.product(windows, robots))

    def sample(seconds: float) -> float:
        spent, steps = 0.0, 0
        while spent < seconds:
            window, robot = next(endless)
            data.qpos[:], data.qvel[:] = window.qpos[robot], window.qvel[robot]
            for target in window.targets[:, robot]:
                start = time.perf_counter()
                data.ctrl[:] = target
                mujoco.mj_step(model, data, task.decimation)
                spent += time.perf_counter() - start
                steps += 1
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
            action = inner.reference_action()[0] + np.float32(ACTION_NOISE) * noise
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
        torch.set_num_threads(1)  # a second one waits by spinning, which takes a core from physics
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


# Of `ppo_track.py`. Its default has half as many physics steps as the standard task.
PPO_SETTINGS = {
    "default": "",
    "5 ms physics": "--task.model.physics-dt 0.005 --task.decimation 4",
}


def ppo(config: Config, flags: str) -> tuple[Sample, TrackConfig, int]:
    """The training script as a user starts it; its task and its number of robots."""
    script = Path(__file__).parent.parent / "algos" / "ppo_track.py"

    def run(total: int, folder: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        command = [
            sys.executable, str(script), "--motion", config.motion, "--eval-every", "0",
            "--total-timesteps", str(total), "--run-dir", folder,
            "--threads", str(config.threads), "--checkpoint-s", "1e9",
            *flags.split(), *config.ppo_flags.split(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise BMError(f"{script.name} failed: {said}")
        return read_metrics(Path(folder) / "metrics.jsonl"), read_run_config(folder)

    with tempfile.TemporaryDirectory() as folder:
        _, settings = run(4096, folder)  # to learn its settings
    task = TrackConfig().override(settings["task"])
    first = 10  # iterations, in which it warms up

    def sample(seconds: float) -> float:
        # The script takes a number of steps, not of seconds; this many last at any plausible speed.
        batch = settings["num_envs"] * settings["num_steps"]
        total = max(30 * batch, int(20_000 * seconds))
        with tempfile.TemporaryDirectory() as folder:
            rows, _ = run(total, folder)
        rows = rows[first:-1]  # the last one evaluates and exports
        return batch * (len(rows) - 1) / (rows[-1]["train_s"] - rows[0]["train_s"])

    return sample, task, settings["num_envs"]


# --- peers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """Another project's environment."""

    task: str
    requirements: tuple[str, ...]
    script: str  # in `benchmarks/peers`
    num_envs: int = 0  # 0: as many as threads


PEERS = {
    "gymnasium": Peer(
        "Humanoid-v5, 17 actuators, 15 ms a control step, a process per robot",
        ("gymnasium[mujoco]",), "gymnasium_humanoid.py",
    ),
    "mjlab": Peer(
        "Mjlab-Tracking-Flat-Unitree-G1 on the same clip, mujoco_warp on the CPU, 20 ms a control "
        "step", ("mjlab==1.6.0",), "mjlab_tracking.py", 512,
    ),
    "loco-mujoco": Peer(
        "UnitreeG1, one robot, 10 ms a control step",
        ("loco-mujoco==1.0.0", "requests"), "loco_mujoco_g1.py", 1,
    ),
}  # fmt: skip


class PeerProcess:
    """A peer's script, alive between samples. `BMError` where it cannot be made to run."""

    def __init__(self, name: str, motion: Path, config: Config) -> None:
        peer = PEERS[name]
        self.num_envs = peer.num_envs or config.threads
        folder = config.peer_dir / name
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not folder.exists():
            try:
                self._run([sys.executable, "-m", "venv", str(folder)])
                self._run([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
            except BMError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        script = Path(__file__).parent / "peers" / peer.script
        # Absolute, but the link is not followed: it is what makes the environment.
        command = [str(python.absolute()), str(script), str(self.num_envs), str(motion)]
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        while self._read() != "ready":
            pass  # what it prints on its way

    @staticmethod
    def _run(command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BMError(_last_line(done.stderr))

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise BMError(_last_line(self._errors.read()))
        return line.strip()

    def sample(self, seconds: float) -> float:
        """Control steps per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def add_peers(
    config: Config, stack: contextlib.ExitStack, samples: dict[Key, Sample],
    details: dict[Key, dict[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Start every peer, add its sample, and return rows of those that do not run."""
    motion = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "motion.npz"
    save_npz(load_motions(config.motion)[0], motion)
    absent = []
    for name, peer in PEERS.items():
        about = {"task": peer.task, "requirements": list(peer.requirements)}
        try:
            process = stack.enter_context(contextlib.closing(PeerProcess(name, motion, config)))
        except BMError as error:
            absent.append({
                "what": "peer", "variant": name, "num_envs": peer.num_envs or config.threads,
                "threads": config.threads, "control_steps_per_s": None, "ratio_to_raw": None,
                **about, "error": str(error),
            })  # fmt: skip
            continue
        key = Key("peer", process.num_envs, name)
        samples[key], details[key] = process.sample, about
    return absent


def _last_line(text: str) -> str:
    return (text.strip() or "no message").splitlines()[-1]


# --- motions until they are ready -----------------------------------------------------------------

START_ENVS = 64


def started(config: Config) -> list[dict[str, Any]]:
    """Rows `start`."""
    suite, many = ("builtin", (0.1,)) if config.quick else ("lafan1-40", (10.0, 100.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cached = {store.DIR_VARIABLE: f"{folder / 'cache'}"}
        rows = [
            start(f"{suite}, no cache", suite, config, {store.DIR_VARIABLE: "0"}, 1),
            start(f"{suite}, first time", suite, config, cached, 1),
            start(suite, suite, config, cached, config.repeats),
        ]
        os.environ.update(cached)
        files = both_ways(folder, load_motions(suites.motions(suite)))
        for hours in many:
            paths = folder / f"{hours:g}.txt"
            paths.write_text("\n".join(linked(folder / f"{hours:g}", files, hours)))
            start(f"{hours:g} hours, first time", f"{paths}", config, cached, 1)
            rows.append(start(f"{hours:g} hours", f"{paths}", config, cached, config.repeats))
    return rows


def both_ways(folder: Path, clips: list[Clip]) -> dict[Path, float]:
    """Files of clips and of their mirror images, each with its seconds."""
    joints, signs = g1.mirror_map()
    files = {}
    for clip in clips:
        mirrored = clip_from_states(
            f"{clip.name}_mirrored", clip.fps, clip.body_pos_w[:, 0] * [1, -1, 1],
            clip.body_quat_w[:, 0] * [1, -1, 1, -1], clip.joint_pos[:, joints] * signs,
            source=clip.source, licence=clip.licence, foot_contact=clip.foot_contact[:, ::-1],
        )  # fmt: skip
        for one in (clip, mirrored):
            path = folder / f"{one.name}.npz"
            save_npz(one, path)
            files[path] = one.duration_s
    return files


def linked(folder: Path, files: dict[Path, float], hours: float) -> list[str]:
    """Paths of links to the files, over and over, that are so many hours or a little more."""
    paths, seconds = [], 0.0
    for number in itertools.count():
        for file, duration_s in files.items():
            if seconds >= 3600 * hours:
                return paths
            path = folder / f"{number}" / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(file)
            paths.append(f"{path}")
            seconds += duration_s
    raise AssertionError


def start(
    variant: str, motions: str, config: Config, variables: dict[str, str], repeats: int
) -> dict[str, Any]:  # fmt: skip
    """A row: of so many processes one after another the medians, and of their speeds the range."""
    script = Path(__file__).parent / "starting.py"
    command = [
        sys.executable, str(script), motions, "--num-envs", str(START_ENVS),
        "--threads", str(config.threads), "--sample-s", str(config.sample_s),
    ]  # fmt: skip
    found = []
    for _ in range(repeats):
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **variables}
        )
        if done.returncode:
            raise BMError(f"{script.name} failed: {_last_line(done.stderr)}")
        found.append(json.loads(_last_line(done.stdout)))
    median = {key: float(np.median([one[key] for one in found])) for key in found[0]}
    print(f"{variant}: ready in {median['ready_s']:.1f} s", flush=True)
    speeds = [one["control_steps_per_s"] for one in found]
    return {
        "what": "start", "variant": variant, "num_envs": START_ENVS, "threads": config.threads,
        "ratio_to_raw": None, **median, "clips": found[0]["clips"], "frames": found[0]["frames"],
        "lowest": min(speeds), "highest": max(speeds),
        "longest_ready_s": max(one["ready_s"] for one in found),
    }  # fmt: skip


def table_of_starts(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines: list[tuple[str, ...]] = [
        ("start", "hours", "ready, s", "processor, s", "private, MB", "peak, MB", "steps/s")
    ]
    for row in rows:
        figures = row["hours"], row["ready_s"], row["ready_cpu_s"], row["private_mb"]
        numbers = *(f"{value:.1f}" for value in figures), f"{row['peak_mb']:.0f}"
        lines.append((row["variant"], *numbers, f"{row['control_steps_per_s']:,.0f}"))
    return cli.aligned(lines)


# --- the measurement ------------------------------------------------------------------------------


class Key(NamedTuple):
    """What a sample is of. `variant`: settings of `ppo`, or the name of a peer."""

    what: str
    num_envs: int
    variant: str = ""


def main(config: Config) -> None:
    """Measure, print, write."""
    if config.quick:
        config = dataclasses.replace(config, num_envs=(1, 512), repeats=3, sample_s=0.5)
    config = dataclasses.replace(config, threads=config.threads or cli.available_cores())
    if config.start:
        rows = started(config)
        print(table_of_starts(rows))
        write(rows, config)
        return
    standard = TrackConfig(start=SamplingConfig(mode="adaptive"))
    samples: dict[Key, Sample] = {}
    base: dict[Key, Key] = {}  # what each is compared with
    details: dict[Key, dict[str, Any]] = {}

    def add_raw(key: Key, task: TrackConfig) -> Key:
        windows = record(Tracking(key.num_envs, config, task))
        samples[key], base[key] = raw_engine(windows, task, config.threads), key
        return key

    def add(key: Key, sample: Sample, raw: Key, **more: Any) -> None:
        samples[key], base[key], details[key] = sample, raw, more

    for n in config.num_envs:
        raw = add_raw(Key("raw_engine", n), standard)
        if "env" in config.what:
            add(Key("env", n), Tracking(n, config, standard).sample, raw)
        if "rollout_with_policy" in config.what:
            rollout = rollout_with_policy(Tracking(n, config, standard), config)
            add(Key("rollout_with_policy", n), rollout, raw)
    if "single_env" in config.what:
        loop = Key("raw_loop", 1)
        many = record(Tracking(64, config, standard))
        samples[loop], base[loop] = raw_loop(many, standard), loop
        add(Key("single_env", 1), single_env(config, standard), loop)
    if "ppo" in config.what:
        for name, flags in PPO_SETTINGS.items():
            train, task, n = ppo(config, flags)
            raw = add_raw(Key("raw_engine_ppo", n, name), task)
            add(Key("ppo", n, name), train, raw, flags=f"{flags} {config.ppo_flags}".strip())
    with contextlib.ExitStack() as stack:
        absent = add_peers(config, stack, samples, details) if config.peers else []
        speeds_of: dict[Key, list[float]] = {key: [] for key in samples}
        for repeat in range(config.repeats):
            for key, sample in samples.items():
                speeds_of[key].append(sample(config.sample_s))
            print(f"repetition {repeat + 1} of {config.repeats}", flush=True)

    rows = [row(key, speeds_of, base, config) | details.get(key, {}) for key in samples] + absent
    print(table(rows))
    write(rows, config)
    if config.chart is not None:
        draw(rows, config.chart)


def write(rows: list[dict[str, Any]], config: Config) -> None:
    """The result file, if one is wanted."""
    if config.json is not None:
        write_result(config.json, cli.json_result("throughput", seed=config.seed, rows=rows))
        print(f"results in {config.json}")


def row(
    key: Key, speeds_of: dict[Key, list[float]], base: dict[Key, Key], config: Config
) -> dict[str, Any]:
    """One sample's figures."""
    speeds = speeds_of[key]
    raw, ratio = None, None
    if key in base:
        raw, ratio = base[key].what, float(np.median(np.divide(speeds, speeds_of[base[key]])))
    result = {
        "what": key.what, "variant": key.variant, "num_envs": key.num_envs,
        "threads": 1 if key.what in ("raw_loop", "single_env") else config.threads,
        "control_steps_per_s": float(np.median(speeds)),
        "lowest": min(speeds), "highest": max(speeds), "ratio_to_raw": ratio, "raw": raw,
    }  # fmt: skip
    if key.what == "peer":
        ours = max((other for other in speeds_of if other.what == "env"), key=lambda k: k.num_envs)
        result["ratio_to_env"] = float(np.median(np.divide(speeds, speeds_of[ours])))
        result["env_num_envs"] = ours.num_envs
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines: list[tuple[str, ...]] = [("what", "", "robots", "control steps/s", "range", "to raw")]
    for row in rows:
        name = row["what"], row["variant"], str(row["num_envs"])
        if row["control_steps_per_s"] is None:
            lines.append((*name, "-", row["error"], "-"))
            continue
        speeds = f"{row['lowest']:,.0f} to {row['highest']:,.0f}"
        ratio = row["ratio_to_raw"]
        ratio = f"{ratio:.2f}" if ratio is not None else f"{row['ratio_to_env']:.3f} of env"
        lines.append((*name, f"{row['control_steps_per_s']:,.0f}", speeds, ratio))
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
