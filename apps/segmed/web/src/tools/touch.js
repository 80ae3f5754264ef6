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
const PINCH = 16; // pixels by which fingers part or meet before they zoom, so that scrolling does not
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
  /** Both fingers when they were looked at last: they move one after the other, and are looked at together. */
  #seen = /** @type {Place[]} */ ([]);
  #apart = 0; // pixels between them at first; 0 once they zoom
  #frame = 0; // the browser's number of the next look
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
      this.#seen = [...this.#fingers.values()];
      this.#apart = distance(this.#seen[0], this.#seen[1]);
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
    if (!this.#fingers.has(id)) return;
    this.#fingers.set(id, place);
    if (this.#state === "two" && !this.#frame) this.#frame = requestAnimationFrame(() => this.#moveTwo());
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

  #moveTwo() {
    this.#frame = 0;
    const [before, now] = [this.#seen, [...this.#fingers.values()]];
    this.#seen = now;
    if (now.length !== 2 || before.length !== 2) return;
    const box = this.canvas.getBoundingClientRect();
    const middle = (/** @type {Place[]} */ [one, other]) => [(one.x + other.x) / 2, (one.y + other.y) / 2];
    const [x, y] = [middle(now)[0] - box.left, middle(now)[1] - box.top];
    const tile = this.viewer.tileAt(x, y);
    if (!tile) return;
    const [was, is] = [distance(before[0], before[1]), distance(now[0], now[1])];
    if (this.#apart && Math.abs(is - this.#apart) > PINCH) this.#apart = 0;
    const moved = middle(now)[1] - middle(before)[1];
    if (!this.#apart && Math.abs(is - was) > Math.abs(moved)) {
      if (was > SLOP && is > SLOP) this.viewer.zoom(is / was, tile, x, y);
      return;
    }
    this.#scrolled += moved;
    const slices = Math.trunc(this.#scrolled / PER_SLICE);
    this.#scrolled -= slices * PER_SLICE;
    if (slices) this.viewer.setSlice(tile.plane, tile.index - slices);
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
