"""Repair a motion of the G1 where no robot can follow it: in the floor, or beyond a joint's range.

    python tools/repair_motion.py walk3_subject1 repaired.npz
    python benchmarks/track.py --policy POLICY --motion walk3_subject1 walk3_subject1~repaired

IN is anything that `--motion` takes. Each stretch that is changed gets a line: what was wrong, how
far a link is moved and how far a joint is turned at most. What is repaired and how:
`bm_envs/motion/repair.py`; nothing is chosen by hand. The NPZ has the name of the motion with
`~repaired`, and its source tells the original's name and SHA-256, so that results with it are told
apart from those with the original. Every command also takes `IN~repaired` as a motion's name and
needs no file.

The licence is the original's. LAFAN1's does not allow a changed motion to be passed on: such a file
stays on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.motion import library, repair
from bm_envs.motion.clip import Clip, save_npz


@dataclass(frozen=True)
class Config:
    """Repair a motion of the G1 where no robot can follow it."""

    motion: Positional[Annotated[str, arg(metavar="IN")]]
    """A motion's name, file or cut such as 'walk1[5:15]'."""
    npz: Positional[Annotated[Path, arg(metavar="OUT.npz")]]
    """File to write; its name ends in .npz."""


def report(original: Clip, repaired: Clip) -> str:
    """What a repair did, a line for each stretch."""
    found = repair.changes(original, repaired)
    if not found:
        return f"{original.name}: nothing is to be repaired"
    head = ("from, s", "to, s", "in the floor, cm", "beyond range, rad", "moved, cm", "turned, rad")
    lines: list[tuple[str, ...]] = [head]
    for change in found:
        lines.append((
            f"{change.start_s:.2f}", f"{change.end_s:.2f}",
            f"{100 * change.depth_m:.1f} ({change.depth_link})" if change.depth_m > 0 else "-",
            f"{change.excess_rad:.2f} ({change.excess_joint})" if change.excess_rad > 0 else "-",
            f"{100 * change.shift_m:.1f} ({change.shift_link})",
            f"{change.turn_rad:.2f} ({change.turn_joint})",
        ))  # fmt: skip
    seconds = sum(change.end_s - change.start_s for change in found)
    total = f"{original.name}: {seconds:.2f} of {original.duration_s:.2f} s changed"
    return f"{cli.aligned(lines)}\n{total}"


def main(config: Config) -> None:
    """Repair, report, write."""
    if config.npz.suffix != ".npz":
        raise ConfigError(f"{config.npz}: a motion is written to a name that ends in .npz.")
    original = library.load_motion(config.motion)
    repaired = (
        original
        if repair.is_repaired(original.name)
        else library.load_motion(repair.repaired_name(config.motion))
    )
    print(report(original, repaired))
    save_npz(repaired, config.npz)
    print(f"wrote {config.npz}: {repaired.name} ({repaired.licence})")


if __name__ == "__main__":
    cli.run(main, Config)
