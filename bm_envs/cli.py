"""What commands share: argument parsing, one-sentence errors, atomic files, result records."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bm_envs.errors import BMError, BMWarning, ConfigError

ConfigT = TypeVar("ConfigT")
WARNING_LINES = 20


def run(
    main: Callable[[ConfigT], Any], config_class: type[ConfigT],
    presets: Mapping[str, Callable[[], ConfigT]] | None = None,
) -> None:  # fmt: skip
    """Parse the command line into `config_class` and call `main` with it.

    A `BMError` is printed as one line and ends the process with status 2, as tyro does for a bad
    flag. Any other exception is a defect and keeps its traceback. An integer that `main` returns is
    the exit status. A `BMWarning` is printed as one line that begins `warning:`.

    Args:
        main: the command.
        config_class: a dataclass; its fields' texts are the help.
        presets: values that `--preset NAME` starts from, for classes with a field `preset`.
    """
    try:
        with warnings_as_lines():
            status = main(parse(config_class, presets))
    except BMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


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
            line = " ".join(str(message).split())
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
    if not lines:
        return ""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and not line.strip("─"):
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


def bar_interval() -> float:
    """Seconds between two states of a progress bar: a log file gets a line a minute."""
    return 0.1 if sys.stderr.isatty() else 60.0


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix
        )
    except OSError as error:
        raise BMError(f"{path}: cannot be written ({error.strerror}).") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; give the result the mode an ordinary write would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
