/** Figures of `settings.json`, which docs/demo/export.py writes from the package. */
export interface Settings {
  joint_names: string[];
  body_names: string[];
  root_body: string;
  anchor_body: string;
  /** Group of the shapes that are looked at. */
  visual_group: number;
  /** s */
  control_dt: number;
  /** Physics steps of a control step. */
  substeps: number;
  /** Frames by which the shown reference leads. */
  lead: number;
  /** Sizes of the terms that a tracker may observe. */
  terms: Record<string, number>;
  /** Names under which other projects have the same terms. */
  aliases: Record<string, string>;
  required_keys: string[];
  drive_bounds: Record<string, Bound>;
  motions: { name: string; frames: number }[];
  /** Sizes of the columns of a motion's file, in order. */
  columns: Record<string, number>;
  trackers: { name: string; motions: string[]; licence: string }[];
  /** m; a root that is further below the reference's has fallen. */
  fall_below_reference: number;
  guided: GuidedSettings;
}

export interface Bound {
  low: number;
  high: number;
  /** Whether the lowest itself is refused. */
  above: boolean;
  unit: string;
}

export interface GuidedSettings {
  name: string;
  /** Calls of the network in a control step. */
  calls: number;
  warm_up_s: number;
  /** Frames of a motion in which robots start. */
  start: { motion: string; first: number; count: number };
  /** Steps of a window, and those of them that are known; the last of these is the present. */
  length: number;
  past: number;
  /** Size of a state as the network has it. */
  width: number;
  action_size: number;
  /** Bound of the estimates, in half-ranges. */
  clip: number;
  /** Share of the signal's variance that is left at each noise level. */
  abar: number[];
  /** s, of each step of a window. */
  ahead: number[];
  /** Share of a cost's own step at each noise level. */
  share: number[];
  steering: {
    strength: number;
    consistent: number;
    turn: number;
    correct_s: number;
    most_correction: number;
    recover_at: number;
    recover_s: number;
  };
  /** First feature of each block, and the one after its last. */
  blocks: Record<string, [number, number]>;
  fall: { pelvis_height: number; tilt: number };
  joystick: {
    /** m/s, slowest and fastest. */
    forward: [number, number];
    /** rad/s, to the right and to the left. */
    turn: [number, number];
    /** Change of the command in a second. */
    ramp: [number, number, number];
    /** m/s */
    push_speed: number;
  };
}

/** Fetches one of the files beside `settings.json`, by its name there. */
export type Files = (name: string) => Promise<ArrayBuffer>;

export async function readSettings(files: Files): Promise<Settings> {
  return JSON.parse(new TextDecoder().decode(await files("settings.json"))) as Settings;
}
