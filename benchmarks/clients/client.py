"""One client's contract with our environments, and a small training by it. `try.py` starts this.

    python benchmarks/clients/client.py --client sb3 --rows rows.json
    python benchmarks/clients/client.py --client sb3 --train laptop --rows rows.json

It runs in an environment that has the client's package. Without `--train` it makes the client's
checks; each is a row with `passed` and, where it failed, the error. With `--train` it trains one
policy with the client's own PPO and defaults, but for the number of robots and samples, and the row
has a curve: for each of `BINS` stretches of the training, over the episodes that ended in it, the
mean length in control steps and the mean reward of a step. Where a stretch is shorter than an
episode can be, as in very small trainings, its first points know short episodes alone.

What is trained on:

    laptop        `preset="laptop"`, where an action of 1 stands for 0.4 published ones
    published     `preset="train"`, published actions: the client's noise of 1 is 1
    quiet         `preset="train"`, and the client's noise begins at 0.4
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np

import bm_envs
from bm_envs import cli
from bm_envs.errors import BMError, ConfigError

Client = Literal["gymnasium", "sb3", "rsl_rl", "cleanrl", "skrl", "torchrl", "minari"]
Variant = Literal["laptop", "published", "quiet"]
PACKAGES = {
    "gymnasium": "gymnasium", "sb3": "stable-baselines3", "rsl_rl": "rsl-rl-lib", "skrl": "skrl",
    "torchrl": "torchrl", "minari": "minari",
}  # fmt: skip
ID = "BMTrack-G1-v0"
BINS = 20
QUIET = 0.4  # of the raw action
# Environments that other processes make name the module that registers them.
IMPORTING_ID = f"bm_envs:{ID}"


@dataclass(frozen=True)
class Config:
    """What to do with which client."""

    client: Client
    """The client."""
    rows: Path
    """JSON file to write, a list of rows."""
    train: Variant | None = None
    """What to train on; None: the checks alone."""
    steps: int = 300_000
    """Control steps of the training over all robots."""
    num_envs: int = 64
    """Robots of the training (CleanRL has an environment for each)."""
    seed: int = 1
    """Seed of environment and learner."""
    threads: int = 1
    """Threads of physics and learner; 0: all cores."""

    def __post_init__(self) -> None:
        if self.train is not None and self.client not in (*TRAINERS, "cleanrl"):
            raise ConfigError(
                f"--client is '{self.client}', which trains nothing here; expected one of "
                f"{', '.join(TRAINERS)}, cleanrl beside --train."
            )
        if self.num_envs < 1 or self.steps < BINS * self.num_envs:
            raise ConfigError(
                f"steps is {self.steps}, expected {BINS} or more for each of {self.num_envs} "
                "robots."
            )


def settings_of(variant: Variant) -> tuple[str, float]:
    """The environment's preset, and the noise that the client begins with."""
    return ("laptop" if variant == "laptop" else "train", QUIET if variant == "quiet" else 1.0)


# --- what an episode was --------------------------------------------------------------------------


class Episodes(gymnasium.vector.VectorWrapper):
    """Notes each episode that ends: control steps over all robots so far, its length and return."""

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        super().__init__(env)
        self.steps = 0
        self.ended: list[tuple[int, int, float]] = []
        self._length = np.zeros(env.num_envs, np.int64)
        self._return = np.zeros(env.num_envs)

    def reset(self, **arguments: Any) -> Any:
        """See `gymnasium.vector.VectorEnv.reset`."""
        self._length[:], self._return[:] = 0, 0.0
        return self.env.reset(**arguments)

    def step(self, actions: Any) -> Any:
        """See `gymnasium.vector.VectorEnv.step`."""
        obs, reward, terminated, truncated, info = self.env.step(actions)
        self.steps += self.num_envs
        self._length += 1
        self._return += reward
        for i in np.flatnonzero(terminated | truncated).tolist():
            self.ended.append((self.steps, int(self._length[i]), float(self._return[i])))
            self._length[i], self._return[i] = 0, 0.0
        return obs, reward, terminated, truncated, info


def curve(ended: list[tuple[int, int, float]], steps: int) -> list[list[float]]:
    """`[[steps, mean length, mean reward of a step], ...]` of the stretches with an ended episode.

    Args:
        ended: `(control steps so far, length, return)` of each episode.
        steps: control steps of the whole training.
    """
    table = np.array(ended, float).reshape(-1, 3)
    edges = np.linspace(0, steps, BINS + 1)
    points = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = table[(table[:, 0] > low) & (table[:, 0] <= high)]
        if len(inside):
            lengths, returns = inside[:, 1], inside[:, 2]
            points.append(
                [round(high), round(lengths.mean(), 2), round(returns.sum() / lengths.sum(), 5)]
            )
    return points


def make(config: Config, variant: Variant) -> Episodes:
    """The robots of a training."""
    preset, _ = settings_of(variant)
    return Episodes(
        gymnasium.make_vec(
            ID, num_envs=config.num_envs, motion="walk", preset=preset, threads=config.threads
        )
    )


# --- trainings ------------------------------------------------------------------------------------
# Each but CleanRL's, which is a script, gets the robots and returns the settings in which it is not
# the client's default.


def train_sb3(env: Episodes, config: Config, noise: float) -> dict[str, Any]:
    """Stable-Baselines3: `PPO` behind its `VecNormalize`."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

    from bm_envs.adapters.sb3 import SB3VecEnv

    settings: dict[str, Any] = {"n_steps": 32, "batch_size": 512, "learning_rate": 1e-3}
    robots = VecNormalize(VecMonitor(SB3VecEnv(env)))
    policy = {"log_std_init": float(np.log(noise))}
    model = PPO(
        "MlpPolicy", robots, **settings, seed=config.seed, policy_kwargs=policy, device="cpu"
    )
    model.learn(config.steps)
    return settings


def train_rsl_rl(env: Episodes, config: Config, noise: float) -> dict[str, Any]:
    """rsl_rl: `OnPolicyRunner`, with the settings of the published tracking task."""
    import torch
    from rsl_rl.runners import OnPolicyRunner

    from bm_envs.adapters.rsl_rl import RslRlVecEnv

    torch.manual_seed(config.seed)
    robots = RslRlVecEnv(env)
    robots.seed(config.seed)
    network = {
        "class_name": "MLPModel", "hidden_dims": [256, 128], "activation": "elu",
        "obs_normalization": True,
    }  # fmt: skip
    distribution = {"class_name": "GaussianDistribution", "init_std": noise}
    settings = {"num_steps_per_env": 24, "entropy_coef": 0.005, "hidden_dims": [256, 128]}
    runner = OnPolicyRunner(
        robots,
        {
            "num_steps_per_env": settings["num_steps_per_env"], "save_interval": 10**9,
            "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
            "actor": {**network, "distribution_cfg": distribution}, "critic": dict(network),
            "algorithm": {
                "class_name": "PPO", "entropy_coef": settings["entropy_coef"], "rnd_cfg": None,
                "symmetry_cfg": None,
            },
        },
        log_dir=None, device="cpu",
    )  # fmt: skip
    iteration = settings["num_steps_per_env"] * config.num_envs
    runner.learn(max(1, config.steps // iteration), init_at_random_ep_len=True)
    return settings


def train_skrl(env: Episodes, config: Config, noise: float) -> dict[str, Any]:
    """skrl: `PPO` with observations and values normalized by its `RunningStandardScaler`."""
    import torch
    from skrl.agents.torch import ExperimentCfg
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
    from skrl.resources.preprocessors.torch import RunningStandardScaler
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed
    from torch import nn

    set_seed(config.seed)
    robots: Any = wrap_env(env, verbose=False)

    def layers(outputs: int) -> nn.Sequential:
        size = robots.observation_space.shape[0]
        return nn.Sequential(
            nn.Linear(size, 256), nn.ELU(), nn.Linear(256, 128), nn.ELU(), nn.Linear(128, outputs)
        )

    spaces = {
        "observation_space": robots.observation_space, "action_space": robots.action_space,
        "device": robots.device,
    }  # fmt: skip

    class Policy(GaussianMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            GaussianMixin.__init__(self, clip_actions=False)
            self.net = layers(self.num_actions)
            self.log_std = nn.Parameter(torch.full((self.num_actions,), float(np.log(noise))))

        def compute(self, inputs: dict, role: str) -> tuple:
            return self.net(inputs["observations"]), {"log_std": self.log_std}

    class Value(DeterministicMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self, clip_actions=False)
            self.net = layers(1)

        def compute(self, inputs: dict, role: str) -> tuple:
            return self.net(inputs["observations"]), {}

    settings: dict[str, Any] = {
        "rollouts": 32,
        "learning_epochs": 5,
        "mini_batches": 4,
        "learning_rate": 3e-4,
    }
    agent = PPO(
        models={"policy": Policy(), "value": Value()},
        memory=RandomMemory(
            memory_size=settings["rollouts"], num_envs=config.num_envs, device=robots.device
        ),
        cfg=PPO_CFG(
            **settings, time_limit_bootstrap=True,
            observation_preprocessor=RunningStandardScaler,
            observation_preprocessor_kwargs={"size": robots.observation_space},
            value_preprocessor=RunningStandardScaler, value_preprocessor_kwargs={"size": 1},
            experiment=ExperimentCfg(write_interval=0, checkpoint_interval=0),
        ),
        **spaces,
    )  # fmt: skip
    SequentialTrainer(
        env=robots, agents=agent,
        cfg={
            "timesteps": config.steps // config.num_envs, "headless": True,
            "disable_progressbar": True, "close_environment_at_exit": False,
        },
    ).train()  # fmt: skip
    return {**settings, "time_limit_bootstrap": True}


TRAINERS: dict[str, Callable[[Episodes, Config, float], dict[str, Any]]] = {
    "sb3": train_sb3, "rsl_rl": train_rsl_rl, "skrl": train_skrl,
}  # fmt: skip


class CleanRL(NamedTuple):
    """What CleanRL's script did."""

    version: str
    settings: dict[str, Any]
    steps: int
    ended: list[tuple[int, int, float]]


def train_cleanrl(config: Config, preset: str, noise: float) -> CleanRL:
    """CleanRL: its script for continuous actions as `cleanrl.py` edits it, in its own process."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"num_steps": 32, "num_minibatches": 4, "learning_rate": 1e-3}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        edit = [
            str(Path(__file__).parent / "cleanrl.py"), "--out", str(script), "--preset", preset,
            "--noise-std", str(noise),
        ]  # fmt: skip
        arguments = {
            "env_id": IMPORTING_ID, "num_envs": config.num_envs, "seed": config.seed,
            "total_timesteps": config.steps, **settings,
        }  # fmt: skip
        flags = [word for name, value in arguments.items() for word in (_flag(name), str(value))]
        threads = {"OMP_NUM_THREADS": str(config.threads)} if config.threads else {}
        for command in (edit, [str(script), *flags]):
            done = subprocess.run(
                [sys.executable, *command], cwd=folder, env={**os.environ, **threads},
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise BMError((done.stderr.strip() or "no word").splitlines()[-1])
        (log,) = (Path(folder) / "runs").iterdir()
        events = EventAccumulator(str(log), size_guidance={"scalars": 0})
        events.Reload()
        lengths, returns, speed = (
            events.Scalars(f"charts/{name}")
            for name in ("episodic_length", "episodic_return", "SPS")
        )
        release = script.read_text().splitlines()[0].split()[2].rstrip(":")
    ended = [(a.step, int(a.value), float(b.value)) for a, b in zip(lengths, returns, strict=True)]
    return CleanRL(release, settings, speed[-1].step, ended)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def train(config: Config, variant: Variant) -> dict[str, Any]:
    """One training's row."""
    preset, noise = settings_of(variant)
    start = time.perf_counter()
    if config.client == "cleanrl":
        release, settings, steps, ended = train_cleanrl(config, preset, noise)
    else:
        env = make(config, variant)
        settings = TRAINERS[config.client](env, config, noise)
        release, steps, ended = version(config.client), env.steps, env.ended
        env.close()
    points = curve(ended, steps)
    enough = len(points) > 1
    return {
        "client": config.client, "version": release, "what": "train", "name": variant,
        "passed": enough, "reason": "" if enough else "episodes ended in fewer than two stretches",
        "preset": preset, "noise_std": noise, "num_envs": config.num_envs, "seed": config.seed,
        "steps": steps, "wall_s": round(time.perf_counter() - start, 2), "settings": settings,
        "episode_length_first": points[0][1] if enough else None,
        "episode_length_last": points[-1][1] if enough else None,
        "reward_per_step_first": points[0][2] if enough else None,
        "reward_per_step_last": points[-1][2] if enough else None, "curve": points,
    }  # fmt: skip


def version(client: str) -> str:
    """Version of the client's package."""
    return cli.package_versions(PACKAGES[client])[PACKAGES[client]]


# --- checks ---------------------------------------------------------------------------------------
# Each is a promise of ours towards that client, and ends without an exception where it is kept. It
# returns the client's version where no package tells it.


def single(**arguments: Any) -> gymnasium.Env:
    """One robot, as another process makes it, too."""
    return gymnasium.make(IMPORTING_ID, motion="walk", preset="laptop", **arguments)


def several(**arguments: Any) -> gymnasium.vector.VectorEnv:
    """Four robots."""
    return gymnasium.make_vec(
        ID, num_envs=4, motion="walk", preset="laptop", threads=1, **arguments
    )


def played(env: Any, steps: int = 40) -> Any:
    """The environment's answer to the last of some random actions."""
    env.action_space.seed(0)
    answer = None
    for _ in range(steps):
        answer = env.step(env.action_space.sample())
    return answer


def gymnasium_checker() -> None:
    """`gymnasium.utils.env_checker.check_env`."""
    from gymnasium.utils.env_checker import check_env

    check_env(single().unwrapped, skip_render_check=True)


def gymnasium_vector_wrappers() -> None:
    """Vector wrappers around `autoreset_mode="next_step"`, over ends of episodes."""
    from gymnasium.wrappers import vector as wrappers

    for wrap in (
        wrappers.RecordEpisodeStatistics, wrappers.NormalizeObservation, wrappers.NormalizeReward,
        wrappers.FlattenObservation, wrappers.ClipAction, wrappers.DictInfoToList,
        lambda env: wrappers.RescaleAction(env, -1.0, 1.0),
        lambda env: wrappers.ClipReward(env, -1.0, 1.0),
        lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
        lambda env: wrappers.DtypeObservation(env, np.float64),
    ):  # fmt: skip
        env = wrap(several(autoreset_mode="next_step"))
        env.reset(seed=0)
        played(env, 60)
        env.close()


def gymnasium_max_episode_steps() -> None:
    """`max_episode_steps` cuts episodes in the single and in the vector form."""
    env = single(max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(29, np.float32))[3] for _ in range(3)] == [False, False, True]
    robots = several(max_episode_steps=3)
    robots.reset(seed=0)
    cut = [robots.step(np.zeros((4, 29), np.float32))[3] for _ in range(3)]
    assert np.array(cut).tolist() == [[False] * 4] * 2 + [[True] * 4]


def gymnasium_pickle() -> None:
    """A pickled environment goes on as the one it was made of, in the middle of an episode."""
    for env in (single().unwrapped, several()):
        env.reset(seed=0)
        played(env, 5)
        copy = pickle.loads(pickle.dumps(env))
        for mine, theirs in zip(played(env, 3)[:4], played(copy, 3)[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def gymnasium_async(context: str) -> None:
    """Gymnasium's `AsyncVectorEnv`, a process a robot."""
    env = gymnasium.vector.AsyncVectorEnv([single, single], context=context)
    env.reset(seed=0)
    assert played(env)[0].shape == (2, 160)
    env.close()


def sb3_checker() -> None:
    """`stable_baselines3.common.env_checker.check_env`."""
    from stable_baselines3.common.env_checker import check_env

    check_env(single().unwrapped, skip_render_check=True)


def sb3_vec_env() -> None:
    """`SB3VecEnv` of one robot answers as Stable-Baselines3's own `DummyVecEnv` does."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    from bm_envs.adapters.sb3 import SB3VecEnv

    theirs = DummyVecEnv([lambda: single(disable_env_checker=True)])
    ours = SB3VecEnv(gymnasium.make_vec(ID, num_envs=1, motion="walk", preset="laptop"))
    for env in (theirs, ours):
        env.seed(3)
    np.testing.assert_array_equal(theirs.reset(), ours.reset())
    theirs.action_space.seed(0)
    ended = 0
    for _ in range(120):
        actions = theirs.action_space.sample()[None]
        want, got = theirs.step(actions), ours.step(actions)
        for a, b in zip(want[:3], got[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        if want[2][0]:
            ended += 1
            a, b = want[3][0], got[3][0]
            np.testing.assert_array_equal(a["terminal_observation"], b["terminal_observation"])
            assert a["TimeLimit.truncated"] == b["TimeLimit.truncated"]
    assert ended, "no episode ended"


def sb3_subprocesses(method: str) -> None:
    """Stable-Baselines3's `SubprocVecEnv`."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = SubprocVecEnv([single, single], start_method=method)
    env.reset()
    for _ in range(40):
        obs, *_ = env.step(np.zeros((2, 29), np.float32))
    assert isinstance(obs, np.ndarray) and obs.shape == (2, 160)
    env.close()


def rsl_rl_runner() -> None:
    """`OnPolicyRunner.learn` for two iterations."""
    config = Config("rsl_rl", Path("-"), steps=2 * 24 * 4, num_envs=4)
    env = Episodes(several())
    train_rsl_rl(env, config, 1.0)
    assert env.steps == 2 * 24 * 4


def skrl_wrap_env() -> None:
    """`wrap_env` knows our classes as Gymnasium's by itself."""
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.envs.wrappers.torch.gymnasium_envs import GymnasiumWrapper

    for env in (single(), several()):
        assert isinstance(wrap_env(env, verbose=False), GymnasiumWrapper)


def skrl_trainer() -> None:
    """`SequentialTrainer.train` for two iterations."""
    env = Episodes(several())
    train_skrl(env, Config("skrl", Path("-"), steps=2 * 32 * 4, num_envs=4), 1.0)
    assert env.steps == 2 * 32 * 4


def torchrl_specs() -> None:
    """`check_env_specs` of `GymWrapper`: one robot, several, several that reset when told."""
    from torchrl.envs import GymWrapper, check_env_specs

    for env in (single(), several(), several(autoreset_mode="disabled")):
        check_env_specs(GymWrapper(env))


def torchrl_batched() -> None:
    """A batched roll-out over ends of episodes, whose last observations are the true ones."""
    from torchrl.envs import GymWrapper

    rollout = GymWrapper(several()).rollout(60, break_when_any_done=False)
    done = rollout["next", "done"].squeeze(-1)
    assert done[:, :-1].any(), "no episode ended"
    last, first = rollout["next", "observation"][:, :-1], rollout["observation"][:, 1:]
    same = (last == first).all(-1)
    assert bool((same == ~done[:, :-1]).all()), "a last observation is the next episode's first"


def torchrl_processes() -> None:
    """`GymEnv(..., num_envs=2)`: processes."""
    from torchrl.envs import GymEnv

    env = GymEnv(IMPORTING_ID, num_envs=2, motion="walk", preset="laptop")
    assert env.rollout(40, break_when_any_done=False).batch_size == (2, 40)
    env.close()


def torchrl_ppo() -> None:
    """A `Collector`'s samples through `ClipPPOLoss`, one step of the optimizer."""
    import torch
    from tensordict.nn import NormalParamExtractor, TensorDictModule
    from torch import nn
    from torchrl.collectors import Collector
    from torchrl.envs import GymWrapper
    from torchrl.modules import ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    torch.manual_seed(0)
    net = TensorDictModule(
        nn.Sequential(nn.Linear(160, 32), nn.Tanh(), nn.Linear(32, 58), NormalParamExtractor()),
        in_keys=["observation"], out_keys=["loc", "scale"],
    )  # fmt: skip
    actor = ProbabilisticActor(
        net, in_keys=["loc", "scale"], distribution_class=torch.distributions.Normal,
        return_log_prob=True,
    )  # fmt: skip
    critic = ValueOperator(nn.Sequential(nn.Linear(160, 32), nn.Tanh(), nn.Linear(32, 1)))
    collector = Collector(GymWrapper(several()), actor, frames_per_batch=128, total_frames=128)
    loss_of = ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss_of.parameters(), 1e-3)
    batches = 0
    for batch in collector:
        GAE(gamma=0.99, lmbda=0.95, value_network=critic)(batch)
        losses = loss_of(batch.reshape(-1))
        loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
        loss.backward()
        assert bool(torch.isfinite(loss))
        optimizer.step()
        batches += 1
    collector.shutdown()
    assert batches == 1


def minari_collector() -> None:
    """`DataCollector(record_infos=True)`, and the data set read again."""
    import minari

    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        env = minari.DataCollector(single(), record_infos=True)
        lengths = []
        for seed in range(2):
            env.reset(seed=seed)
            ended, count = False, 0
            while not ended:
                _, _, terminated, truncated, _ = env.step(np.zeros(29, np.float32))
                ended, count = terminated or truncated, count + 1
            lengths.append(count)
        env.create_dataset("bm/walk-v0")
        episodes = list(minari.load_dataset("bm/walk-v0").iterate_episodes())
        env.close()
    for episode, count in zip(episodes, lengths, strict=True):
        assert episode.observations.shape == (count + 1, 160)
        terms = [values for name, values in episode.infos.items() if name.startswith("reward_")]
        total = np.sum([term[1:] for term in terms], axis=0)
        np.testing.assert_allclose(total, episode.rewards, atol=1e-6)  # sums of float32


def cleanrl_script() -> str:
    """The edited script trains for a few iterations and logs its episodes. Its release."""
    done = train_cleanrl(Config("cleanrl", Path("-"), steps=512, num_envs=4), "laptop", 1.0)
    assert done.steps == 512 and done.ended
    return done.version


CHECKS: dict[str, dict[str, Callable[[], str | None]]] = {
    "gymnasium": {
        "check_env": gymnasium_checker,
        "vector wrappers, next_step": gymnasium_vector_wrappers,
        "max_episode_steps": gymnasium_max_episode_steps,
        "pickle in an episode": gymnasium_pickle,
        "AsyncVectorEnv, fork": lambda: gymnasium_async("fork"),
        "AsyncVectorEnv, spawn": lambda: gymnasium_async("spawn"),
    },
    "sb3": {
        "check_env": sb3_checker,
        "SB3VecEnv equals DummyVecEnv": sb3_vec_env,
        "SubprocVecEnv, fork": lambda: sb3_subprocesses("fork"),
        "SubprocVecEnv, spawn": lambda: sb3_subprocesses("spawn"),
    },
    "rsl_rl": {"OnPolicyRunner": rsl_rl_runner},
    "cleanrl": {"three edits": cleanrl_script},
    "skrl": {"wrap_env": skrl_wrap_env, "SequentialTrainer": skrl_trainer},
    "torchrl": {
        "check_env_specs": torchrl_specs,
        "GymWrapper of several": torchrl_batched,
        "GymEnv, num_envs": torchrl_processes,
        "Collector, ClipPPOLoss": torchrl_ppo,
    },
    "minari": {"DataCollector, record_infos": minari_collector},
}


def check(client: str) -> list[dict[str, Any]]:
    """A row for each of the client's checks."""
    rows = []
    for name, promise in CHECKS[client].items():
        start, reason = time.perf_counter(), ""
        release = "not installed" if client == "cleanrl" else version(client)
        try:
            release = promise() or release
        except Exception as error:  # whatever it is, it is the check's result
            reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]
        rows.append(
            {
                "client": client, "version": release, "what": "check", "name": name,
                "passed": not reason, "reason": reason,
                "wall_s": round(time.perf_counter() - start, 2),
            }
        )  # fmt: skip
    return rows


def main(config: Config) -> None:
    """Check or train, and write the rows."""
    if config.threads and config.client in ("sb3", "rsl_rl", "skrl", "torchrl"):
        import torch

        torch.set_num_threads(config.threads)
    rows = check(config.client) if config.train is None else [train(config, config.train)]
    cli.write_json(config.rows, rows)
    print(json.dumps([{k: v for k, v in row.items() if k != "curve"} for row in rows]))


if __name__ == "__main__":
    assert bm_envs  # its import registers the environments
    cli.run(main, Config)
