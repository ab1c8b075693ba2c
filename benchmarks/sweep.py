r"""Many trainings on a Ray cluster: motions x seeds x settings, one run directory each.

    python benchmarks/sweep.py --motion walk 'walk1[5:15]' --seeds 1 2 3 --json sweep.json
    python benchmarks/sweep.py --motion dance1 --flags='--overlap' --flags='--gamma 0.98 --overlap'
    python benchmarks/sweep.py --address ray://head:10001 --run-dir /shared/runs --motion run1

Without `--address` the workers are processes of this machine. A run that is finished is not run
again, and one that was cut short goes on from its checkpoint: also within a sweep, when a worker
dies and Ray gives its run to another, and after the sweep itself was killed, whose workers end
within seconds. On a cluster `--run-dir` has to be a folder that all nodes
share, at the same path, and every node needs this source tree, the motions and their `BM_DATA_DIR`.

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
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError
from bm_envs.learning.folder import FolderHeld, claim_folder
from bm_envs.policy import training_figures

SCRIPT = Path(__file__).resolve().parent.parent / "algos" / "ppo_track.py"
PATIENCE_S = 60.0  # how long a run waits for another process that still works in its folder
PR_SET_PDEATHSIG = 1  # Linux, `man 2 prctl`


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    motion: tuple[str, ...] = ("walk",)
    """Motions to train on; each gives a policy."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of each training."""
    flags: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="'FLAGS'")] = ()
    """Settings of each: further flags of the script as one quoted string; give it once a setting.
    None: its defaults."""
    run_dir: Path = Path("runs/sweep")
    """Where the runs are kept."""
    json: Path | None = None
    """Result file, written anew whenever a run ends."""
    address: str | None = None
    """Ray cluster to join; None: workers on this machine."""
    workers: int = 0
    """Runs side by side on this machine; 0: as many as it has cores for."""
    cpus: int = 1
    """Cores for each run."""
    retries: int = 3
    """How often a run goes on elsewhere after its worker has died."""

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.workers < 0 or self.retries < 0:
            raise ConfigError("cpus must be 1 or more, workers and retries 0 or more.")


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


def train(folder: Path, arguments: list[str]) -> None:
    """One run in a process that ends with this worker, so that nobody resumes the run twice.

    Raises:
        BMError: the script refused its flags or its input, or it failed.
    """
    wait_until_free(folder)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, errors="replace",
        preexec_fn=_dies_with_its_parent(),
    )  # fmt: skip
    if done.returncode < 0:
        # A signal ended the trainer. This worker ends by the same one, which Ray sees: it gives the
        # run to another worker.
        os.kill(os.getpid(), -done.returncode)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise BMError(lines[-1].removeprefix("error: "))


def run_name(motion: str, seed: int, flags: str) -> str:
    """Folder of a run; characters of flags that a file name should not hold are `_` in it."""
    kept = "".join(c if c.isalnum() or c in ".-_" else "_" for c in f"{motion} {flags}".strip())
    return f"{kept}__{seed}"


def main(config: Config) -> int:
    """Start the runs that are not finished and collect all figures; returns 1 if a run failed."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ConfigError("This needs Ray: pip install 'bm-envs[ray]'.") from None
    settings = config.flags or ("",)
    grid = [(m, s, f) for m in config.motion for s in config.seeds for f in settings]
    folders = [config.run_dir.resolve() / run_name(*item) for item in grid]
    if len(set(folders)) < len(folders):
        raise ConfigError(
            "Two runs of the sweep are the same; name each motion, seed and flags once."
        )
    rows: dict[int, dict[str, Any]] = {}

    def report(index: int, figures: dict[str, Any]) -> None:
        motion, seed, flags = grid[index]
        rows[index] = {
            "motion": motion, "seed": seed, "flags": flags.split(), "run": folders[index].name,
            **figures,
        }  # fmt: skip
        said = figures.get("error") or (
            f"{figures['env_steps'] / 1e6:.1f} M steps, {figures['wall_s'] / 60:.1f} min, survived "
            f"{figures['clip']['survival']:.0%}"
        )
        print(f"{folders[index].name}: {said} ({len(rows)} of {len(grid)})", flush=True)
        if config.json is not None:
            finished = [rows[i] for i in sorted(rows)]
            cli.write_json(config.json, cli.json_result("sweep", seed=None, rows=finished))

    missing = []
    for index, folder in enumerate(folders):
        if (folder / "policy.json").exists():  # the last file a run writes
            report(index, training_figures(folder))
        else:
            missing.append(index)
    if missing:
        cores = (config.workers or cli.available_cores() // config.cpus) * config.cpus
        local = {} if config.address else {"num_cpus": max(cores, config.cpus)}
        ray.init(address=config.address, include_dashboard=False, log_to_driver=False, **local)
        remote = ray.remote(
            num_cpus=config.cpus, max_retries=config.retries, max_calls=1, retry_exceptions=False
        )(train)
        waiting = {}
        for index in missing:
            motion, seed, flags = grid[index]
            arguments = ["--motion", motion, "--seed", str(seed), "--run-dir", str(folders[index]),
                         "--threads", str(config.cpus), "--resume", *flags.split()]  # fmt: skip
            waiting[remote.remote(folders[index], arguments)] = index
        while waiting:
            [done], _ = ray.wait(list(waiting), num_returns=1)
            index = waiting.pop(done)
            try:
                ray.get(done)
                report(index, training_figures(folders[index]))
            except (ray.exceptions.RayError, BMError) as error:
                report(index, {"error": str(error).strip().splitlines()[-1]})
        ray.shutdown()
    if config.json is not None:
        print(f"results in {config.json}")
    return int(any("error" in row for row in rows.values()))


if __name__ == "__main__":
    cli.run(main, Config)
