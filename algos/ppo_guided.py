"""Train a Unitree G1 at one guided task with PPO, without a reference motion: a baseline.

    python algos/ppo_guided.py --task joystick                  # follow random velocity commands
    python algos/ppo_guided.py --task waypoint --seed 2

BeyondMimic (arXiv 2508.08241) steers one diffusion model to all of its tasks. What it is to be
compared with is a policy made for a single task in the usual way: N robots, a reward for the task
and what makes a humanoid walk sensibly, as in Isaac Lab's G1 velocity task and `unitree_rl_lab`.

The run directory holds `config.json`, `checkpoint.pt` (everything a bit-exact `--resume` needs),
`policy.onnx` and `policy.json` (what leaves the project; `bm_envs.diffusion.task_policy` runs it),
`metrics.jsonl` and TensorBoard events.

Letters in shapes: N robots, T steps, B = N T samples, O observation, A action. What is logged, and
how to read it, says docs/algorithms/ppo_guided.md.
"""

from __future__ import annotations

import dataclasses
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
from bm_envs.learning import checks, gaussian
from bm_envs.learning.evaluation import evaluate_guided
from bm_envs.learning.folder import as_arrays, claim_run
from bm_envs.learning.gaussian import gaussian_entropy, gaussian_kl, log_prob
from bm_envs.learning.networks import UNCHANGED, Network, as_mirror
from bm_envs.learning.returns import Means, explained_variance, gae
from bm_envs.learning.run import (
    Flags,
    Progress,
    RunConfig,
    config_record,
    settings_of,
    values_of,
)
from bm_envs.learning.states import env_state, load_env_state, load_states, states_of
from bm_envs.robots import g1
from bm_envs.robots.mjcf import ModelConfig
from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.config import GuidedConfig, RewardConfig, config_class
from bm_envs.tasks.guided.feet import FootPhases
from bm_envs.tasks.guided.joystick import JoystickTask
from bm_envs.tasks.guided.observations import mirror_map
from bm_envs.tasks.guided.robots import drives_of
from bm_envs.tasks.guided.tour import TourTask
from bm_envs.tasks.guided.waypoint import WaypointTask
from bm_envs.tasks.track import rewards
from bm_envs.tasks.track.config import CONTROL_DT

A = g1.NUM_JOINTS

# PPO's constants are Isaac Lab's for the G1 if nothing else is said.
GAMMA = 0.99  # discount per control step
GAE_LAMBDA = 0.95  # of generalized advantage estimation
CLIP = 0.2  # of the probability ratio, and of the value's change
DESIRED_KL = 0.01  # nats, by which the policy's learning rate is adapted
ENT_COEF = 0.005  # weight of the entropy bonus (Isaac Lab 0.008, with a larger batch against it)
VALUE_COEF = 1.0  # weight of the value loss
MAX_GRAD_NORM = 1.0  # of actor and critic each
# The joystick's random commands; beyond the protocol's is allowed.
FORWARD = (-0.3, 0.6)  # m/s
LEFT = (0.0, 0.0)  # m/s
YAW_RATE = (-0.5, 0.5)  # rad/s
# Physics step in training, s: twice the standard's, at half of its cost. Evaluation always has the
# standard 5 ms.
PHYSICS_DT = 0.01

BAR = {
    "length": "control steps of an episode, mean", "task": "the task's term of the reward, mean",
    "success": "share of the last evaluation's trials that succeeded",
}  # fmt: skip
# A run records these beside its settings, and a checkpoint with other ones is refused.
CONSTANTS = {
    "gamma": GAMMA, "gae_lambda": GAE_LAMBDA, "clip_coef": CLIP, "desired_kl": DESIRED_KL,
    "ent_coef": ENT_COEF, "vf_coef": VALUE_COEF, "max_grad_norm": MAX_GRAD_NORM,
    "forward": FORWARD, "left": LEFT, "yaw_rate": YAW_RATE, "physics_dt": PHYSICS_DT,
}  # fmt: skip


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
    """1 in the step in which a robot falls, and the episode ends: a fall costs 4."""
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
    """The most seconds that `air_time` counts."""
    slide: float = -0.1
    """Horizontal speed of feet on the ground, m/s, summed."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not math.isfinite(value):
                raise ConfigError(f"weights.{name} is {value}, expected a finite number.")


@dataclass(frozen=True)
class Config:
    """Settings of a run."""

    task: Literal["walk_perturb", "joystick", "waypoint", "obstacle", "tour"] = "joystick"
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

    learning_rate: float = 1e-3
    """Adam's learning rate. The critic's stays so. The policy's begins so and is adapted to how far
    each mini-batch's step moves the policy, see `DESIRED_KL` (Isaac Lab adapts both)."""
    num_minibatches: int = 1
    """Mini-batches per epoch (Isaac Lab 4, of 24,576 samples each). Gradients of few samples are
    mostly noise: with 4 of 768 the policy's learning rate fell to 2e-5 in 50,000 control steps,
    with 1 of 3072 it stayed at 4e-4 (one run each)."""
    update_epochs: int = 5
    """Epochs over each iteration's samples."""
    hidden: tuple[int, ...] = (256, 128)
    """Hidden layers of actor and critic (Isaac Lab 256 128 128)."""
    init_std: float = 0.7
    """Initial standard deviation of the raw action (Isaac Lab 1.0)."""
    symmetry: bool = True
    """Left-right symmetric networks: what is learned on one side holds on the other at once."""

    weights: Weights = field(default_factory=Weights)
    """Weights of the reward's terms."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(
            self, "num_envs", "num_steps", "eval_trials", "num_minibatches", "update_epochs"
        )
        checks.check_batches(self)
        checks.check_positive(self, "learning_rate", "init_std")
        checks.check_hidden(self, "hidden")

    @property
    def environment(self) -> GuidedConfig:
        """The task as it is trained: of rewards the environment gives the task's own term alone."""
        changes: dict[str, Any] = {
            "rewards": RewardConfig(alive=0.0, task=1.0),
            "model": ModelConfig(physics_dt=PHYSICS_DT),
            "decimation": round(CONTROL_DT / PHYSICS_DT),
        }
        if self.task == "joystick":
            changes |= {
                "random": True, "random_forward": FORWARD, "random_left": LEFT,
                "random_yaw_rate": YAW_RATE,
            }  # fmt: skip
        return dataclasses.replace(config_class(self.task)(), **changes)


# --- reward -------------------------------------------------------------------------------------


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


def must_step(task: GuidedTask) -> np.ndarray:
    """Whether robots have to walk in the coming control step, or may stand. `[N]` bool."""
    if isinstance(task, JoystickTask | TourTask):
        return np.linalg.norm(task.command(), axis=1) > LEAST_COMMAND
    if isinstance(task, WaypointTask):
        way = task.goal - task.simulator.root_pos[:, :2]
        return np.linalg.norm(way, axis=1) > task.config.goal_radius
    return np.ones(task.num_envs, bool)


def reward_terms(
    task: GuidedTask, task_reward: np.ndarray, fell: np.ndarray, last_action: np.ndarray,
    feet: FootPhases, walking: np.ndarray, weights: Weights,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The signed terms of the control step just done, `[N]` each, by their names in `Weights`.

    Args:
        task: robots in the state that the step led to, before any reset.
        task_reward: `[N]`, the environment's reward, which is the task's own term.
        fell: `[N]` bool.
        last_action: `[N, 29]`, the raw action before this step's.
        feet: after this step.
        walking: `[N]` bool, `must_step` before this step.
        weights: of the terms.
    """
    sim = task.simulator
    # Diverged robots: what is not finite is not used.
    with np.errstate(over="ignore", invalid="ignore"):
        off_pose = (sim.joint_pos - g1.DEFAULT_JOINT_POS)[:, HELD_JOINTS]
        foot_speed = np.linalg.norm(sim.body_lin_vel[:, FEET, :2], axis=-1)
        values = {
            "task": task_reward,
            "alive": ~fell,
            "fall": fell,
            "upright": tilt_square(sim.root_quat),
            "base_height": (sim.root_pos[:, 2] - weights.target_height) ** 2,
            "lin_vel_z": sim.root_lin_vel[:, 2] ** 2,
            "ang_vel_xy": (sim.root_ang_vel_b[:, :2] ** 2).sum(1),
            "action_rate": rewards.action_rate(task.robots.action, last_action),
            "joint_limit": rewards.joint_limit(sim.joint_pos, *SOFT_RANGE),
            "posture": abs(off_pose).sum(1),
            "air_time": air_time(feet.contact, feet.seconds, weights.air_time_s) * walking,
            "slide": (foot_speed * feet.contact).sum(1),
        }
    return {
        name: np.nan_to_num(getattr(weights, name) * CONTROL_DT * value, posinf=0.0, neginf=0.0)
        for name, value in values.items()
    }


# --- policy and value -----------------------------------------------------------------------------


def make_networks(config: Config) -> tuple[Network, Network]:
    """Actor, a Gaussian policy with one standard deviation per joint, and critic.

    Both see the task's observation; with symmetry what the mirrored robot does is the mirror image.
    """
    mirror, joints = as_mirror(mirror_map(config.task)), as_mirror(g1.mirror_map())
    sizes = (len(mirror[0]), *config.hidden)
    actor = Network(
        (*sizes, A), "elu", 0.01, (mirror, joints) if config.symmetry else None, config.init_std
    )
    critic = Network(
        (*sizes, 1), "elu", 1.0, (mirror, UNCHANGED) if config.symmetry else None
    )  # fmt: skip
    return actor, critic


# --- learning -----------------------------------------------------------------------------------


class Samples(NamedTuple):
    """What an iteration is learned from, a row a sample."""

    x: Tensor
    """`[B, O]`, observations as actor and critic have normalized them."""
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
    actor: Network, critic: Network, optimizer: torch.optim.Optimizer, samples: Samples,
    config: Config, learning_rate: float, generator: torch.Generator,
) -> tuple[float, dict[str, float]]:  # fmt: skip
    """Improve actor and critic in place.

    The optimizer's first group of weights are the actor's. Gradients of symmetric networks are
    symmetrized, so that every sample counts as its mirror image does.

    Returns:
        The policy's last learning rate, and what is logged.
    """
    log_std_old = actor.log_std.detach().clone()
    log_prob_old = log_prob(samples.action, samples.mean, log_std_old)
    size = len(samples.x) // config.num_minibatches
    figures = Means()
    for _ in range(config.update_epochs):
        for index in torch.randperm(len(samples.x), generator=generator).split(size):
            x, action, mean, value, advantage, returns = (part[index] for part in samples)
            new_mean, new_value, log_std = actor(x), critic(x).squeeze(-1), actor.log_std
            kl = gaussian_kl(mean, log_std_old, new_mean.detach(), log_std.detach()).item()
            learning_rate = gaussian.adaptive_learning_rate(learning_rate, kl, DESIRED_KL)
            optimizer.param_groups[0]["lr"] = learning_rate

            ratio = (log_prob(action, new_mean, log_std) - log_prob_old[index]).exp()
            clipped_ratio = ratio.clamp(1 - CLIP, 1 + CLIP)
            policy_loss = -torch.min(ratio * advantage, clipped_ratio * advantage).mean()
            clipped_value = value + (new_value - value).clamp(-CLIP, CLIP)
            error, clipped_error = new_value - returns, clipped_value - returns
            value_loss = torch.max(error**2, clipped_error**2).mean()
            entropy = gaussian_entropy(log_std)
            loss = policy_loss + VALUE_COEF * value_loss - ENT_COEF * entropy
            optimizer.zero_grad()
            loss.backward()
            for network in (actor, critic):
                network.symmetrize_gradients()
                # Each is clipped alone: a large error of the critic shortens no actor's step.
                nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            figures.add(
                policy_loss=policy_loss, value_loss=value_loss, entropy=entropy, approx_kl=kl,
                clipfrac=((ratio - 1).abs() > CLIP).float().mean(),
            )  # fmt: skip
    return learning_rate, figures.figures("losses/")


# --- training -----------------------------------------------------------------------------------


def main(config: Config) -> None:
    """Train, evaluate, export."""
    # Everything that can be refused is refused here, before a file is made.
    settings = settings_of(config, "eval_every", "eval_trials", **CONSTANTS)
    with claim_run(
        config.run, f"{config.task}__ppo_guided__{config.run.seed}", settings, "settings",
        ("settings", "actor", "critic", "optimizer", "env"), "settings",
    ) as folder:  # fmt: skip
        train(config, Progress(
            folder, config.run, settings, batch_size=config.num_steps * config.num_envs,
            total_timesteps=config.total_timesteps,
        ))  # fmt: skip


def train(config: Config, run: Progress) -> None:
    """The run itself, in its folder."""
    saved, seed = run.saved, config.run.seed

    # 1. Threads, seeds, environments and networks.
    threads = config.run.threads or cli.available_cores()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)  # initial weights
    generator = torch.Generator().manual_seed(seed)  # noise of actions, mini-batches
    # The loop resets the robots, so that the reward sees the state in which an episode ended.
    env = GuidedVectorEnv(
        config.num_envs, config.task, config=config.environment, autoreset_mode="disabled",
        threads=threads,
    )  # fmt: skip
    eval_env = GuidedVectorEnv(
        config.eval_trials, config.task, autoreset_mode="disabled", threads=threads
    )
    task, feet = env.task, FootPhases(config.num_envs)
    T, N, O = config.num_steps, config.num_envs, task.observation_size  # noqa: N806, E741
    actor, critic = make_networks(config)
    groups = [{"params": list(network.parameters())} for network in (actor, critic)]
    optimizer = torch.optim.Adam(groups, config.learning_rate, eps=1e-5, fused=True)
    parts = {"actor": actor, "critic": critic, "optimizer": optimizer, "generator": generator}

    # 2. Start afresh, or from the checkpoint.
    learning_rate = config.learning_rate
    episode_return, episode_length = np.zeros(N), np.zeros(N, np.int64)
    env.reset(seed=seed)
    if saved is None:
        # Episodes begin with different ages. Otherwise the time limit would truncate those of all
        # robots that stay up in one and the same step.
        task.clock[:] = env.np_random.integers(0, env.config.episode_steps, N)
        next_obs = torch.from_numpy(task.observe(slice(None))[0])
        for network in (actor, critic):
            network.update_normalizer(next_obs)
    else:
        load_states(parts, saved)
        state = as_arrays(saved)
        load_env_state(env, state["env"])
        feet.set_state(state)
        next_obs, learning_rate = saved["obs"], saved["learning_rate"]
        episode_return, episode_length = state["episode_return"], state["episode_length"]
    environment = values_of(config.environment)
    run.begin(
        config_record(config, "ppo_guided", environment=environment, **CONSTANTS),
        f"task {config.task}, {N} robots, {threads} threads",
        BAR,
    )
    obs = torch.zeros(T, N, O)
    action, mean = torch.zeros(T, N, A), torch.zeros(T, N, A)
    reward, done = torch.zeros(T, N), torch.zeros(T, N, dtype=torch.bool)

    while run.goes_on:
        # 3. Collect.
        tick = time.perf_counter()
        ended: list[tuple[float, int, bool]] = []  # return, length, success
        falls, term_sums = 0, dict[str, float]()
        std = actor.log_std.detach().exp()
        for t in range(T):
            obs[t] = next_obs
            with torch.no_grad():
                mean[t] = actor.mean(next_obs)
                action[t] = mean[t] + std * torch.randn(N, A, generator=generator)
            last_action, walking = task.robots.action.copy(), must_step(task)
            new_obs, task_reward, terminated, truncated, info = env.step(action[t].numpy())
            feet.step(task.simulator.contact_force[:, -2:])
            terms = reward_terms(
                task, task_reward, terminated, last_action, feet, walking, config.weights
            )  # fmt: skip
            total_reward = np.maximum(sum(terms.values()), LEAST_REWARD).astype(np.float32)
            reward[t] = torch.from_numpy(total_reward)
            ends = terminated | truncated
            done[t] = torch.from_numpy(ends)
            falls += int(terminated.sum())
            episode_return += total_reward
            episode_length += 1
            for name, values in terms.items():
                term_sums[name] = term_sums.get(name, 0.0) + float(values.mean())
            if truncated.any():  # the episode would have gone on; a fall's would not
                with torch.no_grad():
                    final = critic.value(torch.from_numpy(new_obs[truncated]))
                reward[t, torch.from_numpy(truncated)] += GAMMA * final
            if ends.any():
                ended += zip(
                    episode_return[ends], episode_length[ends], info["success"][ends], strict=True
                )
                episode_return[ends], episode_length[ends] = 0.0, 0
                feet.reset(ends)
                new_obs, _ = env.reset(options={"reset_mask": ends})
            next_obs = torch.from_numpy(new_obs)
        collect_s = time.perf_counter() - tick

        # 4. Learn. The first iteration only fills the normalizers: scaled by the statistics of the
        # start alone, what does not vary there would be far too large afterwards.
        tick = time.perf_counter()
        losses: dict[str, float] = {}
        if run.iteration:
            with torch.no_grad():
                values = critic.value(torch.cat([obs, next_obs[None]]))
            advantage = gae(reward, values[:-1], values[-1], done, GAMMA, GAE_LAMBDA).flatten()
            value_old = values[:-1].flatten()
            returns = advantage + value_old
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            samples = Samples(
                actor.normalize(obs).flatten(0, 1), action.flatten(0, 1), mean.flatten(0, 1),
                value_old, advantage, returns,
            )  # fmt: skip
            learning_rate, losses = learn(
                actor, critic, optimizer, samples, config, learning_rate, generator
            )
            losses["losses/explained_variance"] = explained_variance(value_old, returns).item()
        # The normalizers change last: all above has those of the policy that drew the samples.
        for network in (actor, critic):
            network.update_normalizer(obs.flatten(0, 1))
        learn_s = time.perf_counter() - tick
        run.iteration += 1

        # 5. Log, evaluate, save.
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
            run.evaluation = evaluate_guided(actor, eval_env, seed)
            row |= {f"eval/{name}": value for name, value in run.evaluation.items()}
        run.log(row, {
            "length": f"{row.get('charts/episodic_length', math.nan):.0f}",
            "task": f"{row['reward/task']:.3f}",
            "success": f"{run.evaluation['success']:.0%}" if run.evaluation else "-",
        })  # fmt: skip
        if run.save_due():
            run.save({
                "learning_rate": learning_rate, **states_of(parts), "env": env_state(env),
                "obs": next_obs, "episode_return": episode_return,
                "episode_length": episode_length, **feet.get_state(),
            })  # fmt: skip
    run.end()
    if not run.evaluation:  # no iteration was left, and the checkpoint has no evaluation
        run.evaluation = evaluate_guided(actor, eval_env, seed)

    # 6. What leaves the project.
    write_guided_policy(
        run.folder.path, actor.as_mlp(), task=config.task,
        drives=drives_of(env.config.actuation),
        training=run.training_record("ppo_guided", N),
        evaluation={"trials": config.eval_trials, **run.evaluation},
    )  # fmt: skip
    print(
        f"{config.task}: {run.evaluation['success']:.0%} of {config.eval_trials} trials "
        f"succeeded, {run.evaluation['upright']:.0%} stayed up; results in {run.folder.path}"
    )
    run.print_next({"measure": f"benchmarks/guided.py --policy RUN_DIR --task {config.task}"})
    env.close()
    eval_env.close()


if __name__ == "__main__":
    cli.run(main, Config, short_help=True)
