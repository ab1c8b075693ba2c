"""A run's folder: who holds it, what a checkpoint tells of its damage, what a kill leaves."""

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bm_envs import cli
from bm_envs.errors import BMError, BMWarning, ConfigError, PolicyError
from bm_envs.learning.folder import LOCK, claim_run, load_checkpoint, save_checkpoint
from bm_envs.learning.log import RunLog, read_metrics
from bm_envs.learning.settings import same_settings, told_difference

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("task", "actor")


def state(task="settings"):
    rng = np.random.default_rng(0)
    return {
        "task": task, "iteration": 7, "share": 0.25, "done": [1, 2],
        "actor": {"w": torch.tensor(rng.normal(size=(8, 8)), dtype=torch.float32)},
        "robots": {"qpos": rng.normal(size=(3, 5)), "flags": np.array([True, False])},
    }  # fmt: skip


def plain(value):
    """Content that `==` compares."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    return value


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_and_others_can_read_it(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state())
    loaded = load_checkpoint(path, KEYS)
    assert torch.equal(loaded["actor"]["w"], state()["actor"]["w"])
    np.testing.assert_array_equal(loaded["robots"]["qpos"].numpy(), state()["robots"]["qpos"])
    assert plain(torch.load(path, weights_only=True)) == plain(loaded)
    assert zipfile.ZipFile(path).testzip() is None
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_0_1_has_no_seal_and_loads(tmp_path):
    torch.save({"task": "t", "actor": {"w": torch.ones(3)}}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt", KEYS)["task"] == "t"


@pytest.mark.parametrize("sealed", [True, False])
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, sealed):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state())
    whole = load_checkpoint(path, KEYS)
    if not sealed:
        torch.save(whole, path)
    content = path.read_bytes()
    refused = 0
    rng = np.random.default_rng(1)
    positions = range(0, len(content), 3)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path, KEYS)
        except PolicyError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and str(path) in str(error)
        else:
            assert plain(found) == plain(whole), position
    if sealed:  # all are seen but those in the 15 letters that say that there is a seal
        assert refused >= len(positions) - 5
    else:  # at least those in tensors, which are the most of a checkpoint
        assert refused > len(positions) / 4


def test_a_checkpoint_without_what_the_script_needs_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state())
    with pytest.raises(PolicyError, match="it has no 'critic'.*an earlier version's.*a new run"):
        load_checkpoint(path, ("task", "critic"))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_checkpoint_that_was_cut_off_is_refused(tmp_path, kept):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, state())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(PolicyError, match="not a readable checkpoint of this script"):
        load_checkpoint(path, KEYS)


def test_an_archive_that_unpacks_to_much_more_is_refused_at_once(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(200_000_000))
    assert path.stat().st_size < 10**6
    tick = time.process_time()
    with pytest.raises(PolicyError, match="unpacks to 191 MiB, more than 4 times its size"):
        load_checkpoint(path, KEYS)
    assert time.process_time() - tick < 1.0


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="No such file or directory"):
        load_checkpoint(tmp_path / "none.pt", KEYS)
    with pytest.raises(PolicyError, match="Is a directory"):
        load_checkpoint(tmp_path, KEYS)


# --- writing --------------------------------------------------------------------------------------

FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from bm_envs import cli
from bm_envs.learning.folder import save_checkpoint

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
signal = __import__("signal")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def main(config):
    if path.suffix == ".pt":
        save_checkpoint(path, {"w": np.zeros(100_000)})
    elif path.suffix == ".json":
        cli.write_json(path, list(range(100_000)))
    else:
        with cli.atomic_path(path) as temporary:
            np.savez(temporary, w=np.zeros(100_000))

import dataclasses
Config = dataclasses.make_dataclass("Config", [])
sys.argv = sys.argv[:1]
cli.run(main, Config)
"""


@pytest.mark.parametrize("name", ["checkpoint.pt", "out.json", "out.npz"])
def test_a_full_disk_is_one_sentence_and_leaves_the_file_that_was_there(tmp_path, name):
    """A limit on a file's size fails as a full disk does: in the middle of a write."""
    path = tmp_path / name
    path.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, f"error: {path}: cannot be written (File too large).\n",
    )  # fmt: skip
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_place_where_no_file_can_be_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder.json").mkdir()
    for name, reason in (
        ("folder.json", "Is a directory"),
        ("file/out.json", "Not a directory"),
        ("loop/out.json", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ):
        worked = False
        with pytest.raises(BMError, match=rf"cannot be written \({reason}\)\."):  # noqa: SIM117
            with cli.atomic_path(tmp_path / name):
                worked = True
        assert not worked
    assert not list(tmp_path.glob(".*"))


def test_an_error_of_the_work_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), cli.atomic_path(tmp_path / "out.txt"):
        (tmp_path / "input.txt").read_text()
    with pytest.raises(ZeroDivisionError), cli.atomic_path(tmp_path / "out.txt"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


# --- whose the folder is --------------------------------------------------------------------------


@dataclasses.dataclass
class Config:
    run_dir: Path | None = None
    resume: bool = False
    learning_rate: float = 1e-3


def claim(settings="settings", **config):
    return claim_run(Config(**config), "walk__x__1", settings, "task", KEYS, "settings or motions")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_no_record_can_hold_is_refused_before_a_folder_is_made(tmp_path, value):
    with pytest.raises(ConfigError, match="learning_rate is .*expected a finite number"):  # noqa: SIM117
        with claim(run_dir=tmp_path / "run", learning_rate=value):
            pass
    assert not (tmp_path / "run").exists()


HOLD = """
import sys, time
from pathlib import Path
from bm_envs.learning.folder import claim_folder, save_checkpoint
folder = Path(sys.argv[1])
with claim_folder(folder, "--out", ()):
    (folder / ".checkpoint.0a1b2c3d.pt").write_text("cut off")
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_holds_a_folder_and_a_killed_one_lets_go(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(ConfigError) as refused, claim(run_dir=folder, resume=resume):
                pass
            assert re.fullmatch(
                re.escape(f"{folder}: another process is writing there (process {other.pid}, since")
                + r" \S+\); wait for its end, or choose another --run-dir\.",
                str(refused.value),
            )
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    # The killed one left its lock's file and half a checkpoint. Neither stays.
    assert {path.name for path in folder.iterdir()} == {LOCK, ".checkpoint.0a1b2c3d.pt"}
    (folder / ".checkpoint.mine.pt").write_text("not a name of ours")
    with claim(run_dir=folder) as run:
        assert run.path == folder and run.saved is None
        assert {path.name for path in folder.iterdir()} == {LOCK, ".checkpoint.mine.pt"}
    assert [path.name for path in folder.iterdir()] == [".checkpoint.mine.pt"]


def test_many_takers_are_one_at_a_time(tmp_path):
    """Processes that come and go never are two in a folder, though each removes the lock's file."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from bm_envs.learning.folder import claim_folder\n"
        "from bm_envs.errors import ConfigError\n"
        "folder, taken = Path(sys.argv[1]), 0\n"
        "while taken < 200:\n"
        "    try:\n"
        "        with claim_folder(folder, '--out', ()):\n"
        "            os.close(os.open(folder / 'one', os.O_CREAT | os.O_EXCL))\n"
        "            (folder / 'one').unlink()\n"
        "            taken += 1\n"
        "    except ConfigError:\n"
        "        pass\n"
    )
    folder = tmp_path / "run"
    takers = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)],
                         env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(3)
    ]  # fmt: skip
    assert [taker.wait(timeout=300) for taker in takers] == [0, 0, 0]


def test_a_refusal_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(run_dir=tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with pytest.raises(ZeroDivisionError), claim(run_dir=tmp_path / "a" / "b") as run:
        save_checkpoint(run.checkpoint, state())
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_cannot_be_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "odd" / LOCK).mkdir(parents=True)
    for name, reason in (
        ("file", "Not a directory"), ("file/run", "Not a directory"), ("odd", "Is a directory"),
        ("loop", "Not a directory"), ("loop/run", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"), ("a\0b", "embedded null byte"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"cannot be written \({reason}\)\."):  # noqa: SIM117
            with claim(run_dir=tmp_path / name):
                pass


def test_where_there_are_no_locks_the_run_goes_on_with_a_warning(tmp_path, monkeypatch):
    def no_locks(handle):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("bm_envs.learning.folder._try_lock", no_locks)
    with pytest.warns(BMWarning, match="has no locks"), claim(run_dir=tmp_path) as run:
        assert run.path == tmp_path


def test_a_given_folder_is_the_one_that_is_used(tmp_path):
    with claim(run_dir=tmp_path) as run:
        save_checkpoint(run.checkpoint, state())
    with pytest.raises(ConfigError, match="holds a run already: add --resume, or choose another"):  # noqa: SIM117
        with claim(run_dir=tmp_path):
            pass
    with claim(run_dir=tmp_path, resume=True) as run:
        assert run.saved is not None and run.saved["iteration"] == 7
    with pytest.raises(ConfigError, match="is of a run with other settings or motions"):  # noqa: SIM117
        with claim("others", run_dir=tmp_path, resume=True):
            pass


def test_the_default_folder_tells_runs_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def begin(settings, **config):
        with claim(settings, **config) as run:
            save_checkpoint(run.checkpoint, state(settings))
            return run.path

    def resumed(settings):
        with claim(settings, resume=True) as run:
            assert run.saved is not None and run.saved["task"] == settings
            return run.path

    base = Path("runs/walk__x__1")
    assert begin("a") == base
    assert begin("b") == Path(f"{base}__2")
    assert capsys.readouterr().out == (
        f"{base} holds a run with other settings or motions: this is {base}__2\n"
    )
    assert begin("c") == Path(f"{base}__3")
    for settings, folder in (("a", base), ("b", f"{base}__2"), ("c", f"{base}__3")):
        assert resumed(settings) == Path(folder)
        with pytest.raises(ConfigError, match=re.escape(f"{folder} holds a run already")):
            begin(settings)
    with pytest.raises(ConfigError, match="is of a run with other settings or motions"):
        resumed("d")
    assert not Path(f"{base}__4").exists()
    # One that is at work, and has no checkpoint yet.
    with claim("d") as working:
        assert working.path == Path(f"{base}__4")
        with pytest.raises(ConfigError, match="another process is writing there"):
            begin("d")
        assert begin("e") == Path(f"{base}__5")
    # A damaged checkpoint is nobody's to overwrite, and resuming says what is wrong with it.
    (base / "checkpoint.pt").write_bytes(b"PK")
    assert begin("a") == Path(f"{base}__4")
    (Path(f"{base}__4") / "checkpoint.pt").unlink()
    with pytest.raises(PolicyError, match="not a readable checkpoint"):
        resumed("a")


# --- figures --------------------------------------------------------------------------------------


def test_metrics_that_a_kill_cut_off_go_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "re')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    log = RunLog(tmp_path, 1)
    log.write(2, {"a": 0.5})
    log.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "a": 0.5}]


@pytest.mark.parametrize(
    "odd", [b"\0" * 4096, b'{"step": 2, "a"', b'{"step": "two"}', b"[" * 5000, b"\xff\xfe", b"{}"]
)
def test_a_line_that_is_no_row_is_left_out_with_a_warning(tmp_path, odd):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + odd + b'\n{"step": 3}\n')
    with pytest.warns(BMWarning, match=r"metrics\.jsonl: 1 line is no row of figures"):
        assert [row["step"] for row in read_metrics(path)] == [1, 3]


def test_metrics_that_are_no_file_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        read_metrics(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_full_in_the_middle_of_a_run_is_one_sentence(tmp_path):
    log = RunLog(tmp_path, 0)
    log.write(1, {"a": 0.5})
    log._file.close()
    log._file = open("/dev/full", "a")
    with pytest.raises(BMError, match=r"metrics\.jsonl: cannot be written \(No space left on"):
        log.write(2, {"a": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]


# --- the clock ------------------------------------------------------------------------------------


def test_the_bar_goes_on_when_the_clock_is_set_back(capsys, monkeypatch):
    """By the wall's clock it would show nothing more for an hour, and then a wrong rate."""
    monkeypatch.setattr("bm_envs.cli.terminal.bar_interval", lambda: 0.0)
    bar = cli.progress_bar(100, 0)
    bar.update(1)
    set_back = time.time() - 3600
    monkeypatch.setattr("tqdm.std.time", lambda: set_back)
    monkeypatch.setattr(time, "time", lambda: set_back)
    time.sleep(0.02)
    bar.update(49)
    bar.close()
    shown = capsys.readouterr().err
    assert " 50/100" in shown and "-" not in shown.rsplit("[", 1)[1].split("<")[0]


def test_nothing_measures_time_by_the_clock_on_the_wall():
    found = [
        path.relative_to(ROOT)
        for folder in ("bm_envs", "algos", "benchmarks", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name not in ("converted.py", "store.py")  # they look at the times of files
        and re.search(r"\btime\.time(_ns)?\(|\bfrom time import .*\btime\b", path.read_text())
    ]
    assert found == []


def test_a_refused_run_is_told_what_differs():
    """By name, with both values; what an older checkpoint lacks has its default."""
    saved = json.dumps({"gamma": 0.99, "task": {"episode_s": 3.0, "noise": True}, "old": 1})
    now = json.dumps({
        "gamma": 0.5, "task": {"episode_s": 3.0, "noise": False}, "old": 1, "new": 2,
        "defaults": {"new": 2},
    })  # fmt: skip
    told = ": gamma is 0.5, there 0.99; task.noise is false, there true"
    assert told_difference(saved, now) == told
    assert not same_settings(saved, now)
    assert told_difference(saved, saved) == "" and same_settings(saved, saved)
    many = json.dumps({name: 1 for name in "abcde"})
    assert told_difference(many, json.dumps({name: 2 for name in "abcde"})) == (
        ": a is 2, there 1; b is 2, there 1; c is 2, there 1; and 2 more"
    )
    for odd in (None, "no JSON", "[1]", 7):
        assert told_difference(odd, now) == ""
