"""Bring a person's motion to the G1: BVH, or SMPL-family NPZ (AMASS layout), to a motion NPZ.

    python tools/retarget.py IN.bvh OUT.npz
    python tools/retarget.py IN.bvh OUT.npz --mapping my_skeleton.json
    python tools/retarget.py IN.npz OUT.npz --skeleton my_body.json

Skeletons of LAFAN1, CMU, FAIR, Mixamo and Xsens are known by their joints' names;
`bm_envs/motion/mappings.py` has what a mapping file holds, `bm_envs/motion/amass.py` what an
SMPL-family file and a skeleton file hold. What is written is a motion as any other (`--motion
OUT.npz` of every command). What is printed says what was found in the file (skeleton, up axis and
what says so, scale, floor) and how well the robot follows the person, with a warning for each
figure beyond its bound (`bm_envs/motion/fidelity.py`); whether a robot can follow it in turn,
`tools/check_reference.py` says. Needs the extra `retarget`. Page: `docs/retarget.md`.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.errors import ConfigError, MotionError, MotionWarning
from bm_envs.motion import fidelity, retarget, skeletons
from bm_envs.motion.amass import read_amass
from bm_envs.motion.bvh import PersonMotion, read_bvh
from bm_envs.motion.clip import save_npz
from bm_envs.motion.library import load_motion
from bm_envs.results import write_result

MAX_TEXT = 1000


@dataclass(frozen=True)
class Config:
    """Bring a person's motion to the G1."""

    motion: Positional[Annotated[Path, arg(metavar="IN")]]
    """A BVH file, or an NPZ file in the layout of AMASS."""
    npz: Positional[Annotated[Path, arg(metavar="OUT.npz")]]
    """File to write; its name ends in .npz."""
    mapping: Path | None = None
    """JSON file that names a skeleton's joints; none: one of the known skeletons."""
    skeleton: Path | None = None
    """JSON file with the joints of an SMPL-family body at rest, which its motion files lack."""
    up: skeletons.Up = "auto"
    """The file's axis that points up (--up=-y for one that points down); auto: the one along which
    the rest pose stands and the motion does in the mean, which have to agree."""
    input_fps: float | None = None
    """Frames per second of an SMPL-family file that does not hold them."""
    fps: float = retarget.FPS
    """Frames per second of the result; the tracking environments run at 50."""
    compare: str | None = None
    """Another motion of the robot (name or file): the difference of each joint is printed."""
    name: str | None = None
    """The motion's name inside the NPZ; by default the file's."""
    source: str | None = None
    """Where the motion is from, kept in the NPZ; by default the file's name."""
    licence: str = "not stated"
    """The motion's licence, kept in the NPZ."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        if self.npz.suffix != ".npz":
            raise ConfigError(f"{self.npz}: a motion is written to a name that ends in .npz.")
        if self.npz.exists() and self.motion.exists() and self.npz.samefile(self.motion):
            raise ConfigError(f"{self.npz} is the motion that is read, expected another name.")
        for key in ("name", "source", "licence"):
            if len(getattr(self, key) or "") > MAX_TEXT:
                raise ConfigError(f"{key} has more than {MAX_TEXT} characters, expected fewer.")
        if not 5 <= self.fps <= 1000:
            raise ConfigError(f"fps is {self.fps}, expected 5 to 1000.")
        if self.input_fps is not None and not 1 <= self.input_fps <= 10_000:
            raise ConfigError(f"input_fps is {self.input_fps}, expected 1 to 10000.")


def read_person(config: Config) -> PersonMotion:
    """The person's motion, of whichever kind."""
    suffix = config.motion.suffix.lower()
    if suffix == ".bvh":
        if config.skeleton is not None:
            raise ConfigError("--skeleton is for SMPL-family motions, and a BVH file has its own.")
        if config.input_fps is not None:
            raise ConfigError(
                "--input-fps is for SMPL-family motions; a BVH file has 'Frame Time'."
            )
        return read_bvh(config.motion)
    if suffix == ".npz":
        return read_amass(config.motion, config.skeleton, config.input_fps)
    raise MotionError(f"{config.motion}: ends in '{suffix}', expected a .bvh or .npz file.")


def findings(config: Config, person: PersonMotion, mapping: skeletons.Mapping,
             body: skeletons.Body) -> str:  # fmt: skip
    """Names and values of what the file holds: skeleton, axes, floor."""
    leg, robot = body.leg_length, retarget.robot_lengths().leg_length
    return cli.aligned([
        ("skeleton", f"{mapping.name}, {len(person.names)} joints; {body.found.rest}"),
        ("frames", f"{person.num_frames} at {person.fps:.6g} fps -> {config.fps:g} fps"),
        ("up axis", f"{body.found.up}, by {body.found.up_by}"
         if body.found.up_by != "as told" else f"{body.found.up}, as told"),
        ("scale", f"{robot / leg:.4g}: legs of {leg:.4g} in the file's unit,"
         f" {robot:.3g} m of the robot's"),
        ("floor", f"{body.found.floor:.4g} along the up axis, under {body.found.floor_by}"),
    ])  # fmt: skip


def report(row: dict[str, Any]) -> str:
    """The figures of a result row as lines."""
    limits = "in every frame" if row["limit_excess_rad"] == 0 else "NOT in every frame"
    return cli.aligned([
        ("frames", f"{row['frames']} ({row['clip_s']:.2f} s), {row['frames_per_s']:.0f} a second"),
        ("joints within limits", limits),
        ("standing feet", f"{row['foot_contact_share']:.0%} of feet and frames"),
        ("foot slide", f"{row['foot_slide_m_s']:.3f} m/s (95 % under"
         f" {row['foot_slide_worst_m_s']:.3f})"),
        ("deepest sole", f"{1000 * row['penetration_m']:.1f} mm under the floor"),
        ("arms off by", f"{row['arm_direction_deg']:.1f} deg (95 % under"
         f" {row['arm_direction_worst_deg']:.1f})"),
        ("legs off by", f"{row['leg_direction_deg']:.1f} deg (95 % under"
         f" {row['leg_direction_worst_deg']:.1f})"),
    ])  # fmt: skip


def main(config: Config) -> None:
    """Retarget, measure, write, report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    mapping = None if config.mapping is None else skeletons.read_mapping(config.mapping)
    other = None if config.compare is None else load_motion(config.compare)
    person = read_person(config)
    mapping = mapping or skeletons.find_mapping(person)
    began = time.process_time()
    body = skeletons.body_motion(person.at_rate(config.fps), mapping, config.up)
    print(f"{config.motion}:\n{findings(config, person, mapping, body)}", flush=True)
    clip, target = retarget.retarget_body(
        body, name=config.name or config.motion.stem,
        source=config.source or config.motion.name, licence=config.licence,
    )  # fmt: skip
    took = time.process_time() - began
    figures = fidelity.measure(clip, target)
    save_npz(clip, config.npz)
    row = {
        "motion": clip.name, "skeleton": mapping.name, "frames": clip.num_frames,
        "clip_s": round(clip.duration_s, 6), "cpu_s": took,
        "frames_per_s": clip.num_frames / max(took, 1e-9), **figures.row(),
        "warnings": figures.warnings(),
    }  # fmt: skip
    print(report(row))
    for sentence in row["warnings"]:
        warnings.warn(sentence, MotionWarning, stacklevel=1)
    if other is not None:
        row["compared_with"] = other.name
        row["joint_difference_rad"] = fidelity.joint_difference(clip, other)
        row["mean_difference_rad"] = sum(row["joint_difference_rad"].values()) / 29
        lines = [(name, f"{gap:.3f}") for name, gap in row["joint_difference_rad"].items()]
        print(f"difference from {other.name}, rad:")
        print(cli.aligned([*lines, ("mean of all", f"{row['mean_difference_rad']:.3f}")]))
    print(f"wrote {config.npz}")
    if config.json is not None:
        write_result(config.json, cli.json_result("retarget", seed=None, rows=[row]))
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
