/** The mouse (or pen, or finger) on the image: it hands presses, moves and releases to the chosen tool. */
import { BoxTool } from "./box.js";
import { NegativeClickTool, PositiveClickTool } from "./click.js";
import { MeasureTool } from "./measure.js";
import { CrosshairTool, PanTool, WindowTool } from "./navigation.js";
import { BrushTool, EraserTool } from "./paint.js";
import { LassoTool, NegativeScribbleTool, PositiveScribbleTool } from "./trace.js";

/**
 * @typedef {import("./tool.js").Tool} Tool
 * @typedef {import("./tool.js").Result} Result
 * @typedef {import("../image/tile.js").Tile} Tile
 * @typedef {import("../types.js").Voxel} Voxel
 *
 * @typedef {object} PointerActions
 * @property {(result: Result) => void} done what has come of a gesture
 * @property {() => number} labelValue what the brush paints
 * @property {() => import("../types.js").Prompt} open the prompt of the open object
 * @property {(voxel: Voxel | null) => void} hover the voxel under the mouse
 */

const [MIDDLE, RIGHT] = [1, 2]; // buttons of the mouse
const ZOOM_STEP = 1.15;

export class Pointer {
  #gesture = /** @type {Tool | null} */ (null);

  /**
   * @param {HTMLCanvasElement} canvas that hears the mouse
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {import("../overlay/overlay.js").Overlay} overlay
   * @param {PointerActions} actions
   */
  constructor(canvas, viewer, overlay, actions) {
    this.canvas = canvas;
    this.viewer = viewer;
    this.overlay = overlay;
    this.actions = actions;
    this.settings = { size: 8 };
    this.measuring = new MeasureTool(viewer, this.settings);
    /** @type {Tool[]} those with a button and a key, in the order of the buttons */
    this.tools = [
      new CrosshairTool(viewer, this.settings),
      new BoxTool(viewer, this.settings, actions.open),
      new PositiveClickTool(viewer, this.settings),
      new NegativeClickTool(viewer, this.settings),
      new PositiveScribbleTool(viewer, this.settings),
      new NegativeScribbleTool(viewer, this.settings),
      new LassoTool(viewer, this.settings),
      new BrushTool(viewer, this.settings, actions.labelValue),
      new EraserTool(viewer, this.settings, actions.labelValue),
      this.measuring,
    ];
    this.windowing = new WindowTool(viewer, this.settings);
    this.panning = new PanTool(viewer, this.settings);
    /** @type {Tool} */
    this.tool = this.tools[0];
    /** @type {import("../types.js").Plane | null} under the mouse */
    this.plane = null;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#release(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("pointerleave", () => this.#leave());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  /**
   * Use a tool for the left button.
   * @param {Tool} tool
   */
  choose(tool) {
    this.tool = tool;
    this.overlay.cursor = null;
    this.cancel();
  }

  /** Give up what is being drawn. */
  cancel() {
    this.#end();
    this.overlay.draw();
  }

  #end() {
    this.#gesture = this.overlay.gesture = null;
  }

  /**
   * @param {MouseEvent} event
   * @returns {[number, number]} CSS pixels of the canvas
   */
  #place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** @param {PointerEvent} event */
  #press(event) {
    const [x, y] = this.#place(event);
    const tile = this.viewer.tileAt(x, y);
    if (!tile || this.#gesture) return;
    if (event.isTrusted) this.canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    /** @type {HTMLElement} */ (document.activeElement)?.blur();
    const tool = this.#toolFor(event);
    this.#gesture = tool;
    this.#take(tool.press(tile, x, y));
  }

  /**
   * @param {PointerEvent} event
   * @returns {Tool}
   */
  #toolFor(event) {
    if (event.button === RIGHT) return this.windowing;
    return event.button === MIDDLE || event.shiftKey ? this.panning : this.tool;
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const [x, y] = this.#place(event);
    this.#hover(x, y);
    const gesture = this.#gesture;
    if (gesture) {
      this.#take(gesture.move(x, y));
      if (this.#gesture) this.overlay.gesture = (pen) => gesture.draw(pen);
    }
    if (this.#gesture || this.overlay.cursor) this.overlay.draw();
  }

  /** @param {PointerEvent} event */
  #release(event) {
    const [x, y] = this.#place(event);
    const gesture = this.#gesture;
    this.#end();
    if (gesture) this.#take(gesture.release(x, y));
    this.overlay.draw();
  }

  /** @param {Result | void} result */
  #take(result) {
    if (!result) return;
    this.#end();
    this.actions.done(result);
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  #hover(x, y) {
    const tile = this.viewer.tileAt(x, y);
    this.plane = tile?.plane ?? null;
    const voxel = tile?.toStored(x, y);
    const inside = voxel && tile.grid.contains(voxel) ? voxel : null;
    if (inside && this.tool.hasCircle) {
      const radius = tile.pixels((Math.min(...tile.scale) * this.settings.size) / 2);
      this.overlay.cursor = { x, y, radius };
    } else this.#hideCircle();
    this.actions.hover(inside);
  }

  #leave() {
    this.plane = null;
    this.#hideCircle();
    this.actions.hover(null);
  }

  #hideCircle() {
    if (!this.overlay.cursor) return;
    this.overlay.cursor = null;
    this.overlay.draw();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    const [x, y] = this.#place(event);
    const tile = this.viewer.tileAt(x, y);
    if (!tile) return;
    event.preventDefault();
    if (event.ctrlKey) this.viewer.zoom(event.deltaY < 0 ? ZOOM_STEP : 1 / ZOOM_STEP, tile, x, y);
    else this.viewer.setSlice(tile.plane, tile.index - Math.sign(event.deltaY));
    this.#hover(x, y);
  }
}
