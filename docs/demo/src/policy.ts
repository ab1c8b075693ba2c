/** Trackers: what a file says of itself, as bm_envs/policy/spec.py and load.py check it. */
import * as ort from "onnxruntime-web/wasm";

import { type Columns, type Motion, motionOf } from "./motion";
import type { Layout } from "./observation";
import { metadataOf } from "./onnx_file";
import type { Settings } from "./settings";

/** Values per joint in the policy's order, but for the gains. */
export interface Spec extends Layout {
  actionScale: number[];
  /** In the project's order, as are the next. N m/rad. */
  stiffness: number[];
  /** N m s/rad. */
  damping: number[];
  bodyNames: string[];
}

const MOST_BYTES = 2 ** 26; // of a file
const MOST_FRAMES = 30_000; // ten minutes
/** Outputs of a file that holds its motion, with the numbers of a joint or a body. */
const MOTION_OUTPUTS: Record<string, number> = {
  joint_pos: 1,
  joint_vel: 1,
  body_pos_w: 3,
  body_quat_w: 4,
  body_lin_vel_w: 3,
  body_ang_vel_w: 3,
};

/** The spec that an ONNX file's metadata are; throws a sentence. */
export function specOf(metadata: Map<string, string>, settings: Settings): Spec {
  const missing = settings.required_keys.filter((key) => !metadata.has(key));
  if (missing.length > 0)
    throw new Error(`its metadata lack ${missing.join(", ")}, which policies of this family tell.`);
  const joints = settings.joint_names;
  const list = (key: string): string[] => (metadata.get(key) || "").split(",");
  const names = list("joint_names");
  if ([...names].sort().join() !== [...joints].sort().join())
    throw new Error(
      `its joint_names hold ${names.length} names, expected the G1's ${joints.length} joints once each.`,
    );
  const order = names.map((name) => joints.indexOf(name));
  const drive = (key: string): number[] => {
    let values = numbers(key, list(key));
    if (key === "action_scale" && values.length === 1) values = joints.map(() => values[0]);
    if (values.length !== joints.length)
      throw new Error(`${key} holds ${values.length} values, expected ${joints.length} numbers.`);
    const { low, high, above, unit } = settings.drive_bounds[key];
    const wrong = values.findIndex((x) => !(x >= low && x <= high) || (above && x === low));
    if (wrong >= 0)
      throw new Error(
        `${key} of ${names[wrong]} is ${values[wrong]} ${unit}, expected ` +
          `${above ? `above ${low} and at most` : `${low} to`} ${high}.`,
      );
    return values;
  };
  const inProjectOrder = (values: number[]): number[] =>
    joints.map((name) => values[names.indexOf(name)]);
  const terms = list("observation_names").map((name) => settings.aliases[name] ?? name);
  const unknown = terms.find((term) => !(term in settings.terms));
  if (unknown !== undefined)
    throw new Error(
      `it observes '${unknown.slice(0, 60)}', expected ${Object.keys(settings.terms).join(", ")}.`,
    );
  if (new Set(terms).size < terms.length) throw new Error("it observes a term twice.");
  checkProcessing(metadata, list);
  if (metadata.has("anchor_body_name") && metadata.get("anchor_body_name") !== settings.anchor_body)
    throw new Error(
      `its anchor is '${metadata.get("anchor_body_name")}', expected '${settings.anchor_body}'.`,
    );
  return {
    terms,
    order,
    defaultJointPos: drive("default_joint_pos"),
    actionScale: drive("action_scale"),
    stiffness: inProjectOrder(drive("joint_stiffness")),
    damping: inProjectOrder(drive("joint_damping")),
    bodyNames: metadata.has("body_names") ? list("body_names") : [],
  };
}

/** Refuse histories, scaled and clipped observations, which this family does not have. */
function checkProcessing(metadata: Map<string, string>, list: (key: string) => string[]): void {
  for (const key of ["observation_history_lengths", "observation_terms_history_length"])
    if (metadata.has(key) && numbers(key, list(key)).some((length) => length > 1))
      throw new Error(`${key} holds ${metadata.get(key)}, expected no histories.`);
  const parts = (key: string): number[] =>
    metadata.has(key)
      ? numbers(key, list(key).flatMap((part) => part.split(";")).filter((part) => part !== "None"))
      : [];
  if (parts("observation_terms_scale").some((scale) => scale !== 1))
    throw new Error("its observations are scaled, expected scales of 1.");
  if (parts("observation_terms_clip").some(Number.isFinite))
    throw new Error("its observations are clipped, expected no bounds.");
}

function numbers(key: string, parts: string[]): number[] {
  return parts.map((part) => {
    const text = part.trim().toLowerCase();
    const value = text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text || NaN);
    if (Number.isNaN(value)) throw new Error(`${key} holds '${part.slice(0, 60)}', no number.`);
    return value;
  });
}

export class Policy {
  private constructor(
    readonly name: string,
    readonly spec: Spec,
    private readonly session: ort.InferenceSession,
    private readonly metadata: Map<string, string>,
    private readonly settings: Settings,
  ) {}

  /** Throws one sentence that begins with the name. */
  static async load(name: string, bytes: ArrayBuffer, settings: Settings): Promise<Policy> {
    try {
      if (bytes.byteLength > MOST_BYTES)
        throw new Error(`it has ${(bytes.byteLength / 1e6).toFixed(0)} MB, expected at most 67.`);
      const metadata = metadataOf(new Uint8Array(bytes));
      const spec = specOf(metadata, settings);
      const session = await ort.InferenceSession.create(bytes).catch((error: unknown) => {
        throw new Error(`the runtime cannot read it (${firstLine(error)}).`);
      });
      const policy = new Policy(name, spec, session, metadata, settings);
      policy.checkInterface();
      await policy.probe();
      return policy;
    } catch (error) {
      throw new Error(`${name}: ${firstLine(error)}`);
    }
  }

  /** The raw action for an observation, in the policy's order. */
  async act(observation: Float32Array): Promise<Float32Array> {
    return (await this.run(["actions"], observation, 0)).actions;
  }

  /** The motion inside the file, or null where it has none; throws a sentence. */
  async motion(): Promise<Motion | null> {
    const outputs = Object.keys(MOTION_OUTPUTS);
    if (!outputs.every((name) => this.session.outputNames.includes(name))) return null;
    const { columns: sizes, root_body, anchor_body } = this.settings;
    const root = this.spec.bodyNames.indexOf(root_body);
    const anchor = this.spec.bodyNames.indexOf(anchor_body);
    if (root < 0 || anchor < 0)
      throw new Error(`${this.name}: its motion lacks ${root_body} or ${anchor_body}.`);
    const frames = await this.countFrames();
    const columns: Columns = {};
    for (const [name, size] of Object.entries(sizes)) columns[name] = new Float32Array(frames * size);
    for (let frame = 0; frame < frames; frame++) {
      const found = await this.run(outputs, this.emptyObservation(), frame);
      const put = (column: string, name: string, body: number): void => {
        const size = MOTION_OUTPUTS[name];
        columns[column].set(found[name].subarray(size * body, size * (body + 1)), frame * size);
      };
      for (const name of ["joint_pos", "joint_vel"])
        this.spec.order.forEach((joint, i) => {
          columns[name][frame * sizes[name] + joint] = found[name][i];
        });
      put("root_pos", "body_pos_w", root);
      put("root_quat", "body_quat_w", root);
      put("root_lin_vel", "body_lin_vel_w", root);
      put("root_ang_vel", "body_ang_vel_w", root);
      put("anchor_pos", "body_pos_w", anchor);
      put("anchor_quat", "body_quat_w", anchor);
    }
    if (!Object.values(columns).every((column) => column.every(Number.isFinite)))
      throw new Error(`${this.name}: its motion is not finite throughout.`);
    return motionOf(this.metadata.get("motion_name") ?? "its own", columns, this.settings);
  }

  release(): Promise<void> {
    return this.session.release();
  }

  private async run(
    outputs: string[],
    observation: Float32Array,
    frame: number,
  ): Promise<Record<string, Float32Array>> {
    const feeds: Record<string, ort.Tensor> = {
      obs: new ort.Tensor("float32", observation, [1, observation.length]),
    };
    if (this.session.inputNames.includes("time_step"))
      feeds.time_step = new ort.Tensor("float32", Float32Array.of(frame), [1, 1]);
    const found = await this.session.run(feeds, outputs);
    return Object.fromEntries(outputs.map((name) => [name, found[name].data as Float32Array]));
  }

  private emptyObservation(): Float32Array {
    const sizes = this.spec.terms.map((term) => this.settings.terms[term]);
    return new Float32Array(sizes.reduce((sum, size) => sum + size, 0));
  }

  /** Names, types and shapes of what goes in and out. */
  private checkInterface(): void {
    const { inputNames, outputNames, inputMetadata } = this.session;
    if (!inputNames.includes("obs") || inputNames.some((x) => x !== "obs" && x !== "time_step"))
      throw new Error(
        `its inputs are ${inputNames.join(", ")}, expected 'obs' and perhaps 'time_step'.`,
      );
    if (!outputNames.includes("actions"))
      throw new Error(`its outputs are ${outputNames.join(", ")}, expected 'actions' there.`);
    const size = this.emptyObservation().length;
    const obs = inputMetadata[inputNames.indexOf("obs")];
    if (!obs.isTensor || obs.type !== "float32" || obs.shape.length !== 2 || obs.shape[1] !== size)
      throw new Error(
        `its input 'obs' has shape [${obs.isTensor ? obs.shape.join(", ") : ""}], expected ` +
          `[1, ${size}] for the terms ${this.spec.terms.join(", ")}.`,
      );
  }

  /** Run it once: its action must be finite numbers. */
  private async probe(): Promise<void> {
    const action = await this.act(this.emptyObservation()).catch((error: unknown) => {
      throw new Error(`the network fails (${firstLine(error)}).`);
    });
    if (action.length !== this.spec.order.length || !action.every(Number.isFinite))
      throw new Error(`its action is not ${this.spec.order.length} finite numbers.`);
  }

  /** By the metadata; else the first frame that looks like the last, as all beyond the end do. */
  private async countFrames(): Promise<number> {
    const stated = Number(this.metadata.get("motion_frames"));
    if (Number.isInteger(stated) && stated > 0) return Math.min(stated, MOST_FRAMES);
    const pose = async (frame: number): Promise<string> =>
      (await this.run(["joint_pos"], this.emptyObservation(), frame)).joint_pos.join();
    const last = await pose(MOST_FRAMES);
    let [low, high] = [0, MOST_FRAMES];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if ((await pose(middle)) === last) high = middle;
      else low = middle + 1;
    }
    return low + 1;
  }
}

export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split("\n")[0];
}
