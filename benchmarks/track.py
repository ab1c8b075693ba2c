"""Measure how well a policy tracks motions: any ONNX policy of the BeyondMimic family, or a run.

    python benchmarks/track.py --policy runs/walk__ppo_track__1 --motion walk --json out.json
    python benchmarks/track.py --policy foreign.onnx --policy-config foreign.json --motion dance1

Drives, default pose, action scale, joint order and observation terms are the policy's own. Two
protocols:

* `clip`: every motion once, from first frame to last, without noise, pushes or randomization.
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

With `--no-failure` an episode ends only with the clip or a diverged simulation. Then a fall, the
root more than 0.3 m below the reference's, takes the failure's place in `success` and `survival_s`,
while the errors are those of all frames.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff

from bm_envs import cli, evaluation
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.evaluation import Episodes
from bm_envs.motion import library, procedural
from bm_envs.motion.clip import Clip
from bm_envs.policy import Policy, load_policy
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig

BEST_REWARD = 5.0 * CONTROL_DT  # of one step: the six tracking terms' weights, per second
ROBUST_TRIALS, QUICK_TRIALS = 100, 10
BATCH = 128  # episodes simulated at a time


@dataclass(frozen=True)
class Config:
    """Run a policy on motions and report how well it tracks them."""

    policy: str
    """A run directory, an ONNX file, or the name of a policy that ships with the package."""
    motion: tuple[str, ...] = ()
    """Names, files or cuts such as 'walk1[5:15]'; none: the motion inside the policy."""
    protocol: tuple[Literal["clip", "robust"], ...] = ("clip", "robust")
    """Which protocols to run."""
    json: Path | None = None
    """Result file to write."""
    seed: int = 0
    """Seed of the robust protocol's noise, pushes and randomization."""
    trials: int | None = None
    """Episodes per motion of the robust protocol, 100 or more; default 100, with --quick 10."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """A smaller sample of the robust protocol; not for published figures."""
    no_failure: Annotated[bool, FlagCreatePairsOff] = False
    """Leave the failure rules off; see above what success then means."""
    policy_config: Path | None = None
    """JSON with the metadata that the policy file lacks; keys as in the ONNX metadata."""
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
        if not self.protocol:
            raise ConfigError("protocol is empty, expected 'clip', 'robust' or both.")

    @property
    def episodes(self) -> int:
        """Episodes per motion of the robust protocol."""
        return self.trials or (QUICK_TRIALS if self.quick else ROBUST_TRIALS)


def task_config(policy: Policy, protocol: str, config: Config) -> TrackConfig:
    """The protocol's task with the policy's observation terms and drives."""
    return evaluation.protocol_task(
        policy, protocol, feet=config.feet, lead=config.lead, failure_rules=not config.no_failure
    )


def run_episodes(
    policy: Policy, clip: Clip, task: TrackConfig, *, episodes: int, seed: int,
    backend: str = "mujoco", threads: int = 0,
) -> Episodes:  # fmt: skip
    """Play a clip from its first frame in `episodes` robots at once."""
    env = TrackVectorEnv(
        episodes, clip, backend=backend, config=task, autoreset_mode="disabled", critic="none",
        threads=threads,
    )  # fmt: skip
    act = evaluation.in_project_order(policy)
    try:
        if task.failure == "none":
            return evaluation.run_episodes(
                act, env, seed=seed, failed=evaluation.has_fallen, past_failure=True
            )
        return evaluation.run_episodes(act, env, seed=seed)
    finally:
        env.close()


def result_row(
    policy: Policy, clip: Clip, protocol: str, backend: str, figures: Episodes
) -> dict[str, Any]:
    """One row of a result file."""
    episodes = len(figures.completed)
    successes = int(figures.completed.sum())
    steps = clip.num_frames - 1
    training = (policy.info or {}).get("training", {})

    def mean(name: str, factor: float = 1.0) -> float | None:
        values = figures.errors[name][figures.compared > 0]
        return float(values.mean() * factor) if values.size else None

    return {
        "policy": policy.name,
        "motion": clip.name,
        "suite": suite(clip),
        "backend": backend,
        "protocol": protocol,
        "episodes": episodes,
        "success": successes / episodes,
        "success_ci95": list(evaluation.wilson(successes, episodes)),
        "survival_s": round(float(figures.reached.mean()) * CONTROL_DT, 6),
        "clip_s": round(steps * CONTROL_DT, 6),
        "mpkpe_mm": mean("mpkpe_m", 1000),
        "r_mpkpe_mm": mean("r_mpkpe_m", 1000),
        "joint_pos_rad": mean("joint_pos_rad"),
        "joint_vel_rad_s": mean("joint_vel_rad_s"),
        "ee_pos_mm": mean("ee_pos_m", 1000),
        "ee_ori_rad": mean("ee_ori_rad"),
        "normalized_return": float(figures.returns.mean() / (BEST_REWARD * steps)),
        "train_env_steps": training.get("env_steps"),
        "train_wall_s": training.get("wall_s"),
    }


def suite(clip: Clip) -> str:
    """Which set a clip belongs to, by its name: `builtin`, `lafan1`, `g1_moves` or `other`."""
    name = clip.name.partition("[")[0]
    if name in library.LAFAN1.names():
        return "lafan1"
    if name in library.G1_MOVES.names():
        return "g1_moves"
    if (library.BUILTIN_DIR / f"{name}.npz").is_file() or procedural.is_drawn(name):
        return "builtin"
    return "other"


def evaluate(policy: Policy, clip: Clip, protocol: str, config: Config) -> dict[str, Any]:
    """Run one motion under one protocol; returns its row."""
    task = task_config(policy, protocol, config)
    episodes = 1 if protocol == "clip" else config.episodes
    parts = [
        run_episodes(
            policy, clip, task, episodes=min(BATCH, episodes - first), seed=config.seed + first,
            backend=config.backend, threads=1 if episodes == 1 else config.threads,
        )
        for first in range(0, episodes, BATCH)
    ]  # fmt: skip
    return result_row(policy, clip, protocol, config.backend, Episodes.concatenate(parts))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    head = ("motion", "protocol", "episodes", "success", "survived", "mpkpe mm", "r_mpkpe mm",
            "joint rad", "return")  # fmt: skip

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        low, high = row["success_ci95"]
        share = f"{row['success']:.1%}"
        if row["protocol"] == "robust":
            share += f" ({low:.1%} to {high:.1%})"
        lines.append((
            row["motion"], row["protocol"], str(row["episodes"]), share,
            f"{row['survival_s']:.2f} of {row['clip_s']:.2f} s", number(row["mpkpe_mm"], 1),
            number(row["r_mpkpe_mm"], 1), number(row["joint_pos_rad"], 4),
            number(row["normalized_return"], 3),
        ))  # fmt: skip
    return cli.aligned(lines)


def main(config: Config) -> None:
    """Evaluate and report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    policy = load_policy(config.policy, config=config.policy_config)
    clips = library.load_motions(config.motion) if config.motion else evaluation.motions_of(policy)
    rules = "off" if config.no_failure else "on"
    print(
        f"policy {policy.name} ({policy.spec.observation_size} values), backend {config.backend}, "
        f"feet {config.feet}, lead {config.lead}, failure rules {rules}, seed {config.seed}"
    )
    rows = []
    for clip in clips:
        for protocol in dict.fromkeys(config.protocol):
            started = time.perf_counter()
            rows.append(evaluate(policy, clip, protocol, config))
            if len(clips) > 1:
                row, wall = rows[-1], time.perf_counter() - started
                print(f"{clip.name} {protocol}: success {row['success']:.1%} ({wall:.1f} s)")
    print(table(rows))
    if config.json is not None:
        result = cli.json_result("track", seed=config.seed, rows=rows)
        result["settings"] = {
            "policy_sha256": policy.sha256, "feet": config.feet, "lead": config.lead,
            "failure_rules": rules, "quick": config.quick,
            "motion_sha256": {clip.name: clip.sha256() for clip in clips},
        }  # fmt: skip
        cli.write_json(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
