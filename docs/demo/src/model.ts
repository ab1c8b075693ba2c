/** The diffusion model's file, as bm_envs/diffusion/model.py reads it. */
import * as ort from "onnxruntime-web/wasm";

import { metadataOf } from "./onnx_file";
import type { Files, GuidedSettings } from "./settings";
import type { Pull } from "./steering";

/** States and actions of a window, in the network's numbers, a row a step. */
export interface Window {
  states: Float32Array;
  actions: Float32Array;
}

export class Model {
  private constructor(
    readonly drives: Record<string, number[]>,
    /** Features of a state. */
    readonly features: number,
    private readonly settings: GuidedSettings,
    private readonly denoiser: ort.InferenceSession,
    private readonly bounds: ort.InferenceSession,
    private readonly constants: Record<string, Float32Array>,
  ) {}

  static async load(files: Files, settings: GuidedSettings): Promise<Model> {
    const bytes = await files("guided/denoiser.onnx");
    const metadata = metadataOf(new Uint8Array(bytes));
    const drive = (name: string): number[] => JSON.parse(metadata.get(name) ?? "[]") as number[];
    const names = ["default_joint_pos", "action_scale", "stiffness", "damping"];
    const denoiser = await ort.InferenceSession.create(bytes);
    const bounds = await ort.InferenceSession.create(await files("guided/bounds.onnx"));
    const outputs = ["state_center", "state_half", "action_center", "action_half", "projection"];
    const window = {
      states: new Float32Array(settings.length * settings.width),
      actions: new Float32Array(settings.past * settings.action_size),
    };
    const found = await denoiser.run(feeds(window, 0, settings), outputs);
    const constants = Object.fromEntries(
      outputs.map((name) => [name, (found[name].data as Float32Array).slice()]),
    );
    const drives = Object.fromEntries(names.map((name) => [name, drive(name)]));
    const size = constants.state_center.length;
    return new Model(drives, size, settings, denoiser, bounds, constants);
  }

  /** One call: the window without noise, by a network at noise level `level`. */
  async denoise(window: Window, level: number): Promise<Window> {
    const inputs = feeds(window, level, this.settings);
    const found = await this.denoiser.run(inputs, ["clean_states", "clean_actions"]);
    const { clip } = this.settings;
    const actions = (found.clean_actions.data as Float32Array).map((value) =>
      Math.min(clip, Math.max(-clip, value)),
    );
    return { states: found.clean_states.data as Float32Array, actions };
  }

  /** Features of states, moved by `share` of the pulls and held within the data's bounds. */
  async bound(
    states: Float32Array,
    pulls: Pull[],
    share: number,
  ): Promise<{ states: Float32Array; features: Float32Array }> {
    const { length, width } = this.settings;
    const gain = new Float32Array(length * this.features);
    const target = new Float32Array(length * this.features);
    for (const pull of pulls) {
      gain[pull.row * this.features + pull.column] = share * pull.share;
      target[pull.row * this.features + pull.column] = pull.target;
    }
    const found = await this.bounds.run({
      states: new ort.Tensor("float32", states, [1, length, width]),
      gain: new ort.Tensor("float32", gain, [1, length, this.features]),
      target: new ort.Tensor("float32", target, [1, length, this.features]),
    });
    return {
      states: found.clean_states.data as Float32Array,
      features: found.features.data as Float32Array,
    };
  }

  /** Features, a row a step, as the network has them. */
  scale(features: Float64Array): Float32Array {
    const { state_center: center, state_half: half, projection } = this.constants;
    const { width } = this.settings;
    const rows = features.length / this.features;
    const result = new Float64Array(rows * width);
    for (let row = 0; row < rows; row++)
      for (let i = 0; i < this.features; i++) {
        const value = (features[row * this.features + i] - center[i]) / half[i];
        for (let j = 0; j < width; j++) result[row * width + j] += value * projection[i * width + j];
      }
    return Float32Array.from(result);
  }

  /** An action of the network as a raw one. */
  unscaleAction(action: Float32Array): Float32Array {
    const { action_center: center, action_half: half } = this.constants;
    return action.map((value, i) => value * half[i] + center[i]);
  }
}

/** Known states are at level 0, everything else at `level`. */
function feeds(
  { states, actions }: Window,
  level: number,
  settings: GuidedSettings,
): Record<string, ort.Tensor> {
  const { length, past, width, action_size } = settings;
  const count = actions.length / action_size;
  const levels = (size: number, known: number): ort.Tensor =>
    new ort.Tensor(
      "int64",
      BigInt64Array.from({ length: size }, (_, i) => BigInt(i < known ? 0 : level)),
      [1, size],
    );
  return {
    states: new ort.Tensor("float32", states, [1, length, width]),
    actions: new ort.Tensor("float32", actions, [1, count, action_size]),
    state_levels: levels(length, past),
    action_levels: levels(count, 0),
  };
}
