"""What disturbs imagined rollouts, against the engine's pushes and the task's numbers."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from bm_envs.backends.base import SimulatorConfig, make_simulator  # noqa: E402
from bm_envs.learning.networks import average_decay  # noqa: E402
from bm_envs.learning.noise import Disturbances, pushed  # noqa: E402
from bm_envs.learning.replay_buffer import Starts  # noqa: E402
from bm_envs.tasks.track.config import CONTROL_DT, TrackConfig, laptop_task  # noqa: E402


def drawn(task, level=1.0, *, horizon=32, pushes=True, batch=20_000):
    """Pushes of many rollouts. `[B, 6]`"""
    disturbances = Disturbances(task, horizon, 0.1, pushes=pushes)
    return disturbances.draw(batch, level, torch.Generator().manual_seed(0)).push


def test_a_push_is_the_engines():
    rng = np.random.default_rng(0)
    simulator = make_simulator("mujoco", SimulatorConfig(3, threads=1))
    qpos = np.zeros((3, 36))
    qpos[:, 2] = 1.0
    qpos[:, 3:7] = rng.normal(size=(3, 4))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qvel, push = rng.normal(size=(3, 35)), rng.normal(size=(3, 6))
    simulator.reset(np.arange(3), qpos, qvel)
    simulator.push(np.arange(3), push[:, :3], push[:, 3:])
    zeros = torch.zeros(3, 29)
    starts = Starts(
        torch.from_numpy(qpos).float(), torch.from_numpy(qvel).float(), zeros, zeros,
        zeros[:, :4],
        torch.zeros(3), torch.zeros(3),
    )  # fmt: skip
    before = starts.qvel.clone()
    found = pushed(starts, torch.from_numpy(push).float())
    # float32 has 7 digits, of velocities of some m/s.
    np.testing.assert_allclose(found.qvel.numpy(), simulator.get_state()["qvel"], atol=1e-5)
    assert torch.equal(starts.qvel, before), "the buffer's states are changed"


def test_as_many_rollouts_are_pushed_as_meet_a_push():
    task = laptop_task()
    share = (drawn(task).abs().sum(1) > 0).float().mean().item()
    # 32 steps of 0.02 s, where a push comes every 2 s on average. Of 20,000 draws the standard
    # error is 0.0033.
    assert share == pytest.approx(32 * CONTROL_DT / 2.0, abs=0.015)


def test_a_push_is_as_hard_as_the_tasks():
    task = laptop_task()
    widths = torch.tensor([*task.push.lin_vel, *task.push.ang_vel])
    for level in (0.5, 1.0):
        # The largest of some 6,000 even draws is within 1 % of the bound.
        torch.testing.assert_close(
            drawn(task, level).abs().amax(0), level * widths, rtol=0.01, atol=0
        )


@pytest.mark.parametrize("case", ["level 0", "switched off", "a task without pushes"])
def test_without_pushes(case):
    task = laptop_task()
    if case == "a task without pushes":
        task = dataclasses.replace(task, pushes=False)
    level = 0.0 if case == "level 0" else 1.0
    assert not drawn(task, level, pushes=case != "switched off", batch=50).any()


def test_every_rollout_is_pushed_where_pushes_come_faster_than_it_ends():
    task = TrackConfig().override({"push": {"interval_s": (0.1, 0.2)}})
    assert (drawn(task, batch=500).abs().sum(1) > 0).all()


@pytest.mark.parametrize("share", [0.125, 0.5])
def test_the_average_is_over_a_share_of_the_updates(share):
    # The weight of update i in the average after t is (1 - d_i) times the later decays.
    count = 4000
    decays = np.array([average_decay(t, share, 1.0) for t in range(1, count + 1)])
    weights = (1 - decays) * np.append(np.cumprod(decays[:0:-1])[::-1], 1.0)
    assert weights.sum() == pytest.approx(1.0)
    # By a power law i^(1 / share - 1) the mean age is t / (1 / share + 1).
    age = (weights * (count - np.arange(1, count + 1))).sum()
    assert age == pytest.approx(count / (1 / share + 1), rel=0.01)


def test_the_average_is_no_longer_than_allowed():
    assert average_decay(1, 0.125, 0.9) == 0.0
    assert average_decay(10**6, 0.125, 0.9) == 0.9
