"""The guided tasks by name, one file each."""

from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.composition import CompositionTask
from bm_envs.tasks.guided.config import CONFIGS
from bm_envs.tasks.guided.joystick import JoystickTask
from bm_envs.tasks.guided.observations import TERMS
from bm_envs.tasks.guided.obstacle import ObstacleTask
from bm_envs.tasks.guided.walk_perturb import WalkPerturbTask
from bm_envs.tasks.guided.waypoint import WaypointTask

TASKS: dict[str, type[GuidedTask]] = {
    "walk_perturb": WalkPerturbTask,
    "joystick": JoystickTask,
    "waypoint": WaypointTask,
    "obstacle": ObstacleTask,
    "composition": CompositionTask,
}
assert TASKS.keys() == CONFIGS.keys() == TERMS.keys()
