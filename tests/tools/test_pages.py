"""The pages of `tools/replay.py` and `tools/play.py` in a real browser, as people use them.

Needs Chromium (Debian: `apt-get install chromium`) and the packages viser and playwright; WebGL is
drawn by the processor.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 150.0  # s; the browser draws on a processor that may be busy
# A gamepad that does what the test says, in the browser's own interface.
GAMEPAD = """
window.padState = null;
navigator.getGamepads = () => [window.padState];
"""
PLAY = f"""
import sys
sys.path[:0] = [{str(ROOT / "tools")!r}, {str(ROOT / "algos")!r}, {str(ROOT / "tests")!r}]
import collect_rollouts, play
from bm_envs import cli
from bm_envs.policy import load_policy
from stand_in_model import Model, still

drives = collect_rollouts.drives_of(load_policy("walk"))
play.load_model = lambda name, threads: Model(drives, still(0.0))
play.WARM_UP_S = 0.1
cli.run(play.main, play.Config)
"""


def environment():
    return {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}


@pytest.fixture(scope="module")
def browser(chromium):
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    return chromium


class Served:
    """A command that serves a page, and what it prints."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        self.lines, self.url = [], None
        ready = threading.Event()

        def read():
            for line in self.process.stdout:
                self.lines.append(line.rstrip())
                if found := re.fullmatch(r"page on (http://127\.0\.0\.1:\d+) .*", line.rstrip()):
                    self.url = found[1]
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        ready.wait(PATIENCE)
        assert self.url is not None, self.process.stderr.read()

    def end(self):
        """Ctrl-C; returns what it said as errors."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 130
        return errors


@contextlib.contextmanager
def opened(browser, *command):
    """The command and its page, drawn."""
    served = Served(*command)
    view = browser.new_page(viewport={"width": 900, "height": 700})
    faults = []
    try:
        view.set_default_timeout(PATIENCE * 1000)
        view.on("pageerror", lambda error: faults.append(str(error)))
        view.add_init_script(GAMEPAD)
        view.goto(served.url)
        view.wait_for_selector("canvas")
        yield served, view
        assert not faults
        assert served.end() == "interrupted\n"
    finally:
        view.close()
        served.process.kill()


def picture(view):
    """What is seen, without the panel on its right. `[H, W, 3]`."""
    import imageio.v3 as imageio

    return imageio.imread(view.screenshot(timeout=PATIENCE * 1000))[:, :540, :3].astype(int)


def green(view):
    """Pixels that the ghost has coloured."""
    r, g, b = np.moveaxis(picture(view), -1, 0)
    return int(((g > r + 25) & (g > b + 15)).sum())


def until(view, condition):
    """Wait until something holds of the page."""
    for _ in range(int(PATIENCE * 2)):
        if condition():
            return
        view.wait_for_timeout(500)
    raise AssertionError("it never came")


def beside(view, label):
    """The field to the right of a label of the panel."""
    return view.locator(f"xpath=//label[.='{label}']/following::input[1]")


def test_replay_in_a_browser(browser):
    with opened(browser, "tools/replay.py", "--motion", "walk[2:4]", "--policy", "walk", "--web",
                "--port", 0) as (served, view):  # fmt: skip
        assert served.lines[0] == "motion walk[2:4] (2.00 s, Apache-2.0), policy walk"
        until(view, lambda: green(view) > 300)  # drawn, with the ghost
        assert picture(view).std() > 15
        # Stand still by a key, scrub, and take a frame: the moment told is the one asked for.
        view.keyboard.press("Space")
        view.get_by_role("button", name="Play", exact=True).wait_for()
        moment = beside(view, "time, s")
        slider = view.get_by_role("slider").first
        slider.focus()
        slider.press("Home")
        until(view, lambda: float(moment.input_value()) == 0.0)
        view.get_by_text("+10", exact=True).click()
        until(view, lambda: float(moment.input_value()) == pytest.approx(0.2))
        text = view.locator("body").inner_text()
        assert re.search(r"MPKPE\s+\d+ mm", text)
        assert "right_wrist_yaw" in text and "survived 2.00 of 2.00 s" in text
        beside(view, "reference").click(force=True)
        until(view, lambda: green(view) < 30)  # the ghost is gone
        # Another motion from the list, by its name: the policy of the command line follows it.
        beside(view, "motion").click()
        view.get_by_role("option", name="stand", exact=True).click()
        until(view, lambda: any(line.startswith("motion stand (") for line in served.lines))


def test_play_in_a_browser(browser):
    with opened(browser, "-c", PLAY, "--policy", "x", "--sampler", "2", "--web",
                "--port", 0) as (served, view):  # fmt: skip
        until(view, lambda: "x" in view.locator("tr", has_text="real time").inner_text())
        assert picture(view).std() > 10
        view.get_by_role("button", name="Push", exact=True).click()
        until(view, lambda: any("pushed: 0.50 m/s" in line for line in served.lines))
        forward = beside(view, "forward, m/s")
        view.keyboard.press("i")
        until(view, lambda: float(forward.input_value()) == pytest.approx(0.1))
        # A stick to the front, a button, and let go.
        state = "({connected: true, id: 'pad', axes: [0, %s], buttons: [{pressed: %s}]})"
        view.evaluate("window.padState = " + state % (-1, "true"))
        until(view, lambda: float(forward.input_value()) == pytest.approx(0.6))
        until(view, lambda: sum("pushed: " in line for line in served.lines) == 2)
        view.evaluate("window.padState = " + state % (0, "false"))
        until(view, lambda: float(forward.input_value()) == 0.0)
        view.get_by_role("button", name="Pause", exact=True).click()
        view.get_by_role("button", name="Go on", exact=True).wait_for()
        view.keyboard.press("Enter")
        view.get_by_role("button", name="Pause", exact=True).wait_for()


@pytest.mark.parametrize(
    "command",
    [("tools/replay.py", "--motion", "stand"), ("tools/play.py", "--policy", "no_such_model")],
)
def test_a_taken_port_ends_a_command_with_2_and_one_line(command):
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, *command, "--web", "--port", str(port)], capture_output=True,
            text=True, cwd=ROOT, timeout=PATIENCE, env=environment(),
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is taken; name another with --port (0: any that is "
        "free).\n"
    )
