/** One robot that is controlled, tick after tick. */
import { ownMotion, type Robot } from "./robot";
import { yaw } from "./rotations";
import type { Settings } from "./settings";

/** What is shown of a game. */
export interface Figures {
  /** s since it began to count. */
  time: number;
  falls: number;
  /** Mean of the last second: m/s forward and left, rad/s left. */
  motion: [number, number, number];
  /** Where the root is, m. */
  place: [number, number, number];
  /** Heading of the root, rad. */
  heading: number;
  /** What is asked of it now: m/s forward and left, rad/s left; null: a motion. */
  command: [number, number, number] | null;
  /** Time of the motion and how long it is, s; null: it has none. */
  progress: [number, number] | null;
  /** Whether it lies on the floor. */
  down: boolean;
}

/** What both kinds of games share: pushes, falls, and a second to lie before it begins again. */
export abstract class Game {
  protected ticks = 0;
  protected falls = 0;
  private fellAt: number | null = null;
  private motions: [number, number, number][] = [];
  private pushes: { speed: number; angle: number }[] = [];

  constructor(
    readonly robot: Robot,
    protected readonly settings: Settings,
  ) {}

  /** Push it at the next step, by m/s towards a direction in the world, rad. */
  push(speed: number, angle: number): void {
    this.pushes.push({ speed, angle });
  }

  /** Begin again. */
  restart(): void {
    this.fellAt = null;
    this.motions = [];
    this.robot.pull = null;
    this.begin();
  }

  /** One control step. */
  async tick(): Promise<void> {
    const targets = await this.act();
    // After the policy has looked, so that they come unseen.
    for (const { speed, angle } of this.pushes.splice(0)) this.robot.push(speed, angle);
    this.robot.step(targets);
    this.ticks += 1;
    this.motions.push(ownMotion(this.robot));
    if (this.motions.length > this.second) this.motions.shift();
    const over = this.advance();
    if (this.isDown() && this.fellAt === null) {
      this.fellAt = this.ticks;
      this.falls += 1;
    }
    const lain = this.fellAt !== null && this.ticks - this.fellAt >= this.second;
    if (lain || over || this.robot.diverged) this.restart();
  }

  figures(): Figures {
    const mean = (i: number): number =>
      this.motions.reduce((sum, motion) => sum + motion[i], 0) / Math.max(1, this.motions.length);
    const [x, y, z] = this.robot.rootPos;
    return {
      time: this.ticks * this.settings.control_dt,
      falls: this.falls,
      motion: [mean(0), mean(1), mean(2)],
      place: [x, y, z],
      heading: yaw(this.robot.rootQuat),
      command: this.command(),
      progress: this.progress(),
      down: this.fellAt !== null,
    };
  }

  /** Configuration of the reference, or null where there is none. */
  abstract reference(): number[] | null;

  /** Put the robot into its start. */
  protected abstract begin(): void;

  /** The joint targets of the coming step, rad, in the project's order. */
  protected abstract act(): Promise<ArrayLike<number>>;

  /** What follows a step; whether that was the last one. */
  protected abstract advance(): boolean;

  protected abstract isDown(): boolean;

  protected abstract command(): [number, number, number] | null;

  protected abstract progress(): [number, number] | null;

  /** Control steps. */
  protected get second(): number {
    return Math.round(1 / this.settings.control_dt);
  }
}
