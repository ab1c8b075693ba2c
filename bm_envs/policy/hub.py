"""Policies of the Hugging Face Hub by name, fetched and pushed.

A policy of the Hub is `hub:OWNER/NAME`, or `hub:OWNER/NAME@REVISION` for one state of it: a commit,
a tag or a branch. Only files that nothing executes are fetched (`PATTERNS`). They stay in the
client's cache (`HF_HOME`); a commit that is there needs no network, and a transfer that was cut
goes on where it stopped. Where the repository has `SHA256SUMS`, as those have that `tools/hub.py`
makes, every file must have the digest it is listed with.

Mirrors (`HF_ENDPOINT`), tokens (`HF_TOKEN`) and working offline (`HF_HUB_OFFLINE`) are the
client's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bm_envs.cli import file_sha256, shortened
from bm_envs.errors import HubError
from bm_envs.motion.hub import client, one_sentence

PREFIX = "hub:"
SUMS = "SHA256SUMS"
MAX_SUMS = 2**20  # bytes of the list of digests; a policy has about ten files
PATTERNS = (
    "*.onnx", "*.safetensors", "*.json", "*.jsonl", "*.md", "*.png", "*.jpg", "*.svg", "*.mp4",
    "*.webm", "LICENSE", SUMS,
)  # fmt: skip
_REFERENCE = re.compile(r"(?:hub:)?([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w][\w./-]*))?")


@dataclass(frozen=True)
class HubPolicy:
    """One state of a policy's repository, on this machine."""

    folder: Path
    repository: str
    commit: str

    @property
    def name(self) -> str:
        """Name for tables: the policy and its revision."""
        return f"{self.repository}@{self.commit[:10]}"


def is_reference(reference: str | Path) -> bool:
    """Whether a reference names a policy of the Hub."""
    return isinstance(reference, str) and reference.startswith(PREFIX)


def parse_reference(reference: str) -> tuple[str, str | None]:
    """Repository and revision of `[hub:]OWNER/NAME[@REVISION]`.

    Raises:
        HubError: it is no such reference.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or ".." in reference:
        raise HubError(
            f"'{reference}': is no policy of the Hub, expected hub:OWNER/NAME[@REVISION]."
        )
    return match[1], match[2]


def fetch_policy(reference: str) -> HubPolicy:
    """A policy's files in the client's cache, downloaded where they are not there yet.

    Raises:
        HubError: client not installed, Hub out of reach, no such repository or revision, transfer
            broken, or a file with another digest than the repository tells.
    """
    repository, revision = parse_reference(reference)
    where = f"hub:{repository}" + (f"@{revision}" if revision else "")
    hub = client(where)
    with one_sentence(where, kind="model"):
        folder = Path(
            hub.snapshot_download(repository, revision=revision, allow_patterns=list(PATTERNS))
        )
    check_sums(folder, where)
    return HubPolicy(folder, repository, folder.name)


def check_sums(folder: Path, where: str) -> dict[str, str]:
    """Compare files with `SHA256SUMS` beside them; returns the digests of all files.

    Raises:
        HubError: a file is missing, is not listed, or has another digest.
    """
    digests = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }
    for name in digests:
        # A repository holds data for programs. A hidden file could be executed or obeyed instead.
        if any(part.startswith(".") for part in name.split("/")) or not name.isprintable():
            raise HubError(
                f"{where}: holds a hidden file '{shortened(name, 60)}'; nothing of it is used."
            )
    if SUMS not in digests:
        return digests
    listed = {}
    with (folder / SUMS).open("rb") as stream:
        text = stream.read(MAX_SUMS).decode("utf-8", "replace")
    for line in text.splitlines():
        if not (match := re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)):
            raise HubError(
                f"{where}: its {SUMS} has the line '{shortened(line, 60)}', expected a digest and "
                "a file's name; nothing of it is used."
            )
        listed[match[2]] = match[1]
    for name in sorted(listed.keys() | digests.keys() - {SUMS}):
        if name not in digests:
            missing = shortened(name, 60)
            raise HubError(f"{where}: {missing} of its {SUMS} is missing; nothing of it is used.")
        if name not in listed:
            raise HubError(f"{where}: {name} is not in its {SUMS}; nothing of it is used.")
        if digests[name] != listed[name]:
            raise HubError(
                f"{where}: {name} has SHA-256 {digests[name][:12]}..., expected "
                f"{listed[name][:12]}... of its {SUMS}; nothing of it is used."
            )
    return digests


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in a folder, as `sha256sum -c` reads it."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names if name != SUMS]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def push_folder(folder: Path, repository: str, *, private: bool, message: str) -> tuple[str, str]:
    """Make a folder's files the content of a model repository, in one commit.

    The repository is made where there is none. Files of it that the folder lacks are deleted.

    Returns:
        The commit's address and its id.

    Raises:
        HubError: client not installed, not allowed, or the transfer broke; then the repository has
            what it had before.
    """
    where = f"hub:{repository}"
    hub = client(where, doing="pushing it to")
    api = hub.HfApi()
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with one_sentence(where, kind="model", pushing=True, absent="nothing was pushed"):
        api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
        there = set(api.list_repo_files(repository)) - {".gitattributes"}
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name))
            for name in names
        ]
        operations += [hub.CommitOperationDelete(name) for name in sorted(there - set(names))]
        info = api.create_commit(repository, operations, commit_message=message)
    return info.commit_url, info.oid
