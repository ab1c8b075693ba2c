"""Convert a motion of the G1 to a motion NPZ at the control rate.

    python tools/csv_to_npz.py IN.csv                # IN.npz, in this folder
    python tools/csv_to_npz.py IN.pkl#NAME OUT.npz --quat wxyz

IN is of any format that is read (docs/motions.md): .csv, .npz, .pkl or 'FILE.pkl#NAME'. What a file
does not say, or says wrongly, is set by a flag: its rate, the order of its quaternions, its units,
which joints it has and in which order, where its floor is. The NPZ is what whole_body_tracking's
and mjlab's tools read, with joint and body names in it; see `bm_envs/motion/clip.py` for the keys
and `bm_envs/motion/csv.py` for how it is resampled. Links and velocities are computed from root
poses and joint angles, also where IN has its own.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from tyro.conf import Positional, arg

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip, foot_height, save_npz
from bm_envs.motion.formats import Layout, convert
from bm_envs.robots import g1


@dataclass(frozen=True)
class Config:
    """Convert a motion of the G1 in any format that is read to a motion NPZ."""

    csv: Positional[Annotated[str, arg(metavar="IN")]]
    """File ending in .csv, .npz or .pkl, or 'FILE.pkl#NAME'."""
    npz: Positional[Annotated[Path | None, arg(metavar="OUT.npz")]] = None
    """File to write; its name ends in .npz. Without it: IN's name, in this folder, if that is
    free."""
    input_fps: float | None = None
    """Frames per second of IN; by default what IN says, and 30 for a CSV."""
    output_fps: float = 50.0
    """Frames per second of the NPZ; the tracking environments run at 50."""
    frame_range: tuple[int, int] | None = None
    """First and last row taken, counted from 1, both included."""
    interpolation: Literal["linear", "cubic"] = "linear"
    """Between the rows; "linear" is what the published converter does."""
    quat: Literal["xyzw", "wxyz"] | None = None
    """Order of IN's root quaternions; by default its format's (x y z w but for .npz)."""
    units: Literal["m", "cm", "mm"] = "m"
    """Unit of IN's root positions."""
    angles: Literal["rad", "deg"] = "rad"
    """Unit of IN's joint angles."""
    up: Literal["z", "y"] = "z"
    """Axis of IN that points up."""
    joints: str | None = None
    """IN's joints: all, no_wrists (23), unitree_23, or NAME,NAME,... in its order."""
    input_order: Literal["mujoco", "isaac"] | None = None
    """Order of IN's joints: depth first, or breadth first as in Isaac Lab."""
    ground: Annotated[str | None, arg(metavar="METRES|auto")] = None
    """Added to all heights; auto: what puts the robot on the floor."""
    order: Literal["mujoco", "isaac"] = "mujoco"
    """Order of joints and bodies in the NPZ: depth first, or breadth first as in Isaac Lab."""
    name: str | None = None
    """The motion's name inside the NPZ; by default IN's."""
    source: str | None = None
    """Where the motion is from, kept in the NPZ; by default IN's file name."""
    licence: str = "not stated"
    """The motion's licence, kept in the NPZ."""

    def layout(self) -> Layout:
        """What the flags say about IN.

        Raises:
            ConfigError: two flags that exclude each other, or a ground that is no number.
        """
        if self.joints is not None and "," in self.joints and self.input_order is not None:
            raise ConfigError("--joints with names has an order: leave out --input-order.")
        ground = None
        if self.ground is not None:
            try:
                ground = math.nan if self.ground == "auto" else float(self.ground)
            except ValueError:
                ground = math.inf
            if math.isinf(ground) or (math.isnan(ground) and self.ground != "auto"):
                raise ConfigError(f"--ground is {self.ground!r}, expected metres or auto.")
        return Layout(
            input_fps=self.input_fps, quat=self.quat, units=self.units, angles=self.angles,
            joints=self.joints, order=self.input_order, up=self.up, ground=ground,
        )  # fmt: skip


def main(config: Config) -> None:
    """Convert and report."""
    file, _, inside = config.csv.partition("#")
    npz = config.npz or cli.default_output(f"{Path(inside).name or Path(file).stem}.npz")
    if npz.suffix != ".npz":
        raise ConfigError(f"{npz}: a motion is written to a name that ends in .npz.")
    layout = config.layout()
    if layout.input_fps is None:
        layout = dataclasses.replace(layout, input_fps=library.known_rate(config.csv))
    clip = convert(
        config.csv,
        layout,
        output_fps=config.output_fps,
        frame_range=config.frame_range,
        interpolation=config.interpolation,
    )
    rows = "all rows" if config.frame_range is None else "rows {} to {}".format(*config.frame_range)
    rate = (
        "its own rate (a CSV: 30 fps)" if layout.input_fps is None else f"{layout.input_fps:g} fps"
    )
    print(
        f"{config.csv}: {rows} at {rate} -> {config.output_fps:g} fps, {config.interpolation},"
        f" {config.order} order"
    )
    clip = dataclasses.replace(
        clip, name=config.name or clip.name, source=config.source or clip.source,
        licence=config.licence,
    )  # fmt: skip
    save_npz(clip, npz, order=config.order)
    print(report(clip))
    print(f"wrote {npz}")


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
