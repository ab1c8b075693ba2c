"""A reference that is streamed: `bm_envs.deploy.live`, its link and its datagrams."""

import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bm_envs import rotations as rot
from bm_envs.deploy import Tracker
from bm_envs.deploy.live import (
    ENDLESS,
    EXAMINED_S,
    JOIN_SPEED,
    RATE,
    LiveConfig,
    LiveMotion,
    Sample,
    difference,
)
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.streamed import HELD_S, Link, LinkConfig, sent
from bm_envs.deploy.wire import Receiver, Sender, address_of, pack, unpack
from bm_envs.errors import ConfigError
from bm_envs.motion.library import load_motion
from bm_envs.policy import CONTROL_DT, load_policy
from bm_envs.robots import g1

POLICY = load_policy("walk")
WALK = Motion(POLICY)
POSES = np.array([WALK.root(frame)[0] for frame in range(WALK.frames)])


def played(link, seconds, *, seed=0, config=LiveConfig(), change=lambda sample: sample):
    """A stream over a link for some simulated seconds: the motion, its frames, and their times."""
    now = [0.0]
    stream = Link(POSES, link, seed, lambda: now[0])
    live = LiveMotion(POLICY, lambda: map(change, stream.take()), config)
    while live.waits_for():
        now[0] += CONTROL_DT
    frames, times = [live.root(0)], [live.time_s]
    while now[0] < seconds and len(frames) < live.frames:
        now[0] += CONTROL_DT
        frames.append(live.root(len(frames)))
        times.append(live.time_s)
    return live, frames, np.array(times)


def at(time_s):
    """The motion that was sent, at a time of the sender's clock: `qpos`, between its frames."""
    place = max(time_s - HELD_S, 0.0) / CONTROL_DT
    one, share = int(place), place - int(place)
    qpos = (1 - share) * WALK.root(one)[0] + share * WALK.root(one + 1)[0]
    quats = WALK.root(one)[0][3:7], WALK.root(one + 1)[0][3:7]
    qpos[3:7] = rot.quat_slerp(*quats, np.array(share))
    return qpos


@given(jitter=st.sampled_from([0.0, 20.0, 60.0]), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_what_comes_within_the_delay_is_played_as_it_was_sent(jitter, seed):
    """No sample is lost, so each frame lies on the line between two frames of the motion."""
    live, frames, times = played(LinkConfig(jitter), 5.0, seed=seed)
    assert live.counts.gaps == 0 and not live.counts.refused and not live.counts.late
    for (qpos, _), time_s in zip(frames[::7], times[::7], strict=True):
        np.testing.assert_allclose(qpos, at(time_s), atol=1e-12)
    # Time runs by its rule, and stays about as far behind the newest as it should.
    steps = np.diff(times) / CONTROL_DT
    assert steps.min() > 1 - RATE - 1e-9 and steps.max() < 1 + RATE + 1e-9
    behind = np.median(live.counts.behind_s)
    assert abs(behind - live.config.delay_s) < 0.03  # a step and half of the widest jitter's spread


def test_velocities_are_those_of_the_poses():
    """Against differences of what was played, which are a second way to the same figures."""
    _, frames, _ = played(LinkConfig(40.0, 0.02), 8.0)
    for (one, _), (_, qvel), (other, _) in zip(
        frames[100:-2], frames[101:-1], frames[102:], strict=True
    ):
        expected = difference(one, other, frames[101][0][3:7], 2 * CONTROL_DT)
        # Both are differences over two steps; time runs up to 5 % unevenly between them, and the
        # walk's joints change their speed by up to 1 rad/s in a step.
        np.testing.assert_allclose(qvel[6:], expected[6:], atol=1.2)
    speeds = np.array([qvel[:3] for _, qvel in frames])
    moved = np.diff([qpos[:3] for qpos, _ in frames], axis=0) / CONTROL_DT
    np.testing.assert_allclose(speeds[1:].mean(0), moved.mean(0), atol=0.01)


def test_a_lost_sample_is_filled_in():
    live, frames, times = played(LinkConfig(40.0, 0.1), 10.0, seed=3)
    assert live.counts.gaps == 0 and live.counts.samples < 0.95 * 500
    off = [np.abs(qpos - at(t)).max() for (qpos, _), t in zip(frames, times, strict=True)]
    # Between samples two or three steps apart: the walk's joints turn by up to 0.1 rad in a step
    # and bend by far less.
    assert max(off) < 0.06 and np.median(off) < 1e-3


def test_a_gap_is_held_and_joined_without_a_jump():
    live, frames, times = played(LinkConfig(40.0, 0.02, (4.0, 5.0)), 12.0)
    assert live.counts.gaps == 1 and 0.8 < live.counts.held_s < 1.1
    joints = np.array([qpos[7:] for qpos, _ in frames])
    roots = np.array([qpos[:3] for qpos, _ in frames])
    held = np.flatnonzero(np.diff(times) == 0)
    # It comes to rest: 0.1 s of the speed that it had is all it moves, e-folds later.
    assert np.abs(joints[held[-1]] - joints[held[30]]).max() < 0.02
    fastest = np.abs(np.diff(joints, axis=0)).max() / CONTROL_DT
    # A join adds 1.5 times its mean speed, the most of a smooth step, to the walk's own 6 rad/s.
    assert fastest < 6 + 1.5 * JOIN_SPEED
    # It goes on where it held, though the walk is somewhere else by then.
    assert np.linalg.norm(np.diff(roots, axis=0), axis=1).max() < 1.2 * CONTROL_DT * 1.5
    # After the join the joints are those of the walk, and the way is the walk's, laid elsewhere.
    for (qpos, _), time_s in zip(frames[-50:], times[-50:], strict=True):
        np.testing.assert_allclose(qpos[7:], at(time_s)[7:], atol=0.06)
        assert qpos[2] == pytest.approx(at(time_s)[2], abs=1e-3)
    way, walked = frames[-1][0][:2] - frames[-50][0][:2], at(times[-1])[:2] - at(times[-50])[:2]
    assert np.linalg.norm(way) == pytest.approx(np.linalg.norm(walked), abs=2e-3)


def test_silence_ends_the_motion_and_so_does_the_senders_mark():
    live, frames, _ = played(LinkConfig(cut_s=(3.0, 30.0)), 20.0)
    assert live.frames == len(frames) < ENDLESS and live.counts.held_s == pytest.approx(2.0)
    tracker = Tracker(POLICY, live)
    tracker.frame = live.frames - 1
    assert tracker.is_done
    qpos, qvel = live.root(live.frames + 5)
    np.testing.assert_array_equal(qpos, frames[-1][0])
    assert not qvel.any()

    live, frames, times = played(LinkConfig(40.0, 0.02), 60.0)
    assert times[-1] == HELD_S + WALK.duration_s and live.counts.gaps == 0
    np.testing.assert_allclose(frames[-1][0], WALK.root(WALK.frames - 1)[0], atol=1e-12)


def spoilt(how, joint=0):
    """A change of the samples of one moment, 4.0 to 4.02 s."""

    def change(sample):
        if not 4.0 <= sample.time_s < 4.015:
            return sample
        qpos = sample.qpos.copy()
        match how:
            case "nan":
                qpos[9] = np.nan
            case "short":
                qpos = qpos[:-1]
            case "quat":
                qpos[3:7] *= 0.5
            case "range":
                qpos[7 + joint] = g1.JOINT_RANGE[joint, 1] + 1.0
            case "jump":
                qpos[0] += 3.0
            case "flip":
                qpos[3:7] = rot.quat_mul(np.array([0.0, 0.0, 0.0, 1.0]), qpos[3:7])
            case "glitch":
                qpos[7 + joint] += 1.0
        return Sample(sample.time_s, qpos, sample.is_last)

    return change


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nan", "not finite"), ("short", "shape"), ("quat", "quaternion"), ("range", "its range"),
        ("jump", "faster than 6.5 m/s"), ("flip", "turns faster"),
        ("glitch", "faster than its motor"),
    ],
)  # fmt: skip
def test_a_sample_that_nobody_should_follow_is_left_out(how, says):
    live, frames, times = played(LinkConfig(), 6.0, change=spoilt(how))
    (why,) = live.counts.refused
    assert says in why and live.counts.refused[why] == 1
    for (qpos, _), time_s in zip(frames, times, strict=True):
        np.testing.assert_allclose(qpos, at(time_s), atol=0.06)


def test_it_goes_on_elsewhere_after_a_jump():
    """A motion that really is somewhere else is followed from where the robot was held."""

    def change(sample):
        if sample.time_s < 4.0:
            return sample
        qpos = sample.qpos.copy()
        qpos[0] += 3.0
        return Sample(sample.time_s, qpos, sample.is_last)

    live, frames, _ = played(LinkConfig(), 8.0, change=change)
    assert live.counts.gaps == 1 and live.counts.held_s < 0.2
    roots = np.array([qpos[:3] for qpos, _ in frames])
    assert np.linalg.norm(np.diff(roots, axis=0), axis=1).max() < 0.05
    assert live.time_s > 7.5


def test_a_stream_that_a_file_would_be_refused_for_is_refused_before_anything_moves():
    """The pelvis is 4 m too high; `checks.refusal` says so of a file with the same numbers."""

    def lifted(sample):
        return Sample(sample.time_s, sample.qpos + 4.0 * np.eye(36)[2], sample.is_last)

    with pytest.raises(ConfigError, match="the streamed reference is refused: .* over the floor"):
        played(LinkConfig(), 6.0, change=lifted)


def test_the_first_frame_waits_until_a_second_was_examined():
    now = [0.0]
    stream = Link(POSES, LinkConfig(), 0, lambda: now[0])
    live = LiveMotion(POLICY, stream.take)
    with pytest.raises(ConfigError, match="nothing can be played"):
        live.root(0)
    waits = []
    for now[0] in np.arange(0.0, EXAMINED_S + 0.1, CONTROL_DT):
        waits.append(live.waits_for())
    assert waits[0] and not waits[-1] and sum(map(bool, waits)) == round(EXAMINED_S / CONTROL_DT)


@pytest.mark.parametrize("hz", [30.0, 50.0, 120.0])
def test_a_sender_may_have_another_rate_and_another_clock(hz):
    """Its clock is 1 % fast and begins at another time; frames are still 20 ms apart, or nearly."""
    count, now, next_k = round(12 * hz), [0.0], [0]

    def take():
        found = []
        while next_k[0] < count and next_k[0] / hz <= now[0]:
            time_s = next_k[0] / hz
            found.append(Sample(1000 + 1.01 * time_s, at(time_s)))
            next_k[0] += 1
        return found

    live = LiveMotion(POLICY, take)
    while live.waits_for():
        now[0] += CONTROL_DT
    times, k = [], 0
    while now[0] < 11.5:
        now[0] += CONTROL_DT
        live.root(k)
        times.append(live.time_s)
        k += 1
    assert live.counts.gaps == 0
    # 10 s of ours are 10.1 s of its; the distance to the newest moves with its rule, by 2 steps.
    assert times[-1] - times[0] == pytest.approx(1.01 * (len(times) - 1) * CONTROL_DT, abs=0.04)


# --- datagrams ------------------------------------------------------------------------------------


@given(
    time_s=st.floats(0, 1e9), number=st.integers(0, 2**34), last=st.booleans(),
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60),
)  # fmt: skip
def test_a_datagram_is_the_sample(time_s, number, last, values):
    again = unpack(pack(Sample(time_s, np.array(values), last), number))
    assert again is not None and again.time_s == time_s and again.is_last == last
    np.testing.assert_array_equal(again.qpos, values)


@given(data=st.binary(max_size=300))
def test_any_other_datagram_is_none(data):
    assert unpack(data) is None


def test_its_layout_is_the_one_that_is_told():
    """From the module's table, by another way of writing it."""
    data = b"BMR1" + struct.pack("<I", 7) + struct.pack("<d", 1.5) + bytes([1, 2])
    sample = unpack(data + struct.pack("<2f", 0.25, -3.0))
    assert sample is not None and (sample.time_s, sample.is_last) == (1.5, True)
    assert sample.qpos.tolist() == [0.25, -3.0]


@pytest.mark.parametrize(
    "text", ["", "9870", "udp:9870", "tcp:localhost:1", "udp:h:0", "udp:h:70000"]
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="expected udp:HOST:PORT"):
        address_of(text)


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_samples_come_over_a_socket_from_one_sender():
    address = f"udp:127.0.0.1:{free_port()}"
    receiver, sender, other = Receiver(address), Sender(address), Sender(address)
    assert receiver.take() == []
    for k in range(50):
        sender.send(Sample(k * CONTROL_DT, WALK.root(k)[0]))
    other.send(Sample(9.0, WALK.root(0)[0]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"hello", address_of(address))
    found = receiver.take()  # over the loopback what was sent is there
    assert [sample.time_s for sample in found] == [k * CONTROL_DT for k in range(50)]
    np.testing.assert_allclose(found[7].qpos, WALK.root(7)[0], atol=1e-6)  # float32
    assert (receiver.foreign, receiver.broken) == (1, 1)
    with pytest.raises(ConfigError, match="another program listens there"):
        Receiver(address)
    for part in (receiver, sender, other):
        part.close()


def test_the_command_sends_the_whole_motion(tmp_path):
    """`tools/stream.py` in a process of its own, heard here."""
    receiver = Receiver(address := f"udp:127.0.0.1:{free_port()}")
    found, stop = [], threading.Event()

    def listen():
        while not stop.wait(0.005):
            found.extend(receiver.take())

    thread = threading.Thread(target=listen)
    thread.start()
    done = subprocess.run(
        [sys.executable, "tools/stream.py", "walk[0:2]", "--to", address, "--hold-s", "0.5",
         "--jitter-ms", "40", "--loss", "0.1", "--seed", "4"],
        capture_output=True, text=True, cwd=__file__.rsplit("/tests/", 1)[0], check=True,
    )  # fmt: skip
    stop.set()
    thread.join()
    found.extend(receiver.take())
    receiver.close()
    poses = load_motion("walk[0:2]").qpos()
    expected = sent(poses, LinkConfig(40.0, 0.1), 4, hold_s=0.5)
    assert f"{len(expected)} samples sent" in done.stdout
    marks = [sample for sample in found if sample.is_last]
    assert len(marks) == 20 and len(found) == len(expected) + 19
    assert [s.time_s for s in found if not s.is_last] == [
        s.time_s for _, s in expected if not s.is_last
    ]


@pytest.mark.parametrize("wrong", [{"jitter_ms": -1}, {"loss": 1.0}, {"cut_s": (3.0, 2.0)}])
def test_a_link_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        LinkConfig(**wrong)
    with pytest.raises(ConfigError, match="delay_s is 0.01"):
        LiveConfig(delay_s=0.01)
