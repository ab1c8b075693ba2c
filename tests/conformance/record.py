"""Run the conformance suite and keep what came out as a result file.

    python tests/conformance/record.py --backend mujoco mujoco_warp --json out.json
    runs/isaaclab/venv/bin/python tests/conformance/record.py --backend isaaclab --json out.json

For engines that continuous integration has no room for. A row is one test, or one that was skipped
with its reason: `backend` (null for what concerns none), `test`, `outcome`, `reason`, `seconds`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bm_envs import cli
from bm_envs.backends.base import backend_names
from bm_envs.errors import BMError, ConfigError, unknown_name

FOLDER = Path(__file__).parent
ENGINES = ("mujoco", "mujoco-warp", "warp-lang", "isaaclab", "newton", "ovphysx")


@dataclass(frozen=True)
class Config:
    """What to run."""

    json: Path
    """Result file."""
    backend: tuple[str, ...]
    """Backends, which must be there."""

    def __post_init__(self) -> None:
        for name in self.backend:
            if name not in backend_names():
                raise ConfigError(unknown_name("backend", name, backend_names()))


class Recorder:
    """A pytest plugin that makes rows of the reports."""

    def __init__(self, backends: tuple[str, ...]) -> None:
        self.backends = backends
        self.rows: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pytest's hook, called for set-up, test and tear-down."""
        if report.when != "call" and report.passed:
            return
        test = report.nodeid.rpartition("/")[2].replace("::", " ")
        named = re.search(r"\[(\w+)[\]-]", test)
        backend = named[1] if named and named[1] in self.backends else None
        reason = ""
        if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
            reason = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = (crash.message if crash else report.longreprtext).strip().splitlines()[0]
        self.rows.append({
            "backend": backend, "test": test, "outcome": report.outcome, "reason": reason,
            "seconds": round(report.duration, 1),
        })  # fmt: skip


def main(config: Config) -> None:
    """Run, write, and tell of failures by the exit status."""
    recorder = Recorder(config.backend)
    # Colours and caches are a terminal's and a checkout's matter, not the record's.
    arguments = [str(FOLDER), "-q", "-p", "no:cacheprovider", "--backend", *config.backend]
    status = pytest.main(arguments, plugins=[recorder])
    if not recorder.rows:
        raise BMError("no test of the conformance suite ran.")
    result = cli.json_result("conformance", seed=None, rows=recorder.rows)
    result["versions"] |= cli.package_versions(*ENGINES)
    cli.write_json(config.json, result)
    print(f"results in {config.json}")
    if status:
        raise SystemExit(1)


if __name__ == "__main__":
    cli.run(main, Config)
