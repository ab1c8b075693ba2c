"""The tracking task's terms and its order of one step, against hand arithmetic and invariances."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bm_envs.envs import TrackVectorEnv
from bm_envs.motion.sampler import StartSampler
from bm_envs.robots import g1
from bm_envs.rotations import quat_axes
from bm_envs.tasks.track import rewards, terminations, terms
from bm_envs.tasks.track.config import TrackConfig
from bm_envs.tasks.track.rows import ANCHOR

RNG = np.random.default_rng(0)
N, K = 5, 14


def random_quats(*shape):
    q = RNG.normal(size=(*shape, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def scipy(q):
    return Rotation.from_quat(np.asarray(q)[..., [1, 2, 3, 0]])


@pytest.fixture(params=["numpy", "torch"])
def convert(request):
    return np.asarray if request.param == "numpy" else torch.as_tensor


# --- rewards --------------------------------------------------------------------------------------


def test_terms_are_one_at_zero_error_and_exp_minus_one_at_std(convert):
    expected = 0.36787944117144233
    pos = convert(RNG.normal(size=(N, 3)))
    off = convert(np.array([[0.18, 0.24, 0.0]]))  # length 0.3
    square_distance, gaussian = rewards.square_distance, rewards.gaussian
    assert gaussian(square_distance(pos, pos), 0.3).tolist() == [1.0] * N
    got = gaussian(square_distance(pos, pos + off), 0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    quat = random_quats(N, K)
    turned = (scipy(quat.reshape(-1, 4)) * Rotation.from_rotvec([0, 0.4, 0])).as_quat()
    turned = turned[:, [3, 0, 1, 2]].reshape(N, K, 4)
    got = gaussian(rewards.square_angle(convert(quat), convert(turned)), 0.4)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    vel = convert(RNG.normal(size=(N, K, 3)))
    got = gaussian(square_distance(vel, vel + off), 0.3)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_means_over_bodies_are_inside_the_exponential():
    error = RNG.normal(size=(N, K, 3))
    got = rewards.gaussian(rewards.square_distance(np.zeros((N, K, 3)), error), 0.5)
    expected = [np.exp(-np.mean([e @ e for e in robot]) / 0.25) for robot in error]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_penalties_by_hand():
    action, last = np.zeros((1, 29)), np.zeros((1, 29))
    action[0, :3] = [1.0, -2.0, 0.5]
    assert rewards.action_rate(action, last)[0] == 1 + 4 + 0.25
    soft = g1.soft_joint_range()
    pos = soft.mean(1)[None].repeat(2, 0)
    pos[1, 0] = soft[0, 1] + 0.1
    pos[1, 5] = soft[5, 0] - 0.02
    np.testing.assert_allclose(rewards.joint_limit(pos, *soft.T), [0.0, 0.12], atol=1e-12)
    force = np.zeros((1, 4, 3))
    force[0, 0, 2], force[0, 1, 0], force[0, 2] = 0.9, -1.1, [0.6, 0.6, 0.6]
    assert rewards.contact_count(force, 1.0)[0] == 2


def test_optional_penalties_by_hand():
    force = np.zeros((4, 2, 3))
    force[1:, 0, 2] = 300.0
    force[3, 1] = [0.0, 0.6, 0.8]  # 1 N: in the air
    ref = np.array([[True, True], [True, False], [False, True], [True, True]])
    assert rewards.contact_mismatch(force, ref, 1.0).tolist() == [2, 0, 2, 1]
    action, last, older = np.zeros((3, 1, 29))
    action[0, :2], last[0, 0], older[0, 2] = (3.0, 1.0), 1.0, 2.0
    # 3 - 2 + 0, 1, 2: squares 1, 1, 4
    assert rewards.action_accel(action, last, older) == pytest.approx(6.0)
    assert rewards.joint_accel(action, last, 0.5) == pytest.approx((2.0**2 + 1.0) * 4)


def test_optional_terms_come_beside_the_others():
    """Against the terms by hand along a roll-out; the rest of the reward is as without them."""
    weights = {"foot_contact": -2.0, "action_accel": -0.5, "joint_accel": -1e-4}
    assert weights.keys() == set(rewards.OPTIONAL), "each has a weight here, and its value below"
    plain, env = (
        TrackVectorEnv(
            3,
            "walk",
            autoreset_mode="disabled",
            config=TrackConfig().override({"rewards": given, "noise": False}),
        )
        for given in ({}, weights)
    )
    rng = np.random.default_rng(0)
    for one in (plain, env):
        one.reset(seed=2)
    past = np.zeros((2, 3, 29))
    wrong = 0
    for _ in range(12):
        action = rng.normal(0, 0.3, (3, 29)).astype(np.float32)
        velocity = env.task.simulator.joint_vel.copy()
        _, reward, *_, info = env.step(action)
        _, base, *_ = plain.step(action)
        task, sim = env.task, env.task.simulator
        on = np.linalg.norm(sim.contact_force[:, -2:], axis=-1) > 1.0
        ref = np.array([task.clips[0].foot_contact[frame] for frame in task.frame])
        wrong += (on != ref).sum()
        want = {
            "foot_contact": -2.0 * (on != ref).sum(1),
            "action_accel": -0.5 * ((action - 2 * past[0] + past[1]) ** 2).sum(1),
            "joint_accel": -1e-4 * (((sim.joint_vel - velocity) / 0.02) ** 2).sum(1),
        }
        assert want.keys() == weights.keys()
        for name, value in want.items():
            np.testing.assert_allclose(info[f"reward_{name}"], 0.02 * value, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(reward - base, 0.02 * sum(want.values()), rtol=1e-3, atol=1e-4)
        past = np.stack([action, past[0]])
    assert 0 < wrong < 72


def test_anchored_reference_by_rotation_matrices(convert):
    anchor_pos, anchor_quat = RNG.normal(size=(N, 3)), random_quats(N)
    ref_pos, ref_quat = RNG.normal(size=(N, K, 3)), random_quats(N, K)
    turns = rewards.heading_difference(
        quat_axes(convert(anchor_quat)), quat_axes(convert(ref_quat[:, ANCHOR]))
    )
    pos, quat = (
        np.asarray(x)
        for x in rewards.anchored_reference(
            convert(anchor_pos), turns, convert(ref_pos), convert(ref_quat), ANCHOR
        )
    )
    for n in range(N):
        relative = (scipy(anchor_quat[n]) * scipy(ref_quat[n, ANCHOR]).inv()).as_matrix()
        yaw = np.arctan2(relative[1, 0], relative[0, 0])
        turn = Rotation.from_euler("z", yaw)
        np.testing.assert_allclose(turns[n, 0], [np.cos(yaw), np.sin(yaw)], atol=1e-12)
        base = np.array([*anchor_pos[n, :2], ref_pos[n, ANCHOR, 2]])
        expected = base + turn.apply(ref_pos[n] - ref_pos[n, ANCHOR])
        np.testing.assert_allclose(pos[n], expected, atol=1e-12)
        difference = (scipy(quat[n]).inv() * (turn * scipy(ref_quat[n]))).magnitude()
        assert difference.max() < 1e-7  # SciPy's magnitude resolves no less near zero


def test_anchored_reference_ignores_where_the_reference_stands_and_faces():
    anchor_pos, anchor_quat = RNG.normal(size=(N, 3)), random_quats(N)
    ref_pos, ref_quat = RNG.normal(size=(N, K, 3)), random_quats(N, K)
    # Headings add up only where the relative rotation is one about z.
    heading = Rotation.from_euler("z", RNG.uniform(-3, 3, (N, 1)))
    ref_quat[:, ANCHOR] = (heading * scipy(anchor_quat)).as_quat()[:, [3, 0, 1, 2]]
    turn = Rotation.from_euler("z", 1.1)
    moved = turn.apply(ref_pos.reshape(-1, 3)).reshape(N, K, 3) + [3.0, -2.0, 0.0]
    turned = (turn * scipy(ref_quat.reshape(-1, 4))).as_quat()[:, [3, 0, 1, 2]].reshape(N, K, 4)
    found = []
    for pos, quat in ((ref_pos, ref_quat), (moved, turned)):
        turns = rewards.heading_difference(quat_axes(anchor_quat), quat_axes(quat[:, ANCHOR]))
        found.append(rewards.anchored_reference(anchor_pos, turns, pos, quat, ANCHOR)[0])
    np.testing.assert_allclose(*found, atol=1e-12)


# --- terminations ---------------------------------------------------------------------------------


def test_failure_rules_at_their_thresholds():
    ref = np.zeros((3, 3))
    pos = np.array([[9.0, 9, 0.2], [0, 0, 0.26], [0, 0, -0.26]])
    assert terminations.height_off(pos, ref, 0.25).tolist() == [False, True, True]
    assert terminations.distance_off(pos[:, [2, 1, 0]], ref, 8.0).tolist() == [True, False, False]
    upright = np.tile([1.0, 0, 0, 0], (3, 1))
    # Leaning by a: gravity's z component is -cos a, so the difference is 1 - cos a.
    angles = np.arccos(1 - np.array([0.79, 0.81, 0.81]))
    leaning = np.stack([np.cos(angles / 2), np.sin(angles / 2), 0 * angles, 0 * angles], 1)
    leaning[2] = [np.cos(angles[2] / 2), 0, np.sin(angles[2] / 2), 0]
    assert terminations.tilt_off(leaning, upright, 0.8).tolist() == [False, True, True]
    heading = np.tile([np.cos(1.0), 0, 0, np.sin(1.0)], (3, 1))
    assert not terminations.tilt_off(heading, upright, 0.8).any()


# --- observations ---------------------------------------------------------------------------------


def test_observation_equals_plain_formulas():
    """All 286 critic values of random states by matrices, from the simulator's raw readings."""
    env = TrackVectorEnv(8, "walk", preset="train")
    obs, info = env.reset(seed=0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        action = rng.normal(size=(8, 29)).astype(np.float32)
        obs, _, _, _, info = env.step(action)
    sim, task = env.simulator, env.task
    clip = task.clips[0]
    tracked = [g1.BODY_NAMES.index(name) for name in g1.TRACKED_BODIES]
    for n in range(8):
        frame = min(task.frame[n] + 1, clip.num_frames - 1)
        rot = scipy(sim.body_quat[n]).as_matrix()
        anchor = rot[ANCHOR]
        ref = scipy(clip.body_quat_w[frame, tracked[ANCHOR]]).as_matrix()
        root = scipy(sim.root_quat[n]).as_matrix()
        expected = np.concatenate([
            clip.joint_pos[frame], clip.joint_vel[frame],
            anchor.T @ (clip.body_pos_w[frame, tracked[ANCHOR]] - sim.body_pos[n, ANCHOR]),
            (anchor.T @ ref)[:, :2].ravel(),
            ((sim.body_pos[n] - sim.body_pos[n, ANCHOR]) @ anchor).ravel(),
            np.concatenate([(anchor.T @ r)[:, :2].ravel() for r in rot]),
            root.T @ sim.root_lin_vel[n], sim.root_ang_vel_b[n],
            sim.joint_pos[n] - task.default_joint_pos[n], sim.joint_vel[n], task.action[n],
        ])  # fmt: skip
        # float32 chains of a dozen operations on numbers up to 10.
        np.testing.assert_allclose(info["critic_obs"][n], expected, atol=2e-5)
    assert env.task.critic_size == 286


# --- the step -------------------------------------------------------------------------------------


def test_robot_put_on_the_reference_has_no_error():
    env = TrackVectorEnv(1, "stand", preset="clip", autoreset_mode="disabled")
    env.reset(seed=0)
    errors = env.task.tracking_errors()
    # The file's positions are multiples of 2^-18 m; the angle is as good as float32 quaternions.
    assert errors["mpkpe_m"][0] < 2**-18 and errors["ee_ori_rad"][0] < 1e-3
    assert errors["joint_pos_rad"][0] == 0.0


def test_reward_is_judged_against_the_frame_that_was_shown():
    env = TrackVectorEnv(1, "walk", preset="clip", autoreset_mode="disabled")
    obs, _ = env.reset(seed=0, options={"frame": 400})
    shown = obs[0, :29].copy()
    env.step(np.zeros((1, 29), np.float32))
    assert env.task.frame[0] == 401
    np.testing.assert_array_equal(env.task.reference.joint_pos[0], shown)


def test_stale_targets_use_the_anchor_before_the_step():
    for stale in (False, True):
        env = TrackVectorEnv(
            1, "walk", preset="clip", overrides={"stale_targets": stale}, autoreset_mode="disabled"
        )
        env.reset(seed=0, options={"frame": 400})
        sim, ref = env.simulator, env.task.reference
        before = sim.body_pos[:, ANCHOR].copy(), sim.body_axes[:, ANCHOR].copy()
        _, _, _, _, info = env.step(np.zeros((1, 29), np.float32))
        after = sim.body_pos[:, ANCHOR].copy(), sim.body_axes[:, ANCHOR].copy()
        expected = []
        for pos, axes in (before, after):
            heading = rewards.heading_difference(axes, ref.anchor_axes)
            target, _ = rewards.anchored_reference(
                pos, heading, ref.body_pos, ref.body_quat, ANCHOR
            )
            error = ((sim.body_pos - target) ** 2).sum(-1).mean()
            expected.append(0.02 * np.exp(-error / 0.3**2))
        assert info["reward_body_pos"][0] == pytest.approx(expected[0 if stale else 1], rel=1e-5)
        assert abs(expected[0] - expected[1]) > 1e-3 * expected[0]  # the anchor did move


def test_distance_rule_ends_an_episode():
    env = TrackVectorEnv(2, "stand", overrides={"failure_distance": 0.3, "pushes": False})
    env.reset(seed=0)
    env.simulator.push(np.array([1]), np.array([[4.0, 0, 0]]), np.zeros((1, 3)))
    causes = []
    for _ in range(8):
        *_, info = env.step(np.zeros((2, 29), np.float32))
        causes += [str(c) for c in info.get("termination", []) if c]
    assert "anchor_distance" in causes


def lowest_sole_point(env):
    sim, tables = env.simulator, env.task.tables
    return terms.lowest_sole_point(
        sim.body_pos, sim.body_axes, tables.sole_points, tables.sole_radius
    )


def test_start_noise_stays_in_its_ranges_and_feet_above_the_ground():
    config = TrackConfig(pushes=False, randomization=False)
    env = TrackVectorEnv(300, "walk", config=config)
    env.reset(seed=0)
    sim, ref = env.simulator, env.task.reference
    offset = sim.root_pos - ref.body_pos[:, 0]
    assert np.abs(offset[:, :2]).max() <= 0.05 + 1e-6
    joint = np.abs(sim.joint_pos - ref.joint_pos)
    assert 0.09 < joint.max() <= 0.1 + 1e-6
    turn = (scipy(sim.root_quat) * scipy(ref.body_quat[:, 0]).inv()).as_euler("xyz")
    assert (np.abs(turn).max(0) <= np.array([0.1, 0.1, 0.2]) + 1e-5).all()
    assert (np.abs(turn).max(0) >= 0.9 * np.array([0.1, 0.1, 0.2])).all()
    np.testing.assert_allclose(sim.joint_vel, ref.joint_vel, atol=1e-6)
    # Lifted until no foot is under the ground (float32 at 1 m).
    assert lowest_sole_point(env).min() > -1e-6
    free = dataclasses.replace(config, reset=dataclasses.replace(config.reset, lift_feet=False))
    sunk = TrackVectorEnv(300, "walk", config=free)
    sunk.reset(seed=0)
    assert lowest_sole_point(sunk).min() < -0.01


def test_disturbance_scale_of_zero_is_a_quiet_start():
    env = TrackVectorEnv(20, "walk", overrides={"randomization": False})
    env.task.disturbance = 0.0
    env.reset(seed=0)
    np.testing.assert_allclose(env.simulator.joint_pos, env.task.reference.joint_pos, atol=1e-6)


def test_disturbance_scale_of_zero_is_an_observation_without_noise():
    overrides = {"randomization": False, "pushes": False}
    env, clean = (
        TrackVectorEnv(20, "walk", overrides={**overrides, "noise": noise})
        for noise in (True, False)
    )
    for scale, level in ((0.0, 0.0), (0.5, 0.125)):
        env.task.disturbance = scale
        clean.task.disturbance = scale
        env.reset(seed=0), clean.reset(seed=0)
        rng = np.random.default_rng(0)
        difference = env.task.observe(slice(None), rng)[0] - clean.task.observe(slice(None), rng)[0]
        place = env.task.observation_layout["motion_anchor_pos_b"]  # half-width 0.25 m at scale 1
        assert np.abs(difference[:, place]).max() == pytest.approx(level, rel=0.1)


@pytest.mark.parametrize("scale, fails", [(1.0, True), (1.3, False), (np.inf, False)])
def test_the_distance_at_which_an_episode_ends_has_a_scale(scale, fails):
    config = dataclasses.replace(TrackConfig(), failure_distance=0.5, reset_noise=False)
    env = TrackVectorEnv(2, "stand", config=config, autoreset_mode="disabled")
    env.reset(seed=0)
    qpos = np.concatenate([
        env.simulator.root_pos, env.simulator.root_quat, env.simulator.joint_pos
    ], axis=1)  # fmt: skip
    qpos[0, 1] += 0.6
    env.simulator.reset(np.arange(2), qpos, np.zeros((2, 35)))
    env.task.failure_distance_scale = scale
    assert env.task.leash == scale  # its name in version 0.1
    result = env.task.step(np.zeros((2, 29), np.float32))
    assert result.causes["anchor_distance"].tolist() == [fails, False]


def test_pushes_come_at_their_interval_and_size():
    overrides = {"failure": "none", "reset_noise": False, "noise": False, "episode_s": None}
    env = TrackVectorEnv(50, "stand", overrides={**overrides, "start": {"mode": "first"}})
    env.reset(seed=0)
    pushed = []
    original = env.simulator.push

    def record(ids, lin, ang):
        pushed.append((env.task.episode_step[ids].copy(), lin.copy(), ang.copy()))
        original(ids, lin, ang)

    env.simulator.push = record
    for _ in range(160):  # 3.2 s: every robot at least once
        env.step(np.zeros((50, 29), np.float32))
    steps = np.concatenate([item[0] for item in pushed])
    assert len(steps) >= 50 and steps.min() >= 50
    lin = np.abs(np.concatenate([item[1] for item in pushed])).max(0)
    ang = np.abs(np.concatenate([item[2] for item in pushed])).max(0)
    assert (lin <= [0.5, 0.5, 0.2]).all() and (lin > [0.4, 0.4, 0.16]).all()
    assert (ang <= [0.52, 0.52, 0.78]).all() and (ang > [0.4, 0.4, 0.6]).all()


def test_joint_offset_moves_action_and_observation_alike():
    env = TrackVectorEnv(30, "stand", overrides={"noise": False, "reset_noise": False})
    obs, _ = env.reset(seed=0)
    offset = env.task.default_joint_pos - g1.DEFAULT_JOINT_POS.astype(np.float32)
    assert 0.009 < np.abs(offset).max() <= 0.01 + 1e-6
    seen = obs[:, env.task.observation_layout["joint_pos"]]
    expected = env.simulator.joint_pos - g1.DEFAULT_JOINT_POS.astype(np.float32) - offset
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    targets = []
    env.simulator.step, step = (lambda q: (targets.append(q.copy()), step(q))), env.simulator.step
    env.step(np.zeros((30, 29), np.float32))
    np.testing.assert_allclose(targets[0], env.task.default_joint_pos)


def test_a_delayed_action_arrives_its_steps_later():
    """Every robot draws 0 to 2 steps anew; until the first action arrives it holds its start."""
    overrides = {"failure": "none", "start": {"mode": "first"}, "randomize": {"action_delay": 2}}
    env = TrackVectorEnv(30, "walk", overrides=overrides, episode_s=0.1)
    env.reset(seed=0)
    applied = []
    env.simulator.step, step = (lambda q: (applied.append(q.copy()), step(q))), env.simulator.step
    drawn = []
    for _ in range(6):  # episodes of five steps
        applied.clear()
        held, sent = env.simulator.joint_pos.copy(), []
        delay = env.task.action_delay.copy()
        drawn.append(delay)
        for t in range(5):
            action = RNG.normal(size=(30, 29)).astype(np.float32)
            sent.append(env.task.default_joint_pos + env.task.action_scale * action)
            env.step(action)
            for robot, late in enumerate(delay):
                expected = held[robot] if t < late else sent[t - late][robot]
                np.testing.assert_allclose(applied[t][robot], expected, atol=1e-6)
    assert {0, 1, 2} == set(np.concatenate(drawn))
    assert any((a != b).any() for a, b in zip(drawn, drawn[1:], strict=False))


def test_saved_states_have_the_names_that_older_versions_wrote():
    """Checkpoints of 0.1 hold them: without these keys they could not be continued."""
    names = {
        "clip_id", "frame", "episode_step", "action", "_last_action", "default_joint_pos",
        "_next_push", "_stale_pos", "_stale_axes", "disturbance", "leash", "sampler.failures",
        "sampler.visits", "build",  # the last is new, and may be missing
    }  # fmt: skip
    for delay, more in ((0, set()), (2, {"action_delay", "_sent"})):
        env = TrackVectorEnv(2, "stand", overrides={"randomize": {"action_delay": delay}})
        env.reset(seed=0)
        env.task.disturbance, env.task.failure_distance_scale = 0.25, 2.0
        saved = env.task.get_state()
        assert set(saved) == names | more
        other = TrackVectorEnv(2, "stand", overrides={"randomize": {"action_delay": delay}})
        other.reset(seed=1)
        other.task.set_state(saved)
        again = other.task.get_state()
        for name, value in saved.items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)
        assert (other.task.disturbance, other.task.failure_distance_scale) == (0.25, 2.0)
        np.testing.assert_array_equal(other.task.reference.rows, env.task.reference.rows)


# --- start sampling -------------------------------------------------------------------------------


def test_bins_follow_the_published_rule():
    sampler = StartSampler([1276, 49], fps=50.0)
    assert sampler.clip_bins.tolist() == [26, 1]  # floor(T / 50) + 1
    frames = np.arange(1276)
    bins = sampler.bin_of(np.zeros(1276, int), frames)
    assert bins.tolist() == [min(t * 26 // 1276, 25) for t in frames]
    assert sampler.bin_of(np.ones(1, int), np.array([48])).tolist() == [26]


def test_rates_and_counts_differ_where_visits_do():
    """Bin 0 is visited ten times as often as bin 5 with ten times the failures: equal rates."""
    results = {}
    for statistic in ("rate", "count"):
        sampler = StartSampler(
            [500], fps=50.0, mode="adaptive", statistic=statistic, kernel=1, uniform_ratio=0.0
        )
        clip = np.zeros(110, int)
        frame = np.concatenate([np.full(100, 10), np.full(10, 240)])
        failed = np.zeros(110, bool)
        failed[:10] = failed[100:101] = True
        for _ in range(50):
            sampler.record(sampler.bin_of(clip, frame), failed)
        p = sampler.probabilities()
        results[statistic] = (
            p[sampler.bin_of(clip[:1], frame[:1])[0]] / p[sampler.bin_of(clip[:1], frame[-1:])[0]]
        )
    assert results["rate"] == pytest.approx(1.0) and results["count"] == pytest.approx(10.0)


@pytest.mark.parametrize("mode", ["first", "uniform"])
def test_failures_are_counted_wherever_episodes_start(mode):
    """A curriculum is moved by them."""
    env = TrackVectorEnv(4, "stand", overrides={"start": {"mode": mode}})
    env.reset(seed=0)
    for _ in range(100):
        env.step(np.full((4, 29), 3.0, np.float32))
    assert env.task.sampler.hardest_s() < 3.0


def test_kernel_spreads_to_earlier_bins_of_the_same_clip_only():
    sampler = StartSampler(
        [500, 500], fps=50.0, mode="adaptive", kernel=3, decay=0.8, uniform_ratio=0.0
    )
    bins = sampler.clip_bins[0]
    second = sampler.bin_of(np.ones(1, int), np.array([60]))  # of clip 1
    sampler.record(second, np.array([True]))
    p = sampler.probabilities()
    # The failing bin and the one before it; two before it would be in the other clip.
    np.testing.assert_allclose(p[[bins + 1, bins]] / p[bins + 1], [1.0, 0.8])
    assert p[:bins].sum() == 0.0


def test_uniform_share_is_what_it_says():
    for mix, floor in (("convex", 0.3 / 11), ("additive", None)):
        sampler = StartSampler([500], fps=50.0, mode="adaptive", uniform_ratio=0.3, mix=mix)
        np.testing.assert_allclose(sampler.probabilities().sum(), 1.0)
        for _ in range(100):
            sampler.record(sampler.bin_of(np.zeros(9, int), np.full(9, 250)), np.ones(9, bool))
        if floor is not None:
            assert sampler.probabilities().min() == pytest.approx(floor)


def test_hardest_seconds_are_told_from_the_easy_majority():
    sampler = StartSampler([1000], fps=50.0)  # 21 bins, of which a tenth is 2
    assert sampler.hardest_s() == np.inf
    # Every control step 10 robots in each of three bins: 0 of 10, 1 of 10 and 3 of 10 fail.
    frame = np.repeat([30, 400, 800], 10)
    failed = np.arange(30) % 10 < np.repeat([0, 1, 3], 10)
    for _ in range(5):
        sampler.record(sampler.bin_of(np.zeros(30, int), frame), failed)
    assert sampler.hardest_s() == pytest.approx(20 / 4 * 0.02)  # 20 robot steps, 4 failures
    assert sampler.hardest_s(share=0.05) == pytest.approx(10 / 3 * 0.02)


def test_samples_follow_the_probabilities_and_leave_a_frame_to_reach():
    sampler = StartSampler([500, 100], fps=50.0, mode="adaptive")
    bins = sampler.bin_of(np.zeros(4, int), np.array([5, 100, 200, 450]))
    for _ in range(20):
        sampler.record(bins, np.array([1, 0, 0, 1]) > 0)
    rng = np.random.default_rng(0)
    clip, frame = sampler.sample(rng, 20_000)
    assert (frame <= sampler.clip_frames[clip] - 2).all() and frame.min() == 0
    counts = np.bincount(sampler.bin_of(clip, frame), minlength=sampler.num_bins)
    expected = 20_000 * sampler.probabilities()
    # Five standard deviations; frames on a bin's border may fall to its neighbour.
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected) + 0.03 * 20_000 / 13).all()
