"""Measure how well a policy tracks motions: any ONNX policy of the BeyondMimic family, or a run.

    python benchmarks/track.py --policy runs/walk__ppo_track__1 --motion walk --json out.json
    python benchmarks/track.py --policy foreign.onnx --policy-config foreign.json --motion dance1
    python benchmarks/track.py --suite builtin
    python benchmarks/track.py --policy 'runs/cuts/{motion}' --suite lafan1-cuts --json out.json

A suite is a list of motions (`bm_envs/motion/suites.py`). Without `--policy` each of its motions is
tracked by the policy that ships for it; one that has none gets no row, and is named.

Drives, default pose, action scale, joint order and observation terms are the policy's own. Three
protocols:

* `clip`: every motion once, from first frame to last, without noise, pushes or randomization.
* `clip-perturbed`: the same 20 times, each from another start within half of the training's noise
  (`perturbed_starts` in `bm_envs/tasks/track/config.py`). Not run unless `--protocol` names it.
* `robust`: 100 episodes or more from the first frame with observation noise, noise on the start
  state, domain randomization and pushes.

An episode has failed when the pelvis is off by more than 0.25 m in height or 0.8 in tilt (gravity
projection), or the simulation has diverged. A motion of T frames is T - 1 control steps of 0.02 s;
after each, the robot is compared with the frame it should have reached. Figures:

    success            share of episodes that reach the last frame; success_ci95: Wilson interval
    survival_s         0.02 s times the frames reached before the failure, mean over episodes
    clip_s             (T - 1) * 0.02 s, so that survival_s = clip_s for a run without a failure
    mpkpe_mm ...       errors of the frames before the failure, mean over an episode's frames, then
                       over episodes (see TrackTask.tracking_errors); null when there is no frame
    normalized_return  rewards up to the episode's end over the most that the whole clip can pay,
                       (T - 1) * 0.1, mean over episodes
    slip_p95_m_s ...   motion quality of the frames before the failure, mean over the episodes that
                       have it; null where none has. `ref_...` is the whole clip's own (see
                       `bm_envs/quality/`)
    observation_size   numbers that the policy observes
    base_state         `true`: it observes the base's place or velocity, as the simulation has them;
                       `none`: neither
    control_hz         actions a second
    spread             standard deviation over episodes of survival, errors and return, where there
                       are several

With `--no-failure` an episode ends only with the clip or a diverged simulation. Then a fall, the
root more than 0.3 m below the reference's, takes the failure's place in `success`, `survival_s` and
motion quality, while the errors are those of all frames.

Beside the rows a result file holds `traces`, one of each run of the `clip` protocol: `mpkpe_mm`
over the compared frames as means over `every_s`, at most 200 of them, and `failed_s`, the time of
the frame in which the run failed (null for none).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli, evaluation, quality
from bm_envs.deploy import balance
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.evaluation import Episodes
from bm_envs.motion import library, suites
from bm_envs.motion.clip import Clip
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import Policy, load_policy, shipped_policies
from bm_envs.results import EPISODES, ERRORS, MAIN_HEADS, write_result
from bm_envs.statistics import wilson
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig

BEST_REWARD = 5.0 * CONTROL_DT  # of one step: the six tracking terms' weights, per second
ROBUST_TRIALS, QUICK_TRIALS = EPISODES["robust"], 10
BATCH = 128  # episodes simulated at a time
TRACE = 200  # most values of a trace


@dataclass(frozen=True)
class Config:
    """Run a policy on motions and report how well it tracks them."""

    policy: str | None = None
    """A run directory, an ONNX file, a shipped policy's name, or hub:OWNER/NAME[@REVISION]. With
    {motion} in it, which stands for a motion's name: a policy for each."""
    motion: tuple[str, ...] = ()
    """Names, files or cuts such as 'walk1[5:15]'; none: the motion inside the policy."""
    suite: suites.Suite | None = None
    """A list of motions in place of --motion."""
    protocol: tuple[Literal["clip", "clip-perturbed", "robust"], ...] = ("clip", "robust")
    """Which protocols to run."""
    json: Path | None = None
    """Result file to write."""
    seed: int = 0
    """Seed of the starts, and of the robust protocol's noise, pushes and randomization."""
    trials: int | None = None
    """Episodes per motion of the robust protocol, 100 or more; default 100, with --quick 10."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """A smaller sample of the robust protocol; not for published figures."""
    no_failure: Annotated[bool, FlagCreatePairsOff] = False
    """Leave the failure rules off; see above what success then means."""
    policy_config: Path | None = None
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""
    backend: str = "mujoco"
    """Physics backend."""
    feet: Literal["spheres", "capsules"] = "spheres"
    """Foot contact shape."""
    lead: Literal[0, 1] = 1
    """Frames by which the reference that the policy sees is ahead of the robot."""
    threads: int = 0
    """Physics threads; 0: all cores this process may use."""

    def __post_init__(self) -> None:
        least = 1 if self.quick else ROBUST_TRIALS
        if self.trials is not None and self.trials < least:
            raise ConfigError(
                f"trials is {self.trials}, expected {least} or more"
                f"{'' if self.quick else ' (fewer only with --quick)'}."
            )
        if self.policy is None and self.suite is None:
            raise ConfigError("Neither --policy nor --suite is given, expected one of them.")
        motions = self.motions
        if self.policy is not None and "{motion}" in self.policy and not motions:
            raise ConfigError(f"policy is '{self.policy}', which needs --motion or --suite.")
        if not self.protocol:
            raise ConfigError(
                "protocol is empty, expected one or more of clip, clip-perturbed and robust."
            )

    def episodes(self, protocol: str) -> int:
        """Episodes per motion of a protocol."""
        if protocol != "robust":
            return EPISODES[protocol]
        return self.trials or (QUICK_TRIALS if self.quick else ROBUST_TRIALS)

    @property
    def motions(self) -> tuple[str, ...]:
        """Names of the motions, of the suite or as given."""
        return suites.chosen(self.motion, self.suite, ())


def choose(config: Config) -> list[tuple[Policy, list[Clip]]]:
    """Every policy with the motions it is to track.

    Raises:
        BMError: one of them is unknown or unreadable.
    """

    def load(reference: str) -> Policy:
        return load_policy(reference, config=config.policy_config)

    if config.policy is None:
        return [
            (load_policy(name), [library.load_motion(motion)])
            for motion, name in shipped_for(config.motions).items()
            if name is not None
        ]
    if "{motion}" in config.policy:
        return [
            (load(config.policy.replace("{motion}", name)), [library.load_motion(name)])
            for name in config.motions
        ]
    policy = load(config.policy)
    if config.motions:
        return [(policy, library.load_motions(config.motions))]
    return [(policy, evaluation.motions_of(policy))]


def shipped_for(motions: tuple[str, ...]) -> dict[str, str | None]:
    """For each motion the shipped policy that was made for it; of several the one for the fewest.

    None where there is none. The standing policy learned from some motions to follow none of them.
    """
    made_for: dict[str, list[str]] = {}
    for name in sorted({*shipped_policies()} - {balance.NAME}):
        description = load_policy(name).info or {}
        made_for[name] = [str(entry["name"]) for entry in description.get("motions", [])]
    policy_of: dict[str, str | None] = {}
    for motion in motions:
        able = [name for name, names in made_for.items() if motion in names]
        policy_of[motion] = min(able, key=lambda name: len(made_for[name]), default=None)
    return policy_of


def task_config(policy: Policy, protocol: str, config: Config) -> TrackConfig:
    """The protocol's task with the policy's observation terms and drives."""
    return evaluation.protocol_task(
        policy, protocol, feet=config.feet, lead=config.lead, failure_rules=not config.no_failure
    )


def run_episodes(
    policy: Policy, clip: Clip, task: TrackConfig, *, episodes: int, seed: int,
    backend: str = "mujoco", threads: int = 0, trace: list[float] | None = None,
) -> Episodes:  # fmt: skip
    """Play a clip from its first frame in `episodes` robots at once.

    Into `trace` go the first robot's key-point errors (m), one per frame that it reached.
    """
    env = TrackVectorEnv(
        episodes, clip, backend=backend, config=task, autoreset_mode="disabled", critic="none",
        threads=threads,
    )  # fmt: skip
    act = evaluation.in_project_order(policy)

    def record(present: np.ndarray) -> None:
        if trace is not None and present[0]:
            trace.append(float(env.task.tracking_errors()["mpkpe_m"][0]))

    try:
        if task.failure == "none":
            return evaluation.run_episodes(
                act, env, seed=seed, failed=evaluation.has_fallen, past_failure=True,
                on_frame=record, judged=True,
            )  # fmt: skip
        return evaluation.run_episodes(act, env, seed=seed, on_frame=record, judged=True)
    finally:
        env.close()


def result_row(
    policy: Policy, clip: Clip, protocol: str, backend: str, figures: Episodes,
    suite: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One row of a result file; without `suite` the one that lists the clip."""
    episodes = len(figures.completed)
    successes = int(figures.completed.sum())
    steps = clip.num_frames - 1
    training = (policy.info or {}).get("training", {})
    best = BEST_REWARD * steps
    told = {
        "observation_size": policy.spec.observation_size,
        "base_state": evaluation.base_state(policy.spec.observation_names),
        "control_hz": round(1 / CONTROL_DT, 6),
    }
    if episodes > 1:
        told["spread"] = spread(figures, best)

    def mean(name: str) -> float | None:
        values, unit = error_of(figures, name)
        return float(values.mean() * unit) if values.size else None

    def judged(values: np.ndarray | float) -> float | None:
        known = np.asarray(values)[~np.isnan(values)]
        return float(known.mean()) if known.size else None

    return {
        "policy": policy.name,
        "motion": clip.name,
        "suite": suite or suites.suite_of(clip.name),
        "backend": backend,
        "protocol": protocol,
        "episodes": episodes,
        "success": successes / episodes,
        "success_ci95": list(wilson(successes, episodes)),
        "survival_s": round(float(figures.reached.mean()) * CONTROL_DT, 6),
        "clip_s": round(steps * CONTROL_DT, 6),
        **{name: mean(name) for name in ERRORS},
        "normalized_return": float(figures.returns.mean() / best),
        "train_env_steps": training.get("env_steps"),
        "train_wall_s": training.get("wall_s"),
        **told,
        **{name: judged(values) for name, values in figures.quality.items()},
        **{name: judged(value) for name, value in quality.reference_figures(clip).items()},
    }


def error_of(figures: Episodes, name: str) -> tuple[np.ndarray, float]:
    """A row's error in each episode that has one, and the factor to the unit in its name."""
    kept = figures.errors[name.replace("_mm", "_m")][figures.compared > 0]
    return kept, 1000.0 if "_mm" in name else 1.0


def spread(figures: Episodes, best: float) -> dict[str, float | None]:
    """Standard deviations over episodes of the figures that a row has means of.

    Args:
        figures: of two episodes or more.
        best: what the whole clip pays at most.
    """
    values = {
        "survival_s": (figures.reached, CONTROL_DT),
        **{name: error_of(figures, name) for name in ERRORS},
        "normalized_return": (figures.returns, 1 / best),
    }
    return {
        name: float(np.std(each, ddof=1) * unit) if len(each) > 1 else None
        for name, (each, unit) in values.items()
    }


def evaluate(
    policy: Policy, clip: Clip, protocol: str, config: Config,
    traces: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run one motion under one protocol; returns its row. `clip` adds one to `traces`."""
    task = task_config(policy, protocol, config)
    trace: list[float] = []
    episodes = config.episodes(protocol)
    parts = [
        run_episodes(
            policy, clip, task, episodes=min(BATCH, episodes - first), seed=config.seed + first,
            backend=config.backend, threads=1 if episodes == 1 else config.threads,
            trace=trace if protocol == "clip" else None,
        )
        for first in range(0, episodes, BATCH)
    ]  # fmt: skip
    figures = Episodes.concatenate(parts)
    if protocol == "clip" and traces is not None:
        traces.append({
            "policy": policy.name, "motion": clip.name, **means(trace[1:]),
            "failed_s": None if figures.completed[0] else
            round((figures.reached[0] + 1) * CONTROL_DT, 6),
        })  # fmt: skip
    return result_row(policy, clip, protocol, config.backend, figures, config.suite)


def means(errors: list[float]) -> dict[str, Any]:
    """Errors (m), one per control step, as at most `TRACE` means over equal times (mm)."""
    block = max(1, -(-len(errors) // TRACE))
    parts = [errors[i : i + block] for i in range(0, len(errors), block)]
    return {
        "every_s": round(block * CONTROL_DT, 6),
        "mpkpe_mm": [round(1000 * float(np.mean(part)), 2) for part in parts],
    }


def quality_table(rows: list[dict[str, Any]]) -> str:
    """Motion quality as aligned text, the reference's own in brackets."""
    head = ("motion", "protocol", "slip m/s", "impact bw", "toggles 1/s", "action rate",
            "joint acc rad/s2", "torque over", "chatter")  # fmt: skip

    def both(row: dict[str, Any], name: str, digits: int) -> str:
        return f"{cli.figure(row[name], digits)} ({cli.figure(row[f'ref_{name}'], digits)})"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    lines: list[tuple[str, ...]] = [head]
    lines += [
        (
            row["motion"], row["protocol"], both(row, "slip_p95_m_s", 3),
            cli.figure(row["impact_p95_bw"], 2), both(row, "contact_toggles_s", 1),
            cli.figure(row["action_rate"], 2), both(row, "joint_acc_rad_s2", 1),
            share(row["torque_over_share"]), share(row["chatter_share"]),
        )
        for row in rows
    ]  # fmt: skip
    return cli.aligned(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    head = ("motion", "protocol", "episodes", "success", "survived", *MAIN_HEADS,
            "return")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        low, high = row["success_ci95"]
        share = f"{row['success']:.1%}"
        if row["episodes"] > 1:
            share += f" ({low:.1%} to {high:.1%})"
        lines.append((
            row["motion"], row["protocol"], str(row["episodes"]), share,
            f"{row['survival_s']:.2f} of {row['clip_s']:.2f} s", cli.figure(row["mpkpe_mm"], 1),
            cli.figure(row["r_mpkpe_mm"], 1), cli.figure(row["joint_pos_rad"], 4),
            cli.figure(row["normalized_return"], 3),
        ))  # fmt: skip
    return cli.aligned(lines)


def main(config: Config) -> None:
    """Evaluate and report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    chosen = choose(config)
    chosen = [
        (policy, [on_robot(clip, policy.spec.robot) for clip in clips]) for policy, clips in chosen
    ]
    tracked = [clip.name for _, clips in chosen for clip in clips]
    if not chosen:
        raise ConfigError(f"No policy ships for suite '{config.suite}'; give --policy.")
    rules = "off" if config.no_failure else "on"
    names = list(dict.fromkeys(policy.name for policy, _ in chosen))
    about = names[0] if len(names) == 1 else f"{len(names)} policies"
    sizes = sorted({policy.spec.observation_size for policy, _ in chosen})
    print(
        f"policy {about} ({' and '.join(map(str, sizes))} values), backend {config.backend}, "
        f"feet {config.feet}, lead {config.lead}, failure rules {rules}, seed {config.seed}"
    )
    rows, traces = [], []
    for policy, clips in chosen:
        for clip in clips:
            for protocol in dict.fromkeys(config.protocol):
                started = time.perf_counter()
                rows.append(evaluate(policy, clip, protocol, config, traces))
                if len(tracked) > 1:
                    row, wall = rows[-1], time.perf_counter() - started
                    print(
                        f"{clip.name} {protocol}: success {row['success']:.1%} ({wall:.1f} s)",
                        flush=True,
                    )
    print(table(rows))
    print("motion quality; in brackets the reference's own")
    print(quality_table(rows))
    left_out = [name for name in config.motions if name not in tracked] if not config.policy else []
    if left_out:
        print(f"no policy ships for {', '.join(left_out)}")
    if config.json is not None:
        result = cli.json_result("track", seed=config.seed, rows=rows)
        digests = {policy.name: policy.sha256 for policy, _ in chosen}
        result["settings"] = {
            "policy_sha256": digests if len(chosen) > 1 else chosen[0][0].sha256,
            "feet": config.feet, "lead": config.lead, "failure_rules": rules, "quick": config.quick,
            "motion_sha256": {clip.name: clip.sha256() for _, clips in chosen for clip in clips},
        }  # fmt: skip
        result["traces"] = traces
        write_result(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
