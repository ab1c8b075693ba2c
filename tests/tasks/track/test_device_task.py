"""The tracking task on the engine's device: it does what `TrackTask` does, under masks.

Both run on MuJoCo-Warp's CPU device here, from equal states.
"""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mujoco_warp", reason="needs the extra warp: pip install -e '.[warp]'")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from bm_envs.arrays import NUMPY, Torch  # noqa: E402
from bm_envs.backends.host import HostSimulator  # noqa: E402
from bm_envs.motion.library import load_motion  # noqa: E402
from bm_envs.robots import g1  # noqa: E402
from bm_envs.rotations import quat_mul  # noqa: E402
from bm_envs.tasks.track import rewards  # noqa: E402
from bm_envs.tasks.track.config import TrackConfig  # noqa: E402
from bm_envs.tasks.track.device import DeviceTrack  # noqa: E402
from bm_envs.tasks.track.task import TrackTask  # noqa: E402

N = 4
CLIPS = [load_motion("walk"), load_motion("turn_left")]
QUIET = dict(noise=False, reset_noise=False, randomization=False, pushes=False)
# Every optional reward counts; accelerations are in (rad/s^2)^2 and large.
ALL_TERMS = dataclasses.replace(
    TrackConfig().rewards, **{**dict.fromkeys(rewards.OPTIONAL, -0.05), "joint_accel": -2.5e-7}
)

V4 = {
    name: getattr(TrackConfig.preset("v4"), name)
    for name in ("failure_rotation", "rewards", "model", "start", "randomize")
}


def device_env(seed=0, **changes):
    return DeviceTrack(N, CLIPS, dataclasses.replace(TrackConfig(), **changes), seed=seed)


def twin(env):
    """The task in NumPy on the same robots, in the same place."""
    task = TrackTask(CLIPS, env.config, N)
    task.attach(HostSimulator(env.simulator))
    task.set_state(env.task.get_state())
    return task


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(rewards=ALL_TERMS),
        dict(failure_distance=0.3, stale_targets=True, rotate_velocity_targets=True),
        V4,
    ],
)  # fmt: skip
def test_a_step_is_that_of_the_task_in_numpy(changes):
    env = device_env(**QUIET, **changes)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(4):
        action = rng.normal(size=(N, 29)).astype(np.float32) * 0.3
        task, state = twin(env), env.get_state()
        expected = task.step(action)
        policy, critic = task.observe(slice(None), None)
        env.set_state(state)  # the same engine went on: back to before the step
        found = env.step(torch.from_numpy(action))
        # Sums of the same products in another order, in float32.
        np.testing.assert_allclose(found.values, expected.values, atol=2e-6)
        np.testing.assert_allclose(found.reward, expected.reward, atol=2e-6)
        np.testing.assert_array_equal(found.terminated, expected.terminated)
        np.testing.assert_array_equal(found.truncated, expected.truncated)
        np.testing.assert_allclose(found.final_critic_obs, critic, atol=2e-5)
        assert not (expected.terminated | expected.truncated).any(), "premise: all go on"
        np.testing.assert_allclose(found.obs, policy, atol=2e-5)
        errors, wanted = env.tracking_errors(), task.tracking_errors()
        for name, values in wanted.items():
            np.testing.assert_allclose(errors[name], values, atol=1e-5, err_msg=name)
    env.close()


def test_self_contacts_and_the_rotation_are_judged_as_in_numpy():
    """Arms that meet before the body, and a robot that is turned too far from its reference."""
    env = device_env(**QUIET, **V4)
    env.reset()
    everyone = torch.ones(N, dtype=torch.bool)
    qpos, qvel = env.simulator._qpos.clone(), env.simulator._qvel.clone()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        qpos[1, 7 + g1.JOINT_NAMES.index(f"{side}_shoulder_yaw_joint")] = -1.2 * sign
        qpos[1, 7 + g1.JOINT_NAMES.index(f"{side}_shoulder_roll_joint")] = -0.1 * sign
    for robot, yaw in ((2, 0.7), (3, 0.9)):
        turn = torch.tensor([[np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]], dtype=torch.float32)
        qpos[robot, 3:7] = quat_mul(turn, qpos[robot : robot + 1, 3:7])[0]
    env.simulator.reset(everyone, qpos, qvel)
    task, state = twin(env), env.get_state()
    action = env.task.reference_action().numpy()
    expected = task.step(action)
    env.set_state(state)
    found = env.step(torch.from_numpy(action))
    contact = env.task.reward_names.index("reward_contact")
    counted = -expected.values[:, contact] / (0.1 * 0.02)
    assert counted[1] >= 2 and not counted[[0, 2, 3]].any(), "premise: only these arms touch"
    np.testing.assert_allclose(found.values, expected.values, atol=2e-6)
    assert expected.causes["anchor_rotation"].tolist() == [False, False, False, True]
    assert found.terminated.tolist() == expected.terminated.tolist() == [False] * 3 + [True]
    env.close()


def test_an_episode_that_ends_begins_anew_and_the_others_go_on():
    env = device_env(episode_s=0.06, **QUIET)
    env.reset()
    env.episode_step[:] = torch.tensor([0, 1, 2, 0])
    action = torch.full((N, 29), 0.05)
    before = env.frame.clone()
    out = env.step(action)
    assert out.truncated.tolist() == [False, False, True, False] and not out.terminated.any()
    assert env.episode_step.tolist() == [1, 2, 0, 1]
    stayed = torch.tensor([0, 1, 3])
    torch.testing.assert_close(env.frame[stayed], before[stayed] + 1)
    np.testing.assert_array_equal(out.critic_obs[stayed], out.final_critic_obs[stayed])
    assert not torch.equal(out.critic_obs[2], out.final_critic_obs[2])
    # The new one is on its reference, and has no last action.
    assert not env.action[2].any() and env.action[0].any()
    assert float(env.tracking_errors()["mpkpe_m"][2]) < 1e-5
    env.close()


def test_a_robot_that_falls_is_recorded_and_begins_anew():
    env = device_env(**QUIET)
    env.reset()
    everyone = torch.ones(N, dtype=torch.bool)
    qpos, qvel = env.simulator._qpos.clone(), env.simulator._qvel.clone()
    qpos[1, 2] -= 0.4  # a torso 0.4 m too low
    qpos[3, 0] = torch.nan
    env.simulator.reset(everyone, qpos, qvel)
    out = env.step(torch.zeros(N, 29))
    assert out.terminated.tolist() == [False, True, False, True]
    assert float(env.sampler.failures.sum()) == pytest.approx(2 * env.task.sampler.alpha)
    assert float(env.sampler.visits.sum()) == pytest.approx(N * env.task.sampler.alpha)
    assert out.reward[3] == 0 and torch.isfinite(out.obs).all()
    assert torch.isfinite(out.final_critic_obs).all()
    out = env.step(torch.zeros(N, 29))
    assert not out.terminated.any() and torch.isfinite(out.reward).all()
    env.close()


def test_starts_are_drawn_as_the_statistics_say():
    env = device_env(start=dataclasses.replace(TrackConfig().start, mode="adaptive"))
    rng = np.random.default_rng(1)
    host = env.sampler.to(NUMPY)
    for _ in range(50):
        bins, failed = rng.integers(0, host.num_bins, N), rng.random(N) < 0.3
        host.record(bins, failed)
        env.sampler.record(torch.from_numpy(bins), torch.from_numpy(failed))
    np.testing.assert_allclose(env.sampler.visits, host.visits, rtol=1e-12)
    np.testing.assert_allclose(env.sampler.failures, host.failures, rtol=1e-12)
    wanted = host.probabilities()
    np.testing.assert_allclose(env.sampler.probabilities(), wanted, rtol=1e-12)
    draws = 20_000
    clip_id, frame = (part.numpy() for part in env.sampler.sample(env.generator, draws))
    assert (frame >= 0).all() and (frame <= host.clip_frames[clip_id] - 2).all()
    counts = np.bincount(host.bin_of(clip_id, frame), minlength=host.num_bins)
    # Five standard deviations of a count, and frames on the border of two bins.
    spread = 5 * np.sqrt(draws * wanted * (1 - wanted)) + 0.02 * draws * wanted + 3
    assert (abs(counts - draws * wanted) < spread).all()
    env.close()


def test_disturbance_scales_noise_pushes_and_starts():
    spread = {}
    for level in (0.0, 1.0):
        env = device_env(seed=3)
        env.disturbance.fill_(level)
        obs, critic = env.reset()
        env.task.state.next_push[:] = 0
        out = env.step(torch.zeros(N, 29))
        columns = torch.cat([out.final_critic_obs[:, p] for p in env.task.tables.policy_columns], 1)
        spread[level] = (
            float((out.obs - columns).abs().max()),
            float(env.tracking_errors()["mpkpe_m"].max()),
        )
        assert torch.isfinite(obs).all() and torch.isfinite(critic).all()
        env.close()
    assert spread[0.0][0] == 0.0 and spread[1.0][0] > 0.1
    assert spread[0.0][1] < 0.05 < spread[1.0][1]


def test_a_saved_environment_goes_on_with_the_same_bits():
    env = device_env(seed=5)
    env.reset()
    actions = torch.randn(6, N, 29, generator=torch.Generator().manual_seed(0)) * 0.3
    for action in actions[:3]:
        env.step(action)
    state = env.get_state()
    runs = []
    other = device_env(seed=6)
    for each in (env, other):
        each.set_state(state)
        for action in actions[3:]:
            out = each.step(action)
        runs.append([out.obs.clone(), out.reward.clone(), each.frame.clone()])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)
    env.close()
    other.close()


class Kernels(TorchDispatchMode):
    """Notes the names of all that torch computes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["uniform", "adaptive", "first"])
def test_a_step_is_the_same_kernels_whatever_happens(mode, monkeypatch):
    """Which a graph must be: nothing is asked of the device, and nothing is sent there."""
    level = dataclasses.replace(TrackConfig().randomize, when="reset", action_delay=2)
    env = device_env(
        start=dataclasses.replace(TrackConfig().start, mode=mode), randomize=level,
        rewards=ALL_TERMS, failure_distance=0.3, stale_targets=True, rotate_velocity_targets=True,
    )  # fmt: skip
    env.reset()
    state = env.task.state
    env.step(torch.zeros(N, 29))
    monkeypatch.setattr(Torch, "array", None)  # sends numbers of the host
    steps, ends = [], []
    for push, age in ((10**6, 0), (0, 0), (10**6, 10**6)):  # nothing, pushes, ends
        state.next_push[:], state.episode_step[:] = push, age
        with Kernels() as kernels:
            out = env.step(torch.zeros(N, 29))
        steps.append(kernels.names)
        ends.append(int((out.terminated | out.truncated).sum()))
    assert ends[0] == 0 and ends[2] == N, "premise: something else happened"
    assert len(steps[0]) > 100 and steps[0] == steps[1] == steps[2]
    waits = ("_local_scalar_dense", "nonzero", "masked_select", "_unique")
    assert not [name for name in steps[0] if any(wait in name for wait in waits)]
    env.close()


def test_an_engine_with_numpy_arrays_is_refused():
    from bm_envs.errors import ConfigError

    with pytest.raises(ConfigError, match="backend is 'mujoco', expected one whose arrays"):
        DeviceTrack(1, CLIPS, TrackConfig(), seed=0, backend="mujoco")
