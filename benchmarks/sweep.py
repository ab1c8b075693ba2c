r"""Many trainings on a Ray cluster: motions x seeds x settings, one run directory each.

    python benchmarks/sweep.py --motion walk 'walk1[5:15]' --seeds 1 2 3 --json sweep.json
    python benchmarks/sweep.py --motion dance1 --flags='--overlap' --flags='--gamma 0.98 --overlap'
    python benchmarks/sweep.py --address ray://head:10001 --run-dir /shared/runs --motion run1

A campaign over a suite, whose policies are kept and measured as soon as they exist:

    python benchmarks/sweep.py --algorithm wm_track --suite lafan1-table1 --order longest \
      --steps-per-s 10000 --flags='--no-motion --stop-when-robust --robust-every 4' \
      --run-dir ../campaign --page ../campaign/page.md --policies policies --measured ../campaign

Without `--address` the workers are processes of this machine. A run that is finished is not run
again, and one that was cut short goes on from its checkpoint: also within a sweep, when a worker
dies and Ray gives its run to another, and after the sweep itself was killed, whose workers end
within seconds. On a cluster `--run-dir`, `--policies` and `--measured` have to be folders that all
nodes share, at the same paths, and every node needs this source tree, the motions and their
`BM_DATA_DIR`.

With `--steps-per-s` the length of a run follows from its motions. A run that ended short of a
larger length, and is not robust, goes on to it: to give more to a campaign, start it again with a
larger number.

A row of the result holds `motion`, `seed`, `flags`, `run` (folder under `--run-dir`), and of the
finished run `env_steps`, `wall_s`, `first_pass`, `clip` (figures by the `clip` protocol), `commit`
and `machine`; of one that failed, in their place, `error`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError
from bm_envs.learning.folder import FolderHeld, claim_folder
from bm_envs.learning.standing import Line, Standing, State, Watched, rank, sentence, write_page
from bm_envs.motion import repair, suites
from bm_envs.motion.library import LAFAN1, load_motions
from bm_envs.policy import training_figures
from bm_envs.policy.shipping import ship
from bm_envs.results import write_result

ROOT = Path(__file__).resolve().parent.parent
TRACK = ROOT / "benchmarks" / "track.py"
PATIENCE_S = 60.0  # how long a run waits for another process that still works in its folder
LOOK_S = 30.0  # between two looks at the runs
LEAST_STEPS = 400_000  # of a run whose length follows from its motions
REACHED = 0.99  # share of its steps from which on a run is at its end; it does whole iterations
MEASURED_SEED = 20  # of measurements; no training uses it
PR_SET_PDEATHSIG = 1  # Linux, `man 2 prctl`


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    algorithm: Literal["ppo_track", "wm_track"] = "ppo_track"
    """The script of `algos/` that trains."""
    motion: tuple[str, ...] = ("walk",)
    """Motions to train on; each gives a policy."""
    suite: suites.Suite | None = None
    """All motions of a suite in their place."""
    together: Annotated[bool, FlagCreatePairsOff] = False
    """One policy for all motions, in place of one for each."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of each training."""
    flags: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="'FLAGS'")] = ()
    """Settings of each: further flags of the script as one quoted string; give it once a setting.
    None: its defaults."""
    order: Literal["given", "longest"] = "given"
    """Which run begins first: the first that is named, or the one with the longest motion."""
    steps_per_s: int = 0
    """Control steps of a run for each second of its motions, 400,000 at the least; 0: as the
    script's own flags say."""
    run_dir: Path = Path("runs/sweep")
    """Where the runs are kept."""
    json: Path | None = None
    """Result file, written anew whenever a run ends."""
    page: Path | None = None
    """Page of Markdown with a line a run, written anew as the runs go on."""
    policies: Path | None = None
    """Folder for the policies of runs that have ended, as `lafan1_<clip>`; one that is there gives
    way to a better one. Motions must be of LAFAN1, with one seed and one setting."""
    measured: Path | None = None
    """Folder for measurements: each policy by both protocols of `benchmarks/track.py`, a file a
    run."""
    address: str | None = None
    """Ray cluster to join; None: workers on this machine."""
    workers: int = 0
    """Runs side by side on this machine; 0: as many as it has cores for."""
    cpus: int = 1
    """Cores for each run."""
    retries: int = 3
    """How often a run goes on elsewhere after its worker has died."""

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.workers < 0 or self.retries < 0 or self.steps_per_s < 0:
            raise ConfigError("cpus must be 1 or more; workers, retries and steps_per_s 0 or more.")
        if self.policies is not None and (len(self.seeds) > 1 or len(self.flags) > 1):
            raise ConfigError("--policies keeps one policy a motion: give one seed, one --flags.")


@dataclass(frozen=True)
class Job:
    """One training."""

    motion: str
    """What its rows call its motions."""
    motions: tuple[str, ...]
    seed: int
    flags: str
    folder: Path
    seconds: float
    """Length of its motions."""
    steps: int | None
    """Control steps to train for, where they follow from the motions."""
    policy: str | None
    """Name of the policy that is kept, if it is."""

    def arguments(self, cpus: int) -> list[str]:
        """Flags of the script."""
        length = [] if self.steps is None else ["--total-timesteps", str(self.steps)]
        return [
            "--motion", *self.motions, "--seed", str(self.seed), "--run-dir", str(self.folder),
            "--threads", str(cpus), "--resume", *length, *self.flags.split(),
        ]  # fmt: skip

    def at_its_end(self, at: Standing) -> bool:
        """Whether nothing is left to do: its policy exists, and no further steps are asked for."""
        return at.ended and (at.done or self.steps is None or at.steps >= REACHED * self.steps)


def policy_name(motion: str) -> str:
    """What the policy of a suite or a clip is called: `lafan1_40`, `lafan1_dance1_subject2`.

    A clip is given by its full name. A cut's policy has the short name of its clip, `lafan1_walk1`
    for `walk1_subject1[5:15]`. That of a repaired motion ends with `_repaired`.
    """
    clip = repair.original_name(motion).removeprefix("lafan1-").replace("-", "_")
    if "[" in motion:
        clip = clip.partition("_subject")[0]
    return f"lafan1_{clip}" + "_repaired" * repair.is_repaired(motion)


def jobs_of(config: Config) -> list[Job]:
    """The trainings of a sweep, in their order.

    Raises:
        ConfigError: two are the same, or a policy to keep holds a motion, is of another one than
            LAFAN1's, or has no name.
        MotionError: a motion is unknown or unreadable.
    """
    if config.policies is not None and not all("--no-motion" in f for f in config.flags or ("",)):
        raise ConfigError("--policies keeps no motion: give --flags with --no-motion in them.")
    names = suites.chosen(config.motion, config.suite, Config.motion)
    together = config.suite or "+".join(names)
    groups = [(together, names)] if config.together else [(name, (name,)) for name in names]
    jobs = []
    for motion, motions in groups:
        clips = load_motions(motions)
        policy = None
        if config.policies is not None:
            other = [clip.name for clip in clips if clip.source != LAFAN1.source]
            if other:
                raise ConfigError(f"--policies is for motions of LAFAN1, '{other[0]}' is none.")
            if len(clips) > 1 and config.suite is None:
                raise ConfigError("--policies with --together needs --suite, by which it is named.")
            policy = policy_name(clips[0].name if len(clips) == 1 else motion)
        seconds = sum(clip.duration_s for clip in clips)
        steps = max(LEAST_STEPS, round(config.steps_per_s * seconds))
        jobs += [
            Job(
                motion, motions, seed, flags,
                config.run_dir.resolve() / run_name(motion, seed, flags), seconds,
                steps if config.steps_per_s else None, policy,
            )
            for seed in config.seeds
            for flags in config.flags or ("",)
        ]  # fmt: skip
    policies = [job.policy for job in jobs if job.policy is not None]
    for named in ([job.folder for job in jobs], policies):
        if len(set(named)) < len(named):
            raise ConfigError(
                "Two runs of the sweep are the same; name each motion, seed and flags once."
            )
    return sorted(jobs, key=lambda job: -job.seconds) if config.order == "longest" else jobs


def _dies_with_its_parent() -> Callable[[], None] | None:
    """What a child process calls before its program, so that it is killed when its parent ends.

    Only Linux has this. Elsewhere the training of a worker that was killed goes on to its end, and
    keeps its folder for as long.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: little is safe between fork and exec
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_until_free(folder: Path) -> None:
    """Wait for the trainer of a sweep that was killed, which ends within seconds.

    Raises:
        FolderHeld: another process still works in the folder after `PATIENCE_S`.
    """
    began = time.monotonic()
    while True:
        try:
            with claim_folder(folder, "--run-dir", ()):
                return
        except FolderHeld:
            if time.monotonic() - began > PATIENCE_S:
                raise
            time.sleep(1.0)


def run(command: list[str]) -> None:
    """Run a script in a process that ends with this worker, so that nobody does its work twice.

    Raises:
        BMError: the script refused its flags or its input, or it failed.
    """
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, errors="replace",
        preexec_fn=_dies_with_its_parent(),
    )  # fmt: skip
    if done.returncode < 0:
        # A signal ended the script. This worker ends by the same one, which Ray sees: it gives the
        # work to another worker.
        os.kill(os.getpid(), -done.returncode)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise BMError(lines[-1].removeprefix("error: "))


def train(folder: Path, command: list[str]) -> None:
    """One training; see `run`."""
    wait_until_free(folder)
    run(command)


def run_name(motion: str, seed: int, flags: str) -> str:
    """Folder of a run; characters of flags that a file name should not hold are `_` in it."""
    kept = "".join(c if c.isalnum() or c in ".-_" else "_" for c in f"{motion} {flags}".strip())
    return f"{kept}__{seed}"


class Sweep:
    """The runs of a sweep: how far each is, and what becomes of it at its end."""

    def __init__(self, config: Config, jobs: list[Job]) -> None:
        self.config, self.jobs = config, jobs
        self.watched = [Watched(job.folder) for job in jobs]
        self.began = [watched.standing() for watched in self.watched]
        self.states: list[State] = ["waiting"] * len(jobs)
        self.errors: dict[int, str] = {}
        self._told = [""] * len(jobs)

    def look(self) -> None:
        """Tell what has changed, and write the page."""
        lines = []
        for i, job in enumerate(self.jobs):
            at = self.watched[i].standing()
            if self.states[i] == "waiting" and at != self.began[i]:
                self.states[i] = "training"
            line = Line(job.folder.name, job.seconds, self.states[i], at, self.errors.get(i, ""))
            lines.append(line)
            # Of a run that trains, evaluations are told and not every step.
            news = f"{at.survived} {at.robust}" if line.state == "training" else sentence(line)
            if news != self._told[i] and line.state != "waiting":
                self._told[i] = news
                print(f"{line.name}: {sentence(line)}", flush=True)
        if self.config.page is not None:
            of = self.config.suite or ", ".join(self.config.motion)
            write_page(self.config.page, f"{self.config.algorithm} on {of}", lines)

    def end(self, index: int, error: str | None = None) -> None:
        """A run is at its end: all rows are written anew."""
        self.states[index] = "failed" if error else "ended"
        if error:
            self.errors[index] = error
        if self.config.json is not None:
            rows = []
            for i, job in enumerate(self.jobs):
                if self.states[i] in ("ended", "failed"):
                    wrong = {"error": self.errors[i]} if i in self.errors else None
                    rows.append({
                        "motion": job.motion, "seed": job.seed, "flags": job.flags.split(),
                        "run": job.folder.name, **(wrong or training_figures(job.folder)),
                    })  # fmt: skip
            write_result(self.config.json, cli.json_result("sweep", seed=None, rows=rows))

    def measurement(self, index: int) -> list[str] | None:
        """The command that measures the policy of a run at its end; None: there is nothing to do.

        Before, the policy is kept, where policies are.
        """
        job, kept, measured = self.jobs[index], self.config.policies, self.config.measured
        policy = job.folder / "policy.onnx"
        if kept is not None and job.policy is not None:
            policy = kept / f"{job.policy}.onnx"
            if not policy.exists() or rank(kept / f"{job.policy}.json") < rank(
                job.folder / "policy.json"
            ):
                ship(job.folder, job.policy, kept)
        if measured is None:
            return None
        file = measured / f"{job.policy or job.folder.name}.json"
        if file.exists() and file.stat().st_mtime_ns >= policy.stat().st_mtime_ns:
            return None
        return [
            str(TRACK), "--policy", str(policy), "--motion", *job.motions, "--seed",
            str(MEASURED_SEED), "--threads", str(self.config.cpus), "--json", str(file),
        ]  # fmt: skip


def main(config: Config) -> int:
    """Start the runs that are not finished and collect all figures; returns 1 if a run failed."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ConfigError("This needs Ray: pip install 'bm-envs[ray]'.") from None
    sweep = Sweep(config, jobs_of(config))
    waiting: dict[Any, int] = {}
    remote: dict[Callable[..., None], Any] = {}

    def start(index: int, work: Callable[..., None], *arguments: Any) -> None:
        """Give work to Ray, which begins at the first call."""
        if not remote:
            cores = (config.workers or cli.available_cores() // config.cpus) * config.cpus
            local = {} if config.address else {"num_cpus": max(cores, config.cpus)}
            ray.init(address=config.address, include_dashboard=False, log_to_driver=False, **local)
            as_task = ray.remote(
                num_cpus=config.cpus, max_retries=config.retries, max_calls=1,
                retry_exceptions=False,
            )  # fmt: skip
            remote.update({kind: as_task(kind) for kind in (train, run)})
        waiting[remote[work].remote(*arguments)] = index

    def trained(index: int) -> None:
        """What follows a training. A policy that cannot be kept stops no other run."""
        try:
            command = sweep.measurement(index)
        except BMError as error:
            sweep.end(index, str(error))
            return
        if command is None:
            sweep.end(index)
        else:
            sweep.states[index] = "measured next"
            start(index, run, command)

    script = str(ROOT / "algos" / f"{config.algorithm}.py")
    for index, job in enumerate(sweep.jobs):
        if job.at_its_end(sweep.began[index]):
            trained(index)
        else:
            start(index, train, job.folder, [script, *job.arguments(config.cpus)])
    sweep.look()
    while waiting:
        finished, _ = ray.wait(list(waiting), timeout=LOOK_S)
        for done in finished:
            index = waiting.pop(done)
            try:
                ray.get(done)
                if sweep.states[index] == "measured next":
                    sweep.end(index)
                else:
                    trained(index)
            except (ray.exceptions.RayError, BMError) as error:
                sweep.end(index, str(error).strip().splitlines()[-1])
        sweep.look()
    if remote:
        ray.shutdown()
    if config.json is not None:
        print(f"results in {config.json}")
    return int(bool(sweep.errors))


if __name__ == "__main__":
    cli.run(main, Config)
