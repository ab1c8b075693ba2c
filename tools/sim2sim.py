"""Run a policy as a robot would, in MuJoCo, from what its file says of itself.

    python tools/sim2sim.py walk
    python tools/sim2sim.py policy.onnx --physics-hz 2000 --state estimated --noise 1 --trials 10
    python tools/sim2sim.py policy.onnx --command-ms 20 --video out.mp4
    python tools/sim2sim.py guided_body_pos --task joystick --video out.mp4

The robot stands up into the policy's default pose, follows the motion once and is brought to a
stand by the standing policy `balance` (`--at-end`).
Nothing of the training environments runs: the control loop is `bm_envs/deploy/controller.py`, the
robot `bm_envs/deploy/robot.py`, so a mistake made twice is the only one that goes unseen. Unlike in
training, drives are computed at the physics rate, feet are capsules, links collide with each other,
and commands and readings can be late, noisy or replaced by an estimate.

A run is `survived S of T s`, T being the motion's length. It has failed when the pelvis is off its
reference by more than 0.25 m in height or 0.8 in tilt (as in `benchmarks/track.py`), when it is
below 0.4 m before or after the motion, when it does not stand still at the end, or when the
controller stops for safety. Then the exit status is 1. `docs/deployment.md` describes the settings
and what they cost.

A guided model has no motion but a task: those of `benchmarks/guided.py`, from standing, and 3 s of
standing that it is asked for at the end. Its plans are made in a thread of their own. In the
simulation a plan takes `--plan-ms`, however long it takes here, so that equal seeds give equal
runs; how long it took is told beside it, and a robot would do as the simulation where that is less.
It has failed when the pelvis is below 0.4 m or tilted by more than 60 degrees. Whether it did what
it was asked for is told, and is no failure. Costs, steering and states are the environments' code.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import mujoco
import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import rotations as rot
from bm_envs.deploy.controller import ActorController, Controller, ControllerConfig
from bm_envs.deploy.live import Counts, LiveConfig, LiveMotion, behind_ms
from bm_envs.deploy.planned import Planned
from bm_envs.deploy.reference import Alignment, Motion, Reference
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.deploy.streamed import HELD_S, Link, LinkConfig
from bm_envs.errors import ConfigError
from bm_envs.policy import CONTROL_DT, DIFFUSION, Policy, kind_of, load_policy
from bm_envs.results import write_result
from bm_envs.robots import mjcf

if TYPE_CHECKING:
    from bm_envs.diffusion.errands import Errand
    from bm_envs.diffusion.model import GuidedModel
    from bm_envs.viewers import OffscreenRenderer

MAX_HEIGHT, MAX_TILT = 0.25, 0.8  # of the pelvis from its reference: m, projected gravity
LOW = 0.4  # m, pelvis height of a robot that has fallen while it should stand
# Standing still: for the last second the pelvis is within so much of where it is at its end, level,
# higher than this, and tilted by less. Asked for where the standing policy has 3 s or more.
STILL_S, STILL_M, STILL_HEIGHT, STILL_UP, STILL_END_S = 1.0, 0.15, 0.6, 0.94, 3.0
UPRIGHT = 0.5  # cosine of the tilt at which a robot without a reference has fallen
PATH_STEPS = 1500  # control steps of its way that a video shows
LIE_S = 1.5  # s for which a stopped robot is simulated further


@dataclass(frozen=True)
class Config:
    """Run a policy as a robot would, and say whether it survives."""

    policy: Positional[Annotated[str, arg(metavar="POLICY")]]
    """A run directory, an ONNX file, a shipped policy's name, or hub:OWNER/NAME[@REVISION]."""
    motion: str | None = None
    """Name, file or cut such as 'walk1[5:15]'; none: the one inside the policy, or that it
    names."""
    start: Literal["stand", "reference"] = "stand"
    """Stand in the default pose at first, or begin in the motion's first frame with its speed (for
    motions that do not begin standing; there is no standing up then)."""
    task: Literal["walk_perturb", "joystick", "run", "waypoint", "obstacle"] | None = None
    """What a guided model is asked for; none: the policy is a tracker."""
    plan_ms: float = 20.0
    """Time that a plan of a guided model takes, ms of the simulation; 0: none, as in the
    environments."""
    sampler: str = "10"
    """Calls of the network in a plan of a guided model: `full` (20), or a number."""
    robot: Annotated[RobotConfig, arg(name="")] = field(default_factory=RobotConfig)
    """The robot."""
    controller: Annotated[ControllerConfig, arg(name="")] = field(default_factory=ControllerConfig)
    """The controller."""
    streamed: Annotated[bool, FlagCreatePairsOff] = False
    """Send the motion to the policy frame by frame while it runs, over the link below."""
    link: LinkConfig = field(default_factory=LinkConfig)
    """What the link does to the stream."""
    live: LiveConfig = field(default_factory=LiveConfig)
    """How the stream is played."""
    seed: int = 0
    """Seed of the first trial's sensor noise, and of a task's draws; each further trial has the
    next."""
    trials: int = 1
    """Number of runs; a tracker's without noise are all the same."""
    json: Path | None = None
    """File to write figures to."""
    video: Path | None = None
    """MP4 of the first trial, with the reference as a ghost."""
    width: int = 640
    """Width of the video, pixels; even."""
    height: int = 480
    """Height of the video, pixels; even."""
    fps: int = 25
    """Pictures per second of the video, at most 50."""
    fast: Annotated[bool, FlagCreatePairsOff] = False
    """Leave shadows and smooth edges out of the video."""
    policy_config: Path | None = None
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= 10_000:
            raise ConfigError(f"trials is {self.trials}, expected 1 to 10000.")
        if not 0 <= self.plan_ms <= 1000:
            raise ConfigError(f"plan_ms is {self.plan_ms}, expected 0 to 1000 ms.")
        if self.streamed and (self.start != "stand" or self.controller.stand_s < HELD_S):
            raise ConfigError(
                f"a streamed motion begins while the robot stands up: start is '{self.start}', "
                f"expected 'stand', and stand_s is {self.controller.stand_s:g}, expected "
                f"{HELD_S:g} or more."
            )
        if self.controller.end_s is None:
            raise ConfigError("end_s is none, expected seconds: a simulation has to end.")
        if not 1 <= self.fps <= 50:
            raise ConfigError(f"fps is {self.fps}, expected 1 to 50.")
        if self.video is not None and self.video.suffix.lower() != ".mp4":
            raise ConfigError(f"{self.video}: the name of a video must end in .mp4.")
        if self.video is not None and (self.width % 2 or self.height % 2):
            raise ConfigError(
                f"width and height are {self.width} and {self.height}, expected even numbers for a "
                "video."
            )
        for flag, path in (("video", self.video), ("json", self.json)):
            if path is not None and path.is_dir():
                raise ConfigError(f"{path} is a folder, expected the name of a file for --{flag}.")


@dataclass(frozen=True)
class Run:
    """Result of one run."""

    survived_s: float
    """Seconds of the motion before it failed."""
    failure: str
    """Why the run failed, or an empty text."""
    failed_in: str
    """Phase in which it failed: `stand`, `run` or `end`, or an empty text."""
    figures: dict[str, float]
    """Means over the frames of the motion that were survived; empty where there are none."""
    qpos: list[np.ndarray]
    """`[36]` each, the robot at every control step, standing and lying included."""
    ghost: list[np.ndarray | None]
    """`[36]` each, the reference at the same times, in the robot's world; None outside the
    motion."""
    stream: Counts | None = None
    """What became of the samples of a stream."""


class Figures:
    """Errors of the robot, as it truly is, from the reference."""

    def __init__(self, policy: Policy, motion: Reference, model: mujoco.MjModel) -> None:
        spec = policy.spec
        self._motion, self._model, self._data = motion, model, mujoco.MjData(model)
        self._bodies = [model.body(name).id for name in spec.body_names]
        self._anchor = model.body(spec.anchor_body_name).id
        self._to_robot = spec.action_index()
        self._began = np.zeros(3)
        self.rows: list[dict[str, float]] = []

    def begin(self, robot: SimulatedRobot, state: str) -> None:
        """Note where the robot begins: an estimate takes that place for the origin."""
        if state == "estimated":
            self._began = np.append(robot.data.qpos[:2], 0.0)

    def add(self, frame: int, robot: SimulatedRobot, controller: Controller) -> None:
        """Compare with a frame of the motion."""
        data = self._data
        data.qpos[:] = robot.data.qpos
        mujoco.mj_kinematics(self._model, data)
        points = data.xpos[self._bodies]
        alignment = controller.alignment
        world = Alignment(alignment.matrix, alignment.offset + self._began)
        near = Alignment.of(
            data.xpos[self._anchor], data.xmat[self._anchor].reshape(3, 3),
            *self._motion.anchor(frame),
        )  # fmt: skip

        def off(where: Alignment) -> float:
            reference = self._motion.body_pos(frame) @ where.matrix.T + where.offset
            return 1e3 * float(np.linalg.norm(points - reference, axis=1).mean())

        joints = self._motion.joints(frame)[0][self._to_robot]
        self.rows.append({
            "joint_pos_rad": float(np.abs(data.qpos[7:] - joints).mean()),
            "mpkpe_mm": off(world), "r_mpkpe_mm": off(near),
            "base_vel_error_m_s": float(
                np.linalg.norm(controller.base_lin_vel - robot.data.qvel[:3])
            ),
            "base_pos_error_m": float(
                np.linalg.norm(controller.base_pos + self._began - robot.data.qpos[:3])
            ),
            "action_ms": 1e3 * controller.tracker.action_s,
        })  # fmt: skip

    def means(self) -> dict[str, float]:
        if not self.rows:
            return {}
        return {name: float(np.mean([row[name] for row in self.rows])) for name in self.rows[0]}


def run(policy: Policy, motion: Motion, config: Config, seed: int) -> Run:
    """Run one robot, from standing up to the end."""
    robot = SimulatedRobot(config.robot, seed=seed, robot=policy.spec.robot)
    settings = config.controller
    tick = 0
    shown: Reference = motion
    if config.streamed:
        # It has sent its first pose for as long as it has to when the robot has stood up.
        begins = settings.stand_s - HELD_S
        poses = np.array([motion.root(frame)[0] for frame in range(motion.frames)])
        link = Link(poses, config.link, seed, lambda: tick * SENSOR_DT - begins)
        shown = LiveMotion(policy, link.take, config.live)
    if config.start == "reference":
        robot.reset(*motion.root(0))
    else:
        robot.stand(np.array(policy.spec.in_project_order("default_joint_pos")))
    controller = Controller(policy, shown, settings, noise=config.robot.noise)
    figures = Figures(policy, shown, robot.model)
    figures.begin(robot, settings.state)
    qpos: list[np.ndarray] = []
    ghost: list[np.ndarray | None] = []
    failure, failed_in, survived, left = "", "", 0, round(LIE_S / SENSOR_DT)
    every = round(CONTROL_DT / SENSOR_DT)
    while controller.phase != "done" and left > 0:
        phase, frame = controller.phase, controller.frame
        robot.apply(controller.step(robot.sense()))
        acted = controller.frame > frame or controller.phase == "end" != phase
        running = phase == "run" or controller.phase == "run"
        if not failure:
            pelvis = robot.data.qpos[2]
            if controller.reason:
                failure = controller.reason
            elif robot.diverged():
                failure = "the simulation diverged"
            elif running and acted and is_off(robot, shown, frame):
                failure = "off its reference"
            elif not running and pelvis < LOW:
                failure = f"fell (pelvis at {pelvis:.2f} m)"
            if failure:
                failed_in = "run" if running else "end" if frame else "stand"
            elif running and acted and frame:
                survived = frame
                figures.add(frame, robot, controller)
        left -= controller.phase == "damping"
        if tick % every == 0:
            qpos.append(robot.data.qpos.copy())
            ghost.append(aligned_root(controller, shown) if running else None)
        if robot.diverged():
            break
        robot.step()
        tick += 1
    if not failure and controller.balance and (settings.end_s or 0.0) >= STILL_END_S:
        failure = moves(np.array(qpos[-round(STILL_S / CONTROL_DT) :]))
        failed_in = "end" if failure else ""
    means = figures.means()
    if means:
        means["saturated"] = robot.saturated / max(robot.motor_steps, 1)
        means["late"] = controller.late
        means["bounded"] = controller.envelope.bounded  # control steps, standing included
    survived_s, counts = survived * CONTROL_DT, None
    if isinstance(shown, LiveMotion):
        counts = shown.counts
        survived_s = min(max(shown.time_s - HELD_S, 0.0), motion.duration_s)
        if not failure and survived_s < motion.duration_s:
            failure, failed_in = "the stream ended before its motion", "run"
    return Run(survived_s, failure, failed_in, means, qpos, ghost, counts)


def moves(qpos: np.ndarray) -> str:
    """Why a robot does not stand still in these states `[T, 36]`, or nothing."""
    way = np.linalg.norm(qpos[:, :2] - qpos[-1, :2], axis=1).max()
    up = rot.quat_rotate_inverse(qpos[:, 3:7], np.broadcast_to((0.0, 0.0, 1.0), (len(qpos), 3)))
    if qpos[:, 2].min() < STILL_HEIGHT or up[:, 2].min() < STILL_UP:
        return "is not upright at the end"
    if way > STILL_M:
        return f"does not stand still at the end ({way:.2f} m in {STILL_S:g} s)"
    return ""


def is_off(robot: SimulatedRobot, motion: Reference, frame: int) -> bool:
    """The rule of `benchmarks/track.py`; neither height nor tilt depends on the alignment."""
    reference, _ = motion.root(frame)
    down = np.array([0.0, 0.0, -1.0])
    tilt = (
        rot.quat_rotate_inverse(robot.data.qpos[3:7], down)[2]
        - rot.quat_rotate_inverse(reference[3:7], down)[2]
    )
    height = robot.data.qpos[2] - reference[2]
    return not (abs(height) <= MAX_HEIGHT and abs(tilt) <= MAX_TILT)


def aligned_root(controller: Controller, motion: Reference) -> np.ndarray:
    """The reference in the robot's world. `[36]`."""
    qpos, _ = motion.root(controller.frame)
    where = controller.alignment
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, where.matrix.ravel())
    return np.concatenate(
        [where.matrix @ qpos[:3] + where.offset, rot.quat_mul(quat, qpos[3:7]), qpos[7:]]
    )


def describe(result: Run, motion: Motion) -> str:
    """The result in one line."""
    text = f"survived {result.survived_s:.2f} of {motion.duration_s:.2f} s"
    if result.failure:
        where = {"stand": "while standing up", "run": "in the motion", "end": "after the motion"}
        text += f": stopped {where[result.failed_in]}, {result.failure}"
    if result.figures:
        text += (
            f"; joints off by {result.figures['joint_pos_rad']:.4f} rad, MPKPE "
            f"{result.figures['mpkpe_mm']:.0f} mm, R-MPKPE {result.figures['r_mpkpe_mm']:.0f} mm, "
            f"action in {result.figures['action_ms']:.2f} ms"
        )
    if (stream := result.stream) is not None:
        text += f"; stream: {stream.gaps} gaps, {stream.held_s:.2f} s held"
        if (behind := behind_ms([stream])["behind_p50_ms"]) is not None:
            text += f", {behind:.0f} ms behind the newest sample"
    return text


def row_of(config: Config, policy: Policy, motion: Motion, runs: list[Run]) -> dict[str, Any]:
    """A result file's row; errors are means over trials that have any."""
    survived = sum(not result.failure for result in runs)
    names = [result.figures for result in runs if result.figures]
    robot = config.robot
    row: dict[str, Any] = {
        "policy": policy.name, "motion": motion.name, "physics_hz": robot.physics_hz,
        "state": config.controller.state, "command_ms": robot.command_ms,
        "sensor_ms": robot.sensor_ms, "noise": robot.noise, "effort_scale": robot.effort_scale,
        "feet": robot.feet, "self_collision": robot.self_collision, "contact_s": robot.contact_s,
        "friction": robot.friction, "start": config.start, "at_end": config.controller.at_end,
        "end_s": config.controller.end_s, "lead": config.controller.lead,
        "trials": len(runs), "survived": survived,
        "completed": sum(result.failed_in in ("", "end") for result in runs),
        "survived_s": float(np.mean([result.survived_s for result in runs])),
        "clip_s": motion.duration_s,
        "failures": sorted({f"{bad.failed_in}: {bad.failure}" for bad in runs if bad.failure}),
    }  # fmt: skip
    for name in (
        "joint_pos_rad", "mpkpe_mm", "r_mpkpe_mm", "base_vel_error_m_s", "base_pos_error_m",
        "saturated", "bounded", "action_ms",
    ):  # fmt: skip
        row[name] = float(np.mean([figures[name] for figures in names])) if names else None
    if config.streamed:
        streams = [result.stream for result in runs if result.stream is not None]
        row |= {
            "jitter_ms": config.link.jitter_ms, "loss": config.link.loss,
            "cut_s": list(config.link.cut_s) if config.link.cut_s else None,
            "delay_s": config.live.delay_s,
            "gaps": float(np.mean([stream.gaps for stream in streams])),
            "held_s": float(np.mean([stream.held_s for stream in streams])),
            **behind_ms(streams),
        }  # fmt: skip
    return row | {"policy_sha256": policy.sha256, "command": cli.command_line()}


def drawn(config: Config, robot: str = "g1") -> OffscreenRenderer:
    """What draws a video."""
    # Only drawing uses code of the environments, and it comes after the run.
    from bm_envs.viewers import OffscreenRenderer

    model = mjcf.ModelConfig(feet=config.robot.feet, visuals=True, robot=robot)
    return OffscreenRenderer(
        model, width=config.width, height=config.height, smoothing=0.9,
        antialias=not config.fast, shadows=not config.fast,
    )  # fmt: skip


def pictures(result: Run, frames: np.ndarray, config: Config, robot: str) -> Iterator[np.ndarray]:
    """The run at these control steps, drawn, with the reference as a ghost."""
    with drawn(config, robot) as renderer:
        for frame in frames:
            yield renderer.render(result.qpos[frame], result.ghost[frame])


# --- guided models --------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuidedRun:
    """Result of one run of a guided model."""

    survived_s: float
    """Seconds of the task, its last stop included, before it failed."""
    failure: str
    """Why the run failed, or an empty text."""
    failed_in: str
    """Phase in which it failed: `stand`, `run` or `end`, or an empty text."""
    figures: dict[str, Any]
    """What it did of its task, `errands.judged`; empty where it never began."""
    plans_s: list[float]
    """Time of each plan, here, s."""
    ages: list[int]
    """Of each control step, how old the plan that it executed was, control steps."""
    late: int
    """Control steps for which no plan had an action."""
    bounded: int
    """Control steps whose target was held to a bound."""
    qpos: list[np.ndarray]
    """`[36]` each, the robot at every control step, standing and lying included."""
    began: int
    """Which of them is the first of the task."""


def run_guided(model: GuidedModel, task: Errand, config: Config, seed: int) -> GuidedRun:
    """Run one robot of a guided model, from standing up to the end."""
    from bm_envs.diffusion.controller import method_of
    from bm_envs.diffusion.errands import judged
    from bm_envs.diffusion.robot_planner import RobotPlanner

    planner = RobotPlanner(model, task, seed=seed, method=method_of(config.sampler))
    actor = Planned(planner, plan_s=config.plan_ms / 1e3)
    robot = SimulatedRobot(config.robot, seed=seed)
    robot.stand(actor.default_joint_pos)
    controller = ActorController(actor, config.controller, noise=config.robot.noise)
    qpos: list[np.ndarray] = []
    states: list[tuple[np.ndarray, np.ndarray]] = []  # at the control steps of the task
    failure, failed_in, began = "", "", 0
    left, tick, every = round(LIE_S / SENSOR_DT), 0, round(CONTROL_DT / SENSOR_DT)
    while controller.phase != "done" and left > 0:
        phase, frame = controller.phase, controller.frame
        robot.apply(controller.step(robot.sense()))
        running = phase == "run" or controller.phase == "run"
        if running and len(states) <= frame and (controller.frame > frame or actor.is_done):
            began = began if states else len(qpos)
            states.append((robot.data.qpos.copy(), robot.data.qvel.copy()))
            if (jump := task.pushes.get(frame)) is not None and not actor.is_done:
                robot.push(jump)
        if not failure:
            failure = controller.reason or fallen(robot)
            if failure:
                failed_in = "run" if running else "end" if frame else "stand"
        left -= controller.phase == "damping"
        if tick % every == 0:
            qpos.append(robot.data.qpos.copy())
        if robot.diverged():
            break
        robot.step()
        tick += 1
    actor.close()
    steps = actor.steps if failed_in in ("", "end") else min(max(len(states) - 1, 0), actor.steps)
    figures: dict[str, Any] = {}
    if states:
        figures = judged(task, *map(np.array, zip(*states, strict=True)))
        figures["done"] = figures["done"] and not failure
    return GuidedRun(
        steps * CONTROL_DT, failure, failed_in, figures, actor.took_s, actor.ages, controller.late,
        controller.envelope.bounded, qpos, began,
    )  # fmt: skip


def fallen(robot: SimulatedRobot) -> str:
    """Why a robot without a reference has failed, or nothing."""
    if robot.diverged():
        return "the simulation diverged"
    _, x, y, _ = robot.data.qpos[3:7]
    if robot.data.qpos[2] < LOW:
        return f"fell (pelvis at {robot.data.qpos[2]:.2f} m)"
    return "fell (tilted by more than 60 degrees)" if 1 - 2 * (x * x + y * y) < UPRIGHT else ""


def describe_guided(result: GuidedRun, task: Errand) -> str:
    """The result in one line."""
    text = f"survived {result.survived_s:.2f} of {task.all_steps * CONTROL_DT:.2f} s"
    if result.failure:
        where = {"stand": "while standing up", "run": "in the task", "end": "after the task"}
        text += f": stopped {where[result.failed_in]}, {result.failure}"
    figures = result.figures
    if figures:
        text += f"; {figures['speed_m_s']:.2f} m/s"
    if "followed" in figures:
        text += f", {figures['followed']} of {len(task.commands)} commands followed"
    if "distance_m" in figures:
        arrived = figures["arrived_s"]
        when = "not there" if arrived is None else f"there after {arrived:.1f} s"
        text += f", {when}, {figures['distance_m']:.2f} m from the goal at the end"
    if "clearance_m" in figures:
        text += f", {figures['clearance_m']:.2f} m from posts"
    return text


def guided_row(
    config: Config, model: GuidedModel, task: Errand, runs: list[GuidedRun]
) -> dict[str, Any]:
    """A result file's row."""
    robot = config.robot
    plans = 1e3 * np.array([took for result in runs for took in result.plans_s])
    p50, p95, p99 = np.percentile(plans, [50, 95, 99]) if plans.size else (None,) * 3
    return {
        "policy": model.name, "task": task.task, "representation": model.representation.name,
        "physics_hz": robot.physics_hz, "state": config.controller.state,
        "command_ms": robot.command_ms, "sensor_ms": robot.sensor_ms, "noise": robot.noise,
        "effort_scale": robot.effort_scale, "feet": robot.feet, "at_end": config.controller.at_end,
        "sampler": config.sampler, "plan_ms": config.plan_ms,
        "trials": len(runs), "survived": sum(not result.failure for result in runs),
        "survived_s": float(np.mean([result.survived_s for result in runs])),
        "task_s": task.all_steps * CONTROL_DT,
        "done": sum(result.figures.get("done", False) for result in runs),
        "failures": sorted({f"{bad.failed_in}: {bad.failure}" for bad in runs if bad.failure}),
        "plans": int(plans.size), "plan_p50_ms": p50, "plan_p95_ms": p95, "plan_p99_ms": p99,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "late": sum(result.late for result in runs),
        "bounded": sum(result.bounded for result in runs),
        "each": [
            {
                "seed": config.seed + trial, "survived_s": result.survived_s,
                "failure": result.failure, "oldest_plan": max(result.ages, default=None),
                **result.figures,
            }
            for trial, result in enumerate(runs)
        ],
        "policy_sha256": model.sha256, "command": cli.command_line(),
    }  # fmt: skip


def guided_pictures(
    result: GuidedRun, task: Errand, frames: np.ndarray, config: Config
) -> Iterator[np.ndarray]:
    """The run at these control steps, drawn, with the way so far, and goal and posts."""
    from bm_envs.diffusion.errands import decor
    from bm_envs.viewers import Decor

    path = np.array(result.qpos)
    shown = decor(task, path[result.began])
    with drawn(config) as renderer:
        for frame in frames:
            way = path[max(frame - PATH_STEPS, 0) : frame + 1 : 5, :2]
            line = {"path": way} if len(way) > 1 else {}
            yield renderer.render(path[frame], None, Decor(**line, **shown))


def guided_main(config: Config) -> int:
    """Run every trial of a guided model; 1 if one has failed."""
    from bm_envs.diffusion.errands import TASKS, errand
    from bm_envs.diffusion.model import load_model

    if config.task is None:
        raise ConfigError(
            f"{config.policy} is a guided model, which has no motion: name a task, --task "
            f"{' | '.join(TASKS)}."
        )
    for flag, given in (
        ("motion", config.motion is not None), ("start", config.start != "stand"),
        ("streamed", config.streamed),
        ("policy_config", config.policy_config is not None),
    ):  # fmt: skip
        if given:
            raise ConfigError(f"{flag} is given, but a guided model takes none.")
    model = load_model(config.policy)
    robot, seeds = config.robot, range(config.seed, config.seed + config.trials)
    print(
        f"model {model.name} ({model.representation.name}), task {config.task}, sampler "
        f"{config.sampler}, a plan in {config.plan_ms:g} ms, physics {robot.physics_hz} Hz, state "
        f"{config.controller.state}, delay {robot.command_ms:g} ms of commands and "
        f"{robot.sensor_ms:g} ms of readings, noise {robot.noise:g}"
    )
    runs, tasks = [], [errand(config.task, seed) for seed in seeds]
    began = time.perf_counter()
    for seed, task in zip(seeds, tasks, strict=True):
        result = run_guided(model, task, config, seed)
        runs.append(result)
        print(describe_guided(result, task), flush=True)
    row = guided_row(config, model, tasks[0], runs)
    if config.trials > 1:
        print(
            f"{row['survived']} of {config.trials} trials survived, {row['done']} did what was "
            "asked"
        )
    if row["plans"]:
        print(
            f"a plan took {row['plan_p50_ms']:.1f} ms (p50), {row['plan_p99_ms']:.1f} ms (p99); "
            f"{row['late']} control steps had none"
        )
    seconds = sum(len(result.qpos) for result in runs) * CONTROL_DT
    print(f"{seconds / (time.perf_counter() - began):.1f} x real time")
    if config.json is not None:
        write_result(config.json, cli.json_result("sim2sim_guided", seed=config.seed, rows=[row]))
        print(f"figures in {config.json}")
    if config.video is not None:
        frames = video_frames(runs[0].qpos, config.fps)
        made = guided_pictures(runs[0], tasks[0], frames, config)
        cli.write_video(config.video, made, config.fps)
        print(f"video in {config.video} ({len(frames)} pictures)")
    return int(row["survived"] < config.trials)


def video_frames(qpos: list[np.ndarray], fps: int) -> np.ndarray:
    """Which control steps a video shows."""
    times = np.arange(0, len(qpos) * CONTROL_DT, 1 / fps)
    return np.minimum(np.round(times / CONTROL_DT).astype(int), len(qpos) - 1)


def main(config: Config) -> int:
    """Run every trial; 1 if one has failed."""
    if config.video is not None:
        cli.video_package()
    if kind_of(config.policy) is DIFFUSION:
        return guided_main(config)
    if config.task is not None:
        raise ConfigError(
            f"task is '{config.task}', but {config.policy} is no guided model: a tracker follows "
            "its motion."
        )
    if config.start == "reference" and config.controller.stand_s:
        controller = dataclasses.replace(config.controller, stand_s=0.0)
        config = dataclasses.replace(config, controller=controller)
    policy = load_policy(config.policy, config=config.policy_config)
    motion = Motion(policy, config.motion)
    robot = config.robot
    print(
        f"policy {policy.name}, motion {motion.name} ({motion.duration_s:.2f} s), physics "
        f"{robot.physics_hz} Hz, state {config.controller.state}, delay {robot.command_ms:g} ms of "
        f"commands and {robot.sensor_ms:g} ms of readings, noise {robot.noise:g}"
    )
    runs = []
    began = time.perf_counter()
    for trial in range(config.trials):
        result = run(policy, motion, config, config.seed + trial)
        runs.append(result)
        print(describe(result, motion), flush=True)
    survived = sum(not result.failure for result in runs)
    if config.trials > 1:
        print(f"{survived} of {config.trials} trials survived")
        completed = sum(result.failed_in in ("", "end") for result in runs)
        if completed < config.trials:
            print(f"{completed} completed the motion")
    seconds = sum(len(result.qpos) for result in runs) * CONTROL_DT
    print(f"{seconds / (time.perf_counter() - began):.1f} x real time")
    if config.json is not None:
        rows = [row_of(config, policy, motion, runs)]
        write_result(config.json, cli.json_result("sim2sim", seed=config.seed, rows=rows))
        print(f"figures in {config.json}")
    if config.video is not None:
        frames = video_frames(runs[0].qpos, config.fps)
        cli.write_video(
            config.video, pictures(runs[0], frames, config, policy.spec.robot.name), config.fps
        )
        print(f"video in {config.video} ({len(frames)} pictures)")
    return int(survived < config.trials)


if __name__ == "__main__":
    cli.run(main, Config)
