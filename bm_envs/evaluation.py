"""How far and how well a policy follows motions: which ones, the protocols' task, the loop.

The environment holds one robot per episode, with one clip for all of them or a clip each. A step
ends in a frame that is compared with the reference, or in a failure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium.vector import AutoresetMode

from bm_envs.envs import TrackVectorEnv
from bm_envs.errors import ConfigError, PolicyError
from bm_envs.motion.clip import Clip
from bm_envs.policy import Policy, named_clip, named_motions
from bm_envs.quality import Recorder, Signals
from bm_envs.robots.observation_terms import NO_STATE_ESTIMATION_TERMS, POLICY_TERMS
from bm_envs.tasks.track import terminations, terms
from bm_envs.tasks.track.config import ActuationConfig, SamplingConfig, TrackConfig
from bm_envs.tasks.track.rows import FEET

FALL_HEIGHT = 0.3  # m below the reference
ROBUST = 0.95  # share of `robust` episodes from which on a policy is called robust

Actor = Callable[[np.ndarray], np.ndarray]
Rule = Callable[[TrackVectorEnv], np.ndarray]


@dataclass(frozen=True)
class Episodes:
    """What N robots did. `[N]` each."""

    completed: np.ndarray
    """Whether the clip's last frame was reached without a failure, bool."""
    reached: np.ndarray
    """Steps survived: frames before the failure, T - 1 of a completed clip with T frames."""
    compared: np.ndarray
    """Number of frames over which the errors are averaged."""
    returns: np.ndarray
    """Sum of rewards to the episode's end."""
    errors: dict[str, np.ndarray]
    """Means of `TrackTask.tracking_errors` over the compared frames; NaN where there is none."""
    terms: dict[str, np.ndarray]
    """Means of `info["reward_<term>"]` over the compared frames; NaN where there is none."""
    quality: dict[str, np.ndarray]
    """Motion quality by `quality.NAMES` of the frames before the failure; NaN where there is none,
    also with `past_failure`. Empty where it was not asked for."""

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """The robots of all parts, one after another."""

        def joined(kind: str) -> dict[str, np.ndarray]:
            return {
                name: np.concatenate([getattr(part, kind)[name] for part in parts])
                for name in getattr(parts[0], kind)
            }

        counts = ("completed", "reached", "compared", "returns")
        return Episodes(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in counts),
            errors=joined("errors"), terms=joined("terms"), quality=joined("quality"),
        )  # fmt: skip


class _ErrorSums:
    """Sums of tracking errors over the counted frames of N robots.

    Most of what a call of `tracking_errors` takes does not depend on how many states there are, so
    those of few robots are kept for a while and taken together.
    """

    STATES = 128  # of all robots, that are kept

    def __init__(self, num_envs: int) -> None:
        self._steps = max(1, self.STATES // num_envs)
        self._kept: list[tuple[terms.Compared, np.ndarray]] = []
        self._sums: dict[str, np.ndarray] = {}

    def add(self, states: terms.Compared, counted: np.ndarray) -> None:
        """Take the errors of a step's states, of those robots that are `counted [N]`."""
        if self._steps > 1:
            states = terms.Compared(*(np.array(part) for part in states))
        self._kept.append((states, counted))
        if len(self._kept) >= self._steps:
            self._take()

    def totals(self) -> dict[str, np.ndarray]:
        """By name, `[N]` each."""
        self._take()
        return self._sums

    def _take(self) -> None:
        if not self._kept:
            return
        steps = [states for states, _ in self._kept]
        counted = np.stack([who for _, who in self._kept])
        parts = zip(*steps, strict=True)
        errors = terms.tracking_errors(terms.Compared(*map(np.concatenate, parts)))
        for name, values in errors.items():
            shaped = np.where(counted, values.reshape(counted.shape), 0.0)
            self._sums[name] = self._sums.get(name, 0.0) + shaped.sum(0, dtype=np.float64)
        self._kept.clear()


def run_episodes(
    act: Actor, env: TrackVectorEnv, *, seed: int = 0, failed: Rule | None = None,
    past_failure: bool = False, on_frame: Callable[[np.ndarray], None] | None = None,
    judged: bool = False,
) -> Episodes:  # fmt: skip
    """Play one episode in every robot of an environment, from its reset to the last robot's end.

    Args:
        act: observations `[N, O]` to actions `[N, 29]`, both in the project's joint order.
        env: N robots with `autoreset_mode="disabled"`; it stays open.
        seed: seed of the environment's draws.
        failed: a failure rule in place of the environment's own, `[N]` bool: the episode goes on to
            the clip's end, but is not survived past the first frame for which it is true.
        past_failure: whether frames after such a failure count in the errors.
        on_frame: called after the reset and after every step with `[N]` bool, the robots whose
            present state is part of their episode (it has not ended earlier, nor failed now).
        judged: whether motion quality is taken, which costs time that a trainer can do without.

    Raises:
        ConfigError: the environment resets robots by itself.
    """
    if env.autoreset_mode is not AutoresetMode.DISABLED:
        raise ConfigError("An evaluation needs an environment with autoreset_mode='disabled'.")
    running = np.ones(env.num_envs, bool)
    unfailed = np.ones(env.num_envs, bool)
    completed = np.zeros(env.num_envs, bool)
    reached, compared, returns = (np.zeros(env.num_envs) for _ in range(3))
    errors = _ErrorSums(env.num_envs)
    paid: dict[str, np.ndarray] = {}
    dt = env.simulator.config.control_dt
    recorder = Recorder(env.num_envs, dt, env.task.robot) if judged else None
    obs, _ = env.reset(seed=seed)
    if on_frame is not None:
        on_frame(running.copy())
    while running.any():
        # Robots whose episode is over get the action 0. Far from all states of its training, a
        # policy may answer its last action with a larger one, until the simulation diverges.
        obs, reward, terminated, truncated, info = env.step(
            np.where(running[:, None], act(obs), np.float32(0.0))
        )
        present = running & ~terminated
        if failed is not None:
            unfailed &= ~failed(env)
        counted = present if past_failure else present & unfailed
        reached += present & unfailed
        compared += counted
        returns += np.where(running, np.nan_to_num(reward), 0.0)
        errors.add(terms.Compared.of(env.simulator, env.task.reference), counted)
        for key in env.task.reward_names:
            name = key.removeprefix("reward_")
            paid[name] = paid.get(name, 0.0) + np.where(counted, info[key], 0.0)
        if recorder is not None:
            recorder.add(signals_of(env), present & unfailed)
        if on_frame is not None:
            on_frame(present)
        completed |= running & truncated & unfailed
        running &= ~(terminated | truncated)
    with np.errstate(invalid="ignore"):
        means = [
            {name: total / compared for name, total in sums.items()}
            for sums in (errors.totals(), paid)
        ]
    return Episodes(
        completed, reached, compared, returns, errors=means[0], terms=means[1],
        quality={} if recorder is None else recorder.figures(),
    )  # fmt: skip


def signals_of(env: TrackVectorEnv) -> Signals:
    """What motion quality is judged by, of the present states.

    Forces are those of the last physics step. Torques are what the drives ask for at the end of the
    control step, `stiffness (target - joint_pos) - damping joint_vel`.
    """
    sim, task = env.simulator, env.task
    stiffness, damping = sim.config.stiffness, sim.config.damping
    feet = list(FEET)
    soles = task.tables.sole_points @ sim.body_axes[:, feet]
    soles += sim.body_pos[:, feet, None]
    torque = task.joint_targets() - sim.joint_pos
    torque *= task.robot.stiffness if stiffness is None else stiffness
    torque -= sim.joint_vel * np.float32(task.robot.damping if damping is None else damping)
    return Signals(soles, sim.contact_force[:, -2:], task.action, sim.joint_vel, torque)


def has_fallen(env: TrackVectorEnv) -> np.ndarray:
    """Whether the root is more than `FALL_HEIGHT` below the reference's. `[N]`."""
    drop = env.task.reference.body_pos[:, 0, 2] - env.simulator.root_pos[:, 2]
    return drop > FALL_HEIGHT


def pelvis_is_off(env: TrackVectorEnv) -> np.ndarray:
    """The protocols' failure rule for an environment that goes on after it. `[N]`."""
    sim, reference, config = env.simulator, env.task.reference, env.config
    return terminations.height_off(
        sim.root_pos, reference.body_pos[:, 0], config.failure_height
    ) | terminations.tilt_off(sim.root_quat, reference.body_quat[:, 0], config.failure_tilt)


def base_state(terms: Collection[str]) -> Literal["true", "none"]:
    """What the protocols show a policy of its base's place and linear velocity.

    Args:
        terms: names of its observation's terms.

    Returns:
        `true`, as the simulation has it, or `none` where no term tells either.
    """
    of_the_base = {*POLICY_TERMS} - {*NO_STATE_ESTIMATION_TERMS}
    return "true" if of_the_base & {*terms} else "none"


def protocol_task(
    policy: Policy, protocol: str, *, feet: Literal["spheres", "capsules"] = "spheres",
    lead: int = 1, failure_rules: bool = True,
) -> TrackConfig:  # fmt: skip
    """The task of a protocol with the policy's observation terms and drives.

    Args:
        policy: the policy.
        protocol: `clip`, `clip-perturbed` or `robust`.
        feet: shape of the robot's feet.
        lead: frames by which the reference that the policy sees is ahead of the robot.
        failure_rules: False leaves them off.

    Raises:
        PolicyError: the policy's anchor is not the task's.
    """
    spec = policy.spec
    if spec.anchor_body_name != spec.robot.anchor_body:
        raise PolicyError(
            f"{policy.path}: its anchor is '{spec.anchor_body_name}', expected "
            f"'{spec.robot.anchor_body}'."
        )
    preset = TrackConfig.preset(protocol)
    return dataclasses.replace(
        preset,
        observations=spec.observation_names,
        actuation=ActuationConfig(
            default_joint_pos=spec.in_project_order("default_joint_pos"),
            action_scale=spec.in_project_order("action_scale"),
            stiffness=spec.in_project_order("joint_stiffness"),
            damping=spec.in_project_order("joint_damping"),
        ),
        lead=lead,
        failure=preset.failure if failure_rules else "none",
        model=dataclasses.replace(preset.model, feet=feet, robot=spec.robot.name),
    )


def in_project_order(policy: Policy) -> Actor:
    """The policy as a function of observations and actions in the project's joint order."""
    to_policy, to_project = policy.spec.observation_index(), policy.spec.action_index()
    return lambda obs: policy(obs[:, to_policy])[:, to_project]


def observations(
    policy: Policy, clip: Clip, *, seed: int = 0, robots: int = 16, steps: int = 60
) -> np.ndarray:
    """What a policy observes while it tracks a clip from frames all over it.

    Starts are those of the protocol `clip-perturbed`, about frames that are drawn.

    Args:
        policy: the policy.
        clip: what it tracks.
        seed: of the starts.
        robots: how many start; one that fails starts anew.
        steps: control steps of each.

    Returns:
        `[robots * steps, O]`, in the policy's joint order.
    """
    task = protocol_task(policy, "clip-perturbed")
    task = dataclasses.replace(task, start=SamplingConfig(mode="uniform"))
    env = TrackVectorEnv(robots, clip, config=task, critic="none", threads=1)
    act, to_policy = in_project_order(policy), policy.spec.observation_index()
    seen = []
    try:
        obs, _ = env.reset(seed=seed)
        for _ in range(steps):
            seen.append(obs[:, to_policy])
            obs, *_ = env.step(act(obs))
    finally:
        env.close()
    return np.concatenate(seen)


def motions_of(policy: Policy) -> list[Clip]:
    """The motions a policy was made for: the one inside it, or those that its description names.

    Raises:
        PolicyError: the policy names none, or a clip of that name has another content.
    """
    if policy.motion is not None:
        return [policy.embedded_clip()]
    named = named_motions(policy)
    if not named:
        raise PolicyError(f"{policy.path}: holds and names no motion; give --motion.")
    return [named_clip(policy, entry) for entry in named]
