"""The environments without a reference; the docstring of `GuidedEnv` is their specification.

They import their tasks when they are made, so that tracking starts without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from bm_envs.envs.arguments import Autoreset, Setting, arguments_of, check_arguments
from bm_envs.envs.core import Core
from bm_envs.envs.single import SingleEnv
from bm_envs.envs.vector import VectorEnv
from bm_envs.errors import ConfigError
from bm_envs.tasks.settings import check_kind

if TYPE_CHECKING:
    from bm_envs.tasks.guided.base import GuidedTask
    from bm_envs.tasks.guided.config import GuidedConfig


class GuidedEnv(SingleEnv, gymnasium.Env):
    """A Unitree G1 without a reference, at one of the guided tasks: one robot.

    The vector form is `GuidedVectorEnv`.

    ## Description
    The tasks with which BeyondMimic (arXiv 2508.08241) tries its guided diffusion model; robot,
    physics and drives are those of tracking, 50 Hz. Where the paper tells no figure it is ours, as
    `bm_envs.tasks.guided.config` says one by one.

    | id | task | it is done when |
    |---|---|---|
    | BMGuided-G1-WalkPerturb-v0 | walk 15 s; the root's velocity jumps by U[0, 0.5] m/s each second, in any horizontal direction, beginning at 0 s | no fall |
    | BMGuided-G1-Joystick-v0 | 3 s each: 0.6 m/s forward, 0.3 m/s backward, 0.5 rad/s left and right at 0.4 m/s | each was followed: mean speed over the last 1.5 s half the commanded one or more (0.3, 0.15 m/s); turns: heading changed by 25 degrees or more; and no fall |
    | BMGuided-G1-Run-v0 | 2.0 m/s straight ahead, 15 s | the mean speed ahead over the last 10 s is within 15 %, and no fall |
    | BMGuided-G1-Waypoint-v0 | a goal 2 to 5 m off, 15 s | the pelvis was within 0.3 m and slower than 0.2 m/s, and no fall |
    | BMGuided-G1-Obstacle-v0 | the same behind 1 to 5 vertical cylinders of 0.15 to 0.3 m radius | the same, and no link came into one |
    | BMGuided-G1-Tour-v0 | 18 waypoints with a heading, 5 s each, while the arms are moved by the task, and a punch of up to 500 N each 5 s: a public benchmark's rules (`docs/tour.md`) | 90 s without the pelvis below 0.2 m |

    Cylinders are no part of the physics; `bm_envs.tasks.guided.obstacles` has the test of contact.

    `task="composition"`, which has no id, is a minute of all: walk 8 s, stop, back, turn, 6 s each,
    then 34 s for a goal behind obstacles, with pushes throughout.

    ## Action Space
    `Box(-10, 10, (29,))`, as in `TrackEnv`.

    ## Observation Space
    `Box(-inf, inf, (O,))`, the terms of `bm_envs.tasks.guided.observations.TERMS`, where they stand
    being `env.unwrapped.task.observation_layout`. The now frame stands on the ground under the
    pelvis and faces as it does. Terms of 4 steps hold t-3, t-2, t-1 and t one after another, as if
    the robot had been in its start state before; `observations.features` makes of them the states
    as a diffusion model wants them.

    | index | term | frame | unit |
    |---|---|---|---|
    | 0:116 | joint_pos: joint positions, 4 steps | joints | rad |
    | 116:232 | joint_vel: joint velocities, 4 steps | joints | rad/s |
    | 232:244 | root_pos: pelvis, 4 steps; heights are above the ground | now | m |
    | 244:256 | root_rot: rotation vector of the pelvis, 4 steps | now | rad |
    | 256:268 | root_lin_vel: velocity of the pelvis origin, 4 steps | now | m/s |
    | 268:280 | root_ang_vel: angular velocity of the pelvis, 4 steps | now | rad/s |
    | 280:309 | actions: last raw action; at the start the one that asks for the pose | joints | - |

    WalkPerturb ends here. Joystick and Run go on with

    | 309:312 | command: wanted velocity forward and left, wanted yaw rate | now | m/s, rad/s |

    and Waypoint and Obstacle with the first two of these, Obstacle with all three:

    | 309:311 | goal_pos: the goal | now | m |
    | 311:312 | goal_distance: horizontal distance of the pelvis from it | - | m |
    | 312:321 | obstacles: x, y and radius of the 3 nearest obstacles | now | m |

    Tour goes on behind the joystick's rows with

    | 312:314 | waypoint: the waypoint | now | m |
    | 314:315 | waypoint_distance: horizontal distance of the pelvis from it | - | m |
    | 315:316 | heading_error: turn to its heading, to the left | - | rad |
    | 316:330 | arm_targets: targets of the arms' joints in the coming step | joints | rad |

    Where there are fewer than 3, (10, 0, 0) stands for the others. A composition has all rows in
    this order: the command first, then goal and obstacles, each in its own phase.

    ## Rewards
    `reward_alive` + `reward_task` each step: 0.5 while not fallen, and 0.5 times a term in [0, 1],
    0 from a fall on and in the warm-up. v is the horizontal velocity of the pelvis:

    - WalkPerturb: |v| / 0.2, at most 1.
    - Joystick: the mean of exp(-|v - v_c|^2 / 0.3^2) and exp(-(w - w_c)^2 / 0.5^2), the command's
      velocity and yaw rate.
    - Run: the same of its command.
    - Waypoint: (1 - e^-2d) min(1, max(0, v_g / 0.5)) + e^-2d exp(-|v|^2 / 0.2^2), d the distance
      and v_g the speed towards the goal.
    - Obstacle: that times min(1, max(0, c / 0.1)), c the clearance.
    - Tour: the joystick's, for the command that leads to the waypoint.
    - Composition: the joystick's in commanded phases, the obstacle task's on the way.

    ## Starting State
    A drawn frame of the built-in walks and turns in which the robot is on its way.
    `reset(options={"qpos": [36], "qvel": [35]})` gives the state (at rest without `qvel`), in
    MuJoCo's layout; `"goal": [2]` and, with it, `"obstacles": [C, 3]` (x, y, radius) give the task,
    in the world, m. With `warm_up_s` the time begins so much later, and with it command, goal,
    obstacles and pushes; in observations they are then zero (obstacles: absent). Tour: hanging
    upright from a crane, feet 3 cm above the ground; `"run": id` names the tour, its punches and its
    arms.

    ## Episode End
    Termination: a fall (`fall="strict"`: pelvis below 0.4 m or tilted by more than 60 degrees;
    `"head"`: head below 0.2 m; tour's `"pelvis"`: pelvis below 0.2 m) or a diverged simulation.
    Truncation: the task's time, 15 s (joystick 12 s, tour 90 s), or `episode_s`. `info["termination"]` names which. Nothing else ends an episode: not the
    arrival at a goal, nor the touch of an obstacle.

    ## Info
    The figures of the state that is observed. All: `time_s` (negative in the warm-up),
    `pelvis_height`, `head_height`, `tilt`, `speed`, `fell_strict`, `fell_head` (so far), `success`
    (earned so far; of WalkPerturb, Joystick, Run and Composition in the last step only; a fall by the criterion that
    ends episodes takes it back: the paper's success wants `fall="head"`), `success_strict` (and no
    fall by the strict one).
    WalkPerturb: `pushed`, `push_velocity`, `pushes`. Joystick, Run: `command`, `velocity`, `yaw_rate`,
    `segment`, `segments_done`, `segment_value` (0 before its end), `segment_passed`. Waypoint,
    Obstacle: `goal`, `distance`, `arrived_s` (infinite before). Obstacle: `clearance`, `least_clearance`, `touched`,
    `num_obstacles`. Composition: all of these. Tour: `run`, `command`, `waypoint`, `segment`, `punched`,
    `fell_pelvis`, `position_error`, `heading_error` (of the ends of segments and of the fall,
    infinite elsewhere), `energy`, `vibration`. m, s, rad; `reward_alive` and `reward_task` are of the step just done,
    and 0 after a reset; `termination` as in `TrackEnv`.

    ## Arguments
    `task`: which one, given by the id. `overrides`: nested mapping of changed settings of the task's
    configuration, `config`: a whole one in their place. `episode_s`, `fall`, `warm_up_s`: three of
    those settings, "preset" for the configuration's. `backend`, `threads`, `render_mode`, `width`,
    `height`: as in `TrackEnv`; `camera`: one of the model's, None for one that follows from afar.
    Pictures show the command as an arrow, the path walked, the goal and the obstacles.

    ## Version History
    v0: first version.
    """  # noqa: E501 (a table's row is a line)

    task: GuidedTask
    config: GuidedConfig

    def __init__(
        self, task: str = "walk_perturb", *, backend: str = "mujoco",
        overrides: Mapping[str, Any] | None = None, config: GuidedConfig | None = None,
        episode_s: Setting = "preset", fall: str = "preset", warm_up_s: Setting = "preset",
        render_mode: str | None = None, width: int = 640, height: int = 480,
        camera: str | None = None, threads: int = 1,
        **unknown: Any,
    ) -> None:  # fmt: skip
        super().__init__(_GuidedCore(type(self), arguments_of(locals()) | {"num_envs": 1}))

    def _info(self, parts: tuple[np.ndarray, ...]) -> dict[str, Any]:
        rows = {name: values[0] for name, values in self.task.figures().items()}
        return {name: row if row.ndim else row.item() for name, row in rows.items()}


class GuidedVectorEnv(VectorEnv, gymnasium.vector.VectorEnv):
    """N robots in one simulator; task, spaces and arguments are those of `GuidedEnv`.

    `autoreset_mode` and `max_episode_steps` as in `TrackVectorEnv`. With `reset(seed=[...])`, one
    seed for each robot, what is drawn for a robot does not depend on the others: see `reset`. Every
    array in `info` has one row a robot; with `same_step` those of an ended episode, its success
    among them, are in `info["final_info"]`.
    """

    task: GuidedTask
    config: GuidedConfig

    def __init__(
        self, num_envs: int = 1, task: str = "walk_perturb", *, backend: str = "mujoco",
        overrides: Mapping[str, Any] | None = None, config: GuidedConfig | None = None,
        episode_s: Setting = "preset", fall: str = "preset", warm_up_s: Setting = "preset",
        autoreset_mode: Autoreset = "same_step", render_mode: str | None = None, width: int = 640,
        height: int = 480, camera: str | None = None, threads: int = 0,
        max_episode_steps: int | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        super().__init__(_GuidedCore(type(self), arguments_of(locals())))

    def _figures(self, parts: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        return self.task.figures()


class _GuidedCore(Core):
    far = True
    streams = True

    def __init__(self, env: type, arguments: Mapping[str, Any]) -> None:
        check_arguments(env, arguments)
        config = _resolve_config(arguments)
        from bm_envs.tasks.guided.tasks import TASKS

        task = TASKS[config.task](
            config, int(arguments["num_envs"]), backend=arguments["backend"],
            threads=arguments["threads"],
        )  # fmt: skip
        super().__init__(task, arguments)

    def decor(self, env_id: int) -> dict[str, np.ndarray]:
        return self.task.shown(env_id)


def _resolve_config(arguments: Mapping[str, Any]) -> GuidedConfig:
    from bm_envs.tasks.guided.config import config_class

    task, config, overrides = (arguments[name] for name in ("task", "config", "overrides"))
    check_kind("task", task, str)
    check_kind("overrides", overrides, Mapping | None)
    kind = config_class(task)
    config = kind() if config is None else config
    if type(config) is not kind:
        raise ConfigError(
            f"config is a {type(config).__name__}, expected a {kind.__name__} for task '{task}'."
        )
    settings = {name: arguments[name] for name in ("episode_s", "fall", "warm_up_s")}
    changes = {name: value for name, value in settings.items() if value != "preset"}
    return config.override({**(overrides or {}), **changes})
