"""The truth that backends are compared with: one robot in a plain loop of `mujoco.mj_step`.

Float64, no batch, no thread, no state of ours; it runs wherever any MuJoCo is installed.
"""

from __future__ import annotations

import mujoco
import numpy as np

from bm_envs.robots import g1, mjcf

STAND = np.concatenate([
    [0, 0, g1.POSES["KNEES_BENT"].root_height, 1, 0, 0, 0], g1.DEFAULT_JOINT_POS
])  # fmt: skip
WEIGHT = 33.341142 * 9.81  # N; the mass is the table's sum


def random_states(count: int, seed: int = 0, height: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """`qpos [N, 36]`, `qvel [N, 35]` of robots anywhere, turned anyhow; exact in float32."""
    rng = np.random.default_rng(seed)
    qpos = np.tile(STAND, (count, 1))
    qpos[:, :2] += rng.uniform(-3, 3, (count, 2))
    qpos[:, 2] = height
    quat = rng.normal(size=(count, 4))
    qpos[:, 3:7] = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    qpos[:, 7:] += rng.uniform(-0.3, 0.3, (count, 29))
    qvel = rng.normal(size=(count, 35))
    return qpos.astype(np.float32).astype(float), qvel.astype(np.float32).astype(float)


class Plain:
    """One robot. `data` is up to date with its own state."""

    def __init__(self, qpos: np.ndarray, qvel: np.ndarray, *, limp: bool = False) -> None:
        self.model = mjcf.compile_model()
        if limp:
            self.model.actuator_gainprm[:] = self.model.actuator_biasprm[:] = 0.0
        self._stepped, self.data = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self._stepped.qpos, self._stepped.qvel = qpos, qvel
        self._look()

    def step(self, target: np.ndarray, substeps: int = 4) -> None:
        """A control step."""
        self._stepped.ctrl = target
        for _ in range(substeps):
            mujoco.mj_step(self.model, self._stepped)
        self._look()

    def _look(self) -> None:
        # Apart: `mj_forward` would leave the solver another place to begin the next step from.
        self.data.qpos, self.data.qvel = self._stepped.qpos, self._stepped.qvel
        mujoco.mj_forward(self.model, self.data)

    def links(self) -> dict[str, np.ndarray]:
        """What a simulator tells of the tracked links, `[K, ...]`, and velocities of their CoM."""
        ids = [self.model.body(name).id for name in g1.TRACKED_BODIES]
        velocity = {"xbody": np.zeros((len(ids), 6)), "body": np.zeros((len(ids), 6))}
        for kind, out in velocity.items():
            frame = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
            for k, body in enumerate(ids):
                mujoco.mj_objectVelocity(self.model, self.data, frame, body, out[k], 0)
        return {
            "body_pos": self.data.xpos[ids], "body_quat": self.data.xquat[ids],
            "body_axes": self.data.xmat[ids].reshape(-1, 3, 3).swapaxes(1, 2),
            "body_lin_vel": velocity["xbody"][:, 3:], "body_ang_vel": velocity["xbody"][:, :3],
            "com_vel": velocity["body"][:, 3:],
        }  # fmt: skip

    def momentum(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Center of mass, m, angular momentum about it, kg m^2/s, and its velocity, m/s."""
        mujoco.mj_subtreeVel(self.model, self.data)
        data = self.data
        return tuple(
            np.array(values[0])
            for values in (data.subtree_com, data.subtree_angmom, data.subtree_linvel)
        )

    def effective_inertia(self, dof: int) -> float:
        """What a torque on this degree of freedom has to accelerate, all else free: 1 / M^-1."""
        unit, response = np.zeros((2, 1, self.model.nv))
        unit[0, dof] = 1.0
        mujoco.mj_solveM(self.model, self.data, response, unit)
        return 1.0 / response[0, dof]
