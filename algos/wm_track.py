"""Train a Unitree G1 to track motion through a learned model of its dynamics.

    python algos/wm_track.py --motion walk                      # two CPU cores, the built-in walk
    python algos/wm_track.py --motion 'walk1[5:15]' --seed 2    # a cut of LAFAN1
    python algos/wm_track.py --preset gpu --suite lafan1-40     # MuJoCo-Warp on an NVIDIA GPU

The family of SuperTrack (Fussell, Bergamin, Holden 2021) and SuperMimic (arXiv 2610.28480): N
robots fill a replay buffer with short noisy rollouts; a world model learns from it what a control
step does; the policy learns in imagination, by the gradient of the tracking error through rollouts
of policy and model. `docs/algorithms/wm_track.md` has its equations and what was measured.

The policy, its 160 observations, its evaluation, the run directory and the exported file are
those of `ppo_track.py`. The policy sees its own place against the reference
(`motion_anchor_pos_b`), without which it could not correct a drift.

Letters in shapes: N robots, T steps, B samples, K steps of a model's window, H imagined steps,
J joints and actions, 29 of the G1, O observation, U updates of the policy in an iteration.

Logged (metrics.jsonl and TensorBoard; means over the iteration), beside those of `ppo_track.py`
that have nothing of PPO in them:

    perf/collect_s, perf/model_s, perf/policy_s      seconds of the iteration's three parts
    perf/cpu_s                                       processor seconds of this process
    losses/model                                     see `model_loss`
    losses/policy                                    sum of the costs of the imagined steps up to a
                                                     clip's end, divided by the number of all steps;
                                                     what is minimized is `PolicyLearner.loss`
    losses/critic                                    see `update_critic`; only with `--critic`
    losses/model_norm, losses/policy_norm            gradients' norms before they are clipped
    model/first_<state>, model/last_<state>          mean error after one step, and after K steps
    imagined/pos_m                                   mean distance of the anchor after H steps
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.learning import checks
from bm_envs.learning.collecting import spread_ends
from bm_envs.learning.graphs import Graph
from bm_envs.learning.imagination import (
    ReferenceTables,
    check_task,
    observation,
    optional_cost,
    penalties,
    tracking_loss,
)
from bm_envs.learning.kinematics import WorldKinematics
from bm_envs.learning.networks import (
    UNCHANGED,
    Network,
    TrackingPolicy,
    as_mirror,
    average_decay,
    copy_normalizer,
    polyak_update,
    use_bfloat16,
)
from bm_envs.learning.noise import Disturbances, Noise, pushed
from bm_envs.learning.predictions import prediction_errors
from bm_envs.learning.processes import Processes, learner_thread
from bm_envs.learning.replay_buffer import ReplayBuffer, ReplayCollector, Starts
from bm_envs.learning.returns import lambda_returns
from bm_envs.learning.robots import make_robots, with_motions
from bm_envs.learning.rollouts import CompiledImagination
from bm_envs.learning.run import Flags, config_record
from bm_envs.learning.states import load_states, states_of
from bm_envs.learning.tracker import TrackerRun, TrackerRunConfig, tracker_run, tracker_settings
from bm_envs.learning.world_model import State, WorldModel
from bm_envs.motion import suites
from bm_envs.robots.observation_terms import mirror_map
from bm_envs.tasks.track.config import (
    RandomizationConfig,
    SamplingConfig,
    TrackConfig,
    laptop_task,
)
from bm_envs.tasks.track.task import TrackTask


def _task() -> TrackConfig:
    return dataclasses.replace(
        laptop_task(), start=SamplingConfig(mode="adaptive", alpha=0.005, bin_s=0.25),
        failure_height=0.4, failure_distance=0.6,
        randomize=RandomizationConfig(foot_friction=(0.2, 1.2), when="reset"),
    )  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of a run, for two CPU cores; `v4` is another task, and `gpu` is for one GPU."""

    preset: Literal["laptop", "v4", "gpu"] = "laptop"
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
    total_timesteps: int = 400_000
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

    model_updates: int = 8
    """Updates of the model per iteration."""
    model_batch: int = 256
    """Windows per update of the model."""
    model_horizon: int = 8
    """Steps of a window, K."""
    model_hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the model."""
    model_learning_rate: float = 2e-3
    """Learning rate of the model."""

    policy_updates: int = 4
    """Updates of the policy per iteration."""
    policy_batch: int = 128
    """Imagined rollouts per update of the policy."""
    policy_horizon: int = 32
    """Steps of an imagined rollout, H."""
    critic: bool = False
    """Let a critic estimate the cost after the horizon. A fall may begin within it and cost most
    behind it."""
    recovery: float = 1.5
    """A robot that is off the reference is asked to come back: its velocity is compared with the
    reference's velocity plus this factor (1/s) times the vector from the robot to the reference."""
    recent: int = 20_000
    """Imagined rollouts start from states of the last `recent` control steps, over all robots. The
    present policy hardly reaches many of the older states."""
    learning_rate: float = 3e-3
    """Learning rate of the policy at the start."""
    final_learning_rate: float = 2e-4
    """Learning rate of the policy at the end of the run. It falls late and fast, and the model's
    falls by the same factor: see `RATE_POWER`."""
    ema: float = 0.9995
    """Averaging of the policy's weights per update, at most; the average is evaluated and exported.
    It begins short and grows with the run: see `networks.average_decay`."""
    imagined_pushes: bool = True
    """Push robots in imagination, too, as often and as hard as the task does."""
    curriculum: bool = True
    """Raise the difficulty from 0 to 1 as the policy learns to stay up, as `ppo_track.py` does."""
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
    """Hidden layers of policy and critic."""
    symmetry: bool = True
    """Left-right symmetric networks, the model's too."""

    task: TrackConfig = field(default_factory=_task)
    """The task, as in `ppo_track.py`; weights and widths of its rewards are the loss's."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(
            self, "num_envs", "num_steps", "model_batch", "model_horizon", "policy_batch",
            "policy_horizon",
        )  # fmt: skip
        checks.check_positive(self, "learning_rate", "final_learning_rate", "model_learning_rate")
        checks.check_length(self)
        checks.check_hidden(self, "hidden", "model_hidden")
        rows, least = self.capacity // self.num_envs, self.num_steps + self.model_horizon + 1
        if rows < least:
            raise ConfigError(
                f"capacity {self.capacity} is {rows} steps of each robot, expected num_steps + "
                f"model_horizon + 1 = {least} or more."
            )
        check_task(self.task)


def gpu() -> Config:
    """One policy for many clips on a GPU: sizes of the published followers. Not tuned."""
    return Config(
        preset="gpu", num_envs=2048, num_steps=4, capacity=2_000_000,
        total_timesteps=60_000_000, model_updates=1, policy_updates=1, model_batch=4096,
        policy_batch=4096, model_hidden=(1024, 1024), hidden=(1024, 512, 256), recent=500_000,
        learning_rate=3e-4, final_learning_rate=1e-4, model_learning_rate=3e-4, overlap=False,
        run=TrackerRunConfig(backend="mujoco_warp", eval_every=10_000_000, checkpoint_s=300.0),
    )  # fmt: skip


PRESETS = {"laptop": Config, "v4": lambda: Config("v4", task=TrackConfig.preset("v4")), "gpu": gpu}

# What no flag changes.
NOISE_CORRELATION = 0.75  # of a robot's action noise from step to step
IMAGINED_NOISE = 0.1  # standard deviation of the raw action's noise in imagination
DISCOUNT = 0.97  # of the cost per control step, where there is a critic
GAE_LAMBDA = 0.95  # of the returns that the critic is fitted to
CRITIC_EMA = 0.95  # averaging of the critic's weights per update; its targets are the average's
MAX_GRAD_NORM = 1.0
CURRICULUM_S = 1.5  # robot seconds per failure in the hardest tenth above which the level rises
CURRICULUM_STEP = 0.005  # change of the level per iteration
RATE_POWER = 2.0  # of the run's share, with which the learning rates' logarithm falls
AVERAGED_SHARE = 0.125  # of the updates so far: weights are averaged over these, if `ema` allows
ACTIVATION: Literal["elu"] = "elu"
# A run records these beside its settings, and a checkpoint with other ones is refused. Version 0.1
# had flags for them; three are off for good: `muon` (that optimizer in place of Adam), `state_clip`
# (a limit on the gradient from one imagined step to the one before), and `after_end` (weight of the
# imagined steps behind a clip's end).
CONSTANTS = {
    "noise_correlation": NOISE_CORRELATION, "imagined_noise": IMAGINED_NOISE, "discount": DISCOUNT,
    "gae_lambda": GAE_LAMBDA, "critic_ema": CRITIC_EMA, "max_grad_norm": MAX_GRAD_NORM,
    "curriculum_s": CURRICULUM_S, "curriculum_step": CURRICULUM_STEP, "activation": ACTIVATION,
    "averaged_share": AVERAGED_SHARE, "rate_power": RATE_POWER, "residual": True, "muon": False,
    "state_clip": 0.0, "after_end": 0.0,
}  # fmt: skip


# --- world model --------------------------------------------------------------------------------


def model_loss(
    model: WorldModel, states: Sequence[State], targets: Tensor, build: Tensor, valid: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far off the model gets in K steps from true states, by the recorded targets.

    See `WorldModel.prediction_errors`. A large error (a robot that was pushed, or hit something)
    counts by its size and not by its square.

    Args:
        model: what is to learn.
        states: K + 1 true states.
        targets: `[K, B, 29]`, rad.
        build: `[B, 4]`, of the robots.
        valid: `[K, B]`, 1 until the episode's end, then 0.

    Returns:
        The loss, and mean errors after the first and the last step, in SI units.
    """
    cost, off = prediction_errors(model, states, targets, build)
    metrics: dict[str, Tensor] = {}
    for k, name in ((0, "first"), (len(targets) - 1, "last")):
        means = off[k] @ (valid[k] / valid[k].sum().clamp(min=1))
        for key in ("pos", "lin", "joint_pos", "joint_vel"):
            metrics[f"model/{name}_{key}"] = means[State._fields.index(key)]
    return (cost * valid).sum() / valid.sum().clamp(min=1), metrics


# --- imagination --------------------------------------------------------------------------------


class ImaginedRollout(NamedTuple):
    """B imagined rollouts of H steps."""

    cost: Tensor
    """`[H, B]`, of the state after each step."""
    counted: Tensor
    """`[H, B]`, 1 up to the clip's end, then 0."""
    obs: Tensor
    """`[H + 1, B, O]`, without noise, as the policy normalizes them; only a critic needs them."""
    distance: Tensor
    """`[H, B]`, m, of the anchor."""


class Imagination(nn.Module):
    """Rollouts of a policy in a world model, and what each step costs."""

    def __init__(self, config: Config, reference: ReferenceTables) -> None:
        super().__init__()
        self.config, self.reference = config, reference
        self.robot = config.task.model.table
        self.links = WorldKinematics(self.robot.tracked_bodies, self.robot)
        self.disturbances = Disturbances(
            config.task, config.policy_horizon, IMAGINED_NOISE, pushes=config.imagined_pushes
        )
        self.compiled = CompiledImagination(
            config.task, config.policy_horizon, config.recovery, reference, observed=config.critic
        )

    def forward(
        self, policy: TrackingPolicy, model: WorldModel, starts: Starts, noise: Noise
    ) -> ImaginedRollout:
        """H steps from `starts`."""
        task, horizon, batch = self.config.task, self.config.policy_horizon, len(starts.qpos)
        row, last = starts.row.long(), starts.last_row.long()
        starts = pushed(starts, noise.push)
        if self.compiled.takes(policy, model, starts):
            cost, distance, obs = self.compiled(policy, model, starts, noise.action, noise.obs)
            counted = row + torch.arange(1, horizon + 1)[:, None] <= last
            return ImaginedRollout(cost, counted.float(), obs, distance)
        state, action = State.of(starts.qpos, starts.qvel), starts.last_action
        states, actions, clean_obs = [state], [action], []
        for h in range(horizon + 1):
            # What the policy sees.
            shown = self.reference.at(row + h + task.lead, last)
            local = model.local(state)
            obs = observation(
                task.observations, state, local, shown, action, starts.default_joint_pos
            )
            clean_obs.append(obs)
            if h == horizon:
                break
            # What it does, on an observation with noise. The action rate is a penalty of actions
            # without noise, since the policy cannot help the noise. The robot moves by the action
            # with noise, and that is the last action in the next observation.
            obs = obs + noise.obs[h]
            x = policy.normalize(obs)
            with torch.autocast(row.device.type, torch.bfloat16, enabled=model.use_bfloat16):
                mean = policy(x)
            action = mean.to(obs.dtype) + policy.offset(obs)
            actions.append(action)
            action = action + noise.action[h]
            # What comes of it.
            target = starts.default_joint_pos + policy.action_scale * action
            state = model(state, local, target, starts.build)
            states.append(state)
        # What the states after each step cost, all steps at once.
        all_states = State.joined(states)  # [(H + 1) B]
        after = slice(batch, None)  # of these, without the B starts
        rows = torch.cat([row + h for h in range(horizon + 1)])
        ends = last.repeat(horizon + 1)
        links = self.links(all_states.pelvis(), all_states.joint_pos)
        ref_links = self.reference.links_at(rows, ends)
        cost, square = tracking_loss(links, ref_links, batch, task.rewards, self.config.recovery)
        limits, rate = penalties(all_states.joint_pos[after], actions, task.rewards, self.robot)
        cost = cost + limits + rate
        cost = cost + optional_cost(
            links[..., after], all_states.joint_vel.view(horizon + 1, batch, -1),
            torch.stack(actions), self.reference.foot_contact_at(rows[after], ends[after]),
            task.rewards,
        )  # fmt: skip
        shape = (horizon, batch)
        return ImaginedRollout(
            cost.view(shape), (rows <= ends)[after].float().view(shape),
            policy.normalize(torch.stack(clean_obs)), square.sqrt().view(shape),
        )  # fmt: skip


# --- updates ------------------------------------------------------------------------------------


class Optimizer:
    """Adam on some networks, by gradients that are clipped and as symmetric as the networks."""

    def __init__(self, *networks: Network) -> None:
        self.networks = networks
        self.parameters = [value for network in networks for value in network.parameters()]
        self.adam = torch.optim.Adam(self.parameters, eps=1e-5, fused=True)

    def backward(self, loss: Tensor) -> Tensor:
        """Put the clipped gradient into the parameters' `grad`; the norm that it had before."""
        self.adam.zero_grad()
        # Only these parameters get a gradient. The loss depends on other networks, too, but a
        # recorded CUDA graph must leave their gradients alone.
        loss.backward(inputs=self.parameters)
        for network in self.networks:
            if network.mirrors:
                network.symmetrize_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, MAX_GRAD_NORM)
        assert isinstance(norm, Tensor)
        return norm

    def step(self, norm: Tensor, learning_rate: float) -> None:
        """A step by the present gradient, whose norm is `norm`; no step if that is not finite."""
        if norm.isfinite():
            for group in self.adam.param_groups:
                group["lr"] = learning_rate
            self.adam.step()

    def state_dict(self) -> list[Any]:
        """For a checkpoint, as a list: runs of 0.1 with `muon` had two optimizers."""
        return [self.adam.state_dict()]

    def load_state_dict(self, state: list[Any]) -> None:
        """What `state_dict` returned."""
        self.adam.load_state_dict(state[0])


def mean_metrics(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over some updates."""
    return {k: torch.stack([row[k] for row in rows]).mean().item() for k in (rows or [{}])[0]}


class ModelLearner:
    """The world model and its optimizer."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config = config
        self.model = WorldModel(
            config.model_hidden, config.task.decimation, symmetry=config.symmetry,
            robot=config.task.model.table,
        ).to(device)  # fmt: skip
        self.optimizer = Optimizer(self.model.network, self.model.linear)
        # It draws all places in the buffer: the model's windows, and where the policy's imagined
        # rollouts start. The policy's own generator draws noise, in another thread.
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 2)
        self.graphed_backward = Graph(self.backward, config.cuda_graphs and device.type == "cuda")

    def backward(self, buffer: ReplayBuffer, places: Tensor) -> dict[str, Tensor]:
        """The loss's gradient in windows that begin at `places [B, 2]`; the metrics of it."""
        slot, robot = places.unbind(-1)
        windows = buffer.windows(slot, robot, self.config.model_horizon)
        loss, metrics = model_loss(self.model, *windows)
        norm = self.optimizer.backward(loss)
        return {"losses/model": loss.detach(), "losses/model_norm": norm, **metrics}

    def learn(self, buffer: ReplayBuffer, learning_rate: float) -> dict[str, float]:
        """The iteration's updates of the model; their metrics."""
        tick, rows = time.perf_counter(), []
        for _ in range(self.config.model_updates):
            places = buffer.draw(
                (self.config.model_batch,), self.config.model_horizon, self.generator
            )
            metrics = self.graphed_backward(buffer, places)
            self.optimizer.step(metrics["losses/model_norm"], learning_rate)
            rows.append({key: value.clone() for key, value in metrics.items()})
        return {"perf/model_s": time.perf_counter() - tick, **mean_metrics(rows)}

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "model": self.model, "model_optimizer": self.optimizer,
            "model_generator": self.generator,
        }  # fmt: skip


class PolicyLearner:
    """The policy, its average, the critic of what comes after the horizon, and their optimizers."""

    def __init__(self, config: Config, task: TrackTask, device: torch.device) -> None:
        self.config = config
        self.actor = TrackingPolicy(
            config.task.observations, config.hidden, task.nominal_joint_pos, task.action_scale,
            activation=ACTIVATION, symmetry=config.symmetry, robot=task.robot,
        ).to(device)  # fmt: skip
        self.averaged = copy.deepcopy(self.actor)  # what is evaluated and exported
        self.imagination = Imagination(config, ReferenceTables(task.clips, device)).to(device)
        self.optimizer = Optimizer(self.actor)
        mirrors = (as_mirror(mirror_map(config.task.observations, task.robot)), UNCHANGED)
        self.critic = Network(
            (task.observation_size, *config.hidden, 1), ACTIVATION, 1.0,
            mirrors if config.symmetry else None,
        ).to(device)  # fmt: skip
        self.target = copy.deepcopy(self.critic)  # its average, whose values it is fitted to
        self.critic_optimizer = Optimizer(self.critic)
        self.generator = torch.Generator(device).manual_seed(config.run.seed + 1)
        self.graphed_backward = Graph(self.backward, config.cuda_graphs and device.type == "cuda")

    def value(self, critic: Network, obs: Tensor, model: WorldModel) -> Tensor:
        """Mean discounted cost from observations `[..., O]` on, normalized ones. `[...]`."""
        with torch.autocast(obs.device.type, torch.bfloat16, enabled=model.use_bfloat16):
            value = critic(obs)
        return value.to(obs.dtype).squeeze(-1)

    def loss(self, rollout: ImaginedRollout, model: WorldModel) -> Tensor:
        """The mean cost up to the clips' ends.

        With a critic the mean discounted cost, in which the critic's value stands for what comes
        after the horizon.
        """
        cost, counted = rollout.cost, rollout.counted
        if not self.config.critic:
            return (cost * counted).sum() / counted.sum().clamp(min=1)
        steps = torch.arange(len(cost), dtype=cost.dtype, device=cost.device)
        weights = (1 - DISCOUNT) * DISCOUNT**steps
        value = self.value(self.critic, rollout.obs[-1], model)
        return (weights @ (cost * counted) + DISCOUNT ** len(cost) * value * counted[-1]).mean()

    def backward(self, model: WorldModel, *inputs: Tensor) -> tuple[ImaginedRollout, Tensor]:
        """Put the loss's gradient into the policy; `inputs` are the fields of `Starts` and `Noise`.

        Returns the imagined rollout and the gradient's norm.
        """
        count = len(Starts._fields)
        starts, noise = Starts(*inputs[:count]), Noise(*inputs[count:])
        rollout = self.imagination(self.actor, model, starts, noise)
        norm = self.optimizer.backward(self.loss(rollout, model))
        return ImaginedRollout(*(value.detach() for value in rollout)), norm

    def update_critic(
        self, rollout: ImaginedRollout, model: WorldModel, learning_rate: float
    ) -> Tensor:
        """Fit the critic to a rollout; its loss, in squares of the cost."""
        obs, counted = rollout.obs, rollout.counted
        with torch.no_grad():
            value = self.value(self.target, obs, model)
            returns = lambda_returns(rollout.cost, counted, value, DISCOUNT, GAE_LAMBDA)
        error = (self.value(self.critic, obs[:-1], model) - returns) * counted
        loss = (error * error).mean()
        self.critic_optimizer.step(self.critic_optimizer.backward(loss), learning_rate)
        polyak_update(self.target, self.critic, CRITIC_EMA)
        return loss.detach()

    def learn(
        self, model: WorldModel, starts: Starts, level: float, learning_rate: float, before: int
    ) -> dict[str, float]:
        """An update from each of `starts [U, B, ...]`, with `before` behind them; their metrics."""
        tick, rows = time.perf_counter(), []
        for number, update in enumerate(zip(*starts, strict=True), before + 1):
            noise = self.imagination.disturbances.draw(len(update[0]), level, self.generator)
            rollout, norm = self.graphed_backward(model, *update, *noise)
            self.optimizer.step(norm, learning_rate)
            decay = average_decay(number, AVERAGED_SHARE, self.config.ema)
            polyak_update(self.averaged, self.actor, decay)
            row = {
                # Steps behind a clip's end count as 0 here; `loss` leaves them out of the mean.
                "losses/policy": (rollout.cost * rollout.counted).mean(),
                "losses/policy_norm": norm.clone(), "imagined/pos_m": rollout.distance[-1].mean(),
            }  # fmt: skip
            if self.config.critic:
                row["losses/critic"] = self.update_critic(rollout, model, learning_rate)
            rows.append(row)
        return {"perf/policy_s": time.perf_counter() - tick, **mean_metrics(rows)}

    def update_normalizer(self, obs: Tensor) -> None:
        """Fold in observations `[B, O]` of real robots."""
        self.actor.update_normalizer(obs)
        copy_normalizer(self.averaged, self.actor)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "actor": self.averaged, "learner": self.actor, "optimizer": self.optimizer,
            "critic": self.critic, "target": self.target,
            "critic_optimizer": self.critic_optimizer, "learner_generator": self.generator,
        }  # fmt: skip


# --- training -----------------------------------------------------------------------------------


def next_level(level: float, hardest_s: float) -> float:
    """The curriculum's level after an iteration: up while robots stay up, else down.

    Args:
        level: the present one, 0 to 1.
        hardest_s: robot seconds per failure in the hardest tenth of the bins.
    """
    change = CURRICULUM_STEP if hardest_s > CURRICULUM_S else -CURRICULUM_STEP
    return float(np.clip(level + change, 0.0, 1.0))


def failure_distance_scale(level: float) -> float:
    """Factor of the task's `failure_distance` at a curriculum's level, as in `ppo_track.py`."""
    return 1 + 2 * level


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # Everything that can be refused is refused here, before a file is made.
    motion = suites.chosen(config.motion, config.suite, Config.motion)
    config = dataclasses.replace(config, motion=motion)
    (config, clips), processes = with_motions(config), Processes()
    if processes.count > 1:
        raise ConfigError("wm_track runs in one process, torchrun started several.")
    settings = tracker_settings(config, clips, processes, **CONSTANTS)
    with tracker_run(
        config.run, "wm_track", clips, settings, ("task", "actor", "model", "buffer", "robots"),
        batch_size=config.num_steps * config.num_envs, total_timesteps=config.total_timesteps,
        processes=processes,
    ) as run:  # fmt: skip
        train(config, run)


def train(config: Config, run: TrackerRun) -> None:
    """The run itself, in its folder."""
    clips, saved = run.clips, run.saved
    # 1. Threads and seeds. With overlap, the policy learns in a thread of its own.
    threads = config.run.threads or cli.available_cores()
    overlap = config.overlap and config.run.backend == "mujoco" and threads > 1
    learn_threads = max(1, threads // 2) if overlap else threads
    torch.set_num_threads(learn_threads)
    torch.manual_seed(config.run.seed)

    # 2. Environments and networks.
    T, N = config.num_steps, config.num_envs  # noqa: N806
    robots = make_robots(clips, config.task, N, config.run, config.run.seed)
    task, device = robots.task, robots.device
    evaluation = run.evaluation_of(config.task)
    policy_learner = PolicyLearner(config, task, device)
    model_learner = ModelLearner(config, device)
    model_learner.model.use_bfloat16 = use_bfloat16(config.bfloat16, device)
    actor, averaged = policy_learner.actor, policy_learner.averaged
    run.start_from(config.start_from, config.task, actor, averaged)
    # Copies that stay as they are while the originals learn: a policy that moves the robots, and a
    # model to imagine in.
    acting = copy.deepcopy(actor)
    frozen_model = copy.deepcopy(model_learner.model).requires_grad_(False)
    buffer = ReplayBuffer(config.capacity // N, N, device, task.robot.num_joints)

    # 3. Start afresh, or from the checkpoint.
    level = 0.0 if config.curriculum else 1.0
    robots.set_difficulty(level, failure_distance_scale(level))
    collector = ReplayCollector(robots, config.action_noise, NOISE_CORRELATION, config.run.seed)
    parts = policy_learner.parts() | model_learner.parts()
    if saved is None:
        spread_ends(robots, config.task)
        policy_learner.update_normalizer(collector.obs)
    else:
        load_states(parts, saved)
        buffer.set_state(saved["buffer"])
        collector.set_state(saved["robots"])
        level = saved["level"]
    acting.load_state_dict(actor.state_dict())
    frozen_model.load_state_dict(model_learner.model.state_dict())
    record = {"env_id": task.robot.env_id, "network": actor.description(), **CONSTANTS}
    run.begin_training(
        config_record(config, "wm_track", **record), f"{N} robots, {threads} threads"
    )
    background = learner_thread(learn_threads)
    while run.goes_on:
        decay = (config.final_learning_rate / config.learning_rate) ** run.share**RATE_POWER
        learning_rate = config.learning_rate * decay

        # 4. The policy learns in the model as it is, from states of the buffer as it is.
        learning: Future[dict[str, float]] | None = None
        policy_metrics: dict[str, float] = {}
        if run.iteration >= config.warmup_iterations and config.policy_updates:
            shape = (config.policy_updates, config.policy_batch)
            starts = buffer.starts(shape, model_learner.generator, max(1, config.recent // N))
            before = (run.iteration - config.warmup_iterations) * config.policy_updates
            job = (frozen_model, starts, level, learning_rate, before)
            if overlap:
                learning = background.submit(policy_learner.learn, *job)
            else:
                policy_metrics = policy_learner.learn(*job)

        # 5. Robots move, with noise.
        tick = time.perf_counter()
        seen = collector.run(acting, buffer, T)
        collect_s = time.perf_counter() - tick

        # 6. The model learns from all that the buffer holds.
        model_metrics: dict[str, float] = {}
        if buffer.written > max(T, config.model_horizon):
            model_learner.model.update_normalizer(*buffer.newest_transitions(T))
            model_metrics = model_learner.learn(buffer, config.model_learning_rate * decay)
        if learning is not None:
            policy_metrics = learning.result()
        policy_learner.update_normalizer(seen)
        acting.load_state_dict(actor.state_dict())
        frozen_model.load_state_dict(model_learner.model.state_dict())
        robots.read_statistics()
        if config.curriculum:
            level = next_level(level, robots.sampler.hardest_s())
            robots.set_difficulty(level, failure_distance_scale(level))
        run.iteration += 1

        # 7. Log, evaluate, save.
        row = {
            **collector.figures(), **model_metrics, **policy_metrics, "perf/collect_s": collect_s,
            "perf/cpu_s": run.clock.cpu_s, "charts/learning_rate": learning_rate,
            "track/level": level,
        }  # fmt: skip
        row |= run.evaluate(averaged, evaluation)
        run.log_training(row)
        if run.save_due():
            states = {"buffer": buffer.get_state(), "robots": collector.get_state()}
            run.save({"level": level, **states_of(parts), **states})
    background.shutdown()

    # 8. What leaves the project.
    run.end()
    run.export(averaged, config.task, algorithm="wm_track", num_envs=N)
    robots.env.close()
    evaluation.close()


if __name__ == "__main__":
    cli.run(main, Config, presets=PRESETS, short_help=True)
