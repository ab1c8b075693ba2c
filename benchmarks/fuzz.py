"""Coverage-guided fuzzing of every reader of files, by atheris.

    pip install -e '.[fuzz]'
    python benchmarks/fuzz.py --seconds 120 --json benchmarks/results/fuzz.json

Each reader gets a process of its own, a small true file to begin with, and bytes that libFuzzer
changes towards new paths through our code. What a reader may do is take the file or refuse it with
a `BMError`. Anything else, 10 s without an end or 2 GB end that reader's run and count as wrong;
the input is kept in `--out`. Rows are those of `benchmarks/reliability.py`.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError

COUNTS = ("inputs", "refused", "loaded")


@dataclass(frozen=True)
class Config:
    """Fuzz the readers of files."""

    seconds: int = 60
    """How long each reader is tried, s."""
    reader: tuple[str, ...] = ()
    """Readers to fuzz; by default all."""
    seed: int = 1
    """Seed of the changes."""
    out: Path = Path("runs/fuzz")
    """Folder for inputs that went wrong."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        if self.seconds < 1:
            raise ConfigError(f"seconds is {self.seconds}, expected 1 or more.")
        for name in self.reader:
            if name not in READERS:
                raise ConfigError(f"reader is '{name}', expected one of {', '.join(READERS)}.")


# --- the readers, each with a true file to begin with ---------------------------------------------
# Our modules are imported in functions: there atheris changes them, to see which paths are taken.


def _rows() -> np.ndarray:
    time_s = np.arange(12)[:, None] / 30.0
    joints = 0.1 * np.sin(3 * time_s + np.arange(29))
    root = np.hstack([0.3 * time_s, 0 * time_s, 0.76 + 0 * time_s])
    return np.hstack([root, np.tile([0.0, 0, 0, 1], (12, 1)), joints])


def _motion(path: Path) -> Any:
    from bm_envs.motion import library

    return library.load_motion(path)


def _csv() -> tuple[Callable[[Path], Any], bytes]:
    return _motion, "\n".join(",".join(f"{v:.4f}" for v in row) for row in _rows()).encode()


def _pkl() -> tuple[Callable[[Path], Any], bytes]:
    rows = _rows()
    value = {"fps": 30.0, "root_pos": rows[:, :3], "root_rot": rows[:, 3:7], "dof_pos": rows[:, 7:]}
    return _motion, pickle.dumps(value)


def _npz() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.motion.clip import clip_from_states, save_npz

    rows = _rows()
    clip = clip_from_states(
        "seed", 50.0, rows[:, :3], rows[:, [6, 3, 4, 5]], rows[:, 7:], source="made", licence="CC0"
    )
    with tempfile.TemporaryDirectory() as folder:
        save_npz(clip, Path(folder, "seed.npz"))
        return _motion, Path(folder, "seed.npz").read_bytes()


def _bvh() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.motion import bvh

    lines = ["HIERARCHY", "ROOT Hips", "{", "OFFSET 0 90 0", "CHANNELS 6 Xposition Yposition"
             " Zposition Zrotation Yrotation Xrotation", "JOINT Spine", "{", "OFFSET 0 10 0",
             "CHANNELS 3 Zrotation Yrotation Xrotation", "End Site", "{", "OFFSET 0 5 0", "}", "}",
             "}", "MOTION", "Frames: 3", "Frame Time: 0.0333333",
             *["0 90 0 1 2 3 4 5 6"] * 3]  # fmt: skip
    return bvh.read_bvh, "\n".join(lines).encode()


def _amass() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.motion import amass

    rest = Path(tempfile.mkdtemp(), "rest.json")
    heights = (0, -0.1, -0.1, 0.1, -0.5, -0.5, 0.2, -0.9, -0.9, 0.3, -0.95, -0.95, 0.5, 0.4, 0.4,
               0.6, 0.45, 0.45, 0.45, 0.45, 0.45, 0.45)  # fmt: skip
    across = (0, 0.1, -0.1, 0, 0.1, -0.1, 0, 0.1, -0.1, 0, 0.1, -0.1, 0, 0.1, -0.1, 0, 0.2, -0.2,
              0.45, -0.45, 0.7, -0.7)  # fmt: skip
    ahead = [0.13 if i in (10, 11) else 0.0 for i in range(22)]
    cli.write_json(rest, {"joints": list(zip(across, heights, ahead, strict=True))})
    packed = Path(rest.parent, "seed.npz")
    np.savez(
        packed,
        poses=np.tile([np.pi / 2, *[0.0] * 65], (4, 1)),
        trans=np.ones((4, 3)),
        mocap_framerate=60.0,
    )
    return lambda path: amass.read_amass(path, rest), packed.read_bytes()


def _mapping() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.motion import skeletons

    return skeletons.read_mapping, b'{"joints": {"pelvis": "Hips"}, "pelvis_up": [1, 0, 0]}'


def _result() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.results import read_result

    folder = Path(__file__).resolve().parent / "results"
    return read_result, (folder / "physics_accuracy.json").read_bytes()


def _manifest() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs.diffusion import rollouts

    def read(path: Path) -> Any:
        (path.parent / rollouts.MANIFEST).write_bytes(path.read_bytes())
        return rollouts.read_manifest(path.parent)

    shard = {"episodes": {"count": 1, "file": "a.npz", "sha256": "0"}, "failed": {"count": 0}}
    import json

    return read, json.dumps({"format": rollouts.FORMAT, "shards": [shard]}).encode()


def _onnx() -> tuple[Callable[[Path], Any], bytes]:
    from bm_envs import policy

    return policy.load_policy, (policy.SHIPPED / "walks.onnx").read_bytes()


READERS: dict[str, tuple[str, Callable[[], tuple[Callable[[Path], Any], bytes]]]] = {
    "csv": ("motion .csv", _csv), "npz": ("motion .npz", _npz), "pkl": ("motion .pkl", _pkl),
    "bvh": ("person .bvh", _bvh), "amass": ("person .npz", _amass),
    "mapping": ("mapping .json", _mapping), "result": ("result .json", _result),
    "manifest": ("manifest .json", _manifest), "onnx": ("policy .onnx", _onnx),
}  # fmt: skip


# --- one reader in a process of its own -----------------------------------------------------------


def fuzz(name: str, seconds: int, seed: int, out: Path, shared: str) -> None:
    """Fuzz one reader until the time is over; libFuzzer ends the process."""
    import atheris  # pyright: ignore[reportMissingImports]

    with atheris.instrument_imports(include=["bm_envs"]):  # pyright: ignore
        surface, make = READERS[name]
        read, content = make()
    counts = np.memmap(shared, np.int64, "r+", shape=(len(COUNTS),))
    warnings.simplefilter("ignore")
    suffix = surface.rpartition(".")[2]
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(content)
    path = folder / f"input.{suffix}"

    def one(data: bytes) -> None:
        counts[0] += 1
        path.write_bytes(data)
        try:
            read(path)
        except BMError:
            counts[1] += 1
        else:
            counts[2] += 1

    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=10",
        "-rss_limit_mb=3000", f"-max_len={max(4096, 2 * len(content))}",
        f"-artifact_prefix={out / name}-", "-print_final_stats=0", "-verbosity=0", str(corpus),
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main(config: Config) -> None:
    """Fuzz each reader in turn."""
    os.environ["BM_CACHE_DIR"] = "0"  # readers are tried, and nothing is to be kept
    if importlib.util.find_spec("atheris") is None:
        raise ConfigError("Fuzzing needs the package atheris: pip install 'bm-envs[fuzz]'.")
    config.out.mkdir(parents=True, exist_ok=True)
    rows = []
    context = multiprocessing.get_context("spawn")
    for name in config.reader or READERS:
        with tempfile.NamedTemporaryFile() as shared:
            shared.write(struct.pack(f"<{len(COUNTS)}q", *[0] * len(COUNTS)))
            shared.flush()
            before, start = set(config.out.glob(f"{name}-*")), time.monotonic()
            out = config.out.resolve()
            child = context.Process(
                target=fuzz, args=(name, config.seconds, config.seed, out, shared.name)
            )
            child.start()
            child.join()
            counts = np.fromfile(shared.name, np.int64, len(COUNTS))
        wrong = sorted(set(config.out.glob(f"{name}-*")) - before)
        if not counts[0]:
            raise ConfigError(f"The fuzzer of '{name}' did not begin (exit {child.exitcode}).")
        failed = len(wrong) or int(child.exitcode != 0)
        row = {
            "surface": READERS[name][0], "fault": "coverage-guided fuzzing", "expected": "any",
            **dict(zip(COUNTS, map(int, counts), strict=True)), "warned": 0, "wrong": failed,
            "slowest_s": None, "peak_mb": None, "examples": [path.name for path in wrong][:3],
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip
        rows.append(row)
        print(
            f"{row['surface']:16s} {row['inputs']:8d} tried {row['refused']:8d} refused "
            f"{row['loaded']:8d} loaded {row['wrong']:3d} wrong", flush=True,
        )  # fmt: skip
    if config.json is not None:
        from bm_envs.results import write_result

        write_result(config.json, cli.json_result("reliability", seed=config.seed, rows=rows))
        print(f"rows in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
