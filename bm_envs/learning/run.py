"""What a trainer of trackers keeps of its run: time, settings, record, and what leaves it."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning.folder import Run
from bm_envs.learning.networks import TrackingPolicy
from bm_envs.learning.processes import Processes
from bm_envs.policy import MLP, PolicySpec, read_run_config, write_onnx, write_policy_json


class Clock:
    """Seconds of training so far, from which what is only measured can be left out."""

    def __init__(self, wall_s: float = 0.0) -> None:
        """Go on from `wall_s` seconds of a run that was cut short."""
        self._start, self._cpu = time.perf_counter() - wall_s, 0.0

    @property
    def wall_s(self) -> float:
        """By the clock on the wall."""
        return time.perf_counter() - self._start

    @property
    def cpu_s(self) -> float:
        """Of processors, by this process, which may be a run's second."""
        return time.process_time() - self._cpu

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside does not count."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._start += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu


def identity(config: Any, clips: list[Any], processes: Processes) -> dict[str, Any]:
    """What must be equal for a checkpoint to go on as if nothing had happened."""
    free = ("run_dir", "resume", "total_timesteps", "checkpoint_s", "track", "wandb_project_name",
            "capture_video", "no_motion", "stop_when_passed", "threads", "robust_every",
            "stop_when_robust")  # fmt: skip
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in free}
    return json.loads(json.dumps(values, default=str)) | {
        "clips": [clip.sha256() for clip in clips], "processes": processes.count
    }  # fmt: skip


def check_resumed(config: Any, run: Run, step: int) -> None:
    """Refuse a checkpoint that is further than this run is to go.

    Args:
        config: of the trainer.
        run: its folder.
        step: the control steps that its checkpoint has behind it.

    Raises:
        ConfigError: it cannot go on.
    """
    if config.total_timesteps < step:
        raise ConfigError(
            f"total_timesteps is {config.total_timesteps:,}, but {run.checkpoint} has {step:,} "
            "behind it."
        )


def config_record(config: Any, algorithm: str) -> dict[str, Any]:
    """What `config.json` holds."""
    values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in ("run_dir", "resume"):
        values.pop(name)
    return {
        "exp_name": algorithm, "env_id": "BMTrack-G1-v0", **values,
        "network": {"residual": config.residual, "activation": config.activation},
        "versions": cli.versions(), "commit": cli.commit(), "machine": cli.machine(),
    }  # fmt: skip


def write_record(run_dir: Path, record: dict[str, Any], step: int) -> str:
    """Write `config.json`; says whether the run is new, and if not from which step it goes on.

    A run that goes on keeps its record, with the commit and machine that it began on, but for its
    length, which may be another one now.

    Args:
        run_dir: of the run.
        record: its `config_record`.
        step: the control steps that it has behind it; 0 for a new one.
    """
    path = run_dir / "config.json"
    begun = f"from step {step:,} on" if step else "a new run"
    if step and path.is_file():
        kept = read_run_config(run_dir)
        before, now = kept.get("total_timesteps"), record["total_timesteps"]
        if before == now or not isinstance(before, int):
            return begun
        record = kept | {"total_timesteps": now}
        begun += f" (of {before:,} before)"
    cli.write_json(path, record)
    return begun


def spec_of(config: Any, run_path: str = "none") -> PolicySpec:
    """What a policy of this run sees and drives."""
    drive = config.task.actuation
    return PolicySpec.for_g1(
        config.task.observations, default_joint_pos=drive.default_joint_pos,
        action_scale=drive.action_scale, stiffness=drive.stiffness, damping=drive.damping,
        run_path=run_path,
    )  # fmt: skip


def export(
    run_dir: Path, config: Any, actor: TrackingPolicy, clips: list[Any], algorithm: str,
    evaluation: dict[str, float], first_pass: dict[str, float], env_steps: int, train_s: float,
    commits: list[str],
) -> None:  # fmt: skip
    """Write policy.onnx and policy.json, and the video where asked for."""
    actor = copy.deepcopy(actor).cpu()
    depth = range(len(actor.layers))
    network = MLP(
        obs_mean=actor.obs_mean.numpy(),
        obs_scale=actor.obs_var.sqrt().numpy() + 0.01,
        weights=tuple(actor.get_parameter(f"layers.{i}.weight").detach().numpy() for i in depth),
        biases=tuple(actor.get_parameter(f"layers.{i}.bias").detach().numpy() for i in depth),
        activation=config.activation,
        residual_offset=actor.default_joint_pos.numpy() if config.residual else None,
        residual_scale=actor.action_scale.numpy() if config.residual else None,
    )
    spec = spec_of(config, run_dir.name)
    clip = clips[0] if len(clips) == 1 else None  # the graph has room for one motion
    embed = clip is not None and not config.no_motion
    write_onnx(run_dir / "policy.onnx", network, spec, clip, embed_motion=embed)
    write_policy_json(
        run_dir / "policy.json", spec, onnx_file=run_dir / "policy.onnx", motions=clips,
        embedded=embed, training={
            "algorithm": algorithm, "env_steps": env_steps, "wall_s": round(train_s, 1),
            "seed": config.seed, "num_envs": config.num_envs, "first_pass": first_pass,
            "clip_protocol": evaluation, "commit": ", ".join(commits) or None,
            "machine": cli.machine(),
        },
    )  # fmt: skip
    if config.capture_video:
        replay = Path(__file__).parents[2] / "tools" / "replay.py"
        command = [sys.executable, str(replay), "--motion", config.motion[0]]
        command += ["--policy", str(run_dir), "--video", str(run_dir / "video.mp4")]
        subprocess.run(command, check=False)
