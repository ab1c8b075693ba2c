"""Write a folder of roll-outs as a Minari dataset, the Farama Foundation's offline-RL format.

    python tools/rollouts_to_minari.py runs/rollouts g1/walks-v0
    python -c "import minari; print(minari.load_dataset('g1/walks-v0')[0])"

An episode of Minari has one observation more than it has steps, the first and the last included:

| in Minari | | from the shard |
|---|---|---|
| observations | dict of `qpos` [n + 1, 36] and `qvel` [n + 1, 35] | states |
| actions | [n, 29] raw action that was sent, noise and all | `executed` |
| infos | [n + 1, ...] `expert_action`, `pushed`, `clip`, `frame`, `noise`, `delay` | each state's |
| rewards | zeros: none are recorded | |
| terminations | true at the last step of an episode whose failure was recorded | `length` |
| truncations | true at the last step of any other, where only the recording ended | `length` |

T recorded states make n = T - 1 steps. The action sent at the last of them led to a state that was
not recorded: it is kept as `last_action` among the episode's metadata, with `shard`, `expert`,
`accepted` and `joint_offset` (`dataset.storage.get_episode_metadata`). `seed` is that of the whole
run; shard i was drawn from (seed, i). Values of an episode are repeated at each of its states in
`infos`, because Minari's filter shows no metadata and its `combine_datasets` drops them.

A failed episode ends with the state that broke the rules; those that fell before the recording have
no step and are left out. The roll-outs' manifest stands whole in the dataset's metadata, under
`rollouts`. No environment is recorded: the actions are those of `BMTrack-G1-v0`, but its
observation is another.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from gymnasium.spaces import Box, Dict
from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.diffusion import rollouts
from bm_envs.diffusion.rollouts import J, Rollouts
from bm_envs.errors import BMError, ConfigError

# Minari's rule for an id, less the folders without a name that it lets pass.
NAME = re.compile(r"(?:[-\w]{2,}(?:/[-\w]+)*/)?[-\w]+-v\d+")
ROOT_VARIABLE = "MINARI_DATASETS_PATH"
ABOUT = """\
Unitree G1 in MuJoCo: motion trackers acted, noise was added to what they said, and the robot was \
pushed at times. Observations: MuJoCo's qpos and qvel, the free joint first. Actions: the raw \
action that was sent; joint target = default + offset + scale * action (`rollouts.drives` and the \
episode's joint_offset). Infos, one at each observation: expert_action, what the tracker wanted \
there, without noise; pushed, a push between this state and the next; clip (index into \
`rollouts.clips`) and frame of the reference; noise, the factor of its standard deviation; delay \
of the actions, control steps. Rewards are not recorded and stand as zeros."""


@dataclass(frozen=True)
class Config:
    """Write a folder of roll-outs as a Minari dataset."""

    data: Positional[Annotated[Path, arg(metavar="DATA_DIR")]]
    """Folder of roll-outs: shards and manifest of algos/collect_rollouts.py."""
    name: Positional[Annotated[str, arg(metavar="NAMESPACE/NAME-v0")]]
    """Id of the new dataset; one that exists already is refused."""
    failed: Annotated[bool, FlagCreatePairsOff] = False
    """Take the episodes that were not accepted in place of those that were."""
    root: Path | None = None
    """Folder of Minari's datasets; none: MINARI_DATASETS_PATH, else ~/.minari/datasets."""


def main(config: Config) -> None:
    """Read, check, write."""
    # A folder `data` is what Minari knows a dataset by: as a namespace it would hide all others.
    if not NAME.fullmatch(config.name) or "data" in config.name.split("/"):
        raise ConfigError(
            f"'{config.name}' is not the id of a dataset, expected NAMESPACE/NAME-v0 of letters, "
            "digits, '_' and '-', the namespace of two or more and no part of it 'data'."
        )
    minari = import_minari()
    root = root_of(config)
    episodes, manifest = rollouts.load_rollouts(config.data, failed=config.failed)
    details = details_of(episodes, manifest, config)
    kept = np.flatnonzero(observations_of(episodes) > 1)
    if not len(kept):
        raise BMError(f"{config.data}: no episode holds a step, expected two states or more.")
    kind = "failed" if config.failed else "accepted"
    print(
        f"{config.data}: {len(episodes)} {kind} episodes of {len(manifest['experts'])} experts on "
        f"{len(manifest['clips'])} clips -> {config.name}"
    )
    export = {
        "episodes": kind, "left_out": len(episodes) - len(kept), "command": cli.command_line(),
        "versions": cli.versions(), "commit": cli.commit(),
    }  # fmt: skip
    with staged(root, config.name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no author, no environment: so it is
            dataset = minari.create_dataset_from_buffers(
                config.name,
                buffers(episodes, kept, manifest["settings"]["seed"]),
                observation_space=Dict({"qpos": unbounded(7 + J), "qvel": unbounded(6 + J)}),
                action_space=unbounded(J),
                algorithm_name="motion trackers with noise on their actions (bm-envs)",
                description=ABOUT,
                data_format="hdf5",
            )
        dataset.storage.update_episode_metadata([details[e] for e in kept], range(len(kept)))
        dataset.storage.update_metadata({"rollouts": manifest, "rollouts_export": export})
        steps, size = dataset.total_steps, dataset.storage.get_size()
    if export["left_out"]:
        print(f"left out {export['left_out']} episodes that fell before the recording began")
    licences = sorted({str(clip.get("licence")) for clip in manifest["clips"]})
    print(f"licences of the clips that were followed: {', '.join(licences)}")
    print(f"wrote {len(kept)} episodes of {steps} steps in all, {size} MB: {root / config.name}")


# --- what goes in ---------------------------------------------------------------------------------


def observations_of(episodes: Rollouts) -> np.ndarray:
    """How many recorded states belong to each episode, that of its failure included. `[E]`."""
    return np.minimum(episodes.length + 1, episodes.qpos.shape[1])


def unbounded(size: int) -> Box:
    """A space of any finite numbers: neither states nor raw actions are clipped."""
    return Box(-np.inf, np.inf, (size,), np.float32)


def buffers(episodes: Rollouts, kept: np.ndarray, seed: int) -> Iterator[Any]:
    """The `kept` episodes as Minari wants them, one at a time: so memory holds no second copy."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    count, recorded = observations_of(episodes), episodes.qpos.shape[1]
    for e in kept:
        n = int(count[e])  # observations
        last = np.arange(n - 1) == n - 2
        terminated = episodes.length[e] < recorded
        fields: dict[str, Any] = {  # declared as lists, but Minari writes arrays as they are
            "observations": {"qpos": episodes.qpos[e, :n], "qvel": episodes.qvel[e, :n]},
            "actions": episodes.executed[e, : n - 1],
            "rewards": np.zeros(n - 1, np.float32),
            "terminations": last & terminated,
            "truncations": last & ~terminated,
            "infos": {
                "expert_action": episodes.action[e, :n],
                "pushed": episodes.pushed[e, :n],
                "clip": np.full(n, episodes.clip[e]),
                "frame": episodes.frame[e] + np.arange(n),
                "noise": np.full(n, episodes.noise[e]),
                "delay": np.full(n, episodes.delay[e]),
            },
        }
        yield EpisodeBuffer(seed=seed, **fields)


def details_of(
    episodes: Rollouts, manifest: dict[str, Any], config: Config
) -> list[dict[str, Any]]:
    """Metadata of each episode: which expert, which shard, and what has no place at a step.

    Raises:
        BMError: the manifest lacks something, or speaks of other episodes than there are.
    """
    where = config.data / rollouts.MANIFEST
    for key, kind in {"settings": dict, "experts": list, "clips": list}.items():
        if not isinstance(manifest.get(key), kind):
            raise BMError(f"{where}: '{key}' is missing or malformed; collect it anew.")
    for key in ("experts", "clips"):
        if not all(isinstance(entry, dict) for entry in manifest[key]):
            raise BMError(f"{where}: '{key}' is not a list of objects; collect it anew.")
    seed = manifest["settings"].get("seed")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise BMError(f"{where}: 'settings' has no whole number as seed; collect it anew.")
    clips = len(manifest["clips"])
    if not ((episodes.clip >= 0) & (episodes.clip < clips)).all():
        raise BMError(f"{where}: lists {clips} clips, but an episode has another than these.")
    shards = manifest["shards"]
    experts = range(len(manifest["experts"]))
    if any(
        type(shard.get("expert")) is not int or shard["expert"] not in experts for shard in shards
    ):
        raise BMError(f"{where}: a shard does not tell which of the experts made it.")
    counts = [shard["failed" if config.failed else "episodes"]["count"] for shard in shards]
    if sum(counts) != len(episodes):
        raise BMError(
            f"{where}: counts {sum(counts)} episodes, but the shards hold {len(episodes)}."
        )
    at = np.maximum(observations_of(episodes) - 1, 0)
    return [
        {
            "shard": int(shard),
            "expert": int(shards[shard]["expert"]),
            "accepted": not config.failed,
            "joint_offset": episodes.joint_offset[e],
            "last_action": episodes.executed[e, at[e]],
        }
        for e, shard in enumerate(np.repeat(np.arange(len(shards)), counts))
    ]


# --- where it goes --------------------------------------------------------------------------------


def import_minari() -> ModuleType:
    """The package `minari`, with what its HDF5 files need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import h5py  # noqa: F401
        import minari
        import PIL  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"A Minari dataset needs the package {error.name}: pip install 'bm-envs[minari]'."
        ) from None
    return minari


def root_of(config: Config) -> Path:
    """The folder of Minari's datasets.

    Raises:
        BMError: a dataset is there already, in the new one's place or where its namespace goes.
    """
    default = os.environ.get(ROOT_VARIABLE) or Path.home() / ".minari" / "datasets"
    # Absolute, because Minari joins its folder's name to names that carry it already.
    root, name = (config.root or Path(default)).absolute(), Path(config.name)
    if (root / name).exists():
        raise BMError(f"{root / name}: exists already; choose another name or version.")
    for folder in (root / parent for parent in name.parents):
        if (folder / "data").exists():  # Minari's mark of one; it looks for none inside another
            raise BMError(f"{folder}: is a dataset, expected a folder that holds datasets.")
    return root


@contextlib.contextmanager
def staged(root: Path, name: str) -> Iterator[None]:
    """Let Minari write the dataset elsewhere; it takes its place when the block ends well."""
    from minari.namespace import create_namespace, list_local_namespaces

    target = root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Beside the others, so that a rename is enough; Minari passes over hidden folders.
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=root) as folder:
            with datasets_in(Path(folder)):
                yield
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).rename(target)
        with datasets_in(root):
            namespace = name.rpartition("/")[0]
            if namespace and namespace not in list_local_namespaces():
                create_namespace(namespace)
    except OSError as error:
        raise BMError(f"{target}: cannot be written ({error.strerror or error}).") from error


@contextlib.contextmanager
def datasets_in(folder: Path) -> Iterator[None]:
    """Point Minari to a folder: it has no argument for it and reads the variable at every call."""
    before = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[ROOT_VARIABLE]
        if before is not None:
            os.environ[ROOT_VARIABLE] = before


if __name__ == "__main__":
    cli.run(main, Config)
