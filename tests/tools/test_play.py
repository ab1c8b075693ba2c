"""`tools/play.py`: keys, scripts, one robot's play, its pictures, its window, and refusals."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import warm_python
from scipy.spatial.transform import Rotation
from stand_in_model import Model, still

from bm_envs import cli
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.motion.library import load_motion
from bm_envs.policy import load_policy
from bm_envs.robots import g1
from bm_envs.tasks.guided.config import JoystickConfig
from bm_envs.viewers import driving

ROOT = Path(__file__).resolve().parents[2]
for folder in ("algos", "tools"):
    sys.path.insert(0, str(ROOT / folder))
play = importlib.import_module("play")
collect = importlib.import_module("collect_rollouts")

UP, DOWN, LEFT, RIGHT, ENTER = 265, 264, 263, 262, 257  # GLFW's codes
SMALL = dict(width=64, height=48, fps=10, fast=True, sampler="2", threads=1)
STANDING = np.array([0.0, 0.0, 0.76, 1.0, 0.0, 0.0, 0.0, *g1.DEFAULT_JOINT_POS])


@pytest.fixture(scope="module")
def model():
    return Model(collect.drives_of(load_policy("walk")), still(0.0))


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch):
    """5 control steps, so that the stand-in, which folds up, still stands when time begins."""
    monkeypatch.setattr(play, "WARM_UP_S", 0.1)


def error_line(function, *arguments):
    with pytest.raises(BMError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def new_keyboard():
    return play.Keyboard(play.FORWARD, play.TURN, play.CONTROL_DT)


def pressed(*keys):
    keyboard = new_keyboard()
    for key in keys:
        keyboard.press(key)
    return keyboard


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        ((UP,), [0.1, 0, 0]),
        ((ord("I"), UP), [0.2, 0, 0]),
        ((DOWN, ord("K")), [-0.2, 0, 0]),
        ((LEFT,), [0, 0, 0.25]),
        ((ord("J"), RIGHT), [0, 0, 0]),
        ((ord("L"), RIGHT, UP), [0.1, 0, -0.5]),
        ([UP] * 20, [0.6, 0, 0]),
        ([DOWN] * 20, [-0.3, 0, 0]),
        ([LEFT] * 9, [0, 0, 0.5]),
        ([RIGHT] * 9, [0, 0, -0.5]),
        ([UP] * 9 + [DOWN] * 6, [0, 0, 0]),  # exactly, in spite of tenths in binary
        ((UP, LEFT, ord(" ")), [0, 0, 0]),
        ((ord("X"), 999, UP), [0.1, 0, 0]),
    ],
)
def test_keys_add_up_to_a_command_within_limits(keys, target):
    assert pressed(*keys).target.tolist() == target


def test_limits_are_what_the_task_draws_from():
    config = JoystickConfig()
    assert (play.FORWARD, play.TURN) == (config.random_forward, config.random_yaw_rate)


def test_a_command_is_ramped():
    """0.6 m/s and 1 rad/s in a second: 0.012 m/s and 0.02 rad/s in a control step."""
    keyboard = pressed(UP, LEFT)
    assert keyboard.command.tolist() == [0, 0, 0]
    np.testing.assert_allclose(keyboard.ramp(), [0.012, 0, 0.02], rtol=1e-12)
    steps = [keyboard.ramp() for _ in range(12)]
    np.testing.assert_allclose(steps[6], [0.096, 0, 0.16], rtol=1e-12)  # the eighth
    assert steps[7][0] == 0.1 and steps[-1].tolist() == [0.1, 0, 0.25]  # 9 and 13 steps
    keyboard.press(ord(" "))
    np.testing.assert_allclose(keyboard.ramp(), [0.088, 0, 0.23], rtol=1e-12)
    for _ in range(12):
        keyboard.ramp()
    assert keyboard.command.tolist() == [0, 0, 0]
    keyboard.jump((0.6, 0.1, -0.5))
    assert keyboard.ramp().tolist() == [0.6, 0.1, -0.5]


@pytest.mark.parametrize(
    ("azimuth", "key", "way"),
    [
        (0.0, UP, (0.25, 0.0)),
        (90.0, UP, (0.0, 0.25)),  # looks along +y
        (90.0, LEFT, (-0.25, 0.0)),
        (180.0, ord("K"), (0.25, 0.0)),
        (180.0, ord("L"), (0.0, 0.25)),
    ],
)
def test_keys_move_a_goal_as_the_viewer_sees_it(azimuth, key, way):
    keyboard = pressed(key)
    np.testing.assert_allclose(keyboard.take_shift(azimuth), way, atol=1e-15)
    assert keyboard.take_shift(azimuth).tolist() == [0, 0]


def test_a_stick_is_a_command_and_moves_the_goal():
    keyboard = new_keyboard()
    keyboard.gamepad(((0.1, 0.1), 0))  # sticks do not rest at zero
    assert keyboard.target.tolist() == [0, 0, 0] and not keyboard.shift.any()
    keyboard.gamepad(((0.5, -1.0), 0))  # to the front, and half to the right
    np.testing.assert_allclose(keyboard.target, [0.6, 0, -0.25])
    keyboard.gamepad(((0.0, 1.0), 0))
    np.testing.assert_allclose(keyboard.target, [-0.3, 0, 0])
    # 1 m/s for a control step of 0.02 s each, ahead and back again, and 0.5 m/s to the right.
    np.testing.assert_allclose(keyboard.take_shift(0.0), [0.0, -0.01], atol=1e-15)
    keyboard.gamepad(((0.0, 0.0), 0))
    assert keyboard.target.tolist() == [0, 0, 0]
    keyboard.press(UP)
    for _ in range(3):
        keyboard.gamepad(None)
        keyboard.gamepad(((0.0, 0.0), 0))
    assert keyboard.target.tolist() == [0.1, 0, 0]  # what keys ask for stays
    keyboard.gamepad(((0.0, -1.0), 0))
    keyboard.gamepad(None)  # it is gone
    assert keyboard.target.tolist() == [0, 0, 0]


def test_a_button_of_a_gamepad_is_pressed_once():
    keyboard, rest = new_keyboard(), (0.0, 0.0)
    for buttons in (0b0001, 0b0001, 0b0101):
        keyboard.gamepad((rest, buttons))
    assert keyboard.asked == {"push"} and keyboard.paused
    keyboard.gamepad((rest, 0b0001))
    keyboard.gamepad((rest, 0b1110))
    assert keyboard.asked == {"push", "stop", "reset"} and not keyboard.paused


def test_the_windows_gamepad_is_the_first_that_glfw_knows(monkeypatch):
    import glfw

    buttons = [0] * 15
    buttons[glfw.GAMEPAD_BUTTON_A] = buttons[glfw.GAMEPAD_BUTTON_Y] = 1
    buttons[glfw.GAMEPAD_BUTTON_LEFT_BUMPER] = 1  # means nothing
    state = types.SimpleNamespace(axes=[0.25, -0.5, 0.9, 0.9, -1, -1], buttons=buttons)
    monkeypatch.setattr(glfw, "joystick_is_gamepad", lambda number: number == 2)
    monkeypatch.setattr(glfw, "get_gamepad_state", lambda number: state)
    assert driving.read_gamepad() == ((0.25, -0.5), 0b1001)
    monkeypatch.setattr(glfw, "joystick_is_gamepad", lambda number: False)
    assert driving.read_gamepad() is None


def test_what_was_asked_for_is_taken_once():
    keyboard = pressed(ord("P"), ord("R"), ENTER)
    assert keyboard.paused and keyboard.asked == {"push", "reset"}
    assert keyboard.take("push") and not keyboard.take("push")
    keyboard.press(ENTER)
    assert not keyboard.paused and keyboard.asked == {"reset"}


# --- scripts -------------------------------------------------------------------------------------


def test_a_script_is_read():
    text = "# drive\n0 command 0.6 0 -0.5\n\n3.5 push 0.5 90 # from the right\n 3.5 reset\n"
    assert play.parse_script(text, "s", "joystick") == [
        play.Event(0.0, "command", (0.6, 0.0, -0.5)),
        play.Event(3.5, "push", (0.5, 90.0)),
        play.Event(3.5, "reset"),
    ]
    assert play.parse_script("1 goal -3 1e0", "s", "obstacle") == [
        play.Event(1.0, "goal", (-3.0, 1.0))
    ]


def test_the_scripts_of_the_modules_text_are_scripts():
    lines = [line for line in play.__doc__.splitlines() if re.match(r"    \d\.\d ", line)]
    assert len(lines) == 4
    for task, lacks in (("joystick", "goal"), ("waypoint", "command")):
        text = "\n".join(line for line in lines if lacks not in line)
        assert len(play.parse_script(text, "s", task)) == 3


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("x push 1 0", "'x' is no second, expected a number of 0 or more."),
        ("-1 reset", "'-1' is no second, expected a number of 0 or more."),
        ("nan reset", "'nan' is no second, expected a number of 0 or more."),
        ("1 pusch 1 0", "Unknown event 'pusch'; did you mean 'push'?"),
        ("1", "Unknown event ''"),
        ("1 goal 1 2", "task 'joystick' takes no goal."),
        ("1 push 1", "push has '1', expected 2 numbers (m/s, degrees left of the heading)."),
        ("1 command 1 0 inf", "command has '1 0 inf', expected 3 numbers (m/s forward, m/s left, "),
        ("1 reset now", "reset has 'now', expected nothing more."),
        ("0.5 reset", "second 0.5 comes after second 1, expected lines in the order of time."),
    ],
)
def test_bad_lines_are_one_sentence(line, text):
    found = error_line(play.parse_script, f"1 reset\n{line}\n", "drive.txt", "joystick")
    assert found.startswith(f"drive.txt, line 2: {text}")


def test_without_a_script_joystick_plays_its_protocol():
    script = play.default_script("joystick", 14.0)
    assert [event.time_s for event in script] == [0, 3, 6, 9, 12]
    assert [event.values for event in script] == [
        (0.6, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.4, 0.0, 0.5), (0.4, 0.0, -0.5), (0.6, 0.0, 0.0)
    ]  # fmt: skip
    assert play.default_script("waypoint", 14.0) == []


# --- wanting something else of a task ------------------------------------------------------------


def guided_task(task, robots=2, **settings):
    env = GuidedVectorEnv(robots, task, autoreset_mode="disabled", threads=1, **settings)
    env.reset(seed=0, options={"qpos": STANDING})
    return env, env.task


def steps(env, count):
    for _ in range(count):
        env.step(env.task.robots.action.copy())


def test_set_command_holds_from_the_coming_step_on():
    env, task = guided_task(
        "joystick", overrides={"segment_s": 0.1, "judged_s": 0.1}, episode_s=0.3
    )
    own = np.array(task.config.commands[:3], float)
    steps(env, 6)  # one step into the second of three segments
    task.set_command(np.array([[0.1, 0.2, 0.3], [0.0, 0.0, -0.4]]))
    np.testing.assert_array_equal(task.commands[:, 0], [own[0]] * 2)
    np.testing.assert_array_equal(task.command(), [[0.1, 0.2, 0.3], [0, 0, -0.4]])
    np.testing.assert_array_equal(task.commands[0, 1:], [[0.1, 0.2, 0.3]] * 2)
    steps(env, 3)
    task.set_command([0.5, 0.0, 0.0])
    # The second segment is judged by its last command: half of 0.5 m/s, which nobody walks.
    steps(env, 1)
    assert not task.segment_passed[:, 1].any() and abs(task.segment_value[:, 1]).max() < 0.25
    np.testing.assert_array_equal(task.command(), [[0.5, 0, 0]] * 2)
    env.reset()
    np.testing.assert_array_equal(task.commands[0], own)


def test_set_command_in_the_warm_up_is_the_first_command():
    for random in (False, True):
        env, task = guided_task("joystick", warm_up_s=0.1, overrides={"random": random})
        steps(env, 1)
        task.set_command([0.2, 0.0, 0.1])
        np.testing.assert_array_equal(task.command(), np.zeros((2, 3)))
        steps(env, 4)
        np.testing.assert_array_equal(task.command(), [[0.2, 0, 0.1]] * 2)
        assert env.step(task.robots.action.copy())[-1]["command"].tolist() == [[0.2, 0, 0.1]] * 2


def test_set_goal_moves_it_and_takes_the_arrival_back():
    env, task = guided_task("waypoint")
    task.set_goal(STANDING[:2])
    steps(env, 1)
    assert task.figures()["success"].all()  # it stands where it is to be
    task.set_goal(STANDING[:2])
    assert np.isfinite(task.arrived_s).all()
    task.set_goal(np.array([STANDING[:2], [3.0, 1.0]]))
    assert np.isfinite(task.arrived_s).tolist() == [True, False]
    steps(env, 1)
    assert task.figures()["success"].tolist() == [True, False]
    np.testing.assert_array_equal(task.shown(1)["goal"], [3.0, 1.0, 0.3])


def test_set_goal_in_the_warm_up_keeps_its_place_before_obstacles():
    env, task = guided_task("obstacle", warm_up_s=0.1)
    task.set_goal([4.0, 0.0])
    steps(env, 5)
    np.testing.assert_array_equal(task.goal, [[4.0, 0.0]] * 2)
    assert (task.count >= 1).all()
    first = task.obstacles[:, 0]  # stands on the straight line to the goal
    assert (abs(first[:, 1]) <= first[:, 2]).all() and ((first[:, 0] > 0) & (first[:, 0] < 4)).all()


def test_robots_whose_episode_is_over_are_left_alone():
    for name, tell, values in (
        ("joystick", "set_command", "commands"), ("waypoint", "set_goal", "goal"),
    ):  # fmt: skip
        env, task = guided_task(name, episode_s=3.0 if name == "joystick" else 0.1)
        steps(env, task.config.episode_steps)
        before = getattr(task, values).copy()
        getattr(task, tell)(np.ones(3 if name == "joystick" else 2))
        np.testing.assert_array_equal(getattr(task, values), before)


@pytest.mark.parametrize(
    ("task", "tell", "value", "text"),
    [
        ("joystick", "set_command", [1.0, 2.0], "command has shape (2,), expected (3,) or (2, 3)."),
        ("joystick", "set_command", [1, 2, np.nan], "command holds a value that is not finite."),
        (
            "waypoint",
            "set_goal",
            np.ones((3, 2)),
            "goal has shape (3, 2), expected (2,) or (2, 2).",
        ),
        ("waypoint", "set_goal", "there", "goal is not an array of numbers."),
    ],
)
def test_bad_wishes_are_one_sentence(task, tell, value, text):
    assert error_line(getattr(guided_task(task)[1], tell), value) == text


# --- one robot -----------------------------------------------------------------------------------


def make(model, task, script=(), **settings):
    said = []
    config = play.Config(policy="x", task=task, **{**SMALL, **settings})
    return play.Play(model, config, script, report=said.append), said


def test_a_script_drives_the_robot(model):
    script = [
        play.Event(0.0, "command", (0.6, 0.0, 0.0)), play.Event(0.1, "command", (0.0, 0.1, 0.5))
    ]  # fmt: skip
    game, _ = make(model, "joystick", script)
    for _ in range(5):
        assert not game.task.command().any() and dict(game.rows(1.0))["wanted"]
        game.tick()
    assert game.time_s == 0
    assert game.task.command().tolist() == [[0.6, 0, 0]]
    for _ in range(5):
        game.tick()
        assert game.task.command().tolist() == [[0.6, 0, 0]]
    game.tick()  # the step that begins at 0.1 s
    assert game.task.command().tolist() == [[0.0, 0.1, 0.5]]
    rows = dict(game.rows(0.5))
    assert rows["command"] == "+0.00 m/s, +0.10 m/s left, +0.50 rad/s"
    assert (rows["time"], rows["real time"], rows["falls"]) == ("0.1 s", "0.50 x", "0")


def test_keys_drive_the_robot(model):
    game, said = make(model, "joystick")
    for _ in range(5):
        game.tick()
    game.keyboard.press(UP)
    game.tick()
    np.testing.assert_allclose(game.task.command(), [[0.012, 0, 0]])
    velocity = game.task.simulator.root_lin_vel[0].copy()
    game.keyboard.press(ord("P"))
    game.tick()
    # A jump of 0.5 m/s in the plane, less what a step of physics takes or adds.
    jump = game.task.simulator.root_lin_vel[0] - velocity
    assert np.hypot(*jump[:2]) == pytest.approx(0.5, abs=0.2)
    assert re.fullmatch(r" +0\.02 s  pushed: 0\.50 m/s, .*", said.pop()) and not said
    game.keyboard.press(ord("R"))
    game.tick()
    assert game.task.clock[0] == -4 and said == ["   0.04 s  begins again"] and game.falls == 0


def test_a_push_goes_where_the_script_says(model):
    game, _ = make(model, "waypoint", [play.Event(0.0, "push", (0.8, 90.0))])
    before = game._velocity()
    game.tick()
    jump = game._velocity() - before
    assert jump[1] == pytest.approx(0.8, abs=0.2) and abs(jump[0]) < 0.3


def test_keys_move_the_goal(model):
    game, said = make(model, "waypoint", [play.Event(0.0, "goal", (3.0, 1.0))])
    for _ in range(6):
        game.tick()
    assert game.task.goal.tolist() == [[3.0, 1.0]]
    game.keyboard.press(UP)
    game.tick(azimuth=90.0)
    np.testing.assert_allclose(game.task.goal, [[3.0, 1.25]])
    assert float(dict(game.rows(1.0))["goal"].split()[0]) == pytest.approx(
        np.linalg.norm(game.task.goal[0] - game.task.simulator.root_pos[0, :2]), abs=0.005
    )
    game.keyboard.press(ord(" "))
    here = game.task.simulator.root_pos[0, :2].copy()
    game.tick()
    np.testing.assert_allclose(game.task.goal, [here])
    assert not said
    # An arrival is said once, and again after the goal has moved.
    game.task.arrived_s[:] = 0.5
    for _ in range(2):
        game.tick()
    assert [line[11:] for line in said] == ["at the goal"]
    game.keyboard.press(UP)
    game.tick()
    assert np.isinf(game.task.arrived_s[0]) and len(said) == 1
    game.task.arrived_s[:] = 0.6
    game.tick()
    assert [line[11:] for line in said] == ["at the goal"] * 2


def test_a_touch_is_told_once(model):
    game, said = make(model, "obstacle")
    for _ in range(6):
        game.tick()
    assert not said
    game.task.least_clearance[:] = -0.01
    for _ in range(2):
        game.tick()
    assert [line[11:] for line in said] == ["touches an obstacle"]


def test_a_goal_that_was_asked_for_outlives_a_reset(model):
    game, _ = make(model, "obstacle", [play.Event(0.0, "goal", (4.0, 0.0))])
    for _ in range(6):
        game.tick()
    game.keyboard.press(ord("R"))
    for _ in range(6):
        game.tick()
    assert game.task.clock[0] == 1 and game.task.goal.tolist() == [[4.0, 0.0]]
    assert game.task.count[0] >= 1


def test_a_fallen_robot_lies_for_a_second_and_begins_again(model):
    """The stand-in asks for the default pose for ever, in which a walking robot falls."""
    game, said = make(model, "walk_perturb")
    while not game.falls:
        game.tick()
        assert game.ticks < 1000, "premise: it falls"
    fell = game.ticks
    assert said == [f"{fell / 50:7.2f} s  fell"]
    for _ in range(49):
        game.tick()
    assert game.task.robots.is_down().all() and len(said) == 1
    game.tick()
    assert game.task.clock[0] == -5 and not game.task.robots.is_down().any()
    assert said[1:] == [f"{fell / 50 + 1:7.2f} s  begins again"] and game.falls == 1
    assert dict(game.rows(1.0))["falls"] == "1"


def test_a_composition_plays_its_own_minute(model):
    """Keys do not change what it asks for, and its place comes after its commands."""
    game, _ = make(model, "composition")
    assert game.task.config.episode_s == play.COMPOSITION_SECONDS == 60.0
    assert play.Config(policy="x", task="composition", strip=Path("a.png")).duration_s == 60.0
    for key in (UP, LEFT, ord(" ")):
        game.keyboard.press(key)
    for _ in range(6):
        game.tick()
    assert game.task.clock[0] == 1 and not np.isfinite(game.task.goal).any()
    assert dict(game.rows(1.0))["command"] == "+0.50 m/s, +0.00 rad/s"
    game.task.clock[:] = 26 * 50 - 1
    game.tick()
    assert np.isfinite(game.task.goal).all() and dict(game.rows(1.0))["goal"].endswith(" m away")


def test_equal_seeds_are_equal_plays(model):
    def end(seed):
        game, _ = make(model, "obstacle", seed=seed)
        for _ in range(20):
            game.tick()
        return np.concatenate([game.scene()[0], game.task.goal[0]])

    first = end(1)
    np.testing.assert_array_equal(end(1), first)
    assert abs(end(2) - first).max() > 0.1


# --- a tracker -----------------------------------------------------------------------------------


def track(motion="stand[0:0.4]", script=(), **settings):
    said = []
    config = play.Config(policy="walk", task="track", **{**SMALL, **settings})
    clip = load_motion(motion)
    return play.Tracking(load_policy("walk"), clip, config, script, report=said.append), said


def test_a_tracker_follows_its_motion_over_and_over():
    game, said = track()
    for tick in range(20):
        qpos, ghost, _ = game.scene()
        np.testing.assert_allclose(ghost[7:], game.clip.joint_pos[tick], atol=1e-6)
        np.testing.assert_allclose(ghost[:3], game.clip.body_pos_w[tick, 0], atol=1e-6)
        assert np.linalg.norm(qpos[:3] - ghost[:3]) < 0.1 and not said
        game.tick()
    assert said == ["   0.40 s  begins again"]
    np.testing.assert_allclose(game.scene()[0][7:], game.clip.joint_pos[0], atol=2e-3)
    game.tick()
    rows = dict(game.rows(1.0))
    assert rows["motion"] == "0.0 of 0.4 s" and rows["falls"] == "0" and rows["time"] == "0.4 s"
    assert re.fullmatch(r"\d+ mm", rows["MPKPE"])
    assert game.feet().all() and game.goal() is None
    game.close()


def test_a_tracker_is_pushed_where_the_script_says():
    game, said = track("stand[0:2]", [play.Event(0.04, "push", (0.8, 90.0))])
    for _ in range(2):
        game.tick()
    before = game.simulator.root_lin_vel[0].copy()
    yaw = Rotation.from_quat(game.simulator.root_quat[0], scalar_first=True).as_euler("ZYX")[0]
    game.tick()
    jump = game.simulator.root_lin_vel[0] - before
    ahead = jump[:2] @ (np.cos(yaw), np.sin(yaw))
    left = jump[:2] @ (-np.sin(yaw), np.cos(yaw))
    # Less what a step of physics takes or adds.
    assert left == pytest.approx(0.8, abs=0.2) and abs(ahead) < 0.3
    assert said == ["   0.04 s  pushed: 0.80 m/s, +90 degrees left of its heading"]
    game.keyboard.push_speed = 0.3
    game.keyboard.press(ord("P"))
    game.keyboard.press(ord(" "))  # means nothing to it
    game.tick()
    assert re.fullmatch(r" +0\.06 s  pushed: 0\.30 m/s, .*", said[-1]) and not game.keyboard.asked


def test_a_tracker_that_falls_lies_for_a_second_and_begins_again():
    game, said = track("stand", [play.Event(0.0, "push", (6.0, 0.0))])
    while not game.falls:
        game.tick()
        assert game.ticks < 500, "premise: nobody stands that"
    fell = game.ticks
    for _ in range(50):
        assert said[1:] == [f"{fell / 50:7.2f} s  fell"]
        game.tick()
    assert said[2] == f"{fell / 50 + 1:7.2f} s  begins again" and game.env.task.frame[0] == 0
    assert game.simulator.root_pos[0, 2] > 0.7


def test_a_trackers_file_is_told_from_a_diffusion_models(tmp_path):
    assert play.is_tracker("walk") and not play.is_tracker("guided_body_pos")
    assert not play.is_tracker("hub:owner/name") and not play.is_tracker("no_such_model")
    shipped = ROOT / "bm_envs/assets/policies"
    assert play.is_tracker(str(shipped / "walk.onnx"))
    assert not play.is_tracker(str(shipped / "guided_body_pos"))
    assert not play.is_tracker(str(shipped / "guided_body_pos/denoiser.onnx"))
    shutil.copy(shipped / "walk.onnx", tmp_path / "policy.onnx")
    assert play.is_tracker(str(tmp_path))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert error_line(play.is_tracker, str(tmp_path / "bad.onnx")).startswith(
        f"{tmp_path / 'bad.onnx'}: not a readable ONNX model"
    )


def test_a_tracker_in_pictures(tmp_path, opengl, capsys):
    pytest.importorskip("imageio.v3", reason="imageio (extra viz) is not installed")
    strip = tmp_path / "a.png"
    settings = dict(motion="stand[0:1]", seconds=0.1, strip_frames=2)
    play.main(play.Config(policy="walk", strip=strip, **settings, **SMALL))
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == ("policy walk, motion stand[0:1] (1.00 s, Apache-2.0), backend mujoco, seed 0")
    assert strip.exists()


# --- the page ------------------------------------------------------------------------------------


@pytest.fixture
def paged(model):
    """A robot, its page, and somebody who looks at it."""
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    from page_client import Client

    made = []

    def page_of(task):
        game, said = make(model, task) if task != "track" else track("stand[0:2]")
        window = play.PageWindow(play.pages.Page(port=0), game.keyboard, play.DRIVES.get(task))
        client = Client(window.page)
        made.extend((client, window, game))

        def step():
            for key in window.keys():
                game.keyboard.press(key)
            window.drive(game)
            window.sync(*game.scene())
            window.tell(game.rows(1.0))

        step()
        return types.SimpleNamespace(
            game=game, said=said, window=window, client=client, step=step,
            until=lambda condition: client.until(condition, step),
        )  # fmt: skip

    yield page_of
    for thing in made:
        thing.close()


def test_the_page_is_opened_in_the_browser_where_that_is_asked(monkeypatch, capsys):
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    opened = []

    def watch(game, window):
        said = capsys.readouterr().out.splitlines()[-1]
        opened.append(said.removeprefix("page on ").removesuffix(" (Ctrl-C ends it)"))

    monkeypatch.setattr(play, "watch", watch)
    monkeypatch.setattr(play.webbrowser, "open", opened.append)
    for flag in (False, True):
        config = play.Config(policy="walk", motion="stand[0:2]", web=True, open=flag, port=0)
        play.main(config)
    alone, shown, page = opened
    assert shown == page and re.fullmatch(r"http://127\.0\.0\.1:\d+", page)
    assert alone.startswith("http://")


def test_sliders_keys_and_gamepad_drive_on_a_page(paged):
    on = paged("joystick")
    game, client = on.game, on.client
    client.set("forward, m/s", 0.4)
    on.until(lambda: game.keyboard.target.tolist() == [0.4, 0, 0])
    client.set("turn, rad/s", 0.25)
    on.until(lambda: game.keyboard.target.tolist() == [0.4, 0, 0.25])
    client.set("forward, m/s", 99.0)  # more than the slider can
    on.until(lambda: game.keyboard.target[0] == 0.6)
    client.key("Back")
    on.until(lambda: game.keyboard.target[0] == 0.5)
    on.until(lambda: client.value("forward, m/s") == 0.5)  # the slider follows
    client.press("Stop")
    on.until(lambda: not game.keyboard.target.any() and client.value("turn, rad/s") == 0)
    client.set("stick, buttons", "0.00 -1.00 1", "Text")
    on.until(lambda: game.keyboard.target[0] == 0.6 and "push" in game.keyboard.asked)
    client.set("stick, buttons", "nonsense", "Text")
    on.until(lambda: not game.keyboard.target.any())
    client.set("stick, buttons", "0.00 -1.00 0", "Text")
    on.until(lambda: game.keyboard.target[0] == 0.6)
    client.close()  # with the stick held
    on.until(lambda: not game.keyboard.target.any())


def test_push_pause_and_reset_on_a_page(paged):
    on = paged("track")
    game, client = on.game, on.client
    client.set("push, m/s", 0.2)
    on.until(lambda: game.keyboard.push_speed == 0.2)
    client.set("push, m/s", 1e9)  # more than the slider can
    client.press("Push")
    on.until(lambda: "push" in game.keyboard.asked)
    assert game.keyboard.push_speed == 0.2
    client.press("Pause")
    on.until(lambda: game.keyboard.paused and "Go on" in client.labels())
    client.press("Begin again")
    on.until(lambda: "reset" in game.keyboard.asked)
    client.key("Pause")
    on.until(lambda: not game.keyboard.paused and "Pause" in client.labels())
    game.tick()
    assert [line[11:].partition(":")[0] for line in on.said] == ["begins again", "pushed"]
    on.until(lambda: "real time" in client.html() and "1.00 x" in client.html())
    assert not {"Stop", "stick, buttons", "forward, m/s"} & client.labels()
    assert on.window.page.server.scene.get_handle_by_name("/world/ghost").visible


def test_a_goal_is_put_somewhere_on_a_page(paged):
    on = paged("waypoint")
    game, client = on.game, on.client
    for _ in range(6):
        game.tick()
    on.until(lambda: client.value("x, m") == pytest.approx(game.task.goal[0, 0], abs=0.006))
    client.set("x, m", 2.5)
    on.until(lambda: game._goal is not None and game._goal[0] == 2.5)
    game.tick()
    assert game.task.goal[0, 0] == 2.5
    # Shift and a click: a ray from (1, 1, 2) of the scene down to its ground at (3, 0).
    on.window.page.follow = False  # so that the scene stays where it is meanwhile
    away = -on.window.page.server.scene.get_handle_by_name("/world").position[:2]
    way = np.array([2.0, -1.0, -2.0]) / 3
    client.send(
        "ScenePointerMessage", event_type="click", ray_origin=[1.0, 1.0, 2.0],
        ray_direction=way.tolist(), screen_pos=[[0.5, 0.5]], modifier="shift",
    )  # fmt: skip
    on.until(lambda: game._goal[1] == pytest.approx(away[1], abs=1e-4))
    np.testing.assert_allclose(game._goal, away + (3, 0), atol=1e-4)


# --- pictures ------------------------------------------------------------------------------------


def test_a_video_and_a_strip(model, tmp_path, opengl, monkeypatch, capsys):
    av = pytest.importorskip("av", reason="the package av (extra viz) is not installed")
    imageio = pytest.importorskip("imageio.v3", reason="imageio (extra viz) is not installed")
    monkeypatch.setattr(play, "load_model", lambda name, threads: model)
    video, strip = tmp_path / "a.mp4", tmp_path / "a.png"
    settings = dict(policy="x", seconds=0.4, strip_frames=3, **SMALL)
    play.main(play.Config(video=video, strip=strip, **settings))
    with av.open(str(video)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(pictures) == 5 and pictures[0].shape == (48, 64, 3)  # 0 to 0.4 s, 10 a second
    picture = imageio.imread(strip)
    assert picture.shape == (48, 3 * 64 + 2, 3)  # lines of a pixel between
    assert (picture[:, [64, 129]] == 255).all() and picture[:, :64].std() > 10
    assert sorted(tmp_path.iterdir()) == [video, strip]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "model stand-in (body_pos), task joystick, sampler 2, backend mujoco, seed 0"
    assert re.fullmatch(r"0\.4 s with 0 falls, .* x real time without the drawing", lines[1])
    assert lines[2:] == [f"video in {video} (libx264)", f"strip in {strip} (at 0.06, 0.2, 0.34 s)"]


LOW = """
def low(plan):
    return (plan.pos[..., 2] - 0.7).square().sum(1)
"""


def test_a_video_with_a_cost_of_ones_own(model, tmp_path, opengl, monkeypatch, capsys):
    """The stand-in's data hold the pelvis at -1 to 1 m, so that nothing is warned of."""
    av = pytest.importorskip("av", reason="the package av (extra viz) is not installed")
    monkeypatch.setattr(play, "load_model", lambda name, threads: model)
    (tmp_path / "low.py").write_text(LOW)
    video = tmp_path / "a.mp4"
    own = dict(task="walk_perturb", cost=f"{tmp_path}/low.py:low")
    play.main(play.Config(policy="x", video=video, seconds=1.0, **own, **SMALL))
    with av.open(str(video)) as file:
        assert len(list(file.decode(video=0))) == 11
    assert re.search(r"cost 'low' [\d.e-]+ as planned, measured", capsys.readouterr().out)


def test_a_cost_of_ones_own_moves_the_plan(model, tmp_path):
    """Guided or watched alone: the value beside the picture is the plan's."""
    (tmp_path / "low.py").write_text(LOW)
    seen = {}
    for strength in (0.0, 1.0):
        game, _ = make(
            model, "walk_perturb", cost=f"{tmp_path}/low.py:low", cost_strength=strength,
            steering=play.Steering(scaling="even_share", correct_s=np.inf),
        )  # fmt: skip
        for _ in range(15):
            game.tick()
        seen[strength] = float(dict(game.rows(1.0))["cost 'low'"].split()[0])
        game.close()
    assert seen[1.0] < 1e-6 < seen[0.0]


def test_pictures_can_be_made_again(model, tmp_path, opengl, monkeypatch):
    pytest.importorskip("imageio.v3", reason="imageio (extra viz) is not installed")
    monkeypatch.setattr(play, "load_model", lambda name, threads: model)
    script = tmp_path / "drive.txt"
    script.write_text("0 goal 2 0.5\n0.1 push 0.5 90\n")
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        strip = tmp_path / f"{name}.png"
        settings = dict(seconds=0.2, strip_frames=2, seed=seed, script=script, task="waypoint")
        play.main(play.Config(policy="x", strip=strip, **settings, **SMALL))
        made.append(strip.read_bytes())
    assert made[0] == made[1] != made[2]


def test_files_without_their_packages_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    assert error_line(cli.write_video, tmp_path / "a.mp4", [], 5) == (
        "A video needs the package av: pip install 'bm-envs[viz]'."
    )
    assert error_line(play.write_strip, tmp_path / "a.png", [np.zeros((8, 8, 3))]) == (
        "A strip needs the package imageio: pip install 'bm-envs[viz]'."
    )
    assert not list(tmp_path.iterdir())


# --- the window ----------------------------------------------------------------------------------


class Clockwork:
    """Stands in for the robot, the window and the clock: a tick takes `cost` seconds."""

    def __init__(self, monkeypatch, cost, keys=(), **settings):
        self.now, self.cost, self.began, self.told, self.drawn = 100.0, cost, [], [], 0
        self.config = play.Config(policy="x", **settings)
        self.keyboard, self.azimuth, self._keys = new_keyboard(), 0.0, dict(keys)
        clock = types.SimpleNamespace(perf_counter=lambda: self.now, sleep=self.sleep)
        monkeypatch.setattr(play, "time", clock)

    def sleep(self, seconds):
        assert seconds >= 0
        self.now += seconds

    @property
    def time_s(self):
        return len(self.began) * 0.02

    def tick(self, azimuth):
        self.began.append(self.now)
        self.now += self.cost

    def keys(self):
        for due in [due for due in self._keys if due <= self.now]:
            yield self._keys.pop(due)

    def scene(self):
        return np.zeros(36), None, play.Decor()

    def drive(self, game):
        assert game is self

    def rows(self, factor):
        return [("real time", factor)]

    def is_running(self):
        return True

    def sync(self, qpos, ghost, decor):
        self.drawn += 1

    def tell(self, rows):
        self.told.append(rows)


@pytest.mark.parametrize(("cost", "apart", "factor"), [(0.005, 0.02, 1.0), (0.05, 0.05, 0.4)])
def test_the_window_keeps_time_or_takes_longer(monkeypatch, cost, apart, factor):
    """50 control steps a second where they are fast enough, else each as soon as it can be."""
    both = Clockwork(monkeypatch, cost, seconds=4.0)
    play.watch(both, both)
    assert len(both.began) == 200
    np.testing.assert_allclose(np.diff(both.began), apart, rtol=1e-9)
    assert dict(both.told[-1])["real time"] == pytest.approx(factor)
    assert both.drawn == pytest.approx(min(25, 1 / apart) * 200 * apart, rel=0.1)


def test_a_hiccup_is_made_up_for_and_a_long_one_is_not(monkeypatch):
    for hiccup, lost in ((0.08, 0.0), (1.0, 0.9)):
        both = Clockwork(monkeypatch, 0.005, seconds=2.0)
        sync = both.sync

        def late(*scene, both=both, sync=sync, hiccup=hiccup):
            sync(*scene)
            both.now += hiccup * (both.drawn == 5)

        both.sync = late
        play.watch(both, both)
        assert both.began[-1] - both.began[0] == pytest.approx(99 * 0.02 + lost, abs=0.03)


def test_a_pause_is_no_time(monkeypatch):
    both = Clockwork(monkeypatch, 0.005, {100.5: ENTER, 103.5: ENTER}.items(), seconds=1.0)
    play.watch(both, both)
    gaps = np.diff(both.began)
    assert len(gaps) == 49 and gaps.max() == pytest.approx(3.0, abs=0.05)
    assert np.sort(gaps)[:-1] == pytest.approx(np.full(48, 0.02))
    assert ("", "paused") in both.told[8]


def test_a_real_window_with_keys(tmp_path):
    """On a virtual display: text is shown, keys arrive, and what they switch is switched back."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("xvfb-run is not installed: no display to open a window on")
    code = f"""
import ctypes, sys
sys.path[:0] = [{str(ROOT / "tools")!r}, {str(ROOT / "algos")!r}, {str(ROOT / "tests")!r}]
import numpy as np
import collect_rollouts, play
from bm_envs.policy import load_policy
from stand_in_model import Model, still

try:
    x, test = ctypes.CDLL("libX11.so.6"), ctypes.CDLL("libXtst.so.6")
except OSError:
    x = None
if x is not None:
    x.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x.XOpenDisplay(None))

def press(symbol):
    key = x.XKeysymToKeycode(display, ctypes.c_ulong(symbol))
    test.XTestFakeMotionEvent(display, 0, 100, 100, ctypes.c_ulong(0))  # keys go to this window
    for down in (1, 0):
        test.XTestFakeKeyEvent(display, key, down, ctypes.c_ulong(0))
    x.XFlush(display)

got, told, seen = [], [], []

class Window(play.Window):
    def keys(self):
        for key in super().keys():
            got.append(key)
            yield key
    def tell(self, rows):
        super().tell(rows)
        told.append(rows)
    def sync(self, *scene):
        super().sync(*scene)
        seen.append(scene)
        if x is not None and len(seen) in (10, 20, 30):
            press({{10: 0xff52, 20: ord("l"), 30: ord("p")}}[len(seen)])
        if len(seen) > 45 and (x is None or len(got) == 3) or len(seen) == 400:
            opt, scn = self._handle.opt.flags, self._handle.user_scn.flags
            print("switched back", np.array_equal(opt, self._looks[0]),
                  np.array_equal(scn, self._looks[1]))
            self.close()

play.Window = Window
drives = collect_rollouts.drives_of(load_policy("walk"))
play.load_model = lambda name, threads: Model(drives, still(0.0))
play.main(play.Config(policy="x", sampler="2", fps=50))
print("told", bool(told), "keys", "none" if x is None else got)
"""
    done = subprocess.run(
        [xvfb, "-a", sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "switched back True True" in lines
    assert lines[-1] in ("told True keys [265, 76, 80]", "told True keys none")


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (dict(seconds=0.0), "seconds is 0.0, expected more than 0, a day at most."),
        (dict(seconds=float("nan")), "seconds is nan, expected more than 0, a day at most."),
        (dict(fps=51), "fps is 51, expected 1 to 50."),
        (dict(strip_frames=0), "strip_frames is 0, expected 1 to 50."),
        (dict(video=Path("a.gif")), "a.gif: the name of a video must end in .mp4."),
        (dict(strip=Path("a.jpg")), "a.jpg: the name of a strip must end in .png."),
        (
            dict(video=Path("a.mp4"), width=63),
            "width and height are 63 and 480, expected even numbers for a video.",
        ),
        (
            dict(strip=Path("a.png"), web=True),
            "web is given with video or strip, expected either.",
        ),
        (dict(open=True), "open is given without web: there is no page to open."),
        (
            dict(motion="walk", task="joystick"),
            "motion is 'walk', but task 'joystick' takes none.",
        ),
        (dict(distance=0.0), "distance is 0.0, expected 0.5 to 50 m."),
        (dict(azimuth=float("inf")), "azimuth is inf, expected degrees."),
        (dict(strength=-1.0), "strength is -1.0, expected 0 or more."),
        (dict(sampler="fast"), "sampler is 'fast', expected full, rolling or 1 to 20 DDIM calls."),
    ],
)
def test_bad_settings_are_one_sentence(settings, text):
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        play.Config(policy="x", **settings)


def test_settings():
    config = play.Config(policy="x", task="waypoint", strength=0.7)
    assert config.in_window and config.duration_s == float("inf")
    assert play.Config(policy="x", strip=Path("a.png")).duration_s == 12.0


def test_what_cannot_be_played_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(play, "has_display", lambda: False)
    assert error_line(play.main, play.Config(policy="x")) == (
        "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); "
        "play in the browser with --web, or draw: --video out.mp4 or --strip out.png."
    )
    assert error_line(play.main, play.Config(policy="x", web=True, port=-1)) == (
        "port is -1, expected 0 (any that is free) to 65535."
    )
    strip = tmp_path / "a.png"
    missing = play.Config(policy="x", strip=strip, script=tmp_path / "none.txt")
    assert error_line(play.main, missing).startswith(f"{tmp_path / 'none.txt'}: cannot be read (")
    (tmp_path / "b.png").mkdir()
    assert error_line(play.main, play.Config(policy="x", strip=tmp_path / "b.png")) == (
        f"{tmp_path / 'b.png'} is a folder, expected the name of a file for --strip."
    )
    assert error_line(play.main, play.Config(policy="no_such_model", strip=strip)).startswith(
        "Unknown diffusion model 'no_such_model'"
    )
    assert not strip.exists()


def test_without_viser_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    monkeypatch.setattr(play, "load_model", lambda *args, **kwargs: pytest.fail("not yet"))
    text = error_line(play.main, play.Config(policy="x", web=True))
    assert text == "A page needs the package viser: pip install 'bm-envs[web]'."


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ((), "error: There is no display to open a window on"),
        (("--strip", "a.png", "--sampler", "fast"), "error: sampler is 'fast', expected"),
        (
            ("--strip", "a.png", "--cost", "a.py:b", "--cost-strength", "2"),
            "error: cost_strength is 2.0, expected 0 ",
        ),
        (
            ("--strip", "a.png", "--cost-strength", "1"),
            "error: cost_strength is 1.0, and no --cost is given for it.",
        ),
    ],
)
def test_the_command_ends_with_2_and_one_line(arguments, start):
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = warm_python.run(
        [sys.executable, "tools/play.py", "--policy", "no_such_model", *arguments],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=env,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(start)


@pytest.mark.parametrize(
    ("policy", "cost", "start"),
    [
        ("guided_body_pos", "none.py:low", "error: none.py: no such file, expected one with the"),
        ("guided_body_pos", "bm_envs.cli:nothing", "error: Unknown function of bm_envs.cli 'noth"),
        ("walk", "none.py:low", "error: cost is 'none.py:low', but a tracker is not steered by co"),
    ],
)
def test_a_cost_that_cannot_be_had_ends_with_2(policy, cost, start, tmp_path):
    done = warm_python.run(
        [sys.executable, "tools/play.py", "--policy", policy, "--cost", cost,
         "--strip", str(tmp_path / "a.png")],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(start)
