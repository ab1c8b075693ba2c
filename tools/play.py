"""Drive a diffusion model, or push a tracker: in a window, on a page, or by a script.

    python tools/play.py --policy guided_body_pos --task joystick       # a window
    python tools/play.py --policy guided_body_pos --task waypoint --web   # a page (extra web)
    python tools/play.py --policy guided_body_pos --task obstacle
    python tools/play.py --policy walk                                  # a tracker: task track
    python tools/play.py --policy guided_body_pos --task joystick --video out.mp4 --strip out.png

    arrows or I K J L  joystick: faster forward, slower and backward, turn left, turn right;
                       waypoint, obstacle: move the goal away from the viewer, nearer, left, right
    space              joystick: stop; waypoint, obstacle: the goal is where the robot is
    P                  a push of 0.5 m/s in a drawn direction
    R                  begin again
    Enter              pause, and go on
    gamepad            left stick: forward, backward, turn, or move the goal; A push, B stop,
                       X pause, Y begin again

The page (http://127.0.0.1:8080, on this machine alone; `--port` for another) has sliders for
command and goal and buttons for the rest. Its keys are the letters, space and Enter; the arrows
turn the view. Shift and a click on the ground put the goal there. A gamepad is read by the browser;
in the window it is read by GLFW, if that knows the gamepad.

The robot starts in a frame of a walk, and the model walks on unguided for 1 s before time counts.
It is guided as in `benchmarks/guided.py`, by fewer calls of the network; where those are too slow
for real time, it all runs slower and nothing is skipped. After a fall (pelvis below 0.4 m or tilted
by more than 60 degrees) it begins again, with the last command or goal.

`--cost file.py:function` asks a diffusion model for a cost of one's own beside the task (docs/
own_cost.md); walk_perturb asks for nothing else. That runs the file that it names.

A tracker follows its motion, over and over, with the reference as a ghost; after a fall (pelvis
0.3 m below the reference's) it begins again.

`--video` and `--strip` need no display. Then a script drives: one line for each thing that happens,
with its second; without one, joystick plays its benchmark's commands and the other tasks go to the
goals they draw. Composition is a script of its own, of a minute: keys and lines only push and begin
again. Equal seeds, scripts and settings on one machine give equal pictures.

    0.0 command 0.6 0 0   # joystick: m/s forward, m/s to the left, rad/s to the left
    0.0 goal 3 1          # waypoint, obstacle: x and y, m; robots start over the origin
    3.5 push 0.5 90       # m/s, and degrees to the left of where the robot faces
    8.0 reset

One file because the window, the page and the script play one game; what keys and sliders mean is in
`bm_envs/viewers/driving.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import webbrowser
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import numpy as np
from tyro.conf import FlagCreatePairsOff

from bm_envs import evaluation
from bm_envs.backends.base import Simulator
from bm_envs.diffusion.controller import Controller, Method, method_of
from bm_envs.diffusion.model import GuidedModel, load_model
from bm_envs.diffusion.steering import Pilot, Steering, steering_for
from bm_envs.diffusion.user_costs import (
    COST_STRENGTH,
    OwnCost,
    check_cost_strength,
    load_cost,
)
from bm_envs.envs import GuidedVectorEnv, TrackVectorEnv
from bm_envs.errors import ConfigError, unknown_name
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import (
    DIFFUSION,
    TRACKER,
    Policy,
    check_is_of_g1,
    kind_of,
    load_policy,
    shipped_policies,
)
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.rotations import quat_yaw
from bm_envs.tasks.guided.composition import CompositionTask
from bm_envs.tasks.guided.config import (
    CompositionConfig,
    JoystickConfig,
    config_class,
    control_steps,
)
from bm_envs.tasks.guided.joystick import CommandedTask, JoystickTask
from bm_envs.tasks.guided.waypoint import WaypointTask
from bm_envs.tasks.track.config import CONTROL_DT, ActuationConfig
from bm_envs.viewers import (
    FAR_VIEW,
    Decor,
    OffscreenRenderer,
    View,
    camera_smoothing,
    has_display,
)
from bm_envs.viewers import page as pages
from bm_envs.viewers.driving import Keyboard, PageWindow, Window
from bm_envs.viewers.page import DEFAULT_PORT, feet_touch

Task = Literal["joystick", "waypoint", "obstacle", "walk_perturb", "composition", "track"]
START_MOTIONS = ("walk",)
WARM_UP_S = 1.0
DAY = 24 * 3600.0  # s; the time after which even this play ends an episode
SECOND = control_steps(1.0)  # control steps; also how long a fallen robot is left to lie
DEFAULT_SECONDS = 12.0  # length of a video or strip: four commands of the joystick benchmark
COMPOSITION_SECONDS = CompositionConfig.episode_s
CATCH_UP_S = 0.1  # s behind real time that are made up for; any more are lost

# --- scripts --------------------------------------------------------------------------------------

# The ranges of commands are those that the joystick task draws from: `tasks/guided/config.py`.
FORWARD, TURN = JoystickConfig.random_forward, JoystickConfig.random_yaw_rate


@dataclass(frozen=True)
class Event:
    """One line of a script."""

    time_s: float
    """When it happens, s after time begins to count; events of 0 hold from the start."""
    what: str
    """A key of `EVENTS`."""
    values: tuple[float, ...] = ()
    """Its numbers."""


EVENTS = {
    "command": "m/s forward, m/s left, rad/s left",
    "goal": "x, y in m",
    "push": "m/s, degrees left of the heading",
    "reset": "",
}
# What a person changes while a task is played; in the other tasks only pushes and restarts.
DRIVES: dict[str, Literal["command", "goal"]] = {
    "joystick": "command", "waypoint": "goal", "obstacle": "goal",
}  # fmt: skip


def parse_script(text: str, name: str, task: str) -> list[Event]:
    """A script for a task; the module's text has an example.

    Raises:
        ConfigError: a line is malformed, or tells the task what it does not take; it names the line
            of the script `name`.
    """
    events: list[Event] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            event = _parsed(words, task)
        except ConfigError as error:
            raise ConfigError(f"{name}, line {number}: {error}") from None
        if events and event.time_s < events[-1].time_s:
            raise ConfigError(
                f"{name}, line {number}: second {event.time_s:g} comes after second "
                f"{events[-1].time_s:g}, expected lines in the order of time."
            )
        events.append(event)
    return events


def _parsed(words: Sequence[str], task: str) -> Event:
    second = _number(words[0])
    if second is None or second < 0:
        raise ConfigError(f"'{words[0]}' is no second, expected a number of 0 or more.")
    what = words[1] if len(words) > 1 else ""
    if what not in EVENTS:
        raise ConfigError(unknown_name("event", what, EVENTS, f"Known: {', '.join(EVENTS)}."))
    if what in DRIVES.values() and DRIVES.get(task) != what:
        raise ConfigError(f"task '{task}' takes no {what}.")
    values = [_number(word) for word in words[2:]]
    expected = EVENTS[what].split(", ") if EVENTS[what] else []
    finite = tuple(value for value in values if value is not None)
    if len(finite) != len(values) or len(values) != len(expected):
        numbers = f"{len(expected)} numbers ({EVENTS[what]})" if expected else "nothing more"
        raise ConfigError(f"{what} has '{' '.join(words[2:])}', expected {numbers}.")
    return Event(second, what, finite)


def _number(word: str) -> float | None:
    """A word as a finite number, or None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def default_script(task: str, seconds: float) -> list[Event]:
    """The script without `--script`: the joystick benchmark's commands, over and over."""
    if task != "joystick":
        return []
    protocol = JoystickConfig()
    count = math.ceil(seconds / protocol.segment_s)
    commands = protocol.commands
    return [
        Event(i * protocol.segment_s, "command", commands[i % len(commands)]) for i in range(count)
    ]


# --- settings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Drive a diffusion model or push a tracker, in a window, on a page, or by a script."""

    policy: str
    """A run directory, an ONNX file, a shipped model's name, or hub:OWNER/NAME[@REVISION]."""
    task: Task | None = None
    """The task; none: `track` for a tracker and `joystick` for a diffusion model."""
    motion: str | None = None
    """Motion of a tracker: a name, file or cut such as 'walk1[5:15]'; none: the policy's motion."""
    port: int = DEFAULT_PORT
    """Port of the page; 0: any that is free."""
    web: Annotated[bool, FlagCreatePairsOff] = False
    """Serve a page on loopback in place of opening a window."""
    open: Annotated[bool, FlagCreatePairsOff] = False
    """Show the page in the browser as well, with --web."""
    video: Path | None = None
    """MP4 to write in place of opening a window."""
    strip: Path | None = None
    """PNG with pictures side by side to write in place of opening a window."""
    seconds: float | None = None
    """Seconds to play; none: 12 of pictures (composition: its 60), without end in a window."""
    script: Path | None = None
    """File with what happens when; the beginning of tools/play.py has its form."""
    seed: int = 0
    """Seed of start, noise, goal, obstacles and the directions of pushes."""
    sampler: str = "10"
    """`full` (20 calls a control step), `rolling` (15), or a number of DDIM calls."""
    strength: float | None = None
    """Strength of guidance, in place of the steering's default; 0: no guidance."""
    steering: Steering | None = None
    """How costs pull; by default as chosen for the representation (`diffusion/steering.py`)."""
    cost: str | None = None
    """A cost of one's own, file.py:function or module:function, asked for beside the task. The file
    is run."""
    cost_strength: float = COST_STRENGTH
    """Share of that cost's own step, 0 to 1; 0: its value is only shown."""
    threads: int = 0
    """Threads of the network; 0: all cores this process may use."""
    backend: str = "mujoco"
    """Physics backend."""
    strip_frames: int = 6
    """Pictures of the strip, from the middles of so many equal parts of the time."""
    width: int = 640
    """Width of a picture, pixels; even for a video."""
    height: int = 480
    """Height of a picture, pixels; even for a video."""
    fps: int = 25
    """Pictures a second of the video and in the window, at most 50."""
    distance: float = FAR_VIEW.distance
    """Distance of the camera from the robot, m."""
    azimuth: float = FAR_VIEW.azimuth
    """Where the camera looks, degrees over the ground; 180: at the front of a robot that walks
    along x, as it does at first."""
    fast: Annotated[bool, FlagCreatePairsOff] = False
    """Leave shadows and smooth edges out: several times faster without a graphics card."""
    mesh_dir: Path | None = None
    """Folder with the maker's meshes of the G1; none: BM_DATA_DIR/g1_meshes, else plain shapes."""

    def __post_init__(self) -> None:
        if self.web and not self.in_window:
            raise ConfigError("web is given with video or strip, expected either.")
        if self.open and not self.web:
            raise ConfigError("open is given without web: there is no page to open.")
        if self.motion is not None and self.task not in (None, "track"):
            raise ConfigError(f"motion is '{self.motion}', but task '{self.task}' takes none.")
        if self.seconds is not None and not 0 < self.seconds <= DAY:
            raise ConfigError(f"seconds is {self.seconds}, expected more than 0, a day at most.")
        if not 1 <= self.fps <= 50:
            raise ConfigError(f"fps is {self.fps}, expected 1 to 50.")
        if not 1 <= self.strip_frames <= 50:
            raise ConfigError(f"strip_frames is {self.strip_frames}, expected 1 to 50.")
        for what, path, suffix in (("video", self.video, ".mp4"), ("strip", self.strip, ".png")):
            if path is not None and path.suffix.lower() != suffix:
                raise ConfigError(f"{path}: the name of a {what} must end in {suffix}.")
        if self.video is not None and (self.width % 2 or self.height % 2):
            raise ConfigError(
                f"width and height are {self.width} and {self.height}, expected even numbers for a "
                "video."
            )
        if not 0.5 <= self.distance <= 50:
            raise ConfigError(f"distance is {self.distance}, expected 0.5 to 50 m.")
        if not math.isfinite(self.azimuth):
            raise ConfigError(f"azimuth is {self.azimuth}, expected degrees.")
        if self.strength is not None and not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}, expected 0 or more.")
        check_cost_strength(self.cost_strength, self.cost)
        _ = self.method

    @property
    def method(self) -> Method:
        return method_of(self.sampler)

    @property
    def in_window(self) -> bool:
        return self.video is None and self.strip is None

    @property
    def duration_s(self) -> float:
        """How long it plays; infinite in a window that nobody shuts."""
        if self.seconds is not None:
            return self.seconds
        if self.in_window:
            return math.inf
        return COMPOSITION_SECONDS if self.task == "composition" else DEFAULT_SECONDS

    @property
    def view(self) -> View:
        return dataclasses.replace(FAR_VIEW, distance=self.distance, azimuth=self.azimuth)


# --- the robot ------------------------------------------------------------------------------------


class Game:
    """One robot that is controlled, with its present command or goal.

    Attributes:
        keyboard: what keys ask for; a script uses it, too.
        ticks: control steps since time began to count; below 0 in the first warm-up.
        falls: number of falls so far.
        tick_s: wall time of each of the last control steps, s.
    """

    def __init__(
        self, config: Config, script: Iterable[Event], report: Callable[[str], None]
    ) -> None:  # fmt: skip
        self.config, self._report = config, report
        self._script = deque(script)
        self.keyboard = Keyboard(FORWARD, TURN, CONTROL_DT)
        self._rng = np.random.default_rng(config.seed)
        # A goal asked for by keys or script; None: the task's goal.
        self._goal: np.ndarray | None = None
        self._pushes: list[tuple[float, float]] = []  # pushes of the coming step: m/s, deg
        self.ticks, self.falls = 0, 0
        self.tick_s: deque[float] = deque(maxlen=SECOND)
        self._said = (self.ticks, "")
        self._fell_at: int | None = None

    @property
    def simulator(self) -> Simulator:
        raise NotImplementedError

    @property
    def time_s(self) -> float:
        return self.ticks * CONTROL_DT

    def tick(self, azimuth: float = FAR_VIEW.azimuth) -> None:
        """One control step; `azimuth`, deg, is where the viewer looks who moves the goal."""
        began = time.perf_counter()
        while self._script and self._script[0].time_s <= max(self.time_s, 0.0):
            self._play_event(self._script.popleft())
        if self.keyboard.take("reset"):
            self._restart()
            self._say("begins again")
        if self.keyboard.take("push"):
            self._pushes.append((self.keyboard.push_speed, self._rng.uniform(-180.0, 180.0)))
        self._step(azimuth)
        self.tick_s.append(time.perf_counter() - began)

    def scene(self) -> tuple[np.ndarray, np.ndarray | None, Decor]:
        """The configurations of robot and ghost `[36]`, and what is drawn beside them."""
        raise NotImplementedError

    def rows(self, factor: float) -> list[tuple[str, str]]:
        """Names and values shown beside the picture.

        Args:
            factor: speed as a multiple of real time.
        """
        rows = [("time", f"{self.time_s:.1f} s"), *self._figures()]
        rows.append(("real time", f"{factor:.2f} x"))
        rows.append(("falls", str(self.falls)))
        since, text = self._said
        if text and self.ticks - since < 3 * SECOND:
            rows.append(("", text))
        return rows

    def feet(self) -> np.ndarray:
        """Whether the left and the right foot press on the floor. `[2]`."""
        return feet_touch(self.simulator.contact_force[0])

    def factor(self) -> float:
        """Speed of the control steps without drawing, as a multiple of real time."""
        return CONTROL_DT / max(float(np.mean(self.tick_s)), 1e-9) if self.tick_s else 0.0

    def want_goal(self, x: float, y: float) -> None:
        """Ask for another place, world, m; tasks without one do not look."""
        self._goal = np.array([x, y])

    def goal(self) -> np.ndarray | None:
        """The place that can be moved, and is there. `[2]`."""
        return None

    def close(self) -> None:
        """Free the engine's resources."""
        raise NotImplementedError

    def _step(self, azimuth: float) -> None:
        raise NotImplementedError

    def _restart(self, seed: int | None = None) -> None:
        raise NotImplementedError

    def _figures(self) -> list[tuple[str, str]]:
        return []

    def _qpos(self) -> np.ndarray:
        sim = self.simulator
        return np.concatenate([sim.root_pos[0], sim.root_quat[0], sim.joint_pos[0]]).astype(float)

    def _play_event(self, event: Event) -> None:
        if event.what == "command":
            self.keyboard.jump(event.values)
        elif event.what == "goal":
            self.want_goal(*event.values)
        elif event.what == "push":
            self._pushes.append((event.values[0], event.values[1]))
        else:
            self.keyboard.asked.add(event.what)

    def _push(self, speed: float, direction: float) -> None:
        """Push the robot by `speed`, m/s, towards `direction`, deg to the left of its heading."""
        angle = float(quat_yaw(self.simulator.root_quat)[0]) + math.radians(direction)
        velocity = speed * np.array([[math.cos(angle), math.sin(angle), 0.0]])
        self.simulator.push(np.array([0]), velocity, np.zeros((1, 3)))
        self._say(f"pushed: {speed:.2f} m/s, {direction:+.0f} degrees left of its heading")

    def _lie(self, fell: bool, over: bool) -> None:
        """Report a fall, and begin again a second after it or when the episode is over."""
        if fell and self._fell_at is None:
            self._fell_at, self.falls = self.ticks, self.falls + 1
            self._say("fell")
        lain = self._fell_at is not None and self.ticks - self._fell_at >= SECOND
        if lain or over or self.simulator.diverged()[0]:
            self._restart()
            self._say("begins again")

    def _say(self, text: str) -> None:
        self._said = (self.ticks, text)
        self._report(f"{self.time_s:7.2f} s  {text}")


class Play(Game):
    """A diffusion model that is guided."""

    def __init__(
        self, model: GuidedModel, config: Config, script: Iterable[Event] = (), *,
        report: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        """A robot that has been put into its start; `report` gets a line for what happens to it."""
        super().__init__(config, script, report)
        task = config.task or "joystick"
        drives = {name: tuple(values) for name, values in model.drives.items()}
        settings: dict[str, Any] = dict(
            warm_up_s=WARM_UP_S, start_motions=START_MOTIONS, actuation=ActuationConfig(**drives),
        )  # fmt: skip
        if task != "composition":
            settings["episode_s"] = DAY
        if task == "joystick":
            settings["segment_s"] = DAY  # one command, which keys and scripts change
        self.env = GuidedVectorEnv(
            1, task, config=config_class(task)(**settings), backend=config.backend,
            autoreset_mode="disabled", threads=1,
        )  # fmt: skip
        self.task = self.env.task
        self._controller = Controller(model, 1, seed=config.seed, method=config.method)
        self._own: OwnCost | None = None
        if config.cost is not None:
            self._own = OwnCost(load_cost(config.cost), model, 1, config.cost_strength)
        steering = steering_for(model, config.steering, config.strength)
        self._pilot = Pilot(self.task, model, steering, self._own)
        self.ticks = -self.task.config.warm_up_steps
        self._said = (self.ticks, "")
        self._motion: deque[np.ndarray] = deque(maxlen=SECOND)
        self._restart(config.seed)

    @property
    def simulator(self) -> Simulator:
        return self.task.simulator

    def scene(self) -> tuple[np.ndarray, None, Decor]:
        """See `Game.scene`."""
        return self._qpos(), None, Decor(**self.task.shown(0))

    def goal(self) -> np.ndarray | None:
        """See `Game.goal`."""
        task = self.task
        if not isinstance(task, WaypointTask) or isinstance(task, CompositionTask):
            return None
        return task.goal[0] if np.isfinite(task.goal).all() else None

    def close(self) -> None:
        """See `Game.close`."""
        self.env.close()
        if self._own is not None:
            self._own.conclude()

    def _step(self, azimuth: float) -> None:
        self._want(azimuth)
        self._controller.guide = self._pilot.guide()
        action = self._controller.act(self.task.robots.states())
        self._pilot.observe(self._controller.sample)
        for push in self._pushes:  # now, so that they come unseen, as in the benchmark
            self._push(*push)
        self._pushes.clear()
        *_, truncated, figures = self.env.step(action)
        self.ticks += 1
        self._motion.append(self._velocity())
        self._look(figures, bool(truncated[0]))

    def _figures(self) -> list[tuple[str, str]]:
        task = self.task
        rows: list[tuple[str, str]] = []
        if task.clock[0] < 0:
            rows.append(("wanted", "nothing yet: warm-up"))
        elif isinstance(task, CommandedTask) and not self._on_way():
            forward, left, rate = task.command()[0]
            aside = f", {left:+.2f} m/s left" if left else ""
            rows.append(("command", f"{forward:+.2f} m/s{aside}, {rate:+.2f} rad/s"))
        elif isinstance(task, WaypointTask):
            away = np.linalg.norm(task.goal[0] - task.simulator.root_pos[0, :2])
            rows.append(("goal", f"{away:.2f} m away"))
        if self._own is not None and np.isfinite(self._own.value[0]):
            rows.append((self._own.name, f"{self._own.value[0]:.3g} as planned"))
        forward, _, rate = np.mean(self._motion, 0) if self._motion else np.zeros(3)
        return [*rows, ("measured", f"{forward:+.2f} m/s, {rate:+.2f} rad/s")]

    def _restart(self, seed: int | None = None) -> None:
        self.env.reset(seed=seed)
        self._controller.reset(self.task.robots.states())
        self._motion.clear()
        self._fell_at = None
        self._had: set[str] = set()  # events of this goal that were reported

    def _want(self, azimuth: float) -> None:
        """Pass the command or the goal on to the task."""
        task, keys = self.task, self.keyboard
        if isinstance(task, JoystickTask):
            task.set_command(keys.ramp())
        elif isinstance(task, WaypointTask) and not isinstance(task, CompositionTask):
            if keys.take("stop"):
                self._goal = task.simulator.root_pos[0, :2].astype(float)
            if keys.shift.any() and np.isfinite(task.goal).all():
                self._goal = task.goal[0] + keys.take_shift(azimuth)
            if self._goal is not None:
                task.set_goal(self._goal)

    def _on_way(self) -> bool:
        """Whether it is in the last phase of a composition."""
        return isinstance(self.task, CompositionTask) and bool(self.task.on_way()[0])

    def _velocity(self) -> np.ndarray:
        """m/s forward and left of the heading, and rad/s left. `[3]`."""
        return self.task.own_motion()[0]

    def _look(self, figures: dict[str, np.ndarray], over: bool) -> None:
        """Report what happened in the last step, and begin again some time after a fall."""
        arrived = bool(np.isfinite(figures.get("arrived_s", np.inf)).all())
        if not arrived:
            self._had.discard("arrival")  # the goal was moved
        self._once("arrival", arrived, "at the goal")
        self._once("touch", bool(np.any(figures.get("touched", False))), "touches an obstacle")
        self._lie(bool(figures["fell_strict"][0]), over)

    def _once(self, name: str, happens: bool, text: str) -> None:
        if happens and name not in self._had:
            self._had.add(name)
            self._say(text)


class Tracking(Game):
    """A tracker that follows a motion over and over, undisturbed but for pushes."""

    def __init__(
        self, policy: Policy, clip: Clip, config: Config, script: Iterable[Event] = (), *,
        report: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        """A robot at the motion's start; `report` gets a line for what happens to it."""
        super().__init__(config, script, report)
        self.clip = clip
        task = evaluation.protocol_task(policy, "clip", failure_rules=False)
        self.env = TrackVectorEnv(
            1, clip, config=task, backend=config.backend, autoreset_mode="disabled",
            critic="none", threads=1,
        )  # fmt: skip
        self._act = evaluation.in_project_order(policy)
        self._reference = clip.qpos()
        self._restart(config.seed)

    @property
    def simulator(self) -> Simulator:
        return self.env.simulator

    def scene(self) -> tuple[np.ndarray, np.ndarray, Decor]:
        """See `Game.scene`; the ghost is the reference."""
        return self._qpos(), self._reference[self.env.task.frame[0]], Decor()

    def close(self) -> None:
        """See `Game.close`."""
        self.env.close()

    def _step(self, azimuth: float) -> None:
        action = self._act(self._obs)
        for push in self._pushes:  # now, so that they come unseen
            self._push(*push)
        self._pushes.clear()
        self.keyboard.asked.discard("stop")  # which it cannot
        self._obs, _, terminated, truncated, _ = self.env.step(action)
        self.ticks += 1
        self._lie(bool(evaluation.has_fallen(self.env)[0]), bool((terminated | truncated)[0]))

    def _figures(self) -> list[tuple[str, str]]:
        frame, errors = int(self.env.task.frame[0]), self.env.task.tracking_errors()
        return [
            ("motion", f"{frame / self.clip.fps:.1f} of {self.clip.duration_s:.1f} s"),
            ("MPKPE", f"{errors['mpkpe_m'][0] * 1000:.0f} mm"),
            ("joints", f"{errors['joint_pos_rad'][0]:.3f} rad off"),
        ]

    def _restart(self, seed: int | None = None) -> None:
        self._obs, _ = self.env.reset(seed=seed)
        self._fell_at = None


# --- in a window or on a page ---------------------------------------------------------------------


def watch(play: Game, window: Window | PageWindow) -> None:
    """Play in a window or on a page, in real time or slower, until it is shut or time is over."""
    config, keyboard = play.config, play.keyboard
    due, drawn, text_shown = time.perf_counter(), -math.inf, -math.inf
    ended: deque[float] = deque(maxlen=SECOND + 1)  # when the last ticks did
    while window.is_running() and play.time_s < config.duration_s:
        for key in window.keys():
            keyboard.press(key)
        window.drive(play)
        if keyboard.paused:
            ended.clear()
        else:
            play.tick(window.azimuth)
            ended.append(time.perf_counter())
        now = time.perf_counter()
        if now - drawn >= 1 / config.fps - 0.5 * CONTROL_DT:
            drawn = now
            window.sync(*play.scene())
        if now - text_shown >= 0.2:
            text_shown = now
            wall = ended[-1] - ended[0] if len(ended) > 1 else math.inf
            factor = max(len(ended) - 1, 0) * CONTROL_DT / wall
            paused = [("", "paused")] if keyboard.paused else []
            window.tell([*play.rows(factor), *paused])
        # A short delay is made up for. A longer one is not, so that nothing is skipped or hurried.
        now = time.perf_counter()
        due = max(due + CONTROL_DT, now - CATCH_UP_S)
        time.sleep(max(due - now, 0.0))


# --- into files -----------------------------------------------------------------------------------


def record(play: Game, model: ModelConfig) -> None:
    """Play without a window, into a video, a strip or both."""
    config = play.config
    total = round(config.duration_s / CONTROL_DT)
    shares = (np.arange(config.strip_frames) + 0.5) / config.strip_frames
    in_strip = [round(share * total) for share in shares] if config.strip is not None else []
    strip: list[np.ndarray] = []
    # Pictures of a strip are too far apart for a camera that lags behind.
    smoothing = camera_smoothing(config.fps) if config.video is not None else 0.0
    spent: list[float] = []

    def pictures() -> Iterator[np.ndarray]:
        """Those of the video; those of the strip are put aside."""
        made = 0
        with OffscreenRenderer(
            model, width=config.width, height=config.height, view=config.view,
            smoothing=smoothing, antialias=not config.fast, shadows=not config.fast,
        ) as renderer:  # fmt: skip
            while True:
                tick = play.ticks
                in_video = (
                    config.video is not None
                    and tick >= 0
                    and tick * config.fps * CONTROL_DT >= made
                )
                if in_video or tick in in_strip:
                    picture = renderer.render(*play.scene())
                    strip.extend([picture] * in_strip.count(tick))
                    if in_video:
                        made += 1
                        yield picture
                if tick == total:
                    return
                play.tick()
                spent.append(play.tick_s[-1])
                if play.ticks > 0 and play.ticks % SECOND == 0:
                    print(", ".join(" ".join(row).strip() for row in play.rows(play.factor())))

    if config.video is not None:
        codec = cli.write_video(config.video, pictures(), config.fps)
    else:
        codec = ""
        for _ in pictures():
            pass
    falls = f"{play.falls} fall{'s' * (play.falls != 1)}"
    factor = CONTROL_DT / max(float(np.mean(spent)), 1e-9)
    print(f"{config.duration_s:g} s with {falls}, {factor:.2f} x real time without the drawing")
    if config.video is not None:
        print(f"video in {config.video} ({codec})")
    if config.strip is not None:
        write_strip(config.strip, strip)
        seconds = ", ".join(f"{tick * CONTROL_DT:g}" for tick in in_strip)
        print(f"strip in {config.strip} (at {seconds} s)")


def write_strip(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """Write pictures `[H, W, 3]` uint8 as one PNG, side by side with white lines between."""
    try:
        import imageio.v3 as imageio
    except ImportError as error:
        raise ConfigError(
            "A strip needs the package imageio: pip install 'bm-envs[viz]'."
        ) from error
    line = np.full((len(pictures[0]), max(1, len(pictures[0]) // 120), 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (line, picture)][1:]
    with cli.atomic_path(path) as temporary:
        imageio.imwrite(temporary, np.concatenate(parts, 1), extension=".png")


def is_tracker(reference: str) -> bool:
    """Whether it is a tracker's file and not a diffusion model's; of the Hub's: no."""
    known = Path(reference).exists() or reference in shipped_policies()
    return known and kind_of(reference, expected=DIFFUSION) is TRACKER


def make_game(config: Config, script: Sequence[Event]) -> Game:
    """Load what is to be played, and say so."""
    if config.task == "track":
        if config.cost is not None:
            raise ConfigError(f"cost is '{config.cost}', but a tracker is not steered by costs.")
        policy = load_policy(config.policy)
        check_is_of_g1(policy, "the games")
        clip = (
            library.load_motion(config.motion)
            if config.motion
            else evaluation.motions_of(policy)[0]
        )
        print(
            f"policy {policy.name}, motion {clip.name} ({clip.duration_s:.2f} s, {clip.licence}), "
            f"backend {config.backend}, seed {config.seed}",
            flush=True,
        )
        return Tracking(policy, clip, config, script)
    model = load_model(config.policy, threads=config.threads or cli.available_cores())
    print(
        f"model {model.name} ({model.representation.name}), task {config.task}, sampler "
        f"{config.sampler}, backend {config.backend}, seed {config.seed}",
        flush=True,
    )
    return Play(model, config, script)


def main(config: Config) -> None:
    """Open the window, serve the page, or write the pictures."""
    if config.in_window and not config.web and not has_display():
        raise ConfigError(
            "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); "
            "play in the browser with --web, or draw: --video out.mp4 or --strip out.png."
        )
    for flag, path in (("video", config.video), ("strip", config.strip)):
        if path is not None and path.is_dir():
            raise ConfigError(f"{path} is a folder, expected the name of a file for --{flag}.")
    if config.task is None:
        tracker = config.motion is not None or is_tracker(config.policy)
        config = dataclasses.replace(config, task="track" if tracker else "joystick")
    task: Task = config.task or "joystick"
    script: list[Event] = []
    if config.script is not None:
        try:
            text = config.script.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{config.script}: cannot be read ({error}).") from error
        script = parse_script(text, str(config.script), task)
    elif not config.in_window:
        script = default_script(task, config.duration_s)
    look = ModelConfig(visuals=True, mesh_dir=config.mesh_dir)
    if config.web:
        pages.check(config.port)  # before the network is loaded
    play = make_game(config, script)
    try:
        if config.web:
            page = pages.Page(look, port=config.port, title="bm-envs play", view=config.view)
            with contextlib.closing(PageWindow(page, play.keyboard, DRIVES.get(task))) as window:
                print(f"page on {page.url} (Ctrl-C ends it)", flush=True)
                if config.open:
                    webbrowser.open(page.url)
                watch(play, window)
        elif config.in_window:
            with contextlib.closing(Window(look, config.view)) as window:
                watch(play, window)
        else:
            record(play, look)
    finally:
        play.close()


if __name__ == "__main__":
    cli.run(main, Config)
