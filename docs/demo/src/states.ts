/** States as a diffusion model has them: `body_pos` of bm_envs/tasks/guided/states.py. */
import type { Robot } from "./robot";
import {
  conjugate,
  minus,
  multiply,
  quatOfYaw,
  rotate,
  rotationVector,
  turn,
  type Vector,
  yaw,
} from "./rotations";

/** One state, world axes. */
export interface State {
  rootPos: number[];
  rootQuat: number[];
  rootLinVel: number[];
  rootAngVel: number[];
  /** Origins of all links, m, one after another. */
  linkPos: Float64Array;
  /** Their velocities, m/s. */
  linkVel: Float64Array;
}

export function stateOf(robot: Robot): State {
  return {
    rootPos: Array.from(robot.rootPos),
    rootQuat: Array.from(robot.rootQuat),
    rootLinVel: Array.from(robot.rootLinVel),
    rootAngVel: rotate(robot.rootQuat, robot.rootAngVelBody),
    linkPos: robot.linkPositions(),
    linkVel: robot.linkVelocities(),
  };
}

/** Features of states of which the last is the present, a row a state. `[T * 192]`. */
export function encode(states: State[]): Float64Array {
  const now = states[states.length - 1];
  const nowOrigin = [now.rootPos[0], now.rootPos[1], 0];
  const nowYaw = yaw(now.rootQuat);
  const back = conjugate(quatOfYaw(nowYaw));
  return Float64Array.from(
    states.flatMap((state) => {
      const origin = [state.rootPos[0], state.rootPos[1], 0];
      const heading = yaw(state.rootQuat);
      return [
        ...each(state.linkPos, (place) => turn(minus(place, origin), -heading)),
        ...each(state.linkVel, (speed) => turn(minus(speed, state.rootLinVel), -heading)),
        ...turn(minus(state.rootPos, nowOrigin), -nowYaw),
        ...rotationVector(multiply(back, state.rootQuat)),
        ...turn(state.rootLinVel, -nowYaw),
        ...turn(state.rootAngVel, -nowYaw),
      ];
    }),
  );
}

function each(vectors: Float64Array, change: (vector: Vector) => number[]): number[] {
  const result: number[] = [];
  for (let i = 0; i < vectors.length; i += 3) result.push(...change(vectors.subarray(i, i + 3)));
  return result;
}
