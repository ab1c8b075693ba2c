"""`benchmarks/gpu.py` on Warp's CPU device: that it runs, and what its rows hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bm_envs.results import read_result

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True, text=True, timeout=900, cwd=cwd,
    )  # fmt: skip


def test_it_measures_and_its_file_is_a_result(tmp_path):
    pytest.importorskip("mujoco_warp", reason="needs the extra warp: pip install -e '.[warp]'")
    done = run("--device", "cpu", "--quick", "--json", "gpu.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "gpu.json")
    rows = {row["what"]: row for row in result.rows}
    assert set(rows) == {"raw_engine", "env", "ppo"} and rows["raw_engine"]["ratio_to_raw"] == 1.0
    assert all(row["num_envs"] == 4 and row["peak_memory_mb"] is None for row in rows.values())
    found = json.loads((tmp_path / "gpu.json").read_text())["agreement"]
    # Both engines do the same arithmetic, one of them in float32: conformance check C13.
    assert 0 < found["joints_rad"] < 1e-3 and 0 < found["roots_m"] < 1e-3


def test_without_a_gpu_it_says_so():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 2 and done.stderr.startswith("error: There is no NVIDIA GPU here")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--repeats", "0"), "repeats and num_envs must be 1 or more"),
        (("--train-s", "0"), "train_s is 0.0, expected a positive time"),
    ],
)
def test_bad_settings_are_one_sentence(flags, said):
    done = run(*flags)
    assert done.returncode == 2 and said in done.stderr
