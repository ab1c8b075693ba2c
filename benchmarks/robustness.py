"""Robustness curves: who survives as one disturbance grows, and the strength at which half do.

    python benchmarks/robustness.py walk --json out.json
    python benchmarks/robustness.py lafan1_sprint1 --axes friction
    python benchmarks/robustness.py guided_body_pos --axes push friction --episodes 20 --sampler 10

One disturbance is changed at a time. All else is, for a tracker, the `robust` protocol of
`benchmarks/track.py` (observation noise, noise on the start state, randomized robots, pushes), and
for a walker its world: of a diffusion model `--world`, of a policy of `ppo_guided.py` its own task,
with starts, warm-up and strict falls as in `benchmarks/guided.py`. All values of an axis have the
same seed, and so the same starts and draws. A tracker survives when it reaches the motion's last
frame without the protocol's failure; a walker when it does not fall by the strict rule.

    push        m/s. Tracker: half-width of the uniform jump of the root's velocity along each
                horizontal axis; the other components of a push grow in the same ratio (protocol:
                0.5). Walker: largest speed of the uniform jump, in any horizontal direction, each
                second (world: 0.5). So figures of trackers and walkers do not compare
    friction    sliding friction of the feet, the same for all robots. Protocol: drawn from 0.3 to
                1.2; walkers' world: 0.6
    payload     kg, a point mass fixed to the torso's centre of mass (`ModelConfig.payload_kg`)
    latency     ms by which joint targets reach the drives late (`ModelConfig.latency_s`). Simulated
                in physics steps of 5 ms: a latency of 15 ms means that in each control step of
                20 ms the first three physics steps still are under the target before. Nobody is
                told of it
    noise       factor of all half-widths of the observation noise. A diffusion model's world has
                none; there 1 stands for the tracking task's noise of joint positions and
                velocities and of the pelvis' linear and angular velocity
    sole        shapes of the soles: 4 spheres or 7 capsules a foot
    step        ms, the physics time step (protocol: 5)
    iterations  upper bound of the constraint solver's iterations (protocol: 10)
    cone        friction cone of contacts, pyramidal or elliptic

Rows are `{policy, world, motion, axis, unit, harder, standard, values, episodes, successes,
success, success_ci95, survival_s, half, half_ci95, ...}`, one an axis (and a motion). `standard` is
the protocol's own value, null where it draws one. `half` is the value at which half survive, by
straight lines between the values that were tried, seen from the mildest value: `before` when fewer
than half survive even that, `beyond` when more than half survive all. Its interval `half_ci95` is
from where the lower ends of the values' Wilson intervals fall to half to where the upper ends do.
`sole` and `cone` have no order and no such value.

With `--json` the file is written after each axis, so that one which was stopped holds what was
measured until then.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional

from bm_envs import cli, evaluation
from bm_envs.backends.base import full_state
from bm_envs.diffusion.controller import Controller, Method, method_of
from bm_envs.diffusion.model import GuidedModel, load_model
from bm_envs.diffusion.steering import Pilot, steering_for
from bm_envs.diffusion.task_policy import GuidedPolicy, load_guided_policy
from bm_envs.diffusion.trials import START_MOTIONS, WARM_UP_S, seeds_of
from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import DIFFUSION, TRACKER, Policy, kind_of, load_policy
from bm_envs.results import write_result
from bm_envs.results.robustness import half_of
from bm_envs.robots.mjcf import FOOT_FRICTION, ModelConfig
from bm_envs.statistics import wilson
from bm_envs.tasks.guided.config import GuidedConfig, PushedConfig, config_class
from bm_envs.tasks.guided.states import States, states_of
from bm_envs.tasks.track.config import CONTROL_DT, ActuationConfig, NoiseConfig, TrackConfig

AxisName = Literal[
    "push", "friction", "payload", "latency", "noise", "sole", "step", "iterations", "cone"
]
Value = float | str
Runnable = Policy | GuidedModel | GuidedPolicy
QUICK_EPISODES = 10
BATCH = 128  # episodes of a tracker simulated at a time, as in `benchmarks/track.py`


@dataclass(frozen=True)
class Axis:
    """One disturbance."""

    unit: str
    """Of its values; empty: none."""
    harder: Literal["up", "down"] | None
    """Where it gets harder; None: its values have no order."""
    values: tuple[Value, ...]
    """What is tried, ascending."""
    tracker: Value | None
    """The `robust` protocol's own value; None where it draws one."""
    walker: Value | None
    """The walkers' worlds' own value."""


AXES: dict[str, Axis] = {
    "push": Axis("m/s", "up", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0), 0.5, 0.5),
    "friction": Axis("", "down", (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2), None, FOOT_FRICTION),
    "payload": Axis("kg", "up", (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 0.0, 0.0),
    "latency": Axis("ms", "up", (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0), 0.0, 0.0),
    "noise": Axis("times", "up", (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), 1.0, 0.0),
    "sole": Axis("", None, ("spheres", "capsules"), "spheres", "spheres"),
    "step": Axis("ms", "up", (1.0, 2.0, 4.0, 5.0, 10.0), 5.0, 5.0),
    "iterations": Axis("", "down", (1.0, 2.0, 3.0, 5.0, 10.0, 20.0), 10.0, 10.0),
    "cone": Axis("", None, ("pyramidal", "elliptic"), "pyramidal", "pyramidal"),
}


@dataclass(frozen=True)
class Config:
    """Measure who survives as one disturbance grows, and the strength at which half do."""

    policy: Annotated[str, Positional]
    """A run directory, an ONNX file, a shipped policy's name, or hub:OWNER/NAME[@REVISION]: a
    tracker, a diffusion model, or a policy of `ppo_guided.py`."""
    axes: tuple[AxisName, ...] = ()
    """Which disturbances; none: all that the policy's world has."""
    episodes: int | None = None
    """Episodes at each value; default 100, with --quick 10."""
    motion: tuple[str, ...] = ()
    """Of a tracker: names, files or cuts of motions; none: those that it was made for."""
    world: Literal["walk_perturb", "joystick"] | None = None
    """Of a diffusion model: what it does; default walk_perturb. In joystick there are no pushes."""
    sampler: str = "full"
    """Of a diffusion model: `full` (20 calls a control step), `rolling` (15), or a number of DDIM
    calls."""
    json: Path | None = None
    """Result file to write, after each axis."""
    seed: int = 0
    """Seed of starts, noise, pushes and randomization."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """A smaller sample; not for published figures."""
    backend: str = "mujoco"
    """Physics backend."""
    threads: int = 0
    """Threads of physics and network; 0: all cores this process may use."""

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 1:
            raise ConfigError(f"episodes is {self.episodes}, expected 1 or more.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more.")
        _ = self.method

    @property
    def method(self) -> Method:
        return method_of(self.sampler)

    @property
    def count(self) -> int:
        """Episodes at each value."""
        return self.episodes or (QUICK_EPISODES if self.quick else 100)


# --- what an axis changes -------------------------------------------------------------------------


def seconds(value: float) -> float:
    """Of ms."""
    return value / 1000


# Axes of the robot's model: its setting, and what makes it of the axis' value.
MODEL_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "payload": ("payload_kg", float), "latency": ("latency_s", seconds), "sole": ("feet", str),
    "step": ("physics_dt", seconds), "iterations": ("iterations", int), "cone": ("cone", str),
}  # fmt: skip


def model_with(model: ModelConfig, axis: str, value: Any) -> ModelConfig:
    """The robot's model with the value of an axis that is one of the model; else unchanged."""
    if axis not in MODEL_FIELDS:
        return model
    name, convert = MODEL_FIELDS[axis]
    return dataclasses.replace(model, **{name: convert(value)})


def decimation_of(model: ModelConfig) -> int:
    """Physics steps of a control step."""
    return round(CONTROL_DT / model.physics_dt)


def tracking_task(task: TrackConfig, axis: str, value: Any) -> TrackConfig:
    """The task with one axis at a value.

    Every value takes as many draws as the protocol does, so that all others stay the same.
    """
    model = model_with(task.model, axis, value)
    task = dataclasses.replace(task, model=model, decimation=decimation_of(model))
    if axis == "push":
        standard = AXES["push"].tracker
        assert isinstance(standard, float)
        push, ratio = task.push, value / standard
        push = dataclasses.replace(
            push, lin_vel=_scaled(push.lin_vel, ratio), ang_vel=_scaled(push.ang_vel, ratio)
        )
        return dataclasses.replace(task, push=push)
    if axis == "friction":
        randomize = dataclasses.replace(task.randomize, foot_friction=(value, value))
        return dataclasses.replace(task, randomize=randomize)
    if axis == "noise":
        level = dataclasses.asdict(task.noise_level)
        scaled = NoiseConfig(**{name: value * width for name, width in level.items()})
        return dataclasses.replace(task, noise_level=scaled)
    return task


def _scaled(widths: tuple[float, float, float], ratio: float) -> tuple[float, float, float]:
    x, y, z = (ratio * width for width in widths)
    return x, y, z


def walking_world(config: GuidedConfig, axis: str, value: Any) -> GuidedConfig:
    """The world with one axis at a value, but for friction and noise, which it knows nothing of."""
    model = model_with(config.model, axis, value)
    config = dataclasses.replace(config, model=model, decimation=decimation_of(model))
    if axis == "push":
        assert isinstance(config, PushedConfig)
        return dataclasses.replace(config, push_speed=(0.0, value))
    return config


def axes_of(policy: Runnable, config: Config) -> list[str]:
    """Which axes are measured: those asked for, or all that there are in the policy's world.

    Raises:
        ConfigError: one is asked for that the world does not have.
    """
    missing: dict[str, str] = {}
    if not isinstance(policy, Policy):
        world = world_of(policy, config)
        if not issubclass(config_class(world), PushedConfig):
            missing["push"] = f"nobody is pushed in task '{world}'"
        if isinstance(policy, GuidedPolicy):
            missing["noise"] = "observations of a guided task have no noise"
    for name in config.axes:
        if name in missing:
            raise ConfigError(f"axes has '{name}', but {missing[name]}; leave it out.")
    return [name for name in AXES if name in (config.axes or AXES) and name not in missing]


def world_of(policy: GuidedModel | GuidedPolicy, config: Config) -> str:
    """Name of the walker's task."""
    if isinstance(policy, GuidedPolicy):
        return policy.task
    return config.world or "walk_perturb"


# --- episodes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What N robots did at one value."""

    survived: np.ndarray
    """`[N]` bool."""
    seconds: np.ndarray
    """Until the failure or the end, `[N]`, s; a fall in a walker's warm-up counts as 0."""
    episode_s: float
    """How long an episode is that is survived."""


def track(policy: Policy, clip: Clip, axis: str, value: Value, config: Config) -> Outcome:
    """Episodes of a tracker."""
    task = tracking_task(evaluation.protocol_task(policy, "robust"), axis, value)
    parts = []
    for first in range(0, config.count, BATCH):
        env = TrackVectorEnv(
            min(BATCH, config.count - first), clip, backend=config.backend, config=task,
            autoreset_mode="disabled", critic="none", threads=config.threads,
        )  # fmt: skip
        act = evaluation.in_project_order(policy)
        try:
            parts.append(evaluation.run_episodes(act, env, seed=config.seed + first))
        finally:
            env.close()
    done = evaluation.Episodes.concatenate(parts)
    return Outcome(done.completed, done.reached * CONTROL_DT, (clip.num_frames - 1) * CONTROL_DT)


def walk(
    policy: GuidedModel | GuidedPolicy, axis: str, value: Value, config: Config
) -> Outcome:  # fmt: skip
    """Episodes of a walker, to the last one's fall or end."""
    count = config.count
    kind = config_class(world_of(policy, config))
    drives = {name: tuple(values) for name, values in policy.drives.items()}
    world = kind(
        fall="strict", warm_up_s=WARM_UP_S, start_motions=START_MOTIONS,
        actuation=ActuationConfig(**drives),
    )  # fmt: skip
    world = walking_world(world, axis, value)
    env = GuidedVectorEnv(
        count, world.task, backend=config.backend, threads=config.threads, config=world,
        autoreset_mode="disabled",
    )  # fmt: skip
    try:
        if axis == "friction":
            env.simulator.randomize(np.arange(count), foot_friction=np.full(count, value))
        task = env.task
        obs, _ = env.reset(seed=seeds_of(config.seed, count, "trial"))
        scale = float(value) if axis == "noise" else 0.0
        act = driver(policy, env, config, scale)
        ended = np.zeros(count, bool)
        while not ended.all():
            obs, _, terminated, truncated, _ = env.step(act(obs))
            ended |= terminated | truncated
        fell = task.fell_strict.copy()
        seconds = np.where(fell, task.clock.clip(0), world.episode_steps) * CONTROL_DT
    finally:
        env.close()
    return Outcome(~fell, seconds, world.episode_steps * CONTROL_DT)


def driver(
    policy: GuidedModel | GuidedPolicy, env: GuidedVectorEnv, config: Config, noise: float
) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the walkers' raw actions `[N, 29]` for their observations `[N, O]`."""
    if isinstance(policy, GuidedPolicy):
        return policy
    controller = Controller(
        policy,
        env.num_envs,
        seed=seeds_of(config.seed, env.num_envs, "noise"),
        method=config.method,
    )
    pilot = Pilot(env.task, policy, steering_for(policy, None, None), None)
    rng = np.random.default_rng([config.seed, 3])

    def act(obs: np.ndarray) -> np.ndarray:
        controller.guide = pilot.guide()
        action = controller.act(noisy_states(env, rng, noise))
        pilot.observe(controller.sample)
        return action

    return act


def noisy_states(env: GuidedVectorEnv, rng: np.random.Generator, scale: float) -> States:
    """States of the robots as sensors with the tracking task's noise would have them."""
    if not scale:
        return env.task.robots.states()
    level = NoiseConfig()
    qpos, qvel = (np.array(part, np.float64) for part in full_state(env.simulator))
    for part, width in (
        (qpos[:, 7:], level.joint_pos), (qvel[:, :3], level.base_lin_vel),
        (qvel[:, 3:6], level.base_ang_vel), (qvel[:, 6:], level.joint_vel),
    ):  # fmt: skip
        part += rng.uniform(-scale * width, scale * width, part.shape)
    return states_of(qpos, qvel)


# --- rows -----------------------------------------------------------------------------------------


def load(config: Config) -> Runnable:
    """What the policy's file says that it is.

    Raises:
        BMError: there is none, or a flag is for another kind.
    """
    threads = config.threads or cli.available_cores()
    kind = kind_of(config.policy, expected=TRACKER)
    if kind is not TRACKER and config.motion:
        raise ConfigError(f"{config.policy} is no tracker, expected no --motion with it.")
    if kind is not DIFFUSION and config.world is not None:
        raise ConfigError(f"{config.policy} is no diffusion model, expected no --world with it.")
    if kind is TRACKER:
        return load_policy(config.policy, threads=threads)
    if kind is DIFFUSION:
        return load_model(config.policy, threads=threads)
    return load_guided_policy(config.policy, threads=threads)


def measure(policy: Runnable, clip: Clip | None, name: str, config: Config) -> dict[str, Any]:
    """The row of one axis."""
    axis, count = AXES[name], config.count
    outcomes = []
    for value in axis.values:
        started = time.perf_counter()
        if isinstance(policy, Policy):
            assert clip is not None
            done = track(policy, clip, name, value, config)
        else:
            done = walk(policy, name, value, config)
        outcomes.append(done)
        print(
            f"  {name} {_shown(value)}{' ' * bool(axis.unit)}{axis.unit}: "
            f"{int(done.survived.sum())} of {count} survive, {done.seconds.mean():.2f} of "
            f"{done.episode_s:.2f} s ({time.perf_counter() - started:.1f} s)",
            flush=True,
        )
    successes = [int(done.survived.sum()) for done in outcomes]
    half, ends = half_of([*axis.values], successes, count, axis.harder)
    return {
        "policy": policy.name,
        "world": "robust" if isinstance(policy, Policy) else world_of(policy, config),
        "motion": clip.name if clip is not None else None,
        "backend": config.backend,
        "axis": name,
        "unit": axis.unit,
        "harder": axis.harder,
        "standard": axis.tracker if isinstance(policy, Policy) else axis.walker,
        "episodes": count,
        "episode_s": round(outcomes[0].episode_s, 6),
        "values": [*axis.values],
        "successes": successes,
        "success": [made / count for made in successes],
        "success_ci95": [list(wilson(made, count)) for made in successes],
        "survival_s": [round(float(done.seconds.mean()), 6) for done in outcomes],
        "half": half,
        "half_ci95": ends,
    }


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text: where half survive."""
    lines: list[tuple[str, ...]] = [("axis", "motion", "tried", "half survive", "95 % interval")]
    for row in rows:
        if row["half"] is None:
            continue
        tried = f"{row['values'][0]:g} to {row['values'][-1]:g}"
        ends = " to ".join(map(_shown, row["half_ci95"]))
        unit = f" {row['unit']}" if row["unit"] else ""
        lines.append((
            row["axis"], row["motion"] or row["world"], f"{tried}{unit}", _shown(row["half"]), ends,
        ))  # fmt: skip
    return cli.aligned(lines)


def main(config: Config) -> None:
    """Measure and report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    policy = load(config)
    axes = axes_of(policy, config)
    clips: list[Clip | None] = [None]
    if isinstance(policy, Policy):
        named = library.load_motions(config.motion) if config.motion else None
        clips = [*(named or evaluation.motions_of(policy))]
    print(
        f"policy {policy.name}, axes {', '.join(axes)}, {config.count} episodes at each value, "
        f"backend {config.backend}, seed {config.seed}{', quick' if config.quick else ''}",
        flush=True,
    )
    rows: list[dict[str, Any]] = []
    for clip in clips:
        for name in axes:
            if clip is not None and len(clips) > 1:
                print(f"{clip.name}:")
            rows.append(measure(policy, clip, name, config))
            if config.json is not None:
                result = cli.json_result("robustness", seed=config.seed, rows=rows)
                result["settings"] = {
                    "policy_sha256": policy.sha256, "quick": config.quick,
                    "motion_sha256": {one.name: one.sha256() for one in clips if one is not None},
                    "sampler": config.sampler if isinstance(policy, GuidedModel) else None,
                }  # fmt: skip
                write_result(config.json, result)
    print(table(rows))
    if config.json is not None:
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
