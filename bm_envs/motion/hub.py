"""Motion files from the Hugging Face Hub, through its own client and cache.

The datasets are not ours and no revision of theirs is known to us, so nothing is pinned by
revision: the pin is the file's SHA-256. Whatever the Hub, a mirror (`HF_ENDPOINT`) or the cache
(`HF_HOME`) delivers is used only when its digest is the known one. The client writes a download to
a temporary name and renames it, so a broken transfer leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

from bm_envs.cli import file_sha256
from bm_envs.errors import MotionError, MotionWarning
from bm_envs.hub import client, one_sentence

LAFAN1_REPO = "lvhaidong/LAFAN1_Retargeting_Dataset"
LAFAN1_FOLDER = "g1"


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
        found = file_sha256(path)
        if found == sha256:
            return path
        damaged = True
        warnings.warn(
            f"{path}: has SHA-256 {found[:12]}..., expected {sha256[:12]}...; fetching it again.",
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
    found = file_sha256(path)
    if found != sha256:
        raise MotionError(
            f"{where}: the Hub's file has SHA-256 {found[:12]}..., expected {sha256[:12]}...; it is"
            " not used."
        )
    return path
