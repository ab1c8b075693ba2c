"""The states of a trainer's parts, as a checkpoint holds them.

They are of what learns (networks, optimizers, generators), and of the environments it learns in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv


def states_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The states of `parts`, by their names.

    A part is a `torch.Generator`, or has `state_dict` and `load_state_dict`.
    """
    return {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts.items()
    }


def load_states(parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give `parts` the states that `states_of` returned, or a checkpoint holds of them."""
    for name, part in parts.items():
        restore = part.set_state if isinstance(part, torch.Generator) else part.load_state_dict
        restore(states[name])


def env_state(env: TrackVectorEnv | GuidedVectorEnv) -> dict[str, Any]:
    """The state of an environment.

    Its generator's is JSON, because a checkpoint cannot hold those integers, which have over 64
    bits.
    """
    state = env.get_state()
    return {**state, "generator": json.dumps(state["generator"])}


def load_env_state(env: TrackVectorEnv | GuidedVectorEnv, state: Mapping[str, Any]) -> None:
    """Give an environment the state that `env_state` returned."""
    env.set_state({**state, "generator": json.loads(state["generator"])})
