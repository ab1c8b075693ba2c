"""Train a Unitree G1 to track motion with PPO (BeyondMimic stage 1, arXiv 2508.08241 sec. III).

    python algos/ppo_track.py --motion walk                     # two CPU cores, the built-in walk
    python algos/ppo_track.py --motion 'walk1[5:15]' --seed 2   # a cut of LAFAN1
    python algos/ppo_track.py --preset published --motion walk  # the published recipe
    torchrun --nproc-per-node=4 algos/ppo_track.py --num-envs 64 --threads 1    # data parallel
    python algos/ppo_track.py --preset gpu --motion dance1      # MuJoCo-Warp on an NVIDIA GPU

An asymmetric actor (160 noisy values) and critic (286 clean ones) learn from N robots in one vector
environment. The run directory holds `config.json`, `checkpoint.pt` (everything a bit-exact
`--resume` needs), `policy.onnx` and `policy.json` (what leaves the project), `metrics.jsonl` and
TensorBoard events. Under `torchrun` every process has N robots of its own; gradients, normalizers
and statistics of starts are averaged, so that they learn as one process with all the robots does.

With a backend whose arrays are torch's (`mujoco_warp`) everything stays on its device: robots,
observations, rewards, resets, samples, networks. Evaluation is always by the C engine, another one.

Letters in shapes: N robots, T steps, B = N T samples, O policy and C critic observation, A action.

Logged (metrics.jsonl and TensorBoard; means over the iteration, of the first process):

    charts/episodic_return, charts/episodic_length   of episodes that ended; length in control steps
    charts/time_to_failure_s                         robot seconds per failure
    charts/SPS, charts/learning_rate                 control steps per second since the start
    perf/collect_s, perf/learn_s                     seconds of the iteration's two halves
    perf/cpu_s                                       processor seconds of this process
    losses/value_loss, policy_loss, entropy, approx_kl, clipfrac, explained_variance
    track/<error>                                    errors at the iteration's last step, with noise
    track/action_std, track/level                    mean std of the raw action; curriculum, 0 to 1
    reward/<term>                                    signed reward terms per step
    sampling/entropy, top1_prob, top1_bin            of the start frames
    sampling/hardest_s                               robot seconds per failure, hardest tenth
    eval/success, survival, mpkpe_mm, ...            `clip` protocol: from the first frame, no noise
    eval/robust                                      share completed by the `robust` protocol
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.evaluation import ROBUST
from bm_envs.learning.folder import Run, as_arrays, claim_run, save_checkpoint
from bm_envs.learning.log import Logger
from bm_envs.learning.networks import (
    UNCHANGED,
    Network,
    TrackingPolicy,
    as_mirror,
    begin_with,
    gradient_of,
    has_native_bfloat16,
)
from bm_envs.learning.processes import Processes
from bm_envs.learning.robots import (
    DeviceRobots,
    HostRobots,
    evaluate,
    evaluation_env,
    mean_errors,
    next_level,
    robust_share,
)
from bm_envs.learning.run import (
    Clock,
    check_resumed,
    config_record,
    export,
    identity,
    spec_of,
    write_record,
)
from bm_envs.motion.clip import Clip
from bm_envs.motion.library import load_motions
from bm_envs.observation_terms import CRITIC_TERMS, mirror_map
from bm_envs.robots import g1
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig, laptop_task
from bm_envs.tasks.track.task import TrackTask


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults are for two CPU cores; the other presets are for a GPU."""

    preset: Literal["laptop", "published", "gpu"] = "laptop"
    """Which set of values the other flags start from."""
    motion: tuple[str, ...] = ("walk",)
    """Motions: names, files, cuts such as 'walk1[5:15]'. Several: one policy for all."""
    run_dir: Path | None = None
    """Where the run is kept; default runs/<motion>__ppo_track__<seed>, with __2 and so on
    behind it where that is a run with other settings."""
    resume: bool = False
    """Go on from the run directory's checkpoint, with the numbers the run would have had."""
    seed: int = 1
    """Seed of everything random."""
    backend: str = "mujoco"
    """Physics backend of training."""
    device: str | None = None
    """Of a backend that has a choice, "cpu" or "cuda:0"; None: a GPU where there is one."""
    threads: int = 0
    """CPU threads of physics and learner; 0: all cores this process may use."""
    track: bool = False
    """Log to Weights & Biases as well (needs the package wandb)."""
    wandb_project_name: str = "bm-envs"
    """Project of the Weights & Biases run."""
    capture_video: bool = False
    """Write video.mp4 of the final policy (needs the extra `viz`)."""
    no_motion: bool = False
    """Leave the reference motion out of policy.onnx (for motions that may not be passed on)."""

    start_from: str | None = None
    """A policy to go on from (run directory, file or shipped name): its network becomes the actor,
    with fresh noise of `init_std`. It must have these hidden layers, observations and drives."""
    critic_first: int = 0
    """Control steps at the start in which the critic learns alone, to catch up with `start_from`;
    the actor's step size then rises over as many more."""
    total_timesteps: int = 8_000_000
    """Control steps over all robots."""
    num_envs: int = 256
    """Robots, N."""
    num_steps: int = 8
    """Steps per robot and iteration, T."""
    eval_every: int = 200_000
    """Control steps between evaluations by the `clip` protocol; 0: only at the end."""
    stop_when_passed: bool = False
    """End training at the first evaluation in which every clip is completed."""
    robust_every: int = 0
    """Evaluations from one that has the `robust` protocol as well, 100 episodes a clip, to the next
    (`eval/robust`; its time is not counted); 0: none."""
    stop_when_robust: bool = False
    """End training at the first of those that completes 95 % of its episodes."""
    checkpoint_s: float = 30.0
    """Seconds between checkpoints (the first follows the first iteration)."""

    learning_rate: float = 1e-3
    """Adam's step size; where it starts when adaptive."""
    final_learning_rate: float = 5e-5
    """Step size at the end of the exponential schedule."""
    schedule: Literal["exponential", "inverse", "adaptive", "fixed"] = "exponential"
    """`exponential`: from the first to the final step size over the run, since gradients of so few
    samples are mostly noise, which smaller steps average out; `inverse`: half of it after
    `halved_after` control steps, a third after twice as many and so on, for runs of open length;
    `adaptive`: by the KL divergence of each mini-batch's step (published)."""
    halved_after: int = 1_500_000
    """Control steps, see `schedule`."""
    critic_speed: float = 3.0
    """The critic's step size over the actor's (published 1): it has more to learn, and advantages
    are no better than its values."""
    desired_kl: float = 0.01
    """Target of the adaptive schedule, nats: above twice it slower, below half of it faster."""
    gamma: float = 0.99
    """Discount per control step."""
    gae_lambda: float = 0.97
    """Lambda of generalized advantage estimation (published 0.95, over 24 steps)."""
    ema: float = 0.99
    """Averaging of the policy's weights per iteration; the average is evaluated and exported, the
    present weights act and learn (published: 0, no averaging)."""
    warmup_iterations: int = 1
    """Iterations at the start that only fill the normalizers (published 0). Scaled by observations
    of the start alone, what does not vary there (the last action is 0) would be far too large
    afterwards."""
    num_minibatches: int = 1
    """Mini-batches per epoch."""
    update_epochs: int = 4
    """Epochs over each iteration's samples."""
    clip_coef: float = 0.2
    """Clip of the probability ratio, and of the value's change."""
    clip_vloss: bool = True
    """Whether the value loss is clipped."""
    overlap: bool = True
    """Collect an iteration's samples while the ones before are learned from, which keeps all cores
    busy. The samples are one update older, which their weights make up for."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus (published 0.005, with unit noise)."""
    vf_coef: float = 1.0
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Bound of the gradient's norm."""
    curriculum: bool = True
    """Raise the difficulty (`set_level`) from 0 to 1 as the policy learns to stay up: each
    iteration by `curriculum_step`, up while the mean time between failures in the hardest tenth of
    the clips is above `curriculum_s`, else down. Published: off, everything from the start."""
    curriculum_s: float = 5.0
    """s."""
    curriculum_step: float = 0.002
    """Change of the level per iteration."""
    bfloat16: Literal["auto", "on", "off"] = "auto"
    """Learn under bfloat16 autocast; `auto`: where the processor has instructions for it, since it
    is slower than float32 elsewhere."""

    hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of actor and critic (published 512 256 128: more work for the learner)."""
    activation: Literal["elu", "relu", "tanh"] = "elu"
    """Nonlinearity."""
    residual: bool = True
    """Add the reference pose to the policy's mean: (ref_joint_pos - q0) / action_scale + net(obs).
    Action space, q0 and file contract stay the published ones; it starts near the motion."""
    init_std: float = 0.7
    """Initial standard deviation of the raw action (published 1.0, about the default pose)."""
    noise_correlation: float = 0.75
    """Correlation rho of a robot's action noise from step to step (published 0, white): noise that
    lasts moves a robot with soft drives further, so that more is learned from it. Given the last
    noise the policy is N(mean + rho * noise, (1 - rho^2) std^2), and PPO's ratio uses just that."""

    symmetry: bool = True
    """Left-right symmetric networks: what is learned on one side holds on the other at once."""

    task: TrackConfig = field(default_factory=laptop_task)
    """The task. By default training has adaptive starts and short episodes, ends them 0.3 m off the
    path, pays twice for velocities and more strictly, and has physics steps of 10 ms at half of the
    standard's cost; evaluation always has the standard 5 ms."""

    def __post_init__(self) -> None:
        batch = self.num_envs * self.num_steps
        for name in ("num_envs", "num_steps", "num_minibatches", "update_epochs", "halved_after"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if self.stop_when_robust and not self.robust_every:
            raise ConfigError("stop_when_robust needs robust_every, which is 0.")
        if self.total_timesteps < batch:
            raise ConfigError(
                f"total_timesteps {self.total_timesteps} is less than one iteration of num_envs * "
                f"num_steps = {batch}."
            )
        if not self.critic_speed > 0:
            raise ConfigError(f"critic_speed is {self.critic_speed}, expected a positive number.")
        if not 0.0 <= self.noise_correlation < 1.0:
            raise ConfigError(
                f"noise_correlation is {self.noise_correlation}, expected a number in [0, 1)."
            )
        if self.symmetry and any(width % 2 for width in self.hidden):
            raise ConfigError(
                f"hidden is {self.hidden}, expected even numbers: with symmetry units are pairs."
            )
        if batch % self.num_minibatches:
            raise ConfigError(
                f"num_envs * num_steps = {batch} is not divisible by num_minibatches "
                f"{self.num_minibatches}."
            )


def published() -> Config:
    """The published recipe (whole_body_tracking, rsl_rl_ppo_cfg.py), for 4096 robots at once."""
    return Config(
        preset="published", num_envs=4096, num_steps=24, total_timesteps=30_000 * 4096 * 24,
        learning_rate=1e-3, schedule="adaptive", desired_kl=0.01, gae_lambda=0.95, symmetry=False,
        num_minibatches=4, update_epochs=5, ent_coef=0.005, curriculum=False, ema=0.0,
        hidden=(512, 256, 128), residual=False, init_std=1.0, noise_correlation=0.0,
        warmup_iterations=0, eval_every=50_000_000, task=TrackConfig.preset("published"),
        overlap=False, bfloat16="off", critic_speed=1.0,
    )  # fmt: skip


def gpu() -> Config:
    """The laptop's repairs with the published numbers of robots and samples, on MuJoCo-Warp.

    Not tuned: no GPU was at hand when it was written.
    """
    return Config(
        preset="gpu", backend="mujoco_warp", num_envs=4096, num_steps=16,
        total_timesteps=300_000_000, num_minibatches=4, update_epochs=5, critic_speed=1.0,
        overlap=False, hidden=(512, 256, 128), eval_every=5_000_000,
    )  # fmt: skip


PRESETS = {"laptop": Config, "published": published, "gpu": gpu}


# --- policy -------------------------------------------------------------------------------------


class Actor(TrackingPolicy):
    """Gaussian policy with one standard deviation per joint."""

    def __init__(
        self, obs_size: int, config: Config, default_joint_pos: np.ndarray, scale: np.ndarray
    ) -> None:
        super().__init__(obs_size, config, default_joint_pos, scale)
        self.log_std = nn.Parameter(torch.full((g1.NUM_JOINTS,), float(np.log(config.init_std))))
        self.log_fresh = 0.5 * float(np.log(1 - config.noise_correlation**2))

    def symmetrize_gradients(self) -> None:
        """Between `backward` and the optimizer's step."""
        super().symmetrize_gradients()
        gradient = gradient_of(self.log_std)
        gradient.copy_((gradient + gradient[self.mirrors[-1][0]]) / 2)

    def fresh_log_std(self) -> Tensor:
        """Of the action, given the noise carried over from the last step. `[A]`."""
        return self.log_std + self.log_fresh


# --- mathematics --------------------------------------------------------------------------------


def gae(
    reward: Tensor, value: Tensor, last_value: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalized advantage estimates `[T, N]`.

    Args:
        reward: `[T, N]`; a truncated step's already holds `gamma * V(final observation)`.
        value: `[T, N]`, V of the observation each action was chosen on.
        last_value: `[N]`, V of the observation after the last step.
        done: `[T, N]` bool, the episode ended in this step for whatever reason.
        gamma: discount.
        lam: lambda.
    """
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(last_value)
    following = last_value
    for t in reversed(range(len(reward))):
        alive = (~done[t]).to(reward.dtype)
        delta = reward[t] + gamma * following * alive - value[t]
        running = delta + gamma * lam * alive * running
        advantage[t] = running
        following = value[t]
    return advantage


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of a diagonal Gaussian. `[B, A]` -> `[B]`."""
    z = (action - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum() - 0.5 * np.log(2 * np.pi) * action.shape[-1]


def gaussian_kl(mean_old: Tensor, log_std_old: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Mean KL divergence of the new from the old policy, nats. `[B, A]` -> scalar.

    `sum_A ln(s/s_old) + (s_old^2 + (m_old - m)^2) / (2 s^2) - 1/2`. Source: `rsl_rl`, `ppo.py`.
    """
    ratio = torch.exp(2 * (log_std_old - log_std))
    shift = (mean_old - mean) ** 2 * torch.exp(-2 * log_std)
    return (log_std - log_std_old + 0.5 * (ratio + shift) - 0.5).sum(-1).mean()


def ppo_loss(
    log_ratio: Tensor, advantage: Tensor, value: Tensor, value_old: Tensor, returns: Tensor,
    entropy: Tensor, config: Config,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Clipped surrogate, clipped value loss, entropy bonus. `[B]` each -> scalar and its parts."""
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_error = (value - returns) ** 2
    if config.clip_vloss:
        near = value_old + (value - value_old).clamp(-config.clip_coef, config.clip_coef)
        value_error = torch.max(value_error, (near - returns) ** 2)
    value_loss = value_error.mean()
    loss = policy_loss + config.vf_coef * value_loss - config.ent_coef * entropy
    clipfrac = ((ratio - 1).abs() > config.clip_coef).float().mean()
    return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "clipfrac": clipfrac}


def adapted(learning_rate: float, kl: float, desired: float) -> float:
    """The step size after a step that moved the policy by `kl`. Source: `rsl_rl`, `ppo.py`."""
    if kl > 2 * desired:
        return max(1e-5, learning_rate / 1.5)
    if 0 < kl < desired / 2:
        return min(1e-2, learning_rate * 1.5)
    return learning_rate


def actor_share(iteration: int, config: Config) -> float:
    """Share of the step size that the actor gets while the critic catches up, 0 to 1."""
    if not config.critic_first:
        return 1.0
    done = iteration * config.num_envs * config.num_steps / config.critic_first
    return min(max(done - 1.0, 0.0), 1.0)


# --- samples and learner --------------------------------------------------------------------------


MAX_WEIGHT = 2.0  # of a sample drawn by an older policy: bounds the variance


class Rollout:
    """The samples of one iteration, `[T, N, ...]`, and what they were drawn from."""

    def __init__(
        self, config: Config, observation_size: int, critic_size: int,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        T, N, A = config.num_steps, config.num_envs, g1.NUM_JOINTS  # noqa: N806
        zeros = functools.partial(torch.zeros, device=device)
        self.obs = zeros(T, N, observation_size)
        self.critic_obs = zeros(T + 1, N, critic_size)
        self.mean = zeros(T, N, A)
        self.chosen = zeros(T, N, A)  # the action less the noise carried over
        self.log_std = zeros(A)  # of `chosen`
        self.reward = zeros(T, N)
        self.done = zeros(T, N, dtype=torch.bool)
        # Episodes cut off by the clip's end or the time limit, and their last observations.
        self.truncated = zeros(T, N, dtype=torch.bool)
        self.final_critic_obs = zeros(T, N, critic_size)

    def get_state(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        return {name: value.cpu().numpy() for name, value in vars(self).items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """What `get_state` returned."""
        for name, value in vars(self).items():
            value.copy_(torch.from_numpy(state[name]))


class Learner:
    """Actor, critic and optimizer: one call of `learn` per rollout."""

    def __init__(
        self, config: Config, task: TrackTask, processes: Processes | None = None,
        device: torch.device = torch.device("cpu"),
    ) -> None:  # fmt: skip
        self.config, self.processes, self.device = config, processes or Processes(), device
        self.actor = Actor(task.observation_size, config, task.nominal_joint_pos, task.action_scale)
        self.critic = Network(
            (task.critic_size, *config.hidden, 1), config.activation, 1.0,
            (as_mirror(mirror_map(CRITIC_TERMS)), UNCHANGED) if config.symmetry else None,
        )  # fmt: skip
        for network in (self.actor, self.critic):
            network.to(device)
        self.averaged = copy.deepcopy(self.actor)  # what is evaluated and exported
        groups = [{"params": list(net.parameters())} for net in (self.actor, self.critic)]
        self.optimizer = torch.optim.Adam(groups, eps=1e-5, fused=True)
        self.learning_rate = config.learning_rate
        self.bfloat16 = config.bfloat16 == "on" or (
            config.bfloat16 == "auto" and has_native_bfloat16(device)
        )
        self.generator = torch.Generator(device).manual_seed(config.seed + 1)

    def learn(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Improve actor and critic by an iteration's rollout, then fold it into the normalizers.

        Returns what is logged of it.
        """
        config, actor, critic = self.config, self.actor, self.critic
        tick = time.perf_counter()
        # Values, bootstrap of truncated (never of terminated) episodes, advantages.
        with torch.no_grad():
            critic_x = critic.normalize(rollout.critic_obs)
            values = critic(critic_x).squeeze(-1)
            rewards, cut = rollout.reward.clone(), rollout.truncated
            final = critic.normalize(rollout.final_critic_obs[cut])
            rewards[cut] += config.gamma * critic(final).squeeze(-1)
            advantage = gae(
                rewards, values[:-1], values[-1], rollout.done, config.gamma, config.gae_lambda
            )
            value_old = values[:-1].flatten()
            returns = advantage.flatten() + value_old
            explained = 1 - (returns - value_old).var() / (returns.var() + 1e-8)
            advantage = advantage.flatten()
            moments = torch.stack([advantage.mean(), (advantage * advantage).mean()])
            self.processes.average(moments)
            std = (moments[1] - moments[0] ** 2).sqrt()
            advantage = (advantage - moments[0]) / (std + 1e-8)
            critic_x = critic_x[:-1].flatten(0, 1)
            obs = rollout.obs.flatten(0, 1)
            actor_x, offset = actor.normalize(obs), actor.offset(obs)
            chosen, mean_old = rollout.chosen.flatten(0, 1), rollout.mean.flatten(0, 1)
            log_std_old = rollout.log_std
            log_prob_old = log_prob(chosen, mean_old, log_std_old)
            if config.overlap:
                # The samples are an update old. The clip is about the policy as it is now, and
                # their weight is how much likelier it is to draw them: decoupled PPO,
                # arXiv 2110.00641, eq. 4.
                with self._precision():  # as below, or the first ratio would not be 1
                    mean_now = actor(actor_x)
                drew, mean_old = log_prob_old, mean_now.float() + offset
                log_std_old = actor.fresh_log_std()
                log_prob_old = log_prob(chosen, mean_old, log_std_old)
                weight = (log_prob_old - drew).exp().clamp(max=MAX_WEIGHT)
                mean_weight = weight.mean()
                self.processes.average(mean_weight)
                advantage *= weight / mean_weight
            # What the network itself has to put out, so that the loop below adds nothing per batch.
            chosen, mean_old = chosen - offset, mean_old - offset

        epochs = config.update_epochs if iteration >= config.warmup_iterations else 0
        updates, sums = epochs * config.num_minibatches, dict[str, float]()
        for _ in range(epochs):
            for index in self._mini_batches(len(obs)):
                with self._precision():
                    new_mean = actor(actor_x[index])
                    new_value = critic(critic_x[index]).squeeze(-1)
                new_mean, new_value = new_mean.float(), new_value.float()
                log_std = actor.fresh_log_std()
                divergence = gaussian_kl(
                    mean_old[index], log_std_old, new_mean.detach(), log_std.detach()
                )
                self.processes.average(divergence)
                kl = divergence.item()
                if config.schedule == "adaptive":
                    self.learning_rate = adapted(self.learning_rate, kl, config.desired_kl)
                for group, speed in zip(
                    self.optimizer.param_groups, (1.0, config.critic_speed), strict=True
                ):
                    group["lr"] = self.learning_rate * speed
                self.optimizer.param_groups[0]["lr"] *= actor_share(iteration, config)
                entropy = (actor.log_std + 0.5 * np.log(2 * np.pi * np.e)).sum()
                log_ratio = log_prob(chosen[index], new_mean, log_std) - log_prob_old[index]
                loss, parts = ppo_loss(
                    log_ratio, advantage[index], new_value,
                    value_old[index], returns[index], entropy, config,
                )  # fmt: skip
                self.optimizer.zero_grad()
                loss.backward()
                self.processes.average(*(
                    gradient_of(value) for value in (*actor.parameters(), *critic.parameters())
                ))  # fmt: skip
                if config.symmetry:
                    actor.symmetrize_gradients()
                    critic.symmetrize_gradients()
                # Apart: a large error of the critic must not shorten the actor's step.
                nn.utils.clip_grad_norm_(actor.parameters(), config.max_grad_norm)
                nn.utils.clip_grad_norm_(critic.parameters(), config.max_grad_norm)
                self.optimizer.step()
                for key, value in (parts | {"entropy": entropy}).items():
                    sums[key] = sums.get(key, 0.0) + value.item()
                sums["approx_kl"] = sums.get("approx_kl", 0.0) + kl
        with torch.no_grad():
            for average, present in zip(
                self.averaged.parameters(), actor.parameters(), strict=True
            ):
                average.lerp_(present, 1 - config.ema)
        # Only now: before, the samples were seen through the eyes of the policy that drew them.
        actor.update_normalizer(obs, self.processes)
        critic_obs = rollout.critic_obs[:-1].flatten(0, 1)
        critic.update_normalizer(critic_obs, self.processes)
        for average, present in zip(self.averaged.buffers(), actor.buffers(), strict=True):
            average.copy_(present)
        return {
            "perf/learn_s": time.perf_counter() - tick,
            **{f"losses/{key}": value / updates for key, value in sums.items()},
            "losses/explained_variance": explained.item(),
        }

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _mini_batches(self, samples: int) -> Sequence[Tensor | slice]:
        if self.config.num_minibatches == 1:
            return [slice(None)]
        order = torch.randperm(samples, generator=self.generator, device=self.device)
        return order.split(samples // self.config.num_minibatches)

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "actor": self.averaged.state_dict(), "learner": self.actor.state_dict(),
            "critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict(),
            "learner_generator": self.generator.get_state(), "learning_rate": self.learning_rate,
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.averaged.load_state_dict(state["actor"])
        self.actor.load_state_dict(state["learner"])
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["learner_generator"])
        self.learning_rate = state["learning_rate"]


# --- training -----------------------------------------------------------------------------------


LEARNER_NICE = 4  # by how much the overlapping learner's thread stands back behind physics


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # 1. Everything that can be refused is refused here, before a file is made.
    clips = load_motions(config.motion)
    name = "+".join(clip.name for clip in clips[:3]) + ("+..." if len(clips) > 3 else "")
    on_host = config.backend == "mujoco"
    if not on_host:  # one device does one thing at a time
        config = dataclasses.replace(config, overlap=False)
    processes = Processes()
    settings = json.dumps(identity(config, clips, processes))
    keys = ("task", "actor", "learner", "processes")
    with claim_run(
        config, f"{name}__ppo_track__{config.seed}", settings, "task", keys,
        "settings or motions", processes,
    ) as run:  # fmt: skip
        train(config, clips, name, settings, processes, run)


def train(
    config: Config, clips: list[Clip], name: str, settings: str, processes: Processes, run: Run
) -> None:  # fmt: skip
    """The run itself, in its folder.

    Args:
        config: settings.
        clips: the motions.
        name: what they are called together.
        settings: what a checkpoint must have in common with this run.
        processes: of the run.
        run: its folder, and the checkpoint that is there.
    """
    on_host, saved = config.backend == "mujoco", run.saved
    threads = config.threads or cli.available_cores()
    # With overlap, physics has all the cores, and policy and learner share what it leaves idle.
    learn_threads = max(1, threads // 2) if config.overlap else threads
    torch.set_num_threads(learn_threads)
    if processes.count > 1 and not on_host:
        raise ConfigError(f"backend is '{config.backend}', expected mujoco for several processes.")
    first = processes.rank == 0  # it alone evaluates and writes
    own_seed = config.seed + 10_000 * processes.rank
    torch.manual_seed(config.seed)  # the same initial weights everywhere

    # 2. Environments and networks.
    robots = HostRobots(config, clips) if on_host else DeviceRobots(config, clips, own_seed)
    task, device = robots.task, robots.device
    generator = torch.Generator(device).manual_seed(own_seed)
    eval_env = evaluation_env(config, clips)
    robust_env = evaluation_env(config, clips, "robust") if config.robust_every else None
    learner = Learner(config, task, processes, device)
    if config.start_from is not None and saved is None:
        begin_with((learner.actor, learner.averaged), config.start_from, spec_of(config))
    acting = copy.deepcopy(learner.actor)  # the learner's own may change while this one acts
    T, N, A = config.num_steps, config.num_envs, g1.NUM_JOINTS  # noqa: N806
    batch_size = T * N * processes.count
    num_iterations = config.total_timesteps // batch_size
    if not num_iterations:
        raise ConfigError(
            f"total_timesteps {config.total_timesteps} is less than one iteration of "
            f"{processes.count} processes, {batch_size}."
        )
    rollout = Rollout(config, task.observation_size, task.critic_size, device)
    pending: Rollout | None = None  # collected, not yet learned from

    # 3. Start afresh, or from the checkpoint.
    iteration, begun_at, train_s = 0, 0, 0.0
    noise = torch.zeros(N, A, device=device)
    episode_return = torch.zeros(N, dtype=torch.float64, device=device)
    episode_length = torch.zeros(N, dtype=torch.long, device=device)
    level, commits = 0.0 if config.curriculum else 1.0, []
    evaluation: dict[str, float] = {}
    first_pass: dict[str, float] = {}
    if saved is None:
        robots.set_level(level)
        obs, obs_critic = robots.reset(own_seed)
        # Else every robot that survives is cut off by the time limit in the same step.
        if config.task.episode_s is not None:
            robots.spread_ends(round(config.task.episode_s / CONTROL_DT))
        for network in (learner.actor, learner.averaged):
            network.update_normalizer(obs, processes)
        learner.critic.update_normalizer(obs_critic, processes)
    else:
        begun_at = saved["iteration"] * batch_size
        check_resumed(config, run, begun_at)
        learner.set_state(saved)
        own = as_arrays(saved["processes"][processes.rank])
        robots.reset(own_seed)
        robots.set_state(own["robots"])
        if own["pending"]:
            pending = Rollout(config, task.observation_size, task.critic_size, device)
            pending.set_state(own["pending"])
        generator.set_state(torch.from_numpy(own["torch_generator"]))
        obs, obs_critic, noise, episode_return, episode_length = (
            torch.from_numpy(own[name]).to(device)
            for name in ("obs", "critic_obs", "noise", "episode_return", "episode_length")
        )
        iteration, train_s = saved["iteration"], saved["train_s"]
        evaluation, level = saved["evaluation"], saved["level"]
        first_pass, commits = saved["first_pass"], saved["commits"]
    acting.load_state_dict(learner.actor.state_dict())
    # Every state of the source that had a part in the weights.
    if (commit := cli.commit()) is not None and commit not in commits:
        commits.append(commit)
    log: Logger | None = None
    if first:
        record = config_record(config, "ppo_track")
        log = Logger(run.path, config, record, begun_at, num_iterations * batch_size)
        begun = write_record(run.path, record, begun_at)
        print(
            f"motion {name} ({sum(clip.duration_s for clip in clips):.1f} s), backend "
            f"{config.backend}, {processes.count} x {N} robots, {threads} threads each, "
            f"{config.total_timesteps:,} steps, {begun} -> {run.path}"
        )

    last_save = -np.inf
    clock = Clock(train_s)
    stop = asked = False
    if config.overlap:
        # Python's threads take turns: by default after 5 ms, a quarter of a step of all robots.
        sys.setswitchinterval(0.0005)
    run.listen()
    background = ThreadPoolExecutor(1, initializer=_stand_back, initargs=(learn_threads,))
    while iteration < num_iterations and not stop:
        if config.schedule == "exponential":
            ratio = config.final_learning_rate / config.learning_rate
            learner.learning_rate = config.learning_rate * ratio ** (iteration / num_iterations)
        elif config.schedule == "inverse":
            passed = iteration * batch_size / config.halved_after
            learner.learning_rate = config.learning_rate / (1 + passed)
        # 4. Learn in the background from what the last iteration collected.
        learning: Future[dict[str, float]] | None = None
        if pending is not None:
            learning = background.submit(learner.learn, pending, iteration - 1)
        # 5. Collect.
        tick = time.perf_counter()
        std = acting.log_std.detach().exp()
        fresh_log_std = acting.fresh_log_std().detach()
        fresh_std = fresh_log_std.exp()
        rollout.log_std.copy_(fresh_log_std)
        # Of the iteration: failures, episodes that ended, their returns and lengths, reward terms.
        counts = torch.zeros(4, dtype=torch.float64, device=device)
        terms = torch.zeros(len(robots.term_names), device=device)
        for t in range(T):
            rollout.obs[t], rollout.critic_obs[t] = obs, obs_critic
            with torch.no_grad():
                mean = acting.mean(obs)
                carried = config.noise_correlation * noise
                chosen = mean + fresh_std * torch.randn(N, A, generator=generator, device=device)
                noise = chosen - mean + carried
            rollout.mean[t], rollout.chosen[t] = mean, chosen
            obs, obs_critic, reward, terminated, truncated, final, means = robots.step(mean + noise)
            done = terminated | truncated
            rollout.reward[t], rollout.done[t], rollout.truncated[t] = reward, done, truncated
            if final is not None:
                rollout.final_critic_obs[t] = final
            episode_return += reward
            episode_length += 1
            ended = done.double()
            counts += torch.stack([
                terminated.sum(), done.sum(), (episode_return * ended).sum(),
                (episode_length * ended).sum(),
            ])  # fmt: skip
            keep = ~done
            noise *= keep[:, None]
            episode_return *= keep
            episode_length *= keep
            terms += means
        rollout.critic_obs[T] = obs_critic
        failures, episodes, returns, lengths = counts.tolist()
        collect_s = time.perf_counter() - tick

        # 6. What was learned meanwhile acts from now on.
        if config.overlap:
            learned = learning.result() if learning is not None else {}
            spare = pending or Rollout(config, task.observation_size, task.critic_size, device)
            pending, rollout = rollout, spare
        else:
            learned = learner.learn(rollout, iteration)
        acting.load_state_dict(learner.actor.state_dict())
        robots.read_statistics()
        processes.average_statistics(robots.sampler.failures, robots.sampler.visits)
        if config.curriculum:
            level = next_level(level, robots.sampler.hardest_s(), config)
            robots.set_level(level)
        iteration += 1
        step = iteration * batch_size

        # 7. Log, evaluate, save.
        row = {
            "charts/time_to_failure_s": T * N * CONTROL_DT / max(failures, 1),
            "perf/collect_s": collect_s,
            "perf/cpu_s": clock.cpu_s,
            "charts/learning_rate": learner.learning_rate,
            **learned,
            **mean_errors(robots),
            "track/action_std": std.mean().item(),
            "track/level": level,
            **{
                f"reward/{k}": v / T for k, v in zip(robots.term_names, terms.tolist(), strict=True)
            },
            **{f"sampling/{key}": value for key, value in robots.sampler.metrics().items()},
        }
        if episodes:
            row["charts/episodic_return"] = returns / episodes
            row["charts/episodic_length"] = lengths / episodes
        last = iteration == num_iterations
        due = (
            config.eval_every
            and step // config.eval_every > (step - batch_size) // config.eval_every
        )
        if due or last:
            evaluation = processes.broadcast(evaluate(learner.averaged, eval_env) if first else {})
            if robust_env and (last or step // config.eval_every % config.robust_every == 0):
                with clock.stopped():
                    share = robust_share(learner.averaged, robust_env) if first else 0.0
                    evaluation["robust"] = processes.broadcast(share)
            row |= {f"eval/{key}": value for key, value in evaluation.items()}
        train_s = clock.wall_s
        if evaluation.get("success") == 1.0 and not first_pass:
            first_pass = {"env_steps": step, "wall_s": train_s}
        stop = (config.stop_when_passed and bool(first_pass)) or (
            config.stop_when_robust and evaluation.get("robust", 0.0) >= ROBUST
        )
        if log is not None:
            log.write(step, iteration, train_s, row, evaluation)
        asked = run.asked is not None
        save = time.perf_counter() - last_save > config.checkpoint_s or stop or asked or (
            iteration in (1, num_iterations)
        )  # fmt: skip
        save, asked = processes.broadcast((save, asked))
        stop |= asked
        if save:
            last_save = time.perf_counter()
            states = processes.gather({
                "robots": robots.get_state(), "pending": pending.get_state() if pending else {},
                "torch_generator": generator.get_state().numpy(), "noise": noise.cpu(),
                "obs": obs.cpu(), "critic_obs": obs_critic.cpu(),
                "episode_return": episode_return.cpu(), "episode_length": episode_length.cpu(),
            })  # fmt: skip
            if first:
                save_checkpoint(
                    run.checkpoint,
                    {
                        "task": settings,
                        "iteration": iteration, "train_s": train_s, "env_steps": step,
                        "level": level, "commits": commits, "evaluation": evaluation,
                        "first_pass": first_pass, **learner.get_state(), "processes": states,
                    },
                )  # fmt: skip
    background.shutdown()
    processes.close()
    if log is not None:
        log.close()
    if asked:
        run.leave(f"{iteration * batch_size:,} steps")
    run.stop_listening()
    if log is None:
        return

    # 8. What leaves the project.
    export(
        run.path, config, learner.averaged, clips, "ppo_track", evaluation, first_pass,
        iteration * batch_size, train_s, commits,
    )  # fmt: skip
    if first_pass:
        print(
            f"completed by the clip protocol after {first_pass['env_steps']:,} steps, "
            f"{first_pass['wall_s'] / 60:.1f} min"
        )
    # A robot that fell in its first step has no frame with an error.
    error = f"{evaluation['mpkpe_mm']:.0f} mm" if evaluation["survival"] > 0 else "-"
    print(
        f"clip protocol: survived {evaluation['survival']:.1%}, mpkpe {error}; "
        f"results in {run.path}"
    )
    robots.env.close()
    eval_env.close()
    if robust_env is not None:
        robust_env.close()


def _stand_back(threads: int) -> None:
    """Set up the learner's thread: physics comes first, and this one fills what it leaves idle.

    Each half of the robots is stepped by a thread of its own, and the step ends with the slower.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.nice(LEARNER_NICE)


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS)
