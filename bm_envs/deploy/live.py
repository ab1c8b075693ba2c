"""A reference that comes as it is made: frames from a retargeter, a teleoperator or a planner.

    from bm_envs.deploy import Tracker
    from bm_envs.deploy.live import LiveMotion
    from bm_envs.deploy.wire import Receiver

    motion = LiveMotion(policy, Receiver("udp:0.0.0.0:9870").take)
    while motion.waits_for():           # until a second of it was examined
        time.sleep(0.02)
    tracker = Tracker(policy, motion)   # and from here on as with any motion

A sample is the robot's configuration at a time of the sender's clock. Samples may come at any rate,
late, twice, in another order, or not at all. They are kept in the order of their times and played
`delay_s` behind the newest, so what comes within that time is in its place when it is wanted. One
frame is made for each control step, by interpolation, and time runs up to `RATE` faster or slower
to keep that distance: the sender's clock need not be ours.

What is played must be one motion. Where nothing newer has come, the reference slows down and holds
its pose (a gap). Where samples come again, it is laid level and in heading where it held, and
goes over into them as fast as `JOIN_SPEED` allows (a join). A sample that a file would be refused
for (`bm_envs/motion/checks.py`) is left out and counted, and so is one that no robot could reach
from its neighbours. Where `AGREEING` such samples agree with each other, the motion is elsewhere
now: a gap and a join, too. The first second is examined as a whole, as files are, before anything
moves. Nothing new for `end_s`, or the sender's mark, ends the motion.

One file because what comes and what is played are two ends of one buffer.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from bm_envs import rotations as rot
from bm_envs.deploy.reference import Alignment
from bm_envs.errors import ConfigError
from bm_envs.motion import checks
from bm_envs.motion.clip import clip_from_states
from bm_envs.motion.smoothing import smoothstep
from bm_envs.policy import CONTROL_DT, Policy
from bm_envs.robots.kinematics import LinkChain, link_poses
from bm_envs.robots.robot import Robot, order_map

RATE = 0.05  # share by which time may run faster or slower
LEVEL_S = 1.0  # time constant in which the distance to the newest sample is averaged
SLOWING_S = 0.1  # time constant of the velocity in a gap
JOIN_S = 0.3  # shortest time of a join
JOIN_SPEED = 3.0  # rad/s, of the fastest joint in a join, on average
SPEED = checks.SPEED_DOUBTED  # m/s of the pelvis; LAFAN1, which has a sprint, reaches 5.6
TURN = 15.0  # rad/s of the pelvis; LAFAN1 has up to 11.7
REACH_S = 0.1  # what can be reached from a sample longer ago is no more than from one so old
AGREEING = 5  # samples that cannot be reached, but from each other, after which the motion is there
LOST_S = 0.5  # after so long without a good sample the next begins anew
EXAMINED_S = 1.0  # of the stream, before it is played
KEPT = 256  # frames that can be asked for again
ENDLESS = 2**31  # frames of a motion whose end is not known
UNIT = 0.01  # of a quaternion's length


@dataclass(frozen=True)
class Sample:
    """One configuration of a robot, as the sender has it."""

    time_s: float
    """Of the sender's clock."""
    qpos: np.ndarray
    """`[7 + J]`: pelvis, m, and quaternion w x y z, world; joints, rad, in the robot's order."""
    is_last: bool = False
    """Whether nothing follows."""


@dataclass(frozen=True)
class LiveConfig:
    """How a stream is played."""

    delay_s: float = 0.1
    """Distance to the newest sample, s: what is later than this is a gap."""
    end_s: float = 2.0
    """Seconds of a gap after which the motion has ended."""

    def __post_init__(self) -> None:
        if not 2 * CONTROL_DT <= self.delay_s <= 2:
            raise ConfigError(f"delay_s is {self.delay_s}, expected {2 * CONTROL_DT} to 2 s.")
        if not 0 < self.end_s <= 60:
            raise ConfigError(f"end_s is {self.end_s}, expected more than 0, up to 60 s.")


@dataclass
class Counts:
    """What became of a stream."""

    samples: int = 0
    """Samples that came."""
    late: int = 0
    """Samples that came when their time was over."""
    repeated: int = 0
    """Samples of a time that was there."""
    refused: dict[str, int] = field(default_factory=dict)
    """Samples that no robot should follow, by why."""
    gaps: int = 0
    held_s: float = 0.0
    """Time for which the reference stood still, or slowed down, in gaps."""
    behind_s: list[float] = field(default_factory=list)
    """Of each frame: how far it was behind the newest sample, of the sender's clock, s."""


def behind_ms(streams: Iterable[Counts]) -> dict[str, float | None]:
    """Median and 99th percentile, over all frames, of the time behind the newest sample, ms.

    None of each where no frame was played.
    """
    behind = np.concatenate([np.zeros(0), *(counts.behind_s for counts in streams)])
    return {
        f"behind_p{share}_ms": 1e3 * float(np.percentile(behind, share)) if behind.size else None
        for share in (50, 99)
    }


class LiveMotion:
    """A stream of samples as a motion, frame by frame. See the module.

    It has what `reference.Motion` has, so a tracker takes it in place of one. Frames are made when
    they are asked for, in their order; the last `KEPT` can be asked for again.

    Attributes:
        name: `stream`.
        counts: what became of the samples.
    """

    def __init__(
        self, policy: Policy, take: Callable[[], Iterable[Sample]],
        config: LiveConfig = LiveConfig(),
    ) -> None:  # fmt: skip
        """Make a motion of which nothing was played.

        Args:
            policy: what will follow it.
            take: gives what came since its last call, and never waits.
            config: how it is played.
        """
        spec = policy.spec
        self.name, self.counts, self.config = "stream", Counts(), config
        self.robot: Robot = spec.robot
        self._take = take
        self._to_policy = order_map(self.robot.joint_names, spec.joint_names)
        self._anchor = LinkChain(spec.anchor_body_name, self.robot.root_body, self.robot)
        self._bodies = order_map(self.robot.body_names, spec.body_names)
        self._range = np.array(self.robot.joint_range)
        self._limits = self.robot.velocity_limit
        self._times: list[float] = []
        self._poses: list[np.ndarray] = []
        self._is_last = False
        self._anew: set[float] = set()  # times of samples that do not go on from the one before
        self._elsewhere: list[tuple[float, np.ndarray]] = []  # that could not be reached
        self._first = 0  # the number of the oldest frame that is kept
        self._made: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=KEPT)
        self._play: float | None = None  # time of the sender's clock that was played last
        self._level = config.delay_s
        self._gap = 0.0  # s since a gap began; 0: none
        self._place = Alignment()  # of the stream's world in the motion's, which joins move
        self._join: tuple[float, float] | None = None  # s since its beginning, its length
        self._is_examined = False

    # --- what comes -------------------------------------------------------------------------------

    def waits_for(self) -> str:
        """What is missing before the first frame can be played; empty when nothing is.

        Call it until that frame is played, so that what comes is taken.

        Raises:
            ConfigError: the stream is refused as a file would be.
        """
        self._receive()
        if not self._times:
            worst = max(self.counts.refused, key=self.counts.refused.__getitem__, default="")
            return f"a sample that can be followed ({worst})" if worst else "a first sample"
        if self._is_examined:
            return ""
        if self._times[-1] - self._times[0] < EXAMINED_S:
            return f"{EXAMINED_S:g} s of samples"
        if refused := self._examine():
            raise ConfigError(f"the streamed reference is refused: {refused}")
        self._is_examined = True
        return ""

    def _receive(self) -> None:
        for sample in self._take():
            self.counts.samples += 1
            self._is_last = self._is_last or sample.is_last
            if why := self._trouble(sample) or self._out_of_reach(sample):
                self.counts.refused[why] = self.counts.refused.get(why, 0) + 1
                continue
            if self._play is not None and sample.time_s <= self._play:
                self.counts.late += 1
                continue
            at = bisect.bisect_left(self._times, sample.time_s)
            if at < len(self._times) and self._times[at] == sample.time_s:
                self.counts.repeated += 1
                continue
            if at == len(self._times) and at and sample.time_s - self._times[-1] > LOST_S:
                self._anew.add(float(sample.time_s))
            self._times.insert(at, float(sample.time_s))
            self._poses.insert(at, _normal(sample))
        # Before it begins what may be examined is kept; later what lies around the time played.
        since = self._times[-1] - 2 * EXAMINED_S if self._times else 0.0
        if self._play is not None:
            since = self._play - 4 * CONTROL_DT
        old = max(bisect.bisect_right(self._times, since) - 1, 0)
        self._anew.difference_update(self._times[:old])
        del self._times[:old], self._poses[:old]

    def _trouble(self, sample: Sample) -> str:
        """Why a sample is none that a robot could be in; empty if it is one."""
        qpos, size = np.asarray(sample.qpos), 7 + self.robot.num_joints
        if qpos.shape != (size,):
            return f"it has shape {qpos.shape}, expected ({size},)"
        if not (np.isfinite(qpos).all() and np.isfinite(sample.time_s)):
            return "it is not finite"
        if abs(float(np.linalg.norm(qpos[3:7])) - 1) > UNIT:
            return "its quaternion is not of length 1"
        beyond = np.maximum(self._range[:, 0] - qpos[7:], qpos[7:] - self._range[:, 1])
        if beyond.max() > checks.EXCESS_REFUSED:
            name = self.robot.joint_names[int(beyond.argmax())]
            return f"{name} is more than {checks.EXCESS_REFUSED:g} rad beyond its range"
        return ""

    def _out_of_reach(self, sample: Sample) -> str:
        """Why a sample cannot be reached from its neighbours in time; empty if it can.

        Of samples that can be reached from each other alone the last begins the motion anew.
        """
        time_s, qpos = sample.time_s, _normal(sample)
        at = bisect.bisect_left(self._times, time_s)
        why = ""
        for other in (at - 1, at):
            if 0 <= other < len(self._times) and time_s != self._times[other]:
                why = why or self._too_far(self._times[other], self._poses[other], time_s, qpos)
        if not why:
            self._elsewhere.clear()
        elif at == len(self._times):
            if self._elsewhere and self._too_far(*self._elsewhere[-1], time_s, qpos):
                self._elsewhere.clear()
            self._elsewhere.append((time_s, qpos))
            if len(self._elsewhere) >= AGREEING:
                self._elsewhere.clear()
                self._anew.add(float(time_s))
                return ""
        return why

    def _too_far(self, since: float, one: np.ndarray, until: float, other: np.ndarray) -> str:
        dt = abs(until - since)
        if dt > LOST_S:
            return ""
        # Times of samples are rarely exact: a pair is never taken to be nearer than half a step.
        dt = min(max(dt, 0.5 * CONTROL_DT), REACH_S)
        if np.linalg.norm(other[:3] - one[:3]) > SPEED * dt:
            return f"its pelvis is faster than {SPEED:g} m/s"
        if float(rot.quat_angle(one[3:7], other[3:7])) > TURN * dt:
            return f"its pelvis turns faster than {TURN:g} rad/s"
        share = np.abs(other[7:] - one[7:]) / (self._limits * dt)
        if share.max() > checks.JOINT_SPEED_DOUBTED:
            return f"{self.robot.joint_names[int(share.argmax())]} is faster than its motor"
        return ""

    def _examine(self) -> str:
        """Why the beginning is refused, as `checks.refusal` says of a file; empty if it is not."""
        times = np.arange(self._times[0], self._times[-1], CONTROL_DT)
        qpos = np.array([self._interpolated(time) for time in times])
        root, quat, joints = qpos[:, :3], qpos[:, 3:7], qpos[:, 7:]
        clip = clip_from_states(
            "stream", 1 / CONTROL_DT, root, quat, joints, source="stream", licence="",
            robot=self.robot,
        )  # fmt: skip
        return checks.refusal(clip) or ""

    # --- what is played ---------------------------------------------------------------------------

    @property
    def frames(self) -> int:
        """How many frames it has; `ENDLESS` until its end is known."""
        return self._last + 1 if self._has_ended else ENDLESS

    @property
    def time_s(self) -> float:
        """Time of the sender's clock that was played last, s; minus infinity before the first."""
        return -np.inf if self._play is None else self._play

    @property
    def _last(self) -> int:
        return max(self._first + len(self._made) - 1, 0)

    @property
    def _has_ended(self) -> bool:
        if self._gap >= self.config.end_s:
            return True
        return self._is_last and self._play is not None and self._play >= self._times[-1]

    def joints(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities `[J]` in the policy's order; at rest beyond the last frame."""
        qpos, qvel = self.root(frame)
        return qpos[7:][self._to_policy], qvel[6:][self._to_policy]

    def anchor(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Position `[3]` and rotation matrix `[3, 3]` of the anchor body, in the motion's world."""
        qpos, _ = self.root(frame)
        return self._anchor.pose(qpos[:3], qpos[3:7], qpos[7:])

    def body_pos(self, frame: int) -> np.ndarray:
        """Positions of the policy's bodies, in the motion's world. `[K, 3]`."""
        qpos = self.root(frame)[0][None]
        return link_poses(qpos[:, :3], qpos[:, 3:7], qpos[:, 7:], self.robot).pos[0, self._bodies]

    def root(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The state in this frame, joints in the robot's order: `qpos [7 + J]`, `qvel [6 + J]`.

        Raises:
            ConfigError: the frame is too old, or nothing can be played yet.
        """
        while frame > self._last or not self._made:
            if self._made and self._has_ended:
                qpos, qvel = self._made[-1]
                return qpos, np.zeros_like(qvel)
            self._make()
        if frame < self._first:
            raise ConfigError(
                f"frame {frame} of the stream is too old, expected {self._first} or later."
            )
        return self._made[frame - self._first]

    def _make(self) -> None:
        """One more frame."""
        if self._play is None:
            if missing := self.waits_for():
                raise ConfigError(f"nothing can be played: the stream lacks {missing}.")
            self._play = max(self._times[-1] - self.config.delay_s, self._times[0])
            self._keep(*self._streamed(self._play, 1.0))
            return
        self._receive()
        newest = self._times[-1]
        self._level += (newest - self._play - self._level) * CONTROL_DT / LEVEL_S
        rate = 1 + float(np.clip(self._level - self.config.delay_s, -RATE, RATE))
        time = self._play + rate * CONTROL_DT
        if self._is_last and newest - self._play > 1e-9:
            time = min(time, newest)
        if time > newest:
            self._hold()
            return
        if self._gap:
            # As far behind the newest as at first: what has come at once is not played faster.
            time = max(time, newest - self.config.delay_s)
        if (
            self._times[min(self._after(time), len(self._times) - 1)] in self._anew
            and time < newest
        ):
            self._play = time
            self._hold()
            return
        if self._gap:
            self._begin_join(time)
            self._gap, self._level = 0.0, self.config.delay_s
        self._play = time
        qpos, qvel = self._streamed(time, rate)
        if self._join is not None:
            qpos, qvel = self._joined(qpos)
        self._keep(qpos, qvel)

    def _keep(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        if len(self._made) == KEPT:
            self._first += 1
        self._made.append((qpos, qvel))
        assert self._play is not None
        self.counts.behind_s.append(self._times[-1] - self._play)

    def _hold(self) -> None:
        """A frame of a gap: the velocity decays, and the pose with it comes to rest."""
        if not self._gap:
            self.counts.gaps += 1
        self._gap += CONTROL_DT
        self.counts.held_s += CONTROL_DT
        qpos, qvel = self._made[-1]
        self._keep(*self._slowed(qpos, qvel))

    def _slowed(self, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        qvel = qvel * np.exp(-CONTROL_DT / SLOWING_S)
        after = qpos.copy()
        after[:3] += qvel[:3] * CONTROL_DT
        turn = rot.quat_from_axis_angle(qvel[3:6] * CONTROL_DT)
        after[3:7] = rot.quat_normalize(rot.quat_mul(qpos[3:7], turn))
        after[7:] = np.clip(qpos[7:] + qvel[6:] * CONTROL_DT, *self._range.T)
        return after, qvel

    def _after(self, time: float) -> int:
        """The place of the first sample after a time, from 1 on."""
        return max(bisect.bisect_right(self._times, time), 1)

    def _interpolated(self, time: float) -> np.ndarray:
        """The stream at a time between its samples, in its own world. `[7 + J]`."""
        if len(self._times) == 1:
            return self._poses[0]
        at = min(self._after(time), len(self._times) - 1)
        begin, end = self._times[at - 1], self._times[at]
        share = float(np.clip((time - begin) / (end - begin), 0.0, 1.0))
        one, other = self._poses[at - 1], self._poses[at]
        qpos = (1 - share) * one + share * other
        qpos[3:7] = rot.quat_slerp(one[3:7], other[3:7], np.array(share))
        return qpos

    def _streamed(self, time: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """State of the stream at a time, in the motion's world, joints within their range."""
        # Differences are taken within what belongs together.
        first = max((t for t in self._anew if t <= time), default=self._times[0])
        elsewhere = min((t for t in self._anew if t > time), default=np.inf)
        last = self._times[bisect.bisect_left(self._times, elsewhere) - 1]
        before, after = max(time - CONTROL_DT, first), min(time + CONTROL_DT, last)
        poses = np.stack([self._interpolated(t) for t in (time, before, after)])
        qpos, one, other = self._placed(poses)
        span = max(after - before, 1e-9)
        return qpos, rate * difference(one, other, qpos[3:7], span)

    def _placed(self, qpos: np.ndarray) -> np.ndarray:
        """Configurations `[..., 7 + J]` of the stream in the motion's world, within the range."""
        place, heading = self._place, rot.quat_from_matrix(self._place.matrix)
        pos = qpos[..., :3] @ place.matrix.T + place.offset
        quat = rot.quat_mul(heading, qpos[..., 3:7])
        return np.concatenate([pos, quat, np.clip(qpos[..., 7:], *self._range.T)], -1)

    def _begin_join(self, time: float) -> None:
        held, _ = self._made[-1]
        stream = self._interpolated(time)
        one, other = (rot.quat_to_matrix(qpos[3:7]) for qpos in (held, stream))
        self._place = Alignment.of(held[:3], one, stream[:3], other)
        farthest = float(np.abs(self._placed(stream)[7:] - held[7:]).max())
        self._join = (0.0, max(JOIN_S, farthest / JOIN_SPEED))

    def _joined(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A frame of a join, from the frame before over into the stream's `qpos`."""
        assert self._join is not None
        held, _ = self._made[-1]
        gone, length = self._join
        gone += CONTROL_DT
        # What is left of the way is covered so that the share done is smooth: 3 s^2 - 2 s^3.
        shares = (min(x / length, 1.0) for x in (gone - CONTROL_DT, gone))
        before, now = (smoothstep(share) for share in shares)
        share = (now - before) / (1 - before) if now < 1 else 1.0
        blended = (1 - share) * held + share * qpos
        blended[3:7] = rot.quat_slerp(held[3:7], qpos[3:7], np.array(share))
        self._join = (gone, length) if gone < length else None
        return blended, difference(held, blended, blended[3:7], CONTROL_DT)


def _normal(sample: Sample) -> np.ndarray:
    qpos = np.array(sample.qpos, np.float64)
    qpos[3:7] = rot.quat_normalize(qpos[3:7])
    return qpos


def difference(one: np.ndarray, other: np.ndarray, quat: np.ndarray, span_s: float) -> np.ndarray:
    """Mean velocity `[6 + J]` from one configuration to another, turning in the frame of `quat`."""
    turn = rot.quat_to_rotvec(rot.quat_mul(other[3:7], rot.quat_conj(one[3:7])))
    parts = (other[:3] - one[:3], rot.quat_rotate_inverse(quat, turn), other[7:] - one[7:])
    return np.concatenate(parts) / span_s
