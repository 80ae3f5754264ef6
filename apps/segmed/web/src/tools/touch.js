/**
 * Fingers on the image. One uses the chosen tool; held still for a moment, it changes brightness and contrast, for
 * which a mouse has its right button. Two scroll through the slices or zoom. A pen is a mouse with a better hand.
 */
import { sendPointer } from "./synthetic.js";

/**
 * @typedef {{x: number, y: number}} Place CSS pixels of the window
 */

const HOLD = 500; // ms
const SLOP = 8; // pixels that a finger moves while it is still
const PER_SLICE = 14; // pixels
const RIGHT = 2; // button of the mouse

export class TouchGestures {
  /** @type {Map<number, Place>} fingers on the image */
  #fingers = new Map();
  /** @type {"none" | "waiting" | "tool" | "window" | "two"} */
  #state = "none";
  /** @type {Place} where the first finger came down */
  #start = { x: 0, y: 0 };
  #timer = 0;
  #scrolled = 0; // pixels since the last slice
  #first = 0; // id of the first finger

  /**
   * @param {HTMLCanvasElement} canvas that hears the mouse
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {(kind: string) => void} felt hears what a held finger does
   */
  constructor(canvas, viewer, felt) {
    this.canvas = canvas;
    this.viewer = viewer;
    this.felt = felt;
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      canvas.addEventListener(type, (event) => this.#hear(/** @type {PointerEvent} */ (event)), { capture: true });
    }
  }

  /** @param {PointerEvent} event */
  #hear(event) {
    if (event.pointerType !== "touch") return;
    event.stopImmediatePropagation();
    event.preventDefault();
    const place = { x: event.clientX, y: event.clientY };
    if (event.type === "pointerdown") this.#down(event.pointerId, place);
    else if (event.type === "pointermove") this.#move(event.pointerId, place);
    else this.#up(event.pointerId, place, event.type === "pointercancel");
  }

  /**
   * @param {number} id of the finger
   * @param {Place} place
   */
  #down(id, place) {
    this.#fingers.set(id, place);
    clearTimeout(this.#timer);
    if (this.#fingers.size > 1) {
      if (this.#state === "tool" || this.#state === "window") this.#send("pointercancel", place);
      this.#state = "two";
      this.#scrolled = 0;
      return;
    }
    this.#state = "waiting";
    this.#start = place;
    this.#first = id;
    this.#timer = window.setTimeout(() => {
      this.#state = "window";
      this.felt("window");
      this.#send("pointerdown", this.#start, RIGHT);
    }, HOLD);
  }

  /**
   * @param {number} id of the finger
   * @param {Place} place
   */
  #move(id, place) {
    const before = this.#fingers.get(id);
    if (!before) return;
    if (this.#state === "two") this.#moveTwo(id, before, place);
    this.#fingers.set(id, place);
    if (this.#state === "waiting" && distance(place, this.#start) > SLOP) this.#begin();
    if (this.#state === "tool" || this.#state === "window") this.#send("pointermove", place);
  }

  /**
   * @param {number} id of the finger
   * @param {Place} place
   * @param {boolean} cancelled by the browser
   */
  #up(id, place, cancelled) {
    clearTimeout(this.#timer);
    if (this.#state === "waiting" && !cancelled) this.#begin();
    if (this.#state === "tool" || this.#state === "window") {
      this.#send(cancelled ? "pointercancel" : "pointerup", place, this.#state === "window" ? RIGHT : 0);
    }
    this.#fingers.delete(id);
    // a second finger that stays is no tool: it begins with the next touch
    this.#state = this.#fingers.size && this.#state === "two" ? "two" : "none";
  }

  #begin() {
    clearTimeout(this.#timer);
    this.#state = "tool";
    this.#send("pointerdown", this.#start);
  }

  /**
   * @param {number} id of the finger that moves
   * @param {Place} before
   * @param {Place} now
   */
  #moveTwo(id, before, now) {
    const other = [...this.#fingers].find(([one]) => one !== id)?.[1];
    if (!other) return;
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [(other.x + now.x) / 2 - box.left, (other.y + now.y) / 2 - box.top];
    const tile = this.viewer.tileAt(x, y);
    if (!tile) return;
    const [was, is] = [distance(before, other), distance(now, other)];
    if (was > SLOP && is > SLOP && Math.abs(is - was) > 0.5) this.viewer.zoom(is / was, tile, x, y);
    if (Math.abs(is - was) > Math.abs(now.y - before.y)) return; // pinched, not scrolled
    this.#scrolled += (now.y - before.y) / 2; // both fingers move
    const slices = Math.trunc(this.#scrolled / PER_SLICE);
    if (!slices) return;
    this.#scrolled -= slices * PER_SLICE;
    this.viewer.setSlice(tile.plane, tile.index - slices);
  }

  /**
   * @param {"pointerdown" | "pointermove" | "pointerup" | "pointercancel"} type
   * @param {Place} place
   * @param {number} button
   */
  #send(type, { x, y }, button = 0) {
    sendPointer(this.canvas, type, { x, y, button, pointerId: this.#first });
  }
}

/**
 * @param {Place} one
 * @param {Place} other
 */
const distance = (one, other) => Math.hypot(one.x - other.x, one.y - other.y);
