"""BeyondMimic in Python: a Gymnasium suite in which a Unitree G1 learns to track human motion.

Importing the package registers its environments: `gymnasium.make("BMTrack-G1-v0", motion="walk")`
for tracking, and `gymnasium.make("BMGuided-G1-Joystick-v0")` and four more without a reference.
Gymnasium loads no plugins by itself; `gymnasium.make("bm_envs:BMTrack-G1-v0")` imports and makes.
"""

import os as _os
import sys as _sys
from types import ModuleType as _ModuleType

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry as _registry

from bm_envs.errors import GL_REFUSED as _GL_REFUSED

__version__ = "0.2.0"

# Modules of earlier versions, and where their content is now. An import of an old name fails with
# one sentence that gives the new one.
MOVED: dict[str, str] = {
    "bm_envs.backends.mujoco_render": "bm_envs.viewers",
    "bm_envs.hub": "bm_envs.policy.hub",
    "bm_envs.native": "bm_envs.backends.native",
    "bm_envs.observation_terms": "bm_envs.robots.observation_terms",
    "bm_envs.run_files": "bm_envs.learning",
    "bm_envs.tasks.guided.costs": "bm_envs.diffusion.costs",
    "bm_envs.tasks.guided.model": "bm_envs.diffusion.model",
    "bm_envs.tasks.guided.policy": "bm_envs.diffusion.task_policy",
    "bm_envs.tasks.guided.protocols": "bm_envs.tasks.guided.tasks",
    "bm_envs.tasks.guided.representation": "bm_envs.tasks.guided.states",
    "bm_envs.tasks.guided.rollouts": "bm_envs.diffusion.rollouts",
    "bm_envs.tasks.guided.sampler": "bm_envs.diffusion.sampler",
    "bm_envs.tasks.guided.sdf": "bm_envs.diffusion.fields",
    "bm_envs.tasks.guided.steering": "bm_envs.diffusion.steering",
    "bm_envs.tasks.guided.task": "bm_envs.tasks.guided.robots",
    "bm_envs.tasks.guided.ways": "bm_envs.diffusion.ways",
    "bm_envs.training": "bm_envs.learning",
    "bm_envs.web": "bm_envs.viewers.page",
}


class _MovedFinder:
    """Comes before all other finders: one of them may know a file of an earlier version."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: _ModuleType | None = None) -> None:
        if name in MOVED:
            # Without `name=`: `from package import module` would drop the error and say less.
            raise ModuleNotFoundError(f"{name} is now {MOVED[name]}.")


if not any(type(_finder).__name__ == "_MovedFinder" for _finder in _sys.meta_path):
    _sys.meta_path.insert(0, _MovedFinder())  # type: ignore[arg-type]

# The values that `mujoco/rendering/classic/gl_context.py` accepts.
_GL_NAMES = (
    *("", "enable", "enabled", "on", "true", "1", "disable", "disabled", "off", "false", "0"),
    *{"linux": ("glfw", "glx", "egl", "osmesa"), "win32": ("glfw", "wgl")}.get(
        _sys.platform, ("glfw", "cgl")
    ),
)
if _os.environ.get("MUJOCO_GL", "").lower().strip() not in _GL_NAMES:
    _GL_REFUSED.append(_os.environ.pop("MUJOCO_GL"))

_IDS = {
    "BMTrack-G1-v0": ("Track", {}),
    "BMTrack-G1-NoStateEst-v0": ("Track", {"state_estimation": False}),
    "BMTrack-G1-23-v0": ("Track", {"robot": "g1_23"}),
    "BMGuided-G1-WalkPerturb-v0": ("Guided", {"task": "walk_perturb"}),
    "BMGuided-G1-Joystick-v0": ("Guided", {"task": "joystick"}),
    "BMGuided-G1-Run-v0": ("Guided", {"task": "run"}),
    "BMGuided-G1-Waypoint-v0": ("Guided", {"task": "waypoint"}),
    "BMGuided-G1-Obstacle-v0": ("Guided", {"task": "obstacle"}),
    "BMGuided-G1-Tour-v0": ("Guided", {"task": "tour"}),
}
for _id, (_kind, _kwargs) in _IDS.items():
    if _id not in _registry:
        # No max_episode_steps: `episode_s` truncates in single and vector form alike, while
        # TimeLimit is not applied to an environment made through a vector entry point.
        _register(
            id=_id,
            entry_point=f"bm_envs.envs:{_kind}Env",
            vector_entry_point=f"bm_envs.envs:{_kind}VectorEnv",
            kwargs=dict(_kwargs),
        )
