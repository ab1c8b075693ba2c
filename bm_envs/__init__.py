"""BeyondMimic in Python: a Gymnasium suite in which a Unitree G1 learns to track human motion.

Importing the package registers its environments: `gymnasium.make("BMTrack-G1-v0", motion="walk")`.
Gymnasium loads no plugins by itself; `gymnasium.make("bm_envs:BMTrack-G1-v0")` imports and makes.
"""

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry as _registry

__version__ = "0.1.0"

_IDS = {
    "BMTrack-G1-v0": {},
    "BMTrack-G1-NoStateEst-v0": {"state_estimation": False},
}
for _id, _kwargs in _IDS.items():
    if _id not in _registry:
        # No max_episode_steps: `episode_s` truncates in single and vector form alike, while
        # TimeLimit is not applied to an environment made through a vector entry point.
        _register(
            id=_id,
            entry_point="bm_envs.envs:TrackEnv",
            vector_entry_point="bm_envs.envs:TrackVectorEnv",
            kwargs=dict(_kwargs),
        )
