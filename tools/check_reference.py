"""Flag reference motions that no robot can follow: joints, floor, jumps.

    python tools/check_reference.py --motion 'walk1[5:15]' my_dance.npz
    python tools/check_reference.py --suite lafan1-cuts --json cuts.json
    python tools/check_reference.py --suite lafan1-40 --repaired

A line per clip, or a row of the result file:

    joint limits           a joint is more than 0.05 rad beyond its range
    joint speed            between two frames a joint is faster than its limit (20 to 37 rad/s)
    feet under the floor   a sole is more than 3 cm deep
    link under the floor   the origin of a link is under the floor
    (shape, mm)            how deep a shape that meets the floor in the engine is in it: no flag
    jump                   between two frames the pelvis moves faster than 10 m/s or 20 rad/s
    floating               all shapes are 12 cm off the floor for more than 0.9 s
    over the floor         they are 5 cm off the floor in nine of ten frames
    jump at the start      the first two steps are faster than 2 m/s or 12 rad/s, and three times as
                           fast as what follows

`bm_envs/motion/feasibility.py` has the bounds and the figures behind them. Each flag comes with the
second of its worst frame (`floating`: in which it ends). A flag is no proof that a clip cannot be
completed, for the failure rules forgive a foot in the floor; it says where to look. A motion that
no command would load, since it is not what it says, is looked at all the same, and why it is
refused stands below the table.

With `--repaired` a clip in which something can be repaired (`bm_envs/motion/repair.py`) is followed
by the repaired one, whose row also tells how much of it was changed and how far.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.motion import checks, library, repair, suites
from bm_envs.motion.clip import Clip
from bm_envs.motion.feasibility import Feasibility, examine
from bm_envs.results import write_result


@dataclass(frozen=True)
class Config:
    """Compare reference motions with what the robot can do."""

    motion: tuple[str, ...] = ()
    """Names, files or cuts such as 'walk1[5:15]'."""
    suite: suites.Suite | None = None
    """A list of motions in place of --motion."""
    repaired: Annotated[bool, FlagCreatePairsOff] = False
    """Look at what is repaired of them, too."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        if bool(self.motion) == (self.suite is not None):
            raise ConfigError("Expected either --motion or --suite.")


def line(motion: str, figures: Feasibility) -> tuple[str, ...]:
    """A clip's cells of the table."""
    flags = ", ".join(f"{name} ({at:.2f} s)" for name, at in figures.flags.items())
    return (
        motion, f"{figures.joint_excess_rad:.3f}", f"{figures.joint_speed_ratio:.0%}",
        f"{1000 * figures.foot_depth_m:.0f}", f"{1000 * figures.link_depth_m:.0f}",
        f"{1000 * figures.shape_depth_m:.0f}", f"{figures.root_speed_m_s:.1f}",
        f"{figures.root_turn_rad_s:.1f}", f"{figures.floating_s:.2f}",
        flags or "-",
    )  # fmt: skip


def summary(original: Clip, changes: list[repair.Change]) -> dict[str, Any]:
    """What a repair did to a clip, for a row of the result file."""
    farthest = max(changes, key=lambda change: change.shift_m)
    most = max(changes, key=lambda change: change.turn_rad)
    return {
        "repaired_from_sha256": original.sha256(), "repaired_stretches": len(changes),
        "repaired_s": round(sum(change.end_s - change.start_s for change in changes), 3),
        "repaired_shift_m": farthest.shift_m, "repaired_shift_link": farthest.shift_link,
        "repaired_turn_rad": most.turn_rad, "repaired_turn_joint": most.turn_joint,
    }  # fmt: skip


def main(config: Config) -> None:
    """Examine every clip, report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    names = suites.motions(config.suite) if config.suite is not None else config.motion
    head = ("motion", "joint, rad", "joint speed", "sole, mm", "link, mm", "shape, mm",
            "root m/s", "rad/s", "floating s", "flags (worst at)")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    rows: list[dict[str, Any]] = []
    problems: list[str] = []

    def add(clip: Clip, suite: str | None, **more: Any) -> None:
        figures = examine(clip)
        lines.append(line(clip.name, figures))
        rows.append({
            "motion": clip.name, "suite": suite or suites.suite_of(clip.name),
            "clip_s": round(clip.duration_s, 6), "frames": clip.num_frames, **figures.row(), **more,
        })  # fmt: skip

    originals = repaired = 0
    for name in names:
        with checks.reported() as refused:
            clip = library.load_motion(name)
        problems += [f"refused: {line}" for line in refused]
        add(clip, config.suite)
        originals += 1
        if not config.repaired or refused or repair.is_repaired(name):
            continue
        other = library.load_motion(repair.repaired_name(name))
        if changes := repair.changes(clip, other):
            add(other, None, **summary(clip, changes))
            repaired += 1
    print(cli.aligned(lines))
    flagged = sum(bool(row["flags"]) for row in rows if "repaired_s" not in row)
    print(f"{flagged} of {originals} flagged")
    if config.repaired:
        print(f"{repaired} of {originals} repaired")
    if problems:
        print("\n".join(problems))
    if config.json is not None:
        write_result(config.json, cli.json_result("reference", seed=None, rows=rows))
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
