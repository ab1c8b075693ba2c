/** Motions: 50 frames a second, one a control step. */
import type { Reference } from "./observation";
import { rotateInverse, type Vector } from "./rotations";
import type { Settings } from "./settings";

export interface Motion {
  name: string;
  frames: number;
  /** What the policy is shown of a frame. */
  reference(frame: number): Reference;
  /** The state of a robot that is where the frame says: 36 and 35 numbers. */
  state(frame: number): { qpos: number[]; qvel: number[] };
}

/** Columns of a motion, a row a frame one after another. */
export type Columns = Record<string, Float32Array>;

/** A motion from its columns, whose names and sizes are `settings.columns`. */
export function motionOf(name: string, columns: Columns, settings: Settings): Motion {
  const { root_pos, root_lin_vel, root_quat } = columns;
  const at = (column: string, frame: number): Vector => {
    const size = settings.columns[column];
    return columns[column].subarray(size * frame, size * (frame + 1));
  };
  if (!root_pos || !root_lin_vel || !root_quat) throw new Error(`${name}: columns are missing.`);
  return {
    name,
    frames: root_pos.length / settings.columns.root_pos,
    reference: (frame) => ({
      jointPos: at("joint_pos", frame),
      jointVel: at("joint_vel", frame),
      anchorPos: at("anchor_pos", frame),
      anchorQuat: at("anchor_quat", frame),
    }),
    state: (frame) => {
      const quat = at("root_quat", frame);
      const spin = rotateInverse(quat, at("root_ang_vel", frame));
      const list = (column: string): number[] => Array.from(at(column, frame));
      return {
        qpos: [...list("root_pos"), ...Array.from(quat), ...list("joint_pos")],
        qvel: [...list("root_lin_vel"), ...spin, ...list("joint_vel")],
      };
    },
  };
}

/** A motion of the page's own, from its file. */
export function readMotion(name: string, bytes: ArrayBuffer, settings: Settings): Motion {
  const rows = new Float32Array(bytes);
  const sizes = Object.entries(settings.columns);
  const width = sizes.reduce((sum, [, size]) => sum + size, 0);
  const frames = rows.length / width;
  const columns: Columns = {};
  let start = 0;
  for (const [column, size] of sizes) {
    const values = new Float32Array(frames * size);
    for (let frame = 0; frame < frames; frame++)
      values.set(rows.subarray(width * frame + start, width * frame + start + size), size * frame);
    columns[column] = values;
    start += size;
  }
  return motionOf(name, columns, settings);
}
