"""A G1 in MuJoCo that is spoken to like a real one, over Unitree's low-level DDS topics.

    python tools/dds_robot.py --interface lo --domain 7
    python tools/dds_robot.py --domain 7 --lockstep --drop 0.1 --late 0.1 --late-ms 10

It stands in its default pose and hangs there until the first command comes; from then on physics
run, in real time, or with `--lockstep` as fast as a controller answers. A state is sent every 2 ms.
When commands stop for `--watchdog-ms` its motors are damped until they come again. It ends when
they have stopped for `--idle-s`, or with Ctrl-C: exit status 0 if it was upright when motors last
held something, 1 if it had fallen, 2 if no command came at all.

The network's faults can be had on purpose: `--drop` loses a share of the messages in both
directions, `--late` holds a share of the states back by `--late-ms`, so that later ones overtake
them, `--repeat` sends a share of them twice.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from tyro.conf import FlagCreatePairsOff, arg

from bm_envs import cli
from bm_envs.deploy import unitree_topics
from bm_envs.deploy.controller import damped
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.errors import ConfigError
from bm_envs.robots import g1

if TYPE_CHECKING:
    from bm_envs.deploy.unitree import LowState_, Writer

MODE_MACHINE = 5  # value of a G1 with 29 joints
LOW = 0.4  # m, pelvis height of a robot that has fallen
ANSWER_S = 1.0  # s that a robot in lockstep waits for a command


@dataclass(frozen=True)
class Config:
    """A G1 in MuJoCo on Unitree's low-level DDS topics."""

    interface: str = "lo"
    """Network interface; lo stays on this machine."""
    domain: int = 7
    """DDS domain. 0 is that of real robots: not the default, so that nobody talks to the wrong
    one."""
    robot: Annotated[RobotConfig, arg(name="")] = field(default_factory=RobotConfig)
    """The robot."""
    seed: int = 0
    """Seed of sensor noise and of the network's faults."""
    lockstep: Annotated[bool, FlagCreatePairsOff] = False
    """Wait for a command after each state in place of running in real time."""
    drop: float = 0.0
    """Share of states and of commands that is lost."""
    late: float = 0.0
    """Share of states that is held back."""
    repeat: float = 0.0
    """Share of states that is sent twice."""
    late_ms: float = 10.0
    """How late such states are, ms of the simulation."""
    watchdog_ms: float = 100.0
    """Time without commands after which motors are damped, ms of the simulation."""
    patience_s: float = 60.0
    """Seconds to hang and wait for the first command."""
    idle_s: float = 3.0
    """Seconds of the simulation without commands after which it ends."""
    json: Path | None = None
    """JSON file to write the counts of the run to."""

    def __post_init__(self) -> None:
        for name in ("drop", "late", "repeat"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected a share below 1.")
        for name, limit in (
            ("late_ms", 1e4), ("watchdog_ms", 1e4), ("patience_s", 1e5), ("idle_s", 1e5),
        ):  # fmt: skip
            if not 0 < getattr(self, name) <= limit:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected more than 0, up to {limit:g}."
                )


@dataclass
class Report:
    """Counts of one run."""

    states: int = 0
    commands: int = 0
    dropped: int = 0
    held_back: int = 0
    repeated: int = 0
    broken_commands: int = 0
    damped: int = 0
    """Times that the watchdog damped the motors."""
    seconds: float = 0.0
    upright: bool = True
    """Whether it was when motors last held something."""


class States:
    """Sends states, some of them not at all and some late."""

    def __init__(self, writer: Writer, config: Config, rng: np.random.Generator) -> None:
        self._writer, self._config, self._rng = writer, config, rng
        self._held: deque[tuple[float, LowState_]] = deque()

    def send(self, message: LowState_, now: float, report: Report) -> bool:
        """Send a state, and those that were held back until now; whether this one went out."""
        while self._held and self._held[0][0] <= now:
            self._writer.write(self._held.popleft()[1])
        if self._rng.random() < self._config.drop:
            report.dropped += 1
            return False
        if self._rng.random() < self._config.late:
            self._held.append((now + self._config.late_ms / 1e3, message))
            report.held_back += 1
            return False
        self._writer.write(message)
        if self._config.repeat and self._rng.random() < self._config.repeat:
            self._writer.write(message)
            report.repeated += 1
        report.states += 1
        return True


def serve(robot: SimulatedRobot, unitree: Any, bus: Any, config: Config) -> Report:
    """Be the robot until nobody commands it any more."""
    rng = np.random.default_rng([config.seed, 1])
    commands = bus.reader(unitree.LOW_CMD_TOPIC)
    states = States(bus.writer(unitree.LOW_STATE_TOPIC), config, rng)
    report = Report()

    waited = time.monotonic()
    hung_s = 0.0  # a robot's clock runs while it hangs, too

    def state() -> LowState_:
        reading = robot.sense()
        reading = dataclasses.replace(reading, time_s=hung_s + reading.time_s)
        return unitree.to_low_state(reading, robot.data.actuator_force, MODE_MACHINE)

    command = None
    robot.hang()
    while command is None:  # no physics
        if time.monotonic() - waited > config.patience_s:
            raise ConfigError(
                f"No controller: nothing came on {unitree.LOW_CMD_TOPIC} within "
                f"{config.patience_s:g} s (interface {config.interface}, domain {config.domain})."
            )
        hung_s = time.monotonic() - waited
        states.send(state(), hung_s, report)
        command = commands.take(SENSOR_DT)
    print("first command: it runs", flush=True)
    last, answers, limp, held = 0.0, True, False, False
    began = time.monotonic()
    try:
        while robot.time_s - last < config.idle_s and not robot.diverged():
            if command is not None and rng.random() < config.drop:
                report.dropped += 1
            elif command is not None:
                asked = unitree.from_low_cmd(command)
                robot.apply(asked)
                report.commands += 1
                last, limp, held = robot.time_s, False, bool(asked.stiffness.any())
            if not limp and robot.time_s - last > config.watchdog_ms / 1e3:
                limp, held = True, False
                report.damped += 1
                robot.apply(damped())
                print(
                    f"{robot.time_s:.2f} s: no command for {config.watchdog_ms:g} ms, "
                    "motors damped",
                    flush=True,
                )
            robot.step()
            if held:
                report.upright = is_upright(robot)
            sent = states.send(state(), hung_s + robot.time_s, report)
            if config.lockstep:
                # A controller that has not answered once is not waited for until it does.
                command = commands.take(ANSWER_S if sent and answers else 0.0)
                answers = command is not None or (answers and not sent)
            else:
                command = commands.take(max(began + robot.time_s - time.monotonic(), 0.0))
                time.sleep(max(began + robot.time_s - time.monotonic(), 0.0))
    except KeyboardInterrupt:
        print("interrupted")
    report.broken_commands = commands.broken
    report.seconds = robot.time_s
    return report


def is_upright(robot: SimulatedRobot) -> bool:
    """Whether the pelvis is high and not tilted by more than 60 degrees."""
    _, x, y, _ = robot.data.qpos[3:7]
    return bool(robot.data.qpos[2] >= LOW and 1 - 2 * (x * x + y * y) >= 0.5)


def main(config: Config) -> int:
    """Serve; 1 if the robot has fallen."""
    unitree = unitree_topics()
    robot = SimulatedRobot(config.robot, seed=config.seed)
    robot.stand(g1.DEFAULT_JOINT_POS)
    bus = unitree.Bus(config.interface, config.domain)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(
        f"the robot hangs and waits for commands: interface {config.interface}, domain "
        f"{config.domain}", flush=True,
    )  # fmt: skip
    report = serve(robot, unitree, bus, config)
    if config.json is not None:
        cli.write_json(config.json, vars(report))
    print(
        f"{report.seconds:.2f} s, {report.states} states, {report.commands} commands, "
        f"{report.dropped} dropped, {report.held_back} held back, {report.broken_commands} broken; "
        f"{'upright' if report.upright else 'fallen'} when motors last held something"
    )
    return int(not report.upright or robot.diverged())


if __name__ == "__main__":
    cli.run(main, Config)
