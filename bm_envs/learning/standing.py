"""How far the runs of a campaign are, and the page that shows it.

A run's folder says all: `metrics.jsonl` while it trains, `policy.json` once it has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bm_envs import cli
from bm_envs.evaluation import ROBUST
from bm_envs.learning.log import read_metrics
from bm_envs.policy import read_policy_json, training_figures

State = Literal["waiting", "training", "measured next", "ended", "failed"]
"""`waiting` for a core, also to go on; `measured next`: ended, and its figures by the benchmark are
still to come; `failed`: with a sentence that says why."""


@dataclass(frozen=True)
class Standing:
    """How far one run is.

    Attributes:
        steps: control steps so far.
        minutes: of training so far.
        survived: share of its clips that the last evaluation by the `clip` protocol survived, 0 to
            1; None before the first.
        completed: whether that evaluation completed every clip.
        robust: share of the episodes of the `robust` protocol that the last evaluation under it
            completed, 0 to 1; None before the first.
        ended: whether the run has exported its policy at these steps.
    """

    steps: int = 0
    minutes: float = 0.0
    survived: float | None = None
    completed: bool = False
    robust: float | None = None
    ended: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to learn: every clip completed, and `ROBUST` of the episodes."""
        return self.ended and self.completed and (self.robust or 0.0) >= ROBUST


class Watched:
    """A run's folder that is looked at again and again; its metrics are read when they changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[tuple[int, int] | None, ...] = ()
        self._last = Standing()

    def standing(self) -> Standing:
        """How far the run is now; a folder that is not there yet is at its beginning."""
        files = [self.folder / name for name in ("metrics.jsonl", "policy.json")]
        seen = tuple(_version(file) for file in files)
        if seen != self._seen:
            self._last = _read(*files)
            self._seen = seen
        return self._last


def _version(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _read(metrics: Path, policy: Path) -> Standing:
    rows = read_metrics(metrics) if metrics.is_file() else []
    if not rows:
        return Standing()
    clip = next((row for row in reversed(rows) if "eval/survival" in row), {})
    robust = next((row["eval/robust"] for row in reversed(rows) if "eval/robust" in row), None)
    steps = int(rows[-1]["step"])
    return Standing(
        steps, rows[-1]["train_s"] / 60, clip.get("eval/survival"),
        clip.get("eval/success") == 1.0, robust,
        ended=policy.is_file() and training_figures(policy.parent)["env_steps"] >= steps,
    )  # fmt: skip


def rank(policy_json: Path) -> tuple[float, ...]:
    """What a policy's last evaluation in training says of it, to be compared with another's.

    The share of its clips that it completes, then of the `robust` episodes (0 without such an
    evaluation), then what it survives of the clips.
    """
    training = read_policy_json(policy_json).get("training") or {}
    figures = training.get("clip_protocol") or {}
    return tuple(float(figures.get(name, 0.0)) for name in ("success", "robust", "survival"))


@dataclass(frozen=True)
class Line:
    """What a campaign's page says of one run."""

    name: str
    seconds: float
    state: State
    standing: Standing
    note: str = ""


HEAD = ("run", "s", "state", "survived", "completed", "robust", "steps, M", "min")


def sentence(line: Line) -> str:
    """A line of state: what stands behind the run's name wherever it is told."""
    at = line.standing
    parts = [line.state]
    if at.steps:
        parts.append(f"{at.steps / 1e6:.2f} M steps, {at.minutes:.1f} min")
    if at.survived is not None:
        parts.append("completed" if at.completed else f"survived {at.survived:.0%}")
    if at.robust is not None:
        parts.append(f"robust {at.robust:.0%}")
    return ", ".join(parts) + (f": {line.note}" if line.note else "")


def page(title: str, lines: Sequence[Line]) -> str:
    """The campaign as a page of Markdown: counts, then a row a run."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.0%}"

    ended = [line.standing for line in lines if line.standing.ended]
    minutes = sum(line.standing.minutes for line in lines)
    rows = [
        (line.name, f"{line.seconds:.1f}", line.state + (f": {line.note}" if line.note else ""),
         share(line.standing.survived), "yes" if line.standing.completed else "",
         share(line.standing.robust), f"{line.standing.steps / 1e6:.2f}",
         f"{line.standing.minutes:.1f}")
        for line in lines
    ]  # fmt: skip
    return (
        f"# {title}\n\n{len(ended)} of {len(lines)} runs have ended; "
        f"{sum(at.completed for at in ended)} complete their motion, "
        f"{sum(at.done for at in ended)} of them {ROBUST:.0%} of the `robust` episodes. "
        f"{minutes / 60:.1f} hours of training.\n\n{cli.markdown_table(HEAD, rows)}\n"
    )


def write_page(path: Path, title: str, lines: Sequence[Line]) -> None:
    """Write the page, whole or not at all."""
    with cli.atomic_path(path) as temporary:
        temporary.write_text(page(title, lines), encoding="utf-8")
