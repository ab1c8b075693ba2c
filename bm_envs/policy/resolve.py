"""Which file a policy's reference names, and what kind of policy that is.

A reference is a run directory, an ONNX file, the bare name of a policy that ships, or one of the
Hub, `hub:OWNER/NAME[@REVISION]`. An existing path wins over a shipped name. Policies ship in two
folders: the package's, and `policies/` of the repository, which a clone alone has.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bm_envs.errors import HubError, PolicyError, unknown_name
from bm_envs.policy import hub
from bm_envs.policy.session import read_onnx

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "policies"
# Where the package lies: in a clone the repository, in an installation `site-packages`.
ROOT = SHIPPED.parents[2]
# Policies trained on LAFAN1 have names that begin so, or are a model of these; they are in the
# repository's folder alone.
LAFAN1_PREFIX = "lafan1_"
LAFAN1_MODELS = ("guided_human",)


@dataclass(frozen=True)
class Kind:
    """A kind of policy, and what distinguishes its files."""

    title: str
    """Name of the kind, for people."""
    name: str
    """Short name of the kind, in messages."""
    format: str
    """`format` in `policy.json` and, but for trackers, in the ONNX file's metadata."""
    file: str
    """The ONNX file in a run directory."""
    run: str
    """What such a directory is called in messages."""
    shipped: str
    """Pattern of the kind's files in `shipped_folders()`; empty for a kind of which none ships."""


TRACKER = Kind(
    "motion tracker", "policy", "bm-envs policy 1", "policy.onnx", "a run directory", "*.onnx"
)
GUIDED = Kind(
    "policy of a guided task", "guided policy", "bm-envs guided policy 1", "policy.onnx",
    "a run of a guided task", "",
)  # fmt: skip
DIFFUSION = Kind(
    "state-action diffusion model", "diffusion model", "bm-envs denoiser 1", "denoiser.onnx",
    "a diffusion model's run", "*/denoiser.onnx",
)  # fmt: skip
KINDS = (TRACKER, GUIDED, DIFFUSION)


def repository_folder() -> Path | None:
    """The folder `policies/` of the repository; None where the package is not a clone's."""
    folder = ROOT / "policies"
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = (project.get("project") or {}).get("name")
    return folder if name == "bm-envs" and folder.is_dir() else None


def shipped_folders() -> list[Path]:
    """Folders in which a bare name is looked up, the package's first."""
    beside = repository_folder()
    return [SHIPPED] if beside is None else [SHIPPED, beside]


def shipped_files(kind: Kind) -> dict[str, Path]:
    """Bare name and file of each policy of a kind that ships, in alphabetical order."""
    found: dict[str, Path] = {}
    for folder in shipped_folders():
        for file in folder.glob(kind.shipped) if kind.shipped else ():
            found.setdefault(file.parent.name if "/" in kind.shipped else file.stem, file)
    return dict(sorted(found.items()))


def shipped_file(name: str, kind: Kind) -> Path:
    """The ONNX file of a policy that ships, by its bare name.

    Raises:
        PolicyError: no policy of this kind has this name here.
    """
    files = shipped_files(kind)
    if name in files:
        return files[name]
    is_of_lafan1 = name.startswith(LAFAN1_PREFIX) or name in LAFAN1_MODELS
    if is_of_lafan1 and repository_folder() is None:
        from bm_envs.motion.library import LAFAN1

        what = f"the folder {name}" if name in LAFAN1_MODELS else f"{name}.onnx and {name}.json"
        raise PolicyError(
            f"{name}: policies trained on LAFAN1 ({LAFAN1.licence}, no commercial use) are not in "
            f"the installed package, which is under Apache-2.0; take {what} from "
            "the repository's folder policies/ and give the path, or name one of the Hub, "
            "hub:OWNER/NAME."
        )
    advice = "Give a name, a run directory or an ONNX file."
    raise PolicyError(unknown_name(kind.name, name, files, advice))


def shipped_kind(name: str) -> Kind | None:
    """What kind of policy ships under a bare name; None where none does."""
    return next((kind for kind in KINDS if name in shipped_files(kind)), None)


def shipped_policies() -> list[str]:
    """Names of the trackers that ship: in the package and, in a clone, in `policies/`."""
    return [*shipped_files(TRACKER)]


def from_hub(reference: str | Path) -> tuple[str | Path, str | None]:
    """Folder and name of a policy of the Hub; any other reference is returned as it is, with None.

    Raises:
        PolicyError: the policy cannot be downloaded.
    """
    if not hub.is_reference(reference):
        return reference, None
    try:
        fetched = hub.fetch_policy(str(reference))
    except HubError as error:
        raise PolicyError(str(error)) from error
    return fetched.folder, fetched.name


def resolve_file(reference: str | Path, kind: Kind) -> Path:
    """The ONNX file of a policy that is on this machine (`from_hub` brings the others).

    Raises:
        PolicyError: there is no such policy.
    """
    text, path = str(reference), Path(reference)
    if path.is_dir():
        if (path / kind.file).is_file():
            return path / kind.file
        trained = kind is TRACKER and (path / "checkpoint.pt").exists()
        advice = f"; bm-envs export {path} {path / kind.file} makes it" if trained else ""
        raise PolicyError(f"{path}: holds no {kind.file}, expected {kind.run}{advice}.")
    if path.exists():
        return path
    if kind.shipped and re.fullmatch(r"\w+", text):
        return shipped_file(text, kind)
    raise PolicyError(f"{text}: no such policy file or run directory.")


def kind_of(reference: str | Path, *, expected: Kind = TRACKER) -> Kind:
    """What kind of policy a reference names; a file that does not say it counts as a tracker.

    Args:
        reference: a policy's name or place.
        expected: the kind whose names a message lists when there is no such policy.

    Raises:
        PolicyError: there is no such policy, or its file is unreadable.
    """
    reference, _ = from_hub(reference)
    path = Path(reference)
    if not path.exists():
        if (kind := shipped_kind(str(reference))) is not None:
            return kind
        resolve_file(reference, expected)  # raises an error that says so
    if path.is_dir():
        if (path / DIFFUSION.file).is_file():
            return DIFFUSION
        if not (path / TRACKER.file).is_file():
            resolve_file(path, expected)  # raises an error that says so
        path /= TRACKER.file
    stated = {entry.value for entry in read_onnx(path).metadata_props if entry.key == "format"}
    return next((kind for kind in KINDS if kind.format in stated), TRACKER)
