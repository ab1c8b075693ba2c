"""The folder of a training run that may be killed and resumed: whose it is, and what lies in it.

One process at a time holds a run's folder (`claim_run`). In it are the checkpoint, which knows its
own SHA-256, the metrics and TensorBoard's events. A checkpoint holds tensors, numbers and strings
alone, so that loading one runs no code. Needs the extra `train`.

One file because holding, reading, writing and leaving a folder keep one promise together: whatever
kills a run, and whoever else starts one, its checkpoint stays whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import json
import math
import os
import shlex
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs import cli
from bm_envs.errors import BMError, BMWarning, ConfigError, PolicyError
from bm_envs.learning.settings import same_settings, told_difference
from bm_envs.policy.archive import check_archive

# --- the checkpoint -------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint with its SHA-256, whole or not at all; NumPy arrays become tensors.

    Raises:
        BMError: it cannot be written.
    """
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.array(value, order="C"))
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    with cli.atomic_path(path) as temporary:
        # This stream's errors are the system's. Given a path, PyTorch writes by itself and reports
        # a full disk as a defect.
        with temporary.open("wb") as stream:
            try:
                torch.save(plain(state), stream)
            except RuntimeError as error:
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else error from None
        cli.seal_zip(temporary)


def load_checkpoint(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read a checkpoint that has these `keys`; anything but plain data is refused.

    One without a SHA-256, of 0.1, is held to the checksums of its parts.

    Raises:
        PolicyError: it cannot be read, is damaged, or is another script's.
    """
    import torch

    check_archive(path)
    refused = f"{path}: not a readable checkpoint of this script"
    try:
        damage = cli.zip_damage(path)
    except OSError as error:
        raise PolicyError(f"{refused} ({cli.os_reason(error)}).") from None
    if damage is not None:
        raise PolicyError(f"{refused} ({damage}); put back a copy of it, or begin a new run.")
    try:
        state = dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise PolicyError(f"{refused} ({type(error).__name__}).") from error
    if absent := [key for key in keys if key not in state]:
        raise PolicyError(
            f"{refused} (it has no '{absent[0]}'): it is another script's or an earlier version's, "
            "with which no run can go on; begin a new run."
        )
    return state


def as_arrays(value: Any) -> Any:
    """Tensors in nested dictionaries and lists as NumPy arrays."""
    import torch

    if isinstance(value, Mapping):
        return {key: as_arrays(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_arrays(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) else value


# --- whose the folder is --------------------------------------------------------------------------

LOCK = ".lock"
WRITTEN = ("checkpoint", "metrics", "config", "policy", "denoiser")  # names without suffixes
STOPPING = (
    b"\ninterrupted: this iteration is finished and saved first; Ctrl-C once more ends at once\n"
)


class FolderHeld(ConfigError):
    """Another process is at work in a folder, and will be for as long as it lives."""


class _Held(Exception):  # noqa: N818
    """What `FolderHeld` says, and what the other process wrote of itself."""

    def __init__(self, note: dict[str, Any]) -> None:
        super().__init__(note)
        self.note = note

    def __str__(self) -> str:
        known = [f"process {self.note['pid']}"] if isinstance(self.note.get("pid"), int) else []
        if isinstance(self.note.get("since"), str):
            known.append(f"since {self.note['since'][:25]}")
        return f" ({', '.join(known)})" if known else ""


def _try_lock(handle: int) -> None:
    """Lock an open file for this process; BlockingIOError where another has it.

    The system lets go of it when the process ends, however it ends. Over NFS it holds between
    machines too, where the server has locks at all.
    """
    try:
        import fcntl
    except ImportError:  # Windows, whose locks keep others from reading: so, far behind the content
        import msvcrt

        os.lseek(handle, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        except OSError:
            raise BlockingIOError from None
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def held_folder(folder: Path, settings: str = "") -> Iterator[None]:
    """Make a folder and hold it: no other process can at the same time.

    The folder goes again, as does the lock's file, if the block fails with nothing written.

    Args:
        folder: where the block writes.
        settings: of the run, for another process to compare with its own.

    Raises:
        ConfigError: the folder cannot be made or written.
        _Held: another process holds it; `claim_run` and `claim_folder` say so in a sentence.
    """
    path = folder / LOCK
    handle = -1
    made: list[Path] = []
    try:
        made = [part for part in (folder, *folder.parents) if not part.exists()]
        cli.make_folder(folder)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _try_lock(handle)
            except BlockingIOError:
                note = os.read(handle, 100_000)
                os.close(handle)
                with contextlib.suppress(ValueError):
                    content = cli.parse_json(note.decode())
                    raise _Held(content if isinstance(content, dict) else {}) from None
                raise _Held({}) from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                warnings.warn(
                    f"{folder}: this file system has no locks ({cli.os_reason(error)}), so that "
                    "nothing keeps a second training out of this folder.", BMWarning, stacklevel=2,
                )  # fmt: skip
                break
            # Its holder may have removed it between our opening and locking: then it is no lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    break
            os.close(handle)
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        note = json.dumps({"pid": os.getpid(), "since": since, "settings": settings})
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, note.encode())
    except (OSError, ValueError) as error:
        if handle >= 0 and not isinstance(error, _Held):
            with contextlib.suppress(OSError):
                os.close(handle)
        _remove_empty(made)
        raise ConfigError(f"{folder}: cannot be written ({cli.os_reason(error)}).") from None
    failed = True
    try:
        yield
        failed = False
    finally:
        # The lock is removed while it is held, so that who waits for it sees that it is gone.
        # Windows removes no open file, and closes it first.
        if os.name == "nt":
            os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        if os.name != "nt":
            os.close(handle)
        if failed:
            _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:  # the innermost first
        with contextlib.suppress(OSError, ValueError):
            folder.rmdir()


@contextlib.contextmanager
def claim_folder(folder: Path, flag: str, written: Sequence[str]) -> Iterator[None]:
    """Hold a folder for a command that writes files with these names (patterns) there.

    Raises:
        ConfigError: it cannot be written.
        FolderHeld: another process holds it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held_folder(folder))
        except _Held as held:
            raise _occupied(folder, held, flag) from None
        cli.remove_leftovers(folder, written)
        yield


def _occupied(folder: Path, held: _Held, flag: str) -> FolderHeld:
    return FolderHeld(
        f"{folder}: another process is writing there{held}; wait for its end, or choose another "
        f"{flag}."
    )


class Run:
    """A run's folder, which this process holds, and whether the run has been asked to end."""

    def __init__(self, path: Path, saved: dict[str, Any] | None) -> None:
        self.path, self.saved = path, saved
        self.checkpoint = path / "checkpoint.pt"
        self.further_advice = ""
        """What else can be done with a run that was interrupted."""
        self.asked: int | None = None
        """The signal that asked for the end; the loop then saves and calls `leave`."""
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on an ending signal sets `asked`, and a second Ctrl-C interrupts.

        Only where a signal would have ended the command: not in a thread, and not under a program
        that handles it itself.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        ours = (signal.default_int_handler, cli.raise_interrupted)
        for number in (signal.SIGINT, *cli.ENDING_SIGNALS):
            if (handler := signal.getsignal(number)) in ours:
                self._before[number] = handler
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        # `torchrun` passes a Ctrl-C on as SIGTERM, so that only the same key twice is impatience.
        if self.asked == number == signal.SIGINT:
            raise cli.Interrupted(number)
        if self.asked is None:
            self.asked = number
            with contextlib.suppress(OSError):  # a terminal that is gone is the reason for SIGHUP
                os.write(2, STOPPING)  # a handler must not write to a stream that may be in use

    def stop_listening(self) -> None:
        """Back to what was before `listen`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def leave(self, done: str) -> None:
        """End here, with the checkpoint written, if the run has been asked to.

        Args:
            done: how far it is, such as "1,000 steps".
        """
        if self.asked is not None:
            raise cli.Interrupted(self.asked, f"{self.path} keeps {done}; {self.advice}")

    @property
    def advice(self) -> str:
        """How to go on, and what else there is to do."""
        further = f"; {self.further_advice}" if self.further_advice else ""
        flags = shlex.join(["--resume", "--run-dir", str(self.path)])
        return f"to go on, add {flags} to the same command{further}"


def _check_finite(config: Any, prefix: str = "") -> None:
    """Refuse settings that no record of a run can hold."""
    for item in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            _check_finite(value, f"{prefix}{item.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{prefix}{item.name} is {value}, expected a finite number.")


@contextlib.contextmanager
def claim_run(
    config: Any, name: str, settings: str, key: str, keys: Sequence[str], kind: str,
    processes: Any = None,
) -> Iterator[Run]:  # fmt: skip
    """Hold the folder of a run and read its checkpoint, if there is one.

    Without `--run-dir` it is `runs/<name>`; a run of that name with other settings or motions goes
    to `runs/<name>__2` and so on, where its `--resume` finds it.

    Args:
        config: a `RunConfig`; its `run_dir` and `resume` are read.
        name: of the folder.
        settings: all that a checkpoint must have in common with this run, as text.
        key: the checkpoint's name for its settings.
        keys: what a checkpoint of the script has.
        kind: what `settings` are, for a message: "settings or motions".
        processes: of the run, of which the first holds the folder for all.

    Raises:
        ConfigError: there is a run and no `--resume`, or a setting is NaN or infinite.
        FolderHeld: another process is at work there.
        PolicyError: the checkpoint cannot be read.
    """
    _check_finite(config)
    with contextlib.ExitStack() as stack:
        run, refused = None, None
        if processes is None or processes.rank == 0:
            try:
                run = _claim(stack, config, name, settings, key, keys, kind)
            except BMError as error:
                refused = error
        if processes is not None:
            outcome = processes.broadcast((run and str(run.path), refused and str(refused)))
            if processes.rank and outcome[1] is not None:
                raise ConfigError(outcome[1])
            if processes.rank:
                run = Run(Path(outcome[0]), None)
                if run.checkpoint.exists():
                    run.saved = load_checkpoint(run.checkpoint, keys)
        if refused is not None:
            raise refused
        assert run is not None
        stack.callback(run.stop_listening)
        try:
            yield run
        except KeyboardInterrupt as end:
            if isinstance(end, cli.Interrupted) and end.kept:
                raise
            number = end.signal if isinstance(end, cli.Interrupted) else signal.SIGINT
            kept = "nothing was saved yet"
            if run.checkpoint.exists():
                kept = f"{run.path} keeps what was saved last; {run.advice}"
            raise cli.Interrupted(number, kept) from None


def _claim(
    stack: contextlib.ExitStack, config: Any, name: str, settings: str, key: str,
    keys: Sequence[str], kind: str,
) -> Run:  # fmt: skip
    searching = config.run_dir is None
    first = config.run_dir or Path("runs") / _file_name(name)
    other = ConfigError(f"{first / 'checkpoint.pt'} is of a run with other {kind}.")
    damaged: PolicyError | None = None
    for i in count(1):
        folder = first if i == 1 else Path(f"{first}__{i}")
        checkpoint = folder / "checkpoint.pt"
        if i > 1 and config.resume and not checkpoint.exists():
            raise damaged or other  # none of them is this run's
        with contextlib.ExitStack() as hold:
            try:
                hold.enter_context(held_folder(folder, settings))
            except _Held as held:
                if searching and not same_settings(held.note.get("settings"), settings):
                    continue
                raise _occupied(folder, held, "--run-dir") from None
            saved = None
            if checkpoint.exists():
                if config.resume or searching:
                    try:
                        saved = load_checkpoint(checkpoint, keys)
                    except PolicyError as error:
                        if not searching:
                            raise
                        damaged = damaged or error
                        continue
                    if not same_settings(saved.get(key), settings):
                        if not searching:
                            raise ConfigError(
                                f"{checkpoint} is of a run with other {kind}"
                                f"{told_difference(saved.get(key), settings)}."
                            )
                        continue
                if not config.resume:
                    raise ConfigError(
                        f"{folder} holds a run already: add --resume, or choose another --run-dir."
                    )
            cli.remove_leftovers(folder, WRITTEN)
            stack.push(hold.pop_all())
            if i > 1:
                print(f"{first} holds a run with other {kind}: this is {folder}")
            return Run(folder, saved)
    raise AssertionError  # `count` has no end


def _file_name(name: str) -> str:
    """`name` as that of a folder, less what a file name cannot hold."""
    plain = "".join("_" if c in "/\\\0" or not c.isprintable() else c for c in name)
    return plain.encode()[:200].decode(errors="ignore")
