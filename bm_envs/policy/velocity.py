"""Published policies that walk at a commanded velocity: what their files leave out.

Their ONNX files say what they take and give as sizes alone. How an observation is laid out, gains,
poses and limits are facts of the three families below, told apart by those sizes. No file ships:
where each is, its licence and its hash stand in `FAMILIES`.

Sources: unitreerobotics/unitree_rl_lab e72a072, amazon-far/holosoma fc600e7, LeCAR-Lab/ASAP
91df82c, and how rhoyn/teleop-walking-benchmark drives them. g and w are gravity's direction and the
angular velocity in the pelvis' axes, c the command, a the last raw action.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bm_envs.cli import file_sha256
from bm_envs.errors import PolicyError
from bm_envs.policy.graph import MAX_TRACKER_OPERATIONS
from bm_envs.policy.session import first_line, open_session, read_onnx
from bm_envs.policy.spec import CONTROL_DT
from bm_envs.robots import g1
from bm_envs.rotations import wrapped

J, OWNED = g1.NUM_JOINTS, g1.FIRST_ARM  # joints before it have the policy's gains
_TO_ISAAC = g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)  # breadth first, from ours
_TO_OURS = g1.order_map(g1.ISAAC_JOINT_NAMES, g1.JOINT_NAMES)
SCALE = 0.25  # rad of a joint's target per unit of action, in all families


@dataclass(frozen=True)
class Seen:
    """What a policy is shown of N robots, float, project order."""

    gravity: np.ndarray
    """`[N, 3]`, unit vector downwards in the pelvis' axes."""
    ang_vel: np.ndarray
    """`[N, 3]`, rad/s, in the pelvis' axes."""
    joint_pos: np.ndarray
    """`[N, 29]`, rad."""
    joint_vel: np.ndarray
    """`[N, 29]`, rad/s."""
    command: np.ndarray
    """`[N, 3]`, m/s forward and left, rad/s left."""
    away: np.ndarray
    """`[N, 2]`, distance of the place it is led to, m, and turn to the heading there, rad."""
    arm_targets: np.ndarray
    """`[N, 14]`, rad, targets of the arms' joints."""
    arms_moved: bool
    """Whether somebody else gives those targets."""


@dataclass(frozen=True)
class Family:
    """Facts about a published policy and others of its layout."""

    inputs: int
    """Numbers of an observation."""
    outputs: int
    """Numbers of an action."""
    pose: tuple[float, ...]
    """`[29]`, rad, joint targets of a zero action."""
    legs: tuple[tuple[float, ...], tuple[float, ...]]
    """Gains of a leg's six joints: N m/rad and N m s/rad."""
    waist: tuple[tuple[float, ...], tuple[float, ...]]
    """Gains of the waist's three joints."""
    limits: dict[str, Any]
    """Limits of the command, as fields of the tour's configuration."""
    sha256: str
    """Of the published file."""
    where: str
    """Repository, commit and path of the published file."""
    licence: str
    """Of the repository."""

    def drives(self) -> dict[str, tuple[float, ...]]:
        """What `ActuationConfig` takes; the arms' gains are those of the robot's table."""
        gains = {
            name: (*self.legs[i], *self.legs[i], *self.waist[i], *table[OWNED:])
            for i, (name, table) in enumerate(
                (("stiffness", g1.STIFFNESS), ("damping", g1.DAMPING))
            )
        }
        drives = {"default_joint_pos": self.pose, "action_scale": (SCALE,) * J, **gains}
        return {name: tuple(map(float, values)) for name, values in drives.items()}


_RL_LAB_POSE = np.array(
    [-0.1, -0.1, 0, 0, 0, 0, 0, 0, 0, 0.3, 0.3, 0.3, 0.3, -0.2, -0.2, 0.25, -0.25, 0, 0, 0, 0, 0.97,
     0.97, 0.15, -0.15, 0, 0, 0, 0]
)  # fmt: skip
_ASAP_LEG = (-0.1, 0.0, 0.0, 0.3, -0.2, 0.0)
FAMILIES = {
    "rl_lab": Family(
        480, 29, tuple(_RL_LAB_POSE[_TO_OURS]),
        ((100, 100, 100, 150, 40, 40), (2, 2, 2, 4, 2, 2)), ((200,) * 3, (5,) * 3),
        dict(forward=(-0.5, 1.0), left=0.3, yaw_rate=0.2, gain=2.0),
        "610c27e463a8f666aa50a06346678c00b4df3859f10b54bcc1f817c28251406f",
        "GitHub unitreerobotics/unitree_rl_lab e72a072: deploy/robots/g1/config/policy/velocity/"
        "v0/exported/policy.onnx", "Apache-2.0",
    ),
    "holosoma": Family(
        100, 29, tuple(g1.DEFAULT_JOINT_POS),
        ((40.179, 99.098, 40.179, 99.098, 28.501, 28.501),
         (2.5579, 6.3088, 2.5579, 6.3088, 1.8144, 1.8144)),
        ((40.179, 28.501, 28.501), (2.5579, 1.8144, 1.8144)),
        dict(forward=(-1.0, 1.0), left=1.0, yaw_rate=1.0),
        "8346fd90778439395922a8c7256f24125ae84b8dea949128bac9e23c02bc7717",
        "GitHub amazon-far/holosoma fc600e7: src/holosoma_inference/holosoma_inference/models/loco/"
        "g1_29dof/fastsac_g1_29dof.onnx", "Apache-2.0",
    ),
    "asap": Family(
        500, 12, (*_ASAP_LEG, *_ASAP_LEG, 0, 0, 0, *g1.DEFAULT_JOINT_POS[OWNED:]),
        ((100, 100, 100, 200, 20, 20), (2.5, 2.5, 2.5, 5, 0.2, 0.1)), ((400,) * 3, (5,) * 3),
        dict(forward=(-1.0, 1.0), left=0.8, yaw_rate=0.8),
        "188aea28fac59adc561b6c5effabc8add608aab3955368755e322831de9af652",
        "GitHub LeCAR-Lab/ASAP 91df82c: sim2real/models/dec_loco/20250109_231507-noDR_rand_history_"
        "loco_stand_height_noise-decoupled_locomotion-g1_29dof/model_6600.onnx", "MIT",
    ),
}  # fmt: skip


class VelocityPolicy:
    """A velocity policy's file, and what it remembers of N robots. Made by `load_velocity_policy`.

    Attributes:
        path: the file.
        name: for tables: the family's, or the file's name where it is not the published one.
        family: name of its layout in `FAMILIES`.
        sha256: of the file.
        drives: `[29]` each, what `ActuationConfig` takes.
        limits: of the command, as fields of the tour's configuration.
    """

    def __init__(self, path: Path, threads: int) -> None:
        model = read_onnx(path, most=MAX_TRACKER_OPERATIONS)
        sizes = _sizes(model)
        by_sizes = {(family.inputs, family.outputs): name for name, family in FAMILIES.items()}
        if sizes not in by_sizes:
            known = "; ".join(
                f"{name}'s {family.inputs} numbers to {family.outputs}"
                for name, family in FAMILIES.items()
            )
            shown = "no single array" if sizes is None else f"{sizes[0]} numbers to {sizes[1]}"
            raise PolicyError(
                f"{path}: takes {shown}, expected a velocity policy of a known layout: {known}."
            )
        self.path, self.sha256 = path, file_sha256(path)
        self.family = by_sizes[sizes]
        facts = FAMILIES[self.family]
        self.name = self.family if self.sha256 == facts.sha256 else path.stem
        self.drives, self.limits = facts.drives(), dict(facts.limits)
        self._input = model.graph.input[0].name
        self._session = open_session(model, threads)
        self._memory = MEMORIES[self.family](0)

    @property
    def published(self) -> bool:
        """Whether it is the very file that was published."""
        return self.sha256 == FAMILIES[self.family].sha256

    def reset(self, num_envs: int) -> None:
        """Forget everything: N robots begin."""
        self._memory = MEMORIES[self.family](num_envs)

    def act(self, seen: Seen) -> np.ndarray:
        """Raw actions of all 29 joints, project order: targets are pose + 0.25 action. `[N, 29]`.

        Raises:
            PolicyError: the network cannot be computed.
        """
        obs = self._memory.observe(seen).astype(np.float32)
        try:
            # A row a call: the published files have a batch of one.
            rows = [self._session.run(None, {self._input: row[None]})[0][0] for row in obs]
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise PolicyError(f"{self.path}: the network fails ({first_line(error)}).") from None
        return self._memory.act(np.stack(rows).astype(np.float64))


def load_velocity_policy(path: str | Path, *, threads: int = 1) -> VelocityPolicy:
    """Load a velocity policy's ONNX file.

    Raises:
        PolicyError: unreadable, or of no known layout; one sentence that names the file.
    """
    try:
        return VelocityPolicy(Path(path), threads)
    except PolicyError as error:
        message = str(error)
        raise PolicyError(message if str(path) in message else f"{path}: {message}") from None


def is_velocity_policy(path: str | Path) -> bool:
    """Whether a path is an ONNX file of the sizes of a known velocity policy.

    Raises:
        PolicyError: it is a file, and unreadable.
    """
    path = Path(path)
    if not path.is_file():
        return False
    known = {(family.inputs, family.outputs) for family in FAMILIES.values()}
    return _sizes(read_onnx(path, most=MAX_TRACKER_OPERATIONS)) in known


def _sizes(model: Any) -> tuple[int, int] | None:
    """Numbers that a graph takes and gives, if that is one array of rows each."""
    weights = {tensor.name for tensor in model.graph.initializer}
    arrays = [value for value in model.graph.input if value.name not in weights]
    ends = [*arrays, *model.graph.output]
    shapes = [[dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in ends]
    if len(arrays) != 1 or len(ends) != 2 or any(len(shape) != 2 for shape in shapes):
        return None
    return shapes[0][1], shapes[1][1]


class RlLab:
    """Unitree's rl_lab: five frames of 0.2 w, g, c, q - pose, 0.05 dq, a; joints breadth first.

    Term by term, the oldest first; at the start all are the first. Where somebody else moves the
    arms, it is shown them as it asked: 0.25 a, at rest.
    """

    FRAMES, CLIP = 5, 10.0

    def __init__(self, num_envs: int) -> None:
        self._action = np.zeros((num_envs, J))  # breadth first
        self._frames: list[list[np.ndarray]] = []

    def observe(self, seen: Seen) -> np.ndarray:
        """`[N, 480]`."""
        offset, speed = seen.joint_pos[:, _TO_ISAAC] - _RL_LAB_POSE, seen.joint_vel[:, _TO_ISAAC]
        if seen.arms_moved:
            offset = np.where(_ARMS, SCALE * self._action, offset)
            speed = np.where(_ARMS, 0.0, speed)
        frame = [
            0.2 * seen.ang_vel, seen.gravity, seen.command, offset, 0.05 * speed, self._action
        ]  # fmt: skip
        self._frames = [*self._frames[-self.FRAMES + 1 :], frame]
        frames = [self._frames[0]] * (self.FRAMES - len(self._frames)) + self._frames
        return np.concatenate([term for terms in zip(*frames, strict=True) for term in terms], 1)

    def act(self, output: np.ndarray) -> np.ndarray:
        """`[N, 29]`."""
        self._action = output.clip(-self.CLIP, self.CLIP)
        return self._action[:, _TO_OURS]


_ARMS = _TO_ISAAC >= OWNED  # breadth first


class Holosoma:
    """holosoma: a, 0.25 w, c (turn first), cos of two phases, q - stance, 0.05 dq, g, sin of them.

    Phases go around once a second, half a turn apart; both are half a turn while no velocity is
    commanded.
    """

    STANDS = 0.01  # commands below are none

    def __init__(self, num_envs: int) -> None:
        self._action = np.zeros((num_envs, J))
        self._phase = np.tile([0.0, np.pi], (num_envs, 1))
        self._stands = np.zeros(num_envs, bool)

    def observe(self, seen: Seen) -> np.ndarray:
        """`[N, 100]`."""
        stands = np.linalg.norm(seen.command, axis=1) < self.STANDS
        self._phase[self._stands & ~stands] = 0.0, np.pi
        self._phase[stands] = np.pi
        self._stands = stands
        turn_first = seen.command[:, [2, 0, 1]]
        obs = np.concatenate([
            self._action, 0.25 * seen.ang_vel, turn_first, np.cos(self._phase),
            seen.joint_pos - g1.DEFAULT_JOINT_POS, 0.05 * seen.joint_vel, seen.gravity,
            np.sin(self._phase),
        ], 1)  # fmt: skip
        self._phase = wrapped(self._phase + 2 * np.pi * CONTROL_DT)
        return obs

    def act(self, output: np.ndarray) -> np.ndarray:
        """`[N, 29]`."""
        self._action = output
        return output.copy()


class Asap:
    """ASAP's decoupled walk: 12 leg joints; a frame of 100 numbers, and four before it.

    It stands while it is near its place, and has a clock of 0.9 s otherwise.
    """

    SPLIT = (12, 15, 16, 17, 19, 20, 21, 50, 79, 82, 99)  # where a frame's terms begin
    HEAD, CLIP, PERIOD, HEIGHT = 79, 100.0, 0.9, 0.78
    GO, STOP = (0.08, 0.1), (0.04, 0.05)  # m and rad
    LEGS = 12

    def __init__(self, num_envs: int) -> None:
        self._action = np.zeros((num_envs, self.LEGS))
        self._walks = np.zeros(num_envs, bool)
        self._time = 0.0
        self._past = np.zeros((4, num_envs, 100))  # the newest first

    def observe(self, seen: Seen) -> np.ndarray:
        """`[N, 500]`."""
        beyond = (seen.away > self.GO).any(1)
        self._walks = np.where(self._walks, ~(seen.away <= self.STOP).all(1), beyond)
        walks = self._walks[:, None]
        command = np.where(walks, seen.command, 0.0)
        phase = np.where(walks, 2 * np.pi * (self._time % self.PERIOD) / self.PERIOD, 0.0)
        pose = np.array([*_ASAP_LEG, *_ASAP_LEG, *[0.0] * (J - self.LEGS)])
        ones = np.ones_like(phase)
        frame = np.concatenate([
            self._action, 0.25 * seen.ang_vel, command[:, 2:], 2 * self.HEIGHT * ones,
            command[:, :2], walks * ones, np.cos(phase), seen.joint_pos - pose,
            0.05 * seen.joint_vel, seen.gravity, 0.0 * np.tile(ones, 3), seen.arm_targets,
            np.sin(phase),
        ], 1)  # fmt: skip
        history = [
            past for terms in zip(*(np.split(p, self.SPLIT, 1) for p in self._past), strict=True)
            for past in terms
        ]  # fmt: skip
        obs = np.concatenate([frame[:, : self.HEAD], *history, frame[:, self.HEAD :]], 1)
        self._past = np.concatenate([frame[None], self._past[:-1]])
        self._time += CONTROL_DT
        return obs

    def act(self, output: np.ndarray) -> np.ndarray:
        """`[N, 29]`; the waist is held at 0, and arms at their stance if nobody moves them."""
        self._action = output.clip(-self.CLIP, self.CLIP)
        pose = np.array(_ASAP_LEG * 2)
        low, high = g1.JOINT_RANGE[: self.LEGS].T
        target = (pose + SCALE * self._action).clip(low, high)
        full = np.zeros((len(output), J))
        full[:, : self.LEGS] = (target - pose) / SCALE
        return full


MEMORIES: dict[str, type[RlLab] | type[Holosoma] | type[Asap]] = {
    "rl_lab": RlLab, "holosoma": Holosoma, "asap": Asap,
}  # fmt: skip
