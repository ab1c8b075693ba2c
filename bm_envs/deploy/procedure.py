"""What a robot does from being switched on to its last command: one table of states and events.

`Controller` goes from state to state by this table (`after`), and `docs/deployment.md` shows it
(`markdown`, and `flowchart` as a drawing). `tests/deploy/test_procedure.py` walks along every row.

States are `off` (no command yet: the motors do what they did before), `stand`, `run`, `end`,
`damping` and `done`. `{blend_s}` and the like in a row are settings of `ControllerConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bm_envs.errors import ConfigError

State = Literal["off", "stand", "run", "end", "damping", "done"]
Event = Literal["begin", "begin at once", "stood", "last frame", "next", "still", "over", "stop"]


@dataclass(frozen=True)
class Edge:
    """One row of the table: what leads from which states to which."""

    states: tuple[State, ...]
    event: Event
    """As the controller names it."""
    when: str
    """The event in words."""
    next: State
    acts: str
    """What commands the motors in the next state."""


_POLICY = "the policy on its motion, blended in over `blend_s`"
_BALANCE = "the standing policy `balance`, blended in over `end_blend_s`"
_MOVES: tuple[State, ...] = ("stand", "run", "end")
_DAMPED = "motors are damped, for good"

EDGES: tuple[Edge, ...] = (
    Edge(("off",), "begin", "the first reading, of a robot that hangs, stands or is damped",
         "stand", "joints move to the default pose, with stiff gains"),
    Edge(("off",), "begin at once", "the same with `stand_s` 0", "run",
         "the policy on its motion"),
    Edge(("stand",), "stood", "`stand_s` is over", "run", _POLICY),
    Edge(("run",), "last frame", "the motion's last frame", "end", _BALANCE),
    Edge(("run",), "next", "Enter, or A on the remote", "end", _BALANCE),
    Edge(("end",), "still", "a next motion was asked for (Enter, or A) and the robot stands still",
         "run", _POLICY),
    Edge(("end",), "over", "`end_s` is over", "done", "motors are damped by the program that ends"),
    Edge(_MOVES, "stop", "a key: Ctrl-C, or any other signal", "damping", _DAMPED),
    Edge(_MOVES, "stop", "the remote: B or select", "damping", _DAMPED),
    Edge(_MOVES, "stop", "a lost link: no state for `lost_s`", "damping", _DAMPED),
    Edge(_MOVES, "stop", "whatever else leaves the safety envelope", "damping", _DAMPED),
)  # fmt: skip


def after(state: State, event: Event) -> State:
    """The state that follows.

    Raises:
        ConfigError: the table has no such row.
    """
    for edge in EDGES:
        if edge.event == event and state in edge.states:
            return edge.next
    raise ConfigError(f"In the state '{state}' nothing follows from '{event}'.")


def markdown() -> str:
    """The table of `docs/deployment.md`."""
    lines = ["| state | event | next state | what acts there |", "|---" * 4 + "|"]
    lines += [
        f"| {', '.join(edge.states)} | {edge.when} | {edge.next} | {edge.acts} |" for edge in EDGES
    ]
    return "\n".join(lines) + "\n"


def flowchart() -> str:
    """The same as a drawing in text, an arrow a line: states and the events between them."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for edge in EDGES:
        arrows.setdefault((", ".join(edge.states), edge.next), []).append(edge.event)
    width = max(len(states) for states, _ in arrows)
    return "".join(
        f"{states:{width}} --[ {', '.join(dict.fromkeys(events))} ]--> {following}\n"
        for (states, following), events in arrows.items()
    )
