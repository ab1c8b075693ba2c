"""Write a training run's policy as the ONNX file that a robot's controller loads.

    python tools/export_onnx.py runs/walk__ppo_track__1                 # walk__ppo_track__1.onnx
    python tools/export_onnx.py runs/walk__ppo_track__1 walk.onnx --check

The network comes from the run's `checkpoint.pt`, layout and drives from its `config.json`. The
reference motion goes into the file unless `--no-motion` says otherwise; such a file names the
motion and lacks the motion outputs that the robot's controller reads. `docs/policy_files.md`
describes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.errors import BMError, PolicyError
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import (
    ACTION_TOLERANCE,
    MLP,
    load_policy,
    mlp_from_checkpoint,
    read_policy_json,
    read_run_config,
    spec_from_config,
    write_onnx,
    write_policy_json,
    write_test_vectors,
)


@dataclass(frozen=True)
class Config:
    """Export a training run to ONNX."""

    run_dir: Positional[Annotated[Path, arg(metavar="RUN_DIR")]]
    """The run: a folder with checkpoint.pt and config.json."""
    onnx: Positional[Annotated[Path | None, arg(metavar="OUT.onnx")]] = None
    """File to write; its name ends in .onnx. Without it: the run's name, in this folder, if that is
    free."""
    motion: str | None = None
    """Motion to embed in place of the one the run was trained on."""
    no_motion: Annotated[bool, FlagCreatePairsOff] = False
    """Leave the motion out (for motions that may not be passed on)."""
    check: Annotated[bool, FlagCreatePairsOff] = False
    """Compare the file with the network on 1000 random observations, its motion with the clip."""
    with_vectors: Annotated[bool, FlagCreatePairsOff] = False
    """Write OUT.json (what the policy is) and OUT_vectors.json (test vectors) beside the file."""
    licence: str = ""
    """Terms under which the weights may be used, one line, for OUT.json."""
    seed: int = 0
    """Seed of the check's observations and of the test vectors."""


def main(config: Config) -> None:
    """Export, check, describe."""
    onnx = config.onnx or cli.default_output(f"{config.run_dir.resolve().name}.onnx")
    if onnx.suffix != ".onnx" or onnx.is_dir():
        raise PolicyError(f"{onnx}: expected the name of a file that ends in .onnx.")
    mlp = mlp_from_checkpoint(config.run_dir)
    run = read_run_config(config.run_dir)
    try:
        spec = spec_from_config(run, run_path=config.run_dir.resolve().name)
    except PolicyError as error:
        raise PolicyError(f"{config.run_dir / 'config.json'}: {error}") from None
    clips = load_motions(config.motion) if config.motion else trained_on(config.run_dir, run)
    clips = [on_robot(clip, spec.robot) for clip in clips]
    clip = clips[0] if len(clips) == 1 else None
    if clip is None and not config.no_motion:
        raise PolicyError(
            f"{config.run_dir}: was trained on {len(clips)} motions and a file holds one; choose "
            "it with --motion, or give --no-motion."
        )
    embed = clip is not None and not config.no_motion
    write_onnx(onnx, mlp, spec, clip, embed_motion=embed)
    named = clip.name if clip is not None else f"{len(clips)} motions"
    print(
        f"wrote {onnx}: {spec.observation_size} observations, motion {named} "
        f"{'inside' if embed else 'left out'}"
    )
    if config.check:
        error = check(onnx, mlp, clip if embed else None, config.seed)
        print(f"checked: actions within {error:.1e} of the network's on 1000 observations")
    if config.with_vectors:
        vectors = onnx.with_name(f"{onnx.stem}_vectors.json")
        write_test_vectors(vectors, mlp, spec, seed=config.seed)
        description = onnx.with_suffix(".json")
        write_policy_json(
            description, spec, onnx_file=onnx, motions=clips, embedded=embed,
            licence=config.licence, **figures(config.run_dir),
        )  # fmt: skip
        print(f"wrote {description} and {vectors}")


def trained_on(run_dir: Path, run: dict[str, Any]) -> list[Clip]:
    """The run's motions, by the names in its configuration."""
    names = run.get("motion")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise PolicyError(f"{run_dir / 'config.json'}: 'motion' names no motion; give --motion.")
    return load_motions(names)


def figures(run_dir: Path) -> dict[str, Any]:
    """Training and evaluation figures that the run itself wrote down, if it has ended."""
    path = run_dir / "policy.json"
    if not path.is_file():
        return {}
    written = read_policy_json(path)
    return {key: written[key] for key in ("training", "evaluation") if key in written}


def check(path: Path, mlp: MLP, clip: Clip | None, seed: int) -> float:
    """Run the file and compare; returns the largest difference of an action.

    Raises:
        BMError: an action or the motion differs from what was to be written.
    """
    policy = load_policy(path)
    obs = np.random.default_rng(seed).normal(size=(1000, mlp.obs_mean.shape[0])).astype(np.float32)
    obs = obs * mlp.obs_scale + mlp.obs_mean  # as spread as what the network was trained on
    expected = mlp(obs)
    error = float(np.abs(policy(obs) - expected).max())
    most = ACTION_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not error < most:
        raise BMError(f"{path}: actions are {error:.2e} off, expected at most {most:.2e}.")
    if clip is not None and not np.array_equal(policy.embedded_clip().joint_pos, clip.joint_pos):
        raise BMError(f"{path}: the motion inside differs from '{clip.name}'.")
    return error


if __name__ == "__main__":
    cli.run(main, Config)
