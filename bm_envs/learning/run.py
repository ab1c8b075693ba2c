"""A run's bookkeeping: settings, record, clock, when to evaluate, to save and to stop.

A script's `Config` holds a `RunConfig`, whose flags stand beside the script's own. The script's
loop asks a `Progress` what is due and tells it what came of it; nothing here calls the script.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from tyro.conf import arg

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning.folder import Run, save_checkpoint
from bm_envs.learning.log import Logger
from bm_envs.learning.processes import Processes
from bm_envs.learning.settings import DEFAULTS
from bm_envs.policy import read_run_config


@dataclass(frozen=True)
class RunConfig:
    """Where a run is kept and how it is looked at."""

    run_dir: Path | None = None
    """Where the run is kept; default runs/<what it learns>__<script>__<seed>, with __2 and so on
    behind it where that is a run with other settings."""
    resume: bool = False
    """Go on from the run directory's checkpoint, with the numbers the run would have had."""
    seed: int = 1
    """Seed of everything random."""
    threads: int = 0
    """CPU threads of physics and learner; 0: all cores this process may use."""
    eval_every: int = 200_000
    """Control steps (gradient steps where there are no robots) between evaluations; 0: only at the
    end."""
    checkpoint_s: float = 30.0
    """Seconds between checkpoints (the first follows the first iteration)."""

    def __post_init__(self) -> None:
        for name in ("seed", "threads", "eval_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more.")


SettingsT = TypeVar("SettingsT")
Flags = Annotated[SettingsT, arg(name="")]  # of a field: its flags stand beside the script's own

# Settings by which a run may differ from its checkpoint's.
FREE = (
    "run_dir", "resume", "total_timesteps", "checkpoint_s", "track", "capture_video", "no_motion",
    "stop_when_passed", "threads", "robust_every", "stop_when_robust",
)  # fmt: skip


def values_of(config: Any) -> dict[str, Any]:
    """A script's settings as JSON has them, those of a field of type `Flags` beside its own."""
    return _beside(config, _as_json(dataclasses.asdict(config)))


def defaults_of(config: Any) -> dict[str, Any]:
    """The defaults of `values_of`, without those that are given always."""
    return _beside(config, _as_json(_defaults(config)))


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values, default=str))


def _beside(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Values of a `config` with those of its fields of type `Flags` beside the others."""
    for field in dataclasses.fields(config):
        kind = field.type  # text, in a file with `from __future__ import annotations`
        if isinstance(kind, str):
            flags = re.match(r"(\w+\.)*Flags\[", kind) is not None
        else:
            flags = getattr(kind, "__metadata__", None) == get_args(Flags)[1:]
        if flags:
            values |= values.pop(field.name)
    return values


def _defaults(config: Any) -> dict[str, Any]:
    """Defaults of a dataclass's fields; of one that is a dataclass itself, those of its fields."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found[field.name] = _defaults(value)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def length_of(record: Mapping[str, Any]) -> Any:
    """Steps of a run by its record: control steps, or gradient steps where there are no robots."""
    return record.get("total_timesteps", record.get("total_steps"))


def settings_of(config: Any, *free: str, **further: Any) -> str:
    """What must be equal for a checkpoint to go on as if nothing had happened.

    The entry `DEFAULTS` holds the settings' defaults. They stand for what the checkpoint of an
    earlier version does not have, and need not be equal themselves.

    Args:
        config: of the script.
        free: names of settings that may differ, beside `FREE`.
        further: what else must be equal.
    """
    compared, defaults = (
        {name: value for name, value in values.items() if name not in FREE + free}
        for values in (values_of(config), defaults_of(config))
    )
    return json.dumps(compared | further | {DEFAULTS: defaults})


def config_record(config: Any, algorithm: str, **further: Any) -> dict[str, Any]:
    """What `config.json` holds."""
    values = values_of(config)
    for name in ("run_dir", "resume"):
        values.pop(name)
    return {
        "exp_name": algorithm, **values, **further,
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
        before, now = length_of(kept), length_of(record)
        if before == now or not isinstance(before, int):
            return begun
        record = kept | {"total_timesteps": now}
        begun += f" (of {before:,} before)"
    cli.write_json(path, record)
    return begun


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


class Progress:
    """How far a run is, and what is kept of it.

    Attributes:
        saved: the checkpoint that it goes on from, or None.
        iteration: iterations that are done; the script's loop counts them.
        evaluation: figures of the last evaluation.
    """

    def __init__(
        self, folder: Run, config: RunConfig, settings: str, *, batch_size: int | None,
        total_timesteps: int, processes: Processes | None = None, key: str = "settings",
    ) -> None:  # fmt: skip
        """Begin, or go on from the checkpoint of `folder`.

        Args:
            folder: of the run.
            config: of the run.
            settings: what a checkpoint must have in common with this run.
            batch_size: control steps of an iteration, over all robots and processes; None where
                there are no robots, and a step is an iteration.
            total_timesteps: steps of the run.
            processes: of the run.
            key: the checkpoint's name for its settings.
        """
        self.folder, self.config, self.batch_size = folder, config, batch_size or 1
        self._with_robots = batch_size is not None
        self.processes = processes or Processes()
        self.first = self.processes.rank == 0  # it alone evaluates and writes
        self.num_iterations = total_timesteps // self.batch_size
        self._settings = {key: settings}
        self.iteration, self.train_s = 0, 0.0
        self.evaluation: dict[str, float] = {}
        self.commits: list[str] = []
        self.saved = saved = folder.saved
        if saved is not None:
            self.iteration, self.train_s = saved["iteration"], saved["train_s"]
            self.evaluation, self.commits = saved["evaluation"], saved["commits"]
        # These are all states of the source that had a part in the weights.
        if (commit := cli.commit()) is not None and commit not in self.commits:
            self.commits.append(commit)
        self._stop = self._asked = False
        self._last_save = -np.inf
        self._log: Logger | None = None

    @property
    def step(self) -> int:
        """Steps that are done: control steps of all robots, where there are robots."""
        return self.iteration * self.batch_size

    def begin(
        self, record: dict[str, Any], description: str, bar: Mapping[str, str],
        wandb_project: str | None = None,
    ) -> None:  # fmt: skip
        """Write the record, open the log, start the clock; from now on an ending signal is heard.

        Args:
            record: the run's `config_record`.
            description: what runs, for the line that is printed.
            bar: what the figures behind the progress bar are, see `log`.
            wandb_project: where to log as well.
        """
        if self.first:
            total = self.num_iterations * self.batch_size
            self._log = Logger(self.folder.path, record, self.step, total, wandb_project)
            begun = write_record(self.folder.path, record, self.step)
            print(f"{description}, {length_of(record):,} steps, {begun} -> {self.folder.path}")
            figures = "; ".join(f"{name}, {meaning}" for name, meaning in bar.items())
            print(f"the bar counts steps and shows: {figures}")
        self.clock = Clock(self.train_s)
        self.folder.listen()

    @property
    def goes_on(self) -> bool:
        """Whether there is another iteration."""
        return self.iteration < self.num_iterations and not self._stop

    @property
    def share(self) -> float:
        """Of the run's iterations, how many are done, 0 to 1."""
        return self.iteration / self.num_iterations

    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the iteration just counted."""
        every = self.config.eval_every
        due = bool(every) and self.step // every > (self.step - self.batch_size) // every
        return due or self.iteration == self.num_iterations

    def log(self, row: dict[str, float], shown: Mapping[str, str]) -> None:
        """An iteration's figures; those `shown` stand behind the progress bar."""
        self.train_s = self.clock.wall_s
        if self._log is not None:
            iteration = self.iteration if self._with_robots else None
            self._log.write(self.step, iteration, self.train_s, row, shown)

    def save_due(self) -> bool:
        """Whether a checkpoint is to be written after this iteration, the same in all processes."""
        asked = self.folder.asked is not None
        waited = time.perf_counter() - self._last_save > self.config.checkpoint_s
        due = waited or self._stop or asked or self.iteration in (1, self.num_iterations)
        due, self._asked = self.processes.broadcast((due, asked))
        self._stop |= self._asked
        if due:
            self._last_save = time.perf_counter()
        return due

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint: `state` of the algorithm, with the run's own."""
        if self.first:
            save_checkpoint(self.folder.checkpoint, {
                **self._settings, "iteration": self.iteration, "train_s": self.train_s,
                "env_steps" if self._with_robots else "step": self.step, "commits": self.commits,
                "evaluation": self.evaluation, **state,
            })  # fmt: skip

    def end(self) -> bool:
        """Behind the loop: close the log; whether this process is the one that exports.

        Raises:
            Interrupted: a signal asked for the end.
        """
        self.processes.close()
        if self._log is not None:
            self._log.close()
        if self._asked:
            self.folder.leave(f"{self.step:,} of {self.num_iterations * self.batch_size:,} steps")
        self.folder.stop_listening()
        return self.first

    def print_next(self, steps: Mapping[str, str]) -> None:
        """The last lines of a run that has ended: what to do with it, and how to go on with it.

        Args:
            steps: what for, and a script's file with its flags; RUN_DIR is the run directory there.
        """
        run = shlex.quote(str(self.folder.path))
        commands = {what: f"python {text.replace('RUN_DIR', run)}" for what, text in steps.items()}
        if self._with_robots:  # the learning rate of others falls to 0 by their last step
            longer = f"--resume --run-dir {run} --total-timesteps {2 * self.step}"
            commands["go on"] = f"the same command with {longer}"
        cli.print_next(commands)

    def training_record(self, algorithm: str, num_envs: int) -> dict[str, Any]:
        """What `policy.json` says of the training."""
        return {
            "algorithm": algorithm, "env_steps": self.step, "wall_s": round(self.train_s, 1),
            "seed": self.config.seed, "num_envs": num_envs,
            "threads": (self.config.threads or cli.available_cores()) * self.processes.count,
            "commit": ", ".join(self.commits) or None, "machine": cli.machine(),
        }  # fmt: skip
