r"""How far the world model of a run of `algos/wm_track.py` gets, against the engine.

    python benchmarks/world_model.py --run runs/walk__wm_track__1 --json out.json --plot out.png

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
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bm_envs import cli
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.learning.checks import check_at_least_one
from bm_envs.learning.folder import load_checkpoint
from bm_envs.learning.networks import TrackingPolicy
from bm_envs.learning.replay_buffer import ReplayBuffer, ReplayCollector
from bm_envs.learning.robots import HostRobots
from bm_envs.learning.world_model import State, WorldModel
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.policy import read_run_config
from bm_envs.tasks.track.config import TrackConfig, with_changes


@dataclass(frozen=True)
class Config:
    """Compare a world model with the engine on held-out rollouts."""

    run: Path
    """The run: a folder with checkpoint.pt and config.json."""
    json: Path
    """Result file."""
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
        check_at_least_one(self, "steps", "num_envs")
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
    states, targets, valid = buffer.windows(begin, robots, steps)
    predicted = coasting = states[0]
    rows = []
    for step, (target, truth) in enumerate(zip(targets, states[1:], strict=True), 1):
        predicted = model(predicted, model.local(predicted), target)
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


def main(config: Config) -> None:
    """Drive, predict, compare."""
    trained, saved, clips = restored(config.run)
    buffer, model = rollouts(config, trained, saved, clips)
    rows = growth(model, buffer, config.steps)
    cli.write_json(config.json, cli.json_result("world_model", seed=config.seed, rows=rows))
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
