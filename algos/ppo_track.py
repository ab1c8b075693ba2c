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
What is logged, and how to read it, says docs/algorithms/ppo_track.md.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning import checks, gaussian, networks
from bm_envs.learning.collecting import Collector, Rollout, spread_ends
from bm_envs.learning.gaussian import gaussian_entropy, gaussian_kl, log_prob
from bm_envs.learning.networks import TrackingPolicy, tracking_critic
from bm_envs.learning.processes import Processes, learner_thread
from bm_envs.learning.returns import Means, explained_variance, gae, mini_batches, standardized
from bm_envs.learning.robots import make_robots, with_motions
from bm_envs.learning.run import Flags, config_record
from bm_envs.learning.states import load_states, states_of
from bm_envs.learning.tracker import TrackerRun, TrackerRunConfig, tracker_run, tracker_settings
from bm_envs.tasks.track.config import TrackConfig, laptop_task
from bm_envs.tasks.track.task import TrackTask


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults and `v4` are for two CPU cores, the others for a GPU."""

    preset: Literal["laptop", "published", "v4", "gpu"] = "laptop"
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
    the actor's learning rate then rises over as many more."""
    total_timesteps: int = 8_000_000
    """Control steps over all robots."""
    num_envs: int = 256
    """Robots, N."""
    num_steps: int = 8
    """Steps per robot and iteration, T."""

    learning_rate: float = 1e-3
    """Adam's learning rate; where it starts when adaptive."""
    final_learning_rate: float = 5e-5
    """Learning rate at the end of the exponential schedule."""
    schedule: Literal["exponential", "inverse", "adaptive", "fixed"] = "exponential"
    """`exponential`: from the first to the final learning rate over the run, since gradients of so
    few samples are mostly noise, which smaller steps average out; `inverse`: half of it after
    `halved_after` control steps, a third after twice as many and so on, for runs of open length;
    `adaptive`: by the KL divergence of each mini-batch's step (published)."""
    halved_after: int = 1_500_000
    """Control steps, see `schedule`."""
    critic_speed: float = 3.0
    """The critic's learning rate over the actor's (published 1): it has more to learn, and
    advantages are no better than its values."""
    gamma: float = 0.99
    """Discount per control step."""
    ema: float = 0.99
    """Averaging of the policy's weights per iteration; the average is evaluated and exported, the
    present weights act and learn (published: 0, no averaging)."""
    num_minibatches: int = 1
    """Mini-batches per epoch."""
    update_epochs: int = 4
    """Epochs over each iteration's samples."""
    overlap: bool = True
    """Collect an iteration's samples while the ones before are learned from, which keeps all cores
    busy. The samples are of a policy one update older; decoupled PPO corrects for that."""
    curriculum: bool = True
    """Raise the difficulty from 0 to 1 as the policy learns to stay up: each iteration by
    `CURRICULUM_STEP`, up while the mean time between failures in the hardest tenth of
    the bins is above `curriculum_s`, else down. Published: off, everything from the start."""
    curriculum_s: float = 5.0
    """Robot seconds per failure in the hardest tenth of the bins above which the level rises."""
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
    noise the action is of N(mean + rho * noise, (1 - rho^2) std^2): PPO's ratio is of this one."""
    symmetry: bool = True
    """Left-right symmetric networks: what is learned on one side holds on the other at once."""

    task: TrackConfig = field(default_factory=laptop_task)
    """The task in training. By default (`laptop_task`) episodes are short, start more often where
    robots fail and end 0.3 m from the reference; velocity errors weigh twice, on a narrower scale;
    a physics step is 10 ms, at half the cost. Evaluation always has steps of 5 ms."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(
            self, "num_envs", "num_steps", "num_minibatches", "update_epochs", "halved_after"
        )
        checks.check_batches(self)
        checks.check_hidden(self, "hidden")
        checks.check_positive(self, "critic_speed")
        if not 0.0 <= self.noise_correlation < 1.0:
            raise ConfigError(
                f"noise_correlation is {self.noise_correlation}, expected a number in [0, 1)."
            )


def published() -> Config:
    """The published recipe (whole_body_tracking, rsl_rl_ppo_cfg.py), for 4096 robots at once."""
    return Config(
        preset="published", num_envs=4096, num_steps=24, total_timesteps=30_000 * 4096 * 24,
        learning_rate=1e-3, schedule="adaptive", symmetry=False, num_minibatches=4,
        update_epochs=5, curriculum=False, ema=0.0, hidden=(512, 256, 128), residual=False,
        init_std=1.0, noise_correlation=0.0, task=TrackConfig.preset("published"), overlap=False,
        bfloat16="off", critic_speed=1.0, run=TrackerRunConfig(eval_every=50_000_000),
    )  # fmt: skip


def gpu() -> Config:
    """The laptop's repairs, with the published numbers of robots and samples; not tuned."""
    return Config(
        preset="gpu", run=TrackerRunConfig(backend="mujoco_warp", eval_every=5_000_000),
        num_envs=4096, num_steps=16, total_timesteps=300_000_000, num_minibatches=4,
        update_epochs=5, critic_speed=1.0, overlap=False, hidden=(512, 256, 128),
    )  # fmt: skip


PRESETS = {"laptop": Config, "published": published, "gpu": gpu}
PRESETS["v4"] = lambda: Config("v4", task=TrackConfig.preset("v4"))  # the defaults' trainer

# What no flag changes: `rsl_rl`'s and the publication's, but for the curriculum's step.
CLIP = 0.2  # of the probability ratio, and of the value's change
DESIRED_KL = 0.01  # nats, of the adaptive schedule
VALUE_COEF = 1.0  # weight of the value loss
MAX_GRAD_NORM = 1.0
CURRICULUM_STEP = 0.002  # change of the level per iteration
MAX_WEIGHT = 2.0  # at which the weight of an older policy's sample is clipped
# By preset: lambda of generalized advantage estimation (published: over 24 steps); weight of the
# entropy bonus (published: with unit noise).
GAE_LAMBDA = {"laptop": 0.97, "published": 0.95, "v4": 0.97, "gpu": 0.97}
ENT_COEF = {"laptop": 0.0, "published": 0.005, "v4": 0.0, "gpu": 0.0}
# Iterations at the start that only fill the normalizers. Scaled by observations of the start alone,
# what does not vary there (the last action is 0) would be far too large afterwards.
WARMUP_ITERATIONS = {"laptop": 1, "published": 0, "v4": 1, "gpu": 1}


def constants(config: Config) -> dict[str, Any]:
    """A run records these beside its settings, and a checkpoint with other ones is refused."""
    return {
        "clip_coef": CLIP, "clip_vloss": True, "desired_kl": DESIRED_KL, "vf_coef": VALUE_COEF,
        "max_grad_norm": MAX_GRAD_NORM, "activation": "elu",
        "curriculum_step": CURRICULUM_STEP, "gae_lambda": GAE_LAMBDA[config.preset],
        "ent_coef": ENT_COEF[config.preset], "warmup_iterations": WARMUP_ITERATIONS[config.preset],
    }  # fmt: skip


# --- mathematics --------------------------------------------------------------------------------


def ppo_loss(
    log_ratio: Tensor, advantage: Tensor, value: Tensor, value_old: Tensor, returns: Tensor,
    entropy: Tensor, ent_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Clipped surrogate, clipped value loss, entropy bonus. `[B]` each -> scalar and its parts."""
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - CLIP, 1 + CLIP)
    policy_loss = -torch.min(ratio * advantage, clipped_ratio * advantage).mean()
    clipped_value = value_old + (value - value_old).clamp(-CLIP, CLIP)
    value_loss = torch.max((value - returns) ** 2, (clipped_value - returns) ** 2).mean()
    loss = policy_loss + VALUE_COEF * value_loss - ent_coef * entropy
    clipfrac = ((ratio - 1).abs() > CLIP).float().mean()
    return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "clipfrac": clipfrac}


def next_level(level: float, hardest_s: float, curriculum_s: float) -> float:
    """The curriculum's level, 0 to 1, after an iteration: up while robots stay up, else down.

    `hardest_s`, robot seconds per failure in the hardest tenth, has to exceed `curriculum_s`.
    """
    change = CURRICULUM_STEP if hardest_s > curriculum_s else -CURRICULUM_STEP
    return float(np.clip(level + change, 0.0, 1.0))


def failure_distance_scale(level: float) -> float:
    """Factor of the task's `failure_distance` at a level of the curriculum.

    Three at the end: a robot that was pushed off the path must learn to stay up there, too.
    """
    return 1 + 2 * level


def actor_share(iteration: int, config: Config) -> float:
    """Share of the learning rate that the actor gets while the critic catches up, 0 to 1."""
    if not config.critic_first:
        return 1.0
    done = iteration * config.num_envs * config.num_steps / config.critic_first
    return min(max(done - 1.0, 0.0), 1.0)


# --- samples and learner --------------------------------------------------------------------------


def make_actor(config: Config, default_joint_pos: np.ndarray, scale: np.ndarray) -> TrackingPolicy:
    """A Gaussian policy with one standard deviation per joint."""
    return TrackingPolicy(
        config.task.observations, config.hidden, default_joint_pos, scale, residual=config.residual,
        symmetry=config.symmetry, init_std=config.init_std, robot=config.task.model.table,
    )  # fmt: skip


def fresh_log_std(actor: TrackingPolicy, config: Config) -> Tensor:
    """Log standard deviation of the action, given the noise of the step before. `[A]`."""
    return actor.log_std + 0.5 * float(np.log(1 - config.noise_correlation**2))


class Learner:
    """Actor, critic and optimizer: one call of `learn` per rollout."""

    def __init__(
        self, config: Config, task: TrackTask, processes: Processes | None = None,
        device: torch.device = torch.device("cpu"),
    ) -> None:  # fmt: skip
        self.config, self.processes = config, processes or Processes()
        self.actor = make_actor(config, task.nominal_joint_pos, task.action_scale).to(device)
        critic = networks.tracking_critic(config.hidden, config.symmetry, task.robot)
        self.critic = critic.to(device)
        self.averaged = copy.deepcopy(self.actor)  # what is evaluated and exported
        groups = [{"params": list(net.parameters())} for net in (self.actor, self.critic)]
        self.optimizer = torch.optim.Adam(groups, eps=1e-5, fused=True)
        self.learning_rate = config.learning_rate
        self.autocast = networks.autocast(config.bfloat16, device)
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 1)

    def learn(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Improve actor and critic, fold the rollout into the normalizers; what is logged of it."""
        config, actor, critic = self.config, self.actor, self.critic
        tick = time.perf_counter()
        # Values, bootstrap of truncated (never of terminated) episodes, advantages.
        with torch.no_grad():
            critic_x = critic.normalize(rollout.critic_obs)
            values = critic(critic_x).squeeze(-1)
            rewards, truncated = rollout.reward.clone(), rollout.truncated
            gamma, lam = config.gamma, GAE_LAMBDA[config.preset]
            rewards[truncated] += gamma * critic.value(rollout.final_critic_obs[truncated])
            advantage = gae(rewards, values[:-1], values[-1], rollout.done, gamma, lam).flatten()
            value_old = values[:-1].flatten()
            returns = advantage + value_old
            explained = explained_variance(value_old, returns)
            advantage = standardized(advantage, self.processes)
            critic_x = critic_x[:-1].flatten(0, 1)
            obs = rollout.obs.flatten(0, 1)
            actor_x, offset = actor.normalize(obs), actor.offset(obs)
            # The behavior policy drew the samples; clip and KL keep near the proximal policy.
            chosen, mean_behavior = rollout.chosen.flatten(0, 1), rollout.mean.flatten(0, 1)
            log_prob_behavior = log_prob(chosen, mean_behavior, rollout.log_std)
            if config.overlap:
                # The behavior policy is an update old. The proximal one is the present policy, and
                # samples weigh as much as it is likelier to draw them: decoupled PPO, arXiv
                # 2110.00641, eq. 4.
                with self.autocast():  # as below, or the first ratio would not be 1
                    mean_proximal = actor(actor_x).float() + offset
                log_std_proximal = fresh_log_std(actor, config)
                log_prob_proximal = log_prob(chosen, mean_proximal, log_std_proximal)
                weight = (log_prob_proximal - log_prob_behavior).exp().clamp(max=MAX_WEIGHT)
                mean_weight = weight.mean()
                self.processes.average(mean_weight)
                advantage *= weight / mean_weight
            else:  # they are one policy
                mean_proximal, log_std_proximal = mean_behavior, rollout.log_std
                log_prob_proximal = log_prob_behavior
            # Below, `new_mean` is the network's output, to which no reference is added.
            chosen, mean_proximal = chosen - offset, mean_proximal - offset

        figures = Means()
        is_warmup = iteration < WARMUP_ITERATIONS[config.preset]
        for _ in range(0 if is_warmup else config.update_epochs):
            for index in mini_batches(len(obs), config.num_minibatches, self.generator):
                with self.autocast():
                    new_mean = actor(actor_x[index])
                    new_value = critic(critic_x[index]).squeeze(-1)
                new_mean, new_value = new_mean.float(), new_value.float()
                log_std = fresh_log_std(actor, config)
                kl = gaussian_kl(
                    mean_proximal[index], log_std_proximal, new_mean.detach(), log_std.detach()
                )
                self.processes.average(kl)
                self._set_learning_rates(kl.item(), iteration)
                # The entropy is of the action's whole noise, the ratio of its fresh noise alone.
                entropy = gaussian_entropy(actor.log_std)
                log_ratio = log_prob(chosen[index], new_mean, log_std) - log_prob_proximal[index]
                loss, parts = ppo_loss(
                    log_ratio, advantage[index], new_value, value_old[index], returns[index],
                    entropy, ENT_COEF[config.preset],
                )  # fmt: skip
                self.optimizer.zero_grad()
                loss.backward()
                self.processes.average_gradients(actor, critic)
                for network in (actor, critic):
                    network.symmetrize_gradients()
                    # Each is clipped alone: a large error of the critic shortens no actor's step.
                    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
                self.optimizer.step()
                figures.add(**parts, entropy=entropy, approx_kl=kl)
        networks.polyak_update(self.averaged, actor, config.ema)
        # The normalizers change last: all above has those of the policy that drew the samples.
        self.update_normalizers(obs, rollout.critic_obs[:-1].flatten(0, 1))
        return {
            "perf/learn_s": time.perf_counter() - tick, **figures.figures("losses/"),
            "losses/explained_variance": explained.item(),
        }  # fmt: skip

    def update_normalizers(self, obs: Tensor, critic_obs: Tensor) -> None:
        """Fold `[B, O]` and `[B, C]` into the networks' statistics."""
        self.actor.update_normalizer(obs, self.processes)
        self.critic.update_normalizer(critic_obs, self.processes)
        networks.copy_normalizer(self.averaged, self.actor)

    def _set_learning_rates(self, kl: float, iteration: int) -> None:
        """Of actor and critic: the schedule's, or the last one changed by `kl`, nats."""
        if self.config.schedule == "adaptive":
            self.learning_rate = gaussian.adaptive_learning_rate(self.learning_rate, kl, DESIRED_KL)
        shares = (actor_share(iteration, self.config), self.config.critic_speed)
        for group, share in zip(self.optimizer.param_groups, shares, strict=True):
            group["lr"] = self.learning_rate * share

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it, beside the learning rate."""
        return {
            "actor": self.averaged, "learner": self.actor, "critic": self.critic,
            "optimizer": self.optimizer, "learner_generator": self.generator,
        }  # fmt: skip

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**states_of(self.parts()), "learning_rate": self.learning_rate}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        load_states(self.parts(), state)
        self.learning_rate = state["learning_rate"]


# --- training -----------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # Everything that can be refused is refused before a file is made.
    if config.run.backend != "mujoco":  # one device does one thing at a time
        config = dataclasses.replace(config, overlap=False)
    (config, clips), processes = with_motions(config), Processes()
    settings = tracker_settings(config, clips, processes, **constants(config))
    with tracker_run(
        config.run, "ppo_track", clips, settings, ("task", "actor", "learner", "processes"),
        batch_size=config.num_steps * config.num_envs * processes.count,
        total_timesteps=config.total_timesteps, processes=processes,
    ) as run:  # fmt: skip
        train(config, run)


def train(config: Config, run: TrackerRun) -> None:
    """The run itself, in its folder."""
    clips, processes, saved = run.clips, run.processes, run.saved
    # 1. Threads and seeds. With overlap, policy and learner share what physics leaves idle.
    threads = config.run.threads or cli.available_cores()
    learn_threads = max(1, threads // 2) if config.overlap else threads
    torch.set_num_threads(learn_threads)
    seed = config.run.seed + 10_000 * processes.rank  # of this process's robots
    torch.manual_seed(config.run.seed)  # the same initial weights everywhere

    # 2. Environments, networks, storage.
    T, N = config.num_steps, config.num_envs  # noqa: N806
    robots = make_robots(clips, config.task, N, config.run, seed)
    task, device = robots.task, robots.device
    evaluation = run.evaluation_of(config.task)
    learner = Learner(config, task, processes, device)
    run.start_from(config.start_from, config.task, learner.actor, learner.averaged)
    acting = copy.deepcopy(learner.actor)  # the learner's own may change while this one acts
    rollout = Rollout(T, N, task, device)
    pending: Rollout | None = None  # collected, not yet learned from

    # 3. Start afresh, or from the checkpoint.
    level = 0.0 if config.curriculum else 1.0
    robots.set_difficulty(level, failure_distance_scale(level))
    collector = Collector(robots, seed)
    if saved is None:
        spread_ends(robots, config.task)
        learner.update_normalizers(collector.obs, collector.critic_obs)
    else:
        level = saved["level"]
        learner.set_state(saved)
        state = saved["processes"][processes.rank]
        collector.set_state(state)
        if state["pending"]:
            pending = Rollout(T, N, task, device)
            pending.set_state(state["pending"])
    acting.load_state_dict(learner.actor.state_dict())
    record = {"env_id": task.robot.env_id, "network": acting.description(), **constants(config)}
    run.begin_training(
        config_record(config, "ppo_track", **record),
        f"{processes.count} x {N} robots, {threads} threads each",
    )
    background = learner_thread(learn_threads)
    while run.goes_on:
        if config.schedule == "exponential":
            ratio = config.final_learning_rate / config.learning_rate
            learner.learning_rate = config.learning_rate * ratio**run.share
        elif config.schedule == "inverse":
            learner.learning_rate = config.learning_rate / (1 + run.step / config.halved_after)
        # 4. Learn in the background from `pending`, which the iteration before this one collected.
        learning = background.submit(learner.learn, pending, run.iteration - 1) if pending else None

        # 5. Collect. A robot's action is `chosen` plus the noise carried over from its last step.
        tick = time.perf_counter()
        std = acting.log_std.detach().exp()
        rollout.log_std.copy_(fresh_log_std(acting, config).detach())
        fresh_std = rollout.log_std.exp()
        for t in range(T):
            rollout.obs[t], rollout.critic_obs[t] = collector.obs, collector.critic_obs
            with torch.no_grad():
                mean = acting.mean(collector.obs)
                chosen = mean + fresh_std * collector.normal()
                carried = config.noise_correlation * collector.noise
                noise = chosen - mean + carried
            rollout.mean[t], rollout.chosen[t] = mean, chosen
            rollout.store(t, collector.step(mean, noise))  # env.step(mean + noise)
        rollout.critic_obs[T] = collector.critic_obs
        collect_s = time.perf_counter() - tick

        # 6. What was learned meanwhile acts from now on.
        if config.overlap:
            learned = learning.result() if learning else {}
            pending, rollout = rollout, pending or Rollout(T, N, task, device)
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
            **collector.figures(), **learned, "perf/collect_s": collect_s,
            "perf/cpu_s": run.clock.cpu_s, "charts/learning_rate": learner.learning_rate,
            "track/action_std": std.mean().item(), "track/level": level,
        }  # fmt: skip
        row |= run.evaluate(learner.averaged, evaluation)
        run.log_training(row)
        if run.save_due():
            waiting = pending.get_state() if pending else {}
            states = processes.gather({**collector.get_state(), "pending": waiting})
            run.save({"level": level, **learner.get_state(), "processes": states})
    background.shutdown()

    # 8. What leaves the project.
    if run.end():
        run.export(learner.averaged, config.task, algorithm="ppo_track", num_envs=N)
    robots.env.close()
    evaluation.close()


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS, short_help=True)
