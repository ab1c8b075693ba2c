"""The Hugging Face Hub through its client and cache: errors in one sentence, and motions.

The datasets are not ours and no revision of theirs is known to us, so nothing is pinned by
revision: the pin is the file's SHA-256. Whatever the Hub, a mirror (`HF_ENDPOINT`) or the cache
(`HF_HOME`) delivers is used only when its digest is the known one. The client writes a download to
a temporary name and renames it, so a broken transfer leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bm_envs.cli import file_sha256, shortened
from bm_envs.errors import BMError, HubError, MotionError, MotionWarning

LAFAN1_REPO = "lvhaidong/LAFAN1_Retargeting_Dataset"
LAFAN1_FOLDER = "g1"
Kind = Literal["dataset", "model"]


# --- the client, which policies use as well -------------------------------------------------------


def client(where: str, *, doing: str = "fetching it from", error: type[BMError] = HubError) -> Any:
    """The package `huggingface_hub`.

    Args:
        where: what is to be fetched or pushed, for the message.
        doing: with the Hub.
        error: class of the exception.

    Raises:
        BMError: it is not installed.
    """
    try:
        for module in ("errors", "constants"):
            importlib.import_module(f"huggingface_hub.{module}")
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise error(
            f"{where}: {doing} the Hub needs the package huggingface_hub: pip install"
            " 'bm-envs[hub]'."
        ) from None


@contextlib.contextmanager
def one_sentence(
    where: str, *, kind: Kind, pushing: bool = False, absent: str = "is not in the Hub cache",
    error: type[BMError] = HubError,
) -> Iterator[None]:  # fmt: skip
    """Turn what the client raises in the block into an exception of ours.

    Args:
        where: what is to be fetched or pushed.
        kind: of the repository.
        pushing: whether it is pushed.
        absent: what is the matter when the Hub cannot be asked.
        error: class of the exception.
    """
    hub = client(where, error=error)
    # The client's HTTP library differs between versions (httpx, httpx2). The common class of its
    # errors is the first base of the client's error.
    http_error: Any = hub.errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except BMError:
        raise
    # RuntimeError means an upload that broke; ValueError a forced download without a network.
    except (
        hub.errors.EntryNotFoundError, http_error, OSError, ValueError, RuntimeError
    ) as problem:  # fmt: skip
        reason = _explain(hub, problem, kind, pushing, absent)
        raise error(f"{where}: {reason}.") from problem
    # The client trusts a server: an answer of another shape can raise any error in it.
    except Exception as problem:
        raise error(
            f"{where}: the Hub's answer is none that its client understands "
            f"({type(problem).__name__})."
        ) from problem


def _explain(hub: Any, problem: Exception, kind: Kind, pushing: bool, absent: str) -> str:
    errors, constants = hub.errors, hub.constants
    unreachable = (
        "HF_HUB_OFFLINE is set"
        if constants.HF_HUB_OFFLINE
        else f"{constants.ENDPOINT} gave no answer"
    )
    if isinstance(problem, errors.HFValidationError):
        return "is no name of a repository, expected OWNER/NAME"
    if isinstance(problem, errors.RevisionNotFoundError):
        return f"the Hub has no such revision of this {kind}"
    if isinstance(problem, errors.GatedRepoError):
        return f"the terms of this {kind} have to be accepted on its page first"
    if isinstance(problem, errors.RepositoryNotFoundError):
        return f"the Hub has no such {kind}, or not for everyone"
    if isinstance(problem, errors.HfHubHTTPError):
        if isinstance(problem, errors.EntryNotFoundError):
            return f"the Hub has no such file in this {kind}"
        status = getattr(getattr(problem, "response", None), "status_code", None)
        if status in (401, 403):
            return f"the Hub refuses it ({status}); log in with 'hf auth login' or set HF_TOKEN"
    elif isinstance(problem, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) or (
        isinstance(problem, ValueError) and not pushing
    ):
        return f"{absent} and {unreachable}"
    elif isinstance(problem, errors.EntryNotFoundError):
        return f"the Hub has no such file in this {kind}"
    reason = shortened(str(problem)).rstrip(".") or type(problem).__name__
    return f"the {'upload' if pushing else 'download'} failed ({reason})"


# --- motion files ---------------------------------------------------------------------------------


def fetch(filename: str, sha256: str, *, repo_id: str = LAFAN1_REPO) -> Path:
    """The file in the Hub client's cache, downloaded when it is not there yet.

    A cached file with the right digest is used without asking the Hub; one with another digest is
    reported as a warning and fetched again.

    Args:
        filename: path inside the dataset, such as `g1/walk1_subject1.csv`.
        sha256: hex digest that the file must have.
        repo_id: the dataset.

    Raises:
        MotionError: client not installed, Hub out of reach, no such file, transfer broken, or a
            file with another digest.
    """
    where = f"{repo_id}/{filename}"
    hub = client(where, error=MotionError)

    def get(**options: Any) -> Path:
        return Path(hub.hf_hub_download(repo_id, filename, repo_type="dataset", **options))

    damaged = False
    with contextlib.suppress(hub.errors.LocalEntryNotFoundError):
        path = get(local_files_only=True)
        actual = file_sha256(path)
        if actual == sha256:
            return path
        damaged = True
        warnings.warn(
            f"{path}: has SHA-256 {actual[:12]}..., expected {sha256[:12]}...; fetching it again.",
            MotionWarning,
            stacklevel=2,
        )
    absent = "the cached copy is damaged" if damaged else "is not in the Hub cache"
    with one_sentence(where, kind="dataset", absent=absent, error=MotionError):
        path = get(force_download=damaged)
        if damaged:
            # The client leaves a link of the same commit as it is, even if it fetched another file.
            path.unlink()
            path = get()
    actual = file_sha256(path)
    if actual != sha256:
        raise MotionError(
            f"{where}: the Hub's file has SHA-256 {actual[:12]}..., expected {sha256[:12]}...; it"
            " is not used."
        )
    return path
