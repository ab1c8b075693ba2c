"""Videos and figures that a command writes. The packages for them are optional."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli.files import atomic_path
from bm_envs.errors import BMError, ConfigError


def video_package() -> Any:
    """The package av; a command that plays first and draws then asks for it before.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("A video needs the package av: pip install 'bm-envs[viz]'.") from error
    return av


def write_video(
    path: Path, pictures: Iterable[np.ndarray], fps: int, total: int | None = None
) -> str:
    """Write pictures `[H, W, 3]` uint8 as an MP4; returns the codec's name.

    Args:
        path: file to write; nothing half-written is left there.
        pictures: all of one size, with even sides.
        fps: pictures per second.
        total: number of pictures, shown on a terminal while they are drawn.

    Raises:
        ConfigError: the package av is missing.
    """
    av = video_package()
    # Browsers play H.264; a build of FFmpeg without its encoder still has the older MPEG-4.
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    counts = total is not None and sys.stderr.isatty()
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        stream: Any = None
        for count, picture in enumerate(pictures, start=1):
            if stream is None:
                stream = file.add_stream(codec, rate=fps)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "20"} if codec == "libx264" else {"qscale": "3"}
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if counts:
                print(f"\r{count} of {total} pictures", end="", file=sys.stderr, flush=True)
        file.mux(stream.encode())
    if counts:
        print("\r" + " " * 40, end="\r", file=sys.stderr)
    return codec


def matplotlib_figure() -> Any:
    """The class `matplotlib.figure.Figure`, which draws into files without a display.

    Raises:
        BMError: the package is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise BMError("--plot needs the package matplotlib: pip install 'bm-envs[viz]'.") from None
    return Figure
