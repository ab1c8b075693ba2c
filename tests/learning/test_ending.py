"""Every trainer, and the collector of roll-outs: one process a folder, and how it ends when asked.

`tests/algos/test_ppo_track.py` looks at each signal; here all scripts are held to the same.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm_python

ROOT = Path(__file__).resolve().parents[2]
OPEN = {  # runs that would take hours, of iterations that take a moment
    "ppo_track": (
        "--motion stand --num-envs 8 --num-steps 8 --eval-every 0 --hidden 32 --threads 1 "
        "--schedule inverse --checkpoint-s 1e9 --total-timesteps 10000000"
    ),
    "wm_track": (
        "--motion stand --num-envs 8 --num-steps 8 --eval-every 0 --hidden 32 --model-hidden 32 "
        "--warmup-iterations 2 --model-batch 16 --model-horizon 3 --policy-batch 16 "
        "--policy-horizon 3 --capacity 256 --threads 1 --checkpoint-s 1e9 "
        "--total-timesteps 10000000"
    ),
    "ppo_guided": (
        "--task joystick --num-envs 8 --num-steps 16 --eval-every 0 --eval-trials 2 --hidden 16 "
        "--num-minibatches 2 --threads 1 --checkpoint-s 1e9 --total-timesteps 10000000"
    ),
    "ddpm_guided": (
        "--data {data} --width 32 --layers 2 --heads 2 --batch-size 4 --log-every 3 "
        "--warmup-steps 4 --threads 1 --checkpoint-s 1e-9 --total-steps 10000000"
    ),
    "dagger_vae": (
        "--policy stroll jog --num-envs 8 --num-steps 4 --encoder 8 --decoder 8 --latent 4 "
        "--batch-size 16 --updates 1 --kept 3 --eval-every 0 --threads 1 --checkpoint-s 1e9 "
        "--total-timesteps 10000000"
    ),
    "collect_rollouts": (
        "--policy walk --num-envs 8 --episodes 80000 --steps 30 --verify 10 --threads 1"
    ),
}


def command(script, folder, *further, data=None):
    flag = "--out" if script == "collect_rollouts" else "--run-dir"
    arguments = OPEN[script].format(data=data).split()
    return [
        sys.executable, str(ROOT / "algos" / f"{script}.py"), *arguments, flag, str(folder),
        *further,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "rollouts"
    arguments = command("collect_rollouts", out)
    arguments[arguments.index("--episodes") + 1] = "16"
    done = warm_python.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("script", OPEN)
def test_one_process_a_folder_that_keeps_what_it_has_when_asked_to_end(script, tmp_path, data):
    folder = tmp_path / "run"
    collects = script == "collect_rollouts"
    waited_for = "dataset.json" if collects else "checkpoint.pt"
    process = subprocess.Popen(
        command(script, folder, data=data), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (folder / waited_for).exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    further = () if collects else ("--resume",)
    second = warm_python.run(
        command(script, folder, *further, data=data), capture_output=True, text=True, timeout=300
    )
    assert second.returncode == 2, second.stderr
    assert f"{folder}: another process is writing there (process {process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, told
    last = told.splitlines()[-1]
    if collects:
        assert last == f"interrupted: {folder} keeps the shards that are whole; the same command " \
            "goes on"  # fmt: skip
    else:
        found = re.search(r" keeps ([\d,]+) of [\d,]+ steps; to go on, add --resume", last)
        assert found is not None, told
        steps = int(found[1].replace(",", ""))
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
        assert steps == (saved["step"] if script == "ddpm_guided" else saved["env_steps"])
    assert "Traceback" not in told
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not (folder / "policy.json").exists()


def test_a_half_written_file_of_a_killed_collector_goes(tmp_path, data):
    left = data / ".episodes-00007.0a1b2c3d.npz"
    left.write_text("cut off")
    arguments = command("collect_rollouts", data)
    arguments[arguments.index("--episodes") + 1] = "16"
    done = warm_python.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not left.exists() and os.listdir(data)
