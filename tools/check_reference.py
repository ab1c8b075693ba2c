"""Flag reference motions that no robot can follow: joints, floor, jumps.

    python tools/check_reference.py --motion 'walk1[5:15]' my_dance.npz
    python tools/check_reference.py --suite lafan1-cuts --json cuts.json

A line per clip, or a row of the result file:

    joint limits           a joint is more than 0.05 rad beyond its range
    joint speed            between two frames a joint is faster than its limit (20 to 37 rad/s)
    feet under the floor   a sole is more than 3 cm deep
    link under the floor   the origin of a link is under the floor
    jump                   between two frames the pelvis moves faster than 10 m/s or 20 rad/s
    floating               soles and links are 12 cm off the floor for more than 0.9 s
    over the floor         they are 5 cm off the floor in nine of ten frames
    jump at the start      the first two steps are faster than 2 m/s or 12 rad/s, and three times as
                           fast as what follows

`bm_envs/motion/feasibility.py` has the bounds and the figures behind them. Each flag comes with the
second of its worst frame (`floating`: in which it ends). A flag is no proof that a clip cannot be
completed, for the failure rules forgive a foot in the floor; it says where to look. A motion that
no command would load, since it is not what it says, is looked at all the same, and why it is
refused stands below the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.motion import checks, library, suites
from bm_envs.motion.feasibility import Feasibility, examine


@dataclass(frozen=True)
class Config:
    """Compare reference motions with what the robot can do."""

    motion: tuple[str, ...] = ()
    """Names, files or cuts such as 'walk1[5:15]'."""
    suite: suites.Suite | None = None
    """A list of motions in place of --motion."""
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
        f"{figures.root_speed_m_s:.1f}", f"{figures.root_turn_rad_s:.1f}",
        f"{figures.floating_s:.2f}",
        flags or "-",
    )  # fmt: skip


def main(config: Config) -> None:
    """Examine every clip, report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    names = suites.motions(config.suite) if config.suite is not None else config.motion
    head = ("motion", "joint, rad", "joint speed", "sole, mm", "link, mm", "root m/s", "rad/s",
            "floating s", "flags (worst at)")  # fmt: skip
    lines: list[tuple[str, ...]] = [head]
    rows = []
    problems: list[str] = []
    for name in names:
        with checks.reported() as refused:
            clip = library.load_motion(name)
        problems += [f"refused: {line}" for line in refused]
        figures = examine(clip)
        lines.append(line(clip.name, figures))
        rows.append({
            "motion": clip.name, "suite": config.suite or suites.suite_of(clip.name),
            "clip_s": round(clip.duration_s, 6), "frames": clip.num_frames, **figures.row(),
        })  # fmt: skip
    print(cli.aligned(lines))
    flagged = sum(bool(row["flags"]) for row in rows)
    print(f"{flagged} of {len(rows)} flagged")
    if problems:
        print("\n".join(problems))
    if config.json is not None:
        cli.write_json(config.json, cli.json_result("reference", seed=None, rows=rows))
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
