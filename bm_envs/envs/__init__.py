"""Gymnasium's single and vector environments around (Simulator, Task); nothing else.

Tracking and the guided tasks share what Gymnasium asks of every environment (seeds, autoreset,
saved states, pictures): `single.py` and `vector.py`, which drive a task through the calls that both
kinds have: `startup`, `reset`, `step`, `push`, `observe`. What both forms of a kind share is its
`Core`. The docstrings of `TrackEnv` and `GuidedEnv` are the specification.
"""

from bm_envs.envs.arguments import (
    ACTION_BOUND,
    METADATA,
    Autoreset,
    ClosedError,
    Setting,
    UnknownArgument,
)
from bm_envs.envs.core import Named
from bm_envs.envs.guided import GuidedEnv, GuidedVectorEnv
from bm_envs.envs.track import CriticObs, Motion, TrackEnv, TrackVectorEnv

__all__ = [
    "ACTION_BOUND", "METADATA", "Autoreset", "ClosedError", "CriticObs", "GuidedEnv",
    "GuidedVectorEnv", "Motion", "Named", "Setting", "TrackEnv", "TrackVectorEnv",
    "UnknownArgument",
]  # fmt: skip
