"""The built-in clips keep what they promise, judged by MuJoCo's kinematics and inverse dynamics.

The bounds below are the stated ones of the family. The truth is `oracles.forward_kinematics`
(MuJoCo) for what is where, `mj_inverse` for forces, and hand arithmetic for distances; nothing is
taken from the planner's own arrays but, for mixed commands, its contacts and its last foothold.
"""

import re
import subprocess
import sys
from dataclasses import replace

import mujoco
import numpy as np
import oracles
import pytest
from scipy.optimize import nnls
from scipy.spatial import ConvexHull

from bm_envs.errors import ConfigError, MotionError
from bm_envs.motion import gait, procedural, whole_body
from bm_envs.motion.clip import Clip, load_npz, save_npz
from bm_envs.motion.library import load_motion
from bm_envs.robots import g1, mjcf

DT = 0.02
STRIDE = 60  # frames: two steps of 0.48 s single and 0.12 s double support
NAMES = (
    "stand", "walk", "walk_back", "turn_left", "turn_right", "side_left", "side_right",
    "walk_to_stand",
)  # fmt: skip
MOVING = NAMES[1:]
# Sole points of Unitree's four-sphere foot in the ankle_roll frame, m (source: g1_model.md).
SOLE = np.array([(-0.05, 0.025), (-0.05, -0.025), (0.12, 0.03), (0.12, -0.03)])
SOLE = np.column_stack([SOLE, np.full(4, -0.035)])
FRICTION = 0.6
FEET = [g1.BODY_NAMES.index(name) for name in ("left_ankle_roll_link", "right_ankle_roll_link")]

# Stated bounds. Positions in the files are multiples of 2^-18 m or rad.
STANCE_DRIFT = 2e-5  # m, over a whole stance
STANCE_TURN = 1e-4  # rad, likewise
SINK = HOVER = 1e-4  # m, of the sole of a standing foot
ZMP_MARGIN = 0.02  # m, inside the support polygon
LIMIT_MARGIN = 0.015  # rad, inside the soft range
MAX_SPEED = 6.0  # rad/s
MAX_ACCELERATION = 130.0  # rad/s^2
MAX_EFFORT = 0.5  # share of the effort limit


@pytest.fixture(scope="module")
def clips() -> dict[str, Clip]:
    return {name: load_npz(procedural.MOTION_DIR / f"{name}.npz") for name in NAMES}


@pytest.fixture(scope="module")
def kinematics(clips: dict[str, Clip]) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: oracles.forward_kinematics(
            clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], clip.joint_pos, feet="capsules"
        )
        for name, clip in clips.items()
    }


def stances(contact: np.ndarray) -> list[slice]:
    """Runs of frames in contact."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], contact.astype(int), [0]])))
    return [slice(a, b) for a, b in edges.reshape(-1, 2)]


def rotation_angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between quaternions; by the sine, which keeps its digits near zero."""
    dot = (a * b).sum(-1, keepdims=True)
    return 2 * np.arcsin(np.linalg.norm(b - np.sign(dot) * a, axis=-1) / 2) * 2


def qpos_of(clip: Clip) -> np.ndarray:
    return np.column_stack([clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], clip.joint_pos]).astype(
        np.float64
    )


class Dynamics:
    """What the ground and the motors have to do for a motion, by `mj_inverse` without contacts."""

    def __init__(self, qpos: np.ndarray, contact: np.ndarray) -> None:
        model = mjcf.compile_model()
        for flag in ("CONTACT", "LIMIT", "ACTUATION"):
            model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag}"))
        self.model, self.data = model, mujoco.MjData(model)
        self.qpos, self.contact = qpos, contact
        self.feet = [model.body(g1.BODY_NAMES[i]).id for i in FEET]

    def solve(self, t: int) -> np.ndarray:
        """`[35]`: generalized force at frame t; sets velocity and acceleration by differences."""
        before, after = np.empty(self.model.nv), np.empty(self.model.nv)
        q = self.qpos
        mujoco.mj_differentiatePos(self.model, before, DT, q[t - 1], q[t])
        mujoco.mj_differentiatePos(self.model, after, DT, q[t], q[t + 1])
        self.data.qpos[:] = q[t]
        self.data.qvel[:] = (before + after) / 2
        self.data.qacc[:] = (after - before) / DT
        mujoco.mj_inverse(self.model, self.data)
        return self.data.qfrc_inverse.copy()

    def soles(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """`[4 n, 3]` contact points of the standing feet and their `[4 n, 3, 35]` Jacobians."""
        points, jacobians = [], []
        for side, body in enumerate(self.feet):
            if self.contact[t, side]:
                frame = self.data.xmat[body].reshape(3, 3)
                for corner in SOLE:
                    points.append(self.data.xpos[body] + frame @ corner)
                    jacobians.append(np.zeros((3, self.model.nv)))
                    mujoco.mj_jac(self.model, self.data, jacobians[-1], None, points[-1], body)
        return np.array(points), np.array(jacobians)

    def zmp_margin(self, t: int) -> float:
        """Distance of the ZMP to the edge of the support polygon, positive inside."""
        force = self.solve(t)
        moment = self.data.xmat[1].reshape(3, 3) @ force[3:6]  # free joints turn in body axes
        x, y, z = self.data.xpos[1]
        zmp = np.array([x - (moment[1] + z * force[0]) / force[2],
                        y + (moment[0] - z * force[1]) / force[2], 1.0])  # fmt: skip
        hull = ConvexHull(self.soles(t)[0][:, :2])
        return -float((hull.equations @ zmp).max())

    def residual_and_effort(self, t: int) -> tuple[float, np.ndarray]:
        """Root force (N, N m) that pyramidal contacts leave over, and motor effort shares `[29]`.

        Among the contact forces that carry the root, those that ask least of the motors.
        """
        force = self.solve(t)
        edges = FRICTION * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
        edges = np.column_stack([edges, np.ones(4)])
        _, jacobians = self.soles(t)
        push = np.einsum("ec,pcv->vpe", edges, jacobians).reshape(self.model.nv, -1)
        root_weight = 1e3
        a = np.vstack([root_weight * push[:6], push[6:] / g1.EFFORT_LIMIT[:, None]])
        b = np.concatenate([root_weight * force[:6], force[6:] / g1.EFFORT_LIMIT])
        strength, _ = nnls(a, b, maxiter=2000)
        left = force - push @ strength
        return float(np.abs(left[:6]).max()), np.abs(left[6:]) / g1.EFFORT_LIMIT


# --- files -------------------------------------------------------------------------------------


def test_family_is_complete_and_labelled(clips):
    assert set(procedural.FAMILY) == set(NAMES)
    for name, clip in clips.items():
        assert (clip.name, clip.fps, clip.licence) == (name, 50.0, "Apache-2.0")
    assert clips["walk"].duration_s >= 24.0
    shipped = {path.stem: path.stat().st_size for path in procedural.MOTION_DIR.glob("*.npz")}
    assert set(shipped) == {*NAMES, *procedural.HUMAN}  # `test_human_gait.py` has the others
    assert sum(shipped.values()) < 2**21 + 2**19


def test_links_and_velocities_belong_to_the_joint_angles(clips, kinematics):
    for name, clip in clips.items():
        # Half a unit of 2^-18 on each of up to 13 joints over 1.3 m, and on the link itself.
        bound = 2.0**-19 * (13 * 1.3 + 1)
        assert np.abs(clip.body_pos_w - kinematics[name]["body_pos_w"]).max() < bound
        # Central differences of the file's joint angles: half a unit of each of the two, half one
        # of the velocity (2^-12), and float32.
        speed = (clip.joint_pos[2:].astype(float) - clip.joint_pos[:-2]) / (2 * DT)
        assert np.abs(speed - clip.joint_vel[1:-1]).max() < 2.0**-19 / DT + 2.0**-13 + 1e-6
        # Link speeds come from joint speeds, so they differ from differences of the path by the
        # third derivative of the joint angles: 70 rad/s^2 a frame / 6 * 0.02^2 * 0.7 m.
        gap = np.gradient(clip.body_pos_w.astype(float), DT, axis=0) - clip.body_lin_vel_w
        assert np.abs(gap).max() < 0.02


def test_starts_and_ends_standing_in_the_default_pose(clips):
    for name, clip in clips.items():
        ends = (-1,) if name == "walk_to_stand" else (0, -1)
        for end in ends:
            # The default pose tilts the soles by 6 mrad; here they are flat.
            assert np.abs(clip.joint_pos[end] - g1.DEFAULT_JOINT_POS).max() < 0.0065
            assert np.abs(clip.joint_vel[end]).max() < 0.005
            assert clip.foot_contact[end].all()
    assert clips["stand"].foot_contact.all() and not clips["stand"].body_lin_vel_w.any()
    assert clips["walk"].foot_contact[:75].all()  # 1.5 s of standing


# --- feet --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_feet_neither_slide_nor_sink_nor_hover(name, clips, kinematics):
    clip, truth = clips[name], kinematics[name]
    lowest = truth["foot_height"]
    assert lowest.min() > -SINK
    for side, body in enumerate(FEET):
        pos, quat = truth["body_pos_w"][:, body], truth["body_quat_w"][:, body]
        runs = stances(clip.foot_contact[:, side])
        assert runs and (name == "stand" or len(runs) > 5)
        for run in runs:
            assert np.ptp(pos[run], axis=0).max() < STANCE_DRIFT
            assert rotation_angle(quat[run], quat[run.start]).max() < STANCE_TURN
            # The four sole points, so that a foot on its edge would count as hovering.
            tilt = 2 * (quat[run, 2] * quat[run, 3] + quat[run, 0] * quat[run, 1])
            height = pos[run, 2, None] + SOLE[:, 2] + tilt[:, None] * SOLE[:, 1]
            height += (
                SOLE[:, 0]
                * 2
                * (quat[run, 1] * quat[run, 3] - quat[run, 0] * quat[run, 2])[:, None]
            )
            assert np.abs(height).max() < HOVER


@pytest.mark.parametrize("name", MOVING)
def test_contact_flags_and_swing_height(name, clips, kinematics):
    clip, lowest = clips[name], kinematics[name]["foot_height"]
    # The first and last frame of a swing are 0.2 mm off the floor.
    assert np.array_equal(clip.foot_contact, lowest < SINK)
    assert clip.foot_contact.any(axis=1).all()  # never both in the air
    for side in (0, 1):
        for swing in stances(~clip.foot_contact[:, side]):
            whole = swing.start > 0 and swing.stop < clip.num_frames
            assert not whole or swing.stop - swing.start == 23
            assert not whole or 0.045 < lowest[swing, side].max() < 0.07


@pytest.mark.parametrize("name", NAMES)
def test_links_do_not_touch_each_other(name, clips):
    model = mjcf.compile_model(mjcf.ModelConfig(self_collision=True, feet="capsules"))
    data = mujoco.MjData(model)
    ground = model.geom("ground").id
    for qpos in qpos_of(clips[name])[::2]:
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        pairs = [tuple(data.contact[i].geom) for i in range(data.ncon)]
        assert all(ground in pair for pair in pairs)


# --- joints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_joints_stay_in_range_and_smooth(name, clips):
    joint_pos = clips[name].joint_pos.astype(float)
    soft = g1.soft_joint_range()
    assert (joint_pos - soft[:, 0]).min() > LIMIT_MARGIN
    assert (soft[:, 1] - joint_pos).min() > LIMIT_MARGIN
    assert joint_pos[:, [3, 9]].min() > 0.5  # knees never go straight
    speed = np.diff(joint_pos, axis=0) / DT
    assert np.abs(speed).max() < MAX_SPEED
    assert np.abs(np.diff(speed, axis=0) / DT).max() < MAX_ACCELERATION


# --- the walk as commanded ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "end", "twist", "bound"),
    [
        # From a few seconds after the start to a few before the stop; the body's lean decays and
        # grows by exp(-3.8 t). The last column bounds joint angles one stride apart, rad.
        ("walk", 320, 860, (0.5, 0, 0), 1e-5),
        ("walk_back", 180, 300, (-0.35, 0, 0), 5e-4),
        ("turn_left", 180, 300, (0, 0, 0.5), 2e-4),
        ("turn_right", 180, 300, (0, 0, -0.5), 2e-4),
        ("side_left", 180, 300, (0, 0.15, 0), 5e-5),
        ("side_right", 180, 300, (0, -0.15, 0), 5e-5),
        ("walk_to_stand", 0, 90, (0.5, 0, 0), 1e-4),
    ],
)
def test_steady_part_repeats_at_the_commanded_velocity(name, start, end, twist, bound, clips):
    clip = clips[name]
    here, there = slice(start, end - STRIDE), slice(start + STRIDE, end)
    assert np.abs(clip.joint_pos[here].astype(float) - clip.joint_pos[there]).max() < bound
    assert np.array_equal(clip.foot_contact[here], clip.foot_contact[there])
    # The pelvis one stride on, seen from where it was, has moved as commanded for 1.2 s.
    pos, quat = clip.body_pos_w[:, 0].astype(float), clip.body_quat_w[:, 0].astype(float)
    yaw = 2 * np.arctan2(quat[:, 3], quat[:, 0])
    turn = np.angle(np.exp(1j * (yaw[there] - yaw[here])))
    np.testing.assert_allclose(turn, twist[2] * 1.2, atol=bound)
    assert np.abs(pos[there, 2] - pos[here, 2]).max() < bound
    moved = (pos[there, 0] - pos[here, 0]) + 1j * (pos[there, 1] - pos[here, 1])
    if twist[2]:  # about the point between the feet, the origin: distance from it stays
        radius = np.hypot(pos[:, 0], pos[:, 1])
        assert np.abs(radius[there] - radius[here]).max() < bound
    else:
        np.testing.assert_allclose(moved.real, twist[0] * 1.2, atol=bound)
        np.testing.assert_allclose(moved.imag, twist[1] * 1.2, atol=bound)


def test_walking_distance(clips):
    # Touch-downs at frames 123 + 30 k; those before the command ends at 1075 are k = 0..31. Speeds
    # 0.25, then 31 times 0.5, then 0.25 and 0 to stop, 0.6 s each: 9.6 m.
    travel = clips["walk"].body_pos_w[-1, 0] - clips["walk"].body_pos_w[0, 0]
    np.testing.assert_allclose(travel, (0.6 * (0.25 + 31 * 0.5 + 0.25), 0, 0), atol=1e-4)
    # Frames 98 + 30 k; before 425: k = 0..10.
    for name, speed, axis in (("walk_back", -0.35, 0), ("side_left", 0.15, 1)):
        travel = clips[name].body_pos_w[-1, 0, axis] - clips[name].body_pos_w[0, 0, axis]
        ramp = speed - np.sign(speed) * 0.25 if abs(speed) > 0.25 else 0.0
        first, last = (np.sign(speed) * 0.25, ramp) if ramp else (speed, 0.0)
        assert travel == pytest.approx(0.6 * (first + 10 * speed + last), abs=1e-3)
    quat = clips["turn_left"].body_quat_w[-1, 0]
    turned = 2 * np.arctan2(quat[3], quat[0])
    wanted = 0.6 * (0.3 + 10 * 0.5 + 0.2)
    assert np.angle(np.exp(1j * (turned - wanted))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("left", "right"), [("turn_left", "turn_right"), ("side_left", "side_right")]
)
def test_left_and_right_are_mirror_images(left, right, clips):
    index, sign = g1.mirror_map()
    a, b = clips[left], clips[right]
    # The robot's inertia is not symmetric to the last digit: its centre of mass lies 0.08 mm to the
    # left, which both clips correct, and 0.16 mm over 0.6 m of leg are 0.3 mrad.
    assert np.abs(a.joint_pos - sign * b.joint_pos[:, index]).max() < 5e-4
    assert np.abs(a.body_pos_w[:, 0] * (1, -1, 1) - b.body_pos_w[:, 0]).max() < 2.5e-4
    assert np.array_equal(a.foot_contact, b.foot_contact[:, ::-1])
    assert np.ptp(a.joint_pos, axis=0).max() > 0.3  # premise: something moves


# --- dynamics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_zmp_is_inside_the_support_polygon_in_every_frame(name, clips):
    clip = clips[name]
    dynamics = Dynamics(qpos_of(clip), clip.foot_contact)
    # A frame counts with the feet that touch in it; lift-off and touch-down frames have both.
    margins = [dynamics.zmp_margin(t) for t in range(1, clip.num_frames - 1)]
    assert min(margins) > ZMP_MARGIN


@pytest.mark.parametrize("name", NAMES)
def test_contacts_and_motors_can_provide_the_motion(name, clips):
    clip = clips[name]
    dynamics = Dynamics(qpos_of(clip), clip.foot_contact)
    found = [dynamics.residual_and_effort(t) for t in range(1, clip.num_frames - 1, 5)]
    # Friction just suffices: in `walk`'s fastest swing frames (14 N m about the vertical) up to
    # 0.6 N m are left over, so the foot would turn a little rather than slip.
    assert max(residual for residual, _ in found) < 1.0
    assert max(effort.max() for _, effort in found) < MAX_EFFORT


def test_dynamics_oracle_on_a_lifted_force():
    # The judge itself: standing still, the contacts carry all; without friction and feet apart from
    # the body's centre nothing can. A foot that is not there leaves a residual.
    stand = load_npz(procedural.MOTION_DIR / "stand.npz")
    dynamics = Dynamics(qpos_of(stand), stand.foot_contact)
    assert dynamics.solve(5)[2] == pytest.approx(33.341142 * 9.81, rel=1e-6)
    assert dynamics.residual_and_effort(5)[0] < 1e-5
    one_foot = np.tile([True, False], (len(stand.foot_contact), 1))
    lopsided = Dynamics(qpos_of(stand), one_foot)
    assert lopsided.zmp_margin(5) == pytest.approx(-(0.1185 - 0.0275), abs=2e-3)
    assert lopsided.residual_and_effort(5)[0] > 10


# --- making them -------------------------------------------------------------------------------


def test_made_again_it_is_the_shipped_clip(clips):
    assert (
        procedural.differences(procedural.make_clip("walk_to_stand"), clips["walk_to_stand"]) == []
    )
    assert procedural.differences(procedural.make_clip("stand"), clips["stand"]) == []


def test_check_tells_a_changed_file(tmp_path, clips, capsys):
    joint_pos = clips["stand"].joint_pos.copy()
    joint_pos[7, 3] += 1e-4
    save_npz(replace(clips["stand"], joint_pos=joint_pos), tmp_path / "stand.npz")
    assert procedural.main(procedural.MakeConfig(("stand",), tmp_path, check=True)) == 1
    assert "stand: joint_pos differs by 1.0e-04" in capsys.readouterr().out
    assert procedural.main(procedural.MakeConfig(("stand",), tmp_path)) == 0
    assert procedural.main(procedural.MakeConfig(("stand",), tmp_path, check=True)) == 0


def test_command_refuses_an_unknown_name():
    done = subprocess.run(
        [sys.executable, "-m", "bm_envs.motion.procedural", "wlak"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Unknown procedural motion 'wlak'; did you mean 'walk'")
    assert done.stderr.count("\n") == 1


def test_mixed_commands_make_one_sound_motion():
    # Forward, an arc with a side component, backward with a turn, a stand, and sideways.
    plan = gait.plan_walk(
        [
            (0.5, 0, 0, 2.5),
            (0.3, 0.08, 0.35, 2.0),
            (-0.3, 0, -0.3, 2.5),
            (0, 0, 0, 3.0),
            (0, -0.1, 0.2, 2.0),
        ]
    )
    clip = procedural.clip_from_plan("mixed", plan)
    truth = oracles.forward_kinematics(
        clip.body_pos_w[:, 0], clip.body_quat_w[:, 0], clip.joint_pos
    )
    assert np.abs(truth["foot_height"][clip.foot_contact]).max() < 1e-5
    for side, body in enumerate(FEET):
        runs = stances(clip.foot_contact[:, side])
        assert len(runs) > 5
        for run in runs:
            assert np.ptp(truth["body_pos_w"][run, body], axis=0).max() < 1e-5
    # Three stands (start, middle, end), each with its weight shifts; double support is 7 frames.
    both = [run.stop - run.start for run in stances(clip.foot_contact.all(axis=1))]
    assert sum(frames >= 50 for frames in both) == 3 and both.count(7) == len(both) - 3
    dynamics = Dynamics(qpos_of(clip), clip.foot_contact)
    assert min(dynamics.zmp_margin(t) for t in range(1, clip.num_frames - 1, 2)) > ZMP_MARGIN
    # Where it ends is where the steps lead: velocities held for 0.6 s each along the heading.
    x, y, yaw = plan.steps[-1].base
    assert clip.body_pos_w[-1, 0, :2] == pytest.approx((x, y), abs=0.002)
    assert plan.heading[-1] == pytest.approx(yaw, abs=1e-12)


def test_walks_under_random_commands():
    """`walk_mix_SEED`: all ways of walking, within what the robot can do, the same every time."""
    ways = set()
    for seed in range(20):
        commands = procedural.mix_commands(seed)
        assert commands == procedural.mix_commands(seed)
        assert commands[0].is_stand and commands[-1].is_stand
        assert procedural.MIX_S <= sum(command.duration_s for command in commands[:-1])
        for vx, vy, wz, duration_s in commands:
            assert -0.4 <= vx <= 0.6 and abs(vy) <= 0.15 and abs(wz) <= 0.6
            assert 1.0 <= duration_s <= 4.0
            ways.add((np.sign(vx), vy != 0, wz != 0))
    assert len(ways) == len(procedural._MIX)
    assert procedural.mix_commands(0) != procedural.mix_commands(1)


@pytest.mark.slow
def test_walks_that_never_stand():
    """`walk_on_SEED`: as above, but a foot is in the air at least every second."""
    for seed in range(20):
        commands = procedural.on_commands(seed)
        assert commands == procedural.on_commands(seed)
        assert commands[0].is_stand and commands[-1].is_stand
        assert not any(command.is_stand for command in commands[1:-1])
        for vx, vy, wz, _ in commands:
            assert -0.4 <= vx <= 0.6 and vy == 0 and abs(wz) <= 0.6
    clip = load_motion("walk_on_1[2:58]")
    both = clip.foot_contact.all(1)
    longest = max(len(run) for run in "".join("b" if b else "." for b in both).split("."))
    assert longest < 0.2 * clip.fps  # double support takes 0.12 s


@pytest.mark.slow
@pytest.mark.parametrize("name", ["walk_mix_3", "walk_on_0"])
def test_a_mixed_walk_is_sound(name):
    clip = procedural.make_clip(name)
    assert clip.name == name and clip.licence == procedural.LICENCE
    assert clip.duration_s > procedural.MIX_S
    dynamics = Dynamics(qpos_of(clip), clip.foot_contact)
    assert min(dynamics.zmp_margin(t) for t in range(1, clip.num_frames - 1, 8)) > ZMP_MARGIN
    low, high = g1.soft_joint_range().T
    assert np.minimum(clip.joint_pos - low, high - clip.joint_pos).min() > LIMIT_MARGIN
    # Quicker than the single commands' clips: changes of a quarter metre a second in one step.
    assert np.abs(clip.joint_vel).max() < 8.0


def test_an_impossible_walk_is_refused():
    plan = gait.plan_walk([(1.2, 0, 0, 4.0)])
    with pytest.raises(
        MotionError, match="take shorter or slower steps|expected shorter or slower"
    ):
        whole_body.solve_states(plan, rounds=1)


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        ([], "commands is empty, expected at least one (vx, vy, wz, duration_s)."),
        (
            [(0.5, 0, 0, 1.0), (0, float("nan"), 0, 1.0)],
            "Command 1 is (0, nan, 0, 1.0), expected finite (vx, vy, wz) and duration_s > 0.",
        ),
        (
            [(0.5, 0, 0, 0.0)],
            "Command 0 is (0.5, 0, 0, 0.0), expected finite (vx, vy, wz) and duration_s > 0.",
        ),
        (
            [(0, -0.4, 0, 1.0)],
            "Sideways speed 0.4 m/s brings the feet to -0.003 m, expected 0.11 m or more.",
        ),
    ],
)
def test_bad_commands_are_refused(commands, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        gait.plan_walk(commands)


def test_bad_gaits_are_refused():
    with pytest.raises(ConfigError, match=re.escape("single_support is 1, expected 2 frames")):
        gait.Gait(single_support=1)
    with pytest.raises(ConfigError, match=re.escape("first_foot is 2, expected 0 (left)")):
        gait.plan_walk([(0.1, 0, 0, 1.0)], first_foot=2)
    with pytest.raises(MotionError, match="Unknown procedural motion 'wlak'; did you mean 'walk'"):
        procedural.make_clip("wlak")
    with pytest.raises(MotionError, match="'walk_mix_x'; did you mean 'walk_mix_0'"):
        procedural.make_clip("walk_mix_x")


# --- parts -------------------------------------------------------------------------------------


def test_centre_of_mass_of_a_swaying_zmp():
    # c - r c'' = cos(w t) has c = cos(w t) / (1 + r w^2) far from the ends; in second differences
    # of a cosine, 2 (1 - cos(w dt)) / dt^2 stands for w^2.
    w, r = 5.0, 0.066
    t = np.arange(0, 20, DT)
    zmp = np.column_stack([np.cos(w * t), np.full(len(t), 0.3)])
    com = whole_body.solve_com(zmp, np.full(len(t), r), DT)
    gain = 1 / (1 + r * 2 * (1 - np.cos(w * DT)) / DT**2)
    middle = slice(400, 600)  # exp(-8 / sqrt(r)) = 3e-14 from the ends
    np.testing.assert_allclose(com[middle, 0], gain * np.cos(w * t[middle]), atol=1e-12)
    np.testing.assert_allclose(com[:, 1], 0.3, atol=1e-12)
    np.testing.assert_array_equal(com[[0, -1]], zmp[[0, -1]])


def test_swing_profile_goes_from_rest_to_rest():
    s = np.linspace(0, 1, 20001)
    x = gait.swing_profile(s)
    speed = np.gradient(x, s)
    acceleration = np.gradient(speed, s)
    assert x[0] == 0 and x[-1] == pytest.approx(1, abs=1e-12)
    assert speed.min() > -1e-9
    assert abs(acceleration[2]) < 0.02 and abs(acceleration[-3]) < 0.02
    # A (sin x + sin 3x / 6) has its maximum A sqrt(3) / 2 at x = pi / 3; A = 2 pi / (1 + 1/18).
    assert acceleration.max() == pytest.approx(np.sqrt(3) * np.pi * 18 / 19, rel=1e-4)
