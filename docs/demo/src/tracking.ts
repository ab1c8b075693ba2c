/** A tracker that follows a motion over and over, undisturbed but for pushes. */
import { Game } from "./game";
import type { Motion } from "./motion";
import { observe } from "./observation";
import type { Policy } from "./policy";
import type { Robot } from "./robot";
import type { Settings } from "./settings";

export class Tracking extends Game {
  private at = 0;
  private action = new Float32Array();

  constructor(
    robot: Robot,
    settings: Settings,
    private readonly policy: Policy,
    private readonly motion: Motion,
  ) {
    super(robot, settings);
    robot.setGains(policy.spec.stiffness, policy.spec.damping);
    this.restart();
  }

  /** The observation of the present state, which shows the frame to be reached. */
  observation(): Float32Array {
    const shown = Math.min(this.at + this.settings.lead, this.motion.frames - 1);
    return observe(this.robot, this.motion.reference(shown), this.action, this.policy.spec);
  }

  reference(): number[] {
    return this.motion.state(this.at).qpos;
  }

  protected begin(): void {
    const { qpos, qvel } = this.motion.state(0);
    this.at = 0;
    this.action = new Float32Array(this.settings.joint_names.length);
    this.robot.reset(qpos, qvel);
  }

  protected async act(): Promise<Float64Array> {
    const { order, defaultJointPos, actionScale } = this.policy.spec;
    this.action = (await this.policy.act(this.observation())).slice();
    const targets = new Float64Array(order.length);
    order.forEach((joint, i) => {
      targets[joint] = defaultJointPos[i] + actionScale[i] * this.action[i];
    });
    return targets;
  }

  protected advance(): boolean {
    this.at += 1;
    return this.at >= this.motion.frames - 1;
  }

  protected isDown(): boolean {
    const height = this.motion.state(this.at).qpos[2];
    return height - this.robot.rootPos[2] > this.settings.fall_below_reference;
  }

  protected command(): null {
    return null;
  }

  protected progress(): [number, number] {
    const { control_dt } = this.settings;
    return [this.at * control_dt, (this.motion.frames - 1) * control_dt];
  }
}
