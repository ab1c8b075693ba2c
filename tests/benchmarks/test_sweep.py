"""`benchmarks/sweep.py`: two workers of this machine, one of them killed; what it runs again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import sweep as script  # noqa: E402

SMALL = "--num-envs 8 --num-steps 8 --eval-every 0 --hidden 32 --checkpoint-s 0 --no-motion"
STEPS = 1280
WORLD_MODEL = (
    f"--total-timesteps {STEPS} --num-envs 8 --num-steps 8 --warmup-iterations 2 --model-batch 16 "
    "--policy-batch 16 --policy-horizon 4 --hidden 32 --model-hidden 32 --eval-every 0 "
    "--checkpoint-s 0 --no-motion"
)


def sweep(tmp_path, *arguments, flags=SMALL):
    return [
        sys.executable, str(ROOT / "benchmarks" / "sweep.py"), "--motion", "stand", "--json",
        str(tmp_path / "out.json"), "--run-dir", str(tmp_path / "runs"), f"--flags={flags}",
        "--workers", "2", *arguments,
    ]  # fmt: skip


def workers_in(folder):
    """Processes that hold files under a folder open (Ray's workers change their command line)."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:  # it ended meanwhile
            continue
        if any(link.startswith(str(folder)) for link in links):
            found.add(int(process.name))
    return found


def test_a_killed_worker_costs_a_sweep_nothing(tmp_path):
    flags = f"{SMALL} --total-timesteps 6400"
    process = subprocess.Popen(
        sweep(tmp_path, "--seeds", "1", "2", flags=flags),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    runs = tmp_path / "runs"
    deadline = time.monotonic() + 300
    killed = None
    while killed is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        [*begun] = runs.glob("*__2/checkpoint.pt") if runs.exists() else []
        if begun:
            for pid in workers_in(begun[0].parent):
                os.kill(pid, signal.SIGKILL)
                killed = pid
    out, err = process.communicate(timeout=600)
    assert killed is not None, err
    assert process.returncode == 0, err
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["seed"] for row in rows] == [1, 2]
    for row in rows:
        assert row["env_steps"] == 6_400 and row["clip"]["survival"] > 0
        steps = [json.loads(line)["step"] for line in (runs / row["run"] / "metrics.jsonl").open()]
        assert steps == list(range(64, 6_401, 64))
    # The second run was begun twice: TensorBoard's events are a file a start.
    assert len(list((runs / rows[1]["run"]).glob("events.out.tfevents.*"))) == 2

    # Everything is finished, so that the same sweep starts no worker.
    again = subprocess.run(
        sweep(tmp_path, "--seeds", "1", "2", flags=flags), capture_output=True, text=True
    )
    assert again.returncode == 0 and json.loads((tmp_path / "out.json").read_text())["rows"] == rows


def test_a_killed_sweep_goes_on_and_leaves_no_worker(tmp_path):
    flags = f"{SMALL} --total-timesteps 6400"
    runs = tmp_path / "runs"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(sweep(tmp_path, flags=flags), stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        begun = []
        while not begun and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            [*begun] = runs.glob("*/checkpoint.pt") if runs.exists() else []
        assert begun, (tmp_path / "log").read_text()
        workers = workers_in(begun[0].parent)
        process.kill()
        process.wait()
    # Its worker may still be at work: it keeps its folder for as long, and the new one waits.
    again = subprocess.run(
        sweep(tmp_path, flags=flags), capture_output=True, text=True, timeout=600
    )
    assert again.returncode == 0, again.stdout + again.stderr
    [row] = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["env_steps"] == 6_400
    steps = [json.loads(line)["step"] for line in (runs / row["run"] / "metrics.jsonl").open()]
    assert steps == list(range(64, 6_401, 64))
    assert workers and not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers)
    assert not list((runs / row["run"]).glob(".*"))


def test_refused_flags_are_reported_and_the_rest_runs(tmp_path):
    wrong, right = f"{SMALL} --gamma two", f"{SMALL} --total-timesteps 128"
    done = subprocess.run(
        sweep(tmp_path, f"--flags={right}", flags=wrong),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert "Error parsing --gamma: could not convert string to float: 'two'" in rows[0]["error"]
    assert rows[1]["env_steps"] == 128


def test_equal_runs_are_refused(tmp_path):
    done = warm_python.run(sweep(tmp_path, "--seeds", "1", "1"), capture_output=True, text=True)
    assert done.returncode == 2 and "are the same" in done.stderr


def campaign(tmp_path, *arguments, flags=WORLD_MODEL):
    return [
        sys.executable, str(ROOT / "benchmarks" / "sweep.py"), "--algorithm", "wm_track",
        "--motion", "turn_left", "stand", "--order", "longest", "--run-dir",
        str(tmp_path / "runs"), "--page", str(tmp_path / "page.md"), "--measured",
        str(tmp_path / "results"), f"--flags={flags}", "--workers", "2", *arguments,
    ]  # fmt: skip


def test_a_campaign_killed_and_begun_again_ends_with_a_page_and_measurements(tmp_path):
    """Its driver is killed while both runs train; the second one goes on where they were."""
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    process = subprocess.Popen(
        campaign(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while len(list(runs.glob("*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert page.exists()  # it is written before anything is trained

    done = subprocess.run(campaign(tmp_path), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for motion in ("turn_left", "stand"):
        [folder] = runs.glob(f"{motion}_*__1")
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()]
        assert steps == list(range(64, STEPS + 1, 64))
        [file] = (tmp_path / "results").glob(f"{motion}*.json")
        rows = json.loads(file.read_text())["rows"]
        assert [row["protocol"] for row in rows] == ["clip", "robust"]
        assert {row["motion"] for row in rows} == {motion}
        assert rows[0]["train_env_steps"] == STEPS
    text = page.read_text()
    assert "2 of 2 runs have ended" in text
    lines = [line for line in text.splitlines() if "__1 |" in line]
    assert [line.split(" | ")[2] for line in lines] == ["ended", "ended"]
    seconds = [float(line.split(" | ")[1]) for line in lines]
    assert seconds == sorted(seconds, reverse=True)

    # A campaign that has ended begins nothing, and a longer one goes on with what is not robust.
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    again = subprocess.run(campaign(tmp_path), capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    for file, written in before.items():
        assert file == page or file.stat().st_mtime_ns == written, file


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--motion", "walk"], "'walk' is none"),
        (["--suite", "builtin", "--together"], "is none"),
        (["--motion", "walk", "--seeds", "1", "2"], "give one seed, one --flags"),
        (["--motion", "walk", "--flags=--gamma 0.98"], "with --no-motion in them"),
        (["--motion", "stand", "--suite", "builtin"], "Both --motion and --suite are given"),
    ],
)
def test_a_policy_that_could_not_be_kept_is_refused_before_it_is_trained(arguments, told, tmp_path):
    flags = [] if any(a.startswith("--flags") for a in arguments) else ["--flags=--no-motion"]
    command = [
        sys.executable, str(ROOT / "benchmarks" / "sweep.py"), *arguments, *flags, "--run-dir",
        str(tmp_path / "runs"), "--policies", str(tmp_path / "policies"),
    ]  # fmt: skip
    done = warm_python.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert told in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "motion, name",
    [
        ("lafan1-40", "lafan1_40"), ("lafan1-walks", "lafan1_walks"),
        ("dance1_subject2", "lafan1_dance1_subject2"),
        ("walk1_subject1[5:15]", "lafan1_walk1"),
        ("fallAndGetUp1_subject1[10:20]", "lafan1_fallAndGetUp1"),
        ("walk1_subject1~repaired", "lafan1_walk1_subject1_repaired"),
        ("walk1_subject1~repaired[5:15]", "lafan1_walk1_repaired"),
    ],
)  # fmt: skip
def test_policies_are_called_as_those_that_ship(motion, name):
    assert script.policy_name(motion) == name


def test_a_cut_by_a_short_name_has_the_policy_of_its_clip(data_dir, tmp_path):
    """`dance1` is the whole `dance1_subject1`: its policy is not that of the cut `dance1[0:10]`."""
    names = {}
    for motion in ("dance1", "dance1[0:10]"):
        [job] = script.jobs_of(script.Config(
            motion=(motion,), flags=("--no-motion",), policies=tmp_path, run_dir=tmp_path
        ))  # fmt: skip
        names[motion] = job.policy
    assert names == {"dance1": "lafan1_dance1_subject1", "dance1[0:10]": "lafan1_dance1"}
