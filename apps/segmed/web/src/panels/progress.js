/** How far a long request is, and the buttons that stop it. */
import { button, find, onClick } from "./dom.js";

const UNHURRIED = 90; // seconds from which on minutes are told

export class ProgressPanel {
  /** @param {(keep: boolean) => void} stop */
  constructor(stop) {
    this.box = find("#progress");
    this.bar = find("#progress progress", HTMLProgressElement);
    this.words = find("#progress output", HTMLOutputElement);
    for (const [id, keep] of /** @type {[string, boolean][]} */ ([
      ["#stop-keep", true],
      ["#stop-drop", false],
    ])) {
      onClick(id, () => {
        this.#enable(false);
        stop(keep);
      });
    }
  }

  /** @param {import("../server/stream.js").Progress | null} progress null at the end */
  show(progress) {
    if (!progress) this.#enable(true);
    this.box.hidden = !progress;
    if (!progress) return;
    const { done, most } = progress;
    if (most) {
      this.bar.max = most;
      this.bar.value = done;
    } else this.bar.removeAttribute("value");
    this.words.textContent = progressWords(progress);
  }

  /** @param {boolean} enabled */
  #enable(enabled) {
    for (const id of ["#stop-keep", "#stop-drop"]) button(id).disabled = !enabled;
  }
}

/**
 * The progress as a sentence.
 * @param {Pick<import("../server/stream.js").Progress, "done" | "most" | "left">} progress
 */
export function progressWords({ done, most, left }) {
  if (!most) return "Waiting for its turn …";
  const slices = `${done} of at most ${most} slice${most === 1 ? "" : "s"}`;
  if (left === null) return slices;
  const time = left >= UNHURRIED ? `${Math.round(left / 60)} min` : `${Math.max(1, Math.round(left))} s`;
  return `${slices}, ${time} left at most`;
}
