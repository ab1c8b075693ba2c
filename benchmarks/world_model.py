r"""The world model of `algos/wm_track.py`: how far it gets, and how fast it learns.

    python benchmarks/world_model.py --run runs/walk__wm_track__1 --json out.json --plot out.png
    python benchmarks/world_model.py --speed --json speed.json    # on a quiet machine
    python benchmarks/world_model.py --speed --against ../old --json speed.json

The run's final policy drives N robots in the run's own training task, with the run's action noise,
from a seed that training has not seen. From every state along the way the model then plays the next
steps by the recorded targets, and is compared with what the engine did: `model`. Beside it stands
what moves on with the present velocities: `coasting`. A row of the result holds, for each:

    step                  control steps of 20 ms since the true state
    count                 rollouts whose episode lasted as long
    pos_mm, rot_deg       mean error of the pelvis's place and orientation
    lin_m_s, ang_rad_s    of its velocities
    joint_pos_rad, joint_vel_rad_s    mean absolute error of a joint

`--plot` (extra `viz`) draws place and joints over the steps.

With `--speed` parts of a training are timed as they come in a short run of the script, each beside
its bound, which is measured in the same minute. The result's kind is `speed`; a row holds:

    what                  policy_update: one update of the policy, 128 rollouts of 32 steps;
                          policy_update_512: of 512 rollouts; model_update: one of the model, 256
                          windows of 8 steps; collect: 8 control steps of 64 robots; evaluate: the
                          `clip` protocol of `walk`, by the shipped policy
    ms, bound_ms          medians over repetitions. Of updates the bound is their matrix products,
                          forward and backward, of the layers' shapes, threads and precision, one
                          call of torch each (symmetric layers do with half the arithmetic); else
                          the bare engine from the same states
    ratio                 median over the repetitions of time to bound
    threads, precision    of both
    of                    commit of the code; with `--against` both stand in the file, and are
                          measured in turn; `evaluate` and policy_update_512 of this one alone
    imagined_steps_per_s  of policy updates: imagined control steps of a robot a second and core

The other checkout needs a compiled part of its own where this one has one: in it,
`python -m pip install --no-deps --target <folder> .`, and copy `_native*` from there to `bm_envs/`.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from tyro.conf import FlagCreatePairsOff

from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.learning.checks import check_at_least_one
from bm_envs.learning.evaluation import Evaluation, evaluation_env
from bm_envs.learning.folder import load_checkpoint
from bm_envs.learning.log import read_metrics
from bm_envs.learning.networks import TrackingPolicy, has_native_bfloat16
from bm_envs.learning.replay_buffer import ReplayBuffer, ReplayCollector
from bm_envs.learning.robots import HostRobots
from bm_envs.learning.world_model import State, WorldModel
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.policy import load_policy, mlp_from_policy, read_run_config
from bm_envs.results import write_result
from bm_envs.robots import mjcf
from bm_envs.tasks.track.config import TrackConfig, laptop_task, with_changes

SCRIPT = "algos/wm_track.py"
ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Config:
    """Compare a world model with the engine on held-out rollouts, or time its learning."""

    json: Path
    """Result file."""
    run: Path | None = None
    """The run: a folder with checkpoint.pt and config.json."""
    speed: Annotated[bool, FlagCreatePairsOff] = False
    """Time the parts of a training."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """With `--speed`: one short repetition, not for published figures."""
    against: Path | None = None
    """With `--speed`: a checkout of another commit to time as well."""
    threads: int = 1
    """With `--speed`: threads."""
    plot: Path | None = None
    """Picture to draw, .png or .svg."""
    steps: int = 32
    """Steps that the model plays."""
    num_envs: int = 64
    """Robots."""
    roll_out: int = 100
    """Control steps that they are driven."""
    seed: int = 1000
    """Seed of the rollouts."""

    def __post_init__(self) -> None:
        check_at_least_one(self, "steps", "num_envs", "threads")
        if self.speed == (self.run is not None):
            raise ConfigError("Expected either --run or --speed.")
        if self.against is not None and not (self.against / SCRIPT).is_file():
            raise ConfigError(f"{self.against}: is no checkout, it has no {SCRIPT}.")
        if self.roll_out <= self.steps:
            raise ConfigError(
                f"roll_out is {self.roll_out}, expected more than steps, {self.steps}."
            )


@dataclass(frozen=True)
class Trained:
    """Settings of a run of `wm_track.py`, as its `config.json` has them."""

    task: TrackConfig = TrackConfig()
    """What the robots do."""
    hidden: tuple[int, ...] = ()
    """Hidden layers of the policy."""
    model_hidden: tuple[int, ...] = ()
    """Hidden layers of the model."""
    activation: Literal["elu", "relu", "tanh"] = "elu"
    """Nonlinearity of the policy."""
    residual: bool = True
    """Whether the policy's mean rides on the reference."""
    symmetry: bool = True
    """Whether the networks are left-right symmetric."""
    action_noise: float = 0.0
    """Standard deviation of the raw action's noise, the mean over robots."""
    noise_correlation: float = 0.75
    """Correlation of a robot's noise from step to step; a setting of older runs."""


def restored(run: Path) -> tuple[Trained, dict[str, Any], list[Clip]]:
    """The run's settings, checkpoint and motions.

    Raises:
        PolicyError: it is another script's run, or not one.
    """
    record = read_run_config(run)
    if record.get("exp_name") != "wm_track":
        raise PolicyError(f"{run}: is no run of wm_track.py, but of {record.get('exp_name')}.")
    saved = load_checkpoint(run / "checkpoint.pt", ("actor", "model"))
    values = {"noise_correlation": Trained.noise_correlation} | record["network"] | record
    changes = {item.name: values[item.name] for item in fields(Trained)}
    return with_changes(Trained(), changes, ""), saved, load_motions(record["motion"])


def rollouts(
    config: Config, trained: Trained, saved: dict[str, Any], clips: list[Clip]
) -> tuple[ReplayBuffer, WorldModel]:
    """A buffer with the policy's own states, and its world model."""
    task = trained.task
    robots = HostRobots(clips, task, config.num_envs, threads=1)
    robots.set_difficulty(0.0, 1.0)
    policy = TrackingPolicy(
        task.observations, trained.hidden, robots.task.nominal_joint_pos, robots.task.action_scale,
        activation=trained.activation, residual=trained.residual, symmetry=trained.symmetry,
    )  # fmt: skip
    policy.load_state_dict(saved["actor"])
    model = WorldModel(trained.model_hidden, task.decimation, symmetry=trained.symmetry)
    model.load_state_dict(saved["model"])
    buffer = ReplayBuffer(config.roll_out, config.num_envs, robots.device)
    collector = ReplayCollector(
        robots, trained.action_noise, trained.noise_correlation, config.seed
    )
    collector.run(policy, buffer, config.roll_out)
    robots.env.close()
    return buffer, model


def errors(state: State, truth: State, alive: torch.Tensor) -> dict[str, float]:
    """Mean errors of the rollouts that go on."""

    def mean(value: torch.Tensor) -> float:
        return value[alive].mean().item()

    # |R - R'|^2 = 4 (1 - cos angle) = 8 sin^2(angle / 2).
    chord = (state.rot - truth.rot).flatten(1).norm(dim=1)
    angle = 2 * torch.asin((chord / 8**0.5).clamp(max=1.0))
    return {
        "pos_mm": 1000 * mean((state.pos - truth.pos).norm(dim=1)),
        "rot_deg": mean(torch.rad2deg(angle)),
        "lin_m_s": mean((state.lin - truth.lin).norm(dim=1)),
        "ang_rad_s": mean((state.ang - truth.ang).norm(dim=1)),
        "joint_pos_rad": mean((state.joint_pos - truth.joint_pos).abs().mean(1)),
        "joint_vel_rad_s": mean((state.joint_vel - truth.joint_vel).abs().mean(1)),
    }


@torch.no_grad()
def growth(model: WorldModel, buffer: ReplayBuffer, steps: int) -> list[dict[str, Any]]:
    """Errors after each of `steps` steps, from every state that has as many behind it."""
    robots = torch.arange(buffer.robots).repeat(buffer.length - steps)
    begin = torch.arange(buffer.length - steps).repeat_interleave(buffer.robots)
    states, targets, build, valid = buffer.windows(begin, robots, steps)
    predicted = coasting = states[0]
    rows = []
    for step, (target, truth) in enumerate(zip(targets, states[1:], strict=True), 1):
        predicted = model(predicted, model.local(predicted), target, build)
        coasting = model.integrate(coasting, torch.zeros(len(begin), len(model.scale)))
        alive = valid[step - 1] > 0
        if not alive.any():
            break
        rows.append({
            "step": step, "count": int(alive.sum()), "model": errors(predicted, truth, alive),
            "coasting": errors(coasting, truth, alive),
        })  # fmt: skip
    return rows


def draw(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Errors over the steps."""
    figure = cli.matplotlib_figure()(figsize=(9, 3.2), layout="constrained")
    ms = 20 * np.array([row["step"] for row in rows])
    panels = (("pos_mm", "pelvis, mm"), ("rot_deg", "pelvis, degrees"),
              ("joint_pos_rad", "joints, rad"))  # fmt: skip
    for axes, (key, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for who in ("model", "coasting"):
            axes.plot(ms, [row[who][key] for row in rows], label=who)
        axes.set(xlabel="ms", ylabel=label, yscale="log")
    figure.axes[0].legend()
    figure.suptitle(title)
    with cli.atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


# --- speed ----------------------------------------------------------------------------------------

REPEATS = 5
WARM_UP = 16  # iterations in which the model learns alone
MEASURED, QUICK = 16, 6  # iterations after these
POLICY_UPDATES, MODEL_UPDATES, POLICY_STEPS, MODEL_STEPS = 4, 8, 32, 8
ROBOTS, STEPS, WINDOWS = 64, 8, 256
SIZES = {"policy_update": 128, "policy_update_512": 512}  # rollouts of an update
OBSERVATION, HIDDEN, MODEL_INPUTS, MODEL_HIDDEN, OUTPUTS = 160, (256, 128), 119, (256, 256), 70
ENGINE = "float64"
# Layers, inputs and outputs; the model's last runs beside the others.
POLICY = list(zip((OBSERVATION, *HIDDEN), (*HIDDEN, 29), strict=True))
MODEL = list(zip((MODEL_INPUTS, *MODEL_HIDDEN), (*MODEL_HIDDEN, OUTPUTS), strict=True))
MODEL.append((MODEL_INPUTS, OUTPUTS))


def median_ms(function: Callable[[], Any], seconds: float) -> float:
    """Median time of a call, after one that does not count."""
    function()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def products(
    rows: int, layers: list[tuple[int, int]], dtype: torch.dtype, *, learns: bool
) -> Callable[[], None]:
    """One step's matrix products of some layers: forward, back to inputs and, to learn, weights."""

    def matrices(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(dtype)

    calls = []
    for before, after in layers:
        x, y, weight = matrices(rows, before), matrices(rows, after), matrices(after, before)
        across = weight.T.contiguous()
        calls += [(x, across, matrices(rows, after)), (y, weight, matrices(rows, before))]
        if learns:
            calls.append((y.T, x, matrices(after, before)))

    def run() -> None:
        for first, second, out in calls:
            torch.mm(first, second, out=out)

    return run


def bound_of_update(what: str, dtype: torch.dtype) -> Callable[[], None]:
    """All matrix products of an update."""
    if what == "model_update":
        parts, steps = [products(WINDOWS, MODEL, dtype, learns=True)], MODEL_STEPS
    else:
        rows, steps = SIZES[what], POLICY_STEPS
        parts = [
            products(rows, POLICY, dtype, learns=True), products(rows, MODEL, dtype, learns=False)
        ]  # fmt: skip

    def run() -> None:
        for _ in range(steps):
            for part in parts:
                part()

    return run


def bare_engine(env: TrackVectorEnv, steps: int, act: Callable[[Any], Any], threads: int) -> Any:
    """The engine's steps alone that an environment makes by some actions."""
    task, simulator = env.task, env.simulator
    obs, _ = env.reset(seed=0)
    start = {k: np.array(v) for k, v in simulator.get_state().items() if k in ("qpos", "qvel")}
    targets = []
    for _ in range(steps):
        obs = env.step(act(obs))[0]
        targets.append(np.float64(task.default_joint_pos + task.action_scale * task.action))
    config, robots = task.config, len(start["qpos"])
    batch = Batch(mjcf.compile_model(config.model), robots, min(threads, robots), persistent=True)
    qpos, qvel, ctrl = (batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
    stage = int(mujoco.mjtStage.mjSTAGE_NONE)

    def run() -> None:
        qpos[:], qvel[:] = start["qpos"], start["qvel"]
        for target in targets:
            ctrl[:] = target
            batch.step(nstep=config.decimation, stage=stage)

    return run


def evaluating(threads: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The `clip` protocol of `walk` by its shipped policy, and the engine's share."""
    policy, clips = load_policy("walk"), load_motions(["walk"])
    mlp = mlp_from_policy(policy.path)
    task = dataclasses.replace(laptop_task(), observations=tuple(policy.spec.observation_names))
    env = evaluation_env(task, clips, threads, "clip")
    actor = TrackingPolicy(
        task.observations, tuple(len(bias) for bias in mlp.biases[:-1]),
        env.task.nominal_joint_pos, env.task.action_scale, activation=mlp.activation,
        residual=mlp.residual_offset is not None,
    )  # fmt: skip
    actor.load(mlp)

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return actor.mean(torch.from_numpy(obs)).numpy()

    engine = bare_engine(env, clips[0].num_frames - 1, act, threads)
    evaluation = Evaluation(clips, task, threads, robust=False)
    return lambda: evaluation.clip(actor), engine


def trained(checkout: Path, rollouts: int, config: Config, precision: str) -> dict[str, float]:
    """Milliseconds of a training's parts, medians over iterations of a short run."""
    iterations = WARM_UP + (QUICK if config.quick else MEASURED)
    with tempfile.TemporaryDirectory() as folder:
        flags = {
            "run-dir": Path(folder) / "run", "motion": "walk", "seed": config.seed,
            "threads": config.threads, "total-timesteps": iterations * ROBOTS * STEPS,
            "eval-every": 10**9, "num-envs": ROBOTS, "num-steps": STEPS,
            "warmup-iterations": WARM_UP, "policy-updates": POLICY_UPDATES,
            "policy-batch": rollouts, "policy-horizon": POLICY_STEPS,
            "model-updates": MODEL_UPDATES, "model-batch": WINDOWS, "model-horizon": MODEL_STEPS,
            "bfloat16": "on" if precision == "bfloat16" else "off",
        }  # fmt: skip
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        words += ["--hidden", *map(str, HIDDEN), "--model-hidden", *map(str, MODEL_HIDDEN)]
        done = subprocess.run(
            [sys.executable, str(checkout / SCRIPT), *words, "--no-overlap"], cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout)}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            raise ConfigError(f"{checkout / SCRIPT} failed: {''.join(said)}")
        rows = read_metrics(Path(folder) / "run" / "metrics.jsonl")
    # The first iteration with updates of the policy makes room for them.
    rows = [row for row in rows if "perf/policy_s" in row][1:]

    def part(name: str, count: int) -> float:
        return 1000 / count * float(np.median([row[f"perf/{name}_s"] for row in rows]))

    return {
        "policy": part("policy", POLICY_UPDATES), "model_update": part("model", MODEL_UPDATES),
        "collect": part("collect", 1),
    }  # fmt: skip


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, as result files have it."""
    code = "from bm_envs import cli; print(cli.commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    return done.stdout.strip()


def timed(config: Config) -> Iterator[tuple[int, str, float, float]]:
    """Checkout's number, part, its time and its bound's, ms, of every repetition."""
    precision = "bfloat16" if has_native_bfloat16(CPU) else "float32"
    dtype = getattr(torch, precision)
    seconds = 0.5 if config.quick else 2.0
    sizes = {"policy_update": SIZES["policy_update"]} if config.quick else SIZES
    bounds = {what: bound_of_update(what, dtype) for what in (*sizes, "model_update")}
    robots = TrackVectorEnv(ROBOTS, "walk", config=laptop_task(), threads=config.threads)
    rng = np.random.default_rng(config.seed)
    bounds["collect"] = bare_engine(
        robots, STEPS, lambda _: robots.task.reference_action()
        + rng.normal(0, 0.1, (ROBOTS, 29)).astype(np.float32), config.threads,
    )  # fmt: skip
    evaluate, bounds["evaluate"] = evaluating(config.threads)
    for _ in range(1 if config.quick else REPEATS):
        checkouts: list[Path] = [ROOT, *([config.against] if config.against else [])]
        for i, checkout in enumerate(checkouts):
            for what in sizes if i == 0 else ("policy_update",):
                parts = [what, *(["model_update", "collect"] if what == "policy_update" else [])]
                before = {part: median_ms(bounds[part], seconds) for part in parts}
                found = trained(checkout.resolve(), sizes[what], config, precision)
                found[what] = found.pop("policy")
                for part in parts:  # the machine before and after
                    bound = (before[part] + median_ms(bounds[part], seconds)) / 2
                    yield i, part, found[part], bound
            if i == 0:
                took = median_ms(evaluate, seconds)
                yield i, "evaluate", took, median_ms(bounds["evaluate"], seconds)


def speed(config: Config) -> list[dict[str, Any]]:
    """Rows of the kind `speed`."""
    torch.set_num_threads(config.threads)
    precision = "bfloat16" if has_native_bfloat16(CPU) else "float32"
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for i, what, took, bound in timed(config):
        found.setdefault((i, what), []).append((took, bound))
        print(f"{what} of checkout {i + 1}: {took:.1f} ms, bound {bound:.1f} ms", flush=True)
    commits = [commit_of(path) for path in (ROOT, *([config.against] if config.against else []))]
    rows = []
    for (i, what), pairs in found.items():
        took, bound = (float(np.median(values)) for values in zip(*pairs, strict=True))
        row = {
            "what": what, "ms": took, "bound_ms": bound,
            "ratio": float(np.median([a / b for a, b in pairs])), "threads": config.threads,
            "precision": precision if what in (*SIZES, "model_update") else ENGINE,
            "of": commits[i],
        }  # fmt: skip
        if what in SIZES:
            steps = SIZES[what] * POLICY_STEPS
            row["imagined_steps_per_s"] = 1000 * steps / took / config.threads
        rows.append(row)
    return rows


def main(config: Config) -> None:
    """Drive, predict, compare; or time."""
    if config.speed:
        rows = speed(config)
        write_result(config.json, cli.json_result("speed", seed=config.seed, rows=rows))
        for row in rows:
            print(
                f"{row['what']:18} {row['ms']:8.1f} ms, bound {row['bound_ms']:8.1f} ms, "
                f"ratio {row['ratio']:5.2f}  ({row['of']})"
            )
        return
    assert config.run is not None
    trained, saved, clips = restored(config.run)
    buffer, model = rollouts(config, trained, saved, clips)
    rows = growth(model, buffer, config.steps)
    write_result(config.json, cli.json_result("world_model", seed=config.seed, rows=rows))
    for row in rows:
        if row["step"] in (1, 2, 4, 8, 16, 32):
            figures = ", ".join(f"{key} {value:.3g}" for key, value in row["model"].items())
            print(f"{row['step']:3} steps: {figures} (coasting {row['coasting']['pos_mm']:.3g} mm)")
    if config.plot is not None:
        draw(
            config.plot, rows, f"{' '.join(clip.name for clip in clips)}: error of the world model"
        )
    print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
