"""`benchmarks/throughput.py`: that it measures what it says, and the form of its file and chart."""

import json
import subprocess
import sys
from pathlib import Path

import warm_python

ROOT = Path(__file__).resolve().parents[2]
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
    rows = {(row["what"], row["num_envs"], row["variant"]): row for row in result["rows"]}
    settings = ("default", "5 ms physics")
    assert set(rows) == {
        *((what, n, "") for what in ("raw_engine", "env", "rollout_with_policy") for n in (1, 3)),
        ("raw_loop", 1, ""), ("single_env", 1, ""),
        *((what, 8, name) for what in ("raw_engine_ppo", "ppo") for name in settings),
    }  # fmt: skip
    for (what, *_), row in rows.items():
        assert row["threads"] == 1
        assert 0 < row["lowest"] <= row["control_steps_per_s"] <= row["highest"]
        # How large a ratio is depends on what else the machine does; no test asks for a speed.
        assert row["ratio_to_raw"] == 1 if what.startswith("raw") else row["ratio_to_raw"] > 0
    assert chart.read_text().lstrip().startswith("<?xml")


def test_refusals():
    for arguments, text in (
        (("--repeats", "0"), "must be 1 or more"),
        (("--chart", "chart.gif"), "ends in .svg or .png"),
        (("--motion", "wlak"), "did you mean 'walk'"),
        (("--peers", "--what", "ppo"), "compares with `env`"),
        (("--start", "--peers"), "--start measures nothing else"),
    ):
        done = warm_python.run(
            [sys.executable, str(SCRIPT), *TINY, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 2 and text in done.stderr


def test_motions_until_they_are_ready(tmp_path):
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--start", "--quick", "--threads", "1", "--json", str(out)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["kind"] == "throughput" and "--start" in result["command"]
    rows = {row["variant"]: row for row in result["rows"]}
    names = "builtin, no cache", "builtin, first time", "builtin", "0.1 hours"
    assert tuple(rows) == names and {row["what"] for row in rows.values()} == {"start"}
    for row in rows.values():
        assert 0 < row["lowest"] <= row["control_steps_per_s"] <= row["highest"]
        assert abs(row["ready_s"] - row["load_s"] - row["make_s"]) < 0.5 * row["ready_s"]
        assert 0 < row["private_mb"] < row["peak_mb"] < 2000
    assert rows["0.1 hours"]["hours"] >= 0.1 > rows["builtin"]["hours"]
    assert rows["0.1 hours"]["clips"] > 2 * rows["builtin"]["clips"]
    assert "private, MB" in done.stdout


def test_what_is_to_be_started_must_be_there(tmp_path):
    script = ROOT / "benchmarks" / "starting.py"
    for name, text in (("none.txt", "neither a suite nor a file"), ("lafan1-41", "neither")):
        done = warm_python.run(
            [sys.executable, str(script), name], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 2 and text in done.stderr


def test_peers_are_measured_in_environments_of_their_own_or_named_with_their_error(tmp_path):
    out = tmp_path / "out.json"
    # Environments that are there are used as they are; all of these have this project's packages.
    for name in ("gymnasium", "mjlab", "loco-mujoco"):
        python = tmp_path / "peers" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *TINY, "--what", "env", "--json", str(out), "--peers",
         "--peer-dir", str(tmp_path / "peers")], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peers = {r["variant"]: r for r in json.loads(out.read_text())["rows"] if r["what"] == "peer"}
    humanoid = peers["gymnasium"]
    assert humanoid["control_steps_per_s"] > 0 and humanoid["env_num_envs"] == 3
    for name, module in (("mjlab", "mjlab"), ("loco-mujoco", "loco_mujoco")):
        assert peers[name]["control_steps_per_s"] is None
        assert peers[name]["error"] == f"ModuleNotFoundError: No module named '{module}'"
        assert name in done.stdout
