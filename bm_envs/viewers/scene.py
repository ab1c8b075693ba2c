"""What is drawn: the robot in a configuration, its ghost, and what a task shows beside them.

It takes `qpos [36]` (root position 3, root quaternion w x y z, 29 joint angles in the project's
order), computes link poses and draws; nothing is simulated. The ghost is drawn translucent in the
same scene: the reference beside the robot that follows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.robots import mjcf

GHOST_RGBA = (0.05, 0.75, 0.30, 0.25)
_GHOST_SIZE = 0.97  # slightly smaller, so that it does not flicker on the robot where the two agree
_PATH_RGBA, _ARROW_RGBA = (0.95, 0.80, 0.10, 1.0), (0.90, 0.35, 0.05, 1.0)
_GOAL_RGBA, _OBSTACLE_RGBA = (0.80, 0.10, 0.45, 1.0), (0.45, 0.20, 0.60, 0.55)
_OBSTACLE_HEIGHT = 1.2  # m; lower than the robot, so that one sees it behind


@dataclass(frozen=True)
class View:
    """Where the following camera stands; it moves with the root and keeps its direction."""

    distance: float = 2.4
    """Distance of the camera from the point looked at, m."""
    azimuth: float = 130.0
    """Direction of view over the ground, deg: 180 shows the front of a robot that faces +x."""
    elevation: float = -12.0
    """Angle of the view over the horizon, deg; negative looks down."""
    height: float = 0.68
    """Height of the point looked at, m; it does not move up and down with the robot."""


FAR_VIEW = View(distance=5.0, elevation=-22.0, height=0.8)  # shows where a robot is going


@dataclass(frozen=True)
class Decor:
    """What a task shows beside the robot, in the world, m. None: that part is absent."""

    path: np.ndarray | None = None
    """`[P, 2]`, where the robot has been, oldest first: a line on the ground."""
    arrow: np.ndarray | None = None
    """`[2, 3]`, start and end of an arrow."""
    goal: np.ndarray | None = None
    """`[3]`: x, y and radius of a disc on the ground, with a flag in it."""
    obstacles: np.ndarray | None = None
    """`[C, 3]`: x, y and radius of cylinders, drawn translucent."""


class DrawnRobot:
    """The model to draw, the robot's and the ghost's configuration, and the point looked at."""

    def __init__(self, config: mjcf.ModelConfig | None, view: View, smoothing: float) -> None:
        self.model = mjcf.compile_model(replace(config or mjcf.ModelConfig(), visuals=True))
        self.data = mujoco.MjData(self.model)
        self._ghost = mujoco.MjData(self.model)
        self._perturbation = mujoco.MjvPerturb()
        self._view, self._smoothing = view, smoothing
        self._lookat: np.ndarray | None = None

    def pose(self, qpos: np.ndarray) -> None:
        _set_pose(self.model, self.data, qpos, "qpos")

    def aim(self, camera: mujoco.MjvCamera) -> None:
        """Point a free camera at the root as the view says."""
        target = np.array([self.data.qpos[0], self.data.qpos[1], self._view.height])
        # After a reset the camera jumps to the robot; it does not chase it over the ground.
        if self._lookat is None or not np.linalg.norm(target - self._lookat) < 1.0:
            self._lookat = target
        self._lookat = target + self._smoothing * (self._lookat - target)
        camera.lookat[:] = self._lookat
        camera.distance = self._view.distance
        camera.azimuth, camera.elevation = self._view.azimuth, self._view.elevation

    def add_ghost(self, qpos: np.ndarray, option: mujoco.MjvOption, scene: mujoco.MjvScene) -> None:
        """Append the same robot in another configuration, in the ghost's colour."""
        _set_pose(self.model, self._ghost, qpos, "ghost_qpos")
        first = scene.ngeom
        mujoco.mjv_addGeoms(
            self.model, self._ghost, option, self._perturbation,
            mujoco.mjtCatBit.mjCAT_DYNAMIC, scene,
        )  # fmt: skip
        for geom in scene.geoms[first : scene.ngeom]:
            geom.rgba[:] = GHOST_RGBA
            geom.size[:] *= _GHOST_SIZE
            geom.matid, geom.texcoord = -1, 0
            geom.emission, geom.specular, geom.shininess = 0.1, 0.1, 0.2


def add_decor(decor: Decor, scene: mujoco.MjvScene) -> None:
    """Append the shapes of the decor, as far as the scene has room."""
    shape = mujoco.mjtGeom

    def between(kind: int, width: float, rgba: Sequence[float], start: Any, end: Any) -> None:
        if scene.ngeom < scene.maxgeom:
            geom = scene.geoms[scene.ngeom]
            scene.ngeom += 1
            _init_geom(geom, kind, rgba)
            mujoco.mjv_connector(
                geom, kind, width, np.asarray(start, float), np.asarray(end, float)
            )

    if decor.obstacles is not None:
        for x, y, radius in decor.obstacles:
            foot, top = (x, y, 0.0), (x, y, _OBSTACLE_HEIGHT)
            between(shape.mjGEOM_CYLINDER, radius, _OBSTACLE_RGBA, foot, top)
    if decor.goal is not None:
        x, y, radius = decor.goal
        between(shape.mjGEOM_CYLINDER, radius, _GOAL_RGBA, (x, y, 0.0), (x, y, 0.01))
        between(shape.mjGEOM_CYLINDER, 0.012, _GOAL_RGBA, (x, y, 0.0), (x, y, 1.0))
        # The flag is a drum, the same from every side.
        between(shape.mjGEOM_CYLINDER, 0.08, _GOAL_RGBA, (x, y, 0.85), (x, y, 1.0))
    if decor.arrow is not None and np.ptp(decor.arrow, 0).max() > 0.01:  # m; shorter has no way
        between(shape.mjGEOM_ARROW, 0.03, _ARROW_RGBA, *decor.arrow)
    if decor.path is not None:
        points = np.column_stack([decor.path, np.full(len(decor.path), 0.01)])
        for start, end in itertools.pairwise(points):
            if np.ptp([start, end], 0).max() > 1e-4:
                between(shape.mjGEOM_CAPSULE, 0.012, _PATH_RGBA, start, end)


def _init_geom(geom: mujoco.MjvGeom, kind: int, rgba: Sequence[float]) -> None:
    mujoco.mjv_initGeom(
        geom, kind, np.zeros(3), np.zeros(3), np.eye(3).ravel(), np.array(rgba, np.float32)
    )
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR


def _set_pose(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray, name: str) -> None:
    qpos = np.asarray(qpos, float)
    if qpos.shape != (model.nq,):
        robot = model.names.split(b"\0")[0].decode()
        raise ConfigError(
            f"{name} has shape {qpos.shape}, expected ({model.nq},) for robot {robot}."
        )
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)  # the lamp and the camera of the model follow the centre of mass
    mujoco.mj_camlight(model, data)
