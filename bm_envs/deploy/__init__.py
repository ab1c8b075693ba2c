"""Running a policy outside the training environments: on a robot, or a stand-in for one.

`tracker` is a policy for your own loop: a robot's state in, a command out (`messages`). `planned`
takes actions from plans that a thread of its own makes (`background`); both are an `actor`.
`controller` is all that is around one on a robot: it stands up, runs the actor, ends and stops.
`reference` is the motion that it follows, or `live` one that comes over a `wire` (`streamed`: a
known one, to try that). `estimator` says where the base is, and `envelope` bounds
readings and commands. `robot` is a G1 in MuJoCo that takes such commands and gives such readings.
`unitree` carries both over Unitree's low-level topics in DDS. `process` and `guard` make sure that
motors are damped when a process ends. Nothing of the environments (`tasks`, `backends`) is used:
this is the control loop a second time, from what a policy file says of itself. (What plans for
`planned` is given to it, by a script; a guided model shares code with the environments.)
"""

from __future__ import annotations

from typing import Any

from bm_envs.deploy.messages import Command, RobotState
from bm_envs.deploy.tracker import Tracker
from bm_envs.errors import BackendUnavailable

__all__ = ["Command", "RobotState", "Tracker", "unitree_topics"]


def unitree_topics() -> Any:
    """The module of the topics.

    Raises:
        BackendUnavailable: its package is missing.
    """
    try:
        from bm_envs.deploy import unitree
    except ImportError as error:
        raise BackendUnavailable(
            "DDS needs the package cyclonedds: pip install 'bm-envs[dds]' (Python 3.11 to 3.13)."
        ) from error
    return unitree
