"""Look at a motion, at a policy that follows it, or at both, in a window or as an MP4.

    python tools/replay.py --motion walk                       # a window
    python tools/replay.py --motion walk --video walk.mp4      # no display needed
    python tools/replay.py --motion 'dance1[10:20]' --policy runs/dance1__ppo_track__1 --video d.mp4
    python tools/replay.py --list

The policy is the solid robot, the reference the green ghost; the reference alone is solid. A policy
that ships with the package is shown with the motion of its name unless `--show reference`.

The policy runs once, before anything is drawn, as in the `clip` protocol of `benchmarks/track.py`
(or its `robust` one, a single episode), but a failure does not end it: the robot is seen falling.
What is printed follows the protocol: the failure is the first frame with the pelvis off by more
than 0.25 m in height or 0.8 in tilt, and the errors are means over the frames before it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli, evaluation
from bm_envs.backends.mujoco_render import HumanViewer, OffscreenRenderer, has_display
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import Policy, load_policy, shipped_policies
from bm_envs.robots import g1
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.track.config import CONTROL_DT

ROOT = g1.BODY_NAMES.index(g1.ROOT_BODY)
CAMERA_LAG = 0.3  # s, time constant of the following camera


@dataclass(frozen=True)
class Config:
    """Show a motion, a policy that follows it, or both."""

    motion: str | None = None
    """Name, file or cut such as 'walk1[5:15]'; none: the motion inside the policy."""
    policy: str | None = None
    """A run directory, an ONNX file, a shipped policy's name, or hub:OWNER/NAME[@REVISION]."""
    show: Literal["both", "reference", "policy"] = "both"
    """What to draw."""
    video: Path | None = None
    """MP4 to write in place of opening a window."""
    start: float = 0.0
    """Second of the motion to begin with; the policy starts there, too."""
    seconds: float | None = None
    """Seconds to show; none: to the end of the motion."""
    list: Annotated[bool, FlagCreatePairsOff] = False
    """List every motion that is known by name, and end."""
    protocol: Literal["clip", "robust"] = "clip"
    """`clip`: undisturbed; `robust`: with noise, pushes and a randomized robot."""
    seed: int = 0
    """Seed of what `--protocol robust` draws."""
    width: int = 640
    """Width of the video, pixels; even."""
    height: int = 480
    """Height of the video, pixels; even."""
    fps: int = 25
    """Pictures per second of the video, at most the 50 of the motion."""
    fast: Annotated[bool, FlagCreatePairsOff] = False
    """Leave shadows and smooth edges out: several times faster without a graphics card."""
    mesh_dir: Path | None = None
    """Folder with the maker's meshes of the G1; none: BM_DATA_DIR/g1_meshes, else plain shapes."""
    feet: Literal["spheres", "capsules"] = "spheres"
    """Foot contact shape of the policy's robot."""
    policy_config: Path | None = None
    """JSON with the metadata that the policy file lacks; keys as in the ONNX metadata."""
    lead: Literal[0, 1] = 1
    """Frames by which the reference that the policy sees is ahead of the robot."""

    def __post_init__(self) -> None:
        if not self.start >= 0:
            raise ConfigError(f"start is {self.start}, expected 0 s or more.")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds is {self.seconds}, expected more than 0.")
        if not 1 <= self.fps <= 50:
            raise ConfigError(f"fps is {self.fps}, expected 1 to 50.")
        if self.video is not None and self.video.suffix.lower() != ".mp4":
            raise ConfigError(f"{self.video}: the name of a video must end in .mp4.")
        if self.video is not None and (self.width % 2 or self.height % 2):
            raise ConfigError(
                f"width and height are {self.width} and {self.height}, expected even numbers for a "
                "video."
            )


@dataclass(frozen=True)
class Rollout:
    """A policy's run over a clip of T frames."""

    qpos: np.ndarray
    """`[R, 36]`, the robot at reference frames 0 to R - 1; R < T where the simulation diverged."""
    reached: int
    """Steps before the failure; T - 1 without one."""
    errors: dict[str, float]
    """Mean tracking errors of the frames before the failure; empty without one."""


def motion_table() -> str:
    """Every motion that is known by name, aligned."""
    head = ("motion", "seconds", "fps", "where", "licence", "source")
    lines: list[tuple[str, ...]] = [head]
    for info in library.list_motions():
        seconds = "-" if info.frames is None else f"{(info.frames - 1) / info.fps:.2f}"
        lines.append((info.name, seconds, f"{info.fps:g}", info.where, info.licence, info.source))
    return cli.aligned(lines)


def choose_policy(config: Config) -> Policy | None:
    """The policy asked for, else the shipped one of the motion's name, else None."""
    if config.show == "reference":
        return None
    if config.policy is not None:
        return load_policy(config.policy, config=config.policy_config)
    name = re.sub(r"\[[^\[\]]*\]$", "", config.motion or "")
    if name in shipped_policies():
        try:
            return load_policy(name)
        except PolicyError as error:  # the packages that run policies are an extra
            if config.show == "policy":
                raise
            print(f"showing the reference alone: {error}")
            return None
    if config.show == "policy":
        raise ConfigError("show is 'policy', expected a policy to show; name it with --policy.")
    return None


def choose_clip(config: Config, policy: Policy | None) -> Clip:
    """The motion, from `start` on for `seconds`."""
    if config.motion is not None:
        clip = library.load_motion(config.motion)
    elif policy is not None and policy.motion is not None:
        clip = policy.embedded_clip()
    elif policy is not None and "motion_name" in policy.spec.extra:
        clip = library.load_motion(policy.spec.extra["motion_name"])
    else:
        raise ConfigError("No motion to show, name one with --motion; --list tells those known.")
    if config.start == 0 and config.seconds is None:
        return clip
    end = None
    if config.seconds is not None and config.start + config.seconds < clip.duration_s:
        end = config.start + config.seconds
    return clip.cut(config.start, end)


def run_policy(policy: Policy, clip: Clip, config: Config) -> Rollout:
    """Follow the clip from its first frame, past a failure, to its last frame."""
    task = evaluation.protocol_task(
        policy, config.protocol, feet=config.feet, lead=config.lead, failure_rules=False
    )
    env = TrackVectorEnv(1, clip, config=task, autoreset_mode="disabled", critic="none", threads=1)
    sim = env.simulator
    act = evaluation.in_project_order(policy)
    qpos: list[np.ndarray] = []

    def record(present: np.ndarray) -> None:
        if present[0]:  # else it has diverged: there is nothing to draw
            state = np.concatenate([sim.root_pos[0], sim.root_quat[0], sim.joint_pos[0]])
            qpos.append(state.astype(float))

    try:
        found = evaluation.run_episodes(
            act, env, seed=config.seed, failed=evaluation.pelvis_is_off, on_frame=record
        )
    finally:
        env.close()
    reached = int(found.reached[0])
    errors = {name: float(value[0]) for name, value in found.errors.items()} if reached else {}
    return Rollout(np.stack(qpos), reached, errors)


def reference_qpos(clip: Clip) -> np.ndarray:
    """The clip as configurations. `[T, 36]`."""
    return np.concatenate(
        [clip.body_pos_w[:, ROOT], clip.body_quat_w[:, ROOT], clip.joint_pos], axis=1
    ).astype(float)


def describe(rollout: Rollout, clip: Clip) -> str:
    """Survival and errors in one line."""
    text = f"survived {rollout.reached * CONTROL_DT:.2f} of {clip.duration_s:.2f} s"
    if rollout.errors:
        text += (
            f", key points off by {rollout.errors['mpkpe_m'] * 1000:.0f} mm and joints by "
            f"{rollout.errors['joint_pos_rad']:.3f} rad"
        )
    return text


def frame_at(seconds: float, clip: Clip, frames: int) -> int:
    """The frame nearest to a time, among the first `frames`."""
    return min(round(seconds * clip.fps), frames - 1)


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: int, total: int) -> str:
    """Write pictures `[H, W, 3]` uint8 as an MP4; returns the codec's name."""
    try:
        import av
    except ImportError as error:
        raise ConfigError("A video needs the package av: pip install 'bm-envs[viz]'.") from error
    # Browsers play H.264; a build of FFmpeg without its encoder still has the older MPEG-4.
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with cli.atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        stream: Any = None
        for count, picture in enumerate(pictures, start=1):
            if stream is None:
                stream = file.add_stream(codec, rate=fps)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "20"} if codec == "libx264" else {"qscale": "3"}
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if sys.stderr.isatty():
                print(f"\r{count} of {total} pictures", end="", file=sys.stderr, flush=True)
        file.mux(stream.encode())
    if sys.stderr.isatty():
        print("\r" + " " * 40, end="\r", file=sys.stderr)
    return codec


def shown_at(
    seconds: float, clip: Clip, reference: np.ndarray, rollout: Rollout | None, show: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The solid robot's and the ghost's configuration at a time."""
    frame = frame_at(seconds, clip, len(reference))
    if rollout is None:
        return reference[frame], None
    robot = rollout.qpos[frame_at(seconds, clip, len(rollout.qpos))]
    return robot, reference[frame] if show == "both" else None


def watch(
    model: ModelConfig, clip: Clip, reference: np.ndarray, rollout: Rollout | None, show: str
) -> None:
    """Play in a window at real speed, over and over, until the window is shut."""
    with HumanViewer(model) as viewer:
        started = time.perf_counter()
        while viewer.is_running():
            seconds = (time.perf_counter() - started) % (clip.duration_s + 0.5)
            viewer.sync(*shown_at(seconds, clip, reference, rollout, show))
            time.sleep(1 / clip.fps)


def main(config: Config) -> None:
    """Run the policy if there is one, then draw."""
    if config.list:
        print(motion_table())
        return
    if config.video is None and not has_display():
        raise ConfigError(
            "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            "write a video with --video out.mp4."
        )
    if config.video is not None and config.video.is_dir():
        raise ConfigError(f"{config.video} is a folder, expected the name of a file for --video.")
    policy = choose_policy(config)
    clip = choose_clip(config, policy)
    followed = f"policy {policy.name}" if policy is not None else "no policy"
    print(f"motion {clip.name} ({clip.duration_s:.2f} s, {clip.licence}), {followed}")
    rollout = None
    if policy is not None:
        rollout = run_policy(policy, clip, config)
        print(describe(rollout, clip))
    reference = reference_qpos(clip)
    model = ModelConfig(feet=config.feet, visuals=True, mesh_dir=config.mesh_dir)
    if config.video is None:
        watch(model, clip, reference, rollout, config.show)
        return

    total = int(clip.duration_s * config.fps) + 1
    smoothing = float(np.exp(-1 / (config.fps * CAMERA_LAG)))

    def pictures() -> Iterator[np.ndarray]:
        with OffscreenRenderer(
            model, width=config.width, height=config.height, smoothing=smoothing,
            antialias=not config.fast, shadows=not config.fast,
        ) as renderer:  # fmt: skip
            for index in range(total):
                yield renderer.render(
                    *shown_at(index / config.fps, clip, reference, rollout, config.show)
                )

    codec = write_video(config.video, pictures(), config.fps, total)
    print(f"video in {config.video} ({total} pictures, {total / config.fps:.2f} s, {codec})")


if __name__ == "__main__":
    cli.run(main, Config)
