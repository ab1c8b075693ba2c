"""A simulated G1 on ROS, through a rosbridge server: what it does goes out, a joystick comes in.

    ros2 launch rosbridge_server rosbridge_websocket_launch.xml     # or any other rosbridge
    python tools/ros_bridge.py walk --url ws://127.0.0.1:9090
    python tools/ros_bridge.py guided_body_pos --task joystick

It is a client of the server's websocket, so that ROS need not be installed here. Published 50 times
a second of the simulation:

    joint_states             sensor_msgs/JointState     positions, velocities, torques
    base_pose                geometry_msgs/PoseStamped  the pelvis in the frame `world`
    reference/joint_states   sensor_msgs/JointState     the motion, with `--task track`
    reference/base_pose      geometry_msgs/PoseStamped

Taken: `cmd_vel` (geometry_msgs/Twist). With `--task joystick` a diffusion model walks as it asks
(linear.x forward, linear.y to the left, m/s; angular.z to the left, rad/s), held within what the
model was asked for in training, and stands when nothing came for `--command-s`. A tracking policy
follows its motion whatever is asked; it says so once.

`--task track` is the run of `tools/sim2sim.py`. Exit status: 0 at the end, 1 when the robot fell or
the connection was lost, 2 when it could not begin.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from bm_envs import cli  # before MuJoCo, which raises for an unknown MUJOCO_GL

# isort: split
import mujoco
import numpy as np
from tyro.conf import Positional, arg

from bm_envs import rotations as rot
from bm_envs.deploy.controller import Controller, ControllerConfig
from bm_envs.deploy.reference import Motion
from bm_envs.deploy.robot import SENSOR_DT, RobotConfig, SimulatedRobot
from bm_envs.errors import BackendUnavailable, ConfigError
from bm_envs.policy import CONTROL_DT, check_is_of_g1, load_policy
from bm_envs.robots import g1

DAY = 24 * 3600.0  # s
FALLEN = 0.4  # m, pelvis height
COMMAND_LIMIT = 100.0  # m/s, rad/s; larger values are refused, others clipped to the model's range


@dataclass(frozen=True)
class Config:
    """A simulated G1 on ROS, through a rosbridge server."""

    policy: Positional[Annotated[str, arg(metavar="POLICY")]]
    """A tracking policy, or with --task joystick a diffusion model; by run directory, file or
    name."""
    url: str = "ws://127.0.0.1:9090"
    """Address of the rosbridge server."""
    task: Literal["track", "joystick"] = "track"
    """Follow a motion, or walk as `cmd_vel` asks."""
    prefix: str = "/g1"
    """Text before every topic's name."""
    ros: Literal[1, 2] = 2
    """ROS version at the other end of the bridge: types and times are written differently."""
    speed: float = 1.0
    """Speed of the simulation, as a multiple of real time."""
    seconds: float | None = None
    """Seconds of the simulation; none: the motion's duration, and without end for a joystick."""
    connect_s: float = 10.0
    """Seconds to wait for the server."""
    command_s: float = 0.5
    """Seconds after which a command that was not sent again no longer holds."""
    seed: int = 0
    """Seed of the simulation."""
    motion: str | None = None
    """Motion to follow, as in tools/sim2sim.py."""
    robot: Annotated[RobotConfig, arg(name="")] = field(default_factory=RobotConfig)
    """The robot of --task track."""
    controller: Annotated[ControllerConfig, arg(name="")] = field(default_factory=ControllerConfig)
    """The controller of --task track."""
    policy_config: Path | None = None
    """Metadata that the policy file lacks: JSON, keys as in the ONNX metadata, or a deploy.yaml."""

    def __post_init__(self) -> None:
        for name, limit in (("connect_s", 600.0), ("command_s", 600.0), ("speed", 100.0)):
            if not 0 < getattr(self, name) <= limit:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, expected more than 0, up to {limit:g}."
                )
        if self.seconds is not None and not 0 < self.seconds <= DAY:
            raise ConfigError(f"seconds is {self.seconds}, expected more than 0, a day at most.")
        _ = self.address

    @property
    def address(self) -> tuple[str, int, bool]:
        """Host, port, and whether the connection is encrypted."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, None
        if parts is None or parts.scheme not in ("ws", "wss") or not host:
            raise ConfigError(f"url is '{self.url}', expected one such as ws://127.0.0.1:9090.")
        return host, port or 9090, parts.scheme == "wss"


# --- what is simulated ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class State:
    """State of the robot at one time."""

    time_s: float
    qpos: np.ndarray
    """`[36]`."""
    joint_vel: np.ndarray
    """`[29]`, rad/s."""
    effort: np.ndarray | None = None
    """`[29]`, N m."""
    reference: np.ndarray | None = None
    """`[36]`, in the robot's world."""


class Simulation(Protocol):
    """A simulation of one robot."""

    failure: str
    """What went wrong, in words, or an empty text."""

    def tick(self, command: np.ndarray) -> State | None:
        """One control step under a command `[3]`: m/s forward and left, rad/s left. None: over."""
        ...


class Tracked:
    """A tracking policy on the stand-in robot."""

    def __init__(self, config: Config) -> None:
        policy = load_policy(config.policy, config=config.policy_config)
        check_is_of_g1(policy, "this bridge's messages")
        self._motion = Motion(policy, config.motion)
        self._controller = Controller(
            policy, self._motion, config.controller, noise=config.robot.noise
        )
        self._robot = SimulatedRobot(config.robot, seed=config.seed)
        self._robot.stand(np.array(policy.spec.in_project_order("default_joint_pos")))
        self.failure, self._told = "", False

    def tick(self, command: np.ndarray) -> State | None:
        robot, controller = self._robot, self._controller
        if command.any() and not self._told:
            self._told = True
            print("cmd_vel: this policy follows its motion and takes no commands", flush=True)
        for _ in range(round(CONTROL_DT / SENSOR_DT)):
            robot.apply(controller.step(robot.sense()))
            robot.step()
        self.failure = controller.reason
        if controller.phase == "done" or self.failure or robot.diverged():
            return None
        reference = None
        if controller.phase == "run":
            qpos, _ = self._motion.root(controller.frame)
            where, quat = controller.alignment, np.empty(4)
            mujoco.mju_mat2Quat(quat, where.matrix.ravel())
            reference = np.concatenate([
                where.matrix @ qpos[:3] + where.offset, rot.quat_mul(quat, qpos[3:7]), qpos[7:],
            ])  # fmt: skip
        data = robot.data
        return State(
            robot.time_s,
            data.qpos.copy(),
            data.qvel[6:].copy(),
            data.actuator_force.copy(),
            reference,
        )


class Steered:
    """A diffusion model that walks by commands, in the joystick environment."""

    def __init__(self, config: Config) -> None:
        from bm_envs.diffusion.controller import Controller, method_of
        from bm_envs.diffusion.model import load_model
        from bm_envs.diffusion.steering import Pilot, steering_for
        from bm_envs.envs import GuidedVectorEnv
        from bm_envs.tasks.guided.config import JoystickConfig
        from bm_envs.tasks.track.config import ActuationConfig

        model = load_model(config.policy)
        drives: Any = {name: tuple(values) for name, values in model.drives.items()}
        self._env = GuidedVectorEnv(
            1, "joystick", autoreset_mode="disabled", threads=1,
            config=JoystickConfig(
                episode_s=DAY, segment_s=DAY, start_motions=("walk",),
                actuation=ActuationConfig(**drives),
            ),
        )  # fmt: skip
        self._task: Any = self._env.task
        ranges = (
            JoystickConfig.random_forward, JoystickConfig.random_left,
            JoystickConfig.random_yaw_rate,
        )  # fmt: skip
        self._low, self._high = np.array(ranges).T
        # tools/play.py makes ten calls of the network, too.
        self._controller = Controller(model, 1, seed=config.seed, method=method_of("10"))
        self._pilot = Pilot(self._task, model, steering_for(model, None, None))
        self._env.reset(seed=config.seed)
        self._controller.reset(self._task.robots.states())
        self.failure, self._ticks = "", 0

    def tick(self, command: np.ndarray) -> State | None:
        task, sim = self._task, self._task.simulator
        task.set_command(np.clip(command, self._low, self._high))
        self._controller.guide = self._pilot.guide()
        action = self._controller.act(task.robots.states())
        self._pilot.observe(self._controller.sample)
        self._env.step(action)
        self._ticks += 1
        if sim.root_pos[0, 2] < FALLEN or sim.diverged()[0]:
            self.failure = f"fell (pelvis at {sim.root_pos[0, 2]:.2f} m)"
            return None
        qpos = np.concatenate([sim.root_pos[0], sim.root_quat[0], sim.joint_pos[0]]).astype(float)
        return State(self._ticks * CONTROL_DT, qpos, sim.joint_vel[0].astype(float))


# --- ROS ------------------------------------------------------------------------------------------


def twist(message: Any) -> np.ndarray | None:
    """Forward and left in m/s and the turn in rad/s of a Twist; None where it is none. `[3]`.

    Numbers are numbers: neither text, nor true or false, nor any that no float can hold (an integer
    may have a thousand digits in JSON).
    """
    values = []
    for part, axis in (("linear", "x"), ("linear", "y"), ("angular", "z")):
        inner = message.get(part) if isinstance(message, dict) else None
        value = inner.get(axis) if isinstance(inner, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not abs(value) < COMMAND_LIMIT:  # nor is NaN
            return None
        values.append(float(value))
    return np.array(values)


class _Count(logging.Handler):
    """Counts messages in place of logging them."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class Bridge:
    """The connection, its topics and the last command."""

    def __init__(self, config: Config) -> None:
        """Connect.

        Raises:
            BackendUnavailable: the client's package is missing.
            ConfigError: no server answers.
        """
        try:
            import roslibpy
        except ImportError as error:
            raise BackendUnavailable(
                "ROS needs the package roslibpy: pip install 'bm-envs[ros]'."
            ) from error
        # Without this a failed attempt would print a traceback; below it becomes one sentence.
        for name in ("autobahn", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # A message outside the protocol would print one, too; the client ignores such messages.
        self._dropped = _Count()
        client = logging.getLogger("roslibpy")
        client.handlers, client.propagate = [self._dropped], False
        client.setLevel(logging.ERROR)
        self._roslibpy, self._config = roslibpy, config
        host, port, encrypted = config.address
        # Not on Twisted, whose reactor cannot be started a second time.
        self._ros = roslibpy.Ros(host, port, is_secure=encrypted, transport="asyncio")
        try:
            self._ros.run(timeout=math.ceil(config.connect_s))
        except Exception as error:  # of several kinds, by what is wrong
            raise ConfigError(
                f"No rosbridge server answers at {config.url} within {config.connect_s:g} s."
            ) from error
        self._topics = {
            name: roslibpy.Topic(self._ros, f"{config.prefix}/{name}", self._type(kind))
            for name, kind in (
                ("joint_states", "sensor_msgs/JointState"),
                ("base_pose", "geometry_msgs/PoseStamped"),
                ("reference/joint_states", "sensor_msgs/JointState"),
                ("reference/base_pose", "geometry_msgs/PoseStamped"),
            )
        }
        for topic in self._topics.values():
            topic.advertise()
        self._lock = threading.Lock()
        self._command, self._came = np.zeros(3), -math.inf
        self._refused = self._dropped.count = 0
        self._twist = roslibpy.Topic(
            self._ros, f"{config.prefix}/cmd_vel", self._type("geometry_msgs/Twist")
        )
        self._twist.subscribe(self._take)

    @property
    def is_connected(self) -> bool:
        return bool(self._ros.is_connected)

    @property
    def refused(self) -> int:
        """Number of messages that were no commands, or outside the protocol."""
        return self._refused + self._dropped.count

    @property
    def command(self) -> np.ndarray:
        """The present command. `[3]`, m/s forward and left, rad/s left."""
        with self._lock:
            fresh = time.monotonic() - self._came <= self._config.command_s
            return self._command.copy() if fresh else np.zeros(3)

    def publish(self, state: State) -> None:
        """Send the robot's state at one time."""
        self._joints("joint_states", state.time_s, state.qpos[7:], state.joint_vel, state.effort)
        self._pose("base_pose", state.time_s, state.qpos)
        if state.reference is not None:
            self._joints("reference/joint_states", state.time_s, state.reference[7:])
            self._pose("reference/base_pose", state.time_s, state.reference)

    def close(self) -> None:
        """Close the connection."""
        try:
            self._ros.terminate()
        except Exception:  # the connection is gone, and nothing else has to be done
            pass

    def _take(self, message: Any) -> None:
        values = twist(message)
        with self._lock:
            if values is not None:
                self._command, self._came = values, time.monotonic()
            else:
                self._refused += 1

    def _type(self, name: str) -> str:
        package, _, kind = name.partition("/")
        return f"{package}/msg/{kind}" if self._config.ros == 2 else name

    def _header(self, time_s: float) -> dict[str, Any]:
        seconds, rest = divmod(round(time_s * 1e9), 10**9)
        names = ("sec", "nanosec") if self._config.ros == 2 else ("secs", "nsecs")
        return {"stamp": dict(zip(names, (seconds, rest), strict=True)), "frame_id": "world"}

    def _send(self, topic: str, message: dict[str, Any]) -> None:
        self._topics[topic].publish(self._roslibpy.Message(message))

    def _joints(
        self, topic: str, time_s: float, pos: np.ndarray, vel: np.ndarray | None = None,
        effort: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self._send(topic, {
            "header": self._header(time_s), "name": list(g1.JOINT_NAMES), "position": pos.tolist(),
            "velocity": [] if vel is None else vel.tolist(),
            "effort": [] if effort is None else effort.tolist(),
        })  # fmt: skip

    def _pose(self, topic: str, time_s: float, qpos: np.ndarray) -> None:
        x, y, z, qw, qx, qy, qz = qpos[:7].tolist()
        self._send(topic, {
            "header": self._header(time_s),
            "pose": {
                "position": {"x": x, "y": y, "z": z},
                "orientation": {"x": qx, "y": qy, "z": qz, "w": qw},
            },
        })  # fmt: skip


def main(config: Config) -> int:
    """Simulate, and exchange messages."""
    simulation: Simulation = Tracked(config) if config.task == "track" else Steered(config)
    bridge = Bridge(config)
    print(f"connected to {config.url}, topics under {config.prefix}", flush=True)
    began, sent, status = time.monotonic(), 0, 0
    try:
        while (state := simulation.tick(bridge.command)) is not None:
            if not bridge.is_connected:
                print(f"stopped: the connection to {config.url} was lost")
                return 1
            bridge.publish(state)
            sent += 1
            if config.seconds is not None and state.time_s >= config.seconds:
                break
            time.sleep(max(began + state.time_s / config.speed - time.monotonic(), 0.0))
        if simulation.failure:
            print(f"stopped: {simulation.failure}")
            status = 1
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        bridge.close()
    print(f"{sent} states sent, {bridge.refused} messages refused")
    return status


if __name__ == "__main__":
    cli.run(main, Config)
