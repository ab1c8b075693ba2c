/** The page: what is chosen, what is shown. `window.demo` does the same from a script. */
import { isTyped, Joystick } from "./controls";
import type { Frame, FromWorker, GuidedChoice, ToWorker } from "./messages";
import { Scene } from "./scene";
import type { Vector3 } from "./steering";

type Ready = Extract<FromWorker, { kind: "ready" }>;

const MOST_CALLS = 10;
const HINTS: Record<string, string> = {
  guided: "Drive it by W A S D, by the arrows or on the pad. Drag the robot to pull at it.",
  tracker: "It follows a motion, in green. Drag the robot to pull at it.",
};

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no '${id}'.`);
  return found as T;
}

class Page {
  private readonly worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  private readonly scene: Scene;
  private frame: Frame | null = null;
  private fresh = false;
  private settled = false; // whether the frame is a script's
  private paused = false;
  private own: string | null = null; // a visitor's policy that plays
  private readonly policy = element<HTMLSelectElement>("policy");
  private readonly motion = element<HTMLSelectElement>("motion");
  private readonly said = element("said");
  private readonly waiting: ((message: FromWorker) => void)[] = [];

  constructor() {
    this.scene = new Scene(element<HTMLCanvasElement>("view"), () => (this.fresh = true));
    element<HTMLDetailsElement>("panel").open = window.innerWidth > 640; // as in style.css
    this.worker.onmessage = (event: MessageEvent<FromWorker>) => this.hear(event.data);
    this.worker.onerror = (event) => this.cover(`The page cannot start: ${event.message}.`);
    this.policy.onchange = () => this.tell({ kind: "play", policy: this.policy.value });
    this.motion.onchange = () => this.tell({ kind: "motion", motion: this.motion.value });
    element<HTMLSelectElement>("calls").onchange = (event) =>
      this.tell({ kind: "calls", calls: Number((event.target as HTMLSelectElement).value) });
    element<HTMLInputElement>("ghost").onchange = (event) => {
      this.scene.showsGhost = (event.target as HTMLInputElement).checked;
      this.fresh = true;
    };
    element("push").onclick = () => this.tell({ kind: "push" });
    element("restart").onclick = () => this.tell({ kind: "restart" });
    this.said.onclick = () => this.say("");
    element("pause").onclick = () => this.pause(!this.paused);
    this.listenToKeys();
    this.listenToPointer();
    this.listenToFiles();
    document.addEventListener("visibilitychange", () =>
      this.tell({ kind: "pause", paused: document.hidden || this.paused }),
    );
    const draw = (): void => {
      requestAnimationFrame(draw);
      if (this.frame === null || !this.fresh) return;
      this.fresh = false;
      this.scene.show(this.frame, this.settled);
    };
    requestAnimationFrame(draw);
  }

  tell(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  /** The next message of one of these kinds. */
  next(...kinds: FromWorker["kind"][]): Promise<FromWorker> {
    return new Promise((resolve) => {
      const listen = (message: FromWorker): void => {
        if (!kinds.includes(message.kind)) return;
        this.waiting.splice(this.waiting.indexOf(listen), 1);
        resolve(message);
      };
      this.waiting.push(listen);
    });
  }

  /** A visitor's policy. */
  async open(file: File): Promise<void> {
    this.tell({ kind: "file", name: file.name, bytes: await file.arrayBuffer() });
  }

  pause(paused: boolean): void {
    this.paused = paused;
    element("pause").textContent = paused ? "Go on" : "Pause";
    this.tell({ kind: "pause", paused });
  }

  /** Where a link is in the window, in pixels. */
  onScreen(body: number): [number, number] {
    return this.scene.onScreen(body);
  }

  private hear(message: FromWorker): void {
    switch (message.kind) {
      case "loading":
        this.cover(message.text);
        break;
      case "ready":
        this.start(message);
        break;
      case "playing":
        this.choose(message.policy, message.motions, message.motion);
        break;
      case "frame":
      case "stepped":
        this.frame = message.frame;
        this.settled = message.kind === "stepped";
        this.fresh = true;
        this.write(message.frame);
        break;
      case "refused":
        this.say(message.text);
        break;
      case "failed":
        this.cover(`The page cannot go on: ${message.text}`);
    }
    [...this.waiting].forEach((listen) => listen(message));
  }

  private start(ready: Ready): void {
    const links = Math.max(...ready.shapes.map((shape) => shape.body)) + 1;
    this.scene.setRobot(ready.shapes, links);
    const { guided, policies } = ready;
    this.policy.append(new Option(`${guided.name}: drive it`, guided.name));
    for (const { name, motions } of policies) {
      const what = motions.length === 1 ? `the motion ${motions[0]}` : `${motions.length} motions`;
      this.policy.append(new Option(`${name}: ${what}`, name));
    }
    this.fillCalls(guided);
    new Joystick(guided, { stick: element("stick"), knob: element("knob") }, (command) =>
      this.tell({ kind: "command", command }),
    );
    this.tell({ kind: "play", policy: guided.name });
  }

  private fillCalls(guided: GuidedChoice): void {
    const calls = element<HTMLSelectElement>("calls");
    for (let count = 2; count <= MOST_CALLS; count++)
      calls.append(new Option(`${count} calls a control step`, String(count)));
    calls.value = String(guided.calls);
  }

  private choose(policy: string, motions: string[], motion: string | null): void {
    const known = [...this.policy.options].some((option) => option.value === policy);
    if (!known) {
      // One policy of a visitor's at a time.
      if (this.own !== null) this.policy.options[this.policy.options.length - 1].remove();
      this.own = policy;
      this.policy.append(new Option(`${policy}: yours`, policy));
    } else if (this.own !== null && policy !== this.own) {
      this.policy.options[this.policy.options.length - 1].remove();
      this.own = null;
    }
    this.policy.value = policy;
    element("playing").textContent = policy;
    this.motion.replaceChildren(...motions.map((name) => new Option(name, name)));
    if (motion !== null) this.motion.value = motion;
    const kind = motion === null ? "guided" : "tracker";
    document.body.dataset.kind = kind;
    element("hint").textContent = HINTS[kind];
    this.say("");
    this.cover(null);
  }

  private write({ figures, factor }: Frame): void {
    const signed = (value: number): string =>
      `${value <= -0.005 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
    const pair = (forward: number, turn: number): string =>
      `${signed(forward)} m/s, ${signed(turn)} rad/s`;
    const { command, progress, motion } = figures;
    const rows: [string, string][] = [
      ["real time", this.paused || factor === 0 ? "–" : `${factor.toFixed(2)} x`],
      ["measured", pair(motion[0], motion[2])],
    ];
    if (command !== null) rows.push(["command", pair(command[0], command[2])]);
    if (progress !== null)
      rows.push(["motion", progress.map((time) => time.toFixed(1)).join(" of ") + " s"]);
    rows.push(["falls", `${figures.falls}${figures.down ? ", begins again" : ""}`]);
    element("figures").replaceChildren(
      ...rows.flatMap(([name, value]) => {
        const [term, text] = [document.createElement("dt"), document.createElement("dd")];
        [term.textContent, text.textContent] = [name, value];
        return [term, text];
      }),
    );
  }

  /** One sentence for the visitor; an empty one takes the last away. */
  private say(text: string): void {
    this.said.textContent = text;
    this.said.hidden = text === "";
  }

  /** What stands over the picture while there is none. */
  private cover(text: string | null): void {
    element("cover").hidden = text === null;
    if (text !== null) element("cover-text").textContent = text;
  }

  private listenToKeys(): void {
    const keys: Record<string, () => void> = {
      KeyP: () => this.tell({ kind: "push" }),
      KeyR: () => this.tell({ kind: "restart" }),
      Enter: () => this.pause(!this.paused),
    };
    window.addEventListener("keydown", (event) => {
      const button = event.target instanceof HTMLButtonElement;
      if (event.repeat || isTyped(event) || button || !(event.code in keys)) return;
      event.preventDefault();
      keys[event.code]();
    });
  }

  private listenToPointer(): void {
    const view = element("view");
    let grip: ReturnType<Scene["grip"]> = null;
    const pull = (event: PointerEvent): void => {
      const target = this.scene.drag(event.clientX, event.clientY);
      if (grip === null || target === null) return;
      const { body, point } = grip;
      const pulled = { body, point: point.toArray(), target: target.toArray() };
      this.tell({ kind: "pull", pull: pulled });
      this.fresh = true;
    };
    const release = (): void => {
      if (grip !== null) this.tell({ kind: "pull", pull: null });
      grip = null;
      this.scene.letGo();
    };
    // Before the camera's own listener, which is to stay out of it.
    view.addEventListener(
      "pointerdown",
      (event) => {
        if (!event.isPrimary || event.button !== 0) return;
        grip = this.scene.grip(event.clientX, event.clientY);
        if (grip === null) return;
        view.setPointerCapture(event.pointerId);
        pull(event);
      },
      { capture: true },
    );
    view.addEventListener("pointermove", pull);
    view.addEventListener("pointerup", release);
    view.addEventListener("pointercancel", release);
  }

  private listenToFiles(): void {
    const chosen = element<HTMLInputElement>("file");
    element("open").onclick = () => chosen.click();
    chosen.onchange = () => {
      const file = chosen.files?.[0];
      chosen.value = ""; // so that the same file can be chosen again
      if (file !== undefined) void this.open(file);
    };
    for (const name of ["dragenter", "dragover"] as const)
      window.addEventListener(name, (event) => {
        event.preventDefault();
        document.body.classList.add("dropping");
      });
    window.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) document.body.classList.remove("dropping");
    });
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      const file = event.dataTransfer?.files[0];
      if (file !== undefined) void this.open(file);
    });
  }
}

/** For scripts: the clock stands still from the first `step` on, until `pause(false)`. */
function scripted(page: Page): Record<string, unknown> {
  const answer = async (message: ToWorker, kind: FromWorker["kind"]): Promise<FromWorker> => {
    const answered = page.next(kind, "refused");
    page.tell(message);
    return answered;
  };
  return {
    /** Do so many control steps; resolves with the figures. */
    step: async (ticks: number) => {
      const found = await answer({ kind: "step", ticks }, "stepped");
      return found.kind === "stepped" ? found.frame.figures : found;
    },
    /** Play a policy of the page's. */
    play: (policy: string, motion?: string) =>
      answer({ kind: "play", policy, ...(motion === undefined ? {} : { motion }) }, "playing"),
    command: (command: Vector3) => page.tell({ kind: "command", command }),
    push: (speed: number, angle: number) => page.tell({ kind: "push", speed, angle }),
    pause: (paused: boolean) => page.pause(paused),
    onScreen: (body: number) => page.onScreen(body),
  };
}

try {
  if (location.protocol === "file:")
    throw new Error("browsers load such a page from a server alone: python -m http.server");
  Object.assign(window, { demo: scripted(new Page()) });
} catch (error) {
  const text = error instanceof Error ? error.message : String(error);
  element("cover-text").textContent = `The page cannot start: ${text}`;
}
