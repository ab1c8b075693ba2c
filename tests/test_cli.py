"""What commands share: one-line errors with status 2, files that appear whole or not at all."""

import contextlib
import json
import os
import platform
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import warm_python
from hostile_limits import SECONDS
from hypothesis import given
from hypothesis import strategies as st

from bm_envs import cli
from bm_envs.cli import record
from bm_envs.errors import BMError, ConfigError, unknown_name

SCRIPT = """
import dataclasses
from typing import Literal
from bm_envs import cli
from bm_envs.errors import ConfigError, MotionError

@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1
    colour: Literal["red", "blue"] = "red"

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(f"size is {self.size}, expected 1 or more.")

@dataclasses.dataclass(frozen=True)
class Config:
    how: str = "well"
    \"\"\"How it ends.\"\"\"
    part: Part = Part()
    \"\"\"A group.\"\"\"

    def __post_init__(self):
        if self.how == "badly":
            raise ConfigError("how is 'badly', expected any other word.")

def main(config):
    if config.how == "refused":
        raise MotionError("walk.npz: joint_pos has shape (250, 23), expected (T, 29).")
    if config.how == "defect":
        raise RuntimeError("a defect of ours")
    if config.how == "interrupted":
        raise KeyboardInterrupt
    if config.how == "status":
        return 1
    print("done", config.how)

if __name__ == "__main__":
    cli.run(main, Config)
"""


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(SCRIPT)

    def run(*arguments):
        return warm_python.run(
            [sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
            timeout=300,
        )

    return run


def test_success(command):
    done = command("--how", "fine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done fine\n", "")


def test_bad_input_is_one_line_and_status_2(command):
    done = command("--how", "refused")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: walk.npz: joint_pos has shape (250, 23), expected (T, 29).\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--how", "badly", "how is 'badly', expected any other word."),
        ("--part.size", "0", "size is 0, expected 1 or more."),
    ],
)
def test_what_a_config_class_refuses_is_one_line_too(command, flag, value, text):
    done = command(flag, value)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {text}\n")


def test_a_seed_that_no_generator_takes_is_refused():
    cli.check_seed(SimpleNamespace(seed=0))
    with pytest.raises(ConfigError, match="seed is -1, expected 0 or more"):
        cli.check_seed(SimpleNamespace(seed=-1))
    with pytest.raises(ConfigError, match="more than 62 bits"):
        cli.check_seed(SimpleNamespace(seed=10**23))


def test_a_real_command_refuses_its_settings_in_one_line():
    root = Path(cli.__file__).parents[2]
    done = warm_python.run(
        [sys.executable, str(root / "algos" / "ppo_track.py"), "--total-timesteps", "5"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: total_timesteps 5 is less than one iteration of num_envs \* num_steps = \d+\.\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--part.size", "many"], ["--part.size", "'many'"]),
        (["--part.size"], ["Missing value", "--part.size"]),
        (["--part.colour", "mauve"], ["invalid choice 'mauve'", "--part.colour", "'red'"]),
        (["--no-such-flag", "1"], ["Unrecognized", "--no-such-flag, 1; "]),
        (["--part.sise", "1"], ["Unrecognized", "--part.sise, 1 (perhaps --part.size); "]),
        (["stray"], ["Unrecognized", "stray"]),
        (["--no-clip-vloss"], ["Unrecognized", "; --no-clip-vloss of 0.1 is no setting any more"]),
        (["--gamma", "0.9"], ["; --gamma of 0.1 is no setting any more: leave it out (CHANGELOG"]),
    ],
)
def test_a_bad_flag_is_one_line_too(command, arguments, texts):
    done = command(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"error: [^\n│─]*; --help lists the flags\.\n", done.stderr)
    assert all(text in done.stderr for text in texts)


def test_what_is_missing_is_named_in_one_line():
    script = Path(cli.__file__).parents[2] / "tools" / "hub.py"
    done = warm_python.run(
        [sys.executable, str(script), "pull"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: Missing from \S*hub.py pull: OWNER/NAME\[@REVISION\], FOLDER; --help lists the "
        r"flags\.\n",
        done.stderr,
    )


def test_a_defect_keeps_its_traceback(command):
    done = command("--how", "defect")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "a defect of ours" in done.stderr


def test_help_interrupt_and_own_status(command):
    helped = command("--help")
    assert helped.returncode == 0 and "How it ends." in helped.stdout
    assert command("--how", "interrupted").returncode == 130
    assert command("--how", "status").returncode == 1


# --- files ---------------------------------------------------------------------------------------


def test_atomic_path_replaces_at_the_end_only(tmp_path):
    target = tmp_path / "deep" / "out.json"
    with cli.atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["out.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_atomic_path_leaves_nothing_behind_on_failure(tmp_path):
    target = tmp_path / "out.npz"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), cli.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.npz"]


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "out.json"  # a file where a folder is wanted
    with pytest.raises(BMError, match=re.escape(f"{target}: cannot be written (")):
        cli.write_json(target, {})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan_and_keeps_the_old_file(tmp_path, value):
    target = tmp_path / "out.json"
    cli.write_json(target, {"value": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        cli.write_json(target, {"value": value})
    assert json.loads(target.read_text()) == {"value": 1.5}
    assert os.listdir(tmp_path) == ["out.json"]


def test_figures_of_tables():
    assert cli.figure(0.1234, 2) == "0.12" and cli.figure(5.5, 0) == "6"
    assert cli.figure(None, 1) == "-" and cli.figure(None, 1, "not told") == "not told"


def test_aligned_columns():
    assert cli.aligned([("motion", "s"), ("a", "10.5"), ("longer one", "")]) == (
        "motion      s\na           10.5\nlonger one"
    )


# --- result records ------------------------------------------------------------------------------


def test_result_record_has_the_fixed_keys(tmp_path):
    rows = [{"what": "env", "num_envs": 8}]
    result = cli.json_result("throughput", seed=3, rows=rows)
    assert list(result) == [
        "kind", "created", "command", "commit", "seed", "versions", "machine", "rows",
    ]  # fmt: skip
    assert (result["kind"], result["seed"], result["rows"]) == ("throughput", 3, rows)
    assert datetime.fromisoformat(result["created"]).utcoffset() is not None
    assert set(result["machine"]) == {"processor", "bfloat16", "cores", "gpu"}
    assert result["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert result["versions"]["python"] == platform.python_version()
    assert {"mujoco", "numpy", "gymnasium"} <= set(result["versions"])
    cli.write_json(tmp_path / "result.json", result)
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_the_record_of_a_machine_says_what_pytorch_says_of_bfloat16():
    torch = pytest.importorskip("torch")
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities or not Path("/proc/cpuinfo").exists():
        pytest.skip("nothing to compare with: it wants PyTorch 2.10 and Linux")
    from bm_envs.learning.networks import has_native_bfloat16

    assert cli.machine()["bfloat16"] is has_native_bfloat16(torch.device("cpu"))


def test_result_record_names_no_path_and_no_host(monkeypatch):
    root = Path(cli.__file__).resolve().parents[2]
    monkeypatch.setattr(sys, "argv", [str(root / "benchmarks" / "track.py"), "--policy", "walk"])
    result = cli.json_result("track", seed=None, rows=[])
    assert result["command"] == "python benchmarks/track.py --policy walk"
    text = json.dumps(result)
    for secret in (str(root), str(Path.home()), socket.gethostname()):
        assert secret not in text
    assert result["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", result["commit"])


def test_a_recorded_command_tells_no_path_from_the_machines_root(monkeypatch, tmp_path):
    root = Path(cli.__file__).resolve().parents[2]
    arguments = [
        "--policy", str(root / "runs" / "walk"), f"--json={tmp_path / 'out.json'}", "--motion",
        str(tmp_path / "jump.npz"), "--flags=--seed=3", "walk[0:3]",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(root / "benchmarks" / "track.py"), *arguments])
    expected = "--policy runs/walk --json=out.json --motion jump.npz --flags=--seed=3 'walk[0:3]'"
    assert cli.command_line() == f"python benchmarks/track.py {expected}"


def test_commit_marks_a_changed_tree(tmp_path, monkeypatch):
    module = tmp_path / "bm_envs" / "cli" / "record.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(record, "__file__", str(module))
    assert cli.commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(git + arguments, check=True)
    first = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert cli.commit() == first
    (tmp_path / "untracked").write_text("")
    assert cli.commit() == first
    module.write_text("changed")
    assert cli.commit() == first + "+"


# --- error texts ---------------------------------------------------------------------------------


def test_unknown_name_lists_close_matches():
    assert unknown_name("motion", "dnace1", ["dance1", "walk", "stand"]) == (
        "Unknown motion 'dnace1'; did you mean 'dance1'? Known: dance1, stand, walk."
    )
    many = [f"clip{i}" for i in range(40)]
    assert unknown_name("motion", "zzz", many, "Run tools/replay.py --list.") == (
        "Unknown motion 'zzz'; 40 are known. Run tools/replay.py --list."
    )
    assert unknown_name("preset", "zzz", ["a", "b"]) == "Unknown preset 'zzz'; known: a, b."


def test_the_error_tree():
    assert issubclass(ConfigError, BMError) and issubclass(BMError, ValueError)


class ReadingError(BMError):
    """Of these tests."""


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe1\0", b'{"a": \x80}', b"[" * 100_000, b"[" * 66 + b"]" * 66,
        b'{"a":' * 66 + b"1" + b"}" * 66, b"1" * 310, b"1" * 1_000_000, b"[1] [2]", b"[NaN]",
        b"[1e999]", b'{"a": 1, "b": 2, "a": 1}', b'["\\ud800"]', b'{"\\udc00": 1}',
    ],
)  # fmt: skip
def test_json_that_may_be_anybodys_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(
        ReadingError, match=re.escape(f"{path}: not a readable JSON file (")
    ) as told:
        cli.read_json(path, ReadingError)
    assert len(str(told.value).splitlines()) == 1 and len(str(told.value)) < 400


def test_a_megabyte_of_json_takes_little_time(tmp_path):
    """Among them what made a search for a key that comes twice take its square."""
    path = tmp_path / "value.json"
    many = ",".join(f'"{i}":0' for i in range(80_000))
    for content in ("[" + "[]," * 333_000 + "[]]", "{" + many + ',"79999":1}', '"' + "a" * 10**6):
        path.write_text(content)
        tick = time.process_time()
        with contextlib.suppress(ReadingError):
            cli.read_json(path, ReadingError)
        # Some tenth of a second each; the square was minutes.
        assert time.process_time() - tick < SECONDS


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20,
)  # fmt: skip


@given(JSON_VALUES)
def test_json_that_is_fine_is_never_changed(value):
    assert cli.parse_json(json.dumps(value)) == value


# --- what the system refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("FileNotFoundError(2, 'No such file or directory', 'a\\nb')",
         "a\\nb: No such file or directory."),
        ("OSError(28, 'No space left on device')",
         "The operating system refused: No space left on device."),
        ("ConnectionRefusedError(111, 'Connection refused')",
         "The operating system refused: Connection refused."),
        ("MemoryError('Unable to allocate 9 TiB')",
         "The memory of this machine is not enough (Unable to allocate 9 TiB)."),
        ("BMError('x\\x1b[31m: is red.')", "x\\x1b[31m: is red."),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_sentence(tmp_path, error, sentence):
    done = run_main(tmp_path, f"raise {error}")
    assert (done.returncode, done.stderr) == (2, f"error: {sentence}\n")


def run_main(tmp_path, body, **options):
    script = tmp_path / "command.py"
    script.write_text(
        "import dataclasses, os, signal, sys, time\n"
        "from bm_envs import cli\n"
        "from bm_envs.errors import BMError\n"
        "Config = dataclasses.make_dataclass('Config', [])\n"
        f"def main(config):\n    {body}\n"
        "cli.run(main, Config)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    return subprocess.run(
        [sys.executable, str(script)], env=environment, timeout=300, text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_command_that_tidies_up(tmp_path, name):
    out = tmp_path / "out.json"
    body = f"""
    with cli.atomic_path({str(out)!r}):
        os.kill(os.getpid(), signal.{name})
        time.sleep(60)"""
    done = run_main(tmp_path, body)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["command.py"]


def test_what_nohup_ignores_stays_ignored(tmp_path):
    script = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    done = run_main(tmp_path, "os.kill(os.getpid(), signal.SIGHUP); print('lives')",
                    preexec_fn=lambda: eval(script))  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "lives\n")


def test_a_reader_that_has_enough_ends_a_command_in_silence(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = run_main(tmp_path, "print('x' * 100_000)", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_the_output_is_one_sentence(tmp_path):
    with open("/dev/full", "w") as full:
        done = run_main(tmp_path, "print('x')", stdout=full)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: The operating system refused: No space left on device."
    )


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    handle = os.open(tmp_path / "pipe", os.O_RDWR)
    cli.write_json(tmp_path / "pipe", [1])
    assert os.read(handle, 100) == b"[\n 1\n]\n"
    os.close(handle)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_names_that_are_no_text_are_printed(tmp_path):
    done = run_main(tmp_path, "print(os.fsdecode(b'a' + bytes([255])))")
    assert (done.returncode, done.stdout) == (0, "a\\udcff\n")
