"""tour: walk from waypoint to waypoint while the arms are moved by somebody else, under punches.

Written from facts about rhoyn/teleop-walking-benchmark (README at 0b2ea7a). Another simulator, and
differences that `docs/tour.md` lists: figures are not those of its table.

A run id names a task: `tour_draws.py`. At release, when time begins, the frame of place and heading
is anchored. Order of a step: the command from the true pose and the arms' targets are made before
it, and observed; then a punch that is due, the physics, and the measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.robots import g1, mjcf
from bm_envs.robots.kinematics import link_poses
from bm_envs.rotations import quat_rotate
from bm_envs.tasks.guided import rewards
from bm_envs.tasks.guided.base import GuidedTask, length, turned
from bm_envs.tasks.guided.config import TourConfig
from bm_envs.tasks.guided.robots import drives_of
from bm_envs.tasks.guided.streams import Source, of_robots
from bm_envs.tasks.guided.tour_draws import (
    ARMS,
    LEFT,
    OWNED,
    Words,
    both_arms,
    next_arms,
    punches,
    waypoints,
    wrapped,
)
from bm_envs.tasks.track.config import CONTROL_DT

PELVIS_HEIGHT = 0.2  # m; lower is a fall by the tour's rule
HANGING_HEIGHT = 0.793  # m, of the pelvis on the crane
STANCE = g1.DEFAULT_JOINT_POS
ARM_STEPS = 25  # control steps from one end point of the arms to the next
PUNCH_BEGINS, PUNCH_STEPS = 5, 4  # control steps into a segment, and of a punch
RUNS = 2**31  # run ids are drawn below


class TourTask(GuidedTask):
    """Follow a tour of waypoints. Success: up to the end."""

    config: TourConfig
    options = (*GuidedTask.options, "run")
    STATE = (
        *GuidedTask.STATE, "run", "waypoints", "punch_link", "punch_frame", "punch_direction",
        "punch_share", "_command", "_holds", "_arm_key", "_arm_pos", "_arm_ends", "arm_targets",
        "fell_pelvis", "position_error", "heading_error", "_error", "energy", "vibration",
        "_joint_vel", "_joint_acc",
    )  # fmt: skip

    def __init__(self, config: TourConfig, num_envs: int, **engine: Any) -> None:
        super().__init__(config, num_envs, **engine)
        n, s = num_envs, config.segments
        everyone = np.arange(n)
        self.simulator.randomize(everyone, foot_friction=np.full(n, config.foot_friction))
        self._hanging = hanging(config)
        self.run = np.zeros(n, np.int64)
        self.waypoints = np.zeros((n, s, 3))  # x, y, m, heading, rad; world once time has begun
        self.punch_link, self.punch_frame = np.zeros((2, n, s), np.int64)
        self.punch_direction, self.punch_share = np.zeros((n, s, 3)), np.zeros((n, s))
        self._command = np.zeros((n, 3))
        self._holds = np.zeros((n, 2), bool)  # of velocity and turn: near enough, none is asked
        # The stream of the arms' walk, the end points before and after now, `[N, 2, 7]`.
        self._arm_key, self._arm_pos = np.zeros((n, 624), np.uint32), np.zeros(n, np.int64)
        self._arm_ends = np.zeros((n, 2, 7))
        self.arm_targets = np.zeros((n, 14))  # rad, of the coming step
        self.fell_pelvis = np.zeros(n, bool)
        # At the end of each segment, or at the fall in it; infinite before and after.
        self.position_error, self.heading_error = np.full((2, n, s), np.inf)
        self._error = np.zeros((n, 2))  # m and rad, of the last step
        self.energy, self.vibration = np.zeros(n), np.zeros(n)
        self._joint_vel = np.zeros((n, g1.NUM_JOINTS), np.float32)
        self._joint_acc = np.zeros((n, g1.NUM_JOINTS), np.float32)

    # --- start ---------------------------------------------------------------------------------

    def checked_options(self, asked: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        rows = super().checked_options(asked, count)
        if asked.get("run") is not None:
            run = np.asarray(asked["run"])
            if run.shape not in ((), (count,)) or run.dtype.kind not in "iu" or (run < 0).any():
                raise ConfigError(
                    f"options['run'] is {asked['run']!r}, expected a run id of 0 or more, or "
                    f"{count} of them."
                )
            rows["run"] = np.broadcast_to(run, (count,)).astype(np.int64)
        return rows

    def reset(
        self, env_ids: np.ndarray, rng: Source, *, qpos: np.ndarray | None = None,
        qvel: np.ndarray | None = None, **task_start: np.ndarray,
    ) -> None:  # fmt: skip
        """Start runs `run [M]`, drawn when there is none: hanging from the crane, at rest."""
        if "run" not in task_start:
            draw = of_robots(rng, env_ids)
            task_start["run"] = draw.integers(RUNS, size=len(env_ids))
        if qpos is None:
            qpos, qvel = np.tile(self._hanging, (len(env_ids), 1)), None
        super().reset(env_ids, rng, qpos=qpos, qvel=qvel, **task_start)

    def clear(self, env_ids: np.ndarray, run: np.ndarray | None = None) -> None:
        super().clear(env_ids)
        assert run is not None  # `reset` draws one
        self.run[env_ids] = run
        segments = self.config.segments
        for i, name in zip(env_ids, run, strict=True):
            self.waypoints[i] = waypoints(int(name), segments)
            drawn = punches(int(name), segments)
            self.punch_link[i], self.punch_frame[i] = drawn.link, drawn.frame
            self.punch_direction[i], self.punch_share[i] = drawn.direction, drawn.share
            self._arm_key[i], self._arm_pos[i] = Words(int(name), ARMS).get_state()
        self._arm_ends[env_ids] = STANCE[LEFT]
        self.arm_targets[env_ids] = STANCE[OWNED:]
        self._command[env_ids] = 0.0
        self._holds[env_ids] = self.fell_pelvis[env_ids] = False
        self.position_error[env_ids] = self.heading_error[env_ids] = np.inf
        self._error[env_ids] = 0.0
        self.energy[env_ids] = self.vibration[env_ids] = 0.0
        self._joint_vel[env_ids] = self.simulator.joint_vel[env_ids]
        self._joint_acc[env_ids] = 0.0

    def begin(self, env_ids: np.ndarray, rng: Source) -> None:
        """Anchor the tour where the robots are."""
        super().begin(env_ids, rng)
        heading = self.heading(env_ids)[:, None]
        tour = self.waypoints[env_ids]
        place = self.simulator.root_pos[env_ids, None, :2] + turned(tour[..., :2], heading)
        self.waypoints[env_ids] = np.concatenate(
            [place, wrapped(tour[..., 2] + heading)[..., None]], -1
        )

    # --- before a step -------------------------------------------------------------------------

    def prepare(self, env_ids: np.ndarray, rng: Source) -> None:
        """Besides what is drawn: the command and the arms' targets of the coming step."""
        super().prepare(env_ids, rng)
        ids = env_ids[self.clock[env_ids] >= 0]
        if ids.size:
            self._move_arms(ids)
            self._give_commands(ids)

    def _move_arms(self, ids: np.ndarray) -> None:
        step = self.clock[ids] % ARM_STEPS
        for i in ids[step == 0]:
            words = Words.from_state(self._arm_key[i], int(self._arm_pos[i]))
            self._arm_ends[i, 0] = self._arm_ends[i, 1]
            self._arm_ends[i, 1] = next_arms(words, self._arm_ends[i, 0])
            self._arm_key[i], self._arm_pos[i] = words.get_state()
        phase = ((step + 1) / ARM_STEPS)[:, None]
        first, last = np.moveaxis(self._arm_ends[ids], 1, 0)
        self.arm_targets[ids] = both_arms(first + phase * (last - first))

    def _give_commands(self, ids: np.ndarray) -> None:
        config = self.config
        self._holds[ids[self.clock[ids] % config.segment_steps == 0]] = False
        offset, turn = self._to_waypoint(ids, self.segment()[ids])
        away = np.stack([length(offset), abs(turn)], 1)
        bounds = np.array([config.near, config.facing])
        holds = away <= np.where(self._holds[ids], bounds[:, 1], bounds[:, 0])
        self._holds[ids] = holds
        plane = np.where(holds[:, :1], 0.0, config.gain * offset)
        if config.speed_norm:
            plane *= np.minimum(1.0, config.speed_norm / np.maximum(length(plane), 1e-9))[:, None]
        rate = np.where(holds[:, 1], 0.0, config.gain * turn)
        self._command[ids, 0] = plane[:, 0].clip(*config.forward)
        self._command[ids, 1] = plane[:, 1].clip(-config.left, config.left)
        self._command[ids, 2] = rate.clip(-config.yaw_rate, config.yaw_rate)

    def _to_waypoint(
        self, env_ids: np.ndarray | slice, segment: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Waypoints `segment [M]` of robots: m forward and left `[M, 2]`, rad to the left `[M]`."""
        rows = np.arange(self.num_envs)[env_ids]
        heading = self.heading(env_ids)
        target = self.waypoints[rows, segment]
        way = target[:, :2] - self.simulator.root_pos[env_ids, :2]
        return turned(way, -heading), wrapped(target[:, 2] - heading)

    def segment(self) -> np.ndarray:
        """Which waypoint is the target of the coming step; after all, the last. `[N]`."""
        steps = self.config.segment_steps
        return (self.clock // steps).clip(0, self.config.segments - 1)

    def command(self) -> np.ndarray:
        """The command of the coming step: m/s forward and left, rad/s left. `[N, 3]`."""
        return self._command.copy()

    # --- a step --------------------------------------------------------------------------------

    def step(self, action: np.ndarray) -> Any:
        """Apply raw actions `[N, 29]`; those of the arms count where nobody else moves them."""
        if self.config.arms == "moved":
            action = np.array(action, np.float32)
            stance = np.tile(STANCE, (self.num_envs, 1))
            stance[:, OWNED:] = self.arm_targets
            action[:, OWNED:] = self.robots.action_for(stance)[:, OWNED:]
        return super().step(action)

    def disturb(self) -> None:
        """Punch the robots that are due."""
        ids = np.flatnonzero(~self._over & self.punch_is_on())
        if not ids.size or not self.config.punch:
            return
        sim, rows = self.simulator, np.arange(ids.size)
        segment = self.segment()[ids]
        poses = link_poses(sim.root_pos[ids], sim.root_quat[ids], sim.joint_pos[ids])
        axes = poses.quat[rows, self.punch_frame[ids, segment]]
        strength = self.punch_share[ids, segment] * self.ceiling(segment)
        force = strength[:, None] * quat_rotate(axes, self.punch_direction[ids, segment])
        sim.apply_force(ids, self.punch_link[ids, segment], force)

    def punch_is_on(self) -> np.ndarray:
        """Whether a punch acts in the coming step. `[N]`."""
        into = self.clock % self.config.segment_steps - PUNCH_BEGINS
        return (self.clock >= 0) & (into >= 0) & (into < PUNCH_STEPS)

    def ceiling(self, segment: np.ndarray) -> np.ndarray:
        """N, ceiling of the punches of segments `[M]`; 83 to 167 N are a first one's, published."""
        config = self.config
        if not config.punch_ramp_s:
            return np.full(segment.shape, config.punch)
        grown = (segment * config.segment_s / config.punch_ramp_s).clip(0.0, 1.0)
        return config.punch * (1.0 + 2.0 * grown) / 3.0

    def measure(self, counts: np.ndarray) -> None:
        super().measure(counts)
        sim = self.simulator
        low = ~(sim.root_pos[:, 2] >= PELVIS_HEIGHT) | sim.diverged()
        up = counts & ~self.fell_pelvis
        segment = ((self.clock - 1) // self.config.segment_steps).clip(0, self.config.segments - 1)
        fresh = np.flatnonzero(up & low)
        self.fell_pelvis |= counts & low
        if self.config.fall != "pelvis":  # another rule ended the run, with this step's error
            fresh = fresh[:0]
        offset, turn = self._to_waypoint(slice(None), segment)
        up &= ~low
        self._error[up] = np.stack([length(offset), abs(turn)], 1)[up]
        over = self.fell() | (self.clock >= self.config.episode_steps)
        ended = np.flatnonzero(up & ((self.clock % self.config.segment_steps == 0) | over))
        for ids in (fresh, ended):  # of a fall, the last error while up
            self.position_error[ids, segment[ids]] = self._error[ids, 0]
            self.heading_error[ids, segment[ids]] = self._error[ids, 1]
        power = abs(self.robots.torque() * sim.joint_vel).sum(1)
        self.energy += np.where(up, power * CONTROL_DT, 0.0)
        acceleration = (sim.joint_vel - self._joint_vel) / CONTROL_DT
        self.vibration += np.where(up, abs(acceleration - self._joint_acc).sum(1), 0.0)
        self._joint_vel[:], self._joint_acc[:] = sim.joint_vel, acceleration

    def fell(self) -> np.ndarray:
        return self.fell_pelvis if self.config.fall == "pelvis" else super().fell()

    def task_reward(self) -> np.ndarray:
        """For the command of the step just done."""
        return rewards.velocity_error_exp(
            self.own_velocity(), self.yaw_rate(), self._command, self.config.velocity_std,
            self.config.yaw_rate_std,
        )  # fmt: skip

    # --- what is seen and told -----------------------------------------------------------------

    def command_values(self, env_ids: np.ndarray | slice) -> np.ndarray:
        offset, turn = self._to_waypoint(env_ids, self.segment()[env_ids])
        return np.concatenate([
            self._command[env_ids], offset, length(offset)[:, None], turn[:, None],
            self.arm_targets[env_ids],
        ], 1)  # fmt: skip

    def task_figures(self) -> dict[str, np.ndarray]:
        """Command, waypoint `[N, 3]` in the world, and what the run brought so far.

        `position_error [N, S]`, m, and `heading_error [N, S]`, rad, are of the ends of segments,
        and of the fall; infinite elsewhere.
        """
        return {
            **super().task_figures(),
            "run": self.run.copy(),
            "command": self.command(),
            "waypoint": self.waypoints[np.arange(self.num_envs), self.segment()],
            "segment": self.segment(),
            "punched": self.punch_is_on() & (self.config.punch > 0),
            "fell_pelvis": self.fell_pelvis.copy(),
            "position_error": self.position_error.copy(),
            "heading_error": self.heading_error.copy(),
            "energy": self.energy.copy(),
            "vibration": self.vibration.copy(),
        }

    def task_shown(self, env_id: int) -> dict[str, np.ndarray]:
        place = self.waypoints[env_id, self.segment()[env_id]]
        forward, left, _ = self._command[env_id]
        heading = self.heading(np.array([env_id]))[0]
        return {
            "goal": np.array([*place[:2], self.config.near[0]]),
            "arrow": self.arrow(env_id, turned(np.array([forward, left]), heading)),
        }


def hanging(config: TourConfig) -> np.ndarray:
    """The state at release, `[36]`: upright on the crane, joints where the drives carry the links.

    The original swings out for three seconds under the pelvis; this is where that ends: kp (target
    - q) holds the weight of what hangs on each joint, solved by iteration.
    """
    model = mjcf.compile_model(config.model)
    data = mujoco.MjData(model)
    qpos = np.concatenate([[0.0, 0.0, HANGING_HEIGHT, 1.0, 0.0, 0.0, 0.0], STANCE])
    stiffness = np.array(drives_of(config.actuation)["stiffness"], float)
    for _ in range(100):  # of the gap at least a quarter goes each time, under the robot's gains
        data.qpos[:] = qpos
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        weight = np.array(data.qfrc_bias[6:])
        sag = np.divide(weight, stiffness, out=np.zeros(g1.NUM_JOINTS), where=stiffness > 0)
        qpos[7:] = (STANCE - sag).clip(*g1.JOINT_RANGE.T)
    return qpos
