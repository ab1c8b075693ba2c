r"""CleanRL's `ppo_continuous_action.py` with the three edits that our environments want.

    python benchmarks/clients/cleanrl.py --out my_ppo.py
    python my_ppo.py --env-id bm_envs:BMTrack-G1-v0 --num-envs 64 --num-steps 32 \
        --num-minibatches 4 --learning-rate 1e-3 --total-timesteps 2000000

The script is CleanRL's (MIT licence) and no part of this project: it is taken from the release on
the package index with pip, or from `--script`, a copy of yours. The edits, shown when made:

1. The environment: `gym.make` is told the motion and the preset.
2. Gymnasium 1 wants the observation space of `TransformObservation`.
3. Gymnasium 1 would spend a step on each reset, which the script would learn from: robots begin
   anew within the step (`SAME_STEP`), and the log reads Gymnasium 1's `final_info`.

`--noise-std` is one more: what the policy's noise begins with, CleanRL's being 1.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError

RELEASE = "1.2.0"
NAME = "ppo_continuous_action.py"
SHA256 = "2b946196c16231f54051d211e74f5ed807e2194d56bd9cf79db0a5b08fd792e3"
# The release says it wants Python below 3.11, and old versions of much that its other scripts use:
# it is downloaded alone, as for a Python that it allows, and only this script is read from it.
PYTHON = "3.10"


@dataclass(frozen=True)
class Config:
    """What to edit."""

    out: Path
    """File to write."""
    script: Path | None = None
    """A copy of CleanRL's script; None: the release's, from the package index."""
    motion: str = "walk"
    """Motion to track."""
    preset: str = "laptop"
    """The environment's preset."""
    noise_std: float = 1.0
    """What the policy's noise begins with."""

    def __post_init__(self) -> None:
        if not 0 < self.noise_std < math.inf:
            raise ConfigError(f"noise_std is {self.noise_std}, expected a positive number.")


def edits(config: Config) -> list[tuple[str, str]]:
    """`(what stands there once, what takes its place)`."""
    ended = (
        '[{"episode": {"r": r, "l": length}} for r, length, over in zip('
        '*map(infos["final_info"]["episode"].get, "rl"), infos["_final_info"]) if over]'
    )
    changes = [
        (
            "            env = gym.make(env_id)\n",
            "            env = gym.make(env_id, "
            f"motion={config.motion!r}, preset={config.preset!r})\n",
        ),
        (
            "lambda obs: np.clip(obs, -10, 10))\n",
            "lambda obs: np.clip(obs, -10, 10), env.observation_space)\n",
        ),
        (
            "for i in range(args.num_envs)]\n",
            "for i in range(args.num_envs)],\n"
            "        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,\n",
        ),
        ('for info in infos["final_info"]:\n', f"for info in {ended}:\n"),
    ]
    if config.noise_std != 1:
        changes.append(
            (
                "torch.zeros(1, np.prod(envs.single_action_space.shape))",
                "torch.full((1, np.prod(envs.single_action_space.shape)), "
                f"{math.log(config.noise_std)!r})",
            )
        )
    return changes


def edited(source: str, changes: list[tuple[str, str]], name: str) -> str:
    """The script with its edits.

    Raises:
        ConfigError: a line that is to be edited is not there, or more than once.
    """
    for old, new in changes:
        if (count := source.count(old)) != 1:
            raise ConfigError(
                f"{name}: '{old.strip()}' is there {count} times, expected once as in CleanRL "
                f"{RELEASE}: give another copy with --script, or none."
            )
        source = source.replace(old, new)
    return source


def released() -> str:
    """The release's script.

    Raises:
        BMError: it could not be had, or is another one.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder,
                "--only-binary=:all:", "--python-version", PYTHON, f"cleanrl=={RELEASE}",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise BMError(
                f"pip could not download cleanrl=={RELEASE} ({lines[-1] if lines else 'no word'}): "
                "give a copy of the script with --script."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(f"cleanrl/{NAME}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise BMError(f"cleanrl=={RELEASE}: {NAME} has SHA-256 {digest}, expected {SHA256}.")
    return data.decode()


def main(config: Config) -> None:
    """Get the script, edit it, and show what changed."""
    name = f"CleanRL {RELEASE}" if config.script is None else "CleanRL"
    if config.script is None:
        source = released()
    else:
        try:
            source = config.script.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{config.script}: cannot be read ({error}).") from None
    result = edited(source, edits(config), str(config.script or name))
    lines = source.splitlines(), result.splitlines()
    print("\n".join(difflib.unified_diff(*lines, name, str(config.out), lineterm="", n=0)))
    with cli.atomic_path(config.out) as temporary:
        temporary.write_text(
            f"# {name}: {NAME}, with edits for bm_envs\n{result}", encoding="utf-8"
        )


if __name__ == "__main__":
    cli.run(main, Config)
