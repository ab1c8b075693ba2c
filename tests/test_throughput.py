"""`benchmarks/throughput.py`: that it measures what it says, and the form of its file and chart."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "throughput.py"
TINY = ("--repeats", "2", "--sample-s", "0.02", "--threads", "1", "--num-envs", "1", "3")
PPO = "--num-envs 8 --num-steps 4 --hidden 16"


def test_rows_of_every_kind_and_a_chart(tmp_path):
    out, chart = tmp_path / "out.json", tmp_path / "chart.svg"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *TINY, "--json", str(out), "--chart", str(chart),
         f"--ppo-flags={PPO}"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["kind"] == "throughput"
    rows = {(row["what"], row["num_envs"]): row for row in result["rows"]}
    assert set(rows) == {
        ("raw_engine", 1), ("env", 1), ("rollout_with_policy", 1), ("raw_engine", 3), ("env", 3),
        ("rollout_with_policy", 3), ("raw_loop", 1), ("single_env", 1), ("raw_engine_ppo", 8),
        ("ppo", 8),
    }  # fmt: skip
    for (what, _), row in rows.items():
        assert row["threads"] == 1
        assert 0 < row["lowest"] <= row["control_steps_per_s"] <= row["highest"]
        # Nothing around the engine makes it faster; samples this short scatter widely.
        assert row["ratio_to_raw"] == 1 if what.startswith("raw") else 0 < row["ratio_to_raw"] < 1.5
    assert chart.read_text().lstrip().startswith("<?xml")


def test_refusals():
    for arguments, text in (
        (("--repeats", "0"), "must be 1 or more"),
        (("--chart", "chart.gif"), "ends in .svg or .png"),
        (("--motion", "wlak"), "did you mean 'walk'"),
    ):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *TINY, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 2 and text in done.stderr
