/** The observation of a tracker: docs/policy_files.md has its table. */
import { conjugate, minus, multiply, rotate, rotateInverse, type Vector } from "./rotations";
import type { Robot } from "./robot";

/** A frame of a motion; joints in the project's order, the anchor in world axes. */
export interface Reference {
  jointPos: Vector;
  jointVel: Vector;
  anchorPos: Vector;
  anchorQuat: Vector;
}

/** What of a policy shapes its observation. */
export interface Layout {
  terms: string[];
  /** Number in the project's order of each of the policy's joints. */
  order: number[];
  /** In the policy's order, rad. */
  defaultJointPos: Vector;
}

/**
 * One time step, neither scaled nor clipped. `lastAction` is the previous one as the network gave
 * it, in the policy's order.
 */
export function observe(
  robot: Robot,
  reference: Reference,
  lastAction: Vector,
  layout: Layout,
): Float32Array {
  const { order, defaultJointPos } = layout;
  const ordered = (values: Vector): number[] => order.map((joint) => values[joint]);
  const values: Record<string, () => Vector> = {
    command: () => [...ordered(reference.jointPos), ...ordered(reference.jointVel)],
    motion_anchor_pos_b: () =>
      rotateInverse(robot.anchorQuat, minus(reference.anchorPos, robot.anchorPos)),
    motion_anchor_ori_b: () =>
      twoColumns(multiply(conjugate(robot.anchorQuat), reference.anchorQuat)),
    base_lin_vel: () => rotateInverse(robot.rootQuat, robot.rootLinVel),
    base_ang_vel: () => robot.rootAngVelBody,
    joint_pos: () => ordered(robot.jointPos).map((value, i) => value - defaultJointPos[i]),
    joint_vel: () => ordered(robot.jointVel),
    actions: () => lastAction,
  };
  return Float32Array.from(layout.terms.flatMap((term) => Array.from(values[term]())));
}

/** The first two columns of the rotation matrix, row by row. */
function twoColumns(q: Vector): number[] {
  const x = rotate(q, [1, 0, 0]);
  const y = rotate(q, [0, 1, 0]);
  return [x[0], y[0], x[1], y[1], x[2], y[2]];
}
