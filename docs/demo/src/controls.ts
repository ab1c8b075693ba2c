/** What keys and the touch pad ask for. */
import type { GuidedChoice } from "./messages";
import type { Vector3 } from "./steering";

const WAYS: Record<string, [number, number]> = {
  KeyW: [1, 0], ArrowUp: [1, 0], KeyI: [1, 0],
  KeyS: [-1, 0], ArrowDown: [-1, 0], KeyK: [-1, 0],
  KeyA: [0, 1], ArrowLeft: [0, 1], KeyJ: [0, 1],
  KeyD: [0, -1], ArrowRight: [0, -1], KeyL: [0, -1],
}; // ahead and to the left
const DEAD_ZONE = 0.12; // of the pad's radius

/** Keys that are held and a finger on the pad, as a command: m/s and rad/s. */
export class Joystick {
  private readonly held = new Set<string>();
  private pad: [number, number] = [0, 0];
  private last = "";

  constructor(
    private readonly range: GuidedChoice,
    private readonly pads: { stick: HTMLElement; knob: HTMLElement },
    private readonly changed: (command: Vector3) => void,
  ) {
    window.addEventListener("keydown", (event) => {
      if (!(event.code in WAYS) || isTyped(event)) return;
      event.preventDefault();
      this.held.add(event.code);
      this.tell();
    });
    window.addEventListener("keyup", (event) => {
      this.held.delete(event.code);
      this.tell();
    });
    window.addEventListener("blur", () => {
      this.held.clear();
      this.tell();
    });
    const { stick } = pads;
    stick.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      stick.setPointerCapture(event.pointerId);
      this.move(event);
    });
    stick.addEventListener("pointermove", (event) => {
      if (stick.hasPointerCapture(event.pointerId)) this.move(event);
    });
    for (const name of ["pointerup", "pointercancel"] as const)
      stick.addEventListener(name, () => this.lean(0, 0));
  }

  /** What is asked for now. */
  command(): Vector3 {
    let [ahead, left] = this.pad;
    for (const code of this.held) {
      ahead += WAYS[code][0];
      left += WAYS[code][1];
    }
    const share = (value: number): number => Math.min(1, Math.max(-1, value));
    const { forward, turn } = this.range;
    ahead = share(ahead);
    left = share(left);
    return [
      ahead > 0 ? ahead * forward[1] : -ahead * forward[0],
      0,
      left > 0 ? left * turn[1] : -left * turn[0],
    ];
  }

  private move(event: PointerEvent): void {
    const box = this.pads.stick.getBoundingClientRect();
    const right = (event.clientX - box.left) / (box.width / 2) - 1;
    const down = (event.clientY - box.top) / (box.height / 2) - 1;
    const size = Math.hypot(right, down);
    const bound = Math.max(1, size);
    this.lean(size < DEAD_ZONE ? 0 : -down / bound, size < DEAD_ZONE ? 0 : -right / bound);
  }

  private lean(ahead: number, left: number): void {
    this.pad = [ahead, left];
    this.pads.knob.style.transform = `translate(${-60 * left}%, ${-60 * ahead}%)`;
    this.tell();
  }

  private tell(): void {
    const command = this.command();
    const text = command.join();
    if (text !== this.last) this.changed(command);
    this.last = text;
  }
}

/** Whether a key belongs to a field or a browser's shortcut. */
export function isTyped(event: KeyboardEvent): boolean {
  const field = event.target instanceof HTMLSelectElement || event.target instanceof HTMLInputElement;
  return field || event.ctrlKey || event.metaKey || event.altKey;
}
