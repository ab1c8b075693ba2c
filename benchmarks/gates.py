r"""Is a state-action diffusion model right? Gates that it passes one after another.

One file because the gates share roll-outs, windows and one closed loop, and a reader follows them
in the order in which a model passes them.

    python benchmarks/gates.py --policy guided_body_pos --json out.json
    python benchmarks/gates.py --policy runs/body_pos__ddpm_guided__1 --quick --json gates.json

What the gates need of roll-outs is collected anew, by the model's own expert on the clips of its
data, with seeds that its training did not use. Rows are `{gate, title, value, unit, threshold,
passed, details}`; `passed` is null where a figure is only measured. The gates, in their order:

    0        representation and mirror: invariant to where and which way, invertible, twice the
             mirror is nothing, a mirrored motion's window is the window's mirror; largest error
    1        the expert alone through the collector, 15 s, without and with pushes: share that
             never leaves its reference (pelvis 0.25 m in height or 0.8 in tilt)
    1b       stored actions, open loop from stored states for 10 steps: distance of the root that
             95 % stay under
    2        R2 of the action to be executed on episodes of other seeds: (a) by full sampling from
             the past, (b) with the true future states given, (c) with pure noise in their place;
             and of the worst leg joint in (a). Pooled over joints: squared errors over variances
    2b       predicted root position 0.32 s ahead: median distance, and that of going on at the
             present velocity
    3        the model alone in closed loop, 15 s, without and with a push of U[0, 0.5] m/s each
             second: share that never falls (pelvis under 0.4 m or tilt over 60 degrees), and the
             mean speed of the roots over whole seconds
    4        commanded against walked forward speed by strength of guidance: Spearman's correlation
             and slope at the chosen strength, falls; what was executed does not correct it here
    5        the executed action under +0.3 against -0.3 m/s from equal pasts and noise: RMS change
             over the actions' standard deviation
    box      share of the numbers moved by guidance that lie outside the training data's range, at
             levels below 12 and before any cut, in the joystick task (`guided.py`). The gate says
             something only where the same trials fail without guidance and succeed with it
    natural  the model walks at 0.5 and 0.8 m/s; its knees, step length, lift of the ankles, range
             of the arms, joint acceleration and slip (`bm_envs/quality/natural.py`) against those
             of its data's clips, or of `--reference`, where they walk as fast: how far the worst
             of them is from theirs, 1 being the edge of its band
    latency  wall time of one control step of one robot, for this model's size and for others,
             against 20 ms

A trial starts in a state drawn from the roll-outs in which the robot walks at 0.3 m/s or faster,
then warms up for 1 s that does not count as time; a fall in it counts as a fall. With `--delay 1`
an action reaches the robot one control step late, and the one planned for that step is sent.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli, evaluation
from bm_envs.diffusion import box, rollouts, sampler
from bm_envs.diffusion.controller import Controller, Method, method_of
from bm_envs.diffusion.costs import Joystick
from bm_envs.diffusion.model import GuidedModel, load_model
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.diffusion.sampler import LENGTH, K
from bm_envs.diffusion.steering import (
    Steering,
    command_cost,
    guide_by,
    predicted_velocity,
    steering_for,
)
from bm_envs.errors import BMError, ConfigError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import load_policy
from bm_envs.quality import natural
from bm_envs.quality.natural import Naturalness, measure_states
from bm_envs.results import write_result
from bm_envs.robots import g1
from bm_envs.rotations import quat_mul, quat_rotate
from bm_envs.statistics import wilson
from bm_envs.tasks.guided.robots import Robots
from bm_envs.tasks.guided.states import (
    NOW,
    PAST,
    REPRESENTATIONS,
    States,
    now_frame,
    states_of,
    yaw_frames,
)
from bm_envs.tasks.track.config import CONTROL_DT

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("0", "1", "1b", "2", "2b", "3", "4", "5", "box", "natural", "latency")
SECOND = round(1 / CONTROL_DT)  # control steps
LEGS = [
    i for i, name in enumerate(g1.JOINT_NAMES) if any(k in name for k in ("hip", "knee", "ankle"))
]
TARGETS = (-0.3, 0.0, 0.3, 0.6, 0.9)  # m/s forward
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the cost's own step, see `costs.own_step`
WALKING = 0.3  # m/s, of a state that a trial may start in
PUSH_SPEED = 0.5  # m/s
PACES = (0.5, 0.8)  # m/s forward, of gate natural
TICK_MS = 1000 * CONTROL_DT


@dataclass(frozen=True)
class Config:
    """Which model to examine, and how closely."""

    policy: str
    """A run directory, an ONNX file, a shipped model's name, or hub:OWNER/NAME[@REVISION]."""
    expert: tuple[str, ...] = ()
    """Trackers for gates 1 and 2, run directories, files or names; none: those the model learned
    from, by their names."""
    reference: tuple[str, ...] = ()
    """Motions for gate natural; none: those of the model's data."""
    json: Path | None = None
    """Result file to write."""
    gate: tuple[
        Literal["0", "1", "1b", "2", "2b", "3", "4", "5", "box", "natural", "latency"], ...
    ] = ()  # fmt: skip
    """Which gates; none: all."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """Fewer and shorter trials, minutes on two cores; not for published figures."""
    seed: int = 1000
    """Seed of roll-outs, starts, noise and pushes."""
    sampler: str | None = None
    """`full` (20 calls a control step), `rolling` (15), or a number of DDIM calls; default full,
    with --quick 10."""
    strength: float | None = None
    """Strength of guidance in gates 4, 5 and box; by default the one chosen for the model."""
    delay: Literal[0, 1] = 0
    """Control steps that an action takes to arrive in gates 3 to 5 and box."""
    trials: int | None = None
    """Trials of gates 1, 3, box and natural, each way; default 50, in gate 3 with --quick 2; box
    and natural 12, with --quick 2."""
    windows: int | None = None
    """Windows of held-out roll-outs for gates 2 and 2b; default 2048, with --quick 64."""
    ticks: int | None = None
    """Calls that `latency` times, of each model and sampler; default 100, with --quick 5."""
    backend: str = "mujoco"
    """Physics backend."""
    threads: int = 0
    """Threads of physics and network; 0: all cores this process may use."""

    def __post_init__(self) -> None:
        # Of one window there is no variance to explain.
        for name, least in (("trials", 1), ("windows", 2), ("ticks", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}, expected {least} or more.")
        if self.strength is not None and not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}, expected 0 or more.")
        _ = self.method

    @property
    def sampled_by(self) -> str:
        """The sampler, the default's filled in."""
        return self.sampler or ("10" if self.quick else "full")

    @property
    def method(self) -> Method:
        return method_of(self.sampled_by)

    def steering_for(self, model: GuidedModel) -> Steering:
        """The steering that was chosen for the model, with the strength of this run."""
        return steering_for(model, strength=self.strength)


@dataclass
class Gate:
    """One row of the result."""

    gate: str
    title: str
    value: float | None
    unit: str
    threshold: float | None
    passed: bool | None
    details: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The gate as JSON has it, with six digits of a figure."""
        return {name: _rounded(value) for name, value in vars(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


# --- roll-outs ------------------------------------------------------------------------------------


def collect(out: Path, expert: Sequence[str], seed: int, *flags: str) -> Rollouts:
    """Roll-outs by `algos/collect_rollouts.py`, accepted ones and then the others."""
    command = [
        sys.executable, str(ROOT / "algos" / "collect_rollouts.py"), "--out", str(out),
        "--seed", str(seed), "--policy", *expert, *flags,
    ]  # fmt: skip
    _call(command, "Roll-outs could not be collected")
    parts = []
    for failed in (False, True):
        entries = [
            s["failed" if failed else "episodes"] for s in rollouts.read_manifest(out)["shards"]
        ]
        if any(entry["count"] for entry in entries):
            parts.append(rollouts.load_rollouts(out, failed=failed)[0])
    return Rollouts.concatenate(parts)


def begin(what: str) -> None:
    """Tell what is done next; what takes long shows a bar besides."""
    print(f"  {what} ...", flush=True)


def _call(command: Sequence[str], failed: str) -> None:
    """Run another script; if it fails, say what `failed` and its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise BMError(
            f"{failed}: signal {-done.returncode} ended it, as where memory runs out; look at what "
            "else runs on this machine."
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BMError(f"{failed}: {lines[-1].removeprefix('error: ')}")


def sources_of(model: GuidedModel, config: Config) -> dict[str, list[Clip]]:
    """The experts, each with the clips it follows: those of the model's data, or as is asked for.

    Raises:
        ConfigError: the model's description names no expert, and the command line neither.
    """
    if config.expert:
        return {name: evaluation.motions_of(load_policy(name)) for name in config.expert}
    names = model.clips_of_experts()
    if not names:
        raise ConfigError(f"{model.path}: policy.json names no expert; give --expert.")
    return {expert: library.load_motions(clips) for expert, clips in names.items()}


def collect_all(
    out: Path, sources: Mapping[str, Sequence[Clip]], seed: int, count: int, side_by_side: int,
    *flags: str,
) -> Rollouts:  # fmt: skip
    """`count` roll-outs or a few more, as many of each expert, on its own clips."""
    share = -(-count // len(sources))
    parts = [
        collect(
            out / f"{i}", [expert], seed + 1000 * i, "--episodes", f"{share}",
            "--num-envs", f"{min(share, side_by_side)}",
            "--motion", *(clip.name for clip in clips), *flags,
        )
        for i, (expert, clips) in enumerate(sources.items())
    ]  # fmt: skip
    return parts[0] if len(parts) == 1 else Rollouts.concatenate(parts)


# --- gates 0 to 2b: data and predictions ----------------------------------------------------------


def gate_0(episodes: Rollouts) -> Gate:
    """Transforms of states, on windows of roll-outs, both representations, float64."""
    count = min(len(episodes), 32)
    start = episodes.qpos.shape[1] // 2
    windows = slice(start, start + LENGTH)
    states = _as64(states_of(episodes.qpos[:count, windows], episodes.qvel[:count, windows]))
    errors: dict[str, float] = {}
    for name, rep in REPRESENTATIONS.items():
        features = rep.encode(states, NOW)
        turned = rep.encode(_placed(states, np.array([3.0, -7.0, 0.0]), 2.1), NOW)
        errors[f"{name} invariance"] = _largest(turned, features)
        again = rep.decode(features, now_frame(states, NOW))
        errors[f"{name} round trip"] = max(
            _same_rotation(decoded, true)
            for decoded, true in zip(again, states, strict=True)
            if decoded is not None and true is not None
        )
        index, sign = rep.mirror
        once = features[..., index] * sign
        errors[f"{name} mirror twice"] = _largest(once[..., index] * sign, features)
        errors[f"{name} mirrored motion"] = _largest(rep.encode(_reflected(states), NOW), once)
    worst = max(errors.values())
    return Gate("0", "data transforms", worst, "largest error", 1e-5, worst < 1e-5, errors)


def gate_1(quiet: Rollouts, shoved: Rollouts, clips: Sequence[str]) -> Gate:
    """The expert alone, through the collector."""
    alive = [float((part.length == part.qpos.shape[1]).mean()) for part in (quiet, shoved)]
    details = {
        "with_shoves": alive[1], "threshold_with_shoves": 0.95,
        "episodes": [len(quiet), len(shoved)], "clips": list(clips),
        "seconds": quiet.qpos.shape[1] * CONTROL_DT,
    }  # fmt: skip
    passed = alive[0] >= 0.98 and alive[1] >= 0.95
    return Gate("1", "expert through the collector", alive[0], "share alive", 0.98, passed, details)


def gate_1b(
    episodes: Rollouts, drives: Mapping[str, Any], backend: str, threads: int, steps: int = 10,
    count: int = 256, seed: int = 0,
) -> Gate:  # fmt: skip
    """Stored actions from stored states, open loop, in a robot that nothing was drawn for."""
    rng = np.random.default_rng(seed)
    whole = np.flatnonzero(episodes.length == episodes.qpos.shape[1])
    last = episodes.qpos.shape[1] - steps - 1
    which, start = rng.choice(whole, count), rng.integers(1, last, count)
    at = np.arange(steps) + start[:, None]
    # A push between two of the states is not the actions' doing.
    calm = ~episodes.pushed[which[:, None], at].any(1)
    which, start, at = which[calm], start[calm], at[calm]
    sent = episodes.executed[which[:, None], at - episodes.delay[which, None]]
    default, scale = (
        np.asarray(drives[k], np.float32) for k in ("default_joint_pos", "action_scale")
    )
    targets = default + episodes.joint_offset[which, None] + scale * sent
    robots = Robots(len(which), drives, backend=backend, threads=threads)
    sim = robots.simulator
    sim.reset(np.arange(len(which)), episodes.qpos[which, start], episodes.qvel[which, start])
    for t in range(steps):
        sim.step(targets[:, t])
    error = np.linalg.norm(sim.root_pos - episodes.qpos[which, start + steps, :3], axis=1)
    robots.close()
    value = float(np.percentile(error, 95))
    details = {
        "median_m": float(np.median(error)), "largest_m": float(error.max()),
        "windows": len(error), "steps": steps,
    }  # fmt: skip
    return Gate(
        "1b", "stored actions, open loop", value, "m, 95 % under", 0.03, value < 0.03, details
    )


@dataclass(frozen=True)
class Truth:
    """Windows of roll-outs: features and actions, as a model has them and as they are."""

    states: np.ndarray
    """States as the network has them. `[W, L, S]`."""
    features: np.ndarray
    """Features of the representation. `[W, L, D]`."""
    actions: np.ndarray
    """Raw actions. `[W, L, A]`."""


def truth_of(model: GuidedModel, episodes: Rollouts, count: int, seed: int) -> Truth:
    """`count` windows drawn from whole episodes."""
    rng = np.random.default_rng(seed)
    whole = np.flatnonzero(episodes.length == episodes.qpos.shape[1])
    which = rng.choice(whole, count)
    at = rng.integers(0, episodes.qpos.shape[1] - LENGTH + 1, count)[:, None] + np.arange(LENGTH)
    which = which[:, None]
    states = states_of(episodes.qpos[which, at], episodes.qvel[which, at])
    features = model.representation.encode(states, NOW)
    return Truth(model.scale(features).astype(np.float32), features, episodes.action[which, at])


def r_squared(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Explained share of the variance, over all joints and of each. `[W, A]` each."""
    error = ((estimate - truth) ** 2).mean(0)
    variance = truth.var(0)
    return float(1 - error.sum() / variance.sum()), 1 - error / variance


def actions_given(
    model: GuidedModel, truth: Truth, future: Literal["sampled", "true", "noise"], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Actions to be executed, `[W, A]` raw, and the states' features, `[W, L, D]`.

    The future states are sampled with the actions, or are the true ones at level 0 in all calls, or
    stay noise at the highest level.
    """
    all_actions, all_features = [], []
    rng = np.random.default_rng(seed)
    for part in _parts(len(truth.states)):
        true = truth.states[part]
        noise = rng.standard_normal(true.shape, dtype=np.float32)

        def denoiser(
            states: np.ndarray, actions: np.ndarray, state_levels: np.ndarray,
            action_levels: np.ndarray, true: np.ndarray = true, noise: np.ndarray = noise,
        ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
            if future != "sampled":
                states, state_levels = states.copy(), state_levels.copy()
                states[:, PAST:] = (true if future == "true" else noise)[:, PAST:]
                state_levels[:, PAST:] = 0 if future == "true" else K - 1
            return bounded(model, *model.denoise(states, actions, state_levels, action_levels))

        sample = sampler.sample(denoiser, true[:, :PAST], g1.NUM_JOINTS, rng, action_steps=PAST)
        all_actions.append(model.unscale_action(sample.actions[:, NOW]))
        all_features.append(model.unscale(sample.states))
    return np.concatenate(all_actions), np.concatenate(all_features)


def bounded(
    model: GuidedModel, states: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimates within the bounds that the controller keeps them in."""
    return model.bound(states), model.bound_action(actions)


def gate_2(model: GuidedModel, truth: Truth, seed: int) -> tuple[Gate, np.ndarray]:
    """How well the executed action is predicted; also the features of (a), `[W, L, D]`."""
    shares, worst = {}, {}
    features, worst_joint = truth.features, ""
    for letter, future in (("a", "sampled"), ("b", "true"), ("c", "noise")):
        actions, states = actions_given(model, truth, future, seed)  # type: ignore[arg-type]
        shares[letter], each = r_squared(actions, truth.actions[:, NOW])
        joint = min(LEGS, key=lambda i: each[i])
        worst[letter] = float(each[joint])
        if letter == "a":
            features, worst_joint = states, g1.JOINT_NAMES[joint]
    a, b, c = shares["a"], shares["b"], shares["c"]
    passed = a >= 0.90 and b >= 0.97 and b > a >= c and worst["a"] >= 0.85
    details = {
        "true_future": b, "threshold_true_future": 0.97, "noise_future": c,
        "worst_leg_joint": worst["a"], "worst_leg_joint_name": worst_joint,
        "threshold_worst_leg_joint": 0.85, "windows": len(truth.actions),
    }  # fmt: skip
    return Gate("2", "one-step action", a, "R2", 0.90, passed, details), features


def gate_2b(model: GuidedModel, truth: Truth, features: np.ndarray) -> Gate:
    """How well the root's place at the window's end is predicted."""
    blocks = model.representation.blocks
    start, velocity = blocks["root_pos"].start, blocks["root_lin_vel"].start
    true = truth.features[:, -1, start : start + 2]
    predicted = features[:, -1, start : start + 2]
    ahead = (LENGTH - 1 - NOW) * CONTROL_DT
    straight = truth.features[:, NOW, velocity : velocity + 2] * ahead
    error, simple = (
        float(np.median(np.linalg.norm(x - true, axis=1))) for x in (predicted, straight)
    )
    details = {"constant_velocity_m": simple, "ahead_s": ahead, "windows": len(true)}
    passed = error < 0.05 and error <= simple
    return Gate("2b", "root 0.32 s ahead", error, "m, median", 0.05, passed, details)


# --- gates 3 to 5: in closed loop -----------------------------------------------------------------


@dataclass(frozen=True)
class Trials:
    """What N robots did. `[N]` each."""

    down_s: np.ndarray
    """Time of the fall by the strict criterion, s; infinite without one, below 0 in the warm-up."""
    head_down_s: np.ndarray
    """Time of the fall by the paper's criterion, the head's height, s; infinite without one."""
    speed: np.ndarray
    """Mean speed of the root over whole seconds until the fall, m/s."""
    forward: np.ndarray
    """Mean velocity along the root's heading until the fall, m/s."""
    planned: np.ndarray
    """Mean predicted forward velocity over the windows' future, m/s."""

    @property
    def alive(self) -> np.ndarray:
        """Never fallen by the strict criterion."""
        return np.isinf(self.down_s)


def walking_starts(
    episodes: Rollouts, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """States of robots that walk, `qpos [N, 36]` and `qvel [N, 35]`."""
    whole = episodes.length == episodes.qpos.shape[1]
    # Speed over the second around a state: of a state alone it swings with the steps.
    half = min(SECOND // 2, (episodes.qpos.shape[1] - 1) // 2)
    way = episodes.qpos[:, 2 * half :, :2] - episodes.qpos[:, : -2 * half or None, :2]
    walks = np.linalg.norm(way, axis=-1) / (2 * half * CONTROL_DT) >= WALKING
    episode, step = np.nonzero(walks & whole[:, None])
    if not len(episode):
        raise BMError("No state of the roll-outs walks at 0.3 m/s or faster.")
    drawn = rng.integers(len(episode), size=count)
    at = episode[drawn], step[drawn] + half
    return episodes.qpos[at], episodes.qvel[at]


def closed_loop(
    model: GuidedModel, starts: tuple[np.ndarray, np.ndarray], *, seconds: float, seed: int,
    method: Method = "full", pushes: bool = False, cost: Joystick | None = None,
    strength: float | np.ndarray = 0.0, delay: int = 0, warm_up: int = SECOND,
    backend: str = "mujoco", threads: int = 0, label: str = "",
    record: list[np.ndarray] | None = None,
) -> Trials:  # fmt: skip
    """Let the model control robots from their starts; the guide begins after the warm-up.

    Args:
        model: what controls them.
        starts: `qpos [N, 36]`, `qvel [N, 35]`.
        seconds: of each trial, after the warm-up.
        seed: of the sampler's noise and of the pushes.
        method: see `Controller`.
        pushes: one each second, U[0, 0.5] m/s in any horizontal direction.
        cost: the task, if any.
        strength: of the guide; a number, or one for each robot.
        delay: control steps that actions take to arrive.
        warm_up: control steps before time counts.
        backend: physics engine.
        threads: of a CPU engine.
        label: of the progress bar.
        record: filled with the states of each control step after the warm-up, `[N, 36]`.
    """
    count, steps = len(starts[0]), round(seconds / CONTROL_DT)
    robots = Robots(count, model.drives, backend=backend, threads=threads, action_delay=delay)
    controller = Controller(model, count, seed=seed, method=method)
    rng = np.random.default_rng([seed, 1])
    robots.reset(*starts)
    down, head_down = np.full(count, np.inf), np.full(count, np.inf)
    speeds: list[np.ndarray] = []
    forward, planned = np.zeros(count), np.zeros(count)
    counted = np.zeros(count)
    marked = robots.simulator.root_pos[:, :2].copy()
    for t in tqdm(range(-warm_up, steps), desc=label, leave=False, disable=not label):
        if t == 0:
            marked = robots.simulator.root_pos[:, :2].copy()
            if cost is not None:
                controller.guide = guide_by(cost, model, steering_for(model), strength)
        states = robots.states()
        action = controller.act(states, ahead=delay)
        if pushes and t >= 0 and t % SECOND == 0:
            robots.push(PUSH_SPEED * rng.random(count), 2 * np.pi * rng.random(count))
        robots.step(action)
        down = np.where(np.isinf(down) & robots.is_down(), (t + 1) * CONTROL_DT, down)
        head_down = np.where(
            np.isinf(head_down) & robots.head_is_down(), (t + 1) * CONTROL_DT, head_down
        )
        if t < 0:
            continue
        if record is not None:
            assert states.joint_pos is not None  # robots have joints
            record.append(
                np.concatenate([states.root_pos, states.root_quat, states.joint_pos], axis=1)
            )
        up = np.isinf(down)
        velocity = yaw_frames(States(*states[:4])).of(states.root_lin_vel[:, None])[:, 0]
        forward += np.where(up, velocity[:, 0], 0)
        planned += np.where(up, predicted_velocity(model, controller.sample)[:, 0], 0)
        counted += up
        if (t + 1) % SECOND == 0:
            now = robots.simulator.root_pos[:, :2].copy()
            speeds.append(np.where(up, np.linalg.norm(now - marked, axis=1), np.nan))
            marked = now
    robots.close()
    with np.errstate(invalid="ignore", divide="ignore"):
        seconds_up = np.isfinite(speeds).sum(0)
        speed = np.nansum(speeds, 0) / seconds_up
        return Trials(down, head_down, speed, forward / counted, planned / counted)


def forward_cost(velocity: np.ndarray, model: GuidedModel) -> Joystick:
    """The cost of walking straight ahead at `velocity [N]`, m/s, weighed as for joystick."""
    return command_cost(velocity[:, None] * [1.0, 0.0, 0.0], steering_for(model))


def gate_3(
    model: GuidedModel, episodes: Rollouts, *, trials: int, seconds: float, config: Config
) -> Gate:
    """Walking without a task."""
    starts = walking_starts(episodes, trials, np.random.default_rng([config.seed, 3]))
    figures: dict[str, Any] = {}
    for name, pushes in (("free", False), ("shoved", True)):
        result = closed_loop(
            model, starts, seconds=seconds, seed=config.seed + pushes, pushes=pushes,
            method=config.method, delay=config.delay, backend=config.backend,
            threads=config.threads, label=f"gate 3 {name}",
        )  # fmt: skip
        alive, head = int(result.alive.sum()), int(np.isinf(result.head_down_s).sum())
        speed = result.speed[np.isfinite(result.speed)]
        figures[name] = {
            "alive": alive / trials, "alive_ci95": list(wilson(alive, trials)),
            "alive_head": head / trials, "alive_head_ci95": list(wilson(head, trials)),
            "mean_speed": float(speed.mean()) if speed.size else None,
            "share_faster_than_0.2": float((speed > 0.2).mean()) if speed.size else None,
            "falls_s": sorted(round(float(t), 2) for t in result.down_s[~result.alive]),
        }  # fmt: skip
    free, shoved = figures["free"], figures["shoved"]
    moves = all((figure["mean_speed"] or 0) > 0.2 for figure in figures.values())
    passed = free["alive"] >= 0.95 and shoved["alive"] >= 0.80 and moves
    details = figures | {"threshold_shoved": 0.80, "threshold_mean_speed": 0.2, "trials": trials,
                         "seconds": seconds}  # fmt: skip
    return Gate("3", "walks by itself", free["alive"], "share alive", 0.95, passed, details)


def gate_4(
    model: GuidedModel, episodes: Rollouts, *, trials: int, seconds: float,
    strengths: Sequence[float], config: Config,
) -> Gate:  # fmt: skip
    """Commanded against walked speed, every target and strength at once."""
    grid = [(s, v) for s in strengths for v in TARGETS for _ in range(trials)]
    strength, target = np.array([s for s, _ in grid]), np.array([v for _, v in grid])
    qpos, qvel = walking_starts(episodes, trials, np.random.default_rng([config.seed, 4]))
    cells = (len(grid) // trials, 1)  # each begins in the same states
    starts = np.tile(qpos, cells), np.tile(qvel, cells)
    cost = forward_cost(target, model)
    result = closed_loop(
        model, starts, seconds=seconds, seed=config.seed, method=config.method, cost=cost,
        strength=strength, delay=config.delay, backend=config.backend, threads=config.threads,
        label="gate 4",
    )  # fmt: skip
    table = []
    for s in strengths:
        mine = strength == s
        use = mine & np.isfinite(result.forward)
        table.append({
            "strength": s,
            "forward": [_mean(result.forward[use & (target == v)]) for v in TARGETS],
            "planned": [_mean(result.planned[use & (target == v)]) for v in TARGETS],
            "spearman": spearman(target[use], result.forward[use]),
            "slope": slope(target[use], result.forward[use]),
            "falls": float((~result.alive[mine]).mean()),
        })  # fmt: skip
    own = config.steering_for(model).strength
    chosen = next(row for row in table if row["strength"] == own)
    passed = chosen["spearman"] >= 0.9 and 0.5 <= chosen["slope"] <= 1.3 and chosen["falls"] <= 0.10
    details = {
        "chosen_strength": own, "slope": chosen["slope"], "falls": chosen["falls"],
        "thresholds": "slope 0.5 to 1.3, falls at most 0.10", "targets": list(TARGETS),
        "by_strength": table, "trials_a_cell": trials, "seconds": seconds,
    }  # fmt: skip
    return Gate(
        "4", "dose-response", chosen["spearman"], "Spearman of speed", 0.9, bool(passed), details
    )


def gate_5(
    model: GuidedModel, truth: Truth, episodes: Rollouts, *, config: Config, steps: int = 10
) -> Gate:
    """Whether guidance reaches the executed action, and in the right sense."""
    count = len(truth.states)
    steering = config.steering_for(model)
    spread = float(np.sqrt(truth.actions[:, NOW].var(0).sum()))
    actions = {}
    for sign in (1, -1):
        cost = forward_cost(np.full(count, 0.3 * sign), model)
        actions[sign] = _one_action(model, truth, config, guide_by(cost, model, steering))
    change = actions[1] - actions[-1]
    ratio = float(np.sqrt((change**2).sum(1).mean()) / spread)

    # Which way: robots in equal states under both commands, after a fifth of a second.
    starts = walking_starts(episodes, count, np.random.default_rng([config.seed, 5]))
    walked = {}
    for sign in (1, -1):
        cost = forward_cost(np.full(count, 0.3 * sign), model)
        walked[sign] = closed_loop(
            model, starts, seconds=steps * CONTROL_DT, seed=config.seed, method=config.method,
            cost=cost, strength=steering.strength, delay=config.delay, warm_up=0,
            backend=config.backend, threads=config.threads,
        ).forward  # fmt: skip
    gain = walked[1] - walked[-1]
    phase = phase_of(starts[0])
    bins = np.minimum((phase * 8).astype(int), 7)
    by_phase = [_mean(gain[(bins == b) & np.isfinite(gain)]) for b in range(8)]
    agree = float(np.mean([value > 0 for value in by_phase if value is not None]))

    # What the action reads of the future: others' futures against other noise.
    plain = actions_given(model, truth, "true", config.seed)[0]
    noise = actions_given(model, truth, "true", config.seed + 1)[0]
    shuffled = truth.states.copy()
    shuffled[:, PAST:] = np.roll(truth.states[:, PAST:], 1, 0)
    swapped = actions_given(
        model, Truth(shuffled, truth.features, truth.actions), "true", config.seed
    )[0]
    by_noise, by_future = (
        float(np.sqrt(((other - plain) ** 2).sum(1).mean()) / spread) for other in (noise, swapped)
    )
    passed = ratio >= 0.05 and agree == 1.0 and by_future > by_noise
    details = {
        "phases_that_agree": agree, "gain_by_phase_m_s": by_phase,
        "change_by_other_futures": by_future, "change_by_other_noise": by_noise,
        "strength": steering.strength, "windows": count,
    }  # fmt: skip
    return Gate("5", "action sensitivity", ratio, "RMS change / std", 0.05, passed, details)


def _one_action(
    model: GuidedModel, truth: Truth, config: Config, guide: sampler.Guide
) -> np.ndarray:
    """The executed action on windows by full sampling under a guide, always with equal noise."""

    def guided(states: np.ndarray, levels: np.ndarray) -> np.ndarray:
        return model.bound(states, guide, levels)

    def denoiser(*window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        states, actions = model.denoise(*window)
        return states, model.bound_action(actions)

    rng = np.random.default_rng([config.seed, 6])
    past = truth.states[:, :PAST]
    sample = sampler.sample(denoiser, past, g1.NUM_JOINTS, rng, guide=guided, action_steps=PAST)
    return model.unscale_action(sample.actions[:, NOW])


def phase_of(qpos: np.ndarray) -> np.ndarray:
    """Where in a step cycle a pose is, 0 to 1, by how far the hips are apart and which bends.

    The angle of (difference of hip pitches, difference of knees): a turn of it is two steps.
    """
    joints = qpos[:, 7:]

    def difference(name: str) -> np.ndarray:
        left, right = (g1.JOINT_NAMES.index(f"{side}_{name}_joint") for side in ("left", "right"))
        return joints[:, left] - joints[:, right]

    angle = np.arctan2(difference("knee"), difference("hip_pitch"))
    return np.mod(angle / (2 * np.pi), 1.0)


# --- box: what a guide asks for, and what the data hold -------------------------------------------


def joystick_row(folder: Path, config: Config, strength: float, trials: int) -> dict[str, Any]:
    """The row of `guided.py` in the joystick task, with the strength chosen for the model or 0."""
    out = folder / f"joystick_{strength:g}.json"
    command = [
        sys.executable, str(ROOT / "benchmarks" / "guided.py"), "--policy", config.policy,
        "--task", "joystick", "--trials", str(trials), "--seed", str(config.seed),
        "--sampler", config.sampled_by, "--delay", str(config.delay), "--strength", str(strength),
        "--backend", config.backend, "--threads", str(config.threads), "--json", str(out),
    ]  # fmt: skip
    _call(command, "The joystick task could not be run")
    return cli.read_json(out)["rows"][0]


def gate_box(guided: Mapping[str, Any], unguided: Mapping[str, Any], strength: float) -> Gate:
    """What a guide asks for lies in the range of the training data, and it is obeyed.

    Args:
        guided: row of `guided.py` in the joystick task.
        unguided: the same trials at strength 0.
        strength: of the guided ones.
    """
    share, trials = guided["outside_box"], guided["trials"]
    with_it, without = guided["success_rate"], unguided["success_rate"]
    reason, passed = "", None
    if share is None:
        reason = f"says nothing: at strength {strength:g} guidance moved nothing"
    elif without >= 0.5:
        reason = (
            f"says nothing: at strength 0, {unguided['successes']} of {unguided['trials']} do the "
            "task, so that it needs no guidance"
        )
    else:
        passed = share < box.MOST and with_it >= 0.5
        if with_it < 0.5:
            reason = f"with guidance {guided['successes']} of {trials} do the task, expected half"
        elif not passed:
            reason = "what guidance asks for lies outside what the data hold"
    details = {
        "reason": reason, "strength": strength, "levels_below": box.BELOW,
        "success_rate": with_it, "threshold_success_rate": 0.5,
        "success_rate_at_strength_0": without, "threshold_at_strength_0": 0.5, "trials": trials,
        "outside_by_feature": guided.get("outside_box_by_feature", {}),
    }  # fmt: skip
    title = "guidance inside the data's range"
    return Gate("box", title, share, "share outside", box.MOST, passed, details)


# --- natural: whether the gait is that of the clips -----------------------------------------------


def gate_natural(
    model: GuidedModel, episodes: Rollouts, references: Sequence[Clip], *, trials: int,
    seconds: float, config: Config,
) -> Gate:  # fmt: skip
    """The gait at `PACES` against the clips' at the speed that is walked."""
    target = np.repeat(PACES, trials)
    qpos, qvel = walking_starts(episodes, trials, np.random.default_rng([config.seed, 8]))
    starts = np.tile(qpos, (len(PACES), 1)), np.tile(qvel, (len(PACES), 1))
    states: list[np.ndarray] = []
    result = closed_loop(
        model, starts, seconds=seconds, seed=config.seed, method=config.method,
        cost=forward_cost(target, model), strength=config.steering_for(model).strength,
        delay=config.delay, backend=config.backend, threads=config.threads, label="gate natural",
        record=states,
    )  # fmt: skip
    walked = np.stack(states)
    robots = {
        pace: [walked[:, i] for i in np.flatnonzero((target == pace) & result.alive)]
        for pace in PACES
    }
    return natural_gate(robots, references)


def natural_gate(robots: Mapping[float, Sequence[np.ndarray]], references: Sequence[Clip]) -> Gate:
    """The gate by what robots did.

    Args:
        robots: by commanded speed, `qpos [T, 36]` at 50 Hz of each robot that stayed up.
        references: clips to compare with, where they walk as fast.
    """
    table, worst, reasons = [], 0.0, []
    for pace, walks in robots.items():
        if not walks:
            reasons.append(f"at {pace:g} m/s no robot stays up")
            worst = float("inf")
            continue
        own = Naturalness.mean([measure_states(walk, SECOND) for walk in walks])
        parts = [natural.at_speed(clip, own.speed_m_s) for clip in references]
        like = [measure_states(part.qpos(), part.fps) for part in parts if part is not None]
        if not like:
            reasons.append(f"no clip walks at {own.speed_m_s:.2f} m/s")
            continue
        reference = Naturalness.mean(like)
        off = natural.off(own, reference)
        table.append({
            "commanded_m_s": pace, "robots": len(walks), "figures": own.row(),
            "reference": reference.row(), "ratios": natural.ratios(own, reference), "off": off,
            "motions": [part.name for part in parts if part is not None],
        })  # fmt: skip
        worst = max(worst, *off.values())
        if bad := [name for name, value in off.items() if value > 1]:
            reasons.append(f"at {pace:g} m/s not as the clips: {', '.join(bad)}")
    compared = bool(table) or worst > 0
    details = {"by_speed": table, "reason": "; ".join(reasons)}
    return Gate(
        "natural", "gait as of the clips", worst if compared else None, "of the band, worst", 1.0,
        worst <= 1 if compared else None, details,
    )  # fmt: skip


# --- latency --------------------------------------------------------------------------------------


def latency(model: GuidedModel, *, threads: int, ticks: int) -> Gate:
    """Wall time of a control step of one robot: this model, and one of the paper's size."""
    table = []
    for name, one in sizes(model, threads):
        for method in ("full", "rolling", 10, 5, 2):
            milliseconds = tick_times(one, method, ticks)
            table.append({
                "model": name, "sampler": method if isinstance(method, str) else f"ddim {method}",
                "calls": {"full": K, "rolling": 15}.get(str(method), method),
                "median_ms": float(np.median(milliseconds)),
                "p95_ms": float(np.percentile(milliseconds, 95)),
                "in_time": bool(np.percentile(milliseconds, 95) < TICK_MS),
            })  # fmt: skip
    full = table[0]
    details = {"by_model": table, "ticks": ticks, "robots": 1}
    return Gate(
        "latency", "one control step, full sampling", full["p95_ms"], "ms, 95 % under", TICK_MS,
        full["in_time"], details,
    )  # fmt: skip


def sizes(model: GuidedModel, threads: int) -> Iterator[tuple[str, GuidedModel]]:
    """The model itself, and an untrained one of the paper's size."""
    yield model.name, model
    from bm_envs.diffusion import network  # with torch, which no other gate needs

    with tempfile.TemporaryDirectory() as folder:
        representation = model.representation.name
        network.write_untrained(Path(folder), network.PUBLISHED, representation, model.drives)
        yield "paper preset, untrained", load_model(folder, threads=threads)


def tick_times(model: GuidedModel, method: Method, ticks: int) -> np.ndarray:
    """Milliseconds of each of `ticks` calls of a controller of one robot, after some to warm up."""
    controller = Controller(model, 1, method=method)
    standing = np.zeros((1, 7 + g1.NUM_JOINTS))
    standing[:, 2], standing[:, 3] = 0.76, 1.0  # m; about where knees so bent put the pelvis
    standing[:, 7:] = g1.DEFAULT_JOINT_POS
    states = states_of(standing, np.zeros((1, 6 + g1.NUM_JOINTS)))
    milliseconds = []
    for tick in range(ticks + 5):
        started = time.perf_counter()
        controller.act(states)
        if tick >= 5:
            milliseconds.append(1000 * (time.perf_counter() - started))
    return np.array(milliseconds)


# --- parts ----------------------------------------------------------------------------------------


def _parts(count: int, size: int = 256) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _same_rotation(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference; of quaternions, which have four parts, up to their sign."""
    if a.shape[-1] == 4:
        a = a * np.sign((a * b).sum(-1, keepdims=True))
    return _largest(a, b)


def _as64(states: States) -> States:
    return States(*(np.asarray(value, np.float64) for value in states))


def _placed(states: States, offset: np.ndarray, yaw: float) -> States:
    """The motion at another place: turned about z by `yaw`, rad, then moved by `offset`, m."""
    turn = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
    turned = {
        "root_quat": quat_mul(np.broadcast_to(turn, states.root_quat.shape), states.root_quat)
    }
    for name in ("root_pos", "root_lin_vel", "root_ang_vel", "body_pos", "body_lin_vel"):
        vector = getattr(states, name)
        turns = np.broadcast_to(turn, (*vector.shape[:-1], 4))
        turned[name] = quat_rotate(turns, vector) + (offset if name.endswith("_pos") else 0.0)
    return states._replace(**turned)


def _reflected(states: States) -> States:
    """The motion seen in the plane y = 0, by the robot table's pairs."""
    index, flip = g1.mirror_map()
    other = [g1.BODY_NAMES.index(g1.mirror_name(name)) for name in g1.BODY_NAMES]
    polar, axial = np.array([1.0, -1, 1]), np.array([-1.0, 1, -1])
    pairs = {
        "root_pos": (..., polar), "root_quat": (..., np.array([1.0, -1, 1, -1])),
        "root_lin_vel": (..., polar), "root_ang_vel": (..., axial),
        "joint_pos": ((..., index), flip), "joint_vel": ((..., index), flip),
        "body_pos": ((..., other, slice(None)), polar),
        "body_lin_vel": ((..., other, slice(None)), polar),
    }  # fmt: skip
    return States(**{name: getattr(states, name)[at] * sign for name, (at, sign) in pairs.items()})


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation, ties by their mean rank."""
    ranks = []
    for values in (x, y):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - 0.5 * (counts - 1))[inverse])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the least-squares line of y over x."""
    return float(np.cov(x, y)[0, 1] / x.var(ddof=1)) if np.ptp(x) else 0.0


# --- command --------------------------------------------------------------------------------------


def examine(model: GuidedModel, config: Config, folder: Path) -> Iterator[Gate]:
    """The gates that are asked for, in their order."""
    names = set(config.gate or NAMES)
    quick, seed = config.quick, config.seed
    threads = config.threads
    collecting = ("--threads", str(threads), "--backend", config.backend)
    trials = config.trials or (2 if quick else 50)
    if names - {"box", "latency"}:
        sources = sources_of(model, config)
        clips = [clip for part in sources.values() for clip in part]
    if names & {"0", "2", "2b", "3", "4", "5", "natural"}:
        count = 64 if quick else 512
        begin(f"{count} roll-outs of {', '.join(sources)}")
        held_out = collect_all(folder / "held_out", sources, seed, count, 256, *collecting)
    if "0" in names:
        yield gate_0(held_out)
    if names & {"1", "1b"}:
        alone = ("--steps", "750", "--warm-up", "0", "--verify", "0", "--quiet", "1")
        long = {
            expert: kept
            for expert, part in sources.items()
            if (kept := [clip for clip in part if clip.num_frames >= 752])
        }
        if not long:
            raise ConfigError(f"No clip of {', '.join(sources)} lasts 15 s, expected one or more.")
        motions = [clip.name for part in long.values() for clip in part]
        # With --quick as well: of a dozen, a single failure would be more than the 2 % allowed.
        alone_trials = config.trials or 50
        begin(f"{alone_trials} roll-outs of 15 s")
        quiet = collect_all(
            folder / "quiet", long, seed + 1, alone_trials, alone_trials, *alone, "--pushed", "0",
            *collecting,
        )  # fmt: skip
        if "1" in names:
            begin(f"{alone_trials} roll-outs of 15 s with pushes")
            shoved = collect_all(
                folder / "shoved", long, seed + 2, alone_trials, alone_trials, *alone,
                "--pushed", "1", *collecting,
            )  # fmt: skip
            yield gate_1(quiet, shoved, motions)
        if "1b" in names:
            yield gate_1b(quiet, model.drives, config.backend, threads, seed=seed)
    if names & {"2", "2b"}:
        truth = truth_of(model, held_out, config.windows or (64 if quick else 2048), seed)
        begin(f"gate 2: {len(truth.states)} windows, three ways")
        gate, features = gate_2(model, truth, seed)
        if "2" in names:
            yield gate
        if "2b" in names:
            yield gate_2b(model, truth, features)
    if "3" in names:
        seconds = 5.0 if quick else 15.0
        begin(f"gate 3: {trials} trials of {seconds:g} s, twice")
        yield gate_3(model, held_out, trials=trials, seconds=seconds, config=config)
    if "4" in names:
        own = config.steering_for(model).strength
        strengths = [own] if quick else sorted({0.0, own, *STRENGTHS})
        begin(f"gate 4: {len(TARGETS)} speeds at {len(strengths)} strengths")
        yield gate_4(
            model, held_out, trials=1 if quick else 10, seconds=4.0 if quick else 6.0,
            strengths=strengths, config=config,
        )  # fmt: skip
    if "5" in names:
        truth = truth_of(model, held_out, 32 if quick else 256, seed + 5)
        begin(f"gate 5: {len(truth.states)} windows and trials")
        yield gate_5(model, truth, held_out, config=config)
    if "box" in names:
        own, count = config.steering_for(model).strength, config.trials or (2 if quick else 12)
        begin(f"box: {count} trials of the joystick task, twice")
        guided = joystick_row(folder, config, own, count)
        yield gate_box(guided, joystick_row(folder, config, 0.0, count), own)
    if "natural" in names:
        count = config.trials or (2 if quick else 12)
        references = library.load_motions(config.reference) if config.reference else clips
        seconds = 8.0 if quick else 10.0
        begin(f"natural: {count} trials of {seconds:g} s at {len(PACES)} speeds")
        yield gate_natural(
            model, held_out, references, trials=count, seconds=seconds, config=config
        )
    if "latency" in names:
        begin("latency: one robot")
        yield latency(model, threads=threads, ticks=config.ticks or (5 if quick else 100))


def line(gate: Gate) -> list[str]:
    """A gate as cells of a table."""
    verdict = {True: "passed", False: "FAILED", None: "measured"}[gate.passed]
    limit = "" if gate.threshold is None else f"threshold {gate.threshold:g}"
    extra = ", ".join(
        f"{name} {value:.3g}" for name, value in gate.details.items() if isinstance(value, float)
    )
    value = "nothing" if gate.value is None else f"{gate.value:.4g} {gate.unit}"
    said = gate.details.get("reason", "")
    return [gate.gate, gate.title, value, limit, verdict, extra, said]


def main(config: Config) -> None:
    """Examine a model and report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    threads = config.threads or cli.available_cores()
    model = load_model(config.policy, threads=threads)
    strength = config.steering_for(model).strength  # refused here, before any work
    print(
        f"model {model.name} ({model.representation.name}), sampler {config.sampled_by}, strength "
        f"{strength:g}, backend {config.backend}, seed {config.seed}"
        f"{', quick' if config.quick else ''}",
        flush=True,
    )
    gates = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for gate in examine(model, config, Path(folder)):
            gates.append(gate)
            now = time.perf_counter()
            told = "  ".join(cell for cell in line(gate) if cell)
            print(f"gate {told} ({now - started:.0f} s)", flush=True)
            started = now
    if config.json is not None:
        rows = [gate.row() for gate in gates]
        result = cli.json_result("gates", seed=config.seed, rows=rows)
        result["settings"] = {
            "policy": model.name, "policy_sha256": model.sha256, "quick": config.quick,
            "representation": model.representation.name, "sampler": config.sampled_by,
            "delay": config.delay, "strength": strength,
            "backend": config.backend,
        }  # fmt: skip
        write_result(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
