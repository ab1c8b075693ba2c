"""`benchmarks/making.py` runs, and can say that something takes too long."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "making.py"


@pytest.mark.parametrize(("most", "status"), [("1e9", 0), ("1e-9", 1)])
def test_making_is_compared_with_humanoid(most, status):
    command = [sys.executable, str(SCRIPT), "--repeats", "1", "--most", most]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1][0] == "Humanoid-v5" and float(rows[1][-1]) == 1.0
    assert ("more than" in done.stdout) == bool(status)
