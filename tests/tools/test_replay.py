"""`tools/replay.py`: what is shown when, figures as the benchmark's, videos, errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest
import warm_python
from policy_files import isaac_spec, make_clip, make_mlp

from bm_envs import cli
from bm_envs.errors import BMError, ConfigError, MotionError, PolicyError
from bm_envs.motion.clip import clip_from_states
from bm_envs.motion.library import list_motions, load_motion
from bm_envs.policy import PolicySpec, load_policy, write_onnx
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import replay  # noqa: E402
import track  # noqa: E402

SMALL = dict(width=64, height=48, fps=10, fast=True)


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.setattr(replay, "has_display", lambda: False)


@pytest.fixture(scope="module")
def follower(tmp_path_factory):
    """A policy whose joint targets are the reference pose it is shown; it holds a motion."""
    mlp = make_mlp(160, hidden=(4,), residual=True)
    for array in (*mlp.weights, *mlp.biases):
        array[:] = 0
    path = tmp_path_factory.mktemp("follower") / "follower.onnx"
    write_onnx(path, mlp, PolicySpec.for_g1(), make_clip(40))
    return path


def error_line(function, *arguments):
    with pytest.raises(BMError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def command(*arguments, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return warm_python.run(
        [sys.executable, "tools/replay.py", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, timeout=300, env=env | environment,
    )  # fmt: skip


def decoded(path):
    """All pictures of a video, and its stream."""
    av = pytest.importorskip("av", reason="the package av (extra viz) is not installed")
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        return pictures, file.streams.video[0]


# --- what is shown -------------------------------------------------------------------------------


def test_the_list_has_every_motion(capsys):
    replay.main(replay.Config(list=True))
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["motion", "seconds", "fps", "where", "licence", "source"]
    families = ["walk_mix_N", "walk_on_N"]  # made when asked for
    assert [row.split()[0] for row in rows] == [info.name for info in list_motions()] + families
    walk = next(row for row in rows if row.startswith("walk ")).split()
    clip = load_motion("walk")
    assert walk[1:5] == [f"{clip.duration_s:.2f}", "50", "package", clip.licence]


def test_the_reference_is_the_clips_states():
    clip = load_motion("walk[2:2.4]")
    qpos = clip.qpos()
    assert qpos.shape == (21, 36)
    # Forward kinematics of what is drawn gives the clip's links (float32 of about 1 m).
    links = oracles.forward_kinematics(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:])
    np.testing.assert_allclose(links["body_pos_w"], clip.body_pos_w, atol=1e-5)


def test_robot_is_solid_and_reference_the_ghost():
    clip = make_clip(11)
    reference = clip.qpos()
    rollout = replay.Rollout(reference[:6] + 1.0, 5, {})
    assert np.array_equal(replay.shown_at(0.1, clip, reference, None, "both")[0], reference[5])
    assert replay.shown_at(0.1, clip, reference, None, "both")[1] is None
    robot, ghost = replay.shown_at(0.06, clip, reference, rollout, "both")
    assert np.array_equal(robot, reference[3] + 1.0)
    assert np.array_equal(ghost, reference[3])
    assert replay.shown_at(0.06, clip, reference, rollout, "policy")[1] is None
    # Past the end, and past a simulation that diverged, the last state stays.
    robot, ghost = replay.shown_at(9.0, clip, reference, rollout, "both")
    assert np.array_equal(robot, reference[5] + 1.0)
    assert np.array_equal(ghost, reference[10])


def test_start_and_seconds_cut_the_motion():
    def choose(**settings):
        return replay.choose_clip(replay.Config(**settings), None)

    whole = load_motion("stand")
    assert choose(motion="stand").num_frames == whole.num_frames
    part = choose(motion="stand", start=1.0, seconds=2.0)
    assert part.num_frames == 101
    assert np.array_equal(part.joint_pos, whole.joint_pos[50:151])
    to_the_end = choose(motion="stand", start=whole.duration_s - 1, seconds=99.0)
    assert np.array_equal(to_the_end.joint_pos, whole.joint_pos[-51:])
    of_a_cut = choose(motion="stand[1:3]", start=0.5)
    assert np.array_equal(of_a_cut.joint_pos, whole.joint_pos[75:151])
    with pytest.raises(MotionError, match="does not fit"):
        choose(motion="stand", start=1000.0)


def test_a_shipped_policy_comes_with_the_motion_of_its_name(follower, monkeypatch, capsys):
    monkeypatch.setattr(replay, "shipped_policies", lambda: ["stand"])
    asked = []

    def load(name, config=None):
        asked.append(name)
        return load_policy(follower)

    monkeypatch.setattr(replay, "load_policy", load)
    for motion in ("stand", "stand[1:2]"):
        assert replay.choose_policy(replay.Config(motion=motion)) is not None
    for other in (
        replay.Config(motion="walk"),
        replay.Config(motion="stand.npz"),
        replay.Config(motion="stand", show="reference"),
    ):
        assert replay.choose_policy(other) is None
    assert asked == ["stand", "stand"]

    def fail(name, config=None):
        raise PolicyError("Policy files need the package onnx.")

    monkeypatch.setattr(replay, "load_policy", fail)
    assert replay.choose_policy(replay.Config(motion="stand")) is None
    assert "showing the reference alone: Policy files need" in capsys.readouterr().out
    with pytest.raises(PolicyError):
        replay.choose_policy(replay.Config(motion="stand", show="policy"))


def test_the_motion_inside_a_policy_is_the_default(follower):
    policy = load_policy(follower)
    clip = replay.choose_clip(replay.Config(policy=str(follower)), policy)
    np.testing.assert_allclose(clip.joint_pos, make_clip(40).joint_pos, atol=1e-6)


# --- running a policy ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stands", "falls", "other order"])
def test_figures_are_the_benchmarks(kind, follower, tmp_path):
    # Holding a pose open loop lasts about a second.
    clip = load_motion("stand[0:0.8]" if kind == "stands" else "stand[0:4]")
    if kind == "stands":
        policy = load_policy(follower)
    else:
        mlp = make_mlp(154, seed=3)
        spec = PolicySpec.for_g1(NO_STATE_ESTIMATION_TERMS)
        write_onnx(
            tmp_path / "p.onnx", mlp, isaac_spec(spec) if kind == "other order" else spec, None
        )
        policy = load_policy(tmp_path / "p.onnx")
    rollout = replay.run_policy(policy, clip, replay.Config())
    task = track.task_config(policy, "clip", track.Config(policy=""))
    figures = track.run_episodes(policy, clip, task, episodes=1, seed=0, threads=1)
    assert rollout.reached == figures.reached[0]
    for name, value in rollout.errors.items():
        assert value == pytest.approx(figures.errors[name][0], rel=1e-6), name
    assert len(rollout.errors) == len(figures.errors) == 6
    if kind == "stands":
        assert figures.completed[0], "premise: this one completes the clip"
        assert len(rollout.qpos) == clip.num_frames
    else:
        assert not figures.completed[0], "premise: this one fails"
        # It is seen past its failure: the robot goes down.
        assert len(rollout.qpos) > rollout.reached + 10
        assert rollout.qpos[-1, 2] < 0.5
    np.testing.assert_allclose(rollout.qpos[0], clip.qpos()[0], atol=2e-3)
    line = replay.describe(rollout, clip)
    assert re.fullmatch(
        rf"survived {rollout.reached * 0.02:.2f} of {clip.duration_s:.2f} s, MPKPE \d+ mm, "
        r"R-MPKPE \d+ mm, joints off by 0\.\d{3} rad",
        line,
    )


def test_the_robust_protocol_is_disturbed_by_its_seed(follower):
    policy, clip = load_policy(follower), load_motion("stand[0:1]")

    def run(**settings):
        return replay.run_policy(policy, clip, replay.Config(**settings)).qpos

    assert np.array_equal(run(), run(seed=1))
    assert np.array_equal(run(protocol="robust", seed=1), run(protocol="robust", seed=1))
    assert not np.array_equal(run(protocol="robust", seed=1)[0], run(protocol="robust", seed=2)[0])


# --- window and video ----------------------------------------------------------------------------


def test_the_window_gets_the_motion_at_real_speed(monkeypatch):
    shown = []

    class Window:
        def __init__(self, model):
            assert model.visuals

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            shown.append("closed")

        def is_running(self):
            return len(shown) < 4

        def sync(self, qpos, ghost):
            shown.append((qpos, ghost))

    clock = iter([10.0, 10.0, 10.1, 10.2, 11.1])
    monkeypatch.setattr(replay, "HumanViewer", Window)
    monkeypatch.setattr(replay, "has_display", lambda: True)
    monkeypatch.setattr(replay.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(replay.time, "sleep", lambda seconds: None)
    replay.main(replay.Config(motion="stand[0:0.5]", show="reference"))
    reference = load_motion("stand[0:0.5]").qpos()
    assert shown.pop() == "closed"
    # 1.1 s after its start a motion of 0.5 s, which rests for 0.5 s, is again at 0.1 s.
    for (qpos, ghost), frame in zip(shown, (0, 5, 10, 5), strict=True):
        assert np.array_equal(qpos, reference[frame])
        assert ghost is None


def test_a_video_shows_policy_and_reference(follower, tmp_path, opengl, capsys):
    path = tmp_path / "out.mp4"
    settings = dict(motion="stand[0:0.5]", policy=str(follower), video=path, **SMALL)
    replay.main(replay.Config(**settings))
    pictures, stream = decoded(path)
    assert len(pictures) == 6  # 0.0 to 0.5 s at 10 a second
    assert pictures[0].shape == (48, 64, 3)
    assert pictures[0].std() > 10
    assert float(stream.average_rate) == 10
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert list(tmp_path.iterdir()) == [path]
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "motion stand[0:0.5] (0.50 s, Apache-2.0), policy follower"
    assert second.startswith("survived 0.50 of 0.50 s")
    assert third == f"video in {path} (6 pictures, 0.60 s, libx264)"


def test_a_video_follows_what_is_drawn(tmp_path):
    """Colours survive the codec: YUV with a quarter of the colour information, so within 12."""
    pytest.importorskip("av", reason="the package av (extra viz) is not installed")
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    drawn = [np.full((32, 48, 3), colour, np.uint8) for colour in colours]
    cli.write_video(tmp_path / "c.mp4", drawn, 5, len(drawn))
    pictures, _ = decoded(tmp_path / "c.mp4")
    for got, colour in zip(pictures, colours, strict=True):
        assert np.abs(got.astype(int) - colour).max() < 12


def test_a_failed_video_leaves_the_old_one(tmp_path):
    pytest.importorskip("av", reason="the package av (extra viz) is not installed")
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    def pictures():
        yield np.zeros((32, 48, 3), np.uint8)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        cli.write_video(path, pictures(), 5, 2)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_av_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    sentence = "A video needs the package av: pip install 'bm-envs[viz]'."
    path = tmp_path / "out.mp4"
    assert error_line(cli.write_video, path, [], 5, 0) == sentence
    # Before the policy is played, which may take minutes.
    assert (
        error_line(replay.main, replay.Config(motion="stand", policy="walk", video=path))
        == sentence
    )
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


# --- the page ------------------------------------------------------------------------------------


def test_a_playhead_plays_over_and_over():
    head = replay.Playhead(1.0)
    head.advance(0.4)
    head.speed = 0.5
    head.advance(0.4)
    assert head.seconds == pytest.approx(0.6)
    head.advance(9.0)
    assert head.seconds == 1.0  # the end is shown, and then for half a second
    head.advance(0.4)
    assert head.seconds == 1.0
    head.advance(0.2)
    assert head.seconds == 0.0
    head.step(0.02)
    head.advance(5.0)
    assert head.seconds == 0.02 and not head.playing
    for asked, got in ((-3.0, 0.0), (7.0, 1.0), (0.3, 0.3), (float("nan"), 0.3)):
        head.seek(asked)
        assert head.seconds == got


def test_the_errors_of_a_moment_are_those_of_the_run(follower):
    """The page's errors come from forward kinematics, the run's from the engine (float32)."""
    config = replay.Config(motion="stand[0:0.8]", policy=str(follower))
    take = replay.make_take(config, *replay.choose(config))
    assert take.rollout is not None and take.rollout.reached == 40
    assert take.body_m.shape == (41, 14) and take.joint_rad.shape == (41, 29)
    errors = take.rollout.errors
    assert take.body_m[1:].mean() == pytest.approx(errors["mpkpe_m"], rel=1e-3)
    assert take.joint_rad[1:].mean() == pytest.approx(errors["joint_pos_rad"], rel=1e-3)
    assert take.rollout.contact.shape == (41, 2)
    assert take.rollout.contact.all() and take.clip.foot_contact.all()  # it stands
    text = replay.error_table(take, 0.4)
    worst = g1.JOINT_NAMES[take.joint_rad[20].argmax()].removesuffix("_joint")
    error = take.body_m[20].mean() * 1000
    assert re.search(rf"MPKPE<.*?>{error:.0f} mm<", text) and worst in text
    assert all(name.removesuffix("_link") in text for name in g1.TRACKED_BODIES)


def test_feet_in_the_air_do_not_touch(tmp_path):
    """Dropped from 0.3 m a robot falls for 0.2 s, whatever its policy does."""
    clip = make_clip(20)
    lifted = clip_from_states(
        "lifted", 50.0, clip.body_pos_w[:, 0] + (0, 0, 0.3), clip.body_quat_w[:, 0],
        clip.joint_pos, source="test", licence="test",
    )  # fmt: skip
    write_onnx(tmp_path / "p.onnx", make_mlp(160, hidden=(4,)), PolicySpec.for_g1(), lifted)
    rollout = replay.run_policy(load_policy(tmp_path / "p.onnx"), lifted, replay.Config())
    assert not rollout.contact[:8].any()


@pytest.fixture
def stage(follower, monkeypatch):
    """A page with a policy's run, and somebody who looks at it."""
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    from page_client import Client

    monkeypatch.delenv("BM_DATA_DIR", raising=False)
    config = replay.Config(motion="stand[0:0.8]", policy=str(follower), web=True, port=0)
    with replay.pages.Page(port=0) as page:
        found = replay.Stage(page, config)
        found.client = Client(page)
        yield found
        found.client.close()


def test_the_page_is_played_scrubbed_and_slowed(stage):
    client, head = stage.client, stage.playhead
    stage.step(0.1)
    assert head.seconds == pytest.approx(0.1) and head.playing
    client.press("Pause")
    client.until(lambda: not head.playing, lambda: stage.step(0.0))
    client.set("time, s", 0.4)
    client.until(lambda: head.seconds == 0.4, lambda: stage.step(0.0))
    robot = stage.page.server.scene.get_handle_by_name("/world/robot/pelvis")
    np.testing.assert_allclose(robot.position, stage.take.rollout.qpos[20, :3])
    ghost = stage.page.server.scene.get_handle_by_name("/world/ghost/pelvis")
    np.testing.assert_allclose(ghost.position, stage.take.reference[20, :3])
    client.set("frames", "+10", "ButtonGroup")
    client.until(lambda: head.seconds == pytest.approx(0.6), lambda: stage.step(1.0))
    client.until(lambda: client.value("time, s") == 0.6, lambda: stage.step(0.0))
    client.key("A frame back")
    client.until(lambda: head.seconds == pytest.approx(0.58), lambda: stage.step(0.0))
    client.key("To the start")
    client.until(lambda: head.seconds == 0, lambda: stage.step(0.0))
    client.set("speed", "0.25")
    client.key("Play or pause")
    client.until(lambda: head.playing and head.speed == 0.25, lambda: stage.step(0.0))
    stage.step(0.4)
    assert head.seconds == pytest.approx(0.1)
    shown = {"Pause", "motion", "reference", "contacts", "follow"}
    client.until(lambda: shown <= client.labels(), lambda: stage.step(0.0))


def test_the_page_shows_and_hides(stage):
    scene, client = stage.page.server.scene, stage.client
    ghost = scene.get_handle_by_name("/world/ghost")
    patch = scene.get_handle_by_name("/world/robot_left_ankle_roll_link_on_floor")
    stage.step(0.1)
    assert ghost.visible and patch.visible
    client.set("reference", False)
    client.until(lambda: not ghost.visible, lambda: stage.step(0.0))
    client.set("contacts", False)
    client.until(lambda: not patch.visible, lambda: stage.step(0.0))
    client.set("follow", False)
    client.until(lambda: not stage.page.follow, lambda: stage.step(0.0))


def test_another_motion_is_chosen_on_the_page(stage, capsys):
    client = stage.client
    stage.step(0.1)
    client.until(lambda: "survived 0.80 of 0.80 s" in client.html(), lambda: stage.step(0.0))
    stage.config = replay.replace(stage.config, show="reference")  # no run of many seconds
    client.set("motion", "turn_left")
    client.until(lambda: stage.take.clip.name == "turn_left", lambda: stage.step(0.0))
    assert stage.playhead.seconds == 0 and stage.playhead.duration_s == stage.take.clip.duration_s
    client.until(lambda: "no policy: nothing to compare" in client.html(), lambda: stage.step(0.0))
    assert "motion turn_left (" in capsys.readouterr().out
    # Only what is offered: a page takes no paths from whoever speaks its protocol.
    for name in ("../secret.npz", "walk[0:1]"):
        client.set("motion", name)
    client.set("motion", "stand[0:0.8]")
    client.until(lambda: stage.take.clip.name == "stand[0:0.8]", lambda: stage.step(0.0))
    assert "secret" not in capsys.readouterr().out


def test_a_motion_that_cannot_be_loaded_leaves_the_last(stage, monkeypatch):
    def fail(name):
        raise MotionError(f"{name}: is damaged.")

    monkeypatch.setattr(replay.library, "load_motion", fail)
    stage.client.set("motion", "walk")
    stage.client.until(lambda: "walk: is damaged." in stage.client.html(), lambda: stage.step(0.0))
    assert stage.take.clip.name == "stand[0:0.8]"


def test_the_command_serves_until_it_is_interrupted(monkeypatch, capsys):
    pytest.importorskip("viser", reason="the package viser (extra web) is not installed")
    steps = []

    def sleep(seconds):
        steps.append(seconds)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(replay.time, "sleep", sleep)
    monkeypatch.setattr(replay, "has_display", lambda: False)
    with pytest.raises(KeyboardInterrupt):
        replay.main(replay.Config(motion="stand[0:1]", show="reference", web=True, port=0))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "motion stand[0:1] (1.00 s, Apache-2.0), no policy"
    port = int(re.fullmatch(r"page on http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)", second)[1])
    replay.pages.check(port)  # it is free again


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (dict(fps=0), "fps is 0, expected 1 to 50."),
        (dict(start=-1.0), "start is -1.0, expected 0 s or more."),
        (dict(seconds=0.0), "seconds is 0.0, expected more than 0."),
        (dict(seconds=float("nan")), "seconds is nan, expected more than 0."),
        (dict(video=Path("a.gif")), "a.gif: the name of a video must end in .mp4."),
        (
            dict(video=Path("a.mp4"), web=True),
            "web and video are both given, expected one of them.",
        ),
        (
            dict(video=Path("a.mp4"), width=63),
            "width and height are 63 and 480, expected even numbers for a video.",
        ),
    ],
)
def test_bad_settings_are_one_sentence(settings, text):
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        replay.Config(**settings)


def test_what_cannot_be_shown_is_one_sentence(tmp_path, no_display):
    def shown(**settings):
        return error_line(replay.main, replay.Config(**settings))

    video = tmp_path / "out.mp4"
    assert shown(motion="stand") == (
        "There is no display to open a window on (neither DISPLAY nor WAYLAND_DISPLAY is set); "
        "look at it in the browser with --web, or write a video with --video out.mp4."
    )
    # A misspelt name is told before a display is looked for.
    assert shown(motion="stnad").startswith("Unknown motion 'stnad'; did you mean")
    assert shown(policy="wlak").startswith("Unknown policy 'wlak'; did you mean")
    assert shown(video=video) == (
        "No motion to show, name one with --motion; --list tells those known."
    )
    assert shown(video=video, motion="stand_", show="policy") == (
        "show is 'policy', expected a policy to show; name it with --policy."
    )
    assert shown(video=video, motion="stnad").startswith("Unknown motion 'stnad'; did you mean")
    assert shown(web=True, port=70000, motion="stand") == (
        "port is 70000, expected 0 (any that is free) to 65535."
    )
    assert shown(web=True, port=0, motion="stnad").startswith(
        "Unknown motion 'stnad'; did you mean"
    )
    (tmp_path / "folder.mp4").mkdir()
    assert shown(video=tmp_path / "folder.mp4", motion="stand").endswith(
        "is a folder, expected the name of a file for --video."
    )
    assert not video.exists()


def test_without_viser_it_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    text = error_line(replay.main, replay.Config(motion="stand", web=True, port=0))
    assert text == "A page needs the package viser: pip install 'bm-envs[web]'."


def test_the_command_ends_with_2_and_one_line():
    done = command("--motion", "stand")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: There is no display to open a window on")


def test_the_command_opens_a_window():
    """A real window on a virtual display, shut from outside after it has played for a while."""
    xvfb = shutil.which("xvfb-run")
    if xvfb is None:
        pytest.skip("xvfb-run is not installed: no display to open a window on")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tools")!r})
import replay
shown = []
class Window(replay.HumanViewer):
    def sync(self, qpos, ghost):
        super().sync(qpos, ghost)
        shown.append(qpos)
        if len(shown) == 3:
            self.close()
replay.HumanViewer = Window
replay.main(replay.Config(motion="stand[0:0.5]", show="reference"))
print(len(shown))
"""
    done = subprocess.run(
        [xvfb, "-a", sys.executable, "-c", code], capture_output=True, text=True, timeout=300,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "3"
