"""Files that are written whole or not at all, and that show when they are damaged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bm_envs.errors import BMError, ConfigError


def os_reason(error: BaseException) -> str:
    """Why the operating system or Python refused a file, in a few words for a message."""
    return getattr(error, "strerror", None) or str(error).partition("\n")[0] or type(error).__name__


def shortened(text: str, length: int = 160) -> str:
    """The first line of a text, cut to a length that fits into one sentence.

    Characters that a terminal would obey are shown as `?`.
    """
    # Only the first thousands of characters are searched for a line that is not empty.
    lines = [line.strip() for line in text[: 100 * length].splitlines() if line.strip()]
    line = lines[0] if lines else ""
    line = line if len(line) <= length else line[: length - 3] + "..."
    return "".join(letter if letter.isprintable() else "?" for letter in line)


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
        # A device or a pipe is written to. To put a file in its place would remove /dev/null.
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
        # Only errors about writing this file are translated, not others of the block. Before the
        # block there is no temporary file, and a ValueError means a name that no file can have.
        about = temporary is None or (
            isinstance(error, OSError) and error.filename in (None, str(temporary))
        )
        if isinstance(error, BMError) or not about:
            raise
        raise BMError(f"{path}: cannot be written ({os_reason(error)}).") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def default_output(name: str) -> Path:
    """The file that a command writes in the present folder when it was told no name.

    Raises:
        ConfigError: there is one already, which nobody asked to replace.
    """
    path = Path(name)
    if os.path.lexists(path):
        raise ConfigError(f"{path} is there already: name the file to write.")
    return path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        OSError: something that is no folder has its name, among other reasons.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # this name of the error would mislead a person
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
    """Write a zip archive's SHA-256 into its comment, which other readers of archives ignore."""
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
            # A training writes no archive that unpacks to more than its size.
            if sum(part.file_size for part in parts) > size:
                return "its parts are larger than it is"
            bad = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # zipfile raises many kinds for a hostile archive
        return f"it is no sound archive ({type(error).__name__})"
    return None if bad is None else f"it is damaged: the checksum of its part {bad[:80]} is another"
