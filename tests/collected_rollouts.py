"""A small folder of roll-outs, collected by the script with the shipped walk as expert."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "algos"))
import collect_rollouts as collect  # noqa: E402

TINY = dict(policy=("walk",), num_envs=12, episodes=24, steps=40, warm_up=5, verify=20, seed=3)


def config(out, **changes):
    """Settings of the script for it."""
    return collect.Config(out=out, **{**TINY, **changes})


def collected(folder):
    """Collect it there."""
    collect.main(config(folder))
    return folder
