"""Put a policy of LAFAN1 motions into the repository's folder `policies/`.

LAFAN1 may not be used commercially nor passed on changed, so that these policies stay out of the
package and hold no motion. A policy NAME is `NAME.onnx`, `NAME.json` with a note on its licence,
and an entry in the folder's `test_vectors.json`; a diffusion model is a folder NAME with
`denoiser.onnx` and `policy.json`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bm_envs.cli import atomic_path, file_sha256, read_json, write_json
from bm_envs.errors import PolicyError
from bm_envs.policy.description import check_network, finished_training
from bm_envs.policy.load import Policy, load_policy
from bm_envs.policy.resolve import DIFFUSION, LAFAN1_PREFIX, resolve_file
from bm_envs.policy.session import read_onnx, upstream
from bm_envs.policy.vectors import SHIPPED_VECTORS, with_shipped_vectors

LICENCE = (
    "weights: Apache-2.0, as the project; trained on LAFAN1, whose motions (CC BY-NC-ND 4.0) are "
    "not inside and whose terms are for you to check"
)
# A clone brings them all: bytes of a file, of those that are larger by name, and of all the others
# together.
MOST_BYTES = 4_000_000
LARGER = {"lafan1_40": 8_000_000}
MOST_BYTES_TOGETHER = 16_000_000


def ship(run: str | Path, name: str, folder: Path) -> Path:
    """Put a finished run's policy into a folder of policies, in place of one of the same name.

    All files appear, or none. One process at a time may do so in a folder, because all policies
    share its file of test vectors.

    Args:
        run: a run directory, or an ONNX file with its description beside it.
        name: of the policy, `lafan1_...`.
        folder: the repository's `policies/`.

    Returns:
        The ONNX file in the folder.

    Raises:
        PolicyError: no such policy, a run that has not ended, a motion inside or not of LAFAN1, a
            file that is too large, or another layout than the folder's policies have.
    """
    if not re.fullmatch(LAFAN1_PREFIX + r"\w+", name):
        raise PolicyError(
            f"The name is '{name}', expected {LAFAN1_PREFIX}NAME of letters, digits and "
            "underscores."
        )
    policy = load_policy(run)
    told = policy.path.with_suffix(".json")
    if (description := policy.info) is None:
        raise PolicyError(f"{policy.path}: has no description, expected {told.name} beside it.")
    check_network(told, description, policy.path.name, policy.sha256)
    finished_training(told, description)
    _check_motions(policy, description)
    _check_size(policy.path, name, folder)
    vectors = with_shipped_vectors(folder / SHIPPED_VECTORS, name, policy)
    out = folder / f"{name}.onnx"
    network = {"file": out.name, "sha256": policy.sha256}
    # The last to take its place is the network, by which a policy is found.
    with (
        atomic_path(out) as onnx,
        atomic_path(out.with_suffix(".json")) as text,
        atomic_path(folder / SHIPPED_VECTORS) as table,
    ):
        shutil.copyfile(policy.path, onnx)
        write_json(text, {**description, "licence": LICENCE, "network": network})
        table.write_text(json.dumps(vectors, allow_nan=False) + "\n")
    return out


def ship_denoiser(run: str | Path, name: str, folder: Path) -> Path:
    """Put a finished run's diffusion model into a folder of policies, in place of one of that name.

    Args:
        run: a run directory, or `denoiser.onnx` with `policy.json` beside it.
        name: of the model, `guided_...`.
        folder: the repository's `policies/`.

    Returns:
        The model's `denoiser.onnx` in the folder.

    Raises:
        PolicyError: no such model, another name, a run that has not ended, data without a clip of
            LAFAN1 (the package's own folder is for such a model), or a file that is too large.
    """
    from bm_envs.motion.library import LAFAN1

    if not re.fullmatch(r"guided_\w+", name):
        raise PolicyError(
            f"The name is '{name}', expected guided_NAME of letters, digits and underscores."
        )
    source = resolve_file(run, DIFFUSION)
    told = source.with_name("policy.json")
    description = read_json(told)
    check_network(told, description, source.name, file_sha256(source))
    training = description.get("training") or {}
    if lacking := [key for key in ("steps", "wall_s", "commit", "machine") if key not in training]:
        raise PolicyError(f"{told}: training lacks {', '.join(lacking)}; the run has not ended.")
    clips = [clip for part in description.get("data") or [] for clip in part["clips"]]
    if not any(clip["licence"] == LAFAN1.licence for clip in clips):
        raise PolicyError(f"{told}: was learned from no clip of LAFAN1, expected one or more.")
    _check_size(source, name, folder)
    out = folder / name / source.name
    out.parent.mkdir(exist_ok=True)
    with atomic_path(out) as onnx, atomic_path(out.with_name("policy.json")) as text:
        shutil.copyfile(source, onnx)
        write_json(text, {**description, "licence": LICENCE})
    return out


def _check_motions(policy: Policy, description: Mapping[str, Any]) -> None:
    """Refuse a policy that holds a motion, or that was trained on another one than LAFAN1's."""
    from bm_envs.motion.library import LAFAN1

    model = read_onnx(policy.path)
    needed = upstream(model, "actions")[1]
    held = {value.name for value in (*model.graph.input, *model.graph.output)} - {"obs", "actions"}
    held |= {tensor.name for tensor in model.graph.initializer} - needed
    motions = description.get("motions") or []
    if held or any(motion.get("embedded") for motion in motions):
        raise PolicyError(
            f"{policy.path}: holds a motion, which {LAFAN1.licence} keeps from being passed on; "
            "write it without by bm-envs export RUN FILE --no-motion --with-vectors."
        )
    # A repaired motion's source begins with the original's.
    names = [m["name"] for m in motions if not str(m.get("source")).startswith(LAFAN1.source)]
    if names or not motions:
        trained = f"'{names[0]}'" if names else "no motion that it tells"
        raise PolicyError(
            f"{policy.path}: was trained on {trained}, expected motions of LAFAN1 alone."
        )


def _check_size(path: Path, name: str, folder: Path) -> None:
    """Refuse a file that would make a clone too large."""
    size, most = path.stat().st_size, LARGER.get(name, MOST_BYTES)
    if size > most:
        raise PolicyError(f"{path}: has {size:,} bytes, expected at most {most:,}.")
    others = [file for file in folder.glob("*") if file.stem not in (name, *LARGER)]
    together = sum(file.stat().st_size for file in others) + size
    if name not in LARGER and together > MOST_BYTES_TOGETHER:
        raise PolicyError(
            f"{folder}: would have {together:,} bytes with {path}, expected at most "
            f"{MOST_BYTES_TOGETHER:,}."
        )
