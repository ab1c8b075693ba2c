"""Whether a change of the code changed a number: environments, trainers, models and files.

    python benchmarks/same_numbers.py --json runs/before.json               # in the old tree
    python benchmarks/same_numbers.py --against runs/before.json            # in the new one
    python benchmarks/same_numbers.py --against runs/before.json --parts environments files

What is compared, by SHA-256 of the numbers' bytes:

    environments   obs, critic obs, reward, terminated, truncated and info of 2000 steps, four
                   presets, N = 1, 7 and 64, with and without the compiled part; the guided ids
    trainers       a short run of each script at one seed and thread: metrics but for times,
                   tensors of the checkpoint, the policy file
    models         rows of guided.py --quick and gates.py --quick for both shipped models
    files          every shipped policy read, and its network and metadata written again

It uses ids and commands alone, so that it runs on either side of a change of layout. Differences
are printed by name; exit status 1 where there is one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

import bm_envs
from bm_envs import cli
from bm_envs.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("train", "published", "clip", "robust")
GUIDED = ("WalkPerturb", "Joystick", "Waypoint", "Obstacle")
Part = Literal["environments", "trainers", "models", "files"]


@dataclass(frozen=True)
class Config:
    """Record numbers, or compare with those recorded."""

    json: Path | None = None
    """File to write the numbers' digests to."""
    against: Path | None = None
    """File to compare with."""
    parts: tuple[Part, ...] = ("environments", "trainers", "models", "files")
    """What to look at."""
    steps: int = 2000
    """Control steps of each environment."""
    only_environments: str | None = None
    """Used by the command itself, for the run without the compiled part."""

    def __post_init__(self) -> None:
        if self.only_environments is None and (self.json is None) == (self.against is None):
            raise ConfigError("Expected either --json or --against.")


def digest(*values: Any) -> str:
    """SHA-256 of arrays' bytes, shapes and types, and of plain values."""
    sha256 = hashlib.sha256()
    for value in values:
        if isinstance(value, dict):
            value = digest(*(item for key in sorted(value) for item in (key, value[key])))
        elif isinstance(value, np.ndarray) and value.dtype == object:
            value = digest(*value)
        if isinstance(value, np.ndarray):
            sha256.update(f"{value.shape}{value.dtype}".encode())
            sha256.update(np.ascontiguousarray(value).tobytes())
        else:
            sha256.update(repr(value).encode())
    return sha256.hexdigest()


def of_environments(steps: int) -> Iterator[tuple[str, str]]:
    """Name and digest of each environment's numbers."""
    cases: list[tuple[str, str, dict[str, Any]]] = [
        (f"track {preset}", "BMTrack-G1-v0", {"preset": preset, "motion": ["walk", "turn_left"]})
        for preset in PRESETS
    ]
    cases.append(("no state", "BMTrack-G1-NoStateEst-v0", {"motion": "walk"}))
    cases += [(name, f"BMGuided-G1-{name}-v0", {}) for name in GUIDED]
    for name, env_id, keywords in cases:
        for count in (1, 7, 64):
            env: Any = gymnasium.make_vec(env_id, num_envs=count, **keywords)
            obs, info = env.reset(seed=count)
            parts = [digest(obs, info)]
            rng = np.random.default_rng(count)
            for _ in range(max(1, steps // (1 if count < 64 else 4))):
                action = rng.normal(0, 0.5, (count, 29)).astype(np.float32)
                parts.append(digest(*env.step(action)))
            env.close()
            yield f"{name}, N = {count}", digest(*parts)


TRAINERS = {
    "ppo_track": "--motion stand --num-envs 8 --num-steps 8 --total-timesteps 512 --eval-every 256 "
    "--hidden 32 --threads 1 --curriculum-s 0.1",
    "wm_track": "--motion stand --num-envs 8 --total-timesteps 1600 --threads 1 --eval-every 800",
    "ppo_guided": "--task joystick --num-envs 8 --num-steps 8 --total-timesteps 512 --threads 1 "
    "--eval-every 512 --eval-trials 2",
    "ddpm_guided": "--data ROLLOUTS --representation body_pos --total-steps 40 --warmup-steps 4 "
    "--batch-size 32 --threads 1",
}  # fmt: skip

TIMES = ("train_s", "charts/SPS", "charts/windows_per_s")  # of metrics.jsonl, beside perf/


def _run(folder: Path, script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=folder, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Arrays in nested containers, with their names."""
    if hasattr(value, "detach"):
        yield name, value.detach().float().numpy()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _tensors(value[key], f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{name}/{i}")


def of_trainers(steps: int) -> Iterator[tuple[str, str]]:
    """Digests of what short trainings leave."""
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(folder, "algos/collect_rollouts.py", "--policy", "walks_on", "--out", "rollouts",
             "--episodes", "16", "--num-envs", "8", "--threads", "1")  # fmt: skip
        for shard in sorted((folder / "rollouts").glob("*.npz")):
            with np.load(shard) as arrays:
                yield f"collect_rollouts, {shard.name}", digest(dict(arrays))
        for script, flags in TRAINERS.items():
            run = folder / script
            words = flags.replace("ROLLOUTS", str(folder / "rollouts")).split()
            _run(folder, f"algos/{script}.py", *words, "--run-dir", str(run), "--seed", "3")
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            timeless = [
                {k: v for k, v in line.items() if k not in TIMES and not k.startswith("perf/")}
                for line in lines
            ]
            yield f"{script}, metrics", digest(json.dumps(timeless, sort_keys=True))
            checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
            yield f"{script}, checkpoint", digest(dict(_tensors(checkpoint)))
            for file in sorted(run.glob("*.onnx")):
                yield f"{script}, {file.name}", hashlib.sha256(file.read_bytes()).hexdigest()


def of_models(steps: int) -> Iterator[tuple[str, str]]:
    """Digests of the guided models' quick rows, but for their times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in ("guided_body_pos", "guided_joint_rot"):
            for task in ("walk_perturb", "joystick", "waypoint", "obstacle"):
                _run(folder, "benchmarks/guided.py", "--policy", model, "--task", task, "--quick",
                     "--json", "row.json")  # fmt: skip
                yield f"guided {model}, {task}", _timeless(folder / "row.json")
            _run(folder, "benchmarks/gates.py", "--policy", model, "--quick", "--json", "row.json")
            yield f"gates {model}", _timeless(folder / "row.json", "latency")


def _timeless(path: Path, left_out: str = "") -> str:
    rows = json.loads(path.read_text())["rows"]
    times = re.compile(r"_ms|wall_s$|cpu_s$|_wall$")
    kept = [
        {key: value for key, value in row.items() if not times.search(key)}
        for row in rows
        if not left_out or row.get("gate") != left_out
    ]
    return digest(json.dumps(kept, sort_keys=True))


def of_files(steps: int) -> Iterator[tuple[str, str]]:
    """Digests of every shipped policy's actions on drawn observations, and of its file's bytes."""
    from bm_envs import policy

    for place in (ROOT / "bm_envs" / "assets" / "policies", ROOT / "policies"):
        for path in sorted(place.glob("*.onnx")):
            loaded = policy.load_policy(path)
            obs = np.random.default_rng(0).normal(size=(20, loaded.spec.observation_size))
            actions = np.concatenate([loaded(row[None].astype(np.float32)) for row in obs])
            yield f"{path.stem}, actions", digest(actions)
            network = policy.mlp_from_policy(path)
            with tempfile.TemporaryDirectory() as folder:
                again = Path(folder, "again.onnx")
                policy.write_onnx(again, network, loaded.spec, None)
                yield f"{path.stem}, written again", hashlib.sha256(again.read_bytes()).hexdigest()


PARTS: dict[str, Callable[[int], Iterator[tuple[str, str]]]] = {
    "trainers": of_trainers, "models": of_models, "files": of_files,
}  # fmt: skip


def _environments(config: Config) -> Iterator[tuple[str, str]]:
    """Those of this process's kind, and of a process without the compiled part."""
    for native in ("1", "0"):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out.json")
            subprocess.run(
                [sys.executable, __file__, "--only-environments", str(out), "--steps",
                 str(config.steps)], check=True, cwd=folder,
                env={**os.environ, "BM_NATIVE": native, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            for name, value in json.loads(out.read_text()).items():
                yield f"{name}, {'compiled' if native == '1' else 'NumPy'}", value


def main(config: Config) -> int:
    """Take the numbers; write or compare them."""
    if config.only_environments is not None:
        cli.write_json(config.only_environments, dict(of_environments(config.steps)))
        return 0
    assert Path(bm_envs.__file__).is_relative_to(ROOT), "another tree's bm_envs is imported"
    known: dict[str, Any] = {}
    if config.against is not None:
        known = cli.read_json(config.against, ConfigError)
        if not isinstance(known, dict):
            raise ConfigError(f"{config.against}: holds no digests, expected a file of --json.")
    digests: dict[str, str] = {}
    differ = 0
    for part in config.parts:
        source = _environments(config) if part == "environments" else PARTS[part](config.steps)
        for name, value in source:
            digests[f"{part}: {name}"] = value
            expected = known.get(f"{part}: {name}")
            if config.against is not None:
                verdict = "same" if expected == value else "new" if expected is None else "DIFFERS"
                differ += verdict != "same"
                print(f"{verdict:8s} {part}: {name}", flush=True)
    if config.json is not None:
        cli.write_json(config.json, digests)
        print(f"{len(digests)} digests in {config.json}")
        return 0
    absent = [
        name for name in known if name.partition(":")[0] in config.parts and name not in digests
    ]
    for name in absent:
        print(f"missing  {name}")
    print(f"{len(digests) - differ} same, {differ} not, {len(absent)} missing")
    return int(bool(differ or absent))


if __name__ == "__main__":
    cli.run(main, Config)
