r"""Try other people's trainers on our environments, each in a Python environment of its own.

    python benchmarks/clients/try.py --json out.json
    python benchmarks/clients/try.py --client sb3 rsl_rl cleanrl --train laptop published \
        --seeds 1 2 --steps 500000 --json benchmarks/results/clients.json --plot curves.png

For each client `<dir>/<client>` is made anew with `venv` and pip: PyTorch and what else the project
needs in the versions of `constraints.txt`, this project, and the client in the version of the extra
`clients`. Then `client.py` runs there: the checks of that client and, for those with a training,
one for each of `--train` and `--seeds`. A client that cannot be installed has a row that says so,
and the command goes on; it ends with status 1 where any row did not pass.

PyTorch is what pip finds: to have its CPU build, let pip find one (`PIP_FIND_LINKS`, or an index).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError
from bm_envs.results import write_result

ROOT = Path(__file__).resolve().parents[2]
Client = Literal["gymnasium", "sb3", "rsl_rl", "cleanrl", "skrl", "torchrl", "minari"]
ALL: tuple[Client, ...] = ("gymnasium", "sb3", "rsl_rl", "cleanrl", "skrl", "torchrl", "minari")
Variant = Literal["laptop", "published", "quiet"]
TRAIN = ("sb3", "rsl_rl", "cleanrl", "skrl")  # clients with a training
# Distributions of the extra `clients` that a client wants, and others.
NEEDS: dict[str, tuple[str, ...]] = {
    "gymnasium": (),
    "sb3": ("stable-baselines3",),
    "rsl_rl": ("rsl-rl-lib", "tensordict"),
    "cleanrl": (),  # a script, which `cleanrl.py` gets
    "skrl": ("skrl",),
    "torchrl": ("torchrl", "tensordict"),
    "minari": ("minari", "h5py", "pillow"),
}
MORE: dict[str, tuple[str, ...]] = {
    "sb3": ("torch",),
    "rsl_rl": ("torch",),
    "cleanrl": ("torch", "tensorboard"),
    "skrl": ("torch",),
    "torchrl": ("torch",),
    # Its collector imports jax without requiring it; 0.4 GB, which is why no extra has it.
    "minari": ("jax[cpu]==0.10.2",),
}
LABELS = {"laptop": 'preset="laptop"', "published": 'preset="train"', "quiet": "train, noise 0.4"}


@dataclass(frozen=True)
class Config:
    """What to try."""

    client: tuple[Client, ...] = ALL
    """Which clients."""
    json: Path | None = None
    """Result file to write."""
    plot: Path | None = None
    """Learning curves to draw, .png or .svg (needs the extra `viz`)."""
    train: tuple[Variant, ...] = ("laptop",)
    """What to train on: `laptop`, `published` and `quiet` as client.py describes them."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of the trainings."""
    steps: int = 20_000
    """Control steps of a training over all robots."""
    num_envs: int = 64
    """Robots of a training."""
    threads: int = 1
    """Threads of a training; 0: all cores."""
    dir: Path = Path(".cache/clients")
    """Where the Python environments are made."""
    reuse: Annotated[bool, FlagCreatePairsOff] = False
    """Take environments that are there, with this project installed anew."""
    jobs: int = 1
    """Trainings at a time, of one client."""
    no_checks: Annotated[bool, FlagCreatePairsOff] = False
    """Train alone."""

    def __post_init__(self) -> None:
        if self.plot is not None and self.plot.suffix not in (".svg", ".png"):
            raise ConfigError(f"{self.plot}: expected a name that ends in .svg or .png.")
        if self.num_envs < 1 or self.steps < 20 * self.num_envs:
            raise ConfigError(
                f"steps is {self.steps}, expected 20 or more for each of {self.num_envs} robots."
            )
        if self.jobs < 1:
            raise ConfigError(f"jobs is {self.jobs}, expected 1 or more.")
        if len(set(self.client)) < len(self.client):
            raise ConfigError("--client has a client twice, expected each once.")


def pins() -> dict[str, str]:
    """Requirements of the extra `clients`, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"]["clients"]
    return {line.partition("=")[0].rstrip("<>"): line for line in lines}


def requirements(client: str) -> list[str]:
    """What pip installs beside this project."""
    return [*(pins()[name] for name in NEEDS[client]), *MORE.get(client, ())]


def environment(client: str, config: Config) -> Path:
    """The interpreter of the client's environment, which is made where `reuse` does not forbid it.

    Raises:
        BMError: pip or venv did not succeed.
    """
    folder = config.dir / client
    # Absolute, but the link is not followed: it is what makes the environment.
    python = (folder / ("Scripts" if os.name == "nt" else "bin") / "python").absolute()
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    if config.reuse and python.exists():
        run([*pip, "--no-deps", "--force-reinstall", str(ROOT)])
        return python
    # CleanRL 1.2.0 imports distutils, which setuptools brings where Python has it no more.
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    run([*pip, "setuptools", str(ROOT), *requirements(client)])
    return python


def run(command: list[str], **arguments: Any) -> None:
    """Run to the end.

    Raises:
        BMError: it failed; with the last line of what it said.
    """
    # Nothing of the caller's packages gets in.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, **arguments)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise BMError(lines[-1].strip() if lines else f"status {done.returncode}, and no word")


def ask(python: Path, client: str, flags: list[str]) -> list[dict[str, Any]]:
    """The rows that `client.py` writes.

    Raises:
        BMError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        script = Path(__file__).with_name("client.py").resolve()
        # In an empty folder, so that the project is the one that was installed.
        command = [str(python), str(script), "--client", client, "--rows", str(rows), *flags]
        run(command, cwd=folder)
        return json.loads(rows.read_text())


def failure(client: str, what: str, name: str, error: BMError) -> dict[str, Any]:
    """The row of what did not come to a result."""
    return {
        "client": client, "version": pins().get((NEEDS[client] or ("",))[0], "").partition("==")[2]
        or "unknown", "what": what, "name": name, "passed": False, "reason": str(error)[:300],
        "wall_s": 0.0,
    }  # fmt: skip


def tried(client: Client, config: Config) -> list[dict[str, Any]]:
    """All rows of a client."""
    try:
        python = environment(client, config)
    except BMError as error:
        return [failure(client, "check", "pip install", error)]
    jobs: list[tuple[str, str, list[str]]] = []
    if not config.no_checks:
        jobs.append(("check", "all", []))
    if client in TRAIN:
        for variant in config.train:
            for seed in config.seeds:
                figures = ("steps", "num_envs", "threads")
                settings = {"train": variant, "seed": seed}
                settings |= {name: getattr(config, name) for name in figures}
                flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
                jobs.append(("train", variant, flags))

    def done(job: tuple[str, str, list[str]]) -> list[dict[str, Any]]:
        what, name, flags = job
        try:
            return ask(python, client, flags)
        except BMError as error:
            return [failure(client, what, name, error)]

    with ThreadPoolExecutor(config.jobs) as pool:
        return [row for rows in pool.map(done, jobs) for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines: list[tuple[str, ...]] = [("client", "version", "what", "passed", "")]
    for row in rows:
        text = row["reason"]
        if row.get("curve"):
            text = (
                f"episodes of {row['episode_length_first']:.0f} to {row['episode_length_last']:.0f}"
                f" steps, {row['reward_per_step_first']:.3f} to {row['reward_per_step_last']:.3f} a"
                f" step, {row['steps']:,} steps in {row['wall_s']:.0f} s"
            )
        passed = "yes" if row["passed"] else "no"
        lines.append((row["client"], row["version"], f"{row['what']}: {row['name']}", passed, text))
    return cli.aligned(lines)


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Mean length of an episode over control steps, a panel a client."""
    clients = list(dict.fromkeys(row["client"] for row in rows if row.get("curve")))
    figure = cli.matplotlib_figure()(figsize=(3.2 * len(clients), 3.2), layout="constrained")
    panels = figure.subplots(1, len(clients), squeeze=False, sharey=True)[0]
    for axes, client in zip(panels, clients, strict=True):
        seen: dict[str, str] = {}
        for row in (row for row in rows if row["client"] == client and row.get("curve")):
            color = f"C{list(LABELS).index(row['name'])}"
            steps, lengths, _ = zip(*row["curve"], strict=True)
            label = None if row["name"] in seen else LABELS[row["name"]]
            seen[row["name"]] = color
            axes.plot([step / 1e3 for step in steps], lengths, color=color, label=label)
        axes.set(title=client, xlabel="thousand control steps")
        axes.legend(fontsize="small")
    panels[0].set(ylabel="control steps of an episode", ylim=(0, None))
    with cli.atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=110)


def main(config: Config) -> int:
    """Try one client after the other."""
    if config.plot is not None:
        cli.matplotlib_figure()  # refused before the trainings, not behind them
    rows: list[dict[str, Any]] = []
    for client in config.client:
        print(f"{client}: {' '.join(requirements(client)) or 'no package'}", flush=True)
        rows += tried(client, config)
    print(table(rows))
    if config.json is not None:
        write_result(config.json, cli.json_result("clients", seed=None, rows=rows))
        print(f"results in {config.json}")
    if config.plot is not None and any(row.get("curve") for row in rows):
        draw(config.plot, rows)
        print(f"curves in {config.plot}")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    cli.run(main, Config)
