"""Train a Unitree G1 at one guided task with PPO, without a reference motion: a baseline.

    python algos/ppo_guided.py --task joystick                  # follow random velocity commands
    python algos/ppo_guided.py --task waypoint --seed 2

BeyondMimic (arXiv 2508.08241) steers one diffusion model to all of its tasks. What it is to be
compared with is a policy made for a single task in the usual way: N robots, a reward for the task
and the terms that make a humanoid walk sensibly, as in Isaac Lab (`isaaclab_tasks`, G1 velocity)
and `unitree_rl_lab`. Measured so far is joystick alone (docs/guided.md). In that one run
(exploratory) evaluations followed no command at 2 M steps and all four from 4.5 M on, hence 6 M.

The run directory holds `config.json`, `checkpoint.pt` (everything a bit-exact `--resume` needs),
`policy.onnx` and `policy.json` (what leaves the project; `bm_envs.diffusion.task_policy` runs it),
`metrics.jsonl` and TensorBoard events.

Letters in shapes: N robots, T steps, B = N T samples, O observation, A action.

Logged (metrics.jsonl and TensorBoard; means over the iteration):

    charts/episodic_return, charts/episodic_length   of episodes that ended; length in control steps
    charts/success                                   share of them that did their task
    charts/time_to_fall_s                            robot seconds per fall
    charts/SPS, charts/learning_rate                 control steps per second since the start
    perf/collect_s, perf/learn_s                     seconds of the iteration's two halves
    losses/value_loss, policy_loss, entropy, approx_kl, clipfrac, explained_variance
    charts/action_std                                mean standard deviation of the raw action
    reward/<term>                                    signed reward terms per step
    eval/success, upright, task, segments            the task's own protocol, by the policy's mean:
                                                     shares of trials, of the task's term, of
                                                     commands that were followed
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.diffusion.task_policy import write_guided_policy
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.learning.folder import as_arrays, claim_run
from bm_envs.learning.networks import (
    UNCHANGED,
    Mirror,
    as_mirror,
    gaussian_kl,
    log_prob,
    reflected,
)
from bm_envs.learning.returns import gae
from bm_envs.learning.run import Flags, Progress, RunConfig, config_record, settings_of
from bm_envs.policy import MLP
from bm_envs.robots import g1
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.config import GuidedConfig, RewardConfig, config_class
from bm_envs.tasks.guided.joystick import JoystickTask
from bm_envs.tasks.guided.observations import TERMS
from bm_envs.tasks.guided.states import representation
from bm_envs.tasks.guided.waypoint import WaypointTask
from bm_envs.tasks.track import rewards
from bm_envs.tasks.track.config import CONTROL_DT

A = g1.NUM_JOINTS


@dataclass(frozen=True)
class Weights:
    """Weights of the reward's terms, per second: a step pays weight * value * 0.02 s.

    If nothing else is said, those of Isaac Lab's G1 on flat ground (`velocity_env_cfg.py`,
    `config/g1/rough_env_cfg.py`, `config/g1/flat_env_cfg.py`); 0 turns a term off.
    """

    task: float = 2.0
    """The environment's own term of the task, in [0, 1]. Isaac Lab: 1 each for velocity and yaw
    rate, of which the joystick's term is the mean."""
    alive: float = 0.15
    """1 while not fallen. Source: unitree_rl_lab, G1 29dof `velocity_env_cfg.py`."""
    fall: float = -200.0
    """1 in the step of a fall: 4 once."""
    upright: float = -1.0
    """`sin^2` of the pelvis' tilt."""
    base_height: float = -10.0
    """Squared difference of the pelvis from `target_height`, m^2. Source: unitree_rl_lab."""
    target_height: float = 0.76
    """m, the pelvis in the default pose; unitree_rl_lab's, whose knees are straighter, is 0.78."""
    lin_vel_z: float = -0.2
    """Squared vertical velocity of the pelvis, (m/s)^2."""
    ang_vel_xy: float = -0.05
    """Squared angular velocity of the pelvis about its x and y, (rad/s)^2."""
    action_rate: float = -0.005
    """Squared change of the raw action, summed."""
    joint_limit: float = -1.0
    """Radians by which joints are beyond their soft limits, summed; Isaac Lab: of the ankles,
    mjlab 1.6.0: of all."""
    posture: float = -0.1
    """Radians by which hips (roll and yaw), waist and arms are off the default pose, summed."""
    air_time: float = 0.75
    """Seconds, at most `air_time_s`, since either foot last touched or left the ground, while one
    stands and the other swings and the task wants steps."""
    air_time_s: float = 0.4
    """s."""
    slide: float = -0.1
    """Horizontal speed of feet on the ground, m/s, summed."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"weights.{name} is {value}, expected a finite number.")


@dataclass(frozen=True)
class Config:
    """Settings of a run. PPO's are Isaac Lab's for the G1 if nothing else is said."""

    task: Literal["walk_perturb", "joystick", "waypoint", "obstacle"] = "joystick"
    """What to learn. The joystick's commands are random in training, fixed in its protocol."""
    run: Flags[RunConfig] = RunConfig(eval_every=500_000)
    """Where the run is kept, and how often it is evaluated by the task's protocol."""

    total_timesteps: int = 6_000_000
    """Control steps over all robots; a finished run goes on with more of them and `--resume`."""
    num_envs: int = 256
    """Robots, N (Isaac Lab: 4096)."""
    num_steps: int = 24
    """Steps per robot and iteration, T."""
    eval_trials: int = 20
    """Robots in an evaluation, one trial each."""

    forward: tuple[float, float] = (-0.3, 0.6)
    """m/s, range of the joystick's random commands; beyond the protocol's is allowed."""
    left: tuple[float, float] = (0.0, 0.0)
    """m/s."""
    yaw_rate: tuple[float, float] = (-0.5, 0.5)
    """rad/s."""
    physics_dt: float = 0.01
    """Physics step in training, s: twice the standard's, at half of its cost. Evaluation always has
    the standard 5 ms."""

    learning_rate: float = 1e-3
    """Adam's step size: the critic's throughout, the policy's at the start, which then goes by how
    far each mini-batch's step moves the policy (Isaac Lab: the critic's as well)."""
    desired_kl: float = 0.01
    """Target of that, KL divergence in nats: above twice it slower, below half of it faster."""
    gamma: float = 0.99
    """Discount per control step."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation."""
    num_minibatches: int = 1
    """Mini-batches per epoch (Isaac Lab 4, of 24,576 samples each). Gradients of few samples are
    mostly noise: with 4 of 768 the policy's step size fell to 2e-5 in 50,000 control steps, with 1
    of 3072 it stayed at 4e-4 (one run each)."""
    update_epochs: int = 5
    """Epochs over each iteration's samples."""
    clip_coef: float = 0.2
    """Clip of the probability ratio, and of the value's change."""
    ent_coef: float = 0.005
    """Weight of the entropy bonus (Isaac Lab 0.008, with a larger batch to hold against it)."""
    vf_coef: float = 1.0
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Bound of the gradient's norm, of actor and critic each."""
    hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of actor and critic (Isaac Lab 256 128 128)."""
    init_std: float = 0.7
    """Initial standard deviation of the raw action (Isaac Lab 1.0)."""
    symmetry: bool = True
    """Left-right symmetric networks: what is learned on one side holds on the other at once."""

    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        batch = self.num_envs * self.num_steps
        for name in ("num_envs", "num_steps", "eval_trials", "num_minibatches", "update_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if self.total_timesteps < batch:
            raise ConfigError(
                f"total_timesteps {self.total_timesteps} is less than one iteration of num_envs * "
                f"num_steps = {batch}."
            )
        if batch % self.num_minibatches:
            raise ConfigError(
                f"num_envs * num_steps = {batch} is not divisible by num_minibatches "
                f"{self.num_minibatches}."
            )
        for name in ("learning_rate", "desired_kl", "init_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a positive number.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to 1.")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(f"hidden is {self.hidden}, expected one or more positive numbers.")
        if self.symmetry and any(width % 2 for width in self.hidden):
            raise ConfigError(
                f"hidden is {self.hidden}, expected even numbers: with symmetry units are pairs."
            )
        _ = self.environment

    @property
    def environment(self) -> GuidedConfig:
        """The task as it is trained: its own term is all that the environment pays."""
        model = ModelConfig(physics_dt=self.physics_dt)
        changes: dict[str, Any] = {
            "rewards": RewardConfig(alive=0.0, task=1.0), "model": model,
            "decimation": round(CONTROL_DT / model.physics_dt),
        }  # fmt: skip
        if self.task == "joystick":
            changes |= {
                "random": True, "random_forward": self.forward, "random_left": self.left,
                "random_yaw_rate": self.yaw_rate,
            }  # fmt: skip
        return dataclasses.replace(config_class(self.task)(), **changes)


# --- reward -------------------------------------------------------------------------------------


GROUND_FORCE = 1.0  # N; a foot that presses with less is in the air. Source: Isaac Lab
LEAST_COMMAND = 0.1  # norm of a command below which no steps are wanted. Source: Isaac Lab
# A robot about to diverge has velocities whose squares would be all that the critic ever learns.
LEAST_REWARD = -10.0
SOFT_RANGE = tuple(g1.soft_joint_range().T.astype(np.float32))
FEET = [g1.TRACKED_BODIES.index(name) for name in g1.FOOT_BODIES]
HELD_JOINTS = [
    joint
    for joint, name in enumerate(g1.JOINT_NAMES)
    if any(part in name for part in ("hip_roll", "hip_yaw", "waist", "shoulder", "elbow", "wrist"))
]


def tilt_square(quat: np.ndarray) -> np.ndarray:
    """`sin^2` of the angle between the z axis of rotations `[N, 4]` and the vertical. `[N]`."""
    w, x, y, z = quat.T
    return 4.0 * ((x * z + w * y) ** 2 + (y * z - w * x) ** 2)


def air_time(contact: np.ndarray, seconds: np.ndarray, most: float) -> np.ndarray:
    """With one foot on the ground: the shorter time of the two in their phase, at most `most`, s.

    Source: Isaac Lab, `feet_air_time_positive_biped`.

    Args:
        contact: `[N, 2]` bool, feet on the ground.
        seconds: `[N, 2]`, how long each has been on it, or off it.
        most: s.
    """
    return np.where(contact.sum(1) == 1, seconds.min(1).clip(max=most), 0.0)


class Feet:
    """How long each foot has been on or off the ground.

    Attributes:
        contact: on it, `[N, 2]` bool, left and right.
        seconds: since it came to it or left it, `[N, 2]`.
    """

    def __init__(self, num_envs: int) -> None:
        self.contact = np.zeros((num_envs, 2), bool)
        self.seconds = np.zeros((num_envs, 2), np.float32)

    def reset(self, robots: np.ndarray) -> None:
        """Forget the past of `robots [N]` bool."""
        self.contact[robots], self.seconds[robots] = False, 0.0

    def step(self, force: np.ndarray) -> None:
        """A control step that ended with the net forces `[N, 2, 3]`, N, on them."""
        contact = (force * force).sum(-1) > GROUND_FORCE**2
        self.seconds = np.where(contact == self.contact, self.seconds, 0.0) + np.float32(CONTROL_DT)
        self.contact = contact


def steps_wanted(task: GuidedTask) -> np.ndarray:
    """Whether robots must step in the coming control step, `[N]` bool: else they may well stand."""
    if isinstance(task, JoystickTask):
        return np.linalg.norm(task.command(), axis=1) > LEAST_COMMAND
    if isinstance(task, WaypointTask):
        way = task.goal - task.simulator.root_pos[:, :2]
        return np.linalg.norm(way, axis=1) > task.config.goal_radius
    return np.ones(task.num_envs, bool)


def reward_terms(
    task: GuidedTask, value: np.ndarray, fell: np.ndarray, last_action: np.ndarray, feet: Feet,
    wanted: np.ndarray, weights: Weights,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The signed terms of the control step just done, `[N]` each, by their names in `Weights`.

    Args:
        task: robots in the state that the step led to, before any reset.
        value: `[N]`, the task's own term.
        fell: `[N]` bool.
        last_action: `[N, 29]`, the raw action before this step's.
        feet: after this step.
        wanted: `[N]` bool, `steps_wanted` of this step.
        weights: of the terms.
    """
    sim = task.simulator
    # Diverged robots: what is not finite is not used.
    with np.errstate(over="ignore", invalid="ignore"):
        off_pose = (sim.joint_pos - g1.DEFAULT_JOINT_POS)[:, HELD_JOINTS]
        foot_speed = np.linalg.norm(sim.body_lin_vel[:, FEET, :2], axis=-1)
        values = {
            "task": value,
            "alive": ~fell,
            "fall": fell,
            "upright": tilt_square(sim.root_quat),
            "base_height": (sim.root_pos[:, 2] - weights.target_height) ** 2,
            "lin_vel_z": sim.root_lin_vel[:, 2] ** 2,
            "ang_vel_xy": (sim.root_ang_vel_b[:, :2] ** 2).sum(1),
            "action_rate": rewards.action_rate(task.robots.action, last_action),
            "joint_limit": rewards.joint_limit(sim.joint_pos, *SOFT_RANGE),
            "posture": abs(off_pose).sum(1),
            "air_time": air_time(feet.contact, feet.seconds, weights.air_time_s) * wanted,
            "slide": (foot_speed * feet.contact).sum(1),
        }
    return {
        name: np.nan_to_num(getattr(weights, name) * CONTROL_DT * value, posinf=0.0, neginf=0.0)
        for name, value in values.items()
    }


# --- left and right -----------------------------------------------------------------------------


_COMMAND_SIGNS = {  # forward, left, yaw rate; x, y; distance; x, y, radius
    "command": (1.0, -1.0, -1.0), "goal_pos": (1.0, -1.0), "goal_distance": (1.0,),
    "obstacles": (1.0, -1.0, 1.0),
}  # fmt: skip


def mirror_map(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Left-right mirror of a task's observations: `mirrored = sign * obs[..., index]`, `[O]` both.

    What the robot would see were all reflected in the x-z plane of its heading. A term is so many
    times what has a mirror of its own: the history's are the representation's blocks.
    """
    seen = representation("joint_rot")
    index, sign, start = [], [], 0
    for term in TERMS[task]:
        if term.name in seen.blocks:
            block = seen.blocks[term.name]
            places, signs = seen.mirror[0][block] - block.start, seen.mirror[1][block]
        elif term.name == "actions":
            places, signs = g1.mirror_map()
        else:
            signs = np.array(_COMMAND_SIGNS[term.name])
            places = np.arange(len(signs))
        for first in range(start, start + term.size, len(places)):
            index.append(first + places)
            sign.append(signs)
        start += term.size
    return np.concatenate(index), np.concatenate(sign).astype(np.float32)


# --- networks -----------------------------------------------------------------------------------


class Layer(nn.Linear):
    """A linear layer, symmetric where it has the mirrors of its input and its output.

    Then the symmetric part of weight and bias acts: a reflected input gives the reflected output.
    """

    def __init__(
        self, before: int, after: int, gain: float, mirrors: tuple[Mirror, Mirror] | None
    ) -> None:
        super().__init__(before, after)
        self.mirrors = mirrors
        # The mean of two independent weights has half their variance.
        nn.init.orthogonal_(self.weight, gain if mirrors is None else gain * 2**0.5)
        nn.init.zeros_(self.bias)

    def parts(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias that act."""
        if self.mirrors is None:
            return self.weight, self.bias
        before, after = self.mirrors
        weight = self.weight.index_select(0, after[0]).index_select(1, before[0])
        weight = weight * (after[1][:, None] * before[1])
        return (self.weight + weight) / 2, (self.bias + reflected(self.bias, after)) / 2

    def forward(self, input: Tensor) -> Tensor:
        """`[..., before]` -> `[..., after]`."""
        return nn.functional.linear(input, *self.parts())


def mlp(
    sizes: tuple[int, ...], last_gain: float, mirrors: tuple[Mirror, Mirror] | None
) -> nn.Sequential:
    """Layers with ELU between them; `mirrors` of the input and the output make it symmetric.

    The units of a hidden layer are then pairs that a reflection swaps.
    """
    units: list[Mirror] = []
    if mirrors is not None:
        swaps = [(torch.arange(n).roll(n // 2), torch.ones(n)) for n in sizes[1:-1]]
        units = [mirrors[0], *swaps, mirrors[1]]
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        gain = last_gain if i == len(sizes) - 2 else 2**0.5
        pair = (units[i], units[i + 1]) if units else None
        layers += [Layer(sizes[i], sizes[i + 1], gain, pair), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class Agent(nn.Module):
    """Gaussian policy and value behind a running normalizer, `x = (obs - mean) / (std + 0.01)`.

    The normalizer's statistics are buffers, so that the checkpoint has them. With symmetry they are
    those of the samples and their reflections. Source of the 0.01: rsl_rl.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.seen, self.joints = as_mirror(mirror_map(config.task)), as_mirror(g1.mirror_map())
        self.symmetry = config.symmetry
        size = len(self.seen[0])
        sides = [(self.seen, self.joints), (self.seen, UNCHANGED)] if self.symmetry else [None] * 2
        self.actor = mlp((size, *config.hidden, A), 0.01, sides[0])
        self.critic = mlp((size, *config.hidden, 1), 1.0, sides[1])
        self.joint_log_std = nn.Parameter(torch.full((A,), math.log(config.init_std)))
        self.register_buffer("obs_mean", torch.zeros(size))
        self.register_buffer("obs_var", torch.ones(size))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))

    def policy(self) -> list[nn.Parameter]:
        """All but the critic's weights."""
        return [*self.actor.parameters(), self.joint_log_std]

    def log_std(self) -> Tensor:
        """Of the raw action, `[A]`: with symmetry the mean of left and right."""
        own = self.joint_log_std
        return (own + own[self.joints[0]]) / 2 if self.symmetry else own

    def normalize(self, obs: Tensor) -> Tensor:
        """`[..., O]` -> `[..., O]`."""
        return (obs - self.obs_mean) / (self.obs_var.sqrt() + 0.01)

    def mean(self, obs: Tensor) -> Tensor:
        """Deterministic action for raw observations. `[..., O]` -> `[..., A]`."""
        return self.actor(self.normalize(obs))

    def value(self, obs: Tensor) -> Tensor:
        """Discounted reward to come. `[..., O]` -> `[...]`."""
        return self.critic(self.normalize(obs)).squeeze(-1)

    @torch.no_grad()
    def update_normalizer(self, obs: Tensor) -> None:
        """Fold `[B, O]` into mean and variance (Chan et al.'s pairwise update)."""
        if self.symmetry:
            obs = torch.cat([obs, reflected(obs, self.seen)])
        total = self.obs_count + len(obs)
        share = (len(obs) / total).float()
        delta = obs.mean(0) - self.obs_mean
        self.obs_mean += delta * share
        change = obs.var(0, correction=0) - self.obs_var + delta * delta * (1 - share)
        self.obs_var += share * change
        self.obs_count.copy_(total)

    def export(self) -> MLP:
        """The policy's mean as plain arrays."""
        layers = [layer.parts() for layer in self.actor if isinstance(layer, Layer)]
        return MLP(
            obs_mean=self.obs_mean.numpy(),
            obs_scale=(self.obs_var.sqrt() + 0.01).numpy(),
            weights=tuple(weight.detach().numpy() for weight, _ in layers),
            biases=tuple(bias.detach().numpy() for _, bias in layers),
            activation="elu",
        )


# --- mathematics --------------------------------------------------------------------------------


def adapted(learning_rate: float, kl: float, desired: float) -> float:
    """The step size after a step that moved the policy by `kl`. Source: `rsl_rl`, `ppo.py`."""
    if kl > 2 * desired:
        return max(1e-5, learning_rate / 1.5)
    if 0 < kl < desired / 2:
        return min(1e-2, learning_rate * 1.5)
    return learning_rate


class Samples(NamedTuple):
    """What an iteration is learned from, a row a sample."""

    x: Tensor
    """`[B, O]`, normalized observations."""
    action: Tensor
    """`[B, A]`."""
    mean: Tensor
    """`[B, A]`, of the policy that drew it."""
    value: Tensor
    """`[B]`, before learning."""
    advantage: Tensor
    """`[B]`, of mean 0 and standard deviation 1."""
    returns: Tensor
    """`[B]`, what the value should have been."""


def learn(
    agent: Agent, optimizer: torch.optim.Optimizer, samples: Samples, config: Config,
    learning_rate: float, generator: torch.Generator,
) -> tuple[float, dict[str, float]]:  # fmt: skip
    """Improve actor and critic in place; returns the policy's last step size, and what is logged.

    The optimizer's first group of weights are the policy's.
    Of a symmetric agent a sample teaches what its mirror image would.
    """
    log_std_old = agent.log_std().detach().clone()  # without symmetry it is the weight itself
    log_prob_old = log_prob(samples.action, samples.mean, log_std_old)
    size = len(samples.x) // config.num_minibatches
    sums: dict[str, float] = {}
    for _ in range(config.update_epochs):
        for index in torch.randperm(len(samples.x), generator=generator).split(size):
            x, action, mean, value, advantage, returns = (part[index] for part in samples)
            new_mean, new_value = agent.actor(x), agent.critic(x).squeeze(-1)
            log_std = agent.log_std()
            kl = gaussian_kl(mean, log_std_old, new_mean.detach(), log_std.detach()).item()
            learning_rate = adapted(learning_rate, kl, config.desired_kl)
            optimizer.param_groups[0]["lr"] = learning_rate

            ratio = (log_prob(action, new_mean, log_std) - log_prob_old[index]).exp()
            clipped = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
            policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
            near = value + (new_value - value).clamp(-config.clip_coef, config.clip_coef)
            value_loss = torch.max((new_value - returns) ** 2, (near - returns) ** 2).mean()
            entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
            loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
            optimizer.zero_grad()
            loss.backward()
            # Apart: a large error of the critic must not shorten the actor's step.
            for part in (agent.policy(), list(agent.critic.parameters())):
                nn.utils.clip_grad_norm_(part, config.max_grad_norm)
            optimizer.step()
            for key, figure in (
                ("policy_loss", policy_loss.item()), ("value_loss", value_loss.item()),
                ("entropy", entropy.item()), ("approx_kl", kl),
                ("clipfrac", ((ratio - 1).abs() > config.clip_coef).float().mean().item()),
            ):  # fmt: skip
                sums[key] = sums.get(key, 0.0) + figure
    updates = config.update_epochs * config.num_minibatches
    return learning_rate, {f"losses/{key}": figure / updates for key, figure in sums.items()}


# --- evaluation ---------------------------------------------------------------------------------


def evaluate(agent: Agent, env: GuidedVectorEnv, seed: int) -> dict[str, float]:
    """The task's own protocol: one trial in every robot of `env`, by the policy's mean.

    Returns shares of the trials that did it and that did not fall, the mean of the task's term over
    the trials' whole time, and of the joystick the share of commands that were followed.
    """
    obs, _ = env.reset(seed=seed)
    task = env.task
    value, over = 0.0, np.zeros(env.num_envs, bool)
    while not over.all():
        with torch.no_grad():
            action = agent.mean(torch.from_numpy(obs)).numpy()
        obs, _, terminated, truncated, info = env.step(action)
        value += float(info["reward_task"][~over].sum())  # 0 from a fall on
        over |= terminated | truncated
    figures = task.figures()
    steps = env.num_envs * env.config.episode_steps * env.config.rewards.task
    result = {
        "success": float(figures["success"].mean()),
        "upright": float((~figures["fell_strict"]).mean()),
        "task": value / steps,
    }
    if "segment_passed" in figures:
        result["segments"] = float(figures["segment_passed"].mean())
    return result


# --- training -----------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # 1. Everything that can be refused is refused here, before a file is made.
    settings = settings_of(config, "eval_every", "eval_trials")
    with claim_run(
        config.run, f"{config.task}__ppo_guided__{config.run.seed}", settings, "settings",
        ("settings", "agent", "optimizer", "env"), "settings",
    ) as folder:  # fmt: skip
        train(config, Progress(
            folder, config.run, settings, batch_size=config.num_steps * config.num_envs,
            total_timesteps=config.total_timesteps,
        ))  # fmt: skip


def train(config: Config, run: Progress) -> None:
    """The run itself, in its folder."""
    saved, seed = run.saved, config.run.seed

    # 2. Environments and networks.
    threads = config.run.threads or cli.available_cores()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)  # initial weights
    generator = torch.Generator().manual_seed(seed)  # noise of actions, mini-batches
    # Robots are reset by hand, so that the reward sees the state in which an episode ended.
    env = GuidedVectorEnv(
        config.num_envs, config.task, config=config.environment, autoreset_mode="disabled",
        threads=threads,
    )  # fmt: skip
    eval_env = GuidedVectorEnv(
        config.eval_trials, config.task, autoreset_mode="disabled", threads=threads
    )
    task, feet = env.task, Feet(config.num_envs)
    T, N, O = config.num_steps, config.num_envs, task.observation_size  # noqa: N806, E741
    agent = Agent(config)
    groups = [{"params": agent.policy()}, {"params": list(agent.critic.parameters())}]
    optimizer = torch.optim.Adam(groups, config.learning_rate, eps=1e-5, fused=True)

    # 3. Start afresh, or from the checkpoint.
    learning_rate = config.learning_rate
    episode_return, episode_length = np.zeros(N), np.zeros(N, np.int64)
    env.reset(seed=seed)
    if saved is None:
        # Otherwise the time limit would cut off every robot that stays up in the same step.
        task.clock[:] = env.np_random.integers(0, env.config.episode_steps, N)
        next_obs = torch.from_numpy(task.observe(slice(None))[0])
        agent.update_normalizer(next_obs)
    else:
        agent.load_state_dict(saved["agent"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
        state = as_arrays(saved["env"])
        env.set_state({**state, "generator": json.loads(state["generator"])})
        feet.contact, feet.seconds = (saved[f"feet_{k}"].numpy() for k in ("contact", "seconds"))
        next_obs = saved["obs"]
        episode_return, episode_length = (
            saved[f"episode_{key}"].numpy() for key in ("return", "length")
        )
        learning_rate = saved["learning_rate"]
    environment = json.loads(json.dumps(dataclasses.asdict(config.environment), default=str))
    run.begin(
        config_record(config, "ppo_guided", environment=environment),
        f"task {config.task}, {N} robots, {threads} threads",
    )
    obs = torch.zeros(T, N, O)
    action, mean = torch.zeros(T, N, A), torch.zeros(T, N, A)
    reward, done = torch.zeros(T, N), torch.zeros(T, N, dtype=torch.bool)

    while run.goes_on:
        # 4. Collect.
        tick = time.perf_counter()
        ended: list[tuple[float, int, bool]] = []  # return, length, success
        falls, term_sums = 0, dict[str, float]()
        std = agent.log_std().detach().exp()
        for t in range(T):
            obs[t] = next_obs
            with torch.no_grad():
                mean[t] = agent.mean(next_obs)
                action[t] = mean[t] + std * torch.randn(N, A, generator=generator)
            last_action, wanted = task.robots.action.copy(), steps_wanted(task)
            found, value, terminated, truncated, info = env.step(action[t].numpy())
            feet.step(task.simulator.contact_force[:, -2:])
            terms = reward_terms(task, value, terminated, last_action, feet, wanted, config.weights)
            paid = np.maximum(sum(terms.values()), LEAST_REWARD).astype(np.float32)
            reward[t] = torch.from_numpy(paid)
            over = terminated | truncated
            done[t] = torch.from_numpy(over)
            falls += int(terminated.sum())
            episode_return += paid
            episode_length += 1
            for name, values in terms.items():
                term_sums[name] = term_sums.get(name, 0.0) + float(values.mean())
            if truncated.any():  # the episode would have gone on; a fall's would not
                with torch.no_grad():
                    final = agent.value(torch.from_numpy(found[truncated]))
                reward[t, torch.from_numpy(truncated)] += config.gamma * final
            if over.any():
                ended += zip(
                    episode_return[over], episode_length[over], info["success"][over], strict=True
                )
                episode_return[over], episode_length[over] = 0.0, 0
                feet.reset(over)
                found, _ = env.reset(options={"reset_mask": over})
            next_obs = torch.from_numpy(found)
        collect_s = time.perf_counter() - tick

        # 5. Learn, from the second iteration on: the first one fills the normalizer, by whose first
        # statistics alone what does not vary at the start would be far too large.
        tick = time.perf_counter()
        losses: dict[str, float] = {}
        if run.iteration:
            with torch.no_grad():
                values = agent.value(torch.cat([obs, next_obs[None]]))
            advantage = gae(
                reward, values[:-1], values[-1], done, config.gamma, config.gae_lambda
            ).flatten()
            value_old = values[:-1].flatten()
            returns = advantage + value_old
            explained = 1 - (returns - value_old).var() / (returns.var() + 1e-8)
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            samples = Samples(
                agent.normalize(obs).flatten(0, 1), action.flatten(0, 1), mean.flatten(0, 1),
                value_old, advantage, returns,
            )  # fmt: skip
            learning_rate, losses = learn(
                agent, optimizer, samples, config, learning_rate, generator
            )
            losses["losses/explained_variance"] = explained.item()
        # Only now: before, the samples were seen through the eyes of the policy that drew them.
        agent.update_normalizer(obs.flatten(0, 1))
        learn_s = time.perf_counter() - tick
        run.iteration += 1

        # 6. Log, evaluate, save.
        row = {
            "charts/time_to_fall_s": run.batch_size * CONTROL_DT / max(falls, 1),
            "charts/learning_rate": learning_rate, "charts/action_std": std.mean().item(),
            "perf/collect_s": collect_s, "perf/learn_s": learn_s, **losses,
            **{f"reward/{name}": total / T for name, total in term_sums.items()},
        }  # fmt: skip
        if ended:
            for name, column in zip(
                ("episodic_return", "episodic_length", "success"), np.array(ended, float).T,
                strict=True,
            ):  # fmt: skip
                row[f"charts/{name}"] = float(column.mean())
        if run.evaluation_due():
            run.evaluation = evaluate(agent, eval_env, seed)
            row |= {f"eval/{name}": value for name, value in run.evaluation.items()}
        run.log(row, {
            "length": f"{row.get('charts/episodic_length', math.nan):.0f}",
            "task": f"{row['reward/task']:.3f}",
            "success": f"{run.evaluation['success']:.0%}" if run.evaluation else "-",
        })  # fmt: skip
        if run.save_due():
            state = env.get_state()
            state["generator"] = json.dumps(state["generator"])  # of integers beyond 64 bits
            run.save({
                "learning_rate": learning_rate, "agent": agent.state_dict(),
                "optimizer": optimizer.state_dict(), "generator": generator.get_state(),
                "env": state, "obs": next_obs, "feet_contact": feet.contact,
                "feet_seconds": feet.seconds, "episode_return": episode_return,
                "episode_length": episode_length,
            })  # fmt: skip
    run.end()
    if not run.evaluation:  # resumed with fewer steps than were done
        run.evaluation = evaluate(agent, eval_env, seed)

    # 7. What leaves the project.
    write_guided_policy(
        run.folder.path, agent.export(), task=config.task,
        drives={
            "default_joint_pos": g1.DEFAULT_JOINT_POS, "action_scale": g1.ACTION_SCALE,
            "stiffness": g1.STIFFNESS, "damping": g1.DAMPING,
        },
        training=run.training_record("ppo_guided", N),
        evaluation={"trials": config.eval_trials, **run.evaluation},
    )  # fmt: skip
    print(
        f"{config.task}: {run.evaluation['success']:.0%} of {config.eval_trials} trials "
        f"succeeded, {run.evaluation['upright']:.0%} stayed up; results in {run.folder.path}"
    )
    env.close()
    eval_env.close()


if __name__ == "__main__":
    cli.run(main, Config)
