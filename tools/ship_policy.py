"""Put a tracker or a guided model of LAFAN1 motions into the repository's folder `policies/`.

    python tools/ship_policy.py runs/fight1 lafan1_fight1
    python tools/ship_policy.py runs/body_pos__ddpm_guided__1 guided_human

Written are `policies/NAME.onnx`, `policies/NAME.json` with the note on the licence, and the
policy's entry in `policies/test_vectors.json`; of a guided model, `policies/NAME/denoiser.onnx` and
`policy.json` beside it. A policy of the same name is replaced.
`bm_envs/policy/shipping.py` has what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.errors import PolicyError
from bm_envs.policy import DIFFUSION, kind_of, repository_folder
from bm_envs.policy.shipping import ship, ship_denoiser


@dataclass(frozen=True)
class Config:
    """Put a policy of LAFAN1 motions into the repository's folder `policies/`."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A finished run directory, or an ONNX file with its description beside it."""
    name: Positional[Annotated[str, arg(metavar="NAME")]]
    """Name of the policy, lafan1_..., of a guided model guided_..."""


def main(config: Config) -> None:
    """Write the policy's files."""
    folder = repository_folder()
    if folder is None:
        raise PolicyError("This is no clone of the repository with a folder policies/.")
    if kind_of(config.run) is DIFFUSION:
        print(f"wrote {ship_denoiser(config.run, config.name, folder)} and its description")
        return
    print(f"wrote {ship(config.run, config.name, folder)}, its description and test vectors")


if __name__ == "__main__":
    cli.run(main, Config)
