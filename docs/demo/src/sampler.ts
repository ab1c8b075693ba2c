/** A window from noise by a few calls of the denoiser (DDIM): bm_envs/diffusion/sampler.py. */
import type { Model, Window } from "./model";
import type { GuidedSettings } from "./settings";
import type { Pull } from "./steering";

export interface Sample {
  /** The raw action that is to be executed now. */
  action: Float32Array;
  /** Features of the window, a row a step. */
  features: Float32Array;
}

/**
 * `past` are the known states in the network's numbers, `noise` a window of standard normal
 * numbers, which is changed. Of the actions those up to the present are made: none depends on later
 * ones.
 */
export async function sample(
  model: Model,
  past: Float32Array,
  noise: Window,
  pulls: Pull[],
  calls: number,
  settings: GuidedSettings,
): Promise<Sample> {
  const top = settings.abar.length - 1;
  const levels = Array.from({ length: calls }, (_, i) => Math.round((top * (calls - 1 - i)) / (calls - 1)));
  let window = noise;
  let features = new Float32Array();
  for (const [i, level] of levels.entries()) {
    window.states.set(past);
    const clean = await model.denoise(window, level);
    const share = settings.steering.strength * settings.share[level];
    const bounded = await model.bound(clean.states, pulls, share);
    features = bounded.features as Float32Array<ArrayBuffer>;
    const following = i + 1 < levels.length ? levels[i + 1] : -1;
    window = {
      states: step(window.states, bounded.states, level, following, settings.abar),
      actions: step(window.actions, clean.actions, level, following, settings.abar),
    };
  }
  const first = (settings.past - 1) * settings.action_size;
  const action = window.actions.subarray(first, first + settings.action_size);
  return { action: model.unscaleAction(action), features };
}

/** From one level to another below it, -1 being done, along the noise that `clean` implies. */
function step(
  noisy: Float32Array,
  clean: Float32Array,
  level: number,
  following: number,
  abar: number[],
): Float32Array {
  if (following < 0) return clean;
  const [at, to] = [abar[level], abar[following]];
  const [keep, scale] = [Math.sqrt(at), Math.sqrt(1 - at)];
  const [signal, rest] = [Math.sqrt(to), Math.sqrt(1 - to)];
  return noisy.map((value, i) => signal * clean[i] + (rest * (value - keep * clean[i])) / scale);
}
