"""Guided tasks: one diffusion model, told its task as a cost; and what to compare it with.

    python benchmarks/guided.py --policy guided_body_pos --task joystick --trials 50 --json out.json
    python benchmarks/guided.py --policy runs/body_pos__ddpm_guided__1 --task waypoint --quick
    python benchmarks/guided.py --policy runs/joystick__ppo_guided__1 --task joystick
    python benchmarks/guided.py --policy walks --expert --task joystick
    python benchmarks/guided.py --policy holosoma.onnx --task tour --punches none

    walk_perturb  15 s with a jump of the root's velocity of U[0, 0.5] m/s, in any horizontal
                  direction, each second; success: upright to the end. Nothing is asked
    joystick      forward, backward, turn left, turn right, 3 s each; success: upright, and each
                  followed (half the speed over its last 1.5 s; 25 of 86 degrees in its sense)
    run           2.0 m/s straight ahead for 15 s; success: upright, and over the last 10 s the mean
                  speed within 15 %
    waypoint      a goal 2 to 5 m away in any direction; success: within 0.3 m of it and slower than
                  0.2 m/s, within 15 s
    obstacle      the same behind 1 to 5 posts; success: there, and none was touched
    composition   a minute: 0.5 m/s for 8 s, stop, 0.3 m/s backward, a left turn of 0.5 rad/s at
                  0.3 m/s, 6 s each, then 34 s for a goal behind posts, drawn from where the robot
                  is then; pushed as in walk_perturb throughout. Success: upright to the end, each
                  command followed (speeds by half, the turn by 50 of 172 degrees; the stop:
                  displaced by 0.15 m/s or less over its last 1.5 s), there, and no post touched.
                  Times count from the first command
    tour          90 s of waypoints with a heading, 5 s each, by a public benchmark's rules
                  (`docs/tour.md`): `--arms moved` by the harness, or `free`; `--punches published`,
                  200 or 100 N, or none. Run ids count from `--seed` on, and name a task each.
                  Its rows are of the kind `tour`; it also takes published velocity policies and a
                  policy of the joystick task

A trial starts in a frame of walks that the model has not seen, and walks for 1 s unguided, which
does not count as time (a fall in it does count). Trial i draws its start, pushes, goal, posts and
the sampler's noise from streams of its own, made of `--seed` and i. So it has the same start,
pushes, goal and posts for every model and setting, however many trials there are (what a robot then
does may differ in last digits with their number: a network may round otherwise in another batch).
All trials are reported, and of a fall its second and how it came (`fall_of`). A success is one by
the strict rule: a pelvis below 0.4 m or a tilt over 60 degrees is a fall, so that a robot which is
still falling when time is up has failed. `successes_head` goes by the paper's rule, the head below
0.2 m. With `--delay 1` an action reaches the robot one control step late, and the one that was
planned for that step is sent; of a model of latents the plan is late, and its decoder answers to
the newest state. `--strength 0` is the control that nothing is asked of.
`--push-speed 1` pushes by up to 1 m/s, and `--commands sideways` asks of the joystick what its own
commands leave out: 0.3 m/s to the left and to the right, and turns on the spot.

Two others run the same trials under the same rules. A policy of `ppo_guided.py`, recognised by its
file, sees the task's observation, command included (`representation` is then "observation"); in the
warm-up its command is zero. And with `--expert` a tracker of stage 1 follows a clip that the
footstep planner makes of exactly the task's commands (`representation` "reference"): a control for
which the whole future is written down. It is pushed as the others are; it starts on its clip, 4 to
5.2 s into a walk at 0.4 to 0.6 m/s, as drawn for the trial, and goes on so where nothing is asked.
A way to a place is not planned ahead, hence no expert for tasks that have one.

`--cost file.py:function` asks for a cost of one's own beside the task (`docs/own_cost.md`); of
walk_perturb it is all that is asked. It runs the file that it names. `--cost-strength 0` watches
the cost's value and asks for nothing.

Rows are `{policy, task, representation, backend, trials, successes, success_rate, ci95, ...}` with
`mean_*` over trials, `cost` what came of `--cost`, `by_phase` the executed and predicted velocities
(m/s and rad/s, of the robot's own axes) of each thing that is asked, and the list `each` of all
trials. A phase also has its `halves`: in the first half of a command the robot changes from what it
did before, and what is judged lies in the second. A `segment_value` is in m/s, of a command that
turns in rad.

Source: arXiv 2508.08241, sec. V and table III; thresholds that it leaves open are those of
`bm_envs/tasks/guided/config.py`.

One file because one command runs all tasks; the tour's runs are in
`bm_envs/diffusion/tour_trials.py`.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tqdm import tqdm
from tyro.conf import FlagCreatePairsOff

from bm_envs import cli
from bm_envs.backends.base import full_state
from bm_envs.diffusion.box import Box
from bm_envs.diffusion.controller import Controller, Method, method_of
from bm_envs.diffusion.model import GuidedModel, load_model
from bm_envs.diffusion.steering import Pilot, Steering, steering_for
from bm_envs.diffusion.task_policy import GuidedPolicy, load_guided_policy
from bm_envs.diffusion.tour_trials import (
    WALKS,
    Arms,
    ObservingDriver,
    Punches,
    VelocityDriver,
    limits_of,
    run_tour,
    tour_config,
    tour_row,
)
from bm_envs.diffusion.trials import START_MOTIONS, WARM_UP_S, seeds_of
from bm_envs.diffusion.user_costs import (
    COST_STRENGTH,
    OwnCost,
    check_cost_strength,
    load_cost,
)
from bm_envs.envs import GuidedVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.evaluation import in_project_order, protocol_task
from bm_envs.motion.clip import Clip
from bm_envs.motion.procedural import Command, Gait, clip_from_plan, plan_walk
from bm_envs.policy import DIFFUSION, TRACKER, Policy, check_is_of_g1, kind_of, load_policy
from bm_envs.policy.velocity import VelocityPolicy, is_velocity_policy, load_velocity_policy
from bm_envs.results import write_result
from bm_envs.statistics import wilson
from bm_envs.tasks.guided.base import GuidedTask
from bm_envs.tasks.guided.config import (
    CommandedConfig,
    GuidedConfig,
    WaypointConfig,
    config_class,
    control_steps,
)
from bm_envs.tasks.guided.observations import TERMS
from bm_envs.tasks.guided.robots import PELVIS_HEIGHT, TILT
from bm_envs.tasks.guided.tour import TourTask
from bm_envs.tasks.guided.walk_perturb import PushedTask
from bm_envs.tasks.track.config import CONTROL_DT, ActuationConfig
from bm_envs.tasks.track.task import TrackTask

Task = Literal["walk_perturb", "joystick", "run", "waypoint", "obstacle", "composition", "tour"]
# m/s forward, m/s and rad/s to the left, in place of the joystick's own commands.
SIDEWAYS_COMMANDS = ((0.0, 0.3, 0.0), (0.0, -0.3, 0.0), (0.0, 0.0, 0.5), (0.0, 0.0, -0.5))
OTHERS = (GuidedPolicy, Policy, VelocityPolicy)  # than guided models
Runnable = GuidedModel | GuidedPolicy | Policy | VelocityPolicy


@dataclass(frozen=True)
class Config:
    """Which model is to do what."""

    policy: str
    """A run directory, an ONNX file, a shipped model's name, or hub:OWNER/NAME[@REVISION]. It holds
    a diffusion model, or a policy of the task from `ppo_guided.py`; with --expert a tracker."""
    task: Task
    """What it is to do."""
    trials: int = 50
    """Robots, one trial each."""
    json: Path | None = None
    """Result file to write."""
    quick: Annotated[bool, FlagCreatePairsOff] = False
    """At most 8 trials, of composition and tour 2, minutes on two cores; not for publication."""
    expert: Annotated[bool, FlagCreatePairsOff] = False
    """The policy is a tracker, which follows a clip made of the task's commands."""
    seed: int = 0
    """Of starts, noise, pushes, goals and obstacles; of the tour the first run id. Settings were
    chosen on seeds from 1000 on."""
    sampler: str = "full"
    """`full` (20 calls a control step), `rolling` (15), or a number of DDIM calls."""
    delay: Literal[0, 1, 2] = 0
    """Control steps that an action takes to arrive."""
    push_speed: float | None = None
    """Largest push of walk_perturb and composition, m/s; none: their own, 0.5."""
    commands: Literal["own", "sideways"] = "own"
    """Of the joystick: its own, or steps to the left and to the right and turns on the spot."""
    strength: float | None = None
    """Strength of guidance, in place of the steering's; 0: none."""
    steering: Steering | None = None
    """How costs pull; by default as chosen for the representation (`diffusion/steering.py`)."""
    cost: str | None = None
    """A cost of one's own, file.py:function or module:function, asked for beside the task. The file
    is run."""
    cost_strength: float = COST_STRENGTH
    """Share of that cost's own step, 0 to 1; 0: its value is only watched."""
    arms: Arms = "moved"
    """Of the tour: the arms' joints are moved by the harness, or free for the policy to move."""
    punches: Punches = "published"
    """Of the tour: up to 500 N as published, 100 to 200 N or 50 to 100 N throughout, or none."""
    backend: str = "mujoco"
    """Physics backend."""
    threads: int = 0
    """Threads of physics and network; 0: all cores this process may use."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"trials is {self.trials}, expected 1 or more.")
        if self.strength is not None and not self.strength >= 0:
            raise ConfigError(f"strength is {self.strength}, expected 0 or more.")
        if self.push_speed is not None:
            if self.task not in ("walk_perturb", "composition"):
                raise ConfigError(
                    f"--push-speed is for tasks with pushes, expected walk_perturb or composition, "
                    f"or none in '{self.task}'."
                )
            if not 0 <= self.push_speed < np.inf:
                raise ConfigError(f"push_speed is {self.push_speed}, expected 0 m/s or more.")
        if self.commands != "own" and self.task != "joystick":
            raise ConfigError(
                f"--commands is of the joystick alone, expected --task joystick, or none in "
                f"'{self.task}'."
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}, expected 0 or more.")
        check_cost_strength(self.cost_strength, self.cost)
        if self.expert and self.task not in ("walk_perturb", "joystick"):
            raise ConfigError(
                f"--expert has no clip to follow in task '{self.task}', expected walk_perturb or "
                "joystick: a way to a place is not planned ahead, and the planner does not run."
            )
        if self.task == "tour":
            for name, asked in (("delay", self.delay), ("cost", self.cost is not None)):
                if asked:
                    raise ConfigError(f"--{name} is not for the tour, expected a task without it.")
        else:
            for name, default in (("arms", "moved"), ("punches", "published")):
                if getattr(self, name) != default:
                    raise ConfigError(
                        f"--{name} is of the tour alone, expected --task tour, or none in "
                        f"'{self.task}'."
                    )
        _ = self.method

    @property
    def method(self) -> Method:
        return method_of(self.sampler)

    def steering_for(self, model: GuidedModel) -> Steering:
        """The steering with everything filled in."""
        return steering_for(model, self.steering, self.strength)


@dataclass
class Trials:
    """What N robots did, `[N]` each if nothing else is said."""

    figures: dict[str, np.ndarray]
    """`GuidedTask.figures` at the end."""
    down_s: np.ndarray
    """Time of a fall by the strict criterion, s; below 0 in the warm-up, infinite without one."""
    speed: np.ndarray
    """Mean horizontal speed of the root until then, m/s."""
    executed: np.ndarray
    """`[N, 3]`, mean velocity forward and left and mean turning rate, of the robot's own axes."""
    predicted: np.ndarray
    """`[N, 3]`, means of the same over the futures that were predicted; NaN where none was."""
    by_phase: dict[str, np.ndarray]
    """Executed and predicted `[2, N, 3]` of each of the `phases_of` the task."""
    halves: dict[str, np.ndarray]
    """The same of the first and the second half of its time, `[2, 2, N, 3]`."""
    falls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """`fall_of` of each that fell, by its trial."""
    tick_ms: list[float] = field(default_factory=list)
    """Wall time of the controller, all robots together."""
    box: Box | None = None
    """Of a guided model: what guidance moved, and what of it lay outside the data's range."""
    own: OwnCost | None = None
    """What came of a cost of one's own."""


# --- who drives -----------------------------------------------------------------------------------


class Guided:
    """A diffusion model, guided by the task's cost."""

    def __init__(self, model: GuidedModel, env: GuidedVectorEnv, config: Config) -> None:
        noise = seeds_of(config.seed, env.num_envs, "noise")
        self._controller = Controller(model, env.num_envs, seed=noise, method=config.method)
        self._task, self._delay = env.task, config.delay
        self.own: OwnCost | None = None
        if config.cost is not None:
            cost = load_cost(config.cost)
            self.own = OwnCost(cost, model, env.num_envs, config.cost_strength)
        self._pilot = Pilot(env.task, model, config.steering_for(model), self.own)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]`; it looks at the robots' states, not at observations `[N, O]`."""
        self._controller.guide = self._pilot.guide()
        action = self._controller.act(self._task.robots.states(), ahead=self._delay)
        self._pilot.observe(self._controller.sample)
        return action

    def predicted(self) -> np.ndarray:
        """Mean forward, left and yaw rate of the last window's future. `[N, 3]`."""
        return self._pilot.predicted

    @property
    def box(self) -> Box:
        """What guidance moved, and what of it lay outside the data's range."""
        return self._pilot.box


class Observing:
    """A policy of the task, which sees its observation."""

    def __init__(self, policy: GuidedPolicy) -> None:
        self._policy = policy

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]` for observations `[N, O]`."""
        return self._policy(obs)

    def predicted(self) -> float:
        """It predicts nothing."""
        return np.nan


class Tracking(Observing):
    """A tracker on clips made of the task's commands, in the task's own robots.

    The tracking task shares their simulator: it says what the policy sees, and does no step.
    """

    LEAD, STRIDE = 200, 60  # frames that a walk needs to be steady, and of its period
    SPEED = (0.4, 0.6)  # m/s, range of the walk before the commands
    # Twice the change per step of the built-in clips: the commands change at once.
    GAIT = Gait(max_change=(0.5, 0.15, 0.5))

    def __init__(self, policy: Policy, env: GuidedVectorEnv, config: Config) -> None:
        self._act = in_project_order(policy)
        everyone = np.arange(env.num_envs)
        clips, starts = [], []
        for seed in seeds_of(config.seed, env.num_envs, "start"):
            rng = np.random.default_rng(seed)
            starts.append(self.LEAD + int(rng.integers(self.STRIDE)))
            clips.append(self.clip(env.config, starts[-1], rng.uniform(*self.SPEED)))
        self._tracking = TrackTask(clips, protocol_task(policy, "clip"), env.num_envs)
        self._tracking.attach(env.simulator)
        nothing = np.random.default_rng(0)  # is drawn in that protocol
        self._tracking.reset(everyone, nothing, clip_id=everyone, frame=np.array(starts))
        qpos, qvel = full_state(env.simulator)
        env.reset(options={"qpos": qpos, "qvel": qvel})

    @classmethod
    def clip(cls, config: GuidedConfig, start: int, speed: float) -> Clip:
        """A clip that at frame `start` begins the warm-up, walking, and then the task's commands.

        Where nothing is commanded it walks on. It ends a second late, or more.

        Args:
            config: of the task.
            start: control steps, `LEAD` or more.
            speed: of the walk, m/s.
        """
        wanted, seconds = [(speed, 0.0, 0.0)], [config.episode_s]
        if isinstance(config, CommandedConfig):
            seconds = [steps * CONTROL_DT for steps in config.command_steps]
            wanted = [config.commands[i % len(config.commands)] for i in range(len(seconds))]
        seconds[-1] += 1.0
        before = Command(speed, 0.0, 0.0, start * CONTROL_DT + config.warm_up_s)
        commands = [Command(*w, s) for w, s in zip(wanted, seconds, strict=True)]
        return clip_from_plan(config.task, plan_walk([before, *commands], cls.GAIT))

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Raw actions `[N, 29]`; observations are the tracking task's."""
        seen, _ = self._tracking.observe(slice(None), None)
        action = self._act(np.nan_to_num(seen, posinf=0.0, neginf=0.0))
        self._tracking.follow(action)
        return action


def load(config: Config) -> Runnable:
    """What `--policy` names, of the kind that its file says.

    Raises:
        BMError: there is none, or it is for another task.
    """
    threads = config.threads or cli.available_cores()
    if config.expert:
        policy = load_policy(config.policy, threads=threads)
        check_is_of_g1(policy, "the guided tasks")
        return policy
    if is_velocity_policy(config.policy):
        if config.task != "tour":
            raise ConfigError(
                f"{config.policy}: is a velocity policy, which task '{config.task}' does not show "
                "what it observes, expected --task tour."
            )
        return load_velocity_policy(config.policy, threads=threads)
    kind = kind_of(config.policy, expected=DIFFUSION)
    if kind is TRACKER:
        raise ConfigError(f"{config.policy} is a tracker, expected a diffusion model, or --expert.")
    if kind is DIFFUSION:
        return load_model(config.policy, threads=threads)
    policy = load_guided_policy(config.policy, threads=threads)
    if policy.task != config.task and (policy.task, config.task) != ("joystick", "tour"):
        raise ConfigError(
            f"{policy.path}: is a policy of task '{policy.task}', expected one of '{config.task}'."
        )
    return policy


def _actuation(model: Runnable) -> ActuationConfig:
    if isinstance(model, Policy):
        return protocol_task(model, "clip").actuation
    return ActuationConfig(**{name: tuple(values) for name, values in model.drives.items()})


def _action_delay(model: Runnable, config: Config) -> int:
    """Control steps that an action is late. Of a model of latents only its plan is."""
    return 0 if isinstance(model, GuidedModel) and model.decoder else config.delay


def _representation(model: Runnable) -> str:
    if isinstance(model, Policy):
        return "reference"
    if isinstance(model, VelocityPolicy):
        return f"velocity, {model.family}"
    return "observation" if isinstance(model, GuidedPolicy) else model.representation.name


# --- the trials -----------------------------------------------------------------------------------


def run(model: Runnable, config: Config, trials: int, *, label: str = "") -> Trials:
    """Let the model do the task in N robots at once."""
    kind, changed = config_class(config.task), {}
    if config.push_speed is not None:
        changed["push_speed"] = (0.0, config.push_speed)
    if config.commands == "sideways":
        changed["commands"] = SIDEWAYS_COMMANDS
    assert not isinstance(model, VelocityPolicy)  # refused by `load`
    env = GuidedVectorEnv(
        trials, config.task, backend=config.backend, threads=config.threads,
        config=kind(
            fall="head", warm_up_s=WARM_UP_S, start_motions=START_MOTIONS,
            actuation=_actuation(model), action_delay=_action_delay(model, config), **changed,
        ),
        autoreset_mode="disabled",
    )  # fmt: skip
    task = env.task
    obs, _ = env.reset(seed=seeds_of(config.seed, trials, "trial"))
    if isinstance(model, Policy):
        driver = Tracking(model, env, config)
    elif isinstance(model, GuidedPolicy):
        driver = Observing(model)
    else:
        driver = Guided(model, env, config)
    down = np.full(trials, np.inf)
    names, _ = phases_of(task.config)
    edges = halves_of(task.config)
    way, counted = np.zeros(trials), np.zeros((trials, 2 * len(names), 1))
    motion = np.zeros((2, trials, 2 * len(names), 3))  # executed, predicted
    falls: dict[int, dict[str, Any]] = {}
    ticks: list[float] = []
    steps = task.config.warm_up_steps + task.config.episode_steps
    for _ in tqdm(range(steps), desc=label, leave=False, disable=not label):
        tick = time.perf_counter()
        action = driver.act(obs)
        ticks.append(1000 * (time.perf_counter() - tick))
        began = task.clock.copy()
        obs, _, _, _, figures = env.step(action)
        fresh = np.isinf(down) & figures["fell_strict"]
        if isinstance(driver, Guided):
            driver.box.active &= ~fresh
        down[fresh] = (began[fresh] + 1) * CONTROL_DT
        falls |= {int(i): fall_of(task, int(i), figures) for i in np.flatnonzero(fresh)}
        up = np.isinf(down) & (began >= 0)
        way += np.where(up, figures["speed"], 0.0)
        where = np.arange(trials)[up], np.searchsorted(edges, began[up], side="right")
        counted[where] += 1
        motion[0][where] += task.own_motion()[up]
        motion[1][where] += np.broadcast_to(driver.predicted(), (trials, 3))[up]
    figures = task.figures()
    env.close()
    motion = motion.reshape(2, trials, len(names), 2, 3)
    counted = counted.reshape(trials, len(names), 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        executed, predicted = motion.sum((2, 3)) / counted.sum((1, 2))
        speed = way / counted.sum((1, 2, 3))
        phases = np.moveaxis(motion.sum(3) / counted.sum(2), 2, 0)
        halves = np.moveaxis(motion / counted, (2, 3), (0, 1))
    box, own = (driver.box, driver.own) if isinstance(driver, Guided) else (None, None)
    return Trials(
        figures, down, speed, executed, predicted, dict(zip(names, phases, strict=True)),
        dict(zip(names, halves, strict=True)), falls, ticks, box, own,
    )  # fmt: skip


def phases_of(config: GuidedConfig) -> tuple[list[str], np.ndarray]:
    """Names of what is asked, one after another, and the steps at which all but the first begin.

    command 1 and so on, way (to a place), or walk (nothing).
    """
    last = "way" if isinstance(config, WaypointConfig) else "walk"
    if not isinstance(config, CommandedConfig):
        return [last], np.zeros(0, np.int64)
    count = len(config.command_steps) - isinstance(config, WaypointConfig)
    names = [f"command {number + 1}" for number in range(count)]
    return names + [last] * (last == "way"), np.cumsum(config.command_steps)[:-1]


def halves_of(config: GuidedConfig) -> np.ndarray:
    """The steps at which all halves of the phases begin, but the first. `[2 P - 1]`."""
    _, starts = phases_of(config)
    edges = np.array([0, *starts, config.episode_steps])
    middles = (edges[:-1] + edges[1:]) // 2
    return np.sort(np.concatenate([starts, middles]))


def fall_of(task: GuidedTask, robot: int, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """How a robot fell in the step just done, as JSON.

    `by` is what broke the strict criterion: pelvis, tilt (or both), or a robot that diverged.
    `during` is what was asked: the warm-up, or one of `phases_of`.
    Where there are such, `after_push_s` and whether it had `touched` a post.
    """
    done = int(task.clock[robot])  # steps that count, this one included
    by = [
        name
        for name, broken in (
            ("pelvis", figures["pelvis_height"][robot] < PELVIS_HEIGHT),
            ("tilt", figures["tilt"][robot] > TILT),
        )
        if broken
    ]
    names, starts = phases_of(task.config)
    during = names[np.searchsorted(starts, done - 1, side="right")] if done > 0 else "warm-up"
    fall: dict[str, Any] = {"by": " and ".join(by) or "diverged", "during": during}
    if done > 0 and isinstance(task, PushedTask):
        interval = control_steps(task.config.push_interval_s)
        fall["after_push_s"] = round(((done - 1) % interval + 1) * CONTROL_DT, 2)
    if "touched" in figures:
        fall["touched"] = bool(figures["touched"][robot])
    return fall


# Figures of a task that its rows report of every trial.
FIGURES: dict[str, tuple[str, ...]] = {
    "walk_perturb": ("pushes",),
    "joystick": ("segment_value", "segment_passed"),
    "run": ("segment_value", "segment_passed"),
    "waypoint": ("distance", "arrived_s"),
    "obstacle": ("distance", "arrived_s", "least_clearance", "num_obstacles"),
    "composition": (
        "pushes", "segment_value", "segment_passed", "distance", "arrived_s", "least_clearance",
        "touched", "num_obstacles",
    ),
}  # fmt: skip


def row_of(model: Runnable, config: Config, found: Trials) -> dict[str, Any]:
    """The result's row."""
    trials = len(found.down_s)
    figures = found.figures
    # The environment's own success goes by the rule that ends its episodes, here the head's.
    successes, by_head = figures["success_strict"], figures["success"]
    upright = int((~figures["fell_strict"]).sum())
    ticks = np.array(found.tick_ms)
    is_guided = not isinstance(model, OTHERS)
    row: dict[str, Any] = {
        "policy": model.name, "task": config.task, "representation": _representation(model),
        "backend": config.backend, "trials": trials, **_counted("", successes),
        **_counted("_head", by_head),
        "upright_strict": upright, "head_up": int((~figures["fell_head"]).sum()),
        "mean_speed": _mean(found.speed),
        "mean_forward": _mean(found.executed[:, 0]),
        "mean_forward_predicted": _mean(found.predicted[:, 0]),
        "mean_yaw_rate": _mean(found.executed[:, 2]),
        "mean_yaw_rate_predicted": _mean(found.predicted[:, 2]),
        "falls_s": sorted(round(float(t), 2) for t in found.down_s[np.isfinite(found.down_s)]),
        "sampler": config.sampler if is_guided else None, "delay": config.delay,
        **({} if config.push_speed is None else {"push_speed": config.push_speed}),
        **({} if config.commands == "own" else {"commands": config.commands}),
        "steering": _settings(config.steering_for(model)) if is_guided else None,
        **_outside(found.box),
        **({"cost": found.own.row()} if found.own is not None else {}),
        "tick_ms_median": round(float(np.median(ticks)), 2),
        "tick_ms_p95": round(float(np.percentile(ticks, 95)), 2),
    }  # fmt: skip
    row["by_phase"] = [
        {"phase": name, **_velocities(whole), "halves": [*map(_velocities, found.halves[name])]}
        for name, whole in found.by_phase.items()
    ]
    if "segment_passed" in figures:
        row["segments_passed"] = figures["segment_passed"].sum(0).tolist()
        row["mean_segment_value"] = [_mean(v) for v in figures["segment_value"].T]
    if "arrived_s" in figures:
        row["mean_arrived_s"] = _mean(figures["arrived_s"])
        row["mean_distance"] = _mean(figures["distance"])
        row["arrivals"] = int(np.isfinite(figures["arrived_s"]).sum())
    if "touched" in figures:
        row["mean_least_clearance"] = _mean(figures["least_clearance"])
        smallest = float(figures["least_clearance"].min())  # infinite if nobody was on the way
        row["smallest_clearance"] = smallest if np.isfinite(smallest) else None
        row["touched"] = int(figures["touched"].sum())
    costs = found.own.executed() if found.own is not None else None
    row["each"] = [
        {
            "trial": i, "success": bool(successes[i]), "success_head": bool(by_head[i]),
            "down_s": _plain(found.down_s[i]), "fall": found.falls.get(i),
            "speed": _plain(found.speed[i]),
            **({"cost": _plain(costs[i])} if costs is not None else {}),
            **{name: _plain(figures[name][i]) for name in FIGURES[config.task]},
        }
        for i in range(trials)
    ]  # fmt: skip
    return row


def _counted(rule: str, successes: np.ndarray) -> dict[str, Any]:
    """How many succeeded `[N]`, their share and its 95 % interval, under names that end so."""
    count, trials = int(successes.sum()), len(successes)
    return {
        f"successes{rule}": count, f"success_rate{rule}": count / trials,
        f"ci95{rule}": list(wilson(count, trials)),
    }  # fmt: skip


def _velocities(means: np.ndarray) -> dict[str, float | None]:
    """Executed and predicted velocities `[2, N, 3]`, their means over the trials by name."""
    return {
        f"{what}{whose}": _mean(means[one, :, axis])
        for axis, what in ((0, "forward"), (1, "left"), (2, "yaw_rate"))
        for one, whose in enumerate(("", "_predicted"))
    }


def _outside(box: Box | None) -> dict[str, Any]:
    """Shares of guided numbers outside the data's range, of all and of each feature."""
    share = box.share() if box is not None else None
    if box is None or share is None:
        return {"outside_box": None}
    by_feature = {name: round(value, 4) for name, value in box.by_feature().items()}
    return {"outside_box": round(float(share), 4), "outside_box_by_feature": by_feature}


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return round(float(finite.mean()), 5) if finite.size else None


def _settings(steering: Steering) -> dict[str, Any]:
    """The value as JSON has it, which has no infinity."""
    values = dataclasses.asdict(steering)
    return {name: "inf" if value == np.inf else value for name, value in values.items()}


def _plain(value: Any) -> Any:
    """The value as JSON has it: three digits, null where it is not finite."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 3) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def tour(model: Runnable, config: Config, trials: int) -> None:
    """The tour: run it and report."""
    assert not isinstance(model, Policy)  # refused by `Config` and `load`
    if isinstance(model, VelocityPolicy):
        limits = model.limits
    else:
        own = isinstance(model, GuidedPolicy) and model.task == "tour"
        limits = {} if own else WALKS
    settings = tour_config(model.drives, limits, config.arms, config.punches)
    env = GuidedVectorEnv(
        trials, "tour", backend=config.backend, threads=config.threads, config=settings,
        autoreset_mode="disabled",
    )  # fmt: skip
    runs = config.seed + np.arange(trials)
    obs, _ = env.reset(seed=config.seed, options={"run": runs})
    assert isinstance(env.task, TourTask)
    if isinstance(model, VelocityPolicy):
        driver = VelocityDriver(model, env.task)
    elif isinstance(model, GuidedPolicy):
        driver = ObservingDriver(model, sum(term.size for term in TERMS[model.task]))
    else:
        driver = Guided(model, env, config)
    ticks = tqdm(range(settings.episode_steps), desc="tour", leave=False)
    figures = run_tour(env, driver, obs, ticks)
    row = {
        "policy": model.name, "representation": _representation(model), "arms": config.arms,
        "punches": config.punches, "backend": config.backend, **tour_row(figures, env.task),
        "limits": limits_of(settings),
        "sampler": config.sampler if isinstance(model, GuidedModel) else None,
        "steering": _settings(config.steering_for(model)) if isinstance(model, GuidedModel) else {},
    }  # fmt: skip
    env.close()
    low, high = row["survival_ci95"]
    print(
        f"tour, arms {config.arms}, punches {config.punches}: survived {row['survival_s']:.1f} s "
        f"({low:.1f} to {high:.1f}) of {row['episode_s']:g}, completed {row['completed']} of "
        f"{trials}; position off by {row['position_error_m']} m, heading by "
        f"{row['heading_error_rad']} rad"
    )
    for one in row["each"]:
        print(f"  run {one['run']}: {one['survival_s']:.2f} s")
    if config.json is not None:
        result = cli.json_result("tour", seed=config.seed, rows=[row])
        result["settings"] = {"policy_sha256": model.sha256, "quick": config.quick}
        write_result(config.json, result)
        print(f"results in {config.json}")


def main(config: Config) -> None:
    """Run the trials and report."""
    if config.json is not None and config.json.is_dir():
        raise ConfigError(f"{config.json} is a folder, expected the name of a file for --json.")
    model = load(config)
    most = 2 if config.task in ("composition", "tour") else 8
    trials = min(config.trials, most) if config.quick else config.trials
    how = f"sampler {config.sampler}, " * (not isinstance(model, OTHERS))
    print(
        f"model {model.name} ({_representation(model)}), task {config.task}, {trials} trials, "
        f"{how}delay {config.delay}, backend {config.backend}, seed "
        f"{config.seed}{', quick' if config.quick else ''}",
        flush=True,
    )
    if config.task == "tour":
        return tour(model, config, trials)
    if config.cost is not None and isinstance(model, OTHERS):
        raise ConfigError(
            f"cost is '{config.cost}', but {model.name} is no diffusion model, which alone is "
            "steered by costs."
        )
    found = run(model, config, trials, label=config.task)
    row = row_of(model, config, found)
    low, high = row["ci95"]
    print(
        f"{config.task}: {row['successes']} of {trials} ({low:.1%} to {high:.1%}), by the head "
        f"{row['successes_head']}; upright {row['upright_strict']}, speed {row['mean_speed']} m/s"
    )
    if row["outside_box"] is not None:
        print(f"  guided numbers outside the training data's range: {row['outside_box']:.1%}")
    for trial in (one for one in row["each"] if one["fall"]):
        how = ", ".join(f"{name} {value}" for name, value in trial["fall"].items())
        print(f"  trial {trial['trial']} fell at {trial['down_s']} s: {how}")
    for phase in row["by_phase"]:
        first, second = (
            "nobody up"
            if half["forward"] is None
            else f"{half['forward']:.2f} m/s forward, {half['yaw_rate']:.2f} rad/s left"
            for half in phase["halves"]
        )
        print(f"  {phase['phase']}: first half {first}; second half {second}")
    for name in ("segments_passed", "mean_segment_value", "arrivals", "mean_arrived_s", "touched"):
        if name in row:
            print(f"  {name.replace('_', ' ')}: {row[name]}")
    if found.own is not None:
        cost = row["cost"]
        print(
            f"  {found.own.name} at strength {cost['strength']:g}: mean {cost['mean_executed']} "
            f"when executed, {cost['mean_planned']} as planned"
        )
        for name, value in cost["outcome"].items():
            print(f"    {name}: {value}")
        found.own.conclude()
    if config.json is not None:
        result = cli.json_result("guided", seed=config.seed, rows=[row])
        result["settings"] = {"policy_sha256": model.sha256, "quick": config.quick}
        write_result(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
