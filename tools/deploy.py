"""Control a G1 by a policy over Unitree's low-level DDS topics.

    python tools/dds_robot.py --domain 7                # a robot in MuJoCo, in another terminal
    python tools/deploy.py walk --domain 7              # dry run: publishes nothing
    python tools/deploy.py walk --domain 7 --motors
    python tools/deploy.py walk --envelope              # what it holds commands and readings to
    python tools/deploy.py guided_body_pos --task joystick --domain 7 --motors
    python tools/deploy.py walk --stream udp:127.0.0.1:9870 --domain 7 --motors

Without `--motors` it reads states, runs the policy on them and prints what it would ask for, and
publishes nothing. With `--motors` it stands up into the policy's default pose, follows the motion
once and goes over to the standing policy `balance`. Enter, or A on the remote, goes on to the next
motion of `--then`, by way of a balanced stand. It stands until something stops it: Ctrl-C, a closed
terminal or any other signal, the remote's B or select, `--end-s`, or whatever leaves the safety
envelope (`bm_envs/deploy/envelope.py`), which it prints first. Motors are then damped, by a second
process where this one is killed or hangs; a robot that nobody holds sinks to the ground.
`bm_envs/deploy/procedure.py` has the whole as a table.

With `--stream` the motion comes frame by frame from another program (`tools/stream.py` shows one),
and ends where the stream does. It has to come before the robot stands up, and its first second is
examined as a file is.

A guided model does a task of `tools/sim2sim.py` in place of a motion, from where the robot stands;
nobody pushes it here, so walk_perturb is to walk on. A thread of its own plans: the control loop
takes the newest plan there is and waits for none.

Exit status: 0 when it came to its end or was asked to end, 1 when it was stopped for safety, 2 when
it could not begin. Read docs/deployment.md before a real robot is switched on. Nothing here has run
on one yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.deploy import envelope, unitree_topics
from bm_envs.deploy.controller import ActorController, Controller, ControllerConfig, damped
from bm_envs.deploy.envelope import Stream
from bm_envs.deploy.guard import Guard
from bm_envs.deploy.live import LiveConfig, LiveMotion, behind_ms
from bm_envs.deploy.planned import Planned
from bm_envs.deploy.process import Enter, Signals, Voice, open_streams
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.tracker import Tracker
from bm_envs.deploy.wire import Receiver
from bm_envs.errors import ConfigError
from bm_envs.policy import CONTROL_DT, DIFFUSION, check_is_of_g1, kind_of, load_policy
from bm_envs.robots import g1

if TYPE_CHECKING:
    from bm_envs.deploy.unitree import LowState_, Reader, Writer

GLANCE_S = 0.02  # s, the longest wait between two looks at signals and the age of states
DAMP_S = 1.0  # s of damping before it leaves
DAMP_EVERY_S = 0.01


def _settings() -> ControllerConfig:
    return ControllerConfig(state="estimated", stand_s=5.0, end_s=None)


@dataclass(frozen=True)
class Config:
    """Control a G1 by a policy over DDS; a dry run unless --motors is given."""

    policy: Positional[Annotated[str, arg(metavar="POLICY")]]
    """A run directory, an ONNX file, a shipped policy's name, or hub:OWNER/NAME[@REVISION]."""
    motors: Annotated[bool, FlagCreatePairsOff] = False
    """Publish commands. Without this flag nothing is published."""
    interface: str = "lo"
    """Network interface towards the robot; lo: a simulator on this machine."""
    domain: int = 0
    """DDS domain; a robot's is 0."""
    motion: str | None = None
    """Name, file or cut such as 'walk1[5:15]'; none: the one inside the policy, or that it
    names."""
    then: tuple[str, ...] = ()
    """Further motions of the policy, each begun by Enter or by A on the remote."""
    stream: str | None = None
    """Where a reference comes in while the policy runs, udp:HOST:PORT of this machine; none: the
    motion is known."""
    live: LiveConfig = field(default_factory=LiveConfig)
    """How such a stream is played."""
    task: Literal["walk_perturb", "joystick", "waypoint"] | None = None
    """What a guided model is asked for; none: the policy is a tracker."""
    sampler: str = "10"
    """Calls of the network in a plan of a guided model: `full` (20), or a number."""
    seed: int = 0
    """Of a guided model: seed of the goal and of the sampler's noise."""
    controller: Annotated[ControllerConfig, arg(name="")] = field(default_factory=_settings)
    """What the controller does before, after and instead of the motion."""
    clock: Literal["host", "tick"] = "host"
    """Time: this machine's clock, or the tick of the states, in ms, which tools/dds_robot.py sends
    and which lets a simulation run slower or faster than real time."""
    patience_s: float = 10.0
    """Seconds to wait for the robot's first state."""
    lost_s: float = 0.2
    """Seconds without a new state after which motors are damped."""
    envelope: Annotated[bool, FlagCreatePairsOff] = False
    """Print the safety envelope and end."""
    policy_config: Path | None = None
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""
    json: Path | None = None
    """JSON file to write the counts of the run to."""

    def __post_init__(self) -> None:
        if self.controller.state != "estimated":
            raise ConfigError("state is 'true', expected 'estimated': a robot tells no position.")
        if self.then and self.controller.at_end != "balance":
            raise ConfigError(
                f"at_end is '{self.controller.at_end}', expected 'balance' with --then: between "
                "two motions the robot stands."
            )
        for name in ("motion", "then"):
            if self.stream is not None and getattr(self, name):
                raise ConfigError(f"{name} is given with --stream, which is the motion.")
        for name in ("patience_s", "lost_s"):
            if not 0 < getattr(self, name) <= 600:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected more than 0, up to 600 s."
                )
        if self.json is not None and self.json.is_dir():
            raise ConfigError(f"{self.json} is a folder, expected the name of a file for --json.")


@dataclass
class Report:
    """Counts of one run."""

    states: int = 0
    """Number of new states."""
    commands: int = 0
    late_states: int = 0
    """Number of states that were older than the newest."""
    repeated_states: int = 0
    """Number of states that were equal to the newest."""
    broken_states: int = 0
    bounded_steps: int = 0
    """Control steps whose target was held to a bound."""
    late_steps: int = 0
    plans: int = 0
    """Plans of a guided model."""
    plan_p50_ms: float | None = None
    """Median time of a plan, ms."""
    plan_p99_ms: float | None = None
    stream: dict[str, Any] | None = None
    """What became of the samples of a stream."""
    phase: str = "waiting"
    frame: int = 0
    reason: str = ""


def first_state(
    states: Reader, commands: Writer | None, config: Config, guard: Guard | None,
    asked: Callable[[], str], warn: Callable[[str], None],
) -> LowState_:  # fmt: skip
    """Wait for a robot that tells its state and listens; the newest state.

    Raises:
        ConfigError: there is none within `patience_s`, or it is none to be begun with.
    """
    unitree = unitree_topics()
    where = f"(interface {config.interface}, domain {config.domain})"
    message = None
    began = time.monotonic()
    is_announced = False
    while True:
        if asked():
            raise KeyboardInterrupt
        message = states.take(GLANCE_S) or message
        if message is not None:
            if not is_announced:
                is_announced = True
                odd = other_robot(message.mode_machine)
                danger, warning = unitree.motor_trouble(message)
                if commands is not None and (odd or danger):
                    raise ConfigError(f"{odd or danger}; motors stay off.")
                for text in filter(None, (odd, danger, warning)):
                    warn(text)
                if guard is not None:
                    guard.tell(message.mode_machine)
            heard = commands is None or commands.is_heard
            ready = guard is None or (heard and guard.is_ready())
            if heard and ready:
                break
        if time.monotonic() - began > config.patience_s:
            if message is None:
                raise ConfigError(
                    f"No robot: nothing came on {unitree.LOW_STATE_TOPIC} within "
                    f"{config.patience_s:g} s {where}."
                )
            if commands is not None and not commands.is_heard:
                raise ConfigError(
                    f"No robot listens on {unitree.LOW_CMD_TOPIC} within {config.patience_s:g} s, "
                    "though one tells its state."
                )
            raise ConfigError(
                f"The process that guards the motors was not ready within {config.patience_s:g} s."
            )
    if states.heard > 1:
        raise ConfigError(
            f"{states.heard} publishers send {unitree.LOW_STATE_TOPIC}, expected one robot {where}."
        )
    return message


def other_robot(mode_machine: int) -> str:
    """What is odd about the robot's model, or nothing."""
    if mode_machine in envelope.OTHER_ROBOTS:
        return (
            f"mode_machine {mode_machine} is a G1 with {envelope.OTHER_ROBOTS[mode_machine]}, "
            f"expected {envelope.MODE_MACHINE} (29 joints)"
        )
    return ""


def drive(
    controller: ActorController, states: Reader, commands: Writer | None, config: Config, *,
    guard: Guard | None = None, asked: Callable[[], str] = str, say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print, then: Iterable[Tracker] = (),
    entered: Callable[[], bool] = bool,
) -> Report:  # fmt: skip
    """Control until there is nothing left to do.

    Args:
        controller: the controller.
        states: what the robot tells.
        commands: to the motors; None publishes nothing.
        config: settings.
        guard: the process that damps when this one cannot.
        asked: name of a signal that has come, or nothing.
        say: prints a line.
        warn: prints a warning.
        then: what follows when somebody asks for the next motion.
        entered: whether a key has asked for it.
    """
    unitree = unitree_topics()
    report, pressed, following = Report(), False, iter(then)
    controller.envelope.forgiving = commands is None
    controller.envelope.slack = envelope.HOST_SLACK if config.clock == "host" else 0.0
    live = stream_of(controller)
    if live is not None:
        await_stream(live, config, asked)
    message = first_state(states, commands, config, guard, asked, warn)
    mode_machine = message.mode_machine
    say(f"robot found, mode_machine {mode_machine}")
    if mode_machine != envelope.MODE_MACHINE:
        warn(f"mode_machine is {mode_machine}, of ours it is {envelope.MODE_MACHINE}")
    stream = Stream(lost_s=config.lost_s, by_tick=config.clock == "tick")
    said, warned = -np.inf, ""
    if guard is not None:
        guard.beat()  # the guard watches from its first sign of life on
    try:
        while message is not None:
            kind, trouble = stream.take(
                message.tick, time.monotonic(), states.publishers, message.mode_machine
            )
            if trouble:
                controller.stop(trouble)
                break
            if kind == "fresh":
                report.states += 1
                now = stream.time_s
                sensors = unitree.from_low_state(message, now)
                if live is not None and controller.phase != "run":
                    live.waits_for()  # takes what comes, so that the newest is there to begin with
                before, pressed = pressed, sensors.next
                if (entered() or (pressed and not before)) and (more := next(following, None)):
                    controller.play(more)
                    say(f"next: {more.motion.name}")
                command = controller.step(sensors)
                danger, warning = unitree.motor_trouble(message)
                if danger and commands is not None:
                    controller.stop(danger)
                # A command that was computed from an old state is not sent.
                if trouble := stream.suspended(time.monotonic()):
                    controller.stop(trouble)
                if warning and warning != warned:
                    warned = warning
                    warn(warning)
                if controller.phase in ("done", "damping"):
                    break
                if commands is not None:
                    commands.write(unitree.to_low_cmd(command, mode_machine))
                    report.commands += 1
                if now - said >= 1:
                    said = now
                    say(describe(controller, command.joint_pos, sensors.joint_pos))
            message = next_state(controller, states, stream, guard, asked)
    except KeyboardInterrupt:
        controller.stop("interrupted")
    except ConnectionError as error:
        controller.stop(f"commands cannot be sent ({error})")
    finally:
        if commands is not None:
            damp(commands, mode_machine, guard)
        report.late_states, report.repeated_states = stream.overtaken, stream.repeated
        report.broken_states = states.broken
        report.bounded_steps, report.late_steps = controller.envelope.bounded, controller.late
        if isinstance(controller.actor, Planned) and (took := controller.actor.took_s):
            report.plans = len(took)
            report.plan_p50_ms, report.plan_p99_ms = (
                float(1e3 * np.percentile(took, share)) for share in (50, 99)
            )
        if live is not None:
            report.stream = stream_figures(live)
        report.phase, report.frame, report.reason = (
            controller.phase, controller.frame, controller.reason,
        )  # fmt: skip
    return report


def stream_of(controller: ActorController) -> LiveMotion | None:
    """The stream that is followed, or None."""
    motion = controller.actor.motion if isinstance(controller.actor, Tracker) else None
    return motion if isinstance(motion, LiveMotion) else None


def await_stream(live: LiveMotion, config: Config, asked: Callable[[], str]) -> None:
    """Wait for a stream that can be begun with.

    Raises:
        ConfigError: there is none within `patience_s`, or it is refused.
    """
    began = time.monotonic()
    while missing := live.waits_for():
        if asked():
            raise KeyboardInterrupt
        if time.monotonic() - began > config.patience_s:
            raise ConfigError(
                f"No reference at {config.stream} within {config.patience_s:g} s: it lacks "
                f"{missing}."
            )
        time.sleep(GLANCE_S)


def stream_figures(live: LiveMotion) -> dict[str, Any]:
    """What became of a stream, for the report."""
    counts = dataclasses.asdict(live.counts)
    del counts["behind_s"]
    return counts | behind_ms([live.counts])


def next_state(
    controller: ActorController, states: Reader, stream: Stream, guard: Guard | None,
    asked: Callable[[], str],
) -> LowState_ | None:  # fmt: skip
    """The next state, new or not; None when the controller was stopped instead."""
    while True:
        if asked():
            controller.stop("interrupted")
            return None
        if guard is not None and not guard.beat():
            controller.stop("the process that guards the motors has ended")
            return None
        now = time.monotonic()
        if trouble := stream.age(now):
            controller.stop(trouble)
            return None
        left = stream.fresh_s + stream.lost_s - now
        if (message := states.take(min(GLANCE_S, max(left, 0.0)))) is not None:
            return message


def damp(commands: Writer, mode_machine: int, guard: Guard | None = None) -> None:
    """Damp the motors, whatever happens meanwhile."""
    unitree = unitree_topics()
    message = unitree.to_low_cmd(damped(), mode_machine)
    for _ in range(round(DAMP_S / DAMP_EVERY_S)):
        with contextlib.suppress(Exception):  # the next turn tries again
            commands.write(message)
        if guard is not None:
            guard.beat()
        time.sleep(DAMP_EVERY_S)


def describe(controller: ActorController, target: np.ndarray, joint_pos: np.ndarray) -> str:
    """Print one line."""
    off = np.abs(target - joint_pos)
    worst = int(off.argmax())
    last = controller.actor.steps
    place = f" {min(controller.frame, last)}/{last}" if controller.phase == "run" else ""
    return (
        f"{controller.phase}{place}: largest step asked for {off[worst]:.2f} rad "
        f"({g1.JOINT_NAMES[worst]}), base at {controller.base_pos.round(2).tolist()} m, action in "
        f"{1e3 * controller.actor.action_s:.1f} ms"
    )


def envelope_lines(config: Config) -> list[str]:
    """The safety envelope as text, one line for each quantity."""
    settings = config.controller
    table = envelope.rows(config.lost_s, settings.max_tilt_deg, settings.joint_margin)
    return [
        "safety envelope (quantity: bound; what happens beyond it, within what time):",
        *(f"  {row.quantity}: {row.bound}; {row.reaction}, {row.within}" for row in table),
    ]


def make_tracker(config: Config) -> tuple[ActorController, str, list[Tracker]]:
    """The controller of a tracking policy, what it is to do, and what may follow."""
    policy = load_policy(config.policy, config=config.policy_config)
    check_is_of_g1(policy, "the robot's messages")
    if config.stream is not None:
        motion = LiveMotion(policy, Receiver(config.stream).take, config.live)
        what = f"reference streamed to {config.stream}"
    else:
        motion = Motion(policy, config.motion)
        what = f"motion {motion.name} ({motion.duration_s:.2f} s)"
    then = [Tracker(policy, name, lead=config.controller.lead) for name in config.then]
    controller = Controller(policy, motion, config.controller)
    # The first call of a network takes longer than any other.
    policy(np.zeros((1, policy.spec.observation_size), np.float32))
    return controller, f"policy {policy.name}, {what}", then


def make_planned(config: Config) -> tuple[ActorController, str, list[Tracker]]:
    """The controller of a guided model, what it is to do, and that nothing follows."""
    # Only a guided model uses code of the environments: states in its frames, costs, figures.
    from bm_envs.diffusion.controller import method_of
    from bm_envs.diffusion.errands import errand
    from bm_envs.diffusion.model import load_model
    from bm_envs.diffusion.robot_planner import RobotPlanner

    if config.task is None:
        raise ConfigError(
            f"{config.policy} is a guided model, which has no motion: name a task, --task "
            "walk_perturb | joystick | waypoint."
        )
    for flag in ("motion", "policy_config", "then", "stream"):
        if getattr(config, flag):
            raise ConfigError(f"{flag} is given, but a guided model takes none.")
    model, method = load_model(config.policy), method_of(config.sampler)
    asked = errand(config.task, config.seed)
    actor = Planned(RobotPlanner(model, asked, seed=config.seed, method=method))
    controller = ActorController(actor, config.controller)
    told = f"model {model.name}, task {config.task} ({actor.steps * CONTROL_DT:.2f} s)"
    return controller, told, []


def main(config: Config) -> int:
    """Control the robot; 1 if it was stopped for safety."""
    guided = kind_of(config.policy) is DIFFUSION
    if config.task is not None and not guided:
        raise ConfigError(
            f"task is '{config.task}', but {config.policy} is no guided model: a tracker follows "
            "its motion."
        )
    if config.envelope and not guided:
        envelope.check_policy(load_policy(config.policy, config=config.policy_config))
    if config.envelope:
        if guided:
            make_planned(dataclasses.replace(config, task=config.task or "joystick"))
        print("\n".join(envelope_lines(config)))
        return 0
    unitree = unitree_topics()
    controller, told, then = make_planned(config) if guided else make_tracker(config)
    bus = unitree.Bus(config.interface, config.domain)
    states = bus.reader(unitree.LOW_STATE_TOPIC)
    commands = bus.writer(unitree.LOW_CMD_TOPIC) if config.motors else None
    what = "MOTORS ON" if config.motors else "dry run, nothing is published"
    say, warnings = Voice(sys.stdout), Voice(sys.stderr)
    guard = None
    with Signals() as signals:
        try:
            for line in envelope_lines(config) if config.motors else ():
                say(line)
            say(f"{told}, interface {config.interface}, domain {config.domain}: {what}")
            if config.motors:
                patience = config.lost_s + envelope.GUARD_S
                guard = Guard(config.interface, config.domain, patience)
            report = drive(
                controller, states, commands, config, guard=guard, asked=lambda: signals.asked,
                say=say, warn=lambda text: warnings(f"warning: {text}"), then=then,
                entered=Enter() if then else bool,
            )  # fmt: skip
        finally:
            if guard is not None:
                guard.dismiss()
            say.close()
            warnings.close()
    if config.json is not None:
        cli.write_json(config.json, dataclasses.asdict(report))
    say = Voice(sys.stdout)
    say(
        f"{report.states} states ({report.late_states} overtaken, {report.repeated_states} "
        f"repeated, {report.broken_states} broken), {report.commands} commands "
        f"({report.bounded_steps} steps bounded), {min(report.frame, controller.actor.steps)} of "
        f"{controller.actor.steps} steps of the {'task' if guided else 'motion'}"
    )
    if (counts := report.stream) is not None:
        say(
            f"stream: {counts['samples']} samples ({counts['late']} late, {counts['repeated']} "
            f"repeated, {sum(counts['refused'].values())} refused), {counts['gaps']} gaps of "
            f"{counts['held_s']:.2f} s in all"
        )
        for why, number in counts["refused"].items():
            say(f"refused {number}: {why}")
    if report.plans:
        say(
            f"{report.plans} plans in {report.plan_p50_ms:.1f} ms (p50), {report.plan_p99_ms:.1f} "
            f"ms (p99); {report.late_steps} control steps were late or had none"
        )
    stopped = bool(report.reason) and report.reason != "interrupted"
    if stopped:
        say(f"stopped: {report.reason}; {'motors damped' if config.motors else 'dry run'}")
    else:
        say("done, motors damped" if config.motors else "done, dry run")
    say.close()
    return int(stopped)


if __name__ == "__main__":
    open_streams()
    cli.run(main, Config)
