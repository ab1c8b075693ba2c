"""What the tracking task knows before its first step, made once from clips and configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bm_envs.arrays import NUMPY, Array, Arrays
from bm_envs.errors import MotionError
from bm_envs.motion.clip import Clip
from bm_envs.robots.observation_terms import CRITIC_TERMS, layout, size
from bm_envs.robots.robot import Geom, Robot
from bm_envs.tasks.track import terms
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig
from bm_envs.tasks.track.rewards import TRACKED
from bm_envs.tasks.track.rows import foot_contacts, reference_table, without_gaps


@dataclass(frozen=True)
class Tables:
    """Constants of one tracking task.

    C clips in F rows; J joints, 29 of the G1, in the robot table's order; R rewards that always
    count and E that were given a weight; L values of the policy's observation that have noise.
    Arrays are float32, or int64 where they count, and nobody writes into them.
    """

    reference: Array
    """`[F, rows.row_size(J)]`, what robots are compared with and what observations show."""
    foot_contact: Array
    """`[F, 2]` bool, feet of the reference that are on the ground; `[0, 2]` if no reward asks."""
    first_row: Array
    """`[C]`, the row of each clip's first frame; of a clip the rows follow one another."""
    clip_start: Array
    """`[C]`, the number of each clip's first frame, where all clips' frames are counted on."""
    clip_frames: Array
    """`[C]`, number of frames of each clip."""

    nominal_joint_pos: Array
    """`[J]`, rad, joint targets of an action of zero."""
    action_scale: Array
    """`[J]`, rad per unit of action."""
    soft_low: Array
    """`[J]`, rad; a joint below is penalized."""
    soft_high: Array
    """`[J]`, rad; a joint above is penalized."""
    start_low: Array
    """`[J]`, rad, the least joint angles of a start with noise."""
    start_high: Array
    """`[J]`, rad, the greatest."""
    sole_points: Array
    """`[2, P, 3]`, m, of each foot in its own axes, centers of the spheres of its sole."""
    sole_radius: float
    """m, of those spheres."""

    start_pos: Array
    """`[3]`, m, half-widths of the noise of a start: the root's position."""
    start_rot: Array
    """`[3]`, rad: its roll, pitch and yaw."""
    start_lin_vel: Array
    """`[3]`, m/s: its velocity, world axes."""
    start_ang_vel: Array
    """`[3]`, rad/s: its angular velocity, world axes."""
    push_lin_vel: Array
    """`[3]`, m/s, half-widths of a push, world axes."""
    push_ang_vel: Array
    """`[3]`, rad/s."""
    torso_com: Array
    """`[3]`, m, half-widths of the shift of the torso's center of mass."""
    joint_offset: Array
    """`[J]`, rad, half-widths of the error of the default pose."""

    observation_layout: dict[str, slice]
    """Where each term stands in the policy's observation."""
    observation_size: int
    critic_size: int
    policy_columns: tuple[slice, ...]
    """The policy's observation as stretches of the critic's, which has all terms."""
    noisy: slice
    """The stretch of the policy's observation that has noise."""
    noise_level: Array
    """`[L]`, half-widths of that noise, each in its term's unit."""

    widths: Array | tuple[float, ...]
    """`[6]`, of the rewards `rewards.TRACKED`."""
    weights: Array
    """`[R]`, of the rewards that always count, a step."""
    options: tuple[str, ...]
    """Names of the E rewards that were given a weight."""
    option_weights: Array
    """`[E]`, a step."""
    reward_names: tuple[str, ...]
    """Of all R + E, as in an environment's `info`: `reward_body_pos`, ..."""
    rule_names: tuple[str, ...]
    """Of the rules by which an episode fails."""
    episode_steps: int | None
    """Control steps of an episode; None: as many as the clip has."""

    def to(self, arrays: Arrays) -> Tables:
        """The same tables in arrays of a library."""
        if arrays is NUMPY:
            return self
        values = dict(vars(self))
        for name in ("reference", "foot_contact"):
            if len(values[name]):
                values[name], values["first_row"] = without_gaps(
                    values[name], self.first_row, self.clip_frames
                )
        made = {
            name: arrays.array(value)
            for name, value in values.items()
            if isinstance(value, np.ndarray)
        }
        # Numbers are arguments of a device's kernels, where an array of one would be read first.
        made["widths"] = tuple(map(float, self.widths))
        return dataclasses.replace(self, **made)


def make_tables(clips: Sequence[Clip], config: TrackConfig) -> Tables:
    """The tables of a task, as NumPy arrays.

    Raises:
        MotionError: there is no clip, or one that cannot be tracked.
    """
    robot = config.model.table
    _check(clips, robot)
    frames = np.array([clip.num_frames for clip in clips])
    reference, first_row = reference_table(clips)
    soft_low, soft_high = robot.soft_joint_range().T.astype(np.float32).copy()
    hard = config.reset.joint_clip == "hard"
    start_low, start_high = (
        robot.joint_range.T.astype(np.float32) if hard else (soft_low, soft_high)
    )
    drive, start, push = config.actuation, config.reset, config.push
    feet = robot.foot_spheres if config.model.feet == "spheres" else robot.foot_capsules
    reward, (names, options) = config.rewards, terms.reward_names(config)
    noisy, noise_level = _noise(config)
    return Tables(
        reference=reference, first_row=first_row,
        foot_contact=(
            foot_contacts(clips, first_row) if "foot_contact" in options else np.zeros((0, 2), bool)
        ),
        clip_start=np.concatenate([[0], np.cumsum(frames)[:-1]]), clip_frames=frames,
        nominal_joint_pos=_numbers(drive.default_joint_pos, robot.default_joint_pos),
        action_scale=_numbers(drive.action_scale, robot.action_scale),
        soft_low=soft_low, soft_high=soft_high, start_low=start_low, start_high=start_high,
        sole_points=_sole_points(feet, robot), sole_radius=feet[0].radius,
        start_pos=_numbers(start.pos), start_rot=_numbers(start.rot),
        start_lin_vel=_numbers(start.lin_vel), start_ang_vel=_numbers(start.ang_vel),
        push_lin_vel=_numbers(push.lin_vel), push_ang_vel=_numbers(push.ang_vel),
        torso_com=_numbers(config.randomize.torso_com), joint_offset=_joint_offset(config),
        observation_layout=layout(config.observations, robot),
        observation_size=size(config.observations, robot),
        critic_size=size(CRITIC_TERMS, robot),
        policy_columns=_policy_columns(config.observations, robot),
        noisy=noisy, noise_level=noise_level,
        widths=_numbers([getattr(reward, f"{name}_std") for name in TRACKED]),
        weights=_numbers([getattr(reward, name) * CONTROL_DT for name in names]),
        options=options,
        option_weights=_numbers([getattr(reward, name) * CONTROL_DT for name in options]),
        reward_names=tuple(f"reward_{name}" for name in (*names, *options)),
        rule_names=terms.rule_names(config),
        episode_steps=(
            None if config.episode_s is None else max(1, round(config.episode_s / CONTROL_DT))
        ),
    )  # fmt: skip


def _check(clips: Sequence[Clip], robot: Robot) -> None:
    if not clips:
        raise MotionError("No motion was given, expected at least one.")
    for clip in clips:
        if clip.robot is not robot:
            raise MotionError(
                f"Motion '{clip.name}' is one of robot {clip.robot.name}, but the task is for "
                f"robot {robot.name} (model.robot)."
            )
        if abs(clip.fps * CONTROL_DT - 1.0) > 1e-6:
            raise MotionError(
                f"Motion '{clip.name}' has {clip.fps:g} frames/s, expected {1 / CONTROL_DT:g}: "
                "the reference advances one frame a control step."
            )
        if clip.num_frames < 3:
            raise MotionError(f"Motion '{clip.name}' has {clip.num_frames} frames, expected 3+.")


def _numbers(values: Sequence[float] | None, otherwise: np.ndarray | None = None) -> np.ndarray:
    """The values, float32, or the others where there are none."""
    return np.asarray(otherwise if values is None else values, np.float32)


def _joint_offset(config: TrackConfig) -> np.ndarray:
    """Half-widths of the error of each joint's default position, rad. `[J]`."""
    level, ankles = config.randomize, config.randomize.ankle_offset
    return _numbers([
        ankles if ankles is not None and "_ankle_" in name else level.joint_offset
        for name in config.model.table.joint_names
    ])  # fmt: skip


def _sole_points(feet: Sequence[Geom], robot: Robot) -> np.ndarray:
    """Ends of the feet's shapes, equally many on both feet. `[2, P, 3]`."""
    points = [(geom, point) for geom in feet for point in (geom.start, geom.end) if point]
    return np.stack([
        np.array([point for geom, point in points if geom.body == body], np.float32)
        for body in robot.foot_bodies
    ])  # fmt: skip


def _policy_columns(names: Sequence[str], robot: Robot) -> tuple[slice, ...]:
    """Stretches of the critic's observation, each as long as it goes, that make the policy's."""
    place = layout(CRITIC_TERMS, robot)
    columns: list[slice] = []
    for part in (place[name] for name in names):
        if columns and columns[-1].stop == part.start:
            part = slice(columns.pop().start, part.stop)
        columns.append(part)
    return tuple(columns)


def noise_half_widths(config: TrackConfig) -> np.ndarray:
    """Half-widths of the uniform noise of each value of the policy's observation. `[O]`."""
    place = layout(config.observations, config.model.table)
    level = np.zeros(size(config.observations, config.model.table), np.float32)
    for name, half_width in dataclasses.asdict(config.noise_level).items():
        if name in place:
            level[place[name]] = half_width
    return level


def _noise(config: TrackConfig) -> tuple[slice, np.ndarray]:
    """The stretch of the policy's observation that has noise, and the half-widths there.

    In the standard orders no value without noise lies in it.
    """
    level = noise_half_widths(config)
    noisy = np.flatnonzero(level)
    where = slice(noisy[0], noisy[-1] + 1) if noisy.size else slice(0, 0)
    return where, level[where]
