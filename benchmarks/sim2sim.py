"""What physics rate, delay, sensor noise and an estimated state cost a policy outside training.

    python benchmarks/sim2sim.py walk --json out.json
    python benchmarks/sim2sim.py walk other.onnx --quick
    python benchmarks/sim2sim.py guided_body_pos --tasks joystick waypoint --json out.json
    python benchmarks/sim2sim.py walk --streamed --trials 20 --json out.json

For each policy `tools/sim2sim.py` is run at 500, 1000 and 2000 Hz, with commands delayed by 0, 10
and 20 ms, with the true and the estimated state; then at 1000 Hz with noisy sensors, an estimated
state and the same delays, in `--trials` trials. A row is one such command's, and has it.

With `--tasks` the policies are guided models. Each does each task in `--trials` trials, by plans
that take no time, with the true state, and by plans that take a control step, with an estimated
state. The file is written after every row.

With `--streamed` the motion is sent to the policy while it runs, over links that are late, lose
samples, or fall silent in its middle, with an estimated state and noisy sensors.
"""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.results import write_result

TOOL = Path("tools") / "sim2sim.py"
ROOT = Path(__file__).resolve().parent.parent
Rate = Literal[500, 1000, 2000]
State = Literal["true", "estimated"]
RATES: tuple[Rate, ...] = (500, 1000, 2000)
STATES: tuple[State, ...] = ("true", "estimated")
DELAYS_MS = (0, 10, 20)
LINKS = tuple(
    flags.split()
    for flags in (
        "",
        "--link.jitter-ms 40 --link.loss 0.02",
        "--link.jitter-ms 80 --link.loss 0.1",
        "--link.jitter-ms 150 --link.loss 0.02",
        "--link.jitter-ms 40 --link.loss 0.02 --link.cut-s 6 7",
    )
)


@dataclass(frozen=True)
class Config:
    """Measure what a robot has and training has not, in MuJoCo."""

    policies: Positional[tuple[Annotated[str, arg(metavar="POLICY")], ...]]
    """Policies, in the forms that tools/sim2sim.py takes."""
    json: Path | None = None
    """File to write the rows to."""
    rates: tuple[Rate, ...] = RATES
    """Physics rates of the rows without noise, Hz."""
    states: tuple[State, ...] = STATES
    """What the policy is shown in them: the true state or the estimated one."""
    tasks: tuple[Literal["walk_perturb", "joystick", "run", "waypoint", "obstacle"], ...] = ()
    """Tasks of guided models; none: the policies are trackers."""
    trials: int = 5
    """Number of trials in each row with noise, or of a task; 0: no such row."""
    streamed: Annotated[bool, FlagCreatePairsOff] = False
    """Stream the motion to each tracker, over `LINKS`."""
    flags: str = ""
    """Further flags for every run, in one word: --flags='--start reference'."""
    seed: int = 0
    """Seed of the first trial's noise; each further trial has the next."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """1000 Hz alone, the true state, and no noise."""

    def __post_init__(self) -> None:
        if not self.policies:
            raise ConfigError("No policy, expected one or more.")
        if self.tasks and self.streamed:
            raise ConfigError("streamed is given with tasks: a guided model follows no motion.")
        if (self.tasks or self.streamed) and not self.trials:
            raise ConfigError("trials is 0, expected 1 or more of a task or a stream.")
        if self.trials < 0:
            raise ConfigError(f"trials is {self.trials}, expected 0 or more.")


def settings(config: Config) -> list[list[str]]:
    """Flags of each row of a policy."""
    if config.tasks:
        ways = (("true", "0"), ("estimated", "20"))
        return [
            [
                "--task", task, "--state", state, "--plan-ms", plan_ms, "--trials",
                str(config.trials), "--seed", str(config.seed),
            ]
            for task in config.tasks
            for state, plan_ms in (ways[:1] if config.quick else ways)
        ]  # fmt: skip
    if config.streamed:
        return [
            [
                "--streamed", "--state", "estimated", "--noise", "1", "--trials",
                str(config.trials), "--seed", str(config.seed), *link,
            ]
            for link in LINKS
        ]  # fmt: skip
    rates, states = ((1000,), ("true",)) if config.quick else (config.rates, config.states)
    plain = [
        ["--physics-hz", str(rate), "--state", state, "--command-ms", str(delay)]
        for state, rate, delay in itertools.product(states, rates, DELAYS_MS)
    ]
    noisy = [
        [
            "--physics-hz", "1000", "--state", "estimated", "--command-ms", str(delay),
            "--noise", "1", "--trials", str(config.trials), "--seed", str(config.seed),
        ]
        for delay in DELAYS_MS
    ]  # fmt: skip
    return plain if config.quick or not config.trials else plain + noisy


def measure(arguments: list[str], folder: Path) -> dict[str, Any]:
    """One row, of one command."""
    path = folder / "row.json"
    path.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / TOOL), *arguments, "--json", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    if not path.is_file():  # else it ran; 1 says that a trial failed, which is a figure
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError(f"{TOOL} failed: {lines[-1].removeprefix('error: ')}")
    (row,) = json.loads(path.read_text())["rows"]
    return row | {"command": shlex.join(["python", TOOL.as_posix(), *arguments])}


def main(config: Config) -> None:
    """Measure everything; rows are printed as they come."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for policy in config.policies:
            for flags in settings(config):
                row = measure([policy, *flags, *shlex.split(config.flags)], Path(folder))
                rows.append(row)
                print(guided_line(row) if config.tasks else line(row), flush=True)
                if config.json is not None:
                    write(config, rows)
    if config.json is not None:
        print(f"rows in {config.json}")


def line(row: dict[str, Any]) -> str:
    """A tracker's row."""
    error = row["joint_pos_rad"]
    return (
        f"{row['policy']}: {row['physics_hz']} Hz, {row['state']}, {row['command_ms']:g} ms, noise "
        f"{row['noise']:g}: {row['survived']} of {row['trials']} survived, {row['survived_s']:.2f} "
        f"of {row['clip_s']:.2f} s, joints off by "
        f"{'-' if error is None else format(error, '.4f')} rad"
    )


def guided_line(row: dict[str, Any]) -> str:
    """A guided model's row."""
    return (
        f"{row['policy']}: {row['task']}, {row['state']}, plans in {row['plan_ms']:g} ms: "
        f"{row['survived']} of {row['trials']} survived, {row['done']} did what was asked"
    )


def write(config: Config, rows: list[dict[str, Any]]) -> None:
    """Write the result file."""
    assert config.json is not None
    kind = "sim2sim_guided" if config.tasks else "sim2sim"
    result = cli.json_result(kind, seed=config.seed, rows=rows)
    write_result(config.json, result | {"settings": {"quick": config.quick}})


if __name__ == "__main__":
    cli.run(main, Config)
