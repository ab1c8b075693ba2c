"""The states of what learns, as a checkpoint holds them: networks, optimizers, generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


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
