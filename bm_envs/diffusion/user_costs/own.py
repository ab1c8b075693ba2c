"""A cost of one's own in a run: asked for anew every tick, and watched.

What is said of it afterwards: its mean value over what was really executed (windows of real states,
one after another, seen as a plan is) and over the plans; and each number that it steadily asks for
outside the range of the training data, because a model does what its data hold and no more.
"""

from __future__ import annotations

import warnings
from collections import deque
from typing import Any

import numpy as np

from bm_envs.diffusion.costs import Cost, Sum, own_step
from bm_envs.diffusion.fields import numbers
from bm_envs.diffusion.model import GuidedModel
from bm_envs.diffusion.sampler import LENGTH
from bm_envs.diffusion.user_costs.cost import PlanCost, called, name_of, printable
from bm_envs.diffusion.user_costs.load import OUTCOME, Loaded
from bm_envs.errors import BMWarning, ConfigError
from bm_envs.robots import g1
from bm_envs.tasks.guided.states import NOW, PAST, Frame, Representation, States, now_frame

EVERY = 4  # ticks between two looks at a plan
STEADY = 13  # looks, about a second, before anything is said
MOST_SAID = 3  # numbers that a sentence names
LITTLE = 0.01  # of a feature's half-range: a smaller step asks for nothing
AXES = ("x", "y", "z")
UNITS = {"root_rot": "rad", "root_ang_vel": "rad/s", "joint_pos": "rad", "joint_vel": "rad/s",
         "root_lin_vel": "m/s", "body_lin_vel": "m/s"}  # fmt: skip


COST_STRENGTH = 0.5  # where none is given


def check_cost_strength(strength: float, cost: str | None) -> None:
    """Refuse what is no share, or is of no cost.

    Raises:
        ConfigError: it is not 0 to 1, or there is no `cost` for it.
    """
    if cost is None and strength != COST_STRENGTH:
        raise ConfigError(f"cost_strength is {strength}, and no --cost is given for it.")
    if not 0 <= strength <= 1:
        raise ConfigError(
            f"cost_strength is {strength}, expected 0 to 1, the share of the cost's own step."
        )


class OwnCost:
    """A cost of one's own, for N robots of a model.

    Attributes:
        name: of the function.
        strength: share of the cost's own step, beside whatever else is asked; 0: only watched.
        value: of the last plan that was looked at, `[N]`.
    """

    def __init__(
        self, cost: Loaded, model: GuidedModel, count: int, strength: float = COST_STRENGTH
    ) -> None:
        """Try the function once, on what the model's data are about.

        Raises:
            ConfigError: it is no cost for such a model, or needs torch, which is missing.
        """
        self.name = name_of(cost.function)
        check_cost_strength(strength, self.name)
        self.strength, self._loaded, self._rep = strength, cost, model.representation
        self.value = np.full(count, np.nan)
        self._asked = Asked(model)
        self._ticks, self._looks, self._said = 0, 0, False
        self._past: deque[tuple[States, np.ndarray]] = deque(maxlen=LENGTH)
        self._since = 0  # ticks since the last window that was judged
        self._planned, self._executed = Mean(count), Mean(count)
        self._outcome: dict[str, Mean] = {}
        center = np.mean(model.range, 0)
        frame = Frame(np.zeros((count, 3)), np.zeros(count))
        features = np.tile(center, (count, LENGTH, 1)).astype(float)
        own = PlanCost(cost.function, frame, np.zeros(count))
        own.gradient(features, self._rep)
        self._figures(own, features)

    def at(self, frame: Frame, time: np.ndarray | float) -> PlanCost:
        """The cost now: `frame` of the robots' roots (`frame_of`), `time` of the task, s."""
        return PlanCost(self._loaded.function, frame, time)

    def beside(
        self, cost: Cost | None, frame: Frame, time: np.ndarray | float,
        share: float | np.ndarray = 1.0,
    ) -> Cost | None:  # fmt: skip
        """The cost now, and another that is asked for at the same time; None: nothing is asked.

        Args:
            cost: the other.
            frame: see `at`.
            time: see `at`.
            share: of its strength that is asked for, one number or `[N]`.
        """
        if not self.strength:
            return cost
        own = (self.strength * share, self.at(frame, time))
        return Sum([own] if cost is None else [own, (1.0, cost)])

    def observe(
        self, features: np.ndarray, states: States, time: np.ndarray, counts: np.ndarray
    ) -> None:
        """Look at a tick: at its plan, and at what became of the plan of a third of a second ago.

        Args:
            features: `[N, L, D]`, of the tick's window.
            states: where the robots are now, `[N, ...]`, with links.
            time: of the task, s, `[N]`; below 0 it does not count.
            counts: robots that count, `[N]`.
        """
        counts = counts & (time >= 0)
        frame = _frame(States(*(v[:, None] for v in states if v is not None)), 0)
        if self._ticks % EVERY == 0 and counts.any():
            own = self.at(frame, time)
            features = features.astype(float)
            self.value = own.value(features, self._rep)
            self._planned.add(self.value, counts)
            self._asked.add(features, own_step(own, features, self._rep), counts)
            self._looks += 1
            if self._looks % STEADY == 0:
                self._say()
        self._ticks += 1
        self._past.append((states, time.copy()))
        self._since += 1
        if len(self._past) == LENGTH and self._since >= LENGTH - PAST:
            self._since = 0
            self._judge(counts)

    def _judge(self, counts: np.ndarray) -> None:
        """Value and outcome of the last states as if they had been a plan."""
        members = zip(*(states for states, _ in self._past), strict=True)
        window = States(*(np.stack(values, 1) for values in members))
        times = np.stack([time for _, time in self._past], 1)
        # Not across a new beginning, where time goes back, nor after the end, where it stands.
        runs = (np.diff(times) > 0).all(1) & (times[:, NOW] >= 0)
        features = self._rep.encode(window, NOW).astype(float)
        own = self.at(_frame(window, NOW), times[:, NOW])
        counts = counts & runs & np.isfinite(features).all((1, 2))
        if not counts.any():
            return
        self._executed.add(own.value(features, self._rep), counts)
        for name, values in self._figures(own, features).items():
            self._outcome.setdefault(name, Mean(len(counts))).add(values, counts)

    def _figures(self, own: PlanCost, features: np.ndarray) -> dict[str, np.ndarray]:
        """What the function `outcome` beside the cost says, `[N]` each."""
        outcome = self._loaded.outcome
        if outcome is None:
            return {}
        found = called(outcome, own.plan(features, self._rep))
        if not isinstance(found, dict):
            raise ConfigError(
                f"{OUTCOME} beside {self.name} returns {type(found).__name__}, expected a dict of "
                "NumPy arrays [N], one number for each robot."
            )
        figures = {}
        for name, values in found.items():
            name = printable(name)
            values = np.where(np.isinf(values), np.nan, values) if _real(values) else values
            what = f"'{name}' of {OUTCOME} beside {self.name}"
            figures[name] = numbers(what, values, (len(features),), absent=True)
        return figures

    def executed(self) -> np.ndarray:
        """Mean value over what each robot executed; NaN where none counted. `[N]`."""
        return self._executed.rows()

    def row(self) -> dict[str, Any]:
        """What came of it, as JSON."""
        return {
            "function": self._loaded.reference or self.name, "strength": self.strength,
            "mean_executed": self._executed.mean(), "mean_planned": self._planned.mean(),
            "outcome": {name: mean.mean() for name, mean in self._outcome.items()},
            "beyond_data": self._asked.beyond(self._looks),
            "asks_nothing": bool(self._looks) and not self._asked.anything,
        }  # fmt: skip

    def conclude(self) -> None:
        """Say, at the end of a run, what was not said yet."""
        self._say()
        if self._looks and not self._asked.anything:
            _warn(
                f"{self.name} asks for nothing: its gradient was zero in every plan that was "
                "looked at."
            )

    def _say(self) -> None:
        """One sentence on what it asks for that the data do not hold; once."""
        found = self._asked.beyond(self._looks)
        if not found or self._said:
            return
        self._said = True
        told = "; ".join(
            f"{one['feature']} for {one['asked']:.2f} {one['unit']}; the training data hold "
            f"{one['low']:.2f} to {one['high']:.2f} {one['unit']}"
            for one in found[:MOST_SAID]
        )
        more = f" (and {len(found) - MOST_SAID} more)" if len(found) > MOST_SAID else ""
        _warn(f"{self.name} asks {told}{more}.")


class Asked:
    """Counts what a cost's own step asks of each feature, and what of it no data hold."""

    def __init__(self, model: GuidedModel) -> None:
        self._rep = model.representation
        self._low, self._high = (np.asarray(bound, float) for bound in model.range)
        self._little = LITTLE * 0.5 * (self._high - self._low)
        size = self._rep.size
        self._asked, self._beyond = np.zeros(size), np.zeros(size)
        self._target = np.zeros(size)  # sum of those that lie beyond
        self._all = 0  # robots and steps that were looked at
        self.anything = False
        """Whether the gradient was ever other than zero."""

    def add(self, features: np.ndarray, step: np.ndarray, counts: np.ndarray) -> None:
        """Count windows `[N, L, D]` and what brings them to the minimum, of robots `counts [N]`."""
        features, step = features[counts, PAST:], step[counts, PAST:]
        self.anything |= bool(step.any())
        target = features - step
        asks = np.abs(step) > self._little
        beyond = asks & ((target < self._low) | (target > self._high))
        self._asked += asks.sum((0, 1))
        self._beyond += beyond.sum((0, 1))
        self._target += np.where(beyond, target, 0.0).sum((0, 1))
        self._all += features.shape[0] * features.shape[1]

    def beyond(self, looks: int) -> list[dict[str, Any]]:
        """Features that are steadily asked for beyond the data, the most frequent first.

        Steadily: in more than half of what was asked of them, and in a tenth of all plans.
        """
        if looks < STEADY:
            return []
        steady = (self._beyond > 0.5 * self._asked) & (self._beyond > 0.1 * self._all)
        order = sorted(np.flatnonzero(steady), key=lambda i: -self._beyond[i])
        return [
            {
                "feature": _feature(self._rep, int(i))[0],
                "asked": round(float(self._target[i] / self._beyond[i]), 4),
                "low": round(float(self._low[i]), 4), "high": round(float(self._high[i]), 4),
                "unit": _feature(self._rep, int(i))[1],
            }
            for i in order
        ]  # fmt: skip


class Mean:
    """Means of N robots, each over the times at which it counted."""

    def __init__(self, count: int) -> None:
        self._sum, self._times = np.zeros(count), np.zeros(count)

    def add(self, values: np.ndarray, counts: np.ndarray) -> None:
        """Values `[N]`, of robots that count `[N]`; what is no number does not."""
        counts = counts & ~np.isnan(values)
        self._sum += np.where(counts, values, 0.0)
        self._times += counts

    def rows(self) -> np.ndarray:
        """Of each robot; NaN where it never counted. `[N]`."""
        with np.errstate(invalid="ignore"):
            return self._sum / self._times

    def mean(self) -> float | None:
        """Over all, five digits; None where nothing counted."""
        times = self._times.sum()
        return float(f"{self._sum.sum() / times:.5g}") if times else None


def _frame(states: States, now: int) -> Frame:
    """The now frame of windows, with numbers even for robots that diverged."""
    frame = now_frame(states, now)
    return Frame(np.nan_to_num(frame.origin), np.nan_to_num(frame.yaw))


def _feature(rep: Representation, index: int) -> tuple[str, str]:
    """Name and unit of a feature: `root_pos z`, `left_elbow_joint`, `body_pos pelvis z`."""
    block, part = next((b, p) for b, p in rep.blocks.items() if p.start <= index < p.stop)
    place, unit = index - part.start, UNITS.get(block, "m")
    if block == "joint_pos":
        return g1.JOINT_NAMES[place], unit
    if block == "joint_vel":
        return f"{g1.JOINT_NAMES[place]} velocity", unit
    link = f" {g1.BODY_NAMES[place // 3]}" if block.startswith("body_") else ""
    return f"{block}{link} {AXES[place % 3]}", unit


def _real(values: Any) -> bool:
    """Whether these are numbers, of which one may ask whether they are finite."""
    try:
        return np.asarray(values).dtype.kind == "f"
    except ValueError:
        return False


def _warn(sentence: str) -> None:
    warnings.warn(sentence, BMWarning, stacklevel=3)
