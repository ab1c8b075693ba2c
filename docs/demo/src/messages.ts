/** What the page and the worker tell each other. The worker simulates, the page shows. */
import type { Figures } from "./game";
import type { Pull, Shape } from "./robot";
import type { Vector3 } from "./steering";

export type ToWorker =
  /** Play a policy of the page's own; of a tracker with a motion, or its first one. */
  | { kind: "play"; policy: string; motion?: string }
  /** Play a visitor's tracker, with the motion inside it or one of the page's. */
  | { kind: "file"; name: string; bytes: ArrayBuffer; motion?: string }
  /** Another motion for the tracker that plays. */
  | { kind: "motion"; motion: string }
  /** What the joystick asks for: m/s forward and left, rad/s left. */
  | { kind: "command"; command: Vector3 }
  /** A push, m/s; without an angle, rad in the world, in a drawn direction. */
  | { kind: "push"; speed?: number; angle?: number }
  /** A person draws at the robot, or lets go of it. */
  | { kind: "pull"; pull: Pull | null }
  | { kind: "restart" }
  | { kind: "pause"; paused: boolean }
  /** Calls of the diffusion model in a control step. */
  | { kind: "calls"; calls: number }
  /** Do so many control steps at once; the clock stands still before and after. */
  | { kind: "step"; ticks: number };

export type FromWorker =
  | { kind: "loading"; text: string }
  | { kind: "ready"; shapes: Shape[]; policies: { name: string; motions: string[] }[]; guided: GuidedChoice }
  | { kind: "playing"; policy: string; motions: string[]; motion: string | null }
  | { kind: "frame"; frame: Frame }
  | { kind: "refused"; text: string }
  | { kind: "stepped"; frame: Frame }
  /** Nothing goes on after this. */
  | { kind: "failed"; text: string };

export interface GuidedChoice {
  name: string;
  calls: number;
  forward: [number, number];
  turn: [number, number];
}

export interface Frame {
  /** Place, m, and quaternion of each link, one after another. */
  poses: Float32Array;
  /** The same of the reference; null where there is none. */
  ghost: Float32Array | null;
  figures: Figures;
  /** Speed as a multiple of real time, over the last second. */
  factor: number;
}
