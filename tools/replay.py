"""Look at a motion, at a policy that follows it, or at both: in a window, on a page, as an MP4.

    python tools/replay.py --motion walk                       # a window
    python tools/replay.py --motion walk --web                 # a page for the browser (extra web)
    python tools/replay.py --motion walk --video walk.mp4      # no display needed
    python tools/replay.py --motion 'dance1[10:20]' --policy runs/dance1__ppo_track__1 --video d.mp4
    python tools/replay.py --list

The policy is the solid robot, the reference the green ghost; the reference alone is solid. A policy
that ships with the package is shown with the motion of its name unless `--show reference`.

The policy runs once, before anything is drawn, as in the `clip` protocol of `benchmarks/track.py`
(or its `robust` one, a single episode), but a failure does not end it: the robot is seen falling.
What is printed follows the protocol: the failure is the first frame with the pelvis off by more
than 0.25 m in height or 0.8 in tilt, and the errors are means over the frames before it.

The page is on this machine alone (http://127.0.0.1:8080; another with `--port`), until Ctrl-C. It
offers the motions that are on this machine, and has the errors of each link and joint and the feet
that touch the floor: of the policy's robot as the physics has it, of the reference as the motion
says it.
"""

from __future__ import annotations

import html
import queue
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli, evaluation
from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError, PolicyError
from bm_envs.motion import library, procedural
from bm_envs.motion.clip import Clip
from bm_envs.motion.on_robot import on_robot
from bm_envs.policy import Policy, load_policy, shipped_policies
from bm_envs.robots import kinematics
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.track.config import CONTROL_DT
from bm_envs.viewers import HumanViewer, OffscreenRenderer, camera_smoothing, has_display, panels
from bm_envs.viewers import page as pages
from bm_envs.viewers.page import DEFAULT_PORT, feet_touch

REST_S = 0.5  # s between the end of a motion and its next beginning
PAGE_FPS = 30  # pictures a second on the page
TOLD_S = 0.12  # s between two updates of the numbers on the page
WORST_JOINTS = 5  # joints that are listed one by one
SPEEDS = ("0.1", "0.25", "0.5", "1", "2")


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
    web: Annotated[bool, FlagCreatePairsOff] = False
    """Serve a page on loopback in place of opening a window."""
    port: int = DEFAULT_PORT
    """Port of the page; 0: any that is free."""
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
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""
    lead: Literal[0, 1] = 1
    """Frames by which the reference that the policy sees is ahead of the robot."""

    def __post_init__(self) -> None:
        if not self.start >= 0:
            raise ConfigError(f"start is {self.start}, expected 0 s or more.")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"seconds is {self.seconds}, expected more than 0.")
        if not 1 <= self.fps <= 50:
            raise ConfigError(f"fps is {self.fps}, expected 1 to 50.")
        if self.web and self.video is not None:
            raise ConfigError("web and video are both given, expected one of them.")
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
    contact: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), bool))
    """`[R, 2]`, whether the left and the right foot press on the floor."""


def motion_table() -> str:
    """All motions known by name as aligned text, and the families that are made when asked for."""
    head = ("motion", "seconds", "fps", "where", "licence", "source")
    lines: list[tuple[str, ...]] = [head]
    infos = library.list_motions()
    for info in infos:
        seconds = "-" if info.frames is None else f"{(info.frames - 1) / info.fps:.2f}"
        lines.append((info.name, seconds, f"{info.fps:g}", info.where, info.licence, info.source))
    for family in ("walk_mix", "walk_on"):
        what = f"drawn anew for each number N = 0, 1, ... ({procedural.__name__})"
        at_least = f"{procedural.MIX_S:g} +"
        lines.append((f"{family}_N", at_least, "50", "made", procedural.LICENCE, what))
    return cli.aligned(lines)


def choose_policy(config: Config) -> Policy | None:
    """The policy of `--policy`, or the shipped one of the motion's name, or None."""
    if config.show == "reference":
        return None
    if config.policy is not None:
        return load_policy(config.policy, config=config.policy_config)
    name = re.sub(r"\[[^\[\]]*\]$", "", config.motion or "")
    if name in shipped_policies():
        try:
            return load_policy(name)
        except PolicyError as error:  # the packages that run policies are optional
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


def choose(config: Config) -> tuple[Policy | None, Clip]:
    """The policy, or None, and the motion."""
    policy = choose_policy(config)
    clip = choose_clip(config, policy)
    return policy, clip if policy is None else on_robot(clip, policy.spec.robot)


def run_policy(policy: Policy, clip: Clip, config: Config) -> Rollout:
    """Follow the clip from its first frame, past a failure, to its last frame."""
    task = evaluation.protocol_task(
        policy, config.protocol, feet=config.feet, lead=config.lead, failure_rules=False
    )
    env = TrackVectorEnv(1, clip, config=task, autoreset_mode="disabled", critic="none", threads=1)
    sim = env.simulator
    act = evaluation.in_project_order(policy)
    qpos: list[np.ndarray] = []
    contact: list[np.ndarray] = []

    def record(present: np.ndarray) -> None:
        if present[0]:  # a robot that has diverged cannot be drawn
            qpos.append(full_state(sim)[0][0].astype(float))
            contact.append(feet_touch(sim.contact_force[0]))

    try:
        episodes = evaluation.run_episodes(
            act, env, seed=config.seed, failed=evaluation.pelvis_is_off, on_frame=record
        )
    finally:
        env.close()
    reached = int(episodes.reached[0])
    errors = {name: float(value[0]) for name, value in episodes.errors.items()} if reached else {}
    if len(contact) > 1:
        contact[0] = contact[1]  # no physics has run at the reset
    return Rollout(np.stack(qpos), reached, errors, np.stack(contact))


def describe(rollout: Rollout, clip: Clip) -> str:
    """Survival and errors in one line."""
    text = f"survived {rollout.reached * CONTROL_DT:.2f} of {clip.duration_s:.2f} s"
    if rollout.errors:
        text += (
            f", MPKPE {rollout.errors['mpkpe_m'] * 1000:.0f} mm, R-MPKPE "
            f"{rollout.errors['r_mpkpe_m'] * 1000:.0f} mm, joints off by "
            f"{rollout.errors['joint_pos_rad']:.3f} rad"
        )
    return text


def frame_at(seconds: float, clip: Clip, frames: int) -> int:
    """The frame nearest to a time, among the first `frames`."""
    return min(round(seconds * clip.fps), frames - 1)


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
            seconds = (time.perf_counter() - started) % (clip.duration_s + REST_S)
            viewer.sync(*shown_at(seconds, clip, reference, rollout, show))
            time.sleep(1 / clip.fps)


# --- on a page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Take:
    """What the page shows: a motion and, if there is a policy, its run."""

    clip: Clip
    reference: np.ndarray
    """`[T, 36]`, the reference's configurations."""
    policy: Policy | None
    rollout: Rollout | None
    body_m: np.ndarray | None
    """`[R, 14]`, how far the tracked links are from the reference's, m."""
    joint_rad: np.ndarray | None
    """`[R, 29]`, how far the joints are."""


def make_take(config: Config, policy: Policy | None, clip: Clip) -> Take:
    """Run the policy on the motion."""
    followed = f"policy {policy.name}" if policy is not None else "no policy"
    print(f"motion {clip.name} ({clip.duration_s:.2f} s, {clip.licence}), {followed}", flush=True)
    reference = clip.qpos()
    if policy is None:
        return Take(clip, reference, None, None, None, None)
    rollout = run_policy(policy, clip, config)
    print(describe(rollout, clip), flush=True)
    qpos = rollout.qpos
    robot = clip.robot
    links = kinematics.link_poses(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], robot).pos
    tracked = [robot.body_names.index(name) for name in robot.tracked_bodies]
    body_m = np.linalg.norm(links[:, tracked] - clip.body_pos_w[: len(qpos), tracked], axis=-1)
    joint_rad = abs(qpos[:, 7:] - clip.joint_pos[: len(qpos)])
    return Take(clip, reference, policy, rollout, body_m, joint_rad)


class Playhead:
    """Where in a motion of `duration_s` the page is; it plays over and over, with rests."""

    def __init__(self, duration_s: float) -> None:
        self.duration_s, self.seconds = duration_s, 0.0
        self.speed, self.playing = 1.0, True
        self._rested_s = 0.0

    def advance(self, wall_s: float) -> None:
        """Let time go by."""
        if not self.playing:
            return
        if self.seconds < self.duration_s:
            self.seconds = min(self.seconds + wall_s * self.speed, self.duration_s)
            self._rested_s = 0.0
        else:
            self._rested_s += wall_s
            if self._rested_s >= REST_S:
                self.seconds = 0.0

    def step(self, seconds: float) -> None:
        """Stop, and move forward or back by some time."""
        self.playing = False
        self.seek(self.seconds + seconds)

    def seek(self, seconds: float) -> None:
        """Go on from a time."""
        if not np.isfinite(seconds):
            return
        self.seconds, self._rested_s = min(max(seconds, 0.0), self.duration_s), 0.0


def nearby_motions() -> list[str]:
    """Names of the motions that are on this machine."""
    return [i.name for i in library.list_motions() if i.where in ("package", "BM_DATA_DIR")]


class Stage:
    """The page's panel, and what it shows.

    What people do there arrives in viser's threads; they queue it, and `step` does it.
    """

    def __init__(self, page: pages.Page, config: Config) -> None:
        self.page, self.config = page, config
        self._asked: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._told_at = -1.0
        self.take = make_take(config, *choose(config))
        self.playhead = Playhead(self.take.clip.duration_s)
        self._build()
        self._present()

    def step(self, wall_s: float) -> None:
        """Do what people asked for, let time go by, and draw."""
        while not self._asked.empty():
            what, value = self._asked.get()
            if what == "motion" and value in self._motion.options:
                self._change(value)
            elif what == "toggle":
                self.playhead.playing = not self.playhead.playing
            elif what == "seek":
                self.playhead.seek(value)
            elif what == "step":
                self.playhead.step(value / self.take.clip.fps)
            elif what == "restart":
                self.playhead.seek(0.0)
        if self._speed.value in SPEEDS:
            self.playhead.speed = float(self._speed.value)
        self.page.follow = self._follow.value
        self.playhead.advance(wall_s)
        self._draw()

    # --- parts ---------------------------------------------------------------------------------

    def _build(self) -> None:
        gui, ask = self.page.server.gui, self._ask
        names = nearby_motions()
        self._first = shown = self.config.motion or self.take.clip.name
        self._motion = gui.add_dropdown(
            "motion", list(dict.fromkeys([shown, *names])), initial_value=shown
        )
        self._about = gui.add_html("")
        self._time = gui.add_slider("time, s", 0.0, 1.0, 0.02, 0.0)
        self._toggle = gui.add_button("Pause", icon="player-pause", hint="Space")
        self._steps = gui.add_button_group("frames", ("-10", "-1", "+1", "+10", "start"))
        self._speed = gui.add_dropdown("speed", SPEEDS, initial_value="1")
        with gui.add_folder("show"):
            self._ghost = gui.add_checkbox("reference", True)
            self._contacts = gui.add_checkbox("contacts", True)
            self._follow = gui.add_checkbox("follow", True)
        with gui.add_folder("errors"):
            self._plot, self._errors = gui.add_html(""), gui.add_html("")

        # A coroutine reads the value that was sent, and no value that was written since.
        @self._motion.on_update
        async def _(event: Any) -> None:
            if event.client is not None:
                ask("motion", self._motion.value)

        @self._time.on_update
        async def _(event: Any) -> None:
            if event.client is not None:  # without a client the playhead moved it
                ask("seek", float(self._time.value))

        @self._steps.on_click
        async def _(event: Any) -> None:
            value = self._steps.value
            ask("restart", None) if value == "start" else ask("step", int(value))

        self._toggle.on_click(lambda event: ask("toggle", None))
        for label, key, what, value in (
            ("Play or pause", "space", "toggle", None), ("A frame back", "J", "step", -1),
            ("A frame on", "L", "step", 1), ("To the start", "home", "restart", None),
        ):  # fmt: skip
            command = gui.add_command(label, hotkey=key)
            command.on_trigger(lambda event, what=what, value=value: ask(what, value))

    def _ask(self, what: str, value: Any) -> None:
        self._asked.put((what, value))

    def _change(self, motion: str) -> None:
        """Show another motion, with the policy of the command line or the one that ships for it."""
        self._about.content = panels.table([("", f"loading {motion} ...")])
        self.page.server.flush()
        try:
            # A cut on the command line holds for the motion of the command line alone.
            other = replace(self.config, motion=motion, start=0.0, seconds=None)
            asked = self.config if motion == self._first else other
            self.take = make_take(asked, *choose(asked))
        except BMError as error:
            self._about.content = panels.table([("not shown", str(error))])
            return
        self.playhead = Playhead(self.take.clip.duration_s)
        self._present()

    def _present(self) -> None:
        """Write the names of motion and policy into the panel."""
        take, clip = self.take, self.take.clip
        rows = [
            ("length", f"{clip.duration_s:.2f} s, {clip.fps:g} fps"),
            ("licence", clip.licence), ("source", clip.source),
        ]  # fmt: skip
        if take.policy is not None and take.rollout is not None:
            survived = describe(take.rollout, clip).partition(",")[0]
            rows += [("policy", take.policy.name), ("", survived)]
        else:
            rows.append(("policy", "none: the motion alone"))
        self._about.content = panels.table(rows)
        self._time.max = round(clip.duration_s, 2)
        self._ghost.disabled = take.rollout is None
        self._told_at = -1.0

    def _draw(self) -> None:
        take, seconds = self.take, self.playhead.seconds
        show = self.config.show
        if show == "both" and not self._ghost.value:
            show = "policy"
        robot, ghost = shown_at(seconds, take.clip, take.reference, take.rollout, show)
        contacts = take.clip.foot_contact[frame_at(seconds, take.clip, take.clip.num_frames)]
        feet = contacts
        if take.rollout is not None:
            feet = take.rollout.contact[frame_at(seconds, take.clip, len(take.rollout.contact))]
        none = (False, False)
        self.page.show(
            robot, ghost, feet=feet if self._contacts.value else none,
            ghost_feet=contacts if self._contacts.value else none,
        )  # fmt: skip
        now = time.perf_counter()
        if now - self._told_at >= TOLD_S:
            self._told_at = now
            self._tell(seconds)

    def _tell(self, seconds: float) -> None:
        """Update numbers, curve and buttons."""
        take, playing = self.take, self.playhead.playing
        self._time.value = round(seconds, 2)
        label = "Pause" if playing else "Play"
        if self._toggle.label != label:
            self._toggle.label = label
            self._toggle.icon = "player-pause" if playing else "player-play"
        clip = take.clip
        bars = [("ref L", "#0a963c", clip.foot_contact[:, 0]),
                ("ref R", "#0a963c", clip.foot_contact[:, 1])]  # fmt: skip
        curve = None
        if take.rollout is not None and take.body_m is not None:
            bars = [("L", "#ff8c00", take.rollout.contact[:, 0]), bars[0],
                    ("R", "#ff8c00", take.rollout.contact[:, 1]), bars[1]]  # fmt: skip
            curve = take.body_m.mean(1) * 1000
        times = np.arange(clip.num_frames) / clip.fps
        self._plot.content = panels.timeline(times, curve, bars, seconds, "mm")
        self._errors.content = error_table(take, seconds)


def error_table(take: Take, seconds: float) -> str:
    """The errors of a moment as HTML: means, each tracked link, and the joints furthest off."""
    if take.body_m is None or take.joint_rad is None:
        return panels.table([("", "no policy: nothing to compare")])
    frame = frame_at(seconds, take.clip, len(take.body_m))
    body_mm, joint = take.body_m[frame] * 1000, take.joint_rad[frame]
    means = [
        ("MPKPE", f"{body_mm.mean():.0f} mm"),
        ("joints", f"{joint.mean():.3f} rad on average"),
    ]
    links = [
        (name.removesuffix("_link"), value / max(100.0, float(body_mm.max())), f"{value:.0f} mm")
        for name, value in zip(take.clip.robot.tracked_bodies, body_mm, strict=True)
    ]
    names = take.clip.robot.joint_names
    worst = [
        (
            names[j].removesuffix("_joint"),
            min(joint[j], 1.0),
            f"{joint[j]:.2f} rad",
        )
        for j in np.argsort(-joint)[:WORST_JOINTS]
    ]
    bars = "".join(
        f"<tr><td style='color:#868e96'>{html.escape(name)}</td><td style='width:90px'><div style='"
        f"height:7px;width:{100 * share:.0f}%;background:{colour}'></div></td>"
        f"<td style='text-align:right'>{value}</td></tr>"
        for rows, colour in ((links, "#1073e6"), (worst, "#7950f2"))
        for name, share, value in rows
    )
    style = "font-size:0.75em;margin:0.2em 0.95em;line-height:1.3;border-spacing:0.4em 0"
    return panels.table(means) + f"<table style='{style}'>{bars}</table>"


def serve(config: Config, model: ModelConfig) -> None:
    """Show on a page until Ctrl-C."""
    with pages.Page(model, port=config.port, title="bm-envs replay") as page:
        stage = Stage(page, config)
        print(f"page on {page.url} (Ctrl-C ends it)", flush=True)
        before = time.perf_counter()
        while True:
            time.sleep(1 / PAGE_FPS)
            now = time.perf_counter()
            stage.step(now - before)
            before = now


def main(config: Config) -> None:
    """Run the policy if there is one, then draw."""
    if config.list:
        print(motion_table())
        return
    model = ModelConfig(feet=config.feet, visuals=True, mesh_dir=config.mesh_dir)
    if config.web:
        chosen = choose_policy(config)
        robot = "g1" if chosen is None else chosen.spec.robot.name
        serve(config, replace(model, robot=robot))
        return
    policy, clip = choose(config)  # a misspelt name is told before anything else that is missing
    if config.video is None and not has_display():
        raise ConfigError(
            "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            "look at it in the browser with --web, or write a video with --video out.mp4."
        )
    if config.video is not None:
        if config.video.is_dir():
            raise ConfigError(
                f"{config.video} is a folder, expected the name of a file for --video."
            )
        cli.video_package()
    model = replace(model, robot=clip.robot.name)
    take = make_take(config, policy, clip)
    reference, rollout = take.reference, take.rollout
    if config.video is None:
        watch(model, clip, reference, rollout, config.show)
        return

    total = int(clip.duration_s * config.fps) + 1

    def pictures() -> Iterator[np.ndarray]:
        with OffscreenRenderer(
            model, width=config.width, height=config.height, antialias=not config.fast,
            shadows=not config.fast, smoothing=camera_smoothing(config.fps),
        ) as renderer:  # fmt: skip
            for index in range(total):
                yield renderer.render(
                    *shown_at(index / config.fps, clip, reference, rollout, config.show)
                )

    codec = cli.write_video(config.video, pictures(), config.fps, total)
    print(f"video in {config.video} ({total} pictures, {total / config.fps:.2f} s, {codec})")


if __name__ == "__main__":
    cli.run(main, Config)
