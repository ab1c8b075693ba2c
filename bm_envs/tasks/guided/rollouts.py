"""Roll-outs on disk: what trackers did, in NumPy shards with a manifest.

A folder holds `dataset.json` (who acted, on which clips, with which noise, seed and versions; and
every shard with its counts and SHA-256) and shards `episodes-00000.npz`, ... of accepted episodes
and `failed-00000.npz`, ... of the others. Any NumPy opens a shard (`numpy.load`); its arrays, E
episodes of T control steps, are float32 unless said otherwise:

| array | shape | |
|---|---|---|
| qpos | [E, T, 36] | MuJoCo's: root position and quaternion w x y z, joint angles |
| qvel | [E, T, 35] | root velocity in the world, its angular velocity in its own axes, joints |
| action | [E, T, 29] | raw action that the expert wanted at that state |
| executed | [E, T, 29] | the one that was sent, noise and all |
| pushed | [E, T] bool | the root was shoved between this state and the next |
| clip, frame | [E] int64 | index into the manifest's clips, frame of the episode's first state |
| noise | [E] | factor of the noise's standard deviation; 0: none |
| delay | [E] int64 | control steps that actions took to arrive |
| joint_offset | [E, 29] | rad: joint target = default + offset + scale * action |
| length | [E] int64 | states before that of the failure; T: none was recorded, as when accepted |

Training reads these shards; `tools/rollouts_to_minari.py` writes them as a Minari dataset for tools
that know that format. Minari keeps all episodes in one HDF5 file, a group of small chunked arrays
each, without shards to resume from and without checksums: it is larger and slower to read whole.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli import atomic_path, file_sha256
from bm_envs.errors import BMError
from bm_envs.robots import g1, kinematics
from bm_envs.rotations import quat_normalize, quat_rotate
from bm_envs.tasks.guided.representation import States

MANIFEST = "dataset.json"
FORMAT = "bm-envs rollouts 1"
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

    def __len__(self) -> int:
        return len(self.qpos)

    def __getitem__(self, episodes: Any) -> Rollouts:
        """The episodes of a slice, a mask or an index array."""
        return Rollouts(**{f.name: getattr(self, f.name)[episodes] for f in fields(self)})

    @staticmethod
    def concatenate(parts: Iterable[Rollouts]) -> Rollouts:
        """All episodes, one part after another."""
        several = list(parts)
        return Rollouts(
            **{
                f.name: np.concatenate([getattr(part, f.name) for part in several])
                for f in fields(Rollouts)
            }
        )

    def mirrored(self) -> Rollouts:
        """The episodes seen in the robot's sagittal plane; clips and frames stay those copied."""
        index, sign = g1.mirror_map()
        sign = sign.astype(np.float32)
        root_pos, root_vel = (1, -1, 1, 1, -1, 1, -1), (1, -1, 1, -1, 1, -1)

        def joints(values: np.ndarray) -> np.ndarray:
            return values[..., index] * sign

        def state(values: np.ndarray, root: tuple[int, ...]) -> np.ndarray:
            size = len(root)
            turned = values[..., :size] * np.array(root, np.float32)
            return np.concatenate([turned, joints(values[..., size:])], -1)

        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rollouts(
            **values
            | {
                "qpos": state(self.qpos, root_pos),
                "qvel": state(self.qvel, root_vel),
                "action": joints(self.action),
                "executed": joints(self.executed),
                "joint_offset": joints(self.joint_offset),
            }
        )


def states_of(qpos: np.ndarray, qvel: np.ndarray) -> States:
    """States, links included, of `qpos [..., 36]` and `qvel [..., 35]`. float32.

    The velocity that MuJoCo keeps of a free joint is the pelvis origin's in the world, its angular
    velocity is in the pelvis' axes.
    """
    shape = qpos.shape[:-1]
    flat_pos, flat_vel = (v.reshape(-1, v.shape[-1]).astype(np.float64) for v in (qpos, qvel))
    quat = quat_normalize(flat_pos[:, 3:7])
    spin = quat_rotate(quat, flat_vel[:, 3:6])
    links = kinematics.link_states(
        flat_pos[:, :3], quat, flat_pos[:, 7:], flat_vel[:, :3], spin, flat_vel[:, 6:]
    )
    values = (
        flat_pos[:, :3], quat, flat_vel[:, :3], spin, flat_pos[:, 7:], flat_vel[:, 6:],
        links.pos, links.lin_vel,
    )  # fmt: skip
    return States(*(v.reshape(*shape, *v.shape[1:]).astype(np.float32) for v in values))


# --- files ----------------------------------------------------------------------------------------


def save_shard(rollouts: Rollouts, path: Path) -> str:
    """Write episodes, whole or not at all; returns the file's SHA-256."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{f.name: getattr(rollouts, f.name) for f in fields(rollouts)})
    return file_sha256(path)


def load_shard(path: Path) -> Rollouts:
    """Read one shard.

    Raises:
        BMError: it is not a shard, or an array has another shape or type than it should.
    """
    try:
        with np.load(path, allow_pickle=False) as members:
            arrays = {name: members[name] for name in members.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BMError(f"{path}: cannot be read as an NPZ shard of roll-outs ({error}).") from error
    if lacking := [name for name in _SHAPES if name not in arrays]:
        raise BMError(f"{path}: lacks {', '.join(lacking)}, expected the arrays of a shard.")
    count, steps = (*arrays["action"].shape, 0, 0)[:2]
    for name, (shape, per_step, kind) in _SHAPES.items():
        expected = (count, steps, *shape) if per_step else (count, *shape)
        found = arrays[name]
        if found.shape != expected or found.dtype != kind:
            raise BMError(
                f"{path}: {name} is {found.dtype} of shape {found.shape}, expected "
                f"{np.dtype(kind)} of shape {expected}."
            )
        if found.dtype == np.float32 and not np.isfinite(found).all():
            raise BMError(f"{path}: {name} holds a value that is not finite.")
    return Rollouts(**{name: arrays[name] for name in _SHAPES})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of roll-outs.

    Raises:
        BMError: there is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise BMError(f"{folder}: holds no {MANIFEST}, expected a folder of roll-outs.") from None
    except (OSError, ValueError) as error:
        raise BMError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BMError(f"{path}: is not a manifest of roll-outs, expected format '{FORMAT}'.")
    shards = manifest.get("shards")
    if not isinstance(shards, list) or not all(map(_is_shard, shards)):
        raise BMError(
            f"{path}: shards are not a list of entries 'episodes' and 'failed' with a count each, "
            "and a file and its sha256 where that is not 0."
        )
    return manifest


def _is_shard(shard: Any) -> bool:
    """Whether a manifest's entry is that of a shard."""
    return isinstance(shard, dict) and all(
        isinstance(entry := shard.get(part), dict)
        and isinstance(entry.get("count"), int)
        and (not entry["count"] or all(isinstance(entry.get(k), str) for k in ("file", "sha256")))
        for part in ("episodes", "failed")
    )


def load_rollouts(folder: str | Path, *, failed: bool = False) -> tuple[Rollouts, dict[str, Any]]:
    """All accepted episodes of a folder, or all `failed` ones, and the manifest.

    Raises:
        BMError: a file is missing, or is not the one that the manifest tells; no episodes.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    parts = []
    for shard in manifest["shards"]:
        entry: Mapping[str, Any] = shard["failed" if failed else "episodes"]
        if not entry["count"]:
            continue
        path = folder / Path(entry["file"]).name  # a name, wherever a manifest would lead
        if not path.is_file():
            raise BMError(f"{path}: is missing, though {MANIFEST} names it.")
        if file_sha256(path) != entry["sha256"]:
            raise BMError(f"{path}: has another SHA-256 than {MANIFEST} tells; collect it anew.")
        parts.append(load_shard(path))
    if not parts:
        raise BMError(f"{folder}: holds no {'failed' if failed else 'accepted'} episodes.")
    return Rollouts.concatenate(parts), manifest
