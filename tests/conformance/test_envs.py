"""Environments on every backend are the same to their users: spaces, info, resets, errors."""

import gymnasium
import numpy as np
import pytest

import bm_envs  # noqa: F401 (registers the environments)
from bm_envs.backends.base import SimulatorConfig, backend_names, make_simulator
from bm_envs.errors import BackendUnavailable
from bm_envs.policy import load_policy

# Of a tracking environment: after a reset, and after a step beside the reward's terms.
INFO = {"clip", "frame", "critic_obs", "termination"}
REWARDS = {
    f"reward_{name}"
    for name in (
        "anchor_pos", "anchor_ori", "body_pos", "body_ori", "body_lin_vel", "body_ang_vel",
        "action_rate", "joint_limit", "contact",
    )
}  # fmt: skip


def test_a_single_environment_has_the_spaces_and_info_of_any_other(backend, bounds):
    env = gymnasium.make("BMTrack-G1-v0", backend=backend)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (160,), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-10, 10, (29,), np.float32)
    obs, info = env.reset(seed=0, options={"frame": 30})
    assert obs.dtype == np.float32 and env.observation_space.contains(obs)
    assert set(info) == INFO | REWARDS and info["frame"] == 30
    assert not any(info[name] for name in REWARDS)
    again, _ = env.reset(seed=0, options={"frame": 30})
    np.testing.assert_allclose(obs, again, rtol=0, atol=0 if bounds.deterministic else 1e-6)
    obs, reward, terminated, truncated, info = env.step(np.zeros(29, np.float32))
    assert set(info) == INFO | REWARDS and info["frame"] == 31
    assert type(reward) is float and (terminated, truncated) == (False, False)
    assert reward == pytest.approx(sum(info[name] for name in REWARDS), abs=1e-6)
    env.close()


def test_any_engines_robot_is_drawn(backend):
    """By MuJoCo's renderer, from the state; Isaac Lab brings an older one."""
    env = gymnasium.make("BMTrack-G1-v0", backend=backend, render_mode="rgb_array")
    pictures = []
    for frame in (0, 400):
        env.reset(seed=0, options={"frame": frame})
        try:
            pictures.append(env.render())
        except BackendUnavailable as error:
            pytest.skip(str(error))
    assert pictures[0].shape == (480, 640, 3) and pictures[0].std() > 10
    assert (pictures[0] != pictures[1]).any()
    env.close()


def test_a_guided_environment_runs(backend):
    env = gymnasium.make_vec("BMGuided-G1-Joystick-v0", num_envs=2, backend=backend)
    obs, info = env.reset(seed=[3, 4])
    assert obs.shape == (2, 312) and env.observation_space.contains(obs)
    for _ in range(5):
        obs, reward, terminated, truncated, info = env.step(np.zeros((2, 29), np.float32))
    assert env.observation_space.contains(obs) and np.isfinite(reward).all()
    np.testing.assert_allclose(info["time_s"], 0.1)
    assert not (terminated | truncated).any()
    env.close()


def test_the_shipped_walk_walks_for_two_seconds(backend):
    """Ten times as long as a robot that holds still takes to be off by a step."""
    policy = load_policy("walk")
    from bm_envs.envs import TrackEnv
    from bm_envs.evaluation import in_project_order, protocol_task

    env = TrackEnv("walk", backend=backend, config=protocol_task(policy, "clip"))
    act = in_project_order(policy)
    obs, _ = env.reset(seed=0, options={"frame": 100})
    for _ in range(100):
        obs, _, terminated, _, _ = env.step(act(obs[None])[0])
        assert not terminated
    errors = env.task.tracking_errors()
    assert env.task.frame[0] == 200 and errors["mpkpe_m"][0] < 0.15
    env.close()


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch):
    """Whatever is here: as if the engine's package were not."""
    import sys

    packages = {"mujoco_warp": "mujoco_warp", "isaaclab": "isaaclab", "isaaclab_physx": "isaaclab"}
    for name in backend_names():
        if name not in packages:
            continue
        for module in [
            m for m in sys.modules if m.startswith(("bm_envs.backends.", packages[name]))
        ]:
            if module not in ("bm_envs.backends.base", "bm_envs.backends.host"):
                monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, packages[name], None)
        extra = "warp" if name == "mujoco_warp" else "isaaclab"
        with pytest.raises(BackendUnavailable) as caught:
            make_simulator(name, SimulatorConfig(1))
        text = str(caught.value)
        assert text.startswith(f"backend='{name}' needs the package {packages[name]}")
        assert f"pip install 'bm-envs[{extra}]'" in text and text.count(". ") == 0
        # Beside MuJoCo 4 it cannot be.
        assert ("tools/isaaclab_env" in text) == (extra == "isaaclab")
