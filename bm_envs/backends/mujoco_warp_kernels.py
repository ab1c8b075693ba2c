"""Kernels of our own for MuJoCo-Warp, in Warp's language, which Python's type checkers misread."""
# pyright: basic, reportIndexIssue=false, reportOperatorIssue=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false

# No deferred annotations here: Warp reads them.
import warp as wp


@wp.kernel
def links(
    ids: wp.array[int], root: int, xpos: wp.array2d[wp.vec3], xquat: wp.array2d[wp.quat],
    xmat: wp.array2d[wp.mat33], cvel: wp.array2d[wp.spatial_vector],
    subtree_com: wp.array2d[wp.vec3], pos: wp.array2d[wp.vec3], quat: wp.array2d[wp.quat],
    axes: wp.array2d[wp.mat33], lin_vel: wp.array2d[wp.vec3], ang_vel: wp.array2d[wp.vec3],
):  # fmt: skip
    """Poses and velocities of the origins of links `ids`.

    The engine's `cvel` is angular velocity, then that of the point of the body which is at the
    robot's center of mass.
    """
    world, k = wp.tid()
    body = ids[k]
    place = xpos[world, body]
    angular = wp.spatial_top(cvel[world, body])
    linear = wp.spatial_bottom(cvel[world, body])
    pos[world, k] = place
    quat[world, k] = xquat[world, body]
    axes[world, k] = wp.transpose(xmat[world, body])
    ang_vel[world, k] = angular
    lin_vel[world, k] = linear + wp.cross(angular, place - subtree_com[world, root])
