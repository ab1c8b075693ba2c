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
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning.evaluation import Evaluation
from bm_envs.learning.folder import as_arrays
from bm_envs.learning.networks import (
    UNCHANGED,
    Network,
    TrackingPolicy,
    as_mirror,
    begin_with,
    copy_normalizer,
    gaussian_kl,
    gradient_of,
    log_prob,
    polyak_update,
    use_bfloat16,
)
from bm_envs.learning.processes import Processes
from bm_envs.learning.returns import gae
from bm_envs.learning.robots import Episodes, make_robots, mean_errors
from bm_envs.learning.run import Flags, config_record, settings_of
from bm_envs.learning.tracker import TrackerRun, TrackerRunConfig, spec_of, tracker_run
from bm_envs.motion.library import load_motions
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import CRITIC_TERMS, mirror_map
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig, laptop_task
from bm_envs.tasks.track.task import TrackTask


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults are for two CPU cores; the other presets are for a GPU."""

    preset: Literal["laptop", "published", "gpu"] = "laptop"
    """Which set of values the other flags start from."""
    motion: tuple[str, ...] = ("walk",)
    """Motions: names, files, cuts such as 'walk1[5:15]'. Several: one policy for all."""
    run: Flags[TrackerRunConfig] = TrackerRunConfig()
    """Where the run is kept, how it is evaluated and when it ends."""

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
    overlap: bool = True
    """Collect an iteration's samples while the ones before are learned from, which keeps all cores
    busy. The samples are one update older, which their weights make up for."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus (published 0.005, with unit noise)."""
    curriculum: bool = True
    """Raise the difficulty from 0 to 1 as the policy learns to stay up: each iteration by
    `CURRICULUM_STEP`, up while the mean time between failures in the hardest tenth of
    the clips is above `curriculum_s`, else down. Published: off, everything from the start."""
    curriculum_s: float = 5.0
    """s."""
    bfloat16: Literal["auto", "on", "off"] = "auto"
    """Learn under bfloat16 autocast; `auto`: where the processor has instructions for it, since it
    is slower than float32 elsewhere."""

    hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of actor and critic (published 512 256 128: more work for the learner)."""
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
        learning_rate=1e-3, schedule="adaptive", gae_lambda=0.95, symmetry=False,
        num_minibatches=4, update_epochs=5, ent_coef=0.005, curriculum=False, ema=0.0,
        hidden=(512, 256, 128), residual=False, init_std=1.0, noise_correlation=0.0,
        warmup_iterations=0, task=TrackConfig.preset("published"), overlap=False, bfloat16="off",
        critic_speed=1.0, run=TrackerRunConfig(eval_every=50_000_000),
    )  # fmt: skip


def gpu() -> Config:
    """The laptop's repairs with the published numbers of robots and samples, on MuJoCo-Warp.

    Not tuned: no GPU was at hand when it was written.
    """
    return Config(
        preset="gpu", run=TrackerRunConfig(backend="mujoco_warp", eval_every=5_000_000),
        num_envs=4096, num_steps=16, total_timesteps=300_000_000, num_minibatches=4,
        update_epochs=5, critic_speed=1.0, overlap=False, hidden=(512, 256, 128),
    )  # fmt: skip


PRESETS = {"laptop": Config, "published": published, "gpu": gpu}

# The same in every preset. `rsl_rl`'s and the publication's, but for the curriculum's step.
CLIP = 0.2  # of the probability ratio, and of the value's change
DESIRED_KL = 0.01  # nats, of the adaptive schedule: above twice it slower, below half of it faster
VALUE_COEF = 1.0  # weight of the value loss
MAX_GRAD_NORM = 1.0
ACTIVATION: Literal["elu"] = "elu"
CURRICULUM_STEP = 0.002  # change of the level per iteration
CONSTANT = {  # as a checkpoint's settings have them
    "clip_coef": CLIP, "clip_vloss": True, "desired_kl": DESIRED_KL, "vf_coef": VALUE_COEF,
    "max_grad_norm": MAX_GRAD_NORM, "activation": ACTIVATION, "curriculum_step": CURRICULUM_STEP,
}  # fmt: skip


# --- policy -------------------------------------------------------------------------------------


class Actor(TrackingPolicy):
    """Gaussian policy with one standard deviation per joint."""

    def __init__(self, config: Config, default_joint_pos: np.ndarray, scale: np.ndarray) -> None:
        super().__init__(
            config.task.observations, config.hidden, default_joint_pos, scale,
            activation=ACTIVATION, residual=config.residual, symmetry=config.symmetry,
        )  # fmt: skip
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


def ppo_loss(
    log_ratio: Tensor, advantage: Tensor, value: Tensor, value_old: Tensor, returns: Tensor,
    entropy: Tensor, ent_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Clipped surrogate, clipped value loss, entropy bonus. `[B]` each -> scalar and its parts."""
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    near = value_old + (value - value_old).clamp(-CLIP, CLIP)
    value_loss = torch.max((value - returns) ** 2, (near - returns) ** 2).mean()
    loss = policy_loss + VALUE_COEF * value_loss - ent_coef * entropy
    clipfrac = ((ratio - 1).abs() > CLIP).float().mean()
    return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "clipfrac": clipfrac}


def adapted(learning_rate: float, kl: float, desired: float) -> float:
    """The step size after a step that moved the policy by `kl`. Source: `rsl_rl`, `ppo.py`."""
    if kl > 2 * desired:
        return max(1e-5, learning_rate / 1.5)
    if 0 < kl < desired / 2:
        return min(1e-2, learning_rate * 1.5)
    return learning_rate


def next_level(level: float, hardest_s: float, curriculum_s: float) -> float:
    """The curriculum's level after an iteration: up while robots stay up, else down.

    Args:
        level: the present one, 0 to 1.
        hardest_s: robot seconds per failure in the hardest tenth of the clips.
        curriculum_s: what `hardest_s` has to exceed.
    """
    change = CURRICULUM_STEP if hardest_s > curriculum_s else -CURRICULUM_STEP
    return float(np.clip(level + change, 0.0, 1.0))


def failure_distance_scale(level: float) -> float:
    """Factor of the task's `failure_distance` at a level of the curriculum.

    Three at the end: a robot that was pushed off the path must learn to stay up there, too.
    """
    return 1 + 2 * level


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
        self.actor = Actor(config, task.nominal_joint_pos, task.action_scale)
        self.critic = Network(
            (task.critic_size, *config.hidden, 1), ACTIVATION, 1.0,
            (as_mirror(mirror_map(CRITIC_TERMS)), UNCHANGED) if config.symmetry else None,
        )  # fmt: skip
        for network in (self.actor, self.critic):
            network.to(device)
        self.averaged = copy.deepcopy(self.actor)  # what is evaluated and exported
        groups = [{"params": list(net.parameters())} for net in (self.actor, self.critic)]
        self.optimizer = torch.optim.Adam(groups, eps=1e-5, fused=True)
        self.learning_rate = config.learning_rate
        self.bfloat16 = use_bfloat16(config.bfloat16, device)
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 1)

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
                    self.learning_rate = adapted(self.learning_rate, kl, DESIRED_KL)
                for group, speed in zip(
                    self.optimizer.param_groups, (1.0, config.critic_speed), strict=True
                ):
                    group["lr"] = self.learning_rate * speed
                self.optimizer.param_groups[0]["lr"] *= actor_share(iteration, config)
                entropy = (actor.log_std + 0.5 * np.log(2 * np.pi * np.e)).sum()
                log_ratio = log_prob(chosen[index], new_mean, log_std) - log_prob_old[index]
                loss, parts = ppo_loss(
                    log_ratio, advantage[index], new_value,
                    value_old[index], returns[index], entropy, config.ent_coef,
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
                nn.utils.clip_grad_norm_(actor.parameters(), MAX_GRAD_NORM)
                nn.utils.clip_grad_norm_(critic.parameters(), MAX_GRAD_NORM)
                self.optimizer.step()
                for key, value in (parts | {"entropy": entropy}).items():
                    sums[key] = sums.get(key, 0.0) + value.item()
                sums["approx_kl"] = sums.get("approx_kl", 0.0) + kl
        polyak_update(self.averaged, actor, config.ema)
        # Only now: before, the samples were seen through the eyes of the policy that drew them.
        actor.update_normalizer(obs, self.processes)
        critic_obs = rollout.critic_obs[:-1].flatten(0, 1)
        critic.update_normalizer(critic_obs, self.processes)
        copy_normalizer(self.averaged, actor)
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
    # Everything that can be refused is refused before a file is made.
    if config.run.backend != "mujoco":  # one device does one thing at a time
        config = dataclasses.replace(config, overlap=False)
    clips, processes = load_motions(config.motion), Processes()
    if processes.count > 1 and config.run.backend != "mujoco":
        raise ConfigError(
            f"backend is '{config.run.backend}', expected mujoco for several processes."
        )
    settings = settings_of(
        config, clips=[clip.sha256() for clip in clips], processes=processes.count, **CONSTANT
    )
    with tracker_run(
        config.run, "ppo_track", clips, settings, ("task", "actor", "learner", "processes"),
        batch_size=config.num_steps * config.num_envs * processes.count,
        total_timesteps=config.total_timesteps, processes=processes,
    ) as run:  # fmt: skip
        train(config, run)


def train(config: Config, run: TrackerRun) -> None:
    """The run itself, in its folder."""
    clips, processes, saved = run.clips, run.processes, run.saved
    # 1. Threads and seeds. With overlap, physics has all the cores, and policy and learner share
    # what it leaves idle.
    threads = config.run.threads or cli.available_cores()
    learn_threads = max(1, threads // 2) if config.overlap else threads
    torch.set_num_threads(learn_threads)
    own_seed = config.run.seed + 10_000 * processes.rank
    torch.manual_seed(config.run.seed)  # the same initial weights everywhere

    # 2. Environments, networks, storage.
    T, N, A = config.num_steps, config.num_envs, g1.NUM_JOINTS  # noqa: N806
    robots = make_robots(clips, config.task, N, config.run, own_seed)
    task, device = robots.task, robots.device
    generator = torch.Generator(device).manual_seed(own_seed)
    evaluation = Evaluation(
        clips, config.task, config.run.threads, robust=bool(config.run.robust_every)
    )
    learner = Learner(config, task, processes, device)
    if config.start_from is not None and saved is None:
        begin_with((learner.actor, learner.averaged), config.start_from, spec_of(config.task))
    acting = copy.deepcopy(learner.actor)  # the learner's own may change while this one acts
    rollout = Rollout(config, task.observation_size, task.critic_size, device)
    pending: Rollout | None = None  # collected, not yet learned from
    noise = torch.zeros(N, A, device=device)
    episodes = Episodes(robots)
    level = 0.0 if config.curriculum else 1.0

    # 3. Start afresh, or from the checkpoint.
    if saved is None:
        robots.set_difficulty(level, failure_distance_scale(level))
        obs, obs_critic = robots.reset(own_seed)
        # Otherwise the time limit would cut off every robot that survives in the same step.
        if config.task.episode_s is not None:
            robots.spread_ends(round(config.task.episode_s / CONTROL_DT))
        for network in (learner.actor, learner.averaged):
            network.update_normalizer(obs, processes)
        learner.critic.update_normalizer(obs_critic, processes)
    else:
        learner.set_state(saved)
        mine = as_arrays(saved["processes"][processes.rank])
        robots.reset(own_seed)
        robots.set_state(mine["robots"])
        if mine["pending"]:
            pending = Rollout(config, task.observation_size, task.critic_size, device)
            pending.set_state(mine["pending"])
        generator.set_state(torch.from_numpy(mine["torch_generator"]))
        obs, obs_critic, noise = (
            torch.from_numpy(mine[name]).to(device) for name in ("obs", "critic_obs", "noise")
        )
        episodes.set_state(mine)
        level = saved["level"]
    acting.load_state_dict(learner.actor.state_dict())
    network_record = {"residual": config.residual, "activation": ACTIVATION}
    run.begin_training(
        config_record(config, "ppo_track", env_id="BMTrack-G1-v0", network=network_record),
        f"{processes.count} x {N} robots, {threads} threads each",
    )
    if config.overlap:
        # Python's threads take turns: by default after 5 ms, a quarter of a step of all robots.
        sys.setswitchinterval(0.0005)
    background = ThreadPoolExecutor(1, initializer=_stand_back, initargs=(learn_threads,))
    while run.goes_on:
        if config.schedule == "exponential":
            ratio = config.final_learning_rate / config.learning_rate
            learner.learning_rate = config.learning_rate * ratio**run.share
        elif config.schedule == "inverse":
            learner.learning_rate = config.learning_rate / (1 + run.step / config.halved_after)
        # 4. Learn in the background from what the last iteration collected.
        learning: Future[dict[str, float]] | None = None
        if pending is not None:
            learning = background.submit(learner.learn, pending, run.iteration - 1)
        # 5. Collect.
        tick = time.perf_counter()
        std = acting.log_std.detach().exp()
        fresh_log_std = acting.fresh_log_std().detach()
        fresh_std = fresh_log_std.exp()
        rollout.log_std.copy_(fresh_log_std)
        for t in range(T):
            rollout.obs[t], rollout.critic_obs[t] = obs, obs_critic
            with torch.no_grad():
                mean = acting.mean(obs)
                carried = config.noise_correlation * noise
                chosen = mean + fresh_std * torch.randn(N, A, generator=generator, device=device)
                noise = chosen - mean + carried
            rollout.mean[t], rollout.chosen[t] = mean, chosen
            step = robots.step(mean + noise)
            obs, obs_critic, done = step.obs, step.critic_obs, step.terminated | step.truncated
            rollout.reward[t], rollout.done[t], rollout.truncated[t] = (
                step.reward, done, step.truncated
            )  # fmt: skip
            if step.final_critic_obs is not None:
                rollout.final_critic_obs[t] = step.final_critic_obs
            episodes.add(step)
            noise *= ~done[:, None]
        rollout.critic_obs[T] = obs_critic
        collect_s = time.perf_counter() - tick

        # 6. What was learned meanwhile acts from now on.
        if config.overlap:
            learned = learning.result() if learning is not None else {}
            spare = pending or Rollout(config, task.observation_size, task.critic_size, device)
            pending, rollout = rollout, spare
        else:
            learned = learner.learn(rollout, run.iteration)
        acting.load_state_dict(learner.actor.state_dict())
        robots.read_statistics()
        processes.average_statistics(robots.sampler.failures, robots.sampler.visits)
        if config.curriculum:
            level = next_level(level, robots.sampler.hardest_s(), config.curriculum_s)
            robots.set_difficulty(level, failure_distance_scale(level))
        run.iteration += 1

        # 7. Evaluate, log, save.
        row = {
            **episodes.figures(), "perf/collect_s": collect_s, "perf/cpu_s": run.clock.cpu_s,
            "charts/learning_rate": learner.learning_rate, **learned, **mean_errors(robots),
            "track/action_std": std.mean().item(), "track/level": level,
            **{f"sampling/{key}": value for key, value in robots.sampler.metrics().items()},
        }  # fmt: skip
        row |= run.evaluate(learner.averaged, evaluation)
        run.log_training(row)
        if run.save_due():
            states = processes.gather({
                "robots": robots.get_state(), "pending": pending.get_state() if pending else {},
                "torch_generator": generator.get_state().numpy(), "noise": noise.cpu(),
                "obs": obs.cpu(), "critic_obs": obs_critic.cpu(), **episodes.get_state(),
            })  # fmt: skip
            run.save({"level": level, **learner.get_state(), "processes": states})
    background.shutdown()

    # 8. What leaves the project.
    if run.end():
        run.export(
            learner.averaged, config.task, algorithm="ppo_track", num_envs=N,
            motion=config.motion[0],
        )  # fmt: skip
    robots.env.close()
    evaluation.close()


def _stand_back(threads: int) -> None:
    """Set up the learner's thread: physics comes first, and this one fills what it leaves idle.

    Each half of the robots is stepped by a thread of its own, and the step ends with the slower.
    """
    torch.set_num_threads(threads)
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.nice(LEARNER_NICE)


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS)
