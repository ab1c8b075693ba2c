"""What commands share: argument parsing, one-sentence errors, atomic files, result records."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from bm_envs.errors import GL_REFUSED, BMError, BMWarning, ConfigError

ConfigT = TypeVar("ConfigT")
WARNING_LINES = 20


def run(
    main: Callable[[ConfigT], Any], config_class: type[ConfigT],
    presets: Mapping[str, Callable[[], ConfigT]] | None = None,
) -> None:  # fmt: skip
    """Parse the command line into `config_class` and call `main` with it.

    A `BMError` is printed as one line and ends the process with status 2, as tyro does for a bad
    flag; so is what the operating system refuses: a file, a folder, a full disk, a port, a peer,
    too little memory. Any other exception is a defect and keeps its traceback. SIGTERM and SIGHUP
    end a command as Ctrl-C does, so that it tidies up, and with their own status. An integer that
    `main` returns is the exit status. A `BMWarning` is printed as one line that begins `warning:`.

    Args:
        main: the command.
        config_class: a dataclass; its fields' texts are the help.
        presets: values that `--preset NAME` starts from, for classes with a field `preset`.
    """
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be text that they can take
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in ENDING_SIGNALS:
        # What was ignored stays so: `nohup` asks for it.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, raise_interrupted)
    try:
        if GL_REFUSED:
            raise ConfigError(
                f"MUJOCO_GL is '{GL_REFUSED[0]}', which MuJoCo does not know; unset it, or set it "
                "to egl, osmesa or glfw."
            )
        with warnings_as_lines():
            config = parse(config_class, presets)
            check_seed(config)
            check_outputs(config)
            status = main(config)
        sys.stdout.flush()  # a full disk or a closed pipe shows here at the latest
    except BMError as error:
        _refuse(str(error))
    except BrokenPipeError:
        # The reader of this command's output has enough, as `head` has. Python would complain once
        # more at its end, about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    except OSError as error:
        _refuse(os_sentence(error))
    except MemoryError as error:
        _refuse(f"The memory of this machine is not enough ({str(error) or 'none is left'}).")
    except KeyboardInterrupt as error:
        told, number = "interrupted", signal.SIGINT
        if isinstance(error, Interrupted):
            told, number = f"interrupted{error.kept and f': {error.kept}'}", error.signal
        _print_behind_bars(_one_line(told))
        sys.exit(128 + number)
    sys.exit(status if isinstance(status, int) else 0)


# Names of settings, the same in all commands, that are files to be written, and folders.
OUTPUT_FILES = ("json", "video", "plot", "chart", "strip", "npz", "onnx")
OUTPUT_FOLDERS = ("run_dir", "out")


def check_seed(config: Any) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        ConfigError: it is below 0 or has more than 62 bits.
    """
    seed = getattr(config, "seed", None)
    if isinstance(seed, int) and seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more.")
    if isinstance(seed, int) and seed >= 2**62:  # torch has 64 bits, and some add to a seed
        raise ConfigError("seed has more than 62 bits, expected less.")


def check_outputs(config: Any) -> None:
    """Refuse a setting that names a place where nothing can be written: before the work, not after.

    What fills up or goes away meanwhile is refused when it is written.

    Raises:
        ConfigError: no file, or no folder, can be there.
    """
    values = dict(vars(config)) if dataclasses.is_dataclass(config) else {}
    for part in list(values.values()):
        if dataclasses.is_dataclass(part):  # settings of the run, see `learning.run.RunConfig`
            values |= {k: v for k, v in vars(part).items() if k not in values}
    for name in (*OUTPUT_FILES, *OUTPUT_FOLDERS):
        path = values.get(name)
        if not isinstance(path, Path):
            continue
        is_folder = name in OUTPUT_FOLDERS
        number = 0
        try:
            there = next(part for part in (path, *path.absolute().parents) if os.path.lexists(part))
            mode = os.stat(there).st_mode
            if there != path or is_folder:
                if not stat.S_ISDIR(mode):
                    number = errno.ENOTDIR
                elif there != path and not os.access(there, os.W_OK | os.X_OK):
                    number = errno.EACCES
            elif stat.S_ISDIR(mode):
                raise ConfigError(f"{path} is a folder, expected the name of a file for --{name}.")
            if number:
                raise OSError(number, os.strerror(number))
            os.lstat(path)  # `lexists` says of a name that is too long only that it is not there
        except FileNotFoundError:
            pass  # it is to be made; or a link to what is not there, in whose place it comes
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: cannot be written ({os_reason(error)}).") from None


def _refuse(sentence: str) -> NoReturn:
    _print_behind_bars(f"error: {_one_line(sentence)}")
    sys.exit(2)


def _print_behind_bars(line: str) -> None:
    """A line on stderr, behind the end of a progress bar that would be drawn over it."""
    if (module := sys.modules.get("tqdm")) is not None:
        for bar in list(getattr(module.tqdm, "_instances", ())):
            bar.close()
    print(line, file=sys.stderr)


def _one_line(sentence: str) -> str:
    """A sentence for a terminal: a name in it may hold a line's end or a control character."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)


def os_sentence(error: OSError) -> str:
    """What the operating system refused, and why."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if names:
        return f"{' -> '.join(names)}: {os_reason(error)}."
    return f"The operating system refused: {os_reason(error)}."


ENDING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """The process was asked to end, by a signal or at the keyboard."""

    def __init__(self, number: int, kept: str = "") -> None:
        """`kept`: what stays of the work, and how to go on."""
        super().__init__(number, kept)
        self.signal, self.kept = number, kept


def raise_interrupted(number: int, frame: Any) -> None:
    """The handler of a signal that ends a command."""
    raise Interrupted(number)


@contextlib.contextmanager
def signals_end_at_once() -> Iterator[None]:
    """For a call that may wait outside of Python, where a handler of Python's would wait, too."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *ENDING_SIGNALS):
            if signal.getsignal(number) in (signal.default_int_handler, raise_interrupted):
                before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each `BMWarning` once, as one line on stderr; other warnings stay as they are.

    Of a folder of doubtful files the first `WARNING_LINES` are told and the others counted.
    """
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", BMWarning)
        other = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, BMWarning):
                other(message, category, *rest, **more)
                return
            line = _one_line(" ".join(str(message).split()))
            if line not in told and len(told) < WARNING_LINES:
                print(f"warning: {line}", file=sys.stderr, flush=True)
            told.add(line)

        warnings.showwarning = show
        try:
            yield
        finally:
            if len(told) > WARNING_LINES:
                print(f"warning: {len(told) - WARNING_LINES} more like these.", file=sys.stderr)


def parse(
    config_class: type[ConfigT], presets: Mapping[str, Callable[[], ConfigT]] | None = None,
    arguments: Sequence[str] | None = None,
) -> ConfigT:  # fmt: skip
    """`arguments`, by default the command line's, as a `config_class`; see `run`.

    Raises:
        BMError: a flag is unknown, missing or malformed, or a class refused its values in
            `__post_init__`. That is a ValueError, which tyro takes for a malformed flag.
    """
    import tyro

    arguments = sys.argv[1:] if arguments is None else arguments
    default: ConfigT | None = None
    if presets:
        # Flags override the preset, wherever on the line it stands: so it is read first. tyro
        # checks the name again and prints its own message for an unknown one.
        given = [a.partition("=")[2] for a in arguments if a.startswith("--preset=")]
        given += [b for a, b in pairwise(arguments) if a == "--preset"]
        if given and given[-1] in presets:
            default = presets[given[-1]]()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            if default is None:
                return tyro.cli(config_class, args=arguments)
            return tyro.cli(config_class, args=arguments, default=default)
    except SystemExit as end:
        cause = end.__context__
        while cause is not None and not isinstance(cause, BMError):
            cause = cause.__context__
        told = printed.getvalue()
        if cause is None and end.code and (sentence := _unframed(told)):
            cause = ConfigError(sentence)
        if cause is not None:
            printed = io.StringIO()  # tyro's frame of several lines is dropped
            raise cause from None
        raise
    finally:
        sys.stderr.write(printed.getvalue())


def _unframed(message: str) -> str:
    """One sentence for tyro's framed message: what is wrong, and which flags may have been meant.

    Empty where there is no such frame. In it, rules of dashes part what is wrong from advice; an
    indented line names a flag, and the flag's help is indented further.
    """
    lines = [line[2:].rstrip("│ ") for line in message.splitlines() if line.startswith("│")]
    if not lines and re.match(r" .*\n -+", message):  # of a terminal that is not UTF-8
        lines = [line[2:].rstrip() for line in message.splitlines() if line.startswith("  ")]
    if not lines:
        return ""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and not line.strip("─-"):
            parts.append([])
        else:
            parts[-1].append(line)

    def named(part: list[str]) -> list[str]:
        return [line.strip() for line in part if re.match(r" {4}\S", line)]

    sentence = " ".join(line for line in parts[0] if not line.startswith(" ")).rstrip(".")
    sentence += " " + ", ".join(named(parts[0]))
    for part in parts[1:]:
        if part and part[0].startswith("Perhaps"):
            close = re.findall(r"--[\w.-]+", " ".join(named(part)))
            sentence += f" (perhaps {' or '.join(close)})"
    return f"{' '.join(sentence.split())}; --help lists the flags."


def os_reason(error: BaseException) -> str:
    """Why the operating system, or Python before it, refused a file: a few words for a message."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def bar_interval() -> float:
    """Seconds between two states of a progress bar: a log file gets a line a minute."""
    return 0.1 if sys.stderr.isatty() else 60.0


def progress_bar(total: int, done: int, *, unit_scale: bool = False) -> Any:
    """A bar of steps on stderr, by a clock that nobody sets.

    Args:
        total: steps in all.
        done: of them before now.
        unit_scale: write thousands as k.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # its thread would go by the clock on the wall

    bar: Any = Bar(
        total=total, initial=done, unit="step", unit_scale=unit_scale, smoothing=0.1,
        mininterval=bar_interval(),
    )  # fmt: skip
    # tqdm's is `time.time`: set back by an hour, the bar stands still for one.
    bar._time = time.monotonic
    bar.start_t = bar.last_print_t = bar._time()
    return bar


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, because some writers choose the format by it. The content
    is on the disk before the name is: else a power cut could leave a file of zeros.

    Raises:
        BMError: it cannot be written: no such folder, no rights, no space.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        make_folder(path.parent)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A device or a pipe is written to. A file in its place would take /dev/null from everybody.
        special = path.exists() and not path.is_file()
        handle, name = tempfile.mkstemp(
            dir=None if special else path.parent, prefix=f".{path.stem[:100]}.", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if special:
            with temporary.open("rb") as source, path.open("wb") as stream:
                shutil.copyfileobj(source, stream)
            return
        # mkstemp makes files private; give the result the mode an ordinary write would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, ValueError) as error:
        # Of the block's errors only those that are about writing this file. Before it there is no
        # temporary file, and a ValueError is a name that no file can have.
        about = temporary is None or (
            isinstance(error, OSError) and error.filename in (None, str(temporary))
        )
        if isinstance(error, BMError) or not about:
            raise
        raise BMError(f"{path}: cannot be written ({os_reason(error)}).") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OSError: something that is no folder has its name, among other reasons.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # Python's word for it, of which a person makes the wrong thing
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def remove_leftovers(folder: Path, stems: Iterable[str]) -> None:
    """Remove what `atomic_path` left in a folder when its process was killed.

    Args:
        folder: where nobody else writes these files now.
        stems: patterns of the files' names without their suffixes.
    """
    pattern = re.compile(rf"\.(?:{'|'.join(stems)})\.[a-z0-9_]{{8}}\.\w+")  # as mkstemp names them
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


SEAL = b"bm-envs sha256 "  # and 64 hexadecimal digits


def seal_zip(path: Path) -> None:
    """Write a zip archive's SHA-256 into its comment, which other readers of archives pass over."""
    comment = SEAL + file_sha256(path).encode()
    with path.open("rb+") as stream:
        stream.seek(-2, os.SEEK_END)  # the last field, if there is no comment: its length
        assert stream.read(2) == b"\0\0"
        stream.seek(-2, os.SEEK_END)
        stream.write(len(comment).to_bytes(2, "little") + comment)


def zip_damage(path: Path) -> str | None:
    """What is wrong with a zip archive that `seal_zip` has sealed, or that was never sealed.

    Of one without a seal the checksums of its parts are compared, which do not cover its headers.

    Raises:
        OSError: it cannot be read.
    """
    length = len(SEAL) + 64
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(size - length - 2, 0))
        tail = stream.read()
        if tail[2:].startswith(SEAL):
            stream.seek(0)
            digest, left = hashlib.sha256(), size - len(tail)
            while left:
                chunk = stream.read(min(left, 2**20))
                digest.update(chunk)
                left -= len(chunk)
            digest.update(b"\0\0")
            expected = length.to_bytes(2, "little") + SEAL + digest.hexdigest().encode()
            return None if tail == expected else "it is damaged: its SHA-256 is another"
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if archive.comment:
                return "it is damaged: its seal is no SHA-256"
            # What unpacks to more than there is was not written by a training.
            if sum(part.file_size for part in parts) > size:
                return "its parts are larger than it is"
            bad = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # of a hostile archive zipfile raises many kinds
        return f"it is no sound archive ({type(error).__name__})"
    return None if bad is None else f"it is damaged: the checksum of its part {bad[:80]} is another"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, equally many in each, as text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, because JSON has neither."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n")


MAX_JSON_BYTES, MAX_JSON_DEPTH = 2**24, 64


def read_json(path: str | Path, error: type[BMError] = BMError) -> Any:
    """Read a JSON file that somebody else may have written.

    Bounded in size and depth. Stricter than the parser of the standard library, where another
    program would read something else: a name twice in one object, NaN and infinity (also as a
    number that is too large for a float), and half a character (a lone surrogate) are refused.

    Args:
        path: the file.
        error: class of the exception.

    Raises:
        BMError: there is no such file, or it is not such JSON; one sentence with its name.
    """
    try:
        with open(path, "rb") as stream:  # `open` refuses a name with a NUL, by a ValueError
            content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ValueError(f"holds more than {MAX_JSON_BYTES >> 20} MiB")
        return parse_json(content.decode("utf-8-sig"))
    except (OSError, ValueError) as problem:
        told = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f"{path}: not a readable JSON file ({shortened(str(told))}).") from None


def parse_json(text: str) -> Any:
    """JSON of somebody else as `read_json` reads it.

    Raises:
        ValueError: it is no such JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise ValueError(f"the key '{shortened(twice)}' stands twice in one object")
        return found

    def number(digits: str) -> float:
        # Whole numbers are kept as such, but none that no float can hold.
        value = int(digits) if digits.lstrip("-").isdecimal() else float(digits)
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"the number {shortened(digits, 24)} is too large")
        return value

    def no_number(name: str) -> float:
        raise ValueError(f"{name} is no JSON number")

    try:
        value = json.loads(
            text, object_pairs_hook=once, parse_int=number, parse_float=number,
            parse_constant=no_number,
        )  # fmt: skip
    except RecursionError:
        raise ValueError(f"it nests more than {MAX_JSON_DEPTH} deep") from None
    halves = re.search(r"\\u[dD][89a-fA-F]", text) is not None
    # The parser's own bound depends on the interpreter; a program that walks the value has less.
    layer, depth = [[value]], -1
    while layer := [part for item in layer for part in _parts(item)]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"it nests more than {MAX_JSON_DEPTH} deep")
        if halves and any(re.search(r"[\ud800-\udfff]", p) for p in layer if isinstance(p, str)):
            raise ValueError("a text in it holds half a character")
    return value


def _parts(value: Any) -> Iterable[Any]:
    """What stands directly inside a JSON value, an object's names included."""
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def shortened(text: str, length: int = 160) -> str:
    """The first line of a text, cut to a length that fits into one sentence.

    Characters that a terminal would obey are shown as `?`.
    """
    # A line that matters is not behind the first thousands of characters.
    lines = [line.strip() for line in text[: 100 * length].splitlines() if line.strip()]
    line = lines[0] if lines else ""
    line = line if len(line) <= length else line[: length - 3] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def video_package() -> Any:
    """The package av; a command that plays first and draws then asks for it before.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("A video needs the package av: pip install 'bm-envs[viz]'.") from error
    return av


def write_video(
    path: Path, pictures: Iterable[np.ndarray], fps: int, total: int | None = None
) -> str:
    """Write pictures `[H, W, 3]` uint8 as an MP4; returns the codec's name.

    Args:
        path: file to write; nothing half-written is left there.
        pictures: all of one size, with even sides.
        fps: pictures per second.
        total: how many there will be, to be told on a terminal while they are drawn.

    Raises:
        ConfigError: the package av is missing.
    """
    av = video_package()
    # Browsers play H.264; a build of FFmpeg without its encoder still has the older MPEG-4.
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    told = total is not None and sys.stderr.isatty()
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        stream: Any = None
        for count, picture in enumerate(pictures, start=1):
            if stream is None:
                stream = file.add_stream(codec, rate=fps)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "20"} if codec == "libx264" else {"qscale": "3"}
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if told:
                print(f"\r{count} of {total} pictures", end="", file=sys.stderr, flush=True)
        file.mux(stream.encode())
    if told:
        print("\r" + " " * 40, end="\r", file=sys.stderr)
    return codec


def matplotlib_figure() -> Any:
    """The class `matplotlib.figure.Figure`, which draws into files without a display.

    Raises:
        BMError: the package is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise BMError("--plot needs the package matplotlib: pip install 'bm-envs[viz]'.") from None
    return Figure


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result, where installed."""
    packages = ("bm-envs", "mujoco", "numpy", "gymnasium", "torch", "onnxruntime")
    return {"python": platform.python_version(), **package_versions(*packages)}


def machine() -> dict[str, Any]:
    """Processor, cores and GPU of this machine; never a host name or a path.

    `bfloat16` says whether the processor multiplies it itself, by which trainings are faster: a
    name such as "AMD EPYC" does not tell. None where there is no way to know.
    """
    processor, bfloat16 = platform.processor() or platform.machine(), None
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                processor = value.strip()
            elif name.strip() in ("flags", "Features"):  # x86, ARM
                bfloat16 = not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(value.split())
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return {
        "processor": processor, "bfloat16": bfloat16, "cores": available_cores(), "gpu": gpu,
    }  # fmt: skip


def available_cores() -> int:
    """Cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def commit() -> str | None:
    """The source tree's commit, with `+` when tracked files differ from it; None outside git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line() -> str:
    """This process's command as one would type it from the repository's root.

    A path from the machine's root is told from the repository's, or by its last part alone: results
    that hold a machine's paths are refused.
    """
    root = Path(__file__).resolve().parent.parent

    def plain(argument: str) -> str:
        before, value = "", argument
        if argument.startswith("--"):
            flag, equals, value = argument.rpartition("=")
            before = flag + equals
        path = Path(value)
        if not path.is_absolute():
            return argument
        for place in (path, path.resolve()):
            if place.is_relative_to(root):
                return f"{before}{place.relative_to(root)}"
        return f"{before}{path.name}"

    script = plain(str(Path(sys.argv[0]).resolve()))
    return shlex.join(["python", script, *map(plain, sys.argv[1:])])


def json_result(kind: str, *, seed: int | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The object every result file holds; the benchmark's docstring says what its rows are."""
    return {
        "kind": kind,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "commit": commit(),
        "seed": seed,
        "versions": versions(),
        "machine": machine(),
        "rows": rows,
    }
