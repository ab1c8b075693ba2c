"""What a cost of one's own sees: the predicted future of N robots, in the world.

Every quantity is made when it is first read, together with the way back from a derivative by it to
one by the features. So a function may read places of links in the world, and neither it nor
automatic differentiation needs to know how a representation holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bm_envs.diffusion.costs.base import AHEAD
from bm_envs.diffusion.costs.frames import directions_to_now, points_to_world
from bm_envs.diffusion.costs.links import body_indices, body_points, root_heading
from bm_envs.diffusion.fields import numbers
from bm_envs.errors import ConfigError, unknown_name
from bm_envs.robots import g1
from bm_envs.rotations import namespace
from bm_envs.tasks.guided.states import NOW, PAST, REPRESENTATIONS, Frame, Representation

Name = str | tuple[str, ...]
ROOT = ("pos", "heading", "velocity", "ang_vel")
_BLOCK_OF = {"pos": "root_pos", "velocity": "root_lin_vel", "ang_vel": "root_ang_vel"}


class Quantity(NamedTuple):
    """A quantity of the future, and the way back from it to the features."""

    value: np.ndarray
    """`[N, L', ...]`."""
    pull_back: Callable[[np.ndarray], np.ndarray]
    """From a derivative by `value`, in its shape, to that by the features, `[N, L', D]`."""


class Plan:
    """The predicted future of N robots over the L' = 16 steps after the present.

    Arrays are torch tensors, or NumPy arrays for a function `with_gradient`; float64.

    Attributes:
        ahead: how far each step is away, s. `[L']`.
        time: time of the task now, s. `[N]`.
        now_pos: where the roots are now, world, m. `[N, 3]`.
        now_heading: their headings now, world, rad. `[N]`.
    """

    def __init__(
        self, features: np.ndarray, rep: Representation, frame: Frame, time: np.ndarray,
        constant: Callable[[np.ndarray], Any] = np.copy,
        variable: Callable[[np.ndarray], Any] = np.copy,
    ) -> None:  # fmt: skip
        """A plan.

        Args:
            features: `[N, L, D]`, float64, of a whole window.
            rep: representation of the features.
            frame: the now frame of the N robots in the world.
            time: `[N]`, s.
            constant: makes what the function gets of an array that it cannot change.
            variable: the same of a quantity that its value may depend on.
        """
        self._future, self._rep, self._frame = features[:, PAST:], rep, frame
        self._variable = variable
        self._made: dict[Name, Quantity] = {}
        self.read: dict[Name, Any] = {}
        """What was read so far, by name, as the function got it."""
        now = features[:, NOW]
        root = Frame(np.asarray(frame.origin), np.asarray(frame.yaw))
        present = now[:, None, rep.blocks["root_pos"]]
        heading = root_heading(now[:, rep.blocks["root_rot"]])[0]
        self.ahead = constant(AHEAD[PAST:])
        self.time = constant(time)
        self.now_pos = constant(points_to_world(present, root)[:, 0])
        self.now_heading = constant(root.yaw + heading)

    @property
    def pos(self) -> Any:
        """Where the roots (the pelves) are. `[N, L', 3]`, world, m."""
        return self["pos"]

    @property
    def heading(self) -> Any:
        """Their headings, not wrapped. `[N, L']`, world, rad."""
        return self["heading"]

    @property
    def velocity(self) -> Any:
        """Their velocities. `[N, L', 3]`, world, m/s."""
        return self["velocity"]

    @property
    def ang_vel(self) -> Any:
        """Their angular velocities. `[N, L', 3]`, world, rad/s; the last is the turning rate."""
        return self["ang_vel"]

    def link(self, name: str) -> Any:
        """Where the origin of a link is. `[N, L', 3]`, world, m.

        Raises:
            ConfigError: no such link.
        """
        body_indices((name,))
        return self[name]

    def links(self, *names: str) -> Any:
        """Where the origins of several links are, faster than one by one. `[N, L', P, 3]`.

        Raises:
            ConfigError: none, no such link, or one twice.
        """
        body_indices(names)
        return self[names]

    def walk_error(self, forward: Any, left: Any = 0.0, rate: Any = 0.0) -> Any:
        """How far the plan is off from walking so from now on: a cost that works well. `[N]`.

        Half the squared errors of velocity, place, heading and turning rate of the root, which go
        together, summed over the steps: `Joystick` in the world.

        Args:
            forward: m/s, of the robot's own heading; a number or `[N]`.
            left: m/s, likewise.
            rate: rad/s, to the left.
        """
        xp, ahead = namespace(self.pos), self.ahead
        still = 0.0 * self.now_heading[:, None]
        forward, left, rate = (
            still + (value if isinstance(value, (int, float)) else value[:, None])
            for value in (forward, left, rate)
        )

        def along(turned: Any) -> Any:
            cos, sin = (f(self.now_heading[:, None] + turned) for f in (xp.cos, xp.sin))
            return xp.stack([cos * forward - sin * left, sin * forward + cos * left], -1)

        turned = rate * ahead
        # The way along an arc is its chord.
        way = along(0.5 * turned) * (xp.sinc(0.5 * turned / np.pi) * ahead)[..., None]
        errors = [
            self.velocity[..., :2] - along(turned),
            self.pos[..., :2] - self.now_pos[:, None, :2] - way,
            (self.heading - self.now_heading[:, None] - turned)[..., None],
            (self.ang_vel[..., 2] - rate)[..., None],
        ]
        return 0.5 * sum((error**2).sum(-1).sum(-1) for error in errors)

    def __getitem__(self, name: Name) -> Any:
        """A quantity by name: one of those above, a link's, or a block as `states.py` lists it.

        Several links have a tuple of their names. Blocks are `[N, L', size]`, in the frames that
        the table there names.

        Raises:
            ConfigError: no such name, or one that this representation does not have.
        """
        if name not in self.read:
            self.read[name] = self._variable(self._quantity(name).value)
        return self.read[name]

    def gradient(self, slopes: Mapping[Name, Any], whose: str) -> np.ndarray:
        """The derivative by the features of what has these derivatives by quantities.

        Args:
            slopes: by name, in the shape of the quantity.
            whose: of what, for messages.

        Raises:
            ConfigError: an unknown name, a wrong shape, or a number that is not finite.
        """
        total = np.zeros_like(self._future)
        for name, slope in slopes.items():
            value, pull_back = self._quantity(name)
            total += pull_back(numbers(f"gradient by '{name}' of {whose}", slope, value.shape))
        return total

    def _quantity(self, name: Name) -> Quantity:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: Name) -> Quantity:
        if isinstance(name, tuple):
            points = body_points(self._future, self._rep, name)
            return Quantity(
                points_to_world(points.pos, self._frame),
                lambda by: points.pull_back(directions_to_now(by, self._frame)),
            )
        if name in self._rep.blocks:
            columns = self._rep.blocks[name]
            return Quantity(self._future[..., columns], lambda by: self._at(columns, by))
        if name in _BLOCK_OF:
            columns = self._rep.blocks[_BLOCK_OF[name]]
            value = self._frame.to_world(self._future[..., columns])
            if name == "pos":
                value = value + np.asarray(self._frame.origin)[:, None]
            return Quantity(value, lambda by: self._at(columns, self._frame.of(by)))
        if name == "heading":
            columns = self._rep.blocks["root_rot"]
            heading, by_rotvec = root_heading(self._future[..., columns])
            return Quantity(
                self._frame.yaw[:, None] + heading,
                lambda by: self._at(columns, by[..., None] * by_rotvec),
            )
        if name in g1.BODY_NAMES:
            one = self._make((name,))
            return Quantity(one.value[:, :, 0], lambda by: one.pull_back(by[:, :, None]))
        others = [rep.name for rep in REPRESENTATIONS.values() if name in rep.blocks]
        if others:
            raise ConfigError(
                f"'{name}' is a block of {others[0]}, and this model's states are "
                f"{self._rep.name}; what both have is named in docs/own_cost.md."
            )
        raise ConfigError(
            unknown_name(
                "quantity of a plan", name,
                [*ROOT, *self._rep.blocks], "Links are known by their names, too.",
            )
        )  # fmt: skip

    def _at(self, columns: slice, part: np.ndarray) -> np.ndarray:
        result = np.zeros_like(self._future)
        result[..., columns] = part
        return result
