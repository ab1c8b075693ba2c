/** The simulation: MuJoCo and the networks, in a thread of its own. */
import loadMujoco from "@mujoco/mujoco";
import * as ort from "onnxruntime-web/wasm";

import type { Game } from "./game";
import { Guided } from "./guided";
import type { Frame, FromWorker, ToWorker } from "./messages";
import { Model } from "./model";
import { type Motion, readMotion } from "./motion";
import { firstLine, Policy } from "./policy";
import { Robot } from "./robot";
import { type Files, readSettings, type Settings } from "./settings";
import { Tracking } from "./tracking";

/** What of a worker's global object is used; the DOM's types have a window there. */
interface Scope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
}

const scope = self as unknown as Scope;
const CATCH_UP = 100; // ms behind real time that are made up for; any more are lost

function address(name: string): string {
  return new URL(name, import.meta.url).href;
}

const files: Files = async (name) => {
  const answer = await fetch(address(`data/${name}`));
  if (!answer.ok) throw new Error(`data/${name} is missing (${answer.status}): see the demo's page.`);
  return answer.arrayBuffer();
};

/** How fast the ticks are, as a multiple of real time. */
class Meter {
  private ends: number[] = [];

  count(): void {
    this.ends.push(performance.now());
    if (this.ends.length > 51) this.ends.shift();
  }

  clear(): void {
    this.ends = [];
  }

  factor(controlDt: number): number {
    const count = this.ends.length - 1;
    return count < 1 ? 0 : (1000 * controlDt * count) / (this.ends[count] - this.ends[0]);
  }
}

class Player {
  private readonly queue: ToWorker[] = [];
  private wake = (): void => {};
  private game: Game | null = null;
  private tracker: Policy | null = null;
  private paused = false;
  private calls: number;
  private seeds = 0;
  private command: [number, number, number] = [0, 0, 0];
  private readonly meter = new Meter();
  private readonly motions = new Map<string, Motion>();

  constructor(
    private readonly robot: Robot,
    private readonly settings: Settings,
    private readonly model: Promise<Model>,
  ) {
    this.calls = settings.guided.calls;
  }

  hear(message: ToWorker): void {
    this.queue.push(message);
    this.wake();
  }

  /** Play in real time or slower, without an end. */
  async run(): Promise<never> {
    const dt = 1000 * this.settings.control_dt;
    for (let due = performance.now(); ; ) {
      for (const message of this.queue.splice(0))
        await this.handle(message).catch((error: unknown) =>
          scope.postMessage({ kind: "refused", text: firstLine(error) }),
        );
      if (this.game === null || this.paused) {
        this.meter.clear();
        if (this.queue.length === 0) await new Promise<void>((done) => (this.wake = done));
        due = performance.now();
        continue;
      }
      await this.game.tick();
      this.meter.count();
      scope.postMessage({ kind: "frame", frame: this.frame(this.game) });
      // A short delay is made up for. A longer one is not, so that nothing is skipped or hurried.
      const now = performance.now();
      due = Math.max(due + dt, now - CATCH_UP);
      await rest(due - now);
    }
  }

  private async handle(message: ToWorker): Promise<void> {
    switch (message.kind) {
      case "play":
        if (message.policy === this.settings.guided.name) await this.guide();
        else await this.track(message.policy, await this.shipped(message.policy), message.motion);
        break;
      case "file": {
        const policy = await Policy.load(message.name, message.bytes, this.settings);
        await this.track(message.name, policy, message.motion);
        break;
      }
      case "motion":
        if (this.tracker !== null) await this.track(this.tracker.name, this.tracker, message.motion);
        break;
      case "command":
        this.command = message.command;
        if (this.game instanceof Guided) this.game.target = message.command;
        break;
      case "push":
        this.game?.push(
          message.speed ?? this.settings.guided.joystick.push_speed,
          message.angle ?? 2 * Math.PI * Math.random(),
        );
        break;
      case "pull":
        this.robot.pull = message.pull;
        break;
      case "restart":
        this.game?.restart();
        this.show();
        break;
      case "pause":
        this.paused = message.paused;
        break;
      case "calls":
        this.calls = message.calls;
        if (this.game instanceof Guided) this.game.calls = message.calls;
        break;
      case "step":
        await this.step(message.ticks);
    }
  }

  private async step(ticks: number): Promise<void> {
    if (this.game === null) throw new Error("nothing plays yet.");
    this.paused = true;
    this.meter.clear();
    for (let i = 0; i < ticks; i++) {
      await this.game.tick();
      this.meter.count();
    }
    scope.postMessage({ kind: "stepped", frame: this.frame(this.game) });
  }

  private async guide(): Promise<void> {
    const { guided } = this.settings;
    const model = await this.model;
    const start = await this.motion(guided.start.motion);
    const game = new Guided(this.robot, this.settings, model, start, this.seeds++);
    game.target = this.command;
    game.calls = this.calls;
    await this.take(null);
    this.begin(game, guided.name, [], null);
  }

  /** A tracker, with a motion of that name or the first that it has. */
  private async track(name: string, policy: Policy, motion?: string): Promise<void> {
    const known = this.settings.trackers.find((tracker) => tracker.name === name)?.motions;
    const inside = known === undefined ? await this.inside(policy) : null;
    const all = this.settings.motions.map((entry) => entry.name);
    const names = known ?? (inside === null ? all : [inside.name, ...all]);
    const chosen = motion !== undefined && names.includes(motion) ? motion : preferred(names, inside);
    const clip = inside?.name === chosen ? inside : await this.motion(chosen);
    const game = new Tracking(this.robot, this.settings, policy, clip);
    await this.take(policy);
    this.begin(game, name, names, chosen);
  }

  private begin(game: Game, policy: string, motions: string[], motion: string | null): void {
    this.game = game;
    this.meter.clear();
    scope.postMessage({ kind: "playing", policy, motions, motion });
    this.show();
  }

  /** The tracker that plays from now on; the last one is let go. */
  private async take(policy: Policy | null): Promise<void> {
    const last = this.tracker;
    this.tracker = policy;
    if (last !== null && last !== policy) {
      this.insides.delete(last);
      await last.release();
    }
  }

  private readonly insides = new Map<Policy, Motion | null>();

  /** The motion inside a visitor's policy, read once. */
  private async inside(policy: Policy): Promise<Motion | null> {
    let motion = this.insides.get(policy);
    if (motion === undefined) this.insides.set(policy, (motion = await policy.motion()));
    return motion;
  }

  private async shipped(name: string): Promise<Policy> {
    return Policy.load(name, await files(`policies/${name}.onnx`), this.settings);
  }

  private async motion(name: string): Promise<Motion> {
    let motion = this.motions.get(name);
    if (motion === undefined) {
      motion = readMotion(name, await files(`motions/${name}.bin`), this.settings);
      this.motions.set(name, motion);
    }
    return motion;
  }

  private frame(game: Game): Frame {
    const reference = game.reference();
    return {
      poses: this.robot.poses(),
      ghost: reference === null ? null : this.robot.posesAt(reference),
      figures: game.figures(),
      factor: this.meter.factor(this.settings.control_dt),
    };
  }

  private show(): void {
    if (this.game !== null) scope.postMessage({ kind: "frame", frame: this.frame(this.game) });
  }
}

/** A walk shows most. */
function preferred(names: string[], inside: Motion | null): string {
  return inside?.name ?? (names.includes("walk") ? "walk" : names[0]);
}

/** Wait so many ms, at least until messages that have come are heard. */
function rest(ms: number): Promise<void> {
  return new Promise((done) => {
    if (ms > 1) {
      setTimeout(done, ms);
      return;
    }
    // A timer would take 4 ms at least.
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      done();
    };
    channel.port2.postMessage(null);
  });
}

async function start(): Promise<void> {
  const early: ToWorker[] = [];
  scope.onmessage = (event) => early.push(event.data);
  scope.postMessage({ kind: "loading", text: "Loading MuJoCo, the robot and its policies …" });
  ort.env.wasm.numThreads = 1; // more would want headers that hosts of static pages do not send
  ort.env.wasm.wasmPaths = { wasm: address("onnxruntime.wasm") };
  const [settings, xml] = await Promise.all([readSettings(files), files("robot.xml")]);
  // Both at once: they are most of what has to come and to be compiled.
  const model = Model.load(files, settings.guided);
  model.catch(() => {}); // whoever plays it hears of it
  const mujoco = await loadMujoco({ locateFile: () => address("mujoco.wasm") });
  const robot = Robot.make(mujoco, new TextDecoder().decode(xml), settings);
  const player = new Player(robot, settings, model);
  const { name, calls, joystick } = settings.guided;
  scope.onmessage = (event) => player.hear(event.data);
  scope.postMessage({
    kind: "ready",
    shapes: robot.shapes(),
    policies: settings.trackers.map((tracker) => ({ name: tracker.name, motions: tracker.motions })),
    guided: { name, calls, forward: joystick.forward, turn: joystick.turn },
  });
  early.forEach((message) => player.hear(message));
  await player.run();
}

start().catch((error: unknown) => scope.postMessage({ kind: "failed", text: firstLine(error) }));
