/**
 * From a joystick's command to a guide of the diffusion model.
 *
 * The joystick's cost (eq. 7 with a turn, bm_envs/diffusion/costs/goals.py) is a sum of squares, so
 * its own step moves some features by a share of their way to a target. Predictions are corrected
 * by what was executed, and less is asked after a push (bm_envs/diffusion/steering.py).
 */
import type { GuidedSettings } from "./settings";

/** Moves feature `column` of step `row` by `share` of its way to `target`. */
export interface Pull {
  row: number;
  column: number;
  share: number;
  target: number;
}

export type Vector3 = [number, number, number];

/** What a command asks of the steps after the present: m/s forward and left, rad/s left. */
export function joystick(
  [forward, left, rate]: Vector3,
  offset: Vector3,
  share: number,
  settings: GuidedSettings,
): Pull[] {
  const { consistent, turn } = settings.steering;
  const at = (block: string, column: number): number => settings.blocks[block][0] + column;
  const pulls: Pull[] = [];
  for (let row = settings.past; row < settings.length; row++) {
    const ahead = settings.ahead[row];
    const heading = rate * ahead;
    const velocity = turned(forward, left, heading);
    // The way along an arc of constant rate is its chord, sin(h/2) / (h/2) of its length.
    const half = 0.5 * heading;
    const chord = (half === 0 ? 1 : Math.sin(half) / half) * ahead;
    const place = turned(forward, left, half).map((value) => value * chord);
    const ask = (column: number, weight: number, target: number): void => {
      pulls.push({ row, column, share: share * Math.min(weight, 1), target });
    };
    for (const i of [0, 1]) {
      ask(at("root_lin_vel", i), 1, velocity[i] + offset[i]);
      ask(at("root_pos", i), consistent, place[i] + offset[i] * ahead);
    }
    // A walking root leans little, so its heading is close to its rotation vector's z.
    ask(at("root_rot", 2), turn, heading + offset[2] * ahead);
    ask(at("root_ang_vel", 2), turn, rate + offset[2]);
  }
  return pulls;
}

/** Compares what is executed with what was predicted, and looks out for pushes. */
export class Pilot {
  /** Predicted less executed velocity: m/s forward and left, rad/s left. */
  offset: Vector3 = [0, 0, 0];
  private shaken = 0; // m/s
  private velocity: [number, number] | null = null;

  constructor(
    private readonly settings: GuidedSettings,
    private readonly controlDt: number,
  ) {}

  /** Share of what is asked, less after a push; `velocity` of the root over the ground, m/s. */
  steady(velocity: ArrayLike<number>): number {
    const { recover_at, recover_s } = this.settings.steering;
    const [x, y] = this.velocity ?? [velocity[0], velocity[1]];
    const jump = Math.hypot(velocity[0] - x, velocity[1] - y);
    this.velocity = [velocity[0], velocity[1]];
    this.shaken = Math.max(jump, this.shaken * Math.exp(-this.controlDt / recover_s));
    return Math.min(1, recover_at / Math.max(this.shaken, 1e-9)) ** 2;
  }

  /** Take note of the predicted and the executed velocity of a tick. */
  observe(predicted: Vector3, executed: Vector3): void {
    const { correct_s, most_correction } = this.settings.steering;
    const share = this.controlDt / correct_s;
    this.offset = this.offset.map((value, i) => {
      const next = value + share * (predicted[i] - executed[i] - value);
      return Math.min(most_correction, Math.max(-most_correction, next));
    }) as Vector3;
  }
}

function turned(x: number, y: number, angle: number): [number, number] {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return [c * x - s * y, s * x + c * y];
}
