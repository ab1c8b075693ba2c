/**
 * The page's observation and control loop without a page: `npm run vectors -- DATA IN.json OUT.json`.
 *
 * DATA is what export.py wrote. IN and OUT are the questions and answers of
 * tests/project/test_demo.py, which compares the answers with the package's.
 */
import { readFile, writeFile } from "node:fs/promises";
import { argv } from "node:process";

import loadMujoco from "@mujoco/mujoco";
import * as ort from "onnxruntime-web/wasm";

import { predicted } from "./guided";
import { Model } from "./model";
import { readMotion } from "./motion";
import { observe } from "./observation";
import { Policy } from "./policy";
import { Robot } from "./robot";
import { rotateInverse } from "./rotations";
import { sample } from "./sampler";
import { type Files, readSettings, type Settings } from "./settings";
import { encode, stateOf } from "./states";
import { joystick, type Vector3 } from "./steering";
import { Tracking } from "./tracking";

type Numbers = number[];

/** One case of the project's test vectors; docs/policy_files.md has the names. */
interface TestVector {
  robot: Record<string, Numbers>;
  reference: Record<string, Numbers>;
  observation: Numbers;
}

interface Questions {
  trackers: { policy: string; cases: TestVector[] }[];
  walk: { policy: string; motion: string; ticks: number };
  guided: {
    qpos: Numbers[];
    qvel: Numbers[];
    states: Numbers;
    actions: Numbers;
    command: Vector3;
    offset: Vector3;
    share: number;
    calls: number;
  }[];
}

const list = (values: ArrayLike<number>): Numbers => Array.from(values);

async function tracker(robot: Robot, policy: Policy, cases: TestVector[]): Promise<unknown[]> {
  const answers = [];
  for (const { robot: state, reference, observation } of cases) {
    const spin = rotateInverse(state.root_quat_w, state.root_ang_vel_w);
    robot.reset(
      [...state.root_pos_w, ...state.root_quat_w, ...state.joint_pos],
      [...state.root_lin_vel_w, ...spin, ...state.joint_vel],
    );
    const frame = {
      jointPos: reference.joint_pos,
      jointVel: reference.joint_vel,
      anchorPos: reference.anchor_pos_w,
      anchorQuat: reference.anchor_quat_w,
    };
    answers.push({
      observation: list(observe(robot, frame, state.last_action, policy.spec)),
      action: list(await policy.act(Float32Array.from(observation))),
    });
  }
  return answers;
}

async function walk(game: Tracking, ticks: number): Promise<Numbers[]> {
  const places = [];
  for (let i = 0; i < ticks; i++) {
    await game.tick();
    places.push(list(game.robot.qpos));
  }
  return places;
}

async function guided(
  robot: Robot,
  model: Model,
  question: Questions["guided"][number],
  settings: Settings,
): Promise<unknown> {
  const own = settings.guided;
  const states = question.qpos.map((qpos, i) => {
    robot.reset(qpos, question.qvel[i]);
    return stateOf(robot);
  });
  const encoded = encode(states);
  const noise = {
    states: Float32Array.from(question.states),
    actions: Float32Array.from(question.actions),
  };
  const pulls = joystick(question.command, question.offset, question.share, own);
  const past = model.scale(encoded);
  const { action, features } = await sample(model, past, noise, pulls, question.calls, own);
  return { past: list(encoded), action: list(action), predicted: predicted(features, own) };
}

async function main([data, questionFile, answerFile]: string[]): Promise<void> {
  ort.env.wasm.numThreads = 1;
  const files: Files = async (name) => Uint8Array.from(await readFile(`${data}/${name}`)).buffer;
  const settings = await readSettings(files);
  const questions = JSON.parse(await readFile(questionFile, "utf8")) as Questions;
  const xml = new TextDecoder().decode(await files("robot.xml"));
  const robot = Robot.make(await loadMujoco(), xml, settings);
  const load = async (name: string): Promise<Policy> =>
    Policy.load(name, await files(`policies/${name}.onnx`), settings);

  const trackers = [];
  for (const { policy, cases } of questions.trackers)
    trackers.push(await tracker(robot, await load(policy), cases));
  const { policy, motion, ticks } = questions.walk;
  const clip = readMotion(motion, await files(`motions/${motion}.bin`), settings);
  const walked = await walk(new Tracking(robot, settings, await load(policy), clip), ticks);
  const model = await Model.load(files, settings.guided);
  const planned = [];
  for (const question of questions.guided)
    planned.push(await guided(robot, model, question, settings));
  await writeFile(answerFile, JSON.stringify({ trackers, walk: walked, guided: planned }));
}

await main(argv.slice(2));
