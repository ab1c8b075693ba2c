"""Roll out trackers for stage 2: noisy states, and the clean actions that bring them back.

    python algos/collect_rollouts.py --policy runs/walks --out runs/rollouts
    python algos/collect_rollouts.py --policy walk back.onnx --episodes 4096 --out runs/rollouts

An episode starts at a drawn frame of a clip with stage 1's start noise and a robot drawn anew
(friction, centre of mass, joint offsets, action delay). The expert acts, noise is added to what it
says, and the state, what the expert said and what was sent are recorded. After `--steps` noise and
pushes stop; an episode is accepted when the expert then keeps the robot up for `--verify` steps
more, or to the clip's end. So every recorded action led back to the motion.

Of a policy of `dagger_vae.py` the latents are recorded, too, and its decoder is put beside them.
The expert sees the robot without sensor noise, and its own last action as it was sent. Shard i is
drawn from `(seed, i)` alone: a run that was cut short goes on with the next shard, to the same
files. `bm_envs/diffusion/rollouts.py` has the format.

Source: arXiv 2508.08241, sec. IV and VI (noise on actions, clean actions as labels, delay); the
figures of noise from the names of the authors' data files and, for Ornstein-Uhlenbeck noise, from
the paper's version 4; shares, pushes and verification are ours.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from bm_envs import cli, evaluation
from bm_envs.backends.base import full_state
from bm_envs.diffusion import rollouts
from bm_envs.diffusion.rollouts import Rollouts
from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import BMError, ConfigError
from bm_envs.learning import checks
from bm_envs.learning.folder import claim_folder
from bm_envs.motion import library
from bm_envs.motion.clip import Clip
from bm_envs.policy import Policy, check_is_of_g1, load_policy
from bm_envs.policy.latent import LatentPolicy, latent_from_policy
from bm_envs.robots import g1
from bm_envs.rotations import quat_conj, quat_mul, quat_rotate, quat_rotate_inverse, yaw_quat
from bm_envs.tasks.guided.config import GuidedConfig
from bm_envs.tasks.guided.starts import moving_frames
from bm_envs.tasks.guided.states import states_of, yaw_frames
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig

# Standard deviation of the noise by what a joint's name holds, raw action; other joints: `OTHERS`.
# Source: `noise-0.05_hip-0.2_knee-0.3_ankle-0.4` in the names of the prototype's data files.
NOISE_STD = {"hip": 0.2, "knee": 0.3, "ankle": 0.4}
OTHERS = 0.05
# Ornstein-Uhlenbeck: x <- (1 - theta) x + sigma xi. Source: arXiv 2508.08241v4.
OU_THETA, OU_SIGMA = 0.8, 0.1


@dataclass(frozen=True)
class Config:
    """What to collect."""

    policy: tuple[str, ...]
    """Experts: run directories, ONNX files or names of shipped policies; shards take turns."""
    out: Path
    """Folder of shards and manifest; a run that stopped there goes on."""
    motion: tuple[str, ...] = ()
    """Clips for every expert; none: those each was trained on."""
    episodes: int = 2048
    """Episodes to try, rounded up to whole shards."""
    num_envs: int = 512
    """Robots side by side: the episodes of a shard."""
    seed: int = 0
    """Seed of everything."""
    steps: int = 125
    """Recorded control steps of an episode (2.5 s)."""
    warm_up: int = 10
    """Steps before, unrecorded."""
    verify: int = 125
    """Steps without noise or pushes that an accepted episode must survive afterwards."""
    noise: Literal["white", "ou"] = "white"
    """`white`: anew each step, by joint. `ou`: Ornstein-Uhlenbeck, all joints alike."""
    noise_scale: float = 0.5
    """Factor of the noise; each episode draws its own share of it in [0, 1]. The expert sees its
    last action as it was sent and answers to its noise; a model, which is not shown it, cannot."""
    quiet: float = 0.3
    """Share of episodes without noise."""
    pushed: float = 0.5
    """Share of episodes with a push each second."""
    push_speed: float = 0.5
    """Largest jump of the root's horizontal velocity by a push, m/s, in any direction."""
    other_starts: float = 0.0
    """Share of episodes that start in a frame of `start_motions`, beside that frame of the clip in
    which legs and velocity are most alike. A model that starts there learns the way into its own
    gait."""
    start_motions: tuple[str, ...] = ("walk_on_0[0:60]", "walk_on_1[0:60]")
    """Motions of other starts; frames in which the robot is on its way."""
    action_delay: int = 1
    """Control steps that actions take at most; every episode draws its own, 0 included."""
    backend: str = "mujoco"
    """Physics backend."""
    threads: int = 0
    """Physics threads; 0: all cores this process may use."""

    def __post_init__(self) -> None:
        checks.check_at_least_one(self, "episodes", "num_envs", "steps")
        for name in ("warm_up", "verify", "noise_scale", "push_speed", "action_delay"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 0 or more.")
        for name in ("quiet", "pushed", "other_starts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a share, 0 to 1.")

    @property
    def shards(self) -> int:
        return -(-self.episodes // self.num_envs)


@dataclass(frozen=True)
class Expert:
    """A policy with its clips, in an environment."""

    policy: Policy
    clips: list[Clip]
    env: TrackVectorEnv
    first_clip: int
    """Number of its first clip among those of all experts."""
    latents: LatentPolicy | None = None
    """Of a policy of `dagger_vae.py`, whose latents are recorded, too."""


# --- noise ----------------------------------------------------------------------------------------


def noise_std() -> np.ndarray:
    """Standard deviation of white noise on each joint's raw action. `[29]`."""
    return np.array([
        next((std for part, std in NOISE_STD.items() if part in name), OTHERS)
        for name in g1.JOINT_NAMES
    ])  # fmt: skip


def noise_process(
    kind: str, scale: np.ndarray, rng: np.random.Generator
) -> Callable[[], np.ndarray]:
    """A function that gives the noise of one step after another, `[E, 29]`.

    Args:
        kind: `white` or `ou`.
        scale: `[E]`, factor of each episode.
        rng: source of the draws.
    """
    shape, std = (len(scale), g1.NUM_JOINTS), noise_std()
    state = np.zeros(shape)

    def white() -> np.ndarray:
        return scale[:, None] * std * rng.standard_normal(shape)

    def ou() -> np.ndarray:
        nonlocal state
        state = (1 - OU_THETA) * state + OU_SIGMA * rng.standard_normal(shape)
        return scale[:, None] * state

    return white if kind == "white" else ou


# --- one shard ------------------------------------------------------------------------------------


def expert_task(policy: Policy, config: Config) -> TrackConfig:
    """The policy's own task for collecting: stage 1's disturbances less the sensors' noise."""
    task = evaluation.protocol_task(policy, "robust")
    randomize = dataclasses.replace(task.randomize, when="reset", action_delay=config.action_delay)
    return dataclasses.replace(task, noise=False, pushes=False, randomize=randomize)


def collect(expert: Expert, shard: int, config: Config) -> tuple[Rollouts, np.ndarray]:
    """Episodes in all robots, and which of them are accepted, `[E]`."""
    env, task, sim, count = expert.env, expert.env.task, expert.env.simulator, config.num_envs
    act = evaluation.in_project_order(expert.policy)
    rng = np.random.default_rng([config.seed, shard])
    recorded = config.warm_up + config.steps

    frames = task.clip_frames
    starts = np.maximum(frames - 1 - recorded, 0)  # each clip's start frames
    clip = rng.choice(len(frames), count, p=starts / starts.sum())
    frame = (rng.random(count) * starts[clip]).astype(np.int64)
    scale = config.noise_scale * rng.random(count) * (rng.random(count) >= config.quiet)
    is_pushed = rng.random(count) < config.pushed
    push_every = round(1 / CONTROL_DT)
    push_at = rng.integers(0, push_every, count)
    noise = noise_process(config.noise, scale, rng)

    others = np.zeros(0, np.int64)
    if config.other_starts:  # without, draws are as ever
        others = np.flatnonzero(rng.random(count) < config.other_starts)
    if others.size:
        states = other_states(config.start_motions, others.size, rng)
        clip[others], frame[others] = nearest_frames(expert.clips, starts, states, rng)
    obs, _ = env.reset(seed=int(rng.integers(2**31)), options={"clip": clip, "frame": frame})
    if others.size:
        sim.reset(others, *placed(states, *(part[others] for part in full_state(sim))))
        obs, _ = task.observe(slice(None), None)
    names = ["qpos", "qvel", "action", "executed", "pushed"]
    names += ["latent"] if expert.latents else []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    running, failed = np.ones(count, bool), np.zeros(count, bool)
    length = np.full(count, config.steps)
    for t in range(recorded + config.verify):
        # A robot that fell may have diverged; what it does is not kept among the accepted.
        action = executed = np.nan_to_num(act(obs))
        shoved = np.zeros(count, bool)
        if t < recorded:
            executed = (action + noise()).astype(np.float32)
            shoved = is_pushed & (t % push_every == push_at)
            if t >= config.warm_up:
                now = [*full_state(sim), action, executed, shoved]
                if expert.latents:
                    now.append(np.nan_to_num(expert.latents.latent(obs)))
                for column, value in zip(columns.values(), now, strict=True):
                    column.append(value)
            if shoved.any():
                where = np.flatnonzero(shoved)
                sim.push(where, _shove(len(where), config.push_speed, rng), np.zeros((1, 3)))
        obs, _, terminated, truncated, _ = env.step(executed)
        fell = running & terminated
        length[fell] = np.clip(t + 1 - config.warm_up, 0, config.steps)
        failed |= fell
        running &= ~(terminated | truncated)
        if not running.any() and t >= recorded:
            break
    episodes = Rollouts(
        **{name: np.stack(column, 1) for name, column in columns.items()},
        clip=expert.first_clip + clip, frame=frame + config.warm_up,
        noise=scale.astype(np.float32), delay=task.action_delay.copy(),
        joint_offset=task.default_joint_pos - task.nominal_joint_pos, length=length,
    )  # fmt: skip
    return episodes, ~failed


def _shove(count: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """Jumps of velocity in the plane, uniform in size up to `speed` and in direction. `[M, 3]`."""
    size, angle = speed * rng.random(count), 2 * np.pi * rng.random(count)
    return np.stack([size * np.cos(angle), size * np.sin(angle), np.zeros(count)], 1)


# --- other starts ---------------------------------------------------------------------------------

CANDIDATES = 400  # frames that a start is compared with
# Weights of joints' angles, their velocities, and the root's velocity, 1/rad, s/rad, s/m.
ALIKE = (1.0, 0.05, 0.5)
LEGS = [i for i, name in enumerate(g1.JOINT_NAMES) if any(k in name for k in NOISE_STD)]


def other_states(
    motions: tuple[str, ...], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """States `qpos [M, 36]`, `qvel [M, 35]` of drawn frames of motions."""
    qpos, qvel = moving_frames(motions, GuidedConfig().start_travel)
    drawn = rng.integers(len(qpos), size=count)
    return qpos[drawn], qvel[drawn]


def alike(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """What tells how alike two states are, `[..., F]`: legs, and velocity in the heading."""
    velocity = quat_rotate_inverse(yaw_quat(qpos[..., 3:7]), qvel[..., :3])
    angle, speed, root = ALIKE
    parts = angle * qpos[..., 7:][..., LEGS], speed * qvel[..., 6:][..., LEGS], root * velocity
    return np.concatenate(parts, -1)


def nearest_frames(
    clips: list[Clip], starts: np.ndarray, states: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Of `CANDIDATES` frames, drawn for all, the most alike to each state. Clip, frame, `[M]` each.

    Args:
        clips: of the expert.
        starts: `[C]`, how many first frames of each may be a start.
        states: `qpos [M, 36]`, `qvel [M, 35]`.
        rng: source of the draws.
    """
    clip = rng.choice(len(clips), CANDIDATES, p=starts / starts.sum())
    frame = (rng.random(CANDIDATES) * starts[clip]).astype(np.int64)
    rows = [
        np.concatenate([
            clips[c].body_pos_w[f, 0], clips[c].body_quat_w[f, 0], clips[c].joint_pos[f],
            clips[c].body_lin_vel_w[f, 0], clips[c].body_ang_vel_w[f, 0], clips[c].joint_vel[f],
        ])
        for c, f in zip(clip, frame, strict=True)
    ]  # fmt: skip
    qpos, qvel = np.split(np.stack(rows).astype(np.float64), [7 + g1.NUM_JOINTS], axis=1)
    off = alike(*states)[:, None] - alike(qpos, qvel)[None]
    best = (off**2).sum(2).argmin(1)
    return clip[best], frame[best]


def placed(
    states: tuple[np.ndarray, np.ndarray], qpos: np.ndarray, qvel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """States turned and moved to where the robots `qpos [M, 36]` stand and face."""
    pose, speed = (part.copy() for part in states)
    turn = quat_mul(yaw_quat(qpos[:, 3:7]), quat_conj(yaw_quat(pose[:, 3:7])))
    pose[:, :2] = qpos[:, :2]
    pose[:, 3:7] = quat_mul(turn, pose[:, 3:7])
    speed[:, :3] = quat_rotate(turn, speed[:, :3])
    return pose.astype(qpos.dtype), speed.astype(qvel.dtype)


# --- the folder -----------------------------------------------------------------------------------


def write_shard(
    episodes: Rollouts, accepted: np.ndarray, shard: int, folder: Path
) -> dict[str, Any]:
    """Write accepted and failed episodes to a file each; returns the manifest's entry."""
    entry: dict[str, Any] = {}
    for name, which in (("episodes", accepted), ("failed", ~accepted)):
        entry[name] = {"count": int(which.sum())}
        if which.any():
            file = f"{name}-{shard:05d}.npz"
            digest = rollouts.save_shard(episodes[which], folder / file)
            entry[name] |= {"file": file, "sha256": digest}
    return entry


def coverage(episodes: Rollouts) -> dict[str, Any]:
    """How much of which walking the episodes hold: shares of frames by velocity in the yaw frame.

    Edges in m/s and rad/s; the first and last bin hold what is beyond them.
    """
    states = states_of(episodes.qpos, episodes.qvel)
    velocity = yaw_frames(states).of(states.root_lin_vel[..., None, :])[..., 0, :]
    figures = {
        "forward_m_s": (
            velocity[..., 0],
            np.r_[np.arange(-0.6, 1.01, 0.2), np.arange(1.4, 2.61, 0.4)],
        ),
        "left_m_s": (velocity[..., 1], np.arange(-0.6, 0.61, 0.2)),
        "yaw_rad_s": (states.root_ang_vel[..., 2], np.arange(-1.2, 1.21, 0.4)),
    }
    result = {}
    for name, (values, edges) in figures.items():
        counts = np.histogram(values.clip(edges[0], edges[-1]), edges)[0]
        result[name] = {
            "edges": [round(float(edge), 3) for edge in edges],
            "share": [round(float(c), 4) for c in counts / values.size],
        }
    return result


def open_experts(config: Config) -> list[Expert]:
    """Load the policies and make an environment for each."""
    experts: list[Expert] = []
    for name in config.policy:
        policy = load_policy(name)
        check_is_of_g1(policy, "rollouts")
        clips = (
            library.load_motions(config.motion) if config.motion else evaluation.motions_of(policy)
        )
        needed = config.warm_up + config.steps + 2
        for clip in clips:
            if clip.num_frames < needed:
                raise ConfigError(
                    f"Motion '{clip.name}' has {clip.num_frames} frames, expected {needed} or "
                    "more: warm_up + steps + 2."
                )
        if experts and drives_of(policy) != drives_of(experts[0].policy):
            raise ConfigError(
                f"{policy.path}: has other drives than {experts[0].policy.path}, so that the same "
                "action means another torque."
            )
        env = TrackVectorEnv(
            config.num_envs, clips, config=expert_task(policy, config), backend=config.backend,
            autoreset_mode="disabled", critic="none", threads=config.threads,
        )  # fmt: skip
        first = sum(len(e.clips) for e in experts)
        experts.append(Expert(policy, clips, env, first, latent_from_policy(policy.path)))
    if len(experts) > 1 and any(expert.latents for expert in experts):
        raise ConfigError(
            f"policy has {len(experts)} policies, one of latents among them, expected that alone: "
            "a latent means something to its own decoder only."
        )
    return experts


def drives_of(policy: Policy) -> dict[str, list[float]]:
    """Default pose, action scale and gains of a policy, `[29]` each, project order."""
    drive = evaluation.protocol_task(policy, "robust").actuation
    values = dataclasses.asdict(drive)
    return {name: [float(v) for v in value] for name, value in values.items()}


def settings_of(config: Config, experts: list[Expert]) -> dict[str, Any]:
    """All that decides what a shard holds, as JSON."""
    named = ["num_envs", "seed", "steps", "warm_up", "verify", "noise", "noise_scale", "quiet",
             "pushed", "push_speed", "action_delay", "backend"]  # fmt: skip
    if config.other_starts:  # a folder of before goes on
        named += ["other_starts", "start_motions"]
    return {
        "settings": {name: getattr(config, name) for name in named},
        "experts": [
            {"policy": e.policy.name, "sha256": e.policy.sha256, "first_clip": e.first_clip}
            for e in experts
        ],
        "clips": [
            {"name": clip.name, "sha256": clip.sha256(), "licence": clip.licence}
            for e in experts
            for clip in e.clips
        ],
        "joint_names": list(g1.JOINT_NAMES),
        "drives": drives_of(experts[0].policy),
        "control_dt": CONTROL_DT,
    }


def main(config: Config) -> None:
    """Collect the shards that are not there yet."""
    experts = open_experts(config)
    with claim_folder(
        config.out, "--out", (r"dataset", r"decoder", r"episodes-\d+", r"failed-\d+")
    ):
        try:
            fill(config, experts)
        except KeyboardInterrupt as end:
            number = end.signal if isinstance(end, cli.Interrupted) else signal.SIGINT
            kept = f"{config.out} keeps the shards that are whole; the same command goes on"
            raise cli.Interrupted(number, kept) from None


def fill(config: Config, experts: list[Expert]) -> None:
    """Write into the folder what it lacks."""
    manifest: dict[str, Any] = {
        "format": rollouts.FORMAT, **settings_of(config, experts), "shards": [],
    }  # fmt: skip
    path = config.out / rollouts.MANIFEST
    if path.exists():
        old = rollouts.read_manifest(config.out)
        for key in ("settings", "experts", "clips"):
            if old.get(key) != json.loads(json.dumps(manifest[key])):
                raise BMError(f"{path}: was collected with other {key}; choose another --out.")
        manifest = old
        if any(not isinstance(shard.get("expert"), int) for shard in old["shards"]):
            raise BMError(f"{path}: a shard does not tell its expert; choose another --out.")
    print(
        f"{len(experts)} experts, {len(manifest['clips'])} clips, {config.shards} shards of "
        f"{config.num_envs} episodes, backend {config.backend}, seed {config.seed}"
    )
    if (latents := experts[0].latents) is not None:
        manifest["latent"] = rollouts.save_decoder(latents.decoder, config.out)
    present = len(manifest["shards"])
    for shard in tqdm(range(present, config.shards), initial=present, total=config.shards):
        expert = experts[shard % len(experts)]
        entry = write_shard(*collect(expert, shard, config), shard, config.out)
        manifest["shards"].append({"expert": shard % len(experts), **entry})
        manifest |= {
            "state": rollouts.COLLECTING, "planned_shards": config.shards,
            "created": cli.json_result("rollouts", seed=None, rows=[])["created"],
            "command": cli.command_line(), "commit": cli.commit(), "versions": cli.versions(),
            "machine": cli.machine(),
        }  # fmt: skip
        cli.write_json(path, manifest)
    for expert in experts:
        expert.env.close()
    tried = config.num_envs * len(manifest["shards"])
    accepted = sum(shard["episodes"]["count"] for shard in manifest["shards"])
    manifest |= {"accepted": accepted, "tried": tried, "state": rollouts.COMPLETE}
    manifest["planned_shards"] = len(manifest["shards"])
    if accepted:
        manifest["coverage"] = coverage(rollouts.load_rollouts(config.out)[0])
        for name, figure in manifest["coverage"].items():
            cells = [f"{share:.1%} from {edge:g}" for edge, share in
                     zip(figure["edges"], figure["share"], strict=False)]  # fmt: skip
            print(f"{name}: {', '.join(cells)}")
    cli.write_json(path, manifest)
    print(f"accepted {accepted} of {tried} episodes ({1 - accepted / tried:.1%} rejected)")
    print(f"results in {config.out}")
    cli.print_next({"learn": f"python algos/ddpm_guided.py --data {shlex.quote(str(config.out))}"})


if __name__ == "__main__":
    cli.run(main, Config, short_help=True)
