"""What the single and the vector form of an environment share: task, spaces, pictures, names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from bm_envs.envs.arguments import ACTION_BOUND, ClosedError
from bm_envs.tasks.track.task import StepResult

if TYPE_CHECKING:
    from bm_envs.tasks.guided.streams import Source


class Named(int):
    """A number that has a name, and equals both.

    What the `info` of one robot holds of a clip or of the rule that ended an episode: a number for
    those who stack infos into arrays, the name for those who read them. As a dictionary's key it is
    its name.
    """

    name: str

    def __new__(cls, number: int, name: str) -> Named:
        """The number `number` of the name `name`."""
        self = super().__new__(cls, number)
        self.name = name
        return self

    def __getnewargs__(self) -> tuple[int, str]:
        return int(self), self.name

    def __eq__(self, other: object) -> bool:
        return self.name == other if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{int(self)} ({self.name!r})"


class Core:
    """Task, simulator, spaces and rendering: what a single and a vector environment share."""

    far = False  # whether the following camera keeps away
    streams = False  # whether the task can draw for each robot from a generator of its own

    def __init__(self, task: Any, arguments: Mapping[str, Any]) -> None:
        self.task, self.simulator, self.config = task, task.simulator, task.config
        self.arguments = dict(arguments)
        self._renderer: Any = None
        self._viewer: Any = None
        self.closed = False
        self.observation_space: gymnasium.Space = unbounded(task.observation_size)
        self.num_actions: int = task.simulator.joint_pos.shape[1]
        self.action_space = gymnasium.spaces.Box(
            -ACTION_BOUND, ACTION_BOUND, (self.num_actions,), np.float32
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy opens windows of its own when it is asked for pictures.
        return self.__dict__ | {"_renderer": None, "_viewer": None}

    def start(self, options: Mapping[str, Any] | None, count: int) -> dict[str, Any]:
        """Arguments of the task's reset of `count` robots, from the options of Gymnasium's."""
        return self.task.start(options, count)

    def observe(self, env_ids: np.ndarray | slice, rng: Source) -> tuple[np.ndarray, ...]:
        """What observations are made of; a diverged robot's have zeros for what is not finite."""
        parts = self.task.observe(env_ids, rng)
        if not math.isfinite(np.vdot(parts[0], parts[0])):
            for part in parts:
                np.nan_to_num(part, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return parts

    def observation(self, parts: tuple[np.ndarray, ...]) -> Any:
        """What Gymnasium's calls return, from the parts that `observe` returned."""
        return parts[0]

    def check_open(self, call: str) -> None:
        """Refuse a call after `close`."""
        if self.closed:
            raise ClosedError(f"{call}() was called after close(), make the environment anew.")

    def render(self, env_id: int = 0) -> np.ndarray | tuple[np.ndarray, ...] | None:
        """A picture of robot `env_id` and of what its task shows, in the configured mode."""
        mode = self.arguments["render_mode"]
        if mode is None:
            gymnasium.logger.warn("render() was called but no render_mode was given to make().")
            return None
        from bm_envs import viewers

        sim = self.simulator
        qpos = np.concatenate(
            [sim.root_pos[env_id], sim.root_quat[env_id], sim.joint_pos[env_id]]
        ).astype(np.float64)
        shown = qpos, self.ghost(env_id), viewers.Decor(**self.decor(env_id))
        model = self.config.model
        view = viewers.FAR_VIEW if self.far else viewers.View()
        if mode == "human":
            if self._viewer is None:
                self._viewer = viewers.HumanViewer(model, view=view)
            self._viewer.sync(*shown)
            return None
        if self._renderer is None:
            size = {key: self.arguments[key] for key in ("width", "height", "camera")}
            self._renderer = viewers.OffscreenRenderer(model, view=view, **size)
        if mode == "rgb_array":
            return self._renderer.render(*shown)
        depth = self._renderer.depth(*shown)
        return depth if mode == "depth_array" else (self._renderer.render(*shown), depth)

    def ghost(self, env_id: int) -> np.ndarray | None:
        """A second configuration to draw, `[36]`."""
        return None

    def decor(self, env_id: int) -> dict[str, np.ndarray]:
        """What else to draw, members of the renderer's `Decor`."""
        return {}

    def close(self) -> None:
        """Free windows, pictures and the engine; nothing happens the second time."""
        self.closed = True
        for part in (self._renderer, self._viewer):
            if part is not None:
                part.close()
        self._renderer = self._viewer = None
        self.simulator.close()


def unbounded(size: int) -> gymnasium.spaces.Box:
    """The space of any `size` numbers."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def cause(result: StepResult, env_id: int) -> Named:
    """The first rule that ended the episode; failures come before the end of clip and time.

    Its number counts the task's rules from 1.
    """
    rules = enumerate(result.causes.items(), 1)
    return next(Named(i, name) for i, (name, happened) in rules if happened[env_id])


NO_CAUSE = Named(0, "")  # of an episode that goes on
