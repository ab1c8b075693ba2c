"""The loop over episodes, against the single environment stepped by hand, and its failure rules."""

import numpy as np
import pytest

from bm_envs import evaluation
from bm_envs.envs import TrackEnv, TrackVectorEnv
from bm_envs.errors import ConfigError
from bm_envs.motion.library import load_motion
from bm_envs.robots import g1

# Open-loop targets keep a standing robot up for about a second.
MOTIONS = ("stand[0:0.4]", "walk[0:3]", "stand[0:3]")


def follow(obs):
    """Targets are the reference's joints, the first 29 values shown."""
    return ((obs[:, :29] - g1.DEFAULT_JOINT_POS) / g1.ACTION_SCALE).astype(np.float32)


def vector_env(*motions, **arguments):
    clips = [load_motion(name) for name in motions]
    return TrackVectorEnv(
        len(clips), clips, autoreset_mode="disabled", critic="none", threads=1,
        **{"preset": "clip", **arguments},
    )  # fmt: skip


@pytest.fixture(scope="module")
def episodes():
    env = vector_env(*MOTIONS)
    yield evaluation.run_episodes(follow, env)
    env.close()


@pytest.mark.parametrize("index", range(len(MOTIONS)))
def test_a_clip_each_equals_the_single_environment(episodes, index):
    env = TrackEnv(load_motion(MOTIONS[index]), preset="clip")
    obs, _ = env.reset(seed=0)
    rewards, errors, terminated, truncated = [], [], False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, _ = env.step(follow(obs[None])[0])
        rewards.append(reward)
        if not terminated:
            errors.append({k: v[0] for k, v in env.task.tracking_errors().items()})
    env.close()
    assert truncated == (index == 0), "premise: the first is completed, the others fall"
    assert len(errors) > 5
    assert bool(episodes.completed[index]) == truncated
    assert episodes.reached[index] == episodes.compared[index] == len(errors)
    # The same float32 numbers; sums differ by rounding at most.
    assert episodes.returns[index] == pytest.approx(sum(rewards), rel=1e-5)
    assert set(episodes.errors) == set(errors[0])
    for name, value in episodes.errors.items():
        assert value[index] == pytest.approx(np.mean([row[name] for row in errors]), rel=1e-5)
    # A reward is the sum of its terms; the step that fails is not among those compared.
    total = sum(value[index] for value in episodes.terms.values()) * len(errors)
    assert total == pytest.approx(sum(rewards[: len(errors)]), rel=1e-5, abs=1e-6)


def test_robots_whose_episode_is_over_lie_still(monkeypatch):
    env = vector_env("stand[0:0.4]", "walk[0:3]")
    taken, step = [], env.step
    monkeypatch.setattr(env, "step", lambda action: taken.append(action.copy()) or step(action))
    found = evaluation.run_episodes(follow, env)
    moved = np.abs(taken).max(2) > 0  # steps, robots
    assert found.completed.tolist() == [True, False] and len(moved) == found.reached[1] + 1
    assert moved[:20, 0].all() and not moved[20:, 0].any() and moved[:, 1].all()
    env.close()


def test_a_rule_of_ones_own_ends_the_survival_and_not_the_episode():
    env = vector_env(MOTIONS[0], MOTIONS[0])
    frames, seen = [], []

    def failed(env):  # the second robot, in frames 5 to 7
        return np.array([False, 5 <= env.task.frame[1] <= 7])

    def on_frame(present):
        assert present.all()
        frames.append(env.task.frame.tolist())
        seen.append(env.task.tracking_errors()["mpkpe_m"])

    found = evaluation.run_episodes(follow, env, failed=failed, on_frame=on_frame)
    assert frames == [[t, t] for t in range(21)]
    assert found.completed.tolist() == [True, False]
    assert found.reached.tolist() == found.compared.tolist() == [20, 4]
    expected = [np.mean([row[0] for row in seen[1:]]), np.mean([row[1] for row in seen[1:5]])]
    np.testing.assert_allclose(found.errors["mpkpe_m"], expected, rtol=1e-5)

    whole = evaluation.run_episodes(follow, env, failed=failed, past_failure=True)
    assert whole.reached.tolist() == [20, 4] and whole.compared.tolist() == [20, 20]
    assert whole.errors["mpkpe_m"][0] == whole.errors["mpkpe_m"][1]  # one robot twice
    np.testing.assert_array_equal(whole.returns, found.returns)
    assert not whole.completed[1]
    env.close()


def test_a_failure_in_the_first_step_leaves_no_errors():
    env = vector_env(MOTIONS[0])
    found = evaluation.run_episodes(follow, env, failed=lambda env: np.array([True]))
    assert found.reached[0] == found.compared[0] == 0 and not found.completed[0]
    assert all(np.isnan(value[0]) for value in found.errors.values())
    env.close()


def test_rules_about_the_root():
    """Bounds of the protocols: 0.25 m either way, 0.8 in the z component; a fall is 0.3 m down."""
    clip = load_motion("stand")
    drops = np.array([0.0, 0.24, 0.26, 0.29, 0.31, -0.26, -0.31, 0.0, 0.0])
    tilts = np.zeros(9)
    tilts[-2:] = np.arccos(1 - 0.79), np.arccos(1 - 0.81)  # about x, from nearly upright
    env = TrackVectorEnv(
        len(drops), clip, preset="clip", autoreset_mode="disabled", critic="none", threads=1
    )
    env.reset(seed=0)
    root = clip.body_pos_w[0, 0].astype(np.float64)
    assert clip.body_quat_w[0, 0, 0] > 0.9999, "premise: the reference stands upright"
    qpos = np.tile(np.r_[root, 1, 0, 0, 0, clip.joint_pos[0]], (len(drops), 1))
    qpos[:, 2] -= drops
    qpos[:, 3], qpos[:, 4] = np.cos(tilts / 2), np.sin(tilts / 2)
    zeros = np.zeros((len(drops), 35), np.float32)
    env.simulator.reset(np.arange(len(drops)), qpos.astype(np.float32), zeros)
    assert evaluation.has_fallen(env).tolist() == [d > 0.3 for d in drops]
    off = [abs(d) > 0.25 for d in drops]
    assert evaluation.pelvis_is_off(env).tolist() == [*off[:-1], True]
    env.close()


def test_episodes_add_up():
    def part(count, value):
        each = np.full(count, value)
        return evaluation.Episodes(
            each > 1, each, each, each, {"e": each}, {"t": each}, {"q": each}
        )

    both = evaluation.Episodes.concatenate([part(2, 1), part(1, 2)])
    assert both.completed.tolist() == [False, False, True]
    for values in (
        both.reached, both.compared, both.returns, both.errors["e"], both.terms["t"],
        both.quality["q"],
    ):  # fmt: skip
        assert values.tolist() == [1, 1, 2]


def test_an_environment_that_resets_itself_is_refused():
    env = TrackVectorEnv(1, "stand", preset="clip", threads=1)
    with pytest.raises(ConfigError, match="needs an environment with autoreset_mode='disabled'"):
        evaluation.run_episodes(follow, env)
    env.close()
