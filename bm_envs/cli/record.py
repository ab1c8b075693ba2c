"""What a result was made with: the command, the commit, the machine and the packages."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    installed = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def versions() -> dict[str, str]:
    """Versions of Python and of those installed packages that can change a result."""
    packages = ("bm-envs", "mujoco", "numpy", "gymnasium", "torch", "onnxruntime")
    return {"python": platform.python_version(), **package_versions(*packages)}


def machine() -> dict[str, Any]:
    """Processor, cores and GPU of this machine; never a host name or a path.

    `bfloat16` says whether the processor multiplies it itself, by which trainings are faster: a
    name such as "AMD EPYC" does not tell. None where there is no way to know.
    """
    processor, bfloat16 = platform.processor() or platform.machine(), None
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            elif name.strip() in ("flags", "Features"):  # x86, ARM
                bfloat16 = not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(value.split())
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "processor": processor, "bfloat16": bfloat16, "cores": available_cores(), "gpu": gpu,
    }  # fmt: skip


def available_cores() -> int:
    """Cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def commit() -> str | None:
    """The source tree's commit, with `+` when tracked files differ from it; None outside git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line() -> str:
    """This process's command as one would type it from the repository's root.

    A wheel's copy of a script (`bm_envs/__main__.py`) counts as the script.

    A path from the machine's root is written from the repository's root, or as its last part alone:
    results that hold a machine's paths are refused.
    """
    root = Path(__file__).resolve().parents[2]

    def plain(argument: str) -> str:
        before, value = "", argument
        if argument.startswith("--"):
            flag, equals, value = argument.rpartition("=")
            before = flag + equals
        path = Path(value)
        if not path.is_absolute():
            return argument
        for place in (path, path.resolve()):
            if place.is_relative_to(root):
                return f"{before}{place.relative_to(root)}"
        return f"{before}{path.name}"

    script = plain(str(Path(sys.argv[0]).resolve())).removeprefix("bm_envs/_scripts/")
    return shlex.join(["python", script, *map(plain, sys.argv[1:])])


def json_result(kind: str, *, seed: int | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The object in a result file; the docstring of each benchmark describes its rows."""
    return {
        "kind": kind,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "commit": commit(),
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
        "rows": rows,
    }
