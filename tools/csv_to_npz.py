"""Convert a CSV motion (Unitree-retargeted LAFAN1 layout) to a motion NPZ at the control rate.

python tools/csv_to_npz.py IN.csv OUT.npz

The NPZ is what whole_body_tracking's and mjlab's tools read, with joint and body names in it; see
`bm_envs/motion/clip.py` for the keys and `bm_envs/motion/csv.py` for how it is resampled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.motion.clip import Clip, foot_height, save_npz
from bm_envs.motion.csv import read_csv
from bm_envs.robots import g1


@dataclass(frozen=True)
class Config:
    """Convert a CSV motion of the G1 to a motion NPZ."""

    csv: Positional[Annotated[Path, arg(metavar="IN.csv")]]
    """Rows of root position x y z (m), root quaternion x y z w, 29 joint angles (rad)."""
    npz: Positional[Annotated[Path, arg(metavar="OUT.npz")]]
    """File to write; its name ends in .npz."""
    input_fps: float = 30.0
    """Frames per second of the CSV (LAFAN1 30, G1 Moves 60)."""
    output_fps: float = 50.0
    """Frames per second of the NPZ; the tracking environments run at 50."""
    frame_range: tuple[int, int] | None = None
    """First and last row taken, counted from 1, both included."""
    interpolation: Literal["linear", "cubic"] = "linear"
    """Between the rows; "linear" is what the published converter does."""
    order: Literal["mujoco", "isaac"] = "mujoco"
    """Order of joints and bodies in the NPZ: depth first, or breadth first as in Isaac Lab."""
    name: str | None = None
    """The motion's name inside the NPZ; by default the CSV's."""
    source: str | None = None
    """Where the motion is from, kept in the NPZ; by default the CSV's file name."""
    licence: str = "not stated"
    """The motion's licence, kept in the NPZ."""


def main(config: Config) -> None:
    """Convert and report."""
    rows = "all rows" if config.frame_range is None else "rows {} to {}".format(*config.frame_range)
    print(
        f"{config.csv}: {rows} at {config.input_fps:g} fps -> {config.output_fps:g} fps,"
        f" {config.interpolation}, {config.order} order"
    )
    clip = read_csv(
        config.csv,
        input_fps=config.input_fps,
        output_fps=config.output_fps,
        frame_range=config.frame_range,
        interpolation=config.interpolation,
        name=config.name,
        source=config.source,
        licence=config.licence,
    )
    save_npz(clip, config.npz, order=config.order)
    print(report(clip))
    print(f"wrote {config.npz}")


def report(clip: Clip) -> str:
    """What to look at before training on a clip: length, joint limits, feet."""
    soft = beyond(clip, g1.soft_joint_range())
    hard = beyond(clip, g1.JOINT_RANGE)
    height = foot_height(clip)
    frame, side = np.unravel_index(height.argmin(), height.shape)
    return "\n".join(
        [
            f"frames               {clip.num_frames} ({clip.duration_s:.2f} s)",
            f"beyond soft limits   {soft:.1%} of frames",
            f"beyond hard limits   {hard:.1%} of frames",
            f"lowest foot point    {height.min() * 1000:.1f} mm ({('left', 'right')[side]} foot,"
            f" frame {frame})",
        ]
    )


def beyond(clip: Clip, limits: np.ndarray) -> float:
    """Share of frames in which at least one joint is outside `limits [29, 2]` (rad)."""
    # A joint stored on its limit is within it: float32 rounds by less than 1e-6 rad.
    outside = (clip.joint_pos < limits[:, 0] - 1e-6) | (clip.joint_pos > limits[:, 1] + 1e-6)
    return float(outside.any(axis=1).mean())


if __name__ == "__main__":
    cli.run(main, Config)
