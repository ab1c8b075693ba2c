"""What trainers of trackers share: clock, processes, symmetric networks, robots, evaluation, files.

`algos/ppo_track.py` and `algos/wm_track.py` differ in how they learn; the policy, the robots that
it drives, how it is judged and what leaves a run are the same and stand here. Needs the extra
`train`. (Scripts import nothing from each other, and the environments nothing of this.)

`config` below is a script's `Config`; of its fields those of `ppo_track.Config` by the same names
are read.

Letters in shapes: N robots, B samples, O policy and C critic observation, A action, D any.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bm_envs import cli
from bm_envs.backends.base import full_state
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.evaluation import run_episodes
from bm_envs.policy import (
    MLP,
    PolicySpec,
    load_policy,
    mlp_from_policy,
    read_run_config,
    write_onnx,
    write_policy_json,
)
from bm_envs.robots import g1
from bm_envs.robots.observation_terms import mirror_map
from bm_envs.run_files import Run, RunLog, as_arrays
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.device import DeviceTrack

# --- time and processes --------------------------------------------------------------------------


class Clock:
    """Seconds of training so far, from which what is only measured can be left out."""

    def __init__(self, wall_s: float = 0.0) -> None:
        """Go on from `wall_s` seconds of a run that was cut short."""
        self._start, self._cpu = time.perf_counter() - wall_s, 0.0

    @property
    def wall_s(self) -> float:
        """By the clock on the wall."""
        return time.perf_counter() - self._start

    @property
    def cpu_s(self) -> float:
        """Of processors, by this process, which may be a run's second."""
        return time.process_time() - self._cpu

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside does not count."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._start += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu


MOST_PROCESSES = 100_000


def _from_environment(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, str(default))
    if not (text.strip().isdecimal() and len(text) < 20 and low <= int(text) <= high):
        raise ConfigError(
            f"The environment's {name} is '{text[:60]}', expected a whole number of {low} to "
            f"{high}; torchrun sets it, and without torchrun it should not be set."
        )
    return int(text)


class Processes:
    """The processes of a `torchrun`, of which this is one; without it, this one alone."""

    def __init__(self) -> None:
        self.count = _from_environment("WORLD_SIZE", 1, 1, MOST_PROCESSES)
        self.rank = _from_environment("RANK", 0, 0, self.count - 1)
        self._collecting: Any = None
        self._learning: Any = None
        if self.count > 1:
            _from_environment("MASTER_PORT", 0, 0, 65535)
            try:
                with cli.signals_end_at_once():  # it waits for the others, for many minutes
                    dist.init_process_group("gloo")
            except (OSError, RuntimeError, ValueError) as error:
                # PyTorch's own has several lines; the first says what it is.
                said = str(error).strip().splitlines()[0].rstrip(".")[:300]
                raise ConfigError(
                    f"Process {self.rank} of {self.count} does not find the others at "
                    f"{os.environ.get('MASTER_ADDR', 'MASTER_ADDR, which is not set,')} port "
                    f"{os.environ.get('MASTER_PORT', 'MASTER_PORT, which is not set')} ({said}); "
                    "start them with torchrun, and with another --master-port if that one is taken."
                ) from None
            # Two threads must not share a group; the learner talks from one of its own. The group
            # of all is left alone: PyTorch keeps it to the end, and a thread of a group that still
            # lets go of a tensor while the interpreter ends takes the process down.
            self._collecting, self._learning = dist.new_group(), dist.new_group()

    def average(self, *tensors: Tensor) -> None:
        """Replace the learner's tensors by their means over the processes, in one message."""
        self._average(self._learning, tensors)

    def average_statistics(self, *arrays: np.ndarray) -> None:
        """The same for arrays of the collecting thread."""
        self._average(self._collecting, [torch.from_numpy(array) for array in arrays])

    def _average(self, group: Any, tensors: Sequence[Tensor]) -> None:
        if self.count == 1:
            return
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message, group=group)
        message /= self.count
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, value in zip(tensors, message.split(sizes), strict=True):
            tensor.copy_(value.view_as(tensor))

    def first_says(self, value: Any) -> Any:
        """What the first process holds for `value`."""
        if self.count == 1:
            return value
        message = [value]
        dist.broadcast_object_list(message, group=self._collecting)
        return message[0]

    def gather(self, value: Any) -> list[Any]:
        """`value` of all processes in order, for the first; an empty list for the others."""
        if self.count == 1:
            return [value]
        values = [None] * self.count if self.rank == 0 else None
        dist.gather_object(value, values, group=self._collecting)
        return values or []

    def close(self) -> None:
        """Leave together."""
        if self.count > 1:
            dist.barrier(group=self._collecting)
            dist.destroy_process_group()
            self._collecting = self._learning = None  # ends their threads


# --- networks -----------------------------------------------------------------------------------


Mirror = tuple[Tensor, Tensor]  # index and sign, `[D]` each, of a left-right reflection
UNCHANGED: Mirror = (torch.zeros(1, dtype=torch.long), torch.ones(1))  # a value has no sides


def as_mirror(pair: tuple[np.ndarray, np.ndarray]) -> Mirror:
    """The result of a `mirror_map` as tensors."""
    return torch.as_tensor(pair[0]), torch.as_tensor(pair[1], dtype=torch.float32)


def reflected(x: Tensor, mirror: Mirror) -> Tensor:
    """`[..., D]` seen in the mirror."""
    return x[..., mirror[0]] * mirror[1]


def layer_mirror(before: Mirror, after: Mirror) -> Mirror:
    """Of a layer's flattened weight `[after, before]`, whose input and output are reflected."""
    index = after[0][:, None] * len(before[0]) + before[0]
    return index.flatten(), (after[1][:, None] * before[1]).flatten()


class Network(nn.Module):
    """An MLP behind a running normalizer, `y = (x - mean) / (std + 0.01)`.

    The normalizer's statistics are buffers, so checkpoint and ONNX carry them. Source of the 0.01:
    rsl_rl's EmpiricalNormalization.

    With `mirrors`, the reflections of input and output, the network is left-right symmetric: its
    output for a reflected input is the reflected output. The units of a hidden layer are pairs that
    a reflection swaps, so that it remains a plain MLP; `symmetrize` holds the weights (and, while
    they learn, their gradients) to it.
    """

    obs_mean: Tensor
    obs_var: Tensor
    obs_count: Tensor

    def __init__(
        self, sizes: tuple[int, ...], activation: str, last_gain: float,
        mirrors: tuple[Mirror, Mirror] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight, 2**0.5 if layer is not layers[-1] else last_gain)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.activation = {"elu": nn.functional.elu, "relu": torch.relu, "tanh": torch.tanh}[
            activation
        ]
        self.input_mirror: Mirror | None = None
        self.mirrors: list[Mirror] = []  # of flattened weights and biases
        if mirrors is not None:
            self.input_mirror = mirrors[0]
            swaps = [(torch.arange(n).roll(n // 2), torch.ones(n)) for n in sizes[1:-1]]
            units = [mirrors[0], *swaps, mirrors[1]]
            for before, after in pairwise(units):  # of weight and bias
                self.mirrors += [layer_mirror(before, after), after]
            for layer in layers:  # the mean of two independent weights has half their variance
                layer.weight.data *= 2**0.5
            self.symmetrize([value.data for value in self.layers.parameters()])
        self.register_buffer("obs_mean", torch.zeros(sizes[0]))
        self.register_buffer("obs_var", torch.ones(sizes[0]))
        self.register_buffer("obs_count", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """`nn.Module`'s hook of `to` and its like: the reflections go along."""
        self.mirrors = [(fn(index), fn(sign)) for index, sign in self.mirrors]
        if self.input_mirror is not None:
            self.input_mirror = fn(self.input_mirror[0]), fn(self.input_mirror[1])
        return super()._apply(fn, recurse)

    def normalize(self, obs: Tensor) -> Tensor:
        """`[B, O]` -> `[B, O]`."""
        return (obs - self.obs_mean) / (self.obs_var.sqrt() + 0.01)

    def forward(self, normalized: Tensor) -> Tensor:
        """`[B, O]` normalized -> `[B, out]`."""
        x = normalized
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    @torch.no_grad()
    def symmetrize(self, values: Sequence[Tensor]) -> None:
        """Replace the layers' weights and biases, or their gradients, by the symmetric part."""
        for value, mirror in zip(values, self.mirrors, strict=True):
            value.copy_((value + reflected(value.flatten(), mirror).view_as(value)) / 2)

    def symmetrize_gradients(self) -> None:
        """Between `backward` and the optimizer's step."""
        self.symmetrize([gradient_of(value) for value in self.layers.parameters()])

    @torch.no_grad()
    def update_normalizer(self, obs: Tensor, processes: Processes | None = None) -> None:
        """Fold `[B, O]` of every process into mean and variance (Chan et al.'s pairwise update)."""
        count, batch_mean = obs.shape[0], obs.mean(0)
        deviation = obs - batch_mean
        batch_var = (deviation * deviation).mean(0)  # several times as fast as `var`
        if self.input_mirror is not None:  # the samples' reflections count as well
            index, sign = self.input_mirror
            count, seen, mirrored = 2 * count, batch_mean, batch_mean[index] * sign
            batch_mean = (seen + mirrored) / 2
            batch_var = (batch_var + batch_var[index]) / 2 + ((seen - mirrored) / 2) ** 2
        if processes is not None and processes.count > 1:
            count, own_mean = count * processes.count, batch_mean.clone()
            processes.average(batch_mean)
            batch_var += (own_mean - batch_mean) ** 2
            processes.average(batch_var)
        total = self.obs_count + count
        delta = batch_mean - self.obs_mean
        share = (count / total).float()
        self.obs_mean += delta * share
        self.obs_var += share * (batch_var - self.obs_var + delta * delta * (1 - share))
        self.obs_count.copy_(total)


START_COUNT = 10_000_000  # observations that a policy's normalizer stands for when one goes on


def gradient_of(value: Tensor) -> Tensor:
    """What `backward` left there."""
    assert value.grad is not None
    return value.grad


class TrackingPolicy(Network):
    """The policy's mean, which may ride on the reference: raw observations to raw actions."""

    def __init__(
        self, obs_size: int, config: Any, default_joint_pos: np.ndarray, scale: np.ndarray
    ) -> None:
        joints = as_mirror(g1.mirror_map())
        mirrors = (as_mirror(mirror_map(config.task.observations)), joints)
        super().__init__(
            (obs_size, *config.hidden, g1.NUM_JOINTS), config.activation, 0.01,
            mirrors if config.symmetry else None,
        )  # fmt: skip
        self.residual = config.residual
        self.default_joint_pos, self.action_scale = map(torch.as_tensor, (default_joint_pos, scale))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As there: so do the drives."""
        self.default_joint_pos, self.action_scale = (
            fn(self.default_joint_pos),
            fn(self.action_scale),
        )
        return super()._apply(fn, recurse)

    def offset(self, obs: Tensor) -> Tensor | float:
        """What the reference adds to the mean: `(q_ref - q0) / scale`; q_ref is `obs[:, :29]`."""
        if not self.residual:
            return 0.0
        return (obs[:, : g1.NUM_JOINTS] - self.default_joint_pos) / self.action_scale

    @torch.no_grad()
    def load(self, mlp: MLP) -> None:
        """Take over the network of a policy."""
        depth = range(len(self.layers))
        own = [tuple(self.get_parameter(f"layers.{i}.weight").shape) for i in depth]
        found = [weight.shape for weight in mlp.weights]
        residual = mlp.residual_offset is not None
        if found != own or residual != self.residual:
            raise ConfigError(
                f"Its layers are {found}{' with' if residual else ' without'} the reference's pose "
                f"added, expected {own}{' with' if self.residual else ' without'}."
            )
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            self.get_parameter(f"layers.{i}.weight").copy_(torch.tensor(weight))
            self.get_parameter(f"layers.{i}.bias").copy_(torch.tensor(bias))
        self.obs_mean.copy_(torch.tensor(mlp.obs_mean))
        self.obs_var.copy_(torch.tensor(mlp.obs_scale - 0.01) ** 2)
        self.obs_count.fill_(START_COUNT)

    def mean(self, obs: Tensor) -> Tensor:
        """Deterministic action for raw observations. `[B, O]` -> `[B, A]`."""
        return self(self.normalize(obs)) + self.offset(obs)


def leash(level: float) -> float:
    """Factor of `failure_distance` at a level of the curriculum, 0 to 1.

    Three at the end: a robot that was pushed off the path must learn to stay up there, too.
    """
    return 1 + 2 * level


def next_level(level: float, hardest_s: float, config: Any) -> float:
    """The curriculum's level after an iteration: up while robots stay up, else down.

    Args:
        level: the present one, 0 to 1.
        hardest_s: robot seconds per failure in the hardest tenth of the clips.
        config: its `curriculum_s` is what `hardest_s` has to exceed, its `curriculum_step` the way.
    """
    change = config.curriculum_step if hardest_s > config.curriculum_s else -config.curriculum_step
    return float(np.clip(level + change, 0.0, 1.0))


ROBUST_EPISODES = 100  # of a clip
ROBUST_SEED = 1_000_000  # not one that benchmarks report


def evaluation_env(
    config: Any, clips: list[Any], protocol: Literal["clip", "robust"] = "clip"
) -> TrackVectorEnv:
    """Robots under a protocol, which see and are driven as in training.

    They always have the standard physics steps, whatever training saves on. One robot a clip, or
    `ROBUST_EPISODES`.
    """
    preset = TrackConfig.preset(protocol)
    preset = dataclasses.replace(
        preset, observations=config.task.observations, actuation=config.task.actuation,
        model=dataclasses.replace(config.task.model, physics_dt=preset.model.physics_dt),
    )  # fmt: skip
    return TrackVectorEnv(
        len(clips) * (1 if protocol == "clip" else ROBUST_EPISODES), clips, config=preset,
        autoreset_mode="disabled", critic="none", threads=config.threads,
    )  # fmt: skip


def _as_function(actor: TrackingPolicy) -> Callable[[np.ndarray], np.ndarray]:
    actor = copy.deepcopy(actor).cpu()

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return actor.mean(torch.from_numpy(obs)).numpy()

    return act


def evaluate(actor: TrackingPolicy, env: TrackVectorEnv) -> dict[str, float]:
    """The `clip` protocol: every clip once, from its first frame, by the policy's mean.

    Returns the share of clips completed, the mean share of a clip survived, and mean errors of the
    frames before a failure, averaged over clips.
    """
    episodes = run_episodes(_as_function(actor), env)
    result = {
        "success": float(episodes.completed.mean()),
        "survival": float((episodes.reached / (env.task.clip_frames - 1)).mean()),
        "survival_s": float(episodes.reached.mean() * CONTROL_DT),
    }
    for name, error in episodes.errors.items():
        in_mm = name.endswith("_m")
        # A clip failed in its first step has no error.
        value = float(np.nanmean(error)) if np.isfinite(error).any() else 0.0
        result[f"{name}m" if in_mm else name] = value * (1000 if in_mm else 1)
    return result


def robust_share(actor: TrackingPolicy, env: TrackVectorEnv) -> float:
    """Of the episodes of the `robust` protocol, how many the policy's mean completes."""
    return float(run_episodes(_as_function(actor), env, seed=ROBUST_SEED).completed.mean())


# --- robots -------------------------------------------------------------------------------------


class Step(NamedTuple):
    """What a step of all robots tells, on their device."""

    obs: Tensor
    critic_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_critic_obs: Tensor | None
    """`[N, C]`, of the episodes that ended; None where none did."""
    terms: Tensor
    """`[R]`, means of the signed reward terms."""


class HostRobots:
    """Robots of a vector environment, whose arrays are NumPy's, seen as tensors."""

    device = torch.device("cpu")

    def __init__(self, config: Any, clips: list[Any]) -> None:
        self.env = TrackVectorEnv(
            config.num_envs, clips, backend=config.backend, config=config.task,
            threads=config.threads,
        )  # fmt: skip
        self.task, self.sampler = self.env.task, self.env.task.sampler
        self.term_names = [name[7:] for name in self.task.reward_names]

    def reset(self, seed: int) -> tuple[Tensor, Tensor]:
        """Begin everywhere; observations of policy and critic."""
        obs, info = self.env.reset(seed=seed)
        return torch.from_numpy(obs), torch.from_numpy(info["critic_obs"])

    def spread_ends(self, limit: int) -> None:
        """Let episodes be up to `limit` steps old, so that not all end in the same step."""
        self.task.episode_step[:] = self.env.np_random.integers(0, limit, self.env.num_envs)

    def step(self, action: Tensor) -> Step:
        """Apply raw actions `[N, A]`."""
        obs, reward, terminated, truncated, info = self.env.step(action.numpy())
        final = torch.from_numpy(info["final_info"]["critic_obs"]) if truncated.any() else None
        terms = torch.tensor([info[name].mean() for name in self.task.reward_names])
        tensor = torch.from_numpy
        return Step(
            tensor(obs), tensor(info["critic_obs"]), tensor(reward), tensor(terminated),
            tensor(truncated), final, terms,
        )  # fmt: skip

    def set_level(self, level: float) -> None:
        """Set the task to a level of the curriculum, 0 to 1.

        It brings start noise, observation noise and pushes, from nothing to all, and lets the leash
        (`failure_distance`) out.
        """
        self.task.disturbance, self.task.leash = level, leash(level)

    def rows(self) -> tuple[Tensor, Tensor]:
        """Rows of the task's tables: of the present frames, and of the clips' last. `[N]` each."""
        task = self.task
        first = torch.from_numpy(task._first_row)
        return first + torch.from_numpy(task.frame), first + torch.from_numpy(task._last_frame)

    def state(self) -> tuple[Tensor, Tensor]:
        """Copies of `qpos [N, 36]` and `qvel [N, 35]`, see `backends.base.full_state`."""
        qpos, qvel = full_state(self.env.simulator)
        return torch.from_numpy(qpos), torch.from_numpy(qvel)

    def default_joint_pos(self) -> Tensor:
        """Of each robot, rad. `[N, 29]`."""
        return torch.from_numpy(self.task.default_joint_pos)

    def read_statistics(self) -> None:
        """Bring the statistics of starts to `sampler`, where they are always."""

    def errors(self) -> dict[str, Any]:
        """Tracking errors of the last step. `[N]` each."""
        return self.task.tracking_errors()

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        state = self.env.get_state()
        return {**state, "generator": json.dumps(state["generator"])}

    def set_state(self, state: dict[str, Any]) -> None:
        """What `get_state` returned."""
        self.env.set_state({**state, "generator": json.loads(state["generator"])})


class DeviceRobots:
    """The same for robots that live on a device, with all that the task does to them."""

    def __init__(self, config: Any, clips: list[Any], seed: int) -> None:
        self.env = DeviceTrack(
            config.num_envs, clips, config.task, seed=seed, backend=config.backend,
            device=config.device,
        )  # fmt: skip
        self.device = self.env.device
        self.task, self.sampler = self.env.task, self.env.task.sampler
        self.term_names = [name[7:] for name in self.task.reward_names]

    def reset(self, seed: int) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        self.env.generator.manual_seed(seed)
        return self.env.reset()

    def spread_ends(self, limit: int) -> None:
        """See `HostRobots`."""
        age = torch.rand(self.env.num_envs, device=self.device, generator=self.env.generator)
        self.env.episode_step.copy_((age * limit).long())

    def step(self, action: Tensor) -> Step:
        """See `HostRobots`. The tensors are overwritten by the next step."""
        out = self.env.step(action)
        return Step(
            out.obs, out.critic_obs, out.reward, out.terminated, out.truncated,
            out.final_critic_obs, out.values.mean(0),
        )  # fmt: skip

    def set_level(self, level: float) -> None:
        """See `HostRobots`."""
        self.env.disturbance.fill_(level)
        self.env.leash.fill_(leash(level))

    def rows(self) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        env = self.env
        first = env._clip_start[env.clip_id]
        return first + env.frame, first + env._clip_frames[env.clip_id] - 1

    def state(self) -> tuple[Tensor, Tensor]:
        """See `HostRobots`."""
        return full_state(self.env.simulator)

    def default_joint_pos(self) -> Tensor:
        """See `HostRobots`."""
        return self.env.default_joint_pos

    def read_statistics(self) -> None:
        """See `HostRobots`."""
        self.env.sampler.to_host()

    def errors(self) -> dict[str, Any]:
        """See `HostRobots`."""
        return self.env.tracking_errors()

    def get_state(self) -> dict[str, Any]:
        """See `HostRobots`."""
        return dict(self.env.get_state())

    def set_state(self, state: dict[str, Any]) -> None:
        """See `HostRobots`."""
        self.env.set_state(state)


def mean_errors(robots: HostRobots | DeviceRobots) -> dict[str, float]:
    """Tracking errors of the last step, means over robots, as they are logged."""
    return {
        f"track/{name}": float(np.nanmean(error))
        for name, error in as_arrays(robots.errors()).items()
    }


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and newer
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def begin_with(actors: Sequence[TrackingPolicy], config: Any) -> None:
    """Give `actors` the network of the policy `config.start_from`."""
    policy = load_policy(config.start_from)
    own = spec_of(config)
    for name in (
        "joint_names", "observation_names", "default_joint_pos", "action_scale", "joint_stiffness",
        "joint_damping",
    ):  # fmt: skip
        values = [getattr(spec, name) for spec in (own, policy.spec)]
        # Figures of a file are written with some eight digits.
        if "names" not in name and len(values[0]) == len(values[1]):
            same = np.allclose(*values, rtol=1e-6)
        else:
            same = values[0] == values[1]
        if not same:
            raise ConfigError(f"{policy.path}: its {name} are not this run's.")
    try:
        for actor in actors:
            actor.load(mlp_from_policy(policy.path))
    except ConfigError as error:
        raise ConfigError(f"{policy.path}: {error}") from None


def identity(config: Any, clips: list[Any], processes: Processes) -> dict[str, Any]:
    """What must be equal for a checkpoint to go on as if nothing had happened."""
    free = ("run_dir", "resume", "total_timesteps", "checkpoint_s", "track", "wandb_project_name",
            "capture_video", "no_motion", "stop_when_passed", "threads", "robust_every",
            "stop_when_robust")  # fmt: skip
    values = {k: v for k, v in dataclasses.asdict(config).items() if k not in free}
    return json.loads(json.dumps(values, default=str)) | {
        "clips": [clip.sha256() for clip in clips], "processes": processes.count
    }  # fmt: skip


def check_resumed(config: Any, run: Run, step: int) -> None:
    """Refuse a checkpoint that is further than this run is to go.

    Args:
        config: of the trainer.
        run: its folder.
        step: the control steps that its checkpoint has behind it.

    Raises:
        ConfigError: it cannot go on.
    """
    if config.total_timesteps < step:
        raise ConfigError(
            f"total_timesteps is {config.total_timesteps:,}, but {run.checkpoint} has {step:,} "
            "behind it."
        )


def config_record(config: Any, algorithm: str) -> dict[str, Any]:
    """What `config.json` holds."""
    values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in ("run_dir", "resume"):
        values.pop(name)
    return {
        "exp_name": algorithm, "env_id": "BMTrack-G1-v0", **values,
        "network": {"residual": config.residual, "activation": config.activation},
        "versions": cli.versions(), "commit": cli.commit(), "machine": cli.machine(),
    }  # fmt: skip


def write_record(run_dir: Path, record: dict[str, Any], step: int) -> str:
    """Write `config.json`; says whether the run is new, and if not from which step it goes on.

    A run that goes on keeps its record, with the commit and machine that it began on, but for its
    length, which may be another one now.

    Args:
        run_dir: of the run.
        record: its `config_record`.
        step: the control steps that it has behind it; 0 for a new one.
    """
    path = run_dir / "config.json"
    begun = f"from step {step:,} on" if step else "a new run"
    if step and path.is_file():
        kept = read_run_config(run_dir)
        before, now = kept.get("total_timesteps"), record["total_timesteps"]
        if before == now or not isinstance(before, int):
            return begun
        record = kept | {"total_timesteps": now}
        begun += f" (of {before:,} before)"
    cli.write_json(path, record)
    return begun


class Logger:
    """metrics.jsonl, TensorBoard, the progress bar, and W&B on request."""

    def __init__(
        self, run_dir: Path, config: Any, record: dict[str, Any], step: int, total: int
    ) -> None:  # fmt: skip
        """Go on after `step` of `total` control steps; `record` is the run's `config_record`."""
        self._log = RunLog(run_dir, step)
        self._bar = cli.progress_bar(total, step, unit_scale=True)
        self._first = step, None
        self._wandb = None
        if config.track:
            try:
                wandb: Any = importlib.import_module("wandb")
            except ModuleNotFoundError:
                raise ConfigError("--track needs the package wandb: pip install wandb.") from None
            self._wandb = wandb.init(
                project=config.wandb_project_name, name=run_dir.name, config=record
            )

    def write(
        self, step: int, iteration: int, train_s: float, row: dict[str, float],
        evaluation: dict[str, float],
    ) -> None:  # fmt: skip
        """One iteration's numbers."""
        if self._first[1] is None:  # the first iteration warms up and is not timed
            self._first = step, train_s
        elif train_s > self._first[1]:
            row["charts/SPS"] = (step - self._first[0]) / (train_s - self._first[1])
        self._log.write(step, row, iteration=iteration, train_s=round(train_s, 2))
        if self._wandb is not None:
            self._wandb.log(row, step=step)
        self._bar.set_postfix({
            "length": f"{row.get('charts/episodic_length', float('nan')):.0f}",
            "error_mm": f"{row['track/r_mpkpe_m'] * 1000:.0f}",
            "clip": f"{evaluation['survival']:.0%}" if evaluation else "-",
        }, refresh=False)  # fmt: skip
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self._log.close()
        if self._wandb is not None:
            self._wandb.finish()


def spec_of(config: Any, run_path: str = "none") -> PolicySpec:
    """What a policy of this run sees and drives."""
    drive = config.task.actuation
    return PolicySpec.for_g1(
        config.task.observations, default_joint_pos=drive.default_joint_pos,
        action_scale=drive.action_scale, stiffness=drive.stiffness, damping=drive.damping,
        run_path=run_path,
    )  # fmt: skip


def export(
    run_dir: Path, config: Any, actor: TrackingPolicy, clips: list[Any], algorithm: str,
    evaluation: dict[str, float], first_pass: dict[str, float], env_steps: int, train_s: float,
    commits: list[str],
) -> None:  # fmt: skip
    """Write policy.onnx and policy.json, and the video where asked for."""
    actor = copy.deepcopy(actor).cpu()
    depth = range(len(actor.layers))
    network = MLP(
        obs_mean=actor.obs_mean.numpy(),
        obs_scale=actor.obs_var.sqrt().numpy() + 0.01,
        weights=tuple(actor.get_parameter(f"layers.{i}.weight").detach().numpy() for i in depth),
        biases=tuple(actor.get_parameter(f"layers.{i}.bias").detach().numpy() for i in depth),
        activation=config.activation,
        residual_offset=actor.default_joint_pos.numpy() if config.residual else None,
        residual_scale=actor.action_scale.numpy() if config.residual else None,
    )
    spec = spec_of(config, run_dir.name)
    clip = clips[0] if len(clips) == 1 else None  # the graph has room for one motion
    embed = clip is not None and not config.no_motion
    write_onnx(run_dir / "policy.onnx", network, spec, clip, embed_motion=embed)
    write_policy_json(
        run_dir / "policy.json", spec, onnx_file=run_dir / "policy.onnx", motions=clips,
        embedded=embed, training={
            "algorithm": algorithm, "env_steps": env_steps, "wall_s": round(train_s, 1),
            "seed": config.seed, "num_envs": config.num_envs, "first_pass": first_pass,
            "clip_protocol": evaluation, "commit": ", ".join(commits) or None,
            "machine": cli.machine(),
        },
    )  # fmt: skip
    if config.capture_video:
        replay = Path(__file__).parent.parent / "tools" / "replay.py"
        command = [sys.executable, str(replay), "--motion", config.motion[0]]
        command += ["--policy", str(run_dir), "--video", str(run_dir / "video.mp4")]
        subprocess.run(command, check=False)
