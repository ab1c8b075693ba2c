"""What trainers of trackers share beside `learning.run`: protocols, when to stop, export."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bm_envs.errors import BMError, BMWarning, ConfigError
from bm_envs.evaluation import ROBUST
from bm_envs.learning.evaluation import Evaluation
from bm_envs.learning.folder import Run, claim_run
from bm_envs.learning.networks import TrackingPolicy, begin_with
from bm_envs.learning.processes import Processes
from bm_envs.learning.run import Progress, RunConfig, settings_of
from bm_envs.learning.video import record_video
from bm_envs.motion.clip import Clip
from bm_envs.policy import TRACKER, PolicySpec, load_policy, write_onnx, write_policy_json
from bm_envs.tasks.track.config import TrackConfig

WANDB_PROJECT = "bm-envs"
# What stands behind the progress bar.
BAR = {
    "length": "control steps of an episode, mean",
    "R-MPKPE": "distance of the links from the reference, torsos laid on each other, mean in "
    "training",
    "clip": "share of the motions that the last evaluation survived",
}


@dataclass(frozen=True)
class TrackerRunConfig(RunConfig):
    """Where a tracker's run is kept, on what it runs, how it is looked at and when it ends."""

    robot: Literal["g1", "g1_23"] = "g1"
    """The Unitree G1 with 29 joints, or the one with 23, which leaves the others out of motions."""
    backend: str = "mujoco"
    """Physics backend of training."""
    device: str | None = None
    """Device of a backend that has a choice, "cpu" or "cuda:0"; None: a GPU where there is one."""
    track: bool = False
    """Log to Weights & Biases as well (needs the package wandb)."""
    capture_video: bool = False
    """Write video.mp4 of the final policy (needs the extra `viz`)."""
    no_motion: bool = False
    """Leave the reference motion out of policy.onnx (for motions that may not be passed on)."""
    stop_when_passed: bool = False
    """End training at the first evaluation in which every clip is completed."""
    robust_every: int = 0
    """Every so many evaluations one has the `robust` protocol as well, 100 episodes a clip
    (`eval/robust`; its time is not counted); 0: none has."""
    stop_when_robust: bool = False
    """End training at the first evaluation that completes 95 % of the `robust` episodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stop_when_robust and not self.robust_every:
            raise ConfigError("stop_when_robust needs robust_every, which is 0.")


class TrackerRun(Progress):
    """The run of a tracker; made by `tracker_run`.

    Attributes:
        clips: the motions.
        name: what they are called together.
        first_pass: steps and seconds at the first evaluation in which every clip was completed.
        began_with: the policy that the run began with, without folders; None: with a new network.
    """

    config: TrackerRunConfig

    def __init__(
        self, folder: Run, config: TrackerRunConfig, settings: str, clips: list[Clip], name: str,
        *, batch_size: int, total_timesteps: int, processes: Processes,
    ) -> None:  # fmt: skip
        super().__init__(
            folder, config, settings, batch_size=batch_size, total_timesteps=total_timesteps,
            processes=processes, key="task",
        )  # fmt: skip
        if total_timesteps < self.step:
            raise ConfigError(
                f"total_timesteps is {total_timesteps:,}, but {folder.checkpoint} has "
                f"{self.step:,} behind it."
            )
        self.clips, self.name = clips, name
        run = shlex.quote(str(folder.path))
        folder.further_advice = (
            f"bm-envs export {run} {shlex.quote(str(folder.path / TRACKER.file))} writes its "
            "policy so far"
        )
        self.first_pass: dict[str, float] = self.saved["first_pass"] if self.saved else {}
        self.began_with: str | None = None

    def begin_training(self, record: dict[str, Any], description: str) -> None:
        """See `Progress.begin`; `description` is on what it runs."""
        seconds = sum(clip.duration_s for clip in self.clips)
        self._motion = shlex.quote(record["motion"][0])
        self.begin(
            record,
            f"motion {self.name} ({seconds:.1f} s), backend {self.config.backend}, {description}",
            BAR,
            WANDB_PROJECT if self.config.track else None,
        )

    def start_from(self, name: str | None, task: TrackConfig, *policies: TrackingPolicy) -> None:
        """Give the policies of a new run the network of the policy `name`; None: as they are."""
        self.began_with = None if name is None else Path(name).name
        if name is not None and self.saved is None:
            begin_with(policies, name, spec_of(task))

    def evaluation_of(self, task: TrackConfig) -> Evaluation:
        """Robots under the protocols, which see and are driven as in the training's task."""
        return Evaluation(
            self.clips, task, self.config.threads, robust=bool(self.config.robust_every)
        )

    def evaluate(self, policy: TrackingPolicy, evaluation: Evaluation) -> dict[str, float]:
        """If one is due after the iteration just counted, an evaluation; its figures to be logged.

        Time of the protocol `robust` does not count.
        """
        if not self.evaluation_due():
            return {}
        figures = evaluation.clip(policy) if self.first else {}
        self.evaluation = self.processes.broadcast(figures)
        every, last = self.config.robust_every, self.iteration == self.num_iterations
        if every and (last or self.step // self.config.eval_every % every == 0):
            with self.clock.stopped():
                share = evaluation.robust(policy) if self.first else 0.0
                self.evaluation["robust"] = self.processes.broadcast(share)
        return {f"eval/{key}": value for key, value in self.evaluation.items()}

    def log_training(self, row: dict[str, float]) -> None:
        """An iteration's figures; afterwards it is known whether the run ends here."""
        self.log(row, {
            "length": f"{row.get('charts/episodic_length', float('nan')):.0f}",
            "R-MPKPE": f"{row['track/r_mpkpe_m'] * 1000:.0f} mm",
            "clip": f"{self.evaluation['survival']:.0%}" if self.evaluation else "-",
        })  # fmt: skip
        if self.evaluation.get("success") == 1.0 and not self.first_pass:
            self.first_pass = {"env_steps": self.step, "wall_s": self.train_s}
        self._stop = (self.config.stop_when_passed and bool(self.first_pass)) or (
            self.config.stop_when_robust and self.evaluation.get("robust", 0.0) >= ROBUST
        )

    def save(self, state: Mapping[str, Any]) -> None:
        """See `Progress.save`."""
        super().save({"first_pass": self.first_pass, **state})

    def export(
        self, policy: TrackingPolicy, task: TrackConfig, *, algorithm: str, num_envs: int
    ) -> None:
        """Write policy.onnx, policy.json, and the video where asked for; say how it went.

        Args:
            policy: what leaves the run.
            task: of training.
            algorithm: the script's name.
            num_envs: robots of a process.
        """
        clips = self.clips
        path, spec = self.folder.path, spec_of(task, self.folder.path.name)
        clip = clips[0] if len(clips) == 1 else None  # the graph has room for one motion
        embed = clip is not None and not self.config.no_motion
        write_onnx(path / "policy.onnx", policy.as_mlp(), spec, clip, embed_motion=embed)
        write_policy_json(
            path / "policy.json", spec, onnx_file=path / "policy.onnx", motions=clips,
            embedded=embed, training={
                **self.training_record(algorithm, num_envs),
                "start_from": self.began_with, "first_pass": self.first_pass,
                "clip_protocol": self.evaluation,
            },
        )  # fmt: skip
        if self.config.capture_video:
            try:
                record_video(path / "video.mp4", load_policy(path), clips[0])
            except BMError as error:
                warnings.warn(f"there is no video of the policy: {error}", BMWarning, stacklevel=2)
        if self.first_pass:
            print(
                f"completed by the clip protocol after {self.first_pass['env_steps']:,} steps, "
                f"{self.first_pass['wall_s'] / 60:.1f} min"
            )
        # A robot that fell in its first step has no frame with an error.
        figures = self.evaluation
        error = f"{figures['mpkpe_mm']:.0f} mm" if figures["survival"] > 0 else "-"
        print(
            f"clip protocol: survived {figures['survival']:.1%}, MPKPE {error}; results in {path}"
        )
        motion, without = ("", "") if embed else (f" --motion {self._motion}", " --no-motion")
        self.print_next({
            "watch": f"tools/replay.py --policy RUN_DIR{motion}",
            "measure": "benchmarks/track.py --policy RUN_DIR --json RUN_DIR/track.json",
            "export": f"tools/export_onnx.py RUN_DIR --check{without}",
        })  # fmt: skip


def tracker_settings(config: Any, clips: list[Clip], processes: Processes, **further: Any) -> str:
    """`settings_of` a script's `config`, with the motions' content and the number of processes."""
    return settings_of(
        config, clips=[clip.sha256() for clip in clips], processes=processes.count, **further
    )


@contextmanager
def tracker_run(
    config: TrackerRunConfig, algorithm: str, clips: list[Clip], settings: str, keys: Sequence[str],
    *, batch_size: int, total_timesteps: int, processes: Processes,
) -> Iterator[TrackerRun]:  # fmt: skip
    """Hold the folder of a tracker's run, which is new or goes on from its checkpoint.

    Args:
        config: of the run.
        algorithm: the script's name.
        clips: the motions.
        settings: what a checkpoint must have in common with this run, see `settings_of`.
        keys: what a checkpoint of the script has.
        batch_size: control steps of an iteration, over all robots and processes.
        total_timesteps: control steps of the run.
        processes: of the run.

    Raises:
        ConfigError: there is less than one iteration, or less than the checkpoint has; or see
            `claim_run`.
    """
    if processes.count > 1 and config.backend != "mujoco":
        raise ConfigError(f"backend is '{config.backend}', expected mujoco for several processes.")
    if total_timesteps < batch_size:
        raise ConfigError(
            f"total_timesteps {total_timesteps} is less than one iteration of {processes.count} "
            f"processes, {batch_size}."
        )
    name = "+".join(clip.name for clip in clips[:3]) + ("+..." if len(clips) > 3 else "")
    robot = clips[0].robot.name
    folder_name = name if robot == "g1" else f"{name}_{robot}"
    with claim_run(
        config, f"{folder_name}__{algorithm}__{config.seed}", settings, "task", keys,
        "settings or motions", processes,
    ) as folder:  # fmt: skip
        yield TrackerRun(
            folder, config, settings, clips, name, batch_size=batch_size,
            total_timesteps=total_timesteps, processes=processes,
        )  # fmt: skip


def spec_of(task: TrackConfig, run_path: str = "none") -> PolicySpec:
    """What a policy of a task sees and drives."""
    drive = task.actuation
    return PolicySpec.for_g1(
        task.observations, robot=task.model.table, default_joint_pos=drive.default_joint_pos,
        action_scale=drive.action_scale, stiffness=drive.stiffness, damping=drive.damping,
        run_path=run_path,
    )  # fmt: skip
