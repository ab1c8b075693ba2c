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

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError
from bm_envs.learning.folder import FolderHeld
from bm_envs.policy import training_figures

SCRIPT = Path(__file__).resolve().parent.parent / "algos" / "ppo_track.py"
PATIENCE_S = 60.0  # with another process in a run's folder


@dataclass(frozen=True)
class Config:
    """What to run, and where."""

    motion: tuple[str, ...] = ("walk",)
    """Motions to train on, a policy each."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of each."""
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
    """Cores of a run."""
    retries: int = 3
    """How often a run goes on elsewhere after its worker has died."""

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.workers < 0 or self.retries < 0:
            raise ConfigError("cpus must be 1 or more, workers and retries 0 or more.")


def train(arguments: list[str]) -> None:
    """One run, inside the process of a worker: it dies with it, and nobody resumes it twice.

    Raises:
        BMError: the script refused its flags, or something it was given.
    """
    sys.path.insert(0, str(SCRIPT.parent))
    script = importlib.import_module(SCRIPT.stem)
    try:
        config = cli.parse(script.Config, script.PRESETS, arguments)
    except SystemExit:
        flags = " ".join(arguments)
        raise ConfigError(f"'{flags}' asks for help, expected flags of a run.") from None
    began = time.monotonic()
    while True:
        try:
            return script.main(config)
        except FolderHeld:
            # By the worker of a sweep that was killed, which ends when it finds that out.
            if time.monotonic() - began > PATIENCE_S:
                raise
            time.sleep(1.0)


def run_name(motion: str, seed: int, flags: str) -> str:
    """Folder of a run. Flags are in it as they are, less what a file name should not hold."""
    kept = "".join(c if c.isalnum() or c in ".-_" else "_" for c in f"{motion} {flags}".strip())
    return f"{kept}__{seed}"


def main(config: Config) -> int:
    """Give out what is not finished, collect everything; 1 where a run failed."""
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

    def report(index: int, found: dict[str, Any]) -> None:
        motion, seed, flags = grid[index]
        rows[index] = {
            "motion": motion, "seed": seed, "flags": flags.split(), "run": folders[index].name,
            **found,
        }  # fmt: skip
        said = found.get("error") or (
            f"{found['env_steps'] / 1e6:.1f} M steps, {found['wall_s'] / 60:.1f} min, survived "
            f"{found['clip']['survival']:.0%}"
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
            waiting[remote.remote(arguments)] = index
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
