"""The guided tasks by name, one file each."""

from collections.abc import Iterable, Mapping

from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.composition import CompositionTask
from bm_envs.tasks.guided.config import CONFIGS
from bm_envs.tasks.guided.joystick import JoystickTask
from bm_envs.tasks.guided.observations import TERMS
from bm_envs.tasks.guided.obstacle import ObstacleTask
from bm_envs.tasks.guided.run import RunTask
from bm_envs.tasks.guided.tour import TourTask
from bm_envs.tasks.guided.walk_perturb import WalkPerturbTask
from bm_envs.tasks.guided.waypoint import WaypointTask

TASKS: dict[str, type[GuidedTask]] = {
    "walk_perturb": WalkPerturbTask,
    "joystick": JoystickTask,
    "run": RunTask,
    "waypoint": WaypointTask,
    "obstacle": ObstacleTask,
    "composition": CompositionTask,
    "tour": TourTask,
}

# What a task needs has its name as the key in every table: docs/extending.md#a-task.
_TABLES = {"config.CONFIGS": CONFIGS, "observations.TERMS": TERMS, "tasks.TASKS": TASKS}


def missing_entries(tables: Mapping[str, Iterable[str]]) -> str:
    """Which names lack an entry in which table, as sentences; empty if every table has all."""
    names = sorted({name for table in tables.values() for name in table})
    lacks = {name: [of for of, table in tables.items() if name not in table] for name in names}
    return " ".join(
        f"The guided task '{name}' has no entry in {' and '.join(where)}."
        for name, where in lacks.items()
        if where
    )


assert not missing_entries(_TABLES), missing_entries(_TABLES)
