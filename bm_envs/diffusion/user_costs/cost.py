"""A function of a plan as a cost."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bm_envs.diffusion.costs.base import Evaluated, check_count
from bm_envs.diffusion.costs.user import need_torch, slopes_of
from bm_envs.diffusion.fields import numbers
from bm_envs.diffusion.user_costs.plan import Plan
from bm_envs.errors import BMError, ConfigError
from bm_envs.tasks.guided.states import PAST, Frame, Representation

Function = TypeVar("Function", bound=Callable[[Plan], Any])
_MOST = 300  # characters of another's message


def with_gradient(function: Function) -> Function:
    """Mark a function that works out its gradient itself, in NumPy, and needs no torch.

    It returns the value `[N]` and a dict of its derivatives by the quantities of the plan, by their
    names (`"pos"`, `"left_wrist_yaw_link"`, `"joint_pos"`, ...) and in their shapes.
    """
    function.returns_gradient = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class PlanCost(Evaluated):
    """A cost as a function of a `Plan`, which has places and directions in the world.

    The function returns its value `[N]`, by operations of torch, which differentiates it; or it is
    marked by `with_gradient`. It sees the steps after the present alone. Like all costs it is made
    anew every tick, as the now frame moves with the robot.
    """

    function: Callable[[Plan], Any]
    frame: Frame
    """The now frame of the N robots in the world, as `Controller.frame` or `frame_of`."""
    time: np.ndarray | float = 0.0
    """Time of the task now, s; a number, or `[N]`."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"PlanCost: function is {self.function!r}, expected a function.")
        if not self._by_hand:
            need_torch(self.name)

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.function)

    @property
    def _by_hand(self) -> bool:
        return getattr(self.function, "returns_gradient", False)

    def plan(self, features: np.ndarray, rep: Representation) -> Plan:
        """The plan in NumPy, of features `[N, L, D]`."""
        return self._plan(features, rep)[0]

    def _plan(
        self, features: np.ndarray, rep: Representation, **make: Callable[[np.ndarray], Any]
    ) -> tuple[Plan, np.ndarray]:
        """The plan, and which robots it tells nothing of, because they diverged. `[N]`."""
        origin, yaw = np.asarray(self.frame.origin, float), np.asarray(self.frame.yaw, float)
        check_count(self, yaw, features)
        lost = ~(np.isfinite(features).all((1, 2)) & np.isfinite(origin).all(-1) & np.isfinite(yaw))
        # In their place another robot's, so that a function meets nothing but real states.
        stand_in = 0.0 if lost.all() else features[np.argmin(lost)]
        known = np.where(lost[:, None, None], stand_in, features).astype(float)
        count = len(known)
        frame = Frame(
            np.where(lost[:, None], 0.0, np.broadcast_to(origin, (count, 3))),
            np.where(lost, 0.0, np.broadcast_to(yaw, count)),
        )
        time = np.broadcast_to(np.asarray(self.time, float), count)
        return Plan(known, rep, frame, time, **make), lost

    def _evaluate(self, features: np.ndarray, rep: Representation) -> tuple[np.ndarray, np.ndarray]:
        if self._by_hand:
            plan, lost = self._plan(features, rep)
            value, slopes = self._pair(called(self.function, plan))
        else:
            torch = need_torch(self.name)
            plan, lost = self._plan(
                features, rep, constant=lambda array: torch.tensor(array),
                variable=lambda array: torch.tensor(array).requires_grad_(),
            )  # fmt: skip
            with torch.enable_grad():
                found = called(self.function, plan)
                self._check_tensor(torch, found, len(features), bool(plan.read))
                value, slopes = slopes_of(found, plan.read, self.name)
        value = numbers(f"value of {self.name}", value, (len(features),))
        gradient = np.zeros_like(features)
        with np.errstate(over="ignore"):  # refused below
            gradient[:, PAST:] = plan.gradient(slopes, self.name)
        gradient[lost] = 0.0
        if not np.isfinite(gradient).all():
            raise ConfigError(
                f"gradient of {self.name} is beyond {np.finfo(gradient.dtype).max:.1g}, expected "
                "smaller numbers: divide the cost by its scale."
            )
        return np.where(lost, 0.0, value), gradient

    def _pair(self, found: Any) -> tuple[Any, dict[Any, Any]]:
        match found:
            case (value, dict() as slopes):
                if not slopes:
                    raise ConfigError(
                        f"{self.name} returns no gradient, expected one by what its value depends "
                        "on."
                    )
                return value, slopes
        raise ConfigError(
            f"{self.name} returns {type(found).__name__}, expected the value and a dict of "
            "gradients, as it is marked with_gradient."
        )

    def _check_tensor(self, torch: Any, found: Any, count: int, read: bool) -> None:
        if isinstance(found, tuple):
            raise ConfigError(
                f"{self.name} returns a tuple, expected its value [N]; a function that returns its "
                "own gradient must be marked @with_gradient."
            )
        if not isinstance(found, torch.Tensor):
            raise ConfigError(
                f"{self.name} returns {type(found).__name__}, expected a torch tensor [N], one "
                "value for each robot."
            )
        if tuple(found.shape) != (count,):
            raise ConfigError(
                f"{self.name} returns shape {tuple(found.shape)}, expected [{count}], one value "
                "for each robot: sum over the steps and axes, and not over the robots."
            )
        if not (found.requires_grad and read):
            raise ConfigError(
                f"{self.name} returns a value that does not depend on the plan, expected one made "
                "of plan.pos, plan.heading, plan.link(...) or the like by operations of torch."
            )


def name_of(function: Any) -> str:
    """`cost 'NAME'`, by the function's own name, without what a terminal would obey."""
    return f"cost '{printable(getattr(function, '__name__', type(function).__name__))}'"


def printable(text: Any) -> str:
    """A name of another's, on one line and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(text))[:_MOST]


def called(function: Callable[[Plan], Any], plan: Plan) -> Any:
    """What the function returns.

    Raises:
        ConfigError: it raised something; the sentence names its file and line.
    """
    try:
        return function(plan)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        code = getattr(function, "__code__", None)
        raise ConfigError(raised(name_of(function), error, getattr(code, "co_filename", ""))) from (
            error
        )


def raised(what: str, error: BaseException, path: str) -> str:
    """One sentence on what `what` raised, with the last line of file `path` that led there."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    number = error.lineno if isinstance(error, SyntaxError) else lines[-1].lineno if lines else None
    place = f" ({Path(path).name}, line {number})" if number else ""
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # an error of another's whose text is another error
        said = ""
    said = " ".join(said.split())[:_MOST].rstrip(".")
    if isinstance(error, BMError):
        return f"{what}{place}: {said}."
    return f"{what}{place} raises {type(error).__name__}{f': {said}' if said else ''}."
