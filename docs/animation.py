"""The animated picture of the README, made by the commands that it shows (extras `deploy`, `viz`).

    python docs/animation.py

Left: the shipped tracker `stride` on the built-in motion of that name, the reference as a ghost.
Right: the shipped model `guided_body_pos` in the task obstacle. Both motions are the project's own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bm_envs.cli import atomic_path, video_package

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "front.webp"
FPS, SECONDS, WIDTH, HEIGHT = 10, 12.0, 360, 270
QUALITY = 45  # of WebP, 0 to 100
SHOWN = {  # the task's seed is one in which the robot has to go around the posts
    "stride": ["tools/replay.py", "--policy", "stride", "--start", "2"],
    "posts": ["tools/play.py", "--policy", "guided_body_pos", "--task", "obstacle", "--seed", "5"],
}


def pictures(video: Path) -> list[Image.Image]:
    """The pictures of an MP4."""
    with video_package().open(str(video)) as file:
        return [frame.to_image() for frame in file.decode(video=0)]


def main() -> None:
    """Record both, and join them side by side."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (script, *arguments) in SHOWN.items():
            video = Path(folder) / f"{name}.mp4"
            subprocess.run(
                [sys.executable, str(ROOT / script), *arguments, "--video", str(video),
                 "--seconds", str(SECONDS), "--fps", str(FPS), "--width", str(WIDTH),
                 "--height", str(HEIGHT)],
                check=True,
            )  # fmt: skip
            found.append(pictures(video))
    joined = []
    for left, right in zip(*found, strict=False):
        both = Image.new("RGB", (2 * WIDTH, HEIGHT))
        both.paste(left, (0, 0))
        both.paste(right, (WIDTH, 0))
        joined.append(both)
    with atomic_path(PICTURE) as temporary:
        joined[0].save(
            temporary, format="WEBP", save_all=True, append_images=joined[1:],
            duration=round(1000 / FPS), loop=0, quality=QUALITY, method=6,
        )  # fmt: skip
    size = PICTURE.stat().st_size / 1e6
    print(f"{PICTURE.relative_to(ROOT)}: {len(joined)} pictures, {size:.2f} MB")


if __name__ == "__main__":
    main()
