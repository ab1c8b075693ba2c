"""Checks of torch's checkpoints before they are loaded.

`torch.load(weights_only=True)` runs no code of a file, but it unpacks whatever a few bytes announce
and hashes whatever they nest: a megabyte of compressed zeros becomes a gigabyte, and a tuple of two
references to a tuple of two references, thirty levels deep, takes minutes as a dictionary's key.
"""

from __future__ import annotations

import pickletools
import zipfile
import zlib
from pathlib import Path

from bm_envs.errors import PolicyError

MAX_RATIO = 4  # unpacked size over the archive's size; torch compresses nothing
MAX_SHARED = 10**6  # values of one object, each counted as often as it is referred to
SPARE = 2**20  # bytes that are allowed beyond the ratio, for small files


def check_archive(path: Path) -> None:
    """Refuse a checkpoint that would take much more time or memory than its size suggests.

    What is no archive at all is left to torch, whose message is the better one.

    Raises:
        PolicyError: it unpacks to much more than its size, or nests references without measure.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > MAX_RATIO * path.stat().st_size + SPARE:
                raise PolicyError(
                    f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, more than {MAX_RATIO} times "
                    "its size, which no checkpoint does."
                )
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _check_pickle(path, archive.read(entry))
    except PolicyError:
        raise
    except (OSError, ValueError, RuntimeError, NotImplementedError, EOFError,
            zipfile.BadZipFile, zlib.error):  # fmt: skip
        return


def _check_pickle(path: Path, content: bytes) -> None:
    """Count the objects of a pickle without making them.

    The weight of an object is 1 and that of all it is made of. The machine below knows of each
    instruction only what it takes and what it leaves, as `pickletools` lists them.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    try:
        for opcode, argument, _ in pickletools.genops(content):
            name, before, after = opcode.name, opcode.stack_before, opcode.stack_after
            if name == "MARK":
                marks.append(len(stack))
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(argument or 0)])
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(argument or 0)] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                # Below the mark an instruction may take one object more, that which it fills.
                first = len(stack) - len(before)
                if pickletools.markobject in before:
                    first = marks.pop() - before.index(pickletools.markobject)
                if first < 0:
                    raise IndexError
                weight = 1 + sum(stack[first:])
                del stack[first:]
                stack += [weight] * len(after)
                if after and weight > MAX_SHARED + len(content):
                    raise PolicyError(
                        f"{path}: nests references that stand for more than {MAX_SHARED} values, "
                        "which no checkpoint does."
                    )
    except PolicyError:
        raise
    except Exception:  # it is no pickle, and torch will say so
        return
