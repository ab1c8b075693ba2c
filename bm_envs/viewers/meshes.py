"""Shapes of the robot's model as triangles, as a page in the browser draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from bm_envs.errors import ConfigError
from bm_envs.robots import visuals

# Vertices `[V, 3]`, m, and triangles `[F, 3]` that turn to the left as seen from outside.
Mesh = tuple[np.ndarray, np.ndarray]
_SIDES = 20  # sides of round shapes


def body_meshes(
    model: mujoco.MjModel,
) -> dict[str, list[tuple[tuple[int, int, int], Mesh]]]:
    """Meshes of each link in its frame, with one mesh for each colour."""
    found: dict[str, list[tuple[tuple[int, int, int], Mesh]]] = {}
    for body in (model.body(i).name for i in range(1, model.nbody)):
        by_colour: dict[tuple[int, int, int], list[Mesh]] = {}
        for geom in np.flatnonzero(model.geom_bodyid == model.body(body).id):
            if model.geom_group[geom] == visuals.VISUAL_GROUP:
                material = model.geom_matid[geom]
                rgba = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
                by_colour.setdefault(rgb_of(rgba), []).append(geom_mesh(model, int(geom)))
        found[body] = [(rgb, joined(meshes)) for rgb, meshes in by_colour.items()]
    return found


def geom_mesh(model: mujoco.MjModel, geom: int) -> Mesh:
    """One shape of the model, in its link's frame."""
    shape, kind = mujoco.mjtGeom, model.geom_type[geom]
    radius, half, *_ = size = model.geom_size[geom]
    arc = np.linspace(0.0, math.pi / 2, _SIDES // 4 + 1)
    up = np.stack([np.cos(arc), np.sin(arc)], 1)  # from the equator to the pole
    down = up[::-1] * (1.0, -1.0)
    if kind == shape.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        vertices = model.mesh_vert[first : first + count].astype(float)
        first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        found = vertices, model.mesh_face[first : first + count].astype(np.int64)
    elif kind == shape.mjGEOM_SPHERE:
        found = transformed(revolved([[*down, *up[1:]]]), (radius,) * 3)
    elif kind == shape.mjGEOM_ELLIPSOID:
        found = transformed(revolved([[*down, *up[1:]]]), tuple(size))
    elif kind == shape.mjGEOM_CAPSULE:
        found = revolved([[*(down * radius - (0, half)), *(up * radius + (0, half))]])
    elif kind == shape.mjGEOM_CYLINDER:
        found = revolved([
            [(0, -half), (radius, -half)], [(radius, -half), (radius, half)],
            [(radius, half), (0, half)],
        ])  # fmt: skip
    elif kind == shape.mjGEOM_BOX:
        found = transformed(_cube(), tuple(size))
    else:
        raise ConfigError(f"geom {geom} of the model is of a kind that pages do not draw.")
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    return found[0] @ turn.reshape(3, 3).T + model.geom_pos[geom], found[1]


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    return (
        np.concatenate([vertices for vertices, _ in meshes]),
        np.concatenate([faces + start for (_, faces), start in zip(meshes, starts, strict=False)]),
    )


def revolved(profile: Sequence[Sequence[Any]]) -> Mesh:
    """Lines of (radius, z), from bottom to top, turned about z; edges between lines are sharp."""
    angle = np.arange(_SIDES) * 2 * math.pi / _SIDES
    meshes = []
    for line in profile:
        radius, z = np.array(line, float).T
        vertices = np.stack([
            radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle),
            np.broadcast_to(z[:, None], (len(z), _SIDES)),
        ], -1).reshape(-1, 3)  # fmt: skip
        low = (np.arange(len(z) - 1)[:, None] * _SIDES + np.arange(_SIDES)).ravel()
        right = low // _SIDES * _SIDES + (low + 1) % _SIDES
        a, b, c, d = low, right, right + _SIDES, low + _SIDES
        meshes.append((vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])))
    return joined(meshes)


def _cube() -> Mesh:
    """Corners at -1 and 1, sharp edges."""
    square = np.array([[1, -1, -1], [1, 1, -1], [1, 1, 1], [1, -1, 1]], float)  # seen from +x
    sides = [np.roll(square * (sign, sign, 1), axis, 1) for axis in range(3) for sign in (1, -1)]
    quad = np.array([[0, 1, 2], [0, 2, 3]])
    return joined([(side, quad) for side in sides])


def transformed(mesh: Mesh, scale: tuple[float, ...]) -> Mesh:
    """The mesh with its axes stretched."""
    return mesh[0] * scale, mesh[1]


def rgb_of(rgba: Sequence[float]) -> tuple[int, int, int]:
    """A colour as three bytes, from four numbers of 0 to 1."""
    r, g, b = (round(255 * float(value)) for value in rgba[:3])
    return r, g, b
