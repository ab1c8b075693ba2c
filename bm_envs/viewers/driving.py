"""Windows in which a person drives the robot: keys, a gamepad, and a page with sliders.

`Keyboard` adds up what keys, sticks and buttons ask for. `Window` is MuJoCo's window and
`PageWindow` a page in the browser; both read keys and show text, and neither knows how the robot is
controlled. One file because the two windows answer to the same keys.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import mujoco
import numpy as np

from bm_envs.robots.mjcf import ModelConfig
from bm_envs.viewers import panels
from bm_envs.viewers.page import Page
from bm_envs.viewers.scene import FAR_VIEW, Decor, View
from bm_envs.viewers.window import HumanViewer

PUSH_SPEED = 0.5  # m/s, the strongest push of arXiv 2508.08241, sec. V
# Key codes are GLFW's, which for letters are those of the capital.
KEYS = {
    265: "ahead", ord("I"): "ahead", 264: "back", ord("K"): "back",
    263: "left", ord("J"): "left", 262: "right", ord("L"): "right",
    ord(" "): "stop", ord("P"): "push", ord("R"): "reset", 257: "pause",
}  # fmt: skip
FORWARD_STEP, TURN_STEP, GOAL_STEP = 0.1, 0.25, 0.25  # m/s, rad/s and m that one press adds
GOAL_SPEED = 1.0  # m/s, speed of the goal while a stick is held all the way
DEAD_ZONE = 0.15  # share of a stick's way that is ignored: sticks do not rest at zero
PAD_KEYS = (ord("P"), ord(" "), 257, ord("R"))  # keys that the buttons A, B, X and Y stand for
# Change of the command in a second, m/s^2 and rad/s^2: from no turn to the sharpest takes half a
# second, from standing to the fastest walk one second.
RAMP = np.array([0.6, 0.6, 1.0])


class Driven(Protocol):
    """A robot that is driven, as far as a window knows it."""

    keyboard: Keyboard

    def want_goal(self, x: float, y: float) -> None:
        """Ask for another goal, at x and y in the world, m."""

    def goal(self) -> np.ndarray | None:
        """The goal that can be moved, in the world, m. `[2]`."""

    def feet(self) -> np.ndarray:
        """Whether the left and the right foot press on the floor. `[2]`."""
        ...


class Keyboard:
    """What keys ask for.

    Args:
        forward: slowest and fastest command forward, m/s.
        turn: the sharpest turns to the right and to the left, rad/s.
        control_dt: time between control steps, s.

    Attributes:
        forward, turn, control_dt: as they were given.
        target: the command that the keys add up to, m/s forward and left, rad/s left. `[3]`.
        command: the command of the present step, which `ramp` brings nearer to `target`. `[3]`.
        shift: how far the goal is to move, m, away from the viewer and to the left. `[2]`.
        asked: those of `stop`, `push` and `reset` that are not done yet.
        paused: whether time stands still.
        push_speed: change of the root's velocity by a push, m/s.
    """

    def __init__(
        self, forward: tuple[float, float], turn: tuple[float, float], control_dt: float
    ) -> None:
        self.forward, self.turn, self.control_dt = forward, turn, control_dt
        self.target, self.command = np.zeros(3), np.zeros(3)
        self.shift = np.zeros(2)
        self.asked: set[str] = set()
        self.paused = False
        self.push_speed = PUSH_SPEED
        self._held, self._buttons = False, 0

    def press(self, key: int) -> None:
        """A key went down, or repeats. Keys without a meaning are ignored."""
        name = KEYS.get(key)
        way = {"ahead": (1, 0), "back": (-1, 0), "left": (0, 1), "right": (0, -1)}.get(name or "")
        if way is not None:
            self.shift += GOAL_STEP * np.array(way)
            forward = self.target[0] + FORWARD_STEP * way[0]
            turn = self.target[2] + TURN_STEP * way[1]
            # The sums are rounded, so that as many steps back end at zero.
            self.target[0] = round(min(max(forward, self.forward[0]), self.forward[1]), 6)
            self.target[2] = round(min(max(turn, self.turn[0]), self.turn[1]), 6)
        elif name == "pause":
            self.paused = not self.paused
        elif name is not None:
            self.asked.add(name)
            if name == "stop":
                self.target[:] = 0.0

    def gamepad(self, state: tuple[tuple[float, float], int] | None) -> None:
        """Take the state of a gamepad in a control step.

        Args:
            state: the left stick, right and down in [-1, 1], and the buttons A, B, X and Y as bits
                0 to 3. None: there is no gamepad, or no longer one.
        """
        (right, down), buttons = state or ((0.0, 0.0), 0)
        held = math.hypot(right, down) > DEAD_ZONE
        if held:
            ahead = -down
            slowest, fastest = self.forward
            self.target[:] = ahead * fastest if ahead > 0 else -ahead * slowest, 0.0, 0.0
            self.target[2] = -right * self.turn[1]
            self.shift += GOAL_SPEED * self.control_dt * np.array([ahead, -right])
        elif self._held:  # the stick was let go of in this step
            self.target[:] = 0.0
        for number, key in enumerate(PAD_KEYS):
            if buttons & ~self._buttons & 1 << number:
                self.press(key)
        self._held, self._buttons = held, buttons

    def ramp(self) -> np.ndarray:
        """The command of the coming control step, nearer to the target. `[3]`, a copy."""
        step = RAMP * self.control_dt
        self.command += np.clip(self.target - self.command, -step, step)
        return self.command.copy()

    def jump(self, command: Sequence[float]) -> None:
        """Take this command at once, without a ramp."""
        self.target[:] = self.command[:] = command

    def take(self, name: str) -> bool:
        """Whether `name` is asked for; afterwards it is not."""
        asked = name in self.asked
        self.asked.discard(name)
        return asked

    def take_shift(self, azimuth: float) -> np.ndarray:
        """How far the goal is to move, in the world, m. `[2]`; afterwards it is zero.

        Args:
            azimuth: where the viewer looks over the ground, deg.
        """
        cos, sin = math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth))
        away, left = self.shift
        self.shift = np.zeros(2)
        return np.array([cos * away - sin * left, sin * away + cos * left])


HELP = (
    ("arrows, I K J L", "drive, or move the goal"), ("space", "stop"), ("P", "push"),
    ("R", "begin again"), ("Enter", "pause"),
)  # fmt: skip


class Window(HumanViewer):
    """MuJoCo's window, with keys and text."""

    def __init__(self, model: ModelConfig, view: View = FAR_VIEW) -> None:
        self._pressed: deque[int] = deque()  # the window's thread appends, ours reads
        super().__init__(model, view=view, on_key=self._pressed.append)
        with self._handle.lock():
            self._looks = self._handle.opt.flags.copy(), self._handle.user_scn.flags.copy()

    @property
    def azimuth(self) -> float:
        """Where the viewer looks over the ground, deg."""
        return float(self._handle.cam.azimuth)

    def drive(self, driven: Driven) -> None:
        """Take what is asked for by a gamepad."""
        driven.keyboard.gamepad(read_gamepad())

    def keys(self) -> Iterator[int]:
        """Keys that were pressed and not yet read."""
        while self._pressed:
            yield self._pressed.popleft()

    def tell(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show names and values, and what keys do."""
        if not self.is_running():
            return
        place, font = mujoco.mjtGridPos, mujoco.mjtFontScale.mjFONTSCALE_150
        self._handle.set_texts([
            (font, where, *("\n".join(column) for column in zip(*table, strict=True)))
            for where, table in ((place.mjGRID_TOPLEFT, rows), (place.mjGRID_BOTTOMLEFT, HELP))
        ])  # fmt: skip

    def sync(
        self, qpos: np.ndarray, ghost_qpos: np.ndarray | None = None, decor: Decor | None = None
    ) -> None:
        """See `HumanViewer.sync`."""
        if not self.is_running():
            return
        # The letters that drive also switch how the viewer draws (J joints, L additive colours,
        # ...), which cannot be turned off: switch it back.
        vis, rnd = mujoco.mjtVisFlag, mujoco.mjtRndFlag
        with self._handle.lock():
            for flags, before, ours in (
                (self._handle.opt.flags, self._looks[0],
                 [vis.mjVIS_INERTIA, vis.mjVIS_JOINT, vis.mjVIS_CONTACTSPLIT]),
                (self._handle.user_scn.flags, self._looks[1],
                 [rnd.mjRND_SKYBOX, rnd.mjRND_ADDITIVE, rnd.mjRND_REFLECTION]),
            ):  # fmt: skip
                for flag in map(int, ours):
                    flags[flag] = before[flag]
        super().sync(qpos, ghost_qpos, decor)


def read_gamepad() -> tuple[tuple[float, float], int] | None:
    """The first gamepad that GLFW knows, as `Keyboard.gamepad` takes it; None: there is none."""
    import glfw

    for number in range(glfw.JOYSTICK_LAST + 1):
        state = glfw.get_gamepad_state(number) if glfw.joystick_is_gamepad(number) else None
        if state:
            x, y = state.axes[glfw.GAMEPAD_AXIS_LEFT_X], state.axes[glfw.GAMEPAD_AXIS_LEFT_Y]
            names = (glfw.GAMEPAD_BUTTON_A, glfw.GAMEPAD_BUTTON_B, glfw.GAMEPAD_BUTTON_X,
                     glfw.GAMEPAD_BUTTON_Y)  # fmt: skip
            return (x, y), sum(1 << i for i, name in enumerate(names) if state.buttons[name])
    return None


class PageWindow:
    """A page in the place of the window, with sliders, buttons and keys.

    What people do there arrives in viser's threads; `keys` and `drive` take it to the robot.

    Args:
        page: the page, without any panel yet.
        keyboard: its ranges become those of the sliders.
        drives: what sliders set: the robot's command, the place of its goal, or nothing.
    """

    def __init__(
        self, page: Page, keyboard: Keyboard, drives: Literal["command", "goal"] | None
    ) -> None:
        self.page = page
        self._pressed: deque[int] = deque()
        self._requests: deque[tuple[str, float, float]] = deque()
        self._feet = np.zeros(2, bool)
        gui, press = page.server.gui, self._pressed.append
        self._text = gui.add_html("")
        self._sliders: dict[str, tuple[Any, Any]] = {}
        # The values that the sliders were last set to.
        self._shown: dict[str, tuple[float, ...]] = {}
        if drives == "command":
            forward, turn = keyboard.forward, keyboard.turn
            with gui.add_folder("command"):
                self._pair(
                    "command", ("forward, m/s", *forward, 0.05), ("turn, rad/s", *turn, 0.05)
                )
        elif drives == "goal":
            with gui.add_folder("goal"):
                self._pair("goal", ("x, m", -10.0, 10.0, 0.05), ("y, m", -10.0, 10.0, 0.05))
            page.on_ground(lambda x, y: self._requests.append(("goal", x, y)))
        self._strength = gui.add_slider("push, m/s", 0.0, 2.0, 0.05, PUSH_SPEED)
        names = [("Push", "P", ord("P")), ("Pause", "enter", 257), ("Begin again", "R", ord("R"))]
        if drives is not None:
            names.insert(1, ("Stop", "space", ord(" ")))
        for label, key, code in names:
            button = gui.add_button(label, hint=f"Key: {key}")
            button.on_click(lambda event, code=code: press(code))
            if label == "Pause":
                self._pause = button
            gui.add_command(label, hotkey=key).on_trigger(lambda event, code=code: press(code))
        self._gamepad = None
        if self._sliders:
            self._gamepad = panels.PageGamepad(page)
            for label, key in (("Ahead", "I"), ("Back", "K"), ("Left", "J"), ("Right", "L")):
                command = gui.add_command(label, hotkey=key)
                command.on_trigger(lambda event, code=ord(key): press(code))

    def _pair(self, what: str, *settings: tuple[str, float, float, float]) -> None:
        """Two sliders that set the two numbers of `what`."""
        gui = self.page.server.gui
        first, second = (
            gui.add_slider(label, low, high, step, 0.0) for label, low, high, step in settings
        )
        self._sliders[what] = first, second

        # viser calls a coroutine before it takes the next message, so that the values read here are
        # those that were sent.
        async def moved(event: Any) -> None:
            values = [float(first.value), float(second.value)]
            # An event without a client comes from `tell`.
            if event.client is not None and np.isfinite(values).all():
                clipped = np.clip(values, [first.min, second.min], [first.max, second.max])
                self._requests.append((what, float(clipped[0]), float(clipped[1])))

        first.on_update(moved)
        second.on_update(moved)

    @property
    def azimuth(self) -> float:
        """Where the viewer looks over the ground, deg."""
        return self.page.azimuth

    def is_running(self) -> bool:
        return True

    def keys(self) -> Iterator[int]:
        """Keys and buttons that were pressed and not yet read."""
        while self._pressed:
            yield self._pressed.popleft()

    def drive(self, driven: Driven) -> None:
        """Take what is asked for by sliders, clicks and a gamepad."""
        while self._requests:
            what, first, second = self._requests.popleft()
            if what == "goal":
                driven.want_goal(first, second)
            else:
                driven.keyboard.target[:] = first, 0.0, second
        speed = float(self._strength.value)
        if 0 <= speed <= self._strength.max:
            driven.keyboard.push_speed = speed
        if self._gamepad is not None:
            driven.keyboard.gamepad(self._gamepad.read())
        self._feet = driven.feet()
        self._place = driven.goal()
        self._target = driven.keyboard.target.copy()
        self._paused = driven.keyboard.paused

    def sync(self, qpos: np.ndarray, ghost: np.ndarray | None, decor: Decor) -> None:
        self.page.show(qpos, ghost, decor, feet=tuple(self._feet))

    def tell(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show names and values, and move the sliders to the present command or goal."""
        self._text.content = panels.table(rows)
        label = "Go on" if self._paused else "Pause"
        if self._pause.label != label:
            self._pause.label = label
        for what, (first, second) in self._sliders.items():
            values = self._place if what == "goal" else self._target[[0, 2]]
            # Only sliders whose value changed are set: one that a person moves would be set back.
            if values is not None and tuple(values) != self._shown.get(what):
                self._shown[what] = tuple(values)
                first.value, second.value = (
                    min(max(round(float(value), 2), slider.min), slider.max)
                    for value, slider in zip(values, (first, second), strict=True)
                )

    def close(self) -> None:
        """Stop serving."""
        self.page.close()
