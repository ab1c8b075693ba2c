"""Put a tracker of LAFAN1 motions into the repository's folder `policies/`.

    python tools/ship_policy.py runs/fight1 lafan1_fight1

Written are `policies/NAME.onnx`, `policies/NAME.json` with the note on the licence, and the
policy's entry in `policies/test_vectors.json`; a policy of the same name is replaced.
`bm_envs/policy/shipping.py` has what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.errors import PolicyError
from bm_envs.policy import repository_folder
from bm_envs.policy.shipping import ship


@dataclass(frozen=True)
class Config:
    """Put a tracker of LAFAN1 motions into the repository's folder `policies/`."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A finished run directory, or an ONNX file with its description beside it."""
    name: Positional[Annotated[str, arg(metavar="NAME")]]
    """Name of the policy, lafan1_..."""


def main(config: Config) -> None:
    """Write the policy's files."""
    folder = repository_folder()
    if folder is None:
        raise PolicyError("This is no clone of the repository with a folder policies/.")
    print(f"wrote {ship(config.run, config.name, folder)}, its description and test vectors")


if __name__ == "__main__":
    cli.run(main, Config)
