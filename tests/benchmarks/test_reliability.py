"""benchmarks/reliability.py: it tells right from wrong, and counts what it sees."""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import reliability as rel  # noqa: E402

from bm_envs.errors import BMError, BMWarning  # noqa: E402
from bm_envs.results import read_result  # noqa: E402


def refuses(path):
    raise BMError(f"{path}: is odd.")


def warns(path):
    warnings.warn(f"{path}: is doubtful.", BMWarning, stacklevel=1)


def of_others(path):
    warnings.warn("somebody else's", DeprecationWarning, stacklevel=1)


def breaks(path):
    raise KeyError("fps")


def two_lines(path):
    raise BMError("one.\ntwo.")


def writes(path):
    path.with_suffix(".out").write_text("half")


def changes(path):
    path.write_text("changed")


def dies(path):
    os._exit(0)


def burns(path):
    end = time.process_time() + 2.2
    while time.process_time() < end:
        pass


def swells(path):
    np.ones(160_000_000).sum()


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda path: None, "loaded"), (refuses, "refused"), (warns, "warned"),
        (of_others, "loaded"), (breaks, "error"), (two_lines, "no sentence"),
        (writes, "changed files"), (changes, "changed files"), (dies, "killed"),
    ],
)  # fmt: skip
def test_what_a_reader_did_is_told(tmp_path, read, outcome):
    path = tmp_path / "input.csv"
    path.write_text("1,2\n")
    assert rel.attempt(read, path)[0] == outcome


@pytest.mark.parametrize("read", [burns, swells])
def test_a_reader_that_takes_too_much_is_wrong_though_it_loads(tmp_path, read):
    path = tmp_path / "input.csv"
    path.write_text("1,2\n")
    row = rel.Row("motion .csv", "burst", "any")
    row.add(path.name, *rel.attempt(read, path))
    assert (row.inputs, row.loaded, row.wrong) == (1, 1, 1) and row.examples


def test_a_reader_without_an_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(rel, "PATIENCE_S", 0.5)
    path = tmp_path / "input.csv"
    path.write_text("")
    outcome, told, *_ = rel.attempt(lambda path: time.sleep(60), path)
    assert outcome == "killed" and "time" in told


@pytest.mark.parametrize("expected", rel.ALLOWED)
def test_counts_of_a_row(expected):
    row = rel.Row("a", "b", expected)
    for outcome in ("refused", "warned", "loaded", "error"):
        row.add("x", outcome, "", 0.1, 1.0)
    allowed = {"refuse": 1, "doubt": 2, "load": 1, "loads": 2, "any": 3, "damp": 1}[expected]
    assert (row.inputs, row.refused, row.warned, row.loaded) == (4, 1, 1, 1)
    assert row.wrong == 4 - allowed


def test_damage_is_damage():
    content = bytes(range(256)) * 20
    copies = rel.damaged(content, 60, np.random.default_rng(0))
    assert len(copies) == 60 and sum(copy != content for copy in copies) >= 58


def test_the_command_writes_a_result_that_holds(tmp_path):
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "reliability.py"), "--quick", "--surface",
         "result", "checkpoint", "--json", str(out)], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_result(out).rows
    assert {row["surface"] for row in rows} == {"result .json", "checkpoint .pt"}
    assert sum(row["wrong"] for row in rows) == 0, json.dumps(rows, indent=1)
    assert f"{sum(row['inputs'] for row in rows)} inputs, 0 wrong" in done.stdout
