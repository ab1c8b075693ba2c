"""The frame of every command: it parses the flags, prints one sentence for an error, and ends.

`run` is what a script calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import re
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bm_envs.cli import help as helps
from bm_envs.cli.files import os_reason
from bm_envs.errors import GL_REFUSED, BMError, BMWarning, ConfigError

ConfigT = TypeVar("ConfigT")

WARNING_LINES = 20


def run(
    main: Callable[[ConfigT], Any], config_class: type[ConfigT],
    presets: Mapping[str, Callable[[], ConfigT]] | None = None, *, short_help: bool = False,
    text: str | None = None,
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
        short_help: `--help` shows the main flags alone, and `--help-all` all of them.
        text: what the help says above the flags; None: what the script's docstring says.
    """
    # A file's name may have characters that a stream cannot write.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in ENDING_SIGNALS:
        # An ignored signal stays ignored: `nohup` needs that.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, raise_interrupted)
    try:
        if GL_REFUSED:
            raise ConfigError(
                f"MUJOCO_GL is '{GL_REFUSED[0]}', which MuJoCo does not know; unset it, or set it "
                "to egl, osmesa or glfw."
            )
        with warnings_as_lines():
            text = text or getattr(main, "__globals__", {}).get("__doc__")
            config = parse(config_class, presets, text=text, short_help=short_help)
            check_seed(config)
            check_outputs(config)
            status = main(config)
        sys.stdout.flush()  # a full disk or a closed pipe shows here at the latest
    except BMError as error:
        _refuse(str(error))
    except BrokenPipeError:
        # The reader of this command's output has closed the pipe, as `head` does. Without this
        # Python would complain about the pipe once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    except OSError as error:
        _refuse(os_sentence(error))
    except MemoryError as error:
        _refuse(f"The memory of this machine is not enough ({str(error) or 'none is left'}).")
    except KeyboardInterrupt as error:
        sentence, number = "interrupted", signal.SIGINT
        if isinstance(error, Interrupted):
            sentence, number = f"interrupted{error.kept and f': {error.kept}'}", error.signal
        _print_behind_bars(_one_line(sentence))
        sys.exit(128 + number)
    sys.exit(status if isinstance(status, int) else 0)


# Settings, called the same in all commands, that name files and folders to be written.
OUTPUT_FILES = ("json", "video", "plot", "chart", "strip", "npz", "onnx", "page")

OUTPUT_FOLDERS = ("run_dir", "out", "policies", "measured")


# Flags that trainers had in 0.1. What they set is now as their default was.
FIXED_FLAGS = frozenset(
    "--action-steps --activation --after-end --bfloat16 --clip-coef --clip-vloss --critic-ema "
    "--curriculum-s --curriculum-step --desired-kl --discount --ema-max --ent-coef --forward "
    "--gae-lambda --gamma --imagined-noise --left --max-grad-norm --mirror --muon "
    "--muon-learning-rate --noise-correlation --physics-dt --rate-coef --residual --state-clip "
    "--validation --vf-coef --wandb-project-name --warmup-iterations --weight-decay "
    "--yaw-rate".split()
)


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
            os.lstat(path)  # `lexists` is False, and raises nothing, for a name that is too long
        except FileNotFoundError:
            pass  # the path is free, or a link to nothing that the file will replace
        except (OSError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: cannot be written ({os_reason(error)}).") from None


def _refuse(sentence: str) -> NoReturn:
    _print_behind_bars(f"error: {_one_line(sentence)}")
    sys.exit(2)


def _print_behind_bars(line: str) -> None:
    """Print a line on stderr. Progress bars are ended first, as they would be drawn over it."""
    if (module := sys.modules.get("tqdm")) is not None:
        for bar in list(getattr(module.tqdm, "_instances", ())):
            bar.close()
    print(line, file=sys.stderr)


def _print_between_bars(line: str) -> None:
    """Print a line on stderr. Progress bars are taken away for it, and go on below."""
    if (module := sys.modules.get("tqdm")) is not None:
        module.tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(line, file=sys.stderr, flush=True)


def _one_line(sentence: str) -> str:
    """A sentence with line ends and control characters escaped: a file's name may hold them."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
    return helps.spelled(escaped)


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
        """`kept`: a sentence on what is kept of the work and how to go on."""
        super().__init__(number, kept)
        self.signal, self.kept = number, kept


def raise_interrupted(number: int, frame: Any) -> None:
    """The handler of a signal that ends a command."""
    raise Interrupted(number)


@contextlib.contextmanager
def signals_end_at_once() -> Iterator[None]:
    """A context for calls that may wait outside of Python, where no Python handler can run."""
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

    The first `WARNING_LINES` are printed, and further ones only counted.
    """
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", BMWarning)
        other = warnings.showwarning

        def show(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, BMWarning):
                other(message, category, *rest, **more)
                return
            line = _one_line(" ".join(str(message).split()))
            if line not in seen and len(seen) < WARNING_LINES:
                _print_between_bars(f"warning: {line}")
            seen.add(line)

        warnings.showwarning = show
        try:
            yield
        finally:
            if len(seen) > WARNING_LINES:
                print(f"warning: {len(seen) - WARNING_LINES} more like these.", file=sys.stderr)


def parse(
    config_class: type[ConfigT], presets: Mapping[str, Callable[[], ConfigT]] | None = None,
    arguments: Sequence[str] | None = None, *, text: str | None = None, short_help: bool = False,
) -> ConfigT:  # fmt: skip
    """`arguments`, by default the command line's, as a `config_class`; see `run`.

    Of `text`, a script's docstring, the help shows the summary and the examples.

    Raises:
        BMError: a flag is unknown, missing or malformed, or a class refused its values in
            `__post_init__`. That is a ValueError, which tyro takes for a malformed flag.
    """
    import tyro

    arguments = sys.argv[1:] if arguments is None else arguments
    shortened = short_help and not {"-h", "--help"}.isdisjoint(arguments)
    if helps.HELP_ALL in arguments:
        shortened = False
        arguments = ["--help" if word == helps.HELP_ALL else word for word in arguments]
    default: ConfigT | None = None
    if presets:
        # Flags override the preset wherever it stands on the line, so that it is read first. tyro
        # checks the name again and prints a message for an unknown one.
        chosen = [a.partition("=")[2] for a in arguments if a.startswith("--preset=")]
        chosen += [b for a, b in pairwise(arguments) if a == "--preset"]
        if chosen and chosen[-1] in presets:
            default = presets[chosen[-1]]()
    parsed: Any = config_class
    if shortened:
        parsed, default = helps.with_flags_hidden(config_class, helps.main_flags(parsed), default)
    options: dict[str, Any] = {} if default is None else {"default": default}
    options["description"] = helps.description(text, short=shortened)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(parsed, args=arguments, prog=helps.program(), **options)
    except SystemExit as end:
        if shortened and not end.code:
            print(f"All flags: {helps.HELP_ALL}")
        cause = end.__context__
        while cause is not None and not isinstance(cause, BMError):
            cause = cause.__context__
        message = printed.getvalue()
        if cause is None and end.code and (sentence := _unframed(message)):
            if short_help:
                sentence = sentence.replace("--help lists", f"{helps.HELP_ALL} lists")
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
    if not lines and re.match(r" .*\n -+", message):  # the frame on a terminal without UTF-8
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
    sentence = " ".join(sentence.split())
    for flag in re.findall(r"--[\w-]+", parts[0][0] if parts[0] else ""):
        if flag.replace("--no-", "--") in FIXED_FLAGS:
            sentence += f"; {flag} of 0.1 is no setting any more: leave it out (CHANGELOG.md)"
    return f"{sentence}; --help lists the flags."
