"""Two public trackers, trained in other simulators, run in a second implementation of the env.

Everything about the observation, the action and the reference is written again here on plain MuJoCo
and compared with numbers and rollouts that were recorded elsewhere (MuJoCo 3.11.0; the oracle
folder's README). Only the robot model comes from `bm_envs`. The environment itself is compared with
the rollouts in `test_track_benchmark.py`.
"""

import os
from pathlib import Path

import mujoco
import numpy as np
import onnxruntime
import pytest
from oracle_dance import dance_config

from bm_envs.robots import g1, mjcf

DATA = Path(os.environ.get("BM_DATA_DIR", "/nonexistent"))
ORACLES = DATA / "oracle_policies"
pytestmark = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="BM_DATA_DIR with oracle_policies/ is not set"
)


def network(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def matrix(quat):
    out = np.empty(9)
    mujoco.mju_quat2Mat(out, np.asarray(quat, float))
    return out.reshape(3, 3)


class PlainTracker:
    """The jump or dance policy on one MuJoCo robot; joint arrays in the policy's order."""

    def __init__(self, session, joint_names, q0, scale, kp, kd, reference):
        self.session, self.reference = session, reference  # reference(k) -> dict of frame k
        self.q0, self.scale = np.asarray(q0), np.asarray(scale)
        # The rollouts were made with the 7-capsule feet of mjlab's model.
        self.model = mjcf.compile_model(mjcf.ModelConfig(feet="capsules"))
        self.data = mujoco.MjData(self.model)
        self.order = [self.model.actuator(name).id for name in joint_names]
        self.model.actuator_gainprm[self.order, 0] = kp
        self.model.actuator_biasprm[self.order, 1] = -np.asarray(kp)
        self.model.actuator_biasprm[self.order, 2] = -np.asarray(kd)
        self.action = np.zeros(29, np.float32)

    def set_state(self, qpos, qvel):
        self.data.qpos, self.data.qvel = qpos, qvel
        mujoco.mj_forward(self.model, self.data)

    def observe(self, k):
        ref = self.reference(k)
        torso = self.data.body("torso_link").xmat.reshape(3, 3)
        relative = torso.T @ matrix(ref["anchor_quat"])
        return np.concatenate([
            ref["joint_pos"], ref["joint_vel"], relative[:, :2].ravel(), self.data.qvel[3:6],
            self.data.qpos[7:][self.order] - self.q0, self.data.qvel[6:][self.order], self.action,
        ]).astype(np.float32)  # fmt: skip

    def act(self, obs):
        feed = {"obs": obs[None]}
        if len(self.session.get_inputs()) == 2:
            feed["time_step"] = np.zeros((1, 1), np.float32)
        return self.session.run(["actions"], feed)[0][0]

    def step(self, action, fresh=True):
        self.action = action
        self.data.ctrl[self.order] = self.q0 + self.scale * action
        mujoco.mj_step(self.model, self.data, 4)
        if fresh:  # else link poses belong to the state before the last of the four steps
            mujoco.mj_forward(self.model, self.data)

    def joint_error(self, k):
        return np.abs(self.data.qpos[7:][self.order] - self.reference(k)["joint_pos"]).mean()


@pytest.fixture(scope="module")
def jump():
    session = network(ORACLES / "jump_wose" / "Jump_wose.onnx")
    meta = session.get_modelmeta().custom_metadata_map
    keys = ("default_joint_pos", "action_scale", "joint_stiffness", "joint_damping")
    numbers = {key: [float(v) for v in meta[key].split(",")] for key in keys}
    names = [output.name for output in session.get_outputs()]
    torso = meta["body_names"].split(",").index("torso_link")

    def frame(k):
        feed = {"obs": np.zeros((1, 154), np.float32), "time_step": np.array([[k]], np.float32)}
        out = dict(zip(names, session.run(None, feed), strict=True))
        return {
            "joint_pos": out["joint_pos"][0], "joint_vel": out["joint_vel"][0],
            "anchor_quat": out["body_quat_w"][0, torso],
        }  # fmt: skip

    frames = [frame(k) for k in range(165)]
    tracker = PlainTracker(
        session, meta["joint_names"].split(","), numbers["default_joint_pos"],
        numbers["action_scale"], numbers["joint_stiffness"], numbers["joint_damping"],
        lambda k: frames[min(k, 164)],
    )  # fmt: skip
    return tracker, np.load(ORACLES / "jump_wose" / "rollout.npz")


def resample(path, fps=50.0):
    """The 30 Hz CSV at 50 Hz (lerp, slerp): root position and quaternion, joints, joint speeds."""
    rows = np.loadtxt(path, delimiter=",")
    length = (len(rows) - 1) / 30.0
    place = np.arange(0, length, 1 / fps) * 30.0
    low = np.minimum(place.astype(int), len(rows) - 2)
    blend = place - low
    values = rows[low] * (1 - blend[:, None]) + rows[low + 1] * blend[:, None]
    a, b = (rows[i][:, [6, 3, 4, 5]] for i in (low, low + 1))
    a, b = (q / np.linalg.norm(q, axis=1, keepdims=True) for q in (a, b))
    b = b * np.where((a * b).sum(1, keepdims=True) < 0, -1, 1)
    # The angle between them by its half's sine: an arccos near 1 loses half the digits.
    angle = 2 * np.arcsin(np.linalg.norm(b - a, axis=1, keepdims=True) / 2)
    blend, sine = blend[:, None], np.where(angle < 1e-9, 1, np.sin(angle))
    shares = [np.where(angle < 1e-9, w, np.sin(w * angle) / sine) for w in (1 - blend, blend)]
    quat = shares[0] * a + shares[1] * b
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    return values[:, :3], quat, values[:, 7:], np.gradient(values[:, 7:], 1 / fps, axis=0)


@pytest.fixture(scope="module")
def dance():
    csv = DATA / "lafan1_g1" / "dance1_subject2.csv"
    if not csv.is_file():
        pytest.skip("BM_DATA_DIR holds no lafan1_g1/dance1_subject2.csv")
    pos, quat, joints, speeds = resample(csv)
    # The README's runs used the exact gains and scales of the robot, not the rounded ones.
    config = dance_config()
    tracker = PlainTracker(
        network(ORACLES / "dance1_subject2" / "policy.onnx"), g1.JOINT_NAMES,
        config["default_joint_pos"], g1.ACTION_SCALE, g1.STIFFNESS, g1.DAMPING, None,
    )  # fmt: skip
    kinematics = mujoco.MjData(tracker.model)

    def frame(k):
        kinematics.qpos = np.r_[pos[k], quat[k], joints[k]]
        mujoco.mj_kinematics(tracker.model, kinematics)
        anchor = kinematics.body("torso_link").xquat.copy()
        return {"joint_pos": joints[k], "joint_vel": speeds[k], "anchor_quat": anchor}

    tracker.reference = frame
    rollout = np.load(ORACLES / "dance1_subject2" / "rollout_first_500.npz")
    assert len(joints) == 6574  # frames at 50 Hz, from the README
    return tracker, rollout


def check_rollout(tracker, rollout):
    """Every recorded observation, action and control period; returns the state errors `[T - 1]`.

    The recorder read the torso's orientation without a forward pass after the last of the four
    physics steps, so it is 5 ms old there; here that is reproduced, to compare to float precision.
    """
    qpos, qvel, recorded = rollout["qpos"], rollout["qvel"], rollout["obs"]
    actions, obs, stale, state_error = [], [], [], []
    for k in range(len(recorded) - 1):
        tracker.set_state(qpos[k], qvel[k])
        actions.append(tracker.act(recorded[k]))
        tracker.step(rollout["act"][k], fresh=False)
        state_error.append(np.abs(tracker.data.qpos - qpos[k + 1]).max())
        stale.append(tracker.observe(k + 1)[58:64])
        tracker.set_state(qpos[k + 1], qvel[k + 1])
        obs.append(tracker.observe(k + 1))
    obs, recorded = np.array(obs), recorded[1:]
    # One network, two runtimes: float32 sums of 512 terms in another order.
    np.testing.assert_allclose(actions, rollout["act"][:-1], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(stale, recorded[:, 58:64], atol=1e-5)
    np.testing.assert_allclose(obs[:, :58], recorded[:, :58], atol=1e-6)
    np.testing.assert_allclose(obs[:, 64:], recorded[:, 64:], atol=1e-6)
    # 5 ms of turning, at 4 rad/s and less.
    np.testing.assert_allclose(obs[:, 58:64], recorded[:, 58:64], atol=0.02)
    return np.array(state_error)


def run(tracker, rollout, steps):
    """From the recorded start: joint error before each step `[steps]`, rad."""
    tracker.set_state(rollout["qpos"][0], rollout["qvel"][0])
    tracker.action = np.zeros(29, np.float32)
    errors = []
    for k in range(steps):
        errors.append(tracker.joint_error(k))
        tracker.step(tracker.act(tracker.observe(k)), fresh=False)
    return np.array(errors)


def start(tracker, rollout):
    tracker.set_state(rollout["qpos"][0], rollout["qvel"][0])
    tracker.action = np.zeros(29, np.float32)
    obs = tracker.observe(0)
    np.testing.assert_allclose(obs, rollout["obs"][0], atol=1e-7)
    return obs, tracker.act(obs)[:6]


def test_jump_first_step(jump):
    obs, actions = start(*jump)
    # Figures of the README, eight decimals of a float32.
    np.testing.assert_allclose(obs[:3], [-0.16082656, -0.15287195, 0.00541285], atol=1e-7)
    # The README's third value here is 1.0e-6 off its own rollout file's, which `start` compares.
    np.testing.assert_allclose(obs[64:67], [-0.02112812, 0.09470247, -0.08834969], atol=1.1e-6)
    expected = [0.41259488, 0.18838821, 0.10360699, 0.62812203, 0.56898665, 0.28255802]
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_dance_first_step(dance):
    _, actions = start(*dance)
    expected = [-0.34598252, 0.68331957, 0.14799762, 0.01038798, 0.51790118, 0.06807633]
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_jump_rollout(jump):
    # Link masses and offsets are typed with six digits in both models and the engines are two
    # versions apart; measured: 2e-5 rad or m after one control period.
    assert check_rollout(*jump).max() < 1e-4


def test_dance_rollout(dance):
    # Here both sides have the same gains to the last digit; measured: 2e-15.
    assert check_rollout(*dance).max() < 1e-9


def test_jump_completes_with_the_published_error(jump):
    errors = run(*jump, 165)
    assert errors.mean() == pytest.approx(0.0648, abs=1e-4)  # README: 0.0648 rad
    np.testing.assert_allclose(errors, jump[1]["joint_error"], atol=1e-3)
    assert jump[0].data.qpos[2] > 0.7


def test_dance_follows_the_recording(dance):
    errors = run(*dance, 500)
    # Chaotic contact: the recording is followed as long as the arithmetic is the same.
    assert errors.mean() == pytest.approx(dance[1]["joint_error"].mean(), abs=5e-3)
