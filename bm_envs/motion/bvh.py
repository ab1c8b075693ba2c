"""A person's motion (`PersonMotion`), read from a BVH file.

A BVH file has two parts. HIERARCHY is a tree of joints, each with an offset from its parent and the
names of its channels; MOTION is a line of channel values per frame, in the order of the tree.
Angles are degrees; a joint turns by its rotation channels in the order in which they are named,
each about the axes as turned so far, so `Zrotation Yrotation Xrotation` is the matrix Rz Ry Rx.
Position channels take the place of the offset, axis by axis (LAFAN1's roots repeat their position
as the offset, so adding the two would count it twice). Units of length, the axis that points up and
which way the skeleton faces are not in the file: `bm_envs/motion/skeletons.py` finds them.

An `End Site` has an offset and no channels. It is no joint of the tree, but a mapping may name it:
`LeftToe_end` is the one of `LeftToe` (a second is `LeftToe_end2`), and `with_ends` makes it one.
One file because it reads one format; it is long because a file may be malformed in many ways.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bm_envs import rotations as rot
from bm_envs.errors import MotionError, MotionWarning
from bm_envs.motion.clip import MAX_FRAMES
from bm_envs.motion.resample import (
    frame_count,
    frame_positions,
    interpolate,
    interpolate_quats,
)

MAX_JOINTS = 500
MAX_ENDS = 500
MAX_NAME = 100
"""Characters in a joint's name."""
FREE_JOINT_FRAMES = 2**19
"""Joints times frames, of 56 bytes each. Beyond that many, a file has a value or more for each: a
short file of joints without channels could otherwise take any amount of memory."""
FREE_RESAMPLED, MAX_RESAMPLED = 2**21, 2.5
"""Joints times frames after resampling: beyond the first number, at most the second for each in the
file (20 to 50 Hz). A frame time of 10 s could otherwise make 500 frames of one."""
SLOW = 5.0
"""Hz. A lower rate is hardly a motion: mostly somebody wrote the rate as the frame time."""
MAX_LINE = 65536
"""Characters in a line: 500 joints of six channels with 20 digits."""
_AXES = {"X": 0, "Y": 1, "Z": 2}
_CHANNELS = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass(frozen=True, eq=False)
class PersonMotion:
    """A moving tree of joints, in the file's own units and axes.

    A joint's parent comes before it; the first joint is the root.
    """

    source: str
    """What errors name: the file."""
    fps: float
    """Frames per second."""
    names: tuple[str, ...]
    parents: tuple[int, ...]
    """Index of each joint's parent; -1 for the root."""
    offsets: np.ndarray
    """`[J, 3]`: each joint in its parent's frame when nothing moves: the rest pose."""
    local_pos: np.ndarray
    """`[T, J, 3]`: the same while moving; other than the offsets only where there are channels."""
    local_quat: np.ndarray
    """`[T, J, 4]`: rotation of each joint in its parent's frame, w x y z."""
    up: str | None = None
    """The axis that the file's layout says points up; None: it says none."""
    ends: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    """End sites by name: the joint they hang on, and the offset `[3]` in its frame."""

    @property
    def num_frames(self) -> int:
        return len(self.local_quat)

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """Forward kinematics: positions `[T, J, 3]` and quaternions `[T, J, 4]` in file axes."""
        pos, quat = np.empty_like(self.local_pos), np.empty_like(self.local_quat)
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                pos[:, joint], quat[:, joint] = self.local_pos[:, joint], self.local_quat[:, joint]
                continue
            turned = rot.quat_rotate(quat[:, parent], self.local_pos[:, joint])
            pos[:, joint] = pos[:, parent] + turned
            quat[:, joint] = rot.quat_mul(quat[:, parent], self.local_quat[:, joint])
        return pos, rot.quat_normalize(quat)

    def rest_pos(self) -> np.ndarray:
        """`[J, 3]`: joint positions with all rotations zero and the root at the origin."""
        pos = np.zeros_like(self.offsets)
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                pos[joint] = pos[parent] + self.offsets[joint]
        return pos

    def with_ends(self, names: Iterable[str]) -> PersonMotion:
        """The motion with those of its end sites as joints that do not turn."""
        names = [name for name in dict.fromkeys(names) if name in self.ends]
        if not names:
            return self
        parents = tuple(self.ends[name][0] for name in names)
        offsets = np.stack([self.ends[name][1] for name in names])
        shape = (self.num_frames, len(names))
        still = np.broadcast_to([1.0, 0.0, 0.0, 0.0], (*shape, 4))
        return replace(
            self,
            names=(*self.names, *names),
            parents=(*self.parents, *parents),
            offsets=np.concatenate([self.offsets, offsets]),
            local_pos=np.concatenate([self.local_pos, np.broadcast_to(offsets, (*shape, 3))], 1),
            local_quat=np.concatenate([self.local_quat, still], 1),
            ends={name: end for name, end in self.ends.items() if name not in names},
        )

    def at_rate(self, fps: float) -> PersonMotion:
        """The motion at another rate, by a spline through its frames."""
        frames = frame_count(self.num_frames, self.fps, fps)
        joints = len(self.names)
        free = max(FREE_RESAMPLED, MAX_RESAMPLED * joints * self.num_frames)
        most = min(MAX_FRAMES, int(free / joints))
        if not 3 <= frames <= most:
            raise MotionError(
                f"{self.source}: {self.num_frames} frames at {self.fps:.6g} fps make {frames} at"
                f" {fps:g} fps, expected 3 to {most} (with {joints} joints)."
            )
        position = frame_positions(self.num_frames, self.fps, fps)
        return replace(
            self,
            fps=fps,
            local_pos=interpolate(self.local_pos, position, "cubic"),
            local_quat=interpolate_quats(self.local_quat, position, "cubic"),
        )


@dataclass
class _Joint:
    name: str
    parent: int
    offset: tuple[float, float, float] | None = None
    channels: tuple[str, ...] | None = None


def read_bvh(path: str | Path) -> PersonMotion:
    """Read a BVH file.

    Raises:
        MotionError: one sentence with the file, the line, what came and what was expected.
    """
    lines = _Lines(Path(path))
    joints, ends = _read_hierarchy(lines)
    columns = sum(len(joint.channels or ()) for joint in joints)
    fps, values = _read_frames(lines, columns)
    count = len(joints) * len(values)
    if count > max(FREE_JOINT_FRAMES, values.size):
        raise MotionError(
            f"{path}: has {len(joints)} joints in {len(values)} frames of {columns} values,"
            f" expected a value or more for each joint beyond {FREE_JOINT_FRAMES} joints times"
            " frames."
        )

    offsets = np.array([joint.offset for joint in joints], np.float64)
    local_pos = np.tile(offsets, (len(values), 1, 1))
    local_quat = np.zeros((len(values), len(joints), 4))
    local_quat[..., 0] = 1.0
    column = 0
    for index, joint in enumerate(joints):
        for channel in joint.channels or ():
            axis, value = _AXES[channel[0]], values[:, column]
            column += 1
            if channel.endswith("position"):
                local_pos[:, index, axis] = value
            else:
                turn = np.zeros((len(values), 3))
                turn[:, axis] = np.radians(value)
                local_quat[:, index] = rot.quat_mul(
                    local_quat[:, index], rot.quat_from_axis_angle(turn)
                )
    return PersonMotion(
        source=str(path),
        fps=fps,
        names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        offsets=offsets,
        local_pos=local_pos,
        local_quat=local_quat,
        ends=_named_ends(joints, ends),
    )


def _named_ends(
    joints: list[_Joint], ends: list[tuple[int, tuple[float, float, float]]]
) -> dict[str, tuple[int, np.ndarray]]:
    """End sites by name; a joint that has such a name keeps it."""
    taken = {joint.name for joint in joints}
    named: dict[str, tuple[int, np.ndarray]] = {}
    counts: dict[int, int] = {}
    for parent, offset in ends:
        counts[parent] = number = counts.get(parent, 0) + 1
        name = f"{joints[parent].name}_end{number if number > 1 else ''}"
        if name not in taken and name not in named:
            named[name] = (parent, np.array(offset, np.float64))
    return named


class _Lines:
    """The file's lines that are not blank, with their numbers; errors name the last one taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        if not os.path.isfile(path):  # unlike Path.is_file, False and no error for a hopeless name
            problem = "is not a file" if os.path.exists(path) else "does not exist"
            raise MotionError(f"{path}: {problem}, expected a .bvh file.")
        self._lines = self._read()

    def _read(self):
        try:
            # `readline(limit)`: a line of a gigabyte is refused and not read.
            with self.path.open(encoding="utf-8-sig") as stream:
                while line := stream.readline(MAX_LINE):
                    self.number += 1
                    if len(line) >= MAX_LINE:
                        raise self.error(f"has {MAX_LINE} or more characters")
                    if line.strip():
                        yield line.strip()
        except UnicodeDecodeError as error:
            raise MotionError(
                f"{self.path}: holds bytes that are not text in UTF-8, expected a BVH file (saved"
                " as UTF-8)."
            ) from error
        except OSError as error:
            raise MotionError(f"{self.path}: cannot be read ({error.strerror}).") from error

    def next(self, expected: str) -> str:
        """The next line, or an error that says what should have come."""
        line = next(self._lines, None)
        if line is None:
            raise MotionError(f"{self.path}: ends after line {self.number}, expected {expected}.")
        return line

    def rest(self):
        return self._lines

    def error(self, problem: str) -> MotionError:
        return MotionError(f"{self.path}: line {self.number} {problem}.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _numbers(lines: _Lines, words: list[str], what: str) -> list[float]:
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not abs(value) <= 1e9:  # NaN fails every comparison
            raise lines.error(f"has {_shown(word)} in its {what}, expected a finite number")
        values.append(value)
    return values


def _read_hierarchy(
    lines: _Lines,
) -> tuple[list[_Joint], list[tuple[int, tuple[float, float, float]]]]:
    """Joints and end sites in the order of the file, up to and with the line MOTION.

    An end site is the index of its joint and its offset.
    """
    if lines.next("HIERARCHY") != "HIERARCHY":
        raise lines.error("is not 'HIERARCHY', which begins a BVH file")
    joints: list[_Joint] = []
    ends: list[tuple[int, tuple[float, float, float]]] = []
    names: set[str] = set()
    open_joints: list[int] = []  # the joints whose braces are open, -1 for an end site
    end_placed = False  # whether the open end site has its offset
    opening: int | None = None  # the joint or end site whose brace must come next
    while True:
        line = lines.next("the rest of the hierarchy and a line MOTION")
        # A brace may share the line with a name; nothing else shares a line.
        braced = opening is None and line.endswith("{") and line != "{"
        words = line.removesuffix("{").split() if braced else line.split()
        word = words[0]
        if opening is not None:
            if line != "{":
                raise lines.error(f"is {_shown(line)}, expected '{{'")
            open_joints.append(opening)
            opening = None
        elif word == "MOTION":
            if open_joints or not joints:
                raise lines.error(
                    f"begins MOTION with {len(open_joints)} open braces and {len(joints)} joints,"
                    " expected 0 and 1 or more"
                )
            break
        elif word == "ROOT" or word == "JOINT":
            name = " ".join(words[1:])
            if not name:
                raise lines.error(f"has {word} without a name")
            if len(name) > MAX_NAME or not name.isprintable():
                raise lines.error(
                    f"has {word} {_shown(name)} of {len(name)} characters, expected a name of at"
                    f" most {MAX_NAME} that can be printed"
                )
            if (word == "ROOT") == bool(joints):
                raise lines.error(f"has {_shown(line)}, expected one ROOT, which holds all others")
            if word == "JOINT" and (not open_joints or open_joints[-1] < 0):
                raise lines.error(f"has joint {_shown(name)} outside of a joint's braces")
            if name in names:
                raise lines.error(f"has joint {_shown(name)} for the second time")
            if len(joints) == MAX_JOINTS:
                raise lines.error(
                    f"has joint number {MAX_JOINTS + 1}, and {MAX_JOINTS} are the limit"
                )
            names.add(name)
            joints.append(_Joint(name, open_joints[-1] if open_joints else -1))
            opening = len(joints) - 1
        elif words[:2] == ["End", "Site"]:
            if not open_joints or open_joints[-1] < 0:
                raise lines.error("has an end site outside of a joint's braces")
            if len(ends) == MAX_ENDS:
                raise lines.error(
                    f"has end site number {MAX_ENDS + 1}, and {MAX_ENDS} are the limit"
                )
            opening, end_placed = -1, False
        elif line == "}":
            if not open_joints:
                raise lines.error("closes a brace that was not opened")
            closed = open_joints.pop()
            if closed >= 0:
                joint = joints[closed]
                if joint.offset is None or joint.channels is None:
                    lacking = "OFFSET" if joint.offset is None else "CHANNELS"
                    raise lines.error(f"ends joint {_shown(joint.name)}, which has no {lacking}")
        elif word == "OFFSET" and open_joints:
            offset = _numbers(lines, words[1:], "OFFSET")
            if len(offset) != 3:
                raise lines.error(f"has {len(offset)} numbers behind OFFSET, expected 3")
            place = (offset[0], offset[1], offset[2])
            if open_joints[-1] < 0:
                if end_placed:
                    raise lines.error("has OFFSET for the second time in one end site")
                end_placed = True
                ends.append((open_joints[-2], place))
            elif joints[open_joints[-1]].offset is not None:
                raise lines.error("has OFFSET for the second time in one joint")
            else:
                joints[open_joints[-1]].offset = place
        elif word == "CHANNELS" and open_joints and open_joints[-1] >= 0:
            if joints[open_joints[-1]].channels is not None:
                raise lines.error("has CHANNELS for the second time in one joint")
            joints[open_joints[-1]].channels = _channels(lines, words)
        else:
            raise lines.error(
                f"is {_shown(line)}, expected JOINT, End Site, OFFSET, CHANNELS, a brace or MOTION"
            )
        if braced:
            if opening is None:
                raise lines.error(f"is {_shown(line)}, where no brace belongs")
            open_joints.append(opening)
            opening = None
    return joints, ends


def _channels(lines: _Lines, words: list[str]) -> tuple[str, ...]:
    channels = tuple(word.capitalize() for word in words[2:])  # some write `XPosition`
    if len(words) < 2 or words[1] != str(len(channels)):
        counted = words[1] if len(words) > 1 else "nothing"
        raise lines.error(
            f"counts {_shown(counted)} channels and names {len(channels)}, expected one number"
        )
    for channel in channels:
        if channel not in _CHANNELS:
            raise lines.error(
                f"has channel {_shown(channel)}, expected {', '.join(sorted(_CHANNELS))}"
            )
    if len(set(channels)) < len(channels):
        raise lines.error("names a channel twice")
    return channels


def _read_frames(lines: _Lines, columns: int) -> tuple[float, np.ndarray]:
    """Frames per second and values `[T, columns]`."""
    line = lines.next("'Frames: N'")
    key, _, value = line.partition(":")
    if key.strip() != "Frames" or not value.strip().isdecimal():
        raise lines.error(f"is {_shown(line)}, expected 'Frames: N'")
    frames = int(value) if len(value.strip()) < 10 else MAX_FRAMES + 1
    if not 2 <= frames <= MAX_FRAMES:
        raise lines.error(f"has {value.strip()[:20]} frames, expected 2 to {MAX_FRAMES}")
    line = lines.next("'Frame Time: SECONDS'")
    key, _, value = line.partition(":")
    if key.split() != ["Frame", "Time"] or not value.strip():
        raise lines.error(f"is {_shown(line)}, expected 'Frame Time: SECONDS'")
    (frame_time,) = _numbers(lines, [value.strip()], "frame time")
    if not 1e-4 <= frame_time <= 10.0:
        rate = f", or {1 / frame_time:.6f} if that is the rate" if 10 < frame_time <= 1e4 else ""
        raise lines.error(f"has a frame time of {frame_time:g} s, expected 0.0001 to 10{rate}")
    if 1.0 / frame_time < SLOW:
        warnings.warn(
            f"{lines.path}: line {lines.number} has a frame time of {frame_time:g} s, which is"
            f" {1.0 / frame_time:.3g} frames a second; for {frame_time:g} frames a second it would"
            f" be {1.0 / frame_time:.6f}.",
            MotionWarning,
            stacklevel=3,
        )
    rows: list[list[float]] = []
    for line in lines.rest():
        words = line.split()
        if len(rows) == frames:
            raise lines.error(f"comes after the {frames} frames that 'Frames:' counts")
        if len(words) != columns:
            raise lines.error(f"has {len(words)} values, expected {columns}: one for each channel")
        rows.append(_numbers(lines, words, "values"))
    if len(rows) < frames:
        raise MotionError(
            f"{lines.path}: ends after line {lines.number} with {len(rows)} frames, expected"
            f" {frames} as 'Frames:' says."
        )
    return 1.0 / frame_time, np.array(rows).reshape(frames, columns)
