/** One robot in MuJoCo, as bm_envs/backends/mujoco_cpu.py steps it. */
import type { MainModule, MjData, MjModel } from "@mujoco/mujoco";

import { cross, minus, plus, rotate, turn, type Vector, yaw } from "./rotations";
import type { Settings } from "./settings";

/** A shape to look at, in the frame of body number `body`; sizes are MuJoCo's half sizes. */
export interface Shape {
  body: number;
  kind: "sphere" | "capsule" | "ellipsoid" | "cylinder" | "box";
  size: number[];
  pos: number[];
  quat: number[];
  rgba: number[];
}

/** A pull by a person: a point of a body is drawn to a place in the world. */
export interface Pull {
  body: number;
  /** In the body's frame, m. */
  point: number[];
  /** World, m. */
  target: number[];
}

// How a pull acts: like a spring with a damper, N/m and N s/m, of a bounded force, N.
const SPRING = 400;
const DAMPER = 20;
const MOST_FORCE = 200;
const KINDS: Record<number, Shape["kind"]> = {
  2: "sphere",
  3: "capsule",
  4: "ellipsoid",
  5: "cylinder",
  6: "box",
}; // of mjtGeom
const ROOT = 1; // number of the pelvis; 0 is the world

export class Robot {
  /** A pull in the coming steps. */
  pull: Pull | null = null;
  private readonly anchor: number;

  private constructor(
    private readonly mujoco: MainModule,
    private readonly model: MjModel,
    private readonly data: MjData,
    private readonly ghost: MjData,
    private readonly settings: Settings,
  ) {
    this.anchor = ROOT + settings.body_names.indexOf(settings.anchor_body);
  }

  static make(mujoco: MainModule, xml: string, settings: Settings): Robot {
    const model = mujoco.MjModel.from_xml_string(xml);
    // A robot that diverges must say so: the engine would silently put it back.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value;
    const data = new mujoco.MjData(model);
    return new Robot(mujoco, model, data, new mujoco.MjData(model), settings);
  }

  /** Gains of each joint, in the project's order: N m/rad and N m s/rad. */
  setGains(stiffness: Vector, damping: Vector): void {
    const gain = this.model.actuator_gainprm as Float64Array;
    const bias = this.model.actuator_biasprm as Float64Array;
    const width = gain.length / this.settings.joint_names.length;
    for (let i = 0; i < this.settings.joint_names.length; i++) {
      gain[width * i] = stiffness[i];
      bias[width * i + 1] = -stiffness[i];
      bias[width * i + 2] = -damping[i];
    }
  }

  /** Put it into a state: `qpos` of 36 and `qvel` of 35 numbers. */
  reset(qpos: Vector, qvel: Vector): void {
    this.mujoco.mj_resetData(this.model, this.data);
    this.pull = null;
    this.qpos.set(qpos);
    this.qvel.set(qvel);
    this.refresh();
  }

  /** One control step towards joint targets, rad, in the project's order. */
  step(targets: Vector): void {
    (this.data.ctrl as Float64Array).set(targets);
    for (let i = 0; i < this.settings.substeps; i++) {
      this.applyPull();
      this.mujoco.mj_step(this.model, this.data);
    }
    this.refresh();
  }

  /** Add `speed`, m/s, in the horizontal direction `angle`, rad, to the root's velocity. */
  push(speed: number, angle: number): void {
    this.qvel[0] += speed * Math.cos(angle);
    this.qvel[1] += speed * Math.sin(angle);
    this.refresh();
  }

  get qpos(): Float64Array {
    return this.data.qpos as Float64Array;
  }

  get qvel(): Float64Array {
    return this.data.qvel as Float64Array;
  }

  /** World, m. */
  get rootPos(): Float64Array {
    return this.qpos.subarray(0, 3);
  }

  get rootQuat(): Float64Array {
    return this.qpos.subarray(3, 7);
  }

  /** Of the pelvis' origin, world axes, m/s. */
  get rootLinVel(): Float64Array {
    return this.qvel.subarray(0, 3);
  }

  /** In the pelvis' axes, rad/s. */
  get rootAngVelBody(): Float64Array {
    return this.qvel.subarray(3, 6);
  }

  get jointPos(): Float64Array {
    return this.qpos.subarray(7);
  }

  get jointVel(): Float64Array {
    return this.qvel.subarray(6);
  }

  /** World, m. */
  get anchorPos(): Float64Array {
    return (this.data.xpos as Float64Array).subarray(3 * this.anchor, 3 * this.anchor + 3);
  }

  get anchorQuat(): Float64Array {
    return (this.data.xquat as Float64Array).subarray(4 * this.anchor, 4 * this.anchor + 4);
  }

  /** Whether its state is no longer one of finite numbers. */
  get diverged(): boolean {
    return ![...this.qpos, ...this.qvel].every(Number.isFinite);
  }

  /** Origins of all links, world, m. `[30 * 3]`, a copy. */
  linkPositions(): Float64Array {
    return (this.data.xpos as Float64Array).slice(3 * ROOT);
  }

  /** Velocities of the origins of all links, world axes, m/s. `[30 * 3]`. */
  linkVelocities(): Float64Array {
    const places = this.data.xpos as Float64Array;
    const center = (this.data.subtree_com as Float64Array).subarray(3 * ROOT, 3 * ROOT + 3);
    const motions = this.data.cvel as Float64Array;
    const result = new Float64Array(places.length - 3 * ROOT);
    for (let body = ROOT; 3 * body < places.length; body++) {
      // The engine keeps a body's angular velocity, and the linear one at the whole robot's centre.
      const arm = minus(places.subarray(3 * body, 3 * body + 3), center);
      const motion = motions.subarray(6 * body, 6 * body + 6);
      result.set(plus(motion.subarray(3), cross(motion.subarray(0, 3), arm)), 3 * (body - ROOT));
    }
    return result;
  }

  /** Place, m, and quaternion of every link, one after another. `[30 * 7]`. */
  poses(): Float32Array {
    return this.posesOf(this.data);
  }

  /** The same of a robot in a configuration of 36 numbers. */
  posesAt(qpos: Vector): Float32Array {
    (this.ghost.qpos as Float64Array).set(qpos);
    this.mujoco.mj_kinematics(this.model, this.ghost);
    return this.posesOf(this.ghost);
  }

  /** The shapes to look at. */
  shapes(): Shape[] {
    const model = this.model;
    const part = (values: unknown, i: number, size: number): number[] =>
      Array.from((values as Float64Array).subarray(size * i, size * (i + 1)));
    const found: Shape[] = [];
    for (let i = 0; i < model.ngeom; i++) {
      const kind = KINDS[(model.geom_type as Int32Array)[i]];
      if (kind === undefined || (model.geom_group as Int32Array)[i] !== this.settings.visual_group)
        continue;
      const material = (model.geom_matid as Int32Array)[i];
      found.push({
        body: (model.geom_bodyid as Int32Array)[i] - ROOT,
        kind,
        size: part(model.geom_size, i, 3),
        pos: part(model.geom_pos, i, 3),
        quat: part(model.geom_quat, i, 4),
        rgba: material < 0 ? part(model.geom_rgba, i, 4) : part(model.mat_rgba, material, 4),
      });
    }
    return found;
  }

  private posesOf(data: MjData): Float32Array {
    const pos = data.xpos as Float64Array;
    const quat = data.xquat as Float64Array;
    const count = this.settings.body_names.length;
    const poses = new Float32Array(7 * count);
    for (let i = 0; i < count; i++) {
      const body = i + ROOT;
      poses.set(pos.subarray(3 * body, 3 * body + 3), 7 * i);
      poses.set(quat.subarray(4 * body, 4 * body + 4), 7 * i + 3);
    }
    return poses;
  }

  /** What is derived from the state: the engine's own belongs to the step before its last one. */
  private refresh(): void {
    this.mujoco.mj_kinematics(this.model, this.data);
    this.mujoco.mj_comPos(this.model, this.data);
    this.mujoco.mj_comVel(this.model, this.data);
  }

  private applyPull(): void {
    const forces = this.data.xfrc_applied as Float64Array;
    forces.fill(0);
    if (this.pull === null) return;
    const body = this.pull.body + ROOT;
    const pick = (values: unknown, size: number): Float64Array =>
      (values as Float64Array).subarray(size * body, size * (body + 1));
    const point = plus(pick(this.data.xpos, 3), rotate(pick(this.data.xquat, 4), this.pull.point));
    const center = (this.data.subtree_com as Float64Array).subarray(3 * ROOT, 3 * ROOT + 3);
    const motion = pick(this.data.cvel, 6);
    const speed = plus(motion.subarray(3), cross(motion.subarray(0, 3), minus(point, center)));
    const way = minus(this.pull.target, point);
    let force = way.map((value, i) => SPRING * value - DAMPER * speed[i]);
    const size = Math.hypot(...force);
    if (size > MOST_FORCE) force = force.map((value) => (value * MOST_FORCE) / size);
    forces.set([...force, ...cross(minus(point, pick(this.data.xipos, 3)), force)], 6 * body);
  }
}

/** Velocity of the root forward and left of its heading, m/s, and its turning rate, rad/s left. */
export function ownMotion(robot: Robot): [number, number, number] {
  const q = robot.rootQuat;
  const [forward, left] = turn(robot.rootLinVel, -yaw(q));
  return [forward, left, rotate(q, robot.rootAngVelBody)[2]];
}
