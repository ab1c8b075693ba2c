"""Distil several trackers into one policy whose actions pass through a latent (BeyondMimic v4).

    python algos/dagger_vae.py --policy stroll stride jog
    python algos/dagger_vae.py --policy lafan1_walk1_subject1 lafan1_walk4_subject1 jog

A conditional variational autoencoder: the encoder makes of the reference, and of how far the
robot's torso is from it, a Gaussian of a latent; the decoder makes of a latent and of what the
robot feels an action. It learns by DAgger: the student moves the robots over the teachers' clips,
and at every state the teacher of that clip says what it would have done. A share of the robots is
moved by the teachers at first, and some noise is on what is sent, so that it learns ways back.

The run directory is that of a tracker: `policy.onnx` (with the output `latent`), `policy.json`,
`config.json`, `checkpoint.pt` for a bit-exact `--resume`, `metrics.jsonl`. So every command for
trackers takes it, and `collect_rollouts.py` records its latents beside its actions. A diffusion
model of states and latents then has a policy that answers to the newest state of the robot.

Letters in shapes: N robots, T steps, B samples, Z latent. What is logged, and how to read it, says
docs/algorithms/dagger_vae.md.

Source: arXiv 2508.08241v4, section "Latent Diffusion" (loss, weight of the divergence, sizes of
input and latent); what is not printed there (mixing of teacher and student, noise, replay, sizes of
the hidden layers for two cores) is ours.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.errors import ConfigError
from bm_envs.evaluation import Actor, in_project_order, motions_of, protocol_task
from bm_envs.learning import checks
from bm_envs.learning.networks import Network, as_mirror, polyak_update
from bm_envs.learning.processes import Processes
from bm_envs.learning.robots import Episodes, make_robots, mean_errors
from bm_envs.learning.run import Flags, config_record
from bm_envs.learning.tracker import TrackerRunConfig, tracker_run, tracker_settings
from bm_envs.motion.clip import Clip
from bm_envs.policy import check_is_of_g1, load_policy
from bm_envs.policy.latent import (
    FELT,
    REFERENCE_TERMS,
    SEEN,
    LatentPolicy,
    decoder_mirror,
    latent_mirror,
)
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import POLICY_TERMS, mirror_map
from bm_envs.tasks.track.config import CONTROL_DT, SamplingConfig, TrackConfig


@dataclass(frozen=True)
class Config:
    """Settings of a run. The defaults are for two CPU cores."""

    policy: tuple[str, ...]
    """Teachers: run directories, files or names of trackers of the G1 with the 160 observations of
    the publication and the same drives. Each teaches the clips that it was made for."""
    run: Flags[TrackerRunConfig] = TrackerRunConfig(eval_every=1_000_000)
    """Where the run is kept, how it is evaluated and when it ends."""
    total_timesteps: int = 6_000_000
    """Control steps over all robots."""
    num_envs: int = 512
    """Robots, N."""
    num_steps: int = 16
    """Steps per robot and iteration, T."""
    latent: int = 32
    """Numbers of the latent, Z (published)."""
    beta: float = 0.01
    """Weight of the Kullback-Leibler divergence of the latent from a unit Gaussian (published)."""
    encoder: tuple[int, ...] = (256, 128)
    """Hidden layers of the encoder (published: wider)."""
    decoder: tuple[int, ...] = (512, 256, 128)
    """Hidden layers of the decoder (published: wider)."""
    learning_rate: float = 5e-4
    """Adam's (published), which falls to a tenth along an exponential."""
    batch_size: int = 4096
    """Samples of a gradient step."""
    updates: int = 4
    """Gradient steps per iteration."""
    kept: int = 30
    """Iterations whose samples are kept to learn from."""
    teacher_share: float = 0.15
    """Share of the run in which the teachers still move robots, ever fewer: all at its start."""
    noise: float = 0.2
    """Largest standard deviation of white noise on what is sent, raw action; each robot has its own
    share of it, drawn anew in every iteration."""
    ema: float = 0.99
    """Averaging of the weights per iteration; the average is evaluated and exported."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(
            self, "num_envs", "num_steps", "batch_size", "updates", "kept", "latent"
        )
        checks.check_length(self)
        if self.latent % 2:
            raise ConfigError(f"latent is {self.latent}, expected an even number: halves mirror.")
        for name in ("encoder", "decoder"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1 or any(width % 2 for width in widths):
                raise ConfigError(f"{name} is {widths}, expected one or more even numbers.")
        for name, most in (("beta", 1.0), ("noise", 1.0), ("teacher_share", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 to {most:g}.")


MAX_GRAD_NORM = 1.0
EPISODE_S = 10.0
CONSTANTS = {"max_grad_norm": MAX_GRAD_NORM, "activation": "elu", "symmetry": True}


# --- teachers -------------------------------------------------------------------------------------


class Teachers:
    """Trackers with their clips, which all have the same observations and drives.

    Attributes:
        clips: of all of them, one after another.
        task: in which the student learns.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        if not names:
            raise ConfigError("policy is empty, expected one teacher or more.")
        self.clips: list[Clip] = []
        self._acts: list[Actor] = []
        numbers: list[int] = []
        tasks: list[TrackConfig] = []
        for number, name in enumerate(names):
            policy = load_policy(name)
            check_is_of_g1(policy, "policies of latents")
            task = protocol_task(policy, "robust")
            if task.observations != POLICY_TERMS:
                raise ConfigError(
                    f"{policy.path}: observes {', '.join(task.observations)}, expected a teacher "
                    f"that observes {', '.join(POLICY_TERMS)}."
                )
            if tasks and task.actuation != tasks[0].actuation:
                raise ConfigError(
                    f"{policy.path}: has other drives than {names[0]}, so that the same action "
                    "means another torque."
                )
            tasks.append(task)
            self._acts.append(in_project_order(policy))
            clips = motions_of(policy)
            self.clips += clips
            numbers += [number] * len(clips)
        self._of_clip = np.array(numbers)
        self.task = student_task(tasks[0])

    def __call__(self, obs: np.ndarray, clip: np.ndarray) -> np.ndarray:
        """What the teacher of each robot's clip would do. `[N, 160]`, `[N]` -> `[N, 29]`."""
        actions = np.zeros((len(obs), g1.NUM_JOINTS), np.float32)
        for number, act in enumerate(self._acts):
            where = np.flatnonzero(self._of_clip[clip] == number)
            if len(where):
                actions[where] = np.nan_to_num(act(obs[where]))
        return actions


def student_task(task: TrackConfig) -> TrackConfig:
    """Stage 1's disturbances less the sensors' noise, adaptive starts and late actions.

    As in `collect_rollouts.py`, which then records the student.
    """
    return dataclasses.replace(
        task, noise=False, episode_s=EPISODE_S, start=SamplingConfig(mode="adaptive"),
        randomize=dataclasses.replace(task.randomize, when="reset", action_delay=1),
    )  # fmt: skip


# --- the student ----------------------------------------------------------------------------------


class Student(nn.Module):
    """Encoder and decoder, left-right symmetric: a mirrored state has a latent's halves swapped."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        z = config.latent
        latent, moments = latent_mirror(z), latent_mirror(2 * z)
        # Mean and logarithm have a reflection each: the halves of both are swapped.
        moments = np.concatenate([latent[0], z + latent[0]]), moments[1]
        self.encoder = Network(
            (SEEN, *config.encoder, 2 * z), "elu", 0.1,
            (as_mirror(mirror_map(REFERENCE_TERMS)), as_mirror(moments)),
        )  # fmt: skip
        self.decoder = Network(
            (z + FELT, *config.decoder, g1.NUM_JOINTS), "elu", 0.01,
            (as_mirror(decoder_mirror(z)), as_mirror(g1.mirror_map())),
        )  # fmt: skip
        self.latent = z

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, and mean and logarithm of the standard deviation of the latent.

        Args:
            obs: `[B, 160]`.
            noise: `[B, Z]`, standard normal; None: the latent is the mean.
        """
        mean, log_std = self.encoder.mean(obs[:, :SEEN]).chunk(2, -1)
        latent = mean if noise is None else mean + log_std.exp() * noise
        return self.decoder.mean(torch.cat([latent, obs[:, SEEN:]], -1)), mean, log_std

    @torch.no_grad()
    def update_normalizers(self, obs: Tensor, noise: Tensor) -> None:
        """Fold observations `[B, 160]` in; of the latents, standard normal `noise [B, Z]`."""
        self.encoder.update_normalizer(obs[:, :SEEN])
        self.decoder.update_normalizer(torch.cat([noise, obs[:, SEEN:]], -1))

    def symmetrize_gradients(self) -> None:
        """Between `backward` and the optimizer's step."""
        self.encoder.symmetrize_gradients()
        self.decoder.symmetrize_gradients()

    def as_mlp(self) -> LatentPolicy:
        """The student as arrays, which act by the mean of the latent."""
        return LatentPolicy(self.encoder.as_layers(), self.decoder.as_layers())


def divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Gaussians from a unit Gaussian, nats. `[B, Z]` -> `[B]`."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 2 * log_std - 1).sum(-1)


class Learner:
    """Student, its average, optimizer and the samples of the last iterations.

    Attributes:
        filled: samples there are.
    """

    def __init__(self, config: Config) -> None:
        torch.manual_seed(config.run.seed)
        self.config, self.student = config, Student(config)
        self.averaged = copy.deepcopy(self.student)
        self.optimizer = torch.optim.Adam(self.student.parameters(), eps=1e-5, fused=True)
        self.generator = torch.Generator().manual_seed(config.run.seed + 1)
        room = config.kept * config.num_envs * config.num_steps
        self.obs, self.label = torch.zeros(room, SEEN + FELT), torch.zeros(room, g1.NUM_JOINTS)
        self.filled = self._next = 0

    def keep(self, obs: Tensor, label: Tensor) -> None:
        """Samples `[B, 160]`, `[B, 29]` in place of the oldest ones."""
        place = slice(self._next, self._next + len(obs))
        self.obs[place], self.label[place] = obs, label
        self._next = place.stop % len(self.obs)
        self.filled = max(self.filled, place.stop)

    def learn(self, share: float) -> dict[str, float]:
        """Gradient steps on kept samples; what is logged of them.

        Args:
            share: of the run that is done.
        """
        config, student, sums = self.config, self.student, torch.zeros(3)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.1**share
        for _ in range(config.updates):
            index = torch.randint(self.filled, (config.batch_size,), generator=self.generator)
            obs, label = self.obs[index], self.label[index]
            noise = torch.randn(len(obs), config.latent, generator=self.generator)
            action, mean, log_std = student(obs, noise)
            error = (action - label).square().sum(-1).mean()
            nats = divergence(mean, log_std).mean()
            self.optimizer.zero_grad()
            (error + config.beta * nats).backward()
            student.symmetrize_gradients()
            nn.utils.clip_grad_norm_(student.parameters(), MAX_GRAD_NORM)
            self.optimizer.step()
            sums += torch.stack((error, nats, mean.square().mean())).detach()
        polyak_update(self.averaged, student, config.ema)
        for name in ("encoder", "decoder"):
            ours, present = getattr(self.averaged, name), getattr(student, name)
            for buffer in ("obs_mean", "obs_var", "obs_count"):
                getattr(ours, buffer).copy_(getattr(present, buffer))
        error, nats, size = (sums / config.updates).tolist()
        return {
            "losses/action": error, "losses/divergence": nats, "latent/mean_square": size,
            "charts/learning_rate": config.learning_rate * 0.1**share,
        }  # fmt: skip

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "student": self.student.state_dict(), "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
            "samples": {"obs": self.obs[: self.filled], "label": self.label[: self.filled],
                        "next": self._next},
        }  # fmt: skip

    def set_state(self, state: dict[str, Any]) -> None:
        """What a checkpoint holds of it."""
        self.student.load_state_dict(state["student"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        samples = state["samples"]
        self.filled, self._next = len(samples["obs"]), int(samples["next"])
        self.obs[: self.filled], self.label[: self.filled] = samples["obs"], samples["label"]


# --- training -------------------------------------------------------------------------------------

KEYS = ("task", "student", "averaged", "samples", "robots", "episodes", "obs")


def main(config: Config) -> None:
    """Distil and export."""
    if config.run.backend != "mujoco" or config.run.robot != "g1":
        raise ConfigError(
            f"backend is '{config.run.backend}' and robot '{config.run.robot}', expected mujoco "
            "and g1."
        )
    teachers, processes = Teachers(config.policy), Processes()
    batch_size = config.num_envs * config.num_steps
    digests = [load_policy(name).sha256 for name in config.policy]
    settings = tracker_settings(
        config, teachers.clips, processes, **CONSTANTS, teachers=digests,
    )  # fmt: skip
    with tracker_run(
        config.run, "dagger_vae", teachers.clips, settings, KEYS, batch_size=batch_size,
        total_timesteps=config.total_timesteps, processes=processes,
    ) as run:  # fmt: skip
        train(config, teachers, run, digests)


def train(config: Config, teachers: Teachers, run: Any, digests: list[str]) -> None:
    """The run itself, in its folder.

    Args:
        config: settings.
        teachers: trackers, and their clips.
        run: how far it is, and what is kept of it.
        digests: SHA-256 of each teacher's file.
    """
    N, T, task = config.num_envs, config.num_steps, teachers.task  # noqa: N806
    torch.set_num_threads(config.run.threads or cli.available_cores())

    # 1. Robots, student, protocols; from the start or from the checkpoint.
    robots = make_robots(teachers.clips, task, N, config.run, config.run.seed)
    episodes, learner = Episodes(robots), Learner(config)
    evaluation = run.evaluation_of(task)
    obs, _ = robots.reset(config.run.seed)
    if run.saved is None:
        robots.spread_ends(round(EPISODE_S / CONTROL_DT))
    else:
        robots.set_state(run.saved["robots"])
        episodes.set_state(run.saved["episodes"])
        learner.set_state(run.saved)
        obs = run.saved["obs"]
    record = {"policy": list(config.policy), "teachers": digests, "motion": list(
        dict.fromkeys(clip.name for clip in teachers.clips)), **CONSTANTS}  # fmt: skip
    run.begin_training(
        config_record(config, "dagger_vae", **record),
        f"{len(config.policy)} teachers, {N} robots, latent of {config.latent}",
    )
    while run.goes_on:
        # 2. Collect: the student moves the robots, the teachers say what they would do.
        by_teacher = torch.rand(N, 1, generator=learner.generator) > (
            run.share / config.teacher_share if config.teacher_share else 1.0
        )
        scale = config.noise * torch.rand(N, 1, generator=learner.generator)
        every_obs, every_label = torch.zeros(T, N, SEEN + FELT), torch.zeros(T, N, g1.NUM_JOINTS)
        for t in range(T):
            obs = torch.nan_to_num(obs)
            label = torch.from_numpy(teachers(obs.numpy(), robots.task.clip_id))
            with torch.no_grad():
                action = learner.student(obs)[0]
            every_obs[t], every_label[t] = obs, label
            noise = scale * torch.randn(N, g1.NUM_JOINTS, generator=learner.generator)
            step = robots.step(torch.where(by_teacher, label, action) + noise)
            episodes.add(step)
            obs = step.obs.clone()
        robots.read_statistics()

        # 3. Learn from the samples that are kept. The scales stay as they were when none was
        # learned from: a decoder's input must not change its meaning.
        flat = every_obs.flatten(0, 1)
        if run.iteration < config.kept:
            noise = torch.randn(len(flat), config.latent, generator=learner.generator)
            learner.student.update_normalizers(flat, noise)
        learner.keep(flat, every_label.flatten(0, 1))
        learned = learner.learn(run.share)
        run.iteration += 1

        # 4. Evaluate, log, save.
        row = {**episodes.figures(), **mean_errors(robots), **learned}
        row["dagger/teacher_share"] = by_teacher.float().mean().item()
        row |= run.evaluate(learner.averaged, evaluation)
        run.log_training(row)
        if run.save_due():
            run.save({
                "robots": robots.get_state(), "episodes": episodes.get_state(), "obs": obs,
                **learner.get_state(),
            })  # fmt: skip

    # 5. What leaves the project.
    if run.end():
        run.export(learner.averaged, task, algorithm="dagger_vae", num_envs=N)
    robots.env.close()
    evaluation.close()


if __name__ == "__main__":
    cli.run(main, Config, short_help=True)
