"""Roll-outs on disk: what trackers did, in NumPy shards with a manifest.

A folder holds `dataset.json` (who acted, on which clips, with which noise, seed and versions; its
`state`, which is `complete` when all `planned_shards` are there; and every shard with its counts
and SHA-256) and shards `episodes-00000.npz`, ... of accepted episodes and `failed-00000.npz`, ...
of the others. Any NumPy opens a shard (`numpy.load`); its arrays, E episodes of T control steps,
are float32 unless said otherwise:

| array | shape | |
|---|---|---|
| qpos | [E, T, 36] | MuJoCo's: root position and quaternion w x y z, joint angles |
| qvel | [E, T, 35] | root velocity in the world, its angular velocity in its own axes, joints |
| action | [E, T, 29] | raw action that the expert chose at that state, without noise |
| executed | [E, T, 29] | the action that was sent to the robot, with noise |
| pushed | [E, T] bool | the root was pushed between this state and the next |
| clip, frame | [E] int64 | index into the manifest's clips, frame of the episode's first state |
| noise | [E] | factor of the noise's standard deviation; 0: none |
| delay | [E] int64 | control steps that actions took to arrive |
| joint_offset | [E, 29] | rad: joint target = default + offset + scale * action |
| length | [E] int64 | states before that of the failure; T: none was recorded, as when accepted |
| latent | [E, T, Z] | of a policy of latents alone: the mean of its latent at that state |

With latents, the manifest's `latent` names the file of the decoder that makes actions of them,
`decoder.npz`, with its SHA-256.

Training reads these shards; `tools/rollouts_to_minari.py` writes them as a Minari dataset for tools
that know that format. Minari keeps all episodes in one HDF5 file, a group of small chunked arrays
each, without shards to resume from and without checksums: it is larger and slower to read whole.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli import atomic_path, file_sha256, read_json, shortened
from bm_envs.diffusion.files import DRIVES, check_drive
from bm_envs.errors import BMError
from bm_envs.policy.latent import FELT, arrays_of, layers_from
from bm_envs.policy.network import Layers
from bm_envs.robots import g1

MANIFEST = "dataset.json"
FORMAT = "bm-envs rollouts 1"
COLLECTING, COMPLETE = "collecting", "complete"  # the manifest's state
MAX_RATIO = 100  # of what a shard's arrays unpack to and its size
_NEEDED: dict[str, tuple[type, str]] = {  # what training reads of a manifest
    "drives": (dict, "an object"), "experts": (list, "a list"), "clips": (list, "a list"),
    "accepted": (int, "a whole number"), "tried": (int, "a whole number"),
}  # fmt: skip
J = g1.NUM_JOINTS
_SHAPES: dict[str, tuple[tuple[int, ...], bool, type]] = {  # behind E; per step; type
    "qpos": ((7 + J,), True, np.float32),
    "qvel": ((6 + J,), True, np.float32),
    "action": ((J,), True, np.float32),
    "executed": ((J,), True, np.float32),
    "pushed": ((), True, np.bool_),
    "clip": ((), False, np.int64),
    "frame": ((), False, np.int64),
    "noise": ((), False, np.float32),
    "delay": ((), False, np.int64),
    "joint_offset": ((J,), False, np.float32),
    "length": ((), False, np.int64),
}


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Episodes in memory; the module's text has the arrays."""

    qpos: np.ndarray
    qvel: np.ndarray
    action: np.ndarray
    executed: np.ndarray
    pushed: np.ndarray
    clip: np.ndarray
    frame: np.ndarray
    noise: np.ndarray
    delay: np.ndarray
    joint_offset: np.ndarray
    length: np.ndarray
    latent: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.qpos)

    def __getitem__(self, episodes: Any) -> Rollouts:
        """The episodes of a slice, a mask or an index array."""
        return Rollouts(**{name: array[episodes] for name, array in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """All that there are, by their names."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: array for name, array in named.items() if array is not None}

    @staticmethod
    def concatenate(parts: Iterable[Rollouts]) -> Rollouts:
        """All episodes, one part after another."""
        several = [part.arrays() for part in parts]
        names = [name for name in several[0] if all(name in part for part in several)]
        return Rollouts(**{name: np.concatenate([p[name] for p in several]) for name in names})


# --- files ----------------------------------------------------------------------------------------


def save_shard(rollouts: Rollouts, path: Path) -> str:
    """Write episodes, whole or not at all; returns the file's SHA-256."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **rollouts.arrays())  # type: ignore[arg-type]
    return file_sha256(path)


def load_shard(path: Path) -> Rollouts:
    """Read one shard.

    Sizes are looked at before anything is unpacked: a few bytes can announce any shape.

    Raises:
        BMError: it is not a shard, or an array has another shape or type than it should.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _members(path, archive)
    except BMError:
        raise
    except (
        OSError, ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError,
        zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        reason = shortened(str(error)) or type(error).__name__
        raise BMError(f"{path}: cannot be read as an NPZ shard of roll-outs ({reason}).") from error
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise BMError(f"{path}: {name} holds a value that is not finite.")
    length, steps = arrays["length"], arrays["action"].shape[1]
    if not ((length >= 0) & (length <= steps)).all():
        raise BMError(f"{path}: length holds a value outside 0 to {steps}, the steps recorded.")
    return Rollouts(**arrays)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays of a shard, each of the type and shape that it should have."""
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if lacking := [name for name in _SHAPES if name not in entries]:
        raise BMError(f"{path}: lacks {', '.join(lacking)}, expected the arrays of a shard.")
    names = [*_SHAPES, *(["latent"] if "latent" in entries else [])]
    unpacked = sum(entries[name].file_size for name in names)
    # NumPy's own compressed shards are at most a few times smaller than what they hold.
    if unpacked > MAX_RATIO * path.stat().st_size:
        raise BMError(
            f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, more than {MAX_RATIO} times its size."
        )
    heads = {name: _head(archive, entries[name]) for name in names}
    count, steps = (*heads["action"][0], 0, 0)[:2]
    arrays = {}
    shapes = dict(_SHAPES)
    if "latent" in heads:  # of any size
        shapes["latent"] = (tuple(heads["latent"][0][2:3]), True, np.float32)
    for name, (shape, per_step, kind) in shapes.items():
        expected = (count, steps, *shape) if per_step else (count, *shape)
        actual, dtype = heads[name]
        if actual != expected or dtype != kind:
            raise BMError(
                f"{path}: {name} is {dtype} of shape {actual}, expected {np.dtype(kind)} of shape "
                f"{expected}."
            )
        if math.prod(actual) * dtype.itemsize > entries[name].file_size:
            raise BMError(f"{path}: {name} ends before its shape {actual} is full.")
        with archive.open(entries[name]) as stream:
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a member announces."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"{entry.filename} has the version {version} of NumPy's format")
    if any(isinstance(n, bool) or n < 0 for n in shape):
        raise ValueError(f"{entry.filename} has the shape {shape}")
    return shape, dtype


# --- the decoder of latents ----------------------------------------------------------------------

DECODER = "decoder.npz"


def save_decoder(decoder: Layers, folder: Path) -> dict[str, Any]:
    """Write the decoder beside the shards; returns the manifest's `latent`."""
    path = folder / DECODER
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays_of(decoder, ""))  # type: ignore[arg-type]
    size = decoder.obs_mean.shape[0] - FELT
    return {"size": size, "file": DECODER, "sha256": file_sha256(path)}


def load_decoder(folder: Path, manifest: Mapping[str, Any]) -> Layers:
    """The decoder of the folder's latents.

    Raises:
        BMError: there is none, or it is not the one of the manifest.
    """
    told, path = manifest.get("latent"), folder / DECODER
    if not isinstance(told, dict):
        raise BMError(
            f"{folder}: its roll-outs have no latents, expected those of a policy of dagger_vae.py."
        )
    if not path.is_file() or file_sha256(path) != told.get("sha256"):
        raise BMError(f"{path}: is missing or not the file that {MANIFEST} tells; collect it anew.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            decoder = layers_from(dict(arrays), "")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BMError(f"{path}: cannot be read ({shortened(str(error))}).") from error
    if decoder.obs_mean.shape[0] <= FELT or decoder.size != J:
        raise BMError(f"{path}: is no decoder of latents to {J} actions.")
    return decoder


# --- the manifest ---------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of roll-outs.

    Raises:
        BMError: there is none, or it is not one.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise BMError(f"{folder}: holds no {MANIFEST}, expected a folder of roll-outs.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BMError(f"{path}: is not a manifest of roll-outs, expected format '{FORMAT}'.")
    shards = manifest.get("shards")
    if not isinstance(shards, list) or not all(map(_is_shard, shards)):
        raise BMError(
            f"{path}: shards are not a list of entries 'episodes' and 'failed' with a count each, "
            "and a file and its sha256 where that is not 0."
        )
    return manifest


def check_complete(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a collection that was interrupted, or whose manifest lacks what training reads.

    Raises:
        BMError: one sentence with what to do.
    """
    path = folder / MANIFEST
    # Manifests before version 0.2 have no state; their last words were these counts.
    done = manifest.get("state", COMPLETE if "tried" in manifest else COLLECTING) == COMPLETE
    if not done:
        planned = manifest.get("planned_shards")
        of = f" of {planned}" if isinstance(planned, int) else ""
        raise BMError(
            f"{folder}: this collection was interrupted after {len(manifest['shards'])}{of} "
            "shards; run the command that made it again and it goes on from there."
        )
    for key, (kind, expected) in _NEEDED.items():
        value = manifest.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BMError(f"{path}: '{key}' is missing or not {expected}; collect it anew.")
    for key in ("experts", "clips"):
        if not all(isinstance(entry, dict) for entry in manifest[key]):
            raise BMError(f"{path}: '{key}' is not a list of objects; collect it anew.")
    for key in DRIVES:
        try:
            figures = check_drive(key, manifest["drives"].get(key))
        except BMError as error:
            raise BMError(f"{path}: {error}") from None
        if figures is None:
            raise BMError(f"{path}: drives.{key} is no list of numbers; collect it anew.")


def _is_shard(shard: Any) -> bool:
    """Whether a manifest's entry is that of a shard."""
    return isinstance(shard, dict) and all(
        isinstance(entry := shard.get(part), dict)
        and isinstance(count := entry.get("count"), int)
        and not isinstance(count, bool)
        and count >= 0
        and (not count or all(isinstance(entry.get(k), str) for k in ("file", "sha256")))
        for part in ("episodes", "failed")
    )


def load_rollouts(folder: str | Path, *, failed: bool = False) -> tuple[Rollouts, dict[str, Any]]:
    """All accepted episodes of a folder, or all `failed` ones, and the manifest.

    Raises:
        BMError: a file is missing or is not the one in the manifest, or there are no episodes.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    parts: list[Rollouts] = []
    for shard in manifest["shards"]:
        entry: Mapping[str, Any] = shard["failed" if failed else "episodes"]
        if not entry["count"]:
            continue
        name = entry["file"]
        # Inside the folder, wherever a manifest or a link would lead.
        path = folder / name
        if Path(name).name != name or "\0" in name or len(name) > 200 or path.is_symlink():
            raise BMError(
                f"{folder / MANIFEST}: names the shard '{shortened(name, 60)}', expected a file "
                "of this folder."
            )
        if not path.is_file():
            raise BMError(f"{shortened(str(path))}: is missing, though {MANIFEST} names it.")
        if file_sha256(path) != entry["sha256"]:
            raise BMError(f"{path}: has another SHA-256 than {MANIFEST} tells; collect it anew.")
        part = load_shard(path)
        if len(part) != entry["count"]:
            raise BMError(
                f"{path}: holds {len(part)} episodes, but {MANIFEST} tells {entry['count']}."
            )
        if parts and part.qpos.shape[1] != parts[0].qpos.shape[1]:
            raise BMError(
                f"{path}: has {part.qpos.shape[1]} steps an episode, the first shard "
                f"{parts[0].qpos.shape[1]}."
            )
        parts.append(part)
    if not parts:
        raise BMError(f"{folder}: holds no {'failed' if failed else 'accepted'} episodes.")
    return Rollouts.concatenate(parts), manifest
