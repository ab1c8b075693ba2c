"""Every published figure that the code carries, against the one typed in golden/tracking_facts.py.

What a figure does is tested with the module that uses it; here it is the figures, and the few
lines of arithmetic (slices, bins, orders) that are figures in another form.
"""

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from golden import tracking_facts as facts

from bm_envs import policy
from bm_envs.learning.gaussian import adaptive_learning_rate
from bm_envs.motion import clip as clips
from bm_envs.motion import csv as motion_csv
from bm_envs.motion.sampler import StartSampler
from bm_envs.robots import g1, mjcf, observation_terms
from bm_envs.tasks.track import config as track_config
from bm_envs.tasks.track import rewards, terminations
from bm_envs.tasks.track.config import TrackConfig

TRAIN, PUBLISHED = TrackConfig.preset("train"), TrackConfig.preset("published")
BOTH = pytest.mark.parametrize("config", [TRAIN, PUBLISHED], ids=["train", "published"])


# --- joints and drives ---------------------------------------------------------------------------


def test_there_is_a_row_for_every_joint_in_order():
    assert tuple(facts.JOINTS) == g1.JOINT_NAMES


@pytest.mark.parametrize("name", facts.JOINTS)
def test_joint_table(name):
    (isaac, lower, upper, soft_lower, soft_upper, default, motor, armature, effort, velocity,
     kp, kd, scale) = facts.JOINTS[name]  # fmt: skip
    i = g1.JOINT_NAMES.index(name)
    joint = g1.JOINTS[i]
    assert g1.ISAAC_JOINT_NAMES[isaac] == name
    assert tuple(g1.JOINT_RANGE[i]) == joint.range == (lower, upper)
    assert f"{joint.motor_count}x{joint.motor}" == (motor if "x" in motor else f"1x{motor}")
    assert g1.DEFAULT_JOINT_POS[i] == default
    assert (g1.EFFORT_LIMIT[i], g1.VELOCITY_LIMIT[i]) == (effort, velocity)
    # The table prints six to nine digits: half a unit of the last one.
    assert g1.soft_joint_range()[i] == pytest.approx((soft_lower, soft_upper), abs=0.51e-5)
    assert g1.ARMATURE[i] == pytest.approx(armature, rel=5e-8)
    assert g1.STIFFNESS[i] == pytest.approx(kp, rel=1e-7)
    assert g1.DAMPING[i] == pytest.approx(kd, rel=1e-7)
    assert g1.ACTION_SCALE[i] == pytest.approx(scale, rel=1e-8)


@pytest.mark.parametrize("motor", facts.MOTORS)
def test_gains_from_reflected_inertia(motor):
    armature, effort, velocity, kp, kd = facts.MOTORS[motor]
    joints = [j for j in g1.JOINTS if motor in (j.motor, f"{j.motor_count}x{j.motor}")]
    joints = [j for j in joints if (j.motor_count == 2) == motor.startswith("2x")]
    assert joints
    for joint in joints:  # float64 arithmetic in another order
        assert joint.armature == pytest.approx(armature, rel=1e-14)
        assert joint.stiffness == pytest.approx(kp, rel=1e-14)
        assert joint.damping == pytest.approx(kd, rel=1e-14)
        assert (joint.effort_limit, joint.velocity_limit) == (effort, velocity)


def test_wbt_and_mj_gains_differ_by_their_rounding_of_one_armature():
    armature, kp, kd = facts.WBT_7520_14
    w = facts.NATURAL_FREQUENCY
    assert kp == pytest.approx(armature * w**2, rel=1e-12)
    assert kd == pytest.approx(2 * facts.DAMPING_RATIO * armature * w, rel=1e-12)
    joint = g1.JOINTS[g1.JOINT_NAMES.index("waist_yaw_joint")]
    assert joint.stiffness == pytest.approx(kp, rel=1e-8)
    assert joint.damping == pytest.approx(kd, rel=1e-8)


def test_constants_of_the_gains():
    assert g1.NATURAL_FREQUENCY == pytest.approx(facts.NATURAL_FREQUENCY, abs=1e-12)
    assert g1.DAMPING_RATIO == facts.DAMPING_RATIO
    assert g1.SOFT_LIMIT_FACTOR == facts.SOFT_LIMIT_FACTOR


def test_joint_orders():
    assert g1.ISAAC_JOINT_NAMES == tuple(f"{stem}_joint" for stem in facts.ISAAC_JOINTS)
    forth = g1.order_map(g1.JOINT_NAMES, g1.ISAAC_JOINT_NAMES)
    back = g1.order_map(g1.ISAAC_JOINT_NAMES, g1.JOINT_NAMES)
    assert tuple(forth) == facts.ISAAC_FROM_MUJOCO
    assert tuple(back) == facts.MUJOCO_FROM_ISAAC
    assert g1.joint_names("isaac") == g1.ISAAC_JOINT_NAMES
    assert g1.joint_names("mujoco") == g1.JOINT_NAMES


def test_tracked_bodies():
    assert g1.TRACKED_BODIES == tuple(facts.TRACKED_BODIES)
    for name, (mujoco_index, isaac_index) in facts.TRACKED_BODIES.items():
        assert g1.BODY_NAMES.index(name) == mujoco_index
        assert g1.ISAAC_BODY_NAMES.index(name) == isaac_index
    assert g1.TRACKED_BODIES[0] == g1.ROOT_BODY == "pelvis"
    assert g1.ANCHOR_BODY == facts.ANCHOR
    assert set(g1.END_EFFECTORS) == facts.END_EFFECTORS


def test_poses():
    assert g1.POSES["KNEES_BENT"].root_height == facts.DEFAULT_ROOT_HEIGHT
    height, stems = facts.HOME
    expected = {f"left_{stem}_joint": angle for stem, angle in stems.items()} | {
        f"right_{stem}_joint": -angle if stem.endswith("roll") else angle
        for stem, angle in stems.items()
    }
    assert (g1.POSES["HOME"].root_height, g1.POSES["HOME"].joints) == (height, expected)


# --- observations --------------------------------------------------------------------------------


def as_slices(table):
    return {name: slice(*row[:2]) for name, row in table.items()}


def test_policy_observation():
    expected = as_slices(facts.POLICY_OBSERVATION)
    # In order: dictionaries compare without it.
    assert list(expected) == list(observation_terms.POLICY_TERMS)
    assert observation_terms.layout(observation_terms.POLICY_TERMS) == expected
    assert observation_terms.size(observation_terms.POLICY_TERMS) == 160
    assert TRAIN.observations == observation_terms.POLICY_TERMS


def test_critic_observation():
    expected = as_slices(facts.CRITIC_OBSERVATION)
    assert list(expected) == list(observation_terms.CRITIC_TERMS)
    assert observation_terms.layout(observation_terms.CRITIC_TERMS) == expected
    assert observation_terms.size(observation_terms.CRITIC_TERMS) == 286


def test_observation_without_state_estimation():
    expected = as_slices(facts.NO_STATE_ESTIMATION)
    assert list(expected) == list(observation_terms.NO_STATE_ESTIMATION_TERMS)
    assert observation_terms.layout(observation_terms.NO_STATE_ESTIMATION_TERMS) == expected
    assert observation_terms.size(observation_terms.NO_STATE_ESTIMATION_TERMS) == 154


@pytest.mark.parametrize("table", [facts.POLICY_OBSERVATION, facts.NO_STATE_ESTIMATION])
def test_policy_files_have_the_same_layout(table):
    spec = policy.PolicySpec.for_g1(tuple(table))
    assert spec.observation_slices() == as_slices(table)
    assert spec.observation_size == max(stop for _, stop, *_ in table.values())


@BOTH
def test_observation_noise(config):
    noise = dataclasses.asdict(config.noise_level)
    assert noise == {
        name: level for name, (_, _, level) in facts.POLICY_OBSERVATION.items() if level is not None
    }
    assert config.noise


# --- rewards and terminations --------------------------------------------------------------------


@BOTH
def test_reward_weights_and_widths(config):
    for term, (weight, std) in facts.REWARDS.items():
        assert getattr(config.rewards, term) == weight, term
        assert getattr(config.rewards, f"{term}_std", None) == std, term
    assert config.rewards.contact_term == "links"
    assert config.rewards.contact_threshold == facts.CONTACT_THRESHOLD
    fields = {item.name for item in dataclasses.fields(config.rewards)}
    widths = {f"{term}_std" for term, (_, std) in facts.REWARDS.items() if std is not None}
    others = {"contact_term", "contact_threshold", *rewards.OPTIONAL}
    assert fields - widths - set(facts.REWARDS) == others
    assert not any(getattr(config.rewards, name) for name in rewards.OPTIONAL)


def test_perfect_tracking_pays_five_a_second():
    positive = [weight for weight, std in facts.REWARDS.values() if std is not None]
    assert sum(positive) == facts.MAX_REWARD_PER_SECOND
    config = TRAIN.rewards
    terms = [term for term, (_, std) in facts.REWARDS.items() if std is not None]
    assert sum(getattr(config, term) for term in terms) == facts.MAX_REWARD_PER_SECOND


@pytest.mark.parametrize(("term", "std"), [(k, s) for k, (_, s) in facts.REWARDS.items() if s])
def test_a_term_is_one_at_no_error_and_one_over_e_at_its_width(term, std):
    """All bodies are off by exactly `std`, m or rad or m/s or rad/s."""
    bodies = () if term.startswith("anchor") else (14,)
    if term.endswith("ori"):
        square, good = rewards.square_angle, np.tile([1.0, 0, 0, 0], (2, *bodies, 1))
        bad = np.zeros_like(good)
        bad[..., 0], bad[..., 2] = math.cos(std / 2), math.sin(std / 2)
    else:
        square = rewards.square_distance
        good = np.random.default_rng(0).normal(size=(2, *bodies, 3))
        bad = good + std * np.array([0.6, 0.0, -0.8])
    # A handful of float64 operations and one exponential.
    pays = rewards.gaussian(square(good, good), std), rewards.gaussian(square(bad, good), std)
    np.testing.assert_allclose(pays[0], [1, 1], rtol=1e-12)
    np.testing.assert_allclose(pays[1], [0.36787944117144233] * 2, rtol=1e-9)


def test_undesired_contacts_leave_out_hands_and_feet():
    assert not set(mjcf.CONTACT_BODIES) & facts.END_EFFECTORS
    named = {"pelvis", "torso_link", "left_knee_link", "right_knee_link", "left_elbow_link"}
    assert named <= set(mjcf.CONTACT_BODIES)


def test_joint_limit_counts_radians_beyond_the_soft_range():
    joint_pos = np.zeros((1, 29))
    knee = g1.JOINT_NAMES.index("left_knee_joint")
    joint_pos[0] = g1.DEFAULT_JOINT_POS
    assert rewards.joint_limit(joint_pos, *g1.soft_joint_range().T)[0] == 0
    joint_pos[0, knee] = 0.0  # a straight knee is 0.0610863 below its soft limit
    assert rewards.joint_limit(joint_pos, *g1.soft_joint_range().T)[0] == pytest.approx(
        0.0610863, abs=1e-7
    )


@BOTH
def test_failures_and_time_limit(config):
    assert config.failure == "train"
    assert config.failure_height == facts.FAILURE_HEIGHT
    assert config.failure_tilt == facts.FAILURE_TILT
    assert config.episode_s == facts.EPISODE
    assert round(config.episode_s / track_config.CONTROL_DT) == facts.EPISODE_STEPS


@pytest.mark.parametrize("name", ["clip", "robust"])
def test_evaluation_fails_by_pelvis_height_and_tilt(name):
    config = TrackConfig.preset(name)
    assert config.failure == "pelvis"
    assert config.failure_height == facts.FAILURE_HEIGHT
    assert config.failure_tilt == facts.FAILURE_TILT
    assert config.episode_s is None and config.start.mode == "first"
    disturbed = (config.noise, config.reset_noise, config.randomization, config.pushes)
    assert disturbed == (name == "robust",) * 4


def test_tilt_is_the_difference_of_gravity_in_the_body_frame():
    # cos(a) = 0.2 is the angle from upright at which the projection has changed by 0.8.
    ref = np.array([[1.0, 0, 0, 0]] * 2)
    angle = math.acos(1 - facts.FAILURE_TILT)
    quat = np.array(
        [[math.cos(a / 2), math.sin(a / 2), 0, 0] for a in (angle - 1e-6, angle + 1e-6)]
    )
    assert terminations.tilt_off(quat, ref, facts.FAILURE_TILT).tolist() == [False, True]


# --- randomization, start state, timing ----------------------------------------------------------


@BOTH
def test_randomization(config):
    assert config.randomization and config.randomize.when == "startup"
    assert config.randomize.foot_friction == facts.FOOT_FRICTION_RANGE
    assert config.randomize.joint_offset == facts.JOINT_OFFSET
    assert config.randomize.torso_com == facts.TORSO_COM
    assert mjcf.FOOT_FRICTION == facts.FOOT_FRICTION


@BOTH
def test_pushes(config):
    assert config.pushes
    assert config.push.interval_s == facts.PUSH_INTERVAL
    assert config.push.lin_vel == facts.PUSH_LIN_VEL
    assert config.push.ang_vel == facts.PUSH_ANG_VEL


@BOTH
def test_start_state_noise(config):
    assert config.reset_noise
    assert config.reset.pos == facts.RESET_POS
    assert config.reset.rot == facts.RESET_ROT
    assert config.reset.lin_vel == facts.PUSH_LIN_VEL  # the same ranges as the pushes
    assert config.reset.ang_vel == facts.PUSH_ANG_VEL
    assert config.reset.joint_pos == facts.RESET_JOINT_POS


def test_published_choices_where_ours_are_repairs():
    assert (PUBLISHED.reset.joint_clip, PUBLISHED.reset.lift_feet) == ("soft", False)
    assert PUBLISHED.stale_targets and not TRAIN.stale_targets
    assert not PUBLISHED.rotate_velocity_targets
    assert PUBLISHED.lead == 1
    start = PUBLISHED.start
    assert (start.mode, start.statistic, start.mix) == ("adaptive", "count", "additive")


@BOTH
def test_timing(config):
    assert config.model.physics_dt == facts.PHYSICS_DT
    assert config.decimation == facts.DECIMATION
    assert track_config.CONTROL_DT == policy.CONTROL_DT == facts.CONTROL_DT


# --- adaptive sampling ---------------------------------------------------------------------------


def test_sampling_constants():
    for name, value in facts.SAMPLING.items():
        assert getattr(PUBLISHED.start, name) == value, name


def published_sampler(frames):
    return StartSampler([frames], fps=50, **dataclasses.asdict(PUBLISHED.start))


@pytest.mark.parametrize(("frames", "bins"), [(49, 1), (50, 2), (499, 10), (500, 11), (6574, 132)])
def test_number_of_bins(frames, bins):
    assert published_sampler(frames).num_bins == bins  # floor(T / 50) + 1


def test_published_sampling_arithmetic():
    sampler = published_sampler(500)
    frame = np.array([0, 44, 45, 46, 499])
    assert sampler.bin_of(np.zeros(5, int), frame).tolist() == [0, 0, 0, 1, 10]  # floor(11 t / 500)
    np.testing.assert_allclose(sampler.probabilities(), np.full(11, 1 / 11), rtol=1e-12)
    failed = np.array([False, True, True, True, True])
    bins = sampler.bin_of(np.zeros(5, int), frame)
    sampler.record(bins, failed)
    failures = np.zeros(11)
    failures[[0, 1, 10]] = 0.001 * np.array([2, 1, 1])
    weights = failures + 0.1 / 11
    np.testing.assert_allclose(sampler.probabilities(), weights / weights.sum(), rtol=1e-12)
    sampler.record(bins, np.zeros(5, bool))
    weights = 0.999 * failures + 0.1 / 11
    np.testing.assert_allclose(sampler.probabilities(), weights / weights.sum(), rtol=1e-12)


# --- PPO -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ppo():
    path = Path(__file__).resolve().parents[3] / "algos" / "ppo_track.py"
    spec = importlib.util.spec_from_file_location("ppo_track", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["ppo_track"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_published_ppo(ppo):
    config, expected = ppo.published(), facts.PPO
    assert config.num_envs == expected["num_envs"]
    assert config.num_steps == expected["num_steps"]
    iterations = config.total_timesteps / (config.num_envs * config.num_steps)
    assert iterations == expected["iterations"]
    assert config.update_epochs == expected["epochs"]
    assert config.num_minibatches == expected["mini_batches"]
    assert (config.gamma, ppo.GAE_LAMBDA["published"]) == (expected["gamma"], expected["lambda"])
    assert ppo.CLIP == expected["clip"]
    assert ppo.VALUE_COEF == expected["value_coefficient"]
    assert ppo.constants(config)["clip_vloss"] is expected["clip_value_loss"]
    assert ppo.ENT_COEF["published"] == expected["entropy_coefficient"]
    assert config.learning_rate == expected["learning_rate"]
    assert ppo.MAX_GRAD_NORM == expected["max_grad_norm"]
    assert (config.schedule, ppo.DESIRED_KL) == ("adaptive", expected["desired_kl"])
    assert config.hidden == expected["hidden"]
    assert ppo.constants(config)["activation"] == expected["activation"]
    assert config.init_std == expected["initial_std"]
    assert config.residual is False
    assert config.task == PUBLISHED


def test_published_networks(ppo):
    config = ppo.published()
    actor = ppo.make_actor(config, np.zeros(29, np.float32), np.ones(29, np.float32))
    assert sum(p.numel() for p in actor.parameters()) == facts.ACTOR_PARAMETERS
    obs = ppo.torch.full((1, 160), 2.02)  # mean 0 and standard deviation 1 at first
    expected = 2.02 / (1 + facts.PPO["normalizer_epsilon"])
    assert actor.normalize(obs).numpy() == pytest.approx(expected, rel=1e-6)  # float32
    std = actor.log_std.exp().detach().numpy()
    assert std == pytest.approx(facts.PPO["initial_std"], rel=1e-6)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.0, 1), (0.0049, 1.5), (0.0051, 1), (0.0199, 1), (0.0201, 1 / 1.5)],
)
def test_learning_rate_follows_the_divergence(ppo, kl, factor):
    desired = facts.PPO["desired_kl"]
    assert adaptive_learning_rate(1e-3, kl, desired) == pytest.approx(1e-3 * factor, rel=1e-12)


def test_learning_rate_stays_in_its_range(ppo):
    low, high = facts.LEARNING_RATE_RANGE
    desired = facts.PPO["desired_kl"]
    assert adaptive_learning_rate(low, 1.0, desired) == low
    assert adaptive_learning_rate(high, 1e-4, desired) == high


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    frames = 5
    joint_pos = np.tile(g1.DEFAULT_JOINT_POS, (frames, 1)) + 0.01 * np.arange(frames)[:, None]
    root_pos = np.tile([0.0, 0.0, facts.DEFAULT_ROOT_HEIGHT], (frames, 1))
    root_quat = np.tile([1.0, 0, 0, 0], (frames, 1))
    return clips.clip_from_states(
        "five", 50.0, root_pos, root_quat, joint_pos, source="test", licence="ours"
    )


def test_onnx_names_and_shapes(clip, tmp_path):
    onnx = pytest.importorskip("onnx")
    spec = policy.PolicySpec.for_g1()
    mlp = policy.MLP(
        np.zeros(160), np.ones(160), (np.zeros((29, 160)),), (np.zeros(29),)
    )  # fmt: skip
    policy.write_onnx(tmp_path / "policy.onnx", mlp, spec, clip)
    model = onnx.load(tmp_path / "policy.onnx")

    def shapes(values):
        for value in values:
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes(model.graph.input) == facts.ONNX_INPUTS
    assert shapes(model.graph.output) == facts.ONNX_OUTPUTS
    metadata = {item.key: item.value for item in model.metadata_props}
    assert facts.METADATA_KEYS | facts.MJ_METADATA_KEYS <= set(metadata)
    # The controller's reader splits at commas and trims no names.
    for key in ("joint_names", "body_names", "observation_names", "command_names"):
        assert not set(metadata[key]) & set(" []'\"")
    assert metadata["command_names"] == "motion"
    assert metadata["anchor_body_name"] == facts.ANCHOR
    assert metadata["joint_names"].split(",") == list(facts.JOINTS)
    assert metadata["body_names"].split(",") == list(facts.TRACKED_BODIES)
    assert metadata["observation_names"].split(",") == list(facts.POLICY_OBSERVATION)
    lengths = [int(float(part)) for part in metadata["observation_history_lengths"].split(",")]
    assert lengths == [1] * 8
    for key, column in [("joint_stiffness", 10), ("joint_damping", 11), ("action_scale", 12),
                        ("default_joint_pos", 5)]:  # fmt: skip
        values = [float(part) for part in metadata[key].split(",")]
        assert values == pytest.approx([row[column] for row in facts.JOINTS.values()], rel=1e-7)


def test_metadata_numbers_have_all_their_digits():
    metadata = policy.PolicySpec.for_g1().to_metadata()
    for key, table in [("joint_stiffness", g1.STIFFNESS), ("action_scale", g1.ACTION_SCALE)]:
        assert [float(part) for part in metadata[key].split(",")] == table.tolist()


def test_motion_files(clip, tmp_path):
    assert motion_csv.COLUMNS == facts.CSV_COLUMNS
    assert clips.ARRAY_SHAPES == facts.NPZ_ARRAYS
    path = tmp_path / "five.npz"
    clips.save_npz(clip, path)
    with np.load(path, allow_pickle=False) as data:
        assert data["fps"].shape == (1,) and data["fps"][0] == 50
        for key, shape in facts.NPZ_ARRAYS.items():
            assert (data[key].shape, data[key].dtype) == ((5, *shape), np.float32)
        assert data["joint_names"].tolist() == list(facts.JOINTS)
