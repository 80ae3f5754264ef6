/**
 * Tools without a mouse: Shift and the arrows move a cursor on the image, Space presses and releases the chosen tool
 * there. Clicks need one Space, boxes and lines one at each end.
 */
import { line } from "../overlay/pen.js";
import { sendPointer } from "./synthetic.js";

/** @type {Object<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FAR = 10; // voxels at a time with Ctrl
const RADIUS = 9; // pixels
const AT_ONCE = ["plus", "minus"]; // tools that need no second place

export class KeyboardCursor {
  /** @type {[number, number] | null} in CSS pixels of the canvas */
  #place = null;
  #pressed = false;

  /**
   * @param {HTMLCanvasElement} canvas that hears the mouse
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {import("./pointer.js").Pointer} pointer
   */
  constructor(canvas, viewer, pointer) {
    this.canvas = canvas;
    this.viewer = viewer;
    this.pointer = pointer;
    document.addEventListener("keydown", (event) => this.#hear(event), { capture: true });
    canvas.addEventListener("pointermove", (event) => event.isTrusted && this.#hide());
  }

  /** @param {KeyboardEvent} event */
  #hear(event) {
    const target = /** @type {Element} */ (event.target);
    if (!this.viewer.meta || target.closest("input, select, textarea, dialog, button, summary")) return;
    if (event.key === "Escape") {
      this.#pressed = false;
      this.#hide();
      return;
    }
    const isSpace = event.key === " " && this.#place;
    if (!isSpace && !(event.shiftKey && ARROWS[event.key])) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (isSpace) this.#press();
    else this.#move(ARROWS[event.key], event.ctrlKey ? FAR : 1);
  }

  /**
   * @param {[number, number]} way
   * @param {number} voxels
   */
  #move(way, voxels) {
    const tiles = this.viewer.tiles();
    const [x, y] = this.#place ?? [NaN, NaN];
    const tile = this.viewer.tileAt(x, y) ?? tiles.find((one) => one.plane === this.viewer.drawingPlane) ?? tiles[0];
    if (!tile) return;
    if (!this.#place) this.#place = [tile.left + tile.width / 2, tile.top + tile.height / 2];
    else {
      const step = [0, 1].map((at) => tile.pixels(tile.scale[at])[at] * voxels);
      this.#place = [
        Math.min(tile.left + tile.width - 1, Math.max(tile.left, x + way[0] * step[0])),
        Math.min(tile.top + tile.height - 1, Math.max(tile.top, y + way[1] * step[1])),
      ];
    }
    this.#send("pointermove");
    this.pointer.overlay.draw();
  }

  #press() {
    if (!this.#pressed) this.#send("pointerdown");
    this.#pressed = !this.#pressed;
    if (this.#pressed && !AT_ONCE.includes(this.pointer.tool.name)) return;
    this.#pressed = false;
    this.#send("pointerup");
  }

  #hide() {
    if (!this.#place) return;
    this.#place = null;
    this.pointer.overlay.draw();
  }

  /** @param {"pointerdown" | "pointermove" | "pointerup"} type */
  #send(type) {
    const { left, top } = this.canvas.getBoundingClientRect();
    sendPointer(this.canvas, type, { x: this.#place[0] + left, y: this.#place[1] + top });
  }

  /**
   * Draw the cursor: a ring with a cross, whose middle stays free.
   * @param {CanvasRenderingContext2D} pen
   */
  draw(pen) {
    if (!this.#place) return;
    const [x, y] = this.#place;
    pen.beginPath();
    pen.arc(x, y, RADIUS, 0, 2 * Math.PI);
    for (const [dx, dy] of Object.values(ARROWS)) {
      pen.moveTo(x + 4 * dx, y + 4 * dy);
      pen.lineTo(x + (RADIUS + 6) * dx, y + (RADIUS + 6) * dy);
    }
    line(pen, this.#pressed ? "#ffe08a" : "#fff", 1.5);
  }
}
