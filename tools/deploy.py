"""Control a G1 by a policy over Unitree's low-level DDS topics.

    python tools/dds_robot.py --domain 7                # a robot in MuJoCo, in another terminal
    python tools/deploy.py walk --domain 7              # dry run: publishes nothing
    python tools/deploy.py walk --domain 7 --motors

Without `--motors` it reads states, runs the policy on them and prints what it would ask for, and
publishes nothing. With `--motors` it stands up into the policy's default pose, follows the motion
once and returns to standing until something stops it: Ctrl-C, the remote's B or select, `--end-s`,
a tilt, a joint beyond its range, a number that is not finite, or states that no longer come. Motors
are then damped, and so they are when this program fails in any way that it can still notice; a
robot that nobody holds sinks to the ground.

Exit status: 0 when it came to its end, 1 when it was stopped for safety, 2 when it could not begin.
Read docs/deployment.md before a real robot is switched on. Nothing here has run on one yet.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from tyro.conf import FlagCreatePairsOff, Positional, arg

from bm_envs import cli
from bm_envs.deploy import unitree_topics
from bm_envs.deploy.controller import Controller, ControllerConfig, Motion, damped
from bm_envs.errors import ConfigError
from bm_envs.policy import load_policy
from bm_envs.robots import g1

if TYPE_CHECKING:
    from bm_envs.deploy.unitree import Reader, Writer

REORDERED_MS = 1000  # a tick that is smaller by less comes from a message that was overtaken
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
    """Publish commands. Without it nothing is."""
    interface: str = "lo"
    """Network interface towards the robot; lo: a simulator on this machine."""
    domain: int = 0
    """DDS domain; a robot's is 0."""
    motion: str | None = None
    """Name, file or cut such as 'walk1[5:15]'; none: the one inside the policy, or that it
    names."""
    controller: Annotated[ControllerConfig, arg(name="")] = field(default_factory=_settings)
    """What it does before, after and instead of the motion."""
    clock: Literal["host", "tick"] = "host"
    """Time: this machine's clock, or the tick of the states, in ms, which tools/dds_robot.py sends
    and which lets a simulation run slower or faster than real time."""
    patience_s: float = 10.0
    """Seconds to wait for the robot's first state."""
    lost_s: float = 0.2
    """Seconds without a state after which motors are damped."""
    policy_config: Path | None = None
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""
    json: Path | None = None
    """File to write what happened to."""

    def __post_init__(self) -> None:
        if self.controller.state != "estimated":
            raise ConfigError("state is 'true', expected 'estimated': a robot tells no position.")
        for name in ("patience_s", "lost_s"):
            if not 0 < getattr(self, name) <= 600:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected more than 0, up to 600 s."
                )


@dataclass
class Report:
    """What happened."""

    states: int = 0
    commands: int = 0
    late_states: int = 0
    broken_states: int = 0
    phase: str = "waiting"
    frame: int = 0
    reason: str = ""


def drive(
    controller: Controller, states: Reader, commands: Writer | None, config: Config
) -> Report:
    """Control until there is nothing left to do."""
    unitree = unitree_topics()
    report = Report()
    message = states.take(config.patience_s)
    if message is None:
        raise ConfigError(
            f"No robot: nothing came on {unitree.LOW_STATE_TOPIC} within {config.patience_s:g} s "
            f"(interface {config.interface}, domain {config.domain})."
        )
    began = time.monotonic()
    while commands is not None and not commands.is_heard:
        if time.monotonic() - began > config.patience_s:
            raise ConfigError(
                f"No robot listens on {unitree.LOW_CMD_TOPIC} within {config.patience_s:g} s, "
                "though one tells its state."
            )
        message = states.take(0.02) or message
    mode_machine, tick = message.mode_machine, message.tick
    print(f"robot found, mode_machine {mode_machine}", flush=True)
    said = -np.inf
    try:
        while True:
            report.states += 1
            now = message.tick / 1e3 if config.clock == "tick" else time.monotonic()
            sensors = unitree.from_low_state(message, now)
            command = controller.step(sensors)
            if controller.phase in ("done", "damping"):
                break
            if commands is not None:
                commands.write(unitree.to_low_cmd(command, mode_machine))
                report.commands += 1
            if now - said >= 1:
                said = now
                print(describe(controller, command.joint_pos, sensors.joint_pos), flush=True)
            message = None
            silent_from = time.monotonic()
            while message is None:
                left = config.lost_s - (time.monotonic() - silent_from)
                message = states.take(max(left, 0.0))
                if message is None:
                    controller.stop(f"no state came for {config.lost_s:g} s, the robot is gone")
                    break
                if tick - REORDERED_MS < message.tick < tick:
                    report.late_states += 1
                    message = None
            if message is None:
                break
            if message.tick < tick:
                controller.stop("the robot's clock went back, it was restarted")
                break
            tick = message.tick
    except KeyboardInterrupt:
        controller.stop("interrupted")
    finally:
        if commands is not None:
            damp(commands, mode_machine)
        report.broken_states = states.broken
        report.phase, report.frame, report.reason = (
            controller.phase, controller.frame, controller.reason,
        )  # fmt: skip
    return report


def damp(commands: Writer, mode_machine: int) -> None:
    """Let the motors resist and hold nothing."""
    unitree = unitree_topics()
    message = unitree.to_low_cmd(damped(), mode_machine)
    for _ in range(round(DAMP_S / DAMP_EVERY_S)):
        commands.write(message)
        time.sleep(DAMP_EVERY_S)


def describe(controller: Controller, target: np.ndarray, joint_pos: np.ndarray) -> str:
    """One line."""
    off = np.abs(target - joint_pos)
    worst = int(off.argmax())
    last = controller.motion.frames - 1
    place = f" {min(controller.frame, last)}/{last}" if controller.phase == "run" else ""
    return (
        f"{controller.phase}{place}: largest step asked for {off[worst]:.2f} rad "
        f"({g1.JOINT_NAMES[worst]}), base at {controller.base_pos.round(2).tolist()} m, action in "
        f"{1e3 * controller.action_s:.1f} ms"
    )


def main(config: Config) -> int:
    """Control the robot; 1 if it was stopped for safety."""
    unitree = unitree_topics()
    policy = load_policy(config.policy, config=config.policy_config)
    motion = Motion(policy, config.motion)
    controller = Controller(policy, motion, config.controller)
    bus = unitree.Bus(config.interface, config.domain)
    states = bus.reader(unitree.LOW_STATE_TOPIC)
    commands = bus.writer(unitree.LOW_CMD_TOPIC) if config.motors else None
    what = "MOTORS ON" if config.motors else "dry run, nothing is published"
    print(
        f"policy {policy.name}, motion {motion.name} ({motion.duration_s:.2f} s), interface "
        f"{config.interface}, domain {config.domain}: {what}",
        flush=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: motors are damped first
    report = drive(controller, states, commands, config)
    if config.json is not None:
        cli.write_json(config.json, dataclasses.asdict(report))
    print(
        f"{report.states} states ({report.late_states} overtaken, {report.broken_states} broken), "
        f"{report.commands} commands, {min(report.frame, motion.frames - 1)} of "
        f"{motion.frames - 1} steps of the motion"
    )
    if report.reason and report.reason != "interrupted":
        print(f"stopped: {report.reason}; {'motors damped' if config.motors else 'dry run'}")
        return 1
    print("done, motors damped" if config.motors else "done, dry run")
    return 0


if __name__ == "__main__":
    cli.run(main, Config)
