"""Train a Unitree G1 to track motion through a learned model of its dynamics.

    python algos/wm_track.py --motion walk                      # two CPU cores, the built-in walk
    python algos/wm_track.py --motion 'walk1[5:15]' --seed 2    # a cut of LAFAN1
    python algos/wm_track.py --preset gpu --suite lafan1-40     # MuJoCo-Warp on an NVIDIA GPU

The family of SuperTrack (Fussell, Bergamin, Holden 2021) and SuperMimic (arXiv 2610.28480): N
robots fill a replay buffer with short noisy roll-outs; a world model learns from it what a control
step does; the policy learns in imagination, by the gradient of the tracking error through roll-outs
of policy and model. `docs/algorithms/wm_track.md` has its equations and what was measured.

The policy, its 160 observations, its evaluation, the run directory and the exported file are
those of `ppo_track.py`. It sees its own place against the reference (`motion_anchor_pos_b`),
without which it could not correct a drift; nothing beyond the published layout is needed.

Letters in shapes: N robots, T steps, B samples, K steps of a model's window, H imagined steps,
J = 29 joints and actions, O observation, M links.

Logged (metrics.jsonl and TensorBoard; means over the iteration), beside those of `ppo_track.py`
that have nothing of PPO in them:

    perf/collect_s, perf/model_s, perf/policy_s      seconds of the iteration's three parts
    perf/cpu_s                                       processor seconds of this process
    losses/model, losses/policy                      see `WorldModel.loss`, `tracking_loss`
    losses/model_norm, losses/policy_norm            gradients' norms before they are bounded
    model/first_<state>, model/last_<state>          mean error after one step, and after K steps
    imagined/pos_m                                   mean distance of the anchor after H steps
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning.evaluation import Evaluation
from bm_envs.learning.folder import as_arrays
from bm_envs.learning.networks import (
    UNCHANGED,
    Mirror,
    Network,
    TrackingPolicy,
    as_mirror,
    begin_with,
    copy_normalizer,
    polyak_update,
    use_bfloat16,
)
from bm_envs.learning.processes import Processes
from bm_envs.learning.robots import Episodes, Robots, make_robots, mean_errors
from bm_envs.learning.run import Flags, config_record, settings_of
from bm_envs.learning.tracker import TrackerRun, TrackerRunConfig, spec_of, tracker_run
from bm_envs.motion import suites
from bm_envs.motion.library import load_motions
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import layout, mirror_map
from bm_envs.rotations import quat_normalize, quat_to_matrix
from bm_envs.tasks.track.config import (
    CONTROL_DT,
    RewardConfig,
    SamplingConfig,
    TrackConfig,
    laptop_task,
)
from bm_envs.tasks.track.rewards import OPTIONAL, TRACKED, action_accel, joint_accel
from bm_envs.tasks.track.rows import ANCHOR, FEET, Reference
from bm_envs.tasks.track.task import TrackTask

J = g1.NUM_JOINTS


def _task() -> TrackConfig:
    return dataclasses.replace(laptop_task(), start=SamplingConfig(mode="adaptive", alpha=0.005))


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults are for two CPU cores; `gpu` is for one GPU."""

    preset: Literal["laptop", "gpu"] = "laptop"
    """Which set of values the other flags start from."""
    motion: tuple[str, ...] = ("walk",)
    """Motions: names, files, cuts such as 'walk1[5:15]'. Several: one policy for all."""
    suite: suites.Suite | None = None
    """All motions of a suite in their place."""
    run: Flags[TrackerRunConfig] = TrackerRunConfig(eval_every=10_000)
    """Where the run is kept, how it is evaluated and when it ends."""

    start_from: str | None = None
    """A policy to go on from (run directory, file or shipped name): its network becomes the
    policy. It must have these hidden layers, observations and drives."""
    total_timesteps: int = 200_000
    """Control steps over all robots."""
    num_envs: int = 64
    """Robots, N."""
    num_steps: int = 8
    """Steps per robot and iteration, T."""
    capacity: int = 100_000
    """Control steps in the replay buffer, over all robots."""
    warmup_iterations: int = 16
    """Iterations at the start in which the model learns alone."""
    action_noise: float = 0.2
    """Standard deviation of the raw action's noise, the mean over robots: the first robot has none,
    the last twice as much, so that the model sees the policy's own states and what is around."""
    noise_correlation: float = 0.75
    """Correlation of a robot's action noise from step to step."""

    model_updates: int = 8
    """Updates of the model per iteration."""
    model_batch: int = 256
    """Windows per update of the model."""
    model_horizon: int = 8
    """Steps of a window, K."""
    model_hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the model."""
    model_learning_rate: float = 2e-3
    """Step size of the model."""

    policy_updates: int = 4
    """Updates of the policy per iteration."""
    policy_batch: int = 128
    """Imagined roll-outs per update of the policy."""
    policy_horizon: int = 32
    """Steps of an imagined roll-out, H."""
    critic: bool = False
    """Whether a critic tells what comes after the horizon: falls begin earlier than they show."""
    discount: float = 0.97
    """Of the cost, per control step, where there is a critic."""
    gae_lambda: float = 0.95
    """Lambda of the returns that the critic is fitted to."""
    critic_ema: float = 0.95
    """Averaging of the critic's weights per update; it is fitted to the average's values."""
    recovery: float = 1.5
    """1/s. The wanted velocity is the reference's plus this times the way back to it."""
    recent: int = 20_000
    """Control steps, over all robots, of whose states imagination starts: the last ones. Of older
    ones many are where the policy does not come any more."""
    after_end: float = 0.0
    """Weight of imagined frames behind a clip's end, where the reference stays as it was at last:
    else nothing tells the last half second that a robot is about to fall."""
    imagined_noise: float = 0.1
    """Standard deviation of the raw action's noise in imagination."""
    learning_rate: float = 3e-3
    """Step size of the policy at the start."""
    final_learning_rate: float = 1e-3
    """The same at the end of the run, by an exponential schedule. The model's falls alike."""
    state_clip: float = 0.0
    """Bound of the gradient that one imagined step hands to the one before it, per roll-out; 0: no
    bound."""
    ema: float = 0.97
    """Averaging of the policy's weights per update; the average is evaluated and exported."""
    max_grad_norm: float = 1.0
    """Bound of a gradient's norm."""
    muon: bool = False
    """Hidden weight matrices learn by Muon in place of Adam (needs PyTorch 2.9)."""
    curriculum: bool = True
    """Raise the difficulty from 0 to 1 as the policy learns to stay up, as
    `ppo_track.py` does."""
    curriculum_s: float = 5.0
    """Robot seconds per failure in the hardest tenth of the clips above which the level rises."""
    curriculum_step: float = 0.002
    """Change of the level per iteration."""
    bfloat16: Literal["auto", "on", "off"] = "auto"
    """Matrix products of both networks under bfloat16 autocast; `auto`: where the processor has
    instructions for it. Kinematics, integration and losses are float32 always."""
    overlap: bool = True
    """Let the policy learn in a second thread while robots move and the model learns. The numbers
    are the same without."""
    cuda_graphs: bool = True
    """On an NVIDIA GPU, record the kernels of an update once and launch them together from then
    on."""

    hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of the policy."""
    activation: Literal["elu", "relu", "tanh"] = "elu"
    """Nonlinearity of the policy."""
    residual: bool = True
    """Add the reference pose to the mean: (ref_joint_pos - q0) / action_scale + net(obs)."""
    symmetry: bool = True
    """Left-right symmetric networks, the model's too."""

    task: TrackConfig = field(default_factory=_task)
    """The task, as in `ppo_track.py`; weights and widths of its rewards are the loss's."""

    def __post_init__(self) -> None:
        for name in (
            "num_envs", "num_steps", "model_batch", "model_horizon", "policy_batch",
            "policy_horizon",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        for name in ("learning_rate", "final_learning_rate", "model_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a positive number.")
        batch = self.num_envs * self.num_steps
        if self.total_timesteps < batch:
            raise ConfigError(
                f"total_timesteps {self.total_timesteps} is less than one iteration of num_envs * "
                f"num_steps = {batch}."
            )
        rows = self.capacity // self.num_envs
        if rows < self.num_steps + self.model_horizon + 1:
            raise ConfigError(
                f"capacity {self.capacity} is {rows} steps of each robot, expected num_steps + "
                f"model_horizon + 1 = {self.num_steps + self.model_horizon + 1} or more."
            )
        if not 0.0 <= self.noise_correlation < 1.0:
            raise ConfigError(
                f"noise_correlation is {self.noise_correlation}, expected a number in [0, 1)."
            )
        for name in ("hidden", "model_hidden"):
            if self.symmetry and any(width % 2 for width in getattr(self, name)):
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected even numbers: with symmetry units "
                    "are pairs."
                )
        if self.task.randomize.action_delay:
            raise ConfigError(
                f"task.randomize.action_delay is {self.task.randomize.action_delay}, expected 0: "
                "the model is told the targets that arrive."
            )
        if self.muon and not hasattr(torch.optim, "Muon"):
            raise ConfigError("muon needs PyTorch 2.9 or newer: pip install -U torch.")


def gpu() -> Config:
    """One policy for many clips on a GPU: sizes of the published followers. Not tuned."""
    return Config(
        preset="gpu", num_envs=2048, num_steps=4, capacity=2_000_000,
        total_timesteps=60_000_000, model_updates=1, policy_updates=1, model_batch=4096,
        policy_batch=4096, model_hidden=(1024, 1024), hidden=(1024, 512, 256), recent=500_000,
        learning_rate=3e-4, final_learning_rate=1e-4, model_learning_rate=3e-4,
        overlap=False,
        run=TrackerRunConfig(backend="mujoco_warp", eval_every=10_000_000, checkpoint_s=300.0),
    )  # fmt: skip


PRESETS = {"laptop": Config, "gpu": gpu}


# --- on a device --------------------------------------------------------------------------------


class Constant:
    """A tensor that a device is sent once: to a graph nothing can come from the host."""

    def __init__(self, value: Any) -> None:
        self._value = torch.as_tensor(value)
        self._sent: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, other: Tensor) -> Tensor:
        """The values where `other` is, in its type."""
        key = other.device, other.dtype
        if key not in self._sent:
            self._sent[key] = self._value.to(other)
        return self._sent[key]


class Graph:
    """A function of tensors; on an NVIDIA GPU a CUDA graph, which launches its kernels together.

    One by one, the thousands of small ones of an update take longer to launch than to run. The
    first call records them. For that the function must not wait for the device, may read nothing
    but its arguments and tensors that stay in their place (weights, which change there), and may
    leave nothing behind but gradients. What it returned and left is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Any], recorded: bool) -> None:
        self.function, self.recorded = function, recorded
        self.inputs: tuple[Tensor, ...] = ()

    def __call__(self, fixed: Any, *inputs: Tensor) -> Any:
        """The function's value. `fixed`, its first argument, is the same object in every call."""
        if not self.recorded:
            return self.function(fixed, *inputs)
        if not self.inputs:
            self.inputs, self.fixed = tuple(value.clone() for value in inputs), fixed
            self.record()
        assert self.fixed is fixed
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.replay()
        return self.outputs

    def record(self) -> None:
        """Record the kernels; what they compute now is of no use."""
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.inputs[0].device):
            # Libraries choose kernels and reserve memory at their first calls, which cannot be
            # recorded.
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    self.function(self.fixed, *self.inputs)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.outputs = self.function(self.fixed, *self.inputs)

    def replay(self) -> None:
        """Compute outputs and gradients, in their place, of what the inputs hold."""
        self.graph.replay()


# --- kinematics ---------------------------------------------------------------------------------


def joint_transforms(bodies: Sequence[str | None]) -> tuple[list[int], np.ndarray]:
    """Of links in their parents, as functions of a joint: `P0 + sin(q) P1 + cos(q) P2`.

    The rotation is `F Exp(q a) = F (I + A^2) + sin(q) F A - cos(q) F A^2` with F the link's fixed
    rotation and A the cross product with the joint's axis a. None stands for no motion at all.

    Returns:
        The joints' numbers, and `P [3, M, 4, 4]`.
    """
    table = {body.name: body for body in g1.BODIES}
    joint_of = {joint.body: i for i, joint in enumerate(g1.JOINTS)}
    joints, parts = [], np.zeros((3, len(bodies), 4, 4))
    parts[0] = np.eye(4)
    for i, name in enumerate(bodies):
        joints.append(0 if name is None else joint_of[name])
        if name is None:
            continue
        fixed = quat_to_matrix(quat_normalize(np.array(table[name].quat, np.float64)))
        axis = np.array(g1.JOINTS[joints[-1]].axis, np.float64)
        cross = np.cross(axis, np.eye(3)).T
        turns = fixed @ (np.eye(3) + cross @ cross), fixed @ cross, -fixed @ cross @ cross
        parts[:, i, :3, :3] = turns
        parts[0, i, :3, 3] = table[name].pos
    return joints, parts


def path_to(body: str) -> list[str]:
    """Links from the pelvis, itself left out, to `body`."""
    parent = {body.name: body.parent for body in g1.BODIES}
    path = [body]
    while parent[path[0]] != g1.ROOT_BODY:
        path.insert(0, parent[path[0]])
    return path


class Compose(torch.autograd.Function):
    """Products of rigid transforms, `[M, 3, 4, B]` each: first the second one, then the first.

    The batch is the last axis, along which the processor's vectors run: a third of the time of
    batched products of small matrices, derivative included.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        """Rotations multiply; places are turned by the first rotation, and shifted."""
        ctx.save_for_backward(first, second)
        out = first[:, :, 0, None] * second[:, None, 0]
        out.addcmul_(first[:, :, 1, None], second[:, None, 1])
        out.addcmul_(first[:, :, 2, None], second[:, None, 2])
        out[:, :, 3] += first[:, :, 3]
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """See `torch.autograd.Function`."""
        (gradient,) = gradients
        first, second = ctx.saved_tensors
        by_first = torch.empty_like(gradient)
        turn = by_first[:, :, :3]
        torch.mul(gradient[:, :, 0, None], second[:, None, :, 0], out=turn)
        for j in (1, 2, 3):
            turn.addcmul_(gradient[:, :, j, None], second[:, None, :, j])
        by_first[:, :, 3] = gradient[:, :, 3]
        by_second = first[:, 0, :3, None] * gradient[:, 0, None]
        for i in (1, 2):
            by_second.addcmul_(first[:, i, :3, None], gradient[:, i, None])
        return by_first, by_second


def compose(first: Tensor, second: Tensor) -> Tensor:
    """See `Compose`."""
    product = Compose.apply(first, second)
    assert isinstance(product, Tensor)
    return product


class Kinematics(nn.Module):
    """Differentiable forward kinematics of some links, all of a depth at once."""

    parts: Tensor
    joints: Tensor
    picked: Tensor

    def __init__(self, bodies: Sequence[str]) -> None:
        super().__init__()
        paths = {name: path_to(name) for name in g1.BODY_NAMES[1:]}
        needed = {link for body in bodies if body in paths for link in paths[body]}
        # Of one depth in the table's order: a set's differs between processes, and with it the
        # order of sums in the derivative, so that a run would not go on bit for bit.
        order = sorted((name for name in paths if name in needed), key=lambda n: len(paths[n]))
        depths = range(1, len(paths[order[-1]]) + 1)
        levels = [[name for name in order if len(paths[name]) == depth] for depth in depths]
        self.sizes = [len(level) for level in levels]
        before = [g1.ROOT_BODY]
        for d, level in enumerate(levels):
            parents = [before.index([g1.ROOT_BODY, *paths[name]][-2]) for name in level]
            self.register_buffer(f"parents{d}", torch.tensor(parents), persistent=False)
            before = level
        place = [[g1.ROOT_BODY, *order].index(name) for name in bodies]
        self.register_buffer("picked", torch.tensor(place), persistent=False)
        joints, parts = joint_transforms(order)
        self.register_buffer("joints", torch.tensor(joints), persistent=False)
        self.register_buffer("parts", _as_parts(parts), persistent=False)

    def forward(self, root: Tensor, joint_pos: Tensor) -> Tensor:
        """Links in the world, `[M, 3, 4, B]`, of pelves `root [3, 4, B]` and joints `[B, 29]`."""
        # Cut in pieces once: the derivative of each cut alone would be a tensor of the whole size.
        own = _own_transforms(self.parts, joint_pos, self.joints).split(self.sizes)
        found = [root[None]]
        for d, level in enumerate(own):
            parents = self.get_buffer(f"parents{d}")
            found.append(compose(found[-1].index_select(0, parents), level))
        return torch.cat(found).index_select(0, self.picked)


def _as_parts(parts: np.ndarray) -> Tensor:
    return torch.tensor(parts, dtype=torch.float32)[:, :, :3, :, None]


def _own_transforms(parts: Tensor, joint_pos: Tensor, joints: Tensor) -> Tensor:
    q = joint_pos.T.index_select(0, joints)[:, None, None]
    return parts[0] + q.sin() * parts[1] + q.cos() * parts[2]


class Near(NamedTuple):
    """The pelvis, torso and both feet in the pelvis's axes, of which all that acts is made."""

    lin: Tensor
    """`[B, 3]`, of the pelvis, m/s."""
    links: Tensor
    """`[3, 3, 4, B]`, from torso and feet to the pelvis."""
    moved: Tensor
    """`[3, 3, B]`, m/s, mean velocities in a control step in which joints keep theirs."""


NEAR_BODIES = (g1.ANCHOR_BODY, *g1.FOOT_BODIES)


class NearKinematics(nn.Module):
    """Torso and feet alone, three chains of up to six joints, by products of pairs of joints."""

    parts: Tensor
    joints: Tensor

    def __init__(self) -> None:
        super().__init__()
        paths = [path_to(body) for body in NEAR_BODIES]
        padded = [[*path, *[None] * (6 - len(path))] for path in paths]
        # Of a pair the first and the second link, pairs, chains.
        order = [chain[2 * pair + k] for k in (0, 1) for pair in range(3) for chain in padded]
        joints, parts = joint_transforms(order)
        self.register_buffer("joints", torch.tensor(joints), persistent=False)
        self.register_buffer("parts", _as_parts(parts), persistent=False)

    def forward(self, joint_pos: Tensor) -> Tensor:
        """From the links to the pelvis at joint positions `[B, 29]`. `[3, 3, 4, B]`."""
        own = _own_transforms(self.parts, joint_pos, self.joints)
        one, two, three = compose(*own.chunk(2)).chunk(3)
        return compose(compose(one, two), three)


# --- world model --------------------------------------------------------------------------------


class State(NamedTuple):
    """States of B robots."""

    pos: Tensor
    """`[B, 3]`, pelvis, world, m."""
    rot: Tensor
    """`[B, 3, 3]`, pelvis to world."""
    lin: Tensor
    """`[B, 3]`, of the pelvis's origin, world axes, m/s."""
    ang: Tensor
    """`[B, 3]`, pelvis axes, rad/s."""
    joint_pos: Tensor
    """`[B, 29]`, rad."""
    joint_vel: Tensor
    """`[B, 29]`, rad/s."""

    @staticmethod
    def of(qpos: Tensor, qvel: Tensor) -> State:
        """From the engine's `qpos [B, 36]` and `qvel [B, 35]`."""
        rot = quat_to_matrix(qpos[:, 3:7])
        return State(qpos[:, :3], rot, qvel[:, :3], qvel[:, 3:6], qpos[:, 7:], qvel[:, 6:])


# The corners of a sole in its link's axes, the same on both feet. [4, 3]
SOLE = Constant([geom.start for geom in g1.FOOT_SPHERES[:4]])
SOLE_RADIUS = g1.FOOT_SPHERES[0].radius
CONTACT_DEPTH = 0.01  # m, over which a sole's corner goes from free to loaded, as the model sees it


# From a vector to the nine numbers of its cross product's matrix.
_CROSS = Constant(np.cross(np.eye(3)[:, None], np.eye(3)).swapaxes(1, 2).reshape(3, 9))


def turned(rot: Tensor, vector: Tensor) -> Tensor:
    """`rot Exp(vector)` of `[B, 3, 3]` and small rotation vectors `[B, 3]`, rad, by the series.

    Up to the fourth order: 3e-6 off for the 0.2 rad that 10 rad/s are in a step.
    """
    square = (vector * vector).sum(-1)[:, None, None]
    cross = (vector @ _CROSS.like(vector)).view(-1, 3, 3)
    change = cross * (1 - square / 6) + (cross @ cross) * (0.5 - square / 24)
    return rot + rot @ change


def _repeat(pattern: Sequence[float], times: int) -> list[float]:
    return list(pattern) * times


class WorldModel(nn.Module):
    """What a control step does to a robot: a network that gives accelerations, and integration.

    All is in the pelvis's axes, without x, y and heading. Inputs: height; gravity's direction;
    velocities of the pelvis; joints' positions and velocities, and how far their targets are; of
    the feet, heights of the soles' corners, how much each is in reach of the ground, velocities.
    Outputs: changes of the pelvis's velocities and of the joints', and three corrections of the
    mean velocities by which places move, since a control step hides several physics steps.

    A linear layer runs beside the network: the drives are linear, and are learned at once.
    """

    scale: Tensor
    count: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.kinematics = NearKinematics()
        vector, axial = (1.0, -1.0, 1.0), (-1.0, 1.0, -1.0)
        index, sign = g1.mirror_map()
        corners = np.array([5, 4, 7, 6, 1, 0, 3, 2])  # other foot, other edge
        feet = np.array([3, 4, 5, 0, 1, 2])
        inputs = [
            (np.arange(1), [1.0]), (np.arange(3), vector), (np.arange(3), vector),
            (np.arange(3), axial), (index, sign), (index, sign), (index, sign),
            (corners, _repeat([1.0], 8)), (corners, _repeat([1.0], 8)),
            (feet, _repeat(vector, 2)),
        ]  # fmt: skip
        joined = _joined_mirror(inputs)
        outputs = _joined_mirror([
            (np.arange(3), vector), (np.arange(3), axial), (index, sign),
            (np.arange(3), vector), (np.arange(3), axial), (index, sign),
        ])  # fmt: skip
        mirrors = (joined, outputs) if config.symmetry else None
        sizes = (len(joined[0]), *config.model_hidden, len(outputs[0]))
        self.network = Network(sizes, "elu", 0.01, mirrors)
        self.linear = Network((sizes[0], sizes[-1]), "elu", 0.01, mirrors)
        self.register_buffer("scale", torch.ones(sizes[-1]))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # Share of the velocity after a control step in the mean one of its n physics steps, each
        # of which moves by the velocity after it: with even accelerations (n + 1) / 2n.
        n = config.task.decimation
        self.late = (n + 1) / (2 * n)
        self.rounded = False  # whether the products are of bfloat16

    def near(self, state: State) -> Near:
        """What both the model's inputs and observations are made of."""
        batch = len(state.pos)
        soon = state.joint_pos + CONTROL_DT * state.joint_vel
        now, then = self.kinematics(torch.cat([state.joint_pos, soon])).split(batch, -1)
        lin = (state.lin[:, None] @ state.rot)[:, 0]
        place, ang = now[:, :, 3], state.ang.T.expand(3, 3, batch)
        swept = torch.linalg.cross(ang, place, dim=1)
        return Near(lin, now, lin.T + swept + (then[:, :, 3] - place) * (1 / CONTROL_DT))

    def inputs(self, state: State, near: Near, target: Tensor) -> Tensor:
        """What the network sees of states and joint targets `[B, 29]`, rad. `[B, D]`."""
        up = state.rot[:, 2]
        # Heights of the corners: of the foot's origin, and along what is up in the foot's axes.
        feet = (near.links[1:] * up.T[:, None]).sum(1)  # [2, 4, B]
        height = SOLE.like(up) @ feet[:, :3] + (feet[:, 3:] + (state.pos[:, 2] - SOLE_RADIUS))
        height = height.flatten(0, 1).T
        return torch.cat([
            state.pos[:, 2:], up, near.lin, state.ang, state.joint_pos, state.joint_vel,
            target - state.joint_pos, height, torch.sigmoid(height * (-1 / CONTACT_DEPTH)),
            near.moved[1:].flatten(0, 1).T,
        ], 1)  # fmt: skip

    def rates(self, state: State, following: State) -> Tensor:
        """Of true states, one step apart, what the network should put out. `[B, 70]`."""
        moved = (following.pos - state.pos) / CONTROL_DT
        turn = state.rot.mT @ following.rot
        # Small turns: the skew part is sin(angle) times the axis, within 1e-3 of the vector.
        turned = 0.5 / CONTROL_DT * torch.stack([
            turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0],
            turn[:, 1, 0] - turn[:, 0, 1],
        ], 1)  # fmt: skip
        bent = (following.joint_pos - state.joint_pos) / CONTROL_DT

        def between(first: Tensor, second: Tensor) -> Tensor:
            return self.late * second + (1 - self.late) * first

        to_local = lambda v: (v[:, None] @ state.rot)[:, 0]  # noqa: E731
        return torch.cat([
            to_local(following.lin - state.lin), following.ang - state.ang,
            following.joint_vel - state.joint_vel,
            to_local(moved - between(state.lin, following.lin)),
            turned - between(state.ang, following.ang),
            bent - between(state.joint_vel, following.joint_vel),
        ], 1)  # fmt: skip

    def integrate(self, state: State, rates: Tensor) -> State:
        """The state after a control step in which velocities changed by `rates [B, 70]`."""
        dlin, dang, djoint, plin, pang, pjoint = rates.split((3, 3, J, 3, 3, J), 1)
        late = self.late
        dlin, plin = (torch.stack([dlin, plin], 1) @ state.rot.mT).unbind(1)
        return State(
            state.pos + CONTROL_DT * (state.lin + late * dlin + plin),
            turned(state.rot, CONTROL_DT * (state.ang + late * dang + pang)),
            state.lin + dlin,
            state.ang + dang,
            state.joint_pos + CONTROL_DT * (state.joint_vel + late * djoint + pjoint),
            state.joint_vel + djoint,
        )

    def forward(self, state: State, near: Near, target: Tensor) -> State:
        """The state after a control step with joint targets `[B, 29]`, rad."""
        x = self.network.normalize(self.inputs(state, near, target)).clamp(-10, 10)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.rounded):
            y = self.network(x) + self.linear(x)
        return self.integrate(state, y.to(x.dtype) * self.scale)

    @torch.no_grad()
    def update_normalizer(self, state: State, target: Tensor, following: State) -> None:
        """Fold true transitions into the scales of inputs and outputs."""
        self.network.update_normalizer(self.inputs(state, self.near(state), target))
        rates = self.rates(state, following)
        # The median of a batch is not moved by the few robots that are pushed.
        square = (rates * rates).clamp(max=25 * (rates * rates).median(0).values + 1e-8).mean(0)
        if self.network.mirrors:
            square = 0.5 * (square + square[self.network.mirrors[-1][0]])
        share = (len(rates) / (self.count + len(rates))).float()
        self.scale.copy_((self.scale**2).lerp(square, share).sqrt() + 1e-6)
        self.count += len(rates)

    def errors(self, state: State, truth: State) -> Tensor:
        """Differences of states in units of a step's change, `[B, 76]`."""
        lin, ang, joint = self.scale.split((3, 3, J, 3 + 3 + J))[:3]
        dt = CONTROL_DT
        # A small turn of the difference r changes the nine numbers by 2 |r|^2 in squares.
        units = torch.cat([
            (dt * lin.mean()).expand(3), (dt * ang.mean() / 4.5**0.5).expand(9),
            lin.mean().expand(3), ang, dt * joint, joint,
        ])  # fmt: skip
        difference = [(a - b).flatten(1) for a, b in zip(state, truth, strict=True)]
        return torch.cat(difference, 1) / units

    def loss(
        self, states: Sequence[State], targets: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of K steps from true states, by the recorded targets: how far off the model gets.

        The mean over the six parts of a state, and over the numbers of each, of
        `sqrt(1 + e^2) - 1` with e in units of what a step changes: of robots that are pushed or hit
        something the outlier counts by its size and not by its square.

        Args:
            states: K + 1 true states.
            targets: `[K, B, 29]`, rad.
            valid: `[K, B]`, 1 until the episode's end, then 0.

        Returns:
            The loss, and mean errors after the first and the last step, in SI units.
        """
        state, found = states[0], []
        for target in targets:
            state = self(state, self.near(state), target)
            found.append(state)
        every, truth = (
            State(*(torch.cat(parts) for parts in zip(*some, strict=True)))
            for some in (found, states[1:])
        )
        error = self.errors(every, truth)
        weight = valid.flatten() / valid.sum().clamp(min=1)
        cost = ((1 + error * error).sqrt() - 1) @ _PER_NUMBER.like(error)
        told: dict[str, Tensor] = {}
        with torch.no_grad():
            for k, name in ((0, "first"), (len(targets) - 1, "last")):
                alive = valid[k] / valid[k].sum().clamp(min=1)
                for key in ("pos", "lin", "joint_pos", "joint_vel"):
                    off = (getattr(found[k], key) - getattr(states[k + 1], key)).abs().mean(1)
                    told[f"{name}_{key}"] = (off * alive).sum()
        return (cost * weight).sum(), told


# Weights of a state's numbers: the six parts count alike. [76]
_PARTS = (3, 9, 3, 3, J, J)
_PER_NUMBER = Constant(torch.cat([torch.full((n,), 1 / (n * len(_PARTS))) for n in _PARTS]))


def _joined_mirror(parts: Sequence[tuple[np.ndarray, Any]]) -> Mirror:
    """The reflection of values that stand one after another."""
    index, sign, start = [], [], 0
    for part, part_sign in parts:
        index.append(part + start)
        sign.append(np.asarray(part_sign))
        start += len(part)
    return as_mirror((np.concatenate(index), np.concatenate(sign)))


# --- replay buffer ------------------------------------------------------------------------------


class Starts(NamedTuple):
    """States of which imagination starts. `[..., D]` each, any leading axes."""

    qpos: Tensor
    qvel: Tensor
    last_action: Tensor
    default_joint_pos: Tensor
    row: Tensor
    last_row: Tensor


class Buffer:
    """The last control steps of N robots, `[L, N, ...]`, a ring in time.

    A slot holds the state before a step, what was done, and whether the episode ended by it.
    """

    def __init__(self, length: int, robots: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(length, robots, *shape, dtype=dtype, device=device)

        self.length, self.robots, self.written = length, robots, 0
        self.qpos, self.qvel = zeros(36), zeros(35)
        self.last_action, self.target, self.default_joint_pos = zeros(J), zeros(J), zeros(J)
        self.row, self.last_row = zeros(dtype=torch.int32), zeros(dtype=torch.int32)
        self.done = zeros(dtype=torch.bool)

    def add(self, starts: Starts, target: Tensor, done: Tensor) -> None:
        """One step of all robots."""
        slot = self.written % self.length
        for name, value in zip(Starts._fields, starts, strict=True):
            getattr(self, name)[slot] = value
        self.target[slot], self.done[slot] = target, done
        self.written += 1

    def draw(
        self,
        shape: Sequence[int],
        ahead: int,
        generator: torch.Generator,
        newest: int = sys.maxsize,
    ) -> Tensor:
        """Places `[*shape, 2]` (slot, robot) of which the next `ahead` steps are held, too.

        Of the `newest` slots alone.
        """
        held = min(self.written, self.length, newest)
        span = held - ahead
        assert span > 0
        draw = torch.rand(*shape, 2, generator=generator, device=self.done.device)
        age = (draw[..., 0] * span).long().clamp(max=span - 1)
        slot = (self.written - held + age) % self.length
        robot = (draw[..., 1] * self.robots).long().clamp(max=self.robots - 1)
        return torch.stack([slot, robot], -1)

    def starts(
        self, shape: Sequence[int], generator: torch.Generator, newest: int = sys.maxsize
    ) -> Starts:
        """States drawn evenly of the `newest` slots."""
        slot, robot = self.draw(shape, 0, generator, newest).unbind(-1)
        return Starts(*(getattr(self, name)[slot, robot] for name in Starts._fields))

    def windows(
        self, slot: Tensor, robot: Tensor, steps: int
    ) -> tuple[list[State], Tensor, Tensor]:
        """`steps + 1` states in a row from each place, targets `[K, B, 29]`, valid `[K, B]`."""
        slots = [(slot + k) % self.length for k in range(steps + 1)]
        states = [State.of(self.qpos[s, robot], self.qvel[s, robot]) for s in slots]
        targets = torch.stack([self.target[s, robot] for s in slots[:-1]])
        alive = torch.stack([~self.done[s, robot] for s in slots[:-1]])
        return states, targets, alive.cumprod(0).float()

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint: what is held."""
        held = min(self.written, self.length)
        values = {k: v[:held].cpu().numpy() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return {"written": self.written, **values}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.written = state["written"]
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                value[: len(state[name])] = torch.from_numpy(state[name])


# --- collection ---------------------------------------------------------------------------------


class Collector:
    """Robots under a policy with noise, and the buffer that they fill.

    The noise of a robot lasts from step to step; the first robot has none, the last twice the mean.
    """

    def __init__(self, config: Config, robots: Robots, seed: int) -> None:
        self.config, self.robots = config, robots
        self.device = device = robots.device
        self.generator = torch.Generator(device).manual_seed(seed)
        n = config.num_envs
        self.spread = torch.linspace(0, 2 * config.action_noise, n, device=device)[:, None]
        self.obs, _ = robots.reset(seed)
        self.noise, self.last_action = (torch.zeros(n, J, device=device) for _ in range(2))
        self.episodes = Episodes(robots)

    @torch.no_grad()
    def run(
        self, policy: TrackingPolicy, buffer: Buffer, steps: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Some steps of all robots; the observations `[T N, O]`, and what is logged."""
        config, robots, tick = self.config, self.robots, time.perf_counter()
        fresh = math.sqrt(1 - config.noise_correlation**2)
        seen = []
        for _ in range(steps):
            seen.append(self.obs.clone())
            draw = torch.randn(self.noise.shape, generator=self.generator, device=self.device)
            self.noise = config.noise_correlation * self.noise + fresh * self.spread * draw
            action = policy.mean(self.obs) + self.noise
            default = robots.default_joint_pos().clone()
            before = Starts(*robots.state(), self.last_action, default, *robots.rows())
            step = robots.step(action)
            done = step.terminated | step.truncated
            buffer.add(before, default + policy.action_scale * action, done)
            self.obs = step.obs
            self.episodes.add(step)
            self.noise = self.noise * ~done[:, None]
            self.last_action = action * ~done[:, None]
        collect_s = time.perf_counter() - tick
        metrics = {**self.episodes.figures(), "perf/collect_s": collect_s}
        return torch.cat(seen), metrics

    _STATE = ("obs", "noise", "last_action")

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        own = {name: getattr(self, name).cpu() for name in self._STATE}
        return {
            **own, **self.episodes.get_state(), "env": self.robots.get_state(),
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned, or a checkpoint holds of it."""
        self.robots.set_state(as_arrays(state["env"]))
        for name in self._STATE:
            setattr(self, name, state[name].to(self.device))
        self.episodes.set_state(state)
        self.generator.set_state(state["generator"])


# --- imagination --------------------------------------------------------------------------------


class BoundGradient(torch.autograd.Function):
    """The identity, behind which each row's gradient has at most a given norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        """`[B, D]` -> `[B, D]`."""
        ctx.bound = bound
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """See `torch.autograd.Function`."""
        (gradient,) = gradients
        norm = gradient.norm(dim=1, keepdim=True)
        return gradient * (ctx.bound / norm.clamp(min=ctx.bound)), None


def bounded(state: State, bound: float) -> State:
    """The same state, of which the step before gets a gradient of norm `bound` at most."""
    sizes = [value[0].numel() for value in state]
    flat = torch.cat([value.flatten(1) for value in state], 1)
    flat = BoundGradient.apply(flat, bound)
    parts = flat.split(sizes, 1)  # type: ignore[union-attr]
    return State(*(part.view_as(value) for part, value in zip(parts, state, strict=True)))


class Goals:
    """The reference motion for imagination: what is shown, and what robots are compared with."""

    def __init__(self, task: TrackTask, device: torch.device) -> None:
        self.table = torch.tensor(task.tables.reference).to(device)
        self.lead = task.config.lead

        body_quat = Reference(self.table).body_quat
        links = torch.cat(
            [quat_to_matrix(body_quat), Reference(self.table).body_pos[..., None]], -1
        )
        self.links = links.flatten(1).T.contiguous()  # `[M 3 4, F]`
        self.foot_contact = torch.as_tensor(task.tables.foot_contact).to(device)

    def at(self, rows: Tensor, last_rows: Tensor) -> Reference:
        """Rows `[B]`, held at the clips' last frames."""
        return Reference(self.table[torch.minimum(rows, last_rows)])

    def links_at(self, rows: Tensor, last_rows: Tensor) -> Tensor:
        """The tracked links there, in the world. `[M, 3, 4, B]`."""
        picked = self.links.index_select(1, torch.minimum(rows, last_rows))
        return picked.view(-1, 3, 4, len(rows))

    def foot_contact_at(self, rows: Tensor, last_rows: Tensor) -> Tensor:
        """Whether the reference's feet are on the ground there. `[B, 2]` bool."""
        return self.foot_contact[torch.minimum(rows, last_rows)]


def observation(
    names: Sequence[str], state: State, near: Near, shown: Reference, action: Tensor,
    default_joint_pos: Tensor,
) -> Tensor:  # fmt: skip
    """The task's observation of the terms `names`, see `observation_terms.TERMS`. `[B, O]`.

    Args:
        names: terms, in order.
        state: of the robots.
        near: of the same states.
        shown: the reference's frame.
        action: `[B, 29]`, the last one.
        default_joint_pos: `[B, 29]`, rad.
    """
    torso = state.rot @ near.links[0].permute(2, 0, 1)
    rot, pos = torso[..., :3], state.pos + torso[..., 3]
    away = ((shown.body_pos[:, ANCHOR] - pos)[:, None] @ rot)[:, 0]
    turn = rot.mT @ shown.anchor_axes.mT
    values = {
        "command": lambda: torch.cat([shown.joint_pos, shown.joint_vel], 1),
        "motion_anchor_pos_b": lambda: away,
        "motion_anchor_ori_b": lambda: turn[:, :, :2].flatten(1),
        "base_lin_vel": lambda: near.lin,
        "base_ang_vel": lambda: state.ang,
        "joint_pos": lambda: state.joint_pos - default_joint_pos,
        "joint_vel": lambda: state.joint_vel,
        "actions": lambda: action,
    }
    return torch.cat([values[name]() for name in names], 1)


class SquareErrors(torch.autograd.Function):
    """Of links `[M, 3, 4, H + 1, B]` less goals, the squares of `rewards.TRACKED`. `[6, H, B]`.

    With its own derivative, since those of cuts through so large a tensor would take most of the
    time of an update.
    """

    @staticmethod
    def forward(ctx: Any, error: Tensor, recovery: float) -> Tensor:
        """See `tracking_loss`."""
        ctx.save_for_backward(error)
        ctx.recovery = recovery
        change = (error[:, :, :, 1:] - error[:, :, :, :-1]) * (1 / CONTROL_DT)
        change[:, :, 3] += recovery * error[ANCHOR, :, 3, :-1]
        error = error[:, :, :, 1:]
        place, turn = error[:, :, 3], error[:, :, :3]
        turns = 0.5 * turn.square().sum((1, 2))
        return torch.stack([
            place[ANCHOR].square().sum(0),
            turns[ANCHOR],
            (place - place[ANCHOR]).square().sum(1).mean(0),
            turns.mean(0),
            change[:, :, 3].square().sum(1).mean(0),
            0.5 * change[:, :, :3].square().sum((1, 2)).mean(0),
        ])  # fmt: skip

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """See `torch.autograd.Function`."""
        (by,) = gradients
        (error,) = ctx.saved_tensors
        share = 1 / len(error)
        result = torch.empty_like(error)
        change = error[:, :, :, 1:] - error[:, :, :, :-1]
        pull = ctx.recovery * CONTROL_DT
        change[:, :, 3] += pull * error[ANCHOR, :, 3, :-1]
        change[:, :, 3] *= by[4] * (2 * share / CONTROL_DT**2)
        change[:, :, :3] *= by[5] * (share / CONTROL_DT**2)
        result[:, :, :, 0] = 0.0
        result[:, :, :, 1:] = change
        result[:, :, :, :-1] -= change
        result[ANCHOR, :, 3, :-1] += pull * change[:, :, 3].sum(0)
        here, error = result[:, :, :, 1:], error[:, :, :, 1:]
        place = error[:, :, 3]
        here[:, :, :3].addcmul_(error[:, :, :3], by[3] * share)
        here[ANCHOR, :, :3].addcmul_(error[ANCHOR, :, :3], by[1])
        own = (place - place[ANCHOR]) * (by[2] * (2 * share))
        here[:, :, 3] += own
        here[ANCHOR, :, 3] += 2 * place[ANCHOR] * by[0] - own.sum(0)
        return result, None


@functools.cache
def _tracked(rewards: RewardConfig) -> tuple[Constant, Constant]:
    """Weights and widths of the six tracking rewards."""
    return (
        Constant([getattr(rewards, name) for name in TRACKED]),
        Constant([getattr(rewards, f"{name}_std") for name in TRACKED]),
    )


def tracking_loss(
    links: Tensor, goal: Tensor, batch: int, rewards: RewardConfig, recovery: float = 0.0
) -> tuple[Tensor, Tensor]:
    """How far robots are from the reference over H steps, by the task's six tracking rewards.

    `sum_i w_i 2 (sqrt(1 + e_i^2 / s_i^2) - 1)`, e_i^2 the mean over links of the squared error of
    which the reward is `w_i exp(-e_i^2 / s_i^2)`: near the reference the two have one slope, and
    far from it, where the reward has none, this grows with the distance. Positions of links are
    relative to the anchor, in world axes; errors of velocities are the changes of errors of places
    from step to step. What the velocities are compared with is the reference's, and towards it by
    `recovery` times the anchor's distance: else it would never pay within half a second to hurry
    after it. Of a rotation the square is |R - R_ref|^2 / 2 = 2 (1 - cos angle).

    Args:
        links: tracked ones, in the world, over H + 1 steps of B robots, the first where they start:
            `[M, 3, 4, (H + 1) B]`.
        goal: what they are compared with, likewise.
        batch: B.
        rewards: weights and widths.
        recovery: 1/s.

    Returns:
        The loss and the squared distance of the anchor, m^2, of the H steps, `[H B]` each.
    """
    error = (links - goal).view(*links.shape[:3], -1, batch)
    squares = SquareErrors.apply(error, recovery)
    assert isinstance(squares, Tensor)
    weights, widths = (constant.like(squares) for constant in _tracked(rewards))
    scaled = squares / widths[:, None, None] ** 2
    loss = 2 * weights @ ((1 + scaled).sqrt() - 1).flatten(1)
    return loss, squares[0].detach().flatten()


def on_ground(links: Tensor) -> Tensor:
    """How much each foot is on the ground, by the lowest corner of its sole. `[2, B]`, 0 to 1.

    The model has no forces, and a gradient needs a slope: half at a height of `CONTACT_DEPTH`, 0.88
    where the corner touches.

    Args:
        links: tracked ones, in the world, `[M, 3, 4, B]`.
    """
    up = torch.stack([links[foot, 2] for foot in FEET])  # a list would go to a GPU every time
    lowest = (SOLE.like(up) @ up[:, :3] + up[:, 3:] - SOLE_RADIUS).amin(1)
    return torch.sigmoid((CONTACT_DEPTH - lowest) * (2 / CONTACT_DEPTH))


def optional_cost(
    links: Tensor, joint_vel: Tensor, actions: Tensor, ref_contact: Tensor, rewards: RewardConfig
) -> Tensor:
    """What those of `rewards.OPTIONAL` that have a weight take off, of H steps. `[H B]`.

    Args:
        links: tracked ones, in the world, after the steps: `[M, 3, 4, H B]`.
        joint_vel: before the first step and after each, `[H + 1, B, 29]`, rad/s.
        actions: likewise, `[H + 1, B, 29]`. What was before is not known: the first step has no
            second difference.
        ref_contact: of the reference after the steps, `[H B, 2]` bool.
        rewards: weights.
    """
    cost = torch.zeros_like(actions[1:, :, 0])
    if rewards.action_accel:
        cost[1:] -= rewards.action_accel * action_accel(actions[2:], actions[1:-1], actions[:-2])
    if rewards.joint_accel:
        cost -= rewards.joint_accel * joint_accel(joint_vel[1:], joint_vel[:-1], CONTROL_DT)
    cost = cost.flatten()
    if rewards.foot_contact:
        mismatch = (on_ground(links) - ref_contact.T.to(links)).abs().sum(0)
        cost = cost - rewards.foot_contact * mismatch
    return cost


class Noise(NamedTuple):
    """What disturbs an imagined roll-out."""

    action: Tensor
    """`[H, B, 29]`."""
    obs: Tensor
    """`[H, B, O]`."""


class Dream(NamedTuple):
    """An imagined roll-out of B robots over H steps."""

    cost: Tensor
    """`[H, B]`, of the state after each step."""
    counted: Tensor
    """`[H, B]`, 1 up to the clip's end, then `after_end`."""
    seen: Tensor
    """`[H + 1, B, O]`, observations without noise, as the policy normalizes them."""
    distance: Tensor
    """`[H, B]`, m, of the anchor."""


def lambda_returns(
    cost: Tensor, counted: Tensor, value: Tensor, discount: float, lam: float
) -> Tensor:
    """Mean discounted costs that the states before each step should be worth. `[H, B]`.

    `G_h = (1 - g) c_h + g ((1 - l) V_{h+1} + l G_{h+1})`, `G_H = V_H`; behind a clip's end nothing
    changes any more, so that the state is worth what the last cost is.

    Args:
        cost: `[H, B]`, of the state after each step.
        counted: `[H, B]`, see `Dream`.
        value: `[H + 1, B]`, of the states before each step, and of the last.
        discount: g.
        lam: l.
    """
    returns, running = torch.empty_like(cost), value[-1]
    for h in reversed(range(len(cost))):
        ahead = (1 - lam) * value[h + 1] + lam * running
        inside = counted[h + 1] if h + 1 < len(cost) else counted[h]
        ahead = torch.where(inside > 0, ahead, cost[h])
        running = (1 - discount) * cost[h] + discount * ahead
        returns[h] = running
    return returns


class Imagination(nn.Module):
    """Roll-outs of a policy in a world model, and what they cost."""

    soft_low: Tensor
    soft_high: Tensor
    noise: Tensor

    def __init__(self, config: Config, task: TrackTask, goals: Goals) -> None:
        super().__init__()
        self.config, self.goals = config, goals
        self.names = config.task.observations
        self.links = Kinematics(g1.TRACKED_BODIES)
        low, high = g1.soft_joint_range().T.astype(np.float32)
        self.register_buffer("soft_low", torch.from_numpy(low.copy()))
        self.register_buffer("soft_high", torch.from_numpy(high.copy()))
        noise = torch.zeros(task.observation_size)
        places = layout(self.names)
        for name, level in dataclasses.asdict(config.task.noise_level).items():
            if name in places and config.task.noise:
                noise[places[name]] = level
        self.register_buffer("noise", noise)

    def draw_noise(self, batch: int, level: float, generator: torch.Generator) -> Noise:
        """Noise of the actions, and that of observations at a level of the curriculum."""
        horizon, device = self.config.policy_horizon, self.noise.device
        action = torch.randn(horizon, batch, J, generator=generator, device=device)
        obs = torch.zeros(horizon, batch, len(self.noise), device=device)
        if level > 0:
            obs = torch.rand(obs.shape, generator=generator, device=device)
            obs = (2 * obs - 1) * (level * self.noise)
        return Noise(action * self.config.imagined_noise, obs)

    def forward(
        self, policy: TrackingPolicy, model: WorldModel, starts: Starts, noise: Noise
    ) -> Dream:
        """H steps from `starts`."""
        config, horizon = self.config, self.config.policy_horizon
        rewards = config.task.rewards
        state = State.of(starts.qpos, starts.qvel)
        action, row, last = starts.last_action, starts.row.long(), starts.last_row.long()
        states, actions, seen = [state], [action], []
        for h in range(horizon + 1):
            shown = self.goals.at(row + h + self.goals.lead, last)
            near = model.near(state)
            obs = observation(self.names, state, near, shown, action, starts.default_joint_pos)
            seen.append(obs)
            if h == horizon:
                break
            obs = obs + noise.obs[h]
            x = policy.normalize(obs)
            with torch.autocast(row.device.type, torch.bfloat16, enabled=model.rounded):
                mean = policy(x)
            action = mean.to(obs.dtype) + policy.offset(obs)
            actions.append(action)
            action = action + noise.action[h]
            state = model(state, near, starts.default_joint_pos + policy.action_scale * action)
            if config.state_clip:
                state = bounded(state, config.state_clip)
            states.append(state)
        every = State(*(torch.cat(values) for values in zip(*states, strict=True)))
        rows = torch.cat([row + h for h in range(horizon + 1)])
        ends = last.repeat(horizon + 1)
        behind = (rows > ends)[len(row) :]
        counted = 1.0 - (1.0 - config.after_end) * behind
        root = torch.cat([every.rot, every.pos[..., None]], -1).permute(1, 2, 0).contiguous()
        links = self.links(root, every.joint_pos)
        cost, distance = tracking_loss(
            links, self.goals.links_at(rows, ends), len(row), rewards, config.recovery
        )
        joint_pos = every.joint_pos[len(row) :]
        outside = (joint_pos - joint_pos.clamp(self.soft_low, self.soft_high)).abs()
        cost = cost - rewards.joint_limit * outside.sum(1)
        change = torch.cat(
            [(b - a).square().sum(1) for a, b in zip(actions, actions[1:], strict=False)]
        )
        cost = cost - rewards.action_rate * change
        if any(getattr(rewards, name) for name in OPTIONAL):
            after = slice(len(row), None)
            cost = cost + optional_cost(
                links[..., after], every.joint_vel.view(horizon + 1, len(row), J),
                torch.stack(actions), self.goals.foot_contact_at(rows[after], ends[after]), rewards,
            )  # fmt: skip
        shape = (horizon, len(row))
        return Dream(
            cost.view(shape), counted.view(shape), policy.normalize(torch.stack(seen)),
            distance.sqrt().view(shape),
        )  # fmt: skip


# --- learners -----------------------------------------------------------------------------------


class Optimizer:
    """Adam; with `muon`, Muon for weights between hidden layers. Bounds and symmetry beforehand."""

    def __init__(self, networks: Sequence[Network], config: Config) -> None:
        self.networks, self.config = networks, config
        self.parameters = [p for network in networks for p in network.parameters()]
        hidden = []
        if config.muon:
            hidden = [
                network.get_parameter(f"layers.{i}.weight")
                for network in networks
                for i in range(1, len(network.layers) - 1)
            ]
        ids = {id(p) for p in hidden}
        rest = [p for p in self.parameters if id(p) not in ids]
        self.parts: list[Any] = [torch.optim.Adam(rest, eps=1e-5, fused=True)]
        if hidden:
            self.parts.append(
                torch.optim.Muon(hidden, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            )  # type: ignore[attr-defined]

    def differentiate(self, loss: Tensor) -> Tensor:
        """Leave the gradient with the parameters, bounded; its norm before."""
        for part in self.parts:
            part.zero_grad()
        # Nothing for those that others learn by: a graph must not write to what is theirs.
        loss.backward(inputs=self.parameters)
        for network in self.networks:
            if network.mirrors:
                network.symmetrize_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        assert isinstance(norm, Tensor)
        return norm

    def descend(self, norm: Tensor, learning_rate: float) -> None:
        """A step by the gradient there is, of this norm; none by one that is not finite."""
        if norm.isfinite():
            for part in self.parts:
                for group in part.param_groups:
                    group["lr"] = learning_rate
                part.step()
        if self.config.muon:  # whose products are of low precision
            for network in self.networks:
                if network.mirrors:
                    network.symmetrize([value.data for value in network.layers.parameters()])

    def get_state(self) -> list[Any]:
        """For a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def set_state(self, state: list[Any]) -> None:
        """What `get_state` returned."""
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)


def _means(sums: list[dict[str, Tensor]]) -> dict[str, float]:
    return {k: torch.stack([row[k] for row in sums]).mean().item() for k in (sums or [{}])[0]}


class ModelLearner:
    """World model and its optimizer."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config = config
        self.model = WorldModel(config).to(device)
        self.optimizer = Optimizer([self.model.network, self.model.linear], config)
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 2)
        self.graph = Graph(self.differentiate, config.cuda_graphs and device.type == "cuda")

    def update_normalizer(self, buffer: Buffer, steps: int) -> None:
        """Fold in the transitions of which the newest states are the ends of the last `steps`."""
        length = buffer.length
        slot = torch.tensor([(buffer.written - 2 - t) % length for t in range(steps)])
        slot = slot.repeat_interleave(buffer.robots).to(buffer.done.device)
        robot = torch.arange(buffer.robots, device=slot.device).repeat(steps)
        going = ~buffer.done[slot, robot]
        (before, after), targets, _ = buffer.windows(slot[going], robot[going], 1)
        self.model.update_normalizer(before, targets[0], after)

    def differentiate(self, buffer: Buffer, places: Tensor) -> dict[str, Tensor]:
        """The loss's gradient in windows that begin at `places [B, 2]`; what is logged of them."""
        slot, robot = places.unbind(-1)
        windows = buffer.windows(slot, robot, self.config.model_horizon)
        loss, errors = self.model.loss(*windows)
        norm = self.optimizer.differentiate(loss)
        return {
            "losses/model": loss.detach(), "losses/model_norm": norm,
            **{f"model/{k}": v for k, v in errors.items()},
        }  # fmt: skip

    def learn(self, buffer: Buffer, learning_rate: float) -> dict[str, float]:
        """Some updates; what is logged of them."""
        config, tick = self.config, time.perf_counter()
        told = []
        for _ in range(config.model_updates):
            places = buffer.draw((config.model_batch,), config.model_horizon, self.generator)
            found = self.graph(buffer, places)
            self.optimizer.descend(found["losses/model_norm"], learning_rate)
            told.append({key: value.clone() for key, value in found.items()})
        return {"perf/model_s": time.perf_counter() - tick, **_means(told)}

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self.model.state_dict(), "model_optimizer": self.optimizer.get_state(),
            "model_generator": self.generator.get_state(),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.set_state(state["model_optimizer"])
        self.generator.set_state(state["model_generator"])


class PolicyLearner:
    """The policy, its average, the critic of what comes after the horizon, and their optimizers."""

    def __init__(self, config: Config, task: TrackTask, device: torch.device) -> None:
        self.config = config
        self.actor = TrackingPolicy(
            config.task.observations,
            config.hidden,
            task.nominal_joint_pos,
            task.action_scale,
            activation=config.activation,
            residual=config.residual,
            symmetry=config.symmetry,
        ).to(device)
        self.averaged = copy.deepcopy(self.actor)  # what is evaluated and exported
        self.imagination = Imagination(config, task, Goals(task, device)).to(device)
        self.optimizer = Optimizer([self.actor], config)
        mirrors = (as_mirror(mirror_map(config.task.observations)), UNCHANGED)
        self.critic = Network(
            (task.observation_size, *config.hidden, 1), "elu", 1.0,
            mirrors if config.symmetry else None,
        ).to(device)  # fmt: skip
        self.target = copy.deepcopy(self.critic)  # its average, to which it is fitted
        self.critic_optimizer = Optimizer([self.critic], config)
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 1)
        self.graph = Graph(self.differentiate, config.cuda_graphs and device.type == "cuda")

    def objective(self, dream: Dream, model: WorldModel) -> Tensor:
        """What the policy makes small: the mean discounted cost, with the critic's for the end."""
        config, horizon = self.config, len(dream.cost)
        if not config.critic:
            return (dream.cost * dream.counted).sum() / dream.counted.sum().clamp(min=1)
        discount = config.discount
        steps = torch.arange(horizon, dtype=dream.cost.dtype, device=dream.cost.device)
        weights = (1 - discount) * discount**steps
        value = self.worth(self.critic, dream.seen[-1], model)
        total = weights @ (dream.cost * dream.counted)
        return (total + discount**horizon * value * dream.counted[-1]).mean()

    def worth(self, critic: Network, seen: Tensor, model: WorldModel) -> Tensor:
        """`[..., O]` normalized -> `[...]`."""
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=model.rounded):
            value = critic(seen)
        return value.to(seen.dtype).squeeze(-1)

    def judge(self, dream: Dream, model: WorldModel, learning_rate: float) -> Tensor:
        """Fit the critic to a roll-out; its loss, in squares of the cost."""
        config, seen = self.config, dream.seen
        with torch.no_grad():
            value = self.worth(self.target, seen, model)
            wanted = lambda_returns(
                dream.cost, dream.counted, value, config.discount, config.gae_lambda
            )
        error = (self.worth(self.critic, seen[:-1], model) - wanted) * dream.counted
        loss = (error * error).mean()
        self.critic_optimizer.descend(self.critic_optimizer.differentiate(loss), learning_rate)
        polyak_update(self.target, self.critic, config.critic_ema)
        return loss.detach()

    def differentiate(self, model: WorldModel, *inputs: Tensor) -> tuple[Dream, Tensor]:
        """The objective's gradient by a roll-out from `Starts` with `Noise`; its norm."""
        count = len(Starts._fields)
        starts, noise = Starts(*inputs[:count]), Noise(*inputs[count:])
        dream = self.imagination(self.actor, model, starts, noise)
        norm = self.optimizer.differentiate(self.objective(dream, model))
        return Dream(*(value.detach() for value in dream)), norm

    def learn(
        self, model: WorldModel, starts: Starts, level: float, learning_rate: float
    ) -> dict[str, float]:
        """An update from each of `starts [U, B, ...]`; what is logged of them."""
        tick, told = time.perf_counter(), []
        for update in zip(*starts, strict=True):
            noise = self.imagination.draw_noise(len(update[0]), level, self.generator)
            dream, norm = self.graph(model, *update, *noise)
            self.optimizer.descend(norm, learning_rate)
            polyak_update(self.averaged, self.actor, self.config.ema)
            row = {
                "losses/policy": (dream.cost * dream.counted).mean(),
                "losses/policy_norm": norm.clone(), "imagined/pos_m": dream.distance[-1].mean(),
            }  # fmt: skip
            if self.config.critic:
                row["losses/critic"] = self.judge(dream, model, learning_rate)
            told.append(row)
        return {"perf/policy_s": time.perf_counter() - tick, **_means(told)}

    def update_normalizer(self, obs: Tensor) -> None:
        """Fold in observations `[B, O]` of real robots."""
        self.actor.update_normalizer(obs)
        copy_normalizer(self.averaged, self.actor)

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "actor": self.averaged.state_dict(), "learner": self.actor.state_dict(),
            "optimizer": self.optimizer.get_state(), "critic": self.critic.state_dict(),
            "target": self.target.state_dict(),
            "critic_optimizer": self.critic_optimizer.get_state(),
            "learner_generator": self.generator.get_state(),
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.averaged.load_state_dict(state["actor"])
        self.actor.load_state_dict(state["learner"])
        self.optimizer.set_state(state["optimizer"])
        self.critic.load_state_dict(state["critic"])
        self.target.load_state_dict(state["target"])
        self.critic_optimizer.set_state(state["critic_optimizer"])
        self.generator.set_state(state["learner_generator"])


# --- training -----------------------------------------------------------------------------------


def next_level(level: float, hardest_s: float, config: Config) -> float:
    """The curriculum's level after an iteration: up while robots stay up, else down.

    Args:
        level: the present one, 0 to 1.
        hardest_s: robot seconds per failure in the hardest tenth of the clips.
        config: its `curriculum_s` is what `hardest_s` has to exceed, its `curriculum_step` the way.
    """
    change = config.curriculum_step if hardest_s > config.curriculum_s else -config.curriculum_step
    return float(np.clip(level + change, 0.0, 1.0))


def failure_distance_scale(level: float) -> float:
    """Factor of the task's `failure_distance` at a curriculum's level, as in `ppo_track.py`."""
    return 1 + 2 * level


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # 1. Everything that can be refused is refused here, before a file is made.
    if config.suite is not None:
        if config.motion != Config.motion:
            raise ConfigError("Both --motion and --suite are given, expected one of them.")
        config = dataclasses.replace(config, motion=suites.motions(config.suite))
    clips, processes = load_motions(config.motion), Processes()
    if processes.count > 1:
        raise ConfigError("wm_track runs in one process, torchrun started several.")
    settings = settings_of(config, clips=[clip.sha256() for clip in clips], processes=1)
    with tracker_run(
        config.run, "wm_track", clips, settings, ("task", "actor", "model", "buffer", "robots"),
        batch_size=config.num_steps * config.num_envs, total_timesteps=config.total_timesteps,
        processes=processes,
    ) as run:  # fmt: skip
        train(config, run)


def train(config: Config, run: TrackerRun) -> None:
    """The run itself, in its folder."""
    clips, saved = run.clips, run.saved
    on_host = config.run.backend == "mujoco"
    threads = config.run.threads or cli.available_cores()
    overlap = config.overlap and on_host and threads > 1
    learn_threads = max(1, threads // 2) if overlap else threads
    torch.set_num_threads(learn_threads)
    torch.manual_seed(config.run.seed)

    # 2. Environments and networks.
    robots = make_robots(clips, config.task, config.num_envs, config.run, config.run.seed)
    task, device = robots.task, robots.device
    evaluation = Evaluation(
        clips, config.task, config.run.threads, robust=bool(config.run.robust_every)
    )
    policy, dynamics = PolicyLearner(config, task, device), ModelLearner(config, device)
    if config.start_from is not None and saved is None:
        begin_with((policy.actor, policy.averaged), config.start_from, spec_of(config.task))
    acting = copy.deepcopy(policy.actor)
    # What the policy learns in while the model goes on learning; needs no derivatives of its own.
    model = copy.deepcopy(dynamics.model).requires_grad_(False)
    dynamics.model.rounded = model.rounded = use_bfloat16(config.bfloat16, device)
    T, N = config.num_steps, config.num_envs  # noqa: N806
    buffer = Buffer(config.capacity // N, N, device)
    # 3. Start afresh, or from the checkpoint.
    level = 0.0 if config.curriculum else 1.0
    robots.set_difficulty(level, failure_distance_scale(level))
    collector = Collector(config, robots, config.run.seed)
    if saved is None:
        # Otherwise the time limit would cut off every robot that survives in the same step.
        if config.task.episode_s is not None:
            robots.spread_ends(round(config.task.episode_s / CONTROL_DT))
        policy.update_normalizer(collector.obs)
    else:
        policy.set_state(saved)
        dynamics.set_state(saved)
        buffer.set_state(as_arrays(saved["buffer"]))
        collector.set_state(saved["robots"])
        level = saved["level"]
    acting.load_state_dict(policy.actor.state_dict())
    model.load_state_dict(dynamics.model.state_dict())
    network_record = {"residual": config.residual, "activation": config.activation}
    run.begin_training(
        config_record(config, "wm_track", env_id="BMTrack-G1-v0", network=network_record),
        f"{N} robots, {threads} threads",
    )
    if overlap:
        # Python's threads take turns: by default after 5 ms, many kernels of the learner.
        sys.setswitchinterval(0.0005)
    background = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(learn_threads,))
    while run.goes_on:
        decay = (config.final_learning_rate / config.learning_rate) ** run.share
        learning_rate = config.learning_rate * decay

        # 4. The policy learns in the model as it is, from states of the buffer as it is.
        learning: Future[dict[str, float]] | None = None
        learned: dict[str, float] = {}
        if run.iteration >= config.warmup_iterations and config.policy_updates:
            starts = buffer.starts(
                (config.policy_updates, config.policy_batch), dynamics.generator,
                max(1, config.recent // N),
            )  # fmt: skip
            job = (model, starts, level, learning_rate)
            if overlap:
                learning = background.submit(policy.learn, *job)
            else:
                learned = policy.learn(*job)

        # 5. Robots move, with noise.
        seen, collected = collector.run(acting, buffer, T)

        # 6. The model learns of all that the buffer holds.
        modelled: dict[str, float] = {}
        if buffer.written > max(T, config.model_horizon):
            dynamics.update_normalizer(buffer, T)
            modelled = dynamics.learn(buffer, config.model_learning_rate * decay)
        if learning is not None:
            learned = learning.result()
        policy.update_normalizer(seen)
        acting.load_state_dict(policy.actor.state_dict())
        model.load_state_dict(dynamics.model.state_dict())
        robots.read_statistics()
        if config.curriculum:
            level = next_level(level, robots.sampler.hardest_s(), config)
            robots.set_difficulty(level, failure_distance_scale(level))
        run.iteration += 1

        # 7. Log, evaluate, save.
        row = {
            **collected,
            "perf/cpu_s": run.clock.cpu_s,
            "charts/learning_rate": learning_rate,
            **modelled,
            **learned,
            **mean_errors(robots),
            "track/level": level,
            **{f"sampling/{key}": value for key, value in robots.sampler.metrics().items()},
        }
        row |= run.evaluate(policy.averaged, evaluation)
        run.log_training(row)
        if run.save_due():
            run.save({
                "level": level, **policy.get_state(), **dynamics.get_state(),
                "buffer": buffer.get_state(), "robots": collector.get_state(),
            })  # fmt: skip
    background.shutdown()

    # 8. What leaves the project.
    run.end()
    run.export(
        policy.averaged, config.task, algorithm="wm_track", num_envs=N,
        motion=config.motion[0],
    )  # fmt: skip
    robots.env.close()
    evaluation.close()


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS)
