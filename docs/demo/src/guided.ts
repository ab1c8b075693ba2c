/** A diffusion model that a person drives: tools/play.py, task joystick. */
import { Game } from "./game";
import type { Model } from "./model";
import type { Motion } from "./motion";
import { ownMotion, type Robot } from "./robot";
import { tilt } from "./rotations";
import { sample } from "./sampler";
import type { GuidedSettings, Settings } from "./settings";
import { encode, type State, stateOf } from "./states";
import { joystick, Pilot, type Vector3 } from "./steering";

export class Guided extends Game {
  /** What keys and pad ask for: m/s forward and left, rad/s left. */
  target: Vector3 = [0, 0, 0];
  /** Of the network in a control step. */
  calls: number;
  /** What is asked for in this step, on its way to the target. */
  private wanted: Vector3 = [0, 0, 0];
  private past: State[] = [];
  private pilot: Pilot;
  private clock = 0; // control steps since time began to count
  private readonly random: () => number;
  private readonly own: GuidedSettings;

  constructor(
    robot: Robot,
    settings: Settings,
    private readonly model: Model,
    private readonly start: Motion,
    seed: number,
  ) {
    super(robot, settings);
    this.own = settings.guided;
    this.calls = this.own.calls;
    this.random = uniform(seed);
    this.pilot = new Pilot(this.own, settings.control_dt);
    robot.setGains(model.drives.stiffness, model.drives.damping);
    this.restart();
  }

  reference(): null {
    return null;
  }

  protected begin(): void {
    const { first, count } = this.own.start;
    const { qpos, qvel } = this.start.state(first + Math.floor(this.random() * count));
    this.robot.reset([0, 0, ...qpos.slice(2)], qvel);
    this.past = Array.from({ length: this.own.past }, () => stateOf(this.robot));
    this.pilot = new Pilot(this.own, this.settings.control_dt);
    this.clock = -Math.round(this.own.warm_up_s / this.settings.control_dt);
    this.wanted = [0, 0, 0];
  }

  protected async act(): Promise<number[]> {
    const { own, model, robot } = this;
    const steady = this.pilot.steady(robot.rootLinVel);
    this.past = [...this.past.slice(1), stateOf(robot)];
    const asks = this.clock >= 0;
    if (asks) this.ramp();
    const pulls = asks ? joystick(this.wanted, this.pilot.offset, steady, own) : [];
    const noise = {
      states: this.noise(own.length * own.width),
      actions: this.noise(own.past * own.action_size),
    };
    const past = model.scale(encode(this.past));
    const { action, features } = await sample(model, past, noise, pulls, this.calls, own);
    if (asks) this.pilot.observe(predicted(features, own), ownMotion(robot));
    const { default_joint_pos: pose, action_scale: scale } = model.drives;
    return Array.from(action, (value, i) => pose[i] + scale[i] * value);
  }

  protected advance(): boolean {
    this.clock += 1;
    return false;
  }

  protected isDown(): boolean {
    const { pelvis_height, tilt: most } = this.own.fall;
    return this.robot.rootPos[2] < pelvis_height || tilt(this.robot.rootQuat) > most;
  }

  protected command(): Vector3 {
    return [...this.wanted];
  }

  protected progress(): null {
    return null;
  }

  /** Bring what is wanted nearer to the target. */
  private ramp(): void {
    this.wanted = this.wanted.map((value, i) => {
      const most = this.own.joystick.ramp[i] * this.settings.control_dt;
      return value + Math.min(most, Math.max(-most, this.target[i] - value));
    }) as Vector3;
  }

  /** Standard normal numbers, by Box and Muller. */
  private noise(size: number): Float32Array {
    return Float32Array.from({ length: size }, () => {
      const radius = Math.sqrt(-2 * Math.log(1 - this.random()));
      return radius * Math.cos(2 * Math.PI * this.random());
    });
  }
}

/** Mean velocity forward and left, m/s, and turning rate, rad/s, of the steps after the present. */
export function predicted(features: Float32Array, settings: GuidedSettings): Vector3 {
  const { blocks, past, length } = settings;
  const size = features.length / length;
  const columns = [blocks.root_lin_vel[0], blocks.root_lin_vel[0] + 1, blocks.root_ang_vel[0] + 2];
  return columns.map((column) => {
    let sum = 0;
    for (let row = past; row < length; row++) sum += features[row * size + column];
    return sum / (length - past);
  }) as Vector3;
}

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}
